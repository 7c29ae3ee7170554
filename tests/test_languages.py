"""The site in two languages: French is whole, its addresses are its own, and nothing that readers see was forgotten.

To find what was forgotten there is a language that wraps every sentence in brackets: what then stands outside of them
is no sentence of ours, or has no translation.
"""

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from babel.dates import get_month_names
from babel.support import NullTranslations
from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PreformattedString
from flask import Flask, template_rendered
from flask.testing import FlaskClient
from flask_babel import force_locale
from jinja2 import Template

import law
import money
import translations
from models import (
    Base,
    BudgetLine,
    Case,
    Comment,
    DocumentLink,
    Event,
    Pledge,
    PromiseChange,
    Refund,
    Report,
    Update,
    User,
    db,
)
from payments import ChargeFound
from tests import gallery
from tests.doorway import SAME_ORIGIN, logged_in, set_otherwise
from tests.gallery import Shown
from tests.made import a_case, a_pledge, a_user, case_at, confirm, keep, look_anew, now
from tests.reading import read, said
from views.words import age, time_left

# The folders of pages that can be said in another language.
SAID_IN_FULL = {"cases", "comments", "pledges", "errors", "accounts", "owners", "moderators", "staff"}
# What stands in a message for something else, and the elements in it.
PLACES = re.compile(r"%\(\w+\)s|%%|\{\w+\}|</?[a-z][^>]*>")
OPENS, CLOSES = "⟦", "⟧"
# Attributes in which words stand that are read out or shown.
WORDED = ("aria-label", "alt", "title", "placeholder", "content")
# Shown, but not words of a language: the names of the languages themselves, and signs.
NO_WORDS = {"English", "Français", "QR", "summary_large_image", "website"}
MONTHS = "|".join([*get_month_names(locale="fr").values(), *get_month_names(locale="en_GB").values()])
DAY = re.compile(rf"(\d+ )?({MONTHS})( \d{{4}})?")
# A recovery code is shown once, and kept as its hash.
CODE = re.compile(r"\w{4}(-\w{4}){3}")
ADDRESS = re.compile(r"https?://\S+")
AMOUNT = re.compile(r"[-+]?£?[\d\s.,:%·–-]*£?")


# --- The catalogue -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", translations.languages())
def test_nothing_is_said_that_has_no_words_in_the_language(language: str) -> None:
    """`make words` has been run, and whatever it found has been translated."""
    written, compiled = (translations.file(language, kind).read_bytes() for kind in ("po", "mo"))
    catalog = translations.renewed(language)
    assert list(translations.missing(catalog)) == []
    assert not any(message.fuzzy for message in catalog if message.id)
    assert translations.as_po(catalog) == written, "run: make words"
    assert translations.as_mo(catalog) == compiled, "run: make words"


@pytest.mark.parametrize("language", translations.languages())
def test_a_translation_has_the_same_places_and_the_same_elements_as_the_english(language: str) -> None:
    wrong = []
    for message in translations.translated(language):
        english, words = _forms(message.id), _forms(message.string)
        places = [sorted(PLACES.findall(form)) for form in english]
        wrong += [f"{english[0]}: {form}" for form in words if sorted(PLACES.findall(form)) not in places]
    assert wrong == []


def _forms(words: Any) -> list[str]:
    return list(words) if isinstance(words, (list, tuple)) else [words]


# --- Addresses ---------------------------------------------------------------------------------------------


