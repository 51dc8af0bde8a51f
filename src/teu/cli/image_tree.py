"""`images --tree`: each image with the platforms it has. Source: docker/cli 28.2, its output."""

from __future__ import annotations

import sys

from teu.cli import human
from teu.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_WARNING = (
    "WARNING: This is an experimental feature. The output may change and shouldn't be depended on."
)
_LEGEND = "Info ->  U In Use "
_GAP = "   "
# Heading, width, whether it is a number. The first column takes what is left.
_COLUMNS = (
    ("ID", 12, False), ("DISK USAGE", 10, True), ("CONTENT SIZE", 12, True), ("EXTRA", 5, False),
)  # fmt: skip
_UNNAMED = "<untagged>"
_HEADING, _NAME, _PLATFORM, _ABSENT, _WARNED = "\33[1m", "\33[34;1m", "", "\33[2m", "\33[93m"
_PLAIN = "\33[0m"


class _Row:
    """One line: a name or a platform, and the numbers behind it (none: only a name)."""

    __slots__ = ("cells", "label", "style")

    def __init__(self, label: str, style: str, cells: tuple[str, ...] = ()) -> None:
        self.label = label
        self.style = style
        self.cells = cells

    def text(self, first: int, painted: bool) -> str:
        """first: width of the first column."""
        if not self.cells:
            return _paint(self.label, self.style, painted)
        label = self.label if len(self.label) <= first else f"{self.label[: first - 1]}…"
        parts = [_paint(label, self.style, painted) + " " * (first - len(label))]
        for (_, width, is_number), cell in zip(_COLUMNS, self.cells, strict=True):
            is_right = is_number and self.style != _HEADING
            padded = f"{cell:>{width}}" if is_right else f"{cell:<{width}}"
            style = self.style if self.style in (_HEADING, _ABSENT) else ""
            parts.append(_paint(padded, style, painted))
        return _GAP.join(parts)


def tree(images: list[dict[str, Any]], width: int) -> str:
    """All images, newest first. width: columns of the terminal; colors only on one."""
    painted = sys.stdout.isatty()
    ordered = sorted(images, key=lambda image: int(image.get("Created", 0)), reverse=True)
    blocks = [list(_block(image)) for image in ordered]
    longest = max((len(row.label.encode()) for block in blocks for row in block), default=0)
    taken = sum(len(_GAP) + size for _, size, _ in _COLUMNS)
    first = max(min(longest, width - taken), len("IMAGE"))
    heading = _Row("IMAGE", _HEADING, tuple(title for title, _, _ in _COLUMNS))
    lines = [_paint(_WARNING, _WARNED, painted), f"{_LEGEND:>{width}}", ""]
    lines.append(heading.text(first, painted))
    for block in blocks:
        lines += [row.text(first, painted) for row in block]
        lines.append("")
    return "\n".join(lines) + "\n"


def _block(image: dict[str, Any]) -> Iterator[_Row]:
    """An image's lines: its names (the last with the numbers), then its platforms."""
    variants = [m for m in image.get("Manifests") or () if m.get("Kind") == "image"]
    content = sum(m["Size"]["Content"] for m in variants)
    used = image.get("Containers", -1) > 0 or any(map(_is_used, variants))
    *others, last = image.get("RepoTags") or [_UNNAMED]
    for name in others:
        yield _Row(name, _NAME)
    yield _Row(last, _NAME, _numbers(image.get("Id", ""), image.get("Size", 0), content, used))
    for position, variant in enumerate(variants, 1):
        branch = "└─ " if position == len(variants) else "├─ "
        size = variant["Size"]
        numbers = _numbers(variant["ID"], size["Total"], size["Content"], _is_used(variant))
        style = _PLATFORM if variant.get("Available") else _ABSENT
        yield _Row(branch + _platform(variant), style, numbers)


def _numbers(identifier: str, total: int, content: int, used: bool) -> tuple[str, ...]:
    shown = human.short_id(identifier), human_size(total), human_size(content)
    return (*shown, "U" if used else "")


def _is_used(variant: dict[str, Any]) -> bool:
    return bool((variant.get("ImageData") or {}).get("Containers"))


def _platform(variant: dict[str, Any]) -> str:
    platform = (variant.get("ImageData") or {}).get("Platform") or {}
    parts = (platform.get(name, "") for name in ("os", "architecture", "variant"))
    return "/".join(part for part in parts if part)


def _paint(text: str, style: str, painted: bool) -> str:
    return f"{style}{text}{_PLAIN}" if painted and style else text
