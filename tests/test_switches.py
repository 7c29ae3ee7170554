"""Staff's two switches: pledging paused, charges frozen. Each has a reason, and each is lifted again."""

import datetime as dt

import pytest
import sqlalchemy as sa
import time_machine
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient

import law
import payments
from jobs import doctor, repairs, sweep
from law import Refused
from letters import is_true, write
from models import Breaker, Case, CaseWords, Event, Letter, Pledge, User, begin_writing, db
from tests.at_stripe import DECLINES_LATER, WORKS, calls, plan, type_card
from tests.charged import again, charge_due, due, letters
from tests.doorway import SAME_ORIGIN, everything, logged_in, token_on
from tests.made import a_case, a_pledge, a_user, case_at, confirm, keep, look_anew, now, pledges_of
from tests.mailbox import text_of
from tests.reading import read, said
from tests.sandbox_process import SandboxProcess
from tests.test_bad_forms import TERMS

SECOND, MINUTE = dt.timedelta(seconds=1), dt.timedelta(minutes=1)


def switch(slug: str, what: str, on: bool, reason: str = "We look into it.") -> None:
    person = a_user("staff")
    case_at(slug).switch(what, on, reason, db.session.merge(person), now())
    keep()


def states(slug: str = "the-case") -> list[str]:
    return [pledge.status for pledge in pledges_of(slug)]


def test_a_switch_is_turned_with_a_reason_and_leaves_a_line_of_history_each_way(app: Flask) -> None:
    a_case(slug="the-case")
    person = a_user("staff")
    browser = logged_in(app, person)
    where = "/staff/cases/the-case"
    token = {"form_token": token_on(browser, where)}
    for name, column in (("pledging-pause", "pledging_paused"), ("charge-freeze", "charges_frozen")):
        for end, on in (("", True), ("/end", False)):
            for _ in range(2):  # pressed twice it is turned once
                sent = {f"{name}-reason": "We look into it.", **token}
                assert browser.post(f"{where}/{name}{end}", data=sent, headers=SAME_ORIGIN).status_code == 303
            assert getattr(case_at("the-case"), column) is on
            keep()
    of_switches = sa.select(Event).where(Event.subject_kind == "case", Event.note != "")
    lines = db.session.scalars(of_switches.order_by(Event.id))
    assert [(line.what, line.who, line.note) for line in lines] == [
        (what, f"user:{db.session.merge(person).id}", "We look into it.")
        for what in ("pledging_paused", "pledging_paused_ended", "charges_frozen", "charges_frozen_ended")
    ]


@pytest.mark.parametrize("name", ["pledging-pause", "charge-freeze", "pledging-pause/end", "cancellation"])
@pytest.mark.parametrize(("typed", "words"), [("", "Enter a reason."), (" ", "Enter a reason."),
                                              ("r" * 501, "Use at most 500 characters.")])  # fmt: skip
def test_without_a_reason_nothing_is_done(app: Flask, name: str, typed: str, words: str) -> None:
    a_case(slug="the-case")
    browser = logged_in(app, a_user("staff"))
    where = "/staff/cases/the-case"
    sent = {f"{name.partition('/')[0]}-reason": typed, "form_token": token_on(browser, where)}
    before = everything()
    answer = browser.post(f"{where}/{name}", data=sent, headers=SAME_ORIGIN)
    assert answer.status_code == 422 and words in answer.text
    assert everything() == before


# --- Pledging paused ---------------------------------------------------------------------------------------


def test_while_pledging_is_paused_the_page_the_form_and_the_post_say_so(app: Flask) -> None:
    a_case(slug="the-case", pledged=[9_500])
    switch("the-case", "pledging_paused", True)
    client = app.test_client()
    before = everything()
    page = client.get("/cases/the-case").text
    assert "Pledging is paused." in page and "Pledge now" not in page
    assert client.get("/cases/the-case/pledge").status_code == 409
    answer = client.post("/cases/the-case/pledges", data={**TERMS, "message": "Long\nthought about."})
    assert answer.status_code == 409 and "Pledging for this case is paused" in answer.text
    # What somebody thought about is given back; the rest is soon typed again.
    told = BeautifulSoup(answer.text, "html5lib")
    assert [field.text for field in told.select("textarea")] == ["Long\nthought about."]
    assert [said(label) for label in told.select(".field label")] == ["Message"]
    assert everything() == before
    switch("the-case", "pledging_paused", False)
    assert "Pledge now" in client.get("/cases/the-case").text
    assert client.post("/cases/the-case/pledges", data=TERMS).status_code == 303


