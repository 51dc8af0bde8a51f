"""Volumes of a plugin: a real one, in a process of its own, that may hang, die and lie."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from harness import leaks, volumeplugin
from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until
from teu.errors import DeadlineExceeded, EngineError, SystemFailure, Unavailable
from teu.model.volume import VolumeRecord
from teu.volume.errors import NoSuchDriver
from teu.volume.plugins import Limits, PluginFailure, Plugins
from teu.volume.remote import PluginDriver


class RunningPlugin:
    """The plugin's process; `say` makes it lie."""

    def __init__(self, socket: Path, folder: Path) -> None:
        self.socket, self.folder = socket, folder
        self.name = socket.stem
        (folder / "lies").mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        argv = [sys.executable, volumeplugin.__file__, self.socket, self.folder]
        self.process = subprocess.Popen(argv)
        until("the plugin listens", self._listens)

    def _listens(self) -> bool:
        import socket

        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(str(self.socket))
            except OSError:
                return False
            return True

    def say(self, method: str, text: str) -> None:
        (self.folder / "lies" / method).write_text(text)

    def be_honest(self) -> None:
        for lie in (self.folder / "lies").iterdir():
            lie.unlink()

    def calls(self, method: str, name: str) -> int:
        return (
            (self.folder / "calls").read_text().splitlines().count(f"VolumeDriver.{method} {name}")
        )

    def users(self, volume: str) -> set[str]:
        home = self.folder / "volumes" / volume
        return {p.name.removeprefix("user-") for p in home.glob("user-*")}

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)


@pytest.fixture
def plugin(engine: Engine, tmp_path: Path) -> Iterator[RunningPlugin]:
    if engine.kind != "teu":
        pytest.skip("the peer looks for plugins in the machine's own folders only")
    name = f"p{engine.slot.number}"
    before = leaks.snapshot(engine)
    running = RunningPlugin(engine.exec_root / "plugins" / f"{name}.sock", tmp_path / "plugin")
    try:
        yield running
        running.be_honest()
        leaks.remove_new(engine, before)
    finally:
        running.stop()


def test_the_life_of_a_volume(
    cli: Cli, engine: Engine, names: Names, plugin: RunningPlugin
) -> None:
    name = names("v")
    options = ["-o", "colour=red", "--label", "a=b"]
    cli.ok("volume", "create", "-d", plugin.name, *options, name)
    assert json.loads((plugin.folder / "volumes" / name / "opts").read_text()) == {"colour": "red"}
    (shown,) = json.loads(cli.ok("volume", "inspect", name))
    assert shown["Driver"] == plugin.name
    assert shown["Scope"] == "global"
    assert shown["Status"] == {"mood": "good"}
    assert shown["Mountpoint"] == str(plugin.folder / "volumes" / name / "data")
    assert [plugin.name, name] in [row.split() for row in cli.ok("volume", "ls").splitlines()]
    assert plugin.name in json.loads(cli.ok("info", "-f", "{{json .Plugins.Volume}}"))
    container = cli.ok(
        "run", "-d", "-v", f"{name}:/d", "busybox", "sh", "-c", "echo x > /d/f; sleep 1000"
    )
    assert plugin.users(name) == {container}
    assert cli.ok("run", "--rm", "-v", f"{name}:/d:ro", "busybox", "cat", "/d/f") == "x"
    until("one user is left", lambda: plugin.users(name) == {container})
    assert "volume is in use" in cli.fails(1, "volume", "rm", name)
    cli.ok("rm", "-f", container)
    cli.ok("volume", "rm", name)
    assert not (plugin.folder / "volumes" / name).exists()


def test_what_only_the_plugin_knows(
    cli: Cli, engine: Engine, names: Names, plugin: RunningPlugin
) -> None:
    """A volume that somebody else made there is listed, inspected, used and removed."""
    name = names("v")
    (plugin.folder / "volumes" / name / "data").mkdir(parents=True)
    assert name in cli.ok("volume", "ls", "-q").split()
    assert json.loads(cli.ok("volume", "inspect", name))[0]["Driver"] == plugin.name
    flags = ["--volume-driver", plugin.name, "-v", f"{name}:/d"]
    cli.ok("run", "--rm", *flags, "busybox", "touch", "/d/f")
    assert plugin.calls("Create", name) == 0
    assert (plugin.folder / "volumes" / name / "data/f").exists()
    cli.ok("volume", "rm", name)
    assert not (plugin.folder / "volumes" / name).exists()


def test_copy_up_and_anonymous_volumes(cli: Cli, engine: Engine, plugin: RunningPlugin) -> None:
    spec = f"type=volume,dst=/etc,volume-driver={plugin.name}"
    assert "root" in cli.ok("run", "--rm", "--mount", spec, "busybox", "cat", "/etc/passwd")
    until("the volume is gone", lambda: not list((plugin.folder / "volumes").iterdir()))


def test_what_the_plugin_refuses(
    cli: Cli, engine: Engine, names: Names, plugin: RunningPlugin
) -> None:
    said = cli.fails(1, "volume", "create", "-d", plugin.name, "-o", "refuse=yes", names("v"))
    assert "VolumeDriver.Create: I refuse" in said
    assert names("v") not in cli.ok("volume", "ls", "-q").split()
    cli.ok("volume", "create", "-d", plugin.name, names("w"))
    said = cli.fails(1, "volume", "create", "-d", "local", names("w"))
    assert f"create {names('w')}: volume name must be unique" in said
    plugin.say("Mount", '{"Err": "no mood"}')
    said = cli.fails(125, "run", "--rm", "-v", f"{names('w')}:/d", "busybox", "true")
    assert "error while mounting volume '': VolumeDriver.Mount: no mood" in said
    plugin.be_honest()
    assert cli.ok("run", "--rm", "-v", f"{names('w')}:/d", "busybox", "echo", "fine") == "fine"


