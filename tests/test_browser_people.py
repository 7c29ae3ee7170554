"""Several people in Chromium: an owner asks somebody to help, who writes an update; staff put a notice in the place of
the case and close its comments, and readers see just that."""

import re
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from models import Event, db
from tests.house import House
from tests.made import a_case, a_user, case_at, look_anew
from tests.test_browser_accounts import link_to, log_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_an_owner_asks_somebody_to_help_who_works_on_the_case_and_leaves_it(
    house: House, page: "Page", way: str, open_browser: "Callable[..., Page]"
) -> None:
    owner, editor = a_user("owner", name="River Watch"), a_user("owner", name="Helping Hand")
    title = f"A case of several people, {way}"
    slug, email = a_case(title=title, owner=owner).slug, editor.email
    log_in(house, page, owner.email)
    page.get_by_role("link", name=title).click()
    page.get_by_role("link", name="Who works on it").click()
    page.get_by_label("E-mail address").fill("nobody")
    page.get_by_role("button", name="Send the invitation").click()
    expect(page).to_have_title(re.compile("^Error: "))
    expect(page.get_by_label("E-mail address")).to_have_value("nobody")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("button", name="Send the invitation").click()
    expect(page.get_by_role("status")).to_have_text(f"We have written to {email}.")

    theirs = open_browser(way)
    log_in(house, theirs, email)
    theirs.goto(link_to(house, email, "invitations"))
    theirs.get_by_role("button", name="Work on this case").click()
    expect(theirs).to_have_url(f"{house.url}/owner/cases/{slug}")
    expect(theirs.get_by_role("link", name="Post an update")).to_be_visible()
    expect(theirs.get_by_role("link", name="Cancel the case")).to_have_count(0)

    page.reload()
    expect(page.get_by_text("Helping Hand, since")).to_be_visible()
    page.get_by_role("link", name="Who did what").click()
    expect(page.get_by_role("row", name="Helping Hand").first).to_contain_text("editor joined")
    theirs.get_by_role("link", name="Who works on it").click()
    theirs.get_by_role("button", name="Leave this case").click()
    expect(theirs).to_have_url(f"{house.url}/owner")
    expect(theirs.get_by_role("link", name=title)).to_have_count(0)
    assert set(written(slug)) == {"editor_joined", "accepted", "editor_left"}


def test_staff_put_a_notice_in_the_place_of_a_case_and_close_its_comments(
    house: House, page: "Page", way: str, open_browser: "Callable[..., Page]"
) -> None:
    title, staff = f"A case out of sight, {way}", a_user("staff")
    slug = a_case(title=title).slug
    log_in(house, page, staff.email)
    page.get_by_role("link", name="Search for a case or a pledge").click()
    page.get_by_label("Title or owner of a case").fill(title)
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=title).click()

    def press(where: str, button: str, **typed: str) -> None:
        form = page.locator(f"form[action$='/{where}']")
        for label, words in typed.items():
            form.get_by_label(label.replace("_", " ")).fill(words)
        form.get_by_role("button", name=button).click()

    reader = open_browser(way)
    press("comments-lock", "Close comments", Reason="The trial begins.")
    expect(page.get_by_role("status")).to_have_text("Comments are closed.")
    reader.goto(f"{house.url}/cases/{slug}")
    expect(reader.get_by_text("Comments on this case are closed.")).to_be_visible()
    expect(reader.get_by_role("button", name="Send comment")).to_have_count(0)

    press("notice", "Put the notice in its place", The_notice="A court has asked us.")
    expect(page).to_have_title(re.compile("^Error: "))
    expect(page.get_by_label("The notice, for everybody to read")).to_have_value("A court has asked us.")
    press("notice", "Put the notice in its place", Reason="An order of the court.")
    expect(page.get_by_role("status")).to_have_text("The notice stands in place of the case.")
    reader.reload()
    expect(reader.get_by_text("A court has asked us.")).to_be_visible()
    expect(reader.get_by_text(title)).to_have_count(0)

    page.reload()
    press("showing", "Show the case again", Reason="The order was lifted.")
    expect(page.get_by_role("status")).to_have_text("Everybody can see the case again.")
    reader.reload()
    expect(reader.get_by_role("heading", level=1)).to_have_text(title)
    page.reload()
    expect(page.get_by_role("region", name="History")).to_contain_text("The order was lifted.")
    assert written(slug) == ["comments_locked", "shown_as_notice", "shown_as_public"]


def written(slug: str) -> list[str]:
    """What was written last into the history of a case."""
    look_anew()
    found = db.session.scalars(sa.select(Event.what).where(Event.case_id == case_at(slug).id).order_by(Event.id))
    return list(found)[-3:]
