"""A case owner in Chromium: begins a case, writes it, sees it as strangers would, and loses nothing."""

import datetime as dt
import re
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
import requests
from playwright.sync_api import expect

import law
from models import Case, User
from tests.house import House, eventually
from tests.journey import told, writing
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
    looks = page.get_by_role("region", name="How it looks so far")
    page.get_by_label("The story").press_sequentially("Words in **bold** ")
    expect(page.locator("#draft-saved")).to_have_text(re.compile(r"Saved at \d{1,2}:\d\d[ap]m"))
    eventually(lambda: "Words" in _case(slug).story, why="the story was not kept")
    expect(looks.locator("strong")).to_have_text("bold")
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


def test_one_case_is_rejected_and_another_approved_for_a_time_at_which_the_clock_makes_it_live(
    house: House, page: "Page", way: str, open_browser: "Callable[..., Page]"
) -> None:
    staff, owner = a_user("staff"), a_user("owner")
    email, who = owner.email, f"user:{staff.id}"
    titles = {name: f"A case to be {name}, {way}" for name in ("rejected", "approved")}
    rejected, approved = (_submitted(owner, title) for title in titles.values())
    owners = open_browser(way)
    log_in(house, owners, email)
    log_in(house, page, staff.email)
    waiting = page.get_by_role("region", name="Cases waiting for review")

    waiting.get_by_role("link", name=titles["rejected"]).click()
    page.get_by_role("button", name="Reject the case").click()
    expect(page).to_have_title(re.compile("^Error: Review"))
    expect(page.get_by_role("alert")).to_be_focused()
    page.get_by_role("alert").get_by_role("link", name="Enter a reason.").click()
    expect(page.locator("#rejection-reason")).to_be_focused()
    assert (_case(rejected).status, _decided(rejected)) == ("submitted", [])
    page.keyboard.type("No court can decide this.")
    page.get_by_role("button", name="Reject the case").click()
    expect(page.get_by_role("status").first).to_contain_text("The case is rejected")
    expect(waiting.get_by_role("link", name=titles["rejected"])).to_have_count(0)

    waiting.get_by_role("link", name=titles["approved"]).click()
    page.get_by_label("Date").fill("2020-12-10")
    page.get_by_role("button", name="Approve for this time").click()
    expect(page.get_by_role("alert")).to_contain_text("The time must lie ahead, by at most")
    expect(page.get_by_label("Date")).to_have_value("2020-12-10")
    assert _case(approved).status == "submitted"
    day = now() + dt.timedelta(days=3)
    page.get_by_label("Date").fill(f"{day:%Y-%m-%d}")
    page.get_by_label("Time").fill("14:30")
    page.get_by_role("button", name="Approve for this time").click()
    expect(page.get_by_role("status").first).to_contain_text("The case is approved: it goes live by itself")
    starts = dt.datetime(day.year, day.month, day.day, 14, 30, tzinfo=ZoneInfo("Europe/London"))
    assert (_case(approved).status, _case(approved).live_from) == ("approved", starts)
    # Nobody else sees the one, or the other before its time.
    assert [requests.get(f"{house.url}/cases/{slug}", timeout=30).status_code for slug in (rejected, approved)] == [
        404, 404,
    ]  # fmt: skip

    owners.goto(f"{house.url}/owner/cases/{rejected}/draft")
    expect(owners.get_by_role("region", name="Why it was rejected")).to_contain_text("No court can decide this.")
    expect(owners.get_by_label("Title")).to_have_count(0)
    owners.goto(f"{house.url}/owner/cases/{approved}/draft")
    expect(owners.get_by_role("main")).to_contain_text(f"Approved: goes live {starts:%A} {starts.day} {starts:%B %Y}")
    told(house, email, "Your case was not accepted", "Your case is approved")
    number = _case(approved).id
    with writing():
        Case.hold(number).live_from = now()
    eventually(lambda: _case(approved).status == "live", why="the clock did not make it live")
    told(house, email, "Your case was not accepted", "Your case is approved", "Your case is live")
    page.goto(f"{house.url}/cases/{approved}")
    expect(page.get_by_role("link", name="Pledge now").first).to_be_visible()
    assert _decided(rejected) == [(who, "rejected", "No court can decide this.")]
    assert _decided(approved) == [("clock", "live", ""), (who, "approved", law.instant_words(starts, "Europe/London"))]


def _submitted(owner: User, title: str) -> str:
    """The address of a case of this owner that waits for review."""
    number = a_draft(owner, title=title).id
    with writing():
        held = Case.hold(number)
        held.submit(held.owner, now())
        return held.slug


def _decided(slug: str) -> list[tuple[str, str | None, str]]:
    """(who, what it became, why) of all that was decided about a case that was sent, newest first."""
    return [(one.who, one.after, one.note) for one in _case(slug).history() if one.before in ("submitted", "approved")]
