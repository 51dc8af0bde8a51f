r"""Log files back to text, block by block: the inverse of encode.py, also for Docker's own files.

The inside of a JSON string never holds a raw quote or newline, so `","stream":"` occurs in a line
exactly once and a block falls apart by one regular expression. Text is unescaped for a whole run
of lines at once; a line that is not as expected (torn by a power cut, written by something else)
takes a slow path, where JSON decides, and is left out if it is broken.
"""

import json
import re
import struct
from typing import Any
from urllib.parse import quote_plus

from teu.shim.encode import stamp

_PREFIX = b'{"log":"'
_UNIFORM = {
    name: re.compile(rb'","stream":"' + name + rb'","time":"[^"]*"\}\n\{"log":"')
    for name in (b"stdout", b"stderr")
}
_TAIL = re.compile(
    rb'","stream":"(stdout|stderr)"(?:,"attrs":(\{[^\n]*?\}))?,"time":"([^"]*)"\}\n(?:\{"log":"|\Z)'
)
_GROUPS = 4
_KINDS = {b"stdout": 1, b"stderr": 2}
_HEADER = struct.Struct(">BxxxL")
_TIME = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_TIME_LENGTH = 30
_BACKSLASH = b"\xff"  # never in valid UTF-8, so it can stand for a decided backslash
_SEAM = b"\xfe"  # neither is this: it stands between entries
_SIMPLE = (
    (b'\\"', b'"'),
    (b"\\r", b"\r"),
    (b"\\t", b"\t"),
    (b"\\u003c", b"<"),
    (b"\\u003e", b">"),
    (b"\\u0026", b"&"),
    (b"\\u001b", b"\x1b"),
    (b"\\ufffd", b"\xef\xbf\xbd"),
)
_UNICODE = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+|\\.")
_LONE = re.compile("[\ud800-\udfff]")


def unescape(text: bytes) -> bytes:
    """The inside of JSON strings as UTF-8; half surrogates become U+FFFD."""
    text = text.replace(b"\\\\", _BACKSLASH).replace(b"\\n", b"\n")
    if b"\\" not in text:
        return text.replace(_BACKSLASH, b"\\")
    for escaped, plain in _SIMPLE:
        text = text.replace(escaped, plain)
    if b"\\" in text:
        text = _UNICODE.sub(_decode_unicode, text)
    return text.replace(_BACKSLASH, b"\\")


def _decode_unicode(match: "re.Match[bytes]") -> bytes:
    try:
        text = json.loads(b'"' + match[0] + b'"')
    except ValueError:
        return match[0].replace(b"\\", _BACKSLASH)
    return _LONE.sub("\ufffd", text).encode()


