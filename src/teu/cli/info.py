"""What `info` shows: client and daemon, line by line as Docker does, or through a template."""

from __future__ import annotations

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from teu.cli.session import Session

TEMPLATE_STATUS = 64
_INDEX = "https://index.docker.io/v1/"
_NOT_IN_SWARM = ("inactive", "locked", "")


def show_info(session: Session, form: str) -> int:
    """Prints the facts. Raises: Failure, after the client's half, when the daemon is away."""
    if form:
        return _through_template(session, form)
    info: dict[str, Any] | None = None
    problem: Failure | None = None
    try:
        info = session.client.get("/info")
    except Failure as failure:
        problem = failure
    session.out("Client:\n" + _text(_client_lines(session)) + "\nServer:\n")
    if info is not None:
        session.out(_text(_server_lines(info, _user_name(session))) + "\n")
        for warning in info.get("Warnings") or ():
            session.err(warning + "\n")
    if problem is not None:
        raise problem
    return 0


def _text(lines: Iterable[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _client_facts(session: Session) -> dict[str, Any]:
    from teu.cli.commands.version import client_facts

    facts = client_facts(session)
    facts["Debug"] = session.globals.flag("debug")
    facts["Plugins"] = []
    return facts


def _client_lines(session: Session) -> list[str]:
    facts = _client_facts(session)
    return [
        f" Version:    {facts['Version']}",
        f" Context:    {facts['Context']}",
        f" Debug Mode: {_bool(facts['Debug'])}",
    ]


def _bool(value: object) -> str:
    return "true" if value else "false"


def _filled(info: dict[str, Any], pairs: Iterable[tuple[str, str]]) -> list[str]:
    """` Label: value` for those that have a value."""
    return [f" {label}: {info[name]}" for label, name in pairs if info.get(name)]


def _server_lines(info: dict[str, Any], user: str) -> list[str]:
    lines = _count_lines(info)
    lines += _plugin_lines(info)
    swarm = info.get("Swarm") or {}
    lines.append(f" Swarm: {swarm.get('LocalNodeState', '')}")
    if swarm.get("LocalNodeState", "") not in _NOT_IN_SWARM:
        from teu.cli.swarm_info import swarm_lines

        lines += swarm_lines(swarm)
    lines += _runtime_lines(info)
    lines += _machine_lines(info)
    lines += _daemon_lines(info, user)
    lines += _registry_lines(info.get("RegistryConfig") or {})
    lines.append(f" Live Restore Enabled: {_bool(info.get('LiveRestoreEnabled'))}")
    lines += _filled(info, [("Product License", "ProductLicense")])
    if pools := info.get("DefaultAddressPools"):
        lines.append(" Default Address Pools:")
        lines += [f"   Base: {pool['Base']}, Size: {pool['Size']}" for pool in pools]
    return lines


def _count_lines(info: dict[str, Any]) -> list[str]:
    lines = [
        f" Containers: {info.get('Containers', 0)}",
        f"  Running: {info.get('ContainersRunning', 0)}",
        f"  Paused: {info.get('ContainersPaused', 0)}",
        f"  Stopped: {info.get('ContainersStopped', 0)}",
        f" Images: {info.get('Images', 0)}",
    ]
    lines += _filled(info, [("Server Version", "ServerVersion"), ("Storage Driver", "Driver")])
    lines += [f"  {name}: {value}" for name, value in info.get("DriverStatus") or ()]
    lines += [f" {name}: {value}" for name, value in info.get("SystemStatus") or ()]
    return lines + _filled(
        info,
        [
            ("Logging Driver", "LoggingDriver"),
            ("Cgroup Driver", "CgroupDriver"),
            ("Cgroup Version", "CgroupVersion"),
        ],
    )


def _plugin_lines(info: dict[str, Any]) -> list[str]:
    plugins = info.get("Plugins") or {}
    joined = {name: " ".join(values or ()) for name, values in plugins.items()}
    lines = [
        " Plugins:",
        f"  Volume: {joined.get('Volume', '')}",
        f"  Network: {joined.get('Network', '')}",
    ]
    if joined.get("Authorization"):
        lines.append(f"  Authorization: {joined['Authorization']}")
    lines.append(f"  Log: {joined.get('Log', '')}")
    if directories := info.get("CDISpecDirs"):
        lines += [" CDI spec directories:", *(f"  {path}" for path in directories)]
    if devices := info.get("DiscoveredDevices"):
        lines.append(" Discovered Devices:")
        lines += [f"  {device['Source']}: {device['ID']}" for device in devices]
    return lines


def _runtime_lines(info: dict[str, Any]) -> list[str]:
    lines = []
    if runtimes := info.get("Runtimes"):
        lines.append(f" Runtimes: {' '.join(sorted(runtimes))}")
        lines.append(f" Default Runtime: {info.get('DefaultRuntime', '')}")
    if info.get("OSType") == "linux":
        lines.append(f" Init Binary: {info.get('InitBinary', '')}")
        for label, name in (("containerd", "Containerd"), ("runc", "Runc"), ("init", "Init")):
            commit = info.get(f"{name}Commit") or {}
            lines.append(f" {label} version: {commit.get('ID', '')}")
        if options := info.get("SecurityOptions"):
            lines.append(" Security Options:")
            lines += _security_lines(options)
    if info.get("OSType") == "windows":
        lines.append(f" Default Isolation: {info.get('Isolation', '')}")
    return lines


def _security_lines(options: list[str]) -> list[str]:
    """`name=seccomp,profile=builtin` as the name and, under it, its profile."""
    lines = []
    for option in options:
        parts = [part.partition("=") for part in option.split(",")]
        lines += [f"  {value or name}" for name, _, value in parts if name == "name" or not value]
        lines += [f"   Profile: {value}" for name, _, value in parts if name == "profile"]
    return lines


def _machine_lines(info: dict[str, Any]) -> list[str]:
    from teu.units import human_size_binary

    lines = _filled(
        info,
        [
            ("Kernel Version", "KernelVersion"),
            ("Operating System", "OperatingSystem"),
            ("OSType", "OSType"),
            ("Architecture", "Architecture"),
        ],
    )
    lines.append(f" CPUs: {info.get('NCPU', 0)}")
    lines.append(f" Total Memory: {human_size_binary(info.get('MemTotal', 0))}")
    return lines + _filled(info, [("Name", "Name"), ("ID", "ID")])


def _daemon_lines(info: dict[str, Any], user: str) -> list[str]:
    lines = [
        f" Docker Root Dir: {info.get('DockerRootDir', '')}",
        f" Debug Mode: {_bool(info.get('Debug'))}",
    ]
    if info.get("Debug"):
        lines += [
            f"  File Descriptors: {info.get('NFd', 0)}",
            f"  Goroutines: {info.get('NGoroutines', 0)}",
            f"  System Time: {info.get('SystemTime', '')}",
            f"  EventsListeners: {info.get('NEventsListener', 0)}",
        ]
    lines += _filled(
        info, [("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")]
    )
    if user:
        lines.append(f" Username: {user}")
    if labels := info.get("Labels"):
        lines += [" Labels:", *(f"  {label}" for label in labels)]
    return [*lines, f" Experimental: {_bool(info.get('ExperimentalBuild'))}"]


def _registry_lines(config: dict[str, Any]) -> list[str]:
    lines = []
    indexes = config.get("IndexConfigs") or {}
    networks = config.get("InsecureRegistryCIDRs") or []
    if indexes or networks:
        lines.append(" Insecure Registries:")
        plain = [index for _, index in sorted(indexes.items()) if not index.get("Secure")]
        lines += [f"  {index.get('Name', '')}" for index in plain]
        lines += [f"  {network}" for network in networks]
    if mirrors := config.get("Mirrors"):
        lines += [" Registry Mirrors:", *(f"  {mirror}" for mirror in mirrors)]
    return lines


def _user_name(session: Session) -> str:
    """Who is logged in to Docker Hub, according to the configuration file."""
    import binascii

    login = session.config.table("auths").get(_INDEX)
    if not isinstance(login, dict):
        return ""
    try:
        decoded = binascii.a2b_base64(login.get("auth", "")).decode()
    except ValueError:
        decoded = ""
    return str(login.get("username") or decoded.partition(":")[0])


def _through_template(session: Session, form: str) -> int:
    from teu.cli.shapes import BOOK
    from teu.template import TemplateError, parse

    try:
        template = parse("{{json .}}" if form == "json" else form)
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}", TEMPLATE_STATUS) from None
    data: dict[str, Any] = {"ClientInfo": _client_facts(session)}
    problem: Failure | None = None
    if _needs_server(form, data):
        try:
            data = session.client.get("/info") | data
        except Failure as failure:
            problem = failure
    parts: list[str] = []
    try:
        template.write(BOOK.convert("system.dockerInfo", data), parts.append)
    except TemplateError as error:
        problem = problem or Failure(str(error))
    session.out("".join(parts) + "\n")
    if problem is not None:
        raise problem
    return 0


def _needs_server(form: str, data: dict[str, Any]) -> bool:
    """False when the template uses only what the client knows."""
    from teu.cli.shapes import BOOK
    from teu.template import TemplateError, parse

    if form == "json" or not any(form[at + 1 : at + 2].isalpha() for at in _dots(form)):
        return True
    try:
        parse(form).execute(BOOK.convert("system.sparseInfo", data))
    except TemplateError:
        return True
    return False


def _dots(text: str) -> list[int]:
    return [at for at, char in enumerate(text) if char == "."]
