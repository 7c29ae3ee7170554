"""Logging in and out: what a stranger can find out, where each role lands, and what is left afterwards."""

import datetime as dt
import re
from urllib.parse import SplitResult, urljoin, urlsplit

import pytest
import sqlalchemy as sa
import time_machine
from argon2 import PasswordHasher
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import models
from models import Update, User, db
from tests.doorway import everything, logged_in, set_otherwise, token_on
from tests.made import PASSWORD, a_case, a_user, keep, look_anew, now


def enter(browser: FlaskClient, email: str, password: str = PASSWORD, **more: str) -> TestResponse:
    return browser.post("/login", data={"email": email, "password": password, **more})


def session_cookie(browser: FlaskClient) -> str:
    cookie = browser.get_cookie("session")
    return cookie.value if cookie else ""


@pytest.mark.parametrize(
    ("role", "desk", "heading"),
    [
        ("owner", "/owner", "Your cases"),
        ("moderator", "/moderation", "No comments waiting"),
        ("staff", "/staff", "Desk"),
    ],
)
def test_each_role_lands_at_its_own_desk_and_is_shown_no_other(
    client: FlaskClient, role: str, desk: str, heading: str
) -> None:
    a_user(role, email="somebody@example.org")
    answer = enter(client, "somebody@example.org")
    assert (answer.status_code, answer.location) == (303, desk)
    page = BeautifulSoup(client.get(desk).text, "html5lib")
    assert page.h1 is not None and heading in page.h1.text
    desks = {"Your cases", "Moderation", "Desk"} & {link.text for link in page.select("header nav a")}
    assert desks == {"owner": {"Your cases"}, "moderator": {"Moderation"}, "staff": {"Desk"}}[role]
    # The log-in page sends somebody who is logged in already to the same place.
    assert client.get("/login").location == desk


def test_who_has_forgotten_the_password_is_led_to_another_and_who_has_none_to_an_account_where_that_is_open(
    app: Flask, client: FlaskClient
) -> None:
    def links(browser: FlaskClient) -> list[str]:
        return [str(link["href"]) for link in BeautifulSoup(browser.get("/login").text, "html5lib").select("main a")]

    assert links(client) == ["/forgotten-password"]
    with set_otherwise(app, sign_up="open") as site:
        assert links(site.test_client()) == ["/forgotten-password", "/sign-up"]


def test_the_address_is_read_without_regard_to_capitals_and_spaces(client: FlaskClient) -> None:
    a_user(email="Defend.Me@Example.org")
    assert enter(client, "  dEFEND.me@example.ORG ").status_code == 303


def test_an_unknown_address_and_a_wrong_password_get_the_same_answer(client: FlaskClient) -> None:
    a_user(email="known@example.org")
    known = enter(client, "known@example.org", "a wrong password")
    unknown = enter(client, "nobody@example.org", "a wrong password")
    assert known.status_code == unknown.status_code == 422
    assert known.text.replace("known@example.org", "") == unknown.text.replace("nobody@example.org", "")
    assert dict(known.headers, **{"Content-Length": ""}) == dict(unknown.headers, **{"Content-Length": ""})
    assert "The e-mail address or the password is not right." in known.text
    assert 'value="known@example.org"' in known.text and "a wrong password" not in known.text


def test_a_password_is_never_trimmed_nor_shown_again(client: FlaskClient) -> None:
    a_user(email="owner@example.org")
    assert enter(client, "owner@example.org", f" {PASSWORD} ").status_code == 422
    assert PASSWORD not in enter(client, "", PASSWORD).text


@pytest.mark.parametrize(("length", "status"), [(1_024, 422), (1_025, 422), (5_000_000, 413)])
def test_a_huge_password_is_refused_before_anything_is_computed_with_it(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, length: int, status: int
) -> None:
    compared: list[str] = []
    monkeypatch.setattr(User, "authenticate", lambda email, password: compared.append(password))
    assert enter(client, "owner@example.org", "x" * length).status_code == status
    assert len(compared) == (1 if length == 1_024 else 0)


# --- The session -------------------------------------------------------------------------------------------


def test_a_cookie_that_was_copied_before_the_log_out_opens_nothing_afterwards(app: Flask, client: FlaskClient) -> None:
    a_user(email="owner@example.org")
    enter(client, "owner@example.org")
    copied = session_cookie(client)
    thief = app.test_client()
    thief.set_cookie("session", copied)
    assert thief.get("/owner").status_code == 200
    assert client.post("/logout", data={"form_token": token_on(client, "/owner")}).location == "/"
    assert session_cookie(client) == ""
    assert client.get("/owner").status_code == 303
    thief.set_cookie("session", copied)
    assert thief.get("/owner").location.startswith("/login")


