"""A limit of transfers at a time that may change while they run."""

import asyncio

from teu.image.slots import Slots


def test_limit() -> None:
    limit = [2]
    running: list[int] = []
    most = [0]
    go_on = asyncio.Event()

    async def work(slots: Slots, number: int) -> None:
        async with slots:
            running.append(number)
            most[0] = max(most[0], len(running))
            await go_on.wait()
            running.remove(number)

    async def whole() -> None:
        slots = Slots(lambda: limit[0])
        tasks = [asyncio.create_task(work(slots, number)) for number in range(6)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert running == [0, 1]
        assert slots.locked()
        limit[0] = 3  # from the next end on
        tasks[2].cancel()  # one that waits
        go_on.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not slots.locked()

    asyncio.run(whole())
    assert running == []
    assert most[0] <= 3


def test_a_turn_that_nobody_takes_goes_to_the_next() -> None:
    async def whole() -> None:
        slots = Slots(lambda: 1)
        done: list[str] = []

        async def work(name: str) -> None:
            async with slots:
                done.append(name)

        await slots.__aenter__()
        first, second = (asyncio.create_task(work(name)) for name in ("first", "second"))
        await asyncio.sleep(0)
        await slots.__aexit__()
        first.cancel()  # in the very moment that it was woken
        async with asyncio.timeout(5):
            await asyncio.gather(first, second, return_exceptions=True)
        assert done == ["second"]

    asyncio.run(whole())