def test_the_address_alone_says_in_which_language_a_page_is(client: FlaskClient) -> None:
    a_case(slug="two-languages", title="Two languages", target=600_000, pledged=[9_550])
    keep()
    english, french = client.get("/cases/two-languages").text, client.get("/fr/cases/two-languages").text
    wanted = {"Accept-Language": "fr"}
    assert client.get("/cases/two-languages", headers=wanted).text == english
    assert client.get("/fr/cases/two-languages", headers={"Accept-Language": "en"}).text == french
    assert "Pledge now" in english and "S’engager maintenant" in french
    assert "<strong>£95.50</strong> pledged of £6,000 target from 1 pledge" in english
    assert "<strong>95,50\N{NBSP}£</strong> promis sur un objectif de 6\N{NARROW NO-BREAK SPACE}000\N{NBSP}£" in french
    page = BeautifulSoup(french, "lxml")
    assert page.html and page.html["lang"] == "fr"
    # What its owner has typed is in English, and says so.
    assert page.h1 and page.h1["lang"] == "en-GB" and page.h1.text == "Two languages"
    for text in (english, french):
        head = {
            str(link["hreflang"]): str(link["href"]) for link in BeautifulSoup(text, "lxml").select("link[hreflang]")
        }
        assert head == {
            "en-GB": "http://127.0.0.1:8000/cases/two-languages",
            "fr": "http://127.0.0.1:8000/fr/cases/two-languages",
            "x-default": "http://127.0.0.1:8000/cases/two-languages",
        }


def test_a_page_in_french_leads_to_pages_in_french_and_to_itself_in_english(client: FlaskClient) -> None:
    a_case(slug="stays-french", title="Stays French")
    keep()
    page = BeautifulSoup(client.get("/fr/cases/stays-french").text, "lxml")
    there = [str(link["href"]) for link in page.select("a[href^='/']")]
    assert [address for address in there if not address.startswith("/fr/")] == [
        "/cases/stays-french/updates.atom", "/cases/stays-french",
    ]  # fmt: skip
    assert [str(form["action"]) for form in page.select("form")] == ["/fr/cases/stays-french/comments"]
    # What is no page has one address.
    icon, feed = page.select_one("link[rel=icon]"), page.select_one("link[type='application/atom+xml']")
    assert icon and icon["href"] == "/static/icon.svg"
    assert feed and feed["href"] == "/cases/stays-french/updates.atom"
    back = BeautifulSoup(client.get("/?show=live&nonsense=1").text, "lxml").select_one("footer a[hreflang=fr]")
    assert back and back["href"] == "/fr/?show=live"


@pytest.mark.parametrize(
    ("address", "status", "led_to"),
    [
        ("/fr", 301, "/fr/"),
        ("/fr?show=live", 301, "/fr/?show=live"),
        ("/fr/cases.atom", 301, "/cases.atom"),
        ("/fr/sitemap.xml", 301, "/sitemap.xml"),
        ("/fr/static/icon.svg?v=1", 301, "/static/icon.svg?v=1"),
        ("/fr/", 200, ""),
        ("/fr/cases", 301, "/fr/"),
        ("/fr/owner", 303, "/fr/login?next=/fr/owner"),
        ("/fr/nowhere", 404, ""),
        ("/fr/fr/", 404, ""),
        ("/french", 404, ""),
        ("/de/", 404, ""),
    ],
)
def test_where_addresses_in_a_language_lead(client: FlaskClient, address: str, status: int, led_to: str) -> None:
    answer = client.get(address)
    assert (answer.status_code, answer.headers.get("Location", "")) == (status, led_to)


def test_what_went_wrong_is_said_in_the_language_of_the_address(client: FlaskClient) -> None:
    assert "<h1>Cette page n’existe pas</h1>" in client.get("/fr/nowhere").text
    a_case(slug="wrong-in-french", title="Wrong in French")
    keep()
    answer = client.post("/fr/cases/wrong-in-french/pledges", data={"amount": "other", "other_amount": "1 000 000 £"})
    assert answer.status_code == 422
    assert (
        "Un engagement est d’au moins 5\N{NBSP}£ et d’au plus 10\N{NARROW NO-BREAK SPACE}000\N{NBSP}£." in answer.text
    )
    assert "<title>Erreur\N{NBSP}: Engagement pour Wrong in French" in answer.text


# --- Money, dates and what is kept -------------------------------------------------------------------------


