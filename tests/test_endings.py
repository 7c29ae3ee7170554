"""How a case ends, for its owner: cancelled before the deadline, or accounted for once the money has come in."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import letters
from jobs import doctor
from jobs.sweep import remind_owners
from law import Refused
from models import Case, Dispute, Letter, Movement, Pledge, Round, User, db
from payments import ChargeFound, DisputeFound, RefundFound
from tests.crowd import at_once
from tests.doorway import logged_in, token_on
from tests.made import a_case, a_pledge, a_user, confirm, keep, look_anew, now
from tests.mailbox import text_of
from tests.reading import read, said

DAY, HOUR, MINUTE, SECOND = (dt.timedelta(seconds=n) for n in (86_400, 3_600, 60, 1))
WHY = "The department has given way."


def owed(kind: str) -> list[Letter]:
    keep()
    return list(db.session.scalars(sa.select(Letter).where(Letter.kind == kind).order_by(Letter.id)))


def statuses(case: Case) -> tuple[str, str, list[str]]:
    """Of the case, of its round and of each pledge."""
    look_anew()
    case = db.session.get_one(Case, case.id)
    pledges = db.session.scalars(sa.select(Pledge).where(Pledge.round_id == case.round.id).order_by(Pledge.id))
    return case.status, case.round.status, [pledge.status for pledge in pledges]


# --- Cancelled by its owner --------------------------------------------------------------------------------


def test_an_owner_cancels_a_live_case_with_a_reason_and_a_typed_word(app: Flask, client: FlaskClient) -> None:
    staff, case = a_user("staff"), a_case(slug="the-case", target=600_000, pledged=[9_500, 2_500])
    a_pledge(db.session.merge(case).round, 5_000)
    keep()
    browser = logged_in(app, db.session.merge(case).owner)
    where = "/owner/cases/the-case/cancellation"
    assert "2 pledges, £120 together, would be let go for good." in said(read(browser, where), "main")
    typed = {"form_token": token_on(browser, where), "reason": WHY, "sure": "Cancel"}
    for missing, words in (({"sure": ""}, "Type the word cancel, or leave the case as it is."),
                           ({"reason": " "}, "Enter a reason.")):  # fmt: skip
        page = read(browser, where, 422, method="POST", data={**typed, **missing})
        assert [link.text for link in page.select(".errors a")] == [words]
    assert statuses(case) == ("live", "open", ["confirmed", "confirmed", "started"])
    for _ in range(2):
        assert browser.post(where, data=typed).location == "/owner/cases/the-case"
    assert statuses(case) == ("cancelled", "cancelled", ["released"] * 3)
    told = owed("case_cancelled")
    assert len(told) == 2
    words_of = text_of(letters.write(told[0]))
    assert f"The reason given: {WHY}" in words_of and "Nobody was charged, and nobody will be." in words_of
    (to_staff,) = owed("case_called_off")
    assert to_staff.subject == f"user:{staff.id}" and WHY in text_of(letters.write(to_staff))
    assert WHY in said(read(client, "/cases/the-case"), "#pledge-total")
    assert db.session.merge(case).history()[0].who == f"user:{case.owner_id}"
    assert doctor.examine(now()) == []


@pytest.mark.parametrize("late", [SECOND, DAY])
def test_after_the_deadline_its_owner_cannot_cancel_it_any_more(app: Flask, late: dt.timedelta) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    its_case = db.session.merge(case)
    deadline = its_case.round.deadline
    with pytest.raises(Refused, match="you can no longer cancel this case yourself"):
        its_case.call_off(WHY, its_case.owner, deadline + late)
    db.session.rollback()
    assert statuses(case) == ("live", "open", ["confirmed"])
    its_case = db.session.get_one(Case, case.id)
    its_case.call_off(WHY, its_case.owner, deadline)
    keep()
    assert statuses(case) == ("cancelled", "cancelled", ["released"])


@pytest.mark.parametrize("trial", range(4))
def test_a_cancellation_by_its_owner_and_the_decision_at_the_same_moment_agree(app: Flask, trial: int) -> None:
    case = a_case(target=5_000, pledged=[9_500])
    case_id, owner_id, deadline = case.id, case.owner_id, case.round.deadline
    round_id = db.session.merge(case).round.id
    keep()

    def call_off() -> bool:
        its_case = db.session.get_one(Case, case_id)
        try:
            its_case.call_off(WHY, db.session.get_one(User, owner_id), deadline)
        except Refused:
            db.session.rollback()
            return False
        db.session.commit()
        return True

    def decide() -> bool:
        try:
            held = Round.hold(round_id)
            held.close(deadline + SECOND)
            held.settle(deadline + SECOND)
        except Refused:
            db.session.rollback()
            return False
        db.session.commit()
        return True

    work = (call_off, decide) if trial % 2 else (decide, call_off)
    at_once(app, *work)
    assert statuses(case) in (
        ("cancelled", "cancelled", ["released"]),
        ("funded", "met", ["due"]),
    )


# --- After the money has come in ---------------------------------------------------------------------------

SPENT = {"body": "## We won\n\nThe *regulations* were quashed.", "lines-0-words": "The claim", "lines-0-amount": "90",
         "lines-1-words": "Counsel", "lines-1-amount": "29.50"}  # fmt: skip


def met(*outcomes: str, slug: str = "", wants_updates: bool = False) -> Case:
    """A case that reached its target with a pledge of £25 for each outcome of its charge; "" waits to be charged."""
    case = a_case(slug=slug, target=2_500)
    its_round = db.session.merge(case).round
    for _ in outcomes:
        confirm(a_pledge(its_round, 2_500, wants_updates=wants_updates))
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(its_round.deadline + SECOND)
    for pledge, outcome in zip(its_round.pledges("due"), outcomes, strict=True):
        if outcome:
            pledge.claim(now(), MINUTE)
            pledge.apply_charge(ChargeFound(outcome, f"pi_{pledge.id}", f"ch_{pledge.id}", 2_500), now(), asked=True)
    keep()
    return db.session.get_one(Case, case.id)


def test_its_owner_sees_what_came_in_and_counts_of_what_did_not_and_no_name_of_it(app: Flask) -> None:
    case = met("succeeded", "succeeded", "declined", "action_required", "declined", slug="the-case")
    dropped = case.round.pledges("declined")[-1]
    dropped.drop(now())
    charge = db.session.scalars(sa.select(Movement).where(Movement.kind == "charge")).first()
    assert charge
    charge.take_fee("txn_1", 58, now())
    keep()
    shown = read(logged_in(app, case.owner), "/owner/cases/the-case").select_one("section:has(#aftermath)")
    words = said(shown)
    assert words.startswith("What came in Pledged £125 Charged £50 Waiting for supporters and their banks £50")
    assert "Could not be charged £25" in words and "Refunded" not in words
    assert "Stripe kept £0.58 in fees" in words
    assert "2 pledges, £50 together: the bank refused the card or asks for an approval." in words
    assert "1 pledge, £25 together, could not be charged in that time and ended." in words
    assert "Ada Winter" not in words and "4242" not in words


def test_once_the_round_is_decided_its_owner_sees_of_each_pledge_whether_the_money_came_in(app: Flask) -> None:
    case = met("succeeded", "succeeded", "succeeded", "succeeded", "declined", "declined", "", slug="the-case")
    disputed, *paid_back = case.round.pledges("charged")[1:]
    for pledge, pence in zip(paid_back, (2_500, 500), strict=True):
        pledge.apply_refund(RefundFound("succeeded", f"re_{pledge.id}", f"pi_{pledge.id}", pence), now())
    # That a supporter goes to the bank is between them, the bank and the operator.
    numbers = (f"du_{disputed.id}", f"ch_{disputed.id}", f"pi_{disputed.id}")
    Dispute.apply(DisputeFound(*numbers, 2_500, "fraudulent", "open", True, now() + DAY, now()), disputed, now())
    case.round.pledges("declined")[-1].drop(now())
    keep()
    told = ["charged", "charged", "paid back", "partly paid back", "being repaired", "not charged", "being charged"]
    browser = logged_in(app, db.session.merge(case).owner)
    page = read(browser, "/owner/cases/the-case/pledges")
    assert [row.select("td")[3].text for row in page.select(".rows tbody tr")] == told[::-1]
    file = browser.get("/owner/cases/the-case/pledges.csv").get_data().decode("utf-8-sig").splitlines()
    assert file[0] == 'Date,Name,"Pledged, in pounds",State'
    assert [line.split(",")[-1] for line in file[1:]] == told


def test_while_a_pledge_is_charged_or_repaired_there_is_no_final_report(app: Flask) -> None:
    for outcome in ("", "declined", "action_required", "unknown"):
        case = met("succeeded", outcome)
        with pytest.raises(Refused, match="still being charged or repaired"):
            case.publish_report(case.owner, "We won.", [("The claim", 2_500)], now())
        db.session.rollback()
    for case in (a_case(), a_case(target=600_000)):
        its_case = db.session.merge(case)
        with pytest.raises(Refused, match="once a case has reached its target"):
            its_case.publish_report(its_case.owner, "We won.", [("The claim", 2_500)], now())
        db.session.rollback()


def test_a_final_report_closes_the_case_stays_on_its_page_and_goes_to_who_wants_updates(
    app: Flask, client: FlaskClient
) -> None:
    case = met("succeeded", "succeeded", slug="the-case", wants_updates=True)
    reader, other = case.round.pledges("charged")
    other.unsubscribe(now())
    keep()
    number, browser = reader.id, logged_in(app, db.session.merge(case).owner)
    where = "/owner/cases/the-case/report"
    typed = {"form_token": token_on(browser, where), **SPENT}
    preview = read(browser, where, method="POST", data={**typed, "preview": "1"})
    # What came in stands beside it: whoever accounts for more can see it before it is published for good.
    assert "Charged, less refunds and fees £50 Total £119.50" in said(preview, ".preview")
    assert owed("final_report") == []
    assert said(preview, "#body") == "## We won The *regulations* were quashed."
    for _ in range(2):
        answer = browser.post(where, data=typed)
        assert (answer.status_code, answer.location) == (303, "/cases/the-case#final-report")
    assert statuses(case) == ("closed", "met", ["charged", "charged"])
    (letter,) = owed("final_report")
    assert letter.subject == f"pledge:{number}"
    written = letters.write(letter)
    assert "- The claim: £90\n- Counsel: £29.50\n\nTotal: £119.50" in text_of(written)
    assert "/unsubscription" in str(written["List-Unsubscribe"])
    page = said(read(client, "/cases/the-case"), ".report")
    assert page.startswith("Final report") and "The regulations were quashed." in page
    assert "The claim £90 Counsel £29.50 Charged, less refunds and fees £50 Total £119.50" in page
    assert "Funded and closed, with a final report." in said(read(client, "/"), "main")
    assert "It stays as it is." in said(read(browser, where), "main")
    assert doctor.examine(now()) == []


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"body": ""}, "body", "Say what became of the case."),
        ({"lines-1-amount": ""}, "lines-1-amount", "Line 2: Enter the amount."),
        ({"lines-1-words": ""}, "lines-1-words", "Line 2: Say what it was for."),
        ({"lines-0-amount": "lots"}, "lines-0-amount", "Line 1: Enter an amount in pounds, like 25 or 25.50."),
        ({name: "" for name in SPENT if name != "body"}, "lines-0-words",
         "Line 1: Say what the money was used for, in at least one line."),
    ],
)  # fmt: skip
def test_a_report_that_lacks_something_is_given_back(
    app: Flask, changed: dict[str, str], field: str, words: str
) -> None:
    case = met("succeeded", slug="the-case")
    browser = logged_in(app, case.owner)
    where = "/owner/cases/the-case/report"
    typed = {"form_token": token_on(browser, where), **SPENT, **changed}
    page = read(browser, where, 422, method="POST", data=typed)
    assert [(link["href"], link.text) for link in page.select(".errors a")] == [(f"#{field}", words)]
    assert statuses(case)[0] == "funded"


def test_after_each_fifteen_days_of_silence_its_owner_is_reminded_once(app: Flask) -> None:
    case = met("succeeded")
    settled = case.round.settled_at
    assert settled
    for hours in (0, 15 * 24 - 1):
        remind_owners(settled + hours * HOUR)
    assert owed("update_reminder") == []
    first = settled + 15 * DAY
    for later in (0 * DAY, SECOND, DAY, 15 * DAY - SECOND):
        remind_owners(first + later)
    assert [letter.created_at for letter in owed("update_reminder")] == [first]
    remind_owners(first + 15 * DAY)
    remind_owners(first + 15 * DAY)
    assert [letter.created_at for letter in owed("update_reminder")] == [first, first + 15 * DAY]


def test_an_update_puts_the_reminder_off_and_the_final_report_ends_it(app: Flask) -> None:
    case = met("succeeded")
    settled = case.round.settled_at
    assert settled
    case.publish_update(case.owner, "The hearing", "It is in May.", settled + 10 * DAY)
    remind_owners(settled + 25 * DAY - SECOND)
    assert owed("update_reminder") == []
    remind_owners(settled + 25 * DAY)
    (letter,) = owed("update_reminder")
    assert letters.is_true(letter)
    case.publish_report(case.owner, "We won.", [("The claim", 2_500)], settled + 26 * DAY)
    assert not letters.is_true(letter), "there is nothing to remind of any more"
    remind_owners(settled + 60 * DAY)
    assert len(owed("update_reminder")) == 1


def test_nobody_is_reminded_of_a_case_that_got_no_money(app: Flask) -> None:
    a_case(target=600_000, pledged=[9_500])
    missed, cancelled = a_case(target=600_000, pledged=[9_500]), a_case(target=600_000, pledged=[9_500])
    its_round = db.session.merge(missed).round
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(its_round.deadline + SECOND)
    db.session.merge(cancelled).cancel("Settled.", "test", now())
    remind_owners(now() + 60 * DAY)
    assert owed("update_reminder") == []
