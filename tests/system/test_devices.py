"""Devices that vendors describe (CDI), `--gpus`, and limits on a container's own space."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until

KIND = "example.com/lamp"


def spec(kind: str, *devices: dict[str, Any], **common: Any) -> dict[str, Any]:
    return {
        "cdiVersion": "0.6.0",
        "kind": kind,
        "devices": list(devices),
        "containerEdits": common,
    }


@pytest.fixture
def cdi(engine: Engine, tmp_path: Path) -> Iterator[tuple[Engine, Path]]:
    """The engine, told to look for CDI files in a directory of this test's own."""
    if engine.kind != "teu":
        pytest.skip("this docker daemon is too old for CDI")
    directory = tmp_path / "cdi"
    directory.mkdir()
    config = engine.root / "daemon.json"
    config.write_text(json.dumps({"cdi-spec-dirs": [str(directory)]}))
    os.kill(engine.pid, signal.SIGHUP)
    until("it looks there", lambda: engine.api.get("/info")["CDISpecDirs"] == [str(directory)])
    yield engine, directory
    config.write_text("{}")
    os.kill(engine.pid, signal.SIGHUP)


def write(directory: Path, name: str, content: dict[str, Any]) -> None:
    (directory / name).write_text(json.dumps(content))


def test_a_device_of_a_vendor(cdi: tuple[Engine, Path], tmp_path: Path) -> None:
    engine, directory = cdi
    (tmp_path / "library.so").write_text("vendor's")
    write(
        directory,
        "lamp.json",
        spec(
            KIND,
            {
                "name": "one",
                "containerEdits": {
                    "env": ["LAMP=one", "PATH=/vendor:/bin"],
                    "deviceNodes": [
                        {"path": "/dev/lamp", "hostPath": "/dev/null", "permissions": "r"},
                        {"path": "/dev/made", "type": "c", "major": 1, "minor": 5, "fileMode": 438},
                    ],
                    "additionalGIDs": [77],
                },
            },
            env=["VENDOR=1"],
            mounts=[
                {"hostPath": str(tmp_path / "library.so"), "containerPath": "/lib/vendor.so",
                 "options": ["ro", "bind"]},
            ],
        ),
    )  # fmt: skip
    for name in ("docker", "teu"):
        cli = engine.cli(name)
        script = (
            "echo $LAMP $VENDOR $PATH; cat /lib/vendor.so; echo; id -G;"
            "stat -c '%t:%T %a' /dev/lamp /dev/made; head -c1 /dev/made | wc -c"
        )
        out = cli.ok("run", "--rm", "--device", f"{KIND}=one", "busybox", "sh", "-c", script)
        assert out.splitlines() == [
            "one 1 /vendor:/bin", "vendor's", "0 77", "1:3 666", "1:5 666", "1",
        ]  # fmt: skip
        said = cli.fails(125, "run", "--rm", "--device", f"{KIND}=two", "busybox")
        assert f"unresolvable CDI devices {KIND}=two" in said
    assert engine.api.get("/info")["DiscoveredDevices"] == [{"Source": "cdi", "ID": f"{KIND}=one"}]


def test_files_in_yaml_and_broken_ones(cdi: tuple[Engine, Path]) -> None:
    pytest.importorskip("yaml")
    engine, directory = cdi
    (directory / "lamp.yaml").write_text(
        f"cdiVersion: 0.6.0\nkind: {KIND}\ndevices:\n- name: y\n"
        "  containerEdits:\n    env: [LAMP=yaml]\n"
    )
    cli = engine.cli("docker")
    run = ["run", "--rm", "--device", f"{KIND}=y", "busybox", "sh", "-c", "echo $LAMP"]
    assert cli.ok(*run) == "yaml"
    for broken in ("{", "a: [", "just text", "cdiVersion: 1\nkind: 5\n"):
        (directory / "broken.yaml").write_text(broken)
        assert "broken.yaml" in cli.fails(125, *run)
        assert engine.api.get("/info")["DiscoveredDevices"] == []
    (directory / "broken.yaml").unlink()
    assert cli.ok(*run) == "yaml"


@pytest.mark.parametrize(
    ("asked", "expected"), [("all", "all"), ("2", "0 1"), ("1", "0"), ("device=1,2", "1 2")]
)
def test_gpus(cdi: tuple[Engine, Path], asked: str, expected: str) -> None:
    engine, directory = cdi
    cards = [
        {"name": name, "containerEdits": {"env": [f"CARD_{name}={name}"]}}
        for name in ("0", "1", "2", "all")
    ]
    write(directory, "gpu.json", spec("nvidia.com/gpu", *cards))
    for name in ("docker", "teu"):
        cli = engine.cli(name)
        value = f'"{asked}"' if "," in asked else asked
        script = "echo $CARD_0 $CARD_1 $CARD_2 $CARD_all"
        command = ["run", "--rm", "--gpus", value, "busybox", "sh", "-c", script]
        assert cli.ok(*command) == expected
        assert "asks for 7 devices" in cli.fails(125, "run", "--rm", "--gpus", "7", "busybox")


def test_gpus_without_any(cli: Cli) -> None:
    said = cli.fails(125, "run", "--rm", "--gpus", "all", "busybox", "true")
    assert 'could not select device driver "" with capabilities: [[gpu]]' in said


# --- the size of the rw layer -----------------------------------------------------------------


def test_a_size_needs_a_file_system_with_quotas(cli: Cli, names: Names) -> None:
    said = cli.fails(1, "create", "--name", names("a"), "--storage-opt", "size=1g", "busybox")
    assert "--storage-opt is supported only for overlay over xfs with 'pquota'" in said
    said = cli.fails(1, "create", "--storage-opt", "colour=red", "busybox")
    assert "Unknown option colour" in said


@pytest.fixture
def with_quotas(private_engine: Engine, tmp_path: Path) -> Iterator[Engine]:
    """An engine whose data root is on an ext4 that counts projects."""
    if private_engine.kind == "dockerd":
        pytest.skip("Docker does this on xfs only")
    image = tmp_path / "disk"
    with image.open("wb") as disk:
        disk.truncate(300 << 20)
    place = tmp_path / "mounted"
    place.mkdir()
    for command in (
        ["mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota", str(image)],
        ["mount", "-o", "loop,prjquota", str(image), str(place)],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no ext4 with project quotas here: {done.stderr.strip()}")
    private_engine.terminate()
    for command in (
        ["umount", str(place)],
        ["mount", "-o", "loop,prjquota", str(image), str(private_engine.data_root)],
    ):
        subprocess.run(command, check=True)
    private_engine.start()
    yield private_engine
    private_engine.terminate()
    subprocess.run(["umount", "-l", str(private_engine.data_root)], check=True)
    private_engine.start()


def test_a_container_s_size_is_limited(with_quotas: Engine, names: Names) -> None:
    cli = with_quotas.cli("docker")
    options = ["--name", names("a"), "--storage-opt", "size=20M"]
    cli.ok("run", "-d", *options, "busybox", "sleep", "1000")
    size = cli.ok("exec", names("a"), "sh", "-c", "df -m / | tail -1 | awk '{print $2}'")
    assert int(size) <= 20
    said = cli.run("exec", names("a"), "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=30")
    assert said.code != 0
    assert "No space left" in said.err or "quota" in said.err.lower()
    cli.ok("run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=30")
    cli.ok("rm", "-f", names("a"))
