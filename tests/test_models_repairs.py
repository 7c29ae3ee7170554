"""The repair of a refused payment in the models: the clock's steps, the supporter's, the bank's, and cards replaced."""

import datetime as dt
from dataclasses import replace

import pytest
import sqlalchemy as sa
from flask import Flask

import law
from law import Refused
from models import CardFailure, Case, Event, Movement, OldCard, Pledge, db, secret_mark
from payments import CardFound, ChargeFound, RefundFound
from tests.made import a_case, a_new_card, a_pledge, card_found, confirm, now
from tests.test_models_pledging import letters_to

SECOND, HOUR, DAY = dt.timedelta(seconds=1), dt.timedelta(hours=1), dt.timedelta(days=1)
LEASE = dt.timedelta(seconds=20)
BANK = "https://bank.example/approve"


def a_refused(outcome: str = "declined", soft: bool = True, as_of: dt.datetime | None = None) -> Pledge:
    """The only pledge of a case of £25 that was met; its first charge was refused."""
    case: Case = a_case(target=2_500, pledged=[2_500])
    case.round.close(case.round.deadline + SECOND)
    case.round.settle(case.round.deadline + SECOND)
    (pledge,) = case.round.pledges("due")
    as_of = as_of or now()
    pledge.claim(as_of, LEASE)
    pledge.apply_charge(ChargeFound(outcome, f"pi_{pledge.id}", "ch_1", 0, "x", soft=soft), as_of, asked=True)
    return pledge


def refuse_again(pledge: Pledge, as_of: dt.datetime, charge: str, soft: bool = True) -> None:
    pledge.claim(as_of, LEASE)
    pledge.apply_charge(ChargeFound("declined", f"pi_{pledge.id}", charge, 0, "x", soft=soft), as_of, asked=True)


def next_step(pledge: Pledge, as_of: dt.datetime) -> tuple[str, dt.timedelta]:
    """What comes next, and how old the refusal will be by then."""
    step = pledge.repair_step(as_of)
    assert pledge.refused_at is not None and pledge.next_at == step.at
    return step.what, step.at - pledge.refused_at


def old_cards() -> list[str]:
    return list(db.session.scalars(sa.select(OldCard.payment_method_id).order_by(OldCard.id)))


def events(pledge: Pledge) -> list[str]:
    return [event.what for event in pledge.history()]


# --- The clock ---------------------------------------------------------------------------------------------


def test_a_soft_refusal_is_tried_on_days_two_four_and_seven_with_a_reminder_on_day_six(app: Flask) -> None:
    start = now()
    pledge = a_refused(as_of=start)
    assert next_step(pledge, start) == ("retry", 2 * DAY)
    steps = []
    while True:
        step = pledge.repair_step(pledge.next_at or start)
        steps.append((step.what, step.at - start))
        if step.what == "drop":
            break
        if step.what == "retry":
            pledge.retry(step.at)
            assert pledge.status == "due"
            refuse_again(pledge, step.at + SECOND, f"ch_{len(pledge.attempts) + 1}")
        else:
            pledge.remind(step.at)
    assert steps == [("retry", 2 * DAY), ("retry", 4 * DAY), ("remind", 6 * DAY), ("retry", 7 * DAY), ("drop", 7 * DAY)]
    assert [attempt.kind for attempt in pledge.attempts] == ["create", "confirm", "confirm", "confirm"]
    assert letters_to(pledge) == ["confirmed", "declined", "declined", "declined", "reminder"], (
        "the last refusal is told by the letter that the pledge has ended"
    )


@pytest.mark.parametrize(("outcome", "soft"), [("declined", False), ("action_required", False)])
def test_a_hard_refusal_and_a_wish_of_the_bank_are_only_reminded_of(app: Flask, outcome: str, soft: bool) -> None:
    start = now()
    pledge = a_refused(outcome, soft, start)
    for day in (2, 4, 6):
        assert next_step(pledge, start) == ("remind", day * DAY)
        pledge.remind(start + day * DAY)
    assert next_step(pledge, start) == ("drop", 7 * DAY)
    assert letters_to(pledge) == ["confirmed", outcome, "reminder", "reminder", "reminder"]
    assert pledge.next_retry_at is None and len(pledge.attempts) == 1


