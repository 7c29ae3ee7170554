"""The moderators' queue: what is in it, in which order, what is told of each comment, and what it costs to show."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import law
from models import Case, Comment, begin_writing, db
from tests.doorway import logged_in
from tests.made import a_case, a_user, keep, look_anew, now
from tests.reading import read, said

HOUR = dt.timedelta(hours=1)
WORDS = {"name": "Ben Field", "email": "ben@queue.example.org", "body": "I stand with you."}


@pytest.fixture
def desk(app: Flask) -> FlaskClient:
    """The browser of a moderator."""
    return logged_in(app, a_user("moderator", name="Mo First"))


def says(case: Case, body: str, age: dt.timedelta = HOUR, email: str = "ben@queue.example.org", **how: str) -> int:
    """The number of a comment that waits."""
    begin_writing()
    number = db.session.merge(case).take_comment("Ben Field", email, body, now() - age, **how).id  # type: ignore[arg-type]
    keep()
    return number


def comment(number: int) -> Comment:
    look_anew()
    return db.session.get_one(Comment, number)


def texts(desk: FlaskClient, address: str = "/moderation") -> list[str]:
    return [said(item, "blockquote:last-of-type") for item in read(desk, address).select(".item")]


# --- Signs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "signs", "risk"),
    [
        ("I stand with you.", [], 0),
        ("See https://example.org and www.example.org", ["links"], 1),
        ("BUY my pills: 100 pills, now!", ["repeated"], 2),
    ],
)
def test_the_text_of_a_comment_shows_signs_that_weigh(app: Flask, body: str, signs: list[str], risk: int) -> None:
    says(a_case(), "Now buy my pills.", age=29 * 24 * HOUR, email="one@queue.example.org")
    found = comment(says(a_case(), body))
    assert (found.signs, found.risk, found.status) == (signs, risk, "pending")


def test_a_text_of_more_than_30_days_ago_is_not_remembered(app: Flask) -> None:
    says(a_case(), "Buy my pills.", age=31 * 24 * HOUR, email="one@queue.example.org")
    assert comment(says(a_case(), "Buy my pills.")).signs == []


def test_the_fifth_comment_of_one_network_within_an_hour_marks_all_five(app: Flask) -> None:
    case = a_case()
    old = says(case, "An hour before", age=HOUR * 3 / 2, network="n1")
    numbers = [says(case, f"Words{'!' * n} {'abcde'[n]}", age=HOUR / 2, network="n1") for n in range(4)]
    other = says(case, "Another network", age=HOUR / 2, network="n2")
    nowhere = [says(case, f"Nowhere {word}", age=HOUR / 2) for word in "abcdef"]
    assert {comment(n).risk for n in numbers} == {0}
    fifth = says(case, "The fifth", age=HOUR / 2, network="n1")
    assert {tuple(comment(n).signs) for n in [*numbers, fifth]} == {("burst",)}
    assert {tuple(comment(n).signs) for n in [old, other, *nowhere]} == {()}


def test_a_filled_trap_and_a_network_come_with_the_form_and_a_reader_sees_neither(client: FlaskClient) -> None:
    slug = a_case().slug
    field = read(client, f"/cases/{slug}").select_one("[name=website]")
    assert field and (field["tabindex"], field["autocomplete"]) == ("-1", "off")
    assert field.find_parent(attrs={"aria-hidden": "true"})
    for body, website in (("A person's words", ""), ("A program's words", "https://pills.example")):
        sent = client.post(f"/cases/{slug}/comments", data={**WORDS, "body": body, "website": website})
        assert sent.status_code == 303
    look_anew()
    person, program = db.session.scalars(sa.select(Comment).order_by(Comment.id))
    assert (person.signs, program.signs, program.status) == ([], ["trap"], "pending")
    assert len(person.network) == 24 and person.network == program.network and "127.0.0" not in person.network


def test_a_change_is_looked_through_anew_and_keeps_the_sign_of_how_it_came(app: Flask) -> None:
    begin_writing()
    taken = a_case().take_comment("Ben", "ben@queue.example.org", "See https://example.org", now(), trapped=True)
    assert (taken.signs, taken.risk) == (["links", "trap"], 4)
    taken.edit("See nothing.", now())
    assert (taken.signs, taken.risk) == (["trap"], 3)


def test_every_sign_has_words_and_a_weight() -> None:
    assert {sign: weight for sign, (weight, words) in law.SIGNS.items() if words} == {
        "links": 1, "repeated": 2, "burst": 2, "trap": 3,
    }  # fmt: skip


# --- Order and filters -------------------------------------------------------------------------------------


def test_the_queue_is_oldest_first_or_riskiest_first_and_signs_decide_nothing(desk: FlaskClient) -> None:
    case = a_case()
    for body, age in (("Plain, new", 1), ("See https://a.example", 2), ("Plain, old", 3)):
        says(case, body, age * HOUR)
    assert texts(desk) == ["Plain, old", "See https://a.example", "Plain, new"]
    assert texts(desk, "/moderation?order=risk") == ["See https://a.example", "Plain, old", "Plain, new"]
    assert texts(desk, "/moderation?flagged=signs") == ["See https://a.example"]
    assert "Has web addresses." in said(read(desk, "/moderation?flagged=signs"), ".signs")


def test_the_queue_can_be_narrowed_by_case_and_by_age_and_says_how_many_are_late(desk: FlaskClient) -> None:
    one, two = a_case(title="Case one"), a_case(title="Case two")
    says(one, "One hour", HOUR)
    says(one, "Thirteen hours", 13 * HOUR)
    says(two, "Twenty-five hours", 25 * HOUR)
    page = read(desk, "/moderation")
    assert page.title and page.title.text.startswith("3 comments waiting")
    assert "1 has waited longer than 24 hours." in said(page, "main")
    assert ["over 24 hours" in said(item, ".when") for item in page.select(".item")] == [True, False, False]
    assert [said(option) for option in page.select("#case option")] == ["All cases", "Case one", "Case two"]
    assert texts(desk, f"/moderation?case={one.slug}") == ["Thirteen hours", "One hour"]
    assert texts(desk, "/moderation?over=12") == ["Twenty-five hours", "Thirteen hours"]
    assert texts(desk, f"/moderation?over=12&case={one.slug}") == ["Thirteen hours"]
    assert "1 comment of these is as you asked." in said(read(desk, f"/moderation?over=12&case={one.slug}"), "main")
    assert texts(desk, "/moderation?over=-1&case=&order=x&flagged=x&after=x.y.z") == texts(desk)
    assert "No comment is like that." in said(read(desk, "/moderation?case=nowhere"), "main")


def test_of_a_flood_no_more_is_counted_than_the_page_says(desk: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    case = a_case(title="Case one")
    for number in range(3):
        says(case, f"Words {'a' * number}", 25 * HOUR)
    monkeypatch.setattr("models.COUNTED_AT_MOST", 2)
    monkeypatch.setattr("views.moderators.COUNTED_AT_MOST", 2)
    page = read(desk, f"/moderation?case={case.slug}")
    assert page.title and page.title.text.startswith("More than 2 comments waiting")
    assert "More than 2 have waited longer than 24 hours." in said(page, "main")
    assert "More than 2 comments of these are as you asked." in said(page, "main")
    assert len(page.select(".item")) == 3


# --- What is told of each ----------------------------------------------------------------------------------


def test_links_stand_out_and_cannot_be_pressed(desk: FlaskClient) -> None:
    says(a_case(), "Look at https://pills.example/<b> now, or at www.pills.example/<i>.")
    quoted = read(desk, "/moderation").select_one("blockquote")
    assert quoted and quoted.select("a, b") == []
    assert [said(mark) for mark in quoted.select("mark")] == ["https://pills.example/", "www.pills.example/"]
    assert said(quoted) == "Look at https://pills.example/ <b> now, or at www.pills.example/ <i>."


def test_a_changed_comment_is_shown_with_the_text_of_before(desk: FlaskClient) -> None:
    moderator, case = a_user("moderator"), a_case()
    number = says(case, "Approved words", dt.timedelta(minutes=5))
    db.session.get_one(Comment, number).approve(db.session.merge(moderator), now())
    db.session.get_one(Comment, number).edit("Second words", now())
    db.session.get_one(Comment, number).edit("Third words", now())
    keep()
    item = said(read(desk, "/moderation"), f"#item-{number}")
    assert "Before its author changed it (this is public): Approved words Now: Third words" in item
    other = says(case, "First draft")
    db.session.get_one(Comment, other).edit("Second draft", now())
    keep()
    item = said(read(desk, "/moderation"), f"#item-{other}")
    assert "Before its author changed it: First draft Now: Second draft" in item


def test_the_same_authors_other_comments_are_counted_and_the_newest_three_shown(desk: FlaskClient) -> None:
    moderator, case = a_user("moderator"), a_case()
    numbers = [says(case, f"Words {word}", email="Cy@queue.example.org") for word in "abcde"]
    for number in numbers[:2]:
        db.session.get_one(Comment, number).approve(db.session.merge(moderator), now())
    db.session.get_one(Comment, numbers[2]).reject("harassment", db.session.merge(moderator), now())
    db.session.get_one(Comment, numbers[3]).withdraw(now())
    keep()
    says(case, "By somebody else", email="di@queue.example.org")
    page = read(desk, "/moderation")
    assert said(page, f"#item-{numbers[4]} summary") == "The same author: 2 approved, 1 rejected, 1 withdrawn"
    shown = [said(one) for one in page.select(f"#item-{numbers[4]} .others li")]
    assert shown == ["withdrawn", "rejected: Words c", "approved: Words b"]
    assert "cy@queue" not in str(page).casefold()


def test_comments_that_look_alike_stand_together(desk: FlaskClient) -> None:
    case = a_case()
    says(case, "Buy my pills", 4 * HOUR, email="one@queue.example.org")
    says(case, "Something else", 3 * HOUR)
    says(case, "BUY MY PILLS 24/7!", 2 * HOUR, email="two@queue.example.org")
    assert texts(desk) == ["Buy my pills", "BUY MY PILLS 24/7!", "Something else"]
    item = read(desk, "/moderation").select(".item")[0]
    assert "1 other comment that waits looks like this one." in said(item)
    together = str(item.select_one("a[href*='like=']")["href"])  # type: ignore[index]
    assert texts(desk, together) == ["Buy my pills", "BUY MY PILLS 24/7!"]


# --- Pages and costs ---------------------------------------------------------------------------------------


@contextmanager
def counted() -> Iterator[list[str]]:
    """Every query that is sent to the database meanwhile."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")):
            sent.append(statement)

    sa.event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(db.engine, "before_cursor_execute", note)


