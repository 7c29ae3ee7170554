"""Headers, secrets, logs, and what happens when something breaks. Rows 22, 35, 39 and 49 to 53 of docs/security.md."""

import ast
import datetime as dt
import inspect
import json
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
import sqlalchemy as sa
import structlog
from flask import Flask, abort
from werkzeug.test import TestResponse

import jobs
from jobs import deadline_capture, sweep
from law import Refused
from models import Lease, Letter, Pledge, Round, begin_writing, db
from tests.at_stripe import calls, saved_card
from tests.backup import typed_by_people
from tests.charged import charge_due
from tests.doorway import SAME_ORIGIN, Site, everything, logged_in, set_otherwise, token_on
from tests.filled import TYPED, Filled, Forms, as_shown
from tests.made import PASSWORD, a_case, a_pledge, a_user, case_at, keep, now, pledges_of
from tests.sandbox_process import SandboxProcess
from tests.test_settings import PRODUCTION
from views import doors

ROOT = Path(__file__).resolve().parent.parent
HTMX = {"HX-Request": "true"}
A_SECOND = dt.timedelta(seconds=1)


# --- 22: fields that were never in the form ---------------------------------------------------------------


def test_row_22_no_form_of_an_owner_sets_what_is_not_the_owners_to_set(app: Flask) -> None:
    """Every form of the desk is sent with every column of the tables as an extra field; the guarded ones stay."""
    site = Site(app)
    a_case(slug="another", owner=a_user("owner"))
    browser = logged_in(app, site.owner)
    token = token_on(browser, "/owner")
    extra = {
        column.name: "7" if isinstance(column.type, sa.Integer) else "approved"
        for table in db.metadata.sorted_tables
        for column in table.columns
    }
    before = guarded()
    for rule, method in site.rules("owner"):
        if method == "POST" and not rule.endpoint.endswith(("call_off", "launch", "submit", "take_back")):
            answer = browser.post(
                site.address(rule), data={**extra, "form_token": token}, headers={**SAME_ORIGIN, **HTMX}
            )
            assert answer.status_code < 500, rule
    after = guarded()
    assert {table: after[table][: len(rows)] for table, rows in before.items()} == before
    # A draft was begun, which is the owner's own and asks for nothing yet.
    begun = [row[1:3] for row in after.pop("cases")[len(before.pop("cases")) :]]
    assert begun == [(site.owner.id, "draft")] and after == before


def guarded() -> dict[str, list[tuple[Any, ...]]]:
    """What only the rules of the house may change: whose a case is, its state, promise, money and comments."""
    held = {
        "cases": ("id", "owner_id", "status", "visibility", "charges_frozen", "live_at"),
        "rounds": ("id", "case_id", "status", "target_pence", "deadline", "pledged_pence", "pledge_count"),
        "pledges": ("id", "round_id", "status", "amount_pence", "refunded_pence", "payment_method_id"),
        "comments": ("id", "status", "public_body", "decided_at"),
        "users": ("id", "role", "password_hash"),
    }
    rows = everything()
    return {
        table: [
            tuple(row[[column.name for column in db.metadata.tables[table].columns].index(name)] for name in names)
            for row in rows[table]
        ]
        for table, names in ((table, [name for name in names if name in db.metadata.tables[table].columns])
                             for table, names in held.items())
    }  # fmt: skip


# --- 35 and 39: SQL, and requests to other computers --------------------------------------------------------


QUOTES = (
    "'", "''", '"', "' OR '1'='1", "1; DROP TABLE cases--", "') UNION SELECT password_hash FROM users--", "%'", "\\'",
    "*/", "?", ":x", "-1", "0x1", "1e9", "99999999999999999999",
)  # fmt: skip


def test_row_35_a_quote_in_any_query_and_any_address_is_only_text(app: Flask) -> None:
    site = Site(app)
    names = "q topic order page before after seen next session_id url via d slug list sort from to status".split()
    people = [app.test_client(), *(logged_in(app, one) for one in (site.owner, site.moderator, site.staff))]
    quoted = {name: QUOTES[number % len(QUOTES)] for number, name in enumerate(names)}
    before = everything()
    for number, (rule, method) in enumerate(site.rules()):
        who = doors.POLICIES[rule.endpoint.partition(".")[0]]
        browser = people[{"owner": 1, "moderator": 2, "staff": 3}.get(who, 0)]
        if method != "GET" or rule.endpoint == "static":
            continue
        turned = {name: QUOTES[(QUOTES.index(words) + number) % len(QUOTES)] for name, words in quoted.items()}
        answer = browser.get(site.address(rule), query_string=turned, headers=HTMX)
        assert answer.status_code < 500, (rule, turned)
        for name in rule.arguments & {"slug", "link", "public_id", "label", "topic"}:
            answer = browser.get(site.address(rule, **{name: QUOTES[number % len(QUOTES)]}), headers=HTMX)
            assert answer.status_code in (200, 302, 303, 308, 400, 403, 404), (rule, name)
    after = everything()
    assert {name: len(rows) for name, rows in after.items() if rows != before[name]}.keys() <= {"looks", "sources"}


