"""Values of flags that may be given several times."""

from __future__ import annotations


def pairs(texts: list[str]) -> dict[str, str]:
    """`["a=1", "b"]` -> `{"a": "1", "b": ""}`."""
    split = (text.partition("=") for text in texts)
    return {name: value for name, _, value in split}


def csv_values(texts: list[str]) -> list[str]:
    """One flat list, where each text may hold several values separated by commas."""
    from teu.cli.values import csv_fields

    found: list[str] = []
    for text in texts:
        found += csv_fields(text) if text else []
    return found
