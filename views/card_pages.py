"""The way to Stripe's card page and back, for everybody who goes it: to pledge, to change a pledge, to repair one."""

import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import structlog
from flask import current_app, redirect, url_for
from flask.wrappers import Response
from flask_babel import gettext
from werkzeug.wrappers import Response as AnyResponse

import config
import law
import payments
from jobs import ring
from jobs.card_pages import ASKING
from jobs.stripe_events import apply_card, card_page_of, with_saved_at
from models import Pledge, begin_writing, db, write_new
from money import pounds
from views import hypermedia, limits
from views.public import now

log = structlog.get_logger()
# While hundreds pledge, one process rings for the worker no more often than this, in seconds; it looks at all rows.
RING_EVERY = 1.0


class Terms(NamedTuple):
    """What a supporter fills in, in the order in which a pledge takes it."""

    amount_pence: int
    name: str
    email: str
    shown_as: str
    wants_updates: bool
    message: str
    message_public: bool

    @classmethod
    def of(cls, pledge: Pledge) -> "Terms":
        said = pledge.message or "", pledge.message_for == "everyone"
        return cls(pledge.amount_pence, pledge.name, pledge.email, pledge.shown_as, pledge.wants_updates, *said)


def private_page(pledge: Pledge, changed: str | None = None) -> str:
    """Its address, and what was just changed of it, to be told there."""
    return url_for("supporters.pledge_page", link=pledge.link(), changed=changed)


def is_outdated(sent: Mapping[str, str], held: Pledge) -> bool:
    """Whether a form comes from a page that shows another promise than the one that holds. Needs the round held."""
    return sent.get("promise", "") != held.round.promise_mark


def promise_moved_on(promise_mark: str, held: Pledge) -> AnyResponse | None:
    """Where to go instead if the promise was changed while Stripe closed a page: the private page shows the new one,
    and a button with which to go on. Needs the round held."""
    return None if promise_mark == held.round.promise_mark else redirect(f"{private_page(held)}?stripe=closed", 303)


def note_card_page(made: Pledge) -> None:
    """Write down what Stripe will be asked for, in the transaction that makes the wish. Nothing is asked for while the
    supporter's address waits to be confirmed."""
    if made.confirm_by is not None:
        return
    its_round, as_of = made.round, now()
    expires_at = law.session_expiry(made.repair_until or its_round.deadline, as_of)
    allows = its_round.agreement_of_repair if made.repair_until else its_round.agreement
    params = payments.card_page_params(
        pledge_id=made.id,
        public_id=made.public_id,
        case_id=its_round.case_id,
        email=made.email,
        case_title=its_round.case.title,
        agreement=allows(pounds(made.page_pence)),
        return_url=config.current().site_url + url_for("supporters.came_back"),
        back_url=config.current().site_url + url_for("supporters.unfinished", link=made.link("unfinished")),
        expires_at=expires_at,
        key=made.next_session,
        customer_id=made.customer_id,
    )
    made.ask_card_page(params, expires_at)


def page_is_gone(made: Pledge) -> bool:
    """Whether the card page that was asked for last is over, or was never made and cannot be any more.

    Stripe makes no page that would end within half an hour, and one that was opened with a link that is dead by now
    leads nowhere.
    """
    if made.session_expires_at is None:
        return True
    left = made.session_expires_at - now()
    return not made.leads_back or left <= dt.timedelta(0) or (made.session_id is None and left < law.SHORTEST_SESSION)


def to_card_page(made: Pledge) -> AnyResponse:
    """Ask Stripe for the noted page and send the supporter there. Commits, also what the caller has changed.

    To the private page instead if Stripe is away, or if as many wait for it as may: then the clock asks for the page
    of a pledge that has no card yet, and the supporter finds it there. Whoever waits for Stripe takes a thread from
    all others, and Stripe's slowness must never take the last one.
    """
    back = private_page(made)
    pledge_id, url, params, key = made.id, made.session_url, made.session_params, made.session_key
    if not made.wants_card or params is None or url is not None:
        # A page that was open when the promise changed names the old one, and is over for us.
        url = url if made.wants_card and not page_is_gone(made) else None
        _commit(made)
        if url is None:
            # It may wait for its address to be confirmed.
            ring("send_letters")
        return redirect(url or back, 303)
    waiting = _waiting_room()
    # Nobody waits for a place, and so nobody does it while a row is held.
    if not waiting.places.acquire(blocking=False):
        return _leave_to_clock(made, waiting, back)
    try:
        made.card_page_is_asked_for(now() + ASKING)
        _commit(made)
        page = _asked(params, key)
    finally:
        # Before the next transaction, which may have to wait for others.
        waiting.places.release()
    if isinstance(page, payments.StripeTrouble):
        return _while_stripe_is_away(back, pledge_id, page, key)
    held = Pledge.hold(pledge_id)
    held.card_page_made(key, page.session_id, page.url)
    # Not this page but the one that the row names now: the terms, or the promise, may have changed meanwhile.
    url = held.session_url if held.wants_card and not page_is_gone(held) else None
    db.session.commit()
    return redirect(url or back, 303)


