"""Staff and the books: the last sums, the last comparisons with Stripe, what is stuck; and either of them now."""

import datetime as dt

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask

from jobs import doctor, reconcile, sweep
from models import Examination, Lease, Letter, Reconciliation, db
from payments import ChargeFound
from tests.doorway import SAME_ORIGIN, everything, logged_in, token_on
from tests.made import a_case, a_user, case_at, keep, look_anew, now, pledges_of
from tests.test_staff_pages import HTMX, words

HOUR = dt.timedelta(hours=1)
BOOKS = "/staff/books"


def press(app: Flask, button: str) -> str:
    """Press one of the two buttons; what the page says after it."""
    browser = logged_in(app, a_user("staff"))
    sent = {"form_token": token_on(browser, BOOKS)}
    answer = browser.post(f"{BOOKS}/{button}", data=sent, headers=SAME_ORIGIN)
    assert (answer.status_code, answer.location) == (303, BOOKS)
    return words(browser.get(BOOKS).text)


def seen(app: Flask, where: str = BOOKS) -> str:
    return words(logged_in(app, a_user("staff")).get(where).text)


def compared(since: dt.datetime, ended_at: dt.datetime, looked_at: int, mended: int, findings: list[str]) -> None:
    """A comparison that came to its end."""
    mine = Reconciliation.begin(since, ended_at, ended_at)
    mine.note(looked_at, mended, findings)
    while mine.ended_at is None:
        mine.go_on(None, since, ended_at)
    keep()


def test_before_anything_was_run_the_page_says_so(app: Flask) -> None:
    said = seen(app)
    assert "The books have not been summed up yet." in said
    assert "Nothing was compared in the last day." in said
    assert "What is stuck Nothing." in said
    assert "The books : not summed up yet." in seen(app, "/staff")


def test_what_is_off_is_said_in_sentences_that_lead_to_the_pledge_and_marked_on_the_desk(app: Flask) -> None:
    a_case(slug="the-case", pledged=[9_500])
    (pledge,) = pledges_of("the-case")
    twice = f"Pledge {pledge.id} was charged 2 times in the ledger."
    Examination.write([twice, "Round 1 <b> was decided 2 times."], now())
    keep()
    said = seen(app)
    assert "The books do not agree." in said
    assert twice in said and "Round 1 <b> was decided" in said
    assert "Something is off. Look at the books" in seen(app, "/staff")
    browser = logged_in(app, a_user("staff"))
    (link,) = BeautifulSoup(browser.get(BOOKS).text, "html5lib").select("#books li a")
    page = browser.get(str(link["href"]))
    assert page.status_code == 200 and pledge.public_id in page.text


def test_what_was_mended_by_the_next_examination_is_not_shown_any_more(app: Flask) -> None:
    Examination.write(["Round 1 was decided 2 times."], now() - HOUR)
    Examination.write([], now())
    keep()
    assert "The books agree." in seen(app) and "Round 1" not in seen(app)
    assert "The books : they agree, and were summed up on" in seen(app, "/staff")


def test_comparisons_of_the_last_day_tell_what_they_looked_at_mended_and_found_each_once(app: Flask) -> None:
    compared(now() - 90 * HOUR, now() - 30 * HOUR, 700, 0, ["Pledge 3 is charged, but long ago."])
    compared(now() - 72 * HOUR, now() - 2 * HOUR, 412, 3, ["Pledge 8 is released, but is paid.", "Pledge 9 is gone."])
    compared(now() - 3 * HOUR, now() - HOUR, 17, 0, ["Pledge 9 is gone."])
    said = seen(app)
    assert "Not all agrees with Stripe." in said
    assert (said.count("Pledge 8 is released"), said.count("Pledge 9 is gone."), said.count("long ago")) == (1, 1, 0)
    rows = BeautifulSoup(logged_in(app, a_user("staff")).get(BOOKS).text, "html5lib").select("#books tbody tr")
    assert [[cell.text for cell in row.select("td")[2:]] for row in rows] == [
        ["17 looked at, 0 mended, 1 off"],
        ["412 looked at, 3 mended, 2 off"],
    ]
    assert "Something is off." in seen(app, "/staff")


