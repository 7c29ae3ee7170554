"""Checkout sessions that save a card (mode=setup), and the SetupIntent and Customer behind each.

A session is open until a card is saved, it is expired through the API, or its time is over.
"""

from datetime import UTC, datetime

from sandbox.cards import DECLINES, Card, Decline, card_by_number
from sandbox.core import Sandbox
from sandbox.errors import bad_request, decline_error, not_allowed_now
from sandbox.store import Document, new_id

SHORTEST_LIFE, LONGEST_LIFE = 30 * 60, 24 * 60 * 60  # seconds

NOT_AUTHENTICATED = Decline(
    "setup_intent_authentication_failure",
    "authentication_failed",
    "Your bank did not confirm that it was you. Please try again or use another card.",
)


class UnknownCard(Exception):
    """The number typed is none of the test numbers."""


class SessionOver(Exception):
    """The session is complete or expired, so no card can be given to it any more."""


def create_session(sandbox: Sandbox, params: Document) -> Document:
    """A new open session with its SetupIntent. Refuses what would not make sense before anything is written."""
    now = sandbox.now()
    expires_at = params.get("expires_at", now + LONGEST_LIFE)
    if not SHORTEST_LIFE <= expires_at - now <= LONGEST_LIFE:
        raise bad_request(
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.",
            param="expires_at",
        )
    if "currency" not in params and "allowed_payment_method_types" not in params:
        raise bad_request("Missing required param: currency.", code="parameter_missing", param="currency")
    customer = params.get("customer")
    if customer is not None:
        sandbox.find("customer", customer, param="customer")
        for other in ("customer_creation", "customer_email"):
            if other in params:
                raise bad_request(f"You may only specify one of these parameters: customer, {other}.", param=other)
    intent = _setup_intent(sandbox, params)
    session = _session(sandbox, params, intent["id"], expires_at)
    sandbox.store.put(intent)
    sandbox.store.put(session)
    sandbox.emit("setup_intent.created", intent)
    return session


def _setup_intent(sandbox: Sandbox, params: Document) -> Document:
    wanted = params.get("setup_intent_data", {})
    seti = new_id("seti")
    return {
        "id": seti,
        "object": "setup_intent",
        "allowed_payment_method_types": params.get("allowed_payment_method_types"),
        "application": None,
        "automatic_payment_methods": None,
        "cancellation_reason": None,
        "client_secret": new_id(f"{seti}_secret"),
        "created": sandbox.now(),
        "customer": params.get("customer"),
        "customer_account": None,
        "description": wanted.get("description"),
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": wanted.get("metadata", {}),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": "off_session",
    }


def _session(sandbox: Sandbox, params: Document, intent_id: str, expires_at: int) -> Document:
    session_id = new_id("cs_test")
    texts = params.get("custom_text", {})
    return {
        "id": session_id,
        "object": "checkout.session",
        "allowed_payment_method_types": params.get("allowed_payment_method_types"),
        "amount_subtotal": None,
        "amount_total": None,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "billing_address_collection": params.get("billing_address_collection"),
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "client_secret": None,
        "consent": None,
        "consent_collection": None,
        "created": sandbox.now(),
        "currency": params.get("currency"),
        "custom_fields": [],
        "custom_text": {
            place: texts.get(place)
            for place in ("after_submit", "shipping_address", "submit", "terms_of_service_acceptance")
        },
        "customer": params.get("customer"),
        "customer_account": None,
        "customer_creation": params.get("customer_creation"),
        "customer_details": None,
        "customer_email": params.get("customer_email"),
        "expires_at": expires_at,
        "line_items": None,
        "livemode": False,
        "locale": params.get("locale"),
        "metadata": params.get("metadata", {}),
        "mode": "setup",
        "origin_context": params.get("origin_context"),
        "payment_intent": None,
        "payment_method_types": ["card"],
        "payment_status": "no_payment_required",
        "setup_intent": intent_id,
        "shipping_options": [],
        "status": "open",
        "submit_type": None,
        "success_url": params["success_url"],
        "ui_mode": "hosted_page",
        "url": f"{sandbox.base_url}/c/pay/{session_id}",
    }


def expire_session(sandbox: Sandbox, session_id: str) -> Document:
    """Expire an open session; a complete or expired one is refused with 400, as Stripe does."""
    session = find_session(sandbox, session_id)
    if session["status"] != "open":
        raise not_allowed_now(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status '
            f"of {session['status']}."
        )
    return _expire(sandbox, session)


def expire_due_sessions(sandbox: Sandbox) -> int:
    """Expire every open session whose time is over; returns how many."""
    with sandbox.store.change():
        due = [one for one in sandbox.store.documents("checkout.session", "open") if one["expires_at"] <= sandbox.now()]
        for session in due:
            _expire(sandbox, session)
    return len(due)


def find_session(sandbox: Sandbox, session_id: str) -> Document:
    """The session as it is at this moment: expired if its time is over."""
    session = sandbox.find("checkout.session", session_id)
    if session["status"] == "open" and session["expires_at"] <= sandbox.now():
        with sandbox.store.change():
            return _expire(sandbox, session)
    return session


