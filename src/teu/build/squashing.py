"""`--squash`: all that a build added to its base image as one layer."""

from teu import ids
from teu.build.parts import Parts
from teu.build.plan import BuildPlan
from teu.build.states import Change, State
from teu.build.trees import in_thread_to_the_end
from teu.model.image import chain_ids
from teu.sys.merge import merge_layer
from teu.sys.syscalls import os_errors


async def squashed(parts: Parts, plan: BuildPlan, state: State) -> State:
    """The state with one layer above the base's; unchanged when there is nothing to squash.

    The history keeps the steps, without layers, and gets a line for the new one.
    """
    base = _base_diff_ids(plan)
    added = state.diff_ids[len(base) :]
    if len(added) < 2:
        return state
    directories = parts.images.layer_directories(chain_ids(state.diff_ids))[: len(added)]
    place = parts.workspace.open(ids.new_id())

    def merge() -> None:
        with os_errors("cannot squash the layers"):
            for directory in reversed(directories):
                merge_layer(directory, place.upper)

    try:
        await in_thread_to_the_end(merge)
        stack = await parts.images.workshop.adopt(base, place.upper)
    finally:
        parts.runner.finish(place)
    changes = [Change(one.text, one.created_ns, True) for one in state.changes]
    last_ns = max((one.created_ns for one in state.changes), default=0)
    text = f"squashed {len(added)} layers"
    return State(stack, state.inherited, [*changes, Change(text, last_ns, stack == base)])


def _base_diff_ids(plan: BuildPlan) -> list[str]:
    index: int | None = plan.target
    while index is not None:
        base = plan.stages[index].base
        if base.image is not None:
            return list(base.image.config.rootfs.diff_ids)
        index = base.stage
    return []
