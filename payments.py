"""The only file that knows Stripe. Plain frozen dataclasses go in and out, never rows.

Facts are those of the SDK 16.1 (API 2026-10-28.endive). Every call that creates something carries the caller's
own idempotency key, so that asking again after a lost answer cannot do it twice. No call may be made inside a
database transaction: Stripe takes long, and a held row would stop every other supporter.

Raises `StripeAway` when the outcome is unknown (ask again later, same key), `StripeBusy` when nothing was done
because of a rate limit (same), `StripeRefused` when the request itself was wrong (our bug, or the wrong key).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from flask import current_app, has_app_context

import config

# The SDK is loaded by whoever talks to Stripe, when it does so first: a process that only shows pages never needs it.
if TYPE_CHECKING:
    import stripe
    from stripe.params import (
        BalanceTransactionListParams,
        DisputeListParams,
        EventListParams,
        PaymentIntentConfirmParams,
        PaymentIntentCreateParams,
        PaymentIntentListParams,
        RefundCreateParams,
        RefundListParams,
    )
    from stripe.params.checkout import SessionCreateParams

P = ParamSpec("P")
R = TypeVar("R")
Found = TypeVar("Found")

# How far ahead of us a webhook's own clock may be; the SDK only looks into the past.
FUTURE_TOLERANCE = 300

# Refusals that another try of the same card cannot mend, by decline code or by how it begins.
_HARD_DECLINES = frozenset({
    "lost_card", "stolen_card", "pickup_card", "fraudulent", "restricted_card", "expired_card",
    "previously_declined_do_not_retry",
})  # fmt: skip
_HARD_BEGINNINGS = ("incorrect_", "invalid_")
_HARD_ADVICE = frozenset({"do_not_try_again", "confirm_card_data"})


# How a dispute ends without our losing the money: won, or it never was more than a question.
_DISPUTES_WON = ("won", "warning_closed", "prevented")


class StripeTrouble(Exception):
    """Any answer, or missing answer, that is not a result."""


class StripeAway(StripeTrouble):
    """Stripe could not be reached, broke, or did not answer in time: whether it acted is unknown."""


class StripeBusy(StripeTrouble):
    """Too many requests: nothing was done, ask again more slowly with the same key."""


class StripeRefused(StripeTrouble):
    """Stripe understood and said no, which for us means a mistake of ours: wrong key or wrong parameters."""


class StripeForbidden(StripeRefused):
    """The API key itself is refused (401, 403): nothing else will work either."""


class StripeMissing(StripeRefused):
    """Stripe has nothing of the name that was asked for."""


class NotFromStripe(Exception):
    """A message at the webhook door that Stripe did not sign, or not for us."""


@dataclass(frozen=True)
class CardPage:
    """A hosted page on which the supporter saves a card. `url` is None once it can no longer be used."""

    session_id: str
    url: str | None


@dataclass(frozen=True)
class CardFound:
    """What Stripe says of a card page. `saved_at` is Stripe's own clock, None while no card is saved."""

    session_id: str
    expired: bool
    complete: bool
    url: str | None
    setup_intent_id: str | None
    saved_at: dt.datetime | None
    customer_id: str | None
    payment_method_id: str | None
    card_words: str | None
    # The same for the same card, whoever types it.
    fingerprint: str | None = None


@dataclass(frozen=True)
class ChargeFound:
    """What became of one payment: `outcome` is succeeded, declined, action_required or unknown.

    `code` is Stripe's decline or error code; `soft` says whether the same card may be tried again. At `bank_url`
    the supporter's bank waits for an approval of this very payment; None when nobody was sent there, or it is over.
    """

    outcome: str
    payment_intent_id: str | None = None
    charge_id: str | None = None
    amount_pence: int = 0
    code: str = ""
    soft: bool = False
    bank_url: str | None = None


@dataclass(frozen=True)
class RefundFound:
    """What became of one refund: `outcome` is pending, succeeded or failed, and `code` says why it failed.

    `noted` is the number of our own row that asked for it; None for a refund that was made at Stripe by hand.
    `refund_id` is None when Stripe made none at all.
    """

    outcome: str
    refund_id: str | None = None
    payment_intent_id: str | None = None
    amount_pence: int = 0
    code: str = ""
    noted: int | None = None


