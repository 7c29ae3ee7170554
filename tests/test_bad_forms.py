"""What people type: each mistake is said in plain words, what was typed is still there, and nothing was changed."""

import re
from typing import Any

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from models import Editor, begin_writing, db
from tests.doorway import Site, everything, logged_in, token_on
from tests.made import a_case, a_user, keep, now
from tests.reading import read, said

KEY = "k" * 32
TERMS = {
    "amount": "other", "other_amount": "25", "name": "Ada Winter", "email": "ada@example.org", "agreed": "y",
    "form_key": KEY, "message": "", "promise": "", "shown_as": "name",
}  # fmt: skip
WORDS = {"name": "Ada Winter", "email": "ada@example.org", "body": "Good luck with your case."}
TOO_LONG = "n" * 10_000
TAKEN_OUT = "This contained characters that cannot be shown. They were taken out"


def values(answer: TestResponse) -> dict[str, str]:
    """What the fields of the page hold: name -> words, ticked boxes and chosen buttons as their value. Without the trap
    and the moment of a pledge form, into which nobody types: see test_by_hand.py."""
    found = {}
    typed_into = "main input:not([name=website], [name=opened]), main textarea"
    for field in BeautifulSoup(answer.text, "html5lib").select(typed_into):
        if field.get("type") not in ("checkbox", "radio") or field.has_attr("checked"):
            typed = field.text.removeprefix("\n") if field.name == "textarea" else field.get("value", "")
            found[str(field["name"])] = str(typed)
    return found


def summary(answer: TestResponse) -> list[tuple[str, str]]:
    """The mistakes listed at the top: (field, words)."""
    links = BeautifulSoup(answer.text, "html5lib").select(".errors a")
    return [(str(link["href"])[1:], link.text) for link in links]


# --- The pledge form ---------------------------------------------------------------------------------------

NO_AMOUNT = "Choose an amount, or type one of your own."
NOT_AN_AMOUNT = "Enter an amount in pounds, like 25 or 25.50."
OUT_OF_BOUNDS = "A pledge is at least £5 and at most £10,000."


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", NO_AMOUNT), ("   ", NO_AMOUNT), ("0", OUT_OF_BOUNDS), ("4.99", OUT_OF_BOUNDS), ("10000.01", OUT_OF_BOUNDS),
        ("10,000.01", OUT_OF_BOUNDS), ("999999999", OUT_OF_BOUNDS), ("-5", NOT_AN_AMOUNT), ("1e9", NOT_AN_AMOUNT),
        ("NaN", NOT_AN_AMOUNT), ("Infinity", NOT_AN_AMOUNT), ("25.005", NOT_AN_AMOUNT), ("25,50", NOT_AN_AMOUNT),
        ("1,00", NOT_AN_AMOUNT), ("£", NOT_AN_AMOUNT), ("$25", NOT_AN_AMOUNT), ("25 pounds", NOT_AN_AMOUNT),
        ("0x19", NOT_AN_AMOUNT), ("2_5", NOT_AN_AMOUNT), ("💷", NOT_AN_AMOUNT), ("٢٥", NOT_AN_AMOUNT),
        ("２５", NOT_AN_AMOUNT), ("9" * 10_000, NOT_AN_AMOUNT), ("<b>25</b>", NOT_AN_AMOUNT),
        ('"><script>', NOT_AN_AMOUNT),
    ],
)  # fmt: skip
def test_an_amount_that_cannot_be_pledged_is_given_back_with_its_reason(
    client: FlaskClient, typed: str, words: str
) -> None:
    a_case(slug="the-case")
    before = everything()
    answer = client.post("/cases/the-case/pledges", data={**TERMS, "other_amount": typed})
    assert answer.status_code == 422
    assert summary(answer) == [("other_amount", words)]
    assert values(answer) == {**TERMS, "other_amount": typed.strip()}
    assert everything() == before


@pytest.mark.parametrize("typed", ["5", "£25", "25.00", " 25 ", "1,000", "10000", "10,000.00", "£ 25.5"])
def test_an_amount_as_people_write_it_is_taken(client: FlaskClient, typed: str) -> None:
    a_case(slug="the-case")
    assert client.post("/cases/the-case/pledges", data={**TERMS, "other_amount": typed}).status_code == 303


def test_two_amounts_that_contradict_each_other_are_not_guessed_at(client: FlaskClient) -> None:
    a_case(slug="the-case")
    answer = client.post("/cases/the-case/pledges", data={**TERMS, "amount": "50"})
    assert summary(answer) == [("other_amount", "You chose £50 and typed 25. Choose one of the two.")]
    assert values(answer) == {**TERMS, "amount": "50"}


