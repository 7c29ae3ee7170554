"""The supporter's way out of a refused payment, and to another card: plain forms on the private page.

They stand in the room of the supporters and carry nothing for htmx: the way leads to Stripe's page or to the bank's.
The bank's page is reached by a plain link, since the address of a bank cannot be in our policy for forms.
"""

import functools

import sqlalchemy as sa
from flask import redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

import config
from jobs import ring
from jobs.deadline_capture import pay_again
from jobs.stripe_events import look_again_at_charge
from models import Pledge, db
from views.card_pages import (
    close_card_page,
    come_back,
    is_outdated,
    leads_nowhere,
    note_card_page,
    page_is_gone,
    private_page,
    promise_moved_on,
    to_card_page,
)
from views.private_page import read_again
from views.public import now
from views.supporters import supporters


@supporters.post("/pledges/<link>/payment")
def payment(pledge: Pledge) -> AnyResponse:
    """Pay with the card that was refused, its owner being here: Stripe is asked at once."""
    back, pledge_id = private_page(pledge), pledge.id
    pay_again(pledge_id, config.current().site_url + url_for("supporters.bank_return"))
    return redirect(back, 303)


@supporters.get("/pledges/bank-return")
def bank_return() -> AnyResponse:
    intent_id = request.args.get("payment_intent", "")
    known = db.session.scalar(sa.select(Pledge).where(Pledge.payment_intent_id == intent_id))
    if known is None or not known.may_come_back_from_bank(now()):
        return leads_nowhere()
    # Each try of a payment has an answer of its own.
    return come_back(
        known, f"{intent_id}-{len(known.attempts)}", functools.partial(look_again_at_charge, intent_id=intent_id)
    )


@supporters.post("/pledges/<link>/card")
def new_card(pledge: Pledge) -> AnyResponse:
    """Save another card: on the page that is open already, else on a new one once the last is closed at Stripe."""
    held = Pledge.hold(pledge.id)
    held.require_new_card(now())
    promise_mark = held.round.promise_mark
    # Once it is decided the promise is fixed, and another card is agreed to in words of its own.
    if held.status == "confirmed" and is_outdated(request.form, held):
        return read_again(held)
    if held.awaits_card and held.asked_pence is None and not page_is_gone(held):
        return to_card_page(held)
    if held.awaits_card:
        if elsewhere := close_card_page(held):
            return elsewhere
        held = Pledge.hold(pledge.id)
        if elsewhere := promise_moved_on(promise_mark, held):
            return elsewhere
        held.require_new_card(now())
    if not held.awaits_card:
        note_card_page(held)
    db.session.commit()
    return to_card_page(held)


@supporters.post("/pledges/<link>/end-of-retries")
def end_of_retries(pledge: Pledge) -> AnyResponse:
    held = Pledge.hold(pledge.id)
    held.end_retries(now())
    db.session.commit()
    ring("send_letters")
    return redirect(private_page(held), 303)
