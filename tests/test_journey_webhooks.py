"""Stripe's news, late, twice, in the wrong order or never: the total counts each pledge once all the same."""

import requests
import sqlalchemy as sa

from models import StripeEvent, db
from tests.house import House, eventually
from tests.journey import (
    a_real_pledge,
    card_is_saved,
    every_event_is_looked_at,
    let_events_go,
    movements_of,
    on_card_page,
    round_of,
    save_card_and_close_the_tab,
    states,
    the_deadline_comes,
    told,
)
from tests.made import a_case, look_anew, pledges_of


def test_news_that_comes_twice_and_again_by_hand_counts_once(house: House) -> None:
    slug = a_case(target=600_000).slug
    house.fault(event="*", fault="duplicate", times="always")
    at_stripe, pledge = on_card_page(house, slug, 25, email="twice@example.org")
    save_card_and_close_the_tab(at_stripe)
    assert eventually(lambda: states(slug) == ["confirmed"])
    event = _event_of(house, "checkout.session.completed", str(pledge.session_id))
    requests.post(f"{house.stripe}/sandbox/events/{event}/deliver", json={}, timeout=30).raise_for_status()
    every_event_is_looked_at(house)
    assert _answers(house, event) == [200, 200, 200]
    assert db.session.scalar(sa.select(sa.func.count()).where(StripeEvent.event_id == event)) == 1
    assert (round_of(slug).pledged_pence, round_of(slug).pledge_count) == (2_500, 1)
    told(house, "twice@example.org", "Your £25 pledge counts")


def test_news_that_is_late_confirms_the_pledge_when_it_comes(house: House) -> None:
    slug = a_case(target=600_000).slug
    house.fault(event="*", fault="hold", times="always")
    at_stripe, pledge = on_card_page(house, slug, 25)
    save_card_and_close_the_tab(at_stripe)
    private = at_stripe.open(f"/pledges/{pledge.link()}")
    assert "Your pledge does not count yet" in private.words
    let_events_go(house)
    assert "Your pledge of £25 counts" in private.open(private.address).words
    assert (round_of(slug).pledged_pence, round_of(slug).pledge_count) == (2_500, 1)


def test_news_of_a_pledge_that_was_cancelled_since_changes_nothing(house: House) -> None:
    slug = a_case(target=600_000).slug
    house.fault(event="*", fault="hold", times="always")
    pledge = a_real_pledge(house, slug, 25)
    card = pledge.payment_method_id
    at_home, _ = on_card_page(house, slug, 10)
    at_home.open(f"/pledges/{pledge.link()}").press("Cancel my pledge")
    assert eventually(lambda: not card_is_saved(house, card))
    let_events_go(house, reverse=True)
    assert states(slug) == ["cancelled", "started"]
    assert (round_of(slug).pledged_pence, round_of(slug).pledge_count) == (0, 0)


def test_news_of_the_charge_in_the_wrong_order_and_twice_moves_the_money_once(house: House) -> None:
    slug = a_case(target=2_500).slug
    house.fault(event="*", fault="hold", times="always")
    pledge = a_real_pledge(house, slug, 25, email="reordered@example.org")
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    let_events_go(house, reverse=True)
    paid = _event_of(house, "payment_intent.succeeded", house.payments_of(pledge.id)[0]["id"])
    requests.post(f"{house.stripe}/sandbox/events/{paid}/deliver", json={}, timeout=30).raise_for_status()
    every_event_is_looked_at(house)
    assert states(slug) == ["charged"]
    assert [moved.amount_pence for moved in movements_of(pledge)] == [2_500]
    told(house, "reordered@example.org", "Your £25 pledge counts", "Your card was charged £25")


def test_without_any_news_the_way_back_confirms_and_the_deadline_finds_who_never_came_back(house: House) -> None:
    slug = a_case(target=7_500).slug
    house.fault(event="*", fault="drop", times="always")
    a_real_pledge(house, slug, 50)
    at_stripe, _ = on_card_page(house, slug, 25)
    save_card_and_close_the_tab(at_stripe)
    assert states(slug) == ["confirmed", "started"]
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged", "charged"])
    assert round_of(slug).settled_total_pence == 7_500
    look_anew()
    seen = sa.select(sa.func.count()).where(StripeEvent.object_id.in_([p.session_id for p in pledges_of(slug)]))
    assert db.session.scalar(seen) == 0


def _event_of(house: House, kind: str, object_id: str) -> str:
    """The id of Stripe's event of this kind about one object."""
    (found,) = [e for e in house.stripe_list("events", type=kind) if e["data"]["object"]["id"] == object_id]
    return str(found["id"])


def _answers(house: House, event: str) -> list[int]:
    """What our door answered to each delivery of an event."""
    found = requests.get(f"{house.stripe}/sandbox/deliveries", {"event": event}, timeout=30).json()
    return [delivery["tries"][-1]["status"] for delivery in found]
