"""The one-line version."""

from __future__ import annotations

from teu import __version__


def version_line(program: str) -> str:
    """`teu version 0.1.0`; as `docker`, in the form that scripts cut apart."""
    if program == "docker":
        return f"Docker version 28.3.0, build teu-{__version__}\n"
    return f"teu version {__version__}\n"
