"""The sandbox held against the SDK's own types: what it shows and what it takes is what Stripe's API has."""

import importlib
import re
import types
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

import pytest
import requests
import stripe

from sandbox.cards import DECLINES
from sandbox.operations import OPERATIONS
from tests.at_stripe import (
    BANK_ASKS_LATER,
    BANK_ASKS_NOW,
    DECLINES_LATER,
    DISPUTES,
    WORKS,
    an_account,
    charge_params,
    close_dispute,
    page_params,
    pay_page_params,
    refusal,
    saved_card,
    sdk,
    transfer_params,
    type_card,
)
from tests.sandbox_process import SandboxProcess

ROOT = Path(__file__).resolve().parent.parent

# The SDK's name for the parameters of each call.
PARAMS = {
    "checkout.sessions.create": "checkout.SessionCreateParams",
    "checkout.sessions.retrieve": "checkout.SessionRetrieveParams",
    "checkout.sessions.list": "checkout.SessionListParams",
    "checkout.sessions.expire": "checkout.SessionExpireParams",
    "customers.retrieve": "CustomerRetrieveParams",
    "customers.delete": "CustomerDeleteParams",
    "customers.list": "CustomerListParams",
    "payment_methods.retrieve": "PaymentMethodRetrieveParams",
    "payment_methods.list": "PaymentMethodListParams",
    "payment_methods.detach": "PaymentMethodDetachParams",
    "setup_intents.retrieve": "SetupIntentRetrieveParams",
    "setup_intents.list": "SetupIntentListParams",
    "payment_intents.create": "PaymentIntentCreateParams",
    "payment_intents.retrieve": "PaymentIntentRetrieveParams",
    "payment_intents.list": "PaymentIntentListParams",
    "payment_intents.confirm": "PaymentIntentConfirmParams",
    "payment_intents.cancel": "PaymentIntentCancelParams",
    "charges.retrieve": "ChargeRetrieveParams",
    "charges.list": "ChargeListParams",
    "refunds.create": "RefundCreateParams",
    "refunds.retrieve": "RefundRetrieveParams",
    "refunds.list": "RefundListParams",
    "disputes.retrieve": "DisputeRetrieveParams",
    "disputes.list": "DisputeListParams",
    "transfers.create": "TransferCreateParams",
    "transfers.retrieve": "TransferRetrieveParams",
    "transfers.list": "TransferListParams",
    "transfers.reversals.create": "TransferReversalCreateParams",
    "transfers.reversals.list": "TransferReversalListParams",
    "balance_transactions.retrieve": "BalanceTransactionRetrieveParams",
    "balance_transactions.list": "BalanceTransactionListParams",
    "events.retrieve": "EventRetrieveParams",
    "events.list": "EventListParams",
    "webhook_endpoints.create": "WebhookEndpointCreateParams",
    "webhook_endpoints.list": "WebhookEndpointListParams",
    "webhook_endpoints.delete": "WebhookEndpointDeleteParams",
}

KINDS: dict[str, type] = {
    "checkout.session": stripe.checkout.Session,
    "setup_intent": stripe.SetupIntent,
    "customer": stripe.Customer,
    "payment_method": stripe.PaymentMethod,
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "refund": stripe.Refund,
    "dispute": stripe.Dispute,
    "transfer": stripe.Transfer,
    "transfer_reversal": stripe.TransferReversal,
    "balance_transaction": stripe.BalanceTransaction,
    "event": stripe.Event,
}


def test_every_call_of_the_sandbox_is_held_against_the_sdk() -> None:
    assert set(PARAMS) == set(OPERATIONS)


@pytest.mark.parametrize("operation", PARAMS)
def test_no_call_takes_a_parameter_that_stripe_does_not_have(operation: str) -> None:
    module, _, name = f"stripe.params.{PARAMS[operation]}".rpartition(".")
    declared = getattr(importlib.import_module(module), name).__annotations__
    assert set(OPERATIONS[operation].fields) - set(declared) == set()


