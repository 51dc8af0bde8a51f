"""The terminal: its size, raw mode that is always undone, and the keys that detach.

Source: tty_ioctl(4), termios(3); key names as in docker's `--detach-keys`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


def size(descriptor: int = 1) -> tuple[int, int]:
    """Rows and columns; (0, 0) when it is not a terminal."""
    try:
        columns, rows = os.get_terminal_size(descriptor)
    except OSError:
        return 0, 0
    return rows, columns


class RawMode:
    """Puts a terminal into raw mode; `restore` may be called any number of times.

    Not a terminal: nothing happens.
    """

    __slots__ = ("_descriptor", "_saved")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._saved: list[Any] | None = None

    def enter(self) -> None:
        """What cfmakeraw(3) does, so that every key goes to the container."""
        if not os.isatty(self._descriptor):
            return
        import termios as t

        self._saved = t.tcgetattr(self._descriptor)
        mode = t.tcgetattr(self._descriptor)
        mode[0] &= ~(
            t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON
        )
        mode[1] &= ~t.OPOST
        mode[2] = mode[2] & ~(t.CSIZE | t.PARENB) | t.CS8
        mode[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
        mode[6][t.VMIN] = 1
        mode[6][t.VTIME] = 0
        t.tcsetattr(self._descriptor, t.TCSANOW, mode)

    def restore(self) -> None:
        """The mode from before `enter`. Safe in signal handlers."""
        if self._saved is None:
            return
        import termios as t

        saved, self._saved = self._saved, None
        try:
            t.tcsetattr(self._descriptor, t.TCSANOW, saved)
        except (OSError, t.error):
            pass  # the terminal is gone


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` -> b"\\x10\\x11". Raises: ValueError naming the wrong key."""
    keys = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            keys.append(ord(key))
            continue
        letter = key.lower().removeprefix("ctrl-")
        if len(letter) != 1 or letter == key or not ("a" <= letter <= "z" or letter in "@[\\]^_"):
            raise ValueError(f"Unknown character: '{key}'")
        keys.append(ord(letter.upper()) - 64)
    return bytes(keys)


class KeyWatch:
    """Looks for the detach keys in what is typed. Keys that may be the beginning of the
    sequence are held back until the next key tells.
    """

    __slots__ = ("_keys", "_matched")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to send on, and whether the sequence is complete (then nothing more is sent)."""
        passed = bytearray()
        for byte in data:
            while self._matched and byte != self._keys[self._matched]:
                self._fall_back(passed)
            if byte != self._keys[self._matched]:
                passed.append(byte)
                continue
            self._matched += 1
            if self._matched == len(self._keys):
                self._matched = 0
                return bytes(passed), True
        return bytes(passed), False

    def _fall_back(self, passed: bytearray) -> None:
        """Lets the oldest held keys go until the rest begins the sequence again."""
        held = self._keys[: self._matched]
        for start in range(1, len(held) + 1):
            if self._keys.startswith(held[start:]):
                passed += held[:start]
                self._matched = len(held) - start
                return
