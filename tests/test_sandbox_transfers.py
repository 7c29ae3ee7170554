"""Transfers: what of a charge or of the balance is passed on to a connected account, and what is taken back."""

import datetime as dt
from typing import Any

import pytest
import requests
import stripe

from tests.at_stripe import (
    DECLINES_LATER,
    a_key,
    an_account,
    charge_params,
    move_clock,
    refusal,
    saved_card,
    sdk,
    transfer_params,
)
from tests.house import eventually
from tests.sandbox_process import SandboxProcess

IN_A_WEEK = dt.timedelta(days=7, seconds=1)


def paid(sandbox: SandboxProcess, amount: int = 2_500, **changes: Any) -> str:
    """The id of a charge."""
    asked = charge_params(*saved_card(sandbox), amount=amount, **changes)
    return str(sdk(sandbox).v1.payment_intents.create(asked).latest_charge.id)


def available(sandbox: SandboxProcess) -> int:
    """What the lines of the balance say that can be spent now."""
    lines = sdk(sandbox).v1.balance_transactions.list({"limit": 100}).auto_paging_iter()
    return sum(line.net for line in lines if line.status == "available")


def test_a_charge_is_passed_on_before_its_money_is_available(sandbox: SandboxProcess) -> None:
    client, account, charge = sdk(sandbox), an_account(sandbox), paid(sandbox)
    before = available(sandbox)
    made = client.v1.transfers.create(transfer_params(account, charge))
    assert (made.amount, made.currency, made.destination, made.source_transaction) == (2_000, "gbp", account, charge)
    assert (made.transfer_group, made.metadata.to_dict()) == ("case:1", {"pledge_id": "17"})
    assert (made.amount_reversed, made.reversed, made.reversals.data) == (0, False, [])
    kept = client.v1.transfers.retrieve(made.id, {"expand": ["balance_transaction", "source_transaction"]})
    line, source = kept.balance_transaction, kept.source_transaction
    assert (line.amount, line.fee, line.net, line.source) == (-2_000, 0, -2_000, made.id)
    assert (line.type, line.reporting_category) == ("transfer", "transfer")
    assert (source.id, source.amount) == (charge, 2_500)
    # Both wait for the same day, so that nothing of what others paid is spent until then.
    of_charge = client.v1.balance_transactions.retrieve(source.balance_transaction)
    assert (line.status, of_charge.status, line.available_on) == ("pending", "pending", of_charge.available_on)
    assert available(sandbox) == before
    assert [event.data.object.id for event in _events(sandbox, "transfer.created")][:1] == [made.id]


def test_lines_become_available_when_their_day_comes(sandbox: SandboxProcess) -> None:
    client, charge = sdk(sandbox), paid(sandbox)
    made = client.v1.transfers.create(transfer_params(an_account(sandbox), charge))
    move_clock(sandbox, IN_A_WEEK)
    for source in (charge, made.id):
        (line,) = client.v1.balance_transactions.list({"source": source}).data
        assert line.status == client.v1.balance_transactions.retrieve(line.id).status == "available"
        assert line.available_on - line.created == 7 * 24 * 60 * 60


def test_several_transfers_take_the_whole_of_a_charge_and_not_a_penny_more(sandbox: SandboxProcess) -> None:
    client, account, charge = sdk(sandbox), an_account(sandbox), paid(sandbox, 2_500)
    for amount in (2_000, 499):
        client.v1.transfers.create(transfer_params(account, charge, amount=amount))
    with pytest.raises(stripe.InvalidRequestError, match=r"must not exceed the source amount of £25\.00") as refused:
        client.v1.transfers.create(transfer_params(account, charge, amount=2))
    assert (refused.value.http_status, refused.value.param) == (400, "amount")
    client.v1.transfers.create(transfer_params(account, charge, amount=1))
    assert [one.amount for one in client.v1.transfers.list({"destination": account}).data] == [1, 499, 2_000]


