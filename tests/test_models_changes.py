"""What the supporter of a pledge that counts may change in the models: its amount, name and address, and its link."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask

import letters
from law import Refused
from models import AddressChange, Agreement, Case, Letter, LinkRequest, Pledge, Round, db
from tests.made import a_case, a_new_card, a_pledge, a_user, card_found, confirm, now
from tests.mailbox import text_of
from tests.test_models_pledging import counters, letters_to
from views.words import history

SECOND, DAY = dt.timedelta(seconds=1), dt.timedelta(days=1)


def a_counted(pence: int = 2_500, *, email: str = "ada@example.org", case: Case | None = None) -> Pledge:
    """A pledge that counts, of a case of £6,000 in which somebody else has pledged £95."""
    its_case = case or a_case(target=600_000, pledged=[9_500])
    return confirm(a_pledge(its_case.round, pence, email=email))


def told(pledge: Pledge) -> list[str]:
    """What the private page tells of its history since its card was saved."""
    return [sentence for _, sentence in history(pledge)][2:]


def owed(kind: str) -> list[Letter]:
    return list(db.session.scalars(sa.select(Letter).where(Letter.kind == kind).order_by(Letter.id)))


def agreed(pledge: Pledge) -> list[tuple[int, int | None]]:
    """(pence, pence until then) of all that was ever agreed to, oldest first."""
    found = sa.select(Agreement).where(Agreement.pledge_id == pledge.id).order_by(Agreement.id)
    return [(one.amount_pence, one.before_pence) for one in db.session.scalars(found)]


def close(its_round: Round) -> None:
    its_round.close(its_round.deadline + SECOND)


# --- The amount --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pence", [500, 2_499])
def test_less_holds_at_once_with_an_agreement_of_its_own_up_to_the_deadline(app: Flask, pence: int) -> None:
    pledge = a_counted(2_500)
    deadline = pledge.round.deadline
    pledge.change_amount(pence, deadline)
    assert (pledge.amount_pence, pledge.agreement_pence, pledge.agreement_at) == (pence, pence, deadline)
    assert counters(pledge.round) == (9_500 + pence, 2)
    assert agreed(pledge) == [(2_500, None), (pence, 2_500)]
    assert letters_to(pledge) == ["confirmed", "changed"] and pledge.asked_pence is None


def test_what_was_agreed_to_is_kept_in_its_very_words_whatever_becomes_of_the_case(app: Flask) -> None:
    pledge = a_counted(2_500)
    pledge.change_amount(1_250, now())
    pledge.round.case.title = "Another title"
    said = [agreement.words for agreement in pledge.agreements]
    assert said[0].startswith("I allow Standing Test to charge my card £25 once, after ")
    assert said[1].startswith("I allow Standing Test to charge my card £12.50 once, after ")
    assert all("“A case about data” reach £6,000 by then." in words for words in said)


def test_more_holds_only_once_a_card_is_saved_on_a_page_that_names_it(app: Flask) -> None:
    pledge, as_of = a_counted(2_500), now()
    before = pledge.payment_method_id
    pledge.change_amount(4_000, as_of)
    assert (pledge.amount_pence, pledge.page_pence, counters(pledge.round)) == (2_500, 4_000, (12_000, 2))
    assert letters_to(pledge) == ["confirmed"]
    for _ in range(2):
        pledge.apply_card(a_new_card(pledge, as_of) if pledge.asked_pence else card_found(pledge), now())
    assert (pledge.amount_pence, pledge.agreement_pence, counters(pledge.round)) == (4_000, 4_000, (13_500, 2))
    assert pledge.agreement_at == as_of and pledge.payment_method_id == f"pm_new_{pledge.id}" != before
    assert letters_to(pledge) == ["confirmed", "changed"] and pledge.asked_pence is None
    assert told(pledge) == [
        "You asked to raise the amount from £25 to £40.",
        "You saved another card, which is used from now on.",
        "You changed the amount from £25 to £40.",
    ]


def test_more_without_a_card_leaves_everything_as_it_was(app: Flask) -> None:
    pledge = a_counted(2_500)
    pledge.change_amount(4_000, now())
    a_new_card(pledge)
    pledge.apply_card(card_found(pledge, expired=True), now())
    assert (pledge.amount_pence, pledge.agreement_pence, counters(pledge.round)) == (2_500, 2_500, (12_000, 2))
    assert pledge.asked_pence is None and letters_to(pledge) == ["confirmed"]
    assert told(pledge)[-1] == "The amount was not raised, so the pledge stayed as it was."
    pledge.apply_card(a_new_card(pledge), now())
    assert pledge.amount_pence == 2_500, "the next card is only a card"


@pytest.mark.parametrize(("late", "pence", "letter"), [(0, 5_000, "changed"), (1, 2_500, "not_raised")])
def test_a_raise_is_decided_by_stripes_clock_and_the_round_waits_for_it(
    app: Flask, late: int, pence: int, letter: str
) -> None:
    """£25 of £50: with the raise the target is reached to the penny."""
    its_round = a_case(target=5_000).round
    pledge = a_counted(2_500, case=its_round.case)
    pledge.change_amount(5_000, its_round.deadline)
    found = a_new_card(pledge, its_round.deadline + late * SECOND)
    close(its_round)
    with pytest.raises(Refused, match="not ready to be settled"):
        its_round.settle(its_round.deadline + SECOND)
    pledge.apply_card(found, its_round.deadline + 2 * SECOND)
    its_round.settle(its_round.deadline + 3 * SECOND)
    assert (its_round.status, its_round.settled_total_pence) == ("missed" if late else "met", pence)
    assert (pledge.amount_pence, letters_to(pledge)[1]) == (pence, letter)


@pytest.mark.parametrize(("counts", "pence"), [(True, 4_000), (False, 2_500)])
def test_a_person_who_decides_about_the_card_of_a_raise_decides_about_the_raise(
    app: Flask, counts: bool, pence: int
) -> None:
    pledge = a_counted(2_500)
    pledge.change_amount(4_000, now())
    pledge.decide_card(a_new_card(pledge), counts, "operator", now())
    assert (pledge.amount_pence, pledge.asked_pence, pledge.awaits_card) == (pence, None, False)
    assert counters(pledge.round) == (9_500 + pence, 2)
    assert letters_to(pledge)[1:] == ["changed" if counts else "not_raised"]


def test_a_raise_that_waits_does_not_outlive_a_cancellation(app: Flask) -> None:
    pledge = a_counted(2_500)
    pledge.change_amount(4_000, now())
    found = a_new_card(pledge)
    pledge.cancel(now())
    pledge.apply_card(found, now())
    assert (pledge.status, pledge.amount_pence, counters(pledge.round)) == ("cancelled", 2_500, (9_500, 1))
    assert letters_to(pledge) == ["confirmed", "cancelled"]


@pytest.mark.parametrize(
    ("pence", "words"),
    [
        (499, "A pledge is at least £5 and at most £10,000"),
        (1_000_001, "A pledge is at least £5 and at most £10,000"),
        (-2_500, "A pledge is at least £5 and at most £10,000"),
        (2_500, "Your pledge is £25 already"),
    ],
)
def test_an_amount_out_of_bounds_or_the_same_again_is_refused(app: Flask, pence: int, words: str) -> None:
    pledge = a_counted(2_500)
    with pytest.raises(Refused, match=words):
        pledge.change_amount(pence, now())
    assert (pledge.amount_pence, pledge.asked_pence, agreed(pledge)) == (2_500, None, [(2_500, None)])


def test_no_amount_is_changed_after_the_deadline_nor_while_the_round_closes(app: Flask) -> None:
    pledge = a_counted(2_500)
    closed = "This case has closed: pledges can no longer be changed"
    for pence in (1_000, 5_000):
        with pytest.raises(Refused, match=closed):
            pledge.change_amount(pence, pledge.round.deadline + SECOND)
    close(pledge.round)
    with pytest.raises(Refused, match=closed):
        pledge.change_amount(1_000, pledge.round.deadline - SECOND)
    with pytest.raises(Refused, match=closed):
        pledge.rename("Ada", "hidden", pledge.round.deadline - SECOND)
    assert (pledge.amount_pence, counters(pledge.round)) == (2_500, (12_000, 2))


def test_while_pledging_is_paused_a_pledge_may_become_lower_but_not_higher(app: Flask) -> None:
    staff, pledge = a_user("staff"), a_counted(2_500)
    pledge.round.case.switch("pledging_paused", True, "We look into it.", db.session.merge(staff), now())
    with pytest.raises(Refused, match="Pledging for this case is paused"):
        pledge.change_amount(5_000, now())
    pledge.change_amount(1_000, now())
    assert (pledge.amount_pence, pledge.asked_pence) == (1_000, None)


def test_while_a_card_page_is_open_no_other_amount_slips_under_it(app: Flask) -> None:
    """The view closes the page at Stripe first; somebody may have opened another one meanwhile."""
    pledge = a_counted(2_500)
    a_new_card(pledge)
    with pytest.raises(Refused, match="was opened for this pledge just now"):
        pledge.change_amount(1_000, now())
    assert pledge.amount_pence == 2_500


def test_a_letter_about_an_amount_that_was_changed_again_is_not_sent(app: Flask) -> None:
    pledge = a_counted(2_500)
    pledge.change_amount(2_000, now())
    pledge.change_amount(1_000, now() + SECOND)
    assert [letters.is_true(letter) for letter in owed("changed")] == [False, True]
    assert "from £20 to £10" in str(text_of(letters.write(owed("changed")[1])))
    pledge.cancel(now())
    assert [letters.is_true(letter) for letter in owed("changed")] == [False, False]


# --- The name, and updates ---------------------------------------------------------------------------------


def test_a_new_name_and_a_new_wish_for_updates_are_each_told_once(app: Flask) -> None:
    pledge = a_counted()
    for _ in range(2):
        pledge.rename("Ada W.", "hidden", now())
        pledge.subscribe(now())
    assert (pledge.name, pledge.public_name, pledge.wants_updates) == ("Ada W.", "Anonymous", True)
    pledge.unsubscribe(now())
    assert told(pledge) == [
        "You changed how you are shown.", "You asked for updates.", "You asked for no more updates.",
    ]  # fmt: skip


def test_before_its_card_is_saved_each_term_that_is_changed_is_told_and_no_other(app: Flask) -> None:
    pledge = a_pledge(a_case().round, 2_500, email="ada@example.org")
    for terms in ((2_500, "Ada Winter", "ada@example.org"), (4_000, "Ada Winter", "ada@home.example"),
                  (4_000, "Ada", "ada@home.example")):  # fmt: skip
        pledge.promise_again(*terms, "name", False, now())
    assert [sentence for _, sentence in history(pledge)] == [
        "You began this pledge.",
        "You changed the amount from £25 to £40.",
        "You changed your e-mail address.",
        "You changed how you are shown.",
    ]


# --- The link ----------------------------------------------------------------------------------------------


def test_a_replaced_link_is_dead_at_once_for_all_but_the_updates_and_the_new_one_goes_out(app: Flask) -> None:
    pledge = a_counted()
    old = {purpose: pledge.link(purpose) for purpose in ("pledge", "unfinished", "unsubscribe")}
    pledge.replace_link(now())
    opened = {purpose: Pledge.by_link(link, purpose) for purpose, link in old.items()}
    assert opened == {"pledge": None, "unfinished": None, "unsubscribe": pledge}
    assert Pledge.by_link(pledge.link()) is pledge
    assert pledge.link() in str(text_of(letters.write(owed("link_replaced")[0])))
    assert told(pledge) == ["You replaced the link of this page."]


def test_a_link_is_replaced_five_times_a_day_and_not_a_sixth_time(app: Flask) -> None:
    pledge, as_of = a_counted(), now()
    for _ in range(5):
        pledge.replace_link(as_of)
    with pytest.raises(Refused, match="This link was replaced 5 times today"):
        pledge.replace_link(as_of + DAY - SECOND)
    pledge.replace_link(as_of + DAY + SECOND)
    assert len(owed("link_replaced")) == pledge.link_version - 1 == 6


# --- Another address ---------------------------------------------------------------------------------------


def recipients(*kinds: str) -> list[tuple[str, str]]:
    """(kind, to whom) of the letters of these kinds that are owed."""
    found = sa.select(Letter).where(Letter.kind.in_(kinds)).order_by(Letter.id)
    return [(one.kind, letters.write(one)["To"].addresses[0].addr_spec) for one in db.session.scalars(found)]


def test_letters_go_to_another_address_once_its_reader_says_so_with_a_new_link(app: Flask) -> None:
    pledge = a_counted(email="ada@exmaple.org")
    old_link = pledge.link()
    change = pledge.ask_other_address("ada@example.org", now())
    assert (pledge.email, Pledge.by_link(old_link)) == ("ada@exmaple.org", pledge)
    assert pledge.address_asked(now()) == "ada@example.org"
    change.make(now())
    assert (pledge.email, pledge.address_asked(now())) == ("ada@example.org", "")
    assert Pledge.by_link(old_link) is None, "it lies in a stranger's letters"
    assert recipients("new_address", "link_replaced", "address_left") == [
        ("new_address", "ada@example.org"), ("link_replaced", "ada@example.org"), ("address_left", "ada@exmaple.org"),
    ]  # fmt: skip
    with pytest.raises(Refused, match="This was done already"):
        change.make(now())


def test_a_thief_of_the_link_cannot_keep_its_true_owner_out(app: Flask) -> None:
    """The thief moves the letters twice and replaces the link. The owner takes it back, and every link is new."""
    pledge = a_counted(email="ada@example.org")
    changes = []
    for thiefs in ("eve@example.org", "mallory@example.org"):
        changes.append(pledge.ask_other_address(thiefs, now()))
        changes[-1].make(now())
    waits = pledge.ask_other_address("trudy@example.org", now())
    pledge.replace_link(now())
    thiefs_link, owners = pledge.link(), AddressChange.by_link(changes[0].link("old-address"), "old-address")
    assert owners is changes[0]
    owners.take_back(now() + 30 * DAY - SECOND)
    assert pledge.email == "ada@example.org" and Pledge.by_link(thiefs_link) is None
    assert recipients("link_replaced")[-1] == ("link_replaced", "ada@example.org")
    assert recipients("address_taken_back") == [
        ("address_taken_back", "eve@example.org"), ("address_taken_back", "mallory@example.org"),
    ]  # fmt: skip
    with pytest.raises(Refused, match="This was taken back already"):
        changes[1].take_back(now())
    with pytest.raises(Refused, match="or the link of the pledge was replaced since"):
        waits.make(now())
    assert pledge.email == "ada@example.org"


def test_a_new_address_waits_three_days_and_the_old_one_may_object_for_thirty(app: Flask) -> None:
    pledge, as_of = a_counted(email="ada@example.org"), now()
    late = pledge.ask_other_address("late@example.org", as_of)
    with pytest.raises(Refused, match="This link is too old"):
        late.make(as_of + 3 * DAY + SECOND)
    with pytest.raises(Refused, match="It is too late to take this back"):
        late.take_back(as_of)
    made = pledge.ask_other_address("made@example.org", as_of)
    made.make(as_of + 3 * DAY)
    with pytest.raises(Refused, match="It is too late to take this back"):
        made.take_back(as_of + 33 * DAY + SECOND)
    assert pledge.email == "made@example.org"


def test_a_wish_for_another_address_dies_with_the_link_it_came_by(app: Flask) -> None:
    pledge = a_counted(email="ada@example.org")
    change = pledge.ask_other_address("eve@example.org", now())
    pledge.replace_link(now())
    with pytest.raises(Refused, match="the link of the pledge was replaced since"):
        change.make(now())
    assert (pledge.email, pledge.address_asked(now())) == ("ada@example.org", "")
    assert not letters.is_true(owed("new_address")[0])


def test_five_addresses_are_tried_a_day_and_none_once_the_pledge_has_ended(app: Flask) -> None:
    pledge, as_of = a_counted(), now()
    for number in range(5):
        pledge.ask_other_address(f"ada-{number}@example.org", as_of)
    with pytest.raises(Refused, match="5 addresses were tried today"):
        pledge.ask_other_address("ada-6@example.org", as_of + SECOND)
    pledge.cancel(as_of)
    with pytest.raises(Refused, match="This pledge has ended, and no more letters about it will come"):
        pledge.ask_other_address("ada-7@example.org", as_of + 2 * DAY)
    assert len(owed("new_address")) == 5


def test_a_link_for_one_address_opens_no_other_door(app: Flask) -> None:
    case = a_case()
    first, second = (a_counted(case=case).ask_other_address("ada@home.example", now()) for _ in range(2))
    link = first.link("new-address")
    assert AddressChange.by_link(link, "new-address") is first
    assert AddressChange.by_link(link, "old-address") is None and Pledge.by_link(link) is None
    assert AddressChange.by_link(f"{second.public_id}.{link.partition('.')[2]}", "new-address") is None
    assert AddressChange.by_link(first.pledge.link(), "new-address") is None


# --- Lost links --------------------------------------------------------------------------------------------


def test_one_letter_lists_the_living_pledges_of_an_address_newest_first(app: Flask) -> None:
    case, other = a_case(title="Whose data?"), a_case(title="The river")
    first, second = a_counted(2_500, case=case), a_counted(5_000, email="ADA@example.org", case=other)
    a_counted(1_000, case=case).cancel(now())
    a_counted(1_500, email="bo@example.org", case=case)
    third = a_pledge(other.round, 2_000, email="ADA@example.org")
    LinkRequest.ask("Ada@Example.org", now())
    (letter,) = owed("links")
    message = letters.write(letter)
    assert message["To"].addresses[0].addr_spec == "ADA@example.org"
    said = [line for line in str(text_of(message)).splitlines() if "£" in line or "/pledges/" in line]
    site = "http://127.0.0.1:8000/pledges"
    assert said == [
        "£20 for The river (does not count yet):", f"{site}/{third.link()}",
        "£50 for The river:", f"{site}/{second.link()}", "£25 for Whose data?:", f"{site}/{first.link()}",
    ]  # fmt: skip


def test_nobody_gets_a_letter_at_an_address_without_living_pledges(app: Flask) -> None:
    a_counted(email="gone@example.org").cancel(now())
    for email in ("nobody@example.org", "gone@example.org"):
        LinkRequest.ask(email, now())
    assert [letters.is_true(letter) for letter in owed("links")] == [False, False]


def test_links_that_are_asked_for_again_within_ten_minutes_are_one_letter(app: Flask) -> None:
    as_of = now()
    for minutes in (0, 1, 10, 11, 15):
        LinkRequest.ask("ada@example.org", as_of + dt.timedelta(minutes=minutes))
    assert [letter.created_at - as_of for letter in owed("links")] == [dt.timedelta(), dt.timedelta(minutes=11)]


def test_addresses_that_were_asked_for_are_forgotten_after_a_day_once_their_letter_is_done(app: Flask) -> None:
    as_of = now()
    for email in ("done@example.org", "waits@example.org"):
        LinkRequest.ask(email, as_of)
    owed("links")[0].overtaken(as_of)
    LinkRequest.ask("new@example.org", as_of + DAY + SECOND)
    kept = db.session.scalars(sa.select(LinkRequest.email).order_by(LinkRequest.email))
    assert kept.all() == ["new@example.org", "waits@example.org"]
