"""What could come next on a command line: commands, flags, values, and names from the daemon.

Made from the same tables that the parser uses. A daemon that does not answer within two seconds
ends the completion without candidates.
"""

from __future__ import annotations

from teu.cli.commands import find
from teu.cli.grammar import Command, Flag, HelpRequested, Parser, UsageError
from teu.cli.main import GLOBAL_FLAGS, load
from teu.cli.session import Failure, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Candidates = list[tuple[str, str]]

FILES: list[tuple[str, str]] = [(":files", "")]
_DEADLINE_S = 2
# What an argument is, by its name in the usage line.
_OBJECTS = {
    "CONTAINER": "container",
    "IMAGE": "image",
    "SOURCE_IMAGE[:TAG]": "image",
    "REPOSITORY[:TAG]": "image",
    "NAME[:TAG]": "image",
    "NETWORK": "network",
    "VOLUME": "volume",
    "CONTEXT": "context",
}
_FLAG_OBJECTS = {
    "network": "network", "net": "network", "volumes-from": "container", "link": "container",
    "context": "context", "from": "context",
}  # fmt: skip
_FLAG_WORDS = {
    "cgroupns": ("host", "private"),
    "format": ("json", "table"),
    "ipc": ("host", "none", "private", "shareable"),
    "health-on-failure": ("kill", "none", "restart", "stop"),
    "log-driver": ("fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"),
    "log-level": ("debug", "info", "warn", "error", "fatal"),
    "pid": ("host",),
    "pull": ("always", "missing", "never"),
    "restart": ("always", "no", "on-failure", "unless-stopped"),
    "signal": ("HUP", "INT", "KILL", "QUIT", "TERM", "USR1", "USR2"),
    "type": ("container", "image", "network", "volume"),
    "uts": ("host",),
}
_FLAG_FILES = frozenset(
    ("cidfile", "config", "env-file", "file", "input", "label-file", "output", "tlscacert",
     "tlscert", "tlskey", "volume", "workdir")
)  # fmt: skip
# States in which a container makes sense as the argument; other commands take any.
_RUNNING_ONLY = frozenset(("attach", "exec", "kill", "pause", "stats", "stop", "top", "wait"))
_STOPPED_ONLY = frozenset(("start",))


def candidates(session: Session, line: str) -> Candidates:
    """What may replace the last word of `line` (which starts with the program's name)."""
    words = split_words(line)
    current = words.pop() if words else ""
    there = _session_of(session, words[1:])
    return [pair for pair in _all(there, words[1:], current) if _fits(pair[0], current)]


def _session_of(session: Session, words: list[str]) -> Session:
    """A session with the global flags of the line being completed, if it has any."""
    parser = Parser(GLOBAL_FLAGS, interspersed=False)
    try:
        parser.parse(words)
    except (UsageError, HelpRequested):
        return session
    given = any(parser.options.changed(flag.name) for flag in GLOBAL_FLAGS)
    return Session(session.program, parser.options) if given else session


def _fits(word: str, current: str) -> bool:
    return word.startswith((current, ":files"))


def split_words(line: str) -> list[str]:
    """The words of an unfinished command line; the last one is "" after a space."""
    words: list[str] = []
    word, mark, escaped = "", "", False
    for char in line:
        if escaped:
            word, escaped = word + char, False
        elif char == "\\" and mark != "'":
            escaped = True
        elif mark:
            word, mark = (word, "") if char == mark else (word + char, mark)
        elif char in "'\"":
            mark = char
        elif char.isspace():
            words, word = ([*words, word] if word else words), ""
        else:
            word += char
    return [*words, word]


def _all(session: Session, words: list[str], current: str) -> Candidates:
    rest, pending = _skip_flags(words, GLOBAL_FLAGS, first_only=True)
    if pending is not None:
        return _flag_value(session, pending)
    if not rest:
        return _flag_names(GLOBAL_FLAGS) if current.startswith("-") else _commands("")
    if rest[0] == "help":
        return _commands(" ".join(rest[1:]))
    row, typed, after = find(rest)
    command = load(row) if row else None
    if row is None or command is None:
        return _commands(typed) if typed and not after and row is None else []
    return _after_command(session, row[0], command, after, current)


def _after_command(
    session: Session, path: str, command: Command, words: list[str], current: str
) -> Candidates:
    arguments, pending = _skip_flags(words, command.flags, first_only=not command.interspersed)
    if pending is not None:
        return _flag_value(session, pending)
    flags_are_over = not command.interspersed and bool(arguments)
    if current.startswith("-") and not flags_are_over:
        name, equals, _ = current.partition("=")
        if equals:
            return _after_equals(session, command, name)
        return _flag_names(command.flags)
    return _argument(session, path, command, arguments)


