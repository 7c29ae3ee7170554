"""A supporter's walk in Chromium, from the list of cases to the private page and back out of the pledge.

Each walk has one body and is taken with JavaScript, without it, with the CDN blocked and with htmx loaded late; the
rows at its end are the same. The policy of our pages must let Chromium follow the redirect to the card page.
"""

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.conftest import SCRIPTED
from tests.house import House, eventually
from tests.made import a_case, case_at, pledges_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_supporter_pledges_sees_the_total_move_and_takes_it_back(house: House, page: "Page", way: str) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    slug = case.slug
    page.goto(house.url)
    page.locator(f'a[href="/cases/{slug}"]').click()
    expect(page.get_by_role("heading", level=1)).to_have_text("A case about data")
    expect(page.locator(".total")).to_have_text("£95 pledged of £6,000 target from 1 pledge")

    page.get_by_role("link", name="Pledge now").first.click()
    page.get_by_label("£25", exact=True).check()
    _fill_in(page)
    page.get_by_role("button", name="Continue to Stripe").click()
    expect(page).to_have_url(re.compile(re.escape(house.stripe) + "/c/pay/"))
    expect(page.locator(".agreement")).to_contain_text("to charge my card £25 once")
    _save_card(page, "4242 4242 4242 4242")

    expect(page.get_by_role("status")).to_contain_text("Thank you, Ada Winter. Your pledge of £25 counts.")
    private_page = page.url
    page.goto(f"{house.url}/cases/{slug}")
    expect(page.locator(".total")).to_have_text("£120 pledged of £6,000 target from 2 pledges")

    page.goto(private_page)
    page.get_by_role("button", name="Cancel my pledge").click()
    expect(page.get_by_role("status")).to_contain_text("Your pledge of £25 is cancelled.")
    if way == "with JavaScript":
        expect(page.locator("#pledge-state")).to_be_focused()
    page.goto(f"{house.url}/cases/{slug}")
    expect(page.locator(".total")).to_have_text("£95 pledged of £6,000 target from 1 pledge")

    mine = pledges_of(slug)[-1]
    assert (mine.status, mine.amount_pence, mine.name, mine.email) == (
        "cancelled", 2_500, "Ada Winter", "ada@example.org",
    )  # fmt: skip
    assert (mine.shown_as, mine.wants_updates, mine.ended_because) == ("anonymous", True, "supporter")
    assert (case_at(slug).round.pledged_pence, case_at(slug).round.pledge_count) == (9_500, 1)


def test_an_empty_form_is_answered_with_links_to_what_is_missing(house: House, page: "Page") -> None:
    slug = a_case().slug
    page.goto(f"{house.url}/cases/{slug}/pledge")
    page.get_by_role("button", name="Continue to Stripe").click()
    expect(page).to_have_title(re.compile("^Error: "))
    summary = page.locator("main > :first-child")
    expect(summary).to_have_role("alert")
    expect(summary).to_be_focused()
    for words, field in {
        "Choose an amount, or type one of your own.": "#other_amount",
        "Enter your name.": "#name",
        "Enter your e-mail address.": "#email",
        "Tick the box to allow the charge, or do not pledge.": "#agreed",
    }.items():
        summary.get_by_role("link", name=words).click()
        expect(page.locator(field)).to_be_focused()
        expect(page.locator(field)).to_have_accessible_description(re.compile("Error: " + re.escape(words) + "$"))
    assert pledges_of(slug) == []


def test_what_was_typed_survives_a_mistake(house: House, page: "Page") -> None:
    slug = a_case().slug
    page.goto(f"{house.url}/cases/{slug}/pledge")
    page.get_by_label("Another amount", exact=True).check()
    page.get_by_label("Another amount, in pounds").fill("4.99")
    _fill_in(page)
    page.get_by_role("button", name="Continue to Stripe").click()
    expect(page.get_by_role("alert").get_by_role("link")).to_have_text("A pledge is at least £5 and at most £10,000.")
    expect(page.get_by_label("Another amount", exact=True)).to_be_checked()
    expect(page.get_by_label("Another amount, in pounds")).to_have_value("4.99")
    expect(page.get_by_label("Your name")).to_have_value("Ada Winter")
    expect(page.get_by_label("Your e-mail address")).to_have_value("ada@example.org")
    expect(page.get_by_label("Keep me updated")).to_be_checked()
    expect(page.get_by_label("I allow Standing Test")).to_be_checked()
    page.get_by_label("Another amount, in pounds").fill("5")
    page.get_by_role("button", name="Continue to Stripe").click()
    expect(page).to_have_url(re.compile(re.escape(house.stripe)))
    assert [(p.status, p.amount_pence) for p in pledges_of(slug)] == [("started", 500)]


