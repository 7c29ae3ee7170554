"""PaymentIntents and the charges they make: off-session, on-session through the bank's page, cancelled.

A PaymentIntent can be paid once. After a refusal it waits for a payment method again, which has to be
given anew, and `last_payment_error` says what was wrong.
"""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sandbox import balance
from sandbox.aftermath import dispute_when_card_says_so
from sandbox.cards import CARDS, DECLINES, Decline
from sandbox.core import Sandbox, shown
from sandbox.errors import bad_request, card_error, decline_error, not_allowed_now
from sandbox.store import Document, new_id

LEAST_PENCE, MOST_PENCE = 30, 99_999_999

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELLABLE = ("requires_payment_method", "requires_confirmation", "requires_action", "processing")

NOT_AUTHENTICATED = Decline(
    "payment_intent_authentication_failure",
    "authentication_failed",
    "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new "
    "PaymentMethod to attempt to fulfill this PaymentIntent again.",
)


def create_payment_intent(sandbox: Sandbox, params: Document) -> Document:
    """A new PaymentIntent; with `confirm` it is charged at once. Raises a card error (402) on a refusal."""
    if params["amount"] < LEAST_PENCE:
        raise bad_request("Amount must be at least £0.30 gbp", code="amount_too_small", param="amount")
    if params["amount"] > MOST_PENCE:
        raise bad_request("Amount must be no more than £999,999.99", code="amount_too_large", param="amount")
    confirm = params.get("confirm", False)
    for name in ("off_session", "return_url", "error_on_requires_action"):
        if params.get(name) and not confirm:
            raise bad_request(f"`{name}` can only be used with `confirm=true`.", param=name)
    if params.get("customer") is not None:
        sandbox.find("customer", params["customer"], param="customer")
    method = None
    if params.get("payment_method") is not None:
        method = _usable_method(sandbox, params["payment_method"], params.get("customer"))
    elif confirm:
        raise bad_request(
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            code="parameter_missing",
            param="payment_method",
        )
    intent = _payment_intent(sandbox, params)
    sandbox.store.put(intent)
    sandbox.emit("payment_intent.created", intent)
    if confirm and method is not None:
        return _attempt(sandbox, intent, method, params)
    return intent


def confirm_payment_intent(sandbox: Sandbox, intent_id: str, params: Document) -> Document:
    """Try (again) to be paid. Raises payment_intent_unexpected_state, or a card error (402) on a refusal."""
    intent = sandbox.find("payment_intent", intent_id)
    if intent["status"] not in CONFIRMABLE:
        why = {
            "succeeded": "it has already succeeded after being previously confirmed.",
            "canceled": "it has a status of canceled. Only a PaymentIntent with one of the following statuses may "
            "be confirmed: requires_confirmation, requires_action.",
        }.get(intent["status"], f"it has a status of {intent['status']}.")
        raise unexpected_state(intent, f"You cannot confirm this PaymentIntent because {why}")
    method_id = params.get("payment_method") or intent["payment_method"]
    if method_id is None:
        raise unexpected_state(
            intent,
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update "
            "the PaymentIntent with a payment method and then confirm it again, or confirm it again directly with "
            "a payment method.",
        )
    method = _usable_method(sandbox, method_id, intent["customer"])
    if "receipt_email" in params:
        intent["receipt_email"] = params["receipt_email"]
    return _attempt(sandbox, intent, method, params)


def cancel_payment_intent(sandbox: Sandbox, intent_id: str, params: Document) -> Document:
    """Cancel one that is not paid. Raises payment_intent_unexpected_state."""
    intent = sandbox.find("payment_intent", intent_id)
    if intent["status"] not in CANCELLABLE:
        raise unexpected_state(
            intent,
            f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}. Only a "
            f"PaymentIntent with one of the following statuses may be canceled: {', '.join(CANCELLABLE)}.",
        )
    intent |= {
        "status": "canceled",
        "canceled_at": sandbox.now(),
        "cancellation_reason": params.get("cancellation_reason"),
        "next_action": None,
    }
    sandbox.store.put(intent)
    sandbox.emit("payment_intent.canceled", intent)
    return intent


