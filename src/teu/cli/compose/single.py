"""Commands for one container: `exec`, `run`, `cp`, `wait`."""

from __future__ import annotations

import os
import secrets

from teu.cli.compose import engine
from teu.cli.compose.down import take_down
from teu.cli.compose.project import load, name_only, run_command
from teu.cli.compose.up import Up
from teu.cli.session import Failure
from teu.compose import convert
from teu.compose.plan import Wishes
from teu.compose.project import dependencies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session
    from teu.compose.project import Project


def container_of(session: Session, service: str, number: int = 1) -> str:
    """The name of a service's running container. Raises: Failure."""
    for found in engine.containers(session.client, name_only(session), [service], every=False):
        if found.number == number:
            return found.name
    raise Failure(f'service "{service}" is not running')


def typed(options: Options, names: Sequence[str]) -> list[str]:
    """The flags of these names as they were given."""
    words: list[str] = []
    for name in names:
        if not options.changed(name):
            continue
        value = options.value(name)
        if value is True:
            words.append(f"--{name}")
        elif isinstance(value, list):
            words += [word for entry in value for word in (f"--{name}", entry)]
        elif value is not False:
            words += [f"--{name}", str(value)]
    return words


def execute(session: Session, options: Options, words: list[str]) -> int:
    container = container_of(session, words[0], options.number("index") or 1)
    flags = typed(options, ("detach", "env", "user", "workdir", "privileged"))
    if not options.flag("detach"):
        flags.append("--interactive")
        if not options.flag("no-tty") and os.isatty(0):
            flags.append("--tty")
    return run_command(session, "container exec", [*flags, container, *words[1:]])


def run_once(session: Session, options: Options, words: list[str]) -> int:
    """A new container of a service with another command; its dependencies are started first."""
    key, command = words[0], words[1:]
    project = load(session, [key])
    if not options.flag("no-deps"):
        needed = list(dependencies(project.services[key]))
        if needed:
            Up(session, project, Wishes(services=needed)).run()
    prepared = Up(session, project, Wishes(services=[key], with_dependencies=False), quiet=True)
    prepared.prepare(build=options.flag("build"))
    tty = not options.flag("no-tty") and os.isatty(0) and not options.flag("detach")
    body = _body(session, project, key, command, options, tty)
    name = options.text("name") or f"{project.name}-{key}-run-{secrets.token_hex(6)}"
    made = session.client.post("/containers/create", {"name": name}, body)["Id"]
    flags = ["--attach", "--interactive"] if not options.flag("detach") else []
    status = run_command(session, "container start", [*flags, made])
    if options.flag("rm") and not options.flag("detach"):
        session.client.delete(f"/containers/{made}", {"v": True, "force": True})
    return status


def _body(
    session: Session, project: Project, key: str, command: list[str], options: Options, tty: bool
) -> dict[str, Any]:
    service = project.services[key]
    peers = {f.service: f.id for f in engine.containers(session.client, project.name)}
    if not options.flag("service-ports"):
        service = project.services[key] = {**service, "ports": []}
    body = convert.container_body(project, key, 1, oneoff=True, peers=peers)
    body["HostConfig"]["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    body.update(Tty=tty, OpenStdin=True, StdinOnce=True, AttachStdin=True)
    body["Env"] += [
        word if "=" in word else f"{word}={os.environ.get(word, '')}"
        for word in options.texts("env")
    ]
    if command:
        body["Cmd"] = command
    if options.changed("entrypoint"):
        body["Entrypoint"] = options.text("entrypoint").split()
        body["Cmd"] = command
    for field, name in (("User", "user"), ("WorkingDir", "workdir")):
        if options.text(name):
            body[field] = options.text(name)
    for entry in options.texts("label"):
        name, _, value = entry.partition("=")
        body["Labels"][name] = value
    body["HostConfig"]["Binds"] = options.texts("volume")
    _publish(body, options.texts("publish"))
    return body


def _publish(body: dict[str, Any], words: list[str]) -> None:
    from teu.compose.errors import ComposeError, Place
    from teu.compose.references import ports

    try:
        found = ports(words, Place("--publish", 1, "publish"))
    except ComposeError as error:
        raise Failure(str(error)) from error
    for port in found:
        key = f"{port['target']}/{port['protocol']}"
        binding = {"HostIp": port.get("host_ip", ""), "HostPort": port.get("published", "")}
        body["ExposedPorts"][key] = {}
        body["HostConfig"]["PortBindings"].setdefault(key, []).append(binding)


def copy(session: Session, options: Options, words: list[str]) -> int:
    number = options.number("index") or 1
    translated = []
    for word in words:
        service, colon, path = word.partition(":")
        if colon and "/" not in service and service:
            translated.append(f"{container_of(session, service, number)}:{path}")
        else:
            translated.append(word)
    flags = typed(options, ("archive", "follow-link"))
    return run_command(session, "container cp", [*flags, *translated])


def wait(session: Session, options: Options, services: list[str]) -> int:
    """Prints the exit codes; ends with the last one."""
    name = name_only(session)
    there = engine.containers(session.client, name, services)
    if not there:
        raise Failure(f"no containers for project {name!r}")
    status = 0
    for found in there:
        status = session.client.post(f"/containers/{found.id}/wait")["StatusCode"]
        session.out(f"{status}\n")
        if options.flag("down-project"):
            take_down(session, load(session))
            break
    return status


def attach(session: Session, options: Options, words: list[str]) -> int:
    container = container_of(session, words[0], options.number("index") or 1)
    return run_command(session, "container attach", [container])
