"""What an engine leaves behind: every trace that a removed container may have on the machine."""

import os
import re
import sqlite3
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from harness.engine import Engine

_CGROUPS = Path("/sys/fs/cgroup")
_TREE_DEPTH = 4  # container directories are near the top; layers' files are not of interest


@dataclass
class Snapshot:
    """The machine's state as far as one engine changes it."""

    containers: set[str] = field(default_factory=set)
    volumes: set[str] = field(default_factory=set)
    networks: set[str] = field(default_factory=set)
    mounts: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    rules: set[str] = field(default_factory=set)
    processes: set[str] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=set)


def snapshot(engine: Engine) -> Snapshot:
    """What is there now; compare with `traces` later."""
    seen = Snapshot(
        containers=engine.api.container_ids(),
        volumes=_volumes(engine),
        networks=_networks(engine),
    )
    if engine.kind != "external":
        seen.mounts = engine.mount_points()
        seen.links = _links(engine)
        seen.rules = _rules(engine)
        seen.processes = _command_lines(engine.processes())
        seen.namespaces = _namespaces(engine)
    return seen


def remove_new(engine: Engine, before: Snapshot) -> None:
    """Removes containers, networks and volumes that were not there before."""
    for container in engine.api.container_ids() - before.containers:
        reply = engine.api.request("DELETE", f"/containers/{container}", force=1, v=1)
        assert reply.status in (204, 404, 409), f"cannot remove {container}: {reply}"
    for network in _networks(engine) - before.networks:
        engine.api.request("DELETE", f"/networks/{network}")
    for volume in _volumes(engine) - before.volumes:
        engine.api.request("DELETE", f"/volumes/{volume}")


def traces(engine: Engine, before: Snapshot, gone: set[str]) -> list[str]:
    """Everything there now that was not there before, and everything that names a container of
    `gone` (full ids); empty when clean."""
    after = snapshot(engine)
    found = [
        f"{what}: {sorted(getattr(after, what) - getattr(before, what))}"
        for what in vars(after)
        if getattr(after, what) - getattr(before, what)
    ]
    if engine.kind != "external":
        found += _named(engine, gone)
    return found


def open_files(engine: Engine) -> Counter[str]:
    """What the daemon has open, by kind; idle connections to registries are not counted.

    A file counts once: SQLite keeps descriptors of closed connections for its next one.
    """
    found: Counter[str] = Counter()
    idle = {found for address in engine.registries for found in _connections_to(address)}
    for entry in os.scandir(f"/proc/{engine.pid}/fd"):
        try:
            target = os.readlink(entry.path)
        except OSError:
            continue
        if target.startswith("/"):
            found[target] = 1
        elif target not in idle:
            found[re.sub(r":\[\d+\]$", "", target)] += 1
    return found


def _connections_to(address: str) -> set[str]:
    """`socket:[inode]` of all IPv4 connections to a loopback address `HOST:PORT`."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port)}


def _named(engine: Engine, gone: set[str]) -> list[str]:
    found = [f"cgroup: {path}" for path in _walk(_CGROUPS, 6) if _names(path, gone)]
    for root in (engine.data_root, engine.exec_root):
        found += [f"file: {path}" for path in _walk(root, _TREE_DEPTH) if _names(path, gone)]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if any(container in words for container in gone):
                found.append(f"process: {entry.name} {words!r}")
    if engine.kind == "teu":
        found += _rows(engine, gone)
        found += [f"zombie: {child}" for child in _zombies(engine.pid)]
    return found


def _names(path: str, gone: set[str]) -> bool:
    leaf = path.rpartition("/")[2]
    return any(container in leaf for container in gone)


def _walk(root: Path, depth: int) -> list[str]:
    found: list[str] = []
    todo = [(str(root), depth)]
    while todo:
        directory, left = todo.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            found.append(entry.path)
            if (
                left
                and entry.is_dir(follow_symlinks=False)
                and entry.name not in ("layers", "overlay2")
            ):
                todo.append((entry.path, left - 1))
    return found


def _volumes(engine: Engine) -> set[str]:
    return {row["Name"] for row in engine.api.get("/volumes")["Volumes"] or []}


def _networks(engine: Engine) -> set[str]:
    """Ids; without the three that are always there, whose ids may change at a restart."""
    fixed = ("bridge", "host", "none")
    return {row["Id"] for row in engine.api.get("/networks") if row["Name"] not in fixed}


def _command_lines(pids: set[int]) -> set[str]:
    """Command lines, numbered where several are equal: a new daemon equals the old one, whatever
    descriptors its zygote and resolver got."""
    seen: dict[str, int] = {}
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        line = words.replace("\0", " ").strip()
        line = re.sub(r"((?:zygote|resolver/main)\.py) \d+", r"\1", line)
        seen[line] = seen.get(line, 0) + 1
    return {f"{line} #{number}" for line, count in seen.items() for number in range(count)}


def _links(engine: Engine) -> set[str]:
    members = Path(f"/sys/class/net/{engine.bridge}/brif")
    return {entry.name for entry in members.iterdir()} if members.is_dir() else set()


def _rules(engine: Engine) -> set[str]:
    """Lines of the whole ruleset that name the engine's bridge or one of its addresses."""
    done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True)
    prefix = engine.gateway.rpartition(".")[0] + "."
    lines = (line.strip() for line in done.stdout.replace(", ", "\n").splitlines())
    return {line for line in lines if prefix in line or f'"{engine.bridge}"' in line}


def _namespaces(engine: Engine) -> set[str]:
    """Files that hold network namespaces; the peer collects its own once a minute only."""
    found: set[str] = set()
    if engine.kind != "teu":
        return found
    for name in ("netns", "ns"):
        place = engine.exec_root / name
        if place.is_dir():
            found |= {str(entry) for entry in place.iterdir()}
    return found


def _zombies(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] == "Z" and int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def _rows(engine: Engine, gone: set[str]) -> list[str]:
    """Rows of the state database that name a container."""
    found = []
    for path in engine.data_root.glob("*.db"):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            for table, column in (
                ("container", "id"),
                ("exec", "container_id"),
                ("endpoint", "container_id"),
            ):
                for (container,) in database.execute(f"SELECT {column} FROM {table}"):
                    if container in gone:
                        found.append(f"row: {table} {container}")
        database.close()
    return found
