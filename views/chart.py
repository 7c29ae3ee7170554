"""The chart of a round: what was pledged from day to day, the target, and what may still come; as points for an SVG."""

import datetime as dt
from dataclasses import dataclass

import law
from models import Day, Round

WIDTH, HEIGHT = 600, 200


@dataclass(frozen=True)
class OneDay:
    """A day of the round: what it changed, and what was pledged in all at its end."""

    date: dt.date
    pledges: int
    pence: int
    total: int


@dataclass(frozen=True)
class Chart:
    """`line` and `area` are the total from day to day, `wedge` is the outlook; `target` is a height. All in points."""

    first: dt.date
    last: dt.date
    line: str
    area: str
    wedge: str
    target: float


def days_of(its_round: Round, began: dt.datetime, as_of: dt.datetime) -> list[OneDay]:
    """Every day from the first until today, or until the round ended; those on which nothing came are there too."""
    known = {day.day: day for day in Day.of(its_round)}
    ended = min(as_of, its_round.deadline)
    first, last = (law.day_of(moment, its_round.zone) for moment in (began, ended))
    first, last = min([first, *known]), max([last, *known])
    days, total = [], 0
    for number in range((last - first).days + 1):
        date = first + dt.timedelta(days=number)
        pledges, pence = (known[date].pledges, known[date].pence) if date in known else (0, 0)
        total += pence
        days.append(OneDay(date, pledges, pence, total))
    return days


def draw(its_round: Round, days: list[OneDay], outlook: law.Outlook | None) -> Chart:
    first, last = days[0].date, max(law.day_of(its_round.deadline, its_round.zone), days[-1].date)
    length = (last - first).days + 1
    highest = max(its_round.target_pence, *(day.total for day in days), outlook.high if outlook else 0)

    def point(after: float, pence: int) -> str:
        return f"{WIDTH * after / length:.1f},{_height(pence, highest):.1f}"

    line = " ".join([point(0, 0), *(point(number, day.total) for number, day in enumerate(days, 1))])
    now = days[-1].total
    wedge = [point(len(days), now), point(length, outlook.high), point(length, outlook.low)] if outlook else []
    return Chart(
        first, last, line, f"{line} {point(len(days), 0)}", " ".join(wedge), _height(its_round.target_pence, highest)
    )


def _height(pence: int, highest: int) -> float:
    """Some room is left above the highest."""
    return HEIGHT - HEIGHT * 0.94 * max(pence, 0) / highest
