"""Where a pledge's letters and its private link go: another address, another link, and links that were lost.

Mail scanners follow links, so what a letter leads to only shows a button.
"""

from flask import redirect, render_template, request, url_for
from flask_babel import gettext, lazy_gettext
from werkzeug.wrappers import Response as AnyResponse

from jobs import ring
from models import AddressChange, LinkRequest, Pledge, begin_reading, db
from views import languages, limits, words
from views.card_pages import Terms, change_terms, is_outdated, private_page
from views.forms import EmailForm
from views.public import now
from views.supporters import shown, supporters

TOO_MANY = [lazy_gettext("Many letters were asked for. Please wait an hour, then send this again.")]


# --- Another address ---------------------------------------------------------------------------------------


@supporters.get("/pledges/<link>/address")
def address_form(pledge: Pledge) -> str:
    _require_other_address(pledge)
    return _address_page(pledge, EmailForm(email=pledge.email))


@supporters.post("/pledges/<link>/address")
def change_address(pledge: Pledge) -> AnyResponse | tuple[str, int]:
    _require_other_address(pledge)
    form = EmailForm(request.form)
    if not form.validate():
        return _address_page(pledge, form), 422
    email = str(form.email.data)
    if email == pledge.email:
        form.email.errors = [gettext("Letters go to %(email)s already.", email=email)]
        return _address_page(pledge, form), 422
    if limits.too_many("letter") or limits.too_many("letter", email):
        form.email.errors = TOO_MANY
        return _address_page(pledge, form), 429
    if pledge.confirmed_at is None:
        # Whoever pledges anew with it agrees anew, and so to what the page showed.
        held = Pledge.hold(pledge.id)
        if is_outdated(request.form, held):
            begin_reading()
            return _address_page(held, form, gettext(words.PROMISE_CHANGED_BY_NOW)), 409
        return change_terms(held, Terms.of(held)._replace(email=email), held.round.promise_mark)
    held = Pledge.hold(pledge.id)
    held.ask_other_address(email, now())
    db.session.commit()
    ring("send_letters")
    return redirect(private_page(held), 303)


def _require_other_address(pledge: Pledge) -> None:
    """Before a card was saved the address is a term like any other, and no letter has gone there yet."""
    if pledge.confirmed_at is None:
        pledge.require_changeable(now())
    else:
        pledge.require_other_address()


def _address_page(pledge: Pledge, form: EmailForm, problem: str = "") -> str:
    return render_template("pledges/address.html", form=form, problem=problem, **shown(pledge))


@supporters.get("/pledges/new-address/<link>")
def new_address(change: AddressChange) -> str:
    change.require_waiting(now())
    return render_template("pledges/new_address.html", change=change, link=change.link("new-address"))


@supporters.post("/pledges/new-address/<link>")
def use_new_address(change: AddressChange) -> AnyResponse:
    held = AddressChange.hold(change.id)
    held.make(now())
    db.session.commit()
    ring("send_letters")
    return redirect(private_page(held.pledge), 303)


@supporters.get("/pledges/old-address/<link>")
def old_address(change: AddressChange) -> str:
    change.require_way_back(now())
    return render_template("pledges/old_address.html", change=change, link=change.link("old-address"))


@supporters.post("/pledges/old-address/<link>")
def keep_old_address(change: AddressChange) -> AnyResponse:
    held = AddressChange.hold(change.id)
    held.take_back(now())
    db.session.commit()
    ring("send_letters")
    return redirect(private_page(held.pledge), 303)


# --- Another link, and lost ones ---------------------------------------------------------------------------


@supporters.post("/pledges/<link>/new-link")
def replace_link(pledge: Pledge) -> str:
    """The new link goes to the mailbox alone: whoever has only stolen the old one is out."""
    held = Pledge.hold(pledge.id)
    held.replace_link(now())
    db.session.commit()
    ring("send_letters")
    return render_template("pledges/link_replaced.html", pledge=held, case=held.round.case)


@supporters.get("/pledges/find")
def find_form() -> str:
    return render_template("pledges/find.html", form=EmailForm())


@supporters.post("/pledges/find")
def find() -> AnyResponse | tuple[str, int]:
    """The same answer, and the same work until it, whether anybody has pledged with this address or not."""
    form = EmailForm(request.form)
    if not form.validate():
        return render_template("pledges/find.html", form=form), 422
    email = str(form.email.data)
    if limits.too_many("letter") or limits.too_many("letter", email):
        form.email.errors = TOO_MANY
        return render_template("pledges/find.html", form=form), 429
    LinkRequest.ask(email, now(), languages.asked_for())
    db.session.commit()
    ring("send_letters")
    return redirect(url_for("supporters.links_sent"), 303)


@supporters.get("/pledges/find/sent")
def links_sent() -> str:
    return render_template("pledges/links_sent.html")
