"""The hosted pages by hand, without script: the card, the bank, the way back and the way on."""

from typing import Any

import pytest
import requests

from tests.at_stripe import BANK_ASKS_NOW, WORKS, in_hours, page_params, sdk, type_card
from tests.hygiene import check_page
from tests.reader import Reader
from tests.sandbox_process import SandboxProcess

# The numbers of Stripe's that the product is tested with, and what becomes of each when it is to be saved.
REFUSED_AT_SETUP = [
    ("4000 0000 0000 0002", "generic_decline", "Your card was declined."),
    ("4000 0000 0000 9995", "insufficient_funds", "Your card has insufficient funds."),
    ("4000 0000 0000 9987", "lost_card", "Your card was declined."),
    ("4000 0000 0000 0069", "expired_card", "Your card has expired."),
]
SAVED_AT_ONCE = ["4242 4242 4242 4242", "4000000000000341", "4000-0000-0000-0259", "4000000000005126"]
BANK_ASKS_AT_SETUP = ["4000002500003155", "4000002760003184", "4000008260003178"]


@pytest.fixture
def person(sandbox: SandboxProcess) -> Reader:
    return Reader(sandbox.url)


@pytest.mark.parametrize("number", SAVED_AT_ONCE)
def test_a_card_is_typed_saved_and_the_browser_comes_back_with_the_sessions_id(
    sandbox: SandboxProcess, person: Reader, number: str
) -> None:
    client, session = _open(sandbox)
    person.open(session.url)
    assert "I allow Standing Test to charge my card £25 once." in person.words
    assert "Pledge for A case about data" in person.words and "ada@example.org" in person.words
    person.save_card(number)
    # Stripe puts the id where the site asked for it, also when it asked twice.
    assert person.address == f"{sandbox.url}/healthz?session_id={session.id}&again={session.id}"
    assert _state(client, session) == ("complete", "succeeded")


@pytest.mark.parametrize(("number", "reason", "words"), REFUSED_AT_SETUP)
def test_a_card_refused_now_is_said_and_another_may_be_typed(
    sandbox: SandboxProcess, person: Reader, number: str, reason: str, words: str
) -> None:
    client, session = _open(sandbox)
    person.open(session.url).save_card(number)
    assert (person.status, person.address) == (402, session.url)
    assert words in person.words and person.page.title and "Error: " in person.page.title.text
    refused = client.v1.setup_intents.retrieve(session.setup_intent)
    assert (refused.status, refused.payment_method) == ("requires_payment_method", None)
    assert (refused.last_setup_error.type, refused.last_setup_error.decline_code) == ("card_error", reason)
    assert client.v1.checkout.sessions.retrieve(session.id).customer is None
    person.save_card(WORKS)
    assert _state(client, session) == ("complete", "succeeded")


@pytest.mark.parametrize("number", BANK_ASKS_AT_SETUP)
def test_the_bank_asks_and_is_told_yes(sandbox: SandboxProcess, person: Reader, number: str) -> None:
    client, session = _open(sandbox)
    person.open(session.url).save_card(number)
    assert person.address == f"{session.url}/bank"
    assert "Your bank asks: is this you?" in person.words and "Nothing is charged now." in person.words
    assert _state(client, session) == ("open", "requires_action")
    person.press("Approve")
    assert "/healthz?session_id=" in person.address
    assert _state(client, session) == ("complete", "succeeded")


def test_the_bank_asks_and_is_told_no_which_leaves_the_page_open(sandbox: SandboxProcess, person: Reader) -> None:
    client, session = _open(sandbox)
    person.open(session.url).save_card(BANK_ASKS_NOW).press("Refuse")
    assert person.address == session.url and "Your bank did not confirm that it was you." in person.words
    assert _state(client, session) == ("open", "requires_payment_method")
    failed = client.v1.setup_intents.retrieve(session.setup_intent).last_setup_error
    assert failed.code == "setup_intent_authentication_failure"
    person.save_card(BANK_ASKS_NOW).press("Approve")
    assert _state(client, session) == ("complete", "succeeded")


