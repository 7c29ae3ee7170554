"""A case owner in Chromium: begins a case, writes it, sees it as strangers would, and loses nothing."""

import datetime as dt
import re
from typing import TYPE_CHECKING

import pytest
import requests
from playwright.sync_api import expect

from models import Case, User, db
from tests.house import House, eventually
from tests.journey import writing
from tests.made import PASSWORD, a_draft, a_user, case_at, look_anew, now
from tests.test_pictures import a_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


PICTURE = a_file("PNG", (300, 200))


def log_in(house: House, page: "Page", email: str) -> None:
    page.goto(f"{house.url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def test_an_owner_writes_a_draft_and_sees_it_as_strangers_would(house: House, page: "Page", way: str) -> None:
    log_in(house, page, a_user("owner", name="Defend Digital Me").email)
    page.get_by_role("link", name="Begin a case").click()
    page.get_by_role("button", name="Begin the draft").click()
    expect(page).to_have_title(re.compile("^Error: "))
    slug = f"whose-data-{way.replace(' ', '-').lower()}"
    page.get_by_label("What is the case called?").fill(f"Whose data {way}?")
    page.get_by_role("button", name="Begin the draft").click()
    expect(page).to_have_url(f"{house.url}/owner/cases/{slug}/draft")

    page.get_by_label("The story").fill("## What is going on\n\nIt began **early**.\n\n<script>alert(1)</script>")
    page.get_by_label("Target, in pounds").fill("0")
    page.get_by_label("What for, line 1").fill("The claim")
    page.get_by_label("Cost, in pounds, line 1").fill("4,000")
    page.get_by_label("Length, in days").fill("30")
    page.get_by_role("button", name="Save draft").click()
    expect(page).to_have_title(re.compile("^Error: Draft"))
    expect(page.locator("main > :first-child")).to_be_focused()
    page.get_by_role("link", name="The target must be more than nothing and at most £1,000,000.").first.click()
    expect(page.get_by_label("Target, in pounds")).to_be_focused()
    expect(page.get_by_label("Cost, in pounds, line 1")).to_have_value("4,000")
    page.get_by_label("Target, in pounds").fill("6,000")
    page.get_by_role("button", name="Save, and add more lines").click()
    page.get_by_label("What for, line 5").fill("Counsel")
    page.get_by_label("Cost, in pounds, line 5").fill("2,000")
    page.get_by_role("button", name="Save, and see the page").click()

    expect(page.get_by_role("heading", level=1)).to_have_text(f"Whose data {way}?")
    expect(page.locator("#draft-banner")).to_contain_text("This is a draft.")
    expect(page.get_by_role("heading", name="What is going on")).to_be_visible()
    expect(page.locator(".story")).to_contain_text("<script>alert(1)</script>")
    expect(page.get_by_role("row", name="Counsel")).to_contain_text("£2,000")
    expect(page.locator(".promise").first).to_contain_text("only if pledges reach £6,000 by")
    answer = page.goto(f"{house.url}/cases/{slug}")
    assert answer is not None and answer.status == 404
    case = case_at(slug)
    assert (case.status, case.wanted_pence, case.wanted_days, case.budget_pence) == ("draft", 600_000, 30, 600_000)


def test_a_draft_keeps_itself_as_it_is_typed(house: House, open_browser: "Callable[..., Page]") -> None:
    case, page = a_draft(), open_browser()
    slug = case.slug
    log_in(house, page, case.owner.email)
    page.goto(f"{house.url}/owner/cases/{slug}/draft")
    page.get_by_label("The story").press_sequentially("Words ")
    expect(page.locator("#draft-saved")).to_have_text(re.compile(r"Saved at \d{1,2}:\d\d[ap]m"))
    eventually(lambda: "Words" in _case(slug).story, why="the story was not kept")
    expect(page.get_by_label("The story")).to_be_focused()
    page.get_by_label("Target, in pounds").fill("0")
    expect(page.locator("#draft-saved")).to_contain_text("The target must be more than nothing")
    page.get_by_label("Target, in pounds").fill("5,000")
    page.get_by_label("Cost, in pounds, line 1").fill("3,000")
    expect(page.locator("#budget-sum")).to_have_text("The lines add up to £5,000 of a target of £5,000.")
    # The versions that the page saved by itself are its own: the button is not refused.
    page.get_by_label("Summary").fill("In other words.")
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("status").first).to_have_text("The draft is saved.")
    assert (_case(slug).summary, _case(slug).wanted_pence) == ("In other words.", 500_000)


def test_what_was_saved_on_another_device_is_not_overwritten(house: House, page: "Page", way: str) -> None:
    case = a_draft()
    slug, email = case.slug, case.owner.email
    log_in(house, page, email)
    page.goto(f"{house.url}/owner/cases/{slug}/draft")
    other = page.context.new_page()
    other.goto(f"{house.url}/owner/cases/{slug}/draft")
    other.get_by_label("Summary").fill("Written on the telephone.")
    other.get_by_role("button", name="Save draft").click()
    expect(other.get_by_role("status").first).to_have_text("The draft is saved.")

    page.get_by_label("Summary").fill("Written at the desk.")
    if way == "with JavaScript":
        expect(page.locator("#draft-saved")).to_contain_text("This draft was saved elsewhere at")
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("alert")).to_contain_text("so nothing was overwritten. What you typed stands below.")
    expect(page.get_by_label("Summary")).to_have_value("Written at the desk.")
    assert _case(slug).summary == "Written on the telephone."
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_role("status").first).to_have_text("The draft is saved.")
    assert _case(slug).summary == "Written at the desk."


