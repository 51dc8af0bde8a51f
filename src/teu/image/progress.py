"""Docker's progress messages: JSON objects, one per line of a stream.

Source: moby `pkg/jsonmessage`, `pkg/streamformatter`.
"""

import time
from collections.abc import Callable
from typing import Any

from teu.units import human_size

Progress = Callable[[dict[str, Any]], None]
_BAR = 50
_INTERVAL_S = 0.1


def stream_line(text: str) -> dict[str, Any]:
    return {"stream": text + "\n"}


def status(text: str, layer_id: str = "") -> dict[str, Any]:
    message: dict[str, Any] = {"status": text}
    if layer_id:
        message["id"] = layer_id
    return message


def step(text: str, layer_id: str, current: int, total: int) -> dict[str, Any]:
    """A message with a bar."""
    return {
        "status": text,
        "progressDetail": {"current": current, "total": total} if total else {"current": current},
        "progress": bar(current, total),
        "id": layer_id,
    }


def idle(text: str, layer_id: str) -> dict[str, Any]:
    """A message about a layer, without a bar."""
    return {"status": text, "progressDetail": {}, "id": layer_id}


def bar(current: int, total: int) -> str:
    """`[=====>     ]  1.2MB/12MB`."""
    if current <= 0 and total <= 0:
        return ""
    if total <= 0:
        return f"{human_size(current, 4):>8}"
    filled = min(int(current / total * 100) // 2, _BAR)
    numbers = f"{human_size(current, 4):>8}"
    if current <= total:
        numbers += f"/{human_size(total, 4)}"
    return f"[{'=' * filled}>{' ' * (_BAR - filled)}] {numbers}"


class Throttled:
    """Passes on at most ten messages a second, and the last one."""

    def __init__(self, progress: Progress, text: str, layer_id: str, total: int) -> None:
        self._progress = progress
        self._text = text
        self._layer_id = layer_id
        self._total = total
        self._due = 0.0

    def __call__(self, current: int) -> None:
        now = time.monotonic()
        if now >= self._due or current == self._total:
            self._due = now + _INTERVAL_S
            self._progress(step(self._text, self._layer_id, current, self._total))
