"""Who may use which address: every one declares it, and the guard that it declares is really there."""

import re
from functools import partial

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule

from models import ROLES, Case, db
from tests.doorway import SAME_ORIGIN, Site, everything, logged_in, token_on
from tests.made import a_case, a_user, keep, now
from views import doors
from views.owners import OWNER_ALONE

EVIL = "https://evil.example"
FORMS = ("/amount", "/name", "/address")
REPAIRS = ("/payment", "/card", "/end-of-retries")


@pytest.fixture
def site(app: Flask) -> Site:
    return Site(app)


# What needs neither a log-in nor a private link. Whoever adds a page to these blueprints has to say so here.
OPEN = {
    "public": "accessibility badge case cases cases_feed comment comment_decisions comment_thanks comments deadline "
    "embed favicon health home how_it_works oembed owner picture pledge_total policy_report poster privacy "
    "qr_code report report_form reported robots share_picture short site_map topic updates_feed",
    "supporters": "bank_return came_back find find_form links_sent pledge pledge_form",
    "accounts": "ask_reset email_changed email_taken_back enter forgotten_password give_code log_in log_out "
    "new_second_factor password_changed reset_sent second_factor set_first_second_factor sign_up sign_up_form "
    "sign_up_sent",
    "drafts": "",
    "webhooks": "stripe",
}  # fmt: skip
# What an editor may do with a case as its owner may. All else of their desk has to be among what is the owner's alone.
EDITORS_TOO = (
    "answer_comment ask_second_look begin_case case comments delete_update desk draft edit_update figures history "
    "keep_picture keep_update_picture launch look_at_update messages new_case new_update people picture pledges "
    "pledges_as_file preview_draft publish_update publish_update_later remove_editor save_draft save_update "
    "take_picture_down take_update_back take_update_picture_down update update_deletion update_picture"
)


def undeclared(app: Flask) -> list[str]:
    """The endpoints of which nobody has said who may use them: their room has no policy, or lacks the guard that its
    policy means, or lets in more than one kind of people and does not name them."""
    return sorted({rule.endpoint for rule in app.url_map.iter_rules() if not _is_declared(app, rule)})


def _is_declared(app: Flask, rule: Rule) -> bool:
    room, _, name = rule.endpoint.rpartition(".")
    policy, guards = doors.POLICIES.get(room or name), app.before_request_funcs.get(room, [])
    if policy == doors.LOGGED_IN:
        return doors._require_log_in in guards
    if policy in ROLES:
        guarded = any(isinstance(one, partial) and (one.func, one.args) == (doors._require_role, (policy,))
                      for one in guards)  # fmt: skip
        return guarded and (policy != "owner" or (rule.endpoint in OWNER_ALONE) != (name in EDITORS_TOO.split()))
    if room in OPEN:
        return name in OPEN[room].split() or "link" in rule.arguments
    return (room, name) == ("", "static")


def test_every_endpoint_declares_who_may_use_it(app: Flask) -> None:
    assert undeclared(app) == []
    assert doors.POLICIES == {
        "static": "anyone",
        "public": "anyone",
        "supporters": "anyone, or the holder of a private link",
        "accounts": "anyone, or the holder of a private link; logging out needs a log-in",
        "moderators": "moderator",
        "owners": "owner",
        "staff": "staff",
        "own_account": "whoever is logged in",
        "drafts": "the holder of a private link",
        "webhooks": "Stripe, by its signature",
    }
    # And nothing is named that is not there.
    there = {rule.endpoint for rule in app.url_map.iter_rules() if "link" not in rule.arguments}
    named = {f"{room}.{name}" for room, names in {**OPEN, "owners": EDITORS_TOO}.items() for name in names.split()}
    assert named | OWNER_ALONE <= there


