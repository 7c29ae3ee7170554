"""How often one network, and one account, may try; and who is believed about where a request comes from."""

import datetime as dt
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from models import CaseWords
from tests.doorway import everything, set_otherwise
from tests.made import a_case, a_user
from views import limits
from views.public import network_of_today

NOON = dt.datetime(2026, 11, 27, 12, tzinfo=dt.UTC)
WORDS = {"name": "Ada Winter", "email": "ada@example.org", "body": "Good luck with your case."}
TERMS = {
    "amount": "other", "other_amount": "25", "name": "Ada Winter", "email": "ada@example.org", "agreed": "y",
    "form_key": "k" * 32,
}  # fmt: skip


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns all the time, so that what they share by mistake is seen."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def comment(browser: FlaskClient, slug: str, **headers: str) -> TestResponse:
    return browser.post(f"/cases/{slug}/comments", data=WORDS, headers=headers)


@pytest.mark.parametrize(
    ("one", "other", "are_one_network"),
    [
        ("192.0.2.1", "192.0.2.9", True), ("192.0.2.1", "203.0.113.9", False),
        # As a socket for both kinds of addresses tells of the older kind.
        ("::ffff:192.0.2.1", "192.0.2.9", True), ("::ffff:192.0.2.1", "::ffff:203.0.113.9", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:3::4", True), ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        # What a proxy should not say, and one might.
        ("192.0.2.1:5000", "unix:", True), ("192.0.2.1:5000", "192.0.2.1", False),
    ],
)  # fmt: skip
def test_pledges_and_comments_know_a_network_by_its_mark(
    app: Flask, one: str, other: str, are_one_network: bool
) -> None:
    marks = []
    for address in (one, other):
        with app.test_request_context(environ_overrides=from_address(address)):
            marks.append(network_of_today(NOON))
    assert (marks[0] == marks[1]) is are_one_network


def from_address(address: str) -> dict[str, str]:
    return {"REMOTE_ADDR": address}


@pytest.mark.parametrize(
    ("setting", "where", "typed"),
    [
        ("rate_comment", "/cases/the-case/comments", WORDS),
        ("rate_pledge", "/cases/the-case/pledges", TERMS),
        ("rate_letter", "/pledges/find", {"email": "ada@example.org"}),
        ("rate_letter", "/forgotten-password", {"email": "ada@example.org"}),
        ("rate_letter", "/sign-up", {
            "name": "Ada Winter", "email": "ada@example.org", "password": "four words nothing ties",
        }),
        ("rate_login", "/login", {"email": "ada@example.org", "password": "wrong"}),
    ],
)  # fmt: skip
def test_one_try_too_many_is_told_when_to_come_back_and_loses_nothing_that_was_typed(
    app: Flask, setting: str, where: str, typed: dict[str, str]
) -> None:
    a_case(slug="the-case")
    with set_otherwise(app, sign_up="open", **{setting: "2 per hour"}) as site:
        browser = site.test_client()
        first = [browser.post(where, data=typed).status_code for _ in range(2)]
        before = everything()
        refused = browser.post(where, data=typed)
        after = everything()
        elsewhere = browser.post(where, data=typed, environ_overrides=from_address("192.0.2.7"))
    assert 429 not in first and refused.status_code == 429
    assert 3500 < int(refused.headers["Retry-After"]) <= 3601  # The window ends within a second.
    fields = BeautifulSoup(refused.text, "html5lib").select("main input[value], main textarea")
    kept = {field.get("name"): field.get("value") or field.text.strip() for field in fields}
    assert {name: words for name, words in typed.items() if kept.get(name) != words and name != "password"} == {}
    assert after == before
    # Another network may go on, except to an account, or for an address, that too many have tried.
    assert (elsewhere.status_code == 429) == (where not in ("/cases/the-case/comments", "/cases/the-case/pledges"))


def test_who_searches_on_and_on_is_told_to_wait_and_still_has_the_words_and_may_read(app: Flask) -> None:
    a_case(title="A case about water")
    with set_otherwise(app, rate_search="2 per minute", front_cache_mb=0) as site:
        browser = site.test_client()
        answers = [browser.get("/?q=water&show=live") for _ in range(3)]
        reading, elsewhere = browser.get("/"), browser.get("/?q=water", environ_overrides=from_address("192.0.2.7"))
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "A case about water" in answers[0].text and "A case about water" not in answers[2].text
    assert 'value="water"' in answers[2].text and "Please wait a minute." in answers[2].text
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 61
    assert (reading.status_code, elsewhere.status_code) == (200, 200) and "A case about water" in reading.text


def test_while_two_search_a_third_is_asked_to_come_back_and_readers_are_not(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_case(title="A case about water")
    browser, looking, seen = app.test_client(), CaseWords.holding, list[TestResponse]()

    def slowly(words: str) -> Any:
        if len(seen) < 3:
            # While this one looks, the next one comes.
            seen.append(app.test_client().get("/?q=water"))
        return looking(words)

    monkeypatch.setattr(CaseWords, "holding", slowly)
    assert browser.get("/?q=water").status_code == 200
    # The innermost came first to its answer.
    assert [answer.status_code for answer in seen] == [503, 200]
    assert 'value="water"' in seen[0].text and "Many people search" in seen[0].text
    assert seen[0].headers["Retry-After"] == "5"
    assert browser.get("/?q=water").status_code == 200


def test_an_account_is_guarded_against_tries_from_many_addresses(app: Flask) -> None:
    a_user(email="owner@example.org")
    with set_otherwise(app, rate_login="3 per hour") as site:
        browser = site.test_client()
        tries = [
            browser.post(
                "/login",
                data={"email": spelling, "password": "wrong"},
                environ_overrides=from_address(f"192.0.2.{number}"),
            ).status_code
            for number, spelling in enumerate(["owner@example.org", "OWNER@example.org", " owner@example.org "] * 2)
        ]
        other = browser.post(
            "/login",
            data={"email": "other@example.org", "password": "wrong"},
            environ_overrides=from_address("192.0.2.99"),
        )
    assert tries == [422, 422, 422, 429, 429, 429]
    assert other.status_code == 422


def test_lost_links_are_asked_for_so_often_for_one_address_and_from_one_network(app: Flask) -> None:
    with set_otherwise(app, rate_letter="3 per hour") as site:
        browser = site.test_client()

        def find(email: str, network: str) -> int:
            where = from_address(network)
            return browser.post("/pledges/find", data={"email": email}, environ_overrides=where).status_code

        for_one_address = [find(email, f"192.0.2.{number}") for number, email in enumerate(["ada@example.org"] * 3)]
        too_many = find("ADA@example.org", "192.0.2.9")
        from_one_network = [find(f"{number}@example.org", "192.0.2.50") for number in range(4)]
    assert (for_one_address, too_many, from_one_network) == ([303] * 3, 429, [303, 303, 303, 429])


def test_tries_at_the_same_moment_are_counted_for_the_account_they_were_made_for(
    app: Flask, hasty_threads: None
) -> None:
    """Ten accounts with ten tries each: nobody's try is counted for another, so each one's eleventh is refused."""
    with set_otherwise(app, rate_login="10 per hour") as site:
        start = threading.Barrier(10)

        def eleven_for(account: str) -> list[bool]:
            start.wait()
            with site.test_request_context("/login", method="POST"):
                return [limits.too_many("login", account) for _ in range(11)]

        with ThreadPoolExecutor(10) as crowd:
            answers = list(crowd.map(eleven_for, [f"owner-{number}@example.org" for number in range(10)]))
    assert answers == [[False] * 10 + [True]] * 10


def test_the_limits_hold_without_redis_also_when_many_find_out_at_once(
    app: Flask, hasty_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with set_otherwise(app, rate_comment="5 per hour") as site:
        start = threading.Barrier(8)

        def one_more(_: int) -> bool:
            start.wait()
            with site.test_request_context("/", environ_base=from_address("192.0.2.1")):
                return limits.too_many("comment")

        # As in a process that has not missed Redis yet.
        monkeypatch.setattr(limits.limiter, "_storage_dead", False)
        with ThreadPoolExecutor(8) as crowd:
            answers = sorted(crowd.map(one_more, range(8)))
    assert answers == [False] * 5 + [True] * 3


@pytest.mark.parametrize(
    ("proxies", "forwarded", "answers"),
    [
        # Without a proxy of ours, whoever says that he is somebody else is not believed.
        (0, ["198.51.100.1", "198.51.100.2", "198.51.100.3"], [303, 303, 429]),
        # One proxy of ours adds one address, at the end; what stood there before it was written by the reader.
        (1, ["198.51.100.1", "198.51.100.2", "198.51.100.3"], [303, 303, 303]),
        (1, ["1.1.1.1, 198.51.100.1", "2.2.2.2, 198.51.100.1", "3.3.3.3, 198.51.100.1"], [303, 303, 429]),
    ],
)
def test_exactly_as_many_forwarding_addresses_are_believed_as_there_are_proxies_of_ours(
    app: Flask, proxies: int, forwarded: list[str], answers: list[int]
) -> None:
    slug = a_case().slug
    with set_otherwise(app, trusted_proxies=proxies, rate_comment="2 per hour") as site:
        browser = site.test_client()
        assert [comment(browser, slug, **{"X-Forwarded-For": said}).status_code for said in forwarded] == answers


@pytest.mark.parametrize(("proxies", "times"), [(0, 1), (1, 0)])
def test_a_proxy_that_nobody_told_us_of_is_named_once_in_the_log(
    app: Flask, capsys: pytest.CaptureFixture[str], proxies: int, times: int
) -> None:
    with set_otherwise(app, trusted_proxies=proxies) as site:
        for _ in range(2):
            site.test_client().get("/login", headers={"X-Forwarded-For": "192.0.2.1"})
        site.test_client().get("/login")
    told = capsys.readouterr()
    assert (told.out + told.err).count("is TRUSTED_PROXIES set?") == times
    assert "192.0.2.1" not in told.out + told.err
