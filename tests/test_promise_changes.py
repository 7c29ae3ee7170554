"""A promise is changed once, with the consent of staff, never against those who agreed to it without telling them."""

import datetime as dt
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
import time_machine
from flask import Flask
from flask.testing import FlaskClient

import law
import letters
import payments
from jobs import doctor
from law import Refused
from models import Case, Event, Letter, Pledge, PromiseChange, Round, User, begin_writing, db
from tests.crowd import at_once, in_another_thread
from tests.doorway import SAME_ORIGIN, logged_in, token_on
from tests.made import a_case, a_new_card, a_pledge, a_user, card_found, confirm, keep, look_anew, now
from tests.mailbox import text_of
from tests.reading import read, said

DAY, HOUR, SECOND = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(seconds=1)
NEVER_HIGHER = "The target can become lower, never higher: supporters agreed to be charged only if pledges reach it."
WHY = "The court has moved the hearing."


def asked(case: Case, later: dt.timedelta = 7 * DAY, target: int = 600_000) -> PromiseChange:
    """A request of its owner for a later deadline, a lower target, or both."""
    case = db.session.merge(case)
    change = Round.hold(case.round.id).ask_change(case.round.deadline + later, target, WHY, case.owner, now())
    keep()
    return change


def changed(case: Case, later: dt.timedelta = 7 * DAY, target: int = 600_000) -> PromiseChange:
    """The same, to which staff have agreed."""
    staff, change = a_user("staff"), asked(case, later, target)
    PromiseChange.hold(change.id).consent(db.session.merge(staff), now())
    keep()
    return change


def consented_while_stripe_closes(app: Flask, patch: pytest.MonkeyPatch, change_id: int, staff_id: int) -> None:
    """Staff agree to the change in the very moment in which Stripe closes a card page."""

    def consent() -> None:
        PromiseChange.hold(change_id).consent(db.session.get_one(User, staff_id), now())
        db.session.commit()

    def closed(session_id: str) -> payments.CardFound:
        in_another_thread(app, consent)
        return payments.CardFound(session_id, True, False, None, None, None, None, None, None)

    patch.setattr(payments, "expire_card_page", closed)


def owed(kind: str) -> list[Letter]:
    look_anew()
    return list(db.session.scalars(sa.select(Letter).where(Letter.kind == kind).order_by(Letter.id)))


def history(case: Case) -> list[tuple[str, str]]:
    return [(event.what, event.note) for event in reversed(db.session.merge(case).history())]


def standing(case: Case) -> tuple[dt.datetime, int, str]:
    look_anew()
    its_round = db.session.get_one(Case, case.id).round
    return its_round.deadline, its_round.target_pence, its_round.status


# --- What may be asked for ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("later", "target", "words"),
    [
        (0 * DAY, 600_001, "The target can become lower, never higher"),
        (7 * DAY, 600_001, "The target can become lower, never higher"),
        (0 * DAY, 0, "The target must be more than nothing"),
        (-SECOND, 600_000, "The deadline can come later, never earlier"),
        (0 * DAY, 600_000, "Enter a later deadline, a lower target, or both"),
        (30 * DAY + SECOND, 600_000, "The deadline can come at most 30 days later"),
    ],
)
def test_what_no_supporter_can_be_held_to_is_refused(app: Flask, later: dt.timedelta, target: int, words: str) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    before = standing(case)
    with pytest.raises(Refused, match=words):
        asked(case, later, target)
    db.session.rollback()
    assert standing(case) == before and owed("promise_asked") == []


def test_thirty_days_are_counted_on_the_calendar_over_the_night_on_which_the_clocks_go_back() -> None:
    london = ZoneInfo("Europe/London")
    deadline = dt.datetime(2026, 10, 1, 20, 0, tzinfo=london).astimezone(dt.UTC)
    latest = dt.datetime(2026, 10, 31, 20, 0, tzinfo=london).astimezone(dt.UTC)
    assert latest - deadline == 30 * DAY + HOUR
    law.check_change(deadline, 1_000, latest, 1_000, "Europe/London", deadline - 7 * DAY)
    with pytest.raises(Refused, match="at most 30 days later"):
        law.check_change(deadline, 1_000, latest + 60 * SECOND, 1_000, "Europe/London", deadline - 7 * DAY)


def test_a_lower_target_leaves_supporters_two_days_to_leave(app: Flask) -> None:
    deadline = now()
    law.check_change(deadline, 1_000, deadline, 999, "Europe/London", deadline - 2 * DAY)
    with pytest.raises(Refused, match="Supporters need 2 days to read of a change and to leave"):
        law.check_change(deadline, 1_000, deadline, 999, "Europe/London", deadline - 2 * DAY + SECOND)
    # An hour before the deadline, one that comes three days later leaves them enough.
    law.check_change(deadline, 1_000, deadline + 3 * DAY, 999, "Europe/London", deadline - HOUR)


def test_a_request_changes_nothing_and_each_of_staff_is_told_once(app: Flask) -> None:
    people = [a_user("staff"), a_user("staff")]
    case = a_case(target=600_000, pledged=[9_500])
    before = standing(case)
    change = asked(case, 7 * DAY, 400_000)
    assert standing(case) == before and owed("promise_changed") == []
    told = owed("promise_asked")
    assert [letter.subject for letter in told] == [f"user:{person.id}" for person in people]
    words = letters.write(told[0])
    assert words["Subject"] == "A change of the promise is asked for: A case about data"
    assert f"http://127.0.0.1:8000/staff/promise-changes/{change.id}" in text_of(words)
    with pytest.raises(Refused, match="Our staff have a request about this promise already"):
        asked(case)
    db.session.rollback()
    assert letters.is_true(told[0])
    PromiseChange.hold(change.id).withdraw(db.session.merge(case).owner, now())
    keep()
    assert not letters.is_true(told[0])


