"""`diff`, `export`, `commit` and `update`."""

from __future__ import annotations

from teu.cli.commands.lifecycle import escape
from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Query = dict[str, str | int | bool | list[str] | None]

_KINDS = {0: "C", 1: "A", 2: "D"}


def diff(session: Session, _options: Options, names: list[str]) -> int:
    """One line per changed path: A(dded), C(hanged), D(eleted)."""
    changes = session.client.get(f"/containers/{escape(names[0])}/changes") or ()
    session.out("".join(f"{_KINDS[change['Kind']]} {change['Path']}\n" for change in changes))
    return 0


def export(session: Session, options: Options, names: list[str]) -> int:
    from teu.cli.archives import check_output, save_response

    path = options.text("output")
    check_output(path, "export container")
    response = session.client.request("GET", f"/containers/{escape(names[0])}/export")
    save_response(session, response, path)
    return 0


def commit(session: Session, options: Options, words: list[str]) -> int:
    """Prints the new image's id."""
    query: Query = {
        "author": options.text("author"),
        "comment": options.text("message"),
        "changes": options.texts("change"),
        "container": words[0].strip().removeprefix("/"),
        "pause": None if options.flag("pause") else 0,
        "repo": "",
        "tag": "",
    }
    if len(words) == 2:
        from teu.cli.imagename import parse

        try:
            name = parse(words[1]).with_default_tag()
        except ValueError as error:
            raise Failure(str(error)) from error
        if name.digest:
            raise Failure("refusing to create a tag with a digest reference")
        query |= {"repo": name.repository, "tag": name.tag}
    answer = session.client.post("/commit", query)
    session.out(answer["Id"] + "\n")
    return 0


_UPDATE_FIELDS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}


def update(session: Session, options: Options, names: list[str]) -> int:
    """Changes limits; what is not given stays as it is. Prints the names that worked."""
    if not options.given():
        raise Failure("you must provide one or more flags when using this command")
    body = {
        field: options.value(flag)
        for flag, field in _UPDATE_FIELDS.items()
        if options.changed(flag)
    }
    body["RestartPolicy"] = _restart(options)
    problems: list[str] = []
    warnings: list[str] = []
    for name in names:
        try:
            answer = session.client.post(f"/containers/{escape(name)}/update", body=body)
        except Failure as failure:
            problems.append(str(failure))
            continue
        session.out(name + "\n")
        warnings += answer.get("Warnings") or []
    if warnings:
        session.out("\n".join(warnings) + "\n")
    if problems:
        raise Failure("\n".join(problems))
    return 0


def _restart(options: Options) -> dict[str, Any]:
    if not options.changed("restart"):
        return {"Name": "", "MaximumRetryCount": 0}
    from teu.cli.container_rare import parse_restart

    try:
        return parse_restart(options.text("restart"))
    except ValueError as error:
        raise Failure(str(error)) from error


COMMANDS = {
    "container commit": Command(
        commit,
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        args=(1, 2),
        flags=(
            Flag("author", "a", "string", 'Author ("Ann Other <ann@example.org>")'),
            Flag("change", "c", "list", "Apply a Dockerfile instruction to the image"),
            Flag("message", "m", "string", "Commit message"),
            Flag("pause", "p", "bool", "Pause the container meanwhile", default=True),
        ),
    ),
    "container diff": Command(diff, "CONTAINER", args=(1, 1)),
    "container export": Command(
        export,
        "[OPTIONS] CONTAINER",
        args=(1, 1),
        flags=(Flag("output", "o", "string", "Write to this file, not to STDOUT"),),
    ),
    "container update": Command(
        update,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        args=(1, None),
        flags=(
            Flag("blkio-weight", "", "uint16", "Block IO weight, 10 to 1000 (0: off)", default=0),
            Flag("cpu-period", "", "int", "CPU period of the scheduler, in microseconds"),
            Flag("cpu-quota", "", "int", "CPU time per period, in microseconds"),
            Flag("cpu-rt-period", "", "int", "Real-time CPU period, in microseconds"),
            Flag("cpu-rt-runtime", "", "int", "Real-time CPU time per period, in microseconds"),
            Flag("cpu-shares", "c", "int", "CPU weight relative to other containers"),
            Flag("cpus", "", "decimal", "Number of CPUs"),
            Flag("cpuset-cpus", "", "string", "CPUs to run on (0-3, 0,1)"),
            Flag("cpuset-mems", "", "string", "Memory nodes to use (0-3, 0,1)"),
            Flag("kernel-memory", "", "bytes", "No longer supported by the kernel", hidden=True),
            Flag("memory", "m", "bytes", "Memory limit"),
            Flag("memory-reservation", "", "bytes", "Memory soft limit"),
            Flag("memory-swap", "", "bytes", "Limit of memory plus swap (-1: none)", check="swap"),
            Flag("pids-limit", "", "int", "Limit of processes (-1: no limit)"),
            Flag("restart", "", "string", "Restart policy when the container exits"),
        ),
    ),
}
