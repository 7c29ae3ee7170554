"""The post: sends the letters that are owed, each once, and takes in those that come back."""

import datetime as dt
from email import message_from_bytes
from email.message import Message
from typing import cast

import structlog

import letters
from jobs import each, ring
from models import Bounce, Lease, Letter, begin_reading, begin_writing, db

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
    if not letters.is_true(letter, _now()):
        letter.overtaken(_now())
        log.info("letter overtaken", letter=letter_id, kind=letter.kind)
        db.session.commit()
        return
    db.session.commit()
    # Nobody has to wait with his writing for a letter to be worded.
    begin_reading()
    message = letters.write(db.session.get_one(Letter, letter_id))
    address = letters.address_of(message)
    comes_back = Bounce.holds(address)
    begin_writing()
    if comes_back:
        db.session.get_one(Letter, letter_id).withhold()
        log.info("letter withheld", letter=letter_id)
        db.session.commit()
        return
    trouble = letters.send(message)
    letter = db.session.get_one(Letter, letter_id)
    if trouble:
        if trouble.for_good:
            letter.refused(trouble.words, _now())
            if letter.next_at is None:
                Bounce.record(address, letter, trouble.words, _now())
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


# --- What comes back ---------------------------------------------------------------------------------------


def take_back(raw: bytes) -> str:
    """Take in a message that a mail server sent to our own address. Returns in a few words what was done.

    Only a report of a delivery that failed for good (RFC 3464) stops letters to an address, only when it names the
    number of a letter of ours, which nobody but its reader knows, and only for the address which that letter goes to:
    so nobody can have the letters of somebody else stopped.
    """
    # The older policy of the library, which takes headers as they are: the newer one stumbles over some.
    report = message_from_bytes(raw)
    failed = _failed_for_good(report)
    if not failed:
        return "This is no report of a delivery that failed for good; nothing is done."
    letter = Letter.numbered(_number_of_ours(report))
    if letter is None:
        return "The letter in this report is none of ours; nothing is done."
    if not letters.has_reader(letter):
        # Such as a request for another password, which is forgotten after a day.
        return f"What letter {letter.id} was about is forgotten since; nothing is done."
    address = letters.address_of(letters.write(letter)).lower()
    if address not in failed:
        return f"Letter {letter.id} goes to another address than the one in this report; nothing is done."
    Bounce.record(address, letter, f"came back: {failed[address]}", _now())
    log.warning("a letter came back", letter=letter.id, why=failed[address])
    return f"Letter {letter.id} came back ({failed[address]}): nothing more is written to its address."


def _failed_for_good(report: Message) -> dict[str, str]:
    """Each address, in lower case, that a report says can't be reached, with the code of its reason."""
    failed = {}
    for part in report.walk():
        if part.get_content_type() != "message/delivery-status" or not part.is_multipart():
            continue
        for about in cast("list[Message]", part.get_payload()):
            action, status = (str(about.get(name, "")).strip().lower() for name in ("Action", "Status"))
            if action != "failed" or not status.startswith("5"):
                continue
            for name in ("Original-Recipient", "Final-Recipient"):
                # Such as "rfc822; ada@example.org".
                address = str(about.get(name, "")).rpartition(";")[2].strip().lower()
                failed[address.strip("<>")] = status[:20]
    failed.pop("", None)
    return failed


def _number_of_ours(report: Message) -> str:
    """What stands before the @ in the Message-ID of the letter that a report carries, whole or by its headers."""
    for part in report.walk():
        kind = part.get_content_type()
        if kind == "message/rfc822" and part.is_multipart():
            carried = cast("list[Message]", part.get_payload())[0]
        elif kind == "text/rfc822-headers":
            carried = message_from_bytes(cast("bytes", part.get_payload(decode=True)) or b"")
        else:
            continue
        return str(carried.get("Message-ID", "")).strip().strip("<>").partition("@")[0]
    return ""