@dataclass(frozen=True)
class DisputeFound:
    """What Stripe says of a dispute: `outcome` is open, won or lost; `held` whether the money was taken from us."""

    dispute_id: str
    charge_id: str
    payment_intent_id: str | None
    amount_pence: int
    reason: str
    outcome: str
    held: bool
    due_by: dt.datetime | None
    opened_at: dt.datetime


@dataclass(frozen=True)
class News:
    """One event as it came in at the door, verified but not believed: only a reason to look again."""

    event_id: str
    type: str
    object_id: str
    created_at: dt.datetime
    payload: str


@dataclass(frozen=True)
class Payment:
    """A payment as Stripe lists it, with whom and what it is for by its own word; `ours` is our note on it."""

    found: ChargeFound
    amount_pence: int
    currency: str
    customer_id: str | None
    ours: int | None
    cancelled: bool

    @property
    def id(self) -> str:
        return str(self.found.payment_intent_id)


@dataclass(frozen=True)
class BalanceLine:
    """A line of Stripe's own books: what came onto our balance, or left it, before the fee that Stripe kept for it.

    `source_id` is the charge, refund or dispute that it comes from; `category` is Stripe's word for why.
    """

    id: str
    source_id: str
    category: str
    amount_pence: int
    fee_pence: int
    currency: str


@dataclass(frozen=True)
class Page(Generic[Found]):
    """A page of one of Stripe's lists, newest first; `cursor` goes on behind it and is None on the last.

    `ids` are Stripe's names of what is on it, and `oldest` is when the last of them was made; None on an empty page.
    """

    found: list[Found]
    ids: list[str]
    oldest: dt.datetime | None
    cursor: str | None


def outside_transactions(call: Callable[P, R]) -> Callable[P, R]:
    """Refuse to talk to Stripe while this thread holds a transaction open."""

    @functools.wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if has_app_context() and current_app.extensions["sqlalchemy"].session().in_transaction():
            raise RuntimeError(f"{call.__name__} was called inside a database transaction")
        return call(*args, **kwargs)

    return guarded


def in_our_words(call: Callable[P, R]) -> Callable[P, R]:
    """Turn the SDK's many exceptions into the few that callers act on. Card errors are not among them."""

    @functools.wraps(call)
    def translated(*args: P.args, **kwargs: P.kwargs) -> R:
        import stripe

        try:
            return call(*args, **kwargs)
        except stripe.RateLimitError as error:
            raise StripeBusy(str(error.code)) from error
        except (stripe.AuthenticationError, stripe.PermissionError) as error:
            raise StripeForbidden(type(error).__name__) from error
        except stripe.InvalidRequestError as error:
            if error.code == "resource_missing":
                raise StripeMissing(f"{error.code}: {error.user_message or error}") from error
            raise StripeRefused(f"{error.code}: {error.user_message or error}") from error
        except stripe.IdempotencyError as error:
            raise StripeRefused(f"idempotency: {error}") from error
        except (stripe.APIConnectionError, stripe.APIError) as error:
            # Every 409 is here too: a first request with this key, or somebody else with this object, still runs.
            raise StripeAway(type(error).__name__) from error

    return translated


# --- Saving a card -----------------------------------------------------------------------------------------


