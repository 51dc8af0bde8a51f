"""Output cut into lines, for log drivers that send line by line.

A line of more than LINE_BYTES is cut in pieces of that size, as Docker does; each piece says so.
"""

import os

LINE_BYTES = 1 << 14


class Piece:
    """A part of a line that was too long: `id` is the line's, `ordinal` counts from 1."""

    __slots__ = ("id", "last", "ordinal")

    def __init__(self, id: str, ordinal: int, last: bool) -> None:
        self.id = id
        self.ordinal = ordinal
        self.last = last


Line = tuple[bytes, Piece | None]


class LineCutter:
    """One per stream."""

    def __init__(self) -> None:
        self._held = b""
        self._id = ""
        self._ordinal = 0

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that the chunk completes, without their newlines, and pieces of long ones."""
        found: list[Line] = []
        *lines, self._held = (self._held + chunk).split(b"\n")
        for line in lines:
            self._cut(line, found)
            found.append((self._rest, self._piece(last=True)))
            self._id, self._ordinal = "", 0
        self._cut(self._held, found)
        self._held = self._rest
        return found

    def finish(self) -> list[Line]:
        """At the end of the stream: the unfinished line."""
        held, self._held = self._held, b""
        return [(held, self._piece(last=True))] if held else []

    def _cut(self, line: bytes, found: list[Line]) -> None:
        start = 0
        while len(line) - start > LINE_BYTES:
            self._id = self._id or os.urandom(32).hex()
            found.append((line[start : start + LINE_BYTES], self._piece(last=False)))
            start += LINE_BYTES
        self._rest = line[start:] if start else line

    def _piece(self, last: bool) -> Piece | None:
        if not self._id:
            return None
        self._ordinal += 1
        return Piece(self._id, self._ordinal, last)
