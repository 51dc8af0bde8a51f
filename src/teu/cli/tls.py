"""TLS to a daemon, behind a local socket pair.

Everything else in the command line works with plain descriptors and reads and writes from two
threads at once, which one TLS session does not allow. A thread owns the session and relays; its
other end is an ordinary socket, with half-close in both directions.
"""

from __future__ import annotations

import _socket
import _thread
import select
import socket
import ssl

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.endpoint import Endpoint, TlsFiles

_PIECE = 1 << 16


def relay(sock: _socket.socket, endpoint: Endpoint, files: TlsFiles) -> _socket.socket:
    """A plain socket whose other end speaks TLS over `sock`. Raises: Failure."""
    try:
        context = _context(files)
        plain = socket.socket(fileno=sock.detach())
        secure = context.wrap_socket(plain, server_hostname=endpoint.address)
    except (OSError, ssl.SSLError) as error:
        raise Failure(
            f"error during connect: TLS with {endpoint.url} failed: {error}. "
            "Check the certificates in DOCKER_CERT_PATH and DOCKER_TLS_VERIFY"
        ) from error
    ours, theirs = socket.socketpair()
    secure.setblocking(False)
    theirs.setblocking(False)
    _thread.start_new_thread(_Relay(secure, theirs).run, ())
    return _socket.socket(fileno=ours.detach())


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.verify or files.ca:
        context.load_verify_locations(files.ca or None)
        if not files.ca:
            context.load_default_certs()
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.cert:
        context.load_cert_chain(files.cert, files.key or None)
    return context


class _Relay:
    """Moves bytes both ways until both directions have ended."""

    def __init__(self, secure: ssl.SSLSocket, plain: socket.socket) -> None:
        self._secure = secure
        self._plain = plain
        self._to_secure = b""
        self._to_plain = b""
        self._plain_open = True
        self._secure_open = True

    def run(self) -> None:
        try:
            while self._secure_open or self._to_plain:
                self._wait()
                self._read_plain()
                self._write_secure()
                self._read_secure()
                self._write_plain()
        except OSError:
            pass  # either end is gone: closing both tells the other
        finally:
            self._plain.close()
            self._secure.close()

    def _wait(self) -> None:
        poll = select.poll()
        wanted = select.POLLIN if self._secure_open and not self._to_plain else 0
        if self._to_secure:
            wanted |= select.POLLOUT
        poll.register(self._secure, wanted)
        wanted = select.POLLIN if self._plain_open and not self._to_secure else 0
        if self._to_plain:
            wanted |= select.POLLOUT
        if wanted:
            poll.register(self._plain, wanted)
        poll.poll(0 if self._secure.pending() and not self._to_plain else None)

    def _read_plain(self) -> None:
        if not self._plain_open or self._to_secure:
            return
        try:
            self._to_secure = self._plain.recv(_PIECE)
        except BlockingIOError:
            return
        if not self._to_secure:
            self._plain_open = False
            self._send_close()

    def _send_close(self) -> None:
        """close_notify: the daemon sees the end of our stdin and goes on sending."""
        try:
            self._secure.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass  # sent; the daemon's own close_notify comes with its end
        except (ssl.SSLError, OSError):
            self._secure_open = False

    def _write_secure(self) -> None:
        while self._to_secure:
            try:
                sent = self._secure.send(self._to_secure)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            self._to_secure = self._to_secure[sent:]

    def _read_secure(self) -> None:
        if not self._secure_open or self._to_plain:
            return
        try:
            self._to_plain = self._secure.recv(_PIECE)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except ssl.SSLError:
            self._to_plain = b""
        if not self._to_plain:
            self._secure_open = False
            self._plain.shutdown(socket.SHUT_WR)

    def _write_plain(self) -> None:
        while self._to_plain:
            try:
                sent = self._plain.send(self._to_plain)
            except BlockingIOError:
                return
            self._to_plain = self._to_plain[sent:]
