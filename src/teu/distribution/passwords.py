"""Users of a registry in an htpasswd file: `main([FILE, USER, ask|stdin|delete])`."""

import contextlib
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import bcrypt

from teu.sys.atomicfile import write_whole

ROUNDS = 10
LIMIT_BYTES = 72  # bcrypt reads no more


def main(words: Sequence[str]) -> int:
    """0; 1 with the reason on standard error."""
    path, user, source = Path(words[0]), words[1], words[2]
    try:
        lines = _without(path, user)
        if source != "delete":
            secret = _secret(user, source)
            stored = bcrypt.hashpw(secret, bcrypt.gensalt(ROUNDS)).decode()
            lines.append(f"{user}:{stored}")
        write_whole(path, "".join(f"{line}\n" for line in lines).encode(), 0o600)
    except (OSError, ValueError) as error:
        print(f"teu registry passwd: {error}", file=sys.stderr)
        return 1
    return 0


def _without(path: Path, user: str) -> list[str]:
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        lines = path.read_text().splitlines()
    return [line for line in lines if line.partition(":")[0] != user]


def _secret(user: str, source: str) -> bytes:
    """Raises: ValueError."""
    if source == "stdin" or not os.isatty(0):
        text = sys.stdin.read().rstrip("\r\n")
    else:
        text = getpass.getpass(f"Password of {user}: ")
        if text != getpass.getpass("The same again: "):
            raise ValueError("the passwords differ")
    secret = text.encode()
    if not secret or len(secret) > LIMIT_BYTES:
        raise ValueError(f"a password has 1 to {LIMIT_BYTES} bytes")
    return secret


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
