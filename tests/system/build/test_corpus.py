"""Every Dockerfile of `corpus/`: each feature once right and once wrong.

`expect.toml` may say: `query` (parameters of the request), `error` (an expression), `code` and
`status` of a failure, `log` (expressions that the output has, in any order), `not_log`, `config`
(a part of the image's), `files` (see harness/builds.py), `history` (texts of created_by, newest
last), `layers` (how many more than the base has).
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness import builds
from harness.engine import Engine

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.txt"))
KNOWN = {
    "query", "error", "code", "status", "log", "not_log", "config", "files", "history", "layers",
}  # fmt: skip


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_corpus(path: Path, engine: Engine) -> None:
    case = builds.read_case(path)
    expect = case.expect
    assert expect, "a case expects something"
    assert expect.keys() <= KNOWN, expect.keys() - KNOWN
    query = {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in expect.get("query", {}).items()
    }
    context = builds.context_tar(case.files)
    done = builds.build(engine.api, context, **query)
    for pattern in expect.get("log", []):
        assert re.search(pattern, done.log), f"no {pattern!r} in {done.log}"
    for pattern in expect.get("not_log", []):
        assert not re.search(pattern, done.log), f"{pattern!r} is in {done.log}"
    if "error" in expect:
        assert re.search(expect["error"], done.error), done
        assert done.code == expect.get("code", done.code), done
        assert done.status == expect.get("status", done.status), done
        return
    assert done.image, done
    _check_image(engine, done.image, expect)
    again = builds.build(engine.api, context, **query)
    if "nocache" not in query:
        assert again.image == done.image, "an unchanged build gave another image"
        assert "Running in" not in again.log, again.log


def _check_image(engine: Engine, image: str, expect: dict[str, Any]) -> None:
    shown = engine.api.get(f"/images/{image}/json")
    for name, value in expect.get("config", {}).items():
        assert shown["Config"].get(name) == value, f"{name}: {shown['Config'].get(name)!r}"
    if "layers" in expect:
        base = engine.api.get("/images/busybox/json")
        more = len(shown["RootFS"]["Layers"]) - len(base["RootFS"]["Layers"])
        assert more == expect["layers"]
    if "history" in expect:
        rows = [row["CreatedBy"] for row in engine.api.get(f"/images/{image}/history")]
        rows.reverse()
        assert rows[-len(expect["history"]) :] == expect["history"]
    if files := expect.get("files"):
        tree = builds.tree_of(engine.api, image)
        for path, wanted in files.items():
            builds.check_file(path, tree.get(path), wanted)
