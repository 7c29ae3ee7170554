"""What a case owner sees of a live case: figures that move, a chart, an outlook, whence people came, the pledges."""

import csv
import datetime as dt
import io
import re

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient

import law
from models import Case, Day, Pledge, Round, Source, User, begin_writing, db
from tests.crowd import in_another_thread
from tests.doorway import logged_in
from tests.hygiene import check_fragment
from tests.made import a_case, a_draft, a_pledge, a_user, case_at, confirm, keep, look_anew, now
from tests.reading import read, said
from views.spreadsheet import harmless

HTMX = {"HX-Request": "true"}


def _a_case_that_began(days_ago: int, owner: User, pence_a_day: list[int]) -> Case:
    """A live case of £6,000 with 20 days to go; `pence_a_day` are the days so far, today included, one pledge each."""
    case = a_case(owner=owner, target=600_000, ends_in=dt.timedelta(days=20, minutes=5))
    case.live_at = now() - dt.timedelta(days=days_ago)
    for place, pence in enumerate(pence_a_day):
        pledge = a_pledge(case.round, pence, email=f"day-{place}@dashboard.example")
        confirm(pledge).confirmed_at = now() - dt.timedelta(days=days_ago - place)
        day = Day.of(case.round)[-1]
        day.day -= dt.timedelta(days=days_ago - place)
        db.session.flush()
    keep()
    return case


def _days(its_round: Round) -> list[tuple[int, int]]:
    """(pledges, pence) of each day on which something changed."""
    look_anew()
    return [(day.pledges, day.pence) for day in Day.of(its_round)]


# --- The figures -------------------------------------------------------------------------------------------


def test_the_owner_reads_the_pace_and_an_outlook_with_room_for_cards_that_fail(app: Flask) -> None:
    owner = a_user()
    # Six whole days: £60, £40, £20 at the beginning, then £10, £10 and £10; today £5 so far.
    case = _a_case_that_began(6, owner, [6_000, 4_000, 2_000, 1_000, 1_000, 1_000, 500])
    page = read(logged_in(app, owner), f"/owner/cases/{case.slug}")
    facts = {said(term): said(term.find_next_sibling("dd")) for term in page.select("#dashboard dt")}
    assert facts["Pledges a day"] == "1.0 with £25 on average of the last 6 whole days"
    # £155 and 20 days of £10; or 17 days of £25 and then three of £40, and some minutes more than £700.
    assert facts["At the deadline"] == "perhaps £350 to £710"
    assert facts["Charged of it"] == "perhaps £310 to £680 if the target is reached"
    assert said(page, "#dashboard .left").startswith("20 days to go, until ")
    assert "3 to 10 % can usually not be charged" in said(page, "#dashboard details")


def test_in_french_the_figures_are_set_as_the_french_set_them(app: Flask) -> None:
    owner = a_user()
    # Two whole days: £600 and £1,200 in two pledges; today nothing.
    case, client = _a_case_that_began(2, owner, [60_000, 120_000]), logged_in(app, owner)
    page = read(client, f"/fr/owner/cases/{case.slug}")
    facts = {said(term): said(term.find_next_sibling("dd")) for term in page.select("#dashboard dt")}
    assert facts["Engagements par jour"] == "1,0, soit 900 £ en moyenne sur les 2 derniers jours complets"
    assert facts["À l’échéance"] == "une prévision vient après 4 jours complets"
    rows = [[said(cell) for cell in row.select("td")][1:] for row in page.select("#days tbody tr")]
    assert rows == [["0", "0 £", "1 800 £"], ["1", "1 200 £", "1 800 £"], ["1", "600 £", "600 £"]]
    assert page.select("main a[href^='/fr/owner/']") and not page.select("main a[href^='/owner']")
    file = client.get(f"/fr/owner/cases/{case.slug}/pledges.csv").get_data().decode("utf-8-sig")
    assert file.splitlines()[0] == 'Date,Nom,"Promis, en livres"'


def test_before_four_whole_days_nothing_is_foretold(app: Flask) -> None:
    owner = a_user()
    case = _a_case_that_began(3, owner, [6_000, 4_000, 2_000, 500])
    page = read(logged_in(app, owner), f"/owner/cases/{case.slug}")
    assert "an outlook comes after 4 whole days" in said(page, "#dashboard")
    assert not page.select(".outlook")


