"""The reconciler against a real sandbox that tells us nothing: no webhook ever comes in these tests."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import requests
import sqlalchemy as sa
import time_machine
from flask import Flask

import config
import law
import payments
from jobs import deadline_capture, reconcile
from jobs import sweep as the_sweep
from models import Lease, Letter, Movement, Pledge, Reconciliation, Round, begin_writing, db
from tests.at_stripe import (
    DECLINES_LATER,
    WORKS,
    calls,
    charge_params,
    claimed,
    page_params,
    plan,
    saved_card,
    sdk,
    type_card,
)
from tests.charged import books, compare, compared
from tests.made import a_case, keep, now, pledges_of
from tests.sandbox_process import SandboxProcess

HOUR, MINUTE, SECOND = dt.timedelta(hours=1), dt.timedelta(minutes=1), dt.timedelta(seconds=1)


@pytest.fixture(autouse=True)
def at_the_sandbox(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    """Every test of this file asks an empty sandbox, quickly."""
    requests.post(f"{sandbox.url}/sandbox/reset", timeout=30).raise_for_status()
    settings = asks_the_sandbox.config["STANDING"].model_copy(update={"capture_rate": 1000.0})
    asks_the_sandbox.config["STANDING"] = settings


def a_pledge_at_stripe(its_round: Round, sandbox: SandboxProcess, amount: int = 2_500, card: str = WORKS) -> Pledge:
    """A pledge whose supporter saved a card and closed the tab: Stripe knows it, our row does not."""
    pledge = its_round.start_pledge(
        form_key=f"key-{its_round.id}-{amount}-{card}", amount_pence=amount, name="Ada Winter",
        email="ada@example.org", shown_as="name", wants_updates=False, as_of=now(),
    )  # fmt: skip
    noted = {"metadata": {"pledge_id": str(pledge.id), "case_id": str(its_round.case_id)}}
    page = sdk(sandbox).v1.checkout.sessions.create(page_params(**noted, setup_intent_data=noted))
    pledge.ask_card_page({"made": "by a test"}, now() + law.LONGEST_SESSION)
    pledge.card_page_made(pledge.session_key, page.id, page.url)
    type_card(page.url, card)
    keep()
    return pledge


def settle(its_round: Round) -> None:
    """The deadline comes, and the round is decided; nothing is charged yet."""
    its_round.move_deadline(now() - SECOND, "test", now())
    round_id = its_round.id
    keep()
    deadline_capture.settle_round(round_id)


def charged(sandbox: SandboxProcess, card: str = WORKS) -> Pledge:
    """A pledge of £25 that went all the way, so that its books are whole."""
    its_round = a_case(target=2_500).round
    pledge = a_pledge_at_stripe(its_round, sandbox, card=card)
    pledge_id = pledge.id
    compare()
    settle(db.session.get_one(Round, its_round.id))
    deadline_capture.charge_due()
    return db.session.get_one(Pledge, pledge_id)


def asked_and_forgotten(sandbox: SandboxProcess, card: str = WORKS) -> Pledge:
    """A pledge that Stripe charged, or refused, while we died before the answer, and whose event was lost too."""
    its_round = a_case(target=2_500).round
    pledge_id = a_pledge_at_stripe(its_round, sandbox, card=card).id
    compare()
    settle(db.session.get_one(Round, its_round.id))
    [asking] = claimed()
    payments.charge(config.current(), asking.params, asking.key)
    return db.session.get_one(Pledge, pledge_id)


def test_without_any_webhook_a_comparison_alone_confirms_a_saved_card(sandbox: SandboxProcess) -> None:
    case = a_case(target=2_500)
    pledge = a_pledge_at_stripe(case.round, sandbox)
    assert pledge.status == "started"
    # The card was saved: setup_intent.succeeded and checkout.session.completed.
    assert compared() == (2, [])
    assert [(p.status, p.round.pledged_pence) for p in pledges_of(case.slug)] == [("confirmed", 2_500)]


def test_a_second_comparison_finds_nothing_new(sandbox: SandboxProcess) -> None:
    pledge = charged(sandbox)
    assert (compared(), pledge.status) == ((1, []), "charged")  # payment_intent.succeeded had not reached us
    assert (compared(), pledge.status) == ((0, []), "charged")
    assert books(pledge) == [("charge", 2_500), ("fee", -58)]


@pytest.mark.parametrize("news_is_listed", [True, False])
def test_a_charge_whose_answer_and_event_were_lost_is_found(
    sandbox: SandboxProcess, news_is_listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pledge = asked_and_forgotten(sandbox)
    assert (pledge.status, pledge.payment_intent_id) == ("charging", None)
    if not news_is_listed:
        monkeypatch.setattr(payments, "news_since", lambda *_: payments.Page([], [], None, None))
    assert compared() == (2 if news_is_listed else 1, [])
    assert pledge.status == "charged"
    assert books(pledge) == [("charge", 2_500), ("fee", -58)]
    assert [one.status for one in sdk(sandbox).v1.payment_intents.list().data] == ["succeeded"]


def test_a_refusal_whose_answer_was_lost_is_found_once_nobody_asks_any_more(sandbox: SandboxProcess) -> None:
    pledge = asked_and_forgotten(sandbox, DECLINES_LATER)
    pledge.apply_charge(payments.ChargeFound("unknown"), now(), asked=True)
    db.session.commit()
    assert compared() == (1, [])
    assert pledge.status == "declined"


def test_a_payment_of_another_site_on_the_same_account_is_left_alone(sandbox: SandboxProcess) -> None:
    case = a_case(target=9_000)
    a_pledge_at_stripe(case.round, sandbox)
    compare()
    customer, method = saved_card(sandbox)
    theirs = charge_params(customer, method, metadata={"pledge_id": "1", "case_id": "1"})
    assert sdk(sandbox).v1.payment_intents.create(theirs).status == "succeeded"
    assert compared()[1] == []
    assert [(pledge.id, pledge.status, pledge.payment_intent_id) for pledge in pledges_of(case.slug)] == [
        (1, "confirmed", None)
    ]


# --- What nobody may mend ----------------------------------------------------------------------------------


def _released(pledge: Pledge, sandbox: SandboxProcess) -> None:
    pledge.status = "released"


def _another_sum(pledge: Pledge, sandbox: SandboxProcess) -> None:
    pledge.amount_pence = pledge.agreement_pence = 2_600


def _another_charge(pledge: Pledge, sandbox: SandboxProcess) -> None:
    db.session.scalars(sa.select(Movement)).one().stripe_id = "ch_of_nobody"


def _for_somebody_else(pledge: Pledge, sandbox: SandboxProcess) -> None:
    pledge.customer_id = "cus_of_nobody"


def _paid_again(pledge: Pledge, sandbox: SandboxProcess) -> None:
    noted = {"pledge_id": "1", "case_id": "1"}
    again = charge_params(str(pledge.customer_id), str(pledge.payment_method_id), metadata=noted)
    assert sdk(sandbox).v1.payment_intents.create(again).status == "succeeded"


BY_HAND = pytest.mark.broken_books("its rows are changed by hand")


@pytest.mark.parametrize(
    ("happened", "finding"),
    [
        pytest.param(_released, "Pledge 1 is released, but Stripe's payment {pi} is paid.", marks=BY_HAND),
        pytest.param(_another_sum, "Pledge 1 is 2600 pence, but Stripe's payment {pi} is 2500 gbp.", marks=BY_HAND),
        pytest.param(
            _another_charge,
            "Pledge 1 is charged, but the charge of Stripe's payment {pi} is not in its ledger.",
            marks=BY_HAND,
        ),
        # Our own books cannot know whose customer it is.
        (_for_somebody_else, "Pledge 1 has Stripe's payment {pi}, which says that it is for somebody else."),
    ],
)
def test_whatever_was_changed_about_a_charge_is_found(
    sandbox: SandboxProcess, happened: Callable[[Pledge, SandboxProcess], None], finding: str
) -> None:
    pledge = charged(sandbox)
    happened(pledge, sandbox)
    db.session.commit()
    assert compared()[1] == [finding.format(pi=pledge.payment_intent_id)]


def test_the_payment_of_whom_nothing_is_known_any_more_still_agrees(sandbox: SandboxProcess) -> None:
    number = charged(sandbox).id
    keep()
    begin_writing()
    pledge = Pledge.hold(number)
    pledge.erase("clock", now())
    pledge.forget_stripes_words()
    db.session.commit()
    assert pledge.customer_id is None and compared()[1] == []


def test_a_second_payment_for_one_pledge_is_found(sandbox: SandboxProcess) -> None:
    pledge = charged(sandbox)
    first = pledge.payment_intent_id
    _paid_again(pledge, sandbox)
    second = sdk(sandbox).v1.payment_intents.list().data[0].id
    assert compared()[1] == [f"Pledge 1 has a second payment at Stripe: {second}, paid."]
    assert (pledge.payment_intent_id, second != first) == (first, True)


def test_money_for_a_pledge_that_must_not_be_charged_is_found_and_nothing_is_moved(sandbox: SandboxProcess) -> None:
    pledge = a_pledge_at_stripe(a_case(target=9_000).round, sandbox)
    compare()
    pledge.cancel(now())
    db.session.commit()
    _paid_again(pledge, sandbox)
    [paid] = sdk(sandbox).v1.payment_intents.list().data
    assert compared()[1] == [f"Pledge 1 is cancelled, but Stripe's payment {paid.id} is paid."]
    assert (pledge.status, list(db.session.scalars(sa.select(Movement)))) == ("cancelled", [])


@BY_HAND
@pytest.mark.parametrize(
    ("status", "finding"),
    [("charged", "Pledge 1 is charged, but Stripe's payment {pi} is not paid."),
     ("dropped", "Pledge 1 is dropped, but Stripe's payment {pi} can still be paid.")],
)  # fmt: skip
def test_a_refused_payment_that_our_row_calls_ended_is_found(
    sandbox: SandboxProcess, status: str, finding: str
) -> None:
    pledge = charged(sandbox, DECLINES_LATER)
    assert pledge.status == "declined"
    pledge.status = status
    db.session.commit()
    assert compared()[1] == [finding.format(pi=pledge.payment_intent_id)]


def test_a_charge_that_stripe_has_never_heard_of_is_found(sandbox: SandboxProcess) -> None:
    its_round = a_case(target=2_500, pledged=[2_500]).round
    settle(its_round)
    [pledge] = its_round.pledges("due")
    pledge.claim(now(), MINUTE)
    pledge.apply_charge(payments.ChargeFound("succeeded", "pi_made_up", "ch_made_up", 2_500), now(), asked=True)
    db.session.commit()
    assert compared()[1] == ["Pledge 1 is charged, but Stripe has no payment pi_made_up."]


def test_the_operator_is_told_of_findings_once_a_day(sandbox: SandboxProcess) -> None:
    pledge = charged(sandbox)
    compare()
    _paid_again(pledge, sandbox)
    told = sa.select(sa.func.count()).where(Letter.kind == "stripe_disagrees")
    assert db.session.scalar(told) == 0
    assert len(compared()[1] + compared()[1]) == 2
    assert db.session.scalar(told) == 1


# --- In steps, by the clock, by hand -----------------------------------------------------------------------


def test_a_comparison_that_was_killed_goes_on_where_it_was(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments, "_PAGE", 1)
    its_round = a_case(target=2_500).round
    a_pledge_at_stripe(its_round, sandbox)
    made = Reconciliation.begin(now() - HOUR, now(), now()).id
    db.session.commit()
    assert reconcile.step(made, set())
    half = db.session.get_one(Reconciliation, made)
    assert (half.stage, half.looked_at, half.mended, half.cursor is None) == ("news", 1, 1, False)
    db.session.commit()
    assert reconcile.to_the_end(made)
    whole = db.session.get_one(Reconciliation, made)
    assert (whole.stage, whole.looked_at, whole.mended) == ("ended", 2, 2)


def test_two_at_once_do_not_take_the_same_step(sandbox: SandboxProcess) -> None:
    made = Reconciliation.begin(now() - HOUR, now(), now()).id
    assert Reconciliation.claim(made, now(), MINUTE) is not None
    db.session.commit()
    assert reconcile.step(made, set()) is False
    assert calls(sandbox, "events.list") == []


def test_while_stripe_is_away_a_comparison_waits_and_is_done_later(sandbox: SandboxProcess) -> None:
    a_pledge_at_stripe(a_case(target=2_500).round, sandbox)
    plan(sandbox, operation="events.list", fault="refuse", times=3)
    made = Reconciliation.begin(now() - HOUR, now(), now()).id
    db.session.commit()
    assert reconcile.to_the_end(made) is False
    waiting = db.session.get_one(Reconciliation, made)
    assert (waiting.tries, waiting.ended_at, Reconciliation.waiting(now() + MINUTE)) == (1, None, [made])
    db.session.commit()
    with time_machine.travel(now() + MINUTE):
        reconcile.reconcile(made)
    assert db.session.get_one(Reconciliation, made).mended == 2


def spans() -> list[tuple[int, int]]:
    """(since, until) of every comparison, in minutes before now, oldest first."""
    found = db.session.scalars(sa.select(Reconciliation).order_by(Reconciliation.id))
    return [(round((now() - one.since) / MINUTE), round((now() - one.until) / MINUTE)) for one in found]


def test_the_clock_compares_the_last_hours_every_hour_and_the_last_days_every_day(sandbox: SandboxProcess) -> None:
    the_sweep.sweep(now())
    assert spans() == []  # it was rung for; nobody came for 15 seconds, so the clock does it
    with time_machine.travel(now() + MINUTE):
        the_sweep.sweep(now())
        assert spans() == [(3 * 24 * 60 + 2, 2), (2 * 60 + 2, 2)]
    with time_machine.travel(now() + 2 * MINUTE):
        the_sweep.sweep(now())
        assert len(spans()) == 2
        begin_writing()
        assert [one.ended_at is not None for one in db.session.scalars(sa.select(Reconciliation))] == [True, True]
        keep()
    with time_machine.travel(now() + 62 * MINUTE):
        the_sweep.sweep(now())
        # From an hour before the end of the last one, a minute more than two hours.
        assert spans()[2:] == [(2 * 60 + 3, 2)]


def test_after_a_standstill_nothing_falls_between_two_comparisons(sandbox: SandboxProcess) -> None:
    with time_machine.travel(now() - 10 * HOUR):
        ended = compare()
    assert ended.ended_at is not None
    Lease.wind(reconcile.HOURLY, now())
    assert Lease.take(reconcile.DAILY, "somebody", now(), HOUR)
    db.session.commit()
    reconcile.begin_reconciliation()
    assert spans()[1:] == [(11 * 60, 2)]


def test_flask_reconcile_says_what_it_did_and_ends_with_1_while_something_is_off(
    app: Flask, sandbox: SandboxProcess
) -> None:
    def run(*words: str) -> Any:
        answer = app.test_cli_runner().invoke(args=["reconcile", *words])
        begin_writing()
        return answer

    def at(option: str, moment: dt.datetime) -> str:
        return f"--{option}={moment:%Y-%m-%dT%H:%M:%S}"

    pledge = charged(sandbox)
    since = at("since", now() - HOUR)
    before = run(at("since", now() - 2 * HOUR), at("until", now() - HOUR))
    assert before.exit_code == 0
    assert before.output.splitlines()[-1].startswith("Looked at 0 of Stripe's events"), "all of it was later"
    first = run(since)
    looked_at = "5 of Stripe's events, payments, refunds, disputes and lines of its balance"
    assert (first.exit_code, first.output.splitlines()[-1]) == (0, f"Looked at {looked_at}, mended 1.")
    _paid_again(pledge, sandbox)
    [second, _] = sdk(sandbox).v1.payment_intents.list().data
    again = run(since)
    assert again.exit_code == 1
    assert again.output.splitlines()[-1] == f"Pledge 1 has a second payment at Stripe: {second.id}, paid."
    too_old = run("--since=2020-01-01")
    assert (too_old.exit_code, "within the 30 days" in too_old.output) == (1, True)
    turned_round = run(since, at("until", now() - 2 * HOUR))
    assert (turned_round.exit_code, "--since must be before --until" in turned_round.output) == (1, True)
    assert run("--since=yesterday").exit_code == 2
