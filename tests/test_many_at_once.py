"""Many at once, on either database: nothing is lost, nothing is done twice, and nobody waits for ever."""

import dataclasses
import datetime as dt
import functools
import itertools
import random
import secrets
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

import law
from law import Refused
from models import (
    AddressChange,
    Case,
    Event,
    Lease,
    Letter,
    LinkRequest,
    OldCard,
    Pledge,
    Refund,
    Round,
    StripeEvent,
    User,
    _patient,
    _Turns,
    begin_writing,
    db,
)
from payments import ChargeFound
from tests.crowd import at_once, in_another_thread
from tests.doorway import SAME_ORIGIN
from tests.house import eventually
from tests.made import a_case, a_new_card, a_pledge, a_user, card_found, case_at, confirm, keep, now, pledges_of

SECOND = dt.timedelta(seconds=1)
MINUTE = dt.timedelta(minutes=1)


# --- The counters ------------------------------------------------------------------------------------------


def test_threads_take_turns_to_write_in_the_order_in_which_they_came(app: Flask) -> None:
    """Where SQLite lets whoever is quickest go first. Who gives up leaves the line; who ends lets the next one in."""
    # Whoever only reads needs no turn, and the test before this one may have ended with reading.
    begin_writing()
    turns, served = _Turns(), list[int]()
    connections = [SimpleNamespace(info={}) for _ in range(6)]

    def write(number: int) -> None:
        _patient.set(number != 2)
        turns.take(connections[number])  # type: ignore[arg-type]
        served.append(number)
        turns.give_back(None, connections[number])

    turns.take(connections[0])  # type: ignore[arg-type]
    turns.take(connections[0])  # type: ignore[arg-type]
    threads = [threading.Thread(target=write, args=(number,)) for number in range(1, 6)]
    for number, thread in enumerate(threads, start=1):
        thread.start()
        eventually(lambda number=number: len(turns._waiting) + len(served) >= number)  # type: ignore[misc]
    # The second is not patient, and goes on to SQLite itself after a fifth of a second.
    eventually(lambda: served == [2])
    turns.give_back(None, connections[0])
    for thread in threads:
        thread.join()
    assert served == [2, 1, 3, 4, 5]
    assert not turns._taken
    assert not any(connection.info for connection in connections)


@pytest.mark.broken_books("the total is counted up without pledges")
def test_many_writers_lose_nothing_and_none_finds_the_database_locked(app: Flask) -> None:
    """Read, then write: with SQLite's own BEGIN most of these die with "database is locked", and in PostgreSQL's
    READ COMMITTED most of the pennies are lost unless the round is held."""
    round_id = a_case().round.id
    keep()

    def add_a_penny_ten_times() -> None:
        for _ in range(10):
            Round.hold(round_id).count(1, 1, now())
            db.session.commit()

    at_once(app, *[add_a_penny_ten_times] * 20)
    its_round = Round.hold(round_id)
    assert (its_round.pledged_pence, its_round.pledge_count) == (200, 200)


@pytest.mark.parametrize("trial", range(5))
def test_a_pledge_and_the_close_at_the_same_moment_never_lose_a_pledge(app: Flask, trial: int) -> None:
    """Whatever was acknowledged is counted, whatever came too late was told so, and nothing in between."""
    case = a_case(target=600_000)
    round_id, deadline = case.round.id, case.round.deadline
    keep()
    one_more = threading.Semaphore(0)
    acknowledged: list[int] = []

    def pledge() -> None:
        for _ in range(4):
            try:
                made = confirm(a_pledge(Round.hold(round_id), 2_500, as_of=deadline), saved_at=deadline)
            except Refused:
                db.session.rollback()
                return
            db.session.commit()
            acknowledged.append(made.id)
            one_more.release()

    def close() -> None:
        for _ in range(3 * trial):
            assert one_more.acquire(timeout=30), "the pledges stopped coming"
        Round.hold(round_id).close(deadline + SECOND)
        db.session.commit()
        Round.hold(round_id).settle(deadline + 2 * SECOND)
        db.session.commit()

    at_once(app, close, *[pledge] * 8)
    its_round = db.session.get_one(Round, round_id)
    assert (its_round.settled_count, its_round.settled_total_pence) == (len(acknowledged), len(acknowledged) * 2_500)
    assert (its_round.pledge_count, its_round.pledged_pence) == (len(acknowledged), len(acknowledged) * 2_500)
    assert sorted(pledge.id for pledge in its_round.pledges("released")) == sorted(acknowledged)
    assert db.session.scalars(sa.select(Pledge.status).distinct()).all() in ([], ["released"])


