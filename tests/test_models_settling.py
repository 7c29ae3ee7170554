"""The decision at the deadline, and what became of each charge after it."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask

import law
from law import Refused
from models import Case, ChargeAttempt, Letter, Movement, Pledge, Round, db
from payments import ChargeFound
from tests.made import a_case, a_pledge, card_found, confirm, keep, not_unique, now
from tests.test_models_pledging import counters, history, letters_to

SECOND, LEASE = dt.timedelta(seconds=1), dt.timedelta(seconds=20)


def settled(its_round: Round) -> Round:
    """Closed a second after its deadline, and decided."""
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(its_round.deadline + SECOND)
    return its_round


def decision(its_round: Round) -> tuple[str, int | None, int | None]:
    return its_round.status, its_round.settled_total_pence, its_round.settled_count


def asked(case: Case) -> Pledge:
    """The only pledge of a case of £25, met, with its first charge asked for and not answered."""
    (pledge,) = settled(case.round).pledges("due")
    pledge.claim(now(), LEASE)
    db.session.flush()
    return pledge


def paid(pledge: Pledge, pence: int = 2_500) -> ChargeFound:
    return ChargeFound("succeeded", f"pi_{pledge.id}", f"ch_{pledge.id}", pence)


def refused(pledge: Pledge, outcome: str = "declined", charge: str = "ch_refused") -> ChargeFound:
    return ChargeFound(outcome, f"pi_{pledge.id}", charge, 0, "insufficient_funds", soft=True)


# --- The decision ------------------------------------------------------------------------------------------


def test_a_penny_short_charges_nobody(app: Flask) -> None:
    case = a_case(target=600_000, pledged=[590_499, 9_500])
    its_round = settled(case.round)
    assert decision(its_round) == ("missed", 599_999, 2)
    assert [pledge.status for pledge in its_round.pledges(*law.PLEDGE_MOVES)] == ["released", "released"]
    assert [letters_to(pledge) for pledge in its_round.pledges("released")] == [["confirmed", "missed"]] * 2
    assert (case.status, case.ended_at) == ("missed", its_round.deadline + SECOND)
    assert Pledge.waiting_to_charge(now() + dt.timedelta(days=365), 10) == []


@pytest.mark.parametrize("pledged", [[600_000], [600_001], [500, 599_500], [300_000, 300_000, 300_000]])
def test_the_exact_target_or_more_makes_every_confirmed_pledge_due(app: Flask, pledged: list[int]) -> None:
    case = a_case(target=600_000, pledged=pledged)
    its_round = settled(case.round)
    assert decision(its_round) == ("met", sum(pledged), len(pledged))
    assert [pledge.amount_pence for pledge in its_round.pledges("due")] == pledged
    assert (case.status, history(its_round)) == ("funded", ["closing", "met"])


@pytest.mark.parametrize(("pledged", "kind"), [([600_000], "reached"), ([599_999], "not_reached"), ([], "not_reached")])
def test_the_owner_is_told_once_how_it_ended(app: Flask, pledged: list[int], kind: str) -> None:
    its_round = a_case(target=600_000, pledged=pledged).round
    for _ in range(2):
        settled(its_round)
    told = sa.select(Letter.kind).where(Letter.subject == f"round:{its_round.id}")
    assert db.session.scalars(told).all() == [kind]


def test_only_confirmed_pledges_are_counted(app: Flask) -> None:
    its_round = a_case(target=600_000, pledged=[599_500]).round
    confirm(a_pledge(its_round, 500)).cancel(its_round.deadline)
    a_pledge(its_round, 500).cancel(its_round.deadline)
    left = a_pledge(its_round, 500)
    left.apply_card(card_found(left, expired=True), now())
    assert decision(settled(its_round)) == ("missed", 599_500, 1)


def test_the_sum_is_taken_from_the_rows_and_not_from_the_counter(app: Flask) -> None:
    its_round = a_case(target=600_000, pledged=[599_999]).round
    its_round.count(1, 1, now())
    assert decision(settled(its_round)) == ("missed", 599_999, 1)


@pytest.mark.broken_books("pledges that counted are cancelled by hand, after the decision")
def test_a_round_is_decided_once_and_never_computed_again(app: Flask) -> None:
    its_round = settled(a_case(target=600_000, pledged=[600_000]).round)
    first_settled_at = its_round.settled_at
    for pledge in its_round.pledges("due"):
        pledge.status = "cancelled"
    db.session.flush()
    its_round.settle(its_round.deadline + dt.timedelta(days=1))
    assert decision(its_round) == ("met", 600_000, 1)
    assert its_round.settled_at == first_settled_at and history(its_round) == ["closing", "met"]


def test_met_stays_met_whatever_the_cards_do(app: Flask) -> None:
    case = a_case(target=2_500, pledged=[2_500])
    pledge = asked(case)
    pledge.apply_charge(refused(pledge), now(), asked=True)
    pledge.drop(now())
    case.round.settle(now())
    assert (decision(case.round), case.round.shown_pence, case.status) == (("met", 2_500, 1), 2_500, "funded")


def test_nothing_is_decided_before_the_deadline_or_while_a_card_page_is_open(app: Flask) -> None:
    its_round = a_case(target=600_000, pledged=[600_000]).round
    with pytest.raises(Refused, match="not ready to be settled"):
        its_round.settle(its_round.deadline + SECOND)
    with pytest.raises(Refused, match="The deadline has not passed"):
        its_round.close(its_round.deadline)
    waiting = a_pledge(its_round)
    its_round.close(its_round.deadline + SECOND)
    with pytest.raises(Refused, match="not ready to be settled"):
        its_round.settle(its_round.deadline + SECOND)
    waiting.abandon(its_round.deadline + SECOND)
    its_round.settle(its_round.deadline + SECOND)
    assert decision(its_round) == ("met", 600_000, 1)


# --- Cards saved while the round closes --------------------------------------------------------------------


@pytest.mark.parametrize("before", [SECOND, 0 * SECOND])
def test_a_card_saved_by_the_deadline_counts_though_its_news_comes_while_closing(
    app: Flask, before: dt.timedelta
) -> None:
    its_round = a_case(target=12_000, pledged=[9_500]).round
    pledge = a_pledge(its_round, 2_500)
    its_round.close(its_round.deadline + SECOND)
    pledge.apply_card(card_found(pledge, its_round.deadline - before), its_round.deadline + 60 * SECOND)
    its_round.settle(its_round.deadline + 61 * SECOND)
    assert (decision(its_round), pledge.status) == (("met", 12_000, 2), "due")


@pytest.mark.parametrize("closing", [True, False])
def test_a_card_saved_a_second_too_late_is_released_and_its_supporter_told(app: Flask, closing: bool) -> None:
    """Also when nobody has closed the round yet: Stripe's clock decides, not our speed."""
    its_round = a_case(target=12_000, pledged=[9_500]).round
    pledge = a_pledge(its_round, 2_500)
    if closing:
        its_round.close(its_round.deadline + SECOND)
    pledge.apply_card(card_found(pledge, its_round.deadline + SECOND), its_round.deadline + 2 * SECOND)
    assert (pledge.status, pledge.ended_because, letters_to(pledge)) == ("released", "too_late", ["too_late"])
    assert Pledge.waiting_to_let_go(its_round.deadline + 2 * SECOND) == [pledge.id]
    assert decision(settled(its_round)) == ("missed", 9_500, 1) and counters(its_round) == (9_500, 1)


