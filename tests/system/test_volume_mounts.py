"""`-v` and `--mount` in all their forms, from inside containers."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose mounts go when the test is over."""
    yield tmp_path
    subprocess.run(["umount", "-qlR", tmp_path], check=False, capture_output=True)
    lines = Path("/proc/mounts").read_text().splitlines()
    for target in sorted((x.split()[1] for x in lines if str(tmp_path) in x), reverse=True):
        subprocess.run(["umount", "-l", target], check=True)


def seen(cli: Cli, mounts: list[str], script: str, *, image: str = "busybox", **more: str) -> str:
    options = [word for key, value in more.items() for word in (f"--{key}", value)]
    return cli.ok("run", "--rm", *mounts, *options, image, "sh", "-c", script)


# --- bind --------------------------------------------------------------------------------------


def test_a_missing_source(cli: Cli, engine: Engine, place: Path) -> None:
    """`-v` makes it, `--mount` does not, unless told to."""
    made = place / "a/b"
    assert seen(cli, ["-v", f"{made}:/d"], "touch /d/x; ls /d") == "x"
    assert (made / "x").exists()
    missing = place / "c"
    spec = f"type=bind,src={missing},dst=/d"
    said = cli.fails(125, "run", "--rm", "--mount", spec, "busybox", "true")
    assert "invalid mount config for type" in said
    assert f"bind source path does not exist: {missing}" in said
    assert not missing.exists()
    if cli.name == "teu":  # docker's client has the flag from version 29 on
        assert seen(cli, ["--mount", f"{spec},bind-create-src"], "ls -A /d") == ""
        assert missing.is_dir()


def test_sources_relative_to_the_working_directory(cli: Cli, place: Path) -> None:
    here = Path.cwd()
    relative = os.path.relpath(place, here)
    (place / "f").write_text("there")
    assert seen(cli, ["-v", f"./{relative}:/d"], "cat /d/f") == "there"


def test_a_file(cli: Cli, place: Path) -> None:
    (place / "f").write_text("there")
    assert seen(cli, ["-v", f"{place}/f:/made/deep/f:ro"], "cat /made/deep/f") == "there"


@pytest.mark.parametrize(
    "turned", [False, True], ids=["file-over-directory", "directory-over-file"]
)
def test_a_file_and_a_directory_do_not_fit(cli: Cli, place: Path, turned: bool) -> None:
    (place / "f").write_text("x")
    source, target = (place, "/etc/passwd") if turned else (place / "f", "/tmp")
    done = cli.run("run", "--rm", "-v", f"{source}:{target}", "busybox", "true")
    assert done.code in (125, 126, 127)
    assert "directory" in done.err
    assert "Traceback" not in done.err


def test_recursive_and_not(cli: Cli, place: Path) -> None:
    """What is mounted below the source comes along, read-only too, unless told otherwise."""
    (place / "sub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place / "sub"], check=True)
    (place / "sub/f").write_text("x")
    base = f"type=bind,src={place},dst=/d"
    write = "touch /d/x 2>/dev/null && echo -n top; touch /d/sub/x 2>/dev/null && echo -n sub; true"
    assert seen(cli, ["-v", f"{place}:/d"], "ls /d/sub") == "f"
    assert seen(cli, ["--mount", f"{base},bind-recursive=disabled"], "ls -A /d/sub") == ""
    assert seen(cli, ["--mount", base], write) == "topsub"
    assert seen(cli, ["-v", f"{place}:/d:ro"], write) == ""
    assert seen(cli, ["--mount", f"{base},readonly"], write) == ""
    assert seen(cli, ["--mount", f"{base},readonly,bind-recursive=writable"], write) == "sub"
    force = f"{base},readonly,bind-recursive=readonly,bind-propagation=rprivate"
    assert seen(cli, ["--mount", force], write) == ""


@pytest.mark.parametrize("mode", ["rslave", "rshared", "rprivate"])
def test_propagation(cli: Cli, names: Names, place: Path, mode: str) -> None:
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "--make-shared", place], check=True)
    (place / "sub").mkdir()
    spec = f"type=bind,src={place},dst=/d,bind-propagation={mode}"
    flags = ["--mount", spec] if mode != "rslave" else ["-v", f"{place}:/d:rslave"]
    cli.ok("run", "-d", "--name", names("a"), *flags, "busybox", "sleep", "1000")
    subprocess.run(["mount", "-t", "tmpfs", "none", place / "sub"], check=True)
    (place / "sub/later").touch()
    expected = "" if mode == "rprivate" else "later"
    assert cli.ok("exec", names("a"), "ls", "-A", "/d/sub") == expected


