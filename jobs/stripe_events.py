"""Stripe's inbox: each stored event is a reason to look at its object again, never a fact by itself."""

import dataclasses
import datetime as dt
import itertools
from collections.abc import Callable

import sqlalchemy as sa
import structlog

import law
import payments
from jobs import by_itself, one_slice, ring
from models import REFUSED, Breaker, CardFailure, Dispute, Pledge, StripeEvent, db

log = structlog.get_logger()

LEASE = dt.timedelta(seconds=60)
# So many events are taken at once. Those about one object are worked on together, with one look at it.
BATCH = 100


def drain_stripe_events() -> None:
    """Work through the inbox. Safe to run twice at once: each event is claimed before it is worked on.

    A deadline brings two or three events for each charge, and Stripe's limit is one for all calls: so an object is
    looked at once for all its events in a batch, and not at all when our row knows already what they say.
    """
    left: list[list[int]] = []
    for _ in one_slice(itertools.repeat(None)):
        left = left or _claim_by_object()
        if not left:
            return
        by_itself(left.pop(0), _process, _put_back)
    _give_back(left)
    ring("drain_stripe_events")


def _claim_by_object() -> list[list[int]]:
    """The ids of the events that wait, oldest first; those about one object are together, the newest last."""
    by_object: dict[tuple[object, str], list[int]] = {}
    for event in StripeEvent.claim(_now(), LEASE, BATCH):
        occurs = OCCURS.get(event.type)
        # What concerns none of our rows needs no look, so all of it is ticked off together.
        by_object.setdefault((occurs, event.object_id if occurs else ""), []).append(event.id)
    db.session.commit()
    return list(by_object.values())


def _process(event_ids: list[int]) -> None:
    """Look at the object of these events, if one of them tells what its row does not know yet."""
    events = _events(event_ids)
    if _put_off(events):
        return
    news = [event for event in events if event.type in OCCURS and not _is_known(event)]
    db.session.commit()
    if news:
        OCCURS[news[-1].type](news[-1])
    for event in _events(event_ids):
        event.processed(_now())
    db.session.commit()


def _put_off(events: list[StripeEvent]) -> bool:
    """Leave the news of a charge that is being asked for right now: its asker knows before us, or dies."""
    about = [_pledge_of_charge(event) for event in events if OCCURS.get(event.type) is _charge_changed]
    asked = [pledge.next_at for pledge in about if pledge and pledge.status == "charging" and pledge.next_at]
    later = max(asked, default=_now())
    if later <= _now():
        return False
    for event in events:
        event.next_at, event.tries = later, event.tries - 1
    db.session.commit()
    return True


def _is_known(event: StripeEvent) -> bool:
    knows = KNOWN.get(OCCURS[event.type])
    return knows is not None and knows(event)


def _events(event_ids: list[int]) -> list[StripeEvent]:
    found = sa.select(StripeEvent).where(StripeEvent.id.in_(event_ids))
    return list(db.session.scalars(found.order_by(StripeEvent.created_at, StripeEvent.id)))


def _put_back(event_ids: list[int], why: str) -> None:
    for event in _events(event_ids):
        event.try_again(why, _now())


def _give_back(left: list[list[int]]) -> None:
    """This slice of time is over: whoever comes next need not wait for the lease of what was not worked on."""
    for event in _events([event_id for event_ids in left for event_id in event_ids]):
        event.next_at, event.tries = _now(), event.tries - 1
    db.session.commit()


def _card_page_ended(event: StripeEvent) -> None:
    """Occurs when a card page was completed or expired, on Stripe's page or by us."""
    pledge_id = db.session.scalar(sa.select(Pledge.id).where(Pledge.session_id == event.object_id))
    db.session.commit()
    if pledge_id is not None:
        look_again_at_card(pledge_id)


def _card_refused(event: StripeEvent) -> None:
    """Occurs when a card could not be saved on a card page, which then stays open for another one.

    It is only counted. Each of a page's events counts, not only this one, which is the last of them that has come.
    Where many were refused on one page, the page is closed.
    """
    refused = [(one, *payments.refused_card(one.payload)) for one in StripeEvent.alike(event)]
    _, number, page, _ = refused[-1]
    pledge_id = db.session.scalar(sa.select(Pledge.id).where(Pledge.public_id == number)) if number else None
    if pledge_id is None:
        db.session.commit()
        return
    pledge = Pledge.hold(pledge_id)
    for one, _, _, fingerprint in refused:
        CardFailure.write(one, pledge, fingerprint)
    Breaker.weigh(pledge.round, _now())
    enough = CardFailure.on_page(event.object_id) >= law.FAILURES_A_PAGE
    session_id = pledge.session_id if enough and pledge.awaits_card and pledge.session_key == page else None
    db.session.commit()
    ring("send_letters")
    if session_id is not None:
        apply_card(pledge_id, with_saved_at(payments.expire_card_page(session_id), pledge_id))


