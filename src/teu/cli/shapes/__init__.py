"""The API's objects as Go's types see them, for `--format` of the inspect commands.

A template over a struct differs from one over a map: absent fields are zero values, unknown ones
are errors, `json` keeps the struct's order, and `{{.State}}` prints values in that order. The
notation is `values.Book`'s.
"""

from __future__ import annotations

from teu.cli.shapes import container, objects, system
from teu.template.values import Book

BOOK = Book(
    {**container.SHAPES, **objects.SHAPES, **system.SHAPES, "struct{}": ""}, container.NAMED
)
