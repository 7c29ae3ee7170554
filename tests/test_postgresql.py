"""What only PostgreSQL has: locks of single rows, limits of a connection, errors that quote people, forks."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

import models
from models import Case, Comment, Pledge, Round, begin_reading, begin_writing, db, is_away
from tests.conftest import ROOT
from tests.crowd import in_another_thread
from tests.house import eventually
from tests.made import a_case, a_user, keep, now

pytestmark = pytest.mark.only_on("postgresql", why="SQLite has one lock for the whole file, and no server")
LIMITS = {
    "default_transaction_isolation": "read committed",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "1min",
}


@pytest.fixture
def limited(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Connections from here on with shorter limits, so that a test need not wait for the real ones."""

    def limit(**settings: str) -> None:
        keep()
        db.session.remove()
        db.engine.dispose()
        for name, value in settings.items():
            monkeypatch.setitem(models.POSTGRESQL_SETTINGS, name, value)
        begin_writing()

    return limit


@contextmanager
def another_connection() -> Iterator[sa.Connection]:
    """Somebody else on the same database, outside of our session."""
    with db.engine.connect() as connection:
        yield connection
        connection.rollback()


def can_lock(table: type[models.Base], row_id: int) -> bool:
    """Whether somebody else could hold this row now, without waiting."""
    with another_connection() as other:
        free = sa.text(f"SELECT id FROM {table.__tablename__} WHERE id = :id FOR UPDATE SKIP LOCKED")
        return other.scalar(free, {"id": row_id}) is not None


# --- Rows --------------------------------------------------------------------------------------------------


def test_who_holds_a_pledge_holds_its_round_too_and_nothing_else(app: Flask) -> None:
    case, other_case = a_case(pledged=[2_500, 2_500]), a_case(pledged=[2_500])
    mine, neighbour = [pledge.id for pledge in case.round.pledges("confirmed")]
    (elsewhere,) = [pledge.id for pledge in other_case.round.pledges("confirmed")]
    round_id, other_round_id = case.round.id, other_case.round.id
    keep()
    Pledge.hold(mine)
    assert not can_lock(Pledge, mine) and not can_lock(Round, round_id)
    assert can_lock(Pledge, neighbour) and can_lock(Pledge, elsewhere) and can_lock(Round, other_round_id)
    db.session.rollback()
    assert can_lock(Pledge, mine) and can_lock(Round, round_id)


@pytest.mark.parametrize("table", [Round, Comment])
def test_who_holds_a_row_keeps_others_from_it_until_the_commit(app: Flask, table: Any) -> None:
    a_case().take_comment("Ada", "ada@example.org", "Well done.", now())
    keep()
    table.hold(1)
    assert not can_lock(table, 1)
    db.session.commit()
    assert can_lock(table, 1)


@pytest.mark.broken_books("the round is counted up without a pledge, to have something written")
def test_readers_hold_nothing_and_wait_for_nobody(app: Flask) -> None:
    round_id = a_case(pledged=[2_500]).round.id
    keep()
    begin_reading()
    db.session.get_one(Round, round_id)
    # Asked in a thread of its own, since a reader can lock nothing at all.
    assert in_another_thread(app, lambda: can_lock(Round, round_id))
    begin_writing()
    Round.hold(round_id).count(1, 1, now())
    db.session.flush()
    with another_connection() as other:
        assert other.scalar(sa.select(Round.pledged_pence)) == 2_500


# --- Limits ------------------------------------------------------------------------------------------------


def test_every_connection_gives_up_in_time_and_is_what_our_locks_were_written_for(app: Flask) -> None:
    with another_connection() as other:
        assert {name: other.exec_driver_sql(f"SHOW {name}").scalar() for name in LIMITS} == LIMITS
        connected = dict(word.split("=") for word in other.connection.dbapi_connection.info.dsn.split())  # type: ignore[union-attr]
    assert {"connect_timeout": "5", "keepalives_idle": "30", "tcp_user_timeout": "30000"}.items() <= connected.items()


def test_a_transaction_that_was_forgotten_lets_go_of_its_rows(app: Flask, limited: Callable[..., None]) -> None:
    round_id = a_case(pledged=[2_500]).round.id
    limited(idle_in_transaction_session_timeout="200ms")
    Round.hold(round_id).count(1, 1, now())
    db.session.flush()
    assert not can_lock(Round, round_id)
    eventually(lambda: can_lock(Round, round_id), within=10, why="the row was held for ever")
    with pytest.raises(sa.exc.DBAPIError) as lost:
        db.session.scalar(sa.select(1))
    assert is_away(lost.value)
    db.session.rollback()
    assert Round.hold(round_id).pledged_pence == 2_500


def test_a_statement_that_never_ends_is_ended(app: Flask, limited: Callable[..., None]) -> None:
    limited(statement_timeout="200ms")
    with pytest.raises(sa.exc.OperationalError) as ended:
        db.session.execute(sa.text("SELECT pg_sleep(60)"))
    assert is_away(ended.value)
    db.session.rollback()


def test_a_connection_that_the_server_has_closed_costs_the_next_reader_nothing(app: Flask) -> None:
    a_case(slug="the-case")
    client = app.test_client()
    assert client.get("/cases/the-case").status_code == 200
    db.session.rollback()
    with another_connection() as other:
        other.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert client.get("/cases/the-case").status_code == 200


# --- What is said of people --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        "UPDATE users SET email = lower(name)",
        "UPDATE users SET role = 'admin'",
        "UPDATE users SET bio = NULL",
    ],
    ids=["unique", "check", "not null"],
)
def test_an_error_names_the_rule_and_quotes_no_row(app: Flask, broken: str) -> None:
    """Its text ends in logs, and at RQ in Redis."""
    for email in ("canary@example.org", "other@example.org"):
        a_user(email=email, name="Canary")
    with pytest.raises(sa.exc.IntegrityError) as refused:
        db.session.execute(sa.text(broken))
    db.session.rollback()
    for said in (str(refused.value), str(refused.value.orig)):
        assert "violates" in said and "canary" not in said.lower() and "DETAIL" not in said


def test_a_text_longer_than_its_column_is_refused_and_not_cut(app: Flask) -> None:
    """SQLite keeps whatever it is given, so the forms' own limits are what counts there."""
    a_case()
    with pytest.raises(sa.exc.DataError, match="too long for type character varying"):
        db.session.execute(sa.update(Case).values(title="x" * 161))
    db.session.rollback()


# --- One server, many processes ----------------------------------------------------------------------------


FORKED = """
import os
import rq
import sqlalchemy as sa
import app
from jobs import queue
from models import db

def backend():
    number = db.session.scalar(sa.text("SELECT pg_backend_pid()"))
    db.session.rollback()
    return number

with app.create_app().app_context():
    mine = backend()
    rq.Worker.main_work_horse = lambda *_: os._exit(0 if backend() != mine else 3)
    if os.fork() == 0:
        queue.StandingWorker.main_work_horse(object.__new__(queue.StandingWorker), None, None)
    print("child", os.waitstatus_to_exitcode(os.wait()[1]), "parent", backend() == mine)
"""


def test_a_job_does_not_talk_over_the_connection_of_the_worker_that_was_forked(app: Flask) -> None:
    """Two processes on one connection read each other's answers."""
    keep()
    settings = {"ENVIRONMENT": "test", "DATABASE_URL": str(app.config["SQLALCHEMY_DATABASE_URI"])}
    ran = subprocess.run(
        [sys.executable, "-c", FORKED], cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False
    )
    assert ran.stdout == "child 0 parent True\n", ran.stderr
