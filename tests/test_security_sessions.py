"""Log-ins: what their cookies are, how long they last, what ends them, and what their owner sees of them.

The other rows of the list in docs/security.md are shown where that list says.
"""

import datetime as dt
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
import time_machine
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from flask_login import COOKIE_NAME, encode_cookie

from bench import pages
from models import Event, UserSession, db
from tests.doorway import SAME_ORIGIN, Site, a_log_in, everything, logged_in, set_otherwise, token_on
from tests.made import PASSWORD, a_case, a_user, keep, look_anew, now
from tests.mailbox import letters_to, link_in_letter_to
from tests.reading import read, said
from tests.test_second_factors import Phone, give, shown_secret, type_password
from tests.test_users import Desk, the_user
from views import visitors

CHOSEN = "four words nothing ties"
EMAIL, HTTPS = "owner@example.org", "https://standing.example"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 Version/19.1 Mobile Safari/604.1"


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    """A clock that stands in the middle of a step of 30 seconds until somebody moves it."""
    with time_machine.travel(dt.datetime(2026, 11, 27, 12, 0, 15, tzinfo=dt.UTC), tick=False) as moved:
        yield moved


def entered(app: Flask, email: str = EMAIL, password: str = PASSWORD) -> FlaskClient:
    """A browser in which somebody has logged in with the form."""
    browser = app.test_client()
    assert browser.post("/login", data={"email": email, "password": password}).status_code == 303
    return browser


def mark_in(browser: FlaskClient) -> str:
    with browser.session_transaction() as session:
        return str(session.get("_user_id", ""))


def with_mark(app: Flask, mark: str) -> FlaskClient:
    """A browser into which somebody has copied the mark of a log-in."""
    browser = app.test_client()
    with browser.session_transaction() as session:
        session["_user_id"] = mark
    return browser


def send(browser: FlaskClient, where: str, **typed: str) -> str:
    answer = browser.post(where, data={"form_token": token_on(browser, "/account"), **typed})
    assert answer.status_code == 303
    return str(answer.location)


def is_in(browser: FlaskClient) -> bool:
    return browser.get("/account").status_code == 200


# --- Row 1: the cookie -------------------------------------------------------------------------------------


def test_every_cookie_of_every_page_is_bound_to_the_host_secure_and_out_of_reach_of_scripts(app: Flask) -> None:
    one_of_each, seen = Site(app), set()
    with set_otherwise(app, site_url=HTTPS) as site:
        for person in (one_of_each.owner, one_of_each.staff):
            browser = site.test_client()
            asked = [browser.post("/login", data={"email": person.email, "password": PASSWORD}, base_url=HTTPS)]
            asked += [
                browser.open(one_of_each.address(rule), method=method, base_url=HTTPS, headers=SAME_ORIGIN)
                for rule, method in one_of_each.rules()
                if rule.endpoint != "accounts.log_out" and not (method == "POST" and rule.endpoint.startswith("public"))
            ]
            for answer in asked:
                answer.close()
                for cookie in answer.headers.getlist("Set-Cookie"):
                    pair, *flags = cookie.split("; ")
                    seen.add(pair.partition("=")[0])
                    flags = [flag for flag in flags if not flag.startswith(("Expires=", "Max-Age="))]
                    assert sorted(flags) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"], cookie
    assert seen == {"__Host-session", "__Host-known"}


# --- Row 2: what ends a log-in -----------------------------------------------------------------------------


def test_a_log_out_ends_this_log_in_on_the_server_and_no_other(app: Flask) -> None:
    a_user(email=EMAIL)
    here, there = entered(app), entered(app)
    copied = with_mark(app, mark_in(here))
    assert is_in(copied)
    assert here.post("/logout", data={"form_token": token_on(here, "/account")}).location == "/"
    assert (is_in(here), is_in(copied), is_in(there)) == (False, False, True)
    look_anew()
    assert [row.ended_at is None for row in db.session.scalars(sa.select(UserSession).order_by(UserSession.id))] == [
        False, True,
    ]  # fmt: skip


def _own_password(app: Flask, by: FlaskClient) -> None:
    assert send(by, "/account/password", password=PASSWORD, new_password=CHOSEN) == "/account"


def _reset(app: Flask, by: FlaskClient) -> None:
    browser = app.test_client()
    browser.post("/forgotten-password", data={"email": EMAIL})
    assert browser.post(link_in_letter_to(EMAIL, "password-resets"), data={"password": CHOSEN}).status_code == 303