def answer_bank(sandbox: Sandbox, intent_id: str, approved: bool) -> str:
    """The person answered the bank about an on-session payment. Returns the URL to go back to."""
    with sandbox.store.change():
        intent = sandbox.find("payment_intent", intent_id)
        if intent["status"] == "requires_action":
            method = sandbox.find("payment_method", intent["payment_method"])
            declined = CARDS[method["_number"]].on_session
            if not approved:
                _fail(sandbox, intent, method, NOT_AUTHENTICATED, charge_id=None)
            elif declined is not None:
                _decline(sandbox, intent, method, DECLINES[declined])
            else:
                _pay(sandbox, intent, method)
        return _way_back(intent)


def _way_back(intent: Document) -> str:
    parts = urlsplit(str(intent["_return_url"]))
    query = [
        *parse_qsl(parts.query, keep_blank_values=True),
        ("payment_intent", intent["id"]),
        ("payment_intent_client_secret", intent["client_secret"]),
        ("redirect_status", "succeeded" if intent["status"] == "succeeded" else "failed"),
    ]
    return urlunsplit(parts._replace(query=urlencode(query)))


def unexpected_state(intent: Document, message: str) -> Exception:
    return not_allowed_now(message, code="payment_intent_unexpected_state", payment_intent=shown(intent))


def _usable_method(sandbox: Sandbox, method_id: str, customer: str | None) -> Document:
    """A PaymentMethod that may be charged for this customer; a detached one may not be used again, ever."""
    method = sandbox.find("payment_method", method_id, param="payment_method")
    if method["customer"] is None:
        raise bad_request(
            "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, "
            "shared with a connected account without Customer attachment, or was detached from a Customer. It may "
            "not be used again. To use a PaymentMethod multiple times, you must attach it to a Customer first.",
            param="payment_method",
        )
    if method["customer"] != customer:
        raise bad_request(
            f"The customer does not have a payment method with the ID {method_id}. The payment method must belong "
            "to the customer.",
            param="payment_method",
        )
    return method


def _attempt(sandbox: Sandbox, intent: Document, method: Document, params: Document) -> Document:
    card = CARDS[method["_number"]]
    off_session = bool(params.get("off_session"))
    reason = card.off_session if off_session else card.on_session
    declined = sandbox.forced_decline or (DECLINES[reason] if reason else None)
    if card.bank_asks_on_session and not off_session and sandbox.forced_decline is None:
        return _ask_bank(sandbox, intent, method, params)
    intent["_return_url"] = params.get("return_url")
    if declined is not None:
        _decline(sandbox, intent, method, declined)
        raise card_error(
            declined, charge=intent["latest_charge"], payment_intent=shown(intent), payment_method=shown(method)
        )
    return _pay(sandbox, intent, method)


def _ask_bank(sandbox: Sandbox, intent: Document, method: Document, params: Document) -> Document:
    if params.get("error_on_requires_action"):
        decline = DECLINES["authentication_required"]
        _fail(sandbox, intent, method, decline, charge_id=None)
        raise card_error(decline, payment_intent=shown(intent), payment_method=shown(method))
    return_url = params.get("return_url") or intent.get("_return_url")
    if return_url is None:
        raise bad_request(
            "This card has to be confirmed with the bank, and the sandbox knows only the way by redirect: a "
            "`return_url` is needed.",
            code="parameter_missing",
            param="return_url",
        )
    page = f"{sandbox.base_url}/bank/{intent['id']}"
    intent |= {
        "status": "requires_action",
        "payment_method": method["id"],
        "next_action": {"type": "redirect_to_url", "redirect_to_url": {"url": page, "return_url": return_url}},
        "_return_url": return_url,
    }
    sandbox.store.put(intent)
    sandbox.emit("payment_intent.requires_action", intent)
    return intent


