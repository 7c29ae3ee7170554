"""The contract with Stripe about transfers: from a charge to a connected account, and back.

At Stripe they need an account that may receive, made beforehand: STRIPE_TEST_DESTINATION=acct_...
"""

from typing import Any

import pytest
import stripe

from tests.at_stripe import transfer_params
from tests.contract.stripes import AStripe, a_key
from tests.contract.test_after_the_charge import charged


def a_charge(at: AStripe) -> str:
    """£25, whose money is not available yet."""
    return str(charged(at).charge_id)


def test_parts_of_a_charge_are_passed_on_up_to_the_whole_and_never_more(at: AStripe) -> None:
    account, charge = at.destination(), a_charge(at)
    made = at.client.v1.transfers.create(transfer_params(account, charge, amount=2_000))
    assert (made.amount, made.destination, made.source_transaction) == (2_000, account, charge)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        at.client.v1.transfers.create(transfer_params(account, charge, amount=501))
    assert refused.value.http_status == 400
    at.client.v1.transfers.create(transfer_params(account, charge, amount=500))
    found = at.client.v1.transfers.list({"destination": account, "limit": 2}).data
    assert [(one.amount, one.transfer_group) for one in found] == [(500, "case:1"), (2_000, "case:1")]


def test_a_transfer_and_what_is_taken_back_are_lines_of_the_balance_without_a_fee(at: AStripe) -> None:
    made = at.client.v1.transfers.create(transfer_params(at.destination(), a_charge(at), amount=2_000))
    back = at.client.v1.transfers.reversals.create(made.id, {"amount": 700})
    lines = [at.client.v1.balance_transactions.list({"source": one}).data[0] for one in (made.id, back.id)]
    assert [(line.type, line.reporting_category, line.amount, line.fee) for line in lines] == [
        ("transfer", "transfer", -2_000, 0), ("transfer_refund", "transfer_reversal", 700, 0),
    ]  # fmt: skip
    kept = at.client.v1.transfers.retrieve(made.id)
    assert (kept.amount_reversed, kept.reversed, [one.id for one in kept.reversals.data]) == (700, False, [back.id])


def test_no_more_is_taken_back_than_was_passed_on(at: AStripe) -> None:
    made = at.client.v1.transfers.create(transfer_params(at.destination(), a_charge(at), amount=2_000))
    for amount in (2_001, 2_000, 1):
        if amount == 2_000:
            assert at.client.v1.transfers.reversals.create(made.id, {"amount": amount}).amount == 2_000
            continue
        with pytest.raises(stripe.InvalidRequestError) as refused:
            at.client.v1.transfers.reversals.create(made.id, {"amount": amount})
        assert refused.value.http_status == 400
    assert at.client.v1.transfers.retrieve(made.id).reversed


def test_the_same_key_passes_on_once(at: AStripe) -> None:
    asked, key = transfer_params(at.destination(), a_charge(at)), a_key()
    made = [at.client.v1.transfers.create(asked, {"idempotency_key": key}).id for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"destination": "acct_nobody"}, "resource_missing", "destination"),
        ({"source_transaction": "ch_nobody"}, "resource_missing", "source_transaction"),
        ({"pledge": "17"}, "parameter_unknown", "pledge"),
        ({"amount": 0}, "parameter_invalid_integer", "amount"),
        ({"currency": None}, "parameter_missing", "currency"),
    ],
)
def test_a_wrong_transfer_is_a_400_that_names_what_is_wrong(
    at: AStripe, changes: dict[str, Any], code: str, param: str
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        at.client.v1.transfers.create(transfer_params(at.destination(), a_charge(at), **changes))
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
