"""Help, suggestions, manual pages and completion: made from the tables, so true to them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.clients import teu_argv
from harness.fakeapi import FakeApi, fake_api, teu_here
from teu.cli.commands import TABLE
from teu.cli.complete import split_words
from teu.cli.help import existing_rows, grouped
from teu.cli.main import load
from teu.cli.suggest import nearest

ROWS = [row for row in existing_rows() if load(row) is not None]


def test_program_help_names_every_command() -> None:
    out = teu_here(None, "--help").out
    assert out.startswith("Usage:  teu [OPTIONS] COMMAND\n")
    for row in existing_rows():
        name = row[1] or row[0].partition(" ")[0]
        assert f"\n  {name} " in out
    assert "swarm" not in out
    assert teu_here(None).out == out
    assert teu_here(None, "help").out == out


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].replace(" ", "-"))
def test_every_command_explains_itself(row: Any) -> None:
    said = teu_here(None, *row[0].split(), "--help")
    assert said.code == 0
    assert said.out.startswith(f"Usage:  teu {row[0]}")
    assert max(map(len, said.out.splitlines())) <= 110
    command = load(row)
    assert command is not None
    for flag in command.flags:
        shown = re.search(rf" --{flag.name}( |$)", said.out, re.MULTILINE) is not None
        windows = flag.help == "Windows only"
        assert shown != (flag.hidden or flag.missing or windows), flag.name
    assert teu_here(None, "help", *row[0].split()).out == said.out


def test_flags_of_run_are_grouped_without_loss() -> None:
    row = next(row for row in TABLE if row[0] == "container run")
    command = load(row)
    assert command is not None
    sections = grouped(row[0], command.flags)
    titles = [title for title, _ in sections]
    assert titles[:2] == ["Basics", "Files and volumes"]
    assert "More options" not in titles
    names = [flag.name for _, flags in sections for flag in flags]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("word", "meant"),
    [("pss", "ps"), ("imagse", "images"), ("strat", "start"), ("netwrok", "network"),
     ("conta", "container"), ("xyzzy", ""), ("", "")],
)  # fmt: skip
def test_suggestions(word: str, meant: str) -> None:
    assert nearest(word, ["ps", "images", "start", "stats", "network", "container", "rm"]) == meant


def test_unknown_commands() -> None:
    said = teu_here(None, "imagse")
    assert said.err == (
        "teu: unknown command: teu imagse\n\nDid you mean 'teu images'?\n\n"
        "Run 'teu --help' for more information\n"
    )
    assert said.code == 1
    assert "Did you mean 'teu volume prune'?" in teu_here(None, "volume", "prun").err
    assert "Did you mean" not in teu_here(None, "xyzzy").err
    assert teu_here(None, "help", "xyzzy").err == "unknown help topic: xyzzy\n"


def test_manual_pages(tmp_path: Path) -> None:
    from teu.cli.manpage import write_pages

    names = write_pages(str(tmp_path))
    assert "teu.1" in names
    assert "teu-container-run.1" in names
    page = (tmp_path / "teu-container-run.1").read_text()
    assert "\\fB\\-p, \\-\\-publish" in page
    man = shutil.which("groff")
    if man:
        for name in ("teu.1", "teu-container-run.1", "teu-context-create.1"):
            done = subprocess.run(
                [man, "-man", "-Tutf8", "-ww", "-z", str(tmp_path / name)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.stderr == "", name


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("teu ", ["teu", ""]),
        ("teu ps -", ["teu", "ps", "-"]),
        ("teu run -e 'a b' \"c d", ["teu", "run", "-e", "a b", "c d"]),
        (r"teu run a\ b", ["teu", "run", "a b"]),
        ("", [""]),
    ],
)
def test_unfinished_lines_are_split(line: str, words: list[str]) -> None:
    assert split_words(line) == words


ROUTES = {
    "GET /containers/json": [
        {"Names": ["/web", "/db/alias"], "Image": "nginx", "Status": "Up", "State": "running"},
        {"Names": ["/old"], "Image": "nginx", "Status": "Exited", "State": "exited"},
    ],
    "GET /images/json": [{"RepoTags": ["nginx:latest", "reg:5000/x:1"], "Size": 1000}],
    "GET /networks": [{"Name": "lan", "Driver": "bridge"}],
    "GET /volumes": {"Volumes": [{"Name": "data", "Driver": "local"}]},
}


def complete(api: FakeApi, line: str) -> list[str]:
    done = subprocess.run(
        [*teu_argv(), "-H", api.host, "__complete", "--", line],
        capture_output=True, text=True, check=True, timeout=20, env={"HOME": "/nonexistent"},
    )  # fmt: skip
    return [text.partition("\t")[0] for text in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("teu im", ["image", "images", "import"]),
        ("teu container ru", ["run"]),
        ("teu help netw", ["network"]),
        ("teu rm ", ["web", "old"]),
        ("teu rm web ", ["old"]),
        ("teu rm -f w", ["web"]),
        ("teu start ", ["old"]),
        ("teu run --network ", ["lan"]),
        ("teu run --network=l", ["--network=lan"]),
        ("teu run -it n", ["nginx:latest", "nginx"]),
        ("teu run nginx ", [":files"]),
        ("teu run --pull ", ["always", "missing", "never"]),
        ("teu run --vol", ["--volume", "--volume-driver", "--volumes-from"]),
        ("teu volume rm d", ["data"]),
        ("teu network connect lan w", ["web"]),
        ("teu completion ", ["bash", "zsh", "fish"]),
        ("teu --context d", ["default"]),
        ("teu nonsense ", []),
        ("teu ps extra ", []),
    ],
)
def test_candidates(line: str, found: list[str]) -> None:
    with fake_api(ROUTES) as api:
        assert complete(api, line) == found


def test_no_daemon_no_candidates_no_noise() -> None:
    done = subprocess.run(
        [*teu_argv(), "-H", "unix:///nonexistent.sock", "__complete", "--", "teu rm "],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


BASH = """
source <("$1" completion bash)
COMP_LINE="$2" COMP_POINT=${#2}
COMP_WORDS=($3) COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_teu_complete
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("line", "cut_by_bash", "reply"),
    [
        ("teu rm w", "teu rm w", ["web"]),
        ("teu run nginx:l", "teu run nginx : l", ["latest"]),
        ("teu run --network=l", "teu run --network = l", ["lan"]),
        ("teu images reg:5000/", "teu images reg : 5000/", ["5000/x:1"]),
    ],
)
def test_bash(tmp_path: Path, line: str, cut_by_bash: str, reply: list[str]) -> None:
    with fake_api(ROUTES) as api:
        program = tmp_path / "teu"
        *start, code = teu_argv()
        launcher = tmp_path / "main.py"
        launcher.write_text(code)
        program.write_text(f'#!/bin/sh\nexec {" ".join(start[:-1])} {launcher} "$@"\n')
        program.chmod(0o755)
        environment = {
            "PATH": f"{tmp_path}:/usr/bin:/bin", "DOCKER_HOST": api.host, "HOME": str(tmp_path)
        }  # fmt: skip
        done = subprocess.run(
            ["bash", "--norc", "-c", BASH, "bash", str(program), line, cut_by_bash],
            capture_output=True, text=True, check=True, timeout=30, env=environment,
        )  # fmt: skip
    assert done.stdout.split() == reply


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_can_read_their_scripts(tmp_path: Path, shell: str) -> None:
    script = teu_here(None, "completion", shell).out
    assert "teu __complete --" in script
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    path = tmp_path / "script"
    path.write_text(script)
    subprocess.run([found, "-n", str(path)], check=True, timeout=20)


def test_an_unknown_shell_is_refused() -> None:
    said = teu_here(None, "completion", "tcsh")
    assert said.code == 1
    assert "bash, zsh, fish" in said.err
