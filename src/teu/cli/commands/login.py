"""`login` and `logout`."""

from __future__ import annotations

import os
import sys

from teu.cli.credentials import DOCKER_HUB, erase_login, find_login, store_login
from teu.cli.grammar import Command, Flag, Options
from teu.cli.session import Failure, Session


def login(session: Session, options: Options, words: list[str]) -> int:
    """Has the daemon check the login with the registry, then keeps it."""
    server = _server(words)
    user, password = _ask(session, options, server)
    body = {"username": user, "password": password, "serveraddress": server}
    answer = session.client.post("/auth", body=body) or {}
    token = answer.get("IdentityToken") or ""
    try:
        unencrypted = store_login(session.config, server, user, password, token)
    except OSError as error:
        raise Failure(
            f"Error saving credentials: {session.config.path}: {error.strerror}"
        ) from error
    if unencrypted:
        session.err(
            f"\nWARNING! Your credentials are stored unencrypted in '{session.config.path}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n\n"
        )
    if status := answer.get("Status"):
        session.out(status + "\n")
    return 0


def _server(words: list[str]) -> str:
    if not words or words[0] in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        return DOCKER_HUB
    return words[0].removeprefix("https://").removeprefix("http://").partition("/")[0]


def _ask(session: Session, options: Options, server: str) -> tuple[str, str]:
    user, password = options.text("username"), options.text("password")
    if options.flag("password-stdin"):
        if password:
            raise Failure("--password and --password-stdin are mutually exclusive")
        if not user:
            raise Failure("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        session.err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    if user and password:
        return user, password
    if not os.isatty(0):
        raise Failure("Error: Cannot perform an interactive login from a non TTY device")
    user = user or _ask_user(session, server)
    if not password:
        import getpass

        password = getpass.getpass("Password: ")
        if not password:
            raise Failure("Error: Password Required")
    return user, password


def _ask_user(session: Session, server: str) -> str:
    known = find_login(session.config, server).get("username", "")
    session.out(f"Username ({known}): " if known else "Username: ")
    sys.stdout.flush()
    user = sys.stdin.readline().strip() or known
    if not user:
        raise Failure("Error: Non-null Username Required")
    return user


def logout(session: Session, _options: Options, words: list[str]) -> int:
    server = _server(words)
    session.out(f"Removing login credentials for {server}\n")
    try:
        erase_login(session.config, server)
    except OSError as error:
        raise Failure(
            f"WARNING: could not erase credentials: {session.config.path}: {error.strerror}"
        ) from error
    return 0


COMMANDS = {
    "login": Command(
        login,
        "[OPTIONS] [SERVER]",
        args=(0, 1),
        flags=(
            Flag("password", "p", "string", "Password or access token"),
            Flag("password-stdin", "", "bool", "Read the password from STDIN"),
            Flag("username", "u", "string", "User name"),
        ),
    ),
    "logout": Command(logout, "[SERVER]", args=(0, 1)),
}
