"""One build from request to image.

    Dockerfile -> plan (base images are there now) -> steps -> config -> image, names -> answer

Cancel: the commands that run are killed, nothing but finished cache results is left. Crash: see
workspace.py.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from teu.build.cache import BuildCache, digest_text, key_of
from teu.build.cachemounts import CacheMounts
from teu.build.checking import findings, refuse, report, short
from teu.build.dockerfiles import apply_ignore, read_dockerfile
from teu.build.failures import Failures
from teu.build.parts import Parts
from teu.build.plan import BuildPlan, Planner
from teu.build.progress import BuildProgress
from teu.build.pruning import Pruner
from teu.build.remotecaches import RemoteCaches, cache_spec, document_of
from teu.build.request import BuildRequest, Inputs
from teu.build.running import Runner
from teu.build.sessions import Sessions
from teu.build.solver import FailedStep, Solver
from teu.build.sources import Sources, auth_for
from teu.build.squashing import squashed
from teu.build.states import State, config_json
from teu.build.trees import Trees, in_thread_to_the_end
from teu.build.workspace import Workspace
from teu.clock import now_ns
from teu.dockerfile.errors import excerpt
from teu.dockerfile.stages import Dockerfile
from teu.errors import EngineError, NotFound
from teu.image.platform import parse_platform
from teu.image.service import ImageService
from teu.model.build import CacheRecord
from teu.model.image import Image, Platform, chain_ids
from teu.model.reference import Reference
from teu.runtime.service import RuntimeService
from teu.runtime.shim import ShimService
from teu.store.builds import BuildStore
from teu.tasks import TaskOwner

MAX_COMMANDS = 8
MAX_EXPORTS = 16
log = logging.getLogger(__name__)


class Built(Struct):
    """The result for one platform."""

    image: Image
    plan: BuildPlan
    state: State


class BuildService:
    """One per daemon. `start` once, before the first build. `limit_bytes`: of the cache, 0 for
    none; what was not used for longest goes after a build."""

    def __init__(
        self,
        workspace: Workspace,
        store: BuildStore,
        images: ImageService,
        runner: Runner,
        tasks: TaskOwner,
        limit_bytes: int,
    ) -> None:
        self._workspace = workspace
        self._cache = BuildCache(store)
        self._mounts = CacheMounts(workspace.root / "mounts", self._cache)
        self._parts = Parts(workspace, self._cache, images, runner, asyncio.Semaphore(MAX_COMMANDS))
        self.failures = Failures(images)
        self._running: set[asyncio.Task[Any]] = set()
        self._limit_bytes = limit_bytes
        self._exports: dict[str, tuple[bytes, list[list[str]]]] = {}
        self.sessions = Sessions(workspace, images, tasks)
        self.pruner = Pruner(self._cache, self._mounts, workspace, images, self.sessions.is_busy)

    async def start(self, runtime: RuntimeService, shims: ShimService) -> None:
        """Removes what an earlier daemon's builds left; reads the cache."""
        await self._workspace.recover(runtime, shims)
        self._cache.load(self._parts.images.workshop.has)
        self._mounts.start()

    def layers_in_use(self) -> set[str]:
        """Chain ids that the cache keeps."""
        return self._cache.layers_in_use()

    def new_context(self) -> Path:
        """An empty directory for a client's files; `drop_context` it. Raises: SystemFailure."""
        return self._workspace.new_context()

    async def drop_context(self, path: Path) -> None:
        await asyncio.to_thread(self._workspace.drop_context, path)

    async def build(self, request: BuildRequest, inputs: Inputs, progress: BuildProgress) -> Image:
        """Runs one build; the image is stored and named, for several platforms each. The first
        platform's image is the result.

        Raises: DockerfileError, InvalidParameter before the first message; StepFailed and others.
        """
        names = [Reference.parse(tag).with_default_tag() for tag in request.tags]
        platforms = [parse_platform(text) for text in request.platforms or [""]]
        for text in request.cache_to:
            cache_spec(text)
        dockerfile = await asyncio.to_thread(read_dockerfile, request, inputs)
        if inputs.context is not None and not inputs.is_filtered:
            ignore = partial(apply_ignore, inputs.context, request.dockerfile)
            await in_thread_to_the_end(ignore)
        remote = RemoteCaches(
            self._parts.images, self._cache, lambda message: progress.pulling(0, message)
        )
        await remote.open(request, inputs)
        found = findings(dockerfile, self._parts.images)
        refuse(dockerfile, found)
        with self._registered():
            built = await self._all(dockerfile, request, inputs, platforms, progress, remote)
        await self._name(built, names)
        progress.warn(short(found))
        return built[0].image

    async def _all(
        self,
        dockerfile: Dockerfile,
        request: BuildRequest,
        inputs: Inputs,
        platforms: list[Platform],
        progress: BuildProgress,
        remote: RemoteCaches,
    ) -> list[Built]:
        try:
            return [
                await self._one(dockerfile, request, inputs, platform, progress, remote)
                for platform in platforms
            ]
        finally:
            await self._flush()

    async def check(self, request: BuildRequest, inputs: Inputs) -> tuple[str, int]:
        """The findings about a Dockerfile as text, and how many there are.

        Raises: DockerfileError, InvalidParameter.
        """
        dockerfile = await asyncio.to_thread(read_dockerfile, request, inputs)
        found = findings(dockerfile, self._parts.images)
        return report(dockerfile, found), len(found)

    @contextmanager
    def _registered(self) -> Iterator[None]:
        """For `stop`."""
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            yield
        finally:
            self._running.discard(task)

    async def stop(self) -> None:
        """Cancels the builds that run and waits for their end."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _name(self, built: list[Built], names: list[Reference]) -> None:
        """Names mean the image, or the images of all platforms at once."""
        several = len(built) > 1
        index = digest_text([one.image.id for one in built]) if several else ""
        for one in built if names else ():
            data = self._parts.images.config_data(one.image.id)
            await self._parts.images.workshop.store(data, names, index_digest=index)

    async def _one(
        self,
        dockerfile: Dockerfile,
        request: BuildRequest,
        inputs: Inputs,
        platform: Platform,
        progress: BuildProgress,
        remote: RemoteCaches,
    ) -> Built:
        sources = Sources(self._parts, self._mounts, request, inputs, platform, progress)
        solver: Solver | None = None
        try:
            plan = await Planner(dockerfile, request, platform, sources.image).plan()
            progress.plan(plan.total)
            solver = Solver(self._parts, plan, request, inputs, progress, sources, remote)
            state = await solver.run()
            if request.squash:
                state = await squashed(self._parts, plan, state)
            image = await self._store(request, plan, state, solver.records)
            await self._export_cache(request, image, solver.records, progress)
        except EngineError:
            if solver is not None and solver.failed is not None:
                self._report(dockerfile, solver.plan, solver.failed, progress)
            raise
        finally:
            if solver is not None:
                solver.close()
            await asyncio.shield(sources.close())
        for warning in plan.warnings:
            progress.say(warning + "\n")
        return Built(image, plan, state)

    async def _store(
        self,
        request: BuildRequest,
        plan: BuildPlan,
        state: State,
        records: list[CacheRecord],
    ) -> Image:
        stage = plan.stages[plan.target]
        created_ns = self._created_ns(request, plan, state)
        inline = None
        if any(cache_spec(text).type == "inline" for text in request.cache_to):
            chain = set(state.diff_ids)
            inline = document_of(r for r in records if chain.issuperset(r.diff_ids))
        data = config_json(stage, state, request, created_ns, inline)
        annotations = request.annotations
        return await self._parts.images.workshop.store(data, (), annotations=annotations)

    async def _export_cache(
        self,
        request: BuildRequest,
        image: Image,
        records: list[CacheRecord],
        progress: BuildProgress,
    ) -> None:
        """To registries at once; for a client's directory it stays ready for a while."""
        document = document_of(records)
        stacks = [record.diff_ids for record in records]
        for spec in map(cache_spec, request.cache_to):
            if spec.type == "registry":
                name = Reference.parse(spec.place).with_default_tag()
                auth = auth_for(request.auths, name)
                tell = partial(progress.pulling, 0)
                await self._parts.images.caches.push(name, auth, document, stacks, tell)
            elif spec.type == "local":
                self._exports[image.id] = document, stacks
                while len(self._exports) > MAX_EXPORTS:
                    del self._exports[next(iter(self._exports))]

    def cache_archive(self, image_id: str) -> AsyncIterator[bytes]:
        """The cache of a build that asked for it, as the tar of an OCI layout. Raises: NotFound."""
        found = self._exports.get(image_id)
        if found is None:
            raise NotFound(f"no cache was exported with {image_id}")
        return self._parts.images.caches.archive(*found)

    async def tree(self, ref: str) -> AsyncIterator[bytes]:
        """The file system of an image as a tar. Raises: NoSuchImage, SystemFailure."""
        image = self._parts.images.runnable(ref)
        async with Trees(self._parts, Inputs()) as trees:
            with self._parts.images.keeping(image.chain_ids):
                root = trees.layers(image.config.rootfs.diff_ids)
                async for piece in self._parts.images.archive_tree(root):
                    yield piece

    def _created_ns(self, request: BuildRequest, plan: BuildPlan, state: State) -> int:
        """When the image was first made like this: an unchanged build gives the same image."""
        stage = plan.stages[plan.target]
        facts = config_json(stage, state, request, 0)
        key = key_of("image", {"config": digest_text(facts.decode())})
        known = self._cache.find(key)
        if known is None or request.no_cache:
            known = CacheRecord(key=key, kind="image", name="image", created_ns=now_ns())
            self._cache.add(known)
        return known.created_ns

    def _report(
        self,
        dockerfile: Dockerfile,
        plan: BuildPlan,
        failed: FailedStep,
        progress: BuildProgress,
    ) -> None:
        """Where it is in the Dockerfile, and how to look inside."""
        text = excerpt(dockerfile.source.text, failed.step.span, dockerfile.name)
        progress.failed(failed.step.number, f"{text}\n")
        progress.say(f"look inside: teu builder shell {self.failures.add(failed, plan)}\n")

    async def _flush(self) -> None:
        """Makes what the cache learned durable; a failure only costs the cache."""
        try:
            stacks = self._cache.unflushed_stacks()
            chains = {one for stack in stacks for one in chain_ids(stack)}
            await self._parts.images.workshop.sync(chains)
            self._cache.flush()
            await self.pruner.limit(self._limit_bytes)
        except EngineError:
            log.exception("the build cache cannot be written")
