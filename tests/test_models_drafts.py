"""A case before it is live: what a draft holds, who may change it when, what it lacks, when its round would end."""

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import law
from law import Refused
from models import BudgetLine, Case, DocumentLink, db
from tests.made import a_case, a_draft, a_user, keep, now
from tests.reading import read, said

LONDON = "Europe/London"
DAY = dt.timedelta(days=1)


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]


def written(case: Case, seen: int | None = None, page: str = "", pressed: bool = True, **values: Any) -> Case:
    case.write(values, case.draft_version if seen is None else seen, now(), page=page, pressed=pressed)
    return case


# --- The address -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Whose data?", "whose-data"),
        ("  The Queen's “Bench”, again ", "the-queens-bench-again"),
        ("Straße & Café: 66 years", "strae-cafe-66-years"),
        ("新しい", "case"),
        ("", "case"),
        ("new", "new-2"),
        ("x" * 160, "x" * 74),
    ],
)
def test_the_address_is_made_of_the_titles_letters(app: Flask, title: str, slug: str) -> None:
    assert Case.draft(a_user(), "", title, "", "", "", now()).slug == slug


def test_a_second_case_of_the_same_title_gets_a_number(app: Flask) -> None:
    owner = a_user()
    slugs = [Case.draft(db.session.merge(owner), "", "Whose data?", "", "", "", now()).slug for _ in range(3)]
    assert slugs == ["whose-data", "whose-data-2", "whose-data-3"]


def test_a_draft_can_be_given_another_address_but_not_that_of_another_case(app: Flask) -> None:
    a_case(slug="taken")
    case = a_draft()
    assert written(case, slug="whose-data").slug == "whose-data"
    for slug in ("taken", "new"):
        with pytest.raises(Refused, match=f"There is already a case at /cases/{slug}"):
            written(case, slug=slug)
    keep()
    assert case.slug == "whose-data"
    # Left empty, it is made from the title again.
    assert written(case, slug="", title="A new title").slug == "a-new-title"


# --- Writing it --------------------------------------------------------------------------------------------


def test_an_empty_draft_can_be_kept_and_what_is_not_sent_stays(app: Flask) -> None:
    case = Case.draft(a_user(), "", "", "", "", "", now())
    keep()
    assert (case.wanted_pence, case.wanted_days, case.wanted_end, case.zone) == (None, None, None, LONDON)
    written(case, story="Half a story", budget=[("Counsel", None), ("", 5_000)])
    written(case, summary="In short.", links=[("A letter", "")])
    keep()
    assert (case.story, case.summary, case.draft_version) == ("Half a story", "In short.", 3)
    assert [(line.words, line.pence) for line in case.budget] == [("Counsel", None), ("", 5_000)]
    assert [(link.title, link.url) for link in case.links] == [("A letter", "")]
    assert case.budget_pence == 5_000


def test_rows_are_stored_in_their_order_and_replaced_whole(app: Flask) -> None:
    case = a_draft(budget=[("One", 100), ("Two", 200), ("Three", 300)])
    written(case, budget=[("Three", 300), ("One", 100)], links=[])
    keep()
    assert [(line.position, line.words) for line in case.budget] == [(0, "Three"), (1, "One")]
    left = [db.session.scalar(sa.select(sa.func.count()).select_from(table)) for table in (BudgetLine, DocumentLink)]
    assert left == [2, 0]


def test_saving_the_same_words_again_is_no_new_version(app: Flask) -> None:
    case = a_draft()
    before = (case.draft_version, case.saved_at)
    written(case, title=case.title, budget=[("The claim", 400_000), ("Counsel", 200_000)])
    assert (case.draft_version, case.saved_at) == before


