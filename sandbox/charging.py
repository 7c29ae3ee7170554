"""PaymentIntents and the charges they make: off-session, on-session through the bank's page, cancelled.

A PaymentIntent can be paid once. After a refusal it waits for a payment method again, which has to be
given anew, and `last_payment_error` says what was wrong.
"""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from sandbox import balance, shapes
from sandbox.aftermath import dispute_when_card_says_so
from sandbox.cards import CARDS, DECLINES, Decline
from sandbox.core import Sandbox, shown
from sandbox.errors import bad_request, card_error, decline_error, not_allowed_now
from sandbox.store import Document

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
    intent = shapes.payment_intent(sandbox, params)
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
    _require_own(intent)
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
    _require_own(intent)
    return cancel(sandbox, intent, params.get("cancellation_reason"))


def cancel(sandbox: Sandbox, intent: Document, reason: str | None) -> Document:
    intent |= {
        "status": "canceled", "canceled_at": sandbox.now(), "cancellation_reason": reason, "next_action": None,
    }  # fmt: skip
    sandbox.store.put(intent)
    sandbox.emit("payment_intent.canceled", intent)
    return intent


def _require_own(intent: Document) -> None:
    """What a Checkout page has made is ended by ending the page."""
    if "_session" in intent:
        raise not_allowed_now(
            "You cannot perform this action on PaymentIntents created by Checkout. Try expiring the Checkout Session "
            "instead."
        )


def answer_bank(sandbox: Sandbox, intent_id: str, approved: bool) -> str:
    """The person answered the bank about an on-session payment. Returns the URL to go back to."""
    with sandbox.store.change():
        intent = sandbox.find("payment_intent", intent_id)
        if intent["status"] == "requires_action":
            method = sandbox.find("payment_method", intent["payment_method"])
            if not refused_at_bank(sandbox, intent, method, approved):
                pay(sandbox, intent, method)
        return _way_back(intent)


def refused_at_bank(sandbox: Sandbox, intent: Document, method: Document, approved: bool) -> bool:
    """Whether the answer of the person, or the bank after it, is a refusal, which is then on the payment."""
    declined = CARDS[method["_number"]].on_session
    if not approved:
        fail(sandbox, intent, method, NOT_AUTHENTICATED, charge_id=None)
    elif declined is not None:
        decline(sandbox, intent, method, DECLINES[declined])
    return not approved or declined is not None


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
        decline(sandbox, intent, method, declined)
        raise card_error(
            declined, charge=intent["latest_charge"], payment_intent=shown(intent), payment_method=shown(method)
        )
    return pay(sandbox, intent, method)


def _ask_bank(sandbox: Sandbox, intent: Document, method: Document, params: Document) -> Document:
    if params.get("error_on_requires_action"):
        why = DECLINES["authentication_required"]
        fail(sandbox, intent, method, why, charge_id=None)
        raise card_error(why, payment_intent=shown(intent), payment_method=shown(method))
    return_url = params.get("return_url") or intent.get("_return_url")
    if return_url is None:
        raise bad_request(
            "This card has to be confirmed with the bank, and the sandbox knows only the way by redirect: a "
            "`return_url` is needed.",
            code="parameter_missing",
            param="return_url",
        )
    intent["_return_url"] = return_url
    return wait_for_bank(sandbox, intent, method, f"/bank/{intent['id']}")


def wait_for_bank(sandbox: Sandbox, intent: Document, method: Document, page: str) -> Document:
    """The person has to answer their bank, on a page of ours."""
    there = {"url": sandbox.base_url + page, "return_url": intent.get("_return_url")}
    intent |= {
        "status": "requires_action",
        "payment_method": method["id"],
        "next_action": {"type": "redirect_to_url", "redirect_to_url": there},
    }
    sandbox.store.put(intent)
    sandbox.emit("payment_intent.requires_action", intent)
    return intent


def pay(sandbox: Sandbox, intent: Document, method: Document) -> Document:
    charge = shapes.charge(sandbox, intent, method, declined=None)
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


def decline(sandbox: Sandbox, intent: Document, method: Document, why: Decline) -> None:
    charge = shapes.charge(sandbox, intent, method, declined=why)
    sandbox.store.put(charge)
    sandbox.emit("charge.failed", charge)
    fail(sandbox, intent, method, why, charge["id"])


def fail(sandbox: Sandbox, intent: Document, method: Document, why: Decline, charge_id: str | None) -> None:
    error: dict[str, Any] = decline_error(why) | {"payment_method": shown(method)}
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
