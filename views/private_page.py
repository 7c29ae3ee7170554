"""The supporter's private page: what the pledge is at, and all that can be done about it there, by plain forms."""

from typing import Any

from flask import abort, make_response, redirect, render_template, request
from flask.wrappers import Response
from flask_babel import gettext
from werkzeug.wrappers import Response as AnyResponse

from jobs import ring
from law import Refused
from models import Bounce, Pledge, Round, Update, begin_reading, db, held_about
from money import figure
from views import hypermedia, words
from views.card_pages import (
    Terms,
    change_terms,
    close_card_page,
    is_outdated,
    note_card_page,
    page_is_gone,
    private_page,
    promise_moved_on,
    to_card_page,
)
from views.files import as_file
from views.forms import AgreedAmountForm, AmountForm, NameForm
from views.public import now, send_picture
from views.supporters import shown, supporters, wait_for_refused_cards


@supporters.get("/pledges/<link>")
def pledge_page(pledge: Pledge) -> Response:
    state = _state(pledge)
    return hypermedia.refreshed("pledges/pledge.html", "pledges/_pledge_state.html", _mark(state), **state)


def read_again(pledge: Pledge) -> Response:
    """Instead of what a button would have done whose page shows a promise of before: the page as it is now. It is only
    read for that, so nobody who writes has to wait."""
    begin_reading()
    state = _state(pledge) | {"problem": gettext(words.PROMISE_CHANGED_BY_NOW)}
    return make_response(render_template("pledges/pledge.html", mark=_mark(state), **state), 409)


@supporters.post("/pledges/<link>/card-page")
def card_page(pledge: Pledge) -> AnyResponse:
    """Continue to Stripe: to the same page while it lives, else to a new one. Or have the letter sent again, with which
    an address is confirmed first."""
    held = Pledge.hold(pledge.id)
    unsaved = held.status in ("started", "abandoned")
    if unsaved and not held.round.is_open(now()):
        raise Refused(gettext("This case has closed: cards can no longer be saved for it."))
    if unsaved:
        held.round.require_pledging(now())
    if (unsaved or held.is_held_for_its_address) and is_outdated(request.form, held):
        return read_again(held)
    if held.is_held_for_its_address:
        held.ask_confirmation(now())
    if held.status == "abandoned" or (held.status == "started" and page_is_gone(held)):
        return change_terms(held, Terms.of(held), held.round.promise_mark)
    return to_card_page(held)


def _state(pledge: Pledge) -> dict[str, Any]:
    """What the state of the pledge is told from."""
    was_closed = request.args.get("stripe") == "closed" and pledge.round.is_open(now())
    return shown(pledge) | {
        "problem": gettext(words.PROMISE_CHANGED_BY_NOW) if was_closed else "",
        "address_asked": pledge.address_asked(now()),
        "comes_back": Bounce.holds(pledge.email),
        "halt": pledge.round.halt(now()) if pledge.round.is_open(now()) else "",
        "raise_to": figure(pledge.asked_pence) if pledge.asked_pence and pledge.awaits_card else "",
    }


def _mark(state: dict[str, Any]) -> str:
    """Changes with what the page says of its state."""
    pledge: Pledge = state["pledge"]
    page = "page-to-come" if pledge.awaits_page else ""
    return ".".join(filter(None, (pledge.status, page, state["halt"], pledge.round.promise_mark)))


@supporters.get("/pledges/<link>/receipt")
def receipt(pledge: Pledge) -> str:
    """To be printed or kept; it tells what was taken and what went back, as the ledger has it."""
    charged_at = pledge.require_receipt()
    return render_template("pledges/receipt.html", charged_at=charged_at, movements=pledge.movements(), **shown(pledge))


@supporters.post("/pledges/<link>/receipt-letter")
def receipt_letter(pledge: Pledge) -> str:
    held = Pledge.hold(pledge.id)
    held.owe_receipt(now())
    db.session.commit()
    ring("send_letters")
    return render_template("pledges/receipt_sent.html", **shown(held))