def test_an_endpoint_of_which_nobody_has_said_who_may_use_it_is_found_whatever_room_it_stands_in(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A room that says whom it is for and has no guard, which only its own `admit` gives it.
    monkeypatch.setitem(doors.POLICIES, "careless", "staff")
    forgotten = ("nowhere", "careless.new", "of_no_policy.new", "public.new", "supporters.new", "accounts.new",
                 "drafts.new", "webhooks.new", "owners.new", "owners.deeper.new")  # fmt: skip
    guarded = ("moderators.new", "staff.new", "own_account.new")
    for endpoint in (*forgotten, *guarded):
        app.add_url_rule(f"/not-declared/{endpoint}", endpoint, lambda: "Come in.")
    assert undeclared(app) == sorted(forgotten)
    # In a room of one kind of people a new page is closed to all others from the beginning.
    for endpoint in (*guarded, "owners.new"):
        answer = app.test_client().get(f"/not-declared/{endpoint}")
        assert answer.status_code == 303 and answer.location.startswith("/login")


@pytest.mark.parametrize("role", ["owner", "moderator", "staff"])
def test_what_a_role_guards_is_closed_to_strangers_and_to_every_other_role(site: Site, role: str) -> None:
    guarded = site.rules(role)
    assert {method for _, method in guarded} == {"GET", "POST"}
    others = [logged_in(site.app, person) for person in (site.owner, site.moderator, site.staff) if person.role != role]
    before = everything()
    for rule, method in guarded:
        stranger = site.ask(site.app.test_client(), rule, method, SAME_ORIGIN)
        assert stranger.status_code == 303 and stranger.location.startswith("/login"), f"a stranger at {rule}"
        for other in others:
            assert site.ask(other, rule, method, SAME_ORIGIN).status_code == 403, f"another role at {rule}"
    assert everything() == before


def test_what_is_guarded_is_open_to_its_role_and_a_form_needs_its_token(site: Site) -> None:
    for role, person in (("owner", site.owner), ("moderator", site.moderator), ("staff", site.staff)):
        browser = logged_in(site.app, person)
        before = everything()
        for rule, method in site.rules(role):
            answer = site.ask(browser, rule, method, SAME_ORIGIN)
            assert answer.status_code == {"GET": 200, "POST": 403}[method], f"{role} at {method} {rule}"
        # That staff have looked at a supporter's data is written down; nothing else is.
        assert everything() | {"looks": []} == before | {"looks": []}


def without_token(page: str) -> str:
    """The page without its form token, which holds the second in which it was made."""
    return re.sub(r'name="form_token" value="[^"]+"', "", page)


def test_another_owners_case_does_not_exist(site: Site) -> None:
    intruder = logged_in(site.app, a_user("owner"))
    token = token_on(intruder, "/owner")
    before = everything()
    for rule, method in site.rules("owner"):
        if rule.arguments:
            typed = {"form_token": token, "title": "Mine", "body": "Mine now."}
            answer = intruder.open(site.address(rule), method=method, data=typed if method == "POST" else None)
            assert answer.status_code == 404, f"{method} {rule}"
            nowhere = intruder.open(site.address(rule, slug="no-such-case"), method=method,
                                    data=typed if method == "POST" else None)  # fmt: skip
            assert without_token(answer.text) == without_token(nowhere.text)
    assert everything() == before


def test_an_update_is_found_only_below_its_own_case(site: Site) -> None:
    a_case(slug="another-of-hers", owner=site.owner)
    browser = logged_in(site.app, site.owner)
    update = site.values["update_id"]
    assert browser.get(f"/owner/cases/the-case/updates/{update}").status_code == 200
    assert browser.get(f"/owner/cases/another-of-hers/updates/{update}").status_code == 404


def test_a_draft_is_seen_by_its_owner_alone_and_takes_no_update(app: Flask, client: FlaskClient) -> None:
    owner = a_user("owner")
    Case.draft(db.session.merge(owner), "a-draft", "A draft", "In short.", "A story.", "AWO", now())
    keep()
    browser = logged_in(app, owner)
    assert client.get("/cases/a-draft").status_code == 404
    assert "A draft" in browser.get("/owner").text
    assert "A draft" in browser.get("/owner/cases/a-draft").text
    typed = {"title": "News", "body": "Words.", "form_token": token_on(browser, "/owner"), "audience": "everyone"}
    answer = browser.post("/owner/cases/a-draft/updates", data={**typed, "form_key": "a-form-key-of-this-test"})
    assert answer.status_code == 409 and "This case is not live yet." in answer.text


@pytest.mark.parametrize(
    ("purpose", "opens", "does"),
    [
        ("pledge", {"", *FORMS}, {"/card-page", "/cancellation", "/updates", "/new-link", *FORMS, *REPAIRS}),
        ("unsubscribe", {"/unsubscription"}, {"/unsubscription"}),
        ("leave", {"/departure"}, {"/departure"}),
        ("new-address", set(), set()),
        ("old-address", set(), set()),
        # Stripe knows this one: it leads a supporter without a saved card back to the pledge, and does nothing.
        ("unfinished", set(), set()),
        ("confirmation", set(), set()),
    ],
)
def test_a_private_link_opens_what_it_is_for_and_nothing_else(
    site: Site, client: FlaskClient, purpose: str, opens: set[str], does: set[str]
) -> None:
    link = site.links[purpose]
    altered = link[:-2] + ("A" if link[-2] != "A" else "B") + link[-1]
    before = everything()
    for page in ("", "/unsubscription", "/departure", *FORMS):
        assert client.get(f"/pledges/{link}{page}").status_code == (200 if page in opens else 404), page
        assert client.get(f"/pledges/{altered}{page}").status_code == 404
        assert client.get(f"/pledges/{link.partition('.')[0]}{page}").status_code == 404
    for way, status in {"unfinished": 303, "confirmation": 303, "new-address": 200, "old-address": 200}.items():
        assert client.get(f"/pledges/{way}/{link}").status_code == (status if purpose == way else 404), way
        if purpose != way:
            assert client.post(f"/pledges/{way}/{link}").status_code in (404, 405), way
    others = {"/card-page", "/cancellation", "/updates", "/new-link", "/unsubscription", "/departure", *FORMS, *REPAIRS}
    for action in others - does:
        assert client.post(f"/pledges/{link}{action}").status_code == 404, action
    assert everything() == before
    # What ends the pledge comes after its changes, and last what ends the link.
    for action in sorted(does, key=lambda one: (one == "/new-link", one == "/cancellation", one)):
        # This pledge has no refused payment, so there is nothing to repair; but the link is known.
        expected = (409,) if action in REPAIRS else (200, 303, 422)
        sent = client.post(f"/pledges/{link}{action}", data={"wanted": "y"} if action == "/updates" else None)
        assert sent.status_code in expected, action


# --- Posts from elsewhere ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": ""},
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Origin": "http://127.0.0.1:8000.evil.example"},
        {"Origin": ""},
    ],
)
def test_no_form_is_taken_from_another_site(site: Site, headers: dict[str, str]) -> None:
    browsers = [site.app.test_client(), logged_in(site.app, site.moderator)]
    before = everything()
    for rule, method in site.rules():
        if method == "POST" and rule.endpoint not in doors.FROM_ELSEWHERE:
            for browser in browsers:
                answer = site.ask(browser, rule, method, headers)
                assert answer.status_code == 403 and "from another site" in answer.text, rule
    assert everything() == before


