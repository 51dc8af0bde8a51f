"""Limits at create: Docker's rules and texts, and what this host cannot do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.errors import InvalidParameter
from teu.model.config import HostConfig, ThrottleDevice, Ulimit, WeightDevice
from teu.runtime import limits
from teu.runtime.hostfacts import HostFacts

MIB = 1 << 20
ABLE = HostFacts(
    **dict.fromkeys(
        (
            *("memory", "swap", "memory_reservation", "memory_swappiness", "oom_kill_disable"),
            *("cpu_shares", "cpu_quota", "cpuset", "pids"),
            *("blkio_weight", "blkio_weight_device", "blkio_throttle"),
        ),
        True,
    ),
    cpu_count=2,
    cpus="0-1",
    memory_nodes="0",
)
UNABLE = HostFacts(cpu_count=2)


def refusal(host: dict[str, Any], facts: HostFacts = ABLE) -> str:
    with pytest.raises(InvalidParameter) as caught:
        limits.check(HostConfig(**host), facts)
    return caught.value.message


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"memory": 6 * MIB - 1}, "Minimum memory limit allowed is 6MB"),
        ({"memory": -5}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory": 8 * MIB, "memory_swap": 7 * MIB},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"memory_swap": 8 * MIB},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        ({"memory_swappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"memory_swappiness": -2}, "Invalid value: -2, valid memory swappiness range is 0-100"),
        ({"memory_reservation": MIB}, "Minimum memory reservation allowed is 6MB"),
        (
            {"memory": 8 * MIB, "memory_reservation": 9 * MIB},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            {"nano_cpus": 1, "cpu_period": 5000},
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            {"nano_cpus": 1, "cpu_quota": 5000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            {"nano_cpus": 3_000_000_000},
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            {"nano_cpus": -1},
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        ({"cpu_shares": -1}, "invalid CPU shares (-1): value must be a positive integer"),
        (
            {"cpu_period": 999},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"cpu_quota": 999}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"cpu_realtime_runtime": 1}, "kernel does not support CPU real-time scheduler"),
        (
            {"cpuset_cpus": "2"},
            "Requested CPUs are not available - requested 2, available: 0-1",
        ),
        (
            {"cpuset_mems": "0-1"},
            "Requested memory nodes are not available - requested 0-1, available: 0",
        ),
        ({"cpuset_cpus": "1-0"}, "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
        ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus: invalid format: x"),
        (
            {"cpuset_mems": "1-9223372036854775807"},
            "Invalid value 1-9223372036854775807 for cpuset mems: "
            "value of out range, maximum is 8192",
        ),
        ({"blkio_weight": 9}, "Range of blkio weight is from 10 to 1000"),
        ({"blkio_weight": 1001}, "Range of blkio weight is from 10 to 1000"),
        (
            {"io_maximum_iops": 1},
            "Invalid QoS settings: linux does not support Maximum IO Bandwidth or "
            "Maximum IO IOps",
        ),
        (
            {"oom_score_adj": 1001},
            "Invalid value 1001, range for oom score adj is [-1000, 1000]",
        ),
    ],
)  # fmt: skip
def test_refused_limits(host: dict[str, Any], message: str) -> None:
    assert refusal(host) == message


@pytest.mark.parametrize(
    "host",
    [
        {},
        {"memory": 6 * MIB, "memory_swap": -1},
        {"memory": 6 * MIB, "memory_swap": 6 * MIB},
        {"memory_swap": -1},
        {"nano_cpus": 2_000_000_000},
        {"cpuset_cpus": "0,1", "cpuset_mems": "0"},
        {"pids_limit": -1},
        {"pids_limit": 5},
        {"memory_swappiness": -1},
        {"cpu_quota": -1},
        {"blkio_weight": 10},
        {"oom_score_adj": -1000},
        {"ulimits": [Ulimit(name="nofile", soft=1, hard=1)]},
    ],
)
def test_accepted_limits(host: dict[str, Any]) -> None:
    assert limits.check(HostConfig(**host), ABLE) == []


@pytest.mark.parametrize(
    ("host", "warning", "left"),
    [
        (
            {"memory": 8 * MIB},
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. "
            "Limitation discarded.",
            {"memory": 0, "memory_swap": -1},
        ),
        (
            {"memory_swappiness": 5},
            "Your kernel does not support memory swappiness capabilities or the cgroup is not "
            "mounted. Memory swappiness discarded.",
            {"memory_swappiness": None},
        ),
        (
            {"memory_reservation": 8 * MIB},
            "Your kernel does not support memory soft limit capabilities or the cgroup is not "
            "mounted. Limitation discarded.",
            {"memory_reservation": 0},
        ),
        (
            {"oom_kill_disable": True},
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
            {"oom_kill_disable": None},
        ),
        (
            {"cpu_shares": 5},
            "Your kernel does not support CPU shares or the cgroup is not mounted. "
            "Shares discarded.",
            {"cpu_shares": 0},
        ),
        (
            {"cpu_quota": 5000},
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
            {"cpu_quota": 0},
        ),
        (
            {"cpuset_cpus": "77"},
            "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
            {"cpuset_cpus": ""},
        ),
        (
            {"blkio_weight": 5},
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. "
            "Weight discarded.",
            {"blkio_weight": 0},
        ),
        (
            {"blkio_weight_device": [WeightDevice(path="/x", weight=1)]},
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. "
            "Weight-device discarded.",
            {"blkio_weight_device": None},
        ),
        (
            {"blkio_device_write_iops": [ThrottleDevice(path="/x", rate=1)]},
            "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. "
            "IOPS Block write limit discarded.",
            {"blkio_device_write_iops": None},
        ),
        (
            {"pids_limit": 5},
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. "
            "PIDs limit discarded.",
            {"pids_limit": None},
        ),
        (
            {"cpu_percent": 5},
            "linux does not support CPU percent. Percent discarded.",
            {"cpu_percent": 0},
        ),
    ],
)
def test_discarded_with_a_warning(host: dict[str, Any], warning: str, left: dict[str, Any]) -> None:
    asked = HostConfig(**host)
    assert limits.check(asked, UNABLE) == [warning]
    assert {name: getattr(asked, name) for name in left} == left


def test_memory_without_swap_accounting() -> None:
    asked = HostConfig(memory=8 * MIB, memory_swap=16 * MIB)
    facts = HostFacts(memory=True)
    warning = limits.check(asked, facts)[0]
    assert warning.endswith("Memory limited without swap.")
    assert asked.memory_swap == -1


def test_silently_dropped() -> None:
    asked = HostConfig(oom_kill_disable=False, pids_limit=0)
    assert limits.check(asked, UNABLE) == []
    assert (asked.oom_kill_disable, asked.pids_limit) == (None, None)


def test_cpus_need_the_scheduler() -> None:
    assert refusal({"nano_cpus": 1}, UNABLE).startswith("NanoCPUs can not be set")


def test_oom_killer_off_without_a_limit() -> None:
    assert len(limits.check(HostConfig(oom_kill_disable=True), ABLE)) == 1


def test_update_may_change_swap_alone() -> None:
    assert limits.check(HostConfig(memory_swap=8 * MIB), ABLE, update=True) == []


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (("bogus", 1, 1), "invalid ulimit type: bogus"),
        (("NOFILE", 1, 1), "invalid ulimit type: NOFILE"),
        (
            ("nofile", 2, 1),
            "ulimit soft limit must be less than or equal to hard limit: 2 > 1",
        ),
        (
            ("nofile", -1, 5),
            "ulimit soft limit must be less than or equal to hard limit: "
            "soft: -1 (unlimited), hard: 5",
        ),
    ],
)
def test_bad_ulimits(limit: tuple[str, int, int], message: str) -> None:
    name, soft, hard = limit
    assert refusal({"ulimits": [Ulimit(name=name, soft=soft, hard=hard)]}) == message


def test_ulimit_above_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (50, 100))
    weak = HostFacts(can_raise_limits=False)
    for hard, shown in ((101, "101"), (-1, "unlimited")):
        message = refusal({"ulimits": [Ulimit(name="nofile", soft=1, hard=hard)]}, weak)
        assert message.startswith(
            f"ulimit nofile: the hard limit {shown} is above this host's hard limit 100; "
            "ask for at most 100, or raise the host's"
        )
    fits = HostConfig(ulimits=[Ulimit(name="nofile", soft=1, hard=100)])
    assert limits.check(fits, weak) == []
    strong = HostFacts(can_raise_limits=True, open_files_limit=200)
    assert limits.check(HostConfig(ulimits=[Ulimit(name="core", soft=-1, hard=-1)]), strong) == []
    message = refusal({"ulimits": [Ulimit(name="nofile", soft=1, hard=201)]}, strong)
    assert "sysctl fs.nr_open" in message


@given(st.sets(st.integers(0, 100), max_size=20))
def test_number_list_round_trip(numbers: set[int]) -> None:
    assert limits.number_list(",".join(map(str, numbers))) == numbers


@given(st.text(alphabet="0123456789-, x", max_size=12))
def test_number_list_never_fails_otherwise(text: str) -> None:
    try:
        found = limits.number_list(text)
    except ValueError:
        return
    assert all(0 <= number <= 8192 for number in found)