def test_a_mount_of_the_host_keeps_its_limits(cli: Cli, place: Path) -> None:
    """What is mounted read-only, without set-user-id or devices, is so in a container, too."""
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro,nosuid,nodev", place], check=True)
    script = "touch /d/x 2>&1; grep ' /d ' /proc/mounts"
    out = seen(cli, ["-v", f"{place}:/d"], script)
    assert "Read-only file system" in out
    assert "ro,nosuid,nodev" in out


BAD = [
    ("relative", ["-v", "/tmp:x"], "invalid mount path: 'x' mount path must be absolute"),
    ("root", ["-v", "vol:/"], "invalid specification: destination can't be '/'"),
    ("root-by-dots", ["-v", "vol:/a/.."], "invalid specification: destination can't be '/'"),
    ("twice", ["-v", "/tmp:/x", "-v", "/var:/x/"], "Duplicate mount point: /x"),
    ("twice-mixed", ["-v", "vol:/x", "--mount", "type=tmpfs,dst=/x"], "Duplicate mount point: /x"),
    ("twice-tmpfs", ["--tmpfs", "/x", "-v", "vol:/x"], "Duplicate mount point: /x"),
    ("mode-of-another-kind", ["-v", "vol:/x:rshared"], "field BindOptions must not be specified"),
    ("nocopy-of-a-bind", ["-v", "/tmp:/x:nocopy"], "field VolumeOptions must not be specified"),
    ("two-modes", ["-v", "/tmp:/x:ro,rw"], "invalid mode: ro,rw"),
    ("unknown-type", ["--mount", "type=sock,src=/a,dst=/x"], "mount type unknown"),
    ("unknown-key", ["--mount", "type=bind,src=/tmp,dst=/x,fast=1"], "unexpected key 'fast' in 'fast=1'"),
    ("no-source", ["--mount", "type=bind,dst=/x"], "field Source must not be empty"),
    ("tmpfs-source", ["--mount", "type=tmpfs,src=/a,dst=/x"], "field Source must not be specified"),
    ("no-target", ["--mount", "type=bind,src=/tmp"], "target is required"),
    ("anonymous-sub-path", ["--mount", "type=volume,dst=/x,volume-subpath=a"], "must not set Subpath when using anonymous volumes"),
    ("absolute-sub-path", ["--mount", "type=volume,src=v,dst=/x,volume-subpath=/a"], "subpath must be a relative path within the volume"),
    ("climbing-sub-path", ["--mount", "type=volume,src=v,dst=/x,volume-subpath=a/../../b"], "subpath must be a relative path within the volume"),
    ("anonymous-read-only", ["--mount", "type=volume,dst=/x,ro"], "must not set ReadOnly mode when using anonymous volumes"),
    ("bad-propagation", ["--mount", "type=bind,src=/tmp,dst=/x,bind-propagation=far"], "invalid propagation mode: far"),
    ("image-without-source", ["--mount", "type=image,dst=/x"], "field Source must not be empty"),
    ("image-that-is-missing", ["--mount", "type=image,src=nosuch-image,dst=/x"], "No such image: nosuch-image"),
    ("idmap-that-makes-no-sense", ["-v", "/tmp:/x:idmap=many"], "invalid idmap"),
]  # fmt: skip
# ruff: noqa: E501  (a table is read by its columns)


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[0])
def test_bad_mounts(
    case: tuple[str, list[str], str], cli: Cli, engine: Engine, names: Names
) -> None:
    _, mounts, text = case
    before = engine.api.get("/volumes")["Volumes"]
    said = cli.fails(125, "run", "--name", names("c"), *mounts, "busybox", "true")
    assert text in said
    assert engine.api.request("GET", f"/containers/{names('c')}/json").status == 404
    assert engine.api.get("/volumes")["Volumes"] == before


# --- tmpfs -------------------------------------------------------------------------------------


def test_tmpfs_options(cli: Cli) -> None:
    spec = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770,consistency=cached"
    script = "stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'"
    assert seen(cli, ["--mount", spec], script).split() == ["1770", "1024"]
    assert "Read-only" in seen(cli, ["--mount", "type=tmpfs,dst=/t,ro"], "touch /t/x 2>&1; true")


# --- sub-paths ---------------------------------------------------------------------------------


def test_a_sub_path_of_a_volume(cli: Cli, engine: Engine, names: Names) -> None:
    volume = names("v")
    fill = "mkdir -p /d/a/b; echo deep > /d/a/b/f; echo top > /d/f"
    seen(cli, ["-v", f"{volume}:/d"], fill)
    base = f"type=volume,src={volume},dst=/x"
    assert seen(cli, ["--mount", f"{base},volume-subpath=a/b"], "cat /x/f; ls /x") == "deep\nf"
    assert seen(cli, ["--mount", f"{base},volume-subpath=a/b/f"], "cat /x") == "deep"
    said = cli.fails(127, "run", "--rm", "--mount", f"{base},volume-subpath=no/such", "busybox")
    assert "cannot access path no/such of volume" in said
    assert "no such file or directory" in said


