"""Headers of every answer."""

from typing import Final

from teu import __version__
from teu.api.router import MAX_VERSION

HEADERS: Final = {
    "Api-Version": f"{MAX_VERSION[0]}.{MAX_VERSION[1]}",
    "Docker-Experimental": "false",
    "Ostype": "linux",
    "Server": f"teu/{__version__} (linux)",
}
