"""the search

Revision ID: 0002
Revises: 0001
Create Date: 2026-11-27

Each database keeps the words of `case_words` in an index of its own kind, and keeps it by itself.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# https://www.sqlite.org/fts5.html#external_content_tables
SQLITE = (
    "CREATE VIRTUAL TABLE case_search USING fts5(words, content='case_words', content_rowid='case_id')",
    """CREATE TRIGGER case_words_come AFTER INSERT ON case_words BEGIN
         INSERT INTO case_search(rowid, words) VALUES (new.case_id, new.words);
       END""",
    """CREATE TRIGGER case_words_go AFTER DELETE ON case_words BEGIN
         INSERT INTO case_search(case_search, rowid, words) VALUES ('delete', old.case_id, old.words);
       END""",
    """CREATE TRIGGER case_words_change AFTER UPDATE ON case_words BEGIN
         INSERT INTO case_search(case_search, rowid, words) VALUES ('delete', old.case_id, old.words);
         INSERT INTO case_search(rowid, words) VALUES (new.case_id, new.words);
       END""",
)
POSTGRESQL = ("CREATE INDEX case_search ON case_words USING gin (to_tsvector('simple', words))",)


def upgrade() -> None:
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRESQL:
        op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for what in ("TRIGGER case_words_come", "TRIGGER case_words_go", "TRIGGER case_words_change"):
            op.execute(f"DROP {what}")
        op.execute("DROP TABLE case_search")
    else:
        op.execute("DROP INDEX case_search")
