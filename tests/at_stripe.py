"""What a test does at the sandbox: asks with the real SDK, and fills in the hosted pages by hand."""

import datetime as dt
import itertools
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
import requests
import stripe

from jobs import deadline_capture
from models import Pledge, db
from tests.made import now
from tests.sandbox_process import SandboxProcess

WORKS = "4242424242424242"
BANK_ASKS_NOW = "4000002500003155"
BANK_ASKS_LATER = "4000002760003184"
TOO_LITTLE_MONEY_LATER = "4000008260003178"
DECLINES_LATER = "4000000000000341"
LOST_LATER = "4000000000000036"
DISPUTES = "4000000000000259"
REFUNDS_FAIL = "4000000000005126"

_names = itertools.count(1)


def sdk(sandbox: SandboxProcess, key: str = "sk_test_anything", retries: int = 0, timeout: float = 20) -> Any:
    """The real SDK's client. Untyped, since tests also ask for what its types forbid."""
    stripe.enable_telemetry = False
    return stripe.StripeClient(
        key,
        base_addresses={"api": sandbox.url},
        max_network_retries=retries,
        http_client=stripe.RequestsClient(timeout=timeout),
    )


def in_hours(hours: float) -> int:
    return int(time.time() + hours * 3600)


def page_params(**changes: Any) -> dict[str, Any]:
    """What the product asks for when a supporter is to save a card; None leaves a parameter out."""
    asked: dict[str, Any] = {
        "mode": "setup",
        "currency": "gbp",
        "customer_creation": "always",
        "customer_email": "ada@example.org",
        "allowed_payment_method_types": ["card"],
        "client_reference_id": "pledge-abc",
        "metadata": {"pledge_id": "17", "case_id": "1"},
        "setup_intent_data": {
            "description": "Pledge for A case about data",
            "metadata": {"pledge_id": "17", "case_id": "1", "pledge": "pledge-abc", "page": "pledge-17-session-1"},
        },
        "custom_text": {"submit": {"message": "I allow Standing Test to charge my card £25 once."}},
        "success_url": "http://127.0.0.1:8000/pledges/return?session_id={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://127.0.0.1:8000/pledges/a-private-link",
        "locale": "en-GB",
        "expires_at": in_hours(2),
    }
    return {name: value for name, value in (asked | changes).items() if value is not None}


def pay_page_params(**changes: Any) -> dict[str, Any]:
    """A page on which £25 is paid at once, which the product does not ask for; None leaves a parameter out."""
    price = {"currency": "gbp", "unit_amount": 2_500, "product_data": {"name": "A donation to A case about data"}}
    asked: dict[str, Any] = {
        "mode": "payment",
        "customer_email": "ada@example.org",
        "allowed_payment_method_types": ["card"],
        "line_items": [{"price_data": price, "quantity": 1}],
        "payment_intent_data": {
            "description": "A donation to A case about data",
            "metadata": {"case_id": "1"},
            "transfer_group": "case:1",
        },
        "success_url": "http://127.0.0.1:8000/pledges/return?session_id={CHECKOUT_SESSION_ID}",
        "cancel_url": "http://127.0.0.1:8000/pledges/a-private-link",
        "expires_at": in_hours(2),
    }
    return {name: value for name, value in (asked | changes).items() if value is not None}


def charge_params(customer: str, method: str, /, **changes: Any) -> dict[str, Any]:
    """What the product asks for at the deadline; None leaves a parameter out."""
    asked: dict[str, Any] = {
        "amount": 2_500,
        "currency": "gbp",
        "customer": customer,
        "payment_method": method,
        "off_session": True,
        "confirm": True,
        "allowed_payment_method_types": ["card"],
        "description": "Pledge for A case about data",
        "transfer_group": "case:1",
        "metadata": {"pledge_id": "17", "case_id": "1"},
        "expand": ["latest_charge"],
    }
    return {name: value for name, value in (asked | changes).items() if value is not None}


