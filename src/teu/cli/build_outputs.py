"""Where a build's result goes besides the image store: `--output`, `--push`, `--cache-to`.

type=docker|image         the image store (with dest: an archive for `load`)
type=oci,dest=FILE        an OCI layout as a tar
type=tar,dest=FILE        the file system as a tar; type=local,dest=DIR: as files
type=registry             pushed under its names
"""

from __future__ import annotations

import os
import sys

from teu.cli.archives import save_response
from teu.cli.client import escape
from teu.cli.imagename import parse
from teu.cli.jsontext import dumps
from teu.cli.session import Failure
from teu.cli.tarfiles import Unpacker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.session import Session

_TYPES = ("docker", "image", "oci", "tar", "local", "registry")
_STDOUT = "-"


class Output:
    """One `--output`. `dest` is empty where the type needs none."""

    def __init__(self, kind: str, words: dict[str, str]) -> None:
        self.kind = kind
        self.dest = words.get("dest", "")
        self.push = kind == "registry" or words.get("push") == "true"
        self.names = [name for name in words.get("name", "").split(";") if name]

    @property
    def keeps_image(self) -> bool:
        """Whether the image stays in the store for it."""
        return self.kind in ("image", "registry") or (self.kind == "docker" and not self.dest)


def read_outputs(options: Options) -> list[Output]:
    """Raises: Failure for one that makes no sense."""
    found = [_output(text) for text in options.texts("output")]
    if options.flag("push"):
        found.append(Output("registry", {}))
    if options.flag("load"):
        found.append(Output("docker", {}))
    return found


def _output(text: str) -> Output:
    if "=" not in text:
        return Output("tar" if text == _STDOUT else "local", {"dest": text})
    words = dict(word.partition("=")[::2] for word in text.split(","))
    kind = words.get("type", "")
    if kind not in _TYPES:
        raise Failure(f"invalid output type {kind!r}: one of {', '.join(_TYPES)}")
    output = Output(kind, words)
    if kind in ("tar", "oci") and not output.dest:
        output.dest = _STDOUT
    if kind == "local" and output.dest in ("", _STDOUT):
        raise Failure("output type local needs dest=DIRECTORY")
    if output.dest == _STDOUT and sys.stdout.isatty():
        raise Failure(f"dest file is required for {kind} exporter: refusing to write to console")
    return output


def writes_to_stdout(outputs: list[Output]) -> bool:
    return any(output.dest == _STDOUT for output in outputs)


def deliver(session: Session, outputs: list[Output], image: str, tags: list[str]) -> None:
    """Writes or pushes what was built. Raises: Failure."""
    for output in outputs:
        if output.kind == "local":
            _write_tree(session, image, output.dest)
        elif output.kind == "tar":
            response = session.client.request("GET", f"/build/trees/{image}")
            save_response(session, response, _file(output.dest))
        elif output.dest:
            query: dict[str, Any] = {"names": tags or [image]}
            response = session.client.request("GET", "/images/get", query)
            save_response(session, response, _file(output.dest))
        elif output.push:
            _push(session, tags, output.names)
    if outputs and not tags and not any(output.keeps_image for output in outputs):
        shown = session.client.get(f"/images/{image}/json")
        if not shown.get("RepoTags"):
            session.client.delete(f"/images/{image}")


def _push(session: Session, tags: list[str], names: list[str]) -> None:
    from teu.cli.transfer import push_image

    if not tags and not names:
        raise Failure("tag is needed when pushing to registry")
    for name in tags or names:
        sink = sys.stdout if sys.stdout.isatty() else None
        push_image(session, parse(name).with_default_tag(), sink=sink)


def _file(dest: str) -> str:
    return "" if dest == _STDOUT else dest


def _write_tree(session: Session, image: str, dest: str) -> None:
    try:
        os.makedirs(dest, exist_ok=True)
    except OSError as error:
        raise Failure(f"cannot make {dest}: {error.strerror}") from error
    response = session.client.request("GET", f"/build/trees/{image}")
    Unpacker(dest, "", keep_owner=False).unpack(response.chunks())


def local_caches(texts: list[str], key: str) -> dict[int, str]:
    """Directories of `type=local` among `--cache-from` (src) or `--cache-to` (dest), by place."""
    found: dict[int, str] = {}
    for number, text in enumerate(texts):
        words = dict(word.partition("=")[::2] for word in text.split(",")) if "=" in text else {}
        if words.get("type") == "local":
            if not words.get(key):
                raise Failure(f"cache type local needs {key}=DIRECTORY")
            found[number] = words[key]
    return found


def write_caches(session: Session, texts: list[str], image: str) -> None:
    """`--cache-to type=local`. Raises: Failure."""
    for directory in local_caches(texts, "dest").values():
        os.makedirs(directory, exist_ok=True)
        response = session.client.request("GET", f"/build/cache/{escape(image)}")
        Unpacker(directory, "", keep_owner=False).unpack(response.chunks())


def write_text(path: str, text: str) -> None:
    """Raises: Failure."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}") from error


def write_metadata(path: str, image: str, tags: list[str]) -> None:
    """`--metadata-file`, in buildx's words. Raises: Failure."""
    facts = {"containerimage.config.digest": image, "containerimage.digest": image}
    if tags:
        facts["image.name"] = ",".join(parse(tag).with_default_tag().full for tag in tags)
    write_text(path, dumps(facts) + "\n")
