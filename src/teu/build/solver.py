"""Runs the steps of a plan: stages at the same time, each step from the cache or done.

A stage waits for what it needs when it needs it: its base, the stages that its steps read. Steps
that stand on nothing below them (COPY --link) start at once. The first failure cancels all others.
"""

import asyncio
from contextlib import ExitStack

import msgspec
from msgspec import Struct

from teu import ids
from teu.build import keys
from teu.build.cache import digest_text, key_of
from teu.build.files import FileSteps
from teu.build.parts import Parts
from teu.build.plan import BuildPlan
from teu.build.progress import BuildProgress
from teu.build.remotecaches import RemoteCaches
from teu.build.request import BuildRequest, Inputs
from teu.build.running import Environment
from teu.build.sources import Sources
from teu.build.states import Change, State
from teu.build.steps import Copy, MakeDirectory, Note, Run, StagePlan, Step
from teu.build.trees import Trees
from teu.clock import now_ns
from teu.dockerfile.errors import StepFailed
from teu.errors import EngineError
from teu.model.build import CacheRecord
from teu.model.image import chain_ids


class FailedStep(Struct):
    """Where a build failed: for the message, and for a look inside."""

    step: Step
    diff_ids: list[str]


class Solver:
    """One build for one platform."""

    def __init__(
        self,
        parts: Parts,
        plan: BuildPlan,
        request: BuildRequest,
        inputs: Inputs,
        progress: BuildProgress,
        sources: Sources,
        remote: RemoteCaches,
    ) -> None:
        self._parts = parts
        self.plan = plan
        self._request = request
        self._inputs = inputs
        self._progress = progress
        self._sources = sources
        self._remote = remote
        self.records: list[CacheRecord] = []  # of every step, for an export of the cache
        self._environment = Environment(
            network=request.network, extra_hosts=request.extra_hosts, limits=request.limits
        )
        self._stages: dict[int, asyncio.Task[State]] = {}
        self._kept = ExitStack()
        self.failed: FailedStep | None = None

    async def run(self) -> State:
        """The target's state; its layers are kept until `close`.

        Raises: StepFailed and others; the first failure, when several steps fail.
        """
        self._pin = self._kept.enter_context(self._parts.cache.pinning())
        async with Trees(self._parts, self._inputs) as trees:
            self._files = FileSteps(self._parts, trees, self._sources, self._request)
            self._trees = trees
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    for index in sorted(self.plan.stages):
                        stage = self.plan.stages[index]
                        work = self._stage(stage)
                        self._stages[index] = group.create_task(work, name=f"stage {index}")
            except BaseExceptionGroup as failures:
                raise _first(failures) from failures
        return self._stages[self.plan.target].result()

    def close(self) -> None:
        """Lets go of the layers; the image that needs them is stored by now."""
        self._kept.close()

    def state_of(self, stage: int) -> State:
        """After `run`."""
        return self._stages[stage].result()

    # --- a stage --------------------------------------------------------------------------

    async def _stage(self, plan: StagePlan) -> State:
        linked = {
            id(step): self._group.create_task(self._linked(plan, step), name=step.name)
            for step in plan.steps
            if isinstance(step, Copy) and self._files.is_independent(step)
        }
        state = await self._base(plan)
        for step in plan.steps:
            self._progress.started(step.number, self._name(plan, step), step.name)
            try:
                if id(step) in linked:
                    state = await self._put_on(step, state, linked[id(step)])
                else:
                    state = await self._step(plan, step, state)
            except EngineError as error:
                self._note_failure(step, state, error)
                raise
            self._progress.done(step.number, _state_id(step, state))
        return state

    def _name(self, plan: StagePlan, step: Step) -> str:
        title = plan.name or f"stage-{plan.index}"
        position = plan.steps.index(step) + 2
        return f"[{title} {position}/{len(plan.steps) + 1}] {step.name}"

    def _note_failure(self, step: Step, state: State, error: EngineError) -> None:
        if self.failed is None:
            self.failed = FailedStep(step, state.diff_ids)

    async def _base(self, plan: StagePlan) -> State:
        title = plan.name or f"stage-{plan.index}"
        self._progress.started(
            plan.number, f"[{title} 1/{len(plan.steps) + 1}] {plan.title}", plan.title
        )
        base = plan.base
        if base.stage is not None:
            state = await asyncio.shield(self._stages[base.stage])
        elif base.image is not None:
            config = base.image.config
            self._keep(config.rootfs.diff_ids)
            state = State(list(config.rootfs.diff_ids), list(config.history))
        else:
            state = State()
        shown = base.image.id.removeprefix("sha256:") if base.image else digest_text(state.diff_ids)
        triggers = sum(step.triggered for step in plan.steps)
        if triggers:
            text = "trigger" if triggers == 1 else "triggers"
            self._progress.log(plan.number, f"# Executing {triggers} build {text}\n".encode())
        self._progress.done(plan.number, shown if base.name != "scratch" else "")
        return state

    def _keep(self, diff_ids: list[str]) -> None:
        self._kept.enter_context(self._parts.images.keeping(chain_ids(list(diff_ids))))

    # --- a step ---------------------------------------------------------------------------

    async def _step(self, plan: StagePlan, step: Step, state: State) -> State:
        if isinstance(step, Note):
            return state.after(state.diff_ids, Change(step.history))
        record = await self._result(plan, step, state)
        self._keep(record.diff_ids)
        empty = record.diff_ids == state.diff_ids
        return state.after(record.diff_ids, Change(step.history, record.created_ns, empty))

    async def _linked(self, plan: StagePlan, step: Copy) -> CacheRecord:
        record = await self._result(plan, step, State())
        self._keep(record.diff_ids)
        return record

    async def _put_on(self, step: Step, state: State, linked: "asyncio.Task[CacheRecord]") -> State:
        record = await linked
        if not record.diff_ids:
            return state.after(state.diff_ids, Change(step.history, record.created_ns))
        workshop = self._parts.images.workshop
        stack = await workshop.put_on(state.diff_ids, record.diff_ids[-1])
        self._keep(stack)
        return state.after(stack, Change(step.history, record.created_ns, False))

    async def _result(self, plan: StagePlan, step: Step, state: State) -> CacheRecord:
        """From the cache, or made now."""
        assert isinstance(step, Run | Copy | MakeDirectory)
        cache = self._parts.cache
        record = await self._record(plan, step, state)
        self._pin(record.key)
        if not self._ignores_cache(plan):
            found = cache.find(record.key)
            if found is None:
                found = await self._remote.find(record.key, self._kept)
            if found is not None and self._parts.images.workshop.has(found.diff_ids):
                self._progress.cached(step.number)
                self.records.append(found)
                return found
        self._explain(step, record)
        record.diff_ids = await self._make(step, state)
        record.created_ns = now_ns()
        record.size_bytes = self._own_size(state.diff_ids, record.diff_ids)
        cache.add(record)
        self.records.append(record)
        return record

    async def _record(
        self, plan: StagePlan, step: "Run | Copy | MakeDirectory", state: State
    ) -> CacheRecord:
        """The step's record without a result."""
        files: dict[str, str] = {}
        if isinstance(step, Run):
            mounts = await self._mount_states(step)
            digests = await self._files.mount_digests(step, mounts)
            kind, named = "exec", keys.run_parts(step, state, self._request, digests)
        elif isinstance(step, Copy):
            origin = await self._origin_state(step)
            kind = "files"
            named, files = await self._files.copy_parts(step, state, origin)
        else:
            kind, named = "directory", keys.directory_parts(step, state, self._request)
        return CacheRecord(
            key=key_of(kind, named),
            kind=kind,
            name=self._name(plan, step),
            slot=digest_text([plan.name or plan.index, step.name]),
            parts=named,
            files=files,
        )

    def _own_size(self, before: list[str], after: list[str]) -> int:
        return 0 if before == after else self._parts.images.workshop.size_bytes(after)

    def _ignores_cache(self, plan: StagePlan) -> bool:
        filtered = {name.lower() for name in self._request.no_cache_filter}
        return self._request.no_cache or plan.name in filtered or str(plan.index) in filtered

    async def _make(self, step: "Run | Copy | MakeDirectory", state: State) -> list[str]:
        if isinstance(step, Run):
            return await self._command(step, state)
        if isinstance(step, Copy):
            return await self._files.copy(step, state, await self._origin_state(step))
        return await self._files.make_directory(step, state)

    async def _origin_state(self, step: Copy) -> State | None:
        return await self._state_at(step.origin.stage, step.origin.image)

    async def _mount_states(self, step: Run) -> list[State | None]:
        return [await self._state_at(m.origin.stage, m.origin.image) for m in step.mounts]

    async def _state_at(self, stage: int | None, image: str) -> State | None:
        """The layers that an origin means; None for a context."""
        if stage is not None:
            return await asyncio.shield(self._stages[stage])
        if image:
            found = await self._sources.image(image)
            self._keep(found.config.rootfs.diff_ids)
            return State(list(found.config.rootfs.diff_ids))
        return None

    async def _command(self, step: Run, state: State) -> list[str]:
        parts = self._parts
        place = parts.workspace.open(ids.new_id())
        try:
            states = await self._mount_states(step)
            async with self._sources.mounts(step, states, self._trees) as sources:
                async with parts.commands:
                    self._progress.running(step.number, place.id)
                    code = await parts.runner.run(
                        step,
                        place,
                        self._trees.lower(state.diff_ids),
                        sources,
                        self._environment,
                        lambda data: self._log(step, data),
                    )
                if code:
                    raise StepFailed(
                        f"The command '{step.shown}' returned a non-zero code: {code}", code
                    )
                return await self._files.adopt(place, state)
        finally:
            parts.runner.finish(place)

    async def _log(self, step: Step, data: bytes) -> None:
        """A command that says more than the client reads has to wait."""
        self._progress.log(step.number, data)
        await self._inputs.flow()

    def _explain(self, step: Step, record: CacheRecord) -> None:
        if self._request.explain:
            reason = keys.difference(self._parts.cache.last_of(record.slot), record)
            self._progress.log(step.number, f"not cached: {reason}\n".encode())


def _state_id(step: Step, state: State) -> str:
    return digest_text([state.diff_ids, msgspec.to_builtins(step.config)])


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure that says something."""
    found: list[BaseException] = []
    for failure in failures.exceptions:
        found.append(_first(failure) if isinstance(failure, BaseExceptionGroup) else failure)
    engine = [failure for failure in found if isinstance(failure, EngineError)]
    return engine[0] if engine else found[0]
