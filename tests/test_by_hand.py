"""Row 44 of the checklist, beside the limits and the confirmed address of test_security_cards.py: the trap, the time
and the operator's question of the pledge form. Whoever is stopped has lost nothing, and goes on without a script."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import time_machine
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner
from playwright.sync_api import expect
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from tests.backup import typed_by_people
from tests.doorway import SAME_ORIGIN, set_otherwise
from tests.house import House
from tests.made import a_case, keep, look_anew, pledges_of
from tests.test_bad_forms import summary

if TYPE_CHECKING:
    from playwright.sync_api import Page

TYPED = {"amount": "25", "name": "Ada Winter", "email": "ada@example.org", "message": "With you.", "agreed": "y"}
THEN = dt.datetime(2100, 6, 1, 12, 0, tzinfo=dt.UTC)
A_DAY = 86_400
SOON = "This was sent within {} seconds after its page opened, as programs do. Check it, then send it again."
TOO_SOON = [("form_key", SOON.format(3))]
LATE = [("form_key", "This page was too old, or something of it was missing. Check it, then send it again.")]
QUESTION, ANSWERS = "Which day comes after Monday?", ("Tuesday", "l’autre", "2")
TAKEN_OUT = "This contained characters that cannot be shown. They were taken out: check it, then send it again."
WRONG = "This is not the answer that is expected here. Capital letters do not matter."


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(THEN, tick=False) as coordinates:
        yield coordinates


@pytest.fixture
def at_work(asks_the_sandbox: Flask) -> Flask:
    """The application as operators run it: it looks at the time. A case is at /cases/the-case."""
    settings = asks_the_sandbox.config["STANDING"]
    asks_the_sandbox.config["STANDING"] = settings.model_copy(update={"pledge_form_seconds": 3})
    return asks_the_sandbox


def opened(client: FlaskClient, slug: str = "the-case", place: str = "") -> dict[str, str]:
    """A page of the form that was just opened, with the terms typed into it."""
    return {**hidden(client.get(f"{place}/cases/{slug}/pledge")), **TYPED}


def hidden(page: TestResponse) -> dict[str, str]:
    fields = BeautifulSoup(page.text, "html5lib").select("form.stack input[type=hidden]")
    return {str(field["name"]): str(field["value"]) for field in fields}


def send(client: FlaskClient, form: dict[str, str], slug: str = "the-case", place: str = "") -> TestResponse:
    return client.post(f"{place}/cases/{slug}/pledges", data=form, headers=SAME_ORIGIN)


def keeps_what_was_typed(page: TestResponse) -> None:
    read = BeautifulSoup(page.text, "html5lib")
    assert [field["value"] for field in read.select("[name=amount][checked]")] == ["25"]
    assert {str(field["value"]) for field in read.select("#name, #email")} == {"Ada Winter", "ada@example.org"}
    assert read.select_one("#message").text.strip() == "With you." and read.select("#agreed[checked]")  # type: ignore[union-attr]


# --- The time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-31, LATE),
        (-5, TOO_SOON),
        (0, TOO_SOON),
        (2, TOO_SOON),
        (3, None),
        (3_600, None),
        (A_DAY, None),
        (A_DAY + 1, LATE),
    ],
)
def test_row_44_a_form_is_taken_from_three_seconds_to_a_day_after_its_page_was_made(
    at_work: Flask, client: FlaskClient, clock: time_machine.Traveller, seconds: int, told: object
) -> None:
    a_case(slug="the-case", ends_in=dt.timedelta(days=10))
    keep()
    form = opened(client)
    clock.shift(seconds)
    sent = send(client, form)
    look_anew()
    if told is None:
        assert (sent.status_code, len(pledges_of("the-case"))) == (303, 1)
        return
    assert (sent.status_code, summary(sent), pledges_of("the-case")) == (422, told, [])
    keeps_what_was_typed(sent)
    # The very page that says so is taken soon; three seconds after it where the clocks agree.
    clock.shift(3 - min(0, seconds))
    assert send(client, {**form, **hidden(sent)}).status_code == 303
    (made,) = pledges_of("the-case")
    assert made.form_key == form["form_key"]


def test_row_44_a_mistake_does_not_begin_the_three_seconds_anew(
    at_work: Flask, client: FlaskClient, clock: time_machine.Traveller
) -> None:
    a_case(slug="the-case", ends_in=dt.timedelta(days=10))
    keep()
    form = opened(client)
    clock.shift(2)
    wrong = send(client, {**form, "name": ""})
    # While something else is to be mended, nothing is said of the time.
    assert (wrong.status_code, summary(wrong)) == (422, [("name", "Enter your name.")])
    clock.shift(1)
    assert send(client, {**form, **hidden(wrong)}).status_code == 303


def of_another_form(client: FlaskClient, _form: dict[str, str]) -> str:
    return opened(client)["opened"]


def of_another_secret(_client: FlaskClient, form: dict[str, str]) -> str:
    signer = TimestampSigner("another secret of this many letters", salt="an open pledge form")
    return signer.sign(form["form_key"]).decode()


def of_another_moment(_client: FlaskClient, form: dict[str, str]) -> str:
    key, _, signature = form["opened"].rsplit(".", 2)
    return f"{key}.AAAAAA.{signature}"


FORGED = {
    "left out": lambda _client, _form: "", "the key alone": lambda _client, form: form["form_key"],
    "no signature": lambda _client, _form: "\u202e" * 500 + "\x00", "of another form": of_another_form,
    "of another secret": of_another_secret, "of another moment": of_another_moment,
}  # fmt: skip


@pytest.mark.parametrize("kind", FORGED)
def test_row_44_a_moment_that_we_have_not_signed_for_this_form_is_none(
    at_work: Flask, client: FlaskClient, clock: time_machine.Traveller, kind: str
) -> None:
    a_case(slug="the-case", ends_in=dt.timedelta(days=10))
    keep()
    form = opened(client)
    forged = {**form, "opened": FORGED[kind](client, form)}
    clock.shift(60)
    told = send(client, forged)
    assert (told.status_code, summary(told), pledges_of("the-case")) == (422, LATE, [])
    assert hidden(told)["opened"] not in (forged["opened"], form["opened"])
    clock.shift(3)
    assert send(client, {**forged, **hidden(told)}).status_code == 303


def test_row_44_a_page_that_was_signed_with_the_secret_of_before_is_still_taken(
    at_work: Flask, client: FlaskClient, clock: time_machine.Traveller
) -> None:
    a_case(slug="the-case", ends_in=dt.timedelta(days=10))
    keep()
    form, before = opened(client), at_work.config["SECRET_KEY"]
    clock.shift(60)
    for fallbacks, status in (((), 422), ((before,), 303)):
        with set_otherwise(at_work, secret_key="k" * 40, secret_key_fallbacks=fallbacks) as site:
            assert send(site.test_client(), form).status_code == status


def test_row_44_a_form_that_is_sent_again_after_days_leads_to_its_own_pledge(
    at_work: Flask, client: FlaskClient, clock: time_machine.Traveller
) -> None:
    a_case(slug="the-case", ends_in=dt.timedelta(days=10))
    keep()
    form = opened(client)
    clock.shift(60)
    assert send(client, form).status_code == 303
    clock.shift(3 * A_DAY)
    late = send(client, form)
    assert (late.status_code, summary(late)) == (422, LATE)
    clock.shift(60)
    assert send(client, {**form, **hidden(late)}).status_code == 303
    assert len(pledges_of("the-case")) == 1


# --- The trap ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "label", "error"), [
    ("", "Leave this empty", "Leave this field empty. Only programs fill it in."),
    ("/fr", "Laissez ce champ vide", "Laissez ce champ vide. Seuls des robots le remplissent."),
])  # fmt: skip
def test_row_44_the_trap_is_seen_by_nobody_until_it_was_filled_in(
    asks_the_sandbox: Flask, client: FlaskClient, place: str, label: str, error: str
) -> None:
    a_case(slug="the-case")
    keep()
    page = BeautifulSoup(client.get(f"{place}/cases/the-case/pledge").text, "html5lib")
    (trap,) = page.select("[name=website]")
    around = trap.parent
    assert around is not None and (around["class"], around["aria-hidden"]) == (["unseen"], "true")
    assert (trap["tabindex"], trap["autocomplete"], trap["value"]) == ("-1", "off", "")
    assert around.get_text(strip=True) == label

    form = {**opened(client, place=place), "website": "https://pills.example"}
    told = send(client, form, place=place)
    assert (told.status_code, summary(told), pledges_of("the-case")) == (422, [("website", error)], [])
    keeps_what_was_typed(told)
    (seen,) = BeautifulSoup(told.text, "html5lib").select("[name=website]")
    # A browser may have done it: whoever sends the page again as it is shown goes on.
    assert seen["value"] == "" and "tabindex" not in seen.attrs
    assert not seen.find_parent(attrs={"aria-hidden": True}) and not seen.find_parent(class_="unseen")
    twice = MultiDict([*form.items(), ("website", "x"), ("website", " ")])
    twice.setlist("website", ["", "spam"])
    assert client.post(f"{place}/cases/the-case/pledges", data=twice, headers=SAME_ORIGIN).status_code == 422
    assert send(client, {**form, "website": " "}, place=place).status_code == 303


# --- The question ------------------------------------------------------------------------------------------


@contextmanager
def asking(app: Flask) -> Iterator[FlaskClient]:
    with set_otherwise(app, pledge_question=QUESTION, pledge_answers=ANSWERS) as site:
        yield site.test_client()


def test_row_44_no_question_is_asked_unless_an_operator_asks_one(asks_the_sandbox: Flask, client: FlaskClient) -> None:
    a_case(slug="the-case")
    keep()
    assert 'name="answer"' not in client.get("/cases/the-case/pledge").text
    assert send(client, opened(client)).status_code == 303


def test_row_44_all_mistakes_are_told_in_the_order_of_the_page(asks_the_sandbox: Flask) -> None:
    a_case(slug="the-case")
    keep()
    with asking(asks_the_sandbox) as client:
        told = send(client, {"form_key": "short", "website": "x"})
    page = BeautifulSoup(told.text, "html5lib")
    named = [name for name, _ in summary(told)]
    assert named == ["other_amount", "name", "email", "agreed", "website", "answer", "form_key"]
    of_page = [str(field["id"]) for field in page.select("form.stack [id]")]
    assert [name for name in of_page if name in named] == named


@pytest.mark.parametrize(("answer", "told"), [
    ("Tuesday", None), (" TUESDAY ", None), ("tuesday.", None), ("“Tuesday”", None), ("Tues\u200bday", None),
    ("L'autre", None), ("l’autre !", None), ("２", None),
    ("", "Answer this question."), ("  ", "Answer this question."), ("...", WRONG),
    ("Tuesdays", WRONG), ("Tuesday 2", WRONG), ("Tues day", WRONG), ("x" * 20_000, WRONG),
    ("Tues\x00day", TAKEN_OUT),
])  # fmt: skip
def test_row_44_an_operators_question_is_to_be_answered_and_its_answer_is_not_kept(
    asks_the_sandbox: Flask, answer: str, told: str | None
) -> None:
    a_case(slug="the-case")
    keep()
    with asking(asks_the_sandbox) as client:
        page = BeautifulSoup(client.get("/cases/the-case/pledge").text, "html5lib")
        assert [label.text for label in page.select("label[for=answer]")] == [QUESTION]
        form = {**opened(client), "answer": answer}
        sent = send(client, form)
        look_anew()
        if told is None:
            assert (sent.status_code, len(pledges_of("the-case"))) == (303, 1)
            assert not typed_by_people() & {answer, answer.strip()}
            return
        assert (sent.status_code, summary(sent), pledges_of("the-case")) == (422, [("answer", told)], [])
        keeps_what_was_typed(sent)
        assert send(client, {**form, "answer": "Tuesday"}).status_code == 303


def test_row_44_a_wrong_answer_counts_as_a_try_and_a_right_one_is_not_found_by_guessing(
    asks_the_sandbox: Flask,
) -> None:
    a_case(slug="the-case")
    keep()
    with set_otherwise(
        asks_the_sandbox, pledge_question=QUESTION, pledge_answers=ANSWERS, rate_pledge="3 per hour"
    ) as site:
        client = site.test_client()
        form = opened(client)
        guesses = [send(client, {**form, "answer": answer}).status_code for answer in ("Sunday", "Monday", "Friday")]
        assert guesses == [422, 422, 422]
        told = send(client, {**form, "answer": "Saturday"})
        assert told.status_code == 429 and int(told.headers["Retry-After"]) > 3_000
        keeps_what_was_typed(told)
        # Nobody learns any more by it, since the limit comes first for whoever finds it.
        assert send(client, {**form, "answer": "Tuesday"}).status_code == 429
        assert pledges_of("the-case") == []


# --- In browsers -------------------------------------------------------------------------------------------


@pytest.fixture
def asks_first(house: House) -> Iterator[House]:
    """The house with a question, and with a minute that a form takes."""
    own = {"PLEDGE_QUESTION": QUESTION, "PLEDGE_ANSWERS": '["Tuesday"]', "PLEDGE_FORM_SECONDS": "60"}
    before = dict(house.environment)
    house.environment |= own
    house.kill("web")
    house.start("web")
    yield house
    house.environment = before
    house.kill("web")
    house.start("web")


@pytest.mark.browser
@pytest.mark.slow
def test_row_44_each_of_them_is_told_in_words_and_can_be_mended_without_a_script(
    asks_first: House, page: "Page", way: str
) -> None:
    slug = a_case().slug
    keep()
    page.goto(f"{asks_first.url}/cases/{slug}/pledge")
    expect(page.locator("#website")).not_to_be_in_viewport()
    page.get_by_label("£25", exact=True).check()
    page.get_by_label("Your name").fill("Ada Winter")
    page.get_by_label("Your e-mail address").fill("ada@example.org")
    page.get_by_label("I allow Standing Test").check()
    page.get_by_label(QUESTION).fill("Sunday")
    page.get_by_role("button", name="Continue to Stripe").click()
    page.get_by_role("alert").get_by_role("link", name="This is not the answer").click()
    expect(page.get_by_label(QUESTION)).to_be_focused()
    page.get_by_label(QUESTION).fill("tuesday")
    page.get_by_role("button", name="Continue to Stripe").click()
    summary_of_page = page.get_by_role("alert")
    expect(summary_of_page).to_be_focused()
    summary_of_page.get_by_role("link", name=SOON.format(60)).click()
    expect(page.get_by_role("button", name="Continue to Stripe")).to_be_focused()
    expect(page.get_by_label("Your name")).to_have_value("Ada Winter")
    expect(page.get_by_label(QUESTION)).to_have_value("tuesday")
    look_anew()
    assert pledges_of(slug) == []
