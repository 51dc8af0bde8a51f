"""The images of the labs, made from nothing but Debian packages, as `docker load` archives.

`busybox`, `clock` and `hello-world` are the host's static busybox; `base` (tagged `ubuntu` and
`debian` by the registry) is a debootstrap; `nginx` is that with nginx installed by apt.
"""

import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.cache import built, command

BUSYBOX = Path("/bin/busybox")
MIRROR = "http://deb.debian.org/debian"
_TRIM = (
    "usr/share/doc usr/share/man usr/share/locale usr/share/info var/cache/apt var/lib/apt/lists"
)
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CLOCK = """\
trap 'exit 0' INT TERM
i=0
while :; do
  i=$((i + 1))
  echo "tick $i $(date +%T)"
  sleep 0.1
done
"""
POSTGRES = """\
set -e
data=/var/lib/postgresql/data
programs=$(echo /usr/lib/postgresql/*/bin)
user=${POSTGRES_USER:-postgres}
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
install -d -o postgres -g postgres -m 700 $data /run/postgresql
if [ ! -s $data/PG_VERSION ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password && chmod 644 /tmp/password
    as_postgres $programs/initdb -D $data -U "$user" --pwfile=/tmp/password -A scram-sha-256
    rm /tmp/password
    echo "host all all all scram-sha-256" >> $data/pg_hba.conf
    sed -i "s/^local.*/local all all trust/" $data/pg_hba.conf
    as_postgres $programs/pg_ctl -D $data -w -o "-c listen_addresses=" start
    [ "${POSTGRES_DB:-$user}" = postgres ] || $programs/createdb -U "$user" "${POSTGRES_DB:-$user}"
    as_postgres $programs/pg_ctl -D $data -m fast -w stop
fi
exec setpriv --reuid postgres --regid postgres --clear-groups \\
    $programs/postgres -D $data -c "listen_addresses=*"
"""
HELLO = """\

Hello from Docker!
This message shows that your installation appears to be working correctly.

"""


@dataclass(frozen=True)
class Layer:
    """One uncompressed layer tar."""

    path: Path
    diff_id: str  # sha256:…


@dataclass(frozen=True)
class Image:
    """A docker-archive with one image named `NAME:latest`."""

    name: str
    archive: Path
    layers: list[Layer]
    config: dict[str, Any] = field(hash=False)


# --- the images -----------------------------------------------------------------------------


@cache
def busybox() -> Image:
    return _image("busybox", [_busybox_layer()], {"Cmd": ["sh"], "Env": ["PATH=/bin:/sbin"]})


@cache
def alpine() -> Image:
    """Busybox with what clients' own tests expect of the image of that name."""
    users = b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/home:/bin/sh\n"
    extra = _files_layer(
        "alpinefiles",
        {
            "etc/passwd": users + b"postgres:x:70:70::/var/lib/postgresql:/bin/sh\n",
            "etc/alpine-release": b"3.10.0\n",
            "var/opt/.keep": b"",
        },
    )
    config = {"Cmd": ["/bin/sh"], "Env": [_PATH]}
    return _image("alpine", [_busybox_layer(), extra], config)


@cache
def clock() -> Image:
    extra = _files_layer("clockfile", {"clock.sh": CLOCK.encode()})
    config = {"Cmd": ["/bin/sh", "/clock.sh"], "Env": ["PATH=/bin:/sbin"]}
    return _image("clock", [_busybox_layer(), extra], config)


@cache
def hello_world() -> Image:
    extra = _files_layer("hellofile", {"hello.txt": HELLO.encode()})
    config = {"Cmd": ["/bin/cat", "/hello.txt"], "Env": ["PATH=/bin:/sbin"]}
    return _image("hello-world", [_busybox_layer(), extra], config)


@cache
def base() -> Image:
    return _image("base", [_base_layer()], {"Cmd": ["/bin/bash"], "Env": [_PATH]})


@cache
def nginx() -> Image:
    config = {
        "Cmd": ["nginx", "-g", "daemon off;"],
        "Env": [_PATH, "NGINX_VERSION=debian"],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    }
    return _image("nginx", [_base_layer(), _nginx_layer()], config)


@cache
def postgresql() -> Image:
    """Its cluster is in the volume /data; made there by the first start."""
    path = f"{_PATH}:/usr/lib/postgresql/15/bin"
    config = {
        "Cmd": ["sh", "-c", _START_POSTGRESQL],
        "Env": [path, "PGDATA=/data", "LC_ALL=C.UTF-8"],
        "User": "postgres",
        "Volumes": {"/data": {}},
        "StopSignal": "SIGINT",
    }
    return _image(
        "postgresql", [_base_layer(), _apt_layer("postgresql", _INSTALL_POSTGRESQL)], config
    )


@cache
def postgres() -> Image:
    """PostgreSQL, set up at the first start by the variables of Docker Hub's image of that name."""
    script = _files_layer("postgresfiles", {"start.sh": POSTGRES.encode()})
    config = {
        "Cmd": ["/bin/sh", "/start.sh"],
        "Env": [_PATH],
        "ExposedPorts": {"5432/tcp": {}},
        "Volumes": {"/var/lib/postgresql/data": {}},
        "StopSignal": "SIGINT",
    }
    return _image(
        "postgres", [_base_layer(), _apt_layer("postgresql", _INSTALL_POSTGRESQL), script], config
    )


# --- their layers ---------------------------------------------------------------------------


