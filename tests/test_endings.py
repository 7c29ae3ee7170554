"""How a case ends, for its owner: cancelled before the deadline, or accounted for once the money has come in."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import letters
from jobs import doctor
from law import Refused
from models import Case, Letter, Pledge, Round, User, db
from tests.crowd import at_once
from tests.doorway import logged_in, token_on
from tests.made import a_case, a_pledge, a_user, keep, look_anew, now
from tests.reading import read, said

DAY, SECOND = dt.timedelta(days=1), dt.timedelta(seconds=1)
WHY = "The department has given way."


def owed(kind: str) -> list[Letter]:
    look_anew()
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
    words_of = letters.write(told[0]).get_content()
    assert f"The reason given: {WHY}" in words_of and "Nobody was charged, and nobody will be." in words_of
    (to_staff,) = owed("case_called_off")
    assert to_staff.subject == f"user:{staff.id}" and WHY in letters.write(to_staff).get_content()
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