def _disabled(app: Flask, by: FlaskClient) -> None:
    Desk(app).send(f"/users/{the_user(EMAIL).id}/disabling", disabling_reason="She has left.")


def _everywhere(app: Flask, by: FlaskClient) -> None:
    assert send(by, "/account/log-ins/end") == "/login"


def _second_factor(app: Flask, by: FlaskClient) -> None:
    import pyotp

    secret, offer = shown_secret(by)
    sent = {"form_token": token_on(by, "/account"), "password": PASSWORD, "offer": offer,
            "new_code": pyotp.TOTP(secret).now()}  # fmt: skip
    assert by.post("/account/second-factor", data=sent).status_code == 200


def _address_taken_back(app: Flask, by: FlaskClient) -> None:
    send(by, "/account/email", password=PASSWORD, email="moved@example.org")
    app.test_client().post(link_in_letter_to("moved@example.org", "email-changes"))
    app.test_client().post(link_in_letter_to(EMAIL, "email-changes/back"))


@pytest.mark.parametrize(
    ("happens", "stays_here"),
    [(_own_password, True), (_second_factor, True), (_reset, False), (_disabled, False), (_everywhere, False),
     (_address_taken_back, False)],
)  # fmt: skip
def test_another_password_or_second_factor_or_being_disabled_ends_every_log_in(
    app: Flask, happens: Callable[[Flask, FlaskClient], None], stays_here: bool
) -> None:
    """Whoever has changed it, having proven who they are, goes on with a new log-in; half log-ins end as well."""
    a_user(email=EMAIL)
    here, elsewhere = entered(app), entered(app)
    copied = with_mark(app, mark_in(here))
    happens(app, here)
    assert (is_in(here), is_in(elsewhere), is_in(copied)) == (stays_here, False, False)


# --- Row 3: a new mark -------------------------------------------------------------------------------------


def test_each_log_in_has_a_mark_of_its_own_and_none_that_somebody_has_planted(app: Flask) -> None:
    owner, other = a_user(email=EMAIL), a_user(email="other@example.org")
    planted = a_log_in(other)
    browser = with_mark(app, planted)
    typed = {"email": EMAIL, "password": PASSWORD}
    assert browser.post("/login", data=typed, headers=SAME_ORIGIN).status_code == 303
    first = mark_in(browser)
    assert browser.post("/login", data=typed, headers=SAME_ORIGIN).status_code == 303
    second = mark_in(browser)
    assert len({planted, first, second}) == 3 and min(len(first), len(second)) == 43
    # What the browser had before has ended with the log-in that took its place.
    assert [is_in(with_mark(app, mark)) for mark in (planted, first, second)] == [False, False, True]
    look_anew()
    kept = str(everything()["user_sessions"])
    assert owner.id and not any(mark in kept for mark in (planted, first, second)), "the books hold only hashes"


def test_half_a_log_in_is_none_and_its_mark_ends_with_the_code(app: Flask, clock: time_machine.Traveller) -> None:
    phone, browser = Phone(a_user(email=EMAIL)), app.test_client()
    type_password(browser)
    with browser.session_transaction() as session:
        half = dict(session["half_log_in"])
    assert not is_in(with_mark(app, half["mark"]))
    assert give(browser, phone.digits()).status_code == 303
    assert is_in(browser) and mark_in(browser) != half["mark"] and not is_in(with_mark(app, half["mark"]))
    again = app.test_client()
    with again.session_transaction() as session:
        session["half_log_in"] = half
    clock.shift(dt.timedelta(minutes=1))
    assert give(again, phone.digits()).status_code == 422 and not is_in(again)


def test_who_proves_anew_who_they_are_goes_on_with_a_new_mark(app: Flask, clock: time_machine.Traveller) -> None:
    phone = Phone(a_user(email=EMAIL))
    browser = logged_in(app, the_user(EMAIL))
    before = mark_in(browser)
    sent = {"form_token": token_on(browser, "/account"), "password": PASSWORD, "code": phone.digits()}
    assert browser.post("/account/recovery-codes", data=sent).status_code == 200
    assert mark_in(browser) != before and is_in(browser) and not is_in(with_mark(app, before))


