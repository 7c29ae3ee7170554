"""An answer that comes so late that the next attempt is under way: it is never taken for the answer to that one."""

import datetime as dt
from collections.abc import Callable

import pytest
from flask import Flask

import payments
from jobs import deadline_capture
from models import Pledge, begin_writing, db
from payments import ChargeFound
from tests.at_stripe import DECLINES_LATER, WORKS, saved_card
from tests.charged import again, books, charge_due, due, letters
from tests.made import keep, now
from tests.sandbox_process import SandboxProcess
from tests.test_models_repairs import a_refused

LEASE = dt.timedelta(seconds=10)


def busy() -> ChargeFound:
    raise payments.StripeBusy("rate_limit")


def wrong_request() -> ChargeFound:
    raise payments.StripeRefused("parameter_unknown")


@pytest.mark.parametrize(
    "late_answer",
    [
        lambda: ChargeFound("declined", "pi_1", "ch_1", 0, "generic_decline", soft=True),
        lambda: ChargeFound("unknown", code="no answer"),
        lambda: None,
        busy,
        wrong_request,
    ],
    ids=["declined", "unknown", "nothing there", "busy", "wrong request"],
)
def test_a_slow_answer_to_the_try_before_says_nothing_about_the_one_that_is_under_way(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch,
    late_answer: Callable[[], ChargeFound | None],
) -> None:  # fmt: skip
    """The supporter pays again, and Stripe takes longer than the claim: the capturer asks the same, and hears that the
    card was refused. She takes a card that works and pays once more, which is under way as the first answer comes."""
    (pledge,) = due(sandbox, 2_500, cards=(DECLINES_LATER,))
    charge_due()
    pledge_id, really = pledge.id, deadline_capture._ask
    asked_before: list[bool] = []
    claimed_until: list[dt.datetime | None] = []
    keep()

    def ask(*asked: object) -> ChargeFound | None:
        if asked_before:
            return really(*asked)  # type: ignore[arg-type]
        asked_before.append(True)
        with asks_the_sandbox.app_context():
            begin_writing()
            Pledge.hold(pledge_id).next_at = now()
            db.session.commit()
            deadline_capture.charge_due()
            held = Pledge.hold(pledge_id)
            assert (held.status, len(held.attempts)) == ("declined", 2)
            _, held.payment_method_id = saved_card(sandbox, WORKS, customer=held.customer_id, customer_creation=None,
                                                   customer_email=None)  # fmt: skip
            assert held.pay_again(now())
            held.claim(now(), LEASE)
            claimed_until.append(held.next_at)
            db.session.commit()
        return late_answer()

    monkeypatch.setattr(deadline_capture, "_ask", ask)
    deadline_capture.pay_again(pledge_id, "https://standing.example/pledges/bank-return")
    held = again(pledge)
    assert (held.status, [one.status for one in held.attempts]) == ("charging", ["declined", "declined", "asking"])
    assert [held.next_at] == claimed_until
    assert len(letters("declined", "charges_halted")) == 2
    held.next_at = now()
    keep()
    charge_due()
    assert (again(pledge).status, books(pledge)) == ("charged", [("charge", 2_500)])
    assert again(pledge).attempts[2].status == "succeeded"


def test_money_that_an_attempt_before_has_taken_is_believed_and_written_down_as_its_own(app: Flask) -> None:
    pledge = a_refused()
    assert pledge.pay_again(now())
    pledge.claim(now(), LEASE)
    pledge.apply_answer(1, ChargeFound("succeeded", f"pi_{pledge.id}", "ch_late", 2_500), now())
    assert (pledge.status, [one.status for one in pledge.attempts]) == ("charged", ["succeeded", "asking"])
    assert [one.charge_id for one in pledge.attempts] == ["ch_late", None]
    pledge.apply_answer(2, ChargeFound("succeeded", f"pi_{pledge.id}", "ch_late", 2_500), now())
    pledge.apply_answer(2, ChargeFound("declined", f"pi_{pledge.id}", "ch_2", 0), now())
    assert pledge.status == "charged"
    keep()
    assert books(pledge) == [("charge", 2_500)]
