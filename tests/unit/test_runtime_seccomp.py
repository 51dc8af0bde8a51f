"""Seccomp profiles: parsing, conditions, tightening, compiling, caching."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from teu.errors import InvalidParameter
from teu.runtime import capabilities, filters, seccomp, seccomp_bpf, seccomp_policy
from teu.runtime.filters import FilterCache
from teu.runtime.seccomp import Machine

AMD64 = Machine("x86_64", (6, 1))
needs_library = pytest.mark.skipif(not seccomp_bpf.library_version(), reason="needs libseccomp")


def rule(*names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **more}


def resolved(
    *rules: dict[str, Any], caps: tuple[str, ...] = (), machine: Machine = AMD64
) -> set[str]:
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules)}
    section = seccomp.resolve(profile, capabilities=caps, machine=machine)
    return {name for found in section["syscalls"] for name in found["names"]}


@pytest.mark.parametrize(
    ("includes", "excludes", "kept"),
    [
        ({}, {}, True),
        (None, None, True),
        ({"caps": ["CAP_A"]}, {}, True),
        ({"caps": ["CAP_A", "CAP_B"]}, {}, False),
        ({"caps": ["CAP_B"]}, {}, False),
        ({}, {"caps": ["CAP_A"]}, False),
        ({}, {"caps": ["CAP_B"]}, True),
        ({"arches": ["amd64", "x32"]}, {}, True),
        ({"arches": ["arm64"]}, {}, False),
        ({}, {"arches": ["amd64"]}, False),
        ({"minKernel": "6.1"}, {}, True),
        ({"minKernel": "6.2"}, {}, False),
        ({"minKernel": "5.20"}, {}, True),
        ({}, {"minKernel": "4.8"}, False),
    ],
)
def test_conditions(includes: Any, excludes: Any, kept: bool) -> None:
    found = resolved(rule("x", includes=includes, excludes=excludes), caps=("CAP_A",))
    assert found == ({"x"} if kept else set())


def test_result_has_only_what_the_runtime_knows() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "defaultErrno": "ENOSYS",
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        ],
        "syscalls": [
            {
                "name": "old",
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 0,
                "errno": "X",
                "comment": "c",
                "args": [{"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    assert seccomp.resolve(profile, capabilities=(), machine=AMD64) == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {
                "names": ["old"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 0,
                "args": [{"index": 1, "value": 2, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Decoding seccomp profile failed: Expecting value"),
        ("{", "Decoding seccomp profile failed"),
        ("/etc/profile.json", "give the profile's content, not a path"),
        ("[]", "a profile is a JSON object"),
        ("{}", "defaultAction is missing"),
        ('{"defaultAction": 3}', "defaultAction is missing"),
        ('{"defaultAction":"A","syscalls":[1]}', "has no action"),
        ('{"defaultAction":"A","syscalls":[{"action":"B"}]}', "needs either 'name' or 'names'"),
        (
            '{"defaultAction":"A","syscalls":[{"action":"B","name":"x","names":["y"]}]}',
            "needs either 'name' or 'names'",
        ),
        (
            '{"defaultAction":"A","syscalls":[{"action":"B","name":"x","args":[{}]}]}',
            "needs index, value and op",
        ),
        (
            '{"defaultAction":"A","architectures":["a"],"archMap":[{"architecture":"a"}]}',
            "both 'architectures' and 'archMap'",
        ),
    ],
)
def test_broken_profiles(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match="Decoding seccomp profile failed") as caught:
        seccomp.parse(text)
    assert message in caught.value.message


def test_broken_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    for content in (None, b"{", b"\xff"):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(InvalidParameter, match=f"opening seccomp profile \\({file}\\) failed"):
            seccomp.load(file)


# --- Docker's rules on top of the distribution's


def names_with(profile: Any, action: str, caps: tuple[str, ...] = ()) -> set[str]:
    section = seccomp.resolve(profile, capabilities=caps, machine=AMD64)
    return {
        name
        for found in section["syscalls"]
        if found["action"] == action
        for name in found["names"]
    }


DISTRIBUTION = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [
        rule("read", "mount", "clone", "unshare", "keyctl", "clone3"),
        rule("unshare"),
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
    ],
}


def test_tightened() -> None:
    tight = seccomp_policy.tighten(DISTRIBUTION)
    assert names_with(tight, "SCMP_ACT_ALLOW") == {"read", "clone"}
    assert {"mount", "unshare", "keyctl", "clone3"} <= names_with(tight, "SCMP_ACT_ERRNO")
    admin = names_with(tight, "SCMP_ACT_ALLOW", ("CAP_SYS_ADMIN",))
    assert {"mount", "unshare", "clone", "clone3"} <= admin
    assert "keyctl" not in admin
    section = seccomp.resolve(tight, capabilities=(), machine=AMD64)
    clone = [found for found in section["syscalls"] if found["names"] == ["clone"]]
    assert [found["args"][0]["index"] for found in clone] == [0]
    hidden = next(found for found in section["syscalls"] if found["names"] == ["clone3"])
    assert hidden["errnoRet"] == 38


def test_a_profile_that_allows_by_default_is_left_alone() -> None:
    assert seccomp_policy.tighten(seccomp_policy.PROFILE) is seccomp_policy.PROFILE


def test_no_call_has_two_rules_without_conditions() -> None:
    for profile in (seccomp_policy.PROFILE, seccomp.default()):
        for caps in ((), capabilities.DEFAULT, capabilities.NAMES):
            section = seccomp.resolve(profile, capabilities=caps, machine=AMD64)
            seen: dict[str, str] = {}
            for found in section["syscalls"]:
                for name in found["names"] if not found.get("args") else ():
                    assert seen.setdefault(name, found["action"]) == found["action"], name


def test_fallback_denies_what_reaches_the_host() -> None:
    denied = names_with(seccomp_policy.PROFILE, "SCMP_ACT_ERRNO", capabilities.DEFAULT)
    assert {"mount", "bpf", "init_module", "kexec_load", "ptrace"} - denied == {"ptrace"}
    everything = names_with(seccomp_policy.PROFILE, "SCMP_ACT_ERRNO", capabilities.NAMES)
    assert "mount" not in everything
    assert "kexec_load" in everything


def test_default_falls_back(tmp_path: Path) -> None:
    assert seccomp.default([tmp_path / "missing"]) is seccomp_policy.PROFILE
    file = tmp_path / "seccomp.json"
    file.write_text(json.dumps(DISTRIBUTION))
    assert names_with(seccomp.default([file]), "SCMP_ACT_ALLOW") == {"read", "clone"}
    file.write_text("{")
    with pytest.raises(InvalidParameter, match="opening seccomp profile"):
        seccomp.default([file])


# --- compiling


@needs_library
def test_compiles_to_instructions() -> None:
    for profile in (seccomp.default(), seccomp_policy.PROFILE):
        section = seccomp.resolve(
            profile, capabilities=capabilities.DEFAULT, machine=Machine.this()
        )
        program = seccomp_bpf.compile_section(section)
        assert program is not None
        assert len(program) % 8 == 0
        assert len(program) // 8 <= 4096  # BPF_MAXINSNS
        assert seccomp_bpf.compile_section(section) == program


@needs_library
@pytest.mark.parametrize(
    "section",
    [
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": []},
        {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x", "syscalls": []},
        {"defaultAction": "SCMP_ACT_NOTIFY", "syscalls": []},
        {"defaultAction": "SCMP_ACT_BOGUS", "syscalls": []},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NONE"], "syscalls": []},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_KILL",
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}] * 2,
                }
            ],
        },
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_KILL",
                    "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_KILL",
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_BOGUS"}],
                }
            ],
        },
    ],
)
def test_left_to_the_runtime(section: dict[str, Any]) -> None:
    assert seccomp_bpf.compile_section(section) is None


@needs_library
def test_unknown_calls_and_rules_like_the_default_are_skipped() -> None:
    base = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    more = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["no_such_call"], "action": "SCMP_ACT_KILL"},
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
        ],
    }
    assert seccomp_bpf.compile_section(more) == seccomp_bpf.compile_section(base)


# --- the cache


def get(cache: FilterCache, asked: str = "", caps: tuple[str, ...] = ()) -> filters.Filter | None:
    return asyncio.run(cache.get(asked, caps))


@needs_library
def test_cache_by_profile_and_capabilities(tmp_path: Path) -> None:
    cache = FilterCache(tmp_path / "cache")
    first = get(cache)
    assert first is not None
    assert get(cache) is first
    other = get(cache, caps=("CAP_SYS_ADMIN",))
    assert other is not None
    assert other.program != first.program
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_KEPT", 2)
    monkeypatch.setattr(seccomp_bpf, "compile_section", lambda _: None)
    cache = FilterCache(tmp_path)
    for number in range(5):
        found = get(cache, caps=(f"CAP_{number}",))
        assert found is not None
        assert found.program == ""
    assert len(cache._filters) == 2


def test_unconfined_and_defaults(tmp_path: Path) -> None:
    assert get(FilterCache(tmp_path), "unconfined") is None
    assert get(FilterCache(tmp_path, "unconfined")) is None
    file = tmp_path / "profile.json"
    file.write_text('{"defaultAction":"SCMP_ACT_LOG"}')
    chosen = FilterCache(tmp_path, str(file))
    found = get(chosen)
    assert found is not None
    assert b"SCMP_ACT_LOG" in bytes(found.section)
    builtin = get(chosen, "builtin")
    assert builtin is not None
    assert b"SCMP_ACT_LOG" not in bytes(builtin.section)


def test_check(tmp_path: Path) -> None:
    cache = FilterCache(tmp_path)
    for asked in ("", "unconfined", "builtin", '{"defaultAction":"SCMP_ACT_ALLOW"}'):
        cache.check(asked)
    with pytest.raises(InvalidParameter, match="give the profile's content"):
        cache.check("/some/file.json")


@needs_library
def test_unwritable_cache_is_no_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        found = get(FilterCache(tmp_path / "file" / "cache"))
    assert found is not None
    assert found.program
    assert "cannot cache a seccomp filter" in caplog.text
