"""A reader comments and a moderator decides, in Chromium: in place with htmx, page by page without it."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from models import Case, Comment, Event, begin_writing, db
from tests.conftest import SCRIPTED
from tests.house import House
from tests.journey import a_real_pledge
from tests.made import PASSWORD, a_case, a_user, case_at, keep, look_anew, now

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

# The line is cut; something in front of the site answers in its place.
FAILURES: tuple[Callable[["Route"], None], ...] = (
    lambda route: route.abort(),
    lambda route: route.fulfill(status=502, body="Bad gateway"),
)
pytestmark = [pytest.mark.browser, pytest.mark.slow]
# How the button looks while the server is asked.
ASKING = """() => document.addEventListener('htmx:beforeSend', event => {
    window.looked = getComputedStyle(event.target.querySelector('.button')).borderTopStyle
})"""


def test_a_comment_is_mended_sent_approved_and_appears_on_the_open_page(
    house: House, page: "Page", way: str, open_browser: Callable[..., "Page"]
) -> None:
    slug, moderator = a_case().slug, a_user("moderator").email
    watcher = open_browser(way)
    if way in SCRIPTED:
        watcher.clock.install()
    watcher.goto(f"{house.url}/cases/{slug}")
    watcher.get_by_label("Your comment").fill("Still thinking")

    page.goto(f"{house.url}/cases/{slug}")
    expect(page.locator("#comments")).to_have_text("There are no public comments on this case page yet.")
    page.get_by_label("Your comment").fill("I stand with you.")
    loads = _loads(page)
    page.get_by_role("button", name="Send comment").click()
    expect(page.locator(".errors")).to_be_focused()
    page.locator(".errors").get_by_role("link", name="Enter your e-mail address. It is never shown.").click()
    expect(page.get_by_label("Your e-mail address")).to_be_focused()
    expect(page.get_by_label("Your comment")).to_have_value("I stand with you.")
    if way not in SCRIPTED:
        expect(page).to_have_title(re.compile("^Error: "))
        expect(page.locator("main > :first-child")).to_have_role("alert")

    page.get_by_label("Your name").fill("Ben Field")
    page.get_by_label("Your e-mail address").fill("ben@example.org")
    if way in SCRIPTED:
        page.evaluate(ASKING)
    page.get_by_role("button", name="Send comment").click()
    expect(page.locator("main")).to_contain_text("Your comment is not public yet. A moderator reads each one first")
    expect(page.get_by_role("blockquote")).to_contain_text("I stand with you.")
    if way in SCRIPTED:
        expect(page.get_by_role("heading", name="Thank you")).to_be_focused()
        assert page.evaluate("window.looked") == "dashed"
        assert loads == []
    assert [(c.name, c.email, c.status) for c in _comments(slug)] == [("Ben Field", "ben@example.org", "pending")]

    desk = open_browser(way)
    _log_in(house, desk, moderator)
    loads = _loads(desk)
    item = _item(desk, slug)
    item.get_by_role("button", name="Approve").click()
    expect(desk.get_by_role("status")).to_have_text("Approved: the comment by Ben Field is public.")
    if way in SCRIPTED:
        # On the next comment, or where no other waits on what brings those that have come since.
        expect(desk.locator(".item:focus, #anew:focus")).to_have_count(1)
        assert loads == []
    else:
        expect(item).to_have_count(0)

    if way in SCRIPTED:
        watcher.clock.run_for(15_500)
        expect(watcher.locator("#comments-said")).to_have_text("1 public comment.")
        expect(watcher.get_by_label("Your comment")).to_have_value("Still thinking")
    else:
        watcher.reload()
    expect(watcher.locator("#comments")).to_contain_text("I stand with you.")
    expect(watcher.locator("#comments .who")).to_contain_text("Ben Field")
    expect(watcher.locator("body")).not_to_contain_text("ben@example.org")
    assert _history(slug) == [("approved", "pending", "approved", "")]


def test_a_request_that_fails_says_so_and_what_was_typed_is_still_there(
    house: House, open_browser: Callable[..., "Page"]
) -> None:
    page, slug = open_browser(), a_case().slug
    page.goto(f"{house.url}/cases/{slug}")
    page.get_by_label("Your comment").fill("The line is bad here.")
    page.get_by_label("Your name").fill("Ben Field")
    page.get_by_label("Your e-mail address").fill("ben@bad-line.example")
    trouble = page.get_by_role("alert").filter(has_text="That did not work, and nothing was changed here.")
    for failure in FAILURES:
        page.route(f"**/cases/{slug}/comments", failure)
        page.get_by_role("button", name="Send comment").click()
        expect(trouble).to_be_focused()
        expect(page.get_by_label("Your comment")).to_have_value("The line is bad here.")
        page.unroute_all()
    assert _comments(slug) == []
    page.get_by_role("button", name="Send comment").click()
    expect(page.get_by_role("heading", name="Thank you")).to_be_focused()
    expect(trouble).to_have_count(0)
    assert [c.body for c in _comments(slug)] == ["The line is bad here."]


def test_a_rejection_needs_a_reason_and_can_be_turned_round(
    house: House, page: "Page", way: str, open_browser: Callable[..., "Page"]
) -> None:
    slug, moderator = a_case().slug, a_user("moderator").email
    _says(slug, "Buy my pills.")
    _log_in(house, page, moderator)
    loads, item = _loads(page), _item(page, slug)
    item.get_by_role("button", name="Reject").click()
    expect(page.locator(".errors")).to_be_focused()
    page.locator(".errors").get_by_role("link", name="Choose a reason.").click()
    reason = item.get_by_label("Reason")
    expect(reason).to_be_focused()
    expect(reason).to_have_accessible_description("Error: Choose a reason.")
    assert [c.status for c in _comments(slug)] == ["pending"]

    reason.select_option("Off topic")
    item.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("status")).to_have_text("Rejected: the comment by Ben Field is not public.")
    if way in SCRIPTED:
        expect(page.locator(".item:focus")).to_have_count(1)
        assert loads == []

    page.goto(f"{house.url}/moderation/decided")
    expect(item).to_contain_text("rejected by A Moderator: Off topic")
    item.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status")).to_have_text("Approved: the comment by Ben Field is public.")
    page.goto(f"{house.url}/moderation/decided")
    expect(item).to_contain_text("approved by A Moderator")
    anybody = open_browser(way)
    anybody.goto(f"{house.url}/cases/{slug}")
    expect(anybody.locator("#comments")).to_contain_text("Buy my pills.")

    page.goto(f"{house.url}/moderation/decided")
    item.get_by_label("Reason").select_option("Personal data")
    item.get_by_role("button", name="Reject").click()
    expect(page.get_by_role("status")).to_have_text("Rejected: the comment by Ben Field is not public.")
    anybody.reload()
    expect(anybody.locator("#comments")).to_have_text("There are no public comments on this case page yet.")
    expect(anybody.locator("body")).not_to_contain_text("Off topic")
    assert _history(slug) == [
        ("rejected", "pending", "rejected", "Off topic"),
        ("approved", "rejected", "approved", ""),
        ("rejected", "approved", "rejected", "Personal data"),
    ]


def test_what_waits_or_was_rejected_never_appears_on_an_open_page(
    house: House, open_browser: Callable[..., "Page"]
) -> None:
    slug, page = a_case().slug, open_browser()
    page.clock.install()
    page.goto(f"{house.url}/cases/{slug}")
    _says(slug, "This waits.")
    with page.expect_response(re.compile("/comments")) as answer:
        page.clock.run_for(15_500)
    assert answer.value.status == 204
    expect(page.locator("#comments")).to_have_text("There are no public comments on this case page yet.")


def test_a_decision_by_a_moderator_who_was_logged_out_meanwhile_is_not_lost_in_silence(
    house: House, open_browser: Callable[..., "Page"]
) -> None:
    """In place, the log-in page would be swapped into the list: the moderator must see a whole page instead."""
    slug, moderator, page = a_case().slug, a_user("moderator").email, open_browser()
    _says(slug, "I stand with you.")
    _log_in(house, page, moderator)
    page.context.clear_cookies()
    _item(page, slug).get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Log in")
    expect(page.get_by_role("main")).to_have_count(1)
    assert [c.status for c in _comments(slug)] == ["pending"]


def test_back_forward_and_reload_show_whole_pages_after_a_part_was_exchanged_and_send_nothing_again(
    house: House, open_browser: Callable[..., "Page"]
) -> None:
    slug, moderator, page = a_case(target=600_000).slug, a_user("moderator").email, open_browser()
    mine = a_real_pledge(house, slug, 25, email="goes-back@comments.example.org")
    link, sent = mine.link(), list[str]()
    page.on("request", lambda asked: sent.append(urlsplit(asked.url).path) if asked.method == "POST" else None)
    page.clock.install()

    # A form that was wrong and then sent, on a page that has asked for its own parts as well.
    page.goto(f"{house.url}/cases/{slug}")
    with page.expect_response(re.compile("/pledge-total")) as asked, page.expect_response(re.compile("/comments")) as c:
        page.clock.run_for(15_500)
    page.get_by_label("Your comment").fill("I stand with you.")
    page.get_by_role("button", name="Send comment").click()
    expect(page.locator(".errors")).to_be_focused()
    page.get_by_label("Your e-mail address").fill("ben@goes-back.example.org")
    page.get_by_role("button", name="Send comment").click()
    expect(page.get_by_role("heading", name="Thank you")).to_be_focused()
    _goes_about(page, "A case about data – Standing", "Leave a comment")
    for part in (asked.value.url, c.value.url):
        page.goto(part)
        _goes_about(page, re.compile("A case about data"), "A case about data")
    assert [c.body for c in _comments(slug)] == ["I stand with you."]

    page.goto(f"{house.url}/pledges/{link}")
    page.get_by_role("button", name="Cancel my pledge").click()
    expect(page.get_by_role("status")).to_contain_text("Your pledge of £25 is cancelled.")
    _goes_about(page, "Your pledge for A case about data – Standing", "Your pledge of £25 is cancelled.")

    _log_in(house, page, moderator)
    page.goto(f"{house.url}/moderation?case={slug}")
    number = _comments(slug)[0].id
    _item(page, slug).get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status")).to_contain_text("Approved: the comment by")
    _goes_about(page, re.compile("comments? waiting – Standing$"), "Just decided by you")
    assert sent == [
        f"/cases/{slug}/comments", f"/cases/{slug}/comments", f"/pledges/{link}/cancellation", "/login",
        f"/moderation/comments/{number}/decision",
    ]  # fmt: skip
    assert _history(slug) == [("approved", "pending", "approved", "")]


def _goes_about(page: "Page", title: str | re.Pattern[str], words: str) -> None:
    """To another page, back, anew, forward and back again: each time it is a whole page, and the right one."""
    here = page.url
    page.get_by_role("contentinfo").get_by_role("link", name="Accessibility").click()
    there = page.url
    steps = ((page.go_back, here), (page.reload, here), (page.go_forward, there), (page.go_back, here))
    for step, address in steps:
        step()
        expect(page).to_have_url(address)
        expect(page).to_have_title(title if address == here else re.compile("^Accessibility"))
        expect(page.get_by_role("banner")).to_have_count(1)
        expect(page.locator("body > main")).to_contain_text(words if address == here else "Accessibility")
        expect(page.get_by_role("contentinfo")).to_have_count(1)


def _log_in(house: House, page: "Page", email: str) -> None:
    page.goto(f"{house.url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{house.url}/moderation")


def _item(page: "Page", slug: str) -> "Locator":
    """The only comment of a case on a moderator's list."""
    return page.locator(f"#item-{_comments(slug)[0].id}")


def _loads(page: "Page") -> list[str]:
    """Every whole page that is loaded from here on."""
    seen: list[str] = []
    # The page that is there already, or its script, may be still on its way.
    page.mouse.wheel(0, 1)
    page.wait_for_load_state()
    page.on("domcontentloaded", lambda loaded: seen.append(loaded.url))
    return seen


def _says(slug: str, body: str) -> None:
    number = case_at(slug).id
    begin_writing()
    case = db.session.get_one(Case, number)
    case.take_comment("Ben Field", "ben@example.org", body, now())
    keep()


def _comments(slug: str) -> list[Comment]:
    look_anew()
    return list(db.session.scalars(sa.select(Comment).where(Comment.case_id == case_at(slug).id).order_by(Comment.id)))


def _history(slug: str) -> list[tuple[str, str | None, str | None, str]]:
    """What was decided about the only comment of a case: what, from, to, why."""
    found = sa.select(Event).where(Event.subject_kind == "comment", Event.subject_id == _comments(slug)[0].id)
    return [(e.what, e.before, e.after, e.note) for e in db.session.scalars(found.order_by(Event.id))]
