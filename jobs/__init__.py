"""The doorbell: `ring(job, id)` asks a worker to look at the database. The database is the record.

Redis and RQ hold nothing that matters. A ring that is lost is found by the sweep; a job rung twice finds that
there is nothing left to do. Only the functions in JOBS can ever be run from the queue, with ids alone.
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any, TypeVar

import redis
import sqlalchemy as sa
import structlog
from flask import current_app
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import BaseTimeoutException

import config
import payments
from law import Refused
from models import begin_reading, begin_writing, db, tables_are_ours

log = structlog.get_logger()
T = TypeVar("T")
# What RQ raises in a job that has run for JOB_TIMEOUT: it ends the job, while any other exception of one row is
# noted on that row and the job goes on with the next.
OutOfTime = BaseTimeoutException


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
    try:
        connection = _doorbell(config.current().redis_url)
        if connection.set(_mark(job, row_id), 1, nx=True, ex=RING_LIFETIME):
            name = LATER_QUEUE if job in LATER else QUEUE
            queue = Queue(name, connection=connection, serializer=JSONSerializer, job_class=AllowedJob)
            queue.enqueue_call("jobs.perform", (job, row_id), timeout=JOB_TIMEOUT, result_ttl=0)
    except redis.RedisError as away:
        log.warning("the doorbell is out of order; the sweep will find the work", job=job, why=type(away).__name__)


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
    run = getattr(import_module(JOBS[job]), job)
    _forget_ring(job, row_id)
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


def work() -> None:
    """Be a worker until stopped. The application is loaded already, so that each fork is quick."""
    connection = redis.from_url(config.current().redis_url)
    import_all_jobs()
    # These settings notice a dead worker after a minute and a half instead of a quarter of an hour.
    worker = StandingWorker(
        [
            Queue(name, connection=connection, serializer=JSONSerializer, job_class=AllowedJob)
            for name in (QUEUE, LATER_QUEUE)
        ],
        connection=connection, serializer=JSONSerializer, job_class=AllowedJob, worker_ttl=30,
        maintenance_interval=5, job_monitoring_interval=5,
    )  # fmt: skip
    worker.work(logging_level="WARNING")


def worker_is_there() -> bool:
    """Whether a worker listens at the moment."""
    try:
        return Worker.count(connection=_doorbell(config.current().redis_url)) > 0
    except redis.RedisError:
        return False


def import_all_jobs() -> None:
    """Load the jobs, and with them Stripe's SDK and the tables' mappers, before the fork instead of in every job."""
    for module in set(JOBS.values()):
        import_module(module)
    payments.load()
    sa.orm.configure_mappers()


class AllowedJob(Job):
    """A job that can be nothing but `jobs.perform`: what else stands in Redis was not put there by us.

    RQ imports whatever function a job names, also with the JSON serializer, and so do its callbacks; and it would
    post the outcome to any address that a job carries.
    """

    @property
    def func(self) -> Any:
        if self.func_name != "jobs.perform":
            raise PermissionError(f"{self.func_name!r} is not on the list of jobs")
        return perform

    success_callback = property(lambda self: None)
    failure_callback = property(lambda self: None)
    stopped_callback = property(lambda self: None)

    def send_webhooks(self, status: Any, *, exc_string: str | None = None) -> None:
        """Nobody outside is told of our jobs."""


class StandingWorker(Worker):
    """A worker whose children do not share the parent's database connections."""

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        db.engine.dispose(close=False)
        super().main_work_horse(job, queue)


@functools.lru_cache(maxsize=4)
def _doorbell(url: str) -> "redis.Redis":
    return redis.from_url(url, socket_timeout=0.2, socket_connect_timeout=0.2)


def _mark(job: str, row_id: int | None) -> str:
    return f"standing:rung:{job}:{row_id or ''}"


def _forget_ring(job: str, row_id: int | None) -> None:
    """From here on a new ring is heard again, since the work it stands for may come after we looked."""
    try:
        _doorbell(config.current().redis_url).delete(_mark(job, row_id))
    except redis.RedisError as away:
        log.warning("the doorbell is out of order", job=job, why=type(away).__name__)
