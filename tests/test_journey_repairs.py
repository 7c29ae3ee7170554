"""A refused payment through the real parts: the letter, the link, the bank's page, another card, the clock, the end."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from models import Pledge, db
from tests.house import House, eventually
from tests.journey import (
    A_WEEK,
    BANK_ASKS_LATER,
    DECLINES_LATER,
    LOST_LATER,
    a_real_pledge,
    body,
    card_is_saved,
    history,
    let_events_go,
    letters_about,
    movements_of,
    on_card_page,
    save_card_and_close_the_tab,
    states,
    stripe_object,
    the_deadline_comes,
    time_passes,
    told,
)
from tests.made import a_case, look_anew, pledges_of
from tests.reader import Reader

A_DAY, A_MINUTE = dt.timedelta(days=1), dt.timedelta(minutes=1)
REFUSED = "Your £25 pledge: your bank refused the payment"


def a_refused_pledge(house: House, card: str, email: str = "") -> tuple[str, Pledge]:
    """A pledge of £25 of a case that was met with it; the bank refused its card at the deadline."""
    slug = a_case(target=2_500).slug
    a_real_pledge(house, slug, 25, card, **({"email": email} if email else {}))
    the_deadline_comes(slug)
    status = "action_required" if card == BANK_ASKS_LATER else "declined"
    assert eventually(lambda: states(slug) == [status])
    if email:
        has_gone(house, email, "Your bank wants you to approve" if status == "action_required" else REFUSED, 1)
    return slug, pledges_of(slug)[0]


def has_gone(house: House, to: str, subject: str, times: int) -> None:
    """Wait for so many letters with such a subject: one that still waits as time passes may be overtaken."""
    why = f"{to} did not get {times} of {subject}"
    assert eventually(lambda: sum(subject in one for one in letters_about(house, to)) == times, why=why)


def paid_once(house: House, pledge: Pledge) -> None:
    """One payment of £25 at Stripe with one charge that succeeded, and one line in the ledger."""
    (payment,) = house.payments_of(pledge.id)
    assert (payment["status"], payment["amount_received"]) == ("succeeded", 2_500)
    charges = house.stripe_list("charges", payment_intent=payment["id"])
    assert [charge["amount"] for charge in charges if charge["status"] == "succeeded"] == [2_500]
    assert [moved.amount_pence for moved in movements_of(pledge)] == [2_500]


def attempts(pledge: Pledge) -> list[tuple[int, str, str]]:
    look_anew()
    found = db.session.get_one(Pledge, pledge.id, populate_existing=True)
    return [(attempt.number, attempt.kind, attempt.status) for attempt in found.attempts]


def tried_again_after(slug: str, pledge: Pledge, wait: dt.timedelta, attempt: int) -> None:
    """After so long the clock makes exactly this attempt, and it is refused."""
    assert len(attempts(pledge)) == attempt - 1
    time_passes(slug, wait)
    assert eventually(lambda: attempts(pledge)[-1] == (attempt, "confirm", "declined"), why=f"not attempt {attempt}")


def confirmations(house: House, pledge: Pledge) -> list[dict[str, Any]]:
    """The calls that tried this pledge's payment again, oldest first."""
    asked = requests.get(f"{house.stripe}/sandbox/calls", {"operation": "payment_intents.confirm"}, timeout=30).json()
    return [call for call in asked if call["idempotency_key"].startswith(f"pledge-{pledge.id}-charge-")]


def bank_in(reader: Reader) -> str:
    """Where the private page leads on to the bank."""
    link = reader.page.find("a", string="Continue to your bank")
    assert link is not None, reader.words
    return str(link["href"])


def link_in(house: House, to: str, subject: str) -> str:
    letter = eventually(lambda: next((one for one in house.letters(to=to) if f"Subject: {subject}" in one), ""))
    return next(line for line in body(letter).splitlines() if "/pledges/" in line)


# --- The bank asks -----------------------------------------------------------------------------------------


