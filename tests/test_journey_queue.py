"""Redis and RQ are only the doorbell: away, emptied, doubled or abused, nothing is lost and nothing else runs."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import sqlalchemy as sa
from flask import g
from rq import Callback, Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.webhook import Webhook

from jobs import QUEUE
from models import StripeEvent, db
from tests.doorway import set_otherwise
from tests.house import House, eventually
from tests.journey import (
    NOBODY_CAME,
    a_real_pledge,
    calls,
    decisions,
    movements_of,
    on_card_page,
    round_of,
    save_card_and_close_the_tab,
    states,
    the_deadline_comes,
    time_passes,
    told,
)
from tests.made import a_case, look_anew, pledges_of
from tests.reader import Reader
from views import limits


@pytest.fixture
def valkey(house: House) -> "Iterator[redis.Redis]":
    """A connection to the doorbell, as somebody has who broke into the machine."""
    with house.valkey() as connection:
        yield connection


@pytest.fixture
def second_sweep(house: House) -> Iterator[None]:
    """Another sweep beside the first."""
    house.commands["second sweep"] = house.commands["sweep"]
    house.start("second sweep")
    yield
    house.kill("second sweep")
    del house.commands["second sweep"]


def test_without_redis_a_pledge_is_taken_confirmed_and_charged_by_the_sweep(house: House) -> None:
    slug = a_case(target=7_500).slug
    house.kill("valkey")
    a_real_pledge(house, slug, 50, email="no-redis@example.org")
    at_stripe, pledge = on_card_page(house, slug, 25)
    save_card_and_close_the_tab(at_stripe)
    assert eventually(lambda: _is_in_the_inbox(str(pledge.session_id)))
    time_passes(slug)
    assert eventually(lambda: states(slug) == ["confirmed", "confirmed"])
    assert "£75 pledged of £75 target from 2 pledges" in Reader(house.url).open(f"/cases/{slug}").words
    the_deadline_comes(slug, ago=NOBODY_CAME)
    assert eventually(lambda: round_of(slug).status == "met")
    time_passes(slug)
    assert eventually(lambda: states(slug) == ["charged", "charged"])
    assert [len(house.payments_of(pledge.id)) for pledge in pledges_of(slug)] == [1, 1]
    time_passes(slug)
    told(house, "no-redis@example.org", "Your £50 pledge counts", "Your card was charged £50")


def test_valkey_is_emptied_with_work_in_it_and_nothing_is_lost(house: House, valkey: "redis.Redis") -> None:
    slug = a_case(target=2_500).slug
    house.kill("worker")
    at_stripe, pledge = on_card_page(house, slug, 25, email="emptied@example.org")
    save_card_and_close_the_tab(at_stripe)
    assert eventually(lambda: _is_in_the_inbox(str(pledge.session_id)))
    the_deadline_comes(slug)
    assert Queue(QUEUE, connection=valkey, serializer=JSONSerializer).count >= 2
    valkey.flushall()
    house.start("worker")
    assert eventually(lambda: states(slug) == ["charged"])
    assert len(house.payments_of(pledge.id)) == 1
    told(house, "emptied@example.org", "Your £25 pledge counts", "Your card was charged £25")


def test_a_dead_worker_is_forgotten_within_a_minute_and_a_half(house: House, valkey: "redis.Redis") -> None:
    """RQ's own settings would list it for eight minutes, and its job as one that is being worked on."""
    pid = str(house.programs["worker"].pid).encode()

    def known() -> list[Any]:
        return [worker for worker in valkey.smembers("rq:workers") if valkey.hget(worker, "pid") == pid]

    (worker,) = eventually(known)
    house.kill("worker")
    assert 0 < valkey.ttl(worker) <= 90


def test_two_sweeps_that_do_the_work_themselves_do_it_once(house: House, second_sweep: None) -> None:
    slug = a_case(target=7_500).slug
    house.kill("worker")
    pledges = [a_real_pledge(house, slug, 50, email="two-sweeps@example.org"), a_real_pledge(house, slug, 25)]
    on_card_page(house, slug, 10)
    # Long enough for the second to come by while the first still waits for Stripe.
    house.fault(operation="payment_intents.create", fault="hang", seconds=4, times=2)
    the_deadline_comes(slug, ago=NOBODY_CAME)
    assert eventually(lambda: round_of(slug).status == "met")
    time_passes(slug)
    assert eventually(lambda: states(slug) == ["charged", "charged", "abandoned"])
    for pledge in pledges:
        assert len(calls(house, "payment_intents.create", pledge)) == 1
        assert len(house.payments_of(pledge.id)) == len(movements_of(pledge)) == 1
    assert decisions(slug) == ["met"]
    time_passes(slug)
    told(house, "two-sweeps@example.org", "Your £50 pledge counts", "Your card was charged £50")


def leave_a_trace(job: Job, *_: Any) -> None:
    """What a foreign callback would do; the worker could import it from here."""
    Path(job.meta["trace"]).touch()


