"""A tar archive read once, from front to end, in constant memory.

    stream = TarStream(source)
    while entry := stream.next():
        for piece in stream.payload(): ...

Every byte that is not handed out by `payload` (headers, padding, payload nobody asked for, the
trailer) goes to `on_raw`, in order: with the payloads it is the whole archive again.
"""

from collections.abc import Callable, Iterator

from teu.sys.codec import Source
from teu.sys.tarheader import (
    BLOCK,
    DIRECTORY,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    PAX,
    PAX_GLOBAL,
    REGULAR,
    ZERO_BLOCK,
    Entry,
    InvalidArchive,
    apply_pax,
    number,
    parse,
    parse_pax,
)

_EXTENSION_LIMIT_BYTES = 1 << 20  # Go's limit for one extended header, so Docker's
_SEGMENT_LIMIT = 1 << 20
_READ_BYTES = 1 << 20
# Global headers are read and ignored, as Docker does.
_EXTENSIONS = frozenset((PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK))
_MAX_ID = 0xFFFFFFFE  # the last one means “leave as it is” to chown(2)


class TarStream:
    """See the module's text. Raises: InvalidArchive; whatever the source raises."""

    def __init__(self, source: Source, on_raw: Callable[[bytes], object] | None = None) -> None:
        self._source = source
        self._on_raw = on_raw
        self._buffer = b""
        self._position = 0
        self._consumed = 0  # bytes of the stream before the buffer
        self._payload_left = 0
        self._padding = 0
        self._ended = False

    @property
    def offset(self) -> int:
        """Bytes of the archive consumed so far."""
        return self._consumed + self._position

    def next(self) -> Entry | None:
        """The next member; None at the end of the archive (the stream is then read to its end)."""
        if self._ended:
            return None
        self.skip()
        extensions: dict[bytes, bytes] = {}
        while (block := self._take_block()) is not None:
            entry = self._parsed(block)
            if entry.kind not in _EXTENSIONS:
                self._complete(entry, block, extensions)
                return entry
            extensions[entry.kind] = self._extension(entry)
        self._finish()
        return None

    def _parsed(self, block: bytes) -> Entry:
        try:
            return parse(block)
        except InvalidArchive as error:
            raise InvalidArchive(f"{error} (at byte {self.offset - BLOCK})") from None

    def payload(self) -> Iterator[memoryview]:
        """The current member's payload, in pieces of the source's own buffers."""
        while self._payload_left:
            if self._position == len(self._buffer):
                self._fill()
            piece = memoryview(self._buffer)[self._position : self._position + self._payload_left]
            self._position += len(piece)
            self._payload_left -= len(piece)
            yield piece

    def read_payload(self, limit_bytes: int) -> bytes:
        """The whole payload. Raises: InvalidArchive when it is longer than `limit_bytes`."""
        if self._payload_left > limit_bytes:
            raise InvalidArchive(
                f"an entry of the archive has {self._payload_left} bytes where at most "
                f"{limit_bytes} make sense"
            )
        return b"".join(self.payload())

    def skip(self) -> None:
        """Passes what is left of the current member to `on_raw`."""
        for payload in self.payload():
            if self._on_raw:
                self._on_raw(bytes(payload))
        while self._padding:  # the last one may be missing: Docker's client forgets it
            if self._position == len(self._buffer) and not self._fill(at_border=True):
                self._padding = 0
                return
            piece = self._buffer[self._position : self._position + self._padding]
            self._position += len(piece)
            self._padding -= len(piece)
            self._raw(piece)

    def _complete(self, entry: Entry, block: bytes, extensions: dict[bytes, bytes]) -> None:
        sparse: dict[bytes, bytes] = {}
        if extensions:
            entry.name = _until_nul(extensions.get(GNU_LONG_NAME)) or entry.name
            entry.link = _until_nul(extensions.get(GNU_LONG_LINK)) or entry.link
            sparse = apply_pax(entry, parse_pax(extensions.get(PAX, b"")))
        self._payload_left = entry.payload_bytes
        self._padding = -entry.payload_bytes % BLOCK
        if entry.kind == REGULAR and entry.name.endswith(b"/") and not entry.size_bytes:
            entry.kind = DIRECTORY
        if entry.kind == GNU_SPARSE:
            entry.kind = REGULAR
            self._old_sparse(entry, block)
        elif sparse:
            self._pax_sparse(entry, sparse)
        if entry.segments is not None:
            _check_segments(entry, self._payload_left)
        if b"\0" in entry.name or b"\0" in entry.link:
            raise InvalidArchive(f"invalid tar header: NUL in a name (at byte {self.offset})")
        if not (0 <= entry.uid <= _MAX_ID and 0 <= entry.gid <= _MAX_ID):
            raise InvalidArchive(f"invalid tar header: bad owner (at byte {self.offset})")

    def _old_sparse(self, entry: Entry, block: bytes) -> None:
        entry.segments = []
        table, more = block[386:482], block[482]
        entry.size_bytes = number(block[483:495])
        _add_segments(entry.segments, table)
        while more:
            table = self._take(BLOCK)
            self._raw(table)
            more = table[504]
            _add_segments(entry.segments, table[:504])

    def _pax_sparse(self, entry: Entry, sparse: dict[bytes, bytes]) -> None:
        entry.name = sparse.get(b"name", entry.name)
        try:
            entry.size_bytes = int(sparse.get(b"realsize") or sparse[b"size"])
            if b"map" in sparse:
                values = [int(value) for value in sparse[b"map"].split(b",") if value]
            else:
                values = self._sparse_map_in_data()
        except (KeyError, ValueError):
            raise InvalidArchive("invalid tar header: bad sparse map") from None
        if len(values) % 2:
            raise InvalidArchive("invalid tar header: bad sparse map")
        entry.segments = list(zip(values[::2], values[1::2], strict=True))

    def _sparse_map_in_data(self) -> list[int]:
        """GNU.sparse 1.0: decimal numbers, a line each, in blocks before the data."""
        text, want = b"", 1
        while text.count(b"\n") < want:
            if self._payload_left < BLOCK or len(text) > _SEGMENT_LIMIT * 8:
                raise InvalidArchive("invalid tar header: bad sparse map")
            block = self._take(BLOCK)
            self._payload_left -= BLOCK
            self._raw(block)
            text += block
            if want == 1 and b"\n" in text:
                want = 1 + 2 * int(text.partition(b"\n")[0])
        return [int(line) for line in text.split(b"\n")[1:want]]

    def _extension(self, entry: Entry) -> bytes:
        size = entry.payload_bytes
        if size > _EXTENSION_LIMIT_BYTES:
            raise InvalidArchive(f"invalid tar header: an extended header of {size} bytes")
        data = self._take(size + -size % BLOCK)
        self._raw(data)
        return data[:size]

    def _take_block(self) -> bytes | None:
        """The next header block; None at the end of the archive."""
        if self._position == len(self._buffer) and not self._fill(at_border=True):
            return None
        block = self._take(BLOCK)
        self._raw(block)
        return None if block == ZERO_BLOCK else block

    def _finish(self) -> None:
        """After the first zero block: everything that is left is trailer."""
        self._ended = True
        while True:
            rest = self._buffer[self._position :]
            self._position = len(self._buffer)
            self._raw(rest)
            if not self._fill(at_border=True):
                return

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end <= len(self._buffer):
            taken = self._buffer[self._position : end]
            self._position = end
            return taken
        parts = [self._buffer[self._position :]]
        missing = count - len(parts[0])
        while missing:
            self._position = len(self._buffer)
            self._fill()
            part = self._buffer[:missing]
            self._position = len(part)
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _fill(self, *, at_border: bool = False) -> bool:
        """The next chunk of the source. Raises: InvalidArchive at the end, unless `at_border`."""
        self._consumed += len(self._buffer)
        self._position = 0
        self._buffer = self._source.read(_READ_BYTES)
        if not self._buffer and not at_border:
            raise InvalidArchive(
                f"unexpected EOF after {self._consumed} bytes: the archive is cut off"
            )
        return bool(self._buffer)

    def _raw(self, data: bytes) -> None:
        if self._on_raw and data:
            self._on_raw(data)


def _until_nul(field: bytes | None) -> bytes:
    return field.partition(b"\0")[0] if field else b""


def _add_segments(segments: list[tuple[int, int]], table: bytes) -> None:
    for start in range(0, len(table) - 23, 24):
        offset, length = table[start : start + 12], table[start + 12 : start + 24]
        if not offset[0]:
            return
        segments.append((number(offset), number(length)))
        if len(segments) > _SEGMENT_LIMIT:
            raise InvalidArchive("invalid tar header: bad sparse map")


def _check_segments(entry: Entry, payload_bytes: int) -> None:
    end = 0
    total = 0
    for offset, length in entry.segments or ():
        if offset < end or length < 0:
            raise InvalidArchive("invalid tar header: bad sparse map")
        end = offset + length
        total += length
    if end > entry.size_bytes or total != payload_bytes:
        raise InvalidArchive("invalid tar header: bad sparse map")
