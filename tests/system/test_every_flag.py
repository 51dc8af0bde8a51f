"""Every flag of `create`, `run` and `update`: it arrives, and inspect shows it. What it does inside
is seen in test_run_flags.py, test_limits.py, test_devices.py and others."""

# ruff: noqa: E501  (a table is read by its columns)

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from teu.cli.commands.changes import COMMANDS
from teu.cli.run_flags import CREATE_FLAGS, RUN_FLAGS

H, C = "HostConfig", "Config"
MB = 1 << 20
V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
# flag, its words (FILE, NAME and OTHER are replaced), where inspect shows it, what it shows.
# Rows that stand in each other's way are in different lists.
FIRST: list[tuple[str, list[str], str, Any]] = [
    ("add-host", ["--add-host", "a:192.0.2.1"], f"{H}.ExtraHosts", ["a:192.0.2.1"]),
    ("annotation", ["--annotation", "a=b"], f"{H}.Annotations", {"a": "b"}),
    ("attach", ["-a", "stdout"], f"{C}.AttachStdout", True),
    ("cap-add", ["--cap-add", "NET_ADMIN"], f"{H}.CapAdd", ["CAP_NET_ADMIN"]),
    ("cap-drop", ["--cap-drop", "MKNOD"], f"{H}.CapDrop", ["CAP_MKNOD"]),
    ("cgroup-parent", ["--cgroup-parent", "/NAME"], f"{H}.CgroupParent", "/NAME"),
    ("cgroupns", ["--cgroupns", "private"], f"{H}.CgroupnsMode", "private"),
    ("cidfile", ["--cidfile", "FILE.cid"], f"{H}.ContainerIDFile", "FILE.cid"),
    ("cpu-period", ["--cpu-period", "50000"], f"{H}.CpuPeriod", 50000),
    ("cpu-quota", ["--cpu-quota", "20000"], f"{H}.CpuQuota", 20000),
    ("cpu-shares", ["-c", "300"], f"{H}.CpuShares", 300),
    ("cpuset-cpus", ["--cpuset-cpus", "0"], f"{H}.CpusetCpus", "0"),
    ("cpuset-mems", ["--cpuset-mems", "0"], f"{H}.CpusetMems", "0"),
    ("device", ["--device", "/dev/null:/dev/n:rw"], f"{H}.Devices", [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "rw"}]),
    ("device-cgroup-rule", ["--device-cgroup-rule", "c 1:3 rwm"], f"{H}.DeviceCgroupRules", ["c 1:3 rwm"]),
    ("disable-content-trust", ["--disable-content-trust"], f"{C}.Image", "busybox"),
    ("dns", ["--dns", "192.0.2.53"], f"{H}.Dns", ["192.0.2.53"]),
    ("dns-opt", ["--dns-opt", "ndots:3"], f"{H}.DnsOptions", ["ndots:3", "rotate"]),
    ("dns-option", ["--dns-option", "rotate"], f"{H}.DnsOptions", ["ndots:3", "rotate"]),
    ("dns-search", ["--dns-search", "example.org"], f"{H}.DnsSearch", ["example.org"]),
    ("domainname", ["--domainname", "example.org"], f"{C}.Domainname", "example.org"),
    ("entrypoint", ["--entrypoint", "/bin/sh"], f"{C}.Entrypoint", ["/bin/sh"]),
    ("env", ["-e", "A=1"], f"{C}.Env", "A=1"),
    ("env-file", ["--env-file", "FILE.env"], f"{C}.Env", "FROM=file"),
    ("expose", ["--expose", "81"], f"{C}.ExposedPorts", {"81/tcp": {}, "82/tcp": {}}),
    ("group-add", ["--group-add", "99"], f"{H}.GroupAdd", ["99"]),
    ("health-cmd", ["--health-cmd", "true"], f"{C}.Healthcheck.Test", ["CMD-SHELL", "true"]),
    ("health-interval", ["--health-interval", "5s"], f"{C}.Healthcheck.Interval", 5_000_000_000),
    ("health-retries", ["--health-retries", "4"], f"{C}.Healthcheck.Retries", 4),
    ("health-start-interval", ["--health-start-interval", "2s"], f"{C}.Healthcheck.StartInterval", 2_000_000_000),
    ("health-start-period", ["--health-start-period", "3s"], f"{C}.Healthcheck.StartPeriod", 3_000_000_000),
    ("health-timeout", ["--health-timeout", "1s"], f"{C}.Healthcheck.Timeout", 1_000_000_000),
    ("hostname", ["-h", "box"], f"{C}.Hostname", "box"),
    ("init", ["--init"], f"{H}.Init", True),
    ("interactive", ["-i"], f"{C}.OpenStdin", True),
    ("ipc", ["--ipc", "shareable"], f"{H}.IpcMode", "shareable"),
    ("isolation", ["--isolation", "default"], f"{H}.Isolation", "default"),
    ("kernel-memory", ["--kernel-memory", "64m"], f"{C}.Image", "busybox"),
    ("label", ["-l", "a=b"], f"{C}.Labels", {"a": "b", "from": "file"}),
    ("label-file", ["--label-file", "FILE.labels"], f"{C}.Labels", {"a": "b", "from": "file"}),
    ("log-driver", ["--log-driver", "json-file"], f"{H}.LogConfig.Type", "json-file"),
    ("log-opt", ["--log-opt", "max-size=1m"], f"{H}.LogConfig.Config.max-size", "1m"),
    ("memory", ["-m", "64m"], f"{H}.Memory", 64 * MB),
    ("memory-reservation", ["--memory-reservation", "32m"], f"{H}.MemoryReservation", 32 * MB),
    ("memory-swap", ["--memory-swap", "96m"], f"{H}.MemorySwap", 96 * MB),
    ("mount", ["--mount", "type=tmpfs,dst=/m"], f"{H}.Mounts.0.Target", "/m"),
    ("name", ["--name", "NAME"], "Name", "/NAME"),
    ("oom-score-adj", ["--oom-score-adj", "7"], f"{H}.OomScoreAdj", 7),
    ("pid", ["--pid", "host"], f"{H}.PidMode", "host"),
    ("pids-limit", ["--pids-limit", "50"], f"{H}.PidsLimit", 50),
    ("publish", ["-p", "127.0.0.1:0:82"], f"{H}.PortBindings.82/tcp.0.HostIp", "127.0.0.1"),
    ("publish-all", ["-P"], f"{H}.PublishAllPorts", True),
    ("pull", ["--pull", "missing"], f"{C}.Image", "busybox"),
    ("quiet", ["-q"], f"{C}.Image", "busybox"),
    ("read-only", ["--read-only"], f"{H}.ReadonlyRootfs", True),
    ("restart", ["--restart", "on-failure:3"], f"{H}.RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
    ("security-opt", ["--security-opt", "no-new-privileges"], f"{H}.SecurityOpt.0", "no-new-privileges"),
    ("shm-size", ["--shm-size", "3m"], f"{H}.ShmSize", 3 * MB),
    ("stop-signal", ["--stop-signal", "SIGUSR1"], f"{C}.StopSignal", "SIGUSR1"),
    ("stop-timeout", ["--stop-timeout", "3"], f"{C}.StopTimeout", 3),
    ("sysctl", ["--sysctl", "net.core.somaxconn=77"], f"{H}.Sysctls", {"net.core.somaxconn": "77"}),
    ("tmpfs", ["--tmpfs", "/t:size=1m"], f"{H}.Tmpfs", {"/t": "size=1m"}),
    ("tty", ["-t"], f"{C}.Tty", True),
    ("ulimit", ["--ulimit", "nofile=100:200"], f"{H}.Ulimits.0", {"Name": "nofile", "Soft": 100, "Hard": 200}),
    ("user", ["-u", "33:44"], f"{C}.User", "33:44"),
    ("userns", ["--userns", "host"], f"{H}.UsernsMode", "host"),
    ("volume", ["-v", "/anonymous"], f"{C}.Volumes", {"/anonymous": {}}),
    ("volume-driver", ["--volume-driver", "local"], f"{H}.VolumeDriver", "local"),
    ("volumes-from", ["--volumes-from", "OTHER:ro"], f"{H}.VolumesFrom", ["OTHER:ro"]),
    ("workdir", ["-w", "/work"], f"{C}.WorkingDir", "/work"),
    ("mac-address", ["--mac-address", "02:42:ac:11:00:99"], "NetworkSettings.Networks.NAME.MacAddress", "02:42:ac:11:00:99"),
    ("network", ["--network", "NAME"], f"{H}.NetworkMode", "NAME"),
    ("network-alias", ["--network-alias", "web"], "NetworkSettings.Networks.NAME.Aliases", "web"),
    ("net-alias", ["--net-alias", "www"], "NetworkSettings.Networks.NAME.Aliases", "www"),
    ("ip", ["--ip", "SUBNET.9"], "NetworkSettings.Networks.NAME.IPAMConfig.IPv4Address", "SUBNET.9"),
    ("link", ["--link", "OTHER:web"], "NetworkSettings.Networks.NAME.Links", ["OTHER:web"]),
    ("platform", ["--platform", "linux"], "Platform", "linux"),
    ("runtime", ["--runtime", "RUNTIME"], f"{H}.Runtime", "RUNTIME"),
]  # fmt: skip
SECOND: list[tuple[str, list[str], str, Any]] = [
    ("cpus", ["--cpus", "0.5"], f"{H}.NanoCpus", 500_000_000),
    ("memory-swappiness", ["--memory-swappiness", "-1"], f"{H}.MemorySwappiness", None),
    ("net", ["--net", "none"], f"{H}.NetworkMode", "none"),
    ("no-healthcheck", ["--no-healthcheck"], f"{C}.Healthcheck.Test", ["NONE"]),
    ("oom-kill-disable", ["--oom-kill-disable=false"], f"{H}.OomKillDisable", [False, None]),
    ("privileged", ["--privileged"], f"{H}.Privileged", True),
    ("rm", ["--rm"], f"{H}.AutoRemove", True),
    ("uts", ["--uts", "host"], f"{H}.UTSMode", "host"),
]
# What the client or the engine refuses, or this host decides about: seen elsewhere, or Windows'.
ELSEWHERE = {
    "blkio-weight", "blkio-weight-device", "device-read-bps", "device-read-iops",  # below
    "device-write-bps", "device-write-iops", "cpu-rt-period", "cpu-rt-runtime",  # below
    "gpus", "storage-opt",  # test_devices.py
    "health-on-failure",  # test_health.py; not Docker's
    "ip6", "link-local-ip",  # test_network_*.py
    "cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops",  # Windows
    "use-api-socket",  # refused
    "detach", "detach-keys", "sig-proxy",  # of run: tests/system/cli
}  # fmt: skip


