"""The detach key sequence in a client's input."""


class DetachKeys:
    """Finds `keys` in a stream of chunks; holds back what may be its beginning."""

    __slots__ = ("_held", "_keys")

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, chunk: bytes) -> tuple[bytes, bool]:
        """(input to forward now, whether the sequence is complete). What follows it is dropped."""
        if not self._keys:
            return chunk, False
        data = self._held + chunk
        found = data.find(self._keys)
        if found >= 0:
            self._held = b""
            return data[:found], True
        keep = next(
            size
            for size in range(min(len(self._keys) - 1, len(data)), -1, -1)
            if data.endswith(self._keys[:size])
        )
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep], False

    def flush(self) -> bytes:
        """At the end of input: the held beginning that was never completed."""
        held, self._held = self._held, b""
        return held
