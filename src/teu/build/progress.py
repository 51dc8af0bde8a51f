"""What a build tells its client while it runs.

`ClassicProgress` speaks the words of Docker's first builder (`Step 1/3 : FROM …`), which every
client of the API understands. Stages run at the same time, text has one order: the output of the
earliest step that is not done appears at once, that of later ones when their turn comes.
`EventProgress` says the same as data, for our own client: each message's `aux` is an `Event`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from teu.clock import now_ns

EVENTS_ID = "teu.build"
_SECRETS_RULE = "SecretsUsedInArgOrEnv"
Emit = Callable[[dict[str, Any]], None]


class Event(Struct, kw_only=True, omit_defaults=True):
    """`kind`: started, log, cached, done, failed, status, warning. Instants in nanoseconds."""

    kind: str
    step: int = 0
    name: str = ""
    text: str = ""
    at_ns: int = 0
    total: int = 0


class BuildProgress(Protocol):
    """Told by the builder; `number` is the step's. Never blocks."""

    def plan(self, total: int) -> None: ...
    def started(self, number: int, name: str, title: str) -> None: ...
    def running(self, number: int, container_id: str) -> None: ...
    def log(self, number: int, data: bytes) -> None: ...
    def cached(self, number: int) -> None: ...
    def done(self, number: int, state_id: str) -> None: ...
    def failed(self, number: int, text: str) -> None: ...
    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def pulling(self, number: int, message: dict[str, Any]) -> None: ...


class _Texts:
    """Bytes of one step as text; a character that is split between two pieces waits."""

    def __init__(self) -> None:
        import codecs

        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def text(self, data: bytes) -> str:
        return self._decoder.decode(data)


class ClassicProgress:
    """See the module's text."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._total = 0
        self._front = 1
        self._waiting: dict[int, list[dict[str, Any]]] = {}
        self._finished: set[int] = set()
        self._decoders: dict[int, _Texts] = {}

    def plan(self, total: int) -> None:
        self._total = total

    def started(self, number: int, name: str, title: str) -> None:
        self._stream(number, f"Step {number}/{self._total} : {title}")
        self._stream(number, "\n")

    def running(self, number: int, container_id: str) -> None:
        self._stream(number, f" ---> Running in {container_id[:12]}\n")

    def log(self, number: int, data: bytes) -> None:
        text = self._decoders.setdefault(number, _Texts()).text(data)
        if text:
            self._stream(number, text)

    def cached(self, number: int) -> None:
        self._stream(number, " ---> Using cache\n")

    def done(self, number: int, state_id: str) -> None:
        self._stream(number, f" ---> {state_id[:12]}\n")
        self._finished.add(number)
        while self._front in self._finished:
            self._front += 1
            for message in self._waiting.pop(self._front, ()):
                self._emit(message)

    def failed(self, number: int, text: str) -> None:
        for message in self._waiting.pop(number, ()):
            self._emit(message)
        if text:
            self._emit({"stream": text})

    def say(self, text: str) -> None:
        self._emit({"stream": text})

    def warn(self, text: str) -> None:
        """Docker's first builder had no rules: only what may leak is told."""
        lines = [line for line in text.splitlines() if _SECRETS_RULE in line]
        for line in lines:
            self._emit({"stream": f"[Warning] {line.removeprefix(' - ')}\n"})

    def pulling(self, number: int, message: dict[str, Any]) -> None:
        self._emit(message)

    def _stream(self, number: int, text: str) -> None:
        message = {"stream": text}
        if number == self._front:
            self._emit(message)
        else:
            self._waiting.setdefault(number, []).append(message)


class QuietProgress:
    """`q=1`: nothing but the result."""

    def plan(self, total: int) -> None: ...
    def started(self, number: int, name: str, title: str) -> None: ...
    def running(self, number: int, container_id: str) -> None: ...
    def log(self, number: int, data: bytes) -> None: ...
    def cached(self, number: int) -> None: ...
    def done(self, number: int, state_id: str) -> None: ...
    def failed(self, number: int, text: str) -> None: ...
    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def pulling(self, number: int, message: dict[str, Any]) -> None: ...


class EventProgress:
    """See the module's text."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._decoders: dict[int, _Texts] = {}

    def plan(self, total: int) -> None:
        self._tell(Event(kind="plan", total=total))

    def started(self, number: int, name: str, title: str) -> None:
        self._tell(Event(kind="started", step=number, name=name))

    def running(self, number: int, container_id: str) -> None:
        return

    def log(self, number: int, data: bytes) -> None:
        text = self._decoders.setdefault(number, _Texts()).text(data)
        if text:
            self._tell(Event(kind="log", step=number, text=text))

    def cached(self, number: int) -> None:
        self._tell(Event(kind="cached", step=number))

    def done(self, number: int, state_id: str) -> None:
        self._tell(Event(kind="done", step=number))

    def failed(self, number: int, text: str) -> None:
        self._tell(Event(kind="failed", step=number, text=text))

    def say(self, text: str) -> None:
        self._tell(Event(kind="say", text=text))

    def warn(self, text: str) -> None:
        if text:
            self._tell(Event(kind="say", text=text))

    def pulling(self, number: int, message: dict[str, Any]) -> None:
        text = " ".join(str(message[key]) for key in ("id", "status", "progress") if key in message)
        self._tell(Event(kind="status", step=number, name=str(message.get("id", "")), text=text))

    def _tell(self, event: Event) -> None:
        event.at_ns = now_ns()
        self._emit({"id": EVENTS_ID, "aux": msgspec.to_builtins(event)})
