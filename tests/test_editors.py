"""Several people on one case: its owner asks others to help, they do, each under their own name, and some things stay
the owner's alone."""

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from letters import is_true, write
from models import Case, Editor, Event, Invitation, Letter, User, db
from tests.doorway import SAME_ORIGIN, everything, logged_in, token_on
from tests.made import a_case, a_draft, a_user, case_at, keep, look_anew, now
from tests.mailbox import text_of
from views.owners import OWNER_ALONE

OWN = "/owner/cases/the-case"


@pytest.fixture
def owner(app: Flask) -> User:
    person = a_user("owner", name="River Watch")
    a_case(slug="the-case", owner=person, pledged=[9_500])
    return person


def send(browser: FlaskClient, where: str, **typed: str) -> Any:
    return browser.post(where, data=typed | {"form_token": token_on(browser, "/owner")}, headers=SAME_ORIGIN)


def invited(email: str) -> Invitation:
    look_anew()
    return db.session.scalars(sa.select(Invitation).where(Invitation.email == email)).one()


def an_editor(app: Flask, owner: User, email: str = "") -> FlaskClient:
    """The browser of somebody who has an account and has taken up an invitation to the case."""
    person = a_user("owner", email=email, name="Helping Hand")
    send(logged_in(app, owner), f"{OWN}/people", email=person.email)
    link = invited(person.email).link()
    browser = logged_in(app, person)
    assert send(browser, f"/invitations/{link}").location == OWN
    return browser


def test_somebody_with_an_account_joins_by_the_letters_link_and_a_button(app: Flask, owner: User) -> None:
    person = a_user("owner", name="Helping Hand")
    browser = logged_in(app, person)
    assert browser.get(OWN).status_code == 404
    answer = send(logged_in(app, owner), f"{OWN}/people", email=person.email.upper())
    assert answer.status_code == 303
    invitation = invited(person.email)
    where = f"/invitations/{invitation.link()}"
    assert where in text_of(write(db.session.scalars(sa.select(Letter).where(Letter.kind == "invitation")).one()))
    db.session.rollback()
    page = browser.get(where)
    assert "Work on this case" in page.text and browser.get(OWN).status_code == 404, "looking changes nothing"
    assert send(browser, where).location == OWN
    assert browser.get(OWN).status_code == 200 and "Helping Hand" in browser.get(f"{OWN}/people").text
    assert send(browser, where).status_code == 404, "the link worked once"
    assert "A case about data" in browser.get("/owner").text


def test_somebody_without_an_account_opens_one_by_the_same_link(app: Flask, client: FlaskClient, owner: User) -> None:
    send(logged_in(app, owner), f"{OWN}/people", email="newly.here@example.org")
    where = f"/invitations/{invited('newly.here@example.org').link()}"
    db.session.rollback()
    typed = {"name": "Newly Here", "password": "a long enough sentence"}
    assert client.post(where, data=typed, headers=SAME_ORIGIN).status_code == 303
    look_anew()
    joined = User.at("newly.here@example.org")
    assert joined is not None and joined.role == "owner" and case_at("the-case").is_worked_on_by(joined)


def test_whom_the_letter_was_not_for_cannot_use_its_link(app: Flask, client: FlaskClient, owner: User) -> None:
    person, other = a_user("owner"), a_user("owner")
    send(logged_in(app, owner), f"{OWN}/people", email=person.email)
    where = f"/invitations/{invited(person.email).link()}"
    db.session.rollback()
    browser = logged_in(app, other)
    before = everything()
    assert client.post(where, headers=SAME_ORIGIN).location.startswith("/login?next=/invitations/")
    assert send(browser, where).status_code == 409
    assert everything() == before


@pytest.mark.parametrize("role", ["moderator", "staff"])
def test_the_owner_does_not_learn_who_has_an_account_and_no_other_role_joins(
    app: Flask, owner: User, role: str
) -> None:
    person, browser = a_user(role), logged_in(app, owner)
    said = []
    for email in (person.email, f"nobody-{role}@example.org"):
        answer = send(browser, f"{OWN}/people", email=email)
        page = browser.get(f"{OWN}/people").text
        said.append((answer.status_code, email in page))
    assert said == [(303, True), (303, True)]
    letter = db.session.scalars(sa.select(Letter).where(Letter.kind == "invitation").order_by(Letter.id)).first()
    assert letter is not None and not is_true(letter), "no letter goes to somebody who could not use it"
    where = f"/invitations/{invited(person.email).link()}"
    db.session.rollback()
    assert logged_in(app, person).get(where).status_code == 404


def test_an_invitation_ends_after_seven_days_when_it_is_taken_back_and_is_one_when_asked_twice(
    app: Flask, owner: User
) -> None:
    browser = logged_in(app, owner)
    for _ in range(2):
        send(browser, f"{OWN}/people", email="slow@example.org")
    invitation = invited("slow@example.org")
    number, where = invitation.id, f"/invitations/{invitation.link()}"
    db.session.rollback()
    with time_machine.travel(now() + dt.timedelta(days=7, seconds=5)):
        assert app.test_client().get(where).status_code == 404
    assert app.test_client().get(where).status_code == 200
    assert send(browser, f"{OWN}/people/invitations/{number}/withdrawal").status_code == 303
    assert app.test_client().get(where).status_code == 404
    another = a_case(slug="of-another").owner
    assert (
        send(logged_in(app, another), f"/owner/cases/of-another/people/invitations/{number}/withdrawal").status_code
        == 404
    )


