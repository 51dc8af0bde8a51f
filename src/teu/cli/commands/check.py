"""`system check`: not one of Docker's."""

from __future__ import annotations

import sys

from teu.cli.grammar import Command, Flag
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

_UNREPAIRED = 1


def _check(session: Session, options: Options, _arguments: list[str]) -> int:
    """Prints each problem as it is found; exits with 1 when one is left."""
    from teu.cli.progress import ProgressView

    repair = options.flag("repair")
    report = _Report(session, repair)
    messages = session.client.stream(
        "POST", "/system/check", {"repair": repair}, headers=_logins(session) if repair else None
    )
    if not sys.stderr.isatty() or options.flag("quiet"):
        messages = (message for message in messages if "progressDetail" not in message)
    ProgressView(sys.stderr).show_all(messages, report.add)
    return report.end()


def _logins(session: Session) -> dict[str, str]:
    """All stored logins, for the registries that images came from."""
    import base64

    from teu.cli.credentials import find_login
    from teu.cli.jsontext import dumps

    servers = [*session.config.table("auths"), *session.config.table("credHelpers")]
    found = {server: find_login(session.config, server) for server in servers}
    return {"X-Registry-Config": base64.urlsafe_b64encode(dumps(found).encode()).decode()}


class _Report:
    def __init__(self, session: Session, repair: bool) -> None:
        self._session = session
        self._repair = repair
        self._count = 0
        self._left = 0
        self._sums: dict[str, Any] | None = None

    def add(self, found: dict[str, Any]) -> None:
        if "Checked" in found:
            self._sums = found["Checked"]
            return
        self._count += 1
        self._left += not found["Repaired"]
        images = f" (images: {', '.join(found['Images'])})" if found["Images"] else ""
        line = f"{found['Kind']} {_short(found['ID'])} {found['Problem']}{images}\n"
        if self._repair:
            line += f"  {'repaired' if found['Repaired'] else 'not repaired'}: {found['Outcome']}\n"
        self._session.out(line)

    def end(self) -> int:
        """The sums. Raises: Failure when the daemon did not finish."""
        from teu.units import human_size

        if self._sums is None:
            raise Failure("the check broke off before its end")
        sums = self._sums
        self._session.out(
            f"Checked {sums['Images']} images, {sums['Layers']} layers, {sums['Blobs']} blobs "
            f"({human_size(sums['Size'])}): {self._verdict()}\n"
        )
        return _UNREPAIRED if self._left else 0

    def _verdict(self) -> str:
        if not self._count:
            return "no problems"
        found = f"{self._count} problem{'s' if self._count > 1 else ''}"
        if self._repair:
            return f"{found}, {self._count - self._left} repaired"
        return f"{found}; `{self._session.program} system check --repair` fetches again what it can"


def _short(identifier: str) -> str:
    return (
        identifier.removeprefix("sha256:")[:12] if identifier.startswith("sha256:") else identifier
    )


COMMANDS = {
    "system check": Command(
        _check,
        "[OPTIONS]",
        flags=(
            Flag("quiet", "q", "bool", "Do not show the progress"),
            Flag("repair", "", "bool", "Fetch again what is missing or damaged"),
        ),
        long="Read everything that is stored, and compare it with its digests. With --repair, get\n"
        "missing and damaged layers and blobs again from the registry that their image came from.",
    ),
}
