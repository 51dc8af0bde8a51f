"""`pull` and `push`."""

from __future__ import annotations

import sys

from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session
from teu.cli.transfer import image_name, pull_image, push_image


def pull(session: Session, options: Options, names: list[str]) -> int:
    """Gets an image; the last line of the output is its full name."""
    name = image_name(names[0])
    all_tags, quiet = options.flag("all-tags"), options.flag("quiet")
    if all_tags and (name.tag or name.digest):
        raise Failure("tag can't be used with --all-tags/-a")
    if options.flag("all-platforms") and options.text("platform"):
        raise Failure("--platform and --all-platforms cannot both be given")
    if not all_tags and not quiet and not (name.tag or name.digest):
        session.out("Using default tag: latest\n")
        sys.stdout.flush()
    pulled = pull_image(
        session,
        names[0],
        platform="all" if options.flag("all-platforms") else options.text("platform"),
        all_tags=all_tags,
        sink=None if quiet else sys.stdout,
    )
    session.out(pulled.full + "\n")
    return 0


def push(session: Session, options: Options, names: list[str]) -> int:
    name = image_name(names[0])
    all_tags, quiet = options.flag("all-tags"), options.flag("quiet")
    if all_tags and (name.tag or name.digest):
        raise Failure("tag can't be used with --all-tags/-a")
    if name.digest:
        raise Failure("cannot push a digest reference")
    if not all_tags:
        if not name.tag and not quiet:
            session.out("Using default tag: latest\n")
            sys.stdout.flush()
        name = name.with_default_tag()
    sink = None if quiet else sys.stdout
    push_image(session, name, platform=options.text("platform"), sink=sink)
    if quiet:
        session.out(name.full + "\n")
    return 0


_TRUST = Flag("disable-content-trust", "", "bool", default=True, hidden=True)
_QUIET = Flag("quiet", "q", "bool", "Print only the name")
COMMANDS = {
    "image pull": Command(
        pull,
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        args=(1, 1),
        flags=(
            Flag("all-platforms", "", "bool", "Get the image for all platforms it is made for"),
            Flag("all-tags", "a", "bool", "Get all tags of the repository"),
            _TRUST,
            Flag("platform", "", "string", "Platform of the image (linux/arm64)"),
            _QUIET,
        ),
    ),
    "image push": Command(
        push,
        "[OPTIONS] NAME[:TAG]",
        args=(1, 1),
        flags=(
            Flag("all-tags", "a", "bool", "Send all tags of the repository"),
            _TRUST,
            Flag("platform", "", "string", "Send only this platform's manifest", since="1.46"),
            _QUIET,
        ),
    ),
}
