"""The short form of `tests/system/crowd`."""

import pytest

from harness.crowd import Crowd
from harness.engine import Engine


@pytest.mark.timeout(120)
def test_many_containers_and_ports_come_and_go(engine: Engine) -> None:
    crowd = Crowd(engine, parallel=5)
    crowd.run(containers=10, cycles=12)
    assert not crowd.violations
