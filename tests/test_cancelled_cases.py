"""A case that staff cancel while its pledges are being charged: the rest is let go, and nothing is guessed."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
import stripe
import time_machine
from flask import Flask

import jobs
import payments
from jobs import deadline_capture, repairs, sweep
from jobs.cancelled_cases import release_cancelled
from jobs.cards import let_go
from jobs.refunds import send_refunds
from jobs.stripe_events import look_again_at_charge
from law import Refused
from letters import is_true, write
from models import Letter, Pledge, begin_writing, db
from tests.at_stripe import BANK_ASKS_LATER, DECLINES_LATER, WORKS, calls, page_params, plan, sdk, type_card
from tests.charged import again, asked, books, charge_due, due, letters
from tests.doorway import SAME_ORIGIN, logged_in, token_on
from tests.made import a_case, a_user, case_at, keep, look_anew, now, pledges_of
from tests.mailbox import text_of
from tests.sandbox_process import SandboxProcess

REASON = "The claim was settled."


def cancel(slug: str = "the-case") -> None:
    case_at(slug).cancel(REASON, "user:1", now())
    keep()


def stop_what_waits() -> None:
    """What the sweep would ring for."""
    waits = sweep.TIMETABLE["release_cancelled"](now())
    keep()
    if waits:
        release_cancelled()
    look_anew()


def states() -> list[str]:
    return [pledge.status for pledge in pledges_of("the-case")]


def payments_at_stripe(sandbox: SandboxProcess) -> list[str]:
    return sorted(one.status for one in sdk(sandbox).v1.payment_intents.list({"limit": 100}).data)


def test_what_was_never_asked_for_is_released_once_stripe_has_nothing_of_it_and_never_charged(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledges = due(sandbox, 2_500, 9_000)
    cancel()
    case = case_at("the-case")
    assert (case.status, case.round.status, case.ended_because) == ("cancelled", "met", REASON)
    assert (case.round.settled_total_pence, case.round.settled_count) == (11_500, 2)
    assert (states(), letters("case_cancelled")) == (["due", "due"], [])
    charge_due()
    stop_what_waits()
    assert (states(), len(calls(sandbox, "payment_intents.list"))) == (["released", "released"], 2)
    let_go()
    assert calls(sandbox, "payment_intents.create") == []
    assert letters("case_cancelled") == [("case_cancelled", f"pledge:{pledge.id}") for pledge in pledges]
    assert [pledge.payment_method_id for pledge in pledges_of("the-case")] == [None, None]


def test_what_was_charged_stays_charged_and_refused_ones_can_never_be_paid_after_it(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    paid, refused, waits = due(sandbox, 2_500, 3_000, 4_000, cards=(WORKS, DECLINES_LATER, BANK_ASKS_LATER))
    charge_due()
    assert states() == ["charged", "declined", "action_required"]
    cancel()
    # Nobody is told "you were not charged" before Stripe has said that the payment is over.
    assert (states(), letters("case_cancelled")) == (["charged", "declined", "action_required"], [])
    stop_what_waits()
    assert states() == ["charged", "released", "released"]
    assert payments_at_stripe(sandbox) == ["canceled", "canceled", "succeeded"]
    assert sorted(letters("case_cancelled")) == [("case_cancelled", f"pledge:{one.id}") for one in (refused, waits)]
    assert letters("cancelled_charged") == [("cancelled_charged", f"pledge:{paid.id}")]
    assert books(paid) == [("charge", 2_500)]


def test_a_refused_payment_that_was_paid_after_all_is_found_charged_and_not_released(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """The supporter had approved it at the bank, and our news of it was still on its way."""
    (pledge,) = due(sandbox, 2_500, cards=(DECLINES_LATER,))
    charge_due()
    intent_id, customer = again(pledge).payment_intent_id, again(pledge).customer_id
    keep()
    pay_by_another_card(sandbox, str(intent_id), str(customer))
    cancel()
    stop_what_waits()
    assert (states(), books(pledge)) == (["charged"], [("charge", 2_500)])
    assert letters("case_cancelled") == []
    assert letters("charged", "cancelled_charged") == [
        ("charged", f"pledge:{pledge.id}"),
        ("cancelled_charged", f"pledge:{pledge.id}"),
    ]


def pay_by_another_card(sandbox: SandboxProcess, intent_id: str, customer: str) -> None:
    """As if the same payment had gone through: the sandbox is told to let the bank say yes."""
    client = sdk(sandbox)
    session = client.v1.checkout.sessions.create(page_params(customer=customer, customer_creation=None,
                                                             customer_email=None))  # fmt: skip
    type_card(session.url, WORKS)
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["setup_intent"]})
    client.v1.payment_intents.confirm(intent_id, {"payment_method": done.setup_intent.payment_method})


def test_an_unknown_charge_is_looked_up_and_found_paid(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    (pledge,) = due(sandbox, 2_500)
    plan(sandbox, operation="payment_intents.create", fault="lose_answer", times=3)
    charge_due()
    assert states() == ["unknown"]
    keep()
    cancel()
    stop_what_waits()
    assert (states(), books(pledge)) == (["charged"], [("charge", 2_500)])


def the_clock_looks(after: dt.timedelta) -> None:
    """The clock comes by so long after this moment, and whatever waits for it is due."""
    with time_machine.travel(now() + after, tick=False):
        for pledge in pledges_of("the-case"):
            pledge.next_at = now()
        keep()
        stop_what_waits()


@pytest.mark.parametrize("sent", [True, False])
def test_a_charge_without_an_answer_of_which_stripe_has_nothing_is_released_ten_minutes_after_its_card_was_removed(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, sent: bool
) -> None:
    """Our rows look alike whether it was sent and lost, or claimed by a process that died before it could send it."""
    (pledge,) = due(sandbox, 2_500)
    if sent:
        plan(sandbox, operation="payment_intents.create", fault="refuse", times=3)
        charge_due()
    else:
        held = Pledge.hold(pledge.id)
        deadline_capture._asking(held, held.claim(now(), dt.timedelta(0)))
        keep()
    state = "unknown" if sent else "charging"
    attempt = again(pledge).attempts[-1]
    params, key = attempt.params, attempt.key
    keep()
    cancel()
    the_clock_looks(dt.timedelta(0))
    assert (states(), letters("case_cancelled"), again(pledge).payment_method_id) == ([state], [], None)
    keep()
    with pytest.raises(stripe.InvalidRequestError, match="was detached"):
        sdk(sandbox).v1.payment_intents.create(params, {"idempotency_key": key})
    the_clock_looks(dt.timedelta(minutes=9))
    assert (states(), letters("case_cancelled")) == ([state], [])
    the_clock_looks(dt.timedelta(minutes=11))
    assert (states(), letters("case_cancelled")) == (["released"], [("case_cancelled", f"pledge:{pledge.id}")])
    keep()
    assert payments_at_stripe(sandbox) == []


def test_what_stripe_was_at_work_on_as_the_card_was_removed_is_found_paid(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pledge,) = due(sandbox, 2_500)
    plan(sandbox, operation="payment_intents.create", fault="refuse", times=3)
    charge_due()
    attempt = again(pledge).attempts[-1]
    late = [(attempt.params, attempt.key)]
    keep()
    cancel()
    really = payments.find_charge

    def find_charge(*asked: Any) -> payments.ChargeFound | None:
        """Nothing is listed yet, and the moment after it is there."""
        found = really(*asked)
        while late:
            params, key = late.pop()
            sdk(sandbox).v1.payment_intents.create(params, {"idempotency_key": key})
        return found

    monkeypatch.setattr(payments, "find_charge", find_charge)
    the_clock_looks(dt.timedelta(0))
    assert (states(), again(pledge).payment_method_id) == (["unknown"], None)
    the_clock_looks(dt.timedelta(minutes=11))
    assert (states(), books(pledge), letters("case_cancelled")) == (["charged"], [("charge", 2_500)], [])


def test_a_charge_that_was_asked_for_a_day_ago_needs_no_further_wait(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    (pledge,) = due(sandbox, 2_500)
    plan(sandbox, operation="payment_intents.create", fault="refuse", times=3)
    charge_due()
    again(pledge).attempts[-1].asked_at -= dt.timedelta(hours=24.5)
    keep()
    cancel()
    stop_what_waits()
    assert states() == ["released"]


def test_what_the_letter_says_of_the_money_is_what_became_of_it_by_then(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    whole, part, _ = due(sandbox, 2_500, 3_000, 4_000, cards=(WORKS, WORKS, DECLINES_LATER))
    charge_due()
    cancel()
    for pledge, amount in ((whole, 2_500), (part, 1_000)):
        asked(pledge, amount)
    send_refunds()
    look_anew()
    owed = sa.select(Letter).where(Letter.kind == "cancelled_charged").order_by(Letter.id)
    sent = [" ".join(str(text_of(write(letter))).split()) for letter in db.session.scalars(owed)]
    assert "Your card was charged £25. All of it has been paid back." in sent[0]
    assert "Your card was charged £30. £10 of it has been paid back. What becomes of the rest is decided by" in sent[1]


def test_a_case_of_many_pledges_is_cancelled_in_as_few_questions_to_the_database_as_one_of_two(app: Flask) -> None:
    questions = []
    for slug, count in (("few", 2), ("more", 12)):
        a_case(slug=slug, pledged=[2_500] * count)
        case = case_at(slug)
        with counting() as asked_for:
            case.cancel(REASON, "user:1", now())
        keep()
        questions.append(len(asked_for))
        its_round = case_at(slug).round
        assert (its_round.status, its_round.pledged_pence, its_round.pledge_count) == ("cancelled", 0, 0)
        assert {pledge.status for pledge in pledges_of(slug)} == {"released"}
    assert questions[0] == questions[1]
    assert len(letters("case_cancelled")) == 14


@contextmanager
def counting() -> Iterator[list[str]]:
    """Every statement that the database is sent meanwhile."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    sa.event.listen(db.engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(db.engine, "before_cursor_execute", note)


