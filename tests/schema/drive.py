"""Starts a daemon with something in it and lets schemathesis at it; see `run` beside it."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from harness.engine import Engine  # noqa: E402  (the harness is beside this directory)
from harness.registry import Registry, lab_storage  # noqa: E402

PORT = 23750  # nobody else is in this network namespace


def main(specification: str, options: list[str]) -> int:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    scratch = Path(tempfile.mkdtemp(prefix="schema-"))
    with Registry(lab_storage(), scratch, read_only=True) as registry:
        engine = Engine(registry.address, "teu")
        engine.options = ("--host", f"tcp://127.0.0.1:{PORT}", "--tls=false")
        try:
            engine.start()
            known = prepared(engine)
            missing = unrouted(engine, Path(specification))
            print("endpoints without a route:", ", ".join(missing) or "none", flush=True)
            return drive(specification, options, known) or bool(missing)
        finally:
            engine.close()


def prepared(engine: Engine) -> dict[str, str]:
    """An image, a container that has ended, and an exec that has ended in another."""
    api = engine.api
    pulled = api.request("POST", "/images/create", fromImage="busybox", tag="latest", timeout_s=60)
    assert pulled.status == 200, pulled

    def container(name: str, *command: str) -> str:
        body = {"Image": "busybox", "Cmd": command}
        ident: str = api.request("POST", "/containers/create", body, name=name).json()["Id"]
        assert api.request("POST", f"/containers/{ident}/start").status == 204
        return ident

    ended = container("ended", "true")
    api.request("POST", f"/containers/{ended}/wait")
    lives = container("lives", "sleep", "100000")
    body = {"Cmd": ["true"]}
    process = api.request("POST", f"/containers/{lives}/exec", body).json()["Id"]
    assert api.request("POST", f"/exec/{process}/start", {"Detach": True}).status == 200
    print(json.dumps(api.get("/version")["Components"][0]["Version"]), engine.root, flush=True)
    return {"TEU_SCHEMA_CONTAINER": ended, "TEU_SCHEMA_EXEC": process}


def unrouted(engine: Engine, specification: Path) -> list[str]:
    """The specification's endpoints that the daemon knows nothing of."""
    paths = yaml.safe_load(specification.read_text())["paths"]
    missing = []
    for path, operations in paths.items():
        for method in operations:
            target = re.sub(r"\{\w+\}", "nosuch", path)
            if method == "parameters" or target == "/events":
                continue
            reply = engine.api.request(method.upper(), target, timeout_s=20)
            if b"page not found" in reply.body or b"method not allowed" in reply.body:
                missing.append(f"{method.upper()} {path}")
    return missing


def drive(specification: str, options: list[str], known: dict[str, str]) -> int:
    env = os.environ
    command = [
        *("timeout", "--signal=INT", env.get("TEU_SCHEMA_SECONDS", "600")),
        f"{env['TEU_SCHEMA_VENV']}/bin/schemathesis",
        *("run", specification, "--url", f"http://127.0.0.1:{PORT}/v1.51"),
        *("--phases", env.get("TEU_SCHEMA_PHASES", "examples,fuzzing")),
        *("--max-examples", env.get("TEU_SCHEMA_EXAMPLES", "30"), "--generation-deterministic"),
        *("--checks", "keeps_the_promise", "--request-timeout", "5", "--no-color"),
        *options,
    ]
    done = subprocess.run(
        command, check=False, cwd=HERE, env={**env, **known, "PYTHONPATH": str(HERE)}
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
