"""A case is sent for review, and staff decide: once, on what they have read, with a reason that its owner sees."""

import datetime as dt
import re
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient

import law
import letters
from jobs.launches import launch_case
from jobs.sweep import sweep
from law import Refused
from models import Case, Event, Letter, User, begin_writing, db
from tests.crowd import at_once
from tests.made import a_case, a_draft, a_user, keep, now
from tests.mailbox import text_of
from tests.reading import read, said, token
from tests.test_owner_pages import logged_in

DAY, HOUR = dt.timedelta(days=1), dt.timedelta(hours=1)


def sent(**changed: Any) -> Case:
    """A whole draft that its owner has sent for review."""
    case = a_draft(**changed)
    case.submit(case.owner, now())
    keep()
    return case


def owed(kind: str) -> list[Letter]:
    keep()
    return list(db.session.scalars(sa.select(Letter).where(Letter.kind == kind).order_by(Letter.id)))


def moves(case: Case) -> list[tuple[str, str, str]]:
    """(what, who, note) of each line of the case's history, oldest first."""
    return [(event.what, event.who, event.note) for event in reversed(case.history())]


# --- Sending it --------------------------------------------------------------------------------------------


def test_a_case_that_lacks_something_is_not_sent(app: Flask) -> None:
    case = a_draft(risks="")
    with pytest.raises(Refused, match="Something is missing still"):
        case.submit(case.owner, now())
    assert (case.status, case.submissions) == ("draft", 0)


def test_sent_twice_it_is_sent_once_and_each_of_staff_is_told_once(app: Flask) -> None:
    people = [a_user("staff"), a_user("staff")]
    case = sent()
    case.submit(case.owner, now())
    keep()
    assert moves(case) == [("submitted", f"user:{case.owner_id}", "")]
    told = owed("case_submitted")
    assert [letter.subject for letter in told] == [f"user:{person.id}" for person in people]
    words = letters.write(told[0])
    assert words["Subject"] == "A case waits for review: Whose data?"
    assert f"http://127.0.0.1:8000/staff/reviews/{case.slug}" in text_of(words)


def test_a_case_with_staff_can_be_taken_back_and_sent_again(app: Flask) -> None:
    a_user("staff")
    case = sent()
    with pytest.raises(Refused, match="is with our staff"):
        case.write({"title": "Another"}, case.draft_version, now())
    (first,) = owed("case_submitted")
    assert letters.is_true(first)
    case.take_back(case.owner, now())
    assert not letters.is_true(first), "there is nothing to read any more"
    case.write({"title": "Another"}, case.draft_version, now())
    case.submit(case.owner, now())
    keep()
    assert [what for what, _, _ in moves(case)] == ["submitted", "draft", "submitted"]
    assert (case.submissions, len(owed("case_submitted"))) == (2, 2)


@pytest.mark.parametrize("status", ["live", "rejected"])
def test_what_is_decided_cannot_be_taken_back(app: Flask, status: str) -> None:
    case, staff = sent(), a_user("staff")
    case = db.session.merge(case)
    if status == "live":
        case.approve(staff, now(), case.review_mark)
    else:
        case.reject("No.", staff, now(), case.review_mark)
    keep()
    with pytest.raises(Refused, match=f"This case is {status}: it can no longer become draft"):
        case.take_back(case.owner, now())
    db.session.rollback()


# --- Deciding it -------------------------------------------------------------------------------------------


def test_an_approved_case_is_live_at_once_with_the_round_that_its_owner_wanted(app: Flask) -> None:
    case, staff, as_of = sent(), a_user("staff"), now()
    case.approve(staff, as_of, case.review_mark)
    keep()
    assert (case.status, case.live_at, case.round.target_pence) == ("live", as_of, 600_000)
    assert case.round.deadline == law.deadline_after(30, "Europe/London", as_of)
    assert moves(case)[-1] == ("live", f"user:{staff.id}", "")
    (letter,) = owed("case_live")
    words = letters.write(letter)
    assert (words["Subject"], words["To"].addresses[0].addr_spec) == ("Your case is live", case.owner.email)
    assert law.instant_words(case.round.deadline, "Europe/London") in text_of(words)
    assert f"http://127.0.0.1:8000/cases/{case.slug}" in text_of(words)


