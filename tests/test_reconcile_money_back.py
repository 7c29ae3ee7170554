"""The reconciler and what came after a charge, with every event lost: no webhook comes, and no list of events helps."""

import datetime as dt
from collections.abc import Callable

import pytest
import sqlalchemy as sa
import time_machine
from flask import Flask

import payments
from jobs.refunds import send_refunds
from models import Dispute, Movement, Pledge, Refund, db
from tests.at_stripe import DISPUTES, WORKS, charge_params, close_dispute, move_clock, saved_card, sdk
from tests.charged import again, asked, books, charge_due, charged, compared, control, due, letters, stripe_has, told
from tests.doorway import everything
from tests.made import a_user, keep, now, pledges_of
from tests.sandbox_process import SandboxProcess

LATER = dt.timedelta(days=5)


@pytest.fixture(autouse=True)
def no_news(asks_the_sandbox: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "news_since", lambda *_: payments.Page([], [], None, None))


def refunded_by_hand(sandbox: SandboxProcess, pledge: Pledge, amount: int) -> str:
    """Somebody pays back in Stripe's dashboard; Stripe's name of the refund."""
    intent_id = pledge.payment_intent_id
    db.session.rollback()
    return str(sdk(sandbox).v1.refunds.create({"payment_intent": intent_id, "amount": amount}).id)


def newest_dispute(sandbox: SandboxProcess) -> str:
    return str(sdk(sandbox).v1.disputes.list({"limit": 1}).data[0].id)


# --- What is mended ----------------------------------------------------------------------------------------


def test_a_refund_made_by_hand_at_stripe_comes_into_our_books(sandbox: SandboxProcess) -> None:
    pledge = charged(sandbox, 2_500)
    refunded_by_hand(sandbox, pledge, 700)
    assert compared() == (1, [])
    assert (again(pledge).status, again(pledge).refunded_pence) == ("charged", 700)
    assert books(pledge) == [("charge", 2_500), ("refund", -700), ("fee", -58)]
    assert letters("refunded") == [("refunded", f"pledge:{pledge.id}")]
    assert compared() == (0, [])


@pytest.mark.parametrize("how_late", [dt.timedelta(0), LATER])
def test_a_refund_that_failed_is_ours_again_even_when_it_fails_days_later(
    sandbox: SandboxProcess, how_late: dt.timedelta
) -> None:
    pledge = charged(sandbox, 2_500)
    asked(pledge, 2_500)
    send_refunds()
    assert again(pledge).status == "refunded"
    move_clock(sandbox, how_late)
    control(sandbox, f"refunds/{sdk(sandbox).v1.refunds.list({}).data[0].id}/failure")
    keep()
    with time_machine.travel(now() + how_late):
        assert compared() == (1, [])
    assert (again(pledge).status, again(pledge).refunded_pence) == ("charged", 0)
    assert [line for line in books(pledge) if line[0] != "fee"] == [
        ("charge", 2_500), ("refund", -2_500), ("refund", 2_500),
    ]  # fmt: skip
    assert told("refund_failed") == ["£25, lost_or_stolen_card"]


def test_a_dispute_that_nobody_told_us_of_holds_the_money(sandbox: SandboxProcess) -> None:
    person, pledge = f"user:{a_user('staff').id}", charged(sandbox, 2_500, DISPUTES)
    assert compared() == (1, [])
    assert again(pledge).status == "disputed"
    # Stripe keeps a fee for the dispute too, whoever wins it.
    assert books(pledge) == [("charge", 2_500), ("dispute", -2_500), ("fee", -2_000), ("fee", -58)]
    assert letters("disputed") == [("disputed", person)]
    assert compared() == (0, [])


@pytest.mark.parametrize(
    ("end", "status", "what_we_have"), [("won", "charged", 2_500), ("lost", "charged_back", 0)]
)  # fmt: skip
def test_what_the_bank_decides_days_later_is_found_too(
    sandbox: SandboxProcess, end: str, status: str, what_we_have: int
) -> None:
    pledge = charged(sandbox, 2_500, DISPUTES)
    compared()
    move_clock(sandbox, LATER)
    close_dispute(sandbox, newest_dispute(sandbox), end)
    keep()
    with time_machine.travel(now() + LATER):
        assert compared() == (1, [])
    assert again(pledge).status == status
    assert sum(pence for kind, pence in books(pledge) if kind != "fee") == what_we_have


