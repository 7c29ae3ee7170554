"""The pages of a house that was used for long: each costs a few queries, and as many as in a small house."""

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from flask import Flask

import app as application
import models
from bench import pages
from demo import big
from jobs import doctor
from law import Refused
from models import Case, Comment, Day, Letter, Pledge, Round, begin_writing, db
from tests.made import now

SMALL, LARGE = {"cases": 10, "pledges": 10, "comments": 10}, {"cases": 60, "pledges": 400, "comments": 400}
# A file for a spreadsheet has every pledge; what a case costs its readers grows with its text.
MOST = 12


@pytest.fixture
def empty_houses(new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Flask]]:
    """Two applications, each on a database of its own."""
    monkeypatch.setattr(models, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    apps = [
        application.create_app({
            "environment": "test", "database_url": new_database(), "redis_url": "unix:///nobody-listens.sock",
            "site_url": "http://127.0.0.1:8000",
        })
        for _ in range(2)
    ]  # fmt: skip
    yield apps
    for one in apps:
        with one.app_context():
            db.session.remove()
            db.engine.dispose()


def test_each_page_costs_at_most_12_queries_and_with_400_pledges_as_many_as_with_10(empty_houses: list[Flask]) -> None:
    small, large = (pages.measure(app, size, 1) for app, size in zip(empty_houses, (SMALL, LARGE), strict=True))
    assert {address: cost.queries for address, cost in large.items() if cost.queries > MOST} == {}
    assert {address: cost.queries for address, cost in large.items()} == {
        address: cost.queries for address, cost in small.items()
    }


def test_a_big_house_has_what_it_says_and_its_books_agree(app: Flask) -> None:
    big.fill(cases=20, pledges=300, comments=60)
    begin_writing()
    counted = [db.session.scalar(sa.select(sa.func.count(table.id))) for table in (Case, Pledge, Comment)]
    assert counted == [20, 300, 60]
    by_state = sa.select(Case.status, sa.func.count()).group_by(Case.status)
    standing = {row[0]: row[1] for row in db.session.execute(by_state)}
    assert standing == {"live": 10, "funded": 4, "missed": 4, "submitted": 2}
    assert db.session.scalar(sa.select(sa.func.count(Letter.id)).where(Letter.sent_at.is_(None))) == 0
    days = db.session.scalar(sa.select(sa.func.sum(Day.pence)))
    assert days and days == db.session.scalar(sa.select(sa.func.sum(Round.pledged_pence)))
    assert doctor.examine(now()) == []
    with pytest.raises(Refused, match="The big house stands already"):
        big.fill(cases=20, pledges=300, comments=60)