@pytest.mark.parametrize(
    ("field", "typed", "words", "given_back"),
    [
        ("name", "", "Enter your name.", ""),
        ("name", " \t ", "Enter your name.", ""),
        ("name", TOO_LONG, "Use at most 120 characters.", TOO_LONG),
        ("name", "A\x00da", TAKEN_OUT, "Ada"),
        ("name", "Ada\r\nBcc: everybody@example.org", TAKEN_OUT, "AdaBcc: everybody@example.org"),
        ("name", "Ada\x1b[31m\x7f\x9f", TAKEN_OUT, "Ada[31m"),
        ("name", "Ada \ufffd", TAKEN_OUT, "Ada "),
        ("name", "\x01\x02", TAKEN_OUT, ""),
        ("email", "", "Enter your e-mail address.", ""),
        ("email", "ada", "Enter an e-mail address in the form name@example.com.", "ada"),
        ("email", "a@b@c.org", "Enter an e-mail address in the form name@example.com.", "a@b@c.org"),
        ("email", "ada@example.org, eve@example.org", "Enter an e-mail address in the form name@example.com.",
         "ada@example.org, eve@example.org"),
        ("email", "ada\n@example.org", TAKEN_OUT, "ada@example.org"),
        ("email", "a" * 10_000 + "@example.org", "This address is too long.", "a" * 10_000 + "@example.org"),
        ("other_amount", "2\x005", TAKEN_OUT, "25"),
        ("form_key", "", "This form was incomplete. Please send it again.", None),
        ("form_key", "short", "This form was incomplete. Please send it again.", None),
        ("form_key", "k" * 65, "This form was incomplete. Please send it again.", None),
        ("form_key", "k" * 31 + "\x00", "This form was incomplete. Please send it again.", None),
        ("form_key", "' OR 1=1 --------------------", "This form was incomplete. Please send it again.", None),
    ],
)  # fmt: skip
def test_a_mistake_in_a_pledge_is_said_and_everything_else_is_still_there(
    client: FlaskClient, field: str, typed: str, words: str, given_back: str | None
) -> None:
    a_case(slug="the-case")
    before = everything()
    answer = client.post("/cases/the-case/pledges", data={**TERMS, field: typed, "wants_updates": "y"})
    assert answer.status_code == 422
    ((where, said),) = summary(answer)
    assert where == field and said.startswith(words)
    shown = values(answer)
    if given_back is None:
        # A form that has lost its key gets a new one, and can be sent again as it is.
        assert re.fullmatch(r"[A-Za-z0-9_-]{32}", shown["form_key"]) and shown["form_key"] != KEY
    assert shown == {**TERMS, "wants_updates": "y", field: shown[field] if given_back is None else given_back}
    assert everything() == before


def test_a_pledge_without_the_agreement_is_no_pledge(client: FlaskClient) -> None:
    a_case(slug="the-case")
    before = everything()
    for unticked in ({}, {"agreed": ""}, {"agreed": "false"}):
        answer = client.post("/cases/the-case/pledges", data={**TERMS, "agreed": None, **unticked})
        assert answer.status_code == 422
        assert summary(answer) == [("agreed", "Tick the box to allow the charge, or do not pledge.")]
    assert everything() == before


@pytest.mark.parametrize(
    "sent",
    [
        {}, {"amount": ["10", "25"]}, {"name[]": "Ada", "email[0]": "ada@example.org"}, {"Name": "Ada", "AMOUNT": "25"},
        {"status": "confirmed", "amount_pence": "1", "pence": "1", "round_id": "1"},
    ],
)  # fmt: skip
def test_a_form_with_missing_or_odd_fields_names_every_field_that_is_missing(
    client: FlaskClient, sent: dict[str, Any]
) -> None:
    a_case(slug="the-case")
    answer = client.post("/cases/the-case/pledges", data=sent)
    assert answer.status_code == 422
    assert {"name", "email", "agreed", "form_key"} <= {field for field, _ in summary(answer)}


def test_the_form_of_one_case_makes_no_pledge_for_another(client: FlaskClient) -> None:
    a_case(slug="the-case")
    a_case(slug="another-case")
    assert client.post("/cases/the-case/pledges", data=TERMS).status_code == 303
    before = everything()
    answer = client.post("/cases/another-case/pledges", data={**TERMS, "other_amount": "5000"})
    assert answer.status_code == 409 and "This form belongs to another case." in answer.text
    assert everything() == before


def test_the_books_decide_who_owns_a_pledge_not_the_fields_that_were_sent(client: FlaskClient) -> None:
    case = a_case(slug="the-case", target=600_000)
    sent = {**TERMS, "status": "confirmed", "amount_pence": "1", "target_pence": "1", "round_id": "99", "id": "7"}
    assert client.post("/cases/the-case/pledges", data=sent).status_code == 303
    rows = everything()
    assert case.round.target_pence == 600_000 and len(rows["pledges"]) == 1
    assert "£0 pledged of £6,000 target" in " ".join(client.get("/cases/the-case").text.split()).replace(
        "<strong>£0</strong>", "£0"
    )


