"""The two that the contract is asked of: our sandbox always, and Stripe's test mode when STRIPE_TEST_KEY is given."""

import os
import secrets
from dataclasses import dataclass
from typing import Any

import pytest
import stripe

import config
from tests.at_stripe import BANK_ASKS_LATER, DECLINES_LATER, DISPUTES, WORKS, an_account, page_params, sdk, type_card
from tests.sandbox_process import SandboxProcess

# At Stripe nobody types a number: its test mode has a PaymentMethod for each behaviour.
READY_MADE = {
    WORKS: "pm_card_visa",
    DECLINES_LATER: "pm_card_chargeCustomerFail",
    BANK_ASKS_LATER: "pm_card_authenticationRequired",
    DISPUTES: "pm_card_createDispute",
}


def key_given() -> str:
    """The key in the environment, or nothing. A key that moves real money is never used, whatever it is for."""
    key = os.environ.get("STRIPE_TEST_KEY", "")
    if key and not key.startswith(("sk_test_", "rk_test_")):
        raise ValueError(
            "STRIPE_TEST_KEY must begin with sk_test_ or rk_test_: these tests are never run with real money."
        )
    return key


def names() -> list[str]:
    return ["the sandbox", *(["Stripe's test mode"] if key_given() else [])]


@dataclass(frozen=True)
class AStripe:
    """One of the two, through the real SDK. `sandbox` is None for Stripe itself."""

    settings: config.Settings
    client: Any
    sandbox: SandboxProcess | None

    @classmethod
    def local(cls, sandbox: SandboxProcess) -> "AStripe":
        settings = config.Settings(environment="test", stripe_api_base=sandbox.url)
        return cls(settings, sdk(sandbox), sandbox)

    @classmethod
    def real(cls) -> "AStripe":
        settings = config.Settings(environment="test", stripe_secret_key=key_given(), stripe_api_base="")
        return cls(settings, stripe.StripeClient(key_given(), max_network_retries=2), None)

    def customer(self) -> str:
        """Somebody with a card that works."""
        return self.saved_card(WORKS)[0]

    def destination(self) -> str:
        """A connected account that may receive transfers. At Stripe it is made beforehand, by hand."""
        if self.sandbox is not None:
            return an_account(self.sandbox)
        account = os.environ.get("STRIPE_TEST_DESTINATION", "")
        if not account:
            pytest.skip("transfers need STRIPE_TEST_DESTINATION, a connected account of the test mode")
        return account

    def saved_card(self, number: str, customer: str | None = None) -> tuple[str, str]:
        """The ids of a Customer and of a card of theirs: saved on the hosted page, or attached where nobody types."""
        if self.sandbox is None:
            customer = customer or str(self.client.v1.customers.create({"email": "ada@example.org"}).id)
            made = self.client.v1.payment_methods.attach(READY_MADE[number], {"customer": customer})
            return customer, str(made.id)
        whose = {"customer": customer, "customer_creation": None, "customer_email": None} if customer else {}
        session = self.client.v1.checkout.sessions.create(page_params(**whose))
        assert type_card(session.url, number).status_code == 303
        done = self.client.v1.checkout.sessions.retrieve(session.id, {"expand": ["setup_intent"]})
        return str(done.customer), str(done.setup_intent.payment_method)


def a_key() -> str:
    """An idempotency key that nobody has used on this account, today or by another machine."""
    return f"contract-{secrets.token_hex(12)}"