def card_page_params(*, pledge_id: int, public_id: str, case_id: int, email: str, case_title: str,
                     agreement: str, return_url: str, back_url: str, expires_at: dt.datetime,
                     key: str, customer_id: str | None = None) -> dict[str, Any]:  # fmt: skip
    """The request for a card page, to be stored before it is sent: a repeat must not differ by a letter.

    A pledge that has a customer at Stripe keeps it: its payment can only be paid with that customer's cards.
    """
    params: SessionCreateParams = {
        "mode": "setup",
        "currency": "gbp",
        "allowed_payment_method_types": ["card"],
        "client_reference_id": public_id,
        "metadata": {"pledge_id": str(pledge_id), "case_id": str(case_id)},
        "setup_intent_data": {
            "description": f"Pledge for {case_title}"[:1000],
            "metadata": {"pledge_id": str(pledge_id), "case_id": str(case_id), "pledge": public_id, "page": key},
        },
        "custom_text": {"submit": {"message": agreement[:1200]}},
        "success_url": f"{return_url}?session_id={{CHECKOUT_SESSION_ID}}",
        "cancel_url": back_url,
        "locale": "en-GB",
        "expires_at": int(expires_at.timestamp()),
    }
    if customer_id is None:
        params |= {"customer_creation": "always", "customer_email": email}
    else:
        params["customer"] = customer_id
    return cast("dict[str, Any]", params)


@outside_transactions
@in_our_words
def card_page(params: dict[str, Any], key: str, settings: config.Settings | None = None) -> CardPage:
    """Ask for a card page. The same key and parameters always give the same page. Threads without an application
    give the settings."""
    client = _client_for(settings or config.current(), os.getpid())
    made = client.v1.checkout.sessions.create(cast("SessionCreateParams", params), {"idempotency_key": key})
    return CardPage(made.id, made.url)


@outside_transactions
@in_our_words
def look_at_card_page(session_id: str, settings: config.Settings | None = None) -> CardFound:
    """What has become of a card page; `saved_at` is filled by `card_saved_at`, which costs another call. Threads
    without an application give the settings."""
    client = _client_for(settings or config.current(), os.getpid())
    return _card_found(client.v1.checkout.sessions.retrieve(session_id, {"expand": ["setup_intent.payment_method"]}))


@outside_transactions
@in_our_words
def expire_card_page(session_id: str) -> CardFound:
    """Close a card page for good, or find that it was completed before that: what comes back is one of the two.

    Raises StripeAway while it is neither, since a card could still be saved on it.
    """
    import stripe

    client = _client()
    try:
        client.v1.checkout.sessions.expire(session_id)
    except stripe.InvalidRequestError as error:
        # Only an open page can be expired; the answer below says what it became instead.
        if error.code == "resource_missing":
            raise
    expand = ["setup_intent.payment_method"]
    found = _card_found(client.v1.checkout.sessions.retrieve(session_id, {"expand": expand}))
    if not found.expired and not found.complete:
        raise StripeAway("the card page is still open")
    return found


@outside_transactions
@in_our_words
def card_saved_at(
    setup_intent_id: str, since: dt.datetime, settings: config.Settings | None = None
) -> dt.datetime | None:
    """When Stripe's clock saw this card saved: the `created` of its setup_intent.succeeded event.

    Neither the session nor the SetupIntent carries that time. None when the event is not listed yet. Threads without
    an application give the settings.
    """
    client = _client_for(settings or config.current(), os.getpid())
    # Our clock may be ahead of Stripe's, so look a little further back than we think is needed.
    earliest = int(since.timestamp()) - 600
    listed = client.v1.events.list({"type": "setup_intent.succeeded", "created": {"gte": earliest}, "limit": 100})
    for event in listed.auto_paging_iter():
        if event.data.object["id"] == setup_intent_id:
            return dt.datetime.fromtimestamp(event.created, dt.UTC)
    return None


@outside_transactions
@in_our_words
def remove_card(payment_method_id: str) -> None:
    """Detach a saved card, so that it can never be charged again. Silent when it is already gone."""
    import stripe

    try:
        _client().v1.payment_methods.detach(payment_method_id)
    except stripe.InvalidRequestError as error:
        found = _client().v1.payment_methods.retrieve(payment_method_id)
        if found.customer is not None:
            raise error


@outside_transactions
@in_our_words
def forget_customer(customer_id: str) -> None:
    """Have Stripe delete a customer, with the name, the address and every saved card. What was paid stays in its books.
    Silent when it is gone already."""
    import stripe

    try:
        _client().v1.customers.delete(customer_id)
    except stripe.InvalidRequestError as error:
        if error.code != "resource_missing":
            raise


