"""What must never be told of comments, shown by canaries: words that stand nowhere but where nobody may see them."""

import datetime as dt
import re

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import letters
from models import Case, Comment, Editor, Letter, PromiseChange, Source, db
from tests.doorway import Site, logged_in, token_on, words_of
from tests.made import a_draft, a_pledge, a_user, case_at, confirm, keep, look_anew, now
from tests.mailbox import text_of
from views import doors

# Which letters have which: to the supporter, to staff, and to the owner whose draft was rejected.
CANARIES_IN_LETTERS = {
    "update": {"canary news"}, "case_submitted": {"canary case"}, "case_rejected": {"canary case", "canary rejection"},
}  # fmt: skip


@pytest.fixture
def site(app: Flask) -> Site:
    return Site(app)


def test_nothing_of_what_is_not_public_appears_anywhere_public(
    site: Site, client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each text, name, address and note that nobody may see is a canary of its own. They go in by the real forms."""
    desk = logged_in(site.app, site.moderator)
    token, links = token_on(desk, "/moderation"), {}
    for state in ("pending", "rejected", "spam", "withdrawn", "changed", "approved"):
        public = state in ("approved", "changed")
        client.post("/cases/the-case/comments", data={
            "name": "" if public else f"Canaryname {state}", "email": f"canarymail-{state}@log.example.org",
            "body": f"Public words of {state}" if public else f"Canarytext {state} https://canary.example",
        })  # fmt: skip
        look_anew()
        comment = db.session.scalars(sa.select(Comment).order_by(Comment.id.desc()).limit(1)).one()
        links[state], number = comment.link(), comment.id
        decision = {"approved": "approve", "changed": "approve", "rejected": "reject", "spam": "spam"}.get(state)
        if decision:
            sent = desk.post(f"/moderation/comments/{number}/decision", data={
                "form_token": token, "decision": decision, "seen": "1", f"c{number}-reason": "harassment",
                f"c{number}-note": "Canarynote to the author",
            })  # fmt: skip
            assert sent.status_code == 303
        if state == "approved":
            client.post(f"/comments/{number}/report", data={"reason": "untrue", "words": "Canaryreport"})
    client.post(f"/comments/{links['changed']}/text", data={"body": "Canarytext changed"})
    client.post(f"/comments/{links['withdrawn']}/withdrawal")
    look_anew()
    states = db.session.scalars(sa.select(Comment.status).order_by(Comment.id)).all()
    assert states == ["pending", "pending", "rejected", "spam", "withdrawn", "pending", "approved"]

    # They are where they should be: with the moderators, and on their authors' own pages.
    queue = desk.get("/moderation").text
    assert "Canarytext pending" in queue and "Canarytext changed" in queue and "Canaryreport" in queue
    assert "Canarytext rejected" in client.get(f"/comments/{links['rejected']}").text

    seen, owner = [], logged_in(site.app, site.owner)
    for rule, method in site.rules():
        who = doors.POLICIES[rule.endpoint.partition(".")[0]]
        if method != "GET" or who in ("moderator", "staff") or rule.endpoint == "static":
            continue
        for browser in (client, owner):
            for headers in ({}, {"HX-Request": "true"}):
                for number in range(1, 9) if "comment_id" in rule.arguments else (0,):
                    changed = {"comment_id": number} if number else {}
                    answer = site.ask(browser, rule, "GET", headers, **changed)
                    seen.append(rule.endpoint)
                    assert "canary" not in words_of(answer).replace("A canary comment.", "").casefold(), rule
    assert {"public.case", "public.comments", "public.report_form", "owners.case", "public.comment_decisions"} <= {
        *seen
    }
    assert "Public words of changed" in client.get("/cases/the-case").text

    look_anew()
    owed = db.session.scalars(sa.select(Letter).where(Letter.kind.startswith("comment"))).all()
    assert sorted(letter.kind for letter in owed) == ["comment_rejected", *["comment_taken"] * 6]
    for letter in owed:
        message = letters.write(letter)
        theirs = message["To"].addresses[0].addr_spec.startswith("canarymail-")
        words = text_of(message).casefold()
        assert "canarytext" not in words and "canaryname" not in words and "canarymail" not in words, letter.kind
        assert "canaryreport" not in words and ("canarynote" not in words or theirs), letter.kind
    told = capsys.readouterr()
    assert "canary" not in (told.out + told.err).casefold()


def test_nothing_that_is_for_supporters_owners_or_staff_alone_appears_anywhere_public(
    site: Site, client: FlaskClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """Drafts, updates for supporters, messages, names, addresses, reasons, labels: each is a canary of its own."""
    owner, moderator, staff = (db.session.merge(one) for one in (site.owner, site.moderator, site.staff))
    its_case, editor = case_at("the-case"), db.session.merge(a_user("owner", name="Canary editor"))
    its_round, number = its_case.round, its_case.id
    pledge = a_pledge(its_round, name="Canary supporter", email="canary-mail@example.org", shown_as="hidden",
                      wants_updates=True)  # fmt: skip
    pledge.say("Canary message", public=False)
    confirm(pledge)
    link, public_id = pledge.link(), pledge.public_id
    Source.count(its_round, "via:canary-label", "opened", now())
    for title, audience, when in (
        ("news", "supporters", "now"), ("draft", "everyone", ""), ("later", "everyone", "tomorrow"),
    ):  # fmt: skip
        update = Case.hold(number).begin_update(owner, f"canary-{title}", now())
        update.write({"title": f"Canary {title}", "body": f"Canary {title}.", "audience": audience}, 0, now())
        if when == "now":
            update.publish(f"user:{owner.id}", now())
        elif when:
            update.publish_later(now() + dt.timedelta(days=1), owner, now())
    answered = Case.hold(number).take_comment("Bo", "bo@example.org", "Public for a moment.", now())
    answered.approve(moderator, now())
    answered.answer_by(owner, "Canary answer", now())
    answered.ask_second_look(owner, "Canary look", now())
    answered.reject("off_topic", moderator, now())
    approved = Case.hold(number).take_comment("Cy", "cy@example.org", "Public for good.", now())
    approved.approve(moderator, now())
    approved.ask_second_look(owner, "Canary second look", now())
    db.session.add(Editor(case_id=number, user_id=editor.id, added_at=now()))
    Case.hold(number).switch("pledging_paused", True, "Canary reason", staff, now())
    asked = db.session.scalars(sa.select(PromiseChange).where(PromiseChange.round_id == its_round.id)).one()
    asked.reason = "Canary of a request that staff have not agreed to"
    keep()
    draft = a_draft(site.owner, title="Canary case", story="Canary story")
    draft.submit(draft.owner, now())
    draft.reject("Canary rejection", db.session.merge(site.staff), now(), draft.review_mark)
    keep()

    # They are where they should be.
    look_anew()
    mine, desk = logged_in(site.app, site.owner), logged_in(site.app, site.staff)
    assert "Canary news" in client.get(f"/pledges/{link}/updates").text
    assert "Canary message" in mine.get("/owner/cases/the-case/messages").text
    assert "canary-label" in mine.get("/owner/cases/the-case/figures").text
    assert "canary-mail" in desk.get(f"/staff/pledges/{public_id}").text

    # The owner is not told who is anonymous, nor anybody's address, in no page and no file.
    for where in ("", "/pledges", "/pledges.csv", "/messages", "/figures", "/history", "/comments"):
        text = mine.get(f"/owner/cases/the-case{where}").text
        assert "Canary supporter" not in text and "canary-mail" not in text, where

    seen = set()
    for rule, method in site.rules():
        guarded = doors.POLICIES[rule.endpoint.partition(".")[0]] in ("owner", "moderator", "staff")
        if method != "GET" or guarded or rule.endpoint == "static":
            continue
        for headers in ({}, {"HX-Request": "true"}):
            answer = site.ask(client, rule, "GET", headers)
            seen.add(rule.endpoint)
            assert "canary" not in words_of(answer).replace("A canary comment.", "").casefold(), rule
    assert {"public.home", "public.case", "public.comments", "public.pledge_total", "supporters.pledge_page"} <= seen
    assert client.get(f"/cases/{draft.slug}").status_code == 404

    # A letter tells its reader what is the reader's, and nobody the rest.
    look_anew()
    told: dict[str, set[str]] = {}
    for letter in db.session.scalars(sa.select(Letter)):
        message = letters.write(letter)
        words = text_of(message).casefold() + str(message["Subject"]).casefold()
        told.setdefault(letter.kind, set()).update(re.findall(r"canary[ -]\w+", words))
    assert {kind: found for kind, found in told.items() if found} == CANARIES_IN_LETTERS
    told_by_us = capsys.readouterr()
    assert "canary" not in (told_by_us.out + told_by_us.err).casefold()