def test_the_table_is_whole() -> None:
    flags = {flag.name for flag in (*CREATE_FLAGS, *RUN_FLAGS)}
    rows = [row[0] for row in (*FIRST, *SECOND)]
    assert len(set(rows)) == len(rows)
    assert set(rows) | ELSEWHERE == flags
    assert not set(rows) & ELSEWHERE


def shown_at(value: Any, path: str) -> Any:
    while path and isinstance(value, dict):
        if path in value:
            return value[path]
        name, _, path = path.partition(".")
        value = value.get(name)
        if isinstance(value, list) and path:
            index, _, path = path.partition(".")
            value = value[int(index)]
    return value


def holds(found: Any, expected: Any) -> bool:
    if found == expected:
        return True
    if isinstance(found, list):
        return expected in found
    return isinstance(expected, list) and found in expected


@pytest.fixture
def subnet(engine: Engine, names: Names) -> Iterator[str]:
    """The first three bytes of the addresses of a network that is called `names("a")`."""
    if engine.kind == "dockerd":
        pytest.skip("this docker daemon is too old for some")
    docker, name = engine.cli("docker"), names("a").lower()
    addresses = f"10.142.{engine.slot.number}"
    docker.ok("network", "create", "--subnet", f"{addresses}.0/24", name)
    yield addresses
    docker.run("rm", "-f", name, names("other"))
    docker.ok("network", "rm", name)