@cache
def _busybox_layer() -> Layer:
    def build(work: Path) -> None:
        applets = command(BUSYBOX, "--list").split()
        with tarfile.open(work / "layer.tar", "w") as tar:
            for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var"):
                _add_directory(tar, name, 0o1777 if name == "tmp" else 0o755)
            _add_file(
                tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/home:/bin/sh\n"
            )
            _add_file(tar, "etc/group", b"root:x:0:\nwww:x:33:\nextra:x:44:www\n")
            _add_file(tar, "bin/busybox", BUSYBOX.read_bytes(), 0o755)
            for applet in sorted(set(applets) - {"busybox"}):
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)

    return _layer(built("busyboxlayer", f"1 {BUSYBOX.stat().st_size}", build))


def _files_layer(name: str, files: dict[str, bytes]) -> Layer:
    def build(work: Path) -> None:
        with tarfile.open(work / "layer.tar", "w") as tar:
            for path, data in files.items():
                _add_file(tar, path, data)

    return _layer(built(name, repr(files), build))


def _base_tree() -> Path:
    def build(work: Path) -> None:
        root = work / "root"
        include = "--include=procps,ca-certificates,curl"
        command("debootstrap", "--variant=minbase", include, "bookworm", root, MIRROR)
        _trim(root)
        (root / "etc/resolv.conf").write_text("")
        (root / "etc/hostname").write_text("")

    return built("basetree", "1 bookworm procps ca-certificates curl", build) / "root"


@cache
def _base_layer() -> Layer:
    tree = _base_tree()
    return _layer(built("baselayer", _key(tree), lambda work: _pack(tree, work / "layer.tar")))


def _key(tree: Path) -> str:
    """What a recipe that uses the tree depends on: its recipe, not where the cache is."""
    return tree.parent.name


_INSTALL_NGINX = """
set -e
mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {merged}
cp -L /etc/resolv.conf {merged}/etc/resolv.conf
chroot {merged} sh -ec '
  apt-get update -q
  apt-get install -qy --no-install-recommends nginx-light
  ln -sf /dev/stdout /var/log/nginx/access.log
  ln -sf /dev/stderr /var/log/nginx/error.log
  sed -i "s/^worker_processes.*/worker_processes 1;/" /etc/nginx/nginx.conf
'
: > {merged}/etc/resolv.conf
"""
_INSTALL_POSTGRESQL = """
set -e
mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {merged}
cp -L /etc/resolv.conf {merged}/etc/resolv.conf
chroot {merged} sh -ec '
  mkdir -p /etc/postgresql-common
  echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf
  apt-get update -q
  apt-get install -qy --no-install-recommends postgresql-15
  rm -rf /usr/lib/postgresql/15/lib/bitcode /usr/lib/x86_64-linux-gnu/libLLVM*
  install -d -o postgres -g postgres -m 700 /data
'
: > {merged}/etc/resolv.conf
"""
_START_POSTGRESQL = """\
[ -s "$PGDATA/PG_VERSION" ] || initdb --auth=trust --no-instructions >/dev/null
exec postgres -c listen_addresses=
"""


@cache
def _nginx_layer() -> Layer:
    return _apt_layer("nginx", _INSTALL_NGINX)


def _apt_layer(name: str, script: str) -> Layer:
    """What the script changes in the base image. It runs over an overlay in a mount namespace of
    its own: nothing stays mounted."""
    lower = _base_tree()

    def build(work: Path) -> None:
        places = {name: work / name for name in ("upper", "work", "merged")}
        for place in places.values():
            place.mkdir()
        whole = script.format(lower=lower, **places)
        command("unshare", "--mount", "--propagation", "private", "sh", "-c", whole)
        _trim(places["upper"])
        _pack(places["upper"], work / "layer.tar")
        for place in places.values():
            shutil.rmtree(place)

    return _layer(built(f"{name}layer", f"1 {_key(lower)} {script}", build))


# --- tar and JSON ---------------------------------------------------------------------------


def _layer(directory: Path) -> Layer:
    path, note = directory / "layer.tar", directory / "diff_id"
    if not note.exists():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        scratch = directory / f"diff_id.{os.getpid()}"
        scratch.write_text(f"sha256:{digest}")
        scratch.rename(note)
    return Layer(path, note.read_text())


def _image(name: str, layers: list[Layer], config: dict[str, Any]) -> Image:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created_by": f"layer {number}"} for number in range(len(layers))],
    }
    recipe = json.dumps(document)
    made = built(
        f"{name}image", recipe, lambda work: write_archive(work / "i.tar", name, layers, document)
    )
    return Image(name, made / "i.tar", layers, document)


def write_archive(path: Path, name: str, layers: list[Layer], document: dict[str, Any]) -> None:
    """Writes what `docker save NAME` would."""
    config = json.dumps(document).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    names = [layer.diff_id.removeprefix("sha256:") + "/layer.tar" for layer in layers]
    manifest = [{"Config": config_name, "RepoTags": [f"{name}:latest"], "Layers": names}]
    with tarfile.open(path, "w") as tar:
        _add_file(tar, config_name, config)
        for layer, entry in zip(layers, names, strict=True):
            tar.add(layer.path, entry)
        _add_file(tar, "manifest.json", json.dumps(manifest).encode())


def _pack(root: Path, path: Path) -> None:
    """Tars a tree; overlay's whiteouts (device 0:0) become the image format's."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for found in sorted(root.rglob("*")):
            name = str(found.relative_to(root))
            info = found.lstat()
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                parent, _, leaf = name.rpartition("/")
                _add_file(tar, f"{parent}/.wh.{leaf}".lstrip("/"), b"")
            elif not stat.S_ISSOCK(info.st_mode):
                tar.add(found, name, recursive=False)


def _trim(root: Path) -> None:
    for name in _TRIM.split():
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial"):
        (root / name).mkdir(parents=True, exist_ok=True)


def _add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    tar.addfile(info, io.BytesIO(data))


def _add_directory(tar: tarfile.TarFile, name: str, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    tar.addfile(info)
