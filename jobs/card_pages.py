"""Card pages that nobody waited for: whoever pledged while Stripe was slow, or away, goes on from the private page.

Which they are is said by the rows of the pledges. The supporter may press the button meanwhile and ask Stripe as well:
both send the same key, so that there is one page.
"""

import datetime as dt
import functools
import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import structlog

import config
import payments
from jobs import SLICE, OutOfTime, ring
from jobs.charging import Answered, NotBegun, PacedThreads
from models import Lease, Pledge, db

log = structlog.get_logger()

# One asks for them all, so that they come at one rate. Who does it renews the lease every BEAT seconds.
LEASE, LEASE_LENGTH, BEAT = "card pages", dt.timedelta(seconds=10), 2.0
# Who asks for a page has it alone for so long: the SDK waits twenty seconds, and five for the connection, three times.
ASKING = dt.timedelta(seconds=90)
# So many seconds' worth is claimed ahead of the threads, and answers are gathered for so long.
AHEAD, GATHER = 2.0, 0.2


@dataclass(frozen=True)
class Wish:
    """One card page that is about to be asked for."""

    pledge_id: int
    key: str
    params: dict[str, Any]


def make_card_pages() -> None:
    """Ask for the card pages that wait, for at most one slice of time. Safe to run twice, and at once."""
    me = f"{socket.gethostname()[:30]}:{os.getpid()}:{time.monotonic_ns()}"
    mine = Lease.take(LEASE, me, _now(), LEASE_LENGTH)
    db.session.commit()
    if not mine:
        return
    settings = config.current()
    payments.load()
    threads = PacedThreads[Wish, payments.CardPage](functools.partial(_ask, settings), settings.card_page_rate)
    try:
        _work(me, threads, settings.card_page_rate)
    finally:
        threads.end()
    Lease.take(LEASE, me, _now(), dt.timedelta(0))
    more = Pledge.waiting_for_page(_now(), 1)
    db.session.commit()
    if more:
        ring("make_card_pages")


def _work(me: str, threads: PacedThreads[Wish, payments.CardPage], rate: float) -> None:
    beats_at = time.monotonic() + BEAT
    ends_at = time.monotonic() + SLICE
    most = max(1, int(rate * AHEAD))
    while True:
        if time.monotonic() >= beats_at:
            Lease.take(LEASE, me, _now(), LEASE_LENGTH)
            db.session.commit()
            beats_at = time.monotonic() + BEAT
        if time.monotonic() < ends_at:
            threads.add(_claim(most - threads.under_way))
        else:
            _put_back([wish.pledge_id for wish in threads.take_back()])
        if not threads.under_way:
            return
        for answered in threads.answers(most, GATHER):
            _write_down(answered)


def _claim(room: int) -> list[Wish]:
    """Write down that these are asked for, before they are."""
    waiting = Pledge.waiting_for_page(_now(), room) if room > 0 else []
    wishes = []
    for pledge_id in waiting:
        pledge = Pledge.claim_page(pledge_id, _now(), ASKING)
        if pledge is not None:
            wishes.append(Wish(pledge.id, pledge.session_key, dict(pledge.session_params or {})))
        db.session.commit()
    return wishes


def _ask(settings: config.Settings, wish: Wish) -> payments.CardPage:
    """Runs in a thread of the pool, without database."""
    return payments.card_page(wish.params, wish.key, settings)


def _write_down(answered: Answered[Wish, payments.CardPage]) -> None:
    """What came of one; it stands in the row only if the supporter has not started over meanwhile."""
    wish, page = answered.asked, answered.answer
    try:
        held = Pledge.hold(wish.pledge_id)
        if page is not None:
            held.card_page_made(wish.key, page.session_id, page.url)
        elif held.session_key == wish.key and held.awaits_page:
            _without_answer(held, answered.trouble)
        db.session.commit()
    except OutOfTime:
        raise
    except Exception as trouble:  # noqa: BLE001 - it is asked for again once its claim has run out
        db.session.rollback()
        log.warning("a card page is not written down", pledge=wish.pledge_id, why=type(trouble).__name__)


def _without_answer(held: Pledge, trouble: Exception | None) -> None:
    """Ask again after a growing pause, but for what Stripe refuses: its end has come too near by now, or it is a
    mistake of ours. Then no page was made, and the supporter can begin another one."""
    if isinstance(trouble, NotBegun):
        held.leave_card_page_to_clock(_now())
        return
    log.warning("no card page yet", pledge=held.id, why=str(trouble)[:200])
    if isinstance(trouble, payments.StripeRefused) and not isinstance(trouble, payments.StripeForbidden):
        held.card_page_never_made(_now())
    else:
        held.wait(_now())


def _put_back(pledge_ids: list[int]) -> None:
    """Claimed, and not begun: whoever comes next begins with them."""
    for pledge_id in pledge_ids:
        # Silent for one whose supporter has got the page meanwhile.
        Pledge.hold(pledge_id).leave_card_page_to_clock(_now())
        db.session.commit()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
