"""What volumes can do beyond Docker: export, import, clone, snapshot, rename, cp, du."""

import io
import json
import os
import tarfile
import threading
from pathlib import Path

import pytest

from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until

FILL = (
    "mkdir /d/sub; echo one > /d/a; ln /d/a /d/sub/b; ln -s a /d/link; chown 33:44 /d /d/a;"
    "chmod 751 /d; dd if=/dev/zero of=/d/holes bs=1 count=1 seek=1000000 2>/dev/null"
)
LOOK = "cd /d; stat -c '%n %F %u %g %a %h' . a sub; readlink link; cat sub/b"


@pytest.fixture
def teu(engine: Engine) -> Cli:
    if engine.kind != "teu":
        pytest.skip("the peer has no such commands")
    return engine.cli("teu")


@pytest.fixture
def filled(teu: Cli, names: Names) -> str:
    volume = names("v")
    teu.ok("volume", "create", "--label", "a=b", volume)
    teu.ok("run", "--rm", "-v", f"{volume}:/d", "busybox", "sh", "-ec", FILL)
    return volume


def look(teu: Cli, volume: str) -> str:
    return teu.ok("run", "--rm", "-v", f"{volume}:/d", "busybox", "sh", "-c", LOOK)


def data(engine: Engine, name: str) -> Path:
    return Path(engine.api.get(f"/volumes/{name}")["Mountpoint"])


def test_export_and_import(
    teu: Cli, engine: Engine, names: Names, filled: str, tmp_path: Path
) -> None:
    archive = tmp_path / "v.tar"
    teu.ok("volume", "export", "-o", str(archive), filled)
    with tarfile.open(archive) as tar:
        assert {m.name.lstrip("./") for m in tar} >= {"a", "sub", "sub/b", "link"}
    assert teu.ok("volume", "import", names("new"), str(archive)) == names("new")
    assert look(teu, names("new")).splitlines()[1:] == look(teu, filled).splitlines()[1:]
    assert teu.ok("volume", "import", names("piped"), stdin=archive.read_bytes()) == names("piped")
    assert look(teu, names("piped")) == look(teu, names("new"))


def test_import_over_what_is_there(teu: Cli, engine: Engine, filled: str) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo("new")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"new"))
    teu.ok("volume", "import", filled, stdin=packed.getvalue())
    assert (data(engine, filled) / "new").read_text() == "new"
    assert (data(engine, filled) / "a").read_text() == "one\n"


def test_a_broken_import_makes_no_volume(teu: Cli, engine: Engine, names: Names) -> None:
    bad = io.BytesIO()
    with tarfile.open(fileobj=bad, mode="w") as tar:
        info = tarfile.TarInfo("../../outside")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"new"))
    for content in (b"not a tar at all" * 100, bad.getvalue(), bad.getvalue()[:700]):
        teu.fails(1, "volume", "import", names("v"), stdin=content)
        assert engine.api.request("GET", f"/volumes/{names('v')}").status == 404
        assert not (engine.data_root / "volumes" / names("v")).exists()


def test_clone(teu: Cli, engine: Engine, names: Names, filled: str) -> None:
    clone = names("clone")
    assert teu.ok("volume", "clone", filled, clone) == clone
    assert look(teu, clone) == look(teu, filled)
    source, target = data(engine, filled), data(engine, clone)
    assert (target / "a").stat().st_ino == (target / "sub/b").stat().st_ino
    assert (target / "holes").stat().st_blocks <= (source / "holes").stat().st_blocks
    assert engine.api.get(f"/volumes/{clone}")["Labels"] == {"a": "b"}
    (target / "a").write_text("changed")
    assert (source / "a").read_text() == "one\n"
    assert "volume name must be unique" in teu.fails(1, "volume", "clone", filled, clone)
    assert "no such volume" in teu.fails(1, "volume", "clone", names("none"), names("x"))


def test_snapshot_is_read_only(teu: Cli, engine: Engine, names: Names, filled: str) -> None:
    snapshot = teu.ok("volume", "snapshot", filled)
    assert snapshot.startswith(f"{filled}-20")
    assert engine.api.get(f"/volumes/{snapshot}")["Labels"]["teu.volume.snapshot-of"] == filled
    said = teu.run(
        "run", "--rm", "-v", f"{snapshot}:/d", "busybox", "sh", "-c", "cat /d/a; touch /d/x"
    )
    assert said.out == "one\n"
    assert "Read-only file system" in said.err
    assert "is a snapshot" in teu.fails(1, "volume", "cp", "/etc/hostname", f"{snapshot}:/x")
    teu.ok("volume", "clone", snapshot, names("again"))
    teu.ok("run", "--rm", "-v", f"{names('again')}:/d", "busybox", "touch", "/d/x")
    assert teu.ok("volume", "snapshot", filled, names("named")) == names("named")
    for name in (snapshot, names("named")):
        teu.ok("volume", "rm", name)