def test_the_chart_and_its_table_say_the_same_and_end_at_the_total(app: Flask) -> None:
    owner = a_user()
    case = _a_case_that_began(2, owner, [60_000, 40_000, 20_000])
    page = read(logged_in(app, owner), f"/owner/cases/{case.slug}")
    rows = [[said(cell) for cell in row.select("td")][1:] for row in page.select("#days tbody tr")]
    assert rows == [["1", "£200", "£1,200"], ["1", "£400", "£1,000"], ["1", "£600", "£600"]]
    line = page.select_one(".sum")
    assert line
    heights = [
        round((200 - float(point.split(",")[1])) / (200 * 0.94) * 6_000, -1) for point in str(line["points"]).split()
    ]
    assert heights == [0, 600, 1_000, 1_200]
    drawn = page.select_one("svg[role=img]")
    assert drawn and said(page, f"#{drawn['aria-labelledby']}").startswith(
        "What was pledged in all, day by day; £1,200"
    )
    assert not page.select("svg [style], svg style, svg script")


def test_the_days_always_add_up_to_the_total(app: Flask) -> None:
    case = a_case(target=600_000)
    first, second = (confirm(a_pledge(case.round, 5_000, email=f"sum-{n}@dashboard.example")) for n in range(2))
    keep()
    assert _days(case.round) == [(2, 10_000)]
    Pledge.hold(first.id).change_amount(2_000, now())
    keep()
    assert _days(case.round) == [(2, 7_000)]
    Day.of(case.round)[0].day -= dt.timedelta(days=1)
    Pledge.hold(second.id).cancel(now())
    keep()
    # Yesterday keeps what came then; what was taken back is taken off today.
    assert _days(case.round) == [(2, 7_000), (-1, -5_000)]
    case_at(case.slug).cancel("No more.", "operator", now())
    keep()
    assert _days(case.round) == [(2, 7_000), (-2, -7_000)]


def test_a_day_is_the_one_on_the_wall_of_the_rounds_zone(app: Flask) -> None:
    case = a_case(ends_in=dt.timedelta(days=20))
    Round.hold(case.round.id).count(500, 1, dt.datetime(2026, 6, 30, 23, 30, tzinfo=dt.UTC))
    Round.hold(case.round.id).count(-500, -1, dt.datetime(2026, 7, 1, 22, 59, tzinfo=dt.UTC))
    assert [day.day for day in Day.of(case.round)] == [dt.date(2026, 7, 1)]


def test_the_figures_are_asked_for_again_until_the_round_is_over(app: Flask) -> None:
    owner = a_user()
    case = a_case(owner=owner, target=600_000, pledged=[9_500])
    client = logged_in(app, owner)
    asking = read(client, f"/owner/cases/{case.slug}").select_one("#dashboard")
    assert asking and asking["data-hx-trigger"] == "every 20s"
    again = str(asking["data-hx-get"])
    unchanged = client.get(again, headers=HTMX)
    assert (unchanged.status_code, unchanged.data) == (204, b"")
    begin_writing()
    confirm(a_pledge(case_at(case.slug).round, 2_500, email="again@dashboard.example"))
    keep()
    changed = BeautifulSoup(client.get(again, headers=HTMX).text, "html5lib")
    check_fragment(changed)
    assert said(changed, "#dashboard .total").startswith("£120 pledged of £6,000")
    assert said(changed, "#figures-said") == "£120 pledged of £6,000, 2 pledges."
    assert said(changed, "#days tbody td:last-child") == "£120"
    # Without script the same address is a whole page.
    assert said(read(client, again), "#dashboard .total").startswith("£120 pledged of £6,000")
    case_at(case.slug).round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())
    keep()
    over = BeautifulSoup(client.get(again, headers=HTMX).text, "html5lib").select_one("#dashboard")
    assert over and not over.get("data-hx-get") and not over.get("data-hx-trigger")


def test_of_a_case_that_is_not_live_there_are_no_figures_no_list_and_no_file(app: Flask) -> None:
    owner = a_user()
    slug, client = a_draft(owner).slug, logged_in(app, owner)
    for end in ("/figures", "/pledges", "/pledges.csv"):
        answer = client.get(f"/owner/cases/{slug}{end}")
        assert (answer.status_code, answer.location) == (303, f"/owner/cases/{slug}")