# --- Consent -----------------------------------------------------------------------------------------------


def test_with_consent_the_round_has_the_new_promise_and_keeps_the_old_one_for_good(app: Flask) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    deadline, _, _ = standing(case)
    change = changed(case, 7 * DAY, 400_000)
    assert standing(case) == (deadline + 7 * DAY, 400_000, "open")
    assert (change.old_deadline, change.old_target_pence) == (deadline, 600_000)
    zone = "Europe/London"
    before, after = law.instant_words(deadline, zone), law.instant_words(deadline + 7 * DAY, zone)
    what = f"the deadline from {before} to {after} and the target from £6,000 to £4,000"
    assert history(case)[-3:] == [("asked", f"{what}: {WHY}"), ("consented", ""), ("promise_changed", what)]
    (letter,) = owed("promise_consented")
    assert what in " ".join(text_of(letters.write(letter)).split())
    with pytest.raises(Refused, match="That is allowed once"):
        asked(case)
    db.session.rollback()
    assert doctor.examine(now()) == []


def test_everybody_who_has_pledged_is_told_what_changed_and_nobody_who_has_left(app: Flask) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    its_round = db.session.merge(case).round
    (counted,) = its_round.pledges("confirmed")
    started, left, lapsed = a_pledge(its_round), confirm(a_pledge(its_round)), a_pledge(its_round)
    left.cancel(now())
    lapsed.apply_card(card_found(lapsed, expired=True), now())
    keep()
    deadline, _, _ = standing(case)
    change = changed(case, 7 * DAY)
    told = owed("promise_changed")
    assert [letter.subject for letter in told] == [f"pledge:{counted.id}", f"pledge:{started.id}"]
    words = letters.write(told[0])
    assert words["Subject"] == "The promise that you agreed to has changed: A case about data"
    before, after = (law.instant_words(one, "Europe/London") for one in (deadline, change.new_deadline))
    assert f"The deadline was {before}.\nIt is now {after}.\n" in text_of(words)
    assert (
        f"If you do nothing, your pledge stays, and your card will be charged £95 after {after} if pledges reach "
        "£6,000 by then."
    ) in text_of(words)
    assert f"http://127.0.0.1:8000/pledges/{counted.link('leave')}/departure" in text_of(words)
    assert f"    {WHY}" in text_of(words)
    assert "No card is saved for your pledge yet." in text_of(letters.write(told[1]))
    noted = [event.note for event in counted.history() if event.what == "promise_changed"]
    assert noted == [change.words]
    # What was agreed to stays in the words that were ticked.
    assert counted.agreement and before in counted.agreement.words
    counted.cancel(now())
    assert not letters.is_true(told[0])
    keep()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("started", "No card is saved for your pledge yet. If you save one, it will be charged £25 after "),
        ("held", "Your pledge does not count yet. Once it does, your card will be charged £25 after "),
        ("confirmed", "If you do nothing, your pledge stays, and your card will be charged £25 after "),
    ],
)
def test_each_is_told_what_becomes_of_the_card_as_it_stands_with_the_pledge(app: Flask, state: str, words: str) -> None:
    case = a_case(target=600_000)
    pledge = a_pledge(case.round, 2_500)
    if state == "confirmed":
        confirm(pledge)
    elif state == "held":
        pledge._keep_card(card_found(pledge, now()))
        pledge._hold_back("same_card", now())
    keep()
    changed(case, target=400_000)
    (letter,) = owed("promise_changed")
    told = " ".join(text_of(letters.write(letter)).split())
    assert words in told and "if pledges reach £4,000 by then." in told
    assert ("If you do nothing" in told) == (state == "confirmed")


def test_a_lower_target_that_is_passed_already_decides_nothing_before_the_deadline(app: Flask) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    changed(case, 0 * DAY, 5_000)
    deadline, target, status = standing(case)
    assert (target, status) == (5_000, "open")
    its_round = Round.hold(db.session.merge(case).round.id)
    assert Round.past_deadline(now()) == []
    with pytest.raises(Refused, match="The deadline has not passed"):
        its_round.close(deadline)
    its_round.close(deadline + SECOND)
    its_round.settle(deadline + SECOND)
    keep()
    assert (its_round.status, [pledge.status for pledge in its_round.pledges(*law.PLEDGE_MOVES)]) == ("met", ["due"])


def test_the_old_deadline_settles_nothing_any_more_and_the_new_one_does(app: Flask) -> None:
    case = a_case(target=5_000, pledged=[9_500])
    deadline, _, _ = standing(case)
    changed(case, 7 * DAY, 5_000)
    its_round = db.session.merge(case).round
    assert Round.past_deadline(deadline + SECOND) == []
    assert its_round.is_open(deadline + 7 * DAY) and not its_round.is_open(deadline + 7 * DAY + SECOND)
    assert Round.past_deadline(deadline + 7 * DAY + SECOND) == [its_round]
    late = confirm(a_pledge(its_round, 2_500), saved_at=deadline + DAY)
    assert late.status == "confirmed"
    keep()


