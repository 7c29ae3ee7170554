"""Power cuts and lost answers in the worst moments: a card is charged exactly once all the same."""

import datetime as dt
import os
import signal
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from models import ChargeAttempt, Lease, Letter, Pledge, db
from tests.house import House, descendants, eventually
from tests.journey import (
    DECLINES_LATER,
    NOBODY_CAME,
    a_real_pledge,
    calls,
    card_is_saved,
    history,
    movements_of,
    round_of,
    states,
    the_deadline_comes,
    time_passes,
    writing,
)
from tests.made import a_case, look_anew, pledges_of

# As long as a dead capturer's claim and lease are respected.
CLAIMED_FOR = dt.timedelta(seconds=20)
CREATE = "payment_intents.create"


@pytest.mark.parametrize(
    ("when", "killed"),
    [("after", ["worker"]), ("after", ["worker", "sweep"]), ("before", ["worker", "sweep"])],
    ids=["worker, money moved", "worker and sweep, money moved", "worker and sweep, Stripe still at work"],
)
def test_a_kill_between_the_charge_and_our_commit_charges_exactly_once(
    house: House, when: str, killed: list[str]
) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    house.fault(operation=CREATE, fault="hang", when=when, seconds=10 if when == "after" else 6)
    # No news of the charge comes to help: the key alone has to.
    house.fault(event="*", fault="drop", times="always")
    the_deadline_comes(slug)
    assert eventually(lambda: house.payments_of(pledge.id) if when == "after" else calls(house, CREATE, pledge))
    for name in killed:
        house.kill(name)
    assert (states(slug), movements_of(pledge)) == (["charging"], [])
    time_passes(slug, CLAIMED_FOR + NOBODY_CAME)
    if "sweep" in killed:
        house.start(*killed)
    # Else nobody takes the worker's place, and the sweep does its work.
    assert eventually(lambda: states(slug) == ["charged"])
    _charged_exactly_once(house, pledge)


@pytest.fixture
def second_worker(house: House) -> Iterator[None]:
    """Another worker beside the first."""
    house.commands["second worker"] = house.commands["worker"]
    house.start("second worker")
    yield
    if "second worker" in house.programs:
        house.kill("second worker")
    del house.commands["second worker"]


@pytest.mark.parametrize("killed", ["the worker", "its job"])
def test_a_worker_and_its_job_that_are_killed_apart_charge_exactly_once(
    house: House, second_worker: None, killed: str
) -> None:
    """The job is a process of its own: it goes on when its worker is dead, while the second worker is rung for more."""
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    house.fault(operation=CREATE, fault="hang", when="after", seconds=8)
    house.fault(event="*", fault="drop", times="always")
    the_deadline_comes(slug)
    assert eventually(lambda: house.payments_of(pledge.id))
    look_anew()
    job = int(db.session.get_one(Lease, "capture").holder.split(":")[1])
    at_work = next(name for name in ("worker", "second worker") if job in descendants(house.programs[name].pid))
    if killed == "the worker":
        worker = house.programs.pop(at_work)
        worker.kill()
        worker.wait(10)
    else:
        os.kill(job, signal.SIGKILL)
        time_passes(slug, CLAIMED_FOR)
    assert eventually(lambda: states(slug) == ["charged"])
    # The job was neither disturbed nor doubled; when it was dead the same was asked again.
    asked = [call["idempotency_key"] for call in calls(house, CREATE, pledge)]
    assert set(asked) == {f"pledge-{pledge.id}-charge-1"}
    assert len(asked) == 1 if killed == "the worker" else len(asked) > 1
    assert [payment["status"] for payment in house.payments_of(pledge.id)] == ["succeeded"]
    assert ([moved.amount_pence for moved in movements_of(pledge)], _owed(pledge, "charged")) == ([2_500], 1)


