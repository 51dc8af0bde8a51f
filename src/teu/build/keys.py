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
from teu.model.image import chain_ids

_SHOWN_CHANGES = 8
_MAX_FILES = 2000  # more are one part: a record must stay small


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
    step: Copy, state: State, request: BuildRequest, digests: Mapping[str, str]
) -> dict[str, str]:
    """`digests`: of each file that the step takes, by name."""
    parts = _common(State() if step.link else state, request)
    parts["the destination"] = step.destination
    options = [step.is_add, step.link, step.parents, step.unpack, step.chown, step.chmod]
    parts["the options"] = digest_text([*options, step.excludes, step.keep_git_dir])
    if step.inline:
        parts["the heredoc"] = digest_text([[one.name, one.content] for one in step.inline])
    if len(digests) > _MAX_FILES:
        parts["the files"] = digest_text(sorted(digests.items()))
    else:
        parts |= {f"file {name or '.'}": digest for name, digest in digests.items()}
    return parts


def directory_parts(step: MakeDirectory, state: State, request: BuildRequest) -> dict[str, str]:
    return {**_common(state, request), "the path": step.path}


def difference(before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """In words, for people."""
    if before is None:
        return "this step was never run before"
    changes = [f"{name} changed" for name in now if name in before and before[name] != now[name]]
    changes += [f"{name} is new" for name in now if name not in before]
    changes += [f"{name} is gone" for name in before if name not in now]
    if not changes:
        return "its result is no longer there, or the cache was not to be used"
    shown = changes[:_SHOWN_CHANGES]
    if len(changes) > len(shown):
        shown.append(f"and {len(changes) - len(shown)} more")
    return ", ".join(shown)