def test_an_editor_writes_and_answers_but_what_binds_the_owner_is_the_owners_alone(app: Flask, owner: User) -> None:
    browser = an_editor(app, owner, "editor.alone@example.org")
    for path in ("", "/updates/new", "/messages", "/comments", "/pledges", "/people", "/history", "/figures"):
        assert browser.get(f"{OWN}{path}").status_code == 200, path
    owners_own = logged_in(app, owner)
    before = everything()
    alone = [rule for rule in app.url_map.iter_rules() if rule.endpoint in OWNER_ALONE]
    assert len(alone) == len(OWNER_ALONE) == 14
    for rule in alone:
        values = {"slug": "the-case", "invitation_id": 1}
        with app.test_request_context():
            where = app.url_map.bind("").build(rule.endpoint, {name: values[name] for name in rule.arguments})
        method = "POST" if "POST" in (rule.methods or ()) else "GET"
        answer = send(browser, where, reason="Mine now.", sure="cancel") if method == "POST" else browser.get(where)
        assert answer.status_code == 403 and "Only the owner of this case can do that." in answer.text, rule.endpoint
        assert owners_own.get(where).status_code != 403 or method == "POST"
    assert everything() == before
    page = browser.get(OWN).text
    assert "Cancel the case" not in page and "Change the deadline" not in page


def test_an_editor_is_removed_by_the_owner_or_leaves_and_sees_the_case_no_more(app: Flask, owner: User) -> None:
    stays, leaves = an_editor(app, owner, "stays@example.org"), an_editor(app, owner, "leaves@example.org")
    numbers = {}
    for email in ("stays@example.org", "leaves@example.org"):
        person = User.at(email)
        assert person is not None
        numbers[email] = person.id
    db.session.rollback()
    refused = send(stays, f"{OWN}/people/{numbers['leaves@example.org']}/removal")
    assert refused.status_code == 403 and leaves.get(OWN).status_code == 200
    assert send(leaves, f"{OWN}/people/{numbers['leaves@example.org']}/removal").location == "/owner"
    assert leaves.get(OWN).status_code == 404
    for _ in range(2):
        assert send(logged_in(app, owner), f"{OWN}/people/{numbers['stays@example.org']}/removal").status_code == 303
    assert stays.get(OWN).status_code == 404
    look_anew()
    assert db.session.scalars(sa.select(Editor)).all() == []


def test_who_did_what_is_in_the_history_by_name_and_staff_have_none(app: Flask, owner: User) -> None:
    browser = an_editor(app, owner, "named@example.org")
    editor = db.session.scalars(sa.select(User).where(User.email == "named@example.org")).one()
    case_at("the-case").publish_update(db.session.merge(editor), "News", "Words.", now())
    keep()
    staff = a_user("staff", name="Secret Staffer")
    case_at("the-case").switch("pledging_paused", True, "CANARY-REASON", db.session.merge(staff), now())
    keep()
    page = browser.get(f"{OWN}/history").text
    assert "Update “News”: published</td><td>Helping Hand" in page and "Case: editor joined: Helping Hand" in page
    assert "Case: pledging paused</td><td>staff" in page
    assert "Secret Staffer" not in page and "CANARY-REASON" not in page


def test_whoever_writes_on_a_draft_leaves_one_line_an_hour(app: Flask, owner: User) -> None:
    draft = a_draft(db.session.merge(owner))
    slug, writer = draft.slug, draft.owner
    for minutes in (0, 1, 59, 61):
        db.session.scalars(sa.select(Case).where(Case.slug == slug)).one().note_writer(
            writer, now() + dt.timedelta(minutes=minutes)
        )
    keep()
    assert len(db.session.scalars(sa.select(Event).where(Event.what == "written")).all()) == 2


def test_at_most_ten_people_work_on_a_case_beside_its_owner(app: Flask, owner: User) -> None:
    browser = logged_in(app, owner)
    its_case = case_at("the-case")
    for number in range(9):
        Invitation.to_case(its_case, f"helper{number}@example.org", its_case.owner, now())
    keep()
    assert send(browser, f"{OWN}/people", email="helper9@example.org").status_code == 303
    answer = send(browser, f"{OWN}/people", email="helper10@example.org")
    assert answer.status_code == 409 and "At most 10 people" in answer.text and "helper10@example.org" in answer.text


@pytest.mark.parametrize(
    ("typed", "says"),
    [("", "Enter an e-mail address."), ("no address", "e-mail"), ("x" * 255 + "@example.org", "too long")],
)
def test_what_is_no_address_is_told_at_the_field_and_kept(app: Flask, owner: User, typed: str, says: str) -> None:
    answer = send(logged_in(app, owner), f"{OWN}/people", email=typed)
    assert answer.status_code == 422 and says in answer.text and typed in answer.text
    look_anew()
    assert db.session.scalars(sa.select(Invitation)).all() == []
