"""Back into an account whose password was forgotten: what a stranger finds out, and when a link is dead."""

import datetime as dt
import re
from collections.abc import Callable

import pytest
import sqlalchemy as sa
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from models import Event, PasswordReset, User, db, hash_password
from tests.crowd import at_once, in_another_thread, meet_after
from tests.doorway import Site, everything, logged_in, set_otherwise
from tests.made import PASSWORD, a_user, keep, look_anew, now
from tests.mailbox import letters_to, link_in_letter_to
from tests.test_bad_forms import summary
from views import admissions

CHOSEN = "four words nothing ties"


def ask(client: FlaskClient, email: str = "owner@example.org") -> None:
    assert client.post("/forgotten-password", data={"email": email}).status_code == 303


def a_link(client: FlaskClient, email: str = "owner@example.org") -> str:
    ask(client, email)
    return link_in_letter_to(email, "password-resets")


def log_in(app: Flask, password: str, email: str = "owner@example.org") -> int:
    return app.test_client().post("/login", data={"email": email, "password": password}).status_code


def the_user(email: str = "owner@example.org") -> User:
    look_anew()
    return db.session.scalars(sa.select(User).where(User.email == email)).one()


def test_a_forgotten_password_is_replaced_by_a_link_that_works_once_and_everybody_is_logged_out(
    app: Flask, client: FlaskClient
) -> None:
    owner = a_user("owner", email="owner@example.org")
    thief = logged_in(app, owner)
    assert thief.get("/owner").status_code == 200
    link = a_link(client)
    before = everything()
    for _ in range(2):  # As a mail scanner does.
        page = client.get(link)
        assert page.status_code == 200 and "Set this password" in page.text
    assert everything() == before

    answer = client.post(link, data={"password": CHOSEN})
    assert (answer.status_code, answer.location) == (303, "/password-resets/done")
    assert "Your password is changed" in client.get("/password-resets/done").text
    # Nobody is logged in by it, and nobody still is.
    assert client.get("/owner").status_code == thief.get("/owner").status_code == 303
    assert (log_in(app, PASSWORD), log_in(app, CHOSEN)) == (422, 303)
    for again in (client.get(link), client.post(link, data={"password": "another four words"})):
        assert again.status_code == 404 and "This link works no more" in again.text
    assert log_in(app, CHOSEN) == 303
    assert [kind for kind, _ in letters_to("owner@example.org")] == ["password_reset", "password_changed"]
    look_anew()
    (event,) = db.session.scalars(sa.select(Event))
    assert (event.subject_kind, event.what, event.who) == ("user", "password_reset", f"user:{the_user().id}")


def test_asking_is_answered_alike_with_the_same_work_whoever_has_an_account(app: Flask, client: FlaskClient) -> None:
    a_user("owner", email="owner@example.org")
    a_user("owner", email="gone@example.org").disabled_at = now()
    keep()
    seen: list[str] = []
    sa.event.listen(db.engine, "before_cursor_execute", lambda _c, _cur, words, *_: seen.append(words))
    answers = []
    for email in ("owner@example.org", "nobody@example.org", "gone@example.org", "OWNER@example.org"):
        seen.clear()
        sent = client.post("/forgotten-password", data={"email": email})
        asked = [re.sub(r"\s+", " ", words) for words in seen]
        shown = client.get(sent.location)
        answers.append((sent.status_code, sent.location, sent.text, {*sent.headers.keys()}, shown.text, asked))
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert answers[0][:2] == (303, "/forgotten-password/sent") and any("INSERT" in words for words in answers[0][5])
    assert letters_to("nobody@example.org") == letters_to("gone@example.org") == []
    # The second letter to her was asked for before the first was written, so the first has nothing to say.
    assert [kind for kind, _ in letters_to("owner@example.org")] == ["password_reset"]


def test_a_link_works_for_an_hour(app: Flask, client: FlaskClient) -> None:
    with time_machine.travel(now(), tick=False) as clock:
        a_user("owner", email="owner@example.org")
        link = a_link(client)
        clock.shift(dt.timedelta(minutes=60))
        assert client.get(link).status_code == 200
        clock.shift(dt.timedelta(seconds=1))
        assert client.get(link).status_code == client.post(link, data={"password": CHOSEN}).status_code == 404
    assert log_in(app, PASSWORD) == 303


@pytest.mark.parametrize(("late", "sent"), [(0, ["password_reset"]), (1, [])])
def test_a_letter_that_could_not_go_out_within_the_hour_is_not_sent(
    app: Flask, client: FlaskClient, late: int, sent: list[str]
) -> None:
    with time_machine.travel(now(), tick=False) as clock:
        a_user("owner", email="owner@example.org")
        ask(client)
        clock.shift(dt.timedelta(minutes=60, seconds=late))
        assert [kind for kind, _ in letters_to("owner@example.org")] == sent


def _asked_anew() -> None:
    PasswordReset.ask("owner@example.org", now())


def _password_set() -> None:
    the_user().set_password(hash_password("a third of four words"), now())


def _address_changed() -> None:
    the_user().email = "elsewhere@example.org"


