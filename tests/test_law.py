"""The promise as it stands in law.py: states, moves, deadlines, decisions. No database, no clock."""

import datetime as dt
from collections.abc import Mapping
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

import law
from law import Refused
from models import Event, db, move

LONDON = "Europe/London"
SECOND = dt.timedelta(seconds=1)
DEADLINE = dt.datetime(2022, 10, 9, 1, 0, tzinfo=dt.UTC)

# The law once more, written down independently: what each state may become, and nothing else.
CASES = """
draft             -> submitted
submitted         -> draft changes_requested approved live rejected
changes_requested -> submitted
approved          -> draft changes_requested live
live              -> funded missed cancelled
funded            -> closed cancelled
missed            -> closed
cancelled         -> closed
rejected closed   ->
"""
ROUNDS = """
open              -> closing cancelled
closing           -> met missed cancelled
met missed cancelled ->
"""
PLEDGES = """
started           -> confirmed held abandoned cancelled released
held              -> confirmed cancelled released
abandoned         -> started
confirmed         -> due cancelled released
due               -> charging released dropped
charging          -> charged action_required declined unknown
unknown           -> charged action_required declined due
action_required   -> due charged declined dropped released
declined          -> due charged dropped released
charged           -> refunded disputed
disputed          -> charged charged_back
refunded          -> charged
released cancelled dropped charged_back ->
"""
COMMENTS = """
pending           -> approved rejected spam withdrawn
approved          -> pending rejected spam withdrawn
rejected          -> pending approved withdrawn
spam              -> pending approved withdrawn
withdrawn         ->
"""
UPDATES = """
draft             -> scheduled published
scheduled         -> draft published
published         ->
"""
LAWS = {
    "cases": (law.CASE_MOVES, CASES),
    "rounds": (law.ROUND_MOVES, ROUNDS),
    "pledges": (law.PLEDGE_MOVES, PLEDGES),
    "comments": (law.COMMENT_MOVES, COMMENTS),
    "updates": (law.UPDATE_MOVES, UPDATES),
}


def _table(words: str) -> dict[str, set[str]]:
    lines = [line.split("->") for line in words.strip().splitlines()]
    return {state: set(after.split()) for states, after in lines for state in states.split()}


# --- States and moves --------------------------------------------------------------------------------------


@pytest.mark.parametrize("things", LAWS)
def test_the_table_of_moves_is_the_law_and_knows_only_its_own_states(things: str) -> None:
    moves, words = LAWS[things]
    assert {state: set(after) for state, after in moves.items()} == _table(words)
    assert set().union(*moves.values()) <= set(moves)


@pytest.mark.parametrize("things", LAWS)
def test_each_allowed_move_is_made_and_written_down_and_every_other_is_refused(things: str, app: Flask) -> None:
    moves, words = LAWS[things]
    allowed = _table(words)
    for before in allowed:
        for after in allowed:
            made = _try(things, moves, before, after)
            if after == before:
                assert made == (before, None), "already there: silent"
            elif after in allowed[before]:
                assert made == (after, (before, after)), f"{before} -> {after}"
            else:
                assert made == (before, None), f"{before} -> {after} must be refused"


def _try(things: str, moves: Mapping[str, frozenset[str]], before: str, after: str) -> tuple[str, object]:
    """The state after the try, and what history says of it."""
    row = SimpleNamespace(__tablename__=things, id=17, status=before)
    refusal = ""
    try:
        move(row, moves, after, "test", DEADLINE)
    except Refused as refused:
        refusal = str(refused)
    is_there = row.status == after
    assert refusal == ("" if is_there else f"This {things[:-1]} is {before}: it can no longer become {after}.")
    written = [new for new in db.session.new if isinstance(new, Event)]
    db.session.expunge_all()
    return row.status, (written[0].before, written[0].after) if written else None


def test_each_state_has_words_that_can_be_translated() -> None:
    tables = (law.CASE_MOVES, law.ROUND_MOVES, law.PLEDGE_MOVES, law.COMMENT_MOVES, law.UPDATE_MOVES,
              law.PROMISE_CHANGE_MOVES)  # fmt: skip
    states = {state for table in tables for state in table}
    assert {state.replace("_", " ") for state in states} <= {*law.HAPPENED}
    # A refusal has them as they are stored.
    assert states <= {*law.HAPPENED, *law.AS_STORED}


