"""The lines of Stripe's own books: what came onto the balance or left it, from which object, and the fee for it."""

from typing import Any

from sandbox.core import Sandbox
from sandbox.store import Document, new_id

DISPUTE_FEE = 2_000  # pence
UNTIL_AVAILABLE = 7 * 24 * 60 * 60  # seconds that the money of a charge takes


def of_charge(sandbox: Sandbox, charge: Document) -> Document:
    """The amount, with a plain fee of 1.5 % and 20 pence."""
    fee = (charge["amount"] * 15 + 500) // 1000 + 20
    line = _line(sandbox, charge["id"], charge["amount"], "charge", "charge", fee, "Stripe processing fees")
    waits = {"available_on": sandbox.now() + UNTIL_AVAILABLE, "status": "pending"}
    return line | waits | {"description": charge["description"]}


def of_refund(sandbox: Sandbox, refund: Document) -> Document:
    """The fee of the charge does not come back."""
    return _line(sandbox, refund["id"], -refund["amount"], "refund", "refund")


def of_failed_refund(sandbox: Sandbox, refund: Document) -> Document:
    return _line(sandbox, refund["id"], refund["amount"], "refund_failure", "refund_failure")


def of_dispute(sandbox: Sandbox, dispute: Document) -> Document:
    """The fee is kept whoever wins."""
    return _line(sandbox, dispute["id"], -dispute["amount"], "adjustment", "dispute", DISPUTE_FEE, "Dispute fee")


def of_won_dispute(sandbox: Sandbox, dispute: Document) -> Document:
    return _line(sandbox, dispute["id"], dispute["amount"], "adjustment", "dispute_reversal")


def of_transfer(sandbox: Sandbox, transfer: Document) -> Document:
    """With a charge as its source the money leaves when that of the charge is there; Stripe takes no fee for it."""
    line = _line(sandbox, transfer["id"], -transfer["amount"], "transfer", "transfer")
    if transfer["source_transaction"] is None:
        return line
    charge = sandbox.find("charge", transfer["source_transaction"])
    return _together_with(sandbox, line, charge["balance_transaction"])


def of_reversal(sandbox: Sandbox, reversal: Document, transfer: Document) -> Document:
    line = _line(sandbox, reversal["id"], reversal["amount"], "transfer_refund", "transfer_reversal")
    return _together_with(sandbox, line, transfer["balance_transaction"])


def available(sandbox: Sandbox) -> int:
    """What can be transferred or paid out now, in pence: less than nothing when more was refunded than is there."""
    row = sandbox.store.row(
        "SELECT SUM(json_extract(body, '$.net')) AS pence FROM objects "
        "WHERE kind = 'balance_transaction' AND json_extract(body, '$.available_on') <= ?",
        sandbox.now(),
    )
    return int(row["pence"] or 0) if row else 0


def mature(sandbox: Sandbox) -> None:
    """Whatever has waited for its day is available; called when lines are asked for, alone or as a list."""
    with sandbox.store.change():
        sandbox.store.write(
            "UPDATE objects SET body = json_set(body, '$.status', 'available') WHERE kind = 'balance_transaction' "
            "AND json_extract(body, '$.status') = 'pending' AND json_extract(body, '$.available_on') <= ?",
            sandbox.now(),
        )


def _together_with(sandbox: Sandbox, line: Document, other_id: str) -> Document:
    """The line, available no sooner than another one."""
    when = sandbox.find("balance_transaction", other_id)["available_on"]
    return line | {"available_on": when, "status": "pending"} if when > sandbox.now() else line


def _line(
    sandbox: Sandbox, source: str, amount: int, kind: str, category: str, fee: int = 0, fee_words: str = ""
) -> Document:
    fees: list[dict[str, Any]] = []
    if fee:
        fees = [{
            "amount": fee, "application": None, "currency": "gbp", "description": fee_words, "type": "stripe_fee",
        }]  # fmt: skip
    return {
        "id": new_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": sandbox.now(),
        "balance_type": "payments",
        "created": sandbox.now(),
        "currency": "gbp",
        "description": None,
        "exchange_rate": None,
        "fee": fee,
        "fee_details": fees,
        "net": amount - fee,
        "reporting_category": category,
        "source": source,
        "status": "available",
        "type": kind,
    }
