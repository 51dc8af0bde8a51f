"""The flags of run and create that need more than a copy; loaded when one of them is used."""

from __future__ import annotations

import os

from teu.cli.container_config import pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options

_HEALTH_TIMES = (
    ("health-interval", "Interval"),
    ("health-timeout", "Timeout"),
    ("health-start-period", "StartPeriod"),
    ("health-start-interval", "StartInterval"),
)


def apply(options: Options, config: dict[str, Any], host: dict[str, Any]) -> None:
    """Fills what the given flags ask for into both. Raises: ValueError with Docker's text."""
    _volumes(options, config, host)
    _ports(options, config, host)
    _devices(options, host)
    _files(options, config)
    _restart(options, host)
    _logging(options, host)
    _security(options, host)
    _capabilities(options, host)
    _tables(options, config, host)
    _health(options, config)
    _health_action(options, host)


def _volumes(options: Options, config: dict[str, Any], host: dict[str, Any]) -> None:
    from teu.cli.mounts import split_volumes, tmpfs_table

    binds, volumes = split_volumes(options.texts("volume"))
    host["Binds"] = binds or None
    config["Volumes"] = volumes
    if mounts := options.value("mount"):
        host["Mounts"] = mounts
    if tmpfs := options.texts("tmpfs"):
        host["Tmpfs"] = tmpfs_table(tmpfs)


def _ports(options: Options, config: dict[str, Any], host: dict[str, Any]) -> None:
    published, exposed = options.texts("publish"), options.texts("expose")
    if not published and not exposed:
        return
    from teu.cli.ports import parse_expose, parse_publish

    bindings = parse_publish(published)
    host["PortBindings"] = bindings
    config["ExposedPorts"] = {port: {} for port in bindings} | parse_expose(exposed)


def _devices(options: Options, host: dict[str, Any]) -> None:
    requests = list(options.value("gpus") or ())
    if specs := options.texts("device"):
        from teu.cli.devices import split_devices

        host["Devices"], named = split_devices(specs)
        requests += named
    host["DeviceRequests"] = requests or None


def _files(options: Options, config: dict[str, Any]) -> None:
    """`--env-file` and `--label-file` come before `-e` and `-l`, so that those win."""
    variables = read_files(options.texts("env-file"), "env", inherit=True)
    config["Env"] = variables + options.texts("env") or None
    labels = read_files(options.texts("label-file"), "label", inherit=False)
    config["Labels"] = pairs(labels + options.texts("label"))


def read_files(paths: list[str], what: str, *, inherit: bool) -> list[str]:
    """The `NAME=value` lines of all files; comments and empty lines are left out.

    inherit: a bare NAME takes its value from the environment; it is dropped without one.
    Raises: ValueError with Docker's text.
    """
    entries: list[str] = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ValueError(f"open {path}: {reason}") from error
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"invalid utf8 bytes in {what} file ({path})") from error
        for line in text.split("\n"):
            entries += _file_entry(line, path, inherit)
    return entries


def _file_entry(line: str, path: str, inherit: bool) -> list[str]:
    line = line.rstrip("\r").lstrip()
    if not line or line[0] == "#":
        return []
    name, equals, value = line.partition("=")
    if any(letter.isspace() for letter in name):
        raise ValueError(f"invalid env file ({path}): variable '{name}' contains whitespaces")
    if not name:
        raise ValueError(f"invalid env file ({path}): no variable name on line '{line}'")
    if equals:
        return [f"{name}={value}"]
    if inherit and name in os.environ:
        return [f"{name}={os.environ[name]}"]
    return []


def _restart(options: Options, host: dict[str, Any]) -> None:
    if not options.changed("restart"):
        return
    host["RestartPolicy"] = parse_restart(options.text("restart"))
    if options.flag("rm") and host["RestartPolicy"]["Name"] not in ("", "no"):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")


