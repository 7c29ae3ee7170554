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
