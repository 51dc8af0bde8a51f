"""From a create request to a stored container: merge with the image, check, resolve, store."""

import contextlib
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from teu import clock, ids
from teu.container import state
from teu.container.container import Container
from teu.container.healthcheck import check_health, merged
from teu.container.logdrivers import check_log
from teu.container.mounts import MountResolver
from teu.container.rootfs import RootFilesystems
from teu.container.services import Services
from teu.container.signals import parse_signal
from teu.errors import InvalidParameter, NotFound
from teu.model.config import (
    ContainerConfig,
    EndpointSettings,
    HostConfig,
    LogConfig,
    NetworkingConfig,
)
from teu.model.container import ContainerRecord, MountPoint, Status
from teu.model.image import Image
from teu.tx import Transaction
from teu.volume.errors import VolumeInUse

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?")
_RESTART = ("", "no", "always", "on-failure", "unless-stopped")


class CreateRequest(Struct, kw_only=True):
    name: str = ""
    platform: str = ""
    config: ContainerConfig
    host: HostConfig
    networking: NetworkingConfig


@dataclass(frozen=True, slots=True)
class Created:
    container: Container
    warnings: list[str]


class Creator:
    """Makes containers. Everything it acquires is given back when a later step fails."""

    def __init__(self, services: Services, rootfs: RootFilesystems) -> None:
        self._services = services
        self._rootfs = rootfs
        self._mounts = MountResolver(services.volumes, services.containers, services.images)

    async def create(self, request: CreateRequest) -> Created:
        """Raises: NoSuchImage, NameInUse, InvalidParameter and others with Docker's texts.

        Crash: a record in `creating` is undone at the next start.
        """
        services = self._services
        image = self._image(request)
        with _not_the_image():
            host = self._complete_host(request.host)
            warnings = self._check(host, request)
            limit_bytes = self._rootfs.check_storage(host.storage_opt or {})
        config = merge_image_config(request.config, image.config.config if image else None)
        name = ids.check_name(request.name) if request.name else services.containers.free_name()
        with _not_the_image():
            mounts = self._mounts.plan(config, host)
        made: list[str] = []
        async with Transaction("create", name) as tx:
            tx.on_rollback("volumes", lambda: self._undo_volumes(made))
            with _not_the_image(), services.volumes.holding() as hold:
                await self._mounts.provide(mounts, host.volume_driver, hold, made)
                record = self._record(name, image, config, host, request, mounts)
                container = services.containers.add(record)
            tx.on_rollback("record", lambda: self._undo_record(container))
            self._rootfs.create(record.id, limit_bytes=limit_bytes)
            state.move(record, Status.CREATED)
            with services.containers.together():
                services.containers.save(container)
                services.containers.tell(container, "create")
            tx.commit()
        services.runtime.foresee_start()
        return Created(container, warnings)

    def _undo_record(self, container: Container) -> None:
        self._rootfs.remove(container.id)
        self._services.containers.begin_removal(container)
        self._services.containers.end_removal(container)

    async def _undo_volumes(self, made: list[str]) -> None:
        for name in made:
            with contextlib.suppress(VolumeInUse):  # somebody else has found a use for it
                await self._services.volumes.remove(name, force=True)

    def _image(self, request: CreateRequest) -> Image | None:
        if not request.config.image:
            raise InvalidParameter(
                "config cannot be empty in order to create a container: no image is named"
            )
        return self._services.images.runnable(request.config.image, request.platform)

    def _record(
        self,
        name: str,
        image: Image | None,
        config: ContainerConfig,
        host: HostConfig,
        request: CreateRequest,
        mounts: list[MountPoint],
    ) -> ContainerRecord:
        container_id = ids.new_id()
        if not config.hostname:
            config.hostname = _default_hostname(host, container_id)
        return ContainerRecord(
            id=container_id,
            name=name,
            created_ns=clock.now_ns(),
            image_id=image.id if image else "",
            config=config,
            host=host,
            args=command_line(config),
            mounts=mounts,
            networks=self._networks(host, request.networking),
            layers=list(image.chain_ids) if image else [],
        )

    def _networks(
        self, host: HostConfig, networking: NetworkingConfig
    ) -> dict[str, EndpointSettings]:
        mode = host.network_mode
        if mode == "host" or mode.startswith("container:"):
            return {}
        asked = {k: v or EndpointSettings() for k, v in (networking.endpoints_config or {}).items()}
        if mode not in asked and "default" in asked:
            asked[mode] = asked.pop("default")
        names = [mode, *(n for n in asked if n != mode)]
        result: dict[str, EndpointSettings] = {}
        for name in names:
            network = self._services.networks.get(name)
            result[network.name] = asked.get(name) or EndpointSettings()
        return result

    # --- completing and checking -----------------------------------------------------------

    def _complete_host(self, asked: HostConfig) -> HostConfig:
        """The host part with the daemon's defaults filled in, as inspect shows it."""
        defaults = self._services.defaults
        log = asked.log_config
        if log.type in ("", defaults.log.type):
            options = {**(defaults.log.config or {}), **(log.config or {})}
            log = LogConfig(type=defaults.log.type, config=options)
        mode = asked.network_mode
        host = replace(
            asked,
            network_mode="bridge" if mode in ("", "default") else self._joined(mode),
            log_config=log,
            console_size=asked.console_size or [0, 0],
            ipc_mode=self._joined(asked.ipc_mode),
            pid_mode=self._joined(asked.pid_mode),
        )
        self._services.runtime.fill_defaults(host)
        return host

    def _check_links(self, host: HostConfig) -> None:
        for link in host.links or []:
            ref = link.partition(":")[0]
            if self._services.containers.find(ref) is None:
                raise InvalidParameter(
                    f"could not get container for {ref}: No such container: {ref}"
                )

    def _joined(self, mode: str) -> str:
        if mode.startswith("container:") and mode != "container:":
            return "container:" + self._services.containers.get(mode[10:]).id
        return mode

    def _check(self, host: HostConfig, request: CreateRequest) -> list[str]:
        check_config(request.config)
        check_health(request.config, host)
        self._check_links(host)
        check_restart(host)
        check_log(host.log_config)
        warnings = check_network(host, request.networking)
        return warnings + self._services.runtime.validate(host, request.config)