def test_staff_have_the_books_summed_up_at_once_though_the_hour_is_not_over(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[str] = []
    monkeypatch.setattr("views.staff.ring", rung.append)
    doctor.examine_books()
    look_anew()
    assert "Next:" in seen(app)
    said = press(app, "examinations")
    assert rung == ["examine_books"]
    assert "The books are being summed up." in said and "They are being summed up." in said
    fragment = logged_in(app, a_user("staff")).get(BOOKS, headers=HTMX).text
    assert "<html" not in fragment and "data-hx-get" in fragment
    look_anew()
    # The clock would do it as well, should the ring be lost.
    assert sweep.TIMETABLE["examine_books"](now()) == [None]
    doctor.examine_books()
    look_anew()
    assert db.session.scalar(sa.select(sa.func.count(Examination.id))) == 2
    assert "The books agree." in seen(app) and "data-hx-get" not in logged_in(app, a_user("staff")).get(BOOKS).text


def test_staff_have_the_books_compared_at_once_and_only_one_comparison_at_a_time(
    asks_the_sandbox: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[str] = []
    monkeypatch.setattr("views.staff.ring", rung.append)
    for name, pause in reconcile.RETURNS.items():
        Lease.take(name, "clock", now(), pause)
    keep()
    assert "The books are being compared with Stripe." in press(asks_the_sandbox, "comparisons")
    assert rung == ["begin_reconciliation"]
    look_anew()
    reconcile.begin_reconciliation()
    look_anew()
    (mine,) = db.session.scalars(sa.select(Reconciliation.id))
    keep()
    before = everything()
    assert "A comparison with Stripe is under way already." in press(asks_the_sandbox, "comparisons")
    after = everything()
    assert rung == ["begin_reconciliation"] and before["reconciliations"] == after["reconciliations"]
    assert before["leases"] == after["leases"]
    assert "A comparison is under way since" in seen(asks_the_sandbox)
    look_anew()
    assert reconcile.to_the_end(mine)
    look_anew()
    assert "All agrees with Stripe." in seen(asks_the_sandbox)


def test_a_clock_that_stands_still_is_told(app: Flask) -> None:
    Examination.write([], now() - 2 * HOUR)
    Lease.wind(doctor.LEASE, now() - dt.timedelta(minutes=4))
    keep()
    assert "clock" not in seen(app) and "Something is off." not in seen(app, "/staff")
    db.session.get_one(Lease, doctor.LEASE).until -= dt.timedelta(minutes=2)
    keep()
    assert "The clock seems to stand still." in seen(app) and "Something is off." in seen(app, "/staff")


def test_what_is_stuck_is_listed_and_what_only_waits_for_its_turn_is_not(app: Flask) -> None:
    a_case(slug="the-case", target=2_500, pledged=[2_500, 2_600, 2_700, 2_800])
    its_round = case_at("the-case").round
    its_round.close(its_round.deadline + HOUR)
    its_round.settle(now())
    keep()
    _, begun, asked_twice, unknown = pledges_of("the-case")
    for pledge in (begun, asked_twice, unknown):
        pledge.claim(now(), HOUR)
    asked_twice.claim(now(), HOUR)
    unknown.apply_charge(ChargeFound("unknown", None, None), now(), asked=True)
    for letter in db.session.scalars(sa.select(Letter)):
        letter.sent(now())
    refused = db.session.scalars(sa.select(Letter).where(Letter.subject == f"pledge:{begun.id}")).first()
    assert refused is not None
    refused.sent_at, refused.tries = None, 4
    refused.try_again("SMTPRecipientsRefused: 550", now())
    keep()
    said = seen(app)
    assert "£27 is charging, after 2 tries; next" in said and "£28 is unknown, after 1 try; next" in said
    assert "£25" not in said and "£26" not in said
    assert f"“confirmed” to pledge {begun.id} , after 4 tries: SMTPRecipientsRefused: 550; next" in said
    assert begun.email not in said
    assert "Something is off." in seen(app, "/staff")


@pytest.mark.parametrize("number", ["0", "999999999", "9" * 30, "²", "nothing"])
def test_a_pledge_that_there_is_not_is_not_found(app: Flask, number: str) -> None:
    assert logged_in(app, a_user("staff")).get(f"/staff/pledges/{number}").status_code == 404
