"""`container|image|network|volume|builder|system prune`."""

from __future__ import annotations

from teu.cli import filters, human
from teu.cli.client import DaemonError
from teu.cli.grammar import Command, Flag
from teu.cli.prompt import confirm
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

_SURE = "Are you sure you want to continue?"
# The first API version in which `volume prune` spares named volumes unless told not to.
_SPARES_NAMED = (1, 42)


class _Removed:
    """What one kind of pruning did. text: the list of what is gone, "" when nothing is."""

    __slots__ = ("size_bytes", "text")

    def __init__(self, title: str, names: list[str], answer: dict[str, Any]) -> None:
        self.text = f"{title}:\n" + "".join(f"{name}\n" for name in names) if names else ""
        self.size_bytes: int = (answer.get("SpaceReclaimed") or 0) if names else 0


def _post(session: Session, path: str, terms: list[str], **query: str | bool) -> dict[str, Any]:
    merged = filters.with_defaults(session.config, terms)
    answer = session.client.post(path, {"filters": filters.encode(merged), **query})
    return answer or {}


def _prune_containers(session: Session, terms: list[str]) -> _Removed:
    answer = _post(session, "/containers/prune", terms)
    return _Removed("Deleted Containers", answer.get("ContainersDeleted") or [], answer)


def _prune_networks(session: Session, terms: list[str]) -> _Removed:
    answer = _post(session, "/networks/prune", terms)
    return _Removed("Deleted Networks", answer.get("NetworksDeleted") or [], answer)


def _prune_volumes(session: Session, terms: list[str]) -> _Removed:
    answer = _post(session, "/volumes/prune", terms)
    return _Removed("Deleted Volumes", answer.get("VolumesDeleted") or [], answer)


def _prune_images(session: Session, terms: list[str], all_unused: bool) -> _Removed:
    answer = _post(session, "/images/prune", [*terms, f"dangling={human.yes_no(not all_unused)}"])
    lines = [
        f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}"
        for item in answer.get("ImagesDeleted") or ()
    ]
    return _Removed("Deleted Images", lines, answer)


def _prune_builds(
    session: Session, terms: list[str], all_unused: bool, keep_bytes: int = 0
) -> _Removed:
    query: dict[str, str | bool] = {"all": all_unused}
    if keep_bytes:
        query["keep-storage"] = query["reserved-space"] = str(keep_bytes)
    answer = _post(session, "/build/prune", terms, **query)
    removed = _Removed("Deleted build cache objects", answer.get("CachesDeleted") or [], answer)
    removed.size_bytes = answer.get("SpaceReclaimed") or 0
    return removed


def _finish(session: Session, removed: _Removed) -> int:
    if removed.text:
        session.out(removed.text + "\n")
    session.out(f"Total reclaimed space: {_size(removed.size_bytes)}\n")
    return 0


def _size(size_bytes: int) -> str:
    from teu.units import human_size

    return human_size(size_bytes, 4)


def _refused(session: Session, options: Options, warning: str) -> bool:
    """True when the user was asked and did not say yes (which is no failure)."""
    return not options.flag("force") and not confirm(session, f"WARNING! {warning}\n{_SURE}")


def _containers(session: Session, options: Options, _arguments: list[str]) -> int:
    if _refused(session, options, "This will remove all stopped containers."):
        return 0
    return _finish(session, _prune_containers(session, options.texts("filter")))


def _networks(session: Session, options: Options, _arguments: list[str]) -> int:
    warning = "This will remove all custom networks not used by at least one container."
    if _refused(session, options, warning):
        return 0
    removed = _prune_networks(session, options.texts("filter"))
    if removed.text:
        session.out(removed.text + "\n")
    return 0


def _images(session: Session, options: Options, _arguments: list[str]) -> int:
    warning = "This will remove all dangling images."
    if options.flag("all"):
        warning = "This will remove all images without at least one container associated to them."
    if _refused(session, options, warning):
        return 0
    return _finish(session, _prune_images(session, options.texts("filter"), options.flag("all")))


def _volumes(session: Session, options: Options, _arguments: list[str]) -> int:
    terms = options.texts("filter")
    session.client.negotiate()
    version = session.client.version
    spares_named = tuple(map(int, version.split("."))) >= _SPARES_NAMED
    if options.flag("all") and not spares_named:
        raise Failure(
            f'"--all" requires API version 1.42, but the Docker daemon API version is {version}'
        )
    if options.flag("all") and any(term.startswith("all=") for term in terms):
        raise Failure("conflicting options: cannot specify both --all and --filter all=1")
    warning = "This will remove anonymous local volumes not used by at least one container."
    if options.flag("all") or not spares_named:
        warning = "This will remove all local volumes not used by at least one container."
    if _refused(session, options, warning):
        return 0
    extra = ["all=true"] if options.flag("all") else []
    return _finish(session, _prune_volumes(session, terms + extra))


