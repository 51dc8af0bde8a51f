"""`teud`: the daemon's process, from the command line to the exit status.

0  stopped by a signal, or --help, --version, --validate
1  refused to start; the reason is the last line on standard error
"""

import asyncio
import faulthandler
import logging
import os
import resource
import sys
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path

import uvloop

from teu import __version__
from teu.daemon import logs
from teu.daemon.commandline import BadCommandLine, Program, help_text, parse, program_for
from teu.daemon.config import DaemonConfig
from teu.daemon.load import Loaded, load
from teu.daemon.lock import Claim
from teu.daemon.service import Engine, Service
from teu.errors import EngineError

UMASK = 0o022
EXIT_REFUSED = 1
EngineFactory = Callable[[DaemonConfig], Engine]
log = logging.getLogger(__name__)


def main() -> int:
    """The entry point of the `teud` command."""
    return run(sys.argv[1:], program_for(sys.argv[0]), os.environ, _make_engine)


def _make_engine(config: DaemonConfig) -> Engine:
    from teu.daemon.app import Daemon

    return Daemon(config)


def run(
    words: Sequence[str],
    program: Program,
    environ: MutableMapping[str, str],
    make_engine: EngineFactory,
) -> int:
    """The whole life of the process; returns the exit status."""
    try:
        line = parse(words, program)
        if line.help:
            print(help_text(program), end="")
            return 0
        if line.version:
            print(f"{program.name} version {__version__}")
            return 0

        def read() -> Loaded:
            return load(line, program, environ)

        loaded = read()
        if line.validate:
            print("configuration OK", file=sys.stderr)
            return 0
        return _serve(loaded, program, environ, make_engine, lambda: read().config)
    except BadCommandLine as error:
        print(
            f"{program.name}: {error}" if "accepts no" in error.message else error, file=sys.stderr
        )
    except EngineError as error:
        print(f"failed to start daemon: {error}", file=sys.stderr)
    return EXIT_REFUSED


def _serve(
    loaded: Loaded,
    program: Program,
    environ: MutableMapping[str, str],
    make_engine: EngineFactory,
    read_config: Callable[[], DaemonConfig],
) -> int:
    config = loaded.config
    _demand_root(program)
    _prepare_process(config, environ)
    for note in loaded.notes:
        log.info(note)
    held = Claim(config)
    try:
        log.info(
            "Starting up: teu %s, pid %d, data root %s", __version__, os.getpid(), config.data_root
        )

        async def life() -> None:
            await Service(config, program, make_engine, read_config, environ).run()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(life())
    finally:
        held.release()
    return 0


def _demand_root(program: Program) -> None:
    if os.geteuid() != 0:
        raise EngineError(
            f"{program.name} needs to be started with root privileges: it mounts file systems and "
            f"makes networks. Use `sudo {program.name}`, or start the service"
        )


def _prepare_process(config: DaemonConfig, environ: MutableMapping[str, str]) -> None:
    logs.configure(config.log_level, config.log_format)
    faulthandler.enable()
    os.umask(UMASK)
    os.chdir("/")  # never keeps the caller's file system busy
    _raise_descriptor_limit()
    _set_proxies(config, environ)
    if config.oom_score_adjust is not None:
        try:
            Path("/proc/self/oom_score_adj").write_text(str(config.oom_score_adjust))
        except OSError as error:
            log.warning("oom-score-adjust is not set: %s", error.strerror)


def _set_proxies(config: DaemonConfig, environ: MutableMapping[str, str]) -> None:
    """Into the environment, where the registry client (and every library) looks for them."""
    names = {"http_proxy": config.http_proxy, "https_proxy": config.https_proxy}
    for name, value in (names | {"no_proxy": config.no_proxy}).items():
        if value:
            environ[name] = environ[name.upper()] = value


def _raise_descriptor_limit() -> None:
    """To the hard limit: every container and every client holds a few descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
