"""Idempotency keys: the same key gives the same answer, and the work is done once.

Answers are kept for 24 hours of the sandbox's clock. A mark "in flight" lives only in memory, so it cannot
outlive the process that would have finished the work.
"""

import hashlib
import json
import threading
from dataclasses import dataclass

from sandbox.core import Sandbox
from sandbox.errors import bad_request, key_in_use, key_used_otherwise

KEPT_FOR = 24 * 60 * 60  # seconds
LONGEST_KEY = 255


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: the status, the body as JSON text, and whether it was given before."""

    status: int
    body: str
    replayed: bool = False


class Keys:
    """The keys of one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._in_flight: dict[str, str] = {}
        self._guard = threading.Lock()

    def begin(self, key: str, fingerprint: str) -> Answer | None:
        """The answer saved under the key, or None when the caller is to do the work and call `end`.

        Raises StripeRefusal: 400 when the key was used for something else, 409 while it is in flight.
        """
        if len(key) > LONGEST_KEY:
            raise bad_request(f"Idempotency keys can have at most {LONGEST_KEY} characters.")
        with self._guard:
            if key in self._in_flight:
                raise key_in_use(key) if self._in_flight[key] == fingerprint else key_used_otherwise(key)
            saved = self._saved(key)
            if saved is None:
                self._in_flight[key] = fingerprint
                return None
            if saved[0] != fingerprint:
                raise key_used_otherwise(key)
            return saved[1]

    def end(self, key: str) -> None:
        with self._guard:
            self._in_flight.pop(key, None)

    def save(self, key: str, fingerprint: str, answer: Answer) -> None:
        """Keep the answer; called inside the transaction that did the work."""
        self._sandbox.store.write(
            "INSERT OR REPLACE INTO answers (key, fingerprint, status, body, created) VALUES (?, ?, ?, ?, ?)",
            key, fingerprint, answer.status, answer.body, self._sandbox.now(),
        )  # fmt: skip

    def prune(self) -> None:
        """Forget the answers that are older than 24 hours."""
        with self._sandbox.store.change():
            self._sandbox.store.write("DELETE FROM answers WHERE created <= ?", self._sandbox.now() - KEPT_FOR)

    def _saved(self, key: str) -> tuple[str, Answer] | None:
        row = self._sandbox.store.row(
            "SELECT * FROM answers WHERE key = ? AND created > ?", key, self._sandbox.now() - KEPT_FOR
        )
        if row is None:
            return None
        return row["fingerprint"], Answer(row["status"], row["body"], replayed=True)


def fingerprint(method: str, path: str, pairs: list[tuple[str, str]]) -> str:
    """What must be the same when a key is used again: the method, the path and the parameters in any order."""
    return hashlib.sha256(json.dumps([method, path, sorted(pairs)]).encode()).hexdigest()
