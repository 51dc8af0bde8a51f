"""Volumes: their life, what is copied into them, who keeps them alive."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until


def volumes(engine: Engine) -> dict[str, dict[str, Any]]:
    return {row["Name"]: row for row in engine.api.get("/volumes")["Volumes"] or []}


def data(engine: Engine, name: str) -> Path:
    return Path(engine.api.get(f"/volumes/{name}")["Mountpoint"])


# --- their life --------------------------------------------------------------------------------


def test_create_list_inspect_remove(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("a")
    labels = ["--label", "colour=red", "--label", "empty"]
    assert cli.ok("volume", "create", *labels, name) == name
    assert cli.ok("volume", "create", name) == name  # once more is no error
    (shown,) = json.loads(cli.ok("volume", "inspect", name))
    assert shown["Labels"] == {"colour": "red", "empty": ""}
    assert shown["Driver"] == "local"
    assert shown["Scope"] == "local"
    assert shown["Options"] is None
    assert Path(shown["Mountpoint"]).is_dir()
    for terms, found in (
        (["label=colour=red"], True),
        (["label=colour=blue"], False),
        (["label=empty", f"name={name[:-1]}"], True),
        (["driver=local", f"name={name}"], True),
        (["driver=other"], False),
        (["dangling=true", f"name={name}"], True),
        (["dangling=false", f"name={name}"], False),
    ):
        flags = [word for term in terms for word in ("-f", term)]
        assert (name in cli.ok("volume", "ls", "-q", *flags).split()) is found, terms
    assert cli.ok("volume", "rm", name) == name
    assert not Path(shown["Mountpoint"]).parent.exists()
    assert f"get {name}: no such volume" in cli.fails(1, "volume", "rm", name)
    assert cli.ok("volume", "rm", "-f", name) == name


def test_bad_names(cli: Cli) -> None:
    said = cli.fails(1, "volume", "create", "v")
    assert "create v: volume name is too short, names should be at least two alphanumeric" in said
    for name in ("a/b", "-a", ".a", "a b", "ä1"):
        said = cli.fails(1, "volume", "create", "--", name)
        assert (
            f'create {name}: "{name}" includes invalid characters for a local volume name' in said
        )


def test_a_used_volume_is_kept(cli: Cli, engine: Engine, names: Names) -> None:
    """Also by a container that has never run, and by one that has ended."""
    name = names("v")
    container = cli.ok("create", "-v", f"{name}:/d", "busybox", "true")
    said = cli.fails(1, "volume", "rm", name)
    assert f"remove {name}: volume is in use - [{container}]" in said
    cli.ok("start", "-a", container)
    for command in (["volume", "rm", "-f", name], ["volume", "rm", name]):
        assert f"volume is in use - [{container}]" in cli.fails(1, *command)
    assert engine.api.request("DELETE", f"/volumes/{name}").status == 409
    assert name not in cli.ok("volume", "prune", "-af")
    cli.ok("rm", "-v", container)  # a named volume stays
    assert cli.ok("volume", "rm", name) == name


def test_prune_takes_what_nobody_mentions(cli: Cli, engine: Engine, names: Names) -> None:
    keep = {"label": f"test={names('x')}"}
    made = {}
    for what in ("named", "used", "anonymous"):
        body = {"Labels": {"test": names("x")}} | (
            {} if what == "anonymous" else {"Name": names(what)}
        )
        made[what] = engine.api.request("POST", "/volumes/create", body).json()["Name"]
    (data(engine, made["anonymous"]) / "file").write_bytes(b"x" * 100_000)
    cli.ok("create", "-v", f"{made['used']}:/d", "busybox")
    said = cli.ok("volume", "prune", "-f", "--filter", f"label={keep['label']}")
    assert made["anonymous"] in said
    assert "reclaimed space: 102.4kB" in said
    assert set(made.values()) & set(volumes(engine)) == {made["named"], made["used"]}
    said = cli.ok("volume", "prune", "-af", "--filter", f"label={keep['label']}")
    assert made["named"] in said
    assert set(made.values()) & set(volumes(engine)) == {made["used"]}
    assert cli.ok("volume", "prune", "-af", "--filter", "label!=test") is not None
    assert made["used"] in volumes(engine)


def test_anonymous_means_that_this_container_did_not_name_it(
    cli: Cli, engine: Engine, names: Names
) -> None:
    """As in Docker: who mounts an anonymous volume by its name does not take it along."""
    first = cli.ok("create", "-v", "/d", "busybox")
    (point,) = engine.api.inspect(first)["Mounts"]
    second = cli.ok("create", "-v", f"{point['Name']}:/d", "busybox")
    third = cli.ok("create", "--volumes-from", first, "busybox")
    cli.ok("rm", "-v", first)
    cli.ok("rm", "-v", second)
    assert point["Name"] in volumes(engine)
    cli.ok("rm", "-v", third)
    until("the volume is gone", lambda: point["Name"] not in volumes(engine))


def test_events(engine: Engine, names: Names) -> None:
    cli = engine.cli("docker")
    name = names("v")
    container = cli.ok("run", "-d", "-v", f"{name}:/d:ro", "busybox", "sleep", "1000")
    cli.ok("rm", "-f", container)
    cli.ok("volume", "rm", name)
    now = cli.ok("info", "-f", "{{.SystemTime}}")
    form = "{{.Action}} {{.Actor.ID}} {{json .Actor.Attributes}}"
    query = ["events", "--since", "10m", "--until", now, "--filter", f"volume={name}"]
    lines = cli.ok(*query, "--format", form).splitlines()
    seen = {line.split()[0]: json.loads(line.split(" ", 2)[2]) for line in lines}
    assert list(seen) == ["create", "mount", "unmount", "destroy"]
    assert seen["create"] == {"driver": "local"}
    assert seen["mount"] == {
        "driver": "local", "container": container, "destination": "/d", "read/write": "false",
        "propagation": "",
    }  # fmt: skip
    assert seen["unmount"] == {"driver": "local", "container": container}


def test_shared_by_many(cli: Cli, names: Names) -> None:
    name = names("v")
    for number in range(3):
        options = ["-d", "--name", names(f"c{number}"), "-v", f"{name}:/d"]
        cli.ok("run", *options, "busybox", "sh", "-c", f"touch /d/{number}; sleep 1000")
    until("all have written", lambda: cli.ok("exec", names("c0"), "ls", "/d") == "0\n1\n2")
    cli.ok("rm", "-f", names("c0"), names("c1"))
    assert cli.ok("exec", names("c2"), "ls", "/d") == "0\n1\n2"


def test_volumes_from_read_only(cli: Cli, names: Names) -> None:
    cli.ok("create", "--name", names("a"), "-v", "/d", "-v", "/etc/hostname:/h:ro", "busybox")
    script = "touch /d/x 2>&1; touch /h 2>&1; true"
    out = cli.ok("run", "--rm", "--volumes-from", f"{names('a')}:ro", "busybox", "sh", "-c", script)
    assert out.count("Read-only file system") == 2
    out = cli.ok("run", "--rm", "--volumes-from", names("a"), "busybox", "sh", "-c", script)
    assert out.count("Read-only file system") == 1
    said = cli.fails(125, "run", "--volumes-from", f"{names('a')}:fast", "busybox")
    assert "invalid mode: fast" in said


# --- what is copied into them ------------------------------------------------------------------

FILL = """
mkdir -p /fill/sub && cd /fill && echo one > a && ln a sub/b && ln -s ../a sub/link && mkfifo pipe
chown 33:44 a sub . && chmod 640 a && chmod 2751 sub && chmod 1777 .
"""


@pytest.fixture
def filled(engine: Engine, names: Names) -> str:
    """An image with something of everything below /fill."""
    cli, name = engine.cli("docker"), names("filled").lower()
    cli.ok("run", "--name", names("filler"), "busybox", "sh", "-ec", FILL)
    root = engine.api.inspect(names("filler"))["Id"]
    upper = engine.data_root / "containers" / root / "upper" / "fill"
    if engine.kind == "teu":
        os.setxattr(upper / "a", "user.note", b"kept")
    cli.ok("commit", "-c", "VOLUME /fill", names("filler"), name)
    cli.ok("rm", names("filler"))
    return name


def test_copy_up_keeps_everything(filled: str, cli: Cli, engine: Engine, names: Names) -> None:
    name = names("v")
    look = "cd /fill; stat -c '%n %F %u %g %a %h' . a sub pipe; cat sub/link"
    command = ["run", "--rm", "-v", f"{name}:/fill", filled, "sh", "-c", look]
    out = cli.ok(*command).splitlines()
    assert out == [
        ". directory 33 44 1777 3",
        "a regular file 33 44 640 2",
        "sub directory 33 44 2751 2",
        "pipe fifo 0 0 644 1",
        "one",
    ]
    place = data(engine, name)
    assert (place / "a").stat().st_ino == (place / "sub/b").stat().st_ino
    if engine.kind == "teu":
        assert os.getxattr(place / "a", "user.note") == b"kept"
    assert sorted(p.name for p in place.parent.iterdir() if p.name != "opts.json") == ["_data"]
    cli.ok("run", "--rm", "-v", f"{name}:/fill", filled, "rm", "/fill/a")
    assert cli.run(*command).out.count("\n") < len(out), "it was filled a second time"


def test_copy_up_gives_an_empty_directory_its_owner(cli: Cli, engine: Engine, names: Names) -> None:
    image = names("owner").lower()
    cli.ok("run", "--name", names("a"), "busybox", "sh", "-c", "mkdir -m 700 /d; chown 33:44 /d")
    cli.ok("commit", names("a"), image)
    options = ["--rm", "-v", f"{names('v')}:/d"]
    assert cli.ok("run", *options, image, "stat", "-c", "%u %g %a", "/d") == "33 44 700"


def test_no_copy(filled: str, cli: Cli, names: Names) -> None:
    for flags in (
        ["-v", f"{names('a')}:/fill:nocopy"],
        ["--mount", f"type=volume,src={names('b')},dst=/fill,volume-nocopy"],
    ):
        assert cli.ok("run", "--rm", *flags, filled, "ls", "-A", "/fill") == ""


def test_a_volume_of_the_image_is_anonymous(filled: str, cli: Cli, engine: Engine) -> None:
    before = set(volumes(engine))
    assert cli.ok("run", "--rm", filled, "cat", "/fill/a") == "one"
    until("the volume is gone", lambda: set(volumes(engine)) == before)


def test_filling_a_volume_that_is_in_use_already(
    filled: str, cli: Cli, engine: Engine, names: Names
) -> None:
    """The container that mounted it while it was empty goes on with the same directory."""
    name = names("v")
    cli.ok("run", "-d", "--name", names("old"), "-v", f"{name}:/x", "busybox", "sleep", "1000")
    cli.ok("run", "--rm", "-v", f"{name}:/fill", filled, "true")
    assert cli.ok("exec", names("old"), "cat", "/x/a") == "one"
    cli.ok("exec", names("old"), "sh", "-c", "echo mine > /x/mine")
    assert cli.ok("run", "--rm", "-v", f"{name}:/x", "busybox", "cat", "/x/mine") == "mine"


# --- options of the local driver ---------------------------------------------------------------


def test_a_tmpfs_volume(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("v")
    options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,uid=33,noexec"]
    cli.ok("volume", "create", *options, name)
    place = data(engine, name)
    assert not place.is_mount()
    cli.ok("run", "-d", "--name", names("a"), "-v", f"{name}:/d", "busybox", "sleep", "1000")
    assert place.is_mount()
    script = (
        "stat -c %u /d; df -k /d | tail -1 | awk '{print $2}'; grep -c ' /d .*noexec' /proc/mounts"
    )
    out = cli.ok("run", "--rm", "-v", f"{name}:/d", "busybox", "sh", "-c", f"touch /d/x; {script}")
    assert out.split() == ["33", "2048", "1"]
    assert cli.ok("exec", names("a"), "ls", "/d") == "x"
    cli.ok("rm", "-f", names("a"))
    until("it is unmounted with its last container", lambda: not place.is_mount())
    assert cli.ok("volume", "rm", name) == name


def test_a_bind_volume_is_never_emptied(
    cli: Cli, engine: Engine, names: Names, tmp_path: Path
) -> None:
    """Removing the volume leaves the directory and all that is in it, however often it was used."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "precious").write_text("kept")
    name = names("v")
    options = ["-o", "type=none", "-o", "o=bind", "-o", f"device={source}"]
    cli.ok("volume", "create", *options, name)
    script = "cat /d/precious; echo more > /d/more"
    assert cli.ok("run", "--rm", "-v", f"{name}:/d", "busybox", "sh", "-c", script) == "kept"
    cli.ok("create", "--name", names("c"), "-v", f"{name}:/d", "busybox", "true")
    cli.ok("start", "-a", names("c"))
    cli.ok("rm", names("c"))
    cli.ok("volume", "rm", name)
    assert sorted(p.name for p in source.iterdir()) == ["more", "precious"]
    assert (source / "precious").read_text() == "kept"