def test_who_said_stop_is_only_reminded(app: Flask) -> None:
    start = now()
    pledge = a_refused(as_of=start)
    for _ in range(2):
        pledge.end_retries(start + HOUR)
    assert next_step(pledge, start + HOUR) == ("remind", 2 * DAY)
    assert events(pledge).count("stopped_trying") == 1 and pledge.next_retry_at is None


def test_after_a_standstill_of_days_one_step_stands_for_all_that_were_missed(app: Flask) -> None:
    start = now()
    pledge = a_refused(as_of=start)
    late = start + 5 * DAY
    assert pledge.repair_step(late).what == "retry"
    pledge.retry(late)
    refuse_again(pledge, late + SECOND, "ch_2")
    assert next_step(pledge, late + SECOND) == ("remind", 6 * DAY)
    assert pledge.next_retry_at == start + 7 * DAY


@pytest.mark.parametrize(("late", "what"), [(HOUR, "retry"), (HOUR + SECOND, "drop")])
def test_the_last_try_comes_at_most_an_hour_after_the_window(app: Flask, late: dt.timedelta, what: str) -> None:
    """The supporter was told that nothing is taken after that day."""
    pledge = a_refused(as_of=now() - 10 * DAY)
    assert pledge.refused_at is not None
    assert pledge.repair_step(pledge.refused_at + 7 * DAY + late).what == what


def test_nobody_is_reminded_once_the_window_is_over(app: Flask) -> None:
    start = now()
    assert a_refused("action_required", False, start).repair_step(start + 7 * DAY).what == "drop"


def test_a_hard_refusal_after_a_soft_one_ends_the_retries(app: Flask) -> None:
    start = now()
    pledge = a_refused(as_of=start)
    pledge.retry(start + 2 * DAY)
    refuse_again(pledge, start + 2 * DAY + SECOND, "ch_2", soft=False)
    assert next_step(pledge, start + 2 * DAY + SECOND) == ("remind", 4 * DAY)


# --- The supporter -----------------------------------------------------------------------------------------


def test_paying_again_makes_the_pledge_due_for_the_same_payment_and_twice_is_silent(app: Flask) -> None:
    pledge = a_refused()
    assert pledge.pay_again(now()) is True and pledge.status == "due"
    assert pledge.pay_again(now()) is False
    attempt = pledge.claim(now(), LEASE)
    assert (attempt.number, attempt.kind, attempt.key) == (2, "confirm", f"pledge-{pledge.id}-charge-2")
    assert pledge.pay_again(now()) is False and len(pledge.attempts) == 2


def test_a_supporter_has_a_card_tried_again_five_times_within_a_day_and_may_use_another_one_any_time(
    app: Flask,
) -> None:
    start = now()
    pledge = a_refused(as_of=start)
    for number in range(5):
        assert pledge.pay_again(start + number * HOUR) is True
        refuse_again(pledge, start + number * HOUR, f"ch_again_{number}")
    with pytest.raises(Refused, match="tried again 5 times within a day"):
        pledge.pay_again(start + DAY - SECOND)
    pledge.require_new_card(start + DAY - SECOND)
    assert pledge.pay_again(start + DAY) is True


def test_a_window_that_is_over_takes_no_payment_and_no_card(app: Flask) -> None:
    start = now()
    pledge = a_refused(as_of=start)
    over = start + 7 * DAY
    for verb in (pledge.pay_again, pledge.require_new_card, pledge.end_retries):
        with pytest.raises(Refused, match="The time for paying this pledge is over"):
            verb(over)
    assert pledge.pay_again(over - SECOND) is True


def test_a_card_that_the_bank_does_not_allow_any_more_is_not_charged_again(app: Flask) -> None:
    pledge = a_refused(soft=False)
    with pytest.raises(Refused, match="Please use another card"):
        pledge.pay_again(now())


def test_money_that_is_found_while_a_pledge_is_due_again_is_believed_and_can_be_given_back(app: Flask) -> None:
    """Charges are frozen, another card was saved, and its supporter approves the payment of before at the bank."""
    pledge = a_refused("action_required")
    pledge.bank_url = "https://bank.example/"
    pledge.round.case.charges_frozen = True
    Event.write(pledge.round.case, "charges_frozen", "user:1", now())
    pledge.apply_card(a_new_card(pledge), now())
    assert pledge.status == "due"
    # A refusal says nothing of what is to be asked for next.
    pledge.apply_charge(ChargeFound("declined", f"pi_{pledge.id}", "ch_2", 0, "x", soft=True), now())
    assert pledge.status == "due"
    for _ in range(2):
        pledge.apply_charge(ChargeFound("succeeded", f"pi_{pledge.id}", "ch_9", 2_500), now())
    pledge.apply_refund(RefundFound("succeeded", "re_1", f"pi_{pledge.id}", 2_500), now())
    moved = db.session.scalars(sa.select(Movement).order_by(Movement.id))
    assert [(one.kind, one.amount_pence) for one in moved] == [("charge", 2_500), ("refund", -2_500)]
    assert (pledge.status, pledge.refunded_pence) == ("refunded", 2_500)