@pytest.mark.parametrize(
    ("verb", "status", "kind", "subject"),
    [
        (Case.ask_changes, "changes_requested", "case_changes", "Your case needs changes before it can go live"),
        (Case.reject, "rejected", "case_rejected", "Your case was not accepted"),
    ],
)
def test_a_refusal_has_a_reason_that_its_owner_gets_and_history_keeps(
    app: Flask, verb: Callable[..., None], status: str, kind: str, subject: str
) -> None:
    case, staff = sent(), a_user("staff")
    verb(case, "Name the court.", staff, now(), case.review_mark)
    keep()
    assert (case.status, case.review_reason) == (status, "Name the court.")
    assert moves(case)[-1] == (status, f"user:{staff.id}", "Name the court.")
    (letter,) = owed(kind)
    words = letters.write(letter)
    assert words["Subject"] == subject
    assert "Name the court." in text_of(words)
    page = read(logged_in(app, case.owner), f"/owner/cases/{case.slug}/draft")
    assert "Name the court." in said(page, "main .warn")
    assert bool(page.select("#draft")) == (status == "changes_requested")


def test_after_changes_it_is_sent_again_and_the_letter_of_before_is_overtaken(app: Flask) -> None:
    case, staff = sent(), a_user("staff")
    case.ask_changes("Name the court.", staff, now(), case.review_mark)
    case.write({"court": "Crown Court"}, case.draft_version, now())
    (letter,) = owed("case_changes")
    assert letters.is_true(letter)
    case.submit(case.owner, now())
    assert not letters.is_true(letter)
    case.ask_changes("And the stage.", staff, now(), case.review_mark)
    keep()
    assert [letter.occasion for letter in owed("case_changes")] == ["review:1", "review:2"]
    assert [what for what, _, _ in moves(case)] == ["submitted", "changes_requested"] * 2


def test_who_decides_on_what_has_changed_meanwhile_is_told_and_nothing_is_done(app: Flask) -> None:
    case, staff = sent(), a_user("staff", name="Sue Staff")
    seen = case.review_mark
    case.ask_changes("Name the court.", staff, now(), seen)
    told = r"not as you saw it: changes were asked for by Sue Staff. Nothing was done."
    with pytest.raises(Refused, match=told):
        case.approve(staff, now(), seen)
    with pytest.raises(Refused, match=told):
        case.reject("No.", staff, now(), seen)
    with pytest.raises(Refused, match=told):
        case.ask_changes("Other.", staff, now(), seen)
    case.write({"court": "Crown Court"}, case.draft_version, now())
    case.submit(case.owner, now())
    with pytest.raises(Refused, match="it was sent again by A Owner"):
        case.approve(staff, now(), seen)
    with pytest.raises(Refused, match="it was sent again"):
        case.approve(staff, now(), "")
    keep()
    assert (case.status, case.review_reason) == ("submitted", "Name the court.")


def test_an_end_that_is_no_longer_possible_cannot_be_approved(app: Flask) -> None:
    case, staff = sent(wanted_days=None, wanted_end=now() + 2 * DAY), a_user("staff")
    with pytest.raises(Refused, match="less than a day away"):
        case.approve(staff, now() + 30 * HOUR, case.review_mark)
    with pytest.raises(Refused, match="The deadline is in the past"):
        case.approve(staff, now(), case.review_mark, now() + 3 * DAY)
    assert case.status == "submitted"


