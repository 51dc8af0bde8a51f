"""The same answers of a daemon, shown by Docker's client and by ours, byte for byte."""

import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.fakeapi import FakeApi, Said, fake_api

NOW = int(time.time())
ID = "0123456789abcdef" * 4
FACTS = Path(__file__).parents[1] / "unit" / "cli" / "template_facts.json"


def container(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "Id": f"{number:02x}" * 32,
        "Names": [f"/c{number}"],
        "Image": "busybox",
        "ImageID": "sha256:" + "b" * 64,
        "Command": "sleep 1000",
        "Created": NOW - 7300,
        "Ports": [],
        "Labels": {},
        "State": "running",
        "Status": "Up 2 hours",
        "HostConfig": {"NetworkMode": "default"},
        "NetworkSettings": {"Networks": {"bridge": {}}},
        "Mounts": [],
    } | fields


def port(private: int, public: int = 0, ip: str = "", kind: str = "tcp") -> dict[str, Any]:
    made: dict[str, Any] = {"PrivatePort": private, "Type": kind}
    return made | ({"PublicPort": public} if public else {}) | ({"IP": ip} if ip else {})


CONTAINERS = [
    container(1, Names=["/other/alias", "/web"], Labels={"b": "2", "a": "1"},
              Command='sh -c "echo hi; sleep 1000"', SizeRw=2048, SizeRootFs=5_000_000,
              Ports=[port(80, 8080, "0.0.0.0"), port(80, 8080, "::"), port(443)]),
    container(2, Image="reg.example.com:5000/team/app:v1@sha256:" + "c" * 64,
              State="exited", Status="Exited (0) 5 seconds ago", Created=NOW - 3 * 86400 - 60),
    container(3, Image="docker.io/library/nginx", Command="日本語のとても長いコマンドです",
              Status="Up 3 minutes (healthy)", Ports=[port(p, p, "0.0.0.0") for p in (80, 81, 82)]),
    container(4, Image="sha256:" + "b" * 64, State="created", Status="Created",
              Created=NOW - 40 * 86400, Names=["/ünïcode"],
              Mounts=[{"Type": "volume", "Name": "v" * 64, "Driver": "local", "Source": "/s"},
                      {"Type": "bind", "Source": "/some/long/path/on/the/host"}]),
    container(5, Image="", Created=NOW - 800 * 86400, Command="a\tb\nc\\\"d\x01é",
              Ports=[port(53, kind="udp"), port(53), port(54), port(9000, 19000, "127.0.0.1")]),
    container(6, ImageManifestDescriptor={"platform": {"os": "linux", "architecture": "arm64",
                                                       "variant": "v8"}}),
]  # fmt: skip
IMAGES = [
    {"Id": "sha256:" + "a" * 64, "RepoTags": ["busybox:latest", "busybox:1"], "RepoDigests": [],
     "Created": NOW - 90, "Size": 1_234_567, "SharedSize": -1, "Containers": -1},
    {"Id": "sha256:" + "b" * 64, "RepoTags": [], "RepoDigests": ["x@sha256:" + "d" * 64],
     "Created": NOW - 700, "Size": 999, "SharedSize": 5, "Containers": 2},
    {"Id": "sha256:" + "c" * 64, "RepoTags": None, "RepoDigests": None, "Created": 0,
     "Size": 5_000_000_000, "SharedSize": 0, "Containers": 0},
    {"Id": "sha256:" + "e" * 64, "RepoTags": ["reg:5000/a/b:t"],
     "RepoDigests": ["reg:5000/a/b@sha256:" + "f" * 64], "Created": NOW - 100_000, "Size": 1,
     "SharedSize": 1, "Containers": 1},
]  # fmt: skip
HISTORY = [
    {"Id": "sha256:" + "a" * 64, "Created": NOW - 500, "Size": 0,
     "CreatedBy": "/bin/sh -c #(nop)  CMD [\"sh\"]", "Comment": "", "Tags": ["x:1"]},
    {"Id": "<missing>", "Created": 1, "CreatedBy": "RUN a very long line\twith a tab " * 3,
     "Size": 12_345_678, "Comment": "buildkit.dockerfile.v0"},
]  # fmt: skip
NETWORKS = [
    {"Name": f"net{n}", "Id": f"{n:x}" * 64, "Driver": "bridge", "Scope": "local",
     "Created": "2024-05-01T10:20:30.123456789+02:00", "EnableIPv6": n == 1, "Internal": n == 2,
     "Labels": {"k": str(n)}, "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.0.0.0/8"}]}}
    for n in (1, 2, 10)
]  # fmt: skip
VOLUMES = {"Volumes": [
    {"Name": "vol10", "Driver": "local", "Mountpoint": "/m", "Scope": "local", "Labels": None},
    {"Name": "vol9", "Driver": "nfs", "Mountpoint": "/n", "Scope": "global", "Labels": {"a": "b"},
     "UsageData": {"Size": 12345, "RefCount": 2}},
]}  # fmt: skip
INSPECTED = {
    "Id": ID, "Created": "2024-05-01T10:20:30Z", "Path": "sh", "Args": ["-c", "x"], "Name": "/web",
    "State": {"Status": "running", "Running": True, "Pid": 42, "StartedAt": "2024-05-01T10:20:31Z",
              "Health": {"Status": "healthy", "FailingStreak": 0, "Log": []}},
    "Image": "sha256:" + "b" * 64, "RestartCount": 0, "Driver": "overlay2",
    "HostConfig": {"NetworkMode": "bridge", "Memory": 67108864, "NanoCpus": 1500000000,
                   "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
                   "RestartPolicy": {"Name": "always", "MaximumRetryCount": 0},
                   "PidsLimit": 100, "Init": True, "Ulimits": None, "CapAdd": ["NET_ADMIN"]},
    "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": "/u"}},
    "Mounts": [{"Type": "volume", "Name": "v", "Source": "/s", "Destination": "/d", "RW": True}],
    "Config": {"Hostname": "h", "Env": ["A=b"], "Cmd": ["sh"], "Labels": {"a.b/c": "d"},
               "ExposedPorts": {"80/tcp": {}}, "Healthcheck": {"Interval": 30_000_000_000}},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
                        "Networks": {"bridge": {"IPAddress": "172.17.0.2"}},
                        "IPAddress": "1.2.3.4"},
    "Unknown": {"Field": 1.50, "Html": "<&>"},
}  # fmt: skip
USAGE = {
    "LayersSize": 1_500_000, "Images": IMAGES, "Containers": CONTAINERS,
    "Volumes": [VOLUMES["Volumes"][1] | {"UsageData": {"Size": 10, "RefCount": 0}}],
    "BuildCache": [{"ID": "cache1", "Type": "regular", "Size": 5, "InUse": True,
                    "CreatedAt": "2024-05-01T10:20:30Z", "UsageCount": 3},
                   {"ID": "cache0", "Type": "source.local", "Size": 7, "Shared": True,
                    "CreatedAt": "2024-05-01T10:20:30Z", "LastUsedAt": "2024-05-02T10:20:30Z"}],
}  # fmt: skip
ROUTES: dict[str, Any] = {
    "GET /containers/json": CONTAINERS,
    "GET /containers/web/json": INSPECTED,
    "GET /images/json": IMAGES,
    "GET /images/busybox/history": HISTORY,
    "GET /images/busybox/json": {"Id": "sha256:x", "RepoTags": ["busybox:latest"], "Size": 5,
                                 "Config": {"Cmd": ["sh"], "Labels": {"<": ">"}}},
    "GET /networks": NETWORKS,
    "GET /networks/net1": NETWORKS[0],
    "GET /volumes": VOLUMES,
    "GET /volumes/vol9": VOLUMES["Volumes"][1],
    "GET /system/df": USAGE,
    "GET /info": {"Swarm": {"LocalNodeState": "inactive"}, "Name": "host", "OSType": "linux"},
    "GET /images/search": [{"name": "a", "description": "d\n" * 40, "star_count": 5,
                            "is_official": True}],
    "POST /containers/prune": {"ContainersDeleted": ["c1", "c2"], "SpaceReclaimed": 1234},
    "POST /images/prune": {"ImagesDeleted": [{"Untagged": "x:1"}, {"Deleted": "sha256:d"}],
                           "SpaceReclaimed": 1000},
    "POST /networks/prune": {"NetworksDeleted": ["n1"]},
    "POST /volumes/prune": {"VolumesDeleted": ["v1"], "SpaceReclaimed": 999},
    "POST /build/prune": {"CachesDeleted": ["b1"], "SpaceReclaimed": 5},
}  # fmt: skip
LINES = r"""
ps
ps -a --no-trunc
ps -q
ps -s
ps -n 2
ps --format json
ps --format '{{json .}}'
ps --format raw
ps --format raw -q -s
ps --format 'table {{.Names}}\t{{.Labels}}\t{{.Label "a"}}\t{{.Mounts}}\t{{.LocalVolumes}}\t{{.Networks}}'
ps --format 'table {{.ID}}\t{{upper .Names}}\t{{truncate .Image 3}}\t{{.CreatedAt}}'
ps --format '{{.Names}}: {{.Ports}} {{.State}} {{.Size}}'
ps --format '{{.Platform}}'
ps --format '{{json .Platform}} {{json .Names}}'
ps --format '{{.Names}}' -q
ps --format '{{.Foo}}'
ps --format 'table {{.Foo}}'
ps --format '{{.Names'
ps --format '{{range .Names}}x{{end}}'
ps --no-trunc --format '{{.Mounts}} {{.Command}}'
container ls -a
images -q
images --no-trunc
images --digests
images --format 'table {{.ID}}\t{{.CreatedAt}}\t{{.VirtualSize}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}'
images --format json --digests
images --format raw
images --format '{{.Repository}}:{{.Tag}}@{{.Digest}}'
images
history busybox
history --no-trunc busybox
history -q busybox
history -H=false busybox
history --format json busybox
history --format 'table {{.ID}}\t{{.CreatedBy}}\t{{.Comment}}' busybox
history nope
network ls
network ls -q --no-trunc
network ls --format json
network ls --format 'table {{.Name}}\t{{.IPv6}}\t{{.Internal}}\t{{.Labels}}\t{{.CreatedAt}}\t{{.Label "k"}}'
network inspect net1
network inspect net1 -f '{{.Created}} {{.IPAM}} {{json .IPAM}} {{.Labels}} {{.ConfigFrom}}'
network inspect net1 nope -f '{{.Name}}'
volume ls
volume ls -q
volume ls --format json
volume ls --format raw
volume ls --format 'table {{.Name}}\t{{.Size}}\t{{.Links}}\t{{.Status}}\t{{.Group}}'
volume inspect vol9
volume inspect vol9 nope
volume inspect -f '{{.UsageData.Size}} {{.Labels.a}} {{.Nope}}' vol9
inspect web
inspect web nope busybox
inspect -f json web
inspect -f '{{json .State}}' web
inspect -f '{{json .Config}}' web
inspect -f '{{json .HostConfig}}' web
inspect -f '{{json .NetworkSettings}}' web
inspect -f '{{json .}}' web
inspect -f '{{json .Mounts}} {{.Mounts}}' web
inspect -f '{{.Unknown.Field}} {{json .Unknown}}' web
inspect -f '{{.HostConfig.PortBindings}} {{.HostConfig.RestartPolicy}} {{.HostConfig.CapAdd}}' web
inspect -f '{{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}' web
inspect -f '{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{(index $c 0).HostPort}}{{end}}' web
inspect -f '{{.Config.Healthcheck}} {{.Config.Healthcheck.Interval}}' web
inspect -f '{{index .Config.Labels "a.b/c"}} {{.Config.ExposedPorts}}' web
inspect -f '{{printf "%.1f|%s|%T" .HostConfig.NanoCpus .HostConfig.Memory .HostConfig.Memory}}' web
inspect -f '{{.HostConfig.Init}} {{.HostConfig.PidsLimit}} {{.HostConfig.OomKillDisable}}' web
inspect -f '{{.State.Nope}}' web
inspect -f '{{.Nope.Deeper}}' web
inspect --type image web
inspect --type nope web
inspect -s net1
inspect -f '{{.' web
image inspect busybox nope
image inspect -f '{{json .}}' busybox
image inspect -f '{{.Config.Cmd}} {{.Config}} {{.RootFS}} {{.Metadata}}' busybox
system df
system df --format json
system df --format '{{.Type}} {{.Reclaimable}}'
system df --format 'table {{.Type}}\t{{.Size}}'
system df --format raw
system df -v --format '{{range .Containers}}{{.Names}} {{end}}{{range .BuildCache}}{{.ID}} {{.LastUsedAt}}|{{end}}'
system df -v --format '{{json .Volumes}}'
search word
search --no-trunc word
search --format json word
search --format '{{.Name}} {{.IsOfficial}} {{.StarCount}}' word
container prune -f
image prune -f
image prune -af
network prune -f
volume prune -f
volume prune -af
system prune -f
system prune -af --volumes
system prune --volumes --filter until=1h
info -f '{{.Name}} {{.OSType}} {{json .Swarm}} {{json .Plugins}}'
info -f '{{.Nope}}'
info -f '{{.ClientInfo.Debug}}'
network rm nope
volume rm nope
network create --subnet 10.0.0.0/24 --gateway 10.1.0.1 x
network create --gateway 10.0.0.1 x
network create --subnet 10.0.0.0/24 --ip-range zzz x
network create --subnet 10.0.0.0/24 --aux-address a=10.1.0.1 x
network connect --driver-opt x a b
volume create --name a b
context use nope
context rm default
context inspect nope
context create a/b
ps extra
inspect
volume rm
network connect x
""".strip().splitlines()  # noqa: E501
# What Docker prints with the questions and a "no": the answer itself is not echoed.
QUESTIONS = (
    "container prune", "image prune", "image prune -a", "network prune", "volume prune",
    "volume prune -a", "system prune", "system prune -a --filter label=x --filter until=2h",
)  # fmt: skip