# --- The other forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "typed", "words", "given_back"),
    [
        ("body", "", "Enter your comment.", ""),
        ("body", "\r\n \r\n", "Enter your comment.", ""),
        ("body", "b" * 4_001, "Use at most 4,000 characters.", "b" * 4_001),
        ("body", "One.\r\nTwo.\x00\x0b", TAKEN_OUT, "One.\nTwo."),
        ("name", TOO_LONG, "Use at most 120 characters.", TOO_LONG),
        ("name", "Ada\n", None, None),
        ("email", "", "Enter your e-mail address. It is never shown.", ""),
        ("email", "ada@", "Enter an e-mail address in the form name@example.com.", "ada@"),
    ],
)
@pytest.mark.parametrize("htmx", [False, True])
def test_a_mistake_in_a_comment_is_said_and_the_comment_is_still_there(
    client: FlaskClient, field: str, typed: str, words: str | None, given_back: str, htmx: bool
) -> None:
    a_case(slug="the-case")
    before = everything()
    headers = {"HX-Request": "true"} if htmx else {}
    answer = client.post("/cases/the-case/comments", data={**WORDS, field: typed}, headers=headers)
    if words is None:
        assert answer.status_code in (200, 303)
        return
    assert answer.status_code == 422 and ("<html" in answer.text) != htmx
    ((where, said),) = summary(answer)
    assert where == field and said.startswith(words)
    typed_into = "form#comment-form input:not([name=website]), form#comment-form textarea"
    fields = BeautifulSoup(answer.text, "html5lib").select(typed_into)
    shown = {str(f["name"]): f.get("value", f.text.removeprefix("\n")) for f in fields}
    assert shown == {**WORDS, field: given_back}
    assert everything() == before


def test_who_may_not_or_comes_too_late_is_told_so_and_finds_what_was_typed(app: Flask, client: FlaskClient) -> None:
    """An editor may not cancel, whoever has left may nothing, and of two reports the second is not taken."""
    owner, editor = a_user("owner"), a_user("owner")
    case = a_case(slug="the-case", owner=owner, pledged=[9_500])
    begin_writing()
    db.session.add(Editor(case_id=case.id, user_id=editor.id, added_at=now()))
    keep()
    theirs, own = logged_in(app, db.session.merge(editor)), logged_in(app, db.session.merge(owner))
    words = "We have reached an agreement with the department.\n\nThank you all."
    report = {"body": words, "lines-0-words": "Counsel", "lines-0-amount": "25"}
    before = everything()

    def told(browser: FlaskClient, where: str, status: int, **typed: str) -> BeautifulSoup:
        typed |= {"form_token": token_on(browser, "/owner")}
        return read(browser, f"/owner/cases/the-case/{where}", status, method="POST", data=typed)

    page = told(theirs, "cancellation", 403, reason=words, sure="cancel")
    assert "Only the owner of this case can do that." in said(page, "[role=alert]")
    assert [field.text.strip() for field in page.select("textarea")] == [words, "cancel"]
    page = told(own, "report", 409, **report)
    assert "A final report says what became of the money." in said(page, "[role=alert]")
    assert [field.text.strip() for field in page.select("textarea")] == [words, "Counsel", "25"]
    assert everything() == before
    begin_writing()
    db.session.execute(sa.delete(Editor))
    keep()
    page = told(theirs, "updates", 404, title="News", body=words, form_key="k" * 24)
    assert [field.text.strip() for field in page.select("textarea")] == ["News", words]
    # Whoever is not logged in has typed nothing that a page of ours had asked for.
    assert not read(client, "/cases/nowhere/comments", 404, method="POST", data={"body": words}).select("textarea")


def test_a_published_update_or_a_reason_with_a_mistake_is_given_back(app: Flask) -> None:
    site = Site(app)
    owner, moderator = logged_in(app, site.owner), logged_in(app, site.moderator)
    token = token_on(owner, "/owner")
    before = everything()
    address = f"/owner/cases/the-case/updates/{site.values['update_id']}"
    for typed, field in (
        ({"title": "t" * 161, "body": "Words."}, "title"),
        ({"title": "News", "body": "b" * 20_001}, "body"),
        ({"title": "", "body": "Words."}, "title"),
    ):
        answer = owner.post(address, data={**typed, "audience": "everyone", "form_key": KEY, "form_token": token})
        assert answer.status_code == 422 and [name for name, _ in summary(answer)] == [field]
        assert {name: words for name, words in values(answer).items() if name in typed} == typed
    number = site.values["comment_id"]
    reasons = {"decision": "reject", f"c{number}-note": "n" * 1001, "form_token": token_on(moderator, "/moderation")}
    answer = moderator.post(f"/moderation/comments/{number}/decision", data=reasons)
    assert answer.status_code == 422 and "n" * 1001 in answer.text
    assert everything() == before
