"""Fixtures of all suites. Nothing here starts before a test asks for it.

`engine`   the test process's one daemon, with everything the test made removed and leak checked
           afterwards
`private_engine`   a daemon for this test alone: for those that kill it
`cli`      a client of `engine`; the test runs once with `docker` and once with `teu`
`names`    makes object names that carry the test's name
"""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from harness import leaks
from harness.clients import Cli
from harness.engine import Engine
from harness.registry import Registry, lab_storage
from harness.waiting import until

CLIENTS = ("docker", "teu")
_CLEAN_LIMIT_S = 10
_ENGINE: pytest.StashKey[Engine] = pytest.StashKey()
_LOG_START: pytest.StashKey[int] = pytest.StashKey()

# The same examples in every run, and no limit on a slow machine's single example. To look for new
# ones: HYPOTHESIS_PROFILE=explore.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))


@pytest.fixture(scope="session")
def lab_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`HOST:PORT` of a registry with the labs' images below library/."""
    with Registry(lab_storage(), tmp_path_factory.mktemp("registry"), read_only=True) as registry:
        yield registry.address


@pytest.fixture(scope="session")
def shared_engine(lab_registry: str) -> Iterator[Engine]:
    """One daemon for all tests of this process; tests use `engine`."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = Engine(lab_registry)
    try:
        engine.start()
        _warm_up(engine)
        yield engine
    finally:
        engine.close()


def _warm_up(engine: Engine) -> None:
    """One container through its whole life, so that what is opened once is open."""
    reply = engine.api.request(
        "POST", "/images/create", fromImage="busybox", tag="latest", timeout_s=60
    )
    assert reply.status == 200, reply
    made = engine.api.request("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})
    assert made.status == 201, made
    container = made.json()["Id"]
    for path in ("start", "wait"):
        reply = engine.api.request("POST", f"/containers/{container}/{path}")
        assert reply.status in (200, 204), reply
    engine.api.request("DELETE", f"/containers/{container}")
    made = engine.api.request("POST", "/networks/create", {"Name": "warm-up"})
    assert made.status == 201, made
    if engine.kind == "teu":
        until("the resolver runs", (engine.exec_root / "resolver.sock").exists)
    engine.api.request("DELETE", "/networks/warm-up")


@pytest.fixture
def engine(shared_engine: Engine, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The daemon under test. After the test nothing of it may be left on the machine."""
    yield from _checked(shared_engine, request)


@pytest.fixture
def private_engine(lab_registry: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A daemon of this test's own, which it may kill and start again."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = Engine(lab_registry)
    if marker := request.node.get_closest_marker("engine_options"):
        engine.options = marker.kwargs.get(engine.kind, ())
    if engine.kind == "external":
        engine.close()
        pytest.skip("cannot kill an engine that was not started here")
    try:
        engine.start()
        _warm_up(engine)
        yield from _checked(engine, request)
    finally:
        engine.close()


def _checked(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Engine]:
    if not engine.running():
        engine.start()
    request.node.stash[_ENGINE] = engine
    request.node.stash[_LOG_START] = engine.log.stat().st_size
    before = leaks.snapshot(engine)
    process = engine.process
    files = leaks.open_files(engine) if process else None
    began_s = int(time.time())
    yield engine
    assert engine.running(), f"the daemon died: {engine.log_tail()}"
    gone = (_made_since(engine, began_s) | engine.known_ids) - before.containers
    engine.known_ids.clear()
    leaks.remove_new(engine, before)
    if engine.kind == "dockerd" and process is not engine.process:
        return  # the peer leaks when it was killed
    _until_clean(engine, before, gone)
    if engine.kind == "teu" and process is engine.process and files is not None:
        _until_files_closed(engine, files)


def _until_files_closed(engine: Engine, before: Counter[str]) -> None:
    """The daemon keeps no descriptor that it had not before."""
    deadline = time.monotonic() + _CLEAN_LIMIT_S
    while (more := leaks.open_files(engine) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not more, f"the daemon keeps open: {dict(more)}"


def _made_since(engine: Engine, began_s: int) -> set[str]:
    """Ids of containers made since then, those that are removed already among them."""
    query: dict[str, Any] = {
        "since": began_s,
        "until": int(time.time()) + 1,
        "filters": '{"type":["container"]}',
    }
    reply = engine.api.request("GET", "/events", **query)
    found = set(re.findall(r'"id":"([0-9a-f]{64})"', reply.body.decode(errors="replace")))
    return found | engine.api.container_ids()


def _until_clean(engine: Engine, before: leaks.Snapshot, gone: set[str]) -> None:
    deadline = time.monotonic() + _CLEAN_LIMIT_S
    left = leaks.traces(engine, before, gone)
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = leaks.traces(engine, before, gone)
    assert not left, f"left behind: {left}"


@pytest.fixture(params=CLIENTS)
def cli(engine: Engine, request: pytest.FixtureRequest) -> Cli:
    """The command line clients, one after the other."""
    return engine.cli(request.param)


@pytest.fixture
def names(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """`names("web")` is a name that only this test uses."""
    test = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name).strip("-")
    return lambda what: f"{test}-{what}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """A failed test shows what the daemon wrote during it."""
    report = yield
    engine = item.stash.get(_ENGINE, None)
    if report.failed and engine and engine.log.exists():
        with Path(engine.log).open("rb") as log:
            log.seek(item.stash[_LOG_START])
            report.sections.append(("daemon's log", log.read().decode(errors="replace")[-8000:]))
    return report
