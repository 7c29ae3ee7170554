"""The fault plan: what goes wrong with which call or event, set by tests and by the start page.

A fault on calls:  {"operation": "payment_intents.create", "fault": "error", "times": 1}
A fault on events: {"event": "setup_intent.succeeded", "fault": "drop", "times": 1}

Both take "match", names and values that the parameters (or the object concerned) must have, such as
{"metadata[pledge_id]": "17"}; and either "calls", the numbers of the matching calls that fail (counted
from 1 since the fault was added), or "times", how many matching calls fail from now on ("always" for all).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sandbox.cards import ADVICE, DECLINES, Decline
from sandbox.store import Document, Store

CALL_FAULTS = ("error", "rate_limit", "lock_timeout", "hang", "refuse", "lose_answer", "decline")
EVENT_FAULTS = ("drop", "duplicate", "delay", "hold")
USUAL_STATUS = {"error": 500, "rate_limit": 429, "lock_timeout": 429}
STATUSES = {"error": range(400, 600), "rate_limit": (429,), "lock_timeout": (409, 429)}

# Every event that the sandbox sends.
EVENTS = (
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.failed",
    "charge.refunded",
    "charge.succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "customer.created",
    "customer.deleted",
    "payment_intent.canceled",
    "payment_intent.created",
    "payment_intent.payment_failed",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "payment_method.attached",
    "payment_method.detached",
    "refund.created",
    "refund.failed",
    "refund.updated",
    "setup_intent.canceled",
    "setup_intent.created",
    "setup_intent.requires_action",
    "setup_intent.setup_failed",
    "setup_intent.succeeded",
    "transfer.created",
    "transfer.reversed",
)


@dataclass(frozen=True)
class Fault:
    """One line of the plan.

    operation     such as "payment_intents.create", or "*"; empty for a fault on events
    event         an event type, or "*"; empty for a fault on calls
    status        the HTTP status of error (500), rate_limit (429), lock_timeout (429)
    seconds       how long hang sleeps, or delay holds an event back
    when          hang: "before" or "after" the work
    saved         error: the 500 is kept under the Idempotency-Key and replayed, as Stripe does
    work          error with saved: the work is done all the same, only its answer is lost for good
    decline_code  decline: the bank's reason, whatever the card
    advice_code   decline: "usual" for this reason, "none", or one of Stripe's three
    """

    fault: str
    operation: str = ""
    event: str = ""
    status: int = 0
    seconds: float = 0
    when: str = "before"
    saved: bool = False
    work: bool = False
    decline_code: str = "generic_decline"
    advice_code: str = "usual"
    calls: list[int] = field(default_factory=list)
    times: int | str = 1
    match: dict[str, str] = field(default_factory=dict)

    @property
    def refusal(self) -> Decline | None:
        """What the bank is made to say, or None when this fault is none of the bank's."""
        if self.fault != "decline":
            return None
        usual = DECLINES[self.decline_code]
        if self.advice_code == "usual":
            return usual
        return replace(usual, advice_code=None if self.advice_code == "none" else self.advice_code)