def test_another_card_makes_a_refused_pledge_due_and_leaves_the_old_card_over(app: Flask) -> None:
    pledge = a_refused(soft=False)
    first, saved_at, customer = pledge.payment_method_id, pledge.card_saved_at, pledge.customer_id
    found = a_new_card(pledge)
    for _ in range(2):
        pledge.apply_card(found, now())
    assert (pledge.status, pledge.payment_method_id, pledge.customer_id) == ("due", f"pm_new_{pledge.id}", customer)
    assert (old_cards(), pledge.card_saved_at, pledge.awaits_card) == ([first], saved_at, False)
    assert pledge.claim(now(), LEASE).kind == "confirm"


@pytest.mark.parametrize("asked", [True, False])
def test_another_card_while_the_charge_is_asked_or_after_the_window_is_not_kept(app: Flask, asked: bool) -> None:
    start = now()
    pledge = a_refused(as_of=start)
    if asked:
        pledge.pay_again(start)
        pledge.claim(start, LEASE)
    before = (pledge.status, pledge.payment_method_id)
    pledge.apply_card(a_new_card(pledge), start if asked else start + 7 * DAY)
    assert (pledge.status, pledge.payment_method_id, pledge.awaits_card) == (*before, False)
    assert old_cards() == [f"pm_new_{pledge.id}"]


# --- The bank ----------------------------------------------------------------------------------------------


def test_the_banks_page_is_remembered_until_the_bank_has_answered(app: Flask) -> None:
    pledge = a_refused("action_required", False)
    pledge.pay_again(now())
    pledge.claim(now(), LEASE)
    waits = ChargeFound("action_required", f"pi_{pledge.id}", "ch_1", 0, "authentication_required", bank_url=BANK)
    pledge.apply_charge(waits, now(), asked=True)
    assert (pledge.status, pledge.bank_url) == ("action_required", BANK)
    assert letters_to(pledge) == ["confirmed", "action_required"], "whoever is at the bank's page needs no letter"
    pledge.apply_charge(waits, now())
    assert pledge.bank_url == BANK and "not_approved" not in events(pledge)
    not_approved = ChargeFound("action_required", f"pi_{pledge.id}", "ch_1", 0, "payment_intent_authentication_failure")
    for _ in range(2):
        pledge.apply_charge(not_approved, now())
    assert (pledge.status, pledge.was_not_approved) == ("action_required", True)
    assert db.session.scalar(sa.select(Pledge.bank_url)) is None
    assert events(pledge).count("not_approved") == 1


def test_what_was_approved_and_then_refused_for_want_of_money_is_told_as_a_refusal(app: Flask) -> None:
    pledge = a_refused("action_required", False)
    pledge.pay_again(now())
    pledge.claim(now(), LEASE)
    pledge.apply_charge(ChargeFound("action_required", f"pi_{pledge.id}", "ch_1", 0, "x", bank_url=BANK), now(), True)
    for _ in range(2):
        pledge.apply_charge(ChargeFound("declined", f"pi_{pledge.id}", "ch_2", 0, "x", soft=True), now())
    assert (pledge.status, pledge.bank_url, pledge.refused_softly) == ("declined", None, True)
    assert letters_to(pledge) == ["confirmed", "action_required", "declined"]


@pytest.mark.parametrize("outcome", ["declined", "action_required"])
def test_money_that_was_taken_is_believed_whoever_tells_of_it_and_written_down_once(app: Flask, outcome: str) -> None:
    pledge = a_refused(outcome)
    for _ in range(2):
        pledge.apply_charge(ChargeFound("succeeded", f"pi_{pledge.id}", "ch_2", 2_500), now())
    assert (pledge.status, pledge.next_at, pledge.repair_until) == ("charged", None, None)
    assert [row.amount_pence for row in db.session.scalars(sa.select(Movement))] == [2_500]


