"""What has come to somebody's mailbox, in tests without a house: the post goes, and the newest letter is read."""

import re
from email.message import EmailMessage

import sqlalchemy as sa

import letters
from jobs.post import send_letters
from models import Letter, db
from tests.made import keep, look_anew


def text_of(message: EmailMessage) -> str:
    """The words of a letter as plain text, which come first in it."""
    text = next(message.iter_parts())
    assert text.get_content_type() == "text/plain"
    return str(text.get_content())


def letters_to(email: str) -> list[tuple[str, str]]:
    """(kind, words) of every letter that was really sent to an address, oldest first, after the post has gone."""
    keep()
    send_letters()
    look_anew()
    found = []
    for letter in db.session.scalars(sa.select(Letter).where(Letter.trouble == "").order_by(Letter.id)).all():
        message = letters.write(letter)
        if letter.sent_at is not None and message["To"].addresses[0].addr_spec == email:
            found.append((letter.kind, text_of(message)))
    look_anew()
    return found


def link_in_letter_to(email: str, room: str) -> str:
    """The path of the link below this room of the site in the newest letter to an address."""
    return str(re.findall(rf"http://127\.0\.0\.1:8000(/{room}/\S+)", letters_to(email)[-1][1])[-1])
