"""`save`, `load` and `import`."""

from __future__ import annotations

import os
import sys

from teu.cli.archives import check_output, open_input, read_pieces, save_response
from teu.cli.grammar import Command, Flag, Options
from teu.cli.progress import ProgressView
from teu.cli.session import Failure, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Query = dict[str, str | int | bool | list[str] | None]

_TAR = {"Content-Type": "application/x-tar"}


def save(session: Session, options: Options, names: list[str]) -> int:
    """Writes images to stdout or to a file."""
    path = options.text("output")
    check_output(path, "save image")
    query: Query = {"names": names}
    _add_platform(query, options)
    save_response(session, session.client.request("GET", "/images/get", query), path)
    return 0


def load(session: Session, options: Options, _names: list[str]) -> int:
    """Reads images from stdin or from a file."""
    path = options.text("input")
    if not path and os.isatty(0):
        raise Failure("requested load from stdin, but stdin is empty")
    descriptor = open_input(path) if path else 0
    query: Query = {"quiet": options.flag("quiet") or not sys.stdout.isatty()}
    _add_platform(query, options)
    response = session.client.request("POST", "/images/load", query, read_pieces(descriptor), _TAR)
    if "json" not in response.headers.get("content-type", ""):
        save_response(session, response, "")
        return 0
    ProgressView(sys.stdout).show_all(session.client.objects(response))
    return 0


def _add_platform(query: Query, options: Options) -> None:
    if options.changed("platform"):
        from teu.cli.platforms import as_json

        query["platform"] = as_json(options.text("platform"))


def import_image(session: Session, options: Options, words: list[str]) -> int:
    """Makes an image from the tar archive of a file system."""
    source = words[0]
    query: Query = {
        "fromSrc": source,
        "repo": words[1] if len(words) > 1 else None,
        "message": options.text("message") or None,
        "changes": options.texts("change"),
        "platform": options.text("platform") or None,
    }
    body: Iterator[bytes] | None = None
    if source == "-":
        body = read_pieces(0)
    elif not source.startswith(("http://", "https://", "ftp://")) or os.path.exists(source):
        query["fromSrc"] = "-"
        body = read_pieces(open_input(source))
    messages = session.client.stream("POST", "/images/create", query, body, _TAR if body else None)
    ProgressView(sys.stdout).show_all(messages)
    return 0


COMMANDS = {
    "image import": Command(
        import_image,
        "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
        args=(1, None),
        flags=(
            Flag("change", "c", "list", "Apply a Dockerfile instruction to the image"),
            Flag("message", "m", "string", "Commit message"),
            Flag("platform", "", "string", "Platform of the image"),
        ),
    ),
    "image load": Command(
        load,
        "[OPTIONS]",
        flags=(
            Flag("input", "i", "string", "Read from this file, not from STDIN"),
            Flag("platform", "", "string", "Load only this platform's variant", since="1.48"),
            Flag("quiet", "q", "bool", "Do not print the progress"),
        ),
    ),
    "image save": Command(
        save,
        "[OPTIONS] IMAGE [IMAGE...]",
        args=(1, None),
        flags=(
            Flag("output", "o", "string", "Write to this file, not to STDOUT"),
            Flag("platform", "", "string", "Save only this platform's variant", since="1.48"),
        ),
    ),
}
