"""the tallies

Revision ID: 0003
Revises: 0002
Create Date: 2026-11-27

Each database keeps `tallies` by itself, whoever changes the rows: see models.Tally.

SQLite has one writer at a time, so that a line can be changed in place. On PostgreSQL all who charge would wait for
each other at that line, and in no order; there each statement adds loose lines, which are folded later.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _in_place(sign: str, subject: str, what: str, pence: str, refunded: str, where: str) -> str:
    """For a trigger of SQLite: a line for this kind if it has none, and what is added to it."""
    return f"""
         INSERT INTO tallies(subject, what, count, pence, refunded, loose)
           SELECT {subject}, {what}, 0, 0, 0, 0 WHERE {where}
           AND NOT EXISTS (SELECT 1 FROM tallies WHERE subject = {subject} AND what = {what});
         UPDATE tallies
           SET count = count {sign} 1, pence = pence {sign} {pence}, refunded = refunded {sign} {refunded}
           WHERE {where} AND subject = {subject} AND what = {what};"""


def _pledge(sign: str, row: str) -> str:
    return _in_place(
        sign, f"'round:' || {row}.round_id", f"{row}.status", f"{row}.amount_pence", f"{row}.refunded_pence",
        f"{row}.confirmed_at IS NOT NULL",
    )  # fmt: skip


TALLIED = "round_id, status, amount_pence, refunded_pence, confirmed_at"
SQLITE = (
    f"CREATE TRIGGER pledges_come AFTER INSERT ON pledges BEGIN {_pledge('+', 'new')} END",
    f"CREATE TRIGGER pledges_go AFTER DELETE ON pledges BEGIN {_pledge('-', 'old')} END",
    f"""CREATE TRIGGER pledges_change AFTER UPDATE OF {TALLIED} ON pledges
        BEGIN {_pledge("-", "old")} {_pledge("+", "new")} END""",
    f"""CREATE TRIGGER fees_come AFTER INSERT ON movements WHEN new.kind = 'fee'
        BEGIN {_in_place("+", "'case:' || new.case_id", "'fee'", "new.amount_pence", "0", "new.kind = 'fee'")} END""",
)


def _rows(sign: str, table: str) -> str:
    return f"""SELECT 'round:' || round_id AS subject, status AS what, {sign}1 AS count, {sign}amount_pence AS pence,
                      {sign}refunded_pence AS refunded
               FROM {table} WHERE confirmed_at IS NOT NULL"""


def _loose(name: str, rows: str) -> str:
    """A function of PostgreSQL that adds up the rows of one statement."""
    return f"""CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        INSERT INTO tallies(subject, what, count, pence, refunded, loose)
          SELECT subject, what, sum(count), sum(pence), sum(refunded), true FROM ({rows}) AS changed
          GROUP BY subject, what HAVING sum(count) <> 0 OR sum(pence) <> 0 OR sum(refunded) <> 0;
        RETURN NULL;
      END $$"""


FEES = """SELECT 'case:' || case_id AS subject, kind AS what, 1 AS count, amount_pence AS pence, 0 AS refunded
          FROM new_rows WHERE kind = 'fee'"""
POSTGRESQL = (
    _loose("pledges_come", _rows("+", "new_rows")),
    _loose("pledges_go", _rows("-", "old_rows")),
    _loose("pledges_change", f"{_rows('-', 'old_rows')} UNION ALL {_rows('+', 'new_rows')}"),
    _loose("fees_come", FEES),
    """CREATE TRIGGER pledges_come AFTER INSERT ON pledges REFERENCING NEW TABLE AS new_rows
       FOR EACH STATEMENT EXECUTE FUNCTION pledges_come()""",
    """CREATE TRIGGER pledges_go AFTER DELETE ON pledges REFERENCING OLD TABLE AS old_rows
       FOR EACH STATEMENT EXECUTE FUNCTION pledges_go()""",
    """CREATE TRIGGER pledges_change AFTER UPDATE ON pledges REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
       FOR EACH STATEMENT EXECUTE FUNCTION pledges_change()""",
    """CREATE TRIGGER fees_come AFTER INSERT ON movements REFERENCING NEW TABLE AS new_rows
       FOR EACH STATEMENT EXECUTE FUNCTION fees_come()""",
)
TRIGGERS = {"pledges": ("pledges_come", "pledges_go", "pledges_change"), "movements": ("fees_come",)}


def upgrade() -> None:
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    for table, names in TRIGGERS.items():
        for name in names:
            op.execute(f"DROP TRIGGER {name}" if sqlite else f"DROP TRIGGER {name} ON {table}")
            if not sqlite:
                op.execute(f"DROP FUNCTION {name}()")
