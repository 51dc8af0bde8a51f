"""Runs other programs: credential helpers, ssh, and servers of this package that a command
becomes. Nothing else in the command line does.

A credential helper is `docker-credential-NAME VERB` on PATH; it reads stdin and answers on
stdout. Through ssh, `system dial-stdio` of the far machine's client joins us with its daemon.
"""

from __future__ import annotations

import os
import sys

from teu.cli.session import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import NoReturn

TIMEOUT_S = 30.0
_FAR_COMMAND = (
    "if command -v teu >/dev/null; then exec teu system dial-stdio; "
    "else exec docker system dial-stdio; fi"
)


def call_helper(name: str, verb: str, request: bytes, *, missing_text: str = "") -> bytes:
    """The helper's answer; b"" when it fails with `missing_text`. Raises: Failure."""
    import subprocess

    program = f"docker-credential-{os.path.basename(name)}"
    try:
        done = subprocess.run(
            [program, verb], input=request, capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except OSError as error:
        raise Failure(
            f"error getting credentials: cannot run {program}: {error.strerror}; install it, or "
            "remove credsStore and credHelpers from the client's config.json"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Failure(
            f"error getting credentials: {program} {verb} did not answer in {TIMEOUT_S:.0f} s"
        ) from error
    text = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
    if done.returncode == 0:
        return done.stdout
    if missing_text and missing_text in text:
        return b""
    raise Failure(f"error getting credentials - err: exit status {done.returncode}, out: `{text}`")


def become(module: str, arguments: list[str]) -> NoReturn:
    """Replaces this process by a program of this package, with the same interpreter."""
    packages = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    program = (
        f"import sys; sys.path.insert(0, {packages!r}); "
        f"from {module} import main; sys.exit(main(sys.argv[1:]))"
    )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-I", "-c", program, *arguments])


def connect_through_ssh(url: str, address: str) -> _socket.socket:
    """A socket whose other end is the daemon of a far machine: `[user@]host[:port][/socket]`.

    ssh asks for passwords and reports trouble on the terminal itself. Raises: Failure.
    """
    import _socket
    import subprocess

    host, slash, path = address.partition("/")
    user_host, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        user_host, port = host, ""
    if not user_host or user_host.startswith("-"):
        raise Failure(f"invalid ssh address {url}: want ssh://[user@]host[:port]")
    far = f"DOCKER_HOST=unix:///{path} sh -c '{_FAR_COMMAND}'" if slash and path else _FAR_COMMAND
    words = ["ssh", "-T", "-o", f"ConnectTimeout={TIMEOUT_S:.0f}"]
    words += ["-p", port] if port else []
    ours, theirs = _socket.socketpair()
    try:
        subprocess.Popen(
            [*words, "--", user_host, far], stdin=theirs.fileno(), stdout=theirs.fileno()
        )
    except OSError as error:
        raise Failure(f"{url}: cannot run ssh: {error.strerror}; install it") from error
    finally:
        theirs.close()
    return ours