def test_money_and_dates_are_written_and_understood_as_the_language_has_them(app: Flask) -> None:
    deadline, as_of = dt.datetime(2022, 10, 9, 1, tzinfo=dt.UTC), dt.datetime(2022, 10, 8, 1, 30, tzinfo=dt.UTC)
    its_round = a_case(slug="half-a-day", ends_in=dt.timedelta(days=1)).round
    its_round.deadline = deadline
    with force_locale("fr"):
        assert law.instant_words(deadline, "Europe/London") == "dimanche 9 octobre 2022 à 02:00 BST"
        assert [money.pounds(pence) for pence in (2_500, 2_550, 100_000_000)] == [
            "25\N{NBSP}£", "25,50\N{NBSP}£", "1\N{NARROW NO-BREAK SPACE}000\N{NARROW NO-BREAK SPACE}000\N{NBSP}£",
        ]  # fmt: skip
        typed = ["25", "25,50", "25.50", "1 000", "1\N{NARROW NO-BREAK SPACE}000,5 £", "£25"]
        assert [money.parse_pounds(text) for text in typed] == [2_500, 2_550, 2_550, 100_000, 100_050, 2_500]
        assert time_left(its_round, as_of) == "23 heures et 30 minutes restantes"
        assert age(deadline, deadline + dt.timedelta(days=1)) == "1 jour"
        # "5,250" is five and a bit to one reader, and five thousand to another.
        for text in ("vingt", "5,250", "£5,250", "1,000.50"):
            with pytest.raises(money.NotMoney, match=r"Indiquez un montant en livres, comme 25 ou 25,50\."):
                money.parse_pounds(text)
    with pytest.raises(money.NotMoney):
        money.parse_pounds("25,50")


def test_a_name_that_was_erased_and_what_was_decided_are_said_in_the_language_of_the_page(app: Flask) -> None:
    """What stands in the place of a name, who did something without one, and why: none of them is anybody's words."""
    case, staff, gone = a_case(slug="erased-names", target=2_500), a_user("staff"), a_user("moderator", name="Mo First")
    held, case = db.session.merge(gone), db.session.merge(case)
    comment, owner = case.take_comment("Ben", "ben@erased.example", "First words", now()), case.owner
    comment.approve(held, now())
    comment.report("untrue", "", "n1", now())
    comment.edit("Second words", now())
    comment.reject("defamation", held, now(), note="Who says so?")
    held.erase("operator", now())
    case.cancel("It is over.", "operator", now())
    owner.erase("operator", now())
    keep()
    log = BeautifulSoup(logged_in(app, staff).get("/fr/staff/moderation").text, "lxml")
    assert [[_said_in(cell) for cell in row.select("td")[1:3]] for row in log.select("tbody tr")] == [
        ["Un ancien modérateur",
         "rejeté (de en attente à rejeté) : Risque de diffamation. À l’auteur : Who says so?"],
        ["l’auteur", "en attente (de approuvé à en attente)"],
        ["lecteur", "signalé : Il dit quelque chose de faux sur quelqu’un"],
        ["Un ancien modérateur", "approuvé (de en attente à approuvé)"],
    ]  # fmt: skip
    for address, by in (("/fr", "par Un ancien responsable d’affaire"), ("", "by A former case owner")):
        page = BeautifulSoup(app.test_client().get(f"{address}/cases/erased-names").text, "lxml")
        assert _said_in(page.select_one(".by")) == by
    look_anew()
    assert sorted(db.session.scalars(sa.select(User.name).where(User.erased_at.is_not(None)))) == [
        "A former case owner", "A former moderator",
    ]  # fmt: skip


def _said_in(element: Tag | None) -> str:
    return " ".join(element.text.split()) if element else ""


# What people type carries this, with the language in which they type: "zzen3", "zzfr1".
TYPED = re.compile(r"zz(en|fr)\d+")


