"""The log drivers: which there are, their options, and what is refused, in Docker's words.

`json-file` and `local` are files here. The others send to a log server, and keep a copy here that
`logs` reads (`cache-*` options). Source: Docker documentation, "Configure logging drivers".
"""

import re
import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from teu.errors import InvalidParameter
from teu.model.config import LogConfig
from teu.units import parse_duration, parse_size

Options = dict[str, str]
NONE = "none"
FILES = ("json-file", "local")
SERVERS = ("fluentd", "gelf", "journald", "syslog")
FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
)  # fmt: skip
SYSLOG_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
NON_BLOCKING = "non-blocking"
_ATTRIBUTES = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
_ROTATION = frozenset({"max-size", "max-file", "compress"})
_COMMON = frozenset({"mode", "max-buffer-size"})
_CACHE = frozenset({"cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_OPTIONS: dict[str, frozenset[str]] = {
    "json-file": _ROTATION | _ATTRIBUTES,
    "local": _ROTATION,
    "journald": _ATTRIBUTES,
    "syslog": _ATTRIBUTES | {
        "syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert",
        "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify",
    },
    "gelf": _ATTRIBUTES | {
        "gelf-address", "gelf-compression-type", "gelf-compression-level",
        "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay",
    },
    "fluentd": _ATTRIBUTES | {
        "fluentd-address", "fluentd-async", "fluentd-async-reconnect-interval",
        "fluentd-buffer-limit", "fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait",
        "fluentd-sub-second-precision", "fluentd-write-timeout",
    },
}  # fmt: skip
_UNKNOWN = {
    "local": "unknown log opt '{}' for log driver local",
    "gelf": 'unknown log opt "{}" for gelf log driver',
}
_GO_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_GO_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_TRANSPORT = re.compile(r"(tcp\+tls|tcp|udp|unixgram|unix)://.*")


def names() -> list[str]:
    """What `info` lists: Docker leaves `none` out."""
    return sorted((*FILES, *SERVERS))


def check_log(log: LogConfig) -> None:
    """Raises: InvalidParameter."""
    if log.type == NONE:
        return
    options = log.config or {}
    try:
        _check_common(options)
        known = _OPTIONS.get(log.type)
        if known is None:
            # Docker's text and no more: docker-py compares it as a whole.
            raise ValueError(f"logger: no log driver named '{log.type}' is registered")
        known = known | (_CACHE if log.type in SERVERS else frozenset())
        for option in options:
            if option not in known | _COMMON:
                text = _UNKNOWN.get(log.type, f"unknown log opt '{{}}' for {log.type} log driver")
                raise ValueError(text.format(option))
        for pattern in ("labels-regex", "env-regex"):
            _check_pattern(options.get(pattern, ""))
        _CHECKS.get(log.type, _check_cache)(options)
    except ValueError as error:
        raise InvalidParameter(str(error)) from error


def _check_common(options: Options) -> None:
    mode = options.get("mode", "")
    if mode not in ("", "blocking", NON_BLOCKING):
        raise ValueError(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != NON_BLOCKING:
            raise ValueError(
                f"logger: max-buffer-size option is only supported with 'mode={NON_BLOCKING}'"
            )
        try:
            parse_size(options["max-buffer-size"])
        except ValueError as error:
            raise ValueError(f"error parsing option max-buffer-size: {error}") from None


def _check_pattern(text: str) -> None:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"error parsing regexp: {error.msg}: `{text}`") from None


# --- files ----------------------------------------------------------------------------------


def rotation(options: Options, prefix: str, small: bool) -> tuple[int, int, bool]:
    """(bytes per file, files, compress). Always rotated: 3 files of 100 MiB, or with `small` 5
    compressed ones of 20 MiB. Raises: ValueError."""
    size_text = options.get(f"{prefix}max-size", "20m" if small else "100m")
    try:
        size = parse_size(size_text)
    except ValueError as error:
        raise ValueError(f"invalid value for {prefix}max-size: {size_text}: {error}") from None
    files = whole_number(options.get(f"{prefix}max-file", "5" if small else "3"))
    if size <= 0:
        raise ValueError(f"{prefix}max-size must be greater than 0")
    if files < 1:
        raise ValueError(f"{prefix}max-file cannot be less than 1")
    compress = truth(options.get(f"{prefix}compress", "true" if small and files > 1 else "false"))
    if compress and files < 2:
        raise ValueError(f"{prefix}compress cannot be true when {prefix}max-file is less than 2")
    return size, files, compress


def _check_cache(options: Options) -> None:
    value = options.get("cache-disabled", "false")
    try:
        truth(value)
    except ValueError:
        raise ValueError(f"invalid value for option cache-disabled: {value}") from None
    rotation(options, "cache-", small=True)


def whole_number(text: str) -> int:
    """Raises: ValueError with Go's text."""
    if not re.fullmatch(r"[+-]?\d{1,18}", text):
        raise ValueError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def truth(text: str) -> bool:
    """Raises: ValueError with Go's text."""
    if text not in _GO_TRUE | _GO_FALSE:
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in _GO_TRUE


# --- syslog ---------------------------------------------------------------------------------


def syslog_address(text: str) -> SplitResult | None:
    """None for the local daemon. Raises: ValueError."""
    if not text:
        return None
    if not _TRANSPORT.fullmatch(text):
        raise ValueError(f"syslog-address should be in form proto://address, got {text}")
    address = urlsplit(text)
    if address.scheme.startswith("unix"):
        _check_socket(address.path)
    else:
        _check_port(address)
    return address


def _check_socket(path: str) -> None:
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise ValueError(f"stat {path}: {(error.strerror or '').lower()}") from None
    if not stat.S_ISSOCK(mode):
        raise ValueError(f"{path} is no socket")


def _check_port(address: SplitResult) -> None:
    """urlsplit looks at the port only when it is asked for it."""
    if not address.hostname or address.port == 0:
        raise ValueError(f"{address.geturl()}: a host, and a port that is not 0, are needed")


def facility(text: str) -> int:
    """Its number; empty is daemon. Raises: ValueError."""
    if not text or (text in FACILITIES):
        return FACILITIES.index(text or "daemon")
    if text.isdigit() and int(text) < len(FACILITIES):
        return int(text)
    raise ValueError("invalid syslog facility")


def _check_syslog(options: Options) -> None:
    syslog_address(options.get("syslog-address", ""))
    facility(options.get("syslog-facility", ""))
    if options.get("syslog-format", "") not in SYSLOG_FORMATS:
        raise ValueError("Invalid syslog format")
    _check_cache(options)


# --- gelf -----------------------------------------------------------------------------------


def gelf_address(text: str) -> SplitResult:
    """Raises: ValueError."""
    if not text:
        raise ValueError("gelf-address is a required parameter")
    if not _TRANSPORT.fullmatch(text):
        raise ValueError(f"gelf-address should be in form proto://address, got {text}")
    address = urlsplit(text)
    if address.scheme not in ("tcp", "udp"):
        raise ValueError("gelf: endpoint needs to be TCP or UDP")
    if not address.hostname or not address.port:
        raise ValueError("gelf: please provide gelf-address as proto://host:port")
    return address


def _check_gelf(options: Options) -> None:
    address = gelf_address(options.get("gelf-address", ""))
    level = options.get("gelf-compression-level", "1")
    if not re.fullmatch(r"-1|\d", level):
        raise _bad_value("gelf-compression-level", level)
    kind = options.get("gelf-compression-type", "none")
    if kind not in ("gzip", "zlib", "none"):
        raise _bad_value("gelf-compression-type", kind)
    if address.scheme == "tcp" and (kind != "none" or "gelf-compression-level" in options):
        raise ValueError("compression is only supported on UDP")
    for option in ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"):
        if option in options:
            if address.scheme != "tcp":
                raise ValueError(f'"{option}" is only valid for TCP')
            if not options[option].isdigit():
                raise ValueError(f'"{option}" must be a positive integer')
    _check_cache(options)


def _bad_value(option: str, value: str) -> ValueError:
    return ValueError(f'unknown value "{value}" for log opt "{option}" for gelf log driver')


# --- fluentd --------------------------------------------------------------------------------


def fluentd_address(text: str) -> SplitResult:
    """Also without a scheme; 127.0.0.1:24224 by default. Raises: ValueError."""
    given = text or "127.0.0.1"
    address = urlsplit(given if _TRANSPORT.fullmatch(given) else f"tcp://{given}")
    if address.scheme in ("unix", "unixgram"):
        if not address.path:
            raise ValueError(f"invalid fluentd-address {text}: path cannot be empty")
        return address
    host, _, port = address.netloc.rpartition(":")
    if host and not port.isdigit() and not port.endswith("]"):
        raise ValueError(
            f'invalid fluentd-address {text}: strconv.Atoi: parsing "{port}": invalid syntax'
        )
    if address.scheme not in ("tcp", "tcp+tls") or address.path or not address.hostname:
        raise ValueError(f"invalid fluentd-address {text}: use tcp://host:port or unix://path")
    _check_port(address)
    return address


def _check_fluentd(options: Options) -> None:
    fluentd_address(options.get("fluentd-address", ""))
    for option in ("fluentd-retry-wait", "fluentd-async-reconnect-interval"):
        if options.get(option):
            parse_duration(options[option])
    if (
        options.get("fluentd-write-timeout")
        and parse_duration(options["fluentd-write-timeout"]) < 0
    ):
        raise ValueError(
            f"invalid value for fluentd-write-timeout: {options['fluentd-write-timeout']}"
        )
    if limit := options.get("fluentd-buffer-limit"):
        parse_size(limit)
    if (retries := options.get("fluentd-max-retries")) and not retries.isdigit():
        raise ValueError(f'strconv.ParseUint: parsing "{retries}": invalid syntax')
    for option in ("fluentd-async", "fluentd-request-ack", "fluentd-sub-second-precision"):
        if options.get(option):
            truth(options[option])
    _check_cache(options)


_CHECKS: dict[str, Callable[[Options], None]] = {
    "json-file": lambda options: _check_rotation(options, small=False),
    "local": lambda options: _check_rotation(options, small=True),
    "syslog": _check_syslog,
    "gelf": _check_gelf,
    "fluentd": _check_fluentd,
}


def _check_rotation(options: Options, *, small: bool) -> None:
    rotation(options, "", small)
