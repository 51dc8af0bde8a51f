"""A container or an exec in the foreground: its streams, its terminal, its exit status.

For a container the attach and the wait are registered before the start, so nothing is lost of
one that ends at once. Both requests are on their way together, each on its own connection.
"""

from __future__ import annotations

from teu.cli.client import DaemonError
from teu.cli.session import Failure
from teu.cli.signals import SignalProxy, Wakeup, on_window_change, undo_before_death
from teu.cli.streams import Detached, Stream
from teu.cli.terminal import DEFAULT_DETACH_KEYS, KeyWatch, RawMode, parse_detach_keys, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from teu.cli.http1 import Response
    from teu.cli.session import Session

ENGINE_STATUS = 125
DETACHED = "read escape sequence"
REMOVAL_LIMIT_S = 10.0


class Front:
    """The terminal's side of an upgraded stream.

    path: the API object whose window size follows ours. tty: it has a terminal. stdin: ours is
    attached. Call `leave` at the end, whatever happens.
    """

    def __init__(
        self, session: Session, path: str, *, tty: bool, stdin: bool, detach_keys: str
    ) -> None:
        self._client = session.client
        self._path = path
        self._tty = tty
        self._stdin = stdin
        self._detach_keys = detach_keys or session.config.text("detachKeys")
        self._raw = RawMode(0)
        self._stream: Stream | None = None
        self._wakeup = Wakeup()

    def _open(self, response: Response) -> None:
        keys = KeyWatch(_keys(self._detach_keys)) if self._tty and self._stdin else None
        self._stream = Stream(response, raw=self._tty, keys=keys)

    def _enter_raw_mode(self) -> None:
        """Keys go to the container as they are typed, until `leave`."""
        if self._tty and self._stdin:
            undo_before_death(self._raw.restore)
            self._raw.enter()

    def _run(self) -> None:
        """Copies until the other side closes its output. Raises: Detached, Failure."""
        stream = self._stream
        assert stream is not None
        if self._tty:
            on_window_change(self._resize)  # first, so that no change is lost in between
            self._resize()
        if self._stdin:
            stream.start_input()
        try:
            stream.copy_output(self._wakeup.wait_readable)
        finally:
            self._raw.restore()

    def _resize(self) -> None:
        """Hands on the size of our window. A failure is not worth an error."""
        rows, columns = size()
        if not rows and not columns:
            return
        try:
            self._client.post(f"{self._path}/resize", {"h": rows, "w": columns})
        except Failure:
            pass

    def _leave(self) -> None:
        """Gives the terminal back and closes the stream, whatever happened before."""
        self._raw.restore()
        if self._stream is not None:
            self._stream.close()


class ContainerFront(Front):
    """A container in the foreground: `supervise` starts it, `join` finds it running.

    stdin, stdout, stderr: what to attach.
    """

    def __init__(
        self,
        session: Session,
        container: str,
        *,
        tty: bool,
        stdin: bool,
        stdout: bool = True,
        stderr: bool = True,
        detach_keys: str = "",
    ) -> None:
        path = f"/containers/{container}"
        super().__init__(session, path, tty=tty, stdin=stdin, detach_keys=detach_keys)
        self._streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        self._exit: Response | None = None

    def supervise(self, condition: str, *, proxy: bool) -> int:
        """Attaches, starts the container and stays with it; its exit status (0 if detached).

        condition: "next-exit", or "removed" for a container that removes itself.
        proxy: hand signals on to the container. Raises: DaemonError, Failure.
        """
        try:
            self._request(condition)
            self._enter_raw_mode()
            started = self._proxy_signals() if proxy else None
            self._start(condition)
            if started:
                started()
            self._run()
            return self._exit_status()
        except Detached:
            return 0
        finally:
            self._leave()

    def join(self, *, proxy: bool) -> int:
        """Attaches to a container that runs already; its exit status.

        Raises: DaemonError, Failure (also when the user detached, as Docker does).
        """
        try:
            self._request("")
            self._enter_raw_mode()
            if proxy:
                self._proxy_signals()()
            self._run()
            return self._exit_status()
        except Detached:
            raise Failure(DETACHED) from None
        finally:
            self._leave()

    def _request(self, condition: str) -> None:
        query = {"stream": True, "detachKeys": self._detach_keys or None, **self._streams}
        attached = self._client.upgrade(f"{self._path}/attach", query)
        waiting = self._client.open("POST", f"{self._path}/wait", {"condition": condition or None})
        self._open(attached())
        self._exit = self._client.check(waiting())

    def _start(self, condition: str) -> None:
        try:
            self._client.post(f"{self._path}/start")
        except DaemonError:
            if condition == "removed":
                self._await_removal()
            raise

    def _await_removal(self) -> None:
        """The daemon removes what could not start; its name is free for the next try then."""
        self._await_end(REMOVAL_LIMIT_S)

    def _await_end(self, limit_s: float | None = None) -> None:
        """Returns when the daemon has told (or begun to tell) how the container ended."""
        assert self._exit is not None
        connection = self._exit.connection
        if connection.is_drained():
            self._wakeup.wait_readable(connection.sock.fileno(), limit_s)

    def _exit_status(self) -> int:
        """Waits for the container's end; its exit status. Raises: Failure (status 125)."""
        self._await_end()
        assert self._exit is not None
        answer = self._client.finish_json(self._exit)
        if not isinstance(answer, dict):
            raise Failure(
                "error waiting for container: the daemon ended the connection; "
                "the container may still run",
                ENGINE_STATUS,
            )
        error = answer.get("Error") or {}
        if error.get("Message"):
            raise Failure(f"Error waiting for container: {error['Message']}", ENGINE_STATUS)
        return int(answer.get("StatusCode", 0))

    def _proxy_signals(self) -> Callable[[], None]:
        """Hands signals on to the container; call the result when it has started."""
        proxy = SignalProxy(self._kill, self._give_up)
        proxy.install()
        return proxy.open

    def _kill(self, name: str) -> None:
        try:
            self._client.post(f"{self._path}/kill", {"signal": name})
        except Failure:
            pass  # it has ended already: the wait tells

    def _give_up(self) -> None:
        import os

        self._raw.restore()
        os.write(2, b"\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n")
        os._exit(1)


class ExecFront(Front):
    """A command run in a container, in the foreground."""

    def __init__(
        self, session: Session, exec_id: str, *, tty: bool, stdin: bool, detach_keys: str
    ) -> None:
        path = f"/exec/{exec_id}"
        super().__init__(session, path, tty=tty, stdin=stdin, detach_keys=detach_keys)

    def supervise(self, console_size: list[int] | None) -> int:
        """Starts the command and stays with it; its exit status. Raises: DaemonError, Failure."""
        body: dict[str, Any] = {"Detach": False, "Tty": self._tty}
        if console_size:
            body["ConsoleSize"] = console_size
        try:
            self._open(self._client.upgrade(f"{self._path}/start", body=body)())
            self._enter_raw_mode()
            self._run()
        except Detached:
            raise Failure(DETACHED) from None
        finally:
            self._leave()
        return int(self._client.get(f"{self._path}/json")["ExitCode"] or 0)


def _keys(text: str) -> bytes:
    try:
        return parse_detach_keys(text or DEFAULT_DETACH_KEYS)
    except ValueError:
        return parse_detach_keys(DEFAULT_DETACH_KEYS)  # the daemon reports the wrong ones
