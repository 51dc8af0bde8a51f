"""Reading the Dockerfile and the ignore file of a context that a client sent."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from teu.build.request import BuildRequest, Inputs
from teu.dockerfile.errors import DockerfileError
from teu.dockerfile.stages import Dockerfile, parse_dockerfile
from teu.dockerignore import BadPattern, IgnoreList, read_patterns
from teu.errors import InvalidParameter
from teu.sys.beneath import open_in_root, remove_tree


def read_dockerfile(request: BuildRequest, inputs: Inputs) -> Dockerfile:
    """From the request or the context. Raises: DockerfileError, InvalidParameter."""
    name = request.dockerfile or "Dockerfile"
    if request.dockerfile_text is not None:
        return parse_dockerfile(request.dockerfile_text, name)
    if inputs.context is None:
        raise InvalidParameter("there is no Dockerfile: neither a context nor a text was given")
    data = read_file(inputs.context, name)
    if data is None and name == "Dockerfile":
        data = read_file(inputs.context, "dockerfile")
    if data is None:
        raise InvalidParameter(f"Cannot locate specified Dockerfile: {name}")
    if not data.strip():
        raise DockerfileError(f"the Dockerfile ({name}) cannot be empty")
    return parse_dockerfile(data, name)


def read_file(root: Path, path: str, limit_bytes: int = 5 << 20) -> bytes | None:
    """A regular file of a context; None when it is not there. Raises: InvalidParameter."""
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidParameter(f"cannot read {path}: {error.strerror}") from error
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidParameter(f"{path} is not a regular file")
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise InvalidParameter(f"{path} is larger than {limit_bytes >> 20} MiB")
    return data


def apply_ignore(root: Path, dockerfile: str) -> None:
    """Takes away what `DOCKERFILE.dockerignore`, or else `.dockerignore`, leaves out.

    Raises: InvalidParameter for a bad pattern.
    """
    data = read_file(root, f"{dockerfile}.dockerignore")
    if data is None:
        data = read_file(root, ".dockerignore")
    if not data:
        return
    try:
        ignore = IgnoreList(read_patterns(data.decode(errors="replace")))
    except BadPattern as error:
        raise InvalidParameter(f"failed to read dockerignore: {error}") from None
    if ignore:
        _drop_ignored(root, "", ignore)


def _drop_ignored(root: Path, path: str, ignore: IgnoreList) -> None:
    directory = root / path
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(fd):
            inner = f"{path}/{name}" if path else name
            is_directory = (directory / name).is_dir() and not (directory / name).is_symlink()
            if is_directory and (ignore.has_exceptions or not ignore.ignores(inner)):
                _drop_ignored(root, inner, ignore)
                if ignore.ignores(inner):
                    with suppress(OSError):  # something in it was taken back in
                        os.rmdir(name, dir_fd=fd)
            elif ignore.ignores(inner):
                remove_tree(fd, os.fsencode(name))
    finally:
        os.close(fd)