def _card_found(session: stripe.checkout.Session) -> CardFound:
    import stripe

    intent = session.setup_intent
    method = intent.payment_method if isinstance(intent, stripe.SetupIntent) else None
    card = method.card if isinstance(method, stripe.PaymentMethod) else None
    complete = session.status == "complete" and isinstance(intent, stripe.SetupIntent) and intent.status == "succeeded"
    return CardFound(
        session_id=session.id,
        expired=session.status == "expired",
        complete=complete,
        url=session.url,
        setup_intent_id=intent.id if isinstance(intent, stripe.SetupIntent) else intent,
        saved_at=None,
        customer_id=_id_of(session.customer),
        payment_method_id=method.id if isinstance(method, stripe.PaymentMethod) else method,
        card_words=f"{(card.brand or 'card').title()} ending {card.last4}" if card else None,
        fingerprint=card.fingerprint if card else None,
    )


def refused_card(payload: str) -> tuple[str, str, str]:
    """(the number of the pledge, the key of its card page, the card's fingerprint) that a setup_intent.setup_failed
    event of Stripe's speaks of, by our own notes on it; "" for what it does not name.

    Read from the verified event: to ask Stripe about each refused card would let whoever tries cards have us call as
    often as they do.
    """
    intent = json.loads(payload)["data"]["object"]
    noted = intent.get("metadata") or {}
    method = (intent.get("last_setup_error") or {}).get("payment_method") or {}
    card = method.get("card") or {}
    return str(noted.get("pledge", "")), str(noted.get("page", "")), str(card.get("fingerprint") or "")


# --- Charging ----------------------------------------------------------------------------------------------


def charge_params(*, pledge_id: int, case_id: int, amount_pence: int, customer_id: str, payment_method_id: str,
                  case_title: str) -> dict[str, Any]:  # fmt: skip
    """The request for the one payment of a pledge, to be stored before it is sent."""
    params: PaymentIntentCreateParams = {
        "amount": amount_pence,
        "currency": "gbp",
        "customer": customer_id,
        "payment_method": payment_method_id,
        "off_session": True,
        "confirm": True,
        "allowed_payment_method_types": ["card"],
        "description": f"Pledge for {case_title}"[:1000],
        "transfer_group": f"case:{case_id}",
        "metadata": {"pledge_id": str(pledge_id), "case_id": str(case_id)},
        "expand": ["latest_charge"],
    }
    return cast("dict[str, Any]", params)


def confirm_params(payment_method_id: str, return_url: str | None = None) -> dict[str, Any]:
    """The request to try the same payment again, to be stored before it is sent.

    With `return_url` the supporter is here: the bank may ask them, and sends them back there. After a refusal
    Stripe has forgotten the card, so it is given again.
    """
    params: PaymentIntentConfirmParams = {"payment_method": payment_method_id, "expand": ["latest_charge"]}
    if return_url is None:
        params["off_session"] = True
    else:
        params["return_url"] = return_url
    return cast("dict[str, Any]", params)


def charge(settings: config.Settings, params: dict[str, Any], key: str,
           payment_intent_id: str | None = None) -> ChargeFound:  # fmt: skip
    """Take the money of one pledge: the only way out for money, called by the deadline capture alone.

    Without an id the payment of the pledge is made; with one that payment is tried again, so that there is never
    a second. Takes the settings since it runs in threads without an application. A refusal by the bank is a
    result, not an exception; no answer at all is the result `unknown`.
    """
    try:
        return _charge(settings, params, key, payment_intent_id)
    except StripeAway as away:
        return ChargeFound("unknown", code=str(away)[:80])


@outside_transactions
@in_our_words
def _charge(settings: config.Settings, params: dict[str, Any], key: str, intent_id: str | None) -> ChargeFound:
    import stripe

    intents = _client_for(settings, os.getpid()).v1.payment_intents
    try:
        if intent_id is None:
            made = intents.create(cast("PaymentIntentCreateParams", params), {"idempotency_key": key})
        else:
            made = intents.confirm(intent_id, cast("PaymentIntentConfirmParams", params), {"idempotency_key": key})
    except stripe.CardError as error:
        return _refusal(error)
    except stripe.InvalidRequestError as error:
        if intent_id is None or error.code != "payment_intent_unexpected_state":
            raise
        # It was paid, or given up, in the meantime: the payment itself says which.
        made = intents.retrieve(intent_id, {"expand": ["latest_charge"]})
    return _charge_found(made)


