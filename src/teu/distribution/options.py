"""What the registry server is told at its start: one JSON object, made by `teu registry serve`."""

from pathlib import Path

import msgspec
from msgspec import Struct

from teu.errors import InvalidParameter


class Options(Struct, forbid_unknown_fields=True, rename="kebab", kw_only=True):
    """The flags of `teu registry serve` (docs/registry.md), by their names."""

    root: Path
    listen: str = "127.0.0.1:5000"
    htpasswd: Path | None = None
    rules: Path | None = None
    tokens: bool = False
    read_only: bool = False
    rate: float = 0
    quota: int = 0
    audit_log: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    keep_last: int = 0
    keep_days: float = 0
    keep_matching: tuple[str, ...] = ()
    collect_every: float = 3600
    proxy: str = ""
    insecure_proxy: bool = False
    notify: list[str] = []

    @classmethod
    def parse(cls, text: str) -> "Options":
        """Raises: InvalidParameter for what is unknown, wrong, or does not fit together."""
        try:
            found = msgspec.json.decode(text, type=cls, dec_hook=lambda kind, value: kind(value))
        except msgspec.DecodeError as error:
            raise InvalidParameter(f"cannot read the options: {error}") from error
        if bool(found.tls_cert) != bool(found.tls_key):
            raise InvalidParameter("give --tls-cert and --tls-key together")
        if (found.rules or found.tokens) and not found.htpasswd:
            raise InvalidParameter("--rules and --tokens need users: give --htpasswd too")
        if "/" in found.proxy:
            raise InvalidParameter(f"--proxy {found.proxy}: give HOST[:PORT] only")
        if found.collect_every <= 0:
            raise InvalidParameter("--collect-every must be more than 0 seconds")
        return found

    def address(self) -> tuple[str | None, int]:
        """`127.0.0.1:5000`, `:5000` (all addresses), `[::1]:5000`. Raises: InvalidParameter."""
        host, colon, port = self.listen.rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65535:
            raise InvalidParameter(f"--listen {self.listen}: not [HOST]:PORT")
        return host.removeprefix("[").removesuffix("]") or None, int(port)
