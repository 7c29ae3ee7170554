"""The card numbers the sandbox knows, and how each behaves.

They are Stripe's documented test numbers (docs.stripe.com/testing) and one of our own, for a refusal that
must never be tried again. A number behaves the same each time.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Decline:
    """Why a bank says no: Stripe's error code, the bank's own reason, and advice on what to do next."""

    code: str
    decline_code: str
    message: str
    advice_code: str | None = None


DECLINES = {
    decline.decline_code: decline
    for decline in (
        Decline("card_declined", "generic_decline", "Your card was declined.", "try_again_later"),
        Decline("card_declined", "do_not_honor", "Your card was declined.", "try_again_later"),
        Decline("card_declined", "insufficient_funds", "Your card has insufficient funds.", "try_again_later"),
        Decline("card_declined", "lost_card", "Your card was declined.", "do_not_try_again"),
        Decline("card_declined", "stolen_card", "Your card was declined.", "do_not_try_again"),
        Decline("card_declined", "fraudulent", "Your card was declined.", "do_not_try_again"),
        Decline("expired_card", "expired_card", "Your card has expired.", "confirm_card_data"),
        Decline("processing_error", "processing_error", "An error occurred while processing your card.",
                "try_again_later"),
        Decline("authentication_required", "authentication_required",
                "Your card was declined. This transaction requires authentication."),
        # No card of ours is refused with these; the fault plan can refuse any card with them.
        Decline("card_declined", "try_again_later", "Your card was declined.", "try_again_later"),
        Decline("card_declined", "card_velocity_exceeded", "Your card was declined.", "try_again_later"),
        Decline("card_declined", "pickup_card", "Your card was declined.", "do_not_try_again"),
        Decline("card_declined", "restricted_card", "Your card was declined.", "do_not_try_again"),
        Decline("card_declined", "invalid_account", "Your card was declined.", "confirm_card_data"),
        Decline("card_declined", "invalid_amount", "Your card was declined.", "confirm_card_data"),
        Decline("card_declined", "incorrect_pin", "Your card was declined.", "confirm_card_data"),
        Decline("incorrect_number", "incorrect_number", "Your card number is incorrect.", "confirm_card_data"),
        Decline("incorrect_cvc", "incorrect_cvc", "Your card's security code is incorrect.", "confirm_card_data"),
        Decline("invalid_expiry_year", "invalid_expiry_year", "Your card's expiration year is invalid.",
                "confirm_card_data"),
    )
}  # fmt: skip

ADVICE = ("try_again_later", "confirm_card_data", "do_not_try_again")


@dataclass(frozen=True)
class Card:
    """One card number.

    refused_at_setup     the decline code with which the card is refused when it is to be saved, or None
    bank_asks_at_setup   the bank wants to see the person before the card is saved
    off_session          the decline code of a charge made without the person, or None when it is paid
    on_session           the decline code of a charge made with the person there, or None
    bank_asks_on_session the bank wants to see the person before each charge made with the person there
    """

    number: str
    brand: str
    says: str
    refused_at_setup: str | None = None
    bank_asks_at_setup: bool = False
    off_session: str | None = None
    on_session: str | None = None
    bank_asks_on_session: bool = False

    @property
    def spaced(self) -> str:
        return " ".join(self.number[i : i + 4] for i in range(0, len(self.number), 4))

    @property
    def last4(self) -> str:
        return self.number[-4:]

    @property
    def fingerprint(self) -> str:
        """The same for the same number, so that two PaymentMethods of one card can be told to be one."""
        return hashlib.sha256(self.number.encode()).hexdigest()[:16]


CARDS = {
    card.number: card
    for card in (
        Card("4242424242424242", "visa", "works"),
        Card("4000002500003155", "visa", "bank asks now, then works", bank_asks_at_setup=True),
        Card("4000002760003184", "visa", "bank asks now, and again at the deadline", bank_asks_at_setup=True,
             off_session="authentication_required", bank_asks_on_session=True),
        Card("4000008260003178", "visa", "bank asks now, too little money at the deadline",
             bank_asks_at_setup=True, off_session="insufficient_funds", on_session="insufficient_funds",
             bank_asks_on_session=True),
        Card("4000000000000341", "visa", "saved, declines at the deadline",
             off_session="generic_decline", on_session="generic_decline"),
        Card("4000000000000036", "visa", "saved, reported lost at the deadline (never try again)",
             off_session="lost_card", on_session="lost_card"),
        Card("4000000000000002", "visa", "refused now", refused_at_setup="generic_decline"),
        Card("4000000000009995", "visa", "refused now: too little money", refused_at_setup="insufficient_funds"),
        Card("4000000000009987", "visa", "refused now: lost card", refused_at_setup="lost_card"),
        Card("4000000000000069", "visa", "refused now: expired", refused_at_setup="expired_card"),
        Card("4000000000000259", "visa", "works; Stripe opens a dispute on it"),
        Card("4000000000005126", "visa", "works; refunds to it fail at Stripe"),
    )
}  # fmt: skip

# What the five buttons of the Checkout page submit.
BUTTONS: tuple[tuple[str, str], ...] = (
    ("works", "4242424242424242"),
    ("bank asks now", "4000002500003155"),
    ("declines at the deadline", "4000000000000341"),
    ("bank asks at the deadline", "4000002760003184"),
    ("refused now", "4000000000000002"),
)


def card_by_number(typed: str) -> Card | None:
    """The card whose number was typed, with or without spaces and dashes; None for a number we don't know."""
    return CARDS.get("".join(typed.split()).replace("-", ""))
