"""Docker's client and ours on a real dockerd: the same command lines, byte for byte."""

import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.waiting import until

LINES = r"""
ps
ps -a
ps -as
ps -aq --no-trunc
ps -l
ps -a -f name=made -f status=created
ps -a -f label=lab=1 --format '{{.Names}} {{.Labels}} {{.Mounts}} {{.Networks}}'
ps -a --format 'table {{.Names}}\t{{.CreatedAt}}\t{{.State}}\t{{.LocalVolumes}}'
ps -a -f nope=1
images
images --digests
images -q --no-trunc
images busybox:two
images -f dangling=true
images nope
images ls
inspect made
inspect made health busybox
inspect -s -f '{{.SizeRw}} {{.SizeRootFs}}' made
inspect -f '{{.State}}' made
inspect -f '{{.Config}}' made
inspect -f '{{json .Config}}' health
inspect -f '{{json .HostConfig}}' made
inspect -f '{{json .NetworkSettings}}' made
inspect -f '{{json .}}' made
inspect -f '{{.HostConfig.PortBindings}} {{.HostConfig.LogConfig}} {{.GraphDriver.Name}}' made
inspect -f '{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}' health
inspect -f '{{.Config.Healthcheck}} {{.Config.Healthcheck.Interval}}' health
inspect -f '{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}' made health
inspect -f '{{json .}}' busybox
inspect -f '{{.RootFS}} {{.Config.Env}} {{.Config.ExposedPorts}}' busybox
inspect gone
inspect --type network made
container inspect busybox
image inspect made
network ls
network ls -f driver=null --format '{{.Name}} {{.CreatedAt}}'
network inspect none
network inspect none -f '{{.Created}} {{json .IPAM}}'
network inspect gone
network rm none
network connect gone made
volume ls
volume inspect data labelled
volume inspect -f '{{.Labels}} {{json .Options}}' labelled
volume rm data
volume rm gone
history busybox
history --no-trunc --format '{{.ID}} {{.CreatedBy}} {{.Comment}}' busybox
history -H=false busybox
system df
info -f '{{.Containers}} {{.Images}} {{.Driver}} {{.DriverStatus}} {{json .Plugins.Volume}}'
info -f '{{json .RegistryConfig}} {{json .SecurityOptions}} {{json .Swarm}}'
version -f '{{json .Server}}'
version -f '{{.Server.Version}} {{range .Server.Components}}{{.Name}} {{end}}'
search
""".strip().splitlines()


@pytest.fixture(scope="module")
def host(docker: str) -> Iterator[str]:
    """The address of a private dockerd with a few objects."""
    program = shutil.which("dockerd")
    if program is None:
        pytest.skip("no dockerd here")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        address = f"unix://{root}/d.sock"
        with open(root / "log", "wb") as log:
            daemon = subprocess.Popen(
                [program, "--data-root", f"{root}/data", "--exec-root", f"{root}/exec",
                 "-H", address, "-p", f"{root}/pid", "--bridge=none", "--iptables=false",
                 "--ip-forward=false"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            until("dockerd answers", lambda: _docker(docker, address, "version") == 0, 60)
            _fill(docker, address, root)
            yield address
        finally:
            daemon.terminate()
            daemon.wait(60)
            for line in Path("/proc/self/mounts").read_text().splitlines():
                if str(root) in line:
                    subprocess.run(["umount", "-l", line.split()[1]], check=False)


def _docker(program: str, address: str, *words: str, **options: Any) -> int:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [program, "-H", address, *words]
    return subprocess.run(command, check=False, timeout=60, **quiet, **options).returncode


def _fill(program: str, address: str, root: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no busybox here to make an image of")
    archive = root / "image.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(busybox, "bin/busybox")
    imported = ["import", "-c", 'CMD ["sh"]', "-c", "ENV A=b", "-c", "EXPOSE 80", str(archive)]
    for words in (
        [*imported, "busybox"],
        ["tag", "busybox", "busybox:two"],
        ["volume", "create", "data"],
        ["volume", "create", "labelled", "--label", "k=v"],
        ["create", "--name", "made", "-p", "8080:80", "-l", "lab=1", "--network", "none",
         "busybox", "sleep", "100"],
        ["create", "--name", "health", "--network", "host", "-v", "data:/data", "-e", "X=1",
         "--health-cmd", "true", "--health-interval", "90s", "busybox", "sh", "-c",
         'echo "a rather long command"'],
    ):  # fmt: skip
        assert _docker(program, address, *words) == 0, words


@pytest.mark.parametrize("line", LINES)
def test_same_output(both: Any, host: str, line: str) -> None:
    for _ in range(3):  # a second may begin between the two, and changes "2 seconds ago"
        theirs, ours = both(host, *shlex.split(line))
        if (ours.code, ours.out, ours.err) == (theirs.code, theirs.out, theirs.err):
            return
    assert (ours.code, ours.out, ours.err) == (theirs.code, theirs.out, theirs.err)
