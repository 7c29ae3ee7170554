"""The second factor: what comes between the password and the desk, who must have one, and how it is lost and found."""

import base64
import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator

import pyotp
import pytest
import sqlalchemy as sa
import time_machine
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from cli import demo_codes, demo_last_words, reset_second_factor
from models import EmailChange, RecoveryCode, User, db
from tests.crowd import at_once
from tests.doorway import SAME_ORIGIN, Site, everything, logged_in, set_otherwise, token_on, words_of
from tests.made import PASSWORD, a_user, keep, look_anew, now
from tests.mailbox import letters_to, link_in_letter_to
from tests.reading import read, said
from tests.test_bad_forms import summary
from tests.test_commands import run
from tests.test_users import Desk, history, the_user

STEP = dt.timedelta(seconds=30)
CODE_PAGE, FIRST_SET_UP = "/login/second-factor", "/login/new-second-factor"
WRONG = "This is not right, or it was used already. Type the digits that your app shows now."
GUARDED = ("owners.", "moderators.", "staff.", "own_account.")
CHOSEN = "four words nothing ties"


class Phone:
    """Somebody's authenticator app and, on paper, the recovery codes."""

    def __init__(self, person: User, secret: str = "") -> None:
        self.email, self.secret = person.email, secret or pyotp.random_base32()
        look_anew()
        held = the_user(self.email)
        # The digits that it was set up with are of a step that is over.
        self.codes = held.set_second_factor(self.secret, self.digits(-2), now() - 2 * STEP)
        keep()

    def digits(self, later: int = 0) -> str:
        """What it shows now, or so many steps of 30 seconds later."""
        return pyotp.TOTP(self.secret).at(now(), counter_offset=later)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands in the middle of a step until somebody moves it."""
    middle = dt.datetime(2026, 11, 27, 12, 0, 15, tzinfo=dt.UTC)
    with time_machine.travel(middle, tick=False) as moved:
        yield moved


@pytest.fixture
def owner(app: Flask, clock: time_machine.Traveller) -> Phone:
    return Phone(a_user("owner", email="owner@example.org"))


def type_password(browser: FlaskClient, email: str = "owner@example.org", **more: str) -> TestResponse:
    return browser.post("/login", data={"email": email, "password": PASSWORD, **more})


def give(browser: FlaskClient, digits: str = "", recovery_code: str = "") -> TestResponse:
    return browser.post(CODE_PAGE, data={"code": digits, "recovery_code": recovery_code})


def log_in(app: Flask, digits: str = "", recovery_code: str = "") -> int:
    browser = app.test_client()
    assert type_password(browser).location == CODE_PAGE
    return give(browser, digits, recovery_code).status_code


# --- Two steps ---------------------------------------------------------------------------------------------


def test_after_the_password_come_six_digits_and_then_the_page_that_was_asked_for(
    app: Flask, client: FlaskClient, owner: Phone
) -> None:
    assert type_password(client, next="/account?a=1").location == CODE_PAGE
    page = read(client, CODE_PAGE)
    fields = {field["name"]: (field.get("autocomplete"), field.get("inputmode"))
              for field in page.select("main input")}  # fmt: skip
    assert fields == {"code": ("one-time-code", "numeric"), "recovery_code": (None, None)}
    for typed, words in (("", "Enter the six digits, or a recovery code."), ("123", WRONG), ("²²²²²²", WRONG)):
        answer = give(client, typed)
        assert (answer.status_code, summary(answer)) == (422, [("code", words)])
    assert client.get("/owner").status_code == 303
    answer = give(client, f" {owner.digits()[:3]} {owner.digits()[3:]} ")
    assert (answer.status_code, answer.location) == (303, "/account?a=1")
    assert client.get("/owner").status_code == 200
    assert client.get(CODE_PAGE).location == "/login" and client.get("/login").location == "/owner"


def test_a_half_log_in_opens_nothing_that_a_stranger_does_not_see(app: Flask) -> None:
    """Every address is asked by a stranger and by somebody of each role whose password was typed and nothing more."""
    site, halves = Site(app), {}
    for role in ("owner", "moderator", "staff"):
        Phone(a_user(role, email=f"half-{role}@example.org"))
        halves[role] = app.test_client()
        assert type_password(halves[role], f"half-{role}@example.org").location == CODE_PAGE
    asked = Counter[str]()
    for rule, method in site.rules():
        # What anybody may post is done for a stranger, so it cannot be asked for twice.
        if rule.endpoint == "accounts.second_factor" or (method == "POST" and not rule.endpoint.startswith(GUARDED)):
            continue
        stranger = site.ask(app.test_client(), rule, method, SAME_ORIGIN)
        for role, browser in halves.items():
            half = site.ask(browser, rule, method, SAME_ORIGIN)
            assert (half.status_code, half.location) == (stranger.status_code, stranger.location), f"{role} at {rule}"
            assert "Log out" not in words_of(half), f"{role} at {rule}"
            asked[method] += 1
    assert asked["GET"] > 250 and asked["POST"] > 150


def test_a_half_log_in_lasts_ten_minutes_and_is_told_so(
    client: FlaskClient, owner: Phone, clock: time_machine.Traveller
) -> None:
    type_password(client, next="/account")
    clock.shift(dt.timedelta(minutes=10))
    assert client.get(CODE_PAGE).status_code == 200
    clock.shift(dt.timedelta(seconds=1))
    assert client.get(CODE_PAGE).location == "/login"
    answer = give(client, owner.digits())
    assert answer.status_code == 422
    words = "More than ten minutes have passed since your password, or this page was used already. Log in once more."
    assert summary(answer) == [("password", words)]
    assert 'value="/account"' in answer.text
    assert client.get("/owner").status_code == 303


def test_a_half_log_in_ends_with_every_other_one(client: FlaskClient, owner: Phone) -> None:
    type_password(client)
    the_user(owner.email).end_sessions(now())
    keep()
    assert client.get(CODE_PAGE).location == "/login"
    assert give(client, owner.digits()).status_code == 422
    assert client.get("/owner").status_code == 303


# --- What is taken, and how often --------------------------------------------------------------------------


def test_digits_are_taken_once(app: Flask, owner: Phone) -> None:
    assert [log_in(app, owner.digits()) for _ in range(2)] == [303, 422]


def test_digits_of_an_earlier_step_than_the_last_are_not_taken(app: Flask, owner: Phone) -> None:
    assert [log_in(app, owner.digits(later)) for later in (1, 0, -1)] == [303, 422, 422]


@pytest.mark.parametrize(("later", "status"), [(-2, 422), (-1, 303), (0, 303), (1, 303), (2, 422)])
def test_a_clock_may_be_wrong_by_one_step(app: Flask, owner: Phone, later: int, status: int) -> None:
    assert log_in(app, owner.digits(later)) == status


def test_digits_that_are_sent_many_times_at_once_let_one_in(app: Flask, owner: Phone) -> None:
    browsers = [app.test_client() for _ in range(4)]
    for browser in browsers:
        type_password(browser)
    digits = owner.digits()
    answers = at_once(app, *[lambda browser=browser: give(browser, digits).status_code for browser in browsers])
    assert sorted(answers) == [303, 422, 422, 422]


def test_a_recovery_code_lets_in_once_is_kept_as_a_hash_and_is_told_by_letter(
    app: Flask, owner: Phone, clock: time_machine.Traveller
) -> None:
    assert len(set(owner.codes)) == 10
    assert all(re.fullmatch("[a-z2-7]{4}(-[a-z2-7]{4}){3}", code) for code in owner.codes)
    in_the_books = repr(everything())
    assert [code for code in owner.codes if code in in_the_books or code.replace("-", "") in in_the_books] == []
    first, second = owner.codes[:2]
    assert log_in(app, recovery_code=f" {first.upper().replace('-', ' ')} ") == 303
    clock.shift(STEP)
    assert log_in(app, recovery_code=first) == 422
    assert log_in(app, recovery_code=second) == 303
    assert the_user(owner.email).recovery_codes_left() == 8
    assert [what for what, *_ in history("user")][1:] == ["second_factor_recovery_code_used"] * 2
    letters = [letter for kind, letter in letters_to(owner.email) if kind == "second_factor"]
    assert ["One of the recovery codes of your account" in letter for letter in letters] == [False, True, True]


def test_another_users_codes_let_nobody_in(app: Flask, owner: Phone) -> None:
    other = Phone(a_user("owner", email="other@example.org"))
    assert log_in(app, other.digits()) == log_in(app, recovery_code=other.codes[0]) == 422
    assert the_user("other@example.org").recovery_codes_left() == 10


def test_wrong_codes_are_counted_for_the_account_and_its_owner_is_told_once(
    app: Flask, owner: Phone, clock: time_machine.Traveller
) -> None:
    with set_otherwise(app, rate_login="3 per 15 minutes") as site:
        thief = site.test_client()
        type_password(thief)

        def tried(number: int, digits: str = "000000") -> TestResponse:
            where = {"REMOTE_ADDR": f"192.0.2.{number}"}
            return thief.post(CODE_PAGE, data={"code": digits}, environ_overrides=where)

        assert [tried(number).status_code for number in range(3)] == [422] * 3
        for number in (4, 5):
            refused = tried(number, owner.digits())
            assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
            assert summary(refused) == [("code", "Too many tries. Please wait a quarter of an hour, then try again.")]
        told = [letter for kind, letter in letters_to(owner.email) if "Nobody got in." in letter]
        assert len(told) == 1 and "somebody typed your password" in told[0]
        # Nobody is locked out for ever.
        clock.shift(dt.timedelta(minutes=15, seconds=1))
        browser = site.test_client()
        type_password(browser)
        assert give(browser, owner.digits()).status_code == 303


# --- Setting it up -----------------------------------------------------------------------------------------


def shown_secret(browser: FlaskClient, where: str = "/account/second-factor") -> tuple[str, str]:
    """(the secret in words, what the form sends back) of a page that offers one."""
    page = read(browser, where)
    offer = page.select_one("input[name=offer]")
    assert offer and page.select_one("[role=img][aria-label] > svg.qr path") and "data:" not in str(page)
    return said(page, ".secret").replace(" ", ""), str(offer["value"])


def set_up(browser: FlaskClient, offer: str, digits: str, **typed: str) -> TestResponse:
    sent = {"form_token": token_on(browser, "/account"), "offer": offer, "new_code": digits, "password": PASSWORD}
    return browser.post("/account/second-factor", data=sent | typed)


def codes_on(answer: TestResponse) -> list[str]:
    return re.findall(r"<li>([a-z2-7-]{19})</li>", answer.text)


def test_an_owner_sets_it_up_with_password_and_digits_and_other_log_ins_end(
    app: Flask, clock: time_machine.Traveller
) -> None:
    person = a_user("owner", email="owner@example.org")
    browser, elsewhere = logged_in(app, person), logged_in(app, person)
    assert "Set up a second factor" in said(read(browser, "/account"), "main")
    (secret, offer), before = shown_secret(browser), everything()
    assert len(secret) == 32 and shown_secret(browser)[0] != secret, "a new one for each page, which keeps nothing"
    app_of = pyotp.TOTP(secret)
    answer = set_up(browser, offer, app_of.now(), password="a wrong password")
    assert (answer.status_code, summary(answer)) == (422, [("password", "This is not your password.")])
    answer = set_up(browser, offer, app_of.at(now(), counter_offset=5))
    assert answer.status_code == 422 and "These are not the digits for this secret." in summary(answer)[0][1]
    page = BeautifulSoup(answer.text, "html5lib")
    assert said(page, ".secret").replace(" ", "") == secret, "the app need not read another picture"
    answer = set_up(browser, offer, "", password="")
    assert [name for name, _ in summary(answer)] == ["password", "new_code"]
    assert everything() == before

    answer = set_up(browser, offer, app_of.now())
    codes = codes_on(answer)
    assert answer.status_code == 200 and len(codes) == 10 and answer.headers["Cache-Control"] == "no-store"
    assert browser.get("/owner").status_code == 200 and elsewhere.get("/owner").status_code == 303
    assert "Recovery codes that you have left: 10." in said(read(browser, "/account"), "main")
    assert not any(code in browser.get("/account").text for code in codes)
    assert log_in(app, app_of.now()) == 422, "the digits of the set-up are taken"
    assert log_in(app, app_of.at(now(), counter_offset=1)) == log_in(app, recovery_code=codes[9]) == 303
    assert [kind for kind, _ in letters_to("owner@example.org")] == ["second_factor"] * 2
    assert [what for what, *_ in history("user")] == ["second_factor_set_up", "second_factor_recovery_code_used"]


def test_only_a_secret_that_this_page_has_shown_to_this_user_within_an_hour_is_set_up(
    app: Flask, clock: time_machine.Traveller
) -> None:
    browser = logged_in(app, a_user("owner", email="owner@example.org"))
    theirs, offered_to_another = shown_secret(logged_in(app, a_user("owner")))
    mine, offer = shown_secret(browser)
    chosen = base64.b64encode(b'[1,"' + b"A" * 32 + b'"]').decode()
    for secret, sent in ((theirs, offered_to_another), ("A" * 32, f"{chosen}.x.y"), (mine, ""), (mine, offer + "x")):
        answer = set_up(browser, sent, pyotp.TOTP(secret).now())
        assert answer.status_code == 422 and "This page was too old." in summary(answer)[0][1]
    clock.shift(dt.timedelta(seconds=3_601))
    assert set_up(browser, offer, pyotp.TOTP(mine).now()).status_code == 422
    assert the_user("owner@example.org").second_factor_at is None


def test_the_recovery_codes_are_saved_as_a_file_while_they_work_and_nothing_else_is(app: Flask, owner: Phone) -> None:
    browser = logged_in(app, the_user(owner.email))

    def ask(words: str) -> TestResponse:
        sent = {"form_token": token_on(browser, "/account"), "codes": words}
        return browser.post("/account/recovery-codes/file", data=sent)

    answer = ask(" ".join(owner.codes))
    assert answer.mimetype == "text/plain" and answer.headers["Content-Disposition"].startswith("attachment;")
    assert answer.text.splitlines() == [
        "Recovery codes for owner@example.org at http://127.0.0.1:8000", "Each works once.", "", *owner.codes,
    ]  # fmt: skip
    for words in ("", "<script>", " ".join([*owner.codes, "abcd-efgh-ijkl-mnop"])):
        assert ask(words).status_code == 409


def own(browser: FlaskClient, where: str, **typed: str) -> TestResponse:
    sent = {"form_token": token_on(browser, "/account"), "password": PASSWORD, **typed}
    return browser.post(f"/account{where}", data=sent)


def test_new_recovery_codes_end_the_old_and_need_password_and_code(app: Flask, owner: Phone) -> None:
    browser, before = logged_in(app, the_user(owner.email)), everything()
    for typed, mistakes in (
        ({"password": "a wrong password", "code": owner.digits()}, [("password", "This is not your password.")]),
        ({"code": "000000"}, [("code", WRONG)]),
        ({"recovery_code": "abcd-efgh-ijkl-mnop"}, [("recovery_code", WRONG)]),
        ({}, [("code", "Enter the six digits, or a recovery code.")]),
    ):
        answer = own(browser, "/recovery-codes", **typed)
        assert (answer.status_code, summary(answer)) == (422, mistakes)
    assert everything() == before
    answer = own(browser, "/recovery-codes", code=owner.digits())
    new = codes_on(answer)
    assert answer.status_code == 200 and len(new) == 10 and not {*new} & {*owner.codes}
    assert "The old ones no longer work." in letters_to(owner.email)[-1][1]
    assert log_in(app, recovery_code=owner.codes[0]) == 422
    assert log_in(app, recovery_code=new[0]) == 303


def test_an_owner_turns_it_off_and_the_password_alone_lets_in(app: Flask, owner: Phone) -> None:
    browser, elsewhere = (logged_in(app, the_user(owner.email)) for _ in range(2))
    assert own(browser, "/second-factor/end", code="000000").status_code == 422
    assert own(browser, "/second-factor/end", recovery_code=owner.codes[0]).location == "/account"
    assert "Your password alone lets you in." in said(read(browser, "/account"), "main")
    assert "was turned off on Friday 27 November 2026" in letters_to(owner.email)[-1][1]
    assert elsewhere.get("/owner").status_code == 303
    assert type_password(app.test_client()).location == "/owner"
    assert db.session.scalars(sa.select(RecoveryCode)).all() == []
    assert the_user(owner.email).second_factor_secret == ""
    assert own(browser, "/recovery-codes").status_code == own(browser, "/second-factor/end").status_code == 409


@pytest.mark.parametrize("role", ["moderator", "staff"])
def test_moderators_and_staff_keep_theirs_but_may_put_another_in_its_place(
    app: Flask, clock: time_machine.Traveller, role: str
) -> None:
    phone = Phone(a_user(role, email="owner@example.org"))
    browser = logged_in(app, the_user(phone.email))
    assert "off" not in [said(button).rpartition(" ")[2] for button in read(browser, "/account").select("button")]
    refused = own(browser, "/second-factor/end", code=phone.digits())
    assert refused.status_code == 409 and "Moderators and staff keep their second factor." in refused.text
    secret, offer = shown_secret(browser)
    digits = pyotp.TOTP(secret).now()
    for typed in ({}, {"code": "000000"}):
        assert set_up(browser, offer, digits, **typed).status_code == 422
    wrong = set_up(browser, offer, "000000", code=phone.digits())
    assert wrong.status_code == 422 and summary(wrong)[0][0] == "new_code"
    # The digits of the old one were right, so they are still good.
    assert len(codes_on(set_up(browser, offer, digits, code=phone.digits()))) == 10
    assert log_in(app, phone.digits(1)) == log_in(app, recovery_code=phone.codes[0]) == 422
    assert log_in(app, pyotp.TOTP(secret).at(now(), counter_offset=1)) == 303
    assert [what for what, *_ in history("user")] == ["second_factor_set_up", "second_factor_replaced"]
    assert "was replaced by another one" in letters_to(phone.email)[-1][1]


# --- Where it is required ----------------------------------------------------------------------------------


@pytest.fixture
def required(app: Flask) -> Iterator[Flask]:
    """The site as it is in production, where moderators and staff must have one."""
    with set_otherwise(app, second_factor="required") as site:
        yield site


@pytest.mark.parametrize(("role", "desk"), [("moderator", "/moderation"), ("staff", "/staff")])
def test_who_must_have_one_reaches_only_the_set_up_page_until_it_is_set_up(
    required: Flask, clock: time_machine.Traveller, role: str, desk: str
) -> None:
    a_user(role, email="owner@example.org")
    browser = required.test_client()
    assert type_password(browser).location == FIRST_SET_UP
    assert browser.get(desk).location.startswith("/login") and browser.get("/account").location.startswith("/login")
    assert browser.get(CODE_PAGE).location == "/login"
    assert give(browser, "000000").status_code == 422
    secret, offer = shown_secret(browser, FIRST_SET_UP)
    names = [str(field["name"]) for field in read(browser, FIRST_SET_UP).select("main input")]
    assert names == ["offer", "new_code"], "the password was typed a moment ago"
    for digits, sent in (("000000", offer), (pyotp.TOTP(secret).now(), "x")):
        assert browser.post(FIRST_SET_UP, data={"offer": sent, "new_code": digits}).status_code == 422
    assert browser.get(desk).status_code == 303
    answer = browser.post(FIRST_SET_UP, data={"offer": offer, "new_code": pyotp.TOTP(secret).now()})
    assert len(codes_on(answer)) == 10
    assert browser.get(desk).status_code == 200
    # From then on it is asked for, and this page sets up no other.
    again = required.test_client()
    assert type_password(again).location == CODE_PAGE
    assert again.get(FIRST_SET_UP).location == "/login"
    assert again.post(FIRST_SET_UP, data={"offer": offer, "new_code": pyotp.TOTP(secret).now()}).status_code == 422
    assert give(again, pyotp.TOTP(secret).at(now(), counter_offset=1)).location == desk


@pytest.mark.parametrize("role", ["moderator", "staff"])
def test_a_log_in_of_before_it_was_required_is_nobodys_at_every_address(app: Flask, required: Flask, role: str) -> None:
    site = Site(app)
    browser = logged_in(required, {"moderator": site.moderator, "staff": site.staff}[role])
    before, seen = everything(), 0
    for rule, method in site.rules():
        if rule.endpoint.startswith(GUARDED):
            answer = site.ask(browser, rule, method, SAME_ORIGIN)
            assert answer.status_code == 303 and answer.location.startswith("/login"), f"{method} {rule}"
            seen += 1
    assert everything() == before and seen > 90
    assert logged_in(required, site.owner).get("/owner").status_code == 200, "owners may have one, and need not"


def test_who_is_invited_as_a_moderator_sets_it_up_before_anything_else(required: Flask) -> None:
    desk = Desk(required)
    assert type_password(required.test_client(), "staff@example.org").location == FIRST_SET_UP
    Phone(desk.person)
    desk.browser = logged_in(required, the_user("staff@example.org"))
    desk.invite("new@example.org", "moderator")
    browser = required.test_client()
    link = link_in_letter_to("new@example.org", "invitations")
    assert browser.post(link, data={"name": "Nia", "password": CHOSEN}).location == FIRST_SET_UP
    assert browser.get("/moderation").status_code == 303


# --- No way around it --------------------------------------------------------------------------------------


def test_another_password_by_letter_is_no_way_around_it(app: Flask, client: FlaskClient, owner: Phone) -> None:
    client.post("/forgotten-password", data={"email": owner.email})
    link = link_in_letter_to(owner.email, "password-resets")
    assert client.post(link, data={"password": CHOSEN}).status_code == 303
    assert client.get("/owner").status_code == 303
    answer = client.post("/login", data={"email": owner.email, "password": CHOSEN})
    assert answer.location == CODE_PAGE and client.get("/owner").status_code == 303
    assert give(client, owner.digits()).location == "/owner"


@pytest.mark.parametrize(("hours", "goes"), [(25, False), (23, True), (-1, True)])
def test_what_a_thief_has_set_up_goes_with_the_address_and_what_the_owner_had_stays(
    app: Flask, client: FlaskClient, clock: time_machine.Traveller, hours: int, goes: bool
) -> None:
    """It was set so many hours before the other address was asked for."""
    person = a_user("owner", email="owner@example.org")
    phone = Phone(person) if hours > 0 else None
    clock.shift(dt.timedelta(hours=max(hours, 0)))
    look_anew()
    change = EmailChange.ask(the_user(person.email), "thief@example.org", now())
    change.make(now())
    back = f"/email-changes/back/{change.link('old-email')}"
    keep()
    clock.shift(dt.timedelta(hours=1))
    phone = phone or Phone(the_user("thief@example.org"))
    assert client.post(back).status_code == 303
    keep()
    reset = link_in_letter_to("owner@example.org", "password-resets")
    assert client.post(reset, data={"password": CHOSEN}).status_code == 303
    clock.shift(dt.timedelta(minutes=1))
    again = app.test_client().post("/login", data={"email": "owner@example.org", "password": CHOSEN})
    assert (again.status_code, again.location == CODE_PAGE) == (303, not goes)
    look_anew()
    held = the_user("owner@example.org")
    assert (held.second_factor_at is None, held.recovery_codes_left()) == ((True, 0) if goes else (False, 10))
    told = [words for kind, words in letters_to("owner@example.org") if kind == "second_factor"]
    assert any("turned off" in words for words in told) is goes


def test_another_role_is_no_way_around_it(app: Flask, owner: Phone, required: Flask) -> None:
    desk = Desk(app)
    browser = logged_in(app, the_user(owner.email))
    number = the_user(owner.email).id
    desk.send(f"/users/{number}/role", role_role="moderator", role_reason="She joins us.")
    assert browser.get("/moderation").status_code == 303
    assert type_password(browser).location == CODE_PAGE
    without = a_user("owner", email="without@example.org").id
    desk.send(f"/users/{without}/role", role_role="moderator", role_reason="He joins us.")
    assert type_password(required.test_client(), "without@example.org").location == FIRST_SET_UP


def test_staff_reset_anothers_with_a_reason_which_is_told_and_ends_every_log_in(app: Flask, owner: Phone) -> None:
    desk, theirs = Desk(app), logged_in(app, the_user(owner.email))
    number, where = the_user(owner.email).id, "[aria-labelledby=factor-heading]"
    half = app.test_client()
    type_password(half)
    without = desk.send(f"/users/{number}/second-factor/end", factor_reason=" ")
    assert (without.status_code, summary(without)) == (422, [("factor-reason", "Enter a reason.")])
    assert "Set up Friday 27 November 2026" in said(read(desk.browser, f"/staff/users/{number}"), where)
    for _ in range(2):
        sent = desk.send(f"/users/{number}/second-factor/end", factor_reason="She came with her passport.")
        assert sent.location == f"/staff/users/{number}"
    assert said(read(desk.browser, f"/staff/users/{number}"), where) == "Second factor There is none."
    assert theirs.get("/owner").status_code == 303 and half.get(CODE_PAGE).location == "/login"
    assert type_password(app.test_client()).location == "/owner"
    assert history("user")[1:] == [
        ("second_factor_reset", f"user:{desk.number}", None, None, "She came with her passport."),
    ]  # fmt: skip
    told = [letter for _, letter in letters_to(owner.email)]
    assert len(told) == 2 and "Our staff reset the second factor" in told[1] and "passport" not in told[1]


def test_nobody_of_staff_resets_their_own_but_the_operator_does(app: Flask) -> None:
    desk = Desk(app)
    Phone(desk.person)
    desk.browser = logged_in(app, the_user("staff@example.org"))
    before = everything()
    answer = desk.send(f"/users/{desk.number}/second-factor/end", factor_reason="I have lost it.")
    assert answer.status_code == 409 and "resets their own second factor" in answer.text
    assert everything() == before
    code, printed = run(app, reset_second_factor, "--reason", "The last of staff.", "Staff@Example.org")
    assert code == 0 and "Staff@Example.org has no second factor any more, and is told so by letter." in printed
    assert the_user("staff@example.org").second_factor_at is None
    assert history("user")[-1] == ("second_factor_reset", "operator", None, None, "The last of staff.")
    code, printed = run(app, reset_second_factor, "--reason", "Again.", "staff@example.org")
    assert code == 1 and "There is no user staff@example.org with a second factor." in printed


def test_in_development_a_command_prints_what_each_app_would_show(
    app: Flask, owner: Phone, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_user("moderator", "nothing-set-up@example.org")
    keep()
    code, printed = run(app, demo_codes)
    assert (code, printed) == (0, f"{owner.digits()}  {owner.email}\n")
    production = app.config["STANDING"].model_copy(update={"environment": "production"})
    monkeypatch.setitem(app.config, "STANDING", production)
    for command in (demo_codes, demo_last_words):
        code, printed = run(app, command)
        assert code == 1 and owner.digits() not in printed
