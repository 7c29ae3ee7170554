"""What a supporter writes with a pledge: to the case owner alone, or for everyone, once a moderator has read it."""

import datetime as dt
import secrets

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from models import Comment, Pledge, Round, begin_writing, db
from tests.doorway import Site, logged_in, words_of
from tests.made import a_case, a_pledge, a_user, card_found, case_at, confirm, keep, look_anew, now, pledges_of
from tests.reading import read, said
from views import doors

pytestmark = pytest.mark.usefixtures("app")
KEY = "a-form-key-of-these-tests"
TYPED = {"amount": "25", "name": "Ada Winter", "email": "ada@messages.example.org", "agreed": "y", "form_key": KEY}


def comments() -> list[Comment]:
    look_anew()
    return list(db.session.scalars(sa.select(Comment).order_by(Comment.id)))


def with_message(slug: str, words: str, public: bool, name: str = "Ada Winter", shown_as: str = "name",
                 email: str = "ada@messages.example.org", counts: bool = True) -> Pledge:  # fmt: skip
    """A pledge that came with a message."""
    begin_writing()
    pledge = a_pledge(Round.hold(case_at(slug).round.id), name=name, shown_as=shown_as, email=email)
    pledge.say(words, public)
    if counts:
        confirm(pledge)
    keep()
    return pledge


@pytest.mark.parametrize(("ticked", "reader"), [({}, "owner"), ({"message_public": "y"}, "everyone")])
def test_the_form_says_who_will_see_the_message_and_keeps_it_as_typed(
    client: FlaskClient, ticked: dict[str, str], reader: str
) -> None:
    case = a_case(owner=a_user("owner", name="Defend Digital Me"))
    slug = case.slug
    hint = said(read(client, f"/cases/{slug}/pledge"), "#message-hint")
    assert hint.startswith("Only Defend Digital Me, the case owner, reads it, unless you tick the next box.")
    assert "a moderator reads it once your card is saved" in hint
    sent = client.post(f"/cases/{slug}/pledges", data={**TYPED, **ticked, "message": " Go\r\non! "})
    assert sent.status_code == 303
    (pledge,) = pledges_of(slug)
    assert (pledge.message, pledge.message_for) == ("Go\non!", reader)


def test_a_pledge_that_is_made_anew_before_its_card_is_saved_has_the_newer_message() -> None:
    slug = a_case().slug
    pledge = Pledge.hold(with_message(slug, "First words", public=True, counts=False).id)
    terms = (2_500, pledge.name, pledge.email, "name", False)
    assert pledge.promised(*terms, "First words", True)
    assert not pledge.promised(*terms, "First words", False)
    pledge.promise_again(*terms, now(), "Second words", False)
    assert (pledge.message, pledge.message_for) == ("Second words", "owner")
    pledge.promise_again(*terms, now(), "", True)
    assert (pledge.message, pledge.message_for) == (None, None)
    assert pledge.promised(*terms, "", True)


def test_a_message_that_is_too_long_is_told_at_its_field(client: FlaskClient) -> None:
    slug = a_case().slug
    page = read(client, f"/cases/{slug}/pledges", 422, method="POST", data={**TYPED, "message": "x" * 1_001})
    assert said(page, "#message-error") == "Error: Use at most 1,000 characters."
    assert [field.text.strip() for field in page.select("#message")] == ["x" * 1_001]
    assert pledges_of(slug) == []


def test_a_public_message_waits_for_a_moderator_from_the_moment_the_pledge_counts(client: FlaskClient) -> None:
    slug, moderator = a_case().slug, a_user("moderator")
    pledge = with_message(slug, "I stand with you.", public=True, counts=False)
    link = pledge.link()
    assert comments() == []
    assert "it waits for a moderator once your pledge counts, and not before" in said(read(client, f"/pledges/{link}"))
    confirm(Pledge.hold(pledge.id))
    keep()
    (comment,) = comments()
    assert (comment.body, comment.public_name, comment.status) == ("I stand with you.", "Ada Winter", "pending")
    assert comment.waits_since is not None and db.session.merge(pledge).comment_id == comment.id
    assert "I stand with you." not in client.get(f"/cases/{slug}").text
    # Confirmed a second time it is not taken a second time.
    confirm(Pledge.hold(pledge.id))
    keep()
    assert len(comments()) == 1
    comments()[0].approve(db.session.merge(moderator), now())
    keep()
    assert "I stand with you." in said(read(client, f"/cases/{slug}"), ".comment")
    (way,) = read(client, f"/pledges/{link}").select("a[href^='/comments/']")
    assert said(read(client, str(way["href"])), "h1") == "Your comment is public"


def test_an_anonymous_supporters_message_has_no_name() -> None:
    slug = a_case().slug
    with_message(slug, "Go on!", public=True, name="Kanarie Name", shown_as="hidden")
    assert [(comment.name, comment.public_name) for comment in comments()] == [("", "Anonymous")]