SPEAKS_TO_OTHERS = {"requests", "httpx", "urllib3", "http", "aiohttp", "urllib.request", "smtplib", "socket", "ftplib"}


def test_row_39_no_page_makes_the_server_ask_another_computer() -> None:
    """Stripe is asked by its SDK, and letters are sent to the one server of MAIL_URL; an operator's command may fetch
    htmx. No address that anybody typed is ever fetched."""
    ours = [*ROOT.glob("*.py"), *(ROOT / "views").glob("*.py"), *(ROOT / "jobs").glob("*.py")]
    found = {
        (file.name, name)
        for file in ours
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                     else [str(node.module)] if isinstance(node, ast.ImportFrom) else [])
        if name in SPEAKS_TO_OTHERS
    }  # fmt: skip
    # The name of this machine stands in a lease.
    assert found == {
        ("cli.py", "requests"), ("letters.py", "smtplib"), ("deadline_capture.py", "socket"),
        ("card_pages.py", "socket"),
    }  # fmt: skip


# --- 49: headers -------------------------------------------------------------------------------------------


def test_row_49_errors_that_only_happen_carry_every_header_too(app: Flask) -> None:
    """The walk over all addresses in test_headers meets no 429, no 500 and no 503."""

    def broken() -> NoReturn:
        raise KeyError("canary")

    def away() -> NoReturn:
        raise sa.exc.OperationalError("SELECT", {}, Exception("database is locked"))

    app.add_url_rule("/broken", "broken", broken)
    app.add_url_rule("/away", "away", away)
    app.add_url_rule("/often", "often", lambda: abort(429))
    for where, status in (("/broken", 500), ("/away", 503), ("/often", 429)):
        for headers in ({}, HTMX):
            answer = app.test_client().get(where, headers=headers)
            assert answer.status_code == status
            carries_every_header(answer)


def carries_every_header(answer: TestResponse) -> None:
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    expected = {
        "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
    }  # fmt: skip
    assert {name: answer.headers.get(name) for name in expected} == expected
    assert "camera=()" in answer.headers["Permissions-Policy"]


# --- 51: secrets -------------------------------------------------------------------------------------------


def test_row_51_a_key_is_replaced_and_nobody_is_logged_out_and_no_link_dies(app: Flask) -> None:
    """With the old keys as fallbacks what they have signed holds, what is signed now is signed anew; then they go."""
    owner = a_user("owner")
    site = Site(app)
    cookie, link = cookie_after_log_in(app, owner.email), site.links["pledge"]
    old = app.config["STANDING"]
    new: dict[str, object] = {"secret_key": "n" * 32, "link_secret": "m" * 32}
    during = {**new, "secret_key_fallbacks": (old.secret_key,), "link_secret_fallbacks": (old.link_secret,)}
    with set_otherwise(app, **during) as rotated:
        assert opens(rotated, cookie) == 200 and rotated.test_client().get(f"/pledges/{link}").status_code == 200
        renewed = cookie_after_log_in(rotated, owner.email)
    with set_otherwise(app, **new) as afterwards:
        assert (opens(afterwards, cookie), opens(afterwards, renewed)) == (303, 200)
        assert afterwards.test_client().get(f"/pledges/{link}").status_code == 404


def cookie_after_log_in(app: Flask, email: str) -> str:
    answer = app.test_client().post("/login", data={"email": email, "password": PASSWORD})
    assert answer.status_code == 303
    return "; ".join(cookie.partition(";")[0] for cookie in answer.headers.getlist("Set-Cookie"))


def opens(app: Flask, cookie: str) -> int:
    return app.test_client(use_cookies=False).get("/owner", headers={"Cookie": cookie}).status_code


KEYS = re.compile(
    r"\b[sr]k_live_[0-9A-Za-z]{20,}|\bwhsec_[0-9A-Za-z]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}"
)


