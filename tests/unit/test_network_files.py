"""The texts of /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from pathlib import Path

import pytest

from teu.errors import InvalidParameter
from teu.model.config import ContainerConfig, EndpointSettings, HostConfig
from teu.model.container import ContainerRecord
from teu.network import files
from teu.network.config import NetworkConfig
from teu.network.files import EtcFiles, Naming, Resolver, contents

STUB = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n"
UPSTREAM = "# by resolved\nnameserver 192.0.2.53\nnameserver fd00::53\nsearch corp.example\n"


@pytest.fixture(autouse=True)
def host_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "hosts").write_text("127.0.0.1 localhost myhost\n")
    (tmp_path / "resolv").write_text("nameserver 192.0.2.1\nsearch example.org\noptions ndots:2\n")
    monkeypatch.setattr(files, "HOST_HOSTS", tmp_path / "hosts")
    monkeypatch.setattr(files, "HOST_RESOLV", tmp_path / "resolv")
    monkeypatch.setattr(files, "RESOLVED_UPSTREAM", tmp_path / "upstream")
    return tmp_path


def test_hosts_of_a_bridge_container() -> None:
    naming = Naming(
        hostname="web", addresses=["172.17.0.2"], extra_hosts=[("db", "10.0.0.5"), ("v6", "::2")]
    )
    assert contents(naming).hosts == (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\n"
        "ff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
        "10.0.0.5\tdb\n"
        "::2\tv6\n"
        "172.17.0.2\tweb\n"
    )


def test_domain_names_are_written_out() -> None:
    naming = Naming(hostname="web", domainname="example.org", addresses=["172.17.0.2"])
    assert contents(naming).hosts.endswith("172.17.0.2\tweb.example.org web\n")
    assert contents(naming).hostname == "web.example.org\n"


def test_the_host_network_has_the_hosts_files(host_files: Path) -> None:
    naming = Naming(hostname="myhost", uses_host_network=True)
    (host_files / "resolv").write_text(STUB)
    assert contents(naming).hosts == "127.0.0.1 localhost myhost\n"
    assert contents(naming).resolv_conf == STUB
    naming = Naming(hostname="h", uses_host_network=True, extra_hosts=[("db", "10.0.0.5")])
    assert contents(naming).hosts == "127.0.0.1 localhost myhost\n10.0.0.5\tdb\n"
    naming = Naming(hostname="h", uses_host_network=True, asked=Resolver(search=["x.org"]))
    assert "nameserver 127.0.0.53\nsearch x.org\n" in contents(naming).resolv_conf


@pytest.mark.parametrize(
    ("host", "asked", "expected"),
    [
        (
            "nameserver 192.0.2.1\nsearch a.org b.org\noptions ndots:2\n",
            Resolver(),
            "nameserver 192.0.2.1\nsearch a.org b.org\noptions ndots:2\n",
        ),
        (STUB, Resolver(), "nameserver 192.0.2.53\nsearch corp.example\n"),
        ("nameserver 127.0.0.1\n", Resolver(), "nameserver 192.0.2.53\nsearch corp.example\n"),
        ("nameserver ::1\nnameserver 192.0.2.9\n", Resolver(), "nameserver 192.0.2.9\n"),
        ("", Resolver(), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
        ("nameserver fe80::1%eth0\n", Resolver(), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"),
        (
            "nameserver 192.0.2.1 # office\ndomain old.org\nsearch new.org\n; x\n",
            Resolver(servers=["10.0.0.1", "127.0.0.1"]),
            "nameserver 10.0.0.1\nnameserver 127.0.0.1\nsearch new.org\n",
        ),
        (
            "nameserver 192.0.2.1\nsearch a.org\noptions ndots:2\n",
            Resolver(search=["."], options=["timeout:1"]),
            "nameserver 192.0.2.1\noptions timeout:1\n",
        ),
    ],
)
def test_resolv_conf(host_files: Path, host: str, asked: Resolver, expected: str) -> None:
    (host_files / "resolv").write_text(host)
    (host_files / "upstream").write_text(UPSTREAM)
    assert contents(Naming(hostname="h", asked=asked)).resolv_conf == expected


def test_a_stub_without_known_upstreams_falls_back(host_files: Path) -> None:
    (host_files / "resolv").write_text(STUB)
    assert contents(Naming(hostname="h")).resolv_conf.startswith("nameserver 8.8.8.8\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:10.0.0.5", ("db", "10.0.0.5")),
        ("v6:::1", ("v6", "::1")),
        ("v6:[2001:db8::1]", ("v6", "2001:db8::1")),
        ("host.docker.internal:host-gateway", ("host.docker.internal", "172.17.0.1")),
    ],
)
def test_extra_hosts(text: str, expected: tuple[str, str]) -> None:
    assert files.parse_extra_host(text, "172.17.0.1") == expected


@pytest.mark.parametrize(
    "text", ["db", ":10.0.0.1", "db:", "db:x", "a b:10.0.0.1", "a\nb:10.0.0.1", "db:10.0.0.1\n"]
)
def test_bad_extra_hosts(text: str) -> None:
    with pytest.raises(InvalidParameter, match="add-host"):
        files.parse_extra_host(text)


def test_host_gateway_without_a_bridge() -> None:
    with pytest.raises(InvalidParameter, match="host-gateway"):
        files.parse_extra_host("h:host-gateway")


@pytest.mark.parametrize(
    ("servers", "search", "options"),
    [(["dns"], [], []), (["1.1.1.1\noptions x"], [], []), ([], ["a b"], []), ([], [], ["x\ny"])],
)
def test_bad_dns_settings(servers: list[str], search: list[str], options: list[str]) -> None:
    with pytest.raises(InvalidParameter):
        files.checked_resolver(servers, search, options)


class Networks:
    def host_gateway(self) -> str:
        return "172.17.0.1"


def test_files_are_written_in_place_so_that_mounts_see_them(tmp_path: Path) -> None:
    config = NetworkConfig(dns=["10.1.1.1"], dns_search=["daemon.org"])
    record = ContainerRecord(
        id="a" * 64, name="web", created_ns=0, image_id="", args=[],
        config=ContainerConfig(hostname="web"),
        host=HostConfig(dns_search=["own.org"], extra_hosts=["gw:host-gateway"]),
        networks={"bridge": EndpointSettings(ip_address="172.17.0.9")},
    )  # fmt: skip
    home = tmp_path / "home"
    home.mkdir()
    etc = EtcFiles(config, Networks())
    etc.write(home, record)
    before = {path.name: path.stat().st_ino for path in home.iterdir()}
    assert sorted(before) == ["hostname", "hosts", "resolv.conf"]
    assert "172.17.0.1\tgw\n172.17.0.9\tweb\n" in (home / "hosts").read_text()
    assert (home / "hostname").read_text() == "web\n"
    expected = "nameserver 10.1.1.1\nsearch own.org\noptions ndots:2\n"
    assert (home / "resolv.conf").read_text() == expected
    record.config.hostname = "w"
    etc.write(home, record)
    assert (home / "hostname").read_text() == "w\n"
    assert {path.name: path.stat().st_ino for path in home.iterdir()} == before
