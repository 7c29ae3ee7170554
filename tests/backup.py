"""A copy of all rows, and the way back to it, on either database."""

from typing import Any

import sqlalchemy as sa

from models import Base, db
from tests.made import keep

Backup = dict[str, list[dict[str, Any]]]


def back_up() -> Backup:
    """Every row of every table, as it is now."""
    # What the database computes by itself cannot be given back to it.
    own = {table: [column for column in table.columns if column.computed is None] for table in _tables()}
    rows = {t.name: [dict(row) for row in db.session.execute(sa.select(*own[t])).mappings()] for t in _tables()}
    keep()
    return rows


def restore(backup: Backup) -> None:
    """As if nothing had happened since, here; what happened at Stripe has happened."""
    for table in reversed(_tables()):
        db.session.execute(sa.delete(table))
    for table in _tables():
        if table.name == "tallies":
            db.session.execute(sa.delete(table))
        if backup[table.name]:
            db.session.execute(sa.insert(table), backup[table.name])
    keep()
    db.session.expire_all()


def _tables() -> list[sa.Table]:
    """In an order in which they can be filled. The database writes its tallies while it fills the others, so theirs is
    the last."""
    return sorted(Base.metadata.sorted_tables, key=lambda table: table.name == "tallies")
