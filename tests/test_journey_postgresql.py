"""PostgreSQL is killed and comes back while the house runs: pages say so meanwhile, and no program need be started."""

import pytest
import requests

from tests.house import House, eventually
from tests.journey import (
    NOBODY_CAME,
    a_real_pledge,
    history,
    movements_of,
    on_card_page,
    save_card_and_close_the_tab,
    states,
    the_deadline_comes,
    time_passes,
)
from tests.made import a_case, keep
from tests.postgres import PostgresServer

pytestmark = [
    pytest.mark.only_on("postgresql", why="SQLite has no server that could die"),
    pytest.mark.slow,
]


@pytest.fixture
def server(postgres: PostgresServer) -> PostgresServer:
    if postgres.process is None:
        pytest.skip("The server of DATABASE_URL is not ours to kill")
    return postgres


def test_postgresql_dies_and_comes_back_and_every_program_goes_on_by_itself(
    house: House, server: PostgresServer
) -> None:
    slug = a_case(target=2_500).slug
    page = f"{house.url}/cases/{slug}"
    reader, pledge = on_card_page(house, slug, 25)
    link = pledge.link()
    programs = {name: program.pid for name, program in house.programs.items()}
    before = len(house.log("sweep"))
    keep()
    server.kill()
    try:
        for address in (page, f"{house.url}/", f"{house.url}/pledges/{link}"):
            away = requests.get(address, timeout=30)
            assert (away.status_code, away.headers["Retry-After"]) == (503, "30")
            assert "We cannot look into our books just now" in away.text
        # Stripe's news cannot be kept, so it is not acknowledged.
        save_card_and_close_the_tab(reader)
        assert eventually(lambda: answers_to_news_of_the_card(house))
        assert eventually(lambda: "a sweep failed" in house.log("sweep")[before:])
        assert set(answers_to_news_of_the_card(house)) == {503}
    finally:
        server.start()
    assert requests.get(page, timeout=30).status_code == 200
    # It comes again by itself, until it is kept.
    assert eventually(lambda: answers_to_news_of_the_card(house)[-1] == 200)
    assert set(answers_to_news_of_the_card(house)[:-1]) == {503}
    assert eventually(lambda: states(slug) == ["confirmed"])
    # Only the sweep sees that the deadline has come, and the worker does what it rings for.
    the_deadline_comes(slug, rung=False)
    assert eventually(lambda: states(slug) == ["charged"])
    assert [movement.amount_pence for movement in movements_of(pledge)] == [2_500]
    assert len(house.payments_of(pledge.id)) == 1
    assert {name: program.pid for name, program in house.programs.items() if program.poll() is None} == programs


def answers_to_news_of_the_card(house: House) -> list[int | None]:
    """What our door answered, try by try, to Stripe's news that a card was saved in this test."""
    saved = [delivery for delivery in house.deliveries() if delivery["type"] == "checkout.session.completed"]
    return [tried["status"] for delivery in saved for tried in delivery["tries"]]


def test_postgresql_dies_while_a_card_is_charged_and_the_card_is_charged_once(
    house: House, server: PostgresServer
) -> None:
    """The money moves while nobody can write it down."""
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    pledge_id, before = pledge.id, len(house.log("worker"))
    house.fault(operation="payment_intents.create", fault="hang", when="after", seconds=3)
    # No news of the charge comes to help: the key alone has to.
    house.fault(event="*", fault="drop", times="always")
    the_deadline_comes(slug)
    assert eventually(lambda: house.payments_of(pledge_id))
    keep()
    server.kill()
    try:
        assert eventually(lambda: "OperationalError" in house.log("worker")[before:])
    finally:
        server.start()
    assert states(slug) == ["charging"]
    time_passes(slug, 2 * NOBODY_CAME)
    assert eventually(lambda: states(slug) == ["charged"])
    assert history(pledge) == ["started", "confirmed", "due", "charging", "charged"]
    assert [movement.amount_pence for movement in movements_of(pledge)] == [2_500]
    assert len(house.payments_of(pledge_id)) == 1
