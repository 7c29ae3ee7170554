"""Checkout sessions that take a payment: what is asked for, what a card does on the page, and how one ends."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import stripe

from tests.at_stripe import (
    BANK_ASKS_NOW,
    DECLINES_LATER,
    TOO_LITTLE_MONEY_LATER,
    WORKS,
    in_hours,
    move_clock,
    pay_page_params,
    saved_card,
    sdk,
    type_card,
)
from tests.hygiene import check_page
from tests.reader import Reader
from tests.sandbox_process import SandboxProcess

# What brings a payment of somebody who becomes a customer, in the order in which it happens.
PAID = [
    "payment_intent.created", "customer.created", "charge.succeeded", "payment_intent.succeeded",
    "checkout.session.completed",
]  # fmt: skip


def opened(sandbox: SandboxProcess, **changes: Any) -> tuple[Any, Any]:
    """A client, and a new session for £25 that leads back to a page of this machine."""
    client = sdk(sandbox)
    back = {"success_url": f"{sandbox.url}/healthz?session_id={{CHECKOUT_SESSION_ID}}"}
    return client, client.v1.checkout.sessions.create(pay_page_params(**back | changes))


def seen(client: Any, session: Any) -> tuple[str, str, str]:
    """The state of the session, of its being paid, and of its PaymentIntent."""
    found = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]})
    return found.status, found.payment_status, found.payment_intent.status if found.payment_intent else "none yet"


def charges(client: Any, session: Any) -> list[str]:
    intent = client.v1.checkout.sessions.retrieve(session.id).payment_intent
    return [one.status for one in client.v1.charges.list({"payment_intent": intent}).data]


def test_a_session_adds_up_its_items_and_has_no_payment_before_a_card_is_given(sandbox: SandboxProcess) -> None:
    client, made = opened(sandbox, line_items=[item(1_200, 2), item(100, 1)])
    assert (made.status, made.mode, made.payment_status, made.url) == (
        "open", "payment", "unpaid", f"{sandbox.url}/c/pay/{made.id}",
    )  # fmt: skip
    assert (made.amount_subtotal, made.amount_total, made.currency) == (2_500, 2_500, "gbp")
    assert (made.payment_intent, made.setup_intent, made.customer) == (None, None, None)
    assert client.v1.checkout.sessions.list({"status": "open", "limit": 1}).data[0].id == made.id


def test_a_card_is_typed_charged_and_the_browser_comes_back_with_the_sessions_id(sandbox: SandboxProcess) -> None:
    client, session = opened(sandbox)
    person = Reader(sandbox.url).open(session.url)
    assert "1 × A donation to A case about data: £25.00" in person.words and "ada@example.org" in person.words
    person.press("Pay £25.00", card=WORKS)
    assert person.address == f"{sandbox.url}/healthz?session_id={session.id}"
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent.latest_charge"]})
    intent = done.payment_intent
    assert (done.status, done.payment_status, done.url, done.customer_details.email) == (
        "complete", "paid", None, "ada@example.org",
    )  # fmt: skip
    assert (intent.status, intent.amount, intent.amount_received) == ("succeeded", 2_500, 2_500)
    assert (intent.description, intent.transfer_group) == ("A donation to A case about data", "case:1")
    assert intent.metadata.to_dict() == {"case_id": "1"}
    charge = intent.latest_charge
    assert (charge.status, charge.amount, charge.transfer_group) == ("succeeded", 2_500, "case:1")
    assert charge.payment_method_details.card.last4 == "4242"
    assert client.v1.balance_transactions.list({"source": charge.id}).data[0].amount == 2_500
    assert client.v1.checkout.sessions.list({"payment_intent": intent.id}).data[0].id == session.id


def test_events_come_in_the_order_in_which_things_happened(sandbox: SandboxProcess) -> None:
    client, session = opened(sandbox, customer_creation="always")
    before = client.v1.events.list({"limit": 1}).data[0].id
    type_card(session.url, WORKS)
    news = client.v1.events.list({"ending_before": before, "limit": 100}).data
    assert [event.type for event in reversed(news)] == PAID
    assert (news[0].data.object.payment_status, news[0].data.object.payment_intent) == (
        "paid", news[1].data.object.id,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("number", "reason", "words"),
    [
        ("4000000000000002", "generic_decline", "Your card was declined."),
        ("4000000000009995", "insufficient_funds", "Your card has insufficient funds."),
        ("4000000000000069", "expired_card", "Your card has expired."),
        (DECLINES_LATER, "generic_decline", "Your card was declined."),
    ],
)
def test_a_declined_card_is_said_and_another_pays_the_same_payment(
    sandbox: SandboxProcess, number: str, reason: str, words: str
) -> None:
    client, session = opened(sandbox)
    person = Reader(sandbox.url).open(session.url).press("Pay £25.00", card=number)
    assert (person.status, person.address) == (402, session.url)
    assert words in person.words and person.page.title and "Error: " in person.page.title.text
    assert seen(client, session) == ("open", "unpaid", "requires_payment_method")
    first = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]}).payment_intent
    assert first.last_payment_error.decline_code == reason
    assert charges(client, session) == ["failed"]
    person.press("Pay £25.00", card=WORKS)
    assert seen(client, session) == ("complete", "paid", "succeeded")
    assert client.v1.checkout.sessions.retrieve(session.id).payment_intent == first.id
    assert charges(client, session) == ["succeeded", "failed"]


@pytest.mark.parametrize(
    ("number", "button", "then", "made"),
    [
        (BANK_ASKS_NOW, "Approve", ("complete", "paid", "succeeded"), ["succeeded"]),
        (BANK_ASKS_NOW, "Refuse", ("open", "unpaid", "requires_payment_method"), []),
        (TOO_LITTLE_MONEY_LATER, "Approve", ("open", "unpaid", "requires_payment_method"), ["failed"]),
    ],
)
def test_the_bank_asks_before_the_card_is_charged(
    sandbox: SandboxProcess, number: str, button: str, then: tuple[str, str, str], made: list[str]
) -> None:
    client, session = opened(sandbox)
    person = Reader(sandbox.url).open(session.url).press("Pay £25.00", card=number)
    assert person.address == f"{session.url}/bank" and "Payment: £25.00" in person.words
    assert seen(client, session) == ("open", "unpaid", "requires_action")
    assert charges(client, session) == []
    person.press(button)
    assert (person.address == session.url) == (then[0] == "open")
    assert seen(client, session) == then
    assert charges(client, session) == made


def test_what_the_bank_refused_another_card_may_pay(sandbox: SandboxProcess) -> None:
    client, session = opened(sandbox)
    type_card(session.url, BANK_ASKS_NOW, approve=False)
    failed = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]}).payment_intent
    assert failed.last_payment_error.code == "payment_intent_authentication_failure"
    type_card(session.url, WORKS)
    assert seen(client, session) == ("complete", "paid", "succeeded")


def test_the_payment_of_a_page_is_neither_confirmed_nor_cancelled_through_the_api(sandbox: SandboxProcess) -> None:
    client, session = opened(sandbox)
    requests.post(session.url, {"card": BANK_ASKS_NOW}, timeout=30)
    intent = client.v1.checkout.sessions.retrieve(session.id).payment_intent
    _, method = saved_card(sandbox)
    for verb, asked in (("confirm", {"payment_method": method}), ("cancel", {})):
        with pytest.raises(stripe.InvalidRequestError, match="created by Checkout"):
            getattr(client.v1.payment_intents, verb)(intent, asked)
    # The link to the bank that stands on the payment leads to the same page.
    person = Reader(sandbox.url).open(f"/bank/{intent}")
    assert person.address == f"{session.url}/bank"
    person.press("Approve")
    assert seen(client, session) == ("complete", "paid", "succeeded")


@pytest.mark.parametrize("given", ["", "4000000000000002", BANK_ASKS_NOW])
def test_an_expired_page_takes_no_card_and_its_payment_is_cancelled(sandbox: SandboxProcess, given: str) -> None:
    client, session = opened(sandbox)
    if given:
        requests.post(session.url, {"card": given}, timeout=30)
    client.v1.checkout.sessions.expire(session.id)
    assert seen(client, session) == ("expired", "unpaid", "canceled" if given else "none yet")
    assert requests.post(f"{session.url}/bank", {"answer": "approve"}, timeout=30).status_code == 410
    assert type_card(session.url, WORKS).status_code == 410
    assert seen(client, session) == ("expired", "unpaid", "canceled" if given else "none yet")
    if given:
        assert "succeeded" not in charges(client, session)


def test_a_page_expires_by_itself_while_the_bank_is_asking(sandbox: SandboxProcess) -> None:
    client, session = opened(sandbox, expires_at=in_hours(1))
    requests.post(session.url, {"card": BANK_ASKS_NOW}, timeout=30)
    move_clock(sandbox, dt.timedelta(minutes=61))
    assert requests.post(f"{session.url}/bank", {"answer": "approve"}, timeout=30).status_code == 410
    assert seen(client, session) == ("expired", "unpaid", "canceled")


def test_ten_at_once_on_one_page_pay_once(sandbox: SandboxProcess) -> None:
    client, session = opened(sandbox)
    with ThreadPoolExecutor(10) as pool:
        said = list(pool.map(lambda _: type_card(session.url, WORKS).status_code, range(10)))
    assert sorted(said) == [303] + [410] * 9
    assert charges(client, session) == ["succeeded"]
    person = Reader(sandbox.url).open(session.url)
    assert person.status == 410 and "Your payment is made" in person.words


@pytest.mark.parametrize("creation", [None, "always"])
def test_a_customer_is_made_only_when_one_is_asked_for(sandbox: SandboxProcess, creation: str | None) -> None:
    client, session = opened(sandbox, customer_creation=creation, customer_email=None)
    Reader(sandbox.url).open(session.url).press("Pay £25.00", card=WORKS, email="grace@example.org")
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent.latest_charge"]})
    assert done.customer_creation == (creation or "if_required")
    assert done.customer_details.email == "grace@example.org"
    intent = done.payment_intent
    assert done.customer == intent.customer == intent.latest_charge.customer
    assert (done.customer is not None) == (creation == "always")


def test_a_known_customer_keeps_their_number_and_the_card_is_not_saved(sandbox: SandboxProcess) -> None:
    customer, saved = saved_card(sandbox)
    client, session = opened(sandbox, customer=customer, customer_email=None)
    type_card(session.url, WORKS)
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]})
    assert (done.customer, done.payment_intent.customer) == (customer, customer)
    assert [one.id for one in client.v1.payment_methods.list({"customer": customer}).data] == [saved]
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        client.v1.payment_intents.create(
            {"amount": 500, "currency": "gbp", "customer": customer, "confirm": True, "off_session": True,
             "payment_method": done.payment_intent.payment_method}
        )  # fmt: skip


def test_what_was_paid_on_a_page_can_be_paid_back(sandbox: SandboxProcess) -> None:
    client, session = opened(sandbox)
    type_card(session.url, WORKS)
    intent = client.v1.checkout.sessions.retrieve(session.id).payment_intent
    assert client.v1.refunds.create({"payment_intent": intent}).amount == 2_500


def item(pence: int, quantity: int, **changes: Any) -> dict[str, Any]:
    price = {"currency": "gbp", "unit_amount": pence, "product_data": {"name": "A donation"}}
    return {"price_data": price | changes, "quantity": quantity}


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"line_items": None}, "parameter_missing", "line_items"),
        ({"line_items": [{"quantity": 1}]}, "parameter_missing", "line_items[0][price_data]"),
        ({"line_items": [item(2_500, 0)]}, "parameter_invalid_integer", "line_items[0][quantity]"),
        ({"line_items": [item(-1, 1)]}, "parameter_invalid_integer", "line_items[0][price_data][unit_amount]"),
        ({"line_items": [item(29, 1)]}, "amount_too_small", None),
        ({"line_items": [item(50_000_000, 2)]}, "amount_too_large", None),
        ({"line_items": [item(100, 1, currency="eur")]}, None, "line_items[0][price_data][currency]"),
        ({"line_items": [item(9, 9, product_data={})]}, "parameter_missing", "line_items[0][price_data][product_data]"),
        ({"line_items": [{"price": "price_none", "quantity": 1}]}, "parameter_unknown", "line_items[0][price]"),
        ({"line_items": [item(100, 1)] * 101}, None, "line_items"),
        ({"setup_intent_data": {"description": "x"}}, None, "setup_intent_data"),
        ({"mode": "setup"}, None, "line_items"),
        ({"payment_intent_data": {"descripton": "x"}}, "parameter_unknown", "payment_intent_data[descripton]"),
        ({"payment_intent_data": {"description": "x" * 1_001}}, None, "payment_intent_data[description]"),
        ({"amount": 2_500}, "parameter_unknown", "amount"),
        ({"customer": "cus_nobody", "customer_email": None}, "resource_missing", "customer"),
        ({"expand": ["payment_intents"]}, None, "expand"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_refused_by_its_name(
    sandbox: SandboxProcess, changes: dict[str, Any], code: str | None, param: str | None
) -> None:
    client = sdk(sandbox)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.checkout.sessions.create(pay_page_params(client_reference_id="wrong", **changes))
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
    newest = client.v1.checkout.sessions.list({"limit": 1}).data
    assert [one.client_reference_id for one in newest] != ["wrong"]


def test_thirty_pence_is_the_least_that_a_page_takes(sandbox: SandboxProcess) -> None:
    assert opened(sandbox, line_items=[item(10, 3)])[1].amount_total == 30


def test_every_page_of_a_payment_is_clean_and_says_that_no_real_money_moves(sandbox: SandboxProcess) -> None:
    client, session = opened(sandbox, customer_email=None)
    _, over = opened(sandbox)
    client.v1.checkout.sessions.expire(over.id)
    pages = [
        requests.get(session.url, timeout=30),
        requests.post(session.url, {"card": "4000000000000002"}, timeout=30),
        requests.post(session.url, {"card": "12"}, timeout=30),
        requests.post(session.url, {"card": BANK_ASKS_NOW}, timeout=30),
        requests.get(over.url, timeout=30),
    ]
    assert [page.status_code for page in pages] == [200, 402, 422, 200, 410]
    for page in pages:
        check_page(page.text, page.url)
        assert "Sandbox: not Stripe, no real money." in page.text
        assert "<script" not in page.text
