"""How each object of Stripe's is held against our rows: payments, refunds, disputes, and the lines of its balance.

What Stripe knows and we do not is applied by the function that webhooks use. What nobody may mend, such as money for a
pledge that must not be charged, becomes a finding for people: one sentence that names the row.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

import law
import payments
from jobs.stripe_events import look_again_at_charge, look_again_at_dispute, look_again_at_refund
from models import ChargeAttempt, Dispute, Movement, Pledge, Refund, db
from payments import BalanceLine, DisputeFound, Page, Payment, RefundFound

log = structlog.get_logger()

# Whether our rows were mended by an object, and what is still off about it; nothing of either gives (False, "").
Compared = tuple[bool, str]


@dataclass(frozen=True)
class Book:
    """One of Stripe's lists, and how it is held against ours.

    `page` asks for a page of it, and `compare` holds one object of that page against our row. `ours` are Stripe's
    names of what we believe to be on the list for a span of time; `look_for` asks for one that was not there.
    """

    page: Callable[[dt.datetime, dt.datetime, str | None], Page[Any]]
    compare: Callable[[Any], Compared]
    ours: Callable[[dt.datetime, dt.datetime], list[str]]
    look_for: Callable[[str], Compared]


# --- Payments ----------------------------------------------------------------------------------------------


def _charges_of_ours(since: dt.datetime, until: dt.datetime) -> list[str]:
    """The payments of the pledges that we call charged and asked for in this time."""
    asked = sa.exists().where(
        ChargeAttempt.pledge_id == Pledge.id, ChargeAttempt.asked_at >= since, ChargeAttempt.asked_at <= until
    )
    found = sa.select(Pledge.payment_intent_id).where(Pledge.status.in_(law.PAID_PLEDGES), asked)
    return _names(found.where(Pledge.payment_intent_id.is_not(None)))


def _look_for_payment(payment_id: str) -> Compared:
    """A charge of ours that was not in the list: it may be older, or begun later, but it must be there."""
    try:
        return _compare_payment(payments.look_at_payment(payment_id))
    except payments.StripeMissing:
        (pledge_id,) = _names(sa.select(Pledge.id).where(Pledge.payment_intent_id == payment_id))
        return False, f"Pledge {pledge_id} is charged, but Stripe has no payment {payment_id}."


def _compare_payment(payment: Payment) -> Compared:
    """What seems off is looked at a second time, since both sides may have moved on while the list was read."""
    if not _off(payment) and not _tells_more(payment):
        return False, ""
    now = payments.look_at_payment(payment.id)
    mended = _tells_more(now) and _apply(now)
    return _told("payment", now.id, mended, _off(now))


def _apply(payment: Payment) -> bool:
    """Take it in as a webhook would be. Returns whether the pledge moved."""
    pledge = _pledge_of(payment)
    if pledge is None:
        return False
    pledge_id, before = pledge.id, pledge.status
    db.session.commit()
    look_again_at_charge(pledge_id, payment.id)
    moved = db.session.get_one(Pledge, pledge_id).status != before
    db.session.commit()
    return moved


def _tells_more(payment: Payment) -> bool:
    """Whether our row waits for just this, and nothing about it is strange."""
    pledge = _pledge_of(payment)
    waits = {"charging", "unknown"} if payment.found.outcome != "succeeded" else {*law.PLEDGE_MOVES} - law.FINAL_PLEDGES
    tells = pledge is not None and pledge.status in waits and not _strange(payment, pledge)
    db.session.commit()
    return tells


def _off(payment: Payment) -> str:
    """What does not agree between this payment and its pledge, in one sentence; nothing when all does."""
    pledge = _pledge_of(payment)
    words = (_strange(payment, pledge) or _contrary(payment, pledge)) if pledge is not None else ""
    db.session.commit()
    return words


def _pledge_of(payment: Payment) -> Pledge | None:
    """Our pledge of this payment. A note of ours with another customer is that of another site on the account."""
    noted = sa.and_(Pledge.id == payment.ours, Pledge.customer_id == payment.customer_id)
    found = sa.select(Pledge).where(sa.or_(Pledge.payment_intent_id == payment.id, noted)).limit(1)
    return db.session.scalar(found)


def _strange(payment: Payment, pledge: Pledge) -> str:
    """What makes this payment none that we would have asked for."""
    who, what = f"Pledge {pledge.id}", f"Stripe's payment {payment.id}"
    if pledge.payment_intent_id not in (None, payment.id):
        paid = "paid" if payment.found.outcome == "succeeded" else "not paid"
        return f"{who} has a second payment at Stripe: {payment.id}, {paid}."
    # Of whom nothing is known any more, the customer is forgotten too.
    is_forgotten = pledge.erased_at is not None and pledge.customer_id is None
    if payment.ours != pledge.id or (payment.customer_id != pledge.customer_id and not is_forgotten):
        return f"{who} has {what}, which says that it is for somebody else."
    if (payment.amount_pence, payment.currency) != (pledge.amount_pence, "gbp"):
        return f"{who} is {pledge.amount_pence} pence, but {what} is {payment.amount_pence} {payment.currency}."
    return ""


def _contrary(payment: Payment, pledge: Pledge) -> str:
    """Where the two sides say different things about the money; what is being asked at this moment is not one."""
    who, what = f"Pledge {pledge.id} is {pledge.status}", f"Stripe's payment {payment.id}"
    paid, ours_paid = payment.found.outcome == "succeeded", pledge.status in law.PAID_PLEDGES
    if paid and not ours_paid:
        return f"{who}, but {what} is paid."
    if ours_paid and not paid:
        return f"{who}, but {what} is not paid."
    if paid and payment.found.charge_id not in _charges_of(pledge):
        return f"{who}, but the charge of {what} is not in its ledger."
    if pledge.status in ("dropped", "released", "cancelled") and not payment.cancelled:
        return f"{who}, but {what} can still be paid."
    return ""


def _charges_of(pledge: Pledge) -> list[str]:
    found = sa.select(Movement.stripe_id).where(Movement.pledge_id == pledge.id, Movement.kind == "charge")
    return list(db.session.scalars(found))


# --- Refunds -----------------------------------------------------------------------------------------------


def _refunds_of_ours(since: dt.datetime, until: dt.datetime) -> list[str]:
    paid = sa.and_(Movement.kind == "refund", Movement.amount_pence < 0, Movement.at >= since, Movement.at <= until)
    return _names(sa.select(Movement.stripe_id).where(paid))


def _look_for_refund(refund_id: str) -> Compared:
    try:
        return _compare_refund(payments.look_at_refund(refund_id))
    except payments.StripeMissing:
        (pledge_id,) = _names(sa.select(Movement.pledge_id).where(Movement.stripe_id == refund_id))
        return False, f"Pledge {pledge_id} has a refund in the ledger, but Stripe has no {refund_id}."


def _compare_refund(refund: RefundFound) -> Compared:
    """A refund of a payment of ours, whether staff asked for it here or at Stripe."""
    if not _refund_is_off(refund):
        return False, ""
    look_again_at_refund(str(refund.refund_id))
    still_off = _refund_is_off(payments.look_at_refund(str(refund.refund_id)))
    return _told("refund", str(refund.refund_id), not still_off, still_off)


def _refund_is_off(refund: RefundFound) -> str:
    name, paid_to = str(refund.refund_id), Pledge.payment_intent_id == refund.payment_intent_id
    pledge_id = db.session.scalar(sa.select(Pledge.id).where(paid_to))
    asked = db.session.scalar(sa.select(Refund.status).where(Refund.stripe_id == name))
    booked, undone = _booked(name), _booked(f"{name}:failed")
    db.session.commit()
    if pledge_id is None:
        return ""
    said = f"Pledge {pledge_id} has Stripe's refund {name} of {refund.amount_pence} pence, {refund.outcome}"
    if booked not in (None, -refund.amount_pence):
        return f"{said}, but {-booked} pence in its ledger."
    # What failed is in the ledger twice, there and back, or not at all.
    agrees = {
        "succeeded": booked is not None and undone is None,
        "failed": (booked is None) == (undone is None),
        "pending": undone is None,
    }
    return (
        "" if agrees[refund.outcome] and asked in (None, refund.outcome) else f"{said}, which its ledger does not say."
    )


# --- Disputes ----------------------------------------------------------------------------------------------


def _disputes_of_ours(since: dt.datetime, until: dt.datetime) -> list[str]:
    """Those of this time, and whatever was opened before it and is not decided yet, as far as we know."""
    concerned = sa.or_(Dispute.opened_at >= since, Dispute.status == "open")
    return _names(sa.select(Dispute.stripe_id).where(concerned, Dispute.opened_at <= until))


def _look_for_dispute(dispute_id: str) -> Compared:
    try:
        return _compare_dispute(payments.look_at_dispute(dispute_id))
    except payments.StripeMissing:
        return False, f"Stripe has no dispute {dispute_id}, which our rows have."


def _compare_dispute(dispute: DisputeFound) -> Compared:
    if not _dispute_is_off(dispute):
        return False, ""
    look_again_at_dispute(dispute.dispute_id)
    still_off = _dispute_is_off(payments.look_at_dispute(dispute.dispute_id))
    return _told("dispute", dispute.dispute_id, not still_off, still_off)


def _dispute_is_off(dispute: DisputeFound) -> str:
    name = dispute.dispute_id
    ours = db.session.scalar(sa.select(Dispute).where(Dispute.stripe_id == name))
    booked, undone = _booked(name), _booked(f"{name}:won")
    kept = ours is not None and (ours.status, ours.amount_pence) == (dispute.outcome, dispute.amount_pence)
    about_us = ours is not None and ours.pledge_id is not None
    db.session.commit()
    taken, given_back = dispute.held and about_us, dispute.held and about_us and dispute.outcome == "won"
    agrees = kept and (booked is not None, undone is not None) == (taken, given_back)
    return "" if agrees else f"Stripe's dispute {name} is {dispute.outcome}, and our rows do not say the same."


# --- The balance -------------------------------------------------------------------------------------------

# What a line of Stripe's balance is called in our ledger, by Stripe's word for it. Nothing else there is about pledges.
IN_OUR_LEDGER = {
    "charge": "{}", "refund": "{}", "refund_failure": "{}:failed", "dispute": "{}", "dispute_reversal": "{}:won",
}  # fmt: skip


def _compare_line(line: BalanceLine) -> Compared:
    """A line of the balance is in our ledger, for the same sum. It tells what came long after its charge or refund."""
    off = still_off = _line_is_off(line)
    if off and line.category in ("refund", "refund_failure"):
        look_again_at_refund(line.source_id)
        still_off = _line_is_off(line)
    elif off and line.category in ("dispute", "dispute_reversal"):
        look_again_at_dispute(line.source_id)
        still_off = _line_is_off(line)
    _take_fee(line)
    return _told("line of the balance", line.source_id, bool(off) and not still_off, still_off)


def _take_fee(line: BalanceLine) -> None:
    """Stripe's fees stand nowhere else, so that they come into our ledger only here; that nobody knew is no mistake."""
    name = IN_OUR_LEDGER.get(line.category, "").format(line.source_id)
    booked = db.session.scalar(sa.select(Movement).where(Movement.stripe_id == name))
    if booked is not None:
        booked.take_fee(line.id, line.fee_pence, dt.datetime.now(dt.UTC))
    db.session.commit()


