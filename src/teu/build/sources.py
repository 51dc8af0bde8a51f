"""Where one build gets things from: images, files of the context, secrets, agents, cache mounts."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from teu.build.cachemounts import CacheMounts
from teu.build.copying import Picked
from teu.build.fetching import (
    Downloaded,
    check_checksum,
    download,
    git_clone,
    git_commit,
    git_source,
    url_file_name,
)
from teu.build.keptcontext import KeptContext
from teu.build.mountpoints import MountSource
from teu.build.parts import Parts
from teu.build.progress import BuildProgress
from teu.build.request import BuildRequest, Inputs
from teu.build.selection import Tree
from teu.build.states import State
from teu.build.steps import Copy, Mount, Run
from teu.build.trees import Trees
from teu.errors import InvalidParameter, NotFound
from teu.model.image import Image, Platform
from teu.model.reference import Reference


class Fetched(Struct):
    """The files of one remote source of an ADD, in a directory of their own."""

    directory: Path
    path: str = ""  # what is taken of it
    is_archive: bool = True  # it is a file, which `--unpack` may unpack

    def tree(self) -> Tree:
        return Tree(self.directory, normal=True)

    def picked(self, tree: Tree) -> Picked:
        return Picked(tree, self.path, is_remote=True)


class Sources:
    """For one build and one platform."""

    def __init__(
        self,
        parts: Parts,
        mounts: CacheMounts,
        request: BuildRequest,
        inputs: Inputs,
        platform: Platform,
        progress: BuildProgress,
    ) -> None:
        self._parts = parts
        self._cache_mounts = mounts
        self._request = request
        self._inputs = inputs
        self._platform = platform
        self._progress = progress
        self._pulled: set[tuple[str, str]] = set()
        self._directories: list[Path] = []
        self._downloads: dict[str, Downloaded] = {}
        self._contents: dict[tuple[str, int, int, int], str] = {}

    # --- images ---------------------------------------------------------------------------

    async def image(self, name: str, platform: Platform | None = None) -> Image:
        """From the store, or pulled: with `--pull` always, once for a build.

        Raises: what a pull raises; InvalidParameter for a name that is none.
        """
        wanted = platform or self._platform
        images = self._parts.images
        key = (name, str(wanted))
        if not self._request.pull or key in self._pulled:
            with suppress(NotFound):
                return images.runnable(name, str(wanted))
        pulled = await images.pull(
            str(Reference.parse(name).with_default_tag()),
            platform=str(wanted),
            auth=self._auth(name),
            progress=lambda message: self._progress.pulling(0, message),
        )
        self._pulled.add(key)
        return pulled

    def _auth(self, name: str) -> Mapping[str, Any] | None:
        reference = Reference.parse(name)
        return auth_for(self._request.auths, reference)

    # --- the context ----------------------------------------------------------------------

    def context_tree(self, root: Path) -> Tree:
        """A client's files; what was read of them once is not read again by this build."""
        return Tree(root, normal=True, known=self._known(root), remember=self._remember(root))

    def context_identity(self, root: Path) -> str:
        """Names all of a context's files with their contents; empty when that is not known."""
        kept = self._kept(root)
        return kept.identity if kept is not None else ""

    def _kept(self, root: Path) -> KeptContext | None:
        return next((kept for kept in self._inputs.kept if kept.tree == root), None)

    def _known(self, root: Path) -> Callable[[str, os.stat_result], str | None]:
        kept = self._kept(root)
        if kept is not None:
            return lambda path, found: kept.digest_of(path)
        return lambda path, found: self._contents.get(_identity(root, path, found))

    def _remember(self, root: Path) -> Callable[[str, os.stat_result, str], None]:
        kept = self._kept(root)
        if kept is not None:
            return lambda path, found, digest: kept.remember(path, digest)

        def remember(path: str, found: os.stat_result, digest: str) -> None:
            self._contents[_identity(root, path, found)] = digest

        return remember

    # --- remote sources -------------------------------------------------------------------

    def local(self, step: Copy) -> Copy:
        """The step without its remote sources."""
        if not step.is_add:
            return step
        local = [source for source in step.sources if not is_remote(source)]
        return msgspec.structs.replace(step, sources=local)

    async def remote_digests(self, step: Copy) -> dict[str, str]:
        """What remote sources hold now, by source: a commit, or a digest. A file whose digest the
        Dockerfile says is not fetched for that. Raises: Unavailable, InvalidParameter."""
        found: dict[str, str] = {}
        for source in _remote(step):
            git = git_source(source)
            if git is not None:
                found[source] = await git_commit(git)
                if step.checksum and not found[source].startswith(step.checksum):
                    raise InvalidParameter(
                        f"digest mismatch: {source} is at commit {found[source]}, not at "
                        f"{step.checksum}"
                    )
            elif step.checksum:
                found[source] = check_checksum(step.checksum)
            else:
                fetched = await self._download(source, "")
                found[source] = fetched.digest
        return found

    async def fetch(self, step: Copy) -> list[Fetched]:
        """Remote sources as files; they stay until `close`."""
        found = []
        for source in _remote(step):
            git = git_source(source)
            if git is None:
                file = await self._download(source, step.checksum)
                found.append(Fetched(file.path.parent, file.path.name))
                continue
            directory = self._new_directory()
            commit = await git_commit(git)
            await git_clone(git, commit, directory, keep_git=step.keep_git_dir)
            found.append(Fetched(directory, git.directory, is_archive=False))
        return found

    async def _download(self, url: str, checksum: str) -> Downloaded:
        """Once for a build."""
        name = url_file_name(url)
        if url not in self._downloads:
            target = self._new_directory() / name
            self._downloads[url] = await download(url, target, checksum)
        found = self._downloads[url]
        if checksum and found.digest != checksum:
            raise InvalidParameter(f"digest mismatch {found.digest}: {checksum} (expected)")
        return found

    def _new_directory(self) -> Path:
        self._directories.append(self._parts.workspace.new_context())
        return self._directories[-1]

    async def close(self) -> None:
        """Removes what was fetched."""
        for directory in self._directories:
            await asyncio.to_thread(self._parts.workspace.drop_context, directory)

    # --- mounts ---------------------------------------------------------------------------

    @asynccontextmanager
    async def mounts(
        self, step: Run, states: list[State | None], trees: Trees
    ) -> AsyncIterator[list[MountSource]]:
        """What the mounts of a step show, for as long as it runs.

        Raises: InvalidParameter for a secret or agent that the client did not give.
        """
        async with AsyncExitStack() as stack:
            found = []
            for mount, state in zip(step.mounts, states, strict=True):
                found.append(await self._mount(mount, state, trees, stack))
            yield found

    async def _mount(
        self, mount: Mount, state: State | None, trees: Trees, stack: AsyncExitStack
    ) -> MountSource:
        match mount.type:
            case "secret":
                return self._secret(mount)
            case "ssh":
                return self._agent(mount)
            case "cache":
                path = await stack.enter_async_context(
                    self._cache_mounts.used(mount, lambda path: None)
                )
                plain = msgspec.structs.replace(mount, source="" if state else mount.source)
                return MountSource(mount=plain, tree=path)
            case "bind":
                root = (
                    trees.layers(state.diff_ids) if state else trees.context(mount.origin.context)
                )
                return MountSource(mount=mount, tree=root)
        return MountSource(mount=mount)

    def _secret(self, mount: Mount) -> MountSource:
        value = self._inputs.secrets.get(mount.id)
        if value is None and mount.required:
            raise InvalidParameter(
                f"secret {mount.id}: not found: give it with --secret id={mount.id}"
            )
        return MountSource(mount=mount, secret=value)

    def _agent(self, mount: Mount) -> MountSource:
        agent = self._inputs.agents.get(mount.id or "default")
        if agent is None and mount.required:
            raise InvalidParameter(
                f"unset ssh forward key {mount.id or 'default'}: give it with --ssh"
            )
        return MountSource(mount=mount, agent=agent)


def _identity(root: Path, path: str, found: os.stat_result) -> tuple[str, int, int, int]:
    return (f"{root}/{path}", found.st_ino, found.st_size, found.st_mtime_ns)


def is_remote(source: str) -> bool:
    """A URL or a git repository."""
    return source.startswith(("http://", "https://", "git@", "git://", "ssh://"))


def _remote(step: Copy) -> list[str]:
    return [source for source in step.sources if step.is_add and is_remote(source)]


def auth_for(auths: Mapping[str, Mapping[str, str]], name: Reference) -> Mapping[str, Any] | None:
    """The credentials for a reference's registry, from `X-Registry-Config`."""
    if name.domain == "docker.io":
        for known in ("https://index.docker.io/v1/", "index.docker.io", "docker.io"):
            if known in auths:
                return auths[known]
    return auths.get(name.domain) or auths.get(f"https://{name.domain}")
