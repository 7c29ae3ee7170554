"""What must never be told of comments, shown by canaries: words that stand nowhere but where nobody may see them."""

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

import letters
from models import Comment, Letter, db
from tests.doorway import Site, logged_in, token_on
from tests.made import look_anew
from views import doors


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
                    assert "canary" not in answer.text.replace("A canary comment.", "").casefold(), rule
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
        words = message.get_content().casefold()
        assert "canarytext" not in words and "canaryname" not in words and "canarymail" not in words, letter.kind
        assert "canaryreport" not in words and ("canarynote" not in words or theirs), letter.kind
    told = capsys.readouterr()
    assert "canary" not in (told.out + told.err).casefold()
