"""ps, images, inspect, prune, contexts, info …: whole command lines against a canned daemon."""

import json
import time
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from harness.fakeapi import FakeApi, Said, fake_api, teu_here

ID = "0123456789abcdef" * 4
CONTAINER = {
    "Id": ID,
    "Names": ["/other/alias", "/web"],
    "Image": "docker.io/library/nginx:1.27@sha256:" + "a" * 64,
    "ImageID": "sha256:" + "b" * 64,
    "Command": 'sh -c "sleep 1000; echo done"',
    "Created": int(time.time()) - 7300,
    "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}],
    "Labels": {"b": "2", "a": "1"},
    "State": "running",
    "Status": "Up 2 hours (healthy)",
    "SizeRw": 2048,
    "SizeRootFs": 5_000_000,
    "Mounts": [{"Type": "volume", "Name": "data", "Driver": "local", "Source": "/x"}],
    "NetworkSettings": {"Networks": {"bridge": {}}},
}
PATHS = ("GET /containers/json", "GET /images/json", "GET /networks", "GET /volumes")


def api(routes: dict[str, Any], version: str = "1.51") -> Any:
    return fake_api(routes, version)


def query(server: FakeApi, number: int = -1) -> dict[str, str]:
    target = server.requests[number][1].partition("?")[2]
    return dict(urllib.parse.parse_qsl(target))


def say(routes: dict[str, Any], *words: str, config: Path | None = None) -> Said:
    with api(routes) as server:
        return teu_here(server, *words, config=config)


def test_ps() -> None:
    with api({"GET /containers/json": [CONTAINER]}) as server:
        said = teu_here(server, "ps")
        assert query(server) == {}
    assert said.code == 0
    assert said.out == (
        "CONTAINER ID   IMAGE        COMMAND                   CREATED       STATUS"
        "                 PORTS                  NAMES\n"
        '0123456789ab   nginx:1.27   "sh -c \\"sleep 1000; …"   2 hours ago   Up 2 hours (healthy)'
        "   0.0.0.0:8080->80/tcp   web\n"
    )


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["-a"], {"all": "1"}),
        (["-l"], {"limit": "1"}),
        (["-n", "3"], {"limit": "3"}),
        (["-l", "-n", "3"], {"limit": "3"}),
        (["-s"], {"size": "1"}),
        (["--format", "{{.Size}}"], {"size": "1"}),
        (["--format", "{{with .Size}}{{.}}{{end}}"], {"size": "1"}),
        (["--format", "{{.Size}}", "--size=false"], {}),
        (["--format", "json"], {}),
        (["-f", "name=x", "-f", "label=a=b"],
         {"filters": '{"name":{"x":true},"label":{"a=b":true}}'}),
    ],
)  # fmt: skip
def test_what_ps_asks_for(words: list[str], asked: dict[str, str]) -> None:
    with api({"GET /containers/json": []}) as server:
        assert teu_here(server, "ps", *words).code == 0
        assert query(server) == asked


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["-q"], "0123456789ab\n"),
        (["-q", "--no-trunc"], f"{ID}\n"),
        (["--format", "{{.Names}} {{.Labels}} {{.Mounts}} {{.Networks}} {{.LocalVolumes}}"],
         "web a=1,b=2 data bridge 1\n"),
        (["--no-trunc", "--format", "{{.Names}}|{{.Command}}"],
         'other/alias,web|"sh -c \\"sleep 1000; echo done\\""\n'),
        (["-s", "--format", "{{.Size}}"], "2.05kB (virtual 5MB)\n"),
        (["--format", "{{.Platform}} {{json .Platform}}"], "<nil> null\n"),
    ],
)  # fmt: skip
def test_ps_formats(words: list[str], out: str) -> None:
    assert say({"GET /containers/json": [CONTAINER]}, "ps", *words).out == out


