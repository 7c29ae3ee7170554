"""Journeys after the charge, through the real parts: staff at their desk, the worker, the webhooks, the supporter."""

from pathlib import Path

import requests
import sqlalchemy as sa

from models import Dispute, Erasure, Pledge, db
from tests.dumps import dump
from tests.house import House, eventually
from tests.journey import (
    a_real_pledge,
    body,
    every_event_is_looked_at,
    movements_of,
    states,
    stripe_object,
    the_deadline_comes,
    time_passes,
    told,
)
from tests.made import PASSWORD, a_case, a_user, case_at, look_anew, pledges_of
from tests.reader import Reader

DISPUTES = "4000 0000 0000 0259"
REFUNDS_FAIL = "4000 0000 0000 5126"


def at_the_desk(house: House) -> Reader:
    """Somebody of staff who has logged in, and stands at the desk."""
    person = a_user("staff")
    reader = Reader(house.url).log_in(person.email, PASSWORD)
    assert reader.address == f"{house.url}/staff" and "Desk" in reader.words
    return reader


def a_charged_pledge(house: House, email: str, card: str = "4242 4242 4242 4242") -> str:
    """The address of a case with one pledge of £25 whose card was charged."""
    slug = a_case(target=2_500).slug
    a_real_pledge(house, slug, 25, card=card, email=email)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug)[0] in ("charged", "disputed"), why=f"not charged: {states(slug)}")
    return slug


def test_staff_find_a_pledge_and_give_a_part_back_and_the_supporter_is_told(house: House) -> None:
    slug = a_charged_pledge(house, "back@example.org")
    reader = at_the_desk(house).open(f"/staff/cases/{slug}/pledges").press("Search", q="BACK@example")
    public_id = pledges_of(slug)[0].public_id
    reader.open(f"/staff/pledges/{public_id}").press("Refund", amount="10", reason="They asked.")
    assert "Stripe is asked to pay £10 back." in reader.words
    assert eventually(lambda: pledges_of(slug)[0].refunded_pence == 1_000)
    told(house, "back@example.org", "Your £25 pledge counts", "Your card was charged £25",
         "£10 of your pledge is paid back")  # fmt: skip
    page = requests.get(f"{house.url}/cases/{slug}", timeout=30).text
    assert "<dt>Refunded</dt><dd>£10</dd>" in page and "<dt>Charged</dt><dd>£25</dd>" in page
    link = next(line for line in body(house.letters(to="back@example.org")[-1]).splitlines() if "/pledges/" in line)
    supporter = Reader(house.url).open(link)
    assert "£10 of it has been paid back to your card." in supporter.words
    supporter.open(f"{link}/receipt").press("Send it to me by e-mail")
    assert eventually(
        lambda: [one for one in house.letters(to="back@example.org") if "Refunded   £10" in one], why="no receipt came"
    )


def test_a_refund_that_fails_at_the_bank_is_owed_again_and_shown_at_the_desk(house: House) -> None:
    slug = a_charged_pledge(house, "fails@example.org", REFUNDS_FAIL)
    reader, pledge = at_the_desk(house), pledges_of(slug)[0]
    reader.open(f"/staff/pledges/{pledge.public_id}").press("Refund", amount="25", reason="They asked.")
    assert eventually(
        lambda: [one.amount_pence for one in movements_of(pledge)] == [2_500, -2_500, 2_500], why="it did not fail"
    )
    assert states(slug) == ["charged"]
    assert f"£25 of the pledge {pledge.public_id}" in reader.open("/staff").words


def test_a_dispute_is_held_told_to_staff_with_its_date_and_won(house: House) -> None:
    staff = f"staff-{id(house)}@example.org"
    a_user("staff", email=staff)
    slug = a_charged_pledge(house, "disputes@example.org", DISPUTES)
    assert eventually(lambda: states(slug) == ["disputed"])
    pledge = pledges_of(slug)[0]
    dispute = db.session.scalars(sa.select(Dispute).where(Dispute.pledge_id == pledge.id)).one()
    assert eventually(lambda: [one for one in house.letters(to=staff) if "answer by" in one])
    reader = at_the_desk(house).open(f"/staff/pledges/{pledge.public_id}")
    assert "Nothing can be refunded until the bank decides." in reader.words
    won = {"status": "won"}
    requests.post(f"{house.stripe}/sandbox/disputes/{dispute.stripe_id}/closure", json=won, timeout=30)
    assert eventually(lambda: states(slug) == ["charged"])
    assert [one.amount_pence for one in movements_of(pledge)] == [2_500, -2_500, 2_500]
    assert eventually(lambda: [one for one in house.letters(to=staff) if "Subject: A dispute about £25 is won" in one])
    told(
        house, "disputes@example.org", "Your £25 pledge counts", "Your card was charged £25",
        "Your bank has been asked to take £25 of your pledge back", "Your payment of £25 stands",
    )  # fmt: skip


