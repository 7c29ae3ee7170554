"""When something is wrong: a whole page that tells no inside, one line for htmx, and a log that names nobody."""

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask, abort, request
from flask.testing import FlaskClient

from law import Refused
from models import Round, User, db
from tests.doorway import everything, logged_in, set_otherwise
from tests.made import a_case, a_pledge, a_user, keep, now

HTMX = {"HX-Request": "true"}
INSIDE = ("Traceback", "sqlalchemy", "sqlite", "werkzeug", "Flask", ".py", "canary", "SELECT", "KeyError")
HEADINGS = {
    400: "This request makes no sense to us",
    403: "You cannot do this",
    404: "There is no such page",
    405: "This page cannot be used that way",
    409: "This cannot be done any more",
    413: "That was too much at once",
    429: "Too many tries",
    500: "Something went wrong on our side",
    503: "We cannot look into our books just now",
}


@pytest.mark.parametrize(("status", "heading"), HEADINGS.items())
def test_each_kind_of_error_has_a_whole_page_and_one_line_for_htmx(app: Flask, status: int, heading: str) -> None:
    """The client of the tests looks at the page itself: one h1, a title, whole forms, valid HTML."""
    app.add_url_rule("/wrong", "wrong", lambda: abort(status))
    page = app.test_client().get("/wrong")
    soup = BeautifulSoup(page.text, "html5lib")
    assert page.status_code == status and page.mimetype == "text/html"
    assert [h1.text for h1 in soup.select("h1")] == [heading]
    assert soup.title is not None and soup.title.text.startswith(heading)
    assert soup.select_one("main .errors[role=alert]") is not None
    fragment = app.test_client().get("/wrong", headers=HTMX)
    assert fragment.status_code == status and "<html" not in fragment.text
    line = BeautifulSoup(fragment.text, "html5lib").select(".errors[role=alert]")
    assert len(line) == 1 and line[0].has_attr("autofocus")


@pytest.mark.parametrize("status", [401, 406, 410, 415, 418, 421, 451, 501])
def test_an_error_of_which_nobody_thought_has_a_page_too(app: Flask, status: int) -> None:
    app.add_url_rule("/wrong", "wrong", lambda: abort(status))
    answer = app.test_client().get("/wrong")
    assert answer.status_code == status
    assert HEADINGS[400 if status < 500 else 500] in answer.text


def test_a_refusal_is_said_in_its_own_words(app: Flask) -> None:
    def refuse() -> str:
        raise Refused("This case has closed: it takes <no> more pledges.")

    app.add_url_rule("/refused", "refused", refuse)
    for headers in ({}, HTMX):
        answer = app.test_client().get("/refused", headers=headers)
        assert answer.status_code == 409
        assert "This case has closed: it takes &lt;no&gt; more pledges." in answer.text


def test_a_closed_case_takes_no_pledge_and_says_so(client: FlaskClient) -> None:
    its_round = a_case(slug="the-case", pledged=[9_500]).round
    pledge = a_pledge(its_round)
    link = pledge.link()
    its_round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())
    keep()
    before = everything()
    terms = {"amount": "25", "name": "Ada", "email": "ada@example.org", "agreed": "y", "form_key": "k" * 32}
    assert client.get("/cases/the-case/pledge").status_code == 409
    for where, sent in (
        ("/cases/the-case/pledges", terms),
        (f"/pledges/{link}/cancellation", {}),
        (f"/pledges/{link}/card-page", {}),
    ):
        answer = client.post(where, data=sent)
        assert answer.status_code == 409 and "closed" in answer.text, where
    assert everything() == before


# --- Our own mistakes --------------------------------------------------------------------------------------


@pytest.fixture
def broken(app: Flask) -> Flask:
    """A site with pages that break in ways that know something of somebody."""

    def key_error() -> str:
        return {"a": "b"}["missing"]

    def twice() -> str:
        for _ in range(2):
            db.session.add(
                User(email=request.form["email"], name=request.form["name"], bio="", picture="", role="owner",
                     password_hash="x", created_at=now())
            )  # fmt: skip
        db.session.flush()
        return "never seen"

    def no_table() -> str:
        db.session.execute(sa.text("SELECT :who FROM no_such_table"), {"who": request.form["email"]})
        return "never seen"

    for name, view in (("key-error", key_error), ("twice", twice), ("no-table", no_table)):
        app.add_url_rule(f"/broken/{name}", name, view, methods=["GET", "POST"])
    return app


