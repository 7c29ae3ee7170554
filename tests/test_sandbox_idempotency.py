"""Idempotency keys: asking twice does the work once, whatever the answer was."""

import datetime as dt
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import stripe

from tests.at_stripe import (
    DECLINES_LATER,
    a_key,
    calls,
    charge_params,
    faults,
    move_clock,
    page_params,
    plan,
    saved_card,
    sdk,
)
from tests.house import eventually
from tests.sandbox_process import SandboxProcess, start_sandbox


def test_the_same_key_gives_the_same_answer_and_does_the_work_once(sandbox: SandboxProcess) -> None:
    client, key = sdk(sandbox), a_key()
    customer, method = saved_card(sandbox)
    asked = charge_params(customer, method)
    first = client.v1.payment_intents.create(asked, {"idempotency_key": key})
    again = client.v1.payment_intents.create(asked, {"idempotency_key": key})
    assert again.to_dict() == first.to_dict()
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len(client.v1.payment_intents.list({"customer": customer}).data) == 1
    assert len(client.v1.charges.list({"customer": customer}).data) == 1


def test_without_a_key_the_work_is_done_twice(sandbox: SandboxProcess) -> None:
    """The SDK makes up a key for each call of its own: this is the second charge that our keys are there to stop."""
    client = sdk(sandbox)
    customer, method = saved_card(sandbox)
    for _ in range(2):
        client.v1.payment_intents.create(charge_params(customer, method))
    assert len(client.v1.payment_intents.list({"customer": customer}).data) == 2


def test_a_refusal_by_the_bank_is_given_again_and_the_bank_not_asked_again(sandbox: SandboxProcess) -> None:
    client, key = sdk(sandbox), a_key()
    customer, method = saved_card(sandbox, DECLINES_LATER)
    said = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as refused:
            client.v1.payment_intents.create(charge_params(customer, method), {"idempotency_key": key})
        said.append(refused.value.json_body)
    assert said[0] == said[1]
    assert [charge.status for charge in client.v1.charges.list({"customer": customer}).data] == ["failed"]


@pytest.mark.parametrize("works", [False, True])
def test_a_500_is_given_again_under_its_key(sandbox: SandboxProcess, works: bool) -> None:
    """As Stripe does: also when the money was taken, so that only a look-up can tell."""
    client, key = sdk(sandbox), a_key()
    customer, method = saved_card(sandbox)
    plan(
        sandbox, operation="payment_intents.create", fault="error", saved=True, work=works, match={"customer": customer}
    )
    for _ in range(2):  # the plan acts only once: the second answer is the saved one
        with pytest.raises(stripe.APIError) as broken:
            client.v1.payment_intents.create(charge_params(customer, method), {"idempotency_key": key})
        assert broken.value.http_status == 500
    assert [call["replayed"] for call in calls(sandbox, "payment_intents.create")] == [False, True]
    found = client.v1.payment_intents.list({"customer": customer}).data
    assert [intent.status for intent in found] == (["succeeded"] if works else [])


def test_the_same_key_with_other_parameters_is_refused(sandbox: SandboxProcess) -> None:
    client, key = sdk(sandbox), a_key()
    asked = page_params()
    client.v1.checkout.sessions.create(asked, {"idempotency_key": key})
    with pytest.raises(stripe.IdempotencyError, match="same endpoint and parameters") as refused:
        client.v1.checkout.sessions.create(asked | {"client_reference_id": "another"}, {"idempotency_key": key})
    assert refused.value.http_status == 400


def test_the_same_key_at_another_endpoint_is_refused(sandbox: SandboxProcess) -> None:
    client, key = sdk(sandbox), a_key()
    made = client.v1.checkout.sessions.create(page_params(), {"idempotency_key": key})
    with pytest.raises(stripe.IdempotencyError):
        client.v1.checkout.sessions.expire(made.id, {}, {"idempotency_key": key})
    assert client.v1.checkout.sessions.retrieve(made.id).status == "open"