def _commit(made: Pledge) -> None:
    """One that was begun just now is stored as it is: nobody looks at this object again."""
    if made in db.session.new:
        write_new()
    db.session.commit()


def _asked(params: dict[str, Any], key: str) -> payments.CardPage | payments.StripeTrouble:
    try:
        return payments.card_page(params, key)
    except payments.StripeTrouble as trouble:
        return trouble


class WaitingRoom:
    """The places for those who may wait for Stripe's card pages at once, in this process."""

    def __init__(self, most: int) -> None:
        self.places = threading.BoundedSemaphore(most)
        self.rung_at = time.monotonic() - RING_EVERY


def _waiting_room() -> WaitingRoom:
    known = current_app.extensions.get("waiting_room")
    room: WaitingRoom = known or current_app.extensions.setdefault(
        "waiting_room", WaitingRoom(config.current().card_pages_at_once)
    )
    return room


def _leave_to_clock(made: Pledge, waiting: WaitingRoom, back: str) -> AnyResponse:
    """As many wait for Stripe as may. A pledge with a card already is to be taken up again by its supporter."""
    is_first = made.status == "started"
    if not made.awaits_page:
        # Else it was left to the clock before, or somebody is at it.
        made.leave_card_page_to_clock(now())
    _commit(made)
    if is_first and time.monotonic() - waiting.rung_at >= RING_EVERY:
        waiting.rung_at = time.monotonic()
        ring("make_card_pages")
    return redirect(back if is_first else f"{back}?stripe=busy", 303)


def change_terms(made: Pledge, terms: Terms, promise_mark: str) -> AnyResponse:
    """New terms for a pledge whose card is not saved: the old card page is closed at Stripe first.

    If the card was saved on it in the meantime, the pledge stands as it was agreed there; if the terms were
    changed elsewhere in the meantime, those stand, since only the old page is known to be closed. If another promise
    than that which the supporter saw holds by then, nothing is agreed to.
    """
    pledge_id, back = made.id, private_page(made)
    db.session.commit()
    try:
        key, session_id = card_page_of(pledge_id)
        if session_id is not None:
            closed = payments.expire_card_page(session_id)
            if not closed.expired:
                apply_card(pledge_id, with_saved_at(closed, pledge_id))
                return redirect(back, 303)
    except payments.StripeTrouble as trouble:
        return _while_stripe_is_away(back, pledge_id, trouble)
    held = Pledge.hold(pledge_id)
    if elsewhere := promise_moved_on(promise_mark, held):
        return elsewhere
    if held.session_key == key:
        held.promise_again(**terms._asdict(), as_of=now())
        note_card_page(held)
    elif not held.promised(*terms):
        return redirect(back, 303)
    return to_card_page(held)


def close_card_page(held: Pledge) -> AnyResponse | None:
    """Close the page that is open for a pledge which has a card. Commits.

    Where to go instead, if a card was saved there after all, which is then the new one, or if Stripe is away.
    """
    pledge_id, back = held.id, private_page(held)
    db.session.commit()
    try:
        key, session_id = card_page_of(pledge_id)
        if session_id is None:
            held = Pledge.hold(pledge_id)
            if held.session_key == key:
                held.card_page_never_made(now())
            db.session.commit()
            return None
        closed = payments.expire_card_page(session_id)
        apply_card(pledge_id, with_saved_at(closed, pledge_id))
    except payments.StripeTrouble as trouble:
        return _while_stripe_is_away(back, pledge_id, trouble)
    return redirect(back, 303) if closed.complete else None


def leads_nowhere() -> Response:
    """Instead of what is behind a link, or at the end of a way back."""
    return hypermedia.trouble("pledges/no_such_link.html", 404, words=gettext("This link opens nothing."))


def come_back(known: Pledge, about: str, look: Callable[[int], None]) -> AnyResponse:
    """Back from Stripe, or from a bank. The address is not believed: it only says which row to ask Stripe about. And
    Stripe is not asked about the same by everybody who opens that address again and again."""
    back, pledge_id = private_page(known), known.id
    if not limits.may_ask_stripe(about):
        return redirect(f"{back}?stripe=asked", 303)
    begin_writing()
    try:
        look(pledge_id)
    except payments.StripeTrouble as trouble:
        log.warning("not known on the way back", pledge=pledge_id, why=str(trouble)[:200])
        back += "?stripe=asked"
    return redirect(back, 303)


def _while_stripe_is_away(back: str, pledge_id: int, trouble: payments.StripeTrouble, key: str = "") -> AnyResponse:
    """With the key of the page that was asked for just now: the clock asks for it again, soon."""
    log.warning("no card page yet", pledge=pledge_id, why=str(trouble)[:200])
    if key:
        held = Pledge.hold(pledge_id)
        if held.session_key == key and held.awaits_page:
            held.wait(now())
        db.session.commit()
    return redirect(f"{back}?stripe=away", 303)