def test_what_was_refunded_is_not_there_to_be_passed_on(sandbox: SandboxProcess) -> None:
    client, account, charge = sdk(sandbox), an_account(sandbox), paid(sandbox, 2_500)
    client.v1.refunds.create({"charge": charge, "amount": 1_000})
    with pytest.raises(stripe.InvalidRequestError, match=r"refunded: £10\.00"):
        client.v1.transfers.create(transfer_params(account, charge, amount=1_501))
    assert client.v1.transfers.create(transfer_params(account, charge, amount=1_500)).amount == 1_500


def test_without_a_source_only_the_available_balance_is_passed_on(sandbox: SandboxProcess) -> None:
    client, account = sdk(sandbox), an_account(sandbox)
    paid(sandbox, 500_000)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.transfers.create(transfer_params(account, None, amount=max(available(sandbox), 0) + 1))
    assert (refused.value.http_status, refused.value.code) == (400, "balance_insufficient")
    assert client.v1.transfers.list({"destination": account}).data == []
    move_clock(sandbox, IN_A_WEEK)
    there = available(sandbox)
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.transfers.create(transfer_params(account, None, amount=there + 1))
    made = client.v1.transfers.create(transfer_params(account, None, amount=there))
    assert (made.source_transaction, made.amount, available(sandbox)) == (None, there, 0)
    line = client.v1.balance_transactions.retrieve(made.balance_transaction)
    assert (line.net, line.status) == (-there, "available")


def test_a_refusal_for_want_of_money_is_kept_under_its_key(sandbox: SandboxProcess) -> None:
    """Whoever tries again when the money is there needs another key."""
    client, account, key = sdk(sandbox), an_account(sandbox), a_key()
    paid(sandbox, 500_000)
    move_clock(sandbox, IN_A_WEEK - dt.timedelta(hours=1))
    asked = transfer_params(account, None, amount=max(available(sandbox), 0) + 1)
    for moved in (IN_A_WEEK - dt.timedelta(hours=1), IN_A_WEEK):
        move_clock(sandbox, moved)
        with pytest.raises(stripe.InvalidRequestError):
            client.v1.transfers.create(asked, {"idempotency_key": key})
    assert client.v1.transfers.create(asked, {"idempotency_key": a_key()}).amount == asked["amount"]


def test_an_account_that_may_not_receive_yet_is_refused_until_it_may(sandbox: SandboxProcess) -> None:
    client, charge, account = sdk(sandbox), paid(sandbox), an_account(sandbox, transfers="inactive")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.transfers.create(transfer_params(account, charge))
    assert (refused.value.http_status, refused.value.code) == (400, "insufficient_capabilities_for_transfer")
    requests.post(
        f"{sandbox.url}/sandbox/accounts/{account}", json={"transfers": "active"}, timeout=30
    ).raise_for_status()
    assert client.v1.transfers.create(transfer_params(account, charge)).destination == account


