"""A project: everything resolved, checked and named.

Source: Compose Specification; texts of refusals as docker compose v2.
"""

from __future__ import annotations

import os
from typing import Any

from msgspec import Struct, field

from teu.compose import files
from teu.compose.environment import parse_env
from teu.compose.errors import ComposeError
from teu.compose.files import Asked, Base
from teu.compose.loading import Loader

Service = dict[str, Any]
_ALL_PROFILES = "*"


class Project(Struct, kw_only=True):
    """Services, networks and so on by their keys in the files, each in the long form.

    `disabled`: services whose profiles are not active. `origins`: see Loader.
    """

    name: str
    directory: str
    files: list[str]
    environment: dict[str, str]
    services: dict[str, Service]
    disabled: dict[str, Service] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)
    volumes: dict[str, Any] = field(default_factory=dict)
    configs: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, Any] = field(default_factory=dict)
    extensions: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


def load(asked: Asked) -> Project:
    """Raises: ComposeError."""
    base = files.locate(asked)
    loader = Loader(asked.warn)
    document = loader.load(base)
    name = files.project_name(asked, base, document.get("name", ""))
    base.environment.setdefault("COMPOSE_PROJECT_NAME", name)
    project = Project(
        name=name,
        directory=base.directory,
        files=base.files,
        environment=base.environment,
        services=document.get("services", {}),
        networks=document.get("networks", {}),
        volumes=document.get("volumes", {}),
        configs=document.get("configs", {}),
        secrets=document.get("secrets", {}),
        extensions={key: value for key, value in document.items() if key.startswith("x-")},
        origins=loader.origins,
    )
    for key, service in project.services.items():
        project.services[key] = _completed(key, service or {}, asked, base)
    _apply_profiles(project, asked)
    _name_objects(project)
    check(project)
    return project


def scale(service: Service) -> int:
    """How many containers a service has."""
    found: int = service.get("scale", service.get("deploy", {}).get("replicas", 1))
    return found


def dependencies(service: Service) -> dict[str, dict[str, Any]]:
    """What must be there first: `depends_on`, and what other keys name."""
    found: dict[str, dict[str, Any]] = {}
    implied = [link.partition(":")[0] for link in service.get("links", ())]
    for entry in service.get("volumes_from", ()):
        if not entry.startswith("container:"):
            implied.append(entry.partition(":")[0])
    for key in ("network_mode", "ipc", "pid"):
        kind, colon, name = str(service.get(key, "")).partition(":")
        if colon and kind == "service":
            implied.append(name)
    for name in implied:
        found[name] = {"condition": "service_started", "required": True, "restart": True}
    return {**found, **service.get("depends_on", {})}


def _completed(key: str, service: Service, asked: Asked, base: Base) -> Service:
    service = dict(service)
    if "build" in service:
        build = service["build"] = {"context": base.directory, **service["build"]}
        if "dockerfile_inline" not in build:
            build.setdefault("dockerfile", "Dockerfile")
        if "args" in build:
            build["args"] = _with_values(build["args"], base.environment)
    variables: dict[str, str | None] = {}
    for entry in service.pop("env_file", ()):
        variables.update(_env_file(key, entry, asked, base))
    variables.update(service.get("environment", {}))
    if variables:
        service["environment"] = _with_values(variables, base.environment)
    for path in service.pop("label_file", ()):
        values = parse_env(files.read(path), path, base.environment, asked.warn)
        known = {name: value or "" for name, value in values.items()}
        service["labels"] = {**known, **service.get("labels", {})}
    if "networks" not in service and "network_mode" not in service:
        service["networks"] = {"default": None}
    return service


def _env_file(key: str, entry: dict[str, Any], asked: Asked, base: Base) -> dict[str, str | None]:
    if not os.path.exists(entry["path"]):
        if not entry["required"]:
            return {}
        raise ComposeError(f"env file {entry['path']} not found (service {key})")
    values = parse_env(files.read(entry["path"]), entry["path"], base.environment, asked.warn)
    return {n: v if v is not None else base.environment.get(n) for n, v in values.items()}


