"""The supporter's way: the pledge form, to Stripe's page and back. What stands behind the private link has rooms of
its own on the same blueprint: private_page.py, addresses.py and repairs.py."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import sqlalchemy as sa
from flask import Blueprint, abort, redirect, render_template, request
from flask.wrappers import Response
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

import config
import law
from jobs.stripe_events import look_again_at_card
from models import AddressChange, Breaker, CardFailure, Case, Lookout, Pledge, Round, begin_reading, db
from views import doors, languages, limits, words
from views.by_hand import FormByHand
from views.card_pages import (
    Terms,
    change_terms,
    come_back,
    leads_nowhere,
    note_card_page,
    page_is_gone,
    private_page,
    to_card_page,
)
from views.counting import count_source
from views.public import found, network_of_today, now

supporters = Blueprint("supporters", __name__)
doors.admit(supporters, "anyone, or the holder of a private link")
# What the link of a route is for; any other link is unknown there.
PURPOSES = {"supporters.unfinished": "unfinished", "supporters.unsubscription": "unsubscribe",
            "supporters.unsubscribe": "unsubscribe", "supporters.new_address": "new-address",
            "supporters.departure": "leave", "supporters.leave": "leave",
            "supporters.use_new_address": "new-address", "supporters.old_address": "old-address",
            "supporters.keep_old_address": "old-address", "supporters.confirmation": "confirmation",
            "supporters.confirm_address": "confirmation"}  # fmt: skip
# What may lead to a card page, beside the form itself.
OPENS_CARD_PAGES = ("supporters.card_page", "supporters.change_amount", "supporters.new_card",
                    "supporters.change_address")  # fmt: skip
# These lead there only before a card is saved; but a higher amount does, which asks for itself.
CHANGES = ("supporters.change_amount", "supporters.change_address")


@supporters.before_request
def find_by_link() -> Response | None:
    """Turn the private link of the address into its row, or say that it is none; nothing here may be cached."""
    doors.never_store()
    values = request.view_args or {}
    if "link" not in values:
        return None
    purpose = PURPOSES.get(str(request.endpoint), "pledge")
    link = values.pop("link")
    about_address = purpose in ("new-address", "old-address")
    table: type[AddressChange | Pledge] = AddressChange if about_address else Pledge
    row = values["change" if about_address else "pledge"] = table.by_link(link, purpose)
    return None if row else leads_nowhere()


@supporters.before_request
def limit_card_pages() -> None:
    """However a card page is asked for, only so many may be for one address, and none where many were refused."""
    pledge = (request.view_args or {}).get("pledge")
    if request.endpoint not in OPENS_CARD_PAGES or not pledge:
        return
    if limits.too_many("card page", pledge.email):
        abort(429)
    if pledge.confirmed_at is None or request.endpoint not in CHANGES:
        wait_for_refused_cards(pledge)


def wait_for_refused_cards(pledge: Pledge) -> None:
    """No card page for an address, or to a network, for which many cards were refused just now."""
    if CardFailure.too_many_for(pledge.email, now()) or CardFailure.too_many_from(network_of_today(now()), now()):
        limits.come_back_in(int(law.FAILURES_WITHIN.total_seconds()))
        abort(429)


# --- Pledging ----------------------------------------------------------------------------------------------


@supporters.get("/cases/<slug>/pledge")
def pledge_form(slug: str) -> tuple[str, int]:
    its_case, came_from = found(slug), _came_from()
    round_id = its_case.round.id
    form = FormByHand.opened_at(now(), came_from=came_from, **_prefilled())
    page, status = _pledge_page(its_case, form, 200)
    if status == 200 and request.method == "GET" and not current_user.is_authenticated:
        count_source(round_id, came_from, "opened", now())
    return page, status


@supporters.post("/cases/<slug>/pledges")
def pledge(slug: str) -> Response | AnyResponse | tuple[str, int]:
    form = FormByHand(request.form)
    if not form.validate():
        form.renew(now())
        if form.guessed and limits.too_many("pledge"):
            return _must_wait(slug, form)
        return _form_again(slug, form, 422)
    network, form_key, email = network_of_today(now()), str(form.form_key.data), str(form.email.data)
    # Before the books are opened: whoever writes there keeps all others from it meanwhile.
    if too_many_pages(email, network):
        return _must_wait(slug, form)
    its_round = Round.hold_at(slug) or abort(404)
    lookout = Lookout.of(its_round, form_key, email, network, now())
    if lookout.must_wait(network, now()):
        limits.come_back_in(int(law.FAILURES_WITHIN.total_seconds()))
        return _must_wait(slug, form)
    if request.form.get("promise", "") != lookout.promise_mark:
        form.agreed.data, form.agreed.errors = False, [gettext(words.PROMISE_CHANGED)]
        return _form_again(slug, form, 409)
    terms = Terms(
        form.pence, str(form.name.data), email, str(form.shown_as.data), form.wants_updates.data,
        form.message.data or "", form.message_public.data,
    )  # fmt: skip
    made = its_round.start_pledge(
        form_key=form_key, **terms._asdict(), as_of=now(), came_from=law.known_source(str(form.came_from.data or "")),
        language=languages.asked_for(), network=network, lookout=lookout,
    )  # fmt: skip
    if made in db.session.new:
        note_card_page(made)
    elif made.status == "abandoned" or (made.status == "started" and not _stands(made, terms)):
        return change_terms(made, terms, lookout.promise_mark)
    return to_card_page(made)


def _stands(made: Pledge, terms: Terms) -> bool:
    """Whether a form that is sent again says nothing new, and its letter or its card page can still be used."""
    return made.promised(*terms) and (made.confirm_by is not None or not page_is_gone(made))


@supporters.get("/pledges/return")
def came_back() -> AnyResponse:
    session_id = request.args.get("session_id", "")
    known = db.session.scalar(sa.select(Pledge).where(Pledge.session_id == session_id))
    if known is None or not known.may_come_back(now()):
        return leads_nowhere()
    if not known.awaits_card:
        return redirect(private_page(known), 303)
    return come_back(known, session_id, look_again_at_card)


@supporters.get("/pledges/unfinished/<link>")
def unfinished(pledge: Pledge) -> AnyResponse:
    """Back from Stripe without a saved card. This link is known to Stripe, so it opens only what is unfinished."""
    if pledge.status != "abandoned" and not pledge.wants_card:
        abort(404)
    return redirect(private_page(pledge), 303)


def shown(pledge: Pledge) -> dict[str, Any]:
    """What every page behind a private link may speak of."""
    its_round = pledge.round
    return {
        "pledge": pledge,
        "link": pledge.link(),
        "round": its_round,
        "case": its_round.case,
        "as_of": now(),
        "stripe": request.args.get("stripe", ""),
        "changed": request.args.get("changed", ""),
        "history": words.history(pledge),
    }


def _pledge_page(its_case: Case, form: FormByHand, status: int) -> tuple[str, int]:
    """The form, or what to know instead once the case takes no more pledges."""
    its_round, as_of = its_case.round, now()
    state, known = Breaker.state_for(its_case.id, as_of), {"case": its_case, "round": its_round, "as_of": as_of}
    rests = state == "paused"
    if not its_round.is_open(as_of) or its_case.pledging_paused or rests:
        return render_template("pledges/closed.html", rests=rests, **known), 409
    return render_template("pledges/form.html", form=form, asks=state == "asks", **known), status


def too_many_pages(email: str, network: str) -> bool:
    """Whether so many card pages were asked for from here, or for this address, that somebody must wait before another
    one. A case that much is pledged for is no reason."""
    return limits.any_too_many(("pledge", ""), ("network", network), ("card page", email))


def _must_wait(slug: str, form: FormByHand) -> tuple[str, int]:
    form.email.errors = [
        gettext("Many pledges came from your network or address. Please wait an hour, then send this again.")
    ]
    return _form_again(slug, form, 429)


def _form_again(slug: str, form: FormByHand, status: int) -> tuple[str, int]:
    """The form with all that was typed into it. It is only read for that, so nobody who writes has to wait."""
    begin_reading()
    return _pledge_page(found(slug), form, status)


def _came_from() -> str:
    """Whence somebody came to the form: by the label of a link to it or to the case page before, or from which host.

    The browser tells the page before. Ours are kept by caches, so nothing of a reader may stand in them.
    """
    label = request.args.get("via", "")
    try:
        before = urlsplit(request.referrer or "")
        host = before.hostname or ""
    except ValueError:
        return law.source(label, "")
    if host == urlsplit(config.current().site_url).hostname:
        return law.source(label or parse_qs(before.query).get("via", [""])[0], "")
    return law.source(label, host)


def _prefilled() -> dict[str, Any]:
    """An amount of the address (`?amount=25`) chosen beforehand, when it is one that the form offers."""
    asked = request.args.get("amount", "")
    return {"amount": asked} if asked in {str(pence // 100) for pence in law.PRESET_PLEDGES} else {}
