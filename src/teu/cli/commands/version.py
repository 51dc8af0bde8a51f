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
_LAYOUT = """{{with .Client -}}
Client:
 Version:	{{.Version}}
 API version:	{{.APIVersion}}{{if ne .APIVersion .DefaultAPIVersion}} (downgraded from \
{{.DefaultAPIVersion}}){{end}}
 Python version:	{{.GoVersion}}
 OS/Arch:	{{.Os}}/{{.Arch}}
 Context:	{{.Context}}
{{- end}}

{{- if ne .Server nil}}{{with .Server}}

Server:{{if ne .Platform.Name ""}} {{.Platform.Name}}{{end}}
 {{- range $component := .Components}}
 {{$component.Name}}:
  {{- if eq $component.Name "Engine" }}
  Version:	{{.Version}}
  API version:	{{index .Details "ApiVersion"}} (minimum version {{index .Details "MinAPIVersion"}})
  {{- with index .Details "GoVersion"}}
  Go version:	{{.}}{{end}}
  {{- with index .Details "GitCommit"}}
  Git commit:	{{.}}{{end}}
  {{- with index .Details "BuildTime"}}
  Built:	{{.}}{{end}}
  OS/Arch:	{{index .Details "Os"}}/{{index .Details "Arch"}}
  Experimental:	{{index .Details "Experimental"}}
  {{- else }}
  Version:	{{$component.Version}}
  {{- range $key, $value := $component.Details}}
  {{$key}}:	{{$value}}
   {{- end}}
  {{- end}}
 {{- end}}
 {{- end}}{{- end}}"""


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
    from teu.cli.tables import tabulate
    from teu.cli.template import TemplateError, parse

    form = options.text("format")
    try:
        template = parse({"": _LAYOUT, "json": "{{json .}}"}.get(form, form), "version")
    except TemplateError as error:
        raise Failure(f"template parsing error: {error}", TEMPLATE_STATUS) from None
    problem: Failure | None = None
    server: dict[str, Any] | None = None
    try:
        server = session.client.get("/version")
    except Failure as failure:
        problem = failure
    client = client_facts(session)
    client["ApiVersion"] = session.client.version
    text, error_text = _fill(template, {"Client": client, "Server": _with_engine(server)})
    session.out(tabulate(text + "\n", minimum=20, padding=1))
    if problem is not None:
        raise problem
    if error_text:
        raise Failure(error_text)
    return 0


def _fill(template: Any, data: dict[str, Any]) -> tuple[str, str]:
    """What the template printed, and why it stopped before its end ("" when it did not)."""
    from teu.cli.shapes import BOOK
    from teu.cli.template import TemplateError

    parts: list[str] = []
    try:
        template.write(BOOK.convert("system.versionInfo", data), parts.append)
    except TemplateError as error:
        return "".join(parts), str(error)
    return "".join(parts), ""


def _with_engine(server: dict[str, Any] | None) -> dict[str, Any] | None:
    """The daemon's answer with its build time as people read it and an Engine component."""
    if server is None:
        return None
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
