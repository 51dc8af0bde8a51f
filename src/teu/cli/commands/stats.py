"""`stats`: a table of resource usage, redrawn twice a second.

Each container's stream is read in a thread of its own; the main thread opens connections and
draws. Source: docker/cli `container/stats_helpers.go`, `formatter_stats.go`.
"""

from __future__ import annotations

import _thread
import sys
import time

from teu.cli.commands.lifecycle import escape
from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session
from teu.cli.tables import Listing, render
from teu.units import human_size, human_size_binary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.http1 import Response

_DEFAULT = (
    "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t"
    "{{.BlockIO}}\t{{.PIDs}}"
)
_REDRAW_S = 0.5
_FIRST_WAIT_S = 3.0
_UNKNOWN = "--"


class Usage:
    """One row: the newest sample of a container. `sample` is None before the first arrives."""

    __slots__ = ("full", "gone", "name", "sample")

    def __init__(self, name: str, full: bool) -> None:
        self.name = name
        self.full = full
        self.sample: dict[str, Any] | None = None
        self.gone = False

    def follow(self, session: Session, response: Response) -> None:
        """Reads samples until the stream ends (in a thread)."""
        try:
            for sample in session.client.objects(response):
                self.sample = sample
        except Failure:
            pass  # the container or the daemon is gone; the row goes with it
        self.gone = True


def _memory(row: Usage) -> tuple[int, int]:
    """Used without page cache, and the limit."""
    memory = (row.sample or {}).get("memory_stats") or {}
    used = int(memory.get("usage") or 0)
    detail = memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        cache = int(detail.get(name) or 0)
        if name in detail:
            used -= cache if cache < used else 0
            break
    return used, int(memory.get("limit") or 0)


def _cpu(row: Usage) -> float:
    now = (row.sample or {}).get("cpu_stats") or {}
    before = (row.sample or {}).get("precpu_stats") or {}
    usage, usage_before = now.get("cpu_usage") or {}, before.get("cpu_usage") or {}
    used = float(usage.get("total_usage") or 0) - float(usage_before.get("total_usage") or 0)
    system = float(now.get("system_cpu_usage") or 0) - float(before.get("system_cpu_usage") or 0)
    cpus = now.get("online_cpus") or len(usage.get("percpu_usage") or ())
    return used / system * cpus * 100 if used > 0 and system > 0 else 0.0


def _network(row: Usage) -> str:
    links = ((row.sample or {}).get("networks") or {}).values()
    received = sum(link.get("rx_bytes", 0) for link in links)
    sent = sum(link.get("tx_bytes", 0) for link in links)
    return f"{human_size(received)} / {human_size(sent)}"


def _block(row: Usage) -> str:
    block = (row.sample or {}).get("blkio_stats") or {}
    totals = {"r": 0, "w": 0}
    for entry in block.get("io_service_bytes_recursive") or ():
        operation = str(entry.get("op", ""))[:1].lower()
        if operation in totals:
            totals[operation] += int(entry.get("value") or 0)
    return f"{human_size(totals['r'])} / {human_size(totals['w'])}"


def _id(row: Usage) -> str:
    identifier = str((row.sample or {}).get("id") or row.name)
    return identifier if row.full else identifier[:12]


def _memory_text(row: Usage) -> str:
    used, limit = _memory(row)
    return f"{human_size_binary(used)} / {human_size_binary(limit)}"


def _memory_share(row: Usage) -> str:
    used, limit = _memory(row)
    return f"{used / limit * 100 if limit else 0.0:.2f}%"


def _name(row: Usage) -> str:
    return str((row.sample or {}).get("name") or "").removeprefix("/") or _UNKNOWN


def _processes(row: Usage) -> str:
    return str(((row.sample or {}).get("pids_stats") or {}).get("current") or 0)


LISTING = Listing(
    "*container.statsContext",
    {
        "Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %", "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
    },
    {
        "Container": lambda row: row.name, "ID": _id, "Name": _name,
        "CPUPerc": lambda row: f"{_cpu(row):.2f}%", "MemUsage": _memory_text,
        "MemPerc": _memory_share, "NetIO": _network, "BlockIO": _block, "PIDs": _processes,
    },
)  # fmt: skip


def stats(session: Session, options: Options, names: list[str]) -> int:
    form = options.text("format") or session.config.text("statsFormat") or _DEFAULT
    board = _Board(session, names, form, options)
    if options.flag("no-stream"):
        board.take_once()
        return 0
    return board.follow()


class _Board:
    """The rows on the screen."""

    def __init__(self, session: Session, names: list[str], form: str, options: Options) -> None:
        self._session = session
        self._names = names
        self._form = _DEFAULT if form == "table" else form
        self._all = options.flag("all")
        self._full = options.flag("no-trunc")
        self._rows: dict[str, Usage] = {}

    def take_once(self) -> None:
        """One sample of each; the daemon takes a second for it, so all are asked at once."""
        client = self._session.client
        answers = []
        for name in self._wanted():
            row = self._rows[name] = Usage(name, self._full)
            path = f"/containers/{escape(name)}/stats"
            answers.append((row, client.open("GET", path, {"stream": 0})))
        for row, answer in answers:
            row.sample = client.finish_json(answer())
        self._session.out(self._text())

    def follow(self) -> int:
        """Redraws until the user stops it, or until the last named container is gone."""
        terminal = sys.stdout.isatty()
        started = time.monotonic()
        while True:
            for name in self._wanted():
                if name not in self._rows:
                    self._add(name)
            for name in [name for name, row in self._rows.items() if row.gone]:
                del self._rows[name]
            if self._names and not self._rows:
                return 0
            waiting = any(row.sample is None for row in self._rows.values())
            if not waiting or time.monotonic() - started > _FIRST_WAIT_S:
                self._draw(terminal)
            time.sleep(_REDRAW_S if not waiting else _REDRAW_S / 10)

    def _wanted(self) -> list[str]:
        if self._names:
            return self._names if not self._rows else []
        found = self._session.client.get("/containers/json", {"all": self._all})
        return [entry["Id"][:12] for entry in found or ()]

    def _add(self, name: str) -> None:
        path = f"/containers/{escape(name)}/stats"
        response = self._session.client.request("GET", path, {"stream": 1})
        row = self._rows[name] = Usage(name, self._full)
        _thread.start_new_thread(row.follow, (self._session, response))

    def _text(self) -> str:
        return render(LISTING, self._rows.values(), self._form)

    def _draw(self, terminal: bool) -> None:
        text = self._text()
        if terminal:
            # Home, every line with its rest cleared, then everything below: no flicker.
            lines = text.rstrip("\n").replace("\n", "\x1b[K\n")
            text = f"\x1b[H{lines}\x1b[K\n\x1b[J"
        self._session.out(text)
        sys.stdout.flush()


COMMANDS = {
    "container stats": Command(
        stats,
        "[OPTIONS] [CONTAINER...]",
        args=(0, None),
        flags=(
            Flag("all", "a", "bool", "Show stopped containers too"),
            Flag("format", "", "string", "'table', 'table TEMPLATE', 'json', or a Go template"),
            Flag("no-stream", "", "bool", "Print one sample and exit"),
            Flag("no-trunc", "", "bool", "Show ids in full length"),
        ),
    ),
}
