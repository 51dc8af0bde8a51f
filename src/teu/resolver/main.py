"""The resolver's process: `python -I -S main.py FD DIRECTORY`.

FD is a SOCK_SEQPACKET to the daemon that started it; later daemons connect to
DIRECTORY/resolver.sock. The packets are JSON with descriptors beside them (`teu.shim.wire`):

Daemon to resolver; no answers, but to `hello` and `sync`:
    {"op": "hello", "protocol": 1}            -> {"event": "hello", "protocol", "serving": [ID…]}
    {"op": "begin"} … {"op": "end"}           all is said again; what is not said is forgotten
    {"op": "join", "network": ID, "name", "container": ID, "names": […], "addresses": […]}
    {"op": "leave", "network": ID, "container": ID}
    {"op": "serve", "container": ID, "networks": [ID…], "links": {ALIAS: NAME}, "netns": PATH,
     "servers": […], "allowed": bool, "has_ipv6": bool} + [UDP, TCP]
        without descriptors: other settings for a container that is served already
    {"op": "forget", "container": ID}
    {"op": "sync"}                            -> {"event": "synced"}: all before it is in force
    {"op": "quit"}

It outlives the daemon, so that names go on being resolved, and ends when it serves nobody and
no daemon is there, or when its socket was removed with the daemon's run directory.
"""

import gc
import os
import resource
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from teu.resolver.forward import Forwarder, Upstream
from teu.resolver.server import Server
from teu.resolver.table import Table, View
from teu.shim.daemons import Connection, Daemons
from teu.shim.loop import Loop
from teu.shim.wire import Message, close_all

PROTOCOL = 1
SOCKET_NAME = "resolver.sock"
ALONE_CHECK_S = 5.0


class Resolver:
    """Holds everything; `run` returns when it is no longer needed."""

    def __init__(self, directory: str) -> None:
        self._loop = Loop()
        self._table = Table()
        self._forwarder = Forwarder(self._loop)
        self._servers: dict[str, Server] = {}
        self._generation = 0
        self._daemons = Daemons(self._loop, self._handle)
        self._directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._address = f"/proc/self/fd/{self._directory_fd}/{SOCKET_NAME}"
        self._inode = 0
        self._is_over = False
        self._faults = 0

    def run(self, control: socket.socket) -> None:
        self._listen()
        self._daemons.add(control)
        self._loop.later(ALONE_CHECK_S, self._check_alone)
        gc.collect()
        gc.freeze()
        while not self._is_over:
            try:
                self._loop.run_once()
            except Exception:
                self._tell_fault()

    def _listen(self) -> None:
        """Takes the place of an earlier one."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.path.lexists(self._address):
            os.unlink(self._address)
        listener.bind(self._address)
        os.chmod(self._address, 0o600)
        listener.listen(4)
        listener.setblocking(False)
        self._inode = os.stat(self._address).st_ino
        self._daemons.listen(listener)

    def _check_alone(self) -> None:
        self._loop.later(ALONE_CHECK_S, self._check_alone)
        if len(self._daemons):
            return
        try:
            removed = os.stat(self._address).st_ino != self._inode
        except OSError:
            removed = True
        self._is_over = removed or not self._servers

    def _tell_fault(self) -> None:
        """A defect in answering one packet must not end names for all."""
        import traceback  # 0.7 MiB that nobody should ever need

        self._faults += 1
        if self._faults < 100:
            self._daemons.broadcast({"event": "fault", "text": traceback.format_exc(limit=-4)})

    # --- what the daemon says ----------------------------------------------------------------

    def _handle(self, connection: Connection, packet: Message, fds: list[int]) -> None:
        if packet["op"] == "serve":
            self._serve(packet, fds)
            return
        close_all(fds)
        match packet["op"]:
            case "hello":
                serving = list(self._servers)
                connection.send({"event": "hello", "protocol": PROTOCOL, "serving": serving})
            case "begin":
                self._generation += 1
                self._table.begin()
            case "end":
                self._forget_unmentioned()
            case "join":
                self._table.join(
                    packet["network"], packet["name"], packet["container"],
                    packet["names"], packet["addresses"],
                )  # fmt: skip
            case "leave":
                self._table.leave(packet["network"], packet["container"])
            case "forget":
                self._forget(packet["container"])
            case "sync":
                connection.send({"event": "synced"})
            case "quit":
                self._is_over = True

    def _forget_unmentioned(self) -> None:
        self._table.end()
        for container, server in list(self._servers.items()):
            if server.generation != self._generation:
                self._forget(container)

    def _serve(self, packet: Message, fds: list[int]) -> None:
        view = View(packet["networks"], packet["links"])
        upstream = Upstream(
            packet["netns"], packet["servers"],
            allowed=packet["allowed"], has_ipv6=packet["has_ipv6"],
        )  # fmt: skip
        container = packet["container"]
        if len(fds) == 2:
            self._forget(container)
            udp, tcp = (socket.socket(fileno=fd) for fd in fds)
            self._servers[container] = Server(
                self._loop, self._table, self._forwarder, (udp, tcp), view, upstream
            )
        else:
            close_all(fds)
        if server := self._servers.get(container):
            server.view, server.upstream = view, upstream
            server.generation = self._generation

    def _forget(self, container: str) -> None:
        if server := self._servers.pop(container, None):
            server.close()


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    os.umask(0o077)
    os.dup2(0, 2)  # lets go of the daemon's terminal or journal; faults go through the socket
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a service manager ends it last, with KILL
    with open("/proc/self/comm", "wb") as comm:
        comm.write(b"teu-resolver")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    Resolver(sys.argv[2]).run(control)


if __name__ == "__main__":
    main()
