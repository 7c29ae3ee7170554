"""The same payment tried again: with the clock, with its payer there, after it is over, and when its answer is lost."""

import datetime as dt
from typing import Any

import pytest
from flask import Flask

import config
import law
import payments
from jobs import deadline_capture
from jobs.deadline_capture import Asking
from tests.at_stripe import (
    BANK_ASKS_LATER,
    DECLINES_LATER,
    TOO_LITTLE_MONEY_LATER,
    WORKS,
    a_key,
    calls,
    saved_card,
    sdk,
    type_card,
)
from tests.made import now
from tests.reader import Reader
from tests.sandbox_process import SandboxProcess

CONFIRM = "payment_intents.confirm"


@pytest.fixture(autouse=True)
def at_the_sandbox(asks_the_sandbox: Flask) -> None:
    """Every test of this file asks the sandbox."""


def refused(sandbox: SandboxProcess, number: str) -> tuple[payments.ChargeFound, dict[str, Any]]:
    """A payment of £25 that was refused once, and what was asked for it."""
    customer, method = saved_card(sandbox, number)
    asked = payments.charge_params(
        pledge_id=17, case_id=1, amount_pence=2_500, customer_id=customer, payment_method_id=method,
        case_title="A case about data",
    )  # fmt: skip
    found = payments.charge(config.current(), asked, a_key())
    assert found.outcome in ("declined", "action_required")
    return found, asked


def again(found: payments.ChargeFound, params: dict[str, Any], key: str = "") -> payments.ChargeFound:
    return payments.charge(config.current(), params, key or a_key(), found.payment_intent_id)


def test_another_card_of_the_same_customer_pays_the_same_payment(sandbox: SandboxProcess) -> None:
    found, asked = refused(sandbox, DECLINES_LATER)
    page = payments.card_page(
        payments.card_page_params(
            pledge_id=17, public_id="abc", key="pledge-17-session-1", case_id=1, email="ada@example.org",
            case_title="A case about data",
            agreement="I allow it.", return_url="http://127.0.0.1:8000/pledges/return",
            back_url="http://127.0.0.1:8000/", customer_id=asked["customer"],
            expires_at=now() + dt.timedelta(hours=1),
        ),
        a_key(),
    )  # fmt: skip
    assert type_card(str(page.url), WORKS).status_code == 303
    card = payments.look_at_card_page(page.session_id)
    assert card.customer_id == asked["customer"] and card.payment_method_id != asked["payment_method"]
    paid = again(found, payments.confirm_params(str(card.payment_method_id)))
    assert (paid.outcome, paid.payment_intent_id, paid.amount_pence) == ("succeeded", found.payment_intent_id, 2_500)
    listed = sdk(sandbox).v1.payment_intents.list({"customer": asked["customer"]}).data
    assert [one.id for one in listed] == [found.payment_intent_id]


def test_a_payment_that_was_paid_meanwhile_is_found_paid_and_not_paid_twice(sandbox: SandboxProcess) -> None:
    found, asked = refused(sandbox, BANK_ASKS_LATER)
    here = payments.confirm_params(asked["payment_method"], f"{sandbox.url}/healthz")
    waits = again(found, here)
    assert (waits.outcome, waits.bank_url) == ("action_required", f"{sandbox.url}/bank/{found.payment_intent_id}")
    Reader(sandbox.url).open(str(waits.bank_url)).press("Approve")
    paid = again(found, here)
    assert (paid.outcome, paid.amount_pence, paid.bank_url) == ("succeeded", 2_500, None)
    charges = sdk(sandbox).v1.charges.list({"payment_intent": found.payment_intent_id}).data
    assert sorted(one.status for one in charges) == ["failed", "succeeded"]


def test_the_same_key_leads_to_the_same_page_of_the_bank(sandbox: SandboxProcess) -> None:
    found, asked = refused(sandbox, BANK_ASKS_LATER)
    here, key = payments.confirm_params(asked["payment_method"], f"{sandbox.url}/healthz"), a_key()
    assert again(found, here, key) == again(found, here, key)
    assert {call["idempotency_key"] for call in calls(sandbox, CONFIRM)[-2:]} == {key}


def test_what_the_bank_does_not_approve_still_wants_the_supporter(sandbox: SandboxProcess) -> None:
    found, asked = refused(sandbox, BANK_ASKS_LATER)
    waits = again(found, payments.confirm_params(asked["payment_method"], f"{sandbox.url}/healthz"))
    Reader(sandbox.url).open(str(waits.bank_url)).press("Refuse")
    now_found = payments.look_at_charge(str(found.payment_intent_id))
    assert (now_found.outcome, now_found.code, now_found.bank_url) == (
        "action_required", "payment_intent_authentication_failure", None,
    )  # fmt: skip


def test_what_is_approved_may_still_be_refused_for_want_of_money(sandbox: SandboxProcess) -> None:
    found, asked = refused(sandbox, TOO_LITTLE_MONEY_LATER)
    waits = again(found, payments.confirm_params(asked["payment_method"], f"{sandbox.url}/healthz"))
    Reader(sandbox.url).open(str(waits.bank_url)).press("Approve")
    now_found = payments.look_at_charge(str(found.payment_intent_id))
    assert (now_found.outcome, now_found.code, now_found.soft) == ("declined", "insufficient_funds", True)
    assert now_found.charge_id not in (None, found.charge_id)


def test_a_payment_that_was_given_up_is_refused_for_good(sandbox: SandboxProcess) -> None:
    found, asked = refused(sandbox, DECLINES_LATER)
    assert payments.give_up_charge(str(found.payment_intent_id)) is None
    for _ in range(2):
        over = again(found, payments.confirm_params(asked["payment_method"]))
        assert (over.outcome, over.code, over.soft) == ("declined", "canceled", False)


# --- When the key is too old to be sent again --------------------------------------------------------------


def asking(found: payments.ChargeFound, asked: dict[str, Any]) -> Asking:
    """The second attempt of a payment whose first was refused, asked for so long ago that Stripe may have pruned it."""
    long_ago = now() - law.KEY_LIFETIME - dt.timedelta(seconds=1)
    return Asking(
        17, 1, 2, "pledge-17-charge-2", payments.confirm_params(asked["payment_method"]), asked["customer"], long_ago,
        long_ago, found.payment_intent_id, frozenset({found.charge_id}),
    )  # fmt: skip


@pytest.mark.parametrize("number", [DECLINES_LATER, BANK_ASKS_LATER])
def test_an_old_attempt_is_looked_up_and_the_refusal_before_it_is_not_taken_for_its_own(
    sandbox: SandboxProcess, number: str
) -> None:
    found, asked = refused(sandbox, number)
    assert deadline_capture._ask(config.current(), asking(found, asked)) is None
    assert calls(sandbox, CONFIRM) == []


def test_an_old_attempt_that_did_arrive_is_found_by_its_own_charge(sandbox: SandboxProcess) -> None:
    found, asked = refused(sandbox, DECLINES_LATER)
    own = again(found, payments.confirm_params(asked["payment_method"]))
    looked_up = deadline_capture._ask(config.current(), asking(found, asked))
    assert looked_up == own and own.charge_id != found.charge_id
