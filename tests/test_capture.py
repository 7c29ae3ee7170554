"""The capturer at full speed: one at a time, fair, patient with a busy Stripe, and safe to kill at any moment.

Some tests call the job in this process; those about deaths and lost doorbells run the whole house.
"""

import datetime as dt
import functools
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
import stripe as sdk
import time_machine
from flask import Flask

import jobs
import payments
from bench.growth import copies_of_pledge, sqlites_steps
from jobs import charging, deadline_capture
from jobs import sweep as the_sweep
from jobs.charging import PacedThreads
from models import ChargeAttempt, Lease, Movement, Pledge, Round, StripeEvent, begin_writing, db
from tests.at_stripe import saved_card
from tests.house import House, eventually, free_port
from tests.journey import states, the_deadline_comes, time_passes, writing
from tests.made import a_case, a_pledge, a_user, case_at, confirm, keep, now, pledges_of
from tests.sandbox_process import SandboxProcess, start_sandbox

CREATE = "payment_intents.create"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def _stripe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    running = start_sandbox(tmp_path_factory.mktemp("stripe"), None, free_port())
    yield running
    running.stop()


@pytest.fixture
def stripe(app: Flask, _stripe: SandboxProcess) -> Iterator[SandboxProcess]:
    """The sandbox, empty and without limits, and the application told where it is."""
    requests.post(f"{_stripe.url}/sandbox/reset", timeout=30).raise_for_status()
    rate(app, 1_000, _stripe)
    yield _stripe
    limits(_stripe, per_endpoint=0, in_all=0, latency=0)


def rate(app: Flask, a_second: float, stripe: SandboxProcess) -> None:
    changes = {"stripe_api_base": stripe.url, "checkout_origin": stripe.url, "capture_rate": a_second}
    app.config["STANDING"] = app.config["STANDING"].model_copy(update=changes)


def limits(stripe: SandboxProcess, **wanted: float) -> None:
    requests.post(f"{stripe.url}/sandbox/limits", json=wanted, timeout=30).raise_for_status()


def fault(stripe: SandboxProcess, **plan: Any) -> None:
    requests.post(f"{stripe.url}/sandbox/faults", json=plan, timeout=30).raise_for_status()


def asked(stripe_url: str) -> list[dict[str, Any]]:
    """Every charge that was asked for, oldest first."""
    calls = requests.get(f"{stripe_url}/sandbox/calls", {"operation": CREATE}, timeout=30).json()
    return [dict(call) for call in calls]


def asked_for(stripe_url: str) -> list[int]:
    """The pledges that were asked for, in the order of the calls."""
    return [int(call["params"]["metadata[pledge_id]"]) for call in asked(stripe_url)]


def due(card: tuple[str, str], count: int, ago: dt.timedelta = dt.timedelta(0)) -> str:
    """A case that was met with so many pledges of £25, all due and with a card that works; where it stands."""
    slug = with_cards(card, count, ends_in=dt.timedelta(hours=1))
    its_round = Round.hold(case_at(slug).round.id)
    its_round.move_deadline(now() - ago - dt.timedelta(seconds=1), "test", now())
    its_round.close(now() - ago)
    its_round.settle(now() - ago)
    keep()
    return slug


def with_cards(card: tuple[str, str], count: int, **of_the_case: Any) -> str:
    case = a_case(target=2_500, **of_the_case)
    slug, round_id = case.slug, case.round.id
    begin_writing()
    for _ in range(count):
        pledge = confirm(a_pledge(Round.hold(round_id), 2_500))
        pledge.customer_id, pledge.payment_method_id = card
    keep()
    return slug


def _is_past(moment: dt.datetime) -> bool:
    return now() > moment


def states_of(slug: str) -> Counter[str]:
    return Counter(pledge.status for pledge in pledges_of(slug))


