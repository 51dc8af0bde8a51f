"""Things that are slow to make, made once per machine and shared by all test processes.

$TEU_TEST_CACHE, else $XDG_CACHE_HOME/teu-tests, else /var/cache/teu-tests (root) or
~/.cache/teu-tests
    NAME-KEY/      a finished thing; KEY is a hash of the recipe
    NAME.lock      held while it is being made
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def directory() -> Path:
    """The cache's root; made when missing."""
    if told := os.environ.get("TEU_TEST_CACHE"):
        root = Path(told)
    elif xdg := os.environ.get("XDG_CACHE_HOME"):
        root = Path(xdg) / "teu-tests"
    elif os.geteuid() == 0:
        root = Path("/var/cache/teu-tests")
    else:
        root = Path.home() / ".cache" / "teu-tests"
    root.mkdir(parents=True, exist_ok=True)
    return root


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on `path`; the kernel frees it when the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def built(name: str, recipe: str, build: Callable[[Path], None]) -> Path:
    """The directory that `build` fills, from the cache where `recipe` is unchanged.

    Crash: a half-made directory has a temporary name and is thrown away by the next call.
    """
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    final = directory() / f"{name}-{key}"
    with locked(directory() / f"{name}.lock"):
        if final.is_dir():
            return final
        for old in directory().iterdir():
            if re.fullmatch(rf"{re.escape(name)}-[0-9a-f]{{12}}(\.tmp)?", old.name):
                shutil.rmtree(old)
        work = directory() / f"{name}-{key}.tmp"
        work.mkdir()
        build(work)
        work.rename(final)
    return final


def command(*argv: str | Path, timeout_s: float = 600) -> str:
    """Runs a tool of the host; its output is in the error when it fails."""
    done = subprocess.run(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout_s,
        check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise RuntimeError(f"{argv[0]} failed ({done.returncode}): {said}")
    return done.stdout.decode(errors="replace")
