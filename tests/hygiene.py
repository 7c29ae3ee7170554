"""What every page of the suite must be: a whole, valid page that can be read by ear."""

import html5lib
from bs4 import BeautifulSoup

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
    assert page.html and page.html.get("lang") == "en-GB", f"no language {where}"
    assert len(page.select("main")) == 1, f"not one main {where}"
    check_fragment(page, where)
    errors = page.select(".field.wrong")
    assert not errors or page.title.text.startswith("Error: "), f"the title does not say Error {where}"


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
    for form in page.select("form"):
        # A search changes nothing, and so does a step that only leads to the next, which says "Continue": each is a
        # GET. Whatever changes something is a POST.
        asks_only = form.get("role") == "search" or [one.text for one in form.select("button")] == ["Continue"]
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
