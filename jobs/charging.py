"""The pace and the threads of the deadline capture, and of Stripe's inbox. It knows neither the database nor Stripe's
calls.

`Pacer` lets through so many a second. `PacedThreads` asks for one thing after the other through it and hands the
answers back to the one thread that waits for them. `deadline_capture`, `card_pages` and `inbox` use them; only
the first calls `payments.charge`.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from payments import StripeBusy

T = TypeVar("T")
A = TypeVar("A")

# At 100 a second and 300 ms for each answer some 36 are under way at once; the rest is for answers that take longer.
MOST_THREADS = 48
# A little under the limit: jitter on the way would else squeeze two seconds' worth into one.
SHARE = 0.985
# A thread that was late may make up for so many seconds; but in no second do more go out than the rate says.
CATCH_UP = 0.3
# "Too many requests" stops everybody for so many seconds, twice as long each time; what goes through shortens it again.
FIRST_PAUSE, LONGEST_PAUSE, RECOVERY = 0.02, 3.0, 0.9
# So often a busy Stripe is asked again for the same thing before it is put back for later.
MOST_TRIES = 6


class Pacer:
    """Lets threads through one after the other, at a rate, with a short stop when Stripe is busy.

    The rate itself is never cut: a lone refusal comes from jitter, and a pacer that slowed down at each of them
    fell to two thirds of what was allowed. Where the limit is lower than the rate, the stops bring it down.
    """

    def __init__(self, rate: float) -> None:
        self._gap = 1 / (rate * SHARE)
        # When the last so many went out, the oldest first.
        self._last_second: deque[float] = deque(maxlen=max(1, int(rate)))
        self._gate = threading.Lock()
        self._next = time.monotonic()
        self._stopped_until = self._stopped_at = 0.0
        self._pause = FIRST_PAUSE
        self._closed = threading.Event()

    def wait(self) -> float | None:
        """Return when the caller may ask; the instant of it, for `busy` and `went_through`. None once closed."""
        with self._gate:
            while not self._closed.is_set():
                now = time.monotonic()
                full = len(self._last_second) == self._last_second.maxlen
                at = max(self._next, self._stopped_until, self._last_second[0] + 1 / SHARE if full else 0.0)
                if at <= now:
                    self._next = max(self._next, now - CATCH_UP) + self._gap
                    self._last_second.append(now)
                    return now
                self._closed.wait(at - now)
            return None

    def close(self) -> None:
        """Nobody may ask any more; those who wait are told at once."""
        self._closed.set()

    def busy(self, asked_at: float) -> None:
        """Too many requests. What was asked before the last stop only echoes it, and does not make it longer."""
        if asked_at >= self._stopped_at:
            self._stopped_at = time.monotonic()
            self._stopped_until = self._stopped_at + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def went_through(self, asked_at: float) -> None:
        if asked_at >= self._stopped_at:
            self._pause = max(FIRST_PAUSE, self._pause * RECOVERY)


class NotBegun(Exception):
    """In place of an answer: there was no time left to ask."""


@dataclass(frozen=True)
class Answered(Generic[T, A]):
    """What was asked for, and what came of it: an answer, or the exception in its place."""

    asked: T
    answer: A | None
    trouble: Exception | None


class PacedThreads(Generic[T, A]):
    """Threads that ask at the pacer's rate. One thread gives them work with `add` and takes the answers.

    A busy Stripe has done nothing, so the same is asked again here, with the same key, when the pacer says so.
    """

    def __init__(self, ask: Callable[[T], A], rate: float) -> None:
        self._ask = ask
        self._pacer = Pacer(rate)
        self._to_ask: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answered[T, A]] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._threads = 0
        self.under_way = 0

    def add(self, things: Iterable[T]) -> None:
        for thing in things:
            self.under_way += 1
            self._to_ask.put(thing)
            if self._threads < min(self.under_way, MOST_THREADS):
                self._threads += 1
                # Daemons, so that a process that must end does not wait for Stripe.
                threading.Thread(target=self._work, name=f"asking-{self._threads}", daemon=True).start()

    def answers(self, most: int, within: float) -> list[Answered[T, A]]:
        """What was answered: waits for the first, then gathers for so many seconds or until there are `most`."""
        found: list[Answered[T, A]] = []
        end = time.monotonic() + within
        while len(found) < most:
            try:
                found.append(self._answers.get(timeout=max(0.0, end - time.monotonic())))
            except queue.Empty:
                break
        self.under_way -= len(found)
        return found

    def take_back(self) -> list[T]:
        """Nothing more is asked from here on. Returns what no thread had taken yet; the rest still comes back among
        the answers, what a thread had not begun as NotBegun."""
        self._pacer.close()
        left = []
        while True:
            try:
                thing = self._to_ask.get_nowait()
            except queue.Empty:
                break
            if thing is not None:
                left.append(thing)
        self.under_way -= len(left)
        return left

    def end(self) -> None:
        """Let the threads go home."""
        self.take_back()
        for _ in range(self._threads):
            self._to_ask.put(None)

    def _work(self) -> None:
        while True:
            # One at the door at a time, so that what was added first is asked for first.
            with self._door:
                thing = self._to_ask.get()
                if thing is None:
                    return
                asked_at = self._pacer.wait()
            self._answers.put(self._ask_until_not_busy(thing, asked_at))

    def _ask_until_not_busy(self, thing: T, asked_at: float | None) -> Answered[T, A]:
        trouble: Exception = NotBegun()
        tries = 0
        while asked_at is not None and tries < MOST_TRIES:
            tries += 1
            try:
                answer = self._ask(thing)
            except StripeBusy as busy:
                self._pacer.busy(asked_at)
                asked_at = self._pacer.wait()
                # A busy Stripe has done nothing: what there is no time to ask again for was not begun.
                trouble = busy if asked_at is not None else NotBegun()
            except Exception as other:  # noqa: BLE001 - whatever it was, it belongs to this one thing
                return Answered(thing, None, other)
            else:
                self._pacer.went_through(asked_at)
                return Answered(thing, answer, None)
        return Answered(thing, None, trouble)
