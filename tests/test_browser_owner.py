"""A case owner in Chromium: logs in, posts an update after a look at it, mends it; and sees only cases of their own."""

import re
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from models import Case, Letter, Update, User, begin_writing, db
from tests.house import House, eventually
from tests.made import PASSWORD, a_case, a_pledge, a_user, case_at, confirm, keep

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
WORDS = "## When\n\nOn **Monday**, at [the court](https://example.org/court).\n\n<script>alert(1)</script>"


def test_an_owner_looks_at_an_update_publishes_it_and_mends_it(house: House, page: "Page", way: str) -> None:
    owner, reader = a_user("owner", name="Defend Digital Me"), f"reader-{len(way)}@example.org"
    slug = _a_case_with_a_reader(owner, reader)
    _log_in(house, page, owner.email)
    expect(page).to_have_url(f"{house.url}/owner")
    page.get_by_role("link", name="A case about data").click()
    expect(page.get_by_role("row", name="Ada Winter")).to_contain_text("£95")
    expect(page.get_by_role("row", name="Anonymous")).to_contain_text("£25")
    for kept in ("Rae Reader", reader):
        expect(page.locator("body")).not_to_contain_text(kept)

    page.get_by_role("link", name="Post an update").click()
    page.get_by_label("Title").fill("A hearing is listed")
    page.get_by_label("Your update").fill(WORDS)
    page.get_by_role("button", name="Save, and look before it goes out").click()
    preview = page.get_by_role("region", name="Preview, not published")
    expect(preview.get_by_role("heading", name="A hearing is listed")).to_be_visible()
    expect(preview.get_by_role("heading", name="When")).to_be_visible()
    expect(preview.get_by_role("link", name="the court")).to_have_attribute("href", "https://example.org/court")
    expect(preview).to_contain_text("<script>alert(1)</script>")
    assert _updates(slug) == [("A hearing is listed", WORDS, "draft", False)]
    assert _letters_about_updates(slug) == 0

    page.get_by_role("button", name="Publish and send to 1 supporter").click()
    expect(page.get_by_role("status").first).to_have_text("Your update is published.")
    expect(page).to_have_url(re.compile(f"/cases/{slug}#update-"))
    # Chromium goes to a place in a page once all of its scripts are there: a late htmx comes with the first key.
    page.keyboard.press("Shift")
    shown = page.get_by_role("region", name="Updates")
    expect(shown.get_by_role("heading", name="A hearing is listed")).to_be_in_viewport()
    expect(shown).not_to_contain_text("edited")
    letter = next(text for text in eventually(lambda: _sent(house, reader)) if "A hearing is listed" in text)
    assert "/unsubscription" in letter

    page.goto(f"{house.url}/owner/cases/{slug}")
    page.get_by_role("link", name="A hearing is listed").click()
    page.get_by_label("Your update").fill("On **Tuesday**.")
    page.get_by_role("button", name="Publish the changes").click()
    expect(page.get_by_role("status").first).to_have_text("Your changes are published.")
    expect(shown).to_contain_text("On Tuesday.")
    expect(shown).to_contain_text("edited")
    assert _updates(slug) == [("A hearing is listed", "On **Tuesday**.", "published", True)]
    assert _letters_about_updates(slug) == 1

    page.goto(str(re.findall(r"^https?://\S+/unsubscription$", letter, re.MULTILINE)[-1]))
    page.get_by_role("button", name="Stop the updates").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("no more updates")
    assert case_at(slug).update_readers() == []


def test_an_update_without_words_is_not_published_keeps_its_title_and_can_be_deleted(
    house: House, page: "Page"
) -> None:
    owner = a_user("owner")
    slug = a_case(owner=owner).slug
    _log_in(house, page, owner.email)
    page.goto(f"{house.url}/owner/cases/{slug}/updates/new")
    page.get_by_label("Title").fill("A hearing is listed")
    page.get_by_role("button", name="Save, and look before it goes out").click()
    expect(page).to_have_title(re.compile("^Error: "))
    expect(page.locator("main > :first-child")).to_be_focused()
    page.get_by_role("link", name="Enter the text of your update.").click()
    expect(page.get_by_label("Your update")).to_be_focused()
    expect(page.get_by_label("Title")).to_have_value("A hearing is listed")
    assert _updates(slug) == [("A hearing is listed", "", "draft", False)]
    page.get_by_role("link", name="Delete this draft").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Delete this draft?")
    page.get_by_role("link", name="Keep it").click()
    expect(page.get_by_label("Title")).to_have_value("A hearing is listed")
    page.get_by_role("link", name="Delete this draft").click()
    page.get_by_role("button", name="Delete the draft").click()
    expect(page.get_by_role("status").first).to_have_text("The draft is deleted.")
    assert _updates(slug) == []


def test_a_wrong_password_lets_nobody_in_and_keeps_the_address(house: House, page: "Page") -> None:
    owner = a_user("owner").email
    _log_in(house, page, owner, "not the password")
    expect(page).to_have_title(re.compile("^Error: "))
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_role("alert")).to_contain_text("The e-mail address or the password is not right.")
    expect(page.get_by_label("E-mail address")).to_have_value(owner)
    expect(page.get_by_label("Password")).to_have_value("")
    page.goto(f"{house.url}/owner")
    expect(page).to_have_url(f"{house.url}/login?next=/owner")


def test_the_case_of_another_owner_is_not_there(house: House, page: "Page") -> None:
    slug = a_case().slug
    _log_in(house, page, a_user("owner").email)
    for address in (f"/owner/cases/{slug}", f"/owner/cases/{slug}/updates/new"):
        answer = page.goto(house.url + address)
        assert answer is not None
        assert answer.status == 404
        expect(page.get_by_role("heading", level=1)).to_have_text("There is no such page")
        expect(page.locator("body")).not_to_contain_text("A case about data")


def _log_in(house: House, page: "Page", email: str, password: str = PASSWORD) -> None:
    page.goto(f"{house.url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def _a_case_with_a_reader(owner: User, reader: str) -> str:
    """A case with a pledge of £95, and one of £25 by somebody who stays anonymous and asked for updates."""
    case = a_case(owner=owner, pledged=[9_500])
    slug, number = case.slug, case.id
    begin_writing()
    its_round = db.session.get_one(Case, number).round
    confirm(a_pledge(its_round, 2_500, name="Rae Reader", email=reader, shown_as="hidden", wants_updates=True))
    keep()
    return slug


def _updates(slug: str) -> list[tuple[str, str, str, bool]]:
    """Title, words, state and whether it was edited."""
    found = sa.select(Update).where(Update.case_id == case_at(slug).id)
    return [(u.title, u.body, u.status, u.edited_at is not None) for u in db.session.scalars(found)]


def _letters_about_updates(slug: str) -> int:
    readers = [f"pledge:{pledge.id}" for pledge in case_at(slug).update_readers()]
    found = sa.select(sa.func.count()).where(Letter.kind == "update", Letter.subject.in_(readers))
    return db.session.scalar(found) or 0


def _sent(house: House, reader: str) -> list[str]:
    return [text for text in house.letters(to=reader) if "/unsubscription" in text]