# --- Many at once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trial", range(3))
def test_of_many_who_decide_at_the_same_moment_one_decides_and_the_others_are_told(app: Flask, trial: int) -> None:
    case = sent()
    case_id, seen = case.id, case.review_mark
    staff = [a_user("staff").id for _ in range(6)]
    done: list[str] = []
    told: list[str] = []

    def decide(number: int) -> Callable[[], None]:
        def at_their_desk() -> None:
            person, held = db.session.get_one(User, staff[number]), Case.hold(case_id)
            try:
                if number % 3 == trial:
                    held.approve(person, now(), seen)
                elif number % 2:
                    held.reject("No.", person, now(), seen)
                else:
                    held.ask_changes("Change it.", person, now(), seen)
            except Refused as refused:
                db.session.rollback()
                told.append(str(refused))
                return
            db.session.commit()
            done.append(held.status)

        return at_their_desk

    at_once(app, *[decide(number) for number in range(6)])
    keep()
    case = db.session.get_one(Case, case_id)
    assert done == [case.status]
    assert len(told) == 5 and all("not as you saw it" in words for words in told)
    assert len(moves(case)) == 2
    decided = ("case_live", "case_changes", "case_rejected")
    assert db.session.scalar(sa.select(sa.func.count()).where(Letter.kind.in_(decided))) == 1


def test_sent_many_times_at_the_same_moment_it_is_sent_once(app: Flask) -> None:
    a_user("staff")
    case = a_draft()
    case_id, owner_id = case.id, case.owner_id

    def send() -> None:
        Case.hold(case_id).submit(db.session.get_one(User, owner_id), now())
        db.session.commit()

    at_once(app, *[send] * 8)
    keep()
    case = db.session.get_one(Case, case_id)
    assert (case.submissions, len(moves(case)), len(owed("case_submitted"))) == (1, 1, 1)


def test_two_drafts_of_one_title_at_the_same_moment_get_two_addresses_or_a_clear_word(app: Flask) -> None:
    owner_id = a_user().id
    slugs: list[str] = []
    told: list[str] = []

    def begin() -> None:
        try:
            case = Case.draft(db.session.get_one(User, owner_id), "", "Whose data?", "", "", "", now())
            db.session.commit()
        except Refused as refused:
            db.session.rollback()
            told.append(str(refused))
            return
        slugs.append(case.slug)

    at_once(app, *[begin] * 6)
    assert slugs and len(slugs) == len(set(slugs)) == 6 - len(told)
    assert all("There is already a case at /cases/whose-data" in words for words in told)


# --- At a set time -----------------------------------------------------------------------------------------


def approved(live_from: dt.datetime, **changed: Any) -> Case:
    case, staff = sent(**changed), a_user("staff")
    case.approve(staff, now(), case.review_mark, live_from)
    keep()
    return case


def test_a_case_that_is_approved_for_a_time_waits_for_it_and_its_owner_is_told(app: Flask) -> None:
    live_from = now() + 2 * DAY
    case = approved(live_from)
    assert (case.status, case.live_from, case.live_at) == ("approved", live_from, None)
    (letter,) = owed("case_approved")
    assert letters.is_true(letter)
    assert f"live by itself on {law.instant_words(live_from, 'Europe/London')}" in text_of(letters.write(letter))
    assert Case.due_live(live_from - dt.timedelta(seconds=1)) == []
    assert Case.due_live(live_from) == [case.id]
    case.launch(live_from - dt.timedelta(seconds=1))
    assert case.status == "approved"


def test_the_clock_makes_it_live_once_and_counts_its_days_from_then(app: Flask) -> None:
    case = approved(now() + HOUR)
    case.live_from = now() - dt.timedelta(minutes=1)
    keep()
    case_id = case.id
    for _ in range(2):
        sweep(now())
        begin_writing()
        launch_case(case_id)
    keep()
    case = db.session.get_one(Case, case_id)
    assert case.status == "live" and case.live_at is not None
    assert len(case.rounds) == 1
    assert case.round.deadline == law.deadline_after(30, "Europe/London", case.live_at)
    assert moves(case)[-1] == ("live", "clock", "")
    assert [letter.subject for letter in owed("case_live")] == [f"case:{case_id}"]


