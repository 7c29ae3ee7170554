"""The workshop of a case owner: a draft begins with a title, keeps what is typed, and refuses only what cannot be."""

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import law
from law import Refused
from letters import is_true
from models import BudgetLine, Case, DocumentLink, Editor, Event, Invitation, Letter, Picture, db
from pictures import Drawing
from tests.crowd import at_once
from tests.made import a_case, a_draft, a_user, case_at, keep, look_anew, now
from tests.reading import read, said, token
from tests.test_owner_pages import logged_in

# What a browser sends of the rows that nothing was typed into.
EMPTY = {f"budget-{n}-{cell}": "" for n in range(8) for cell in ("words", "amount")} | {
    f"links-{n}-{cell}": "" for n in range(4) for cell in ("title", "url")
}


class Workshop:
    """An owner at the draft of a case."""

    def __init__(self, app: Flask, case: Case) -> None:
        self.client, self.slug, self.case_id = logged_in(app, case.owner), case.slug, case.id
        self.token = token(self.client, "/owner")
        self.page_key = "a page of its own"

    @property
    def address(self) -> str:
        return f"/owner/cases/{self.slug}/draft"

    @property
    def version(self) -> str:
        shown = read(self.client, self.address).select_one("#draft-version")
        assert shown
        return str(shown["value"])

    def send(self, status: int, htmx: bool = False, **typed: Any) -> Any:
        """Send the form with what is typed; fields of tables are written with __ for the hyphen."""
        form = {name.replace("__", "-"): words for name, words in typed.items()}
        form = {
            "version": form.pop("version", None) or self.version,
            "page": self.page_key,
            "end_time": "20:00",
            **form,
        }
        extra = {"by_itself": "yes"} if htmx else {}
        headers = {"HX-Request": "true"} if htmx else {}
        return read(self.client, self.address, status, method="POST", headers=headers,
                    data={**EMPTY, **form, **extra, "form_token": self.token, "case": str(self.case_id)})  # fmt: skip

    def case(self) -> Case:
        keep()
        return db.session.get_one(Case, self.case_id)


@pytest.fixture
def workshop(app: Flask) -> Workshop:
    return Workshop(app, a_draft())


def wrong(page: Any) -> list[tuple[str, str]]:
    """(link, words) of each line of the summary."""
    return [(str(link["href"]), link.text) for link in page.select("main > .errors:first-child a")]


# --- Beginning ---------------------------------------------------------------------------------------------


def test_a_draft_begins_with_its_title_and_an_address_made_of_it(app: Flask) -> None:
    client = logged_in(app, a_user())
    form = {"title": " Whose data? ", "form_token": token(client, "/owner/cases/new")}
    begun = client.post("/owner/cases", data=form)
    assert (begun.status_code, begun.location) == (303, "/owner/cases/whose-data/draft")
    page = read(client, begun.location)
    assert said(page, "h1") == "Whose data?"
    assert [field["value"] for field in page.select("#slug, #end_time, #zone")] == [
        "whose-data", "20:00", "Europe/London",
    ]  # fmt: skip
    assert case_at("whose-data").status == "draft"
    assert client.get("/cases/whose-data").status_code == 404


def test_a_title_that_is_sent_several_times_at_once_begins_one_draft_and_after_the_first_words_another(
    app: Flask,
) -> None:
    owner = a_user()
    client = logged_in(app, owner)
    form = {"title": "Whose data?", "form_token": token(client, "/owner/cases/new")}
    browsers = [logged_in(app, db.session.merge(owner)) for _ in range(4)]
    forms = [form | {"form_token": token(browser, "/owner/cases/new")} for browser in browsers]
    asked = [lambda browser=browser, form=form: browser.post("/owner/cases", data=form).location
             for browser, form in zip(browsers, forms, strict=True)]  # fmt: skip
    assert at_once(app, *asked) == ["/owner/cases/whose-data/draft"] * 4
    look_anew()
    case = case_at("whose-data")
    case.write({"summary": "In short."}, case.draft_version, now())
    keep()
    assert client.post("/owner/cases", data=form).location == "/owner/cases/whose-data-2/draft"