@pytest.mark.parametrize("end", ["", "/figures", "/pledges", "/pledges?q=Ada", "/pledges.csv"])
def test_the_figures_and_pledges_of_another_owner_do_not_exist(app: Flask, end: str) -> None:
    theirs = a_case(title="Theirs", pledged=[9_500])
    answer = logged_in(app, a_user()).get(f"/owner/cases/{theirs.slug}{end}")
    assert answer.status_code == 404
    assert "Ada" not in answer.text and "Theirs" not in answer.text


# --- Whence people came ------------------------------------------------------------------------------------


def _came(case: Case) -> dict[str, tuple[int, int]]:
    """Source -> how often the form was opened, how many pledges counted."""
    look_anew()
    return {name: (opened, confirmed) for name, _, opened, confirmed in Source.sums(case.round)}


@pytest.mark.parametrize(
    ("query", "before", "source"),
    [
        ("?via=poster", None, "via:poster"),
        ("", "https://www.News.example.org/a/story?who=ada", "from:news.example.org"),
        ("?via=poster", "https://news.example.org/", "via:poster"),
        # From our own case page: the label with which that was opened, and never ourselves.
        ("", "http://127.0.0.1:8000/cases/a-case?via=radio&x=1", "via:radio"),
        ("", "http://127.0.0.1:8000/cases/a-case", ""),
        ("", None, ""),
        ("?via=Ada%20Winter", None, ""),
        ("?via=" + "x" * 31, None, ""),
        ("?via=<script>", "https://news.example.org:99999/", "from:news.example.org"),
        ("", "https://[::1", ""),
        ("", "android-app://com.example", "from:com.example"),
    ],
)
def test_an_opened_form_is_counted_by_its_label_or_else_by_the_page_before(
    client: FlaskClient, query: str, before: str | None, source: str
) -> None:
    case = a_case()
    headers = {"Referer": before} if before else {}
    page = read(client, f"/cases/{case.slug}/pledge{query}", headers=headers)
    assert _came(case) == {source: (1, 0)}
    assert [field["value"] for field in page.select("[name=came_from]")] == ([source] if source else [])


def test_only_a_reader_who_gets_the_form_is_counted(app: Flask) -> None:
    owner, stranger = a_user(), app.test_client()
    case = a_case(owner=owner)
    logged_in(app, owner).get(f"/cases/{case.slug}/pledge?via=poster")
    stranger.head(f"/cases/{case.slug}/pledge?via=poster")
    stranger.get(f"/cases/{case.slug}?via=poster")
    assert _came(case) == {}
    case_at(case.slug).pledging_paused = True
    keep()
    assert stranger.get(f"/cases/{case.slug}/pledge?via=poster").status_code == 409
    assert _came(case) == {}


def test_a_pledge_that_counts_is_counted_where_its_supporter_came_from_and_then_nobody_knows(
    client: FlaskClient, app: Flask
) -> None:
    case = a_case()
    page = read(client, f"/cases/{case.slug}/pledge?via=poster")
    typed = {field["name"]: field["value"] for field in page.select("form input[type=hidden]")}
    typed |= {"amount": "25", "name": "Ada Winter", "email": "whence@dashboard.example"}
    again = read(client, f"/cases/{case.slug}/pledges", status=422, method="POST", data=typed)
    assert [field["value"] for field in again.select("[name=came_from]")] == ["via:poster"]
    # Stripe cannot be reached here; the pledge is written down before it is asked.
    client.post(f"/cases/{case.slug}/pledges", data={**typed, "agreed": "y"})
    made = db.session.scalars(sa.select(Pledge)).one()
    assert made.came_from == "via:poster"
    held = Pledge.hold(made.id)
    held.card_page_made(held.session_key, "cs_test_whence", "https://stripe.example/page")
    confirm(held)
    keep()
    assert _came(case) == {"via:poster": (1, 1)}
    assert db.session.scalars(sa.select(Pledge.came_from)).all() == [""]


def test_where_people_came_from_says_that_it_counts_those_who_have_cancelled_since(app: Flask) -> None:
    """Once a pledge counts nothing says any more where its supporter came from, so nothing can be taken off again."""
    case = a_case()
    confirm(a_pledge(case.round)).cancel(now())
    keep()
    assert _came(case) == {"": (0, 1)} and case_at(case.slug).round.pledge_count == 0
    desk = read(logged_in(app, case_at(case.slug).owner), f"/owner/cases/{case.slug}")
    assert [said(one) for one in desk.select(".sources th")] == [
        "Came from", "Short link", "Form opened", "Pledged, also those cancelled since",
    ]  # fmt: skip
    assert [said(one) for one in desk.select(".sources tbody td")] == ["not known", "0", "0", "1"]


