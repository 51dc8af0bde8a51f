"""`image bootstrap`: a base image out of the host's package mirror, where no registry is.

    busybox          the host's static busybox (package busybox-static, fetched if it is not there)
    debian:SUITE     debootstrap

Both run here, in the daemon, as root (docs/adr/0017). debootstrap runs packages' scripts in a
chroot: it gets mount and process namespaces of its own, which end with it, and it ends with the
daemon. Source: debootstrap(8), unshare(1), setpriv(1).
"""

import asyncio
import os
import re
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import urlsplit

from msgspec import Struct

from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.image.progress import Progress, idle, status
from teu.model.image import Image
from teu.model.reference import Reference
from teu.sys import process
from teu.sys.beneath import open_beneath, remove_tree
from teu.sys.pack import END
from teu.sys.tarheader import DIRECTORY, REGULAR, SYMLINK, Entry, build, padded

DEBIAN_MIRROR = "http://deb.debian.org/debian"
VARIANTS = ("minbase", "buildd", "standard")
_SUITE = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")
_PACKAGES = re.compile(r"[a-z0-9][a-z0-9+.-]*(,[a-z0-9][a-z0-9+.-]*)*")
_LIMIT_S = 3600.0
_DOWNLOAD_LIMIT_S = 300.0
_LIST_LIMIT_S = 10.0
# Ends with the daemon; its processes and mounts end with it.
_CONFINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ELF = b"\x7fELF"
_INTERPRETER = 3  # PT_INTERP
_EMPTIED = (b"etc/hostname", b"etc/machine-id", b"etc/resolv.conf")
_CLEARED = (b"var/cache/apt", b"var/lib/apt/lists", b"var/log", b"run", b"tmp")
_DIRECTORIES = (
    *("bin", "dev", "etc", "home", "lib", "proc", "root", "run", "sys", "usr", "usr/bin"),
    *("usr/sbin", "var", "var/log", "var/spool"),
)
_PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    b"www-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
)
_GROUP = (
    b"root:x:0:\ndaemon:x:1:\ntty:x:5:\ndisk:x:6:\nwheel:x:10:root\nwww-data:x:33:\n"
    b"users:x:100:\nnogroup:x:65534:\n"
)


class Plan(Struct, frozen=True, kw_only=True):
    """What to make: `busybox` or `debian:SUITE`, and what to call it (the same when empty). The
    rest is debootstrap's."""

    source: str
    name: str = ""
    mirror: str = ""
    variant: str = "minbase"
    include: str = ""


class Importer(Protocol):
    """Makes an image of one layer; `ImageService.import_image` is one."""

    async def __call__(
        self,
        stream: AsyncIterator[bytes],
        *,
        name: str,
        changes: Sequence[str],
        message: str,
    ) -> Image: ...


