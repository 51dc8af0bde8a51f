"""Flag values in the API's shape, and the texts for bad ones (compared with Docker 28.2)."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.cli.devices import split_devices
from teu.cli.imagename import parse
from teu.cli.instants import api_instant
from teu.cli.mounts import split_volumes, tmpfs_table
from teu.cli.networking import is_user_defined
from teu.cli.ports import parse_expose, parse_publish
from teu.cli.values import check, csv_fields


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("bytes", "4k", 4096),
        ("bytes", "1.5g", 1610612736),
        ("bytes", "10 mb", 10485760),
        ("bytes", "10MiB", 10485760),
        ("bytes", "7b", 7),
        ("swap", "-1", -1),
        ("int", "-0x10", -16),
        ("int", "010", 8),
        ("int", "1_000", 1000),
        ("uint16", "65535", 65535),
        ("duration", "1.5h3m", 5580 * 10**9),
        ("duration", "-5s", -5 * 10**9),
        ("duration", "0", 0),
        ("duration", "1us", 1000),
        ("decimal", "1e-3", 1000000),
        ("decimal", "3/2", 1500000000),
        ("decimal", "-1", -1000000000),
        ("label", "a=b=c", "a=b=c"),
        ("attach", "STDOUT", "stdout"),
        ("extra-host", "x=1.2.3.4", "x:1.2.3.4"),
        ("extra-host", "x:[::1]", "x:::1"),
        ("extra-host", "x:host-gateway", "x:host-gateway"),
        ("ip", "::0001", "::1"),
        ("dns-search", ".", "."),
        ("dns-search", "a.example.", "a.example"),
        ("sysctl", "net.ipv4.x=1", "net.ipv4.x=1"),
        ("filter", " Status = running", "status=running"),
        ("device-rule", "c 1:* mr", "c 1:* mr"),
        ("ulimit", "nofile=10:-1", {"Name": "nofile", "Hard": -1, "Soft": 10}),
        ("weight-device", "/dev/sda:500", {"Path": "/dev/sda", "Weight": 500}),
        ("rate-bps", "/dev/sda:1mb", {"Path": "/dev/sda", "Rate": 1048576}),
    ],
)
def test_good_values(name: str, text: str, value: object) -> None:
    assert check(name, text) == value


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("bytes", "1.5x", "invalid suffix: 'x'"),
        ("bytes", "10ib", "invalid suffix: 'ib'"),
        ("bytes", "-1", "invalid size: '-1'"),
        ("bytes", "", "invalid size: ''"),
        ("bytes", "1.2.3", 'strconv.ParseFloat: parsing "1.2.3": invalid syntax'),
        ("int", " 1", 'strconv.ParseInt: parsing " 1": invalid syntax'),
        ("int", "99999999999999999999",
         'strconv.ParseInt: parsing "99999999999999999999": value out of range'),
        ("uint16", "5000000", 'strconv.ParseUint: parsing "5000000": value out of range'),
        ("uint", "-1", 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("duration", "5", 'time: missing unit in duration "5"'),
        ("duration", "5x", 'time: unknown unit "x" in duration "5x"'),
        ("duration", "x", 'time: invalid duration "x"'),
        ("decimal", "x", "failed to parse x as a rational number"),
        ("decimal", "1.0000000001", "value is too precise"),
        ("decimal", "1/0", "failed to parse 1/0 as a rational number"),
        ("decimal", "1e999999999", "failed to parse 1e999999999 as a rational number"),
        ("label", "=x", "invalid label '=x': empty name"),
        ("attach", "foo", "valid streams are STDIN, STDOUT and STDERR"),
        ("extra-host", "[x]", 'bad format for add-host: "[x]"'),
        ("extra-host", "x:y", 'invalid IP address in add-host: "y"'),
        ("ip", "1.2.3", "IP address is not correctly formatted: 1.2.3"),
        ("dns-search", "a_b..c", "a_b..c is not a valid domain"),
        ("link", "a:b:c", "bad format for links: a:b:c"),
        ("sysctl", "kernel.foo=1", "sysctl 'kernel.foo=1' is not allowed"),
        ("filter", "x", "bad format of filter (expected name=value)"),
        ("device-rule", "c", "invalid device cgroup format 'c'"),
        ("ulimit", "nofile=2:1",
         "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
        ("ulimit", "foo=1", "invalid ulimit type: foo"),
        ("weight-device", "/dev/sda:5", "invalid weight for device: /dev/sda:5"),
        ("mount", "type=bind", "target is required"),
        ("mount", "", "EOF"),
        ("mount", "type=tmpfs,dst=/b,bind-propagation=shared",
         "cannot mix 'bind-*' options with mount type 'tmpfs'"),
        ("mount", "type=bind,src=/a,dst=/b,bind-recursive=readonly",
         "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"),
        ("network", "name=x,foo=bar", "invalid field key foo"),
        ("network", "alias=b", "network name/id is not specified"),
        ("gpu-request", "count=2,count=3", "gpu request key 'count' can be specified only once"),
        ("gpu-request", "foo=bar", "unexpected key 'foo' in 'foo=bar'"),
    ],
)  # fmt: skip
def test_bad_values(name: str, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        check(name, text)
    assert str(caught.value) == problem


@given(st.sampled_from(["bytes", "duration", "decimal", "int", "ulimit", "mount", "network",
                        "gpu-request", "extra-host", "device-rule", "dns-search"]),
       st.text(max_size=20))  # fmt: skip
def test_any_value_is_accepted_or_refused_by_text(name: str, text: str) -> None:
    problem: str | None = None
    try:
        check(name, text)
    except ValueError as error:
        problem = str(error)
    assert problem != ""


def test_bare_variable_takes_the_value_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEU_TEST_X", "a=b")
    monkeypatch.delenv("TEU_TEST_Y", raising=False)
    assert check("env", "TEU_TEST_X") == "TEU_TEST_X=a=b"
    assert check("env", "TEU_TEST_Y") == "TEU_TEST_Y"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("a,b", ["a", "b"]),
        ('"a,b",c', ["a,b", "c"]),
        ('"a""b"', ['a"b']),
        ("a,", ["a", ""]),
    ],
)
def test_csv(text: str, fields: list[str]) -> None:
    assert csv_fields(text) == fields


@given(st.lists(st.text(alphabet='ab,"= ', min_size=1), min_size=1))
def test_csv_reads_back_what_was_quoted(fields: list[str]) -> None:
    quoted = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert csv_fields(quoted) == fields


BIND = {"Type": "bind", "Source": "/a", "Target": "/b"}


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,src=/a,dst=/b", BIND),
        ("type=bind,source=/a,target=/b,ro", BIND | {"ReadOnly": True}),
        ("type=bind,src=/a,dst=/b,bind-recursive=disabled",
         BIND | {"BindOptions": {"NonRecursive": True}}),
        ("dst=b", {"Type": "volume", "Target": "b"}),
        ("type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1777",
         {"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 1048576, "Mode": 1023}}),
        ("src=a,dst=/b,volume-nocopy,volume-label=x=y,volume-opt=o",
         {"Type": "volume", "Source": "a", "Target": "/b",
          "VolumeOptions": {"NoCopy": True, "DriverConfig": {"Options": {"o": ""}},
                            "Labels": {"x": "y"}}}),
    ],
)  # fmt: skip
def test_mounts(text: str, mount: dict[str, Any]) -> None:
    assert check("mount", text) == mount


def test_volumes() -> None:
    here = os.getcwd()
    binds, volumes = split_volumes(["/a:/b:ro", "./x:/c", "data:/d", "/anonymous", "v:/e"])
    assert binds == ["/a:/b:ro", f"{here}/x:/c", "data:/d", "v:/e"]
    assert volumes == {"/anonymous": {}}
    assert tmpfs_table(["/x", "/y:size=1m"]) == {"/x": "", "/y": "size=1m"}


@pytest.mark.parametrize("spec", ["", "/a:/b:ro:c", ":/x"])
def test_bad_volumes(spec: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        split_volumes([spec])


def one(port: str, host_port: str, address: str = "") -> dict[str, list[dict[str, str]]]:
    return {port: [{"HostIp": address, "HostPort": host_port}]}


@pytest.mark.parametrize(
    ("spec", "bindings"),
    [
        ("80", one("80/tcp", "")),
        ("8080:80", one("80/tcp", "8080")),
        ("8080:80/UDP", one("80/udp", "8080")),
        ("127.0.0.1::80", one("80/tcp", "", "127.0.0.1")),
        ("[::1]:8080:80", one("80/tcp", "8080", "::1")),
        ("80-81:80", one("80/tcp", "80-81")),
        ("90-91:80-81", one("80/tcp", "90") | one("81/tcp", "91")),
        ("target=80,published=8080,protocol=udp", one("80/udp", "8080")),
    ],
)
def test_published_ports(spec: str, bindings: dict[str, Any]) -> None:
    assert parse_publish([spec]) == bindings


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("x", "invalid containerPort: x"),
        ("70000:80", "invalid hostPort: 70000"),
        ("1.2.3:80:80", "invalid IP address: 1.2.3"),
        ("80:80-81", "invalid ranges specified for container and host Ports: 80-81 and 80"),
        ("80:80/foo", "invalid proto: foo"),
        ("81:", "no port specified: 81:<empty>"),
        ("", "no port specified: <empty>"),
    ],
)
def test_bad_published_ports(spec: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        parse_publish([spec])
    assert str(caught.value) == problem


def test_exposed_ports() -> None:
    assert parse_expose(["80", "81-82/udp"]) == {"80/tcp": {}, "81/udp": {}, "82/udp": {}}
    with pytest.raises(ValueError, match="invalid range format for --expose: 80-79, error: "):
        parse_expose(["80-79"])


def test_devices() -> None:
    devices, cdi = split_devices(["/dev/a", "/dev/a:/dev/b:r", "/dev/c:rw", "nvidia.com/gpu=all"])
    assert [tuple(device.values()) for device in devices] == [
        ("/dev/a", "/dev/a", "rwm"), ("/dev/a", "/dev/b", "r"), ("/dev/c", "/dev/c", "rw"),
    ]  # fmt: skip
    assert cdi[0]["DeviceIDs"] == ["nvidia.com/gpu=all"]
    for bad in ("x", "/dev/x:/dev/y:rwx", "/dev/x:/dev/y:r:z", "", "a:b"):
        with pytest.raises(ValueError, match=r"bad|absolute"):
            split_devices([bad])


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("ubuntu", "docker.io/library/ubuntu:latest", "ubuntu:latest"),
        ("me/x:1", "docker.io/me/x:1", "me/x:1"),
        ("index.docker.io/library/x", "docker.io/library/x:latest", "x:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("x@sha256:" + "a" * 64, "docker.io/library/x@sha256:" + "a" * 64,
         "x@sha256:" + "a" * 64),
    ],
)  # fmt: skip
def test_image_names(text: str, full: str, familiar: str) -> None:
    name = parse(text).with_default_tag()
    assert (name.full, name.familiar) == (full, familiar)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "invalid reference format"),
        ("-", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("a@sha256:abc", "invalid reference format"),
        ("BAD", "invalid reference format: repository name (library/BAD) must be lowercase"),
        ("a" * 64, f"invalid repository name ({'a' * 64}), cannot specify 64-byte hexadecimal "
         "strings"),
    ],
)  # fmt: skip
def test_bad_image_names(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        parse(text)
    assert str(caught.value) == problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2013-01-02T13:23:37Z", "1357133017.000000000"),
        ("2013-01-02T13:23:37.5+01:00", "1357129417.500000000"),
        ("1136073600", "1136073600"),
        ("1136073600.000000001", "1136073600.000000001"),
    ],
)
def test_instants(text: str, value: str) -> None:
    assert api_instant(text) == value


def test_bad_instants() -> None:
    for text in ("x", "", "2013-99-99", "12:00"):
        with pytest.raises(ValueError, match=r"failed to parse|month"):
            api_instant(text)


def test_built_in_networks() -> None:
    assert not any(map(is_user_defined, ("default", "bridge", "host", "none", "container:x")))
    assert is_user_defined("mine")
