"""One `logs` request, in a process of its own that writes straight to the client's socket.

    Request = {"path", "stdout", "stderr", "since_ns", "until_ns", "tail" (-1: all), "follow",
               "timestamps", "details", "multiplexed", "by_line", "http_chunked",
               "exit_directory"}

The daemon has sent the HTTP head. Ends after the last line, when following after the last line
that was written before `exit.json` appeared, or when the client goes.
"""

import os
import socket
import time

from teu.shim.decode import Renderer
from teu.shim.logsource import LogFiles, LogPart, Watcher, keep_tail, written_since
from teu.shim.wire import Message


class LogReader:
    """Owns `fds[0]`, the client's socket."""

    def __init__(self, request: Message, fds: list[int]) -> None:
        self._request = request
        self._socket = socket.socket(fileno=fds[0])
        self._socket.setblocking(True)
        self._chunked = bool(request.get("http_chunked"))
        self._renderer = Renderer(request)
        self._files = LogFiles(request["path"])
        self._until_ns = int(request.get("until_ns") or 0)
        self._current: LogPart | None = None

    def run(self) -> None:
        try:
            try:
                self._copy()
            except (OSError, ValueError) as error:
                if isinstance(error, ConnectionError):
                    return
                self._send(self._renderer.error(str(error)))
            if self._chunked:
                self._socket.sendall(b"0\r\n\r\n")
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the client has gone
        finally:
            if self._current is not None:
                self._current.close()
            self._socket.close()

    def _copy(self) -> None:
        if not self._request.get("follow"):
            self._copy_existing()
            return
        watcher = self._watch()  # first watch, then look: nothing is missed
        try:
            self._copy_existing()
            while True:
                ended = self._ended()
                self._copy_new()
                if ended or not watcher.wait(self._wait_limit_s()):
                    return
        finally:
            watcher.close()

    def _copy_existing(self) -> None:
        found = parts = self._files.open_all()
        since_ns = int(self._request.get("since_ns") or 0)
        if since_ns:
            parts = [part for part in parts[:-1] if written_since(part, since_ns)] + parts[-1:]
        tail = int(self._request.get("tail", -1))
        if tail >= 0:
            parts = keep_tail(parts, tail)
        for part in found:
            if part not in parts:
                part.close()
        self._copy_parts(parts)

    def _copy_new(self) -> None:
        """What was appended, also in files that came after by rotation."""
        if self._current is None:
            successors = self._files.open_all()
        else:
            successors = self._files.open_after(self._current)
            self._current.rewind_if_truncated()
            self._copy_current()  # after the look: if it has successors, it is complete
        self._copy_parts(successors)

    def _copy_parts(self, parts: list[LogPart]) -> None:
        try:
            for part in parts:
                if self._current is not None:
                    self._current.close()
                self._current = part
                self._copy_current()
        except BaseException:
            for part in parts:
                part.close()
            raise

    def _copy_current(self) -> None:
        if self._current is None:
            return
        for block in self._current.blocks():
            self._send(self._renderer.render(block))

    def _send(self, data: bytes) -> None:
        if not data:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._socket.sendall(data)

    def _watch(self) -> Watcher:
        directories = [os.path.dirname(self._request["path"]), self._request["exit_directory"]]
        return Watcher(directories, self._socket)

    def _ended(self) -> bool:
        if self._until_ns and time.time_ns() > self._until_ns:
            return True
        directory = self._request["exit_directory"]
        return os.path.exists(f"{directory}/exit.json") or not os.path.isdir(directory)

    def _wait_limit_s(self) -> float | None:
        if not self._until_ns:
            return None
        return max(0.0, (self._until_ns - time.time_ns()) / 1e9)