def parse_restart(text: str) -> dict[str, Any]:
    """`on-failure:3` -> API RestartPolicy. Raises: ValueError with Docker's text."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    if not colon:
        return {"Name": name, "MaximumRetryCount": 0}
    digits = count[1:] if count[:1] in ("-", "+") else count
    if not digits.isascii() or not digits.isdigit():
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count)}


def _logging(options: Options, host: dict[str, Any]) -> None:
    driver = options.text("log-driver")
    settings = pairs(options.texts("log-opt"))
    if driver == "none" and settings:
        raise ValueError(f"invalid logging opts for driver {driver}")
    host["LogConfig"] = {"Type": driver, "Config": settings}


def _security(options: Options, host: dict[str, Any]) -> None:
    if not options.changed("security-opt"):
        return
    kept = []
    for text in options.texts("security-opt"):
        if text == "systempaths=unconfined":
            host["MaskedPaths"] = []
            host["ReadonlyPaths"] = []
        else:
            kept.append(_security_option(text))
    host["SecurityOpt"] = kept


def _security_option(text: str) -> str:
    """A seccomp profile is a file on this machine: its content is sent."""
    if text in ("no-new-privileges", "writable-cgroups"):
        return text
    name, separator, value = text.partition("=")
    if not separator:
        name, separator, value = text.partition(":")
    if not separator:
        raise ValueError(f'Invalid --security-opt: "{text}"')
    if name != "seccomp" or value in ("unconfined", "builtin"):
        return text
    try:
        with open(value, encoding="utf-8") as file:
            content = file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        problem = f"opening seccomp profile ({value}) failed: open {value}: {reason}"
        raise ValueError(problem) from error
    import json

    try:
        return f"seccomp={json.dumps(json.loads(content), separators=(',', ':'))}"
    except ValueError as error:
        raise ValueError(
            f"compacting json for seccomp profile ({value}) failed: {error}"
        ) from error


def _capabilities(options: Options, host: dict[str, Any]) -> None:
    """Names in capital letters with their CAP_ prefix, each once, sorted."""
    for flag, field in (("cap-add", "CapAdd"), ("cap-drop", "CapDrop")):
        names = set()
        for text in options.texts(flag):
            name = text.strip().upper()
            if name != "ALL" and not name.startswith("CAP_"):
                name = f"CAP_{name}"
            names.add(name)
        host[field] = sorted(names) or None


def _tables(options: Options, config: dict[str, Any], host: dict[str, Any]) -> None:
    for flag, field in (("annotation", "Annotations"), ("sysctl", "Sysctls")):
        if texts := options.texts(flag):
            host[field] = pairs(texts)
    if ulimits := options.value("ulimit"):
        by_name = {ulimit["Name"]: ulimit for ulimit in ulimits}
        host["Ulimits"] = [by_name[name] for name in sorted(by_name)]
    if texts := options.texts("storage-opt"):
        if any("=" not in text for text in texts):
            raise ValueError("invalid storage option")
        host["StorageOpt"] = pairs(texts)
    if runtime := options.text("runtime"):
        host["Runtime"] = runtime
    if stop_signal := options.text("stop-signal"):
        config["StopSignal"] = stop_signal


def _health(options: Options, config: dict[str, Any]) -> None:
    health: dict[str, Any] = {}
    if command := options.text("health-cmd"):
        health["Test"] = ["CMD-SHELL", command]
    for flag, field in _HEALTH_TIMES:
        if options.number(flag) < 0:
            raise ValueError(f"--{flag} cannot be negative")
        if options.number(flag):
            health[field] = options.number(flag)
    if options.number("health-retries") < 0:
        raise ValueError("--health-retries cannot be negative")
    if options.number("health-retries"):
        health["Retries"] = options.number("health-retries")
    if options.flag("no-healthcheck"):
        if health:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        health = {"Test": ["NONE"]}
    if health:
        config["Healthcheck"] = health


def _health_action(options: Options, host: dict[str, Any]) -> None:
    """Not a field of Docker's API, so it travels as an annotation."""
    if action := options.text("health-on-failure"):
        host["Annotations"] = {**host.get("Annotations", {}), "teu.health-on-failure": action}
