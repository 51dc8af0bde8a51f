"""The daemon ends at any line of a volume's creation, filling, copy, renaming, removal or pruning.

A child process does the operation and ends, without any clean-up, at the N-th line that is
executed in the code of volumes: for some N that cover the whole, with TEU_TEST_EVERY_POINT=1 for
four times as many. A service that is started anew on what is left must find a state that loses
nothing.
"""

import asyncio
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from teu.store.db import Database
from teu.store.volumes import VolumeStore
from teu.volume.plugins import Plugins
from teu.volume.service import VolumeService

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
_WATCHED = ("/teu/volume/", "/teu/store/volumes.py", "/teu/sys/beneath.py", "/teu/tx.py")
_ENDED_HERE = 99
_SPARSE = 1 if os.environ.get("TEU_TEST_EVERY_POINT") else 4
Work = Callable[[VolumeService], Awaitable[object]]


class Bench:
    """A data root, started from the same state for each point."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.users: dict[str, list[str]] = {}

    async def run(self, work: Work) -> Any:
        """A daemon's worth of volume service on the root, with its recovery."""
        db = Database(self.root / "teu.db")
        try:
            service = VolumeService(
                VolumeStore(db),
                self.root / "volumes",
                lambda name: self.users.get(name, []),
                Plugins([]),
                lambda action, name, facts: None,
            )
            await service.start()
            return await work(service)
        finally:
            db.close()

    def do(self, work: Work) -> Any:
        return asyncio.run(self.run(work))

    def crash(self, work: Work, point: int) -> bool:
        """Does it in a child that ends at the N-th line; False when it came to its end before."""
        child = os.fork()
        if not child:
            code = 1
            try:
                self.do(lambda service: _counted(work, service, point))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, _ENDED_HERE), f"the child ended with {code}"
        return code == _ENDED_HERE


