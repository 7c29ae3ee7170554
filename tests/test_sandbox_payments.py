"""Payments at the deadline: each card, one success, another try, the bank's page, and what may not be done."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import stripe

from tests.at_stripe import (
    BANK_ASKS_LATER,
    BANK_ASKS_NOW,
    DECLINES_LATER,
    LOST_LATER,
    TOO_LITTLE_MONEY_LATER,
    WORKS,
    a_key,
    charge_params,
    refusal,
    saved_card,
    sdk,
)
from tests.reader import Reader
from tests.sandbox_process import SandboxProcess


@pytest.mark.parametrize("number", [WORKS, BANK_ASKS_NOW, "4000000000000259", "4000000000005126"])
def test_a_good_card_is_charged_without_the_person(sandbox: SandboxProcess, number: str) -> None:
    client = sdk(sandbox)
    customer, method = saved_card(sandbox, number)
    paid = client.v1.payment_intents.create(charge_params(customer, method, amount=2_501))
    assert (paid.status, paid.amount, paid.amount_received) == ("succeeded", 2_501, 2_501)
    charge = paid.latest_charge
    assert (charge.status, charge.paid, charge.amount_captured, charge.payment_intent) == (
        "succeeded", True, 2_501, paid.id,
    )  # fmt: skip
    assert (charge.transfer_group, charge.metadata["pledge_id"]) == ("case:1", "17")
    books = client.v1.balance_transactions.retrieve(charge.balance_transaction)
    assert (books.amount, books.source) == (2_501, charge.id)
    assert books.fee > 0 and books.net == 2_501 - books.fee


@pytest.mark.parametrize(
    ("number", "code", "decline_code", "advice_code"),
    [
        (BANK_ASKS_LATER, "authentication_required", "authentication_required", None),
        (TOO_LITTLE_MONEY_LATER, "card_declined", "insufficient_funds", "try_again_later"),
        (DECLINES_LATER, "card_declined", "generic_decline", "try_again_later"),
        (LOST_LATER, "card_declined", "lost_card", "do_not_try_again"),
    ],
)
def test_a_refusal_is_a_402_that_carries_its_reason_and_the_payment(
    sandbox: SandboxProcess, number: str, code: str, decline_code: str, advice_code: str | None
) -> None:
    client = sdk(sandbox)
    customer, method = saved_card(sandbox, number)
    error = refusal(lambda: client.v1.payment_intents.create(charge_params(customer, method)))
    assert (error.type, error.code) == ("card_error", code)
    assert (error.decline_code, getattr(error, "advice_code", None)) == (decline_code, advice_code)
    assert error.payment_intent.status == "requires_payment_method"
    # It is on the books as refused, and the method has to be given again.
    kept = client.v1.payment_intents.retrieve(error.payment_intent.id, {"expand": ["latest_charge"]})
    assert (kept.status, kept.payment_method, kept.amount_received) == ("requires_payment_method", None, 0)
    assert kept.last_payment_error.decline_code == decline_code
    assert (kept.latest_charge.id, kept.latest_charge.status) == (error.charge, "failed")
    assert client.v1.balance_transactions.list({"source": error.charge}).data == []


def test_a_refused_payment_may_be_tried_again_when_the_card_is_named_again(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    customer, method = saved_card(sandbox, DECLINES_LATER)
    intent = _refused(client, customer, method)
    # The method is not remembered after a refusal.
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method") as bare:
        client.v1.payment_intents.confirm(intent, {"off_session": True})
    assert bare.value.code == "payment_intent_unexpected_state"
    with pytest.raises(stripe.CardError):
        client.v1.payment_intents.confirm(intent, {"payment_method": method, "off_session": True})
    assert _charges(client, intent) == ["failed", "failed"]
    assert client.v1.payment_intents.retrieve(intent).status == "requires_payment_method"


def test_a_paid_payment_is_not_paid_again_nor_cancelled(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    customer, method = saved_card(sandbox)
    paid = client.v1.payment_intents.create(charge_params(customer, method))
    for verb, asked in _once_more(method):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            getattr(client.v1.payment_intents, verb)(paid.id, asked)
        assert (refused.value.http_status, refused.value.code) == (400, "payment_intent_unexpected_state")
        said: Any = refused.value.error
        assert said.payment_intent.status == "succeeded"
    assert _charges(client, paid.id) == ["succeeded"]


def test_ten_at_once_with_ten_keys_pay_one_payment_once(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    customer, declines = saved_card(sandbox, DECLINES_LATER)
    intent = _refused(client, customer, declines)
    _, works = saved_card(sandbox, WORKS, customer=customer, customer_email=None, customer_creation=None)

    def confirm(key: str) -> str:
        try:
            asked = {"payment_method": works, "off_session": True}
            return str(sdk(sandbox).v1.payment_intents.confirm(intent, asked, {"idempotency_key": key}).status)
        except stripe.InvalidRequestError as refused:
            return str(refused.code)

    with ThreadPoolExecutor(10) as pool:
        said = list(pool.map(confirm, [a_key() for _ in range(10)]))
    assert sorted(said) == ["payment_intent_unexpected_state"] * 9 + ["succeeded"]
    assert _charges(client, intent) == ["succeeded", "failed"]


def test_what_a_list_names_can_be_expanded_to_four_levels(sandbox: SandboxProcess) -> None:
    client, card = sdk(sandbox), saved_card(sandbox)
    paid = client.v1.payment_intents.create(charge_params(*card))
    of_customer = {"customer": card[0]}
    (listed,) = client.v1.payment_intents.list(
        {**of_customer, "expand": ["data.latest_charge.balance_transaction", "data.payment_method.customer"]}
    ).data
    assert (listed.latest_charge.id, listed.payment_method.customer.id) == (paid.latest_charge.id, card[0])
    assert listed.latest_charge.balance_transaction.source == paid.latest_charge.id
    for wrong in ("latest_charge", "data", "data.latest_charge.balance_transaction.source.customer"):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            client.v1.payment_intents.list({**of_customer, "expand": [wrong]})
        assert (refused.value.http_status, refused.value.param) == (400, "expand")


def test_a_cancelled_payment_is_never_paid(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    customer, method = saved_card(sandbox, DECLINES_LATER)
    intent = _refused(client, customer, method)
    done = client.v1.payment_intents.cancel(intent, {"cancellation_reason": "abandoned"})
    assert (done.status, done.cancellation_reason) == ("canceled", "abandoned")
    for verb, asked in _once_more(method):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            getattr(client.v1.payment_intents, verb)(intent, asked)
        assert refused.value.code == "payment_intent_unexpected_state"
    assert _charges(client, intent) == ["failed"]


def test_a_detached_card_is_never_charged_and_cannot_be_detached_twice(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    customer, method = saved_card(sandbox)
    assert [one.id for one in client.v1.payment_methods.list({"customer": customer}).data] == [method]
    assert client.v1.payment_methods.detach(method).customer is None
    assert client.v1.payment_methods.list({"customer": customer}).data == []
    with pytest.raises(stripe.InvalidRequestError, match="was detached from a Customer") as refused:
        client.v1.payment_intents.create(charge_params(customer, method))
    assert (refused.value.http_status, refused.value.param) == (400, "payment_method")
    with pytest.raises(stripe.InvalidRequestError, match="not attached to a customer"):
        client.v1.payment_methods.detach(method)
    assert client.v1.payment_intents.list({"customer": customer}).data == []


def test_a_card_is_charged_only_for_the_customer_that_saved_it(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    mine, _ = saved_card(sandbox)
    _, theirs = saved_card(sandbox)
    with pytest.raises(stripe.InvalidRequestError, match="must belong to the customer"):
        client.v1.payment_intents.create(charge_params(mine, theirs))


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"amount": 29}, "amount_too_small", "amount"),
        ({"amount": 100_000_000}, "amount_too_large", "amount"),
        ({"amount": -2_500}, "parameter_invalid_integer", "amount"),
        ({"amount": "25.00"}, "parameter_invalid_integer", "amount"),
        ({"amount": None}, "parameter_missing", "amount"),
        ({"currency": None}, "parameter_missing", "currency"),
        ({"currency": "eur"}, None, "currency"),
        ({"payment_method": None}, "parameter_missing", "payment_method"),
        ({"payment_method": "pm_none"}, "resource_missing", "payment_method"),
        ({"customer": "cus_none"}, "resource_missing", "customer"),
        ({"confirm": None}, None, "off_session"),
        ({"off_session": "sometimes"}, None, "off_session"),
        ({"payment_method_types": ["card"]}, "payment_method_types_no_longer_supported", "payment_method_types"),
        ({"statement_descriptor": "STANDING"}, None, "statement_descriptor"),
        ({"statement_descriptor_suffix": "x" * 23}, None, "statement_descriptor_suffix"),
        ({"setup_future_usage": "off_session"}, "parameter_unknown", "setup_future_usage"),
        ({"expand": ["latest_charge.nonsense"]}, None, "expand"),
    ],
)
def test_a_wrong_payment_is_refused_by_its_name_and_takes_no_money(
    sandbox: SandboxProcess, changes: dict[str, Any], code: str | None, param: str
) -> None:
    client = sdk(sandbox)
    customer, method = saved_card(sandbox)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.payment_intents.create(charge_params(customer, method, **changes))
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
    assert client.v1.payment_intents.list({"customer": customer}).data == []
    assert client.v1.charges.list({"customer": customer}).data == []


def test_the_least_amount_is_thirty_pence(sandbox: SandboxProcess) -> None:
    customer, method = saved_card(sandbox)
    paid = sdk(sandbox).v1.payment_intents.create(charge_params(customer, method, amount=30))
    assert (paid.status, paid.amount_received) == ("succeeded", 30)


@pytest.mark.parametrize(
    ("button", "status", "outcome"),
    [("Approve", "succeeded", "succeeded"), ("Refuse", "requires_payment_method", "failed")],
)
def test_the_person_answers_the_bank_about_a_payment(
    sandbox: SandboxProcess, button: str, status: str, outcome: str
) -> None:
    client = sdk(sandbox)
    customer, method = saved_card(sandbox, BANK_ASKS_LATER)
    intent = _refused(client, customer, method)
    back = f"{sandbox.url}/healthz?mine=1"
    asked = client.v1.payment_intents.confirm(intent, {"payment_method": method, "return_url": back})
    assert asked.status == "requires_action"
    person = Reader(sandbox.url).open(asked.next_action.redirect_to_url.url)
    assert "£25.00" in person.words
    person.press(button)
    assert person.address.startswith(f"{back}&payment_intent={intent}&")
    assert f"redirect_status={outcome}" in person.address
    assert client.v1.payment_intents.retrieve(intent).status == status
    # The bank's page is over for this payment, so that the way back in the browser does nothing.
    assert requests.get(asked.next_action.redirect_to_url.url, timeout=30).status_code == 410


def test_the_payments_of_a_customer_are_listed_alone_and_newest_first(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    (mine, method), (other, others) = saved_card(sandbox), saved_card(sandbox)
    made = [client.v1.payment_intents.create(charge_params(mine, method, amount=a)).id for a in (500, 600, 700)]
    client.v1.payment_intents.create(charge_params(other, others))
    assert [one.id for one in client.v1.payment_intents.list({"customer": mine}).data] == made[::-1]
    first = client.v1.payment_intents.list({"customer": mine, "limit": 2})
    assert first.has_more and [one.amount for one in first.auto_paging_iter()] == [700, 600, 500]
    before = client.v1.payment_intents.list({"customer": mine, "limit": 2, "ending_before": made[0]})
    assert ([one.amount for one in before.data], before.has_more) == ([700, 600], False)


def _refused(client: Any, customer: str, method: str) -> str:
    """The id of a payment that the bank has refused once."""
    error = refusal(lambda: client.v1.payment_intents.create(charge_params(customer, method)))
    return str(error.payment_intent.id)


def _once_more(method: str) -> list[tuple[str, dict[str, Any]]]:
    """What may not be done to a payment that is over."""
    return [
        ("confirm", {"payment_method": method, "off_session": True}),
        ("cancel", {"cancellation_reason": "abandoned"}),
    ]


def _charges(client: Any, intent: str) -> list[str]:
    return [charge.status for charge in client.v1.charges.list({"payment_intent": intent}).data]
