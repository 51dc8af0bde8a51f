"""`image tags`: which tags a repository has in its registry."""

from __future__ import annotations

from teu.cli.credentials import registry_auth
from teu.cli.grammar import Command, Flag
from teu.cli.session import Failure
from teu.cli.transfer import image_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.grammar import Options
    from teu.cli.session import Session


def tags(session: Session, options: Options, names: list[str]) -> int:
    """One line for each tag: the whole name, ready to be pulled; only the tag with `-q`."""
    name = image_name(names[0])
    if name.tag or name.digest:
        raise Failure(f"image tags takes a repository: {name.familiar_repository}")
    headers = {"X-Registry-Auth": registry_auth(session.config, name.domain)}
    client = session.client
    response = client.request("GET", f"/distribution/{name.repository}/tags", headers=headers)
    for tag in sorted(client.finish_json(response).get("Tags") or ()):
        session.out(f"{tag}\n" if options.flag("quiet") else f"{name.familiar_repository}:{tag}\n")
    return 0


COMMANDS = {
    "image tags": Command(
        tags,
        "[OPTIONS] NAME",
        args=(1, 1),
        flags=(Flag("quiet", "q", "bool", "Only the tags, without the name"),),
    ),
}
