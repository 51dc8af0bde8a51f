"""Testcontainers for Python: a database with a wait strategy and a mapped port, and its network."""

import re

import pg8000.dbapi
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs
from testcontainers.postgres import PostgresContainer


def database() -> None:
    with PostgresContainer("postgres:latest", username="u", password="p", dbname="d") as postgres:
        connection = pg8000.dbapi.connect(
            user="u", password="p", database="d", port=int(postgres.get_exposed_port(5432)),
            host=postgres.get_container_host_ip(),
        )  # fmt: skip
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE t (n int)")
        cursor.execute("INSERT INTO t SELECT generate_series(1, 100)")
        cursor.execute("SELECT sum(n) FROM t")
        assert cursor.fetchone()[0] == 5050
        connection.close()
        code, out = postgres.exec("psql -U u -d d -tc 'SHOW server_version'")
        assert (code, bool(re.match(rb"\s*\d+", out))) == (0, True), out


def logs_and_network() -> None:
    with Network() as network:
        server = (
            DockerContainer("alpine:latest")
            .with_command("sh -c 'mkdir /www && echo served > /www/index.html && echo ready"
                          " && httpd -f -p 80 -h /www'")
            .with_network(network)
            .with_network_aliases("web")
        )  # fmt: skip
        with server:
            wait_for_logs(server, "ready", timeout=20)
            client = DockerContainer("alpine:latest").with_network(network)
            with client.with_command("wget -qO- http://web/") as asking:
                wait_for_logs(asking, "served", timeout=20)


def built_image(context: str) -> None:
    with (
        DockerImage(path=context, tag="clients-built:latest") as image,
        DockerContainer(str(image)) as container,
    ):
        wait_for_logs(container, "from the context", timeout=20)


if __name__ == "__main__":
    import sys

    database()
    logs_and_network()
    built_image(sys.argv[1])
