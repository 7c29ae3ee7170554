"""Stripe's door: verify, store, commit, ring, answer. Nothing is done about an event here."""

import datetime as dt
import functools
import io
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import structlog
from flask import Blueprint, Flask, abort, request

import payments
from jobs import ring
from models import StripeEvent, begin_reading
from views import doors

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

log = structlog.get_logger()
webhooks = Blueprint("webhooks", __name__)
doors.admit(webhooks, "Stripe, by its signature")
PATH = "/webhooks/stripe"


@webhooks.post(PATH)
def stripe() -> tuple[str, int]:
    """Answers 200 only after the event is committed, also for types that nobody here waits for."""
    raw = request.get_data(cache=True)
    # The lock is taken once the event is known to be genuine.
    begin_reading()
    try:
        _keep(raw, request.headers.get("Stripe-Signature"))
    except payments.NotFromStripe as forged:
        log.warning("a webhook was refused", why=str(forged))
        abort(400)
    ring("drain_stripe_events")
    return "", 200


def _keep(raw: bytes, signature: str | None) -> None:
    """Verify, store and commit. Raises NotFromStripe for what is not genuine."""
    news = payments.read_news(raw, signature)
    StripeEvent.store(
        event_id=news.event_id, kind=news.type, object_id=news.object_id, created_at=news.created_at,
        payload=news.payload, as_of=dt.datetime.now(dt.UTC), at_once=True,
    )  # fmt: skip


def put_before(app: Flask, largest: int) -> None:
    """Let Stripe in before the application is asked; what has more bytes than the largest is not even read."""
    app.wsgi_app = QuickDoor(app, largest)  # type: ignore[assignment, method-assign]


class QuickDoor:
    """The same in front of Flask, for what is genuine and can be kept: a deadline brings thousands at once.

    Whatever is odd, and whatever goes wrong, is for the application, which says so with its own words and pages.
    """

    def __init__(self, app: Flask, largest: int) -> None:
        self.flask, self.app, self.largest = app, app.wsgi_app, largest
        self.bell = Bell(app)

    @functools.cached_property
    def headers(self) -> list[tuple[str, str]]:
        """Those that the application gives such an answer."""
        with self.flask.test_request_context(PATH, method="POST", base_url=self.flask.config["STANDING"].site_url):
            return self.flask.process_response(self.flask.make_response(("", 200))).headers.to_wsgi_list()

    def __call__(self, asked: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        if asked["PATH_INFO"] != PATH or asked["REQUEST_METHOD"] != "POST" or asked.get("SCRIPT_NAME"):
            return self.app(asked, start_response)
        length = asked.get("CONTENT_LENGTH") or ""
        if not (length.isdecimal() and len(length) < 10 and int(length) <= self.largest):
            return self.app(asked, start_response)
        raw = asked["wsgi.input"].read(int(length))
        asked["wsgi.input"] = io.BytesIO(raw)
        try:
            with self.flask.app_context():
                _keep(raw, asked.get("HTTP_STRIPE_SIGNATURE"))
        except (payments.NotFromStripe, sa.exc.SQLAlchemyError):
            return self.app(asked, start_response)
        self.bell.ring()
        start_response("200 OK", self.headers)
        return []


class Bell:
    """Rings for the inbox from a thread of its own: so Stripe does not wait for Redis, and many events that come
    together ring once. A ring that is lost with its process is found by the sweep, as any other."""

    # The thread goes home when nobody has rung for so many seconds, and rings at most once in so many.
    PATIENCE, PAUSE = 10.0, 0.05

    def __init__(self, app: Flask) -> None:
        self._app, self._wanted, self._is_there = app, threading.Event(), threading.Lock()

    def ring(self) -> None:
        self._wanted.set()
        if self._is_there.acquire(blocking=False):
            threading.Thread(target=self._listen, name="bell", daemon=True).start()

    def _listen(self) -> None:
        try:
            while self._wanted.wait(self.PATIENCE):
                self._wanted.clear()
                with self._app.app_context():
                    ring("drain_stripe_events")
                time.sleep(self.PAUSE)
        finally:
            self._is_there.release()
        # Somebody may have rung just when we went.
        if self._wanted.is_set():
            self.ring()
