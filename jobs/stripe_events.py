"""What Stripe's news makes us do: each event is a reason to look at its object again, never a fact by itself.

jobs/inbox.py takes the events and hands them to what stands in OCCURS. Whoever else has a reason to look, such as the
way back from Stripe's page or a comparison, calls `look_again_at_...`, which leads to the same verbs.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
import structlog

import config
import law
import payments
from jobs import ring
from models import REFUSED, Breaker, CardFailure, Dispute, Pledge, StripeEvent, db

log = structlog.get_logger()


@dataclass(frozen=True)
class Alone:
    """Each object is looked at and written down by itself, in a transaction of its own. `asks` is whether Stripe is
    asked at all."""

    look: Callable[[StripeEvent], None]
    asks: bool = True


@dataclass(frozen=True)
class Together:
    """Stripe is asked by threads that know no database, and what many of them have found is written down in one
    transaction; `write_down` returns what Stripe must be asked about further first. Then these jobs are rung for."""

    look: Callable[[config.Settings, "Look"], Any]
    write_down: Callable[[list[tuple["Look", Any]]], list["Look"]]
    rings: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """One object that Stripe is asked about, for all the events of a batch that speak of it.

    `complete` is a card page of which it is known that a card was saved there, but not when; Stripe's list is then
    looked through from `since` on.
    """

    kind: Alone | Together
    event_ids: tuple[int, ...]
    object_id: str
    pledge_id: int | None
    complete: payments.CardFound | None = None
    since: dt.datetime | None = None


# --- What occurs -------------------------------------------------------------------------------------------


def _card_page_ended(settings: config.Settings, look: Look) -> payments.CardFound:
    """Occurs when a card page was completed or expired, on Stripe's page or by us."""
    if look.complete is None or look.since is None:
        return payments.look_at_card_page(look.object_id, settings)
    return _asked_when_saved(look.complete, look.since, settings)


def _write_cards(looked: list[tuple[Look, payments.CardFound]]) -> list[Look]:
    """What many card pages have become. Of a card that was saved it must be known when, from our inbox or Stripe."""
    pledges = _held(looked)
    saved_at = StripeEvent.cards_saved_at(found.setup_intent_id for _, found in looked if found.setup_intent_id)
    known, further = [], []
    for look, found in looked:
        pledge = pledges[look.pledge_id]
        if found.saved_at is not None or not _has_deadline(found, pledge):
            known.append((pledge, found))
        elif found.setup_intent_id in saved_at:
            known.append((pledge, dataclasses.replace(found, saved_at=saved_at[found.setup_intent_id])))
        else:
            further.append(dataclasses.replace(look, complete=found, since=_search_from(pledge)))
    above_doubt = Pledge.above_doubt(known, _now())
    for pledge, found in known:
        pledge.apply_card(found, _now(), pledge.id in above_doubt)
    return further


def _charge_changed(settings: config.Settings, look: Look) -> payments.ChargeFound:
    """Occurs when a payment succeeded, failed, or waits for its payer; also long after we asked."""
    return payments.look_at_charge(look.object_id, settings)


def _write_charges(looked: list[tuple[Look, payments.ChargeFound]]) -> list[Look]:
    pledges = _held(looked)
    for look, found in looked:
        pledges[look.pledge_id].apply_charge(found, _now())
    return []


def _held(looked: list[tuple[Look, Any]]) -> dict[int | None, Pledge]:
    """The pledges of these, each round of them held once."""
    return {pledge.id: pledge for pledge in Pledge.hold_all([look.pledge_id for look, _ in looked if look.pledge_id])}


def _card_refused(event: StripeEvent) -> None:
    """Occurs when a card could not be saved on a card page, which then stays open for another one.

    It is only counted. Each of a page's events counts, not only this one, which is the last of them that has come.
    Where many were refused on one page, the page is closed.
    """
    # What was worked on before has been counted, and its words are forgotten.
    refused = [(one, *payments.refused_card(one.payload)) for one in StripeEvent.alike(event) if one.payload]
    _, number, page, _ = refused[-1]
    pledge_id = db.session.scalar(sa.select(Pledge.id).where(Pledge.public_id == number)) if number else None
    if pledge_id is not None:
        pledge = Pledge.hold(pledge_id)
        for one, _, _, fingerprint in refused:
            CardFailure.write(one, pledge, fingerprint)
        Breaker.weigh(pledge.round, _now())
        _close_page_of_many_refusals(pledge, page, CardFailure.on_page(event.object_id))
    db.session.commit()