def cards(client: FlaskClient, address: str) -> dict[str, str]:
    """What the cards of a list say of the time that is left, by the title of the case."""
    found = read(client, address).select(".card")
    return {said(card, "h2"): said(card, ".left") for card in found}


@pytest.mark.parametrize("scope", ["case", "site"])
@pytest.mark.parametrize("address", ["/", "/?show=live", "/?show=ending-soon", "/?q=cards", "/topics/other", "owner"])
def test_every_list_says_on_the_card_while_pledging_rests_and_no_longer(
    app: Flask, client: FlaskClient, address: str, scope: str
) -> None:
    owner, as_of = a_user("owner"), now()
    rests, other = (a_case(title=f"The {name} of cards", owner=owner) for name in ("first", "second"))
    for one in (rests, other):
        db.session.merge(one).topic = "other"
        CaseWords.write(db.session.merge(one))
    breaker = Breaker.hold(rests.id if scope == "case" else None, as_of)
    breaker.status, breaker.until = "paused", as_of + MINUTE
    address = f"/owners/{db.session.merge(owner).id}" if address == "owner" else address
    keep()
    left = "7 days to go"
    with time_machine.travel(as_of + MINUTE - SECOND, tick=False):
        seen = cards(client, address)
    second = left if scope == "case" else f"Pledging is paused. {left}"
    assert seen == {"The first of cards": f"Pledging is paused. {left}", "The second of cards": second}
    with time_machine.travel(as_of + MINUTE, tick=False):
        assert cards(client, address) == {"The first of cards": left, "The second of cards": left}


def test_a_breaker_that_only_asks_leaves_the_cards_of_lists_as_they_are(app: Flask, client: FlaskClient) -> None:
    case, as_of = a_case(), now()
    breaker = Breaker.hold(case.id, as_of)
    breaker.status, breaker.until = "asks", as_of + MINUTE
    keep()
    assert cards(client, "/") == {"A case about data": "7 days to go"}


def test_an_open_page_learns_of_the_pause_when_it_asks_again(app: Flask) -> None:
    case = a_case(slug="the-case")
    seen = case.round.version
    switch("the-case", "pledging_paused", True)
    assert case_at("the-case").round.version > seen


def test_while_pledging_is_paused_nothing_unfinished_goes_on_but_it_can_be_cancelled(app: Flask) -> None:
    case = a_case(slug="the-case")
    started, confirmed = a_pledge(case.round), confirm(a_pledge(case.round))
    keep()
    links = [started.link(), confirmed.link()]
    switch("the-case", "pledging_paused", True)
    client = app.test_client()
    for what, sent in (("card-page", {}), ("amount", {"amount": "30", "agreed": "y"})):
        answer = client.post(f"/pledges/{links[0]}/{what}", data=sent)
        assert answer.status_code == 409 and "Pledging for this case is paused" in answer.text
    for link in links:
        assert client.post(f"/pledges/{link}/cancellation").status_code == 303
    assert states() == ["cancelled", "cancelled"]


def test_a_card_that_was_being_saved_as_pledging_was_paused_still_counts(app: Flask) -> None:
    """Its supporter had agreed before, and Stripe's page cannot say anything of a pause."""
    case = a_case(slug="the-case")
    a_pledge(case.round)
    keep()
    switch("the-case", "pledging_paused", True)
    confirm(pledges_of("the-case")[0])
    keep()
    assert states() == ["confirmed"]


@pytest.mark.parametrize("over", ["the deadline has passed", "decided", "cancelled"])
def test_pledging_that_is_over_is_not_paused_but_a_pause_that_stands_is_ended(app: Flask, over: str) -> None:
    person = a_user("staff")
    for slug in ("was-paused", "was-not"):
        a_case(slug=slug, target=600_000)
    switch("was-paused", "pledging_paused", True)
    for slug in ("was-paused", "was-not"):
        case = case_at(slug)
        if over == "cancelled":
            case.cancel("Settled.", "operator", now())
        else:
            case.round.deadline = now() - SECOND
        if over == "decided":
            case.round.close(now())
            case.round.settle(now())
        keep()
    browser = logged_in(app, db.session.merge(person))
    desk = "/staff/cases/was-not"
    sent = {"pledging-pause-reason": "We look into it.", "form_token": token_on(browser, desk)}
    assert "Pause pledging" not in browser.get(desk).text
    before = everything()
    answer = browser.post(f"{desk}/pledging-pause", data=sent, headers=SAME_ORIGIN)
    assert answer.status_code == 409 and everything() == before
    assert "Nobody can pledge for this case any more, so there is nothing to pause." in answer.text
    assert "Let pledging go on" in browser.get("/staff/cases/was-paused").text
    answer = browser.post("/staff/cases/was-paused/pledging-pause/end", data=sent, headers=SAME_ORIGIN)
    assert answer.status_code == 303 and case_at("was-paused").pledging_paused is False
    assert "Let pledging go on" not in browser.get("/staff/cases/was-paused").text


