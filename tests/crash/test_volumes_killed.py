"""`kill -9` of a real daemon while volumes are filled, mounted, copied and removed.

Every line of the volumes' own code is ended at in test_volume_points.py; here are the mounts, the
helpers and the containers around them. The leak check after each test looks for what stayed.
"""

import contextlib
import http.client
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until

FILES = 400


@pytest.fixture
def cli(private_engine: Engine) -> Cli:
    return private_engine.cli("teu" if private_engine.kind == "teu" else "docker")


@pytest.fixture
def image(cli: Cli, names: Names) -> str:
    """With some hundred files below /fill."""
    name = names("i").lower()
    script = f"mkdir /fill; cd /fill; for i in $(seq {FILES}); do echo $i > $i; done"
    cli.ok("run", "--name", names("m"), "busybox", "sh", "-c", script)
    cli.ok("commit", names("m"), name)
    return name


def killed_during(engine: Engine, delay_s: float, work: Callable[[], object]) -> None:
    """Starts the work, kills the daemon under it, and starts another one."""

    def attempt() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            work()

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join(delay_s)
    engine.kill()
    thread.join()
    engine.start()


def data(engine: Engine, name: str) -> Path:
    return Path(engine.api.get(f"/volumes/{name}")["Mountpoint"])


@pytest.mark.parametrize("delay_ms", [10, 25, 45])
def test_while_a_volume_is_filled(
    private_engine: Engine, cli: Cli, names: Names, image: str, delay_ms: int
) -> None:
    engine, volume = private_engine, names("v")
    made = cli.ok("create", "-v", f"{volume}:/fill", image, "sh", "-c", "ls /fill | wc -l")
    engine.known_ids.add(made)
    start = f"/containers/{made}/start"
    killed_during(engine, delay_ms / 1000, lambda: engine.api.request("POST", start))
    assert len(list(data(engine, volume).iterdir())) in (0, FILES)
    cli.run("start", made)
    assert cli.ok("wait", made) == "0"
    assert cli.ok("logs", "--tail", "1", made) == str(FILES)


@pytest.mark.parametrize("delay_ms", [5, 20, 40])
def test_while_everything_is_mounted(
    private_engine: Engine, cli: Cli, names: Names, image: str, tmp_path: Path, delay_ms: int
) -> None:
    """A start with a mounted volume, a sub-path, an image and an id map, cut short anywhere."""
    engine = private_engine
    if engine.kind != "teu":
        pytest.skip("the peer has no such mounts")
    for volume in ("v", "t"):
        more = ["-o", "type=tmpfs", "-o", "device=tmpfs"] if volume == "t" else []
        cli.ok("volume", "create", *more, names(volume))
    (data(engine, names("v")) / "sub").mkdir()
    mounts = [
        *("--mount", f"type=volume,src={names('v')},dst=/sub,volume-subpath=sub"),
        *("-v", f"{names('t')}:/t"), "--mount", f"type=image,src={image},dst=/i,image-subpath=fill",
        *("-v", f"{tmp_path}:/m:idmap"),
    ]  # fmt: skip
    made = cli.ok("create", *mounts, "busybox", "sleep", "1000")
    engine.known_ids.add(made)
    start = f"/containers/{made}/start"
    killed_during(engine, delay_ms / 1000, lambda: engine.api.request("POST", start))
    running = engine.api.state(made)["Status"] == "running"
    assert data(engine, names("t")).is_mount() is running
    if not running:
        cli.ok("start", made)
    assert not [point for point in engine.mount_points() if "/mounts/" in point]
    assert cli.ok("exec", made, "ls", "/i").count("\n") == FILES - 1
    engine.kill()  # while it runs: the mount stays, and goes with it
    engine.start()
    assert data(engine, names("t")).is_mount()
    cli.ok("exec", made, "touch", "/t/x", "/sub/x", "/m/x")
    cli.ok("rm", "-f", made)
    until("the volume is unmounted", lambda: not data(engine, names("t")).is_mount())
    assert (data(engine, names("v")) / "sub/x").exists()


@pytest.mark.parametrize("delay_ms", [5, 30])
def test_while_volumes_are_pruned(
    private_engine: Engine, cli: Cli, names: Names, delay_ms: int
) -> None:
    engine = private_engine
    cli.ok("create", "--name", names("c"), "-v", f"{names('used')}:/d", "busybox")
    for name in ("used", *(f"free{number}" for number in range(5))):
        cli.ok("volume", "create", names(name))
        for number in range(200):
            (data(engine, names(name)) / str(number)).write_text(name)
    prune = "/volumes/prune"
    filters = '{"all": ["true"]}'
    killed_during(
        engine, delay_ms / 1000, lambda: engine.api.request("POST", prune, filters=filters)
    )
    left = {row["Name"] for row in engine.api.get("/volumes")["Volumes"]}
    assert names("used") in left
    for name in left:
        assert len(list(data(engine, name).iterdir())) == 200
    if engine.kind == "teu":
        assert {p.name for p in (engine.data_root / "volumes").iterdir()} == left


def test_paused_writers_go_on(private_engine: Engine, cli: Cli, names: Names) -> None:
    """Killed in the middle of a snapshot, which is gone; the container runs."""
    engine, volume = private_engine, names("v")
    if engine.kind != "teu":
        pytest.skip("the peer has no snapshots")
    script = "while :; do date > /d/now; usleep 10000; done"
    made = cli.ok("run", "-d", "-v", f"{volume}:/d", "busybox", "sh", "-c", script)
    for number in range(300):
        (data(engine, volume) / str(number)).write_bytes(b"x" * 10_000)
    snapshot = cli.spawn("volume", "snapshot", volume, names("s"))
    until("it is paused", lambda: engine.api.state(made)["Status"] == "paused")
    engine.kill()
    snapshot.communicate()
    engine.start()
    assert engine.api.state(made)["Status"] == "running"
    (data(engine, volume) / "now").unlink(missing_ok=True)
    until("it writes", (data(engine, volume) / "now").exists)
    status = engine.api.request("GET", f"/volumes/{names('s')}").status
    if status == 200:  # it was faster
        assert (data(engine, names("s")) / "299").stat().st_size == 10_000
    else:
        assert not (engine.data_root / "volumes" / names("s")).exists()