def test_after_everything_that_can_come_our_ledger_and_the_balance_of_stripe_are_the_same(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page, so that nothing is lost between two of them."""
    monkeypatch.setattr(payments, "_PAGE", 2)
    due(sandbox, 1_000, 2_000, 3_000, 4_000, 5_000, cards=(WORKS, WORKS, WORKS, DISPUTES, DISPUTES))
    charge_due()
    whole, part, failed, _, _ = pledges_of("the-case")
    refunded_by_hand(sandbox, whole, 1_000)
    refunded_by_hand(sandbox, part, 500)
    control(sandbox, f"refunds/{refunded_by_hand(sandbox, failed, 3_000)}/failure")
    disputes = {one.amount: one.id for one in sdk(sandbox).v1.disputes.list({}).data}
    close_dispute(sandbox, disputes[4_000], "lost")
    close_dispute(sandbox, disputes[5_000], "won")
    assert compared()[1] == []
    ours = [books(pledge) for pledge in pledges_of("the-case")]
    assert [sum(pence for kind, pence in lines if kind != "fee") for lines in ours] == [0, 1_500, 3_000, 0, 5_000]
    assert [-sum(pence for kind, pence in lines if kind == "fee") for lines in ours] == [35, 50, 65, 2_080, 2_095]
    # Five charges, three refunds, one of them given back, two disputes, one of them given back.
    balance = sdk(sandbox).v1.balance_transactions.list({"limit": 100}).data
    assert (len(balance), sum(line.amount for line in balance), sum(line.net for line in balance)) == (12, 9_500, 5_175)
    assert compared() == (0, [])
    assert [books(pledge) for pledge in pledges_of("the-case")] == ours


# --- What is left alone, and what nobody may mend ----------------------------------------------------------


def test_what_happens_to_the_payments_of_another_site_changes_nothing(sandbox: SandboxProcess) -> None:
    pledge = charged(sandbox, 2_500)
    theirs = charge_params(*saved_card(sandbox), metadata={"pledge_id": str(pledge.id)})
    db.session.rollback()
    paid = sdk(sandbox).v1.payment_intents.create(theirs)
    sdk(sandbox).v1.refunds.create({"payment_intent": paid.id, "amount": 700})
    compared()  # brings the fee of our own charge
    before = everything()
    assert compared() == (0, [])
    after = everything()
    assert {name for name in before if before[name] != after[name]} == {"reconciliations"}


def _refund_of_ours_alone(pledge: Pledge, sandbox: SandboxProcess) -> None:
    pledge.apply_refund(payments.RefundFound("succeeded", "re_made_up", pledge.payment_intent_id, 700), now())


def _dispute_of_ours_alone(pledge: Pledge, sandbox: SandboxProcess) -> None:
    found = payments.DisputeFound("du_made_up", "ch", None, 2_500, "fraudulent", "open", False, None, now())
    Dispute.apply(found, pledge, now())


def _another_refund(pledge: Pledge, sandbox: SandboxProcess) -> None:
    made = payments.RefundFound("succeeded", refunded_by_hand(sandbox, pledge, 700), pledge.payment_intent_id, 600)
    pledge.apply_refund(made, now())


def _another_charge(pledge: Pledge, sandbox: SandboxProcess) -> None:
    db.session.scalars(sa.select(Movement)).one().amount_pence = 2_400


BY_HAND = pytest.mark.broken_books("its rows are changed by hand")


@pytest.mark.parametrize(
    ("happened", "findings"),
    [
        (_refund_of_ours_alone, ["Pledge 1 has a refund in the ledger, but Stripe has no re_made_up."]),
        (_dispute_of_ours_alone, ["Stripe has no dispute du_made_up, which our rows have."]),
        (
            _another_refund,
            [
                "Pledge 1 has Stripe's refund {re} of 700 pence, succeeded, but 600 pence in its ledger.",
                "Stripe's balance has -700 gbp for {re} (refund); our ledger has -600 pence.",
            ],
        ),
        pytest.param(
            _another_charge,
            ["Stripe's balance has 2500 gbp for {ch} (charge); our ledger has 2400 pence."],
            marks=BY_HAND,
        ),
    ],
)
def test_money_that_stripe_does_not_say_the_same_of_is_named(
    sandbox: SandboxProcess, happened: Callable[[Pledge, SandboxProcess], None], findings: list[str]
) -> None:
    pledge = charged(sandbox, 2_500)
    happened(again(pledge), sandbox)
    keep()
    client = sdk(sandbox).v1
    names = {"re": "".join(one.id for one in client.refunds.list({}).data), "ch": client.charges.list({}).data[0].id}
    assert compared() == (0, [finding.format(**names) for finding in findings])


def test_a_refund_of_ours_is_compared_with_the_row_that_asked_for_it(sandbox: SandboxProcess) -> None:
    """Stripe paid back and our worker died before the answer: the note on the refund leads to our row."""
    pledge = charged(sandbox, 2_500)
    refund_id = asked(pledge, 700)
    db.session.commit()
    noted = {"refund_id": str(refund_id), "pledge_id": str(pledge.id)}
    intent_id = again(pledge).payment_intent_id
    db.session.rollback()
    sdk(sandbox).v1.refunds.create({"payment_intent": intent_id, "amount": 700, "metadata": noted})
    assert compared() == (1, [])
    assert db.session.get_one(Refund, refund_id).status == "succeeded"
    assert stripe_has(sandbox, pledge) == [("succeeded", 700)]
