"""Every form of the site as its page shows it, filled in so that it is taken: for tests that send all of them."""

import datetime as dt
import io
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyotp
import sqlalchemy as sa
from bs4 import BeautifulSoup, Tag
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

import config
from models import Editor, Pledge, User, begin_writing, db
from tests import gallery
from tests.doorway import Site, logged_in, token_on
from tests.gallery import PICTURE
from tests.made import PASSWORD, a_user, case_at, keep, look_anew, now
from tests.test_second_factors import Phone
from tests.test_security_canaries import Client
from views import doors
from views.card_pages import note_card_page

# Not filled in by people: Stripe and browsers send JSON there, which is fuzzed in test_security_fuzz.py.
NO_FORMS = ("webhooks.stripe", "public.policy_report")
# What is typed into a field of this name, or whose name ends with it; everything else gets words.
TYPED = {
    "password": PASSWORD, "new_password": "four words nothing ties", "other_amount": "", "amount": "25",
    "target": "6,000", "days": "30", "end_date": "", "end_time": "20:00", "zone": "Europe/London", "time": "12:00",
    # Ahead, and within what an update and an approved case may wait.
    "date": f"{now() + dt.timedelta(days=30):%Y-%m-%d}", "sure": "cancel", "slug": "a-name-of-its-own",
    "url": "https://example.org/letter.pdf", "website": "", "code": "", "recovery_code": "",
}  # fmt: skip
# Pages whose buttons depend on the state of what they show.
IN_STATES = {
    "moderators.queue", "own_account.account", "own_account.erasure", "owners.comments", "owners.draft",
    "owners.look_at_update", "owners.people", "owners.picture", "owners.promise", "owners.report_form", "owners.update",
    "owners.update_deletion", "owners.update_picture", "public.report_form", "staff.case", "staff.desk", "staff.pledge",
    "staff.user", "supporters.confirmation", "supporters.pledge_page", "supporters.receipt",
}  # fmt: skip
# The field of the one form that only the answer to another shows: the page of new recovery codes.
CODES_FILE = "own_account.recovery_codes_file"
# Open to everybody, but they do something only for whoever stands between the password and the desk, or is logged in.
OF_A_BROWSER = ("accounts.give_code", "accounts.set_first_second_factor", "accounts.log_out")
# A button of this name only shows what would come of the form.
ONLY_LOOKS = "preview"
# What would change nothing, or is more than there is, if it stayed as the page shows it.
OTHERWISE = {
    "supporters.change_amount": {"amount": "30"}, "supporters.change_address": {"email": "moved@example.org"},
    # Words that are there already, said otherwise.
    "supporters.rename": {"name": "Ada Summer"}, "public.edit_comment": {"body": "Another canary comment."},
    "owners.ask_promise_change": {"target": "5,000"}, "owners.save_draft": {"slug": "a-name-of-its-own"},
    "owners.edit_update": {"title": "Other news"}, "own_account.change_name": {"name": "An Owner"},
    "staff.refund": {"amount": "1"}, "staff.change_role": {"role-role": "owner"},
    "moderators.decide_many": {"decision": "reject"},
}  # fmt: skip
OFTEN = "1000000 per minute"
FILLED_BEFORE = ("hidden", "submit", "button")
TYPED_INTO = ("text", "email", "url", "tel", "number", "search", "textarea")


@dataclass
class Filled:
    """One form: where it is sent, by whom ("" is anybody), and what it brings. `words` names the fields of people's own
    words, `typed` all that somebody types and sees, and `files` those of files. `apps` has the fields that take the
    digits of an authenticator app, with its secret."""

    endpoint: str
    address: str
    who: str
    fields: dict[str, str] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)
    typed: set[str] = field(default_factory=set)
    apps: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)


