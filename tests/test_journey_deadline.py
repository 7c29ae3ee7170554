"""The deadline, through the real parts: met and charged, missed and released, refused cards, a cancelled case."""

from models import Pledge
from tests.house import House, eventually
from tests.journey import (
    A_WEEK,
    BANK_ASKS_LATER,
    DECLINES_LATER,
    a_real_pledge,
    body,
    calls,
    card_is_saved,
    let_events_go,
    letters_about,
    movements_of,
    on_card_page,
    round_of,
    save_card_and_close_the_tab,
    states,
    stripe_object,
    the_deadline_comes,
    time_passes,
    told,
)
from tests.made import a_case, a_user, case_at, now, pledges_of
from tests.reader import Reader


def test_a_met_deadline_charges_every_confirmed_pledge_exactly_once(house: House, reader: Reader) -> None:
    owner = a_user()
    slug = a_case(target=7_500, owner=owner).slug
    first = a_real_pledge(house, slug, 50, name="Ada Winter", email="met-ada@example.org")
    second = a_real_pledge(house, slug, 25, name="Ben Archer", email="met-ben@example.org")
    the_deadline_comes(slug, rung=False)
    assert eventually(lambda: states(slug) == ["charged", "charged"])
    for pledge, pence in ((first, 5_000), (second, 2_500)):
        (payment,) = house.payments_of(pledge.id)
        assert (payment["status"], payment["amount"], payment["amount_received"]) == ("succeeded", pence, pence)
        (asked,) = calls(house, "payment_intents.create", pledge)
        assert (asked["params"]["off_session"], asked["params"]["confirm"]) == ("true", "true")
        assert asked["idempotency_key"] == f"pledge-{pledge.id}-charge-1"
        (moved,) = movements_of(pledge)
        assert (moved.kind, moved.amount_pence, moved.stripe_id) == ("charge", pence, payment["latest_charge"])
    assert (case_at(slug).status, round_of(slug).settled_total_pence) == ("funded", 7_500)
    words = reader.open(f"/cases/{slug}").words
    assert "This case reached its target. £75 of £75 was pledged" in words
    assert "Pledge now" not in words
    told(house, "met-ada@example.org", "Your £50 pledge counts", "Your card was charged £50")
    told(house, "met-ben@example.org", "Your £25 pledge counts", "Your card was charged £25")
    told(house, owner.email, "Your case reached its target")


def test_a_missed_deadline_charges_nobody_and_says_so_when_the_last_card_is_gone(house: House, reader: Reader) -> None:
    owner = a_user()
    slug = a_case(target=7_501, owner=owner).slug
    first = a_real_pledge(house, slug, 50, email="missed-ada@example.org")
    second = a_real_pledge(house, slug, 25, email="missed-ben@example.org")
    cards = [first.payment_method_id, second.payment_method_id]
    house.fault(operation="payment_methods.detach", fault="error", times="always", match={"id": cards[1]})
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["released", "released"])
    assert eventually(lambda: not card_is_saved(house, cards[0]))
    words = reader.open(f"/cases/{slug}").words
    assert "This case did not reach its target. £75 of £75.01 was pledged. Nobody was charged" in words
    assert card_is_saved(house, cards[1])
    assert "Saved cards have been removed" not in words
    house.clear_faults()
    time_passes(slug)
    assert eventually(lambda: "Saved cards have been removed." in reader.open(f"/cases/{slug}").words)
    assert not card_is_saved(house, cards[1])
    assert house.payments_of(first.id) == house.payments_of(second.id) == []
    assert case_at(slug).status == "missed"
    missed = f"You are not charged: {case_at(slug).title}"
    told(house, "missed-ada@example.org", "Your £50 pledge counts", missed)
    told(house, "missed-ben@example.org", "Your £25 pledge counts", missed)
    told(house, owner.email, "Your case did not reach its target")


def test_a_card_that_a_supporter_took_back_is_gone_before_the_page_says_that_cards_were_removed(
    house: House, reader: Reader
) -> None:
    slug = a_case(target=100_000).slug
    card = a_real_pledge(house, slug, 50).payment_method_id
    house.fault(operation="payment_methods.detach", fault="error", times="always", match={"id": card})
    reader.open(f"/pledges/{pledges_of(slug)[0].link()}").press("Cancel my pledge")
    the_deadline_comes(slug)
    assert eventually(lambda: round_of(slug).status == "missed")
    assert card_is_saved(house, card)
    assert "Saved cards have been removed" not in reader.open(f"/cases/{slug}").words
    house.clear_faults()
    time_passes(slug)
    assert eventually(lambda: "Saved cards have been removed" in reader.open(f"/cases/{slug}").words)
    assert not card_is_saved(house, card)


