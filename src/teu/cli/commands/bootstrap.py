"""`image bootstrap`: not one of Docker's."""

from __future__ import annotations

import sys

from teu.cli.grammar import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.grammar import Options
    from teu.cli.session import Session


def _bootstrap(session: Session, options: Options, arguments: list[str]) -> int:
    from teu.cli.progress import ProgressView

    query = {
        "source": arguments[0],
        "name": options.text("tag") or None,
        "mirror": options.text("mirror") or None,
        "variant": options.text("variant") or None,
        "include": ",".join(options.texts("include")) or None,
    }
    messages = session.client.stream("POST", "/images/bootstrap", query)
    if options.flag("quiet"):
        messages = (message for message in messages if message.get("error"))
    ProgressView(sys.stdout).show_all(messages)
    return 0


COMMANDS = {
    "image bootstrap": Command(
        _bootstrap,
        "[OPTIONS] busybox|debian:SUITE",
        args=(1, 1),
        flags=(
            Flag("include", "", "list", "More packages for Debian (repeatable)"),
            Flag("mirror", "", "string", "Where Debian's packages come from"),
            Flag("quiet", "q", "bool", "Do not show the progress"),
            Flag("tag", "t", "string", "Name of the image (default: what is made)"),
            Flag("variant", "", "string", "minbase (default), buildd or standard"),
        ),
        long="Make a base image without any registry: busybox from the daemon's host, or Debian\n"
        "by debootstrap, which must be installed there.",
    ),
}
