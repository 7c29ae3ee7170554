"""A refused payment in Chromium: from the private page to the bank and back, past the policy of our own pages."""

import re
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.house import House, eventually
from tests.journey import BANK_ASKS_LATER, a_real_pledge, movements_of, states, the_deadline_comes
from tests.made import a_case, pledges_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_payment_is_approved_at_the_bank_and_charged_once(house: House, page: "Page") -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25, BANK_ASKS_LATER)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["action_required"])
    private_page = f"{house.url}/pledges/{pledge.link()}"
    page.goto(private_page)
    expect(page.get_by_role("status")).to_contain_text("You have not been charged.")
    page.get_by_role("button", name="Approve with your bank").click()
    expect(page).to_have_url(private_page)
    page.get_by_role("link", name="Continue to your bank").click()
    expect(page).to_have_url(re.compile(re.escape(house.stripe) + "/bank/"))
    page.get_by_role("button", name="Approve").click()
    expect(page).to_have_url(private_page)
    expect(page.get_by_role("status")).to_contain_text("Your card was charged £25. Thank you.")
    (payment,) = house.payments_of(pledge.id)
    assert (payment["status"], payment["amount_received"]) == ("succeeded", 2_500)
    assert [moved.amount_pence for moved in movements_of(pledge)] == [2_500]


def test_what_the_bank_did_not_approve_is_paid_with_another_card(house: House, page: "Page") -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25, BANK_ASKS_LATER)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["action_required"])
    page.goto(f"{house.url}/pledges/{pledge.link()}")
    page.get_by_role("button", name="Approve with your bank").click()
    page.get_by_role("link", name="Continue to your bank").click()
    page.get_by_role("button", name="Refuse").click()
    expect(page.get_by_role("status")).to_contain_text("The bank says that the last try was not approved.")
    page.get_by_role("button", name="Use another card").click()
    page.get_by_label("Card number").fill("4242 4242 4242 4242")
    page.get_by_role("button", name="Save this card").click()
    expect(page).to_have_url(f"{house.url}/pledges/{pledge.link()}")
    assert eventually(lambda: states(slug) == ["charged"])
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("Your card was charged £25. Thank you.")
    assert pledges_of(slug)[0].card_words == "Visa ending 4242"
    assert len(house.payments_of(pledge.id)) == 1
