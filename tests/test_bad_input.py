"""What machines send: each has a clear page with the right status, and changes nothing."""

import io

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.doorway import SAME_ORIGIN, Site, everything, logged_in, token_on
from tests.made import a_case


@pytest.mark.parametrize(
    "where",
    [
        "/cases/no-such-case", "/cases/No-Such-Case", "/cases/" + "x" * 10_000, "/cases/%ff%fe", "/cases/💷",
        "/cases/..%2f..",
        "/cases/the-case/", "/cases/THE-CASE", "/cases/the-case%20", "/cases/no-such-case/pledge",
        "/cases/no-such-case/pledge-total", "/cases/no-such-case/comments", "/cases/the-case/comments/thanks",
        "/cases/the-case/comments/thanks?waiting=1", "/cases/the-case/comments/thanks?waiting=MQ.x",
        "/cases/the-case/comments/thanks?waiting=%C3%A9.%C3%A9",
        "/static/../app.py", "/static/%2e%2e/app.py", "/static/no-such.css", "/static/", "/admin", "/.env", "/console",
    ],
)  # fmt: skip
def test_an_address_at_which_nothing_is_has_a_page_that_says_so(client: FlaskClient, where: str) -> None:
    a_case(slug="the-case")
    before = everything()
    answer = client.get(where)
    assert answer.status_code == 404 and "There is no such page" in answer.text
    assert everything() == before


@pytest.mark.parametrize(
    "where",
    [
        "/pledges/x", "/pledges/" + "x" * 10_000, "/pledges/x.y.z", "/pledges/é.é", "/pledges/x/unsubscription",
        "/pledges/unfinished/x", "/pledges/x/amount", "/pledges/x/name", "/pledges/x/address",
        "/pledges/new-address/x", "/pledges/old-address/x.y",
        "/pledges/return", "/pledges/return?session_id=", "/pledges/return?session_id=cs_test_unknown",
        "/pledges/return?session_id=" + "x" * 10_000, "/pledges/bank-return",
        "/pledges/bank-return?payment_intent=pi_x",
    ],
)  # fmt: skip
def test_a_link_that_opens_nothing_has_a_page_with_the_way_to_a_new_one(client: FlaskClient, where: str) -> None:
    a_case(slug="the-case")
    before = everything()
    answer = client.get(where)
    assert answer.status_code == 404 and "This link does not work" in answer.text
    assert '<a class="button" href="/pledges/find">Have your links sent to you</a>' in answer.text
    assert everything() == before


@pytest.mark.parametrize("number", ["0", "2147483648", "9223372036854775808", "9" * 23, "9" * 5_000, "-1", "1.0", "x"])
def test_a_number_that_no_row_has_is_no_page(app: Flask, number: str) -> None:
    site = Site(app)
    owner, moderator = logged_in(app, site.owner), logged_in(app, site.moderator)
    token, other = token_on(owner, "/owner"), token_on(moderator, "/moderation")
    typed = {"title": "News", "body": "Words.", f"c{number}-reason": "Why."}
    before = everything()
    for action in ("approval", "rejection"):
        where = f"/moderation/comments/{number}/{action}"
        assert moderator.post(where, data={**typed, "form_token": other}).status_code == 404
    where = f"/owner/cases/the-case/updates/{number}"
    assert owner.get(where).status_code == 404
    assert owner.post(where, data={**typed, "form_token": token}).status_code in (404, 405)
    assert everything() == before


@pytest.mark.parametrize("query", ["\xff", "seen=\xff\xfe", "seen=%ff", "a=%00", "%00", "session_id=cs%00", "x=%c3%28"])
@pytest.mark.parametrize(
    "where", ["/", "/login", "/cases/the-case/pledge-total", "/pledges/return", "/owner", "/healthz", "/none"]
)
@pytest.mark.parametrize("htmx", [False, True])
def test_a_query_that_is_not_text_is_refused(client: FlaskClient, where: str, query: str, htmx: bool) -> None:
    headers = {"HX-Request": "true"} if htmx else {}
    answer = client.get(where, environ_overrides={"QUERY_STRING": query}, headers=headers)
    assert answer.status_code == 400 and "load the page again" in answer.text


@pytest.mark.parametrize("query", ["seen=", "seen=x&seen=y", "seen=-1", "page=-1", "page=x", "seen=" + "x" * 10_000,
                                   "amount=1e9", "amount=-5", "&&&=&", "%zz"])  # fmt: skip
