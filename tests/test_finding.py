"""How readers find a case: by its words, by what became of it, by its court, by its owner, page after page."""

import datetime as dt

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from models import Case, Round, db
from tests.made import a_case, a_draft, a_user, case_at, keep, now
from tests.reading import read, said
from views import public

A_DAY = dt.timedelta(days=1)


def titles(client: FlaskClient, address: str = "/") -> list[str]:
    return [said(title) for title in read(client, address).select(".cases h2")]


@pytest.mark.parametrize(
    ("sought", "found"),
    [
        ("", ["Café waste", "Whose data?"]),
        ("data", ["Whose data?"]),
        ("DATA whose", ["Whose data?"]),
        # The beginning of a word is enough, accents are not needed, and of several words all must be there.
        ("dat", ["Whose data?"]),
        ("cafe", ["Café waste"]),
        ("data waste", []),
        # In the owner's name, the story and the summary too.
        ("defend", ["Whose data?"]),
        ("heron", ["Café waste"]),
        ("short", ["Café waste", "Whose data?"]),
        # What the databases would take for operators are words here, or nothing at all.
        ("data OR waste", []),
        ('"data" & | ! ( ) * : \' -', ["Whose data?"]),
        ("? ! *", ["Café waste", "Whose data?"]),
        ("a" * 10_000, []),
        ("data " * 2_000, ["Whose data?"]),
    ],
)
def test_cases_are_found_by_words_of_their_title_owner_and_story(
    client: FlaskClient, sought: str, found: list[str]
) -> None:
    a_case(title="Whose data?", owner=a_user(name="Defend Digital Me"))
    a_case(title="Café waste", story="## The river\n\nA heron died.")
    a_draft(title="Data of a draft")
    page = read(client, "/", query_string={"q": sought})
    assert [said(title) for title in page.select(".cases h2")] == found
    kept = page.select_one("#q")
    assert kept and kept["value"] == sought[:200]
    assert bool(found) or said(page, "main > p:last-of-type") == "No case fits what you asked for. See all cases"


def test_a_case_that_is_out_of_sight_or_cancelled_is_not_found(client: FlaskClient) -> None:
    a_case(title="Under a notice").show_as("notice", "A statement.", "An order.", a_user("staff"), now())
    keep()
    a_case(title="Cancelled").cancel("Its owner took it back.", "test", now())
    keep()
    assert titles(client) == titles(client, "/?q=notice") == titles(client, "/?q=cancelled") == []


def test_cases_are_filtered_by_what_becomes_of_them_and_by_court(client: FlaskClient) -> None:
    a_case(title="Ends later", slug="later", ends_in=9 * A_DAY)
    a_case(title="Ends soon", slug="soon", ends_in=2 * A_DAY)
    a_case(title="Funded", slug="funded", target=2_500, pledged=[2_500])
    its_round = case_at("funded").round
    over = its_round.deadline + dt.timedelta(seconds=1)
    its_round.close(over)
    its_round.settle(over)
    keep()
    case_at("soon").court = "High Court"
    keep()
    assert titles(client) == titles(client, "/?show=odd&court=") == ["Ends soon", "Ends later", "Funded"]
    assert titles(client, "/?show=ended") == ["Funded"]
    assert titles(client, f"/?after={case_at('soon').id}") == ["Ends later", "Funded"]
    assert titles(client, f"/?after={case_at('later').id}") == ["Funded"]
    assert titles(client, f"/?after={case_at('funded').id}") == []
    assert titles(client, "/?show=live") == ["Ends soon", "Ends later"]
    assert titles(client, "/?show=ending-soon") == ["Ends soon", "Ends later"]
    assert titles(client, "/?show=ending-soon&after=" + str(case_at("soon").id)) == ["Ends later"]
    assert titles(client, "/?show=funded") == ["Funded"]
    assert titles(client, "/?court=High+Court") == ["Ends soon"]
    case_at("later").topic = "housing"
    keep()
    assert titles(client, "/?topic=housing") == titles(client, "/topics/housing") == ["Ends later"]
    # What makes no sense in the address is as if not asked; a page that is not there is not there.
    assert titles(client, "/?topic=odd") == titles(client)
    assert client.get("/topics/odd").status_code == 404
    assert said(read(client, "/topics/work"), "main p") == "There are no cases here yet."
    assert read(client, "/cases/later").select_one("main a[href='/topics/housing']")
    page = read(client, "/?show=live&court=Court+of+Nowhere")
    assert [said(option) for option in page.select("#court option")] == ["Any court", "Court of Nowhere", "High Court"]
    assert [said(option) for option in page.select("option[selected]")] == ["Live", "Court of Nowhere"]


