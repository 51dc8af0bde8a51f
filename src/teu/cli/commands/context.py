"""`context ls|show|use|inspect|create|update|rm`."""

from __future__ import annotations

import os

from teu.cli import human
from teu.cli.contexts import DEFAULT, ContextStore, check_name
from teu.cli.endpoint import current_context
from teu.cli.grammar import Command, Flag, convert
from teu.cli.session import Failure
from teu.cli.tables import Listing, render
from teu.template.quoting import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

_TABLE = (
    "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"
)
_DEFAULT_DESCRIPTION = "Current DOCKER_HOST based configuration"
_KEYS = ("from", "host", "ca", "cert", "key", "skip-tls-verify")
_OVERRIDES = ("TEU_HOST", "DOCKER_HOST")


class _Row:
    __slots__ = ("current", "description", "endpoint", "error", "name")

    def __init__(
        self, name: str, current: bool, description: str = "", endpoint: str = "", error: str = ""
    ) -> None:
        self.name = name
        self.current = current
        self.description = description
        self.endpoint = endpoint
        self.error = error


_CONTEXTS = Listing(
    "*formatter.clientContextContext",
    {
        "Name": "NAME",
        "Description": "DESCRIPTION",
        "DockerEndpoint": "DOCKER ENDPOINT",
        "Error": "ERROR",
    },
    {
        "Name": lambda row: row.name,
        "Current": lambda row: row.current,
        "Description": lambda row: row.description,
        "DockerEndpoint": lambda row: row.endpoint,
        "Error": lambda row: human.ellipsis(row.error, 45),
    },
)


def _current(session: Session) -> str:
    return current_context(session.globals, session.config)


def _default_host(session: Session) -> str:
    """The address in force when no context is: flag, environment, or the built-in one."""
    from teu.cli.endpoint import parse

    hosts = session.globals.texts("host")
    environment = (os.environ.get(name) for name in _OVERRIDES)
    return parse(hosts[0] if hosts else next(filter(None, environment), "")).url


def _list(session: Session, options: Options, _arguments: list[str]) -> int:
    current = _current(session)
    store = ContextStore(session.config)
    rows = [
        _Row(
            meta["Name"],
            meta["Name"] == current,
            (meta.get("Metadata") or {}).get("Description", ""),
            _endpoint(meta).get("Host", ""),
        )
        for meta in store.all()
    ]
    here = _Row(DEFAULT, current == DEFAULT, _DEFAULT_DESCRIPTION, _default_host(session))
    rows.append(here)
    if all(row.name != current for row in rows):
        error = f'context "{current}": context not found: '
        error += f"open {store.meta_folder(current)}/meta.json: no such file or directory"
        rows.append(_Row(current, True, error=error))
    rows.sort(key=lambda row: human.natural_key(row.name))
    form = options.text("format") or "table"
    if options.flag("quiet"):
        form = "{{.Name}}"
    session.out(render(_CONTEXTS, rows, _TABLE if form == "table" else form))
    _warn_of_override(session, "To use a context, ")
    return 0


def _warn_of_override(session: Session, advice: str) -> None:
    for name in _OVERRIDES:
        if os.environ.get(name):
            session.err(
                f"Warning: {name} environment variable overrides the active context. {advice}"
                f"either set the global --context flag, or unset {name} environment variable.\n"
            )
            return


def _endpoint(meta: dict[str, Any]) -> dict[str, Any]:
    return dict((meta.get("Endpoints") or {}).get("docker") or {})


def _show(session: Session, _options: Options, _arguments: list[str]) -> int:
    session.out(_current(session) + "\n")
    return 0


def _use(session: Session, _options: Options, arguments: list[str]) -> int:
    name = arguments[0]
    if name != DEFAULT:
        check_name(name)
        ContextStore(session.config).get(name)
    _set_current(session, "" if name == DEFAULT else name)
    session.out(name + "\n")
    session.err(f"Current context is now {quote(name)}\n")
    if name != DEFAULT:
        _warn_of_override(session, f"To use {quote(name)}, ")
    return 0


def _set_current(session: Session, name: str) -> None:
    config = session.config
    if config.text("currentContext") == name:
        return
    content = dict(config.content)
    content.pop("currentContext", None)
    if name:
        content["currentContext"] = name
    config.save(content)


