"""From files to one document in the long form: parse, interpolate, extend, include, merge."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from teu.compose import files, interpolate, source
from teu.compose.environment import parse_env
from teu.compose.errors import ComposeError, Place
from teu.compose.files import Base
from teu.compose.merge import merge, settle
from teu.compose.service import DOCUMENT
from teu.compose.source import Map

_OBJECTS = ("services", "networks", "volumes", "configs", "secrets")
_NOT_EXTENDED = ("depends_on", "volumes_from", "links")
Warn = Callable[[str], None]


class Loader:
    """`origins`: path of keys -> the file that had the last word (for `config --explain`)."""

    def __init__(self, warn: Warn) -> None:
        self._warn = warn
        self.origins: dict[str, str] = {}

    def load(self, base: Base) -> dict[str, Any]:
        """All files of a project merged, includes among them. Raises: ComposeError."""
        return self._load(base, ())

    def _load(self, base: Base, including: tuple[str, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for file in base.files:
            if file in including:
                raise ComposeError(f"include cycle detected: {' -> '.join([*including, file])}")
            document = self._one(file, base)
            self._note(document, file, "")
            found = merge(found, document) if found else settle(document)
        includes = found.pop("include", [])
        for entry in includes:
            self._include(found, entry, base, (*including, *base.files))
        return found

    def _one(self, file: str, base: Base) -> dict[str, Any]:
        document = source.parse(files.read(file), file)
        document = interpolate.interpolate(document, base.environment, self._warn)
        if "version" in document:
            self._warn(f"{file}: the attribute `version` is obsolete, it will be ignored")
            del document["version"]
        read: Map = DOCUMENT(document, Place(file, 1, ""))
        services = read.get("services", {})
        directory = base.directory
        for name in services:
            services[name] = self._extended(services, name, file, base, ())
            _anchor(services[name], directory)
        return read

    # extends

    def _extended(
        self,
        services: dict[str, Any],
        name: str,
        file: str,
        base: Base,
        chain: tuple[tuple[str, str], ...],
    ) -> Any:
        service = services[name]
        if not isinstance(service, dict) or "extends" not in service:
            return service
        if (file, name) in chain:
            names = " -> ".join(link[1] for link in (*chain, (file, name)))
            raise ComposeError(f"circular reference in extends: {names}")
        extends = service["extends"]
        service = {key: value for key, value in service.items() if key != "extends"}
        other_file = extends.get("file", "")
        target = extends.get("service", "")
        if other_file:
            path = os.path.join(os.path.dirname(file), os.path.expanduser(other_file))
            others = self._services_of(path, base)
        else:
            path, others = file, services
        if target not in others:
            raise ComposeError(
                f'cannot extend service "{name}" in {file}: service "{target}" not found in {path}'
            )
        parent = self._extended(dict(others), target, path, base, (*chain, (file, name)))
        if other_file:
            _anchor(parent, os.path.dirname(os.path.abspath(path)))
            parent = settle(parent)
            for key in _NOT_EXTENDED:
                if key in parent:
                    del parent[key]
        return merge(settle(parent), service)

    def _services_of(self, path: str, base: Base) -> dict[str, Any]:
        document = source.parse(files.read(path), path)
        document = interpolate.interpolate(document, base.environment, self._warn)
        document.pop("version", None)
        services: dict[str, Any] = DOCUMENT(document, Place(path, 1, "")).get("services", {})
        return services

    # include

    def _include(
        self, found: dict[str, Any], entry: dict[str, Any], base: Base, chain: tuple[str, ...]
    ) -> None:
        paths = [_join(base.directory, path) for path in entry["path"]]
        directory = _join(base.directory, entry.get("project_directory", ""))
        if not entry.get("project_directory"):
            directory = os.path.dirname(paths[0])
        environment = dict(base.environment)
        default = os.path.join(directory, ".env")
        env_files = [_join(base.directory, path) for path in entry.get("env_file", ())]
        for path in env_files or ([default] if os.path.isfile(default) else []):
            for name, value in parse_env(files.read(path), path, environment, self._warn).items():
                if value is not None:
                    environment.setdefault(name, value)
        included = self._load(
            Base(directory=directory, files=paths, environment=environment), chain
        )
        for kind in _OBJECTS:
            for name, value in included.get(kind, {}).items():
                mine = found.setdefault(kind, {})
                if name in mine and mine[name] != value:
                    raise ComposeError(
                        f"{kind}.{name} conflicts with imported resource of {paths[0]}"
                    )
                mine[name] = value

    def _note(self, value: Any, file: str, path: str) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                self._note(item, file, f"{path}.{key}" if path else key)
        else:
            self.origins[path] = file


def _join(directory: str, path: str) -> str:
    return os.path.normpath(os.path.join(directory, os.path.expanduser(path)))


def _anchor(service: Any, directory: str) -> None:
    """Makes the paths of a service absolute: after a merge nobody knows where they began."""
    if not isinstance(service, dict):
        return
    build = service.get("build")
    if isinstance(build, dict) and not _is_remote(build.get("context", ".")):
        build["context"] = _join(directory, build.get("context", "."))
    for entry in _entries(service, "volumes"):
        if entry.get("type") == "bind" and entry.get("source", "").startswith((".", "~", "/")):
            entry["source"] = _join(directory, entry["source"])
    for entry in _entries(service, "env_file"):
        entry["path"] = _join(directory, entry["path"])
    if isinstance(service.get("label_file"), list):
        service["label_file"] = [_join(directory, path) for path in service["label_file"]]
    develop = service.get("develop")
    for entry in _entries(develop, "watch") if isinstance(develop, dict) else ():
        entry["path"] = _join(directory, entry["path"])


def _entries(service: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = service.get(key)
    value = value.value if isinstance(value, source.Override) else value
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _is_remote(context: str) -> bool:
    return "://" in context or context.startswith(("git@", "github.com/"))
