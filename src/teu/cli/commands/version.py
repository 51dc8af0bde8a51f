"""`version`: the versions of client and daemon."""

from __future__ import annotations

from teu.cli.grammar import Command, Flag
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

TEMPLATE_STATUS = 64
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"
)  # fmt: skip


def client_facts(session: Session) -> dict[str, Any]:
    """What the client knows about itself, without asking the daemon."""
    import os
    import sys

    from teu.cli.client import API_VERSION
    from teu.cli.endpoint import current_context
    from teu.cli.version import client_version

    machine = os.uname().machine
    return {
        "Version": client_version(session.program),
        "DefaultAPIVersion": API_VERSION,
        "GoVersion": ".".join(map(str, sys.version_info[:3])),
        "Os": "linux",
        "Arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
        "Context": current_context(session.globals, session.config),
    }


def _version(session: Session, options: Options, _arguments: list[str]) -> int:
    form = options.text("format")
    template = _parse("{{json .}}" if form == "json" else form) if form else None
    problem: Failure | None = None
    server: dict[str, Any] | None = None
    try:
        server = _with_engine(session.client.get("/version"))
    except Failure as failure:
        problem = failure
    client = client_facts(session)
    client["ApiVersion"] = session.client.version
    if template is None:
        text, error_text = _layout(client, server), ""
    else:
        text, error_text = _fill(template, {"Client": client, "Server": server})
    from teu.cli.tables import tabulate

    session.out(tabulate(text + "\n", minimum=20, padding=1))
    if problem is not None:
        raise problem
    if error_text:
        raise Failure(error_text)
    return 0


def _parse(form: str) -> Any:
    from teu.template import TemplateError, parse

    try:
        return parse(form, "version")
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}", TEMPLATE_STATUS) from None


def _layout(client: dict[str, Any], server: dict[str, Any] | None) -> str:
    """The text for people; a tab stands between a label and its value."""
    api, newest = client["ApiVersion"], client["DefaultAPIVersion"]
    downgraded = f" (downgraded from {newest})" if api != newest else ""
    lines = [
        "Client:",
        f" Version:\t{client['Version']}",
        f" API version:\t{api}{downgraded}",
        f" Python version:\t{client['GoVersion']}",
        f" OS/Arch:\t{client['Os']}/{client['Arch']}",
        f" Context:\t{client['Context']}",
    ]
    if server is not None:
        name = (server.get("Platform") or {}).get("Name", "")
        lines += ["", f"Server: {name}".rstrip()]
        for component in server["Components"]:
            lines += _component_lines(component)
    return "\n".join(lines)


def _component_lines(component: dict[str, Any]) -> list[str]:
    details = component.get("Details") or {}
    lines = [f" {component['Name']}:", f"  Version:\t{component.get('Version', '')}"]
    if component["Name"] != "Engine":
        return lines + [f"  {name}:\t{details[name]}" for name in sorted(details)]
    minimum = details.get("MinAPIVersion", "")
    lines.append(f"  API version:\t{details.get('ApiVersion', '')} (minimum version {minimum})")
    for label, name in (
        ("Go version", "GoVersion"), ("Git commit", "GitCommit"), ("Built", "BuildTime")
    ):  # fmt: skip
        if details.get(name):
            lines.append(f"  {label}:\t{details[name]}")
    lines.append(f"  OS/Arch:\t{details.get('Os', '')}/{details.get('Arch', '')}")
    return [*lines, f"  Experimental:\t{details.get('Experimental', '')}"]


def _fill(template: Any, data: dict[str, Any]) -> tuple[str, str]:
    """What the template printed, and why it stopped before its end ("" when it did not)."""
    from teu.cli.shapes import BOOK
    from teu.template import TemplateError

    parts: list[str] = []
    try:
        template.write(BOOK.convert("system.versionInfo", data), parts.append)
    except TemplateError as error:
        return "".join(parts), str(error)
    return "".join(parts), ""


def _with_engine(server: dict[str, Any]) -> dict[str, Any]:
    """The daemon's answer with its build time as people read it and an Engine component."""
    components = server.setdefault("Components", None) or []
    engines = [part for part in components if part.get("Name") == "Engine"]
    for engine in engines:
        details = engine.get("Details") or {}
        if "BuildTime" in details:
            details["BuildTime"] = readable_date(details["BuildTime"])
    if not engines:
        names = ("ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch")
        details = {name: server.get(name, "") for name in names}
        details["BuildTime"] = readable_date(server.get("BuildTime", ""))
        details["Experimental"] = "true" if server.get("Experimental") else "false"
        engine = {"Name": "Engine", "Version": server.get("Version", ""), "Details": details}
        server["Components"] = [*components, engine]
    return server


def readable_date(text: str) -> str:
    """RFC 3339 as `Fri May 30 12:07:14 2025`; anything else as it is."""
    import time

    day, separator, rest = text.partition("T")
    parts = day.split("-")
    numbers = [int(part) for part in parts if part.isdecimal()]
    if len(numbers) != 3 or not separator or rest[2:3] != ":" or not 1 <= numbers[1] <= 12:
        return text
    year, month, date = numbers
    noon = time.localtime(time.mktime((year, month, date, 12, 0, 0, 0, 0, -1)))
    return f"{_DAYS[noon.tm_wday]} {_MONTHS[month - 1]} {date:2d} {rest[:8]} {year}"


COMMANDS = {
    "version": Command(
        _version,
        "[OPTIONS]",
        flags=(Flag("format", "f", "string", "'json', or a Go template"),),
    ),
}
