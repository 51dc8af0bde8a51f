"""`inspect`, and `inspect` of containers, images, networks and volumes."""

from __future__ import annotations

from teu.cli.client import DaemonError, escape
from teu.cli.grammar import Command, Flag
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session
    from teu.template import Template

    # (struct type, JSON text); without the text the object is shown as its type, not as it came.
    Found = tuple[str, str, bool]
    Search = Callable[[str], Found]

TEMPLATE_STATUS = 64
_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
    "service": "/services/{}?insertDefaults=true",
    "task": "/tasks/{}",
    "node": "/nodes/{}",
    "plugin": "/plugins/{}/json",
    "secret": "/secrets/{}",
    "config": "/configs/{}",
}
_SWARM = ("service", "task", "node", "secret", "config")
_SHAPES = {
    "container": "container.InspectResponse",
    "image": "image.InspectResponse",
    "network": "network.Inspect",
    "volume": "volume.Volume",
}
_TYPES = ("config", "container", "image", "network", "node", "plugin", "secret", "service", "task",
          "volume")  # fmt: skip


def show(session: Session, names: list[str], form: str, search: Search) -> int:
    """Prints what `search` finds for each name, in the layout of `form`.

    What is found is printed even when some names are not. Raises: Failure with all problems.
    """
    template = _parse(form)
    texts: list[str] = []
    problems: list[str] = []
    for name in names:
        try:
            found = search(name)
            texts.append(_fill(template, found) if template else _plain(found, form))
        except Failure as failure:
            problems.append(str(failure))
    if template:
        session.out("".join(texts) or "\n")
    else:
        session.out(_as_list(texts, form))
    if problems:
        raise Failure("\n".join(problems))
    return 0


def _parse(form: str) -> Template | None:
    if form in ("", "json"):
        return None
    from teu.template import TemplateError, parse

    try:
        return parse(form)
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}", TEMPLATE_STATUS) from None


def _as_list(texts: list[str], form: str) -> str:
    if not texts:
        return "[]\n"
    from teu.template import gojson

    text = "[" + ",".join(texts) + "]"
    return (gojson.compact(text) if form == "json" else gojson.indent(text)) + "\n"


def _plain(found: Found, form: str) -> str:
    shape, text, as_is = found
    if as_is:
        return text
    from teu.cli.jsontext import loads
    from teu.cli.shapes import BOOK
    from teu.template.functions import json_ready
    from teu.template.gojson import encode

    return encode(json_ready(BOOK.convert(shape, loads(text))), html=True)


def _fill(template: Template, found: Found) -> str:
    """The template over the typed object; over plain JSON if it does not fit the type."""
    from teu.cli.jsontext import loads
    from teu.template import TemplateError

    shape, text, as_is = found
    if shape:
        from teu.cli.shapes import BOOK

        try:
            return template.execute(BOOK.convert(shape, loads(text))) + "\n"
        except TemplateError as error:
            if not as_is:
                raise Failure(f"template parsing error: {error}") from None
    try:
        return template.execute(_with_spelling(text), missing_is_error=True) + "\n"
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}") from None


def _with_spelling(text: str) -> Any:
    """The JSON value, its numbers with their spelling."""
    import json

    from teu.template.values import Number

    return json.loads(text, parse_int=Number, parse_float=Number, parse_constant=Number)


def fetch(session: Session, kind: str, name: str, query: dict[str, Any] | None = None) -> Found:
    """The object's JSON as the daemon sent it. Raises: DaemonError, Failure."""
    if not name:
        raise Failure(f"invalid {kind} name or ID: value is empty")
    client = session.client
    body = client.finish(client.request("GET", _PATHS[kind].format(escape(name)), query))
    return _SHAPES.get(kind, ""), body.decode("utf-8", "surrogateescape"), True


