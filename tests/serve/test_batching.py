"""Questions of many clients, answered together by one thread."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cusa.errors import DataError
from cusa.serve.batching import Batcher
from cusa.serve.problems import RequestError


class Doubling:
    """Answers numbers with their double, when it is let; refuses those below 0 and fails at 99."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may = threading.Event()
        self.began = threading.Event()

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        self.began.set()
        assert self.may.wait(10)
        if min(numbers) < 0:
            raise DataError(f"{min(numbers)} is below 0")
        if 99 in numbers:
            raise ZeroDivisionError
        return [2 * number for number in numbers]


async def begun(doubling: Doubling) -> None:
    assert await asyncio.to_thread(doubling.began.wait, 10)


def run(work, batch: int = 4, queue: int = 8):
    """Run a coroutine function of a batcher and its Doubling, and return the latter."""
    doubling, sizes = Doubling(), []

    async def main() -> None:
        batcher = Batcher(doubling, batch, queue, sizes.append)
        try:
            await work(batcher, doubling)
        finally:
            doubling.may.set()
            await asyncio.to_thread(batcher.close)

    asyncio.run(main())
    return doubling, sizes


def test_what_waits_is_answered_together_up_to_a_batch():
    async def work(batcher, doubling):
        first = batcher.put(0)
        await begun(doubling)
        others = [batcher.put(number) for number in range(1, 7)]
        assert len(batcher) == 6
        doubling.may.set()
        assert await asyncio.gather(first, *others) == [0, 2, 4, 6, 8, 10, 12]

    doubling, sizes = run(work)
    assert doubling.batches == [[0], [1, 2, 3, 4], [5, 6]]
    assert sizes == [1, 4, 2]


def test_a_batch_of_one_turns_batching_off():
    async def work(batcher, doubling):
        doubling.may.set()
        assert await asyncio.gather(*(batcher.put(number) for number in range(3))) == [0, 2, 4]

    doubling, _ = run(work, batch=1)
    assert doubling.batches == [[0], [1], [2]]


def test_a_question_that_cannot_be_answered_fails_alone():
    async def work(batcher, doubling):
        first = batcher.put(0)
        await begun(doubling)
        others = [batcher.put(number) for number in (1, -5, 3)]
        doubling.may.set()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        assert [found[0], found[1], found[3]] == [0, 2, 6]
        assert isinstance(found[2], DataError)

    run(work)


def test_among_many_clients_the_model_waits_for_half_of_them(monkeypatch):
    monkeypatch.setattr("cusa.serve.batching.PATIENCE", 60)

    async def work(batcher, doubling):
        first = batcher.put(0)
        await begun(doubling)
        others = [batcher.put(number) for number in range(1, 7)]
        doubling.may.set()
        await asyncio.gather(first, *others)
        third, fourth = batcher.put(7), batcher.put(8)
        await asyncio.sleep(0.05)
        assert len(batcher) == 2  # of the six that were answered together, three are waited for
        assert await asyncio.gather(third, fourth, batcher.put(9)) == [14, 16, 18]

    doubling, _ = run(work, batch=8)
    assert doubling.batches == [[0], [1, 2, 3, 4, 5, 6], [7, 8, 9]]


def test_one_or_two_clients_wait_for_nobody(monkeypatch):
    monkeypatch.setattr("cusa.serve.batching.PATIENCE", 60)

    async def work(batcher, doubling):
        doubling.may.set()
        assert await batcher.put(1) == 2
        assert await asyncio.gather(batcher.put(2), batcher.put(3)) == [4, 6]
        assert await batcher.put(4) == 8

    run(work)


def test_after_a_mistake_the_thread_answers_on():
    async def work(batcher, doubling):
        doubling.may.set()
        with pytest.raises(ZeroDivisionError):
            await batcher.put(99)
        assert await batcher.put(1) == 2
        assert batcher.is_alive

    run(work)


def test_a_full_queue_refuses_and_says_when_to_come_again():
    async def work(batcher, doubling):
        waiting = [batcher.put(0)]
        await begun(doubling)
        waiting += [batcher.put(number) for number in range(8)]
        with pytest.raises(RequestError, match="8 queries are waiting already; ask again in 1 s") as refused:
            batcher.put(9)
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        doubling.may.set()
        await asyncio.gather(*waiting)
        assert await batcher.put(9) == 18

    run(work)


def test_who_hangs_up_leaves_the_queue():
    async def work(batcher, doubling):
        first = batcher.put(0)
        await begun(doubling)
        gone, stays = batcher.put(1), batcher.put(2)
        batcher.withdraw(gone)
        assert len(batcher) == 1
        batcher.withdraw(first)  # it is being answered already, and nobody is told
        doubling.may.set()
        assert await stays == 4
        assert gone.cancelled()

    doubling, _ = run(work)
    assert doubling.batches == [[0], [2]]


def test_what_waits_at_the_end_is_answered_and_nothing_more_is_taken():
    async def work(batcher, doubling):
        first = batcher.put(0)
        await begun(doubling)
        second = batcher.put(1)
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close))
        while batcher.is_alive:
            await asyncio.sleep(0.001)
        with pytest.raises(RequestError, match="The server is stopping"):
            batcher.put(2)
        doubling.may.set()
        assert await asyncio.gather(first, second) == [0, 2]
        await closing

    run(work)
