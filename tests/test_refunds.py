"""Money given back by staff: whole or in part, never twice, never above the rest, and what fails after it."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from flask import Flask

import payments
from jobs.refunds import send_refunds
from jobs.stripe_events import look_again_at_refund
from law import Refused
from models import Pledge, Refund, db
from tests.at_stripe import REFUNDS_FAIL, calls, charge_params, plan, saved_card, sdk
from tests.charged import again, asked, books, charged, control, letters, news, stripe_has, told
from tests.doorway import SAME_ORIGIN, everything, logged_in, token_on
from tests.house import eventually
from tests.made import a_case, a_user, keep, look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess

DAY = dt.timedelta(days=1)


def states() -> list[tuple[str, str]]:
    look_anew()
    return [(one.status, one.code) for one in db.session.scalars(sa.select(Refund).order_by(Refund.id))]


def ages(refund_id: int, by: dt.timedelta) -> None:
    """It was asked for so long ago, and is due to be looked at now."""
    look_anew()
    refund = db.session.get_one(Refund, refund_id)
    refund.asked_at -= by
    refund.next_at = now()
    keep()


# --- Whole and in part -------------------------------------------------------------------------------------


def test_a_whole_refund_gives_all_back_and_ends_the_pledge(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    pledge = charged(sandbox, 2_500)
    asked(pledge, 2_500)
    assert (again(pledge).status, books(pledge)) == ("charged", [("charge", 2_500)])
    send_refunds()
    assert (again(pledge).status, again(pledge).refunded_pence) == ("refunded", 2_500)
    assert books(pledge) == [("charge", 2_500), ("refund", -2_500)]
    assert states() == [("succeeded", "")]
    assert stripe_has(sandbox, pledge) == [("succeeded", 2_500)]
    assert letters("refunded") == [("refunded", f"pledge:{pledge.id}")]


def test_parts_add_up_to_the_whole_and_only_then_is_it_refunded(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge = charged(sandbox, 2_500)
    for part, so_far, status in ((1_000, 1_000, "charged"), (1_499, 2_499, "charged"), (1, 2_500, "refunded")):
        asked(pledge, part)
        send_refunds()
        assert (again(pledge).refunded_pence, again(pledge).status) == (so_far, status)
    assert books(pledge) == [("charge", 2_500), ("refund", -1_000), ("refund", -1_499), ("refund", -1)]
    assert len(letters("refunded")) == 3


def test_a_refund_is_told_to_stripe_with_a_key_made_of_its_own_number(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    refund_id = asked(charged(sandbox, 2_500), 700)
    send_refunds()
    (call,) = calls(sandbox, "refunds.create")
    assert (call["idempotency_key"], call["params"]["amount"]) == (f"refund-{refund_id}", "700")
    assert call["params"]["metadata[refund_id]"] == str(refund_id)


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        (0, "more than nothing"), (-1, "more than nothing"),
        (2_501, "At most £25 of this pledge"), (10**12, "At most £25 of this pledge"),
    ],
)  # fmt: skip
def test_nothing_and_more_than_the_rest_are_refused(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, amount: int, words: str
) -> None:
    pledge = charged(sandbox, 2_500)
    before = everything()
    with pytest.raises(Refused, match=words):
        Pledge.hold(pledge.id).ask_refund("k" * 24, amount, "Why.", a_user("staff"), now())
    db.session.rollback()
    assert {name: rows for name, rows in everything().items() if name != "users"} == {
        name: rows for name, rows in before.items() if name != "users"
    }
    assert stripe_has(sandbox, pledge) == []


def test_what_is_on_its_way_back_is_not_given_a_second_time(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    pledge = charged(sandbox, 2_500)
    asked(pledge, 2_000)
    with pytest.raises(Refused, match="At most £5 of this pledge"):
        Pledge.hold(pledge.id).ask_refund("k" * 24, 501, "Why.", a_user("staff"), now())
    db.session.rollback()


@pytest.mark.broken_books("the state is written by hand", sometimes=True)
@pytest.mark.parametrize("status", ["confirmed", "refunded"])
def test_only_a_charged_pledge_can_be_refunded(app: Flask, status: str) -> None:
    person = a_user("staff")
    (pledge,) = a_case(pledged=[2_500]).round.pledges("confirmed")
    pledge.status = status
    with pytest.raises(Refused, match=f"This pledge is {status}: there is nothing to refund."):
        pledge.ask_refund("k" * 24, 100, "Why.", person, now())


# --- Once --------------------------------------------------------------------------------------------------


def test_a_form_pressed_twice_at_once_is_one_refund(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    pledge, person = charged(sandbox, 2_500), a_user("staff")
    where = f"/staff/pledges/{pledge.public_id}"
    browsers = [logged_in(asks_the_sandbox, db.session.merge(person)) for _ in range(2)]
    form = {"amount": "5", "reason": "They asked.", "form_key": "the-key-of-this-one-form"}

    def press(number: int) -> int:
        token = token_on(browsers[number], where)
        sent = {**form, "form_token": token}
        return browsers[number].post(f"{where}/refunds", data=sent, headers=SAME_ORIGIN).status_code

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(press, range(2))) == [303, 303]
    send_refunds()
    assert states() == [("succeeded", "")]
    assert stripe_has(sandbox, pledge) == [("succeeded", 500)]


def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_key(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge = charged(sandbox, 2_500)
    refund_id = asked(pledge, 1_000)
    plan(sandbox, operation="refunds.create", fault="lose_answer", times=3)  # the SDK tries three times
    send_refunds()
    assert (states(), again(pledge).refunded_pence) == ([("asking", "")], 0)
    ages(refund_id, 0 * DAY)
    send_refunds()
    assert (states(), again(pledge).refunded_pence) == ([("succeeded", "")], 1_000)
    assert stripe_has(sandbox, pledge) == [("succeeded", 1_000)]


def test_a_day_later_the_refund_is_looked_for_and_never_asked_with_a_forgotten_key(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge = charged(sandbox, 2_500)
    refund_id = asked(pledge, 1_000)
    plan(sandbox, operation="refunds.create", fault="lose_answer", times=3)
    send_refunds()
    made = len(calls(sandbox, "refunds.create"))
    ages(refund_id, dt.timedelta(hours=23, minutes=30))
    send_refunds()
    assert len(calls(sandbox, "refunds.create")) == made
    assert (states(), again(pledge).refunded_pence) == ([("succeeded", "")], 1_000)


@pytest.mark.parametrize(("hours", "state"), [(23.5, ("asking", "")), (24.5, ("failed", "never_arrived"))])
def test_one_that_never_arrived_is_given_up_only_when_it_cannot_arrive_any_more(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, hours: float, state: tuple[str, str]
) -> None:
    pledge = charged(sandbox, 2_500)
    ages(asked(pledge, 1_000), dt.timedelta(hours=hours))
    send_refunds()
    assert states() == [state]
    assert (stripe_has(sandbox, pledge), books(pledge)) == ([], [("charge", 2_500)])
    assert len(letters("refund_failed")) == (state[0] == "failed")


def test_a_refund_whose_worker_died_is_asked_again_by_the_next(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """Killed after Stripe was asked and before the answer was written down."""
    pledge = charged(sandbox, 2_500)
    refund_id, pledge_id, intent_id = asked(pledge, 1_000), pledge.id, str(pledge.payment_intent_id)
    db.session.rollback()
    payments.refund(
        refund_id=refund_id, pledge_id=pledge_id, payment_intent_id=intent_id, amount_pence=1_000,
        key=f"refund-{refund_id}",
    )  # fmt: skip
    send_refunds()
    assert (states(), books(pledge)) == ([("succeeded", "")], [("charge", 2_500), ("refund", -1_000)])
    assert stripe_has(sandbox, pledge) == [("succeeded", 1_000)]


# --- Not as we believed ------------------------------------------------------------------------------------


def test_money_given_back_by_hand_at_stripe_is_found_when_our_own_refund_is_refused(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge = charged(sandbox, 2_500)
    sdk(sandbox).v1.refunds.create({"payment_intent": pledge.payment_intent_id})
    asked(pledge, 1_000)
    send_refunds()
    assert states() == [("failed", "charge_already_refunded")]
    assert (again(pledge).status, again(pledge).refunded_pence) == ("refunded", 2_500)
    assert books(pledge) == [("charge", 2_500), ("refund", -2_500)]


def test_more_than_stripe_has_left_is_refused_there_and_the_books_agree_with_it(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge = charged(sandbox, 2_500)
    sdk(sandbox).v1.refunds.create({"payment_intent": pledge.payment_intent_id, "amount": 2_000})
    asked(pledge, 1_000)
    send_refunds()
    assert states() == [("failed", "refused")]
    assert (again(pledge).status, again(pledge).refunded_pence) == ("charged", 2_000)


def test_a_refund_made_by_hand_is_learned_from_its_event(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    pledge, since = charged(sandbox, 2_500), int(now().timestamp())
    made = sdk(sandbox).v1.refunds.create({"payment_intent": pledge.payment_intent_id, "amount": 500})
    news(sandbox, "refund.created", since=since)
    db.session.rollback()
    look_again_at_refund(made.id)  # as the news of it that comes again, and the reconciler, do
    assert (again(pledge).refunded_pence, books(pledge)) == (500, [("charge", 2_500), ("refund", -500)])
    assert len(letters("refunded")) == 1


def test_the_event_and_the_answer_of_one_refund_are_booked_once_whichever_is_first(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    pledge, since = charged(sandbox, 2_500), int(now().timestamp())
    refund_id = asked(pledge, 1_000)
    plan(sandbox, operation="refunds.create", fault="lose_answer", times=3)
    send_refunds()
    news(sandbox, "refund.created", since=since)
    assert (states(), again(pledge).refunded_pence) == ([("succeeded", "")], 1_000)
    ages(refund_id, 0 * DAY)
    send_refunds()
    assert books(pledge) == [("charge", 2_500), ("refund", -1_000)]


def test_a_refund_of_somebody_elses_payment_changes_nothing(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    """Another site with the same Stripe account has pledges of the same numbers."""
    pledge, since = charged(sandbox, 2_500), int(now().timestamp())
    before = everything()
    stranger = charged_by_somebody_else(sandbox, pledge.id)
    sdk(sandbox).v1.refunds.create({"payment_intent": stranger, "metadata": {"refund_id": "1"}})
    (event,) = news(sandbox, "refund.created", since=since)
    assert event.processed_at is not None
    after = everything()
    assert {name for name in before if before[name] != after[name]} == {"stripe_events"}


def charged_by_somebody_else(sandbox: SandboxProcess, pledge_id: int) -> str:
    paid = sdk(sandbox).v1.payment_intents.create(
        charge_params(*saved_card(sandbox), metadata={"pledge_id": str(pledge_id)})
    )
    return str(paid.id)


# --- Failing after it succeeded ----------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [2_500, 1_000])
def test_a_refund_that_fails_later_is_ours_again_and_staff_are_told(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, amount: int
) -> None:
    pledge, since = charged(sandbox, 2_500), int(now().timestamp())
    first, second = a_user("staff"), a_user("staff")
    people = [f"user:{first.id}", f"user:{second.id}"]
    asked(pledge, amount, by=first)
    send_refunds()
    stripe_id = db.session.scalars(sa.select(Refund.stripe_id)).one()
    keep()
    control(sandbox, f"refunds/{stripe_id}/failure")
    for _ in range(2):
        news(sandbox, "refund.failed", "refund.updated", "refund.created", since=since)
    assert (again(pledge).status, again(pledge).refunded_pence) == ("charged", 0)
    assert books(pledge) == [("charge", 2_500), ("refund", -amount), ("refund", amount)]
    assert states() == [("failed", "lost_or_stolen_card")]
    assert letters("refund_failed") == [("refund_failed", person) for person in people]
    assert len(told("refund_failed")) == 1
    # It may be tried again, with a new number.
    asked(pledge, amount, by=first)
    send_refunds()
    assert states() == [("failed", "lost_or_stolen_card"), ("succeeded", "")]


def test_the_card_whose_refunds_fail_does_so_by_itself(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    pledge = charged(sandbox, 2_500, REFUNDS_FAIL)
    asked(pledge, 2_500)
    send_refunds()
    assert again(pledge).status == "refunded"
    assert eventually(lambda: stripe_has(sandbox, pledge) == [("failed", 2_500)])


# --- The form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "status", "words"),
    [
        ({"amount": "0"}, (409, 422), ""),
        ({"amount": "-5"}, (422,), ""),
        ({"amount": "25.01"}, (409,), "At most £25"),
        ({"amount": "1e9"}, (422,), ""),
        ({"amount": ""}, (422,), "Enter an amount."),
        ({"reason": "  "}, (422,), "Enter a reason."),
        ({"reason": "r" * 501}, (422,), "Use at most 500 characters."),
        ({"form_key": ""}, (422,), "This form was incomplete."),
        ({"form_key": "é" * 24}, (422,), "This form was incomplete."),
    ],
)
def test_a_mistake_in_the_refund_form_is_said_and_nothing_is_given_back(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, typed: dict[str, str], status: tuple[int, ...], words: str
) -> None:
    pledge = charged(sandbox, 2_500)
    browser = logged_in(asks_the_sandbox, a_user("staff"))
    where = f"/staff/pledges/{pledge.public_id}"
    sent = {"amount": "5", "reason": "Why.", "form_key": "k" * 24, "form_token": token_on(browser, where)}
    before = everything()
    answer = browser.post(f"{where}/refunds", data={**sent, **typed}, headers=SAME_ORIGIN)
    assert answer.status_code in status and words in answer.text
    # Only that staff looked at the pledge is written down.
    assert everything() | {"looks": []} == before | {"looks": []} and stripe_has(sandbox, pledge) == []


def test_the_form_of_one_pledge_refunds_no_other(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    charged(sandbox, 2_500)
    other = charged(sandbox, 9_000, slug="another")
    asked(pledges_of("the-case")[0], 500, form_key="the-key-of-this-one-form")
    with pytest.raises(Refused, match="This form belongs to another pledge"):
        Pledge.hold(other.id).ask_refund("the-key-of-this-one-form", 500, "Why.", a_user("staff"), now())
    db.session.rollback()


def test_a_pledge_that_does_not_exist_has_no_page(app: Flask) -> None:
    browser = logged_in(app, a_user("staff"))
    for where in ("/staff/pledges/none", "/staff/cases/none", "/staff/cases/none/run", "/staff/cases/none/pledges"):
        assert browser.get(where).status_code == 404
