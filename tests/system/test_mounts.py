"""Mounting for real: overlay with few and many layers, odd names, unmounting, finding mounts."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from teu.errors import SystemFailure
from teu.sys import mounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs, so that overlay works whatever /tmp is; everything below is unmounted after."""
    root = tmp_path / "place"
    root.mkdir()
    mounts.tmpfs(root, size_bytes=16 << 20)
    yield root
    assert mounts.unmount_all_under(root) == []
    assert mounts.mounts_under(root) == []


def _layers(place: Path, count: int, name: str = "layer") -> list[Path]:
    found = []
    for number in range(count):
        layer = place / "layers" / f"{name}{number}"
        layer.mkdir(parents=True)
        (layer / "top").write_text(str(number))
        (layer / f"only{number}").write_text("")
        found.append(layer)
    return found


def _overlay(place: Path, lower: list[Path]) -> Path:
    for name in ("upper", "work", "rootfs"):
        (place / name).mkdir()
    mounts.mount_overlay(lower, place / "upper", place / "work", place / "rootfs")
    return place / "rootfs"


@pytest.mark.parametrize("count", [1, 3, 300])
def test_first_layer_is_on_top_and_writes_go_up(place: Path, count: int) -> None:
    rootfs = _overlay(place, _layers(place, count))
    assert (rootfs / "top").read_text() == "0"
    assert len(list(rootfs.glob("only*"))) == count
    (rootfs / "top").write_text("changed")
    assert (place / "upper" / "top").read_text() == "changed"
    assert (place / "layers" / "layer0" / "top").read_text() == "0"


def test_many_layers_leave_the_working_directory_alone(place: Path) -> None:
    before = os.getcwd()
    _overlay(place, _layers(place, 300))
    assert os.getcwd() == before


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a b\n", "ü"])
@pytest.mark.parametrize("count", [2, 300])
def test_names_that_are_special_in_options(place: Path, name: str, count: int) -> None:
    odd = place / name
    odd.mkdir()
    rootfs = _overlay(odd, _layers(odd, count, name))
    assert (rootfs / "top").read_text() == "0"
    assert [mounted.target for mounted in mounts.mounts_under(odd)] == [rootfs]


@pytest.mark.parametrize("count", [0, mounts.MAX_LAYERS + 1])
def test_impossible_number_of_layers(place: Path, count: int) -> None:
    with pytest.raises(SystemFailure, match=f"{count} layers; overlay takes 1 to 500"):
        _overlay(place, [place] * count)


def test_missing_layer_is_a_clear_error(place: Path) -> None:
    with pytest.raises(SystemFailure, match="a layer's directory is missing"):
        _overlay(place, [place / "nowhere"])
    assert not mounts.is_mounted(place / "rootfs")


def test_read_only_bind(place: Path) -> None:
    source, target = place / "source", place / "target"
    source.mkdir()
    target.mkdir()
    mounts.bind(source, target, read_only=True)
    with pytest.raises(OSError, match="Read-only") as caught:
        (target / "x").write_text("x")
    assert caught.value.errno == errno.EROFS
    (source / "x").write_text("x")
    assert (target / "x").read_text() == "x"


def test_failed_bind_leaves_nothing(place: Path) -> None:
    (place / "target").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        mounts.bind(place / "nowhere", place / "target")
    assert caught.value.filename == str(place / "target")


def test_unmount_tells_whether_there_was_something(place: Path) -> None:
    target = place / "t"
    assert mounts.unmount(target) is False
    target.mkdir()
    assert mounts.unmount(target) is False
    mounts.tmpfs(target)
    assert mounts.unmount(target) is True


def test_busy_mount(place: Path) -> None:
    target = place / "t"
    target.mkdir()
    mounts.tmpfs(target)
    with open(target / "used", "w"):
        with pytest.raises(OSError, match="busy") as caught:
            mounts.unmount(target)
        assert caught.value.errno == errno.EBUSY
        assert mounts.is_mounted(target)
        assert mounts.unmount(target, lazy=True) is True
        assert not mounts.is_mounted(target)


def test_unmount_does_not_follow_a_symlink(place: Path) -> None:
    target = place / "t"
    target.mkdir()
    mounts.tmpfs(target)
    (place / "link").symlink_to(target)
    assert mounts.unmount(place / "link") is False
    assert mounts.is_mounted(target)


def test_everything_below_goes_deepest_first(place: Path) -> None:
    deep = place / "a" / "b"
    for target in (place / "a", deep, deep):
        target.mkdir(parents=True, exist_ok=True)
        mounts.tmpfs(target, mode=0o700, flags=mounts.MS_NOSUID)
    with open(deep / "used", "w"):
        assert mounts.unmount_all_under(place / "a") == []
    assert mounts.mounts_under(place / "a") == []


def test_a_prefix_is_a_directory_not_a_string(place: Path) -> None:
    for name in ("a", "ab"):
        (place / name).mkdir()
        mounts.tmpfs(place / name)
    assert [mounted.target.name for mounted in mounts.mounts_under(place / "a")] == ["a"]


def test_facts_of_a_mount(place: Path) -> None:
    found = mounts.mounts_under(place)[0]
    assert (found.target, found.fstype, found.source) == (place, "tmpfs", "tmpfs")
    assert "size=16384k" in found.super_options
    assert found.propagation in ("private", "shared")