def test_nothing_of_the_session_before_survives_the_log_in(client: FlaskClient) -> None:
    a_user(email="owner@example.org")
    with client.session_transaction() as session:
        session.update(planted="by somebody else", csrf_token="known to somebody else")
    before = session_cookie(client)
    enter(client, "owner@example.org")
    token_on(client, "/owner")
    with client.session_transaction() as session:
        assert "planted" not in session and session["csrf_token"] != "known to somebody else"
    assert session_cookie(client) != before


@pytest.mark.parametrize("mark", ["1", "1.1", "x", "", "-1", "'", "x" * 2_000])
def test_a_session_of_nobody_is_a_strangers(client: FlaskClient, mark: str) -> None:
    a_user()
    with client.session_transaction() as session:
        session["_user_id"] = mark
    assert client.get("/owner").status_code == 303
    assert "Log in" in client.get("/").text


@pytest.mark.parametrize(
    ("site_url", "name", "flags"),
    [
        ("https://standing.example", "__Host-session", {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"}),
        ("http://127.0.0.1:8000", "session", {"HttpOnly", "Path=/", "SameSite=Lax"}),
    ],
)
def test_the_cookies_of_somebody_who_logged_in_are_the_session_and_the_browser_that_is_known(
    app: Flask, site_url: str, name: str, flags: set[str]
) -> None:
    a_user(email="owner@example.org")
    with set_otherwise(app, site_url=site_url) as site:
        answer = site.test_client().post(
            "/login", data={"email": "owner@example.org", "password": PASSWORD}, base_url=site_url
        )
    known, cookie = sorted(answer.headers.getlist("Set-Cookie"))
    assert cookie.startswith(f"{name}=") and known.startswith(f"{name.replace('session', 'known')}=")
    assert set(cookie.split("; ")[1:]) == flags  # No Domain, and gone with the browser.
    assert {flag for flag in known.split("; ")[1:] if not flag.startswith("Expires=")} == {*flags, "Max-Age=31536000"}


# --- Going on to the page that was asked for ---------------------------------------------------------------


@pytest.mark.parametrize("asked", ["/owner/cases/the-case", "/owner/cases/the-case?a=1&b=%C3%A9", "/owner"])
def test_who_had_to_log_in_goes_on_to_the_page_that_was_asked_for(client: FlaskClient, asked: str) -> None:
    a_case(slug="the-case", owner=a_user(email="owner@example.org"))
    page = client.get(client.get(asked).location)
    field = BeautifulSoup(page.text, "html5lib").select_one("input[name=next]")
    assert field is not None
    answer = enter(client, "owner@example.org", next=str(field["value"]))
    assert answer.location == asked
    assert client.get(answer.location).status_code == 200


@pytest.mark.parametrize(
    "where",
    [
        "//evil.example", "///evil.example", "////evil.example", r"/\evil.example", r"\\evil.example",
        "/\t/evil.example", "/\n/evil.example", "\t//evil.example", " //evil.example", "https://evil.example",
        "http:evil.example", "https:/evil.example", "javascript:alert(1)", "evil.example", "/%5cevil.example",
        "/%09/evil.example", "/%2f/evil.example", "@evil.example", "/\x00/evil.example", "/\x7f/evil.example",
        "/\N{FULLWIDTH SOLIDUS}evil.example", "/..//evil.example", "/.//evil.example", "?//evil.example", "",
        "/" * 9_000,
    ],
)  # fmt: skip
def test_the_log_in_leads_to_no_other_site(app: Flask, client: FlaskClient, where: str) -> None:
    a_user(email="owner@example.org")
    page = BeautifulSoup(client.get("/login", query_string={"next": where}).text, "html5lib")
    field = page.select_one("input[name=next]")
    for said in {where, str(field["value"]) if field else ""}:
        answer = enter(app.test_client(), "owner@example.org", next=said)
        assert answer.status_code == 303
        assert as_browsers_read(answer.location)[:2] == ("http", "127.0.0.1:8000"), answer.location


def as_browsers_read(location: str) -> SplitResult:
    """The WHATWG way: tabs and line ends vanish, edges are trimmed, and a backslash is a slash."""
    clean = re.sub(r"[\t\r\n]", "", location).strip("".join(map(chr, range(33)))).replace("\\", "/")
    return urlsplit(urljoin("http://127.0.0.1:8000/login", clean))


# --- Forms that were left open -----------------------------------------------------------------------------


def test_a_log_in_page_left_open_for_hours_still_works(client: FlaskClient) -> None:
    a_user(email="owner@example.org")
    with time_machine.travel(now(), tick=False) as clock:
        client.get("/login")
        clock.shift(dt.timedelta(hours=5))
        assert enter(client, "owner@example.org").status_code == 303


def test_a_form_of_somebody_logged_in_still_works_after_hours(app: Flask) -> None:
    a_case(slug="the-case", owner=(owner := a_user("owner")))
    with time_machine.travel(now(), tick=False) as clock:
        browser = logged_in(app, owner)
        token = token_on(browser, "/owner/cases/the-case/updates/new")
        clock.shift(dt.timedelta(hours=11))
        typed = {"form_token": token, "form_key": "k" * 32, "title": "News", "body": "Long in the making.",
                 "audience": "everyone"}  # fmt: skip
        assert browser.post("/owner/cases/the-case/updates", data=typed).status_code == 303


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin"}, {}])
def test_an_update_that_was_typed_while_the_log_in_ended_is_not_lost(app: Flask, headers: dict[str, str]) -> None:
    owner = a_user("owner")
    a_case(slug="the-case", owner=owner)
    browser = logged_in(app, owner)
    typed = {"title": "We won & “how”", "body": "First line.\n\n<b>Second</b> line.", "form_token": "x"}
    ended = browser.get_cookie("session")
    db.session.merge(owner).end_sessions(now())
    keep()
    assert ended is not None
    before = everything()
    answer = browser.post("/owner/cases/the-case/updates", data=typed, headers=headers)
    assert answer.status_code == 403
    page = BeautifulSoup(answer.text, "html5lib")
    kept = [area.text.strip("\n") for area in page.select("main textarea")]
    assert kept == ["We won & “how”", "First line.\n\n<b>Second</b> line."]
    assert "Your log-in has ended" in page.text and page.select_one('main a[href="/login"]')
    assert everything() == before


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin"}, {}])
def test_an_update_sent_from_a_page_of_an_earlier_log_in_is_not_lost(app: Flask, headers: dict[str, str]) -> None:
    a_case(slug="the-case", owner=(owner := a_user("owner")))
    old = token_on(logged_in(app, owner), "/owner")
    browser = logged_in(app, owner)
    typed = {"title": "News", "body": "Typed in the other tab.", "form_token": old}
    answer = browser.post("/owner/cases/the-case/updates", data=typed, headers=headers)
    assert answer.status_code == 403
    assert "This page was too old to be used" in answer.text and "Typed in the other tab." in answer.text
    look_anew()
    assert db.session.scalar(sa.select(sa.func.count(Update.id))) == 0


def test_htmx_is_sent_to_a_whole_log_in_page_but_a_typed_reason_is_shown_in_its_place(client: FlaskClient) -> None:
    htmx = {"HX-Request": "true", "Sec-Fetch-Site": "same-origin"}
    approval = client.post(
        "/moderation/comments/1/decision", headers=htmx, data={"decision": "approve", "list": "decided"}
    )
    assert (approval.data, approval.headers["HX-Redirect"]) == (b"", "/login")
    rejection = client.post("/moderation/comments/1/decision", headers=htmx, data={"c1-note": "Off the point."})
    assert rejection.status_code == 403 and "<html" not in rejection.text
    assert "Off the point." in rejection.text and 'href="/login"' in rejection.text


def test_a_text_browser_whose_log_in_ended_elsewhere_can_still_comment_and_log_in(app: Flask) -> None:
    """It sends its dead cookie and no other sign of where it comes from: the cookie opens nothing any more."""
    owner = a_user("owner", email="owner@example.org")
    a_case(slug="the-case")
    browser = logged_in(app, owner)
    db.session.merge(owner).end_sessions(now())
    keep()
    words = {"name": "Ada", "email": "ada@example.org", "body": "Good luck."}
    assert browser.post("/cases/the-case/comments", data=words).status_code == 303
    assert enter(browser, "owner@example.org").status_code == 303


# --- The password itself -----------------------------------------------------------------------------------


def test_passwords_are_kept_as_argon2id_with_the_librarys_full_cost() -> None:
    # 64 MiB, three passes, four lanes: RFC 9106's second choice. The tests themselves hash more cheaply.
    full = PasswordHasher()
    assert full.hash("a password of somebody").startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert not full.check_needs_rehash(models._NOBODYS_HASH), "an unknown address would be answered sooner or later"


def test_a_password_that_was_hashed_more_cheaply_is_hashed_anew_at_the_next_log_in(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_user(email="owner@example.org")
    before = db.session.scalars(sa.select(User.password_hash)).one()
    enter(client, "owner@example.org")
    assert db.session.scalars(sa.select(User.password_hash)).one() == before
    monkeypatch.setattr(models, "_hasher", PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    client.delete_cookie("session")
    assert enter(client, "owner@example.org", "a wrong password").status_code == 422
    assert db.session.scalars(sa.select(User.password_hash)).one() == before
    assert enter(client, "owner@example.org").status_code == 303
    look_anew()
    after = db.session.scalars(sa.select(User.password_hash)).one()
    assert after.startswith("$argon2id$v=19$m=16,t=2,p=1$")