@pytest.mark.parametrize("pledged", [9_500, 12_000])
def test_a_card_that_is_told_of_after_the_decision_changes_nothing_of_it(app: Flask, pledged: int) -> None:
    """Stripe had said that the page was over, so the round was decided without it."""
    its_round = a_case(target=12_000, pledged=[pledged]).round
    pledge = a_pledge(its_round, 2_500)
    found = card_found(pledge, its_round.deadline)
    pledge.apply_card(card_found(pledge, expired=True), its_round.deadline + SECOND)
    decided = decision(settled(its_round))
    assert decided == ("met" if pledged == 12_000 else "missed", pledged, 1)
    pledge.apply_card(found, its_round.deadline + 2 * SECOND)
    db.session.flush()
    assert (decision(its_round), counters(its_round)) == (decided, (pledged, 1))
    assert (pledge.status, letters_to(pledge)) == ("abandoned", [])


@pytest.mark.broken_books("the state is written by hand: no verb leaves a pledge started in a decided round")
@pytest.mark.parametrize("pledged", [9_500, 12_000])
def test_a_pledge_that_is_confirmed_after_the_decision_is_released_and_its_supporter_told(
    app: Flask, pledged: int
) -> None:
    """Though its card was saved in time, and though it is what the target lacks."""
    its_round = a_case(target=12_000, pledged=[pledged]).round
    pledge = a_pledge(its_round, 2_500)
    pledge.abandon(its_round.deadline + SECOND)
    decided = decision(settled(its_round))
    pledge.status = "started"
    pledge.apply_card(card_found(pledge, its_round.deadline), its_round.deadline + 2 * SECOND)
    db.session.flush()
    assert (decision(its_round), counters(its_round)) == (decided, (pledged, 1))
    assert decided == ("met" if pledged == 12_000 else "missed", pledged, 1)
    assert (pledge.status, pledge.confirmed_at, letters_to(pledge)) == ("released", None, ["too_late"])
    # Its card is removed, and it is never among those that are charged.
    assert pledge.id in Pledge.waiting_to_let_go(its_round.deadline + 2 * SECOND)
    assert pledge.id not in [due.id for due in Pledge.waiting_to_charge(its_round.deadline + 2 * SECOND, 10)]