@pytest.mark.parametrize("after", [SECOND, DAY])
def test_once_the_deadline_has_passed_consent_changes_nothing(app: Flask, after: dt.timedelta) -> None:
    case, staff = a_case(target=600_000, pledged=[9_500]), a_user("staff")
    change = asked(case)
    before = standing(case)
    held, person = PromiseChange.hold(change.id), db.session.merge(staff)
    with pytest.raises(Refused, match=r"The deadline has passed, so the promise stands as it was\. Nothing was done\."):
        held.consent(person, before[0] + after)
    db.session.rollback()
    assert standing(case) == before and owed("promise_changed") == []
    assert PromiseChange.waiting(before[0] + after) == [] and len(PromiseChange.waiting(before[0])) == 1


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("closing", "The deadline has passed"),
        ("missed", "The deadline has passed"),
        ("cancelled", "The case was cancelled"),
    ],
)
def test_consent_for_a_round_that_is_closing_or_over_changes_nothing(app: Flask, end: str, why: str) -> None:
    case, staff = a_case(target=600_000, pledged=[9_500]), a_user("staff")
    change = asked(case)
    its_round = Round.hold(db.session.merge(case).round.id)
    if end == "cancelled":
        its_round.case.cancel("Settled out of court.", "test", now())
    else:
        its_round.close(its_round.deadline + SECOND)
    if end == "missed":
        its_round.settle(its_round.deadline + SECOND)
    keep()
    before = standing(case)
    held, person = PromiseChange.hold(change.id), db.session.merge(staff)
    with pytest.raises(Refused, match=rf"{why}, so the promise stands as it was\. Nothing was done\."):
        held.consent(person, now())
    db.session.rollback()
    assert standing(case) == before and before[2] == end and owed("promise_changed") == []


def test_staff_refuse_with_a_reason_and_the_owner_may_ask_again(app: Flask) -> None:
    case, staff = a_case(target=600_000, pledged=[9_500]), a_user("staff")
    before = standing(case)
    change = asked(case)
    PromiseChange.hold(change.id).refuse("The hearing is not public yet.", db.session.merge(staff), now())
    keep()
    (letter,) = owed("promise_refused")
    assert "The hearing is not public yet." in text_of(letters.write(letter))
    assert standing(case) == before and owed("promise_changed") == []
    held, person = PromiseChange.hold(change.id), db.session.merge(staff)
    with pytest.raises(Refused, match=r"This request was refused before\. Nothing was done\."):
        held.consent(person, now())
    db.session.rollback()
    assert asked(case).status == "asked"


# --- Many at once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trial", range(6))
def test_consent_and_the_closing_at_the_same_moment_agree(app: Flask, trial: int) -> None:
    """£95 reach the £50 that is asked for in the end, and not the £6,000 of before. Either the round goes on with the
    new promise, or it was decided by the old one; never closed, and open for longer."""
    case, staff_id = a_case(target=600_000, pledged=[9_500]), a_user("staff").id
    change_id = asked(case, 7 * DAY, 5_000).id
    deadline, _, _ = standing(case)
    round_id = db.session.merge(case).round.id
    keep()

    def consent() -> bool:
        person, held = db.session.get_one(User, staff_id), PromiseChange.hold(change_id)
        try:
            held.consent(person, deadline)
        except Refused:
            db.session.rollback()
            return False
        db.session.commit()
        return True

    def close() -> bool:
        """As the job does: it looks again at the deadline once it has the round."""
        held = Round.hold(round_id)
        if held.status != "open" or law.in_time(deadline + SECOND, held.deadline):
            db.session.rollback()
            return False
        held.close(deadline + SECOND)
        held.settle(deadline + SECOND)
        db.session.commit()
        return True

    consented, closed = at_once(app, *((consent, close) if trial % 2 else (close, consent)))[:: 1 if trial % 2 else -1]
    look_anew()
    its_round = db.session.get_one(Round, round_id)
    found = its_round.status, its_round.deadline, its_round.target_pence, len(owed("promise_changed"))
    assert consented != closed
    if consented:
        assert found == ("open", deadline + 7 * DAY, 5_000, 1)
    else:
        assert found == ("missed", deadline, 600_000, 0)
    keep()


@pytest.mark.parametrize("trial", range(3))
def test_of_many_who_decide_at_the_same_moment_one_does(app: Flask, trial: int) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    change_id = asked(case).id
    staff = [a_user("staff").id for _ in range(6)]

    def decide(number: int) -> bool:
        person, held = db.session.get_one(User, staff[number]), PromiseChange.hold(change_id)
        try:
            if number % 3 == trial:
                held.refuse("No.", person, now())
            else:
                held.consent(person, now())
        except Refused:
            db.session.rollback()
            return False
        db.session.commit()
        return True

    done = at_once(app, *[lambda number=number: decide(number) for number in range(6)])
    assert sum(done) == 1
    moves = sa.select(sa.func.count()).where(Event.subject_kind == "promise_change", Event.before == "asked")
    assert db.session.scalar(moves) == 1


# --- The doctor --------------------------------------------------------------------------------------------


@pytest.mark.broken_books("a promise is changed past its history")
def test_the_doctor_names_a_round_that_does_not_keep_its_changed_promise_and_whoever_was_not_told(app: Flask) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    change = changed(case)
    its_round = db.session.merge(case).round
    (pledge,) = its_round.pledges("confirmed")
    its_round.target_pence = 300_000
    db.session.execute(sa.delete(Letter).where(Letter.kind == "promise_changed"))
    keep()
    found = doctor.examine(now())
    other = f"Pledge {pledge.id} is confirmed, and agreed to another deadline or target than its round"
    assert [one for one in found if not one.startswith(other)] == [
        f"Round {its_round.id} has another deadline or target than change {change.id} of its promise says.",
        f"Pledge {pledge.id} was made before change {change.id} of the promise, and its supporter was not told.",
    ]