def _builds(session: Session, options: Options, _arguments: list[str]) -> int:
    what = "all build cache" if options.flag("all") else "all dangling build cache"
    question = f"WARNING! This will remove {what}. {_SURE}"
    if not options.flag("force") and not confirm(session, question):
        return 0
    terms, keep_bytes = options.texts("filter"), options.number("keep-storage")
    return _finish(session, _prune_builds(session, terms, options.flag("all"), keep_bytes))


def _system(session: Session, options: Options, _arguments: list[str]) -> int:
    terms, all_unused = options.texts("filter"), options.flag("all")
    if options.flag("volumes") and any(term.startswith("until=") for term in terms):
        raise Failure('ERROR: The "until" filter is not supported with "--volumes"')
    if not options.flag("force") and not confirm(session, _system_warning(session, options)):
        return 0
    steps: list[Callable[[], _Removed]] = [
        lambda: _prune_containers(session, terms),
        lambda: _prune_networks(session, terms),
    ]
    if options.flag("volumes"):
        steps.append(lambda: _prune_volumes(session, terms))
    steps.append(lambda: _prune_images(session, terms, all_unused))
    steps.append(lambda: _prune_builds_if_any(session, terms, all_unused))
    total_bytes = 0
    for step in steps:
        removed = step()
        total_bytes += removed.size_bytes
        if removed.text:
            session.out(removed.text + "\n")
    session.out(f"Total reclaimed space: {_size(total_bytes)}\n")
    return 0


def _prune_builds_if_any(session: Session, terms: list[str], all_unused: bool) -> _Removed:
    """A daemon without a builder has nothing to prune there."""
    try:
        return _prune_builds(session, terms, all_unused)
    except DaemonError as error:
        if not (error.is_missing or error.http_status == 501):
            raise
        return _Removed("", [], {})


def _system_warning(session: Session, options: Options) -> str:
    all_unused = options.flag("all")
    warnings = ["all stopped containers", "all networks not used by at least one container"]
    if options.flag("volumes"):
        warnings.append("all anonymous volumes not used by at least one container")
    if all_unused:
        warnings.append("all images without at least one container associated to them")
    else:
        warnings.append("all dangling images")
    warnings.append("all build cache" if all_unused else "unused build cache")
    text = "WARNING! This will remove:\n" + "".join(f"  - {line}\n" for line in warnings)
    merged = filters.with_defaults(session.config, options.texts("filter"))
    if shown := [term for term in merged if term.partition("=")[0] in ("label", "label!", "until")]:
        text += "\n  Items to be pruned will be filtered with:\n"
        text += "".join(f"  - {term}\n" for term in sorted(shown, key=human.natural_key))
    return f"{text}\n{_SURE}"


_FILTER = Flag("filter", "", "filter", "Remove only what fits `name=value` (repeatable)",
               check="filter")  # fmt: skip
_FORCE = Flag("force", "f", "bool", "Do not ask")

COMMANDS = {
    "container prune": Command(_containers, "[OPTIONS]", flags=(_FILTER, _FORCE)),
    "network prune": Command(_networks, "[OPTIONS]", flags=(_FILTER, _FORCE)),
    "image prune": Command(
        _images,
        "[OPTIONS]",
        flags=(
            Flag("all", "a", "bool", "Remove all unused images, not just those without a name"),
            _FILTER,
            _FORCE,
        ),
    ),
    "volume prune": Command(
        _volumes,
        "[OPTIONS]",
        flags=(
            Flag("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"),
            _FILTER,
            _FORCE,
        ),
    ),
    "builder prune": Command(
        _builds,
        "",
        flags=(
            Flag("all", "a", "bool", "Remove all unused build cache, not just dangling parts"),
            _FILTER,
            _FORCE,
            Flag("keep-storage", "", "bytes", "Build cache to keep"),
        ),
    ),
    "system prune": Command(
        _system,
        "[OPTIONS]",
        flags=(
            Flag("all", "a", "bool", "Remove all unused images, not just those without a name"),
            _FILTER,
            _FORCE,
            Flag("volumes", "", "bool", "Remove also unused anonymous volumes"),
        ),
    ),
}
