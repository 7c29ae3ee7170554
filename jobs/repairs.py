"""The repair of refused cards by the clock: try again, remind, give up.

Money is taken by the deadline capture alone: a retry only makes the pledge due again.
"""

import datetime as dt

import structlog

from jobs import by_itself, ring
from jobs.cancelled_cases import end_at_stripe
from models import REFUSED, TO_CHARGE, Pledge, db

log = structlog.get_logger()


def tend(pledge_id: int) -> None:
    """Take the step that is due for a refused pledge. Safe to run twice: a step that was taken is not due any more.

    None is taken of a case that staff have frozen or cancelled since it was rung for.
    """
    pledge, as_of = Pledge.hold(pledge_id), _now()
    stuck = pledge.status in TO_CHARGE and pledge.is_too_late_to_try(as_of)
    is_due = pledge.next_at is not None and pledge.next_at <= as_of and (pledge.status in REFUSED or stuck)
    if not is_due or not pledge.round.case.charges:
        db.session.rollback()
        return
    if stuck:
        db.session.rollback()
        by_itself(pledge_id, _drop, _put_back)
        return
    step = pledge.repair_step(as_of)
    if step.at > as_of:
        pledge.next_at = step.at
        db.session.commit()
        return
    if step.what == "drop":
        db.session.rollback()
        by_itself(pledge_id, _drop, _put_back)
        return
    if step.what == "retry":
        pledge.retry(as_of)
    else:
        pledge.remind(as_of)
    log.info("repair", pledge=pledge_id, step=step.what)
    db.session.commit()
    ring("charge_due")
    ring("send_letters")


def _drop(pledge_id: int) -> None:
    """The window for repair is over. The payment is cancelled at Stripe first: if it was paid, it was paid.

    Nobody begins another charge meanwhile, since none may once the window is over.
    """
    paid = end_at_stripe(pledge_id)
    pledge = Pledge.hold(pledge_id)
    if paid is not None:
        # It was approved at the bank, or asked for, at the last moment, and we had not heard of it.
        pledge.found_paid(paid, _now())
    elif pledge.status in (*REFUSED, *TO_CHARGE):
        pledge.drop(_now())
    log.info("the time for repair is over", pledge=pledge_id, status=pledge.status)
    db.session.commit()
    ring("let_go")
    ring("send_letters")


def _put_back(pledge_id: int, why: str) -> None:
    Pledge.hold(pledge_id).wait(_now())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