class Forms:
    """All forms of a site that holds one of everything, with a browser of each person who may send them: of[endpoint]
    is a form, and browsers[form.who] sends it. What rarely happens is shown by pages of the gallery; what asks for a
    second factor, by those of an owner who has one, and no case."""

    def __init__(self, app: Flask) -> None:
        app.test_client_class = Client
        often = dict.fromkeys((name for name in config.Settings.model_fields if name.startswith("rate_")), OFTEN)
        app.config["STANDING"] = app.config["STANDING"].model_copy(update={**often, "sign_up": "open"})
        self.site = site = Site(app)
        people = {"owner": site.owner, "moderator": site.moderator, "staff": site.staff}
        hung = gallery.hang()
        _let_help(site)
        self._let_ask_for_a_page()
        self.browsers = {"": app.test_client()} | {role: logged_in(app, one) for role, one in people.items()}
        for kind, email in hung.people.items():
            look_anew()
            person = db.session.scalars(sa.select(User).where(User.email == email)).one()
            self.browsers[f"{kind} of the gallery"] = logged_in(app, person)
        self.own = {rule.endpoint: site.address(rule) for rule, method in site.rules() if method == "POST"}
        self.otherwise = OTHERWISE | {
            "accounts.enter": {"email": site.owner.email}, "accounts.ask_reset": {"email": site.owner.email},
            "supporters.find": {"email": _email_of_pledge(site)},
        }  # fmt: skip
        self.of: dict[str, Filled] = {}
        for rule, method in site.rules():
            if method == "GET" and rule.endpoint != "static":
                self._collect(site.address(rule), _who_sends(rule.endpoint))
        for shown in (shown for room in hung.rooms.values() for shown in room):
            if _endpoint(app, shown.address, "GET") in IN_STATES:
                self._collect(shown.address, shown.who and f"{shown.who} of the gallery")
        self._collect_with_second_factor()

    @property
    def missing(self) -> list[str]:
        """What takes a form that no page shows and nobody has described."""
        return sorted(self.own.keys() - self.of.keys() - {*NO_FORMS})

    def send(
        self, form: Filled, pairs: Iterable[tuple[str, str | bytes]], headers: Mapping[str, str] | None = None
    ) -> TestResponse:
        """By whoever may, in a browser that keeps nothing: some forms would log somebody in, or out."""
        browser = self.site.app.test_client(use_cookies=False)
        kept = self.browsers[form.who].get_cookie("session") if form.who else None
        return _send(
            browser, form, [*pairs], {**(headers or {}), **({"Cookie": f"session={kept.value}"} if kept else {})}
        )

    def _collect(self, address: str, who: str) -> None:
        answer = self.browsers[who].get(address)
        page = BeautifulSoup(answer.get_data(), "lxml") if answer.mimetype == "text/html" else None
        answer.close()
        for form in page.select("form[method=post]") if page else ():
            for where in (str(form["action"]), *(str(one["formaction"]) for one in form.select("[formaction]"))):
                one = self._filled(form, where, who)
                # A form of the very row that the site calls its own is the better one.
                if one and (one.endpoint not in self.of or one.address == self.own[one.endpoint]):
                    self.of[one.endpoint] = one

    def _let_ask_for_a_page(self) -> None:
        """The pledge of the site wants updates, and waits for a card page that Stripe would make: that of `a_pledge` is
        none that Stripe knows, so it could not be put in the place of another."""
        look_anew()
        pledge = db.session.scalars(sa.select(Pledge).where(Pledge.public_id == self.site.values["public_id"])).one()
        pledge.wants_updates = True
        with self.site.app.test_request_context():
            note_card_page(pledge)
            keep()

    def _collect_with_second_factor(self) -> None:
        """Forms that ask for a code, in place of those that don't, and those between the password and the desk."""
        app, with_app, half, first = self.site.app, "owner with an app", "half an owner", "half of staff"
        person, newcomer = a_user("owner"), a_user("staff")
        self.phone = Phone(person)
        self.browsers[with_app] = logged_in(app, person)
        for rule, method in self.site.rules():
            if method == "GET" and rule.endpoint.startswith("own_account."):
                self._collect(self.site.address(rule), with_app)
        settings = app.config["STANDING"]
        app.config["STANDING"] = settings.model_copy(update={"second_factor": "required"})
        for who, email in ((half, person.email), (first, newcomer.email)):
            self.browsers[who] = app.test_client()
            asked = self.browsers[who].post("/login", data={"email": email, "password": PASSWORD})
            self._collect(asked.location, who)
        app.config["STANDING"] = settings
        fields = {"codes": " ".join(self.phone.codes), "form_token": token_on(self.browsers[with_app], "/account")}
        self.of[CODES_FILE] = Filled(CODES_FILE, self.own[CODES_FILE], with_app, fields)

    def _filled(self, form: Tag, address: str, who: str) -> Filled | None:
        endpoint = _endpoint(self.site.app, address, "POST")
        if not endpoint:
            return None
        # What needs no log-in is sent by somebody without one, whose form has no token.
        who = who if _who_sends(endpoint) or endpoint in OF_A_BROWSER else ""
        filled = Filled(endpoint, address, who)
        page = form.find_parent("html")
        outside = page.select(f'[form="{form["id"]}"][name]') if page and form.get("id") else []
        for control in (*form.select("[name]"), *outside):
            _fill_in(filled, control)
        filled.fields |= self.otherwise.get(endpoint, {})
        if "code" in filled.fields:
            filled.apps["code"] = self.phone.secret
        if "new_code" in filled.fields and page:
            filled.apps["new_code"] = page.select(".secret")[0].get_text().replace(" ", "")
        if not who:
            filled.fields.pop("form_token", None)
        return filled


