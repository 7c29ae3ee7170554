"""Every form of the site as its page shows it, filled in so that it is taken: for tests that send all of them."""

import io
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from bs4 import BeautifulSoup, Tag
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

import config
from models import User, db
from tests import gallery
from tests.doorway import Site, logged_in, token_on
from tests.gallery import PICTURE
from tests.made import PASSWORD, look_anew
from tests.test_security_canaries import Client
from views import doors

# Not filled in by people: Stripe and browsers send JSON there, which is fuzzed in test_security_fuzz.py.
NO_FORMS = ("webhooks.stripe", "public.policy_report")
# What is typed into a field of this name, or whose name ends with it; everything else gets words.
TYPED = {
    "password": PASSWORD, "new_password": "four words nothing ties", "other_amount": "", "amount": "25",
    "target": "6,000", "days": "30", "date": "2027-03-01", "time": "12:00", "zone": "Europe/London",
    "url": "https://example.org/letter.pdf", "website": "", "code": "", "recovery_code": "",
}  # fmt: skip
# Pages whose buttons depend on the state of what they show.
IN_STATES = {
    "moderators.queue", "own_account.account", "own_account.erasure", "owners.comments", "owners.draft",
    "owners.look_at_update", "owners.people", "owners.picture", "owners.promise", "owners.report_form", "owners.update",
    "owners.update_deletion", "owners.update_picture", "public.report_form", "staff.case", "staff.desk", "staff.pledge",
    "staff.user", "supporters.confirmation", "supporters.pledge_page", "supporters.receipt",
}  # fmt: skip
# The fields of forms that stand on none of these pages: they follow a password or a code, or need one more person.
UNSEEN = {
    "accounts.give_code": "code recovery_code", "accounts.set_first_second_factor": "code offer",
    "own_account.erase": "password code recovery_code sure",
    "own_account.renew_recovery_codes": "password code recovery_code",
    "own_account.turn_off_second_factor": "password code recovery_code", "own_account.recovery_codes_file": "codes",
    "owners.remove_editor": "sent", "staff.prolong_breaker": "breaker-1-reason", "staff.refuse_held": "held-reason",
}  # fmt: skip
# What would change nothing, or is more than there is, if it stayed as the page shows it.
OTHERWISE = {
    "supporters.change_amount": {"amount": "30"}, "supporters.change_address": {"email": "moved@example.org"},
    "owners.ask_promise_change": {"target": "5,000"}, "owners.save_draft": {"slug": "a-name-of-its-own"},
    "staff.refund": {"amount": "1"},
}  # fmt: skip
OFTEN = "1000000 per minute"
FILLED_BEFORE = ("hidden", "submit", "button")


@dataclass
class Filled:
    """One form: where it is sent, by whom ("" is anybody), and what it brings. `words` names the fields of people's own
    words, and `files` those of files."""

    endpoint: str
    address: str
    who: str
    fields: dict[str, str] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)


class Forms:
    """All forms of a site that holds one of everything, with a browser of each person who may send them: of[endpoint]
    is a form, and browsers[form.who] sends it. What rarely happens is shown by pages of the gallery."""

    def __init__(self, app: Flask) -> None:
        app.test_client_class = Client
        often = dict.fromkeys((name for name in config.Settings.model_fields if name.startswith("rate_")), OFTEN)
        app.config["STANDING"] = app.config["STANDING"].model_copy(update={**often, "sign_up": "open"})
        self.site = site = Site(app)
        people = {"owner": site.owner, "moderator": site.moderator, "staff": site.staff}
        hung = gallery.hang()
        self.browsers = {"": app.test_client()} | {role: logged_in(app, one) for role, one in people.items()}
        for kind, email in hung.people.items():
            look_anew()
            person = db.session.scalars(sa.select(User).where(User.email == email)).one()
            self.browsers[f"{kind} of the gallery"] = logged_in(app, person)
        self.own = {rule.endpoint: site.address(rule) for rule, method in site.rules() if method == "POST"}
        self.of: dict[str, Filled] = {}
        for rule, method in site.rules():
            if method == "GET" and rule.endpoint != "static":
                self._collect(site.address(rule), _who_sends(rule.endpoint))
        for shown in (shown for room in hung.rooms.values() for shown in room):
            if _endpoint(app, shown.address, "GET") in IN_STATES:
                self._collect(shown.address, shown.who and f"{shown.who} of the gallery")
        for endpoint, names in UNSEEN.items():
            who = _who_sends(endpoint)
            token = {"form_token": token_on(self.browsers[who], "/account")} if who else {}
            fields = {name: TYPED.get(name, "Words") for name in names.split()}
            self.of[endpoint] = Filled(endpoint, self.own[endpoint], who, fields | token, {*fields} - {*TYPED})

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
            one = _filled(self.site.app, form, who)
            # A form of the very row that the site calls its own is the better one.
            if one and (one.endpoint not in self.of or one.address == self.own[one.endpoint]):
                self.of[one.endpoint] = one


def _endpoint(app: Flask, address: str, method: str) -> str:
    try:
        return str(app.url_map.bind("").match(address.partition("?")[0], method=method)[0])
    except HTTPException:
        return ""


def _who_sends(endpoint: str) -> str:
    policy = doors.POLICIES[endpoint.partition(".")[0]]
    return "owner" if policy == doors.LOGGED_IN else policy if policy in ("owner", "moderator", "staff") else ""


def _filled(app: Flask, form: Tag, who: str) -> Filled | None:
    address = str(form["action"])
    endpoint = _endpoint(app, address, "POST")
    if not endpoint:
        return None
    # What needs no log-in is sent by somebody without one, whose form has no token.
    who = who if _who_sends(endpoint) else ""
    filled = Filled(endpoint, address, who)
    page = form.find_parent("html")
    outside = page.select(f'[form="{form["id"]}"][name]') if page and form.get("id") else []
    for control in (*form.select("[name]"), *outside):
        _fill_in(filled, control)
    filled.fields |= OTHERWISE.get(endpoint, {})
    filled.words -= OTHERWISE.get(endpoint, {}).keys()
    if not who:
        filled.fields.pop("form_token", None)
    return filled


def _fill_in(filled: Filled, control: Tag) -> None:
    name, kind, value = str(control["name"]), str(control.get("type", control.name)), str(control.get("value", ""))
    if kind == "file":
        filled.files.add(name)
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
        (name, (io.BytesIO(value), "odd \u202e.png") if isinstance(value, bytes) else readable(value))
        for name, value in pairs
    )
    return browser.post(filled.address, data=data, content_type="multipart/form-data", headers=headers)


def readable(words: str) -> str:
    """Without half characters, for which the test client has no bytes."""
    return words.encode(errors="replace").decode()


def as_shown(filled: Filled) -> list[tuple[str, str | bytes]]:
    """The form as it stands on its page."""
    return [*filled.fields.items(), *((name, PICTURE) for name in filled.files)]