@pytest.mark.parametrize("trial", range(5))
def test_a_cancellation_and_the_decision_at_the_same_moment_agree(app: Flask, trial: int) -> None:
    """Two pledges reach the target together. A cancelled one is never counted, a counted one never cancelled."""
    case = a_case(target=5_000, pledged=[2_500, 2_500])
    round_id, deadline = case.round.id, case.round.deadline
    pledge_id = case.round.pledges("confirmed")[0].id
    keep()

    def cancel() -> bool:
        try:
            Pledge.hold(pledge_id).cancel(deadline)
        except Refused:
            return False
        db.session.commit()
        return True

    def decide() -> bool:
        Round.hold(round_id).close(deadline + SECOND)
        db.session.commit()
        Round.hold(round_id).settle(deadline + SECOND)
        db.session.commit()
        return True

    cancelled, _ = at_once(app, cancel, decide)
    its_round = db.session.get_one(Round, round_id)
    statuses = [pledge.status for pledge in its_round.pledges(*law.PLEDGE_MOVES)]
    decision = its_round.status, its_round.settled_total_pence, statuses
    if cancelled:
        assert decision == ("missed", 2_500, ["cancelled", "released"])
    else:
        assert decision == ("met", 5_000, ["due", "due"])


@pytest.mark.parametrize("trial", range(5))
def test_a_lower_amount_and_the_decision_at_the_same_moment_agree(app: Flask, trial: int) -> None:
    """Two pledges reach the target together. What was lowered is counted so, what was counted is not lowered."""
    case = a_case(target=5_000, pledged=[2_500, 2_500])
    round_id, deadline = case.round.id, case.round.deadline
    pledge_id = case.round.pledges("confirmed")[0].id
    keep()

    def lower() -> bool:
        try:
            Pledge.hold(pledge_id).change_amount(1_000, deadline)
        except Refused:
            return False
        db.session.commit()
        return True

    lowered, _ = at_once(app, lower, lambda: _decide(round_id, deadline))
    its_round, pledge = db.session.get_one(Round, round_id), db.session.get_one(Pledge, pledge_id)
    told = db.session.scalars(sa.select(Letter.kind).where(Letter.kind == "changed")).all()
    decision = its_round.status, its_round.settled_total_pence, pledge.amount_pence, pledge.status, told
    if lowered:
        assert decision == ("missed", 3_500, 1_000, "released", ["changed"])
    else:
        assert decision == ("met", 5_000, 2_500, "due", [])


@pytest.mark.parametrize("trial", range(5))
def test_a_raise_a_cancellation_and_the_decision_at_the_same_moment_agree(app: Flask, trial: int) -> None:
    """The card of the raise was saved in time, and only with the raise the target of £50 is reached."""
    case = a_case(target=5_000, pledged=[2_500])
    round_id, deadline = case.round.id, case.round.deadline
    (pledge,) = case.round.pledges("confirmed")
    pledge.change_amount(5_000, deadline)
    pledge_id, found = pledge.id, a_new_card(pledge, deadline)
    keep()

    def hear_of_the_card() -> bool:
        Pledge.hold(pledge_id).apply_card(found, deadline + SECOND)
        db.session.commit()
        return True

    def cancel() -> bool:
        try:
            Pledge.hold(pledge_id).cancel(deadline)
        except Refused:
            return False
        db.session.commit()
        return True

    cancelled, _, _ = at_once(app, cancel, hear_of_the_card, lambda: _decide(round_id, deadline))
    # The round is not settled while the card page of the raise is open; by now it is known how that ended.
    _decide(round_id, deadline)
    its_round, pledge = db.session.get_one(Round, round_id), db.session.get_one(Pledge, pledge_id)
    decision = its_round.status, its_round.settled_total_pence, pledge.status
    assert decision == (("missed", 0, "cancelled") if cancelled else ("met", 5_000, "due"))
    assert pledge.amount_pence == pledge.agreement_pence and its_round.pledged_pence == its_round.settled_total_pence