def _expire(sandbox: Sandbox, session: Document) -> Document:
    session |= {"status": "expired", "url": None}
    sandbox.store.put(session)
    intent = sandbox.find("setup_intent", session["setup_intent"])
    intent |= {"status": "canceled", "next_action": None}
    sandbox.store.put(intent)
    sandbox.emit("setup_intent.canceled", intent)
    sandbox.emit("checkout.session.expired", session)
    return session


def give_card(sandbox: Sandbox, session_id: str, number: str, email: str | None) -> Document:
    """The person gave a card. Returns the SetupIntent, whose status says what came of it:
    "succeeded", "requires_action" (the bank asks) or "requires_payment_method" (refused).

    Raises UnknownCard and SessionOver.
    """
    with sandbox.store.change():
        session = find_session(sandbox, session_id)
        if session["status"] != "open":
            raise SessionOver
        card = card_by_number(number)
        if card is None:
            raise UnknownCard
        intent = sandbox.find("setup_intent", session["setup_intent"])
        if card.refused_at_setup is not None:
            return _refuse(sandbox, intent, DECLINES[card.refused_at_setup], _payment_method(sandbox, card, email))
        method = _payment_method(sandbox, card, email or session["customer_email"])
        sandbox.store.put(method)
        if email and not session["customer_email"]:
            session["_typed_email"] = email
            sandbox.store.put(session)
        if card.bank_asks_at_setup:
            page = f"{sandbox.base_url}/c/pay/{session_id}/bank"
            intent |= {
                "status": "requires_action",
                "payment_method": method["id"],
                "last_setup_error": None,
                "next_action": {"type": "redirect_to_url", "redirect_to_url": {"url": page, "return_url": None}},
            }
            sandbox.store.put(intent)
            sandbox.emit("setup_intent.requires_action", intent)
            return intent
        return _complete(sandbox, session, intent, method)


def answer_bank(sandbox: Sandbox, session_id: str, approved: bool) -> Document:
    """The person answered the bank. Returns the SetupIntent; raises SessionOver when it is too late."""
    with sandbox.store.change():
        session = find_session(sandbox, session_id)
        intent = sandbox.find("setup_intent", session["setup_intent"])
        if session["status"] != "open":
            raise SessionOver
        if intent["status"] != "requires_action":
            return intent
        method = sandbox.find("payment_method", intent["payment_method"])
        if not approved:
            return _refuse(sandbox, intent, NOT_AUTHENTICATED, method)
        return _complete(sandbox, session, intent, method)


def _refuse(sandbox: Sandbox, intent: Document, decline: Decline, method: Document) -> Document:
    shown_method = {name: value for name, value in method.items() if not name.startswith("_")}
    intent |= {
        "status": "requires_payment_method",
        "payment_method": None,
        "next_action": None,
        "last_setup_error": decline_error(decline) | {"payment_method": shown_method},
    }
    sandbox.store.put(intent)
    sandbox.emit("setup_intent.setup_failed", intent)
    return intent


def _complete(sandbox: Sandbox, session: Document, intent: Document, method: Document) -> Document:
    email = session["customer_email"] or session.get("_typed_email")
    customer = session["customer"]
    if customer is None and session["customer_creation"] == "always":
        customer = _create_customer(sandbox, email)
    if customer is not None:
        method["customer"] = customer
        sandbox.store.put(method)
        sandbox.emit("payment_method.attached", method)
    intent |= {
        "status": "succeeded",
        "customer": customer,
        "payment_method": method["id"],
        "next_action": None,
        "last_setup_error": None,
    }
    sandbox.store.put(intent)
    session |= {
        "status": "complete",
        "customer": customer,
        "customer_details": {
            "address": None, "email": email, "name": None, "phone": None, "tax_exempt": "none", "tax_ids": [],
        },
        "url": None,
    }  # fmt: skip
    sandbox.store.put(session)
    sandbox.emit("setup_intent.succeeded", intent)
    sandbox.emit("checkout.session.completed", session)
    return intent


def _create_customer(sandbox: Sandbox, email: str | None) -> str:
    customer: Document = {
        "id": new_id("cus"),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": sandbox.now(),
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": email,
        "livemode": False,
        "metadata": {},
        "name": None,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }
    sandbox.store.put(customer)
    sandbox.emit("customer.created", customer)
    return str(customer["id"])


def _payment_method(sandbox: Sandbox, card: Card, email: str | None) -> Document:
    return {
        "id": new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "limited",
        "billing_details": {"address": None, "email": email, "name": None, "phone": None, "tax_id": None},
        "card": {
            "brand": card.brand,
            "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
            "country": "GB",
            "display_brand": card.brand,
            "exp_month": 12,
            "exp_year": datetime.fromtimestamp(sandbox.now(), UTC).year + 3,
            "fingerprint": card.fingerprint,
            "funding": "credit",
            "generated_from": None,
            "last4": card.last4,
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": sandbox.now(),
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
        "_number": card.number,
    }
