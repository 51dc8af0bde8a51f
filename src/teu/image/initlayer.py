"""A layer above every image's with the places that the engine mounts over, so that they never
show up as changes of a container or a build step. Made once for a data root."""

import shutil
from pathlib import Path

_DIRECTORIES = ("dev/pts", "dev/shm", "etc", "proc", "sys")
_FILES = (".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf")


def init_layer(data_root: Path) -> Path:
    """Its directory; made when it is missing. Raises: OSError."""
    layer = data_root / "init"
    if not layer.exists():
        partial = layer.with_name("init.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for directory in _DIRECTORIES:
            (partial / directory).mkdir(mode=0o755, parents=True)
        for file in _FILES:
            (partial / file).touch(mode=0o644)
        (partial / "etc/mtab").symlink_to("/proc/mounts")
        partial.rename(layer)
    return layer
