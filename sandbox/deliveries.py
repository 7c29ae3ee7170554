"""Webhooks: signed events, sent by one thread, tried again with growing pauses until a 2xx answers.

What is to be sent is in the state file, so nothing is lost when the sandbox stops. Pauses and signatures
go by the real clock and not by the sandbox's movable one: the receiver's check of the signature does too.
"""

import hashlib
import hmac
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from typing import Any

from sandbox.aftermath import fail_due_refunds
from sandbox.checkout import expire_due_sessions
from sandbox.core import Sandbox
from sandbox.idempotency import Keys
from sandbox.operations import register_endpoint
from sandbox.store import Document, new_id

PAUSES = (1, 2, 5, 10, 30, 60)  # seconds; the last one repeats
MOST_TRIES = 100
TIMEOUT = 10  # seconds for the receiver to answer
TICK = 0.5  # seconds between looks at what the passing of time has brought


class Deliveries:
    """The sender of one sandbox. `start` runs it in a thread; `deliver_due` does what is due, once."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._rung = threading.Event()
        self._stopping = False
        sandbox.ring = self._rung.set

    def start(self, keys: Keys) -> None:
        threading.Thread(target=self._run, args=(keys,), name="deliveries", daemon=True).start()

    def stop(self) -> None:
        self._stopping = True
        self._rung.set()

    def _run(self, keys: Keys) -> None:
        next_tick = 0.0
        while not self._stopping:
            if time.monotonic() >= next_tick:
                expire_due_sessions(self._sandbox)
                fail_due_refunds(self._sandbox)
                keys.prune()
                next_tick = time.monotonic() + TICK
            if self.deliver_due(most=50) == 0:
                self._rung.wait(TICK)
            self._rung.clear()

    def deliver_due(self, most: int) -> int:
        """Try what is due, oldest first; returns how many were tried."""
        due = self._sandbox.store.rows(
            "SELECT id, event_id, endpoint_id FROM deliveries WHERE state = 'waiting' AND next_at <= ? "
            "ORDER BY next_at, id LIMIT ?",
            time.time(), most,
        )  # fmt: skip
        for row in due:
            if self._stopping:
                break
            self._try(row["id"], row["event_id"], row["endpoint_id"])
        return len(due)

    def deliver_again(self, event_id: str) -> list[Document]:
        """Send an event once more to every endpoint at once, whatever became of it; returns the tries."""
        self._sandbox.find("event", event_id)
        tries = []
        for endpoint in self._sandbox.store.documents("webhook_endpoint"):
            with self._sandbox.store.change():
                delivery = self._sandbox.store.write(
                    "INSERT INTO deliveries (event_id, endpoint_id, state, next_at) VALUES (?, ?, 'by hand', 0)",
                    event_id, endpoint["id"],
                )  # fmt: skip
            tries.append(self._try(delivery, event_id, endpoint["id"], again=False))
        return tries

    def release(self, reverse: bool = False) -> int:
        """Let go the events that were held, in their order or the other way round; returns how many."""
        store = self._sandbox.store
        with store.change():
            held = store.rows("SELECT id FROM deliveries WHERE state = 'held' ORDER BY id")
            now = time.time()
            for place, row in enumerate(reversed(held) if reverse else held):
                # A microsecond apart, so that the sender keeps the order that was asked for.
                store.write(
                    "UPDATE deliveries SET state = 'waiting', next_at = ? WHERE id = ?",
                    now - (len(held) - place) * 1e-6, row["id"],
                )  # fmt: skip
        self._rung.set()
        return len(held)

    def _try(self, delivery: int, event_id: str, endpoint_id: str, again: bool = True) -> Document:
        store = self._sandbox.store
        event, endpoint = store.get("event", event_id), store.get("webhook_endpoint", endpoint_id)
        if event is None or endpoint is None:
            with store.change():
                store.write("UPDATE deliveries SET state = 'given up' WHERE id = ?", delivery)
            return {"at": time.time(), "status": None, "error": "The event or its endpoint is gone."}
        tried: Document = {"at": time.time()} | _send(endpoint, event)
        with store.change():
            row = store.row("SELECT tries FROM deliveries WHERE id = ?", delivery)
            tries = [*json.loads(row["tries"] if row else "[]"), tried]
            if tried["error"] is None:
                state = "delivered"
            else:
                state = "waiting" if again and len(tries) < MOST_TRIES else "given up"
            pause = PAUSES[min(len(tries), len(PAUSES)) - 1]
            store.write(
                "UPDATE deliveries SET state = ?, next_at = ?, tries = ? WHERE id = ?",
                state, time.time() + pause, json.dumps(tries), delivery,
            )  # fmt: skip
        return tried


def replace_endpoints(sandbox: Sandbox, url: str, secret: str) -> None:
    """Make this the only endpoint; what still waits to be delivered goes to it."""
    with sandbox.store.change():
        for old in sandbox.store.documents("webhook_endpoint"):
            sandbox.store.delete(old["id"])
        endpoint = register_endpoint(sandbox, url, secret or new_id("whsec"), ["*"])
        sandbox.store.write("UPDATE deliveries SET endpoint_id = ? WHERE state IN ('waiting', 'held')", endpoint["id"])


def signature(payload: bytes, secret: str, at: int) -> str:
    """The Stripe-Signature header: HMAC-SHA256 over "time.payload", as docs.stripe.com/webhooks describes."""
    digest = hmac.new(secret.encode(), b"%d." % at + payload, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A webhook that is redirected has failed, as at Stripe."""

    def redirect_request(self, *args: Any) -> None:
        return None


# No proxy from the environment either: the receiver is on this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


def _send(endpoint: Document, event: Document) -> Document:
    payload = json.dumps(event, indent=2).encode()
    request = urllib.request.Request(
        endpoint["url"],
        data=payload,
        headers={
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(payload, endpoint["_secret"], int(time.time())),
            "User-Agent": "Standing sandbox webhooks",
        },
    )
    try:
        with _OPENER.open(request, timeout=TIMEOUT) as answer:
            return {"status": answer.status, "error": None}
    except urllib.error.HTTPError as error:
        with error:
            return {"status": error.code, "error": f"answered {error.code}"}
    except (OSError, ValueError, http.client.HTTPException) as error:
        return {"status": None, "error": str(getattr(error, "reason", error)) or type(error).__name__}
