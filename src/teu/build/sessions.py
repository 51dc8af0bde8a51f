"""What a client of ours hands over before its build starts, piece by piece.

    POST   /build/sessions                 the Dockerfile; answers which paths matter
    PUT    /build/sessions/ID/files        the list of the context's files; answers what is needed
    PUT    /build/sessions/ID/content      an archive of those
    PUT    /build/sessions/ID/secrets/X    a secret's bytes: in memory, until the build has ended
    POST   /build/sessions/ID/ssh/X        an upgraded connection for the next user of agent X
    POST   /build?session=ID               the build; the session ends with it

A session lives in memory. One that nobody touches for `IDLE_LIMIT_S` ends. See docs/adr/0013.
"""

import asyncio
import contextlib
import hashlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from teu import ids
from teu.build.context import unpack_context
from teu.build.keptcontext import KeptContext
from teu.build.needs import needed_paths
from teu.build.request import Inputs
from teu.build.trees import in_thread_to_the_end
from teu.build.workspace import Workspace
from teu.errors import Conflict, EngineError, InvalidParameter, NotFound
from teu.image.service import ImageService
from teu.sys.agentsocket import AgentSocket
from teu.tasks import TaskOwner

IDLE_LIMIT_S = 120.0
SECRET_LIMIT_BYTES = 500 << 10
LIST_LIMIT_BYTES = 256 << 20


class NoSuchSession(NotFound):
    def __init__(self, session_id: str) -> None:
        super().__init__(f"no such build session: {session_id}: it has ended, or took too long")


class Session:
    """One client's build to be."""

    def __init__(self, dockerfile: bytes, name: str) -> None:
        self.id = ids.new_id()[:32]
        self.dockerfile = dockerfile
        self.name = name
        self.secrets: dict[str, bytes] = {}
        self.agents: dict[str, AgentSocket] = {}
        self.contexts: dict[str, KeptContext] = {}  # by name; the build context's is empty
        self.kept: dict[str, KeptContext] = {}  # by directory, those that stay
        self.fresh: list[Path] = []  # those that go
        self.timer: asyncio.TimerHandle | None = None


class Sessions:
    """All sessions of the daemon. Loop's thread."""

    def __init__(self, workspace: Workspace, images: ImageService, tasks: TaskOwner) -> None:
        self._workspace = workspace
        self._images = images
        self._tasks = tasks
        self._sessions: dict[str, Session] = {}
        self._busy: set[str] = set()

    def is_busy(self, context: str) -> bool:
        """Whether a session uses a kept context, by its directory's name."""
        return context in self._busy

    def open(self, dockerfile: bytes, name: str, target: str) -> tuple[Session, list[str] | None]:
        """A new session, and the paths that the Dockerfile may read (None: any).

        Raises: DockerfileError, InvalidParameter.
        """
        session = Session(dockerfile, name)
        paths = needed_paths(dockerfile, name, target, self._may_trigger)
        self._sessions[session.id] = session
        self._touch(session)
        return session, paths

    def _may_trigger(self, base: str) -> bool:
        try:
            return bool(self._images.resolve(base).config.config.on_build)
        except EngineError:
            return True  # not here yet: nobody knows

    def get(self, session_id: str) -> Session:
        """Raises: NoSuchSession."""
        session = self._sessions.get(session_id)
        if session is None:
            raise NoSuchSession(session_id)
        self._touch(session)
        return session

    def take(self, session_id: str) -> Session:
        """For its build; it does not time out any more. Raises: NoSuchSession."""
        session = self.get(session_id)
        del self._sessions[session_id]
        if session.timer is not None:
            session.timer.cancel()
        return session

    def _touch(self, session: Session) -> None:
        if session.timer is not None:
            session.timer.cancel()
        loop = asyncio.get_running_loop()
        session.timer = loop.call_later(IDLE_LIMIT_S, self._expire, session)

    def _expire(self, session: Session) -> None:
        if self._sessions.pop(session.id, None) is not None:
            self._tasks.start(self.close(session), "end build session")

    # --- handing over ---------------------------------------------------------------------

    async def list_files(
        self, session: Session, context_name: str, key: str, data: bytes
    ) -> list[str]:
        """`key`: names the context over builds, made up by the client. A context that another
        build uses is not shared: this one gets its own. Raises: InvalidParameter, Conflict."""
        if context_name in session.contexts:
            raise Conflict("the session has these files already")
        name = "kept-" + hashlib.sha256(key.encode()).hexdigest()[:32] if key else ""
        if name and name not in self._busy:
            self._busy.add(name)
            context = session.kept[name] = KeptContext(self._workspace.root / "contexts" / name)
        else:
            session.fresh.append(self._workspace.new_context())
            context = KeptContext(session.fresh[-1])
        session.contexts[context_name] = context
        needed: list[str] = []

        def work() -> None:
            context.open()
            needed.extend(context.list_files(data))
            if not needed:
                context.finish()

        await in_thread_to_the_end(work)
        return needed

    async def content(
        self, session: Session, context_name: str, stream: AsyncIterator[bytes]
    ) -> None:
        """Raises: InvalidArchive, InvalidParameter, Conflict."""
        context = session.contexts.get(context_name)
        if context is None:
            raise Conflict("the session has no list of these files yet")
        await unpack_context(stream, context.tree)
        await in_thread_to_the_end(context.finish)

    def add_secret(self, session: Session, name: str, value: bytes) -> None:
        """Raises: InvalidParameter when it is too large."""
        if len(value) > SECRET_LIMIT_BYTES:
            raise InvalidParameter(
                f"invalid secret size {len(value)}: at most {SECRET_LIMIT_BYTES}"
            )
        session.secrets[name] = value

    def add_agent(self, session: Session, name: str, connection: socket.socket) -> None:
        """A connection to the client that waits for a user of its agent; owned here."""
        if name not in session.agents:
            path = self._workspace.run_root / f"agent-{ids.new_id()[:16]}"
            session.agents[name] = AgentSocket(path)
        session.agents[name].offer(connection)

    # --- the build ------------------------------------------------------------------------

    def inputs(self, session: Session) -> Inputs:
        trees = {name: context.tree for name, context in session.contexts.items()}
        return Inputs(
            context=trees.pop("", None),
            secrets=session.secrets,
            agents={name: agent.path for name, agent in session.agents.items()},
            named=trees,
            is_filtered=True,
            kept=list(session.contexts.values()),
        )

    async def close(self, session: Session) -> None:
        """Ends the session: secrets and connections go, contexts stay for the next build."""
        session.secrets.clear()
        for agent in session.agents.values():
            agent.close()
        for context in session.kept.values():
            with contextlib.suppress(OSError):
                await in_thread_to_the_end(context.save_if_whole)
        for path in session.fresh:
            await asyncio.to_thread(self._workspace.drop_context, path)
        self._busy -= session.kept.keys()
