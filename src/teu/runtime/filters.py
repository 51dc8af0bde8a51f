"""Ready-made seccomp filters, one for each profile and set of capabilities.

    EXEC_ROOT/seccomp/KEY.bpf    compiled programs; KEY is a hash of the resolved profile, the
                                 kernel, the architecture and libseccomp's version

The directory is void after a reboot and may be deleted at any time: it only saves the compiling.
"""

import asyncio
import base64
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from teu.runtime import seccomp, seccomp_bpf, seccomp_policy
from teu.runtime.security import BUILTIN, UNCONFINED

_KEPT: Final = 64
_INSTRUCTION_BYTES: Final = 8
log = logging.getLogger(__name__)


class Filter(Struct, frozen=True):
    """`section` is the encoded OCI section; `program` the compiled one in base64, empty when the
    runtime has to compile it."""

    section: Raw
    program: str = ""


class FilterCache:
    """Answers from memory, then from the directory, then compiles (in a thread)."""

    def __init__(self, directory: Path, default_profile: str = "") -> None:
        self._directory = directory
        self._default = default_profile
        self._profiles: dict[str, Mapping[str, Any]] = {}
        self._filters: dict[tuple[str, tuple[str, ...]], Filter] = {}

    async def get(self, asked: str, capabilities: Sequence[str]) -> Filter | None:
        """The filter for `seccomp=ASKED` (empty: the daemon's default); None: unconfined.

        Raises: InvalidParameter when the profile is broken.
        """
        asked = asked or self._default
        if asked == UNCONFINED:
            return None
        key = (asked, tuple(capabilities))
        found = self._filters.get(key)
        if found is None:
            found = await asyncio.to_thread(self._make, asked, capabilities)
            while len(self._filters) >= _KEPT:
                self._filters.pop(next(iter(self._filters)))
            self._filters[key] = found
        return found

    def check(self, asked: str) -> None:
        """Raises: InvalidParameter when `seccomp=ASKED` is neither a keyword nor a profile."""
        if asked not in ("", UNCONFINED, BUILTIN):
            seccomp.parse(asked)

    def _make(self, asked: str, capabilities: Sequence[str]) -> Filter:
        section = seccomp.resolve(
            self._profile(asked), capabilities=capabilities, machine=seccomp.Machine.this()
        )
        encoded = msgspec.json.encode(section)
        return Filter(Raw(encoded), self._program(section, encoded))

    def _profile(self, asked: str) -> Mapping[str, Any]:
        if asked not in ("", BUILTIN):
            return seccomp.load(Path(asked)) if asked == self._default else seccomp.parse(asked)
        if "" not in self._profiles:
            self._profiles[""] = seccomp.default()
            if self._profiles[""] is seccomp_policy.PROFILE:
                log.warning(
                    "no seccomp profile of the distribution found (install "
                    "golang-github-containers-common); using a smaller one"
                )
        return self._profiles[""]

    def _program(self, section: Mapping[str, Any], encoded: bytes) -> str:
        facts = os.uname()
        parts = (encoded, facts.machine, facts.release, seccomp_bpf.library_version())
        key = hashlib.sha256(repr(parts).encode()).hexdigest()
        file = self._directory / f"{key}.bpf"
        program = _read(file)
        if program is None:
            program = seccomp_bpf.compile_section(section)
            if program is None:
                return ""
            self._save(file, program)
        return base64.b64encode(program).decode()

    def _save(self, file: Path, program: bytes) -> None:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as partial:
                partial.write(program)
            os.replace(partial.name, file)
        except OSError as error:
            log.warning("cannot cache a seccomp filter in %s: %s", self._directory, error)


def _read(file: Path) -> bytes | None:
    """None when it is not there or cannot be a program."""
    try:
        program = file.read_bytes()
    except OSError:
        return None
    return program if program and len(program) % _INSTRUCTION_BYTES == 0 else None
