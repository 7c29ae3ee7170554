"""What is kept of people and for how long, what they take with them, what is left of them once they are erased, and who
sees which name. The rows of docs/security.md name these tests."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient

import law
import letters
import privacy
from jobs import erasures, retention
from jobs import sweep as clock
from jobs.post import send_letters
from models import (
    Bounce,
    CardFailure,
    Case,
    Comment,
    Editor,
    EmailChange,
    Invitation,
    Lease,
    Letter,
    LinkRequest,
    Look,
    OldCard,
    PasswordReset,
    Pledge,
    Refund,
    Round,
    SignUp,
    StripeEvent,
    User,
    UserSession,
    begin_writing,
    db,
)
from payments import ChargeFound, RefundFound
from tests.doorway import Site, everything, logged_in, set_otherwise, token_on, words_of
from tests.dumps import dump
from tests.made import PASSWORD, a_case, a_draft, a_pledge, a_user, case_at, confirm, keep, look_anew, now
from tests.reading import read, said
from views import doors

SECOND, DAY = dt.timedelta(seconds=1), dt.timedelta(days=1)
NAME, EMAIL = "Canary Winterbourne", "canary.mail@privacy.example"


@pytest.fixture
def site(app: Flask) -> Site:
    return Site(app)


def canaries(text: str) -> set[str]:
    """Each canary in a text, in small letters, with what stands around it so that its place can be found."""
    return {found.casefold() for found in re.findall(r".{0,40}canary.{0,20}", text, re.IGNORECASE)}


def a_known_supporter(slug: str, *, message: str = "Canary message", target: int = 2_500) -> Pledge:
    """A pledge of £25 by somebody of whom we keep all that can be kept, with a comment that is public."""
    case, moderator, staff = a_case(slug=slug, target=target), a_user("moderator"), a_user("staff")
    begin_writing()
    pledge = a_pledge(Round.hold(case_at(slug).round.id), 2_500, name=NAME, email=EMAIL, wants_updates=True)
    pledge.say(message, public=True)
    pledge.session_params = {"customer_email": EMAIL}
    confirm(pledge)
    assert pledge.comment is not None
    Comment.hold(pledge.comment.id).edit("Canary words, changed.", now())  # type: ignore[union-attr]
    pledge.comment.approve(db.session.merge(moderator), now())
    pledge.comment.report("untrue", "Canary report", "network", now())
    change = pledge.ask_other_address(f"new.{EMAIL}", now())
    change.make(now())
    LinkRequest.ask(f"new.{EMAIL}", now())
    Look.keep(db.session.merge(staff).id, [pledge.id], "pledge", now())
    Bounce.record(f"new.{EMAIL}", db.session.scalars(sa.select(Letter)).first(), "550", now())  # type: ignore[arg-type]
    keep()
    return pledges_at(case.slug)[0]


def pledges_at(slug: str) -> list[Pledge]:
    look_anew()
    its_round = case_at(slug).round
    return list(db.session.scalars(sa.select(Pledge).where(Pledge.round_id == its_round.id).order_by(Pledge.id)))


def charge(pledge: Pledge) -> None:
    """Its round is met, and its card is charged."""
    its_round = Round.hold(pledge.round_id)
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(now())
    held = Pledge.hold(pledge.id)
    held.claim(now(), SECOND)
    held.apply_charge(ChargeFound("succeeded", f"pi_{pledge.id}", f"ch_{pledge.id}", 2_500), now(), asked=True)
    keep()


# --- The table ---------------------------------------------------------------------------------------------


def test_every_column_is_kept_of_somebody_for_a_reason_or_says_nothing_of_anybody() -> None:
    table = privacy.table()
    kept = {(name, column) for one in table.kept for name, columns in one.tables.items() for column in columns}
    not_personal = {(name, column) for name, columns in table.not_personal.items() for column in columns}
    there = {(one.name, column.name) for one in db.metadata.sorted_tables for column in one.columns}
    assert sorted(there - kept - not_personal) == []
    assert sorted((kept | not_personal) - there) == [] and sorted(kept & not_personal) == []


def test_every_line_of_the_table_says_whose_what_why_and_until_when() -> None:
    table = privacy.table()
    for one in table.kept:
        assert one.what and one.why and one.basis and table.people[one.of] and (one.rules or one.until), one.what
        for rule in one.rules:
            of_table = db.metadata.tables[rule.table].columns
            assert set(rule.columns) <= {*of_table.keys()} and table.moments[rule.after], rule.words
            assert (rule.then, bool(rule.columns)) in (("delete", False), ("erase", False), ("empty", True))
            assert rule.after in retention.MOMENTS or retention.COLUMNS[rule.after] in of_table


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("/privacy", "90 days after the case has ended, if you were not charged: erased; 7 years after your card"),
        ("/fr/privacy", "90 jours après la fin de l’affaire, si votre carte n’a pas été débitée: effacé; 7 ans après"),
    ],
)
def test_the_privacy_page_shows_the_table_that_the_clock_goes_by(client: FlaskClient, where: str, told: str) -> None:
    page = read(client, where)
    lines = [said(line) for line in page.select("#kept dl")]
    assert len(lines) == len(privacy.table().kept)
    if where == "/privacy":
        assert [one.what for one in privacy.table().kept if not any(one.what in line for line in lines)] == []
    assert told in said(page, "#kept")


def test_the_operators_own_words_stand_around_the_table(app: Flask, tmp_path: Path) -> None:
    for words, shown in (("Before. {kept} After.", ["Before.", "After."]), ("Ours.", ["Ours."])):
        (tmp_path / "privacy.md").write_text(words, encoding="utf-8")
        with set_otherwise(app, pages_folder=str(tmp_path)) as site:
            page = read(site.test_client(), "/privacy")
        assert [said(part) for part in page.select(".story")] == shown
        assert len(page.select("#kept dl")) == len(privacy.table().kept)


# --- What is forgotten by the clock ------------------------------------------------------------------------


def one_of_everything() -> dict[tuple[str, str], int]:
    """(table, moment) -> the id of a row to which each rule will apply, all of them with canaries."""
    pledge = a_known_supporter("charged")
    charge(pledge)
    a_case(slug="uncharged", target=600_000)
    moderator, person = a_user("moderator"), a_user("owner")
    begin_writing()
    its_round = Round.hold(case_at("uncharged").round.id)
    left = confirm(a_pledge(its_round, name=NAME, email=EMAIL))
    left.network = "canarynet"
    its_round.close(its_round.deadline + SECOND)
    its_round.settle(now())
    number = left.id
    keep()
    moderator = db.session.merge(moderator)
    talked = Case.hold(case_at("charged").id)
    rejected = talked.take_comment(NAME, EMAIL, "Canary rejected", now(), network="canarynet")
    # Of two the networks are forgotten, which were different ones for the same reason.
    db.session.get_one(Comment, pledge.comment_id).report("untrue", "Canary again", "canarynet", now())
    rejected.reject("off_topic", moderator, now(), note="Canary note")
    withdrawn = talked.take_comment(NAME, EMAIL, "Canary withdrawn", now())
    withdrawn.withdraw(now())
    answered = db.session.get_one(Comment, pledge.comment_id)
    answered.approve(moderator, now())
    asked = SignUp.ask(EMAIL, NAME, "canary hash", now())
    reset = PasswordReset.ask(EMAIL, now())
    invited = Invitation.send(f"invited.{EMAIL}", "owner", None, now())
    UserSession.begin(User.hold(person.id), "Canary browser", "192.0.2.0/24", now())  # type: ignore[arg-type]
    EmailChange.ask(db.session.merge(person), f"new.{EMAIL}", now())
    db.session.add(CardFailure(
        event_id="evt_canary", pledge_id=number, round_id=its_round.id, setup_intent_id="seti_1", at=now(),
        email_mark="canarymark", network="canarynet", card_mark="canarycard", confirmed=False,
    ))  # fmt: skip
    for letter in db.session.scalars(sa.select(Letter)):
        letter.sent(now())
    ids = {
        ("link_requests", "asked"): db.session.scalars(sa.select(LinkRequest.id)).one(),
        ("password_resets", "asked"): reset.id, ("sign_ups", "asked"): asked.id, ("invitations", "invited"): invited.id,
        ("bounces", "returned"): db.session.scalars(sa.select(Bounce.id)).one(),
        ("pledges", "charged"): pledge.id, ("pledges", "uncharged"): number, ("pledges", "began"): number,
        ("looks", "looked"): db.session.scalars(sa.select(Look.id)).one(),
        ("comments", "rejected"): rejected.id, ("comments", "withdrawn"): withdrawn.id,
        ("comments", "sent"): rejected.id,
    }  # fmt: skip
    ids |= {
        (table, moment): db.session.scalars(sa.select(db.metadata.tables[table].c.id).limit(1)).one()
        for table, moment in (
            ("reports", "reported"), ("reports", "told"), ("old_texts", "replaced"), ("address_changes", "asked"),
            ("email_changes", "asked"), ("user_sessions", "logged_in"), ("card_failures", "refused"),
        )
    }  # fmt: skip
    keep()
    return ids


def test_what_is_over_is_forgotten_when_the_table_says_so_and_not_a_second_sooner(
    app: Flask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, made = one_of_everything(), now()
    for rule in privacy.table().rules:
        row = ids[rule.table, rule.after]
        early = made - dt.timedelta(minutes=5) + dt.timedelta(days=rule.days)
        assert row not in set(db.session.scalars(retention.over(rule, early))), rule.words
        assert row in set(db.session.scalars(retention.over(rule, made + dt.timedelta(days=rule.days)))), rule.words
    # Each that empties or deletes does so with all that it names, and by itself.
    for number, rule in enumerate(privacy.table().rules):
        if rule.then != "erase":
            row, table = ids[rule.table, rule.after], db.metadata.tables[rule.table]
            retention._apply((number, [row]))
            look_anew()
            left = db.session.execute(sa.select(table).where(table.c.id == row)).mappings().one_or_none()
            assert ([left[column] for column in rule.columns] if left else []) == [""] * len(rule.columns), rule.words
            assert (left is None) is (rule.then == "delete"), rule.words
    # The operator sees beforehand what will go, and looking changes nothing.
    before = everything()
    told = app.test_cli_runner().invoke(args=["retention"]).output
    assert told.splitlines()[0] == "     0  link_requests: rows, 1 days after “asked”: delete"
    assert everything() == before
    books = sa.select(Pledge.status, Pledge.amount_pence, Pledge.payment_intent_id).order_by(Pledge.id)
    totals = db.session.execute(books).all()
    # Eight years later nothing is left of anybody but of those who have an account, however often it is done.
    later = made + dt.timedelta(days=8 * 365)
    for module in (retention, erasures):
        monkeypatch.setattr(module, "_now", lambda: later)
    for _ in range(2):
        begin_writing()
        Lease.make_due(retention.LEASE, later)
        keep()
        retention.forget()
        monkeypatch.setattr("payments.forget_customer", lambda customer_id: None)
        begin_writing()
        for pledge in db.session.scalars(sa.select(Pledge)):
            pledge.next_at = None
        keep()
        erasures.finish_erasures()
    assert canaries(dump(tmp_path)) == set()
    assert [rule.words for rule, count in retention.prospect(later) if count] == []
    look_anew()
    assert db.session.execute(books).all() == totals


def test_the_clock_forgets_once_a_day_and_a_letter_that_waits_keeps_its_row(app: Flask) -> None:
    begin_writing()
    LinkRequest.ask(EMAIL, now() - 2 * DAY)
    Lease.wind(retention.LEASE, now())
    keep()
    assert clock.TIMETABLE["forget"](now()) == [None]
    begin_writing()
    retention.forget()
    look_anew()
    assert db.session.scalars(sa.select(LinkRequest.email)).all() == [EMAIL]
    assert clock.TIMETABLE["forget"](now() + dt.timedelta(hours=23)) == []
    assert clock.TIMETABLE["forget"](now() + dt.timedelta(hours=25)) == [None]


def test_what_stripe_tells_is_emptied_once_it_is_read(app: Flask) -> None:
    begin_writing()
    StripeEvent.store(event_id="evt_1", kind="some.news", object_id="x", created_at=now(),
                      payload=json.dumps({"customer_email": EMAIL}), as_of=now())  # fmt: skip
    keep()
    from jobs.inbox import drain_stripe_events

    drain_stripe_events()
    look_anew()
    assert db.session.execute(sa.select(StripeEvent.payload, StripeEvent.event_id)).one() == ("", "evt_1")


# --- No address of a connection ----------------------------------------------------------------------------


def test_no_row_and_no_log_line_has_the_address_of_a_connection(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    addresses = {"203.0.113.77", "2001:db8:77::77"}
    for address in addresses:
        browser = site.app.test_client()
        where: dict[str, Any] = {"environ_overrides": {"REMOTE_ADDR": address}}
        for rule, method in site.rules():
            answer = browser.open(site.address(rule), method=method, **where)
            answer.close()
        browser.post("/cases/the-case/comments", data={"email": EMAIL, "body": f"Hello {len(address)}"}, **where)
        browser.post("/login", data={"email": EMAIL, "password": "wrong"}, **where)
        look_anew()
        comment = db.session.scalars(sa.select(Comment).order_by(Comment.id.desc())).first()
        assert comment is not None and len(comment.network) > 10
        said_against = {"reason": "untrue", "words": "No."}
        browser.post(f"/comments/{site.values['comment_id']}/report", data=said_against, **where)
    told = capsys.readouterr()
    whole = dump(tmp_path) + told.out + told.err
    assert [part for part in ("203.0.113", "2001:db8:77") if part in whole] == []


# --- Who sees which name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown_as", "public", "owner"),
    [
        ("name", "Canary Winterbourne", "Canary Winterbourne"),
        ("first_name", "Canary", "Canary Winterbourne"),
        ("anonymous", "Anonymous", "Canary Winterbourne"),
        ("hidden", "Anonymous", "Anonymous"),
    ],
)
def test_the_public_and_the_case_owner_see_the_name_that_was_chosen_for_them_and_nobody_sees_the_amount(
    site: Site, client: FlaskClient, shown_as: str, public: str, owner: str
) -> None:
    """By the real form; the amount of £1,234.56 is of this pledge alone, as the address is."""
    terms = {
        "amount": "other", "other_amount": "1234.56", "name": NAME, "email": EMAIL, "shown_as": shown_as,
        "message": "With you.", "message_public": "y", "agreed": "y", "form_key": "k" * 32,
        "promise": "",
    }  # fmt: skip
    client.post("/cases/the-case/pledges", data=terms)
    look_anew()
    pledge = Pledge.hold(db.session.scalars(sa.select(Pledge.id).where(Pledge.email == EMAIL)).one())
    pledge.session_id = "cs_names"
    confirm(pledge)
    assert pledge.comment is not None
    pledge.comment.approve(db.session.merge(site.moderator), now())
    link, public_id = pledge.link(), pledge.public_id
    keep()

    who = said(read(client, "/cases/the-case"), "#comments .who")
    assert who.startswith(public) and ("Winterbourne" in who) is (public == NAME)
    mine = logged_in(site.app, site.owner)
    assert (NAME in mine.get("/owner/cases/the-case/pledges.csv").text) is (owner == NAME)
    for page in ("/owner/cases/the-case", "/owner/cases/the-case/pledges", "/owner/cases/the-case/messages"):
        text = mine.get(page).text
        assert (NAME in text) is (owner == NAME or public == NAME), page
        assert EMAIL not in text, page
    shown = public if public == owner else f"{public}; the case owner sees {owner}"
    assert f"Shown as {shown}" in said(read(client, f"/pledges/{link}"), ".facts")
    # Staff see it in any case: they have to find it, and to pay it back.
    assert NAME in logged_in(site.app, site.staff).get(f"/staff/pledges/{public_id}").text

    seen = set()
    for rule, method in site.rules():
        guarded = doors.POLICIES[rule.endpoint.partition(".")[0]] in ("owner", "moderator", "staff")
        if method != "GET" or guarded or rule.endpoint == "static":
            continue
        for headers in ({}, {"HX-Request": "true"}):
            words = words_of(site.ask(client, rule, "GET", headers))
            seen.add(rule.endpoint)
            assert "1,234.56" not in words and "1234.56" not in words and EMAIL not in words, rule
            assert public == NAME or "Winterbourne" not in words, rule
    assert {"public.case", "public.comments", "public.case_feed", "public.share_picture", "public.badge"} & seen


def test_whoever_is_asked_for_a_name_is_told_first_what_it_may_tell_others(client: FlaskClient) -> None:
    slug = a_case().slug
    warned = "a legal case is contested, so a name beside it can tell the other side, an employer"
    for page, field in ((f"/cases/{slug}/pledge", "shown_as"), (f"/cases/{slug}", "name")):
        found = read(client, page)
        hint = found.select_one(f"#{field}-hint")
        assert hint and warned in said(hint) and found.select_one(f"[aria-describedby~={field}-hint]")
    assert client.post(f"/cases/{slug}/pledges", data={"shown_as": "nobody"}).status_code == 422


# --- Private links -----------------------------------------------------------------------------------------


def test_a_private_link_opens_one_thing_for_one_use_until_it_is_replaced(client: FlaskClient) -> None:
    """And to open it changes nothing."""
    case = a_case(pledged=[2_500, 5_000])
    first, second = case_at(case.slug).round.pledges("confirmed")
    link, other, version = first.link(), second.link(), first.link_version
    number, signature = link.split(".")
    before = everything()
    pages = ("", "/amount", "/name", "/address", "/updates", "/data", "/erasure")
    for page in pages:
        assert client.get(f"/pledges/{link}{page}").status_code == 200, page
    assert everything() == before
    forged = (
        f"{other.split('.')[0]}.{signature}", link[:-1], f"{link}A", number, f"{number}.", link.swapcase(),
        db.session.merge(first).link("leave"), db.session.merge(first).link("unsubscribe"),
    )  # fmt: skip
    for wrong in forged:
        for page in pages:
            assert client.get(f"/pledges/{wrong}{page}").status_code == 404, (wrong, page)
        assert client.post(f"/pledges/{wrong}/erasure").status_code == 404
    for page in ("/data", "/erasure"):
        answer = client.get(f"/pledges/{link}{page}")
        headers = answer.headers["Cache-Control"], answer.headers["X-Robots-Tag"], answer.headers["Referrer-Policy"]
        assert headers == ("no-store", "noindex", "same-origin")
    # Nothing of a person can be read in it.
    assert re.fullmatch(r"[0-9a-f]{20}\.[A-Za-z0-9_-]{43}", link)
    client.post(f"/pledges/{link}/new-link")
    look_anew()
    assert Pledge.hold(first.id).link_version == version + 1
    assert [client.get(f"/pledges/{link}{page}").status_code for page in pages] == [404] * len(pages)


# --- What people take with them ----------------------------------------------------------------------------


def test_a_supporter_takes_all_that_is_kept_and_nothing_of_anybody_else(client: FlaskClient) -> None:
    pledge = a_known_supporter("the-case")
    begin_writing()
    other = confirm(a_pledge(Round.hold(pledge.round_id), name="Somebody Else", email="else@example.org"))
    same = confirm(a_pledge(Round.hold(pledge.round_id), 7_700, name="Same Address", email=f"new.{EMAIL}"))
    others = other.public_id, same.public_id, "else@example.org", "Somebody Else", "Same Address"
    link = Pledge.hold(pledge.id).link()
    keep()
    answer = client.get(f"/pledges/{link}/data")
    assert answer.mimetype == "application/json"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="pledge.json"'
    held = answer.json["pledge"]  # type: ignore[index]
    assert [one for one in others if one in answer.text] == []
    (row,) = held["pledges"]
    assert (row["name"], row["email"], row["amount_pence"]) == (NAME, f"new.{EMAIL}", 2_500)
    assert (row["message"], row["session_params"]) == ("Canary message", {"customer_email": EMAIL})
    assert [(one["old_email"], one["new_email"]) for one in held["address_changes"]] == [(EMAIL, f"new.{EMAIL}")]
    assert [one["body"] for one in held["comments"]] == ["Canary words, changed."]
    assert [one["body"] for one in held["old_texts"]] == ["Canary message"]
    assert [one["words"][:28] for one in held["agreements"]] == ["I allow Standing Test to cha"]
    assert "confirmed" in {one["kind"] for one in held["letters"]} and held["looks"][0]["page"] == "pledge"
    assert {"started", "confirmed"} <= {one["what"] for one in held["events"]}
    # What the table names of supporters and of authors, all of it.
    assert set(held) == set(privacy.table().columns_of("supporter", "author"))
    comment = client.get(f"/comments/{db.session.get_one(Comment, pledge.comment_id).link()}/data")
    assert comment.json["comment"]["comments"][0]["email"] == EMAIL  # type: ignore[index]
    assert set(comment.json["comment"]) == {"comments", "old_texts", "events", "letters"}  # type: ignore[index]


def test_a_user_takes_all_that_is_kept_but_for_what_would_help_a_thief(app: Flask) -> None:
    owner = a_user("owner", name="Canary Owner", email="canary.owner@privacy.example")
    a_case(owner=owner, slug="theirs", title="Canary case")
    a_case(slug="another", title="Somebody else's case")
    begin_writing()
    PasswordReset.ask(owner.email, now())
    keep()
    answer = logged_in(app, owner).get("/account/data")
    held = answer.json["account"]  # type: ignore[index]
    assert [(one["name"], one["email"]) for one in held["users"]] == [(owner.name, owner.email)]
    assert [one["title"] for one in held["cases"]] == ["Canary case"]
    assert [one["email"] for one in answer.json["asked_for"]["password_resets"]] == [owner.email]  # type: ignore[index]
    assert "Somebody else" not in answer.text and owner.password_hash not in answer.text
    assert app.test_client().get("/account/data").status_code == 303


# --- What is left of them ----------------------------------------------------------------------------------

REFUSALS = {
    **dict.fromkeys(("due", "charging", "unknown", "declined", "action_required"), "Your card is being charged"),
    "disputed": "Your bank is deciding about this payment, so nothing can be erased until it has decided.",
}  # fmt: skip


@pytest.mark.broken_books("states are set by hand", sometimes=True)
@pytest.mark.parametrize("status", sorted(law.PLEDGE_MOVES))
def test_in_each_state_of_a_pledge_it_is_erased_or_its_supporter_is_told_why_not(
    client: FlaskClient, status: str
) -> None:
    pledge = a_known_supporter("the-case", target=600_000)
    pledge.status, pledge.held_because = status, "same_card" if status == "held" else None
    link, number = pledge.link(), pledge.id
    keep()
    page = read(client, f"/pledges/{link}/erasure")
    sent = client.post(f"/pledges/{link}/erasure")
    look_anew()
    left = db.session.get_one(Pledge, number)
    if status in REFUSALS:
        assert REFUSALS[status] in said(page, ".warn") and not page.select("main form")
        assert sent.status_code == 409 and (left.name, left.erased_at) == (NAME, None)
        return
    is_cancelled = status in ("started", "confirmed", "held")
    assert ("Your pledge of £25 is cancelled by it. Your card is not charged." in said(page)) is is_cancelled
    assert said(page, "main form").endswith("Cancel my pledge and erase everything") is is_cancelled
    assert sent.status_code == 200 and (left.name, left.email, left.message) == ("", "", None)
    assert left.status == ("cancelled" if is_cancelled else status)
    assert left.amount_pence == 2_500
    assert client.get(f"/pledges/{link}").status_code == client.get(f"/pledges/{left.link()}").status_code == 404


def test_nothing_is_erased_while_the_round_is_decided_or_money_is_on_its_way(client: FlaskClient) -> None:
    pledge, staff = a_known_supporter("the-case"), a_user("staff")
    its_round = Round.hold(pledges_at("the-case")[0].round_id)
    its_round.close(its_round.deadline + SECOND)
    pledge = Pledge.hold(its_round.pledges("confirmed")[0].id)
    link = pledge.link()
    keep()
    assert "This case is being decided just now" in client.post(f"/pledges/{link}/erasure").text
    look_anew()
    its_round = Round.hold(case_at("the-case").round.id)
    its_round.settle(now())
    held = Pledge.hold(its_round.pledges("due")[0].id)
    held.claim(now(), SECOND)
    held.apply_charge(ChargeFound("succeeded", "pi_1", "ch_1", 2_500), now(), asked=True)
    refund = held.ask_refund("k" * 32, 1_000, "Canary reason", db.session.merge(staff), now())
    number, asked = held.id, refund.id
    keep()
    assert "Money is on its way back to you." in client.post(f"/pledges/{link}/erasure").text
    look_anew()
    Pledge.hold(number).apply_refund(RefundFound("succeeded", "re_1", "pi_1", 1_000, "", asked), now())
    keep()
    assert client.post(f"/pledges/{link}/erasure").status_code == 200
    look_anew()
    assert db.session.execute(sa.select(Refund.reason, Refund.amount_pence)).one() == ("", 1_000)


def test_of_somebody_who_was_charged_the_books_are_left_and_the_totals_are_what_they_were(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No name, address, word or hash of theirs is in a copy of the whole database, in the logs, or in a letter that is
    still owed; the amount, the date and Stripe's number of the payment are."""
    pledge = a_known_supporter("the-case")
    charge(pledge)
    held, replaced = Pledge.hold(pledge.id), "pm_replaced"
    link, customer, card = held.link(), str(held.customer_id), str(held.payment_method_id)
    held.attempts[0].params = {"customer": customer, "payment_method": card, "description": "Canary"}
    OldCard.put_aside(held, replaced, now())
    db.session.scalars(sa.select(OldCard)).one().removed()
    keep()
    assert len(canaries(dump(tmp_path))) > 5
    total = read(client, "/cases/the-case").select_one("#pledge-total")
    look_anew()
    figures, held = case_at("the-case").round.figures(), Pledge.hold(pledge.id)
    facts = held.amount_pence, held.confirmed_at, held.payment_intent_id, held.charged_at()
    keep()
    assert client.post(f"/pledges/{link}/erasure").status_code == 200
    gone: list[str] = []
    monkeypatch.setattr("payments.forget_customer", gone.append)
    begin_writing()
    erasures.finish_erasures()
    erasures.finish_erasures()
    assert gone == [customer]
    text = dump(tmp_path)
    assert canaries(text) == set()
    assert [one for one in (customer, card, replaced) if one in text] == []
    told = capsys.readouterr()
    assert canaries(told.out + told.err) == set()
    look_anew()
    left = Pledge.hold(pledge.id)
    assert (left.amount_pence, left.confirmed_at, left.payment_intent_id, left.charged_at()) == facts
    assert case_at("the-case").round.figures() == figures
    again = read(client, "/cases/the-case").select_one("#pledge-total")
    assert total and again and said(total) == said(again)
    look_anew()
    for letter in db.session.scalars(sa.select(Letter).where(Letter.subject == f"pledge:{pledge.id}")):
        assert not letters.is_true(letter, now()), letter.kind


