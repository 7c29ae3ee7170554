"""One bad row does not stop the others: the shape that all jobs over many rows share."""

import pytest
import sqlalchemy as sa
from flask import Flask
from rq.timeouts import HorseMonitorTimeoutException, JobTimeoutException
from structlog.testing import CapturingLogger

import jobs
import payments
from jobs import each
from jobs.queue import StandingWorker
from models import Case, begin_reading, db
from tests.made import a_case, keep

TROUBLES = {
    2: ValueError("Ada Winter, ada@example.org"),
    3: payments.StripeAway("no answer within 20 seconds"),
}


def summaries() -> list[str]:
    return list(db.session.scalars(sa.select(Case.summary).order_by(Case.id)))


def write_then_fail(number: int) -> None:
    its_case = db.session.get_one(Case, number)
    its_case.summary, its_case.story = "written", "written as well"
    if number in TROUBLES:
        db.session.flush()
        raise TROUBLES[number]
    db.session.commit()


def put_back(number: int, why: str) -> None:
    db.session.get_one(Case, number).summary = f"put back: {why}"


def test_what_fails_is_undone_and_put_back_and_the_others_are_done(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [a_case().id for _ in range(4)]
    keep()
    log = CapturingLogger()
    monkeypatch.setattr(jobs, "log", log)
    each(ids, write_then_fail, put_back)
    logged = [call.kwargs for call in log.calls]
    stories = list(db.session.scalars(sa.select(Case.story).order_by(Case.id)))
    assert [story == "written as well" for story in stories] == [True, False, False, True]
    # A library's own words may hold a name or an address, so only its kind is kept; Stripe's trouble is told.
    assert summaries() == ["written", "put back: ValueError", "put back: no answer within 20 seconds", "written"]
    assert [(line["row"], line["doing"]) for line in logged] == [
        (number, "tests.test_one_of_many.write_then_fail") for number in (2, 3)
    ]
    assert [isinstance(line["exc_info"], ValueError) for line in logged] == [True, False]


def test_what_fails_while_it_only_reads_is_put_back_as_well(app: Flask) -> None:
    number = a_case().id
    keep()

    def read_then_fail(number: int) -> None:
        begin_reading()
        raise ValueError(db.session.get_one(Case, number).title)

    each([number], read_then_fail, put_back)
    assert summaries() == ["put back: ValueError"]


def test_when_the_time_of_the_job_is_up_all_of_it_ends(app: Flask) -> None:
    ids = [a_case().id for _ in range(2)]
    keep()

    def out_of_time(number: int) -> None:
        raise jobs.OutOfTime

    with pytest.raises(jobs.OutOfTime):
        each(ids, out_of_time, put_back)
    db.session.rollback()
    assert summaries() == ["In short.", "In short."]


def test_the_queue_says_that_the_time_is_up_with_our_own_word_and_only_of_a_job() -> None:
    for its_own, is_ours in ((JobTimeoutException, True), (HorseMonitorTimeoutException, False)):
        with pytest.raises(its_own) as raised:
            StandingWorker.death_penalty_class(1, its_own, job_id="1").handle_death_penalty(None, None)  # type: ignore[no-untyped-call]
        assert isinstance(raised.value, jobs.OutOfTime) is is_ours
