"""The core of the comparison of commands; `tests/parity/run` is the long form, with dockerd."""

import pytest

from harness.engine import Engine
from harness.registry import free_port
from parity.commands import all_commands
from parity.known import reason_of, uncovered
from parity.setups import Said, SetUp
from parity.transcript import masked, parse, scenarios

CORE = ("pause", "logs", "rm", "container prune", "inspect", "top, stats, port")
NAMES = [one.name for one in scenarios()]


def test_every_flag_has_a_line(docker: str) -> None:
    lines = [line for one in scenarios() for line in one.lines]
    assert uncovered(all_commands(docker), lines) == []


def test_a_flag_without_a_line_is_found(docker: str) -> None:
    lines = [line for one in scenarios() for line in one.lines if "--health-cmd" not in line]
    assert "container run --health-cmd" in uncovered(all_commands(docker), lines)


def test_names_of_scenarios_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(CORE) <= set(NAMES)


@pytest.fixture
def setups(engine: Engine, docker: str) -> list[SetUp]:
    nowhere = f"127.0.0.1:{free_port()}"
    return [SetUp(f"{name} client", engine, name, nowhere) for name in ("docker", "teu")]


@pytest.mark.parametrize("name", CORE)
def test_both_clients_do_the_same(setups: list[SetUp], name: str) -> None:
    scenario = next(one for one in scenarios() if one.name == name)
    theirs, ours = (setup.run(scenario, 0) for setup in setups)
    different = [
        (line, expected, said)
        for (line, expected), (_, said) in zip(theirs, ours, strict=True)
        if said != expected and not reason_of(line, expected, said)
    ]
    assert not different
    assert any(said.code == 0 for _, said in ours)


# --- the tools themselves -------------------------------------------------------------------------

VALUES = {
    "image": "busybox",
    "dir": "/tmp/x",
    "registry": "h:1",
    "host": "unix:///s",
    "net": "10.9",
}


def test_a_line_names_its_files() -> None:
    line = parse("- exec -i c sh -c 'cat > x' < text > made", VALUES)
    assert line.words == ("exec", "-i", "c", "sh", "-c", "cat > x")
    assert (line.compared, line.stdin, line.stdout) == (False, "text", "made")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a" * 63 + "1 up", "ID up"),
        ("sha256:" + "0" * 64, "DIGEST"),
        ("Created 3 seconds ago", "Created AGE"),
        ("About a minute ago | Up 2 hours", "AGE | Up AGE"),
        ("2024-05-01T10:20:30.123456789Z", "TIME"),
        ("1.24MB (virtual 2kB)", "SIZE (virtual SIZE)"),
        ("10.9.7.1 and 10.140.3.1/24", "NET.7.1 and ADDRESS"),
        ("a\t b \n\n c", "a b\nc"),
        ("sleep 1000 feedface", "sleep 1000 feedface"),
    ],
)
def test_chance_is_masked(text: str, expected: str) -> None:
    assert masked(text, VALUES) == expected


def test_what_differs_has_a_reason_or_not() -> None:
    old = Said(125, "", "docker: Error response from daemon: Invalid thing")
    assert reason_of(
        "run x", old, Said(125, "", "docker: Error response from daemon: invalid thing")
    )
    assert not reason_of("run x", old, Said(125, "", "docker: Error response from daemon: other"))
    assert not reason_of("run x", old, Said(1, "", old.err))
