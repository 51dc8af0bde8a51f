"""A person at a terminal: a command on a pseudo-terminal of its own, typed at and read from."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

from harness.waiting import PATIENCE

CTRL_C = "\x03"
CTRL_D = "\x04"
DETACH = "\x10\x11"  # ctrl-p ctrl-q
_ESCAPES = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)|\x1b[=>()][0-9A-B]?"
)
_NEW_LINE = re.compile(r"\r*\n|\r+")


class Terminal:
    """Runs `argv` with a new controlling terminal; use as a context manager.

    What is read has terminal escape sequences removed, and each way to begin a line is "\\n".
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], rows: int = 24, columns: int = 80
    ) -> None:
        self.argv = argv
        self.seen = ""  # everything so far; for failure messages
        self._fresh = ""  # not yet taken by `expect`
        self._held = ""  # carriage returns that a newline may follow
        self._master, slave = os.openpty()
        self.resize(rows, columns)
        try:
            # setsid(1) makes the terminal the controlling one without a fork in this process.
            self.process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *argv],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env={**env, "TERM": "xterm"},
            )
        finally:
            os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        """Changes the window; the kernel tells the command with SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        """Types `text`, without adding a newline."""
        data = text.encode()
        while data:
            data = data[os.write(self._master, data) :]

    def line(self, text: str) -> None:
        """Types `text` and the return key."""
        self.send(text + "\r")

    def expect(self, pattern: str, timeout_s: float = 15) -> re.Match[str]:
        """Reads on until `pattern` (a regular expression) is seen; what is before it is dropped.

        Raises: AssertionError with all that was seen, at the deadline or at the end of output.
        """
        deadline = time.monotonic() + timeout_s * PATIENCE
        while not (found := re.search(pattern, self._fresh, re.MULTILINE)):
            if not self._read(deadline):
                raise AssertionError(f"{pattern!r} not seen in {self.seen!r} of {self.argv}")
        self._fresh = self._fresh[found.end() :]
        return found

    def wait(self, timeout_s: float = 15) -> int:
        """Reads to the end of output and returns the command's exit code."""
        deadline = time.monotonic() + timeout_s * PATIENCE
        while self._read(deadline):
            pass
        try:
            return self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.argv} did not end; seen: {self.seen!r}") from None

    def _read(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([self._master], [], [], left)[0]:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the last slave end was closed
            return False
        text = self._held + _ESCAPES.sub("", data.decode(errors="replace"))
        self._held = text[len(text.rstrip("\r")) :]
        text = _NEW_LINE.sub("\n", text.rstrip("\r"))
        self.seen += text
        self._fresh += text
        return bool(data)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        os.close(self._master)  # what runs on the terminal gets SIGHUP
        self.process.wait()


def leave(terminal: Terminal, keys: str = DETACH) -> None:
    """Detaches an `attach`: docker reports it as an error of its own, `read escape sequence`."""
    terminal.send(keys)
    terminal.expect("read escape sequence")
    assert terminal.wait() == 1
