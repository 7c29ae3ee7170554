"""Who may log in, and as what: staff invite people, change roles and disable, each with a name and a reason."""

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cli import invite
from law import Refused
from models import Event, Invitation, Letter, User, db, hash_password
from tests.crowd import at_once, in_another_thread, meet_after
from tests.doorway import everything, logged_in, token_on
from tests.made import PASSWORD, a_case, a_user, keep, look_anew, now
from tests.mailbox import letters_to, link_in_letter_to
from tests.reading import headings, read, said
from tests.test_bad_forms import summary, values
from tests.test_commands import run
from tests.test_passwords import GUESSED
from views import admissions

CHOSEN = "four words nothing ties"
SELF = (
    "Nobody changes their own role, disables themselves, or resets their own second factor. Ask somebody else of staff."
)


class Desk:
    """Somebody of staff at the pages of the users."""

    def __init__(self, app: Flask, email: str = "staff@example.org") -> None:
        self.person = a_user("staff", email=email, name="Sta Ff")
        self.number = self.person.id
        self.browser = logged_in(app, self.person)

    def send(self, where: str, **typed: str) -> TestResponse:
        sent = {"form_token": token_on(self.browser, "/staff/users")}
        sent |= {name.replace("_", "-"): words for name, words in typed.items()}
        return self.browser.post(f"/staff{where}", data=sent)

    def invite(self, email: str = "new@example.org", role: str = "moderator") -> TestResponse:
        return self.send("/invitations", email=email, role=role)

    def invitations(self) -> list[str]:
        """What the list says, newest first."""
        found = read(self.browser, "/staff/users").select("[aria-labelledby=invitations-heading] tbody tr")
        return [" ".join(said(row).split()) for row in found]


@pytest.fixture
def desk(app: Flask) -> Desk:
    return Desk(app)


def the_user(email: str) -> User:
    look_anew()
    return db.session.scalars(sa.select(User).where(User.email == email)).one()


def history(kind: str) -> list[tuple[str, str, str | None, str | None, str]]:
    """(what, who, before, after, why) of every event about users, or about invitations."""
    look_anew()
    found = sa.select(Event).where(Event.subject_kind == kind).order_by(Event.id)
    return [(one.what, one.who, one.before, one.after, one.note) for one in db.session.scalars(found)]


def log_in(app: Flask, email: str, password: str = PASSWORD) -> TestResponse:
    return app.test_client().post("/login", data={"email": email, "password": password})


# --- Invitations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "where", "words"),
    [
        ("owner", "/owner", "a case owner: you can write a case"),
        ("moderator", "/moderation", "a moderator: you can read and decide comments"),
        ("staff", "/staff", "a member of staff."),
    ],
)
def test_who_is_invited_chooses_a_name_and_a_password_and_has_the_role(
    app: Flask, client: FlaskClient, desk: Desk, role: str, where: str, words: str
) -> None:
    assert desk.invite(" New@Example.org", role).location == "/staff/users"
    assert desk.invitations()[0].startswith("new@example.org") and "waiting until" in desk.invitations()[0]
    [(kind, letter)] = letters_to("new@example.org")
    assert kind == "invitation" and words in letter
    link = link_in_letter_to("new@example.org", "invitations")
    before = everything()
    for _ in range(2):  # As a mail scanner does.
        assert "Join" in said(read(client, link), "h1")
    assert everything() == before
    joined = client.post(link, data={"name": "Nia New", "password": CHOSEN, "role": "staff", "email": "x@example.org"})
    assert (joined.status_code, joined.location) == (303, where)
    assert client.get(where).status_code == 200
    new = the_user("new@example.org")
    assert (new.name, new.role, log_in(app, new.email, CHOSEN).location) == ("Nia New", role, where)
    for again in (client.get(link), app.test_client().post(link, data={"name": "Another", "password": CHOSEN})):
        assert again.status_code == 404
    assert desk.invitations()[0].endswith("accepted")
    by = f"user:{desk.number}"
    assert history("invitation") == [
        ("invited", by, None, role, ""), ("accepted", f"user:{new.id}", None, None, ""),
    ]  # fmt: skip
    assert history("user") == [("invited", by, None, role, "")]


def test_who_is_invited_from_a_page_in_french_reads_french(app: Flask, client: FlaskClient, desk: Desk) -> None:
    sent = {"form_token": token_on(desk.browser, "/staff/users"), "email": "new@example.org", "role": "moderator"}
    assert desk.browser.post("/fr/staff/invitations", data=sent).location == "/fr/staff/users"
    [(_, letter)] = letters_to("new@example.org")
    assert "en tant que modérateur\xa0: vous pouvez lire les commentaires" in letter
    joined = client.post(link_in_letter_to("new@example.org", "fr/invitations"), data={"name": "N", "password": CHOSEN})
    assert joined.location == "/fr/moderation"
    assert (the_user("new@example.org").language, the_user("staff@example.org").language) == ("fr", "en-GB")


