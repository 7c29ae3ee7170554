"""Staff say who sees a case and whether it takes comments, find what they look for, and leave a line each time that
they are shown a supporter's private data."""

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient

from jobs import doctor
from law import Refused
from letters import write
from models import Case, Comment, Event, Letter, Look, Pledge, db
from pictures import Drawing
from tests.doorway import SAME_ORIGIN, everything, logged_in, token_on
from tests.gallery import PICTURE
from tests.made import a_case, a_draft, a_pledge, a_user, case_at, confirm, keep, look_anew, now
from tests.test_bad_forms import TERMS

WHERE = "/staff/cases/the-case"
STATEMENT = "A court has asked us not to show this page."


@pytest.fixture
def desk(app: Flask) -> FlaskClient:
    """The browser of somebody of staff, with a case that has a story, a pledge and a public comment."""
    its_case = a_case(slug="the-case", title="CANARY-TITLE", story="CANARY-STORY", pledged=[9_500])
    its_case.take_comment("Ada", "ada@example.org", "CANARY-COMMENT", now())
    keep()
    moderator = db.session.merge(a_user("moderator"))
    comment = db.session.scalars(sa.select(Comment)).one()
    comment.approve(moderator, now())
    keep()
    case_at("the-case").publish_update(db.session.merge(case_at("the-case").owner), "CANARY-NEWS", "Words.", now())
    keep()
    return logged_in(app, a_user("staff"))


def press(desk: FlaskClient, what: str, **typed: str) -> Any:
    sent = {f"{what.partition('/')[0]}-{name}": text for name, text in typed.items()}
    token = {"form_token": token_on(desk, WHERE)}
    return desk.post(f"{WHERE}/{what}", data=sent | token, headers=SAME_ORIGIN)


# --- Who sees a case ---------------------------------------------------------------------------------------

PUBLIC = ("", "/pledge-total", "/comments", "/pledge", "/comments/reported", "/comments/1/report")


@pytest.mark.parametrize(("what", "at_its_address"), [("notice", 200), ("hiding", 404)])
def test_nothing_of_a_case_is_seen_under_a_notice_or_hidden_until_it_is_shown_again(
    desk: FlaskClient, client: FlaskClient, what: str, at_its_address: int
) -> None:
    assert press(desk, what, reason="An order.", statement=STATEMENT).status_code == 303
    page = client.get("/cases/the-case")
    assert page.status_code == at_its_address and (STATEMENT in page.text) == (what == "notice")
    for path in PUBLIC:
        where = "/comments/1/report" if path.endswith("/report") else f"/cases/the-case{path}"
        for headers in ({}, {"HX-Request": "true"}):
            answer = client.get(where, headers=headers)
            assert "CANARY" not in answer.text and (path == "" or answer.status_code == 404), where
    assert "CANARY" not in client.get("/").text
    for where, sent in (("/cases/the-case/comments", {"name": "Bo", "email": "bo@example.org", "body": "Words."}),
                        ("/cases/the-case/pledges", TERMS)):  # fmt: skip
        assert client.post(where, data=sent, headers=SAME_ORIGIN).status_code == 404
    assert press(desk, "showing", reason="It was lifted.").status_code == 303
    assert "CANARY-STORY" in client.get("/cases/the-case").text and "CANARY-TITLE" in client.get("/").text


def test_pledges_of_a_hidden_case_stand_can_be_cancelled_and_take_no_new_amount(
    desk: FlaskClient, client: FlaskClient
) -> None:
    pledge = confirm(a_pledge(case_at("the-case").round, 2_500))
    link = pledge.link()
    keep()
    press(desk, "hiding", reason="An order.")
    with pytest.raises(Refused, match="paused"):
        case_at("the-case").round.require_pledging(now())
    db.session.rollback()
    assert "£25" in client.get(f"/pledges/{link}").text
    assert client.post(f"/pledges/{link}/cancellation", headers=SAME_ORIGIN).status_code == 303
    look_anew()
    assert db.session.get_one(Pledge, pledge.id).status == "cancelled"
    assert case_at("the-case").round.pledged_pence == 9_500
    assert doctor.examine(now()) == []


def test_a_round_that_ends_while_its_case_is_hidden_is_decided_as_promised(desk: FlaskClient) -> None:
    press(desk, "hiding", reason="An order.")
    its_round = case_at("the-case").round
    with time_machine.travel(its_round.deadline + dt.timedelta(seconds=1), tick=False):
        its_round.close(now())
        its_round.settle(now())
    assert its_round.status == "missed"
    keep()


