"""Stripe's inbox: each stored event is a reason to look at its object again, never a fact by itself."""

import dataclasses
import datetime as dt
import functools
import itertools
from collections.abc import Callable

import sqlalchemy as sa
import structlog
from flask import Flask, current_app

import config
import law
import payments
from jobs import by_itself, one_slice, ring, set_aside
from jobs.charging import NotBegun, PacedThreads
from models import REFUSED, Breaker, CardFailure, Dispute, Pledge, StripeEvent, begin_writing, db

log = structlog.get_logger()

LEASE = dt.timedelta(seconds=60)
# So many events are taken at once. Those about one object are worked on together, with one look at it.
BATCH = 100
# So often it is looked whether more came in, while the last looks are under way.
LOOK_FOR_MORE = 0.5


def drain_stripe_events() -> None:
    """Work through the inbox. Safe to run twice at once: each event is claimed before it is worked on.

    A deadline brings two or three events for each charge, and Stripe's limit is one for all calls: so an object is
    looked at once for all its events in a batch, and not at all when our row knows already what they say. Those are
    ticked off with their whole batch. The looks are made by threads, at the rate of CAPTURE_RATE.
    """
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    looks: PacedThreads[list[int], None] = PacedThreads(functools.partial(_look, app), config.current().capture_rate)
    try:
        for _ in one_slice(itertools.repeat(None)):
            taken = _claim_by_object() if looks.under_way < BATCH else []
            for needs_look, event_ids in taken or []:
                if needs_look:
                    looks.add([event_ids])
                else:
                    by_itself(event_ids, _process, _put_back)
            if taken is None and not looks.under_way:
                return
            if taken is None or looks.under_way >= BATCH:
                _settle(looks, LOOK_FOR_MORE)
        left = looks.take_back()
        while looks.under_way:
            _settle(looks, LOOK_FOR_MORE)
        _give_back(left)
    finally:
        looks.end()
    ring("drain_stripe_events")


def _claim_by_object() -> list[tuple[bool, list[int]]] | None:
    """The ids of the events that wait and tell something new, oldest first; those about one object are together, with
    whether Stripe must be asked about it. None when nothing waits at all. Commits."""
    events = StripeEvent.claim(_now(), LEASE, BATCH)
    if not events:
        db.session.commit()
        return None
    pledges = _Pledges(events)
    by_object: dict[tuple[object, str], list[StripeEvent]] = {}
    for event in events:
        by_object.setdefault((OCCURS.get(event.type), event.object_id), []).append(event)
    left = []
    for (occurs, _), together in by_object.items():
        # The news of a charge that is being asked for right now is left: its asker knows before us, or dies.
        is_odd = pledges.cannot_read(together)
        later = pledges.asked_until(together) if occurs is _charge_changed and not is_odd else _now()
        if later > _now():
            for event in together:
                event.next_at, event.tries = later, event.tries - 1
        elif occurs is None or (not is_odd and all(pledges.know(event) for event in together)):
            for event in together:
                event.processed(_now())
        else:
            left.append((occurs not in TOLD_ENOUGH, [event.id for event in together]))
    db.session.commit()
    return left


