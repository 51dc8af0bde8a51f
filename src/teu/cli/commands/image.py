"""`rmi` and `tag`."""

from __future__ import annotations

from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session


def remove(session: Session, options: Options, names: list[str]) -> int:
    """Prints what was untagged and deleted; failures at the end, as Docker does."""
    query: dict[str, str | int | bool | list[str] | None] = {
        "force": options.flag("force"),
        "noprune": options.flag("no-prune"),
    }
    if platforms := options.texts("platform"):
        from teu.cli.platforms import as_json

        query["platforms"] = [as_json(text) for text in platforms]
    problems = []
    for name in names:
        try:
            done = session.client.delete(f"/images/{_path(name)}", query)
        except Failure as failure:
            problems.append(str(failure))
            continue
        for item in done or ():
            verb = "Deleted" if item.get("Deleted") else "Untagged"
            session.out(f"{verb}: {item.get(verb)}\n")
    if problems:
        raise Failure("\n".join(problems))
    return 0


def _path(name: str) -> str:
    """A name in a request path: its slashes and colons stay. Raises: Failure when empty."""
    from teu.cli.client import escape

    if not name.strip():
        raise Failure("invalid image name or ID: value is empty")
    return "/".join(":".join(escape(p) for p in part.split(":")) for part in name.split("/"))


def tag(session: Session, _options: Options, names: list[str]) -> int:
    from teu.cli.imagename import parse

    source, target = names
    for name in names:
        try:
            parsed = parse(name)
        except ValueError as error:
            if name == source and len(name) >= 64:
                continue  # an image id
            problem = f'"{name}" is not a valid repository/tag: {error}'
            raise Failure(f"Error parsing reference: {problem}") from error
        if name == target and parsed.digest:
            raise Failure("refusing to create a tag with a digest reference")
    named = parse(target).with_default_tag()
    query = {"repo": named.repository, "tag": named.tag}
    session.client.post(f"/images/{_path(source)}/tag", query)
    return 0


COMMANDS = {
    "image rm": Command(
        remove,
        "[OPTIONS] IMAGE [IMAGE...]",
        args=(1, None),
        flags=(
            Flag("force", "f", "bool", "Remove images even if stopped containers use them"),
            Flag("no-prune", "", "bool", "Keep untagged parents"),
            Flag("platform", "", "list", "Remove only this platform's variant", since="1.50"),
        ),
    ),
    "image tag": Command(tag, "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", args=(2, 2)),
}