@pytest.mark.parametrize(
    ("title", "words"), [(" ", "Enter a title."), ("x" * 161, "Use at most 160 characters."), ("\0", "contained")]
)
def test_without_a_title_nothing_is_begun(app: Flask, title: str, words: str) -> None:
    client = logged_in(app, a_user())
    form = {"title": title, "form_token": token(client, "/owner")}
    page = read(client, "/owner/cases", 422, method="POST", data=form)
    assert words in wrong(page)[0][1]
    assert db.session.scalar(sa.select(sa.func.count(Case.id))) == 0


# --- Saving ------------------------------------------------------------------------------------------------


def test_a_half_filled_draft_is_saved_and_comes_back_as_it_was_typed(workshop: Workshop) -> None:
    workshop.send(303, title="Whose data?", slug=workshop.slug, story="Half\r\na story", target="1,250.50",
                  budget__0__words="Counsel", budget__1__amount="£1,000", budget__7__words="Far below",
                  links__2__title="A letter", days="", end_date="", zone="")  # fmt: skip
    case = workshop.case()
    assert (case.story, case.summary, case.wanted_pence, case.zone) == ("Half\na story", "", 125_050, "Europe/London")
    assert [(line.words, line.pence) for line in case.budget] == [("Counsel", None), ("", 100_000), ("Far below", None)]
    assert [(link.title, link.url) for link in case.links] == [("A letter", "")]
    page = read(workshop.client, workshop.address)
    values = {field["name"]: field.get("value") for field in page.select("#draft input")}
    assert values["target"] == "1,250.50"
    assert (values["budget-1-amount"], values["budget-2-words"], values["links-0-title"]) == (
        "1,000", "Far below", "A letter",
    )  # fmt: skip
    assert said(page, "#budget-sum") == "The lines add up to £1,000 of a target of £1,250.50."
    assert said(page, ".notice") == "The draft is saved."


def test_what_is_wrong_is_told_at_its_field_and_all_the_rest_is_saved(workshop: Workshop) -> None:
    page = workshop.send(422, title="Another title", slug=workshop.slug, target="0", story="A better story",
                         budget__0__words="Counsel", budget__0__amount="lots", days="30")  # fmt: skip
    assert page.title and page.title.text.startswith("Error: Draft")
    assert wrong(page) == [
        ("#target", "The target must be more than nothing and at most £1,000,000."),
        ("#budget-0-amount", "Line 1: Enter an amount in pounds, like 25 or 25.50."),
    ]
    assert said(page, "#budget-0-amount-error") == "Error: Enter an amount in pounds, like 25 or 25.50."
    assert said(page, ".notice") == "Everything else is saved."
    values = {field["name"]: field.get("value") for field in page.select("#draft input")}
    assert (values["target"], values["budget-0-amount"], values["budget-0-words"]) == ("0", "lots", "Counsel")
    case = workshop.case()
    assert (case.title, case.story, case.wanted_pence) == ("Another title", "A better story", 600_000)
    assert [line.words for line in case.budget] == ["The claim", "Counsel"]


# Stands for the day on which the test runs, which may be another than that on which it was read.
SOON = "in two hours"
SAID_AS = {"end_date": "%d/%m/%Y", "end_time": "%H:%M"}


def london(days: int = 0, hour: int = 20) -> dt.datetime:
    return (now().astimezone(ZoneInfo("Europe/London")) + dt.timedelta(days=days)).replace(hour=hour, minute=0)