def test_wrong_formats_are_found_before_the_daemon_is_asked() -> None:
    with api({}) as server:
        assert teu_here(server, "ps", "--format", "{{.Foo}}").err == (
            'failed to execute template: template: :1:2: executing "" at <.Foo>: '
            "can't evaluate field Foo in type *formatter.ContainerContext\n"
        )
        assert teu_here(server, "ps", "--format", "{{.Foo").err == (
            "failed to parse template: template: :1: unclosed action\n"
        )
        assert server.requests == []


def test_formats_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"psFormat": "{{.Names}}!", "imagesFormat": "{{.Tag}}", "networksFormat": "{{.Name}}?"}'
    )
    routes = {
        "GET /containers/json": [CONTAINER],
        "GET /images/json": [{"RepoTags": ["x:1"], "Id": "sha256:" + "a" * 64}],
        "GET /networks": [{"Name": "n", "Id": "1" * 64}],
    }
    assert say(routes, "ps", config=tmp_path).out == "web!\n"
    assert say(routes, "ps", "--format", "{{.ID}}", config=tmp_path).out == "0123456789ab\n"
    assert say(routes, "images", config=tmp_path).out == "1\n"
    assert say(routes, "images", "-q", config=tmp_path).out == "a" * 12 + "\n"
    assert say(routes, "network", "ls", config=tmp_path).out == "n?\n"


