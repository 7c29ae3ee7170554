"""A comment from its reader to the page: sent, read by a moderator, decided, turned round, written down."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import letters
from jobs.sweep import remind_moderators
from models import Case, Comment, Event, Letter, User, begin_writing, db
from tests.made import PASSWORD, a_case, a_user, case_at, keep, look_anew, now
from tests.mailbox import text_of
from tests.reading import read, said, token

WORDS = {"name": "Ben Field", "email": "ben@example.org", "body": "I stand with you."}
WAITS = "Your comment is not public yet. A moderator reads each one first, usually within 24 hours."


def the_comments(slug: str) -> list[Comment]:
    return list(db.session.scalars(sa.select(Comment).where(Comment.case_id == case_at(slug).id).order_by(Comment.id)))


def a_comment(case: Case, body: str = "I stand with you.", name: str = "Ben Field") -> int:
    """The number of a comment that waits."""
    begin_writing()
    number = db.session.merge(case).take_comment(name, "ben@example.org", body, now()).id
    keep()
    return number


def logged_in(app: Flask, person: User) -> FlaskClient:
    client = app.test_client()
    client.post("/login", data={"email": person.email, "password": PASSWORD})
    return client


# --- Sending -----------------------------------------------------------------------------------------------


def test_the_form_says_before_its_button_what_becomes_public(client: FlaskClient) -> None:
    form = read(client, f"/cases/{a_case().slug}").select_one("#comment-form")
    assert form
    assert said(form).endswith(
        "If approved, your name and comment are public. Your e-mail is never shown. Send comment"
    )


@pytest.mark.parametrize(("name", "shown"), [("Ben Field", "Ben Field"), ("", "Anonymous"), ("   ", "Anonymous")])
def test_a_comment_leads_to_a_page_of_thanks_that_shows_it(client: FlaskClient, name: str, shown: str) -> None:
    slug = a_case(title="Whose data?").slug
    sent = client.post(f"/cases/{slug}/comments", data={**WORDS, "name": name})
    assert sent.status_code == 303
    assert "Set-Cookie" not in sent.headers
    thanks = client.get(sent.location)
    assert thanks.headers["Cache-Control"] == "no-store"
    assert thanks.headers["X-Robots-Tag"] == "noindex"
    page = read(client, sent.location)
    assert said(page, "h1") == "Your comment waits for a moderator"
    assert f"{WAITS} {shown} I stand with you. You can change or withdraw it on the private page" in said(page, "main")
    assert said(page, "main").endswith("A letter brings you its address. Back to Whose data?")
    assert "ben@example.org" not in thanks.text
    assert [(c.public_name, c.status) for c in the_comments(slug)] == [(shown, "pending")]


def test_htmx_puts_the_thanks_in_the_place_of_the_form(client: FlaskClient) -> None:
    slug = a_case().slug
    sent = client.post(f"/cases/{slug}/comments", data=WORDS, headers={"HX-Request": "true"})
    assert sent.status_code == 200
    assert sent.text.count('id="comment-form"') == 1
    assert WAITS in sent.text
    assert "I stand with you." in sent.text
    assert "ben@example.org" not in sent.text


def test_a_waiting_text_is_shown_only_with_the_sealed_link_of_its_case(client: FlaskClient) -> None:
    slug, other = a_case().slug, a_case().slug
    link = client.post(f"/cases/{slug}/comments", data=WORDS).location
    seal = link.partition("waiting=")[2]
    assert client.get(link).status_code == 200
    for wrong in (
        f"/cases/{slug}/comments/thanks", f"/cases/{slug}/comments/thanks?waiting=1", link[:-1],
        f"/cases/{other}/comments/thanks?waiting={seal}", f"/cases/{slug}/comments/thanks?waiting={seal}x",
    ):  # fmt: skip
        answer = client.get(wrong)
        assert answer.status_code == 404, wrong
        assert "I stand with you." not in answer.text


def test_a_waiting_text_is_still_shown_after_the_secret_was_rotated_and_no_longer_once_the_old_one_is_gone(
    app: Flask, client: FlaskClient
) -> None:
    (first,) = app.config["LINK_SECRETS"]
    link = client.post(f"/cases/{a_case().slug}/comments", data=WORDS).location
    statuses = []
    for secrets in (["a second secret of 32 characters", first], ["a second secret of 32 characters"]):
        app.config["LINK_SECRETS"] = secrets
        statuses.append(client.get(link).status_code)
    assert statuses == [200, 404]


def test_the_page_of_thanks_does_not_say_that_a_public_comment_waits(app: Flask, client: FlaskClient) -> None:
    moderator, case = a_user("moderator"), a_case()
    link = client.post(f"/cases/{case.slug}/comments", data=WORDS).location
    the_comments(case.slug)[0].approve(moderator, now())
    keep()
    assert said(read(client, link), "h1") == "Your comment is public"
    again = client.post(f"/cases/{case.slug}/comments", data=WORDS)
    assert "Your comment is public." in client.get(again.location).text
    assert len(the_comments(case.slug)) == 1


def test_the_same_text_sent_twice_is_one_comment(client: FlaskClient) -> None:
    slug, other = a_case().slug, a_case().slug
    for body in ("I stand with you.", "I stand with you.\r\n", "  I  stand with you."):
        assert client.post(f"/cases/{slug}/comments", data={**WORDS, "body": body}).status_code == 303
    client.post(f"/cases/{slug}/comments", data={**WORDS, "email": "BEN@example.org"})
    assert [c.body for c in the_comments(slug)] == ["I stand with you."]
    client.post(f"/cases/{slug}/comments", data={**WORDS, "name": "Cy"})
    client.post(f"/cases/{other}/comments", data=WORDS)
    assert (len(the_comments(slug)), len(the_comments(other))) == (2, 1)


def test_a_mistake_comes_back_with_what_was_typed_and_a_summary_that_leads_to_it(client: FlaskClient) -> None:
    slug = a_case().slug
    typed = {"name": "Ben <Field>", "email": "ben at home", "body": "Half a\nthought <b>"}
    page = read(client, f"/cases/{slug}/comments", status=422, method="POST", data=typed)
    assert page.title and page.title.text.startswith("Error: ")
    first = page.select_one("main > :first-child")
    assert first and first["class"] == ["errors"]
    assert [(link["href"], link.text) for link in first.select("a")] == [
        ("#email", "Enter an e-mail address in the form name@example.com.")
    ]
    assert [typed["value"] for typed in page.select("#name, #email")] == ["Ben <Field>", "ben at home"]
    assert [typed.text.strip() for typed in page.select("textarea#body")] == ["Half a\nthought <b>"]
    assert the_comments(slug) == []


@pytest.mark.broken_books("the case was live before, which no such case is")
def test_an_ended_case_still_takes_comments_but_one_that_is_not_live_does_not(client: FlaskClient) -> None:
    ended, draft = a_case(), a_case()
    ended.cancel("No more.", "operator", now())
    draft.status = "draft"
    keep()
    assert client.post(f"/cases/{ended.slug}/comments", data=WORDS).status_code == 303
    assert client.post(f"/cases/{draft.slug}/comments", data=WORDS).status_code == 404
    assert (len(the_comments(ended.slug)), len(the_comments(draft.slug))) == (1, 0)


# --- Deciding ----------------------------------------------------------------------------------------------


def test_a_moderator_lands_at_the_queue_oldest_first_with_case_age_and_text(app: Flask) -> None:
    moderator, case = a_user("moderator"), a_case(title="Whose data?")
    for body, hours in (("Newer", 1), ("Older", 3)):
        case.take_comment("Ben Field", "ben@example.org", body, now() - dt.timedelta(hours=hours, minutes=5))
    keep()
    client = app.test_client()
    entered = client.post("/login", data={"email": moderator.email, "password": PASSWORD})
    assert entered.location == "/moderation"
    page = read(client, "/moderation")
    assert said(page, "h1") == "2 comments waiting"
    assert page.title and page.title.text.startswith("2 comments waiting")
    assert [said(item, ".when") + " " + said(item, "blockquote") for item in page.select(".item")] == [
        "on Whose data?, 3 hours ago Older",
        "on Whose data?, 1 hour ago Newer",
    ]
    assert "ben@example.org" not in str(page)


def test_each_decision_is_written_down_with_who_when_from_to_and_why(app: Flask, client: FlaskClient) -> None:
    moderator, case = a_user("moderator", name="Mo Derator"), a_case()
    number, before = a_comment(case), now()
    mod = logged_in(app, moderator)
    public = f"/cases/{case.slug}/comments"

    _decide(mod, number, "approve")
    assert "I stand with you." in client.get(public).text
    _decide(mod, number, "reject", "protected", "Please name no pupil.")
    assert "I stand with you." not in client.get(public).text
    assert "pupil" not in client.get(public).text
    decided = read(mod, "/moderation/decided")
    assert "rejected by Mo Derator: Names a protected person" in said(decided, f"#item-{number}")
    _decide(mod, number, "approve")
    assert "I stand with you." in client.get(public).text

    begin_writing()
    written = db.session.scalars(
        sa.select(Event).where(Event.subject_kind == "comment", Event.subject_id == number).order_by(Event.id)
    ).all()
    assert [(e.what, e.before, e.after, e.note, e.who) for e in written] == [
        ("approved", "pending", "approved", "", f"user:{moderator.id}"),
        ("rejected", "approved", "rejected", "Names a protected person. To the author: Please name no pupil.",
         f"user:{moderator.id}"),
        ("approved", "rejected", "approved", "", f"user:{moderator.id}"),
    ]  # fmt: skip
    assert all(before <= e.at <= now() for e in written)


def test_a_decision_tells_what_it_did_and_leads_back_to_its_list(app: Flask) -> None:
    moderator, case = a_user("moderator"), a_case()
    number, mod = a_comment(case), logged_in(app, moderator)
    assert _decide(mod, number, "approve") == "/moderation"
    assert said(read(mod, "/moderation"), ".notice") == "Approved: the comment by Ben Field is public."
    assert _decide(mod, number, "reject", "off_topic", list="decided") == "/moderation/decided"
    page = read(mod, "/moderation/decided")
    assert said(page, ".notice") == "Rejected: the comment by Ben Field is not public."


def test_a_rejection_needs_a_reason(app: Flask) -> None:
    moderator, case = a_user("moderator"), a_case()
    number, mod = a_comment(case), logged_in(app, moderator)
    for reason in ("", "because"):
        form = {"form_token": token(mod, "/moderation"), "decision": "reject", f"c{number}-reason": reason}
        page = read(mod, f"/moderation/comments/{number}/decision", status=422, method="POST", data=form)
        assert said(page, ".errors a") == "Choose a reason."
        assert page.select_one(f'.errors a[href="#c{number}-reason"]')
        assert "I stand with you." in said(page, "main")
    assert [c.status for c in the_comments(case.slug)] == ["pending"]


def test_of_two_moderators_the_second_is_told_instead_of_undoing_the_first(app: Flask) -> None:
    """What one rejected for a reason must not become public because another had an older page open."""
    first, second = a_user("moderator", name="Mo First"), a_user("moderator", name="Mo Second")
    case = a_case()
    number, one, two = a_comment(case), logged_in(app, first), logged_in(app, second)
    _decide(one, number, "reject", "protected", seen="1")
    for decision in ("approve", "spam"):
        late = two.post(f"/moderation/comments/{number}/decision",
                        data={"form_token": token(two, "/moderation"), "decision": decision, "seen": "1"})  # fmt: skip
        assert late.status_code == 409
        assert "Already decided by Mo First: rejected. Nothing was done. Look again." in late.text
    assert [(c.status, c.version) for c in the_comments(case.slug)] == [("rejected", 2)]
    # The same decision of the same moderator twice is silent.
    _decide(one, number, "reject", "harassment", seen="1")
    assert [(c.status, c.reason) for c in the_comments(case.slug)] == [("rejected", "protected")]
    # Whoever has seen the rejection can turn it round.
    _decide(two, number, "approve", seen="2")
    assert [c.status for c in the_comments(case.slug)] == ["approved"]


def test_every_decision_form_says_which_version_of_the_comment_was_seen(app: Flask) -> None:
    moderator, case = a_user("moderator"), a_case()
    number, mod = a_comment(case), logged_in(app, moderator)
    assert [seen["value"] for seen in read(mod, "/moderation").select("[name=seen]")] == ["1"] * 2
    _decide(mod, number, "approve")
    assert [seen["value"] for seen in read(mod, "/moderation/decided").select("[name=seen]")] == ["2"]


def test_a_decision_can_be_turned_round_however_many_came_after_it(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("views.moderators.DECISIONS_A_PAGE", 2)
    moderator, case = a_user("moderator"), a_case()
    numbers, mod = [a_comment(case, f"Comment {n}") for n in range(5)], logged_in(app, moderator)
    for number in numbers:
        _decide(mod, number, "approve")
    pages = [read(mod, "/moderation/decided")]
    for _ in range(2):
        older = pages[-1].find("a", string="Older decisions")
        assert older, "the older decisions cannot be reached"
        pages.append(read(mod, str(older["href"])))
    shown = [[said(item, "blockquote") for item in page.select(".item")] for page in pages]
    assert shown == [["Comment 4", "Comment 3"], ["Comment 2", "Comment 1"], ["Comment 0"]]
    assert pages[-1].find("a", string="Older decisions") is None
    _decide(mod, numbers[0], "reject", "off_topic", list="decided")
    assert said(read(mod, "/moderation/decided"), "blockquote") == "Comment 0"
    assert "There are no older decisions." in said(read(mod, "/moderation/decided?after=0.1"), "main")
    for odd in ("-1", "x", "9" * 40, "1e3.5", "1.²", "", f"{'9' * 16}.1"):
        assert said(read(mod, f"/moderation/decided?after={odd}"), "blockquote") == "Comment 0"


def test_an_empty_desk_says_that_nothing_waits(app: Flask) -> None:
    mod = logged_in(app, a_user("moderator"))
    page = read(mod, "/moderation")
    assert (said(page, "h1"), said(page, "title")) == ("No comments waiting", "No comments waiting – Standing")
    assert "Nothing waits. New comments appear here, oldest first." in said(page, "main")
    assert "Nothing has been decided yet." in said(read(mod, "/moderation/decided"), "main")


def _decide(client: FlaskClient, number: int, decision: str, reason: str = "", note: str = "", **said: str) -> str:
    """Press a button on a moderator's list, having seen the comment as it is; returns where it led."""
    look_anew()
    said = {"seen": str(db.session.get_one(Comment, number).version), **said}
    db.session.rollback()
    typed = {f"c{number}-reason": reason, f"c{number}-note": note}
    form = {"form_token": token(client, "/moderation"), "decision": decision, **typed, **said}
    answer = client.post(f"/moderation/comments/{number}/decision", data=form)
    assert answer.status_code == 303, answer.text
    return answer.location