def test_an_old_refusal_that_is_heard_of_again_changes_nothing(app: Flask) -> None:
    pledge = a_refused()
    before = events(pledge)
    pledge.apply_charge(ChargeFound("declined", f"pi_{pledge.id}", "ch_1", 0, "x", soft=True), now())
    pledge.apply_charge(ChargeFound("unknown", f"pi_{pledge.id}", "ch_1", 0, "processing"), now())
    assert events(pledge) == before and pledge.status == "declined"


def test_a_card_that_was_refused_for_others_pays_no_refused_payment_and_another_one_does(app: Flask) -> None:
    (others,) = a_case(pledged=[2_500]).round.pledges("confirmed")
    pledge = a_refused()
    tried = {"round_id": others.round_id, "setup_intent_id": "seti_1", "at": now(), "email_mark": "", "network": ""}
    for number, of, card in ((1, others, "odd"), (2, others, "odd"), (3, others, "odd"), (4, pledge, "empty"),
                             (5, pledge, "old"), (6, pledge, "blocked")):  # fmt: skip
        mark = secret_mark("card", card)
        db.session.add(CardFailure(event_id=f"evt_{number}", pledge_id=of.id, card_mark=mark, confirmed=False, **tried))
    db.session.flush()
    its_card = pledge.payment_method_id
    pledge.apply_card(replace(a_new_card(pledge), saved_at=None, fingerprint="odd"), now())
    assert (pledge.status, pledge.payment_method_id, pledge.awaits_card) == ("declined", its_card, False)
    assert old_cards() == [f"pm_new_{pledge.id}"] and events(pledge)[-1] == "card_not_taken"
    # Three others were refused for it first, as happens to whoever has to pay.
    pledge.apply_card(
        replace(a_new_card(pledge), payment_method_id="pm_good", saved_at=None, fingerprint="good"), now()
    )
    assert (pledge.status, pledge.payment_method_id) == ("due", "pm_good")


# --- Another card while the round is open ------------------------------------------------------------------


def test_a_card_replaced_in_time_is_used_and_one_too_late_is_not_kept(app: Flask) -> None:
    its_round = a_case(target=2_500).round
    first, second = confirm(a_pledge(its_round)), confirm(a_pledge(its_round))
    in_time, too_late = a_new_card(first, its_round.deadline), a_new_card(second, its_round.deadline + SECOND)
    assert its_round.unresolved() == [first, second]
    its_round.close(its_round.deadline + SECOND)
    with pytest.raises(Refused, match="not ready to be settled"):
        its_round.settle(its_round.deadline + SECOND)
    first.apply_card(in_time, its_round.deadline + SECOND)
    second.apply_card(too_late, its_round.deadline + SECOND)
    assert (first.payment_method_id, second.payment_method_id) == (f"pm_new_{first.id}", f"pm_{second.id}")
    assert (first.card_saved_at, old_cards()) == (its_round.deadline, [f"pm_{first.id}", f"pm_new_{second.id}"])
    its_round.settle(its_round.deadline + SECOND)
    assert {first.status, second.status} == {"due"} and its_round.settled_total_pence == 5_000


def test_a_page_for_another_card_that_ends_unused_leaves_the_card_as_it_was(app: Flask) -> None:
    pledge = confirm(a_pledge(a_case().round))
    before = pledge.payment_method_id
    a_new_card(pledge)
    pledge.apply_card(card_found(pledge, expired=True), now())
    assert (pledge.status, pledge.payment_method_id, pledge.awaits_card) == ("confirmed", before, False)
    assert old_cards() == [] and pledge.round.unresolved() == []


@pytest.mark.parametrize("counts", [True, False])
def test_a_person_may_decide_about_another_card_whose_time_nobody_knows(app: Flask, counts: bool) -> None:
    pledge = confirm(a_pledge(a_case().round))
    found = CardFound(**{**vars(a_new_card(pledge)), "saved_at": None})
    pledge.apply_card(found, now())
    assert pledge.awaits_card, "nobody knows yet whether it was saved in time"
    pledge.decide_card(found, counts, "operator", now())
    assert pledge.payment_method_id == (f"pm_new_{pledge.id}" if counts else f"pm_{pledge.id}")
    assert (pledge.status, len(old_cards()), pledge.awaits_card) == ("confirmed", 1, False)
    assert pledge.card_saved_at is not None and law.in_time(pledge.card_saved_at, pledge.round.deadline)