def test_a_pledge_that_counts_is_cancelled_by_it_and_its_comment_is_gone(client: FlaskClient, tmp_path: Path) -> None:
    pledge = a_known_supporter("the-case", target=600_000)
    link = Pledge.hold(pledge.id).link()
    keep()
    page = read(client, f"/pledges/{link}/erasure")
    assert "Your pledge of £25 is cancelled by it. Your card is not charged." in said(page)
    assert "Canary words, changed." in client.get("/cases/the-case").text
    sent = read(client, f"/pledges/{link}/erasure", method="POST")
    assert "What was kept of you with your pledge for A case about data is erased." in said(sent)
    assert "Canary" not in client.get("/cases/the-case").text
    look_anew()
    case = case_at("the-case")
    assert (case.round.pledged_pence, case.round.pledge_count) == (0, 0)
    left = Pledge.hold(pledge.id)
    # What let_go still needs at Stripe stays until it is done, and nothing else.
    assert left.next_at is not None and not left.may_be_forgotten_at_stripe(now())
    left.card_removed()
    left.forget_stripes_words()
    keep()
    assert canaries(dump(tmp_path)) == set()


def test_the_copy_of_a_letter_with_lost_links_goes_as_the_others_do(
    app: Flask, client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Development keeps letters in a folder."""
    slug = a_case().slug
    begin_writing()
    pledge = confirm(a_pledge(Round.hold(case_at(slug).round.id), name=NAME, email=EMAIL))
    link, number = pledge.link(), pledge.id
    LinkRequest.ask(EMAIL, now())
    keep()
    send_letters()
    copies = [file.read_text() for file in (tmp_path / "letters").glob("*.eml")]
    assert sum(EMAIL in copy for copy in copies) == 2
    assert client.post(f"/pledges/{link}/erasure").status_code == 200
    begin_writing()
    Pledge.hold(number).card_removed()
    keep()
    monkeypatch.setattr("payments.forget_customer", lambda customer_id: None)
    begin_writing()
    erasures.finish_erasures()
    assert [file for file in (tmp_path / "letters").glob("*.eml") if EMAIL in file.read_text()] == []


def test_an_author_erases_a_comment_with_all_that_it_ever_said(client: FlaskClient, tmp_path: Path) -> None:
    slug, moderator = a_case().slug, a_user("moderator", name="Mo")
    begin_writing()
    comment = case_at(slug).take_comment(NAME, EMAIL, "Canary first", now())
    comment.edit("Canary second", now())
    comment.reject("off_topic", db.session.merge(moderator), now(), note="Canary note")
    link, number = comment.link(), comment.id
    keep()
    sent = read(client, f"/comments/{link}/erasure", method="POST")
    assert "Your comment on A case about data, your name and your e-mail address are erased." in said(sent)
    assert canaries(dump(tmp_path)) == set()
    assert client.get(f"/comments/{link}").status_code == 404
    look_anew()
    # How often moderators reject, and why, is public for a year: that there was one stays.
    left = db.session.get_one(Comment, number)
    assert (left.status, left.reason) == ("rejected", "off_topic")
    assert Comment.decisions(now())[0][1] == {"off_topic": 1}


def test_a_moderator_is_erased_and_their_decisions_are_those_of_a_former_moderator(
    app: Flask, client: FlaskClient, tmp_path: Path
) -> None:
    moderator = a_user("moderator", name="Canary Moderator", email="canary.moderator@privacy.example")
    slug = a_case().slug
    begin_writing()
    case_at(slug).take_comment("Ada", "ada@example.org", "Hello.", now()).approve(db.session.merge(moderator), now())
    PasswordReset.ask(moderator.email, now())
    keep()
    browser = logged_in(app, moderator)
    token = token_on(browser, "/account/erasure")
    wrong = browser.post("/account/erasure", data={"form_token": token, "password": "not this", "code": "123456"})
    assert wrong.status_code == 422 and "This is not your password." in wrong.text
    begin_writing()
    held = db.session.get_one(User, moderator.id)
    held.erase("operator", now())
    keep()
    assert canaries(dump(tmp_path)) == set()
    look_anew()
    assert db.session.scalars(sa.select(Comment)).one().decided_by.name == "A former moderator"  # type: ignore[union-attr]
    assert User.authenticate("canary.moderator@privacy.example", PASSWORD) is None
    assert browser.get("/moderation").status_code == 303


def test_an_owner_answers_for_a_case_until_it_is_over_and_is_then_erased_by_themselves(
    app: Flask, tmp_path: Path
) -> None:
    owner = a_user("owner", name="Canary Owner", email="canary.owner@privacy.example")
    live = a_case(owner=owner, slug="live", title="Whose water?")
    a_draft(owner, title="Canary draft", story="Canary story")
    editor = a_user("owner", name="Robin")
    begin_writing()
    invited = Invitation.to_case(case_at("live"), "canary.friend@privacy.example", db.session.merge(owner), now())
    db.session.add(Editor(case_id=live.id, user_id=editor.id, added_at=now()))
    invited.take_back("operator", now())
    keep()
    browser = logged_in(app, owner)
    page = browser.get("/account/erasure")
    assert "You own a case that is not over: Whose water?" in page.text
    begin_writing()
    case_at("live").call_off("We settled.", db.session.merge(owner), now())
    keep()
    token = token_on(browser, "/account/erasure")
    assert browser.post("/account/erasure", data={"form_token": token, "password": "wrong"}).status_code == 422
    gone = browser.post("/account/erasure", data={"form_token": token, "password": PASSWORD})
    assert gone.status_code == 200 and "Your account is erased." in gone.text
    assert browser.get("/account").status_code == 303
    text = dump(tmp_path)
    assert {one for one in canaries(text) if "canary.friend" not in one} == set()
    public = app.test_client().get("/cases/live").text
    assert "A former case owner" in public and "Whose water?" in public and "Canary" not in public


def test_who_has_changed_name_and_address_is_erased_under_the_old_ones_too(app: Flask, tmp_path: Path) -> None:
    """What stands in a case's history, or is kept with an address alone, is of the name and the address of then."""
    old, other = "canary.old@privacy.example", "canary.theirs@privacy.example"
    person = a_user("owner", name="Canary Before", email=old)
    case, owner = a_case(), a_user("owner")
    keep()
    begin_writing()
    held, owner = User.hold(person.id), db.session.merge(owner)
    assert held is not None
    for leaves in (True, False):
        Invitation.to_case(case_at(case.slug), old, owner, now()).accept_as(held, now())
        if leaves:
            case_at(case.slug).remove_editor(held.id, owner, now())
    LinkRequest.ask(old, now())
    SignUp.ask(old, "Canary Before", "hash", now())
    Invitation.to_case(case_at(case.slug), f"not.{old}", owner, now())
    letter = db.session.scalars(sa.select(Letter)).first()
    assert letter is not None
    Bounce.record(old, letter, "550", now())
    held.rename("Canary After", now())
    EmailChange.ask(held, "canary.new@privacy.example", now()).make(now())
    # Typed by mistake: it is a stranger's, and so is what they asked for.
    EmailChange.ask(held, other, now())
    LinkRequest.ask(other, now())
    keep()
    begin_writing()
    User.hold(person.id).erase("operator", now())  # type: ignore[union-attr]
    keep()
    left = {one for one in canaries(dump(tmp_path)) if "not.canary" not in one and "canary.theirs" not in one}
    assert left == set()
    assert db.session.scalars(sa.select(LinkRequest.email)).all() == [other]
    # Whoever asks next gets a letter: were the number of what was erased given again, it would count as sent.
    another = a_user()
    begin_writing()
    EmailChange.ask(db.session.merge(another), "next@privacy.example", now())
    assert len(db.session.scalars(sa.select(Letter.id).where(Letter.kind == "new_email")).all()) == 3
    keep()


def test_the_last_of_staff_stays(app: Flask) -> None:
    staff = a_user("staff")
    browser = logged_in(app, staff)
    assert "You are the last of staff" in browser.get("/account/erasure").text
    a_user("staff")
    assert "Erase my account" in browser.get("/account/erasure").text
    # One who was erased is nobody's colleague again.
    begin_writing()
    gone, held = db.session.scalars(sa.select(User).order_by(User.id.desc()).limit(2))
    gone.erase("operator", now())
    with pytest.raises(law.Refused, match="This account is erased"):
        gone.enable("They are back.", held, now())
    keep()
    assert "You are the last of staff" in browser.get("/account/erasure").text


def test_the_operator_takes_out_and_erases_a_person_by_their_address(app: Flask, tmp_path: Path) -> None:
    pledge = a_known_supporter("the-case", target=600_000)
    disputed = a_known_supporter("disputed", message="Canary of another case")
    charge(disputed)
    begin_writing()
    case_at("the-case").take_comment(NAME, f"new.{EMAIL}", "Canary by itself", now())
    Pledge.hold(disputed.id).status = "disputed"
    keep()
    runner = app.test_cli_runner()
    held = json.loads(runner.invoke(args=["export-person", f"New.{EMAIL}"]).output)
    assert [one["pledges"][0]["public_id"] for one in held["pledges"]] == [pledge.public_id, disputed.public_id]
    assert [one["comments"][0]["body"] for one in held["comments"]] == ["Canary by itself"]
    assert [one["email"] for one in held["asked_for"]["link_requests"]] == [f"new.{EMAIL}"]
    told = runner.invoke(args=["erase-person", f"new.{EMAIL}"])
    assert told.exit_code == 1
    assert told.output.splitlines()[-2:] == [
        "Erased: 2.",
        f"Pledge {disputed.id} is not erased: {REFUSALS['disputed']}",
    ]
    assert runner.invoke(args=["erase-person", "nobody@privacy.example"]).exit_code == 1
    begin_writing()
    Pledge.hold(disputed.id).status = "charged"
    keep()
    assert runner.invoke(args=["erase-person", f"new.{EMAIL}"]).output.endswith("Erased: 1.\n")
    look_anew()
    erased = sa.select(sa.func.count(Pledge.id)).where(Pledge.erased_at.is_not(None), Pledge.name == "")
    assert db.session.scalar(erased) == 2


# --- Nobody else is asked ----------------------------------------------------------------------------------


def test_no_page_has_anything_from_elsewhere_when_htmx_comes_from_here(site: Site) -> None:
    """What a browser fetches by itself: scripts, styles, pictures, frames. Browsers watch it in every one of their
    tests, with the one file from elsewhere."""
    own = {"htmx_src": "/static/htmx-of-ours.js#sha384-" + "A" * 64}
    with set_otherwise(site.app, **own) as ours:
        asked: set[str] = set()
        people = (None, site.owner, site.moderator, site.staff)
        for person in people:
            browser = logged_in(ours, person) if person else ours.test_client()
            for rule, method in site.rules():
                if method != "GET" or rule.endpoint == "static":
                    continue
                answer = site.ask(browser, rule, "GET")
                if answer.mimetype != "text/html":
                    continue
                page = BeautifulSoup(answer.get_data(as_text=True), "lxml")
                asked |= {str(tag["src"]) for tag in page.select("[src]")}
                asked |= {str(tag["srcset"]) for tag in page.select("[srcset]")}
                asked |= {str(tag["href"]) for tag in page.select("link:not([rel=canonical], [rel=alternate])")}
                asked |= set(re.findall(r"url\(([^)]*)\)", " ".join(style.text for style in page.select("style"))))
    assert "/static/htmx-of-ours.js" in asked
    assert [one for one in asked if not one.startswith("/") or one.startswith("//")] == []