class _Pledges:
    """The pledges that a batch of events may be about, found together, and what they know already."""

    def __init__(self, events: list[StripeEvent]) -> None:
        self._noted: dict[int, tuple[int | None, str]] = {}
        self._odd = set[int]()
        for event in events:
            if OCCURS.get(event.type) is _charge_changed:
                try:
                    self._noted[event.id] = payments.pledge_of_charge(event.payload)
                except (ValueError, KeyError, TypeError, AttributeError):
                    # It is worked on by itself, and put back with its trouble.
                    self._odd.add(event.id)
        objects = {event.object_id for event in events if OCCURS.get(event.type) in KNOWN}
        ids = {number for number, _ in self._noted.values() if number is not None}
        about = sa.or_(Pledge.session_id.in_(objects), Pledge.payment_intent_id.in_(objects), Pledge.id.in_(ids))
        found = list(db.session.scalars(sa.select(Pledge).where(about))) if objects else []
        self._by_session = {pledge.session_id: pledge for pledge in found}
        self._by_charge = {pledge.payment_intent_id: pledge for pledge in found}
        self._by_id = {pledge.id: pledge for pledge in found}

    def of_card_page(self, event: StripeEvent) -> Pledge | None:
        return self._by_session.get(event.object_id)

    def cannot_read(self, events: list[StripeEvent]) -> bool:
        """Whether one of these is no payment as Stripe tells of it."""
        return any(event.id in self._odd for event in events)

    def of_charge(self, event: StripeEvent) -> Pledge | None:
        known = self._noted.get(event.id)
        number, customer_id = known if known is not None else payments.pledge_of_charge(event.payload)
        noted = self._by_id.get(number) if number is not None else None
        ours = noted if noted is not None and noted.customer_id == customer_id else None
        return self._by_charge.get(event.object_id) or ours

    def asked_until(self, events: list[StripeEvent]) -> dt.datetime:
        """Until when one of these charges is somebody's who asks for it; now, when it is nobody's."""
        about = [self.of_charge(event) for event in events]
        asked = [pledge.next_at for pledge in about if pledge and pledge.status == "charging" and pledge.next_at]
        return max([*asked, _now()])

    def know(self, event: StripeEvent) -> bool:
        """Whether our row says already what the event tells, so that nobody has to look."""
        knows = KNOWN.get(OCCURS[event.type])
        return knows is not None and knows(event, self)


def _look(app: Flask, event_ids: list[int]) -> None:
    """Look at the object of these events, in a thread and with a session of its own."""
    with app.app_context():
        begin_writing()
        _process(event_ids)


def _process(event_ids: list[int]) -> None:
    """Look at the object of these events, and write down what it is like now. Commits."""
    waiting = [event for event in _events(event_ids) if event.processed_at is None]
    db.session.commit()
    if not waiting:
        # Whoever took them after our lease was over has done it, and their words are forgotten.
        return
    OCCURS[waiting[-1].type](waiting[-1])
    for event in _events(event_ids):
        event.processed(_now())
    db.session.commit()


def _settle(looks: "PacedThreads[list[int], None]", within: float) -> None:
    """Take back what could not be looked at, out of what the threads have done since."""
    for done in looks.answers(looks.under_way, within):
        if isinstance(done.trouble, NotBegun):
            _give_back([done.asked])
        elif done.trouble is not None:
            set_aside(done.asked, done.trouble, _process, _put_back)


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
    # What was worked on before has been counted, and its words are forgotten.
    refused = [(one, *payments.refused_card(one.payload)) for one in StripeEvent.alike(event) if one.payload]
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


def _card_page_known(event: StripeEvent, pledges: _Pledges) -> bool:
    """The supporter's way back, or the closing of the round, was quicker than this event."""
    pledge = pledges.of_card_page(event)
    if pledge is None or pledge.awaits_card:
        return pledge is None
    return pledge.card_saved_at is not None or (pledge.status, event.type) == ("abandoned", "checkout.session.expired")


def _charge_changed(event: StripeEvent) -> None:
    """Occurs when a payment succeeded, failed, or waits for its payer; also long after we asked."""
    pledge = _Pledges([event]).of_charge(event)
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


def _charge_known(event: StripeEvent, pledges: _Pledges) -> bool:
    """The answer to our own request was quicker, or what the event speaks of was overtaken since.

    Only of the very payment that the pledge has: what is told of a second one is always looked at.
    """
    pledge = pledges.of_charge(event)
    if pledge is None:
        return True
    if pledge.payment_intent_id != event.object_id:
        return False
    paid = event.type == "payment_intent.succeeded"
    return pledge.status in law.PAID_PLEDGES if paid else pledge.status in law.FINAL_PLEDGES


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


# What is written down as it was told: it waits for no turn to ask Stripe.
TOLD_ENOUGH = {_card_refused}
# Whether our row says already what the event tells, so that nobody has to look.
KNOWN: dict[Callable[[StripeEvent], None], Callable[[StripeEvent, _Pledges], bool]] = {
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
