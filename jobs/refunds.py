"""Refunds: asks Stripe for what staff have decided, each once, and writes down what became of it.

The row with its key is committed before Stripe is asked. While no answer comes the same key asks again; when the key
may be forgotten, or a bank disputes the payment by now, its refunds are looked through instead; a new key is never
made.
"""

import datetime as dt

import structlog

import law
import payments
from jobs import each, ring
from models import Pledge, Refund, db

log = structlog.get_logger()

# Longer than one call may take with its repeats; should two ever ask at once, they send the same key.
LEASE = dt.timedelta(seconds=60)


def send_refunds() -> None:
    """Ask for, or about, every refund that waits. Safe to run twice at once: each is claimed before it is asked."""
    waiting = Refund.waiting(_now())
    db.session.commit()
    each(waiting, _send, _put_back)
    if Refund.waiting(_now()):
        ring("send_refunds")
    db.session.commit()
    ring("send_letters")


def _send(refund_id: int) -> None:
    refund = Refund.claim(refund_id, _now(), LEASE)
    if refund is None:
        db.session.rollback()
        return
    pledge_id, intent_id = refund.pledge_id, str(refund.pledge.payment_intent_id)
    amount, key, stripe_id, age = refund.amount_pence, refund.key, refund.stripe_id, _now() - refund.asked_at
    # Its bank may have asked for the payment since staff decided.
    is_disputed, is_first_try = refund.pledge.status == "disputed", refund.tries == 1
    db.session.commit()
    if stripe_id is not None:
        found = [payments.look_at_refund(stripe_id)]
    elif age <= law.KEY_LIFETIME and not is_disputed:
        asked = payments.refund(
            refund_id=refund_id, pledge_id=pledge_id, payment_intent_id=intent_id, amount_pence=amount, key=key
        )
        # A refusal means that the payment is not as we believed: whatever was paid back is written down as well.
        found = [asked] if asked.refund_id else [*payments.refunds_of(intent_id), asked]
    else:
        found = payments.refunds_of(intent_id)
        if not any(one.noted == refund_id for one in found):
            never_sent = is_disputed and is_first_try
            if age <= law.NEW_KEY_AFTER and not never_sent:
                raise payments.StripeAway("it is not among the refunds of its payment, and may still be on its way")
            why = "charge_disputed" if is_disputed else "never_arrived"
            found.append(payments.RefundFound("failed", None, intent_id, amount, why, refund_id))
    pledge = Pledge.hold(pledge_id)
    for one in found:
        pledge.apply_refund(one, _now())
    log.info("refund answered", refund=refund_id, pledge=pledge_id, status=db.session.get_one(Refund, refund_id).status)
    db.session.commit()


def _put_back(refund_id: int, why: str) -> None:
    db.session.get_one(Refund, refund_id).wait(_now())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