@outside_transactions
@in_our_words
def look_at_charge(payment_intent_id: str, settings: config.Settings | None = None) -> ChargeFound:
    """The payment as Stripe has it now. Threads without an application give the settings."""
    client = _client_for(settings or config.current(), os.getpid())
    return _charge_found(client.v1.payment_intents.retrieve(payment_intent_id, {"expand": ["latest_charge"]}))


@outside_transactions
@in_our_words
def find_charge(settings: config.Settings, customer_id: str, pledge_id: int) -> ChargeFound | None:
    """The payment of a pledge when we never learned its id, or None when Stripe has none.

    Through the customer's own list, which is exact; Stripe's search may lag by an hour.
    """
    client = _client_for(settings, os.getpid())
    listed = client.v1.payment_intents.list({"customer": customer_id, "limit": 100})
    for found in listed.auto_paging_iter():
        if "pledge_id" in found.metadata and found.metadata["pledge_id"] == str(pledge_id):
            return _charge_found(client.v1.payment_intents.retrieve(found.id, {"expand": ["latest_charge"]}))
    return None


@outside_transactions
@in_our_words
def give_up_charge(payment_intent_id: str) -> ChargeFound | None:
    """Cancel a payment that was refused, so that it can never be paid. Returns it if it was paid after all.

    Raises StripeAway while it is neither, since it could still be paid.
    """
    import stripe

    client = _client()
    try:
        client.v1.payment_intents.cancel(payment_intent_id, {"cancellation_reason": "abandoned"})
    except stripe.InvalidRequestError as error:
        if error.code != "payment_intent_unexpected_state":
            raise
    found = client.v1.payment_intents.retrieve(payment_intent_id, {"expand": ["latest_charge"]})
    if found.status not in ("canceled", "succeeded"):
        raise StripeAway(f"the payment is {found.status}")
    return _charge_found(found) if found.status == "succeeded" else None


@outside_transactions
@in_our_words
def whose_charge(payment_intent_id: str) -> tuple[int | None, str]:
    """The pledge that our own note on a payment names, and its customer; see `pledge_of_charge`."""
    found = _client().v1.payment_intents.retrieve(payment_intent_id)
    return _our_note(found.metadata.to_dict()), str(_id_of(found.customer))


def pledge_of_charge(payload: str) -> tuple[int | None, str]:
    """The pledge that a payment's event speaks of, by our own note on it, and the customer who pays.

    The note alone is not enough: another site with the same Stripe account has pledges of the same numbers.
    """
    paid = json.loads(payload)["data"]["object"]
    return _our_note(paid.get("metadata")), str(paid.get("customer"))


def _our_note(notes: Any) -> int | None:
    """The number of the pledge that is noted on what Stripe has. No row has one that no database can hold."""
    noted = str(notes.get("pledge_id", "")) if isinstance(notes, dict) else ""
    return int(noted) if noted.isascii() and noted.isdecimal() and len(noted) < 10 else None


def _charge_found(intent: stripe.PaymentIntent) -> ChargeFound:
    charged = intent.latest_charge
    charge_id = _id_of(charged)
    if intent.status == "succeeded":
        return ChargeFound("succeeded", intent.id, charge_id, intent.amount_received)
    if intent.status in ("requires_action", "requires_confirmation"):
        bank_url = _bank_url(intent)
        return ChargeFound("action_required", intent.id, charge_id, 0, "authentication_required", bank_url=bank_url)
    if intent.status == "canceled":
        # Not by us, who drop the pledge then: nothing can be taken by it any more, and no card mends that.
        return ChargeFound("declined", intent.id, charge_id, 0, "canceled")
    failed = intent.last_payment_error
    if intent.status == "requires_payment_method" and failed is not None:
        return _declined(intent.id, charge_id, failed)
    return ChargeFound("unknown", intent.id, charge_id, 0, intent.status)


