"""`port`."""

from __future__ import annotations

from teu.cli.commands.lifecycle import escape
from teu.cli.grammar import Command, Options
from teu.cli.session import Failure, Session


def port(session: Session, _options: Options, words: list[str]) -> int:
    """Prints where a container's ports are published: all, or the one that is asked for."""
    info = session.client.get(f"/containers/{escape(words[0])}/json")
    published = info["NetworkSettings"]["Ports"] or {}
    if len(words) == 1:
        lines = [
            f"{name} -> {_address(binding)}"
            for name, bindings in published.items()
            for binding in bindings or ()
        ]
        lines.sort(key=_natural)
        session.out("".join(f"{line}\n" for line in lines))
        return 0
    number, _, protocol = words[1].partition("/")
    from teu.cli.values import unsigned

    try:
        unsigned(number, 16)
    except ValueError as error:
        raise Failure(f"Error: invalid port ({number}): {error}") from error
    bindings = published.get(f"{number}/{protocol or 'tcp'}")
    if not bindings:
        raise Failure(f"Error: No public port '{words[1]}' published for {words[0]}")
    lines = sorted((_address(binding) for binding in bindings), key=_natural)
    session.out("".join(f"{line}\n" for line in lines))
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


def _natural(line: str) -> list[tuple[int, str]]:
    """Sorts numbers by value: 80 before 443."""
    words = line.replace("/", " ").replace(":", " ").split()
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]


COMMANDS = {
    "container port": Command(port, "CONTAINER [PRIVATE_PORT[/PROTO]]", args=(1, 2)),
}