def test_all_that_the_sandbox_shows_has_the_fields_and_types_that_the_sdk_declares(sandbox: SandboxProcess) -> None:
    """Each kind of object, in each state that the walk of a pledge can bring it into."""
    client = sdk(sandbox)
    opened = client.v1.checkout.sessions.create(page_params())
    client.v1.checkout.sessions.expire(client.v1.checkout.sessions.create(page_params()).id)
    asked = client.v1.checkout.sessions.create(page_params())
    _ = type_card(asked.url, BANK_ASKS_NOW, approve=False), type_card(opened.url, BANK_ASKS_NOW)
    for card in (WORKS, BANK_ASKS_NOW, "4000000000000002"):  # paid, waiting for the bank, declined
        page = client.v1.checkout.sessions.create(pay_page_params()).url
        requests.post(page, {"card": card}, allow_redirects=False, timeout=30)
    given_up = client.v1.checkout.sessions.create(pay_page_params(customer_creation="always"))
    requests.post(given_up.url, {"card": BANK_ASKS_NOW}, timeout=30)
    client.v1.checkout.sessions.expire(given_up.id)
    customer, method = saved_card(sandbox, WORKS)
    paid = client.v1.payment_intents.create(charge_params(customer, method))
    passed_on = client.v1.transfers.create(transfer_params(an_account(sandbox), paid.latest_charge.id, amount=900))
    client.v1.transfers.reversals.create(passed_on.id, {"amount": 400})
    client.v1.refunds.create({"payment_intent": paid.id, "amount": 500})
    failed = client.v1.refunds.create({"payment_intent": paid.id, "amount": 500})
    requests.post(f"{sandbox.url}/sandbox/refunds/{failed.id}/failure", json={}, timeout=30).raise_for_status()
    for end in ("won", "lost", ""):
        client.v1.payment_intents.create(charge_params(*saved_card(sandbox, DISPUTES)))
        dispute = client.v1.disputes.list({"limit": 1}).data[0]
        if end:
            close_dispute(sandbox, dispute.id, end)
    client.v1.payment_methods.detach(method)
    customer, declines = saved_card(sandbox, DECLINES_LATER)
    client.v1.payment_intents.cancel(_refused(client, customer, declines).payment_intent.id)
    customer, asks = saved_card(sandbox, BANK_ASKS_LATER)
    on_session = {"payment_method": asks, "return_url": "http://127.0.0.1:8000/"}
    client.v1.payment_intents.confirm(_refused(client, customer, asks).payment_intent.id, on_session)
    services = (
        client.v1.checkout.sessions, client.v1.setup_intents, client.v1.customers, client.v1.payment_intents,
        client.v1.charges, client.v1.refunds, client.v1.disputes, client.v1.transfers, client.v1.balance_transactions,
        client.v1.events,
    )  # fmt: skip
    shown: list[dict[str, Any]] = [client.v1.payment_methods.retrieve(one).to_dict() for one in (method, asks)]
    shown += [one.to_dict() for service in services for one in service.list({"limit": 100}).data]
    shown += [one.to_dict() for one in client.v1.transfers.reversals.list(passed_on.id).data]
    # An event holds the object as it was: this is what a webhook brings.
    shown += [one["data"]["object"] for one in shown if one["object"] == "event"]
    assert {(one["mode"], one["payment_status"]) for one in shown if one["object"] == "checkout.session"} == {
        ("setup", "no_payment_required"), ("payment", "unpaid"), ("payment", "paid"),
    }  # fmt: skip
    assert {(one["object"], one.get("status")) for one in shown} >= {
        ("checkout.session", "open"), ("checkout.session", "complete"), ("checkout.session", "expired"),
        ("setup_intent", "requires_payment_method"), ("setup_intent", "requires_action"),
        ("setup_intent", "succeeded"), ("setup_intent", "canceled"),
        ("payment_intent", "requires_confirmation"), ("payment_intent", "requires_payment_method"),
        ("payment_intent", "requires_action"), ("payment_intent", "succeeded"), ("payment_intent", "canceled"),
        ("charge", "succeeded"), ("charge", "failed"), ("refund", "succeeded"), ("refund", "failed"),
        ("dispute", "needs_response"), ("dispute", "won"), ("dispute", "lost"), ("balance_transaction", "available"),
        ("balance_transaction", "pending"),
        ("customer", None), ("payment_method", None), ("event", None), ("transfer", None), ("transfer_reversal", None),
    }  # fmt: skip
    assert {wrong for one in shown for wrong in misfits(one, KINDS[one["object"]], one["object"])} == set()


