"""dockerd's options: command line and file to a `DaemonConfig`, and every kind of refusal."""

import json
from pathlib import Path
from typing import Any

import pytest

from teu.daemon.commandline import DOCKERD, TEUD, BadCommandLine, help_text, parse, program_for
from teu.daemon.config import AddressPool, DaemonConfig, Host, RuntimeEntry, TlsMode
from teu.daemon.load import BadConfiguration, load, reloaded
from teu.daemon.options import BY_KEY, OPTIONS, State
from teu.model.config import Ulimit

# Every key of Docker's own full example for Linux (dockerd's manual), with the values given there
FULL_EXAMPLE: dict[str, Any] = {
    "allow-nondistributable-artifacts": [], "api-cors-header": "", "authorization-plugins": [],
    "bip": "", "bridge": "", "builder": {"gc": {"enabled": True, "defaultKeepStorage": "10GB"}},
    "cgroup-parent": "", "containerd": "/run/containerd/containerd.sock",
    "containerd-namespace": "docker", "containerd-plugins-namespace": "docker-plugins",
    "data-root": "", "debug": True,
    "default-address-pools": [{"base": "172.30.0.0/16", "size": 24}],
    "default-cgroupns-mode": "private", "default-gateway": "", "default-gateway-v6": "",
    "default-network-opts": {}, "default-runtime": "runc", "default-shm-size": "64M",
    "default-ulimits": {"nofile": {"Hard": 64000, "Name": "nofile", "Soft": 64000}},
    "dns": [], "dns-opts": [], "dns-search": [], "exec-opts": [], "exec-root": "",
    "experimental": False, "features": {"cdi": True}, "fixed-cidr": "", "fixed-cidr-v6": "",
    "group": "", "host-gateway-ip": "", "hosts": [], "proxies": {
        "http-proxy": "http://proxy.example.com:80", "https-proxy": "https://proxy.example.com:443",
        "no-proxy": "*.test.example.com,.example.org",
    },
    "icc": False, "init": False, "init-path": "/usr/libexec/docker-init",
    "insecure-registries": [], "ip": "0.0.0.0", "ip-forward": False, "ip-masq": False,
    "iptables": True, "ip6tables": False, "ipv6": False, "labels": [], "live-restore": True,
    "log-driver": "json-file", "log-format": "text", "log-level": "",
    "log-opts": {"max-file": "5", "max-size": "10m"}, "max-concurrent-downloads": 3,
    "max-concurrent-uploads": 5, "max-download-attempts": 5, "mtu": 0,
    "no-new-privileges": False, "node-generic-resources": [], "oom-score-adjust": 0,
    "pidfile": "", "raw-logs": False, "registry-mirrors": [],
    "runtimes": {"custom": {"path": "/usr/local/bin/my-runc", "runtimeArgs": ["--debug"]}},
    "seccomp-profile": "", "selinux-enabled": False, "shutdown-timeout": 15,
    "storage-driver": "", "storage-opts": [], "swarm-default-advertise-addr": "",
    "tls": True, "tlscacert": "", "tlscert": "", "tlskey": "", "tlsverify": True,
    "userland-proxy": False, "userland-proxy-path": "/usr/libexec/docker-proxy",
    "userns-remap": "",
}  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "daemon.json"


def configure(
    file: Path, written: object = None, *flags: str, env: dict[str, str] | None = None
) -> DaemonConfig:
    if written is not None:
        file.write_text(written if isinstance(written, str) else json.dumps(written))
        flags = ("--config-file", str(file), *flags)
    return load(parse(flags, TEUD), TEUD, env or {}).config


def refusal(file: Path, written: object = None, *flags: str, **more: Any) -> str:
    with pytest.raises((BadConfiguration, BadCommandLine)) as caught:
        configure(file, written, *flags, **more)
    return str(caught.value)


def test_without_options_it_is_the_default(file: Path) -> None:
    assert configure(file) == DaemonConfig()


def test_the_full_example_of_dockers_manual_is_accepted(file: Path) -> None:
    config = configure(file, FULL_EXAMPLE)
    assert config.data_root == Path("/var/lib/teu")
    assert config.default_runtime == "runc"
    assert config.runtimes == {"custom": RuntimeEntry("/usr/local/bin/my-runc", ("--debug",))}
    assert config.default_ulimits == {"nofile": Ulimit(name="nofile", soft=64000, hard=64000)}
    assert config.default_address_pools == (AddressPool("172.30.0.0/16", 24),)
    assert config.http_proxy == "http://proxy.example.com:80"
    assert config.log_opts == {"max-file": "5", "max-size": "10m"}
    assert (config.debug, config.log_level, config.icc) == (True, "debug", False)
    assert config.tls is TlsMode.MUTUAL


