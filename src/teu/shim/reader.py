"""One `logs` request."""

from teu.shim.wire import Message


class LogReader:
    def __init__(self, request: Message, fds: list[int]) -> None:
        self._request = request
        self._fds = fds

    def run(self) -> None:
        pass
