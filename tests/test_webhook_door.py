"""Stripe's door: what is let in, what is not, and that nothing is acknowledged before it is kept."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import sqlalchemy as sa
import stripe
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import Client, TestResponse

from models import Letter, StripeEvent, db
from tests.doorway import everything, set_otherwise, signature
from tests.house import WEBHOOK_SECRET, House, eventually
from tests.journey import history, on_card_page, round_of, save_card_and_close_the_tab, time_passes, told
from tests.made import a_case, look_anew


def an_event(**changed: Any) -> dict[str, Any]:
    """News of a card page, as Stripe writes it. A change to None leaves the field out."""
    event = {
        "id": "evt_1", "object": "event", "type": "checkout.session.completed", "created": 1_790_000_000,
        "livemode": False, "api_version": "2026-10-28.endive",
        "data": {"object": {"id": "cs_test_1", "object": "checkout.session"}},
    }  # fmt: skip
    return {name: value for name, value in {**event, **changed}.items() if value is not None}


def knock(client: FlaskClient, body: bytes | dict[str, Any], header: str | None = "", **more: Any) -> TestResponse:
    """Send it to the door, signed just now unless another header, or None, is given."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Stripe-Signature": signature(raw) if header == "" else header} if header is not None else {}
    return client.post("/webhooks/stripe", data=raw, headers=headers, content_type="application/json", **more)


def kept() -> list[tuple[str, str, str]]:
    look_anew()
    events = db.session.scalars(sa.select(StripeEvent).order_by(StripeEvent.id))
    return [(event.event_id, event.type, event.object_id) for event in events]


def test_genuine_news_is_kept_word_for_word_and_answered_with_nothing(client: FlaskClient) -> None:
    raw = json.dumps(an_event(), indent=1).encode()
    answer = knock(client, raw)
    assert (answer.status_code, answer.data) == (200, b"")
    assert kept() == [("evt_1", "checkout.session.completed", "cs_test_1")]
    event = db.session.scalars(sa.select(StripeEvent)).one()
    assert event.payload == raw.decode()
    assert event.created_at.timestamp() == 1_790_000_000 and event.processed_at is None


def test_the_sdks_own_signature_is_taken(client: FlaskClient) -> None:
    raw = json.dumps(an_event())
    header = stripe.WebhookSignature.generate_signature_header(raw, WEBHOOK_SECRET)
    assert knock(client, raw.encode(), header).status_code == 200


BODY = json.dumps(an_event()).encode()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "-",
        "t=,v1=",
        "v1={genuine}",
        "t={now}",
        "t=now,v1={genuine}",
        "t={now},v1=" + "0" * 64,
        "t={now},v1={cut_short}",
        "t={now},v0={genuine}",
        "t={now},v1=\xff",
        "t=" + "9" * 5_000 + ",v1=x",
        "{of_somebody_else}",
        "{of_nobody}",
        "{of_another_body}",
    ],
)
def test_what_stripe_did_not_sign_is_refused_and_not_kept(client: FlaskClient, header: str | None) -> None:
    # Signed in this very second: what is refused here is not refused for its age.
    genuine = signature(BODY).partition("v1=")[2]
    header = header and header.format(
        now=int(time.time()), genuine=genuine, cut_short=genuine[:-1], of_another_body=signature(BODY + b" "),
        of_somebody_else=signature(BODY, secret="whsec_of_somebody_else"), of_nobody=signature(BODY, secret=""),
    )  # fmt: skip
    before = everything()
    answer = knock(client, BODY, header)
    assert answer.status_code == 400 and "makes no sense" in answer.text
    assert everything() == before


def test_the_signature_covers_every_byte_of_the_body(client: FlaskClient) -> None:
    header = signature(BODY)
    assert knock(client, BODY.replace(b"cs_test_1", b"cs_test_2"), header).status_code == 400
    assert knock(client, BODY + b"\n", header).status_code == 400
    assert kept() == []


@pytest.mark.parametrize(
    ("signed_ago", "status"), [(0, 200), (290, 200), (310, 400), (86_400, 400), (-290, 200), (-310, 400), (-3_600, 400)]
)
def test_news_signed_more_than_five_minutes_ago_or_ahead_is_refused(
    client: FlaskClient, signed_ago: int, status: int
) -> None:
    raw = json.dumps(an_event()).encode()
    assert knock(client, raw, signature(raw, at=time.time() - signed_ago)).status_code == status
    assert len(kept()) == (1 if status == 200 else 0)


def test_a_secret_that_is_being_replaced_signs_twice_and_either_is_enough(client: FlaskClient) -> None:
    old, new = signature(BODY, secret="whsec_old"), signature(BODY)
    assert knock(client, BODY, f"{old},{new.partition(',')[2]}").status_code == 200