def test_what_people_typed_says_its_language_wherever_a_page_is_in_another(client: FlaskClient) -> None:
    """But in the title of a page and in descriptions for machines, which can't."""
    link, comment_links = _a_case_with_all_that_can_be_typed()
    seen: dict[str, set[str]] = {"en": set(), "fr": set()}
    wrong: list[str] = []
    for address in (
        "/cases/all-typed", "/cases/all-typed/comments", "/cases/all-typed/pledge-total", "/cases/all-typed/embed",
        "/cases/all-typed/poster", "/cases/typed-and-open/pledge", f"/owners/{case_at('all-typed').owner_id}", "/",
        f"/pledges/{link}", f"/pledges/{link}/updates", f"/pledges/{link}/receipt", "/cases/typed-and-cancelled",
        f"/comments/{case_at('all-typed').public_comments()[0].id}/report",
        *(f"/comments/{one}" for one in comment_links),
    ):  # fmt: skip
        for language in ("en", "fr"):
            answer = client.get(address if language == "en" else f"/fr{address}")
            on_page = [(spoken, found) for spoken, words in _all_words(answer.text) for found in TYPED.finditer(words)]
            assert answer.status_code == 200 and on_page, address
            wrong += [f"{address} in {language}: {found[0]} in {spoken}" for spoken, found in on_page
                      if spoken != {"en": "en-GB", "fr": "fr"}[found[1]]]  # fmt: skip
            seen[language] |= {found[0] for _, found in on_page}
    assert wrong == []
    every = {f"zzen{number}" for number in range(1, 19)} | {"zzfr1", "zzfr2"}
    assert seen == {"en": every, "fr": every}


def _a_case_with_all_that_can_be_typed() -> tuple[str, list[str]]:
    """The links of a pledge and of two comments of it: one comment and the message are in French."""
    owner = a_user("owner")
    a_case(slug="all-typed", title="A title zzen1", target=2_500, pledged=[2_500], owner=owner, story="A story zzen2")
    a_case(slug="typed-and-open", title="A title zzen1")
    cancelled, case = a_case(slug="typed-and-cancelled"), case_at("all-typed")
    case.owner.bio, case.summary, case.who_we_are = "About zzen3", "In short zzen4", "We zzen5"
    case.court, case.stage, case.risks, case.lawyer = "Court zzen6", "Stage zzen7", "Risks zzen8", "Lawyer zzen9"
    case.firm = "Firm zzen10"
    case.budget = [BudgetLine(position=0, words="Counsel zzen11", pence=2_500)]
    case.links = [DocumentLink(position=0, title="A letter zzen12", url="https://example.org/letter.pdf")]
    case.publish_update(case.owner, "News zzen13", "What is new zzen14", now())
    keep()
    moderator = a_user("moderator")
    case, comments = case_at("all-typed"), []
    for words, language in (("A comment zzen15", "en-GB"), ("Un commentaire zzfr1", "fr")):
        taken = case.take_comment("Ada", "typed@comments.example", words, now(), language=language)
        taken.approve(db.session.merge(moderator), now())
        comments.append(taken.link())
    (pledge,) = case.round.pledges("confirmed")
    pledge.message, pledge.message_for, pledge.language = "Un message zzfr2", "owner", "fr"
    ended = case.round.deadline + dt.timedelta(seconds=1)
    case.round.close(ended)
    case.round.settle(ended)
    pledge.claim(ended, dt.timedelta(minutes=1))
    pledge.apply_charge(ChargeFound("succeeded", "pi_typed", "ch_typed", 2_500), ended, asked=True)
    case.publish_report(case.owner, "It ended zzen16", [("The claim zzen17", 2_500)], ended)
    db.session.merge(cancelled).cancel("Because zzen18", "test", now())
    keep()
    return pledge.link(), comments


def _all_words(text: str) -> Iterator[tuple[str, str]]:
    """What is said in the body of a page, and in which language: its texts, but for code to be copied, what stands in
    a field, and descriptions of pictures."""
    page = BeautifulSoup(text, "lxml")
    assert page.body
    for gone in page.select("pre"):
        gone.decompose()
    for node in page.body.descendants:
        if isinstance(node, PreformattedString):
            continue
        element = node if isinstance(node, Tag) else node.parent
        assert isinstance(element, Tag)
        words = str(node.get("alt", "") or _in_field(node)) if isinstance(node, Tag) else str(node)
        yield next(str(one["lang"]) for one in (element, *element.parents) if one.has_attr("lang")), words


