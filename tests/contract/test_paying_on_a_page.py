"""The contract with Stripe about Checkout in payment mode, which nothing of ours asks for yet."""

from typing import Any

import pytest
import stripe

from tests.at_stripe import WORKS, pay_page_params, type_card
from tests.contract.stripes import AStripe


def test_a_page_adds_up_its_items_and_has_no_payment_before_a_card_is_given(at: AStripe) -> None:
    made = at.client.v1.checkout.sessions.create(pay_page_params())
    assert (made.status, made.payment_status, made.amount_total, made.currency) == ("open", "unpaid", 2_500, "gbp")
    assert (made.payment_intent, made.setup_intent, made.customer) == (None, None, None)
    assert str(made.url).startswith("http")


def test_a_page_that_was_expired_is_over_for_good(at: AStripe) -> None:
    made = at.client.v1.checkout.sessions.create(pay_page_params())
    ended = at.client.v1.checkout.sessions.expire(made.id)
    assert (ended.status, ended.payment_status, ended.url) == ("expired", "unpaid", None)
    with pytest.raises(stripe.InvalidRequestError):
        at.client.v1.checkout.sessions.expire(made.id)


def item(pence: int) -> dict[str, Any]:
    price = {"currency": "gbp", "unit_amount": pence, "product_data": {"name": "A donation"}}
    return {"price_data": price, "quantity": 1}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"line_items": None}, None),
        ({"line_items": [item(29)]}, "amount_too_small"),
        ({"setup_intent_data": {"description": "A donation"}}, None),
        ({"mode": "setup", "line_items": None}, None),
        ({"pledge": "17"}, "parameter_unknown"),
    ],
)
def test_what_makes_no_payment_is_a_400(at: AStripe, changes: dict[str, Any], code: str | None) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        at.client.v1.checkout.sessions.create(pay_page_params(**changes))
    assert refused.value.http_status == 400
    assert code in (None, refused.value.code)


@pytest.mark.sandbox_only(why="a card is typed on Stripe's own page, which no program may fill in")
def test_a_paid_page_has_its_payment_and_ends(at: AStripe) -> None:
    made = at.client.v1.checkout.sessions.create(pay_page_params())
    assert type_card(made.url, WORKS).status_code == 303
    done = at.client.v1.checkout.sessions.retrieve(made.id, {"expand": ["payment_intent.latest_charge"]})
    assert (done.status, done.payment_status, done.payment_intent.status) == ("complete", "paid", "succeeded")
    assert done.payment_intent.latest_charge.amount == 2_500
