"""Where the sandbox keeps everything: one SQLite file, JSON documents in it, one lock around changes.

The answer under an Idempotency-Key is written in the same transaction as the work it answers for, so that
a `kill -9` can never leave one without the other.
"""

import json
import secrets
import sqlite3
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.errors import StripeRefusal

Document = dict[str, Any]

SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, kind TEXT NOT NULL,
    created INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_by_kind ON objects (kind, seq);
CREATE INDEX IF NOT EXISTS objects_by_customer ON objects (kind, json_extract(body, '$.customer'));
CREATE INDEX IF NOT EXISTS objects_by_status ON objects (kind, json_extract(body, '$.status'));
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL, endpoint_id TEXT NOT NULL,
    state TEXT NOT NULL, next_at REAL NOT NULL, tries TEXT NOT NULL DEFAULT '[]');
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (state, next_at, id);
CREATE INDEX IF NOT EXISTS deliveries_by_event ON deliveries (event_id);
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, operation TEXT NOT NULL, method TEXT NOT NULL,
    path TEXT NOT NULL, idempotency_key TEXT, params TEXT NOT NULL, status INTEGER, fault TEXT,
    replayed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS faults (
    id INTEGER PRIMARY KEY AUTOINCREMENT, seen INTEGER NOT NULL DEFAULT 0, acted INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
TABLES = ("objects", "answers", "deliveries", "calls", "faults", "settings")

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """An id such as pi_3Qb..., in Stripe's form."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(24))


class Store:
    """The SQLite file, or ":memory:" for tests that drive the sandbox in their own process."""

    def __init__(self, path: str) -> None:
        if path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
        self._connection.row_factory = sqlite3.Row
        self._lock = threading.RLock()
        self._depth = 0
        self._connection.execute("PRAGMA journal_mode=WAL")
        # Survives the death of this process; only a power cut could lose the last moments, which is fine here.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(SCHEMA)

    @contextmanager
    def change(self) -> Iterator[None]:
        """One transaction under the one lock. May be nested; never sleep or send anything inside."""
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except StripeRefusal:
                self._leave(keep=True)
                raise
            except BaseException:
                self._leave(keep=False)
                raise
            self._leave(keep=True)

    def _leave(self, keep: bool) -> None:
        self._depth -= 1
        if self._depth == 0 and self._connection.in_transaction:
            self._connection.execute("COMMIT" if keep else "ROLLBACK")

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Inside a change: a refusal that counts as "never begun" takes back what was written on the way to it."""
        self.write("SAVEPOINT attempt")
        try:
            yield
        except StripeRefusal as refusal:
            if not refusal.saved:
                self.write("ROLLBACK TO attempt")
            self.write("RELEASE attempt")
            raise
        self.write("RELEASE attempt")

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        found = self.rows(sql, *values)
        return found[0] if found else None

    def write(self, sql: str, *values: Any) -> int:
        """Run one statement; returns the id of the row it inserted, if it did."""
        with self._lock:
            return self._connection.execute(sql, values).lastrowid or 0

    def put(self, document: Document) -> None:
        """Keep a document under its id, new or changed."""
        self.write(
            "INSERT INTO objects (id, kind, created, body) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            document["id"], document["object"], document["created"], json.dumps(document),
        )  # fmt: skip

    def get(self, kind: str, object_id: str) -> Document | None:
        found = self.row("SELECT body FROM objects WHERE id = ? AND kind = ?", object_id, kind)
        return json.loads(found["body"]) if found else None

    def delete(self, object_id: str) -> None:
        self.write("DELETE FROM objects WHERE id = ?", object_id)

    def documents(self, kind: str, status: str | None = None) -> list[Document]:
        """All documents of a kind, oldest first; with a status, only those in it."""
        if status is None:
            found = self.rows("SELECT body FROM objects WHERE kind = ? ORDER BY seq", kind)
        else:
            found = self.rows(
                "SELECT body FROM objects WHERE kind = ? AND json_extract(body, '$.status') = ? ORDER BY seq",
                kind, status,
            )  # fmt: skip
        return [json.loads(row["body"]) for row in found]

    def latest(self, kind: str, limit: int) -> list[Document]:
        found = self.rows("SELECT body FROM objects WHERE kind = ? ORDER BY seq DESC LIMIT ?", kind, limit)
        return [json.loads(row["body"]) for row in found]

    def setting(self, name: str, default: str = "") -> str:
        found = self.row("SELECT value FROM settings WHERE name = ?", name)
        return str(found["value"]) if found else default

    def set_setting(self, name: str, value: str) -> None:
        self.write(
            "INSERT INTO settings (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            name, value,
        )  # fmt: skip

    def empty(self) -> None:
        """Forget everything, the clock included; webhook endpoints stay, they are the surroundings."""
        with self.change():
            self.write("DELETE FROM objects WHERE kind <> 'webhook_endpoint'")
            for table in TABLES[1:]:
                self.write(f"DELETE FROM {table}")

    def close(self) -> None:
        with self._lock:
            self._connection.close()
