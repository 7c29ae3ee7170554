"""What the tests of the doors share: people who are logged in, the state of all tables, and the site set otherwise."""

import datetime as dt
import hashlib
import hmac
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

import app as application
from models import (
    Breaker,
    Comment,
    EmailChange,
    Invitation,
    PasswordReset,
    SignUp,
    Update,
    User,
    UserSession,
    begin_writing,
    db,
)
from tests.made import a_case, a_draft, a_pledge, a_user, case_at, keep, look_anew, now
from views import admissions, comments, doors
from views.supporters import PURPOSES

WEBHOOK_SECRET = "whsec_for_the_tests_only"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}


# Pages of a case that is not live yet.
OF_DRAFTS = ("owners.draft", "owners.save_draft", "owners.preview_draft", "owners.picture",
             "owners.keep_picture", "owners.take_picture_down", "owners.launch",
             "owners.replace_preview_link", "owners.submit", "owners.take_back",
             "owners.draft_deletion", "owners.delete_draft")  # fmt: skip


OF_REVIEWS = ("staff.review", "staff.preview_case", "staff.approve_case", "staff.approve_case_for_later",
              "staff.ask_for_changes", "staff.reject_case")  # fmt: skip


class Site:
    """One of everything that an address can name, made by the models' own verbs."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.owner, self.moderator, self.staff = a_user("owner"), a_user("moderator"), a_user("staff")
        its_case = a_case(slug="the-case", owner=self.owner, pledged=[9_500])
        pledge = a_pledge(its_case.round)
        its_case.take_comment("Ada", "ada@example.org", "A canary comment.", now())
        its_case.publish_update(db.session.merge(self.owner), "News", "Words.", now())
        keep()
        comment, update = db.session.scalars(sa.select(Comment)).one(), db.session.scalars(sa.select(Update)).one()
        self.values: dict[str, Any] = {
            "slug": "the-case", "public_id": pledge.public_id, "switch": "charge-freeze", "sight": "notice",
            "comment_id": comment.id, "update_id": update.id, "filename": "site.css",
            "sha256": "0" * 64, "number": its_case.id, "label": "poster", "topic": "privacy",
        }  # fmt: skip
        counted = its_case.round.pledges("confirmed")[0]
        change, made = (counted.ask_other_address(f"{name}@example.org", now()) for name in ("new", "newest"))
        made.make(now())
        change.link_version = counted.link_version
        its_round = its_case.round
        later = its_round.deadline + dt.timedelta(days=7)
        asked = its_round.ask_change(later, 600_000, "A hearing.", db.session.merge(self.owner), now())
        self.values |= {"change_id": asked.id, "breaker_id": Breaker.hold(its_case.id, now()).id}
        keep()
        self.draft = a_draft(self.owner)
        self.draft_link = self.draft.preview_link()
        submitted = a_draft(self.owner)
        submitted.submit(submitted.owner, now())
        keep()
        self.slugs = dict.fromkeys(OF_DRAFTS, self.draft.slug) | dict.fromkeys(OF_REVIEWS, submitted.slug)
        invited = Invitation.send("invited@example.org", "owner", None, now())
        signed_up = SignUp.ask("signed-up@example.org", "Sam Weir", self.owner.password_hash, now())
        forgotten = PasswordReset.ask(self.moderator.email, now())
        keep()
        mover = a_user("owner")
        waiting = EmailChange.ask(db.session.merge(self.staff), "staff-elsewhere@example.org", now())
        moved = EmailChange.ask(db.session.merge(mover), "owner-elsewhere@example.org", now())
        moved.make(now())
        keep()
        self.values |= {"invitation_id": invited.id, "user_id": self.owner.id, "log_in_id": 1}
        to_help = Invitation.to_case(case_at("the-case"), "asked@example.org", db.session.merge(self.owner), now())
        keep()
        # Of the two kinds of invitations owners see those to their own cases.
        self.invitations = {"owners.take_invitation_back": to_help.id}
        self.links = {
            "invitation": invited.link(),
            "sign-up": signed_up.link(),
            "password-reset": forgotten.link(),
            "new-email": waiting.link("new-email"),
            "old-email": moved.link("old-email"),
            **{
                purpose: pledge.link(purpose)
                for purpose in ("pledge", "unfinished", "unsubscribe", "leave", "confirmation")
            },
            "new-address": change.link("new-address"),
            "old-address": made.link("old-address"),
            "comment": comment.link(),
            "digest": comment.digest_link(db.session.merge(self.moderator)),
        }
        db.session.rollback()

    def address(self, rule: Rule, **changed: Any) -> str:
        """An address of the rule at which there really is something."""
        of_accounts = {endpoint: purpose for endpoint, (_, purpose) in admissions.BY_LINK.items()}
        purposes = (
            PURPOSES | comments.PURPOSES | of_accounts | admissions.OF_EMAILS | {"moderators.from_letter": "digest"}
        )
        purpose = purposes.get(rule.endpoint, "pledge")
        slug = self.slugs.get(rule.endpoint, "the-case")
        link = self.draft_link if rule.endpoint.startswith("drafts.") else self.links[purpose]
        values = {**self.values, "slug": slug, "link": link, **changed}
        values["invitation_id"] = self.invitations.get(rule.endpoint, values["invitation_id"])
        with self.app.test_request_context():
            return self.app.url_map.bind("").build(rule.endpoint, {name: values[name] for name in rule.arguments})

    def rules(self, policy: str = "") -> list[tuple[Rule, str]]:
        """(rule, method) of all that can be asked for, or of what one policy guards."""
        return [
            (rule, method)
            for rule in self.app.url_map.iter_rules()
            for method in sorted(rule.methods or ())
            if method in ("GET", "POST") and policy in ("", doors.POLICIES[rule.endpoint.partition(".")[0]])
        ]

    def ask(self, browser: FlaskClient, rule: Rule, method: str, headers: Any = (), **changed: Any) -> TestResponse:
        answer = browser.open(self.address(rule, **changed), method=method, headers=headers)
        answer.get_data()
        answer.close()  # Or a static file would stay open.
        return answer


def words_of(answer: TestResponse) -> str:
    """What an answer holds as text, also when it is a picture."""
    return answer.get_data().decode(errors="replace")


def logged_in(app: Flask, person: User) -> FlaskClient:
    """The browser of somebody who is logged in, without the slow comparison of the password."""
    browser = app.test_client()
    with browser.session_transaction() as session:
        session["_user_id"] = a_log_in(person)
    return browser


def a_log_in(person: User) -> str:
    """What the cookie of a new log-in carries."""
    begin_writing()
    mark = UserSession.begin(db.session.merge(person), "Firefox, Linux", "192.0.2.0/24", now())
    keep()
    return mark


def token_on(browser: FlaskClient, page: str) -> str:
    """The token in the forms of a page."""
    field = BeautifulSoup(browser.get(page).text, "lxml").select_one("input[name=form_token]")
    assert field is not None, f"no form on {page} has a token"
    return str(field["value"])


def everything() -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, to show that nothing was changed. When somebody was last seen is left out: a test that
    takes minutes would write it."""
    look_anew()
    rows = {
        table.name: [
            tuple(row)
            for row in db.session.execute(
                sa.select(*(one for one in table.c if one.name != "seen_at")).order_by(*table.primary_key)
            )
        ]
        for table in db.metadata.sorted_tables
    }
    db.session.rollback()
    return rows


@contextmanager
def set_otherwise(app: Flask, **settings: object) -> Iterator[Flask]:
    """The site on the same database with other settings, as after a restart."""
    db.session.rollback()
    other = application.create_app({**app.config["STANDING"].model_dump(), **settings})
    other.test_client_class = app.test_client_class
    try:
        yield other
    finally:
        with other.app_context():
            db.engine.dispose()


def signature(body: bytes, at: float | None = None, secret: str = WEBHOOK_SECRET) -> str:
    """The header by which Stripe signs a webhook, written out as in its documentation."""
    signed_at = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{signed_at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={signed_at},v1={digest}"
