"""The queue as RQ has it: how a ring gets there, and the worker that answers. What rings is in `jobs/__init__.py`."""

import functools
from importlib import import_module
from typing import Any

import redis
import sqlalchemy as sa
import structlog
from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty

import config
import jobs
import payments
from jobs import JOB_TIMEOUT, JOBS, LATER, LATER_QUEUE, QUEUE, RING_LIFETIME, OutOfTime
from models import db

log = structlog.get_logger()


def put(job: str, row_id: int | None) -> None:
    """Put a job into the queue, unless it lies there already. Gives up at once when Redis is away."""
    try:
        connection = doorbell(config.current().redis_url)
        if connection.set(_mark(job, row_id), 1, nx=True, ex=RING_LIFETIME):
            name = LATER_QUEUE if job in LATER else QUEUE
            queue = Queue(name, connection=connection, serializer=JSONSerializer, job_class=AllowedJob)
            queue.enqueue_call("jobs.perform", (job, row_id), timeout=JOB_TIMEOUT, result_ttl=0)
    except redis.RedisError as away:
        log.warning("the doorbell is out of order; the sweep will find the work", job=job, why=type(away).__name__)


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
        return Worker.count(connection=doorbell(config.current().redis_url)) > 0
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
        return jobs.perform

    success_callback = property(lambda self: None)
    failure_callback = property(lambda self: None)
    stopped_callback = property(lambda self: None)

    def send_webhooks(self, status: Any, *, exc_string: str | None = None) -> None:
        """Nobody outside is told of our jobs."""


class TimeIsUp(OutOfTime, JobTimeoutException):
    """RQ's own word for it, which is ours too: so a room of jobs can tell it from other trouble without loading RQ."""


class OurPenalty(UnixSignalDeathPenalty):
    """Ends a job that has run for too long with our word. RQ has other uses for its alarm, which keep theirs."""

    def __init__(self, timeout: int, exception: type[Exception] = JobTimeoutException, **more: Any) -> None:
        ours = TimeIsUp if exception is JobTimeoutException else exception
        super().__init__(timeout, ours, **more)  # type: ignore[no-untyped-call]


class StandingWorker(Worker):
    """A worker whose children do not share the parent's database connections."""

    death_penalty_class = OurPenalty

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        db.engine.dispose(close=False)
        super().main_work_horse(job, queue)


@functools.lru_cache(maxsize=4)
def doorbell(url: str) -> "redis.Redis":
    return redis.from_url(url, socket_timeout=0.2, socket_connect_timeout=0.2)


def _mark(job: str, row_id: int | None) -> str:
    return f"standing:rung:{job}:{row_id or ''}"


def forget_ring(job: str, row_id: int | None) -> None:
    """From here on a new ring is heard again, since the work it stands for may come after we looked."""
    try:
        doorbell(config.current().redis_url).delete(_mark(job, row_id))
    except redis.RedisError as away:
        log.warning("the doorbell is out of order", job=job, why=type(away).__name__)
