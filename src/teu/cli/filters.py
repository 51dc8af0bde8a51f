"""`--filter` values as the API takes them, and prune filters from the user's configuration."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from teu.cli.config import ClientConfig


def encode(terms: Iterable[str]) -> str | None:
    """`["label=a", "label=b=c"]` as the `filters` parameter; None when there are none."""
    grouped: dict[str, dict[str, bool]] = {}
    for term in terms:
        name, _, value = term.partition("=")
        grouped.setdefault(name, {})[value] = True
    if not grouped:
        return None
    from teu.cli.jsontext import dumps

    return dumps(grouped)


def with_defaults(config: ClientConfig, terms: list[str]) -> list[str]:
    """`terms` and the configuration's `pruneFilters` that do not contradict them."""
    defaults = config.content.get("pruneFilters")
    if not isinstance(defaults, list):
        return terms
    merged = list(terms)
    for default in defaults:
        name, equals, value = str(default).partition("=")
        opposite = {"label": "label!", "label!": "label"}.get(name)
        if equals and f"{opposite}={value}" not in terms:
            merged.append(f"{name}={value}")
    return merged
