"""What payments.py says when Stripe does not answer as hoped, what it refuses to do, and what it does not believe."""

import datetime as dt
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

import config
import payments
from models import db
from sandbox.deliveries import signature
from tests.at_stripe import a_key, charge_params, faults, page_params, plan
from tests.sandbox_process import SandboxProcess

SECRET = "whsec_for_the_tests_only"
SINCE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

# Every function that talks to Stripe, asking about what need not exist: the trouble comes first.
ASKS: dict[str, Callable[[], Any]] = {
    "card_page": lambda: payments.card_page(page_params(), a_key()),
    "look_at_card_page": lambda: payments.look_at_card_page("cs_test_1"),
    "expire_card_page": lambda: payments.expire_card_page("cs_test_1"),
    "card_saved_at": lambda: payments.card_saved_at("seti_1", SINCE),
    "remove_card": lambda: payments.remove_card("pm_1"),
    "charge": lambda: payments.charge(config.current(), charge_params("cus_1", "pm_1"), a_key()),
    "look_at_charge": lambda: payments.look_at_charge("pi_1"),
    "find_charge": lambda: payments.find_charge(config.current(), "cus_1", 17),
    "give_up_charge": lambda: payments.give_up_charge("pi_1"),
}


@pytest.fixture(autouse=True)
def at_the_sandbox(asks_the_sandbox: Flask) -> None:
    """Every test of this file asks the sandbox."""


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        ({"fault": "rate_limit"}, payments.StripeBusy),
        ({"fault": "lock_timeout"}, payments.StripeBusy),
        ({"fault": "lock_timeout", "status": 409}, payments.StripeAway),
        ({"fault": "error", "status": 500}, payments.StripeAway),
        ({"fault": "error", "status": 503}, payments.StripeAway),
        ({"fault": "refuse"}, payments.StripeAway),
        ({"fault": "error", "status": 401}, payments.StripeForbidden),
        ({"fault": "error", "status": 403}, payments.StripeForbidden),
    ],
)
def test_every_trouble_is_said_in_our_words_by_every_function(
    sandbox: SandboxProcess, ask: str, fault: dict[str, Any], raised: type[payments.StripeTrouble]
) -> None:
    plan(sandbox, operation="*", times="always", **fault)
    if ask == "charge" and raised is payments.StripeAway:
        # No answer about money is a result of its own: it has to be written down, not only reported.
        assert ASKS[ask]().outcome == "unknown"
    else:
        with pytest.raises(raised) as trouble:
            ASKS[ask]()
        assert type(trouble.value) is raised
    # A limit is not asked again at once, a broken connection is: three tries in all.
    tries = 3 if raised is payments.StripeAway else 1
    assert faults(sandbox)[0]["acted"] == tries


@pytest.mark.parametrize(
    "where",
    ["http://127.0.0.1:9", "http://nobody.has.this.name.invalid", "{sandbox}"],
    ids=["nobody listens", "the name is not found", "no TLS is spoken there"],
)
def test_a_stripe_that_cannot_be_reached_is_away(app: Flask, sandbox: SandboxProcess, where: str) -> None:
    address = where.format(sandbox=sandbox.url.replace("http:", "https:"))
    app.config["STANDING"] = config.current().model_copy(update={"stripe_api_base": address})
    with pytest.raises(payments.StripeAway):
        payments.look_at_charge("pi_1")
    assert ASKS["charge"]().outcome == "unknown"


