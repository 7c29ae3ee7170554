"""A supporter's bank wants a payment back: held, won or lost, told to staff, and never mixed up with anything else."""

import datetime as dt

import pytest
import sqlalchemy as sa
import time_machine
from flask import Flask

from jobs.refunds import send_refunds
from law import Refused
from letters import DISPUTES
from models import Dispute, Pledge, Refund, db
from payments import DisputeFound
from tests.at_stripe import DISPUTES as WANTED_BACK
from tests.at_stripe import calls, charge_params, close_dispute, plan, saved_card, sdk
from tests.charged import again, asked, books, charge_due, charged, control, due, letters, news, told
from tests.doorway import everything, logged_in
from tests.made import a_user, keep, look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess

EVERY = (
    "charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed", "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
)  # fmt: skip


def disputes() -> list[tuple[str, int | None]]:
    """(state, pledge) of all disputes."""
    look_anew()
    return [(one.status, one.pledge_id) for one in db.session.scalars(sa.select(Dispute).order_by(Dispute.id))]


def disputed(sandbox: SandboxProcess) -> tuple[Pledge, str]:
    """A pledge of £25 that was charged and whose bank wants it back, and Stripe's number of the dispute."""
    pledge = charged(sandbox, 2_500, WANTED_BACK)
    news(sandbox, *EVERY)
    return again(pledge), str(sdk(sandbox).v1.disputes.list({}).data[0].id)