def test_the_bank_asks_when_the_card_is_saved(house: House, page: "Page") -> None:
    slug = a_case(target=2_000).slug
    _start(house, page, slug)
    _save_card(page, "4000 0025 0000 3155")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your bank asks: is this you?")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status")).to_contain_text("Your pledge of £25 counts.")
    page.goto(f"{house.url}/cases/{slug}")
    expect(page.locator(".promise").first).to_contain_text("Pledges have passed £20.")
    assert [(p.status, p.amount_pence) for p in pledges_of(slug)] == [("confirmed", 2_500)]


def test_back_from_stripe_the_amount_is_changed_and_the_card_saved_then(house: House, page: "Page") -> None:
    slug = a_case().slug
    _start(house, page, slug)
    page.get_by_role("link", name="Back").click()
    expect(page.get_by_role("status")).to_have_text(
        "Your pledge does not count yet: no card was saved. Stripe's page for your card is ready."
    )
    page.get_by_role("link", name="Change amount").click()
    page.get_by_label("Your pledge, in pounds").fill("40")
    page.get_by_label("I allow Standing Test").check()
    page.get_by_role("button", name="Continue to Stripe").click()
    expect(page.locator(".agreement")).to_contain_text("to charge my card £40 once")

    page.get_by_role("link", name="Back").click()
    page.get_by_role("button", name="Continue to Stripe").click()
    expect(page.locator(".agreement")).to_contain_text("to charge my card £40 once")
    _save_card(page, "4242 4242 4242 4242")
    expect(page.get_by_role("status")).to_contain_text("Your pledge of £40 counts.")
    assert [(p.status, p.amount_pence) for p in pledges_of(slug)] == [("confirmed", 4_000)]
    assert case_at(slug).round.pledged_pence == 4_000


def test_a_card_that_is_refused_on_stripes_page_leaves_the_way_open(house: House, page: "Page") -> None:
    slug = a_case().slug
    _start(house, page, slug)
    _save_card(page, "4000 0000 0000 0002")
    expect(page).to_have_title(re.compile("^Error: "))
    _save_card(page, "4242 4242 4242 4242")
    expect(page.get_by_role("status")).to_contain_text("Your pledge of £25 counts.")
    assert [p.status for p in pledges_of(slug)] == ["confirmed"]


def test_the_private_page_hears_of_the_card_by_itself(house: House, page: "Page", way: str) -> None:
    """Left open in one tab while the card is saved in another: it says so within seconds, or when it is loaded."""
    slug = a_case().slug
    _start(house, page, slug)
    card_page = page.url
    page.get_by_role("link", name="Back").click()
    expect(page.get_by_role("status")).to_contain_text("does not count yet")
    other = page.context.new_page()
    other.goto(card_page)
    _save_card(other, "4242 4242 4242 4242")
    expect(other.get_by_role("status")).to_contain_text("Your pledge of £25 counts.")
    page.mouse.wheel(0, 10)
    if way not in SCRIPTED:
        page.reload()
    expect(page.get_by_role("status")).to_contain_text("Your pledge of £25 counts.")
    assert eventually(lambda: [p.status for p in pledges_of(slug)] == ["confirmed"])


def _start(house: House, page: "Page", slug: str) -> None:
    """To the card page with a pledge of £25."""
    page.goto(f"{house.url}/cases/{slug}/pledge")
    page.get_by_label("£25", exact=True).check()
    _fill_in(page)
    page.get_by_role("button", name="Continue to Stripe").click()
    expect(page).to_have_url(re.compile(re.escape(house.stripe) + "/c/pay/"))


def _fill_in(page: "Page") -> None:
    page.get_by_label("Your name").fill("Ada Winter")
    page.get_by_label("Your e-mail address").fill("ada@example.org")
    page.get_by_label("Keep me updated").check()
    page.get_by_label("I allow Standing Test").check()


def _save_card(page: "Page", number: str) -> None:
    page.get_by_label("Card number").fill(number)
    page.get_by_role("button", name="Save this card").click()
