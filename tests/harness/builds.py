"""Builds through the API, and what is in the images that come out.

A case is one text file of named sections:

    -- Dockerfile --
    FROM busybox
    -- sub/a.txt 0755 --        a file of the context; its mode may follow
    hello
    -- link -> a.txt --         a symlink of the context
    -- expect.toml --           what must come of it, see `Expectation`
"""

import io
import json
import re
import stat
import tarfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.clients import Api, Reply

_SECTION = re.compile(r"^-- (\S+)(?: -> (\S+))?(?: (0[0-7]+))? --\n", re.MULTILINE)


@dataclass
class Case:
    """A case's context, and its expectation as TOML says it."""

    name: str
    files: dict[str, tuple[bytes, int, str]] = field(default_factory=dict)
    expect: dict[str, Any] = field(default_factory=dict)


def read_case(path: Path) -> Case:
    parts = _SECTION.split(path.read_text())
    case = Case(path.stem)
    for name, link, mode, text in zip(*(iter(parts[1:]),) * 4, strict=True):
        if name == "expect.toml":
            case.expect = tomllib.loads(text)
        else:
            case.files[name] = (text.encode(), int(mode or "0644", 8), link or "")
    return case


def context_tar(files: dict[str, tuple[bytes, int, str]], mtime: int = 1_000_000_000) -> bytes:
    """The archive that a client would send."""
    buffer = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, (data, mode, link) in files.items():
            for parent in reversed(Path(name).parents[:-1]):
                if str(parent) not in made:
                    made.add(str(parent))
                    archive.addfile(_entry(str(parent), tarfile.DIRTYPE, 0o755, mtime))
            if link:
                entry = _entry(name, tarfile.SYMTYPE, 0o777, mtime)
                entry.linkname = link
                archive.addfile(entry)
            else:
                entry = _entry(name, tarfile.REGTYPE, mode, mtime)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _entry(name: str, kind: bytes, mode: int, mtime: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, mtime
    entry.uid = entry.gid = 1234  # never what the image has
    return entry


@dataclass
class Outcome:
    """`image` is empty when the build failed; `error` is the daemon's text then."""

    image: str
    error: str
    code: int
    log: str
    status: int


def build(api: Api, context: bytes, **query: Any) -> Outcome:
    """One `POST /build`."""
    reply = api.request(
        "POST", "/build", context, headers={"Content-Type": "application/x-tar"}, timeout_s=120,
        **query,
    )  # fmt: skip
    return outcome(reply)


def outcome(reply: Reply) -> Outcome:
    if reply.status != 200:
        return Outcome("", reply.json()["message"], 0, "", reply.status)
    image, error, code, log = "", "", 0, ""
    for row in reply.body.splitlines():
        message = json.loads(row)
        log += message.get("stream", "")
        if "ID" in (message.get("aux") or {}):
            image = message["aux"]["ID"]
        if detail := message.get("errorDetail"):
            error, code = detail["message"], detail.get("code", 0)
    return Outcome(image, error, code, log, reply.status)


@dataclass
class Entry:
    """One entry of an image's file system."""

    info: tarfile.TarInfo
    data: bytes


def tree_of(api: Api, image: str) -> dict[str, Entry]:
    """Every entry of an image's file system by absolute path."""
    made = api.request("POST", "/containers/create", {"Image": image, "Cmd": ["x"]})
    assert made.status == 201, made
    container = made.json()["Id"]
    try:
        reply = api.request("GET", f"/containers/{container}/export")
        assert reply.status == 200, reply
    finally:
        api.request("DELETE", f"/containers/{container}", force=1, v=1)
    found = {}
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as archive:
        for entry in archive:
            file = archive.extractfile(entry) if entry.isreg() or entry.islnk() else None
            data = file.read() if file else b""
            found["/" + entry.name.strip("/")] = Entry(entry, data)
    return found


def check_file(path: str, found: Entry | None, wanted: Any) -> None:
    """`wanted`: false (not there), the content, or a table of facts."""
    if wanted is False:
        assert found is None, f"{path} is there"
        return
    assert found is not None, f"{path} is missing"
    entry = found.info
    facts = wanted if isinstance(wanted, dict) else {"content": wanted}
    actual = {
        "content": found.data.decode(errors="replace"),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "link": entry.linkname,
        "mtime": int(entry.mtime),
        "type": "dir" if entry.isdir() else "link" if entry.issym() else "file",
    }
    for name, value in facts.items():
        assert actual[name] == value, f"{path}: {name} is {actual[name]!r}, not {value!r}"
