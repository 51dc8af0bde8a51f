"""Docker's grammar: good and bad command lines, and properties that hold for all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teu.cli.commands import TABLE, find
from teu.cli.grammar import Command, Flag, HelpRequested, Parser, UsageError, arity_problem
from teu.cli.main import load
from teu.cli.run_flags import RUN_FLAGS

PS_FLAGS = (
    Flag("all", "a", "bool"),
    Flag("filter", "f", "filter", check="filter"),
    Flag("last", "n", "int", default=-1),
    Flag("no-trunc", "", "bool"),
    Flag("quiet", "q", "bool"),
)


def run_line(*words: str) -> tuple[Parser, list[str]]:
    parser = Parser(RUN_FLAGS, interspersed=False)
    return parser, parser.parse(words)


@pytest.mark.parametrize(
    ("words", "arguments", "values"),
    [
        (["busybox"], ["busybox"], {"tty": False, "detach-keys": "", "pull": "missing"}),
        (["-it", "busybox", "sh"], ["busybox", "sh"], {"interactive": True, "tty": True}),
        (["-p80:80", "x"], ["x"], {"publish": ["80:80"]}),
        (["-p", "80:80", "-p", "81:81", "x"], ["x"], {"publish": ["80:80", "81:81"]}),
        (["-eA=b", "x"], ["x"], {"env": ["A=b"]}),
        (["-e=A=b", "x"], ["x"], {"env": ["A=b"]}),
        (["-iteA=b", "x"], ["x"], {"env": ["A=b"], "tty": True, "interactive": True}),
        (["--env=A=b=c", "x"], ["x"], {"env": ["A=b=c"]}),
        (["--rm=false", "x"], ["x"], {"rm": False}),
        (["--rm=T", "x"], ["x"], {"rm": True}),
        (["-t=false", "x"], ["x"], {"tty": False}),
        (["--sig-proxy=0", "x"], ["x"], {"sig-proxy": False}),
        (["x", "--rm", "-it"], ["x", "--rm", "-it"], {"rm": False, "tty": False}),
        (["--", "-it", "x"], ["-it", "x"], {"tty": False}),
        (["x", "--", "y"], ["x", "--", "y"], {}),
        (["--name", "-x", "y"], ["y"], {"name": "-x"}),
        (["--name", "--", "y"], ["y"], {"name": "--"}),
        (["--name=", "y"], ["y"], {"name": ""}),
        (["-w/", "y"], ["y"], {"workdir": "/"}),
        (["-", "y"], ["-", "y"], {}),
        (["", "y"], ["", "y"], {}),
        (["-hfoo", "y"], ["y"], {"hostname": "foo"}),
        (["--dns-opt", "a", "--dns-option", "b", "y"], ["y"], {"dns-option": ["a", "b"]}),
        (["--name", "a", "--name", "b", "y"], ["y"], {"name": "b"}),
        (["-m", "1.5g", "--cpus", ".5", "y"], ["y"], {"memory": 1610612736, "cpus": 500000000}),
        (["-c", "0x10", "--stop-timeout", "-1", "y"], ["y"], {"cpu-shares": 16}),
    ],
)
def test_good_run_lines(words: list[str], arguments: list[str], values: dict[str, object]) -> None:
    parser, rest = run_line(*words)
    assert rest == arguments
    for name, value in values.items():
        assert (parser.options.value(name) or False) == (value or False)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--foo"], "unknown flag: --foo"),
        (["--foo=x"], "unknown flag: --foo"),
        (["-z", "x"], "unknown shorthand flag: 'z' in -z"),
        (["-itz", "x"], "unknown shorthand flag: 'z' in -z"),
        (["-iztz", "x"], "unknown shorthand flag: 'z' in -ztz"),
        (["---x"], "bad flag syntax: ---x"),
        (["--=x"], "bad flag syntax: --=x"),
        (["-p"], "flag needs an argument: 'p' in -p"),
        (["-itp"], "flag needs an argument: 'p' in -p"),
        (["--name"], "flag needs an argument: --name"),
        (["-it=maybe", "x"], 'invalid argument "maybe" for "-t, --tty" flag: '
         'strconv.ParseBool: parsing "maybe": invalid syntax'),
        (["-m", "abc", "x"], 'invalid argument "abc" for "-m, --memory" flag: '
         "invalid size: 'abc'"),
        (["--cpu-shares", "x", "y"], 'invalid argument "x" for "-c, --cpu-shares" flag: '
         'strconv.ParseInt: parsing "x": invalid syntax'),
        (["--memory-swappiness=a", "b"], 'invalid argument "a" for "--memory-swappiness" flag: '
         'strconv.ParseInt: parsing "a": invalid syntax'),
        (["-e", "=a", "x"], 'invalid argument "=a" for "-e, --env" flag: '
         "invalid environment variable: =a"),
        (["--mount", '"type=bind', "x"], 'invalid argument "\\"type=bind" for "--mount" flag: '
         'parse error on line 1, column 11: extraneous or missing " in quoted-field'),
        (["--use-api-socket", "x"], "flag --use-api-socket is not implemented yet"),
    ],
)  # fmt: skip
def test_bad_run_lines(words: list[str], problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_line(*words)
    assert str(caught.value) == problem


def test_flags_stand_anywhere_where_nothing_is_run() -> None:
    parser = Parser(PS_FLAGS)
    assert parser.parse(["-a", "x", "-q", "--no-trunc", "--", "-n"]) == ["x", "-n"]
    assert parser.options.given() == ["all", "quiet", "no-trunc"]
    assert parser.options.number("last") == -1


@pytest.mark.parametrize(
    ("words", "deprecated"), [(["--help"], False), (["-h"], True), (["-ah"], True)]
)
def test_help_is_found(words: list[str], deprecated: bool) -> None:
    with pytest.raises(HelpRequested) as caught:
        Parser(PS_FLAGS).parse(words)
    assert caught.value.deprecated is deprecated


def test_help_can_be_declined() -> None:
    assert Parser(PS_FLAGS).parse(["--help=false", "x"]) == ["x"]


def test_short_h_is_hostname_for_run() -> None:
    with pytest.raises(UsageError, match="flag needs an argument: 'h' in -h"):
        run_line("-h")


@pytest.mark.parametrize(
    ("args", "count", "words"),
    [
        ((1, None), 0, "requires at least 1 argument\n"),
        ((2, None), 1, "requires at least 2 arguments\n"),
        ((0, 0), 1, "accepts no arguments\n"),
        ((1, 1), 2, "requires 1 argument\n"),
        ((2, 2), 1, "requires 2 arguments\n"),
        ((1, 2), 3, "requires at least 1 and at most 2 arguments\n"),
        ((0, 1), 2, "requires at most 1 argument\n"),
    ],
)
def test_wrong_number_of_arguments(args: tuple[int, int | None], count: int, words: str) -> None:
    command = Command(lambda *_: 0, "[OPTIONS] X", args=args)
    problem = arity_problem("teu x", command, count)
    assert problem.startswith(f"'teu x' {words}")
    assert "\n\nUsage:  teu x [OPTIONS] X\n\n" in problem
    assert problem.endswith("'teu x --help' for more information")


@pytest.mark.parametrize(
    ("words", "path", "rest"),
    [
        (["ps", "-a"], "ps", ["-a"]),
        (["container", "ls", "-a"], "container ls", ["-a"]),
        (["container", "list"], "container ls", []),
        (["container", "ps"], "container ls", []),
        (["image", "remove", "x"], "image rm", ["x"]),
        (["rmi", "x"], "rmi", ["x"]),
        (["container", "--help", "ls"], "container ls", ["--help"]),
        (["container", "foo"], "container", ["foo"]),
        (["swarm", "init"], "swarm", ["init"]),
        (["foo", "ls"], "", ["foo", "ls"]),
    ],
)
def test_commands_are_found(words: list[str], path: str, rest: list[str]) -> None:
    row, found, behind = find(words)
    assert (found, behind) == (path, rest)
    assert (row is not None) == (path not in ("", "container", "swarm"))


def test_every_row_names_a_module_that_has_its_command() -> None:
    for row in TABLE:
        assert not row[3] or load(row) is not None, row


def test_no_command_has_two_flags_of_one_name() -> None:
    for row in TABLE:
        command = load(row)
        if command is None:
            continue
        names = [flag.name for flag in command.flags]
        shorts = [flag.short for flag in command.flags if flag.short]
        assert len(names) == len(set(names)), row
        assert len(shorts) == len(set(shorts)), row


@given(st.lists(st.text(max_size=8), max_size=8))
def test_any_words_parse_or_are_refused(words: list[str]) -> None:
    try:
        _, rest = run_line(*words)
    except (UsageError, HelpRequested):
        return
    assert rest == words[len(words) - len(rest) :], "run's arguments are a tail of its words"


@given(st.lists(st.sampled_from(["-a", "-q", "-aq", "-n3", "--no-trunc", "x", "y"]), max_size=9))
def test_order_of_flags_and_arguments_does_not_matter(words: list[str]) -> None:
    mixed, sorted_ = Parser(PS_FLAGS), Parser(PS_FLAGS)
    arguments = mixed.parse(words)
    assert sorted_.parse(sorted(words, key=lambda word: word[0] != "-")) == arguments
    for name in ("all", "quiet", "last", "no-trunc"):
        assert mixed.options.value(name) == sorted_.options.value(name)