@pytest.mark.parametrize(
    ("typed", "field", "words"),
    [
        ({"target": "0"}, "target", "more than nothing and at most £1,000,000"),
        ({"target": "10,000,000"}, "target", "more than nothing and at most £1,000,000"),
        ({"target": "-5"}, "target", "Enter an amount in pounds"),
        ({"target": "1000000.01"}, "target", "at most £1,000,000"),
        ({"days": "0"}, "days", "Enter a number of days from 1 to 60."),
        ({"days": "61"}, "days", "Enter a number of days from 1 to 60."),
        ({"days": "٣"}, "days", "Enter a number of days from 1 to 60."),
        ({"days": "9" * 400}, "days", "Enter a number of days from 1 to 60."),
        ({"days": "30", "end_date": "2026-12-10"}, "end_date", "Enter either a length or a date, not both."),
        ({"end_date": "tomorrow"}, "end_date", "Enter a date like 2026-12-10."),
        ({"end_date": "31/02/2027"}, "end_date", "Enter a date like 2026-12-10."),
        ({"end_date": "2022-10-09"}, "end_date", "The deadline is in the past."),
        ({"end_date": "0001-01-01", "end_time": "00:00"}, "end_date", "The deadline is in the past."),
        ({"end_date": "9999-12-31", "zone": "America/New_York"}, "end_time", ""),
        ({"end_date": f"{london(61):%Y-%m-%d}"}, "end_date", "The deadline is more than 60 days away."),
        ({"end_date": SOON, "end_time": SOON}, "end_date", "less than a day away"),
        ({"end_date": f"{london(9):%Y-%m-%d}", "end_time": "8 pm"}, "end_time", "Enter a time like 20:00."),
        ({"end_date": f"{london(9):%Y-%m-%d}", "end_time": "24:00"}, "end_time", "Enter a time like 20:00."),
        ({"end_date": "2027-03-28", "end_time": "01:30"}, "end_time", "01:30 on 28 March 2027 does not exist"),
        ({"end_date": "2027-10-31", "end_time": "1.30"}, "end_time", "01:30 on 31 October 2027 comes twice"),
        ({"zone": "Europe/Atlantis"}, "zone", "is not a time zone"),
        ({"zone": "../../etc/passwd"}, "zone", "is not a time zone"),
        ({"summary": "x" * 301}, "summary", "Use at most 300 characters."),
        ({"story": "x" * 40_001}, "story", "Use at most 40,000 characters."),
        ({"slug": "Whose Data"}, "slug", "Use small letters, digits and hyphens"),
        ({"slug": "new"}, "slug", "There is already a case at /cases/new."),
        ({"court": "High\0Court"}, "court", "characters that cannot be shown"),
        ({"links__0__url": "http://example.org/letter"}, "links-0-url", "Enter the whole address"),
        ({"links__0__url": "javascript:alert(1)//https://a.example"}, "links-0-url", "Enter the whole address"),
        ({"links__0__url": "https://user@example.org/"}, "links-0-url", "Enter the whole address"),
        ({"links__0__url": "https://[::1"}, "links-0-url", "Enter the whole address"),
        ({"links__0__url": 'https://example.org/"onclick="x'}, "links-0-url", "Enter the whole address"),
        ({"budget__3__amount": "0"}, "budget-3-amount", "A cost must be more than nothing"),
    ],
)
def test_what_cannot_be_is_refused_at_its_field(
    workshop: Workshop, typed: dict[str, str], field: str, words: str
) -> None:
    # Counted when it is asked, so that it is right in the last minute of a day too.
    soon = now().astimezone(ZoneInfo("Europe/London")) + dt.timedelta(hours=2)
    typed |= {name: f"{soon:{written}}" for name, written in SAID_AS.items() if typed.get(name) == SOON}
    before = workshop.case()
    kept = (before.wanted_pence, before.wanted_days, before.wanted_end, before.zone, before.slug)
    form: dict[str, Any] = {"slug": workshop.slug, "days": "" if "end_date" in typed else "30", **typed}
    page = workshop.send(422, **form)
    (link, told) = wrong(page)[0]
    assert link == f"#{field}"
    assert words in told
    for name, value in typed.items():
        shown = page.select_one(f"[name='{name.replace('__', '-')}']")
        assert shown
        assert (shown.get("value") or shown.text.strip()) == value.replace("\0", "")
    after = workshop.case()
    assert kept == (
        after.wanted_pence if "target" in typed else 600_000, after.wanted_days if link != "#target" else 30,
        after.wanted_end, after.zone, after.slug,
    )  # fmt: skip


