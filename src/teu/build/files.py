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
from teu.build.sources import Sources
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

    async def copy_parts(self, step: Copy, state: State, origin: State | None) -> dict[str, str]:
        """The parts of a COPY's key: what it takes, by content."""
        check_chmod(step.chmod)
        digests = await self._digests(step, origin)
        return keys.copy_parts(step, state, self._request, digests)

    async def _digests(self, step: Copy, origin: State | None) -> dict[str, str]:
        if origin is None:
            remote = await self._sources.remote_digests(step)
            local = await asyncio.to_thread(self._local_digests, step, None)
            return {**local, **remote}
        # What a stack of layers holds never changes: found out once, remembered.
        named = {
            "layers": keys.parent_of(origin),
            "sources": digest_text([step.sources, step.excludes, bool(step.chmod)]),
        }
        key = key_of("digest", named)
        known = self._parts.cache.find(key)
        if known is None:
            root = self._trees.layers(origin.diff_ids)
            digests = await asyncio.to_thread(self._local_digests, step, root)
            known = CacheRecord(
                key=key, kind="digest", name=step.name, value=digest_text(sorted(digests.items())),
                created_ns=now_ns(),
            )  # fmt: skip
            self._parts.cache.add(known)
        return {f"from {step.origin.image or 'stage'}": known.value}

    def _local_digests(self, step: Copy, root: Path | None) -> dict[str, str]:
        if not self._sources.local(step).sources:
            return {}
        tree = self._tree(step, root)
        try:
            found: dict[str, str] = {}
            for picked in pick(self._sources.local(step), tree):
                digests = tree.digest(
                    picked.path, excludes=_excludes(step), with_modes=not step.chmod
                )
                base = picked.path
                for name, digest in digests.items():
                    found["/".join(filter(None, (base, name)))] = digest
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
            return digest_text(sorted(tree.digest(mount.source.strip("/")).items()))
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


def _excludes(step: Copy) -> IgnoreList | None:
    try:
        return IgnoreList(step.excludes) if step.excludes else None
    except BadPattern as error:
        raise InvalidParameter(str(error)) from None
