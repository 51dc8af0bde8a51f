"""Registries as a user meets them: log in, push, pull, look around, put lists together."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.clients import Cli, cli_argv
from harness.engine import Engine
from harness.imagelab import Archived, artifact, digest, docker_archive, member, tar_of
from harness.rawpush import put_raw
from harness.registry import PASSWORD, USER, Registry

WARNING = "Your credentials are stored unencrypted in"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`HOST:PORT` of a registry that wants a login."""
    root = tmp_path_factory.mktemp("closed")
    with Registry(root / "storage", root / "scratch", read_only=False, login=True) as running:
        yield running.address


@pytest.fixture(scope="module")
def open_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("open")
    with Registry(root / "storage", root / "scratch", read_only=False) as running:
        yield running.address


@pytest.fixture
def home(cli: Cli, tmp_path: Path) -> Path:
    """A client configuration of the test's own."""
    cli.env["DOCKER_CONFIG"] = str(tmp_path / "config")
    return tmp_path / "config"


@pytest.fixture
def teu(engine: Engine, tmp_path: Path) -> Cli:
    argv = cli_argv("teu")
    assert argv
    return Cli("teu", argv, engine.host, tmp_path)


def log_in(cli: Cli, address: str, password: str = PASSWORD) -> str:
    done = cli.run("login", "-u", USER, "--password-stdin", address, stdin=password.encode())
    assert done.code == 0, done
    assert done.out == "Login Succeeded\n"
    return done.err


def test_login_push_pull_logout(cli: Cli, home: Path, closed: str) -> None:
    name = f"{closed}/team/clock-{cli.name}:1"
    cli.ok("tag", "busybox", name)
    assert "no basic auth credentials" in cli.fails(1, "push", name)
    done = cli.run("login", "-u", USER, "--password-stdin", closed, stdin=b"guess")
    assert done.code == 1
    assert "401 Unauthorized" in done.err
    assert WARNING in log_in(cli, closed)
    assert WARNING not in log_in(cli, closed)  # nothing new is stored
    stored = json.loads((home / "config.json").read_text())
    assert list(stored["auths"]) == [closed]
    assert "digest: sha256:" in cli.ok("push", name)
    cli.ok("rmi", name)
    assert cli.ok("pull", "-q", name) == name
    cli.ok("rmi", name)
    assert cli.ok("logout", closed) == f"Removing login credentials for {closed}"
    assert "no basic auth credentials" in cli.fails(1, "pull", name)
    assert json.loads((home / "config.json").read_text()) == {"auths": {}}


@pytest.mark.usefixtures("home")
def test_login_again_with_what_is_stored(cli: Cli, closed: str) -> None:
    log_in(cli, closed)
    done = cli.run("login", closed)
    assert (done.code, done.out) == (0, "Login Succeeded\n")
    assert f"Authenticating with existing credentials... [Username: {USER}]" in done.err
    with cli.tty("login", "-u", USER, closed) as terminal:
        terminal.expect("Password: ")
        terminal.send("wrong\n")
        terminal.expect("401 Unauthorized")
        assert terminal.wait() == 1


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--password-stdin"], "the --password-stdin option requires --username to be set"),
        (["-u", "a", "-p", "b", "--password-stdin"], "cannot specify both --password and"),
        (["-u", "a"], "Cannot perform an interactive login from a non TTY device"),
        ([], "Cannot perform an interactive login from a non TTY device"),
    ],
)
def test_login_that_cannot_be(cli: Cli, closed: str, args: list[str], text: str) -> None:
    assert text in cli.fails(1, "login", *args, closed)


def test_a_credential_helper_keeps_the_secret(cli: Cli, home: Path, closed: str) -> None:
    """Nothing is written to config.json, and nobody is warned."""
    kept = home / "kept"
    home.mkdir(parents=True)
    helper = home / "docker-credential-box"
    helper.write_text(
        f"#!/bin/sh\ncase $1 in store) cat > {kept};; get) cat {kept} 2>/dev/null || "
        f"{{ echo credentials not found in native keychain; exit 1; }};; erase) rm {kept};; "
        "list) echo '{}';; esac\n"
    )
    helper.chmod(0o755)
    cli.env["PATH"] = f"{home}:{cli.env['PATH']}"
    (home / "config.json").write_text(json.dumps({"credHelpers": {closed: "box"}}))
    name = f"{closed}/team/helped-{cli.name}:1"
    cli.ok("tag", "busybox", name)
    assert WARNING not in log_in(cli, closed)
    assert PASSWORD not in (home / "config.json").read_text()
    assert json.loads(kept.read_text())["Secret"] == PASSWORD
    cli.ok("push", name)
    cli.ok("logout", closed)
    assert not kept.exists()
    cli.ok("rmi", name)