def _bank_url(intent: stripe.PaymentIntent) -> str | None:
    """Where the bank waits for the supporter."""
    action = intent.next_action
    redirect = action.redirect_to_url if action is not None and action.type == "redirect_to_url" else None
    return redirect.url if redirect is not None else None


def _refusal(error: stripe.CardError) -> ChargeFound:
    said = error.error
    intent = said.payment_intent if said else None
    return _declined(intent.id if intent else None, getattr(said, "charge", None), said)


def _declined(intent_id: str | None, charge_id: str | None, said: Any) -> ChargeFound:
    """Authentication is the supporter's to give; everything else is a refusal, hard or soft.

    `said` is the error of the answer, or the last error of a payment that is looked at: both have the same fields,
    and whichever we see first must lead to the same decision. Stripe leaves out what it has not got.
    """
    code, decline_code = getattr(said, "code", None), getattr(said, "decline_code", None)
    for wanted in ("authentication_required", "payment_intent_authentication_failure"):
        if wanted in (code, decline_code):
            return ChargeFound("action_required", intent_id, charge_id, 0, wanted)
    reason = decline_code or code or "declined"
    hard = (
        reason in _HARD_DECLINES
        or reason.startswith(_HARD_BEGINNINGS)
        or getattr(said, "advice_code", None) in _HARD_ADVICE
    )
    return ChargeFound("declined", intent_id, charge_id, 0, reason, soft=not hard)


# --- After the charge --------------------------------------------------------------------------------------


@outside_transactions
@in_our_words
def refund(*, refund_id: int, pledge_id: int, payment_intent_id: str, amount_pence: int, key: str) -> RefundFound:
    """Pay a part or the whole of one payment back. The same key never pays back twice.

    A refusal is a result: the payment was paid back at Stripe by hand, or is disputed, and `refunds_of` says what is.
    """
    import stripe

    params: RefundCreateParams = {
        "payment_intent": payment_intent_id,
        "amount": amount_pence,
        "reason": "requested_by_customer",
        "metadata": {"refund_id": str(refund_id), "pledge_id": str(pledge_id)},
    }
    try:
        return _refund_found(_client().v1.refunds.create(params, {"idempotency_key": key}))
    except stripe.InvalidRequestError as error:
        code = str(error.code or "refused")[:80]
        return RefundFound("failed", None, payment_intent_id, amount_pence, code, refund_id)


@outside_transactions
@in_our_words
def look_at_refund(stripe_id: str) -> RefundFound:
    """The refund as Stripe has it now."""
    return _refund_found(_client().v1.refunds.retrieve(stripe_id))


@outside_transactions
@in_our_words
def refunds_of(payment_intent_id: str) -> list[RefundFound]:
    """Every refund of one payment, ours and those made at Stripe by hand, oldest first."""
    listed = _client().v1.refunds.list({"payment_intent": payment_intent_id, "limit": 100})
    return [_refund_found(one) for one in listed.auto_paging_iter()][::-1]


@outside_transactions
@in_our_words
def look_at_dispute(dispute_id: str) -> DisputeFound:
    """The dispute as Stripe has it now."""
    return _dispute_found(_client().v1.disputes.retrieve(dispute_id))


def _dispute_found(found: stripe.Dispute) -> DisputeFound:
    due = found.evidence_details.due_by
    outcome = "won" if found.status in _DISPUTES_WON else "lost" if found.status == "lost" else "open"
    return DisputeFound(
        dispute_id=found.id,
        charge_id=str(_id_of(found.charge)),
        payment_intent_id=_id_of(found.payment_intent),
        amount_pence=found.amount,
        reason=found.reason[:80],
        outcome=outcome,
        # A bank's mere question takes nothing; from then on Stripe's own list says whether it was taken.
        held=bool(found.balance_transactions),
        due_by=dt.datetime.fromtimestamp(due, dt.UTC) if due and outcome == "open" else None,
        opened_at=dt.datetime.fromtimestamp(found.created, dt.UTC),
    )