def test_a_sub_path_cannot_leave_the_volume(cli: Cli, names: Names) -> None:
    volume = names("v")
    links = "ln -s /etc /d/absolute; ln -s ../../../../../../etc /d/climbing; mkdir /d/etc; touch /d/etc/own"
    seen(cli, ["-v", f"{volume}:/d"], links)
    for path in ("absolute", "climbing"):
        spec = f"type=volume,src={volume},dst=/x,volume-subpath={path}"
        assert seen(cli, ["--mount", spec], "ls /x") == "own"


def test_a_sub_path_that_is_swapped_meanwhile(engine: Engine, names: Names) -> None:
    """A container turns the sub-path into a symlink and back while others are started with it."""
    cli = engine.cli("docker")
    volume = names("v")
    swap = "mkdir -p /d/in /d/etc; touch /d/in/own /d/etc/own; while :; do ln -s /etc /d/l; mv -T /d/l /d/sub 2>/dev/null; rm -rf /d/sub /d/l; mkdir /d/sub; touch /d/sub/own; done"
    cli.ok("run", "-d", "--name", names("s"), "-v", f"{volume}:/d", "busybox", "sh", "-c", swap)
    spec = f"type=volume,src={volume},dst=/x,volume-subpath=sub"
    found = set()
    for _ in range(15):
        done = cli.run("run", "--rm", "--mount", spec, "busybox", "ls", "/x")
        if done.code == 0:
            found.add(done.out.strip())
        else:
            assert "no such file or directory" in done.err.lower(), done  # between two states
    assert found <= {"own", ""}, found


def test_a_bind_source_in_a_volume_cannot_leave_it(cli: Cli, engine: Engine, names: Names) -> None:
    volume = names("v")
    seen(cli, ["-v", f"{volume}:/d"], "ln -s /etc /d/link; mkdir /d/etc; touch /d/etc/own")
    place = engine.api.get(f"/volumes/{volume}")["Mountpoint"]
    assert seen(cli, ["-v", f"{place}/link:/x"], "ls /x") == "own"
    assert "link" in seen(cli, ["-v", f"{place}:/x"], "ls /x")


def test_copies_into_a_stopped_container_go_to_its_sub_path(
    cli: Cli, engine: Engine, names: Names, tmp_path: Path
) -> None:
    volume = names("v")
    seen(cli, ["-v", f"{volume}:/d"], "mkdir /d/a")
    spec = f"type=volume,src={volume},dst=/x,volume-subpath=a"
    cli.ok("create", "--name", names("c"), "--mount", spec, "busybox")
    (tmp_path / "f").write_text("copied")
    cli.ok("cp", str(tmp_path / "f"), f"{names('c')}:/x/f")
    assert seen(cli, ["-v", f"{volume}:/d"], "cat /d/a/f") == "copied"


# --- images ------------------------------------------------------------------------------------


def test_an_image_mount(cli: Cli, engine: Engine, names: Names) -> None:
    """All layers of it, read-only; the image stays as long as the container mentions it."""
    image = names("i").lower()
    cli.ok(
        "run",
        "--name",
        names("m"),
        "busybox",
        "sh",
        "-c",
        "mkdir -p /data/sub; echo one > /data/sub/f; rm /bin/vi",
    )
    cli.ok("commit", names("m"), image)
    script = "cat /i/data/sub/f; ls /i/bin/vi 2>&1; ls /i/bin/busybox; touch /i/x 2>&1; true"
    out = seen(cli, ["--mount", f"type=image,src={image},dst=/i"], script)
    assert out.splitlines()[0] == "one"
    assert "No such file" in out
    assert "/i/bin/busybox" in out
    assert "Read-only file system" in out
    sub = f"type=image,src={image},dst=/i,image-subpath=data/sub"
    assert seen(cli, ["--mount", sub], "ls /i; cat /i/f") == "f\none"
    said = cli.fails(127, "run", "--rm", "--mount", sub + "/none", "busybox", "true")
    assert "cannot access path data/sub/none of image" in said
    cli.ok("run", "-d", "--name", names("u"), "--mount", sub, "busybox", "sleep", "1000")
    assert cli.run("rmi", image).code == 1
    cli.ok("rm", "-f", names("u"))


# --- owners ------------------------------------------------------------------------------------