def test_what_was_saved_elsewhere_meanwhile_is_not_overwritten(app: Flask) -> None:
    case = a_draft()
    opened = case.draft_version
    written(case, seen=opened, page="her desk", story="What she wrote at her desk.")
    keep()
    saved_at = law.clock_words(case.saved_at or now(), LONDON)
    for pressed in (True, False):
        with pytest.raises(Refused, match=f"This draft was saved elsewhere at {saved_at}"):
            written(case, seen=opened, page="her telephone", pressed=pressed, story="What she wrote on the train.")
    keep()
    assert case.story == "What she wrote at her desk."


def test_a_button_may_be_pressed_while_the_same_page_saves_by_itself(app: Flask) -> None:
    case = a_draft()
    opened = case.draft_version
    written(case, seen=opened, page="her desk", pressed=False, story="Wor")
    written(case, seen=opened, page="her desk", pressed=True, story="Words")
    assert case.story == "Words"
    # What the page sent by itself before the button, and came late, is older than what the button sent.
    with pytest.raises(Refused, match="saved elsewhere"):
        written(case, seen=opened, page="her desk", pressed=False, story="Wor")


@pytest.mark.parametrize("status", ["submitted", "approved", "live", "rejected", "funded"])
def test_a_case_that_is_not_a_draft_cannot_be_written(app: Flask, status: str) -> None:
    case = a_draft()
    case.status, case.live_from = status, now()
    with pytest.raises(Refused, match=r"with our staff|no draft any more"):
        written(case, title="Another")
    assert case.title == "Whose data?"
    db.session.rollback()


@pytest.mark.parametrize(
    "broken",
    [
        "wanted_pence = 0", "wanted_pence = 100000001", "wanted_days = 0", "wanted_days = 61",
        "wanted_end = created_at", "status = 'approved'",
    ],
)  # fmt: skip
def test_the_database_itself_refuses_what_cannot_be(app: Flask, broken: str) -> None:
    case = a_draft()
    with pytest.raises(sa.exc.IntegrityError):
        db.session.execute(sa.text(f"UPDATE cases SET {broken} WHERE id = {case.id}"))
    db.session.rollback()


# --- What is missing ---------------------------------------------------------------------------------------


def test_an_empty_draft_lacks_everything_in_the_order_of_its_form(app: Flask) -> None:
    case = Case.draft(a_user(), "", " ", "", "", "", now())
    assert [field for field, _ in case.missing(now())] == [
        "title", "summary", "topic", "story", "who_we_are", "firm", "lawyer", "regulator_number", "court", "stage",
        "risks", "budget-0-words", "target", "days",
    ]  # fmt: skip


def test_a_whole_draft_lacks_nothing(app: Flask) -> None:
    assert a_draft().missing(now()) == []
    assert a_draft(links=[]).missing(now()) == []


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"risks": "\n"}, "risks", "Describe the risks."),
        ({"budget": [("Claim", 100), ("", 200)]}, "budget-1-words", "Line 2 of the budget needs words and an amount."),
        ({"budget": [("Counsel", None)]}, "budget-0-amount", "Line 1 of the budget needs words and an amount."),
        ({"links": [("A letter", "")]}, "links-0-url", "Document 1 needs a title and an address."),
        ({"wanted_pence": None}, "target", "Enter the target."),
        ({"wanted_days": None}, "days", "Say how long the round is, or when it ends."),
        ({"wanted_days": None, "wanted_end": utc(2022, 10, 9)}, "end_date", "The deadline is in the past."),
    ],
)
def test_each_thing_that_is_missing_names_its_field(
    app: Flask, changed: dict[str, Any], field: str, words: str
) -> None:
    assert a_draft(**changed).missing(now()) == [(field, words)]


