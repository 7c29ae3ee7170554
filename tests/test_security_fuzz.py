"""Whatever is sent to whichever address by whoever it is: never a failure of ours, never a hang, and the books agree.

In the suite some hundreds of requests are sent; `make fuzz` sends 50,000, or as many as FUZZ says. A run is the same
again with its SEED, which is printed.
"""

import contextvars
import json
import os
import random
import secrets
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from werkzeug.routing import Rule

from jobs import doctor
from models import StripeEvent, User, begin_writing, db
from tests.backup import back_up, restore
from tests.doorway import Site, logged_in, signature, token_on
from tests.made import now

REQUESTS, SEED = int(os.environ.get("FUZZ", "600")), int(os.environ.get("SEED", "0")) or secrets.randbelow(10**6) + 1
# After so many requests all rows are as they were, so that there is always something left to be broken.
ANEW = 250
# Seconds after which a request hangs.
PATIENCE = 20
WORDS = (
    "", " ", "\0", "\r\nSet-Cookie: a=b", "x" * 5_000, "x" * 200_000, "25", "£25", "0", "-1", "1e309", "NaN", "٣", "²",
    "9" * 40, "ada@example.org", "ada@\u202eexample.org", "y", "on", "true", "other", "' OR 1=1 --", "{{ 7*7 }}",
    "<script>alert(1)</script>", "%s%n", "../../etc/passwd", "\u202e", "💷", "é" * 300, "2026-12-10", "2027-03-28",
    "01:30", "Europe/London", "https://[", "javascript:alert(1)", "//evil.example", "/\\evil.example", "approve",
    "reject", "evt_1", "cs_test_1",
)  # fmt: skip
NAMES = (
    "after", "before", "seen", "q", "show", "court", "topic", "via", "amount", "page", "next", "session_id", "status",
    "name", "email", "body", "title", "reason", "version", "form_key", "list", "words", "link", "nonsense", "",
)  # fmt: skip
HEADERS: dict[str, tuple[str, ...]] = {
    "HX-Request": ("true", "1", ""),
    "HX-History-Restore-Request": ("true",),
    "Accept-Language": ("fr", "xx-YY;q=9", "*"),
    "Accept-Encoding": ("gzip", "gzip;q=0", "br, *;q=x"),
    "Accept": ("text/html", "application/json", "*/*;q=nonsense"),
    "Range": ("bytes=0-9", "bytes=-", "lines=1"),
    "If-None-Match": ('"a"', "W/", "*", '"' * 900),
    "If-Modified-Since": ("Thu, 01 Jan 1970 00:00:00 GMT", "yesterday"),
    "Cookie": ("session=rubbish", "session=;;=;", "remember_token=1|x", "a=" + "b" * 3_000),
    "Authorization": ("Basic eDp5", "Bearer", "Digest \xff"),
    "Sec-Fetch-Site": ("same-origin", "cross-site", "none", "nonsense"),
    "Origin": ("null", "http://127.0.0.1:8000", "https://evil.example"),
    "Referer": ("http://[", "http://127.0.0.1:8000/cases/the-case?via=poster", "\xff"),
    "X-Forwarded-For": ("1.2.3.4, 5.6.7.8", "nonsense"),
    "Content-Type": ("application/json", "multipart/form-data; boundary=", "text/plain; charset=nonsense", "\xff"),
    "Host": ("127.0.0.1:8000", "evil.example", ""),
    "Stripe-Signature": ("t=1,v1=x", "nonsense"),
}
METHODS = ("GET", "GET", "GET", "POST", "POST", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")


class Somebody:
    """Sends one odd request after the other, by chance, in one of the site's roles."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self.site, self.chance = site, chance
        self.rules = [rule for rule in site.app.url_map.iter_rules() if rule.endpoint != "static"]
        # What the forms of the pages that were opened have, by where they are sent.
        self.fields: dict[str, set[str]] = defaultdict(set)
        self.anew()

    def anew(self) -> None:
        """Log everybody in again."""
        self.browsers = [("nobody", self.site.app.test_client(), "")]
        for name, page in (("owner", "/owner"), ("moderator", "/moderation"), ("staff", "/staff")):
            person = db.session.get_one(User, getattr(self.site, name).id)
            browser = logged_in(self.site.app, person)
            self.browsers.append((name, browser, token_on(browser, page)))

    def request(self) -> tuple[str, int]:
        """What was asked, in a few words, and the status of the answer."""
        chance = self.chance
        who, browser, token = chance.choice(self.browsers)
        rule, method = chance.choice(self.rules), chance.choice(METHODS)
        if chance.random() < 0.8:
            method = chance.choice(sorted((rule.methods or set()) - {"OPTIONS"}))
        path = self._path(rule)
        sent: dict[str, Any] = {"headers": self._headers(), "query_string": self._query()}
        if method not in ("GET", "HEAD", "OPTIONS"):
            sent |= self._body(path, token)
        with not_for_ever():
            answer = self._open(browser, path, method, sent)
        can_be_read = answer.mimetype == "text/html" and not answer.content_encoding
        self._learn(path, answer.text if can_be_read else "")
        answer.close()
        return f"{who} {method} {path[:90]} {sent!r}"[:600], answer.status_code

    def _open(self, browser: FlaskClient, path: str, method: str, sent: dict[str, Any]) -> Any:
        # As the client of the other tests does it, but that the hygiene of odd answers is not looked at.
        db.session.rollback()
        return contextvars.Context().run(FlaskClient.open, browser, path, method=method, **sent)

    def _path(self, rule: Rule) -> str:
        try:
            path = self.site.address(rule)
        except KeyError:
            path = rule.rule
        if self.chance.random() < 0.1:
            parts = path.split("/")
            parts[self.chance.randrange(len(parts))] = quote(self._word(200))
            path = "/" + "/".join(parts).lstrip("/")
        return ("/fr" if self.chance.random() < 0.1 else "") + path

    def _query(self) -> dict[str, str]:
        if self.chance.random() < 0.5:
            return {}
        return {self.chance.choice(NAMES): self._word(12_000) for _ in range(self.chance.randint(1, 3))}

    def _headers(self) -> list[tuple[str, str]]:
        chosen = self.chance.sample(sorted(HEADERS), self.chance.choice((0, 0, 1, 2)))
        return [(name, self.chance.choice(HEADERS[name])) for name in chosen if name != "Content-Type"]

    def _body(self, path: str, token: str) -> dict[str, Any]:
        chance = self.chance
        if chance.random() < 0.1:
            raw = chance.randbytes(chance.choice((0, 1, 50, 5_000))) if chance.random() < 0.5 else b"[" * 5_000
            return {"data": raw, "content_type": chance.choice(HEADERS["Content-Type"])}
        names = sorted(self.fields[path]) or [chance.choice(NAMES) for _ in range(4)]
        form: dict[str, Any] = {name: self._word(200_000) for name in names if chance.random() < 0.8}
        if chance.random() < 0.9:
            form["form_token"] = token
        if chance.random() < 0.1:
            form[chance.choice(("file", "picture", "x"))] = (_File(chance.randbytes(200)), "odd\r\n.png")
        return {"data": form}

    def _word(self, longest: int) -> str:
        if self.chance.random() < 0.2:
            return "".join(chr(self.chance.choice((self.chance.randrange(32, 127), self.chance.randrange(1, 0xD7FF))))
                           for _ in range(self.chance.randint(0, 30)))  # fmt: skip
        return self.chance.choice(WORDS)[:longest]

    def _learn(self, path: str, page: str) -> None:
        for form in BeautifulSoup(page, "lxml").select("form[action]") if "<form" in page else []:
            where = str(form["action"]).partition("?")[0] or path
            self.fields[where] |= {str(field["name"]) for field in form.select("[name]")}


class _File:
    """What a browser sends as a file."""

    def __init__(self, content: bytes) -> None:
        self._content, self.name = content, "odd"

    def read(self, size: int = -1) -> bytes:
        given, self._content = (self._content, b"") if size < 0 else (self._content[:size], self._content[size:])
        return given


@contextmanager
def not_for_ever() -> Iterator[None]:
    def too_long(*_: object) -> None:
        raise AssertionError(f"a request took more than {PATIENCE} seconds")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
def test_nothing_that_is_sent_by_chance_breaks_us_or_the_books(asks_the_sandbox: Flask) -> None:
    app = asks_the_sandbox
    limits = ("rate_login", "rate_pledge", "rate_comment", "rate_letter", "rate_search")
    many = dict.fromkeys(limits, "1000000 per minute")
    app.config["STANDING"] = app.config["STANDING"].model_copy(update=many)
    print(f"{REQUESTS} requests, SEED={SEED}")
    somebody = Somebody(Site(app), random.Random(SEED))  # noqa: S311 - the same again on purpose
    beginning, seen, broken = back_up(), Counter[int](), list[str]()
    for number in range(1, REQUESTS + 1):
        asked, status = somebody.request()
        seen[status] += 1
        if status >= 500:
            broken.append(f"{status}: {asked}")
        if number % ANEW == 0 or number == REQUESTS:
            db.session.rollback()
            assert doctor.examine(now()) == [], f"SEED={SEED}, request {number}"
            begin_writing()
            restore(beginning)
            somebody.anew()
    print(dict(seen))
    assert broken == [], f"SEED={SEED}"
    # Not everything was refused at the first door.
    assert seen[200] > REQUESTS / 20 and seen[422] + seen[303] > REQUESTS / 50


anything = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    event=some.fixed_dictionaries({}, optional={
        "id": some.just("evt_1") | anything, "type": some.sampled_from(["payment_intent.succeeded", "x"]) | anything,
        "created": some.just(1_790_000_000) | anything, "livemode": some.just(False) | anything,
        "data": some.fixed_dictionaries({"object": some.just({"id": "pi_1"}) | anything}) | anything,
    }),
    is_signed=some.booleans(),
)  # fmt: skip
def test_whatever_is_posted_to_stripes_door_is_kept_or_refused(
    client: FlaskClient, event: dict[str, Any], is_signed: bool
) -> None:
    raw = json.dumps(event).encode()
    header = signature(raw) if is_signed else "t=1,v1=x"
    before = db.session.scalar(sa.select(sa.func.count(StripeEvent.id)))
    db.session.rollback()
    status = client.post("/webhooks/stripe", data=raw, headers={"Stripe-Signature": header}).status_code
    kept = (db.session.scalar(sa.select(sa.func.count(StripeEvent.id))) or 0) - (before or 0)
    db.session.rollback()
    assert status in ((200, 400) if is_signed else (400,))
    assert kept <= (1 if status == 200 else 0)