def test_options_without_effect_are_noted(file: Path) -> None:
    file.write_text('{"live-restore": true}')
    notes = load(parse(["--containerd=/x", "--config-file", str(file)], TEUD), TEUD, {}).notes
    assert sorted(note.split()[2] for note in notes) == ["containerd", "live-restore"]


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (["--data-root=/srv/teu"], "data_root", Path("/srv/teu")),
        (["--data-root", "/srv/teu"], "data_root", Path("/srv/teu")),
        (["-p", "/run/x.pid"], "pidfile", Path("/run/x.pid")),
        (["-p/run/x.pid"], "pidfile", Path("/run/x.pid")),
        (["-p=/run/x.pid"], "pidfile", Path("/run/x.pid")),
        (["-D"], "log_level", "debug"),
        (["-Dl", "error"], "log_level", "debug"),
        (["-l", "WARN"], "log_level", "warning"),
        (["-lfatal"], "log_level", "critical"),
        (["--icc=false"], "icc", False),
        (["--icc=F"], "icc", False),
        (["--init"], "init", True),
        (["--init=1"], "init", True),
        (["--mtu=1400"], "mtu", 1400),
        (["--default-shm-size", "128m"], "default_shm_size_bytes", 128 << 20),
        (["--label", "a=b", "--label=c=d=e"], "labels", ("a=b", "c=d=e")),
        (["--dns=8.8.8.8", "--dns", "::1"], "dns", ("8.8.8.8", "::1")),
        (["--log-opt=max-size=1m", "--log-opt=max-file=3"], "log_opts",
         {"max-size": "1m", "max-file": "3"}),
        (["--default-ulimit=nofile=10:20", "--default-ulimit=core=0"], "default_ulimits",
         {"nofile": Ulimit(name="nofile", soft=10, hard=20),
          "core": Ulimit(name="core", soft=0, hard=0)}),
        (["--default-ulimit=memlock=-1"], "default_ulimits",
         {"memlock": Ulimit(name="memlock", soft=-1, hard=-1)}),
        (["--default-address-pool", "base=10.10.0.0/16,size=24",
          "--default-address-pool", "base=fd00::/48,size=64"], "default_address_pools",
         (AddressPool("10.10.0.0/16", 24), AddressPool("fd00::/48", 64))),
        (["--add-runtime=mine=/usr/bin/mine", "--default-runtime=mine"], "default_runtime", "mine"),
        (["--registry-mirror=https://m.example.org"], "registry_mirrors",
         ("https://m.example.org/",)),
        (["--insecure-registry=10.0.0.0/8", "--insecure-registry=r.test:5000"],
         "insecure_registries", ("10.0.0.0/8", "r.test:5000")),
        (["--bip=192.168.5.1/24", "--fixed-cidr=192.168.5.128/25"], "bip", "192.168.5.1/24"),
        (["--host-gateway-ip=10.1.1.1"], "host_gateway_ips", ("10.1.1.1",)),
        (["--seccomp-profile=unconfined"], "seccomp_profile", "unconfined"),
        (["-H", "unix:///a.sock", "-H", "unix:///a.sock", "-Hfd://*"], "hosts",
         (Host("unix", "/a.sock"), Host("fd", ""))),
        (["-H", "unix://"], "hosts", (Host("unix", "/run/teu.sock"),)),
        (["-H", "tcp://10.0.0.1"], "hosts", (Host("tcp", "10.0.0.1:2375"),)),
        (["-H", ":4000"], "hosts", (Host("tcp", "127.0.0.1:4000"),)),
        (["-H", "tcp://[::1]:80"], "hosts", (Host("tcp", "[::1]:80"),)),
        (["--tlsverify", "-H", "tcp://0.0.0.0"], "hosts", (Host("tcp", "0.0.0.0:2376"),)),
        (["-H", ""], "hosts", ()),
        (["--storage-driver=overlay2"], "hosts", ()),
        (["-s", "overlay2", "--selinux-enabled=false", "--cpu-rt-period=0"], "hosts", ()),
        (["--tls"], "tls", TlsMode.MUTUAL),
        (["--tls=false"], "tls", TlsMode.OFF),
        (["--tlsverify"], "tls", TlsMode.MUTUAL),
        (["--tls", "--tlsverify=false"], "tls", TlsMode.SERVER),
        (["--tls=false", "--tlsverify"], "tls", TlsMode.MUTUAL),
        ([], "tls", TlsMode.UNSAID),
    ],
)  # fmt: skip
def test_flags(file: Path, flags: list[str], field: str, value: object) -> None:
    assert getattr(configure(file, None, *flags), field) == value


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--foo"], "unknown flag: --foo\nSee 'teud --help'."),
        (["--data-rot=/x"], "unknown flag: --data-rot (is it --data-root?)"),
        (["--labels=a=b"], "unknown flag: --labels (is it --label?)"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-Dx"], "unknown shorthand flag: 'x' in -Dx"),
        (["serve"], '"teud" accepts no arguments: serve'),
        (["--", "serve"], '"teud" accepts no arguments: --'),
        (["-"], '"teud" accepts no arguments: -'),
        (["--mtu"], "flag needs an argument: --mtu"),
        (["-H"], "flag needs an argument: 'H' in -H"),
        (["-DH"], "flag needs an argument: 'H' in -DH"),
        (["--mtu=big"], 'invalid argument "big" for "--mtu" flag: parsing "big": expected a whole'),
        (["--mtu=-1"], "invalid default MTU: -1"),
        (["--mtu=70000"], "invalid default MTU: 70000"),
        (["--icc=maybe"], 'invalid argument "maybe" for "--icc" flag: parsing "maybe"'),
        (["-l", "loud"], 'for "-l, --log-level" flag: invalid logging level: loud'),
        (["--log-format=xml"], '"text" or "json"'),
        (["--data-root=here"], '"here" is not an absolute path'),
        (["--config-file=daemon.json"], "is not an absolute path"),
        (["-H", "ftp://x"], "invalid bind address (ftp://x): unsupported proto 'ftp'"),
        (["-H", "tcp://a/b"], "should not contain a path element"),
        (["-H", "tcp://a:0"], "invalid port: 0"),
        (["-H", "tcp://a:99999"], "invalid port: 99999"),
        (["-H", "tcp://a:b"], "expected tcp://HOST:PORT"),
        (["-H", "tcp://::1:80"], "expected tcp://HOST:PORT"),
        (["-H", "unix://a.sock"], "the path must be absolute"),
        (["-H", "fd://x"], "should be a number: x"),
        (["--dns=example.org"], "example.org is not an ip address"),
        (["--dns-search=a b"], "a b is not a valid domain"),
        (["--label=x"], "bad attribute format: x"),
        (["--label==x"], "bad attribute format: =x"),
        (["--log-opt=max-size"], "max-size must be written key=value"),
        (["--ip=::1"], "::1 is not an IPv4 address"),
        (["--bip=192.168.5.0/24"], "does not name the bridge's own address"),
        (["--bip=192.168.5.1"], "does not name the bridge's own address"),
        (["--bip=192.168.5.1/33"], "invalid CIDR address"),
        (["--fixed-cidr=10.0.0.1/8"], "is not an IPv4 subnet"),
        (["--bridge=averylonginterface"], "is not the name of a network interface"),
        (["--default-ulimit=nofile"], "invalid ulimit argument: nofile"),
        (["--default-ulimit=nofile=x"], "expected whole numbers"),
        (["--default-ulimit=files=1"], "invalid ulimit type: files"),
        (["--default-ulimit=core=2:1"], "soft limit must be less than or equal to hard limit"),
        (["--default-ulimit=core=-1:1"], "soft limit must be less than or equal to hard limit"),
        (["--default-shm-size=0"], "0 is not a size above zero"),
        (["--default-shm-size=lots"], "invalid size: 'lots'"),
        (["--default-address-pool=10.0.0.0/8"], "must be a key=value pair"),
        (["--default-address-pool=base=10.0.0.0/8,size=4"], "size must be from 8 to 32"),
        (["--default-address-pool=base=10.0.0.0/8"], "size must be from 8 to 32"),
        (["--default-address-pool=base=x,size=4"], 'invalid base prefix "x"'),
        (["--default-address-pool=base=10.0.0.0/8,size=a"], "must be integer"),
        (["--default-address-pool=bas=10.0.0.0/8"], "unexpected key 'bas'"),
        (["--add-runtime=x"], "invalid runtime argument: x"),
        (["--registry-mirror=m.example.org"], "is not an http:// or https:// address"),
        (["--registry-mirror=https://u:p@m"], "no credentials"),
        (["--insecure-registry=http://r"], "should not contain '://'"),
        (["--insecure-registry=10.0.0.0/99"], "neither host:port nor a subnet"),
        (["--insecure-registry=r test"], "is not valid"),
        (["--seccomp-profile=mine.json"], "is not an absolute path"),
        (["--default-ipc-mode=host"], '"private" or "shareable"'),
        (["--oom-score-adjust=2000"], "expected -1000 to 1000"),
        (["--max-concurrent-downloads=0"], "expected 1 to 1000"),
        (["--shutdown-timeout=-1"], "expected 0 to"),
    ],
)  # fmt: skip
def test_bad_flags(file: Path, words: list[str], text: str) -> None:
    assert text in refusal(file, None, *words)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["--storage-driver=btrfs"],
            "storage-driver is not supported: layers are always overlayfs",
        ),
        (["--userns-remap=default"], "userns-remap is not supported"),
        (["--authorization-plugin=opa"], "requests would not be authorized"),
        (["--selinux-enabled"], "selinux-enabled is not supported"),
        (["--rootless"], "run teud as root"),
        (["--bip6", "fd00::/64"], "own address and prefix"),
        (["-g", "/var/lib/docker"], "graph is not supported: it was renamed to data-root"),
        (["--bip=10.0.0.1/24", "-b", "br0"], "You specified -b & --bip, mutually exclusive"),
        (["--iptables=false", "--icc=false"], "You specified --iptables=false with --icc=false"),
        (["--bip=10.0.0.1/24", "--fixed-cidr=10.1.0.0/24"], "is not part of bip's subnet"),
        (["--default-gateway=10.1.0.1"], "the bridge's own address is the gateway"),
        (["--default-runtime=mine"], "specified default runtime 'mine' does not exist"),
        (["--add-runtime=runc=/bin/x"], "runtime name 'runc' is reserved"),
        (["--data-root=/x", "--exec-root=/x"], "they must differ"),
        (["--label=a=1", "--label=a=2"], "conflict labels for a=2 and a=1"),
    ],
)
def test_options_that_cannot_be(file: Path, words: list[str], text: str) -> None:
    assert text in refusal(file, None, *words)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("{", "invalid JSON: "),
        ("[]", "expected an object {…} of options"),
        ('{"mtu": 1, "mtu": 2}', 'the key "mtu" is there twice'),
        ({"mtux": 1}, "don't match any configuration option: mtux (is it mtu?)"),
        ({"zzz": 1, "aaa": 2}, "any configuration option: aaa, zzz"),
        ({"label": ["a=b"]}, "label (in the file it is labels)"),
        ({"mtu": "1500"}, "mtu: expected a whole number (without quotes), not '1500'"),
        ({"mtu": True}, "mtu: expected a whole number (without quotes), not true or false"),
        ({"mtu": 1.5}, "mtu: expected a whole number"),
        ({"debug": "true"}, "debug: expected true or false (without quotes), not 'true'"),
        ({"debug": 1}, "debug: expected true or false"),
        ({"hosts": "unix:///x"}, "hosts: expected a list of texts, not 'unix:///x'"),
        ({"hosts": [1]}, "hosts: expected a text in quotes, not 1"),
        ({"data-root": ["/x"]}, "data-root: expected a text in quotes, not a list"),
        ({"log-opts": {"max-size": 10}}, "log-opts: expected a text in quotes, not 10"),
        ({"log-opts": ["max-size=10"]}, "log-opts: expected an object {…}, not a list"),
        ({"default-ulimits": {"nofile": 1}}, "default-ulimits: expected an object"),
        ({"default-ulimits": {"nofile": {"Sof": 1}}}, "unknown key Sof"),
        ({"default-ulimits": {"nofile": {"Soft": "1"}}}, "must be whole numbers"),
        ({"default-address-pools": {}, "default-shm-size": False}, "default-shm-size: expected a"),
        ({"default-address-pools": "x"}, 'expected a list of {"base"'),
        ({"runtimes": {"x": {}}}, "runtime 'x' has no path"),
        ({"runtimes": {"x": {"runtimeType": "io.containerd.x.v1"}}}, "containerd shims"),
        ({"runtimes": {"x": {"path": "/x", "args": []}}}, "unknown key args"),
        ({"runtimes": {"a b": {"path": "/x"}}}, "has other characters"),
        ({"host-gateway-ip": "x"}, "host-gateway-ips: x is not an ip address"),
        ({"host-gateway-ip": "1.1.1.1", "host-gateway-ips": ["1.1.1.1"]}, "must not both be"),
        ({"proxies": "http://x"}, "proxies: expected an object"),
    ],
)  # fmt: skip
def test_bad_files(file: Path, written: object, text: str) -> None:
    message = refusal(file, written)
    assert text in message
    assert message.startswith(f"unable to configure the daemon with file {file}: ")