def _manifest(platform: str, size: int, *containers: str, kind: str = "image") -> dict[str, Any]:
    names = ("os", "architecture", "variant")
    return {
        "ID": "sha256:" + platform[-1] * 64,
        "Kind": kind,
        "Available": bool(size),
        "AttestationData": {"For": "sha256:" + "7" * 64} if kind == "attestation" else None,
        "Size": {"Content": size // 10, "Total": size},
        "ImageData": {
            "Platform": dict(zip(names, platform.split("/"), strict=False)),
            "Containers": list(containers),
        },
    }


TREE = [
    {
        "Id": "sha256:" + "1" * 64,
        "RepoTags": [],
        "Created": 1,
        "Size": 5,
        "Containers": -1,
        "Manifests": [_manifest("linux/386", 5)],
    },
    {
        "Id": "sha256:" + "2" * 64,
        "RepoTags": ["x:1", "x:2"],
        "Created": 2,
        "Size": 1234567,
        "Containers": -1,
        "Manifests": [
            _manifest("linux/arm/v7", 123456, "c"),
            _manifest("linux/s390x", 0),
            _manifest("unknown/unknown", 7, kind="attestation"),
        ],
    },
]


def test_tree() -> None:
    with api({"GET /images/json": TREE}) as server:
        said = teu_here(server, "images", "--tree", "x")
        assert query(server) == {"filters": '{"reference":{"x":true}}', "manifests": "1"}
        whole = teu_here(server, "images", "--tree", "--all")
    assert whole.out == said.out + (
        "<untagged>            111111111111           5B             0B        \n"
        "└─ linux/386          666666666666           5B             0B        \n"
        "\n"
    )
    assert said.out == (
        "WARNING: This is an experimental feature. The output may change and shouldn't be depended "
        "on.\n"
        "                                                              Info ->  U In Use \n"
        "\n"
        "IMAGE                 ID             DISK USAGE   CONTENT SIZE   EXTRA\n"
        "x:1\n"
        "x:2                   222222222222       1.23MB         12.3kB   U    \n"
        "├─ linux/arm/v7       777777777777        123kB         12.3kB   U    \n"
        "└─ linux/s390x        xxxxxxxxxxxx           0B             0B        \n"
        "\n"
    )
    for flag, name in (("-q", "quiet"), ("--digests", "show-digest"), ("--format=x", "format")):
        said = say({}, "images", "--tree", flag)
        assert (said.code, said.err) == (1, f"--{name} is not yet supported with --tree\n")


def test_images_hint_at_the_subcommand() -> None:
    said = say({"GET /images/json": []}, "images", "ls")
    assert 'No images found matching "ls": did you mean "teu image ls"?' in said.err
    assert said.code == 0


INSPECTED = {"Id": ID, "Name": "/web", "State": {"Status": "running"}, "Price": 1.50}
ROUTES = {
    "GET /containers/web/json": b'{"Id":"1","Price":1.50,"State":{"Status":"running"},"E":{}}',
    "GET /images/web/json": {"Id": "img"},
    "GET /images/busybox/json": {"Id": "sha256:img", "RepoTags": ["busybox:latest"]},
    "GET /networks/web": {"Name": "web", "Id": "net"},
    "GET /networks/lan": {"Name": "lan", "Id": "net"},
    "GET /volumes/data": {"Name": "data", "Driver": "local", "Labels": {"a": "<b>"}},
    "GET /info": {"Swarm": {}},
}


def test_inspect_shows_what_the_daemon_sent() -> None:
    assert say(ROUTES, "inspect", "web").out == (
        '[\n    {\n        "Id": "1",\n        "Price": 1.50,\n        "State": {\n'
        '            "Status": "running"\n        },\n        "E": {}\n    }\n]\n'
    )
    assert say(ROUTES, "inspect", "-f", "json", "web").out == (
        '[{"Id":"1","Price":1.50,"State":{"Status":"running"},"E":{}}]\n'
    )


def test_inspect_finds_any_kind_and_reports_what_is_missing() -> None:
    said = say(ROUTES, "inspect", "-f", "{{.Id}}", "web", "nope", "busybox", "lan")
    assert said.out == "1\nsha256:img\nnet\n"
    assert said.err == "Error: No such object: nope\n"
    assert said.code == 1
    assert say(ROUTES, "inspect", "nope").out == "[]\n"


@pytest.mark.parametrize(
    ("words", "err", "code"),
    [
        (["--type", "volume", "web"], "Error response from daemon: No such thing: /volumes/web\n",
         1),
        (["--type", "foo", "web"], 'unknown type: "foo": must be one of "config", "container", '
         '"image", "network", "node", "plugin", "secret", "service", "task", "volume"\n', 1),
        (["-f", "{{.Id", "web"], "template parsing error: template: :1: unclosed action\n", 64),
        (["-f", "{{.Foo}}", "web"], 'template parsing error: template: :1:2: executing "" at '
         '<.Foo>: map has no entry for key "Foo"\n', 1),
    ],
)  # fmt: skip
def test_inspect_errors(words: list[str], err: str, code: int) -> None:
    said = say(ROUTES, "inspect", *words)
    assert (said.err, said.code) == (err, code)


def test_inspect_falls_back_to_the_plain_answer() -> None:
    """Fields that Docker's types lack, and their spelling on the wire, can be used too."""
    said = say(ROUTES, "inspect", "-f", "{{.Price}} {{.Id}}", "web")
    assert (said.out, said.code) == ("1.50 1\n", 0)


def test_volume_inspect_is_typed() -> None:
    said = say(ROUTES, "volume", "inspect", "data")
    assert json.loads(said.out) == [
        {"Driver": "local", "Labels": {"a": "<b>"}, "Mountpoint": "", "Name": "data",
         "Options": None, "Scope": ""}
    ]  # fmt: skip
    assert "\\u003cb\\u003e" in said.out
    assert "--size ignored for volume" in say(ROUTES, "inspect", "-s", "data").err


def test_container_sizes_are_asked_for() -> None:
    with api(ROUTES) as server:
        teu_here(server, "inspect", "-s", "web")
        assert query(server) == {"size": "1"}


def test_older_daemons_are_spoken_to_in_their_version() -> None:
    with api({"GET /containers/json": []}, version="1.41") as server:
        server.routes["GET /v1.51/containers/json"] = (400, {"message": "too new"})
        teu_here(server, "ps")
        assert "/containers/json" in server.requests[-1][1]


PRUNED = {
    "POST /containers/prune": {"ContainersDeleted": ["c1", "c2"], "SpaceReclaimed": 1234},
    "POST /networks/prune": {"NetworksDeleted": ["n1"]},
    "POST /volumes/prune": {"VolumesDeleted": None, "SpaceReclaimed": 0},
    "POST /images/prune": {
        "ImagesDeleted": [{"Untagged": "x:1"}, {"Deleted": "sha256:d"}],
        "SpaceReclaimed": 1000,
    },
}


def test_prune_reports() -> None:
    assert say(PRUNED, "container", "prune", "-f").out == (
        "Deleted Containers:\nc1\nc2\n\nTotal reclaimed space: 1.234kB\n"
    )
    assert say(PRUNED, "network", "prune", "-f").out == "Deleted Networks:\nn1\n\n"
    assert say(PRUNED, "volume", "prune", "-f").out == "Total reclaimed space: 0B\n"
    assert say(PRUNED, "image", "prune", "-f").out == (
        "Deleted Images:\nuntagged: x:1\ndeleted: sha256:d\n\nTotal reclaimed space: 1kB\n"
    )


def test_system_prune_without_a_builder() -> None:
    said = say(PRUNED, "system", "prune", "-f")
    assert said.out == (
        "Deleted Containers:\nc1\nc2\n\nDeleted Networks:\nn1\n\n"
        "Deleted Images:\nuntagged: x:1\ndeleted: sha256:d\n\nTotal reclaimed space: 2.234kB\n"
    )
    assert said.code == 0


@pytest.mark.parametrize(
    ("words", "filters"),
    [
        (["image", "prune", "-f"], {"dangling": {"true": True}}),
        (["image", "prune", "-af", "--filter", "until=1h"],
         {"until": {"1h": True}, "dangling": {"false": True}}),
        (["volume", "prune", "-af"], {"all": {"true": True}}),
        (["container", "prune", "-f", "--filter", "label!=x"], {"label!": {"x": True}}),
    ],
)  # fmt: skip
def test_what_prune_asks_for(words: list[str], filters: dict[str, Any]) -> None:
    with api(PRUNED) as server:
        assert teu_here(server, *words).code == 0
        assert json.loads(query(server)["filters"]) == filters


@pytest.mark.parametrize("answer", ["n\n", "", "yes\n", "\n"])
def test_prune_does_nothing_without_a_yes(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    with api(PRUNED) as server:
        said = teu_here(server, "container", "prune")
        assert server.requests == []
    assert said.code == 0
    assert said.out == (
        "WARNING! This will remove all stopped containers.\n"
        "Are you sure you want to continue? [y/N] "
    )


def test_prune_after_a_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(" Y \n"))
    assert "Total reclaimed space: 1.234kB" in say(PRUNED, "container", "prune").out


def test_prune_filters_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"pruneFilters": ["label!=keep", "label=x", "bad"]}')
    with api(PRUNED) as server:
        teu_here(server, "container", "prune", "-f", "--filter", "label=keep", config=tmp_path)
        assert json.loads(query(server)["filters"]) == {"label": {"keep": True, "x": True}}


