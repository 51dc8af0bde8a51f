"""The registry server's process: `python -m teu.distribution.main OPTIONS` (options.py).

0  stopped by TERM or INT.  1  refused to start; the reason is on standard error.
Not on uvloop: asyncio's own loop hands blobs to sendfile(2).
"""

import asyncio
import contextlib
import logging
import signal
import ssl
import sys
from collections.abc import Sequence

from aiohttp import web

from teu.distribution.access import Access
from teu.distribution.collect import Retention, collect
from teu.distribution.notify import Notifier
from teu.distribution.options import Options
from teu.distribution.pullthrough import PullThrough
from teu.distribution.registry import Registry
from teu.distribution.server import Server
from teu.errors import EngineError, InvalidParameter, SystemFailure
from teu.registry.client import RegistryClient
from teu.registry.config import RegistryConfig

READ_BUFFER_BYTES = 1 << 18
KEEPALIVE_S = 75.0
STOP_LIMIT_S = 5.0
BACKLOG = 1024
log = logging.getLogger(__name__)


def main(words: Sequence[str]) -> int:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("aiohttp.server").disabled = True  # tracebacks of what clients did wrong
    try:
        asyncio.run(_run(Options.parse(words[0])))
    except EngineError as error:
        print(f"teu registry: {error.message}", file=sys.stderr)
        return 1
    return 0


async def _run(options: Options) -> None:
    access = Access(options.htpasswd, options.rules, tokens=options.tokens)
    tls = _tls(options)
    async with contextlib.AsyncExitStack() as stack:
        registry = _open(options)
        stack.callback(registry.close)
        notifier = Notifier(options.notify)
        notifier.start()
        stack.push_async_callback(notifier.close)
        upstream = None
        if options.proxy:
            insecure = [options.proxy] if options.insecure_proxy else []
            client = RegistryClient(RegistryConfig(insecure=insecure))
            stack.push_async_callback(client.close)
            upstream = PullThrough(registry, client, options.proxy)
        audit = None
        if options.audit_log:
            audit = stack.enter_context(options.audit_log.open("a"))
        server = Server(
            registry,
            access,
            notifier,
            upstream=upstream,
            read_only=options.read_only,
            rate=options.rate,
            audit=audit,
        )
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        collector = asyncio.create_task(_collect_often(registry, options))
        stack.callback(collector.cancel)
        await _serve(server, options, tls, stopped)


def _open(options: Options) -> Registry:
    try:
        return Registry(options.root, quota_bytes=options.quota)
    except OSError as error:
        raise SystemFailure(f"cannot use {options.root}: {error.strerror}") from error


async def _serve(
    server: Server, options: Options, tls: ssl.SSLContext | None, stopped: asyncio.Event
) -> None:
    runner = web.ServerRunner(
        web.Server(
            server.handle,
            access_log=None,
            read_bufsize=READ_BUFFER_BYTES,
            keepalive_timeout=KEEPALIVE_S,
        ),
        shutdown_timeout=STOP_LIMIT_S,
    )
    await runner.setup()
    host, port = options.address()
    site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=BACKLOG)
    try:
        await site.start()
    except OSError as error:
        raise SystemFailure(f"cannot listen on {options.listen}: {error.strerror}") from error
    scheme = "https" if tls else "http"
    for address in runner.addresses:
        log.info("serving on %s://%s:%d", scheme, *address[:2])
    try:
        await stopped.wait()
    finally:
        await runner.cleanup()


async def _collect_often(registry: Registry, options: Options) -> None:
    retention = Retention(options.keep_last, options.keep_days, options.keep_matching)
    while True:
        try:
            await collect(registry, retention)
        except (EngineError, OSError):
            log.exception("the garbage collection failed; it will be tried again")
        await asyncio.sleep(options.collect_every)


def _tls(options: Options) -> ssl.SSLContext | None:
    if not options.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidParameter(
            f"cannot use the certificate {options.tls_cert} with {options.tls_key}: {error}"
        ) from error
    return context


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
