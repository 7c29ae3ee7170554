"""Updates, messages and answers in Chromium, with htmx, without JavaScript, and with the CDN blocked."""

import datetime as dt
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from models import Case, Comment, Round, Update, User, db
from tests.conftest import SCRIPTED
from tests.house import House, eventually
from tests.journey import writing
from tests.made import a_case, a_pledge, a_user, case_at, confirm, look_anew, now, pledges_of
from tests.test_browser_workshop import PICTURE, log_in

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def newest(slug: str) -> Update:
    look_anew()
    return case_at(slug).updates[0]


def test_an_update_for_supporters_is_written_set_for_a_time_published_by_the_clock_and_read(
    house: House, page: "Page", way: str, open_browser: Callable[..., "Page"]
) -> None:
    owner, reader = a_user("owner"), f"reader-{len(way)}@browser-updates.example.org"
    slug, email = a_case(owner=owner).slug, owner.email
    round_id = case_at(slug).round.id
    with writing():
        made = a_pledge(Round.hold(round_id), wants_updates=True, email=reader)
        link = confirm(made).link()
    log_in(house, page, email)
    page.goto(f"{house.url}/owner/cases/{slug}")
    page.get_by_role("link", name="Post an update").click()
    page.get_by_label("Title").press_sequentially("A ")
    page.wait_for_load_state()
    page.get_by_label("Title").press_sequentially("hearing is ")
    if way in SCRIPTED:
        expect(page.locator("#update-saved")).to_have_text(re.compile(r"Saved at \d{1,2}:\d\d[ap]m"))
        eventually(lambda: newest(slug).title == "A hearing is", why="the draft was not kept")
        expect(page.get_by_label("Title")).to_be_focused()
    page.get_by_label("Title").fill("A hearing is listed")
    page.get_by_role("button", name="Save, and look before it goes out").click()
    expect(page).to_have_title(re.compile("^Error: "))
    expect(page.get_by_label("Title")).to_have_value("A hearing is listed")
    page.get_by_label("Your update").fill("On **Monday**.\n\n<script>alert(1)</script>")
    page.get_by_label("Supporters only").check()
    page.get_by_role("button", name="Save, and go on to a picture").click()
    page.get_by_label("Picture", exact=True).set_input_files(
        {"name": "hall.png", "mimeType": "image/png", "buffer": PICTURE}
    )
    page.get_by_label("What the picture shows").fill("The old hall.")
    page.get_by_role("button", name="Save the picture").click()
    expect(page.get_by_role("img", name="The old hall.")).to_be_visible()
    number = newest(slug).id
    page.goto(f"{house.url}/owner/cases/{slug}/updates/{number}/look")
    expect(page.locator(".preview strong")).to_have_text("Monday")
    expect(page.get_by_role("main")).to_contain_text("A letter goes to 1 supporter who asked for updates.")
    expect(page.get_by_role("button", name="Publish and send to 1 supporter")).to_be_visible()
    page.get_by_label("Date").fill("2020-12-10")
    page.get_by_role("button", name="Publish at this time").click()
    expect(page.get_by_role("main")).to_contain_text("This time is in the past.")
    expect(page.get_by_label("Date")).to_have_value("2020-12-10")
    page.get_by_label("Date").fill(f"{now() + dt.timedelta(days=2):%Y-%m-%d}")
    page.get_by_role("button", name="Publish at this time").click()
    expect(page.get_by_role("status").first).to_contain_text("Your update is published by itself")
    expect(page.get_by_role("main")).to_contain_text("scheduled for")
    assert newest(slug).status == "scheduled"

    with writing():
        Update.hold(number).publish_at = now()
    eventually(lambda: newest(slug).status == "published", why="the clock did not publish it")
    anybody = open_browser(way)
    anybody.goto(f"{house.url}/cases/{slug}")
    expect(anybody.get_by_role("heading", name="An update for supporters")).to_be_visible()
    expect(anybody.locator("body")).not_to_contain_text("hearing")
    letter = eventually(lambda: [words for words in house.letters(to=reader) if "A hearing is listed" in words])
    assert len(letter) == 1 and f"/pledges/{link}/updates#update-{number}" in letter[0]
    anybody.goto(f"{house.url}/pledges/{link}")
    anybody.get_by_role("link", name="Read the updates").click()
    expect(anybody.get_by_role("article")).to_contain_text("On Monday.")
    expect(anybody.get_by_role("img", name="The old hall.")).to_be_visible()