def test_what_is_over_stays_over() -> None:
    """From a final state money can only go back; nothing can be charged, and nothing charged twice."""
    assert law.PLEDGE_MOVES["refunded"] == {"charged"}, "only as the failed refund of a charge that was made"
    for final in law.FINAL_PLEDGES - {"charged", "abandoned", "refunded"}:
        assert not law.PLEDGE_MOVES[final], final
    towards_a_charge = {before for before, after in law.PLEDGE_MOVES.items() if "charging" in after}
    assert towards_a_charge == {"due"}
    assert {before for before, after in law.PLEDGE_MOVES.items() if "charged" in after} == {
        "charging", "unknown", "disputed", "action_required", "declined", "refunded",
    }  # fmt: skip


# --- The deadline and the decision -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "counts"),
    [
        (DEADLINE - SECOND, True),
        (DEADLINE, True),
        (DEADLINE + dt.timedelta(microseconds=1), False),
        (DEADLINE + SECOND, False),
        # The same instant on another clock's face: 2:00am in London that night was 1:00 UTC.
        (dt.datetime(2022, 10, 9, 2, 0, tzinfo=ZoneInfo(LONDON)), True),
        (dt.datetime(2022, 10, 9, 2, 0, 1, tzinfo=ZoneInfo(LONDON)), False),
    ],
)
def test_a_pledge_is_in_time_up_to_the_instant_of_the_deadline_itself(moment: dt.datetime, counts: bool) -> None:
    assert law.in_time(moment, DEADLINE) is counts


def test_an_instant_without_a_zone_is_never_compared() -> None:
    with pytest.raises(TypeError):
        law.in_time(dt.datetime(2022, 10, 9, 1, 0), DEADLINE)  # noqa: DTZ001 - that is what must not work


@pytest.mark.parametrize(("total", "verdict"), [(599_999, "missed"), (600_000, "met"), (600_001, "met"), (0, "missed")])
def test_a_penny_short_is_missed_and_the_exact_target_is_met(total: int, verdict: str) -> None:
    assert law.decide(total, 600_000) == verdict


# --- Daylight saving ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", ["2026-03-29 01:00", "2026-03-29 01:30", "2026-03-29 01:59", "2027-03-28 01:30"])
def test_a_local_time_that_the_clocks_skip_is_refused_in_clear_words(local: str) -> None:
    with pytest.raises(Refused, match=r"The clocks go forward that night: 01:\d\d on 2\d March \d{4} does not exist\."):
        law.deadline_from_local(_wall(local), LONDON)


@pytest.mark.parametrize("local", ["2026-10-25 01:00", "2026-10-25 01:30", "2026-10-25 01:59"])
def test_a_local_time_that_comes_twice_is_refused_in_clear_words(local: str) -> None:
    with pytest.raises(Refused, match=r"The clocks go back that night: 01:\d\d on 25 October 2026 comes twice\."):
        law.deadline_from_local(_wall(local), LONDON)


@pytest.mark.parametrize(
    ("local", "utc", "shown"),
    [
        ("2022-10-09 02:00", "2022-10-09 01:00", "Sunday 9 October 2022, 2:00am BST"),
        ("2026-03-29 00:59", "2026-03-29 00:59", "Sunday 29 March 2026, 12:59am GMT"),
        ("2026-03-29 02:00", "2026-03-29 01:00", "Sunday 29 March 2026, 2:00am BST"),
        ("2026-10-25 00:59", "2026-10-24 23:59", "Sunday 25 October 2026, 12:59am BST"),
        ("2026-10-25 02:00", "2026-10-25 02:00", "Sunday 25 October 2026, 2:00am GMT"),
        ("2026-07-01 12:00", "2026-07-01 11:00", "Wednesday 1 July 2026, 12:00pm BST"),
        ("2026-12-31 23:59", "2026-12-31 23:59", "Thursday 31 December 2026, 11:59pm GMT"),
    ],
)
def test_a_deadline_is_one_instant_and_is_shown_with_its_zone(local: str, utc: str, shown: str) -> None:
    instant = law.deadline_from_local(_wall(local), LONDON)
    assert instant == _wall(utc).replace(tzinfo=dt.UTC)
    assert law.instant_words(instant, LONDON) == shown


@pytest.mark.parametrize(("instant", "shown"), [("00:30", "1:30am BST"), ("01:30", "1:30am GMT")])
def test_the_two_halves_of_the_night_are_told_apart_by_their_zone(instant: str, shown: str) -> None:
    moment = _wall(f"2026-10-25 {instant}").replace(tzinfo=dt.UTC)
    assert law.clock_words(moment, LONDON) == shown


