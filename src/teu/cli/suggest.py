"""Finds what the user probably meant."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, candidates: Iterable[str]) -> str:
    """The candidate that `word` is most likely a misspelling of; "" when none is close."""
    best, best_distance = "", max(1, len(word) // 3) + 1
    for candidate in candidates:
        distance = _distance(word, candidate)
        if len(word) > 2 and candidate.startswith(word):
            distance = min(distance, 1)
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


def _distance(left: str, right: str) -> int:
    """Letters to insert, remove, replace or swap with a neighbour."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        current = [i]
        for j, b in enumerate(right, 1):
            cost = min(row[j] + 1, current[j - 1] + 1, row[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            current.append(cost)
        before, row = row, current
    return row[-1]


def suggestion(program: str, group: str, word: str) -> str:
    """A paragraph for the error of an unknown command; "" when nothing is close."""
    from teu.cli.help import existing_groups, existing_rows, short_names, spellings

    if group:
        prefix = group + " "
        names = [name.removeprefix(prefix) for row in existing_rows() for name in spellings(row)
                 if name.startswith(prefix)]  # fmt: skip
    else:
        names = [name for row in existing_rows() for name in short_names(row)]
        names += [name for name, _ in existing_groups()]
    found = nearest(word, names)
    return f"Did you mean '{' '.join(filter(None, (program, group, found)))}'?" if found else ""
