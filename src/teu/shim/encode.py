r"""Docker's json-file lines, made chunk by chunk at the speed of bytes.replace.

    {"log":"text\n","stream":"stdout","attrs":{…},"time":"2023-11-14T22:13:20.123456789Z"}

A chunk's lines share one time. Escapes are those of Docker's encoder: `\"` `\\` `\n` `\r`, `\u00xx`
for other control characters and for `<` `>` `&`, `\u2028`, `\u2029`, and `\ufffd` for each byte
that is not UTF-8. A line of more than PARTIAL_BYTES is cut in entries of that size; all but the
last lack the `\n` in their text.
"""

import functools
import json
import re
import time
from collections.abc import Iterator

PARTIAL_BYTES = 1 << 14
STREAMS = {1: b"stdout", 2: b"stderr"}
_CONTROLS = bytes(code for code in range(32) if code != 10)
_NO_CONTROLS = bytes(code for code in range(256) if code not in _CONTROLS)
_SPECIALS = _CONTROLS + b'"\\<>&'
_REPLACED = {
    **{bytes([code]): b"\\u%04x" % code for code in (*_CONTROLS, *b"<>&")},
    b"\r": b"\\r",
    b'"': b'\\"',
}
_LONE_SURROGATE = re.compile(rb"\xed[\xb2\xb3][\x80-\xbf]")


def escape(text: bytes) -> bytes:
    """The inside of a JSON string, except that newlines are left alone."""
    if len(text.translate(None, _SPECIALS)) != len(text):
        text = text.replace(b"\\", b"\\\\")
        for code in (*b'"<>&', *set(text.translate(None, _NO_CONTROLS))):
            special = bytes((code,))
            text = text.replace(special, _REPLACED[special])
    return text if text.isascii() else _escape_unicode(text)


def _escape_unicode(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        marked = text.decode(errors="surrogateescape").encode(errors="surrogatepass")
        text = _LONE_SURROGATE.sub(rb"\\ufffd", marked)
    return text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


class LineEncoder:
    """One stream's output to entries; keeps an unfinished line until it is complete or too long."""

    def __init__(self, kind: int, attrs: dict[str, str]) -> None:
        self._tail = b'","stream":"' + STREAMS[kind] + b'"' + _attrs(attrs) + b',"time":"'
        self._held = b""

    def encode(self, chunk: bytes) -> bytes:
        """All entries that the chunk completes."""
        text = self._held + chunk if self._held else chunk
        tail = self._tail + stamp(time.time_ns()) + b'"}\n'
        end = text.rfind(b"\n") + 1
        parts = [_whole_lines(part, tail) for part in _bounded(text, end)] if end else []
        while len(text) - end >= PARTIAL_BYTES:
            parts.append(_entry(text[end : end + PARTIAL_BYTES], tail))
            end += PARTIAL_BYTES
        self._held = text[end:]
        return b"".join(parts)

    def finish(self) -> bytes:
        """At the end of the stream: the unfinished line."""
        held, self._held = self._held, b""
        return _entry(held, self._tail + stamp(time.time_ns()) + b'"}\n') if held else b""


def _entry(text: bytes, tail: bytes) -> bytes:
    return b'{"log":"' + escape(text) + tail


def _whole_lines(text: bytes, tail: bytes) -> bytes:
    """`text` either ends with a newline or is one piece of a long line."""
    if not text.endswith(b"\n"):
        return _entry(text, tail)
    body = escape(text[:-1])
    return b'{"log":"' + body.replace(b"\n", b"\\n" + tail + b'{"log":"') + b"\\n" + tail


def _bounded(text: bytes, end: int) -> Iterator[bytes]:
    """text[:end] in blocks of whole lines, long lines cut in pieces of PARTIAL_BYTES.

    Jumps from one newline to the last one within the next PARTIAL_BYTES, so it costs nothing
    where lines are short.
    """
    start = position = 0
    while position < end:
        newline = text.rfind(b"\n", position, min(position + PARTIAL_BYTES, end))
        if newline >= 0:
            position = newline + 1
            continue
        if start < position:
            yield text[start:position]
        start = position + PARTIAL_BYTES
        yield text[position:start]
        position = start
    if start < position:
        yield text[start:position]


def stamp(instant_ns: int) -> bytes:
    """RFC 3339 in UTC with nine digits of nanoseconds."""
    seconds, nanos = divmod(instant_ns, 1_000_000_000)
    return b"%s.%09dZ" % (_stamp_second(seconds), nanos)


@functools.lru_cache(maxsize=2)
def _stamp_second(seconds: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)).encode()


def _attrs(attrs: dict[str, str]) -> bytes:
    if not attrs:
        return b""
    text = json.dumps(attrs, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    for code in b"<>&":
        text = text.replace(bytes((code,)), _REPLACED[bytes((code,))])
    return b',"attrs":' + text
