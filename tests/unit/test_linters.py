"""The linters and the type checker are tests: one gate, the same everywhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
IN_CI = bool(os.environ.get("CI"))


def run(tool: str, *words: str) -> None:
    program = BIN / tool
    if not program.exists() and not IN_CI:
        pytest.skip(f"{tool} is not installed beside this Python (run-tests installs it)")
    done = subprocess.run(
        [program, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    run("ruff", "check", "--quiet", "src", "tests")


def test_code_is_formatted() -> None:
    run("ruff", "format", "--check", "--quiet", "src", "tests")


@pytest.mark.timeout(300)
def test_types_are_sound() -> None:
    run("mypy")