def _in_field(element: Tag) -> str:
    """What stands in a field of one line; that of several lines has it as its text."""
    return str(element.get("value", "")) if element.name == "input" and element.get("type") == "text" else ""


def test_the_agreement_is_kept_as_it_was_read_and_the_books_stay_english(app: Flask, client: FlaskClient) -> None:
    a_case(slug="agreed-in-french", title="Agreed in French")
    keep()
    page = BeautifulSoup(client.get("/fr/cases/agreed-in-french/pledge").text, "lxml")
    form = {str(field["name"]): str(field["value"]) for field in page.select("input[type=hidden]")}
    typed = {"amount": "25", "name": "Ada", "email": "agreed-in-french@example.org", "agreed": "y"}
    client.post("/fr/cases/agreed-in-french/pledges", data=form | typed)
    pledge = db.session.scalars(sa.select(Pledge).filter_by(email="agreed-in-french@example.org")).one()
    (agreement,) = pledge.agreements
    assert agreement.words.startswith("J’autorise Standing Test à prélever 25\N{NBSP}£ sur ma carte, une seule fois")
    link = confirm(a_pledge(pledge.round, 2_500)).link()
    keep()
    answer = client.post(f"/fr/pledges/{link}/amount", data={"amount": "20", "agreed": "y", "promise": form["promise"]})
    assert (answer.status_code, answer.headers["Location"]) == (303, f"/fr/pledges/{link}?changed=amount")
    notes = db.session.scalars(sa.select(Event.note).where(Event.what == "changed")).all()
    assert notes == ["from £25 to £20"]
    shown = client.get(f"/fr/pledges/{link}").text
    assert "Vous avez modifié le montant de 25\N{NBSP}£ à 20\N{NBSP}£." in shown
    assert "You changed the amount from £25 to £20." in client.get(f"/pledges/{link}").text


# --- What was forgotten ------------------------------------------------------------------------------------


class Bracketed(NullTranslations):
    """A language in which every sentence is the English one in brackets."""

    def ugettext(self, message: str) -> str:
        return OPENS + message + CLOSES

    def upgettext(self, context: str, message: str) -> str:
        return self.ugettext(message)

    def ungettext(self, singular: str, plural: str, count: int) -> str:
        return OPENS + (singular if count == 1 else plural) + CLOSES


