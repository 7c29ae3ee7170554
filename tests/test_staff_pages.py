"""The staff's desk: cases, the run of the deadline capture, pledges to search, and one pledge's whole history."""

import datetime as dt

import pytest
from bs4 import BeautifulSoup
from flask import Flask

from models import Case, Dispute, Pledge, Round, db
from payments import ChargeFound, DisputeFound
from tests.at_stripe import DECLINES_LATER, WORKS
from tests.charged import charge_due, due
from tests.doorway import logged_in
from tests.made import a_case, a_new_card, a_pledge, a_user, case_at, confirm, keep, now, pledges_of
from tests.sandbox_process import SandboxProcess
from tests.test_models_repairs import a_refused
from views import staff

HTMX = {"HX-Request": "true"}


def words(page: str, part: str = "main") -> str:
    found = BeautifulSoup(page, "html5lib").select_one(part)
    assert found is not None
    return " ".join(found.get_text(" ").split())


def test_the_desk_lists_every_case_with_its_round_its_total_and_its_switches(app: Flask) -> None:
    person = a_user("staff")
    a_case(slug="one", title="The first case", target=600_000, pledged=[9_500])
    case_at("one").switch("charges_frozen", True, "Stop.", db.session.merge(person), now())
    keep()
    other = a_case(slug="two", title="The second case", target=600_000)
    other.round.close(other.round.deadline.replace(year=2100))
    other.round.trouble = "Stripe is away"
    Case.draft(db.session.merge(person), "three", "A draft", "", "", "", now())
    keep()
    said = words(logged_in(app, person).get("/staff").text)
    assert "The first case open £95 of £6,000" in said and "charges frozen" in said
    assert "The round of The second case stays closing since" in said and "Stripe is away" in said
    assert "A draft" not in said


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("Europe/London", "Friday 31 July 2026, 12:30am BST"),
        ("America/New_York", "Thursday 30 July 2026, 7:30pm EDT"),
    ],
)
def test_the_desk_says_until_when_evidence_is_due_in_the_zone_of_the_site(app: Flask, zone: str, words: str) -> None:
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"display_zone": zone})
    due_by = dt.datetime(2026, 7, 30, 23, 30, tzinfo=dt.UTC)
    wanted, stated = charged_pledges(2_500, 3_000)
    the_bank(wanted, "open", due_by=due_by)
    the_bank(stated, "won", due_by=due_by)
    page = BeautifulSoup(logged_in(app, a_user("staff")).get("/staff").text, "html5lib")
    table = page.select_one("section[aria-labelledby=disputes-heading] table")
    assert table is not None and [head.text for head in table.select("th")][3] == "Evidence"
    cells = [row.select("td") for row in table.select("tbody tr")]
    assert [cell[3].text.startswith("closed ") for cell in cells] == [False, True]
    assert [cell[1].text for cell in cells] == ["£25", "£30"]
    assert [cell[2].text for cell in cells] == ["open (fraudulent)", "won (fraudulent)"]
    assert cells[0][3].text == f"due by {words}"
    assert [time["datetime"] for time in cells[0][3].select("time")] == ["2026-07-30T23:30:00Z"]
    # What has a date stands on top, before the cases.
    on_top = page.select_one("p.warn")
    assert on_top is not None and on_top.text == f"1 dispute wants evidence at Stripe, by {words}."
    of_pledge = [wanted.public_id, stated.public_id]
    said = [the_disputes(logged_in(app, a_user("staff")).get(f"/staff/pledges/{one}").text) for one in of_pledge]
    assert said[0].startswith("£25, open (fraudulent), opened ")
    assert said[0].endswith(f"; evidence is due at Stripe by {words}")
    assert said[1].startswith("£30, won (fraudulent)") and "; decided " in said[1] and "evidence" not in said[1]


def the_disputes(page: str) -> str:
    return words(page, "section[aria-labelledby=disputes-heading] ul")


def charged_pledges(*amounts: int) -> list[Pledge]:
    """Pledges of a case that was met, each charged."""
    for pledge in (pledges := decided(sum(amounts), *amounts)):
        answered(pledge, "succeeded")
    keep()
    return pledges


def the_bank(pledge: Pledge, outcome: str, due_by: dt.datetime | None = None) -> None:
    """The bank of a pledge's supporter wants all of it back, or has decided about that."""
    found = DisputeFound(f"du_{pledge.id}", f"ch_{pledge.id}", f"pi_{pledge.id}", pledge.amount_pence, "fraudulent",
                         outcome, True, due_by, now())  # fmt: skip
    Dispute.apply(found, Pledge.hold(pledge.id), now())
    keep()