# --- The daily letter --------------------------------------------------------------------------------------


def test_moderators_get_one_letter_a_day_and_only_while_comments_wait(app: Flask) -> None:
    monday = dt.datetime(2026, 7, 6, 7, 0, tzinfo=dt.UTC)
    moderators, case = [a_user("moderator"), a_user("moderator")], a_case()
    remind_moderators(monday)
    assert _owed() == []
    a_comment(case)
    a_comment(case, "And I.")
    for hours in (0, 1, 15):
        remind_moderators(monday + dt.timedelta(hours=hours))
    assert _owed() == [f"user:{moderator.id}" for moderator in moderators]
    message = letters.write(db.session.scalars(sa.select(Letter)).first() or Letter())
    assert message["Subject"] == "2 comments waiting for a moderator"
    assert "http://127.0.0.1:8000/moderation" in text_of(message)
    assert "I stand with you." not in text_of(message)

    # The day is London's: 23:00 UTC in July is tomorrow there.
    remind_moderators(monday + dt.timedelta(hours=16))
    assert len(_owed()) == 4
    for comment in Comment.waiting():
        comment.approve(moderators[0], now())
    remind_moderators(monday + dt.timedelta(days=2))
    assert len(_owed()) == 4


def _owed() -> list[str]:
    found = sa.select(Letter.subject).where(Letter.kind == "comments_waiting")
    return list(db.session.scalars(found.order_by(Letter.id)))
