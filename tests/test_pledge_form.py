"""The pledge form, as it is read and sent without any script."""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

import config
import law
from tests.made import a_case, a_pledge, keep, now, pledges_of
from tests.reading import read, said
from tests.sandbox_process import start_sandbox

KEY = "one-time-key-for-the-tests"
TYPED = {"amount": "25", "name": "Ada Winter", "email": "ada@example.org", "agreed": "y", "form_key": KEY}


AGREEMENT = (
    "I allow Standing Test to charge my card the amount chosen above once, after Saturday 9 October 2100, 2:00am BST, "
    "only if pledges for “Whose data?” reach £6,000 by then. If my bank refuses, it may be tried again for up to 7 "
    "days. I can cancel free of charge until Saturday 9 October 2100, 2:00am BST."
)


@pytest.fixture
def stripe(app: Flask, tmp_path: Path) -> Iterator[str]:
    """The application talks to a sandbox of its own."""
    sandbox = start_sandbox(tmp_path)
    app.config["STANDING"] = config.current().model_copy(update={"stripe_api_base": sandbox.url})
    yield sandbox.url
    sandbox.stop()


def test_a_pledge_remembers_the_language_of_the_page_on_which_it_was_made(stripe: str, client: FlaskClient) -> None:
    for place, language in (("/fr", "fr"), ("", "en-GB")):
        case = a_case()
        sent = client.post(f"{place}/cases/{case.slug}/pledges", data={**TYPED, "form_key": f"{KEY}-{language}"})
        assert (sent.status_code, [one.language for one in pledges_of(case.slug)]) == (303, [language])


# --- The form ----------------------------------------------------------------------------------------------


def test_the_form_asks_for_what_a_pledge_needs_and_says_what_will_happen(client: FlaskClient) -> None:
    case = a_case(title="Whose data?", target=600_000)
    case.round.move_deadline(dt.datetime(2100, 10, 9, 1, 0, tzinfo=dt.UTC), "test", now())
    keep()
    page = read(client, f"/cases/{case.slug}/pledge")
    assert [said(label) for label in page.select("form label:not([for=website])")] == [
        "£10", "£25", "£50", "£100", "Another amount", "Another amount, in pounds", "Your name",
        "With my name", "With my first name; the case owner sees my whole name",
        "As “Anonymous”; the case owner sees my name", "As “Anonymous”, to the case owner too",
        "Your e-mail address", "Keep me updated about this case by e-mail",
        "A message, if you like", "Show my message on the case page too", AGREEMENT,
    ]  # fmt: skip
    helped = {str(field["name"]): (field.get("autocomplete"), field.get("inputmode"))
              for field in page.select("input[type=text]:not([name=website]), input[type=email]")}  # fmt: skip
    assert helped == {
        "other_amount": ("transaction-amount", "decimal"), "name": ("name", None), "email": ("email", None),
    }  # fmt: skip
    assert [field["id"] for field in page.select("[checked]")] == ["shown_as-2"]
    assert not page.select("form [data-hx-post], form[data-hx-post], form[data-hx-boost]")
    assert "You enter your card on Stripe's own page." in said(page)
    promise = (
        "Your card is charged only if pledges reach £6,000 by Saturday 9 October 2100, 2:00am BST. "
        "If they do not, you pay nothing. You can cancel until then."
    )
    assert said(page, "form .promise") == promise
    assert "Little time is left" not in said(page)


def test_each_form_has_a_key_of_its_own_and_is_kept_by_no_cache(client: FlaskClient) -> None:
    address = f"/cases/{a_case().slug}/pledge"
    keys = {str(read(client, address).select("[name=form_key]")[0]["value"]) for _ in range(3)}
    assert len(keys) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", key) for key in keys)
    answer = client.get(address)
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(("asked", "chosen"), [("25", ["25"]), ("100", ["100"]), ("26", []), ("-1", []), ("<b>", [])])
def test_an_amount_in_the_address_is_chosen_when_the_form_offers_it(
    client: FlaskClient, asked: str, chosen: list[str]
) -> None:
    page = read(client, f"/cases/{a_case().slug}/pledge?amount={asked}")
    assert [found["value"] for found in page.select("[name=amount][checked]")] == chosen


@pytest.mark.parametrize(("minutes", "warned"), [(29, True), (32, False)])
def test_in_the_last_half_hour_the_form_says_until_when_the_card_must_be_saved(
    client: FlaskClient, minutes: int, warned: bool
) -> None:
    case = a_case(ends_in=dt.timedelta(minutes=minutes))
    until = law.instant_words(case.round.deadline, "Europe/London")
    words = f"your card must be saved on Stripe's page by {until}, or the pledge does not count."
    pledge = a_pledge(case.round)
    keep()
    for address in (f"/cases/{case.slug}/pledge", f"/pledges/{pledge.link()}"):
        assert (words in said(read(client, address))) is warned