def test_stripes_door_and_reports_of_browsers_alone_may_come_from_elsewhere(site: Site, client: FlaskClient) -> None:
    assert doors.FROM_ELSEWHERE == ("webhooks.stripe", "public.policy_report")
    # A report changes nothing, whoever sends it: the other test of it is among those of the policy.
    report = client.post("/policy-reports", headers={"Sec-Fetch-Site": "cross-site", "Origin": EVIL}, json=[],
                         content_type="application/reports+json")  # fmt: skip
    assert report.status_code == 204
    # Refused for its missing signature, not for where it comes from.
    answer = client.post("/webhooks/stripe", headers={"Sec-Fetch-Site": "cross-site", "Origin": EVIL})
    assert answer.status_code == 400


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"},
                                     {"Origin": "http://127.0.0.1:8000"}, {}])  # fmt: skip
def test_our_own_pages_and_text_browsers_may_send_forms(
    site: Site, client: FlaskClient, headers: dict[str, str]
) -> None:
    words = {"name": "Ada", "email": "ada@example.org", "body": "Good luck."}
    assert client.post("/cases/the-case/comments", data=words, headers=headers).status_code == 303
    assert client.post(f"/pledges/{site.links['pledge']}/cancellation", headers=headers).status_code == 303


def test_a_text_browser_that_is_logged_in_needs_the_forms_token_everywhere(site: Site) -> None:
    browser = logged_in(site.app, site.moderator)
    words = {"name": "Ada", "email": "ada@example.org", "body": "Good luck."}
    before = everything()
    for rule, method in site.rules():
        if method == "POST" and rule.endpoint not in doors.FROM_ELSEWHERE:
            assert site.ask(browser, rule, method).status_code == 403, rule
    assert everything() == before
    # The token of another log-in is none.
    other = token_on(logged_in(site.app, site.owner), "/owner")
    assert browser.post("/cases/the-case/comments", data={**words, "form_token": other}).status_code == 403
    token = token_on(browser, "/moderation")
    assert browser.post("/cases/the-case/comments", data={**words, "form_token": token}).status_code == 303


def test_no_get_and_no_head_changes_anything_but_who_looked_and_a_count(site: Site) -> None:
    people = (site.owner, site.moderator, site.staff)
    browsers = [site.app.test_client(), *(logged_in(site.app, person) for person in people)]
    before = everything()
    for rule, method in site.rules():
        for browser in browsers if method == "GET" else ():
            for way in ("GET", "HEAD", "OPTIONS"):
                assert site.ask(browser, rule, way).status_code < 500, f"{way} {rule}"
    # Coming back from Stripe asks Stripe, and Stripe cannot be reached here.
    session_id = db.session.scalars(sa.text("SELECT session_id FROM pledges WHERE status = 'started'")).one()
    assert browsers[0].get(f"/pledges/return?session_id={session_id}").status_code == 303
    after = everything()
    # The stranger alone opened the form and a short address, and counts: not those who are logged in, and no HEAD.
    assert [row[3:] for row in after.pop("sources")] == [("", 0, 1, 1), ("via:poster", 1, 0, 0)]
    assert [row[3:] for row in before.pop("sources")] == [("", 0, 0, 1)]
    # And that staff have looked at a supporter's data is written down.
    assert {row[3] for row in after.pop("looks")} == {"pledges of a case", "pledge"} and before.pop("looks") == []
    assert after == before
