"""`config`: the project as it was understood."""

from __future__ import annotations

from teu.cli.compose.project import load
from teu.cli.session import Failure
from teu.compose import render
from teu.compose.convert import config_hash, image_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from teu.cli.grammar import Options
    from teu.cli.session import Session
    from teu.compose.project import Project


def print_config(session: Session, options: Options, services: list[str]) -> int:
    """Raises: Failure."""
    project = load(session, services)
    if services:
        project.services = {key: project.services[key] for key in services}
    if options.flag("quiet"):
        return 0
    text = _asked(project, options)
    if path := options.text("output"):
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise Failure(f"cannot write {path}: {error.strerror}") from error
        return 0
    session.out(text)
    return 0


def _asked(project: Project, options: Options) -> str:
    lists = {
        "services": sorted(project.services),
        "volumes": sorted(project.volumes),
        "networks": sorted(project.networks),
        "images": sorted({image_of(project, key) for key in project.services}),
        "profiles": sorted(_profiles(project)),
        "environment": [f"{name}={value}" for name, value in sorted(project.environment.items())],
    }
    for name, lines in lists.items():
        if options.flag(name):
            return "".join(f"{line}\n" for line in lines)
    if wanted := options.text("hash"):
        keys = sorted(project.services) if wanted == "*" else wanted.split(",")
        return "".join(f"{key} {config_hash(project, key)}\n" for key in keys)
    if options.flag("explain"):
        return "".join(f"{path}  {file}\n" for path, file in sorted(project.origins.items()))
    form = options.text("format")
    if form not in ("yaml", "json"):
        raise Failure(f"unsupported format {form!r}: want yaml or json")
    return render.as_json(project) if form == "json" else render.as_yaml(project)


def _profiles(project: Project) -> set[str]:
    every = [*project.services.values(), *project.disabled.values()]
    return {profile for service in every for profile in service.get("profiles", ())}
