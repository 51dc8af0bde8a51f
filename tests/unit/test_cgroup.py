"""Reading control groups of both versions, from trees made of plain files."""

from pathlib import Path

import pytest

from teu.runtime.hostfacts import HostFacts
from teu.sys.cgroup import UNLIMITED, Cgroups, IoCounter, Usage


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


@pytest.fixture
def unified(tmp_path: Path) -> Cgroups:
    write(
        tmp_path / "cg",
        {
            "cgroup.controllers": "cpuset cpu io memory pids\n",
            "cpuset.cpus.effective": "0-3\n",
            "teu/x/cgroup.procs": "30\n7\n",
            "teu/x/sub/cgroup.procs": "100\n",
            "teu/x/cgroup.events": "populated 1\nfrozen 1\n",
            "teu/x/cpu.stat": "usage_usec 10\nuser_usec 6\nsystem_usec 4\nnr_periods 3\n"
            "nr_throttled 2\nthrottled_usec 5\n",
            "teu/x/memory.current": "4096\n",
            "teu/x/memory.peak": "8192\n",
            "teu/x/memory.max": "max\n",
            "teu/x/memory.events": "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\n",
            "teu/x/memory.stat": "anon 1\nfile 2\n",
            "teu/x/pids.current": "3\n",
            "teu/x/pids.max": "20\n",
            "teu/x/io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:1 \n",
        },
    )
    return Cgroups.detect(tmp_path / "cg", tmp_path / "proc")


@pytest.fixture
def version1(tmp_path: Path) -> Cgroups:
    root = tmp_path / "cg1"
    write(
        tmp_path / "proc1",
        {
            "cgroups": "#subsys_name hierarchy num_cgroups enabled\n"
            "cpu 1 1 1\ncpuacct 1 1 1\nmemory 2 1 1\npids 3 1 1\nfreezer 4 1 1\nblkio 5 1 1\n"
            "perf_event 0 1 1\nrdma 0 1 0\n",
            "self/mountinfo": "".join(
                f"{number} 1 0:1 / {root}/{name} rw - cgroup cgroup rw,{options}\n"
                for number, (name, options) in enumerate(
                    [
                        ("cpu,cpuacct", "cpu,cpuacct"),
                        ("memory", "memory"),
                        ("pids", "pids"),
                        ("freezer", "freezer"),
                        ("blkio", "blkio"),
                        ("systemd", "xattr,name=systemd"),
                    ]
                )
            )
            + f"9 1 0:1 / {root}/unified rw - cgroup2 cgroup2 rw\n"
            "10 1 0:1 / /elsewhere rw - tmpfs tmpfs rw\n",
        },
    )
    write(
        root,
        {
            "unified/cgroup.controllers": "hugetlb\n",
            "cpu,cpuacct/cpu.shares": "1024\n",
            "cpu,cpuacct/t/cpuacct.usage": "1000\n",
            "cpu,cpuacct/t/cpuacct.usage_percpu": "400 600 \n",
            "cpu,cpuacct/t/cpuacct.stat": "user 3\nsystem 2\n",
            "cpu,cpuacct/t/cpu.stat": "nr_periods 5\nnr_throttled 4\nthrottled_time 7\n",
            "memory/memory.memsw.limit_in_bytes": "1\n",
            "memory/t/memory.usage_in_bytes": "4096\n",
            "memory/t/memory.max_usage_in_bytes": "8192\n",
            "memory/t/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/t/memory.failcnt": "6\n",
            "memory/t/memory.stat": "cache 1\nrss 2\n",
            "memory/t/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            "pids/t/cgroup.procs": "5\n3\n",
            "pids/t/pids.current": "2\n",
            "pids/t/pids.max": "50\n",
            "freezer/t/freezer.state": "FREEZING\n",
            "blkio/t/blkio.throttle.io_service_bytes": "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
        },
    )
    return Cgroups.detect(root, tmp_path / "proc1")


def test_unified_usage(unified: Cgroups) -> None:
    assert unified.unified
    assert unified.processes("/teu/x") == [7, 30, 100]
    assert unified.frozen("/teu/x") is True
    assert unified.oom_kills("/teu/x") == 2
    assert unified.usage("/teu/x") == Usage(
        cpu_total_ns=10_000,
        cpu_user_ns=6_000,
        cpu_system_ns=4_000,
        periods=3,
        throttled_periods=2,
        throttled_ns=5_000,
        memory_bytes=4096,
        memory_peak_bytes=8192,
        memory_limit_bytes=UNLIMITED,
        memory_failures=9,
        memory_detail={"anon": 1, "file": 2},
        pids=3,
        pids_limit=20,
        io_bytes=(IoCounter(8, 0, "read", 1), IoCounter(8, 0, "write", 2)),
        io_operations=(IoCounter(8, 0, "read", 3), IoCounter(8, 0, "write", 4)),
    )


