"""The walls of the house: who may import whom, and what only one module may do.

docs/architecture.md has the table; a failure names the file, the line and the rule.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "teu"
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60

LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "errors",
            "ids",
            "units",
            "clock",
            "model",
            "template",
            "tx",
            "tasks",
            "dockerfile",
            "dockerignore",
        }
    ),
    frozenset({"sys"}),
    frozenset({"store", "content"}),
    frozenset({"image", "registry", "runtime", "network", "volume"}),
    frozenset({"events"}),
    frozenset({"container", "build"}),
    frozenset({"system"}),
    frozenset({"api"}),
    frozenset({"compose"}),
    frozenset({"daemon", "cli", "distribution"}),
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
# Processes of their own, standard library only -> of which others' parts they are made
APART = {"shim": {"shim"}, "resolver": {"resolver", "shim"}}
SHARED = {("network", "resolver")}  # the form of resolv.conf
CLI_MAY_IMPORT = {"errors", "units", "clock", "ids", "dockerignore", "template", "compose", "cli"}
SPAWNERS = {"sys/process.py", "cli/helper.py"}  # of the daemon; of the client (credentials)
SPAWN_MODULES = {"subprocess", "multiprocessing", "pty"}
SPAWN_CALLS = re.compile(
    r"os\.(fork|forkpty|system|popen|posix_spawnp?|spawn\w+|exec[lv]\w*)"
    r"|asyncio\.create_subprocess_\w+"
)
HTTP_CLIENTS = (
    "cli/",
    "registry/",
    "distribution/",
)  # they speak other protocols than the engine's
EMPTY_HANDLER = re.compile(r"except (Base)?Exception:\n\s+pass\b")
BARE_IGNORE = re.compile(r"# (noqa|type: ignore)(?![:\[])")
# What never belongs in the product: paths of one machine, unfinished thoughts without an issue
FORBIDDEN = re.compile(r"/wo" + r"rk/|\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b(?!\(#\d+\))")

STDLIB = sys.stdlib_module_names
SOURCES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported, wherever in the file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: imports are absolute"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def part_of(path: Path) -> str:
    """`network` for src/teu/network/…, `ids` for src/teu/ids.py."""
    return name(path).split("/")[0].removesuffix(".py")


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and part of the imports of other parts of teu."""
    for line, full in imports(path):
        first, _, rest = full.partition(".")
        part = rest.split(".")[0]
        if first == "teu" and part != part_of(path) and part != "__version__":
            yield line, part


def dotted(node: ast.AST) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def complain(found: list[str], rule: str) -> None:
    assert not found, rule + ":\n  " + "\n  ".join(found)


def test_every_part_has_a_layer() -> None:
    parts = {part_of(path) for path in SOURCES} - {"__init__", *APART}
    assert parts <= LAYER_OF.keys()


def test_imports_point_down() -> None:
    found = []
    for path in SOURCES:
        mine = part_of(path)
        if mine in (*APART, "cli", "__init__"):
            continue
        for line, other in own_imports(path):
            below = LAYER_OF.get(other, 99) < LAYER_OF[mine] or (mine, other) in SHARED
            if not below and not (LAYER_OF[mine] == LAYER_OF.get(other) == 0):
                found.append(f"{name(path)}:{line}: {mine} imports {other}")
    complain(found, "a layer imports only lower layers, never its neighbours")


def test_command_line_is_only_a_client() -> None:
    found = [
        f"{name(path)}:{line}: imports {other}"
        for path in SOURCES
        if part_of(path) == "cli"
        for line, other in own_imports(path)
        if other not in CLI_MAY_IMPORT
    ]
    complain(found, f"cli imports of teu only {sorted(CLI_MAY_IMPORT)}")


def test_processes_apart_are_standard_library_only() -> None:
    found = []
    for path in SOURCES:
        allowed = APART.get(part_of(path))
        for line, full in imports(path) if allowed else ():
            first, _, rest = full.partition(".")
            if first not in STDLIB and not (first == "teu" and rest.split(".")[0] in allowed):
                found.append(f"{name(path)}:{line}: {full}")
    complain(found, "what starts with `python -I -S` has no libraries")


def test_one_module_spawns() -> None:
    found = []
    for path in SOURCES:
        if part_of(path) == "shim" or name(path) in SPAWNERS:
            continue
        for line, full in imports(path):
            if full.split(".")[0] in SPAWN_MODULES:
                found.append(f"{name(path)}:{line}: imports {full}")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and SPAWN_CALLS.fullmatch(dotted(node.func)):
                found.append(f"{name(path)}:{node.lineno}: {dotted(node.func)}")
    complain(found, f"only {sorted(SPAWNERS)} and shim/ start processes")


