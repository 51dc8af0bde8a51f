"""A daemon that exists to be killed: `python -m harness.shim_daemon STEP SPEC.json`.

Launches the container of a LaunchSpec (JSON), or execs in it, and prints one line per event, so
that the test can kill it at a chosen moment. Steps:
    launch     prints `forked`, `launched PID`, then `exit CODE` after its hook ran; then waits
    unhearing  as launch, but never acknowledges an exit: its hook hangs
    exec       adopts the container, execs `sleep 0.3; exit 9`, prints `exec PID`; then waits
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from teu.runtime.shim import ExecSpec, ExitStatus, LaunchSpec, Shim, ShimService


def say(*words: object) -> None:
    print(*words, flush=True)


async def main(step: str, spec_path: Path) -> None:
    service = ShimService(spec_path.parents[1] / "rehearsal")
    await service.start()
    spec = msgspec.json.decode(spec_path.read_bytes(), type=LaunchSpec, dec_hook=_decode)
    if step == "exec":
        shim = await service.adopt(spec.directory)
        assert isinstance(shim, Shim)
        process = await shim.exec(_exec_spec(spec), [])
        say("exec", process.pid)
        await process.wait()
        say("exec-exit")
        return
    fork = service._zygote.fork

    async def forking(*arguments: Any) -> None:
        await fork(*arguments)
        say("forked")

    service._zygote.fork = forking  # type: ignore[method-assign]
    shim = await service.launch(spec, [], on_exit=_hang if step == "unhearing" else _say_exit)
    say("launched", shim.pid)
    await shim.wait()
    await asyncio.sleep(3600)


def _exec_spec(spec: LaunchSpec) -> ExecSpec:
    process = json.loads((spec.bundle / "config.json").read_text())["process"]
    path = spec.directory / "late.json"
    path.write_text(json.dumps({**process, "args": ["/bin/sh", "-c", "sleep 0.3; exit 9"]}))
    return ExecSpec("late", path, tty=False, open_stdin=False)


async def _hang(status: ExitStatus) -> None:
    say("exit", status.exit_code)
    await asyncio.sleep(3600)


def _say_exit(status: ExitStatus) -> None:
    say("exit", status.exit_code)


def _decode(kind: type, value: Any) -> Any:
    return Path(value) if kind is Path else value


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