def test_the_same_key_passes_the_money_on_once(sandbox: SandboxProcess) -> None:
    client, account, charge, key = sdk(sandbox), an_account(sandbox), paid(sandbox), a_key()
    asked = transfer_params(account, charge)
    made = [client.v1.transfers.create(asked, {"idempotency_key": key}).id for _ in range(2)]
    assert made[0] == made[1]
    assert len(client.v1.transfers.list({"destination": account}).data) == 1


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"amount": None}, "parameter_missing", "amount"),
        ({"amount": 0}, "parameter_invalid_integer", "amount"),
        ({"amount": "20.00"}, "parameter_invalid_integer", "amount"),
        ({"amount": 100_000_000}, "amount_too_large", "amount"),
        ({"currency": None}, "parameter_missing", "currency"),
        ({"currency": "eur"}, None, "currency"),
        ({"destination": None}, "parameter_missing", "destination"),
        ({"destination": "acct_nobody"}, "resource_missing", "destination"),
        ({"source_transaction": "ch_none"}, "resource_missing", "source_transaction"),
        ({"source_type": "cash"}, None, "source_type"),
        ({"metadata": {"pledge_id": "x" * 501}}, None, "metadata[pledge_id]"),
        ({"description": "x" * 5_001}, None, "description"),
        ({"application_fee_amount": 100}, "parameter_unknown", "application_fee_amount"),
        ({"payment_intent": "pi_none"}, "parameter_unknown", "payment_intent"),
        ({"expand": ["destination_payment.nonsense"]}, None, "expand"),
    ],
)
def test_a_wrong_transfer_is_refused_by_its_name_and_moves_nothing(
    sandbox: SandboxProcess, changes: dict[str, Any], code: str | None, param: str
) -> None:
    client, account, charge = sdk(sandbox), an_account(sandbox), paid(sandbox)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.transfers.create(transfer_params(account, charge, **changes))
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
    assert client.v1.transfers.list({"destination": account}).data == []


def test_a_charge_that_was_declined_is_no_source(sandbox: SandboxProcess) -> None:
    client, card = sdk(sandbox), saved_card(sandbox, DECLINES_LATER)
    error = refusal(lambda: client.v1.payment_intents.create(charge_params(*card)))
    with pytest.raises(stripe.InvalidRequestError, match="was not paid") as refused:
        client.v1.transfers.create(transfer_params(an_account(sandbox), error.charge))
    assert refused.value.param == "source_transaction"


def test_a_transfer_and_its_charge_stand_in_one_group_and_are_listed_by_it(sandbox: SandboxProcess) -> None:
    client, account = sdk(sandbox), an_account(sandbox)
    grouped, alone = paid(sandbox, transfer_group="case:transfers"), paid(sandbox, transfer_group=None)
    first = client.v1.transfers.create(transfer_params(account, grouped, transfer_group=None))
    second = client.v1.transfers.create(transfer_params(account, alone, transfer_group=None))
    intent = client.v1.charges.retrieve(alone).payment_intent
    assert (first.transfer_group, second.transfer_group) == ("case:transfers", f"group_{intent}")
    assert client.v1.charges.retrieve(alone).transfer_group == second.transfer_group
    assert [one.id for one in client.v1.transfers.list({"transfer_group": "case:transfers"}).data] == [first.id]


def test_transfers_are_listed_newest_first_page_by_page_and_by_time(sandbox: SandboxProcess) -> None:
    client, account, charge = sdk(sandbox), an_account(sandbox), paid(sandbox)
    made = [client.v1.transfers.create(transfer_params(account, charge, amount=a)) for a in (10, 20, 30)]
    first = client.v1.transfers.list({"destination": account, "limit": 2})
    assert first.has_more and [one.amount for one in first.auto_paging_iter()] == [30, 20, 10]
    later = {"destination": account, "created": {"gt": made[-1].created}}
    assert client.v1.transfers.list(later).data == []


# --- Reversals ---------------------------------------------------------------------------------------------


