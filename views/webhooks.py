"""Stripe's door: verify, store, commit, ring, answer. Nothing is done about an event here."""

import datetime as dt

import structlog
from flask import Blueprint, abort, request

import payments
from jobs import ring
from models import StripeEvent, db
from views import doors

log = structlog.get_logger()
webhooks = Blueprint("webhooks", __name__)
doors.admit(webhooks, "Stripe, by its signature")


@webhooks.post("/webhooks/stripe")
def stripe() -> tuple[str, int]:
    """Answers 200 only after the event is committed, also for types that nobody here waits for."""
    raw = request.get_data(cache=True)
    try:
        news = payments.read_news(raw, request.headers.get("Stripe-Signature"))
    except payments.NotFromStripe as forged:
        log.warning("a webhook was refused", why=str(forged))
        abort(400)
    StripeEvent.store(
        event_id=news.event_id, kind=news.type, object_id=news.object_id, created_at=news.created_at,
        payload=news.payload, as_of=dt.datetime.now(dt.UTC),
    )  # fmt: skip
    db.session.commit()
    ring("drain_stripe_events")
    return "", 200
