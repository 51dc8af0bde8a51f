"""The shell scripts at the project's root: sound, and clear about what they refuse."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("quickstart", "run-tests", ".ci/run", "packaging/lib.sh")


def run(*words: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=20, user=user
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_syntax(script: str) -> None:
    assert run("bash", "-n", script).stderr == ""


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck_finds_nothing() -> None:
    assert run("shellcheck", "-x", *SCRIPTS[:3]).stdout == ""


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s != "packaging/lib.sh"])
def test_may_be_called(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_quickstart_explains_itself() -> None:
    done = run("./quickstart", "--help")
    assert done.returncode == 0
    for option in ("--docker", "--no-start", "--remove", "--purge"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--dokker"], "quickstart: unknown option: --dokker"),
        (["--purge"], "quickstart: --purge goes with --remove"),
    ],
)
def test_quickstart_refuses_what_it_does_not_know(words: list[str], text: str) -> None:
    done = run("./quickstart", *words)
    assert done.returncode == 1
    assert text in done.stderr
    assert "What to do: see ./quickstart --help" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
@pytest.mark.parametrize("script", ["quickstart", "run-tests"])
def test_needs_root(script: str) -> None:
    with tempfile.TemporaryDirectory(prefix="teu-script-") as place:
        os.chmod(place, 0o755)
        for name in (script, "packaging/lib.sh"):
            target = Path(place, name)
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(ROOT / name, target)
        done = run("bash", f"{place}/{script}", user=65534)
    assert done.returncode == 1
    assert "this needs root" in done.stderr
    assert "What to do: run it again with sudo" in done.stderr
