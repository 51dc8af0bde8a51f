"""`cp` both ways, archives over the API, `diff`, `export`; and containers that try to get out."""

import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from harness.clients import Cli, Reply
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until

_MADE = (
    "mkdir -p /d/sub; echo x > /d/f; chown 33:44 /d/f; chmod 4755 /d/f; ln -s f /d/rel;"
    "ln -s /d/f /d/abs; ln -s ../../../../d/f /d/climb; ln -s /nowhere /d/dangling;"
    "ln -s /vol /d/tovol; echo v > /vol/v; touch /made; exec sleep 1000"
)


@pytest.fixture
def box(engine: Engine, names: Names) -> str:
    """A running container with files of all kinds and a volume."""
    cli = engine.cli("docker")
    name = names("box")
    cli.ok("run", "-d", "--name", name, "-v", "/vol", "busybox", "sh", "-c", _MADE)
    until("the files are made", lambda: cli.run("exec", name, "test", "-e", "/made").code == 0)
    return name


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def packed(*entries: tuple[str, bytes | str, int]) -> bytes:
    """A tar of (name, content or link target, uid); a name with a slash at its end is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, uid in entries:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.uid = info.gid = uid
            info.mode = 0o755
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            data = io.BytesIO(content) if isinstance(content, bytes) else None
            tar.addfile(info, data)
    return buffer.getvalue()


def archive(engine: Engine, method: str, name: str, path: str, body: bytes | None = None) -> Reply:
    target = f"/containers/{name}/archive?path={quote(path)}"
    return engine.api.request(method, target, body)


# --- out of a container ---------------------------------------------------------------------------


def test_out(cli: Cli, box: str, tmp_path: Path) -> None:
    cli.ok("cp", f"{box}:/d/f", str(tmp_path / "f"))
    assert (tmp_path / "f").read_text() == "x\n"
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o4755
    cli.ok("cp", f"{box}:/d/sub", str(tmp_path))
    assert (tmp_path / "sub").is_dir()
    cli.ok("cp", f"{box}:/vol/.", str(tmp_path / "all"))
    assert (tmp_path / "all" / "v").read_text() == "v\n"


def test_out_keeps_symlinks_unless_told_otherwise(cli: Cli, box: str, tmp_path: Path) -> None:
    for name in ("rel", "abs", "dangling"):
        cli.ok("cp", f"{box}:/d/{name}", str(tmp_path / name))
        assert (tmp_path / name).is_symlink()
    for name in ("rel", "abs", "climb"):
        cli.ok("cp", "-L", f"{box}:/d/{name}", str(tmp_path / f"{name}-followed"))
        assert (tmp_path / f"{name}-followed").read_text() == "x\n"


def test_out_as_a_stream(cli: Cli, box: str) -> None:
    process = cli.spawn("cp", f"{box}:/d", "-")
    out, _ = process.communicate(timeout=60)
    found = members(out)
    assert set(found) == {
        f"d{n}" for n in ("", "/sub", "/f", "/rel", "/abs", "/climb", "/dangling", "/tovol")
    }
    assert (found["d/f"].uid, found["d/f"].gid, found["d/f"].mode) == (33, 44, 0o4755)


def test_out_of_a_stopped_container(cli: Cli, engine: Engine, box: str, tmp_path: Path) -> None:
    """Its volumes are there, also through a symlink; nothing stays mounted."""
    cli.ok("stop", "-t", "0", box)
    for path in ("/d/f", "/vol/v"):
        cli.ok("cp", f"{box}:{path}", str(tmp_path))
    cli.ok("cp", "-L", f"{box}:/d/tovol/v", str(tmp_path / "through"))
    assert (tmp_path / "through").read_text() == "v\n"
    if engine.kind == "teu":
        ident = engine.api.inspect(box)["Id"]
        until("its mount goes", lambda: not any(ident in point for point in engine.mount_points()))


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/nosuch", 404, "Could not find the file /nosuch in container BOX"),
        ("/d/f/x", 400, "not a directory"),
        ("/d/f/", 400, "not a directory"),
        ("", 400, "bad parameter: path"),
        ("/" + "n" * 300, 400, "too long"),
        ("/d/\0", 400, "zero byte"),
    ],
)
def test_paths_that_are_refused(
    engine: Engine, box: str, path: str, status: int, said: str
) -> None:
    if engine.kind == "dockerd" and status == 400:
        pytest.skip("this docker daemon answers some of these with 500")
    for method in ("GET", "HEAD", "PUT"):
        body = packed(("a", b"", 0)) if method == "PUT" else None
        reply = archive(engine, method, box, path, body)
        assert reply.status == status, reply
        if method == "GET":
            assert said.replace("BOX", box) in reply.json()["message"]


# --- into a container -----------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["running", "stopped", "paused", "created"])
def test_in(cli: Cli, engine: Engine, names: Names, tmp_path: Path, state: str) -> None:
    name = names("a")
    cli.ok("create", "--name", name, "-v", "/vol", "busybox", "sleep", "1000")
    if state != "created":
        cli.ok("start", name)
    if state in ("stopped", "paused"):
        cli.ok(*(("stop", "-t", "0") if state == "stopped" else ("pause",)), name)
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_text("in\n")
    os.chown(tmp_path / "tree" / "deep" / "file", 1234, 567)
    cli.ok("cp", str(tmp_path / "tree"), f"{name}:/new")
    cli.ok("cp", f"{tmp_path}/tree/.", f"{name}:/vol")
    cli.ok("cp", "-a", str(tmp_path / "tree" / "deep" / "file"), f"{name}:/renamed")
    if state == "paused":
        cli.ok("unpause", name)
    elif state != "running":
        cli.ok("start", name)
    script = "cat /new/deep/file /vol/deep/file /renamed; stat -c %u:%g /renamed"
    assert cli.ok("exec", name, "sh", "-c", script).split() == ["in", "in", "in", "1234:567"]


def test_in_from_a_stream(cli: Cli, box: str) -> None:
    cli.ok("cp", "-", f"{box}:/d/sub", stdin=packed(("a/", b"", 0), ("a/b", b"streamed", 5)))
    assert cli.ok("exec", box, "sh", "-c", "cat /d/sub/a/b; stat -c :%u /d/sub/a/b") == "streamed:5"
    assert "must be a directory" in cli.fails(1, "cp", "-", f"{box}:/d/f", stdin=packed())
    junk = cli.run("cp", "-", f"{box}:/d/sub", stdin=b"this is no archive")
    assert (junk.code, "unexpected EOF" in junk.err) == (1, True)


def test_in_through_symlinks(cli: Cli, box: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("new\n")
    cli.ok("cp", str(tmp_path / "f"), f"{box}:/d/abs")
    cli.ok("cp", str(tmp_path / "f"), f"{box}:/d/dangling")
    cli.ok("cp", str(tmp_path / "f"), f"{box}:/d/tovol/linked")
    assert cli.ok("exec", box, "cat", "/d/f", "/nowhere", "/vol/linked").split() == ["new"] * 3


def test_in_refuses_to_change_kinds(cli: Cli, box: str, tmp_path: Path) -> None:
    assert "cannot copy directory" in cli.fails(1, "cp", str(tmp_path), f"{box}:/d/f")
    assert "no such directory" in cli.fails(1, "cp", "/etc/hostname", f"{box}:/nodir/")


def test_in_and_read_only(cli: Cli, names: Names, tmp_path: Path) -> None:
    name, volumes = names("ro"), ["-v", "/rw", "-v", f"{tmp_path}:/ro:ro"]
    cli.ok("run", "-d", "--name", name, "--read-only", *volumes, "busybox", "sleep", "1000")
    said = "container rootfs is marked read-only"
    assert said in cli.fails(1, "cp", "/etc/hostname", f"{name}:/x")
    assert "marked read-only" in cli.fails(1, "cp", "/etc/hostname", f"{name}:/ro/x")
    cli.ok("cp", "/etc/hostname", f"{name}:/rw/x")
    cli.ok("stop", "-t", "0", name)
    assert said in cli.fails(1, "cp", "/etc/hostname", f"{name}:/x")
    assert "marked read-only" in cli.fails(1, "cp", "/etc/hostname", f"{name}:/ro/x")
    cli.ok("cp", "/etc/hostname", f"{name}:/rw/y")
    assert list(tmp_path.iterdir()) == []


def test_a_copy_does_not_stand_in_the_way(engine: Engine, box: str) -> None:
    """An upload that never ends: the container can be stopped, started and removed meanwhile."""
    import socket

    if engine.kind == "dockerd":
        pytest.skip("Docker holds the container's lock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(engine.socket))
        target = f"/containers/{box}/archive?path=/d"
        head = f"PUT {target} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        sock.sendall(head.encode() + b"4\r\nabcd\r\n")
        for action in ("stop?t=0", "start", "kill"):
            reply = engine.api.request("POST", f"/containers/{box}/{action}", timeout_s=10)
            assert reply.status == 204, reply
        reply = engine.api.request("DELETE", f"/containers/{box}", force=1, timeout_s=10)
        assert reply.status == 204, reply


def test_start_while_a_stopped_container_is_copied(engine: Engine, names: Names) -> None:
    """The copy's mount becomes the container's."""
    cli = engine.cli("docker")
    cli.ok("create", "--name", names("a"), "busybox", "sleep", "1000")
    for _ in range(3):
        copies = [cli.spawn("cp", f"{names('a')}:/bin", "-") for _ in range(3)]
        for copy in copies:
            assert copy.stdout
            copy.stdout.read(1)
        cli.ok("start", names("a"))
        for copy in copies:
            copy.communicate(timeout=60)
            assert copy.returncode == 0
        assert cli.ok("exec", names("a"), "echo", "lives") == "lives"
        cli.ok("stop", "-t", "0", names("a"))


# --- hostile containers ---------------------------------------------------------------------------


@contextmanager
def swapping(cli: Cli, name: str, script: str) -> Iterator[None]:
    """Runs a loop in the container for the time of the context."""
    process = cli.spawn("exec", name, "sh", "-c", f"while :; do {script}; done")
    try:
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that a container tries to reach."""
    (tmp_path / "secret").write_text("the host's secret")
    (tmp_path / "secret").chmod(0o600)
    return tmp_path


