"""Each rule once broken and once kept."""

import pytest

from teu.dockerfile.lint import lint, read_checks
from teu.dockerfile.stages import parse_dockerfile

BROKEN = {
    "StageNameCasing": "FROM a AS Stage",
    "FromAsCasing": "FROM a as b",
    "NoEmptyContinuation": "FROM a\nRUN x \\\n\n  y",
    "ConsistentInstructionCasing": "FROM a\nRUN x\nrun y",
    "DuplicateStageName": "FROM a AS b\nFROM a AS b",
    "ReservedStageName": "FROM a AS scratch",
    "JSONArgsRecommended": "FROM a\nCMD x",
    "MaintainerDeprecated": "FROM a\nMAINTAINER x",
    "UndefinedArgInFrom": "FROM a:${X}",
    "WorkdirRelativePath": "FROM a\nWORKDIR x",
    "UndefinedVar": "FROM a\nCOPY $X /",
    "MultipleInstructionsDisallowed": 'FROM a\nCMD ["x"]\nCMD ["y"]',
    "LegacyKeyValueFormat": "FROM a\nENV A b",
    "RedundantTargetPlatform": "FROM --platform=$TARGETPLATFORM a",
    "FromPlatformFlagConstDisallowed": "FROM --platform=linux/amd64 a",
    "SecretsUsedInArgOrEnv": "FROM a\nARG API_TOKEN",
    "InvalidDefaultArgInFrom": "ARG X\nFROM ${X}",
    "ExposeProtoCasing": "FROM a\nEXPOSE 80/TCP",
    "ExposeInvalidFormat": "FROM a\nEXPOSE 127.0.0.1:80:80",
}
KEPT = [
    'FROM a AS b\nARG X\nENV A=b PATH=$PATH:/x\nWORKDIR /x\nWORKDIR y\nCOPY ${X} $A /\nCMD ["x"]',
    'FROM a\nSHELL ["bash", "-c"]\nCMD x',
    "FROM a\nENV TOKEN_FILE=/x PUBLIC_KEY=y KEYBOARD=z",
    "ARG V=1\nFROM a:${V}\nEXPOSE 80/tcp",
    "FROM scratch\nARG A\nFROM 0\n",
]


def rules(text: str) -> set[str]:
    dockerfile = parse_dockerfile(text.encode())
    return {finding.rule for finding in lint(dockerfile, lambda base: {"HOME": ""})}


@pytest.mark.parametrize("rule", BROKEN)
def test_broken(rule: str) -> None:
    assert rules(BROKEN[rule]) == {rule}


@pytest.mark.parametrize("text", KEPT)
def test_kept(text: str) -> None:
    assert rules(text) == set()


def test_rules_can_be_left_out() -> None:
    text = "FROM a as b\nMAINTAINER x"
    assert rules(f"# check=skip=FromAsCasing\n{text}") == {"MaintainerDeprecated"}
    assert rules(f"# check=skip=all\n{text}") == set()
    dockerfile = parse_dockerfile(f"# check=skip=FromAsCasing;error=true\n{text}".encode())
    assert read_checks(dockerfile).fails


def test_findings_say_where() -> None:
    [finding] = lint(parse_dockerfile(b"FROM a\n\nMAINTAINER x"), lambda base: None)
    assert finding.span.start == 3
    assert finding.url.endswith("/rule/maintainer-deprecated/")


def test_unknown_bases_say_nothing_about_variables() -> None:
    assert not lint(parse_dockerfile(b"FROM a\nCOPY $X /"), lambda base: None)
