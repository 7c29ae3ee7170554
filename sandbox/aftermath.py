"""What can come after a charge: refunds, whole or in part, which may still fail days later, and disputes.

A refund succeeds at once, as those to cards do. One to the card 4000000000005126 succeeds too and fails a little
later; any other can be made to fail through the controls. A dispute holds the money until it is closed there.
"""

from sandbox import balance
from sandbox.cards import CARDS
from sandbox.core import Sandbox
from sandbox.errors import bad_request, not_allowed_now
from sandbox.store import Document, new_id

FAILS_AFTER = 2  # seconds
TIME_FOR_EVIDENCE = 7 * 24 * 60 * 60  # seconds
DISPUTE_ENDS = ("won", "lost")

EVIDENCE = (
    "access_activity_log appeal billing_address cancellation_policy cancellation_policy_disclosure "
    "cancellation_rebuttal customer_communication customer_email_address customer_name customer_purchase_ip "
    "customer_signature duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id "
    "product_description receipt refund_policy refund_policy_disclosure refund_refusal_explanation service_date "
    "service_documentation shipping_address shipping_carrier shipping_date shipping_documentation "
    "shipping_tracking_number uncategorized_file uncategorized_text"
).split()


# --- Refunds -----------------------------------------------------------------------------------------------


def create_refund(sandbox: Sandbox, params: Document) -> Document:
    """Pay a charge back; without an amount all that is left. Raises charge_already_refunded, charge_disputed."""
    charge = _charge_of(sandbox, params)
    if _is_held(sandbox, charge):
        raise not_allowed_now(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed"
        )
    left = charge["amount"] - charge["amount_refunded"]
    if left == 0:
        raise not_allowed_now(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    amount = params.get("amount", left)
    if amount > left:
        raise bad_request(
            f"Refund amount (£{amount / 100:.2f}) is greater than unrefunded amount on charge (£{left / 100:.2f})",
            param="amount",
        )
    refund = _refund(sandbox, charge, amount, params)
    entry = balance.of_refund(sandbox, refund)
    refund["balance_transaction"] = entry["id"]
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    for document in (entry, charge, refund):
        sandbox.store.put(document)
    sandbox.emit("refund.created", refund)
    sandbox.emit("charge.refunded", charge)
    return refund


def fail_refund(sandbox: Sandbox, refund_id: str) -> Document:
    """The bank sends a refund back, after it had succeeded: the money is on our balance again."""
    with sandbox.store.change():
        refund = sandbox.find("refund", refund_id)
        if refund["status"] != "succeeded":
            raise not_allowed_now(f"This refund is {refund['status']}.")
        charge = sandbox.find("charge", refund["charge"])
        entry = balance.of_failed_refund(sandbox, refund)
        charge["amount_refunded"] -= refund["amount"]
        charge["refunded"] = False
        refund |= {
            "status": "failed", "failure_reason": "lost_or_stolen_card", "failure_balance_transaction": entry["id"],
            "_fails_at": None,
        }  # fmt: skip
        for document in (entry, charge, refund):
            sandbox.store.put(document)
        sandbox.emit("refund.updated", refund)
        sandbox.emit("refund.failed", refund)
    return refund


def fail_due_refunds(sandbox: Sandbox) -> None:
    """Whatever refund has come to the time of its failure."""
    for refund in sandbox.store.documents("refund", "succeeded"):
        if refund["_fails_at"] is not None and refund["_fails_at"] <= sandbox.now():
            fail_refund(sandbox, refund["id"])
            sandbox.ring()


def _charge_of(sandbox: Sandbox, params: Document) -> Document:
    if ("charge" in params) == ("payment_intent" in params):
        raise bad_request("You must pass either `payment_intent` or `charge`, and not both.")
    if "charge" in params:
        charge = sandbox.find("charge", params["charge"], param="charge")
    else:
        intent = sandbox.find("payment_intent", params["payment_intent"], param="payment_intent")
        if intent["status"] != "succeeded":
            raise not_allowed_now(
                f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.",
                code="payment_intent_unexpected_state",
            )
        charge = sandbox.find("charge", intent["latest_charge"])
    if not charge["paid"]:
        raise not_allowed_now(f"Charge {charge['id']} was not paid.")
    return charge


def _refund(sandbox: Sandbox, charge: Document, amount: int, params: Document) -> Document:
    fails = _number_of(sandbox, charge) == "4000000000005126"
    return {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": None,
        "charge": charge["id"],
        "created": sandbox.now(),
        "currency": charge["currency"],
        "customer": charge["customer"],
        "customer_account": None,
        "destination_details": {
            "card": {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund"},
            "type": "card",
        },
        "failure_balance_transaction": None,
        "failure_reason": None,
        "metadata": params.get("metadata", {}),
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "pending_reason": None,
        "reason": params.get("reason"),
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
        "_fails_at": sandbox.now() + FAILS_AFTER if fails else None,
    }


# --- Disputes ----------------------------------------------------------------------------------------------


def dispute_when_card_says_so(sandbox: Sandbox, charge: Document) -> None:
    """One card's owner disputes every charge as soon as it is made."""
    if _number_of(sandbox, charge) == "4000000000000259":
        open_dispute(sandbox, charge["id"])


def open_dispute(sandbox: Sandbox, charge_id: str) -> Document:
    """The bank takes back what of a charge was not refunded, until it is decided who is right."""
    with sandbox.store.change():
        charge = sandbox.find("charge", charge_id)
        if not charge["paid"] or _is_held(sandbox, charge) or charge["refunded"]:
            raise not_allowed_now("Only a paid charge that no bank has, and that is not refunded, can be disputed.")
        amount = charge["amount"] - charge["amount_refunded"]
        dispute = _dispute(sandbox, charge, amount)
        entry = balance.of_dispute(sandbox, dispute)
        dispute["balance_transactions"] = [entry]
        charge["disputed"] = True
        for document in (entry, charge, dispute):
            sandbox.store.put(document)
        sandbox.emit("charge.dispute.created", dispute)
        sandbox.emit("charge.dispute.funds_withdrawn", dispute)
    return dispute


def close_dispute(sandbox: Sandbox, dispute_id: str, end: str) -> Document:
    """The bank has decided: won, and the money comes back; or lost, and it stays away.

    Either way the charge has been disputed, and says so for ever.
    """
    with sandbox.store.change():
        dispute = sandbox.find("dispute", dispute_id)
        if dispute["status"] in DISPUTE_ENDS:
            raise not_allowed_now(f"This dispute is {dispute['status']}.")
        dispute |= {"status": end, "is_charge_refundable": False}
        if end == "won":
            entry = balance.of_won_dispute(sandbox, dispute)
            dispute["balance_transactions"] = [*dispute["balance_transactions"], entry]
            sandbox.store.put(entry)
        sandbox.store.put(dispute)
        sandbox.emit("charge.dispute.closed", dispute)
        if end == "won":
            sandbox.emit("charge.dispute.funds_reinstated", dispute)
    return dispute


def _is_held(sandbox: Sandbox, charge: Document) -> bool:
    """Whether a bank has its money, for good or until it decides."""
    disputes = sandbox.store.documents("dispute")
    return any(one["charge"] == charge["id"] and one["status"] != "won" for one in disputes)


def _dispute(sandbox: Sandbox, charge: Document, amount: int) -> Document:
    card = charge["payment_method_details"]["card"]
    return {
        "id": new_id("du"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": charge["id"],
        "created": sandbox.now(),
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {**dict.fromkeys(EVIDENCE), "enhanced_evidence": {}},
        "evidence_details": {
            "due_by": sandbox.now() + TIME_FOR_EVIDENCE,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "intended_submission_method": None,
        "is_charge_refundable": False,
        "livemode": False,
        "metadata": {},
        "network_reason_code": "10.4",
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {
                "brand": card["brand"], "case_type": "chargeback", "network": card["brand"],
                "network_reason_code": "10.4",
            },
            "type": "card",
        },
        "reason": "fraudulent",
        "status": "needs_response",
    }  # fmt: skip


# --- Both --------------------------------------------------------------------------------------------------


def _number_of(sandbox: Sandbox, charge: Document) -> str:
    number = str(sandbox.find("payment_method", charge["payment_method"])["_number"])
    assert number in CARDS
    return number