def test_a_person_may_decide_about_a_card_whose_time_nobody_knows_but_only_while_it_waits(app: Flask) -> None:
    its_round = a_case(target=5_000).round
    counts, too_late = a_pledge(its_round, 2_500), a_pledge(its_round, 2_500)
    its_round.close(its_round.deadline + SECOND)
    counts.decide_card(card_found(counts), True, "operator", now())
    too_late.decide_card(card_found(too_late), False, "operator", now())
    assert (counts.status, too_late.status, counters(its_round)) == ("confirmed", "released", (2_500, 1))
    with pytest.raises(Refused, match="does not wait for a decision"):
        too_late.decide_card(card_found(too_late), True, "operator", now())
    open_page = a_pledge(a_case().round)
    with pytest.raises(Refused, match="does not wait for a decision"):
        open_page.decide_card(card_found(open_page, expired=True), True, "operator", now())


# --- A case that is cancelled ------------------------------------------------------------------------------


@pytest.mark.parametrize("closing", [True, False])
def test_a_cancelled_case_releases_every_pledge_and_can_never_charge_one(app: Flask, closing: bool) -> None:
    case = a_case(target=2_500, pledged=[2_500])
    (counted,), waiting = case.round.pledges("confirmed"), a_pledge(case.round, 5_000)
    if closing:
        case.round.close(case.round.deadline + SECOND)
    case.cancel("The claim was settled.", "operator", now())
    assert (counted.status, waiting.status, case.round.status, case.status) == (
        "released", "released", "cancelled", "cancelled",
    )  # fmt: skip
    assert (letters_to(counted), letters_to(waiting)) == (["confirmed", "case_cancelled"], [])
    assert (case.round.pledged_pence, case.round.pledge_count) == (0, 0)
    case.round.settle(now())
    assert case.round.status == "cancelled"
    # A card saved in the other tab meanwhile never counts; it is removed and its supporter told.
    confirm(waiting)
    assert (waiting.status, letters_to(waiting)) == ("released", ["case_cancelled"])
    assert waiting.id in Pledge.waiting_to_let_go(now())


