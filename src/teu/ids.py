"""Object ids (64 hex digits), names, and finding an object by id, name or id prefix."""

import re
import secrets
from collections.abc import Mapping

from teu.errors import InvalidParameter

SHORT_LENGTH = 12
NAME_PATTERN = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_NAME = re.compile(rf"/?{NAME_PATTERN}+")
_HEX = re.compile(r"[0-9a-f]+")
_LEFT = """
    agile amber brave bright brisk calm clever cosy crisp daring eager earnest fair famous fleet
    fond gentle glad golden happy hardy honest humble jolly keen kind lively loyal lucid mellow
    merry mighty modest neat nimble noble patient plucky polite proud quick quiet ready robust
    rustic serene sharp silent sincere smart snug solid steady sturdy sunny swift tidy tranquil
    trusty upbeat valiant vivid warm wise witty zealous
"""
_RIGHT = """
    anchor ballast barge beacon berth bollard bow bridge buoy cabin canal capstan cargo clipper
    coaster compass cove crane current cutter dinghy dock estuary ferry fjord galley gangway
    harbour hatch haven hawser helm hoist hull jetty keel ketch lagoon lantern lighter lock log
    marina mast mooring oar packet pier pilot port quay reef rigging rudder sail schooner
    sextant skipper sloop spar starboard stern strait tender tide tiller trawler tug wharf winch
"""


def new_id() -> str:
    """A random id that is never all digits in its short form (such a name reads as a number)."""
    while True:
        value = secrets.token_hex(32)
        if not value[:SHORT_LENGTH].isdigit():
            return value


def short(full_id: str) -> str:
    return full_id.removeprefix("sha256:")[:SHORT_LENGTH]


def random_name() -> str:
    """A container name in Docker's shape, such as `brisk_harbour`."""
    return f"{secrets.choice(_LEFT.split())}_{secrets.choice(_RIGHT.split())}"


def check_name(name: str, what: str = "container") -> str:
    """The name without a leading slash. Raises: InvalidParameter with Docker's text."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f"Invalid {what} name ({name}), only {NAME_PATTERN} are allowed")
    return name.removeprefix("/")


def is_hex(text: str) -> bool:
    return bool(_HEX.fullmatch(text))


def matching_ids(objects: Mapping[str, object], prefix: str) -> list[str]:
    """Ids that start with `prefix` (two are enough to know that it is ambiguous)."""
    if not is_hex(prefix):
        return []
    found: list[str] = []
    for candidate in objects:
        if candidate.startswith(prefix):
            found.append(candidate)
            if len(found) == 2:
                break
    return found
