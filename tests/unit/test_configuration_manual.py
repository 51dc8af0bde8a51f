"""docs/configuration.md lists every option; its tables are made from the table in the code.

`python tests/unit/test_configuration_manual.py` (with `src` on PYTHONPATH) writes them anew.
"""

import re
from pathlib import Path

from teu.daemon.config import DaemonConfig
from teu.daemon.options import GROUPS, Option, State

MANUAL = Path(__file__).parents[2] / "docs" / "configuration.md"
_BLOCK = re.compile(r"(<!-- table: (.+?) -->\n)(.*?)(<!-- end -->)", re.S)


def shown_default(option: Option) -> str:
    if option.target in ("tls", "hosts"):
        return ""
    value = getattr(DaemonConfig(), option.target)
    if value in ("", (), {}, None):
        return ""
    if isinstance(value, tuple):
        return f"`{', '.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def row(option: Option) -> str:
    flag = f"`--{option.long}`" if option.long else ""
    flag += f" `-{option.short}`" if option.short else ""
    if option.state is not State.USED:
        return f"| `{option.key}` | {flag} | {option.why} |\n"
    reloads = "yes" if option.reloads else ""
    words = option.help.replace("|", "\\|")
    return f"| `{option.key}` | {flag} | {words} | {shown_default(option)} | {reloads} |\n"


def table(group: str) -> str:
    options = GROUPS[group]
    if options[0].state is State.USED:
        head = "| key | flag | meaning | default | reloads |\n| --- | --- | --- | --- | --- |\n"
    else:
        head = "| key | flag | why |\n| --- | --- | --- |\n"
    return head + "".join(map(row, options))


def written() -> str:
    return _BLOCK.sub(lambda found: found[1] + table(found[2]) + found[4], MANUAL.read_text())


def test_manual_lists_every_option() -> None:
    text = MANUAL.read_text()
    assert {found[2] for found in _BLOCK.finditer(text)} == set(GROUPS)
    assert text == written(), f"write it anew: PYTHONPATH=src python {Path(__file__).name}"


if __name__ == "__main__":
    MANUAL.write_text(written())