def test_pages_follow_each_other_without_a_gap_though_a_new_case_comes_between(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(public, "CASES_A_PAGE", 2)
    owner = a_user(name="Defend Digital Me")
    for number in range(5):
        a_case(title=f"Number {number}", owner=owner)
    first = read(client, "/?q=number")
    assert [said(title) for title in first.select(".cases h2")] == ["Number 4", "Number 3"]
    a_case(title="Number 9")
    more = first.select_one("main a:-soup-contains('More cases')")
    assert more and "q=number" in str(more["href"])
    second = read(client, str(more["href"]))
    assert [said(title) for title in second.select(".cases h2")] == ["Number 2", "Number 1"]
    again = second.select_one("main a:-soup-contains('More cases')")
    assert again
    last = read(client, str(again["href"]))
    assert [said(title) for title in last.select(".cases h2")] == ["Number 0"]
    assert not last.select("main a:-soup-contains('More cases')")


@pytest.mark.parametrize("after", ["0", "-1", "x", "99", "999999999999999", "²", "1 OR 1"])
def test_a_page_after_nothing_is_the_first_page(client: FlaskClient, after: str) -> None:
    a_case(title="Whose data?")
    assert client.get("/", query_string={"after": after}).status_code == 200
    assert [said(t) for t in read(client, "/", query_string={"after": after}).select(".cases h2")] == ["Whose data?"]


def test_a_page_after_the_last_case_says_so_and_leads_to_the_first(client: FlaskClient) -> None:
    a_case(slug="only", title="The only one")
    last = case_at("only")
    last.topic, number, owner = "health", last.id, last.owner_id
    keep()
    for address in ("/", f"/owners/{owner}", "/topics/health"):
        page = read(client, f"{address}?after={number}")
        assert "There are no more cases. To the first page" in said(page, "main"), address
        assert page.select_one(f"main a[href='{address}']") and not page.select(".card"), address
    assert client.get(f"/owners/{owner + 1}?after={number}").status_code == 404
    assert "There are no cases here yet." in said(read(client, "/topics/police"), "main")


def test_an_owner_has_a_page_of_their_public_cases_and_nobody_else_has_one(client: FlaskClient) -> None:
    owner, newcomer = a_user(name="Defend Digital Me"), a_user()
    case = a_case(title="Whose data?", owner=owner)
    a_case(title="Another's")
    a_draft(newcomer)
    page = read(client, f"/cases/{case.slug}")
    link = page.select_one("main a:-soup-contains('All cases of Defend Digital Me')")
    assert link
    assert titles(client, str(link["href"])) == ["Whose data?"]
    for number in (newcomer.id, a_user("staff").id, 99_999, 0):
        read(client, f"/owners/{number}", status=404)


def test_what_is_written_again_is_found_by_its_new_words_alone(app: Flask, client: FlaskClient) -> None:
    case = a_case(title="Whose data?")
    db.session.execute(sa.text("UPDATE case_words SET words = 'river' WHERE case_id = :id"), {"id": case.id})
    db.session.commit()
    assert titles(client, "/?q=river") == ["Whose data?"]
    assert titles(client, "/?q=data") == []
    db.session.execute(sa.text("DELETE FROM case_words WHERE case_id = :id"), {"id": case.id})
    db.session.commit()
    assert titles(client, "/?q=river") == []
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Case).join(Round)) == 1
