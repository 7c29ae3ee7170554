"""An owner's updates: kept as they are typed, published once, by a button or by the clock, and read by the right."""

import datetime as dt
import re
import secrets
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
import time_machine
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient

import law
import letters
from jobs import launches, sweep
from law import Refused
from models import Case, Event, Letter, Picture, Pledge, Round, Update, User, begin_writing, db, move
from tests.crowd import at_once
from tests.doorway import Site, logged_in, words_of
from tests.made import a_case, a_pledge, a_user, case_at, confirm, keep, look_anew, now
from tests.mailbox import letters_to, text_of
from tests.reading import read, said, token
from tests.test_pictures import a_file, a_form
from views import doors

MINUTE = dt.timedelta(minutes=1)
EVIL = '<script>alert(1)</script>\n\n![A map](https://evil.example/map.png "map")\n\n[here](javascript:alert(1))'


class Desk:
    """An owner who writes one update of a live case."""

    def __init__(self, app: Flask, readers: int = 0) -> None:
        self.app, self.owner = app, a_user("owner")
        case = a_case(owner=self.owner)
        self.slug, self.case_id = case.slug, case.id
        for number in range(readers):
            confirm(a_pledge(case.round, wants_updates=True, email=f"reader{number}@updates.example.org"))
        keep()
        self.client = logged_in(app, self.owner)
        self.token = token(self.client, "/owner")
        self.form_key = secrets.token_urlsafe(24)

    @property
    def address(self) -> str:
        return f"/owner/cases/{self.slug}/updates"

    @property
    def own(self) -> str:
        return f"{self.address}/{self.update.id}"

    @property
    def update(self) -> Update:
        look_anew()
        return db.session.scalars(sa.select(Update).where(Update.form_key == self.form_key)).one()

    def save(self, status: int = 303, by_itself: bool = False, **typed: Any) -> BeautifulSoup:
        extra = {"by_itself": "yes"} if by_itself else {}
        headers = {"HX-Request": "true"} if by_itself else {}
        form = {"audience": "everyone", "form_key": self.form_key, "page": "this page", **typed, **extra}
        return self.send(self.address, status, headers=headers, **form)

    def send(self, address: str, status: int, headers: Any = (), **typed: Any) -> BeautifulSoup:
        return read(self.client, address, status, method="POST", headers=headers,
                    data={"form_token": self.token, **typed})  # fmt: skip


@pytest.fixture
def desk(app: Flask) -> Desk:
    return Desk(app, readers=2)


def owed() -> list[tuple[str, str]]:
    """(reader, occasion) of the letters about updates, in the order of their numbers."""
    look_anew()
    found = sa.select(Letter).where(Letter.kind == "update").order_by(Letter.id)
    return [(letter.subject, letter.occasion) for letter in db.session.scalars(found)]


def history(update: Update) -> list[tuple[str, str | None, str | None]]:
    found = sa.select(Event).where(Event.subject_kind == "update", Event.subject_id == update.id).order_by(Event.id)
    return [(event.who.partition(":")[0], event.before, event.after) for event in db.session.scalars(found)]


# --- Drafts ------------------------------------------------------------------------------------------------


def test_a_draft_is_kept_as_it_is_typed_and_by_its_button_and_nobody_else_sees_it(
    desk: Desk, client: FlaskClient
) -> None:
    kept = desk.save(200, by_itself=True, version="0", title="Half a title", body="")
    assert said(kept, "p").startswith("Saved at ")
    assert [(field["value"], field["data-hx-swap-oob"]) for field in kept.select("#update-version")] == [("1", "true")]
    # The page shows version 0 still, and what its button sends is the newest of it.
    desk.save(version="0", title="A hearing", body="On\r\nMonday", audience="supporters")
    update = desk.update
    assert (update.title, update.body, update.audience, update.status) == (
        "A hearing",
        "On\nMonday",
        "supporters",
        "draft",
    )
    page = read(desk.client, desk.own)
    assert said(page, ".notice") == "The draft is saved."
    assert [field["value"] for field in page.select("#title, #audience [checked]")] == ["A hearing", "supporters"]
    assert "draft, last saved" in said(read(desk.client, f"/owner/cases/{desk.slug}"), "main")
    assert "A hearing" not in client.get(f"/cases/{desk.slug}").text
    assert owed() == []