def test_a_secret_is_replaced_without_refusing_anything(app: Flask) -> None:
    """What the old one has signed is let in as long as it is a fallback, and no longer. Its age counts too."""
    old, new = "whsec_old_for_the_tests", "whsec_new_for_the_tests"
    during: dict[str, object] = {"stripe_webhook_secret": new, "stripe_webhook_secret_fallbacks": ("whsec_older", old)}
    with set_otherwise(app, **during) as site:
        answers = [
            knock(site.test_client(), BODY, signature(BODY, secret=one)) for one in (old, new, "whsec_older", "")
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 400]
        late = signature(BODY, at=time.time() - 310, secret=old)
        assert knock(site.test_client(), BODY, late).status_code == 400
    with set_otherwise(app, stripe_webhook_secret=new) as site:
        answers = [knock(site.test_client(), BODY, signature(BODY, secret=one)) for one in (old, new)]
    assert [answer.status_code for answer in answers] == [400, 200]


def test_the_same_news_again_is_acknowledged_and_kept_once(client: FlaskClient) -> None:
    header = signature(BODY)
    assert [knock(client, BODY, header).status_code for _ in range(3)] == [200, 200, 200]
    # Stripe signs each delivery anew, and a repeat may differ in what it says beside the id.
    assert knock(client, an_event(pending_webhooks=2)).status_code == 200
    assert kept() == [("evt_1", "checkout.session.completed", "cs_test_1")]
    assert db.session.scalars(sa.select(StripeEvent.payload)).one() == BODY.decode()


@pytest.mark.parametrize(
    ("key", "livemode", "status"),
    [
        ("sk_test_1", False, 200), ("sk_test_1", True, 400), ("sk_live_1", True, 200), ("sk_live_1", False, 400),
        ("rk_live_1", True, 200), ("sk_live_1", None, 400),
    ],
)  # fmt: skip
def test_news_of_the_other_mode_is_refused(app: Flask, key: str, livemode: bool | None, status: int) -> None:
    with set_otherwise(app, stripe_secret_key=key, stripe_api_base="") as site:
        assert knock(site.test_client(), an_event(livemode=livemode)).status_code == status
        # Nobody takes a site for a real one on which no real money moves.
        assert ("No real money." in site.test_client().get("/").text) is ("_test_" in key)
    assert len(kept()) == (1 if status == 200 else 0)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"type": "a.type.of.the.future"}, ("evt_1", "a.type.of.the.future", "cs_test_1")),
        ({"type": "balance.available", "data": {"object": {"object": "balance"}}}, ("evt_1", "balance.available", "-")),
        ({"type": "x" * 80}, ("evt_1", "x" * 80, "cs_test_1")),
    ],
)
def test_news_that_nobody_waits_for_is_kept_all_the_same(
    client: FlaskClient, changed: dict[str, Any], found: tuple[str, str, str]
) -> None:
    assert knock(client, an_event(**changed)).status_code == 200
    assert kept() == [found]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b'"evt_1"', b"not json", BODY[:-1], b"\xff\xfe",
        BODY.replace(b"evt_1", b"evt_\xff"),
        b"[" * 100_000, b'{"a":' * 20_000, BODY.replace(b"1790000000", b"1e999"), BODY.replace(b"1790000000", b"NaN"),
        BODY.replace(b"1790000000", b"9" * 5_000),
    ],
)  # fmt: skip
def test_signed_bytes_that_are_no_event_are_refused_and_not_kept(client: FlaskClient, body: bytes) -> None:
    assert knock(client, body).status_code == 400
    assert kept() == []


@pytest.mark.parametrize(
    "changed",
    [
        {"id": None}, {"type": None}, {"data": None}, {"created": None}, {"id": ""}, {"id": 1},
        {"id": ["evt_1"]}, {"id": "evt_\ud800"}, {"id": "evt_\0"}, {"id": "e" * 121}, {"type": "x" * 81}, {"type": {}},
        {"data": {}}, {"data": []}, {"data": {"object": "cs_test_1"}}, {"data": {"object": []}},
        {"data": {"object": {"id": {"a": 1}}}}, {"data": {"object": {"id": "\ud800"}}}, {"created": "soon"},
        {"created": 2**60}, {"created": -(2**60)}, {"created": 10**30}, {"created": [1]},
    ],
)  # fmt: skip
def test_a_signed_event_that_lacks_or_garbles_a_field_is_refused_and_not_kept(
    client: FlaskClient, changed: dict[str, Any]
) -> None:
    assert knock(client, an_event(**changed)).status_code == 400
    assert kept() == []