def _line_is_off(line: BalanceLine) -> str:
    """A line is ours when we know what it comes from; an unknown charge is found among the payments."""
    if line.category not in IN_OUR_LEDGER:
        return ""
    booked = _booked(IN_OUR_LEDGER[line.category].format(line.source_id))
    about = sa.select(Dispute.id).where(Dispute.stripe_id == line.source_id, Dispute.pledge_id.is_not(None))
    ours = booked is not None or _booked(line.source_id) is not None or db.session.scalar(about) is not None
    db.session.commit()
    if not ours or (booked, "gbp") == (line.amount_pence, line.currency):
        return ""
    said = f"Stripe's balance has {line.amount_pence} {line.currency} for {line.source_id} ({line.category})"
    return f"{said}; our ledger has {'nothing' if booked is None else f'{booked} pence'}."


# --- All of them -------------------------------------------------------------------------------------------

BOOKS = {
    "payments": Book(payments.payments_between, _compare_payment, _charges_of_ours, _look_for_payment),
    "refunds": Book(payments.refunds_between, _compare_refund, _refunds_of_ours, _look_for_refund),
    "disputes": Book(payments.disputes_between, _compare_dispute, _disputes_of_ours, _look_for_dispute),
    # Whatever is in our ledger was looked for among the others by now.
    "balance": Book(payments.balance_between, _compare_line, lambda *_: [], lambda _: (False, "")),
}


def _told(kind: str, name: str, mended: bool, finding: str) -> Compared:
    if mended or finding:
        log.warning(
            "something at Stripe was not as our rows said", kind=kind, name=name, mended=mended, finding=finding
        )
    return mended, finding


def _booked(name: str) -> int | None:
    """The pence of the line of our ledger with this name."""
    return db.session.scalar(sa.select(Movement.amount_pence).where(Movement.stripe_id == name))


def _names(asked: sa.Select[Any]) -> list[str]:
    names = [str(name) for name in db.session.scalars(asked)]
    db.session.commit()
    return names
