"""What is told of moderation: the letter to each moderator, the log for staff, the numbers for everybody."""

import datetime as dt
import re

import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import letters
from models import Comment, Letter, db
from tests.doorway import everything, logged_in
from tests.made import a_case, a_user, keep, look_anew, now
from tests.mailbox import text_of
from tests.reading import read, said

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


def links_of(person_id: int) -> list[str]:
    """The links of the letter to a moderator, as paths."""
    look_anew()
    found = sa.select(Letter).where(Letter.kind == "comments_waiting", Letter.subject == f"user:{person_id}")
    text = text_of(letters.write(db.session.scalars(found).one()))
    return [str(link) for link in re.findall(r"http://127\.0\.0\.1:8000(/moderation/letters/\S+)", text)]


# --- The letter --------------------------------------------------------------------------------------------


def test_the_letter_lists_the_ten_oldest_without_their_words(app: Flask) -> None:
    moderator, case = a_user("moderator"), a_case(title="Whose data?")
    for number in range(12):
        case.take_comment("Canary Name", "canary@log.example.org", f"Canary {'a' * number}", now() - number * HOUR)
    Letter.owe("comments_waiting", moderator, "today", now())
    keep()
    letter = db.session.scalars(sa.select(Letter)).one()
    message = letters.write(letter)
    assert message["Subject"] == "12 comments waiting for a moderator"
    assert "canary" not in text_of(message).casefold()
    assert text_of(message).count("- Whose data?, ") == len(links_of(moderator.id)) == 10
    assert "- Whose data?, 11 hours ago" in text_of(message)


def test_a_link_of_the_letter_opens_the_comment_for_its_moderator_alone_and_never_acts(
    app: Flask, client: FlaskClient
) -> None:
    moderator, other, case = a_user("moderator"), a_user("moderator"), a_case()
    comment = case.take_comment("Ben", "ben@log.example.org", "I stand with you.", now() - HOUR)
    number, person = comment.id, db.session.merge(moderator).id
    Letter.owe("comments_waiting", db.session.merge(moderator), "today", now())
    keep()
    (link,) = links_of(person)
    mine, others = logged_in(app, moderator), logged_in(app, other)
    before = everything()
    stranger = client.get(link)
    assert stranger.status_code == 303 and stranger.location.startswith("/login?next=")
    assert others.get(link).status_code == 404
    for wrong in (f"{link}x", link.replace(f"/{person}-", f"/{person + 1}-"), "/moderation/letters/1-1-1.x"):
        assert mine.get(wrong).status_code == 404
    page = read(mine, link)
    assert "I stand with you." in said(page, "blockquote") and not page.select(".warn")
    assert everything() == before
    form = page.select_one(f"form[action='/moderation/comments/{number}/decision']")
    assert form and [said(button) for button in form.select("button")] == ["Approve", "Spam"]
    db.session.get_one(Comment, number).approve(db.session.merge(other), now())
    keep()
    assert "or was decided, since the letter was sent" in said(read(mine, link), ".warn")


# --- The log -----------------------------------------------------------------------------------------------


def test_the_log_of_staff_has_every_step_with_who_what_why_and_the_text_of_then(app: Flask) -> None:
    moderator, staff, case = a_user("moderator", name="Mo First"), a_user("staff"), a_case(title="Whose data?")
    by, at = db.session.merge(moderator), now() - HOUR
    comment = case.take_comment("Ben", "ben@log.example.org", "First words", at)
    minute = dt.timedelta(minutes=1)
    comment.approve(by, at + minute)
    comment.report("untrue", "", "n1", at + 2 * minute)
    comment.edit("Second words", at + 3 * minute)
    comment.reject("defamation", by, at + 4 * minute, note="Who says so?")
    comment.undo(by, at + 5 * minute)
    comment.withdraw(at + 6 * minute)
    keep()
    page = read(logged_in(app, staff), "/staff/moderation")
    rows = [[said(cell) for cell in row.select("td")][1:] for row in page.select("tbody tr")]
    on = "Ben on Whose data?:"
    assert rows == [
        ["author", "withdrawn (pending to withdrawn)", f"{on} Second words"],
        ["Mo First", "undone (rejected to pending)", f"{on} Second words"],
        ["Mo First", "rejected (pending to rejected): Risk of defamation. To the author: Who says so?",
         f"{on} Second words"],
        ["author", "pending (approved to pending)", f"{on} Second words"],
        ["reader", "reported: It says something untrue of somebody", f"{on} First words"],
        ["Mo First", "approved (pending to approved)", f"{on} First words"],
    ]  # fmt: skip


def test_the_log_is_paged_and_skips_nothing(app: Flask) -> None:
    moderator, staff, case = a_user("moderator"), a_user("staff"), a_case()
    by = db.session.merge(moderator)
    for number in range(60):
        case.take_comment("Ben", "ben@log.example.org", f"Words {'a' * number}", now()).approve(by, now())
    keep()
    desk = logged_in(app, staff)
    first = read(desk, "/staff/moderation")
    older = str(first.find("a", string="Older lines")["href"])  # type: ignore[index]
    second = read(desk, older)
    assert (len(first.select("tbody tr")), len(second.select("tbody tr"))) == (50, 10)
    assert second.find("a", string="Older lines") is None


# --- The numbers -------------------------------------------------------------------------------------------


def test_everybody_can_read_how_many_of_each_month_were_published_and_rejected_and_why(client: FlaskClient) -> None:
    moderator, case = a_user("moderator"), a_case()
    by, number = db.session.merge(moderator), 0
    this_month = now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    months = [this_month, this_month - DAY, this_month - 370 * DAY]
    for at, reasons in zip(months, (("", "", "spam"), ("protected", ""), ("contempt",)), strict=True):
        for reason in reasons:
            number += 1
            comment = case.take_comment("Ben", "ben@log.example.org", f"Canary {'a' * number}", at)
            comment.reject(reason, by, at) if reason else comment.approve(by, at)
    undone = case.take_comment("Ben", "ben@log.example.org", "Canary undone", this_month)
    undone.approve(by, this_month)
    undone.undo(by, this_month)
    keep()
    page = read(client, "/comments/decisions")
    last = (this_month - DAY).strftime("%B %Y")
    assert [[said(cell) for cell in row.select("td")] for row in page.select("tbody tr")] == [
        [f"{this_month:%B %Y}", "Published", "2"],
        [f"{this_month:%B %Y}", "Spam", "1"],
        [last, "Published", "1"],
        [last, "Names a protected person", "1"],
    ]
    assert "canary" not in page.text.casefold()