def test_what_was_saved_in_another_window_is_not_overwritten_and_what_was_typed_stays(desk: Desk) -> None:
    desk.save(version="0", title="At the desk")
    page = desk.save(
        409, version="0", page="the telephone", title="On the telephone", body="Words", audience="supporters"
    )
    assert "This update was saved elsewhere at" in said(page, ".errors")
    assert page.title and page.title.text.startswith("Post an update")
    assert [field["value"] for field in page.select("#title, #update-version, #audience [checked]")] == [
        "1", "On the telephone", "supporters",
    ]  # fmt: skip
    assert desk.update.title == "At the desk"
    kept = desk.save(409, by_itself=True, version="0", page="the telephone", title="On the telephone")
    assert "so nothing was overwritten" in said(kept, ".error")


@pytest.mark.parametrize(
    ("typed", "field", "words"),
    [
        ({"title": "x" * 161}, "title", "Use at most 160 characters."),
        ({"body": "x" * 20_001}, "body", "Use at most 20,000 characters."),
        ({"title": "A\0B"}, "title", "This contained characters that cannot be shown."),
        ({"audience": "nobody"}, "audience", "Choose who may read it."),
    ],
)
def test_what_is_wrong_is_told_at_its_field_and_the_rest_is_kept(
    desk: Desk, typed: dict[str, Any], field: str, words: str
) -> None:
    form: dict[str, Any] = {"title": "A title", "body": "Words", **typed}
    page = desk.save(422, **form)
    assert page.title and page.title.text.startswith("Error: ")
    assert [link["href"] for link in page.select("main > .errors:first-child a")] == [f"#{field}"]
    assert words in said(page, f"#{field}-error")
    assert said(page, ".notice") == "Everything else is saved."
    kept = {"title": desk.update.title, "body": desk.update.body, "audience": desk.update.audience}
    assert kept == {"title": "A title", "body": "Words", "audience": "everyone"} | (
        {field: ""} if field != "audience" else {}
    )


def test_a_form_without_its_key_stores_nothing_and_gets_a_new_one(desk: Desk) -> None:
    page = desk.save(422, form_key="x", title="A hearing", body="Words")
    (key,) = (str(field["value"]) for field in page.select("[name=form_key]"))
    assert len(key) == 32
    assert [typed.text.strip() for typed in page.select("#body")] == ["Words"]
    assert db.session.scalar(sa.select(sa.func.count(Update.id))) == 0


def test_the_form_of_another_case_is_refused(desk: Desk) -> None:
    desk.save(title="A hearing")
    other = a_case(owner=desk.owner).slug
    page = desk.send(f"/owner/cases/{other}/updates", 409, form_key=desk.form_key, audience="everyone", title="Other")
    assert "This form belongs to another case." in said(page, "main")
    assert desk.update.title == "A hearing"


# --- Publishing --------------------------------------------------------------------------------------------


def test_two_submits_at_once_are_one_update_and_each_letter_is_owed_once(desk: Desk) -> None:
    case_id, owner_id, key = desk.case_id, desk.owner.id, desk.form_key

    def submit() -> int:
        update = Case.hold(case_id).begin_update(db.session.get_one(User, owner_id), key, now())
        update.write({"title": "A hearing", "body": "On Monday"}, 0, now(), page="this page")
        update_id = update.id
        db.session.commit()
        Update.hold(update_id).publish(f"user:{owner_id}", now(), 1)
        db.session.commit()
        return update_id

    def again() -> int:
        try:
            return submit()
        except Refused:
            # The other one had published it before this one could write.
            db.session.rollback()
            return 0

    numbers = {number for number in at_once(desk.app, *[again] * 4) if number}
    assert numbers == {desk.update.id}
    assert [occasion for _, occasion in owed()] == [f"update:{desk.update.id}"] * 2
    assert history(desk.update) == [("user", "draft", "published")]


def test_what_was_changed_since_it_was_looked_at_is_not_published(desk: Desk) -> None:
    desk.save(title="A hearing", body="On Monday")
    desk.save(version="1", title="A hearing", body="On Tuesday")
    page = desk.send(f"{desk.own}/publication", 409, version="1")
    assert "This update was changed since you opened this page" in said(page, "[role=alert]")
    assert "On Tuesday" in said(page, ".preview")
    assert (desk.update.status, owed()) == ("draft", [])


