"""The fault plan: what it does to a call, to which calls, how often, and that it refuses what can never act."""

from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from tests.at_stripe import a_key, calls, charge_params, faults, page_params, plan, refusal, saved_card, sdk
from tests.house import eventually
from tests.sandbox_process import SandboxProcess, start_sandbox

CREATE = "payment_intents.create"


@pytest.mark.parametrize(
    ("fault", "raised", "status"),
    [
        ({"fault": "error"}, stripe.APIError, 500),
        ({"fault": "error", "status": 503}, stripe.APIError, 503),
        ({"fault": "error", "status": 403}, stripe.PermissionError, 403),
        ({"fault": "rate_limit"}, stripe.RateLimitError, 429),
        ({"fault": "lock_timeout"}, stripe.RateLimitError, 429),
        ({"fault": "lock_timeout", "status": 409}, stripe.APIError, 409),
        ({"fault": "refuse"}, stripe.APIConnectionError, None),
    ],
)
def test_a_fault_before_the_work_does_nothing_and_the_next_call_succeeds(
    sandbox: SandboxProcess, fault: dict[str, Any], raised: type[stripe.StripeError], status: int | None
) -> None:
    client, key = sdk(sandbox), a_key()
    customer, method = saved_card(sandbox)
    plan(sandbox, operation=CREATE, **fault)
    with pytest.raises(raised) as failed:
        client.v1.payment_intents.create(charge_params(customer, method), {"idempotency_key": key})
    assert failed.value.http_status == status
    assert client.v1.payment_intents.list({"customer": customer}).data == []
    paid = client.v1.payment_intents.create(charge_params(customer, method), {"idempotency_key": key})
    assert paid.status == "succeeded"


def test_the_work_is_done_and_the_answer_lost(sandbox: SandboxProcess) -> None:
    client, key = sdk(sandbox), a_key()
    customer, method = saved_card(sandbox)
    plan(sandbox, operation=CREATE, fault="lose_answer")
    with pytest.raises(stripe.APIConnectionError):
        client.v1.payment_intents.create(charge_params(customer, method), {"idempotency_key": key})
    [paid] = client.v1.payment_intents.list({"customer": customer}).data
    assert paid.status == "succeeded"
    # The same key gives the answer that was lost.
    assert client.v1.payment_intents.create(charge_params(customer, method), {"idempotency_key": key}).id == paid.id


@pytest.mark.parametrize(("when", "done_meanwhile"), [("before", []), ("after", ["succeeded"])])
def test_a_call_that_hangs_runs_into_the_callers_patience(
    sandbox: SandboxProcess, when: str, done_meanwhile: list[str]
) -> None:
    customer, method = saved_card(sandbox)
    plan(sandbox, operation=CREATE, fault="hang", when=when, seconds=30)
    with pytest.raises(stripe.APIConnectionError, match="timed out"):
        sdk(sandbox, timeout=0.5).v1.payment_intents.create(charge_params(customer, method))

    def done() -> list[str]:
        return [intent.status for intent in sdk(sandbox).v1.payment_intents.list({"customer": customer}).data]

    eventually(lambda: done() == done_meanwhile)


def test_a_hanging_call_does_not_stop_the_others(sandbox: SandboxProcess) -> None:
    plan(sandbox, operation="customers.list", fault="hang", seconds=30)
    with pytest.raises(stripe.APIConnectionError):
        sdk(sandbox, timeout=0.3).v1.customers.list()
    assert sdk(sandbox, timeout=30).v1.customers.list().object == "list"


def test_a_good_card_is_declined_for_the_reason_that_was_planned(sandbox: SandboxProcess) -> None:
    customer, method = saved_card(sandbox)
    plan(sandbox, operation=CREATE, fault="decline", decline_code="stolen_card")
    error = refusal(lambda: sdk(sandbox).v1.payment_intents.create(charge_params(customer, method)))
    assert (error.decline_code, error.advice_code) == ("stolen_card", "do_not_try_again")
    again = {"payment_method": method, "off_session": True}
    paid = sdk(sandbox).v1.payment_intents.confirm(error.payment_intent.id, again)
    assert paid.status == "succeeded"


@pytest.mark.parametrize(
    ("counted", "outcomes"),
    [
        ({}, "x...."),
        ({"times": 3}, "xxx.."),
        ({"times": "always"}, "xxxxx"),
        ({"calls": [2, 4]}, ".x.x."),
    ],
)
def test_a_fault_is_limited_in_count_or_meets_the_nth_call(
    sandbox: SandboxProcess, counted: dict[str, Any], outcomes: str
) -> None:
    plan(sandbox, operation="customers.list", fault="error", **counted)
    assert "".join(_outcome(sandbox) for _ in outcomes) == outcomes
    [found] = faults(sandbox)
    assert (found["seen"], found["acted"]) == (5, outcomes.count("x"))


