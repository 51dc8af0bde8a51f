"""The short form of `tests/crash/churn`: four kills."""

import pytest

from harness.churn import Churn
from harness.engine import Engine


@pytest.mark.timeout(240)
def test_everything_is_as_before_or_as_after(private_engine: Engine) -> None:
    if private_engine.kind == "dockerd":
        pytest.skip("docker does not survive this: lost exit codes, leaked links")
    churn = Churn(private_engine, seed=1)
    churn.run(kills=4)
    assert not churn.violations
    assert churn.requests > 20