def test_writers_stand_still_for_a_snapshot(teu: Cli, engine: Engine, names: Names) -> None:
    """Two files that are written one after the other never differ by more than one step."""
    volume = names("v")
    script = "i=0; while :; do i=$((i+1)); echo $i > /d/first; echo $i > /d/second; done"
    teu.ok("run", "-d", "--name", names("w"), "-v", f"{volume}:/d", "busybox", "sh", "-c", script)
    until("it writes", (data(engine, volume) / "second").exists)
    for number in range(3):
        copy = data(engine, teu.ok("volume", "snapshot", volume, names(f"s{number}")))
        first, second = ((copy / n).read_text().strip() for n in ("first", "second"))
        if first and second:  # else it was stopped between truncating and writing
            assert 0 <= int(first) - int(second) <= 1
    assert engine.api.state(names("w"))["Status"] == "running"


def test_rename(teu: Cli, engine: Engine, names: Names, filled: str) -> None:
    """With a running and a stopped container on it, which do not notice."""
    new = names("new")
    script = "while :; do date > /d/now; usleep 10000; done"
    teu.ok("run", "-d", "--name", names("r"), "-v", f"{filled}:/d", "busybox", "sh", "-c", script)
    spec = f"type=volume,src={filled},dst=/d,volume-subpath=sub"
    teu.ok("create", "--name", names("s"), "--mount", spec, "busybox", "cat", "/d/b")
    teu.ok("volume", "rename", filled, new)
    assert engine.api.request("GET", f"/volumes/{filled}").status == 404
    assert data(engine, new).parent.name == new
    (point,) = engine.api.inspect(names("r"))["Mounts"]
    assert (point["Name"], point["Source"]) == (new, str(data(engine, new)))
    assert engine.api.inspect(names("r"))["HostConfig"]["Binds"] == [f"{new}:/d"]
    (data(engine, new) / "now").unlink()
    until("the container writes there", (data(engine, new) / "now").exists)
    assert teu.ok("start", "-a", names("s")) == "one"
    teu.ok("restart", "-t", "0", names("r"))
    assert "volume is in use" in teu.fails(1, "volume", "rm", new)
    teu.ok("volume", "create", filled)  # the old name is free
    assert list(data(engine, filled).iterdir()) == []
    assert "must be unique" in teu.fails(1, "volume", "rename", new, filled)
    assert "invalid characters" in teu.fails(1, "volume", "rename", new, "no/slash")


def test_cp(teu: Cli, engine: Engine, filled: str, tmp_path: Path) -> None:
    teu.ok("volume", "cp", f"{filled}:/sub/b", str(tmp_path / "b"))
    assert (tmp_path / "b").read_text() == "one\n"
    teu.ok("volume", "cp", f"{filled}:/", str(tmp_path / "all"))
    assert (tmp_path / "all/sub/b").read_text() == "one\n"
    (tmp_path / "tree/x").mkdir(parents=True)
    (tmp_path / "tree/x/f").write_text("new")
    teu.ok("volume", "cp", str(tmp_path / "tree"), f"{filled}:/sub")
    assert (data(engine, filled) / "sub/tree/x/f").read_text() == "new"
    packed = teu.run("volume", "cp", f"{filled}:/a", "-")
    assert packed.code == 0
    assert "a" in packed.out[:10]
    os.symlink("/etc", data(engine, filled) / "escape")
    said = teu.fails(1, "volume", "cp", f"{filled}:/escape/passwd", str(tmp_path / "p"))
    assert f"Could not find the file /escape/passwd in volume {filled}" in said
    said = teu.fails(1, "volume", "cp", str(tmp_path / "b"), f"{filled}:/no/such/")
    assert "no such directory" in said
    assert "name one volume" in teu.fails(1, "volume", "cp", "a", "b")
    assert "no such volume" in teu.fails(1, "volume", "cp", "nosuch:/a", str(tmp_path))


def test_du(teu: Cli, engine: Engine, names: Names, filled: str) -> None:
    (data(engine, filled) / "big").write_bytes(b"x" * 3_000_000)
    os.link(data(engine, filled) / "big", data(engine, filled) / "twice")
    teu.ok("create", "--name", names("c"), "-v", f"{filled}:/d", "busybox")
    header, row = teu.ok("volume", "du", filled).splitlines()
    assert header.split() == ["VOLUME", "NAME", "DRIVER", "SIZE", "USED", "BY"]
    name, driver, size, users = row.split()
    assert (name, driver, users) == (filled, "local", names("c"))
    assert 3.0 <= float(size.removesuffix("MB")) < 3.2
    assert json.loads(teu.ok("volume", "du", "--format", "json", filled))["Name"] == filled
    assert "no such volume" in teu.fails(1, "volume", "du", "nosuch")


def test_a_volume_is_not_removed_while_it_is_exported(
    engine: Engine, teu: Cli, names: Names, filled: str
) -> None:
    (data(engine, filled) / "big").write_bytes(os.urandom(30_000_000))
    export = teu.spawn("volume", "export", filled)
    assert export.stdout
    export.stdout.read(512)
    assert "somebody copies it" in teu.fails(1, "volume", "rm", filled)
    reader = threading.Thread(target=export.stdout.read)
    reader.start()
    assert export.wait() == 0
    reader.join()
    for stream in (export.stdout, export.stderr):
        assert stream
        stream.close()
    teu.ok("volume", "rm", filled)
