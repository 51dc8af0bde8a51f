"""A build's events as people see them: plain lines, or a picture that is redrawn at a terminal.

    {"aux": {"kind", "step", "name", "text", "at_ns", "total"}}     kinds: build/progress.py

Source of the looks: BuildKit's progress, which people know.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time

from teu.cli.jsontext import dumps
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

EVENTS_ID = "teu.build"
_LOG_LINES = 6
_FAILURE_LINES = 20
_TICK_S = 0.15
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Step:
    """What is known of one step."""

    def __init__(self, number: int, name: str, at_ns: int) -> None:
        self.number = number
        self.name = name
        self.started_ns = at_ns
        self.ended_ns = 0
        self.state = "running"
        self.lines: list[str] = []
        self.partial = ""

    def add(self, text: str) -> list[str]:
        """Takes output; the lines that it completes."""
        *lines, self.partial = (self.partial + text.replace("\r\n", "\n")).split("\n")
        self.lines = (self.lines + lines)[-_FAILURE_LINES:]
        return lines

    def seconds(self, now_ns: int) -> float:
        return max(0, (self.ended_ns or now_ns) - self.started_ns) / 1e9


class BuildView:
    """Reads a build's messages; `result` is what they tell about the image."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.steps: dict[int, Step] = {}
        self.total = 0
        self.result: dict[str, Any] = {}
        self.said: list[str] = []
        self._failure_text = ""

    def show_all(self, messages: Iterable[Any]) -> None:
        """Raises: Failure with the build's error; its status is the failed command's."""
        self.begin()
        try:
            for message in messages:
                self._message(message)
        finally:
            self.end()
        self.out.flush()

    def _message(self, message: Any) -> None:
        if detail := message.get("errorDetail"):
            self._fail(detail)
        aux = message.get("aux")
        if message.get("id") == EVENTS_ID:
            self._event(aux)
        elif isinstance(aux, dict):
            self.result |= aux

    def _fail(self, detail: dict[str, Any]) -> None:
        self.end()
        for step in self.steps.values():
            if step.state == "failed":
                self.out.write(f"------\n > {step.name}:\n")
                for line in step.lines[-_FAILURE_LINES:]:
                    self.out.write(f"{line}\n")
                self.out.write("------\n")
        if self._failure_text:
            self.out.write(self._failure_text)
        self.out.flush()
        raise Failure(f"ERROR: {detail.get('message', '')}", int(detail.get("code") or 1))

    def _event(self, event: dict[str, Any]) -> None:
        kind, number = event.get("kind", ""), int(event.get("step", 0))
        at_ns, text = int(event.get("at_ns", 0)), str(event.get("text", ""))
        if kind == "plan":
            self.total = int(event.get("total", 0))
        elif kind == "started":
            self.steps[number] = Step(number, str(event.get("name", "")), at_ns)
            self.started(self.steps[number])
        elif kind == "say":
            self.said.append(text.rstrip("\n"))
        elif kind == "status":
            self.status(text)
        elif number in self.steps:
            self._step_event(kind, self.steps[number], at_ns, text)
        if kind == "failed":
            self._failure_text = text

    def _step_event(self, kind: str, step: Step, at_ns: int, text: str) -> None:
        if kind == "log":
            self.logged(step, step.add(_ESCAPES.sub("", text)), at_ns)
            return
        step.ended_ns = at_ns
        if kind == "cached":
            step.state = "cached"
        elif kind == "failed":
            step.state = "failed"
            step.add("\n" if step.partial else "")
        elif step.state == "running":
            step.state = "done"
        if kind != "cached":
            self.ended(step, at_ns)

    # --- for the kinds of views -----------------------------------------------------------

    def begin(self) -> None: ...
    def end(self) -> None: ...
    def started(self, step: Step) -> None: ...
    def logged(self, step: Step, lines: list[str], at_ns: int) -> None: ...
    def ended(self, step: Step, at_ns: int) -> None: ...
    def status(self, text: str) -> None: ...