@pytest.mark.parametrize("forged", ["others", "via:", "via:Ada Winter", "from:a b", "poster", "via:poster\n", "=1+1"])
def test_a_source_that_is_none_of_ours_is_not_kept_and_costs_nobody_the_pledge(
    client: FlaskClient, forged: str
) -> None:
    case = a_case()
    form = {"amount": "25", "name": "Ada Winter", "email": "forged@dashboard.example", "agreed": "y",
            "form_key": "k" * 32, "came_from": forged}  # fmt: skip
    client.post(f"/cases/{case.slug}/pledges", data=form)
    assert [pledge.came_from for pledge in db.session.scalars(sa.select(Pledge))] == [""]


def test_nobody_can_fill_the_table_with_labels(app: Flask) -> None:
    case = a_case()
    for number in range(30):
        Source.count(case.round, f"via:junk-{number}", "opened", now())
    Source.count(case.round, "via:junk-3", "opened", now())
    Source.count(case.round, "via:poster", "confirmed", now())
    keep()
    found = _came(case)
    assert len(found) == law.SOURCES_A_DAY + 1 == 21
    assert (found["via:junk-3"], found["others"]) == ((2, 0), (10, 1))
    # The next day there is room again.
    Source.count(case.round, "via:poster", "opened", now() + dt.timedelta(days=1))
    keep()
    assert _came(case)["via:poster"] == (1, 0)


def test_the_owner_reads_where_people_came_from_the_best_first_and_at_most_thirteen_lines(app: Flask) -> None:
    owner = a_user()
    case = a_case(owner=owner)
    for name in ("via:poster", "from:news.example.org", "", *(f"via:n-{n:02}" for n in range(12))):
        Source.count(case.round, name, "opened", now())
    Source.count(case.round, "via:poster", "confirmed", now())
    Source.count(case.round, "via:poster", "visited", now())
    keep()
    page = read(logged_in(app, owner), f"/owner/cases/{case.slug}")
    rows = [[said(cell) for cell in row.select("td")] for row in page.select(".sources tbody tr")]
    assert rows[:3] == [
        ["your link “poster”", "1", "1", "1"],
        ["not known", "0", "1", "0"],
        ["news.example.org", "0", "1", "0"],
    ]
    assert (len(rows), rows[-1]) == (13, ["others", "0", "3", "0"])


def test_a_form_is_given_at_once_while_somebody_else_writes_and_is_then_not_counted(app: Flask) -> None:
    case, stranger = a_case(), app.test_client()
    slug, round_id = case.slug, case.round.id
    stranger.get(f"/cases/{slug}/pledge?via=poster")
    begin_writing()
    # SQLite has one lock for everything; on PostgreSQL it is the very row that is held.
    db.session.execute(sa.update(Source).where(Source.round_id == round_id).values(opened=Source.opened))

    def open_form() -> tuple[int, float]:
        begun = now()
        answer = app.test_client().get(f"/cases/{slug}/pledge?via=poster")
        return answer.status_code, (now() - begun).total_seconds()

    status, seconds = in_another_thread(app, open_form)
    db.session.rollback()
    assert status == 200
    assert seconds < 5
    assert _came(case_at(slug)) == {"via:poster": (1, 0)}


# --- The pledges -------------------------------------------------------------------------------------------


def _a_case_with_names(owner: User) -> Case:
    case = a_case(owner=owner, target=600_000)
    for n, (name, hidden) in enumerate([("Ada Winter", False), ("Canary Hidden", True), ("Ben 100% Archer", False)]):
        email = f"canary-{n}@dashboard.example"
        confirm(a_pledge(case.round, 2_500 + 50 * n, name=name, email=email, shown_as="hidden" if hidden else "name"))
    confirm(a_pledge(case.round, name="Canary Gone", email="canary-gone@dashboard.example")).cancel(now())
    a_pledge(case.round, name="Canary Started", email="canary-started@dashboard.example")
    keep()
    return case