def test_an_update_without_words_is_not_published_whatever_is_sent(desk: Desk) -> None:
    desk.save(title="A hearing")
    assert "Enter the text of your update." in said(read(desk.client, f"{desk.own}/look"), ".warn")
    desk.send(f"{desk.own}/publication", 409, version="1")
    tomorrow = f"{now() + dt.timedelta(days=1):%Y-%m-%d}"
    desk.send(f"{desk.own}/timed-publication", 409, version="1", **{"later-date": tomorrow, "later-time": "09:00"})
    assert (desk.update.status, owed()) == ("draft", [])


def in_days(days: int) -> dt.datetime:
    return now().astimezone(ZoneInfo("Europe/London")) + dt.timedelta(days=days)


@pytest.mark.parametrize(
    ("date", "time", "field", "words"),
    [
        ("", "09:00", "date", "Enter a date."),
        ("soon", "09:00", "date", "Enter a date like 2026-12-10."),
        ("2026-02-30", "09:00", "date", "Enter a date like 2026-12-10."),
        ("in 1 day", "", "time", "Enter a time."),
        ("in 1 day", "25:00", "time", "Enter a time like 20:00."),
        ("2027-03-28", "01:30", "time", "The clocks go forward that night: 01:30 on 28 March 2027 does not exist."),
        ("2027-10-31", "01:30", "time", "The clocks go back that night: 01:30 on 31 October 2027 comes twice."),
        ("in -1 days", "09:00", "date", "This time is in the past."),
        ("in 61 days", "12:00", "date", "This time is more than 60 days away."),
        ("9999-12-31", "23:59", "date", "This time is more than 60 days away."),
    ],
)
def test_a_time_that_cannot_be_is_told_at_its_field_and_what_was_typed_stays(
    desk: Desk, date: str, time: str, field: str, words: str
) -> None:
    if away := re.fullmatch(r"in (-?\d+) days?", date):
        date = f"{in_days(int(away.group(1))):%d/%m/%Y}"
    desk.save(title="A hearing", body="On Monday")
    page = desk.send(
        f"{desk.own}/timed-publication", 422, version="1", **{"later-date": date, "later-time": time}
    )  # fmt: skip
    assert page.title and page.title.text.startswith("Error: ")
    assert [link["href"] for link in page.select("main > .errors a")] == [f"#later-{field}"]
    assert words in said(page, f"#later-{field}-error")
    assert [typed["value"] for typed in page.select("#later-date, #later-time")] == [date, time]
    assert (desk.update.status, desk.update.publish_at) == ("draft", None)


def scheduled(desk: Desk) -> dt.datetime:
    """An update that waits for its time, a day from now; that time."""
    desk.save(title="A hearing", body="On Monday")
    at = in_days(1).replace(second=0, microsecond=0)
    typed = {"later-date": f"{at:%Y-%m-%d}", "later-time": f"{at:%H:%M}"}
    desk.send(f"{desk.own}/timed-publication", 303, version="1", **typed)
    return at


def test_the_clock_publishes_an_update_once_at_its_time(desk: Desk, client: FlaskClient) -> None:
    at, update = scheduled(desk), desk.update
    assert (update.status, update.publish_at) == ("scheduled", at)
    assert "A hearing" not in client.get(f"/cases/{desk.slug}").text
    due = sweep.TIMETABLE["publish_update"]
    assert (due(at - dt.timedelta(seconds=1)), due(at)) == ([], [update.id])
    launches.publish_update(update.id)
    assert (desk.update.status, owed()) == ("scheduled", [])
    desk.update.publish_at = now() - MINUTE
    keep()
    number = update.id
    at_once(desk.app, *[lambda: launches.publish_update(number)] * 3)
    assert (desk.update.status, due(now())) == ("published", [])
    assert len(owed()) == 2
    assert history(desk.update) == [("user", "draft", "scheduled"), ("clock", "scheduled", "published")]
    assert "A hearing" in said(read(client, f"/cases/{desk.slug}"), ".update")


