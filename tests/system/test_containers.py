"""Real containers through crun from what `prepare` wrote, looked at from inside."""

import asyncio
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from teu.model.config import ContainerConfig, HostConfig
from teu.model.container import ContainerRecord
from teu.runtime.config import RuntimeConfig
from teu.runtime.namespaces import Joins
from teu.runtime.service import RuntimeService
from teu.sys import mounts
from teu.sys.process import Completed, run

BUSYBOX = Path("/bin/busybox")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs busybox-static"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="needs crun"),
]
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n"
GROUP = "root:x:0:\nbob:x:1000:\nextra:x:2000:bob\nmore:x:3000:\n"


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("image")
    (root / "bin").mkdir()
    shutil.copy(BUSYBOX, root / "bin/busybox")
    applets = "sh cat grep id env ls mount umount mknod dd touch sleep stat pwd head df hostname \
        dnsdomainname date chroot ps readlink test true unshare ulimit tail sort wc sed"
    for name in applets.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "tmp").mkdir(mode=0o1777)
    (root / "tmp").chmod(0o1777)
    return root


class Bench:
    """Runs one container to its end, or leaves one running until the test is over."""

    def __init__(self, image: Path, place: Path) -> None:
        self.exec_root = place / "run"
        self._image = image
        self._place = place
        self._records: list[ContainerRecord] = []
        self.service = RuntimeService(RuntimeConfig(exec_root=self.exec_root))
        asyncio.run(self.service.start())

    def record(
        self, script: str, *, host: dict[str, Any] | None = None, **config: Any
    ) -> ContainerRecord:
        mounted = config.pop("mounts", [])
        record = ContainerRecord(
            id=secrets.token_hex(32),
            name="test",
            created_ns=0,
            image_id="",
            config=ContainerConfig(**config),
            host=HostConfig(**{"shm_size": 1 << 20, **(host or {})}),
            args=["sh", "-c", script],
            mounts=mounted,
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
        await self.service.prepare(
            record,
            rootfs=self.rootfs(record),
            bundle=self.bundle(record),
            etc_files=etc,
            joins=joins or Joins(),
        )

    async def run(self, record: ContainerRecord, joins: Joins | None = None) -> Completed:
        await self.prepare(record, joins)
        command = [*self.service.command(record.host.runtime), "run"]
        return await run(
            [*command, "--bundle", str(self.bundle(record)), record.id],
            timeout_s=20,
            check=False,
        )

    def output(self, script: str, **options: Any) -> str:
        """What the script prints in a container of that configuration; it must succeed."""
        joins = options.pop("joins", None)
        done = asyncio.run(self.run(self.record(script, **options), joins))
        assert done.returncode == 0, (done.stdout + done.stderr).decode()
        return done.stdout.decode().strip()

    async def clean(self) -> None:
        for record in self._records:
            await self.service.delete(record.id, record.host.runtime)
            for controller, top in self.service.cgroups.mounts.items():
                left = top / self.service.cgroup_path(record).lstrip("/")
                assert not left.exists(), f"{controller}: {left}"
        assert mounts.unmount_all_under(self._place) == []


@pytest.fixture
def bench(image: Path, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(image, tmp_path)
    yield made
    asyncio.run(made.clean())


def test_runs_and_sees_its_own_world(bench: Bench) -> None:
    said = bench.output("echo $$; hostname; id; pwd; echo $HOME $PATH; cat /etc/hostname")
    pid, host, ident, folder, home, etc = said.splitlines()
    assert pid == "1"
    assert len(host) == 12
    assert ident == "uid=0(root) gid=0(root) groups=0(root)"
    assert folder == "/"
    assert home == "/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert etc == "hostname of the test"
