"""All tests of a process share one house: what one of them leaves behind must not reach the next."""

import datetime as dt
import os
import signal

import pytest
import requests
import sqlalchemy as sa

from models import Lease, StripeEvent, db
from tests.house import House, eventually
from tests.journey import a_real_pledge, states, the_deadline_comes, writing
from tests.made import a_case, look_anew, now

pytestmark = pytest.mark.slow

HOUR = dt.timedelta(hours=1)


def test_a_house_in_which_everything_was_broken_begins_anew_and_charges_a_pledge_at_once(house: House) -> None:
    for name in ("valkey", "worker"):
        house.kill(name)
    # This one ends behind the house's back.
    os.kill(house.programs["sweep"].pid, signal.SIGKILL)
    house.programs["sweep"].wait(10)
    house.fault(operation="*", fault="refuse", times="always")
    for lever, to in (("limits", {"per_endpoint": 1, "in_all": 1, "latency": 30}), ("clock", {"offset_seconds": 3600})):
        requests.post(f"{house.stripe}/sandbox/{lever}", json=to, timeout=30).raise_for_status()
    with writing():
        assert Lease.take("capture", "one who died", now(), HOUR)
        StripeEvent.store(
            event_id="evt_claimed_by_the_dead", kind="nothing.we.know", object_id="cs_test_1", created_at=now(),
            payload="{}", as_of=now() + HOUR,
        )  # fmt: skip

    house.begin_anew()

    assert {name for name, program in house.programs.items() if program.poll() is None} == set(house.commands)
    slug = a_case(target=2_500).slug
    a_real_pledge(house, slug, 25)
    the_deadline_comes(slug)
    assert eventually(lambda: states(slug) == ["charged"])
    assert eventually(lambda: _is_worked_on("evt_claimed_by_the_dead"))


def _is_worked_on(event_id: str) -> bool:
    look_anew()
    return db.session.scalar(sa.select(StripeEvent.processed_at).where(StripeEvent.event_id == event_id)) is not None
