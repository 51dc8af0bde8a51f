"""How slowly a registry may send before it counts as stalled.

A time-out between two bytes does not end a transfer that sends one byte just before it, for ever;
an average over the last interval does.
"""

import time

from teu.model.registry import BrokenTransfer

_SLOWEST_BYTES_PER_S = 100


class Pace:
    """Watches one transfer. `stall_s`: over which time too few bytes are too few."""

    def __init__(self, stall_s: float, request: str) -> None:
        self._stall_s = stall_s
        self._request = request
        self._started = time.monotonic()
        self._size_bytes = 0

    def check(self, more_bytes: int) -> None:
        """Raises: BrokenTransfer."""
        self._size_bytes += more_bytes
        passed_s = time.monotonic() - self._started
        if passed_s < self._stall_s:
            return
        if self._size_bytes < passed_s * _SLOWEST_BYTES_PER_S:
            raise BrokenTransfer(
                f"{self._request}: the registry sent {self._size_bytes} bytes in {passed_s:.0f} s"
            )
        self._started += passed_s
        self._size_bytes = 0
