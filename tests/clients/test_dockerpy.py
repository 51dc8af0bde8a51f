"""docker-py, Docker's own library for Python: a scenario, and faults that its own tests found."""

import gc
import io
import tarfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import pytest
from docker.utils.socket import next_frame_header, read_exactly

from harness.engine import Engine
from harness.names import Names

IMAGE = "busybox"
# The library closes a hijacked connection's socket only when it is collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=engine.host)
    try:
        yield made
    finally:
        made.close()
        with warnings.catch_warnings():  # here, and not in whatever test comes next
            warnings.simplefilter("ignore")
            gc.collect()


@pytest.fixture
def idle(client: docker.DockerClient, names: Names) -> Any:
    """A container that waits."""
    return client.containers.run(IMAGE, "sleep 1000", detach=True, name=names("idle"))


def test_the_life_of_a_container(client: docker.DockerClient, names: Names) -> None:
    volume = client.volumes.create(names("data"))
    network = client.networks.create(names("net"))
    container = client.containers.run(
        IMAGE,
        ["sh", "-c", "echo begin; cat; echo end >&2; sleep 1000"],
        detach=True,
        stdin_open=True,
        name=names("life"),
        labels={"a": "b"},
        environment={"X": "1"},
        volumes={volume.name: {"bind": "/data", "mode": "rw"}},
        network=network.name,
        mem_limit="64m",
    )
    assert container.status in ("created", "running")
    assert container.exec_run("sh -c 'echo $X; exit 3'") == (3, b"1\n")
    assert container.put_archive("/data", _tar("file", b"content"))
    stream, entry = container.get_archive("/data/file")
    assert (entry["name"], _untar(b"".join(stream))) == ("file", b"content")
    found = client.containers.list(filters={"label": "a=b", "name": container.name})
    assert found == [container]
    assert container.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    image = container.commit(names("image").lower(), changes="CMD echo committed")
    assert client.containers.run(image, remove=True) == b"committed\n"
    client.images.remove(image.id)
    container.stop(timeout=0)
    assert container.wait() == {"StatusCode": 137}
    container.remove(v=True)
    network.remove()
    volume.remove()
    with pytest.raises(docker.errors.NotFound, match="No such container"):
        client.containers.get(container.id)


def test_events_are_a_stream(client: docker.DockerClient, names: Names) -> None:
    events = client.events(decode=True, filters={"container": names("told")})
    timer = threading.Timer(20, events.close)
    timer.start()
    client.containers.run(IMAGE, "true", name=names("told"), remove=True)
    seen = []
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            break
    timer.cancel()
    events.close()
    assert [action for action in seen if action != "attach"] == [
        "create",
        "start",
        "die",
        "destroy",
    ]


def test_killed_means_ended(idle: Any) -> None:
    idle.kill()
    idle.reload()
    assert idle.status == "exited"
    idle.remove()


def test_streamed_logs_come_line_by_line(client: docker.DockerClient) -> None:
    script = "sh -c 'for n in 1 2 3 4; do echo $n; done; echo error >&2; printf end'"
    streamed = client.containers.run(IMAGE, script, stream=True, stderr=True)
    assert sorted(streamed) == [b"1\n", b"2\n", b"3\n", b"4\n", b"end", b"error\n"]


@pytest.mark.parametrize("tty", [False, True])
def test_frames_of_an_exec_are_what_its_start_asks_for(
    client: docker.DockerClient, idle: Any, tty: bool
) -> None:
    made = client.api.exec_create(idle.id, "sh -c 'echo out; echo err >&2'", tty=True)
    wanted = b"out\r\nerr\r\n"
    if tty:
        assert client.api.exec_start(made, tty=True) == wanted
    else:
        assert client.api.exec_start(made, demux=True) == (wanted, None)


def test_an_exec_is_resized_as_soon_as_it_is_started(
    client: docker.DockerClient, idle: Any
) -> None:
    made = client.api.exec_create(idle.id, "sh -c 'read x; stty size'", tty=True, stdin=True)
    socket = client.api.exec_start(made, tty=True, socket=True)
    client.api.exec_resize(made, height=33, width=77)
    socket._sock.sendall(b"\n")
    assert b"33 77" in b"".join(iter(lambda: socket.read(100), b""))


