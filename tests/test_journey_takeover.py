"""Whoever charges is killed in mid-run, or the doorbell, or the database: somebody goes on, and each is charged once.

Each of these runs is slow on purpose, ten charges a second, so that its middle is long.
"""

import signal
import time
from collections.abc import Iterator

import pytest

from models import Lease, db
from tests.at_stripe import saved_card
from tests.house import House, descendants, eventually, runs
from tests.journey import (
    NOBODY_CAME,
    a_real_pledge,
    calls,
    decisions,
    on_card_page,
    round_of,
    states,
    the_deadline_comes,
    time_passes,
)
from tests.made import a_case, keep, look_anew, pledges_of
from tests.postgres import PostgresServer
from tests.sandbox_process import SandboxProcess
from tests.test_capture import asked, asked_for, charged_exactly_once, limits, with_cards

pytestmark = pytest.mark.slow

# Seconds from the death of whoever charges to the first charge by another worker, or by the sweep.
PROMISED = 30


@pytest.fixture
def stripe(house: House) -> Iterator[SandboxProcess]:
    """The house's Stripe, which thinks for 0.3 s of each charge; workers that begin now ask for ten a second."""
    usual = house.environment["CAPTURE_RATE"]
    house.environment["CAPTURE_RATE"] = "10"
    house.kill("worker")
    house.kill("sweep")
    sandbox = SandboxProcess(house.stripe, [], None)  # type: ignore[arg-type]
    limits(sandbox, latency=0.3)
    yield sandbox
    limits(sandbox, latency=0)
    house.environment["CAPTURE_RATE"] = usual
    # They would keep the low rate in the tests after this one.
    for name in {"worker", "second worker", "sweep"} & set(house.programs):
        house.kill(name)
    house.commands.pop("second worker", None)


def in_mid_run(house: House, stripe: SandboxProcess, count: int, *programs: str) -> str:
    """A case of so many pledges, of which these programs have charged a few and are at more."""
    slug = with_cards(saved_card(stripe), count)
    house.start(*programs)
    the_deadline_comes(slug, rung="worker" in programs, ago=NOBODY_CAME)
    assert eventually(lambda: round_of(slug).status == "met")
    if "worker" not in programs:
        time_passes(slug)
    assert eventually(lambda: len(asked_of(house, slug)) > 20)
    return slug


def asked_of(house: House, slug: str) -> list[int]:
    """The pledges of a case that were asked for, each as often as it was."""
    ids = {pledge.id for pledge in pledges_of(slug)}
    return [pledge_id for pledge_id in asked_for(house.stripe) if pledge_id in ids]


def who_charges(house: House) -> int:
    """The process that holds the lease."""
    look_anew()
    return int(db.session.get_one(Lease, "capture").holder.split(":")[1])


def seconds_until_somebody_else_charges(house: House, stripe: SandboxProcess, left: str) -> float:
    """How long nobody charges when a capturer is killed in mid-run, with its worker, and this program is there.

    No clock is moved and nothing is rung for by hand: lease, sweep and queue have to see to it themselves.
    """
    slug = in_mid_run(house, stripe, 150, *dict.fromkeys(["worker", left, "sweep"]))
    capturer = who_charges(house)
    its_worker = next(name for name in ("worker", left) if capturer in descendants(house.programs[name].pid))
    killed_at = time.time()
    house.kill(its_worker)
    # Only a successor can ask for what was not claimed by then; what was on its way may arrive after the kill.
    unclaimed = {pledge.id for pledge in pledges_of(slug) if pledge.status == "due"}
    keep()
    assert len(unclaimed) > 20
    of_the_successor = eventually(
        lambda: [call["at"] for call in asked(house.stripe) if int(call["params"]["metadata[pledge_id]"]) in unclaimed]
    )
    took = float(of_the_successor[0]) - killed_at
    print(f"with a {left} left, the next charge came {took:.1f} s after the kill")
    assert eventually(lambda: set(states(slug)) == {"charged"}, within=180)
    charged_exactly_once(house.stripe, slug, 150)
    return took


def test_when_the_capturer_is_killed_in_mid_run_a_second_worker_charges_within_30_seconds(
    house: House, stripe: SandboxProcess
) -> None:
    house.commands["second worker"] = house.commands["worker"]
    assert 0 < seconds_until_somebody_else_charges(house, stripe, "second worker") <= PROMISED


def test_when_the_only_worker_is_killed_in_mid_run_the_sweep_charges_by_itself_within_30_seconds(
    house: House, stripe: SandboxProcess
) -> None:
    assert 0 < seconds_until_somebody_else_charges(house, stripe, "sweep") <= PROMISED


