"""Pulling and pushing images: the requests and what is shown of their progress."""

from __future__ import annotations

from teu.cli.credentials import registry_auth
from teu.cli.imagename import ImageName, parse
from teu.cli.progress import ProgressView
from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from teu.cli.session import Session


def image_name(text: str) -> ImageName:
    """Raises: Failure with Docker's text."""
    try:
        return parse(text)
    except ValueError as error:
        raise Failure(str(error)) from error


def pull_image(
    session: Session,
    image: str,
    *,
    platform: str = "",
    all_tags: bool = False,
    sink: TextIO | None = None,
) -> ImageName:
    """Pulls an image, drawing the progress on `sink` (None: nothing is shown).

    Returns: the name that was pulled, tagged `latest` if it was bare. Raises: Failure.
    """
    name = image_name(image)
    if not all_tags:
        name = name.with_default_tag()
    query = {
        "fromImage": name.repository,
        "tag": name.digest or name.tag or None,
        "platform": platform or None,
    }
    headers = {"X-Registry-Auth": registry_auth(session.config, name.domain)}
    messages = session.client.stream("POST", "/images/create", query, headers=headers)
    if sink is not None:
        ProgressView(sink).show_all(messages)
        return name
    for message in messages:
        if message.get("errorDetail"):
            raise Failure(str(message["errorDetail"].get("message", "")))
    return name


def push_image(
    session: Session, name: ImageName, *, platform: str = "", sink: TextIO | None = None
) -> None:
    """Pushes one tag, or all when the name has none. Raises: Failure."""
    query: dict[str, str | int | bool | list[str] | None] = {"tag": name.tag or None}
    if platform:
        from teu.cli.platforms import as_json

        query["platform"] = as_json(platform)
    headers = {"X-Registry-Auth": registry_auth(session.config, name.domain)}
    path = f"/images/{name.repository}/push"
    messages = session.client.stream("POST", path, query, headers=headers)
    if sink is not None:
        ProgressView(sink).show_all(messages)
        return
    for message in messages:
        if message.get("errorDetail"):
            raise Failure(str(message["errorDetail"].get("message", "")))
