"""Image names as people write them. Source: distribution/reference."""

from __future__ import annotations

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"


def split(name: str) -> tuple[str, str, str]:
    """`repo:tag@digest` -> (repository, tag, digest); parts that are not there are empty."""
    rest, _, digest = name.partition("@")
    repository, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        return rest, "", digest
    return repository, tag, digest


def domain(name: str) -> str:
    """The registry that `name` points to: `localhost:5000`, `docker.io`."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return "docker.io" if first == "index.docker.io" else first
    return DEFAULT_DOMAIN


def familiar(name: str) -> str:
    """The short spelling with its tag: `docker.io/library/x` -> `x:latest`."""
    repository, tag, digest = split(name)
    for prefix in ("index.docker.io/", "docker.io/"):
        repository = repository.removeprefix(prefix)
    if repository.count("/") == 1:
        repository = repository.removeprefix("library/")
    if digest:
        return f"{repository}@{digest}"
    return f"{repository}:{tag or DEFAULT_TAG}"