def _inspect(session: Session, options: Options, arguments: list[str]) -> int:
    kind = options.text("type")
    if kind not in ("", *_TYPES):
        known = '", "'.join(_TYPES)
        raise Failure(f'unknown type: "{kind}": must be one of "{known}"')
    if options.changed("type") and not kind:
        known = '", "'.join(_TYPES)
        raise Failure(f'type is empty: must be one of "{known}"')
    kinds = [kind] if kind else list(_PATHS)
    search = _Search(session, kinds, options.flag("size"), bool(kind))
    return show(session, arguments, options.text("format"), search.find)


class _Search:
    """Looks a name up among objects of several types. strict: the user named the type."""

    def __init__(self, session: Session, kinds: list[str], size: bool, strict: bool) -> None:
        self._session = session
        self._kinds = kinds
        self._size = size
        self._strict = strict
        self._swarm: bool | None = None

    def find(self, name: str) -> Found:
        for kind in self._kinds:
            if not self._strict and kind in _SWARM and not self._is_swarm_manager():
                continue
            query = {"size": True} if self._size and kind == "container" else None
            try:
                found = fetch(self._session, kind, name, query)
            except DaemonError as error:
                if self._strict or not _is_skippable(error):
                    raise
                continue
            if self._size and kind != "container":
                self._session.err(f"WARNING: --size ignored for {kind}\n")
            return found
        raise Failure(f"Error: No such object: {name}")

    def _is_swarm_manager(self) -> bool:
        if self._swarm is None:
            info = self._session.client.get("/info") or {}
            self._swarm = bool((info.get("Swarm") or {}).get("ControlAvailable"))
        return self._swarm


def _is_skippable(error: DaemonError) -> bool:
    reason = error.reason
    return error.is_missing or "not supported" in reason or "invalid reference format" in reason


def _containers(session: Session, options: Options, arguments: list[str]) -> int:
    query = {"size": True} if options.flag("size") else None
    form = options.text("format")
    return show(session, arguments, form, lambda name: fetch(session, "container", name, query))


def _images(session: Session, options: Options, arguments: list[str]) -> int:
    query: dict[str, Any] = {}
    if options.text("platform"):
        from teu.cli.platforms import as_json

        query["platform"] = as_json(options.text("platform"))
    form = options.text("format")
    return show(session, arguments, form, lambda name: fetch(session, "image", name, query))


def _networks(session: Session, options: Options, arguments: list[str]) -> int:
    query = {"verbose": "true"} if options.flag("verbose") else None
    form = options.text("format")
    return show(session, arguments, form, lambda name: fetch(session, "network", name, query))


def _volumes(session: Session, options: Options, arguments: list[str]) -> int:
    def search(name: str) -> Found:
        shape, text, _ = fetch(session, "volume", name)
        return shape, text, False

    return show(session, arguments, options.text("format"), search)


_FORMAT = Flag("format", "f", "string", "'json', or a Go template for each object")

COMMANDS = {
    "inspect": Command(
        _inspect,
        "[OPTIONS] NAME|ID [NAME|ID...]",
        args=(1, None),
        flags=(
            _FORMAT,
            Flag("size", "s", "bool", "Show sizes of containers"),
            Flag("type", "", "string", "Look only among objects of this type"),
        ),
    ),
    "container inspect": Command(
        _containers,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        args=(1, None),
        flags=(_FORMAT, Flag("size", "s", "bool", "Show sizes on disk")),
    ),
    "image inspect": Command(
        _images,
        "[OPTIONS] IMAGE [IMAGE...]",
        args=(1, None),
        flags=(
            _FORMAT,
            Flag("platform", "", "string", "Show only this platform's variant", since="1.49"),
        ),
    ),
    "network inspect": Command(
        _networks,
        "[OPTIONS] NETWORK [NETWORK...]",
        args=(1, None),
        flags=(_FORMAT, Flag("verbose", "v", "bool", "Show more, for finding faults")),
    ),
    "volume inspect": Command(
        _volumes, "[OPTIONS] VOLUME [VOLUME...]", args=(1, None), flags=(_FORMAT,)
    ),
}
