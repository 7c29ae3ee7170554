"""The case owner's desk: own cases and nobody else's, pledges by public names, updates posted once."""

import datetime as dt
import secrets
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import letters
from models import Case, Event, Letter, Update, User, begin_writing, db
from tests.made import PASSWORD, a_case, a_pledge, a_user, confirm, keep, look_anew, now
from tests.mailbox import text_of
from tests.reading import read, said, token

NEWS = {"title": "We wrote to the department", "body": "## The letter\n\nIt went out *today*."}


def logged_in(app: Flask, person: User) -> FlaskClient:
    client = app.test_client()
    client.post("/login", data={"email": person.email, "password": PASSWORD})
    return client


def updates() -> list[Update]:
    look_anew()
    return list(db.session.scalars(sa.select(Update).order_by(Update.id)))


def letters_owed() -> list[Letter]:
    look_anew()
    return list(db.session.scalars(sa.select(Letter).where(Letter.kind == "update").order_by(Letter.id)))


def send(client: FlaskClient, address: str, gets: int = 303, **typed: Any) -> Any:
    """Send an update's form with the token of the desk."""
    answer = client.post(address, data={**NEWS, "form_token": token(client, "/owner"), **typed})
    assert answer.status_code == gets, answer.text
    return answer


def publish(client: FlaskClient, address: str, **typed: Any) -> Any:
    """Write an update, look at it, and publish it; `address` is that of all updates."""
    draft = {"form_key": secrets.token_urlsafe(24), "audience": "everyone", "then": "look", **typed}
    looks_at = send(client, address, **draft).location
    (version,) = {str(field["value"]) for field in read(client, looks_at).select("[name=version]")}
    return send(client, looks_at.replace("/look", "/publication"), version=version)


# --- The desk ----------------------------------------------------------------------------------------------


def test_an_owner_lands_at_a_desk_with_the_total_and_the_days_left(app: Flask) -> None:
    owner = a_user()
    a_case(title="Theirs", pledged=[100_000])
    a_case(title="Whose data?", target=600_000, pledged=[9_500], owner=owner)
    client = app.test_client()
    entered = client.post("/login", data={"email": owner.email, "password": PASSWORD})
    assert entered.location == "/owner"
    cards = read(client, "/owner").select(".card")
    assert len(cards) == 1
    assert said(cards[0]).startswith(
        "Whose data? £95 pledged of £6,000 target from 1 pledge £95 of £6,000 7 days to go"
    )


def test_a_desk_without_a_case_offers_to_begin_one(app: Flask) -> None:
    page = read(logged_in(app, a_user()), "/owner")
    assert "You have no case yet." in said(page, "main")
    assert [(link.text, link["href"]) for link in page.select("main a.button")] == [
        ("Begin a case", "/owner/cases/new")
    ]


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ("draft", "Not live yet."),
        ("open", "The deadline has passed, and the pledges are being settled."),
        ("closing", "The deadline has passed, and the pledges are being settled."),
        ("funded", "Funded."),
        ("cancelled", "Cancelled."),
    ],
)
def test_the_desk_says_what_a_case_is_at(app: Flask, then: str, words: str) -> None:
    owner = a_user()
    case = a_case(target=9_500, pledged=[9_500], owner=owner) if then != "draft" else _a_draft(owner)
    if then == "cancelled":
        case.cancel("No more.", "operator", now())
    elif then != "draft":
        case.round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())
    if then in ("closing", "funded"):
        case.round.close(now())
    if then == "funded":
        case.round.settle(now())
    keep()
    client = logged_in(app, owner)
    assert said(read(client, "/owner"), ".left") == words
    assert said(read(client, f"/owner/cases/{case.slug}"), ".left") == words


def test_a_draft_has_a_page_for_its_owner_but_no_public_page_and_no_updates(app: Flask) -> None:
    owner = a_user()
    case = _a_draft(owner)
    client = logged_in(app, owner)
    page = read(client, f"/owner/cases/{case.slug}")
    assert not page.select(f"a[href^='/cases/{case.slug}'], a.button")
    assert client.get(f"/owner/cases/{case.slug}/updates/new").location == f"/owner/cases/{case.slug}"
    key = secrets.token_urlsafe(24)
    refused = send(client, f"/owner/cases/{case.slug}/updates", gets=409, form_key=key, audience="everyone")
    assert "This case is not live yet. Updates can be posted once it is." in refused.text
    assert updates() == []


def _a_draft(owner: User) -> Case:
    begin_writing()
    case = Case.draft(db.session.merge(owner), "a-draft", "A draft", "In short.", "A story.", "", now())
    keep()
    return case


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_case_of_another_owner_does_not_exist(app: Flask, method: str) -> None:
    owner, theirs = a_user(), a_case(title="Theirs")
    mine = a_case(owner=owner)
    update = theirs.publish_update(theirs.owner, "Their news", "Their words", now())
    keep()
    client, own = logged_in(app, owner), mine.slug
    ends = ["", "/updates/new", f"/updates/{update.id}"] if method == "GET" else ["/updates", f"/updates/{update.id}"]
    for slug, end in [(theirs.slug, end) for end in ends] + [(own, f"/updates/{update.id}")]:
        address = f"/owner/cases/{slug}{end}"
        form = {**NEWS, "form_token": token(client, "/owner")}
        answer = client.open(address, method=method, data=form if method == "POST" else None)
        assert answer.status_code == 404, address
        assert "Their" not in answer.text
    assert [(u.title, u.body, u.edited_at) for u in updates()] == [("Their news", "Their words", None)]


