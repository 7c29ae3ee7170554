"""A case owner in Chromium follows a live case: a supporter comes by a label, the figures move, a pledge is found."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.conftest import SCRIPTED
from tests.house import House
from tests.made import PASSWORD, a_case, a_user
from tests.reader import Reader

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_an_owner_sees_a_pledge_come_by_a_label_finds_it_and_takes_the_list_along(
    house: House, page: "Page", way: str, reader: Reader
) -> None:
    owner, scripted = a_user("owner"), way in SCRIPTED
    slug = a_case(owner=owner, target=600_000, pledged=[9_500]).slug
    if scripted:
        page.clock.install()
    page.goto(f"{house.url}/login")
    page.get_by_label("E-mail address").fill(owner.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="A case about data").click()
    figures = page.locator("#dashboard")
    expect(figures.locator(".total")).to_have_text("£95 pledged of £6,000 target from 1 pledge")
    expect(figures.get_by_role("img", name=re.compile("^What was pledged in all"))).to_be_visible()
    page.get_by_text("The chart as a table").click()
    page.wait_for_load_state()
    table = page.locator("#days")
    expect(table.get_by_role("row").nth(1)).to_contain_text("£95")

    # The label stands in the address of the case page alone; the form hears of it from the browser.
    reader.open(f"/cases/{slug}?via=poster")
    reader.browser.follow_link(reader.page.select_one("#pledge-now"))
    reader.press(
        "Continue to Stripe", amount="25", name="Canary Reader", email="canary-reader@dashboard.example", agreed=True,
        shown_as="hidden",
    ).save_card()  # fmt: skip
    if scripted:
        page.clock.run_for(20_500)
    else:
        figures.get_by_role("link", name="Refresh").click()
        page.get_by_text("The chart as a table").click()
    expect(figures.locator(".total")).to_have_text("£120 pledged of £6,000 target from 2 pledges")
    poster = figures.get_by_role("row", name=re.compile("your link “poster”"))
    expect(poster.get_by_role("cell")).to_have_text(["your link “poster”", "0", "1", "1"])
    # With htmx the table has stayed open while the figures moved.
    expect(table.get_by_role("row").nth(1)).to_contain_text("£120")

    page.goto(f"{house.url}/owner/cases/{slug}")
    page.get_by_role("link", name="Search the pledges").click()
    page.get_by_label("Name").fill("winter")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".rows tbody tr")).to_have_count(1)
    expect(page.get_by_role("row", name="Ada Winter")).to_contain_text("£95")
    page.get_by_label("Name").fill("Canary")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("No pledge shows a name like “Canary”.")).to_be_visible()
    with page.expect_download() as begun:
        page.get_by_role("link", name="As a file for a spreadsheet (CSV)").click()
    assert begun.value.suggested_filename == f"{slug}-pledges.csv"
    lines = Path(begun.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert [line.partition(",")[2] for line in lines] == [
        'Name,"Pledged, in pounds"', "Ada Winter,95.00", "Anonymous,25.00",
    ]  # fmt: skip
