"""A program and an engine: runs transcripts on it, each from a clean start."""

import io
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from harness import images, leaks
from harness.clients import Cli
from harness.engine import Engine
from parity.transcript import Line, Scenario, masked, parse

LIMIT_S = 60
IMAGE = "busybox"


@dataclass(frozen=True)
class Said:
    """What a line did, masked."""

    code: int
    out: str
    err: str


class SetUp:
    """`registry`: HOST:PORT of one that takes pushes."""

    def __init__(self, name: str, engine: Engine, program: str, registry: str) -> None:
        self.name = name
        self.engine = engine
        self.cli: Cli = engine.cli(program)
        self.registry = registry
        self._ensure_image()
        self._before = leaks.snapshot(engine)

    def _ensure_image(self) -> None:
        """A scenario may have removed it."""
        api, archive = self.engine.api, images.busybox().archive
        if api.request("GET", f"/images/{IMAGE}/json").status != 200:
            reply = api.request("POST", "/images/load", archive.read_bytes())
            assert reply.status == 200, reply

    def run(self, scenario: Scenario, number: int) -> list[tuple[str, Said]]:
        """(line, what it did) of each compared line."""
        place = self.engine.root / f"lines{number}"
        fill(place)
        self._ensure_image()
        values = {
            "image": IMAGE,
            "dir": str(place),
            "registry": self.registry,
            "host": self.engine.host,
            "net": f"10.{200 + self.engine.slot.number % 50}",
        }
        said = []
        try:
            for text in scenario.lines:
                line = parse(text, values)
                result = self._run(line, place, values)
                if line.compared:
                    said.append((text, result))
                elif result.code:
                    print(f"   {self.name}: a line that only prepares failed: {text}: {result}")
        finally:
            for _ in range(2):  # a network may wait for one that was made from it
                leaks.remove_new(self.engine, self._before)
            shutil.rmtree(place, ignore_errors=True)
        return said

    def _run(self, line: Line, place: Path, values: dict[str, str]) -> Said:
        if line.stdin and not (place / line.stdin).exists():
            return Said(1, "", f"{line.stdin} was not made")
        stdin = (place / line.stdin).open("rb") if line.stdin else subprocess.DEVNULL
        stdout = (place / line.stdout).open("wb") if line.stdout else subprocess.PIPE
        try:
            done = subprocess.run(
                [*self.cli.argv, *line.words], stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
                env=self.cli.env, cwd=place, timeout=LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            return Said(-1, f"did not end in {LIMIT_S} s", (late.stderr or b"").decode())
        finally:
            for file in (stdin, stdout):
                if not isinstance(file, int):
                    file.close()
        out, err = (
            masked((text or b"").decode(errors="replace"), values)
            for text in (done.stdout, done.stderr)
        )
        if self.cli.name != "docker":  # its own name is in its texts
            out, err = out.replace("teu", "docker"), err.replace("teu", "docker")
        return Said(done.returncode, out, err)


def fill(place: Path) -> None:
    """The files that the lines name."""
    (place / "folder").mkdir(parents=True)
    (place / "folder/inside").write_text("inside\n")
    (place / "text").write_text("some text\n")
    (place / "env").write_text("# comment\nFROM_FILE=yes\n")
    (place / "labels").write_text("from=file\n")
    with tarfile.open(place / "small.tar", "w") as tar:
        entry = tarfile.TarInfo("x")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"x\n"))
