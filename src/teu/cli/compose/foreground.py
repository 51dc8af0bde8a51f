"""`up` in the foreground: shows what the containers write until they end, or the user stops it."""

from __future__ import annotations

import concurrent.futures
import threading

from teu.cli.client import Client
from teu.cli.compose import engine
from teu.cli.compose.changes import Changer, grace_s
from teu.cli.compose.down import in_reverse_order
from teu.cli.compose.output import Printer, print_logs
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.compose.up import Up
    from teu.cli.grammar import Options
    from teu.cli.session import Session
    from teu.compose.plan import Found
    from teu.compose.project import Project

INTERRUPTED_STATUS = 130


class Foreground:
    def __init__(self, session: Session, project: Project, up: Up, options: Options) -> None:
        self._session = session
        self._project = project
        self._options = options
        self._up = up
        mine = set(up.started())
        there = engine.containers(session.client, project.name)
        self._containers = [found for found in there if found.id in mine]
        self._codes: dict[str, int] = {}
        self._ended = threading.Event()

    def run(self) -> int:
        """The exit status: 0, that of `--exit-code-from`, or of the one that ended everything."""
        shown = [found for found in self._containers if self._is_shown(found)]
        names = [found.name for found in shown]
        colour = False if self._options.flag("no-color") else None
        prefix = not self._options.flag("no-log-prefix")
        printer = Printer(names, prefix=prefix, colour=colour)
        self._session.out(f"Attaching to {', '.join(names)}\n")
        watchers = [
            threading.Thread(target=self._watch, args=(found, printer), daemon=True)
            for found in self._containers
        ]
        follow = {"stdout": True, "stderr": True, "follow": True,
                  "timestamps": self._options.flag("timestamps")}  # fmt: skip
        client = self._session.client
        reader = threading.Thread(
            target=print_logs, args=(client, shown, printer, follow), daemon=True
        )
        for thread in (*watchers, reader):
            thread.start()
        try:
            while any(watcher.is_alive() for watcher in watchers) and not self._ended.wait(0.1):
                pass
        except KeyboardInterrupt:
            self._session.err("Gracefully stopping... (press Ctrl+C again to force)\n")
            self._stop()
            return INTERRUPTED_STATUS
        if self._ended.is_set():
            self._stop()
        reader.join(1.0)
        return self._status()

    def _is_shown(self, found: Found) -> bool:
        only, without = self._options.texts("attach"), self._options.texts("no-attach")
        wanted = self._project.services.get(found.service, {}).get("attach", True)
        return found.service not in without and (found.service in only if only else wanted)

    def _watch(self, found: Found, printer: Printer) -> None:
        client = Client(self._session.client.endpoint)
        try:
            code = int(client.post(f"/containers/{found.id}/wait")["StatusCode"])
        except Failure:
            return
        self._codes[found.id] = code
        printer.say(found.name, f"exited with code {code}")
        aborts = self._options.flag("abort-on-container-exit")
        chosen = self._options.text("exit-code-from")
        failed = self._options.flag("abort-on-container-failure") and code
        if aborts or failed or (chosen and found.service == chosen):
            self._ended.set()

    def _stop(self) -> None:
        timeout = self._options.number("timeout") if self._options.changed("timeout") else None

        def stop(found: Found) -> None:
            client = Client(self._session.client.endpoint)
            changer = Changer(client, self._project, self._up.steps)
            changer.stop(found, grace_s(self._project, found.service, timeout))

        try:
            in_reverse_order(self._project, self._containers, stop)
        except KeyboardInterrupt:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                list(pool.map(self._kill, self._containers))

    def _kill(self, found: Found) -> None:
        try:
            Client(self._session.client.endpoint).post(f"/containers/{found.id}/kill")
        except Failure:
            pass  # it has ended by itself

    def _status(self) -> int:
        chosen = self._options.text("exit-code-from")
        if chosen:
            for found in self._containers:
                if found.service == chosen:
                    return self._codes.get(found.id, 0)
        aborts = ("abort-on-container-exit", "abort-on-container-failure")
        if any(self._options.flag(name) for name in aborts):
            return max(self._codes.values(), default=0)
        return 0