def _refund_found(made: stripe.Refund) -> RefundFound:
    states = {"succeeded": "succeeded", "failed": "failed", "canceled": "failed"}
    noted = made.metadata["refund_id"] if made.metadata and "refund_id" in made.metadata else ""
    return RefundFound(
        outcome=states.get(str(made.status), "pending"),
        refund_id=made.id,
        payment_intent_id=_id_of(made.payment_intent),
        amount_pence=made.amount,
        code=str(made.failure_reason or ("canceled" if made.status == "canceled" else ""))[:80],
        noted=int(noted) if noted.isdecimal() else None,
    )


# --- The webhook door --------------------------------------------------------------------------------------


def read_news(raw: bytes, signature: str | None) -> News:
    """Verify a webhook on its raw bytes; raises NotFromStripe for anything forged, stale or of the other mode."""
    import stripe

    settings = config.current()
    try:
        _verify(raw, signature, settings.webhook_secrets)
        event = json.loads(raw)
        signed_at = int(str(signature).split("t=", 1)[1].split(",", 1)[0])
        news = News(
            event_id=_name(event["id"]),
            type=_name(event["type"], 80),
            object_id=_name(event["data"]["object"].get("id") or "-"),
            created_at=dt.datetime.fromtimestamp(int(event["created"]), dt.UTC),
            payload=raw.decode(),
        )
    except (stripe.SignatureVerificationError, ValueError, KeyError, TypeError, AttributeError, IndexError,
            OverflowError, OSError, RecursionError) as wrong:  # fmt: skip
        raise NotFromStripe(type(wrong).__name__) from wrong
    if signed_at > time.time() + FUTURE_TOLERANCE:
        raise NotFromStripe("signed in the future")
    if bool(event.get("livemode")) is not settings.livemode:
        raise NotFromStripe("the other mode")
    return news


def _verify(raw: bytes, signature: str | None, secrets: tuple[str, ...]) -> None:
    """Raises what the SDK raises unless one of the secrets has signed it in the last five minutes."""
    import stripe

    for secret in secrets[:-1]:
        with contextlib.suppress(stripe.SignatureVerificationError):
            stripe.WebhookSignature.verify_header(raw, signature, secret, tolerance=300)
            return
    stripe.WebhookSignature.verify_header(raw, signature, secrets[-1], tolerance=300)


def _name(said: Any, longest: int = 120) -> str:
    """One of Stripe's names, which are ASCII; whatever else has been signed is not put into the database."""
    if not (isinstance(said, str) and said.isascii() and said.isprintable() and 0 < len(said) <= longest):
        raise ValueError("not one of Stripe's names")
    return said


# --- Comparing with Stripe ---------------------------------------------------------------------------------

# Stripe lists no older events.
EVENTS_GO_BACK = dt.timedelta(days=30)
_PAGE = 100
# The list of events can be asked for so many types; for more it is asked for all.
_MOST_TYPES = 20


@outside_transactions
@in_our_words
def news_since(since: dt.datetime, until: dt.datetime, types: list[str], cursor: str | None = None) -> Page[News]:
    """What happened at Stripe in a span of time, whether its webhooks reached us or not."""
    asked: EventListParams = {"created": _span(since, until), "limit": _PAGE}
    if len(types) <= _MOST_TYPES:
        asked["types"] = types
    if cursor is not None:
        asked["starting_after"] = cursor
    return _page(_client().v1.events.list(asked), _news)


@outside_transactions
@in_our_words
def payments_between(since: dt.datetime, until: dt.datetime, cursor: str | None = None) -> Page[Payment]:
    """Every payment that was made in a span of time, also of other sites with the same account."""
    asked: PaymentIntentListParams = {"created": _span(since, until), "limit": _PAGE}
    if cursor is not None:
        asked["starting_after"] = cursor
    return _page(_client().v1.payment_intents.list(asked), _payment)


@outside_transactions
@in_our_words
def refunds_between(since: dt.datetime, until: dt.datetime, cursor: str | None = None) -> Page[RefundFound]:
    """Every refund that was asked for in a span of time, whoever asked, as it is now."""
    asked: RefundListParams = {"created": _span(since, until), "limit": _PAGE}
    if cursor is not None:
        asked["starting_after"] = cursor
    return _page(_client().v1.refunds.list(asked), _refund_found)