# --- Row 4: how long it lasts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "desk", "idle", "longest"),
    [
        ("owner", "/owner", dt.timedelta(hours=12), dt.timedelta(days=14)),
        ("moderator", "/moderation", dt.timedelta(minutes=30), dt.timedelta(hours=12)),
        ("staff", "/staff", dt.timedelta(minutes=30), dt.timedelta(hours=12)),
    ],
)
def test_a_log_in_ends_when_nobody_uses_it_and_in_the_end_whoever_uses_it(
    app: Flask, clock: time_machine.Traveller, role: str, desk: str, idle: dt.timedelta, longest: dt.timedelta
) -> None:
    person, second = a_user(role, email=EMAIL), dt.timedelta(seconds=1)
    browser, begun = logged_in(app, person), now()
    clock.shift(idle)
    assert browser.get(desk).status_code == 200
    clock.shift(idle + second)
    assert browser.get(desk).location.startswith("/login")
    browser, begun = logged_in(app, person), now()
    while now() + idle < begun + longest:
        clock.shift(idle)
        assert browser.get(desk).status_code == 200
    clock.move_to(begun + longest)
    assert browser.get(desk).status_code == 200
    clock.shift(second)
    assert browser.get(desk).location.startswith("/login")


def test_a_page_that_asks_again_by_itself_keeps_no_log_in_alive(app: Flask, clock: time_machine.Traveller) -> None:
    browser = logged_in(app, a_user("staff"))
    for _ in range(2):
        clock.shift(dt.timedelta(minutes=14))
        assert browser.get("/staff/books", headers={"HX-Request": "true", **SAME_ORIGIN}).status_code == 200
    clock.shift(dt.timedelta(minutes=3))
    assert browser.get("/staff").status_code == 303


def test_when_a_log_in_was_last_used_is_written_every_two_minutes_and_costs_one_query(
    app: Flask, clock: time_machine.Traveller
) -> None:
    browser = logged_in(app, a_user("owner"))
    written = []
    for seconds in (0, 119, 1, 60, 60):
        clock.shift(dt.timedelta(seconds=seconds))
        with pages.counted() as sent:
            assert browser.get("/account").status_code == 200
        about = [words for words in sent if "user_sessions" in words or "FROM users" in words]
        written.append(sum("UPDATE" in words for words in about))
        # One that finds the log-in with its user, and the list that this page shows.
        assert len(about) - written[-1] == 2, about
    assert written == [0, 0, 1, 0, 1]


@pytest.mark.parametrize("headers", [SAME_ORIGIN, {}])
def test_what_was_typed_while_a_log_in_ran_out_is_kept(
    app: Flask, clock: time_machine.Traveller, headers: dict[str, str]
) -> None:
    a_case(slug="the-case", owner=(owner := a_user("owner")))
    browser = logged_in(app, owner)
    token = token_on(browser, "/owner/cases/the-case/updates/new")
    clock.shift(dt.timedelta(hours=12, seconds=1))
    typed = {"form_token": token, "form_key": "k" * 32, "title": "News", "body": "Long in the making."}
    answer = browser.post("/owner/cases/the-case/updates", data=typed, headers=headers)
    page = BeautifulSoup(answer.text, "html5lib")
    assert answer.status_code == 403 and "Your log-in has ended" in page.text
    assert [area.text.strip("\n") for area in page.select("main textarea")] == ["News", "Long in the making."]


def test_the_books_forget_log_ins_after_thirty_days(app: Flask, clock: time_machine.Traveller) -> None:
    owner = a_user(email=EMAIL)
    for days, left in ((0, 1), (30, 2), (1, 2)):
        clock.shift(dt.timedelta(days=days))
        a_log_in(owner)
        assert len(everything()["user_sessions"]) == left


# --- Row 5: no cookie that remembers -----------------------------------------------------------------------


def test_nobody_is_remembered_by_another_cookie(app: Flask, client: FlaskClient) -> None:
    number = a_user(email=EMAIL).id
    answer = client.post("/login", data={"email": EMAIL, "password": PASSWORD, "remember": "y"})
    assert COOKIE_NAME not in str(answer.headers)
    for said_to_be in (str(number), f"{number}.1"):
        stranger = app.test_client()
        with app.test_request_context():
            stranger.set_cookie(COOKIE_NAME, encode_cookie(said_to_be))
        assert not is_in(stranger)


# --- What their owner sees of them -------------------------------------------------------------------------


def listed(browser: FlaskClient) -> list[str]:
    page = read(browser, "/account")
    heading = page.find("h2", string="Where you are logged in")
    assert heading is not None
    found = heading.find_next("ul")
    return [" ".join(row.text.split()) for row in found.select("li")]  # type: ignore[union-attr]


