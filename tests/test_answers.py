"""Case owners answer comments at once, and may ask moderators to look again; they decide nothing themselves."""

from typing import Any

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient

from law import Refused
from models import Comment, Event, Report, db
from tests.crowd import at_once
from tests.doorway import logged_in, token_on
from tests.made import a_case, a_user, keep, look_anew, now
from tests.reading import read, said


class Desk:
    """An owner at the public comments of a case; one of them is there, and one that waits."""

    def __init__(self, app: Flask) -> None:
        self.app, self.moderator = app, a_user("moderator", name="Mo Reader")
        case = a_case(owner=a_user("owner", name="Defend Digital Me"))
        self.slug, self.owner = case.slug, case.owner
        moderator = db.session.merge(self.moderator)
        comment = case.take_comment("Ben Field", "ben@answers.example.org", "What of the pupils?", now())
        comment.approve(moderator, now())
        self.number = comment.id
        self.waits = case.take_comment("Cy", "cy@answers.example.org", "Kanarie words", now()).id
        keep()
        self.client = logged_in(app, self.owner)
        self.token = token_on(self.client, "/owner")

    @property
    def comment(self) -> Comment:
        look_anew()
        return db.session.get_one(Comment, self.number)

    def send(self, what: str, status: int, words: str, number: int = 0, headers: Any = ()) -> BeautifulSoup:
        number = number or self.number
        name = {"answer": "answer", "second-look": "look"}[what]
        form = {"form_token": self.token, f"{name}-{number}-words": words}
        address = f"/owner/cases/{self.slug}/comments/{number}/{what}"
        return read(self.client, address, status, method="POST", headers=headers, data=form)


@pytest.fixture
def desk(app: Flask) -> Desk:
    return Desk(app)


def lines(desk: Desk) -> list[tuple[str, str, str]]:
    """(what, who, note) of the comment's history."""
    look_anew()
    found = sa.select(Event).where(Event.subject_kind == "comment", Event.subject_id == desk.number)
    return [(event.what, event.who, event.note) for event in db.session.scalars(found.order_by(Event.id))]


def test_an_answer_stands_under_the_comment_at_once_on_the_page_and_in_the_fragment(
    desk: Desk, client: FlaskClient
) -> None:
    where = f"/cases/{desk.slug}/comments"
    seen = read(client, where).select_one("#comments")
    assert seen
    address = str(seen["data-hx-get"])
    assert client.get(address, headers={"HX-Request": "true"}).status_code == 204
    desk.send("answer", 303, " They are asked in May.\r\nSee https://example.org ")
    for page in (read(client, f"/cases/{desk.slug}"), read(client, address, headers={"HX-Request": "true"})):
        (answer,) = page.select(f"#comment-{desk.number} .answer")
        assert said(answer, ".who").startswith("Case owner, Defend Digital Me ")
        assert said(answer, "div") == "They are asked in May. See https://example.org"
    assert (desk.comment.status, desk.comment.public_body) == ("approved", "What of the pupils?")


def test_another_answer_takes_its_place_and_both_are_in_the_log_of_moderators_and_staff(desk: Desk) -> None:
    desk.send("answer", 303, "First answer")
    desk.send("answer", 303, "First answer")
    desk.send("answer", 303, "Second answer <b>")
    who = f"user:{desk.owner.id}"
    assert lines(desk)[1:] == [("answered", who, "First answer"), ("answer_changed", who, "Second answer <b>")]
    moderator = logged_in(desk.app, desk.moderator)
    rows = [said(row) for row in read(moderator, "/moderation/answers").select("tbody tr")]
    assert len(rows) == 2
    assert "Defend Digital Me Changed the answer: Second answer <b> Ben Field on A case about data" in rows[0]
    assert "Answered: First answer" in rows[1]
    assert "Second answer" in said(read(moderator, f"/moderation/comments/{desk.number}"), ".item")
    staff = read(logged_in(desk.app, a_user("staff")), "/staff/moderation")
    assert "answer changed: Second answer <b>" in said(staff, "tbody")


@pytest.mark.parametrize("words", ["", " \n ", "x" * 4_001])
def test_an_answer_that_cannot_be_comes_back_as_it_was_typed(desk: Desk, words: str) -> None:
    page = desk.send("answer", 422, words)
    assert page.title and page.title.text.startswith("Error: ")
    assert [link["href"] for link in page.select(".errors a")] == [f"#answer-{desk.number}-words"]
    assert page.select("details[open]")
    assert [field.text.strip() for field in page.select(f"#answer-{desk.number}-words")] == [words.strip()]
    assert desk.comment.answer is None


def test_an_answer_goes_from_the_page_with_its_comment(desk: Desk, client: FlaskClient) -> None:
    desk.send("answer", 303, "They are asked in May.")
    desk.comment.reject("personal", db.session.merge(desk.moderator), now())
    keep()
    assert "They are asked in May." not in client.get(f"/cases/{desk.slug}").text
    desk.send("answer", 404, "Another answer")
    desk.send("second-look", 404, "Why?")
    assert desk.comment.answer == "They are asked in May."