def test_a_payment_that_the_bank_wants_approved_is_approved_by_the_link_and_charged_once(
    house: House, reader: Reader
) -> None:
    slug, pledge = a_refused_pledge(house, BANK_ASKS_LATER, "approves@example.org")
    reader.open(link_in(house, "approves@example.org", "Your bank wants you to approve £25"))
    assert "We will try this card again" not in reader.words
    reader.press("Approve with your bank")
    assert reader.status == 200 and "You have not been charged." in reader.words
    assert states(slug) == ["action_required"]
    assert bank_in(reader).startswith(f"{house.stripe}/bank/")
    reader.open(bank_in(reader)).press("Approve")
    assert reader.address == f"{house.url}/pledges/{pledge.link()}"
    assert "Your card was charged £25. Thank you." in reader.words
    paid_once(house, pledge)
    assert attempts(pledge) == [(1, "create", "action_required"), (2, "confirm", "succeeded")]
    (asked,) = confirmations(house, pledge)
    assert "off_session" not in asked["params"]
    assert asked["params"]["return_url"] == f"{house.url}/pledges/bank-return"
    told(house, "approves@example.org", "Your £25 pledge counts", "Your bank wants you to approve £25",
         "Your card was charged £25")  # fmt: skip
    again = requests.post(f"{house.url}/pledges/{pledge.link()}/payment", timeout=60)
    assert again.status_code == 409 and "Your card was charged already. There is nothing more to pay." in again.text
    paid_once(house, pledge)


def test_an_approval_whose_supporter_never_comes_back_is_heard_of_from_stripe(house: House, reader: Reader) -> None:
    slug, pledge = a_refused_pledge(house, BANK_ASKS_LATER)
    reader.open(f"/pledges/{pledge.link()}").press("Approve with your bank")
    bank = bank_in(reader)
    requests.post(bank, {"answer": "approve"}, allow_redirects=False, timeout=30)
    assert eventually(lambda: states(slug) == ["charged"])
    paid_once(house, pledge)


def test_what_the_bank_did_not_approve_is_paid_with_another_card_on_the_same_payment(
    house: House, reader: Reader
) -> None:
    slug, pledge = a_refused_pledge(house, BANK_ASKS_LATER)
    first_card = pledge.payment_method_id
    reader.open(f"/pledges/{pledge.link()}").press("Approve with your bank")
    reader.open(bank_in(reader)).press("Refuse")
    assert "The bank says that the last try was not approved." in reader.words
    assert "You have not been charged." in reader.words and states(slug) == ["action_required"]
    assert not reader.page.find("a", string="Continue to your bank")

    reader.press("Use another card").save_card()
    assert reader.address == f"{house.url}/pledges/{pledge.link()}"
    assert eventually(lambda: states(slug) == ["charged"])
    paid_once(house, pledge)
    assert eventually(lambda: not card_is_saved(house, first_card))
    now_used = pledges_of(slug)[0]
    assert (now_used.card_words, now_used.customer_id) == ("Visa ending 4242", pledge.customer_id)
    assert card_is_saved(house, now_used.payment_method_id)
    assert confirmations(house, pledge)[-1]["params"]["off_session"] == "true"


def test_an_approval_as_the_window_ends_is_either_paid_or_given_up_and_never_both(house: House, reader: Reader) -> None:
    slug, pledge = a_refused_pledge(house, BANK_ASKS_LATER)
    house.fault(event="*", fault="hold", times="always")
    reader.open(f"/pledges/{pledge.link()}").press("Approve with your bank")
    bank = bank_in(reader)
    requests.post(bank, {"answer": "approve"}, allow_redirects=False, timeout=30)
    assert states(slug) == ["action_required"], "nobody has told us of the approval"
    time_passes(slug, A_WEEK)
    assert eventually(lambda: states(slug) == ["charged"])
    paid_once(house, pledge)
    let_events_go(house)
    paid_once(house, pledge)

    late_slug, late = a_refused_pledge(house, BANK_ASKS_LATER, "late@example.org")
    reader.open(f"/pledges/{late.link()}").press("Approve with your bank")
    bank = bank_in(reader)
    time_passes(late_slug, A_WEEK)
    assert eventually(lambda: states(late_slug) == ["dropped"])
    assert requests.post(bank, {"answer": "approve"}, allow_redirects=False, timeout=30).status_code == 303
    (payment,) = house.payments_of(late.id)
    assert (payment["status"], payment["amount_received"], movements_of(late)) == ("canceled", 0, [])
    refused = requests.post(f"{house.url}/pledges/{late.link()}/payment", timeout=60)
    assert (
        refused.status_code == 409 and "The time for paying this pledge is over. You were not charged" in refused.text
    )
    assert states(late_slug) == ["dropped"]


# --- The clock ---------------------------------------------------------------------------------------------