def test_values_that_are_not_supported_name_the_file(file: Path) -> None:
    assert f"(from {file} and the command line)" in refusal(file, {"userns-remap": "default"})


def test_a_file_that_was_asked_for_must_exist(file: Path) -> None:
    message = refusal(file, None, "--config-file", str(file))
    assert message.endswith(f"with file {file}: open {file}: no such file or directory")


def test_unreadable_files(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"\xff\xfe{")
    assert "it is not UTF-8 text" in refusal(file, None, "--config-file", str(file))
    assert "is a directory" in refusal(file, None, "--config-file", str(tmp_path))


@pytest.mark.parametrize("text", ["", "  \n", "{}", "\ufeff{}"])
def test_empty_files(file: Path, text: str) -> None:
    assert configure(file, text) == DaemonConfig()


def test_option_in_file_and_as_flag_is_refused_with_dockers_text(file: Path) -> None:
    written = {"labels": ["a=b"], "mtu": 1500, "debug": False, "log-opts": {"max-size": "1m"}}
    flags = ("--label", "c=d", "--mtu", "1400", "-D", "--log-opt", "max-file=2")
    assert refusal(file, written, *flags) == (
        f"unable to configure the daemon with file {file}: the following directives are specified "
        "both as a flag and in the configuration file: debug: (from flag: true, from file: false), "
        "labels: (from flag: [c=d], from file: [a=b]), log-opts: (from flag: map[max-file:2], "
        "from file: map[max-size:1m]), mtu: (from flag: 1400, from file: 1500)"
    )