@outside_transactions
@in_our_words
def disputes_between(since: dt.datetime, until: dt.datetime, cursor: str | None = None) -> Page[DisputeFound]:
    """Every dispute that was opened in a span of time, as it is now."""
    asked: DisputeListParams = {"created": _span(since, until), "limit": _PAGE}
    if cursor is not None:
        asked["starting_after"] = cursor
    return _page(_client().v1.disputes.list(asked), _dispute_found)


@outside_transactions
@in_our_words
def balance_between(since: dt.datetime, until: dt.datetime, cursor: str | None = None) -> Page[BalanceLine]:
    """Every line of Stripe's balance of a span of time: what moved then, whenever its charge was made."""
    asked: BalanceTransactionListParams = {"created": _span(since, until), "limit": _PAGE}
    if cursor is not None:
        asked["starting_after"] = cursor
    return _page(_client().v1.balance_transactions.list(asked), _balance_line)


@outside_transactions
@in_our_words
def look_at_payment(payment_intent_id: str) -> Payment:
    """One payment as Stripe has it now. Raises StripeMissing when Stripe has none of this name."""
    return _payment(_client().v1.payment_intents.retrieve(payment_intent_id))


def _page(listed: Any, read: Callable[[Any], Found]) -> Page[Found]:
    ids = [str(one.id) for one in listed.data]
    oldest = _instant(listed.data[-1].created) if ids else None
    return Page([read(one) for one in listed.data], ids, oldest, ids[-1] if listed.has_more and ids else None)


def _news(event: stripe.Event) -> News:
    return News(
        event_id=event.id,
        type=event.type,
        object_id=str(getattr(event.data.object, "id", "-")),
        created_at=_instant(event.created),
        payload=json.dumps(event.to_dict()),
    )


def _balance_line(line: stripe.BalanceTransaction) -> BalanceLine:
    return BalanceLine(
        id=line.id,
        source_id=str(_id_of(line.source)),
        category=line.reporting_category,
        amount_pence=line.amount,
        fee_pence=line.fee,
        currency=line.currency,
    )


def _payment(intent: stripe.PaymentIntent) -> Payment:
    return Payment(
        found=_charge_found(intent),
        amount_pence=intent.amount,
        currency=intent.currency,
        customer_id=_id_of(intent.customer),
        ours=_our_note(intent.metadata.to_dict()),
        cancelled=intent.status == "canceled",
    )


def _span(since: dt.datetime, until: dt.datetime) -> Any:
    """Whole seconds, the last one included."""
    return {"gte": int(since.timestamp()), "lte": int(until.timestamp())}


def _instant(stripes: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(stripes, dt.UTC)


# --- The client --------------------------------------------------------------------------------------------


def load() -> None:
    """Import the parts of the SDK that it imports only when they are first used, about a tenth of a second's work.

    Done once before a process forks, or before many threads ask at once, so that not each of them has to do it.
    """
    if config.current().stripe_secret_key:
        _client().v1.payment_intents  # noqa: B018 - that it is looked at is all that is wanted


def _client() -> stripe.StripeClient:
    return _client_for(config.current(), os.getpid())


@functools.lru_cache(maxsize=8)
def _client_for(settings: config.Settings, process: int) -> stripe.StripeClient:
    """One client for each process: made after the fork, since a socket cannot be shared with the parent."""
    import stripe

    stripe.enable_telemetry = False
    # Without a base address the SDK takes its own, so the sandbox is the only case that names one.
    local: Any = {"base_addresses": {"api": settings.stripe_api_base}} if settings.stripe_api_base else {}
    return stripe.StripeClient(
        settings.stripe_secret_key,
        max_network_retries=2,
        http_client=stripe.RequestsClient(timeout=(5, 20)),
        **local,
    )


def _id_of(thing: Any) -> str | None:
    """The id of something that may be expanded or not."""
    return thing if thing is None or isinstance(thing, str) else str(thing.id)
