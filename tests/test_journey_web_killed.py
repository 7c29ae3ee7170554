"""The web server is killed before it has answered: what was sent to it is sent again, and counts once."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import sqlalchemy as sa

from models import Letter, StripeEvent, begin_writing, db
from tests.doorway import signature
from tests.house import House, eventually
from tests.journey import (
    calls,
    every_event_is_looked_at,
    let_events_go,
    on_card_page,
    round_of,
    save_card_and_close_the_tab,
    states,
    told,
)
from tests.made import a_case, look_anew, pledges_of
from tests.reader import Reader

pytestmark = pytest.mark.slow

CREATE = "checkout.sessions.create"
SAVED = "checkout.session.completed"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_pledge_in_whose_middle_the_web_server_is_killed_is_sent_again_and_counts_once(
    house: House, when: str
) -> None:
    """Stripe holds its answer, before it makes the card page or after, and then nobody is there to hear it."""
    slug, email = a_case(target=600_000).slug, f"web-killed-{when}@example.org"
    house.fault(operation=CREATE, fault="hang", when=when, seconds=10)
    reader = Reader(house.url).open(f"/cases/{slug}/pledge")
    filled_in: dict[str, Any] = {
        "amount": "other", "other_amount": "25", "name": "Ada Winter", "email": email, "agreed": True,
    }  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(lambda: reader.press("Continue to Stripe", **filled_in))
        # The row is there before Stripe is asked.
        assert eventually(lambda: [call for one in pledges_of(slug) for call in calls(house, CREATE, one)])
        (pledge,) = pledges_of(slug)
        if when == "after":
            assert eventually(lambda: card_pages(house, pledge.id))
        house.kill("web")
        with pytest.raises(requests.ConnectionError):
            sent.result()
    assert (states(slug), pledges_of(slug)[0].session_id) == (["started"], None)
    # Stripe finishes what it was asked for, though nobody listens.
    assert eventually(lambda: card_pages(house, pledge.id))
    house.start("web")
    # The form still stands in the browser, filled in, with its one-time key.
    reader.press("Continue to Stripe", **filled_in).save_card()
    assert "Your pledge of £25 counts" in reader.words
    assert (states(slug), round_of(slug).pledged_pence, round_of(slug).pledge_count) == (["confirmed"], 2_500, 1)
    assert card_pages(house, pledge.id) == [pledges_of(slug)[0].session_id]
    assert len({call["idempotency_key"] for call in calls(house, CREATE, pledge)}) == 1
    every_event_is_looked_at(house)
    told(house, email, "Your £25 pledge counts")


def card_pages(house: House, pledge_id: int) -> list[str]:
    """The card pages that Stripe has for one pledge."""
    made = house.stripe_list("checkout/sessions")
    return [page["id"] for page in made if page["metadata"].get("pledge_id") == str(pledge_id)]


def test_news_in_whose_middle_the_web_server_is_killed_comes_again_and_counts_once(house: House) -> None:
    """It had read the news and could not keep it yet, so it had not answered."""
    slug = a_case(target=600_000).slug
    at_stripe, pledge = on_card_page(house, slug, 25, email="news-killed@example.org")
    session_id = str(pledge.session_id)
    only_news_of_the_card_page(house)
    with nobody_can_keep_news():
        callers = callers_of(house)
        save_card_and_close_the_tab(at_stripe)
        assert eventually(lambda: callers_of(house) - callers or [one for one in house.deliveries() if one["tries"]])
        house.kill("web")
    assert kept(session_id) == 0
    house.start("web")
    every_event_is_looked_at(house)
    (delivery,) = [one for one in house.deliveries() if one["type"] == SAVED]
    assert (delivery["state"], delivery["tries"][0]["status"], delivery["tries"][-1]["status"]) == (
        "delivered",
        None,
        200,
    )
    assert kept(session_id) == 1
    counts_once(house, slug, "news-killed@example.org")


def test_news_that_was_kept_by_a_web_server_killed_before_its_answer_was_heard_comes_again_and_counts_once(
    house: House,
) -> None:
    slug = a_case(target=600_000).slug
    house.fault(event="*", fault="hold", times="always")
    at_stripe, pledge = on_card_page(house, slug, 25, email="news-kept@example.org")
    session_id = str(pledge.session_id)
    save_card_and_close_the_tab(at_stripe)
    (event,) = [one for one in house.stripe_list("events", type=SAVED) if one["data"]["object"]["id"] == session_id]
    with news_at_the_door(house, event):
        assert eventually(lambda: kept(session_id) == 1)
        house.kill("web")
    house.start("web")
    # As far as Stripe knows it was never delivered.
    let_events_go(house)
    assert [one["tries"][-1]["status"] for one in house.deliveries() if one["event_id"] == event["id"]] == [200]
    assert kept(session_id) == 1
    counts_once(house, slug, "news-kept@example.org")


def counts_once(house: House, slug: str, email: str) -> None:
    """One pledge of £25, counted once, of which its supporter is told once."""
    assert eventually(lambda: states(slug) == ["confirmed"])
    assert (round_of(slug).pledged_pence, round_of(slug).pledge_count) == (2_500, 1)
    subject = f"pledge:{pledges_of(slug)[0].id}"
    assert db.session.scalar(sa.select(sa.func.count()).where(Letter.subject == subject)) == 1
    told(house, email, "Your £25 pledge counts")


def kept(object_id: str) -> int:
    """How many rows the inbox has of the news about one object."""
    look_anew()
    return db.session.scalar(sa.select(sa.func.count()).where(StripeEvent.object_id == object_id)) or 0


def only_news_of_the_card_page(house: House) -> None:
    for kind in ("customer.created", "payment_method.attached", "setup_intent.succeeded"):
        house.fault(event=kind, fault="drop", times="always")


@contextmanager
def nobody_can_keep_news() -> Iterator[None]:
    """Whoever wants to write into the inbox waits as long as this lasts."""
    begin_writing()
    if db.engine.dialect.name == "postgresql":
        db.session.execute(sa.text("LOCK TABLE stripe_events IN ACCESS EXCLUSIVE MODE"))
    else:
        # There is one lock for all writers, and the first statement takes it.
        db.session.execute(sa.select(1))
    try:
        yield
    finally:
        look_anew()


def callers_of(house: House) -> set[str]:
    """Who is connected to the web server, which has read all that they have sent so far."""
    door = f":{urlsplit(house.url).port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # local address, remote address, state (01 is "established"), what is sent and not acknowledged : come and not read
    return {
        words[2] for words in lines if words[1].endswith(door) and words[3] == "01" and words[4].endswith(":00000000")
    }


@contextmanager
def news_at_the_door(house: House, event: dict[str, Any]) -> Iterator[None]:
    """Send news as Stripe does, and never listen to the answer."""
    raw, there = json.dumps(event).encode(), urlsplit(house.url)
    head = (
        f"POST /webhooks/stripe HTTP/1.1\r\nHost: {there.netloc}\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: {signature(raw)}\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    with socket.create_connection((str(there.hostname), there.port or 80), timeout=30) as caller:
        caller.sendall(head.encode() + raw)
        yield