@pytest.mark.broken_books("the gallery shows staff what it looks like when they do not agree", sometimes=True)
def test_every_sentence_of_every_page_can_be_said_in_another_language(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung = gallery.hang()
    with set_otherwise(app, sign_up="open") as site:
        cache = site.extensions["babel"].instance.domain_instance.cache
        monkeypatch.setitem(cache, ("fr", "messages"), Bracketed())
        seen, forgotten = _forgotten(site, hung)
    assert seen > 60
    assert not forgotten, "\n".join(dict.fromkeys(forgotten))


def _forgotten(site: Flask, hung: gallery.Gallery) -> tuple[int, list[str]]:
    """How many pages were looked at, and what stands on them in one language only."""
    forgotten: list[str] = []
    seen, of_people = 0, _all_texts(hung)
    for shown, text, drawn in _walk(site, hung):
        of_people = _all_texts(hung) if shown.press else of_people
        if drawn.partition("/")[0] in SAID_IN_FULL:
            seen += 1
            forgotten += [f"{shown.name} ({drawn}): {words}" for words in _outside(text, of_people)]
    return seen, forgotten


def _walk(site: Flask, hung: gallery.Gallery) -> Iterator[tuple[Shown, str, str]]:
    """Every page of the gallery at its French address, with the template that it was drawn from."""
    doors: dict[str, FlaskClient] = {"": site.test_client()}
    for shown in [one for room in hung.rooms.values() for one in room]:
        if shown.who not in doors:
            person = db.session.scalars(sa.select(User).filter_by(email=hung.people[shown.who])).one()
            doors[shown.who] = logged_in(site, person)
        yield shown, *_look_at(site, doors[shown.who], shown)


def test_what_stands_outside_of_the_brackets_is_found() -> None:
    """What the test above relies on."""
    page = '<p>⟦One ⟦two⟧.⟧ three <b aria-label="four">⟦five</b> six⟧</p> <p lang="en-GB">seven</p> £8 <i>Ada</i>'
    assert list(_outside(page, "… Ada …")) == ["four", "three"]


def _look_at(app: Flask, client: FlaskClient, shown: Shown) -> tuple[str, str]:
    """The page in its state, and the template that it was drawn from."""
    drawn: list[str] = []

    def note(_: Flask, template: Template, **__: Any) -> None:
        drawn.append(str(template.name))

    with template_rendered.connected_to(note, app):
        answer = client.get(f"/fr{shown.address}", follow_redirects=True)
        assert answer.status_code == shown.status, shown.name
        if shown.press:
            where, brought = _filled(answer.text, shown)
            answer = client.post(where, data=brought, headers=SAME_ORIGIN, follow_redirects=True)
    return answer.text, drawn[-1] if drawn else ""


def _filled(text: str, shown: Shown) -> tuple[str, dict[str, str]]:
    """Where the form with this button goes, and what it brings."""
    page = BeautifulSoup(text, "lxml")
    button = next(one for one in page.select("form button") if _bare(one.text) == shown.press)
    form = button.find_parent("form")
    assert isinstance(form, Tag)
    typed = {str(label["for"]): shown.typed[_bare(label.text)] for label in form.select("label[for]")
             if _bare(label.text) in shown.typed}  # fmt: skip
    brought = {str(button["name"]): str(button["value"])} if button.get("name") else {}
    for field in form.select("input[name], textarea[name], select[name]"):
        if field.get("type") in ("radio", "checkbox") and not field.has_attr("checked"):
            continue
        chosen = field.select_one("option[selected]") or field.select_one("option")
        value = field.text if field.name == "textarea" else (chosen or field).get("value", "")
        brought[str(field["name"])] = typed.get(str(field.get("id")), str(value))
    return str(form["action"]), brought


def _bare(words: str) -> str:
    return words.replace(OPENS, "").replace(CLOSES, "").strip()


def _outside(text: str, of_people: str) -> Iterator[str]:
    """What stands on a page outside of the brackets, and is neither a number nor what people have typed."""
    page = BeautifulSoup(text, "lxml")
    # Initials are made of a name, and a story is its owner's, or a file of its own in each language.
    for gone in page.select(
        ".portrait, .story, script, style, pre, [lang='en-GB'], meta[name^=htmx], "
        "meta[name=viewport], meta[name=robots]"
    ):
        gone.decompose()
    for element in page.find_all(True):
        found = (str(element.get(name, "")) for name in WORDED)
        yield from (words for one in found if (words := _ours(_cut(one, 0)[0], of_people)))
    depth = 0
    for node in page.descendants:
        if isinstance(node, NavigableString) and not isinstance(node, PreformattedString):
            outside, depth = _cut(str(node), depth)
            if words := _ours(outside, of_people):
                yield words
    assert depth == 0


def _cut(text: str, depth: int) -> tuple[str, int]:
    """The part of a text that stands outside of the brackets, when it begins within so many of them."""
    kept = []
    for letter in text:
        depth += (letter == OPENS) - (letter == CLOSES)
        if depth == 0:
            kept.append(" " if letter == CLOSES else letter)
    return "".join(kept), depth


def _ours(outside: str, of_people: str) -> str:
    """The words without what people have typed, or nothing."""
    pieces = (" ".join(piece.split()).strip(" .,:;()|/") for piece in re.split("[·–,;:]", ADDRESS.sub("", outside)))
    return " – ".join(piece for piece in pieces if not _is_no_sentence(piece, of_people))


def _is_no_sentence(words: str, of_people: str) -> bool:
    signs = (AMOUNT, DAY, CODE)
    is_sign = words in NO_WORDS or any(sign.fullmatch(words) for sign in signs)
    return is_sign or words in of_people


def _all_texts(hung: gallery.Gallery) -> str:
    """Every text that is in the database or typed in the gallery, and what the operator has set."""
    found = ["Standing", "Standing Test", "nobody@example.org"]
    found += [words for room in hung.rooms.values() for shown in room for words in shown.typed.values()]
    for table in Base.metadata.sorted_tables:
        columns = [column for column in table.columns if isinstance(column.type, (sa.String, sa.JSON))]
        if columns:
            found += [str(value) for row in db.session.execute(sa.select(*columns)) for value in row if value]
    return "\n".join(" ".join(text.split()) for text in found)


# --- What people typed, on every page ----------------------------------------------------------------------

# Where what people type is kept; it is read on one of the desks at least.
TYPED_INTO = (
    Case.title, Case.summary, Case.story, Case.lawyer, Case.court, Case.stage, Case.picture_alt, Case.review_reason,
    Case.notice, BudgetLine.words, Update.title, Update.body, Update.picture_alt, Comment.body, Comment.public_body,
    Comment.answer, Report.words, Pledge.message, Refund.reason, PromiseChange.reason, Event.note,
)  # fmt: skip
# What sets Markdown, which is not shown as it was typed.
SIGNS_OF_MARKDOWN = re.compile(r"[\n*#>|`\[\]]|\(https?:.*?\)|^[-\d][.]? ", re.MULTILINE)


def test_the_title_of_a_case_for_which_an_account_cannot_be_erased_is_marked_as_english(app: Flask) -> None:
    owner = a_user("owner")
    a_case(title="A case about data", owner=owner)
    page = read(logged_in(app, db.session.merge(owner)), "/fr/account/erasure")
    (title,) = page.select(".warn span[lang]")
    assert (title["lang"], said(title)) == ("en-GB", "A case about data")


@pytest.mark.broken_books("the gallery shows staff what it looks like when they do not agree", sometimes=True)
def test_what_people_typed_is_in_no_sentence_of_ours_on_any_page_of_the_desks(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everybody in the gallery types English: none of it stands under the language of a page that is French."""
    hung = gallery.hang()
    with set_otherwise(app, sign_up="open") as site:
        cache = site.extensions["babel"].instance.domain_instance.cache
        monkeypatch.setitem(cache, ("fr", "messages"), Bracketed())
        seen, wrong = _under_french(site, hung)
    assert wrong == {}
    assert {str(column) for column in TYPED_INTO} - seen == set()


def _under_french(site: Flask, hung: gallery.Gallery) -> tuple[set[str], dict[str, str]]:
    """The columns whose words were seen, and what of them was under French: the page where -> what."""
    seen: set[str] = set()
    wrong: dict[str, str] = {}
    typed = _all_typed(hung)
    for shown, text, drawn in _walk(site, hung):
        typed = _all_typed(hung) if shown.press else typed
        if drawn.partition("/")[0] not in SAID_IN_FULL:
            continue
        for spoken, words in _all_words(text):
            said = " ".join(words.split())
            found = {column for column, piece in typed if piece in said}
            seen |= found
            if spoken == "fr":
                wrong |= {f"{drawn}, {shown.name}, {column}": said for column in found}
    return seen, wrong


def _all_typed(hung: gallery.Gallery) -> set[tuple[str, str]]:
    """What people have typed in English: (the column that has it, piece). What a sentence of ours says as
    well is left out, and so are single words, which may be anybody's."""
    ours = "\n".join(form for message in translations.translated("fr") for form in _forms(message.id))
    texts = [("a form", words) for room in hung.rooms.values() for shown in room for words in shown.typed.values()]
    texts += [(str(column), words) for column in TYPED_INTO for words in db.session.scalars(sa.select(column)) if words]
    # Comments that are sent on the way, on pages that are French, are taken for French.
    in_french = "\n".join(db.session.scalars(sa.select(Comment.body).where(Comment.language == "fr")))
    pieces = [(column, " ".join(piece.split())) for column, text in texts for piece in SIGNS_OF_MARKDOWN.split(text)]
    return {(column, piece) for column, piece in pieces
            if " " in piece and piece not in ours and piece not in in_french}  # fmt: skip
