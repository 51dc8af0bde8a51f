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
_NOT_NOW = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


def relay(sock: _socket.socket, endpoint: Endpoint, files: TlsFiles) -> _socket.socket:
    """A plain socket whose other end speaks TLS over `sock`. Raises: Failure."""
    try:
        session = _Session(sock, _context(files), endpoint.address)
        session.shake_hands()
    except (OSError, ssl.SSLError) as error:
        sock.close()
        raise Failure(
            f"error during connect: TLS with {endpoint.url} failed: {error}. "
            "Check the certificates in DOCKER_CERT_PATH and DOCKER_TLS_VERIFY"
        ) from error
    ours, theirs = socket.socketpair()
    _thread.start_new_thread(_Relay(session, theirs).run, ())
    return _socket.socket(fileno=ours.detach())


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.ca:
        context.load_verify_locations(files.ca)
    elif files.verify:
        context.load_default_certs()
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.cert:
        context.load_cert_chain(files.cert, files.key or None)
    return context


class _Session:
    """TLS over buffers of our own.

    Why not `wrap_socket`: its `unwrap`, the only way to send close_notify, reads on and fails if
    the daemon's answer is there already. Here it finds nothing to read.
    """

    def __init__(self, sock: _socket.socket, context: ssl.SSLContext, host: str) -> None:
        self.sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.unsent = b""
        self.ended = False

    def shake_hands(self) -> None:
        """Blocks. Raises: ssl.SSLError, OSError."""
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.sock.sendall(self._outgoing.read())
                self._take(self.sock.recv(_PIECE))
        self.unsent = self._outgoing.read()
        self.sock.setblocking(False)

    def _take(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def receive(self) -> bytes:
        """What has arrived, decrypted; b"" for nothing yet. Sets `ended` at the end."""
        try:
            self._take(self.sock.recv(_PIECE))
        except BlockingIOError:
            return b""
        return self._decrypt()

    def _decrypt(self) -> bytes:
        parts = []
        try:
            while part := self._tls.read(_PIECE):
                parts.append(part)
            self.ended = True
        except _NOT_NOW:
            pass
        except ssl.SSLError:
            self.ended = True
        self.unsent += self._outgoing.read()
        return b"".join(parts)

    def encrypt(self, data: bytes) -> None:
        self._tls.write(data)
        self.unsent += self._outgoing.read()

    def end(self) -> None:
        """close_notify: the daemon sees the end of our stdin and goes on sending."""
        try:
            self._tls.unwrap()
        except _NOT_NOW:
            pass  # it is in the buffer; the daemon's own comes with its end
        except ssl.SSLError:
            self.ended = True
        self.unsent += self._outgoing.read()

    def send(self) -> None:
        if self.unsent:
            try:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
            except BlockingIOError:
                pass


class _Relay:
    """Moves bytes both ways until the daemon has ended and all of its words are handed on."""

    def __init__(self, session: _Session, plain: socket.socket) -> None:
        self._session = session
        self._plain = plain
        self._plain.setblocking(False)
        self._plain_open = True
        self._to_plain = b""

    def run(self) -> None:
        try:
            while not self._session.ended or self._to_plain:
                self._wait()
                self._read_plain()
                self._session.send()
                if not self._to_plain and not self._session.ended:
                    self._to_plain = self._session.receive()
                self._write_plain()
        except (OSError, ssl.SSLError):
            pass  # either end is gone: closing both tells the other
        finally:
            self._plain.close()
            self._session.sock.close()

    def _wait(self) -> None:
        session = self._session
        wanted = 0 if session.ended or self._to_plain else select.POLLIN
        poll = select.poll()
        poll.register(session.sock.fileno(), wanted | (select.POLLOUT if session.unsent else 0))
        wanted = select.POLLIN if self._plain_open and not session.unsent else 0
        if self._to_plain:
            wanted |= select.POLLOUT
        if wanted:
            poll.register(self._plain.fileno(), wanted)
        poll.poll()

    def _read_plain(self) -> None:
        if not self._plain_open or self._session.unsent:
            return
        try:
            data = self._plain.recv(_PIECE)
        except BlockingIOError:
            return
        if data:
            self._session.encrypt(data)
        else:
            self._plain_open = False
            self._session.end()

    def _write_plain(self) -> None:
        while self._to_plain:
            try:
                sent = self._plain.send(self._to_plain)
            except BlockingIOError:
                return
            self._to_plain = self._to_plain[sent:]