def untouched(outside: Path) -> bool:
    secret = outside / "secret"
    mode = stat.S_IMODE(secret.stat().st_mode)
    return (
        [path.name for path in outside.iterdir()] == ["secret"]
        and mode == 0o600
        and secret.stat().st_uid == 0
        and secret.read_text() == "the host's secret"
    )


@pytest.mark.parametrize("running", [True, False])
def test_symlinks_do_not_lead_out(
    engine: Engine, names: Names, outside: Path, running: bool
) -> None:
    cli, name = engine.cli("docker"), names("a")
    links = f"ln -s {outside} /abs; ln -s ../../../../../../..{outside} /climb; ln -s /proc/1/root /magic"
    cli.ok("run", "-d", "--name", name, "busybox", "sh", "-c", f"{links}; exec sleep 1000")
    until("the links are made", lambda: cli.run("exec", name, "ls", "/magic").code == 0)
    if not running:
        cli.ok("stop", "-t", "0", name)
    for path in ("/abs", "/climb", f"/magic{outside}"):
        reply = archive(engine, "GET", name, f"{path}/secret")
        assert reply.status == 404, reply
        body = packed(("evil", b"evil", 0))
        reply = archive(engine, "PUT", name, path, body)
        assert reply.status in (400, 404), reply
    body = packed(("d", str(outside), 0), ("d/evil", b"evil", 0))
    archive(engine, "PUT", name, "/", body)
    assert untouched(outside)


