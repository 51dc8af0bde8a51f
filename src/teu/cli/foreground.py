"""A container in the foreground: attach, wait, start, and the streams between.

The attach and the wait are registered before the start, so nothing is lost of a container that
ends at once. Both requests are on their way together; each has a connection of its own.
"""

from __future__ import annotations

from teu.cli.client import DaemonError
from teu.cli.session import Failure
from teu.cli.streams import Detached, Stream
from teu.cli.terminal import DEFAULT_DETACH_KEYS, KeyWatch, RawMode, parse_detach_keys, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from teu.cli.http1 import Response
    from teu.cli.session import Session


class Foreground:
    """One attached container. `supervise` is the whole story; start and attach use its parts.

    tty: the container has a terminal. stdin, stdout, stderr: what to attach.
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
        self._client = session.client
        self._container = container
        self._tty = tty
        self._streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        self._detach_keys = detach_keys or session.config.text("detachKeys")
        self._raw = RawMode(0)
        self._stream: Stream | None = None
        self._exit: Response | None = None

    def request(self, condition: str) -> None:
        """Attaches and asks for the exit status; returns when the daemon has both.

        condition: "next-exit", "removed", or "" for a container that runs already.
        Raises: DaemonError, Failure.
        """
        path = f"/containers/{self._container}"
        query = {"stream": True, "detachKeys": self._detach_keys or None, **self._streams}
        attached = self._client.upgrade(f"{path}/attach", query)
        waiting = self._client.open("POST", f"{path}/wait", {"condition": condition or None})
        keys = None
        if self._tty and self._streams["stdin"]:
            keys = KeyWatch(_keys(self._detach_keys))
        self._stream = Stream(attached(), raw=self._tty, keys=keys)
        self._exit = self._client.check(waiting())

    def supervise(self, condition: str, *, proxy: bool) -> int:
        """Attaches, starts the container and stays with it; its exit status (0 if detached).

        proxy: hand signals on to the container. Raises: DaemonError, Failure.
        """
        try:
            self.request(condition)
            self.enter_raw_mode()
            started = self._proxy_signals() if proxy else None
            try:
                self._client.post(f"/containers/{self._container}/start")
            except DaemonError:
                if condition == "removed":
                    self._await_removal()
                raise
            if started:
                started()
            self.run()
            return self.exit_status()
        except Detached:
            return 0
        finally:
            self.leave()

    def _proxy_signals(self) -> Callable[[], None]:
        """Hands signals on to the container; call the result when it has started."""
        from teu.cli.signals import SignalProxy

        proxy = SignalProxy(self._kill, self._give_up)
        proxy.install()
        return proxy.open

    def _await_removal(self) -> None:
        """A container that could not start is removed by the daemon: its name is free then."""
        try:
            self.exit_status()
        except Failure:
            pass

    def enter_raw_mode(self) -> None:
        """Keys go to the container as they are typed. Undone by `run` and `leave`."""
        if self._tty and self._streams["stdin"]:
            from teu.cli.signals import undo_before_death

            undo_before_death(self._raw.restore)
            self._raw.enter()

    def leave(self) -> None:
        """Gives the terminal back and closes the stream, whatever happened before."""
        self._raw.restore()
        if self._stream is not None:
            self._stream.close()

    def run(self) -> None:
        """Copies until the container closes its output. Raises: Detached, Failure."""
        stream = self._stream
        assert stream is not None
        if self._tty:
            self._follow_window()
        if self._streams["stdin"]:
            stream.start_input()
        try:
            stream.copy_output()
        finally:
            self._raw.restore()

    def exit_status(self) -> int:
        """Waits for the container's end; its exit status. Raises: Failure (status 125)."""
        assert self._exit is not None
        answer = self._client.finish_json(self._exit)
        error = answer.get("Error") or {}
        if error.get("Message"):
            raise Failure(f"Error waiting for container: {error['Message']}", 125)
        return int(answer.get("StatusCode", 0))

    def _follow_window(self) -> None:
        from teu.cli.signals import on_window_change

        self.resize()
        on_window_change(self.resize)

    def resize(self) -> None:
        """Tells the container the size of our window. A failure is not worth an error."""
        rows, columns = size()
        if not rows and not columns:
            return
        try:
            self._client.post(f"/containers/{self._container}/resize", {"h": rows, "w": columns})
        except Failure:
            pass

    def _kill(self, name: str) -> None:
        try:
            self._client.post(f"/containers/{self._container}/kill", {"signal": name})
        except Failure:
            pass  # it has ended already: the wait tells

    def _give_up(self) -> None:
        import os

        self._raw.restore()
        os.write(2, b"\ngot 3 SIGTERM/SIGINTs, forcefully exiting\n")
        os._exit(1)


def _keys(text: str) -> bytes:
    try:
        return parse_detach_keys(text or DEFAULT_DETACH_KEYS)
    except ValueError:
        return parse_detach_keys(DEFAULT_DETACH_KEYS)  # the daemon reports the wrong ones