def _inspect(session: Session, options: Options, arguments: list[str]) -> int:
    from teu.cli.commands.inspect import show
    from teu.cli.jsontext import dumps

    store = ContextStore(session.config)

    def search(name: str) -> tuple[str, str, bool]:
        meta = default_meta(session) if name == DEFAULT else store.get(name)
        storage = {"MetadataPath": store.meta_folder(name), "TLSPath": store.tls_folder(name)}
        if name == DEFAULT:
            storage = {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"}
        found = meta | {"TLSMaterial": store.tls_files(name), "Storage": storage}
        return "context.contextWithTLSListing", dumps(found), False

    return show(session, arguments or [_current(session)], options.text("format"), search)


def default_meta(session: Session) -> dict[str, Any]:
    """The description of what is in force when no context is."""
    endpoint = {"Host": _default_host(session), "SkipTLSVerify": False}
    return {"Name": DEFAULT, "Metadata": {}, "Endpoints": {"docker": endpoint}}


def _create(session: Session, options: Options, arguments: list[str]) -> int:
    name, store = arguments[0], ContextStore(session.config)
    check_name(name)
    if store.exists(name):
        raise Failure(f"context {quote(name)} already exists")
    source = options.text("from")
    if source and options.changed("docker"):
        raise Failure("cannot use --docker flag when --from is set")
    if options.changed("docker"):
        endpoint, files = _docker_endpoint(session, store, options.texts("docker"))
        meta: dict[str, Any] = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
    else:
        source = source or _current(session)
        meta = store.get(source) if source != DEFAULT else default_meta(session)
        if source == DEFAULT:
            meta["Metadata"] = {"Description": _DEFAULT_DESCRIPTION}
        meta["Name"] = name
        files = store.read_tls(source)
    _describe(meta, options)
    store.write_tls(name, files)
    store.write(meta)
    session.out(name + "\n")
    session.err(f"Successfully created context {quote(name)}\n")
    return 0


def _describe(meta: dict[str, Any], options: Options) -> None:
    if options.text("description"):
        meta["Metadata"] = (meta.get("Metadata") or {}) | {
            "Description": options.text("description")
        }


def _update(session: Session, options: Options, arguments: list[str]) -> int:
    name, store = arguments[0], ContextStore(session.config)
    check_name(name)
    meta = store.get(name)
    _describe(meta, options)
    if options.changed("docker"):
        endpoint, files = _docker_endpoint(session, store, options.texts("docker"))
        meta["Endpoints"] = (meta.get("Endpoints") or {}) | {"docker": endpoint}
        store.write_tls(name, files)
    store.write(meta)
    session.out(name + "\n")
    session.err(f"Successfully updated context {quote(name)}\n")
    return 0


def _docker_endpoint(
    session: Session, store: ContextStore, texts: list[str]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The endpoint that `--docker host=...,ca=...` describes, and its TLS files."""
    from teu.cli.endpoint import parse
    from teu.cli.lists import csv_values, pairs

    settings = pairs(csv_values(texts))
    where = "unable to create docker endpoint config: "
    if unknown := [key for key in settings if key not in _KEYS]:
        lines = "\n".join(f"unrecognized config key: {key}" for key in unknown)
        raise Failure(where + lines)
    if "from" in settings:
        source = settings["from"]
        meta = default_meta(session) if source == DEFAULT else store.get(source)
        return _endpoint(meta), {}
    files = {}
    for key in ("ca", "cert", "key"):
        if settings.get(key):
            files[f"{key}.pem"] = _read_file(settings[key], where)
    try:
        skip = bool(convert(Flag("", kind="bool"), settings.get("skip-tls-verify", "false")))
    except ValueError:
        text = quote(settings["skip-tls-verify"])
        raise Failure(f"{where}skip-tls-verify: parsing {text}: invalid syntax") from None
    host = settings.get("host", "")
    if host:
        parse(host)
    return {"Host": host, "SkipTLSVerify": skip}, files


def _read_file(path: str, where: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read()
    except OSError as error:
        raise Failure(f"{where}open {path}: {(error.strerror or '').lower()}") from error


def _export(session: Session, _options: Options, arguments: list[str]) -> int:
    from teu.cli.context_archive import export_context

    name = arguments[0]
    export_context(session, name, arguments[1] if arguments[1:] else f"{name}.dockercontext")
    return 0


def _import(session: Session, _options: Options, arguments: list[str]) -> int:
    from teu.cli.context_archive import import_context

    import_context(session, arguments[0], arguments[1])
    session.out(arguments[0] + "\n")
    session.err(f"Successfully imported context {quote(arguments[0])}\n")
    return 0


def _remove(session: Session, options: Options, arguments: list[str]) -> int:
    store, problems = ContextStore(session.config), []
    current = _current(session)
    for name in arguments:
        if name == DEFAULT:
            problems.append('context "default" cannot be removed')
        elif name == current and not options.flag("force"):
            problems.append(f"context {quote(name)} is in use, set -f flag to force remove")
        elif not options.flag("force") and not store.exists(name):
            problems.append(f"context {quote(name)} does not exist")
        else:
            if name == current:
                _set_current(session, "")
            store.remove(name)
            session.out(name + "\n")
    if problems:
        raise Failure("\n".join(problems))
    return 0


_DESCRIPTION = Flag("description", "", "string", "Description of the context")
_DOCKER = Flag("docker", "", "list", "The daemon: host=…,ca=…,cert=…,key=…,skip-tls-verify=…, or "
               "from=CONTEXT", metavar="stringToString")  # fmt: skip
_FORMAT = "'table', 'table TEMPLATE', 'json', or a Go template for each context"

COMMANDS = {
    "context ls": Command(
        _list,
        "[OPTIONS]",
        flags=(
            Flag("format", "", "string", _FORMAT),
            Flag("quiet", "q", "bool", "Print only names"),
        ),
    ),
    "context show": Command(_show, ""),
    "context use": Command(_use, "CONTEXT", args=(1, 1)),
    "context inspect": Command(
        _inspect,
        "[OPTIONS] [CONTEXT] [CONTEXT...]",
        args=(0, None),
        flags=(Flag("format", "f", "string", "'json', or a Go template for each context"),),
    ),
    "context create": Command(
        _create,
        "[OPTIONS] CONTEXT",
        args=(1, 1),
        flags=(_DESCRIPTION, _DOCKER, Flag("from", "", "string", "Context to copy")),
    ),
    "context update": Command(
        _update, "[OPTIONS] CONTEXT", args=(1, 1), flags=(_DESCRIPTION, _DOCKER)
    ),
    "context export": Command(_export, "[OPTIONS] CONTEXT [FILE|-]", args=(1, 2)),
    "context import": Command(_import, "CONTEXT FILE|-", args=(2, 2)),
    "context rm": Command(
        _remove,
        "CONTEXT [CONTEXT...]",
        args=(1, None),
        flags=(Flag("force", "f", "bool", "Also the context in use"),),
    ),
}