def test_attach_shows_the_log_of_an_ended_container(client: docker.DockerClient) -> None:
    container = client.containers.run(IMAGE, "echo hello", detach=True)
    container.wait()
    for _ in range(10):  # the library loses what comes along with the head of the answer
        assert client.api.attach(container.id, logs=True) == b"hello\n"


def test_attach_with_logs_before_the_start(client: docker.DockerClient) -> None:
    for _ in range(5):
        container = client.containers.create(IMAGE, "printf words")
        socket = container.attach_socket(params={"stdout": 1, "stream": 1, "logs": 1})
        container.start()
        assert next_frame_header(socket) == (1, 5)
        assert read_exactly(socket, 5) == b"words"
        socket.close()


def test_commit_of_a_container_that_just_ends(client: docker.DockerClient) -> None:
    for _ in range(5):
        container = client.containers.run(IMAGE, "touch /made", detach=True)
        client.images.remove(container.commit().id)


def test_a_broken_archive_is_told_in_the_stream(client: docker.DockerClient) -> None:
    with pytest.raises(docker.errors.ImageLoadError):
        client.images.load(b"abc")


def test_the_runtime_that_the_library_names(client: docker.DockerClient) -> None:
    container = client.containers.create(IMAGE, "true", runtime="runc")
    assert container.attrs["HostConfig"]["Runtime"] == "runc"


def test_a_link_is_removed_by_its_name(
    client: docker.DockerClient, idle: Any, names: Names
) -> None:
    linking = client.containers.create(IMAGE, links={idle.name: "other"}, name=names("linking"))
    client.api.remove_container(f"{linking.name}/other", link=True)
    linking.reload()
    assert not linking.attrs["HostConfig"]["Links"]
    for wrong, status in ((f"{linking.name}/other", 404), (linking.name, 400)):
        with pytest.raises(docker.errors.APIError) as refused:
            client.api.remove_container(wrong, link=True)
        assert refused.value.status_code == status
    assert {c.id for c in client.containers.list(all=True)} >= {linking.id, idle.id}


def test_a_volume_that_was_named_by_itself_outlives_who_names_it(
    client: docker.DockerClient,
) -> None:
    volume = client.volumes.create()
    first = client.containers.create(IMAGE, volumes=[f"{volume.name}:/v", "/anonymous"])
    client.containers.create(IMAGE, volumes_from=[first.id]).remove(v=True)
    own = next(m["Name"] for m in first.attrs["Mounts"] if m["Destination"] == "/anonymous")
    first.remove(v=True)
    assert client.volumes.get(volume.id) == volume
    with pytest.raises(docker.errors.NotFound):
        client.volumes.get(own)
    volume.remove()


def test_names_of_networks_may_have_spaces(client: docker.DockerClient, names: Names) -> None:
    network = client.networks.create(names("a b").replace("-", " "))
    assert client.networks.get(network.name) == network
    network.remove()
    with pytest.raises(docker.errors.APIError, match="invalid network name"):
        client.networks.create("  ")


def test_an_asked_mac_address_is_shown_before_the_start(client: docker.DockerClient) -> None:
    container = client.containers.create(IMAGE, mac_address="02:42:ac:11:00:02")
    shown = container.attrs["NetworkSettings"]["Networks"]["bridge"]["MacAddress"]
    assert shown == "02:42:ac:11:00:02"


def test_errors_have_their_classes(client: docker.DockerClient, names: Names) -> None:
    with pytest.raises(docker.errors.ImageNotFound, match="No such image"):
        client.images.get(names("nosuch").lower())
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run(IMAGE, "sh -c 'echo why >&2; exit 5'", remove=True)
    assert (failed.value.exit_status, failed.value.stderr) == (5, b"why\n")
    client.containers.create(IMAGE, name=names("twice"))
    with pytest.raises(docker.errors.APIError, match="is already in use") as conflict:
        client.containers.create(IMAGE, name=names("twice"))
    assert conflict.value.status_code == 409


def _tar(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _untar(data: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        file = tar.extractfile(tar.getmembers()[0])
        assert file
        return file.read()
