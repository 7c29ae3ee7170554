"""The way to Stripe's page while cards are being tried out: the reader of a pledge's address confirms it first."""

from flask import redirect, render_template, request
from flask_babel import gettext
from werkzeug.wrappers import Response as AnyResponse

from law import Refused
from models import Pledge, begin_reading, db
from views import words
from views.card_pages import is_outdated, note_card_page, private_page, to_card_page
from views.public import now
from views.supporters import shown, supporters


@supporters.get("/pledges/confirmation/<link>")
def confirmation(pledge: Pledge) -> AnyResponse | str:
    """Mail scanners follow links, so this only shows the button. Once it was pressed, it leads where that led."""
    if pledge.confirm_by is None and pledge.status == "started":
        return redirect(private_page(pledge), 303)
    if not pledge.may_be_confirmed(now()):
        raise Refused(gettext("This link has run out. Please pledge again on the page of the case."))
    return _confirmation_page(pledge)


@supporters.post("/pledges/confirmation/<link>")
def confirm_address(pledge: Pledge) -> AnyResponse | tuple[str, int]:
    """Pressed twice it leads to the same page of Stripe's. On a page that shows a promise of before it does nothing."""
    held = Pledge.hold(pledge.id)
    outdated = is_outdated(request.form, held)
    if outdated and held.may_be_confirmed(now()):
        # It is only read for that, so nobody who writes has to wait.
        begin_reading()
        return _confirmation_page(held, gettext(words.PROMISE_CHANGED_BY_NOW)), 409
    waited = held.confirm_by is not None
    held.confirm_email(now())
    if outdated:
        # It was confirmed before, and the page of Stripe's that was made then names the promise of before as well.
        return redirect(private_page(held), 303)
    if waited and held.status == "started":
        note_card_page(held)
    db.session.commit()
    return to_card_page(held)


def _confirmation_page(pledge: Pledge, problem: str = "") -> str:
    link = pledge.link("confirmation")
    return render_template("pledges/confirmation.html", problem=problem, **shown(pledge) | {"link": link})