def test_the_doctor_names_a_pledge_that_agreed_to_another_promise_than_its_round_has(app: Flask) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    its_round = db.session.merge(case).round
    (pledge,) = its_round.pledges("confirmed")
    before, words = its_round.deadline, (
        f"Pledge {pledge.id} is confirmed, and agreed to another deadline or target than its round {its_round.id} has."
    )  # fmt: skip
    for deadline, target in ((before + SECOND, 600_000), (before, 599_999)):
        its_round.deadline, its_round.target_pence = deadline, target
        keep()
        assert doctor.examine(now()) == [words]
    its_round.deadline, its_round.target_pence = before, 600_000
    keep()
    assert doctor.examine(now()) == []


# --- The pages ---------------------------------------------------------------------------------------------


def test_an_owner_asks_on_a_page_that_keeps_what_was_typed(app: Flask) -> None:
    case = a_case(slug="the-case", target=600_000, pledged=[9_500])
    browser = logged_in(app, db.session.merge(case).owner)
    where = "/owner/cases/the-case/promise"
    page = read(browser, where)
    local = standing(case)[0].astimezone(ZoneInfo("Europe/London"))
    fields = {name: str(page.select_one(f"#{name}")["value"]) for name in ("date", "time", "target")}  # type: ignore[index]
    assert fields == {"date": f"{local:%Y-%m-%d}", "time": f"{local:%H:%M}", "target": "6,000"}
    typed = {**fields, "form_token": token_on(browser, where)}
    wrong = read(browser, where, 422, method="POST", data={**typed, "date": "soon", "reason": ""})
    assert [link.text for link in wrong.select(".errors a")] == [
        "Enter a date like 2026-12-10.", "Say why the promise should change.",
    ]  # fmt: skip
    far = f"{local + dt.timedelta(days=31):%Y-%m-%d}"
    for field, value, words in (
        ("date", fields["date"], "Enter a later deadline, a lower target, or both."),
        ("date", "2020-01-01", "The deadline can come later, never earlier."),
        ("date", far, "The deadline can come at most 30 days later."),
        ("target", "0", "The target must be more than nothing and at most £1,000,000."),
        ("target", "10,000,000", NEVER_HIGHER),
    ):
        page = read(browser, where, 422, method="POST", data={**typed, field: value, "reason": WHY})
        assert [(link["href"], link.text) for link in page.select(".errors a")] == [(f"#{field}", words)]
        assert said(page, f"#{field}-error") == f"Error: {words}"
        assert (page.select_one(f"#{field}")["value"], said(page, "#reason")) == (value, WHY)  # type: ignore[index]
    missing = read(browser, where, 422, method="POST",
                   data={**typed, "date": "2027-03-28", "time": "01:30", "reason": WHY})  # fmt: skip
    assert "does not exist" in said(missing, ".errors a")
    assert owed("promise_asked") == []
    answer = browser.post(where, data={**typed, "target": "4,000", "reason": WHY})
    assert (answer.status_code, answer.location) == (303, where)
    (change,) = db.session.scalars(sa.select(PromiseChange)).all()
    assert (change.new_deadline, change.new_target_pence) == (change.old_deadline, 400_000)
    assert "You have asked our staff for this" in said(read(browser, where), "main")
    browser.post(f"{where}/withdrawal", data={"form_token": typed["form_token"]})
    assert db.session.scalars(sa.select(PromiseChange.status)).all() == ["withdrawn"]


def test_an_owner_whose_case_was_cancelled_is_not_told_that_its_deadline_has_passed(app: Flask) -> None:
    case = a_case(slug="the-case", target=600_000, pledged=[9_500])
    case.cancel("They gave way.", "operator", now())
    keep()
    owner = logged_in(app, db.session.merge(case).owner)
    page = said(read(owner, "/owner/cases/the-case/promise"), "main")
    assert "The case was cancelled, so nobody is charged and there is no promise to change." in page
    assert "The deadline has passed" not in page and "Cards are charged" not in page


def test_an_owner_asks_in_french_and_history_notes_it_in_english(app: Flask) -> None:
    case = a_case(slug="the-case", target=600_000, pledged=[9_500])
    browser = logged_in(app, db.session.merge(case).owner)
    where = "/fr/owner/cases/the-case/promise"
    page = read(browser, where)
    assert said(page, "h1") == "Modifier la promesse"
    fields = {name: str(page.select_one(f"#{name}")["value"]) for name in ("date", "time", "target")}  # type: ignore[index]
    assert fields["target"] == "6\u202f000"
    typed = {**fields, "reason": WHY, "form_token": token_on(browser, where)}
    wrong = read(browser, where, 422, method="POST", data={**typed, "target": "6 000,01"})
    assert wrong.title and wrong.title.text.startswith("Erreur\u00a0: Modifier la promesse")
    assert said(wrong, ".errors a") == (
        "L’objectif peut être abaissé, jamais relevé: les contributeurs ont accepté d’être débités seulement si les "
        "engagements l’atteignent."
    )
    answer = browser.post(where, data={**typed, "target": "4 000"})
    assert (answer.status_code, answer.location) == (303, where)
    (change,) = db.session.scalars(sa.select(PromiseChange)).all()
    assert change.new_target_pence == 400_000
    assert history(case)[-1] == ("asked", f"the target from £6,000 to £4,000: {WHY}")
    # It has been asked for meanwhile, and both languages say so.
    for address, words in (
        (where, "Notre équipe a déjà une demande au sujet de cette promesse."),
        (where.removeprefix("/fr"), "Our staff have a request about this promise already."),
    ):
        again = read(browser, address, 409, method="POST", data={**typed, "target": "3000"})
        assert words in said(again, ".errors")


