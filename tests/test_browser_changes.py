"""A supporter changes a pledge in Chromium: one walk over everything that the private page offers."""

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.house import House, eventually
from tests.journey import a_real_pledge, body
from tests.made import a_case, case_at, pledges_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_supporter_changes_everything_about_a_pledge_and_finds_it_again(house: House, page: "Page", way: str) -> None:
    slug = a_case(target=600_000, pledged=[9_500]).slug
    who = slug.removeprefix("case-")
    right = f"ada-{who}@right.example"
    pledge = a_real_pledge(house, slug, 25, email=f"ada-{who}@wrong.example")
    page.goto(f"{house.url}/pledges/{pledge.link()}")

    # Less: agreed to on our own page, and so in the total.
    _amount(page, "12.50")
    page.get_by_label("I allow Standing Test to charge my card £12.50 once").check()
    page.get_by_role("button", name="Change it to £12.50").click()
    expect(page.get_by_role("status")).to_contain_text("Your pledge of £12.50 counts.")
    # More: on Stripe's page.
    _amount(page, "40")
    page.get_by_label("I allow Standing Test to charge my card £40 once").check()
    page.get_by_role("button", name="Continue to Stripe").click()
    expect(page.locator(".agreement")).to_contain_text("to charge my card £40 once")
    page.get_by_label("Card number").fill("4000 0000 0000 0341")
    page.get_by_role("button", name="Save this card").click()
    expect(page.get_by_role("status")).to_contain_text("Your pledge of £40 counts.")

    page.get_by_role("link", name="Change how you are shown").click()
    page.get_by_label("Your name").fill("Ada Frost")
    page.get_by_label("As “Anonymous”, to the case owner too").check()
    page.get_by_role("button", name="Save").click()
    expect(page.locator(".facts")).to_contain_text("Anonymous")
    page.get_by_role("button", name="Send them to me").click()
    expect(page.get_by_role("button", name="Stop them")).to_be_visible()
    if way == "with JavaScript":
        expect(page.locator("#pledge-state")).to_be_focused()
        expect(page.get_by_role("status")).to_contain_text("You get updates about this case.")

    page.get_by_role("link", name="Change the e-mail address").click()
    page.get_by_label("Your e-mail address").fill(right)
    page.get_by_role("button", name="Send the letter").click()
    expect(page.locator("#pledge-state")).to_contain_text(f"We have written to {right}.")
    page.goto(_link_in(house, right, "Use this e-mail address for your pledge?"))
    page.get_by_role("button", name="Use this address").click()
    expect(page.locator(".facts")).to_contain_text(right)

    second = page.url
    page.get_by_role("button", name="Replace this link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your link is replaced")
    newest = _link_in(house, right, "The new link of your pledge", besides=second)
    page.goto(second)
    expect(page.get_by_role("heading", level=1)).to_have_text("This link does not work")
    page.get_by_role("link", name="Have your links sent to you").click()
    page.get_by_label("Your e-mail address").fill(right.upper())
    page.get_by_role("button", name="Send me my links").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Check your e-mail")
    assert _link_in(house, right, "The links of your pledges") == newest
    page.goto(newest)
    expect(page.get_by_role("status")).to_contain_text("Thank you, Ada Frost. Your pledge of £40 counts.")

    mine = pledges_of(slug)[-1]
    assert (mine.status, mine.amount_pence, mine.name, mine.email) == ("confirmed", 4_000, "Ada Frost", right)
    assert (mine.shown_as, mine.wants_updates, mine.card_words) == ("hidden", True, "Visa ending 0341")
    assert (case_at(slug).round.pledged_pence, case_at(slug).round.pledge_count) == (13_500, 2)


def _amount(page: "Page", pounds: str) -> None:
    page.get_by_role("link", name="Change the amount").click()
    page.get_by_label("Your pledge, in pounds").fill(pounds)
    page.get_by_role("button", name="Continue").click()


def _link_in(house: House, to: str, subject: str, besides: str = "") -> str:
    """The link to our site in the letter of this subject, once it has come; not the one that is known already."""

    def links() -> set[str]:
        found = [body(letter) for letter in house.letters(to=to) if f"Subject: {subject}\n" in letter]
        there = re.escape(house.url) + r"/pledges/\S+"
        return {link for words in found for link in re.findall(there, words)[:1]} - {besides}

    (link,) = eventually(links, why=f"no letter {subject!r} to {to}")
    return link