def test_an_owner_sees_each_pledge_that_counted_by_its_public_name_only(app: Flask) -> None:
    owner = a_user()
    case = a_case(target=600_000, owner=owner)
    confirm(a_pledge(case.round, 2_500, name="Ada Winter", email="canary@ada.example"))
    confirm(a_pledge(case.round, 5_050, name="Canary Hidden", email="canary@hidden.example", shown_as="hidden"))
    a_pledge(case.round, 1_000, name="Canary Started", email="canary@started.example")
    confirm(a_pledge(case.round, 2_000, name="Canary Cancelled", email="canary@gone.example")).cancel(now())
    keep()
    client, address = logged_in(app, owner), f"/owner/cases/{case.slug}"
    shown = [("Anonymous", "£50.50"), ("Ada Winter", "£25")]
    assert _rows(client, address) == shown
    assert "canary" not in client.get(address).text.casefold()
    # A missed round forgets nobody.
    case.round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())
    case.round.pledges("started")[0].abandon(now())
    case.round.close(now())
    case.round.settle(now())
    keep()
    assert _rows(client, address) == shown
    assert "canary" not in client.get(address).text.casefold()


def _rows(client: FlaskClient, address: str) -> list[tuple[str, str]]:
    rows = read(client, address).select(".rows tbody tr")
    return [(said(row, "td:nth-of-type(1)"), said(row, "td:nth-of-type(2)")) for row in rows]


# --- Updates -----------------------------------------------------------------------------------------------


def test_the_form_explains_markdown_in_three_lines(app: Flask) -> None:
    owner = a_user()
    slug = a_case(owner=owner).slug
    hint = read(logged_in(app, owner), f"/owner/cases/{slug}/updates/new").select_one("#body-hint")
    assert hint and [line.strip() for line in hint.decode_contents().split("<br/>")] == [
        "Markdown: an empty line begins a paragraph.",
        "**Bold**, *italic*, [a link](https://example.org).",
        "A line that begins with ## is a heading, lines that begin with - are a list.",
    ]


def test_a_look_at_it_before_it_goes_out_publishes_nothing(app: Flask) -> None:
    owner = a_user()
    case = a_case(owner=owner)
    client, address = logged_in(app, owner), f"/owner/cases/{case.slug}/updates"
    form: dict[str, Any] = {"form_key": secrets.token_urlsafe(24), "audience": "everyone", "then": "look"}
    page = read(client, send(client, address, **form).location)
    assert said(page, ".preview .update") == "We wrote to the department The letter It went out today."
    assert page.select_one(".preview .update h4") and page.select_one(".preview .update em")
    page = read(client, f"{address}/{updates()[0].id}")
    assert [typed["value"] for typed in page.select("#title")] == [NEWS["title"]]
    assert [typed.text.strip() for typed in page.select("#body")] == [NEWS["body"]]
    assert [update.status for update in updates()] == ["draft"]
    assert letters_owed() == []
    assert NEWS["title"] not in client.get(f"/cases/{case.slug}").text


def test_the_button_counts_the_people_who_will_get_a_letter_and_they_get_one_each(app: Flask) -> None:
    owner = a_user()
    case = a_case(owner=owner)
    address = f"/owner/cases/{case.slug}/updates"
    client = logged_in(app, owner)
    form: dict[str, Any] = {"form_key": secrets.token_urlsafe(24), "audience": "everyone", "then": "look"}
    look = send(client, address, **form).location
    assert _buttons(client, look) == ["Publish", "Publish at this time"]
    confirm(a_pledge(case.round, email="ada@example.org", wants_updates=True))
    confirm(a_pledge(case.round, email="Ada@Example.org", wants_updates=True))
    keep()
    assert _buttons(client, look) == ["Publish and send to 1 supporter", "Publish at this time"]
    confirm(a_pledge(case.round, email="ben@example.org", wants_updates=True))
    confirm(a_pledge(case.round, email="cy@example.org"))
    confirm(a_pledge(case.round, email="dee@example.org", wants_updates=True)).cancel(now())
    a_pledge(case.round, email="eve@example.org", wants_updates=True)
    keep()
    assert _buttons(client, look) == ["Publish and send to 2 supporters", "Publish at this time"]
    send(client, look.replace("/look", "/publication"), version="1")
    written = [letters.write(letter) for letter in letters_owed()]
    assert sorted(str(message["To"]).casefold() for message in written) == [
        "ada winter <ada@example.org>", "ada winter <ben@example.org>",
    ]  # fmt: skip
    for message in written:
        assert "/unsubscription" in text_of(message)
        assert "/unsubscription" in message["List-Unsubscribe"]


