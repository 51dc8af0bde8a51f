"""Waiting without sleeping blindly: poll with a deadline."""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_POLL_S = 0.02
# A slow machine (an emulated one: 20) waits longer for the same things.
PATIENCE = float(os.environ.get("TEU_TEST_PATIENCE", "1"))


def until(what: str, check: Callable[[], T], timeout_s: float = 10) -> T:
    """Calls `check` until it answers something true and returns that.

    Raises: AssertionError naming `what` and the last answer when `timeout_s` is over.
    """
    deadline = time.monotonic() + timeout_s * PATIENCE
    while True:
        last = check()
        if last:
            return last
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last: {last!r})")
        time.sleep(_POLL_S)
