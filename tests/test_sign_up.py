"""Opening an account by oneself, where the site is open: what a stranger finds out, and what opens it."""

import datetime as dt
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from models import Event, SignUp, User, db
from tests.crowd import at_once, meet_after
from tests.doorway import everything, set_otherwise, token_on
from tests.made import PASSWORD, a_user, keep, look_anew, now
from tests.mailbox import letters_to, link_in_letter_to
from tests.reading import read, said
from tests.test_bad_forms import summary, values
from tests.test_passwords import OWN
from views import admissions

CHOSEN = "four words nothing ties"
TYPED = {"name": "River Watch", "email": "river@example.org", "password": CHOSEN}


@pytest.fixture
def site(app: Flask) -> Iterator[Flask]:
    """The site, open to everybody."""
    with set_otherwise(app, sign_up="open") as open_site:
        yield open_site


def sign_up(site: Flask, **typed: str) -> TestResponse:
    return site.test_client().post("/sign-up", data={**TYPED, **typed})


def the_users() -> list[tuple[str, str, str]]:
    look_anew()
    return [(one.email, one.name, one.role) for one in db.session.scalars(sa.select(User).order_by(User.id))]


def log_in(site: Flask, email: str = "river@example.org", password: str = CHOSEN) -> int:
    return site.test_client().post("/login", data={"email": email, "password": password}).status_code


def test_nobody_signs_up_where_only_the_invited_may_join(app: Flask, site: Flask, client: FlaskClient) -> None:
    sign_up(site)
    link = link_in_letter_to("river@example.org", "sign-up")
    before = everything()
    for where in ("/sign-up", "/sign-up/sent", link):
        assert client.get(where).status_code == 404
    assert client.post("/sign-up", data=TYPED).status_code == 404
    assert client.post(link, data={"password": CHOSEN}).status_code == 404
    assert everything() == before


def test_somebody_signs_up_and_has_an_account_once_the_address_is_confirmed_and_not_before(site: Flask) -> None:
    browser = site.test_client()
    sent = browser.post("/sign-up", data={**TYPED, "email": " River@Example.org "})
    assert (sent.status_code, sent.location) == (303, "/sign-up/sent")
    assert "Check your e-mail" in browser.get("/sign-up/sent").text
    assert (the_users(), log_in(site)) == ([], 422)
    link = link_in_letter_to("River@example.org".lower(), "sign-up")
    before = everything()
    for _ in range(2):  # As a mail scanner does.
        page = browser.get(link)
        assert page.status_code == 200 and "Open my account" in page.text
    assert everything() == before

    # Whoever reads the letter without having asked for it opens nothing.
    wrong = browser.post(link, data={"password": "a stranger's guess at it"})
    assert wrong.status_code == 422 and summary(wrong) == [
        ("password", "This is not the password with which this account was asked for.")
    ]
    assert everything() == before

    right = browser.post(link, data={"password": CHOSEN})
    assert (right.status_code, right.location) == (303, "/owner")
    assert browser.get("/owner").status_code == 200
    assert the_users() == [("river@example.org", "River Watch", "owner")]
    assert log_in(site) == 303
    assert site.test_client().get(link).status_code == site.test_client().post(link, data=TYPED).status_code == 404
    look_anew()
    (event,) = db.session.scalars(sa.select(Event).where(Event.subject_kind == "user"))
    assert (event.what, event.who) == ("signed_up", f"user:{event.subject_id}")


def test_who_signs_up_in_french_is_written_to_in_french_until_another_language_is_chosen(site: Flask) -> None:
    browser = site.test_client()
    assert browser.post("/fr/sign-up", data=TYPED).location == "/fr/sign-up/sent"
    [(_, asked)] = letters_to("river@example.org")
    assert asked.startswith("Quelqu’un, probablement vous, veut ouvrir un compte")
    link = link_in_letter_to("river@example.org", "fr/sign-up")
    assert browser.post(link, data={"password": CHOSEN}).location == "/fr/owner"

    def choose(language: str) -> TestResponse:
        sent = {"form_token": token_on(browser, "/account"), "language": language}
        return browser.post("/account/language", data=sent)

    def warned(days_ago: int) -> str:
        """What the account's letters say, whoever causes them."""
        look_anew()
        person = db.session.scalars(sa.select(User)).one()
        person.warn_of_tries(now() - dt.timedelta(days=days_ago))
        return letters_to("river@example.org")[-1][1]

    assert "quelqu’un a saisi votre mot de passe sur Standing" in warned(days_ago=2)
    for unknown in ("", "xx", "en"):
        assert choose(unknown).status_code == 400
    before = everything()
    assert choose("fr").status_code == 303 and everything() == before
    assert choose("en-GB").location == "/account"
    assert 'Letters to you are written in <span lang="en-GB">English</span>.' in browser.get("/account").text
    chosen = db.session.scalars(sa.select(Event).where(Event.what == "language_changed")).one()
    assert (chosen.who, chosen.note) == (f"user:{chosen.subject_id}", "from fr to en-GB")
    assert "somebody typed your password at Standing" in warned(days_ago=1)


def test_somebody_signs_up_in_french(site: Flask) -> None:
    browser = site.test_client()
    typed = {"name": "", "email": "rive@signup.example", "password": "trop court"}
    wrong = read(browser, "/fr/sign-up", 422, method="POST", data=typed)
    assert wrong.title and wrong.title.text.startswith("Erreur\u00a0: S’inscrire")
    assert [said(link) for link in wrong.select(".errors a")] == [
        "Indiquez votre nom.",
        "Utilisez un mot de passe d’au moins 12 caractères.",
    ]
    sent = browser.post("/fr/sign-up", data={**TYPED, "email": "rive@signup.example"})
    assert (sent.status_code, sent.location) == (303, "/fr/sign-up/sent")
    assert said(read(browser, sent.location), "h1") == "Consultez votre messagerie"