def test_what_has_become_impossible_does_not_go_live_and_owner_and_staff_are_told(app: Flask) -> None:
    """The programs stood still over the time that was set, and the wanted end is less than a day away by now."""
    begins = now() + HOUR
    case = approved(begins, wanted_days=None, wanted_end=begins + 25 * HOUR)
    for _ in range(2):
        case.launch(begins + 2 * HOUR)
    keep()
    assert (case.status, case.rounds, case.live_from) == ("changes_requested", [], None)
    why = "It could not go live at the time that was set. The deadline is less than a day away."
    assert case.review_reason == why
    assert moves(case)[-1] == ("changes_requested", "clock", why)
    (to_owner,), to_staff = owed("case_not_live"), owed("case_not_live_staff")
    assert why in text_of(letters.write(to_owner))
    assert len(to_staff) == 1 and why in text_of(letters.write(to_staff[0]))
    assert letters.write(to_staff[0])["Subject"] == "An approved case did not go live: Whose data?"


def test_an_approved_case_can_be_taken_back_by_its_owner_and_given_back_by_staff(app: Flask) -> None:
    case = approved(now() + HOUR)
    case.take_back(case.owner, now())
    assert (case.status, case.live_from, Case.due_live(now() + DAY)) == ("draft", None, [])
    other, staff = approved(now() + HOUR), a_user("staff")
    other.ask_changes("We have read it again.", staff, now(), other.review_mark)
    assert (other.status, other.live_from) == ("changes_requested", None)
    keep()


# --- The owner's pages -------------------------------------------------------------------------------------


def press(client: FlaskClient, address: str, status: int = 303, **typed: Any) -> BeautifulSoup:
    form = {"form_token": token(client, "/"), **typed}
    return read(client, address, status, method="POST", data=form)


def test_the_checklist_links_each_thing_to_its_field_and_offers_to_send_only_what_is_whole(app: Flask) -> None:
    case = a_draft(risks="", wanted_pence=None, budget=[])
    client, own = logged_in(app, case.owner), f"/owner/cases/{case.slug}"
    page = read(client, f"{own}/launch")
    links = [str(link["href"]) for link in page.select(".missing a")]
    assert links == [f"{own}/draft#risks", f"{own}/draft#budget-0-words", f"{own}/draft#target"]
    form = read(client, f"{own}/draft")
    assert all(form.select(f"[id='{link.partition('#')[2]}']") for link in links)
    assert not page.find("button", string="Send it for review")
    answer = client.post(f"{own}/submission", data={"form_token": token(client, "/owner")})
    assert (answer.status_code, answer.location) == (303, f"{own}/launch")
    keep()
    assert db.session.get_one(Case, case.id).status == "draft"


def test_an_owner_sends_a_case_and_takes_it_back(app: Flask) -> None:
    case = a_draft()
    client, own = logged_in(app, case.owner), f"/owner/cases/{case.slug}"
    page = read(client, f"{own}/launch")
    assert "Nothing: it can be sent for review." in said(page, "main")
    assert page.find("button", string="Send it for review")
    for _ in range(2):
        press(client, f"{own}/submission")
    page = read(client, f"{own}/draft")
    assert "Waiting for review." in said(page, "main") and not page.select("#draft")
    assert "Waiting for review." in said(read(client, "/owner"), ".left")
    press(client, f"{own}/withdrawal")
    assert read(client, f"{own}/draft").select("#draft")
    keep()
    assert [what for what, _, _ in moves(db.session.get_one(Case, case.id))] == ["submitted", "draft"]


# --- The private link --------------------------------------------------------------------------------------


def test_the_lawyers_link_shows_exactly_the_page_of_the_preview_and_nobody_may_keep_it(
    app: Flask, client: FlaskClient
) -> None:
    case = a_draft()
    owner = logged_in(app, case.owner)
    link = read(owner, f"/owner/cases/{case.slug}/launch").select_one(".address a")
    assert link and link.text == f"http://127.0.0.1:8000{link['href']}"
    answer = client.get(str(link["href"]))
    assert answer.status_code == 200
    assert (answer.headers["Cache-Control"], answer.headers["X-Robots-Tag"]) == ("no-store", "noindex")
    page = BeautifulSoup(answer.text, "html5lib")
    assert said(page, "#draft-banner").startswith("This is a draft.")
    preview = read(owner, f"/owner/cases/{case.slug}/preview")
    assert str(page.select_one("article.case")) == str(preview.select_one("article.case"))


