"""Everything that people can write is hostile here, on every page of every kind of person, in files and in letters: it
is shown as it was written, and does nothing. Rows 27, 28, 30, 32, 36 and 38 of docs/security.md."""

import contextvars
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask, has_app_context
from flask.testing import FlaskClient
from icalendar import Calendar
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

import config
import letters
from models import Letter, User, db
from tests import gallery
from tests.doorway import logged_in
from tests.gallery import Shown
from tests.made import keep, look_anew

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

SITE = "http://127.0.0.1:8000"
HTMX = {"HX-Request": "true"}
HOSTILE = (
    "=1+1\"'><script>canary()</script><svg onload=canary()></svg><img src=/canary onerror=canary()>"
    '<a href="javascript:canary()">x</a><form action=/canary><b data-hx-get="/canary" data-hx-trigger="load"'
    ' hx-get="/canary" hx-trigger="load" data-hx-on:click="canary()">b</b></form></title></textarea></script></style>'
    "{{7*7}}${7*7}[y](javascript:canary())![z](/canary)"
)
# What a page would hold if any of it were more than text.
ALIVE = (
    "[onload], [onerror], [onclick], [hx-get], [data-hx-get='/canary'], [data-hx-trigger='load'], [action='/canary'],"
    "[href^='javascript:'], [src$='canary']"
)
# Text columns that hold no words of anybody, but what we or Stripe call a thing.
NAMES = re.compile(r".*(_id|_hash|_url|_key)|cursor|payload|picture")

pytestmark = [
    pytest.mark.only_on("sqlite", why="The pages are the same on both, and PostgreSQL counts letters."),
    pytest.mark.broken_books("words that nobody could have written", sometimes=True),
]


@dataclass
class Hung:
    """The pages of the gallery that are only looked at, and the numbers of the people who do."""

    shown: list[Shown]
    people: dict[str, int]