def test_the_owner_is_changed(cli: Cli, place: Path) -> None:
    """`U`: everything below belongs to the container's user, symlinks' targets excepted."""
    outside = place / "outside"
    outside.touch()
    tree = place / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/f").touch()
    (tree / "link").symlink_to(outside)
    script = "touch /d/sub/new && stat -c %u:%g /d /d/sub/f"
    out = seen(cli, ["-v", f"{tree}:/d:U"], script, user="1234:2345")
    assert out.split() == ["1234:2345"] * 2
    assert outside.stat().st_uid == 0
    assert (tree / "link").lstat().st_uid == 1234
    if cli.name == "teu":
        spec = f"type=bind,src={tree},dst=/d,chown"
        assert seen(cli, ["--mount", spec], "stat -c %u /d/sub/f", user="77") == "77"


def test_the_host_keeps_its_owners(cli: Cli) -> None:
    for source in ("/usr", "/etc", "/var/lib"):
        said = cli.fails(125, "run", "--rm", "-u", "99", "-v", f"{source}:/d:U", "busybox", "true")
        assert f"changing the owner of {source} would break this host" in said


def test_an_idmapped_mount(cli: Cli, place: Path) -> None:
    """The directory's owner is shown as the container's user, both ways; the disk is untouched."""
    os.chown(place, 1000, 1001)
    (place / "f").touch()
    os.chown(place / "f", 1000, 1001)
    out = seen(cli, ["-v", f"{place}:/d:idmap"], "touch /d/new; stat -c %u:%g /d /d/f /d/new")
    assert out.split() == ["0:0"] * 3
    assert ((place / "new").stat().st_uid, (place / "new").stat().st_gid) == (1000, 1001)
    assert (place / "f").stat().st_uid == 1000
    ranges = "idmap=uids=1000-33-1;gids=1001-44-1"
    out = seen(cli, ["-v", f"{place}:/d:{ranges}"], "touch /d/n2; stat -c %u:%g /d/f", user="33:44")
    assert out == "33:44"
    assert (place / "n2").stat().st_uid == 1000
    if cli.name == "teu":
        spec = f"type=bind,src={place},dst=/d,idmap,ro"
        out = seen(cli, ["--mount", spec], "stat -c %u /d/f; touch /d/y 2>&1; true")
        assert out.startswith("0\n")
        assert "Read-only" in out


# --- inspect, and old clients ------------------------------------------------------------------


def test_what_inspect_shows(cli: Cli, engine: Engine, names: Names, place: Path) -> None:
    flags = [
        *("-v", f"{place}:/bind:ro,rslave"), *("-v", f"{names('v')}:/volume"),
        *("--mount", "type=tmpfs,dst=/tmpfs"),
    ]  # fmt: skip
    cli.ok("create", "--name", names("c"), *flags, "busybox")
    points = {p["Destination"]: p for p in engine.api.inspect(names("c"))["Mounts"]}
    assert points["/bind"] == {
        "Type": "bind", "Source": str(place), "Destination": "/bind", "Mode": "ro,rslave",
        "RW": False, "Propagation": "rslave",
    }  # fmt: skip
    volume = dict(points["/volume"])
    assert volume.pop("Source").endswith("/_data")
    assert volume.pop("Mode") in ("", "z")
    assert volume == {
        "Type": "volume", "Name": names("v"), "Destination": "/volume", "Driver": "local",
        "RW": True, "Propagation": "",
    }  # fmt: skip
    assert points["/tmpfs"]["Type"] == "tmpfs"
    json.dumps(points)


@pytest.mark.parametrize(
    ("version", "mount", "text"),
    [
        ("1.44", {"Type": "volume", "Source": "v", "VolumeOptions": {"Subpath": "a"}}, "needs API v1.45"),
        ("1.47", {"Type": "image", "Source": "busybox"}, "needs API v1.48"),
        ("1.43", {"Type": "bind", "Source": "/tmp", "BindOptions": {"ReadOnlyForceRecursive": True}}, "needs API v1.44"),
    ],
)  # fmt: skip
def test_what_older_versions_do_not_have(
    engine: Engine, version: str, mount: dict[str, object], text: str
) -> None:
    body = {"Image": "busybox", "HostConfig": {"Mounts": [mount | {"Target": "/x"}]}}
    reply = engine.api.request("POST", f"/v{version}/containers/create", body)
    assert reply.status == 400
    assert text in reply.json()["message"]


def test_many_mounts_at_once(engine: Engine, names: Names, tmp_path: Path) -> None:
    """Several containers that mount, unmount and share volumes of a driver that really mounts."""
    cli = engine.cli("docker")
    name = names("v")
    options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m"]
    cli.ok("volume", "create", *options, name)
    failures: list[str] = []

    def work(number: int) -> None:
        for _ in range(3):
            script = f"touch /d/{number} && rm /d/{number}"
            done = cli.run("run", "--rm", "-v", f"{name}:/d", "busybox", "sh", "-c", script)
            if done.code:
                failures.append(done.err)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    shutil.rmtree(tmp_path, ignore_errors=True)
