"""Files from elsewhere: ADD of URLs and git repositories, and whole contexts from them.

A git repository is fetched with `git`, one commit deep, with no configuration but our own: no
hooks, no prompts, no protocols that run commands. Source: Dockerfile reference, "ADD"; Docker's
documentation of "Git URLs" (`REPOSITORY[#REF[:DIRECTORY]]`).
"""

import asyncio
import email.utils
import hashlib
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
from msgspec import Struct

from teu.build.trees import in_thread_to_the_end
from teu.errors import InvalidParameter, Unavailable
from teu.sys.beneath import remove_tree
from teu.sys.process import MINIMAL_ENV, CommandFailed, CommandNotStarted, run

_CHUNK_BYTES = 1 << 20
_STALL_LIMIT_S = 60.0
_GIT_LIMIT_S = 600.0
_MAX_BYTES = 20 << 30
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SAFE_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")
_SCP_LIKE = re.compile(r"git@[\w.-]+:[\w./~-]+")
_GIT_ENV = {
    **MINIMAL_ENV,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new",
    "HOME": "/nonexistent",
}


class GitSource(Struct, frozen=True):
    """`directory` is relative to the repository, without leaving it."""

    url: str
    ref: str = ""
    directory: str = ""


def git_source(text: str) -> GitSource | None:
    """A git repository, or None for another URL. Raises: InvalidParameter for a bad reference."""
    url, _, fragment = text.partition("#")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    is_git = (
        text.startswith("github.com/")
        or url.startswith(("git://", "ssh://"))
        or (url.startswith(("http://", "https://")) and url.endswith(".git"))
        or _SCP_LIKE.fullmatch(url) is not None
    )
    if not is_git:
        return None
    ref, _, directory = fragment.partition(":")
    if ref and not _SAFE_REF.fullmatch(ref):
        raise InvalidParameter(f"invalid git reference {ref!r}")
    parts = [part for part in directory.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidParameter(f"invalid subdirectory {directory!r} of a git repository")
    return GitSource(url, ref, "/".join(parts))


# --- git --------------------------------------------------------------------------------


async def git_commit(source: GitSource) -> str:
    """The commit that the reference means now. Raises: Unavailable."""
    if _COMMIT.fullmatch(source.ref):
        return source.ref
    wanted = source.ref or "HEAD"
    listed = (await _git("ls-remote", "--", source.url)).decode(errors="replace")
    found: dict[str, str] = {}
    for line in listed.splitlines():
        commit, _, name = line.partition("\t")
        found[name] = commit
    names = (f"refs/tags/{wanted}^{{}}", wanted, f"refs/heads/{wanted}", f"refs/tags/{wanted}")
    for name in names:
        if name in found:
            return found[name]
    raise Unavailable(f"git repository {source.url} has no {wanted!r}")


async def git_clone(source: GitSource, commit: str, target: Path, *, keep_git: bool) -> None:
    """The files of a commit, in an empty directory. Raises: Unavailable."""
    await _git("init", "--quiet", cwd=target)
    depth = ("--depth", "1")
    try:
        await _git("fetch", "--quiet", *depth, "--", source.url, commit, cwd=target)
    except Unavailable:
        wanted = source.ref or "HEAD"  # a server that gives no commits by name
        await _git("fetch", "--quiet", *depth, "--", source.url, wanted, cwd=target)
    await _git("checkout", "--quiet", "--force", "FETCH_HEAD", "--", cwd=target)
    fetched = (await _git("rev-parse", "FETCH_HEAD^{commit}", cwd=target)).decode().strip()
    if fetched != commit:
        raise Unavailable(f"git repository {source.url} changed while it was read: try again")
    if not keep_git:
        await in_thread_to_the_end(lambda: _drop_git_directory(target))


def _drop_git_directory(target: Path) -> None:
    fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_tree(fd, b".git")
    finally:
        os.close(fd)


async def _git(*words: str, cwd: Path | None = None) -> bytes:
    argv = ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=true", *words]
    try:
        done = await run(argv, timeout_s=_GIT_LIMIT_S, env=_GIT_ENV, cwd=str(cwd) if cwd else None)
    except CommandNotStarted as error:
        raise Unavailable(
            "git repositories need git on the daemon's machine: install git"
        ) from error
    except CommandFailed as error:
        said = error.completed.stderr.decode(errors="replace").strip()
        raise Unavailable(f"git {words[0]} failed: {said}") from error
    return done.stdout


# --- HTTP -------------------------------------------------------------------------------


class Downloaded(Struct, frozen=True):
    """A file that was fetched. `digest` is `sha256:…`."""

    path: Path
    digest: str


def url_file_name(url: str) -> str:
    """The last part of a URL's path. Raises: InvalidParameter when there is none."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    if not name or "/" in name or name in (".", ".."):
        raise InvalidParameter(f"cannot determine filename from url: {url}")
    return name


async def download(url: str, target: Path, checksum: str = "") -> Downloaded:
    """Fetches a file; its time is the server's `Last-Modified`, its mode 0600.

    Raises: Unavailable with the server's status, InvalidParameter for another checksum.
    """
    digest = hashlib.sha256()
    size = 0
    try:
        async with _response(url) as response:
            with open(target, "xb", opener=_private) as file:
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    if size > _MAX_BYTES:
                        raise InvalidParameter(f"{url} is larger than {_MAX_BYTES >> 30} GiB")
                    await asyncio.to_thread(file.write, chunk)
            modified = response.headers.get("Last-Modified", "")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise Unavailable(f"cannot fetch {url}: {str(error) or type(error).__name__}") from error
    found = f"sha256:{digest.hexdigest()}"
    if checksum and checksum != found:
        raise InvalidParameter(f"digest mismatch {found}: {checksum} (expected, for {url})")
    _set_time(target, modified)
    return Downloaded(target, found)


@asynccontextmanager
async def _response(url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_STALL_LIMIT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=True) as session,
        session.get(url) as response,
    ):
        if response.status != 200:
            raise Unavailable(
                f"cannot fetch {url}: the server answered {response.status} {response.reason}"
            )
        yield response


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _set_time(path: Path, modified: str) -> None:
    parsed = email.utils.parsedate_tz(modified) if modified else None
    if parsed is not None:
        at_s = email.utils.mktime_tz(parsed)
        os.utime(path, (at_s, at_s))


def check_checksum(text: str) -> str:
    """`sha256:HEX` of a file, or a commit. Raises: InvalidParameter."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}|[0-9a-f]{7,64}", text):
        raise InvalidParameter(f"invalid checksum {text!r}: sha256:HEX, or a commit")
    return text
