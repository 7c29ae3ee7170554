"""A case page that is left open keeps up by itself: the total, the deadline, and what is read out of it.

With JavaScript the page asks every 15 seconds; the browser's clock is moved on, so that nobody waits for it.
"""

import datetime as dt
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from models import Round, begin_writing
from tests.conftest import SCRIPTED
from tests.house import House, eventually
from tests.journey import a_real_pledge
from tests.made import a_case, case_at, keep, now
from tests.reader import Reader

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# Counts every change below the panel and the comments; what is said aloud stands outside of both.
COUNT_CHANGES = """() => {
    window.changes = 0
    const watch = new MutationObserver(found => { window.changes += found.length })
    for (const place of document.querySelectorAll('.panel, section[aria-labelledby="comments-heading"]'))
        watch.observe(place, {subtree: true, childList: true, characterData: true})
}"""


def test_the_total_moves_within_twenty_seconds_on_a_page_that_is_left_open(
    house: House, page: "Page", way: str, reader: Reader
) -> None:
    slug = a_case(target=600_000, pledged=[9_500]).slug
    _opened(page, way, f"{house.url}/cases/{slug}")
    expect(page.locator(".total")).to_have_text("£95 pledged of £6,000 target from 1 pledge")
    reader.pledge(slug, "25").save_card()
    if way in SCRIPTED:
        page.clock.run_for(20_000)
    else:
        page.reload()
    expect(page.locator(".total")).to_have_text("£120 pledged of £6,000 target from 2 pledges")
    assert case_at(slug).round.pledged_pence == 12_000


def test_a_moving_total_is_said_and_takes_neither_the_words_nor_the_focus(
    house: House, open_browser: Callable[..., "Page"], reader: Reader
) -> None:
    page, slug = open_browser(), a_case(target=600_000, pledged=[9_500]).slug
    page.clock.install()
    page.goto(f"{house.url}/cases/{slug}")
    expect(page.locator("#total-said")).to_have_role("status")
    page.get_by_label("Your comment").fill("Half a thought about")
    page.locator("#pledge-now").focus()
    page.evaluate(COUNT_CHANGES)

    with page.expect_response(re.compile("/pledge-total")) as total, page.expect_response(re.compile("/comments")) as c:
        page.clock.run_for(15_500)
    assert (total.value.status, c.value.status) == (204, 204)
    assert page.evaluate("window.changes") == 0
    expect(page.locator("#total-said")).to_be_empty()

    reader.pledge(slug, "25").save_card()
    page.clock.run_for(15_500)
    expect(page.locator(".total")).to_have_text("£120 pledged of £6,000 target from 2 pledges")
    expect(page.locator("#total-said")).to_have_text("£120 pledged of £6,000, 2 pledges.")
    expect(page.locator("#pledge-now")).to_be_focused()
    expect(page.get_by_label("Your comment")).to_have_value("Half a thought about")

    asked = page.evaluate("window.changes")
    with page.expect_response(re.compile("/pledge-total")) as total:
        page.clock.run_for(15_500)
    assert total.value.status == 204
    assert page.evaluate("window.changes") == asked

    # A tab that nobody looks at asks for nothing, and goes on once it is looked at.
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, get: () => true})")
    page.clock.run_for(60_000)
    page.evaluate("Object.defineProperty(document, 'hidden', {configurable: true, get: () => false})")
    assert requests == []
    with page.expect_response(re.compile("/pledge-total")) as total:
        page.clock.run_for(15_500)
    assert total.value.status == 204


def test_a_page_left_open_during_the_deadline_shows_the_end_and_then_asks_no_more(
    house: House, page: "Page", way: str
) -> None:
    slug = a_case(target=600_000, pledged=[9_500]).slug
    _opened(page, way, f"{house.url}/cases/{slug}")
    expect(page.get_by_role("link", name="Pledge now")).to_have_count(2)
    _let_the_deadline_pass(slug)
    assert eventually(lambda: case_at(slug).round.status == "missed", why="the round was not settled")

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    if way in SCRIPTED:
        page.clock.run_for(15_500)
    else:
        page.reload()
    expect(page.locator("#pledge-total")).to_contain_text(
        "This case did not reach its target. £95 of £6,000 was pledged."
    )
    expect(page.locator("#pledge-total").get_by_role("link", name="Pledge now")).to_have_count(0)
    expect(page.locator("[data-hx-trigger]")).to_have_count(0)
    if way in SCRIPTED:
        page.clock.run_for(16_000)
        asked.clear()
        page.clock.run_for(120_000)
        with page.expect_response("**/healthz"):
            page.evaluate("fetch('/healthz')")
        assert asked == [f"{house.url}/healthz"]
    assert case_at(slug).round.settled_total_pence == 9_500


def test_a_page_that_shows_the_settling_hears_of_the_decision(house: House, page: "Page", way: str) -> None:
    """Between the deadline and the decision the page says that it is being settled; a reload tells the end."""
    slug = a_case(target=9_500, pledged=[9_500]).slug
    page.goto(f"{house.url}/cases/{slug}")
    _let_the_deadline_pass(slug)
    page.get_by_role("link", name="Pledge now").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("This case takes no more pledges")
    assert eventually(lambda: case_at(slug).round.status == "met", why="the round was not settled")
    page.get_by_role("link", name="See what became of").click()
    expect(page.locator("#pledge-total")).to_contain_text("This case reached its target. £95 of £95 was pledged")


def _opened(page: "Page", way: str, address: str) -> None:
    """Open a page that keeps up by itself where there is htmx, and read a little, so that a late htmx comes too."""
    if way in SCRIPTED:
        page.clock.install()
    page.goto(address)
    page.mouse.wheel(0, 10)
    page.wait_for_load_state()


def _let_the_deadline_pass(slug: str) -> None:
    number = case_at(slug).round.id
    begin_writing()
    its_round = Round.hold(number)
    # The cards behind these pledges are made up, so none of them may be charged.
    its_round.case.charges_frozen = True
    its_round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())
    keep()


def test_row_30_a_page_into_which_something_was_put_does_not_run_it_and_tells_us(
    house: House, chromium: "Browser"
) -> None:
    """Somebody has found a way to write into a page: what they wrote does nothing, and the log says on which page."""
    pledge = a_real_pledge(house, a_case().slug, 25, email="reported@example.org")
    link, page = pledge.link(), chromium.new_page()
    page.goto(f"{house.url}/pledges/{link}")
    page.evaluate("""() => {
        const script = document.createElement("script")
        script.text = "window.ran = true"
        document.body.append(script)
        const picture = "<img src='https://evil.example/x.png' onerror='window.ran = true'>"
        document.body.insertAdjacentHTML("beforeend", picture)
    }""")
    for directive, blocked in (
        ("script-src-elem", "inline"), ("script-src-attr", "inline"), ("img-src", "https://evil.example"),
    ):  # fmt: skip
        line = rf"a page broke its policy +blocked={blocked} directive={directive} page=/pledges/<link>"
        assert eventually(lambda line=line: re.search(line, house.log("web")))  # type: ignore[misc]
    assert page.evaluate("window.ran") is None
    page.close()
