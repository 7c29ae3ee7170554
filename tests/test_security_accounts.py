"""Accounts: what is asked for before one is changed, who is told, and how often somebody may try to come in.

The other rows of the list in docs/security.md are shown where that list says.
"""

import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import pytest
import sqlalchemy as sa
import time_machine
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import models
from jobs import queue
from models import EmailChange, Event, Invitation, Letter, SignUp, User, db
from tests.crowd import at_once
from tests.doorway import SAME_ORIGIN, everything, logged_in, set_otherwise, token_on
from tests.house import eventually
from tests.made import PASSWORD, a_case, a_pledge, a_user, confirm, keep, look_anew, now
from tests.mailbox import letters_to, link_in_letter_to
from tests.reading import read, said
from tests.test_bad_forms import summary
from tests.test_second_factors import CODE_PAGE, Phone, type_password
from tests.test_users import history, the_user

CHOSEN = "four words nothing ties"
EMAIL, MOVED = "owner@example.org", "moved@example.org"
NOON = dt.datetime(2026, 11, 27, 12, 0, 15, tzinfo=dt.UTC)


def send(browser: FlaskClient, where: str, **typed: str) -> TestResponse:
    return browser.post(where, data={"form_token": token_on(browser, "/account"), **typed})


def try_in(
    browser: FlaskClient, password: str = PASSWORD, email: str = EMAIL, address: str = "127.0.0.1"
) -> TestResponse:
    return browser.post("/login", data={"email": email, "password": password}, headers=SAME_ORIGIN,
                        environ_overrides={"REMOTE_ADDR": address})  # fmt: skip


def log_out(browser: FlaskClient) -> None:
    browser.post("/logout", data={"form_token": token_on(browser, "/account")})


def events() -> list[str]:
    look_anew()
    return [event.what for event in db.session.scalars(sa.select(Event).order_by(Event.id))]


# --- Row 9: hashing ----------------------------------------------------------------------------------------


class Counted(PasswordHasher):
    """A hasher that notes what it hashes and compares, and how many do so at once."""

    def __init__(self, seconds: float = 0, passes: int = 3, memory: int = 65_536, lanes: int = 4) -> None:
        super().__init__(time_cost=passes, memory_cost=memory, parallelism=lanes)
        self.done: list[str] = []
        self.seconds, self.inside, self.most, self.lock = seconds, 0, 0, threading.Lock()

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        made = super().hash(password, salt=salt)
        self._note(made)
        return made

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - as argon2 calls it
        self._note(str(hash))
        return super().verify(hash, password)

    def _note(self, made: str) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.done.append(made[: made.index("$", 20)])
        # Stands for the tenth of a second and the 64 MiB that a real one takes.
        threading.Event().wait(self.seconds)
        with self.lock:
            self.inside -= 1