def test_a_query_that_means_nothing_is_passed_over(client: FlaskClient, query: str) -> None:
    a_case(slug="the-case")
    for where in ("/", "/cases/the-case", "/cases/the-case/pledge-total", "/cases/the-case/comments",
                  "/cases/the-case/pledge", "/login"):  # fmt: skip
        for headers in ({}, {"HX-Request": "true"}):
            assert client.get(f"{where}?{query}", headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "POST", "GET"])
def test_a_wrong_method_is_told_which_ones_are_right(app: Flask, method: str) -> None:
    site = Site(app)
    stranger = app.test_client()
    allowed: dict[str, set[str]] = {}
    for rule, right in site.rules():
        allowed.setdefault(site.address(rule), set()).add(right)
    addresses = app.url_map.bind("")
    for where, methods in allowed.items():
        # An address may be one of a private link as well, to which something can be sent.
        if method not in addresses.allowed_methods(where):
            answer = stranger.open(where, method=method, headers=SAME_ORIGIN)
            offered = set(answer.headers["Allow"].split(", "))
            assert answer.status_code == 405 and methods <= offered and method not in offered, where
            assert "This page cannot be used that way" in answer.text


# --- Bodies ------------------------------------------------------------------------------------------------

FORMS = ["/login", "/cases/the-case/pledges", "/cases/the-case/comments"]


@pytest.mark.parametrize("where", FORMS)
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_huge_body_is_refused_unread(client: FlaskClient, where: str, kind: str) -> None:
    a_case(slug="the-case")
    before = everything()
    # A quarter of a megabyte is more than all that our fields may hold; so are a thousand fields.
    for sent in ({"name": "x" * 262_145}, {f"field-{number}": "x" * 270 for number in range(1_000)}):
        answer = client.post(where, data=sent, content_type=kind)
        assert answer.status_code == 413 and "Shorten what you sent" in answer.text
    assert everything() == before


@pytest.mark.parametrize("where", FORMS)
@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b'{"email": "ada@example.org"}', 422),
        ("text/plain", b"email=ada@example.org", 422),
        ("application/xml", b"<a/>", 422),
        ("", b"email=ada@example.org", 422),
        ("rubbish", b"\x00\xff", 422),
        ("multipart/form-data", b"no boundary", 422),
        ("multipart/form-data; boundary=x", b"--x\r\nrubbish", 422),
        ("multipart/form-data; boundary=x",
         b"--x\r\nContent-Disposition: form-data; name=name\r\n\r\n\xff\r\n--x--", 422),
        ("application/x-www-form-urlencoded", b"name=\xff\xfe&email=ada@example.org&body=Words", 400),
        ("application/x-www-form-urlencoded", b"name=%ff%fe&email=ada@example.org&body=Words", 400),
        ("application/x-www-form-urlencoded", b"email=ada@example.org&body=%ed%a0%80", 400),
        ("application/x-www-form-urlencoded; charset=latin-1", b"name=%e9", 400),
        ("application/x-www-form-urlencoded", b"&&&===&%&%zz", 422),
    ],
)  # fmt: skip
def test_a_body_that_is_no_form_of_ours_is_refused(
    client: FlaskClient, where: str, kind: str, body: bytes, status: int
) -> None:
    a_case(slug="the-case")
    before = everything()
    assert client.post(where, data=body, content_type=kind).status_code == status
    assert everything() == before


def test_a_file_in_the_place_of_words_is_no_words(client: FlaskClient) -> None:
    a_case(slug="the-case")
    sent = {"email": "ada@example.org", "body": (io.BytesIO(b"A file."), "file.txt")}
    answer = client.post("/cases/the-case/comments", data=sent, content_type="multipart/form-data")
    assert answer.status_code == 422 and "Enter your comment." in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "session=rubbish; remember_token=1|x"}, {"Cookie": "=;;\xff=\xff"}, {"Authorization": "Basic \xff"},
        {"Accept-Language": "\xff" * 500}, {"HX-Request": "TRUE"}, {"If-Modified-Since": "rubbish"},
        {"Range": "bytes=9-1"},
        {"X-Forwarded-For": "rubbish, \xff"}, {"Content-Length": "rubbish"}, {"X-HTTP-Method-Override": "DELETE"},
    ],
)  # fmt: skip
def test_odd_headers_change_nothing_for_a_reader(client: FlaskClient, headers: dict[str, str]) -> None:
    a_case(slug="the-case")
    for where in ("/", "/cases/the-case", "/login", "/static/site.css"):
        answer = client.get(where, headers=headers)
        answer.get_data()
        answer.close()
        assert answer.status_code in (200, 206, 416), where
