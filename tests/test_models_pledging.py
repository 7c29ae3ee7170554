"""A pledge from the form to the saved card, and back: what counts, what can be changed, what can be cancelled."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask

import law
from law import Refused
from models import Event, Letter, Pledge, Round, db
from tests.made import a_case, a_pledge, card_found, confirm, keep, now

SECOND = dt.timedelta(seconds=1)


def counters(its_round: Round) -> tuple[int, int]:
    return its_round.pledged_pence, its_round.pledge_count


def letters_to(pledge: Pledge) -> list[str]:
    """The kinds of letters that this pledge is owed, in order."""
    found = sa.select(Letter.kind).where(Letter.subject == f"pledge:{pledge.id}").order_by(Letter.id)
    return list(db.session.scalars(found))


def history(row: Pledge | Round) -> list[str]:
    """The states a row went through, as its events tell it."""
    kind = row.__tablename__.rstrip("s")
    found = sa.select(Event.after).where(Event.subject_kind == kind, Event.subject_id == row.id).order_by(Event.id)
    return [after for after in db.session.scalars(found) if after]


# --- Starting ----------------------------------------------------------------------------------------------


def test_a_pledge_counts_when_its_card_is_saved_and_not_before(app: Flask) -> None:
    its_round = a_case(pledged=[9_500]).round
    pledge = a_pledge(its_round, 2_500)
    assert (pledge.status, counters(its_round), letters_to(pledge)) == ("started", (9_500, 1), [])
    confirm(pledge)
    assert (pledge.status, counters(its_round), letters_to(pledge)) == ("confirmed", (12_000, 2), ["confirmed"])


def test_the_news_of_a_saved_card_counts_once_however_often_it_comes(app: Flask) -> None:
    its_round = a_case().round
    pledge = a_pledge(its_round, 2_500)
    for _ in range(10):
        confirm(pledge)
    assert (counters(its_round), letters_to(pledge), history(pledge)) == (
        (2_500, 1), ["confirmed"], ["started", "confirmed"],
    )  # fmt: skip


def test_a_pledge_is_taken_up_to_the_deadline_and_refused_a_second_later(app: Flask) -> None:
    its_round = a_case().round
    assert a_pledge(its_round, as_of=its_round.deadline).status == "started"
    with pytest.raises(Refused, match="This case has closed: it takes no more pledges"):
        a_pledge(its_round, as_of=its_round.deadline + SECOND)


@pytest.mark.parametrize("pence", [-2_500, 0, 499, 1_000_001, 10**12])
def test_an_amount_out_of_bounds_is_refused(app: Flask, pence: int) -> None:
    its_round = a_case().round
    with pytest.raises(Refused, match="A pledge is at least £5 and at most £10,000"):
        a_pledge(its_round, pence)


@pytest.mark.parametrize("pence", [500, 1_000_000])
def test_the_agreement_is_kept_with_its_version_time_and_amount(app: Flask, pence: int) -> None:
    as_of = now()
    pledge = a_pledge(a_case().round, pence, as_of=as_of)
    assert (pledge.agreement_version, pledge.agreement_at, pledge.agreement_pence) == (1, as_of, pence)
    assert pledge.agreement_version in law.AGREEMENTS


# --- Changing, leaving, coming back ------------------------------------------------------------------------


def test_a_card_saved_on_the_old_page_after_the_terms_changed_does_not_count(app: Flask) -> None:
    """The card page showed the old amount, so nobody has agreed to the new one there."""
    its_round = a_case().round
    pledge = a_pledge(its_round, 2_500)
    on_the_old_page = card_found(pledge)
    pledge.promise_again(10_000, "Ada", "ada@example.org", "name", False, now())
    pledge.apply_card(on_the_old_page, now())
    assert (pledge.status, pledge.agreement_pence, counters(its_round)) == ("started", 10_000, (0, 0))


def test_an_answer_about_the_old_page_that_comes_late_is_not_kept(app: Flask) -> None:
    pledge = a_pledge(a_case().round, 2_500)
    old_key = pledge.session_key
    pledge.promise_again(10_000, "Ada", "ada@example.org", "name", False, now())
    assert pledge.next_session == f"pledge-{pledge.id}-session-2"
    pledge.ask_card_page({"amount": "new"}, pledge.round.deadline)
    pledge.card_page_made(old_key, "cs_old", "https://stripe.example/old")
    assert pledge.session_id is None
    pledge.card_page_made(pledge.session_key, "cs_new", "https://stripe.example/new")
    pledge.card_page_made(pledge.session_key, "cs_again", None)
    assert pledge.session_id == "cs_new"


def test_a_pledge_whose_card_page_ended_can_be_taken_up_again_while_the_round_is_open(app: Flask) -> None:
    its_round = a_case().round
    pledge = a_pledge(its_round, 2_500)
    pledge.apply_card(card_found(pledge, expired=True), now())
    assert (pledge.status, counters(its_round), letters_to(pledge)) == ("abandoned", (0, 0), [])
    pledge.promise_again(5_000, "Ada", "ada@example.org", "name", False, its_round.deadline)
    pledge.ask_card_page({}, its_round.deadline)
    pledge.card_page_made(pledge.session_key, "cs_new", None)
    confirm(pledge)
    assert history(pledge) == ["started", "abandoned", "started", "confirmed"]
    assert counters(its_round) == (5_000, 1)


def test_an_abandoned_pledge_cannot_be_taken_up_after_the_deadline(app: Flask) -> None:
    its_round = a_case().round
    pledge = a_pledge(its_round, 2_500)
    pledge.apply_card(card_found(pledge, expired=True), now())
    with pytest.raises(Refused, match="This case has closed: pledges can no longer be changed"):
        pledge.promise_again(5_000, "Ada", "ada@example.org", "name", False, its_round.deadline + SECOND)
    assert (pledge.status, pledge.amount_pence) == ("abandoned", 2_500)


def test_a_confirmed_pledge_is_not_changed_behind_its_agreement(app: Flask) -> None:
    pledge = confirm(a_pledge(a_case().round, 2_500))
    with pytest.raises(Refused, match="Your card is saved, so the pledge stands as you agreed to it"):
        pledge.promise_again(10_000, "Ada", "ada@example.org", "name", False, now())
    assert pledge.amount_pence == 2_500


# --- Cancelling --------------------------------------------------------------------------------------------


def test_cancelling_is_open_up_to_the_deadline_and_takes_the_pledge_out_of_the_total(app: Flask) -> None:
    its_round = a_case(pledged=[9_500]).round
    pledge = confirm(a_pledge(its_round, 2_500))
    pledge.cancel(its_round.deadline)
    pledge.cancel(its_round.deadline)
    assert (pledge.status, counters(its_round)) == ("cancelled", (9_500, 1))
    assert letters_to(pledge) == ["confirmed", "cancelled"]
    assert Pledge.waiting_to_let_go(its_round.deadline) == [pledge.id], "the saved card is to be removed"


def test_cancelling_is_refused_a_second_after_the_deadline_though_nobody_has_closed_the_round_yet(app: Flask) -> None:
    its_round = a_case().round
    pledge = confirm(a_pledge(its_round, 2_500))
    with pytest.raises(Refused, match="This case has closed: pledges can no longer be cancelled"):
        pledge.cancel(its_round.deadline + SECOND)
    assert (its_round.status, pledge.status, counters(its_round)) == ("open", "confirmed", (2_500, 1))


def test_cancelling_is_refused_while_the_round_is_closing_whatever_the_clock_of_this_process_says(app: Flask) -> None:
    its_round = a_case().round
    pledge = confirm(a_pledge(its_round, 2_500))
    its_round.close(its_round.deadline + SECOND)
    with pytest.raises(Refused, match="This case has closed: pledges can no longer be cancelled"):
        pledge.cancel(its_round.deadline - SECOND)


def test_a_cancellation_is_final_even_if_a_card_is_saved_after_it(app: Flask) -> None:
    """The card page was still open in another tab. The card is noted, so that it can be removed, and no more."""
    its_round = a_case(target=2_500).round
    pledge = a_pledge(its_round, 2_500)
    pledge.cancel(now())
    pledge.card_removed()
    confirm(pledge)
    assert (pledge.status, counters(its_round), letters_to(pledge)) == ("cancelled", (0, 0), [])
    assert pledge.payment_method_id and Pledge.waiting_to_let_go(now()) == [pledge.id]
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(its_round.deadline + SECOND)
    assert (its_round.status, pledge.status) == ("missed", "cancelled")


# --- Updates by e-mail -------------------------------------------------------------------------------------


def test_an_update_is_one_letter_for_each_address_that_asked_and_whose_pledge_counted(app: Flask) -> None:
    case = a_case()
    confirm(a_pledge(case.round, email="ada@example.org", wants_updates=True))
    confirm(a_pledge(case.round, email="Ada@example.org", wants_updates=True))
    confirm(a_pledge(case.round, email="bo@example.org", wants_updates=False))
    confirm(a_pledge(case.round, email="di@example.org", wants_updates=True)).cancel(now())
    a_pledge(case.round, email="cy@example.org", wants_updates=True)
    case.publish_update(case.owner, "News", "We filed the claim.", now())
    told = db.session.scalars(sa.select(Letter.subject).where(Letter.kind == "update"))
    assert [db.session.get_one(Pledge, int(subject.partition(":")[2])).email for subject in told] == ["Ada@example.org"]


def test_unsubscribing_ends_the_updates_of_this_case_for_this_address_and_no_other(app: Flask) -> None:
    case, other_case = a_case(), a_case()
    first = confirm(a_pledge(case.round, email="ada@example.org", wants_updates=True))
    second = confirm(a_pledge(case.round, email="ADA@example.org", wants_updates=True))
    stranger = confirm(a_pledge(case.round, email="bo@example.org", wants_updates=True))
    elsewhere = confirm(a_pledge(other_case.round, email="ada@example.org", wants_updates=True))
    first.unsubscribe(now())
    keep()
    wanted = [pledge.wants_updates for pledge in (first, second, stranger, elsewhere)]
    assert wanted == [False, False, True, True]


# --- The private link --------------------------------------------------------------------------------------


def test_a_private_link_opens_its_own_pledge_for_its_own_purpose(app: Flask) -> None:
    its_round = a_case().round
    pledge, other = a_pledge(its_round), a_pledge(its_round)
    assert Pledge.by_link(pledge.link()) is pledge
    assert Pledge.by_link(pledge.link("unsubscribe"), "unsubscribe") is pledge
    assert Pledge.by_link(pledge.link("unsubscribe")) is None
    assert Pledge.by_link(pledge.link(), "unsubscribe") is None
    signature = pledge.link().partition(".")[2]
    assert len(signature) == 43 and signature not in other.link()
    assert Pledge.by_link(f"{other.public_id}.{signature}") is None


@pytest.mark.parametrize(
    "altered",
    [
        lambda link: link[:-1],
        lambda link: link + "A",
        lambda link: link + "=",
        lambda link: link.upper(),
        lambda link: link.partition(".")[0],
        lambda link: link.partition(".")[0] + ".",
        lambda link: link.replace(".", ".."),
        lambda link: link[:-2] + ("AA" if link[-2:] != "AA" else "BB"),
        lambda link: link + "\0",
        lambda link: link + "é💷",
        lambda link: "." + link,
        lambda link: "",
        lambda link: ".",
    ],
)
def test_an_altered_link_opens_nothing(app: Flask, altered: object) -> None:
    link = a_pledge(a_case().round).link()
    assert Pledge.by_link(altered(link)) is None  # type: ignore[operator]


def test_raising_the_version_kills_the_links_given_out_before(app: Flask) -> None:
    pledge = a_pledge(a_case().round)
    before = pledge.link()
    pledge.link_version += 1
    assert Pledge.by_link(before) is None and Pledge.by_link(pledge.link()) is pledge


def test_a_new_link_secret_keeps_old_links_alive_as_long_as_the_old_one_is_a_fallback(app: Flask) -> None:
    pledge = a_pledge(a_case().round)
    (first,) = app.config["LINK_SECRETS"]
    old_link = pledge.link()
    app.config["LINK_SECRETS"] = ["a second secret of 32 characters", first]
    assert Pledge.by_link(old_link) is pledge
    assert pledge.link() != old_link and Pledge.by_link(pledge.link()) is pledge
    app.config["LINK_SECRETS"] = ["a second secret of 32 characters"]
    assert Pledge.by_link(old_link) is None


def test_nothing_that_the_database_holds_opens_a_private_page(app: Flask) -> None:
    """Whoever steals the database alone cannot cancel or read a pledge by its link."""
    pledge = a_pledge(a_case().round)
    keep()
    signature = pledge.link().partition(".")[2]
    rows = [str(row) for table in db.metadata.sorted_tables for row in db.session.execute(sa.select(table))]
    assert any(pledge.public_id in row for row in rows) and not any(signature in row for row in rows)


def test_a_form_sent_again_after_the_deadline_leads_back_to_a_saved_card_but_not_to_stripe(app: Flask) -> None:
    its_round = a_case(target=600_000).round
    saved, unsaved = confirm(a_pledge(its_round, 2_500)), a_pledge(its_round, 5_000)
    assert _sent_again(unsaved, its_round.deadline) is unsaved
    its_round.close(its_round.deadline + SECOND)
    late = its_round.deadline + SECOND
    assert _sent_again(saved, late) is saved
    with pytest.raises(Refused, match="This case has closed: it takes no more pledges"):
        _sent_again(unsaved, late)


def _sent_again(pledge: Pledge, as_of: dt.datetime) -> Pledge:
    return pledge.round.start_pledge(
        form_key=pledge.form_key, amount_pence=pledge.amount_pence, name=pledge.name, email=pledge.email,
        shown_as="name", wants_updates=False, as_of=as_of,
    )  # fmt: skip
