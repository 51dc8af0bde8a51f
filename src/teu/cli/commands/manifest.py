"""`manifest create`, `annotate`, `inspect`, `push`, `rm`.

Lists are kept by the client until they are pushed; registries are asked through the daemon, which
knows how to reach them.
"""

from __future__ import annotations

import base64
import json

from teu.cli.client import DaemonError
from teu.cli.credentials import registry_auth
from teu.cli.grammar import Command, Flag
from teu.cli.manifests import ManifestLists
from teu.cli.session import Failure
from teu.cli.transfer import image_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from teu.cli.grammar import Options
    from teu.cli.imagename import ImageName
    from teu.cli.manifests import Entry
    from teu.cli.session import Session

_OCI_INDEX = "application/vnd.oci.image.index.v1+json"
_DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
# Which `--os` and `--arch` go together. Source: docker/cli `manifest/util.go`.
_ARCHITECTURES = {
    "aix": "ppc64", "android": "386 amd64 arm arm64", "darwin": "386 amd64 arm arm64",
    "dragonfly": "amd64", "freebsd": "386 amd64 arm", "illumos": "amd64", "ios": "arm64",
    "js": "wasm", "linux": "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64le "
    "riscv64 s390x", "netbsd": "386 amd64 arm", "openbsd": "386 amd64 arm",
    "plan9": "386 amd64", "solaris": "amd64", "wasip1": "wasm", "windows": "386 amd64 arm arm64",
}  # fmt: skip


def create(session: Session, options: Options, names: list[str]) -> int:
    """Keeps a new list of manifests that registries have."""
    lists = ManifestLists(session.config)
    target = image_name(names[0]).with_default_tag()
    if lists.exists(target) and not options.flag("amend"):
        raise Failure("refusing to amend an existing manifest list with no --amend flag")
    members = [image_name(name).with_default_tag() for name in names[1:]]
    fetched = [(member, _fetch_one(session, member)) for member in members]
    for member, entry in fetched:
        lists.save(target, member, entry)
    session.out(f"Created manifest list {target.full}\n")
    return 0


def annotate(session: Session, options: Options, names: list[str]) -> int:
    """Says for which platform a member of a list is."""
    lists = ManifestLists(session.config)
    target, member = (image_name(name).with_default_tag() for name in names)
    entry = lists.find(target, member)
    if entry is None:
        raise Failure(f"manifest for image {member.full} does not exist in {target.full}")
    platform = entry["Descriptor"].setdefault("platform", {})
    for flag, field in (("os", "os"), ("arch", "architecture"), ("variant", "variant"),
                        ("os-version", "os.version")):  # fmt: skip
        if text := options.text(flag):
            platform[field] = text
    if texts := options.texts("os-features"):
        features = [part for text in texts for part in text.split(",")]
        known = platform.get("os.features") or []
        platform["os.features"] = list(dict.fromkeys([*known, *features]))
    _check_platform(platform, member)
    lists.save(target, member, entry)
    return 0


def inspect(session: Session, options: Options, names: list[str]) -> int:
    """A member of a list, a list, or what a registry has under a name."""
    lists = ManifestLists(session.config)
    name = image_name(names[-1]).with_default_tag()
    verbose = options.flag("verbose")
    if len(names) > 1:
        target = image_name(names[0]).with_default_tag()
        entry = lists.find(target, name)
        if entry is None:
            raise Failure(f"No such manifest: {name.full}")
        _show(session, entry, verbose)
    elif lists.exists(name):
        entries = lists.entries(name)
        _print(session, entries if verbose else _list_document(entries), verbose)
    else:
        _inspect_remote(session, name, verbose)
    return 0


def _inspect_remote(session: Session, name: ImageName, verbose: bool) -> None:
    entry = _fetch(session, name)
    document = _document(entry)
    if not _is_list(document):
        _show(session, entry, verbose)
        return
    if verbose:
        members = []
        for descriptor in document["manifests"]:
            member = _fetch(session, image_name(f"{name.repository}@{descriptor['digest']}"))
            member["Ref"] = f"{name.full}@{descriptor['digest']}"
            member["Descriptor"] = descriptor
            members.append(member)
        _print(session, members, True)
        return
    _print(session, document, False)


def push(session: Session, options: Options, names: list[str]) -> int:
    """Sends a list; the registry must have its members, in this or another repository."""
    lists = ManifestLists(session.config)
    target = image_name(names[0]).with_default_tag()
    entries = lists.entries(target)
    sources = []
    for entry in entries:
        member = image_name(entry["Ref"])
        if member.domain != target.domain:
            raise Failure(
                "cannot use source images from a different registry than the target image: "
                f"{member.domain} != {target.domain}"
            )
        _check_platform(entry["Descriptor"].get("platform") or {}, member)
        sources.append(f"{member.repository}@{entry['Descriptor']['digest']}")
    raw = _text(_list_document(entries), False).encode()
    answer = session.client.finish_json(
        session.client.request(
            "POST",
            f"/distribution/{target.full}/manifest",
            body={"Raw": base64.b64encode(raw).decode(), "Sources": sources},
            headers={"X-Registry-Auth": registry_auth(session.config, target.domain)},
        )
    )
    for entry in entries:
        digest = entry["Descriptor"]["digest"]
        session.out(f"Pushed ref {target.repository}@{digest} with digest: {digest}\n")
    session.out(f"{answer['Digest']}\n")
    if options.flag("purge"):
        lists.remove(target)
    return 0