@pytest.mark.parametrize(
    ("button", "then"),
    [
        ("works", ("complete", "succeeded")),
        ("bank asks now", ("open", "requires_action")),
        ("declines at the deadline", ("complete", "succeeded")),
        ("bank asks at the deadline", ("open", "requires_action")),
        ("refused now", ("open", "requires_payment_method")),
    ],
)
def test_each_button_offers_the_card_that_it_names(
    sandbox: SandboxProcess, person: Reader, button: str, then: tuple[str, str]
) -> None:
    client, session = _open(sandbox)
    person.open(session.url).press(button)
    assert _state(client, session) == then


def test_a_number_that_is_no_test_card_is_refused_with_what_was_typed(sandbox: SandboxProcess, person: Reader) -> None:
    client, session = _open(sandbox)
    person.open(session.url).save_card("4111 1111 1111 1111")
    assert person.status == 422 and "none of the sandbox's card numbers" in person.words
    assert person.page.select_one("#card")["value"] == "4111 1111 1111 1111"  # type: ignore[index]
    assert _state(client, session) == ("open", "requires_payment_method")


def test_the_way_back_leads_to_the_cancel_url_and_leaves_the_page_open(sandbox: SandboxProcess, person: Reader) -> None:
    client, session = _open(sandbox)
    person.open(session.url)
    assert [link["href"] for link in person.page.select("main a") if link.text == "Back"] == [session.cancel_url]
    assert _state(client, session) == ("open", "requires_payment_method")


def test_a_page_that_is_over_says_so_and_shows_the_way_on(sandbox: SandboxProcess, person: Reader) -> None:
    client, session = _open(sandbox)
    _, other = _open(sandbox)
    type_card(session.url, WORKS)
    client.v1.checkout.sessions.expire(other.id)
    person.open(session.url)
    assert person.status == 410 and "Your card is saved" in person.words
    assert session.id in person.page.select_one("main a")["href"]  # type: ignore[index]
    person.open(other.url)
    assert person.status == 410 and "This page has expired" in person.words
    assert person.page.select_one("main a")["href"] == other.cancel_url  # type: ignore[index]


def test_the_banks_answer_comes_too_late_for_an_expired_page(sandbox: SandboxProcess, person: Reader) -> None:
    client, session = _open(sandbox)
    person.open(session.url).save_card(BANK_ASKS_NOW)
    client.v1.checkout.sessions.expire(session.id)
    person.press("Approve")
    assert person.status == 410 and "This page has expired" in person.words
    assert _state(client, session) == ("expired", "canceled")


def test_a_page_without_an_address_asks_for_one(sandbox: SandboxProcess, person: Reader) -> None:
    client, session = _open(sandbox, customer_email=None)
    person.open(session.url).press("Save this card", card=WORKS, email="grace@example.org")
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["customer"]})
    assert (done.customer.email, done.customer_details.email) == ("grace@example.org", "grace@example.org")


def test_every_hosted_page_is_clean_and_says_that_no_real_money_moves(sandbox: SandboxProcess) -> None:
    client, session = _open(sandbox)
    _, over = _open(sandbox, customer_email=None)
    client.v1.checkout.sessions.expire(over.id)
    pages = [
        requests.get(session.url, timeout=30),
        requests.post(session.url, {"card": "4000000000000002"}, timeout=30),
        requests.post(session.url, {"card": "12"}, timeout=30),
        requests.post(session.url, {"card": BANK_ASKS_NOW}, timeout=30),
        requests.get(over.url, timeout=30),
        requests.get(f"{sandbox.url}/c/pay/cs_test_none", timeout=30),
        requests.post(f"{session.url}/bank", {"answer": "perhaps"}, timeout=30),
        requests.get(f"{sandbox.url}/nothing-here", timeout=30),
    ]
    assert [page.status_code for page in pages] == [200, 402, 422, 200, 410, 404, 400, 404]
    for page in pages:
        check_page(page.text, page.url)
        assert "Sandbox: not Stripe, no real money." in page.text
        assert "<script" not in page.text


def _open(sandbox: SandboxProcess, **changes: Any) -> tuple[Any, Any]:
    """A client, and a new session that leads back to a page of this machine."""
    client = sdk(sandbox)
    back = f"{sandbox.url}/healthz?session_id={{CHECKOUT_SESSION_ID}}&again={{CHECKOUT_SESSION_ID}}"
    asked = {"success_url": back, "expires_at": in_hours(2)} | changes
    return client, client.v1.checkout.sessions.create(page_params(**asked))


def _state(client: Any, session: Any) -> tuple[str, str]:
    found = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["setup_intent"]})
    return found.status, found.setup_intent.status