def test_a_soft_refusal_is_tried_again_on_days_two_four_and_seven_and_then_dropped(house: House) -> None:
    slug, pledge = a_refused_pledge(house, DECLINES_LATER, "soft@example.org")
    card = pledge.payment_method_id
    time_passes(slug, 2 * A_DAY - A_MINUTE)
    assert pledge.id not in Pledge.waiting_for_repair(dt.datetime.now(dt.UTC))
    tried_again_after(slug, pledge, A_MINUTE, 2)
    has_gone(house, "soft@example.org", REFUSED, 2)
    tried_again_after(slug, pledge, 2 * A_DAY, 3)
    has_gone(house, "soft@example.org", REFUSED, 3)
    # A reminder stands between, on day 6.
    time_passes(slug, 2 * A_DAY)
    has_gone(house, "soft@example.org", "still not paid", 1)
    tried_again_after(slug, pledge, A_DAY, 4)
    assert eventually(lambda: states(slug) == ["dropped"])
    assert attempts(pledge) == [(1, "create", "declined"), *((n, "confirm", "declined") for n in (2, 3, 4))]
    (payment,) = house.payments_of(pledge.id)
    assert (payment["status"], payment["amount_received"]) == ("canceled", 0)
    assert [call["params"]["off_session"] for call in confirmations(house, pledge)] == ["true"] * 3
    assert eventually(lambda: not card_is_saved(house, card))
    told(house, "soft@example.org", "Your £25 pledge counts", REFUSED, REFUSED, REFUSED,
         "Your £25 pledge is still not paid", "Your £25 pledge has ended; you were not charged")  # fmt: skip
    assert history(pledge)[-1] == "dropped" and movements_of(pledge) == []


def test_a_hard_refusal_is_never_tried_again_but_another_card_pays(house: House, reader: Reader) -> None:
    slug, pledge = a_refused_pledge(house, LOST_LATER, "hard@example.org")
    words = reader.open(f"/pledges/{pledge.link()}").words
    assert "We will not try again by ourselves. Your bank does not allow this card any more" in words
    refused = requests.post(f"{house.url}/pledges/{pledge.link()}/payment", timeout=60)
    assert refused.status_code == 409 and "Please use another card." in refused.text
    time_passes(slug, 2 * A_DAY)
    told(house, "hard@example.org", "Your £25 pledge counts", REFUSED, "Your £25 pledge is still not paid")  # fmt: skip
    assert attempts(pledge) == [(1, "create", "declined")]
    reader.press("Use another card")
    # Not what was allowed before the deadline: there is nothing to wait for any more, and nothing to cancel.
    assert "I allow Standing Test to charge my card £25 once, as soon as it is saved: " in reader.words
    assert "reached its target, and my pledge is not paid yet." in reader.words
    assert "only if pledges" not in reader.words and "I can cancel" not in reader.words
    reader.save_card()
    assert eventually(lambda: states(slug) == ["charged"])
    paid_once(house, pledge)


def test_who_says_stop_is_not_tried_again_and_can_still_pay(house: House, reader: Reader) -> None:
    slug, pledge = a_refused_pledge(house, DECLINES_LATER, "stop@example.org")
    reader.open(f"/pledges/{pledge.link()}")
    assert "We will try this card again on" in reader.words
    reader.press("Stop trying")
    assert "We will not try again by ourselves." in reader.words
    assert "You asked us not to try the card again by ourselves." in reader.words
    assert not reader.page.find("button", string="Stop trying")
    time_passes(slug, 2 * A_DAY)
    has_gone(house, "stop@example.org", "still not paid", 1)
    assert attempts(pledge) == [(1, "create", "declined")]
    reader.open(f"/pledges/{pledge.link()}").press("Pay with the same card")
    assert attempts(pledge) == [(1, "create", "declined"), (2, "confirm", "declined")]
    assert "You have not been charged." in reader.words
    time_passes(slug, 5 * A_DAY)
    assert eventually(lambda: states(slug) == ["dropped"])
    assert len(attempts(pledge)) == 2


# --- At the same time, and in between ----------------------------------------------------------------------


