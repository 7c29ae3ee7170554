"""What every page of the suite must be: a whole, valid page that can be read by ear."""

import re

import html5lib
from bs4 import BeautifulSoup

# How the title of a page begins on which something is wrong: in English, in French, and as tests mark it.
ERRORS = ("Error: ", "Erreur\N{NBSP}: ", "⟦Error:⟧ ", "⟦Error: ")
# The buttons of a step that only leads to the next.
ASKING = (["Continue"], ["Continuer"], ["⟦Continue⟧"])
# Pages that were found clean, letter by letter: walks over all addresses get the same error page hundreds of times.
_clean: set[int] = set()


def check_page(html: str, address: str = "") -> None:
    """Assert that a page is clean: valid structure, one h1, unique ids, labelled fields, whole forms."""
    if hash(html) not in _clean:
        _judge(html, address)
        _clean.add(hash(html))


def _judge(html: str, address: str) -> None:
    html5lib.HTMLParser(strict=True).parse(html)
    page = BeautifulSoup(html, "lxml")
    where = f"on {address}"
    assert page.title and page.title.text.strip(), f"no title {where}"
    assert len(page.select("h1")) == 1, f"{len(page.select('h1'))} h1 {where}"
    language = "fr" if re.match("/fr(/|$)", address) else "en-GB"
    assert page.html and page.html.get("lang") == language, f"not its language {where}"
    assert len(page.select("main")) == 1, f"not one main {where}"
    check_fragment(page, where)
    assert not page.footer or page.select('footer a:first-of-type[href^="mailto:"]'), f"help is elsewhere {where}"
    errors = page.select(".field.wrong")
    assert not errors or page.title.text.startswith(ERRORS), f"the title does not say Error {where}"


def check_fragment(page: BeautifulSoup, where: str = "") -> None:
    """The part of the rules that holds for a fragment too."""
    ids = [element["id"] for element in page.select("[id]")]
    assert len(ids) == len(set(ids)), f"the same id twice {where}: {sorted(i for i in ids if ids.count(i) > 1)}"
    for control in page.select("input, select, textarea"):
        if control.get("type") in ("hidden", "submit"):
            continue
        labelled = page.select_one(f'label[for="{control.get("id")}"]')
        assert labelled and labelled.text.strip(), f"no label for {control.get('name')} {where}"
    for described in page.select("[aria-describedby], [aria-labelledby]"):
        names = f"{described.get('aria-describedby', '')} {described.get('aria-labelledby', '')}".split()
        for name in names:
            assert name in ids, f"{name} describes nothing {where}"
    _check_errors(page, where)
    for picture in page.select("img"):
        told = {"alt", "width", "height"} - set(picture.attrs)
        assert not told, f"a picture without {told} {where}"
    for form in page.select("form"):
        # A search changes nothing, and so does a step that only leads to the next, which says "Continue": each is a
        # GET. Whatever changes something is a POST.
        asks_only = form.get("role") == "search" or [one.text for one in form.select("button")] in ASKING
        method = "get" if asks_only else "post"
        assert form.get("action") and form.get("method") == method, f"a form without action or method {where}"
        assert form.select("button"), f"a form without a button {where}"
        # Lynx would ask for the address instead of sending the form.
        assert form.select("[name]"), f"a form without a field {where}"
    for element in page.find_all(True):
        bare = [name for name in element.attrs if name.startswith(("hx-", "on")) or name == "style"]
        assert not bare, f"{element.name} has {bare} {where}"
    _needs_no_script(page, where)
    for link in page.select("a"):
        assert link.get("href"), f"a link to nowhere {where}"
        assert link.text.strip() or link.get("aria-label"), f"a link without words {where}"


def _needs_no_script(page: BeautifulSoup, where: str) -> None:
    """Nothing waits for a script alone: a button sends a form, and what htmx takes over works as well without it."""
    for button in page.select("button"):
        owner = button.find_parent("form") or page.select_one(f'form[id="{button.get("form")}"]')
        assert owner, f"a button that sends nothing {where}"
    for control in page.select("[data-hx-get], [data-hx-post]"):
        works = control.get("action") == control.get("data-hx-post") if control.name == "form" else control.get("href")
        refreshes = str(control.get("data-hx-trigger", "")).startswith("every ") and not control.get("data-hx-post")
        assert works or refreshes, f"{control.name} works with htmx alone {where}"
    for part in page.select("[role=button], [role=link], [contenteditable], [tabindex]"):
        plain = part.name in ("a", "button", "input", "textarea", "select", "summary")
        assert plain or part.get("tabindex") == "-1", f"{part.name} waits for a script {where}"


def _check_errors(page: BeautifulSoup, where: str) -> None:
    """Our own words say what is wrong, never the browser's; the summary leads to each field, where the same stands."""
    refused = page.select("[required], [pattern], [minlength], form:not([novalidate]) :is([type=email], [type=number])")
    assert not refused, f"the browser judges {refused[0].get('name')} before we do {where}"
    for link in page.select('.errors li a[href^="#"]'):
        field = page.select_one(f'[id="{str(link["href"])[1:]}"]')
        assert field, f"the summary leads to {link['href']}, which is not there {where}"
        if field.name == "button":
            continue
        beside = page.select_one(f'[id="{field["id"]}-error"]')
        # "Error: " stands before it for those who listen, in the language of the page.
        unseen = beside.select_one(".unseen") if beside else None
        words = beside.text.removeprefix(unseen.text) if beside and unseen else "?"
        assert words in link.text, f"“{link.text}” does not stand at its field {where}"
    for password in page.select("[type=password]"):
        kind = password.get("autocomplete")
        assert kind in ("current-password", "new-password"), f"a password manager is not told what for {where}"
