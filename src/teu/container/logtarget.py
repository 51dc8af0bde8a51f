"""What a container's shim is told about its log: files, log server, and the words in each line."""

import platform
import re
from typing import Any
from urllib.parse import SplitResult

from teu import clock
from teu.container import logdrivers
from teu.container.logdrivers import Options
from teu.model.container import ContainerRecord
from teu.runtime.failures import log_failed
from teu.runtime.shim import LogServer, LogTarget
from teu.template import TemplateError, parse
from teu.units import parse_duration, parse_size

JOURNAL_SOCKET = "/run/systemd/journal/socket"
LOCAL_SYSLOG = ("/dev/log", "/var/run/syslog", "/var/run/log")
DEFAULT_BUFFER = "1m"
DAEMON_NAME = "docker"  # what `{{.DaemonName}}` is in a tag
_SYSLOG_PORT, _FLUENTD_PORT = 514, 24224


def has_log(record: ContainerRecord) -> bool:
    """Whether `logs` has something to read."""
    log = record.host.log_config
    if log.type in logdrivers.SERVERS:
        return not logdrivers.truth((log.config or {}).get("cache-disabled", "false"))
    return log.type != logdrivers.NONE


def log_target(record: ContainerRecord, path: str) -> LogTarget:
    """`path`: the newest file of the log. Raises: StartFailed (a tag that is no template)."""
    log = record.host.log_config
    options = log.config or {}
    if log.type == logdrivers.NONE:
        return LogTarget()
    remote = log.type in logdrivers.SERVERS
    prefix = "cache-" if remote else ""
    size, files, compress = logdrivers.rotation(options, prefix, log.type != "json-file")
    target = LogTarget(max_size=size, max_file=files, compress=compress)
    if has_log(record):
        target.path = path
    if options.get("mode") == logdrivers.NON_BLOCKING:
        target.buffer_bytes = parse_size(options.get("max-buffer-size", DEFAULT_BUFFER))
    if remote:
        target.remote = _SERVERS[log.type](record, options)
        if logdrivers.truth(options.get("fluentd-async") or "false"):
            limit = options.get("fluentd-buffer-limit", DEFAULT_BUFFER)
            target.buffer_bytes = target.buffer_bytes or parse_size(limit)
    elif log.type == "json-file":
        target.attrs = attributes(record)
        if tag := tag_of(record, ""):
            target.attrs["tag"] = tag
    return target


# --- words of the container -----------------------------------------------------------------


def attributes(record: ContainerRecord) -> dict[str, str]:
    """What `labels`, `labels-regex`, `env` and `env-regex` choose."""
    options = record.host.log_config.config or {}
    labels = record.config.labels or {}
    env = dict(e.partition("=")[::2] for e in record.config.env or [] if "=" in e)
    return {
        **_chosen(labels, options.get("labels", ""), options.get("labels-regex", "")),
        **_chosen(env, options.get("env", ""), options.get("env-regex", "")),
    }


def _chosen(found: dict[str, str], names: str, pattern: str) -> dict[str, str]:
    listed = set(filter(None, names.split(",")))
    wanted = re.compile(pattern) if pattern else None
    return {k: v for k, v in found.items() if k in listed or (wanted and wanted.search(k))}


def tag_of(record: ContainerRecord, default: str = "{{.ID}}") -> str:
    """The option `tag`, a Go template. Raises: StartFailed."""
    text = (record.host.log_config.config or {}).get("tag", "") or default
    if "{{" not in text:
        return text
    facts = {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": record.image_id[:12],
        "ImageFullID": record.image_id,
        "ImageName": record.config.image,
        "Command": " ".join(record.args),
        "DaemonName": DAEMON_NAME,
        "Hostname": platform.node(),
        "ContainerID": record.id,
        "ContainerName": f"/{record.name}",
        "ContainerImageID": record.image_id,
        "ContainerImageName": record.config.image,
        "ContainerLabels": record.config.labels or {},
        "ContainerEnv": record.config.env or [],
        "Config": record.host.log_config.config or {},
    }
    try:
        return parse(text, "log-tag").execute(facts, missing_is_error=True)
    except TemplateError as error:
        raise log_failed(str(error)) from error


# --- log servers ----------------------------------------------------------------------------


