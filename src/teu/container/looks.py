"""Looking into containers without changing them: processes and sizes."""

import asyncio
import os
import shlex
from pathlib import Path

from teu.container.container import Container
from teu.container.services import Services
from teu.errors import Conflict, InvalidParameter
from teu.sys import process

PS_LIMIT_S = 10.0


class Looks:
    """Answers for `top` and `ps -s`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def top(self, container: Container, ps_args: str) -> tuple[list[str], list[list[str]]]:
        """The host's `ps`, narrowed to the container's processes: (titles, rows).

        Raises: Conflict (not running), InvalidParameter (ps refuses its arguments).
        """
        if not container.running:
            raise Conflict(f"container {container.id} is not running")
        try:
            words = shlex.split(ps_args)
        except ValueError as error:
            raise InvalidParameter(f"ps arguments: {error}") from None
        done = await process.run(["ps", *words], timeout_s=PS_LIMIT_S, check=False)
        if done.returncode != 0:
            reason = done.stderr.decode(errors="replace").strip().splitlines()
            raise InvalidParameter(f"ps: {reason[0] if reason else 'no output'}")
        self._services.containers.tell(container, "top")
        pids = set(self._services.runtime.processes(container.record))
        return narrow(done.stdout.decode(errors="replace"), pids)

    async def sizes(self, container: Container) -> tuple[int, int]:
        """(bytes in the rw layer, bytes of rw layer and image together)."""
        upper = self._services.paths.home(container.id) / "upper"
        own = await asyncio.to_thread(tree_size, upper)
        image = self._services.images.find(container.record.image_id)
        return own, own + (image.size_bytes if image else 0)


def narrow(output: str, pids: set[int]) -> tuple[list[str], list[list[str]]]:
    """The table's titles, and its rows whose PID is among `pids`. Raises: InvalidParameter."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidParameter("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows: list[list[str]] = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return titles, rows


def tree_size(directory: Path) -> int:
    """Apparent bytes of the regular files below; entries that vanish meanwhile count nothing."""
    total = 0
    for root, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue
    return total
