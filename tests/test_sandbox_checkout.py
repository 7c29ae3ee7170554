"""Checkout sessions that save a card: what the sandbox takes, what it refuses, and how one ends."""

import datetime as dt
from typing import Any

import pytest
import stripe
from flask import Flask

import payments
from tests.at_stripe import WORKS, in_hours, move_clock, page_params, sdk, type_card
from tests.sandbox_process import SandboxProcess


def test_a_session_is_made_from_exactly_what_the_product_asks_for(app: Flask, sandbox: SandboxProcess) -> None:
    expires_at = in_hours(2)
    asked = payments.card_page_params(
        pledge_id=17, public_id="pledge-abc", key="pledge-17-session-1", case_id=1, email="ada@example.org",
        case_title="A case about data",
        agreement="I allow Standing Test to charge my card £25 once.",
        return_url="http://127.0.0.1:8000/pledges/return", back_url="http://127.0.0.1:8000/pledges/a-private-link",
        expires_at=dt.datetime.fromtimestamp(expires_at, dt.UTC),
    )  # fmt: skip
    assert asked == page_params(expires_at=expires_at)
    client = sdk(sandbox)
    made = client.v1.checkout.sessions.create(asked)
    assert (made.status, made.mode, made.livemode, made.customer) == ("open", "setup", False, None)
    assert made.url == f"{sandbox.url}/c/pay/{made.id}"
    kept = client.v1.checkout.sessions.retrieve(made.id, {"expand": ["setup_intent"]})
    for name in ("client_reference_id", "customer_email", "success_url", "cancel_url", "locale", "expires_at"):
        assert kept[name] == asked[name]
    assert kept.metadata.to_dict() == asked["metadata"]
    assert kept.setup_intent.description == "Pledge for A case about data"
    assert kept.setup_intent.metadata.to_dict() == asked["setup_intent_data"]["metadata"]
    assert kept.setup_intent.status == "requires_payment_method"


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        # Removed from the API, and refused with a code of its own.
        ({"payment_method_types": ["card"]}, "payment_method_types_no_longer_supported", "payment_method_types"),
        # Misspelt, at the top and inside.
        ({"cancel_ulr": "http://127.0.0.1:8000/"}, "parameter_unknown", "cancel_ulr"),
        ({"amount": 2_500}, "parameter_unknown", "amount"),
        ({"setup_intent_data": {"descripton": "x"}}, "parameter_unknown", "setup_intent_data[descripton]"),
        ({"custom_text": {"submit": {"text": "x"}}}, "parameter_unknown", "custom_text[submit][text]"),
        # Missing.
        ({"mode": None}, "parameter_missing", "mode"),
        ({"success_url": None}, "parameter_missing", "success_url"),
        ({"currency": None, "allowed_payment_method_types": None}, "parameter_missing", "currency"),
        # Of the wrong kind.
        ({"mode": "subscription"}, None, "mode"),
        ({"currency": "pounds"}, None, "currency"),
        ({"customer_creation": "sometimes"}, None, "customer_creation"),
        ({"allowed_payment_method_types": ["cheque"]}, None, "allowed_payment_method_types[0]"),
        ({"allowed_payment_method_types": "card"}, None, "allowed_payment_method_types"),
        ({"locale": "en-XX"}, None, "locale"),
        ({"customer_email": "ada"}, "email_invalid", "customer_email"),
        ({"customer_email": ""}, "parameter_invalid_empty", "customer_email"),
        ({"success_url": "/pledges/return"}, "url_invalid", "success_url"),
        ({"cancel_url": "http://[/"}, "url_invalid", "cancel_url"),
        ({"expires_at": "tomorrow"}, "parameter_invalid_integer", "expires_at"),
        ({"metadata": "pledge 17"}, None, "metadata"),
        # Too long.
        ({"client_reference_id": "x" * 201}, None, "client_reference_id"),
        ({"custom_text": {"submit": {"message": "x" * 1_201}}}, None, "custom_text[submit][message]"),
        ({"metadata": {"pledge_id": "x" * 501}}, None, "metadata[pledge_id]"),
        # In contradiction, or naming what is not there.
        ({"customer": "cus_nobody", "customer_creation": None, "customer_email": None}, "resource_missing", "customer"),
        ({"expand": ["setup_intents"]}, None, "expand"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_is_refused_by_its_name(
    sandbox: SandboxProcess, changes: dict[str, Any], code: str | None, param: str
) -> None:
    client = sdk(sandbox)
    before = _newest_session(client)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.checkout.sessions.create(page_params(**changes))
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
    assert _newest_session(client) == before


@pytest.mark.parametrize(
    ("hours", "taken"), [(0.49, False), (0.51, True), (23.99, True), (24.01, False), (-1, False)]
)  # fmt: skip
def test_a_session_lives_between_30_minutes_and_24_hours(sandbox: SandboxProcess, hours: float, taken: bool) -> None:
    client, expires_at = sdk(sandbox), in_hours(hours)
    if taken:
        assert client.v1.checkout.sessions.create(page_params(expires_at=expires_at)).expires_at == expires_at
        return
    with pytest.raises(stripe.InvalidRequestError, match="between 30 minutes and 24 hours") as refused:
        client.v1.checkout.sessions.create(page_params(expires_at=expires_at))
    assert refused.value.param == "expires_at"


def test_a_saved_card_makes_a_customer_and_is_found_by_expanding(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    made = client.v1.checkout.sessions.create(page_params())
    assert type_card(made.url, WORKS).status_code == 303
    found = client.v1.checkout.sessions.retrieve(made.id, {"expand": ["setup_intent.payment_method", "customer"]})
    assert (found.status, found.url, found.setup_intent.status) == ("complete", None, "succeeded")
    assert (found.customer.email, found.customer_details.email) == ("ada@example.org", "ada@example.org")
    method = found.setup_intent.payment_method
    assert (method.type, method.card.brand, method.card.last4) == ("card", "visa", "4242")
    assert method.customer == found.customer.id == found.setup_intent.customer
    # Without expanding, the same places hold ids.
    bare = client.v1.checkout.sessions.retrieve(made.id)
    assert (bare.setup_intent, bare.customer) == (found.setup_intent.id, found.customer.id)


def test_an_expired_session_takes_no_card_and_cannot_be_expired_again(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    made = client.v1.checkout.sessions.create(page_params())
    expired = client.v1.checkout.sessions.expire(made.id)
    assert (expired.status, expired.url) == ("expired", None)
    assert client.v1.setup_intents.retrieve(made.setup_intent).status == "canceled"
    assert type_card(made.url, WORKS).status_code == 410
    assert client.v1.checkout.sessions.retrieve(made.id).customer is None
    with pytest.raises(stripe.InvalidRequestError, match="status of expired"):
        client.v1.checkout.sessions.expire(made.id)


def test_a_completed_session_cannot_be_expired(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    made = client.v1.checkout.sessions.create(page_params())
    type_card(made.url, WORKS)
    with pytest.raises(stripe.InvalidRequestError, match="status of complete") as refused:
        client.v1.checkout.sessions.expire(made.id)
    assert refused.value.http_status == 400
    assert client.v1.checkout.sessions.retrieve(made.id).status == "complete"
    # And its page gives no second chance, to whoever comes back to it.
    assert type_card(made.url, WORKS).status_code == 410


def test_a_session_expires_by_itself_when_its_time_is_over(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    made = client.v1.checkout.sessions.create(page_params(expires_at=in_hours(1)))
    move_clock(sandbox, dt.timedelta(minutes=61))
    assert client.v1.checkout.sessions.retrieve(made.id).status == "expired"
    assert type_card(made.url, WORKS).status_code == 410
    events = client.v1.events.list({"type": "checkout.session.expired", "limit": 100}).data
    assert [event.data.object.id for event in events].count(made.id) == 1


def test_an_unknown_session_is_not_found(sandbox: SandboxProcess) -> None:
    for ask in (sdk(sandbox).v1.checkout.sessions.retrieve, sdk(sandbox).v1.checkout.sessions.expire):
        with pytest.raises(stripe.InvalidRequestError, match="No such checkout session: 'cs_test_none'") as refused:
            ask("cs_test_none")
        assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")


@pytest.mark.parametrize("key", ["", "sk_live_never", "pk_test_public", "nonsense"])
def test_only_a_secret_or_restricted_test_key_opens_the_door(sandbox: SandboxProcess, key: str) -> None:
    assert sdk(sandbox, "rk_test_web").v1.checkout.sessions.list().object == "list"
    with pytest.raises(stripe.AuthenticationError) as refused:
        sdk(sandbox, key or " ").v1.checkout.sessions.list()
    assert refused.value.http_status == 401


def test_what_the_product_does_not_use_is_said_to_be_unknown(sandbox: SandboxProcess) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="Unrecognized request URL") as refused:
        sdk(sandbox).v1.payouts.list()
    assert refused.value.http_status == 404


def _newest_session(client: Any) -> str:
    newest = client.v1.checkout.sessions.list({"limit": 1}).data
    return str(newest[0].id) if newest else ""