def test_a_bind_volume_through_mount(
    cli: Cli, engine: Engine, names: Names, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("there")
    spec = (
        f"type=volume,src={names('v')},dst=/d,volume-opt=type=none,volume-opt=device={tmp_path},"
        "volume-opt=o=bind,volume-label=a=b,ro"
    )
    script = "cat /d/f; touch /d/x 2>&1 || true"
    out = cli.ok("run", "--rm", "--mount", spec, "busybox", "sh", "-c", script)
    assert out.startswith("there")
    assert "Read-only file system" in out
    shown = volumes(engine)[names("v")]
    assert shown["Options"] == {"type": "none", "device": str(tmp_path), "o": "bind"}
    assert shown["Labels"] == {"a": "b"}


BAD_OPTIONS = [
    ("unknown", ["-o", "colour=red"], 'invalid option: "colour"'),
    ("no-device", ["-o", "type=tmpfs"], 'missing required option: "device"'),
    ("no-type", ["-o", "device=/x"], 'missing required option: "type"'),
    ("only-o", ["-o", "o=bind"], 'missing required option: "device"'),
    ("bad-size", ["-o", "size=many"], "invalid size: 'many'"),
    ("quota", ["-o", "size=10m"], "quota size requested but no quota support"),
    ("driver", ["-d", "no"], 'error looking up volume plugin no: plugin "no" not found'),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD_OPTIONS, ids=lambda case: case[0])
def test_bad_options(
    case: tuple[str, list[str], str], cli: Cli, engine: Engine, names: Names
) -> None:
    _, options, text = case
    if text.startswith("quota") and _has_project_quota(engine.data_root):
        pytest.skip("this file system has project quotas")
    assert text in cli.fails(1, "volume", "create", *options, names("v"))
    assert names("v") not in volumes(engine)
    assert not (engine.data_root / "volumes" / names("v")).exists()


def _has_project_quota(path: Path) -> bool:
    found = subprocess.run(
        ["findmnt", "-no", "OPTIONS", "-T", path], check=False, capture_output=True, text=True
    )
    return bool(re.search(r"\bprjquota|pquota", found.stdout))


def test_a_mount_that_fails_leaves_nothing(cli: Cli, engine: Engine, names: Names) -> None:
    name = names("v")
    options = ["-o", "type=none", "-o", "o=bind", "-o", "device=/no/such/place"]
    cli.ok("volume", "create", *options, name)
    said = cli.fails(127, "run", "--name", names("c"), "-v", f"{name}:/d", "busybox", "true")
    assert "error while mounting volume" in said
    assert "failed to mount local volume" in said
    assert "no such file or directory" in said.lower()
    assert engine.api.state(names("c"))["Status"] == "created"
    assert not data(engine, name).is_mount()


def test_network_file_systems_say_what_is_missing(cli: Cli, names: Names) -> None:
    """Their mount is asked of the kernel with the server's address, and passwords are not shown."""
    for kind, device, words in (
        ("nfs", ":/export", "addr=localhost,rw,nolock,soft"),
        ("cifs", "//localhost/share", "username=me,password=secret"),
    ):
        name = names(kind)
        options = ["-o", f"type={kind}", "-o", f"device={device}", "-o", f"o={words}"]
        cli.ok("volume", "create", *options, name)
        said = cli.fails(125, "run", "--rm", "-v", f"{name}:/d", "busybox", "true")
        assert "failed to mount local volume" in said
        assert "secret" not in said
        if kind not in Path("/proc/filesystems").read_text():
            assert f"no file system {kind}" in said
        if kind == "nfs":
            assert re.search(r"addr=(127\.0\.0\.1|::1)", said), said
        else:
            assert re.search(r"//(127\.0\.0\.1|::1)/share", said), said


def test_something_foreign_mounted_in_a_volume(
    cli: Cli, engine: Engine, names: Names, tmp_path: Path
) -> None:
    """What an administrator mounted there is not deleted with the volume."""
    name = names("v")
    cli.ok("volume", "create", name)
    (tmp_path / "precious").write_text("kept")
    inside = data(engine, name) / "inside"
    inside.mkdir()
    subprocess.run(["mount", "--bind", tmp_path, inside], check=True)
    try:
        said = cli.fails(1, "volume", "rm", name)
        assert f"{inside} is mounted in it" in said
        assert (tmp_path / "precious").read_text() == "kept"
        assert name in volumes(engine)
    finally:
        subprocess.run(["umount", inside], check=True)
    assert cli.ok("volume", "rm", name) == name
