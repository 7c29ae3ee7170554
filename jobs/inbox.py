"""Stripe's inbox: its news is taken by the batch, looked at by threads, and written down together.

    _claim        what our rows know already is ticked off at once, found with one query for all of it
    _ask          threads ask Stripe about the rest, at the rate of CAPTURE_RATE, without the database
    _write_down   what they have found by then, in one transaction, which ticks off its events

Each may be killed between any two lines: what was taken belongs to its taker for LEASE, and is looked at anew then.
"""

import datetime as dt
import functools
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa
import structlog
from flask import Flask, current_app

import config
import law
import payments
from jobs import OutOfTime, by_itself, one_slice, ring, set_aside
from jobs.charging import Answered, NotBegun, PacedThreads
from jobs.stripe_events import CARD_PAGE_ENDED, CHARGE_CHANGED, OCCURS, Alone, Look, Together
from models import Pledge, StripeEvent, all_together, begin_writing, db

log = structlog.get_logger()

LEASE = dt.timedelta(seconds=60)
# So many events are taken at once. Those about one object are worked on together, with one look at it.
BATCH = 200
# Answers are gathered for so many seconds before they are written down, and it is looked whether more came in.
GATHER = 0.5

Looks = PacedThreads[Look, Any]


def drain_stripe_events() -> None:
    """Work through the inbox. Safe to run twice at once: each event is claimed before it is worked on.

    A deadline brings two or three events for each charge, and Stripe's limit is one for all calls: so an object is
    looked at once for all its events in a batch, and not at all when our row knows already what they say.
    """
    settings = config.current()
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    looks: Looks = PacedThreads(functools.partial(_ask, app, settings), settings.capture_rate)
    try:
        more = _work(looks)
    finally:
        looks.end()
    if more:
        ring("drain_stripe_events")


def _work(looks: Looks) -> bool:
    """Until nothing waits, or a slice of time is over. Returns whether anything may wait still."""
    for _ in one_slice(itertools.repeat(None)):
        nothing_waits = looks.under_way < BATCH and not _claim(looks)
        if nothing_waits and not looks.under_way:
            return False
        if nothing_waits or looks.under_way >= BATCH:
            _write_down(looks)
    left = looks.take_back()
    while looks.under_way:
        _write_down(looks)
    _give_back(left)
    return True


# --- What came in ------------------------------------------------------------------------------------------


def _claim(looks: Looks) -> bool:
    """Take the oldest events that wait, and have their objects looked at where they tell something new. Whether there
    were any. Commits."""
    batch = Batch(StripeEvent.claim(_now(), LEASE, BATCH))
    wanted: list[Look] = []
    known: list[int] = []
    for kind, events in batch.by_object():
        ids = [event.id for event in events]
        asked_until = batch.asked_until(events)
        if asked_until is not None:
            # The news of a charge that is being asked for right now is left: its asker knows before us, or dies.
            StripeEvent.leave(ids, asked_until)
        elif kind is None or all(batch.knows(event) for event in events):
            known += ids
        else:
            pledge = batch.pledge(events[-1])
            wanted.append(Look(kind, tuple(ids), events[-1].object_id, pledge.id if pledge else None))
    StripeEvent.processed(known, _now())
    db.session.commit()
    for event_id, trouble in batch.unreadable:
        set_aside([event_id], trouble, payments.pledge_of_charge, _put_back)
    for look in wanted:
        if isinstance(look.kind, Alone) and not look.kind.asks:
            # What is written down as it was told waits for no turn to ask Stripe.
            by_itself(list(look.event_ids), _process, _put_back)
        else:
            looks.add([look])
    return bool(batch.events)


class Batch:
    """Events that were taken together, with the pledges that they are about, and what those know already."""

    COLUMNS = (Pledge.id, Pledge.session_id, Pledge.payment_intent_id, Pledge.customer_id, Pledge.status,
               Pledge.awaits_card, Pledge.card_saved_at, Pledge.next_at)  # fmt: skip

    def __init__(self, events: list[Any]) -> None:
        self.events = events
        # The numbers of those that are put back, with their trouble, each by itself.
        self.unreadable: list[tuple[int, Exception]] = []
        self._noted: dict[int, tuple[int | None, str]] = {}
        for event in events:
            if OCCURS.get(event.type) is CHARGE_CHANGED:
                try:
                    self._noted[event.id] = payments.pledge_of_charge(event.payload)
                except (ValueError, KeyError, TypeError, AttributeError) as trouble:
                    self.unreadable.append((event.id, trouble))
        objects = {event.object_id for event in events if OCCURS.get(event.type) in KNOWS}
        ids = {number for number, _ in self._noted.values() if number is not None}
        about = sa.or_(Pledge.session_id.in_(objects), Pledge.payment_intent_id.in_(objects), Pledge.id.in_(ids))
        found = db.session.execute(sa.select(*self.COLUMNS).where(about)).all() if objects else []
        self._by_session = {pledge.session_id: pledge for pledge in found}
        self._by_charge = {pledge.payment_intent_id: pledge for pledge in found}
        self._by_id = {pledge.id: pledge for pledge in found}

    def by_object(self) -> Iterable[tuple[Alone | Together | None, list[Any]]]:
        """Those that can be read, the oldest first; those about one object, of one kind, are together."""
        unreadable = {event_id for event_id, _ in self.unreadable}
        found: dict[tuple[Alone | Together | None, str], list[Any]] = {}
        for event in self.events:
            if event.id not in unreadable:
                found.setdefault((OCCURS.get(event.type), event.object_id), []).append(event)
        return [(kind, events) for (kind, _), events in found.items()]

    def pledge(self, event: Any) -> Any | None:
        """The row of the pledge whose card page or payment this is about; None where it is nobody's of ours."""
        if event.id not in self._noted:
            return self._by_session.get(event.object_id)
        number, customer_id = self._noted[event.id]
        noted = self._by_id.get(number) if number is not None else None
        ours = noted if noted is not None and noted.customer_id == customer_id else None
        return self._by_charge.get(event.object_id) or ours

    def asked_until(self, events: list[Any]) -> dt.datetime | None:
        """Until when one of these charges is somebody's who asks for it right now; None when it is nobody's."""
        about = [self.pledge(event) for event in events if event.id in self._noted]
        asked = [pledge.next_at for pledge in about if pledge and pledge.status == "charging" and pledge.next_at]
        return max((until for until in asked if until > _now()), default=None)

    def knows(self, event: Any) -> bool:
        """Whether our row says already what the event tells, or there is none, so that nobody has to look."""
        knows = KNOWS.get(OCCURS[event.type])
        pledge = self.pledge(event)
        return knows is not None and (pledge is None or knows(event, pledge))


