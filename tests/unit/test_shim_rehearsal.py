"""The rehearsal plays whole lives, and leaves nothing."""

import os
import subprocess
import sys
from pathlib import Path

from teu.shim.rehearsal import ROUNDS

SOURCE = Path(__file__).parents[2] / "src"
PLAY = """
import gc, os, signal, sys
sys.path.insert(0, sys.argv[1])
from teu.shim import rehearsal, shim
ended = []
report = shim.Shim._report_exit
shim.Shim._report_exit = lambda self: (ended.append(self._exit["exit_code"]), report(self))
fds = set(os.listdir("/proc/self/fd"))
handler = signal.getsignal(signal.SIGCHLD)
rehearsal.rehearse(sys.argv[2])
gc.collect()
assert ended == [0] * int(sys.argv[3]), ended
assert set(os.listdir("/proc/self/fd")) == fds, os.listdir("/proc/self/fd")
assert signal.getsignal(signal.SIGCHLD) == handler
assert not open(f"/proc/self/task/{os.getpid()}/children").read()
"""


def play(directory: Path, rounds: int, **options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PLAY, str(SOURCE), str(directory), str(rounds)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env=options or None
    )


def test_it_plays_to_the_end_and_leaves_nothing(tmp_path: Path) -> None:
    done = play(tmp_path / "scratch", ROUNDS)
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path / "scratch") == []


def test_it_costs_only_itself_where_it_cannot_play(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = play(tmp_path / "file", 0)  # no directory can be made there
    assert done.returncode == 0, done.stderr
    done = play(tmp_path / "scratch", 0, PATH="/nowhere")  # no shell
    assert done.returncode == 0, done.stderr
