"""What a comment's author can do by its private link: change it, send it again once, withdraw it."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import letters
from law import Refused
from models import Comment, Event, Letter, OldText, db, signed_link
from tests.made import a_case, a_user, keep, look_anew, now
from tests.mailbox import text_of
from tests.reading import read, said

MINUTE = dt.timedelta(minutes=1)
WORDS = {"name": "Ben Field", "email": "ben@own.example.org", "body": "I stand with you."}


def sent(age: dt.timedelta = MINUTE) -> Comment:
    """A comment that waits, on a case of its own."""
    return a_case().take_comment("Ben Field", "ben@own.example.org", "I stand with you.", now() - age)


def the_comment() -> Comment:
    look_anew()
    return db.session.scalars(sa.select(Comment)).one()


def public_words(client: FlaskClient) -> str:
    return said(read(client, f"/cases/{the_comment().case.slug}/comments"), "#comments")


NONE = "There are no public comments on this case page yet."


def test_the_thanks_lead_to_the_private_page_and_a_letter_brings_its_link_and_none_of_the_words(
    client: FlaskClient,
) -> None:
    thanks = client.post(f"/cases/{a_case().slug}/comments", data=WORDS).location
    link = str(read(client, thanks).select_one("main a[href^='/comments/']")["href"])  # type: ignore[index]
    page = read(client, link)
    assert said(page, "h1") == "Your comment waits for a moderator"
    assert client.get(link).headers["Cache-Control"] == "no-store"
    look_anew()
    (letter,) = db.session.scalars(sa.select(Letter))
    message = letters.write(letter)
    assert (letter.kind, message["To"].addresses[0].addr_spec) == ("comment_taken", "ben@own.example.org")
    assert f"http://127.0.0.1:8000{link}" in text_of(message)
    assert "stand with you" not in text_of(message) and "Ben Field" not in message.as_string()


def test_whoever_sends_the_same_words_again_is_not_shown_the_private_link(client: FlaskClient) -> None:
    """Name and words can be read on the page, and an address can be guessed."""
    slug = a_case().slug
    for headers in ({}, {"HX-Request": "true"}):
        first = {**WORDS, "body": f"Words {headers}"}
        answers = [client.post(f"/cases/{slug}/comments", data=first, headers=headers) for _ in range(2)]
        new, again = [client.get(answer.location).text if not headers else answer.text for answer in answers]
        assert "/comments/" in new.partition("private page")[0].rpartition("<p>")[2]
        assert "private page of your comment" not in again and "We had this comment already." in again
    look_anew()
    assert db.session.scalar(sa.select(sa.func.count(Letter.id))) == 2


def test_an_address_gets_so_many_letters_and_then_the_page_says_that_none_comes(
    app: Flask, client: FlaskClient
) -> None:
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"rate_letter": "2 per hour"})
    slug, said_of_it = a_case().slug, []
    for number in range(3):
        answer = client.post(f"/cases/{slug}/comments", data={**WORDS, "body": f"Words {number}"})
        assert answer.status_code == 303 and "Retry-After" not in answer.headers
        said_of_it.append("no letter brings it" in client.get(answer.location).text)
    assert said_of_it == [False, False, True]


@pytest.mark.parametrize("wrong", ["", "x", ".", "link of a pledge"])
def test_a_wrong_private_link_opens_nothing(client: FlaskClient, wrong: str) -> None:
    comment = sent()
    link = {"": comment.public_id, "x": f"{comment.link()}x", ".": f"{comment.public_id}."}.get(wrong)
    link = link or signed_link("pledge", comment.public_id, 0)
    keep()
    assert client.get(f"/comments/{link}").status_code == 404
    for action in ("text", "withdrawal"):
        assert client.post(f"/comments/{link}/{action}", data={"body": "Mine now."}).status_code == 404
    assert (the_comment().body, the_comment().status) == ("I stand with you.", "pending")


def test_a_comment_that_waits_can_be_changed_even_after_days(client: FlaskClient) -> None:
    link = sent(age=3 * 24 * 60 * MINUTE).link()
    keep()
    assert client.post(f"/comments/{link}/text", data={"body": "We stand with you."}).status_code == 303
    assert (the_comment().body, the_comment().status, the_comment().version) == ("We stand with you.", "pending", 2)
    assert [old.body for old in db.session.scalars(sa.select(OldText))] == ["I stand with you."]
    page = read(client, f"/comments/{link}/text", status=422, method="POST", data={"body": "  "})
    assert said(page, ".errors a") == "Enter your comment."
    assert public_words(client) == NONE


def test_a_change_of_an_approved_comment_waits_while_the_approved_text_stays_public(client: FlaskClient) -> None:
    moderator, comment = a_user("moderator"), sent(age=14 * MINUTE)
    comment.approve(moderator, now())
    link = comment.link()
    keep()
    client.post(f"/comments/{link}/text", data={"body": "Changed words."})
    assert the_comment().status == "pending"
    assert "I stand with you." in public_words(client) and "Changed words." not in public_words(client)
    assert said(read(client, f"/comments/{link}"), "h1") == "Your change waits for a moderator"
    the_comment().approve(moderator, now())
    keep()
    assert "Changed words." in public_words(client) and "I stand with you." not in public_words(client)


def test_an_approved_comment_cannot_be_changed_any_more_after_15_minutes(client: FlaskClient) -> None:
    moderator, comment = a_user("moderator"), sent(age=15 * MINUTE + dt.timedelta(seconds=1))
    comment.approve(moderator, now())
    link = comment.link()
    keep()
    assert "Change it" not in client.get(f"/comments/{link}").text
    for words in ("Changed words.", ""):
        late = client.post(f"/comments/{link}/text", data={"body": words})
        assert late.status_code == 409 and "cannot be changed any more" in late.text
    assert (the_comment().body, the_comment().status) == ("I stand with you.", "approved")


def test_a_rejection_of_a_change_takes_the_approved_text_away_too(client: FlaskClient) -> None:
    moderator, comment = a_user("moderator"), sent()
    comment.approve(moderator, now())
    comment.edit("Changed words.", now())
    comment.reject("harassment", moderator, now())
    keep()
    assert public_words(client) == NONE


def test_the_author_is_told_why_and_may_send_it_again_once(client: FlaskClient) -> None:
    moderator, comment = a_user("moderator"), sent()
    comment.reject("protected", moderator, now(), note="Leave out the school.")
    link = comment.link()
    keep()
    page = said(read(client, f"/comments/{link}"), "main")
    assert "somebody whom the law protects" in page and "The moderator writes: Leave out the school." in page
    same = client.post(f"/comments/{link}/text", data={"body": "I stand with you."})
    assert same.status_code == 409 and "This is the text that was rejected." in same.text
    client.post(f"/comments/{link}/text", data={"body": "Without the school."})
    assert (the_comment().status, the_comment().reason, the_comment().note) == ("pending", "", "")
    the_comment().reject("off_topic", db.session.merge(moderator), now())
    keep()
    again = client.post(f"/comments/{link}/text", data={"body": "A third text."})
    assert again.status_code == 409
    assert "cannot be changed any more" in said(read(client, f"/comments/{link}"), "main")
    told = db.session.scalars(sa.select(Letter).where(Letter.kind == "comment_rejected").order_by(Letter.id)).all()
    # What the first letter said is not true any more; the second says that it was the last time.
    assert [letters.is_true(letter) for letter in told] == [False, True]
    assert "This was the second time" in text_of(letters.write(told[1]))
    assert all("stand with you" not in text_of(letters.write(letter)) for letter in told)


def test_nobody_is_told_of_spam_but_its_author_can_see_it(client: FlaskClient) -> None:
    moderator, comment = a_user("moderator"), sent()
    comment.reject("spam", moderator, now(), note="Not sent to anybody.")
    link = comment.link()
    keep()
    assert (the_comment().status, the_comment().note) == ("spam", "")
    assert db.session.scalar(sa.select(sa.func.count(Letter.id))) == 0
    assert "A moderator took it for advertising." in said(read(client, f"/comments/{link}"), "main")
    assert client.post(f"/comments/{link}/text", data={"body": "Other pills."}).status_code == 409


@pytest.mark.parametrize("state", ["pending", "approved", "changed", "rejected", "spam"])
def test_a_comment_can_be_withdrawn_in_every_state_and_sent_anew(client: FlaskClient, state: str) -> None:
    moderator, comment = a_user("moderator"), sent(age=2 * 24 * 60 * MINUTE)
    if state in ("approved", "changed"):
        comment.approve(moderator, now())
    if state == "changed":
        comment.created_at = now()
        comment.edit("Changed words.", now())
    elif state in ("rejected", "spam"):
        comment.reject("spam" if state == "spam" else "off_topic", moderator, now())
    link, slug = comment.link(), comment.case.slug
    keep()
    for _ in range(2):
        assert client.post(f"/comments/{link}/withdrawal").status_code == 303
    assert (the_comment().status, the_comment().public_body) == ("withdrawn", None)
    assert public_words(client) == NONE
    page = said(read(client, f"/comments/{link}"), "main")
    assert page.startswith("You have withdrawn your comment") and "words" not in page and "stand" not in page
    assert client.post(f"/comments/{link}/text", data={"body": "Changed again."}).status_code == 409
    written = db.session.scalars(sa.select(Event).where(Event.subject_kind == "comment").order_by(Event.id)).all()
    assert [(e.what, e.who) for e in written][-1] == ("withdrawn", "author")
    client.post(f"/cases/{slug}/comments", data=WORDS)
    look_anew()
    assert [c.status for c in db.session.scalars(sa.select(Comment).order_by(Comment.id))] == ["withdrawn", "pending"]


def test_a_moderator_who_has_seen_the_text_of_before_is_told_to_look_again(app: Flask) -> None:
    moderator, comment = a_user("moderator"), sent()
    comment.edit("Changed words.", now())
    with pytest.raises(Refused, match="Its author has changed this comment in the meantime"):
        comment.approve(moderator, now(), seen=1)
    with pytest.raises(Refused, match="Its author has changed this comment in the meantime"):
        comment.reject("off_topic", moderator, now(), seen=1)
    comment.withdraw(now())
    with pytest.raises(Refused, match="Its author has withdrawn this comment"):
        comment.approve(moderator, now(), seen=2)
