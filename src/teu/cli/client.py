"""The daemon's API over HTTP: versions, JSON, errors as Docker prints them, upgraded streams.

No round trip is spent on negotiation: requests go to `/v1.51`; a daemon that finds this too new
says so together with its own version, and the request is sent again with that one.
"""

from __future__ import annotations

import os

from teu import __version__
from teu.cli.http1 import SWITCHING, Connection, ProtocolError, Response
from teu.cli.jsontext import dumps, loads
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from teu.cli.endpoint import Endpoint

    Query = Mapping[str, str | int | bool | list[str] | None]
    Body = bytes | Iterable[bytes] | dict[str, Any] | list[Any] | None

API_VERSION = "1.51"
MINIMUM_API_VERSION = "1.24"
NOT_MODIFIED = 304
BAD_REQUEST = 400
UNAUTHORIZED = 401
NOT_FOUND = 404
CONFLICT = 409
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


class DaemonError(Failure):
    """The daemon refused. `reason` is its text, `http_status` its answer's status."""

    def __init__(self, reason: str, http_status: int) -> None:
        super().__init__(f"Error response from daemon: {reason}")
        self.reason = reason
        self.http_status = http_status

    @property
    def is_missing(self) -> bool:
        return self.http_status == NOT_FOUND

    @property
    def is_unauthorized(self) -> bool:
        return self.http_status == UNAUTHORIZED

    @property
    def is_conflict(self) -> bool:
        return self.http_status == CONFLICT


