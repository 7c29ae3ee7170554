"""The real database, SQLite or PostgreSQL: tables as migrated, what they refuse, and what readers see."""

import datetime as dt
import importlib.util
import io
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import downgrade, upgrade

from models import Base, Comment, Pledge, Round, begin_reading, begin_writing, db
from tests.conftest import ROOT
from tests.crowd import in_another_thread
from tests.made import a_case, keep, not_unique, now

SETTLED = ", settled_count = 1, settled_at = deadline"
CHARGE = "(case_id, kind, amount_pence, stripe_id, at)"


# --- Migrations --------------------------------------------------------------------------------------------


def test_the_migrations_make_exactly_the_tables_of_the_models(app: Flask, bare_database: str) -> None:
    assert _differences() == []
    made_by_the_models = sa.create_engine(bare_database, poolclass=sa.NullPool)
    Base.metadata.create_all(made_by_the_models)
    checks = _checks(db.engine)
    assert checks == _checks(made_by_the_models)
    assert len(checks) == sum(len(_named_checks(table)) for table in Base.metadata.tables.values()) > 20


def test_the_migrations_can_be_taken_back_and_made_again(app: Flask) -> None:
    a_case(pledged=[2_500])
    db.session.remove()
    downgrade(revision="base")
    assert sa.inspect(db.engine).get_table_names() == ["alembic_version"]
    upgrade()
    assert _differences() == []


def test_the_migrations_are_written_with_types_and_words_that_postgresql_takes() -> None:
    ours = io.StringIO()
    context = MigrationContext.configure(dialect_name="postgresql", opts={"as_sql": True, "output_buffer": ours})
    with Operations.context(context):
        for migration in _migrations():
            migration.upgrade()
    sql = ours.getvalue()
    assert "amount_pence BIGINT NOT NULL" in sql and "deadline TIMESTAMP WITH TIME ZONE NOT NULL" in sql
    assert "params JSON NOT NULL" in sql and "wants_updates BOOLEAN NOT NULL" in sql
    assert sql.count("CREATE TABLE") == len(Base.metadata.tables) and "DATETIME" not in sql


@pytest.mark.parametrize("table", sorted({*Base.metadata.tables}))
def test_all_money_is_big_integers_and_all_instants_keep_their_zone(table: str) -> None:
    for column in Base.metadata.tables[table].columns:
        if column.name.endswith("_pence"):
            assert isinstance(column.type, sa.BigInteger), column
        assert not isinstance(column.type, sa.Float | sa.Numeric | sa.DateTime), column


def _migrations() -> Iterator[ModuleType]:
    for file in sorted((ROOT / "migrations" / "versions").glob("*.py")):
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec and spec.loader
        migration = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(migration)
        yield migration


def _differences() -> list[Any]:
    with db.engine.connect() as connection:
        # The search has tables and an index of its own, which no model names.
        ours = {"include_name": lambda name, _kind, _parents: not (name or "").startswith("case_search")}
        return list(compare_metadata(MigrationContext.configure(connection, opts=ours), Base.metadata))


def _checks(engine: sa.Engine) -> set[tuple[str, str | None, str]]:
    """(table, name, condition) as the database words it: Alembic does not compare CHECKs, and ours guard the money."""
    look = sa.inspect(engine)
    return {
        (table, check["name"], check["sqltext"])
        for table in look.get_table_names()
        for check in look.get_check_constraints(table)
    }


def _named_checks(table: sa.Table) -> list[sa.CheckConstraint]:
    return [constraint for constraint in table.constraints if isinstance(constraint, sa.CheckConstraint)]


# --- What the tables refuse --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "by"),
    [
        ("UPDATE pledges SET amount_pence = 499, agreement_pence = 499", "amount_in_bounds"),
        ("UPDATE pledges SET amount_pence = 1000001, agreement_pence = 1000001", "amount_in_bounds"),
        ("UPDATE pledges SET amount_pence = 5000", "agreed_to_the_amount"),
        ("UPDATE pledges SET refunded_pence = 2501", "refund_within_amount"),
        ("UPDATE pledges SET refunded_pence = -1", "refund_within_amount"),
        ("UPDATE pledges SET status = 'paid'", "known_status"),
        ("UPDATE rounds SET target_pence = 0", "target_above_zero"),
        ("UPDATE rounds SET pledged_pence = -1", "counters_not_negative"),
        ("UPDATE rounds SET pledge_count = -1", "counters_not_negative"),
        ("UPDATE rounds SET status = 'won'", "known_status"),
        (f"UPDATE rounds SET status = 'met', settled_total_pence = 599999{SETTLED}", "met_means_met"),
        (f"UPDATE rounds SET status = 'missed', settled_total_pence = 600000{SETTLED}", "missed_means_missed"),
        ("UPDATE rounds SET status = 'met'", "decision_is_stored"),
        ("UPDATE rounds SET status = 'missed', settled_total_pence = 0, settled_count = 0", "decision_is_stored"),
        (f"INSERT INTO movements {CHARGE} VALUES (1, 'charge', 0, 'ch_1', '2026-01-01')", "charge_above_zero"),
        ("UPDATE cases SET status = 'won'", "known_status"),
        ("UPDATE users SET role = 'admin'", "known_role"),
        ("UPDATE pledges SET round_id = 999", "(?i)foreign key"),
        ("DELETE FROM rounds", "(?i)foreign key"),
    ],
)
def test_the_tables_themselves_refuse_what_the_law_does_not_know(app: Flask, broken: str, by: str) -> None:
    a_case(target=600_000, pledged=[2_500])
    with pytest.raises(sa.exc.IntegrityError, match=by):
        db.session.execute(sa.text(broken))
    db.session.rollback()


