"""How work grows with the number of pledges: many copies of one, and the steps that SQLite takes for a piece of work.

SQLite's own steps are the same on every machine, whatever else is running there.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from models import db


@dataclass
class Steps:
    """What was counted so far."""

    thousands: int = 0


@contextlib.contextmanager
def sqlites_steps() -> Iterator[Steps]:
    """Counts what SQLite does for this thread's session within the block, over all its transactions."""
    steps = Steps()

    def count() -> int:
        steps.thousands += 1
        return 0

    def watch(connection: Any, *_: Any) -> None:
        connection.connection.driver_connection.set_progress_handler(count, 1_000)

    sa.event.listen(db.engine, "before_cursor_execute", watch)
    try:
        yield steps
    finally:
        sa.event.remove(db.engine, "before_cursor_execute", watch)
        driver: Any = db.session.connection().connection.driver_connection
        driver.set_progress_handler(None, 0)


def copies_of_pledge(pledge_id: int, times: int) -> None:
    """Copy a confirmed pledge so often, with its agreement, its history and its letters; its round counts them."""
    last = db.session.execute(sa.text("SELECT max(id) FROM pledges")).scalar_one()
    for table, columns in {
        "pledges": {
            "id": "n",
            "public_id": "'p' || n",
            "form_key": "'f' || n",
            "session_id": "NULL",
            "payment_intent_id": "NULL",
        },
        "agreements": {"id": "NULL", "pledge_id": "n"},
        "events": {"id": "NULL", "subject_id": "n"},
        "letters": {"id": "NULL", "subject": "'pledge:' || n", "message_id": "'m' || n || kind"},
    }.items():
        # What the database makes by itself cannot be copied.
        names = [column.name for column in db.metadata.tables[table].columns if column.computed is None]
        copied = ", ".join(columns.get(name, f'"{name}"') for name in names)
        into = ", ".join(f'"{name}"' for name in names)
        which = {
            "pledges": "id = :one", "agreements": "pledge_id = :one", "letters": "subject = 'pledge:' || :one",
            "events": "subject_kind = 'pledge' AND subject_id = :one",
        }[table]  # fmt: skip
        copy = (  # The names are those of our own tables.
            f"INSERT INTO {table} ({into}) SELECT {copied} FROM {table}, numbers WHERE {which} ORDER BY n, {table}.id"  # noqa: S608 - names of our own tables
        )
        numbers = "SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last"
        statement = sa.text(f"WITH RECURSIVE numbers(n) AS ({numbers}) {copy}")
        db.session.execute(statement, {"one": pledge_id, "first": last + 1, "last": last + times})
    db.session.execute(sa.text(
        "UPDATE rounds SET (pledge_count, pledged_pence) = (SELECT count(*), coalesce(sum(amount_pence), 0) "
        "FROM pledges WHERE pledges.round_id = rounds.id AND pledges.status = 'confirmed') "
        "WHERE id = (SELECT round_id FROM pledges WHERE id = :one)"
    ), {"one": pledge_id})  # fmt: skip
    db.session.execute(sa.text(
        "UPDATE days SET (pledges, pence) = (SELECT pledge_count, pledged_pence FROM rounds "
        "WHERE rounds.id = days.round_id) WHERE round_id = (SELECT round_id FROM pledges WHERE id = :one)"
    ), {"one": pledge_id})  # fmt: skip
    db.session.commit()


def copies_of_case(case_id: int, times: int) -> None:
    """Copy a case so often, with its rounds and the words by which it is found; each a second older than the last."""
    last = db.session.execute(sa.text("SELECT max(id) FROM cases")).scalar_one()
    older = {name: f"datetime({name}, '-' || n || ' seconds') || '.000000'" for name in ("live_at", "deadline")}
    for table, columns in {
        "cases": {"id": "n", "slug": "'copy-' || n", "live_at": older["live_at"]},
        "rounds": {"id": "NULL", "case_id": "n", "deadline": older["deadline"]},
        "case_words": {"case_id": "n"},
    }.items():
        names = [column.name for column in db.metadata.tables[table].columns]
        copied, into = ", ".join(columns.get(name, name) for name in names), ", ".join(names)
        which = "id" if table == "cases" else "case_id"
        copy = f"INSERT INTO {table} ({into}) SELECT {copied} FROM {table}, numbers WHERE {which} = :one ORDER BY n"  # noqa: S608 - names of our own tables
        numbers = "SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n < :last"
        statement = sa.text(f"WITH RECURSIVE numbers(n) AS ({numbers}) {copy}")
        db.session.execute(statement, {"one": case_id, "first": last + 1, "last": last + times})
    db.session.commit()
