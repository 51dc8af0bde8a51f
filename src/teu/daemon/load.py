"""Command line and configuration file to one `DaemonConfig`; and what a reload may change.

The same rules as dockerd's: an option is given in the file or as a flag, not both (except
`runtimes`, which merge), an unknown key stops the start, and an empty value (`""`, `[]`, `{}`) is
the default. Messages start with what is wrong and where; the texts that dockerd has are dockerd's.
"""

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from teu.daemon.commandline import CommandLine, Program
from teu.daemon.config import DaemonConfig, Host, TlsMode
from teu.daemon.consistency import check_together
from teu.daemon.options import BY_KEY, GROUPS, OLD_KEYS, OPTIONS, Option, State
from teu.errors import InvalidParameter

_ENVIRONMENT = {
    "HTTP_PROXY": "http-proxy",
    "HTTPS_PROXY": "https-proxy",
    "NO_PROXY": "no-proxy",
}
_MERGED = {"runtimes"}
_OFF: tuple[object, ...] = (None, "", 0, False, (), [], {}, "0", "false")


class BadConfiguration(InvalidParameter):
    """The daemon cannot start (or reload) with these options."""


@dataclass(frozen=True)
class Loaded:
    """`notes` are for the log: options that were accepted but have no effect."""

    config: DaemonConfig
    notes: tuple[str, ...]


def load(line: CommandLine, program: Program, environ: Mapping[str, str]) -> Loaded:
    """The configuration, complete and checked.

    Raises: BadConfiguration: names the file and key, or the flag, and the reason.
    """
    path = line.config_file or program.config_file
    written = _read(path, must_exist=line.config_file is not None)
    try:
        from_file = _file_values(written)
        _refuse_conflicts(line, written)
    except ValueError as error:
        raise BadConfiguration(
            f"unable to configure the daemon with file {path}: {error}"
        ) from None
    try:
        asked = _environment(environ) | from_file | line.values
        for key in _MERGED & from_file.keys() & line.values.keys():
            asked[key] = from_file[key] | line.values[key]
        notes = _refuse_unserved(asked)
        return Loaded(_build(asked, program, environ), notes)
    except ValueError as error:
        where = f" (from {path} and the command line)" if written else ""
        raise BadConfiguration(f"invalid configuration{where}: {error}") from None


def _read(path: Path, must_exist: bool) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        if not must_exist:
            return {}
        text_of = f"open {path}: no such file or directory"
    except UnicodeDecodeError as error:
        text_of = f"it is not UTF-8 text: {error}"
    except OSError as error:
        text_of = f"open {path}: {(error.strerror or '').lower()}"
    else:
        return _parse(text, path)
    raise BadConfiguration(f"unable to configure the daemon with file {path}: {text_of}")


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_no_twins) if text.strip() else {}
        if not isinstance(value, dict):
            raise ValueError("expected an object {…} of options")
    except ValueError as error:
        raise BadConfiguration(
            f"unable to configure the daemon with file {path}: invalid JSON: {error}"
        ) from None
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses a key that is there twice: JSON parsers disagree about which one counts."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'the key "{key}" is there twice')
        found[key] = value
    return found


def _flat(written: Mapping[str, Any]) -> dict[str, Any]:
    """Docker's file may group the proxies in an object of their own."""
    flat = {key: value for key, value in written.items() if key != "proxies"}
    proxies = written.get("proxies") or {}
    if not isinstance(proxies, dict):
        raise ValueError("proxies: expected an object {…}")
    return flat | proxies


def _file_values(written: Mapping[str, Any]) -> dict[str, Any]:
    flat = _flat(written)
    unknown = [key for key in flat if key not in BY_KEY and key not in OLD_KEYS]
    if unknown:
        raise ValueError(
            "the following directives don't match any configuration option: "
            + ", ".join(map(_unknown, sorted(unknown)))
        )
    for old, new in OLD_KEYS.items():
        value = flat.pop(old, "")
        if value and new in flat:
            raise ValueError(f"{old} and {new} must not both be specified in the config file")
        if value:
            flat[new] = [value]
    found = {}
    for key, value in flat.items():
        if value in ("", [], {}, None) or (value == 0 and key.startswith("max-")):
            continue
        try:
            found[key] = BY_KEY[key].kind.from_json(value)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    return found


def _unknown(key: str) -> str:
    for option in OPTIONS:
        if option.long == key:
            return f"{key} (in the file it is {option.key})"
    near = difflib.get_close_matches(key, BY_KEY, 1)
    return key + (f" (is it {near[0]}?)" if near else "")