def test_the_account_lists_each_log_in_and_ends_any_of_them_without_a_script(
    app: Flask, clock: time_machine.Traveller
) -> None:
    a_user(email=EMAIL)
    typed = {"email": EMAIL, "password": PASSWORD}
    laptop, phone = app.test_client(), app.test_client()
    laptop.post("/login", data=typed, headers={"User-Agent": FIREFOX}, environ_overrides={"REMOTE_ADDR": "192.0.2.77"})
    clock.shift(dt.timedelta(minutes=5))
    phone.post(
        "/login", data=typed, headers={"User-Agent": PHONE}, environ_overrides={"REMOTE_ADDR": "2001:db8:1:2::3"}
    )
    stranger = logged_in(app, a_user())
    day = "Friday 27 November 2026"
    first, second = listed(laptop)
    assert first == (
        f"Safari, iPhone Last seen {day}, 12:05pm GMT, from the network 2001:db8:1::/48. "
        f"Logged in {day}, 12:05pm GMT. Log out there: Safari, iPhone"
    )
    assert second == (
        f"Firefox, Linux (this one) Last seen {day}, 12:00pm GMT, from the network 192.0.2.0/24. "
        f"Logged in {day}, 12:00pm GMT. Log out here"
    )
    there, here = (str(form["action"]) for form in read(laptop, "/account").select("main li form"))
    before = everything()["user_sessions"]
    for address in (there, "/account/log-ins/999/end"):
        token = token_on(stranger, "/account")
        assert stranger.post(address, data={"form_token": token}).status_code == 404
    assert everything()["user_sessions"] == before
    for _ in range(2):  # Pressed twice, it is done once.
        assert send(laptop, there) == "/account"
    assert (is_in(laptop), is_in(phone)) == (True, False) and len(listed(laptop)) == 1
    look_anew()
    assert [event.what for event in db.session.scalars(sa.select(Event))] == ["log_in_ended"]
    assert send(laptop, here) == "/" and not is_in(laptop)


def test_one_button_logs_out_everywhere_and_the_history_says_so(app: Flask) -> None:
    a_user(email=EMAIL)
    browsers = [entered(app) for _ in range(3)]
    assert send(browsers[0], "/account/log-ins/end") == "/login"
    assert [is_in(browser) for browser in browsers] == [False] * 3
    look_anew()
    assert [(event.what, event.who) for event in db.session.scalars(sa.select(Event))] == [
        ("logged_out_everywhere", f"user:{the_user(EMAIL).id}"),
    ]  # fmt: skip
    assert letters_to(EMAIL) == []


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (FIREFOX, "Firefox, Linux"), (PHONE, "Safari, iPhone"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/156.0 Safari/537.36 Edg/156.0", "Edge, Windows"),
        ("Mozilla/5.0 (Linux; Android 16) Chrome/156.0 Mobile Safari/537.36", "Chrome, Android"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/19.0 Safari/605.1.15", "Safari, macOS"),
        ("w3m/0.5.3+git20230121", "w3m"), ("Lynx/2.9.0dev.12 libwww-FM/2.14", "Lynx"), ("curl/8", ""), ("", ""),
        ("<script>alert(1)</script>" * 400, ""),
    ],
)  # fmt: skip
def test_a_browser_is_named_in_plain_words(app: Flask, named: str, words: str) -> None:
    with app.test_request_context(headers={"User-Agent": named}):
        assert visitors.browser() == words


@pytest.mark.parametrize(
    ("address", "shown", "alone"),
    [
        ("192.0.2.77", "192.0.2.0/24", "192.0.2.77/32"), ("::ffff:192.0.2.77", "192.0.2.0/24", "192.0.2.77/32"),
        ("2001:db8:1:2:3::4", "2001:db8:1::/48", "2001:db8:1:2::/64"), ("", "", "nowhere"), ("unix:", "", "nowhere"),
    ],
)  # fmt: skip
def test_a_network_is_the_beginning_of_an_address(app: Flask, address: str, shown: str, alone: str) -> None:
    with app.test_request_context(environ_overrides={"REMOTE_ADDR": address}):
        assert (visitors.network(24, 48), visitors.address()) == (shown, alone)


def test_the_page_of_an_account_is_said_to_whom_it_belongs(app: Flask) -> None:
    """Nothing of another's log-ins stands there, whoever logged in last."""
    mine, theirs = logged_in(app, a_user(name="Ada Winter")), logged_in(app, a_user(name="Zoe Far"))
    keep()
    assert len(listed(mine)) == len(listed(theirs)) == 1 and "Zoe" not in said(read(mine, "/account"), "main")
