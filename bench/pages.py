"""What the pages of a house that was used for long cost, beside those of a small one. `make bench-pages`, or

    python -m bench.pages --cases 200 --pledges 20000 --comments 5000

For each house it makes a database of its own and fills it (demo/big.py), asks for each page several times within this
process, and prints how many queries it took, how many thousand steps of SQLite, how much of the processor, and how many
times as much as in the small house. Quote the steps, which are the same on every machine, and the ratios, not the
seconds.
"""

import argparse
import datetime as dt
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade

import app as application
from demo import big
from models import User, UserSession, begin_writing, db

# Enough to fill a page of each list, and for more comments to wait than are counted.
SMALL = {"cases": 80, "pledges": 2_000, "comments": 2_400}
# (who looks, at which address)
PAGES = (
    ("", "/"),
    ("", "/?q=house"),
    ("", "/?q=house&show=funded&topic=health"),
    ("", "/?show=ending-soon"),
    ("", "/?show=funded"),
    ("", "/?show=ended&topic=health"),
    ("", "/?court=High+Court"),
    ("", "/topics/privacy"),
    ("", "/cases/big-1"),
    ("", "/cases/big-1/pledge-total"),
    ("", "/cases/big-1/pledge"),
    ("", "/cases/big-6"),
    (big.OWNER, "/owner"),
    (big.OWNER, "/owner/cases/big-1"),
    (big.OWNER, "/owner/cases/big-1/figures"),
    (big.OWNER, "/owner/cases/big-1/pledges"),
    (big.OWNER, "/owner/cases/big-1/pledges?q=winter"),
    (big.OWNER, "/owner/cases/big-1/pledges.csv"),
    (big.OWNER, "/owner/cases/big-1/updates/new"),
    (big.OWNER, "/owner/cases/big-6/pledges"),
    (big.MODERATOR, "/moderation"),
    (big.MODERATOR, "/moderation?order=risk&over=24"),
    (big.MODERATOR, "/moderation?case=big-1"),
    (big.MODERATOR, "/moderation?flagged=signs"),
    (big.MODERATOR, "/moderation?flagged=reported"),
    (big.MODERATOR, "/moderation/decided"),
    (big.MODERATOR, "/moderation/answers"),
    (big.MODERATOR, "/moderation/comments/1"),
    (big.STAFF, "/staff"),
    (big.STAFF, "/staff/books"),
    (big.STAFF, "/staff/moderation"),
    (big.STAFF, "/staff/looks"),
    (big.STAFF, "/staff/users"),
    (big.STAFF, "/staff?q=nobody"),
    (big.STAFF, "/staff/search?q=nobody@big.example.org"),
    (big.STAFF, "/staff/cases/big-1"),
    (big.STAFF, "/staff/cases/big-1/pledges"),
    (big.STAFF, "/staff/cases/big-1/pledges?q=nobody"),
    (big.STAFF, "/staff/cases/big-1/history"),
    (big.STAFF, "/staff/cases/big-6"),
    (big.STAFF, "/staff/cases/big-6/run"),
    (big.STAFF, "/staff/pledges/1"),
    (big.STAFF, "/staff/reviews/big-10"),
)


@dataclass(frozen=True)
class Cost:
    """Of one page: its queries, what SQLite did for them in steps of its own (0 for PostgreSQL), its seconds of the
    processor (SQLite's too), and its size in bytes."""

    queries: int
    steps: int
    seconds: float
    size: int


@contextmanager
def counted() -> Iterator[list[str]]:
    """Every query that is sent to the database meanwhile; what begins a transaction is none."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("PRAGMA", "BEGIN", "SET ")):
            sent.append(statement)

    sa.event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(db.engine, "before_cursor_execute", note)


@contextmanager
def stepped() -> Iterator[list[None]]:
    """One entry for every ten steps that SQLite takes meanwhile."""
    steps: list[None] = []
    watched: set[Any] = set()

    def watch(connection: Any, *_: object) -> None:
        driver = connection.connection.driver_connection
        if db.engine.dialect.name == "sqlite" and driver not in watched:
            watched.add(driver)
            driver.set_progress_handler(lambda: steps.append(None), 10)

    sa.event.listen(db.engine, "before_cursor_execute", watch)
    try:
        yield steps
    finally:
        sa.event.remove(db.engine, "before_cursor_execute", watch)
        for driver in watched:
            driver.set_progress_handler(None, 0)


def measure(app: Flask, house: dict[str, Any], times: int) -> dict[str, Cost]:
    """Fill the empty database of an application, and look at each of its pages."""
    with app.app_context():
        begin_writing()
        big.fill(**house)
        found = db.session.execute(sa.select(User)).scalars()
        people = {person.email: UserSession.begin(person, "", "", dt.datetime.now(dt.UTC)) for person in found}
        db.session.commit()
    return {address: look(app, people.get(who, ""), address, times) for who, address in PAGES}


def _in_a_house_of_its_own(house: dict[str, Any], times: int) -> dict[str, Cost]:
    with tempfile.TemporaryDirectory(prefix="standing-pages-") as folder:
        url = f"sqlite:///{folder}/standing.db"
        app = application.create_app({"environment": "test", "database_url": url, "site_url": "http://127.0.0.1:8000"})
        with app.app_context():
            begin_writing()
            upgrade()
        begun = time.monotonic()
        costs = measure(app, house, times)
        print(f"{house}: {time.monotonic() - begun:.1f} s in all")
        with app.app_context():
            db.session.remove()
            db.engine.dispose()
        return costs


def look(app: Flask, person: str, address: str, times: int) -> Cost:
    """What a page costs whoever has this mark in a log-in ("" for a stranger), looked at so often."""
    browser: FlaskClient = app.test_client()
    if person:
        with browser.session_transaction() as session:
            session["_user_id"] = person
    seconds, queries, size = [], 0, 0
    # The first look prepares what the later ones find prepared.
    for _ in range(times + 1):
        with app.app_context():
            watch = counted()
            sent = watch.__enter__()
        begun = time.process_time()
        answer = browser.get(address)
        seconds.append(time.process_time() - begun)
        with app.app_context():
            watch.__exit__(None, None, None)
        if answer.status_code != 200:
            raise SystemExit(f"{address} answered {answer.status_code}")
        queries, size = len(sent), len(answer.data)
    with app.app_context(), stepped() as steps:
        browser.get(address)
    return Cost(queries, 10 * len(steps), statistics.median(seconds[1:] or seconds), size)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--pledges", type=int, default=20_000)
    parser.add_argument("--comments", type=int, default=5_000)
    parser.add_argument("--times", type=int, default=9, help="how often each page is looked at")
    asked = parser.parse_args()
    print(f"Load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    small = _in_a_house_of_its_own(SMALL, asked.times)
    wanted = {"cases": asked.cases, "pledges": asked.pledges, "comments": asked.comments}
    large = _in_a_house_of_its_own(wanted, asked.times)
    print(f"{'page':44} {'queries':>9} {'1,000 steps':>14} {'small':>9} {'big':>9} {'ratio':>6} {'kB small, big':>16}")
    for _, address in PAGES:
        one, many = small[address], large[address]
        print(f"{address:44} {one.queries:4}{many.queries:5} {one.steps / 1000:6.1f} {many.steps / 1000:7.1f} "
              f"{one.seconds * 1000:6.1f} ms {many.seconds * 1000:6.1f} ms {many.seconds / one.seconds:6.2f} "
              f"{one.size / 1000:7.1f} {many.size / 1000:7.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