def _close_page_of_many_refusals(pledge: Pledge, page: str, refusals: int) -> None:
    """Commits what was counted. Only the page that its pledge has now is closed."""
    is_to_close = refusals >= law.FAILURES_A_PAGE and pledge.awaits_card and pledge.session_key == page
    pledge_id, session_id = pledge.id, pledge.session_id
    db.session.commit()
    ring("send_letters")
    if is_to_close and session_id is not None:
        apply_card(pledge_id, with_saved_at(payments.expire_card_page(session_id), pledge_id))


def _refund_changed(event: StripeEvent) -> None:
    """Occurs when money was paid back, by us or by hand at Stripe, and when that failed, even days later."""
    stripe_id = event.object_id
    db.session.commit()
    look_again_at_refund(stripe_id)


def _dispute_changed(event: StripeEvent) -> None:
    """Occurs when a supporter's bank wants a payment back, and when it has decided."""
    dispute_id = event.object_id
    db.session.commit()
    look_again_at_dispute(dispute_id)


RUNG_AFTER_CARDS = ("charge_due", "remove_old_cards", "send_letters")
CARD_PAGE_ENDED = Together(_card_page_ended, _write_cards, RUNG_AFTER_CARDS)
CHARGE_CHANGED = Together(_charge_changed, _write_charges, ("send_letters",))
# What is told of a refused card is written down as it was told.
CARD_REFUSED = Alone(_card_refused, asks=False)
REFUND_CHANGED, DISPUTE_CHANGED = Alone(_refund_changed), Alone(_dispute_changed)
OCCURS: dict[str, Alone | Together] = {
    "checkout.session.completed": CARD_PAGE_ENDED,
    "checkout.session.expired": CARD_PAGE_ENDED,
    "setup_intent.setup_failed": CARD_REFUSED,
    "payment_intent.succeeded": CHARGE_CHANGED,
    "payment_intent.payment_failed": CHARGE_CHANGED,
    "payment_intent.requires_action": CHARGE_CHANGED,
    "payment_intent.canceled": CHARGE_CHANGED,
    "refund.created": REFUND_CHANGED,
    "refund.updated": REFUND_CHANGED,
    "refund.failed": REFUND_CHANGED,
    "charge.dispute.created": DISPUTE_CHANGED,
    "charge.dispute.updated": DISPUTE_CHANGED,
    "charge.dispute.closed": DISPUTE_CHANGED,
    "charge.dispute.funds_withdrawn": DISPUTE_CHANGED,
    "charge.dispute.funds_reinstated": DISPUTE_CHANGED,
}


# --- To look again -----------------------------------------------------------------------------------------


def look_again_at_card(pledge_id: int) -> None:
    """Ask Stripe about a pledge's card page and apply the answer; webhook and return page share this.

    Commits. Raises StripeTrouble when Stripe cannot be asked.
    """
    pledge = db.session.get_one(Pledge, pledge_id)
    session_id = pledge.session_id
    db.session.commit()
    if session_id is None:
        return
    apply_card(pledge_id, with_saved_at(payments.look_at_card_page(session_id), pledge_id))


def card_page_of(pledge_id: int) -> tuple[str, str | None]:
    """The key and the id of the card page that was asked for last.

    When Stripe's answer was lost the page is asked for again, with the same key and parameters; its id is None when it
    was never made, and one that nobody has begun to ask for is not made from here on. Commits. Raises StripeTrouble
    while nobody can say which.
    """
    pledge = db.session.get_one(Pledge, pledge_id)
    if pledge.page_was_never_asked_for:
        # Whoever comes to a pledge first: those who ask Stripe write down before that they do.
        pledge = Pledge.hold(pledge_id)
        if pledge.page_was_never_asked_for:
            pledge.forget_card_page()
    session_id, params, key = pledge.session_id, pledge.session_params, pledge.session_key
    db.session.commit()
    if session_id is not None or params is None:
        return key, session_id
    try:
        page = payments.card_page(params, key)
    except payments.StripeForbidden:
        raise
    except payments.StripeRefused as refused:
        # Its expiry has come too near by now, and the key is unknown: the first request never arrived.
        log.info("no card page was made", pledge=pledge_id, why=str(refused)[:120])
        return key, None
    Pledge.hold(pledge_id).card_page_made(key, page.session_id, page.url)
    db.session.commit()
    return key, page.session_id


def apply_card(pledge_id: int, found: payments.CardFound) -> None:
    """Write down what was found, holding the round. Commits, then rings for the letter it may owe."""
    pledge = Pledge.hold(pledge_id)
    pledge.apply_card(found, _now())
    db.session.commit()
    for job in RUNG_AFTER_CARDS:
        ring(job)