def test_version1_usage(version1: Cgroups) -> None:
    assert not version1.unified
    assert version1.stray == {"hugetlb"}
    assert version1.processes("t") == [3, 5]
    assert version1.frozen("t") is True
    assert version1.oom_kills("t") == 3
    usage = version1.usage("t")
    assert usage == Usage(
        cpu_total_ns=1000,
        cpu_user_ns=30_000_000,
        cpu_system_ns=20_000_000,
        cpu_each_ns=(400, 600),
        periods=5,
        throttled_periods=4,
        throttled_ns=7,
        memory_bytes=4096,
        memory_peak_bytes=8192,
        memory_limit_bytes=UNLIMITED,
        memory_failures=6,
        memory_detail={"cache": 1, "rss": 2},
        pids=2,
        pids_limit=50,
        io_bytes=(IoCounter(8, 0, "read", 1), IoCounter(8, 0, "write", 2)),
    )


@pytest.mark.parametrize("version", ["unified", "version1"])
def test_a_group_that_is_gone(version: str, request: pytest.FixtureRequest) -> None:
    cgroups: Cgroups = request.getfixturevalue(version)
    assert cgroups.usage("/gone") == Usage()
    assert cgroups.processes("/gone") == []
    assert cgroups.frozen("/gone") is None
    assert cgroups.oom_kills("/gone") == 0
    cgroups.remove("/gone")
    cgroups.lift_pids_limit("/gone")


@pytest.mark.parametrize("version", ["unified", "version1"])
def test_lifting_the_limit(version: str, request: pytest.FixtureRequest) -> None:
    cgroups: Cgroups = request.getfixturevalue(version)
    path = "/teu/x" if cgroups.unified else "t"
    cgroups.lift_pids_limit(path)
    assert cgroups.usage(path).pids_limit == UNLIMITED


def test_remove_takes_all_trees_and_what_is_below(version1: Cgroups) -> None:
    made = [tree / "teu/id" for tree in version1.trees]
    assert len(made) == 7
    for folder in made:
        (folder / "below/deep").mkdir(parents=True)
    version1.remove("/teu/id")
    assert not any(folder.exists() for folder in made)
    assert all(folder.parent.exists() for folder in made)
    with pytest.raises(ValueError, match="root group"):
        version1.remove("/")


def test_host_facts_of_both_versions(unified: Cgroups, version1: Cgroups) -> None:
    new = HostFacts.detect(unified)
    assert new.memory
    assert new.pids
    assert new.blkio_throttle
    assert new.cpus == "0-3"
    assert not new.oom_kill_disable
    old = HostFacts.detect(version1)
    assert old.memory
    assert old.swap
    assert old.cpu_shares
    assert not old.cpu_quota
    assert not old.cpuset
    assert old.cpus == ""


def test_swap_is_seen_in_a_group_below_the_root(unified: Cgroups) -> None:
    top = unified.mounts["cgroup.procs"]
    assert not HostFacts.detect(unified).swap
    (top / "system.slice").mkdir()
    (top / "system.slice/memory.swap.max").write_text("max\n")
    assert HostFacts.detect(unified).swap


def test_host_without_any(tmp_path: Path) -> None:
    nothing = Cgroups.detect(tmp_path / "cg", tmp_path / "proc")
    assert not nothing.unified
    assert nothing.processes("/x") == []
    assert nothing.frozen("/x") is None
    assert nothing.usage("/x") == Usage()
    assert not HostFacts.detect(nothing).memory


def test_rejoin_moves_the_process_to_where_it_is(tmp_path: Path) -> None:
    before = Path("/proc/self/cgroup").read_text()
    names, path = before.splitlines()[-1].split(":")[1:]
    controller = names.partition(",")[0] or "cgroup.procs"
    write(tmp_path, {f"{path.lstrip('/') or '.'}/cgroup.procs": ""})
    Cgroups(not names, {controller: tmp_path}).rejoin()
    assert (tmp_path / path.lstrip("/") / "cgroup.procs").read_text() == "0"
    Cgroups.detect().rejoin()
    assert Path("/proc/self/cgroup").read_text() == before


def test_rejoin_is_content_where_there_is_no_group(tmp_path: Path) -> None:
    Cgroups(False, {}).rejoin()
    Cgroups(True, {"cgroup.procs": tmp_path / "gone"}).rejoin()
    assert not (tmp_path / "gone").exists()
