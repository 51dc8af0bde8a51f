"""One member of a tar archive, and the bytes of its header blocks.

Reads v7, ustar, GNU (long names, base-256 numbers, sparse maps) and PAX; writes ustar with PAX
records for what does not fit. Names are bytes: an archive may hold any.
Source: POSIX pax(1); GNU tar manual, "Basic Tar Format" and "Sparse Formats".
"""

import struct
from functools import lru_cache
from typing import Final

from teu.errors import InvalidParameter

BLOCK: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK)
REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
GNU_SPARSE = b"S"
PAX = b"x"
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"
XATTR_PREFIX: Final = b"SCHILY.xattr."

_HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x")
_NUL_SPACE = b"\0 "
_REGULAR_FLAGS = frozenset((b"0", b"\0", b"7"))
_NO_PAYLOAD = frozenset((HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))
_MAX_OCTAL_11 = 8**11 - 1
_MAX_OCTAL_7 = 8**7 - 1
_MAX_TIME_NS = 2**63 - 1
_MAX_MAJOR, _MAX_MINOR = 1 << 12, 1 << 20  # the kernel's dev_t


class InvalidArchive(InvalidParameter):
    """The bytes are not a (whole, well-formed) tar archive."""


class Entry:
    """One member. `payload_bytes` is what follows in the archive, `size_bytes` the file's length
    (they differ for sparse files, whose `segments` say where the payload goes)."""

    __slots__ = (
        "gid",
        "kind",
        "link",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "payload_bytes",
        "segments",
        "size_bytes",
        "uid",
        "xattrs",
    )

    def __init__(self, name: bytes, kind: bytes = REGULAR) -> None:
        self.name = name
        self.kind = kind
        self.mode = 0
        self.uid = 0
        self.gid = 0
        self.size_bytes = 0
        self.payload_bytes = 0
        self.mtime_ns = 0
        self.link = b""
        self.major = 0
        self.minor = 0
        self.xattrs: dict[bytes, bytes] = {}
        self.segments: list[tuple[int, int]] | None = None


def parse(block: bytes) -> Entry:
    """The entry of one header block (its extensions come from other blocks).

    Raises: InvalidArchive.
    """
    (
        name, mode, uid, gid, size, mtime, checksum, kind, link,
        magic, _, _, major, minor, prefix,
    ) = _HEADER.unpack(block)  # fmt: skip
    if sum(block) - sum(checksum) + 256 != number(checksum):
        _check_signed_sum(block, checksum)
    name = name.partition(b"\0")[0]
    if magic == b"ustar\x0000" and prefix[0]:
        name = prefix.partition(b"\0")[0] + b"/" + name
    if kind in _REGULAR_FLAGS:
        kind = DIRECTORY if kind == b"\0" and name.endswith(b"/") else REGULAR
    entry = Entry(name, kind)
    entry.mode = _common_number(mode) & 0o7777
    entry.uid = _common_number(uid)
    entry.gid = _common_number(gid)
    entry.mtime_ns = _common_number(mtime) * 1_000_000_000
    if kind not in _NO_PAYLOAD:
        entry.size_bytes = entry.payload_bytes = number(size)
        if entry.size_bytes < 0:
            raise InvalidArchive("invalid tar header: negative size")
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = number(major), number(minor)
        if not (0 <= entry.major < _MAX_MAJOR and 0 <= entry.minor < _MAX_MINOR):
            raise InvalidArchive("invalid tar header: bad device number")
    if link[0]:
        entry.link = link.partition(b"\0")[0]
    return entry


def number(field: bytes) -> int:
    """An octal or base-256 number. Raises: InvalidArchive."""
    text = field.rstrip(_NUL_SPACE)
    if text.isdigit():
        return _octal(text)
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
        return value
    text = field.partition(b"\0")[0].strip(_NUL_SPACE)
    return _octal(text) if text else 0


# An archive has few modes, owners and times.
_common_number = lru_cache(256)(number)


def _octal(text: bytes) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise InvalidArchive("invalid tar header: a number is not octal") from None


def _check_signed_sum(block: bytes, checksum: bytes) -> None:
    """Some old programs summed signed characters."""
    filled = block[:148] + b" " * 8 + block[156:]
    if sum(struct.unpack("512b", filled)) != number(checksum):
        raise InvalidArchive("invalid tar header: wrong checksum")


