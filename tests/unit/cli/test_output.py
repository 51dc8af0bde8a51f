"""Tables, durations, ports, JSON layout: what stands in the columns, and how wide they are."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.cli import filters, human
from teu.cli.commands.images import image_format, image_rows
from teu.cli.commands.ps import ports_text
from teu.cli.familiar import parts as familiar_parts
from teu.cli.session import Failure
from teu.cli.tables import Listing, plain_fields, render, tabulate
from teu.template import gojson

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (MINUTE, "About a minute"),
        (2 * MINUTE - 1, "About a minute"),
        (2 * MINUTE, "2 minutes"),
        (HOUR - 1, "59 minutes"),
        (HOUR, "About an hour"),
        (1.49 * HOUR, "About an hour"),
        (1.5 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


def port(private: int, public: int = 0, ip: str = "", kind: str = "tcp") -> dict[str, Any]:
    made: dict[str, Any] = {"PrivatePort": private, "Type": kind}
    return made | ({"PublicPort": public} if public else {}) | ({"IP": ip} if ip else {})


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([port(80)], "80/tcp"),
        ([port(80), port(81), port(82), port(90)], "80-82/tcp, 90/tcp"),
        ([port(80, 8080, "0.0.0.0"), port(80, 8080, "::")],
         "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([port(80, 80, "0.0.0.0"), port(81, 81, "0.0.0.0")], "0.0.0.0:80-81->80-81/tcp"),
        ([port(80, 80, "::"), port(81, 81, "::")], "[::]:80-81->80-81/tcp"),
        ([port(53, kind="udp"), port(53), port(54)], "53-54/tcp, 53/udp"),
        ([port(443), port(80, 8080, "127.0.0.1")], "443/tcp, 127.0.0.1:8080->80/tcp"),
    ],
)  # fmt: skip
def test_ports(ports: list[dict[str, Any]], text: str) -> None:
    assert ports_text(ports) == text
    assert ports_text(ports[::-1]) == text


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [
        ("short", 10, "short"),
        ("exactly ten", 11, "exactly ten"),
        ("longer than that", 10, "longer th…"),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本…"),
        ("日本語", 4, "日…"),
        ("é" * 20, 5, "éééé…"),
    ],
)
def test_ellipsis(text: str, width: int, cut: str) -> None:
    assert human.ellipsis(text, width) == cut


def test_natural_order() -> None:
    names = ["web10", "web9", "Web1", "a", "10", "9"]
    assert sorted(names, key=human.natural_key) == ["9", "10", "Web1", "a", "web9", "web10"]


def test_columns_are_at_least_ten_wide_and_three_apart() -> None:
    assert tabulate("A\tB\tC\nlonger text\tx\ty\n") == (
        "A             B         C\nlonger text   x         y\n"
    )


def test_wide_letters_count_twice() -> None:
    assert tabulate("名前名前名前\tx\nab\ty\n") == "名前名前名前   x\nab             y\n"


def test_a_line_without_the_column_starts_a_new_block() -> None:
    assert tabulate("a\tb\nplain\nlong long long\tb\n") == (
        "a         b\nplain\nlong long long   b\n"
    )


THINGS = Listing(
    "*formatter.Thing",
    {"ID": "THING ID", "Name": "NAME"},
    {"ID": lambda row: row["id"], "Name": lambda row: row["name"],
     "Label": lambda row, name: row.get(name, "")},
)  # fmt: skip
ROWS = [{"id": "1", "name": "one", "k": "v"}, {"id": "22", "name": "<two>"}]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("table {{.ID}}\t{{.Name}}", "THING ID   NAME\n1          one\n22         <two>\n"),
        (r"table {{.ID}}\t{{.Name}}", "THING ID   NAME\n1          one\n22         <two>\n"),
        ("{{.ID}}: {{ .Name }}", "1: one\n22: <two>\n"),
        ("json", '{"ID":"1","Name":"one"}\n{"ID":"22","Name":"\\u003ctwo\\u003e"}\n'),
        (r"{{.ID}}\n{{.Name}}", "1\none\n22\n<two>\n"),
        ("table {{upper .Name}}", "NAME\nONE\n<TWO>\n"),
        ('table {{.Label "k"}}\t{{.ID}}', "k         THING ID\nv         1\n          22\n"),
        ("constant", "constant\nconstant\n"),
        ("", "\n\n"),
    ],
)
def test_formats(form: str, text: str) -> None:
    assert render(THINGS, ROWS, form) == text


def test_an_empty_table_still_has_its_head() -> None:
    assert render(THINGS, [], "table {{.ID}}\t{{.Foo}}") == "THING ID   <no value>\n"
    assert render(THINGS, [], "{{.ID}}") == ""


@pytest.mark.parametrize(
    ("form", "problem"),
    [
        ("{{.ID", "template parsing error: template: :1: unclosed action"),
        ("{{.Foo}}", 'template parsing error: template: :1:2: executing "" at <.Foo>: '
         "can't evaluate field Foo in type *formatter.Thing"),
        ("table {{nope .ID}}", 'template parsing error: template: :1: function "nope" not defined'),
    ],
)  # fmt: skip
def test_wrong_formats(form: str, problem: str) -> None:
    with pytest.raises(Failure) as caught:
        render(THINGS, ROWS, form)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("{{.ID}} x {{.Name}}", ["ID", "Name"]),
        ("plain", []),
        ("{{.Label}}", None),
        ("{{.ID.x}}", None),
        ("{{.ID}", None),
        ("{{- .ID}}", None),
        ("{{.Nope}}", None),
    ],
)
def test_the_shortcut_takes_only_what_it_understands(form: str, names: list[str] | None) -> None:
    assert plain_fields(THINGS, form) == names


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False,
                                                                     allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_layout_keeps_every_token(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, indent=9)):
        laid_out = gojson.indent(text)
        assert json.loads(laid_out) == value
        assert json.loads(gojson.compact(laid_out)) == value
        assert gojson.compact(laid_out) == json.dumps(value, separators=(",", ":"))
        assert laid_out == json.dumps(value, indent=4)
    again = json.loads(gojson.encode(value), parse_int=float)
    assert again == json.loads(json.dumps(value), parse_int=float)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True], "b": {}}, '{"a":[1,2.5,null,true],"b":{}}'),
        ('é<>&\u2028\x01\n"\\', '"é<>&\\u2028\\u0001\\n\\"\\\\"'),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (1e-7, "1e-7"),
        (123456789.0, "123456789"),
        ("\udcff", '"\\ufffd"'),
    ],
)
def test_json_as_go_writes_it(value: Any, text: str) -> None:
    assert gojson.encode(value) == text


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("busybox", ("busybox", "", "")),
        ("docker.io/library/busybox:1", ("busybox", "1", "")),
        ("docker.io/user/x:v", ("user/x", "v", "")),
        ("localhost:5000/x", ("localhost:5000/x", "", "")),
        ("reg.example.com/a/b:t@sha256:" + "a" * 64,
         ("reg.example.com/a/b", "t", "sha256:" + "a" * 64)),
        ("a" * 64, None),
        ("UPPER", None),
        ("x:", None),
        ("x@sha256:zz", None),
        ("a//b", None),
    ],
)  # fmt: skip
def test_familiar_names(reference: str, found: tuple[str, str, str] | None) -> None:
    assert familiar_parts(reference) == found


IMAGE = {
    "Id": "sha256:" + "a" * 64,
    "RepoTags": ["x:1", "x:2", "y:1"],
    "RepoDigests": ["x@sha256:" + "b" * 64, "z@sha256:" + "c" * 64],
}


def names(images: list[dict[str, Any]], digests: bool) -> list[tuple[str, str, str]]:
    rows = image_rows(images, False, digests, digests)
    return [(row.repository, row.tag, row.digest[:10]) for row in rows]


def test_an_image_is_one_row_for_each_name() -> None:
    assert names([IMAGE], False) == [
        ("x", "1", "<none>"), ("x", "2", "<none>"), ("y", "1", "<none>"), ("z", "<none>", ""),
    ]  # fmt: skip
    assert names([IMAGE], True) == [
        ("x", "1", "sha256:bbb"), ("x", "2", "sha256:bbb"), ("y", "1", "<none>"),
        ("z", "<none>", "sha256:ccc"),
    ]  # fmt: skip


def test_images_without_names() -> None:
    old = {"RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
    for image in ({}, {"RepoTags": None, "RepoDigests": []}, old):
        assert names([image], False) == [("<none>", "<none>", "<none>")]


def test_digests_are_added_to_a_table_that_lacks_them() -> None:
    assert image_format("table {{.ID}}", False, True) == "table {{.ID}}\t{{.Digest}}"
    assert image_format("{{.ID}}", False, True) == "{{.ID}}"


def test_filters() -> None:
    assert filters.encode([]) is None
    assert json.loads(filters.encode(["label=a=b", "label=c", "name=x"]) or "") == {
        "label": {"a=b": True, "c": True}, "name": {"x": True},
    }  # fmt: skip


def test_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert human.local_time(1700000000) == "2023-11-14 23:13:20 +0100 CET"
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
