"""The log driver of a container: which there are, their options, and what they mean."""

from teu.errors import InvalidParameter
from teu.model.config import LogConfig
from teu.model.container import ContainerRecord
from teu.units import parse_size

_LOG_OPTIONS = {
    "json-file": {
        "max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag",
        "mode", "max-buffer-size",
    },
    "local": {"max-size", "max-file", "compress", "mode", "max-buffer-size"},
    "none": set[str](),
}  # fmt: skip


def check_log(log: LogConfig) -> None:
    """Raises: InvalidParameter."""
    known = _LOG_OPTIONS.get(log.type)
    if known is None:
        raise InvalidParameter(
            f"logger: no log driver named '{log.type}' is registered; this engine has "
            f"{', '.join(sorted(_LOG_OPTIONS))}"
        )
    for option in log.config or {}:
        if option not in known:
            raise InvalidParameter(f"unknown log opt '{option}' for {log.type} log driver")
    log_limits(log)


def log_limits(log: LogConfig) -> tuple[int, int, bool]:
    """(bytes per file, files, compress); rotated by default. Raises: InvalidParameter."""
    options = log.config or {}
    try:
        size = parse_size(options.get("max-size", "100m"))
        files = int(options.get("max-file", "3"))
    except ValueError as error:
        raise InvalidParameter(f"log options: {error}") from error
    if size == 0 or files < 1:
        raise InvalidParameter("max-size must be positive and max-file at least 1")
    compress = options.get("compress", "true" if log.type == "local" else "false")
    if compress not in ("true", "false"):
        raise InvalidParameter(f"log option compress: {compress!r} is neither true nor false")
    return size, files, compress == "true"


def log_attributes(record: ContainerRecord) -> dict[str, str]:
    """What `labels`, `env` and `tag` add to each log line."""
    options = record.host.log_config.config or {}
    attributes: dict[str, str] = {}
    labels = record.config.labels or {}
    for key in filter(None, options.get("labels", "").split(",")):
        if key in labels:
            attributes[key] = labels[key]
    env = dict(e.partition("=")[::2] for e in record.config.env or [])
    for key in filter(None, options.get("env", "").split(",")):
        if key in env:
            attributes[key] = env[key]
    return attributes