@pytest.mark.parametrize("rows", [FIRST, SECOND], ids=["first", "second"])
def test_flags_of_create(
    cli: Cli,
    engine: Engine,
    names: Names,
    tmp_path: Path,
    subnet: str,
    rows: list[tuple[str, list[str], str, Any]],
) -> None:
    name, other = names("a").lower(), names("other")
    (tmp_path / "f.env").write_text("FROM=file\n")
    (tmp_path / "f.labels").write_text("from=file\n")
    cli.ok("run", "-d", "--name", other, "--network", name, "-v", "/v", "busybox", "sleep", "1000")
    replaced = {
        "FILE": str(tmp_path / "f"), "NAME": name, "OTHER": other, "SUBNET": subnet,
        "RUNTIME": engine.api.get("/info")["DefaultRuntime"],
    }  # fmt: skip

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            for word, text in replaced.items():
                value = value.replace(word, text)
        return [filled(each) for each in value] if isinstance(value, list) else value

    words = [filled(word) for _, given, _, _ in rows for word in given]
    created = cli.run("create", *words, "busybox", "-c", "sleep 1000")
    assert created.code == 0, created
    shown = engine.api.inspect(created.out.strip())
    wrong = {
        flag: found
        for flag, _, path, expected in rows
        if not holds(found := shown_at(shown, filled(path)), filled(expected))
    }
    assert not wrong
    if rows is FIRST:
        cli.ok("start", name)
        assert engine.api.state(name)["Running"]
        cli.ok("rm", "-f", name)