def test_the_body_of_a_declined_payment_is_what_the_sdk_declares(sandbox: SandboxProcess) -> None:
    customer, method = saved_card(sandbox, DECLINES_LATER)
    body = _refused(sdk(sandbox), customer, method).to_dict()
    assert misfits(body, stripe.ErrorObject, "error") == []
    assert misfits(body["payment_intent"], stripe.PaymentIntent, "payment_intent") == []
    assert misfits(body["payment_intent"]["last_payment_error"], stripe.ErrorObject, "last_payment_error") == []


def test_every_error_code_of_the_sandbox_is_one_of_stripes() -> None:
    listed, *_ = get_args(stripe.PaymentIntent.LastPaymentError.__annotations__["code"])
    code = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "sandbox").glob("*.py")))
    ours = {decline.code for decline in DECLINES.values()} | {*re.findall(r'code="(\w+)"', code)}
    assert ours >= {"card_declined", "payment_intent_unexpected_state", "charge_already_refunded", "parameter_unknown"}
    # Stripe's documentation has these two; the SDK's list is of errors of payments.
    assert ours - set(get_args(listed)) == {
        "payment_method_types_no_longer_supported", "insufficient_capabilities_for_transfer",
    }  # fmt: skip


def _refused(client: Any, customer: str, method: str) -> Any:
    return refusal(lambda: client.v1.payment_intents.create(charge_params(customer, method)))


def misfits(value: Any, declared: Any, where: str) -> list[str]:
    """What a value has that its declaration in the SDK does not allow, or lacks that must be there."""
    origin = get_origin(declared)
    if origin in (Union, types.UnionType):
        return _misfits_any(value, get_args(declared), where)
    if origin is Literal:
        return [] if value in get_args(declared) else [f"{where}: {value!r} is none of its words"]
    if origin is list:
        if not isinstance(value, list):
            return [f"{where}: not a list"]
        return [wrong for one in value for wrong in misfits(one, get_args(declared)[0], f"{where}[]")]
    if origin is stripe.ListObject:
        # The SDK declares all of a list but the word that it is one.
        shape = {"object": Literal["list"], **stripe.ListObject.__annotations__, "data": list[get_args(declared)[0]]}  # type: ignore[misc]
        if set(value) != set(shape):
            return [f"{where}: a list has {sorted(shape)}"]
        return [wrong for name, hint in shape.items() for wrong in misfits(value[name], hint, f"{where}.{name}")]
    kind = origin or declared
    if not isinstance(kind, type):  # a name of another object: expanded nowhere in these answers
        return [] if isinstance(value, dict) else [f"{where}: {value!r} is no object"]
    if issubclass(kind, stripe.StripeObject):
        return _misfits_object(value, kind, where)
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return [] if fits else [f"{where}: {value!r} is no {kind.__name__}"]


def _misfits_any(value: Any, allowed: tuple[Any, ...], where: str) -> list[str]:
    """One of several types; where the SDK lists the known words and lets any other through, only the listed."""
    if value is None and type(None) in allowed:
        return []
    words = [one for one in allowed if get_origin(one) is Literal]
    fitting = words if words and isinstance(value, str) else [one for one in allowed if one is not type(None)]
    return min((misfits(value, one, where) for one in fitting), key=len)


def _misfits_object(value: Any, kind: type, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    # A ClassVar, and what begins with an underscore, belong to the SDK's class and not to Stripe's answer.
    declared = {
        name: hint for name, hint in getattr(kind, "__annotations__", {}).items()
        if get_origin(hint) is not ClassVar and not name.startswith("_")
    }  # fmt: skip
    if not declared:  # metadata, and the object inside an event
        return []
    lacking = [name for name, hint in declared.items() if type(None) not in get_args(hint) and name not in value]
    unknown = set(value) - set(declared)
    return [
        *(f"{where}.{name}: is missing" for name in lacking),
        *(f"{where}.{name}: Stripe has no such field" for name in unknown),
        *(wrong for name in set(value) - unknown for wrong in misfits(value[name], declared[name], f"{where}.{name}")),
    ]
