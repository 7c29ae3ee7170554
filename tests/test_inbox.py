"""Stripe's inbox: how often its news makes us look, against a real sandbox whose calls are counted."""

import datetime as dt
import itertools
import json
import threading
from dataclasses import replace
from typing import Any

import pytest
import requests
import sqlalchemy as sa
import time_machine
from flask import Flask

import config
import payments
from jobs import deadline_capture, inbox, stripe_events
from models import REFUSED, Letter, Movement, Pledge, StripeEvent, db
from tests.at_stripe import DECLINES_LATER, calls, claimed, saved_card, sdk
from tests.backup import back_up, restore
from tests.made import a_case, a_pledge, confirm, now
from tests.sandbox_process import SandboxProcess
from tests.test_reconcile import a_pledge_at_stripe, settle

HOUR = dt.timedelta(hours=1)


@pytest.fixture(autouse=True)
def at_the_sandbox(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    """Every test of this file asks an empty sandbox, quickly."""
    requests.post(f"{sandbox.url}/sandbox/reset", timeout=30).raise_for_status()
    settings = asks_the_sandbox.config["STANDING"].model_copy(update={"capture_rate": 1000.0})
    asks_the_sandbox.config["STANDING"] = settings


def news_comes(*kinds: str) -> None:
    """What happened at Stripe, oldest first, comes in at our door; all of it, or only some kinds."""
    db.session.commit()
    page = payments.news_since(now() - HOUR, now() + HOUR, list(kinds) or ["*"])
    for news in reversed(page.found):
        StripeEvent.store(
            event_id=news.event_id, kind=news.type, object_id=news.object_id, created_at=news.created_at,
            payload=news.payload, as_of=now(),
        )  # fmt: skip
    db.session.commit()


def looks(sandbox: SandboxProcess) -> tuple[int, int]:
    """How often payments and card pages were looked at since the log was emptied."""
    return len(calls(sandbox, "payment_intents.retrieve")), len(calls(sandbox, "checkout.sessions.retrieve"))


def waiting() -> int:
    found = sa.select(sa.func.count()).where(StripeEvent.processed_at.is_(None))
    count = db.session.scalar(found) or 0
    db.session.commit()
    return count


def forget_calls(sandbox: SandboxProcess) -> None:
    requests.delete(f"{sandbox.url}/sandbox/calls", timeout=30).raise_for_status()


def due_pledge(sandbox: SandboxProcess, card: str = "4242424242424242") -> int:
    """A pledge of £25 whose card is really saved and whose round was met; its id."""
    its_round = a_case(target=2_500).round
    pledge_id = a_pledge_at_stripe(its_round, sandbox, card=card).id
    news_comes()
    inbox.drain_stripe_events()
    settle(db.session.get_one(Pledge, pledge_id).round)
    forget_calls(sandbox)
    return pledge_id


def status(pledge_id: int) -> str:
    found = db.session.get_one(Pledge, pledge_id).status
    db.session.commit()
    return found


def test_news_of_a_charge_that_our_row_has_already_makes_nobody_look(sandbox: SandboxProcess) -> None:
    pledge_id = due_pledge(sandbox)
    deadline_capture.charge_due()
    news_comes()
    assert waiting() == 3  # payment_intent.created, payment_intent.succeeded, charge.succeeded
    inbox.drain_stripe_events()
    assert (status(pledge_id), waiting(), looks(sandbox)) == ("charged", 0, (0, 0))


def test_all_news_about_one_payment_makes_us_look_once(sandbox: SandboxProcess) -> None:
    pledge_id = due_pledge(sandbox, DECLINES_LATER)
    deadline_capture.charge_due()
    pledge = db.session.get_one(Pledge, pledge_id)
    db.session.commit()
    again = {"payment_method": str(pledge.payment_method_id), "off_session": True}
    for _ in range(2):
        with pytest.raises(Exception, match="declined"):
            sdk(sandbox).v1.payment_intents.confirm(str(pledge.payment_intent_id), again)
    forget_calls(sandbox)
    news_comes("payment_intent.payment_failed")
    assert waiting() == 3
    inbox.drain_stripe_events()
    assert (status(pledge_id), waiting(), looks(sandbox)) == ("declined", 0, (1, 0))


def test_news_of_a_charge_that_is_being_asked_for_waits_for_its_asker(sandbox: SandboxProcess) -> None:
    pledge_id = due_pledge(sandbox)
    [asking] = claimed()
    answer = payments.charge(config.current(), asking.params, asking.key)
    news_comes("payment_intent.succeeded")
    inbox.drain_stripe_events()
    assert (status(pledge_id), waiting(), looks(sandbox)) == ("charging", 1, (0, 0))
    deadline_capture._write_down(asking, answer)
    with time_machine.travel(now() + dt.timedelta(seconds=21)):
        inbox.drain_stripe_events()
    assert (status(pledge_id), waiting(), looks(sandbox)) == ("charged", 0, (0, 0))


def test_news_of_a_charge_whose_asker_died_is_believed_once_its_time_is_over(sandbox: SandboxProcess) -> None:
    pledge_id = due_pledge(sandbox)
    [asking] = claimed()
    payments.charge(config.current(), asking.params, asking.key)
    news_comes("payment_intent.succeeded")
    with time_machine.travel(now() + dt.timedelta(seconds=21)):
        inbox.drain_stripe_events()
    assert (status(pledge_id), waiting(), looks(sandbox)) == ("charged", 0, (1, 0))


def test_news_of_a_card_page_that_the_supporter_came_back_from_makes_nobody_look(sandbox: SandboxProcess) -> None:
    pledge_id = a_pledge_at_stripe(a_case(target=9_000).round, sandbox).id
    stripe_events.look_again_at_card(pledge_id)
    assert status(pledge_id) == "confirmed"
    forget_calls(sandbox)
    news_comes()
    inbox.drain_stripe_events()
    assert (waiting(), looks(sandbox)) == (0, (0, 0))


def test_news_that_is_none_of_ours_makes_nobody_look(sandbox: SandboxProcess) -> None:
    customer, method = saved_card(sandbox)
    theirs = payments.charge_params(
        pledge_id=1, case_id=1, amount_pence=2_500, customer_id=customer, payment_method_id=method, case_title="Other",
    )  # fmt: skip
    sdk(sandbox).v1.payment_intents.create(theirs)
    forget_calls(sandbox)
    news_comes()
    inbox.drain_stripe_events()
    assert (waiting(), looks(sandbox)) == (0, (0, 0))


def at_the_rate(app: Flask, rate: float) -> None:
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"capture_rate": rate})