def test_each_turn_leaves_a_reason_a_name_and_a_time_and_a_letter_to_the_owner(desk: FlaskClient) -> None:
    press(desk, "notice", reason="An order.", statement=STATEMENT)
    press(desk, "notice", reason="Pressed twice.", statement=STATEMENT)
    press(desk, "hiding", reason="A wider order.")
    press(desk, "showing", reason="It was lifted.")
    look_anew()
    lines = db.session.scalars(sa.select(Event).where(Event.what.startswith("shown_as")).order_by(Event.id)).all()
    assert [(line.what, line.note) for line in lines] == [
        ("shown_as_notice", f"An order. The notice: “{STATEMENT}”"), ("shown_as_hidden", "A wider order."),
        ("shown_as_public", "It was lifted."),
    ]  # fmt: skip
    assert {line.who for line in lines} == {lines[0].who} and lines[0].who.startswith("user:")
    owed = db.session.scalars(sa.select(Letter).where(Letter.kind == "case_visibility")).all()
    assert len(owed) == 3 and write(owed[0])["Subject"] == "Your case can be seen again"


@pytest.mark.parametrize(
    ("what", "typed", "says"),
    [
        ("notice", {"reason": "", "statement": STATEMENT}, "Enter a reason."),
        ("notice", {"reason": "An order.", "statement": " "}, "Enter the notice."),
        ("notice", {"reason": "An order.", "statement": "n" * 2_001}, "Use at most 2,000 characters."),
        ("hiding", {"reason": " "}, "Enter a reason."),
        ("showing", {"reason": "r" * 501}, "Use at most 500 characters."),
    ],
)
def test_without_a_reason_or_a_notice_nothing_is_done_and_what_was_typed_stays(
    desk: FlaskClient, what: str, typed: dict[str, str], says: str
) -> None:
    if what == "showing":
        press(desk, "hiding", reason="An order.")
    before = everything()
    answer = press(desk, what, **typed)
    assert answer.status_code == 422 and says in answer.text and everything() == before
    assert all(text.strip() in answer.text for text in typed.values())


def test_a_picture_of_a_hidden_case_is_seen_by_its_owner_and_staff_alone(app: Flask, client: FlaskClient) -> None:
    owner = a_user("owner")
    its_case = a_draft(owner, title="Pictured")
    drawn = [Drawing(size, "image/png", 1, 1, PICTURE) for size in ("large", "small")]
    its_case.hang_picture(drawn, "A grey point.", now())
    its_case.submit(its_case.owner, now())
    slug = its_case.slug
    keep()
    someone = db.session.merge(a_user("staff"))
    its_case = Case.hold(db.session.scalars(sa.select(Case.id).where(Case.slug == slug)).one())
    its_case.approve(someone, now(), its_case.review_mark)
    where, slug = f"/pictures/{drawn[0].sha256}", its_case.slug
    keep()
    assert client.get(where).status_code == 200
    case_at(slug).show_as("hidden", "", "An order.", db.session.merge(a_user("staff")), now())
    keep()
    seen = {
        who: browser.get(where).status_code
        for who, browser in (("stranger", client), ("owner", logged_in(app, owner)),
                             ("another", logged_in(app, a_user("owner"))), ("staff", logged_in(app, a_user("staff"))))
    }  # fmt: skip
    assert seen == {"stranger": 404, "owner": 200, "another": 404, "staff": 200}


# --- Comments closed ---------------------------------------------------------------------------------------


def test_closed_comments_take_nothing_and_lose_no_word(desk: FlaskClient, client: FlaskClient) -> None:
    assert press(desk, "comments-lock", reason="The trial begins.").status_code == 303
    page = client.get("/cases/the-case").text
    assert "CANARY-COMMENT" in page and "Comments on this case are closed." in page and "Leave a comment" not in page
    sent = {"name": "Bo", "email": "bo@example.org", "body": "Typed for a long time."}
    for headers in (SAME_ORIGIN, SAME_ORIGIN | {"HX-Request": "true"}):
        answer = client.post("/cases/the-case/comments", data=sent, headers=headers)
        assert answer.status_code == 409 and "Typed for a long time." in answer.text and "are closed" in answer.text
    link = db.session.scalars(sa.select(Comment)).one().link()
    db.session.rollback()
    edited = client.post(f"/comments/{link}/text", data={"body": "Other words."}, headers=SAME_ORIGIN)
    assert edited.status_code == 409
    look_anew()
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Comment)) == 1
    assert client.post(f"/comments/{link}/withdrawal", headers=SAME_ORIGIN).status_code == 303
    press(desk, "comments-lock/end", reason="It is over.")
    assert client.post("/cases/the-case/comments", data=sent, headers=SAME_ORIGIN).status_code == 303


