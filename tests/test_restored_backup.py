"""Our rows are those of a backup, and Stripe knows more than they do: it is asked what it has before it is charged."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask

import law
from jobs import cancelled_cases, cards, doctor, refunds
from models import Pledge, Round, db
from tests.at_stripe import DECLINES_LATER, WORKS, calls, move_clock, saved_card, sdk
from tests.backup import back_up, restore
from tests.charged import again, asked, books, charge_due, due, letters
from tests.made import a_case, case_at, keep, now, pledges_of
from tests.sandbox_process import SandboxProcess

CREATE = "payment_intents.create"


def days_pass(sandbox: SandboxProcess, hours: int) -> None:
    """Everything our rows know of lies so much further back, and Stripe forgets the keys of more than a day ago."""
    move_clock(sandbox, dt.timedelta(hours=hours))
    for its_round in db.session.scalars(sa.select(Round)):
        its_round.deadline = now() - dt.timedelta(hours=hours)
        for pledge in its_round.pledges(*law.PLEDGE_MOVES):
            pledge.agreements[-1].deadline = its_round.deadline
    keep()


def payments_at_stripe(sandbox: SandboxProcess) -> list[str]:
    return sorted(one.status for one in sdk(sandbox).v1.payment_intents.list({"limit": 100}).data)


def cancel_and_look() -> None:
    """Staff cancel the case of the restored rows, and the clock comes by."""
    case_at("the-case").cancel("It was a fraud.", "user:1", now())
    keep()
    cancelled_cases.release_cancelled()


@pytest.mark.parametrize("hours", [1, 26, 24 * 20])
def test_what_was_charged_since_the_backup_is_not_charged_again(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, hours: int
) -> None:
    paid, late = due(sandbox, 2_500, 9_000)
    Pledge.hold(late.id).next_at = now() + dt.timedelta(hours=1)
    keep()
    backup = back_up()
    charge_due()
    assert [one.status for one in pledges_of("the-case")] == ["charged", "due"]
    restore(backup)
    assert [one.status for one in pledges_of("the-case")] == ["due", "due"]
    Pledge.hold(late.id).next_at = now()
    days_pass(sandbox, hours)
    charge_due()
    assert payments_at_stripe(sandbox) == ["succeeded", "succeeded"]
    assert [one.status for one in pledges_of("the-case")] == ["charged", "charged"]
    assert books(paid) == [("charge", 2_500)] and books(late) == [("charge", 9_000)]


def test_what_was_refused_since_the_backup_is_found_refused(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    (pledge,) = due(sandbox, 2_500, cards=(DECLINES_LATER,))
    backup = back_up()
    charge_due()
    restore(backup)
    days_pass(sandbox, 26)
    charge_due()
    assert again(pledge).status == "declined"
    assert len(calls(sandbox, CREATE)) == 1 and payments_at_stripe(sandbox) == ["requires_payment_method"]


@pytest.mark.broken_books("a pledge waits for a person")
def test_what_was_cancelled_since_the_backup_cannot_be_charged_and_is_named(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """Its supporter was told that it is cancelled, and its card was removed at Stripe."""
    case = a_case(slug="the-case", target=2_500, pledged=[2_500])
    (pledge,) = case.round.pledges("confirmed")
    pledge.customer_id, pledge.payment_method_id = saved_card(sandbox)
    keep()
    backup = back_up()
    Pledge.hold(pledge.id).cancel(now())
    keep()
    cards.let_go()
    restore(backup)
    its_round = Round.hold(case.round.id)
    its_round.close(its_round.deadline + dt.timedelta(seconds=1))
    its_round.settle(now())
    keep()
    charge_due()
    assert (again(pledge).status, books(pledge)) == ("unknown", [])
    assert "succeeded" not in payments_at_stripe(sandbox)
    assert [finding for finding in doctor.examine(now()) if "flask ask-again" in finding]


@pytest.mark.parametrize("hours", [1, 26])
def test_a_case_that_is_cancelled_after_a_restore_tells_nobody_who_was_charged_that_he_was_not(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, hours: int
) -> None:
    paid, refused, waits = due(sandbox, 2_500, 3_000, 9_000, cards=(WORKS, DECLINES_LATER, WORKS))
    Pledge.hold(waits.id).next_at = now() + dt.timedelta(hours=1)
    keep()
    backup = back_up()
    charge_due()
    assert [one.status for one in pledges_of("the-case")] == ["charged", "declined", "due"]
    restore(backup)
    days_pass(sandbox, hours)
    cancel_and_look()
    assert [one.status for one in pledges_of("the-case")] == ["charged", "released", "released"]
    assert payments_at_stripe(sandbox) == ["canceled", "succeeded"]
    assert letters("case_cancelled") == [("case_cancelled", f"pledge:{one.id}") for one in (refused, waits)]
    assert letters("charged", "cancelled_charged") == [
        ("charged", f"pledge:{paid.id}"),
        ("cancelled_charged", f"pledge:{paid.id}"),
    ]
    found = again(paid).attempts
    assert [(one.number, one.kind, one.key, one.status) for one in found] == [
        (1, "create", f"pledge-{paid.id}-charge-1", "succeeded")
    ]
    asked(paid, 2_500)
    refunds.send_refunds()
    assert (again(paid).status, books(paid)) == ("refunded", [("charge", 2_500), ("refund", -2_500)])


def test_a_further_try_that_a_backup_says_is_due_and_that_was_paid_since_is_found_paid(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    (pledge,) = due(sandbox, 2_500, cards=(DECLINES_LATER,))
    charge_due()
    held = Pledge.hold(pledge.id)
    _, held.payment_method_id = saved_card(sandbox, WORKS, customer=held.customer_id, customer_creation=None,
                                           customer_email=None)  # fmt: skip
    held.retry(now())
    keep()
    backup = back_up()
    charge_due()
    assert again(pledge).status == "charged"
    restore(backup)
    cancel_and_look()
    assert (again(pledge).status, len(again(pledge).attempts), books(pledge)) == ("charged", 1, [("charge", 2_500)])
    assert letters("case_cancelled") == []