UPDATES: list[tuple[str, list[str], str, Any]] = [
    ("cpu-period", ["--cpu-period", "60000"], f"{H}.CpuPeriod", 60000),
    ("cpu-quota", ["--cpu-quota", "30000"], f"{H}.CpuQuota", 30000),
    ("cpu-shares", ["-c", "400"], f"{H}.CpuShares", 400),
    ("cpuset-cpus", ["--cpuset-cpus", "0"], f"{H}.CpusetCpus", "0"),
    ("cpuset-mems", ["--cpuset-mems", "0"], f"{H}.CpusetMems", "0"),
    ("kernel-memory", ["--kernel-memory", "64m"], "State.Running", True),
    ("memory", ["-m", "96m"], f"{H}.Memory", 96 * MB),
    ("memory-reservation", ["--memory-reservation", "48m"], f"{H}.MemoryReservation", 48 * MB),
    ("memory-swap", ["--memory-swap", "128m"], f"{H}.MemorySwap", 128 * MB),
    ("pids-limit", ["--pids-limit", "70"], f"{H}.PidsLimit", 70),
    ("restart", ["--restart", "always"], f"{H}.RestartPolicy.Name", "always"),
]
UPDATES_ELSEWHERE = {"blkio-weight", "cpu-rt-period", "cpu-rt-runtime", "cpus"}


def test_flags_of_update(cli: Cli, engine: Engine, names: Names) -> None:
    """On a running container; the kernel has the new limits."""
    flags = {flag.name for flag in COMMANDS["container update"].flags}
    assert {row[0] for row in UPDATES} | UPDATES_ELSEWHERE == flags
    cli.ok("run", "-d", "--name", names("a"), "-m", "64m", "busybox", "sleep", "1000")
    words = [word for _, given, _, _ in UPDATES for word in given]
    cli.ok("update", *words, names("a"))
    shown = engine.api.inspect(names("a"))
    wrong = {
        flag: found
        for flag, _, path, expected in UPDATES
        if (found := shown_at(shown, path)) != expected
    }
    assert not wrong
    files = (
        "memory.max pids.max cpu.max"
        if V2
        else "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us"
    )
    script = f"cd /sys/fs/cgroup; cat {files}"
    expected = [str(96 * MB), "70", *(["30000", "60000"] if V2 else ["30000"])]
    assert cli.ok("exec", names("a"), "sh", "-c", script).split() == expected
    cli.ok("update", "--restart", "no", "--pids-limit", "-1", names("a"))
    shown = engine.api.inspect(names("a"))[H]
    assert (shown["RestartPolicy"]["Name"], shown["PidsLimit"]) == ("no", 0)
    cli.ok("stop", "-t", "0", names("a"))
    cli.ok("update", "--cpus", "0", "--memory", "100m", names("a"))
    assert engine.api.inspect(names("a"))[H]["Memory"] == 100 * MB


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cpus", "1"], "Nano CPUs cannot be updated as CPU Quota has already been set"),
        (["--memory", "1m"], "Minimum memory limit allowed is 6MB"),
        (["--memory", "512m"], "Memory limit should be smaller than already set memoryswap limit"),
        (["--cpuset-cpus", "4000"], "Requested CPUs are not available"),
        (["--restart", "always"], "Restart policy cannot be updated because AutoRemove is enabled"),
        (["--restart", "sometimes"], "sometimes"),
    ],
)
def test_updates_that_are_refused(
    cli: Cli, engine: Engine, names: Names, words: list[str], said: str
) -> None:
    options = ["--rm", "-m", "64m", "--cpu-quota", "20000"]
    cli.ok("run", "-d", "--name", names("a"), *options, "busybox", "sleep", "1000")
    before = engine.api.inspect(names("a"))[H]
    assert said in cli.fails(1, "update", *words, names("a"))
    assert engine.api.inspect(names("a"))[H] == before