def _endpoint(app: Flask, address: str, method: str) -> str:
    try:
        return str(app.url_map.bind("").match(address.partition("?")[0], method=method)[0])
    except HTTPException:
        return ""


def _who_sends(endpoint: str) -> str:
    policy = doors.POLICIES[endpoint.partition(".")[0]]
    return "owner" if policy == doors.LOGGED_IN else policy if policy in ("owner", "moderator", "staff") else ""


def _email_of_pledge(site: Site) -> str:
    its = sa.select(Pledge.email).where(Pledge.public_id == site.values["public_id"])
    return str(db.session.scalars(its).one())


def _let_help(site: Site) -> None:
    """Somebody else works on the case of the site, who can be removed."""
    helper = a_user("owner")
    begin_writing()
    db.session.add(Editor(case_id=case_at("the-case").id, user_id=helper.id, added_at=now()))
    keep()


def _fill_in(filled: Filled, control: Tag) -> None:
    name, kind, value = str(control["name"]), str(control.get("type", control.name)), str(control.get("value", ""))
    if kind in TYPED_INTO:
        filled.typed.add(name)
    if kind == "file":
        filled.files.add(name)
    elif control.name == "button" and name == ONLY_LOOKS:
        return
    elif kind in ("radio", *FILLED_BEFORE) or control.name == "button":
        # Of several the one that is chosen already, else the first.
        if name not in filled.fields or control.has_attr("checked"):
            filled.fields[name] = value
    elif kind == "checkbox":
        filled.fields[name] = value or "y"
    elif control.name == "select":
        chosen = control.select_one("option[selected]") or control.select_one('option:not([value=""])')
        filled.fields[name] = str(chosen["value"]) if chosen else ""
    else:
        written = control.get_text().removeprefix("\n") if control.name == "textarea" else value
        last = name.rpartition("-")[2]
        filled.fields[name] = written or TYPED.get(last, f"Words of {last}")
        if last == "email":
            filled.fields[name] = written or f"{filled.endpoint.replace('.', '-').replace('_', '-')}@example.org"
        elif last not in TYPED:
            filled.words.add(name)


def _send(browser: FlaskClient, filled: Filled, pairs: list[tuple[str, str | bytes]], headers: Any) -> TestResponse:
    """Bytes are sent as files. What no browser would write, a script does: also half characters."""
    if not any(isinstance(value, bytes) for _, value in pairs):
        body = urllib.parse.urlencode(pairs, errors="surrogatepass")
        kind = "application/x-www-form-urlencoded"
        return browser.post(filled.address, data=body, content_type=kind, headers=headers)
    data: MultiDict[str, Any] = MultiDict(
        (readable(name), (io.BytesIO(value), "odd \u202e.png") if isinstance(value, bytes) else readable(value))
        for name, value in pairs
    )
    return browser.post(filled.address, data=data, content_type="multipart/form-data", headers=headers)


def readable(words: str) -> str:
    """Without half characters, for which the test client has no bytes."""
    return words.encode(errors="replace").decode()


def as_shown(filled: Filled) -> list[tuple[str, str | bytes]]:
    """The form as it stands on its page, with the digits of now."""
    digits = {name: pyotp.TOTP(secret).at(now()) for name, secret in filled.apps.items()}
    return [*(filled.fields | digits).items(), *((name, PICTURE) for name in filled.files)]