def test_the_run_is_shown_as_it_goes_on_and_asks_again_until_nothing_is_left(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    due(sandbox, 2_500, 3_000, 4_000, cards=(WORKS, DECLINES_LATER, WORKS))
    browser = logged_in(asks_the_sandbox, a_user("staff"))
    where = "/staff/cases/the-case/run"
    page = browser.get(where).text
    assert "Cards are being charged." in words(page)
    assert "Due 3, £95 Charging 0, £0 Unknown 0, £0 Charged 0, £0 Failed 0, £0" in words(page)
    assert "Rate 0 answers a second in the last minute, at most 20 Time left about 1 second" in words(page)
    refresh = BeautifulSoup(page, "html5lib").select_one(f"#run a[href='{where}']")
    assert refresh is not None and refresh.text == "Refresh"
    fragment = browser.get(where, headers=HTMX).text
    assert "<html" not in fragment and "Due 3, £95" in words(fragment, "#run")
    assert BeautifulSoup(fragment, "html5lib").select_one("#run[data-hx-get]")
    charge_due()
    page = browser.get(where).text
    assert "Due 0, £0 Charging 0, £0 Unknown 0, £0 Charged 2, £65" in words(page)
    assert "Failed 1, £30 (declined 1, action required 0)" in words(page) and "Time left none" in words(page)
    assert "Nothing is left to charge. What was refused can still be repaired" in words(page)
    assert not BeautifulSoup(page, "html5lib").select_one("#run[data-hx-get]")


def the_run(app: Flask) -> str:
    return words(logged_in(app, a_user("staff")).get("/staff/cases/the-case/run").text, "#run")


def decided(target: int, *pledged: int, seconds_ago: int = 0) -> list[Pledge]:
    """The pledges of a round that was decided so long ago."""
    case = a_case(slug="the-case", target=target, pledged=pledged)
    its_round = db.session.merge(case).round
    its_round.close(its_round.deadline + dt.timedelta(seconds=1))
    its_round.settle(now() - dt.timedelta(seconds=seconds_ago))
    keep()
    return pledges_of("the-case")


def answered(pledge: Pledge, outcome: str) -> None:
    pledge.claim(now(), dt.timedelta(minutes=1))
    pledge.apply_charge(ChargeFound(outcome, f"pi_{pledge.id}", f"ch_{pledge.id}", pledge.amount_pence), now(), True)


def test_before_the_decision_the_run_says_that_nothing_is_charged_and_waits_for_it_to_begin(app: Flask) -> None:
    a_case(slug="the-case", target=9_500, pledged=[9_500])
    assert "The round is open. Nothing is charged before it is decided." in the_run(app)
    assert asks_again(app) == "every 20s"
    its_round = case_at("the-case").round
    its_round.close(its_round.deadline + dt.timedelta(seconds=1))
    keep()
    assert "The round is closing. Nothing is charged before it is decided." in the_run(app)
    assert asks_again(app) == "every 3s"
    case_at("the-case").round.settle(now())
    keep()
    assert "Cards are being charged. Due 1, £95" in the_run(app) and asks_again(app) == "every 3s"


def asks_again(app: Flask) -> str | None:
    """How often htmx asks for the run anew; None when it does not."""
    page = logged_in(app, a_user("staff")).get("/staff/cases/the-case/run").text
    (run,) = BeautifulSoup(page, "html5lib").select("#run")
    said = run.get("data-hx-trigger")
    return None if said is None else str(said)


def test_of_a_missed_round_the_run_says_that_nobody_is_charged(app: Flask) -> None:
    decided(10_000, 9_500)
    assert "The target was not reached: every pledge is released, and nobody is charged." in the_run(app)
    assert asks_again(app) is None


def test_of_a_case_that_was_cancelled_before_its_end_the_run_says_that_nobody_is_charged(app: Flask) -> None:
    a_case(slug="the-case", pledged=[9_500])
    case_at("the-case").cancel("Settled.", "user:1", now())
    keep()
    assert "The case was cancelled before it was decided: every pledge is released" in the_run(app)


def test_the_time_left_follows_from_the_answers_of_the_last_minute(app: Flask) -> None:
    pledges = decided(2_500, *[2_500] * 33, seconds_ago=600)
    for pledge in pledges[:3]:
        answered(pledge, "succeeded")
    keep()
    # Three in a minute are one in twenty seconds: thirty that are left take ten minutes.
    assert "Rate 0.05 answers a second in the last minute, at most 20 Time left about 10 minutes" in the_run(app)


@pytest.mark.parametrize(
    ("rate", "words"), [(0.0, "0"), (0.05, "0.05"), (9.96, "10"), (19.4, "19"), (98.6, "99"), (101.2, "101")]
)
def test_a_rate_is_told_in_figures_that_people_read(
    app: Flask, monkeypatch: pytest.MonkeyPatch, rate: float, words: str
) -> None:
    decided(2_500, 2_500, seconds_ago=600)
    monkeypatch.setattr(Round, "answered", lambda its_round, since: rate * 60)
    assert f"Rate {words} answers a second in the last minute, at most 20" in the_run(app)


def test_in_the_first_seconds_of_a_run_only_those_seconds_count(app: Flask) -> None:
    pledges = decided(2_500, *[2_500] * 23, seconds_ago=10)
    for pledge in pledges[:3]:
        answered(pledge, "succeeded")
    keep()
    said = the_run(app)
    seconds = int(said.partition("about ")[2].partition(" seconds")[0])
    assert 66 <= seconds <= 80, said  # Twenty are left, at three in ten seconds or a little more.


def test_while_no_charge_is_answered_nobody_knows_the_time_left(app: Flask) -> None:
    (pledge,) = decided(2_500, 2_500)
    answered(pledge, "unknown")
    keep()
    assert "Unknown 1, £25" in the_run(app)
    assert "Time left not known: nothing was answered in the last minute" in the_run(app)


def test_while_charges_are_frozen_the_run_says_so_and_when_the_case_is_cancelled_that_it_is_over(app: Flask) -> None:
    begun, _ = decided(5_000, 2_500, 2_500)
    answered(begun, "unknown")
    keep()
    case_at("the-case").switch("charges_frozen", True, "Stop.", db.session.merge(a_user("staff")), now())
    keep()
    said = the_run(app)
    assert "Charges are frozen: none leaves until this is lifted. Due 1, £25" in said and "Time left stopped" in said
    case_at("the-case").cancel("Settled.", "user:1", now())
    keep()
    said = the_run(app)
    assert "The case is cancelled, and nothing more is charged. Of each pledge that is left Stripe is asked" in said
    assert "Unknown 1, £25" in said and "Due 1, £25" in said and "Time left stopped" in said


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("", ["Ada Winter", "Bo Frost", "Cy 100%"]), ("winter", ["Ada Winter"]), ("BO@", ["Bo Frost"]),
        ("%", ["Cy 100%"]), ("_", []), ("nobody", []), ("x" * 5_000, []), ("'; DROP TABLE pledges", []),
    ],
)  # fmt: skip
def test_pledges_are_found_by_name_or_address_and_signs_mean_themselves(
    app: Flask, typed: str, found: list[str]
) -> None:
    case = a_case(slug="the-case")
    for name, email in (("Ada Winter", "ada@example.org"), ("Bo Frost", "bo@example.org"), ("Cy 100%", "cy@e.org")):
        confirm(a_pledge(case.round, name=name, email=email))
    keep()
    page = logged_in(app, a_user("staff")).get("/staff/cases/the-case/pledges", query_string={"q": typed}).text
    rows = BeautifulSoup(page, "html5lib").select("tbody tr")
    assert [row.select("td")[1].text for row in rows] == found