@supporters.post("/pledges/<link>/cancellation")
def cancel(pledge: Pledge) -> Response:
    held = Pledge.hold(pledge.id)
    held.cancel(now())
    db.session.commit()
    ring("let_go")
    ring("send_letters")
    return _changed(held, gettext("Your pledge is cancelled."))


@supporters.get("/pledges/<link>/departure")
def departure(pledge: Pledge) -> str:
    """The way out that a letter about a changed promise offers. Mail scanners follow links, so this only shows the
    button."""
    return _departure_page(pledge)


@supporters.post("/pledges/<link>/departure")
def leave(pledge: Pledge) -> str:
    held = Pledge.hold(pledge.id)
    held.cancel(now())
    db.session.commit()
    ring("let_go")
    ring("send_letters")
    return _departure_page(held)


def _departure_page(pledge: Pledge) -> str:
    return render_template("pledges/departure.html", **shown(pledge) | {"link": pledge.link("leave")})


# --- What is kept of the supporter -------------------------------------------------------------------------


@supporters.get("/pledges/<link>/data")
def pledge_data(pledge: Pledge) -> Response:
    """All that we keep of the supporter with this pledge, as a file."""
    return as_file({"pledge": held_about(pledge)}, "pledge")


@supporters.get("/pledges/<link>/erasure")
def erasure(pledge: Pledge) -> str:
    """What erasing means for this pledge, with the button, or why it has to wait."""
    try:
        pledge.require_erasable(now())
    except Refused as why:
        return render_template("pledges/erasure.html", why=str(why), **shown(pledge))
    return render_template("pledges/erasure.html", why="", **shown(pledge))


@supporters.post("/pledges/<link>/erasure")
def erase(pledge: Pledge) -> str:
    held = Pledge.hold(pledge.id)
    its_case = held.round.case
    held.erase("supporter", now())
    db.session.commit()
    for job in ("let_go", "finish_erasures", "send_letters"):
        ring(job)
    return render_template("pledges/erased.html", case=its_case)


# --- The amount --------------------------------------------------------------------------------------------


@supporters.get("/pledges/<link>/amount")
def amount_form(pledge: Pledge) -> tuple[str, int]:
    """A pledge that counts is changed in two steps: the agreement stands beside the button with its very amount."""
    pledge.require_changeable(now())
    if pledge.status != "confirmed" or "amount" not in request.args:
        return _amount_page(pledge, AgreedAmountForm(amount=figure(pledge.amount_pence)), 200)
    chosen = AmountForm(request.args)
    if not chosen.validate_for(pledge.amount_pence):
        return _amount_page(pledge, chosen, 422)
    form = AgreedAmountForm(amount=chosen.amount.data)
    form.pence = chosen.pence
    return _amount_page(pledge, form, 200)


@supporters.post("/pledges/<link>/amount")
def change_amount(pledge: Pledge) -> AnyResponse | tuple[str, int]:
    pledge.require_changeable(now())
    form = AgreedAmountForm(request.form)
    if not form.validate_for(pledge.amount_pence):
        if pledge.status == "confirmed" and form.amount.errors:
            # Back at the first of the two steps there is no box to tick.
            form.agreed.errors = []
        return _amount_page(pledge, form, 422)
    ticked = request.form.get("promise", "")
    if ticked != Round.hold(pledge.round_id).promise_mark:
        form.agreed.data, form.agreed.errors = False, [gettext(words.PROMISE_CHANGED)]
        return _amount_page(pledge, form, 409)
    if pledge.status == "confirmed":
        return _change_counted(pledge, form.pence, ticked)
    return change_terms(pledge, Terms.of(pledge)._replace(amount_pence=form.pence), ticked)


