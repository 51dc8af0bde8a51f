"""What schemathesis is told about the Engine API beyond its specification.

Generated names find nothing, so some are exchanged for objects that exist; streams are asked to
end. The check is this project's promise: never a 500, an error is JSON with a message, and an
answer comes soon. Used by tests/schema/run.
"""

import json
import os
import time
import zlib
from typing import Any

import schemathesis

CONTAINER = os.environ["TEU_SCHEMA_CONTAINER"]  # ended; nothing here starts it
EXEC = os.environ["TEU_SCHEMA_EXEC"]
IMAGE = "busybox"
# A second is the promise; a machine that does other things meanwhile gets more.
ANSWER_LIMIT_S = float(os.environ.get("TEU_SCHEMA_LIMIT_S", "3"))
# These wait for a registry that is not there.
_FAR = ("/distribution/", "/images/create", "/images/search", "/auth", "/build", "/push")
_EXPECTED = (501, 503)  # what the engine is not (swarm, plugins), registries that are not there
_BAD = range(500, 600)
# What these start would be a container that the fuzzer made up.
_NEVER_REAL = ("/containers/{id}/start", "/containers/{id}/restart")
_REPLACED: dict[str, str] = {"/containers/": CONTAINER, "/exec/": EXEC, "/images/": IMAGE}


def _coin(value: Any) -> bool:
    """Heads for half of all values, always the same for one."""
    return bool(zlib.crc32(repr(value).encode()) & 1)


@schemathesis.serializer("application/x-tar")
def as_it_is(ctx: Any, value: Any) -> bytes:
    """Archives are junk: bytes of whatever was generated."""
    return value if isinstance(value, bytes) else repr(value).encode()


@schemathesis.hook
def map_path_parameters(ctx: Any, path_parameters: Any) -> Any:
    """Half of the names are those of objects that exist."""
    path = ctx.operation.path
    if path in _NEVER_REAL or not path_parameters or _coin(path_parameters):
        return path_parameters
    for beginning, name in _REPLACED.items():
        if path.startswith(beginning):
            return {key: name for key in path_parameters}
    return path_parameters


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: Any) -> None:
    """Streams end by themselves, whatever was generated."""
    query, path = dict(case.query or {}), case.operation.path
    if path == "/events":
        query["until"] = str(int(time.time()) - 1)
    elif path.endswith("/stats"):
        query |= {"stream": "false", "one-shot": "true"}
    elif path.endswith("/logs"):
        query["follow"] = "false"
    elif path.endswith(("/attach", "/attach/ws")):
        query["stream"] = "false"
    elif path == "/containers/{id}/wait":
        query["condition"] = "nonsense" if _coin(query) else "not-running"
    elif path in ("/containers/{id}/stop", "/containers/{id}/restart"):
        query["t"] = "0"
    case.query = query


@schemathesis.hook
def map_body(ctx: Any, body: Any) -> Any:
    """Half of the containers have an image that exists."""
    if ctx.operation.path == "/containers/create" and isinstance(body, dict) and _coin(body):
        return {**body, "Image": IMAGE}
    return body


@schemathesis.check
def keeps_the_promise(ctx: Any, response: Any, case: Any) -> None:
    status = response.status_code
    assert status not in _BAD or status in _EXPECTED, f"{status}: {response.text[:300]}"
    if status >= 400 and case.method.upper() != "HEAD":
        kind = response.headers.get("content-type", [""])
        kind = kind[0] if isinstance(kind, list) else kind
        assert kind.startswith("application/json"), f"{status} is {kind!r}, not JSON"
        assert json.loads(response.text)["message"], f"{status} has no message"
    if any(part in case.operation.path for part in _FAR):
        return
    took_s = response.elapsed
    assert took_s < ANSWER_LIMIT_S, f"the answer took {took_s:.2f} s"