def test_an_open_case_offers_the_pause_of_pledging(app: Flask) -> None:
    a_case(slug="the-case")
    assert "Pause pledging" in logged_in(app, a_user("staff")).get("/staff/cases/the-case").text


# --- Charges frozen ----------------------------------------------------------------------------------------


def test_no_charge_leaves_while_frozen_and_they_go_on_by_themselves_once_it_is_lifted(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    due(sandbox, 2_500, 9_000)
    next_at = [pledge.next_at for pledge in pledges_of("the-case")]
    switch("the-case", "charges_frozen", True)
    charge_due()
    assert sweep.TIMETABLE["charge_due"](now()) == []
    assert (states(), calls(sandbox, "payment_intents.create")) == (["due", "due"], [])
    assert [pledge.next_at for pledge in pledges_of("the-case")] == next_at
    keep()
    switch("the-case", "charges_frozen", False)
    assert sweep.TIMETABLE["charge_due"](now()) == [None]
    keep()
    charge_due()
    assert states() == ["charged", "charged"]


def test_a_frozen_case_holds_up_no_other(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> None:
    due(sandbox, 2_500)
    due(sandbox, 3_000, slug="another")
    switch("the-case", "charges_frozen", True)
    charge_due()
    assert (states(), states("another")) == (["due"], ["charged"])


def test_an_answer_that_is_unknown_is_not_asked_again_while_frozen_since_that_could_be_a_charge(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    due(sandbox, 2_500)
    plan(sandbox, operation="payment_intents.create", fault="error", status=500, times=3)
    charge_due()
    assert states() == ["unknown"]
    keep()
    switch("the-case", "charges_frozen", True)
    pledges_of("the-case")[0].next_at = now()
    keep()
    made = len(calls(sandbox, "payment_intents.create"))
    charge_due()
    assert (states(), len(calls(sandbox, "payment_intents.create"))) == (["unknown"], made)


def test_a_charge_that_is_on_its_way_as_charges_are_frozen_is_finished(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    due(sandbox, 2_500)
    really = payments.charge

    def charge(*asked: object) -> payments.ChargeFound:
        answer = really(*asked)  # type: ignore[arg-type]
        with asks_the_sandbox.app_context():
            person = db.session.scalars(sa.select(User).limit(1)).one()
            db.session.scalars(sa.select(Case)).one().switch("charges_frozen", True, "Stop.", person, now())
            db.session.commit()
        return answer

    monkeypatch.setattr(payments, "charge", charge)
    charge_due()
    look_anew()
    assert case_at("the-case").charges_frozen
    assert states() == ["charged"]
    assert Pledge.waiting_to_charge(now(), 10) == []


# --- Refused payments while charges are frozen ---------------------------------------------------------------

DAY = dt.timedelta(days=1)


def a_refused_pledge(sandbox: SandboxProcess, at: dt.datetime) -> Pledge:
    """The only pledge of a case that was met; its card was refused then, softly."""
    with time_machine.travel(at, tick=False):
        (pledge,) = due(sandbox, 2_500, cards=(DECLINES_LATER,))
        charge_due()
        assert again(pledge).status == "declined"
        keep()
    return pledge


def tend(at: dt.datetime) -> list[int | None]:
    """The clock comes by then, and does what is due for refused payments; what that was."""
    with time_machine.travel(at, tick=False):
        begin_writing()
        due_now = sweep.TIMETABLE["tend"](now())
        keep()
        for pledge_id in due_now:
            assert pledge_id is not None
            repairs.tend(pledge_id)
        look_anew()
        return due_now


def what_waits_too_long(at: dt.datetime) -> list[str]:
    """What the doctor says of pledges; the letters of these tests are never sent."""
    return [said for said in doctor.examine(at) if said.startswith("Pledge")]


def freeze(on: bool, at: dt.datetime) -> None:
    with time_machine.travel(at, tick=False):
        switch("the-case", "charges_frozen", on)


def test_ten_days_of_a_freeze_are_none_of_the_seven_days_for_a_refused_payment(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    start = now()
    pledge = a_refused_pledge(sandbox, start)
    freeze(True, start + 3 * DAY)
    for day in (4, 6, 7, 8, 12):
        assert tend(start + day * DAY) == []
        assert what_waits_too_long(start + day * DAY) == []
        assert again(pledge).is_repairable(start + day * DAY)
    assert letters("reminder", "dropped") == []
    freeze(False, start + 13 * DAY)
    held = again(pledge)
    assert (held.status, held.repair_until, held.next_retry_at) == ("declined", start + 17 * DAY, start + 14 * DAY)
    assert held.next_at == start + 14 * DAY
    assert letters("reminder") == [("reminder", f"pledge:{pledge.id}")]
    assert (tend(start + 13.9 * DAY), tend(start + 14 * DAY)) == ([], [pledge.id])
    assert again(pledge).status == "due"


def test_the_letter_as_charges_go_on_says_why_there_is_more_time_and_until_when(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    start = now()
    a_refused_pledge(sandbox, start)
    freeze(True, start + 3 * DAY)
    freeze(False, start + 13 * DAY)
    owed = db.session.scalars(sa.select(Letter).where(Letter.kind == "reminder")).one()
    said = " ".join(str(text_of(write(owed))).split())
    assert "We had held the charges for this case back for a while, and you could not pay. That time does not" in said
    # Refused, three days, ten days frozen: what would have been day 4 is day 14, and day 7 is day 17.
    retry, until = (law.instant_words(start + days * DAY, "Europe/London") for days in (14, 17))
    assert f"We will try this card again on {retry}. If it is not paid by {until}, your pledge ends" in said


@pytest.mark.parametrize(
    ("frozen", "lifted", "until"),
    [
        (6.5, 7.5, 9.5),  # half a day was left, which is too little for a letter to be read: two days are
        (4.0, 4.5, 7.5),
        (0.0, 30.0, 37.0),
    ],
)
def test_what_was_left_is_left_again_and_two_days_at_least(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, frozen: float, lifted: float, until: float
) -> None:
    start = now()
    pledge = a_refused_pledge(sandbox, start)
    freeze(True, start + frozen * DAY)
    freeze(False, start + lifted * DAY)
    assert again(pledge).repair_until == start + until * DAY


def test_a_window_that_was_over_before_the_freeze_is_not_opened_again(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    start = now()
    pledge = a_refused_pledge(sandbox, start)
    freeze(True, start + 7 * DAY)
    assert not again(pledge).is_repairable(start + 7 * DAY)
    with pytest.raises(Refused, match="The time for paying this pledge is over"):
        Pledge.hold(pledge.id).pay_again(start + 8 * DAY)
    db.session.rollback()
    freeze(False, start + 9 * DAY)
    assert (again(pledge).repair_until, letters("reminder")) == (start + 7 * DAY, [])
    tend(start + 9 * DAY)
    assert again(pledge).status == "dropped"


def test_a_further_try_that_waits_as_charges_are_frozen_is_made_once_they_go_on(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    start = now()
    pledge = a_refused_pledge(sandbox, start)
    tend(start + 2 * DAY)
    assert again(pledge).status == "due"
    keep()
    freeze(True, start + 2 * DAY)
    assert tend(start + 9 * DAY) == []
    freeze(False, start + 12 * DAY)
    with time_machine.travel(start + 12 * DAY, tick=False):
        charge_due()
    held = again(pledge)
    assert (held.status, len(held.attempts), held.repair_until) == ("declined", 2, start + 17 * DAY)


def test_while_frozen_a_refused_payment_cannot_be_paid_and_the_private_page_says_why(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    start = now()
    pledge = a_refused_pledge(sandbox, start)
    link = again(pledge).link()
    keep()
    browser = asks_the_sandbox.test_client()
    freeze(True, start + DAY)
    with time_machine.travel(start + 8 * DAY, tick=False):
        page = " ".join(browser.get(f"/pledges/{link}").text.split())
        assert "Charges for this case are held back at the moment, so it cannot be paid just now." in page
        assert "Pay with the same card" not in page and "Use another card" not in page
        assert "We will try this card again" not in page and "your pledge ends" not in page
        before = everything()
        for button in ("payment", "card"):
            answer = browser.post(f"/pledges/{link}/{button}", headers=SAME_ORIGIN)
            assert answer.status_code == 409
            assert "nothing is lost: your time to pay stands still meanwhile" in answer.text
        assert everything() == before
        assert browser.post(f"/pledges/{link}/end-of-retries", headers=SAME_ORIGIN).status_code == 303
    freeze(False, start + 9 * DAY)
    with time_machine.travel(start + 9 * DAY, tick=False):
        page = " ".join(browser.get(f"/pledges/{link}").text.split())
        assert "Pay with the same card" in page and "We will not try again by ourselves." in page
        assert "Charges for this case, which had been held back, went on." in page
        assert browser.post(f"/pledges/{link}/payment", headers=SAME_ORIGIN).status_code == 303
    assert len(again(pledge).attempts) == 2


def test_a_card_that_was_being_saved_as_charges_were_frozen_is_kept_and_charged_once_they_go_on(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    (pledge,) = due(sandbox, 2_500, cards=(DECLINES_LATER,))
    charge_due()
    link = again(pledge).link()
    keep()
    browser = asks_the_sandbox.test_client()
    stripes_page = browser.post(f"/pledges/{link}/card", headers=SAME_ORIGIN).location
    switch("the-case", "charges_frozen", True)
    type_card(stripes_page, WORKS)
    session_id = again(pledge).session_id
    keep()
    browser.get(f"/pledges/return?session_id={session_id}")
    charge_due()
    assert again(pledge).status == "due"
    page = " ".join(browser.get(f"/pledges/{link}").text.split())
    assert "Your card is to be charged £25, once, but charges for this case are held back at the moment." in page
    switch("the-case", "charges_frozen", False)
    charge_due()
    assert again(pledge).status == "charged"


def test_the_doctor_says_nothing_of_what_waited_for_days_because_charges_were_frozen(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    start = now()
    due(sandbox, 2_500)
    freeze(True, start)
    assert what_waits_too_long(start + 3 * DAY) == []
    freeze(False, start + 3 * DAY)
    just_now, late = start + 3 * DAY + dt.timedelta(minutes=59), start + 3 * DAY + dt.timedelta(minutes=61)
    assert what_waits_too_long(just_now) == []
    assert ["longer than a charge takes" in said for said in what_waits_too_long(late)] == [True]


def test_in_a_case_that_was_cancelled_while_frozen_nobody_is_reminded(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    start = now()
    pledge = a_refused_pledge(sandbox, start)
    freeze(True, start)
    case_at("the-case").cancel("Settled.", "user:1", start + DAY)
    keep()
    freeze(False, start + 2 * DAY)
    assert (letters("reminder"), again(pledge).repair_until) == ([], start + 7 * DAY)


@pytest.mark.parametrize("day", [2, 9])
def test_a_step_that_was_rung_for_before_charges_were_frozen_is_not_taken_any_more(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, day: int
) -> None:
    """The ring lies in the queue while its worker is busy, and staff freeze the charges meanwhile. On day 2 the card
    would be made due again, on day 9 the pledge be dropped."""
    start = now()
    pledge = a_refused_pledge(sandbox, start)
    freeze(True, start + DAY)
    Pledge.hold(pledge.id).next_at = start + DAY
    keep()
    with time_machine.travel(start + day * DAY, tick=False):
        repairs.tend(pledge.id)
    held = again(pledge)
    assert (held.status, held.next_at, letters("reminder", "dropped")) == ("declined", start + DAY, [])
    keep()
    freeze(False, start + 10 * DAY)
    assert (again(pledge).status, again(pledge).repair_until) == ("declined", start + 16 * DAY)


def test_a_reminder_that_was_not_sent_yet_is_not_sent_while_charges_are_frozen(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """It would say that the payment can be made, which it cannot; as charges go on another one is owed."""
    start = now()
    pledge = a_refused_pledge(sandbox, start)
    Pledge.hold(pledge.id).remind(start + DAY)
    keep()
    reminders = sa.select(Letter).where(Letter.kind == "reminder").order_by(Letter.id)
    assert [is_true(letter) for letter in db.session.scalars(reminders)] == [True]
    freeze(True, start + DAY)
    assert [is_true(letter) for letter in db.session.scalars(reminders)] == [False]
    keep()
    freeze(False, start + 2 * DAY)
    assert [is_true(letter) for letter in db.session.scalars(reminders)] == [False, True]


def test_a_refusal_that_was_not_told_before_a_freeze_is_told_after_it_by_one_letter_with_the_new_date(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """It may have been handed over by a process that was killed: once more, it would name two dates."""
    start = now()
    a_refused_pledge(sandbox, start)
    freeze(True, start + DAY)
    freeze(False, start + 2 * DAY)
    about_it = sa.select(Letter).where(Letter.kind.in_(("declined", "reminder"))).order_by(Letter.id)
    assert [(one.kind, is_true(one)) for one in db.session.scalars(about_it)] == [
        ("declined", False), ("reminder", True),
    ]  # fmt: skip
