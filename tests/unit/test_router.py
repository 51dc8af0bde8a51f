"""Routing and what a call reads from its query."""

import pytest
from aiohttp.test_utils import make_mocked_request

from teu import errors
from teu.api import status
from teu.api.call import Call, check_filters
from teu.api.router import MAX_VERSION, Route, Router, split_version
from teu.errors import InvalidParameter


async def _handler(call):
    raise AssertionError


def _router():
    return Router(
        [
            Route("GET", "/images/json", _handler),
            Route("GET", "/images/{name:path}/json", _handler),
            Route("DELETE", "/images/{name:path}", _handler),
            Route("POST", "/containers/{id}/start", _handler),
        ]
    )


@pytest.mark.parametrize(
    ("method", "path", "params"),
    [
        ("GET", "/images/json", {}),
        ("GET", "/images/a/json", {"name": "a"}),
        ("GET", "/images/host:5000/a/b:c/json", {"name": "host:5000/a/b:c"}),
        ("DELETE", "/images/a/b", {"name": "a/b"}),
        ("POST", "/containers/x/start", {"id": "x"}),
    ],
)
def test_finds(method, path, params):
    found = _router().find(method, path)
    assert found is not None
    assert found[1] == params


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/images/json"), ("GET", "/containers/x/start"), ("POST", "/containers/x/y/start"),
     ("POST", "/containers//start"), ("GET", ""), ("GET", "/")],
)  # fmt: skip
def test_does_not_find(method, path):
    assert _router().find(method, path) is None


def test_methods_of_a_path():
    assert _router().methods("/containers/x/start") == {"POST"}


@pytest.mark.parametrize(
    ("path", "version", "rest"),
    [
        ("/v1.47/info", (1, 47), "/info"),
        ("/info", MAX_VERSION, "/info"),
        ("/v1.24", (1, 24), "/"),
        ("/volumes/v1.40/x", MAX_VERSION, "/volumes/v1.40/x"),
    ],
)
def test_versions(path, version, rest):
    assert split_version(path) == (version, rest)


@pytest.mark.parametrize(
    ("path", "text"), [("/v1.23/info", "too old"), ("/v1.99/info", "too new"), ("/v2.0/x", "too n")]
)
def test_versions_out_of_range(path, text):
    with pytest.raises(InvalidParameter, match=text):
        split_version(path)


def _call(query):
    return Call(make_mocked_request("GET", f"/x?{query}"), {}, MAX_VERSION)


@pytest.mark.parametrize("text", ["0", "false", "No", "none", ""])
def test_false_flags(text):
    assert not _call(f"a={text}").flag("a", default=True)


@pytest.mark.parametrize("text", ["1", "true", "yes", "x"])
def test_true_flags(text):
    assert _call(f"a={text}").flag("a")


def test_filters_in_both_forms():
    assert _call('filters={"name":["a"],"label":{"x":true,"y":false}}').filters() == {
        "name": ["a"],
        "label": ["x"],
    }
    assert _call("").filters() == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"a":1}', '{"a":[1]}', "null"])
def test_bad_filters(text):
    with pytest.raises(InvalidParameter, match="invalid filters"):
        _call(f"filters={text}").filters()


def test_unknown_filters_and_numbers_are_refused():
    with pytest.raises(InvalidParameter, match="invalid filter 'nope'"):
        check_filters({"nope": []}, frozenset({"name"}))
    with pytest.raises(InvalidParameter, match="invalid syntax"):
        _call("t=ten").number("t")
    assert _call("t=10").number("t") == 10
    assert _call("").number("t") is None


def _subclasses(kind):
    for sub in kind.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def test_every_kind_has_one_status():
    for kind in set(_subclasses(errors.EngineError)):
        bases = [base for base in kind.__mro__ if base in status._BY_KIND]
        assert len(bases) >= 2, f"{kind.__name__} has no status of its own kind"
        assert status.status_of(errors.EngineError.__new__(kind)) >= 300
