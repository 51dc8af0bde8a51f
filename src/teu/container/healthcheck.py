"""Health checks as data: what was asked, and what a probe's result means.

Source: API 1.51 `HealthConfig`, `Health`; Docker's documentation of HEALTHCHECK.
"""

from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig, HealthConfig, HostConfig
from teu.model.container import ContainerRecord, Health, HealthResult

STARTING: Final = "starting"
HEALTHY: Final = "healthy"
UNHEALTHY: Final = "unhealthy"
NONE: Final = "none"
STATUSES: Final = (STARTING, HEALTHY, UNHEALTHY, NONE)
LOG_ENTRIES: Final = 5
OUTPUT_BYTES: Final = 4096
ON_FAILURE: Final = "teu.health-on-failure"  # an annotation, docs/adr/0011
ACTIONS: Final = ("none", "kill", "restart", "stop")
_DEFAULT_SHELL: Final = ["/bin/sh", "-c"]
_SHORTEST_NS: Final = 1_000_000
_DURATIONS: Final = ("interval", "timeout", "start_period", "start_interval")
_WORDS: Final = {
    "interval": "Interval", "timeout": "Timeout", "start_period": "StartPeriod",
    "start_interval": "StartInterval",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """What to run, how often and how long, defaults filled in. `on_failure`: one of ACTIONS."""

    command: list[str]
    interval_s: float = 30.0
    timeout_s: float = 30.0
    timeout_text: str = "30s"
    start_period_s: float = 0.0
    start_interval_s: float = 5.0
    retries: int = 3
    on_failure: str = "none"

    def pause_s(self, status: str, age_s: float) -> float:
        """How long to wait before the next probe of a container that runs for `age_s`."""
        if age_s >= self.start_period_s or status != STARTING:
            return self.interval_s
        return min(self.start_interval_s, self.start_period_s - age_s)


def resolve(record: ContainerRecord) -> HealthCheck | None:
    """The container's check; None when it has none, or has it turned off."""
    asked = record.config.healthcheck
    if asked is None or not asked.test or asked.test[0] not in ("CMD", "CMD-SHELL"):
        return None
    command = asked.test[1:]
    if asked.test[0] == "CMD-SHELL":
        command = [*(record.config.shell or _DEFAULT_SHELL), *command]
    given = {f"{name}_s": getattr(asked, name) / 1e9 for name in _DURATIONS if getattr(asked, name)}
    if asked.timeout:
        given["timeout_text"] = _go_duration(asked.timeout)
    if asked.retries:
        given["retries"] = asked.retries
    return HealthCheck(command=command, on_failure=on_failure(record.host), **given)


def on_failure(host: HostConfig) -> str:
    """What is done when the container becomes unhealthy."""
    return (host.annotations or {}).get(ON_FAILURE) or "none"


def merged(asked: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    """The image's check where the request is silent, field by field."""
    if asked is None or image is None:
        return asked or image
    silent = {
        name: getattr(image, name)
        for name in HealthConfig.__struct_fields__
        if not getattr(asked, name)
    }
    return replace(asked, **silent)


def check_health(config: ContainerConfig, host: HostConfig) -> None:
    """Raises: InvalidParameter with Docker's text."""
    asked = config.healthcheck or HealthConfig()
    for name, word in _WORDS.items():
        if getattr(asked, name) and getattr(asked, name) < _SHORTEST_NS:
            raise InvalidParameter(f"{word} in Healthcheck cannot be less than 1ms")
    if asked.retries < 0:
        raise InvalidParameter("Retries in Healthcheck cannot be negative")
    if asked.test and asked.test[0] == "CMD" and len(asked.test) == 1:
        raise InvalidParameter("the health check CMD has no command")
    if on_failure(host) not in ACTIONS:
        raise InvalidParameter(
            f"invalid health-on-failure action {on_failure(host)!r}: use one of "
            f"{', '.join(ACTIONS)}"
        )


def judge(health: Health, check: HealthCheck, result: HealthResult, started_ns: int) -> Health:
    """The health after one more result. Failures in the start period do not count."""
    log = [*health.log, result][-LOG_ENTRIES:]
    if result.exit_code == 0:
        return Health(status=HEALTHY, log=log)
    age_s = (result.start_ns - started_ns) / 1e9
    if health.status == STARTING and age_s < check.start_period_s:
        return replace(health, log=log)
    streak = health.failing_streak + 1
    status = UNHEALTHY if streak >= check.retries else health.status
    return Health(status=status, failing_streak=streak, log=log)


def status_of(record: ContainerRecord) -> str:
    """One of STATUSES."""
    return record.health.status if record.health else NONE


def _go_duration(nanos: int) -> str:
    """`1500000000` -> `1.5s`, `90000000000` -> `1m30s`, as Go prints durations."""
    if nanos < 1_000_000:
        return f"{nanos / 1_000:g}µs"
    if nanos < 1_000_000_000:
        return f"{nanos / 1_000_000:g}ms"
    minutes, rest = divmod(nanos, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1e9:.9f}".rstrip("0").rstrip(".") + "s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + seconds
