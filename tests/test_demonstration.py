"""What the demonstration's cases are made of, on whatever day it is begun."""

import datetime as dt

import pytest
import time_machine
from flask import Flask

from demo import seed

DFE = seed.FOLDER / "dfe-real-time-data.txt"


@pytest.mark.parametrize(
    ("begun", "deadline", "left"),
    [
        # 1:30am in London: the 2:00am of that day in a week is seven days and half an hour ahead.
        ("2026-07-01 00:30:00", "2026-07-08 01:00:00", dt.timedelta(days=7, minutes=30)),
        # 2:00am sharp: seven full days to the second. A second later the next night is taken.
        ("2026-07-01 01:00:00", "2026-07-08 01:00:00", dt.timedelta(days=7)),
        ("2026-07-01 01:00:01", "2026-07-09 01:00:00", dt.timedelta(days=8, seconds=-1)),
        ("2026-07-01 17:00:00", "2026-07-09 01:00:00", dt.timedelta(days=7, hours=8)),
        # The clocks go back on 25 October: 2:30am there is late for seven days on the wall, and not for full ones.
        ("2026-10-18 01:30:00", "2026-10-25 02:00:00", dt.timedelta(days=7, minutes=30)),
        # They go forward on 28 March: 1:30am is early enough on the wall, but an hour of that week is missing.
        ("2027-03-21 01:30:00", "2027-03-29 01:00:00", dt.timedelta(days=7, hours=23, minutes=30)),
    ],
)
def test_the_first_case_ends_at_the_first_2am_in_london_that_is_seven_full_days_ahead(
    app: Flask, begun: str, deadline: str, left: dt.timedelta
) -> None:
    as_of = dt.datetime.fromisoformat(f"{begun}+00:00")
    with time_machine.travel(as_of, tick=False):
        told = seed._case(DFE)
    assert told.deadline == dt.datetime.fromisoformat(f"{deadline}+00:00")
    assert told.deadline - as_of == left
    assert (told.target_pence, told.owner) == (600_000, "owner@example.org")