class Renderer:
    """Blocks of whole lines to what the client gets. `request`: see reader.py."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._wanted = {name for name in _KINDS if request.get(name.decode(), True)}
        self._since = _bound(request.get("since_ns"))
        self._until = _bound(request.get("until_ns"))
        self._timestamps = bool(request.get("timestamps"))
        self._details = bool(request.get("details"))
        self._multiplexed = bool(request.get("multiplexed"))
        self._by_line = self._multiplexed and bool(request.get("by_line"))
        self._seam = _SEAM if self._by_line else b""
        self._plain = not (self._since or self._until or self._timestamps or self._details)

    def render(self, block: bytes) -> bytes:
        """`block` ends with a newline."""
        if self._plain and (plain := self._render_uniform(block)) is not None:
            return plain
        parts = _split(block)
        if parts is None:
            parts = _split(b"".join(map(_canonical, block.splitlines()))) or [b""]
        texts, streams, attrs, times = (parts[at:-1:_GROUPS] for at in range(_GROUPS))
        if not self._plain:
            texts, streams = self._select(texts, streams, attrs, times)
        return self._frames(texts, streams)

    def _render_uniform(self, block: bytes) -> bytes | None:
        """All of it at once if every line is of one stream and has no attributes."""
        name = b"stdout" if b'","stream":"stdout"' in block[: block.find(b"\n")] else b"stderr"
        text, count = _UNIFORM[name].subn(self._seam, block)
        if count + 1 != block.count(b"\n") or not text.startswith(_PREFIX):
            return None
        end = text.find(b'","stream":"' + name + b'","time":"')
        if end < 0:
            return None
        return self._joined(name, text[len(_PREFIX) : end])

    def _select(
        self, texts: list[bytes], streams: list[bytes], attrs: list[bytes], times: list[bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """What is in the asked time, with what goes before each line."""
        selected: list[bytes] = []
        kept: list[bytes] = []
        since, until = self._since or b"", self._until or b"~"
        for text, stream, attr, written in zip(texts, streams, attrs, times, strict=True):
            instant = written if len(written) == _TIME_LENGTH else _normal_time(written)
            if since <= instant <= until:
                head = instant + b" " if self._timestamps else b""
                if self._details:
                    head += _details(attr) + b" "
                selected.append(head + text)
                kept.append(stream)
        return selected, kept

    def _frames(self, texts: list[bytes], streams: list[bytes]) -> bytes:
        """Runs of entries of one stream, joined."""
        if not texts:
            return b""
        if streams.count(streams[0]) == len(streams):
            return self._joined(streams[0], self._seam.join(texts))
        frames: list[bytes] = []
        start = 0
        for at in range(1, len(texts) + 1):
            if at == len(texts) or streams[at] != streams[start]:
                frames.append(self._joined(streams[start], self._seam.join(texts[start:at])))
                start = at
        return b"".join(frames)

    def _joined(self, stream: bytes, escaped: bytes) -> bytes:
        """Entries, with a seam between them where each gets a frame of its own."""
        if stream not in self._wanted or not escaped:
            return b""
        text = unescape(escaped)
        if not self._multiplexed:
            return text
        pack, kind = _HEADER.pack, _KINDS[stream]
        if not self._by_line:
            return pack(kind, len(text)) + text
        return b"".join([pack(kind, len(entry)) + entry for entry in text.split(_SEAM)])

    def error(self, message: str) -> bytes:
        """A failure while the stream is open, in Docker's words, for the client's stderr."""
        text = f"Error grabbing logs: {message}\n".encode()
        return _HEADER.pack(_KINDS[b"stderr"], len(text)) + text if self._multiplexed else text


def _split(block: bytes) -> list[bytes] | None:
    """[text, stream, attrs, time, text, …, b""]; None if a line is not as expected."""
    if not block.startswith(_PREFIX):
        return None
    parts = _TAIL.split(block[len(_PREFIX) :])
    if parts[-1] or len(parts) // _GROUPS != block.count(b"\n"):
        return None
    return parts


def _canonical(line: bytes) -> bytes:
    """The line as our own encoder would have written it; nothing if it is broken."""
    try:
        entry = json.loads(line)
        stream, text, written = entry["stream"], entry["log"], entry["time"].encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return b""
    if stream.encode() not in _KINDS or not isinstance(text, str) or not _TIME.fullmatch(written):
        return b""
    attrs = f',"attrs":{json.dumps(entry["attrs"])}' if entry.get("attrs") else ""
    tail = f',"stream":"{stream}"{attrs},"time":"{entry["time"]}"}}\n'
    return b'{"log":' + json.dumps(text).encode() + tail.encode()


def _normal_time(written: bytes) -> bytes:
    """Docker drops trailing zeros of the fraction; all nine digits make times comparable."""
    match = _TIME.fullmatch(written)
    if not match:
        return written
    return match[1] + b"." + (match[2] or b"").ljust(9, b"0") + b"Z"


def _bound(instant_ns: object) -> bytes | None:
    return stamp(instant_ns) if isinstance(instant_ns, int) and instant_ns > 0 else None


def _details(attrs: bytes) -> bytes:
    """`key=value,…` as the client's --details shows it."""
    pairs = json.loads(attrs) if attrs else {}
    return ",".join(
        f"{quote_plus(str(key))}={quote_plus(str(value))}" for key, value in sorted(pairs.items())
    ).encode()
