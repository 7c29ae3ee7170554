"""The doctor: on healthy books he says nothing, and each thing that can be off he names in one sentence.

Every corruption below is made by hand in otherwise healthy books, and must give exactly the sentences beside it.
"""

import datetime as dt

import pytest
import sqlalchemy as sa
import time_machine
from flask import Flask

from bench.growth import copies_of_pledge, sqlites_steps
from jobs import doctor
from jobs import sweep as the_sweep
from models import Case, Examination, Lease, Letter, Pledge, begin_writing, db
from payments import ChargeFound
from tests.made import a_case, a_new_card, a_pledge, card_found, confirm, keep, now

HOUR, MINUTE, SECOND = dt.timedelta(hours=1), dt.timedelta(minutes=1), dt.timedelta(seconds=1)


def healthy_books() -> None:
    """Three cases: 1 was met, with pledges 1 to 4 of £25 each (charged, declined, dropped, unknown); 2 was missed, with
    pledge 5 of £10; 3 is open, with pledges 6 (confirmed), 7 (cancelled), 8 (started) and 9 (abandoned) of £20."""
    met = a_case(target=10_000, pledged=[2_500] * 4).round
    met.close(met.deadline + SECOND)
    met.settle(now())
    for pledge, outcome in zip(met.pledges("due"), ("succeeded", "declined", "declined", "unknown"), strict=True):
        pledge.claim(now(), MINUTE)
        pence = 2_500 if outcome == "succeeded" else 0
        pledge.apply_charge(ChargeFound(outcome, f"pi_{pledge.id}", f"ch_{pledge.id}", pence), now(), asked=True)
    db.session.get_one(Pledge, 3).drop(now())
    db.session.commit()
    missed = a_case(target=10_000, pledged=[1_000]).round
    missed.close(missed.deadline + SECOND)
    missed.settle(now())
    db.session.commit()
    is_open = a_case(target=10_000, pledged=[2_000, 2_000]).round
    is_open.pledges("confirmed")[1].cancel(now())
    a_pledge(is_open, 2_000)
    ended = a_pledge(is_open, 2_000)
    ended.apply_card(card_found(ended, expired=True), now())
    for letter in db.session.scalars(sa.select(Letter)):
        letter.sent(now())
    for pledge in db.session.scalars(sa.select(Pledge).where(Pledge.status.in_(("released", "cancelled", "dropped")))):
        pledge.card_removed()
    db.session.commit()


# Every check constraint on PostgreSQL: its table, its name, and what it says.
CHECKS = sa.text(
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
)


