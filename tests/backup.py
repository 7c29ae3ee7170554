"""A copy of all rows and the way back to it, on either database; and what of them people have typed."""

from typing import Any

import sqlalchemy as sa

from models import Base, db
from tests.made import keep

Backup = dict[str, list[dict[str, Any]]]
# The columns, of whatever table, in which people's own words stand.
PEOPLES_OWN = ("name", "message", "body", "public_body", "answer", "words", "title", "story", "summary", "bio", "firm",
               "lawyer", "who_we_are", "risks", "picture_alt", "card_words")  # fmt: skip


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


def typed_by_people() -> set[str]:
    """The names, and the beginnings of all words of people, that the database holds now. One word alone is no name."""
    found = set[str]()
    for table in db.metadata.sorted_tables:
        for column in (one for one in table.columns if one.name in PEOPLES_OWN and one.type.python_type is str):
            typed = db.session.scalars(sa.select(column).where(column.is_not(None)).distinct())
            found |= {words.strip()[:60] for words in typed if " " in words.strip()[:60]}
    return found


def _tables() -> list[sa.Table]:
    """In an order in which they can be filled. The database writes its tallies while it fills the others, so theirs is
    the last."""
    return sorted(Base.metadata.sorted_tables, key=lambda table: table.name == "tallies")
