"""Failed steps that can be entered: `build shell`.

The files as they were before the step, with its environment, user and directory, for
`LIFETIME_S`; the last few of them.
"""

import asyncio
from contextlib import ExitStack

from msgspec import Struct

from teu import ids
from teu.build.plan import BuildPlan
from teu.build.request import BuildRequest
from teu.build.solver import FailedStep
from teu.build.states import Change, State, config_json
from teu.build.steps import Run
from teu.clock import now_ns
from teu.errors import NotFound
from teu.image.service import ImageService
from teu.model.image import Image, chain_ids

LIFETIME_S = 1800.0
MAX_KEPT = 8


class _Failure(Struct):
    id: str
    failed: FailedStep
    plan: BuildPlan
    kept: ExitStack
    timer: asyncio.TimerHandle


class Failures:
    """Of the daemon. Loop's thread."""

    def __init__(self, images: ImageService) -> None:
        self._images = images
        self._failures: dict[str, _Failure] = {}

    def add(self, failed: FailedStep, plan: BuildPlan) -> str:
        """Keeps the state before a step; the id to enter it by."""
        failure_id = ids.new_id()[:12]
        kept = ExitStack()
        kept.enter_context(self._images.keeping(chain_ids(failed.diff_ids)))
        timer = asyncio.get_running_loop().call_later(LIFETIME_S, self._drop, failure_id)
        self._failures[failure_id] = _Failure(failure_id, failed, plan, kept, timer)
        while len(self._failures) > MAX_KEPT:
            self._drop(next(iter(self._failures)))
        return failure_id

    async def image(self, failure_id: str) -> tuple[Image, str]:
        """An image without a name to look at the last failure (or a certain one) with, and the
        command that failed. Raises: NotFound."""
        if not failure_id and self._failures:
            failure_id = next(reversed(self._failures))
        failure = self._failures.get(failure_id)
        if failure is None:
            raise NotFound(
                f"no failed build step {failure_id}: they are kept for "
                f"{LIFETIME_S / 60:.0f} minutes, and not over a restart of the daemon"
            )
        step = failure.failed.step
        stage = failure.plan.stages[step.stage]
        stage.config = step.config
        if isinstance(step, Run):
            stage.config.env = step.env
        state = State(failure.failed.diff_ids)
        count = len(failure.failed.diff_ids)
        state.changes = [Change("layer", now_ns(), False) for _ in range(count)]
        data = config_json(stage, state, BuildRequest(), now_ns())
        image = await self._images.workshop.store(data, ())
        return image, step.shown if isinstance(step, Run) else step.name

    def _drop(self, failure_id: str) -> None:
        failure = self._failures.pop(failure_id, None)
        if failure is not None:
            failure.timer.cancel()
            failure.kept.close()
