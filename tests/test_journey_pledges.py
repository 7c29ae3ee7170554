"""A supporter's own decisions: taking the pledge back, and pressing the button twenty times."""

from concurrent.futures import ThreadPoolExecutor

import requests

from tests.house import House, eventually
from tests.journey import (
    a_real_pledge,
    calls,
    card_is_saved,
    on_card_page,
    round_of,
    states,
    stripe_object,
    the_deadline_comes,
    told,
)
from tests.made import a_case, pledges_of
from tests.reader import Reader


def test_a_pledge_that_its_supporter_cancels_no_longer_counts_and_is_never_charged(house: House) -> None:
    slug = a_case(target=5_000).slug
    a_real_pledge(house, slug, 50)
    taken_back = a_real_pledge(house, slug, 25, email="taken-back@example.org")
    card = taken_back.payment_method_id
    supporter = Reader(house.url).open(f"/cases/{slug}")
    assert "£75 pledged of £50 target from 2 pledges" in supporter.words
    supporter.open(f"/pledges/{taken_back.link()}").press("Cancel my pledge")
    assert "Your pledge of £25 is cancelled. Your card is not charged, and never will be" in supporter.words
    assert "£50 pledged of £50 target from 1 pledge" in supporter.open(f"/cases/{slug}").words
    assert eventually(lambda: not card_is_saved(house, card))
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged", "cancelled"])
    assert (round_of(slug).settled_total_pence, round_of(slug).settled_count) == (5_000, 1)
    assert house.payments_of(taken_back.id) == []
    told(house, "taken-back@example.org", "Your £25 pledge counts", "Your £25 pledge is cancelled")


def test_two_pledges_by_one_person_are_two_promises_and_one_can_be_taken_back(house: House) -> None:
    slug = a_case(target=4_000).slug
    first, second, third = (a_real_pledge(house, slug, pounds, email="again@example.org") for pounds in (25, 10, 15))
    assert len({one.customer_id for one in (first, second, third)}) == 3
    supporter = Reader(house.url).open(f"/cases/{slug}")
    assert "£50 pledged of £40 target from 3 pledges" in supporter.words
    supporter.open(f"/pledges/{second.link()}").press("Cancel my pledge")
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged", "cancelled", "charged"])
    assert [[paid["amount"] for paid in house.payments_of(one.id)] for one in (first, second, third)] == [
        [2_500],
        [],
        [1_500],
    ]
    told(house, "again@example.org", "Your £25 pledge counts", "Your £10 pledge counts", "Your £15 pledge counts",
         "Your £10 pledge is cancelled", "Your card was charged £25", "Your card was charged £15")  # fmt: skip


def test_a_cancellation_may_be_what_the_target_lacks_in_the_end(house: House) -> None:
    slug = a_case(target=7_500).slug
    stays, goes = a_real_pledge(house, slug, 50), a_real_pledge(house, slug, 25)
    Reader(house.url).open(f"/pledges/{goes.link()}").press("Cancel my pledge")
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["released", "cancelled"])
    assert round_of(slug).status == "missed"
    assert house.payments_of(stays.id) == house.payments_of(goes.id) == []


def test_a_pledge_cancelled_before_its_card_was_saved_leaves_no_open_page_at_stripe(house: House) -> None:
    slug = a_case().slug
    supporter, started = on_card_page(house, slug, 25, email="never-counted@example.org")
    supporter.open(f"/pledges/{started.link()}").press("Cancel my pledge")
    assert "Your pledge of £25 is cancelled." in supporter.words
    session = f"checkout/sessions/{started.session_id}"
    assert eventually(lambda: stripe_object(house, session)["status"] == "expired")
    assert (states(slug), house.letters(to="never-counted@example.org")) == (["cancelled"], [])


def test_twenty_posts_of_one_form_at_once_make_one_pledge_and_one_card_page(house: House, reader: Reader) -> None:
    slug = a_case().slug
    form_key = reader.open(f"/cases/{slug}/pledge").page.select_one("input[name=form_key]")
    assert form_key is not None
    form = {
        "form_key": str(form_key["value"]), "amount": "25", "name": "Ada Winter", "email": "twenty@example.org",
        "agreed": "y",
    }  # fmt: skip

    def send(_: int) -> requests.Response:
        return requests.post(f"{house.url}/cases/{slug}/pledges", form, allow_redirects=False, timeout=30)

    with ThreadPoolExecutor(20) as crowd:
        answers = list(crowd.map(send, range(20)))
    (pledge,) = pledges_of(slug)
    assert {answer.status_code for answer in answers} == {303}
    assert {call["idempotency_key"] for call in calls(house, "checkout.sessions.create", pledge)} == {
        f"pledge-{pledge.id}-session-1"
    }
    mine = [s for s in house.stripe_list("checkout/sessions") if s["metadata"]["pledge_id"] == str(pledge.id)]
    assert [session["id"] for session in mine] == [pledge.session_id]
    places = {answer.headers["Location"].partition("?")[0] for answer in answers}
    assert mine[0]["url"] in places
    assert places <= {mine[0]["url"], f"/pledges/{pledge.link()}"}