def corrupt(*statements: str) -> None:
    """Change rows behind the models' back, past the constraints that would stop most of it."""
    on_sqlite = db.engine.dialect.name == "sqlite"
    rules = [] if on_sqlite else db.session.execute(CHECKS).all()
    if on_sqlite:
        db.session.execute(sa.text("PRAGMA ignore_check_constraints=ON"))
    for table, name, _ in rules:
        db.session.execute(sa.text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
    for statement in statements:
        assert db.session.execute(sa.text(statement)).rowcount > 0, statement  # type: ignore[attr-defined]
    for table, name, rule in rules:
        # Not valid: it holds for what comes, whatever is there already.
        db.session.execute(sa.text(f"ALTER TABLE {table} ADD CONSTRAINT {name} {rule} NOT VALID"))
    db.session.commit()
    if on_sqlite:
        db.session.execute(sa.text("PRAGMA ignore_check_constraints=OFF"))


LONG_AGO = "'2026-01-01 00:00:00.000000'"
EVENT = (
    "INSERT INTO stripe_events (event_id, type, object_id, created_at, received_at, payload, next_at, tries, trouble) "
    f"VALUES ('evt_1', 'charge.succeeded', 'ch_1', {LONG_AGO}, {LONG_AGO}, '', {LONG_AGO}, 3, '')"
)
HAPPENED = (
    "INSERT INTO events (subject_kind, subject_id, what, who, at, before, after, note) "
    f"VALUES ('{{}}', {{}}, 'x', 'x', {LONG_AGO}, '{{}}', '{{}}', '')"
)
MOVED = f"INSERT INTO movements (case_id, pledge_id, kind, amount_pence, stripe_id, at) VALUES ({{}}, 'x', {LONG_AGO})"
ASKED = (
    "INSERT INTO charge_attempts (pledge_id, number, kind, key, params, status, asked_at, code) "
    f"VALUES ({{}}, {{}}, 'create', 'k', '{{{{}}}}', '{{}}', {LONG_AGO}, '')"
)
DISPUTE = (
    "INSERT INTO disputes (stripe_id, pledge_id, charge_id, amount_pence, reason, status, opened_at) "
    f"VALUES ('dp_1', {{}}, 'ch_1', 2500, 'fraudulent', '{{}}', {LONG_AGO})"
)
REFUND = (
    "INSERT INTO refunds (pledge_id, form_key, amount_pence, reason, status, asked_by_id, asked_at, code, tries) "
    f"VALUES (1, 'k', 500, 'asked', 'asking', 1, {LONG_AGO}, '', 0)"
)
ERASED = (
    "INSERT INTO erasures (subject, letters, asked_by, asked_at, next_at, tries) "
    f"VALUES ('pledge:1', '[]', 'supporter', {LONG_AGO}, {LONG_AGO}, 9)"
)
CHANGED = (
    "INSERT INTO promise_changes (round_id, status, old_deadline, new_deadline, old_target_pence, new_target_pence, "
    "reason, answer, asked_by_id, asked_at, decided_at) SELECT id, 'consented', deadline, deadline, target_pence, "
    f"target_pence - {{}}, 'x', '', 1, {LONG_AGO}, '2046-01-01 00:00:00.000000' FROM rounds WHERE id = {{}}"
)
OLD_CARD = f"INSERT INTO old_cards (pledge_id, payment_method_id, next_at, tries) VALUES (6, 'pm_x', {LONG_AGO}, 0)"
UPDATE = (
    "INSERT INTO updates (case_id, author_id, form_key, title, body, picture_alt, audience, status, version, page, "
    "saved_at, created_at, publish_at) VALUES "
    f"(1, 1, 'k', 'News', 'Words', '', 'everyone', 'scheduled', 1, '', {LONG_AGO}, {LONG_AGO}, {LONG_AGO})"
)

# (what is done by hand, what the doctor says)
CORRUPTIONS: list[tuple[list[str], list[str]]] = [
    # Rounds
    (["UPDATE rounds SET pledged_pence = 2001 WHERE id = 3"],
     ["Round 3 is open and counts 1 pledges of 2001 pence together, but its rows are 1 of 2000."]),
    (["UPDATE rounds SET pledge_count = 2 WHERE id = 3"],
     ["Round 3 is open and counts 2 pledges of 2000 pence together, but its rows are 1 of 2000."]),
    (["UPDATE days SET pence = 1999 WHERE round_id = 3"],
     ["Round 3 counts 1 pledges of 2000 pence together, but its days are 1 of 1999."]),
    (["DELETE FROM days WHERE round_id = 1"],
     ["Round 1 counts 4 pledges of 10000 pence together, but its days are 0 of 0."]),
    (["DELETE FROM tallies WHERE subject = 'round:2'"],
     ["The tally of released of round:2 is off by 1 rows and 1000 pence."]),
    (["UPDATE tallies SET refunded = refunded + 1 WHERE subject = 'round:2' AND what = 'released'"],
     ["The tally of released of round:2 is off by 0 rows and 0 pence."]),
    (["UPDATE rounds SET settled_total_pence = 10001 WHERE id = 1"],
     ["Round 1 was met with 4 pledges of 10001 pence together, but those that counted are 4 of 10000."]),
    (["UPDATE rounds SET settled_count = 2 WHERE id = 2"],
     ["Round 2 was missed with 2 pledges of 1000 pence together, but those that counted are 1 of 1000."]),
    (["UPDATE rounds SET target_pence = 10001 WHERE id = 1", "UPDATE agreements SET target_pence = 10001"],
     ["Round 1 is met, with 10000 of 10001 pence.",
      "Pledge 6 is confirmed, and agreed to another deadline or target than its round 3 has."]),
    (["UPDATE rounds SET target_pence = 1000 WHERE id = 2"], ["Round 2 is missed, with 1000 of 1000 pence."]),
    (["UPDATE rounds SET settled_at = NULL WHERE id = 2"], ["Round 2 is missed, with 1000 of 10000 pence."]),
    ([HAPPENED.format("round", 2, "missed", "closing"), HAPPENED.format("round", 2, "closing", "missed")],
     ["Round 2 was decided 2 times.", "Round 2 went from missed to closing, which the law does not allow."]),
    (["UPDATE cases SET status = 'missed' WHERE id = 1"],
     ["Case 1 is missed, which none of its rounds says.", "Case 1 is missed, but its history ends with funded."]),
    ([f"UPDATE rounds SET deadline = {LONG_AGO} WHERE id = 3",
      f"UPDATE agreements SET deadline = {LONG_AGO} WHERE pledge_id = 6"],
     ["Round 3 is still open, long after its deadline."]),
    (["UPDATE cases SET status = 'closed' WHERE id = 1"],
     ["Case 1 is closed, which its final report, or the lack of one, does not say.",
      "Case 1 is closed, but its history ends with funded."]),
    ([CHANGED.format(1, 2)], ["Round 2 has another deadline or target than change 1 of its promise says."]),
    ([CHANGED.format(0, 3)], ["Pledge 6 was made before change 1 of the promise, and its supporter was not told."]),
    # Pledges
    (["UPDATE pledges SET round_id = 2 WHERE id = 2",
      "UPDATE rounds SET settled_total_pence = 7500, settled_count = 3, target_pence = 7500 WHERE id = 1",
      "UPDATE agreements SET target_pence = 7500 WHERE pledge_id IN (1, 3, 4)",
      "UPDATE agreements SET deadline = (SELECT deadline FROM rounds WHERE id = 2) WHERE pledge_id = 2",
      "UPDATE rounds SET settled_total_pence = 3500, settled_count = 2 WHERE id = 2"],
     ["Pledge 2 is declined, but its round 2 is missed.",
      "Charge attempt 2 was made for pledge 2, but its round 2 is missed."]),
    ([ASKED.format(6, 1, "declined")],
     ["Charge attempt 5 was made for pledge 6, but its round 3 is open.",
      "Pledge 6 is confirmed, but a charge was asked for it."]),
    (["UPDATE pledges SET round_id = 2 WHERE id = 8"], ["Pledge 8 is still started, though its round 2 is missed."]),
    (["UPDATE pledges SET status = 'held', held_because = 'network' WHERE id = 8"],
     ["Pledge 8 is held, but it counted before, or has no saved card.",
      "Pledge 8 is held, but its history ends with started."]),
    ([f"UPDATE pledges SET confirm_by = {LONG_AGO} WHERE id = 8"],
     ["Pledge 8 has a card page, though its address is not confirmed yet."]),
    ([ASKED.format(4, 2, "declined")], ["Pledge 4 was asked for again while attempt 1 had no answer."]),
    ([ASKED.format(1, 2, "succeeded")], ["Pledge 1 has 2 charges that succeeded."]),
    (["UPDATE charge_attempts SET status = 'declined' WHERE pledge_id = 1"],
     ["Pledge 1 is charged, which its charge attempts do not say.",
      "Movement 1 of pledge 1 is none of its charges that succeeded."]),
    (["UPDATE charge_attempts SET status = 'succeeded' WHERE pledge_id = 2"],
     ["Pledge 2 is declined, which its charge attempts do not say."]),
    (["UPDATE pledges SET amount_pence = 2100, agreement_pence = 2100 WHERE id = 8"],
     ["Pledge 8 is of 2100 pence, to which nobody has agreed."]),
    (["DELETE FROM agreements WHERE pledge_id = 8"], ["Pledge 8 is of 2000 pence, to which nobody has agreed."]),
    # The ledger
    (["DELETE FROM movements"], ["Pledge 1 is charged: the ledger should hold 2500 pence for it and holds 0."]),
    (["UPDATE movements SET amount_pence = 2499"],
     ["Pledge 1 is charged: the ledger should hold 2500 pence for it and holds 2499."]),
    ([MOVED.format("1, 2, 'charge', 2500")],
     ["Pledge 2 is declined: the ledger should hold 0 pence for it and holds 2500.",
      "Movement 2 of pledge 2 is none of its charges that succeeded."]),
    (["UPDATE movements SET amount_pence = 1000", MOVED.format("1, 1, 'charge', 1500")],
     ["Pledge 1 was charged 2 times in the ledger.",
      "Movement 2 of pledge 1 is none of its charges that succeeded."]),
    (["UPDATE pledges SET refunded_pence = 500 WHERE id = 1"],
     ["Pledge 1 says that 500 pence were given back; the ledger says 0."]),
    ([MOVED.format("1, 1, 'refund', 500")], ["Pledge 1 says that 0 pence were given back; the ledger says 500."]),
    (["UPDATE pledges SET refunded_pence = 2500 WHERE id = 1", MOVED.format("1, 1, 'refund', -2500")],
     ["Pledge 1 is charged, with 2500 of 2500 pence given back."]),
    ([DISPUTE.format(1, "open")], ["Pledge 1 is charged, which its disputes do not say.",
      "Dispute 1 is open, and its supporter is not owed the letter “payment_disputed”."]),
    ([MOVED.format("1, 1, 'dispute', -2500")], ["Pledge 1 is charged, with 2500 pence held or lost in disputes."]),
    (["UPDATE movements SET case_id = 2"],
     ["Movement 1 of pledge 1 stands in the books of case 2, which is another."]),
    (["UPDATE movements SET stripe_id = 'ch_x'"], ["Movement 1 of pledge 1 is none of its charges that succeeded."]),
    ([MOVED.format("1, NULL, 'charge', 500")],
     ["Movement 2 of pledge None is none of its charges that succeeded.",
      "Movement 2, a charge, belongs to no pledge."]),
    ([DISPUTE.format("NULL", "open")], ["Dispute 1 is about a charge that is none of ours."]),
    # History and letters
    (["UPDATE events SET before = 'due' WHERE subject_kind = 'pledge' AND subject_id = 1 AND after = 'charged'"],
     ["The history of pledge 1 has a gap: it became charging, and then charged from due.",
      "Pledge 1 went from due to charged, which the law does not allow."]),
    (["DELETE FROM events WHERE subject_kind = 'pledge' AND subject_id = 1 AND after = 'charged'"],
     ["Pledge 1 is charged, but its history ends with charging."]),
    (["DELETE FROM events WHERE subject_kind = 'pledge' AND subject_id = 8"],
     ["Pledge 8 is started, but its history ends with nothing."]),
    (["DELETE FROM events WHERE subject_kind = 'round' AND subject_id = 2"],
     ["Round 2 is missed, but its history ends with open."]),
    (["DELETE FROM letters WHERE kind = 'charged'"],
     ["Pledge 1 is charged, and its supporter is not owed the letter “charged”."]),
    (["DELETE FROM letters WHERE kind = 'declined' AND subject = 'pledge:2'"],
     ["Pledge 2 is declined, and its supporter is not owed a letter about it."]),
    (["DELETE FROM letters WHERE kind = 'dropped'"],
     ["Pledge 3 is dropped, and its supporter is not owed the letter “dropped”."]),
    (["DELETE FROM letters WHERE kind = 'missed'"],
     ["Pledge 5 is released, and its supporter is not owed the letter “missed”."]),
    (["DELETE FROM letters WHERE kind = 'cancelled'"],
     ["Pledge 7 is cancelled, and its supporter is not owed the letter “cancelled”."]),
    (["UPDATE cases SET status = 'cancelled' WHERE id = 1", HAPPENED.format("case", 1, "funded", "cancelled")],
     ["Pledge 1 is charged, its case was cancelled, and its supporter is not owed the letter about that."]),
    (["DELETE FROM letters WHERE kind = 'confirmed' AND subject = 'pledge:6'"],
     ["Pledge 6 counted, and its supporter is not owed the letter “confirmed”."]),
    (["DELETE FROM letters WHERE kind = 'reached'"],
     ["Round 1 is met, and its owner is not owed the letter “reached”."]),
    (["UPDATE letters SET sent_at = NULL WHERE kind = 'charged'"],
     ["Letter 6 (“charged”) has not been sent, after 0 tries."]),
    (["UPDATE letters SET sent_at = NULL, trouble = 'SMTPRecipientsRefused: 550' WHERE kind = 'charged'"],
     ["Letter 6 (“charged”) to pledge:1 is given up (SMTPRecipientsRefused: 550); see flask post-again."]),
    (["UPDATE letters SET sent_at = NULL, next_at = created_at, created_at = '2026-01-01' WHERE kind = 'charged'"],
     ["Letter 6 (“charged”) has not been sent, after 0 tries."]),
    # What waits too long
    (["UPDATE events SET at = '2026-01-01 00:00:00.000000' WHERE subject_id = 4 AND after = 'unknown'"],
     ["Pledge 4 is still unknown: nobody knows whether it was charged."]),
    (["UPDATE pledges SET repair_until = '2026-01-01 00:00:00.000000' WHERE id = 2"],
     ["Pledge 2 is still declined, though its time for repair is over."]),
    (["UPDATE cases SET status = 'cancelled', ended_at = '2026-01-01 00:00:00.000000' WHERE id = 1",
      "UPDATE events SET at = '2026-01-01 00:00:00.000000' WHERE subject_id = 2 AND after = 'declined'",
      HAPPENED.format("case", 1, "funded", "cancelled")],
     ["Pledge 1 is charged, its case was cancelled, and its supporter is not owed the letter about that.",
      "Pledge 2 is still declined, though its case is cancelled."]),
    (["UPDATE pledges SET next_at = NULL WHERE id = 4"],
     ["Pledge 4 is not asked for any more, since Stripe calls our request wrong; see flask ask-again."]),
    (["UPDATE pledges SET next_at = NULL WHERE id = 2"],
     ["Pledge 2 is declined, and nothing will ever look at it again."]),
    (["UPDATE pledges SET payment_method_id = 'pm_5' WHERE id = 5"],
     ["Pledge 5 is released, and nothing will ever look at it again."]),
    (["DELETE FROM charge_attempts WHERE pledge_id = 4"],
     ["Pledge 4 is unknown, but no charge was ever asked for."]),
    (["UPDATE pledges SET next_at = '2026-01-01 00:00:00.000000' WHERE id = 7",
      "UPDATE events SET at = '2026-01-01 00:00:00.000000' WHERE subject_id = 7 AND after = 'cancelled'"],
     ["Pledge 7 is cancelled, and its card, or card page, has not been removed."]),
    (["UPDATE pledges SET session_id = NULL, tries = 4, next_at = '2026-01-01 00:00:00.000000' WHERE id = 8"],
     ["Pledge 8 waits for its card page, which nobody has made, after 4 tries."]),
    ([OLD_CARD], ["Old card 1 of pledge 6 has not been removed."]),
    ([EVENT], ["Stripe's event 1 (charge.succeeded) has not been worked on, after 3 tries."]),
    ([REFUND], ["Refund 1 of pledge 1 was asked for and never answered."]),
    ([UPDATE], ["Update 1 is scheduled, but its history ends with draft.",
                "Update 1 waits to be published, and its time has long passed."]),
    ([ERASED], ["Erasure 1, of pledge:1, is not finished."]),
]  # fmt: skip


def test_healthy_books_agree(app: Flask) -> None:
    healthy_books()
    assert doctor.examine(now()) == []


@pytest.mark.broken_books("that is what is tested here")
@pytest.mark.parametrize(("by_hand", "said"), CORRUPTIONS, ids=[said[0][:70] for _, said in CORRUPTIONS])
def test_whatever_is_off_is_named_in_a_sentence(app: Flask, by_hand: list[str], said: list[str]) -> None:
    healthy_books()
    corrupt(*by_hand)
    assert doctor.examine(now()) == said


def test_every_check_has_been_seen_finding_something() -> None:
    """No check of the doctor is without its corruption above; its fixed words must stand in a sentence there."""
    sentences = [sentence for _, said in CORRUPTIONS for sentence in said]
    unseen = [check.words for check in doctor.CHECKS if not any(_is_of(check.words, said) for said in sentences)]
    assert unseen == ["Pledge {id} has been {status} for longer than a charge takes."]  # see the next test


@pytest.mark.broken_books("a charge is left lying for an hour")
def test_a_pledge_that_waits_too_long_for_its_charge_is_named_unless_staff_hold_it_back(app: Flask) -> None:
    case = a_case(target=2_500, pledged=[2_500])
    case.round.close(case.round.deadline + SECOND)
    case.round.settle(now())
    late = now() + doctor.CHARGING + MINUTE
    assert doctor.examine(late) == ["Pledge 1 has been due for longer than a charge takes."]
    case.charges_frozen = True
    assert doctor.examine(late) == []
    case.charges_frozen = False
    db.session.get_one(Pledge, 1).next_at = None


@pytest.mark.broken_books("an agreement is taken out")
def test_the_books_agree_with_another_card_for_a_refused_payment_and_not_without_what_was_agreed_to(app: Flask) -> None:
    healthy_books()
    begin_writing()
    declined = Pledge.hold(2)
    declined.apply_card(a_new_card(declined), now())
    db.session.commit()
    assert declined.status == "due" and doctor.examine(now()) == []
    corrupt("DELETE FROM agreements WHERE pledge_id = 2 AND id = (SELECT max(id) FROM agreements)")
    assert doctor.examine(now()) == ["Pledge 2 is of 2500 pence, to which nobody has agreed."]


@pytest.mark.broken_books("somebody's name is in a pledge that is off")
def test_no_sentence_names_a_person(app: Flask) -> None:
    pledge = confirm(a_pledge(a_case().round, 2_500, name="Ada Winter", email="ada@example.org"))
    pledge.round.pledged_pence = 0
    db.session.execute(sa.delete(Letter))
    said = " ".join(doctor.examine(now()))
    assert "Pledge 1" in said and "Ada" not in said and "ada@" not in said


# --- By hand and by the clock ------------------------------------------------------------------------------


@pytest.mark.broken_books("the total is changed by hand")
def test_flask_doctor_prints_one_line_for_each_finding_and_ends_with_1(app: Flask) -> None:
    healthy_books()
    agree = app.test_cli_runner().invoke(args=["doctor"])
    assert (agree.exit_code, agree.output) == (0, "The books agree: 3 cases, 9 pledges, £25 charged.\n")
    begin_writing()
    corrupt("UPDATE rounds SET pledged_pence = 2001 WHERE id = 3", "DELETE FROM letters WHERE kind = 'charged'")
    off = app.test_cli_runner().invoke(args=["doctor"])
    begin_writing()
    assert (off.exit_code, off.output.splitlines()) == (1, doctor.examine(now()))
    assert len(off.output.splitlines()) == 2


def examinations() -> list[int]:
    """How many things each look has found, oldest first."""
    begin_writing()
    found = [len(one.findings) for one in db.session.scalars(sa.select(Examination).order_by(Examination.id))]
    keep()
    return found


def letters_to_the_operator() -> list[str]:
    begin_writing()
    found = sa.select(Letter.occasion).where(Letter.kind == "books_disagree").order_by(Letter.id)
    return list(db.session.scalars(found))


@pytest.mark.broken_books("the total is changed by hand")
def test_the_clock_examines_once_an_hour_and_tells_the_operator_once_a_day(app: Flask) -> None:
    start = dt.datetime(2026, 11, 24, 6, 0, tzinfo=dt.UTC)
    with time_machine.travel(start):
        healthy_books()
        the_sweep.sweep(now())
        assert examinations() == []  # rung for; a worker has 15 seconds to come
    with time_machine.travel(start + MINUTE):
        the_sweep.sweep(now())
        the_sweep.sweep(now())
        assert (examinations(), letters_to_the_operator()) == ([0], [])
        corrupt("UPDATE rounds SET pledged_pence = 2001 WHERE id = 3")
    for hours in (1, 2, 24, 25):
        with time_machine.travel(start + hours * HOUR + 3 * MINUTE):
            doctor.examine_books()
            doctor.examine_books()
    looks = examinations()
    assert (len(looks), min(looks[1:])) == (5, 1)
    assert letters_to_the_operator() == ["2026-11-24", "2026-11-25"]


def test_two_workers_do_not_examine_at_once(app: Flask) -> None:
    assert Lease.take(doctor.LEASE, "another worker", now(), HOUR)
    keep()
    doctor.examine_books()
    assert examinations() == []


def _is_of(words: str, sentence: str) -> bool:
    """Whether a sentence was made from these words."""
    parts = [part.partition("}")[2] for part in words.split("{")[1:]]
    return sentence.startswith(words.split("{", 1)[0]) and all(part in sentence for part in parts)


# --- Many pledges ------------------------------------------------------------------------------------------


def effort() -> int:
    """How many thousand steps SQLite takes for one examination."""
    with sqlites_steps() as steps:
        assert doctor.examine(now()) == []
    return steps.thousands


@pytest.mark.only_on("sqlite", why="SQLite counts the steps of its own machine, which no load of ours changes")
def test_the_effort_grows_with_the_number_of_pledges_and_not_with_its_square(app: Flask) -> None:
    case = a_case(target=600_000, pledged=[2_500])
    db.session.execute(sa.update(Letter).values(sent_at=now()))
    case_id = case.id
    db.session.commit()
    copies_of_pledge(1, 999)
    thousand = effort()
    copies_of_pledge(1, 1_000)
    assert thousand < effort() < 2.2 * thousand
    assert len(db.session.get_one(Case, case_id).round.pledges("confirmed")) == 2_000