class Client:
    """One daemon. Keeps idle connections for the next request; not for use by two threads.

    version: API version in use; falls when the daemon turns out to be older. Before anything is
    sent again with an older version, `on_older` is told, so that options which that version
    would silently ignore can be refused.
    """

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str] | None = None) -> None:
        self.endpoint = endpoint
        self.version = os.environ.get("DOCKER_API_VERSION") or API_VERSION
        self.on_older: Callable[[str], None] | None = None
        self._pinned = "DOCKER_API_VERSION" in os.environ
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._common = f"Host: docker\r\nUser-Agent: teu/{__version__} (linux)\r\n{extra}"
        self._idle: list[Connection] = []

    def get(self, path: str, query: Query | None = None) -> Any:
        """The JSON answer to GET. Raises: DaemonError, Failure."""
        return self.finish_json(self.request("GET", path, query))

    def post(self, path: str, query: Query | None = None, body: Body = None) -> Any:
        """The JSON answer to POST, None when it has no body. Raises: DaemonError, Failure."""
        return self.finish_json(self.request("POST", path, query, body))

    def delete(self, path: str, query: Query | None = None) -> Any:
        """The JSON answer to DELETE, None when it has no body. Raises: DaemonError, Failure."""
        return self.finish_json(self.request("DELETE", path, query))

    def stream(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Any]:
        """The JSON objects of a streamed answer, as they arrive."""
        return self.objects(self.request(method, path, query, body, headers))

    def objects(self, response: Response) -> Iterator[Any]:
        """The JSON objects of a body, one a line, as they arrive. Raises: Failure."""
        for line in self.lines(response):
            yield self._parse(line)

    def lines(self, response: Response) -> Iterator[bytes]:
        """The lines of a body, as they arrive. Raises: Failure."""
        try:
            yield from response.lines()
        except (OSError, ProtocolError) as error:
            raise self._broken(error) from error

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Sends a request and returns the answer with its body unread.

        An iterable `body` is sent chunked and only once, so the daemon's version is asked
        first. Read the whole body, or call `close` on `response.connection`.
        Raises: DaemonError (status 400 and up), Failure (no daemon, broken connection).
        """
        if body is not None and not isinstance(body, bytes | dict | list):
            self.negotiate()
        response = self.open(method, path, query, body, headers)()
        if response.status >= BAD_REQUEST:
            raise self._error(response)
        return response

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
    ) -> Callable[[], Response]:
        """Sends a request; the returned function waits for the answer (whatever its status).

        So several requests, each on its own connection, can be on their way at once.
        """
        connection = self._send(method, path, query, body, headers)
        version = self.version

        def answer() -> Response:
            response = self._receive(connection, method)
            if response.status == BAD_REQUEST and self._falls_back(response, version):
                again = self._send(method, path, query, body, headers)
                response = self._receive(again, method)
            return response

        return answer

    def upgrade(
        self, path: str, query: Query | None = None, body: Body = None
    ) -> Callable[[], Response]:
        """`open` for a POST that turns the connection into a two-way stream.

        The returned function raises DaemonError; the stream starts with what `connection` of
        the response has buffered.
        """
        answer = self.open("POST", path, query, body, {"Connection": "Upgrade", "Upgrade": "tcp"})

        def upgraded() -> Response:
            response = answer()
            if response.status not in (SWITCHING, 200):
                raise self._error(response)
            return response

        return upgraded

    def check(self, response: Response) -> Response:
        """The response itself. Raises: DaemonError when its status says failure."""
        if response.status >= BAD_REQUEST:
            raise self._error(response)
        return response

    def finish(self, response: Response) -> bytes:
        """Reads the body and keeps the connection for the next request.

        Raises: DaemonError, Failure.
        """
        self.check(response)
        try:
            body = response.read()
        except (OSError, ProtocolError) as error:
            raise self._broken(error) from error
        self._release(response)
        return body

    def copy(self, response: Response, write: Callable[[bytes], object]) -> None:
        """Hands the body to `write` as it arrives. Raises: Failure when it breaks off."""
        chunks = response.chunks()
        while True:
            try:
                data = next(chunks, b"")
            except (OSError, ProtocolError) as error:
                raise self._broken(error) from error
            if not data:
                break
            write(data)
        self._release(response)

    def negotiate(self) -> None:
        """Asks the daemon for its version, once, before something that cannot be sent twice."""
        if self._pinned:
            return
        response = self._receive(self._send("HEAD", "", None, None, None, "/_ping"), "HEAD")
        self._release(response)
        self._adopt(response.headers.get("api-version", ""))

    def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Body,
        headers: Mapping[str, str] | None,
        target: str = "",
    ) -> Connection:
        connection = self._connect()
        lines = [
            f"{method} {target or f'/v{self.version}{path}'}{encode_query(query)} HTTP/1.1\r\n"
        ]
        lines.append(self._common)
        if isinstance(body, dict | list):
            body = dumps(body).encode("utf-8", "surrogateescape")
            lines.append("Content-Type: application/json\r\n")
        if headers:
            lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if body is None or isinstance(body, bytes):
            if body or method == "POST":
                lines.append(f"Content-Length: {len(body or b'')}\r\n")
        else:
            lines.append("Transfer-Encoding: chunked\r\n")
        lines.append("\r\n")
        try:
            connection.send("".join(lines).encode(), body or b"")
        except OSError as error:
            raise self._broken(error) from error
        return connection

    def _connect(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_alive():
                return connection
            connection.close()
        from teu.cli.dial import dial

        return Connection(dial(self.endpoint))

    def _receive(self, connection: Connection, method: str) -> Response:
        try:
            return connection.read_response(method)
        except (OSError, ProtocolError) as error:
            raise self._broken(error) from error

    def _release(self, response: Response) -> None:
        if response.reusable:
            self._idle.append(response.connection)
        else:
            response.connection.close()

    def finish_json(self, response: Response) -> Any:
        """`finish`, decoded; None for an empty body."""
        body = self.finish(response)
        return self._parse(body) if body.strip() else None

    def _parse(self, text: bytes) -> Any:
        try:
            return loads(text)
        except ValueError as error:
            raise Failure(f"the daemon at {self.endpoint.url} sent bad JSON: {error}") from error

    def _error(self, response: Response) -> DaemonError:
        try:
            text = response.read().decode("utf-8", "replace").strip()
            self._release(response)
        except (OSError, ProtocolError):
            text = ""
        try:
            body = loads(text)
        except ValueError:
            body = None
        if isinstance(body, dict) and isinstance(body.get("message"), str):
            text = body["message"]
        return DaemonError(text or f"request returned status {response.status}", response.status)

    def _falls_back(self, response: Response, sent: str) -> bool:
        """True when the daemon refused the version `sent` and its own one is now in use."""
        theirs = response.headers.get("api-version", "")
        if self._pinned or not theirs or not _older(theirs, sent):
            return False
        self._release_body(response)
        self._adopt(theirs)
        return True

    def _adopt(self, version: str) -> None:
        if not version or not _older(version, self.version):
            return
        if _older(version, MINIMUM_API_VERSION):
            raise Failure(
                f"the daemon at {self.endpoint.url} speaks API version {version}; "
                f"at least {MINIMUM_API_VERSION} is needed: upgrade the daemon"
            )
        self.version = version
        if self.on_older:
            self.on_older(version)

    def _release_body(self, response: Response) -> None:
        try:
            response.read()
        except (OSError, ProtocolError):
            response.connection.close()
        else:
            self._release(response)

    def _broken(self, error: Exception) -> Failure:
        return Failure(
            f"error during connect: the connection to {self.endpoint.url} broke: {error}. "
            "The daemon may have been stopped; its log says more"
        )


def encode_query(query: Query | None) -> str:
    """`?a=1&b=x%2Fy`, "" for nothing. None and False are left out, True is 1, lists repeat."""
    if not query:
        return ""
    pairs = []
    for name, value in query.items():
        if value is None or value is False:
            continue
        values = value if isinstance(value, list) else ["1" if value is True else str(value)]
        pairs += [f"{name}={escape(one)}" for one in values]
    return "?" + "&".join(pairs) if pairs else ""


def escape(text: str) -> str:
    """`text` percent-encoded for a query value or one path segment."""
    raw = text.encode("utf-8", "surrogateescape")
    if _PLAIN.issuperset(raw):
        return text
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw)


def _older(left: str, right: str) -> bool:
    return _numbers(left) < _numbers(right)


def _numbers(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]
