"""`registry serve|passwd`: a registry server, and its users. They talk to no daemon."""

from __future__ import annotations

import os

from teu.cli.grammar import Command, Flag
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

_FILES = ("root", "htpasswd", "rules", "audit-log", "tls-cert", "tls-key")
_SERVE_FLAGS = (
    Flag("listen", "l", "string", "Address to serve on", default="127.0.0.1:5000",
         metavar="[host]:port"),
    Flag("root", "", "string", "Directory for everything (default ~/.local/share/teu/registry, "
         "as root /var/lib/teu-registry)", metavar="dir"),
    Flag("htpasswd", "", "string", "Users and bcrypt hashes (see 'registry passwd'); without it "
         "everybody may do everything", metavar="file"),
    Flag("rules", "", "string", "JSON: which users may do what with which repositories",
         metavar="file"),
    Flag("tokens", "", "bool", "Give out bearer tokens with scopes"),
    Flag("read-only", "", "bool", "Refuse all changes"),
    Flag("rate", "", "decimal", "Requests a second for each client address", metavar="n"),
    Flag("quota", "", "bytes", "The most that a repository may hold"),
    Flag("audit-log", "", "string", "Append a line of JSON for each access", metavar="file"),
    Flag("tls-cert", "", "string", "Certificate file (PEM)", metavar="file"),
    Flag("tls-key", "", "string", "Key file (PEM)", metavar="file"),
    Flag("keep-last", "", "int", "Keep only this many newest tags of each repository",
         metavar="n"),
    Flag("keep-days", "", "int", "Keep only tags that are younger", metavar="n"),
    Flag("keep-matching", "", "list", "Tags to keep always", metavar="pattern"),
    Flag("collect-every", "", "int", "Seconds between garbage collections", default=3600,
         metavar="n"),
    Flag("proxy", "", "string", "Be a cache of this registry", metavar="host[:port]"),
    Flag("insecure-proxy", "", "bool", "Reach it by plain HTTP"),
    Flag("notify", "", "list", "Tell this webhook of pushes, pulls and deletions",
         metavar="url"),
)  # fmt: skip


def _serve(_session: Session, options: Options, _arguments: list[str]) -> int:
    import json

    from teu.cli.helper import become

    told: dict[str, Any] = {name: options.value(name) for name in options.given()}
    told.setdefault("root", _default_root())
    for name in _FILES:
        if name in told:
            told[name] = os.path.abspath(told[name])
    become("teu.distribution.main", [json.dumps(told)])


def _default_root() -> str:
    if os.geteuid() == 0:
        return "/var/lib/teu-registry"
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return f"{data}/teu/registry"


def _passwd(_session: Session, options: Options, arguments: list[str]) -> int:
    from teu.cli.helper import become

    path, user = arguments
    if not user or ":" in user:
        raise Failure(f"invalid user name {user!r}: it may not be empty or hold a colon")
    source = "delete" if options.flag("delete") else "ask"
    if options.flag("password-stdin"):
        source = "stdin"
    become("teu.distribution.passwords", [os.path.abspath(path), user, source])


COMMANDS = {
    "registry serve": Command(
        _serve,
        "[OPTIONS]",
        flags=_SERVE_FLAGS,
        long="""Run a registry server (OCI distribution specification 1.1) until it is stopped.

  teu registry serve --root ./images
  teu push localhost:5000/app""",
    ),
    "registry passwd": Command(
        _passwd,
        "[OPTIONS] FILE USER",
        args=(2, 2),
        flags=(
            Flag("password-stdin", "", "bool", "Read the password from stdin"),
            Flag("delete", "", "bool", "Remove the user"),
        ),
    ),
}