def test_a_replaced_link_or_an_altered_one_opens_nothing(app: Flask, client: FlaskClient) -> None:
    case, other = a_draft(), a_draft()
    owner, link = logged_in(app, case.owner), case.preview_link()
    number, _, signature = link.partition(".")
    for wrong in (f"{other.id}.{signature}", f"{number}.", number, f"{number}.{signature[:-1]}", "x.y", f"9{number}.x",
                  f"{'9' * 30}.x", "²." + signature):  # fmt: skip
        assert client.get(f"/drafts/{wrong}").status_code == 404, wrong
    press(owner, f"/owner/cases/{case.slug}/preview-link")
    assert client.get(f"/drafts/{link}").status_code == 404
    keep()
    case = db.session.get_one(Case, case.id)
    assert client.get(f"/drafts/{case.preview_link()}").status_code == 200
    assert [what for what, _, _ in moves(case)] == ["preview_link_replaced"]


def test_once_the_case_is_public_the_link_leads_to_its_page(app: Flask, client: FlaskClient) -> None:
    case = a_draft()
    link = case.preview_link()
    case.go_live(600_000, now() + 7 * DAY, "Europe/London", "test", now())
    keep()
    answer = client.get(f"/drafts/{link}")
    assert (answer.status_code, answer.location) == (303, f"/cases/{case.slug}")


# --- The staff's pages -------------------------------------------------------------------------------------


class Desk:
    """Somebody of staff at the review of a case."""

    def __init__(self, app: Flask, case: Case, name: str = "Sue Staff") -> None:
        self.app, self.case_id, self.slug = app, case.id, case.slug
        self.person = a_user("staff", name=name)
        self.client = logged_in(app, self.person)
        self.address = f"/staff/reviews/{case.slug}"

    def seen(self) -> str:
        shown = read(self.client, self.address).select_one("[name=seen]")
        assert shown
        return str(shown["value"])

    def decide(self, way: str, status: int = 303, seen: str = "", **typed: Any) -> BeautifulSoup:
        return press(self.client, f"{self.address}/{way}", status, seen=seen or self.seen(), **typed)

    @property
    def case(self) -> Case:
        keep()
        return db.session.get_one(Case, self.case_id)


def reason(way: str, words: str) -> dict[str, Any]:
    return {f"{way}-reason": words}


def at(date: str, time: str) -> dict[str, Any]:
    return {"later-date": date, "later-time": time}


@pytest.fixture
def desk(app: Flask) -> Desk:
    return Desk(app, sent(budget=[("The claim", 400_000)]))


def test_the_desk_lists_what_waits_and_the_page_has_all_that_is_needed(app: Flask, desk: Desk) -> None:
    a_draft(title="Not sent")
    listed = read(desk.client, "/staff").select("[aria-labelledby=reviews-heading] tbody tr")
    assert len(listed) == 1
    assert said(listed[0]).startswith("Whose data? A Owner £4,000 for a target of £6,000 sent ")
    page = read(desk.client, desk.address)
    facts = said(page, "main > dl")
    for words in (desk.case.owner.email, "Sam Weir, AWO, SRA 000000", "High Court; Before the claim", "£6,000",
                  "£4,000, which is £2,000 less than the target", "30 days after going live: "):  # fmt: skip
        assert words in facts
    assert said(page, "[aria-labelledby=missing-heading]") == "What is missing Nothing."
    assert "submitted, was draft" in said(page, "[aria-labelledby=history-heading]")
    look = read(desk.client, f"{desk.address}/preview")
    assert said(look, "#draft-banner").startswith("This is a draft.") and said(look, ".story h2") == "What is going on"


def test_a_draft_that_was_never_sent_is_not_staffs_to_read(app: Flask, desk: Desk) -> None:
    mine = a_draft()
    for end in ("", "/preview"):
        assert desk.client.get(f"/staff/reviews/{mine.slug}{end}").status_code == 404
    assert desk.client.get(f"/staff/reviews/{a_case().slug}").status_code == 404