def _decide(round_id: int, deadline: dt.datetime) -> bool:
    """Close the round and settle it, if nothing is open any more."""
    Round.hold(round_id).close(deadline + SECOND)
    db.session.commit()
    try:
        Round.hold(round_id).settle(deadline + SECOND)
    except Refused:
        return False
    db.session.commit()
    return True


@pytest.mark.parametrize("trial", range(3))
def test_a_changed_amount_and_the_decision_at_the_same_moment_agree(app: Flask, trial: int) -> None:
    """From £25 to £50, which is what the target lacks: either changed, saved and counted, or refused and let go."""
    case = a_case(target=7_500, pledged=[2_500])
    round_id, deadline = case.round.id, case.round.deadline
    pledge_id = a_pledge(case.round, 2_500).id
    keep()

    def change() -> bool:
        pledge = Pledge.hold(pledge_id)
        try:
            pledge.promise_again(5_000, "Ada Winter", "ada@example.org", "name", False, deadline)
        except Refused:
            db.session.rollback()
            return False
        pledge.ask_card_page({}, deadline)
        pledge.card_page_made(pledge.session_key, "cs_of_the_change", None)
        confirm(pledge, saved_at=deadline)
        db.session.commit()
        return True

    def decide() -> bool:
        its_round = Round.hold(round_id)
        its_round.close(deadline + SECOND)
        for pledge in its_round.unresolved():
            pledge.apply_card(card_found(pledge, expired=True), deadline + SECOND)
        db.session.commit()
        Round.hold(round_id).settle(deadline + SECOND)
        db.session.commit()
        return True

    changed, _ = at_once(app, change, decide)
    its_round = db.session.get_one(Round, round_id)
    decision = its_round.status, its_round.settled_total_pence, db.session.get_one(Pledge, pledge_id).status
    assert decision == (("met", 7_500, "due") if changed else ("missed", 2_500, "abandoned"))


@pytest.mark.parametrize("trial", range(3))
def test_another_card_and_the_decision_at_the_same_moment_leave_one_card_to_charge(app: Flask, trial: int) -> None:
    """It was saved at the last moment; its news and the closing round both find it."""
    case = a_case(target=2_500, pledged=[2_500])
    round_id, deadline = case.round.id, case.round.deadline
    (pledge,) = case.round.pledges("confirmed")
    pledge_id, first = pledge.id, str(pledge.payment_method_id)
    pledge.ask_card_page({}, deadline)
    pledge.card_page_made(pledge.session_key, "cs_of_the_second", None)
    second = dataclasses.replace(card_found(pledge, deadline), payment_method_id="pm_second")
    keep()

    def save_another() -> None:
        Pledge.hold(pledge_id).apply_card(second, deadline)
        db.session.commit()

    def decide() -> None:
        Round.hold(round_id).close(deadline + SECOND)
        db.session.commit()
        Pledge.hold(pledge_id).apply_card(second, deadline + SECOND)
        db.session.commit()
        Round.hold(round_id).settle(deadline + SECOND)
        db.session.commit()

    at_once(app, save_another, decide)
    charged = db.session.get_one(Pledge, pledge_id)
    left_over = list(db.session.scalars(sa.select(OldCard.payment_method_id)))
    assert (charged.status, charged.payment_method_id, left_over) == ("due", "pm_second", [first])