# --- what depends on the host -----------------------------------------------------------------


def a_disk() -> str:
    for entry in sorted(Path("/sys/block").iterdir()):
        if not entry.name.startswith(("loop", "ram", "zram")) and Path("/dev", entry.name).exists():
            return f"/dev/{entry.name}"
    pytest.skip("no disk here")


def test_rates_of_block_devices(cli: Cli, engine: Engine, names: Names) -> None:
    disk = a_disk()
    rates = {"read-bps": "1mb", "write-bps": "3mb", "read-iops": "200", "write-iops": "100"}
    words = [
        word for name, rate in rates.items() for word in (f"--device-{name}", f"{disk}:{rate}")
    ]
    v1 = "cd /sys/fs/cgroup/blkio; for i in read_bps write_bps read_iops write_iops; do cat blkio.throttle.${i}_device; done"
    script = "cat /sys/fs/cgroup/io.max" if V2 else v1
    cli.ok("run", "-d", "--name", names("a"), *words, "busybox", "sleep", "1000")
    out = cli.ok("exec", names("a"), "sh", "-c", script)
    found = [part.rpartition("=")[2] for part in out.split() if ":" not in part]
    assert found == [str(MB), str(3 * MB), "200", "100"]
    shown = engine.api.inspect(names("a"))[H]
    assert shown["BlkioDeviceReadBps"] == [{"Path": disk, "Rate": MB}]
    assert shown["BlkioDeviceWriteIOps"] == [{"Path": disk, "Rate": 100}]


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (["--blkio-weight", "300"], "BlkioWeight", 300),
        (
            ["--blkio-weight-device", "DISK:200"],
            "BlkioWeightDevice",
            [{"Path": "DISK", "Weight": 200}],
        ),
        (["--memory-swappiness", "40"], "MemorySwappiness", 40),
        (["--oom-kill-disable", "-m", "64m"], "OomKillDisable", True),
    ],
)
def test_a_limit_is_set_or_its_absence_is_told(
    cli: Cli, engine: Engine, names: Names, words: list[str], field: str, value: Any
) -> None:
    """Docker discards what the kernel cannot limit, with a warning."""
    words = [word.replace("DISK", a_disk()) for word in words]
    done = cli.run("create", "--name", names("a"), *words, "busybox", "true")
    assert done.code == 0, done
    found = engine.api.inspect(names("a"))[H][field]
    if "discarded" in done.err:
        assert not found
    else:
        asked = str(value).replace("DISK", a_disk())
        assert str(found) == asked


def test_real_time_is_given_or_refused(cli: Cli, engine: Engine, names: Names) -> None:
    words = ["--cpu-rt-period", "1000000", "--cpu-rt-runtime", "1000"]
    done = cli.run("run", "--rm", *words, "busybox", "true")
    assert done.code in (0, 125), done
    if done.code:
        assert "rt_runtime" in done.err or "real-time scheduler" in done.err
