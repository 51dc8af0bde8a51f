"""Docker's plugin protocol, as far as volume drivers need it: finding plugins, calling them.

    FOLDER/NAME.sock, FOLDER/NAME/NAME.sock      a plugin on a unix socket
    FOLDER/NAME.spec                             one line: unix:///path or tcp://host:port
    FOLDER/NAME.json                             {"Name", "Addr", "TLSConfig"}

JSON over HTTP, all POST: `/Plugin.Activate` tells what it implements, then `/VolumeDriver.…`. A
plugin is somebody else's program: every call has a deadline and a limit of size, answers are
checked, and one plugin that hangs holds up nobody but those who wait for its volumes.
Source: Docker's "Plugin API" and "Volume plugins".
"""

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
from msgspec import Struct

from teu.errors import DeadlineExceeded, SystemFailure, Unavailable
from teu.model.naming import docker_name
from teu.volume.errors import NoSuchDriver

FOLDERS: Final = ("/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins")
VOLUME_DRIVER: Final = "VolumeDriver"
_ACCEPT: Final = "application/vnd.docker.plugins.v1.2+json"
_ANSWER_LIMIT_BYTES: Final = 4 << 20
_RETRY_S: Final = (0.1, 0.2, 0.4, 0.8)
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:/-]*")


class PluginFailure(SystemFailure):
    """The plugin answered with an error; its own words."""


class Limits(Struct, frozen=True):
    """Seconds: a call that only asks, one that makes or mounts something."""

    ask_s: float = 10.0
    work_s: float = 120.0


class _Tls(Struct, rename=docker_name):
    insecure_skip_verify: bool = False
    ca_file: str = msgspec.field(default="", name="CAFile")
    cert_file: str = ""
    key_file: str = ""


class _Spec(Struct, rename=docker_name):
    addr: str
    tls_config: _Tls | None = msgspec.field(default=None, name="TLSConfig")