@contextmanager
def _not_the_image() -> Iterator[None]:
    """Other missing objects are told as a bad request: to clients, "not found" in answer to a
    create means the image, and they would go and pull it."""
    try:
        yield
    except NotFound as error:
        raise InvalidParameter(error.message) from error


def _default_hostname(host: HostConfig, container_id: str) -> str:
    """Empty where the name comes from the container that is joined."""
    if host.network_mode.startswith("container:"):
        return ""
    if "host" in (host.network_mode, host.uts_mode):
        return platform.node()
    return ids.short(container_id)


def command_line(config: ContainerConfig) -> list[str]:
    """Entrypoint and command together. Raises: InvalidParameter when both are empty."""
    args = [*_words(config.entrypoint), *_words(config.cmd)]
    if not args:
        raise InvalidParameter("no command specified")
    return args


def _words(value: list[str] | str | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def merge_image_config(asked: ContainerConfig, image: ContainerConfig | None) -> ContainerConfig:
    """What the image says where the request is silent (Docker's `merge`)."""
    config = replace(asked, entrypoint=_words(asked.entrypoint), cmd=_words(asked.cmd))
    if image is None:
        return config
    if not config.entrypoint:
        if not config.cmd:
            config.cmd = _words(image.cmd) or None
        if asked.entrypoint is None:
            config.entrypoint = _words(image.entrypoint) or None
    if config.entrypoint == [""]:
        config.entrypoint = None
    config.env = _merge_env(config.env or [], image.env or [])
    config.labels = {**(image.labels or {}), **(config.labels or {})}
    config.exposed_ports = {**(image.exposed_ports or {}), **(config.exposed_ports or {})} or None
    config.volumes = {**(image.volumes or {}), **(config.volumes or {})} or None
    config.user = config.user or image.user
    config.working_dir = config.working_dir or image.working_dir
    config.stop_signal = config.stop_signal or image.stop_signal
    config.healthcheck = merged(asked.healthcheck, image.healthcheck)
    config.shell = config.shell or image.shell
    config.on_build = None
    return config


def _merge_env(asked: list[str], image: list[str]) -> list[str]:
    names = {entry.partition("=")[0] for entry in asked}
    return asked + [entry for entry in image if entry.partition("=")[0] not in names]


def check_config(config: ContainerConfig) -> None:
    """What the runtime does not judge. Raises: InvalidParameter."""
    for port in config.exposed_ports or {}:
        check_port(port)
    if config.stop_signal:
        parse_signal(config.stop_signal)


def check_port(port: str) -> None:
    """`80`, `80/tcp`, `8000-8010/udp`. Raises: InvalidParameter."""
    match = _PORT.fullmatch(port)
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if not 0 < first <= last <= 65535:
        raise InvalidParameter(f"invalid port specification: {port!r}")


def check_restart(host: HostConfig) -> None:
    policy = host.restart_policy
    if policy.name not in _RESTART:
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidParameter(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")


def check_network(host: HostConfig, networking: NetworkingConfig) -> list[str]:
    """Contradictions between network mode and the rest. Raises: InvalidParameter."""
    mode = host.network_mode
    if host.port_bindings:
        for port, bindings in host.port_bindings.items():
            check_port(port)
            for binding in bindings or []:
                if binding.host_port:
                    check_host_port(binding.host_port)
    if (mode == "host" or mode.startswith("container:")) and any(
        name not in (mode, "default") for name in networking.endpoints_config or {}
    ):
        raise InvalidParameter(
            "conflicting options: cannot attach both user-defined and non-user-defined "
            "network-modes"
        )
    if mode == "host" and (host.port_bindings or host.publish_all_ports):
        return ["Published ports are discarded when using host network mode"]
    return []


def check_host_port(text: str) -> None:
    try:
        check_port(text)
        if "/" in text:
            raise InvalidParameter(text)
    except InvalidParameter:
        if text != "0":
            raise InvalidParameter(f"invalid port specification: {text!r}") from None