def test_what_waits_for_its_time_cannot_be_changed_until_it_is_taken_back(desk: Desk) -> None:
    at = scheduled(desk)
    number = desk.update.id
    page = desk.save(409, version="1", title="Another title", body="Other words")
    assert "This update waits for its time, so it cannot be changed. Take it back first." in said(page, ".errors")
    assert [field["value"] for field in page.select("#title")] == ["Another title"]
    page = picture(desk, 409, a_file("PNG", (30, 20)), "A hall.")
    assert "Take it back first." in said(page, ".errors")
    assert ([typed["value"] for typed in page.select("#alt")], desk.update.pictures) == (["A hall."], [])
    desk.send(f"{desk.own}/withdrawal", 303)
    assert (desk.update.status, desk.update.publish_at) == ("draft", None)
    desk.update.publish_by_the_clock(at + MINUTE)
    launches.publish_update(number)
    assert (desk.update.status, owed()) == ("draft", [])
    desk.save(version="1", title="Another title", body="Other words")
    desk.send(f"{desk.own}/publication", 303, version="2")
    assert "You can still change its words." in said(desk.send(f"{desk.own}/withdrawal", 409), "[role=alert]")
    assert desk.update.status == "published"


def test_scripts_and_pictures_of_other_sites_are_shown_as_words(desk: Desk, client: FlaskClient) -> None:
    desk.save(title="<script>alert(2)</script>", body=EVIL)
    desk.send(f"{desk.own}/publication", 303, version="1")
    for page in (read(client, f"/cases/{desk.slug}"), read(desk.client, f"{desk.own}/look")):
        (shown,) = page.select("article.update")
        assert not shown.select("script, img, [onerror]")
        assert "evil.example" not in str(shown)
        assert not [link for link in shown.select("a") if str(link["href"]).startswith("javascript")]
        assert "<script>alert(1)</script>" in said(shown) and "A map" in said(shown)


# --- What does not go out ----------------------------------------------------------------------------------


def test_a_draft_is_deleted_after_a_question_and_the_history_keeps_its_title(desk: Desk) -> None:
    desk.save(title="Never mind", body="Half a thought")
    picture(desk, 303, a_file("PNG", (30, 20)), "A hall.")
    where, seen = f"{desk.own}/deletion", str(desk.update.version)
    assert [link["href"] for link in read(desk.client, desk.own).select("main > p a")][-1] == where
    asked = said(read(desk.client, where), "main")
    assert "“Never mind”" in asked and "Its words and its picture are gone then, for good." in asked
    # Looking deletes nothing, nor does a button below a question about other words.
    page = desk.send(where, 409, version=str(desk.update.version - 1))
    assert "This draft was changed since you opened this page, so nothing was deleted." in said(page, "[role=alert]")
    assert (desk.update.title, len(desk.update.pictures)) == ("Never mind", 2)
    desk.send(where, 303, version=seen)
    desk.send(where, 404, version=seen)
    look_anew()
    assert [db.session.scalar(sa.select(sa.func.count(table.id))) for table in (Update, Picture)] == [0, 0]
    (event,) = db.session.scalars(sa.select(Event).where(Event.what == "update_draft_deleted"))
    assert (event.subject_id, event.who, event.note) == (desk.case_id, f"user:{desk.owner.id}", "Never mind")
    history = said(read(desk.client, f"/owner/cases/{desk.slug}/history"), "tbody")
    assert "Case: update draft deleted: Never mind" in history


def test_what_waits_for_its_time_or_is_published_is_not_deleted(desk: Desk) -> None:
    scheduled(desk)
    where = f"{desk.own}/deletion"
    assert "waits for its time. Take it back first." in said(read(desk.client, where), "main")
    desk.send(where, 409, version="1")
    desk.send(f"{desk.own}/publication", 303, version="1")
    assert "is published, and stays." in said(read(desk.client, where), "main")
    desk.send(where, 409, version="1")
    assert desk.update.status == "published"


@pytest.mark.parametrize("who", ["its owner", "staff"])
def test_what_waits_as_its_case_is_cancelled_is_a_draft_again_and_its_owner_is_told(
    desk: Desk, client: FlaskClient, who: str
) -> None:
    at, number = scheduled(desk), desk.update.id
    where = f"/owner/cases/{desk.slug}/cancellation"
    assert "1 update that waits for its time will not go out: it becomes a draft again." in said(
        read(desk.client, where), "main"
    )
    if who == "its owner":
        desk.send(where, 303, reason="It is settled.", sure="cancel")
    else:
        case_at(desk.slug).cancel("It is settled.", f"user:{a_user('staff').id}", now())
        keep()
    with time_machine.travel(at + MINUTE):
        assert sweep.TIMETABLE["publish_update"](now()) == []
        launches.publish_update(number)
    assert (desk.update.status, desk.update.publish_at, owed()) == ("draft", None, [])
    assert [moved[1:] for moved in history(desk.update)] == [("draft", "scheduled"), ("scheduled", "draft")]
    (kind, words) = letters_to(desk.owner.email)[-1]
    assert kind == "update_held_back" and f"{desk.own}\n" in words
    # By the clock nothing more goes out, but its owner may say by a button what there is to say.
    assert not read(desk.client, f"{desk.own}/look").select("#later-date")
    typed = {"later-date": f"{at:%Y-%m-%d}", "later-time": f"{at:%H:%M}"}
    page = desk.send(f"{desk.own}/timed-publication", 409, version="1", **typed)
    assert "This case is cancelled, so nothing is published by the clock any more." in said(page, "[role=alert]")
    desk.send(f"{desk.own}/publication", 303, version="1")
    assert "A hearing" in said(read(client, f"/cases/{desk.slug}"), ".update")