async def _counted(work: Work, service: VolumeService, point: int) -> None:
    left = point
    lock = threading.Lock()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not any(part in frame.f_code.co_filename for part in _WATCHED):
            return None
        if event == "line":
            with lock:
                left -= 1
                if left == 0:
                    os._exit(_ENDED_HERE)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        await work(service)
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What is copied into volumes."""
    tree = tmp_path / "source"
    (tree / "sub").mkdir(parents=True)
    for name in ("a", "b", "sub/c"):
        (tree / name).write_text(name)
    os.chown(tree, 33, 44)
    return tree


def everywhere(
    root: Path, work: Work, check: Callable[[Bench, VolumeService], Awaitable[None]],
    prepare: Work | None = None, users: dict[str, list[str]] | None = None, stride: int = 3,
) -> None:  # fmt: skip
    """Crashes `work` at every `stride`-th line; `check` looks at what the next start makes of
    it."""
    point, ended_early = 1, True
    while ended_early:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        bench = Bench(root)
        bench.users = users or {}
        if prepare is not None:
            bench.do(prepare)
        ended_early = bench.crash(work, point)
        bench.do(lambda service: check(bench, service))  # noqa: B023 - used at once
        bench.do(lambda service: check(bench, service))  # noqa: B023 - and it is stable
        point += stride * _SPARSE
    assert point > 5 * stride * _SPARSE, "the operation was not watched"


def names(service: VolumeService) -> set[str]:
    return {record.name for record in service.all()}


def directories(bench: Bench) -> set[str]:
    return {entry.name for entry in (bench.root / "volumes").iterdir()}


def content(service: VolumeService, name: str) -> dict[str, str]:
    data = Path(service.mountpoint(service.get(name)))
    return {str(p.relative_to(data)): p.read_text() for p in data.rglob("*") if p.is_file()}


WHOLE = {"a": "a", "b": "b", "sub/c": "sub/c"}


async def _make(service: VolumeService) -> None:
    await service.ensure("vv", labels={"x": "y"})


async def _make_with_data(service: VolumeService) -> None:
    record, _ = await service.ensure("vv")
    data = Path(service.mountpoint(record))
    (data / "sub").mkdir()
    for name, text in WHOLE.items():
        (data / name).write_text(text)


def test_create(tmp_path: Path) -> None:
    async def check(bench: Bench, service: VolumeService) -> None:
        assert names(service) == directories(bench) <= {"vv"}
        if names(service):
            assert service.get("vv").labels == {"x": "y"}
            assert content(service, "vv") == {}

    everywhere(tmp_path / "root", _make, check, stride=1)


def test_copy_up(tmp_path: Path, source: Path) -> None:
    """Filled or empty, never half; the next start of the container fills it."""

    async def fill(service: VolumeService) -> None:
        fd = os.open(source, os.O_PATH)
        try:
            directory = await service.mount("vv", "container")
            await service.copy_up("vv", directory, fd)
        finally:
            os.close(fd)

    async def check(bench: Bench, service: VolumeService) -> None:
        assert content(service, "vv") in ({}, WHOLE)
        assert {p.name for p in (bench.root / "volumes/vv").iterdir()} == {"_data"}

    async def check_and_fill(bench: Bench, service: VolumeService) -> None:
        await check(bench, service)
        await fill(service)
        assert content(service, "vv") == WHOLE
        found = (bench.root / "volumes/vv/_data").stat()
        assert (found.st_uid, found.st_gid) == (33, 44)

    everywhere(tmp_path / "root", fill, check_and_fill, prepare=_make, stride=4)


def test_remove(tmp_path: Path) -> None:
    """All of it or nothing of it."""

    async def check(bench: Bench, service: VolumeService) -> None:
        assert names(service) == directories(bench) <= {"vv"}
        if names(service):
            assert content(service, "vv") == WHOLE

    remove: Work = lambda service: service.remove("vv")  # noqa: E731
    everywhere(tmp_path / "root", remove, check, prepare=_make_with_data)


def test_remove_of_a_bind_volume(tmp_path: Path, source: Path) -> None:
    """What is mounted is not the volume's: not a byte of it goes."""
    options = {"type": "none", "o": "bind", "device": str(source)}

    async def prepare(service: VolumeService) -> None:
        await service.ensure("vv", options=options)

    async def use_and_remove(service: VolumeService) -> None:
        await service.mount("vv", "container")
        await service.unmount("vv", "container")
        await service.mount("vv", "other")
        service.begin_removal("vv")
        await service.finish_removal("vv")

    async def check(bench: Bench, service: VolumeService) -> None:
        await service.unmount_unused()
        assert not (bench.root / "volumes/vv/_data").is_mount()
        assert names(service) == directories(bench) <= {"vv"}
        assert {p.name for p in source.iterdir()} == {"a", "b", "sub"}

    everywhere(tmp_path / "root", use_and_remove, check, prepare=prepare, stride=5)


def test_prune(tmp_path: Path) -> None:
    async def prepare(service: VolumeService) -> None:
        await _make_with_data(service)
        for name in ("used", "free"):
            record, _ = await service.ensure(name)
            (Path(service.mountpoint(record)) / "f").write_text(name)

    async def check(bench: Bench, service: VolumeService) -> None:
        assert "used" in names(service) == directories(bench)
        assert content(service, "used") == {"f": "used"}
        if "vv" in names(service):
            assert content(service, "vv") == WHOLE

    prune: Work = lambda service: service.prune(  # noqa: E731
        include_named=True, wanted=lambda volume: True
    )
    users = {"used": ["container"]}
    everywhere(tmp_path / "root", prune, check, prepare=prepare, users=users, stride=7)


def test_clone(tmp_path: Path) -> None:
    async def clone(service: VolumeService) -> None:
        await service.copied("vv", "ww", labels={}, read_only=True)

    async def check(bench: Bench, service: VolumeService) -> None:
        assert names(service) == directories(bench)
        assert content(service, "vv") == WHOLE
        if "ww" in names(service):
            assert content(service, "ww") == WHOLE
            assert service.get("ww").read_only

    everywhere(tmp_path / "root", clone, check, prepare=_make_with_data, stride=4)


def test_rename(tmp_path: Path) -> None:
    async def rename(service: VolumeService) -> None:
        service.renamed("vv", service.rename("vv", "ww"))
        await service.ensure("vv")  # the old name is free at once

    async def check(bench: Bench, service: VolumeService) -> None:
        (with_data,) = [name for name in names(service) if content(service, name)]
        assert content(service, with_data) == WHOLE
        assert names(service) == directories(bench)

    everywhere(tmp_path / "root", rename, check, prepare=_make_with_data, stride=2)