def _with_values(
    variables: dict[str, str | None], environment: dict[str, str]
) -> dict[str, str | None]:
    """A name without a value takes it from the environment."""
    return {
        name: environment.get(name) if value is None else value for name, value in variables.items()
    }


def _apply_profiles(project: Project, asked: Asked) -> None:
    from_environment = project.environment.get("COMPOSE_PROFILES", "").split(",")
    active = {word.strip() for word in (asked.profiles or from_environment) if word.strip()}
    for key, service in list(project.services.items()):
        wanted = service.get("profiles", [])
        if wanted and not active & {*wanted} and _ALL_PROFILES not in active:
            project.disabled[key] = project.services.pop(key)


def enable(project: Project, names: list[str]) -> None:
    """A service that is named on the command line is active, whatever its profiles."""
    for name in names:
        if name in project.disabled:
            project.services[name] = project.disabled.pop(name)


def _name_objects(project: Project) -> None:
    """`PROJECT_KEY` unless a name is given, or the object is not ours."""
    used = {key for service in project.services.values() for key in service.get("networks", {})}
    if "default" in used and "default" not in project.networks:
        project.networks["default"] = {}
    for objects in (project.networks, project.volumes, project.configs, project.secrets):
        for key, value in objects.items():
            filled = objects[key] = dict(value or {})
            own = key if filled.get("external") else f"{project.name}_{key}"
            filled.setdefault("name", own)
    for objects in (project.configs, project.secrets):
        for value in objects.values():
            if "file" in value:
                path = os.path.expanduser(value["file"])
                value["file"] = os.path.normpath(os.path.join(project.directory, path))


def check(project: Project) -> None:
    """Raises: ComposeError for what does not fit together."""
    for key, service in project.services.items():
        _check_service(project, key, service)
    find_cycle(project)
    for kind, objects in (("config", project.configs), ("secret", project.secrets)):
        for key, value in objects.items():
            ways = [way for way in ("file", "environment", "content", "external") if value.get(way)]
            if len(ways) != 1 and not value.get("driver"):
                raise _invalid(
                    f"{kind} {key} needs exactly one of file, environment, content, external"
                )


def _check_service(project: Project, key: str, service: Service) -> None:
    if "image" not in service and "build" not in service:
        raise _invalid(f'service "{key}" has neither an image nor a build context specified')
    if "network_mode" in service and service.get("networks"):
        raise _invalid(f"service {key} declares mutually exclusive `network_mode` and `networks`")
    for kind, name in _references(service):
        if name not in getattr(project, f"{kind}s"):
            raise _invalid(f'service "{key}" refers to undefined {kind} {name}')
    known = {**project.services, **project.disabled}
    for name, how in dependencies(service).items():
        if name not in known and how.get("required", True):
            raise _invalid(f'service "{key}" depends on undefined service "{name}"')
    if service.get("container_name") and scale(service) > 1:
        raise _invalid(
            f"services.{key}: can't set container_name and scale to {scale(service)}: names "
            "must be unique"
        )


def _references(service: Service) -> list[tuple[str, str]]:
    """(kind, key) of the top-level objects that a service uses."""
    found = [("network", name) for name in service.get("networks", {})]
    for volume in service.get("volumes", ()):
        if volume["type"] == "volume" and volume.get("source"):
            found.append(("volume", volume["source"]))
    for kind in ("config", "secret"):
        found += [(kind, entry.get("source", "")) for entry in service.get(f"{kind}s", ())]
    return found


def find_cycle(project: Project) -> None:
    """Raises: ComposeError that names the cycle."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            raise ComposeError(f"dependency cycle detected: {' -> '.join([*path, name])}")
        if name in done or name not in project.services:
            return
        for other in dependencies(project.services[name]):
            visit(other, [*path, name])
        done.add(name)

    for name in sorted(project.services):
        visit(name, [])


def _invalid(text: str) -> ComposeError:
    return ComposeError(f"{text}: invalid compose project")