def test_what_a_slice_of_time_does_not_reach_waits_for_the_next_and_not_for_the_lease(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        a_pledge_at_stripe(a_case(target=9_000).round, sandbox)
    # Of a card whose own news has not come, Stripe is asked twice.
    news_comes("checkout.session.completed", "setup_intent.succeeded")
    # The slice is over as soon as it begins, and at one a second the second look has no time to begin.
    monkeypatch.setattr("jobs.SLICE", 0.0)
    at_the_rate(asks_the_sandbox, 1.0)
    inbox.drain_stripe_events()
    assert waiting() == 1
    assert set(db.session.scalars(sa.select(StripeEvent.tries).where(StripeEvent.processed_at.is_(None)))) == {0}
    inbox.drain_stripe_events()
    assert waiting() == 0


def test_looks_that_are_needed_are_made_side_by_side(sandbox: SandboxProcess) -> None:
    """Stripe answers none of five looks before it was asked for all of them."""
    for _ in range(5):
        a_pledge_at_stripe(a_case(target=9_000).round, sandbox)
    news_comes("checkout.session.completed")
    all_here, look = threading.Barrier(5), payments.look_at_card_page

    def together(session_id: str, settings: config.Settings) -> payments.CardFound:
        all_here.wait(20)
        return look(session_id, settings)

    with pytest.MonkeyPatch.context() as slow:
        slow.setattr(payments, "look_at_card_page", together)
        inbox.drain_stripe_events()
    assert waiting() == 0 and {pledge.status for pledge in db.session.scalars(sa.select(Pledge))} == {"confirmed"}


def test_an_event_that_nobody_can_read_keeps_no_other_from_being_worked_on(sandbox: SandboxProcess) -> None:
    pledge_id = a_pledge_at_stripe(a_case(target=9_000).round, sandbox).id
    odd: list[Any] = [None, [], {"pledge_id": "9" * 40}]
    for number, notes in enumerate(odd):
        StripeEvent.store(
            event_id=f"evt_odd_{number}", kind="payment_intent.succeeded", object_id=f"pi_odd_{number}",
            created_at=now(), as_of=now(), payload=json.dumps({"data": {"object": {"metadata": notes}}}),
        )  # fmt: skip
    news_comes("checkout.session.completed")
    inbox.drain_stripe_events()
    assert (waiting(), status(pledge_id)) == (0, "confirmed")


def test_news_that_somebody_else_has_worked_on_meanwhile_is_no_trouble(sandbox: SandboxProcess) -> None:
    """Its lease was over, and what it said is forgotten."""
    StripeEvent.store(
        event_id="evt_refused", kind="setup_intent.setup_failed", object_id="seti_1", created_at=now(), as_of=now(),
        payload=json.dumps({"data": {"object": {"metadata": {}}}}),
    )  # fmt: skip
    (event,) = StripeEvent.claim(now(), HOUR, 1)
    StripeEvent.processed([event.id], now())
    db.session.commit()
    inbox._process([event.id])
    event = db.session.get_one(StripeEvent, event.id)
    assert (event.trouble, event.payload, event.tries) == ("", "", 1)


# --- Many at once ------------------------------------------------------------------------------------------


def five_payments_that_nobody_wrote_down(sandbox: SandboxProcess) -> dict[int, str]:
    """Five pledges of £25 of one round, asked for by somebody who died, and paid at Stripe; the payment of each."""
    its_round = a_case(target=12_500).round
    for number in range(5):
        customer, method = saved_card(sandbox)
        pledge = a_pledge(its_round, 2_500, email=f"one-of-five-{number}@example.org")
        confirm(pledge)
        pledge.customer_id, pledge.payment_method_id = customer, method
    settle(its_round)
    paid = {one.pledge_id: payments.charge(config.current(), one.params, one.key) for one in claimed()}
    db.session.execute(sa.update(Pledge).values(next_at=now() - HOUR))
    news_comes("payment_intent.succeeded")
    return {pledge_id: str(found.payment_intent_id) for pledge_id, found in paid.items()}


def test_an_odd_one_in_the_middle_of_a_batch_holds_up_nobody_and_what_it_began_is_undone(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe says of the third of five that it took another amount. To write down all five together fails."""
    ids, look = five_payments_that_nobody_wrote_down(sandbox), payments.look_at_charge
    odd = sorted(ids)[2]

    def look_oddly(payment_id: str, settings: config.Settings) -> payments.ChargeFound:
        found = look(payment_id, settings)
        return replace(found, amount_pence=2_600) if payment_id == ids[odd] else found

    with monkeypatch.context() as oddly:
        oddly.setattr(payments, "look_at_charge", look_oddly)
        inbox.drain_stripe_events()
    charged = [pledge_id for pledge_id in sorted(ids) if status(pledge_id) == "charged"]
    assert (len(charged), status(odd)) == (4, "charging")
    (event,) = db.session.scalars(sa.select(StripeEvent).where(StripeEvent.processed_at.is_(None)))
    assert (event.trouble, event.tries) == ("ValueError", 1)
    told = db.session.scalars(sa.select(Letter.subject).where(Letter.kind == "charged").order_by(Letter.id))
    assert sorted(told) == sorted(f"pledge:{pledge_id}" for pledge_id in charged)
    moved = db.session.execute(sa.select(Movement.pledge_id, Movement.amount_pence).order_by(Movement.pledge_id))
    assert [tuple(one) for one in moved] == [(pledge_id, 2_500) for pledge_id in charged]
    db.session.commit()
    with time_machine.travel(now() + dt.timedelta(seconds=10)):
        inbox.drain_stripe_events()
    assert (status(odd), waiting()) == ("charged", 0)


class Killed(BaseException):
    """kill -9: nothing of ours catches it, and what was not committed is gone."""


@pytest.mark.parametrize("dies_at", [(Pledge, "hold_all"), (StripeEvent, "processed")],
                         ids=["before it writes", "before the commit"])  # fmt: skip
def test_whoever_dies_between_looking_and_writing_down_leaves_all_of_it_to_the_next(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, dies_at: tuple[type, str]
) -> None:
    ids = five_payments_that_nobody_wrote_down(sandbox)

    def die(those: list[int], *_: object) -> None:
        if those:
            raise Killed

    with monkeypatch.context() as killed:
        killed.setattr(*dies_at, die)
        with pytest.raises(Killed):
            inbox.drain_stripe_events()
    db.session.rollback()
    forget_calls(sandbox)
    # What the dead one had taken is his for a minute.
    inbox.drain_stripe_events()
    assert ({status(pledge_id) for pledge_id in ids}, waiting(), looks(sandbox)) == ({"charging"}, 5, (0, 0))
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Movement)) == 0
    db.session.commit()
    with time_machine.travel(now() + dt.timedelta(seconds=61)):
        inbox.drain_stripe_events()
    assert ({status(pledge_id) for pledge_id in ids}, waiting(), looks(sandbox)) == ({"charged"}, 0, (5, 0))
    told = db.session.scalars(sa.select(Letter.subject).where(Letter.kind == "charged"))
    assert sorted(told) == sorted(f"pledge:{pledge_id}" for pledge_id in ids)


# --- In every order ----------------------------------------------------------------------------------------


def deliver(news: dict[str, Any], copy: str) -> None:
    """One event comes in, and is worked on before the next."""
    StripeEvent.store(
        event_id=news["event_id"] + copy, kind=news["type"], object_id=news["object_id"], created_at=now(),
        payload=news["payload"], as_of=now(),
    )  # fmt: skip
    db.session.commit()
    inbox.drain_stripe_events()


def test_news_of_a_charge_in_every_order_and_each_of_it_twice_leads_to_the_same_end(sandbox: SandboxProcess) -> None:
    """Its asker has died. Stripe has refused one card and taken the money from another: 24 orders of its news."""
    pledge_id = due_pledge(sandbox, DECLINES_LATER)
    db.session.execute(sa.delete(StripeEvent))
    [asking] = claimed()
    Pledge.hold(pledge_id).next_at = now()
    rows = back_up()
    refused = payments.charge(config.current(), asking.params, asking.key)
    _, another = saved_card(sandbox, customer=asking.customer_id, customer_creation=None, customer_email=None)
    paid_with = {"payment_method": another, "off_session": True}
    sdk(sandbox).v1.payment_intents.confirm(str(refused.payment_intent_id), paid_with)
    news_comes("payment_intent.created", "payment_intent.payment_failed", "payment_intent.succeeded",
               "charge.succeeded")  # fmt: skip
    told = back_up()["stripe_events"]
    assert len(told) == 4
    for order in itertools.permutations(told):
        restore(rows)
        for news in order:
            deliver(news, "")
            deliver(news, "-again")
        letters = list(db.session.scalars(sa.select(Letter.kind).where(Letter.kind.in_(("charged", *REFUSED)))))
        moved = db.session.execute(sa.select(Movement.kind, Movement.amount_pence)).all()
        in_this_order = [news["type"] for news in order]
        assert (status(pledge_id), waiting(), letters) == ("charged", 0, ["charged"]), in_this_order
        assert [tuple(movement) for movement in moved] == [("charge", 2_500)], in_this_order
