"""Transfers: money of the platform's balance that is passed on to a connected account, and taken back from it.

The sandbox has no onboarding: a connected account is made, and allowed to receive or not, through the controls.
With a `source_transaction` a transfer may go before the money of its charge is available; without, it may not.
Where we don't know how far Stripe lets one go, the sandbox refuses: what was refunded is not there to be passed on,
and a transfer that was reversed still counts against its charge.
"""

from sandbox import balance
from sandbox.charging import MOST_PENCE
from sandbox.core import Sandbox, shown
from sandbox.errors import bad_request, no_such, not_allowed_now
from sandbox.store import Document, new_id

CAPABILITY = ("active", "inactive")
SHOWN_REVERSALS = 10  # inside the transfer itself; the rest is listed


# --- Connected accounts ------------------------------------------------------------------------------------


def open_account(sandbox: Sandbox, transfers: str) -> Document:
    """A connected account; `transfers` says whether it may receive them: "active" or "inactive"."""
    account = {"id": new_id("acct"), "object": "account", "created": sandbox.now(), "_transfers": transfers}
    with sandbox.store.change():
        sandbox.store.put(account)
    return account


def allow_transfers(sandbox: Sandbox, account_id: str, transfers: str) -> Document:
    with sandbox.store.change():
        account = sandbox.find("account", account_id) | {"_transfers": transfers}
        sandbox.store.put(account)
    return account


# --- Transfers ---------------------------------------------------------------------------------------------


def create_transfer(sandbox: Sandbox, params: Document) -> Document:
    """Pass money on. Raises balance_insufficient, insufficient_capabilities_for_transfer and the like."""
    if params["amount"] > MOST_PENCE:
        raise bad_request("Amount must be no more than £999,999.99", code="amount_too_large", param="amount")
    account = sandbox.store.get("account", params["destination"])
    if account is None:
        raise no_such("destination", params["destination"], param="destination")
    charge = None
    if "source_transaction" in params:
        charge = _source(sandbox, params["source_transaction"], params["amount"])
    if account["_transfers"] != "active":
        raise not_allowed_now(
            "Your destination account needs to have at least one of the following capabilities enabled: transfers, "
            "crypto_transfers, legacy_payments",
            code="insufficient_capabilities_for_transfer",
        )
    if charge is None and params["amount"] > balance.available(sandbox):
        raise not_allowed_now(
            "You have insufficient available funds in your Stripe account. A charge's money can be transferred "
            "before it is available by naming it as `source_transaction`.",
            code="balance_insufficient",
        )
    transfer = _transfer(sandbox, params, _group(sandbox, params, charge))
    entry = balance.of_transfer(sandbox, transfer)
    transfer["balance_transaction"] = entry["id"]
    sandbox.store.put(entry)
    sandbox.store.put(transfer)
    sandbox.emit("transfer.created", transfer)
    return transfer


def _source(sandbox: Sandbox, charge_id: str, amount: int) -> Document:
    charge = sandbox.find("charge", charge_id, param="source_transaction")
    if not charge["paid"]:
        raise bad_request(f"Charge {charge_id} was not paid.", param="source_transaction")
    row = sandbox.store.row(
        "SELECT COALESCE(SUM(json_extract(body, '$.amount')), 0) AS pence FROM objects "
        "WHERE kind = 'transfer' AND json_extract(body, '$.source_transaction') = ?",
        charge_id,
    )
    passed_on = int(row["pence"]) if row else 0
    if amount > charge["amount"] - charge["amount_refunded"] - passed_on:
        raise bad_request(
            "Transfers using this transaction as a source must not exceed the source amount of "
            f"£{charge['amount'] / 100:.2f}. (Transferred already: £{passed_on / 100:.2f}; refunded: "
            f"£{charge['amount_refunded'] / 100:.2f}.)",
            param="amount",
        )
    return charge


def _group(sandbox: Sandbox, params: Document, charge: Document | None) -> str | None:
    """A charge and the transfers from it stand in one group; Stripe names one when nobody did."""
    given: str | None = params.get("transfer_group")
    if charge is None:
        return given
    if charge["transfer_group"] is None:
        charge["transfer_group"] = given or f"group_{charge['payment_intent']}"
        sandbox.store.put(charge)
    return given or str(charge["transfer_group"])


def _transfer(sandbox: Sandbox, params: Document, group: str | None) -> Document:
    transfer_id = new_id("tr")
    return {
        "id": transfer_id,
        "object": "transfer",
        "amount": params["amount"],
        "amount_reversed": 0,
        "balance_transaction": None,
        "created": sandbox.now(),
        "currency": params["currency"],
        "description": params.get("description"),
        "destination": params["destination"],
        "destination_payment": new_id("py"),
        "livemode": False,
        "metadata": params.get("metadata", {}),
        "reversals": {
            "object": "list",
            "data": [],
            "has_more": False,
            "url": f"/v1/transfers/{transfer_id}/reversals",
        },
        "reversed": False,
        "source_transaction": params.get("source_transaction"),
        "source_type": "card",
        "transfer_group": group,
    }


# --- Reversals ---------------------------------------------------------------------------------------------


def create_reversal(sandbox: Sandbox, transfer_id: str, params: Document) -> Document:
    """Take a transfer back; without an amount all that is left of it."""
    transfer = sandbox.find("transfer", transfer_id)
    left = transfer["amount"] - transfer["amount_reversed"]
    if left == 0:
        raise not_allowed_now(f"Transfer {transfer_id} is already fully reversed.")
    amount = params.get("amount", left)
    if amount > left:
        raise bad_request(
            f"Transfer reversal amount (£{amount / 100:.2f}) is greater than unreversed amount on transfer "
            f"(£{left / 100:.2f})",
            param="amount",
        )
    reversal = {
        "id": new_id("trr"),
        "object": "transfer_reversal",
        "amount": amount,
        "balance_transaction": None,
        "created": sandbox.now(),
        "currency": transfer["currency"],
        "destination_payment_refund": new_id("pyr"),
        "metadata": params.get("metadata", {}),
        "source_refund": None,
        "transfer": transfer_id,
    }
    entry = balance.of_reversal(sandbox, reversal, transfer)
    reversal["balance_transaction"] = entry["id"]
    transfer["amount_reversed"] += amount
    transfer["reversed"] = transfer["amount_reversed"] == transfer["amount"]
    _show_reversal(transfer["reversals"], reversal)
    for document in (entry, reversal, transfer):
        sandbox.store.put(document)
    sandbox.emit("transfer.reversed", transfer)
    return reversal


def _show_reversal(listed: Document, reversal: Document) -> None:
    newest_first = [shown(reversal), *listed["data"]]
    listed["data"] = newest_first[:SHOWN_REVERSALS]
    listed["has_more"] = len(newest_first) > SHOWN_REVERSALS