@pytest.mark.parametrize(
    ("typed", "pence"),
    [
        ({"amount": "25"}, 2_500),
        ({"amount": "other", "other_amount": "£25"}, 2_500),
        ({"amount": "", "other_amount": "25.00"}, 2_500),
        ({"amount": "other", "other_amount": " 25 "}, 2_500),
        ({"amount": "other", "other_amount": "1,000"}, 100_000),
        ({"amount": "other", "other_amount": "19.99"}, 1_999),
        ({"amount": "25", "other_amount": "25"}, 2_500),
    ],
)
def test_amounts_are_understood_as_people_type_them(
    stripe: str, client: FlaskClient, typed: dict[str, str], pence: int
) -> None:
    case = a_case()
    sent = client.post(f"/cases/{case.slug}/pledges", data={**TYPED, **typed})
    assert sent.status_code == 303
    assert sent.location.startswith(f"{stripe}/")
    made = pledges_of(case.slug)
    assert [(p.amount_pence, p.agreement_pence, p.status) for p in made] == [(pence, pence, "started")]


def test_the_same_form_sent_again_is_the_same_pledge_on_the_same_card_page(stripe: str, client: FlaskClient) -> None:
    case = a_case()
    choices = {"shown_as": "first_name", "wants_updates": "y"}
    places = {client.post(f"/cases/{case.slug}/pledges", data={**TYPED, **choices}).location for _ in range(3)}
    assert len(places) == 1
    (made,) = pledges_of(case.slug)
    assert (made.name, made.email, made.shown_as, made.wants_updates) == (
        "Ada Winter", "ada@example.org", "first_name", True,
    )  # fmt: skip


def test_while_stripe_is_away_the_pledge_waits_on_its_private_page(client: FlaskClient) -> None:
    case = a_case()
    sent = client.post(f"/cases/{case.slug}/pledges", data=TYPED)
    (made,) = pledges_of(case.slug)
    assert sent.location == f"/pledges/{made.link()}?stripe=away"
    page = read(client, sent.location)
    assert "Stripe could not be reached just now. Nothing is lost: please try again in a moment." in said(page)
    assert "Your pledge does not count yet: no card was saved." in said(page)


def test_a_mistake_keeps_all_that_was_typed_with_a_summary_first(client: FlaskClient) -> None:
    slug = a_case().slug
    typed = {"amount": "other", "other_amount": "4.99", "name": " Ada <b> ", "email": "ada at home",
             "shown_as": "hidden", "wants_updates": "y", "message": "Go on!\n<b>", "message_public": "y",
             "form_key": KEY}  # fmt: skip
    page = read(client, f"/cases/{slug}/pledges", status=422, method="POST", data=typed)
    assert page.title and page.title.text.startswith("Error: Pledge for ")
    assert [(link["href"], link.text) for link in page.select("main > .errors:first-child a")] == [
        ("#other_amount", "A pledge is at least £5 and at most £10,000."),
        ("#email", "Enter an e-mail address in the form name@example.com."),
        ("#agreed", "Tick the box to allow the charge, or do not pledge."),
    ]
    for link in page.select(".errors a"):
        field = page.select_one(str(link["href"]))
        assert field and field["aria-invalid"] == "true"
    ours = "[type=radio], [name=agreed], [name=website], [name=opened]"
    kept = {str(field["name"]): field["value"] for field in page.select(f"form input:not({ours})")}
    assert kept == {"form_key": KEY, "promise": "", "other_amount": "4.99", "name": "Ada <b>", "email": "ada at home",
                    "wants_updates": "y", "message_public": "y"}  # fmt: skip
    assert [typed.text for typed in page.select("textarea")] == ["Go on!\n<b>"]
    ticked = [str(field["id"]) for field in page.select("[checked]")]
    assert ticked == ["amount-other", "shown_as-3", "wants_updates", "message_public"]
    assert pledges_of(slug) == []


@pytest.mark.parametrize("typed", [TYPED, {}], ids=["well filled", "empty"])
def test_a_case_that_has_ended_takes_no_pledge_however_the_form_was_filled(
    client: FlaskClient, typed: dict[str, str]
) -> None:
    case = a_case()
    case.round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())
    keep()
    page = read(client, f"/cases/{case.slug}/pledge", status=409)
    assert said(page, "h1") == "This case takes no more pledges"
    assert "Its deadline was " in said(page, "main")
    sent = client.post(f"/cases/{case.slug}/pledges", data=typed)
    assert sent.status_code == 409
    assert "takes no more pledges" in sent.text
    assert pledges_of(case.slug) == []