def test_an_owner_knows_nothing_of_comments_that_are_not_public_or_not_of_the_case(desk: Desk) -> None:
    other = a_case()
    theirs = other.take_comment("Dee", "dee@answers.example.org", "Theirs", now())
    theirs.approve(db.session.merge(desk.moderator), now())
    number = theirs.id
    keep()
    page = read(desk.client, f"/owner/cases/{desk.slug}/comments")
    assert [said(item, "blockquote") for item in page.select(".item")] == ["What of the pupils?"]
    assert "kanarie" not in str(page).casefold() and "answers.example.org" not in str(page)
    for one in (desk.waits, number):
        desk.send("answer", 404, "An answer", number=one)
        desk.send("second-look", 404, "Why?", number=one)
    look_anew()
    assert db.session.scalars(sa.select(Comment.answer).where(Comment.answer.is_not(None))).all() == []


def test_a_second_look_puts_the_comment_into_the_queue_with_the_owners_words_and_leaves_it_public(
    desk: Desk, client: FlaskClient
) -> None:
    desk.send("second-look", 303, "The second word is a pupil's name.")
    comment = desk.comment
    assert (comment.status, comment.reports, comment.public_body) == ("approved", 1, "What of the pupils?")
    assert comment.waits_since is not None
    assert "What of the pupils?" in client.get(f"/cases/{desk.slug}").text
    assert "pupil's name" not in client.get(f"/cases/{desk.slug}").text
    moderator = logged_in(desk.app, desk.moderator)
    (item,) = read(moderator, "/moderation?flagged=reported").select(".item")
    assert "The case owner asks you to look again: The second word is a pupil's name." in said(item, ".signs")
    # Asked again before they have answered it is refused, with the words kept.
    page = desk.send("second-look", 409, "Please hurry.")
    assert said(page, ".error") == "Error: You have asked the moderators already. They have not answered yet."
    assert [field.text.strip() for field in page.select(f"#look-{desk.number}-words")] == ["Please hurry."]
    desk.comment.approve(db.session.merge(desk.moderator), now(), desk.comment.version)
    keep()
    assert (desk.comment.waits_since, desk.comment.reports) == (None, 0)
    # Once they have decided, there may be something new to say.
    desk.send("second-look", 303, "It is, look at the school's page.")
    assert [what for what, _, _ in lines(desk)] == ["approved", "look_again", "kept", "look_again"]


def test_a_second_look_that_is_asked_for_twice_at_once_stands_there_once(desk: Desk) -> None:
    number, owner = desk.number, desk.owner

    def ask() -> str:
        try:
            held = Comment.hold(number)
            assert held
            held.ask_second_look(db.session.merge(owner), "Look at the name.", now())
            db.session.commit()
        except Refused as refused:
            db.session.rollback()
            return str(refused)
        return "asked"

    told = at_once(desk.app, *[ask] * 3)
    assert (
        told.count("asked") == 1
        and told.count("You have asked the moderators already. They have not answered yet.") == 2
    )
    assert desk.comment.reports == 1
    assert db.session.scalar(sa.select(sa.func.count(Report.id))) == 1


def test_without_words_the_moderators_are_not_asked(desk: Desk) -> None:
    page = desk.send("second-look", 422, " ")
    assert said(page, f"#look-{desk.number}-words-error") == "Error: Say what the moderators should look at."
    assert desk.comment.waits_since is None


def test_an_owner_decides_nothing(desk: Desk) -> None:
    for decision in ("approve", "reject", "spam"):
        form = {"form_token": desk.token, "decision": decision, f"c{desk.waits}-reason": "spam"}
        answer = desk.client.post(f"/moderation/comments/{desk.waits}/decision", data=form)
        assert answer.status_code == 403
    look_anew()
    assert db.session.get_one(Comment, desk.waits).status == "pending"


def test_htmx_gets_the_comment_alone_with_its_answer_or_its_mistake(desk: Desk) -> None:
    htmx = {"HX-Request": "true"}
    wrong = desk.send("answer", 422, "", headers=htmx)
    assert not wrong.select("main") and said(wrong, ".item .errors a") == "Enter your answer."
    right = desk.send("answer", 200, "They are asked in May.", headers=htmx)
    assert not right.select("main")
    assert said(right, ".item .notice") == "Your answer is public."
    assert "They are asked in May." in said(right, ".item .answer")


def test_readers_cannot_report_as_the_case_owner(desk: Desk, client: FlaskClient) -> None:
    page = read(client, f"/comments/{desk.number}/report", 422, method="POST", data={"reason": "owner", "words": ""})
    assert "Choose what is wrong with it." in said(page, ".errors")
    assert desk.comment.reports == 0