def _card_page_known(event: Any, pledge: Any) -> bool:
    """The supporter's way back, or the closing of the round, was quicker than this event."""
    if pledge.awaits_card:
        return False
    return pledge.card_saved_at is not None or (pledge.status, event.type) == ("abandoned", "checkout.session.expired")


def _charge_known(event: Any, pledge: Any) -> bool:
    """The answer to our own request was quicker, or what the event speaks of was overtaken since.

    Only of the very payment that the pledge has: what is told of a second one is always looked at.
    """
    if pledge.payment_intent_id != event.object_id:
        return False
    paid = event.type == "payment_intent.succeeded"
    return pledge.status in law.PAID_PLEDGES if paid else pledge.status in law.FINAL_PLEDGES


KNOWS: dict[Alone | Together, Callable[[Any, Any], bool]] = {
    CARD_PAGE_ENDED: _card_page_known,
    CHARGE_CHANGED: _charge_known,
}


# --- What was found ----------------------------------------------------------------------------------------


def _ask(app: Flask, settings: config.Settings, look: Look) -> Any:
    """Runs in a thread. What is written down together is only looked at here, without a database; the rest has a
    session of its own."""
    if isinstance(look.kind, Together):
        return look.kind.look(settings, look)
    with app.app_context():
        begin_writing()
        return _process(list(look.event_ids))


def _process(event_ids: list[int]) -> None:
    """Look at the object of these events, and write down what it is like now. Commits."""
    waiting = [event for event in _events(event_ids) if event.processed_at is None]
    db.session.commit()
    kind = OCCURS[waiting[-1].type] if waiting else None
    # Whoever took them after our lease was over has done it, and their words are forgotten.
    if isinstance(kind, Alone):
        kind.look(waiting[-1])
        StripeEvent.processed(event_ids, _now())
        db.session.commit()


def _write_down(looks: Looks) -> None:
    """Write down what the threads have found by now, and put back what could not be looked at."""
    found: dict[Together, list[tuple[Look, Any]]] = defaultdict(list)
    for answered in looks.answers(looks.under_way, GATHER):
        if answered.trouble is not None:
            _without_answer(answered)
        elif isinstance(answered.asked.kind, Together):
            found[answered.asked.kind].append((answered.asked, answered.answer))
    for kind, looked in found.items():
        try:
            looks.add(_write_all(kind, looked))
        except OutOfTime:
            raise
        except Exception as trouble:  # noqa: BLE001 - it is found again below, and said there
            begin_writing()
            log.warning("what was looked at is written down one by one", why=type(trouble).__name__)
            for one in looked:
                looks.add(_write_or_put_back(kind, one))


def _without_answer(answered: Answered[Look, Any]) -> None:
    if isinstance(answered.trouble, NotBegun):
        _give_back([answered.asked])
    elif answered.trouble is not None:
        set_aside(list(answered.asked.event_ids), answered.trouble, answered.asked.kind.look, _put_back)


def _write_all(kind: Together, looked: list[tuple[Look, Any]]) -> list[Look]:
    """Write down what was found, and tick off its events, in one transaction. Returns what Stripe must be asked about
    further before it can be written down. Commits, then rings once for all."""
    with all_together():
        further = kind.write_down(looked)
    unclear = {look.event_ids for look in further}
    done = [event_id for look, _ in looked if look.event_ids not in unclear for event_id in look.event_ids]
    StripeEvent.processed(done, _now())
    db.session.commit()
    for job in kind.rings:
        ring(job)
    return further


def _write_or_put_back(kind: Together, one: tuple[Look, Any]) -> list[Look]:
    try:
        return _write_all(kind, [one])
    except OutOfTime:
        raise
    except Exception as trouble:  # noqa: BLE001 - whatever one of them is, the others are written down
        set_aside(list(one[0].event_ids), trouble, kind.look, _put_back)
        return []


def _events(event_ids: list[int]) -> list[StripeEvent]:
    found = sa.select(StripeEvent).where(StripeEvent.id.in_(event_ids))
    return list(db.session.scalars(found.order_by(StripeEvent.created_at, StripeEvent.id)))


def _put_back(event_ids: list[int], why: str) -> None:
    for event in _events(event_ids):
        event.try_again(why, _now())


def _give_back(left: list[Look]) -> None:
    """This slice of time is over: whoever comes next need not wait for the lease of what was not worked on."""
    StripeEvent.leave([event_id for look in left for event_id in look.event_ids], _now())
    db.session.commit()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