class Plugin:
    """One plugin at one address. Its session is made on first use; `close` ends it."""

    def __init__(self, name: str, spec: _Spec, limits: Limits) -> None:
        self.name = name
        self.spec = spec
        self.limits = limits
        self._session: aiohttp.ClientSession | None = None
        self._implements: frozenset[str] | None = None

    async def implements(self, what: str) -> bool:
        """Activates it on first use. Raises: as `call`."""
        if self._implements is None:
            answer = await self.call("Plugin.Activate", {}, limit_s=self.limits.ask_s)
            listed = answer.get("Implements")
            if not isinstance(listed, list):
                raise self._lied("Plugin.Activate", "it does not say what it implements")
            self._implements = frozenset(str(entry) for entry in listed)
        return what in self._implements

    async def call(
        self, method: str, body: Mapping[str, Any], *, limit_s: float, patient: bool = False
    ) -> dict[str, Any]:
        """The answer's JSON object.

        Args:   limit_s: seconds for the whole call.  patient: try again while it does not listen
                (it may be starting anew). A call that may have had an effect is not repeated.
        Raises: PluginFailure (its `Err`), Unavailable (nobody listens), DeadlineExceeded,
                SystemFailure (the answer makes no sense).
        """
        try:
            async with asyncio.timeout(limit_s):
                return await self._tried(method, body, _RETRY_S if patient else ())
        except TimeoutError:
            raise DeadlineExceeded(
                f'volume plugin "{self.name}" did not answer {method} within {limit_s:g} s'
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(
                f'volume plugin "{self.name}" cannot be reached at {self.spec.addr}: {error}; is '
                "it running?"
            ) from error

    async def _tried(
        self, method: str, body: Mapping[str, Any], waits_s: Sequence[float]
    ) -> dict[str, Any]:
        for wait_s in waits_s:
            try:
                return await self._once(method, body)
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(wait_s)
        return await self._once(method, body)

    async def _once(self, method: str, body: Mapping[str, Any]) -> dict[str, Any]:
        session = self._session or self._open_session()
        url = f"{self._base()}/{method}"
        headers = {"Accept": _ACCEPT, "Content-Type": "application/json"}
        async with session.post(url, data=msgspec.json.encode(body), headers=headers) as response:
            raw = await _limited(response.content)
        if raw is None:
            raise self._lied(method, f"it answers more than {_ANSWER_LIMIT_BYTES >> 20} MiB")
        return self._checked(method, response.status, raw)

    def _checked(self, method: str, status: int, raw: bytes) -> dict[str, Any]:
        try:
            answer = msgspec.json.decode(raw, type=dict[str, Any]) if raw.strip() else {}
        except msgspec.MsgspecError as error:
            text = raw[:200].decode(errors="replace").strip()
            raise self._lied(method, f"status {status}, not a JSON object: {text!r}") from error
        if words := answer.get("Err"):
            raise PluginFailure(f"{method}: {words}")
        if status != 200:
            raise self._lied(method, f"status {status} without a reason")
        return answer

    def _lied(self, method: str, what: str) -> SystemFailure:
        return SystemFailure(f'volume plugin "{self.name}": {method}: {what}')

    def _base(self) -> str:
        scheme, _, rest = self.spec.addr.partition("://")
        if scheme == "unix":
            return "http://plugin"
        secure = scheme == "https" or self.spec.tls_config is not None
        return f"{'https' if secure else 'http'}://{rest.rstrip('/')}"

    def _open_session(self) -> aiohttp.ClientSession:
        scheme, _, rest = self.spec.addr.partition("://")
        connector: aiohttp.BaseConnector
        if scheme == "unix":
            connector = aiohttp.UnixConnector(path=rest, force_close=True)
        else:
            connector = aiohttp.TCPConnector(ssl=self._tls(), force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), trust_env=False
        )
        return self._session

    def _tls(self) -> ssl.SSLContext | bool:
        tls = self.spec.tls_config
        if tls is None:
            return True
        try:
            context = ssl.create_default_context(cafile=tls.ca_file or None)
            if tls.cert_file:
                context.load_cert_chain(tls.cert_file, tls.key_file or None)
        except (OSError, ssl.SSLError) as error:
            raise SystemFailure(
                f'volume plugin "{self.name}": its certificates cannot be used: {error}'
            ) from error
        if tls.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Plugins:
    """All plugins of the folders, which are read anew whenever somebody asks."""

    def __init__(self, folders: Sequence[str | Path], limits: Limits | None = None) -> None:
        self._folders = [Path(folder) for folder in folders]
        self._limits = limits or Limits()
        self._known: dict[str, Plugin] = {}

    async def get(self, name: str) -> Plugin:
        """The volume driver of that name.

        Raises: NoSuchDriver (no such file; it implements something else), SystemFailure (its file
        makes no sense), Unavailable, DeadlineExceeded.
        """
        spec = self._find(name)
        plugin = self._known.get(name)
        if spec is None:
            await self._forget(name)
            raise NoSuchDriver(name)
        if plugin is None or plugin.spec != spec:
            await self._forget(name)
            plugin = self._known[name] = Plugin(name, spec, self._limits)
        if not await plugin.implements(VOLUME_DRIVER):
            raise NoSuchDriver(name)
        return plugin

    def names(self) -> list[str]:
        """Of every plugin there is a file for, whatever it implements."""
        found: set[str] = set()
        for folder in self._folders:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    stem, suffix = os.path.splitext(entry.name)
                    if suffix in (".sock", ".spec", ".json"):
                        found.add(stem)
                    elif (folder / entry.name / f"{entry.name}.sock").exists():
                        found.add(entry.name)
        return sorted(found)

    async def close(self) -> None:
        for name in list(self._known):
            await self._forget(name)

    async def _forget(self, name: str) -> None:
        if (plugin := self._known.pop(name, None)) is not None:
            await plugin.close()

    def _find(self, name: str) -> _Spec | None:
        if not _NAME.fullmatch(name) or ".." in name:
            return None
        for socket in self._candidates(("{0}.sock", "{0}/{0}.sock"), name):
            if socket.exists():
                return _Spec(addr=f"unix://{socket}")
        for file in self._candidates(
            ("{0}.spec", "{0}/{0}.spec", "{0}.json", "{0}/{0}.json"), name
        ):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return _read_spec(file)
        return None

    def _candidates(self, patterns: Iterable[str], name: str) -> list[Path]:
        return [folder / p.format(name) for p in patterns for folder in self._folders]


def _read_spec(file: Path) -> _Spec:
    """Raises: SystemFailure, FileNotFoundError."""
    text = file.read_text(errors="replace")
    try:
        if file.suffix == ".json":
            spec = msgspec.json.decode(text, type=_Spec)
        else:
            spec = _Spec(addr=text.strip())
    except msgspec.MsgspecError as error:
        raise SystemFailure(f"{file}: not a description of a plugin: {error}") from error
    scheme, separator, rest = spec.addr.partition("://")
    if not separator or scheme not in ("unix", "tcp", "http", "https") or not rest:
        raise SystemFailure(
            f"{file}: '{spec.addr}' is not an address; write unix:///path or tcp://host:port"
        )
    return spec


async def _limited(content: aiohttp.StreamReader) -> bytes | None:
    """All of it; None when it is too long."""
    chunks, size = [], 0
    async for chunk in content.iter_any():
        size += len(chunk)
        if size > _ANSWER_LIMIT_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
