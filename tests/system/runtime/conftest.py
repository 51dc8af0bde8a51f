"""A bench for real containers: busybox bundles, run through crun from what `prepare` wrote."""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from teu.model.config import ContainerConfig, HostConfig
from teu.model.container import ContainerRecord, MountPoint
from teu.runtime.config import RuntimeConfig
from teu.runtime.namespaces import Joins
from teu.runtime.processes import ExecRequest
from teu.runtime.service import RuntimeService
from teu.sys import mounts
from teu.sys.process import Completed, run

BUSYBOX = Path("/bin/busybox")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n"
GROUP = "root:x:0:\nbob:x:1000:\nextra:x:2000:bob\nmore:x:3000:\n"
APPLETS = (
    "sh cat grep id env ls mount umount mknod dd touch sleep stat pwd head df hostname date chroot "
    "ps readlink test true unshare tail sort wc sed dnsdomainname ping nice"
)


@pytest.fixture(autouse=True)
def _needs() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not BUSYBOX.exists():
        pytest.skip("needs busybox-static")
    if shutil.which("crun") is None:
        pytest.skip("needs crun")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("image")
    (root / "bin").mkdir()
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    root.chmod(0o755)
    return root


class Bench:
    """Runs containers of one service; `clean` removes them and checks that nothing is left."""

    def __init__(self, image: Path, place: Path, **config: Any) -> None:
        self.exec_root = place / "run"
        self._image = image
        self._place = place
        self._records: list[ContainerRecord] = []
        self.service = RuntimeService(RuntimeConfig(exec_root=self.exec_root, **config))
        asyncio.run(self.service.start())

    def record(
        self,
        *args: str,
        host: dict[str, Any] | None = None,
        mounts: list[MountPoint] | None = None,
        **config: Any,
    ) -> ContainerRecord:
        record = ContainerRecord(
            id=secrets.token_hex(32),
            name="test",
            created_ns=0,
            image_id="",
            config=ContainerConfig(**config),
            host=HostConfig(**(host or {})),
            args=list(args),
            mounts=mounts or [],
        )
        self._records.append(record)
        return record

    def rootfs(self, record: ContainerRecord) -> Path:
        return self._place / record.id / "rootfs"

    def bundle(self, record: ContainerRecord) -> Path:
        return self.exec_root / "containers" / record.id

    async def prepare(self, record: ContainerRecord, joins: Joins | None = None) -> None:
        home = self._place / record.id
        for name in ("upper", "work", "rootfs"):
            (home / name).mkdir(parents=True)
        self.bundle(record).mkdir(parents=True)
        mounts.mount_overlay([self._image], home / "upper", home / "work", home / "rootfs")
        etc = {}
        for name in ("hosts", "hostname", "resolv.conf"):
            (home / name).write_text(f"{name} of the test\n")
            etc[f"/etc/{name}"] = home / name
        self.service.fill_defaults(record.host)
        await self.service.prepare(
            record,
            rootfs=self.rootfs(record),
            bundle=self.bundle(record),
            etc_files=etc,
            prepared={},
            joins=joins or Joins(),
        )

    async def call(self, record: ContainerRecord, *words: str) -> Completed:
        command = [*self.service.command(record.host.runtime), *words]
        return await run(command, timeout_s=20, check=False)

    async def run(self, record: ContainerRecord, joins: Joins | None = None) -> Completed:
        await self.prepare(record, joins)
        return await self.call(record, "run", "--bundle", str(self.bundle(record)), record.id)

    def output(self, script: str, *, joins: Joins | None = None, **options: Any) -> str:
        """What the script prints in a container of that configuration; it must succeed."""
        done = asyncio.run(self.run(self.record("sh", "-c", script, **options), joins))
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        return done.stdout.decode().strip()

    def start(self, *, joins: Joins | None = None, **options: Any) -> tuple[ContainerRecord, int]:
        """A container that sleeps, and the host's pid of its process."""
        record = self.record("sleep", "600", **options)

        async def work() -> int:
            await self.prepare(record, joins)
            pid_file = self.bundle(record) / "pid"
            words = ("--detach", "--pid-file", str(pid_file))
            bundle = str(self.bundle(record))
            done = await self.call(record, "run", *words, "--bundle", bundle, record.id)
            assert done.returncode == 0, done.stderr.decode()
            return int(pid_file.read_text())

        return record, asyncio.run(work())

    def exec(self, record: ContainerRecord, script: str, **options: Any) -> Completed:
        request = ExecRequest(cmd=["sh", "-c", script], **options)
        process = self.service.exec_process(record, request, self.rootfs(record))
        file = self.bundle(record) / "exec.json"
        file.write_text(json.dumps(process))
        return asyncio.run(self.call(record, "exec", "--process", str(file), record.id))

    @staticmethod
    def field(text: str, name: str) -> str:
        """The value of a field in a copy of /proc/PID/status."""
        lines = text.splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith(name))

    async def clean(self) -> None:
        for record in self._records:
            await self.service.delete(record)
        left = mounts.unmount_all_under(self._place)
        for record in self._records:
            for tree in self.service.cgroups.trees:
                if (tree / self.service.cgroup_path(record).lstrip("/")).exists():
                    left.append(f"{tree}: {record.id}")
        assert left == []


@pytest.fixture
def bench(image: Path, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(image, tmp_path)
    yield made
    asyncio.run(made.clean())


@pytest.fixture
def make_bench(image: Path, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with contextlib.ExitStack() as stack:

        def make(**config: Any) -> Bench:
            made = Bench(image, tmp_path, **config)
            stack.callback(lambda: asyncio.run(made.clean()))
            return made

        yield make
