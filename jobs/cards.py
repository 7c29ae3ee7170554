"""Saved cards that are given back: what Stripe keeps for us is removed there once it can never be charged.

let_go             the cards, and the open card pages, of pledges that ended uncharged
remove_old_cards   the cards that were replaced, or saved too late to replace one
"""

import datetime as dt

import payments
from jobs import each, ring
from jobs.stripe_events import card_page_of
from models import Event, OldCard, Pledge, db


def let_go() -> None:
    """Remove the cards of pledges that ended uncharged, and close their card pages. Safe to run twice."""
    waiting = Pledge.waiting_to_let_go(_now())
    db.session.commit()
    each(waiting, _let_go, _put_pledge_back)
    if Pledge.waiting_to_let_go(_now()):
        ring("let_go")
    db.session.commit()


def _let_go(pledge_id: int) -> None:
    pledge = db.session.get_one(Pledge, pledge_id)
    method_ids = [pledge.payment_method_id]
    page_may_be_open = pledge.awaits_card or pledge.payment_method_id is None
    db.session.commit()
    if page_may_be_open:
        method_ids.append(_close_card_page(pledge_id))
    for method_id in method_ids:
        if method_id is not None:
            payments.remove_card(method_id)
    pledge = Pledge.hold(pledge_id)
    pledge.card_removed()
    Event.write(pledge, "card_removed", "clock", _now())
    db.session.commit()


def _close_card_page(pledge_id: int) -> str | None:
    """Close the card page that was asked for last; the card that was saved on it all the same, if any."""
    _, session_id = card_page_of(pledge_id)
    found = payments.expire_card_page(session_id) if session_id else None
    return found.payment_method_id if found is not None and found.complete else None


def _put_pledge_back(pledge_id: int, why: str) -> None:
    Pledge.hold(pledge_id).wait(_now())


def remove_old_cards() -> None:
    """Remove what no pledge has any more, so that it can never be charged again. Safe to run twice."""
    waiting = OldCard.waiting(_now())
    db.session.commit()
    each(waiting, _remove, _put_card_back)
    if OldCard.waiting(_now()):
        ring("remove_old_cards")
    db.session.commit()


def _remove(card_id: int) -> None:
    method_id = db.session.get_one(OldCard, card_id).payment_method_id
    db.session.commit()
    payments.remove_card(method_id)
    card = db.session.get_one(OldCard, card_id)
    card.removed()
    Event.write(db.session.get_one(Pledge, card.pledge_id), "old_card_removed", "clock", _now())
    db.session.commit()


def _put_card_back(card_id: int, why: str) -> None:
    db.session.get_one(OldCard, card_id).wait(_now())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