def test_an_update_set_for_its_time_in_the_moment_of_the_cancellation_is_held_back_by_the_clock(desk: Desk) -> None:
    at = scheduled(desk)
    case_at(desk.slug).cancel("It is settled.", "operator", now())
    keep()
    update = desk.update
    move(update, law.UPDATE_MOVES, "scheduled", "test", now())
    update.publish_at = at
    keep()
    with time_machine.travel(at + MINUTE):
        launches.publish_update(desk.update.id)
    assert (desk.update.status, owed()) == ("draft", [])


# --- Pictures ----------------------------------------------------------------------------------------------


def picture(desk: Desk, status: int, file: bytes, alt: str = "The old hall.") -> BeautifulSoup:
    sent = a_form(file, alt=alt, form_token=desk.token)
    return read(desk.client, f"{desk.own}/picture", status, method="POST", **sent)


def test_a_picture_is_drawn_anew_and_shown_above_the_text(desk: Desk, client: FlaskClient) -> None:
    desk.save(title="A hearing", body="On Monday")
    picture(desk, 303, a_file("PNG", (2_000, 1_000)))
    assert [(one.size, one.width) for one in desk.update.pictures] == [("large", 1_600), ("small", 480)]
    src = f"/pictures/{desk.update.pictures[0].sha256}"
    assert (client.get(src).status_code, desk.client.get(src).status_code) == (404, 200)
    desk.send(f"{desk.own}/publication", 303, version=str(desk.update.version))
    (shown,) = read(client, f"/cases/{desk.slug}").select("article.update img")
    assert (shown["src"], shown["alt"]) == (src, "The old hall.")
    assert client.get(src).headers["Cache-Control"] == "public, max-age=31536000, immutable"
    # Of one that is published a change of the picture is an edit.
    edits = [desk.update.edited_at]
    desk.send(f"{desk.own}/picture/removal", 303)
    edits.append(desk.update.edited_at)
    assert [at is None for at in edits] == [True, False] and desk.update.pictures == []
    assert client.get(src).status_code == 404


@pytest.mark.parametrize(
    ("file", "alt", "field", "words"),
    [
        (b"<svg/>", "The old hall.", "file", "not a whole JPEG, PNG or WebP picture"),
        (a_file()[:900], "The old hall.", "file", "not a whole JPEG, PNG or WebP picture"),
        (b"", "The old hall.", "file", "Choose a JPEG, PNG or WebP picture."),
        (b"x" * (8 * 1024 * 1024 + 1), "The old hall.", "file", "This file is larger than 8 MB."),
        (a_file(), " ", "alt", "Say what the picture shows."),
    ],
    ids=["svg", "cut off", "no file", "too large", "no description"],
)
def test_a_picture_that_cannot_be_taken_is_told_at_its_field(
    desk: Desk, file: bytes, alt: str, field: str, words: str
) -> None:
    desk.save(title="A hearing", body="On Monday")
    page = picture(desk, 422, file, alt)
    assert words in said(page, f"#{field}-error")
    assert [typed["value"] for typed in page.select("#alt")] == [alt.strip()]
    assert len(desk.update.pictures) == (2 if field == "alt" else 0)
    # Without its description it does not go out.
    assert desk.update.missing() == ([("alt", "Say what the picture shows.")] if field == "alt" else [])


# --- For supporters only -----------------------------------------------------------------------------------


