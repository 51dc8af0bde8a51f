"""The daemon's life: start, serve, reload, stop. Containers outlive every one of these.

Order of a start: listeners bound, engine started (state recovered), connections accepted, service
manager told. A stop goes the other way and has a deadline; a second signal ends the process at
once. `kill -9` at any point is as good as a stop: the next start recovers.
"""

import asyncio
import faulthandler
import logging
import os
import signal
from collections.abc import Callable, MutableMapping
from typing import Protocol

from aiohttp import web

from teu.daemon import logs, stacks
from teu.daemon.commandline import Program
from teu.daemon.config import DaemonConfig
from teu.daemon.listeners import open_listeners
from teu.daemon.load import Reload, reloaded
from teu.daemon.notify import Notifier
from teu.daemon.server import HttpServer
from teu.errors import EngineError

GRACE_S = 5.0  # after `shutdown-timeout`: for the rest of the stop
EXIT_FORCED = 1
log = logging.getLogger(__name__)


class Engine(Protocol):
    """What `daemon/app.py` provides: everything behind the HTTP server."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request; only called after `start`."""
        ...

    async def start(self) -> None:
        """Recovers state and is ready to serve. Raises: EngineError."""

    async def stop(self) -> None:
        """Ends streams and work under way; leaves containers running. Safe after a failed start."""

    def reload(self, config: DaemonConfig) -> None:
        """Takes over a changed configuration; only reloadable options differ."""


class Service:
    """Runs one engine until a signal says stop. `read_config` re-reads flags and file."""

    def __init__(
        self,
        config: DaemonConfig,
        program: Program,
        make_engine: Callable[[DaemonConfig], Engine],
        read_config: Callable[[], DaemonConfig],
        environ: MutableMapping[str, str],
    ) -> None:
        self._config = config
        self._program = program
        self._make_engine = make_engine
        self._read_config = read_config
        self._environ = environ
        self._notifier = Notifier(environ)
        self._stop = asyncio.Event()
        self._engine: Engine | None = None  # set once it serves

    async def run(self) -> None:
        """Returns after a clean stop. Raises: EngineError when the start fails."""
        self._install_signals()
        server: HttpServer | None = None
        engine: Engine | None = None
        try:
            listeners = open_listeners(self._config, self._program.socket, self._environ)
            engine = self._make_engine(self._config)
            server = HttpServer(engine.handle, listeners)
            if await self._start(engine, server):
                await self._stop.wait()
        finally:
            await self._shut_down(engine, server)

    async def _start(self, engine: Engine, server: HttpServer) -> bool:
        """False when a signal came first: a recovery may take long."""
        self._notifier.status("recovering state")
        starting = asyncio.create_task(engine.start(), name="engine start")
        stopping = asyncio.create_task(self._stop.wait(), name="stop signal")
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting}, timeout=self._config.shutdown_timeout_s)
            return False
        await starting
        await server.start()
        self._engine = engine
        self._notifier.ready("serving")
        log.info("Daemon has completed initialization")
        return True

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        loop.add_signal_handler(signal.SIGUSR1, stacks.dump, self._config.exec_root)

    def _on_stop(self, number: int) -> None:
        if self._stop.is_set():
            log.error("second signal: leaving at once; the next start will recover")
            os._exit(EXIT_FORCED)
        log.info(
            "Processing signal '%s': stopping; containers keep running", signal.strsignal(number)
        )
        self._stop.set()

    def _on_reload(self) -> None:
        """A configuration that cannot be read, or a start not yet done, changes nothing."""
        if self._engine is None:
            log.warning("a reload before the start is complete is ignored")
            return
        self._notifier.reloading()
        try:
            self._apply(self._engine, reloaded(self._config, self._read_config()))
        except EngineError as error:
            log.error("reload refused, the old configuration holds: %s", error)
        except Exception:
            log.exception("reload failed, the old configuration holds")
        finally:
            self._notifier.ready("serving")

    def _apply(self, engine: Engine, change: Reload) -> None:
        for key in change.waiting:
            log.warning("the option %s has changed; it takes effect at the next start", key)
        engine.reload(change.config)
        self._config = change.config
        logs.set_level(change.config.log_level)
        log.info("Reloaded configuration: %s", ", ".join(change.changed) or "nothing has changed")

    async def _shut_down(self, engine: Engine | None, server: HttpServer | None) -> None:
        """Never takes for ever: after the deadline the process ends where it stands, even when
        the loop or a thread hangs, with all stacks on standard error."""
        self._notifier.stopping()
        deadline_s = self._config.shutdown_timeout_s + GRACE_S
        faulthandler.dump_traceback_later(deadline_s, exit=True)
        if server is not None:
            server.stop_accepting()
        if engine is not None:
            await self._stop_engine(engine)
        if server is not None:
            await server.close()
        log.info("Daemon shutdown complete")

    async def _stop_engine(self, engine: Engine) -> None:
        try:
            async with asyncio.timeout(self._config.shutdown_timeout_s):
                await engine.stop()
        except TimeoutError:
            log.warning("work under way did not end in time; the next start will recover it")
        except Exception:
            log.exception("stopping the engine failed; the next start will recover")
