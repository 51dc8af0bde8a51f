"""The OCI `process` object of a container's main process and of an exec: user, environment,
capabilities, limits.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from teu.model.config import Ulimit
from teu.model.container import ContainerRecord
from teu.runtime import capabilities
from teu.runtime.namespaces import HOST
from teu.runtime.users import User

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INIT_INSIDE: Final = "/sbin/docker-init"
_UNLIMITED: Final = 2**64 - 1


class ExecRequest(Struct, kw_only=True):
    """What `exec` asks for. `user` empty: as the container. `console_size` is height, width."""

    cmd: list[str]
    env: list[str] | None = None
    user: str = ""
    working_dir: str = ""
    tty: bool = False
    privileged: bool = False
    console_size: list[int] | None = None


class Confinement(Struct, frozen=True):
    """What the daemon decided about a container beyond its own configuration."""

    no_new_privileges: bool = False
    apparmor: str = ""
    ulimits: Mapping[str, Ulimit] = {}


def main_process(
    record: ContainerRecord, user: User, confinement: Confinement, *, hostname: str, init: bool
) -> dict[str, Any]:
    """The container's own process; `init` puts the small init in front of it."""
    request = ExecRequest(
        cmd=[INIT_INSIDE, "--", *record.args] if init else record.args,
        tty=record.config.tty,
        console_size=record.host.console_size,
    )
    return exec_process(record, request, user, confinement, hostname=hostname)


def exec_process(
    record: ContainerRecord,
    request: ExecRequest,
    user: User,
    confinement: Confinement,
    *,
    hostname: str,
) -> dict[str, Any]:
    """A process in the container: the container's environment, plus the request's own."""
    config = record.config
    process: dict[str, Any] = {
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": request.cmd,
        "env": environment(
            [*(config.env or ()), *(request.env or ())],
            hostname=hostname,
            home=user.home,
            tty=request.tty,
        ),
        "cwd": request.working_dir or config.working_dir or "/",
        "capabilities": _capabilities(record, user, request),
        "oomScoreAdj": record.host.oom_score_adj,
    }
    if request.tty:
        process["terminal"] = True
        size = request.console_size or ()
        if len(size) == 2 and all(size):
            process["consoleSize"] = {"height": size[0], "width": size[1]}
    if limits := rlimits(record.host.ulimits or (), confinement.ulimits):
        process["rlimits"] = limits
    if confinement.no_new_privileges:
        process["noNewPrivileges"] = True
    if confinement.apparmor:
        process["apparmorProfile"] = confinement.apparmor
    return process


def container_capabilities(record: ContainerRecord, *, privileged: bool) -> list[str]:
    """Raises: InvalidParameter (the names were checked at create, but the host may differ now)."""
    return capabilities.tweak(
        record.host.cap_add or (),
        record.host.cap_drop or (),
        privileged=privileged,
        allowed=capabilities.available(),
    )


def _capabilities(record: ContainerRecord, user: User, request: ExecRequest) -> dict[str, Any]:
    privileged = record.host.privileged or request.privileged
    names = container_capabilities(record, privileged=privileged)
    # A user other than root starts without any; a set-uid program may get them (bounding).
    sets = ("bounding",) if user.uid else ("bounding", "effective", "permitted")
    return dict.fromkeys(sets, names)


def environment(asked: Sequence[str], *, hostname: str, home: str, tty: bool) -> list[str]:
    """Docker's own variables, replaced and extended by `asked`; a name without `=` removes one.

    HOME is set here, from the passwd file of the image, so that all runtimes agree.
    """
    found = {"PATH": f"PATH={DEFAULT_PATH}", "HOSTNAME": f"HOSTNAME={hostname}"}
    if tty:
        found["TERM"] = "TERM=xterm"
    for variable in asked:
        name, given, _ = variable.partition("=")
        if given:
            found[name] = variable
        else:
            found.pop(name, None)
    found.setdefault("HOME", f"HOME={home}")
    return list(found.values())


def rlimits(asked: Sequence[Ulimit], defaults: Mapping[str, Ulimit]) -> list[dict[str, Any]]:
    """The container's ulimits over the daemon's defaults; -1 is unlimited."""
    merged = {**defaults, **{limit.name: limit for limit in asked}}
    return [
        {
            "type": f"RLIMIT_{limit.name.upper()}",
            "soft": limit.soft if limit.soft >= 0 else _UNLIMITED,
            "hard": limit.hard if limit.hard >= 0 else _UNLIMITED,
        }
        for limit in merged.values()
    ]


def hostname_of(record: ContainerRecord, own: str) -> str:
    """The name a container sees: asked, else the host's (`own`) when it shares that, else the
    short id."""
    if record.config.hostname:
        return record.config.hostname
    shares = HOST in (record.host.uts_mode, record.host.network_mode)
    return own if shares else record.id[:12]
