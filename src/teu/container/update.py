"""Changing limits and the restart policy of a container that exists, running or not."""

from msgspec.structs import replace

from teu.container.container import Container
from teu.container.create import check_restart
from teu.container.services import Services
from teu.errors import Conflict, InvalidParameter
from teu.model.config import HostConfig

_LIMITS = (
    "blkio_weight", "cpu_shares", "cpu_period", "cpu_quota", "cpu_realtime_period",
    "cpu_realtime_runtime", "cpuset_cpus", "cpuset_mems", "memory", "memory_reservation",
    "memory_swap", "nano_cpus", "pids_limit",
)  # fmt: skip


class Updater:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def update(self, container: Container, asked: HostConfig) -> list[str]:
        """Applies what is set in `asked` (zero and empty mean "as it was"); warnings.

        Raises: InvalidParameter, Conflict; the container is as before then.
        """
        async with container.lock:
            old = container.record.host
            new = self._merged(old, asked)
            warnings = self._services.runtime.validate_update(new)
            container.record.host = new
            try:
                if container.running:
                    await self._services.runtime.update(container.record)
            except BaseException:
                container.record.host = old
                raise
            self._services.containers.save(container)
        self._services.containers.tell(container, "update")
        return warnings

    def _merged(self, old: HostConfig, asked: HostConfig) -> HostConfig:
        changed = {name: value for name in _LIMITS if (value := getattr(asked, name))}
        if asked.memory_swap == 0 and asked.memory and 0 < old.memory_swap < asked.memory:
            raise InvalidParameter(
                "Memory limit should be smaller than already set memoryswap limit, update the "
                "memoryswap at the same time"
            )
        policy = asked.restart_policy
        if policy.name not in ("", "no") or policy.maximum_retry_count:
            changed["restart_policy"] = policy
        new = replace(old, **changed)
        if new.nano_cpus and (new.cpu_quota or new.cpu_period):
            raise Conflict(
                "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"
            )
        check_restart(new)
        if new.auto_remove and new.restart_policy.name not in ("", "no"):
            raise InvalidParameter(
                "Restart policy cannot be updated because AutoRemove is enabled for the container"
            )
        return new
