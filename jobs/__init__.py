"""The doorbell: `ring(job, id)` asks a worker to look at the database. The database is the record.

Redis and RQ hold nothing that matters. A ring that is lost is found by the sweep; a job rung twice finds that
there is nothing left to do. Only the functions in JOBS can ever be run from the queue, with ids alone.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import TypeVar

import structlog
from flask import current_app

import payments
from law import Refused
from models import begin_reading, begin_writing, db, tables_are_ours

log = structlog.get_logger()
T = TypeVar("T")


class OutOfTime(Exception):
    """A job has run for JOB_TIMEOUT: it ends, while any other exception of one row is noted on that row and the job
    goes on with the next."""


class Failed(Exception):
    """A job of ours has failed. Our own log says where, without anybody's name or address."""


# What may be rung, and where it lives.
JOBS = {
    "drain_stripe_events": "jobs.inbox",
    "settle_round": "jobs.deadline_capture",
    "charge_due": "jobs.deadline_capture",
    "make_card_pages": "jobs.card_pages",
    "let_go": "jobs.cards",
    "remove_old_cards": "jobs.cards",
    "tend": "jobs.repairs",
    "release_cancelled": "jobs.cancelled_cases",
    "send_refunds": "jobs.refunds",
    "launch_case": "jobs.launches",
    "publish_update": "jobs.launches",
    "send_letters": "jobs.post",
    "forget": "jobs.retention",
    "finish_erasures": "jobs.erasures",
    "examine_books": "jobs.doctor",
    "begin_reconciliation": "jobs.reconcile",
    "reconcile": "jobs.reconcile",
}
QUEUE = "standing"
# What may wait while money is at work; else a single worker would send letters in every second slice of a capture.
# When they have waited for long, the clock does them.
LATER = {"let_go", "send_letters", "forget", "finish_erasures", "examine_books", "begin_reconciliation", "reconcile"}
LATER_QUEUE = "standing-later"
# A job that is longer than this was forgotten by its worker; all of ours work in short slices.
JOB_TIMEOUT = 120
# A job that has worked for so many seconds ends and rings for the rest, so that other work gets its turn and the
# clock, when it has to do a job itself, goes on looking for what else is due.
SLICE = 10.0
# One ring for the same thing is enough until a worker has begun it, or until it was probably lost.
RING_LIFETIME = 20


def ring(job: str, row_id: int | None = None) -> None:
    """Ask a worker to run a job soon; call it after the commit. Gives up at once when Redis is away."""
    if job not in JOBS:
        raise ValueError(f"{job} is not a job")
    # RQ is loaded by whoever rings first: a web server that only readers ask never does.
    from jobs import queue

    queue.put(job, row_id)


def one_slice(things: Iterable[T], seconds: float | None = None) -> Iterator[T]:
    """Each of the things until a slice of time is over, SLICE when nothing else is said; the first in any case."""
    end = time.monotonic() + (SLICE if seconds is None else seconds)
    for thing in things:
        yield thing
        if time.monotonic() >= end:
            return


def each(things: Iterable[T], work: Callable[[T], object], put_back: Callable[[T, str], object],
         seconds: float | None = None) -> None:  # fmt: skip
    """Work on each of the things by itself until a slice of time is over; the first in any case."""
    for thing in one_slice(things, seconds):
        by_itself(thing, work, put_back)


def by_itself(thing: T, work: Callable[[T], object], put_back: Callable[[T, str], object]) -> None:
    """Work on one thing of many: whatever goes wrong with it, the others go on.

    What the work left uncommitted is rolled back; then `put_back`, with the trouble in a few words, makes the thing
    wait, and is committed. Only when the time of the whole job is up, all of it ends.
    """
    try:
        work(thing)
    except OutOfTime:
        raise
    except Exception as trouble:  # noqa: BLE001 - whatever it was, it belongs to this one thing, and is logged there
        set_aside(thing, trouble, work, put_back)


def set_aside(thing: T, trouble: Exception, work: Callable[..., object], put_back: Callable[[T, str], object]) -> None:
    """Make a thing wait with which the work went wrong. Commits."""
    begin_writing()
    expected = isinstance(trouble, payments.StripeTrouble)
    # What another library says may repeat a name or an address, so of that only the kind is kept.
    why = str(trouble)[:200] if expected else type(trouble).__name__
    put_back(thing, why)
    db.session.commit()
    doing = f"{work.__module__}.{work.__name__}"
    log.warning("put back", doing=doing, row=thing, why=why, exc_info=None if expected else trouble)


def perform(job: str, row_id: int | None) -> None:
    """Run one job of the list, in an application context of its own. Raises Failed for whatever the job raises,
    but for what was refused in our own words."""
    from jobs import queue

    run = getattr(import_module(JOBS[job]), job)
    queue.forget_ring(job, row_id)
    with current_app.app_context():
        if not _may_work():
            log.error("a job is left undone: the database is not of this release", job=job)
            return
        begin_writing()
        try:
            run() if row_id is None else run(row_id)
        except OutOfTime:
            raise
        except Exception as trouble:
            # Our log leaves out what is secret. RQ's does not, and it keeps what it is told in Redis.
            log.error("a job has failed", job=job, row=row_id, exc_info=trouble)
            if isinstance(trouble, Refused):
                raise
            raise Failed(f"{job} of {row_id}: {type(trouble).__name__}") from None


def _may_work() -> bool:
    """Not while a deploy is under way, and this process or the tables are of another release than the other."""
    begin_reading()
    return tables_are_ours()
