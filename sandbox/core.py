"""The sandbox itself, without HTTP: its clock, its objects, the events it writes and what they show."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from sandbox.cards import Decline
from sandbox.errors import bad_request, no_such
from sandbox.faults import EVENTS, FaultPlan
from sandbox.limits import Limits
from sandbox.store import Document, Store, new_id

API_VERSION = "2026-10-28.endive"

# Which fields of which object name another object, and of which kind that is.
EXPANDABLE = {
    "checkout.session": {
        "setup_intent": "setup_intent",
        "payment_intent": "payment_intent",
        "customer": "customer",
    },
    "setup_intent": {"payment_method": "payment_method", "customer": "customer"},
    "payment_intent": {"latest_charge": "charge", "payment_method": "payment_method", "customer": "customer"},
    "charge": {
        "balance_transaction": "balance_transaction",
        "payment_intent": "payment_intent",
        "customer": "customer",
    },
    "payment_method": {"customer": "customer"},
    "refund": {
        "balance_transaction": "balance_transaction",
        "charge": "charge",
        "failure_balance_transaction": "balance_transaction",
        "payment_intent": "payment_intent",
    },
    "dispute": {"charge": "charge", "payment_intent": "payment_intent"},
    "transfer": {"balance_transaction": "balance_transaction", "source_transaction": "charge"},
    "transfer_reversal": {"balance_transaction": "balance_transaction", "transfer": "transfer"},
    "balance_transaction": {"source": ""},  # whatever kind of object it comes from
}
KINDS = {"ch": "charge", "re": "refund", "du": "dispute", "tr": "transfer", "trr": "transfer_reversal"}
DEEPEST_EXPANSION = 4


class Sandbox:
    """A Stripe account of its own: state in one file, no network.

    `base_url` is where the hosted pages of this sandbox are reached.
    """

    def __init__(self, state: str, base_url: str = "http://127.0.0.1:12111") -> None:
        self.store = Store(state)
        self.faults = FaultPlan(self.store)
        self.limits = Limits(self.store)
        self.base_url = base_url
        self.idempotency_key: str | None = None  # of the call that holds the lock, for the events it writes
        self.forced_decline: Decline | None = None  # set by the fault plan for the call that holds the lock
        self.ring: Callable[[], None] = lambda: None  # wakes the thread that delivers events

    def now(self) -> int:
        """UTC seconds by the sandbox's own clock, which tests and the start page can move."""
        return int(time.time()) + self.clock_offset

    @property
    def clock_offset(self) -> int:
        return int(self.store.setting("clock_offset", "0"))

    def move_clock(self, offset_seconds: int) -> None:
        """Set how far the sandbox's clock is ahead of (or behind) the real one."""
        with self.store.change():
            self.store.set_setting("clock_offset", str(offset_seconds))

    def find(self, kind: str, object_id: str, param: str | None = None) -> Document:
        """The document, or resource_missing: 404, or 400 when a parameter named it."""
        found = self.store.get(kind, object_id)
        if found is None:
            raise no_such(kind.replace(".", " ").replace("_", " "), object_id, param)
        return found

    def emit(self, kind: str, about: Document) -> Document:
        """Write an event with a snapshot of the object, and what is to be delivered of it."""
        assert kind in EVENTS, kind
        event: Document = {
            "id": new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": self.now(),
            "data": {"object": shown(about)},
            "livemode": False,
            "pending_webhooks": 0,
            "request": {"id": new_id("req"), "idempotency_key": self.idempotency_key},
            "type": kind,
        }
        endpoints = [one for one in self.store.documents("webhook_endpoint") if wants(one, kind)]
        event["pending_webhooks"] = len(endpoints)
        self.store.put(event)
        copies, state, seconds = self.faults.for_event(kind, about)
        for endpoint in endpoints * copies:
            self.store.write(
                "INSERT INTO deliveries (event_id, endpoint_id, state, next_at) VALUES (?, ?, ?, ?)",
                event["id"], endpoint["id"], state, time.time() + seconds,
            )  # fmt: skip
        return event

    def expanded(self, document: Document, paths: Iterable[str]) -> Document:
        """What an answer shows: the document without our private fields, the named ids replaced by objects."""
        answer = shown(document)
        for path in paths:
            steps = path.split(".")
            if len(steps) > DEEPEST_EXPANSION:
                raise bad_request(f"You cannot expand more than 4 levels of a property ({path}).", param="expand")
            if answer["object"] == "list":
                if steps[0] != "data" or len(steps) == 1:
                    raise _cannot_expand(path)
                for item in answer["data"]:
                    self._expand(item, steps[1:], path)
            else:
                self._expand(answer, steps, path)
        return answer

    def _expand(self, document: Document, steps: list[str], path: str) -> None:
        kind = EXPANDABLE.get(document["object"], {}).get(steps[0])
        if kind is None:
            raise _cannot_expand(path)
        value = document.get(steps[0])
        if kind == "" and isinstance(value, str):
            kind = KINDS[value.partition("_")[0]]
        if isinstance(value, str):
            value = document[steps[0]] = shown(self.find(kind, value))
        if value is not None and len(steps) > 1:
            self._expand(value, steps[1:], path)


def shown(document: Document) -> Document:
    """A deep copy without the fields that begin with an underscore, which are the sandbox's own notes."""
    copy: Document = json.loads(json.dumps(document))
    return {name: value for name, value in copy.items() if not name.startswith("_")}


def wants(endpoint: Document, kind: str) -> bool:
    enabled: list[Any] = endpoint["enabled_events"]
    return "*" in enabled or kind in enabled


def _cannot_expand(path: str) -> Exception:
    return bad_request(f"This property cannot be expanded ({path}).", param="expand")
