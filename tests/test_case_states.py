"""What the case page says once a case is not live any more, or not yet; and how the home page lists it."""

import datetime as dt

import pytest
from flask.testing import FlaskClient

from models import Case
from tests.made import a_case, keep, now
from tests.reading import read, said


def an_ended_case(target: int, pledged: list[int], then: str = "settled") -> Case:
    """A case whose deadline passed a second ago: `then` it is closing, or settled."""
    case = a_case(target=target, pledged=pledged)
    case.round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())
    if then == "closing":
        case.round.close(now())
    if then == "settled":
        case.round.close(now())
        case.round.settle(now())
    keep()
    return case


# --- Each state has its own honest page --------------------------------------------------------------------


@pytest.mark.broken_books("the case was live before, which no such case is")
@pytest.mark.parametrize("status", ["draft", "submitted", "changes_requested", "approved", "rejected"])
def test_a_case_that_is_not_live_yet_does_not_exist_for_strangers(client: FlaskClient, status: str) -> None:
    case = a_case(slug="secret-case", title="A secret title")
    case.status, case.live_from = status, now()
    keep()
    for address in ("", "/pledge-total", "/comments", "/pledge", "/comments/thanks"):
        answer = client.get(f"/cases/secret-case{address}")
        assert answer.status_code == 404
        assert "secret title" not in answer.text
    for address in ("/pledges", "/comments"):
        assert client.post(f"/cases/secret-case{address}").status_code == 404
    assert "secret title" not in client.get("/").text


def test_a_case_whose_deadline_just_passed_takes_nothing_more_and_says_so(client: FlaskClient) -> None:
    for then in ("open", "closing"):
        panel = _ended(client, an_ended_case(600_000, [9_500], then))
        assert "The deadline has passed, and the pledges are being settled." in panel
        assert "No new pledge can be made, and none can be cancelled." in panel
        assert "Stripe" not in panel


def test_a_round_that_waits_for_stripe_says_so(client: FlaskClient) -> None:
    case = an_ended_case(600_000, [9_500], "closing")
    case.round.trouble = "StripeAway: Traceback"
    keep()
    panel = _ended(client, case)
    assert "Stripe, which keeps the cards, has not answered for all of them yet. Nobody is charged until every" in panel
    assert "Traceback" not in panel


def test_a_funded_case_says_what_was_reached(client: FlaskClient) -> None:
    panel = _ended(client, an_ended_case(10_000, [9_500, 2_500]))
    assert "£120 pledged of £100 target from 2 pledges £120 of £100 120% of the target" in panel
    assert "This case reached its target. £120 of £100 was pledged by " in panel
    assert "Each supporter's card is charged once." in panel


def test_a_missed_case_says_that_cards_are_gone_only_when_they_are(client: FlaskClient) -> None:
    case = an_ended_case(600_000, [9_500, 2_500])
    panel = _ended(client, case)
    assert "£120 pledged of £6,000 target from 2 pledges" in panel
    assert "This case did not reach its target. £120 of £6,000 was pledged. Nobody was charged, and nobody" in panel
    first, second = case.round.pledges("released")
    first.card_removed()
    keep()
    assert "Saved cards have been removed" not in _ended(client, case)
    second.card_removed()
    keep()
    assert "nobody will be. Saved cards have been removed." in _ended(client, case)


def test_a_cancelled_case_gives_the_reason_and_never_speaks_of_its_deadline(client: FlaskClient) -> None:
    case = a_case(pledged=[2_500])
    case.cancel("The other side gave in <b>at last</b>.", "operator", now())
    keep()
    panel = _ended(client, case)
    assert "This case was cancelled. The other side gave in <b>at last</b>. Nobody was charged" in panel
    assert "Saved cards have been removed" not in panel
    answer = client.get(f"/cases/{case.slug}/pledge")
    assert answer.status_code == 409
    assert "It was cancelled." in answer.text
    assert "deadline" not in answer.text
    case.round.pledges("released")[0].card_removed()
    keep()
    assert "Saved cards have been removed." in _ended(client, case)


def _ended(client: FlaskClient, case: Case) -> str:
    """The panel of a case that has ended: it offers no pledge, and nothing of the page asks again."""
    page = read(client, f"/cases/{case.slug}")
    assert not page.select("a.button, .promise, [data-hx-get], [data-hx-trigger]")
    assert said(page, "#comment-form h3") == "Leave a comment"
    return said(page, "#pledge-total")


# --- The home page -----------------------------------------------------------------------------------------


def test_the_home_page_lists_live_cases_first_and_newest_first(client: FlaskClient) -> None:
    for title in ("Live and old", "Funded", "Missed", "Cancelled", "Closing", "Live and new"):
        _a_listed_case(title)
    page = read(client, "/")
    titles = [said(card.h2) for card in page.select(".card")]
    assert titles == ["Live and new", "Closing", "Live and old", "Missed", "Funded"]
    live, closing, _, missed, funded = [said(card) for card in page.select(".card")]
    assert live == (
        "Live and new by A Owner In short. £95 pledged of £6,000 target from 1 pledge £95 of £6,000 7 days to go"
    )
    assert closing.endswith("Being settled.")
    assert missed.endswith("Ended: it did not reach its target, nobody was charged.")
    assert funded.endswith("Funded: it reached its target.")


def _a_listed_case(title: str) -> None:
    case = a_case(title=title, target=9_500 if title == "Funded" else 600_000, pledged=[9_500])
    if title == "Cancelled":
        case.cancel("No more.", "operator", now())
    elif not title.startswith("Live"):
        case.round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())
        case.round.close(now())
        if title != "Closing":
            case.round.settle(now())
    keep()


def test_an_empty_home_page_says_that_it_is_empty(client: FlaskClient) -> None:
    assert said(read(client, "/"), "main").endswith("There are no cases here yet.")
