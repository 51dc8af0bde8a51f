"""The commands that only look."""

from __future__ import annotations

from teu import __version__
from teu.cli.compose import engine
from teu.cli.compose.output import Printer, print_logs
from teu.cli.compose.project import name_only, run_command
from teu.cli.compose.tables import (
    containers_table,
    images_table,
    projects_table,
    published,
    top_text,
)
from teu.compose.convert import label
from teu.compose.plan import Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.grammar import Options
    from teu.cli.session import Session


def ps(session: Session, options: Options, services: list[str]) -> int:
    name = name_only(session)
    every = options.flag("all") or bool(options.texts("status"))
    rows = engine.rows(session.client, name, services, every=every)
    if wanted := options.texts("status"):
        rows = [row for row in rows if row["State"] in wanted]
    if options.flag("services"):
        names = dict.fromkeys(Found.read(row).service for row in rows)
        session.out("".join(f"{service}\n" for service in names))
    elif options.flag("quiet"):
        session.out("".join(f"{row['Id']}\n" for row in rows))
    else:
        session.out(containers_table(rows, options.text("format")))
    return 0


def ls(session: Session, options: Options, _arguments: list[str]) -> int:
    every, form, quiet = options.flag("all"), options.text("format"), options.flag("quiet")
    session.out(projects_table(session, every=every, form=form, quiet=quiet))
    return 0


def images(session: Session, options: Options, services: list[str]) -> int:
    rows = engine.rows(session.client, name_only(session), services)
    quiet, form = options.flag("quiet"), options.text("format")
    session.out(images_table(session, rows, quiet=quiet, form=form))
    return 0


def top(session: Session, _options: Options, services: list[str]) -> int:
    there = engine.containers(session.client, name_only(session), services, every=False)
    session.out(top_text(session, there))
    return 0


def port(session: Session, options: Options, words: list[str]) -> int:
    port = f"{words[1]}/{options.text('protocol')}"
    number = options.number("index") or 1
    session.out(published(session, name_only(session), words[0], number, port))
    return 0


def logs(session: Session, options: Options, services: list[str]) -> int:
    from teu.cli.instants import from_option

    there = engine.containers(session.client, name_only(session), services)
    query: dict[str, str | int | bool | list[str] | None] = {
        "stdout": True,
        "stderr": True,
        "follow": options.flag("follow"),
        "timestamps": options.flag("timestamps"),
        "tail": options.text("tail"),
    }
    for name in ("since", "until"):
        if options.changed(name):
            query[name] = from_option(options, name)
    colour = False if options.flag("no-color") else None
    names = [found.name for found in there]
    printer = Printer(names, prefix=not options.flag("no-log-prefix"), colour=colour)
    print_logs(session.client, there, printer, query)
    return 0


def stats(session: Session, options: Options, services: list[str]) -> int:
    there = engine.containers(session.client, name_only(session), services, every=False)
    words = ["--no-stream"] if options.flag("no-stream") else []
    return run_command(session, "container stats", [*words, *(found.name for found in there)])


def events(session: Session, options: Options, _services: list[str]) -> int:
    words = [
        "--filter",
        f"label={label('project')}={name_only(session)}",
        "--filter",
        "type=container",
    ]
    for name in ("since", "until"):
        words += [f"--{name}", options.text(name)] if options.changed(name) else []
    words += ["--format", "json"] if options.flag("json") else []
    return run_command(session, "system events", words)


def version(session: Session, options: Options, _arguments: list[str]) -> int:
    text = __version__ if options.flag("short") else f"teu compose version {__version__}"
    session.out(f"{text}\n")
    return 0
