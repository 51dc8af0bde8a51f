"""The query of `POST /build`. Source: API 1.51, ImageBuild; below `auths` our own client's."""

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from teu.api.call import Call
from teu.build.request import BuildRequest, Export, Limits
from teu.errors import InvalidParameter
from teu.model.config import Ulimit

T = TypeVar("T")


def build_request(call: Call) -> BuildRequest:
    """Raises: InvalidParameter naming the parameter."""
    if call.text("version") == "2":
        raise InvalidParameter(
            "this engine builds without BuildKit's session protocol: use `teu build`, or "
            "`docker build` with DOCKER_BUILDKIT=0"
        )
    arguments = _json(call, "buildargs", dict[str, str | None], {})
    epoch = arguments.get("SOURCE_DATE_EPOCH") or ""
    if epoch and not epoch.isdigit():
        raise InvalidParameter(f"invalid SOURCE_DATE_EPOCH: {epoch!r} is not a number of seconds")
    platform = call.text("platform")
    return BuildRequest(
        tags=[tag for tag in call.values("t") if tag],
        dockerfile=call.text("dockerfile") or "Dockerfile",
        remote=call.text("remote"),
        target=call.text("target"),
        platforms=[one.strip() for one in platform.split(",")] if platform else [],
        build_args=arguments,
        labels=_json(call, "labels", dict[str, str], {}),
        no_cache=call.flag("nocache"),
        cache_from=_json(call, "cachefrom", list[str], []),
        pull=call.flag("pull"),
        quiet=call.flag("q"),
        squash=call.flag("squash"),
        network=call.text("networkmode"),
        extra_hosts=_extra_hosts(call),
        limits=_limits(call),
        exports=[
            Export(type=one.get("Type", ""), options=one.get("Attrs") or {})
            for one in _json(call, "outputs", list[dict[str, Any]], [])
        ],
        auths=_auths(call),
        annotations=_json(call, "annotations", dict[str, str], {}),
        no_cache_filter=_json(call, "nocachefilter", list[str], []),
        cache_to=_json(call, "cacheto", list[str], []),
        contexts={
            name.lower(): value
            for name, value in _json(call, "contexts", dict[str, str], {}).items()
        },
        allow=_json(call, "allow", list[str], []),
        explain=call.flag("explain"),
        check=call.flag("check"),
        source_date_epoch=int(epoch) if epoch else None,
    )


def _limits(call: Call) -> Limits:
    return Limits(
        memory=call.number("memory") or 0,
        memory_swap=call.number("memswap") or 0,
        cpu_shares=call.number("cpushares") or 0,
        cpu_period=call.number("cpuperiod") or 0,
        cpu_quota=call.number("cpuquota") or 0,
        cpuset_cpus=call.text("cpusetcpus"),
        cpuset_mems=call.text("cpusetmems"),
        shm_size=call.number("shmsize") or 0,
        ulimits=_json(call, "ulimits", list[Ulimit], []),
        cgroup_parent=call.text("cgroupparent"),
        security_opt=_json(call, "securityopt", list[str], []),
    )


def _json(call: Call, name: str, kind: type[T], default: T) -> T:
    text = call.text(name)
    if not text:
        return default
    try:
        return msgspec.json.decode(text, type=kind | None) or default
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InvalidParameter(f"error reading {name}: {error}") from None


def _extra_hosts(call: Call) -> list[str]:
    """Docker's client repeats the parameter or sends one list with commas."""
    return [one for value in call.values("extrahosts") for one in value.split(",") if one]


def _auths(call: Call) -> dict[str, dict[str, str]]:
    """`X-Registry-Config`: base64url of JSON, credentials by registry."""
    raw = call.request.headers.get("X-Registry-Config", "")
    if not raw:
        return {}
    try:
        data = base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4))
        found = msgspec.json.decode(data, type=dict[str, dict[str, Any]] | None) or {}
    except (binascii.Error, ValueError) as error:
        raise InvalidParameter(f"invalid X-Registry-Config header: {error}") from None
    return {
        registry: {name: value for name, value in auth.items() if isinstance(value, str)}
        for registry, auth in found.items()
    }
