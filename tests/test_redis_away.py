"""Redis is gone for an hour across a deadline, by the clock: nobody rings, and what is due is done all the same."""

import contextlib
import datetime as dt
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
import sqlalchemy as sa
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from rq import Queue
from rq.serializers import JSONSerializer

import jobs
from jobs import reconcile
from jobs import sweep as the_sweep
from models import Event, Lease, Letter, Movement, StripeEvent, db
from tests.at_stripe import calls, move_clock, sdk
from tests.books import contradictions
from tests.doorway import signature
from tests.house import eventually, valkey_binary
from tests.made import a_case, case_at, keep, look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess
from tests.test_reconcile import a_pledge_at_stripe

MINUTE, HOUR = dt.timedelta(minutes=1), dt.timedelta(hours=1)
# As often as the clock really comes by.
EVERY = dt.timedelta(seconds=the_sweep.EVERY)
# What is rung for is done by the clock when nobody has come for 15 seconds: once to decide, then once to charge.
MOST_SWEEPS = 12
BY_THE_DEADLINE = ("round", "pledge")


@contextmanager
def valkey_at(app: Flask) -> Iterator["redis.Redis"]:
    """A Valkey, with nothing in it, where the application looks for one; killed at the end."""
    url = app.config["STANDING"].redis_url
    socket = Path(url.removeprefix("unix://"))
    program = subprocess.Popen(
        [valkey_binary(), "--port", "0", "--unixsocket", socket, "--dir", socket.parent, "--save", ""],
        stdout=subprocess.DEVNULL,
    )

    def answers(connection: "redis.Redis") -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(connection.ping())
        return False

    try:
        with redis.from_url(url, socket_timeout=5) as connection:
            eventually(lambda: answers(connection), why="Valkey did not come up")
            yield connection
    finally:
        program.kill()
        program.wait(20)


def rung(valkey: "redis.Redis") -> list[list[Any]]:
    """The jobs that a worker would be given, each with the id of its row."""
    queues = [Queue(name, connection=valkey, serializer=JSONSerializer) for name in (jobs.QUEUE, jobs.LATER_QUEUE)]
    return [list(job.args) for queue in queues for job in queue.jobs]


def sweeps(sandbox: SandboxProcess, begun: dt.datetime, first: dt.datetime, last: dt.datetime,
           every: dt.timedelta) -> Iterator[dt.datetime]:  # fmt: skip
    """The clock comes by again and again, from the one instant to the other; after each time, the instant."""
    moment = first
    while moment <= last:
        move_clock(sandbox, moment - begun)
        with time_machine.travel(moment, tick=False):
            the_sweep.sweep(now())
        look_anew()
        yield moment
        moment += every


def what_is_so() -> dict[str, list[tuple[Any, ...]]]:
    """What the deadline has led to: every move of the round and of the pledges, the money, and the letters."""
    look_anew()
    moves = sa.select(Event.subject_kind, Event.subject_id, Event.what, Event.after)
    asked = {
        "moves": moves.where(Event.subject_kind.in_(BY_THE_DEADLINE)).order_by(Event.id),
        "charges": sa.select(Movement.stripe_id, Movement.amount_pence)
        .where(Movement.kind == "charge")
        .order_by(Movement.id),
        "letters": sa.select(Letter.kind, Letter.subject, Letter.message_id, Letter.sent_at).order_by(Letter.id),
    }
    return {name: [tuple(row) for row in db.session.execute(question)] for name, question in asked.items()}


def test_while_redis_is_away_for_an_hour_across_the_deadline_the_clock_does_it_all_and_its_return_changes_nothing(
    asks_the_sandbox: Flask, client: FlaskClient, sandbox: SandboxProcess
) -> None:
    """What the target of £51 lacks is a card of which Stripe's news comes while nobody can be rung for, and one of
    which no news comes at all."""
    begun = now()
    # The comparisons with Stripe, which would find it as well, come after this hour.
    for name in (reconcile.HOURLY, reconcile.DAILY):
        Lease.wind(name, begun + 2 * HOUR)
    keep()
    case = a_case(target=5_100, ends_in=30 * MINUTE)
    slug, round_id, deadline = case.slug, case.round.id, case.round.deadline
    with valkey_at(asks_the_sandbox) as valkey:
        a_pledge_at_stripe(case.round, sandbox, 2_500)
        a_pledge_at_stripe(case_at(slug).round, sandbox, 2_600)
        jobs.ring("settle_round", round_id)
        assert rung(valkey) == [["settle_round", round_id]]
    told, _ = pledges_of(slug)
    news_of_its_card(client, sandbox, str(told.session_id))
    for _ in sweeps(sandbox, begun, begun + MINUTE, deadline, MINUTE):
        assert case_at(slug).round.status == "open"
    assert [pledge.status for pledge in pledges_of(slug)] == ["confirmed", "started"]

    seen = []
    for _ in sweeps(sandbox, begun, deadline + EVERY, deadline + 2 * MINUTE, EVERY):
        pledges = [pledge.status for pledge in pledges_of(slug)]
        unsent = db.session.scalar(sa.select(sa.func.count()).where(Letter.sent_at.is_(None)))
        seen.append((case_at(slug).round.status, *pledges, unsent))
    met = [one[0] for one in seen].index("met") + 1
    charged = [one[1:3] for one in seen].index(("charged", "charged")) + 1
    posted = [one[1:] for one in seen].index(("charged", "charged", 0)) + 1
    print(f"decided by sweep {met} after the deadline, charged by sweep {charged}, told of by sweep {posted}")
    assert met < charged <= MOST_SWEEPS
    assert posted <= 2 * MOST_SWEEPS
    so_far = what_is_so()
    assert [amount for _, amount in so_far["charges"]] == [2_500, 2_600]
    for _ in sweeps(sandbox, begun, deadline + 3 * MINUTE, deadline + 30 * MINUTE, MINUTE):
        assert what_is_so() == so_far

    with valkey_at(asks_the_sandbox) as valkey:
        back = deadline + 31 * MINUTE
        # All that was lost while it was away is rung for once more.
        for job in ("settle_round", "charge_due", "drain_stripe_events", "send_letters"):
            jobs.ring(job, round_id if job == "settle_round" else None)
        for moment in sweeps(sandbox, begun, back, back + MINUTE, EVERY):
            with time_machine.travel(moment, tick=False):
                for job, row_id in rung(valkey):
                    jobs.perform(job, row_id)
    assert what_is_so() == so_far
    assert len(calls(sandbox, "payment_intents.create")) == 2
    assert contradictions() == []


def news_of_its_card(client: FlaskClient, sandbox: SandboxProcess, session_id: str) -> None:
    """Stripe tells of a saved card, which is kept and acknowledged though nobody can be rung for."""
    keep()
    listed = sdk(sandbox).v1.events.list({"limit": 100, "types": ["checkout.session.completed"]}).data
    (event,) = [event for event in listed if event.data.object.id == session_id]
    raw = json.dumps(event.to_dict()).encode()
    assert client.post("/webhooks/stripe", data=raw, headers={"Stripe-Signature": signature(raw)}).status_code == 200
    assert db.session.scalar(sa.select(StripeEvent.processed_at)) is None