def test_network_create() -> None:
    with api({"POST /networks/create": {"Id": "new", "Warning": "odd"}}) as server:
        said = teu_here(
            server, "network", "create", "--subnet", "10.1.0.0/24,fd00::/64", "--gateway",
            "10.1.0.1", "--ip-range", "10.1.0.128/25", "--aux-address", "x=10.1.0.9", "-o", "a=b",
            "--label", "l", "--internal", "--ipv6", "lan",
        )  # fmt: skip
        [body] = server.bodies("POST", "/networks/create")
    assert (said.out, said.err) == ("new\n", "WARNING: odd\n")
    assert body["IPAM"]["Config"] == [
        {"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.128/25", "Gateway": "10.1.0.1",
         "AuxiliaryAddresses": {"x": "10.1.0.9"}},
        {"Subnet": "fd00::/64", "AuxiliaryAddresses": {}},
    ]  # fmt: skip
    assert body["Options"] == {"a": "b"}
    assert body["Labels"] == {"l": ""}
    assert body["Internal"] is True
    assert body["EnableIPv6"] is True
    assert "EnableIPv4" not in body


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--gateway", "10.0.0.1"], "every ip-range or gateway must have a corresponding subnet"),
        (["--subnet", "10.0.0.0/24", "--gateway", "10.1.0.1"],
         "no matching subnet for gateway 10.1.0.1"),
        (["--subnet", "10.0.0.0/24", "--subnet", "10.0.0.0/25"],
         "multiple overlapping subnet configuration is not supported"),
        (["--subnet", "10.0.0.0/24", "--ip-range", "x"], "invalid CIDR address: x"),
        (["--subnet", "10.0.0.0/8", "--subnet", "11.0.0.0/8", "--gateway", "10.0.0.1",
          "--gateway", "10.0.0.2"],
         "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet "
         "(10.0.0.0/8)"),
    ],
)  # fmt: skip
def test_network_create_refuses(words: list[str], problem: str) -> None:
    with api({}) as server:
        said = teu_here(server, "network", "create", *words, "lan")
        assert server.requests == []
    assert (said.err, said.code) == (problem + "\n", 1)


