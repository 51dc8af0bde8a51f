"""A database on a named volume: every row whose commit was told is there afterwards."""

import contextlib
import subprocess
import threading

import pytest

from harness import images
from harness.clients import Cli
from harness.engine import Engine
from harness.names import Names
from harness.waiting import until

INSERTS = "".join(f"INSERT INTO t VALUES ({number}) RETURNING id;\n" for number in range(100_000))
PSQL = ("psql", "-qtAX", "-v", "ON_ERROR_STOP=1")


@pytest.fixture
def cli(private_engine: Engine) -> Cli:
    """A client of an engine that has the image."""
    cli = private_engine.cli("docker")
    cli.ok("load", "-i", str(images.postgresql().archive), timeout_s=120)
    return cli


class Database:
    """PostgreSQL in a container, on a volume."""

    def __init__(self, cli: Cli, name: str, volume: str) -> None:
        self.cli, self.name = cli, name
        options = ["-d", "--name", name, "--network", "none", "-v", f"{volume}:/data"]
        cli.ok("run", *options, "postgresql")
        until("the database answers", lambda: self._ask("SELECT 1")[0] == 0, 30)

    def _ask(self, sql: str) -> tuple[int, str]:
        done = self.cli.run("exec", self.name, *PSQL, "-c", sql)
        return done.code, done.out

    def ask(self, sql: str) -> str:
        code, said = self._ask(sql)
        assert code == 0, said
        return said.strip()

    def check(self, told: int) -> None:
        """All rows up to the last one that was told, perhaps a few more, none twice."""
        count, highest = map(int, self.ask("SELECT count(*), max(id) FROM t").split("|"))
        assert count == highest + 1
        assert highest >= told


class Writer:
    """Commits rows one by one; `told` is the last id whose commit the database has told."""

    def __init__(self, database: Database) -> None:
        database.ask("CREATE TABLE t (id int PRIMARY KEY)")
        argv = ("exec", "-i", database.name, *PSQL)
        self.process = database.cli.spawn(*argv, stdin=subprocess.PIPE)
        self.told = -1
        self._threads = [threading.Thread(target=work) for work in (self._write, self._read)]
        for thread in self._threads:
            thread.start()

    def _write(self) -> None:
        assert self.process.stdin
        with contextlib.suppress(OSError), self.process.stdin as stdin:  # killed, as planned
            stdin.write(INSERTS.encode())

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.endswith(b"\n") and line.strip().isdigit():
                self.told = int(line)

    def end(self) -> int:
        """The last id that was told, when nothing comes any more."""
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()
        return self.told


@pytest.mark.parametrize("daemon_killed", [False, True], ids=["container-killed", "daemon-killed"])
def test_no_committed_row_is_lost(
    cli: Cli, private_engine: Engine, names: Names, daemon_killed: bool
) -> None:
    volume = names("data")
    database = Database(cli, names("first"), volume)
    writer = Writer(database)
    until("rows are committed", lambda: writer.told > 200)
    if daemon_killed:
        private_engine.kill()
        told = writer.told
        private_engine.start()
        assert private_engine.api.state(names("first"))["Status"] == "running"
        database.check(told)  # it never stopped
    cli.ok("kill", names("first"))
    assert cli.ok("wait", names("first")) == "137"
    told = writer.end()
    cli.ok("rm", "-v", names("first"))
    second = Database(cli, names("second"), volume)
    second.check(told)
    second.ask("INSERT INTO t SELECT max(id) + 1 FROM t")
    cli.ok("rm", "-f", names("second"))
    Database(cli, names("third"), volume).check(told + 1)
