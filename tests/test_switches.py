"""Staff's two switches: pledging paused, charges frozen. Each has a reason, and each is lifted again."""

import pytest
import sqlalchemy as sa
from flask import Flask

import payments
from jobs import sweep
from models import Case, Event, Pledge, User, db
from tests.at_stripe import calls, plan
from tests.charged import charge_due, due
from tests.doorway import SAME_ORIGIN, everything, logged_in, token_on
from tests.made import a_case, a_pledge, a_user, case_at, confirm, keep, look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess
from tests.test_bad_forms import TERMS


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
    lines = db.session.scalars(sa.select(Event).where(Event.subject_kind == "case", Event.note != ""))
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
    answer = client.post("/cases/the-case/pledges", data=TERMS)
    assert answer.status_code == 409 and "Pledging for this case is paused" in answer.text
    assert everything() == before
    switch("the-case", "pledging_paused", False)
    assert "Pledge now" in client.get("/cases/the-case").text
    assert client.post("/cases/the-case/pledges", data=TERMS).status_code == 303


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