def test_a_case_that_missed_its_target_cannot_be_cancelled(app: Flask) -> None:
    """One that reached it can be, while its pledges are being charged: see test_cancelled_cases.py."""
    case = a_case(target=2_501, pledged=[2_500])
    settled(case.round)
    with pytest.raises(Refused, match="has already been decided"):
        case.cancel("Too late.", "operator", now())


# --- Charging ----------------------------------------------------------------------------------------------


def test_the_key_of_a_charge_is_made_of_our_own_numbers_and_stays_until_there_is_an_answer(app: Flask) -> None:
    pledge = asked(a_case(target=2_500, pledged=[2_500]))
    (first,) = pledge.attempts
    assert (first.number, first.kind, first.key) == (1, "create", f"pledge-{pledge.id}-charge-1")
    assert pledge.claim(now(), LEASE) is first, "its asker died: asked again with the same key"
    pledge.apply_charge(ChargeFound("unknown", code="APIConnectionError"), now(), asked=True)
    assert (pledge.status, pledge.claim(now(), LEASE)) == ("unknown", first)
    assert len(pledge.attempts) == 1


def test_a_new_number_is_given_only_when_stripe_is_known_to_have_nothing(app: Flask) -> None:
    pledge = asked(a_case(target=2_500, pledged=[2_500]))
    (first,) = pledge.attempts
    a_day_later = first.asked_at + law.NEW_KEY_AFTER
    pledge.nothing_was_asked(a_day_later)
    assert pledge.status == "unknown", "the last request with the first key may still be on its way"
    pledge.nothing_was_asked(a_day_later + SECOND)
    assert pledge.status == "due"
    second = pledge.claim(now(), LEASE)
    assert (second.number, second.kind, second.key) == (2, "create", f"pledge-{pledge.id}-charge-2")


def test_while_one_charges_nobody_else_is_given_the_pledge(app: Flask) -> None:
    pledge = asked(a_case(target=2_500, pledged=[2_500]))
    assert Pledge.waiting_to_charge(now(), 10) == []
    assert Pledge.waiting_to_charge(now() + LEASE, 10) == [pledge]


def test_a_charge_is_taken_in_once_however_often_it_is_told(app: Flask) -> None:
    pledge = asked(a_case(target=2_500, pledged=[2_500]))
    for told_by_the_capture in (True, False, False):
        pledge.apply_charge(paid(pledge), now(), asked=told_by_the_capture)
    keep()
    assert [(row.amount_pence, row.stripe_id) for row in db.session.scalars(sa.select(Movement))] == [
        (2_500, f"ch_{pledge.id}")
    ]
    assert letters_to(pledge) == ["confirmed", "charged"] and pledge.payment_intent_id == f"pi_{pledge.id}"
    assert history(pledge) == ["started", "confirmed", "due", "charging", "charged"]


@pytest.mark.parametrize("pence", [2_499, 2_501, 0])
def test_another_amount_than_was_agreed_is_never_written_down_as_charged(app: Flask, pence: int) -> None:
    pledge = asked(a_case(target=2_500, pledged=[2_500]))
    keep()
    with pytest.raises(ValueError, match=f"Stripe took {pence}, not 2500"):
        pledge.apply_charge(paid(pledge, pence), now(), asked=True)
    db.session.rollback()
    assert pledge.status == "charging" and db.session.scalars(sa.select(Movement)).all() == []


