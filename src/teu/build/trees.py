"""The trees that steps read: the context, file systems of stages and images.

A stack of layers is mounted the first time a step asks for it and unmounted when the build ends.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from teu import ids
from teu.build.parts import Parts
from teu.build.request import Inputs
from teu.build.workspace import Place
from teu.errors import InvalidParameter
from teu.model.image import chain_ids


class Trees:
    """For one build; use as an asynchronous context manager."""

    def __init__(self, parts: Parts, inputs: Inputs) -> None:
        self._parts = parts
        self._inputs = inputs
        self._places: dict[tuple[str, ...], Place] = {}

    async def __aenter__(self) -> "Trees":
        return self

    async def __aexit__(self, *_: object) -> None:
        workspace = self._parts.workspace
        for place in self._places.values():
            await asyncio.shield(asyncio.to_thread(workspace.close, place))

    def context(self, name: str = "") -> Path:
        """The build context, or a named one. Raises: InvalidParameter when there is none."""
        found = self._inputs.named.get(name) if name else self._inputs.context
        if found is None:
            what = f"named context {name!r}" if name else "build context"
            raise InvalidParameter(f"there is no {what} to take files from")
        return found

    def lower(self, diff_ids: list[str]) -> list[Path]:
        """Directories of a stack, top first. Raises: DataLoss."""
        return self._parts.images.layer_directories(chain_ids(diff_ids))

    def layers(self, diff_ids: list[str]) -> Path:
        """The merged file system of a stack. Raises: SystemFailure, DataLoss."""
        key = tuple(diff_ids)
        if key not in self._places:
            place = self._parts.workspace.open(ids.new_id())
            self._places[key] = place
            self._parts.workspace.mount(place, self.lower(diff_ids))
        return self._places[key].rootfs


async def in_thread_to_the_end(work: Callable[[], object]) -> None:
    """Runs file work and waits for its end even when cancelled: what it writes to is about to be
    removed. Raises: what the work raises."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