def test_runtimes_of_file_and_flags_merge(file: Path) -> None:
    config = configure(file, {"runtimes": {"a": {"path": "/a"}}}, "--add-runtime=b=/b")
    assert config.runtimes == {"a": RuntimeEntry("/a"), "b": RuntimeEntry("/b")}


def test_environment(file: Path) -> None:
    env = {"HTTPS_PROXY": "http://p:1", "no_proxy": "x"}
    config = configure(file, {"proxies": {"no-proxy": "file wins"}}, env=env)
    assert (config.https_proxy, config.no_proxy) == ("http://p:1", "file wins")
    secure = configure(file, env={"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/c"})
    assert (secure.tls, secure.tlskey) == (TlsMode.MUTUAL, Path("/c/key.pem"))


def test_called_dockerd_it_is_where_scripts_look() -> None:
    assert program_for("/usr/bin/dockerd") is DOCKERD
    assert program_for("/usr/local/bin/teud") is TEUD
    config = load(parse(["-H", "unix://"], DOCKERD), DOCKERD, {}).config
    assert config.hosts == (Host("unix", "/var/run/docker.sock"),)
    assert config.pidfile == Path("/var/run/docker.pid")
    assert config.data_root == Path("/var/lib/teu")


def test_table_of_options_is_sound() -> None:
    assert len(BY_KEY) == len(OPTIONS)
    flags = [option.long for option in OPTIONS if option.long]
    shorts = [option.short for option in OPTIONS if option.short]
    assert len(set(flags)) == len(flags)
    assert len(set(shorts)) == len(shorts)
    for option in OPTIONS:
        assert bool(option.why) == (option.state is not State.USED), option.key
        if option.state is State.USED:
            assert hasattr(DaemonConfig(), option.target), option.key
    filled = {option.target for option in OPTIONS if option.state is State.USED}
    assert filled == set(DaemonConfig.__struct_fields__)


def test_help_names_every_flag_that_is_used() -> None:
    text = help_text(TEUD)
    for option in OPTIONS:
        shown = f"--{option.long} " in text or f"--{option.long}\n" in text
        assert shown == (option.state is State.USED and bool(option.long)), option.key
    assert max(map(len, text.splitlines())) <= 100
    assert "/var/run/docker.sock" in help_text(DOCKERD)


def test_reload_takes_only_what_can_change(file: Path) -> None:
    old = configure(file, {"labels": ["a=b"], "mtu": 1500, "log-level": "error"})
    new = configure(file, {"labels": ["c=d"], "mtu": 1400, "debug": True})
    change = reloaded(old, new)
    assert change.changed == ("debug", "log-level", "labels")
    assert change.waiting == ("mtu",)
    assert (change.config.labels, change.config.mtu) == (("c=d",), 1500)
    assert change.config.log_level == "debug"
    assert reloaded(old, old).changed == ()