def test_a_refused_and_an_unapproved_card_are_told_so_while_the_others_pay_and_the_round_stays_met(
    house: House, reader: Reader
) -> None:
    slug = a_case(target=10_000).slug
    a_real_pledge(house, slug, 50, email="paid@example.org")
    refused = a_real_pledge(house, slug, 30, DECLINES_LATER, email="refused@example.org")
    unapproved = a_real_pledge(house, slug, 20, BANK_ASKS_LATER, email="unapproved@example.org")
    cards = [refused.payment_method_id, unapproved.payment_method_id]
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged", "declined", "action_required"])
    assert (round_of(slug).status, round_of(slug).settled_total_pence) == ("met", 10_000)
    assert "£100 of £100 was pledged" in reader.open(f"/cases/{slug}").words
    refusals = {
        "refused@example.org": ["Your £30 pledge counts", "Your £30 pledge: your bank refused the payment"],
        "unapproved@example.org": ["Your £20 pledge counts", "Your bank wants you to approve £20"],
    }
    for address, subjects in refusals.items():
        told(house, address, *subjects)
        letter = next(letter for letter in house.letters(to=address) if f"Subject: {subjects[1]}" in letter)
        assert body(letter).startswith("You have not been charged.")
        link = next(line for line in letter.splitlines() if "/pledges/" in line)
        assert "You have not been charged." in reader.open(link).words
    assert not {refused.id, unapproved.id} & set(Pledge.waiting_for_repair(now()))
    time_passes(slug, A_WEEK)
    assert eventually(lambda: states(slug) == ["charged", "dropped", "dropped"])
    for pledge in (refused, unapproved):
        (payment,) = house.payments_of(pledge.id)
        assert (payment["status"], payment["amount_received"]) == ("canceled", 0)
    assert eventually(lambda: not any(card_is_saved(house, card) for card in cards))
    for (address, subjects), amount in zip(refusals.items(), ("£30", "£20"), strict=True):
        told(house, address, *subjects, f"Your {amount} pledge has ended; you were not charged")
    assert (round_of(slug).status, round_of(slug).settled_total_pence) == ("met", 10_000)


def test_a_case_that_the_operator_cancels_lets_every_pledge_go(house: House, reader: Reader) -> None:
    slug = a_case(target=1_000, title="A case that stops").slug
    pledge = a_real_pledge(house, slug, 25, email="stopped@example.org")
    card = pledge.payment_method_id
    _, started = on_card_page(house, slug, 30, email="stopped-started@example.org")
    said = house.run("cancel-case", "--reason", "The other side gave in.", slug)
    assert (said.returncode, said.stdout) == (0, f"{slug} is cancelled. Nobody is charged.\n")
    assert states(slug) == ["released", "released"]
    assert eventually(lambda: not card_is_saved(house, card))
    assert eventually(
        lambda: stripe_object(house, f"checkout/sessions/{started.session_id}")["status"] == "expired"
    )  # fmt: skip
    assert eventually(lambda: "Saved cards have been removed" in reader.open(f"/cases/{slug}").words)
    assert "This case was cancelled. The other side gave in. Nobody was charged" in reader.words
    stopped = "You are not charged: A case that stops was cancelled"
    told(house, "stopped@example.org", "Your £25 pledge counts", stopped)
    assert letters_about(house, "stopped-started@example.org") == []
    assert house.payments_of(pledge.id) == []
    again = house.run("cancel-case", "--reason", "Twice.", slug)
    assert (again.returncode, again.stderr) == (1, "Error: This case's round has already been decided.\n")


def test_a_card_saved_just_before_its_case_was_cancelled_is_let_go_and_its_owner_told_why(house: House) -> None:
    slug = a_case(title="A case that stops at once").slug
    house.fault(event="*", fault="hold", times="always")
    at_stripe, pledge = on_card_page(house, slug, 25, email="saved-and-stopped@example.org")
    save_card_and_close_the_tab(at_stripe)
    assert house.run("cancel-case", "--reason", "It is settled.", slug).returncode == 0
    let_events_go(house)
    told(house, "saved-and-stopped@example.org", "You are not charged: A case that stops at once was cancelled")
    session = stripe_object(house, f"checkout/sessions/{pledge.session_id}?expand[]=setup_intent")
    assert eventually(lambda: not card_is_saved(house, session["setup_intent"]["payment_method"]))
    assert eventually(lambda: not round_of(slug).cards_left())
    assert states(slug) == ["released"]
