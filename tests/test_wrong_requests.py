"""A charge that Stripe calls a wrong request, which is a mistake of ours: asked for once, told of, and then left."""

import datetime as dt

import pytest
import time_machine
from flask import Flask

from jobs import doctor
from jobs import sweep as the_sweep
from models import Pledge, Round, db
from tests.at_stripe import DECLINES_LATER, calls, plan
from tests.charged import again, books, charge_due, due, letters, told
from tests.made import keep, look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess

CREATE, CONFIRM = "payment_intents.create", "payment_intents.confirm"
HALTED = "Pledge {} is not asked for any more, since Stripe calls our request wrong; see flask ask-again."
on_purpose = pytest.mark.broken_books("a pledge waits for a person")


def a_day_of_sweeps() -> None:
    """The clock comes by every hour for a day, and does itself whatever it finds."""
    for hours in range(1, 25):
        with time_machine.travel(now() + dt.timedelta(hours=hours), tick=False):
            the_sweep.sweep(now())
    look_anew()


@on_purpose
def test_it_is_asked_for_once_and_the_operator_told_while_the_others_are_charged(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    wrong, _ = due(sandbox, 2_500, 9_000)
    plan(sandbox, operation=CREATE, fault="error", status=400, times="always",
         match={"metadata[pledge_id]": str(wrong.id)})  # fmt: skip
    charge_due()
    assert [one.status for one in pledges_of("the-case")] == ["unknown", "charged"]
    a_day_of_sweeps()
    assert len(calls(sandbox, CREATE)) == 2
    assert letters("charges_halted") == [("charges_halted", f"round:{wrong.round_id}")]
    assert len(told("halted")) == 1
    assert HALTED.format(wrong.id) in doctor.examine(now())


def test_once_the_mistake_is_mended_the_charge_goes_on_with_its_key(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    (pledge,) = due(sandbox, 2_500)
    plan(sandbox, operation=CREATE, fault="error", status=400)
    charge_due()
    runner = asks_the_sandbox.test_cli_runner()
    keep()
    assert runner.invoke(args=["ask-again", "the-case"]).output.endswith("Charges that are asked for again: 1.\n")
    charge_due()
    assert (again(pledge).status, books(pledge)) == ("charged", [("charge", 2_500)])
    assert {call["idempotency_key"] for call in calls(sandbox, CREATE)} == {f"pledge-{pledge.id}-charge-1"}
    assert told("asked_again") == [""]


def test_a_key_that_stripe_knows_with_other_words_is_looked_up(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """Its answer was lost, and then somebody changed what we would ask for; Stripe has the payment all the same."""
    (pledge,) = due(sandbox, 2_500)
    plan(sandbox, operation=CREATE, fault="lose_answer", times=3)
    charge_due()
    assert again(pledge).status == "unknown"
    held = Pledge.hold(pledge.id)
    held.attempts[0].params = {**held.attempts[0].params, "description": "Pledge for a case with another title"}
    held.next_at = now()
    keep()
    charge_due()
    assert (again(pledge).status, books(pledge)) == ("charged", [("charge", 2_500)])


@on_purpose
def test_a_further_try_of_a_refused_card_is_halted_too(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    (pledge,) = due(sandbox, 2_500, cards=(DECLINES_LATER,))
    charge_due()
    refused = Pledge.hold(pledge.id)
    assert refused.refused_softly
    refused.retry(now())
    keep()
    plan(sandbox, operation=CONFIRM, fault="error", status=400, times="always")
    charge_due()
    a_day_of_sweeps()
    assert again(pledge).status == "unknown"
    assert len(calls(sandbox, CONFIRM)) == 1
    assert [one.id for one in db.session.get_one(Round, pledge.round_id).halted()] == [pledge.id]


def test_in_a_case_that_was_cancelled_meanwhile_it_is_given_up_like_the_others(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    (pledge,) = due(sandbox, 2_500)
    held = Pledge.hold(pledge.id)
    held.claim(now(), dt.timedelta(seconds=10))
    held.round.case.cancel("The claim was settled.", "operator", now())
    held.halt("parameter_unknown", now())
    assert Pledge.waiting_to_stop(now()) == [pledge.id]
    assert letters("charges_halted") == []