def test_staff_approve_and_the_case_is_public(app: Flask, desk: Desk, client: FlaskClient) -> None:
    assert client.get(f"/cases/{desk.slug}").status_code == 404
    desk.decide("approval")
    assert desk.case.status == "live"
    assert client.get(f"/cases/{desk.slug}").status_code == 200
    answer = desk.client.get(desk.address)
    assert (answer.status_code, answer.location) == (303, f"/staff/cases/{desk.slug}")


def test_staff_approve_for_a_time_on_the_clock_of_the_case(desk: Desk) -> None:
    local = (now().astimezone(ZoneInfo("Europe/London")) + 3 * DAY).replace(hour=9, minute=30, second=0, microsecond=0)
    desk.decide("timed-approval", **at(f"{local:%Y-%m-%d}", "09:30"))
    assert (desk.case.status, desk.case.live_from) == ("approved", local.astimezone(dt.UTC))
    assert "approved, goes live" in said(read(desk.client, "/staff"), "[aria-labelledby=reviews-heading]")


@pytest.mark.parametrize(
    ("typed", "status", "words"),
    [
        ({"later-date": "", "later-time": "09:00"}, 422, "Enter a date."),
        ({"later-date": "soon", "later-time": "09:00"}, 422, "Enter a date like 2026-12-10."),
        ({"later-date": "2030-12-10", "later-time": ""}, 422, "Enter a time."),
        ({"later-date": "2027-03-28", "later-time": "01:30"}, 422, "does not exist"),
        ({"later-date": "2027-10-31", "later-time": "01:30"}, 422, "comes twice"),
        ({"later-date": "2022-10-09", "later-time": "02:00"}, 409, "The time must lie ahead, by at most 90 days."),
        ({"later-date": "2099-10-09", "later-time": "02:00"}, 409, "The time must lie ahead, by at most 90 days."),
    ],
)
def test_a_time_at_which_nothing_can_go_live_is_refused_with_what_was_typed(
    desk: Desk, typed: dict[str, Any], status: int, words: str
) -> None:
    page = desk.decide("timed-approval", status, **typed)
    assert words in said(page, ".errors")
    assert {field["name"]: field["value"] for field in page.select("[name^=later-]")} == typed
    assert desk.case.status == "submitted"


@pytest.mark.parametrize("way", ["changes", "rejection"])
def test_a_refusal_needs_a_reason(desk: Desk, way: str) -> None:
    page = desk.decide(way, 422, **reason(way, " "))
    assert [link["href"] for link in page.select(".errors a")] == [f"#{way}-reason"]
    desk.decide(way, **reason(way, "Name the court."))
    assert desk.case.review_reason == "Name the court."


def test_the_slower_of_two_is_told_who_was_quicker_and_keeps_what_was_typed(app: Flask, desk: Desk) -> None:
    other = Desk(app, desk.case, name="Tom Slow")
    seen = other.seen()
    desk.decide("approval")
    page = other.decide("rejection", 409, seen, **reason("rejection", "Words of mine."))
    assert "This case is not as you saw it: it was made live by Sue Staff. Nothing was done." in said(page, ".errors")
    assert desk.case.status == "live"
    page = other.decide("approval", 409, seen)
    assert "made live by Sue Staff" in said(page, ".errors")
    assert len(desk.case.rounds) == 1


def test_staff_who_read_before_the_owner_changed_it_decide_nothing(app: Flask, desk: Desk) -> None:
    seen = desk.seen()
    case = desk.case
    case.take_back(case.owner, now())
    case.write({"story": "Another story."}, case.draft_version, now())
    case.submit(case.owner, now())
    keep()
    page = desk.decide("changes", 409, seen, **reason("changes", "Words of mine."))
    assert "it was sent again by A Owner" in said(page, ".errors")
    assert said(page, "#changes-reason") == "Words of mine."
    assert desk.case.status == "submitted"


def test_no_letter_of_a_review_speaks_of_anything_else_than_its_case(desk: Desk) -> None:
    desk.decide("changes", **reason("changes", "Name the <court>."))
    (letter,) = owed("case_changes")
    words = text_of(letters.write(letter))
    assert "Name the <court>." in words
    assert not re.search(r"Undefined|None|\{\{", words)
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Event).where(Event.what == "live")) == 0
