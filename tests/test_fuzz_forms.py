"""Whatever is typed into a form, and whatever a form is called, the answer is a page and never our own failure."""

from collections import Counter
from collections.abc import Callable

import pytest
import requests
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

import law
from models import db
from tests.backup import back_up, restore
from tests.books import contradictions
from tests.doorway import Site, everything
from tests.filled import Filled, Forms, as_shown
from tests.made import look_anew
from tests.sandbox_process import SandboxProcess
from tests.test_security_fuzz import not_for_ever
from views import doors
from views.forms import readable

# What a form may be told instead of being taken.
REFUSALS = (400, 403, 404, 409, 413, 415, 422)
HOSTILE = (
    "", " ", "\0", "a\0b", "\ud800", "words \udfff", "x" * 100_000, "\u202ecod.exe\u2066", "\u200f", "e\u0301" * 300,
    "\r\nSet-Cookie: a=b", "9" * 40, "9" * 5_000, "2147483648", "-1", "1e309", "NaN", "0x19", "\u0663", "\u00b2",
    "true", "[]", "{}", "None", "\U0001f4b7", "' OR 1=1 --", "<script>alert(1)</script>", "{{ 7*7 }}", "%s%n", "%00",
    "../../etc/passwd", "2026-02-30", "0001-01-01", "9999-12-31", "24:00", "America/Scoresbysund", "https://[",
    "https://a.b:99999", "javascript:alert(1)", "//evil.example", "a@b@example.org", "ada@\u202eexample.org", "approve",
    "other",
)  # fmt: skip
# Taken forms that are answered by a page of their own; the others lead to another address.
WITH_A_PAGE = (
    "accounts.set_first_second_factor", "own_account.erase", "own_account.recovery_codes_file",
    "own_account.renew_recovery_codes", "own_account.set_second_factor", "public.erase_comment", "supporters.erase",
    "supporters.leave", "supporters.receipt_letter", "supporters.replace_link", "supporters.unsubscribe",
)  # fmt: skip
# All taken forms change a row, but for that of a file, which brings back the codes that the page before has shown.
CHANGE_NOTHING = ("own_account.recovery_codes_file",)
# A field that is looked at when another one says nothing else: (the other, what it is to say).
READ_ALONE = {"recovery_code": ("code", ""), "other_amount": ("amount", "other"), "end_date": ("days", "")}
# No words of people that we keep are longer.
LONGEST_OF_ALL = law.LONGEST_STORY
GIVES_BACK = (403, 409, 422)
WAYS = ("typed", "missing", "doubled", "as an array", "as a file", "with more")
headers = some.sampled_from([{}, {"HX-Request": "true"}, {"Sec-Fetch-Site": "same-origin"}])
# The first example is always the same, the least of all.
EXAMPLES = 2


def changed(filled: Filled, changes: dict[str, tuple[str, str]]) -> list[tuple[str, str | bytes]]:
    """The form as its page shows it, but for these fields: name -> (way, hostile words)."""
    pairs: list[tuple[str, str | bytes]] = []
    for name, value in as_shown(filled):
        way, words = changes.get(name, ("", ""))
        if way == "typed":
            pairs.append((name, words))
        elif way == "doubled":
            pairs += [(name, words), (name, value)]
        elif way == "as an array":
            pairs += [(f"{name}[]", words), (f"{name}[0]", words), (f"{name}-0", words)]
        elif way == "as a file":
            pairs.append((name, words.encode(errors="replace")))
        elif way == "with more":
            pairs += [(name, value), ("status", words), (words[:50], words), (f"{name}-99999999999", words)]
        elif way == "":
            pairs.append((name, value))
    return pairs


def says_why(answer: BeautifulSoup) -> str:
    """The words of a refusal: what is wrong with the form, or why nothing was done; of an element, all its words."""
    told = answer.select_one("[role=alert], .error") or (answer.select_one("main p") if answer.main else answer)
    return told.get_text(" ", strip=True) if told else ""


def what_is_off() -> list[str]:
    """What the doctor finds. The cards of the gallery are none of Stripe's, so it calls questions about them wrong."""
    return [finding for finding in contradictions() if "flask ask-again" not in finding]


def too_much_for_postgresql() -> set[str]:
    """The columns that hold a NUL, or more letters than they declare: SQLite takes them, and PostgreSQL breaks."""
    if db.engine.dialect.name == "postgresql":
        return set()
    return {
        f"{table}.{column.name}"
        for table in db.metadata.sorted_tables
        for row in db.session.execute(sa.select(table)).mappings()
        for column in table.columns
        if isinstance(column.type, sa.String) and row[column.name] is not None
        if "\0" in row[column.name] or len(row[column.name]) > (column.type.length or LONGEST_OF_ALL)
    }


@pytest.fixture
def site(app: Flask) -> Site:
    return Site(app)


