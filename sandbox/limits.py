"""How many calls are let through, and how long each takes: Stripe's rate limits, and the way to Stripe and back.

Stripe allows an account so many calls a second in all, and so many for each kind of call; what is above gets 429, and
neither is done nor kept under its key. A refused call does not count.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from sandbox.store import Document, Store

SECOND = 1.0
NAMES = ("per_endpoint", "in_all", "latency")


class Limits:
    """The limits of one sandbox; kept in the state file, so they hold over a restart. 0 is no limit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._guard = threading.Lock()
        self._seen: dict[str, deque[float]] = {}
        self._read()

    def _read(self) -> None:
        self.per_endpoint, self.in_all, self.latency = (float(self._store.setting(name, "0")) for name in NAMES)

    def all(self) -> Document:
        return {"per_endpoint": self.per_endpoint, "in_all": self.in_all, "latency": self.latency}

    def change(self, wanted: Mapping[str, Any]) -> None:
        """Set those that are named: calls a second for each operation, calls a second in all, seconds for each call.

        Raises ValueError, in words for the person who wrote it.
        """
        unknown = set(wanted) - set(NAMES)
        if unknown:
            raise ValueError(f"Unknown limit: {', '.join(sorted(unknown))}.")
        try:
            values = {name: float(value) for name, value in wanted.items()}
        except (TypeError, ValueError) as error:
            raise ValueError("A limit is a number; 0 is none.") from error
        if not all(0 <= value < 1_000_000 for value in values.values()):
            raise ValueError("A limit is a number from 0.")
        with self._store.change():
            for name, value in values.items():
                self._store.set_setting(name, str(value))
        self._read()

    def let_through(self, operation: str) -> bool:
        """Whether one more call of this operation fits into the second that ends now."""
        now = time.monotonic()
        limits = {operation: self.per_endpoint, "*": self.in_all}
        with self._guard:
            counted = {name: self._last_second(name, now) for name, limit in limits.items() if limit}
            if any(len(times) >= limits[name] for name, times in counted.items()):
                return False
            for times in counted.values():
                times.append(now)
            return True

    def _last_second(self, name: str, now: float) -> deque[float]:
        times = self._seen.setdefault(name, deque())
        while times and times[0] <= now - SECOND:
            times.popleft()
        return times