def _card_page_known(event: StripeEvent) -> bool:
    """The supporter's way back, or the closing of the round, was quicker than this event."""
    pledge = db.session.scalar(sa.select(Pledge).where(Pledge.session_id == event.object_id))
    if pledge is None or pledge.awaits_card:
        return pledge is None
    return pledge.card_saved_at is not None or (pledge.status, event.type) == ("abandoned", "checkout.session.expired")


def _charge_changed(event: StripeEvent) -> None:
    """Occurs when a payment succeeded, failed, or waits for its payer; also long after we asked."""
    pledge = _pledge_of_charge(event)
    pledge_id, intent_id = pledge.id if pledge else None, event.object_id
    db.session.commit()
    if pledge_id is not None:
        look_again_at_charge(pledge_id, intent_id)


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


def _charge_known(event: StripeEvent) -> bool:
    """The answer to our own request was quicker, or what the event speaks of was overtaken since.

    Only of the very payment that the pledge has: what is told of a second one is always looked at.
    """
    pledge = _pledge_of_charge(event)
    if pledge is None:
        return True
    if pledge.payment_intent_id != event.object_id:
        return False
    paid = event.type == "payment_intent.succeeded"
    return pledge.status in law.PAID_PLEDGES if paid else pledge.status in law.FINAL_PLEDGES


def _pledge_of_charge(event: StripeEvent) -> Pledge | None:
    intent_id, (noted, customer_id) = event.object_id, payments.pledge_of_charge(event.payload)
    ours = sa.and_(Pledge.id == noted, Pledge.customer_id == customer_id)
    return db.session.scalar(sa.select(Pledge).where(sa.or_(Pledge.payment_intent_id == intent_id, ours)))


OCCURS: dict[str, Callable[[StripeEvent], None]] = {
    "checkout.session.completed": _card_page_ended,
    "checkout.session.expired": _card_page_ended,
    "setup_intent.setup_failed": _card_refused,
    "payment_intent.succeeded": _charge_changed,
    "payment_intent.payment_failed": _charge_changed,
    "payment_intent.requires_action": _charge_changed,
    "payment_intent.canceled": _charge_changed,
    "refund.created": _refund_changed,
    "refund.updated": _refund_changed,
    "refund.failed": _refund_changed,
    "charge.dispute.created": _dispute_changed,
    "charge.dispute.updated": _dispute_changed,
    "charge.dispute.closed": _dispute_changed,
    "charge.dispute.funds_withdrawn": _dispute_changed,
    "charge.dispute.funds_reinstated": _dispute_changed,
}


# Whether our row says already what the event tells, so that nobody has to look.
KNOWN: dict[Callable[[StripeEvent], None], Callable[[StripeEvent], bool]] = {
    _card_page_ended: _card_page_known,
    _charge_changed: _charge_known,
}


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

    When Stripe's answer was lost the page is asked for again, with the same key and parameters; its id is None
    when it was never made. Commits. Raises StripeTrouble while nobody can say which.
    """
    pledge = db.session.get_one(Pledge, pledge_id)
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
    ring("charge_due")
    ring("remove_old_cards")
    ring("send_letters")


def with_saved_at(found: payments.CardFound, pledge_id: int) -> payments.CardFound:
    """Add when the card was saved, from our inbox, else from Stripe's list of events.

    Raises StripeAway while neither has it: the card is saved, but nobody can say yet whether in time. A card for a
    refused payment has no deadline of that kind.
    """
    if not found.complete or found.setup_intent_id is None:
        return found
    saved_at = StripeEvent.card_saved_at(found.setup_intent_id)
    pledge = db.session.get_one(Pledge, pledge_id)
    has_no_deadline, since = pledge.status in REFUSED, pledge.started_at
    if pledge.session_expires_at is not None:
        since = max(since, pledge.session_expires_at - law.LONGEST_SESSION)
    db.session.commit()
    if has_no_deadline:
        return found
    saved_at = saved_at or payments.card_saved_at(found.setup_intent_id, since)
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
    if pledge_id is not None and db.session.get_one(Pledge, pledge_id).status in Pledge.PAYMENT_BEGUN:
        db.session.commit()
        look_again_at_charge(pledge_id, intent_id)
        if db.session.get_one(Pledge, pledge_id).status in Pledge.PAYMENT_BEGUN:
            raise payments.StripeAway("the charge that it speaks of is not written down yet")
    db.session.commit()
    return pledge_id


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
