"""What people see while a project changes: one line for each thing, redrawn at a terminal.

Elsewhere each change of state is a line of its own, on standard error, as docker compose does.
"""

from __future__ import annotations

import sys
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_WORKING, _DONE, _FAILED = "⠿", "✔", "✘"
_COLOURS = {_DONE: "\x1b[32m", _FAILED: "\x1b[31m", _WORKING: "\x1b[33m"}
_ENDS = frozenset(
    "Created Started Running Healthy Removed Stopped Built Pulled Exited Pushed Killed Paused "
    "Unpaused Restarted Skipped Recreated".split()
)


class Steps:
    """Tell it what happens; safe in several threads. `quiet`: shows nothing."""

    def __init__(self, out: TextIO = sys.stderr, *, quiet: bool = False) -> None:
        self._out = out
        self._quiet = quiet
        self._terminal = out.isatty() and not quiet
        self._lines: dict[str, tuple[str, float]] = {}
        self._drawn = 0
        self._lock = threading.Lock()

    def tell(self, what: str, state: str) -> None:
        """`what`: `Container app-web-1`; `state`: Creating, Created, Error …"""
        with self._lock:
            began = self._lines[what][1] if what in self._lines else time.monotonic()
            if self._lines.get(what, ("", 0.0))[0] == state:
                return
            self._lines[what] = (state, began)
            if self._terminal:
                self._draw()
            elif not self._quiet:
                self._out.write(f" {what}  {state}\n")
                self._out.flush()

    def _draw(self) -> None:
        width = max(len(what) for what in self._lines)
        lines = []
        done = 0
        for what, (state, began) in self._lines.items():
            sign = _FAILED if state.startswith("Error") else _DONE if state in _ENDS else _WORKING
            done += sign == _DONE
            took = f"{time.monotonic() - began:.1f}s"
            lines.append(f" {_COLOURS[sign]}{sign}\x1b[0m {what:<{width}}  {state:<12} {took:>7}")
        head = f"[+] Running {done}/{len(lines)}"
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        text = "\n".join(f"\x1b[2K{line}" for line in [head, *lines])
        self._out.write(f"{up}{text}\n")
        self._out.flush()
        self._drawn = len(lines) + 1