@pytest.mark.parametrize("zone", ["Mars/Base", "Europe", "../etc/passwd", "", "GMT+1 or so"])
def test_an_unknown_zone_is_refused_in_clear_words(zone: str) -> None:
    with pytest.raises(Refused, match="is not a time zone, such as Europe/London"):
        law.deadline_from_local(_wall("2026-07-01 12:00"), zone)


# Nights on which the clocks of one of these places change; Lord Howe's change by half an hour.
PLACES = (LONDON, "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu")
NIGHTS = (
    "2026-03-29",
    "2026-10-25",
    "2026-03-08",
    "2026-11-01",
    "2026-04-05",
    "2026-10-04",
    "2026-02-15",
    "2026-03-22",
)


@given(
    local=st.one_of(
        st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2035, 1, 1)),  # noqa: DTZ001 - times on a wall
        st.builds(lambda night, minutes: _wall(f"{night} 00:00") + minutes, st.sampled_from(NIGHTS),
                  st.timedeltas(dt.timedelta(0), dt.timedelta(hours=4))),
    ),
    zone=st.sampled_from(PLACES),
)  # fmt: skip
def test_every_accepted_local_time_has_exactly_one_instant(local: dt.datetime, zone: str) -> None:
    """Against all instants of a day around it, not with the arithmetic of the law itself."""
    local = local.replace(microsecond=0, second=0)
    first, place = local.replace(tzinfo=dt.UTC) - dt.timedelta(hours=16), ZoneInfo(zone)
    around = (first + dt.timedelta(minutes=15 * step) for step in range(4 * 32 + 1))
    shows_it = [moment for moment in around if moment.astimezone(place).replace(tzinfo=None) == local]
    try:
        accepted = [law.deadline_from_local(local, zone)]
    except Refused:
        accepted = []
    assert accepted == (shows_it if len(shows_it) == 1 else [])


def _wall(words: str) -> dt.datetime:
    return dt.datetime.strptime(words, "%Y-%m-%d %H:%M")  # noqa: DTZ007 - a time on a wall


# --- Card pages and the last half hour ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "page_lives"),
    [
        (dt.timedelta(days=7), dt.timedelta(hours=23, minutes=50)),
        (dt.timedelta(hours=2), dt.timedelta(hours=2)),
        (dt.timedelta(minutes=31), dt.timedelta(minutes=31)),
        # Stripe takes nothing shorter; a card saved after the deadline does not count all the same.
        (dt.timedelta(minutes=5), dt.timedelta(minutes=31)),
        (dt.timedelta(0), dt.timedelta(minutes=31)),
    ],
)
def test_a_card_page_ends_with_the_round_where_stripe_allows_it(left: dt.timedelta, page_lives: dt.timedelta) -> None:
    assert law.session_expiry(DEADLINE, DEADLINE - left) == DEADLINE - left + page_lives


