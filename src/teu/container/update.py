"""Changing limits and the restart policy of a container that exists, running or not."""

from collections.abc import Iterator
from contextlib import contextmanager

from msgspec.structs import replace

from teu.container.container import Container
from teu.container.create import check_restart
from teu.container.services import Services
from teu.errors import Conflict, EngineError, InvalidParameter, SystemFailure
from teu.model.config import HostConfig, RestartPolicy
from teu.model.container import Status

_LIMITS = (
    "blkio_weight", "cpu_shares", "cpu_period", "cpu_quota", "cpu_realtime_period",
    "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems", "memory", "memory_reservation",
    "memory_swap", "nano_cpus", "pids_limit",
)  # fmt: skip
_CONFLICTS = (
    ("nano_cpus", "cpu_period", "Nano CPUs", "CPU Period"),
    ("nano_cpus", "cpu_quota", "Nano CPUs", "CPU Quota"),
    ("cpu_period", "nano_cpus", "CPU Period", "NanoCPUs"),
    ("cpu_quota", "nano_cpus", "CPU Quota", "NanoCPUs"),
)


class Updater:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def update(
        self, container: Container, asked: HostConfig, policy: RestartPolicy | None
    ) -> list[str]:
        """Applies what is set in `asked` (zero and empty mean "as it was") and the policy, if one
        is given; warnings.

        Raises: InvalidParameter, Conflict; the container is as before then.
        """
        warnings = self._services.runtime.validate_update(asked)
        if policy is not None:
            check_restart(HostConfig(restart_policy=policy))
        async with container.lock:
            if container.record.status is Status.REMOVING:
                raise Conflict('Container is marked for removal and cannot be "update".')
            with _told(container):
                await self._apply(container, asked, policy)
        self._services.containers.tell(container, "update")
        return warnings

    async def _apply(
        self, container: Container, asked: HostConfig, policy: RestartPolicy | None
    ) -> None:
        old = container.record.host
        new = _merged(old, asked, policy)
        self._services.runtime.validate_update(new)
        container.record.host = new
        try:
            if container.running:
                await self._services.runtime.update(container.record)
        except BaseException:
            container.record.host = old
            raise
        self._services.containers.save(container)


@contextmanager
def _told(container: Container) -> Iterator[None]:
    """Names the container in the error, as Docker does."""
    try:
        yield
    except EngineError as error:
        kinds = (InvalidParameter, Conflict, SystemFailure)
        kind = next((kind for kind in kinds if isinstance(error, kind)), EngineError)
        raise kind(f"Cannot update container {container.id}: {error.message}") from error


def _merged(old: HostConfig, asked: HostConfig, policy: RestartPolicy | None) -> HostConfig:
    changed = {name: value for name in _LIMITS if (value := getattr(asked, name))}
    for name, other, said, said_other in _CONFLICTS:
        if getattr(asked, name) > 0 and getattr(old, other) > 0:
            raise Conflict(
                f"Conflicting options: {said} cannot be updated as {said_other} has already been "
                "set"
            )
    if asked.memory_swap == 0 and asked.memory and 0 < old.memory_swap < asked.memory:
        raise InvalidParameter(
            "Memory limit should be smaller than already set memoryswap limit, update the "
            "memoryswap at the same time"
        )
    if asked.pids_limit is not None:
        changed["pids_limit"] = max(asked.pids_limit, 0)  # any other number means no limit
    if policy is not None:
        if old.auto_remove and policy.name not in ("", "no"):
            raise InvalidParameter(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        changed["restart_policy"] = policy
    return replace(old, **changed)