class Bootstrapper:
    """See the module's text. `scratch` is a directory of its own, void when no daemon runs."""

    def __init__(
        self,
        scratch: Path,
        make: Importer,
        pack: Callable[[Path], AsyncIterator[bytes]],
        path: str = process.MINIMAL_ENV["PATH"],
    ) -> None:
        self._scratch = scratch
        self._make = make
        self._pack = pack
        self._env = {**process.MINIMAL_ENV, "PATH": path, "DEBIAN_FRONTEND": "noninteractive"}

    def clean(self) -> None:
        """At start: removes what a crash left."""
        if self._scratch.exists():
            _remove(self._scratch)

    async def run(self, plan: Plan, progress: Progress) -> Image:
        """Raises: InvalidParameter (no such source, suite, mirror …); SystemFailure with the
        tool's own words. Cancel and crash: tools end, the next start removes their files."""
        kind, _, suite = plan.source.partition(":")
        name = Reference.parse(plan.name or plan.source).with_default_tag().familiar
        if kind == "busybox" and suite in ("", "latest"):
            making = self._busybox
        elif kind == "debian" and suite:
            check_debian(plan, suite)
            making = self._debian
        else:
            raise InvalidParameter(
                f"cannot bootstrap {plan.source}: this can be made: busybox, debian:SUITE "
                "(such as debian:bookworm)"
            )
        work = self._scratch / secrets.token_hex(8)
        work.mkdir(parents=True, mode=0o700)
        try:
            image = await making(plan, work, name, progress)
        finally:
            await asyncio.shield(asyncio.to_thread(_remove, work))
        progress(status(f"Status: Image {name} is ready"))
        return image

    # --- busybox ------------------------------------------------------------------------

    async def _busybox(self, plan: Plan, work: Path, name: str, progress: Progress) -> Image:
        program = next(filter(_is_static, self._found("busybox")), None)
        if program is None:
            program = await self._downloaded_busybox(work, progress)
        progress(idle(f"Using {program}", name))
        listed = await process.run([str(program), "--list"], timeout_s=_LIST_LIMIT_S, env=self._env)
        applets = sorted(set(listed.stdout.split()) - {b"busybox"})
        pieces = _busybox_tree(program.read_bytes(), applets)
        return await self._make(
            _asynchronous(pieces), name=name, changes=['CMD ["sh"]', f"ENV {_PATH}"],
            message=f"bootstrapped from {program.name} of the host",
        )  # fmt: skip

    async def _downloaded_busybox(self, work: Path, progress: Progress) -> Path:
        """Out of the host's mirror, without installing it."""
        progress(idle("Downloading busybox-static", "busybox"))
        hint = "install the package busybox-static and try again"
        work.chmod(0o755)
        await self._tool(
            ["apt-get", "-o", "APT::Sandbox::User=root", "download", "busybox-static"],
            "busybox", hint, _DOWNLOAD_LIMIT_S, cwd=str(work),
        )  # fmt: skip
        packages = list(work.glob("busybox-static_*.deb"))
        if not packages:
            raise SystemFailure(f"cannot bootstrap busybox: apt-get brought nothing: {hint}")
        tree = work / "tree"
        unpack = ["dpkg-deb", "-x", str(packages[0]), str(tree)]
        await self._tool(unpack, "busybox", hint, _DOWNLOAD_LIMIT_S)
        found = [path for path in tree.glob("**/bin/busybox") if _is_static(path)]
        if not found:
            raise SystemFailure(f"cannot bootstrap busybox: {packages[0].name} has none: {hint}")
        return found[0]

    def _found(self, program: str) -> Iterator[Path]:
        for directory in self._env["PATH"].split(":"):
            if (path := Path(directory) / program).is_file():
                yield path

    # --- debian -------------------------------------------------------------------------

    async def _debian(self, plan: Plan, work: Path, name: str, progress: Progress) -> Image:
        suite = plan.source.partition(":")[2]
        root = work / "root"
        mirror = plan.mirror or DEBIAN_MIRROR
        variant = [] if plan.variant == "standard" else [f"--variant={plan.variant}"]
        include = [f"--include={plan.include}"] if plan.include else []
        argv = ["debootstrap", "--force-check-gpg", *variant, *include, suite, str(root), mirror]
        work.chmod(0o755)
        lines = _Lines(lambda line: progress(idle(line.removeprefix("I: "), name)))
        await self._tool(
            [*_CONFINED, *argv], plan.source,
            "see that debootstrap and debian-archive-keyring are installed, that it knows the "
            f"suite, and that {mirror} can be reached (another one: --mirror)",
            _LIMIT_S, on_output=lines.feed,
        )  # fmt: skip
        await asyncio.to_thread(_tidy, root)
        progress(idle("Packing", name))
        return await self._make(
            self._pack(root), name=name, changes=['CMD ["bash"]', f"ENV {_PATH}"],
            message=f"bootstrapped by debootstrap from {mirror}",
        )  # fmt: skip

    async def _tool(
        self,
        argv: list[str],
        source: str,
        hint: str,
        timeout_s: float,
        *,
        cwd: str | None = None,
        on_output: Callable[[bytes], object] | None = None,
    ) -> None:
        """Raises: SystemFailure with the tool's complaint, and the hint."""
        try:
            await process.run(
                argv, timeout_s=timeout_s, env=self._env, cwd=cwd, on_output=on_output
            )
        except process.CommandFailed as error:
            text = (error.completed.stdout + b"\n" + error.completed.stderr).decode(
                errors="replace"
            )
            words = [line for line in text.splitlines() if line.startswith(("E:", "unshare:"))]
            said = "; ".join(words or text.strip().splitlines()[-3:])
            raise SystemFailure(f"cannot bootstrap {source}: {said}: {hint}") from error
        except EngineError as error:
            raise SystemFailure(f"cannot bootstrap {source}: {error.message}: {hint}") from error