def test_removing_several_goes_on_after_a_failure() -> None:
    routes = {"DELETE /networks/a": (204, b""), "DELETE /volumes/v": (204, b"")}
    said = say(routes, "network", "rm", "gone", "a")
    assert (said.out, said.code) == ("a\n", 1)
    assert said.err.startswith("Error response from daemon: No such thing")
    assert say(routes, "network", "rm", "-f", "gone", "a").code == 0
    assert say(routes, "volume", "rm", "gone", "v").out == "v\n"


USAGE = {
    "LayersSize": 1_500_000,
    "Images": [{"Id": "sha256:" + "a" * 64, "RepoTags": ["x:1"], "Size": 1_500_000,
                "SharedSize": 500_000, "Containers": 1, "Created": 1}],
    "Containers": [CONTAINER | {"SizeRw": 300}, CONTAINER | {"SizeRw": 700, "State": "exited"}],
    "Volumes": [{"Name": "v", "Driver": "local", "UsageData": {"Size": 10, "RefCount": 0}},
                {"Name": "w", "Driver": "local", "UsageData": {"Size": -1, "RefCount": 2}}],
    "BuildCache": [{"ID": "b", "Size": 5, "InUse": True}, {"ID": "c", "Size": 7, "Shared": True}],
}  # fmt: skip


def test_disk_usage() -> None:
    said = say({"GET /system/df": USAGE}, "system", "df")
    assert said.out == (
        "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n"
        "Images          1         1         1.5MB     500kB (33%)\n"
        "Containers      2         1         1kB       700B (70%)\n"
        "Local Volumes   2         1         10B       10B (100%)\n"
        "Build Cache     2         1         5B        0B\n"
    )


def test_disk_usage_in_detail() -> None:
    routes = {"GET /system/df": USAGE}
    out = say(routes, "system", "df", "-v").out
    assert "Images space usage:\n\nREPOSITORY   TAG " in out
    assert "500kB         1MB           1\n" in out
    assert "Build cache usage: 5B\n" in out
    assert (
        say(
            routes,
            "system",
            "df",
            "-v",
            "--format",
            "{{range .Volumes}}{{.Name}}={{.Links}} {{end}}",
        ).out
        == "v=0 w=2 "
    )


def test_info_without_a_daemon() -> None:
    said = teu_here(None, "-H", "unix:///nonexistent/x.sock", "info")
    assert said.code == 1
    assert said.out.startswith("Client:\n Version:    ")
    assert said.out.endswith("\nServer:\n")
    assert "Cannot connect to the Docker daemon at unix:///nonexistent/x.sock" in said.err