def _change_counted(pledge: Pledge, pence: int, promise_mark: str) -> AnyResponse:
    """Less holds at once, more once a card is saved; a card page that names another amount is closed first."""
    held = Pledge.hold(pledge.id)
    held.require_other_amount(pence, now())
    if pence > held.amount_pence:
        wait_for_refused_cards(held)
    if held.awaits_card and held.asked_pence == pence and not page_is_gone(held):
        return to_card_page(held)
    if held.awaits_card:
        if elsewhere := close_card_page(held):
            return elsewhere
        held = Pledge.hold(pledge.id)
        if elsewhere := promise_moved_on(promise_mark, held):
            return elsewhere
    held.change_amount(pence, now())
    raised = held.asked_pence is not None
    if raised:
        note_card_page(held)
    db.session.commit()
    ring("send_letters")
    return to_card_page(held) if raised else redirect(private_page(held, changed="amount"), 303)


def _amount_page(pledge: Pledge, form: AmountForm, status: int) -> tuple[str, int]:
    return render_template("pledges/amount.html", form=form, **shown(pledge)), status


# --- What others see, and updates --------------------------------------------------------------------------


@supporters.get("/pledges/<link>/name")
def name_form(pledge: Pledge) -> str:
    pledge.require_changeable(now())
    form = NameForm(name=pledge.name, shown_as=pledge.shown_as)
    return render_template("pledges/name.html", form=form, **shown(pledge))


@supporters.post("/pledges/<link>/name")
def rename(pledge: Pledge) -> AnyResponse | tuple[str, int]:
    pledge.require_changeable(now())
    form = NameForm(request.form)
    if not form.validate():
        return render_template("pledges/name.html", form=form, **shown(pledge)), 422
    held = Pledge.hold(pledge.id)
    held.rename(str(form.name.data), str(form.shown_as.data), now())
    db.session.commit()
    return redirect(private_page(held, changed="name"), 303)


@supporters.post("/pledges/<link>/updates")
def updates(pledge: Pledge) -> Response:
    """With `wanted` updates come, without it no more of them."""
    held = Pledge.hold(pledge.id)
    if request.form.get("wanted"):
        held.subscribe(now())
    else:
        held.unsubscribe(now())
    db.session.commit()
    notice = gettext("You get updates about this case.") if held.wants_updates else gettext("You get no more updates.")
    return _changed(held, notice)


@supporters.get("/pledges/<link>/updates")
def read_updates(pledge: Pledge) -> str:
    """All updates of the case, with those that are for supporters alone once the pledge counts."""
    return render_template("pledges/updates.html", updates=_readable_by(pledge), **shown(pledge))


@supporters.get("/pledges/<link>/pictures/<sha256>")
def update_picture(pledge: Pledge, sha256: str) -> AnyResponse:
    hung = (one for update in _readable_by(pledge) for one in update.pictures if one.sha256 == sha256)
    return send_picture(next(hung, None) or abort(404))


def _readable_by(pledge: Pledge) -> list[Update]:
    published = pledge.round.case.published_updates()
    return [update for update in published if pledge.is_supporters or update.is_for_everyone]


@supporters.get("/pledges/<link>/unsubscription")
def unsubscription(pledge: Pledge) -> str:
    """Mail scanners follow links, so this only shows the button."""
    mine = shown(pledge) | {"link": pledge.link("unsubscribe")}
    return render_template("pledges/unsubscription.html", **mine)


@supporters.post("/pledges/<link>/unsubscription")
def unsubscribe(pledge: Pledge) -> str:
    pledge.unsubscribe(now())
    db.session.commit()
    return render_template("pledges/unsubscribed.html", **shown(pledge))


def _changed(held: Pledge, notice: str) -> Response:
    """Back to the private page, where the change is told; for htmx only what has changed of it."""
    state = _state(held)
    return hypermedia.done(private_page(held), notice, "pledges/_pledge_state.html", mark=_mark(state), **state)
