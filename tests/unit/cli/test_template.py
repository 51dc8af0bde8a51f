"""Go templates, against what Docker 28.2's client printed for the same template and data.

`template_facts.json` holds the volume that a daemon answered with, and for every template either
the text or the error of `docker volume inspect -f TEMPLATE`. tests/parity re-checks the facts.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teu.cli.shapes import BOOK
from teu.template import TemplateError, parse
from teu.template.values import Header, Record

FACTS = json.loads((Path(__file__).parent / "template_facts.json").read_text())
VOLUME = BOOK.convert("volume.Volume", FACTS["data"])


def run(text: str, data: Any) -> str:
    return parse(text).execute(data)


@pytest.mark.parametrize(("text", "printed", "error"), FACTS["cases"])
def test_as_docker_prints(text: str, printed: str | None, error: str | None) -> None:
    if error is None:
        assert run(text, VOLUME) == printed
        return
    with pytest.raises(TemplateError) as caught:
        run(text, VOLUME)
    assert f"template parsing error: {caught.value}" == error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.a}}", 'executing "" at <.a>: map has no entry for key "a"'),
        ("{{.m.x}}", 'executing "" at <.m.x>: map has no entry for key "x"'),
        ("{{.gone.deeper}}", 'at <.gone.deeper>: map has no entry for key "gone"'),
        ("{{.n.x}}", "nil pointer evaluating interface {}.x"),
    ],
)
def test_missing_keys_of_plain_json_are_errors_when_asked_for(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse(text).execute({"m": {}, "n": None}, missing_is_error=True)
    assert message in str(caught.value)


def test_rows_are_used_through_their_methods() -> None:
    methods = {"ID": lambda row: row["id"], "Label": lambda row, name: row.get(name, "")}
    row = Record("*formatter.Thing", methods, {"id": "1", "x": "y"})
    assert run('{{.ID}} {{.Label "x"}} {{json .}}', row) == '1 y {"ID":"1"}'
    for text, message in (
        ("{{.Foo}}", "can't evaluate field Foo in type *formatter.Thing"),
        ("{{.Label}}", "wrong number of args for Label: want 1 got 0"),
        ('{{.ID "x"}}', "wrong number of args for ID: want 0 got 1"),
        ("{{.Label 5}}", "expected string; found 5"),
    ):
        with pytest.raises(TemplateError, match="executing") as caught:
            run(text, row)
        assert message in str(caught.value)


def test_rows_escape_html_in_json_as_docker_does() -> None:
    assert run("{{json .}}", Record("t", {"A": lambda row: row}, "<none>&")) == (
        '{"A":"\\u003cnone\\u003e\\u0026"}'
    )
    assert run("{{json .}}", {"A": "<none>"}) == '{"A":"<none>"}'


def test_table_heads_keep_their_titles() -> None:
    from teu.template.functions import HEADER_FUNCTIONS

    template = parse('{{upper .ID}} {{.Label "com.x.some-name"}} {{.Nope}}')
    head = template.execute(Header({"ID": "Container"}), functions=HEADER_FUNCTIONS)
    assert head == "Container some name <no value>"


CONTAINER = {
    "Id": "abc",
    "Name": "/web",
    "State": {"Status": "running", "Running": True, "Pid": 7},
    "HostConfig": {
        "NetworkMode": "bridge",
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
        "Memory": 67108864,
    },
    "Config": {
        "Env": ["A=b"],
        "Healthcheck": {"Interval": 90_000_000_000},
        "Labels": {},
        "ExposedPorts": {"80/tcp": {}},
    },
    "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}},
}


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("{{.ID}} {{.Name}} {{.State.Running}} {{.State.Pid}}", "abc /web true 7"),
        ("{{.State.Health}}", "<nil>"),
        ("{{if .State.Health}}yes{{else}}no{{end}}", "no"),
        ("{{.State}}", "{running true false false false false 7 0    <nil>}"),
        ("{{.Config.Healthcheck.Interval}} {{json .Config.Healthcheck}}",
         '1m30s {"Interval":90000000000}'),
        ("{{.HostConfig.PortBindings}}", "map[80/tcp:[{ 8080}]]"),
        ("{{range $p, $b := .HostConfig.PortBindings}}{{$p}}={{(index $b 0).HostPort}}{{end}}",
         "80/tcp=8080"),
        ("{{.Config.ExposedPorts}} {{json .Config.ExposedPorts}}",
         'map[80/tcp:{}] {"80/tcp":{}}'),
        ("{{range $n, $e := .NetworkSettings.Networks}}{{$n}} {{$e.IPAddress}}{{end}}",
         "bridge 172.17.0.2"),
        ("{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.Binds}}",
         "67108864 <nil> []"),
        ('{{printf "%d %s" .HostConfig.Memory .HostConfig.Memory}}',
         "67108864 %!s(int64=67108864)"),
        ("{{json .Mounts}} {{json .Config.Cmd}} {{json .HostConfig.Init}}", "null null null"),
        ("{{.Config.Labels.none}} {{index .Config.Labels \"none\"}}|", "<no value> |"),
    ],
)  # fmt: skip
def test_a_container_is_a_struct(text: str, printed: str) -> None:
    assert run(text, BOOK.convert("container.InspectResponse", CONTAINER)) == printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{.State.Health.Status}}", "nil pointer evaluating *container.Health.Status"),
        ("{{.State.Health.Nope}}", "can't evaluate field Nope in type *container.Health"),
        ("{{.Nope}}", "can't evaluate field Nope in type container.InspectResponse"),
        ('{{index .HostConfig.PortBindings "80/tcp"}}',
         "value has type string; should be nat.Port"),
        ("{{.State.Pid.x}}", "can't evaluate field x in type int"),
    ],
)  # fmt: skip
def test_errors_name_go_types(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        run(text, BOOK.convert("container.InspectResponse", CONTAINER))
    assert message in str(caught.value)


def test_self_calling_templates_end() -> None:
    with pytest.raises(TemplateError, match="exceeded maximum template depth"):
        run('{{define "x"}}{{template "x"}}{{end}}{{template "x"}}', None)


def test_self_calling_templates_end_also_inside_other_blocks() -> None:
    text = '{{define "x"}}' + "{{if 1}}" * 20 + '{{template "x"}}' + "{{end}}" * 21
    with pytest.raises(TemplateError, match=r"nested too deeply|maximum template depth"):
        run(text + '{{template "x"}}', None)


def test_deep_data_is_refused_not_a_crash() -> None:
    deep: Any = 0
    for _ in range(5000):
        deep = [deep]
    for text in ("{{.}}", "{{json .}}"):
        with pytest.raises(TemplateError, match="nested too deeply"):
            run(text, deep)


def test_deep_nesting_is_refused_not_a_crash() -> None:
    for text in ("{{if 1}}" * 500 + "{{end}}" * 500, "{{" + "(" * 500 + "1" + ")" * 500 + "}}"):
        with pytest.raises(TemplateError):
            parse(text)


_PIECES = st.sampled_from(
    ["{{", "}}", "{{-", "-}}", "{{ ", " ", ".", ".a", ".b.c", "$", "$x", ":=", "=", "|", "(", ")",
     '"', '"s"', "`", "'", "'a'", "1", "-1", "0x", "1.5", "if", "else", "end", "range", "with",
     "define", "template", "block", "break", "continue", "nil", "true", "len", "index", "printf",
     "print", "json", "and", "or", "not", "eq", "lt", "join", "split", "slice", "call", "html",
     "/*", "*/", ",", "%d", "%[3]*.[2]f", "\\", "\n", "é", "\x00", "{{end}}", "{{.}}",
     "{{range .l}}", "{{if .a}}", "{{else}}", '{{template "x"}}', '{{define "x"}}']
)  # fmt: skip
_DATA = {"a": "text", "b": {"c": [1, None, 2.5]}, "l": ["x", {"y": True}], "n": None, "i": 3}


@settings(max_examples=400, deadline=None)
@given(st.lists(_PIECES, max_size=14).map("".join))
def test_any_text_parses_or_says_why(text: str) -> None:
    problem = ""
    try:
        template = parse(text)
        template.execute(_DATA)
        template.execute(BOOK.convert("container.InspectResponse", CONTAINER))
    except TemplateError as error:
        problem = str(error)
    assert not problem or problem.startswith("template: ")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_text_without_braces_is_printed_as_it_is(text: str) -> None:
    if "{{" not in text:
        assert run(text, None) == text


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet="%0123456789-+# .*[]vTdsqxXobcUeEfgGtpw!", max_size=12),
    st.lists(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()), max_size=3
    ),
)
def test_printf_never_fails(form: str, arguments: list[Any]) -> None:
    from teu.template.printf import sprintf

    assert isinstance(sprintf(form, arguments), str)