def test_while_stripe_is_away_nothing_is_said_and_it_is_tried_again(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    due(sandbox, 2_500, cards=(DECLINES_LATER,))
    charge_due()
    cancel()
    plan(sandbox, operation="payment_intents.cancel", fault="error", status=500, times=3)
    stop_what_waits()
    assert (states(), letters("case_cancelled")) == (["declined"], [])
    pledges_of("the-case")[0].next_at = now()
    keep()
    stop_what_waits()
    assert states() == ["released"]


def test_an_answer_that_comes_after_the_cancellation_asks_nobody_to_repair(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(sandbox, 2_500, cards=(DECLINES_LATER,))
    really = payments.charge

    def charge(*asked: object) -> payments.ChargeFound:
        with asks_the_sandbox.app_context():
            db.session.scalars(db.select(Pledge)).one().round.case.cancel(REASON, "user:1", now())
            db.session.commit()
        return really(*asked)  # type: ignore[arg-type]

    monkeypatch.setattr(payments, "charge", charge)
    charge_due()
    assert (states(), letters("declined")) == (["declined"], [])
    keep()
    stop_what_waits()
    assert states() == ["released"]


def test_many_pledges_are_looked_for_in_slices(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "SLICE", 0)
    due(sandbox, 2_500, 3_000)
    cancel()
    for ended in (1, 2):
        stop_what_waits()
        assert states().count("released") == ended


def test_two_workers_at_once_ask_stripe_once_about_each_pledge(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    pledges = due(sandbox, 2_500, 3_000)
    cancel()
    really, asked_about = payments.find_charge, []

    def find_charge(*asked: Any) -> payments.ChargeFound | None:
        asked_about.append(asked[2])
        if len(asked_about) == 1:
            with asks_the_sandbox.app_context():
                begin_writing()
                release_cancelled()
        return really(*asked)

    monkeypatch.setattr(payments, "find_charge", find_charge)
    stop_what_waits()
    assert asked_about == [pledge.id for pledge in pledges] and states() == ["released"] * 2


def test_trouble_with_a_payment_that_was_decided_meanwhile_leaves_nothing_waiting(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its news is quicker than the answer, which then is none. Nobody is to look at a charged pledge again."""
    (pledge,) = due(sandbox, 2_500)
    plan(sandbox, operation="payment_intents.create", fault="lose_answer", times=3)
    charge_due()
    pledge_id, customer = pledge.id, str(again(pledge).customer_id)
    keep()
    cancel()
    (paid,) = sdk(sandbox).v1.payment_intents.list({"customer": customer}).data

    def find_charge(*_: object) -> None:
        with asks_the_sandbox.app_context():
            begin_writing()
            look_again_at_charge(pledge_id, paid.id)
        raise payments.StripeAway("no answer")

    monkeypatch.setattr(payments, "find_charge", find_charge)
    stop_what_waits()
    held = again(pledge)
    assert (held.status, held.next_at, books(pledge)) == ("charged", None, [("charge", 2_500)])


def test_while_stripe_is_asked_the_private_page_promises_nothing_and_offers_nothing(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    due(sandbox, 2_500, 3_000, cards=(DECLINES_LATER, WORKS))
    Pledge.hold(pledges_of("the-case")[1].id).next_at = now() + dt.timedelta(hours=1)
    keep()
    charge_due()
    cancel()
    assert states() == ["declined", "due"]
    links = [pledge.link() for pledge in pledges_of("the-case")]
    keep()
    browser = asks_the_sandbox.test_client()
    for link in links:
        page = " ".join(browser.get(f"/pledges/{link}").text.split())
        assert "The case was cancelled, and nothing more is charged.</strong> We are asking Stripe" in page
        assert "You have not been charged" not in page and "is being charged" not in page
        assert "Pay with the same card" not in page and "Use another card" not in page
    for button in ("payment", "card"):
        answer = browser.post(f"/pledges/{links[0]}/{button}", headers=SAME_ORIGIN)
        assert (answer.status_code, "The case was cancelled, so nothing more is charged." in answer.text) == (409, True)
    stop_what_waits()
    assert "You are not charged,</strong> and never will be" in browser.get(f"/pledges/{links[0]}").text


@pytest.mark.parametrize(("card", "days"), [(DECLINES_LATER, 2), (BANK_ASKS_LATER, 2), (DECLINES_LATER, 8)])
def test_a_step_of_a_repair_that_was_rung_for_as_staff_cancelled_is_not_taken_any_more(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, card: str, days: int
) -> None:
    """A try, a reminder, or the end of the seven days: the worker comes to it only after the cancellation."""
    (pledge,) = due(sandbox, 2_500, cards=(card,))
    charge_due()
    status = again(pledge).status
    keep()
    with time_machine.travel(now() + dt.timedelta(days=days), tick=False):
        begin_writing()
        assert sweep.TIMETABLE["tend"](now()) == [pledge.id]
        keep()
        cancel()
        repairs.tend(pledge.id)
        assert (again(pledge).status, letters("reminder", "dropped")) == (status, [])
        keep()
        stop_what_waits()
        assert (states(), letters("case_cancelled")) == (["released"], [("case_cancelled", f"pledge:{pledge.id}")])


def test_a_letter_that_asks_for_the_payment_is_not_sent_once_the_case_is_cancelled(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """The mail server was away as they were refused. Stripe may be away now, so that they are not released yet."""
    refused, waits = due(sandbox, 2_500, 3_000, cards=(DECLINES_LATER, BANK_ASKS_LATER))
    charge_due()
    asks = sa.select(Letter).where(Letter.kind.in_(("declined", "action_required", "reminder"))).order_by(Letter.id)
    assert [is_true(letter) for letter in db.session.scalars(asks)] == [True, True]
    for one in (refused, waits):
        Pledge.hold(one.id).remind(now())
    keep()
    # What a reminder says is all of it.
    assert [is_true(letter) for letter in db.session.scalars(asks)] == [False, False, True, True]
    cancel()
    assert states() == ["declined", "action_required"]
    assert [is_true(letter) for letter in db.session.scalars(asks)] == [False] * 4
    keep()


def test_a_case_whose_pledges_have_all_ended_cannot_be_cancelled(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    due(sandbox, 2_500)
    charge_due()
    with pytest.raises(Refused, match="no pledge of it waits to be charged"):
        cancel()
    db.session.rollback()


def test_staff_cancel_a_case_from_its_page_and_the_public_page_says_so(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    due(sandbox, 2_500, 9_000)
    browser = logged_in(asks_the_sandbox, a_user("staff"))
    where = "/staff/cases/the-case"
    sent = {"cancellation-reason": REASON, "form_token": token_on(browser, where)}
    unsure = browser.post(f"{where}/cancellation", data=sent, headers=SAME_ORIGIN)
    assert unsure.status_code == 422 and "Type the word cancel, or leave the case as it is." in unsure.text
    assert REASON in unsure.text and case_at("the-case").status != "cancelled"
    sent |= {"cancellation-sure": "cancel"}
    assert browser.post(f"{where}/cancellation", data=sent, headers=SAME_ORIGIN).status_code == 303
    stop_what_waits()
    keep()
    page = " ".join(browser.get("/cases/the-case").text.split())
    assert "It was cancelled while cards were being charged.</strong> <span>The claim was settled.</span>" in page
    assert "This case reached its target.</strong> £115 of £115" in page
    assert "Released uncharged</dt><dd>£115" in page
    assert "Cancel the case" not in browser.get(where).text