INFO = {
    "ID": "id", "Containers": 3, "ContainersRunning": 1, "Driver": "overlay2", "OSType": "linux",
    "DriverStatus": [["Backing", "ext4"]], "Plugins": {"Volume": ["local"], "Network": ["bridge"],
    "Log": None}, "Swarm": {"LocalNodeState": "inactive"}, "Runtimes": {"runc": {}, "crun": {}},
    "DefaultRuntime": "crun", "SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"],
    "MemTotal": 2_147_483_648, "NCPU": 2, "Warnings": ["WARNING: odd"], "Name": "host",
    "RegistryConfig": {"InsecureRegistryCIDRs": ["127.0.0.0/8"], "IndexConfigs": {}},
}  # fmt: skip


def test_info() -> None:
    said = say({"GET /info": INFO}, "info")
    assert said.err == "WARNING: odd\n"
    for part in (
        " Containers: 3\n  Running: 1\n  Paused: 0\n  Stopped: 0\n Images: 0\n",
        " Storage Driver: overlay2\n  Backing: ext4\n",
        " Plugins:\n  Volume: local\n  Network: bridge\n  Log: \n Swarm: inactive\n",
        " Runtimes: crun runc\n Default Runtime: crun\n",
        " Security Options:\n  seccomp\n   Profile: builtin\n  rootless\n",
        " CPUs: 2\n Total Memory: 2GiB\n Name: host\n ID: id\n",
        " Insecure Registries:\n  127.0.0.0/8\n Live Restore Enabled: false\n\n",
    ):
        assert part in said.out


def test_info_asks_the_daemon_only_when_needed() -> None:
    with api({"GET /info": INFO}) as server:
        assert teu_here(server, "info", "-f", "{{.ClientInfo.Debug}}").out == "false\n"
        assert server.requests == []
        assert teu_here(server, "info", "-f", "{{.Name}} {{.Driver}}").out == "host overlay2\n"
    said = say({"GET /info": INFO}, "info", "-f", "{{.Foo}}")
    assert (said.out, said.code) == ("\n", 1)
    assert "can't evaluate field Foo in type system.dockerInfo" in said.err


VERSION = {"Version": "9.9", "ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux",
           "GitCommit": "abc", "BuildTime": "2025-05-30T12:07:14.000000000+00:00"}  # fmt: skip


def test_version() -> None:
    out = say({"GET /version": VERSION}, "version").out
    assert " API version:       1.51\n" in out
    assert "Server:\n Engine:\n  Version:          9.9\n" in out
    assert "  Built:            Fri May 30 12:07:14 2025\n" in out
    assert say({"GET /version": VERSION}, "version", "-f", "{{.Server.Version}}").out == "9.9\n"
    said = teu_here(None, "-H", "unix:///nonexistent/x.sock", "version")
    assert said.code == 1
    assert "Client:" in said.out
    assert "Server:" not in said.out


def test_search() -> None:
    found = [{"name": "a", "description": "x\ny" * 30, "star_count": 5, "is_official": True}]
    with api({"GET /images/search": found}) as server:
        said = teu_here(server, "search", "--limit", "3", "-f", "is-official=true", "word")
        assert query(server)["term"] == "word"
        assert query(server)["limit"] == "3"
    assert said.out.startswith("NAME      DESCRIPTION ")
    assert said.out.splitlines()[1].startswith("a         x yx y")
    assert said.out.rstrip().endswith("[OK]")


@pytest.mark.parametrize("command", ["ps", "images", "network ls", "volume ls", "system df"])
def test_a_daemon_that_says_nothing_useful(command: str) -> None:
    """`null` and [] are empty lists; an answer that is not JSON is named as the problem."""
    for empty in (b"null", b"[]" if command not in ("volume ls", "system df") else b"{}"):
        routes: dict[str, Any] = dict.fromkeys([*PATHS, "GET /system/df"], empty)
        if command == "system df" and empty == b"null":
            continue
        assert say(routes, *command.split()).code == 0
    routes = dict.fromkeys([*PATHS, "GET /system/df"], b"{oops")
    said = say(routes, *command.split())
    assert said.code == 1
    assert "sent bad JSON" in said.err