def test_two_presses_at_once_are_one_charge(house: House) -> None:
    slug, pledge = a_refused_pledge(house, DECLINES_LATER)
    house.fault(operation="payment_intents.confirm", fault="hang", seconds=1, times="always")
    where = f"{house.url}/pledges/{pledge.link()}/payment"
    with ThreadPoolExecutor(2) as two:
        answers = list(two.map(lambda _: requests.post(where, allow_redirects=False, timeout=30).status_code, "ab"))
    assert answers == [303, 303]
    assert eventually(lambda: states(slug) == ["declined"])
    assert [call["idempotency_key"] for call in confirmations(house, pledge)] == [f"pledge-{pledge.id}-charge-2"]
    assert attempts(pledge) == [(1, "create", "declined"), (2, "confirm", "declined")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_site_killed_between_its_commit_and_stripes_answer_charges_once_and_keeps_the_way_to_the_bank(
    house: House, reader: Reader, when: str
) -> None:
    slug, pledge = a_refused_pledge(house, BANK_ASKS_LATER)
    house.fault(operation="payment_intents.confirm", fault="hang", seconds=5, when=when)
    with ThreadPoolExecutor(1) as one:
        pressed = one.submit(requests.post, f"{house.url}/pledges/{pledge.link()}/payment", timeout=60)
        assert eventually(lambda: states(slug) == ["charging"])
        house.kill("web")
        with pytest.raises(requests.RequestException):
            pressed.result()
    house.clear_faults()
    house.start("web")
    time_passes(slug)
    assert eventually(lambda: states(slug) == ["action_required"])
    keys = {call["idempotency_key"] for call in confirmations(house, pledge)}
    assert keys == {f"pledge-{pledge.id}-charge-2"}
    reader.open(f"/pledges/{pledge.link()}")
    reader.open(bank_in(reader)).press("Approve")
    assert "Your card was charged £25. Thank you." in reader.words
    paid_once(house, pledge)


# --- Another card while the round is open ------------------------------------------------------------------


def test_another_card_while_the_round_is_open_is_the_one_that_is_charged(house: House, reader: Reader) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25, DECLINES_LATER)
    first_card = pledge.payment_method_id
    reader.open(f"/pledges/{pledge.link()}").press("Use another card").save_card()
    assert "Your pledge of £25 counts." in reader.words and "Visa ending 4242" in reader.words
    assert "You saved another card, which is used from now on." in reader.words
    assert eventually(lambda: not card_is_saved(house, first_card))
    assert [(p.status, p.customer_id) for p in pledges_of(slug)] == [("confirmed", pledge.customer_id)]
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    paid_once(house, pledge)


def test_a_page_for_another_card_that_is_open_at_the_deadline_is_closed_and_the_first_card_charged(
    house: House, reader: Reader
) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    reader.open(f"/pledges/{pledge.link()}").press("Use another card")
    session = pledges_of(slug)[0].session_id
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    assert stripe_object(house, f"checkout/sessions/{session}")["status"] == "expired"
    paid_once(house, pledge)
    assert card_is_saved(house, pledge.payment_method_id)


def test_another_card_saved_in_time_that_nobody_told_us_of_is_found_before_the_round_is_settled(house: House) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25, DECLINES_LATER)
    first_card = pledge.payment_method_id
    house.fault(event="*", fault="drop", times="always")
    at_stripe = Reader(house.url).open(f"/pledges/{pledge.link()}").press("Use another card")
    save_card_and_close_the_tab(at_stripe)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    paid_once(house, pledge)
    assert eventually(lambda: not card_is_saved(house, first_card))


def test_a_pledge_taken_back_while_its_card_was_being_changed_leaves_neither_card_nor_page(
    house: House, reader: Reader
) -> None:
    slug = a_case(target=100_000).slug
    pledge = a_real_pledge(house, slug, 25)
    card = pledge.payment_method_id
    reader.open(f"/pledges/{pledge.link()}").press("Use another card")
    session = pledges_of(slug)[0].session_id
    reader.open(f"/pledges/{pledge.link()}").press("Cancel my pledge")
    assert eventually(lambda: not card_is_saved(house, card))
    assert stripe_object(house, f"checkout/sessions/{session}")["status"] == "expired"


def test_only_a_pledge_that_counts_or_was_refused_can_get_another_card(house: House) -> None:
    slug = a_case(target=2_500).slug
    _, started = on_card_page(house, slug, 30)
    paid = a_real_pledge(house, slug, 25)
    for pledge, words in ((started, "There is no refused payment of this pledge."),):
        for what in ("card", "payment", "end-of-retries"):
            answer = requests.post(f"{house.url}/pledges/{pledge.link()}/{what}", timeout=60)
            assert (answer.status_code, words in answer.text) == (409, True), what
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["abandoned", "charged"])
    for what in ("card", "payment", "end-of-retries"):
        answer = requests.post(f"{house.url}/pledges/{paid.link()}/{what}", timeout=60)
        assert (answer.status_code, "Your card was charged already." in answer.text) == (409, True), what
    paid_once(house, paid)
