"""The contract with Stripe about card pages: Checkout in setup mode."""

import datetime as dt
from typing import Any

import pytest
import stripe

import payments
from tests.at_stripe import WORKS, type_card
from tests.contract.stripes import AStripe, a_key
from tests.made import now

SANDBOX_ONLY = pytest.mark.sandbox_only(why="a card is typed on Stripe's own page, which no program may fill in")


def asked_for(customer: str | None = None, **changes: Any) -> dict[str, Any]:
    """What the product asks for, as it is stored with the pledge."""
    asked = payments.card_page_params(
        pledge_id=17, public_id="a-public-id", key="pledge-17-session-1", case_id=1, email="ada@example.org",
        case_title="A case about data",
        agreement="I allow Standing to charge my card £25 once.",
        return_url="http://127.0.0.1:8000/pledges/return", back_url="http://127.0.0.1:8000/pledges/a-link",
        expires_at=now() + dt.timedelta(hours=2), customer_id=customer,
    )  # fmt: skip
    return asked | changes


def test_a_card_page_is_open_until_it_is_expired_and_then_for_good(at: AStripe) -> None:
    page = payments.card_page(asked_for(), a_key())
    assert str(page.url).startswith("http")
    opened = payments.look_at_card_page(page.session_id)
    assert (opened.expired, opened.complete, opened.customer_id, opened.url) == (False, False, None, page.url)
    for _ in range(2):  # the second time Stripe refuses, and the page itself says why
        ended = payments.expire_card_page(page.session_id)
        assert (ended.expired, ended.complete, ended.url) == (True, False, None)


def test_the_same_key_and_words_give_the_same_page(at: AStripe) -> None:
    asked, key = asked_for(), a_key()
    assert payments.card_page(asked, key).session_id == payments.card_page(asked, key).session_id


def test_a_customer_who_is_known_keeps_their_number(at: AStripe) -> None:
    customer = at.customer()
    page = payments.card_page(asked_for(customer), a_key())
    assert at.client.v1.checkout.sessions.retrieve(page.session_id).customer == customer
    found = at.client.v1.checkout.sessions.list({"customer": customer, "status": "open"}).data
    assert [one.id for one in found] == [page.session_id]


def test_a_customer_who_is_forgotten_is_deleted_and_asking_again_is_no_trouble(at: AStripe) -> None:
    customer = at.customer()
    for _ in range(2):
        payments.forget_customer(customer)
    assert at.client.v1.customers.retrieve(customer).to_dict() == {
        "id": customer, "object": "customer", "deleted": True,
    }  # fmt: skip
    assert customer not in [one.id for one in at.client.v1.customers.list({"limit": 100}).data]


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"payment_method_types": ["card"]}, "payment_method_types_no_longer_supported", "payment_method_types"),
        ({"pledge": "17"}, "parameter_unknown", "pledge"),
        ({"mode": "sometimes"}, None, "mode"),
        ({"success_url": "not a link"}, "url_invalid", "success_url"),
        ({"customer_email": "not an address"}, "email_invalid", "customer_email"),
        ({"expires_at": int(now().timestamp()) + 60 * 20}, None, "expires_at"),
        ({"expires_at": int(now().timestamp()) + 60 * 60 * 25}, None, "expires_at"),
        ({"client_reference_id": "x" * 201}, None, "client_reference_id"),
    ],
)
def test_a_wrong_parameter_is_a_400_that_names_it(
    at: AStripe, changes: dict[str, Any], code: str | None, param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        at.client.v1.checkout.sessions.create(asked_for(**changes))
    assert (refused.value.http_status, refused.value.param) == (400, param)
    assert code in (None, refused.value.code)


def test_a_page_that_stripe_does_not_know_is_missing(at: AStripe) -> None:
    with pytest.raises(payments.StripeMissing):
        payments.look_at_card_page("cs_test_nobody")


@SANDBOX_ONLY
def test_a_saved_card_is_found_with_its_customer_its_words_and_its_time(at: AStripe) -> None:
    page = payments.card_page(asked_for(), a_key())
    assert type_card(str(page.url), WORKS).status_code == 303
    found = payments.look_at_card_page(page.session_id)
    assert (found.complete, found.expired, found.card_words) == (True, False, "Visa ending 4242")
    assert str(found.customer_id).startswith("cus_") and str(found.payment_method_id).startswith("pm_")
    saved_at = payments.card_saved_at(str(found.setup_intent_id), now())
    assert saved_at is not None and abs(saved_at - now()) < dt.timedelta(minutes=1)


@SANDBOX_ONLY
def test_a_page_that_was_completed_cannot_be_expired(at: AStripe) -> None:
    page = payments.card_page(asked_for(), a_key())
    type_card(str(page.url), WORKS)
    found = payments.expire_card_page(page.session_id)
    assert (found.complete, found.expired) == (True, False)
