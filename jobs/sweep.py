"""Everything that runs by the clock, on one page.

The sweep looks at the rows every few seconds and rings for what is due. It only rings; but work that nobody has
taken for a while means that Redis or the workers are gone, and then it does the work itself. Two sweeps at once
do no harm, since all work is claimed before it is done.
"""

import datetime as dt
import signal
import threading
from collections.abc import Callable
from zoneinfo import ZoneInfo

import sqlalchemy as sa
import structlog

import config
import jobs
from jobs import card_pages, doctor, reconcile, retention
from models import (
    Breaker,
    CardFailure,
    Case,
    Comment,
    Erasure,
    Lease,
    Letter,
    OldCard,
    Pledge,
    Reconciliation,
    Refund,
    Round,
    StripeEvent,
    Tally,
    Update,
    User,
    begin_writing,
    db,
)

log = structlog.get_logger()

EVERY = 3.0
# Work that is due for this long was not taken by any worker.
NOBODY_CAME = dt.timedelta(seconds=15)
# Charges wait ten seconds for one who died already, until his lease and his claims run out: with this it is fifteen.
NOBODY_CHARGED = dt.timedelta(seconds=5)

Due = list[int | None]


def keep_sweeping() -> None:
    """Sweep until asked to stop; one failed sweep does not end the next."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(EVERY):
        try:
            sweep(dt.datetime.now(dt.UTC))
        except Exception:
            # The last resort of the clock: whatever it was, the next sweep must still come.
            log.exception("a sweep failed")
            db.session.rollback()


def sweep(as_of: dt.datetime) -> None:
    """Ring for everything that is due; do it here if it has been due for long and nobody came."""
    begin_writing()
    remind_moderators(as_of)
    remind_owners(as_of)
    CardFailure.forget(as_of)
    Breaker.wind(as_of)
    _drop_unanswered(as_of)
    Pledge.remind_of_held(as_of)
    for name in (doctor.LEASE, reconcile.HOURLY, reconcile.DAILY, retention.LEASE):
        Lease.wind(name, as_of)
    Tally.fold()
    db.session.commit()
    for job, due in TIMETABLE.items():
        late = due(as_of - (NOBODY_CHARGED if job == "charge_due" else NOBODY_CAME))
        now = due(as_of)
        db.session.commit()
        taken = []
        for row_id in jobs.one_slice(late):
            _do_it_here(job, row_id)
            taken.append(row_id)
        for row_id in now:
            if row_id not in taken:
                jobs.ring(job, row_id)


def _drop_unanswered(as_of: dt.datetime) -> None:
    """Whoever pledges holds the round first and the breakers then. Holding them the other way round, and several rounds
    at once, the clock and supporters would wait for each other. Commits, so that it holds one at a time."""
    db.session.commit()
    for round_id in Pledge.rounds_of_unanswered(as_of):
        Round.hold(round_id).drop_unanswered(as_of)
        db.session.commit()


def _do_it_here(job: str, row_id: int | None) -> None:
    log.warning("nobody came, so the clock does it", job=job, row=row_id)
    try:
        jobs.perform(job, row_id)
    except Exception:
        # One broken row must not keep the clock from the others; it stays due and is named in the log.
        log.exception("the clock could not do it", job=job, row=row_id)


def _rounds(as_of: dt.datetime) -> Due:
    return [its_round.id for its_round in Round.past_deadline(as_of)]


def _events(as_of: dt.datetime) -> Due:
    waiting = sa.select(StripeEvent.id).where(StripeEvent.processed_at.is_(None), StripeEvent.next_at <= as_of)
    return [None] if db.session.scalar(waiting.limit(1)) else []


def _charges(as_of: dt.datetime) -> Due:
    # Whoever holds the lease sees to it. `as_of` may lie back: then nobody may have held it since.
    return [None] if not Lease.held("capture", as_of) and Round.with_charges_waiting(as_of) else []


def _card_pages(as_of: dt.datetime) -> Due:
    # Who is at it sees to it.
    return [None] if not Lease.held(card_pages.LEASE, as_of) and Pledge.waiting_for_page(as_of, 1) else []


def _cards(as_of: dt.datetime) -> Due:
    return [None] if Pledge.waiting_to_let_go(as_of) else []


def _repairs(as_of: dt.datetime) -> Due:
    return list(Pledge.waiting_for_repair(as_of))


def _old_cards(as_of: dt.datetime) -> Due:
    return [None] if OldCard.waiting(as_of) else []


def _cancelled(as_of: dt.datetime) -> Due:
    return [None] if Pledge.waiting_to_stop(as_of) else []


def _refunds(as_of: dt.datetime) -> Due:
    return [None] if Refund.waiting(as_of) else []


def _launches(as_of: dt.datetime) -> Due:
    return list(Case.due_live(as_of))


def _updates(as_of: dt.datetime) -> Due:
    return list(Update.due(as_of))


def _letters(as_of: dt.datetime) -> Due:
    return [None] if Letter.unsent(as_of) else []


def _examinations(as_of: dt.datetime) -> Due:
    return [None] if Lease.has_run_out(doctor.LEASE, as_of) else []


def _retention(as_of: dt.datetime) -> Due:
    return [None] if Lease.has_run_out(retention.LEASE, as_of) else []


def _erasures(as_of: dt.datetime) -> Due:
    return [None] if Erasure.waiting(as_of) else []


def _comparisons(as_of: dt.datetime) -> Due:
    due = any(Lease.has_run_out(name, as_of) for name in (reconcile.HOURLY, reconcile.DAILY))
    return [None] if due else []


def _comparing(as_of: dt.datetime) -> Due:
    return list(Reconciliation.waiting(as_of))


# job -> what is due for it at an instant. The order is the order of importance: charges go before the inbox, whose news
# of them the capturer knows already.
TIMETABLE: dict[str, Callable[[dt.datetime], Due]] = {
    "settle_round": _rounds,
    "charge_due": _charges,
    "drain_stripe_events": _events,
    "make_card_pages": _card_pages,
    "let_go": _cards,
    "remove_old_cards": _old_cards,
    "tend": _repairs,
    "release_cancelled": _cancelled,
    "send_refunds": _refunds,
    "launch_case": _launches,
    "publish_update": _updates,
    "send_letters": _letters,
    "finish_erasures": _erasures,
    "forget": _retention,
    "examine_books": _examinations,
    "begin_reconciliation": _comparisons,
    "reconcile": _comparing,
}


def remind_moderators(as_of: dt.datetime) -> None:
    """Once a day, while comments wait, each moderator is owed a letter."""
    if not Comment.any_waiting():
        return
    today = as_of.astimezone(ZoneInfo(config.current().display_zone)).date()
    for person in User.with_role("moderator"):
        Letter.owe("comments_waiting", person, today.isoformat(), as_of)


def remind_owners(as_of: dt.datetime) -> None:
    """Whose case got its money owes supporters news: a letter after each while of silence, until the final report."""
    for case in Case.silent(as_of):
        Letter.owe("update_reminder", case, as_of.isoformat(timespec="seconds"), as_of)