class PlainView(BuildView):
    """Lines as they come, each with its step's number."""

    def started(self, step: Step) -> None:
        self.out.write(f"#{step.number} {step.name}\n")
        self.out.flush()

    def logged(self, step: Step, lines: list[str], at_ns: int) -> None:
        for line in lines:
            self.out.write(f"#{step.number} {step.seconds(at_ns):.3f} {line}\n")
        self.out.flush()

    def ended(self, step: Step, at_ns: int) -> None:
        words = {"cached": "CACHED", "failed": "ERROR"}
        text = words.get(step.state) or f"DONE {step.seconds(at_ns):.1f}s"
        self.out.write(f"#{step.number} {text}\n\n")
        self.out.flush()

    def status(self, text: str) -> None:
        self.out.write(f"{text}\n")

    def end(self) -> None:
        for text in self.said:
            self.out.write(f"{text}\n")
        self.said.clear()


class RawView(BuildView):
    """Each event as a line of JSON."""

    def _event(self, event: dict[str, Any]) -> None:
        self.out.write(dumps(event) + "\n")
        super()._event(event)


class TerminalView(BuildView):
    """A picture of all steps, redrawn while something happens; only the last state stays."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        self._drawn = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._begun = time.monotonic()
        self._status = ""
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def begin(self) -> None:
        self._ticker.start()

    def end(self) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._ticker.join()
        self._draw(last=True)
        for text in self.said:
            self.out.write(f"{text}\n")

    def status(self, text: str) -> None:
        self._status = text

    def _tick(self) -> None:
        while not self._stopped.wait(_TICK_S):
            self._draw()

    def _draw(self, *, last: bool = False) -> None:
        with self._lock:
            columns, rows = _terminal_size(self.out)
            lines = self._lines(columns)
            if not last and len(lines) > rows - 1:
                lines = [lines[0], *lines[-(rows - 2) :]]
            up = f"\x1b[{self._drawn}A" if self._drawn else ""
            body = "".join(f"\x1b[2K{line}\n" for line in lines)
            spare = self._drawn - len(lines)
            tail = "\x1b[2K\n" * spare + f"\x1b[{spare}A" if spare > 0 else ""
            self.out.write("\r" + up + body + tail)
            self.out.flush()
            self._drawn = len(lines)

    def _lines(self, columns: int) -> list[str]:
        now_ns = time.time_ns()
        steps = list(self.steps.values())
        done = sum(step.state != "running" for step in steps)
        seconds = time.monotonic() - self._begun
        state = " FINISHED" if self._stopped.is_set() and done == len(steps) else ""
        lines = [f"[+] Building {seconds:.1f}s ({done}/{self.total or len(steps)}){state}"]
        if not steps and self._status:
            lines.append(_fitted(f" => {self._status}", "", columns))
        for step in steps:
            mark = {"cached": " => CACHED ", "failed": " => ERROR "}.get(step.state, " => ")
            lines.append(_fitted(mark + step.name, f"{step.seconds(now_ns):.1f}s", columns))
            if step.state == "running":
                shown = [*step.lines, step.partial] if step.partial else step.lines
                lines += [_fitted(f" => => {line}", "", columns) for line in shown[-_LOG_LINES:]]
        return lines


def _fitted(left: str, right: str, columns: int) -> str:
    left = " ".join(left.split("\n")).replace("\t", " ")
    room = columns - len(right) - 1
    return f"{left[:room]:<{room}} {right}" if right else left[:columns]


def _terminal_size(out: TextIO) -> tuple[int, int]:
    try:
        size = os.get_terminal_size(out.fileno())
    except OSError:
        return 80, 24
    return max(20, size.columns), max(4, size.lines)


def view_for(mode: str) -> BuildView | None:
    """The view of `--progress`; None for the daemon's own text (Docker's words).

    Raises: Failure for a mode that does not exist.
    """
    if mode == "auto":
        return TerminalView(sys.stderr) if sys.stderr.isatty() else None
    if mode == "tty":
        return TerminalView(sys.stderr)
    if mode == "plain":
        return PlainView(sys.stderr)
    if mode == "rawjson":
        return RawView(sys.stderr)
    raise Failure(f"invalid progress mode {mode!r}: auto, plain, tty or rawjson")