# --- Looking for something, and who looked -----------------------------------------------------------------


def test_search_finds_cases_by_title_and_owner_and_pledges_by_what_is_theirs_alone(app: Flask) -> None:
    owner = a_user("owner", email="olive@example.org", name="Olive Tree")
    its_round = a_case(slug="found", title="100% of the data", owner=owner).round
    pledge = confirm(a_pledge(its_round, email="Ann.E@x.example"))
    keep()
    draft = a_draft(db.session.merge(owner), title="A draft of hers")
    numbers = (pledge.public_id, pledge.session_id, pledge.customer_id, pledge.payment_method_id)
    keep()
    desk = logged_in(app, a_user("staff"))

    def found(words: str) -> str:
        return desk.get("/staff/search", query_string={"q": words}).text

    for words_ in ("100%", "found", "olive t", "OLIVE@example.org"):
        assert "100% of the data" in found(words_), words_
    assert "100% of the data" not in found("100_")
    assert draft.title in found("Olive Tree")
    for words_ in (*filter(None, numbers), "ann.e@x.example", " Ann.E@X.example "):
        assert "Ann.E@x.example" in found(words_), words_
    for words_ in ("ann.e@x", "%", "_", "", " ", "\x00", "x" * 10_000, "' OR 1=1 --"):
        assert "Ann.E@x.example</td>" not in found(words_), words_


def looks() -> list[tuple[str, int]]:
    look_anew()
    return [(look.page, look.pledge_id) for look in db.session.scalars(sa.select(Look).order_by(Look.id))]


def test_every_page_that_shows_a_supporters_private_data_to_staff_is_noted(desk: FlaskClient) -> None:
    its_round = case_at("the-case").round
    (pledge,) = its_round.pledges("confirmed")
    number, email = pledge.id, pledge.email
    db.session.rollback()
    for where, page in ((f"/staff/pledges/{number}", "pledge"), (f"{WHERE}/pledges", "pledges of a case"),
                        (f"/staff/search?q={email}", "search")):  # fmt: skip
        before = looks()
        assert email in desk.get(where).text
        assert looks() == [*before, (page, number)]
    token = {"form_token": token_on(desk, WHERE), "amount": "", "reason": ""}
    assert email in desk.post(f"/staff/pledges/{number}/refunds", data=token, headers=SAME_ORIGIN).text
    assert looks()[3:] == [("pledge", number)]
    for where in (
        "/staff",
        WHERE,
        f"{WHERE}/history",
        f"{WHERE}/run",
        "/staff/books",
        "/staff/moderation",
        "/staff/looks",
    ):
        assert email not in desk.get(where).text, where
    assert len(looks()) == 4
    assert (
        "search" in desk.get("/staff/looks").text
        and "Who looked at this pledge" in desk.get(f"/staff/pledges/{number}").text
    )


def test_what_cannot_be_noted_is_not_shown(desk: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    (pledge,) = case_at("the-case").round.pledges("confirmed")
    number, email = pledge.id, pledge.email
    db.session.rollback()
    monkeypatch.setattr(Look, "keep", lambda *_: 1 / 0)
    answer = desk.get(f"/staff/pledges/{number}")
    assert answer.status_code == 500 and email not in answer.text and looks() == []


def test_a_page_that_cannot_be_drawn_fails_once_and_nobody_was_looked_at(
    desk: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (pledge,) = case_at("the-case").round.pledges("confirmed")
    number = pledge.id
    db.session.rollback()
    monkeypatch.setattr("views.staff.render_template", lambda *_, **__: 1 / 0)
    answer = desk.get(f"/staff/pledges/{number}")
    assert answer.status_code == 500 and "Something went wrong on our side" in answer.text and looks() == []
    assert "Exception on" not in caplog.text, "the error page broke as well"


def test_the_whole_history_is_read_page_by_page_and_every_line_once(desk: FlaskClient) -> None:
    its_round = case_at("the-case").round
    for number in range(60):
        confirm(a_pledge(its_round, email=f"ada{number}@example.org"))
    keep()
    seen, where = [], f"{WHERE}/history"
    while where:
        page = BeautifulSoup(desk.get(where).text, "html5lib")
        seen += [row.get_text(" ", strip=True) for row in page.select("tbody tr")]
        older = page.find("a", string="Older lines")
        where = str(older["href"]) if older else ""
    look_anew()
    counted = sa.select(sa.func.count()).select_from(Event).where(Event.subject_kind != "user")
    all_events = db.session.scalars(counted).one()
    assert len(seen) == all_events > 120