def _refuse_conflicts(line: CommandLine, written: Mapping[str, Any]) -> None:
    flat = _flat(written)
    for old, new in OLD_KEYS.items():
        if flat.get(old):
            flat[new] = [flat[old]]
    both = [
        f"{key}: (from flag: {_go_shown(key, line)}, from file: {_go_value(flat[key])})"
        for key in sorted(line.texts)
        if key in flat and key not in _MERGED
    ]
    if both:
        raise ValueError(
            "the following directives are specified both as a flag and in the configuration "
            "file: " + ", ".join(both)
        )


def _go_shown(key: str, line: CommandLine) -> str:
    words = line.texts[key]
    gathers = BY_KEY[key].kind.gather
    if gathers == "map":
        return "map[" + " ".join(words).replace("=", ":") + "]"
    return _go_value(words) if gathers == "list" else words[-1]


def _go_value(value: Any) -> str:
    """Go's `%v`."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + " ".join(map(_go_value, value)) + "]"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_go_value(value[key])}" for key in sorted(value)) + "]"
    return str(value)


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, key in _ENVIRONMENT.items():
        text = environ.get(name) or environ.get(name.lower())
        if text:
            found[key] = text
    if environ.get("DOCKER_TLS_VERIFY"):
        found["tlsverify"] = True
    return found


def _refuse_unserved(asked: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    for key, value in asked.items():
        option = BY_KEY[key]
        if option.state is State.IGNORED:
            notes.append(f"the option {key} has no effect: {option.why}")
        elif option.state is State.REFUSED and not (value in _OFF or value in option.allowed):
            raise ValueError(f"{key} is not supported: {option.why}")
    return tuple(notes)


def _build(asked: dict[str, Any], program: Program, environ: Mapping[str, str]) -> DaemonConfig:
    certificates = Path(environ.get("DOCKER_CERT_PATH") or program.certificates)
    facts: dict[str, Any] = {
        "pidfile": program.pidfile,
        "tlscacert": certificates / "ca.pem",
        "tlscert": certificates / "cert.pem",
        "tlskey": certificates / "key.pem",
    }
    for key, value in asked.items():
        option = BY_KEY[key]
        if option.state is State.USED and option.target != "tls":
            isolated = isinstance(getattr(DaemonConfig(), option.target, None), Path)
            facts[option.target] = Path(value) if isolated else value
    facts["tls"] = _tls(asked.get("tls"), asked.get("tlsverify"))
    facts["hosts"] = _hosts(facts.get("hosts", ()), facts["tls"], program)
    if facts.get("debug"):
        facts["log_level"] = "debug"
    config = DaemonConfig(**facts)
    check_together(config)
    return config


def _tls(tls: bool | None, verify: bool | None) -> TlsMode:
    """Docker's rule: naming tlsverify at all turns TLS on, and TLS verifies unless told not to."""
    if verify is not None:
        return TlsMode.MUTUAL if verify else TlsMode.SERVER
    if tls is None:
        return TlsMode.UNSAID
    return TlsMode.MUTUAL if tls else TlsMode.OFF


def _hosts(asked: tuple[Host, ...], tls: TlsMode, program: Program) -> tuple[Host, ...]:
    """Ports and paths filled in, twins removed. None asked: empty, the listeners decide."""
    port = 2376 if tls in (TlsMode.SERVER, TlsMode.MUTUAL) else 2375
    found: dict[Host, None] = {}
    for host in asked:
        address = host.address
        if host.scheme == "unix":
            address = os.path.normpath(address or program.socket)
        elif host.scheme == "tcp" and address.endswith(":0"):
            address = f"{address[:-1]}{port}"
        found[Host(host.scheme, address)] = None
    return tuple(found)


@dataclass(frozen=True)
class Reload:
    """What a reload does: the configuration that now holds, which options changed, and which
    differ in the file but wait for a restart."""

    config: DaemonConfig
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def reloaded(old: DaemonConfig, new: DaemonConfig) -> Reload:
    """Takes the reloadable options of `new`, and everything else of `old`."""
    taken: dict[str, Any] = {}
    waiting = []
    for option in _served():
        value = getattr(new, option.target)
        if value == getattr(old, option.target):
            continue
        if option.reloads:
            taken[option.target] = value
        else:
            waiting.append(option.key)
    config = msgspec.structs.replace(old, **taken)
    changed = tuple(o.key for o in _served() if o.target in taken)
    return Reload(config, changed, tuple(waiting))


def _served() -> list[Option]:
    return [o for group in GROUPS.values() for o in group if o.state is State.USED]
