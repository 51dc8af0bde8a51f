"""What the daemon is doing right now, for whoever asks with SIGUSR1."""

import asyncio
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

log = logging.getLogger(__name__)


def dump(directory: Path) -> Path | None:
    """Writes the stacks of all threads and tasks to a new file there; None if it cannot."""
    path = directory / f"stacks-{datetime.now(UTC):%Y-%m-%dT%H%M%S.%fZ}.log"
    try:
        path.write_text("".join(_threads()) + "".join(_tasks()))
    except OSError as error:
        log.error("cannot write the stacks to %s: %s", path, error)
        return None
    log.info("stacks written to %s", path)
    return path


def _threads() -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        yield f"thread {names.get(ident, ident)}:\n"
        yield "".join(traceback.format_stack(frame)) + "\n"


def _tasks() -> Iterator[str]:
    for task in sorted(asyncio.all_tasks(), key=asyncio.Task.get_name):
        yield f"task {task.get_name()}:\n"
        for frame in _awaits(task.get_coro()):
            yield "".join(traceback.format_stack(frame, 1))
        yield "\n"


def _awaits(waiting: Any) -> Iterator[FrameType]:
    """Down the chain of awaits: `Task.get_stack` shows only the first link of it."""
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is None:
            return
        yield frame
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