def _syslog(record: ContainerRecord, options: Options) -> LogServer:
    address = logdrivers.syslog_address(options.get("syslog-address", ""))
    form = options.get("syslog-format", "")
    settings = {
        "format": form,
        "facility": str(logdrivers.facility(options.get("syslog-facility", ""))),
        "tag": tag_of(record),
        "hostname": platform.node(),
    }
    if address is None:
        local = {
            "network": "unixgram",
            "path": list(LOCAL_SYSLOG),
            "failure": "Unix syslog delivery error",
        }
        return LogServer(driver="syslog", settings=settings, target=local)
    server = LogServer(driver="syslog", settings=settings, target=_where(address, _SYSLOG_PORT))
    if address.scheme == "tcp+tls":
        server.tls = {
            "ca": options.get("syslog-tls-ca-cert", ""),
            "cert": options.get("syslog-tls-cert", ""),
            "key": options.get("syslog-tls-key", ""),
            "skip_verify": "syslog-tls-skip-verify" in options,
        }
        if form.startswith("rfc5424"):
            settings["framing"] = "octets"
    return server


def _where(address: SplitResult, default_port: int) -> dict[str, Any]:
    if address.scheme.startswith("unix"):
        return {"network": address.scheme, "path": address.path}
    return {
        "network": address.scheme.removesuffix("+tls"),
        "host": address.hostname,
        "port": address.port or default_port,
    }


def _gelf(record: ContainerRecord, options: Options) -> LogServer:
    address = logdrivers.gelf_address(options.get("gelf-address", ""))
    udp = address.scheme == "udp"
    target = _where(address, 0)
    target["failure"] = f"gelf: cannot connect to GELF endpoint: {address.netloc} %s"
    target["retry_s"] = float(options.get("gelf-tcp-reconnect-delay", "1"))
    if "gelf-tcp-max-reconnect" in options:
        target["max_retries"] = int(options["gelf-tcp-max-reconnect"])
    extra = {
        "_container_id": record.id,
        "_container_name": record.name,
        "_image_id": record.image_id,
        "_image_name": record.config.image,
        "_command": " ".join(record.args),
        "_tag": tag_of(record),
        "_created": clock.format_ns(record.created_ns),
    }
    extra |= {k if k.startswith("_") else f"_{k}": v for k, v in attributes(record).items()}
    settings = {
        "hostname": platform.node(),
        "compression": options.get("gelf-compression-type", "gzip" if udp else "none"),
        "level": options.get("gelf-compression-level", "1"),
        "datagrams": "1" if udp else "",
    }
    return LogServer(driver="gelf", settings=settings, target=target, extra=extra)


def _fluentd(record: ContainerRecord, options: Options) -> LogServer:
    address = logdrivers.fluentd_address(options.get("fluentd-address", ""))
    target = _where(address, _FLUENTD_PORT)
    target["retry_s"] = parse_duration(options.get("fluentd-retry-wait") or "1s")
    target["late"] = logdrivers.truth(options.get("fluentd-async") or "false")
    if options.get("fluentd-max-retries"):
        target["max_retries"] = int(options["fluentd-max-retries"])
    extra = {"container_id": record.id, "container_name": f"/{record.name}", **attributes(record)}
    settings = {"tag": tag_of(record)}
    for option, setting in _FLUENTD_SWITCHES:
        settings[setting] = "1" if logdrivers.truth(options.get(option) or "false") else ""
    tls: dict[str, Any] | None = {} if address.scheme == "tcp+tls" else None
    return LogServer(driver="fluentd", settings=settings, target=target, extra=extra, tls=tls)


_FLUENTD_SWITCHES = (
    ("fluentd-sub-second-precision", "precise"),
    ("fluentd-request-ack", "acknowledged"),
)


def _journald(record: ContainerRecord, options: Options) -> LogServer:
    tag = tag_of(record)
    extra = {
        "CONTAINER_ID": record.id[:12],
        "CONTAINER_ID_FULL": record.id,
        "CONTAINER_NAME": record.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": record.config.image,
        "SYSLOG_IDENTIFIER": tag,
    }
    extra |= {journal_field(k): v for k, v in attributes(record).items() if journal_field(k)}
    target = {
        "network": "unixgram",
        "path": JOURNAL_SOCKET,
        "failure": "journald is not enabled on this host",
    }
    return LogServer(driver="journald", settings={}, target=target, extra=extra)


def journal_field(name: str) -> str:
    """Capitals, digits and `_`, which is never first."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper()).lstrip("_")


_SERVERS = {"syslog": _syslog, "gelf": _gelf, "fluentd": _fluentd, "journald": _journald}