def test_an_end_is_stored_as_the_instant_on_the_wall_of_its_zone(workshop: Workshop) -> None:
    local = london(20, 9)
    workshop.send(303, slug=workshop.slug, end_date=f"{local:%d/%m/%Y}", end_time="09:00", zone="America/New_York")
    case = workshop.case()
    expected = law.deadline_from_local(local.replace(tzinfo=None, second=0, microsecond=0), "America/New_York")
    assert (case.wanted_days, case.wanted_end, case.zone) == (None, expected, "America/New_York")
    page = read(workshop.client, workshop.address)
    shown = [field["value"] for field in page.select("#end_date, #end_time, #zone")]
    assert shown == [f"{local:%Y-%m-%d}", "09:00", "America/New_York"]


def test_a_long_story_in_any_script_is_taken(workshop: Workshop) -> None:
    workshop.send(303, slug=workshop.slug, story="語" * 40_000)
    assert workshop.case().story == "語" * 40_000


def test_more_rows_come_by_pressing_a_button_and_what_was_typed_is_saved_first(workshop: Workshop) -> None:
    data = {"slug": workshop.slug, "budget-0-words": "", "budget-1-words": "", "budget-2-words": "",
            "budget-3-words": "Expert", "then": "budget"}  # fmt: skip
    assert len(read(workshop.client, workshop.address).select("#budget .row")) == 4
    answer = workshop.client.post(
        workshop.address,
        data={**data, "version": workshop.version, "form_token": workshop.token},
    )
    assert answer.status_code == 303
    assert answer.location == f"{workshop.address}?budget=8#budget-4"
    assert len(read(workshop.client, answer.location).select("#budget .row")) == 8
    assert [line.words for line in workshop.case().budget] == ["Expert"]
    # With a mistake they come too.
    page = workshop.send(422, slug=workshop.slug, target="no", then="links")
    assert len(page.select("#links .row")) == 8
    # And there is an end to it.
    assert len(read(workshop.client, f"{workshop.address}?budget=5000").select("#budget .row")) == 30


def test_a_changed_address_is_found_from_a_page_that_was_opened_before(workshop: Workshop) -> None:
    before = workshop.slug
    workshop.send(303, slug="another-address")
    workshop.slug = before
    form = {"version": str(workshop.case().draft_version), "slug": "another-address", "story": "From the old page"}
    answer = workshop.client.post(
        workshop.address, data={**form, "case": str(workshop.case_id), "form_token": workshop.token}
    )
    assert (answer.status_code, answer.location) == (303, "/owner/cases/another-address/draft")
    assert workshop.case().story == "From the old page"


# --- Saved elsewhere meanwhile -----------------------------------------------------------------------------


def test_a_draft_that_was_saved_elsewhere_is_not_overwritten_and_nothing_typed_is_lost(workshop: Workshop) -> None:
    opened = workshop.version
    workshop.send(303, slug=workshop.slug, story="At my desk")
    workshop.page_key = "on the train"
    page = workshop.send(409, version=opened, slug=workshop.slug, story="On the train", target="99")
    assert said(page, "main > .errors").startswith("Not saved This draft was saved elsewhere at ")
    assert workshop.case().story == "At my desk"
    assert said(page, "#story") == "On the train"
    # Who saves this page now, knows what it replaces.
    version = page.select_one("#draft-version")
    assert version
    workshop.send(303, version=version["value"], slug=workshop.slug, story="On the train", target="99")
    assert (workshop.case().story, workshop.case().wanted_pence) == ("On the train", 9_900)


def test_a_case_that_is_with_staff_keeps_what_was_typed_and_stays_as_it_is(workshop: Workshop) -> None:
    opened = workshop.version
    case = workshop.case()
    case.status = "rejected"
    page = None
    keep()
    page = workshop.send(409, version=opened, story="Too late")
    assert "This case is no draft any more" in said(page, "main > .errors")
    assert said(page, "#story") == "Too late"
    case = workshop.case()
    assert case.story != "Too late"
    case.status = "draft"
    keep()


# --- As they type ------------------------------------------------------------------------------------------