def test_a_pledge_is_found_by_its_number(app: Flask) -> None:
    case = a_case(slug="the-case", pledged=[500, 600])
    public_id = case.round.pledges("confirmed")[1].public_id
    page = logged_in(app, a_user("staff")).get(f"/staff/cases/the-case/pledges?q={public_id}").text
    assert [link.text for link in BeautifulSoup(page, "html5lib").select("tbody a")] == [public_id]


def test_pledges_come_in_pages_and_each_is_on_exactly_one(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staff, "PLEDGES_A_PAGE", 2)
    a_case(slug="the-case", pledged=[500, 600, 700, 800, 900])
    browser, where, seen = logged_in(app, a_user("staff")), "/staff/cases/the-case/pledges", []
    while where:
        page = BeautifulSoup(browser.get(where).text, "html5lib")
        seen.append([row.select("td")[3].text for row in page.select("tbody tr")])
        more = [link["href"] for link in page.select("main a") if link.text == "More pledges"]
        where = str(more[0]) if more else ""
    assert seen == [["£5", "£6"], ["£7", "£8"], ["£9"]]


@pytest.mark.parametrize("after", ["x", "-1", "9" * 30, "1e3", "²", ""])
def test_a_page_that_nobody_can_mean_is_the_first(app: Flask, after: str) -> None:
    a_case(slug="the-case", pledged=[500])
    page = logged_in(app, a_user("staff")).get("/staff/cases/the-case/pledges", query_string={"after": after})
    assert page.status_code == 200 and "£5" in page.text


