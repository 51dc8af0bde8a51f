"""Which image of several platforms is meant."""

from collections.abc import Sequence

from teu.errors import InvalidParameter, NotFound
from teu.image.platform import best, same_platform
from teu.model.image import Image, Platform


class NoSuchVariant(NotFound):
    """An image that is here, but not for this platform. Docker's texts."""

    def __init__(self, ref: str, platform: Platform, have: Sequence[Platform]) -> None:
        if len(have) == 1:
            reason = f"its platform ({have[0]}) does not match the specified platform ({platform})"
        else:
            offered = ", ".join(map(str, have))
            reason = f"does not provide the specified platform ({platform}): it has {offered}"
        super().__init__(f"image with reference {ref} was found but {reason}")


class NotAnImage(InvalidParameter):
    """An artifact where an image is needed."""

    def __init__(self, ref: str, kind: str) -> None:
        super().__init__(
            f"{ref} is not a container image but an artifact ({kind}): it cannot be run; it can be "
            "inspected, tagged, saved and pushed"
        )


def variant_for(variants: Sequence[Image], platform: Platform, ref: str) -> Image:
    """The one that runs on a platform. Raises: NoSuchVariant."""
    have = [image.config.platform for image in variants]
    chosen = best(have, platform)
    if chosen is None:
        raise NoSuchVariant(ref, platform, have)
    return variants[chosen]


def variant_of(variants: Sequence[Image], platform: Platform, ref: str) -> Image:
    """The one of this very platform. Raises: NoSuchVariant."""
    for image in variants:
        if same_platform(platform, image.config.platform):
            return image
    raise NoSuchVariant(ref, platform, [image.config.platform for image in variants])
