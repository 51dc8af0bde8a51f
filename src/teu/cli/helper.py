"""Runs the user's credential helpers: the only programs that the command line starts.

A helper is `docker-credential-NAME VERB` on PATH; it reads stdin and answers on stdout.
"""

from __future__ import annotations

import os

from teu.cli.session import Failure

TIMEOUT_S = 30.0


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