def test_fifty_are_shown_on_a_page_and_every_page_costs_at_most_12_queries(desk: FlaskClient) -> None:
    cases = [a_case() for _ in range(3)]
    says(cases[0], "Alone")
    with counted() as of_one:
        desk.get("/moderation")
    begin_writing()
    for n in range(120):
        case = db.session.merge(cases[n % 3])
        body = f"Words {'abcdefghij'[n // 12]}{'klmnopqrstuv'[n % 12]}" + " https://a.example" * (n % 2)
        # A hundred of the same instant: no comment may be left out or shown twice between two pages.
        taken = case.take_comment("Ben", f"author{n % 40}@queue.example.org", body, now() - HOUR)
        taken.waits_since = dt.datetime(2026, 1, 1, tzinfo=dt.UTC) if n < 100 else taken.waits_since
    keep()
    for query in ("", "?order=risk", f"?case={cases[0].slug}&order=risk&over=12"):
        pages, address = [], f"/moderation{query}"
        while address:
            with counted() as of_many:
                page = read(desk, address)
            assert len(of_many) <= 12, "\n".join(of_many)
            assert bool(query) or len(of_many) == len(of_one)
            pages.append([item["id"] for item in page.select(".item")])
            link = page.find("a", string="More comments")
            address = str(link["href"]) if link else ""
        assert [len(shown) for shown in pages] == ([34] if "case" in query else [50, 50, 21])
        assert len({number for shown in pages for number in shown}) == sum(map(len, pages))
