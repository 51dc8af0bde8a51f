"""The named parts of a step's cache key, and how two sets of them differ.

Everything that can change a step's result is a part; nothing else is. Names are for people: they
are what `build --explain` shows.
"""

from collections.abc import Mapping

import msgspec

from teu.build.cache import digest_text
from teu.build.request import BuildRequest
from teu.build.states import State
from teu.build.steps import Copy, MakeDirectory, Run
from teu.model.build import CacheRecord
from teu.model.image import chain_ids

_SHOWN_CHANGES = 8
MAX_FILES = 2000  # whose digests a record keeps, to tell which one changed


def parent_of(state: State) -> str:
    return chain_ids(state.diff_ids)[-1] if state.diff_ids else ""


def _common(state: State, request: BuildRequest) -> dict[str, str]:
    found = {"the layers below": parent_of(state)}
    if request.source_date_epoch is not None:
        found["SOURCE_DATE_EPOCH"] = str(request.source_date_epoch)
    return found


def run_parts(
    step: Run, state: State, request: BuildRequest, mounts: Mapping[str, str]
) -> dict[str, str]:
    """`mounts`: digests of what the step's mounts show, by target."""
    parts = _common(state, request)
    parts["the command"] = digest_text(step.args)
    parts["the user"] = step.user
    parts["the working directory"] = step.directory
    if step.network or request.network:
        parts["the network mode"] = step.network or request.network
    if step.insecure:
        parts["the security mode"] = "insecure"
    if step.scripts:
        parts["the script"] = digest_text(step.scripts)
    for entry in step.keyed_env:
        name, _, value = entry.partition("=")
        parts[f"variable {name}"] = digest_text(value)
    for mount in step.mounts:
        parts[f"the mount at {mount.target}"] = digest_text(msgspec.to_builtins(mount))
    for target, digest in mounts.items():
        parts[f"the files mounted at {target}"] = digest
    return parts


def copy_parts(
    step: Copy, state: State, request: BuildRequest, files: str, remote: Mapping[str, str]
) -> dict[str, str]:
    """`files`: the digest of what the step takes from a tree. `remote`: of what it fetches."""
    parts = _common(State() if step.link else state, request)
    parts["the destination"] = step.destination
    options = [step.is_add, step.link, step.parents, step.unpack, step.chown, step.chmod]
    parts["the options"] = digest_text([*options, step.excludes, step.keep_git_dir])
    if step.inline:
        parts["the heredoc"] = digest_text([[one.name, one.content] for one in step.inline])
    if files:
        parts["the files"] = files
    return parts | {f"what {source} holds": digest for source, digest in remote.items()}


def directory_parts(step: MakeDirectory, state: State, request: BuildRequest) -> dict[str, str]:
    return {**_common(state, request), "the path": step.path}


def difference(before: CacheRecord | None, now: CacheRecord) -> str:
    """What made a step miss the cache, in words, for people."""
    if before is None:
        return "this step was never run before"
    changes = _changes(before.parts, now.parts)
    files = _changes(before.files, now.files, "file ") if before.files and now.files else []
    if files:
        changes = [change for change in changes if change != "the files changed"] + files
    if not changes:
        return "its result is no longer there, or the cache was not to be used"
    shown = changes[:_SHOWN_CHANGES]
    if len(changes) > len(shown):
        shown.append(f"and {len(changes) - len(shown)} more")
    return ", ".join(shown)


def _changes(before: Mapping[str, str], now: Mapping[str, str], what: str = "") -> list[str]:
    found = [f"{what}{k} changed" for k in now if k in before and before[k] != now[k]]
    found += [f"{what}{k} is new" for k in now if k not in before]
    return found + [f"{what}{k} is gone" for k in before if k not in now]