def transfer_params(destination: str, charge: str | None, /, **changes: Any) -> dict[str, Any]:
    """£20 of a charge of £25, passed on to a connected account; None leaves a parameter out."""
    asked: dict[str, Any] = {
        "amount": 2_000,
        "currency": "gbp",
        "destination": destination,
        "source_transaction": charge,
        "transfer_group": "case:1",
        "metadata": {"pledge_id": "17"},
    }
    return {name: value for name, value in (asked | changes).items() if value is not None}


def an_account(sandbox: SandboxProcess, transfers: str = "active") -> str:
    """The id of a connected account, which may receive transfers or ("inactive") not yet."""
    made = requests.post(f"{sandbox.url}/sandbox/accounts", json={"transfers": transfers}, timeout=30)
    return str(made.json()["id"])


def type_card(page: str, number: str, approve: bool = True) -> requests.Response:
    """Give a card on a Checkout page, and answer the bank if it asks; returns the last answer, not followed."""
    answer = requests.post(page, {"card": number}, allow_redirects=False, timeout=60)
    if answer.headers.get("Location", "").endswith("/bank"):
        word = "approve" if approve else "refuse"
        answer = requests.post(f"{page}/bank", {"answer": word}, allow_redirects=False, timeout=60)
    return answer


def saved_card(sandbox: SandboxProcess, number: str = WORKS, **changes: Any) -> tuple[str, str]:
    """The ids of a Customer and a PaymentMethod, after somebody has saved a card of this number."""
    client = sdk(sandbox)
    session = client.v1.checkout.sessions.create(page_params(**changes))
    assert type_card(session.url, number).status_code == 303
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["setup_intent"]})
    return str(done.customer), str(done.setup_intent.payment_method)


def refusal(ask: Callable[[], Any]) -> Any:
    """What the bank's refusal of a payment says: the error object inside a 402."""
    with pytest.raises(stripe.CardError) as refused:
        ask()
    assert refused.value.http_status == 402
    return refused.value.error


def a_key() -> str:
    """An idempotency key that no other test uses."""
    return f"key-{next(_names)}-{time.monotonic_ns()}"


def plan(sandbox: SandboxProcess, **fault: Any) -> None:
    """Add one fault to the plan; the plan is cleared before each test."""
    answer = requests.post(f"{sandbox.url}/sandbox/faults", json=fault, timeout=30)
    assert answer.status_code == 200, answer.text


def faults(sandbox: SandboxProcess) -> list[dict[str, Any]]:
    """The plan in force; each fault with how many calls it has "seen" and on how many it "acted"."""
    return cast("list[dict[str, Any]]", requests.get(f"{sandbox.url}/sandbox/faults", timeout=30).json())


def move_clock(sandbox: SandboxProcess, ahead: dt.timedelta) -> None:
    """Set how far the sandbox's clock is ahead of the real one; set back before each test."""
    offset = {"offset_seconds": int(ahead.total_seconds())}
    requests.post(f"{sandbox.url}/sandbox/clock", json=offset, timeout=30).raise_for_status()


def close_dispute(sandbox: SandboxProcess, dispute_id: str, end: str) -> None:
    """The bank decides: won or lost."""
    where = f"{sandbox.url}/sandbox/disputes/{dispute_id}/closure"
    requests.post(where, json={"status": end}, timeout=30).raise_for_status()


def calls(sandbox: SandboxProcess, operation: str) -> list[dict[str, Any]]:
    """The API calls of an operation that arrived since the test began, oldest first."""
    asked = requests.get(f"{sandbox.url}/sandbox/calls", {"operation": operation}, timeout=30)
    return cast("list[dict[str, Any]]", asked.json())


def claimed() -> list[deadline_capture.Asking]:
    """What the capturer takes and is about to ask for: it may die right after."""
    due = Pledge.waiting_to_charge(now(), 50)
    askings = [deadline_capture._asking(one, one.claim(now(), deadline_capture.CLAIM_LEASE)) for one in due]
    db.session.commit()
    return askings
