"""The disk is full, and a backup is made while everybody writes: SQLite's own file, with its real errors."""

import contextlib
import datetime as dt
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import app as application
from jobs import doctor
from models import Case, Letter, Pledge, Round, StripeEvent, begin_reading, begin_writing, db
from tests.at_stripe import calls
from tests.charged import charge_due, due
from tests.crowd import at_once
from tests.doorway import SAME_ORIGIN
from tests.made import a_case, a_pledge, confirm, keep, look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess
from tests.test_webhook_door import an_event, knock

pytestmark = pytest.mark.only_on("sqlite", why="the limit is one of its own, and its backup is a copy of its one file")

CREATE = "payment_intents.create"


@contextmanager
def disk_is_full(room_for_pages: int = 0) -> Iterator[None]:
    """No connection may make the file larger than it is, but for so many pages of 4 KiB; what is free in it is used up.

    Raises what SQLite raises on a full disk.
    """
    engine = db.engine
    db.session.rollback()
    begin_writing()
    # Only free pages are used up here: rows of one table do not fill the last pages of the others.
    size = db.session.scalar(sa.text("PRAGMA page_count")) or 0
    db.session.rollback()

    def limit(connection: sqlite3.Connection, *_: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {size + room_for_pages}")

    def unlimited(connection: sqlite3.Connection, *_: Any) -> None:
        connection.execute("PRAGMA max_page_count = 1073741823")

    sa.event.listen(engine, "checkout", limit)
    db.session.remove()
    try:
        yield
    finally:
        sa.event.remove(engine, "checkout", limit)
        sa.event.listen(engine, "checkout", unlimited)
        db.session.remove()
        begin_writing()


def rows_of(table: type[Any]) -> int:
    look_anew()
    return db.session.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def form(amount: str = "25", name: str = "Ada Winter") -> dict[str, str]:
    return {"amount": amount, "name": name, "email": "ada@example.org", "agreed": "y", "form_key": "k" * 32}


def test_news_that_finds_the_disk_full_is_not_acknowledged_and_is_kept_when_it_comes_again(
    app: Flask, client: FlaskClient
) -> None:
    a_case()
    body = json.dumps(an_event(id="evt_1") | {"padding": "x" * 20_000}).encode()
    with disk_is_full():
        assert knock(client, body).status_code == 503
    assert rows_of(StripeEvent) == 0
    assert knock(client, body).status_code == 200
    assert knock(client, body).status_code == 200
    assert rows_of(StripeEvent) == 1


def test_a_comment_that_finds_the_disk_full_gets_a_503_page_and_pages_are_still_read(
    app: Flask, client: FlaskClient
) -> None:
    slug = a_case().slug
    keep()
    words = {"email": "ada@example.org", "body": "Good luck. " * 360}
    with disk_is_full():
        refused = client.post(f"/cases/{slug}/comments", data=words, headers=SAME_ORIGIN)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
        assert client.get(f"/cases/{slug}").status_code == 200
    assert client.post(f"/cases/{slug}/comments", data=words, headers=SAME_ORIGIN).status_code in (200, 303)


@pytest.mark.parametrize("room_for_pages", [0, 1])
def test_a_disk_that_fills_up_while_cards_are_charged_charges_none_twice_and_none_unwritten(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, room_for_pages: int
) -> None:
    """What is about to be asked is committed first, and what cannot be committed is not asked."""
    due(sandbox, *[2_500] * 20)
    with disk_is_full(room_for_pages):
        with contextlib.suppress(sa.exc.OperationalError):
            charge_due()
        db.session.rollback()
    look_anew()
    written = {attempt.key for pledge in pledges_of("the-case") for attempt in pledge.attempts}
    asked = {call["idempotency_key"] for call in calls(sandbox, CREATE)}
    assert asked <= written
    # Some were charged, and that could not be written down; some could not even be begun.
    assert {"charging", "due"} <= {pledge.status for pledge in pledges_of("the-case")}
    for pledge in pledges_of("the-case"):
        pledge.next_at = pledge.next_at and now()
    db.session.execute(sa.text("DELETE FROM leases"))
    keep()
    charge_due()
    assert {pledge.status for pledge in pledges_of("the-case")} == {"charged"}
    paid = requests.get(f"{sandbox.url}/v1/payment_intents", {"limit": 100}, timeout=30,
                        headers={"Authorization": "Bearer sk_test_x"}).json()["data"]  # fmt: skip
    assert sorted(int(one["metadata"]["pledge_id"]) for one in paid) == list(range(1, 21))


# --- Backups -----------------------------------------------------------------------------------------------


def by_vacuum(source: Path, copy: Path) -> None:
    with sqlite3.connect(source, timeout=30) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))


def by_backup(source: Path, copy: Path) -> None:
    with sqlite3.connect(source, timeout=30) as connection, sqlite3.connect(copy) as target:
        connection.backup(target, pages=5)


@pytest.mark.parametrize("back_up", [by_vacuum, by_backup])
def test_a_backup_made_while_four_write_is_whole_and_stops_nobody(app: Flask, tmp_path: Path, back_up: Any) -> None:
    round_id = a_case(target=600_000).round.id
    source = Path(str(db.engine.url.database))
    keep()
    copies = [tmp_path / f"copy-{number}.db" for number in range(4)]
    written = threading.Event()

    def write() -> None:
        for _ in range(25):
            confirm(a_pledge(Round.hold(round_id), 2_500))
            db.session.commit()
            written.set()

    def copy() -> None:
        assert written.wait(30)
        for place in copies:
            back_up(source, place)

    at_once(app, copy, *[write] * 4)
    assert rows_of(Pledge) == 100
    for place in copies:
        restored = application.create_app({"environment": "test", "database_url": f"sqlite:///{place}"})
        with restored.app_context():
            begin_reading()
            assert doctor.examine(dt.datetime(2000, 1, 1, tzinfo=dt.UTC)) == []
            counted = db.session.scalars(sa.select(Case)).one().round
            assert (counted.pledge_count, counted.pledged_pence) == (rows_of(Letter), rows_of(Letter) * 2_500)
            assert 0 < counted.pledge_count <= 100
            db.session.remove()
            db.engine.dispose()
    begin_writing()
