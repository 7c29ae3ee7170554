"""Whatever is typed into a form, and whatever a form is called, the answer is a page and never our own failure."""

from collections import Counter

import pytest
import requests
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from tests.backup import back_up, restore
from tests.books import contradictions
from tests.doorway import Site
from tests.filled import Filled, Forms, as_shown
from tests.made import look_anew
from tests.sandbox_process import SandboxProcess
from tests.test_security_fuzz import not_for_ever

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
WAYS = ("typed", "missing", "doubled", "as an array", "as a file", "with more")
headers = some.sampled_from([{}, {"HX-Request": "true"}, {"Sec-Fetch-Site": "same-origin"}])
EXAMPLES = 1


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


@pytest.fixture
def site(app: Flask) -> Site:
    return Site(app)


class Attack:
    """Sends one form after the other, and has everything as it was before after each that was taken."""

    def __init__(self, forms: Forms, sandbox: SandboxProcess) -> None:
        self.forms, self.sandbox, self.beginning = forms, sandbox, back_up()
        self.taken, self.told, self.silent = set[str](), Counter[int](), set[str]()

    def on(self, form: Filled) -> None:
        names = some.sampled_from(sorted({*form.fields, *form.files, "sent"}))
        odd = some.tuples(some.sampled_from(WAYS), some.sampled_from(HOSTILE) | some.text(max_size=60))

        @settings(max_examples=EXAMPLES, deadline=None)
        @example({}, {})
        @example(dict.fromkeys(form.words, ("typed", "a\0b")), {})
        @example(dict.fromkeys(form.words, ("typed", "x" * 20_000)), {})
        @given(some.dictionaries(names, odd, min_size=1, max_size=3), headers)
        def sent(changes: dict[str, tuple[str, str]], header: dict[str, str]) -> None:
            self.send(form, changes, header)

        sent()

    def send(self, form: Filled, changes: dict[str, tuple[str, str]], header: dict[str, str]) -> None:
        with not_for_ever():
            answer = self.forms.send(form, changed(form, changes), header)
        self.told[answer.status_code] += 1
        if answer.status_code < 400:
            self.taken.add(form.endpoint)
            look_anew()
            assert what_is_off() == [], form.endpoint
            restore(self.beginning)
            requests.post(f"{self.sandbox.url}/sandbox/reset", timeout=30).raise_for_status()
        else:
            assert answer.status_code in REFUSALS, (form.endpoint, answer.status_code)
            if len(says_why(BeautifulSoup(answer.get_data(), "lxml"))) < 15:
                self.silent.add(f"{form.endpoint} {answer.status_code}")


@pytest.mark.slow
@pytest.mark.only_on(
    "postgresql", why="It refuses what SQLite would take: a NUL, a number or a text that is too large."
)
def test_no_form_whatever_is_sent_with_it_breaks_us_or_the_books_and_each_refusal_is_in_words(
    asks_the_sandbox: Flask, sandbox: SandboxProcess
) -> None:
    """Every form of the site, of whoever may send it: first as its page shows it, then with odd things in some of its
    fields. A new address is among them as soon as a page shows its form; until then this fails."""
    forms = Forms(asks_the_sandbox)
    assert forms.missing == [], "no page shows these forms: describe them in tests/filled.py"
    assert what_is_off() == []
    attack = Attack(forms, sandbox)
    for form in sorted(forms.of.values(), key=lambda one: one.endpoint):
        attack.on(form)
    print(dict(attack.told), len(forms.of), sorted(forms.of.keys() - attack.taken))
    assert attack.silent == set()
    # Most were taken as they stood on their pages, so what was odd in the others came to where it could do harm.
    assert len(forms.of) > 90 and len(attack.taken) > 70


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