def test_staff_see_a_request_on_the_desk_and_decide_on_its_page(app: Flask) -> None:
    case, staff = a_case(slug="the-case", target=600_000, pledged=[9_500]), a_user("staff")
    change = asked(case, target=400_000)
    browser = logged_in(app, staff)
    where = f"/staff/promise-changes/{change.id}"
    assert "A change of the promise is asked for: A case about data" in said(read(browser, "/staff"), "main")
    assert "1 person has pledged or begun to, and gets a letter" in said(read(browser, where), "main")
    token = token_on(browser, where)
    assert browser.post(f"{where}/refusal", data={"form_token": token}).status_code == 422
    answer = browser.post(f"{where}/consent", data={"form_token": token})
    assert (answer.status_code, answer.location) == (303, "/staff/cases/the-case")
    assert standing(case)[1] == 400_000
    again = browser.post(f"{where}/consent", data={"form_token": token})
    assert again.status_code == 409 and "This request was agreed to before. Nothing was done." in again.text


def test_every_place_that_tells_the_promise_tells_the_new_one_at_once(app: Flask, client: FlaskClient) -> None:
    case = a_case(slug="the-case", target=600_000, pledged=[9_500])
    (pledge,) = db.session.merge(case).round.pledges("confirmed")
    link = pledge.link()
    old = law.instant_words(standing(case)[0], "Europe/London")
    total = read(client, "/cases/the-case").select_one("#pledge-total")
    assert total
    fragment = str(total["data-hx-get"])
    assert client.get(fragment, headers={"HX-Request": "true"}).status_code == 204, "nothing is new yet"
    change = changed(case, 7 * DAY, 400_000)
    new = law.instant_words(change.new_deadline, "Europe/London")
    promise = f"Your card is charged only if pledges reach £4,000 by {new}."
    assert promise in said(read(client, "/cases/the-case"), "#pledge-total .promise")
    swapped = client.get(fragment, headers={"HX-Request": "true"})
    assert swapped.status_code == 200 and promise in swapped.text
    assert f"once, after {new}, only if pledges for" in said(read(client, "/cases/the-case/pledge"), "main")
    assert promise in said(read(client, f"/pledges/{link}"), "main")
    (letter,) = owed("confirmed")
    assert promise in text_of(letters.write(letter))
    kept = said(read(client, "/cases/the-case"), ".changed")
    assert f"Deadline {new}, before: {old} Target £4,000, before: £6,000" in kept and WHY in kept
    assert f"from {old} to {new}" in said(read(client, f"/pledges/{link}"), "main")


def test_a_lower_target_alone_is_news_for_an_open_page(app: Flask, client: FlaskClient) -> None:
    """The days to go stay the same, and the total too."""
    case = a_case(slug="the-case", target=600_000, pledged=[9_500])
    total = read(client, "/cases/the-case").select_one("#pledge-total")
    assert total
    changed(case, 0 * DAY, 400_000)
    swapped = client.get(str(total["data-hx-get"]), headers={"HX-Request": "true"})
    assert swapped.status_code == 200 and "of £4,000 target" in " ".join(swapped.text.split())


def test_the_change_stays_on_the_page_of_a_case_that_has_ended(app: Flask, client: FlaskClient) -> None:
    case = a_case(slug="the-case", target=600_000, pledged=[9_500])
    change = changed(case)
    its_round = Round.hold(db.session.merge(case).round.id)
    its_round.close(change.new_deadline + SECOND)
    its_round.settle(change.new_deadline + SECOND)
    keep()
    assert WHY in said(read(client, "/cases/the-case"), ".changed")


def test_the_way_out_of_the_letter_shows_a_button_and_only_the_button_leaves(app: Flask, client: FlaskClient) -> None:
    case = a_case(slug="the-case", target=600_000, pledged=[9_500, 2_500])
    changed(case)
    pledge = db.session.merge(case).round.pledges("confirmed")[0]
    where, number = f"/pledges/{pledge.link('leave')}/departure", pledge.id
    page = read(client, where)
    assert said(page, "main button") == "Cancel my pledge of £95"
    assert [str(one["action"]) for one in page.select("main form")] == [where]
    look_anew()
    assert db.session.get_one(Pledge, number).status == "confirmed"
    for _ in range(2):
        assert said(read(client, where, method="POST"), "h1") == "Your pledge is cancelled"
    look_anew()
    assert (db.session.get_one(Pledge, number).status, db.session.merge(case).round.pledged_pence) == (
        "cancelled", 2_500,
    )  # fmt: skip
    assert [letter.subject for letter in owed("cancelled")] == [f"pledge:{number}"]
    db.session.rollback()
    begin_writing()
    db.session.get_one(Pledge, number).link_version += 1
    keep()
    assert client.get(where).status_code == 404, "it opens nothing once the private link was replaced"


def test_the_way_out_of_a_pledge_without_a_card_says_that_nothing_is_charged(app: Flask, client: FlaskClient) -> None:
    case = a_case(slug="the-case", target=600_000)
    where = f"/pledges/{a_pledge(case.round, 2_500).link('leave')}/departure"
    keep()
    changed(case)
    page = read(client, where)
    assert "No card is saved for your pledge of £25 yet. If you save none, it does not count" in said(page, "main")
    assert "If you do nothing" not in said(page, "main") and said(page, "main button") == "Cancel my pledge of £25"


