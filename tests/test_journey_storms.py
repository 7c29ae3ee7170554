"""Many real processes at once, while the doorbell is emptied and workers are killed or told to stop by a deploy."""

import datetime as dt
import json
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import sqlalchemy as sa

import payments
from jobs import deadline_capture, ring
from models import Movement, Round, StripeEvent, db
from payments import ChargeFound
from tests.at_stripe import saved_card
from tests.doorway import signature
from tests.house import House, eventually
from tests.journey import decisions, round_of, states, the_deadline_comes, time_passes, writing
from tests.made import look_anew, now, pledges_of
from tests.sandbox_process import SandboxProcess
from tests.test_capture import asked, charged_exactly_once, limits, with_cards

pytestmark = pytest.mark.slow

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def stripe(house: House) -> Iterator[SandboxProcess]:
    """The house's sandbox, for what is asked of it by hand; nothing is slow afterwards."""
    at = SandboxProcess(house.stripe, [], None)  # type: ignore[arg-type]
    yield at
    limits(at, latency=0)


def bring_valkey_back(house: House) -> None:
    """It was killed, and what it had written is lost."""
    shutil.rmtree(house.folder / "appendonlydir")
    house.start("valkey")


def charge_behind_our_back(house: House, slug: str) -> None:
    """Stripe has the money of every pledge of the case, and we know only that we asked: the answers were lost."""
    round_id = round_of(slug).id
    with writing():
        askings = []
        for pledge in Round.hold(round_id).pledges("due"):
            askings.append(deadline_capture._asking(pledge, pledge.claim(now(), HOUR)))
            pledge.apply_charge(ChargeFound("unknown"), now(), asked=True)
            # Nobody asks again within this test: only the news can tell.
            pledge.next_at = now() + HOUR
    settings = house.app.config["STANDING"]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda asking: payments.charge(settings, asking.params, asking.key), askings)
        assert {one.outcome for one in found} == {"succeeded"}


def all_events(house: House, since: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    more = True
    while more:
        page = house.stripe_list("events", **{"created[gte]": since} | (
            {"starting_after": found[-1]["id"]} if found else {}))  # fmt: skip
        found += page
        more = len(page) == 100
    return found


def test_a_thousand_webhooks_at_once_while_valkey_is_killed_and_emptied_are_all_kept_and_all_applied(
    house: House, stripe: SandboxProcess
) -> None:
    count = 334
    card = saved_card(stripe)
    slug = with_cards(card, count)
    house.kill("worker")
    house.kill("sweep")
    the_deadline_comes(slug, rung=False)
    round_id = round_of(slug).id
    with writing():
        deadline_capture.settle_round(round_id)
    since = int(now().timestamp())
    house.fault(event="*", fault="drop", times="always")
    charge_behind_our_back(house, slug)
    events = [one for one in all_events(house, since) if one["type"].startswith(("payment_intent.", "charge."))]
    assert len(events) == 3 * count
    house.start("worker", "sweep")

    def deliver(event: dict[str, Any]) -> int:
        raw = json.dumps(event).encode()
        headers = {"Stripe-Signature": signature(raw), "Content-Type": "application/json"}
        return requests.post(f"{house.url}/webhooks/stripe", data=raw, headers=headers, timeout=60).status_code

    with ThreadPoolExecutor(50) as crowd:
        answers = [crowd.submit(deliver, event) for event in events]
        assert eventually(lambda: sum(one.done() for one in answers) > 100)
        house.kill("valkey")
        bring_valkey_back(house)
        assert eventually(lambda: sum(one.done() for one in answers) > 600)
        # The rest comes while there is nobody to ring for.
        house.kill("valkey")
        assert {one.result() for one in answers} == {200}
    bring_valkey_back(house)
    kept = sa.select(sa.func.count()).where(StripeEvent.event_id.in_([event["id"] for event in events]))
    assert _count(kept) == 3 * count
    assert eventually(lambda: set(states(slug)) == {"charged"}, within=180)
    assert eventually(lambda: _count(kept.where(StripeEvent.processed_at.is_(None))) == 0)
    ids = [pledge.id for pledge in pledges_of(slug)]
    moved = db.session.scalars(sa.select(Movement.pledge_id).where(Movement.pledge_id.in_(ids)))
    assert sorted(one for one in moved if one) == ids


def _count(asked_for: Any) -> int:
    look_anew()
    return db.session.scalar(asked_for) or 0


@pytest.fixture
def second_sweep(house: House) -> Iterator[None]:
    """Another sweep beside the first."""
    house.commands["second sweep"] = house.commands["sweep"]
    house.start("second sweep")
    yield
    house.kill("second sweep")
    del house.commands["second sweep"]


def test_a_worker_two_sweeps_and_two_captures_by_hand_charge_each_pledge_once_though_redis_is_emptied_in_mid_run(
    house: House, stripe: SandboxProcess, second_sweep: None
) -> None:
    slug = with_cards(saved_card(stripe), 100)
    begun_with = len(asked(house.stripe))
    limits(stripe, latency=0.2)
    the_deadline_comes(slug)
    with ThreadPoolExecutor(2) as pool, house.valkey() as valkey:
        by_hand = [pool.submit(house.run, "capture", "--case", slug) for _ in range(2)]
        for _ in range(3):
            ring("charge_due")
        assert eventually(lambda: len(asked(house.stripe)) > begun_with + 30)
        valkey.flushall()
        assert [one.result().returncode for one in by_hand] == [0, 0]
    assert eventually(lambda: states(slug) == ["charged"] * 100)
    charged_exactly_once(house.stripe, slug, 100)
    assert len(asked(house.stripe)) == begun_with + 100
    assert decisions(slug) == ["met"]


@pytest.mark.parametrize("everything", [False, True], ids=["the worker is told", "its job is told too"])
def test_a_worker_that_is_told_to_stop_in_mid_run_loses_nothing_and_after_the_deploy_another_goes_on(
    house: House, stripe: SandboxProcess, everything: bool
) -> None:
    """SIGTERM at half; the tables are migrated; the worker is started again."""
    slug = with_cards(saved_card(stripe), 120)
    begun_with = len(asked(house.stripe))
    limits(stripe, latency=0.3)
    the_deadline_comes(slug)
    assert eventually(lambda: len(asked(house.stripe)) >= begun_with + 60)
    worker = house.programs["worker"]
    if everything:
        house.kill("worker", signal.SIGTERM)
        limits(stripe, latency=0)
        time_passes(slug)
    else:
        os.kill(worker.pid, signal.SIGTERM)
        # As long as the process manager would wait for the job in hand.
        assert worker.wait(30) == 0
        del house.programs["worker"]
        assert "charging" not in states(slug), "what it had asked for is written down before it goes"
    assert house.run("db", "upgrade").returncode == 0
    house.start("worker")
    assert eventually(lambda: set(states(slug)) == {"charged"})
    charged_exactly_once(house.stripe, slug, 120)
