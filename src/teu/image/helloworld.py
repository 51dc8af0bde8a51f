"""The hello-world image that the engine carries, for machines that reach no registry.

Its program is in `hello/`, with its source. The same engine always makes the same image.
"""

from pathlib import Path
from typing import Final

import msgspec

from teu.image.layers import Pieces
from teu.image.platform import host_platform
from teu.image.progress import Progress, status
from teu.image.stock import Stock
from teu.model.image import Image, chain_ids, parse_config
from teu.model.reference import Reference
from teu.model.registry import RegistryUnreachable
from teu.sys.pack import END
from teu.sys.tarheader import Entry, build, padded

NAME: Final = Reference.parse("hello-world:latest")
_PROGRAMS = {"amd64": "hello", "arm64": "hello-arm64"}
_CREATED = "2025-01-01T00:00:00Z"


async def built_in(stock: Stock, reason: RegistryUnreachable, progress: Progress) -> Image:
    """Stores the image. Raises: the reason, when there is no program for this machine."""
    platform = host_platform()
    program = Path(__file__).parent / "hello" / _PROGRAMS.get(platform.architecture, "none")
    if not program.is_file():
        raise reason
    progress(
        status(
            f"The registry cannot be reached ({reason.message.partition(': is the ')[0]}): "
            "using the hello-world image that comes with the engine"
        )
    )
    layer = await stock.in_thread(
        stock.layers.stage, Pieces(iter([_archive(program.read_bytes())]))
    )
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        "created": _CREATED,
        "config": {"Cmd": ["/hello"], "Env": ["PATH=/"], "WorkingDir": "/"},
        "history": [{"created": _CREATED, "created_by": "teu", "comment": "comes with the engine"}],
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    }
    data = msgspec.json.encode(config)
    chain = chain_ids([layer.diff_id])
    with stock.keeping(chain):
        await stock.register(chain, layer)
        image = await stock.store(parse_config(data), data, [NAME])
    progress(status(f"Status: Image {NAME.familiar} is ready"))
    return image


def _archive(program: bytes) -> bytes:
    entry = Entry(b"hello")
    entry.mode = 0o755
    entry.size_bytes = len(program)
    return build(entry) + padded(program) + END