class FaultPlan:
    """The plan in force; kept in the state file, so it holds over a restart."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, wanted: Mapping[str, Any]) -> int:
        """Add one fault and return its id. Raises ValueError, in words for the person who wrote it."""
        fault = _checked(wanted)
        with self._store.change():
            return self._store.write("INSERT INTO faults (body) VALUES (?)", json.dumps(asdict(fault)))

    def all(self) -> list[Document]:
        """Every fault with its id, how many matching calls it has "seen" and on how many it "acted"."""
        return [
            {"id": row["id"], "seen": row["seen"], "acted": row["acted"]} | json.loads(row["body"])
            for row in self._store.rows("SELECT * FROM faults ORDER BY id")
        ]

    def clear(self) -> None:
        with self._store.change():
            self._store.write("DELETE FROM faults")

    def for_call(self, operation: str, facts: Mapping[str, str]) -> Fault | None:
        """The fault that this call meets. The facts are its parameters and those of the object it names."""
        return self._next("operation", operation, facts)

    def for_event(self, kind: str, about: Document) -> tuple[int, str, float]:
        """How an event goes out: how many copies, in which state ("waiting", "held"), after how many seconds."""
        fault = self._next("event", kind, flat(about))
        if fault is None:
            return 1, "waiting", 0
        return {
            "drop": (0, "waiting", 0.0),
            "duplicate": (2, "waiting", 0.0),
            "delay": (1, "waiting", fault.seconds),
            "hold": (1, "held", 0.0),
        }[fault.fault]

    def _next(self, aspect: str, name: str, facts: Mapping[str, str]) -> Fault | None:
        with self._store.change():
            chosen: Fault | None = None
            for row in self._store.rows("SELECT * FROM faults ORDER BY id"):
                fault = Fault(**json.loads(row["body"]))
                if getattr(fault, aspect) not in (name, "*") or not _matches(fault, facts):
                    continue
                acts = chosen is None and _is_due(fault, row["seen"] + 1, row["acted"])
                if acts:
                    chosen = fault
                self._store.write(
                    "UPDATE faults SET seen = seen + 1, acted = acted + ? WHERE id = ?", int(acts), row["id"]
                )
            return chosen


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested values by their form names: {"metadata": {"pledge_id": 17}} -> {"metadata[pledge_id]": "17"}."""
    if isinstance(value, bool):
        return {prefix: str(value).lower()}
    if not isinstance(value, dict | list):
        return {} if value is None else {prefix: str(value)}
    found: dict[str, str] = {}
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found |= flat(inner, f"{prefix}[{name}]" if prefix else str(name))
    return found


def _matches(fault: Fault, facts: Mapping[str, str]) -> bool:
    return all(facts.get(name) == value for name, value in fault.match.items())


def _is_due(fault: Fault, call: int, acted: int) -> bool:
    if fault.calls:
        return call in fault.calls
    return fault.times == "always" or acted < int(fault.times)


def _checked(wanted: Mapping[str, Any]) -> Fault:
    """The fault as it was meant, or ValueError: one that can never act would make a test show nothing."""
    unknown = set(wanted) - {one.name for one in fields(Fault)}
    if unknown:
        raise ValueError(f"Unknown field in the fault: {', '.join(sorted(unknown))}.")
    if bool(wanted.get("operation")) == bool(wanted.get("event")):
        raise ValueError("Say either an operation or an event.")
    allowed = CALL_FAULTS if wanted.get("operation") else EVENT_FAULTS
    if wanted.get("fault") not in allowed:
        raise ValueError(f"The fault must be one of {', '.join(allowed)}.")
    try:
        fault = Fault(
            **{
                **wanted,
                "status": int(wanted.get("status") or USUAL_STATUS.get(str(wanted["fault"]), 0)),
                "seconds": float(wanted.get("seconds") or 0),
                "calls": [int(call) for call in wanted.get("calls") or []],
                "times": "always" if wanted.get("times") == "always" else int(wanted.get("times", 1)),
                "match": {str(name): str(value) for name, value in dict(wanted.get("match") or {}).items()},
            }
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"The fault cannot be read: {error}.") from error
    for sentence, wrong in _wrongs(fault).items():
        if wrong:
            raise ValueError(sentence)
    return fault


def _wrongs(fault: Fault) -> dict[str, bool]:
    """What a fault may not be, each with the sentence that says so."""
    return {
        f"The event must be * or one of {', '.join(EVENTS)}.": fault.event not in ("", "*", *EVENTS),
        f"{fault.fault} cannot answer with the status {fault.status}.": (
            fault.fault in STATUSES and fault.status not in STATUSES[fault.fault]
        ),
        f"{fault.fault} needs seconds.": fault.fault in ("hang", "delay") and fault.seconds <= 0,
        "times must be always, or a number from 1.": fault.times != "always" and int(fault.times) < 1,
        "calls are counted from 1.": any(call < 1 for call in fault.calls),
        '"when" must be before or after.': fault.when not in ("before", "after"),
        "saved and work are true or false.": {type(fault.saved), type(fault.work)} != {bool},
        "Work without a saved answer would be done twice, which Stripe never does: add saved.": (
            fault.work and not fault.saved
        ),
        f"The decline_code must be one of {', '.join(DECLINES)}.": fault.decline_code not in DECLINES,
        f"The advice_code must be usual, none or one of {', '.join(ADVICE)}.": (
            fault.advice_code not in ("usual", "none", *ADVICE)
        ),
    }