# --- When its round would end ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "begins", "ends"),
    [
        (30, utc(2026, 6, 1, 9), utc(2026, 7, 1, 19)),
        # After 20:00 the day of the end would be a few hours short.
        (1, utc(2026, 6, 1, 19, 1), utc(2026, 6, 3, 19)),
        (1, utc(2026, 6, 1, 19), utc(2026, 6, 2, 19)),
        # Sixty days and some hours would be too long.
        (60, utc(2026, 6, 1, 9), utc(2026, 7, 30, 19)),
        (60, utc(2026, 6, 1, 19), utc(2026, 7, 31, 19)),
        # From summer time into winter time: still 20:00 on the wall.
        (7, utc(2026, 10, 20, 9), utc(2026, 10, 27, 20)),
        # Into summer time seven days are an hour shorter.
        (7, utc(2027, 3, 24, 20), utc(2027, 4, 1, 19)),
    ],
)
def test_a_round_of_so_many_days_ends_at_eight_in_the_evening(
    days: int, begins: dt.datetime, ends: dt.datetime
) -> None:
    assert law.deadline_after(days, LONDON, begins) == ends


@pytest.mark.parametrize("hour", range(24))
@pytest.mark.parametrize("days", [1, 30, 60])
@pytest.mark.parametrize("month", [3, 10])
def test_whatever_the_hour_of_going_live_each_length_is_one_that_a_round_may_have(
    month: int, days: int, hour: int
) -> None:
    for day in (1, 24, 25, 27, 28):
        begins = utc(2027, month, day, hour, 30)
        law.check_deadline(law.deadline_after(days, LONDON, begins), begins)


def test_a_draft_knows_the_round_that_it_would_have(app: Flask) -> None:
    begins = utc(2026, 6, 1, 9)
    prospect = a_draft().prospect(begins)
    assert (prospect.target_pence, prospect.deadline, prospect.zone) == (600_000, utc(2026, 7, 1, 19), LONDON)
    nothing = a_draft(wanted_pence=None, wanted_days=None).prospect(begins)
    assert (nothing.target_pence, nothing.deadline) == (None, None)


@pytest.mark.parametrize(
    ("ahead", "words"),
    [(-DAY, "in the past"), (DAY - dt.timedelta(seconds=1), "less than a day"), (61 * DAY, "more than 60 days")],
)
def test_an_end_that_no_round_may_have_is_refused(app: Flask, ahead: dt.timedelta, words: str) -> None:
    case = a_draft(wanted_days=None, wanted_end=now() + ahead)
    with pytest.raises(Refused, match=words):
        case.wanted_deadline(case.wanted_end - ahead if case.wanted_end else now())


# --- Its page, once it is live -----------------------------------------------------------------------------


def test_the_case_page_shows_all_that_was_written(app: Flask, client: FlaskClient) -> None:
    case = a_draft()
    case.go_live(600_000, now() + 7 * DAY, LONDON, "test", now())
    keep()
    page = read(client, f"/cases/{case.slug}")
    assert said(page, "[aria-labelledby=legal-team]") == "Legal team Sam Weir AWO Regulated: SRA 000000"
    assert said(page, "[aria-labelledby=court]") == (
        "Where the case stands Topic Privacy and data Court High Court Stage Before the claim"
    )
    rows = [said(row) for row in page.select("table.budget tr")]
    assert rows == ["What for Cost", "The claim £4,000", "Counsel £2,000", "Total £6,000"]
    assert said(page, "[aria-labelledby=risks-heading]") == "Risks We may lose, and then pay costs."
    assert "Teachers and parents." in said(page, "[aria-labelledby=owner]")
    (document,) = page.select("[aria-labelledby=documents] a")
    assert (document["href"], document.text) == ("https://example.org/letter.pdf", "The letter")
    assert "nofollow" in document["rel"]


def test_the_page_of_a_bare_case_has_no_empty_sections(app: Flask, client: FlaskClient) -> None:
    case = Case.draft(a_user(), "bare", "Bare", "", "A story.", "", now())
    case.go_live(600_000, now() + 7 * DAY, LONDON, "test", now())
    keep()
    page = read(client, "/cases/bare")
    assert [said(h) for h in page.select(".after h2")] == ["Case Owner", "Comments", "Tell others"]
