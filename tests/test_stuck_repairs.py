"""A further try of a refused card that came to no end in time: the supporter was told when the time is over."""

import datetime as dt

import pytest
import time_machine
from flask import Flask

from jobs import deadline_capture, repairs
from jobs import sweep as the_sweep
from models import Pledge, begin_writing, db
from tests.at_stripe import DECLINES_LATER, WORKS, calls, plan, saved_card, sdk
from tests.charged import again, books, charge_due, due, letters
from tests.made import keep, now
from tests.sandbox_process import SandboxProcess

CONFIRM = "payment_intents.confirm"
A_WEEK, HOUR, SECOND = dt.timedelta(days=7), dt.timedelta(hours=1), dt.timedelta(seconds=1)


def refused(sandbox: SandboxProcess, ago: dt.timedelta) -> Pledge:
    """A pledge whose card was refused so long ago, and which got a card since that would pay."""
    (pledge,) = due(sandbox, 2_500, cards=(DECLINES_LATER,))
    charge_due()
    held = Pledge.hold(pledge.id)
    assert held.refused_at is not None and held.repair_until is not None
    held.refused_at, held.repair_until = held.refused_at - ago, held.repair_until - ago
    _, held.payment_method_id = saved_card(sandbox, WORKS, customer=held.customer_id, customer_creation=None,
                                           customer_email=None)  # fmt: skip
    held.retry(now())
    keep()
    return pledge


def clock() -> None:
    """What the clock finds to do for the pledge, and does."""
    begin_writing()
    for pledge_id in the_sweep.TIMETABLE["tend"](now()):
        db.session.commit()
        assert pledge_id is not None
        repairs.tend(pledge_id)
    db.session.commit()
    charge_due()


def payment_of(sandbox: SandboxProcess, pledge: Pledge) -> str:
    found = sdk(sandbox).v1.payment_intents.retrieve(again(pledge).payment_intent_id).status
    keep()
    return str(found)


@pytest.mark.parametrize(
    ("late", "ends", "at_stripe"), [(-SECOND, "charged", "succeeded"), (SECOND, "dropped", "canceled")]
)
def test_a_try_that_nobody_began_is_made_up_to_an_hour_after_the_window_and_then_never(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, late: dt.timedelta, ends: str, at_stripe: str
) -> None:
    pledge = refused(sandbox, dt.timedelta(0))
    refused_at = again(pledge).refused_at
    assert refused_at is not None
    keep()
    with time_machine.travel(refused_at + A_WEEK + HOUR + late, tick=False):
        clock()
        assert (again(pledge).status, payment_of(sandbox, pledge)) == (ends, at_stripe)
    assert books(pledge) == ([("charge", 2_500)] if ends == "charged" else [])
    assert len(letters("dropped")) == (ends == "dropped")
    assert len(calls(sandbox, CONFIRM)) == (ends == "charged")


def test_a_try_whose_answer_was_lost_is_not_sent_again_after_the_window_but_given_up(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge = refused(sandbox, A_WEEK - HOUR)
    plan(sandbox, operation=CONFIRM, fault="refuse", times=3)
    charge_due()
    assert again(pledge).status == "unknown"
    keep()
    with time_machine.travel(now() + 2 * HOUR + SECOND, tick=False):
        clock()
    assert (again(pledge).status, payment_of(sandbox, pledge), books(pledge)) == ("dropped", "canceled", [])
    assert len(calls(sandbox, CONFIRM)) == 3


def test_a_try_that_was_paid_while_its_answer_was_lost_is_found_paid_and_not_dropped(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge = refused(sandbox, A_WEEK - HOUR)
    plan(sandbox, operation=CONFIRM, fault="lose_answer", times=3)
    charge_due()
    assert again(pledge).status == "unknown"
    keep()
    with time_machine.travel(now() + 2 * HOUR + SECOND, tick=False):
        clock()
    assert (again(pledge).status, books(pledge)) == ("charged", [("charge", 2_500)])
    assert letters("dropped") == []


def test_a_try_that_is_on_its_way_as_the_time_ends_keeps_its_claim(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge = refused(sandbox, A_WEEK + HOUR - SECOND)
    held = Pledge.hold(pledge.id)
    held.claim(now(), deadline_capture.CLAIM_LEASE)
    keep()
    with time_machine.travel(now() + 2 * SECOND, tick=False):
        clock()
        assert again(pledge).status == "charging"
        keep()
    with time_machine.travel(now() + deadline_capture.CLAIM_LEASE + SECOND, tick=False):
        clock()
    assert again(pledge).status == "dropped"