def test_an_invitation_runs_out_after_seven_days(app: Flask, client: FlaskClient, desk: Desk) -> None:
    with time_machine.travel(now(), tick=False) as clock:
        desk.invite()
        link = link_in_letter_to("new@example.org", "invitations")
        clock.shift(dt.timedelta(days=7))
        assert client.get(link).status_code == 200
        clock.shift(dt.timedelta(seconds=1))
        assert client.get(link).status_code == 404
        assert client.post(link, data={"name": "Nia", "password": CHOSEN}).status_code == 404
        desk.browser = logged_in(app, the_user("staff@example.org"))
        assert desk.invitations()[0].endswith("run out")
        assert desk.invite().status_code == 303, "and then another one may be sent"
        assert [row.rpartition(" ")[2] == "out" for row in desk.invitations()] == [False, True]


def test_an_invitation_is_taken_back_once_and_its_link_opens_nothing_more(client: FlaskClient, desk: Desk) -> None:
    desk.invite()
    link = link_in_letter_to("new@example.org", "invitations")
    (number,) = db.session.scalars(sa.select(Invitation.id)).all()
    for _ in range(2):
        assert desk.send(f"/invitations/{number}/end").status_code == 303
    assert client.get(link).status_code == 404
    assert client.post(link, data={"name": "Nia", "password": CHOSEN}).status_code == 404
    assert desk.invitations()[0].endswith("taken back")
    assert [what for what, *_ in history("invitation")] == ["invited", "taken_back"]
    assert desk.invite().status_code == 303
    assert desk.send("/invitations/999/end").status_code == 404


def test_an_invitation_that_was_taken_back_before_its_letter_went_is_not_sent(desk: Desk) -> None:
    desk.invite()
    (number,) = db.session.scalars(sa.select(Invitation.id)).all()
    desk.send(f"/invitations/{number}/end")
    assert letters_to("new@example.org") == []


def test_one_that_was_taken_up_cannot_be_taken_back(client: FlaskClient, desk: Desk) -> None:
    desk.invite()
    client.post(link_in_letter_to("new@example.org", "invitations"), data={"name": "Nia", "password": CHOSEN})
    (number,) = db.session.scalars(sa.select(Invitation.id)).all()
    answer = desk.send(f"/invitations/{number}/end")
    assert answer.status_code == 409 and "new@example.org has taken up this invitation already." in answer.text


@pytest.mark.parametrize(
    ("email", "role", "status", "mistakes"),
    [
        ("", "", 422, [("email", "Enter an e-mail address."), ("role", "Choose a role.")]),
        ("new at home", "owner", 422, [("email", "Enter an e-mail address in the form name@example.com.")]),
        ("new@example.org", "boss", 422, [("role", "Choose a role.")]),
        ("STAFF@example.org", "owner", 409, [("email", "There is already a user with the address staff@example.org.")]),
        ("Invited@example.org", "owner", 409,
         [("email", "invited@example.org is invited already. Take that invitation back first.")]),
    ],
)  # fmt: skip
def test_an_invitation_that_cannot_be_is_refused_and_keeps_what_was_typed(
    desk: Desk, email: str, role: str, status: int, mistakes: list[tuple[str, str]]
) -> None:
    desk.invite("invited@example.org")
    before = everything()
    answer = desk.invite(email, role)
    assert (answer.status_code, summary(answer)) == (status, mistakes)
    assert values(answer)["email"].casefold() == email.casefold()
    assert values(answer).get("role", "") == (role if role != "boss" else "")
    assert everything() == before


@pytest.mark.parametrize(
    ("typed", "mistakes"),
    [
        ({"name": "", "password": CHOSEN}, [("name", "Enter your name.")]),
        ({"name": "Nia", "password": "password1234"},
         [("password", GUESSED)]),
    ],
)  # fmt: skip
def test_who_joins_is_told_what_is_wrong_and_types_the_name_once(
    client: FlaskClient, desk: Desk, typed: dict[str, str], mistakes: list[tuple[str, str]]
) -> None:
    desk.invite()
    link = link_in_letter_to("new@example.org", "invitations")
    before = everything()
    answer = client.post(link, data=typed)
    assert (answer.status_code, summary(answer)) == (422, mistakes)
    assert (values(answer)["name"], values(answer)["password"]) == (typed["name"], "")
    assert typed["password"] not in answer.text
    assert everything() == before