def charged_exactly_once(stripe_url: str, slug: str, count: int) -> None:
    """Each pledge: one state, one line in the ledger, one attempt, one key, one payment at Stripe."""
    ids = [pledge.id for pledge in pledges_of(slug)]
    assert states_of(slug) == {"charged": count}
    moved = db.session.scalars(sa.select(Movement.pledge_id).where(Movement.pledge_id.in_(ids)))
    assert sorted(one for one in moved if one) == ids
    attempts = db.session.scalars(sa.select(ChargeAttempt.pledge_id).where(ChargeAttempt.pledge_id.in_(ids)))
    assert sorted(attempts) == ids
    keys = {call["idempotency_key"] for call in asked(stripe_url) if int(call["params"]["metadata[pledge_id]"]) in ids}
    assert keys == {f"pledge-{one}-charge-1" for one in ids}
    paid = Counter(payment["metadata"].get("pledge_id") for payment in all_payments(stripe_url))
    assert [paid[str(one)] for one in ids] == [1] * count


def all_payments(stripe_url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    more = True
    while more:
        page = {"limit": 100} | ({"starting_after": found[-1]["id"]} if found else {})
        answer = requests.get(
            f"{stripe_url}/v1/payment_intents", page, headers={"Authorization": "Bearer sk_test_x"}, timeout=30
        ).json()
        found += answer["data"]
        more = answer["has_more"]
    return found


# --- One at a time -----------------------------------------------------------------------------------------


def test_two_capturers_at_once_ask_for_each_pledge_once(app: Flask, stripe: SandboxProcess) -> None:
    slug = due(saved_card(stripe), 40)
    limits(stripe, latency=0.2)

    def capture() -> None:
        with app.app_context():
            begin_writing()
            deadline_capture.charge_due()
            db.session.remove()

    both = [threading.Thread(target=capture) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert max(Counter(asked_for(stripe.url)).values()) == 1
    charged_exactly_once(stripe.url, slug, 40)


def test_a_capturer_keeps_its_lease_and_its_claims_while_stripe_is_slow(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = due(saved_card(stripe), 1)
    monkeypatch.setattr(deadline_capture, "CAPTURE_LEASE", dt.timedelta(seconds=1))
    monkeypatch.setattr(deadline_capture, "CLAIM_LEASE", dt.timedelta(seconds=1))
    monkeypatch.setattr(deadline_capture, "BEAT", 0.2)
    fault(stripe, operation=CREATE, fault="hang", seconds=3)
    held: list[bool] = []

    def look() -> None:
        """While Stripe still thinks, well after the first lease would have ended."""
        with app.app_context():
            begin_writing()
            eventually(lambda: asked(stripe.url))
            for _ in range(2):
                begun = now()
                eventually(functools.partial(_is_past, begun + dt.timedelta(seconds=1)))
                held.append(Lease.held("capture", now()) and not Round.with_charges_waiting(now()))
                db.session.rollback()
            db.session.remove()

    watcher = threading.Thread(target=look)
    watcher.start()
    deadline_capture.charge_due()
    watcher.join()
    assert held == [True, True]
    charged_exactly_once(stripe.url, slug, 1)


def test_whoever_loses_the_lease_asks_for_nothing_more(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = due(saved_card(stripe), 20)
    rate(app, 10, stripe)
    monkeypatch.setattr(deadline_capture, "BEAT", 0.1)

    def rob() -> None:
        with app.app_context():
            begin_writing()
            eventually(lambda: asked(stripe.url))
            db.session.execute(sa.update(Lease).values(holder="somebody else"))
            db.session.commit()
            db.session.remove()

    robber = threading.Thread(target=rob)
    robber.start()
    deadline_capture.charge_due()
    robber.join()
    seen = states_of(slug)
    assert 0 < len(asked(stripe.url)) == seen["charged"] < 20
    assert Lease.held("capture", now())


def test_the_sweep_leaves_a_capture_alone_that_somebody_works_on(app: Flask, stripe: SandboxProcess) -> None:
    due(saved_card(stripe), 1, ago=dt.timedelta(minutes=1))
    assert Lease.take("capture", "another machine", now(), dt.timedelta(seconds=10))
    keep()
    the_sweep.sweep(now())
    assert asked(stripe.url) == []
    # Ten seconds later the lease is over, and five more later nobody has come.
    began = now()
    with time_machine.travel(began + dt.timedelta(seconds=14)):
        the_sweep.sweep(now())
    assert asked(stripe.url) == []
    with time_machine.travel(began + dt.timedelta(seconds=16)):
        the_sweep.sweep(now())
    assert len(asked(stripe.url)) == 1


def test_the_sweep_charges_before_it_works_on_an_inbox_that_has_waited_as_well(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may take a slice of its own, and the one that waits is not taken over meanwhile."""
    a_minute_ago = now() - dt.timedelta(minutes=1)
    due(saved_card(stripe), 1, ago=dt.timedelta(minutes=1))
    begin_writing()
    StripeEvent.store(
        event_id="evt_1", kind="payment_intent.succeeded", object_id="pi_1", created_at=a_minute_ago, payload="{}",
        as_of=a_minute_ago,
    )  # fmt: skip
    keep()
    done: list[str] = []
    monkeypatch.setattr(jobs, "perform", lambda job, row_id: done.append(job))
    the_sweep.sweep(now())
    assert [job for job in done if job in ("charge_due", "drain_stripe_events")] == [
        "charge_due",
        "drain_stripe_events",
    ]


# --- A busy Stripe -----------------------------------------------------------------------------------------


BUSY = [
    {"fault": "rate_limit", "status": 429},
    {"fault": "lock_timeout", "status": 429},
    {"fault": "lock_timeout", "status": 409},
    {"fault": "error", "status": 503},
]
# "Too many requests" is asked again by our own threads, at their pace; of the others nobody knows whether Stripe acted,
# so the SDK asks again at once, and then the row waits.
busy_in_each_way = pytest.mark.parametrize("busy", BUSY, ids=[f"{one['status']} {one['fault']}" for one in BUSY])


@busy_in_each_way
def test_a_stripe_that_is_busy_now_and_then_declines_nobody_and_changes_no_key(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch, busy: dict[str, Any]
) -> None:
    slug = due(saved_card(stripe), 12)
    monkeypatch.setattr(sdk.HTTPClient, "INITIAL_DELAY", 0.01)
    # Two: which pledge a call is for depends on the threads, and one that meets three in a row rightly waits.
    fault(stripe, operation=CREATE, calls=[1, 5], **busy)
    deadline_capture.charge_due()
    charged_exactly_once(stripe.url, slug, 12)
    assert [call["status"] for call in asked(stripe.url)].count(busy["status"]) == 2


def test_a_limit_far_below_the_rate_declines_nobody(app: Flask, stripe: SandboxProcess) -> None:
    slug = due(saved_card(stripe), 30)
    limits(stripe, per_endpoint=10)
    for _ in range(10):
        deadline_capture.charge_due()
        if states_of(slug) == {"charged": 30}:
            break
        with time_machine.travel(now() + dt.timedelta(minutes=1)):
            deadline_capture.charge_due()
    charged_exactly_once(stripe.url, slug, 30)
    assert 429 in [call["status"] for call in asked(stripe.url)]


@busy_in_each_way
def test_a_stripe_that_stays_busy_leaves_the_pledge_waiting_with_its_key(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch, busy: dict[str, Any]
) -> None:
    slug = due(saved_card(stripe), 1)
    monkeypatch.setattr("jobs.charging.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("jobs.charging.LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(sdk.HTTPClient, "INITIAL_DELAY", 0.01)
    fault(stripe, operation=CREATE, times="always", **busy)
    deadline_capture.charge_due()
    assert states_of(slug) == {"charging" if busy["status"] == 429 else "unknown": 1}
    assert {call["status"] for call in asked(stripe.url)} == {busy["status"]}
    requests.delete(f"{stripe.url}/sandbox/faults", timeout=30).raise_for_status()
    with time_machine.travel(now() + dt.timedelta(minutes=1)):
        deadline_capture.charge_due()
    charged_exactly_once(stripe.url, slug, 1)


# --- Fair and slow -----------------------------------------------------------------------------------------


def test_a_small_case_is_not_stuck_behind_a_large_one(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = saved_card(stripe)
    large, small = due(card, 60), due(card, 5)
    rate(app, 40, stripe)
    few = {pledge.id for pledge in pledges_of(small)}
    keep()
    order: list[int] = []
    really_add = PacedThreads.add

    def add(threads: Any, askings: list[deadline_capture.Asking]) -> None:
        order.extend(asking.pledge_id for asking in askings)
        really_add(threads, askings)

    monkeypatch.setattr(PacedThreads, "add", add)
    deadline_capture.charge_due()
    # They take turns as they are handed to the threads, which begin them in this order; only on the way to Stripe may
    # one overtake another.
    assert [place for place, pledge_id in enumerate(order) if pledge_id in few] == [1, 3, 5, 7, 9]
    assert set(asked_for(stripe.url)) == set(order)
    assert (states_of(large), states_of(small)) == ({"charged": 60}, {"charged": 5})


def test_rounds_take_turns_from_one_claim_to_the_next(app: Flask) -> None:
    card = ("cus_1", "pm_1")
    rounds = [case_at(due(card, 3)).round.id for _ in range(3)]
    order, after = [], 0
    for _ in range(6):
        (pledge,) = Pledge.waiting_to_charge(now(), 1, after)
        after = pledge.round_id
        order.append(after)
        pledge.claim(now(), dt.timedelta(seconds=10))
        keep()
    assert order == rounds * 2


def test_at_a_low_rate_no_more_is_claimed_than_can_be_asked_for_in_time(app: Flask, stripe: SandboxProcess) -> None:
    slug = due(saved_card(stripe), 10)

    def ask(asking: deadline_capture.Asking) -> payments.ChargeFound | None:
        return None

    threads = PacedThreads[deadline_capture.Asking, payments.ChargeFound | None](ask, 0.5)
    run = deadline_capture.Run("me", threads, 0.5)
    run._claim()
    run.threads.end()
    # One every two seconds, claims of ten seconds: two are claimed, so that half of that time is left.
    assert states_of(slug) == {"charging": 2, "due": 8}


def test_a_slice_that_is_over_gives_back_what_it_did_not_begin(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = due(saved_card(stripe), 10)
    rate(app, 2, stripe)
    monkeypatch.setattr(deadline_capture, "CHARGING_SLICE", 1.5)
    deadline_capture.charge_due()
    begun = states_of(slug)["charged"]
    assert 0 < begun < 10
    assert len(Pledge.waiting_to_charge(now(), 20)) == 10 - begun
    keep()
    assert not Lease.held("capture", now())


def test_what_a_busy_stripe_refused_as_the_slice_ended_waits_again_at_once(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = due(saved_card(stripe), 1)
    fault(stripe, operation=CREATE, fault="rate_limit", times="always")
    # Long enough for a claim on a busy machine.
    monkeypatch.setattr(deadline_capture, "CHARGING_SLICE", 1.5)
    monkeypatch.setattr(charging, "FIRST_PAUSE", 3.0)
    deadline_capture.charge_due()
    assert states_of(slug) == {"charging": 1}
    assert Pledge.waiting_to_charge(now(), 20) == pledges_of(slug)


def test_whoever_is_rung_before_the_slice_is_over_waits_for_the_lease(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = due(saved_card(stripe), 1)
    assert Lease.take("capture", "the slice before", now(), dt.timedelta(seconds=10))
    keep()
    waited: list[float] = []

    def give_it_back(seconds: float) -> None:
        waited.append(seconds)
        Lease.take("capture", "the slice before", now(), dt.timedelta(0))
        keep()

    monkeypatch.setattr("jobs.deadline_capture.time.sleep", give_it_back)
    deadline_capture.charge_due()
    assert len(waited) == 1
    charged_exactly_once(stripe.url, slug, 1)


@pytest.mark.parametrize("stop", ["frozen", "cancelled"])
def test_what_is_claimed_and_not_begun_stays_when_staff_stop_the_case_in_the_middle_of_a_run(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    slug = due(saved_card(stripe), 20)
    rate(app, 4, stripe)
    really, asked_first = payments.charge, threading.Event()

    def charge(*asking: Any) -> payments.ChargeFound:
        if not asked_first.is_set():
            asked_first.set()
            with app.app_context():
                if stop == "frozen":
                    case_at(slug).switch("charges_frozen", True, "Stop.", a_user("staff"), now())
                else:
                    case_at(slug).cancel("Stop.", "operator", now())
                db.session.commit()
                db.session.remove()
        return really(*asking)

    monkeypatch.setattr(payments, "charge", charge)
    deadline_capture.charge_due()
    # It is looked for a stop four times a second, and four are asked for in each second: five seconds for all.
    begun = len(asked(stripe.url))
    assert 1 <= begun < 20
    keep()
    assert states_of(slug)["charged"] == begun
    assert Pledge.waiting_to_charge(now(), 20) == []
    if stop == "frozen":
        case_at(slug).switch("charges_frozen", False, "Go on.", a_user("staff"), now())
        keep()
        rate(app, 100, stripe)
        deadline_capture.charge_due()
        charged_exactly_once(stripe.url, slug, 20)


# --- Rows that are broken ----------------------------------------------------------------------------------


@pytest.mark.broken_books("an attempt is lost")
def test_one_pledge_that_cannot_be_claimed_holds_up_nobody(app: Flask, stripe: SandboxProcess) -> None:
    slug = due(saved_card(stripe), 5)
    broken = pledges_of(slug)[2]
    # As if its attempt had been lost: no verb of ours can bring a row there.
    broken.status, broken_id = "charging", broken.id
    keep()
    deadline_capture.charge_due()
    assert states_of(slug) == {"charged": 4, "charging": 1}
    waits = db.session.get_one(Pledge, broken_id).next_at
    assert waits is not None and waits > now()


def test_one_answer_that_breaks_the_batch_costs_the_others_nothing(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = due(saved_card(stripe), 8)
    odd = pledges_of(slug)[3].id
    keep()
    charge = payments.charge

    def charge_oddly(settings: Any, params: dict[str, Any], key: str, intent_id: str | None) -> payments.ChargeFound:
        found = charge(settings, params, key, intent_id)
        wrong = params["metadata"]["pledge_id"] == str(odd)
        return payments.ChargeFound(found.outcome, found.payment_intent_id, found.charge_id, 1) if wrong else found

    monkeypatch.setattr(payments, "charge", charge_oddly)
    deadline_capture.charge_due()
    assert states_of(slug) == {"charged": 7, "charging": 1}


def test_whoever_watches_the_run_sees_how_many_pence_are_in_each_state(app: Flask, stripe: SandboxProcess) -> None:
    slug = due(saved_card(stripe), 3)
    assert case_at(slug).round.figures().pence == {"due": 7_500}
    fault(stripe, operation=CREATE, fault="decline", calls=[2])
    keep()
    deadline_capture.charge_due()
    assert case_at(slug).round.figures().pence == {"charged": 5_000, "declined": 2_500}


# --- Ten thousand at once ----------------------------------------------------------------------------------


def test_settling_asks_the_database_no_more_often_for_fifty_pledges_than_for_five(app: Flask) -> None:
    assert statements_of_settling(50) == statements_of_settling(5)


def statements_of_settling(count: int) -> int:
    its_round = a_case(target=2_500, pledged=[2_500] * count, ends_in=dt.timedelta(hours=1)).round
    its_round.close(its_round.deadline + dt.timedelta(seconds=1))
    round_id = its_round.id
    keep()
    its_round = Round.hold(round_id)
    said: list[str] = []
    sa.event.listen(db.engine, "before_cursor_execute", lambda *args: said.append(args[2]))
    its_round.settle(now())
    db.session.flush()
    seen = len(said)
    keep()
    assert [pledge.status for pledge in Round.hold(round_id).pledges("due")] == ["due"] * count
    return seen


@pytest.mark.only_on("sqlite", why="its own words for a plan are read")
@pytest.mark.parametrize("looks", ["with_charges_waiting", "_waiting_in"])
def test_what_is_due_is_found_by_an_index(app: Flask, looks: str) -> None:
    due(("cus_1", "pm_1"), 3)
    said: list[tuple[str, Any]] = []
    sa.event.listen(db.engine, "before_cursor_execute", lambda *args: said.append((args[2], args[3])))
    if looks == "_waiting_in":
        Pledge._waiting_in(1, now(), 10)
    else:
        Round.with_charges_waiting(now())
    statement, values = said[-1]
    plan = db.session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
    pledges = [row[3] for row in plan if "pledges" in row[3]]
    assert pledges and all("ix_pledges_round_id_status_next_at" in step for step in pledges)


@pytest.mark.only_on("sqlite", why="SQLite counts its own steps, which no load of the machine changes")
def test_one_pledge_of_many_costs_the_database_no_more_than_one_of_few(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settled and charged, without Stripe: ten times as many pledges cost ten times as much."""
    monkeypatch.setattr(payments, "charge", charge_at_once)
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"capture_rate": 10_000.0})
    few, many = steps_of_a_capture(100), steps_of_a_capture(1_000)
    assert many <= 10 * 1.2 * few


def charge_at_once(settings: Any, params: dict[str, Any], key: str, intent_id: str | None) -> payments.ChargeFound:
    return payments.ChargeFound("succeeded", f"pi_{key}", f"ch_{key}", params["amount"])


def steps_of_a_capture(count: int) -> int:
    """So many thousand steps SQLite takes to settle a round of so many pledges, and to charge them all."""
    its_round = a_case(target=2_500, pledged=[2_500], ends_in=dt.timedelta(hours=1)).round
    round_id, first = its_round.id, its_round.pledges("confirmed")[0].id
    copies_of_pledge(first, count - 1)
    with sqlites_steps() as steps:
        its_round = Round.hold(round_id)
        its_round.close(its_round.deadline + dt.timedelta(seconds=1))
        its_round.settle(now())
        keep()
        for _ in range(20):
            deadline_capture.charge_due()
            if not Round.with_charges_waiting(now()):
                break
    assert len(Round.hold(round_id).pledges("charged")) == count
    keep()
    return steps.thousands


# --- Killed, and without a doorbell -----------------------------------------------------------------------


def capturer_of(house: House) -> "subprocess.Popen[bytes]":
    """A process that captures, by itself, as on another machine."""
    code = "import app, jobs; a = app.create_app(); a.app_context().push(); jobs.perform('charge_due', None)"
    environment = {**house.environment, "STRIPE_SECRET_KEY": house.environment["STRIPE_WORKER_KEY"]}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)


def test_a_capturer_that_dies_in_the_middle_is_replaced_and_each_pledge_charged_once(house: House) -> None:
    stripe = SandboxProcess(house.stripe, [], None)  # type: ignore[arg-type]
    house.kill("worker")
    house.kill("sweep")
    slug = with_cards(saved_card(stripe), 60)
    begun_with = len(asked(house.stripe))
    limits(stripe, latency=0.3)
    the_deadline_comes(slug, rung=False)
    round_id = case_at(slug).round.id
    with writing():
        deadline_capture.settle_round(round_id)
    first = capturer_of(house)
    assert eventually(lambda: len(asked(house.stripe)) > begun_with + 20)
    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    assert states_of(slug)["charging"] > 0
    # Its lease and its claims run out, the sweep rings, the worker takes over.
    time_passes(slug)
    house.start("worker", "sweep")
    assert eventually(lambda: set(states(slug)) == {"charged"})
    charged_exactly_once(house.stripe, slug, 60)


def test_without_a_doorbell_the_capture_goes_on_by_the_clock(house: House) -> None:
    stripe = SandboxProcess(house.stripe, [], None)  # type: ignore[arg-type]
    slug = with_cards(saved_card(stripe), 30)
    house.kill("valkey")
    house.kill("worker")
    the_deadline_comes(slug, rung=False, ago=dt.timedelta(seconds=16))
    assert eventually(lambda: case_at(slug).round.status == "met")
    time_passes(slug)
    assert eventually(lambda: states(slug) == ["charged"] * 30)
    charged_exactly_once(house.stripe, slug, 30)