@given(
    as_of=st.datetimes(dt.datetime(2020, 1, 1), dt.datetime(2035, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001
    left=st.timedeltas(dt.timedelta(0), dt.timedelta(days=60)),
)
def test_a_card_page_always_lives_as_long_as_stripe_demands(as_of: dt.datetime, left: dt.timedelta) -> None:
    """Between 30 minutes and 24 hours, in whole seconds, with a minute for the request to arrive in."""
    lives = law.session_expiry(as_of + left, as_of) - as_of
    assert dt.timedelta(minutes=30, seconds=59) <= lives <= dt.timedelta(hours=23, minutes=50)
    assert law.session_expiry(as_of + left, as_of).microsecond == 0


@pytest.mark.parametrize(
    ("as_of", "soon"),
    [
        (DEADLINE - dt.timedelta(minutes=30, seconds=1), False),
        (DEADLINE - dt.timedelta(minutes=30), True),
        (DEADLINE, True),
        (DEADLINE + SECOND, False),
    ],
)
def test_the_last_half_hour_begins_30_minutes_before_and_ends_with_the_deadline(as_of: dt.datetime, soon: bool) -> None:
    assert law.last_half_hour(DEADLINE, as_of) is soon


@pytest.mark.parametrize("sentence", [law.PROMISE, law.PROMISE_ONCE_PASSED, *law.AGREEMENTS.values()])
def test_the_sentences_take_every_amount_and_date_from_a_row(sentence: str) -> None:
    assert not any(letter.isdecimal() or letter == "£" for letter in sentence.replace("7 days", ""))


# --- The repair of a refused card --------------------------------------------------------------------------

REFUSED = dt.datetime(2026, 10, 9, 1, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("may_retry", "steps"),
    [
        (True, [("retry", 2), ("retry", 4), ("remind", 6), ("retry", 7), ("drop", 7)]),
        (False, [("remind", 2), ("remind", 4), ("remind", 6), ("drop", 7)]),
    ],
)
def test_a_refused_card_is_tried_or_reminded_of_until_the_seventh_day(
    may_retry: bool, steps: list[tuple[str, int]]
) -> None:
    taken: list[tuple[str, float]] = []
    retried = reminded = 0
    while not taken or taken[-1][0] != "drop":
        step = law.next_repair_step(REFUSED, retried, reminded, may_retry)
        taken.append((step.what, (step.at - REFUSED) / DAY))
        used = law.used_up(REFUSED, step.at)
        retried, reminded = (used[0], used[1]) if step.what == "retry" else (retried, used[1])
    assert taken == steps


def test_after_a_standstill_of_five_days_one_retry_stands_for_those_that_were_missed() -> None:
    assert law.used_up(REFUSED, REFUSED + 5 * DAY) == (2, 2)
    step = law.next_repair_step(REFUSED, 2, 2, may_retry=True)
    assert (step.what, step.at - REFUSED) == ("remind", 6 * DAY)


# --- The outlook -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "total", "left", "expected"),
    [
        # Every day the same: low and high differ by the cards that fail alone.
        ([1_000_00] * 10, 10_000_00, 10, (20_000_00, 20_000_00, 18_000_00, 20_000_00)),
        # £900 in three days, then £100 a day, so £185.71 on average. Low is £1,300 + 10 x £100; high is £1,300 +
        # 7 x £185.71 + 3 x £300; a tenth of the one is taken off, and three per cent of the other.
        ([300_00] * 3 + [100_00] * 4, 1_300_00, 10, (2_300_00, 3_500_00, 2_000_00, 3_400_00)),
        # The last three days were the calmest.
        ([100_00, 100_00, 100_00, 400_00, 10_00, 10_00, 10_00], 730_00, 3, (760_00, 1_100_00, 680_00, 1_100_00)),
        # More was cancelled than pledged: low stays where it is, instead of losing what nobody has cancelled yet.
        ([500_00, 0, 0, -100_00, -100_00], 300_00, 2, (300_00, 640_00, 270_00, 620_00)),
        # In the last hours there is hardly anything left to come.
        ([100_00] * 5, 500_00, 0.1, (510_00, 510_00, 450_00, 500_00)),
        ([0, 0, 0, 0], 0, 20, (0, 0, 0, 0)),
    ],
)
def test_an_outlook_goes_from_calm_days_to_strong_ones_and_takes_off_cards_that_fail(
    days: list[int], total: int, left: float, expected: tuple[int, int, int, int]
) -> None:
    seen = law.outlook(days, total, dt.timedelta(days=left))
    assert seen is not None
    assert (seen.low, seen.high, seen.charged_low, seen.charged_high) == expected


def test_before_four_whole_days_there_is_no_outlook() -> None:
    assert law.outlook([100_00] * 3, 300_00, dt.timedelta(days=20)) is None
    assert law.outlook([100_00] * 4, 400_00, dt.timedelta(days=20)) is not None


@pytest.mark.parametrize(
    ("label", "host", "source"),
    [
        ("poster", "", "via:poster"),
        ("poster", "example.org", "via:poster"),
        ("x" * 30, "", "via:" + "x" * 30),
        ("x" * 31, "", ""),
        ("Poster", "", ""),
        ("pöster", "", ""),
        ("poster\n", "", ""),
        ("", "www.Example.org", "from:example.org"),
        ("", "xn--bcher-kva.example", "from:xn--bcher-kva.example"),
        ("", "a" * 64 + ".example", ""),
        ("", "a.b" * 24, ""),
        ("", "exa mple.org", ""),
        ("", "=cmd.example", ""),
        ("", "2001:db8::1", ""),
    ],
)
def test_a_source_is_a_short_label_or_a_host_and_is_known_again(label: str, host: str, source: str) -> None:
    assert law.source(label, host) == source
    assert law.known_source(source) == source