def _pay(sandbox: Sandbox, intent: Document, method: Document) -> Document:
    charge = _charge(sandbox, intent, method, declined=None)
    entry = balance.of_charge(sandbox, charge)
    charge["balance_transaction"] = entry["id"]
    sandbox.store.put(entry)
    sandbox.store.put(charge)
    intent |= {
        "status": "succeeded",
        "amount_received": intent["amount"],
        "latest_charge": charge["id"],
        "payment_method": method["id"],
        "next_action": None,
        "last_payment_error": None,
    }
    sandbox.store.put(intent)
    sandbox.emit("charge.succeeded", charge)
    sandbox.emit("payment_intent.succeeded", intent)
    dispute_when_card_says_so(sandbox, charge)
    return intent


def _decline(sandbox: Sandbox, intent: Document, method: Document, decline: Decline) -> None:
    charge = _charge(sandbox, intent, method, declined=decline)
    sandbox.store.put(charge)
    sandbox.emit("charge.failed", charge)
    _fail(sandbox, intent, method, decline, charge["id"])


def _fail(sandbox: Sandbox, intent: Document, method: Document, decline: Decline, charge_id: str | None) -> None:
    error: dict[str, Any] = decline_error(decline) | {"payment_method": shown(method)}
    if charge_id is not None:
        error["charge"] = intent["latest_charge"] = charge_id
    intent |= {
        "status": "requires_payment_method",
        "payment_method": None,
        "next_action": None,
        "last_payment_error": error,
    }
    sandbox.store.put(intent)
    sandbox.emit("payment_intent.payment_failed", intent)


def _payment_intent(sandbox: Sandbox, params: Document) -> Document:
    intent_id = new_id("pi")
    method = params.get("payment_method")
    return {
        "id": intent_id,
        "object": "payment_intent",
        "allowed_payment_method_types": params.get("allowed_payment_method_types"),
        "amount": params["amount"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": new_id(f"{intent_id}_secret"),
        "confirmation_method": "automatic",
        "created": sandbox.now(),
        "currency": params["currency"],
        "customer": params.get("customer"),
        "customer_account": None,
        "description": params.get("description"),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": params.get("metadata", {}),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": method,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": params.get("receipt_email"),
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": params.get("statement_descriptor_suffix"),
        "status": "requires_confirmation" if method else "requires_payment_method",
        "transfer_data": None,
        "transfer_group": params.get("transfer_group"),
    }


def _charge(sandbox: Sandbox, intent: Document, method: Document, declined: Decline | None) -> Document:
    paid = declined is None
    card = method["card"]
    return {
        "id": new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if paid else 0,
        "amount_refunded": 0,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "captured": paid,
        "created": sandbox.now(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": None if declined is None else declined.code,
        "failure_message": None if declined is None else declined.message,
        "livemode": False,
        "metadata": intent["metadata"],
        "outcome": _outcome(declined),
        "paid": paid,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {
            "type": "card",
            "card": {name: card[name] for name in ("brand", "country", "exp_month", "exp_year", "fingerprint",
                                                   "funding", "last4", "wallet")},
        },
        "receipt_email": intent["receipt_email"],
        "refunded": False,
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": "succeeded" if paid else "failed",
        "transfer_group": intent["transfer_group"],
    }  # fmt: skip


def _outcome(declined: Decline | None) -> Document:
    if declined is None:
        return {
            "advice_code": None,
            "network_status": "approved_by_network",
            "reason": None,
            "risk_level": "normal",
            "seller_message": "Payment complete.",
            "type": "authorized",
        }
    return {
        "advice_code": declined.advice_code,
        "network_status": "declined_by_network",
        "reason": declined.decline_code,
        "risk_level": "normal",
        "seller_message": f"The bank returned the decline code `{declined.decline_code}`.",
        "type": "issuer_declined",
    }
