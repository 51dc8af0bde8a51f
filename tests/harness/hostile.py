"""Archives that somebody made to do harm, or by accident: entries of all kinds that get in each
other's way, and damaged bytes. For hypothesis, and for the fuzzer."""

import random
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from harness.imagelab import member, tar_of

Member = tuple[tarfile.TarInfo, bytes]
# Few names, so that entries meet each other; many ways to write them.
NAMES = ("a", "b", "d", "d/a", "d/b", "d/d", "l", "l/a", "l/d/b", "e/f/g", "a/b")
SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    "./{}".format,
    "/{}".format,
    "{}/".format,
    lambda name: name.replace("/", "//"),
    lambda name: f"d/../{name}",
    lambda name: f"d/./{name}",
)
ESCAPES = ("..", "../x", "d/../../x", "/../x", "../../../../../../tmp/x")
TARGETS = (
    *("a", "b", "d", "l", ".", "..", "/", "../..", "/etc", "../../../../../../tmp"),
    *("/d", "d/a", "nowhere", "/proc/self/root", "./././d", "x" * 200),
)
WHITEOUTS = (
    ".wh.a",
    "d/.wh.a",
    ".wh.d",
    "d/.wh..wh..opq",
    ".wh..wh..opq",
    "l/.wh.b",
    ".wh.",
    ".wh..wh.plnk/1",
)
KINDS = {
    "file": tarfile.REGTYPE,
    "directory": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "device": tarfile.CHRTYPE,
}
MODES = (0o644, 0o755, 0o4755, 0o2775, 0o1777, 0)
OWNERS = (0, 1, 65534, 4_294_967_294)
TIMES = (0, 1, 1_700_000_000, 1_700_000_000.123456, -5, 2**40)

names = st.one_of(
    st.builds(lambda spell, name: spell(name), st.sampled_from(SPELLINGS), st.sampled_from(NAMES)),
    st.sampled_from(WHITEOUTS),
    st.sampled_from(ESCAPES),
    st.sampled_from(("./", "/", ".")),
)


def made(
    kind: str, name: str, target: str, data: bytes, mode: int, owner: int, when: float
) -> Member:
    """One member; what does not go with its kind is left out."""
    is_link = kind in ("symlink", "link")
    fields = {
        "type": KINDS[kind],
        "mode": mode,
        "uid": owner,
        "gid": owner,
        "mtime": when,
        "linkname": target if is_link else "",
        "devmajor": 1 if kind == "device" else 0,
        "devminor": 3 if kind == "device" else 0,
    }
    return member(name, data if kind == "file" else b"", **fields)


members = st.builds(
    made,
    st.sampled_from(sorted(KINDS)),
    names,
    st.sampled_from(TARGETS) | st.sampled_from(NAMES),
    st.sampled_from((b"", b"x", b"y" * 700)),
    st.sampled_from(MODES),
    st.sampled_from(OWNERS),
    st.sampled_from(TIMES),
)
archives = st.builds(lambda items: tar_of(*items), st.lists(members, max_size=14))


def random_archive(rng: random.Random) -> bytes:
    """The same, by a generator of random numbers."""

    def name() -> str:
        kind = rng.random()
        if kind < 0.1:
            return rng.choice(WHITEOUTS)
        if kind < 0.13:
            return rng.choice(ESCAPES)
        return rng.choice(SPELLINGS)(rng.choice(NAMES))

    return tar_of(
        *(
            made(
                rng.choice(sorted(KINDS)),
                name(),
                rng.choice(TARGETS + NAMES),
                rng.choice((b"", b"x", rng.randbytes(rng.randrange(2000)))),
                rng.choice(MODES),
                rng.choice(OWNERS),
                rng.choice(TIMES),
            )
            for _ in range(rng.randrange(1, 15))
        ),
        format_=rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)),
    )


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Some bytes changed, removed or repeated; sums of headers made right again, mostly."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(out) or 1)
        match rng.randrange(4):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del out[at : at + rng.choice((1, 512, 1024))]
            case 2:
                block = at - at % 512
                out[block:block] = out[block : block + 512]
            case _:
                out[at : at + 12] = rng.choice((b"77777777777\0", b"\xff" * 12, b"-1\0" * 4))
    if rng.random() < 0.8:
        _mend_sums(out)
    return bytes(out)


def _mend_sums(out: bytearray) -> None:
    for start in range(0, len(out) - 511, 512):
        if out[start + 257 : start + 262] == b"ustar":
            out[start + 148 : start + 156] = b" " * 8
            out[start + 148 : start + 156] = b"%06o\0 " % sum(out[start : start + 512])


@contextmanager
def nothing_outside(root: Path) -> Iterator[Path]:
    """Gives a directory to unpack in; everything around it must stay as it is."""
    inner = root / "1/2/3/inner"
    inner.mkdir(parents=True)
    for directory in (root, root / "1", root / "1/2", root / "1/2/3"):
        (directory / "x").write_text("untouched")
        (directory / "tmp").mkdir()
    before = _listing(root, inner)
    outside = {path: path.exists() for path in map(Path, ("/x", "/tmp/x", "/etc/a", "/etc/b"))}
    passwd = Path("/etc/passwd").stat()
    yield inner
    assert _listing(root, inner) == before
    assert {path: path.exists() for path in outside} == outside
    now = Path("/etc/passwd").stat()
    assert (now.st_mtime_ns, now.st_mode, now.st_uid) == (
        passwd.st_mtime_ns, passwd.st_mode, passwd.st_uid,
    )  # fmt: skip


def _listing(root: Path, without: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in sorted(root.rglob("*")):
        if path != without and without not in path.parents:
            info = path.lstat()
            found[str(path)] = (info.st_mode, info.st_size, info.st_nlink)
    return found
