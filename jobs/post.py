"""The post: sends the letters that are owed, each once."""

import datetime as dt

import structlog

import letters
from jobs import each, ring
from models import Lease, Letter, begin_reading, begin_writing, db

log = structlog.get_logger()

# Longer than the mail server may take for all its steps; after it somebody else may try, with the same Message-ID.
LEASE = dt.timedelta(minutes=5)
# While cards are charged, letters take so many seconds of each ring, and the capturer rings every few seconds: it needs
# the same database, and a free worker when its own slice is over.
BESIDE_MONEY = 0.5


def send_letters() -> None:
    """Send everything that waits. Safe to run twice at once: each letter is claimed before it is sent."""
    waiting, beside_money = Letter.unsent(_now()), Lease.held("capture", _now())
    db.session.commit()
    each(waiting, send_letter, _put_back, BESIDE_MONEY if beside_money else None)
    if Letter.unsent(_now()) and not Lease.held("capture", _now()):
        ring("send_letters")
    db.session.commit()


def send_letter(letter_id: int) -> None:
    """Send one letter; a mail server that is away loses nothing, the letter waits."""
    letter = Letter.claim(letter_id, _now(), LEASE)
    if letter is None:
        db.session.rollback()
        return
    if not letters.is_true(letter):
        letter.overtaken(_now())
        log.info("letter overtaken", letter=letter_id, kind=letter.kind)
        db.session.commit()
        return
    db.session.commit()
    # Nobody has to wait with his writing for a letter to be worded.
    begin_reading()
    message = letters.write(db.session.get_one(Letter, letter_id))
    begin_writing()
    trouble = letters.send(message)
    letter = db.session.get_one(Letter, letter_id)
    if trouble:
        if trouble.for_good:
            letter.refused(trouble.words, _now())
        else:
            letter.try_again(trouble.words, _now())
        log.warning("a letter waits", letter=letter_id, why=trouble.words, given_up=letter.next_at is None)
    else:
        letter.sent(_now())
        log.info("letter sent", letter=letter_id, kind=letter.kind)
    db.session.commit()


def _put_back(letter_id: int, why: str) -> None:
    db.session.get_one(Letter, letter_id).try_again(why, _now())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