def test_frozen_charges_wait_and_go_on_by_themselves_once_they_are_lifted(house: House) -> None:
    slug = a_case(target=2_500).slug
    a_real_pledge(house, slug, 25)
    reader = at_the_desk(house).open(f"/staff/cases/{slug}")
    reader.press("Freeze charges", **{"charge-freeze-reason": "We look into it."})
    assert "Charges are frozen: none leaves" in reader.words
    the_deadline_comes(slug)
    assert eventually(lambda: case_at(slug).round.status == "met")
    # The clock would have done by itself what waits for so long.
    time_passes(slug)
    other = a_charged_pledge(house, "other@example.org")
    assert (states(slug), states(other)) == (["due"], ["charged"])
    assert house.payments_of(pledges_of(slug)[0].id) == []
    reader.press("Let charges go on", **{"charge-freeze-reason": "All is well."})
    assert eventually(lambda: states(slug) == ["charged"])
    assert len(house.payments_of(pledges_of(slug)[0].id)) == 1


def test_a_case_cancelled_while_charging_lets_the_rest_go(house: House) -> None:
    slug = a_case(target=5_000).slug
    for email in ("stopped-one@example.org", "stopped-two@example.org"):
        a_real_pledge(house, slug, 25, email=email)
    reader = at_the_desk(house).open(f"/staff/cases/{slug}")
    reader.press("Freeze charges", **{"charge-freeze-reason": "We look into it."})
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["due", "due"])
    reader.open(f"/staff/cases/{slug}")
    reader.press("Cancel the case", **{"cancellation-reason": "The claim was settled.", "cancellation-sure": "cancel"})
    assert "The case is cancelled: nothing more is charged." in reader.words
    assert eventually(lambda: states(slug) == ["released", "released"])
    assert eventually(lambda: all(pledge.payment_method_id is None for pledge in pledges_of(slug)))
    look_anew()
    assert [house.payments_of(pledge.id) for pledge in pledges_of(slug)] == [[], []]
    assert eventually(
        lambda: [one for one in house.letters(to="stopped-one@example.org") if "was cancelled" in one],
        why="nobody was told",
    )


def is_finished(pledge: Pledge) -> bool:
    look_anew()
    found = sa.select(Erasure).where(Erasure.subject == f"pledge:{pledge.id}", Erasure.next_at.is_(None))
    return db.session.scalar(found) is not None


def test_of_a_supporter_who_was_charged_and_is_erased_nothing_is_left_but_what_the_books_need(
    house: House, tmp_path: Path
) -> None:
    """Not in a copy of the database, not at Stripe, in no log of any program and in no letter in the folder."""
    slug, email = a_case(target=2_500).slug, "kanarie@erased.example"
    a_real_pledge(
        house, slug, 25, name="Kanarie Winterbourne", email=email, message="Kanarie words", wants_updates=True
    )
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    told(house, email, "Your £25 pledge counts", "Your card was charged £25")
    every_event_is_looked_at(house)
    pledge = pledges_of(slug)[0]
    link, customer, paid = pledge.link(), str(pledge.customer_id), pledge.payment_intent_id
    assert "kanarie" in dump(tmp_path).casefold() and stripe_object(house, f"customers/{customer}")["email"] == email
    panel = requests.get(f"{house.url}/cases/{slug}/pledge-total", timeout=30).text
    reader = Reader(house.url).open(f"/pledges/{link}/erasure")
    assert "What was charged stays charged. The amount of £25" in reader.words
    reader.press("Erase everything")
    assert "What was kept of you with your pledge for A case about data is erased." in reader.words
    assert eventually(lambda: is_finished(pledge), why="the erasure was not finished")
    assert stripe_object(house, f"customers/{customer}")["deleted"] is True
    assert house.letters(to=email) == []
    # Stripe tells of the deletion as well, with the address, which is emptied as soon as it is read.
    every_event_is_looked_at(house)
    assert "kanarie" not in dump(tmp_path).casefold()
    logs = "".join(house.log(name) for name in house.commands if name != "sandbox")
    assert "kanarie" not in logs.casefold() and link not in logs
    kept = [file.name for file in house.letters_folder.iterdir() if b"kanarie" in file.read_bytes().lower()]
    assert kept == []
    # The books are what they were, here and at Stripe.
    left = pledges_of(slug)[0]
    assert (left.status, left.amount_pence, left.payment_intent_id) == ("charged", 2_500, paid)
    assert [one.amount_pence for one in movements_of(left) if one.kind == "charge"] == [2_500]
    assert stripe_object(house, f"payment_intents/{paid}")["status"] == "succeeded"
    assert requests.get(f"{house.url}/cases/{slug}/pledge-total", timeout=30).text == panel
    assert Reader(house.url).open(f"/pledges/{link}").status == 404