@pytest.mark.parametrize("page", ["/cases/the-case/pledges", "amount"])
def test_nobody_agrees_to_a_new_promise_on_a_page_that_shows_the_old_one(
    app: Flask, client: FlaskClient, page: str
) -> None:
    case = a_case(slug="the-case", target=600_000, pledged=[9_500])
    (pledge,) = db.session.merge(case).round.pledges("confirmed")
    link, number = pledge.link(), pledge.id
    if page == "amount":
        page = f"/pledges/{link}/amount"
    typed = {
        "amount": "25", "name": "Eve", "email": "eve@example.org", "agreed": "y", "form_key": "k" * 32, "promise": "",
    }  # fmt: skip
    change = changed(case)
    look_anew()
    before = db.session.scalar(sa.select(sa.func.count()).select_from(Pledge))
    old = read(client, page, 409, method="POST", data=typed)
    assert "The promise of this case was changed while this page was open." in said(old, ".errors")
    assert not old.select("#agreed[checked]")
    look_anew()
    assert db.session.get_one(Pledge, number).amount_pence == 9_500
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Pledge)) == before
    mark = old.select_one("[name=promise]")
    assert mark and mark["value"] == f"promise_change:{change.id}"
    assert client.post(page, data={**typed, "promise": mark["value"]}).status_code == 303