@pytest.mark.parametrize("outcome", ["declined", "action_required"])
def test_a_refusal_has_its_own_state_one_letter_and_seven_days(app: Flask, outcome: str) -> None:
    pledge, as_of = asked(a_case(target=2_500, pledged=[2_500])), now()
    for _ in range(2):
        pledge.apply_charge(refused(pledge, outcome), as_of, asked=True)
    assert (pledge.status, letters_to(pledge)) == (outcome, ["confirmed", outcome])
    assert pledge.repair_until == as_of + dt.timedelta(days=7)
    assert pledge.is_repairable(as_of + dt.timedelta(days=7) - SECOND)
    assert not pledge.is_repairable(as_of + dt.timedelta(days=7))
    pledge.drop(as_of + dt.timedelta(days=7))
    assert (pledge.status, letters_to(pledge)) == ("dropped", ["confirmed", outcome, "dropped"])
    assert Pledge.waiting_to_charge(as_of + dt.timedelta(days=365), 10) == []


def test_a_refusal_that_was_merely_found_is_not_believed_while_the_answer_is_awaited(app: Flask) -> None:
    """It may be older than what is being asked; the asker itself will say."""
    pledge = asked(a_case(target=2_500, pledged=[2_500]))
    pledge.apply_charge(refused(pledge), now())
    assert (pledge.status, letters_to(pledge)) == ("charging", ["confirmed"])
    pledge.apply_charge(paid(pledge), now())
    assert pledge.status == "charged", "but money that was taken is believed at once, whoever says it"


def test_the_refusal_of_an_earlier_attempt_is_not_taken_for_that_of_the_last(app: Flask) -> None:
    pledge = asked(a_case(target=2_500, pledged=[2_500]))
    pledge.apply_charge(refused(pledge, charge="ch_first"), now(), asked=True)
    pledge._move("due", "supporter", now())  # as a repair does
    assert pledge.claim(now(), LEASE).kind == "confirm", "one payment for each pledge, for ever"
    pledge.apply_charge(ChargeFound("unknown"), now(), asked=True)
    pledge.apply_charge(refused(pledge, charge="ch_first"), now())
    assert pledge.status == "unknown"
    pledge.apply_charge(refused(pledge, charge="ch_second"), now())
    assert pledge.status == "declined"


def test_an_unknown_answer_is_asked_for_again_after_a_growing_pause(app: Flask) -> None:
    pledge, pauses = asked(a_case(target=2_500, pledged=[2_500])), []
    for _ in range(12):
        as_of = now()
        pledge.apply_charge(ChargeFound("unknown"), as_of, asked=True)
        assert pledge.next_at
        pauses.append((pledge.next_at - as_of).seconds)
        pledge.claim(as_of, LEASE)
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]


def test_two_attempts_never_share_a_number_or_a_key(app: Flask) -> None:
    pledge = asked(a_case(target=2_500, pledged=[2_500]))
    (first,) = pledge.attempts
    for number, key, twice in ((1, "another key", ("pledge_id", "number")), (2, first.key, ("key",))):
        keep()
        db.session.add(
            ChargeAttempt(
                pledge_id=pledge.id, number=number, key=key, kind="create", params={}, status="asking",
                asked_at=now(), code="",
            )
        )  # fmt: skip
        with pytest.raises(sa.exc.IntegrityError, match=not_unique("charge_attempts", *twice)):
            db.session.flush()
        db.session.rollback()


def test_a_letter_is_promised_once_for_each_kind_subject_and_occasion(app: Flask) -> None:
    pledge = a_pledge(a_case().round)
    for occasion in ("attempt:1", "attempt:1", "attempt:2"):
        Letter.owe("declined", pledge, occasion, now())
    Letter.owe("charged", pledge, "attempt:1", now())
    promised = db.session.execute(sa.select(Letter.kind, Letter.occasion, Letter.message_id).order_by(Letter.id)).all()
    assert [(kind, occasion) for kind, occasion, _ in promised] == [
        ("declined", "attempt:1"), ("declined", "attempt:2"), ("charged", "attempt:1"),
    ]  # fmt: skip
    assert len({message_id for _, _, message_id in promised}) == 3