def test_the_page_saves_by_itself_and_says_when(workshop: Workshop) -> None:
    opened = workshop.version
    fragment = workshop.send(200, htmx=True, version=opened, story="Half a sto", slug="half-a-slu", days="14",
                             budget__0__words="Counsel", budget__0__amount="70")  # fmt: skip
    case = workshop.case()
    assert (case.story, case.wanted_days, case.budget_pence) == ("Half a sto", 14, 7_000)
    assert said(fragment, "p") == f"Saved at {law.clock_words(case.saved_at or now(), case.zone)}."
    version = fragment.select_one("#draft-version[data-hx-swap-oob]")
    assert version and int(version["value"]) == case.draft_version == int(opened) + 1
    assert said(fragment, "#budget-sum[data-hx-swap-oob]") == "The lines add up to £70."
    assert case.slug == workshop.slug, "half an address is none"


def test_by_itself_too_what_is_wrong_is_said_and_the_rest_is_saved(workshop: Workshop) -> None:
    fragment = workshop.send(422, htmx=True, story="Kept", target="ten")
    assert [link["href"] for link in fragment.select("a")] == ["#target"]
    assert said(fragment, ".error").startswith("Saved at ")
    assert (workshop.case().story, workshop.case().wanted_pence) == ("Kept", 600_000)


def test_by_itself_nothing_that_was_saved_elsewhere_is_overwritten(workshop: Workshop) -> None:
    opened = workshop.version
    workshop.send(303, slug=workshop.slug, story="At my desk")
    workshop.page_key = "on the train"
    fragment = workshop.send(409, htmx=True, version=opened, story="On the train")
    assert said(fragment, ".error").startswith("This draft was saved elsewhere at ")
    assert not fragment.select("#draft-version")
    assert workshop.case().story == "At my desk"


# --- As it would look --------------------------------------------------------------------------------------


def test_the_preview_is_the_page_that_strangers_would_see_without_a_way_to_pledge(workshop: Workshop) -> None:
    page = read(workshop.client, f"/owner/cases/{workshop.slug}/preview")
    assert said(page, "#draft-banner").startswith("This is a draft.")
    assert said(page, ".total") == "£0 pledged of £6,000 target, no pledges yet"
    assert said(page, ".promise").startswith("Your card is charged only if pledges reach £6,000 by ")
    assert said(page, ".story h2") == "What is going on"
    assert said(page, "[aria-labelledby=legal-team]") == "Legal team Sam Weir AWO Regulated: SRA 000000"
    assert not page.select("main form, main a[href*=pledge], [data-hx-get]")


def test_the_preview_of_an_empty_draft_is_a_page_too(app: Flask) -> None:
    case = Case.draft(a_user(), "empty-draft", "", "", "", "", now())
    keep()
    page = read(logged_in(app, case.owner), "/owner/cases/empty-draft/preview")
    assert said(page, "h1") == "A case without a title"
    assert said(page, ".left") == "no deadline yet"


# --- Whose it is -------------------------------------------------------------------------------------------


def test_the_draft_of_another_owner_does_not_exist(app: Flask, workshop: Workshop) -> None:
    intruder = Workshop(app, a_draft(title="Theirs"))
    before = workshop.case().draft_version
    for end in ("draft", "preview", "deletion"):
        assert intruder.client.get(f"/owner/cases/{workshop.slug}/{end}").status_code == 404
    form = {"form_token": intruder.token, "version": str(before), "story": "Mine now", "slug": "mine"}
    for number in (str(workshop.case_id), "x", "9" * 30, ""):
        answer = intruder.client.post(f"/owner/cases/{workshop.slug}/draft", data={**form, "case": number})
        assert answer.status_code == 404
    assert workshop.case().draft_version == before


# --- Throwing it away --------------------------------------------------------------------------------------