def parse_pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """The records of a PAX header, in order. Raises: InvalidArchive."""
    records = []
    position = 0
    while position < len(data) and data[position]:
        space = data.find(b" ", position, position + 20)
        try:
            end = position + int(data[position:space])
        except ValueError:
            raise InvalidArchive("invalid tar header: bad PAX record length") from None
        record = data[space + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if space < 0 or end > len(data) or not equals or record[-1:] != b"\n":
            raise InvalidArchive("invalid tar header: bad PAX record")
        records.append((key, value))
        position = end
    return records


def apply_pax(entry: Entry, records: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Overrides the entry's fields; the GNU.sparse records are left to the caller.

    Raises: InvalidArchive.
    """
    sparse: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    try:
        for key, value in records:
            if key.startswith(XATTR_PREFIX):
                entry.xattrs[key[len(XATTR_PREFIX) :]] = value
            elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                pairs.append(value)
            elif key.startswith(b"GNU.sparse."):
                sparse[key[11:]] = value
            elif value:
                _apply_field(entry, key, value)
    except (ValueError, OverflowError) as error:
        raise InvalidArchive(f"invalid tar header: bad PAX value: {error}") from None
    if pairs:
        sparse[b"map"] = b",".join(pairs)
    return sparse


def _apply_field(entry: Entry, key: bytes, value: bytes) -> None:
    match key:
        case b"path":
            entry.name = value
        case b"linkpath":
            entry.link = value
        case b"size" if entry.kind not in _NO_PAYLOAD:
            entry.size_bytes = entry.payload_bytes = _natural(value)
        case b"uid":
            entry.uid = _natural(value)
        case b"gid":
            entry.gid = _natural(value)
        case b"mtime":
            entry.mtime_ns = _pax_time(value)


def _natural(value: bytes) -> int:
    if not value.isdigit() or len(value) > 20:
        raise ValueError(f"{value[:30]!r} is not a number")
    return int(value)


def _pax_time(value: bytes) -> int:
    if b"e" in value:  # Python's tarfile writes tiny and huge times like this
        return int(float(value) * 1e9)
    seconds, _, fraction = value.partition(b".")
    if len(seconds) > 20 or (fraction and not fraction.isdigit()):
        raise ValueError(f"{value[:30]!r} is not a time")
    nanos = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    return int(seconds) * 1_000_000_000 + (-nanos if seconds.startswith(b"-") else nanos)


def clamp_time(mtime_ns: int) -> int:
    """The instant as Docker stores it: what is before 1970 or past 2262 becomes 1970."""
    return mtime_ns if 0 <= mtime_ns <= _MAX_TIME_NS else 0


def build(entry: Entry) -> bytes:
    """The header blocks of an entry: one ustar block, with a PAX header before it where needed.

    The same entry always gives the same bytes.
    """
    pax = _needed_pax(entry)
    blocks = b""
    if pax:
        body = b"".join(_pax_record(key, pax[key]) for key in sorted(pax))
        name = b"PaxHeaders.0/" + entry.name.rstrip(b"/").rpartition(b"/")[2]
        extension = Entry(name[:100], PAX)
        extension.mode = 0o644
        extension.size_bytes = len(body)
        blocks = _ustar(extension, name[:100], b"") + padded(body)
    name, prefix = split_name(entry.name) or (entry.name[:100], b"")
    return blocks + _ustar(entry, name, prefix)


def _needed_pax(entry: Entry) -> dict[bytes, bytes]:
    pax = {XATTR_PREFIX + key: value for key, value in entry.xattrs.items()}
    if split_name(entry.name) is None or not entry.name.isascii():
        pax[b"path"] = entry.name
    if len(entry.link) > 100 or not entry.link.isascii():
        pax[b"linkpath"] = entry.link
    if entry.mtime_ns % 1_000_000_000 or not 0 <= entry.mtime_ns // 10**9 <= _MAX_OCTAL_11:
        seconds, nanos = divmod(entry.mtime_ns, 1_000_000_000)
        pax[b"mtime"] = b"%d.%09d" % (seconds, nanos) if nanos else b"%d" % seconds
    for key, value in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if value > _MAX_OCTAL_7:
            pax[key] = b"%d" % value
    if entry.size_bytes > _MAX_OCTAL_11:
        pax[b"size"] = b"%d" % entry.size_bytes
    return pax


def _pax_record(key: bytes, value: bytes) -> bytes:
    body_length = len(key) + len(value) + 3
    length = body_length + len(str(body_length))
    if len(str(length)) != len(str(body_length)):
        length = body_length + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """The name and prefix fields of ustar; None when the name does not fit."""
    if len(name) <= 100:
        return name, b""
    if len(name) > 256:
        return None
    cut = name.rfind(b"/", 0, 156)
    if cut <= 0 or not 0 < len(name) - cut - 1 <= 100:
        return None
    return name[cut + 1 :], name[:cut]


def _ustar(entry: Entry, name: bytes, prefix: bytes) -> bytes:
    seconds = entry.mtime_ns // 1_000_000_000
    block = bytearray(
        struct.pack(
            "100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12x",
            name,
            b"%07o" % entry.mode,
            b"%07o" % min(entry.uid, _MAX_OCTAL_7),
            b"%07o" % min(entry.gid, _MAX_OCTAL_7),
            b"%011o" % min(entry.size_bytes, _MAX_OCTAL_11),
            b"%011o" % (seconds if 0 <= seconds <= _MAX_OCTAL_11 else 0),
            b" " * 8,
            entry.kind,
            entry.link[:100],
            b"ustar\x0000",
            b"",
            b"",
            b"%07o" % entry.major,
            b"%07o" % entry.minor,
            prefix,
        )
    )
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    """`data`, filled with zeros to whole blocks."""
    return data + bytes(-len(data) % BLOCK)