def test_nobody_agrees_to_a_promise_that_is_changed_while_stripe_closes_the_old_page(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    staff_id, case = a_user("staff").id, a_case(target=600_000)
    pledge = a_pledge(case.round)
    private, number = f"/pledges/{pledge.link()}", pledge.id
    keep()
    consented_while_stripe_closes(app, monkeypatch, asked(case, target=400_000).id, staff_id)
    sent = client.post(f"{private}/amount", data={"amount": "50", "agreed": "y", "promise": ""}, headers=SAME_ORIGIN)
    assert (sent.status_code, sent.location) == (303, f"{private}?stripe=closed")
    look_anew()
    agreements = db.session.get_one(Pledge, number).agreements
    assert [(one.amount_pence, one.target_pence) for one in agreements] == [(2_500, 600_000)]


def test_whoever_saves_a_card_on_a_page_of_before_the_change_comes_back_to_the_private_page(
    app: Flask, client: FlaskClient
) -> None:
    case = a_case(target=600_000)
    pledge = a_pledge(case.round)
    pledge.ask_card_page({"expires_at": int((now() + DAY).timestamp())}, now() + DAY)
    pledge.card_page_made(pledge.session_key, "cs_of_before", None)
    back, number = f"/pledges/{pledge.link()}", pledge.id
    keep()
    changed(case, target=400_000)
    with time_machine.travel(now() + 2 * HOUR):
        look_anew()
        confirm(db.session.get_one(Pledge, number))
        keep()
        assert client.get("/pledges/return?session_id=cs_of_before").headers["Location"] == back


@pytest.mark.parametrize("kind", ["confirmed", "changed"])
def test_a_letter_that_repeats_an_agreement_of_before_the_change_says_what_holds_now(app: Flask, kind: str) -> None:
    """Whose card is saved on Stripe's old page in the minutes around the change has agreed to less than holds."""
    case = a_case(target=600_000)
    pledge = a_pledge(case.round, 2_500)
    if kind == "changed":
        confirm(pledge)
        pledge.change_amount(4_000, now())
        a_new_card(pledge)
    number = pledge.id
    keep()
    changed(case, target=400_000)
    pledge = db.session.get_one(Pledge, number)
    pledge.apply_card(a_new_card(pledge), now()) if kind == "changed" else confirm(pledge)
    keep()
    words = " ".join(text_of(letters.write(owed(kind)[0])).split())
    assert "“A case about data” reach £6,000 by then." in words
    assert "The promise was changed after you agreed to that: the deadline from " in words
    assert "and the target from £6,000 to £4,000. The new one holds for your pledge as well." in words


def test_a_letter_whose_agreement_names_what_holds_says_nothing_of_a_change(app: Flask) -> None:
    case = a_case(target=600_000)
    changed(case, target=400_000)
    confirm(a_pledge(db.session.merge(case).round, 2_500))
    keep()
    words = text_of(letters.write(owed("confirmed")[0]))
    assert "reach £4,000 by then." in words and "was changed after" not in words


def test_whoever_confirms_an_address_after_the_change_agrees_to_what_stripes_page_names(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []

    def page(params: dict[str, Any], key: str) -> payments.CardPage:
        named.append(params["custom_text"]["submit"]["message"])
        return payments.CardPage("cs_1", "https://checkout.stripe.com/c/cs_1")

    monkeypatch.setattr(payments, "card_page", page)
    case = a_case(target=600_000)
    pledge = a_pledge(case.round, 2_500)
    pledge.ask_confirmation(now())
    where, number = f"/pledges/confirmation/{pledge.link('confirmation')}", pledge.id
    keep()
    changed(case, target=400_000)
    shown = said(read(client, where), "main")
    assert "The promise that you agreed to was changed:" in shown and "£4,000, before: £6,000" in shown
    mark = {"promise": db.session.merge(case).round.promise_mark}
    assert client.post(where, data=mark, headers=SAME_ORIGIN).status_code == 303
    look_anew()
    pledge = db.session.get_one(Pledge, number)
    assert [one.target_pence for one in pledge.agreements] == [600_000, 400_000]
    assert pledge.agreement is not None and [pledge.agreement.words] == named


# --- Buttons of pages that are older than the promise ------------------------------------------------------


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words on each card page that Stripe, which is played here, was asked for."""
    named: list[str] = []

    def page(params: dict[str, Any], key: str) -> payments.CardPage:
        named.append(params["custom_text"]["submit"]["message"])
        return payments.CardPage(f"cs_{key}", f"https://checkout.stripe.com/c/{key}")

    def expire(session_id: str) -> payments.CardFound:
        return payments.CardFound(session_id, True, False, None, None, None, None, None, None)

    monkeypatch.setattr(payments, "card_page", page)
    monkeypatch.setattr(payments, "expire_card_page", expire)
    return named


def fields(page: Any, action: str) -> dict[str, str]:
    """What the form that leads to this address would send as it stands."""
    (form,) = page.select(f'form[action="{action}"]')
    return {str(one["name"]): str(one["value"]) for one in form.select("input[name]")}


def agreed(number: int) -> tuple[list[int], int, int]:
    """The target of each agreement of a pledge, how many card pages were wished for, and how many letters are owed."""
    look_anew()
    pledge = db.session.get_one(Pledge, number)
    return [one.target_pence for one in pledge.agreements], pledge.session_no, len(owed("confirmation"))


NOT_AGREED = "The promise of this case was changed while this page was open. Read it again, and go on if you agree."


@pytest.mark.parametrize("card", ["none yet", "saved before"])
def test_an_address_that_is_confirmed_on_a_page_of_before_the_change_agrees_to_nothing(
    app: Flask, client: FlaskClient, pages: list[str], card: str
) -> None:
    case = a_case(target=600_000)
    pledge = a_pledge(case.round, 2_500)
    if card == "saved before":
        pledge._keep_card(card_found(pledge))
        pledge._hold_back("unconfirmed", now())
    else:
        pledge.ask_confirmation(now())
    where, number = f"/pledges/confirmation/{pledge.link('confirmation')}", pledge.id
    keep()
    old = fields(read(client, where), where)
    changed(case, target=400_000)
    before = agreed(number)
    again = read(client, where, 409, method="POST", data=old, headers=SAME_ORIGIN)
    assert said(again, "[role=alert]") == NOT_AGREED
    assert "£4,000, before: £6,000" in said(again, "main") and "reach £4,000 by" in said(again, ".promise")
    look_anew()
    pledge = db.session.get_one(Pledge, number)
    assert (pledge.email_confirmed_at, pledge.confirm_by is None, pages) == (None, False, [])
    assert agreed(number) == before
    pressed = client.post(where, data=fields(again, where), headers=SAME_ORIGIN)
    assert pressed.status_code == 303
    look_anew()
    pledge = db.session.get_one(Pledge, number)
    assert pledge.email_confirmed_at is not None
    if card == "none yet":
        assert agreed(number)[0] == [600_000, 400_000]
        assert ["reach £4,000 by then" in words for words in pages] == [True]
    else:
        assert (pledge.status, pages) == ("confirmed", [])
        assert (agreed(number)[0], db.session.get_one(Pledge, number).agreement.target_pence) == (  # type: ignore[union-attr]
            [600_000, 400_000], 400_000,
        )  # fmt: skip


def test_an_address_that_was_confirmed_before_the_change_leads_to_no_page_of_stripes_that_names_the_old_promise(
    app: Flask, client: FlaskClient, pages: list[str]
) -> None:
    case = a_case(target=600_000)
    pledge = a_pledge(case.round, 2_500)
    pledge.ask_confirmation(now())
    where, private = f"/pledges/confirmation/{pledge.link('confirmation')}", f"/pledges/{pledge.link()}"
    keep()
    old = fields(read(client, where), where)
    assert client.post(where, data=old, headers=SAME_ORIGIN).headers["Location"].startswith("https://checkout.")
    changed(case, target=400_000)
    assert client.post(where, data=old, headers=SAME_ORIGIN).headers["Location"] == private
    assert len(pages) == 1


@pytest.mark.parametrize("button", ["Continue to Stripe", "Send the letter again", "Use another card", "address"])
def test_no_button_of_a_private_page_of_before_the_change_agrees_to_the_new_promise(
    app: Flask, client: FlaskClient, pages: list[str], button: str
) -> None:
    case = a_case(target=600_000)
    pledge = a_pledge(case.round, 2_500)
    page = f"/pledges/{pledge.link()}"
    where, number = f"{page}/card-page", pledge.id
    if button == "Send the letter again":
        pledge.promise_again(2_500, "Ada", pledge.email, "name", False, now())
        pledge.ask_confirmation(now())
    elif button == "Use another card":
        confirm(pledge)
        where = f"{page}/card"
    elif button == "address":
        page = where = f"{page}/address"
    keep()
    shown = read(client, page)
    assert button == "address" or button in said(shown, f'form[action="{where}"]')
    old = fields(shown, where) | ({"email": "typed@example.org"} if button == "address" else {})
    changed(case, target=400_000)
    before = agreed(number)
    again = read(client, page if button == "address" else where, 409, method="POST", data=old, headers=SAME_ORIGIN)
    assert NOT_AGREED in said(again, "[role=alert]")
    assert "reach £4,000 by" in said(again, ".promise"), "the page shows the promise that holds now"
    assert (agreed(number), pages) == (before, [])
    pressed = client.post(where, data=old | {"promise": fields(again, where)["promise"]}, headers=SAME_ORIGIN)
    assert pressed.status_code == 303
    assert ["reach £4,000 by then" in words for words in pages] == [True]
    if button != "Use another card":
        assert agreed(number)[0][-1] == 400_000


@pytest.mark.parametrize("button", ["amount", "card", "card-page"])
def test_no_button_of_a_private_page_agrees_to_a_promise_that_changes_while_stripe_closes_the_old_page(
    app: Flask, client: FlaskClient, pages: list[str], monkeypatch: pytest.MonkeyPatch, button: str
) -> None:
    staff_id, case = a_user("staff").id, a_case(target=600_000)
    pledge = a_pledge(case.round)
    private, number = f"/pledges/{pledge.link()}", pledge.id
    if button != "card-page":
        confirm(pledge)
        # A raise was begun, to £40, and is given up for another one or for another card.
        pledge.change_amount(4_000, now())
        pledge.ask_card_page({}, now() + DAY)
        pledge.card_page_made(pledge.session_key, "cs_raise", "https://checkout.stripe.com/c/raise")
    else:
        pledge.session_expires_at = now()
    keep()
    consented_while_stripe_closes(app, monkeypatch, asked(case, target=400_000).id, staff_id)
    before = agreed(number)
    typed = {"amount": "50", "agreed": "y"} if button == "amount" else {"sent": "yes"}
    sent = client.post(f"{private}/{button}", data={**typed, "promise": ""}, headers=SAME_ORIGIN)
    assert (sent.status_code, sent.location) == (303, f"{private}?stripe=closed")
    assert (agreed(number), pages) == (before, [])
    shown = read(client, sent.location)
    assert said(shown, "[role=alert]") == NOT_AGREED and "£4,000" in said(shown, ".promise")


def test_nothing_leads_to_the_page_of_a_raise_that_names_the_promise_of_before(
    app: Flask, client: FlaskClient, pages: list[str]
) -> None:
    case = a_case(target=600_000)
    pledge = confirm(a_pledge(case.round))
    pledge.change_amount(4_000, now())
    pledge.ask_card_page({}, now() + DAY)
    pledge.card_page_made(pledge.session_key, "cs_raise", "https://checkout.stripe.com/c/raise")
    private = f"/pledges/{pledge.link()}"
    keep()
    # An old tab, from before the card was saved.
    where = f"{private}/card-page"
    assert client.post(where, data={"promise": ""}, headers=SAME_ORIGIN).location.endswith("/c/raise")
    changed(case, target=400_000)
    assert client.post(where, data={"promise": ""}, headers=SAME_ORIGIN).location == private


def test_another_card_agrees_to_a_changed_promise_where_the_page_of_stripes_named_it(app: Flask) -> None:
    case = a_case(target=600_000)
    by_page: dict[str, int] = {}
    for made in ("before the change", "after it"):
        pledge = confirm(a_pledge(case.round, email=f"{made.split()[0]}@example.org"))
        if made == "before the change":
            a_new_card(pledge)
        by_page[made] = pledge.id
    keep()
    changed(case, target=400_000)
    for made, number in by_page.items():
        pledge = Pledge.hold(number)
        if made == "after it":
            a_new_card(pledge)
        found = replace(card_found(pledge), payment_method_id=f"pm_new_{number}")
        pledge.session_params = {"custom_text": {"submit": {"message": f"Agreed {made}."}}}
        pledge.apply_card(found, now())
        keep()
    kept = {made: db.session.get_one(Pledge, number) for made, number in by_page.items()}
    assert {made: pledge.payment_method_id for made, pledge in kept.items()} == {
        made: f"pm_new_{number}" for made, number in by_page.items()
    }
    old, new = kept["before the change"], kept["after it"]
    assert [one.target_pence for one in old.agreements] == [600_000]
    assert [one.target_pence for one in new.agreements] == [600_000, 400_000]
    assert new.agreement is not None and (new.agreement.words, new.agreement.amount_pence) == (
        "Agreed after it.", new.amount_pence,
    )  # fmt: skip


@pytest.mark.parametrize("became", ["cancelled", "closed", "declined"])
def test_a_page_of_before_the_change_is_told_what_became_of_the_pledge_and_not_of_a_promise(
    app: Flask, client: FlaskClient, pages: list[str], became: str
) -> None:
    case = a_case(target=600_000)
    pledge = a_pledge(case.round)
    if became != "closed":
        confirm(pledge)
    private, number = f"/pledges/{pledge.link()}", pledge.id
    keep()
    changed(case, target=2_500)
    pledge = Pledge.hold(number)
    if became == "cancelled":
        pledge.cancel(now())
    else:
        pledge.round.move_deadline(now() - SECOND, "test", now())
    if became == "declined":
        pledge.round.close(now())
        pledge.round.settle(now())
        pledge.claim(now(), DAY)
        pledge.apply_charge(payments.ChargeFound("declined", "pi_1", None, 0, "expired_card"), now(), asked=True)
    keep()
    where = f"{private}/card" if became == "declined" else f"{private}/card-page"
    sent = client.post(where, data={"promise": ""}, headers=SAME_ORIGIN)
    if became == "cancelled":
        assert (sent.status_code, sent.location) == (303, private)
    elif became == "closed":
        assert sent.status_code == 409 and "This case has closed: cards can no longer be saved for it." in sent.text
    else:
        assert sent.status_code == 303 and ["as soon as it is saved" in words for words in pages] == [True]
    assert NOT_AGREED not in sent.text


def test_a_private_page_that_refreshes_itself_shows_that_the_promise_was_changed(
    app: Flask, client: FlaskClient
) -> None:
    case = a_case(target=600_000)
    pledge = a_pledge(case.round)
    private = f"/pledges/{pledge.link()}"
    keep()
    state = read(client, private).select_one("#pledge-state")
    assert state is not None
    again, htmx = str(state["data-hx-get"]), {"HX-Request": "true"}
    assert client.get(again, headers=htmx).status_code == 204
    changed(case, target=400_000)
    refreshed = client.get(again, headers=htmx)
    assert refreshed.status_code == 200 and "from £6,000 to £4,000" in refreshed.text
