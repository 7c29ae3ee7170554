"""What comes after a charge: refunds up to the whole and never more, and disputes that hold the money."""

from typing import Any

import pytest
import requests
import stripe

from tests.at_stripe import (
    DECLINES_LATER,
    DISPUTES,
    REFUNDS_FAIL,
    WORKS,
    charge_params,
    close_dispute,
    refusal,
    saved_card,
    sdk,
)
from tests.house import eventually
from tests.sandbox_process import SandboxProcess


def paid(sandbox: SandboxProcess, number: str = WORKS) -> tuple[str, str]:
    """The ids of a payment of £25 and of its charge."""
    made = sdk(sandbox).v1.payment_intents.create(charge_params(*saved_card(sandbox, number)))
    return str(made.id), str(made.latest_charge.id)


def lines(client: Any, source: str) -> list[tuple[int, int, str]]:
    """(amount, net, category) of what a refund or a dispute has moved, oldest first."""
    found = client.v1.balance_transactions.list({"source": source}).data
    return [(line.amount, line.net, line.reporting_category) for line in reversed(found)]


def test_parts_are_paid_back_and_the_rest_without_an_amount(sandbox: SandboxProcess) -> None:
    client, (intent, charge) = sdk(sandbox), paid(sandbox)
    part = client.v1.refunds.create({"payment_intent": intent, "amount": 1_000, "reason": "requested_by_customer"})
    assert (part.status, part.amount, part.charge, part.reason) == ("succeeded", 1_000, charge, "requested_by_customer")
    with pytest.raises(
        stripe.InvalidRequestError, match=r"greater than unrefunded amount on charge \(£15\.00\)"
    ) as over:
        client.v1.refunds.create({"payment_intent": intent, "amount": 1_501})
    assert (over.value.http_status, over.value.param) == (400, "amount")
    half = client.v1.charges.retrieve(charge)
    assert (half.amount_refunded, half.refunded) == (1_000, False)
    assert client.v1.refunds.create({"charge": charge}).amount == 1_500
    whole = client.v1.charges.retrieve(charge)
    assert (whole.amount_refunded, whole.refunded) == (2_500, True)
    with pytest.raises(stripe.InvalidRequestError) as again:
        client.v1.refunds.create({"charge": charge})
    assert (again.value.http_status, again.value.code) == (400, "charge_already_refunded")
    # Stripe's fee for the charge does not come back.
    assert lines(client, part.id) == [(-1_000, -1_000, "refund")]
    assert [one.amount for one in client.v1.refunds.list({"charge": charge}).data] == [1_500, 1_000]


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"amount": 0}, "parameter_invalid_integer", "amount"),
        ({"amount": "all"}, "parameter_invalid_integer", "amount"),
        ({"reason": "changed_my_mind"}, None, "reason"),
        ({"currency": "gbp"}, "parameter_unknown", "currency"),
        ({"metadata": {"refund_id": "x" * 501}}, None, "metadata[refund_id]"),
        ({"payment_intent": "pi_none"}, "resource_missing", "payment_intent"),
        ({"payment_intent": None, "charge": "ch_none"}, "resource_missing", "charge"),
        ({"payment_intent": None}, None, None),
        ({"charge": "ch_none"}, None, None),  # both
    ],
)
def test_a_wrong_refund_is_refused_by_its_name_and_pays_nothing_back(
    sandbox: SandboxProcess, changes: dict[str, Any], code: str | None, param: str | None
) -> None:
    client, (intent, charge) = sdk(sandbox), paid(sandbox)
    asked = {name: value for name, value in ({"payment_intent": intent} | changes).items() if value is not None}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create(asked)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
    assert client.v1.charges.retrieve(charge).amount_refunded == 0


def test_what_was_never_paid_cannot_be_paid_back(sandbox: SandboxProcess) -> None:
    client, card = sdk(sandbox), saved_card(sandbox, DECLINES_LATER)
    error = refusal(lambda: client.v1.payment_intents.create(charge_params(*card)))
    for asked in ({"payment_intent": error.payment_intent.id}, {"charge": error.charge}):
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.refunds.create(asked)


def test_a_refund_to_one_card_fails_later_and_the_money_is_back_on_the_balance(sandbox: SandboxProcess) -> None:
    client, (intent, charge) = sdk(sandbox), paid(sandbox, REFUNDS_FAIL)
    refund = client.v1.refunds.create({"payment_intent": intent}).id
    eventually(lambda: client.v1.refunds.retrieve(refund).status == "failed")
    failed = client.v1.refunds.retrieve(refund)
    assert failed.failure_reason == "lost_or_stolen_card"
    assert lines(client, refund) == [(-2_500, -2_500, "refund"), (2_500, 2_500, "refund_failure")]
    assert client.v1.balance_transactions.retrieve(failed.failure_balance_transaction).amount == 2_500
    assert client.v1.charges.retrieve(charge).amount_refunded == 0
    told = client.v1.events.list({"types": ["refund.created", "refund.updated", "refund.failed"], "limit": 20}).data
    mine = [event.type for event in reversed(told) if event.data.object.id == refund]
    assert mine == ["refund.created", "refund.updated", "refund.failed"]


@pytest.mark.parametrize("end", ["won", "lost"])
def test_a_dispute_holds_the_money_until_the_bank_has_decided(sandbox: SandboxProcess, end: str) -> None:
    client, (intent, charge) = sdk(sandbox), paid(sandbox, DISPUTES)
    (dispute,) = client.v1.disputes.list({"payment_intent": intent}).data
    assert (dispute.status, dispute.amount, dispute.charge) == ("needs_response", 2_500, charge)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"payment_intent": intent})
    assert (refused.value.http_status, refused.value.code) == (400, "charge_disputed")
    close_dispute(sandbox, dispute.id, end)
    assert client.v1.disputes.retrieve(dispute.id).status == end
    # It has been disputed, and says so whoever won.
    assert client.v1.charges.retrieve(charge).disputed is True
    # £20 is the sandbox's own fee; it is kept whoever wins.
    back = [(2_500, 2_500, "dispute_reversal")] if end == "won" else []
    assert lines(client, dispute.id) == [(-2_500, -4_500, "dispute"), *back]
    told = client.v1.events.list({"limit": 100}).data
    mine = [event.type for event in reversed(told) if event.data.object.id == dispute.id]
    reinstated = ["charge.dispute.funds_reinstated"] if end == "won" else []
    assert mine == [
        "charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed", *reinstated,
    ]  # fmt: skip
    where = f"{sandbox.url}/sandbox/disputes/{dispute.id}/closure"
    assert requests.post(where, json={"status": "won"}, timeout=30).status_code == 400


def test_what_a_bank_gave_back_can_be_refunded_and_disputed_again(sandbox: SandboxProcess) -> None:
    client, (intent, charge) = sdk(sandbox), paid(sandbox, DISPUTES)
    (dispute,) = client.v1.disputes.list({"payment_intent": intent}).data
    close_dispute(sandbox, dispute.id, "won")
    assert client.v1.refunds.create({"payment_intent": intent, "amount": 500}).status == "succeeded"
    again = f"{sandbox.url}/sandbox/charges/{charge}/dispute"
    assert requests.post(again, json={}, timeout=30).status_code == 200
    newest, _ = client.v1.disputes.list({"payment_intent": intent}).data
    assert (newest.status, newest.amount) == ("needs_response", 2_000)
    assert requests.post(again, json={}, timeout=30).status_code == 400
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.refunds.create({"payment_intent": intent})
    assert refused.value.code == "charge_disputed"