def test_one_pledge_is_shown_with_its_history_its_attempts_and_its_money(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    (pledge,) = due(sandbox, 2_500)
    charge_due()
    page = logged_in(asks_the_sandbox, a_user("staff")).get(f"/staff/pledges/{pledge.public_id}").text
    said = words(page)
    assert f"pledge-{pledge.id}-charge-1" in said and "charge £25 ch_" in said
    for step in ("started", "confirmed, was started", "due, was confirmed", "charging, was due", "charged, was"):
        assert step in said
    assert BeautifulSoup(page, "html5lib").select("form[action$='/refunds']")


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    found = BeautifulSoup(page, "html5lib").select(f"section[aria-labelledby={heading}-heading] tbody tr")
    return [[words(str(cell), "body") for cell in row.select("td, th")] for row in found]


def test_the_history_names_who_of_the_staff_did_it_and_tells_nobody_else(app: Flask) -> None:
    ada, bo = a_user("staff", name="Ada Canary"), a_user("staff", name="Bo Canary")
    pledge, _ = decided(5_000, 2_500, 2_500)
    answered(pledge, "succeeded")
    pledge.ask_refund("k" * 24, 1_000, "They asked.", db.session.merge(ada), now())
    where, link = f"/staff/pledges/{pledge.public_id}", pledge.link()
    keep()
    case_at("the-case").switch("charges_frozen", True, "Wait.", db.session.merge(bo), now())
    keep()
    case_at("the-case").cancel("Settled.", f"user:{bo.id}", now())
    keep()
    browser = logged_in(app, db.session.merge(ada))
    assert {(what, who) for _, what, who, _ in rows(browser.get(where).text, "history")} == {
        ("started", "the supporter"), ("confirmed, was started", "Stripe"), ("due, was confirmed", "the clock"),
        ("charging, was due", "the clock"), ("charged, was charging", "Stripe"), ("refund asked", "Ada Canary, staff"),
    }  # fmt: skip
    of_case = [(what, who) for _, what, who, _ in rows(browser.get("/staff/cases/the-case").text, "history")]
    assert of_case[:2] == [("cancelled, was funded", "Bo Canary, staff"), ("charges frozen", "Bo Canary, staff")]
    client = app.test_client()
    for public in ("/", "/cases/the-case", f"/pledges/{link}", f"/pledges/{link}/receipt"):
        answer = client.get(public)
        assert answer.status_code == 200 and "Canary" not in answer.text and "user:" not in answer.text


def test_a_pledges_page_lists_what_was_agreed_to_when_and_which_of_it_holds(app: Flask) -> None:
    its_round = a_case(slug="the-case", target=600_000).round
    its_round.deadline = dt.datetime(2026, 12, 31, 20, 0, tzinfo=dt.UTC)
    begun = dt.datetime(2026, 12, 1, 9, 0, tzinfo=dt.UTC)
    pledge = confirm(a_pledge(its_round, 2_500, as_of=begun), begun)
    pledge.change_amount(1_500, begun + dt.timedelta(hours=1))
    pledge.change_amount(4_000, begun + dt.timedelta(hours=2))
    pledge.ask_card_page({"made": "by a test"}, its_round.deadline)
    keep()
    listed = rows(logged_in(app, a_user("staff")).get(f"/staff/pledges/{pledge.public_id}").text, "agreements")
    assert [row[:2] for row in listed] == [
        ["Tuesday 1 December 2026, 9:00am GMT", "£25"],
        ["Tuesday 1 December 2026, 10:00am GMT", "£15, holds"],
        ["Tuesday 1 December 2026, 11:00am GMT", "£40, awaits a card"],
    ]
    assert listed[1][2].startswith(
        "I allow Standing Test to charge my card £15 once, after Thursday 31 December 2026, "
    )
    assert listed[1][2].endswith("(version 1)")


def test_what_is_agreed_to_with_another_card_is_told_in_the_history_on_staffs_page_and_in_the_file(app: Flask) -> None:
    client, pledge = app.test_client(), a_refused()
    found = a_new_card(pledge)
    pledge.session_params = {"custom_text": {"submit": {"message": "I allow £25 at once."}}}
    pledge.apply_card(found, now())
    private, public_id = f"/pledges/{pledge.link()}", pledge.public_id
    keep()
    shown = client.get(private).text
    assert "You agreed that this card is charged at once, for the payment that was refused." in shown
    kept = client.get(f"{private}/data").json["pledge"]  # type: ignore[index]
    assert [one["words"] for one in kept["agreements"]][1:] == ["I allow £25 at once."]
    listed = rows(logged_in(app, a_user("staff")).get(f"/staff/pledges/{public_id}").text, "agreements")
    assert listed[1][1:] == ["£25", "I allow £25 at once. (version 2)"] and listed[0][1] == "£25, holds"


def test_the_public_is_told_nothing_of_a_switch_reason_or_of_a_refunds(app: Flask) -> None:
    a_case(slug="the-case", pledged=[9_500])
    person = a_user("staff")
    case_at("the-case").switch("pledging_paused", True, "A canary reason.", db.session.merge(person), now())
    keep()
    assert "A canary reason." not in app.test_client().get("/cases/the-case").text
    assert "A canary reason." in logged_in(app, db.session.merge(person)).get("/staff/cases/the-case").text