def test_row_51_no_real_secret_is_in_the_repository() -> None:
    assert KEYS.search("STRIPE_SECRET_KEY=sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("what is in the repository can only be listed in a clone of it")
    files = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    assert [file for file in files if KEYS.search(file.read_text(encoding="utf-8", errors="ignore"))] == []
    assert [file for file in files if file.suffix in (".pem", ".key", ".env")] == []


# --- 52: logs ----------------------------------------------------------------------------------------------


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Any:
    """What was logged since it was asked last."""
    capfd.readouterr()
    return lambda: "".join(capfd.readouterr()) + caplog.text


def test_row_52_no_secret_of_a_request_is_in_any_line_of_the_log(app: Flask, said: Any) -> None:
    """Whatever is asked, by whomever, also where it breaks: cookies, addresses, links, keys, words stay out."""

    def broken(**_: str) -> NoReturn:
        raise ValueError("of no use to anybody")

    site = Site(app)
    link = a_pledge(case_at("the-case").round, email="canary@example.org").link()
    keep()
    people = [app.test_client(), *(logged_in(app, one) for one in (site.owner, site.moderator, site.staff))]
    tokens = {role: token_on(browser, page) for role, browser, page in zip(
        ("owner", "moderator", "staff"), people[1:], ("/owner", "/moderation", "/staff"), strict=True)}  # fmt: skip
    secrets = {"email": "canary@example.org", "password": "canary-password", "name": "Canary", "body": "Canary words",
               "code": "canary", "message": "canary", "reason": "canary"}  # fmt: skip
    headers = {"Authorization": "Bearer canary", "X-Forwarded-For": "canary", "User-Agent": "canary",
               "Referer": "http://canary.example/", "HX-Current-URL": "canary", **HTMX}  # fmt: skip
    for rule, method in site.rules():
        who = doors.POLICIES[rule.endpoint.partition(".")[0]]
        browser = people[{"owner": 1, "moderator": 2, "staff": 3}.get(who, 0)]
        browser.set_cookie("theme", "canary")
        typed = {**secrets, "form_token": tokens[who]} if who in tokens else secrets
        answer = browser.open(f"{site.address(rule)}?x=canary", method=method, headers=headers,
                              data=typed if method == "POST" else None)  # fmt: skip
        answer.get_data()
        answer.close()
    for page in ("supporters.cancel", "supporters.pledge_page"):
        assert page in app.view_functions
        app.view_functions[page] = broken
    people[0].get(f"/pledges/{link}?x=canary", headers=headers)
    people[1].post(f"/pledges/{link}/cancellation", data=secrets, headers={**headers, **SAME_ORIGIN})
    log = said()
    assert log.count("unexpected") == 2 and "a webhook was refused" in log
    leaked = [line for line in log.splitlines() if "canary" in line.casefold()]
    assert leaked == []
    for one in (link, *site.links.values()):
        assert one not in log and one.rpartition(".")[2] not in log
    for person in (site.owner, site.moderator, site.staff):
        assert person.email not in log and PASSWORD not in log


# Whose forms are sent first, and forms that end what others need, which come last.
ROOMS = ("public", "supporters", "owners", "moderators", "staff", "accounts", "own_account")
LATE = re.compile(
    r"withdraw|take_back|take_picture|take_update|erase|cancel|end_|disable|delete|undo|log_out|leave|refuse|reject|hide"
    r"|role|replace|password|change_email|pause|new_card|approve|publish_report|turn_off|accept"
)


@pytest.mark.only_on("sqlite", why="What is logged is the same on both.")
@pytest.mark.broken_books("the cards of the gallery are none of Stripe's", sometimes=True)
def test_row_52_what_people_typed_into_forms_that_were_taken_is_in_no_line_of_the_log_of_any_page_or_job(
    asks_the_sandbox: Flask, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    """Each form of the site is sent once, as its page shows it and with canaries for words, so that they come into the
    books; then each job of the list works on them: once while all is well, and once while Stripe and the mail server
    are away."""
    app = asks_the_sandbox
    forms, taken = Forms(app), list[str]()

    def turn(form: Filled) -> tuple[bool, int, str]:
        return bool(LATE.search(form.endpoint)), ROOMS.index(form.endpoint.partition(".")[0]), form.endpoint

    for form in sorted(forms.of.values(), key=turn):
        form.fields |= dict.fromkeys(form.words, f"Canary words of {form.endpoint}")
        taken += [form.endpoint] * (forms.send(form, as_shown(form)).status_code < 400)
    assert len(taken) > 70
    typed = typed_by_people()
    assert {words for words in typed if words.startswith("Canary words of")} >= {
        f"Canary words of {one}"
        for one in ("supporters.pledge", "public.comment", "owners.save_update", "accounts.sign_up")
    }
    for settings in ({}, {"stripe_api_base": "http://127.0.0.1:1", "mail_url": "smtp://127.0.0.1:1"}):
        app.config["STANDING"] = app.config["STANDING"].model_copy(update=settings)
        everything_is_due_again()
        assert set(jobs_of_the_clock()) == set(jobs.JOBS)
        sweep.sweep(now() + dt.timedelta(minutes=1))
    log = said()
    assert "letter sent" in log and "a letter waits" in log and "put back" in log
    secrets = {PASSWORD, TYPED["new_password"], "sk_test", "whsec", "@", "Canary", *forms.site.links.values()}
    assert {words for words in typed | secrets if words in log} == set()


def everything_is_due_again() -> None:
    """All letters wait again, and the deadline of each open round is over."""
    begin_writing()
    db.session.execute(sa.update(Letter).values(sent_at=None, next_at=now()))
    for its_round in db.session.scalars(sa.select(Round).where(Round.status == "open")):
        Round.hold(its_round.id).move_deadline(now() - A_SECOND, "test", now())
    keep()


def jobs_of_the_clock() -> Iterator[str]:
    """Each job that the clock knows, done for all that is due by tomorrow; if nothing is, for any row."""
    for job, due in sweep.TIMETABLE.items():
        has_row = inspect.signature(getattr(import_module(jobs.JOBS[job]), job)).parameters
        rows = due(now() + dt.timedelta(days=1)) or [1 if has_row else None]
        db.session.rollback()
        for row in rows:
            # What goes wrong is what is looked for: it is logged.
            with suppress(jobs.Failed, Refused):
                jobs.perform(job, row)
            db.session.rollback()
        yield job


def test_row_52_no_line_of_the_log_can_be_forged(said: Any) -> None:
    """In production a line is JSON: what somebody may have put into a value ends no line and begins none."""
    program = (
        "import config, structlog; config.start_logging(config.load());"
        "log = structlog.get_logger();"
        "log.info('one', why='a\\r\\n{\"event\": \"forged\"}\\x1b[2J\\u2028b')"
    )
    settings = {name.upper(): value for name, value in PRODUCTION.items()}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=settings, capture_output=True, check=True, timeout=60
    )
    (line,) = ended.stdout.splitlines()
    assert line.isascii() and b"\x1b" not in line
    found = json.loads(line)
    assert (found["event"], found["level"]) == ("one", "info") and found["timestamp"].endswith("Z")


def test_row_52_what_a_library_repeats_of_its_trouble_is_left_out_of_the_log(app: Flask, said: Any) -> None:
    """Stripe's message about a wrong address has the address in it, and a driver's about a row may have the row."""
    link = "/pledges/abcdef.0123456789abcdefghijklmnop"
    words = f"Invalid email address: canary+1@mail.example.org at {link}/card with sk_live_canary, whsec_canary"
    try:
        raise ValueError(words)
    except ValueError as trouble:
        structlog.get_logger().error("no card page was made", pledge=7, why=str(trouble), exc_info=trouble)
    log = said()
    assert "pledge=7" in log and "ValueError" in log and log.count("[left out]") == 4
    assert "canary" not in log and "0123456789" not in log


def test_row_52_nobody_in_front_of_us_writes_addresses_down() -> None:
    """Private pages are known by their address, so neither the server nor the proxy that we ship keeps a list."""
    nginx = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    assert nginx.count("access_log off;") == 2 and "error_log /var/log/nginx/standing.log crit;" in nginx
    for file in (ROOT / "deploy" / "supervisord.conf", ROOT / "README.md", ROOT / "deploy" / "nginx.conf"):
        assert "--access-log" not in file.read_text(encoding="utf-8"), file.name


# --- 53: when something breaks -----------------------------------------------------------------------------


def test_row_53_production_is_never_in_debug_mode_and_has_no_console(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLASK_DEBUG", raising=False)
    with set_otherwise(app, **PRODUCTION, stripe_api_base="", checkout_origin="https://checkout.stripe.com") as site:
        assert site.debug is False and site.config["PROPAGATE_EXCEPTIONS"] is None and not site.testing
        for where in ("/console", "/?__debugger__=yes&cmd=resource&f=style.css", "/debug", "/_debug_toolbar/"):
            answer = site.test_client().get(where, base_url="https://standing.example")
            assert answer.status_code == (200 if where.startswith("/?") else 404)
            assert "debugger" not in answer.text.casefold()


def test_row_53_while_the_books_are_away_the_page_and_the_log_name_one_number(app: Flask, said: Any) -> None:
    def away() -> NoReturn:
        raise sa.exc.OperationalError("SELECT", {}, Exception("database is locked"))

    app.add_url_rule("/away", "away", away)
    for headers in ({}, HTMX):
        answer = app.test_client().get("/away", headers=headers)
        reference = answer.text.partition("name the number ")[2].partition(".")[0]
        assert answer.status_code == 503 and len(reference) == 8 and f"reference={reference}" in said()


def test_row_53_a_job_that_breaks_names_itself_and_its_row_and_nobody(
    app: Flask, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    def broken(round_id: int) -> NoReturn:
        raise ValueError("Ada Winter, ada@canary.example")

    monkeypatch.setattr(deadline_capture, "settle_round", broken)
    db.session.rollback()
    with pytest.raises(jobs.Failed) as told_to_rq:
        jobs.perform("settle_round", 17)
    log = said()
    (line,) = (line for line in log.splitlines() if "a job has failed" in line)
    assert "job=settle_round" in line and "row=17" in line and "ValueError" in log
    assert f'test_security_platform.py", line {broken.__code__.co_firstlineno + 1}, in broken' in log
    assert "Ada" not in log and "Winter" not in log and "canary" not in log
    # RQ writes this down as it is, and keeps it in Redis.
    kept = "".join(traceback.format_exception(told_to_rq.value))
    assert str(told_to_rq.value) == "settle_round of 17: ValueError" and "canary" not in kept and "Ada" not in kept


def test_row_53_of_whatever_breaks_the_log_has_the_kind_and_the_place_and_no_word(app: Flask, said: Any) -> None:
    """Also where one trouble came of another, where the work goes on with the next thing, and on a page."""

    def broken(_: object = None) -> NoReturn:
        try:
            raise KeyError("Ada Winter")
        except KeyError as trouble:
            raise ValueError("Her message, word by word") from trouble

    app.add_url_rule("/broken", "broken", broken)
    assert app.test_client().get("/broken").status_code == 500
    jobs.by_itself(17, broken, lambda thing, why: None)
    try:
        broken()
    except ValueError:
        structlog.get_logger().exception("a sweep failed")
    log = said()
    assert [log.count(kind) for kind in ("unexpected", "put back", "a sweep failed")] == [1, 1, 1]
    assert log.count("builtins.KeyError") == log.count("builtins.ValueError") == 3 and log.count(", in broken") == 6
    assert [word for word in ("Ada", "Winter", "message", "word by word") if word in log] == []


@pytest.mark.parametrize(
    "broken",
    ["law.decide", "law.allows", "law.in_time", "models.Pledge.claim", "models.Pledge.waits_to_be_charged",
     "jobs.deadline_capture._asking", "models.Pledge.waiting_to_charge", "models.Lease.take"],
)  # fmt: skip
def test_row_53_whatever_breaks_while_it_is_decided_who_is_charged_nobody_is(
    asks_the_sandbox: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Failing closed: no decision is no, and when the mistake is mended everybody is charged once."""
    its_case = a_case(slug="the-case", target=5_000, pledged=[2_500, 2_500])
    for pledge in pledges_of("the-case"):
        pledge.customer_id, pledge.payment_method_id = saved_card(sandbox)
    Round.hold(its_case.round.id).move_deadline(now() - A_SECOND, "test", now())
    keep()

    def fails(*_: Any, **__: Any) -> NoReturn:
        raise RuntimeError("a mistake of ours")

    with monkeypatch.context() as mistaken:
        mistaken.setattr(broken, fails)
        for work in (settle, charge_due):
            try:
                work()
            except RuntimeError:
                db.session.rollback()
    assert calls(sandbox, "payment_intents.create") == []
    assert {pledge.status for pledge in pledges_of("the-case")} <= {"confirmed", "due"}
    begin_writing()
    db.session.execute(sa.update(Pledge).values(next_at=now()))
    db.session.execute(sa.update(Round).values(next_at=now()))
    # Who broke off had not given back the lease.
    db.session.execute(sa.update(Lease).values(until=now()))
    keep()
    settle()
    charge_due()
    assert [pledge.status for pledge in pledges_of("the-case")] == ["charged", "charged"]
    assert len(calls(sandbox, "payment_intents.create")) == 2


def settle() -> None:
    begin_writing()
    deadline_capture.settle_round(case_at("the-case").round.id)
    keep()
