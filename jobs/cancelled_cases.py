"""What is left to do when staff cancel a case while its pledges are being charged.

Nothing more is charged from then on. Stripe is asked first about each pledge that is left, whether our rows know of a
payment or not: what was paid is paid, for staff to refund; what was not is cancelled there, and only then is its
supporter told that nothing is taken.
"""

import datetime as dt

import config
import payments
from jobs import each, ring
from models import Pledge, db

# Longer than the calls for one pledge may take with their repeats.
LEASE = dt.timedelta(minutes=2)


def release_cancelled() -> None:
    """Find out what became of each payment, end it at Stripe, release its pledge. Safe to run twice, and at once."""
    waiting = Pledge.waiting_to_stop(_now())
    db.session.commit()
    each(waiting, _release, _put_back)
    if Pledge.waiting_to_stop(_now()):
        ring("release_cancelled")
    db.session.commit()
    ring("let_go")
    ring("send_letters")


def _release(pledge_id: int) -> None:
    if not Pledge.claim_to_stop(pledge_id, _now(), LEASE):
        db.session.rollback()
        return
    db.session.commit()
    found = end_at_stripe(pledge_id)
    pledge = Pledge.hold(pledge_id)
    if found is not None:
        pledge.found_paid(found, _now())
    elif pledge.status in ("due", *Pledge.PAYMENT_BEGUN):
        pledge.stopped(_now())
    db.session.commit()


def _put_back(pledge_id: int, why: str) -> None:
    Pledge.hold(pledge_id).wait(_now())


def end_at_stripe(pledge_id: int) -> payments.ChargeFound | None:
    """The payment of a pledge if it was paid after all; None when it is not, and never can be.

    Where a payment was asked for and Stripe has none, the request may still be on its way. Then the card is removed at
    Stripe, since from there on whatever arrives is refused for good; and what Stripe was at work on before is looked
    for once more when it must be over. Raises StripeAway until then: nobody can promise anything yet.
    """
    pledge = db.session.get_one(Pledge, pledge_id)
    intent_id, customer_id, card = pledge.payment_intent_id, str(pledge.customer_id), pledge.payment_method_id
    may_arrive = pledge.request_may_arrive(_now())
    db.session.commit()
    if intent_id is None:
        known = payments.find_charge(config.current(), customer_id, pledge_id)
        if known is None and may_arrive:
            _remove_card(pledge_id, card)
            raise payments.StripeAway("it has no payment yet, but was asked for one")
        intent_id = known.payment_intent_id if known else None
    return payments.give_up_charge(intent_id) if intent_id else None


def _remove_card(pledge_id: int, card: str | None) -> None:
    if card is not None:
        payments.remove_card(card)
        Pledge.hold(pledge_id).card_taken_away(card, _now())
        db.session.commit()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