def test_a_message_becomes_a_comment_is_answered_and_looked_at_again(
    house: House, page: "Page", way: str, open_browser: Callable[..., "Page"]
) -> None:
    owner, moderator = a_user("owner", name="Defend Digital Me"), a_user("moderator")
    slug, email, moderators, moderator_id = a_case(owner=owner).slug, owner.email, moderator.email, moderator.id
    words = f"What of the pupils, {way}?"
    supporter = open_browser(way)
    supporter.goto(f"{house.url}/cases/{slug}/pledge")
    supporter.get_by_label("£25", exact=True).check()
    supporter.get_by_label("Your name").fill("Ada Winter")
    supporter.get_by_label("With my name", exact=True).check()
    supporter.get_by_label("A message, if you like").fill(words)
    supporter.get_by_label("Show my message on the case page too").check()
    supporter.get_by_label("I allow Standing").check()
    supporter.get_by_role("button", name="Continue to Stripe").click()
    expect(supporter).to_have_title(re.compile("^Error: "))
    expect(supporter.get_by_label("A message, if you like")).to_have_value(words)
    expect(supporter.get_by_label("Show my message on the case page too")).to_be_checked()
    supporter.get_by_label("Your e-mail address").fill(f"ada-{len(way)}@browser-messages.example.org")
    supporter.get_by_role("button", name="Continue to Stripe").click()
    expect(supporter.get_by_role("heading", level=1)).to_have_text("Save your card")
    assert _comments(slug) == []
    supporter.get_by_label("Card number").fill("4242 4242 4242 4242")
    supporter.get_by_role("button", name="Save this card").click()
    expect(supporter.get_by_role("main")).to_contain_text("Your pledge of £25 counts")
    assert [(c.body, c.status) for c in _comments(slug)] == [(words, "pending")]

    log_in(house, page, email)
    page.goto(f"{house.url}/owner/cases/{slug}")
    page.get_by_role("link", name="Messages that came with pledges").click()
    expect(page.get_by_role("listitem").filter(has_text="Ada Winter")).to_contain_text(words)
    with writing():
        held = Comment.hold(_comments_now(slug)[0].id)
        assert held
        held.approve(db.session.get_one(User, moderator_id), now())

    page.goto(f"{house.url}/owner/cases/{slug}/comments")
    page.get_by_text("Answer the comment by Ada Winter").click()
    page.get_by_role("button", name="Publish the answer").click()
    expect(page.get_by_role("main")).to_contain_text("Enter your answer.")
    page.get_by_label("Your answer, public at once").fill("They are asked in May.")
    page.get_by_role("button", name="Publish the answer").click()
    expect(page.get_by_role("status").first).to_have_text("Your answer is public.")
    expect(page.locator(".answer")).to_contain_text("They are asked in May.")
    page.get_by_text("Ask the moderators to look again at the comment").click()
    page.get_by_label("What should the moderators know?").fill("It names a pupil.")
    page.get_by_role("button", name="Ask them").click()
    expect(page.get_by_role("status").first).to_contain_text("The moderators look at it again.")

    supporter.goto(f"{house.url}/cases/{slug}")
    expect(supporter.locator("#comments .answer")).to_contain_text("Case owner, Defend Digital Me")
    expect(supporter.locator("#comments")).not_to_contain_text("It names a pupil.")
    desk = open_browser(way)
    log_in(house, desk, moderators)
    desk.goto(f"{house.url}/moderation?case={slug}&flagged=reported")
    expect(desk.locator(".item")).to_contain_text("The case owner asks you to look again: It names a pupil.")
    expect(desk.locator(".item")).to_contain_text("They are asked in May.")
    assert (pledges_of(slug)[0].message_for, _comments(slug)[0].status) == ("everyone", "approved")


def _comments(slug: str) -> list[Comment]:
    look_anew()
    return _comments_now(slug)


def _comments_now(slug: str) -> list[Comment]:
    found = sa.select(Comment).join(Case, Case.id == Comment.case_id).where(Case.slug == slug)
    return list(db.session.scalars(found.order_by(Comment.id)))