def _buttons(client: FlaskClient, address: str) -> list[str]:
    return [said(button) for button in read(client, address).select("main button")]


def test_a_card_that_came_too_late_brings_no_updates(app: Flask) -> None:
    case = a_case(ends_in=dt.timedelta(hours=1))
    late = confirm(a_pledge(case.round, wants_updates=True), saved_at=now() + dt.timedelta(hours=2))
    assert late.status == "released"
    assert case.update_readers() == []


def test_the_same_form_sent_twice_is_one_update_and_one_letter_each(app: Flask) -> None:
    owner = a_user()
    case = a_case(owner=owner)
    confirm(a_pledge(case.round, wants_updates=True))
    keep()
    client, address = logged_in(app, owner), f"/owner/cases/{case.slug}/updates"
    form: dict[str, Any] = {
        "form_key": secrets.token_urlsafe(24), "audience": "everyone", "then": "look", "page": "one page",
    }  # fmt: skip
    looks = {send(client, address, **form).location for _ in range(3)}
    number = updates()[0].id
    assert looks == {f"{address}/{number}/look"}
    places = [send(client, f"{address}/{number}/publication", version="1").location for _ in range(3)]
    assert len(updates()) == len(letters_owed()) == 1
    assert set(places) == {f"/cases/{case.slug}#update-{number}"}
    assert said(read(client, places[0]), ".notice") == "Your update is published."
    # What was typed stays, though the form is of no use any more.
    page = read(client, address, 409, method="POST",
                data={**NEWS, **form, "body": "Other words", "form_token": token(client, "/owner")})  # fmt: skip
    assert "This update is published by now." in said(page, ".errors")
    assert [typed.text.strip() for typed in page.select("#body")] == ["Other words"]
    assert updates()[0].body == NEWS["body"]
    publish(client, address, body="Other words")
    assert len(updates()) == len(letters_owed()) == 2


def test_an_edit_is_marked_and_mailed_to_nobody_and_an_unchanged_one_leaves_no_mark(app: Flask) -> None:
    owner = a_user()
    case = a_case(owner=owner)
    confirm(a_pledge(case.round, wants_updates=True))
    keep()
    client = logged_in(app, owner)
    publish(client, f"/owner/cases/{case.slug}/updates")
    number = updates()[0].id
    address = f"/owner/cases/{case.slug}/updates/{number}"
    page = read(client, address)
    assert [typed["value"] for typed in page.select("#title")] == [NEWS["title"]]
    send(client, address, body=NEWS["body"].replace("\n", "\r\n"))
    assert updates()[0].edited_at is None
    assert "edited" not in said(read(client, f"/cases/{case.slug}"), ".update")
    send(client, address, gets=200, body="Mended", preview="1")
    assert updates()[0].body == NEWS["body"]
    send(client, address, body="Mended words")
    assert "· edited" in said(read(client, f"/cases/{case.slug}"), ".update")
    assert "Mended words" in said(read(client, f"/cases/{case.slug}"), ".update")
    assert len(letters_owed()) == 1
    written = db.session.scalars(sa.select(Event).where(Event.subject_kind == "update").order_by(Event.id)).all()
    assert [(e.what, e.who) for e in written] == [("published", f"user:{owner.id}"), ("edited", f"user:{owner.id}")]


def test_fields_that_the_form_does_not_have_change_nothing(app: Flask) -> None:
    owner, other = a_user(), a_user()
    case, theirs = a_case(owner=owner), a_case(owner=other)
    client = logged_in(app, owner)
    extra: dict[str, Any] = {
        "author_id": other.id, "case_id": theirs.id, "status": "draft", "published_at": "2022-01-01",
        "slug": theirs.slug, "owner_id": other.id, "target_pence": "1", "id": "99",
    }  # fmt: skip
    publish(client, f"/owner/cases/{case.slug}/updates", **extra)
    number = updates()[0].id
    send(client, f"/owner/cases/{case.slug}/updates/{number}", **{**extra, "body": "Mended"})
    found = [(u.id, u.author_id, u.case_id, u.status, u.body) for u in updates()]
    assert found == [(number, owner.id, case.id, "published", "Mended")]
    assert (case.owner_id, case.status, case.round.target_pence) == (owner.id, "live", 600_000)


def test_an_update_without_words_comes_back_with_a_summary_and_the_rest_is_kept(app: Flask) -> None:
    owner = a_user()
    client, slug = logged_in(app, owner), a_case(owner=owner).slug
    form = {"title": " ", "body": "Half a thought", "form_token": token(client, "/owner"), "then": "look",
            "form_key": secrets.token_urlsafe(24), "audience": "everyone"}  # fmt: skip
    page = read(client, f"/owner/cases/{slug}/updates", status=422, method="POST", data=form)
    assert page.title and page.title.text.startswith("Error: Post an update")
    assert [(a["href"], a.text) for a in page.select("main > .errors:first-child a")] == [("#title", "Enter a title.")]
    assert [typed.text.strip() for typed in page.select("#body")] == ["Half a thought"]
    assert [(update.title, update.body, update.status) for update in updates()] == [("", "Half a thought", "draft")]
