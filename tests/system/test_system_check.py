"""`teu system check` on a daemon."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness import images
from harness.clients import Cli
from harness.engine import Engine
from harness.registry import Registry, copy


@pytest.fixture
def teu(private_engine: Engine) -> Cli:
    if private_engine.kind != "teu":
        pytest.skip("docker has no such command")
    return private_engine.cli("teu")


def test_damage_is_found_told_and_repaired(
    teu: Cli, private_engine: Engine, tmp_path: Path, names: Callable[[str], str]
) -> None:
    out = teu.ok("system", "check")
    assert out.startswith("Checked ")
    assert out.endswith(": no problems")
    with Registry(tmp_path / "s", tmp_path / "r", read_only=False) as registry:
        name = f"{registry.address}/clock:latest"
        copy(images.clock(), name)
        teu.ok("pull", "-q", name)
        [script] = private_engine.data_root.glob("layers/*/clock.sh")
        script.write_text(script.read_text().replace("tick", "tock"))
        found = teu.run("system", "check")
        assert found.code == 1
        assert "contents of files were changed" in found.out
        assert f"(images: {name})" in found.out
        assert "`teu system check --repair`" in found.out
        container = teu.ok("run", "-d", name, "sleep", "1000")
        busy = teu.run("system", "check", "--repair", "-q")
        assert busy.code == 1
        assert f"not repaired: running container {container[:12]} uses it" in busy.out
        teu.ok("rm", "-f", container)
        mended = teu.run("system", "check", "--repair")
        assert mended.code == 0
        assert f"repaired: fetched from {registry.address}/clock" in mended.out
        assert mended.out.rstrip().endswith("1 problem, 1 repaired")
    assert teu.ok("system", "check", "-q").endswith("no problems")
    private_engine.kill()
    private_engine.start()
    assert teu.ok("system", "check", "-q").endswith("no problems")


def test_at_a_terminal_findings_are_not_drawn_over(teu: Cli, private_engine: Engine) -> None:
    layer = next(private_engine.data_root.glob("layers/*/etc/passwd"))
    layer.write_bytes(layer.read_bytes() + b"x")
    with teu.tty("system", "check", columns=120) as terminal:
        terminal.expect("Checking layers")
        terminal.expect("is damaged")
        terminal.expect("Checked ")
        assert terminal.wait() == 1