def test_a_charge_whose_answer_is_lost_is_asked_again_with_the_same_key(house: House) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    # The SDK itself asks three times, and each time the answer is lost.
    house.fault(operation=CREATE, fault="lose_answer", times=3)
    house.fault(event="*", fault="drop", times="always")
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    assert history(pledge) == ["started", "confirmed", "due", "charging", "unknown", "charged"]
    _charged_exactly_once(house, pledge)
    assert [call["replayed"] for call in calls(house, CREATE, pledge)][-1]


def test_a_refusal_whose_answer_is_lost_is_one_refusal(house: House) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25, DECLINES_LATER)
    house.fault(operation=CREATE, fault="lose_answer", times=3)
    house.fault(event="*", fault="drop", times="always")
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["declined"])
    assert history(pledge) == ["started", "confirmed", "due", "charging", "unknown", "declined"]
    assert (len(house.payments_of(pledge.id)), movements_of(pledge), _owed(pledge, "declined")) == (1, [], 1)
    assert {call["idempotency_key"] for call in calls(house, CREATE, pledge)} == {f"pledge-{pledge.id}-charge-1"}


def test_a_charge_that_stripe_answers_with_500_for_ever_is_found_through_its_news(house: House) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    house.fault(operation=CREATE, fault="error", saved=True, work=True)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    _charged_exactly_once(house, pledge)


@pytest.mark.parametrize("arrived", [True, False], ids=["and is found", "and had never arrived"])
def test_after_a_day_without_an_answer_the_payment_is_looked_up(house: House, arrived: bool) -> None:
    """Stripe may have forgotten the key by then, so sending it again could be a second charge."""
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    house.fault(operation=CREATE, fault="lose_answer" if arrived else "refuse", times=3)
    house.fault(event="*", fault="drop", times="always")
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["unknown"])
    with writing():
        # A new key waits an hour longer than the look-up: a last request might still be on its way.
        Pledge.hold(pledge.id).attempts[0].asked_at -= dt.timedelta(hours=23 if arrived else 24)
    assert eventually(lambda: states(slug) == ["charged"])
    keys = [call["idempotency_key"] for call in calls(house, CREATE, pledge)]
    first, second = f"pledge-{pledge.id}-charge-1", f"pledge-{pledge.id}-charge-2"
    assert keys == [first] * 3 + ([] if arrived else [second])
    assert [payment["amount_received"] for payment in house.payments_of(pledge.id)] == [2_500]
    assert [moved.amount_pence for moved in movements_of(pledge)] == [2_500]


def test_a_kill_between_the_removal_of_a_card_and_our_commit_loses_nothing(house: House) -> None:
    slug = a_case(target=100_000).slug
    pledge = a_real_pledge(house, slug, 25)
    card = pledge.payment_method_id
    house.fault(operation="payment_methods.detach", fault="hang", when="after", seconds=10)
    the_deadline_comes(slug)
    assert eventually(lambda: not card_is_saved(house, card))
    house.kill("worker")
    assert (round_of(slug).status, round_of(slug).cards_left()) == ("missed", True)
    time_passes(slug)
    assert eventually(lambda: not round_of(slug).cards_left())
    assert history(pledge) == ["started", "confirmed", "released"]
    assert pledges_of(slug)[0].payment_method_id is None


def _charged_exactly_once(house: House, pledge: Pledge) -> None:
    """One payment at Stripe, one key, one line in the ledger, one letter."""
    (payment,) = house.payments_of(pledge.id)
    assert (payment["status"], payment["amount_received"]) == ("succeeded", 2_500)
    asked = calls(house, CREATE, pledge)
    assert len(asked) > 1 and {call["idempotency_key"] for call in asked} == {f"pledge-{pledge.id}-charge-1"}
    assert [moved.amount_pence for moved in movements_of(pledge)] == [2_500]
    assert db.session.scalar(sa.select(sa.func.count()).where(ChargeAttempt.pledge_id == pledge.id)) == 1
    assert _owed(pledge, "charged") == 1


def _owed(pledge: Pledge, kind: str) -> int:
    """How many letters of a kind were promised to a pledge's supporter."""
    found = sa.select(sa.func.count()).where(Letter.kind == kind, Letter.subject == f"pledge:{pledge.id}")
    return db.session.scalar(found) or 0