def test_only_the_store_speaks_sql() -> None:
    found = [
        f"{name(path)}:{line}"
        for path in SOURCES
        if part_of(path) != "store"
        for line, full in imports(path)
        if full.split(".")[0] == "sqlite3"
    ]
    complain(found, "only store/ imports sqlite3")


def test_one_module_names_http_statuses() -> None:
    found = []
    for path in SOURCES:
        if name(path) == "api/status.py" or name(path).startswith(HTTP_CLIENTS):
            continue
        found += [f"{name(path)}:{line}" for line, full in imports(path) if "HTTPStatus" in full]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.keyword) and node.arg == "status":
                value = getattr(node.value, "value", None)
                if isinstance(value, int) and not isinstance(value, bool):
                    found.append(f"{name(path)}:{node.value.lineno}: status={value}")
            if isinstance(node, ast.Attribute) and re.match(r"web\.HTTP[A-Z]", dotted(node)):
                found.append(f"{name(path)}:{node.lineno}: {dotted(node)}")
    complain(found, "only api/status.py names HTTP status numbers")


def test_sizes() -> None:
    found = []
    for path in SOURCES:
        lines = len(path.read_text().splitlines())
        if lines > MAX_FILE_LINES:
            found.append(f"{name(path)}: {lines} lines")
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    found.append(f"{name(path)}:{node.lineno}: {node.name} has {length} lines")
    complain(found, f"a file has {MAX_FILE_LINES} lines at most, a function {MAX_FUNCTION_LINES}")


def test_every_module_says_what_it_is() -> None:
    found = [
        name(path) for path in SOURCES if (body := tree(path)).body and not ast.get_docstring(body)
    ]
    complain(found, "a module has a docstring")


def test_no_catch_all_modules() -> None:
    banned = {"utils", "util", "helpers", "common", "misc"}
    found = [name(path) for path in SOURCES if {path.stem, path.parent.name} & banned]
    complain(found, "a module's name says what is in it")


def test_errors_are_never_swallowed() -> None:
    found = [name(path) for path in SOURCES if EMPTY_HANDLER.search(path.read_text())]
    complain(found, "a broad `except` logs what it caught")


def test_checks_are_switched_off_only_by_name() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (*SOURCES, *sorted((ROOT / "tests").rglob("*.py")))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BARE_IGNORE.search(line)
    ]
    complain(found, "noqa and type: ignore name the check")


def test_no_forbidden_words() -> None:
    kinds = ("*.py", "*.md", "*.toml", "*.service", "*.socket", "*.S", "Makefile")
    files = [path for kind in kinds for path in ROOT.rglob(kind) if ".venv" not in path.parts]
    files += [ROOT / plain for plain in ("quickstart", "run-tests", ".ci/run")]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in files
        if path.exists()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := FORBIDDEN.search(line))
    ]
    complain(found, "no paths of one machine, and no open ends without an issue")


def test_every_error_kind_has_a_status() -> None:
    from teu import errors
    from teu.api import status

    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.EngineError)
    ]
    for kind in kinds:
        assert kind in status._BY_KIND, kind.__name__
        assert len([base for base in kind.__mro__ if base in kinds]) <= 2, kind.__name__
    codes = [kind.code for kind in kinds]
    assert len(set(codes)) == len(codes)


def test_every_option_is_used() -> None:
    """An option that nothing reads would be ignored in silence: it belongs among the refused."""
    from teu.daemon.config import DaemonConfig

    own = {f"daemon/{stem}.py" for stem in ("config", "load", "options", "consistency")}
    texts = [path.read_text() for path in SOURCES if name(path) not in own]
    text = "\n".join(text for text in texts if "DaemonConfig" in text)
    unread = [
        field
        for field in DaemonConfig.__struct_fields__
        if not re.search(rf"config\.{field}\b", text)
    ]
    complain(unread, "nothing reads these options")


def test_rules_can_fail() -> None:
    for check in ("noqa", "type: ignore"):
        assert BARE_IGNORE.search(f"x = 1  # {check}")
        assert not BARE_IGNORE.search(
            f"x = 1  # {check}: E501" if check == "noqa" else f"# {check}[x]"
        )
    assert FORBIDDEN.search("/wo" + "rk/x")
    assert SPAWN_CALLS.fullmatch("os.execv")
    assert EMPTY_HANDLER.search("except Exception:\n    pass")
