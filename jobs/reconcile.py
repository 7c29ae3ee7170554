"""The reconciler: Stripe's own lists beside our rows, for a span of time, so that lost news is found and applied.

First all news of the span comes into the same inbox as the webhooks, which the ordinary drain works off. Then come
Stripe's payments, refunds and disputes of the span, and last each line of its balance: jobs/comparisons.py holds them
against our rows.

One step is one page of Stripe's. It is safe to run twice, at once, and again from where it was killed.
"""

import datetime as dt
import itertools
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

import payments
from jobs import OutOfTime, one_slice, ring
from jobs.comparisons import BOOKS, Compared
from jobs.inbox import drain_stripe_events
from jobs.stripe_events import OCCURS
from models import Lease, Reconciliation, StripeEvent, db

log = structlog.get_logger()

HOURLY, DAILY = "hourly reconciliation", "daily reconciliation"
# What each looks back over. The hourly one begins no later than where the last one ended.
LOOKS_BACK = {HOURLY: dt.timedelta(hours=2), DAILY: dt.timedelta(days=3)}
RETURNS = {HOURLY: dt.timedelta(hours=1), DAILY: dt.timedelta(days=1)}
OVERLAP = dt.timedelta(hours=1)
# News that is younger is still on its way to our door, and payments may be asked for at this moment.
TOO_YOUNG = dt.timedelta(minutes=2)
STEP_LEASE = dt.timedelta(minutes=2)
# Our clock and Stripe's may differ, and a payment is made a little after we wrote down that we would ask.
SKEW, A_SECOND = dt.timedelta(minutes=10), dt.timedelta(seconds=1)
# The time of a saved card is read from this one, though nothing has to be done about it.
TYPES = sorted({*OCCURS, "setup_intent.succeeded"})


# --- By the clock ------------------------------------------------------------------------------------------


def begin_reconciliation() -> None:
    """Begin what is due by the clock: the last hours every hour, the last days once a day. Safe to run twice."""
    begun = [_begin(name) for name in (DAILY, HOURLY) if Lease.take(name, secrets.token_hex(8), _now(), RETURNS[name])]
    db.session.commit()
    for reconciliation_id in begun:
        ring("reconcile", reconciliation_id)


def _begin(name: str) -> int:
    until = _now() - TOO_YOUNG
    since = until - LOOKS_BACK[name]
    last = Reconciliation.last_ended()
    if last is not None:
        # Nothing may fall between two of them, however long the site stood still.
        since = min(since, last.until - OVERLAP)
    return Reconciliation.begin(max(since, earliest(_now())), until, _now()).id


def earliest(as_of: dt.datetime) -> dt.datetime:
    """How far back Stripe can still be asked, with an hour to spare."""
    return as_of - payments.EVENTS_GO_BACK + dt.timedelta(hours=1)


def reconcile(reconciliation_id: int) -> None:
    """Go on with a comparison, for one slice of time. While Stripe is away it waits, and loses nothing."""
    seen: set[str] = set()
    for _ in one_slice(itertools.repeat(None)):
        if not step(reconciliation_id, seen):
            return
    ring("reconcile", reconciliation_id)


def to_the_end(reconciliation_id: int) -> bool:
    """All of it at once, for the operator. Returns False when Stripe cannot be asked."""
    seen: set[str] = set()
    while True:
        if step(reconciliation_id, seen):
            continue
        mine = db.session.get_one(Reconciliation, reconciliation_id)
        ended, away = mine.ended_at is not None, mine.tries > 0
        db.session.rollback()
        if ended or away:
            return ended
        # The clock has taken a step of it.
        time.sleep(0.5)


def step(reconciliation_id: int, seen: set[str]) -> bool:
    """Look at one page. Returns whether there is more to do just now.

    `seen` is what was compared a moment ago: it saves looking for one that stood on the last page.
    """
    mine = Reconciliation.claim(reconciliation_id, _now(), STEP_LEASE)
    if mine is None:
        db.session.rollback()
        return False
    place = Place(mine.id, mine.stage, mine.since, mine.until, mine.cursor, mine.reached)
    db.session.commit()
    try:
        if place.stage == "news":
            _fetch_news(place)
        else:
            _compare_page(place, seen)
    except payments.StripeTrouble as trouble:
        db.session.rollback()
        db.session.get_one(Reconciliation, reconciliation_id).wait(_now())
        db.session.commit()
        log.warning("a reconciliation waits", row=reconciliation_id, why=str(trouble)[:200])
        return False
    return True


@dataclass(frozen=True)
class Place:
    """How far a comparison has come; see models.Reconciliation."""

    id: int
    stage: str
    since: dt.datetime
    until: dt.datetime
    cursor: str | None
    reached: dt.datetime


# --- News --------------------------------------------------------------------------------------------------


def _fetch_news(place: Place) -> None:
    """A page of news into the inbox, which is worked off at once: our rows are compared with what it tells."""
    page = payments.news_since(place.since, place.until, TYPES, place.cursor)
    fresh = [news for news in page.found if _store(news)]
    for news in fresh:
        log.warning("news that had not reached us", stripe_event=news.event_id, kind=news.type)
    mine = db.session.get_one(Reconciliation, place.id)
    mine.note(len(page.found), len(fresh), [])
    mine.go_on(page.cursor, place.reached, _now())
    db.session.commit()
    drain_stripe_events()


def _store(news: payments.News) -> bool:
    return StripeEvent.store(
        event_id=news.event_id, kind=news.type, object_id=news.object_id, created_at=news.created_at,
        payload=news.payload, as_of=_now(),
    )  # fmt: skip


# --- Objects -----------------------------------------------------------------------------------------------


def _compare_page(place: Place, seen: set[str]) -> None:
    """A page of one of Stripe's lists, and our rows of the same time, which must be on it or be found one by one."""
    book = BOOKS[place.stage]
    page = book.page(place.since - SKEW, place.until + SKEW, place.cursor)
    lower = place.since
    if page.cursor and page.oldest:
        # Of the second of the oldest there may be more on the next page.
        lower = min(place.reached, page.oldest + A_SECOND)
    seen |= {*page.ids}
    compared = [_safely(name, partial(book.compare, one)) for name, one in zip(page.ids, page.found, strict=True)]
    missing = [name for name in book.ours(lower, place.reached) if name not in seen]
    compared += [_safely(name, partial(book.look_for, name)) for name in missing]
    seen |= {*missing}
    mine = db.session.get_one(Reconciliation, place.id)
    mended = sum(was_mended for was_mended, _ in compared)
    mine.note(len(compared), mended, [finding for _, finding in compared if finding])
    mine.go_on(page.cursor, lower, _now())
    db.session.commit()
    ring("send_letters")


def _safely(name: str, look: Callable[[], Compared]) -> Compared:
    """One that we cannot compare, for a mistake of ours, is a finding and must not hold up the others."""
    try:
        return look()
    except (payments.StripeTrouble, OutOfTime):
        raise
    except Exception as trouble:
        db.session.rollback()
        log.exception("an object of Stripe's could not be compared")
        return False, f"Stripe's {name} could not be compared: {type(trouble).__name__}."


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
