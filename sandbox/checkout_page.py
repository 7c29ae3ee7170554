"""What a person does on the page of a Checkout session: gives a card, and answers their bank.

In setup mode the card is saved, in payment mode it is charged at once. After a refusal the page stays open for
another card; a payment stays the same PaymentIntent, and can succeed once.
"""

from sandbox import charging, checkout, shapes
from sandbox.cards import DECLINES, Card, Decline, card_by_number
from sandbox.core import Sandbox, shown
from sandbox.errors import decline_error
from sandbox.store import Document

NOT_AUTHENTICATED = Decline(
    "setup_intent_authentication_failure",
    "authentication_failed",
    "Your bank did not confirm that it was you. Please try again or use another card.",
)


class UnknownCard(Exception):
    """The number typed is none of the test numbers."""


class SessionOver(Exception):
    """The session is complete or expired, so no card can be given to it any more."""


def give_card(sandbox: Sandbox, session_id: str, number: str, email: str | None) -> Document:
    """The person gave a card. Returns the SetupIntent or PaymentIntent, whose status says what came of it:
    "succeeded", "requires_action" (the bank asks) or "requires_payment_method" (refused).

    Raises UnknownCard and SessionOver.
    """
    with sandbox.store.change():
        session = _open_session(sandbox, session_id)
        card = card_by_number(number)
        if card is None:
            raise UnknownCard
        if email and not session["customer_email"]:
            session["_typed_email"] = email
            sandbox.store.put(session)
        method = shapes.payment_method(sandbox, card, checkout.email_of(session))
        if session["mode"] == "payment":
            return _charge(sandbox, session, card, method)
        return _save(sandbox, session, card, method)


def answer_bank(sandbox: Sandbox, session_id: str, approved: bool) -> Document | None:
    """The person answered the bank. Returns the intent, if there is one; raises SessionOver when it is too late."""
    with sandbox.store.change():
        session = _open_session(sandbox, session_id)
        intent = checkout.intent_of(sandbox, session)
        if intent is None or intent["status"] != "requires_action":
            return intent
        method = sandbox.find("payment_method", intent["payment_method"])
        if session["mode"] == "setup":
            if approved:
                return _saved(sandbox, session, intent, method)
            return _not_saved(sandbox, intent, NOT_AUTHENTICATED, method)
        if not charging.refused_at_bank(sandbox, intent, method, approved):
            _paid(sandbox, session, intent, method)
        return intent


def _open_session(sandbox: Sandbox, session_id: str) -> Document:
    session = checkout.find_session(sandbox, session_id)
    if session["status"] != "open":
        raise SessionOver
    return session


# --- Saving a card -----------------------------------------------------------------------------------------


def _save(sandbox: Sandbox, session: Document, card: Card, method: Document) -> Document:
    intent = sandbox.find("setup_intent", session["setup_intent"])
    if card.refused_at_setup is not None:
        return _not_saved(sandbox, intent, DECLINES[card.refused_at_setup], method)
    sandbox.store.put(method)
    if not card.bank_asks_at_setup:
        return _saved(sandbox, session, intent, method)
    page = f"{sandbox.base_url}{_bank_page(session)}"
    intent |= {
        "status": "requires_action",
        "payment_method": method["id"],
        "last_setup_error": None,
        "next_action": {"type": "redirect_to_url", "redirect_to_url": {"url": page, "return_url": None}},
    }
    sandbox.store.put(intent)
    sandbox.emit("setup_intent.requires_action", intent)
    return intent


def _not_saved(sandbox: Sandbox, intent: Document, decline: Decline, method: Document) -> Document:
    intent |= {
        "status": "requires_payment_method",
        "payment_method": None,
        "next_action": None,
        "last_setup_error": decline_error(decline) | {"payment_method": shown(method)},
    }
    sandbox.store.put(intent)
    sandbox.emit("setup_intent.setup_failed", intent)
    return intent


def _saved(sandbox: Sandbox, session: Document, intent: Document, method: Document) -> Document:
    customer = checkout.customer_of(sandbox, session)
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
    sandbox.emit("setup_intent.succeeded", intent)
    checkout.complete(sandbox, session, customer)
    return intent


# --- Taking a payment --------------------------------------------------------------------------------------


def _charge(sandbox: Sandbox, session: Document, card: Card, method: Document) -> Document:
    """A card that would be refused or asked about when it is saved is so too when it is charged here."""
    sandbox.store.put(method)
    intent = checkout.intent_of(sandbox, session) or _first_attempt(sandbox, session)
    reason = card.refused_at_setup or card.on_session
    if card.bank_asks_at_setup or card.bank_asks_on_session:
        charging.wait_for_bank(sandbox, intent, method, _bank_page(session))
    elif reason is not None:
        charging.decline(sandbox, intent, method, DECLINES[reason])
    else:
        _paid(sandbox, session, intent, method)
    return intent


def _first_attempt(sandbox: Sandbox, session: Document) -> Document:
    asked = {name: session[name] for name in ("customer", "currency", "allowed_payment_method_types")}
    intent = shapes.payment_intent(sandbox, {**session["_payment"], **asked, "amount": session["amount_total"]})
    intent["_session"] = session["id"]
    session["payment_intent"] = intent["id"]
    sandbox.store.put(intent)
    sandbox.store.put(session)
    sandbox.emit("payment_intent.created", intent)
    return intent


def _paid(sandbox: Sandbox, session: Document, intent: Document, method: Document) -> None:
    intent["customer"] = checkout.customer_of(sandbox, session)
    charging.pay(sandbox, intent, method)
    checkout.complete(sandbox, session, intent["customer"])


def _bank_page(session: Document) -> str:
    return f"/c/pay/{session['id']}/bank"