def with_saved_at(found: payments.CardFound, pledge_id: int) -> payments.CardFound:
    """Add when the card was saved, from our inbox, else from Stripe's list of events.

    Raises StripeAway while neither has it: the card is saved, but nobody can say yet whether in time. A card for a
    refused payment has no deadline of that kind.
    """
    if not found.complete or found.setup_intent_id is None:
        return found
    pledge = db.session.get_one(Pledge, pledge_id)
    has_deadline, since = _has_deadline(found, pledge), _search_from(pledge)
    saved_at = StripeEvent.cards_saved_at([found.setup_intent_id]).get(found.setup_intent_id)
    db.session.commit()
    if not has_deadline:
        return found
    return dataclasses.replace(found, saved_at=saved_at) if saved_at else _asked_when_saved(found, since)


def _has_deadline(found: payments.CardFound, pledge: Pledge) -> bool:
    """Whether a card was saved, and by a time that decides whether it counts."""
    return found.complete and found.setup_intent_id is not None and pledge.status not in REFUSED


def _search_from(pledge: Pledge) -> dt.datetime:
    """Before this no card can have been saved on a pledge's last card page."""
    if pledge.session_expires_at is None:
        return pledge.started_at
    return max(pledge.started_at, pledge.session_expires_at - law.LONGEST_SESSION)


def _asked_when_saved(
    found: payments.CardFound, since: dt.datetime, settings: config.Settings | None = None
) -> payments.CardFound:
    saved_at = payments.card_saved_at(str(found.setup_intent_id), since, settings)
    if saved_at is None:
        raise payments.StripeAway("a card was saved, but Stripe does not list its event yet")
    return dataclasses.replace(found, saved_at=saved_at)


def look_again_at_charge(pledge_id: int, intent_id: str) -> None:
    """Ask Stripe about a payment and apply the answer, as the capture does with its own."""
    found = payments.look_at_charge(intent_id)
    pledge = Pledge.hold(pledge_id)
    pledge.apply_charge(found, _now())
    db.session.commit()
    ring("send_letters")


def look_again_at_refund(stripe_id: str) -> None:
    """Ask Stripe about a refund and apply the answer; one of a payment that is none of ours is passed over. Commits."""
    found = payments.look_at_refund(stripe_id)
    pledge_id = _charged_pledge(found.payment_intent_id)
    if pledge_id is not None:
        Pledge.hold(pledge_id).apply_refund(found, _now())
        db.session.commit()
        ring("send_letters")


def look_again_at_dispute(dispute_id: str) -> None:
    """Ask Stripe about a dispute and apply the answer. One about a charge of somebody else's is only kept. Commits."""
    found = payments.look_at_dispute(dispute_id)
    pledge_id = _charged_pledge(found.payment_intent_id)
    if pledge_id is None:
        Dispute.apply(found, None, _now())
    else:
        # A bank asks for what has not gone back: we may not have heard yet that a refund has failed.
        refunded = db.session.get_one(Pledge, pledge_id).status == "refunded"
        db.session.commit()
        refunds = payments.refunds_of(str(found.payment_intent_id)) if refunded else []
        pledge = Pledge.hold(pledge_id)
        for refund in refunds:
            pledge.apply_refund(refund, _now())
        Dispute.apply(found, pledge, _now())
    db.session.commit()
    ring("send_letters")


def _charged_pledge(intent_id: str | None) -> int | None:
    """The pledge that was charged by this payment. Commits.

    News of what came after a charge may overtake the news of the charge itself, which is then looked at first.
    """
    if intent_id is None:
        return None
    pledge_id = db.session.scalar(sa.select(Pledge.id).where(Pledge.payment_intent_id == intent_id))
    db.session.commit()
    if pledge_id is None:
        noted, customer_id = payments.whose_charge(intent_id)
        ours = sa.select(Pledge.id).where(Pledge.id == noted, Pledge.customer_id == customer_id)
        pledge_id = db.session.scalar(ours) if noted is not None else None
        db.session.commit()
    # One that is due for another try may have been paid at its bank meanwhile.
    uncharged = ("due", *Pledge.PAYMENT_BEGUN)
    if pledge_id is not None and db.session.get_one(Pledge, pledge_id).status in uncharged:
        db.session.commit()
        look_again_at_charge(pledge_id, intent_id)
        if db.session.get_one(Pledge, pledge_id).status in uncharged:
            raise payments.StripeAway("the charge that it speaks of is not written down yet")
    db.session.commit()
    return pledge_id


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