def test_a_draft_is_deleted_after_a_question_with_all_that_belongs_to_it(app: Flask, workshop: Workshop) -> None:
    helper, staff = a_user(), a_user("staff")
    case = workshop.case()
    owner, number = case.owner, case.owner_id
    case.hang_picture([Drawing(size, "image/png", 30, 20, b"drawn") for size in ("large", "small")], "A hall.", now())
    Invitation.to_case(case, "asked@deletions.example", owner, now())
    db.session.add(Editor(case_id=case.id, user_id=helper.id, added_at=now()))
    case.submit(owner, now())
    case.ask_changes("CANARY: name the court.", db.session.merge(staff), now(), case.review_mark)
    lawyers = f"/drafts/{case.preview_link()}"
    keep()
    helpers = logged_in(app, helper)
    where, seen = f"/owner/cases/{workshop.slug}/deletion", workshop.version
    assert [link["href"] for link in read(workshop.client, workshop.address).select("main > p a")][-1] == where
    assert not [link for link in read(helpers, workshop.address).select("a") if link["href"] == where]
    assert "“Whose data?”, last saved" in said(read(workshop.client, where), "main")

    def press(status: int, version: str) -> Any:
        typed = {"form_token": workshop.token, "version": version}
        return read(workshop.client, where, status, method="POST", data=typed)

    # Looking deletes nothing, nor does a button below a question about other words.
    assert "This draft was changed" in said(press(409, str(int(seen) - 1)), "[role=alert]")
    assert workshop.case().title == "Whose data?"
    press(303, seen)
    press(404, seen)
    look_anew()
    belongs = (Case, BudgetLine, DocumentLink, Picture, Editor, Invitation)
    assert [db.session.scalar(sa.select(sa.func.count(table.id))) for table in belongs] == [0] * len(belongs)
    lines = list(db.session.scalars(sa.select(Event).where(Event.case_id == workshop.case_id).order_by(Event.id)))
    assert (lines[-1].what, lines[-1].who) == ("draft_deleted", f"user:{number}")
    assert "CANARY" not in "".join(line.note for line in lines)
    # None of its letters goes out any more: to its owner, to staff, to whom it asked.
    kept = list(db.session.scalars(sa.select(Letter).order_by(Letter.id)))
    assert [letter.kind for letter in kept] == ["invitation", "case_submitted", "case_changes"]
    assert not any(is_true(letter) for letter in kept)
    with pytest.raises(Refused, match="This draft was deleted meanwhile"):
        Case.hold(workshop.case_id)
    # The link of its lawyer opens no other draft, as it would if the next one got its number.
    keep()
    assert a_draft().id > workshop.case_id
    assert app.test_client().get(lawyers).status_code == helpers.get(workshop.address).status_code == 404


@pytest.mark.parametrize("status", ["submitted", "approved", "rejected"])
def test_what_is_with_staff_or_was_rejected_is_not_deleted(app: Flask, workshop: Workshop, status: str) -> None:
    staff, case = a_user("staff"), workshop.case()
    case.submit(case.owner, now())
    if status == "approved":
        case.approve(db.session.merge(staff), now(), case.review_mark, now() + dt.timedelta(days=1))
    if status == "rejected":
        case.reject("This is not a legal case.", db.session.merge(staff), now(), case.review_mark)
    keep()
    where = f"/owner/cases/{workshop.slug}/deletion"
    assert not [link for link in read(workshop.client, workshop.address).select("a") if link["href"] == where]
    page = read(workshop.client, where)
    assert said(page, "h1") == "This draft cannot be deleted" and not page.select("main form")
    sent = {"form_token": workshop.token, "version": str(workshop.case().draft_version)}
    read(workshop.client, where, 409, method="POST", data=sent)
    assert workshop.case().status == status


def test_a_live_case_has_no_draft_page_any_more(app: Flask) -> None:
    owner = a_user()
    case = a_case(owner=owner)
    client = logged_in(app, owner)
    own = f"/owner/cases/{case.slug}"
    for end, where in (("draft", own), ("deletion", own), ("preview", f"/cases/{case.slug}")):
        answer = client.get(f"/owner/cases/{case.slug}/{end}")
        assert (answer.status_code, answer.location) == (303, where)
    sent: FlaskClient = client
    form = {"form_token": token(sent, "/owner"), "version": str(case.draft_version), "story": "Another story"}
    page = read(client, f"/owner/cases/{case.slug}/draft", 409, method="POST", data=form)
    assert said(page, "#story") == "Another story"
    assert case_at(case.slug).story != "Another story"