FOREIGN = "tests.test_journey_queue.leave_a_trace"


@pytest.mark.parametrize(
    ("function", "first", "callbacks", "ends"),
    [
        ("os.system", "touch {trace}", {}, "failed"),
        ("jobs.perform", "os.system", {"on_failure": Callback(FOREIGN)}, "failed"),
        ("jobs.perform", "send_letters", {"on_success": Callback(FOREIGN)}, "finished"),
    ],
    ids=["as a job", "when a job of ours fails", "when a job of ours succeeds"],
)
def test_a_foreign_job_in_redis_has_no_effect_and_the_worker_goes_on(
    house: House, valkey: "redis.Redis", tmp_path: Path, function: str, first: str, callbacks: Any, ends: str
) -> None:
    trace = tmp_path / "trace"
    arguments = [first.format(trace=trace)] if function == "os.system" else [first, None]
    queue = Queue(QUEUE, connection=valkey, serializer=JSONSerializer)
    foreign = queue.enqueue(function, *arguments, meta={"trace": str(trace)}, **callbacks)
    assert eventually(lambda: _ended(foreign, valkey) == ends)
    slug = a_case().slug
    at_stripe, _ = on_card_page(house, slug, 25)
    save_card_and_close_the_tab(at_stripe)
    assert eventually(lambda: states(slug) == ["confirmed"])
    assert not trace.exists()
    assert house.programs["worker"].poll() is None


def test_a_job_in_redis_cannot_make_the_worker_call_an_address(house: House, valkey: "redis.Redis") -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        told_to = Webhook(f"http://127.0.0.1:{outside.getsockname()[1]}/", job_status="failed", timeout=2)
        queue = Queue(QUEUE, connection=valkey, serializer=JSONSerializer)
        queue.enqueue("os.system", "true", webhooks=[told_to])
        behind_it = queue.enqueue("jobs.perform", "send_letters", None)
        assert eventually(lambda: _ended(behind_it, valkey) == "finished")
        outside.setblocking(False)
        with pytest.raises(BlockingIOError):
            outside.accept()


def _ended(job: Job, valkey: "redis.Redis") -> str:
    return str(Job.fetch(job.id, valkey, serializer=JSONSerializer).get_status().value)


def _is_in_the_inbox(object_id: str) -> bool:
    look_anew()
    return db.session.scalar(sa.select(StripeEvent.id).where(StripeEvent.object_id == object_id)) is not None


def test_limits_that_are_counted_in_turn_at_once_are_those_that_are_counted_one_by_one(house: House) -> None:
    tries = ("pledge", ""), ("network", "of-a-library"), ("card page", "in-turn@limits.example")
    with (
        set_otherwise(
            house.app, rate_pledge="3 per hour", rate_network="2 per hour", rate_card_page="3 per hour"
        ) as site,
        site.test_request_context("/", environ_base={"REMOTE_ADDR": "192.0.2.77"}),
    ):
        assert [limits.any_too_many(*tries) for _ in range(3)] == [False, False, True]
        assert 3500 < g.retry_after <= 3601
        # The third try was one too many for the network, so it was none for the card page any more.
        assert limits.too_many("pledge") and limits.too_many("network", "of-a-library")
        assert [limits.too_many("card page", "in-turn@limits.example") for _ in range(2)] == [False, True]


NOT_OURS_TO_SAY = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG SET dir /", "CONFIG GET *", "ACL LIST", "SHUTDOWN NOSAVE",
    "REPLICAOF 127.0.0.1 1", "MODULE LIST", "SCRIPT FLUSH", "MONITOR", "CLIENT KILL TYPE normal", "EVAL return(1) 0",
    "PUBLISH rq:pubsub:all stop", "GET of-another-program", "SET of-another-program 1", "SUBSCRIBE of-another-program",
)  # fmt: skip


def test_our_programs_can_say_to_valkey_what_they_need_and_nothing_else(house: House, valkey: "redis.Redis") -> None:
    """At the end of all tests Valkey's own list of what was refused is empty, so they do get what they need."""
    ours: Any
    with redis.from_url(str(house.settings["redis_url"]), socket_timeout=5) as ours:
        assert ours.ping()
        for asked in NOT_OURS_TO_SAY:
            with pytest.raises(redis.exceptions.NoPermissionError):
                ours.execute_command(*asked.split())
    assert len(valkey.acl_log()) >= 10
    valkey.acl_log_reset()


def test_valkey_listens_on_no_port_and_lets_nobody_in_without_a_password(house: House, valkey: "redis.Redis") -> None:
    socket_file = house.folder / "valkey.sock"
    with redis.from_url(f"unix://{socket_file}") as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    for password in ("", "change me", "wrong"):
        guesser = redis.from_url(f"unix://standing:{password}@{socket_file}")
        with guesser, pytest.raises(redis.AuthenticationError):
            guesser.ping()
    assert [*valkey.config_get("port").values()] in (["0"], [b"0"])
    assert socket_file.stat().st_mode & 0o007 == 0
    valkey.acl_log_reset()
