"""Across the deadline the site stands still, or Stripe does; clocks are wrong; and in London the clocks are changed."""

import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
import time_machine
from flask import Flask
from flask.testing import FlaskClient

import law
from jobs import deadline_capture, inbox, stripe_events
from jobs import sweep as the_sweep
from law import Refused
from models import Lease, Pledge, Round, begin_writing, db
from tests.at_stripe import calls, move_clock, plan, sdk
from tests.charged import again, books, charge_due, due
from tests.crowd import in_another_thread
from tests.doorway import SAME_ORIGIN, signature
from tests.house import eventually
from tests.made import a_case, a_pledge, card_found, case_at, keep, look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess
from tests.test_reconcile import a_pledge_at_stripe

SECOND, MINUTE, HOUR, DAY = (dt.timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
CREATE = "payment_intents.create"


def settle(slug: str, at: dt.datetime) -> str:
    """The job that settles the case's round begins at this instant; what the round is afterwards."""
    round_id = case_at(slug).round.id
    keep()
    with time_machine.travel(at, tick=False):
        deadline_capture.settle_round(round_id)
    return case_at(slug).round.status


def sweep_at(moment: dt.datetime) -> None:
    """The clock comes by at this instant and does all that has waited for it."""
    with time_machine.travel(moment, tick=False):
        the_sweep.sweep(now())
    look_anew()


# --- The site stands still ---------------------------------------------------------------------------------


@pytest.mark.parametrize("down_for", [3 * HOUR, 5 * DAY])
def test_a_site_that_was_down_across_the_deadline_decides_by_what_was_pledged_in_time(
    app: Flask, client: FlaskClient, down_for: dt.timedelta
) -> None:
    case = a_case(target=5_000, pledged=[2_500, 2_500], ends_in=HOUR)
    slug, deadline, counted = case.slug, case.round.deadline, case.round.pledges("confirmed")[0]
    late, link = a_pledge(case.round, 9_000), counted.link()
    keep()
    with time_machine.travel(deadline + down_for, tick=False):
        # Nobody has closed the round yet, and nothing can be done about it all the same.
        assert case_at(slug).round.status == "open"
        form = {"amount": "25", "name": "Bo", "email": "bo@example.org", "agreed": "y", "form_key": "k" * 32}
        assert client.post(f"/cases/{slug}/pledges", data=form, headers=SAME_ORIGIN).status_code == 409
        assert client.post(f"/pledges/{link}/cancellation", headers=SAME_ORIGIN).status_code == 409
        Pledge.hold(late.id).apply_card(card_found(late, saved_at=deadline + SECOND), now())
        keep()
    assert settle(slug, deadline + down_for) == "met"
    its_round = case_at(slug).round
    assert (its_round.settled_total_pence, its_round.settled_count) == (5_000, 2)
    assert [pledge.status for pledge in pledges_of(slug)] == ["due", "due", "released"]


@pytest.mark.parametrize(("after", "status"), [(-SECOND, "open"), (0 * SECOND, "open"), (SECOND, "met")])
@pytest.mark.parametrize(
    ("local", "shown"),
    [
        ("2026-10-25 00:59:59", "Sunday 25 October 2026, 12:59am BST"),
        ("2026-10-25 02:00:00", "Sunday 25 October 2026, 2:00am GMT"),
        ("2027-03-28 00:59:59", "Sunday 28 March 2027, 12:59am GMT"),
        ("2027-03-28 02:00:00", "Sunday 28 March 2027, 2:00am BST"),
    ],
)
def test_in_both_nights_in_which_londons_clocks_change_a_round_ends_at_its_instant_and_says_which(
    app: Flask, client: FlaskClient, local: str, shown: str, after: dt.timedelta, status: str
) -> None:
    deadline = law.deadline_from_local(dt.datetime.fromisoformat(local), "Europe/London")
    with time_machine.travel(deadline - DAY, tick=False):
        slug = a_case(target=2_500, pledged=[2_500], ends_in=DAY).slug
        keep()
        assert shown in client.get(f"/cases/{slug}").get_data(as_text=True)
    assert settle(slug, deadline + after) == status


# --- Stripe stands still -----------------------------------------------------------------------------------


def stripe_is_back(sandbox: SandboxProcess) -> None:
    requests.delete(f"{sandbox.url}/sandbox/faults", timeout=30).raise_for_status()


def test_while_stripe_is_away_for_an_hour_across_the_deadline_nothing_is_decided_and_then_all_is(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """A card that was saved in time, of which nobody has told us, is what the target lacks."""
    case = a_case(target=5_100, ends_in=30 * MINUTE)
    slug, deadline = case.slug, case.round.deadline
    told, untold = a_pledge_at_stripe(case.round, sandbox, 2_500), a_pledge_at_stripe(case.round, sandbox, 2_600)
    stripe_events.look_again_at_card(told.id)
    plan(sandbox, operation="*", fault="refuse", times="always")
    for minutes in (1, 15, 30, 45, 60):
        sweep_at(deadline + minutes * MINUTE)
        assert (case_at(slug).round.status, calls(sandbox, CREATE)) == ("closing", [])
    stripe_is_back(sandbox)
    for minutes in (61, 62):
        sweep_at(deadline + minutes * MINUTE)
    assert [pledge.status for pledge in pledges_of(slug)] == ["charged", "charged"]
    assert (books(told), books(untold)) == ([("charge", 2_500)], [("charge", 2_600)])
    assert len(calls(sandbox, CREATE)) == 2


@pytest.mark.parametrize(("first", "keys"), [("lose_answer", [1, 1, 1]), ("refuse", [1, 1, 1, 2])])
def test_after_26_hours_without_stripe_a_charge_is_looked_up_and_its_forgotten_key_never_sent_again(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, first: str, keys: list[int]
) -> None:
    """The money was taken and the answer lost, or the request never arrived; from our side both look the same."""
    (pledge,) = due(sandbox, 2_500)
    begun = now()
    plan(sandbox, operation=CREATE, fault=first, times=3)
    charge_due()
    plan(sandbox, operation="*", fault="refuse", times="always")
    for hours in (23.1, 24.5, 25.9):
        move_clock(sandbox, hours * HOUR)
        sweep_at(begun + hours * HOUR)
        assert again(pledge).status == "unknown"
    stripe_is_back(sandbox)
    for hours in (26, 26.2):
        move_clock(sandbox, hours * HOUR)
        sweep_at(begun + hours * HOUR)
    # The comparison of that hour has brought Stripe's fee as well.
    assert (again(pledge).status, books(pledge)) == ("charged", [("charge", 2_500), ("fee", -58)])
    asked = [call["idempotency_key"] for call in calls(sandbox, CREATE)]
    assert asked == [f"pledge-{pledge.id}-charge-{number}" for number in keys]


# --- News that comes days later ----------------------------------------------------------------------------


def news_comes_now(client: FlaskClient, sandbox: SandboxProcess, *kinds: str) -> None:
    """Stripe delivers what it could not deliver before. It signs each try anew, and the event keeps its age."""
    for event in reversed(sdk(sandbox).v1.events.list({"limit": 100, "types": list(kinds)}).data):
        assert now() - dt.datetime.fromtimestamp(event.created, dt.UTC) > 2 * DAY
        raw = json.dumps(event.to_dict()).encode()
        answer = client.post("/webhooks/stripe", data=raw, headers={"Stripe-Signature": signature(raw)})
        assert answer.status_code == 200
    begin_writing()
    inbox.drain_stripe_events()


@pytest.mark.parametrize("ended", [False, True], ids=["while the case runs", "after a deadline nobody saw"])
def test_news_of_a_card_that_comes_three_days_later_is_taken_and_the_pledge_counts(
    asks_the_sandbox: Flask, client: FlaskClient, sandbox: SandboxProcess, ended: bool
) -> None:
    case = a_case(target=2_500, ends_in=2 * DAY if ended else 7 * DAY)
    slug, saved_by = case.slug, now() + MINUTE
    pledge = a_pledge_at_stripe(case.round, sandbox, 2_500)
    with time_machine.travel(now() + 3 * DAY, tick=False):
        news_comes_now(client, sandbox, "setup_intent.succeeded", "checkout.session.completed")
        found = again(pledge)
        assert found.status == "confirmed" and found.card_saved_at is not None and found.card_saved_at < saved_by
        assert (case_at(slug).round.pledged_pence, case_at(slug).round.pledge_count) == (2_500, 1)
    if ended:
        assert settle(slug, now() + 3 * DAY) == "met"


def test_news_of_a_charge_that_comes_three_days_later_is_taken_and_nothing_is_asked_again(
    asks_the_sandbox: Flask, client: FlaskClient, sandbox: SandboxProcess
) -> None:
    """The answer was lost, and then the site was down."""
    (pledge,) = due(sandbox, 2_500)
    plan(sandbox, operation=CREATE, fault="lose_answer", times=3)
    charge_due()
    assert again(pledge).status == "unknown"
    with time_machine.travel(now() + 3 * DAY, tick=False):
        news_comes_now(client, sandbox, "payment_intent.succeeded")
        assert (again(pledge).status, books(pledge)) == ("charged", [("charge", 2_500)])
    assert [call["idempotency_key"] for call in calls(sandbox, CREATE)] == [f"pledge-{pledge.id}-charge-1"] * 3


# --- Clocks that are wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [10 * MINUTE, -10 * MINUTE])
def test_a_capturer_whose_clock_is_ten_minutes_wrong_charges_nobody_twice(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, ahead: dt.timedelta
) -> None:
    """Ten minutes ahead it takes the lease and the claim of the one that works, and sends the same key."""
    (pledge,) = due(sandbox, 2_500)
    plan(sandbox, operation=CREATE, fault="hang", when="after", seconds=2)

    def charge_meanwhile() -> None:
        eventually(lambda: calls(sandbox, CREATE))
        with time_machine.travel(now() + ahead, tick=True):
            deadline_capture.charge_due()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(in_another_thread, asks_the_sandbox, charge_meanwhile)
        charge_due()
        other.result(30)
    begin_writing()
    sweep_at(now() + 20 * MINUTE)
    assert (again(pledge).status, books(pledge)) == ("charged", [("charge", 2_500)])
    assert {call["idempotency_key"] for call in calls(sandbox, CREATE)} == {f"pledge-{pledge.id}-charge-1"}


def test_a_clock_that_is_put_back_ten_minutes_opens_no_round_again_and_costs_only_time(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    (pledge,) = due(sandbox, 2_500)
    other = a_case(target=9_000, pledged=[2_500], ends_in=HOUR)
    slug, deadline, counted_id = other.slug, other.round.deadline, other.round.pledges("confirmed")[0].id
    keep()
    fast = deadline + SECOND
    with time_machine.travel(fast, tick=False):
        Round.hold(case_at(slug).round.id).close(now())
        Lease.take("capture", "somebody who died", now(), deadline_capture.CAPTURE_LEASE)
        keep()
    back = fast - 10 * MINUTE
    with time_machine.travel(back, tick=False), pytest.raises(Refused, match="closed"):
        Pledge.hold(counted_id).cancel(now())
    db.session.rollback()
    for late in (0 * SECOND, 9 * MINUTE):
        sweep_at(back + late)
        assert (case_at(slug).round.status, again(pledge).status) == ("closing", "due")
    sweep_at(back + 11 * MINUTE)
    assert (case_at(slug).round.status, again(pledge).status) == ("missed", "charged")
