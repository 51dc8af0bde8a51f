"""Quotes, variables, ignore patterns, logical lines."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.dockerfile.errors import DockerfileError, Span, excerpt
from teu.dockerfile.lines import read_source
from teu.dockerfile.stages import parse_dockerfile
from teu.dockerfile.words import Expander
from teu.dockerignore import BadPattern, IgnoreList, read_patterns

VARIABLES = {"A": "one", "E": "", "P": "/usr/lib/x.tar.gz", "S": "a b  c"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$A${A}x", "oneonex"),
        ("'$A' \"$A\" \\$A", "$A one $A"),
        ("\"a \\\" \\$A \\x\"", 'a " $A \\x'),
        ("${A:-d} ${E:-d} ${E-d} ${N:-d} ${N-d}", "one d  d d"),
        ("${A:+s} ${E:+s} ${E+s} ${N+s}", "s  s "),
        ("${P##*/} ${P#*/}", "x.tar.gz usr/lib/x.tar.gz"),
        ("${P%.*} ${P%%.*}", "/usr/lib/x.tar /usr/lib/x"),
        ("${P/x/y} ${P//\\//:}", "/usr/lib/y.tar.gz :usr:lib:x.tar.gz"),
        ("${P/nope/y}", "/usr/lib/x.tar.gz"),
        ("${N:-${A}-${E:-f}}", "one-f"),
        ("$ $$ a$", "$ $$ a$"),
        ("$S", "a b  c"),
        ("$1x", "x"),
    ],
)  # fmt: skip
def test_expand(text: str, wanted: str) -> None:
    assert Expander(VARIABLES).expand(text) == wanted


def test_words() -> None:
    assert Expander(VARIABLES).expand_words("$S \"$S\" 'x y'z  ") == [
        "a",
        "b",
        "c",
        "a b  c",
        "x yz",
    ]


@pytest.mark.parametrize(
    "text", ["${A", "${", "${A:", "${A;x}", "'a", '"a', "${N:?need it}", "${A/b"]
)
def test_bad_words(text: str) -> None:
    with pytest.raises(DockerfileError):
        Expander(VARIABLES).expand(text)


@given(st.text())
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        Expander(VARIABLES).expand_words(text)
    except DockerfileError:
        return


@given(st.text(alphabet="FROMRUNCPYabc \\\n\r\t#<>E='\"$[]{}-"))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_dockerfile(("FROM x\n" + text).encode())
    except DockerfileError:
        return


IGNORE = [
    ("*.md", {"a.md": True, "b/a.md": False, "a.mdx": False}),
    ("**/*.md", {"a.md": True, "b/c/a.md": True}),
    ("/foo/bar", {"foo/bar": True, "foo/bar/x": True, "foo": False}),
    ("foo/", {"foo": True, "foo/x": True}),
    ("a?c", {"abc": True, "a/c": False}),
    ("[a-c].txt", {"b.txt": True, "d.txt": False}),
    ("[^a].txt", {"b.txt": True, "a.txt": False}),
    ("**", {"a": True, "a/b": True}),
    ("a/**/z", {"a/z": True, "a/b/c/z": True, "az": False}),
    ("foo\\*", {"foo*": True, "foox": False}),
    ("./x", {"x": True}),
    ("..", {"x": False}),
    ("*\n!keep", {"a": True, "keep": False, "keep/x": False}),
    ("d\n!d/keep\nd/keep/no", {"d/x": True, "d/keep/a": False, "d/keep/no": True}),
    ("# c\n\n  x  ", {"x": True, "# c": False}),
]


@pytest.mark.parametrize(("text", "paths"), IGNORE)
def test_ignore(text: str, paths: dict[str, bool]) -> None:
    ignore = IgnoreList(read_patterns(text))
    assert {path: ignore.ignores(path) for path in paths} == paths


@pytest.mark.parametrize("text", ["[a", "a\\", "[]", "!"])
def test_bad_patterns(text: str) -> None:
    with pytest.raises(BadPattern):
        IgnoreList([text])


@given(st.text(alphabet="ab/*?![]^-\\.", max_size=12), st.text(alphabet="ab/.", max_size=12))
def test_any_pattern_is_matched_or_refused(pattern: str, path: str) -> None:
    try:
        IgnoreList(read_patterns(pattern)).ignores(path)
    except BadPattern:
        return


def test_positions() -> None:
    source = read_source(
        b"\xef\xbb\xbf# syntax=x\r\n\r\nFROM a\r\nRUN b \\\r\n# c\r\n  d\r\nCMD e\r\n"
    )
    assert [(line.span.start, line.span.end) for line in source.lines] == [(3, 3), (4, 6), (7, 7)]
    assert source.lines[1].rest == "b   d"
    assert source.directives == {"syntax": "x"}


def test_excerpts_show_the_line() -> None:
    shown = excerpt("one\ntwo\nthree\nfour\nfive\nsix", Span(3, 4))
    assert re.search(r"^   3 \| >>> three$", shown, re.MULTILINE)
    assert "six" in shown
    assert shown.splitlines()[0] == "Dockerfile:3"
