"""Checkout sessions as the API knows them: made, found, expired, and complete once their page was used.

In setup mode a session saves a card, with a SetupIntent behind it from the beginning. In payment mode it takes a
payment; its PaymentIntent is made when the first card is given. Customers are made when it is complete.
"""

from sandbox import charging, shapes
from sandbox.core import Sandbox
from sandbox.errors import bad_request, not_allowed_now
from sandbox.store import Document

SHORTEST_LIFE, LONGEST_LIFE = 30 * 60, 24 * 60 * 60  # seconds

# What only the other mode takes.
NOT_IN = {"setup": ("line_items", "payment_intent_data"), "payment": ("setup_intent_data",)}


def create_session(sandbox: Sandbox, params: Document) -> Document:
    """A new open session. Refuses what would not make sense before anything is written."""
    now = sandbox.now()
    expires_at = params.get("expires_at", now + LONGEST_LIFE)
    if not SHORTEST_LIFE <= expires_at - now <= LONGEST_LIFE:
        raise bad_request(
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.",
            param="expires_at",
        )
    customer = params.get("customer")
    if customer is not None:
        sandbox.find("customer", customer, param="customer")
        for other in ("customer_creation", "customer_email"):
            if other in params:
                raise bad_request(f"You may only specify one of these parameters: customer, {other}.", param=other)
    for name in NOT_IN[params["mode"]]:
        if name in params:
            raise bad_request(f"You can not pass `{name}` in `{params['mode']}` mode.", param=name)
    session = shapes.session(sandbox, params, expires_at)
    (_to_pay if params["mode"] == "payment" else _to_save)(sandbox, session, params)
    sandbox.store.put(session)
    return session


def _to_save(sandbox: Sandbox, session: Document, params: Document) -> None:
    if "currency" not in params and "allowed_payment_method_types" not in params:
        raise bad_request("Missing required param: currency.", code="parameter_missing", param="currency")
    intent = shapes.setup_intent(sandbox, params)
    sandbox.store.put(intent)
    sandbox.emit("setup_intent.created", intent)
    session["setup_intent"] = intent["id"]


def _to_pay(sandbox: Sandbox, session: Document, params: Document) -> None:
    items = params.get("line_items", [])
    if not items:
        raise bad_request(
            "The `line_items` parameter is required in payment mode.", code="parameter_missing", param="line_items"
        )
    total = sum(item["price_data"]["unit_amount"] * item["quantity"] for item in items)
    if total < charging.LEAST_PENCE:
        raise bad_request(
            "The Checkout Session's total amount due must add up to at least £0.30 gbp", code="amount_too_small"
        )
    if total > charging.MOST_PENCE:
        raise bad_request(
            "The Checkout Session's total amount due must be no more than £999,999.99", code="amount_too_large"
        )
    session |= {
        "amount_subtotal": total,
        "amount_total": total,
        "currency": "gbp",
        "payment_status": "unpaid",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "_items": items,
        "_payment": params.get("payment_intent_data", {}),
    }
    if params.get("customer") is None:
        session["customer_creation"] = params.get("customer_creation", "if_required")


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


def intent_of(sandbox: Sandbox, session: Document) -> Document | None:
    """The SetupIntent, or the PaymentIntent once a card was given."""
    if session["mode"] == "setup":
        return sandbox.find("setup_intent", session["setup_intent"])
    return sandbox.find("payment_intent", session["payment_intent"]) if session["payment_intent"] else None


def customer_of(sandbox: Sandbox, session: Document) -> str | None:
    """Who the card or the payment belongs to: the customer that was named, or a new one if that was asked for."""
    if session["customer"] is None and session["customer_creation"] == "always":
        customer = shapes.customer(sandbox, email_of(session))
        sandbox.store.put(customer)
        sandbox.emit("customer.created", customer)
        return str(customer["id"])
    known: str | None = session["customer"]
    return known


def email_of(session: Document) -> str | None:
    email: str | None = session["customer_email"] or session.get("_typed_email")
    return email


def complete(sandbox: Sandbox, session: Document, customer: str | None) -> None:
    session |= {
        "status": "complete",
        "customer": customer,
        "customer_details": {
            "address": None, "email": email_of(session), "name": None, "phone": None, "tax_exempt": "none",
            "tax_ids": [],
        },
        "url": None,
    }  # fmt: skip
    if session["mode"] == "payment":
        session["payment_status"] = "paid"
    sandbox.store.put(session)
    sandbox.emit("checkout.session.completed", session)


def _expire(sandbox: Sandbox, session: Document) -> Document:
    session |= {"status": "expired", "url": None}
    sandbox.store.put(session)
    intent = intent_of(sandbox, session)
    if session["mode"] == "payment" and intent is not None:
        charging.cancel(sandbox, intent, "expired")
    elif intent is not None:
        intent |= {"status": "canceled", "next_action": None}
        sandbox.store.put(intent)
        sandbox.emit("setup_intent.canceled", intent)
    sandbox.emit("checkout.session.expired", session)
    return session