def test_a_message_stands_beside_the_pledge_that_it_came_with_as_text(app: Flask) -> None:
    owner = a_user()
    its_round = a_case(slug="with-a-message", owner=owner).round
    pledge = a_pledge(its_round, 2_500, name="Ada Winter")
    pledge.say("<b>Keep going</b>, for the pupils.", public=False)
    confirm(pledge)
    keep()
    listed = read(logged_in(app, owner), "/owner/cases/with-a-message/pledges")
    assert said(listed, ".rows tbody td:first-child") == "Ada Winter <b>Keep going</b>, for the pupils."


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ["Ben 100% Archer", "Anonymous", "Ada Winter"]),
        ("winter", ["Ada Winter"]),
        ("  WINTER ", ["Ada Winter"]),
        ("anon", ["Anonymous"]),
        ("100%", ["Ben 100% Archer"]),
        ("%", ["Ben 100% Archer"]),
        ("hidden", []),
        ("canary", []),
        ("dashboard.example", []),
        ("gone", []),
    ],
)
def test_pledges_are_found_by_the_name_that_they_show_and_by_nothing_else(
    app: Flask, words: str, found: list[str]
) -> None:
    owner = a_user()
    case = _a_case_with_names(owner)
    page = read(logged_in(app, owner), f"/owner/cases/{case.slug}/pledges", query_string={"q": words})
    assert [said(name) for name in page.select(".rows tbody td:first-child")] == found
    listed = page.select_one(".rows")
    assert "canary" not in str(listed or "").casefold()


def test_pledges_come_in_pages_and_each_is_on_exactly_one(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("views.dashboard.PLEDGES_A_PAGE", 3)
    owner = a_user()
    case = a_case(owner=owner)
    at = now()
    for n in range(8):
        # Three of the same instant: none may be left out or shown twice between two pages.
        confirm(a_pledge(case.round, name=f"Supporter {n}", email=f"page-{n}@dashboard.example"))
    for pledge in case.round.pledges("confirmed")[:4]:
        pledge.confirmed_at = at
    keep()
    client, address, pages = logged_in(app, owner), f"/owner/cases/{case.slug}/pledges?q=supporter", []
    while address:
        page = read(client, address)
        pages.append([said(name) for name in page.select(".rows tbody td:first-child")])
        link = page.find("a", string="Older pledges")
        address = str(link["href"]) if link else ""
    assert [len(page) for page in pages] == [3, 3, 2]
    assert {name for page in pages for name in page} == {f"Supporter {n}" for n in range(8)}


@pytest.mark.parametrize("after", ["x", "1", "1.", ".1", "-1.2", "1.2.3", "9" * 17 + ".1", "１.２"])
def test_a_page_that_nobody_can_mean_is_the_first(app: Flask, after: str) -> None:
    owner = a_user()
    case = a_case(owner=owner, pledged=[9_500])
    page = read(logged_in(app, owner), f"/owner/cases/{case.slug}/pledges", query_string={"after": after})
    assert [said(cell) for cell in page.select(".rows tbody td.money")] == ["£95"]


def test_the_file_for_a_spreadsheet_has_what_supporters_share_and_nothing_else(app: Flask) -> None:
    owner = a_user()
    case = _a_case_with_names(owner)
    pledge = case_at(case.slug).round.pledges("confirmed")[0]
    pledge.name, pledge.confirmed_at = (
        '=HYPERLINK("https://evil.example")',
        dt.datetime(2026, 6, 30, 23, 30, tzinfo=dt.UTC),
    )
    keep()
    answer = logged_in(app, owner).get(f"/owner/cases/{case.slug}/pledges.csv")
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{case.slug}-pledges.csv"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(io.StringIO(answer.data.decode("utf-8-sig"))))
    assert rows[0] == ["Date", "Name", "Pledged, in pounds"]
    # 23:30 in UTC is the next day in London in summer.
    assert rows[1] == ["2026-07-01", '\'=HYPERLINK("https://evil.example")', "25.00"]
    assert [row[1:] for row in rows[2:]] == [["Anonymous", "25.50"], ["Ben 100% Archer", "26.00"]]
    assert not re.search("canary|dashboard.example", answer.text, re.IGNORECASE)


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\rx",
        "\nx",
        " =1",
        "  \t=1",
        '"=1',
        "'=1",
        '" =1',
        "“=1",
        "\u00a0=1",
        "\uff1d1",
    ],
)
def test_what_a_spreadsheet_could_work_out_is_text(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize(
    "cell", ["Ada Winter", "O'Neill", "12.50", "a=b", "Jean-Luc", "", "2026-07-01", '"Ada"', "Ada @ home"]
)
def test_what_is_no_formula_stays_as_it_was(cell: str) -> None:
    assert harmless(cell) == cell
