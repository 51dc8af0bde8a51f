"""`build URL`: a git repository, an archive or a single Dockerfile as the context."""

import os
from pathlib import Path

from teu.build.context import unpack_file
from teu.build.fetching import download, git_clone, git_commit, git_source
from teu.build.request import BuildRequest, Inputs
from teu.build.trees import in_thread_to_the_end
from teu.errors import InvalidParameter
from teu.sys.beneath import open_in_root
from teu.sys.codec import DamagedStream
from teu.sys.tarheader import InvalidArchive


async def open_remote(request: BuildRequest, inputs: Inputs, directory: Path) -> None:
    """Fills the empty `directory` from `request.remote` and lets the build read it.

    Raises: Unavailable, InvalidParameter.
    """
    source = git_source(request.remote)
    if source is not None:
        commit = await git_commit(source)
        tree = directory / "tree"
        tree.mkdir()
        await git_clone(source, commit, tree, keep_git=False)
        inputs.context = _inside(tree, source.directory, request.remote)
        return
    if not request.remote.startswith(("http://", "https://")):
        raise InvalidParameter(
            f"unable to prepare context: {request.remote!r} is neither a git repository nor a URL"
        )
    fetched = await download(request.remote, directory / "download")
    tree = inputs.context = directory / "tree"
    tree.mkdir()
    try:
        await in_thread_to_the_end(lambda: unpack_file(fetched.path, tree))
    except (InvalidArchive, DamagedStream):
        request.dockerfile_text = fetched.path.read_bytes()


def _inside(tree: Path, path: str, remote: str) -> Path:
    """A directory of the repository. Raises: InvalidParameter."""
    try:
        fd = open_in_root(tree, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InvalidParameter(f"{remote}: no directory {path!r}: {error.strerror}") from error
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
