"""Which status may follow which; the only place that changes `record.status`."""

from teu.errors import SystemFailure
from teu.model.container import ContainerRecord, Status

S = Status
_ALLOWED: dict[Status, frozenset[Status]] = {
    S.CREATING: frozenset({S.CREATED, S.REMOVING}),
    S.CREATED: frozenset({S.STARTING, S.REMOVING}),
    S.STARTING: frozenset({S.RUNNING, S.CREATED, S.EXITED, S.RESTARTING, S.REMOVING}),
    S.RUNNING: frozenset({S.PAUSED, S.EXITED, S.RESTARTING, S.REMOVING}),
    S.PAUSED: frozenset({S.RUNNING, S.EXITED, S.RESTARTING, S.REMOVING}),
    S.RESTARTING: frozenset({S.STARTING, S.EXITED, S.REMOVING}),
    S.EXITED: frozenset({S.STARTING, S.RESTARTING, S.REMOVING}),
    S.REMOVING: frozenset({S.DEAD}),
    S.DEAD: frozenset({S.REMOVING}),
}
ALIVE = frozenset({S.RUNNING, S.PAUSED})


def move(record: ContainerRecord, status: Status) -> None:
    """Raises: SystemFailure for a move that the table does not have (a bug, reported loudly)."""
    if status not in _ALLOWED[record.status]:
        raise SystemFailure(
            f"container {record.id[:12]} cannot go from {record.status} to {status}; "
            "this is a defect of the engine, please report it"
        )
    record.status = status


def is_running(record: ContainerRecord) -> bool:
    """A process of it exists (paused ones included), as Docker's `State.Running`."""
    return record.status in ALIVE


def is_active(record: ContainerRecord) -> bool:
    """Running, or about to be: it may not be removed without force."""
    return record.status in ALIVE or record.status in (S.STARTING, S.RESTARTING)
