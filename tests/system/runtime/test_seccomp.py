"""System call filters in effect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from teu.runtime.config import RuntimeBinary

if TYPE_CHECKING:
    from .conftest import Bench


# Nothing here may change the host when it succeeds.
PROBES = (
    "unshare -m true; unshare -U true; mount -t tmpfs none /tmp; chroot / true; "
    "ping -c 1 127.0.0.1 | head -1; hostname x; nice -n -5 true"
)


def _profile(bench: Bench, script: str, **host: Any) -> list[str]:
    return bench.output(f"({script}) 2>&1 || true", host=host).splitlines()


def test_compiled_filter_acts_like_the_runtimes_own(make_bench: Callable[..., Bench]) -> None:
    compiled = make_bench()
    plain = make_bench(
        runtimes={"other": RuntimeBinary("crun")},
    )
    plain.service._runtimes._crun.clear()
    for caps in ([], ["SYS_ADMIN"], ["SYS_NICE"]):
        first, second = (_profile(bench, PROBES, cap_add=caps) for bench in (compiled, plain))
        assert first == second
        assert bool(caps) or any("not permitted" in line for line in first)
    record = compiled.record("true")
    asyncio.run(compiled.prepare(record))
    config = json.loads((compiled.bundle(record) / "config.json").read_text())
    assert "seccomp" not in config["linux"]
    assert config["annotations"]["run.oci.seccomp_bpf_data"]
    record = plain.record("true")
    asyncio.run(plain.prepare(record))
    config = json.loads((plain.bundle(record) / "config.json").read_text())
    assert config["linux"]["seccomp"]["syscalls"]
    assert "annotations" not in config


def test_exec_is_filtered_too(bench: Bench) -> None:
    record, _ = bench.start()
    said = bench.exec(record, "grep Seccomp: /proc/self/status; unshare -U true").stdout.decode()
    assert bench.field(said, "Seccomp") == "2"
    assert bench.exec(record, "unshare -U true").returncode != 0


def test_own_profile(bench: Bench) -> None:
    profile = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
            ],
        }
    )
    said = _profile(bench, "/bin/busybox mkdir /x", security_opt=[f"seccomp={profile}"])
    assert "No space left on device" in said[0]


def test_unconfined(bench: Bench) -> None:
    host = {"security_opt": ["seccomp=unconfined"]}
    assert bench.output("grep Seccomp: /proc/self/status; unshare -U true", host=host).endswith("0")


def test_filter_cache_survives_and_heals(make_bench: Callable[..., Bench], tmp_path: Path) -> None:
    first = make_bench()
    files = list((first.exec_root / "seccomp").glob("*.bpf"))
    assert len(files) == 1
    program = files[0].read_bytes()
    files[0].write_bytes(b"broken")
    again = make_bench()
    assert files[0].read_bytes() == program
    assert again.output("grep Seccomp: /proc/self/status").endswith("2")