class Attack:
    """Sends one form after the other, and has everything as it was before after each that was taken: also where it
    would have been the last of its kind, such as an account that is erased, a code that is used, and a log-out."""

    def __init__(self, forms: Forms, sandbox: SandboxProcess) -> None:
        self.forms, self.sandbox, self.beginning, self.before = forms, sandbox, back_up(), everything()
        self.told, self.silent, self.lost = Counter[int](), set[str](), set[str]()

    def on(self, form: Filled) -> str:
        """Returns why the form as its page shows it was not taken: "" if it was."""
        why = self.as_it_stands(form)
        for name in (*form.fields, *form.files):
            for hostile in (with_a_nul, too_long):
                pairs = hostile(form, name)
                page = self.send(form, pairs, {})
                self.lost |= {f"{form.endpoint} {one}" for one in (not_given_back(form, pairs, page) if page else ())}
        self.by_chance(form)
        assert what_is_off() == [], form.endpoint
        return why

    def as_it_stands(self, form: Filled) -> str:
        answer = self.forms.send(form, as_shown(form))
        changed_something = everything() != self.before
        self.anew(form)
        if answer.status_code == (200 if form.endpoint in WITH_A_PAGE else 303):
            return "" if changed_something or form.endpoint in CHANGE_NOTHING else f"{form.endpoint} changed nothing"
        return f"{form.endpoint} {answer.status_code} {says_why(BeautifulSoup(answer.get_data(), 'lxml'))}"

    def by_chance(self, form: Filled) -> None:
        names = some.sampled_from(sorted({*form.fields, *form.files, "sent"}))
        odd = some.tuples(some.sampled_from(WAYS), some.sampled_from(HOSTILE) | some.text(max_size=60))

        @settings(max_examples=EXAMPLES, deadline=None)
        @given(some.dictionaries(names, odd, min_size=1, max_size=3), headers)
        def sent(changes: dict[str, tuple[str, str]], header: dict[str, str]) -> None:
            self.send(form, changed(form, changes), header)

        sent()

    def send(self, form: Filled, pairs: list[tuple[str, str | bytes]], header: dict[str, str]) -> BeautifulSoup | None:
        """Returns the page that refuses it and has the form; None when it was taken, or makes no sense at all."""
        with not_for_ever():
            answer = self.forms.send(form, pairs, header)
        self.told[answer.status_code] += 1
        if answer.status_code < 400:
            self.anew(form)
            return None
        assert answer.status_code in REFUSALS, (form.endpoint, answer.status_code)
        page = BeautifulSoup(answer.get_data(), "lxml")
        if len(says_why(page)) < 15:
            self.silent.add(f"{form.endpoint} {answer.status_code}")
        return page if answer.status_code in GIVES_BACK else None

    def anew(self, form: Filled) -> None:
        """The books are right, and then as they were."""
        look_anew()
        assert what_is_off() == [], form.endpoint
        assert too_much_for_postgresql() == set(), form.endpoint
        restore(self.beginning)
        requests.post(f"{self.sandbox.url}/sandbox/reset", timeout=30).raise_for_status()


def with_a_nul(form: Filled, name: str) -> list[tuple[str, str | bytes]]:
    """As shown, but with a NUL in the middle of what would be taken without it."""
    return spoilt(form, name, lambda words: f"{words[:3]}\0{words[3:]}")


def too_long(form: Filled, name: str) -> list[tuple[str, str | bytes]]:
    """As shown, but with 20,000 characters in one of the fields."""
    return spoilt(form, name, lambda _: "x" * 20_000)


def spoilt(form: Filled, name: str, spoil: Callable[[str], str]) -> list[tuple[str, str | bytes]]:
    other, words = READ_ALONE.get(name, ("", ""))
    return [
        (one, spoil(value) if isinstance(value, str) else spoil("").encode()) if one == name
        else (one, words) if one == other else (one, value)
        for one, value in as_shown(form)
    ]  # fmt: skip


def not_given_back(form: Filled, pairs: list[tuple[str, str | bytes]], page: BeautifulSoup) -> list[str]:
    """The fields of people whose words stand in no field of the page any more, but for what cannot be shown."""
    held = {str(one.get("value", "")).strip() for one in page.select("input")}
    held |= {one.get_text().strip() for one in page.select("textarea")}
    return [
        name
        for name, words in pairs
        if name in form.typed
        and name not in doors.NOT_TYPED
        and isinstance(words, str)
        and readable(words).strip() not in held | {""}
    ]


@pytest.mark.slow
def test_each_form_is_taken_as_its_page_shows_it_and_whatever_is_sent_instead_breaks_neither_us_nor_the_books(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """Every form of the site, of whoever may send it: as its page shows it, when it is taken; then with a NUL and with
    20,000 characters in each of its fields, one by one, and with odd things in some of them. What is refused is told
    why, and given back. A new address is among them as soon as a page shows its form; until then this fails."""
    forms = Forms(asks_the_sandbox)
    assert forms.missing == [], "no page shows these forms: describe them in tests/filled.py"
    assert what_is_off() == []
    attack = Attack(forms, sandbox)
    not_taken = [attack.on(form) for form in sorted(forms.of.values(), key=lambda one: one.endpoint)]
    print(dict(attack.told), len(forms.of))
    # What is odd in a form that is taken without it comes to where it could do harm.
    assert [why for why in not_taken if why] == []
    assert attack.silent == set()
    assert attack.lost == set()
    assert len(forms.of) > 90 and {*WITH_A_PAGE, *CHANGE_NOTHING} <= forms.of.keys()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=some.binary(max_size=40), path=some.binary(max_size=20))
def test_no_address_breaks_us(site: Site, query: bytes, path: bytes) -> None:
    browser: FlaskClient = site.app.test_client()
    for start in ("/", "/cases/", "/pledges/", "/cases/the-case/", "/static/", "/owner/cases/"):
        answer = browser.get(
            "/",
            environ_overrides={
                "PATH_INFO": start + path.decode("latin-1"),
                "REQUEST_URI": "",
                "QUERY_STRING": query.decode("latin-1"),
            },
        )
        answer.get_data()
        answer.close()
        assert answer.status_code in (200, 301, 303, 308, 400, 404, 405), (start, path, query)