def test_a_fault_meets_only_the_calls_it_was_meant_for(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    plan(sandbox, operation="checkout.sessions.create", fault="error", match={"metadata[pledge_id]": "18"})
    assert client.v1.customers.list().object == "list"
    assert client.v1.checkout.sessions.create(page_params(metadata={"pledge_id": "17"})).status == "open"
    with pytest.raises(stripe.APIError):
        client.v1.checkout.sessions.create(page_params(metadata={"pledge_id": "18"}))
    # A call that names an object is held against what the object says.
    made = client.v1.checkout.sessions.create(page_params(client_reference_id="the-one"))
    plan(sandbox, operation="checkout.sessions.expire", fault="error", match={"client_reference_id": "the-one"})
    other = client.v1.checkout.sessions.create(page_params())
    assert client.v1.checkout.sessions.expire(other.id).status == "expired"
    with pytest.raises(stripe.APIError):
        client.v1.checkout.sessions.expire(made.id)
    assert client.v1.checkout.sessions.retrieve(made.id).status == "open"


def test_a_star_meets_every_call(sandbox: SandboxProcess) -> None:
    plan(sandbox, operation="*", fault="rate_limit", times=2)
    for ask in (sdk(sandbox).v1.events.list, sdk(sandbox).v1.payment_intents.list):
        with pytest.raises(stripe.RateLimitError):
            ask()
    assert _outcome(sandbox) == "."


def test_the_sdk_asks_again_with_the_same_key_and_charges_once(sandbox: SandboxProcess) -> None:
    """What the product's client does by itself: two more tries after a lost answer and a 500."""
    customer, method = saved_card(sandbox)
    plan(sandbox, operation=CREATE, fault="lose_answer", calls=[1])
    plan(sandbox, operation=CREATE, fault="error", calls=[2])
    paid = sdk(sandbox, retries=2).v1.payment_intents.create(charge_params(customer, method))
    asked = calls(sandbox, CREATE)
    assert [(call["status"], call["replayed"]) for call in asked] == [(None, False), (500, False), (200, True)]
    assert len({call["idempotency_key"] for call in asked}) == 1
    assert [intent.id for intent in sdk(sandbox).v1.payment_intents.list({"customer": customer}).data] == [paid.id]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"operation": "payment_intents.creat", "fault": "error"}, "The operation must be"),
        ({"event": "setup_intent.suceeded", "fault": "drop"}, "The event must be"),
        ({"fault": "error"}, "either an operation or an event"),
        ({"operation": CREATE, "event": "*", "fault": "error"}, "either an operation or an event"),
        ({"operation": CREATE, "fault": "drop"}, "The fault must be one of error"),
        ({"event": "*", "fault": "error"}, "The fault must be one of drop"),
        ({"operation": CREATE, "fault": "error", "time": 2}, "Unknown field in the fault: time"),
        ({"operation": CREATE, "fault": "error", "times": 0}, "times must be"),
        ({"operation": CREATE, "fault": "error", "times": "often"}, "cannot be read"),
        ({"operation": CREATE, "fault": "error", "calls": [0]}, "counted from 1"),
        ({"operation": CREATE, "fault": "error", "status": 200}, "cannot answer with the status 200"),
        ({"operation": CREATE, "fault": "rate_limit", "status": 500}, "cannot answer with the status 500"),
        ({"operation": CREATE, "fault": "hang"}, "hang needs seconds"),
        ({"event": "*", "fault": "delay"}, "delay needs seconds"),
        ({"operation": CREATE, "fault": "hang", "seconds": 1, "when": "during"}, "before or after"),
        ({"operation": CREATE, "fault": "error", "work": True}, "add saved"),
        ({"operation": CREATE, "fault": "error", "saved": "false"}, "true or false"),
        ({"operation": CREATE, "fault": "decline", "decline_code": "bad_mood"}, "decline_code must be"),
        ({"operation": CREATE, "fault": "decline", "advice_code": "give_up"}, "advice_code must be"),
    ],
)
def test_a_fault_that_could_never_act_as_meant_is_refused(
    sandbox: SandboxProcess, fault: dict[str, Any], says: str
) -> None:
    answer = requests.post(f"{sandbox.url}/sandbox/faults", json=fault, timeout=30)
    assert answer.status_code == 400 and says in answer.json()["error"]
    assert faults(sandbox) == []


def test_the_plan_is_kept_over_kill_9_and_latency_makes_each_call_slow(tmp_path: Path) -> None:
    sandbox = start_sandbox(tmp_path, None, None, "--latency", "2")
    try:
        with pytest.raises(stripe.APIConnectionError):
            sdk(sandbox, timeout=0.5).v1.customers.list()
        assert _outcome(sandbox) == "."
        plan(sandbox, operation="customers.list", fault="error", times=2)
        sandbox.command[-1] = "0"
        assert _outcome(sandbox) == "x"
        sandbox.kill()
        sandbox.start_again()
        assert [_outcome(sandbox) for _ in range(2)] == ["x", "."]
    finally:
        sandbox.stop()


def _outcome(sandbox: SandboxProcess) -> str:
    """One call: "." when it is answered, "x" when it meets a fault."""
    try:
        sdk(sandbox).v1.customers.list()
    except stripe.APIError:
        return "x"
    return "."
