"""What is left to do once somebody was erased from our rows: at Stripe, and with copies of letters in a folder."""

import datetime as dt

import structlog

import letters
import payments
from jobs import each, ring
from models import Erasure, Pledge, begin_writing, db

log = structlog.get_logger()


def finish_erasures() -> None:
    """Safe to run twice: what is gone at Stripe already is gone."""
    waiting = Erasure.waiting(_now())
    db.session.commit()
    each(waiting, _finish, _put_back)
    if Erasure.waiting(_now()):
        ring("finish_erasures")
    db.session.commit()


def _finish(erasure_id: int) -> None:
    erasure = db.session.get_one(Erasure, erasure_id)
    pledge_id, message_ids = erasure.pledge_id(), erasure.message_ids()
    if pledge_id is not None and not _forget_at_stripe(pledge_id):
        db.session.get_one(Erasure, erasure_id).wait(_now())
        db.session.commit()
        return
    letters.drop_copies(message_ids)
    db.session.get_one(Erasure, erasure_id).done()
    db.session.commit()
    log.info("erased", erasure=erasure_id)


def _forget_at_stripe(pledge_id: int) -> bool:
    """Whether Stripe has forgotten the customer of this pledge; not while a card is still to be removed there."""
    pledge = db.session.get_one(Pledge, pledge_id)
    customer_id, may_be = pledge.customer_id, pledge.may_be_forgotten_at_stripe(_now())
    db.session.commit()
    if not may_be:
        return False
    if customer_id is not None:
        payments.forget_customer(customer_id)
    begin_writing()
    Pledge.hold(pledge_id).forget_stripes_words()
    return True


def _put_back(erasure_id: int, why: str) -> None:
    db.session.get_one(Erasure, erasure_id).wait(_now())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