class Client(FlaskClient):
    """Each request begins in a context of its own, as on a server."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        if has_app_context():
            db.session.rollback()
        return contextvars.Context().run(super().open, *args, **kwargs)


@pytest.fixture
def hung(app: Flask) -> Hung:
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"sign_up": "open"})
    app.test_client_class = Client
    hung = gallery.hang()
    look_anew()
    people = {kind: db.session.scalars(sa.select(User).where(User.email == email)).one().id
              for kind, email in hung.people.items()}  # fmt: skip
    poison()
    keep()
    return Hung([shown for room in hung.rooms.values() for shown in room if not shown.press], people)


def poison() -> None:
    """Everything that a person, a bank or another computer may have written: each text of each row."""
    filled = 0
    for table in db.metadata.sorted_tables:
        for column in table.columns:
            length = getattr(column.type, "length", None)
            is_text = isinstance(column.type, sa.String) and (length is None or length >= 120)
            if not is_text or column.computed is not None or NAMES.fullmatch(column.name):
                continue
            words: Any = HOSTILE + "\r\nX-Canary: yes" if length is None else HOSTILE
            if "email" in column.name or column.name == "address":
                words = sa.literal('"<svg/onload=canary()>') + sa.cast(table.c.id, sa.String) + '"@example.org'
            elif column.name == "url":
                words = f"https://example.org/{HOSTILE}"
            db.session.execute(sa.update(table).where(column.is_not(None), column != "").values({column: words}))
            filled += 1
    assert filled > 50


def pages_of(app: Flask, hung: Hung) -> Iterator[tuple[FlaskClient, Shown]]:
    """Each page in each state, in the browser of whoever may see it."""
    browsers = {"": app.test_client(), **{kind: browser_of(app, hung, kind) for kind in hung.people}}
    for shown in hung.shown:
        yield browsers[shown.who], shown


def browser_of(app: Flask, hung: Hung, kind: str) -> FlaskClient:
    return logged_in(app, db.session.get_one(User, hung.people[kind]))


def room_of(app: Flask, address: str) -> str:
    """The endpoint behind an address, in any language; the address itself where nothing is."""
    try:
        return str(app.url_map.bind("").match(address.partition("?")[0].removeprefix("/fr"))[0])
    except HTTPException:
        return address


@pytest.mark.browser
def test_row_27_hostile_words_do_nothing_in_chromium_on_any_page_of_anybody(
    app: Flask, hung: Hung, chromium: "Browser", htmx: bytes
) -> None:
    cdn = config.Settings(environment="test").htmx_url
    context, trouble = chromium.new_context(), list[str]()
    context.expose_function("canary", lambda *_: trouble.append("a script ran"))
    page = context.new_page()
    page.on("dialog", lambda dialog: trouble.append(f"a dialog: {dialog.message}"))
    page.on("console", lambda said: trouble.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    current: list[FlaskClient] = []

    def answer(route: "Route") -> None:
        asked, where = route.request, urlsplit(route.request.url)
        if asked.url == cdn:
            route.fulfill(body=htmx, headers={"Content-Type": "text/javascript", "Access-Control-Allow-Origin": "*"})
            return
        if f"{where.scheme}://{where.netloc}" != SITE or "canary" in where.path or "policy-reports" in where.path:
            trouble.append(f"a request went to {asked.url}")
            route.abort()
            return
        said = current[-1].get(asked.url.removeprefix(SITE))
        while said.status_code in (301, 303):
            # Chromium would follow it to the network, where nobody is.
            said = current[-1].get(said.location)
        route.fulfill(status=said.status_code, headers=dict(said.headers), body=said.get_data())
        said.close()

    context.route("**/*", answer)
    seen, gone = 0, list[str]()
    rooms = Counter[str]()
    for browser, shown in pages_of(app, hung):
        room = room_of(app, shown.address)
        rooms[room] += 1
        # More states of one page differ by words of ours.
        if rooms[room] > 3:
            continue
        current.append(browser)
        answered = page.goto(SITE + shown.address, wait_until="load")
        assert answered is not None
        if answered.status != shown.status:
            gone.append(shown.name)
        assert page.locator(ALIVE).count() == 0, shown.name
        assert trouble == [], shown.name
        seen += "{{7*7}}" in page.content()
    context.close()
    # Most pages show something that a person has written, and none of them computed it. A link that was made of an
    # address leads nowhere any more.
    assert len(rooms) > 80 and seen > 80 and len(gone) < 5, (len(rooms), seen, gone)


def test_row_38_hostile_words_are_text_in_elements_files_and_what_programs_read(app: Flask, hung: Hung) -> None:
    fragments = feeds = tables = marked = 0
    for browser, shown in pages_of(app, hung):
        answer = browser.get(shown.address, headers=HTMX)
        fragments += answer.mimetype == "text/html"
        assert BeautifulSoup(answer.data, "html5lib").select(ALIVE) == [], shown.name
        for written in BeautifulSoup(browser.get(shown.address).data, "lxml").select(
            "script[type='application/ld+json']"
        ):
            marked += "7*7" in json.dumps(json.loads(written.string or ""))
    assert fragments > 100 and marked > 5
    stranger, owner = app.test_client(), browser_of(app, hung, "owner")
    for path in ("/cases.atom", "/cases/live/updates.atom", "/sitemap.xml", "/cases/live/badge.svg"):
        read = BeautifulSoup(stranger.get(path).data, "xml")
        feeds += read.find() is not None
        assert read.select("script, [onload]") == [] or path.endswith("updates.atom"), path
    assert feeds == 4
    calendar = Calendar.from_ical(stranger.get("/cases/live/deadline.ics").data)
    assert [str(event["SUMMARY"]).count("{{7*7}}") for event in calendar.walk("VEVENT")] == [1]
    assert "X-CANARY" not in {name for part in calendar.walk() for name in part}
    for row in owner.get("/owner/cases/live/pledges.csv").get_data(as_text=True).splitlines()[1:]:
        tables += 1
        assert "=1+1" not in row.replace("'=1+1", "")
    assert tables >= 1


def test_row_36_hostile_words_are_text_in_letters_and_write_no_header(app: Flask, hung: Hung) -> None:
    look_anew()
    written = 0
    for letter in db.session.scalars(sa.select(Letter)):
        message: EmailMessage = letters.write(letter)
        written += 1
        assert "X-Canary" not in message, letter.kind
        assert all("\n" not in str(value) and "\r" not in str(value) for value in message.values()), letter.kind
        twin = message.get_body(("html",))
        if twin is not None:
            assert BeautifulSoup(twin.get_content(), "html5lib").select(ALIVE) == [], letter.kind
    assert written > 20