@pytest.fixture(scope="module")
def api() -> Iterator[FakeApi]:
    with fake_api(ROUTES, "1.50") as server:
        yield server


def same(theirs: Said, ours: Said) -> bool:
    return (theirs.code, theirs.out, theirs.err) == (ours.code, ours.out, ours.err)


@pytest.mark.parametrize("line", LINES)
def test_same_output(both: Any, api: FakeApi, line: str) -> None:
    theirs, ours = both(api.host, *shlex.split(line))
    if not same(theirs, ours):  # a second may have begun between the two
        theirs, ours = both(api.host, *shlex.split(line))
    assert (ours.code, ours.out, ours.err) == (theirs.code, theirs.out, theirs.err)


@pytest.mark.parametrize("line", QUESTIONS)
def test_same_questions(both: Any, api: FakeApi, line: str) -> None:
    theirs, ours = both(api.host, *shlex.split(line), answer="n\n")
    assert (ours.code, ours.out, ours.err) == (theirs.code, theirs.out, theirs.err)


@pytest.mark.parametrize("line", ["builder prune", "builder prune -a", "builder prune -f"])
def test_same_build_pruning(both: Any, api: FakeApi, line: str) -> None:
    """Docker also says on stderr that its builder is deprecated; ours is not."""
    theirs, ours = both(api.host, *line.split(), answer="n\n")
    assert (ours.code, ours.out) == (theirs.code, theirs.out)


@pytest.mark.parametrize("part", range(8))
def test_template_facts_still_hold(both: Any, part: int) -> None:
    """What tests/unit/cli/test_template.py takes as given is what Docker's client prints."""
    facts = json.loads(FACTS.read_text())
    with fake_api({"GET /volumes/vol": facts["data"]}, "1.50") as server:
        for text, printed, error in facts["cases"][part::8]:
            theirs, ours = both(server.host, "volume", "inspect", "-f", text, "vol")
            assert same(theirs, ours), text
            if error is None:
                assert theirs.out == printed.replace("docker", "teu") + "\n"
            else:
                assert theirs.err.strip() == error
