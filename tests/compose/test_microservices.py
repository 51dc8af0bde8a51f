"""examples/microservices from an empty engine to its end. Needs a package mirror, takes minutes:

tests/compose/run      (not part of ./run-tests)
"""

import json
import os
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.registry import free_port
from harness.waiting import until

EXAMPLE = Path(__file__).parents[2] / "examples" / "microservices"
pytestmark = pytest.mark.skipif(
    not os.environ.get("TEU_TEST_LONG"), reason="takes minutes: tests/compose/run"
)


class Example:
    def __init__(self, cli: Cli, port: int) -> None:
        self.cli = cli
        self.port = port

    def ok(self, *words: str) -> str:
        self.cli.env["WEB_PORT"] = str(self.port)
        file = str(EXAMPLE / "compose.yaml")
        done = self.cli.run("compose", "-f", file, *words, timeout_s=1200)
        assert done.code == 0, done
        return done.out

    def get(self, path: str, **form: str) -> bytes:
        data = urllib.parse.urlencode(form).encode() if form else None
        url = f"http://127.0.0.1:{self.port}{path}"
        with urllib.request.urlopen(url, data, timeout=20) as answer:
            found: bytes = answer.read()
            return found

    def results(self) -> list[Any]:
        rows: list[Any] = json.loads(self.get("/api/results"))
        return rows

    def count(self, word: str) -> list[Any]:
        """The row that a worker wrote for the word."""
        self.get("/api/jobs", word=word)
        rows = until(f"{word} is counted", lambda: [r for r in self.results() if r[0] == word], 30)
        found: list[Any] = rows[0]
        return found


@pytest.fixture
def example(private_engine: Engine) -> Iterator[Example]:
    found = Example(private_engine.cli("teu"), free_port())
    yield found
    found.ok("down", "-v", "--rmi", "all", "-t", "5")


@pytest.mark.timeout(1800)
def test_end_to_end(example: Example, private_engine: Engine) -> None:
    example.ok("up", "--build", "--wait")
    assert b"counted by workers" in example.get("/")
    assert example.count("hello")[1] == 5

    example.ok("up", "-d", "--wait", "--scale", "worker=3")
    workers = {example.count(f"word-{number}")[2] for number in range(30)}
    assert len(workers) > 1

    api = example.ok("ps", "-q", "api").split()[0]
    os.kill(int(private_engine.api.state(api)["Pid"]), 9)
    until("the api is back", lambda: private_engine.api.state(api)["Running"])
    time_limit = time.monotonic() + 30
    while time.monotonic() < time_limit:
        try:
            assert example.count("again")[1] == 5
            break
        except OSError:
            continue

    example.ok("down", "-t", "5")
    example.ok("up", "--wait")
    assert [row[0] for row in example.results()][:1] == ["hello"]  # the volume has kept it
