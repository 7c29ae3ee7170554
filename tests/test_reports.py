"""A reader reports a published comment: it stays where it is, and a moderator looks at it again."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import law
from models import Comment, Event, Report, User, begin_writing, db
from tests.doorway import logged_in, token_on
from tests.made import a_case, a_user, keep, look_anew, now
from tests.reading import read, said

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def moderator(app: Flask) -> User:
    return a_user("moderator", name="Mo First")


def published(moderator: User, body: str = "I stand with you.") -> int:
    case = a_case(title="Whose data?")
    begin_writing()
    comment = db.session.merge(case).take_comment("Ben", "ben@report.example.org", body, now() - HOUR)
    comment.approve(db.session.merge(moderator), now() - HOUR)
    keep()
    return comment.id


def comment(number: int) -> Comment:
    look_anew()
    return db.session.get_one(Comment, number)


def test_a_reader_reports_from_the_page_and_the_comment_stays_public_and_enters_the_queue(
    app: Flask, client: FlaskClient, moderator: User
) -> None:
    number = published(moderator)
    slug = comment(number).case.slug
    page = read(client, f"/cases/{slug}")
    link = page.select_one(f"#comment-{number} a[href$='/report']")
    assert link and said(link) == "Report the comment by Ben"
    form = read(client, str(link["href"]))
    assert "I stand with you." in said(form, "blockquote")
    assert [said(label) for label in form.select(".reasons label")] == list(law.REPORTS.values())
    sent = client.post(str(link["href"]), data={"reason": "personal", "words": "It has my street."})
    assert (sent.status_code, sent.location) == (303, f"/cases/{slug}/comments/reported")
    assert "Set-Cookie" not in sent.headers
    assert said(read(client, sent.location), "h1") == "Thank you for the report"
    assert "I stand with you." in client.get(f"/cases/{slug}/comments").text
    assert "It has my street." not in client.get(f"/cases/{slug}").text
    desk = logged_in(app, moderator)
    item = said(read(desk, "/moderation?flagged=reported"), f"#item-{number}")
    assert "Public now, and reported by readers: It has somebody's personal details: It has my street." in item


def test_a_report_needs_a_reason_and_a_mistake_keeps_the_words(client: FlaskClient, moderator: User) -> None:
    number = published(moderator)
    for reason in ("", "because"):
        page = read(client, f"/comments/{number}/report", status=422, method="POST",
                    data={"reason": reason, "words": "Typed."})  # fmt: skip
        assert said(page, ".errors a") == "Choose what is wrong with it."
        assert page.select_one(str(page.select_one(".errors a")["href"]))  # type: ignore[index]
        assert said(page, "textarea") == "Typed."
    assert (comment(number).reports, comment(number).waits_since) == (0, None)


def test_one_network_counts_once_for_each_reason(client: FlaskClient, moderator: User) -> None:
    number = published(moderator)
    for reason in ("spam", "spam", "other"):
        assert client.post(f"/comments/{number}/report", data={"reason": reason}).status_code == 303
    assert comment(number).reports == 2
    assert db.session.scalar(sa.select(sa.func.count(Report.id))) == 2


def test_reports_are_limited_for_each_network_and_say_when_to_come_back(
    app: Flask, client: FlaskClient, moderator: User
) -> None:
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"rate_comment": "2 per hour"})
    number = published(moderator)
    answers = [client.post(f"/comments/{number}/report", data={"reason": "spam"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [303, 303, 429]
    assert int(answers[2].headers["Retry-After"]) > 0


@pytest.mark.parametrize("state", ["pending", "rejected", "spam", "withdrawn", "nowhere"])
def test_of_a_comment_that_is_not_public_nobody_learns_by_reporting_it(
    client: FlaskClient, moderator: User, state: str
) -> None:
    number = published(moderator)
    begin_writing()
    held = db.session.get_one(Comment, number)
    if state in ("rejected", "spam"):
        held.reject("spam" if state == "spam" else "off_topic", db.session.merge(moderator), now())
    elif state == "withdrawn":
        held.withdraw(now())
    elif state == "pending":
        number = held.case.take_comment("Cy", "cy@report.example.org", "Waits", now()).id
    keep()
    number += 1_000 if state == "nowhere" else 0
    for method in ("GET", "POST"):
        answer = client.open(f"/comments/{number}/report", method=method, data={"reason": "spam"})
        assert answer.status_code == 404
        assert "stand with you" not in answer.text and "Waits" not in answer.text


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_a_moderator_answers_a_report_by_keeping_or_rejecting_and_can_undo_either(
    app: Flask, client: FlaskClient, moderator: User, decision: str
) -> None:
    number = published(moderator)
    client.post(f"/comments/{number}/report", data={"reason": "untrue"})
    waited, desk = comment(number).waits_since, logged_in(app, moderator)
    page = read(desk, "/moderation")
    assert [said(b) for b in page.select(f"#item-{number} [name=decision]")] == ["Keep", "Spam", "Reject"]
    form = {"form_token": token_on(desk, "/moderation"), f"c{number}-reason": "defamation", "seen": "2"}
    desk.post(f"/moderation/comments/{number}/decision", data={**form, "decision": decision})
    done = comment(number)
    kept = decision == "approve"
    assert (done.status, done.reports, done.waits_since) == ("approved" if kept else "rejected", 0, None)
    assert done.public_body == ("I stand with you." if kept else None)
    desk.post(f"/moderation/comments/{number}/undo", data=form)
    undone = comment(number)
    assert (undone.status, undone.public_body, undone.reports) == ("approved", "I stand with you.", 1)
    assert undone.waits_since == waited
    written = db.session.scalars(sa.select(Event).where(Event.subject_kind == "comment").order_by(Event.id)).all()
    assert [(e.what, e.who.partition(":")[0]) for e in written] == [
        ("approved", "user"), ("reported", "reader"), ("kept" if kept else "rejected", "user"), ("undone", "user"),
    ]  # fmt: skip