def test_all_tags(cli: Cli, open_: str) -> None:
    name = f"{open_}/tags-{cli.name}"
    for tag in ("1", "2"):
        cli.ok("tag", "busybox", f"{name}:{tag}")
    cli.ok("push", "--all-tags", name)
    cli.ok("rmi", f"{name}:1", f"{name}:2")
    out = cli.ok("pull", "--all-tags", name)
    assert out.count("Status: Downloaded newer image") + out.count("up to date") >= 1
    listed = cli.ok("images", "--format", "{{.Tag}}", name).split()
    assert sorted(listed) == ["1", "2"]
    cli.ok("rmi", f"{name}:1", f"{name}:2")


def test_search(cli: Cli, open_: str) -> None:
    name = f"{open_}/find/me-{cli.name}"
    cli.ok("tag", "busybox", name)
    cli.ok("push", name)
    cli.ok("rmi", name)
    found = cli.ok("search", "--format", "{{.Name}}", f"{open_}/me-{cli.name}")
    assert found == name
    assert cli.ok("search", "--format", "{{.Name}}", f"{open_}/nothing-like-it") == ""
    assert "outside the range of [1, 100]" in cli.fails(1, "search", "--limit=101", "x")
    assert "invalid filter" in cli.fails(1, "search", "--filter=color=red", "x")


def test_search_offline(cli: Cli, engine: Engine) -> None:
    """The build machine reaches no registry: the message says what to do instead."""
    reply = engine.api.request("GET", "/images/search", term="x")
    if reply.status == 200:
        pytest.skip("Docker Hub is in reach")
    assert "search HOST[:PORT]/TERM" in cli.fails(1, "search", "x")


def test_remote_tags(teu: Cli, open_: str) -> None:
    name = f"{open_}/listed"
    for tag in ("b", "a"):
        teu.ok("tag", "busybox", f"{name}:{tag}")
        teu.ok("push", "-q", f"{name}:{tag}")
        teu.ok("rmi", f"{name}:{tag}")
    assert teu.ok("image", "tags", name) == f"{name}:a\n{name}:b"
    assert teu.ok("image", "tags", "-q", name) == "a\nb"
    assert "not found" in teu.fails(1, "image", "tags", f"{open_}/none")
    assert "takes a repository" in teu.fails(1, "image", "tags", f"{name}:a")


def test_progress_at_a_terminal(cli: Cli, open_: str) -> None:
    """Every layer has a line of its own, with a bar."""
    name = f"{open_}/bars-{cli.name}:1"
    data = bytes(range(256)) * 40_000
    image = Archived([tar_of(member("big", data)), tar_of(member("b", b"x"))], [name])
    cli.ok("load", stdin=docker_archive(image))
    with cli.tty("push", name, columns=160) as terminal:
        terminal.expect("Preparing")
        terminal.expect("Pushed")
        terminal.expect("digest: sha256:")
        assert terminal.wait() == 0
    cli.ok("rmi", name)
    with cli.tty("pull", name, columns=160) as terminal:
        terminal.expect("[==================================================>]")
        terminal.expect("Pull complete")
        terminal.expect("Status: Downloaded newer image")
        assert terminal.wait() == 0
    cli.ok("rmi", name)


# --- manifest ---------------------------------------------------------------------------------


@pytest.fixture
def pair(teu: Cli, open_: str) -> list[str]:
    """Names of an image for this machine and one for another, in the registry."""
    names = []
    for architecture in ("amd64", "arm64"):
        name = f"{open_}/parts/{architecture}:1"
        image = Archived(
            [tar_of(member("a", architecture.encode()))], [name], platform=f"linux/{architecture}"
        )
        teu.ok("load", stdin=docker_archive(image))
        teu.ok("push", "-q", name)
        teu.ok("rmi", "-f", name)
        names.append(name)
    return names