@pytest.mark.parametrize(
    "lie", ['{"Mountpoint": "relative"}', '{"Mountpoint": "/no/such"}', "{}", "[1]", "<html>"]
)
def test_what_the_plugin_lies(
    engine: Engine, names: Names, plugin: RunningPlugin, lie: str
) -> None:
    cli = engine.cli("docker")
    cli.ok("volume", "create", "-d", plugin.name, names("v"))
    plugin.say("Mount", lie)
    said = cli.fails(125, "run", "--rm", "-v", f"{names('v')}:/d", "busybox", "true")
    assert f'volume plugin "{plugin.name}"' in said
    plugin.be_honest()
    plugin.say("List", lie)
    assert names("v") in cli.ok("volume", "ls", "-q").split()


def test_a_plugin_that_dies(cli: Cli, engine: Engine, names: Names, plugin: RunningPlugin) -> None:
    name = names("v")
    cli.ok("volume", "create", "-d", plugin.name, name)
    container = cli.ok("run", "-d", "-v", f"{name}:/d", "busybox", "sleep", "1000")
    plugin.process.kill()
    plugin.process.wait()
    assert name in cli.ok("volume", "ls", "-q").split()
    assert (
        "cannot be reached" in json.loads(cli.ok("volume", "inspect", name))[0]["Status"]["Error"]
    )
    assert cli.ok("exec", container, "ls", "/d") == ""
    cli.ok("rm", "-f", container)
    said = cli.fails(125, "run", "--rm", "-v", f"{name}:/d", "busybox", "true")
    assert "cannot be reached" in said
    said = cli.fails(1, "volume", "rm", name)
    assert "is it running?" in said
    plugin.start()
    assert cli.ok("run", "--rm", "-v", f"{name}:/d", "busybox", "echo", "again") == "again"
    plugin.stop()
    cli.ok("volume", "rm", "-f", name)  # what cannot come back can be forgotten
    assert name not in cli.ok("volume", "ls", "-q").split()


# --- the protocol, without a daemon --------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RunningPlugin]:
    short = Path(f"/tmp/vp{os.getpid()}")
    running = RunningPlugin(short / "alone.sock", tmp_path / "plugin")
    try:
        yield running
    finally:
        running.stop()
        short.rmdir()


def ask(plugin: RunningPlugin, work: Callable[[PluginDriver], Awaitable[object]]) -> object:
    async def whole() -> object:
        plugins = Plugins([plugin.socket.parent], Limits(ask_s=0.4, work_s=0.6))
        try:
            return await work(PluginDriver(await plugins.get(plugin.name)))
        finally:
            await plugins.close()

    return asyncio.run(whole())


RECORD = VolumeRecord(name="v", driver="alone")


@pytest.mark.parametrize(
    ("method", "told", "kind", "text"),
    [
        ("Create", "hang", DeadlineExceeded, "did not answer VolumeDriver.Create within 0.6 s"),
        ("Create", "die", Unavailable, "cannot be reached"),
        ("Create", "not json", SystemFailure, "not a JSON object"),
        ("Create", '{"Err": "no"}', PluginFailure, "VolumeDriver.Create: no"),
        ("Activate", '{"Implements": ["NetworkDriver"]}', NoSuchDriver, "not found"),
        ("Activate", "{}", SystemFailure, "does not say what it implements"),
        ("Activate", "hang", DeadlineExceeded, "within 0.4 s"),
        ("Create", '{"x": "' + "y" * (5 << 20) + '"}', SystemFailure, "more than 4 MiB"),
    ],
)
def test_answers(
    alone: RunningPlugin, method: str, told: str, kind: type[EngineError], text: str
) -> None:
    alone.say(method, told)
    with pytest.raises(kind, match=text):
        ask(alone, lambda driver: driver.create(RECORD))


def test_list_leaves_out_what_makes_no_sense(alone: RunningPlugin) -> None:
    alone.say("List", '{"Volumes": [{"Name": "a"}, {"Name": 3}, "x", {"Mountpoint": "/"}]}')
    found = ask(alone, lambda driver: driver.list())
    assert [name for name, _ in found] == ["a"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("p.spec", "unix:///no/such.sock", "cannot be reached at unix:///no/such.sock"),
        ("p.spec", "somewhere", "is not an address"),
        ("p.json", "{", "not a description of a plugin"),
        ("p.json", '{"Name": "p", "Addr": "tcp://127.0.0.1:1"}', "cannot be reached"),
        ("q.json", '{"Name": "p", "Addr": "tcp://127.0.0.1:1"}', 'plugin "p" not found'),
    ],
)
def test_where_plugins_are_described(tmp_path: Path, file: str, text: str, problem: str) -> None:
    (tmp_path / file).write_text(text)

    async def whole() -> None:
        plugins = Plugins([tmp_path / "none", tmp_path], Limits(ask_s=5, work_s=5))
        assert plugins.names() == [file[0]]
        try:
            await plugins.get("p")
        finally:
            await plugins.close()

    with pytest.raises(EngineError, match=problem):
        asyncio.run(whole())


def test_names_stay_in_their_folder(alone: RunningPlugin) -> None:
    async def whole() -> None:
        for name in ("../alone", "..", "", "/tmp"):
            with pytest.raises(NoSuchDriver):
                await Plugins([alone.socket.parent / "x"]).get(name)

    asyncio.run(whole())
