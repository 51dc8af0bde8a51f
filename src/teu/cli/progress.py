"""The daemon's progress messages as Docker shows them.

On a terminal every id has a line of its own that is redrawn in place; elsewhere only the changes
of state are printed, without bars. Source: moby `pkg/jsonmessage`.

    {"status", "id", "progressDetail": {"current", "total", "units", "hidecounts"}}
    {"stream"}   {"errorDetail": {"code", "message"}}   {"aux": {...}}
"""

from __future__ import annotations

import os

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TextIO

_BAR_WIDTH = 50
_WIDE_TERMINAL = 110
_CLEAR_LINE = "\x1b[2K"


class ProgressView:
    """Draws messages on `out`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._columns = _columns(out) if self._terminal else 0
        self._lines: dict[str, int] = {}

    def show_all(
        self, messages: Iterable[Any], on_aux: Callable[[Any], None] | None = None
    ) -> None:
        """Draws the whole stream. Raises: Failure for an error that the daemon reports in it."""
        try:
            for message in messages:
                if message.get("aux") is not None:
                    if on_aux:
                        self._lines.clear()  # what it prints must not be drawn over
                        on_aux(message["aux"])
                else:
                    self.show(message)
        finally:
            self._out.flush()

    def show(self, message: dict[str, Any]) -> None:
        """Draws one message. Raises: Failure when it is an error."""
        if error := message.get("errorDetail") or message.get("error"):
            text = error.get("message", "") if isinstance(error, dict) else str(error)
            raise Failure(text or "the daemon reports an error without a text")
        identity = message.get("id") or ""
        detail = message.get("progressDetail")
        if identity and detail is not None:
            self._show_in_place(identity, message, detail)
        else:
            self._lines.clear()
            self._write(message, detail)
        self._out.flush()

    def _show_in_place(self, identity: str, message: dict[str, Any], detail: Any) -> None:
        if not self._terminal:
            if not bar(detail, 0):
                self._write(message, detail)
            return
        if identity not in self._lines:
            self._lines[identity] = len(self._lines)
            self._out.write("\n")
        up = len(self._lines) - self._lines[identity]
        self._out.write(f"\x1b[{up}A{_CLEAR_LINE}\r")
        text = bar(detail, self._columns)
        self._out.write(f"{identity}: {message.get('status', '')} {text}\r\x1b[{up}B")

    def _write(self, message: dict[str, Any], detail: Any) -> None:
        if detail and not self._terminal and bar(detail, 0):
            return
        prefix = f"{message['id']}: " if message.get("id") else ""
        if message.get("stream"):
            self._out.write(f"{prefix}{message['stream']}")
        else:
            self._out.write(f"{prefix}{message.get('status', '')}\n")


def _columns(out: TextIO) -> int:
    try:
        return os.get_terminal_size(out.fileno()).columns
    except OSError:
        return 0


def bar(detail: dict[str, Any] | None, columns: int) -> str:
    """`[=====>    ]  1.2MB/3.4MB`; only the numbers when the terminal is narrow; "" for no news."""
    detail = detail or {}
    current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{_amount(current, detail):>8}"
    done = min(current * 100 // total // 2, _BAR_WIDTH)
    box = f"[{'=' * done}>{' ' * (_BAR_WIDTH - done)}] " if columns > _WIDE_TERMINAL else ""
    if detail.get("hidecounts"):
        return box
    numbers = f"{_amount(current, detail):>8}"
    if current <= total:
        numbers += f"/{_amount(total, detail)}"
    return box + numbers


def _amount(value: int, detail: dict[str, Any]) -> str:
    if unit := detail.get("units"):
        return f"{value} {unit}"
    from teu.units import human_size

    return human_size(value, 4)
