"""The steps that change files without running anything: COPY, ADD, WORKDIR."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from teu import ids
from teu.build import keys
from teu.build.cache import digest_text, key_of
from teu.build.copying import Copier, Picked, Task, check_chmod, pick
from teu.build.parts import Parts
from teu.build.request import BuildRequest
from teu.build.selection import Tree
from teu.build.sources import Sources, is_remote
from teu.build.states import State
from teu.build.steps import Copy, MakeDirectory, Mount, Run
from teu.build.trees import Trees, in_thread_to_the_end
from teu.build.workspace import Place, upper_is_empty
from teu.clock import now_ns
from teu.dockerignore import BadPattern, IgnoreList
from teu.errors import InvalidParameter, SystemFailure
from teu.model.build import CacheRecord
from teu.sys.beneath import make_directories
from teu.sys.clamp import clamp_times


class FileSteps:
    """For one build."""

    def __init__(self, parts: Parts, trees: Trees, sources: Sources, request: BuildRequest) -> None:
        self._parts = parts
        self._trees = trees
        self._sources = sources
        self._request = request

    def is_independent(self, step: Copy) -> bool:
        """Whether the step's layer is the same whatever is below it."""
        return step.link and all(part.isdigit() for part in step.chown.split(":") if part)

    # --- keys -----------------------------------------------------------------------------

    async def copy_parts(
        self, step: Copy, state: State, origin: State | None
    ) -> tuple[dict[str, str], dict[str, str]]:
        """The parts of a COPY's key, and the digest of each file it takes (where that was found
        out just now, and there are not too many)."""
        check_chmod(step.chmod)
        remote = await self._sources.remote_digests(step)
        if origin is not None:
            root, identity = None, f"layers {keys.parent_of(origin)}"
        else:
            root = self._trees.context(step.origin.context) if _reads(step) else None
            identity = self._sources.context_identity(root) if root is not None else ""
        digest, files = await self._digest(step, origin, root, identity)
        parts = keys.copy_parts(step, state, self._request, digest, remote)
        return parts, files

    async def _digest(
        self, step: Copy, origin: State | None, root: Path | None, identity: str
    ) -> tuple[str, dict[str, str]]:
        """What the step takes from a tree. What an identity stands for never changes: it is found
        out once and remembered."""
        if not _reads(step):
            return "", {}
        named = {
            "tree": identity,
            "sources": digest_text([step.sources, step.excludes, bool(step.chmod)]),
        }
        key = key_of("digest", named)
        if identity and (known := self._parts.cache.find(key)) is not None:
            return known.value, {}
        if root is None and origin is not None:
            root = self._trees.layers(origin.diff_ids)
            tree = Tree(root)
        else:
            assert root is not None
            tree = self._sources.context_tree(root)
        files = await asyncio.to_thread(self._local_digests, step, tree)
        digest = digest_text(sorted(files.items()))
        if identity:
            self._parts.cache.add(
                CacheRecord(
                    key=key, kind="digest", name=step.name, value=digest, created_ns=now_ns()
                )
            )
        return digest, files if len(files) <= keys.MAX_FILES else {}

    def _local_digests(self, step: Copy, tree: Tree) -> dict[str, str]:
        try:
            found: dict[str, str] = {}
            for picked in pick(self._sources.local(step), tree):
                digests = tree.digest(
                    picked.path, excludes=_excludes(step), with_modes=not step.chmod
                )
                for name, digest in digests.items():
                    found[_shown("/".join(filter(None, (picked.path, name))))] = digest
            return found
        except OSError as error:
            raise SystemFailure(f"cannot read what {step.name} copies: {error}") from error
        finally:
            tree.close()

    def _tree(self, step: Copy, root: Path | None) -> Tree:
        if root is not None:
            return Tree(root)
        return self._sources.context_tree(self._trees.context(step.origin.context))

    async def mount_digests(self, step: Run, states: list[State | None]) -> dict[str, str]:
        """What bind mounts show, by content; by layers where they show a stage or image."""
        found: dict[str, str] = {}
        for mount, state in zip(step.mounts, states, strict=True):
            if mount.type not in ("bind", "cache"):
                continue
            if state is not None:
                found[mount.target] = keys.parent_of(state)
            elif mount.type == "bind":
                found[mount.target] = await asyncio.to_thread(self._mount_digest, mount)
        return found

    def _mount_digest(self, mount: Mount) -> str:
        tree = self._sources.context_tree(self._trees.context(mount.origin.context))
        try:
            return digest_text(
                sorted((_shown(k), v) for k, v in tree.digest(mount.source.strip("/")).items())
            )
        except OSError as error:
            raise InvalidParameter(
                f"cannot mount {mount.source or '/'} at {mount.target}: {error.strerror}"
            ) from error
        finally:
            tree.close()

    # --- doing it -------------------------------------------------------------------------

    async def copy(self, step: Copy, state: State, origin: State | None) -> list[str]:
        """The layers after the step."""
        remote = await self._sources.fetch(step)
        source = self._trees.layers(origin.diff_ids) if origin is not None else None

        def work(root: Path) -> None:
            trees = [self._tree(step, source)] if self._sources.local(step).sources else []
            picked: list[Picked] = []
            try:
                for tree in trees:
                    picked += pick(self._sources.local(step), tree)
                for fetched in remote:
                    trees.append(fetched.tree())
                    picked.append(fetched.picked(trees[-1]))
                task = Task(step=step, sources=picked, excludes=_excludes(step))
                Copier(root, root, task).run()
            finally:
                for tree in trees:
                    tree.close()

        return await self._changed(state, work, alone=self.is_independent(step))

    async def make_directory(self, step: MakeDirectory, state: State) -> list[str]:
        """The layers after a WORKDIR."""

        def work(root: Path) -> None:
            root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fd, _ = make_directories(root_fd, os.fsencode(step.path))
                os.close(fd)
            except OSError as error:
                raise InvalidParameter(
                    f"cannot make the working directory {step.path}: {error.strerror}"
                ) from error
            finally:
                os.close(root_fd)

        return await self._changed(state, work)

    async def _changed(
        self, state: State, work: Callable[[Path], None], *, alone: bool = False
    ) -> list[str]:
        """Mounts the stage's layers, lets `work` change them, keeps what changed."""
        workspace = self._parts.workspace
        place = workspace.open(ids.new_id())
        try:
            if alone:
                await in_thread_to_the_end(lambda: work(place.upper))
                return await self.adopt(place, State())
            workspace.mount(place, self._trees.lower(state.diff_ids))
            await in_thread_to_the_end(lambda: work(place.rootfs))
            workspace.unmount(place)
            return await self.adopt(place, state)
        finally:
            await asyncio.shield(asyncio.to_thread(workspace.close, place))

    async def adopt(self, place: Place, state: State) -> list[str]:
        """The layers with the step's upper directory on top, which is unmounted."""
        if upper_is_empty(place):
            return state.diff_ids
        epoch = self._request.source_date_epoch
        if epoch is not None:
            await asyncio.to_thread(clamp_times, place.upper, epoch * 1_000_000_000)
        return await self._parts.images.workshop.adopt(state.diff_ids, place.upper)


def _shown(path: str) -> str:
    """As text that JSON can hold."""
    return path.encode("utf-8", "backslashreplace").decode()


def _reads(step: Copy) -> bool:
    """Whether the step takes files from a tree."""
    return any(not (step.is_add and is_remote(source)) for source in step.sources)


def _excludes(step: Copy) -> IgnoreList | None:
    try:
        return IgnoreList(step.excludes) if step.excludes else None
    except BadPattern as error:
        raise InvalidParameter(str(error)) from None
