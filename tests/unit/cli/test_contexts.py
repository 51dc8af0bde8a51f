"""Contexts: the store that teu shares with Docker's client."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from harness.fakeapi import Said, teu_here


def context(config: Path, *words: str) -> Said:
    return teu_here(None, "context", *words, config=config)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TEU_HOST", "DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    assert context(tmp_path, "create", "far", "--docker", "host=tcp://far:2376",
                   "--description", "a far one").code == 0  # fmt: skip
    return tmp_path


def test_life_of_a_context(config: Path) -> None:
    listed = context(config, "ls", "--format", "{{.Name}} {{.Current}} {{.DockerEndpoint}}").out
    assert "far false tcp://far:2376\n" in listed
    assert "default true unix://" in listed
    used = context(config, "use", "far")
    assert (used.out, used.err) == ("far\n", 'Current context is now "far"\n')
    assert context(config, "show").out == "far\n"
    assert json.loads((config / "config.json").read_text())["currentContext"] == "far"
    in_use = context(config, "rm", "far")
    assert in_use.err == 'context "far" is in use, set -f flag to force remove\n'
    assert context(config, "rm", "-f", "far").out == "far\n"
    assert context(config, "show").out == "default\n"
    assert not any((config / "contexts" / "meta").iterdir())


def test_inspect(config: Path) -> None:
    [found] = json.loads(context(config, "inspect", "far").out)
    assert found["Name"] == "far"
    assert found["Metadata"] == {"Description": "a far one"}
    assert found["Endpoints"] == {"docker": {"Host": "tcp://far:2376", "SkipTLSVerify": False}}
    assert os.path.isdir(found["Storage"]["MetadataPath"])
    said = context(config, "inspect", "far", "gone", "-f", "{{.Endpoints.docker.Host}}")
    assert said.out == "tcp://far:2376\n"
    assert 'context "gone": context not found' in said.err


def test_tls_files_are_kept_private(config: Path, tmp_path: Path) -> None:
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text(name)
    said = context(
        config, "create", "safe", "--docker",
        f"host=tcp://x:1,ca={tmp_path}/ca,cert={tmp_path}/cert,key={tmp_path}/key",
    )  # fmt: skip
    assert said.code == 0
    [found] = json.loads(context(config, "inspect", "safe").out)
    assert found["TLSMaterial"] == {"docker": ["ca.pem", "cert.pem", "key.pem"]}
    folder = Path(found["Storage"]["TLSPath"]) / "docker"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert context(config, "create", "copy", "--from", "safe").code == 0
    [copied] = json.loads(context(config, "inspect", "copy").out)
    assert (Path(copied["Storage"]["TLSPath"]) / "docker" / "key.pem").read_text() == "key"
    context(config, "update", "safe", "--docker", "host=unix:///x")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["create", "far"], 'context "far" already exists'),
        (["create", "default"], '"default" is a reserved context name'),
        (["create", "a/b"], 'context name "a/b" is invalid'),
        (["create", "x"], 'context name "x" is invalid'),
        (["create", "new", "--docker", "foo=1"], "unrecognized config key: foo"),
        (["create", "new", "--docker", "host=tcp://x,ca=/nonexistent"], "open /nonexistent"),
        (["create", "new", "--docker", "host=tcp://x,skip-tls-verify=maybe"], "invalid syntax"),
        (["create", "new", "--from", "far", "--docker", "host=tcp://x"], "cannot use --docker"),
        (["create", "new", "--from", "gone"], 'context "gone": context not found'),
        (["use", "gone"], 'context "gone": context not found'),
        (["update", "gone"], 'context "gone": context not found'),
        (["rm", "default"], 'context "default" cannot be removed'),
        (["rm", "gone"], 'context "gone" does not exist'),
    ],
)
def test_refusals_leave_nothing_behind(config: Path, words: list[str], problem: str) -> None:
    before = sorted(path.name for path in config.rglob("*"))
    said = context(config, *words)
    assert said.code == 1
    assert problem in said.err
    assert sorted(path.name for path in config.rglob("*")) == before


def test_a_broken_description_is_named(config: Path) -> None:
    [meta] = config.rglob("meta.json")
    meta.write_text("{oops")
    said = context(config, "ls")
    assert said.code == 1
    assert str(meta) in said.err


def test_an_override_is_pointed_out(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///other.sock")
    said = context(config, "ls")
    assert "default *" in said.out
    assert "unix:///other.sock" in said.out
    assert said.err.startswith("Warning: DOCKER_HOST environment variable overrides")


def test_a_context_travels(config: Path, tmp_path: Path) -> None:
    archive = tmp_path / "far.tar"
    said = context(config, "export", "far", str(archive))
    assert (said.out, said.err) == ("", f'Written file "{archive}"\n')
    assert archive.stat().st_mode & 0o777 == 0o600
    again = context(config, "export", "far", str(archive))
    assert again.err == f"open {archive}: file exists\n"
    said = context(config, "import", "copy", str(archive))
    assert (said.out, said.err) == ("copy\n", 'Successfully imported context "copy"\n')
    assert context(config, "inspect", "copy", "-f", "{{.Name}} {{.Endpoints.docker.Host}}").out == (
        "copy tcp://far:2376\n"
    )
    archive.write_bytes(archive.read_bytes().rstrip(b"\0"))  # as Docker's client ends it
    assert context(config, "import", "third", str(archive)).code == 0
    assert context(config, "import", "copy", str(archive)).err == 'context "copy" already exists\n'


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, "no metadata found"),
        ({"meta.json": b"{oops"}, "not the archive of a context"),
        ({"meta.json": b"[]"}, "no metadata found"),
        ({"meta.json": b"{}", "tls/docker/../../../evil": b"x"}, "unexpected file"),
        ({"meta.json": b"{}", "tls/docker/ca.pem": b"x" * (1 << 21)}, "larger than"),
        (None, "not the archive of a context"),
    ],
)
def test_bad_archives_leave_nothing_behind(
    config: Path, tmp_path: Path, members: dict[str, bytes] | None, problem: str
) -> None:
    archive = tmp_path / "bad.tar"
    if members is None:
        archive.write_bytes(b"junk" * 500)
    else:
        with tarfile.open(archive, "w") as tar:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    before = sorted(path.name for path in config.rglob("*"))
    said = context(config, "import", "copy", str(archive))
    assert said.code == 1
    assert problem in said.err
    assert sorted(path.name for path in config.rglob("*")) == before