def test_symlinks_that_are_swapped_during_the_copy_in(
    engine: Engine, names: Names, outside: Path
) -> None:
    cli, name = engine.cli("docker"), names("a")
    cli.ok("run", "-d", "--name", name, "busybox", "sleep", "1000")
    cli.ok("exec", name, "mkdir", "-p", "/d")
    swap = (
        f"rm -rf /d/x; mkdir /d/x; rm -rf /d/x; ln -s {outside} /d/x; rm -f /d/n;"
        f"ln -s {outside}/secret /d/n; rm -f /d/x"
    )
    entries = [
        ("x/", b"", 0),
        ("x/evil", b"evil", 4242),
        ("x/secret", b"gone", 4242),
        ("n", b"n", 7),
    ]
    node = tarfile.TarInfo("n")
    node.type, node.mode, node.uid = tarfile.FIFOTYPE, 0o777, 4242
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for _ in range(200):
            tar.addfile(node)
    with swapping(cli, name, swap):
        for _ in range(25):
            for body in (packed(*entries * 40), buffer.getvalue()):
                reply = archive(engine, "PUT", name, "/d", body)
                assert reply.status in (200, 400, 404, 500), reply
    assert untouched(outside)


def test_symlinks_that_are_swapped_during_the_copy_out(
    engine: Engine, names: Names, outside: Path
) -> None:
    cli, name = engine.cli("docker"), names("a")
    cli.ok("run", "-d", "--name", name, "busybox", "sleep", "1000")
    cli.ok("exec", name, "sh", "-c", "mkdir -p /d; for i in $(seq 50); do echo > /d/$i; done")
    swap = f"mkdir -p /d/x; echo own > /d/x/secret; rm -rf /d/x; ln -s {outside} /d/x; rm -f /d/x; ln -sf {outside}/secret /d/25"
    with swapping(cli, name, swap):
        for _ in range(40):
            reply = archive(engine, "GET", name, "/d")
            assert b"the host's secret" not in reply.body
            reply = archive(engine, "GET", name, "/d/x/secret")
            assert b"the host's secret" not in reply.body
    assert untouched(outside)


