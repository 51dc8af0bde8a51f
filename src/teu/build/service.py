"""One build from request to image.

    Dockerfile -> plan (base images are there now) -> steps -> config -> image, names -> answer

Cancel: the commands that run are killed, nothing but finished cache results is left. Crash: see
workspace.py.
"""

import asyncio
import logging
import os
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec import Struct

from teu.build.cache import BuildCache, digest_text, key_of
from teu.build.cachemounts import CacheMounts
from teu.build.parts import Parts
from teu.build.plan import BuildPlan, Planner
from teu.build.progress import BuildProgress
from teu.build.request import BuildRequest, Inputs
from teu.build.running import Runner
from teu.build.sessions import Sessions
from teu.build.solver import FailedStep, Solver
from teu.build.sources import Sources
from teu.build.states import State, config_json
from teu.build.trees import in_thread_to_the_end
from teu.build.workspace import Workspace
from teu.clock import now_ns
from teu.dockerfile.errors import DockerfileError, excerpt
from teu.dockerfile.stages import Dockerfile, parse_dockerfile
from teu.dockerignore import BadPattern, IgnoreList, read_patterns
from teu.errors import EngineError, InvalidParameter
from teu.image.platform import parse_platform
from teu.image.service import ImageService
from teu.model.build import CacheRecord
from teu.model.image import Image, Platform, chain_ids
from teu.model.reference import Reference
from teu.runtime.service import RuntimeService
from teu.runtime.shim import ShimService
from teu.store.builds import BuildStore
from teu.sys.beneath import open_in_root, remove_tree
from teu.tasks import TaskOwner

MAX_COMMANDS = 8
log = logging.getLogger(__name__)


class Built(Struct):
    """The result for one platform."""

    image: Image
    plan: BuildPlan
    state: State


class BuildService:
    """One per daemon. `start` once, before the first build."""

    def __init__(
        self,
        workspace: Workspace,
        store: BuildStore,
        images: ImageService,
        runner: Runner,
        tasks: TaskOwner,
    ) -> None:
        self._workspace = workspace
        self._cache = BuildCache(store)
        self._mounts = CacheMounts(workspace.root / "mounts", self._cache)
        self._parts = Parts(workspace, self._cache, images, runner, asyncio.Semaphore(MAX_COMMANDS))
        self.sessions = Sessions(workspace, images, tasks)

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
        """Runs one build; the image is stored and named.

        Raises: DockerfileError, InvalidParameter before the first message; StepFailed and others.
        """
        names = [Reference.parse(tag).with_default_tag() for tag in request.tags]
        dockerfile = await asyncio.to_thread(read_dockerfile, request, inputs)
        if inputs.context is not None and not inputs.is_filtered:
            await in_thread_to_the_end(partial(apply_ignore, inputs.context, request.dockerfile))
        platforms = [parse_platform(text) for text in request.platforms or [""]]
        try:
            built = await self._one(dockerfile, request, inputs, platforms[0], progress, names)
        finally:
            await self._flush()
        return built.image

    async def _one(
        self,
        dockerfile: Dockerfile,
        request: BuildRequest,
        inputs: Inputs,
        platform: Platform,
        progress: BuildProgress,
        names: list[Reference],
    ) -> Built:
        sources = Sources(self._parts, self._mounts, request, inputs, platform, progress)
        planner = Planner(dockerfile, request, platform, sources.image)
        plan = await planner.plan()
        progress.plan(plan.total)
        solver = Solver(self._parts, plan, request, inputs, progress, sources)
        try:
            state = await solver.run()
            image = await self._store(request, plan, state, names)
        except EngineError as error:
            if solver.failed is not None:
                self._report(dockerfile, solver.failed, error, progress)
            raise
        finally:
            solver.close()
        for warning in plan.warnings:
            progress.say(warning + "\n")
        return Built(image, plan, state)

    async def _store(
        self, request: BuildRequest, plan: BuildPlan, state: State, names: list[Reference]
    ) -> Image:
        stage = plan.stages[plan.target]
        created_ns = self._created_ns(request, plan, state)
        data = config_json(stage, state, request, created_ns)
        return await self._parts.images.workshop.store(data, names)

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
        failed: FailedStep,
        error: EngineError,
        progress: BuildProgress,
    ) -> None:
        span = failed.step.span
        text = excerpt(dockerfile.source.text, span, dockerfile.name)
        progress.failed(failed.step.number, f"{text}\n")

    async def _flush(self) -> None:
        """Makes what the cache learned durable; a failure only costs the cache."""
        try:
            stacks = self._cache.unflushed_stacks()
            chains = {one for stack in stacks for one in chain_ids(stack)}
            await self._parts.images.workshop.sync(chains)
            self._cache.flush()
        except EngineError:
            log.exception("the build cache cannot be written")


def read_dockerfile(request: BuildRequest, inputs: Inputs) -> Dockerfile:
    """From the request or the context. Raises: DockerfileError, InvalidParameter."""
    name = request.dockerfile or "Dockerfile"
    if request.dockerfile_text is not None:
        return parse_dockerfile(request.dockerfile_text, name)
    if inputs.context is None:
        raise InvalidParameter("there is no Dockerfile: neither a context nor a text was given")
    data = read_file(inputs.context, name)
    if data is None and name == "Dockerfile":
        data = read_file(inputs.context, "dockerfile")
    if data is None:
        raise InvalidParameter(f"Cannot locate specified Dockerfile: {name}")
    if not data.strip():
        raise DockerfileError(f"the Dockerfile ({name}) cannot be empty")
    return parse_dockerfile(data, name)


def read_file(root: Path, path: str, limit_bytes: int = 5 << 20) -> bytes | None:
    """A regular file of a context; None when it is not there. Raises: InvalidParameter."""
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidParameter(f"cannot read {path}: {error.strerror}") from error
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidParameter(f"{path} is not a regular file")
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise InvalidParameter(f"{path} is larger than {limit_bytes >> 20} MiB")
    return data


def apply_ignore(root: Path, dockerfile: str) -> None:
    """Takes away what `DOCKERFILE.dockerignore`, or else `.dockerignore`, leaves out.

    Raises: InvalidParameter for a bad pattern.
    """
    data = read_file(root, f"{dockerfile}.dockerignore")
    if data is None:
        data = read_file(root, ".dockerignore")
    if not data:
        return
    try:
        ignore = IgnoreList(read_patterns(data.decode(errors="replace")))
    except BadPattern as error:
        raise InvalidParameter(f"failed to read dockerignore: {error}") from None
    if ignore:
        _drop_ignored(root, "", ignore)


def _drop_ignored(root: Path, path: str, ignore: IgnoreList) -> None:
    directory = root / path
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(fd):
            inner = f"{path}/{name}" if path else name
            is_directory = (directory / name).is_dir() and not (directory / name).is_symlink()
            if is_directory and (ignore.has_exceptions or not ignore.ignores(inner)):
                _drop_ignored(root, inner, ignore)
                if ignore.ignores(inner):
                    with suppress(OSError):  # something in it was taken back in
                        os.rmdir(name, dir_fd=fd)
            elif ignore.ignores(inner):
                remove_tree(fd, os.fsencode(name))
    finally:
        os.close(fd)
