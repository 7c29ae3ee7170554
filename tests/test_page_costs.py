"""The pages of a house that was used for long: each costs a few queries, and as many as in a small house."""

import threading
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
import time_machine
from argon2 import PasswordHasher
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient

import app as application
import models
import payments
from bench import pages
from bench.growth import copies_of_case, copies_of_pledge, sqlites_steps
from demo import big
from jobs import doctor
from law import Refused
from models import Case, Comment, Day, Letter, Pledge, Round, Tally, begin_writing, db
from payments import CardPage
from tests.charged import SECOND
from tests.doorway import logged_in
from tests.made import a_case, a_user, keep, now
from tests.reading import read, said

SMALL, LARGE = {"cases": 20, "pledges": 100, "comments": 200}, {"cases": 60, "pledges": 1_000, "comments": 1_000}
MOST = 12
# A file for a spreadsheet has every pledge.
GROWING = {"/owner/cases/big-1/pledges.csv"}


@pytest.fixture
def empty_houses(new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Flask]]:
    """Two applications, each on a database of its own."""
    monkeypatch.setattr(models, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    apps = [
        application.create_app({
            "environment": "test", "database_url": new_database(), "redis_url": "unix:///nobody-listens.sock",
            "site_url": "http://127.0.0.1:8000", "pledge_form_seconds": 0,
        })
        for _ in range(2)
    ]  # fmt: skip
    yield apps
    for one in apps:
        with one.app_context():
            db.session.remove()
            db.engine.dispose()


def test_each_page_costs_at_most_12_queries_and_with_1000_pledges_no_more_work_than_with_100(
    empty_houses: list[Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pages of five, so that those of the small house are full as well.
    for where, name in (
        ("staff", "PLEDGES_A_PAGE"), ("staff", "CASES_A_PAGE"), ("staff", "LINES_A_PAGE"), ("moderators", "PAGE"),
        ("moderators", "DECISIONS_A_PAGE"), ("public", "COMMENTS_A_PAGE"), ("dashboard", "PLEDGES_A_PAGE"),
        ("public", "CASES_A_PAGE"), ("owners", "CASES_A_PAGE"), ("staff", "FOUND_AT_MOST"),
    ):  # fmt: skip
        monkeypatch.setattr(f"views.{where}.{name}", 5)
    monkeypatch.setattr("views.staff.REVIEWS_ON_THE_DESK", 1)
    monkeypatch.setattr("models.COUNTED_AT_MOST", 20)
    monkeypatch.setattr("models.COURTS_OF_NEWEST", 5)
    monkeypatch.setattr("models.MATCHES_LOOKED_THROUGH", 10)
    monkeypatch.setattr("models.LOOKED_THROUGH_AT_ONCE", 10)
    small, large = (pages.measure(app, size, 1) for app, size in zip(empty_houses, (SMALL, LARGE), strict=True))
    assert {address: cost.queries for address, cost in large.items() if cost.queries > MOST} == {}
    assert {address: cost.queries for address, cost in large.items()} == {
        address: cost.queries for address, cost in small.items()
    }
    steps = {address: (small[address].steps, large[address].steps) for address in large if address not in GROWING}
    assert {address: few_many for address, few_many in steps.items() if few_many[1] > few_many[0] * 1.2 + 500} == {}


def test_a_big_house_has_what_it_says_and_its_books_agree(app: Flask) -> None:
    big.fill(cases=20, pledges=300, comments=60)
    begin_writing()
    counted = [db.session.scalar(sa.select(sa.func.count(table.id))) for table in (Case, Pledge, Comment)]
    assert counted == [20, 300, 60]
    by_state = sa.select(Case.status, sa.func.count()).group_by(Case.status)
    standing = {row[0]: row[1] for row in db.session.execute(by_state)}
    assert standing == {"live": 10, "funded": 4, "missed": 4, "submitted": 2}
    assert db.session.scalar(sa.select(sa.func.count(Letter.id)).where(Letter.sent_at.is_(None))) == 0
    days = db.session.scalar(sa.select(sa.func.sum(Day.pence)))
    assert days and days == db.session.scalar(sa.select(sa.func.sum(Round.pledged_pence)))
    assert doctor.examine(now()) == []
    with pytest.raises(Refused, match="The big house stands already"):
        big.fill(cases=20, pledges=300, comments=60)


def test_a_case_page_has_the_newest_comments_and_leads_to_the_earlier_ones(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("views.public.COMMENTS_A_PAGE", 3)
    case, moderator = a_case(), a_user("moderator")
    for number in range(8):
        taken = case.take_comment("Ada", "pages@comments.example", f"Comment {number}", now())
        taken.approve(db.session.merge(moderator), now())
    keep()
    address, pages = f"/cases/{case.slug}", []
    while address:
        page = read(client, address)
        pages.append([said(one, "div") for one in page.select(".comment")])
        if len(pages) > 1:
            # Earlier ones rest, and only the newest are asked for again.
            assert not page.select("#comments[data-hx-get]")
        link = page.find("a", string="Earlier comments")
        address = str(link["href"]) if link else ""
    # Within a page the oldest comes first, so that a talk can be read.
    assert pages == [
        ["Comment 5", "Comment 6", "Comment 7"], ["Comment 2", "Comment 3", "Comment 4"], ["Comment 0", "Comment 1"],
    ]  # fmt: skip


def test_when_a_comment_of_a_full_page_is_withdrawn_the_page_is_another(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("views.public.COMMENTS_A_PAGE", 3)
    case, moderator = a_case(), a_user("moderator")
    for number in range(5):
        taken = case.take_comment("Ada", "withdrawn@comments.example", f"Comment {number}", now())
        taken.approve(db.session.merge(moderator), now())
    keep()
    asking = read(client, f"/cases/{case.slug}").select_one("#comments")
    assert asking
    again, htmx = str(asking["data-hx-get"]), {"HX-Request": "true"}
    assert client.get(again, headers=htmx).status_code == 204
    begin_writing()
    db.session.scalars(sa.select(Comment).where(Comment.body == "Comment 3")).one().withdraw(now())
    keep()
    fresh = client.get(again, headers=htmx)
    assert fresh.status_code == 200
    bodies = [said(one, "div") for one in BeautifulSoup(fresh.text, "html5lib").select(".comment")]
    assert bodies == ["Comment 1", "Comment 2", "Comment 4"]


def test_the_case_page_with_thirty_comments_and_ten_updates_takes_six_queries(client: FlaskClient) -> None:
    case, moderator = a_case(pledged=[2_500]), a_user("moderator")
    case, moderator = db.session.merge(case), db.session.merge(moderator)
    for number in range(30):
        case.take_comment("Ada", f"ada{number}@six.example", f"Comment {number}", now()).approve(moderator, now())
    for number in range(10):
        case.publish_update(case.owner, f"News {number}", "Words.", now())
    slug = case.slug
    keep()
    with pages.counted() as sent:
        page = read(client, f"/cases/{slug}")
        begin_writing()
    assert (len(page.select(".comment")), len(page.select("article.update"))) == (30, 10)
    assert len(sent) == 6, sent


def test_staff_find_a_case_by_its_title_and_turn_the_pages_of_the_list(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("views.staff.CASES_A_PAGE", 2)
    for number in range(5):
        a_case(title=f"Case {number} of pages")
    client, address, titles = logged_in(app, a_user("staff")), "/staff?q=OF+pages", []
    while address:
        page = read(client, address)
        titles.append([said(row, "a") for row in page.select("section[aria-labelledby=cases-heading] tbody tr")])
        link = page.find("a", string="More cases")
        address = str(link["href"]) if link else ""
    assert [len(page) for page in titles] == [2, 2, 1]
    assert {title for page in titles for title in page} == {f"Case {number} of pages" for number in range(5)}
    assert "No case is called like “100%”." in said(read(client, "/staff?q=100%25"), "main")


@pytest.mark.only_on("sqlite", why="SQLite's own steps are counted, which are the same on every machine")
def test_pages_of_a_case_and_a_search_take_no_more_steps_for_a_thousand_pledges_than_for_a_hundred(app: Flask) -> None:
    owner, staff = a_user(), a_user("staff")
    case = a_case(owner=owner, pledged=[2_500])
    number, slug = case.round.pledges("confirmed")[0].id, case.slug
    keep()
    client, desk = logged_in(app, owner), logged_in(app, staff)
    # The pages of a hundred are full already.
    copies_of_pledge(number, 99)
    addresses = [
        f"/owner/cases/{slug}",
        f"/owner/cases/{slug}/figures",
        f"/owner/cases/{slug}/pledges",
        f"/cases/{slug}",
        f"/staff/cases/{slug}",
        f"/staff/cases/{slug}/pledges",
        f"/staff/cases/{slug}/history",
        "/staff/search?q=nobody@example.org",
        "/staff/search?q=pi_of_nobody",
    ]

    def looked_at() -> dict[str, int]:
        return {one: _steps(desk if one.startswith("/staff") else client, one) for one in addresses}

    few = looked_at()
    copies_of_pledge(number, 900)
    many = looked_at()
    assert {address: steps for address, steps in many.items() if steps > few[address] + 1} == {}


@pytest.mark.broken_books("the copies of a case have no history")
@pytest.mark.only_on("sqlite", why="SQLite's own steps are counted, which are the same on every machine")
def test_finding_a_case_takes_no_more_steps_among_a_thousand_cases_than_among_a_hundred(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.MATCHES_LOOKED_THROUGH", 60)
    monkeypatch.setattr("models.COURTS_OF_NEWEST", 60)
    number = a_case(title="A case about data").id
    asked = (
        "/", "/?q=data", "/?q=data&show=ended", "/?q=data&topic=health", "/?q=data&show=ending-soon",
        "/?show=ending-soon", "/?show=funded", "/?show=ended", "/?topic=health", "/?topic=health&show=ended",
        "/?court=Supreme+Court", "/topics/police",
    )  # fmt: skip
    copies_of_case(number, 99)
    few = {address: _tens_of_steps(client, address) for address in asked}
    copies_of_case(number, 900)
    many = {address: _tens_of_steps(client, address) for address in asked}
    assert {address: (few[address], steps) for address, steps in many.items() if steps > few[address] * 1.1 + 10} == {}


def _tens_of_steps(client: FlaskClient, address: str) -> int:
    with pages.stepped() as steps:
        assert client.get(address).status_code == 200
        begin_writing()
    return len(steps)


def test_a_reader_is_told_when_only_the_newest_of_many_matches_were_looked_through(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.MATCHES_LOOKED_THROUGH", 2)
    for number in range(3):
        a_case(title=f"Rivers {number}")
    a_case(title="A lake")
    page = read(client, "/?q=rivers")
    assert [one.text for one in page.select(".card h2 a")] == ["Rivers 2", "Rivers 1"]
    assert "Only the newest 2 of them were looked through: one more word finds others." in said(page, "main")
    page = read(client, "/?q=rivers+0")
    assert [one.text for one in page.select(".card h2 a")] == ["Rivers 0"]
    assert "looked through" not in said(page, "main")


def _steps(client: FlaskClient, address: str) -> int:
    """In thousands."""
    with sqlites_steps() as steps:
        assert client.get(address).status_code == 200
        begin_writing()
    return steps.thousands


def test_a_search_looks_through_some_rows_at_once_and_leads_on_to_the_rest(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.LOOKED_THROUGH_AT_ONCE", 3)
    owner, staff = a_user("owner"), a_user("staff")
    case = a_case(slug="far-back", title="Far back", owner=owner, pledged=[1_000] * 7)
    begin_writing()
    db.session.merge(case).round.pledges("confirmed")[0].name = "Zoe Far"
    keep()
    for number in range(6):
        a_case(title=f"Another {number}")
    mine, desk = logged_in(app, owner), logged_in(app, staff)
    for client, address, more, found in (
        (mine, "/owner/cases/far-back/pledges?q=zoe", "Older pledges", "Zoe Far"),
        (desk, "/staff?q=far", "More cases", "Far back"),
        (desk, "/staff/search?q=far", "Older cases", "Far back"),
    ):
        looked, page = 0, read(client, address)
        while found not in page.get_text():
            assert "looked through" in page.get_text()
            link = page.find("a", string=more)
            assert link
            looked, page = looked + 1, read(client, str(link["href"]))
        # Six newer ones stand before it.
        assert looked == 2


def test_tallies_say_what_the_rows_say_loose_or_folded(app: Flask) -> None:
    case = a_case(target=5_000, pledged=[2_500, 2_500, 1_000])
    begin_writing()
    its_round = db.session.merge(case).round
    its_round.pledges("confirmed")[2].cancel(now())
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(its_round.deadline + SECOND)
    db.session.commit()
    before = its_round.figures()
    assert (before.counts, before.pence) == ({"due": 2, "cancelled": 1}, {"due": 5_000, "cancelled": 1_000})
    Tally.fold()
    db.session.commit()
    assert its_round.figures() == before
    assert db.session.scalar(sa.select(sa.func.count()).where(Tally.loose)) == 0
    # Confirmed ones have a line as well, of nothing.
    assert db.session.scalar(sa.select(sa.func.count(Tally.id))) == 3
    its_round.pledges("due")[0].refunded_pence = 300
    db.session.flush()
    assert its_round.figures().refunded == 300
    # What is not kept is not counted either.
    db.session.rollback()
    assert its_round.figures() == before


def _pledge(client: FlaskClient, slug: str, number: int) -> str:
    """Where it leads to."""
    typed = {
        "amount": "25", "name": "Ada Winter", "email": f"ada{number}@costs.example", "agreed": "y",
        "form_key": f"of-a-pledge-that-costs-{number:04}",
    }  # fmt: skip
    sent = client.post(f"/cases/{slug}/pledges", data=typed, headers={"Sec-Fetch-Site": "same-origin"})
    assert sent.status_code == 303
    return str(sent.location)


@pytest.fixture
def quick_stripe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "card_page", lambda _, key: CardPage(f"cs_{key}", "https://checkout.stripe.com/c/1"))


@pytest.mark.usefixtures("quick_stripe")
def test_to_take_a_pledge_costs_five_queries_and_three_more_when_stripe_has_answered(
    app: Flask, client: FlaskClient
) -> None:
    """The first of each second also counts what was begun before, for all that come within that second."""
    slug = a_case().slug
    keep()
    costs = {}
    with time_machine.travel(now(), tick=False):
        for number, what in enumerate(("first", "on to Stripe", "left to the clock")):
            if what == "left to the clock":
                app.extensions["waiting_room"].places = threading.BoundedSemaphore(1)
                app.extensions["waiting_room"].places.acquire()
            with pages.counted() as sent:
                led = _pledge(client, slug, number)
                begin_writing()
            costs[what] = len(sent), led.startswith("/pledges/")
    assert costs == {"first": (9, False), "on to Stripe": (8, False), "left to the clock": (5, True)}


@pytest.mark.only_on("sqlite", why="SQLite's own steps are counted, which are the same on every machine")
@pytest.mark.usefixtures("quick_stripe")
def test_to_take_a_pledge_takes_no_more_steps_when_two_thousand_were_begun_in_these_ten_minutes(
    client: FlaskClient,
) -> None:
    case = a_case(pledged=[2_500])
    one, slug = case.round.pledges("confirmed")[0].id, case.slug
    keep()

    def steps(number: int) -> int:
        """Of the second within one second, in thousands."""
        with time_machine.travel(now(), tick=False):
            _pledge(client, slug, number)
            with sqlites_steps() as taken:
                _pledge(client, slug, number + 1)
                begin_writing()
        return taken.thousands

    few = steps(1)
    begin_writing()
    copies_of_pledge(one, 2_000)
    keep()
    with time_machine.travel(now() + 2 * SECOND):
        assert steps(3) <= few + 1