def test_a_sweep_that_is_killed_while_it_charges_by_itself_is_replaced_and_each_pledge_charged_once(
    house: House, stripe: SandboxProcess
) -> None:
    """Without Redis and without a worker there is only the sweep, and nobody but the next sweep to find its death."""
    house.kill("valkey")
    # No news of a charge comes to help: the keys alone have to.
    house.fault(event="*", fault="drop", times="always")
    slug = in_mid_run(house, stripe, 60, "sweep")
    house.kill("sweep")
    assert {"charged", "charging"} <= set(states(slug))
    time_passes(slug, 2 * NOBODY_CAME)
    house.start("sweep")
    assert eventually(lambda: set(states(slug)) == {"charged"}, within=120)
    charged_exactly_once(house.stripe, slug, 60)


def test_a_sweep_that_is_killed_while_it_closes_a_round_by_itself_is_replaced_and_the_round_decided_once(
    house: House, stripe: SandboxProcess
) -> None:
    slug = a_case(target=2_500).slug
    pledge = a_real_pledge(house, slug, 25)
    _, unfinished = on_card_page(house, slug, 10)
    house.kill("valkey")
    house.fault(operation="checkout.sessions.expire", fault="hang", when="after", seconds=10)
    house.start("sweep")
    the_deadline_comes(slug, rung=False, ago=NOBODY_CAME)
    assert eventually(lambda: _was_asked_to_expire(house, str(unfinished.session_id)))
    house.kill("sweep")
    assert (round_of(slug).status, states(slug)) == ("closing", ["confirmed", "started"])
    time_passes(slug, 3 * NOBODY_CAME)
    house.start("sweep")
    assert eventually(lambda: round_of(slug).status == "met")
    time_passes(slug)
    assert eventually(lambda: states(slug) == ["charged", "abandoned"])
    assert (decisions(slug), len(house.payments_of(pledge.id))) == (["met"], 1)


def _was_asked_to_expire(house: House, session_id: str) -> bool:
    return any(session_id in call["path"] for call in calls(house, "checkout.sessions.expire"))


def test_a_run_goes_on_when_valkey_is_killed_in_its_middle_and_the_clock_finishes_what_it_leaves(
    house: House, stripe: SandboxProcess
) -> None:
    slug = in_mid_run(house, stripe, 260, "worker", "sweep")
    capturer = who_charges(house)
    house.kill("valkey")
    begun = len(asked_of(house, slug))
    assert eventually(lambda: len(asked_of(house, slug)) > begun + 60)
    assert who_charges(house) == capturer, "the same process goes on without it"
    # Its twenty seconds are over before all are charged, and there is nobody to ring for.
    assert eventually(lambda: not runs(capturer))
    charged = states(slug).count("charged")
    assert charged == len(asked_of(house, slug)) < 260, "it has written down all that it asked for"
    time_passes(slug)
    assert eventually(lambda: set(states(slug)) == {"charged"}, within=180)
    charged_exactly_once(house.stripe, slug, 260)
    assert len(asked_of(house, slug)) == 260


@pytest.mark.only_on("postgresql", why="SQLite has no server that could die")
def test_postgresql_is_killed_with_9_in_mid_run_and_when_it_is_back_each_pledge_is_charged_once(
    house: House, stripe: SandboxProcess, postgres: PostgresServer
) -> None:
    """The money of those that were being asked for moves while nobody can write it down."""
    if postgres.process is None:
        pytest.skip("The server of DATABASE_URL is not ours to kill")
    # No news of a charge comes to help: the keys alone have to.
    house.fault(event="*", fault="drop", times="always")
    slug = in_mid_run(house, stripe, 120, "worker", "sweep")
    ids = {pledge.id for pledge in pledges_of(slug)}
    programs = {name: program.pid for name, program in house.programs.items()}
    before = len(house.log("worker"))
    keep()
    postgres.kill(signal.SIGKILL)
    try:
        assert eventually(lambda: "OperationalError" in house.log("worker")[before:])
    finally:
        postgres.start()
    found = states(slug)
    begun = {pledge_id for pledge_id in asked_for(house.stripe) if pledge_id in ids}
    assert 0 < found.count("charged") < len(begun) < 120, "some were asked for, and nobody knew what came of it"
    assert eventually(lambda: set(states(slug)) == {"charged"}, within=180)
    charged_exactly_once(house.stripe, slug, 120)
    assert {name: program.pid for name, program in house.programs.items() if program.poll() is None} == programs
