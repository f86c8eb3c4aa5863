"""The ``kernel`` leg for many askers: what waits is asked together, by one thread.

A guest takes seconds to start and a request is a round trip, so worker processes have no
guests of their own: their programs come back to the process that has, and queue here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from harness.legs.kernel import KernelAnswer, KernelLeg
from harness.model import Program, Unknown, Vector
from harness.source.driver import KFUNCS

MOST = 128  # programs that are asked about together; the others of the queue come next

Item = tuple[Program, Sequence[Vector]]


@dataclass(frozen=True, slots=True)
class _Question:
    items: Sequence[Item]
    log_level: int
    images: bool
    flags: Sequence[int]
    answers: Future[list[KernelAnswer]] = field(default_factory=Future)


class KernelQueue:
    """Questions to one leg, in the order they came; starts its guests at the first."""

    def __init__(self, leg: KernelLeg, *, without: str = "") -> None:
        """*without*: why the kernel has no functions of the project's, if it has none."""
        self.leg = leg
        self._without = without
        self._waiting: deque[_Question] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(
        self,
        items: Sequence[Item],
        *,
        log_level: int = 0,
        images: bool = False,
        flags: Sequence[int] = (),
    ) -> Future[list[KernelAnswer]]:
        """Return what will be Linux's answers to *items*, programs with their vectors.

        *flags* are as for ``KernelLeg.check``. It raises HarnessError where no guest starts.
        """
        question = _Question(tuple(items), log_level, images, tuple(flags) or (0,) * len(items))
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, daemon=True)
                self._thread.start()
            self._waiting.append(question)
            self._changed.notify()
        return question.answers

    def close(self) -> None:
        """End the guests; what still waits is not answered."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self.leg.close()
        if self._thread is not None:
            self._thread.join(10.0)

    def __enter__(self) -> KernelQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        while questions := self._take():
            items = [item for question in questions for item in question.items]
            first = questions[0]
            try:
                answers = iter(
                    self.leg.check(
                        [program for program, _ in items],
                        [vectors for _, vectors in items],
                        log_level=first.log_level,
                        images=first.images,
                        flags=[each for question in questions for each in question.flags],
                    )
                )
            except BaseException as error:
                for question in questions:
                    question.answers.set_exception(error)
                continue
            for question in questions:
                question.answers.set_result([self._said(next(answers)) for _ in question.items])

    def _said(self, answer: KernelAnswer) -> KernelAnswer:
        """Return *answer*; where the kernel lacks a function of ours, with the reason."""
        match answer.verdict:
            case Unknown(why=why) if self._without and KFUNCS in why:
                told = Unknown(f"{why}: {self._without}")
                return replace(answer, verdict=told, outcomes=(told,) * len(answer.outcomes))
        return answer

    def _take(self) -> list[_Question]:
        """Wait for a question; return it and those behind it that ask for the same things."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return []
                self._changed.wait()
            if self._closed:
                for question in self._waiting:
                    question.answers.cancel()
                return []
            taken = [self._waiting.popleft()]
            programs = len(taken[0].items)
            while self._waiting and programs < MOST:
                question = self._waiting[0]
                same = (question.log_level, question.images) == (
                    taken[0].log_level,
                    taken[0].images,
                )
                if not same:
                    break
                programs += len(question.items)
                taken.append(self._waiting.popleft())
            return taken