def test_nothing_of_an_update_for_supporters_appears_anywhere_public(app: Flask, client: FlaskClient) -> None:
    """Its title, its words and what its picture shows are canaries; so are those of a draft and of one that waits."""
    site = Site(app)
    begin_writing()
    case, owner = case_at("the-case"), db.session.merge(site.owner)
    reader = confirm(a_pledge(Round.hold(case.round.id), wants_updates=True, email="reader@canary.example.org"))
    words = {"title": "Kanarie title", "body": "Kanarie body", "audience": "supporters", "picture_alt": "Kanarie hall"}
    made = {}
    for state in ("published", "draft", "scheduled"):
        update = made[state] = case.begin_update(owner, secrets.token_urlsafe(24), now())
        update.write(words | ({} if state == "published" else {"audience": "everyone"}), 0, now())
    made["published"].publish("test", now())
    made["scheduled"].publish_later(now() + MINUTE, owner, now())
    keep()
    numbers = {state: db.session.merge(update).id for state, update in made.items()}
    link, started = db.session.merge(reader).link(), a_pledge(case_at("the-case").round).link()
    keep()

    seen = []
    moderator = logged_in(app, site.moderator)
    for rule, method in site.rules():
        if method != "GET" or rule.endpoint == "static" or doors.POLICIES[rule.endpoint.partition(".")[0]] == "owner":
            continue
        for browser in (client, moderator):
            for headers in ({}, {"HX-Request": "true"}):
                answer = site.ask(browser, rule, "GET", headers)
                seen.append(rule.endpoint)
                assert "kanarie" not in words_of(answer).casefold(), rule
    assert {"public.case", "public.home", "public.comments", "supporters.read_updates", "moderators.queue"} <= {*seen}

    page = read(client, "/cases/the-case")
    (line,) = page.select(f"#update-{numbers['published']}")
    assert said(line, "h3") == "An update for supporters"
    assert not page.select(f"#update-{numbers['draft']}, #update-{numbers['scheduled']}")
    # Whoever pledged reads it by the private link, once the pledge counts and until it is taken back.
    assert "Read the updates" in said(read(client, f"/pledges/{link}"), "main")
    mine = read(client, f"/pledges/{link}/updates")
    assert [said(heading) for heading in mine.select("article h2")] == ["Kanarie title", "News"]
    assert "Kanarie" not in client.get(f"/pledges/{started}/updates").text
    Pledge.hold(db.session.merge(reader).id).cancel(now())
    keep()
    assert "Kanarie" not in client.get(f"/pledges/{link}/updates").text


def test_the_picture_of_an_update_for_supporters_is_theirs_alone(desk: Desk, client: FlaskClient) -> None:
    desk.save(title="A hearing", body="On Monday", audience="supporters")
    picture(desk, 303, a_file("PNG", (300, 200)))
    desk.send(f"{desk.own}/publication", 303, version=str(desk.update.version))
    sha256 = desk.update.pictures[0].sha256
    pledge = case_at(desk.slug).round.pledges("confirmed")[0]
    link, started = pledge.link(), a_pledge(pledge.round).link()
    keep()
    assert client.get(f"/pictures/{sha256}").status_code == 404
    shown = read(client, f"/pledges/{link}/updates").select("article img")
    assert [img["src"] for img in shown] == [f"/pledges/{link}/pictures/{sha256}"]
    answer = client.get(f"/pledges/{link}/pictures/{sha256}")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    assert client.get(f"/pledges/{started}/pictures/{sha256}").status_code == 404
    assert client.get(f"/pledges/{link}/pictures/{'0' * 64}").status_code == 404


def test_the_letter_leads_where_its_reader_may_read_and_not_to_whoever_took_the_pledge_back(desk: Desk) -> None:
    desk.save(title="A hearing", body="On **Monday**", audience="supporters")
    desk.send(f"{desk.own}/publication", 303, version="1")
    look_anew()
    first, second = db.session.scalars(sa.select(Letter).where(Letter.kind == "update").order_by(Letter.id))
    reader = case_at(desk.slug).round.pledges("confirmed")[0]
    message = letters.write(first)
    site = "http://127.0.0.1:8000"
    assert f"\n{site}/pledges/{reader.link()}/updates#update-{desk.update.id}\n" in text_of(message)
    assert f"{site}/cases/" not in text_of(message)
    assert message["List-Unsubscribe"] == f"<{site}/pledges/{reader.link('unsubscribe')}/unsubscription>"
    assert letters.is_true(first) and letters.is_true(second)
    Pledge.hold(reader.id).cancel(now())
    assert (letters.is_true(first), letters.is_true(second)) == (False, True)
