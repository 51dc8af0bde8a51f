"""`build --check`: a Dockerfile's findings as text, and the warnings of a build."""

from collections.abc import Mapping

from teu.dockerfile.errors import excerpt
from teu.dockerfile.lint import Finding, lint, read_checks
from teu.dockerfile.stages import Dockerfile
from teu.errors import EngineError, InvalidParameter
from teu.image.service import ImageService


def findings(dockerfile: Dockerfile, images: ImageService) -> list[Finding]:
    """What the rules say; about variables only where the base image is here."""

    def variables(name: str) -> Mapping[str, str] | None:
        try:
            env = images.resolve(name).config.config.env or []
        except EngineError:
            return None
        return {entry.partition("=")[0]: "" for entry in env}

    return lint(dockerfile, variables)


def report(dockerfile: Dockerfile, found: list[Finding]) -> str:
    """All findings with their places, in Docker's words."""
    parts = []
    for finding in found:
        parts.append(
            f"\nWARNING: {finding.rule} - {finding.url}\n{finding.text}\n"
            + excerpt(dockerfile.source.text, finding.span, dockerfile.name)
            + "\n"
        )
    if not found:
        return "Check complete, no warnings found.\n"
    count = f"{len(found)} warnings have" if len(found) > 1 else "1 warning has"
    return f"Check complete, {count} been found!\n" + "".join(parts)


def short(found: list[Finding]) -> str:
    """One line each, for the end of a build."""
    if not found:
        return ""
    lines = [f" - {one.rule}: {one.text} (line {one.span.start})\n" for one in found]
    noun = "warning" if len(found) == 1 else "warnings"
    return f" {len(found)} {noun} found (use --check to expand):\n" + "".join(lines)


def refuse(dockerfile: Dockerfile, found: list[Finding]) -> None:
    """Raises: InvalidParameter when the Dockerfile asks that warnings are errors."""
    if found and read_checks(dockerfile).fails:
        raise InvalidParameter(
            "lint violation found for rules: " + ", ".join(sorted({one.rule for one in found}))
        )
