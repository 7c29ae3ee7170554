"""Somebody of staff in Chromium: freezes charges and lifts it, looks at the run, pays a part back and then the rest."""

import re
from functools import partial
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from playwright.sync_api import expect

from models import Event, Pledge, Refund, Round, User, db
from tests.conftest import SCRIPTED
from tests.house import House, eventually
from tests.journey import a_real_pledge, movements_of, round_of, states, the_deadline_comes, writing
from tests.made import PASSWORD, a_case, a_user, case_at, look_anew, now, pledges_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_staff_freeze_and_unfreeze_look_at_the_run_and_refund_a_part_and_then_the_rest(
    house: House, page: "Page", way: str
) -> None:
    staff, title = a_user("staff"), f"A case that staff look at, {way}"
    email, who = staff.email, f"user:{staff.id}"
    slug = a_case(target=2_500, title=title).slug
    pledge = a_real_pledge(house, slug, 25)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    _log_in(house, page, email)
    page.get_by_role("link", name=title).click()

    _press(page, "charge-freeze", "Freeze charges", "We look into a complaint.")
    expect(page.get_by_role("status")).to_have_text("Charges are frozen: none leaves.")
    assert case_at(slug).charges_frozen
    look_anew()
    _press(page, "charge-freeze/end", "Let charges go on", "It was unfounded.")
    expect(page.get_by_role("status")).to_have_text("Charges go on.")
    assert _switched(slug) == [
        ("charges_frozen", who, "We look into a complaint."), ("charges_frozen_ended", who, "It was unfounded."),
    ]  # fmt: skip

    run = page.get_by_role("region", name="Deadline capture")
    run.get_by_role("link", name="Refresh").click()
    expect(page).to_have_url(f"{house.url}/staff/cases/{slug}/run")
    expect(run).to_contain_text("Nothing is left to charge.")
    expect(run).to_contain_text("1, £25")

    page.get_by_role("link", name="The case and its switches").click()
    page.get_by_role("link", name="Its pledges", exact=True).click()
    page.get_by_role("link", name=pledge.public_id).first.click()
    for amount, pence, rest in (("10", 1_000, "At most £15"), ("15", 1_500, None)):
        page.get_by_label("Amount, in pounds").fill(amount)
        page.get_by_label("Reason, seen by staff only").fill(f"They asked for {amount}.")
        page.get_by_role("button", name="Refund").click()
        expect(page.get_by_role("status")).to_have_text(f"Stripe is asked to pay £{amount} back.")
        assert eventually(partial(_paid_back, pledge, pence))
        page.reload()
        refunds = page.get_by_role("region", name="Refunds")
        expect(refunds).to_contain_text(f"£{amount}, paid back.")
        if rest:
            expect(refunds).to_contain_text(rest)
    expect(page.get_by_role("button", name="Refund")).to_have_count(0)
    assert [(moved.kind, moved.amount_pence) for moved in movements_of(pledge)] == [
        ("charge", 2_500), ("refund", -1_000), ("refund", -1_500),
    ]  # fmt: skip
    assert (states(slug), _refunds(slug)) == (
        ["refunded"], [(1_000, "They asked for 10.", "succeeded"), (1_500, "They asked for 15.", "succeeded")],
    )  # fmt: skip


def test_a_run_that_is_left_open_moves_by_itself_and_without_a_script_by_its_link(
    house: House, page: "Page", way: str
) -> None:
    """Opened before the deadline; the round is decided, and then the card charged, while somebody watches."""
    staff = a_user("staff")
    email, slug = staff.email, a_case(target=2_500).slug
    a_real_pledge(house, slug, 25)
    _freeze(slug, True, staff)
    _log_in(house, page, email)
    if way in SCRIPTED:
        page.clock.install()
    page.goto(f"{house.url}/staff/cases/{slug}/run")
    run = page.get_by_role("region", name="Deadline capture")
    expect(run).to_contain_text("The round is open. Nothing is charged before it is decided.")
    page.mouse.wheel(0, 10)
    page.wait_for_load_state()

    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["due"])
    _look_again(page, way, 20_500)
    expect(run).to_contain_text("Charges are frozen: none leaves until this is lifted.")
    expect(run).to_contain_text("1, £25")

    _freeze(slug, False, staff)
    assert eventually(lambda: states(slug) == ["charged"])
    _look_again(page, way, 3_500)
    expect(run).to_contain_text("Nothing is left to charge.")
    expect(run).not_to_have_attribute("data-hx-get", re.compile(""))


def _look_again(page: "Page", way: str, after: int) -> None:
    """The page asks by itself after so many milliseconds, or somebody follows its link."""
    if way in SCRIPTED:
        page.clock.run_for(after)
    else:
        page.get_by_role("region", name="Deadline capture").get_by_role("link", name="Refresh").click()


def _freeze(slug: str, on: bool, by: User) -> None:
    round_id = round_of(slug).id
    with writing():
        Round.hold(round_id).case.switch("charges_frozen", on, "We look into it.", db.session.merge(by), now())


def test_a_refund_of_nothing_or_above_the_rest_is_not_made_and_keeps_what_was_typed(house: House, page: "Page") -> None:
    staff = a_user("staff").email
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    _log_in(house, page, staff)
    page.goto(f"{house.url}/staff/pledges/{pledge.public_id}")
    page.get_by_label("Reason, seen by staff only").fill("They asked.")
    for amount, words in (("0", "A refund must be more than nothing."), ("25.01", "At most £25 of this pledge can")):
        page.get_by_label("Amount, in pounds").fill(amount)
        page.get_by_role("button", name="Refund").click()
        expect(page.get_by_role("alert")).to_be_focused()
        expect(page.get_by_role("alert")).to_contain_text(words)
        expect(page.get_by_label("Amount, in pounds")).to_have_value(amount)
        expect(page.get_by_label("Reason, seen by staff only")).to_have_value("They asked.")
    assert (states(slug), _refunds(slug)) == (["charged"], [])


def _log_in(house: House, page: "Page", email: str) -> None:
    page.goto(f"{house.url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{house.url}/staff")


def _press(page: "Page", switch: str, button: str, reason: str) -> None:
    form = page.locator(f"form[action$='/{switch}']")
    form.get_by_label("Reason").fill(reason)
    form.get_by_role("button", name=button).click()


def _paid_back(pledge: Pledge, pence: int) -> bool:
    return -pence in [moved.amount_pence for moved in movements_of(pledge)]


def _switched(slug: str) -> list[tuple[str, str, str]]:
    """(what, who, why) of each turn of a switch of the case."""
    case_id = case_at(slug).id
    found = sa.select(Event).where(Event.subject_kind == "case", Event.subject_id == case_id, Event.note != "")
    return [(turn.what, turn.who, turn.note) for turn in db.session.scalars(found.order_by(Event.id))]


def _refunds(slug: str) -> list[tuple[int, str, str]]:
    ids = [pledge.id for pledge in pledges_of(slug)]
    found = sa.select(Refund).where(Refund.pledge_id.in_(ids)).order_by(Refund.id)
    return [(refund.amount_pence, refund.reason, refund.status) for refund in db.session.scalars(found)]
