"""Pledges whose cards really are at the sandbox, in a round that was met: due, or charged already."""

import datetime as dt
from typing import Any

import requests
import sqlalchemy as sa
from flask import current_app

from jobs import deadline_capture, reconcile
from jobs.inbox import drain_stripe_events
from models import (
    Event,
    Letter,
    Movement,
    Pledge,
    Reconciliation,
    StripeEvent,
    User,
    begin_writing,
    db,
)
from tests.at_stripe import WORKS, saved_card, sdk
from tests.made import a_case, a_user, keep, look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess

HOUR, SECOND = dt.timedelta(hours=1), dt.timedelta(seconds=1)


def due(sandbox: SandboxProcess, *amounts: int, cards: tuple[str, ...] = (), slug: str = "the-case") -> list[Pledge]:
    """The pledges of a case that was met, each with its own saved card, all due."""
    case = a_case(slug=slug, target=sum(amounts), pledged=amounts)
    for number, pledge in enumerate(pledges_of(slug)):
        card = cards[number] if number < len(cards) else WORKS
        pledge.customer_id, pledge.payment_method_id = saved_card(sandbox, card)
    its_round = db.session.merge(case).round
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(now())
    keep()
    return pledges_of(slug)


def charge_due() -> None:
    """One slice of the capturer, with a session of its own, as a worker has it."""
    db.session.commit()
    with current_app.app_context():
        begin_writing()
        deadline_capture.charge_due()
    look_anew()


def charged(sandbox: SandboxProcess, amount: int = 2_500, card: str = WORKS, slug: str = "the-case") -> Pledge:
    """One pledge that was charged."""
    due(sandbox, amount, cards=(card,), slug=slug)
    charge_due()
    (pledge,) = pledges_of(slug)
    assert pledge.status == "charged"
    return pledge


def asked(pledge: Pledge, amount: int, by: User | None = None, form_key: str = "") -> int:
    """A refund that somebody of staff has asked for; its id."""
    person = db.session.merge(by or a_user("staff"))
    key = form_key or f"a-form-key-of-{now().timestamp()}"
    refund = Pledge.hold(pledge.id).ask_refund(key, amount, "They asked for it.", person, now())
    refund_id = refund.id
    keep()
    return refund_id


def news(sandbox: SandboxProcess, *kinds: str, since: int = 0) -> list[StripeEvent]:
    """Bring Stripe's events of these types to our inbox, oldest first, and work through it."""
    listed = sdk(sandbox).v1.events.list({"limit": 100, "types": list(kinds), "created": {"gte": since}}).data
    for event in reversed(listed):
        StripeEvent.store(
            event_id=event.id, kind=event.type, object_id=event.data.object["id"], created_at=now(),
            payload=str(event), as_of=now(),
        )  # fmt: skip
    keep()
    drain_stripe_events()
    look_anew()
    return list(db.session.scalars(sa.select(StripeEvent).where(StripeEvent.type.in_(kinds))))


def compare(since: dt.timedelta = HOUR) -> Reconciliation:
    """One comparison of the last hour, brought to its end."""
    made = Reconciliation.begin(now() - since, now(), now())
    comparison_id = made.id
    db.session.commit()
    assert reconcile.to_the_end(comparison_id)
    return db.session.get_one(Reconciliation, comparison_id)


def compared(since: dt.timedelta = HOUR) -> tuple[int, list[str]]:
    found = compare(since)
    return found.mended, found.findings


def again(pledge: Pledge) -> Pledge:
    """The pledge as the database has it now."""
    look_anew()
    return db.session.get_one(Pledge, pledge.id)


def books(pledge: Pledge) -> list[tuple[str, int]]:
    """Its lines of the ledger: (kind, pence)."""
    look_anew()
    found = sa.select(Movement).where(Movement.pledge_id == pledge.id).order_by(Movement.id)
    return [(one.kind, one.amount_pence) for one in db.session.scalars(found)]


def letters(*kinds: str) -> list[tuple[str, str]]:
    """(kind, subject) of the letters that are owed, of these kinds."""
    look_anew()
    found = sa.select(Letter).where(Letter.kind.in_(kinds)).order_by(Letter.id)
    return [(one.kind, one.subject) for one in db.session.scalars(found)]


def told(what: str) -> list[str]:
    """The notes of all lines of history of a kind."""
    look_anew()
    return list(db.session.scalars(sa.select(Event.note).where(Event.what == what).order_by(Event.id)))


def stripe_has(sandbox: SandboxProcess, pledge: Pledge) -> list[tuple[str, int]]:
    """(state, pence) of the refunds that Stripe has for a pledge's payment, oldest first."""
    listed = sdk(sandbox).v1.refunds.list({"payment_intent": pledge.payment_intent_id, "limit": 100}).data
    return [(one.status, one.amount) for one in reversed(listed)]


def control(sandbox: SandboxProcess, path: str, **said: Any) -> str:
    """Pull one of the sandbox's levers; the id of what it was about."""
    answer = requests.post(f"{sandbox.url}/sandbox/{path}", json=said, timeout=30)
    answer.raise_for_status()
    return str(answer.json()["id"])
