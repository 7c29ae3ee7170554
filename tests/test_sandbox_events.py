"""Events: signed, tried again until they are taken, in order, listed, and never lost with the process."""

import datetime as dt
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import stripe

from sandbox.core import Sandbox
from sandbox.deliveries import Deliveries, replace_endpoints
from tests.at_stripe import WORKS, charge_params, move_clock, page_params, plan, saved_card, sdk, type_card
from tests.house import eventually
from tests.sandbox_process import WEBHOOK_SECRET, SandboxProcess, start_sandbox

# What a saved card and a payment bring, in the order in which they happen.
CARD_SAVED = [
    "setup_intent.created", "customer.created", "payment_method.attached", "setup_intent.succeeded",
    "checkout.session.completed",
]  # fmt: skip
PAID = ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]


@dataclass
class Receiver:
    """A webhook door that keeps what comes in, and answers with what `answers` says, then with 200."""

    answers: list[bytes] = field(default_factory=list)
    taken: list[tuple[bytes, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        taken, answers = self.taken, self.answers

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken.append((body, self.headers["Stripe-Signature"]))
                self.wfile.write(answers.pop(0) if answers else b"HTTP/1.0 200 OK\r\n\r\n")

            def log_message(self, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self._server.server_port}/webhooks/stripe"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def types(self) -> list[str]:
        return [json.loads(body)["type"] for body, _ in list(self.taken)]

    @property
    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for body, _ in list(self.taken)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    door = Receiver()
    yield door
    door.stop()


@pytest.fixture
def sender(tmp_path: Path, receiver: Receiver) -> Iterator[SandboxProcess]:
    """A sandbox of this test alone, which sends its events to the receiver."""
    running = start_sandbox(tmp_path, receiver.url)
    yield running
    running.stop()


def test_an_events_signature_is_verified_by_the_sdk_and_one_changed_byte_is_not(
    sender: SandboxProcess, receiver: Receiver
) -> None:
    customer, method = saved_card(sender)
    sdk(sender).v1.payment_intents.create(charge_params(customer, method))
    eventually(lambda: len(receiver.taken) == len(CARD_SAVED + PAID))
    for body, signature in receiver.taken:
        event = sdk(sender).construct_event(body, signature, WEBHOOK_SECRET)
        assert (event.api_version, event.livemode) == ("2026-10-28.endive", False)
    body, signature = receiver.taken[-1]
    assert sdk(sender).construct_event(body, signature, WEBHOOK_SECRET).data.object.metadata["pledge_id"] == "17"
    for forged, secret in ((body.replace(b"2500", b"9500"), WEBHOOK_SECRET), (body, "whsec_of_somebody_else")):
        with pytest.raises(stripe.SignatureVerificationError):
            sdk(sender).construct_event(forged, signature, secret)


def test_events_come_in_the_order_in_which_things_happened_and_are_listed_newest_first(
    sender: SandboxProcess, receiver: Receiver
) -> None:
    customer, method = saved_card(sender)
    sdk(sender).v1.payment_intents.create(charge_params(customer, method))
    eventually(lambda: len(receiver.taken) == 8)
    assert receiver.types == CARD_SAVED + PAID
    listed = sdk(sender).v1.events.list({"limit": 100})
    assert [event.id for event in listed.data] == receiver.ids[::-1]
    assert listed.data[0].to_dict()["data"] == json.loads(receiver.taken[-1][0])["data"]


@pytest.mark.parametrize(
    "refusals",
    [
        [b"HTTP/1.0 500 Broken\r\n\r\n"] * 2,
        [b"HTTP/1.0 400 Bad Request\r\n\r\n"],
        [b"HTTP/1.0 302 Found\r\nLocation: /elsewhere\r\n\r\n"],
        [b""],  # the door closes without a word
        [b"this is no HTTP\r\n"],
    ],
    ids=["500 twice", "400", "a redirect", "no answer", "nonsense"],
)
def test_an_event_is_sent_again_until_a_2xx_takes_it(
    sender: SandboxProcess, receiver: Receiver, refusals: list[bytes]
) -> None:
    receiver.answers += refusals
    sdk(sender).v1.checkout.sessions.create(page_params())
    first = eventually(lambda: receiver.ids)[0]
    eventually(lambda: _deliveries(sender, first)[0]["state"] == "delivered")
    assert receiver.ids == [first] * (len(refusals) + 1)
    tries = _deliveries(sender, first)[0]["tries"]
    assert [one["error"] is None for one in tries] == [False] * len(refusals) + [True]
    # Each time signed anew, as a signature goes stale after five minutes; the body stays the same.
    assert len({body for body, _ in receiver.taken}) == 1
    for body, signature in receiver.taken:
        assert sdk(sender).construct_event(body, signature, WEBHOOK_SECRET).id == first


def test_the_pauses_between_tries_grow_to_a_minute() -> None:
    sandbox = Sandbox(":memory:")
    deliveries = Deliveries(sandbox)
    replace_endpoints(sandbox, "http://127.0.0.1:9/nobody-listens", WEBHOOK_SECRET)
    sandbox.emit("customer.created", {"id": "cus_1", "object": "customer"})
    planned = []
    for _ in range(7):
        assert deliveries.deliver_due(most=10) == 1
        row = sandbox.store.rows("SELECT next_at, tries FROM deliveries")[0]
        planned.append(round(row["next_at"] - json.loads(row["tries"])[-1]["at"]))
        assert deliveries.deliver_due(most=10) == 0  # not before its time
        sandbox.store.write("UPDATE deliveries SET next_at = 0")
    assert planned == [1, 2, 5, 10, 30, 60, 60]
    sandbox.store.close()


def test_what_was_not_taken_is_sent_after_kill_9_and_a_new_start(tmp_path: Path, receiver: Receiver) -> None:
    """The receiver is away, the sandbox dies: nothing that Stripe has promised to tell is lost."""
    sandbox = start_sandbox(tmp_path, "http://127.0.0.1:9/nobody-listens")
    try:
        customer, method = saved_card(sandbox)
        sdk(sandbox).v1.payment_intents.create(charge_params(customer, method))
        sandbox.kill()
        sandbox.command[sandbox.command.index("--webhook-url") + 1] = receiver.url
        sandbox.start_again()
        eventually(lambda: len(set(receiver.ids)) == 8)
        assert sorted(receiver.types) == sorted(CARD_SAVED + PAID)
        assert [intent.status for intent in sdk(sandbox).v1.payment_intents.list().data] == ["succeeded"]
    finally:
        sandbox.stop()


def test_a_new_start_registers_its_webhook_anew_and_the_old_one_hears_no_more(
    tmp_path: Path, receiver: Receiver
) -> None:
    former = Receiver()
    sandbox = start_sandbox(tmp_path, former.url)
    try:
        sdk(sandbox).v1.checkout.sessions.create(page_params())
        eventually(lambda: former.types == ["setup_intent.created"])
        sandbox.stop()
        sandbox.command[sandbox.command.index("--webhook-url") + 1] = receiver.url
        sandbox.start_again()
        assert [one.url for one in sdk(sandbox).v1.webhook_endpoints.list().data] == [receiver.url]
        sdk(sandbox).v1.checkout.sessions.create(page_params())
        eventually(lambda: receiver.types == ["setup_intent.created"])
        assert former.types == ["setup_intent.created"]
    finally:
        sandbox.stop()
        former.stop()


def test_an_endpoint_made_through_the_api_hears_what_it_asked_for_until_it_is_deleted(
    sandbox: SandboxProcess, receiver: Receiver
) -> None:
    client = sdk(sandbox)
    made = client.v1.webhook_endpoints.create(
        {"url": receiver.url, "enabled_events": ["checkout.session.completed"], "api_version": "2026-10-28.endive"}
    )
    saved_card(sandbox)
    eventually(lambda: receiver.types == ["checkout.session.completed"])
    assert client.construct_event(*receiver.taken[0], made.secret).type == "checkout.session.completed"
    client.v1.webhook_endpoints.delete(made.id)
    saved_card(sandbox)
    assert _deliveries(sandbox, client.v1.events.list({"limit": 1}).data[0].id) == []


def test_events_are_found_by_type_and_by_time_page_by_page(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    saved_card(sandbox)
    move_clock(sandbox, dt.timedelta(hours=1))
    since = client.v1.checkout.sessions.create(page_params(expires_at=None)).created
    for _ in range(3):
        type_card(client.v1.checkout.sessions.create(page_params(expires_at=None)).url, WORKS)
    wanted = {"type": "setup_intent.succeeded", "created": {"gte": since}}
    pages = client.v1.events.list({**wanted, "limit": 2})
    assert (len(pages.data), pages.has_more) == (2, True)
    found = list(pages.auto_paging_iter())
    assert len(found) == 3 and {event.type for event in found} == {"setup_intent.succeeded"}
    assert client.v1.events.list({**wanted, "created": {"lt": since}}).data[0].created < since
    kinds = ["setup_intent.succeeded", "checkout.session.completed"]
    both = client.v1.events.list({"types": kinds, "created": {"gte": since}, "limit": 100}).data
    assert sorted(event.type for event in both) == sorted(kinds * 3)
    with pytest.raises(stripe.InvalidRequestError, match="only specify one of these parameters: type, types"):
        client.v1.events.list({"type": kinds[0], "types": kinds})
    with pytest.raises(stripe.InvalidRequestError, match="No such event"):
        client.v1.events.list({"starting_after": "evt_none"})


def test_events_are_listed_for_thirty_days(sandbox: SandboxProcess) -> None:
    client = sdk(sandbox)
    client.v1.checkout.sessions.create(page_params())
    newest = client.v1.events.list({"limit": 1}).data[0]
    move_clock(sandbox, dt.timedelta(days=29, hours=23))
    assert newest.id in {event.id for event in client.v1.events.list({"limit": 100}).auto_paging_iter()}
    move_clock(sandbox, dt.timedelta(days=30, minutes=1))
    assert newest.id not in {event.id for event in client.v1.events.list({"limit": 100}).auto_paging_iter()}


def test_an_event_dropped_by_the_plan_is_listed_but_never_sent(sender: SandboxProcess, receiver: Receiver) -> None:
    plan(sender, event="checkout.session.completed", fault="drop")
    saved_card(sender)
    saved_card(sender)
    eventually(lambda: receiver.types.count("setup_intent.succeeded") == 2)
    eventually(lambda: "checkout.session.completed" in receiver.types)
    assert receiver.types.count("checkout.session.completed") == 1
    listed = sdk(sender).v1.events.list({"type": "checkout.session.completed"}).data
    assert [len(_deliveries(sender, event.id)) for event in listed] == [1, 0]


def test_an_event_is_sent_twice_with_one_id(sender: SandboxProcess, receiver: Receiver) -> None:
    plan(sender, event="checkout.session.completed", fault="duplicate")
    saved_card(sender)
    eventually(lambda: len(receiver.taken) == len(CARD_SAVED) + 1)
    assert len(set(receiver.ids)) == len(CARD_SAVED)
    assert receiver.types == [*CARD_SAVED, "checkout.session.completed"]


def test_a_delayed_event_comes_after_what_happened_later(sender: SandboxProcess, receiver: Receiver) -> None:
    plan(sender, event="setup_intent.succeeded", fault="delay", seconds=1.5)
    saved_card(sender)
    eventually(lambda: len(receiver.taken) == len(CARD_SAVED))
    assert receiver.types[-2:] == ["checkout.session.completed", "setup_intent.succeeded"]


@pytest.mark.parametrize("reverse", [False, True])
def test_events_held_back_are_released_in_order_or_the_other_way_round(
    sender: SandboxProcess, receiver: Receiver, reverse: bool
) -> None:
    plan(sender, event="*", fault="hold", times="always")
    saved_card(sender)
    assert receiver.types == []
    released = requests.post(f"{sender.url}/sandbox/events/release", json={"reverse": reverse}, timeout=30).json()
    assert released == {"released": len(CARD_SAVED)}
    eventually(lambda: len(receiver.taken) == len(CARD_SAVED))
    assert receiver.types == (CARD_SAVED[::-1] if reverse else CARD_SAVED)


def _deliveries(sandbox: SandboxProcess, event: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = requests.get(f"{sandbox.url}/sandbox/deliveries", {"event": event}, timeout=30).json()
    return found