@pytest.mark.parametrize("trial", range(3))
def test_a_case_that_staff_stop_and_the_decision_at_the_same_moment_agree(app: Flask, trial: int) -> None:
    """Whether the stop comes before the decision or right after it, it counts, and no pledge is charged."""
    case = a_case(target=2_500, pledged=[2_500] * 3)
    case_id, round_id, deadline = case.id, case.round.id, case.round.deadline
    keep()

    def stop() -> bool:
        db.session.get_one(Case, case_id).cancel("It was withdrawn.", "operator", deadline)
        db.session.commit()
        return True

    def decide() -> bool:
        its_round = Round.hold(round_id)
        its_round.close(deadline + SECOND)
        if its_round.status == "closing":
            its_round.settle(deadline + SECOND)
        db.session.commit()
        return True

    assert at_once(app, stop, decide) == [True, True]
    its_case = db.session.get_one(Case, case_id)
    pledges = its_case.round.pledges(*law.PLEDGE_MOVES)
    # Before the decision each pledge is let go at once. Right after it the round stays met, nobody is charged all the
    # same, and each is let go once Stripe was asked about it.
    ends = {"cancelled": ({"released"}, 0), "met": ({"due"}, 3)}
    assert its_case.status == "cancelled"
    waiting = Pledge.waiting_to_stop(deadline + SECOND)
    assert ({pledge.status for pledge in pledges}, len(waiting)) == ends[its_case.round.status]
    assert Pledge.waiting_to_charge(deadline + SECOND, 10) == []


@pytest.mark.parametrize("trial", range(3))
def test_two_refunds_at_the_same_moment_never_give_back_more_than_was_taken(app: Flask, trial: int) -> None:
    """£20 of £25, decided on two forms by two of staff: the second finds only £5 left."""
    staff_id = a_user("staff").id
    its_round = a_case(target=2_500, pledged=[2_500]).round
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(its_round.deadline + SECOND)
    (pledge,) = its_round.pledges("due")
    pledge.claim(now(), MINUTE)
    pledge.apply_charge(ChargeFound("succeeded", "pi_1", "ch_1", 2_500), now(), asked=True)
    pledge_id = pledge.id
    keep()

    def refund(form: str) -> bool:
        staff = db.session.get_one(User, staff_id)
        try:
            Pledge.hold(pledge_id).ask_refund(form * 24, 2_000, "They asked.", staff, now())
        except Refused:
            return False
        db.session.commit()
        return True

    assert sorted(at_once(app, lambda: refund("a"), lambda: refund("b"))) == [False, True]
    assert db.session.scalars(sa.select(Refund.amount_pence)).all() == [2_000]


# --- Claims ------------------------------------------------------------------------------------------------


def test_workers_that_take_events_at_once_never_get_the_same_one(app: Flask) -> None:
    for number in range(60):
        StripeEvent.store(event_id=f"evt_{number}", kind="some.news", object_id="x", created_at=now(), payload="{}",
                          as_of=now())  # fmt: skip
    keep()

    def take_until_none_is_left() -> list[int]:
        taken = []
        while events := StripeEvent.claim(now(), MINUTE, limit=1):
            taken += [event.id for event in events]
            db.session.commit()
        return taken

    taken = at_once(app, *[take_until_none_is_left] * 8)
    # Whoever finds nothing free may stop while others still work: what counts is that all are taken, each once.
    assert sorted(itertools.chain(*taken)) == list(range(1, 61))
    assert db.session.scalars(sa.select(StripeEvent.tries).distinct()).all() == [1]


def test_a_letter_that_many_want_to_send_at_once_is_one_persons(app: Flask) -> None:
    its_round = a_case().round
    for occasion in map(str, range(20)):
        Letter.owe("reached", its_round, occasion, now())
    keep()

    def claim_all() -> list[int]:
        mine = []
        for letter_id in range(1, 21):
            letter = Letter.claim(letter_id, now(), MINUTE)
            db.session.commit()
            mine += [letter_id] if letter else []
        return mine

    assert sorted(itertools.chain(*at_once(app, *[claim_all] * 8))) == list(range(1, 21))


def test_charges_that_two_capturers_claim_at_once_are_asked_for_once(app: Flask) -> None:
    """Only one should work at a time; but should two ever, each pledge still has one attempt, so one key."""
    its_round = a_case(target=2_500, pledged=[2_500] * 30).round
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(its_round.deadline + SECOND)
    later = its_round.deadline + MINUTE
    keep()

    def claim_batches() -> list[str]:
        keys: list[str] = []
        # Without claims there would be no end to it.
        while len(keys) <= 30 and (batch := Pledge.waiting_to_charge(later, 7)):
            keys += [pledge.claim(later, MINUTE).key for pledge in batch]
            db.session.commit()
        return keys

    keys = itertools.chain(*at_once(app, *[claim_batches] * 4))
    assert sorted(keys) == sorted(f"pledge-{number}-charge-1" for number in range(1, 31))