def _case(slug: str) -> Case:
    look_anew()
    return case_at(slug)


def test_a_case_goes_from_its_owner_to_staff_and_back_and_live(
    house: House, open_browser: "Callable[..., Page]", way: str
) -> None:
    case, staff = a_draft(court=""), a_user("staff", name="Sue Staff")
    slug, email = case.slug, case.owner.email
    owners, staffs = open_browser(way), open_browser(way)
    log_in(house, owners, email)
    log_in(house, staffs, staff.email)

    owners.goto(f"{house.url}/owner/cases/{slug}/launch")
    expect(owners.get_by_role("button", name="Send it for review")).to_have_count(0)
    owners.get_by_role("link", name="Enter the court or tribunal.").click()
    expect(owners).to_have_url(f"{house.url}/owner/cases/{slug}/draft#court")
    owners.get_by_label("Court or tribunal").fill("High Court")
    owners.get_by_role("button", name="Save, and go on to the picture").click()
    owners.get_by_label("Picture", exact=True).set_input_files(
        {"name": "weir.png", "mimeType": "image/png", "buffer": PICTURE}
    )
    owners.get_by_label("What the picture shows").fill("A weir.")
    owners.get_by_role("button", name="Save the picture").click()
    expect(owners.get_by_role("img", name="A weir.")).to_be_visible()
    owners.goto(f"{house.url}/owner/cases/{slug}/launch")
    lawyer = open_browser(way)
    lawyer.goto(house.url + str(owners.locator("a[href*='/drafts/']").get_attribute("href")))
    expect(lawyer.locator("#draft-banner")).to_contain_text("This is a draft.")
    expect(lawyer.get_by_role("img", name="A weir.")).to_be_visible()
    owners.get_by_role("button", name="Send it for review").click()
    expect(owners.get_by_role("status").first).to_contain_text("The case is with our staff.")
    expect(owners.get_by_label("Title")).to_have_count(0)

    staffs.goto(f"{house.url}/staff")
    staffs.get_by_role("region", name="Cases waiting for review").get_by_role("link", name="Whose data?").last.click()
    staffs.goto(f"{house.url}/staff/reviews/{slug}")
    staffs.get_by_role("button", name="Ask for changes").click()
    expect(staffs.get_by_role("alert")).to_contain_text("Enter a reason.")
    staffs.locator("#changes-reason").fill("Say what happens if you lose.")
    staffs.get_by_role("button", name="Ask for changes").click()
    expect(staffs.get_by_role("status").first).to_contain_text("Changes are asked for")
    letter = eventually(lambda: [words for words in house.letters(to=email) if "if you lose" in words])
    assert "Subject: Your case needs changes before it can go live" in letter[0]

    owners.goto(f"{house.url}/owner/cases/{slug}/draft")
    expect(owners.get_by_role("region", name="What our staff ask for")).to_contain_text("Say what happens if you lose.")
    owners.get_by_label("Risks").fill("If we lose we pay.")
    owners.get_by_role("button", name="Save, and see what is missing").click()
    owners.get_by_role("button", name="Send it for review").click()
    owners.get_by_role("button", name="Take it back").click()
    expect(owners.get_by_role("status").first).to_contain_text("The case is yours again.")
    owners.get_by_label("Risks").fill("If we lose we pay their costs.")
    owners.get_by_role("button", name="Save, and see what is missing").click()
    owners.get_by_role("button", name="Send it for review").click()

    staffs.goto(f"{house.url}/staff/reviews/{slug}")
    staffs.get_by_role("link", name="The page as it would look").click()
    expect(staffs.get_by_role("main")).to_contain_text("If we lose we pay their costs.")
    expect(staffs.get_by_role("img", name="A weir.")).to_be_visible()
    staffs.goto(f"{house.url}/staff/reviews/{slug}")
    staffs.get_by_role("button", name="Approve: live at once").click()
    expect(staffs.get_by_role("status").first).to_contain_text("The case is live")

    reader = open_browser(way)
    reader.goto(f"{house.url}/cases/{slug}")
    expect(reader.get_by_role("link", name="Pledge now").first).to_be_visible()
    expect(reader.get_by_role("img", name="A weir.")).to_be_visible()
    shown = requests.get(house.url + str(reader.locator(".story img").get_attribute("src")), timeout=30)
    assert (shown.status_code, shown.headers["Content-Type"]) == (200, "image/jpeg")
    assert (_case(slug).status, _case(slug).round.target_pence) == ("live", 600_000)


def test_a_case_that_was_approved_for_a_time_goes_live_by_the_clock(house: House) -> None:
    case, staff = a_draft(), a_user("staff")
    slug, email, number, staff_id = case.slug, case.owner.email, case.id, staff.id
    with writing():
        held, person = Case.hold(number), db.session.get_one(User, staff_id)
        held.submit(held.owner, now())
        held.approve(person, now(), held.review_mark, now() + dt.timedelta(seconds=2))
    assert requests.get(f"{house.url}/cases/{slug}", timeout=30).status_code == 404
    eventually(lambda: _case(slug).status == "live", why="the clock did not make it live")
    assert requests.get(f"{house.url}/cases/{slug}", timeout=30).status_code == 200
    # The letter that it is approved may have been overtaken by the one that it is live.
    eventually(lambda: [words for words in house.letters(to=email) if "Subject: Your case is live" in words])