def test_a_dispute_holds_the_money_and_tells_every_one_of_staff_until_when(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    people = [f"user:{a_user('staff').id}" for _ in range(2)]
    pledge, stripe_id = disputed(sandbox)
    assert (pledge.status, books(pledge)) == ("disputed", [("charge", 2_500), ("dispute", -2_500)])
    assert disputes() == [("open", pledge.id)]
    kept = db.session.scalars(sa.select(Dispute)).one()
    due_by = sdk(sandbox).v1.disputes.retrieve(stripe_id).evidence_details.due_by
    assert kept.due_by == dt.datetime.fromtimestamp(due_by, dt.UTC)
    assert letters("disputed") == [("disputed", person) for person in people]


@pytest.mark.parametrize(
    ("end", "status", "ledger", "told"),
    [
        (
            "won", "charged", [("charge", 2_500), ("dispute", -2_500), ("dispute", 2_500)],
            ("payment_stands", "dispute_won"),
        ),
        ("lost", "charged_back", [("charge", 2_500), ("dispute", -2_500)], ("payment_taken_back", "dispute_lost")),
    ],
)  # fmt: skip
def test_the_bank_decides_once_however_often_it_is_told_and_everybody_gets_two_letters(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, end: str, status: str, ledger: list[tuple[str, int]],
    told: tuple[str, str],
) -> None:  # fmt: skip
    staff = [f"user:{a_user('staff').id}" for _ in range(2)]
    pledge, stripe_id = disputed(sandbox)
    supporter = f"pledge:{pledge.id}"
    assert letters(*DISPUTES) == told_to(supporter, staff, "payment_disputed", "disputed")
    close_dispute(sandbox, stripe_id, end)
    for _ in range(2):
        news(sandbox, *EVERY)
        news(sandbox, *reversed(EVERY))
    assert (again(pledge).status, books(pledge)) == (status, ledger)
    assert disputes() == [(end, pledge.id)]
    assert letters(*DISPUTES) == [
        *told_to(supporter, staff, "payment_disputed", "disputed"), *told_to(supporter, staff, *told),
    ]  # fmt: skip


def told_to(supporter: str, staff: list[str], to_supporter: str, to_staff: str) -> list[tuple[str, str]]:
    """(kind, subject) of the letters about one state of a dispute."""
    return [(to_supporter, supporter), *((to_staff, person) for person in staff)]


@pytest.mark.parametrize(("end", "status"), [("won", "charged"), ("lost", "charged_back")])
def test_news_that_comes_only_after_the_end_leads_to_the_same(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, end: str, status: str
) -> None:
    pledge = charged(sandbox, 2_500, WANTED_BACK)
    close_dispute(sandbox, sdk(sandbox).v1.disputes.list({}).data[0].id, end)
    news(sandbox, *EVERY)
    assert again(pledge).status == status
    assert sum(pence for _, pence in books(pledge)) == (2_500 if end == "won" else 0)


def test_nothing_is_refunded_while_the_bank_decides(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    pledge, _ = disputed(sandbox)
    before = everything()
    with pytest.raises(Refused, match="Nothing can be refunded until it decides"):
        Pledge.hold(pledge.id).ask_refund("k" * 24, 100, "Why.", db.session.merge(a_user("staff")), now())
    db.session.rollback()
    assert everything()["refunds"] == before["refunds"] == []


def test_a_refund_that_meets_a_dispute_at_stripe_fails_and_staff_are_told(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """We do not know of the dispute yet: its event is still on its way."""
    pledge = charged(sandbox, 2_500, WANTED_BACK)
    asked(pledge, 2_500)
    send_refunds()
    assert told("refund_failed") == ["£25, charge_disputed"]
    assert (again(pledge).refunded_pence, again(pledge).status) == (0, "charged")
    assert len(letters("refund_failed")) == 1


@pytest.mark.parametrize("end", ["", "won"])
def test_a_refund_that_was_decided_before_we_heard_of_a_dispute_is_not_asked_for_after_it(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, end: str
) -> None:
    """Even if Stripe would take it by now, the bank having decided, which we have not heard of yet."""
    pledge = charged(sandbox, 2_500, WANTED_BACK)
    asked(pledge, 2_500)
    news(sandbox, *EVERY)
    if end:
        close_dispute(sandbox, sdk(sandbox).v1.disputes.list({}).data[0].id, end)
    send_refunds()
    assert calls(sandbox, "refunds.create") == []
    assert told("refund_failed") == ["£25, charge_disputed"]
    assert (again(pledge).refunded_pence, again(pledge).status) == (0, "disputed")
    assert len(letters("refund_failed")) == 1


@pytest.mark.parametrize("arrived", [True, False])
def test_a_refund_whose_answer_was_lost_is_looked_for_when_a_dispute_came_meanwhile(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, arrived: bool
) -> None:
    pledge = charged(sandbox, 2_500)
    asked(pledge, 1_000)
    plan(sandbox, operation="refunds.create", fault="lose_answer" if arrived else "refuse", times=3)
    send_refunds()
    control(sandbox, f"charges/{pledge.attempts[-1].charge_id}/dispute")
    news(sandbox, *EVERY)
    assert again(pledge).status == "disputed"
    for hours, status in ((1, "succeeded" if arrived else "asking"), (25, "succeeded" if arrived else "failed")):
        with time_machine.travel(now() + dt.timedelta(hours=hours)):
            send_refunds()
        assert db.session.scalars(sa.select(Refund.status)).one() == status
        keep()
    assert len(calls(sandbox, "refunds.create")) == 3


def test_a_part_that_went_back_before_is_not_disputed(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    pledge = charged(sandbox, 2_500)
    asked(pledge, 1_000)
    send_refunds()
    control(sandbox, f"charges/{sdk(sandbox).v1.charges.list({}).data[0].id}/dispute")
    news(sandbox, *EVERY)
    assert books(pledge) == [("charge", 2_500), ("refund", -1_000), ("dispute", -1_500)]


def test_a_dispute_that_overtakes_the_failure_of_a_refund_finds_it(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """All of it had gone back; then £15 came back to us, the bank wants them, and only that has reached us."""
    pledge = charged(sandbox, 2_500)
    for amount in (1_000, 1_500):
        asked(pledge, amount)
        send_refunds()
    assert again(pledge).status == "refunded"
    control(sandbox, f"refunds/{sdk(sandbox).v1.refunds.list({}).data[0].id}/failure")
    control(sandbox, f"charges/{sdk(sandbox).v1.charges.list({}).data[0].id}/dispute")
    news(sandbox, *EVERY)
    assert again(pledge).status == "disputed"
    assert books(pledge) == [
        ("charge", 2_500), ("refund", -1_000), ("refund", -1_500), ("refund", 1_500), ("dispute", -1_500),
    ]  # fmt: skip


@pytest.mark.parametrize(("outcome", "status"), [("open", "disputed"), ("lost", "charged_back"), ("won", "charged")])
def test_a_refund_that_fails_after_a_dispute_leaves_what_the_bank_has_said(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, outcome: str, status: str
) -> None:
    """The bank asked for what had gone back already; then the refund failed."""
    pledge = charged(sandbox, 2_500)
    asked(pledge, 2_500)
    send_refunds()
    intent_id = str(again(pledge).payment_intent_id)
    wanted = DisputeFound("du_1", "ch_1", intent_id, 2_500, "fraudulent", outcome, True, None, now())
    Dispute.apply(wanted, Pledge.hold(pledge.id), now())
    keep()
    assert again(pledge).status == "refunded"
    control(sandbox, f"refunds/{sdk(sandbox).v1.refunds.list({}).data[0].id}/failure")
    news(sandbox, "refund.failed")
    assert again(pledge).status == status


@pytest.mark.broken_books("such a dispute is for staff to look at, so the doctor names it")
def test_a_dispute_of_a_charge_that_is_not_ours_is_shown_to_staff_and_changes_nothing_else(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge, person = charged(sandbox, 2_500), a_user("staff")
    # Another site with the same Stripe account has a pledge of the same number.
    stranger = charge_params(*saved_card(sandbox, WANTED_BACK), metadata={"pledge_id": str(pledge.id)})
    db.session.rollback()
    sdk(sandbox).v1.payment_intents.create(stranger)
    before = everything()
    news(sandbox, *EVERY)
    after = everything()
    assert {name for name in before if before[name] != after[name]} == {
        "disputes", "events", "letters", "stripe_events",
    }  # fmt: skip
    assert disputes() == [("open", None)]
    assert letters("disputed") == [("disputed", f"user:{person.id}")]
    assert "none of ours: charge ch_" in logged_in(asks_the_sandbox, db.session.merge(person)).get("/staff").text


def test_a_dispute_that_overtakes_the_answer_of_the_charge_is_not_lost(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """Stripe charged, our answer was lost, and the dispute is the first that we hear of it."""
    due(sandbox, 2_500, cards=(WANTED_BACK,))
    plan(sandbox, operation="payment_intents.create", fault="lose_answer", times=3)
    charge_due()
    assert pledges_of("the-case")[0].status == "unknown"
    keep()
    news(sandbox, *EVERY)
    (pledge,) = pledges_of("the-case")
    assert (pledge.status, books(pledge)) == ("disputed", [("charge", 2_500), ("dispute", -2_500)])
