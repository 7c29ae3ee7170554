"""Stripe's news of what comes after a charge: in every order, and each of it twice, it leads to the same end.

The news of the charge itself is in tests/test_inbox.py. What Stripe tells is only a reason to look, so what matters is
when the first of it comes: before the next thing has happened there, or only after the last one.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from jobs.inbox import drain_stripe_events
from jobs.refunds import send_refunds
from models import Dispute, Letter, Movement, Pledge, Refund, StripeEvent, User, db
from tests.at_stripe import close_dispute, sdk
from tests.backup import back_up, restore
from tests.books import contradictions
from tests.charged import asked, charged, control
from tests.made import a_user, keep, now
from tests.sandbox_process import SandboxProcess

pytestmark = pytest.mark.slow

News = list[dict[str, Any]]
# What Stripe tells of a refund, and of a dispute, that we listen to; and `charge.refunded`, that we keep only.
OF_A_REFUND = ("refund.created", "charge.refunded", "refund.updated", "refund.failed")
OF_A_DISPUTE = (
    "charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.dispute.closed",
    "charge.dispute.funds_reinstated",
)  # fmt: skip


@pytest.fixture
def pledge(asks_the_sandbox: Flask, sandbox: SandboxProcess) -> Pledge:
    """One of £25 that was charged; somebody of staff is there to be told."""
    found = charged(sandbox, 2_500)
    a_user("staff")
    return db.session.get_one(Pledge, found.id)


def staff() -> User:
    """Whoever asks for refunds, and is told of what went wrong."""
    return User.with_role("staff")[0]


def told_by(sandbox: SandboxProcess, kinds: tuple[str, ...]) -> News:
    """What Stripe has told so far of these kinds, oldest first."""
    keep()
    listed = sdk(sandbox).v1.events.list({"limit": 100, "types": list(kinds)}).data
    return [
        {"event_id": one.id, "kind": one.type, "object_id": one.data.object["id"], "payload": str(one)}
        for one in reversed(listed)
    ]


def comes(news: dict[str, Any], copy: str = "") -> None:
    StripeEvent.store(**{**news, "event_id": news["event_id"] + copy}, created_at=now(), as_of=now())


def drained() -> None:
    db.session.commit()
    drain_stripe_events()


def one_after_the_other(order: News) -> None:
    """Each is worked on before the next comes; with that one it comes once more."""
    before: dict[str, Any] | None = None
    for news in order:
        if before:
            comes(before, "-again")
        comes(news)
        drained()
        before = news
    comes(order[-1], "-again")
    drained()


def all_at_once(order: News) -> None:
    """All of it waits, each twice, when somebody looks."""
    for news in order:
        for copy in ("", "-again"):
            comes(news, copy)
    drained()


def ends(news: News) -> Iterator[tuple[str, dict[str, list[Any]]]]:
    """For each order of this news, in both ways and beginning with our rows as they are now, what the end is."""
    rows = back_up()
    for order in itertools.permutations(news):
        for way in (one_after_the_other, all_at_once):
            restore(rows)
            way(list(order))
            yield f"{way.__name__}: {[one['kind'] for one in order]}", what_is_so()
    restore(rows)


def what_is_so() -> dict[str, list[Any]]:
    """The rows that money has, the letters, and what the doctor says; in an order of their own."""
    rows = {
        "pledge": sa.select(Pledge.status, Pledge.refunded_pence),
        "refunds": sa.select(Refund.status, Refund.code, Refund.stripe_id),
        "disputes": sa.select(Dispute.status, Dispute.amount_pence, Dispute.closed_at.is_not(None)),
        "movements": sa.select(Movement.kind, Movement.amount_pence, Movement.stripe_id),
        "letters": sa.select(Letter.kind, Letter.subject, Letter.occasion),
        "waiting": sa.select(StripeEvent.type, StripeEvent.next_at).where(StripeEvent.processed_at.is_(None)),
    }
    found: dict[str, list[Any]] = {
        name: sorted(tuple(row) for row in db.session.execute(question)) for name, question in rows.items()
    }
    # The numbers of rows go on on PostgreSQL, also when those rows are taken back; there is one dispute at most.
    found["letters"] = [(kind, to, re.sub(r"^dispute:\d+", "dispute", about)) for kind, to, about in found["letters"]]
    found["contradictions"] = contradictions()
    db.session.commit()
    return found


def the_same_end(news: News) -> dict[str, list[Any]]:
    """The end to which each of the 24 orders of this news leads. Fails when one leads elsewhere."""
    every = ends(news)
    first, end = next(every)
    assert (end["waiting"], end["contradictions"]) == ([], [])
    orders = 1
    for order, other in every:
        assert other == end, f"{order} leads elsewhere than {first}"
        orders += 1
    assert orders == 2 * 24
    return end


def amounts(end: dict[str, list[Any]], kind: str) -> list[int]:
    return [pence for what, pence, _ in end["movements"] if what == kind]


def letters(end: dict[str, list[Any]], *kinds: str) -> list[str]:
    return [kind for kind, _, _ in end["letters"] if kind in kinds]


# --- Refunds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("whose", "amount"), [("ours", 2_500), ("ours, its answer lost", 1_000), ("by hand", 2_500)])
def test_news_of_a_refund_that_failed_in_every_order(
    pledge: Pledge, sandbox: SandboxProcess, whose: str, amount: int
) -> None:
    """Asked for by staff, with its answer heard or lost, or made at Stripe by hand."""
    intent_id, rows = str(pledge.payment_intent_id), back_up()
    if whose == "by hand":
        sdk(sandbox).v1.refunds.create({"payment_intent": intent_id, "amount": amount})
    else:
        asked(pledge, amount, by=staff())
        rows = back_up()
        send_refunds()
    if whose != "ours":
        restore(rows)
    (refund,) = sdk(sandbox).v1.refunds.list({"payment_intent": intent_id}).data
    control(sandbox, f"refunds/{refund.id}/failure")
    end = the_same_end(told_by(sandbox, OF_A_REFUND))
    assert end["pledge"] == [("charged", 0)]
    # What we never saw succeed was never booked.
    assert amounts(end, "refund") == ([-amount, amount] if whose == "ours" else [])
    assert [status for status, _, _ in end["refunds"]] == ([] if whose == "by hand" else ["failed"])
    assert letters(end, "refunded") == (["refunded"] if whose == "ours" else [])
    assert letters(end, "refund_failed") == ([] if whose == "by hand" else ["refund_failed"])


def test_news_of_a_refund_by_hand_that_was_seen_to_succeed_and_failed_then_in_every_order(
    pledge: Pledge, sandbox: SandboxProcess
) -> None:
    sdk(sandbox).v1.refunds.create({"payment_intent": pledge.payment_intent_id})
    all_at_once(told_by(sandbox, OF_A_REFUND))
    (refund,) = sdk(sandbox).v1.refunds.list({}).data
    control(sandbox, f"refunds/{refund.id}/failure")
    later = [news | {"event_id": news["event_id"] + "-later"} for news in told_by(sandbox, OF_A_REFUND)]
    end = the_same_end(later)
    assert (end["pledge"], amounts(end, "refund")) == ([("charged", 0)], [-2_500, 2_500])
    assert letters(end, "refunded", "refund_failed") == ["refund_failed", "refunded"]


def test_news_of_two_parts_of_a_payment_that_went_back_in_every_order(pledge: Pledge, sandbox: SandboxProcess) -> None:
    for amount in (1_000, 1_500):
        sdk(sandbox).v1.refunds.create({"payment_intent": pledge.payment_intent_id, "amount": amount})
    end = the_same_end(told_by(sandbox, OF_A_REFUND))
    assert (end["pledge"], amounts(end, "refund")) == ([("refunded", 2_500)], [-1_500, -1_000])
    assert letters(end, "refunded") == ["refunded", "refunded"]


# --- Disputes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "status", "moved", "told"),
    [
        ("won", "charged", [-2_500, 2_500], ["payment_disputed", "payment_stands", "disputed", "dispute_won"]),
        ("lost", "charged_back", [-2_500],
         ["payment_disputed", "payment_taken_back", "disputed", "dispute_lost"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seen_open", [True, False], ids=["seen while it was open", "not seen before its end"])
def test_news_of_a_dispute_in_every_order(
    pledge: Pledge, sandbox: SandboxProcess, outcome: str, status: str, moved: list[int], told: list[str],
    seen_open: bool,
) -> None:  # fmt: skip
    control(sandbox, f"charges/{pledge.attempts[-1].charge_id}/dispute")
    (dispute,) = sdk(sandbox).v1.disputes.list({}).data
    if seen_open:
        all_at_once(told_by(sandbox, OF_A_DISPUTE)[:1])
        assert what_is_so()["pledge"] == [("disputed", 0)]
    close_dispute(sandbox, dispute.id, outcome)
    news = told_by(sandbox, OF_A_DISPUTE)
    if outcome == "lost":
        # Evidence was sent meanwhile, of which this one tells.
        news.append(news[0] | {"event_id": "evt_updated", "kind": "charge.dispute.updated"})
    later = [one | {"event_id": one["event_id"] + "-later"} for one in news]
    end = the_same_end(later)
    assert (end["pledge"], amounts(end, "dispute")) == ([(status, 0)], moved)
    assert [one[0] for one in end["disputes"]] == [outcome]
    assert sorted(letters(end, *told)) == sorted(told)


# --- Both --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "status"), [("lost", "charged_back"), ("won", "charged")])
def test_news_of_a_refund_that_failed_and_of_the_dispute_that_came_after_it_in_every_order(
    pledge: Pledge, sandbox: SandboxProcess, outcome: str, status: str
) -> None:
    """The whole had gone back, came back to us, and then the bank wanted it."""
    asked(pledge, 2_500, by=staff())
    send_refunds()
    (refund,) = sdk(sandbox).v1.refunds.list({}).data
    control(sandbox, f"refunds/{refund.id}/failure")
    control(sandbox, f"charges/{refund.charge}/dispute")
    (dispute,) = sdk(sandbox).v1.disputes.list({}).data
    close_dispute(sandbox, dispute.id, outcome)
    kinds = ("refund.updated", "refund.failed", "charge.dispute.created", "charge.dispute.closed")
    end = the_same_end(told_by(sandbox, kinds))
    assert (end["pledge"], amounts(end, "refund")) == ([(status, 0)], [-2_500, 2_500])
    assert amounts(end, "dispute") == ([-2_500] if outcome == "lost" else [-2_500, 2_500])
    assert letters(end, "refunded", "refund_failed") == ["refund_failed", "refunded"]