def test_a_transfer_is_taken_back_in_parts_up_to_the_whole(sandbox: SandboxProcess) -> None:
    client, charge = sdk(sandbox), paid(sandbox)
    made = client.v1.transfers.create(transfer_params(an_account(sandbox), charge, amount=2_000))
    part = client.v1.transfers.reversals.create(made.id, {"amount": 700, "metadata": {"refund_id": "5"}})
    assert (part.amount, part.transfer, part.metadata["refund_id"]) == (700, made.id, "5")
    line = client.v1.balance_transactions.retrieve(part.balance_transaction, {"expand": ["source"]})
    assert (line.amount, line.type, line.reporting_category) == (700, "transfer_refund", "transfer_reversal")
    # The money had not left yet, so it is not there any sooner than before.
    assert (line.source.id, line.status) == (part.id, "pending")
    half = client.v1.transfers.retrieve(made.id)
    assert (half.amount_reversed, half.reversed, [one.id for one in half.reversals.data]) == (700, False, [part.id])
    with pytest.raises(stripe.InvalidRequestError, match="greater than unreversed amount on transfer") as refused:
        client.v1.transfers.reversals.create(made.id, {"amount": 1_301})
    assert refused.value.param == "amount"
    rest = client.v1.transfers.reversals.create(made.id)
    whole = client.v1.transfers.retrieve(made.id)
    assert (rest.amount, whole.amount_reversed, whole.reversed) == (1_300, 2_000, True)
    assert [one.id for one in client.v1.transfers.reversals.list(made.id).data] == [rest.id, part.id]
    with pytest.raises(stripe.InvalidRequestError, match="already fully reversed"):
        client.v1.transfers.reversals.create(made.id)
    told = [event.data.object for event in _events(sandbox, "transfer.reversed") if event.data.object.id == made.id]
    assert [(one.amount_reversed, one.reversed) for one in told] == [(2_000, True), (700, False)]


def test_what_was_passed_on_and_taken_back_can_be_spent_again_when_its_day_comes(sandbox: SandboxProcess) -> None:
    client, charge = sdk(sandbox), paid(sandbox)
    made = client.v1.transfers.create(transfer_params(an_account(sandbox), charge, amount=2_000))
    back = client.v1.transfers.reversals.create(made.id)
    move_clock(sandbox, IN_A_WEEK)
    lines = [client.v1.balance_transactions.list({"source": one}).data[0] for one in (charge, made.id, back.id)]
    assert [(line.net, line.status) for line in lines] == [
        (2_442, "available"), (-2_000, "available"), (2_000, "available"),
    ]  # fmt: skip


def test_the_twelfth_reversal_is_listed_though_a_transfer_shows_but_ten(sandbox: SandboxProcess) -> None:
    client, charge = sdk(sandbox), paid(sandbox)
    made = client.v1.transfers.create(transfer_params(an_account(sandbox), charge))
    for _ in range(12):
        client.v1.transfers.reversals.create(made.id, {"amount": 10})
    shown = client.v1.transfers.retrieve(made.id).reversals
    assert (len(shown.data), shown.has_more) == (10, True)
    assert len(list(client.v1.transfers.reversals.list(made.id, {"limit": 5}).auto_paging_iter())) == 12


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"amount": 0}, "parameter_invalid_integer", "amount"),
        ({"reason": "fraudulent"}, "parameter_unknown", "reason"),
        ({"metadata": "refund 5"}, None, "metadata"),
    ],
)
def test_a_wrong_reversal_is_refused_by_its_name(
    sandbox: SandboxProcess, changes: dict[str, Any], code: str | None, param: str
) -> None:
    client, charge = sdk(sandbox), paid(sandbox)
    made = client.v1.transfers.create(transfer_params(an_account(sandbox), charge))
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.transfers.reversals.create(made.id, changes)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
    assert client.v1.transfers.retrieve(made.id).amount_reversed == 0


def test_an_unknown_transfer_is_not_found(sandbox: SandboxProcess) -> None:
    transfers = sdk(sandbox).v1.transfers
    for ask in (transfers.retrieve, transfers.reversals.create, transfers.reversals.list):
        with pytest.raises(stripe.InvalidRequestError, match="No such transfer: 'tr_none'") as refused:
            ask("tr_none")
        assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")


def test_a_word_that_is_no_capability_is_refused(sandbox: SandboxProcess) -> None:
    said = requests.post(f"{sandbox.url}/sandbox/accounts", json={"transfers": "perhaps"}, timeout=30)
    assert (said.status_code, said.json()) == (400, {"error": "transfers must be active or inactive."})


def _events(sandbox: SandboxProcess, kind: str) -> list[Any]:
    return eventually(lambda: sdk(sandbox).v1.events.list({"type": kind, "limit": 100}).data)
