"""A changed promise and a final report in Chromium: the owner asks, staff agree, one supporter leaves; and the end."""

import datetime as dt
import re
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from models import Letter, Round, db
from tests.house import House, eventually
from tests.journey import a_real_pledge, states, the_deadline_comes, writing
from tests.made import PASSWORD, a_case, a_user, case_at, look_anew, now, pledges_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_promise_is_changed_one_supporter_leaves_and_the_other_stays_until_the_case_is_cancelled(
    house: House, page: "Page", way: str
) -> None:
    owner, staff = a_user("owner"), a_user("staff").email
    owner_email = owner.email
    title = f"A case whose promise changes, {way}"
    slug = a_case(target=600_000, title=title, owner=owner).slug
    emails = {pounds: f"of-{pounds}-{len(way)}@browser-promise.example.org" for pounds in (25, 40)}
    for pounds, email in emails.items():
        a_real_pledge(house, slug, pounds, email=email)
    _log_in(house, page, owner_email)
    page.get_by_role("link", name=title).click()
    page.get_by_role("link", name="Change the deadline or the target").click()
    deadline = case_at(slug).round.deadline
    page.get_by_label("Target, in pounds").fill("50")
    page.get_by_label("New deadline: date").fill(f"{deadline + dt.timedelta(days=31):%Y-%m-%d}")
    page.get_by_role("button", name="Ask our staff").click()
    expect(page.get_by_role("alert")).to_contain_text("Say why the promise should change.")
    expect(page.get_by_label("Target, in pounds")).to_have_value("50")
    page.get_by_label("Why the promise should change").fill("The court has lowered its fee.")
    page.get_by_role("button", name="Ask our staff").click()
    expect(page.locator("#date-error")).to_contain_text("The deadline can come at most 30 days later.")
    page.get_by_label("New deadline: date").fill(f"{deadline + dt.timedelta(days=10):%Y-%m-%d}")
    page.get_by_role("button", name="Ask our staff").click()
    expect(page.get_by_role("status").first).to_contain_text("Our staff have your request.")
    assert case_at(slug).round.target_pence == 600_000
    page.get_by_role("button", name="Log out").click()

    _log_in(house, page, staff)
    page.locator("p.warn").filter(has_text=title).get_by_role("link").click()
    page.get_by_role("button", name="Agree: change the promise").click()
    expect(page.get_by_role("status").first).to_contain_text("The promise is changed")
    its_round = case_at(slug).round
    assert (its_round.target_pence, (its_round.deadline - deadline).days in (9, 10)) == (5_000, True)
    page.get_by_role("button", name="Log out").click()

    leaves, stays = pledges_of(slug)
    for pledge in (leaves, stays):
        assert eventually(lambda pledge=pledge: _told(f"pledge:{pledge.id}"))  # type: ignore[misc]
    page.goto(f"{house.url}/pledges/{leaves.link('leave')}/departure")
    expect(page.locator("main")).to_contain_text("£50, before: £6,000")
    assert states(slug) == ["confirmed", "confirmed"]
    page.get_by_role("button", name="Cancel my pledge of £25").click()
    expect(page.get_by_role("heading", name="Your pledge is cancelled")).to_be_visible()
    assert states(slug) == ["cancelled", "confirmed"]
    page.goto(f"{house.url}/cases/{slug}")
    expect(page.locator("#pledge-total")).to_contain_text("£40 pledged of £50 target")
    expect(page.locator("#pledge-total")).to_contain_text("The court has lowered its fee.")

    # And in the end its owner calls the case off: who has stayed is let go, and told why.
    _log_in(house, page, owner_email)
    page.get_by_role("link", name=title).click()
    page.get_by_role("link", name="Cancel the case").click()
    page.get_by_label("Reason").fill("The other side has given in.")
    page.get_by_role("button", name="Cancel the case").click()
    expect(page).to_have_title(re.compile("^Error: "))
    expect(page.get_by_label("Reason")).to_have_value("The other side has given in.")
    page.get_by_label("Type the word cancel").fill("cancel")
    page.get_by_role("button", name="Cancel the case").click()
    expect(page.get_by_role("status").first).to_contain_text("The case is cancelled: nobody is charged")
    assert states(slug) == ["cancelled", "released"]
    page.goto(f"{house.url}/cases/{slug}")
    expect(page.locator("#pledge-total")).to_contain_text("The other side has given in.")
    assert eventually(lambda: [one for one in house.letters(to=emails[40]) if "has given in" in one])


def test_once_the_money_is_in_a_final_report_closes_the_case(house: House, page: "Page", way: str) -> None:
    owner, title = a_user("owner"), f"A case that ends, {way}"
    email = owner.email
    slug = a_case(target=2_500, title=title, owner=owner).slug
    a_real_pledge(house, slug, 25)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    _log_in(house, page, email)
    # The clock reminds its owner, who has said nothing for more than 15 days.
    number = case_at(slug).round.id
    with writing():
        Round.hold(number).settled_at = now() - dt.timedelta(days=15, seconds=1)
    subject = f"Subject: Your supporters have heard nothing for 15 days: {title}"
    assert eventually(lambda: [letter for letter in house.letters(to=email) if subject in letter])
    page.get_by_role("link", name=title).click()
    expect(page.get_by_role("region", name="What came in")).to_contain_text(re.compile(r"Charged\s*£25"))
    page.get_by_role("link", name="write the final report").click()
    page.get_by_label("What became of the case").fill("We **won**.")
    page.get_by_label("What for, line 1").fill("The claim")
    page.get_by_label("Cost, in pounds, line 1").fill("24.50")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_role("region", name="Preview, not published")).to_contain_text("Total")
    page.get_by_role("button", name="Publish the report").click()
    expect(page.get_by_role("region", name="Final report")).to_contain_text("We won.")
    expect(page.get_by_role("region", name="Final report")).to_contain_text("£24.50")
    assert case_at(slug).status == "closed"


def _told(subject: str) -> bool:
    """Whether the letter about the change has gone out."""
    look_anew()
    told = sa.select(Letter).where(Letter.kind == "promise_changed", Letter.subject == subject)
    letter = db.session.scalar(told)
    return letter is not None and letter.sent_at is not None


def _log_in(house: House, page: "Page", email: str) -> None:
    page.goto(f"{house.url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