def test_a_case_says_that_cards_were_removed_only_when_replaced_ones_are_gone_too(app: Flask) -> None:
    pledge = confirm(a_pledge(a_case().round))
    pledge.apply_card(a_new_card(pledge), now())
    assert pledge.round.cards_left()
    (card_id,) = OldCard.waiting(now() + SECOND)
    db.session.get_one(OldCard, card_id).removed()
    assert not pledge.round.cards_left()
    assert db.session.scalar(sa.select(sa.func.count(Event.id)).where(Event.what == "card_replaced")) == 1


# --- What is agreed to with another card -------------------------------------------------------------------


def test_the_words_for_another_card_allow_what_the_clock_does_with_it(app: Flask) -> None:
    """A card that pays what was refused is tried again like the first, and no longer than that."""
    pledge = a_refused()
    refused_at = pledge.refused_at
    pledge.apply_card(a_new_card(pledge), now())
    refuse_again(pledge, now(), "ch_2")
    assert refused_at is not None and pledge.next_retry_at is not None
    assert now() < pledge.next_retry_at <= refused_at + law.REPAIR_WINDOW == refused_at + 7 * DAY
    assert pledge.round.agreement_of_repair("£25").endswith(
        "my pledge is not paid yet. If my bank refuses, it may be tried again for up to 7 days."
    )


ON_THE_PAGE = "J’autorise Standing Test à débiter ma carte de 25 £ une fois."


def repaired(pledge: Pledge, named: str = ON_THE_PAGE) -> CardFound:
    """Another card is saved on a page of Stripe's that named these words."""
    found = a_new_card(pledge)
    pledge.session_params = {"custom_text": {"submit": {"message": named}}}
    return found


def test_another_card_for_a_refused_payment_is_agreed_to_in_the_words_of_its_page_beside_the_promise(
    app: Flask,
) -> None:
    pledge = a_refused()
    (first,) = pledge.agreements
    found = repaired(pledge)
    assert pledge.agreements == [first], "nobody has agreed before a card is saved"
    as_of = now()
    for _ in range(2):
        pledge.apply_card(found, as_of)
    db.session.flush()
    assert [one.words for one in pledge.agreements] == [first.words, ON_THE_PAGE]
    second = pledge.agreements[-1]
    assert (second.amount_pence, second.before_pence, second.agreed_at) == (2_500, 2_500, found.saved_at)
    assert (second.deadline, second.target_pence) == (pledge.round.deadline, 2_500)
    # Letters, and the doctor, go by the promise to which the supporter agreed before the deadline.
    assert (first.version, second.version) == (1, 2) and pledge.agreement == first
    assert events(pledge)[-3:] == ["card_replaced", "agreed_to_repair", "due"]
    assert (pledge.amount_pence, pledge.agreement_pence) == (2_500, 2_500)


@pytest.mark.parametrize("why", ["not taken", "left unused", "counts still"])
def test_a_page_for_another_card_adds_no_agreement_unless_its_card_pays_what_was_refused(app: Flask, why: str) -> None:
    pledge = confirm(a_pledge(a_case().round)) if why == "counts still" else a_refused()
    found = repaired(pledge)
    if why == "left unused":
        found = card_found(pledge, expired=True)
    as_of = (pledge.repair_until or now()) + (SECOND if why == "not taken" else -HOUR)
    pledge.apply_card(found, as_of if pledge.repair_until else now())
    db.session.flush()
    assert len(pledge.agreements) == 1 and "agreed_to_repair" not in events(pledge)


def test_a_card_whose_saving_nobody_knows_the_time_of_is_agreed_to_when_it_is_heard_of(app: Flask) -> None:
    pledge, as_of = a_refused(), now()
    pledge.apply_card(replace(repaired(pledge), saved_at=None), as_of)
    assert pledge.agreements[-1].agreed_at == as_of


def test_erasing_keeps_what_was_agreed_to_with_another_card_as_it_keeps_what_was_before(app: Flask) -> None:
    pledge = a_refused()
    pledge.apply_card(repaired(pledge), now())
    pledge.claim(now(), LEASE)
    pledge.apply_charge(ChargeFound("succeeded", f"pi_{pledge.id}", "ch_2", 2_500), now(), asked=True)
    before = [one.words for one in pledge.agreements]
    pledge.erase("supporter", now())
    db.session.flush()
    assert [one.words for one in pledge.agreements] == before and before[1:] == [ON_THE_PAGE]
    assert pledge.erased_at is not None and pledge.agreement == pledge.agreements[0]