@pytest.mark.parametrize("column", ["public_id", "form_key", "session_id", "payment_intent_id"])
def test_two_pledges_never_share_what_must_be_their_own(app: Flask, column: str) -> None:
    a_case(target=600_000, pledged=[2_500, 2_500])
    with pytest.raises(sa.exc.IntegrityError, match=not_unique("pledges", column)):
        db.session.execute(sa.text(f"UPDATE pledges SET {column} = 'the same'"))
    db.session.rollback()


def test_an_instant_without_a_zone_is_not_stored_and_every_instant_comes_back_in_utc(app: Flask) -> None:
    its_round = a_case().round
    its_round.deadline = dt.datetime(2026, 10, 25, 1, 30, tzinfo=dt.timezone(dt.timedelta(hours=1)))
    keep()
    # Whatever the zone of the server: that of the tests' PostgreSQL is Pacific/Chatham.
    stored = db.session.scalars(sa.select(Round.deadline)).one()
    assert stored.isoformat() == "2026-10-25T00:30:00+00:00"
    its_round.deadline = dt.datetime(2026, 10, 25, 1, 30)  # noqa: DTZ001 - that is what must not work
    with pytest.raises(sa.exc.StatementError, match="a naive datetime cannot be stored"):
        db.session.flush()
    db.session.rollback()


# --- Connections -------------------------------------------------------------------------------------------


@pytest.mark.only_on("sqlite", why="PostgreSQL has no pragmas; its settings are looked at in test_postgresql.py")
def test_every_connection_is_made_safe_for_money(app: Flask) -> None:
    wanted = {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 10_000, "synchronous": 2}
    db.session.remove()
    connections = [db.engine.connect() for _ in range(3)]
    begin_reading()
    for connection in connections:
        assert {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in wanted} == wanted
    for connection in connections:
        connection.close()
    begin_writing()


def test_a_get_can_write_nothing_whatever_its_view_tries(app: Flask, client: FlaskClient) -> None:
    a_case(slug="a-case")
    said: list[str] = []

    @app.get("/try-to-write")
    def try_to_write() -> str:
        try:
            db.session.execute(sa.text("UPDATE rounds SET pledged_pence = 1"))
        except sa.exc.DBAPIError as refused:
            said.append(str(refused.orig))
        return ""

    client.get("/try-to-write")
    read_only = {"sqlite": "attempt to write a readonly database"}
    assert said == [read_only.get(db.engine.dialect.name, "cannot execute UPDATE in a read-only transaction")]
    begin_writing()
    assert db.session.scalar(sa.select(Round.pledged_pence)) == 0


@pytest.mark.broken_books("the total is counted up without pledges")
def test_the_connection_of_a_reader_can_write_again_for_the_next(app: Flask) -> None:
    """Pooled connections change hands, so the mode is set with each transaction."""
    a_case()
    for pence in (1, 2, 3):
        begin_reading()
        db.session.scalars(sa.select(Round)).one()
        begin_writing()
        db.session.execute(sa.update(Round).values(pledged_pence=pence))
        db.session.commit()
    assert db.session.scalar(sa.select(Round.pledged_pence)) == 3


@pytest.mark.broken_books("the total is counted up without pledges")
def test_a_reader_does_not_wait_for_a_writer(app: Flask) -> None:
    case = a_case(pledged=[2_500])
    Round.hold(case.round.id).count(5_000, 1, now())
    db.session.flush()
    assert in_another_thread(app, _read_total) == 2_500


def _read_total() -> int | None:
    begin_reading()
    return db.session.scalar(sa.select(Round.pledged_pence))


@pytest.mark.broken_books("the total is counted up without pledges")
def test_a_page_is_read_from_one_moment_whatever_is_written_meanwhile(app: Flask) -> None:
    """Or its total and its list of pledges could contradict each other."""
    round_id = a_case(pledged=[2_500]).round.id
    keep()
    begin_reading()
    seen = [db.session.scalar(sa.select(Round.pledged_pence))]
    in_another_thread(app, lambda: _add(round_id, 5_000))
    seen.append(db.session.scalar(sa.select(Round.pledged_pence)))
    begin_reading()
    seen.append(db.session.scalar(sa.select(Round.pledged_pence)))
    assert seen == [2_500, 2_500, 7_500]


def _add(round_id: int, pence: int) -> None:
    Round.hold(round_id).count(pence, 1, now())
    db.session.commit()


@pytest.mark.parametrize("table", [Round, Pledge, Comment])
def test_whoever_holds_a_row_asks_for_its_lock(app: Flask, table: Any) -> None:
    """SQLite locks the whole file instead, and writes no FOR UPDATE; that PostgreSQL's locks lock, see there."""
    its_round = a_case(pledged=[2_500]).round
    its_round.case.take_comment("Ada", "ada@example.org", "Well done.", now())
    keep()
    asked: list[str] = []

    def listen(state: Any) -> None:
        asked.append(str(state.statement.compile(dialect=sa.dialects.postgresql.dialect())))  # type: ignore[no-untyped-call]

    sa.event.listen(db.session, "do_orm_execute", listen)
    table.hold(1)
    sa.event.remove(db.session, "do_orm_execute", listen)
    held = [sql for sql in asked if sql.endswith("FOR UPDATE")]
    assert any(f"FROM {table.__tablename__} " in sql for sql in held)
    assert table is not Pledge or "FROM rounds " in held[0], "the round is held first, so that all lock in one order"
