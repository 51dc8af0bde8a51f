"""TLS to a log server; imported only in shims that use it."""

import socket
import ssl
from typing import Any

from teu.shim.loop import READ, WRITE
from teu.shim.resolve import LogServerError


class Tls:
    """`options`: ca, cert, key (paths), skip_verify. Raises: LogServerError."""

    def __init__(self, options: dict[str, Any], host: str) -> None:
        self._host = host
        self._context = ssl.create_default_context()
        if options.get("skip_verify"):
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE
        elif ca := options.get("ca"):
            try:
                self._context = ssl.create_default_context(cafile=ca)
            except OSError as error:
                text = f'could not read CA certificate "{ca}": {error.strerror or error}'
                raise LogServerError(text) from error
        if options.get("cert") or options.get("key"):
            try:
                self._context.load_cert_chain(options["cert"], options.get("key"))
            except OSError as error:
                text = f"could not load X509 key pair: {error.strerror or error}"
                raise LogServerError(text) from error

    def wrap(self, sock: socket.socket) -> socket.socket:
        return self._context.wrap_socket(
            sock, server_hostname=self._host, do_handshake_on_connect=False
        )

    def shake_hands(self, sock: socket.socket) -> int:
        assert isinstance(sock, ssl.SSLSocket)
        try:
            sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            return self.waits_for(error)
        return 0

    def waits_for(self, error: OSError) -> int:
        if isinstance(error, ssl.SSLWantReadError):
            return READ
        return WRITE if isinstance(error, ssl.SSLWantWriteError) else 0