def test_a_lease_that_many_want_at_once_is_one_persons(app: Flask) -> None:

    def want(me: str) -> Callable[[], bool]:
        def take() -> bool:
            mine = Lease.take("capture", me, now(), MINUTE)
            db.session.commit()
            return mine

        return take

    assert sum(at_once(app, *[want(f"process {number}") for number in range(10)])) == 1


def test_what_is_there_already_is_not_said_to_be_added(app: Flask) -> None:
    """Whoever is told that a row is new goes on to do what only its first owner may do."""
    for new in (True, False):
        stored = StripeEvent.store(event_id="evt_1", kind="some.news", object_id="x", created_at=now(), payload="{}",
                                   as_of=now())  # fmt: skip
        assert stored is new
    assert Lease.take("capture", "me", now(), MINUTE) and Lease.take("capture", "me", now(), MINUTE)
    assert not Lease.take("capture", "somebody else", now(), MINUTE)


def test_a_form_that_is_sent_many_times_at_once_makes_one_pledge(app: Flask) -> None:
    round_id = a_case().round.id
    keep()

    def send() -> int:
        made = Round.hold(round_id).start_pledge(
            form_key="the same form key", amount_pence=2_500, name="Ada", email="ada@example.org", shown_as="name",
            wants_updates=False, as_of=now(),
        )  # fmt: skip
        db.session.commit()
        return made.id

    assert at_once(app, *[send] * 10) == [1] * 10
    assert db.session.scalar(sa.select(sa.func.count(Pledge.id))) == 1


