"""The contract with Stripe about payments: taken off-session, refused, confirmed again, and keys."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import stripe

import payments
from tests.at_stripe import BANK_ASKS_LATER, DECLINES_LATER, WORKS
from tests.contract.stripes import AStripe, a_key

BACK = "http://127.0.0.1:8000/pledges/a-link"


def asked_for(card: tuple[str, str], amount: int = 2_500) -> dict[str, Any]:
    customer, method = card
    return payments.charge_params(
        pledge_id=17, case_id=1, amount_pence=amount, customer_id=customer, payment_method_id=method,
        case_title="A case about data",
    )  # fmt: skip


def payments_of(at: AStripe, customer: str) -> list[tuple[str, str]]:
    """(id, state) of all payments of a customer: how an outcome that is unknown after a day is looked up."""
    return [(one.id, one.status) for one in at.client.v1.payment_intents.list({"customer": customer}).data]


# --- What the bank says ------------------------------------------------------------------------------------


def test_a_good_card_is_charged_without_its_owner(at: AStripe) -> None:
    asked = asked_for(at.saved_card(WORKS))
    found = payments.charge(at.settings, asked, a_key())
    assert (found.outcome, found.amount_pence, found.code) == ("succeeded", 2_500, "")
    assert str(found.charge_id).startswith(("ch_", "py_"))
    assert payments_of(at, asked["customer"]) == [(found.payment_intent_id, "succeeded")]
    assert payments.look_at_charge(str(found.payment_intent_id)) == found
    assert payments.whose_charge(str(found.payment_intent_id)) == (17, asked["customer"])


def test_a_payment_whose_answer_was_lost_is_found_by_its_customer_and_our_note(at: AStripe) -> None:
    asked = asked_for(at.saved_card(WORKS))
    assert payments.find_charge(at.settings, asked["customer"], 17) is None
    found = payments.charge(at.settings, asked, a_key())
    assert payments.find_charge(at.settings, asked["customer"], 17) == found
    assert payments.find_charge(at.settings, asked["customer"], 18) is None


def test_a_refusal_by_the_bank_leaves_a_payment_without_a_card(at: AStripe) -> None:
    asked = asked_for(at.saved_card(DECLINES_LATER))
    found = payments.charge(at.settings, asked, a_key())
    assert (found.outcome, found.code, found.amount_pence) == ("declined", "generic_decline", 0)
    kept = at.client.v1.payment_intents.retrieve(found.payment_intent_id)
    assert (kept.status, kept.payment_method) == ("requires_payment_method", None)
    # Whichever sees it first, the answer or a later look, decides the same.
    assert payments.look_at_charge(str(found.payment_intent_id)) == found


def test_a_bank_that_wants_its_customer_says_so_and_waits_for_them_at_an_address(at: AStripe) -> None:
    card = at.saved_card(BANK_ASKS_LATER)
    found = payments.charge(at.settings, asked_for(card), a_key())
    assert (found.outcome, found.code, found.bank_url) == ("action_required", "authentication_required", None)
    params = payments.confirm_params(card[1], BACK)
    there = payments.charge(at.settings, params, a_key(), found.payment_intent_id)
    assert (there.outcome, there.payment_intent_id) == ("action_required", found.payment_intent_id)
    assert str(there.bank_url).startswith("http")


def test_a_refused_payment_is_made_good_with_another_card_and_stays_one_payment(at: AStripe) -> None:
    customer, declines = at.saved_card(DECLINES_LATER)
    refused = payments.charge(at.settings, asked_for((customer, declines)), a_key())
    _, works = at.saved_card(WORKS, customer)
    paid = payments.charge(at.settings, payments.confirm_params(works), a_key(), refused.payment_intent_id)
    assert (paid.outcome, paid.payment_intent_id) == ("succeeded", refused.payment_intent_id)
    assert payments_of(at, customer) == [(paid.payment_intent_id, "succeeded")]


def test_a_paid_payment_is_neither_confirmed_nor_cancelled(at: AStripe) -> None:
    card = at.saved_card(WORKS)
    paid = payments.charge(at.settings, asked_for(card), a_key())
    with pytest.raises(stripe.InvalidRequestError) as refused:
        at.client.v1.payment_intents.confirm(paid.payment_intent_id, {"payment_method": card[1]})
    assert (refused.value.http_status, refused.value.code) == (400, "payment_intent_unexpected_state")
    assert payments.charge(at.settings, payments.confirm_params(card[1]), a_key(), paid.payment_intent_id) == paid
    assert payments.give_up_charge(str(paid.payment_intent_id)) == paid


def test_a_refused_payment_can_be_cancelled_and_then_not_be_paid(at: AStripe) -> None:
    customer, declines = at.saved_card(DECLINES_LATER)
    refused = payments.charge(at.settings, asked_for((customer, declines)), a_key())
    assert payments.give_up_charge(str(refused.payment_intent_id)) is None
    _, works = at.saved_card(WORKS, customer)
    again = payments.charge(at.settings, payments.confirm_params(works), a_key(), refused.payment_intent_id)
    assert (again.outcome, again.code) == ("declined", "canceled")


def test_a_card_that_was_removed_is_never_charged(at: AStripe) -> None:
    customer, works = at.saved_card(WORKS)
    for _ in range(2):  # also when it is removed a second time
        payments.remove_card(works)
    with pytest.raises(payments.StripeRefused):
        payments.charge(at.settings, asked_for((customer, works)), a_key())


@pytest.mark.parametrize(("amount", "taken"), [(29, False), (30, True)])
def test_the_least_that_stripe_takes_is_thirty_pence(at: AStripe, amount: int, taken: bool) -> None:
    asked = asked_for(at.saved_card(WORKS), amount)
    if taken:
        assert payments.charge(at.settings, asked, a_key()).amount_pence == 30
        return
    with pytest.raises(stripe.InvalidRequestError) as refused:
        at.client.v1.payment_intents.create(asked)
    assert (refused.value.http_status, refused.value.code) == (400, "amount_too_small")


# --- Keys --------------------------------------------------------------------------------------------------


def test_the_same_key_takes_the_money_once_and_gives_the_same_answer(at: AStripe) -> None:
    asked, key = asked_for(at.saved_card(WORKS)), a_key()
    first = at.client.v1.payment_intents.create(asked, {"idempotency_key": key})
    again = at.client.v1.payment_intents.create(asked, {"idempotency_key": key})
    assert again.id == first.id
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len(payments_of(at, asked["customer"])) == 1


def test_a_refusal_is_given_again_under_its_key_without_asking_the_bank(at: AStripe) -> None:
    asked, key = asked_for(at.saved_card(DECLINES_LATER)), a_key()
    assert payments.charge(at.settings, asked, key) == payments.charge(at.settings, asked, key)
    assert len(at.client.v1.charges.list({"customer": asked["customer"]}).data) == 1


def test_the_same_key_with_another_amount_is_refused(at: AStripe) -> None:
    asked, key = asked_for(at.saved_card(WORKS)), a_key()
    payments.charge(at.settings, asked, key)
    with pytest.raises(stripe.IdempotencyError) as refused:
        at.client.v1.payment_intents.create(asked | {"amount": 2_600}, {"idempotency_key": key})
    assert refused.value.http_status == 400


def test_several_at_once_with_one_key_take_the_money_once(at: AStripe) -> None:
    """Whoever comes while the first is under way hears 409, which is an unknown outcome, or the first one's answer."""
    asked, key = asked_for(at.saved_card(WORKS)), a_key()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: payments.charge(at.settings, asked, key), range(4)))
    assert {one.outcome for one in found} <= {"succeeded", "unknown"}
    assert len(payments_of(at, asked["customer"])) == 1
    assert payments.charge(at.settings, asked, key).outcome == "succeeded"


# --- Errors ------------------------------------------------------------------------------------------------


def test_a_wrong_api_key_is_forbidden(at: AStripe) -> None:
    stranger = at.settings.model_copy(update={"stripe_secret_key": "xx_test_nobody"})
    with pytest.raises(payments.StripeForbidden):
        payments.charge(stranger, {"amount": 2_500, "currency": "gbp"}, a_key())


def test_a_payment_that_stripe_does_not_know_is_missing(at: AStripe) -> None:
    with pytest.raises(payments.StripeMissing):
        payments.look_at_payment("pi_nobody")
