"""The moderators' desk in Chromium: by its keys, by its buttons, and with the keys switched off."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from models import Case, Comment, Event, Waiting, begin_writing, db
from tests.house import House, eventually
from tests.made import PASSWORD, a_case, a_user, keep, look_anew, now

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
Open = Callable[..., "Page"]


def _case_with(*bodies: str) -> tuple[str, list[int]]:
    """A case of which these comments wait: its address, and their numbers."""
    case = a_case()
    number, slug = case.id, case.slug
    begin_writing()
    held = db.session.get_one(Case, number)
    numbers = [held.take_comment("Ben Field", "ben@keys.example.org", body, now()).id for body in bodies]
    keep()
    return slug, numbers


def _desk(house: House, page: "Page", slug: str) -> "Page":
    page.goto(f"{house.url}/login")
    page.get_by_label("E-mail address").fill(a_user("moderator").email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{house.url}/moderation")
    page.goto(f"{house.url}/moderation?case={slug}")
    return page


def _states(numbers: list[int]) -> list[str]:
    look_anew()
    return list(db.session.scalars(sa.select(Comment.status).where(Comment.id.in_(numbers)).order_by(Comment.id)))


def _item(page: "Page", number: int) -> "Locator":
    return page.locator(f"#item-{number}")


def _events(numbers: list[int]) -> list[tuple[int, str]]:
    look_anew()
    found = sa.select(Event).where(Event.subject_kind == "comment", Event.subject_id.in_(numbers))
    return [(event.subject_id, event.what) for event in db.session.scalars(found.order_by(Event.id))]


def test_fifty_keys_sent_without_waiting_decide_fifty_comments_and_none_twice(house: House, open_browser: Open) -> None:
    slug, numbers = _case_with(*(f"Words {'a' * n}" for n in range(50)))
    page = _desk(house, open_browser(), slug)
    waiting = Waiting.at(now()).count
    words = "No comments" if waiting == 50 else "1 comment" if waiting == 51 else f"{waiting - 50} comments"
    page.get_by_role("link", name="To the first comment").click()
    expect(_item(page, numbers[0])).to_be_focused()
    for _ in range(50):
        page.keyboard.press("a")
    eventually(lambda: _states(numbers) == ["approved"] * 50, why="not all fifty were approved")
    expect(page.locator("#desk .notice")).to_have_count(50)
    # The page says how many are left, and what there is to do next.
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{words} waiting")
    expect(page).to_have_title(f"{words} waiting – Standing")
    expect(page.get_by_role("link", name="Load what waits now")).to_be_focused()
    for key in "aaaa":
        page.keyboard.press(key)
    assert sorted(_events(numbers)) == [(number, "approved") for number in numbers]


@pytest.mark.parametrize("way", ["with JavaScript", "with the CDN blocked"])
def test_after_each_decision_the_focus_is_on_the_next_comment(house: House, open_browser: Open, way: str) -> None:
    slug, (one, two, three, four) = _case_with("One", "Two", "Three", "Four")
    page = _desk(house, open_browser(way), slug)
    page.keyboard.press("j")
    expect(_item(page, one)).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(_item(page, one)).to_be_focused()
    page.keyboard.press("a")
    expect(_item(page, two)).to_be_focused()
    eventually(lambda: _states([one]) == ["approved"])
    page.keyboard.press("s")
    expect(_item(page, three)).to_be_focused()
    eventually(lambda: _states([two]) == ["spam"])
    page.keyboard.press("r")
    reason = _item(page, three).get_by_label("Reason")
    expect(reason).to_be_focused()
    reason.select_option("Harassment")
    page.keyboard.press("Enter")
    expect(_item(page, four)).to_be_focused()
    eventually(lambda: _states([three]) == ["rejected"])
    # A button does the same as its key.
    page.keyboard.press("k") if way == "with JavaScript" else None
    _item(page, four).get_by_role("button", name="Approve").click()
    eventually(lambda: _states([one, two, three, four]) == ["approved", "spam", "rejected", "approved"])


@pytest.mark.parametrize("way", ["with JavaScript", "with the CDN blocked"])
def test_u_undoes_the_last_decision_and_x_selects(house: House, open_browser: Open, way: str) -> None:
    slug, (one, two) = _case_with("One", "Two")
    page = _desk(house, open_browser(way), slug)
    page.keyboard.press("j")
    page.keyboard.press("a")
    expect(_item(page, two)).to_be_focused()
    eventually(lambda: _states([one]) == ["approved"])
    expect(page.get_by_role("button", name="Undo").first).to_be_visible()
    page.keyboard.press("u")
    eventually(lambda: _states([one, two]) == ["pending", "pending"])
    expect(_item(page, one)).to_be_focused()
    page.keyboard.press("x")
    expect(_item(page, one).get_by_role("checkbox")).to_be_checked()
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.get_by_text("Decide the selected comments together").click()
    page.get_by_role("button", name="Approve the selected").click()
    expect(page.get_by_role("status").first).to_have_text("Approved: 2 comments.")
    assert _states([one, two]) == ["approved", "approved"]


def test_no_key_acts_while_something_is_typed_or_held_down_or_with_another_key(
    house: House, open_browser: Open
) -> None:
    slug, numbers = _case_with("One", "Two")
    page = _desk(house, open_browser(), slug)
    page.keyboard.press("j")
    item = _item(page, numbers[0])
    # Somebody goes on from the reason with Tab and types at once, before the note is open.
    page.keyboard.press("r")
    page.keyboard.press("Tab")
    expect(item.locator("summary", has_text="A note to the author")).to_be_focused()
    page.keyboard.type("As a rule: kjasx us")
    page.get_by_text("Decide the selected comments together").focus()
    page.keyboard.type("asa")
    assert _states(numbers) == ["pending", "pending"]
    page.keyboard.press("Escape")
    expect(item).to_be_focused()
    item.get_by_text("A note to the author").click()
    item.get_by_label("Note, sent to the author").type("jkasrux")
    expect(item.get_by_label("Note, sent to the author")).to_have_value("jkasrux")
    page.keyboard.press("Control+a")
    page.keyboard.press("Escape")
    item.focus()
    page.keyboard.press("Alt+s")
    for _ in range(3):
        page.keyboard.down("a")
    page.keyboard.up("a")
    # The first press counts, its repetitions do not.
    eventually(lambda: _states(numbers) == ["approved", "pending"])
    expect(page.locator("#desk .notice")).to_have_count(1)
    assert _states(numbers) == ["approved", "pending"]


def test_the_keys_can_be_switched_off_for_good_and_on_again(house: House, open_browser: Open) -> None:
    slug, numbers = _case_with("One", "Two")
    page = _desk(house, open_browser(), slug)
    page.get_by_text("Keys: j k a r s u x").click()
    expect(page.locator(".keys")).to_contain_text("approve, and go on to the next")
    page.get_by_role("button", name="Switch the keys off").click()
    expect(page.get_by_role("status")).to_have_text("The keys are off.")
    page.goto(f"{house.url}/moderation?case={slug}")
    _item(page, numbers[0]).focus()
    for key in "jasxu":
        page.keyboard.press(key)
    expect(_item(page, numbers[0])).to_be_focused()
    # The buttons work as before, and the focus goes on.
    _item(page, numbers[0]).get_by_role("button", name="Approve").click()
    expect(_item(page, numbers[1])).to_be_focused()
    eventually(lambda: _states(numbers) == ["approved", "pending"])
    page.get_by_text("Keys: off").click()
    page.get_by_role("button", name="Switch the keys on").click()
    expect(page.get_by_text("Keys: j k a r s u x")).to_be_visible()


def test_a_comment_is_reported_kept_undone_claimed_and_decided_with_another_in_every_way(
    house: House, page: "Page", way: str, open_browser: Open
) -> None:
    slug, (number, other) = _case_with("Published words", "Waiting words")
    moderator = a_user("moderator")
    begin_writing()
    db.session.get_one(Comment, number).approve(db.session.merge(moderator), now())
    keep()
    page.goto(f"{house.url}/cases/{slug}")
    page.get_by_role("link", name="Report the comment by Ben Field").click()
    page.get_by_role("button", name="Send the report").click()
    expect(page.locator(".errors")).to_contain_text("Choose what is wrong with it.")
    page.get_by_label("It has somebody's personal details").check()
    page.get_by_label("What should the moderator know?").fill("My street.")
    page.get_by_role("button", name="Send the report").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Thank you for the report")
    desk = _desk(house, open_browser(way), slug)
    expect(_item(desk, number)).to_contain_text("It has somebody's personal details: My street.")
    _item(desk, number).get_by_role("button", name="Keep").click()
    expect(desk.get_by_text("Approved: the comment by Ben Field is public.")).to_be_visible()
    page.goto(f"{house.url}/cases/{slug}")
    expect(page.locator("#comments")).to_contain_text("Published words")
    assert [what for _, what in _events([number])] == ["approved", "reported", "kept"]
    desk.get_by_role("button", name="Undo the decision about the comment by Ben Field").first.click()
    expect(_item(desk, number)).to_contain_text("It has somebody's personal details: My street.")
    _item(desk, other).get_by_role("button", name="Open and claim").click()
    expect(desk.get_by_role("heading", level=1)).to_have_text("A comment by Ben Field")
    desk.goto(f"{house.url}/moderation?case={slug}")
    for one in (number, other):
        _item(desk, one).get_by_role("checkbox").check()
    desk.get_by_text("Decide the selected comments together").click()
    desk.get_by_role("button", name="Approve the selected").click()
    expect(desk.get_by_role("status").first).to_have_text("Approved: 2 comments.")
    expect(desk).to_have_url(f"{house.url}/moderation?case={slug}")
    assert [what for _, what in _events([number])] == ["approved", "reported", "kept", "undone", "kept"]
    assert _states([number, other]) == ["approved", "approved"]