@pytest.mark.only_on("postgresql", why="SQLite has one writer, who reads nothing from before its turn")
def test_whoever_waited_for_the_round_while_staff_paused_pledging_or_hid_the_case_is_refused(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL reads the row anew for which it has waited, and the case beside it as it was before."""
    held_at = Round.hold_at
    changes: tuple[dict[str, Any], ...] = ({"pledging_paused": True}, {"visibility": "hidden"})
    for number, change in enumerate(changes):
        slug = a_case(slug=f"waited-for-{number}").slug
        keep()

        def meanwhile(slug: str, change: dict[str, Any] = change) -> Round | None:
            found = held_at(slug)
            in_another_thread(app, functools.partial(_change_case, slug, change))
            return found

        monkeypatch.setattr(Round, "hold_at", meanwhile)
        typed = {"amount": "25", "name": "Ada Winter", "email": "waited@example.org", "agreed": "y",
                 "form_key": secrets.token_urlsafe(24)}  # fmt: skip
        sent = app.test_client().post(f"/cases/{slug}/pledges", data=typed, headers=SAME_ORIGIN)
        assert sent.status_code == 409 and pledges_of(slug) == []
        # The same where the case was read in this transaction before the round is held.
        case_at(slug).switch("pledging_paused", False, "Over.", db.session.merge(a_user("staff")), now())
        case_at(slug).visibility = "public"
        keep()
        its_round = case_at(slug).round
        in_another_thread(app, functools.partial(_change_case, slug, change))
        with pytest.raises(Refused, match="paused"):
            Round.hold(its_round.id).require_pledging(now())


def test_links_that_many_ask_for_at_once_are_one_letter(app: Flask) -> None:

    def ask() -> None:
        LinkRequest.ask("ada@example.org", now())
        db.session.commit()

    at_once(app, *[ask] * 10)
    assert db.session.scalar(sa.select(sa.func.count(Letter.id))) == 1


def test_a_new_address_that_is_confirmed_many_times_at_once_is_used_once(app: Flask) -> None:
    pledge = confirm(a_pledge(a_case().round, email="ada@example.org"))
    change_id = pledge.ask_other_address("ada@home.example", now()).id
    keep()

    def confirm_it() -> bool:
        try:
            AddressChange.hold(change_id).make(now())
        except Refused:
            return False
        db.session.commit()
        return True

    assert at_once(app, *[confirm_it] * 6).count(True) == 1
    kept = db.session.scalars(sa.select(Pledge)).one()
    assert (kept.email, kept.link_version) == ("ada@home.example", 2)


def test_a_letter_is_owed_once_however_many_owe_it_at_once(app: Flask) -> None:
    round_id = a_case().round.id
    keep()

    def owe() -> None:
        Letter.owe("reached", db.session.get_one(Round, round_id), "settled", now())
        db.session.commit()

    at_once(app, *[owe] * 10)
    assert db.session.scalar(sa.select(sa.func.count(Letter.id))) == 1


# --- A storm -----------------------------------------------------------------------------------------------


def test_a_storm_of_everything_has_no_deadlock_and_the_books_agree(app: Flask) -> None:
    """All take the round first and its pledges after it, so nobody waits in a circle."""
    cases = [a_case(slug=f"case-{number}", pledged=[2_500] * 6) for number in range(2)]
    rounds = [case.round.id for case in cases]
    pledges = list(db.session.scalars(sa.select(Pledge.id)))
    case_ids = [case.id for case in cases]
    deadline = max(case.round.deadline for case in cases)
    keep()
    done: list[str] = []

    def storm(seed: int) -> Callable[[], None]:
        """Forty random things, in an order that the seed decides."""
        dice = random.Random(seed)  # noqa: S311 - no secret
        pledge_made = lambda: confirm(a_pledge(Round.hold(dice.choice(rounds)), 2_500))  # noqa: E731
        deeds: dict[str, Callable[[], object]] = {
            "pledge": pledge_made,
            "cancel": lambda: Pledge.hold(dice.choice(pledges)).cancel(now()),
            "lower": lambda: Pledge.hold(dice.choice(pledges)).change_amount(dice.choice((500, 1_000, 2_000)), now()),
            "replace the link": lambda: Pledge.hold(dice.choice(pledges)).replace_link(now()),
            "find": lambda: LinkRequest.ask(f"{dice.choice('abc')}@example.org", now()),
            "unsubscribe": lambda: db.session.get_one(Pledge, dice.choice(pledges)).unsubscribe(now()),
            "update": lambda: _publish(dice.choice(case_ids), f"News {dice.random()}"),
            "comment": lambda: db.session.get_one(Case, dice.choice(case_ids)).take_comment(
                "Ada", "ada@example.org", f"Comment {dice.random()}", now()
            ),
            "due": lambda: [pledge.id for pledge in Pledge.waiting_to_charge(now(), 50)],
            "let go": lambda: _let_go(dice.choice(pledges)),
        }

        def run() -> None:
            for _ in range(40):
                name = dice.choice(list(deeds))
                try:
                    deeds[name]()
                    db.session.commit()
                    done.append(name)
                except Refused:
                    db.session.rollback()
            # The deadline comes in the midst of it, for one of the two, and for everybody at once.
            if seed % 4 == 0:
                its_round = Round.hold(rounds[0])
                its_round.close(deadline + SECOND)
                if its_round.status == "closing":
                    its_round.settle(deadline + SECOND)
                db.session.commit()

        return run

    at_once(app, *[storm(seed) for seed in range(12)], within=120)
    assert set(done) == {
        "pledge", "cancel", "lower", "replace the link", "find", "unsubscribe", "update", "comment", "due", "let go",
    }  # fmt: skip
    for round_id in rounds:
        its_round = db.session.get_one(Round, round_id)
        counted = its_round.pledges("confirmed")
        if its_round.status == "open":
            assert its_round.pledged_pence == sum(pledge.amount_pence for pledge in counted)
            assert its_round.pledge_count == len(counted)
        else:
            assert counted == [] and its_round.settled_total_pence == its_round.pledged_pence
    if db.engine.dialect.name == "postgresql":
        deadlocks = sa.text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        assert db.session.scalar(deadlocks) == 0


def _change_case(slug: str, change: dict[str, Any]) -> None:
    db.session.execute(sa.update(Case).where(Case.slug == slug).values(change))
    db.session.commit()


def _publish(case_id: int, title: str) -> None:
    case = db.session.get_one(Case, case_id)
    case.publish_update(case.owner, title, "All is well.", now())


def _let_go(pledge_id: int) -> None:
    pledge = Pledge.hold(pledge_id)
    if pledge.status in ("cancelled", "released"):
        pledge.card_removed()
        Event.write(pledge, "card_removed", "clock", now())