def test_a_stripe_that_never_answers_is_not_waited_for_in_vain(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = payments._client()._requestor._client
    # Seconds to connect, and seconds without a word; the SDK asks three times in all.
    assert client._timeout == (5, 20)
    monkeypatch.setattr(client, "_timeout", (0.2, 0.2))
    plan(sandbox, operation="*", fault="hang", when="before", seconds=0.6, times="always")
    assert ASKS["charge"]().outcome == "unknown"


def test_a_key_that_stripe_does_not_take_is_forbidden(app: Flask) -> None:
    app.config["STANDING"] = config.current().model_copy(update={"stripe_secret_key": "sk_live_of_somebody"})
    for ask in ASKS.values():
        with pytest.raises(payments.StripeForbidden):
            ask()


@pytest.mark.parametrize(
    "changes", [{"amount": 29}, {"payment_method_types": ["card"]}, {"amuont": 2_500}, {"customer": "cus_none"}]
)
def test_a_request_that_is_wrong_is_refused_as_our_mistake(sandbox: SandboxProcess, changes: dict[str, Any]) -> None:
    with pytest.raises(payments.StripeRefused) as refused:
        payments.charge(config.current(), charge_params("cus_1", "pm_1") | changes, a_key())
    assert type(refused.value) in (payments.StripeRefused, payments.StripeMissing)


@pytest.mark.parametrize("ask", ASKS)
def test_nothing_is_asked_inside_a_transaction(sandbox: SandboxProcess, ask: str) -> None:
    plan(sandbox, operation="*", fault="rate_limit", times="always")
    db.session.execute(sa.text("SELECT 1"))
    with pytest.raises(RuntimeError, match="inside a database transaction"):
        ASKS[ask]()
    assert faults(sandbox)[0]["seen"] == 0
    db.session.rollback()
    with pytest.raises(payments.StripeBusy):
        ASKS[ask]()


# --- The webhook door --------------------------------------------------------------------------------------


@pytest.fixture
def event() -> dict[str, Any]:
    return {
        "id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "created": 1_790_000_000,
        "livemode": False, "data": {"object": {"id": "pi_1", "object": "payment_intent"}},
    }  # fmt: skip


def signed(event: Any, secret: str = SECRET, age: int = 0) -> tuple[bytes, str]:
    """An event as the sandbox sends it; `age` is how many seconds ago it was signed."""
    raw = event if isinstance(event, bytes) else json.dumps(event).encode()
    return raw, signature(raw, secret, int(time.time()) - age)


@pytest.mark.parametrize("age", [0, 290, -290])
def test_a_signed_event_is_read(event: dict[str, Any], age: int) -> None:
    raw, header = signed(event, age=age)
    assert payments.read_news(raw, header) == payments.News(
        "evt_1", "payment_intent.succeeded", "pi_1", dt.datetime.fromtimestamp(1_790_000_000, dt.UTC), raw.decode()
    )


@pytest.mark.parametrize("age", [310, -310])
def test_an_event_signed_more_than_five_minutes_from_now_is_not_believed(event: dict[str, Any], age: int) -> None:
    with pytest.raises(payments.NotFromStripe):
        payments.read_news(*signed(event, age=age))


def test_an_event_is_read_by_either_secret_while_one_is_being_rolled(event: dict[str, Any]) -> None:
    raw, header = signed(event)
    other = signed(event, secret="whsec_the_other")[1].split(",")[1]
    assert payments.read_news(raw, f"{header.split(',')[0]},{other},{header.split(',')[1]}").event_id == "evt_1"


def test_what_stripe_did_not_sign_for_us_is_not_believed(event: dict[str, Any]) -> None:
    raw, header = signed(event)
    for body, said in (
        (raw + b" ", header),
        (raw.replace(b"pi_1", b"pi_2"), header),
        (raw, None),
        (raw, ""),
        (raw, "t=,v1="),
        (raw, header.replace("v1=", "v0=")),
        (raw, header.replace("t=", "t=1")),
        signed(event, secret="whsec_of_somebody_else"),
        signed(event | {"livemode": True}),
        signed(b"not json"),
        signed(b"\xff\xfe{}"),
        signed(b"[]"),
        signed(b'"evt_1"'),
        signed({name: value for name, value in event.items() if name != "id"}),
        signed(event | {"data": {"object": ["pi_1"]}}),
        signed(event | {"created": "yesterday"}),
        signed(event | {"created": 10**20}),
    ):
        with pytest.raises(payments.NotFromStripe):
            payments.read_news(body, said)
