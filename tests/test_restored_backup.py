"""Our rows are those of a backup, and Stripe knows more than they do: it is asked what it has before it is charged."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask

from jobs import cards, doctor
from models import Pledge, Round, db
from tests.at_stripe import DECLINES_LATER, calls, move_clock, saved_card, sdk
from tests.backup import back_up, restore
from tests.charged import again, books, charge_due, due
from tests.made import a_case, keep, now, pledges_of
from tests.sandbox_process import SandboxProcess

CREATE = "payment_intents.create"


def days_pass(sandbox: SandboxProcess, hours: int) -> None:
    """Everything our rows know of lies so much further back, and Stripe forgets the keys of more than a day ago."""
    move_clock(sandbox, dt.timedelta(hours=hours))
    for its_round in db.session.scalars(sa.select(Round)):
        its_round.deadline = now() - dt.timedelta(hours=hours)
    keep()


def payments_at_stripe(sandbox: SandboxProcess) -> list[str]:
    return sorted(one.status for one in sdk(sandbox).v1.payment_intents.list({"limit": 100}).data)


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