def test_so_many_passwords_are_hashed_at_once_and_who_waits_too_long_is_asked_to_come_back(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_user(email=EMAIL)
    with set_otherwise(app, hashes_at_once=2, rate_login="100 per hour", rate_login_network="100 per hour") as site:
        hasher = Counted(seconds=0.4, passes=1, memory=8, lanes=1)
        monkeypatch.setattr(models, "_hasher", hasher)
        monkeypatch.setattr(models, "HASH_PATIENCE", 0.3)
        answers = at_once(site, *[lambda: try_in(site.test_client(), "a wrong password")] * 8)
        told = sorted(answer.status_code for answer in answers)
        assert hasher.most == 2 and set(told) == {422, 503} and 2 <= told.count(422) == len(hasher.done)
        busy = next(answer for answer in answers if answer.status_code == 503)
        assert busy.headers["Retry-After"] == "5" and "Please wait a few seconds, then send it again." in busy.text
        assert try_in(site.test_client()).status_code == 303, "and then it is anybody's turn again"


class Stopped(PasswordHasher):
    """Hashes nothing before it may go on."""

    go_on = threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - as argon2 calls it
        self.go_on.wait(30)
        raise VerifyMismatchError


def test_no_more_than_four_times_as_many_stand_in_line_and_the_others_are_told_at_once(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand log-ins at once keep no thread for longer than it takes to say so, but these."""
    a_user(email=EMAIL)
    hasher = Stopped()
    monkeypatch.setattr(models, "_hasher", hasher)
    monkeypatch.setattr(models, "HASH_PATIENCE", 30.0)
    with set_otherwise(app, hashes_at_once=1, rate_login="100 per hour", rate_login_network="100 per hour") as site:
        with ThreadPoolExecutor(9) as many:
            tries = [many.submit(try_in, site.test_client(), "a wrong password") for _ in range(9)]
            try:
                eventually(lambda: sum(one.done() for one in tries) == 5)
                assert [one.result().status_code for one in tries if one.done()] == [503] * 5
            finally:
                hasher.go_on.set()
        assert sorted(one.result().status_code for one in tries) == [422] * 4 + [503] * 5


def test_sixty_four_characters_may_be_chosen_and_so_may_1024_bytes_and_no_more(app: Flask) -> None:
    a_user(email=EMAIL)
    browser, old = logged_in(app, the_user(EMAIL)), PASSWORD
    for new in ("64 signs: " + "ab cd ef gh ij " * 3 + "and more.", "é1 ü2 " * 128):
        assert len(new) == 64 or len(new.encode()) == 1_024
        assert send(browser, "/account/password", password=old, new_password=new).status_code == 303
        assert try_in(app.test_client(), new).status_code == 303
        old = new
    answer = send(browser, "/account/password", password=old, new_password="é1 ü2 " * 128 + "x")
    assert summary(answer) == [("new_password", "Use a shorter password: this one takes more than 1,024 bytes.")]


# --- Row 11: how often somebody may try --------------------------------------------------------------------


def test_the_eleventh_try_is_told_when_to_come_back_by_account_by_address_and_by_network(app: Flask) -> None:
    a_user(email=EMAIL)

    def tries(count: int, email: str, address: str) -> list[int]:
        asked = [
            try_in(app.test_client(), "a wrong password", email.format(n), address.format(n)) for n in range(count)
        ]
        for answer in asked:
            if answer.status_code == 429:
                assert 300 < int(answer.headers["Retry-After"]) <= 901
                assert "set another password by letter" in summary(answer)[0][1]
        return [answer.status_code for answer in asked]

    # One account from many networks, many accounts from one address, many accounts from one network.
    assert tries(11, EMAIL, "198.51.{}.1") == [422] * 10 + [429]
    assert tries(11, "nobody-{}@example.org", "203.0.113.7") == [422] * 10 + [429]
    assert tries(51, "anybody-{}@example.org", "192.0.2.{}") == [422] * 50 + [429]
    # In IPv6 everybody has a whole /64.
    assert tries(11, "somebody-{}@example.org", "2001:db8:0:1::{}") == [422] * 10 + [429]
    assert try_in(app.test_client(), "a wrong password", "else@example.org", "2001:db8:0:2::1").status_code == 422


def test_a_browser_that_has_logged_in_before_is_not_locked_out_by_a_stranger_who_tries(app: Flask) -> None:
    a_user(email=EMAIL)
    a_user(email="other@example.org")
    known, stranger = app.test_client(), app.test_client()
    assert try_in(known).status_code == 303
    log_out(known)
    assert [try_in(stranger, "a wrong password").status_code for _ in range(10)][-2:] == [422, 429]
    assert try_in(stranger).status_code == 429, "the right password from elsewhere must wait"
    # The stranger sits in the same room, and has used up the tries of its address as well.
    assert try_in(known).status_code == 303
    log_out(known)
    # It has tries of its own, and no more than anybody; nor has it any for another account.
    assert [try_in(known, "a wrong password").status_code for _ in range(10)][-2:] == [422, 429]
    assert try_in(known, email="other@example.org").status_code == 429
    # A cookie that somebody else has made is none.
    forger = app.test_client()
    forger.set_cookie("known", str(known.get_cookie("known").value)[:-4] + "AAAA")  # type: ignore[union-attr]
    assert try_in(forger).status_code == 429


def test_a_letter_is_a_second_way_in_for_whom_a_stranger_has_locked_out(app: Flask) -> None:
    a_user(email=EMAIL)
    for number in range(10):
        try_in(app.test_client(), "a wrong password", address=f"198.51.{number}.1")
    browser = app.test_client()
    assert try_in(browser).status_code == 429
    browser.post("/forgotten-password", data={"email": EMAIL})
    assert browser.post(link_in_letter_to(EMAIL, "password-resets"), data={"password": CHOSEN}).status_code == 303
    assert try_in(browser, CHOSEN).status_code == 303
    assert try_in(app.test_client(), CHOSEN).status_code == 429, "elsewhere it is as before"


def test_a_stranger_who_has_every_letter_sent_has_left_a_link_that_works(app: Flask) -> None:
    """Letters for other things, of which none may ever be written, leave the owner's way back as it is."""

    def asked(where: str, times: int, network: str) -> list[int]:
        return [
            app.test_client().post(where, data={"email": EMAIL}, environ_overrides={"REMOTE_ADDR": network.format(n)})
            .status_code for n in range(times)
        ]  # fmt: skip

    with time_machine.travel(NOON, tick=False) as clock:
        a_user(email=EMAIL)
        assert asked("/pledges/find", 11, "198.51.{}.1") == [303] * 10 + [429]
        assert asked("/forgotten-password", 11, "203.0.{}.1") == [303] * 10 + [429]
        link = link_in_letter_to(EMAIL, "password-resets")
        # As long as the owner cannot ask for one.
        clock.shift(dt.timedelta(hours=1))
        owner = app.test_client()
        assert owner.post(link, data={"password": CHOSEN}).status_code == 303
        assert try_in(owner, CHOSEN).status_code == 303


def test_a_stranger_who_knows_the_password_cannot_use_up_the_codes_of_a_known_browser(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        phone, known, thief = Phone(a_user(email=EMAIL)), app.test_client(), app.test_client()
        type_password(known)
        known.post(CODE_PAGE, data={"code": phone.digits()}, headers=SAME_ORIGIN)
        log_out(known)
        assert type_password(thief).location == CODE_PAGE
        assert [thief.post(CODE_PAGE, data={"code": "000000"}).status_code for _ in range(10)][-2:] == [422, 429]
        clock.shift(dt.timedelta(seconds=30))
        type_password(known)
        assert known.post(CODE_PAGE, data={"code": phone.digits()}).status_code == 303


def test_no_reader_gets_the_cookie_of_a_known_browser(app: Flask, client: FlaskClient) -> None:
    a_user(email=EMAIL)
    for where, typed in (
        ("/login", {"email": EMAIL, "password": "a wrong password"}),
        ("/forgotten-password", {"email": EMAIL}), ("/pledges/find", {"email": EMAIL}),
    ):  # fmt: skip
        client.get(where)
        client.post(where, data=typed)
        assert client.get_cookie("known") is None


# --- Row 12: the same work for everybody -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "typed", "hashes"),
    [
        ("/login", {"password": "a wrong password"}, 1),
        ("/sign-up", {"password": CHOSEN, "name": "Ada Winter"}, 1),
        ("/forgotten-password", {}, 0),
        ("/pledges/find", {}, 0),
    ],
)
def test_a_known_and_an_unknown_address_get_the_same_answer_for_the_same_counted_work(
    app: Flask, monkeypatch: pytest.MonkeyPatch, where: str, typed: dict[str, str], hashes: int
) -> None:
    """Counted and not timed: what is hashed, each statement to the database, the letters that are owed and the rings to
    the worker, who alone finds out whether there is anything to write."""
    # With the full cost: the hash that unknown addresses are compared with was made so.
    hasher, rung, asked = Counted(), list[tuple[str, int | None]](), list[str]()
    monkeypatch.setattr(models, "_hasher", hasher)
    monkeypatch.setattr(queue, "put", lambda job, row_id: rung.append((job, row_id)))
    its_case, gone = a_case(), a_user(email="gone@example.org")
    gone.disabled_at = now()
    a_user(email="known@example.org")
    Phone(a_user("staff", email="phone@example.org"))
    its_case = db.session.merge(its_case)
    confirm(a_pledge(its_case.round, email="pledged@example.org"))
    its_case.take_comment("Ada Winter", "wrote@example.org", "Good luck.", now())
    SignUp.ask("signs-up@example.org", "Ada Winter", gone.password_hash, now())
    Invitation.send("invited@example.org", "owner", None, now())
    keep()
    people = ("nobody", "known", "gone", "phone", "pledged", "wrote", "signs-up", "invited")
    answers = {}
    with set_otherwise(app, sign_up="open", rate_login="100 per hour", rate_letter="100 per hour") as site:
        with site.app_context():
            sa.event.listen(db.engine, "before_cursor_execute", lambda _c, _cur, words, *_: asked.append(words))
        for name in people:
            owed = letters_owed()
            for noted in (hasher.done, rung, asked):
                noted.clear()
            answer = site.test_client().post(where, data={**typed, "email": f"{name}@example.org"})
            work = ([*hasher.done], [*rung], [" ".join(words.split()) for words in asked])
            text = answer.text.replace(f"{name}@example.org", "")
            answers[name] = (answer.status_code, answer.location, text, *work, letters_owed() - owed)
    status, _, _, hashed, rings, statements, letters = answers["nobody"]
    assert [name for name in people if answers[name] != answers["nobody"]] == []
    assert hashed == ["$argon2id$v=19$m=65536,t=3,p=4"] * hashes and len(statements) > 1
    assert (status, rings, letters) == ((422, [], 0) if where == "/login" else (303, [("send_letters", None)], 1))


def letters_owed() -> int:
    look_anew()
    return db.session.scalar(sa.select(sa.func.count(Letter.id))) or 0


# --- Row 17: what is asked for before an account is changed ------------------------------------------------


CHANGES = {
    "/account/password": {"new_password": CHOSEN},
    "/account/email": {"email": MOVED},
}


@pytest.mark.parametrize("where", sorted(CHANGES))
def test_password_and_address_are_changed_with_password_and_code_alone(app: Flask, where: str) -> None:
    with time_machine.travel(NOON, tick=False):
        phone = Phone(a_user(email=EMAIL))
        browser = logged_in(app, the_user(EMAIL))
        before, wrong = everything(), "This is not your password."
        for typed, mistakes in (
            ({"password": "a wrong password", "code": phone.digits()}, [("password", wrong)]),
            ({"password": PASSWORD, "code": "000000"}, ["code"]),
            ({"password": PASSWORD}, [("code", "Enter the six digits, or a recovery code.")]),
            ({"code": phone.digits()}, [("password", "Enter your password.")]),
        ):
            answer = send(browser, where, **CHANGES[where], **typed)
            told = summary(answer)
            assert answer.status_code == 422 and told[0][0] == (mistakes[0] if mistakes == ["code"] else mistakes[0][0])
            assert mistakes == ["code"] or told == mistakes
            assert not any(words in answer.text for words in (PASSWORD, CHOSEN, "a wrong password"))
        assert everything() == before
        answer = send(browser, where, **CHANGES[where], password=PASSWORD, code=phone.digits())
        assert (answer.status_code, answer.location) == (303, "/account")
        assert send(browser, where, **CHANGES[where], password=PASSWORD, code=phone.digits()).status_code == 422


def test_a_changed_password_is_told_by_letter_and_in_the_history(app: Flask) -> None:
    browser = logged_in(app, a_user(email=EMAIL, name="Ada Winter"))
    names = [str(field["name"]) for field in read(browser, "/account/password").select("main input")]
    assert names == ["form_token", "password", "new_password"]
    for typed, words in (
        ("short", "Use a password of at least 12 characters."), ("", "Enter a new password."),
        ("ada-winter-owner1", "This password is little more than your name, your address or the name of this site."),
    ):  # fmt: skip
        answer = send(browser, "/account/password", password=PASSWORD, new_password=typed)
        assert answer.status_code == 422 and summary(answer)[0][0] == "new_password" and words in summary(answer)[0][1]
    assert send(browser, "/account/password", password=PASSWORD, new_password=CHOSEN).status_code == 303
    assert "Your password is changed." in said(read(browser, "/account"), "main, [role=status]")
    assert [try_in(app.test_client(), one).status_code for one in (PASSWORD, CHOSEN)] == [422, 303]
    ((kind, letter),) = letters_to(EMAIL)
    assert kind == "password_changed" and "by somebody who was logged in and has typed the old one" in letter
    assert [(what, who) for what, who, *_ in history("user")] == [("password_changed", f"user:{the_user(EMAIL).id}")]


def test_another_address_is_used_once_its_reader_says_so_and_the_old_one_may_take_it_back(app: Flask) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        browser = logged_in(app, a_user(email=EMAIL))
        for typed, words in ((EMAIL.upper(), "This is your address already."), ("x@", "Enter an e-mail address in")):
            answer = send(browser, "/account/email", password=PASSWORD, email=typed)
            assert (
                answer.status_code == 422
                and words in summary(answer)[0][1]
                and f'value="{typed}"'.lower() in answer.text.lower()
            )
        assert send(browser, "/account/email", password=PASSWORD, email="Moved@Example.org").status_code == 303
        link, before = link_in_letter_to(MOVED, "email-changes"), everything()
        reader = app.test_client()
        for _ in range(2):  # As a mail scanner does.
            assert MOVED in said(read(reader, link), "main")
        assert everything() == before and the_user(EMAIL)
        clock.shift(dt.timedelta(minutes=1))
        assert reader.post(link).location == "/email-changes/done"
        assert reader.post(link).status_code == reader.get(link).status_code == 404
        assert read(reader, "/email-changes/done").h1
        assert [try_in(app.test_client(), email=one).status_code for one in (EMAIL, MOVED)] == [422, 303]
        assert browser.get("/account").status_code == 200

        (_, told), back = letters_to(EMAIL)[-1], link_in_letter_to(EMAIL, "email-changes/back")
        assert "Somebody who knows the password of your account" in told and MOVED not in told
        clock.shift(dt.timedelta(days=7))
        thief = logged_in(app, the_user(MOVED))
        before = everything()
        assert EMAIL in said(read(reader, back), "main") and everything() == before
        assert reader.post(back).location == "/email-changes/back/done"
        assert reader.post(back).status_code == 404 and read(reader, "/email-changes/back/done").h1
        # Whoever did it knew the password, and is out.
        assert [try_in(app.test_client(), email=one).status_code for one in (EMAIL, MOVED)] == [422, 422]
        assert thief.get("/account").status_code == 303
        assert reader.post(link_in_letter_to(EMAIL, "password-resets"), data={"password": CHOSEN}).status_code == 303
        assert try_in(reader, CHOSEN).status_code == 303
        assert events() == ["email_change_asked", "email_changed", "email_taken_back", "password_reset"]


def _asked_anew() -> None:
    EmailChange.ask(the_user(EMAIL), "third@example.org", now())


def _password_set() -> None:
    the_user(EMAIL).set_password(models.hash_password(CHOSEN), now() + dt.timedelta(seconds=1))


def _disabled() -> None:
    the_user(EMAIL).disable("She has left.", a_user("staff"), now())


def _taken() -> None:
    a_user(email=MOVED)


@pytest.mark.parametrize("happens", [_asked_anew, _password_set, _disabled, _taken, None])
def test_a_link_to_another_address_is_dead_after_a_day_and_once_something_newer_holds(
    app: Flask, client: FlaskClient, happens: Callable[[], None] | None
) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        send(logged_in(app, a_user(email=EMAIL)), "/account/email", password=PASSWORD, email=MOVED)
        link = link_in_letter_to(MOVED, "email-changes")
        clock.shift(dt.timedelta(days=1))
        assert client.get(link).status_code == 200
        if happens is None:
            clock.shift(dt.timedelta(seconds=1))
        else:
            happens()
            keep()
        before = everything()
        assert client.get(link).status_code == client.post(link).status_code == 404
        assert everything() == before
        # Of the two links that a change has, neither does what the other is for.
        assert client.get(link.replace("/email-changes/", "/email-changes/back/")).status_code == 404


def test_an_address_of_somebody_else_is_asked_for_with_the_same_answer_and_gets_no_letter(app: Flask) -> None:
    browser = logged_in(app, a_user(email=EMAIL))
    a_user(email="taken@example.org")
    pages = []
    for email in ("taken@example.org", "free@example.org"):
        assert send(browser, "/account/email", password=PASSWORD, email=email).location == "/account"
        shown = said(read(browser, "/account"), "main, [role=status]").replace(email, "")
        pages.append((shown, [kind for kind, _ in letters_to(email)]))
    assert pages == [(pages[0][0], []), (pages[0][0], ["new_email"])]


def test_an_address_that_two_take_up_at_once_is_given_to_one(app: Flask) -> None:
    people = [a_user(email=f"{name}@example.org") for name in ("ada", "zoe")]
    links = []
    for person in people:
        held = db.session.merge(person)
        links.append(EmailChange.ask(held, MOVED, now()).link("new-email"))
    keep()
    answers = at_once(app, *[
        lambda link=link: app.test_client().post(f"/email-changes/{link}").status_code for link in links
    ])  # fmt: skip
    assert answers.count(303) == 1 and set(answers) <= {303, 404, 409}
    look_anew()
    assert db.session.scalar(sa.select(sa.func.count(User.id)).where(User.email == MOVED)) == 1


def test_a_name_is_changed_and_noted(app: Flask) -> None:
    browser = logged_in(app, a_user(email=EMAIL, name="Ada Winter"))
    assert summary(send(browser, "/account/name", name=" ")) == [("name", "Enter your name.")]
    for _ in range(2):
        assert send(browser, "/account/name", name=" Ada Summer ").location == "/account"
    assert (the_user(EMAIL).name, events()) == ("Ada Summer", ["name_changed"])
    # Case owners say there who they are, too; whoever is not shown to the public is not asked.
    for _ in range(2):
        assert send(browser, "/account/name", name="Ada Summer", bio=" I run\r\nthe library. ").location == "/account"
    assert (the_user(EMAIL).bio, events()) == ("I run\nthe library.", ["name_changed", "bio_changed"])
    told = browser.get("/account").text
    assert "Your change is saved." in told and "Your name is changed." not in told
    assert summary(send(browser, "/account/name", name="Ada Summer", bio="x" * 1_001)) == [
        ("bio", "Use at most 1,000 characters.")
    ]
    other = logged_in(app, a_user("moderator", email=MOVED))
    assert "About you" not in other.get("/account/name").text
    send(other, "/account/name", name="Ben Summer", bio="Hidden words")
    assert (the_user(MOVED).name, "Hidden words" in the_user(MOVED).bio) == ("Ben Summer", False)


def test_letters_about_an_account_come_in_the_language_of_its_user(app: Flask) -> None:
    browser = logged_in(app, a_user(email=EMAIL))
    send(browser, "/account/language", language="fr")
    send(browser, "/account/email", password=PASSWORD, email=MOVED)
    app.test_client().post(link_in_letter_to(MOVED, "fr/email-changes"))
    send(browser, "/account/password", password=PASSWORD, new_password=CHOSEN)
    assert "Quelqu’un qui a un compte" in letters_to(MOVED)[0][1] and "a été changé" in letters_to(MOVED)[1][1]
    assert "une autre adresse e-mail" in letters_to(EMAIL)[-1][1]


# --- Row 18: nothing is left open --------------------------------------------------------------------------


def test_no_account_stands_there_from_the_beginning(app: Flask) -> None:
    assert everything()["users"] == []


def test_production_asks_moderators_and_staff_for_a_second_factor_whatever_is_set(app: Flask) -> None:
    production = app.config["STANDING"].model_copy(update={"environment": "production", "second_factor": "offered"})
    assert production.requires_second_factor
    for role in ("moderator", "staff"):
        a_user(role, email=f"{role}@example.org")
        browser = logged_in(app, the_user(f"{role}@example.org"))
        assert browser.get("/account").status_code == 200
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(app.config, "STANDING", production)
            assert browser.get("/account").location.startswith("/login")
            assert type_password(app.test_client(), f"{role}@example.org").location == "/login/new-second-factor"