def test_whether_an_address_has_an_account_is_told_in_its_own_letters_alone(site: Flask) -> None:
    a_user("moderator", email="known@example.org")
    before = the_users()
    answers = []
    for email in ("known@example.org", "unknown@example.org"):
        answer = sign_up(site, email=email)
        shown = site.test_client().get(answer.location)
        answers.append((answer.status_code, answer.location, answer.text, {*answer.headers.keys()}, shown.text))
    assert answers[0] == answers[1]
    assert [kind for kind, _ in letters_to("unknown@example.org")] == ["sign_up"]
    [(kind, words)] = letters_to("known@example.org")
    assert kind == "sign_up" and "It has one already, and nothing was changed." in words
    assert "http://127.0.0.1:8000/login" in words and "http://127.0.0.1:8000/forgotten-password" in words
    assert "/sign-up/" not in words and "River Watch" not in words
    # The link that this letter does not have would open nothing either.
    look_anew()
    link = db.session.scalars(sa.select(SignUp).where(SignUp.email == "known@example.org")).one().link()
    assert site.test_client().post(f"/sign-up/{link}", data={"password": CHOSEN}).status_code == 404
    assert (the_users(), log_in(site, "known@example.org", PASSWORD)) == (before, 303)


def test_a_link_works_for_three_days(site: Flask) -> None:
    with time_machine.travel(now(), tick=False) as clock:
        sign_up(site)
        link = link_in_letter_to("river@example.org", "sign-up")
        clock.shift(dt.timedelta(days=3))
        assert site.test_client().get(link).status_code == 200
        clock.shift(dt.timedelta(seconds=1))
        assert site.test_client().get(link).status_code == 404
        assert site.test_client().post(link, data={"password": CHOSEN}).status_code == 404
        assert the_users() == []
        # What nobody has confirmed is forgotten as others come.
        sign_up(site, email="another@example.org")
        look_anew()
        assert db.session.scalars(sa.select(SignUp.email)).all() == ["another@example.org"]


def test_two_who_sign_up_with_one_address_get_each_an_own_link_and_the_first_to_confirm_has_the_account(
    site: Flask,
) -> None:
    """So whoever signs up with an address that somebody else reads can only make its reader choose again."""
    sign_up(site, password="the password of a stranger", name="A Stranger")
    sign_up(site)
    mine = link_in_letter_to("river@example.org", "sign-up")
    assert len(letters_to("river@example.org")) == 2
    assert site.test_client().post(mine, data={"password": CHOSEN}).status_code == 303
    strangers = db.session.scalars(sa.select(SignUp).where(SignUp.name == "A Stranger")).one().link()
    answer = site.test_client().post(f"/sign-up/{strangers}", data={"password": "the password of a stranger"})
    assert answer.status_code == 404
    assert the_users() == [("river@example.org", "River Watch", "owner")]


def test_a_link_that_is_used_many_times_at_once_opens_one_account(site: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    sign_up(site)
    link = link_in_letter_to("river@example.org", "sign-up")
    meet_after(monkeypatch, admissions, "is_password", 4)

    def confirm() -> int:
        return site.test_client().post(link, data={"password": CHOSEN}).status_code

    assert sorted(at_once(site, *[confirm] * 4)) == [303, 409, 409, 409]
    assert the_users() == [("river@example.org", "River Watch", "owner")]


def test_three_links_of_one_address_that_are_used_at_once_open_one_account(
    site: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        sign_up(site)
    look_anew()
    links = [one.link() for one in db.session.scalars(sa.select(SignUp))]
    keep()
    meet_after(monkeypatch, admissions, "is_password", 3)

    def confirm(link: str) -> int:
        return site.test_client().post(f"/sign-up/{link}", data={"password": CHOSEN}).status_code

    assert sorted(at_once(site, *[lambda link=link: confirm(link) for link in links])) == [303, 409, 409]
    assert the_users() == [("river@example.org", "River Watch", "owner")]


@pytest.mark.parametrize(
    ("typed", "mistakes"),
    [
        (
            {"name": "", "email": "", "password": ""},
            [("name", "Enter your name."), ("email", "Enter your e-mail address."), ("password", "Enter a password.")],
        ),
        ({"name": "n" * 121}, [("name", "Use at most 120 characters.")]),
        ({"email": "river at home"}, [("email", "Enter an e-mail address in the form name@example.com.")]),
        ({"password": "elevenchars"}, [("password", "Use a password of at least 12 characters.")]),
        ({"password": "river.watch.2026"}, [("password", OWN)]),
    ],
)
def test_what_was_typed_wrongly_is_said_and_kept_but_the_password(
    site: Flask, typed: dict[str, str], mistakes: list[tuple[str, str]]
) -> None:
    before = everything()
    answer = sign_up(site, **typed)
    assert answer.status_code == 422 and summary(answer) == mistakes
    sent = {**TYPED, **typed}
    kept = values(answer)
    assert (kept["name"], kept["email"], kept["password"]) == (sent["name"], sent["email"], "")
    assert not sent["password"] or sent["password"] not in answer.text
    assert everything() == before


def test_the_password_that_opens_an_account_is_guessed_at_so_often(app: Flask) -> None:
    with set_otherwise(app, sign_up="open", rate_login="3 per hour") as site:
        sign_up(site)
        link = link_in_letter_to("river@example.org", "sign-up")
        tries = [
            site.test_client().post(link, data={"password": "a guess at it"},
                                    environ_overrides={"REMOTE_ADDR": f"192.0.2.{number}"}).status_code
            for number in range(4)
        ]  # fmt: skip
    assert tries == [422, 422, 422, 429]