def test_a_device_in_a_file_s_place_is_not_read(engine: Engine, names: Names) -> None:
    cli, name = engine.cli("docker"), names("a")
    cli.ok("run", "-d", "--name", name, "busybox", "sleep", "1000")
    cli.ok("exec", name, "sh", "-c", "mkdir /d; mknod /d/zero c 1 5; mkfifo /d/pipe; echo > /d/f")
    reply = archive(engine, "GET", name, "/d")
    found = members(reply.body)
    assert found["d/zero"].ischr()
    assert found["d/pipe"].isfifo()


# --- diff and export ------------------------------------------------------------------------------


def test_diff(cli: Cli, names: Names) -> None:
    script = "echo > /new; rm /etc/group; echo >> /etc/passwd; mkdir /dir; touch /dir/in"
    cli.run("run", "--name", names("a"), "busybox", "sh", "-c", script)
    lines = cli.ok("diff", names("a")).splitlines()
    assert sorted(lines) == [
        "A /dir",
        "A /dir/in",
        "A /new",
        "C /etc",
        "C /etc/passwd",
        "D /etc/group",
    ]
    cli.ok("create", "--name", names("b"), "busybox", "true")
    assert cli.ok("diff", names("b")) == ""


@pytest.mark.parametrize("running", [True, False])
def test_export(cli: Cli, names: Names, running: bool) -> None:
    command = "mkdir /d; echo x > /d/f; chown 33:44 /d/f; ln -s f /d/l; touch /made"
    tail = "; exec sleep 1000" if running else ""
    name = names("a")
    cli.ok(
        "run",
        *(["-d"] if running else []),
        "--name",
        name,
        "-v",
        "/vol",
        "busybox",
        "sh",
        "-c",
        command + tail,
    )
    if running:
        until("it is made", lambda: cli.run("exec", name, "test", "-e", "/made").code == 0)
        cli.ok("exec", name, "touch", "/vol/not-exported")
    process = cli.spawn("export", name)
    out, _ = process.communicate(timeout=60)
    found = members(out)
    assert (found["d/f"].uid, found["d/f"].gid) == (33, 44)
    assert found["d/l"].linkname == "f"
    assert "vol/not-exported" not in found
    assert not any(path.startswith("proc/") for path in found)


def test_export_to_nobody_who_reads(engine: Engine, names: Names) -> None:
    """A client that goes away in the middle leaves nothing mounted."""
    cli = engine.cli("docker")
    cli.ok("create", "--name", names("a"), "busybox", "true")
    process = cli.spawn("export", names("a"))
    assert process.stdout
    process.stdout.read(1)
    process.kill()
    process.communicate()
    if engine.kind == "teu":
        ident = engine.api.inspect(names("a"))["Id"]
        until("its mount goes", lambda: not any(ident in point for point in engine.mount_points()))


def test_stat_header(engine: Engine, box: str) -> None:
    import base64

    def shown(path: str) -> dict[str, object]:
        reply = archive(engine, "HEAD", box, path)
        assert (reply.status, reply.body) == (200, b"")
        decoded: dict[str, object] = json.loads(
            base64.b64decode(reply.headers["x-docker-container-path-stat"])
        )
        return decoded

    file, link, folder = shown("/d/f"), shown("/d/abs"), shown("/d")
    assert (file["name"], file["size"], file["linkTarget"]) == ("f", 2, "")
    assert (link["name"], link["linkTarget"]) == ("abs", "/d/f")
    assert isinstance(folder["mode"], int)
    assert folder["mode"] & 1 << 31
    assert isinstance(file["mode"], int)
    assert (file["mode"] & 0o777, bool(file["mode"] & 1 << 23)) == (0o755, True)


def test_an_old_archive_tool_is_understood(engine: Engine, box: str, tmp_path: Path) -> None:
    """GNU tar, compressed; sparse files, hard links."""
    (tmp_path / "a").write_text("linked")
    os.link(tmp_path / "a", tmp_path / "b")
    data = subprocess.run(
        ["tar", "cz", "--owner=5", "-C", str(tmp_path), "."], check=True, capture_output=True
    ).stdout
    reply = archive(engine, "PUT", box, "/d/sub", data)
    assert reply.status == 200, reply
    out = engine.cli("docker").ok("exec", box, "stat", "-c", "%h %u", "/d/sub/a", "/d/sub/b")
    assert out.split("\n") == ["2 5", "2 5"]


# ruff: noqa: E501  (a table is read by its columns)
