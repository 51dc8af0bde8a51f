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
    user, password = _given(session, options)
    if not user and not password and _log_in_again(session, server):
        return 0
    user, password = _ask(session, server, user, password)
    body = {"username": user, "password": password, "serveraddress": server}
    answer = session.client.post("/auth", body=body) or {}
    token = answer.get("IdentityToken") or ""
    _keep(session, server, user, password, token)
    if status := answer.get("Status"):
        session.out(status + "\n")
    return 0


def _log_in_again(session: Session, server: str) -> bool:
    """With the login that is stored; False when there is none, or it is good no more."""
    from teu.cli.client import DaemonError

    known = find_login(session.config, server)
    if not known.get("username") and not known.get("identitytoken"):
        return False
    shown = f" [Username: {known['username']}]" if known.get("username") else ""
    program = session.program
    session.err(
        f"Authenticating with existing credentials...{shown}\n\n Info -> To login with a different "
        f"account, run '{program} logout' followed by '{program} login'\n\n\n"
    )
    try:
        answer = session.client.post("/auth", body=known) or {}
    except DaemonError as error:
        if not error.is_unauthorized:
            raise
        session.err("Stored credentials invalid or expired\n")
        return False
    if status := answer.get("Status"):
        session.out(status + "\n")
    return True


def _keep(session: Session, server: str, user: str, password: str, token: str) -> None:
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


def _server(words: list[str]) -> str:
    if not words or words[0] in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        return DOCKER_HUB
    return words[0].removeprefix("https://").removeprefix("http://").partition("/")[0]


def _given(session: Session, options: Options) -> tuple[str, str]:
    """User and password of the command line, empty where not given. Raises: Failure."""
    user, password = options.text("username"), options.text("password")
    if options.flag("password-stdin"):
        if password:
            raise Failure(
                "conflicting options: cannot specify both --password and --password-stdin"
            )
        if not user:
            raise Failure("the --password-stdin option requires --username to be set")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        session.err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    return user, password


def _ask(session: Session, server: str, user: str, password: str) -> tuple[str, str]:
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
