"""The bounded history of events."""

from collections.abc import Iterator

import msgspec

from teu.model.event import Event
from teu.store.db import Database

KEEP = 10_000
TRIM_EVERY = 1_000
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


class EventStore:
    """Rows of `event`, oldest first; about the last `KEEP` are kept."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._since_trim = 0

    def append(self, event: Event) -> None:
        self._db.write(
            "INSERT INTO event (at_ns, record) VALUES (?, ?)", (event.at_ns, _encode(event))
        )
        self._since_trim += 1
        if self._since_trim >= TRIM_EVERY:
            self._since_trim = 0
            self._db.write(
                "DELETE FROM event WHERE seq <= (SELECT MAX(seq) FROM event) - ?", (KEEP,)
            )

    def between(self, since_ns: int, until_ns: int) -> Iterator[Event]:
        """Events with `since_ns <= at_ns <= until_ns`."""
        rows = self._db.rows(
            "SELECT record FROM event WHERE at_ns BETWEEN ? AND ? ORDER BY seq",
            (since_ns, until_ns),
        )
        return (_decode(raw) for (raw,) in rows)
