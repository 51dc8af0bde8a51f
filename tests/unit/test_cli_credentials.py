"""Registry logins: read from, kept in, and removed from `config.json`, or a helper."""

import base64
import json
import os
from pathlib import Path

import pytest

from teu.cli.config import ClientConfig
from teu.cli.credentials import erase_login, find_login, registry_auth, server_of, store_login
from teu.cli.grammar import Parser
from teu.cli.main import GLOBAL_FLAGS
from teu.cli.proxies import add_proxies
from teu.cli.session import Failure, Session

HELPER = """#!/bin/sh
cat > {folder}/asked
echo "$1" > {folder}/verb
case "$1" in
get) grep -q missing {folder}/asked &&
         {{ echo "credentials not found in native keychain"; exit 1; }}
     grep -q broken {folder}/asked && {{ echo "keyring is locked"; exit 1; }}
     echo '{{"Username":"me","Secret":"s3"}}' ;;
esac
"""


@pytest.fixture
def config(tmp_path: Path) -> ClientConfig:
    parser = Parser(GLOBAL_FLAGS)
    parser.parse(["--config", str(tmp_path)])
    return ClientConfig(parser.options)


def test_logins_are_kept_for_their_owner_only(config: ClientConfig) -> None:
    Path(config.directory, "config.json").write_text('{"detachKeys": "ctrl-x"}')
    assert store_login(config, "reg:5000", "me", "p:w", "")
    assert find_login(config, "reg:5000") == {
        "username": "me", "password": "p:w", "serveraddress": "reg:5000"
    }  # fmt: skip
    assert os.stat(config.path).st_mode & 0o777 == 0o600
    assert json.loads(Path(config.path).read_text())["detachKeys"] == "ctrl-x"
    assert erase_login(config, "reg:5000")
    assert not erase_login(config, "reg:5000")
    assert find_login(config, "reg:5000") == {}


def test_tokens(config: ClientConfig) -> None:
    store_login(config, "reg", "me", "pw", "token")
    found = find_login(config, "reg")
    assert (found["identitytoken"], found["username"]) == ("token", "me")
    assert "password" not in found


def test_header(config: ClientConfig) -> None:
    assert registry_auth(config, "reg") == "e30="
    store_login(config, server_of("docker.io"), "me", "pw", "")
    decoded = json.loads(base64.urlsafe_b64decode(registry_auth(config, "docker.io")))
    assert decoded["serveraddress"] == "https://index.docker.io/v1/"
    assert decoded["username"] == "me"


def test_damaged_login_is_reported(config: ClientConfig) -> None:
    Path(config.path).write_text('{"auths": {"reg": {"auth": "%%%"}}}')
    with pytest.raises(Failure, match="damaged"):
        find_login(config, "reg")


def test_config_that_is_not_json_is_warned_about(
    config: ClientConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    Path(config.path).write_text("{nonsense")
    assert config.content == {}
    assert "WARNING: Error loading config file" in capfd.readouterr().err


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker-credential-mine"
    program.write_text(HELPER.format(folder=folder))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    (tmp_path / "config.json").write_text('{"credsStore": "mine"}')
    return folder


def test_helper_keeps_logins(config: ClientConfig, helper: Path) -> None:
    assert find_login(config, "reg")["password"] == "s3"
    assert (helper / "asked").read_text() == "reg"
    assert find_login(config, "missing") == {}
    assert not store_login(config, "reg", "me", "pw", "")
    assert json.loads((helper / "asked").read_text()) == {
        "ServerURL": "reg", "Username": "me", "Secret": "pw"
    }  # fmt: skip
    assert erase_login(config, "reg")
    assert (helper / "verb").read_text() == "erase\n"
    with pytest.raises(Failure, match="keyring is locked"):
        find_login(config, "broken")


def test_absent_helper_names_the_program(config: ClientConfig) -> None:
    Path(config.path).write_text('{"credHelpers": {"reg": "nosuch"}}')
    with pytest.raises(Failure, match="cannot run docker-credential-nosuch"):
        find_login(config, "reg")
    assert find_login(config, "other") == {}


def test_proxies_fill_in_what_the_user_left_out(config: ClientConfig) -> None:
    proxies = {"default": {"httpProxy": "http://p", "noProxy": "a"}, "unix:///x": {"ftpProxy": "f"}}
    Path(config.path).write_text(json.dumps({"proxies": proxies}))
    parser = Parser(GLOBAL_FLAGS)
    parser.parse(["--config", config.directory, "-H", "unix:///y"])
    assert add_proxies(Session("teu", parser.options), ["no_proxy=mine"]) == [
        "no_proxy=mine", "HTTP_PROXY=http://p", "http_proxy=http://p", "NO_PROXY=a"
    ]  # fmt: skip
    other = Parser(GLOBAL_FLAGS)
    other.parse(["--config", config.directory, "-H", "unix:///x"])
    assert add_proxies(Session("teu", other.options), None) == ["FTP_PROXY=f", "ftp_proxy=f"]