def test_a_key_in_flight_is_a_409_and_the_work_is_done_once(sandbox: SandboxProcess) -> None:
    client, key = sdk(sandbox), a_key()
    customer, method = saved_card(sandbox)
    plan(sandbox, operation="payment_intents.create", fault="hang", seconds=3, match={"customer": customer})

    def ask() -> Any:
        return client.v1.payment_intents.create(charge_params(customer, method), {"idempotency_key": key})

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask)
        eventually(lambda: faults(sandbox)[0]["acted"] == 1)
        with pytest.raises(stripe.APIError) as busy:
            ask()
        said: Any = busy.value.error
        assert (busy.value.http_status, said.code) == (409, "idempotency_key_in_use")
        assert first.result().status == "succeeded"
    assert ask().id == first.result().id
    assert len(client.v1.payment_intents.list({"customer": customer}).data) == 1


def test_twenty_at_once_with_one_key_charge_once(sandbox: SandboxProcess) -> None:
    client, key = sdk(sandbox, retries=2), a_key()
    customer, method = saved_card(sandbox)
    together = threading.Barrier(20)

    def ask() -> str:
        together.wait()
        try:
            made = client.v1.payment_intents.create(charge_params(customer, method), {"idempotency_key": key})
        except stripe.APIError as busy:
            return str(busy.http_status)
        return str(made.id)

    with ThreadPoolExecutor(20) as pool:
        seen = {answer.result() for answer in [pool.submit(ask) for _ in range(20)]}
    [charged] = client.v1.payment_intents.list({"customer": customer}).data
    assert charged.id in seen and seen <= {charged.id, "409"}


@pytest.mark.parametrize(
    ("later", "same"), [(dt.timedelta(hours=23, minutes=59), True), (dt.timedelta(hours=24, minutes=1), False)]
)
def test_a_key_is_kept_for_a_day_of_the_sandboxs_clock(
    sandbox: SandboxProcess, later: dt.timedelta, same: bool
) -> None:
    """After that a repeat is a second charge, which is why the product looks up what is older."""
    client, key = sdk(sandbox), a_key()
    customer, method = saved_card(sandbox)
    asked = charge_params(customer, method)
    first = client.v1.payment_intents.create(asked, {"idempotency_key": key})
    move_clock(sandbox, later)
    again = client.v1.payment_intents.create(asked, {"idempotency_key": key})
    assert (again.id == first.id) is same


def test_what_was_refused_before_any_work_may_be_asked_rightly_with_the_same_key(sandbox: SandboxProcess) -> None:
    client, key = sdk(sandbox), a_key()
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.checkout.sessions.create(page_params(locale="nowhere"), {"idempotency_key": key})
    assert client.v1.checkout.sessions.create(page_params(), {"idempotency_key": key}).status == "open"


@pytest.mark.parametrize(("length", "taken"), [(255, True), (256, False)])
def test_a_key_has_at_most_255_characters(sandbox: SandboxProcess, length: int, taken: bool) -> None:
    client, key = sdk(sandbox), a_key().ljust(length, "x")
    if taken:
        assert client.v1.checkout.sessions.create(page_params(), {"idempotency_key": key}).status == "open"
        return
    with pytest.raises(stripe.InvalidRequestError, match="at most 255"):
        client.v1.checkout.sessions.create(page_params(), {"idempotency_key": key})


def test_the_answer_is_still_given_after_kill_9(tmp_path: Path) -> None:
    sandbox, key = start_sandbox(tmp_path), a_key()
    try:
        customer, method = saved_card(sandbox)
        asked = charge_params(customer, method)
        first = sdk(sandbox).v1.payment_intents.create(asked, {"idempotency_key": key})
        sandbox.kill()
        sandbox.start_again()
        assert sdk(sandbox).v1.payment_intents.create(asked, {"idempotency_key": key}).id == first.id
        assert len(sdk(sandbox).v1.payment_intents.list({"customer": customer}).data) == 1
    finally:
        sandbox.stop()
