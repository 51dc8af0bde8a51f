"""The daemon's own log on standard error, in the shape that dockerd's has.

    time="2025-01-31T12:00:00.123456789Z" level=info msg="…"        --log-format=text
    {"time":"…","level":"info","msg":"…"}                           --log-format=json

A traceback follows as `error` (its last line) and `trace`. A line is one write(2), so lines of
threads never mix. A log that nobody reads any more never stops the daemon.
"""

import json
import logging
import re
import sys
import traceback
from typing import TextIO

from teu.clock import format_ns

_LEVELS = {"WARNING": "warning", "CRITICAL": "fatal"}
_BARE = re.compile(r"[a-zA-Z0-9@^+._/-]+")
_CHATTY = ("asyncio", "aiohttp.server", "aiohttp.web", "aiohttp.client", "aiohttp.access")


class LineFormatter(logging.Formatter):
    """`time`, `level`, `msg` and, after a failure, `error` and `trace`."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "time": format_ns(int(record.created * 1e9)),
            "level": _LEVELS.get(record.levelname, record.levelname.lower()),
            "msg": record.getMessage(),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            facts["error"] = f"{type(error).__name__}: {error}"
            facts["trace"] = "".join(traceback.format_exception(error))
        if self._as_json:
            return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        return " ".join(f"{key}={_quoted(value)}" for key, value in facts.items())


def _quoted(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def configure(level: str, log_format: str, stream: TextIO | None = None) -> None:
    """Sends all loggers of the process to `stream` (standard error)."""
    logging.raiseExceptions = False
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(log_format == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    set_level(level)


def set_level(level: str) -> None:
    """Also what a reload calls. Libraries speak up only when something is wrong."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
