"""The twins of letters: the same words as the text, nothing of what somebody typed as markup, and fit for small screens
and old programs."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from flask import Flask, render_template

import letters
import twin
from models import db
from tests import made
from tests.test_letters import WORDS, owed
from twin import Line

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SITE = "https://standing.example.org"
LETTER = f"""Your pledge of £25 for

    A case against a very long title, which somebody has typed without a pause: {"overlong" * 12}

counts. <b>Nothing</b> has been taken.

Your private page:
{SITE}/pledges/{"x" * 90}

- Whose data?, 3 hours ago
  {SITE}/comments/1
- A line of a list

Not ours:
https://elsewhere.example.org/{"y" * 90}
"""

# What mail programs of twenty years ago know, and what only makes a letter better where it is known.
KNOWN_ATTRIBUTES = {
    "lang", "charset", "name", "content", "style", "bgcolor", "role", "width", "border", "cellspacing", "cellpadding",
    "align", "href",
}  # fmt: skip
KNOWN_STYLES = {
    "margin", "padding", "color", "background-color", "font-family", "font-size", "font-weight", "line-height",
    "border-bottom", "border-left", "text-decoration",
}  # fmt: skip
SINCE_THEN = {"max-width", "overflow-wrap", "word-break"}


def html_of(text: str, site_url: str = SITE) -> str:
    return render_template(
        "letter.html", language="en-GB", subject="Your £25 pledge counts", site_name="Standing",
        blocks=twin.blocks(text, site_url),
    )  # fmt: skip


def in_words(text: str) -> str:
    return " ".join(text.split())


def test_a_text_becomes_paragraphs_quotes_and_lists_and_only_our_addresses_links() -> None:
    found = [(block.kind, block.lines) for block in twin.blocks(LETTER, SITE)]
    assert [kind for kind, _ in found] == ["text", "quote", "text", "text", "list", "text"]
    assert found[3][1] == [Line("Your private page", f"{SITE}/pledges/{'x' * 90}")]
    assert found[4][1] == [Line("Whose data?, 3 hours ago", f"{SITE}/comments/1"), Line("A line of a list")]
    assert found[5][1] == [Line("Not ours:"), Line(f"https://elsewhere.example.org/{'y' * 90}")]
    # A site whose name only begins like ours is another.
    assert twin.blocks(f"Here:\n{SITE}.evil.example/x", SITE)[0].lines[1].link == ""


@pytest.mark.parametrize("kind", WORDS)
def test_each_letter_has_a_twin_with_the_same_words_and_no_markup_of_anybodys(app: Flask, kind: str) -> None:
    message = letters.write(owed(kind))
    assert message.get_content_type() == "multipart/alternative"
    text, html = (part.get_content() for part in message.iter_parts())
    page = BeautifulSoup(html, "html5lib")
    link_words = {str(link["href"]): in_words(link.get_text()) for link in page.select("a")}
    # The text names each address below its words; the twin has it behind them.
    expected = text
    for address, words in link_words.items():
        if words != address:
            expected = re.sub(rf":?\n\s*{re.escape(address)}(?=\n|$)", "", expected, count=1)
    expected = re.sub(r"^- ", "", expected, flags=re.MULTILINE)
    body = page.select("td")[-1 if len(page.select("td")) == 3 else 2]
    assert in_words(body.get_text(" ")) == in_words(f"{message['Subject']} {expected}")
    assert all(address.startswith("http://127.0.0.1:8000/") for address in link_words)
    assert {tag.name for tag in page.find_all()} <= {
        "html", "head", "meta", "title", "body", "table", "tbody", "tr", "td", "h1", "p", "br", "ul", "li", "a",
    }  # fmt: skip
    for tag in page.find_all():
        assert set(tag.attrs) <= KNOWN_ATTRIBUTES, tag.name
        style = str(tag.get("style", ""))
        assert {line.partition(":")[0] for line in style.split(";") if line} <= KNOWN_STYLES | SINCE_THEN, style
        assert not re.search(r"\(|[\d.](?!\d|px|%|;|$| )", re.sub("#[0-9a-f]{6}", "", style)), style


def test_what_somebody_typed_is_never_markup(app: Flask) -> None:
    html = html_of(f'<script>alert(1)</script>\n\n    <a href="{SITE}/x">x</a>\n\n- <img src=x>\n\n{SITE}/"><b>')
    page = BeautifulSoup(html, "html5lib")
    assert not page.select("script, img, b")
    assert [link["href"] for link in page.select("a")] == [f'{SITE}/"><b>']


@pytest.mark.browser
@pytest.mark.slow
def test_a_twin_fits_a_small_telephone_and_can_be_read_without_a_stylesheet(app: Flask, chromium: "Browser") -> None:
    html = html_of(LETTER)
    # Old programs drop styles of the head and classes, and fetch nothing.
    assert not re.findall(r"<style|<link|class=|src=|url\(", html)
    page = chromium.new_page(viewport={"width": 320, "height": 640})
    try:
        page.set_content(html)
        for width in (240, 320, 600, 1280):
            page.set_viewport_size({"width": width, "height": 640})
            assert page.evaluate("document.documentElement.scrollWidth") == width
        narrow = page.evaluate("document.querySelector('table table').getBoundingClientRect().width")
        assert narrow == 600
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]})
        assert found.response["violations"] == []
        # Each colour of a letter says its ground as well: a program that turns one of them dark must find both.
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 246)"
    finally:
        page.close()


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.only_on("sqlite", why="Letters are the same on both.")
def test_every_letter_reads_whole_and_fits_in_old_programs(
    app: Flask, chromium: "Browser", w3m: str, lynx: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All kinds stand below each other in one page, without what was invented since."""
    twins = [BeautifulSoup(html, "html5lib") for html in _one_of_each_kind(monkeypatch)]
    for tag in (tag for one in twins for tag in one.select("[style]")):
        lines = [line for line in str(tag["style"]).split(";") if line.partition(":")[0] not in SINCE_THEN]
        tag["style"] = ";".join(lines)
    body, *others = [tag for one in twins for tag in one.select("body")]
    for other in others:
        body.extend(list(other.children))
    file = tmp_path / "letters.html"
    file.write_text(str(twins[0]), encoding="utf-8")

    said = [line for tag in body.select("h1, p, li, td:not(:has(table, h1))") if (line := _letters_of(tag.get_text()))]
    assert len(said) > 5 * len(WORDS)
    for program in ([w3m, "-cols", "80", "-dump"], [lynx, "-dump", "-nolist", "-nonumbers", "-width=80"]):
        shown = subprocess.run([*program, str(file)], capture_output=True, check=True, timeout=30).stdout.decode()
        place, shown = 0, _letters_of(shown)
        for line in said:
            place = shown.find(line, place)
            assert place >= 0, f"{program[0]} does not show in its place: {line}"

    page = chromium.new_page()
    try:
        page.goto(file.as_uri())
        for width in (320, 600):
            page.set_viewport_size({"width": width, "height": 640})
            assert page.evaluate(TOO_WIDE) == []
        found = Axe().run(page, options={"runOnly": {"type": "rule", "values": ["color-contrast", "target-size"]}})
        assert found.response["violations"] == []
    finally:
        page.close()


# What reaches over the right side of the window.
TOO_WIDE = """() => [...document.querySelectorAll("td, h1, p, li, a")]
    .filter(one => one.getBoundingClientRect().right > innerWidth || one.scrollWidth > one.clientWidth + 1)
    .map(one => one.innerText.slice(0, 200))"""


def _one_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The HTML of each letter; its rows are gone before the next is made, since they have the same numbers."""
    monkeypatch.setattr(made, "keep", db.session.flush)
    monkeypatch.setattr(made, "begin_writing", lambda: None)
    for kind in WORDS:
        _, html = letters.write(owed(kind)).iter_parts()
        db.session.rollback()
        yield html.get_content()


def _letters_of(words: str) -> str:
    return "".join(words.split())
