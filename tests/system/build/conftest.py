"""Fixtures of the build tests."""

from collections.abc import Iterator

import pytest

from harness.clients import Cli
from harness.engine import Engine


@pytest.fixture
def teu(engine: Engine) -> Cli:
    """Our own client: for what Docker's needs BuildKit for."""
    return engine.cli("teu")


@pytest.fixture(autouse=True)
def _builds_leave_nothing(engine: Engine) -> Iterator[None]:
    """Images that the test made go, and with them their layers when the cache forgets them; no
    step's directory is left."""

    def images() -> dict[str, list[str]]:
        rows = engine.api.get("/images/json", all=1)
        return {row["Id"]: row["RepoTags"] or [] for row in rows}

    before = images()
    yield
    if not engine.running():
        return
    for image, tags in images().items():
        for tag in set(tags) - set(before.get(image, [])):
            engine.api.request("DELETE", f"/images/{tag}", force=1)
        if image not in before:
            engine.api.request("DELETE", f"/images/{image}", force=1)
