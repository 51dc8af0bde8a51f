"""What a stage is after some of its steps, and how that becomes an image's config."""

from typing import Any

import msgspec
from msgspec import Struct, field

from teu.build.request import BuildRequest
from teu.build.steps import StagePlan
from teu.clock import format_ns
from teu.image.cachetransfer import INLINE_KEY
from teu.image.making import portable
from teu.model.image import HistoryEntry


class Change(Struct):
    """One line of the history. `created_ns` 0: only the configuration changed, so the time is the
    image's."""

    text: str
    created_ns: int = 0
    empty: bool = True


class State(Struct):
    """`diff_ids` are the layers, base first. `inherited` is the base image's history."""

    diff_ids: list[str] = field(default_factory=list)
    inherited: list[HistoryEntry] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def after(self, diff_ids: list[str], change: Change) -> "State":
        return State(diff_ids, self.inherited, [*self.changes, change])


def config_json(
    plan: StagePlan,
    state: State,
    request: BuildRequest,
    created_ns: int,
    inline: bytes | None = None,
) -> bytes:
    """The image's config, the same bytes for the same input. With `source_date_epoch` no time in
    it is later than that. `inline`: the cache's document, for images that carry it."""
    limit_ns = None
    if request.source_date_epoch is not None:
        limit_ns = request.source_date_epoch * 1_000_000_000
        created_ns = min(created_ns, limit_ns)
    history = [msgspec.to_builtins(entry) for entry in state.inherited]
    for change in state.changes:
        at_ns = change.created_ns or created_ns
        entry = HistoryEntry(
            created=format_ns(at_ns if limit_ns is None else min(at_ns, limit_ns)),
            created_by=change.text,
            comment="",
            empty_layer=change.empty,
        )
        history.append(msgspec.to_builtins(entry))
    config = msgspec.structs.replace(plan.config)
    if request.labels:
        config.labels = {**(config.labels or {}), **request.labels}
    document: dict[str, Any] = {
        "architecture": plan.platform.architecture,
        "config": portable(config),
        "created": format_ns(created_ns),
        "history": history,
        "os": plan.platform.os or "linux",
        "rootfs": {"type": "layers", "diff_ids": state.diff_ids},
    }
    optional = {
        "author": plan.author,
        "variant": plan.platform.variant,
        "os.version": plan.platform.os_version,
    }
    document.update({name: value for name, value in optional.items() if value})
    if inline is not None:
        document[INLINE_KEY] = msgspec.Raw(inline)
    return msgspec.json.encode(document)
