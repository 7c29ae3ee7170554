"""Who may do what, for every address and every kind of person, made from the addresses themselves: a new one is in the
table as soon as it exists, and closed to everybody whom its blueprint does not admit. One that nobody has declared
fails it."""

from collections import Counter

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from models import Case, Editor, begin_writing, db
from tests.doorway import SAME_ORIGIN, Site, everything, logged_in, token_on
from tests.made import a_case, a_user, keep, now
from tests.test_guards import undeclared
from views import doors
from views.owners import OWNER_ALONE

# Kind of person -> where they find the token of their forms; "" where they have none.
PEOPLE = {"stranger": "", "supporter": "", "owner": "/owner", "another owner": "/owner", "editor": "/owner",
          "moderator": "/moderation", "staff": "/staff"}  # fmt: skip
ROLES = {"another owner": "owner", "editor": "owner"}
LOG_IN, WRONG_ROLE, NOT_THEIRS = "to the log-in", "403", "404"


def verdict(rule: Rule, person: str) -> str:
    """What somebody is told at an address: "" when they may come in."""
    admitted = doors.POLICIES[rule.endpoint.partition(".")[0]]
    if admitted not in ("owner", "moderator", "staff", doors.LOGGED_IN):
        return ""
    if not PEOPLE[person]:
        return LOG_IN
    if admitted == doors.LOGGED_IN:
        return ""
    if ROLES.get(person, person) != admitted:
        return WRONG_ROLE
    if person == "another owner" and "slug" in rule.arguments:
        return NOT_THEIRS
    return WRONG_ROLE if person == "editor" and rule.endpoint in OWNER_ALONE else ""


@pytest.fixture
def site(app: Flask) -> Site:
    return Site(app)


@pytest.fixture
def people(site: Site) -> dict[str, FlaskClient]:
    """A browser of each kind of person. The editor helps with all cases of the owner; the other owner has one too."""
    editor, another, number = a_user("owner"), a_user("owner"), site.owner.id
    a_case(slug="of-another-owner", owner=another)
    begin_writing()
    for case_id in db.session.scalars(sa.select(Case.id).where(Case.owner_id == number)):
        db.session.add(Editor(case_id=case_id, user_id=editor.id, added_at=now()))
    keep()
    known = {"owner": site.owner, "another owner": another, "editor": editor, "moderator": site.moderator,
             "staff": site.staff}  # fmt: skip
    browsers = {kind: logged_in(site.app, person) for kind, person in known.items()}
    # Whoever holds a private link carries nothing that could be taken for a log-in.
    return browsers | {"stranger": site.app.test_client(), "supporter": site.app.test_client()}


def test_whoever_may_not_come_in_is_told_so_at_every_address_and_changes_nothing(
    site: Site, people: dict[str, FlaskClient]
) -> None:
    assert undeclared(site.app) == []
    people["supporter"].get(f"/pledges/{site.links['pledge']}")
    tokens = {person: token_on(people[person], page) if page else "" for person, page in PEOPLE.items()}
    before, seen = everything(), Counter[str]()
    for rule, method in site.rules():
        for person, browser in people.items():
            if not (expected := verdict(rule, person)):
                continue
            # What a stranger has typed would be given back, as to somebody whose log-in has ended meanwhile.
            typed = {"form_token": tokens[person], "reason": "Mine now.", "title": "Mine"} if PEOPLE[person] else {}
            answer = browser.open(site.address(rule), method=method, headers=SAME_ORIGIN,
                                  data=typed if method == "POST" else None)  # fmt: skip
            to_log_in = answer.status_code == 303 and answer.location.startswith("/login")
            told = LOG_IN if to_log_in else str(answer.status_code)
            assert told == expected, f"{person} at {method} {rule}"
            seen[f"{person}: {expected}"] += 1
    assert everything() == before
    # Nobody was left out: each kind of person has been told each thing that they can be told.
    assert set(seen) == {
        "stranger: to the log-in", "supporter: to the log-in", "owner: 403", "another owner: 403", "another owner: 404",
        "editor: 403", "moderator: 403", "staff: 403",
    }  # fmt: skip
    assert seen["stranger: to the log-in"] == seen["supporter: to the log-in"] > 80


def test_whoever_may_come_in_sees_every_page(site: Site, people: dict[str, FlaskClient]) -> None:
    guarded = {"owner", "moderator", "staff", doors.LOGGED_IN}
    for rule, method in site.rules():
        admitted = doors.POLICIES[rule.endpoint.partition(".")[0]]
        for person, browser in people.items():
            if method == "GET" and admitted in guarded and not verdict(rule, person):
                assert browser.get(site.address(rule)).status_code == 200, f"{person} at {rule}"


@pytest.mark.parametrize("kind", sorted(PEOPLE))
def test_a_private_link_of_another_or_an_altered_one_opens_nothing_to_anybody(
    site: Site, people: dict[str, FlaskClient], kind: str
) -> None:
    """A link names its row and is its only key: whoever alters it has none, whoever they are."""
    token = token_on(people[kind], PEOPLE[kind]) if PEOPLE[kind] else ""
    by_link = [(rule, method) for rule, method in site.rules() if "link" in rule.arguments]
    assert len(by_link) > 30
    before = everything()
    for rule, method in by_link:
        good = site.address(rule)
        link = next(part for part in good.split("/") if "." in part and len(part) > 40)
        name, signature = link.split(".")
        turned, other = ("A" if signature[0] != "A" else "B"), ("0" if name[-1] != "0" else "1")
        for bad in (f"{name}.{turned}{signature[1:]}", f"{name[:-1]}{other}.{signature}", name):
            answer = people[kind].open(good.replace(link, bad), method=method, headers=SAME_ORIGIN,
                                       data={"form_token": token} if method == "POST" else None)  # fmt: skip
            # The desks come before the link.
            closed = (303, 403, 404) if verdict(rule, kind) else (404,)
            assert answer.status_code in closed, f"{method} {rule}"
    assert everything() == before
