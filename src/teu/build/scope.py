"""Which variables an instruction sees: build arguments, the environment, platforms.

Source: Dockerfile reference, "ARG": scope, predefined arguments, platform arguments.
"""

from collections.abc import Iterable, Mapping

from teu.dockerfile.instructions import Instruction
from teu.dockerfile.words import Expander
from teu.model.image import Platform

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PREDEFINED = frozenset((*_PROXIES, *(name.lower() for name in _PROXIES)))
SOURCE_DATE_EPOCH = "SOURCE_DATE_EPOCH"


def platform_arguments(target: Platform, build: Platform, stage: str) -> dict[str, str]:
    """What is predefined in the global scope; a stage has to declare them with ARG."""
    found = {"TARGETSTAGE": stage}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


class Arguments:
    """Values of ARGs over one build: what the client gave, and who asked for it."""

    def __init__(self, given: Mapping[str, str | None], predefined: Mapping[str, str]) -> None:
        self._given = given
        self._predefined = predefined
        self.declared: set[str] = set()
        self.globals: dict[str, str] = dict(predefined)

    def declare_globals(self, instructions: Iterable[Instruction], escape: str) -> None:
        """The ARGs before the first FROM."""
        for instruction in instructions:
            for name, default in instruction.pairs:
                value = self._value(name, default, Expander(self.globals, escape))
                if value is not None:
                    self.globals[name] = value

    def declare(self, name: str, default: str | None, expander: Expander) -> str | None:
        """An ARG of a stage; None when it has no value."""
        value = self._value(name, default, expander)
        return self.globals.get(name) if value is None else value

    def _value(self, name: str, default: str | None, expander: Expander) -> str | None:
        self.declared.add(name)
        if (given := self._given.get(name)) is not None:
            return given
        if default is not None:
            return expander.expand(default)
        return self._predefined.get(name)

    def unconsumed(self) -> list[str]:
        """What the client gave and nothing declared."""
        return sorted(set(self._given) - self.declared - PREDEFINED - {SOURCE_DATE_EPOCH})

    def proxies(self) -> dict[str, str]:
        """Given proxies: every RUN sees them, no cache key and no history does."""
        return {
            name: value
            for name, value in self._given.items()
            if name in PREDEFINED and value is not None and name not in self.declared
        }