def check_debian(plan: Plan, suite: str) -> None:
    """Raises: InvalidParameter for what must not become an argument of debootstrap."""
    if not _SUITE.fullmatch(suite):
        raise InvalidParameter(f"{suite!r} is not the name of a Debian suite (such as bookworm)")
    if plan.variant not in VARIANTS:
        raise InvalidParameter(f"variant {plan.variant!r} is not one of {', '.join(VARIANTS)}")
    if plan.include and not _PACKAGES.fullmatch(plan.include):
        raise InvalidParameter(f"{plan.include!r} is not a list of packages: write name,name")
    if plan.mirror and urlsplit(plan.mirror).scheme not in ("http", "https", "file"):
        raise InvalidParameter(f"mirror {plan.mirror!r} is not an http, https or file URL")


class _Lines:
    """Cuts output into lines."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._tell(line.decode(errors="replace"))


def _is_static(program: Path) -> bool:
    """An ELF program that asks for no interpreter. Source: elf(5)."""
    with program.open("rb") as file:
        head = file.read(4096)
    if head[:5] != _ELF + b"\2":
        return False
    order: Literal["little", "big"] = "little" if head[5] == 1 else "big"
    table, size, count = (
        int.from_bytes(head[start:end], order) for start, end in ((32, 40), (54, 56), (56, 58))
    )
    kinds = (head[table + n * size : table + n * size + 4] for n in range(count))
    return all(int.from_bytes(kind, order) != _INTERPRETER for kind in kinds)


def _busybox_tree(program: bytes, applets: list[bytes]) -> Iterator[bytes]:
    for name in _DIRECTORIES:
        yield build(_entry(f"{name}/", DIRECTORY, 0o700 if name == "root" else 0o755))
    yield build(_entry("tmp/", DIRECTORY, 0o1777))
    for name, data, mode in (
        ("bin/busybox", program, 0o755),
        ("etc/group", _GROUP, 0o644),
        ("etc/passwd", _PASSWD, 0o644),
    ):
        entry = _entry(name, REGULAR, mode)
        entry.size_bytes = len(data)
        yield build(entry) + padded(data)
    for applet in applets:
        link = _entry(f"bin/{os.fsdecode(applet)}", SYMLINK, 0o777)
        link.link = b"busybox"
        yield build(link)
    yield END


def _entry(name: str, kind: bytes, mode: int) -> Entry:
    entry = Entry(name.encode(), kind)
    entry.mode = mode
    return entry


async def _asynchronous(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _tidy(root: Path) -> None:
    """Takes out what an image needs not, and what would say where it was made. The tree is made
    by packages' scripts: no name is followed out of it."""
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in _CLEARED:
            _clear(root_fd, path)
        for path in _EMPTIED:
            with suppress(OSError):
                os.close(open_beneath(root_fd, path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW))
    finally:
        os.close(root_fd)


def _clear(root_fd: int, path: bytes) -> None:
    """Removes the files below a directory; the directories stay, programs may expect them."""
    try:
        fd = open_beneath(root_fd, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        for name in map(os.fsencode, os.listdir(fd)):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                _clear(fd, name)
            else:
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    parent_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(parent_fd, os.fsencode(path.name))
    finally:
        os.close(parent_fd)