def _disabled() -> None:
    the_user().disable("She has left.", a_user("staff"), now())


@pytest.mark.parametrize("happens", [_asked_anew, _password_set, _address_changed, _disabled])
def test_a_link_is_dead_once_something_newer_holds(
    app: Flask, client: FlaskClient, happens: Callable[[], None]
) -> None:
    a_user("owner", email="owner@example.org")
    link = a_link(client)
    assert client.get(link).status_code == 200
    happens()
    keep()
    before = everything()
    assert client.get(link).status_code == client.post(link, data={"password": CHOSEN}).status_code == 404
    assert everything() == before


def test_a_link_that_is_used_many_times_at_once_sets_one_password(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_user("owner", email="owner@example.org")
    link = a_link(client)
    meet_after(monkeypatch, admissions, "hash_password", 4)

    def use(number: int) -> tuple[int, int]:
        password = f"four words, number {number}"
        return number, app.test_client().post(link, data={"password": password}).status_code

    answers = at_once(app, *[lambda number=number: use(number) for number in range(4)])
    assert sorted(status for _, status in answers) == [303, 409, 409, 409]
    worked = [number for number, _ in answers if log_in(app, f"four words, number {number}") == 303]
    assert worked == [number for number, status in answers if status == 303]
    assert [kind for kind, _ in letters_to("owner@example.org")].count("password_changed") == 1


def test_who_logs_in_with_the_old_password_in_the_moment_of_a_reset_stays_out(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_user("owner", email="owner@example.org")
    link = a_link(client)
    true_check = User.authenticate

    def slowly(email: str, password: str) -> User | None:
        found = true_check(email, password)
        if found is not None and password == PASSWORD:
            assert found.get_id()
            in_another_thread(app, lambda: app.test_client().post(link, data={"password": CHOSEN}))
        return found

    monkeypatch.setattr(User, "authenticate", slowly)
    thief = app.test_client()
    answer = thief.post("/login", data={"email": "owner@example.org", "password": PASSWORD})
    assert answer.status_code == 422 and "The e-mail address or the password is not right." in answer.text
    assert thief.get("/owner").status_code == 303
    assert log_in(app, CHOSEN) == 303


def test_each_link_opens_what_it_is_for_and_nothing_else(app: Flask, client: FlaskClient) -> None:
    with set_otherwise(app, sign_up="open") as site:
        links = Site(app).links
        browser = site.test_client()
        before = everything()
        rooms = {"sign-up": "sign-up", "invitations": "invitation", "password-resets": "password-reset",
                 "email-changes": "new-email", "email-changes/back": "old-email"}  # fmt: skip
        for room, purpose in rooms.items():
            for other, link in links.items():
                expected = 200 if other == purpose else 404
                assert browser.get(f"/{room}/{link}").status_code == expected, f"{other} at {room}"
                if other != purpose:
                    sent = browser.post(f"/{room}/{link}", data={"name": "Ada", "password": CHOSEN})
                    assert sent.status_code == 404, f"{other} at {room}"
            whole = links[purpose]
            altered = whole[:-2] + ("A" if whole[-2] != "A" else "B") + whole[-1]
            for wrong in (altered, whole[:-1], whole.partition(".")[0], "x.y"):
                assert browser.get(f"/{room}/{wrong}").status_code == 404, wrong
        assert everything() == before


@pytest.mark.parametrize(
    ("typed", "words"),
    [("", "Enter your e-mail address."), ("ada@", "Enter an e-mail address in the form name@example.com.")],
)
def test_what_is_no_address_is_told_so_and_nothing_is_asked(client: FlaskClient, typed: str, words: str) -> None:
    before = everything()
    answer = client.post("/forgotten-password", data={"email": typed})
    assert answer.status_code == 422 and summary(answer) == [("email", words)] and f'value="{typed}"' in answer.text
    assert everything() == before


def test_a_weak_password_is_told_so_and_the_link_still_works(app: Flask, client: FlaskClient) -> None:
    a_user("owner", email="owner@example.org")
    link = a_link(client)
    before = everything()
    for typed, words in (
        ("", "Enter a password."),
        ("elevenchars", "Use a password of at least 12 characters."),
        ("owner-example1", "This password is little more than your name, your address or the name of this site."),
        ("1qaz2wsx3edc4rfv", "This password is among the first that somebody would try."),
    ):
        answer = client.post(link, data={"password": typed})
        assert answer.status_code == 422 and words in summary(answer)[0][1]
        assert not typed or typed not in answer.text
    assert everything() == before
    assert client.post(link, data={"password": CHOSEN}).status_code == 303


def test_a_password_is_not_shown_by_the_page_that_gives_back_what_was_typed(app: Flask) -> None:
    """A text browser whose page is of an earlier log-in: what was typed comes back, but no password."""
    browser = logged_in(app, a_user("owner"))
    for where in ("/login", "/forgotten-password"):
        typed = {"email": "owner@example.org", "password": "typed in the clear"}
        answer = browser.post(where, data=typed)
        assert answer.status_code == 403 and "owner@example.org" in answer.text
        assert "typed in the clear" not in answer.text
