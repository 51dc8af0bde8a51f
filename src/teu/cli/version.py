"""The client's version, also as Docker's client states its own."""

from __future__ import annotations

from teu import __version__

DOCKER_VERSION = "28.3.0"  # of the client whose commands and flags these are


def client_version(program: str) -> str:
    """Called as `docker`, scripts compare the version with Docker's."""
    return DOCKER_VERSION if program == "docker" else __version__


def version_line(program: str) -> str:
    """`teu version 0.1.0`; as `docker`, in the form that scripts cut apart."""
    if program == "docker":
        return f"Docker version {DOCKER_VERSION}, build teu-{__version__}\n"
    return f"teu version {__version__}\n"
