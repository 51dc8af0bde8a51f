"""What a command gets: the program's name, the global flags, the daemon, and the terminal."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.client import Client
    from teu.cli.config import ClientConfig
    from teu.cli.grammar import Options


class Failure(Exception):
    """A command failed. `str()` is printed to stderr as it is (nothing when empty)."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


class Session:
    """One run of the program.

    program: "teu", or "docker" when invoked under that name. path: the command as typed, with
    the program's name in front. globals: the parsed global flags. options: the command's own.
    group: those between a group's name and its command (`compose -f X up`).
    """

    def __init__(self, program: str, globals: Options) -> None:
        self.program = program
        self.globals = globals
        self.path = program
        self.options: Options | None = None
        self.group: Options | None = None
        self._config: ClientConfig | None = None
        self._client: Client | None = None

    @property
    def config(self) -> ClientConfig:
        """The user's `~/.docker/config.json`."""
        if self._config is None:
            from teu.cli.config import ClientConfig

            self._config = ClientConfig(self.globals)
        return self._config

    @property
    def client(self) -> Client:
        """The way to the daemon. Raises: Failure when no endpoint can be found."""
        if self._client is None:
            from teu.cli.client import Client
            from teu.cli.endpoint import resolve

            headers = self.config.table("HttpHeaders")
            self._client = Client(resolve(self.globals, self.config), headers)
            self._client.on_older = self._check_flags
        return self._client

    def _check_flags(self, version: str) -> None:
        """Refuses flags that an older daemon would silently ignore. Raises: Failure."""
        newer = self.options.newer_than(version) if self.options else []
        if newer:
            raise Failure(
                "\n".join(
                    f'"--{name}" requires API version {since}, but the Docker daemon API version '
                    f"is {version}"
                    for name, since in newer
                )
            )

    def out(self, text: str) -> None:
        """Writes to stdout as is (add the newline yourself)."""
        sys.stdout.write(text)

    def err(self, text: str) -> None:
        """Writes to stderr as is, after what stdout holds back."""
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()