def test_a_body_beyond_all_measure_is_refused_before_it_is_read(client: FlaskClient) -> None:
    huge = json.dumps(an_event(padding="x" * 300_000)).encode()
    assert knock(client, huge).status_code == 413
    assert kept() == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_the_door_takes_posts_alone(client: FlaskClient, method: str) -> None:
    answer = client.open("/webhooks/stripe", method=method)
    assert answer.status_code == 405 and set(answer.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


def test_no_log_in_and_no_content_type_is_looked_at(client: FlaskClient) -> None:
    headers = {"Stripe-Signature": signature(BODY), "Cookie": "session=rubbish", "Origin": "https://stripe.example"}
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain"):
        assert client.post("/webhooks/stripe", data=BODY, headers=headers, content_type=kind).status_code == 200
    assert len(kept()) == 1


# --- Kept before it is acknowledged ------------------------------------------------------------------------


def test_news_that_cannot_be_kept_is_not_acknowledged(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripe sends it again for three days, so that a full disk loses nothing."""

    def full(*_: Any, **__: Any) -> None:
        raise sa.exc.OperationalError("COMMIT", {}, Exception("database or disk is full"))

    with monkeypatch.context() as broken:
        broken.setattr(StripeEvent, "store", full)
        assert knock(client, BODY).status_code == 503
    assert kept() == []
    assert knock(client, BODY).status_code == 200
    assert len(kept()) == 1


def test_the_bell_rings_after_the_commit(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is quicker than our commit would find nothing and go to sleep again."""
    heard: list[tuple[str, int]] = []

    def listen(job: str) -> None:
        with db.engine.connect() as another:
            heard.append((job, another.scalar(sa.text("SELECT count(*) FROM stripe_events")) or 0))

    monkeypatch.setattr("views.webhooks.ring", listen)
    knock(client, BODY)
    assert eventually(lambda: bool(heard)) and heard == [("drain_stripe_events", 1)]


def test_genuine_news_is_kept_before_the_application_is_asked_and_what_is_odd_is_for_the_application(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    def count(*_: Any) -> Any:
        asked.append("application")
        return app.make_response(("", 400))

    alone = Client(lambda environ, start: Flask.wsgi_app(app, environ, start))
    genuine = {"Stripe-Signature": signature(BODY)}
    expected = alone.post("/webhooks/stripe", base_url="http://127.0.0.1:8000", data=BODY, headers=genuine)
    assert expected.status_code == 200
    monkeypatch.setattr(app, "full_dispatch_request", count)
    quick = knock(client, an_event(id="evt_2"))
    assert (quick.status_code, asked) == (200, [])
    assert sorted(quick.headers) == sorted(expected.headers)
    assert [one[0] for one in kept()] == ["evt_1", "evt_2"]
    assert knock(client, BODY, "t=1,v1=x").status_code == 400
    assert knock(client, an_event(padding="x" * 300_000)).status_code == 400
    assert asked == ["application"] * 2


@pytest.mark.parametrize("doorbell", [True, False], ids=["with Redis", "without Redis"])
def test_ten_deliveries_at_once_are_acknowledged_and_confirm_one_pledge_once(house: House, doorbell: bool) -> None:
    slug, email = a_case(target=600_000).slug, f"ten-at-once-{'with' if doorbell else 'without'}-redis@example.org"
    # Stripe tells nothing by itself; what it would tell is delivered below.
    house.fault(event="*", fault="drop", times="always")
    at_stripe, pledge = on_card_page(house, slug, 25, email=email)
    save_card_and_close_the_tab(at_stripe)
    news = house.stripe_list("events", type="checkout.session.completed")
    (event,) = [one for one in news if one["data"]["object"]["id"] == pledge.session_id]
    raw = json.dumps(event).encode()
    if not doorbell:
        house.kill("valkey")

    def deliver(_: int) -> int:
        headers = {"Stripe-Signature": signature(raw), "Content-Type": "application/json"}
        return requests.post(f"{house.url}/webhooks/stripe", data=raw, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(10) as crowd:
        answers = list(crowd.map(deliver, range(10)))
    assert answers == [200] * 10
    assert [one for one in kept() if one[0] == event["id"]] == [(event["id"], event["type"], str(pledge.session_id))]
    if not doorbell:
        # The sweep finds what could not be rung for, when it has waited for a while.
        time_passes(slug)
    assert eventually(lambda: processed(event["id"]))
    assert history(pledge) == ["started", "confirmed"]
    assert (round_of(slug).pledged_pence, round_of(slug).pledge_count) == (2_500, 1)
    assert [letter for letter in owed() if letter[1] == f"pledge:{pledge.id}"] == [("confirmed", f"pledge:{pledge.id}")]
    if not doorbell:
        time_passes(slug)
    told(house, email, "Your £25 pledge counts")


def processed(event_id: str) -> bool:
    look_anew()
    event = db.session.scalars(sa.select(StripeEvent).where(StripeEvent.event_id == event_id)).one()
    return event.processed_at is not None


def owed() -> list[tuple[str, str]]:
    """(kind, subject) of every letter, sent or not."""
    look_anew()
    return [(letter.kind, letter.subject) for letter in db.session.scalars(sa.select(Letter).order_by(Letter.id))]
