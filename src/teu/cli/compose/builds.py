"""The images of a project: built, pulled, pushed."""

from __future__ import annotations

import sys
import tempfile

from teu.cli.compose import engine
from teu.cli.compose.project import run_command
from teu.cli.session import Failure
from teu.cli.transfer import image_name, pull_image, push_image
from teu.compose.convert import image_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from teu.cli.compose.steps import Steps
    from teu.cli.session import Session
    from teu.compose.project import Project


def ensure(
    session: Session,
    project: Project,
    services: Iterable[str],
    steps: Steps,
    *,
    build: bool = False,
    no_build: bool = False,
    pull: str = "",
) -> None:
    """Has every image here: builds what is to be built, pulls what is missing.

    `build`: also what is here already. `pull`: always, missing, never, build, or the service's own.
    Raises: Failure.
    """
    done: set[str] = set()
    for key in services:
        service = project.services[key]
        image = image_of(project, key)
        if image in done:
            continue
        done.add(image)
        policy = pull or service.get("pull_policy", "missing")
        if "build" in service and not no_build and (build or policy == "build"):
            build_service(session, project, key, steps)
        elif policy == "always" and "image" in service and "build" not in service:
            pull_service(session, project, key, steps)
        elif not engine.image_id(session.client, image):
            _make_present(session, project, key, steps, policy, no_build=no_build)


def _make_present(
    session: Session, project: Project, key: str, steps: Steps, policy: str, *, no_build: bool
) -> None:
    service = project.services[key]
    if "build" in service and not no_build:
        build_service(session, project, key, steps)
    elif policy == "never":
        raise Failure(f"No such image: {image_of(project, key)} (service {key} never pulls)")
    else:
        pull_service(session, project, key, steps)


def build_service(
    session: Session, project: Project, key: str, steps: Steps, more: Iterable[str] = ()
) -> None:
    """`more`: flags of `build` besides those that the files say. Raises: Failure."""
    build = project.services[key]["build"]
    words = ["--tag", image_of(project, key), *more, *_flags(project, build)]
    what = f"Image {image_of(project, key)}"
    steps.tell(what, "Building")
    if inline := build.get("dockerfile_inline"):
        with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
            file.write(inline)
            file.flush()
            run_command(session, "image build", [*words, "--file", file.name, build["context"]])
    else:
        file_words = ["--file", build["dockerfile"], build["context"]]
        run_command(session, "image build", [*words, *file_words])
    steps.tell(what, "Built")


_LISTS = {
    "tags": "--tag",
    "cache_from": "--cache-from",
    "ssh": "--ssh",
    "extra_hosts": "--add-host",
    "no_cache_filter": "--no-cache-filter",
}


def _flags(project: Project, build: dict[str, Any]) -> list[str]:
    """A service's `build` as flags of `teu build`."""
    words: list[str] = []
    for name, value in build.get("args", {}).items():
        words += ["--build-arg", name if value is None else f"{name}={value}"]
    for name, value in build.get("labels", {}).items():
        words += ["--label", f"{name}={value}"]
    for name, value in build.get("additional_contexts", {}).items():
        words += ["--build-context", f"{name}={value}"]
    for name in ("target", "network"):
        words += [f"--{name}", build[name]] if build.get(name) else []
    for name in ("no_cache", "pull"):
        words += [f"--{name.replace('_', '-')}"] if build.get(name) else []
    for name, flag in _LISTS.items():
        for value in build.get(name, ()):
            words += [flag, value]
    for entry in build.get("secrets", ()):
        words += ["--secret", _secret(project, entry)]
    return words


def _secret(project: Project, entry: dict[str, str]) -> str:
    definition = project.secrets[entry["source"]]
    name = entry.get("target") or entry["source"]
    if "environment" in definition:
        return f"id={name},env={definition['environment']}"
    return f"id={name},src={definition.get('file', '')}"


def pull_service(
    session: Session, project: Project, key: str, steps: Steps, *, quiet: bool = False
) -> None:
    """Raises: Failure."""
    image = image_of(project, key)
    steps.tell(f"Image {image}", "Pulling")
    sink = sys.stderr if sys.stderr.isatty() and not quiet else None
    try:
        platform = project.services[key].get("platform", "")
        pull_image(session, image, platform=platform, sink=sink)
    except Failure:
        steps.tell(f"Image {image}", "Error")
        raise
    steps.tell(f"Image {image}", "Pulled")


def push_service(session: Session, project: Project, key: str, steps: Steps) -> None:
    """Raises: Failure."""
    image = image_of(project, key)
    steps.tell(f"Image {image}", "Pushing")
    push_image(session, image_name(image).with_default_tag())
    steps.tell(f"Image {image}", "Pushed")
