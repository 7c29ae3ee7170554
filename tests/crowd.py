"""Many at once: threads of this process that each have a session, so a connection, of their own."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from flask import Flask

from models import begin_writing, db

T = TypeVar("T")


def at_once(app: Flask, *work: Callable[[], T], within: float = 60.0) -> list[T]:
    """Do all of it at the same moment, each in a thread, and give what came of each, in order.

    Raises the first error. Ends the transaction of the caller, which could hold what the others wait for.
    """
    db.session.rollback()
    together = threading.Barrier(len(work))

    def one(do: Callable[[], T]) -> T:
        together.wait(within)
        return _in_its_own_context(app, do)

    with ThreadPoolExecutor(len(work)) as pool:
        return [begun.result(within) for begun in [pool.submit(one, do) for do in work]]


def meet_after(monkeypatch: pytest.MonkeyPatch, room: Any, name: str, people: int, within: float = 60.0) -> None:
    """Nobody goes on from this function of a room before so many have come there: each of them has seen by then what
    was so before any of them acted. Whoever holds a lock there keeps the others from coming, and the test fails."""
    together, real = threading.Barrier(people), getattr(room, name)

    def slowly(*given: Any) -> Any:
        result = real(*given)
        together.wait(within)
        return result

    monkeypatch.setattr(room, name, slowly)


def in_another_thread(app: Flask, do: Callable[[], T], within: float = 15.0) -> T:
    """Do it meanwhile, whatever the transaction of the caller holds; fails the test when it takes too long."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_in_its_own_context, app, do).result(within)


def _in_its_own_context(app: Flask, do: Callable[[], T]) -> T:
    with app.app_context():
        begin_writing()
        try:
            return do()
        finally:
            db.session.remove()
