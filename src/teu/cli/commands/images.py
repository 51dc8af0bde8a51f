"""`images`, `image ls`."""

from __future__ import annotations

from teu.cli import filters, human
from teu.cli.grammar import Command, Flag
from teu.cli.session import Failure
from teu.cli.tables import Listing, render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

NONE = "<none>"
_TABLE = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
_TABLE_DIGESTS = (
    "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
)
_RAW = "repository: {{ .Repository }}\ntag: {{.Tag}}\n"
_RAW_END = "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n"
# `teu images ls` is a common slip for `teu image ls`; these words get a hint.
_SUBCOMMANDS = frozenset(
    ("build", "history", "import", "inspect", "list", "load", "ls", "prune", "pull", "push", "rm",
     "save", "tag")
)  # fmt: skip


_NOT_WITH_TREE = {
    "no-trunc": "no-trunc", "quiet": "quiet", "digests": "show-digest", "format": "format",
}  # fmt: skip


class ImageRow:
    """One name of an image (an image without a name is one row of `<none>`)."""

    __slots__ = ("data", "digest", "full", "repository", "tag")

    def __init__(
        self, data: dict[str, Any], repository: str, tag: str, digest: str, full: bool
    ) -> None:
        self.data = data
        self.repository = repository
        self.tag = tag
        self.digest = digest
        self.full = full


def _size(value: int) -> str:
    from teu.units import human_size

    return human_size(value)


def _four_digits(value: int) -> str:
    """Sizes that Docker happens to print with one digit more."""
    from teu.units import human_size

    return human_size(value, 4)


def _shared_size(row: ImageRow) -> str:
    shared = row.data.get("SharedSize", 0)
    return "N/A" if shared == -1 else _four_digits(shared)


def _unique_size(row: ImageRow) -> str:
    size, shared = row.data.get("Size", 0), row.data.get("SharedSize", 0)
    return "N/A" if -1 in (size, shared) else _four_digits(size - shared)


def _containers(row: ImageRow) -> str:
    count = row.data.get("Containers", 0)
    return "N/A" if count == -1 else str(count)


def _id(row: ImageRow) -> str:
    identifier: str = row.data.get("Id", "")
    return identifier if row.full else human.short_id(identifier)


IMAGES = Listing(
    "*formatter.imageContext",
    {
        "ID": "IMAGE ID",
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Containers": "CONTAINERS",
        "VirtualSize": "SIZE",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
    },
    {
        "ID": _id,
        "Repository": lambda row: row.repository,
        "Tag": lambda row: row.tag,
        "Digest": lambda row: row.digest,
        "CreatedSince": lambda row: human.ago(row.data.get("Created", 0)),
        "CreatedAt": lambda row: human.local_time(row.data.get("Created", 0)),
        "Size": lambda row: _size(row.data.get("Size", 0)),
        "Containers": _containers,
        "VirtualSize": lambda row: _four_digits(row.data.get("Size", 0)),
        "SharedSize": _shared_size,
        "UniqueSize": _unique_size,
    },
)


def is_dangling(image: dict[str, Any]) -> bool:
    tags, digests = image.get("RepoTags") or [], image.get("RepoDigests") or []
    return (not tags and not digests) or (
        tags == ["<none>:<none>"] and digests == ["<none>@<none>"]
    )


def image_rows(
    images: list[dict[str, Any]], full: bool, with_digests: bool, shows_digest: bool
) -> Iterator[ImageRow]:
    """One row for each name. with_digests: also one for each digest without a tag.

    shows_digest: the format has a digest column.
    """
    for image in images:
        if is_dangling(image):
            yield ImageRow(image, NONE, NONE, NONE, full)
            continue
        tags = _by_name(image.get("RepoTags") or [], 1)
        digests = _by_name(image.get("RepoDigests") or [], 2)
        for name, own_tags in tags.items():
            own_digests = digests.pop(name, []) if shows_digest else digests.pop(name, [])[:0]
            for tag in own_tags:
                for digest in own_digests or [NONE]:
                    yield ImageRow(image, name, tag, digest, full)
        for name, own_digests in digests.items():
            for digest in own_digests if with_digests else [""]:
                yield ImageRow(image, name, NONE, digest, full)


def _by_name(references: list[str], part: int) -> dict[str, list[str]]:
    """Tags (part 1) or digests (part 2) by familiar name."""
    from teu.cli.familiar import parts as familiar_parts

    found: dict[str, list[str]] = {}
    for reference in references:
        parts = familiar_parts(reference)
        if parts is not None and parts[part]:
            found.setdefault(parts[0], []).append(parts[part])
    return found


def image_format(form: str, quiet: bool, digests: bool) -> str:
    """The template for `form`, which may be one of Docker's words for a ready-made one."""
    if form == "table":
        return "{{.ID}}" if quiet else _TABLE_DIGESTS if digests else _TABLE
    if form == "raw":
        if quiet:
            return "image_id: {{.ID}}"
        return _RAW + ("digest: {{.Digest}}\n" if digests else "") + _RAW_END
    if form.startswith("table") and digests and "{{.Digest}}" not in form:
        return form + "\t{{.Digest}}"
    return form


def _tree(session: Session, options: Options, arguments: list[str]) -> int:
    """The images with their platforms."""
    for name, said in _NOT_WITH_TREE.items():
        if options.changed(name):
            raise Failure(f"--{said} is not yet supported with --tree")
    from teu.cli.image_tree import tree
    from teu.cli.terminal import size

    terms = options.texts("filter") + [f"reference={name}" for name in arguments]
    query = {
        "all": options.flag("all"), "filters": filters.encode(terms), "manifests": True,
    }  # fmt: skip
    images = session.client.get("/images/json", query) or []
    shown = [image for image in images if image.get("RepoTags") or options.flag("all")]
    session.out(tree(shown, size()[1] or 80))
    return 0


def _list(session: Session, options: Options, arguments: list[str]) -> int:
    if options.flag("tree"):
        return _tree(session, options, arguments)
    terms = options.texts("filter") + [f"reference={name}" for name in arguments]
    query = {"all": options.flag("all"), "filters": filters.encode(terms)}
    images = session.client.get("/images/json", query) or []
    quiet, digests = options.flag("quiet"), options.flag("digests")
    configured = "" if quiet else session.config.text("imagesFormat")
    form = image_format(options.text("format") or configured or "table", quiet, digests)
    shows_digest = digests or "{{.Digest}}" in form
    rows = image_rows(images, options.flag("no-trunc"), digests, shows_digest)
    session.out(render(IMAGES, rows, form))
    called = session.path.split()[-1]
    if arguments and not images and called == "images" and arguments[0] in _SUBCOMMANDS:
        session.err(
            f'\nNo images found matching "{arguments[0]}": '
            f'did you mean "{session.program} image {arguments[0]}"?\n'
        )
    return 0


COMMANDS = {
    "image ls": Command(
        _list,
        "[OPTIONS] [REPOSITORY[:TAG]]",
        args=(0, 1),
        flags=(
            Flag("all", "a", "bool", "Show also the layers of other images"),
            Flag("digests", "", "bool", "Show digests"),
            Flag("filter", "f", "filter", "Show only what fits `name=value` (repeatable)",
                 check="filter"),
            Flag("format", "", "string",
                 "'table', 'table TEMPLATE', 'json', or a Go template for each image"),
            Flag("no-trunc", "", "bool", "Do not cut ids"),
            Flag("quiet", "q", "bool", "Print only ids"),
            Flag("tree", "", "bool", "Show the platforms of images as a tree", since="1.47"),
        ),
    ),
}  # fmt: skip
