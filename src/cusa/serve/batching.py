"""One queue and one thread for each model: questions that wait at the same time are answered together.

A batch consists of the questions that wait when the model becomes free. A client that is alone never waits for others.
Among many, the clients of the last batch ask again one after the other while the next batch could start with the first
of them; so the model waits for half of them, a few milliseconds at most. The queue is bounded: a question that finds it
full is refused at once, so that neither memory nor waiting grows with the number of clients.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cusa.errors import CusaError
from cusa.serve.problems import busy

PATIENCE = 0.005  # seconds that a free model waits for more of many clients
Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Waiting(Generic[Question, Answer]):
    question: Question
    answer: asyncio.Future[Answer]
    loop: asyncio.AbstractEventLoop

    def settle(self, result: Answer | Exception) -> None:
        """Called in the thread of the event loop. A client that has hung up gets no answer."""
        if self.answer.done():
            return
        if isinstance(result, Exception):
            self.answer.set_exception(result)
        else:
            self.answer.set_result(result)


class Batcher(Generic[Question, Answer]):
    """Answers questions of many clients in one thread, up to `batch` of them together.

    `answer` gets the questions of a batch and returns as many answers. If it raises, the questions are asked again
    one by one, so that a question that cannot be answered fails alone. `observe` is called with the size of each batch.
    """

    def __init__(
        self,
        answer: Callable[[list[Question]], list[Answer]],
        batch: int,
        queue: int,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._answer, self.batch, self.queue, self._observe = answer, batch, queue, observe
        self._waiting: deque[_Waiting[Question, Answer]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._wanted = 1  # the thread sleeps until this number of questions waits
        self._seconds_each = 0.01  # seconds that a question took recently
        self._thread = threading.Thread(target=self._work, name="cusa-model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many questions wait."""
        return len(self._waiting)

    @property
    def is_alive(self) -> bool:
        """Whether questions are still being answered."""
        return self._thread.is_alive() and not self._closed

    def put(self, question: Question) -> asyncio.Future[Answer]:
        """Let a question wait. The future is that of the running event loop, and gets the answer.

        Raises RequestError with status 503 if the queue is full or the server stops.
        """
        with self._changed:
            if self._closed:
                raise busy("The server is stopping; ask again in a moment.", 5)
            if len(self._waiting) >= self.queue:
                seconds = self.queue * self._seconds_each
                raise busy(
                    f"{self.queue} queries are waiting already; ask again in {max(1, round(seconds))} s.", seconds
                )
            loop = asyncio.get_running_loop()
            waiting: _Waiting[Question, Answer] = _Waiting(question, loop.create_future(), loop)
            self._waiting.append(waiting)
            if len(self._waiting) >= self._wanted:
                self._changed.notify()
        return waiting.answer

    def withdraw(self, answer: asyncio.Future[Answer]) -> None:
        """Take a question out of the queue, if it still waits there. It is known by its future."""
        if answer.done():
            return
        answer.cancel()
        with self._changed:
            self._waiting = deque(waiting for waiting in self._waiting if waiting.answer is not answer)

    def close(self) -> None:
        """Answer what waits, refuse what comes, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        answered = 0
        while True:
            with self._changed:
                self._wanted = min(self.batch, (answered + len(self._waiting)) // 2)
                self._changed.wait_for(lambda: len(self._waiting) >= self._wanted or self._closed, PATIENCE)
                self._wanted = 1
                self._changed.wait_for(lambda: self._waiting or self._closed)
                taken = [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]
            if not taken:
                return
            started = time.perf_counter()
            results = self._answers([waiting.question for waiting in taken])
            self._seconds_each = 0.8 * self._seconds_each + 0.2 * (time.perf_counter() - started) / len(taken)
            answered = len(taken)
            self._observe(answered)
            taken[0].loop.call_soon_threadsafe(_settle, taken, results)

    def _answers(self, questions: list[Question]) -> list[Answer | Exception]:
        try:
            return list(self._answer(questions))
        except CusaError as error:
            if len(questions) == 1:
                return [error]
            return [result for question in questions for result in self._answers([question])]
        # Whatever a model raises has to reach the clients that wait for it, and must not end the thread.
        except Exception as error:  # noqa: BLE001
            return [error] * len(questions)


def _settle(taken: list[_Waiting[Question, Answer]], results: list[Answer | Exception]) -> None:
    for waiting, result in zip(taken, results, strict=True):
        waiting.settle(result)
