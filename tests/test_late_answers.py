"""An answer that comes so late that the next attempt is under way: it is never taken for the answer to that one."""

import datetime as dt
from collections.abc import Callable

import pytest
from flask import Flask

import payments
from jobs import deadline_capture
from jobs.charging import Answered, PacedThreads
from jobs.deadline_capture import Asking
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


@pytest.mark.parametrize("first", [0, 1], ids=["the older one first", "the newer one first"])
def test_of_two_answers_about_one_pledge_in_one_batch_each_is_written_down(app: Flask, first: int) -> None:
    """A try of long ago was paid, as we learn only now; the one after it was refused meanwhile."""
    pledge = a_refused()
    pledge_id = pledge.id
    assert pledge.pay_again(now())
    pledge.claim(now(), LEASE)
    keep()
    paid = ChargeFound("succeeded", f"pi_{pledge_id}", "ch_1", 2_500)
    refused = ChargeFound("declined", f"pi_{pledge_id}", "ch_2", 0, "generic_decline", soft=True)
    both: list[Answered[Asking, ChargeFound | None]] = [
        Answered(asking(pledge, 1), paid, None), Answered(asking(pledge, 2), refused, None),
    ]  # fmt: skip
    run = in_the_middle_of_a_run(both[0].asked, both[1].asked)
    run._write_down([both[first], both[1 - first]])
    held = Pledge.hold(pledge_id)
    assert (held.status, books(held)) == ("charged", [("charge", 2_500)])
    assert held.attempts[0].charge_id == "ch_1"
    assert not run.under_way


def test_a_run_waits_for_each_of_two_tries_of_one_pledge(app: Flask) -> None:
    pledge = a_refused()
    pledge_id = pledge.id
    assert pledge.pay_again(now())
    pledge.claim(now(), LEASE)
    older, newer = asking(pledge, 1), asking(pledge, 2)
    keep()
    run = in_the_middle_of_a_run(older, newer)
    run._write_down([Answered(older, ChargeFound("unknown", code="no answer"), None)])
    assert dict(run.under_way) == {pledge_id: 1}
    run._write_down([Answered(newer, ChargeFound("succeeded", f"pi_{pledge_id}", "ch_2", 2_500), None)])
    assert not run.under_way
    assert Pledge.hold(pledge_id).status == "charged"


def asking(pledge: Pledge, number: int) -> Asking:
    """A try of this number, as the capturer has asked for it."""
    attempt = pledge.attempts[number - 1]
    return Asking(pledge.id, pledge.round.case_id, number, attempt.key, {}, str(pledge.customer_id), now(), now())


def in_the_middle_of_a_run(*askings: Asking) -> deadline_capture.Run:
    """A capturer that has asked for all of this and waits for the answers."""
    nobody = PacedThreads[Asking, ChargeFound | None](lambda asked: None, 100)
    run = deadline_capture.Run("somebody", nobody, 100)
    run.under_way.update(one.pledge_id for one in askings)
    return run
