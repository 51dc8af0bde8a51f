"""The history of events: bounded, in order, and joined with what is told live."""

import asyncio
from pathlib import Path

from teu import clock
from teu.events import PASSING_KEPT, EventBus
from teu.store.db import Database
from teu.store.events import KEEP, TRIM_EVERY, EventStore


async def told(bus: EventBus, since_ns: int, until_ns: int) -> list[str]:
    return [event.actor async for event in bus.stream(since_ns, until_ns, lambda _: True)]


def test_it_is_bounded(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    store = EventStore(database)
    bus = EventBus(store)
    with database.transaction():
        for number in range(KEEP + 2 * TRIM_EVERY):
            bus.publish("container", "start", str(number), {})
    rows = list(store.between(0, 2**62))
    assert KEEP <= len(rows) <= KEEP + TRIM_EVERY
    assert rows[-1].actor == str(KEEP + 2 * TRIM_EVERY - 1)
    database.close()


def test_passing_events_do_not_push_others_out(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    bus = EventBus(EventStore(database))
    bus.publish("container", "start", "kept", {})
    for number in range(PASSING_KEPT + 5):
        bus.publish("container", "exec_die", str(number), {}, lasting=False)
    bus.publish("container", "die", "last", {})
    seen = asyncio.run(told(bus, 1, clock.now_ns()))
    assert seen == ["kept", *map(str, range(5, PASSING_KEPT + 5)), "last"]
    assert [event.actor for event in EventBus(EventStore(database))._history(1, 2**62)] == [
        "kept",
        "last",
    ]
    database.close()


def test_history_and_live_join_without_a_gap(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    bus = EventBus(EventStore(database))

    async def scenario() -> list[str]:
        seen: list[str] = []
        for number in range(50):
            bus.publish("container", "start", str(number), {})
        stream = bus.stream(1, 0, lambda _: True)
        async for event in stream:
            seen.append(event.actor)
            if len(seen) < 50:  # more comes while the past is being told
                bus.publish("container", "start", str(49 + len(seen)), {})
            if len(seen) == 99:
                break
        await stream.aclose()
        return seen

    assert asyncio.run(scenario()) == [str(number) for number in range(99)]
    database.close()