def _skip_flags(
    words: Sequence[str], flags: Sequence[Flag], *, first_only: bool
) -> tuple[list[str], Flag | None]:
    """The arguments among `words`, and the flag that waits for its value behind the last one.

    first_only: everything behind the first argument is arguments.
    """
    names = {f"--{flag.name}": flag for flag in flags}
    names |= {f"-{flag.short}": flag for flag in flags if flag.short}
    arguments: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if len(word) < 2 or word[0] != "-":
            arguments.append(word)
            if first_only:
                return arguments + rest, None
            continue
        flag = names.get(word if word.startswith("--") else "-" + word[-1])
        if flag is None or flag.no_value:
            continue
        if not rest:
            return arguments, flag
        rest.pop(0)
    return arguments, None


def _commands(group: str) -> Candidates:
    from teu.cli.help import existing_groups, existing_rows, short_names

    if group:
        prefix = group + " "
        return [
            (row[0].removeprefix(prefix), row[4])
            for row in existing_rows()
            if row[0].startswith(prefix)
        ]
    found = [(name, row[4]) for row in existing_rows() for name in short_names(row)]
    return sorted([*found, *existing_groups(), ("help", "Explain a command")])


def _flag_names(flags: Iterable[Flag]) -> Candidates:
    found = [
        (f"--{flag.name}", flag.help.replace("`", ""))
        for flag in flags
        if not (flag.hidden or flag.missing)
    ]
    return [*found, ("--help", "Explain the command")]


def _after_equals(session: Session, command: Command, name: str) -> Candidates:
    for flag in command.flags:
        if f"--{flag.name}" == name:
            found = _flag_value(session, flag)
            return found if found == FILES else [(f"{name}={word}", text) for word, text in found]
    return []


def _flag_value(session: Session, flag: Flag) -> Candidates:
    if flag.name in _FLAG_FILES:
        return FILES
    words: Candidates = [(word, "") for word in _FLAG_WORDS.get(flag.name, ())]
    if kind := _FLAG_OBJECTS.get(flag.name):
        words += _objects(session, kind, "")
    return words


def _argument(
    session: Session, path: str, command: Command, arguments: Sequence[str]
) -> Candidates:
    most = command.args[1]
    if most is not None and len(arguments) >= most:
        return []
    wanted = [word for word in command.usage.split() if word != "[OPTIONS]"]
    repeats = bool(wanted) and wanted[-1].endswith("...]")
    if repeats and len(wanted) > 1 and wanted[-1].strip("[].") == wanted[-2]:
        wanted.pop()
    if not wanted:
        return []
    at = len(arguments)
    if at >= len(wanted) and not repeats:
        return []
    word = wanted[min(at, len(wanted) - 1)]
    if word in ("NAME|ID", "[NAME|ID...]"):
        return _objects(session, "container", path) + _objects(session, "image", path)
    if "|" in word and word.islower():
        return [(choice, "") for choice in word.split("|")]
    kind = _OBJECTS.get(word) or _OBJECTS.get(word.strip("[].")) or _OBJECTS.get(word[1:-1])
    if kind is None:
        return FILES
    taken = frozenset(arguments)
    return [pair for pair in _objects(session, kind, path) if pair[0] not in taken]


def _objects(session: Session, kind: str, path: str) -> Candidates:
    """Names of that kind; none when the daemon cannot be asked."""
    import signal

    signal.alarm(_DEADLINE_S)  # ends this process, unhandled: no candidates
    try:
        return _LISTS[kind](session, path)
    except Failure:
        return []
    finally:
        signal.alarm(0)


def _containers(session: Session, path: str) -> Candidates:
    verb = path.rpartition(" ")[2]
    found = []
    for data in session.client.get("/containers/json", {"all": verb not in _RUNNING_ONLY}) or ():
        if verb in _STOPPED_ONLY and data.get("State") == "running":
            continue
        for name in data.get("Names") or ():
            if name.count("/") == 1:
                found.append((name[1:], f"{data.get('Image', '')}, {data.get('Status', '')}"))
    return found


def _images(session: Session, _path: str) -> Candidates:
    from teu.units import human_size

    found = []
    for data in session.client.get("/images/json") or ():
        size = human_size(data.get("Size", 0))
        for tag in data.get("RepoTags") or ():
            if not tag.startswith("<none>"):
                found.append((tag, size))
                if tag.endswith(":latest"):
                    found.append((tag.removesuffix(":latest"), size))
    return found


def _networks(session: Session, _path: str) -> Candidates:
    found = session.client.get("/networks") or ()
    return [(data.get("Name", ""), data.get("Driver", "")) for data in found]


def _volumes(session: Session, _path: str) -> Candidates:
    found = (session.client.get("/volumes") or {}).get("Volumes") or ()
    return [(data.get("Name", ""), data.get("Driver", "")) for data in found]


def _contexts(session: Session, _path: str) -> Candidates:
    from teu.cli.contexts import DEFAULT, ContextStore

    return [(name, "") for name in [DEFAULT, *ContextStore(session.config).names()]]


_LISTS = {
    "container": _containers,
    "image": _images,
    "network": _networks,
    "volume": _volumes,
    "context": _contexts,
}