def remove(session: Session, _options: Options, names: list[str]) -> int:
    """Forgets lists. What was pushed stays."""
    lists = ManifestLists(session.config)
    problems = []
    for name in names:
        try:
            lists.remove(image_name(name).with_default_tag())
        except Failure as failure:
            problems.append(str(failure))
    if problems:
        raise Failure("\n".join(problems))
    return 0


# --- what registries have -----------------------------------------------------------------


def _fetch(session: Session, name: ImageName) -> Entry:
    """A manifest with its descriptor, in the shape of the client's files."""
    headers = {"X-Registry-Auth": registry_auth(session.config, name.domain)}
    client = session.client
    try:
        response = client.request("GET", f"/distribution/{name.full}/manifest", headers=headers)
    except DaemonError as error:
        if error.is_missing and "page not found" not in error.reason:
            raise Failure(f"no such manifest: {name.full}") from error
        raise
    found = client.finish_json(response)
    entry: Entry = {
        "Ref": found["Ref"],
        "Descriptor": _in_order(found["Descriptor"]),
        "Raw": found["Raw"],
    }
    document = _document(entry)
    if not _is_list(document):
        is_oci = entry["Descriptor"]["mediaType"] == _OCI_MANIFEST
        entry["OCIManifest" if is_oci else "SchemaV2Manifest"] = document
    return entry


def _fetch_one(session: Session, name: ImageName) -> Entry:
    entry = _fetch(session, name)
    if _is_list(_document(entry)):
        raise Failure(f"{name.full} is a manifest list")
    return entry


def _document(entry: Entry) -> dict[str, Any]:
    try:
        document = json.loads(base64.b64decode(entry["Raw"]))
    except (ValueError, KeyError) as error:
        raise Failure(f"the manifest of {entry.get('Ref')} cannot be read: {error}") from error
    return document if isinstance(document, dict) else {}


def _is_list(document: dict[str, Any]) -> bool:
    return "manifests" in document and "layers" not in document


# --- documents ----------------------------------------------------------------------------


def _in_order(descriptor: dict[str, Any]) -> dict[str, Any]:
    order = ("mediaType", "digest", "size", "platform")
    return {key: descriptor[key] for key in order if key in descriptor}


def _list_document(entries: list[Entry]) -> dict[str, Any]:
    """Docker's list, unless a member is OCI's. Written like this, digests equal Docker's."""
    kinds = [entry["Descriptor"]["mediaType"] for entry in entries]
    members = []
    for entry in entries:
        descriptor = entry["Descriptor"]
        order = ("mediaType", "size", "digest", "platform")
        member = {key: descriptor[key] for key in order if key in descriptor}
        if "platform" in member:
            member["platform"] = _platform_in_order(member["platform"])
        members.append(member)
    media_type = _OCI_INDEX if _OCI_MANIFEST in kinds else _DOCKER_LIST
    return {"schemaVersion": 2, "mediaType": media_type, "manifests": members}


def _platform_in_order(platform: dict[str, Any]) -> dict[str, Any]:
    order = ("architecture", "os", "os.version", "os.features", "variant")
    return {key: platform[key] for key in order if platform.get(key)}


def _check_platform(platform: dict[str, Any], member: ImageName) -> None:
    """Raises: Failure."""
    system, architecture = platform.get("os", ""), platform.get("architecture", "")
    if architecture not in _ARCHITECTURES.get(system, "").split():
        raise Failure(
            f"manifest entry for image has unsupported os/arch combination: "
            f"{system}/{architecture} (annotate {member.familiar} with --os and --arch)"
        )


def _show(session: Session, entry: Entry, verbose: bool) -> None:
    _print(session, entry if verbose else _document(entry), True)


def _print(session: Session, value: Any, with_tabs: bool) -> None:
    session.out(_text(value, with_tabs) + "\n")


def _text(value: Any, with_tabs: bool) -> str:
    """Indented as Docker does: lists with three blanks, all else with tabs."""
    return json.dumps(value, indent="\t" if with_tabs else 3, ensure_ascii=False)


_INSECURE = Flag("insecure", "", "bool", "Accepted; insecure-registries of the daemon decides")
COMMANDS = {
    "manifest annotate": Command(
        annotate,
        "[OPTIONS] MANIFEST_LIST MANIFEST",
        args=(2, 2),
        flags=(
            Flag("arch", "", "string", "Architecture"),
            Flag("os", "", "string", "Operating system"),
            Flag("os-features", "", "list", "Features of the operating system"),
            Flag("os-version", "", "string", "Version of the operating system"),
            Flag("variant", "", "string", "Variant of the architecture"),
        ),
    ),
    "manifest create": Command(
        create,
        "MANIFEST_LIST MANIFEST [MANIFEST...]",
        args=(2, None),
        flags=(
            Flag("amend", "a", "bool", "Add to a list that is there"),
            _INSECURE,
        ),
    ),
    "manifest inspect": Command(
        inspect,
        "[OPTIONS] [MANIFEST_LIST] MANIFEST",
        args=(1, 2),
        flags=(
            _INSECURE,
            Flag("verbose", "v", "bool", "Show descriptors and platforms, too"),
        ),
    ),
    "manifest push": Command(
        push,
        "[OPTIONS] MANIFEST_LIST",
        args=(1, 1),
        flags=(
            _INSECURE,
            Flag("purge", "p", "bool", "Forget the list afterwards"),
        ),
    ),
    "manifest rm": Command(remove, "MANIFEST_LIST [MANIFEST_LIST...]", args=(1, None)),
}