def test_manifest_list(teu: Cli, pair: list[str], open_: str) -> None:
    target = f"{open_}/lists/app:1"
    assert teu.ok("manifest", "create", target, *pair) == f"Created manifest list {target}"
    assert "no --amend flag" in teu.fails(1, "manifest", "create", target, *pair)
    teu.ok("manifest", "create", "--amend", target, pair[0])
    teu.ok("manifest", "annotate", "--variant", "v8", "--os-features", "a,b", target, pair[1])
    one = json.loads(teu.ok("manifest", "inspect", "-v", target, pair[1]))
    assert one["Descriptor"]["platform"] == {
        "architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["a", "b"],
    }  # fmt: skip
    local = json.loads(teu.ok("manifest", "inspect", target))
    digest = teu.ok("manifest", "push", "--purge", target).splitlines()[-1]
    assert json.loads(teu.ok("manifest", "inspect", target)) == local
    assert "No such manifest" in teu.fails(1, "manifest", "push", target)
    assert teu.ok("pull", "-q", "--all-platforms", target) == target
    shown = json.loads(teu.ok("image", "inspect", "--platform=linux/arm64", target))
    assert shown[0]["Architecture"] == "arm64"
    assert f"{open_}/lists/app@{digest}" in shown[0]["RepoDigests"]
    teu.ok("rmi", "-f", target)


def test_manifest_like_docker(teu: Cli, pair: list[str], open_: str, tmp_path: Path) -> None:
    """The same files, the same list by digest."""
    argv = cli_argv("docker")
    if argv is None:
        pytest.skip("needs the docker client")
    docker = Cli("docker", argv, teu.env["DOCKER_HOST"], tmp_path)
    digests = []
    for client, target in ((docker, "lists/docker:1"), (teu, "lists/teu:1")):
        name = f"{open_}/{target}"
        client.ok("manifest", "create", "--insecure", name, *pair)
        client.ok("manifest", "annotate", name, pair[1], "--variant=v8")
    shown = [
        client.ok("manifest", "inspect", "-v", f"{open_}/{target}")
        for client in (docker, teu)
        for target in ("lists/docker:1", "lists/teu:1")
    ]
    assert shown[0] == shown[1] == shown[2] == shown[3]
    for client, target in ((docker, "lists/teu:1"), (teu, "lists/docker:1")):
        digests.append(client.ok("manifest", "push", "--insecure", f"{open_}/{target}")[-71:])
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["inspect", "HOST/none:1"], "no such manifest: HOST/none:1"),
        (["create", "HOST/l:1", "HOST/none:1"], "no such manifest: HOST/none:1"),
        (["push", "HOST/l:1"], "No such manifest: HOST/l:1"),
        (["rm", "HOST/l:1", "HOST/m:1"], "No such manifest: HOST/l:1\nNo such manifest: HOST/m:1"),
        (["annotate", "HOST/l:1", "HOST/a:1"], "manifest for image HOST/a:1 does not exist in"),
        (["inspect", "UPPER"], "invalid reference format"),
    ],
)
def test_manifests_that_are_not_there(teu: Cli, open_: str, args: list[str], text: str) -> None:
    words = [word.replace("HOST", open_) for word in args]
    assert text.replace("HOST", open_) in teu.fails(1, "manifest", *words)


def test_an_unlikely_platform_is_refused(teu: Cli, pair: list[str], open_: str) -> None:
    target = f"{open_}/lists/odd:1"
    teu.ok("manifest", "create", target, pair[0])
    done = teu.fails(1, "manifest", "annotate", "--arch", "pdp11", target, pair[0])
    assert "unsupported os/arch combination: linux/pdp11" in done
    teu.ok("manifest", "rm", target)


# --- artifacts and the API --------------------------------------------------------------------


def test_an_artifact_can_be_kept_but_not_run(cli: Cli, engine: Engine, open_: str) -> None:
    manifest, blobs = artifact("application/vnd.acme.rocket", ("text/x", b"fuel"))
    name = f"{open_}/rocket-{cli.name}:1"
    put_raw(open_, f"rocket-{cli.name}", "1", manifest, blobs)
    assert "Pulling an artifact (application/vnd.acme.rocket)" in cli.ok("pull", name)
    assert "is not a container image but an artifact" in cli.fails(125, "run", "--rm", name)
    copy = f"{open_}/copy-{cli.name}:2"
    cli.ok("tag", name, copy)
    assert digest(manifest) in cli.ok("push", copy)
    cli.ok("rmi", name, copy)
    shown = engine.api.get(f"/distribution/{copy}/json")
    assert shown["Descriptor"]["digest"] == digest(manifest)
    assert shown["Platforms"] == []


def test_distribution_of_what_is_not_there(engine: Engine, open_: str) -> None:
    reply = engine.api.request("GET", f"/distribution/{open_}/none:1/json")
    assert reply.status == 404
    assert "manifest unknown" in reply.json()["message"]
    reply = engine.api.request("GET", "/distribution/UPPER/json")
    assert reply.status == 400
    reply = engine.api.request("POST", f"/distribution/{open_}/x:1/manifest", {"Raw": "e30="})
    assert reply.status == 400
    assert "Traceback" not in reply.body.decode()
