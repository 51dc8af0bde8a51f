"""The rollback stack: order, commit, failing and hanging undos, cancels."""

import asyncio

import pytest

from teu import tx
from teu.tx import Transaction


async def _run(body):
    return await asyncio.wait_for(body(), 5)


def test_rolls_back_in_reverse_and_reraises():
    done = []

    async def body():
        async with Transaction("test") as transaction:
            transaction.on_rollback("a", lambda: done.append("a"))
            transaction.on_rollback("b", lambda: done.append("b"))
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        asyncio.run(_run(body))
    assert done == ["b", "a"]


def test_commit_keeps_everything():
    done = []

    async def body():
        async with Transaction("test") as transaction:
            transaction.on_rollback("a", lambda: done.append("a"))
            transaction.commit()

    asyncio.run(_run(body))
    assert done == []


def test_leaving_without_commit_rolls_back():
    done = []

    async def body():
        async with Transaction("test") as transaction:
            transaction.on_rollback("a", lambda: done.append("a"))

    asyncio.run(_run(body))
    assert done == ["a"]


def test_a_failing_undo_is_noted_and_the_next_runs():
    done = []

    def fail():
        raise OSError("no")

    async def body():
        async with Transaction("test") as transaction:
            transaction.on_rollback("a", lambda: done.append("a"))
            transaction.on_rollback("b", fail)
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom") as caught:
        asyncio.run(_run(body))
    assert done == ["a"]
    assert any("undoing b failed" in note for note in caught.value.__notes__)


def test_a_hanging_undo_is_bounded(monkeypatch):
    monkeypatch.setattr(tx, "UNDO_LIMIT_S", 0.01)
    done = []

    async def body():
        async with Transaction("test") as transaction:
            transaction.on_rollback("a", lambda: done.append("a"))
            transaction.on_rollback("b", lambda: asyncio.Event().wait())
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        asyncio.run(_run(body))
    assert done == ["a"]


def test_further_cancels_do_not_stop_the_rollback():
    done = []

    async def body():
        entered, release = asyncio.Event(), asyncio.Event()

        async def undo():
            entered.set()
            await release.wait()
            done.append("a")

        async def work():
            async with Transaction("test") as transaction:
                transaction.on_rollback("a", undo)
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await entered.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not done
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(_run(body))
    assert done == ["a"]


def test_a_cancel_during_the_rollback_of_an_error_wins_with_the_error_as_cause():
    async def body():
        entered, release = asyncio.Event(), asyncio.Event()

        async def undo():
            entered.set()
            await release.wait()

        async def work():
            async with Transaction("test") as transaction:
                transaction.on_rollback("a", undo)
                raise ValueError("boom")

        task = asyncio.create_task(work())
        await entered.wait()
        task.cancel()
        await asyncio.sleep(0)
        release.set()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert isinstance(caught.value.__cause__, ValueError)

    asyncio.run(_run(body))
