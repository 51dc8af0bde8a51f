"""Random `kill -9` of the daemon while containers are made, started, stopped and removed.

    tests/crash/churn [--kills 20] [--workers 8] [--seed N]

After each kill the daemon is started again (now and then it is killed once more while it
recovers). Every container must then be as before or as after the request that was cut off, its
name taken or free accordingly; at the end the leak check must be clean. Exit code 1 with the
list of violations otherwise.
"""

import argparse
import http.client
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import leaks
from harness.engine import Engine
from harness.registry import Registry, lab_storage
from harness.waiting import PATIENCE, until

ABSENT, CREATED, RUNNING, EXITED = "absent", "created", "running", "exited"
_AFTER = {"create": CREATED, "start": RUNNING, "exec": RUNNING, "stop": EXITED, "rm": ABSENT}
_ALLOWED = {
    ABSENT: ["create"],
    CREATED: ["start", "rm"],
    RUNNING: ["exec", "exec", "stop", "rm"],
    EXITED: ["start", "rm"],
}


class Cut(Exception):
    """The daemon went away before it answered."""


@dataclass
class Name:
    """One container name and what is known of it."""

    name: str
    state: str = ABSENT
    id: str = ""
    doing: str = ""  # a request that was cut off


@dataclass
class Churn:
    """A run of the churn on one engine; `violations` says what went wrong."""

    engine: Engine
    seed: int
    workers: int = 8
    violations: list[str] = field(default_factory=list)
    requests: int = 0
    cuts: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _up: threading.Event = field(default_factory=threading.Event)
    _life: int = 0  # counts kills

    def run(self, kills: int) -> None:
        """Churns until `kills` kills are survived, then stops and verifies everything."""
        self._up.set()
        names = [[Name(f"churn-{w}-{n}") for n in range(2)] for w in range(self.workers)]
        threads = [
            threading.Thread(target=self._work, args=(number, names[number]))
            for number in range(self.workers)
        ]
        for thread in threads:
            thread.start()
        try:
            self._kill_often(random.Random(self.seed), kills)
        finally:
            self._stop.set()
            self._up.set()
            for thread in threads:
                thread.join()
        for name in (name for own in names for name in own):
            self._verify(name)
        self._strangers({name.name for own in names for name in own})

    def _kill_often(self, rng: random.Random, kills: int) -> None:
        for _ in range(kills):
            self._stop.wait(rng.uniform(0.05, 1.2) * PATIENCE)
            self._up.clear()
            self._life += 1
            self.engine.kill()
            if rng.random() < 0.3:
                self.engine.launch()
                self._stop.wait(rng.uniform(0, 0.5) * PATIENCE)
                self.engine.kill()
            self.engine.start()
            self._up.set()
        self._stop.wait(1)

    # --- one worker -------------------------------------------------------------------------

    def _work(self, number: int, own: list[Name]) -> None:
        rng = random.Random(self.seed * 1000 + number)
        while not self._stop.is_set():
            self._up.wait()
            name = rng.choice(own)
            try:
                self._verify(name)
                what = rng.choice(_ALLOWED[name.state])
                name.doing = what
                self._do(name, what)
                name.doing = ""
                name.state = _AFTER[what]
            except Cut:
                self.cuts += 1
                self._stop.wait(0.01)
            except Exception as error:  # a violation must not end the other workers
                self.violations.append(f"{name}: {error!r}")
                return

    def _do(self, name: Name, what: str) -> None:
        self.requests += 1
        if what == "create":
            body = {"Image": "busybox", "Cmd": ["sleep", "100000"]}
            reply = self._ask("POST", "/containers/create", body, name=name.name)
            self._expect(reply, what, 201)
            name.id = reply.json()["Id"]
            self.engine.known_ids.add(name.id)
        elif what == "start":
            self._expect(self._ask("POST", f"/containers/{name.name}/start"), what, 204)
        elif what == "stop":
            self._expect(self._ask("POST", f"/containers/{name.name}/stop", t=0), what, 204)
        elif what == "rm":
            reply = self._ask("DELETE", f"/containers/{name.name}", force=1, v=1)
            self._expect(reply, what, 204)
        else:
            self._exec(name)

    def _exec(self, name: Name) -> None:
        life = self._life
        body = {"Cmd": ["sh", "-c", "exit 7"], "AttachStdout": True}
        reply = self._ask("POST", f"/containers/{name.name}/exec", body)
        self._expect(reply, "exec", 201)
        exec_id = reply.json()["Id"]
        reply = self._ask("POST", f"/exec/{exec_id}/start", {"Detach": False})
        if life != self._life:
            raise Cut
        self._expect(reply, "exec", 200)
        reply = self._ask("GET", f"/exec/{exec_id}/json")
        if life != self._life:
            raise Cut
        self._expect(reply, "exec", 200)
        if reply.json()["ExitCode"] != 7:
            raise AssertionError(f"exec's exit code: {reply.json()}")

    def _ask(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        try:
            return self.engine.api.request(method, path, body, **query)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError):
                raise AssertionError(f"{method} {path} was not answered: {error!r}") from error
            raise Cut from error

    @staticmethod
    def _expect(reply: Any, what: str, status: int) -> None:
        if reply.status != status:
            raise AssertionError(f"{what}: {reply.status} {reply.body!r}, expected {status}")

    def _verify(self, name: Name) -> None:
        """Checks a name against what is known, and settles a request that was cut off."""
        reply = self._ask("GET", f"/containers/{name.name}/json")
        seen = ABSENT if reply.status == 404 else reply.json()["State"]["Status"]
        allowed = {name.state} | ({_AFTER[name.doing]} if name.doing else set())
        if seen not in allowed:
            raise AssertionError(f"is {seen}, allowed are {sorted(allowed)}: {reply.body!r}")
        if seen != ABSENT:
            document = reply.json()
            if name.doing == "create":
                name.id = document["Id"]
                self.engine.known_ids.add(name.id)
            if document["Id"] != name.id:
                raise AssertionError(f"is another container: {document['Id']}")
            if seen == RUNNING and not Path(f"/proc/{document['State']['Pid']}").exists():
                raise AssertionError(f"its process does not run: {document['State']}")
            if seen == EXITED and document["State"]["ExitCode"] != 137:
                raise AssertionError(f"exit code of a killed one: {document['State']}")
        name.state, name.doing = seen, ""

    def _strangers(self, known: set[str]) -> None:
        rows = self.engine.api.get("/containers/json", all=1)
        listed = {row["Names"][0].removeprefix("/") for row in rows}
        if others := listed - known:
            self.violations.append(f"containers that nobody made: {sorted(others)}")


def main() -> int:
    """Runs the long form on a daemon of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with Registry(lab_storage(), Path("/tmp") / f"churn{options.seed}", read_only=True) as registry:
        engine = Engine(registry.address)
        engine.options = ("--live-restore",) if engine.kind == "dockerd" else ()
        try:
            return _long_form(engine, options)
        finally:
            engine.close()


def _long_form(engine: Engine, options: argparse.Namespace) -> int:
    engine.start()
    engine.api.request("POST", "/images/create", fromImage="busybox", tag="latest")
    before = leaks.snapshot(engine)
    churn = Churn(engine, options.seed, options.workers)
    churn.run(options.kills)
    print(f"{churn.requests} requests, {churn.cuts} cut off, {len(churn.violations)} violations")
    leaks.remove_new(engine, before)
    left: list[str] = []

    def clean() -> bool:
        left[:] = leaks.traces(engine, before, engine.known_ids)
        return not left

    try:
        until("clean", clean, 20)
    except AssertionError:
        churn.violations += [f"left behind: {trace}" for trace in left]
    print(*churn.violations, sep="\n")
    return 1 if churn.violations else 0
