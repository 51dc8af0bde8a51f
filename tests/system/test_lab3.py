"""LAB3: a package installed in a container is not on the host."""

import shutil
import urllib.request

import pytest

from harness.clients import Cli
from harness.images import MIRROR
from harness.names import PROMPT, Names

PACKAGE = "hello"  # 50 KB, depends on libc only


@pytest.fixture(scope="module")
def _mirror_in_reach() -> None:
    try:
        urllib.request.urlopen(f"{MIRROR}/dists/bookworm/InRelease", timeout=10).close()
    except OSError as error:
        pytest.skip(f"this machine does not reach {MIRROR}: {error}")
    if shutil.which(PACKAGE):
        pytest.skip(f"the host has the package {PACKAGE} itself")


@pytest.mark.usefixtures("_mirror_in_reach")
def test_apt_installs_into_the_container_only(cli: Cli, names: Names) -> None:
    with cli.tty("run", "-it", "--name", names("lab3"), "ubuntu", "bash", columns=200) as terminal:
        terminal.expect(PROMPT, 60)
        terminal.line(PACKAGE)
        terminal.expect("command not found")
        terminal.expect(PROMPT)
        terminal.line(f"apt-get update && apt-get install -y {PACKAGE}")
        terminal.expect(rf"Setting up {PACKAGE} ", 90)
        terminal.expect(PROMPT, 30)
        terminal.line(f"{PACKAGE} && exit 0")
        terminal.expect("Hello, world!")
        assert terminal.wait() == 0
    assert shutil.which(PACKAGE) is None
    assert "Hello, world!" in cli.ok("logs", names("lab3"))
    # Another container from the same image does not have it either.
    assert cli.run("run", "--rm", "ubuntu", PACKAGE).code == 127