@pytest.mark.parametrize("ends", ["late", "abandoned", "cancelled", "case cancelled", "for the owner"])
def test_the_message_of_a_pledge_that_never_counted_is_no_comment(ends: str) -> None:
    slug = a_case(ends_in=dt.timedelta(hours=1)).slug
    pledge = with_message(slug, "Go on!", public=ends != "for the owner", counts=False)
    held = Pledge.hold(pledge.id)
    if ends == "late":
        confirm(held, saved_at=now() + dt.timedelta(hours=2))
    elif ends == "abandoned":
        held.apply_card(card_found(held, expired=True), now())
    elif ends == "cancelled":
        held.cancel(now())
    elif ends == "case cancelled":
        held.round.case.cancel("No more.", "test", now())
    else:
        confirm(held)
    keep()
    assert comments() == []
    shown = [one.message for one in case_at(slug).messages()]
    assert shown == (["Go on!"] if ends == "for the owner" else [])


def test_a_comment_that_nobody_has_read_yet_goes_with_a_cancelled_pledge_and_a_public_one_stays() -> None:
    slug, moderator = a_case().slug, a_user("moderator")
    for words in ("Unread words", "Read words"):
        with_message(slug, words, public=True)
    comments()[1].approve(db.session.merge(moderator), now())
    keep()
    for pledge in pledges_of(slug):
        Pledge.hold(pledge.id).cancel(now())
    keep()
    assert [(c.status, c.waits_since, c.public_body) for c in comments()] == [
        ("withdrawn", None, None), ("approved", None, "Read words"),
    ]  # fmt: skip


def test_whoever_repeats_the_words_of_somebody_elses_comment_gets_no_link_to_it() -> None:
    case = a_case()
    slug = case.slug
    case.take_comment("Ada Winter", "ada@messages.example.org", "I stand with you.", now())
    keep()
    with_message(slug, "I stand with you.", public=True)
    assert len(comments()) == 1
    assert pledges_of(slug)[0].comment_id is None


def test_the_owner_reads_the_messages_of_pledges_that_count_by_public_names(app: Flask) -> None:
    case = a_case()
    slug, client = case.slug, logged_in(app, case.owner)
    assert "There is no message yet." in said(read(client, f"/owner/cases/{slug}/messages"))
    for number in range(31):
        with_message(slug, f"Words {number} https://example.org", False, email=f"kanarie{number}@example.org")
    with_message(slug, "Hidden <b>words</b>", True, name="Kanarie Name", shown_as="hidden")
    with_message(slug, "Kanarie never counted", False, counts=False)
    Pledge.hold(with_message(slug, "Kanarie taken back", False).id).cancel(now())
    keep()
    page = read(client, f"/owner/cases/{slug}/messages")
    rows = [said(row, "div") for row in page.select(".comment")]
    assert (len(rows), rows[:2]) == (30, ["Hidden <b>words</b>", "Words 30 https://example.org"])
    assert said(page, ".who").startswith("Anonymous ")
    assert not page.select(".comment a")
    assert said(page, ".hint") == "For everyone, once a moderator has approved it. It is not public."
    comment = pledges_of(slug)[-3].comment
    assert comment is not None
    comment.approve(a_user("moderator"), now())
    keep()
    assert said(read(client, f"/owner/cases/{slug}/messages"), ".hint") == "For everyone: it is public."
    (older,) = page.select("main a[href*=before]")
    page = read(client, str(older["href"]))
    assert [said(row, "div") for row in page.select(".comment")] == [
        "Words 1 https://example.org", "Words 0 https://example.org",
    ]  # fmt: skip
    assert "kanarie" not in client.get(f"/owner/cases/{slug}/messages").text.casefold()


# Where the owner reads messages.
OF_THE_OWNER = ("owners.messages", "owners.case", "owners.pledges")


def test_a_message_to_the_owner_is_seen_by_nobody_else(
    app: Flask, client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(app)
    typed = {**TYPED, "form_key": secrets.token_urlsafe(24), "message": "Kanarie words"}
    assert client.post("/cases/the-case/pledges", data=typed).status_code == 303
    pledge = Pledge.hold(pledges_of("the-case")[-1].id)
    pledge.card_page_made(pledge.session_key, "cs_test_kanarie", None)
    mine = confirm(pledge).link()
    keep()
    browsers = {who: logged_in(app, getattr(site, who)) for who in ("moderator", "staff", "owner")}
    for rule, method in site.rules():
        who = doors.POLICIES[rule.endpoint.partition(".")[0]]
        if method == "GET" and rule.endpoint not in ("static", *OF_THE_OWNER):
            for headers in ({}, {"HX-Request": "true"}):
                answer = site.ask(browsers.get(who, client), rule, "GET", headers)
                assert "kanarie" not in words_of(answer).casefold(), rule
    assert "Kanarie words" in browsers["owner"].get("/owner/cases/the-case/messages").text
    assert "Kanarie words" in client.get(f"/pledges/{mine}").text
    told = capsys.readouterr()
    assert "kanarie" not in (told.out + told.err).casefold()