def test_an_invitation_that_is_used_many_times_at_once_makes_one_user(
    app: Flask, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.invite()
    link = link_in_letter_to("new@example.org", "invitations")
    meet_after(monkeypatch, admissions, "hash_password", 4)

    def join(name: str) -> int:
        return app.test_client().post(link, data={"name": name, "password": CHOSEN}).status_code

    answers = at_once(app, *[lambda name=name: join(name) for name in ("Ada", "Ben", "Cy", "Di")])
    assert sorted(answers) == [303, 409, 409, 409]
    assert the_user("new@example.org").name == ("Ada", "Ben", "Cy", "Di")[answers.index(303)]


def test_an_invitation_that_is_taken_back_in_the_moment_it_is_used_opens_nothing(
    app: Flask, client: FlaskClient, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.invite()
    link = link_in_letter_to("new@example.org", "invitations")
    (number,) = db.session.scalars(sa.select(Invitation.id)).all()
    keep()
    hashes = hash_password

    def slowly(password: str) -> str:
        assert in_another_thread(app, lambda: desk.send(f"/invitations/{number}/end")).status_code == 303
        return hashes(password)

    monkeypatch.setattr(admissions, "hash_password", slowly)
    answer = client.post(link, data={"name": "Nia", "password": CHOSEN})
    assert (
        answer.status_code == 409 and "This invitation was used already, was taken back, or has run out." in answer.text
    )
    look_anew()
    assert db.session.scalars(sa.select(User.email)).all() == ["staff@example.org"]


def test_the_operator_invites_by_a_command(app: Flask, client: FlaskClient) -> None:
    code, printed = run(app, invite, "--role", "staff", "First@Example.org")
    assert code == 0 and "\nA letter goes to First@example.org. Its link works until " in printed
    assert client.get(link_in_letter_to("first@example.org", "invitations")).status_code == 200
    code, printed = run(app, invite, "--role", "staff", "first@example.org")
    assert code == 1 and "first@example.org is invited already." in printed
    assert history("invitation") == [("invited", "operator", None, "staff", "")]


# --- The list ----------------------------------------------------------------------------------------------


def test_staff_find_a_user_by_name_or_address_and_turn_pages(app: Flask, desk: Desk) -> None:
    for number in range(51):
        a_user("owner", email=f"number-{number}@example.org", name=f"Owner {number}%")

    def shown(where: str) -> list[str]:
        return [said(link) for link in read(desk.browser, where).select("table td a")]

    first = read(desk.browser, "/staff/users")
    assert [said(link) for link in first.select("table td a")] == ["Sta Ff", *(f"Owner {n}%" for n in range(49))]
    (more,) = [str(link["href"]) for link in first.select("main a") if said(link) == "More users"]
    assert shown(more) == ["Owner 49%", "Owner 50%"]
    assert shown("/staff/users?q=NUMBER-50@") == shown("/staff/users?q=owner 50%25") == ["Owner 50%"]
    assert shown("/staff/users?q=_wner") == []
    assert "No user matches “_wner”." in said(read(desk.browser, "/staff/users?q=_wner"), "main")
    assert headings(first)[0] == (1, "Users")
    assert read(desk.browser, "/staff").select_one("main a[href='/staff/users']")


# --- Roles and disabling -----------------------------------------------------------------------------------


def test_a_role_is_changed_with_a_reason_and_the_pages_of_the_one_before_are_closed_at_once(
    app: Flask, desk: Desk
) -> None:
    person = a_user("moderator", email="mo@example.org", name="Mo")
    theirs, number = logged_in(app, person), person.id
    assert theirs.get("/moderation").status_code == 200
    without = desk.send(f"/users/{number}/role", role_role="staff", role_reason=" ")
    assert without.status_code == 422 and summary(without) == [("role-reason", "Enter a reason.")]
    assert values(without)["role-role"] == "staff"
    assert the_user("mo@example.org").role == "moderator"
    for _ in range(2):
        assert desk.send(f"/users/{number}/role", role_role="staff", role_reason="She joins us.").status_code == 303
    assert theirs.get("/moderation").status_code == theirs.get("/staff").status_code == 303
    assert log_in(app, "mo@example.org").location == "/staff"
    assert history("user") == [("role_changed", f"user:{desk.number}", "moderator", "staff", "She joins us.")]
    page = said(read(desk.browser, f"/staff/users/{number}"), "[aria-labelledby=history-heading]")
    assert "role changed, was moderator Sta Ff, staff She joins us." in page


def test_a_disabled_user_is_out_at_once_and_is_answered_as_after_a_wrong_password(app: Flask, desk: Desk) -> None:
    person = a_user("staff", email="gone@example.org", name="Gone")
    theirs, number = logged_in(app, person), person.id
    assert theirs.get("/staff").status_code == 200
    without = desk.send(f"/users/{number}/disabling", disabling_reason="")
    assert without.status_code == 422 and summary(without) == [("disabling-reason", "Enter a reason.")]
    assert theirs.get("/staff").status_code == 200
    for _ in range(2):
        assert desk.send(f"/users/{number}/disabling", disabling_reason="They have left.").status_code == 303
    assert theirs.get("/staff").status_code == 303
    right, wrong = log_in(app, "gone@example.org"), log_in(app, "gone@example.org", "a wrong password")
    assert right.status_code == wrong.status_code == 422
    assert (right.text, dict(right.headers)) == (wrong.text, dict(wrong.headers))
    Letter.owe_staff("disputed", "dispute:1", now())
    assert [one.subject for one in db.session.scalars(sa.select(Letter))] == [f"user:{desk.number}"]
    db.session.rollback()
    assert "disabled" in said(read(desk.browser, "/staff/users"), "table")
    for _ in range(2):
        assert desk.send(f"/users/{number}/disabling/end", disabling_reason="They are back.").status_code == 303
    assert theirs.get("/staff").status_code == 303, "what was ended stays ended"
    assert log_in(app, "gone@example.org").location == "/staff"
    by = f"user:{desk.number}"
    assert history("user") == [
        ("disabled", by, None, None, "They have left."), ("enabled", by, None, None, "They are back."),
    ]  # fmt: skip


def test_nobody_acts_upon_themselves(desk: Desk) -> None:
    page = read(desk.browser, f"/staff/users/{desk.number}")
    assert "This is you." in said(page, "main") and not page.select("main form")
    before = everything()
    for where, typed in (
        ("role", {"role_role": "owner", "role_reason": "I am tired."}),
        ("disabling", {"disabling_reason": "I am tired."}),
        ("disabling/end", {"disabling_reason": "I am awake."}),
        ("second-factor/end", {"factor_reason": "I have lost it."}),
    ):
        answer = desk.send(f"/users/{desk.number}/{where}", **typed)
        assert answer.status_code == 409 and SELF in answer.text, where
    assert everything() == before


def test_an_owner_with_cases_stays_one(desk: Desk) -> None:
    owner = a_user("owner", email="owner@example.org", name="Ow Ner")
    a_case(owner=owner)
    number = the_user("owner@example.org").id
    page = read(desk.browser, f"/staff/users/{number}")
    assert "The role stays while there are cases" in said(page, "main")
    before = everything()
    answer = desk.send(f"/users/{number}/role", role_role="moderator", role_reason="She joins us.")
    assert answer.status_code == 409 and "Ow Ner owns cases, which would be left without an owner." in answer.text
    assert everything() == before
    assert desk.send(f"/users/{number}/disabling", disabling_reason="A complaint.").status_code == 303


@pytest.mark.parametrize(
    ("where", "typed"),
    [
        ("role", {"role_role": "owner", "role_reason": "They have left."}),
        ("disabling", {"disabling_reason": "They have left."}),
    ],
)
def test_what_somebody_has_invited_who_is_of_staff_no_more_opens_nothing(
    app: Flask, client: FlaskClient, desk: Desk, where: str, typed: dict[str, Any]
) -> None:
    """Or they would have left themselves a door."""
    other = Desk(app, "other@example.org")
    assert other.invite("back-door@example.org", "staff").status_code == 303
    link = link_in_letter_to("back-door@example.org", "invitations")
    desk.invite("mine@example.org")
    assert client.get(link).status_code == 200
    assert desk.send(f"/users/{other.number}/{where}", **typed).status_code == 303
    assert client.get(link).status_code == 404
    assert client.post(link, data={"name": "Nia", "password": CHOSEN}).status_code == 404
    assert ["taken back" in row for row in desk.invitations()] == [False, True]


@pytest.mark.parametrize("trial", range(5))
def test_two_of_staff_who_remove_each_other_at_once_leave_one(app: Flask, trial: int) -> None:
    """So staff never vanishes: who removes somebody is another one, and must still belong to staff."""
    people = [a_user("staff").id for _ in range(2)]
    keep()

    def remove(number: int, by: int) -> bool:
        actor = db.session.get_one(User, by)
        held = User.hold(number, actor)
        assert held is not None
        try:
            if trial % 2:
                held.disable("They must go.", actor, now())
            else:
                held.change_role("owner", "They must go.", actor, now())
        except Refused:
            db.session.rollback()
            return False
        db.session.commit()
        return True

    first, second = people
    done = at_once(app, lambda: remove(first, second), lambda: remove(second, first))
    assert sorted(done) == [False, True]
    look_anew()
    assert len(User.with_role("staff")) == 1


def test_the_forms_of_a_user_are_found_by_their_labels(desk: Desk) -> None:
    number = a_user("moderator", name="Mo").id
    page = BeautifulSoup(desk.browser.get(f"/staff/users/{number}").text, "html5lib")
    assert [said(label) for label in page.select("main label")] == [
        "Case owner", "Moderator", "Staff", "Reason", "Reason",
    ]  # fmt: skip
    assert [str(one["value"]) for one in page.select("main [checked]")] == ["moderator"]
