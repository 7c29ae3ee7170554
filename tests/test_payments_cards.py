"""payments.py and the saving of cards, against the sandbox as a process."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from flask import Flask

import config
import payments
from tests.at_stripe import (
    BANK_ASKS_NOW,
    DECLINES_LATER,
    WORKS,
    a_key,
    move_clock,
    page_params,
    plan,
    saved_card,
    sdk,
    type_card,
)
from tests.sandbox_process import SandboxProcess


@pytest.fixture(autouse=True)
def at_the_sandbox(asks_the_sandbox: Flask) -> None:
    """Every test of this file asks the sandbox."""


def test_the_same_key_and_parameters_give_the_same_page(sandbox: SandboxProcess) -> None:
    asked, key = page_params(), a_key()
    first = payments.card_page(asked, key)
    assert first.url == f"{sandbox.url}/c/pay/{first.session_id}"
    assert payments.card_page(asked, key) == first
    # A letter more is our bug, and is said to be one: a new page would leave the first one open.
    with pytest.raises(payments.StripeRefused, match="Keys for idempotent requests"):
        payments.card_page(asked | {"cancel_url": "http://127.0.0.1:8000/elsewhere"}, key)


def test_a_page_whose_answer_was_lost_three_times_is_found_with_its_key(sandbox: SandboxProcess) -> None:
    asked, key = page_params(client_reference_id="lost-page"), a_key()
    plan(sandbox, operation="checkout.sessions.create", fault="lose_answer", times=3)
    with pytest.raises(payments.StripeAway):
        payments.card_page(asked, key)
    found = payments.card_page(asked, key)
    sessions = sdk(sandbox).v1.checkout.sessions.list({"limit": 100}).data
    assert [one.id for one in sessions if one.client_reference_id == "lost-page"] == [found.session_id]


def test_a_card_page_is_seen_open_then_complete_with_its_card(sandbox: SandboxProcess) -> None:
    page = payments.card_page(page_params(), a_key())
    seen = payments.look_at_card_page(page.session_id)
    assert (seen.expired, seen.complete, seen.url, seen.saved_at) == (False, False, page.url, None)
    assert (seen.customer_id, seen.payment_method_id, seen.card_words) == (None, None, None)
    # Waiting for the bank is not saved yet.
    requests.post(str(page.url), {"card": BANK_ASKS_NOW}, allow_redirects=False, timeout=30)
    assert not payments.look_at_card_page(page.session_id).complete
    requests.post(f"{page.url}/bank", {"answer": "approve"}, allow_redirects=False, timeout=30)
    done = payments.look_at_card_page(page.session_id)
    assert (done.expired, done.complete, done.url, done.card_words) == (False, True, None, "Visa ending 3155")
    at_stripe = sdk(sandbox).v1.payment_methods.retrieve(done.payment_method_id)
    assert (at_stripe.customer, at_stripe.card.last4) == (done.customer_id, "3155")
    assert str(done.setup_intent_id).startswith("seti_")


def test_closing_a_page_ends_it_and_may_be_done_twice(sandbox: SandboxProcess) -> None:
    page = payments.card_page(page_params(), a_key())
    for _ in range(2):
        closed = payments.expire_card_page(page.session_id)
        assert (closed.expired, closed.complete, closed.url, closed.payment_method_id) == (True, False, None, None)
    assert type_card(str(page.url), WORKS).status_code == 410


def test_closing_a_page_finds_that_a_card_was_saved_before(sandbox: SandboxProcess) -> None:
    page = payments.card_page(page_params(), a_key())
    type_card(str(page.url), DECLINES_LATER)
    found = payments.expire_card_page(page.session_id)
    assert (found.expired, found.complete, found.card_words) == (False, True, "Visa ending 0341")
    assert found.customer_id and found.payment_method_id


def test_closing_against_saving_ends_in_one_of_the_two_and_says_which(sandbox: SandboxProcess) -> None:
    """A card saved while the round closes: a page is never both, never neither, and we never believe the wrong one."""
    client = sdk(sandbox)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(20):
            page = payments.card_page(page_params(), a_key())
            saving = pool.submit(type_card, str(page.url), WORKS)
            closed = payments.expire_card_page(page.session_id)
            assert closed.expired is not closed.complete
            status = client.v1.checkout.sessions.retrieve(page.session_id).status
            ended = ("complete", 303) if closed.complete else ("expired", 410)
            assert (status, saving.result().status_code) == ended


def test_a_page_that_will_not_close_is_never_taken_for_closed(sandbox: SandboxProcess) -> None:
    page = payments.card_page(page_params(), a_key())
    plan(sandbox, operation="checkout.sessions.expire", fault="error", status=400)
    with pytest.raises(payments.StripeAway, match="still open"):
        payments.expire_card_page(page.session_id)
    assert payments.look_at_card_page(page.session_id).url == page.url


def test_a_page_that_stripe_does_not_know_is_refused(sandbox: SandboxProcess) -> None:
    for ask in (payments.look_at_card_page, payments.expire_card_page):
        with pytest.raises(payments.StripeRefused, match="resource_missing"):
            ask("cs_test_none")


def test_when_a_card_was_saved_is_said_by_stripes_clock(sandbox: SandboxProcess) -> None:
    """The time of its event, also when the event was dropped on the way to us; not the time of the session."""
    plan(sandbox, event="*", fault="drop", times="always")
    page = payments.card_page(page_params(expires_at=None), a_key())
    started = dt.datetime.now(dt.UTC)
    move_clock(sandbox, dt.timedelta(hours=3))
    type_card(str(page.url), WORKS)
    found = payments.look_at_card_page(page.session_id)
    saved_at = payments.card_saved_at(str(found.setup_intent_id), started)
    assert saved_at is not None and saved_at.tzinfo is dt.UTC
    assert dt.timedelta(hours=3) <= saved_at - started.replace(microsecond=0) < dt.timedelta(hours=3, minutes=5)
    # Ours may run up to ten minutes ahead of Stripe's.
    assert payments.card_saved_at(str(found.setup_intent_id), saved_at + dt.timedelta(minutes=10)) == saved_at


def test_a_card_that_is_not_saved_has_no_time(sandbox: SandboxProcess) -> None:
    page = payments.card_page(page_params(), a_key())
    since = dt.datetime.now(dt.UTC)
    requests.post(str(page.url), {"card": BANK_ASKS_NOW}, allow_redirects=False, timeout=30)
    waiting = str(payments.look_at_card_page(page.session_id).setup_intent_id)
    assert payments.card_saved_at(waiting, since) is None
    requests.post(f"{page.url}/bank", {"answer": "refuse"}, allow_redirects=False, timeout=30)
    assert payments.card_saved_at(waiting, since) is None


def test_the_time_is_found_behind_more_than_a_page_of_later_cards(sandbox: SandboxProcess) -> None:
    """Stripe lists a hundred events at most: on a busy evening the one we need is on the second page."""
    page = payments.card_page(page_params(), a_key())
    since = dt.datetime.now(dt.UTC)
    type_card(str(page.url), WORKS)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: saved_card(sandbox), range(100)))
    mine = str(payments.look_at_card_page(page.session_id).setup_intent_id)
    assert payments.card_saved_at(mine, since) is not None


def test_a_card_is_removed_once_and_removing_it_again_is_silent(sandbox: SandboxProcess) -> None:
    customer, method = saved_card(sandbox)
    for _ in range(2):
        payments.remove_card(method)
        assert sdk(sandbox).v1.payment_methods.retrieve(method).customer is None
    asked = payments.charge_params(
        pledge_id=17, case_id=1, amount_pence=2_500, customer_id=customer, payment_method_id=method, case_title="A case"
    )
    with pytest.raises(payments.StripeRefused):
        payments.charge(config.current(), asked, a_key())
    assert sdk(sandbox).v1.charges.list({"customer": customer}).data == []


def test_a_removal_whose_answers_were_lost_is_made_again_in_silence(sandbox: SandboxProcess) -> None:
    _, method = saved_card(sandbox)
    plan(sandbox, operation="payment_methods.detach", fault="lose_answer", times=3)
    with pytest.raises(payments.StripeAway):
        payments.remove_card(method)
    payments.remove_card(method)


@pytest.mark.parametrize("fault", [{"fault": "error", "status": 400}, {"fault": "rate_limit"}])
def test_a_card_that_is_still_there_is_not_said_to_be_removed(sandbox: SandboxProcess, fault: dict[str, Any]) -> None:
    customer, method = saved_card(sandbox)
    plan(sandbox, operation="payment_methods.detach", **fault)
    with pytest.raises(payments.StripeTrouble):
        payments.remove_card(method)
    assert sdk(sandbox).v1.payment_methods.retrieve(method).customer == customer


def test_a_card_that_stripe_does_not_know_is_refused(sandbox: SandboxProcess) -> None:
    with pytest.raises(payments.StripeRefused, match="resource_missing"):
        payments.remove_card("pm_none")
