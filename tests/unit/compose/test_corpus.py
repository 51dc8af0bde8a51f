"""Small projects, right and wrong: what each one resolves to, or what is said about it.

A file of `corpus/` holds the project's files, each after a line `--- NAME`, and at the end
`--- config` (as `compose config` prints it) or `--- error`. `DIR` is the project's directory.
`override.yaml` is given as a second file. Made again with `REWRITE=1 pytest …`; then look at the
difference.
"""

import os
import re
from pathlib import Path

import pytest

from teu.compose import files, project, render
from teu.compose.errors import ComposeError

CORPUS = sorted((Path(__file__).parent / "corpus").glob("*.txt"))
ENVIRONMENT = {
    "HOME": "/home/user",
    "TAG": "1.0",
    "EMPTY": "",
    "FROM_HOST": "host value",
    "BOOL": "true",
    "PORT": "8080",
    "COUNT": "4",
}


def parts(text: str) -> dict[str, str]:
    found = re.split(r"(?m)^--- (.*)\n", text)
    return dict(zip(found[1::2], found[2::2], strict=True))


def resolve(directory: Path) -> str:
    names = [name for name in ("compose.yaml", "override.yaml") if (directory / name).exists()]
    asked = files.Asked(
        files=[str(directory / name) for name in names], environment=dict(ENVIRONMENT)
    )
    try:
        found = "--- config\n" + render.as_yaml(project.load(asked))
    except ComposeError as error:
        found = f"--- error\n{error}\n"
    return found.replace(str(directory), "DIR")


@pytest.mark.parametrize("case", CORPUS, ids=[path.stem for path in CORPUS])
def test_what_it_resolves_to(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", ENVIRONMENT["HOME"])
    text = case.read_text()
    written = parts(text)
    directory = tmp_path / "demo"
    directory.mkdir()
    for name, content in written.items():
        if name not in ("config", "error"):
            (directory / name).write_text(content)
    found = resolve(directory)
    if os.environ.get("REWRITE"):
        given = re.split(r"(?m)^--- (?:config|error)\n", text)[0]
        case.write_text(given + found)
    expected = {name: written[name] for name in ("config", "error") if name in written}
    assert parts(found) == expected
    assert case.stem.startswith("right" if "config" in expected else "wrong")


def test_the_corpus_is_there() -> None:
    assert len(CORPUS) >= 80