@pytest.mark.parametrize("how", ["key-error", "twice", "no-table"])
def test_a_bug_is_logged_with_a_reference_that_the_page_names_and_tells_nothing_of_anybody(
    broken: Flask, how: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    sent = {"name": "canary", "email": "canary@example.org"}
    capfd.readouterr()
    answer = broken.test_client().post(f"/broken/{how}?hush=canary", data=sent)
    logged = "".join(capfd.readouterr()) + caplog.text
    assert answer.status_code == 500 and HEADINGS[500] in answer.text
    assert [word for word in INSIDE if word in answer.text] == []
    reference = answer.text.partition("name the number ")[2].partition(".")[0]
    assert len(reference) == 8 and f"reference={reference}" in logged
    assert f"endpoint={how}" in logged and "Error" in logged and "Traceback" in logged
    assert "canary" not in logged and "hush" not in logged


def test_htmx_hears_of_a_bug_in_one_line_with_the_reference(broken: Flask) -> None:
    answer = broken.test_client().get("/broken/key-error", headers=HTMX)
    assert answer.status_code == 500 and "<html" not in answer.text and "name the number" in answer.text


def test_a_bug_in_the_middle_of_a_post_leaves_nothing_half_done(broken: Flask) -> None:
    before = everything()
    assert broken.test_client().post("/broken/twice", data={"email": "a@b.c", "name": "A"}).status_code == 500
    assert everything() == before


def test_somebody_who_is_logged_in_gets_the_page_too_while_the_database_is_away(app: Flask) -> None:
    """The page would ask the database who is logged in; it must not fail for the same reason as the page before."""
    browser = logged_in(app, a_user("owner"))
    assert browser.get("/owner").status_code == 200
    db.session.execute(sa.text("ALTER TABLE users RENAME TO users_away"))
    db.session.commit()
    for where in ("/owner", "/", "/login"):
        answer = browser.get(where)
        assert answer.status_code == 500 and HEADINGS[500] in answer.text, where


@pytest.mark.parametrize("environment", ["development", "test"])
def test_no_debugger_is_at_any_address(app: Flask, environment: str) -> None:
    with set_otherwise(app, environment=environment) as site:
        assert site.debug is False
        for where in ("/console", "/?__debugger__=yes&cmd=resource&f=style.css"):
            assert "debugger" not in site.test_client().get(where).text.lower()


def test_a_page_that_waits_too_long_for_the_database_is_no_bug_and_says_when_to_come_back(
    app: Flask, capfd: pytest.CaptureFixture[str]
) -> None:
    """Somebody else holds the round, on SQLite the whole file, for longer than we wait."""
    round_id = a_case(slug="the-case", pledged=[9_500]).round.id
    keep()
    before = everything()
    db.session.remove()
    db.engine.dispose()
    sa.event.listen(db.engine, "connect", _impatient)
    terms = {"amount": "25", "name": "Ada", "email": "ada@example.org", "agreed": "y", "form_key": "k" * 32}
    with db.engine.connect() as other:
        other.execute(sa.select(Round.id).where(Round.id == round_id).with_for_update())
        for headers in ({}, HTMX):
            answer = app.test_client().post("/cases/the-case/pledges", data=terms, headers=headers)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
            assert ("<html" in answer.text) == (headers == {})
        other.rollback()
    assert "the database is away" in "".join(capfd.readouterr())
    assert everything() == before


def _impatient(connection: Any, _record: object) -> None:
    """Waits for a tenth of a second instead of ten."""
    cursor = connection.cursor()
    sqlite = db.engine.dialect.name == "sqlite"
    cursor.execute("PRAGMA busy_timeout = 100" if sqlite else "SET lock_timeout = '100ms'")
    cursor.close()
    connection.commit()
