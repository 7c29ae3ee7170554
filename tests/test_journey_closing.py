"""The moment of the deadline: card pages that are still open, cards saved just before and just after, Stripe away."""

import datetime as dt

import pytest

from tests.house import House, eventually
from tests.journey import (
    A_SECOND,
    a_real_pledge,
    calls,
    card_is_saved,
    decisions,
    let_events_go,
    on_card_page,
    round_of,
    save_card_and_close_the_tab,
    states,
    stripe_object,
    the_deadline_comes,
    time_passes,
    told,
)
from tests.made import a_case, now, pledges_of
from tests.reader import Reader


def test_a_card_saved_before_the_deadline_counts_though_its_event_comes_after_it(house: House) -> None:
    slug = a_case(target=2_500).slug
    house.fault(event="*", fault="hold", times="always")
    at_stripe, _ = on_card_page(house, slug, 25, email="just-in-time@example.org")
    save_card_and_close_the_tab(at_stripe)
    assert states(slug) == ["started"]
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    assert (round_of(slug).status, round_of(slug).settled_total_pence) == ("met", 2_500)
    let_events_go(house)
    (pledge,) = pledges_of(slug)
    assert [payment["amount_received"] for payment in house.payments_of(pledge.id)] == [2_500]
    assert states(slug) == ["charged"]


def test_a_card_saved_while_the_round_closes_comes_too_late_and_is_never_charged(house: House) -> None:
    slug = a_case(target=5_000).slug
    counts = a_real_pledge(house, slug, 50)
    at_stripe, late = on_card_page(house, slug, 25, email="late.while.closing@example.org")
    house.fault(operation="checkout.sessions.expire", fault="error", times="always")
    the_deadline_comes(slug)
    assert eventually(lambda: round_of(slug).trouble)
    assert round_of(slug).status == "closing"
    # Stripe's clock tells whole seconds only.
    assert eventually(lambda: now() > round_of(slug).deadline + A_SECOND)
    save_card_and_close_the_tab(at_stripe)
    assert eventually(lambda: states(slug) == ["confirmed", "released"])
    assert house.payments_of(counts.id) == []
    house.clear_faults()
    time_passes(slug)
    assert eventually(lambda: states(slug) == ["charged", "released"])
    assert round_of(slug).settled_total_pence == 5_000
    told(house, "late.while.closing@example.org", "Your £25 pledge came too late")
    assert "saved after the deadline" in at_stripe.open(f"/pledges/{late.link()}").words
    card = stripe_object(house, f"checkout/sessions/{late.session_id}?expand[]=setup_intent")["setup_intent"]
    assert eventually(lambda: not card_is_saved(house, card["payment_method"]))
    assert house.payments_of(late.id) == []


def test_every_open_card_page_is_closed_at_stripe_before_the_round_is_decided(house: House) -> None:
    slug = a_case(target=2_500).slug
    a_real_pledge(house, slug, 25)
    at_stripe, started = on_card_page(house, slug, 50)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged", "abandoned"])
    assert stripe_object(house, f"checkout/sessions/{started.session_id}")["status"] == "expired"
    path = f"/v1/checkout/sessions/{started.session_id}/expire"
    (closed,) = [call for call in calls(house, "checkout.sessions.expire") if call["path"] == path]
    settled_at = round_of(slug).settled_at
    assert settled_at is not None and dt.datetime.fromtimestamp(closed["at"], dt.UTC) < settled_at
    at_stripe.save_card()
    assert at_stripe.status in (409, 410)
    assert states(slug) == ["charged", "abandoned"]


@pytest.mark.parametrize("comes_back", [True, False], ids=["goes on to Stripe", "stays away"])
def test_a_card_page_whose_answer_was_lost_is_asked_for_with_the_same_key(house: House, comes_back: bool) -> None:
    slug = a_case(target=2_500).slug
    # The SDK itself asks three times.
    house.fault(operation="checkout.sessions.create", fault="lose_answer", times=3)
    reader = Reader(house.url).pledge(slug, "25", email="lost-answer@example.org")
    (pledge,) = pledges_of(slug)
    assert (pledge.status, pledge.session_id) == ("started", None)
    assert "Stripe could not be reached just now. Nothing is lost" in reader.words
    if comes_back:
        reader.press("Continue to Stripe").save_card()
        assert "Your pledge of £25 counts" in reader.words
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged" if comes_back else "abandoned"])
    assert eventually(lambda: round_of(slug).status == ("met" if comes_back else "missed"))
    asked = calls(house, "checkout.sessions.create", pledge)
    assert [(call["idempotency_key"], call["status"]) for call in asked] == [
        (f"pledge-{pledge.id}-session-1", None)
    ] * 3 + [(f"pledge-{pledge.id}-session-1", 200)]
    assert [call["replayed"] for call in asked][-1]
    (session_id,) = {pledge.session_id for pledge in pledges_of(slug)}
    session = stripe_object(house, f"checkout/sessions/{session_id}")
    assert session["metadata"]["pledge_id"] == str(pledge.id)
    assert session["status"] == ("complete" if comes_back else "expired")


def test_while_stripe_is_away_the_round_stays_closing_and_says_so(house: House, reader: Reader) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    on_card_page(house, slug, 50)
    its_page = Reader(house.url).open(f"/pledges/{pledge.link()}")
    house.kill("sandbox")
    the_deadline_comes(slug)
    assert eventually(lambda: round_of(slug).trouble)
    words = reader.open(f"/cases/{slug}").words
    assert "The deadline has passed, and the pledges are being settled." in words
    assert "Stripe, which keeps the cards, has not answered for all of them yet. Nobody is charged until" in words
    assert "Pledge now" not in words
    its_page.press("Cancel my pledge")
    assert its_page.status == 409
    assert "This case has closed: pledges can no longer be cancelled." in its_page.words
    assert (round_of(slug).status, states(slug)) == ("closing", ["confirmed", "started"])
    house.start("sandbox")
    assert house.payments_of(pledge.id) == []
    time_passes(slug)
    assert eventually(lambda: states(slug) == ["charged", "abandoned"])
    assert len(house.payments_of(pledge.id)) == 1
    assert "This case reached its target" in reader.open(f"/cases/{slug}").words


def test_a_worker_killed_while_it_closes_a_card_page_leaves_a_round_that_another_closes(house: House) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    _, started = on_card_page(house, slug, 50)
    house.fault(operation="checkout.sessions.expire", fault="hang", when="after", seconds=10)
    the_deadline_comes(slug)
    assert eventually(
        lambda: stripe_object(house, f"checkout/sessions/{started.session_id}")["status"] == "expired"
    )  # fmt: skip
    house.kill("worker")
    assert (round_of(slug).status, states(slug)) == ("closing", ["confirmed", "started"])
    house.start("worker")
    time_passes(slug, dt.timedelta(minutes=1))
    assert eventually(lambda: states(slug) == ["charged", "abandoned"])
    assert len(house.payments_of(pledge.id)) == 1
    assert decisions(slug) == ["met"]
