"""Every page in every state can be read, used and printed by everybody: axe, the keyboard, small screens, paper.

axe finds only part of the barriers; what it can't see is walked here by hand: the keyboard, the place of the panel.
"""

import gzip
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from flask_migrate import upgrade
from playwright.sync_api import expect

import case_file
import law
from models import BudgetLine, DocumentLink, Round, begin_writing, db
from tests import gallery
from tests.gallery import Gallery, Shown
from tests.house import ROOT, House
from tests.made import PASSWORD, a_case, a_user, case_at, keep, now
from views import sharing

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
# What is asked of axe. Contrast takes longest, so it is asked in each colour once, at 320 pixels.
ALL: dict[str, Any] = {"runOnly": list(RULES), "resultTypes": ["violations"]}
BUT_CONTRAST = {**ALL, "rules": {"color-contrast": {"enabled": False}}}
OF_COLOURS = {**ALL, "runOnly": ["color-contrast", "link-in-text-block", "target-size"]}
# How a page is looked at: the colours, forced colours, the width in pixels, and what is asked.
LOOKS: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "light": ("light", "none", 1280, BUT_CONTRAST),
    "light, on a small telephone": ("light", "none", 320, ALL),
    "dark, on a small telephone": ("dark", "none", 320, OF_COLOURS),
    "forced colours, on a small telephone": ("dark", "active", 320, OF_COLOURS),
}
# Words are longer in French, and each has its language: these are looked at in French too.
IN_FRENCH = {
    "home", "case live", "log in", "privacy", "pledge form", "pledge confirmed", "pledge declined", "receipt", "desk",
    "own case", "draft", "queue", "decided", "account", "staff's desk", "staff's case", "moderation log", "users",
}  # fmt: skip
STYLESHEET = (ROOT / "static" / "site.css").read_text(encoding="utf-8")
_DEMO_CASE = ROOT / "demo" / "cases" / "dfe-real-time-data.txt"
Open = Callable[..., "Page"]
Exhibition = tuple[House, Gallery]


@pytest.fixture(scope="module")
def exhibition(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exhibition]:
    """A house in which nothing moves on by itself, with the gallery in it."""
    still = House(tmp_path_factory.mktemp("gallery"))
    try:
        with still.app.app_context():
            begin_writing()
            upgrade()
            still.start("valkey", "sandbox", "web")
            hung = gallery.hang()
            begin_writing()
            db.session.remove()
        yield still, hung
    finally:
        still.stop()


@pytest.mark.parametrize("room", ["readers", "supporters", "desks", "staff"])
def test_no_page_has_a_barrier_or_scrolls_sideways_or_lacks_a_rule_that_fits_it(
    exhibition: Exhibition, open_browser: Open, room: str
) -> None:
    still, hung = exhibition
    assert {shown.name for shown in itertools.chain(*hung.rooms.values())} >= IN_FRENCH
    doors = {"": open_browser()}
    barriers: list[str] = []
    lacks: list[str] = []
    for shown in hung.rooms[room]:
        if shown.who not in doors:
            doors[shown.who] = open_browser()
            _log_in(still, doors[shown.who], hung.people[shown.who])
        page = doors[shown.who]
        _look_at(still, page, shown)
        barriers += [f"{shown.name}, {barrier}" for barrier in _barriers(page)]
        lacks += [f"{shown.name}: {rule}" for rule in page.evaluate(LACKING, STYLESHEET)]
        if shown.name in IN_FRENCH:
            _look_at(still, page, replace(shown, address=f"/fr{shown.address}"))
            barriers += [f"{shown.name}, in French, {barrier}" for barrier in _barriers(page)]
            lacks += [f"{shown.name}, in French: {rule}" for rule in page.evaluate(LACKING, STYLESHEET)]
    assert not barriers, "\n".join(barriers)
    assert not lacks, "\n".join(lacks)


def test_the_card_page_of_the_sandbox_and_its_bank_have_no_barrier(exhibition: Exhibition, open_browser: Open) -> None:
    still, page = exhibition[0], open_browser()
    page.goto(f"{still.url}/cases/live/pledge")
    page.get_by_label("£25", exact=True).check()
    page.get_by_label("Your name").fill("Ada Winter")
    page.get_by_label("Your e-mail address").fill("ada@example.org")
    page.get_by_label("I allow Standing Test").check()
    page.get_by_role("button", name="Continue to Stripe").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Save your card")
    barriers = _barriers(page)
    page.get_by_label("Card number").fill("4000 0025 0000 3155")
    page.get_by_role("button", name="Save this card").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your bank asks: is this you?")
    assert [*barriers, *_barriers(page)] == []


@pytest.mark.parametrize("address", ["/", "/cases/live", "/cases/live/pledge", "/moderation", "/owner/cases/live"])
def test_the_keyboard_reaches_everything_in_order_sees_where_it_is_and_gets_out_again(
    exhibition: Exhibition, open_browser: Open, address: str
) -> None:
    still, hung = exhibition
    page = open_browser()
    who = {"/moderation": "moderator", "/owner/cases/live": "owner"}.get(address)
    if who:
        _log_in(still, page, hung.people[who])
    page.goto(still.url + address)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport(ratio=1)
    stops = [page.evaluate(WHERE)]
    while stops[-1]["place"] is not None:
        assert len(stops) < 200, "the keyboard never gets out of the page"
        page.keyboard.press("Tab")
        stops.append(page.evaluate(WHERE))
    places = [stop["place"] for stop in stops[:-1]]
    assert places == page.evaluate(STOPS)
    assert [stop for stop in stops[:-1] if not stop["ring"] or not stop["seen"]] == []


def test_the_skip_link_leads_past_the_header(exhibition: Exhibition, open_browser: Open) -> None:
    still, page = exhibition[0], open_browser()
    page.goto(f"{still.url}/cases/live")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("main").get_by_role("link").first).to_be_focused()


def test_the_panel_stands_right_of_the_story_and_stays_in_view(exhibition: Exhibition, open_browser: Open) -> None:
    still, page = exhibition[0], open_browser(viewport={"width": 960, "height": 720})
    page.goto(f"{still.url}/cases/live")
    assert _box(page, ".panel")["x"] >= _box(page, ".story")["x"] + _box(page, ".story")["width"]
    assert _box(page, ".panel")["y"] < _box(page, "h1")["y"] + _box(page, "h1")["height"]
    page.get_by_label("Your comment").scroll_into_view_if_needed()
    expect(page.locator("h1")).not_to_be_in_viewport()
    expect(page.locator(".panel")).to_be_in_viewport(ratio=1)


def test_on_a_telephone_the_panel_comes_right_under_the_title(exhibition: Exhibition, open_browser: Open) -> None:
    still, page = exhibition[0], open_browser(viewport={"width": 360, "height": 740})
    page.goto(f"{still.url}/cases/live")
    title, panel, story, button = (_box(page, it) for it in (".heading", ".panel", ".story", "#pledge-now"))
    assert title["y"] < panel["y"] < story["y"]
    assert panel["y"] - (title["y"] + title["height"]) < 48
    assert (button["height"], button["width"]) == (48, 360 - 2 * 16)
    expect(page.locator("#pledge-now")).to_be_in_viewport(ratio=1)


def test_nothing_on_the_page_moves(exhibition: Exhibition, open_browser: Open) -> None:
    """So there is nothing to take away from readers who asked their system for less motion."""
    still, page = exhibition[0], open_browser()
    page.goto(f"{still.url}/cases/live")
    moving = page.evaluate("""() => [...document.querySelectorAll('*')].filter(element => {
        const style = getComputedStyle(element)
        return style.animationName !== 'none' || style.transitionDuration !== '0s' || style.scrollBehavior !== 'auto'
    }).map(element => element.outerHTML.slice(0, 80))""")
    assert moving == []
    assert not re.findall(r"@keyframes|animation|transition|scroll-behavior", STYLESHEET)


def test_a_whole_case_is_printed_on_three_pages_at_most(house: House, open_browser: Callable[..., "Page"]) -> None:
    told = case_file.read(_DEMO_CASE.read_text(encoding="utf-8").replace("{week}", "2030-01-01 02:00"), "Europe/London")
    story = told.words["story"] + "\n\n[The rules](https://example.org/rules) say so."
    page, slug = open_browser(), _a_case_with_everything(told.title, story)
    page.goto(f"{house.url}/cases/{slug}")
    pages = page.pdf(format="A4", margin={"top": "20mm", "right": "20mm", "bottom": "20mm", "left": "20mm"})
    assert 1 <= pages.count(b"/Type /Page\n") <= 3
    page.emulate_media(media="print")
    for kept in (
        "h1",
        ".total",
        ".promise",
        ".story",
        "#money",
        "#risks-heading",
        "#documents",
        "#legal-team",
        "#comments",
    ):
        expect(page.locator(kept).first).to_be_visible()
    for kept, count in ((".update", 10), (".comment", 30), (".answer", 10)):
        expect(page.locator(kept).filter(visible=True)).to_have_count(count)
    for left_out in ("nav", "form", ".button", ".share", ".report", "#share", "details"):
        expect(page.locator(left_out).first).to_be_hidden()
    # Nothing reaches over the edge of the paper, which is 17 cm wide between its margins.
    page.set_viewport_size({"width": 642, "height": 971})
    assert page.evaluate("document.documentElement.scrollWidth") == 642
    # On paper a link is where it leads.
    link = page.locator(".story a").first
    assert link.evaluate("link => getComputedStyle(link, '::after').content") == '" (https://example.org/rules)"'


def _a_case_with_everything(title: str, story: str) -> str:
    """Its address: with all particulars, a promise that was changed, ten updates, and thirty comments of which ten are
    answered."""
    slug, moderator, staff = (
        a_case(title=title, story=story, pledged=[9_500]).slug,
        a_user("moderator"),
        a_user("staff"),
    )
    number = case_at(slug).round.id
    begin_writing()
    its_round, moderator = Round.hold(number), db.session.merge(moderator)
    case, owner = its_round.case, its_round.case.owner
    case.who_we_are, case.court, case.stage = "Teachers and **parents**.", "High Court", "Before the claim"
    case.risks, case.topic, case.firm, case.lawyer = "We may lose, and then pay costs.", "privacy", "AWO", "Sam Weir"
    case.regulator_number = "SRA 000000"
    case.budget = [BudgetLine(position=n, words=f"Step {n} of the claim", pence=100_000) for n in range(6)]
    case.links = [DocumentLink(position=n, title=f"Letter {n}", url="https://example.org/l.pdf") for n in range(3)]
    its_round.ask_change(its_round.deadline, 500_000, "We need less.", owner, now()).consent(
        db.session.merge(staff), now()
    )
    for n in range(10):
        case.publish_update(
            owner, f"Update {n}", "The court has listed the hearing, and we prepare for it. " * 3, now()
        )
    for n in range(30):
        said = case.take_comment(f"Reader {n}", f"r{n}@prints.example", f"I stand with you, number {n}. " * 3, now())
        said.approve(moderator, now())
        if n % 3 == 0:
            said.answer_by(owner, "Thank you. It helps us to hear that.", now())
    keep()
    return slug


def test_the_longest_poster_is_printed_on_one_sheet_and_the_longest_frame_is_seen_whole(
    house: House, open_browser: Open
) -> None:
    title = "Whether a ministry may collect what it need not know of children, and keep it for 66 years " + "word " * 14
    case = a_case(title=title[: law.LONGEST_TITLE], pledged=[9_500])
    begin_writing()
    case = db.session.merge(case)
    summary = "We ask the High Court whether the collection of all attendance of all children is lawful. "
    case.summary, slug = (summary * 4)[: law.LONGEST_SUMMARY], case.slug
    keep()
    page, wrong = open_browser(), list[tuple[str, str, int]]()
    for language in ("", "/fr"):
        page.goto(f"{house.url}{language}/cases/{slug}/poster")
        margin = "20mm"
        pages = page.pdf(format="A4", margin={"top": margin, "right": margin, "bottom": margin, "left": margin})
        if (sheets := pages.count(b"/Type /Page\n")) != 1:
            wrong.append((language, "poster", sheets))
        for width, height in (sharing.FRAME, sharing.LEAST_FRAME):
            page.set_viewport_size({"width": width, "height": height})
            page.goto(f"{house.url}{language}/cases/{slug}/embed")
            needed = page.evaluate("document.documentElement.scrollHeight")
            if needed > height:
                wrong.append((language, f"{width} by {height}", needed))
    assert wrong == []


def test_a_receipt_is_printed_with_what_was_paid_and_without_what_can_be_pressed(
    exhibition: Exhibition, open_browser: Open
) -> None:
    still, hung = exhibition
    (receipt,) = [shown for shown in hung.rooms["supporters"] if shown.name == "receipt"]
    page = open_browser()
    page.goto(still.url + receipt.address)
    pressed = page.locator("a, button")
    on_screen = [str(one.text_content()) for one in pressed.all() if one.is_visible()]
    assert {"Cases", "Log in", "Send it to me by e-mail", "Back to your pledge", "Find your pledge"} < set(on_screen)
    page.emulate_media(media="print")
    # Whose paper it is, and where to ask.
    assert [one.text_content() for one in pressed.all() if one.is_visible()] == ["Standing", "help@example.org"]
    expect(page.get_by_role("navigation")).to_be_hidden()
    facts = page.get_by_role("main").inner_text()
    reference = receipt.address.split("/")[2].partition(".")[0]
    for kept in (
        "Receipt", "Received by\nStanding Test", "For\nA case whose cards were charged", "Amount\n£25",
        "Charged\n", f"Reference\n{reference}", "Refunded\n£10, ", "Paid in the end\n£15",
    ):  # fmt: skip
        assert kept in facts
    charged_on = page.locator("dd time").first
    expect(charged_on).to_be_visible()
    expect(charged_on).to_have_text(re.compile(rf"^[A-Z][a-z]+day \d+ [A-Z][a-z]+ {now().year}, \d+:\d\d[ap]m [A-Z]+$"))
    pages = page.pdf(format="A4", margin={"top": "20mm", "right": "20mm", "bottom": "20mm", "left": "20mm"})
    assert pages.count(b"/Type /Page\n") == 1


def test_a_desk_has_every_rule_of_the_stylesheet_readers_the_first_and_nobody_what_was_written_for_its_authors(
    exhibition: Exhibition, open_browser: Callable[..., "Page"]
) -> None:
    still, hung = exhibition
    page = open_browser()
    _log_in(still, page, hung.people["owner"])
    sent, rules, as_written = {}, {}, list[str]()
    # There are none of whom the last is, and so nobody has said what it needs.
    for address in ("/owner", "/account", "/", "/cases/live", "/cases/live/pledge", "/cases/live/embed", "/nowhere"):
        page.goto(still.url + address)
        sent[address], rules[address], as_written = page.evaluate(CARRIED, STYLESHEET)
        assert "/*" not in sent[address] and "\n" not in sent[address]
    assert "/*" in STYLESHEET and len(as_written) > 150
    assert rules["/owner"] == rules["/account"] == rules["/nowhere"] == as_written
    for_readers = rules["/cases/live"]
    assert 100 < len(for_readers) < 150
    assert for_readers == as_written[: len(for_readers)]
    assert {sent[address] for address in ("/", "/cases/live/pledge", "/cases/live/embed")} == {sent["/cases/live"]}


def test_the_first_view_of_a_whole_case_weighs_at_most_14_kilobytes_and_with_its_script_32(
    house: House, htmx: bytes
) -> None:
    """All that a slow line must carry before the page can be read: the page has its style in it, and no picture."""
    told = case_file.read(_DEMO_CASE.read_text(encoding="utf-8").replace("{week}", "2030-01-01 02:00"), "Europe/London")
    slug = a_case(title=told.title, story=told.words["story"], pledged=[9_500]).slug
    page = requests.get(f"{house.url}/cases/{slug}", timeout=30).text
    assert "<style>" in page
    assert "<img" not in page
    assert len(gzip.compress(page.encode())) <= 14 * 1024
    assert len(gzip.compress(page.encode())) + len(gzip.compress(htmx)) <= 32 * 1024


# --- Looking -----------------------------------------------------------------------------------------------

# The stylesheet in a page, its rules, and those of the whole as it was written.
CARRIED = """written => {
    const told = sheet => [...sheet.cssRules].map(rule => rule.cssText)
    const whole = new CSSStyleSheet()
    whole.replaceSync(written)
    return [document.querySelector('style').textContent, told(document.styleSheets[0]), told(whole)]
}"""
# The selectors of rules that are not in the page, but would fit something in it at some width, on paper, in some
# colours, or once it is hovered over, chosen or come to. What a page carries is the beginning of the whole.
LACKING = """written => {
    const whole = new CSSStyleSheet()
    whole.replaceSync(written)
    const missing = [...whole.cssRules].slice(document.styleSheets[0].cssRules.length)
    const styles = rules => rules.flatMap(rule => rule.selectorText ? [rule] : styles([...rule.cssRules ?? []]))
    const momentary = /:not\\(:[-\\w]+\\)|::?[-\\w]+(?![-\\w(])/g
    const atAnyMoment = selector => selector.replace(
        momentary, (_, at) => at && /[-\\w\\])]/.test(selector[at - 1]) ? '' : '*')
    return styles(missing).map(rule => rule.selectorText)
        .filter(selector => document.querySelector(atAnyMoment(selector)))
}"""
# What the keyboard stops at: each link, button and field in the order of the page; a group of radios is one stop.
STOPS = """() => {
    const all = 'a[href], button, input:not([type=hidden]), textarea, select, summary'
    const controls = [...document.querySelectorAll(all)]
    return controls.map((_, place) => place).filter(place => {
        const {type, name, tabIndex} = controls[place]
        const folded = controls[place].closest('details:not([open])')
        if (tabIndex < 0 || (folded && folded.firstElementChild !== controls[place])) return false
        if (type !== 'radio') return true
        // Of a group the keyboard comes to what is chosen.
        const group = controls.filter(one => one.type === 'radio' && one.name === name)
        return controls[place] === (group.find(one => one.checked) ?? group[0])
    })
}"""
# Where the keyboard is now, whether a ring of 3 pixels shows it, and whether it is on the screen with nothing over it.
WHERE = """() => {
    const at = document.activeElement
    if (at === document.body) return {place: null}
    const all = 'a[href], button, input:not([type=hidden]), textarea, select, summary'
    const controls = [...document.querySelectorAll(all)]
    const rings = [at, at.nextElementSibling].filter(Boolean).map(getComputedStyle)
    const box = at.getClientRects()[0]
    const over = document.elementFromPoint(box.x + box.width / 2, box.y + Math.min(box.height / 2, 12))
    return {
        place: controls.indexOf(at),
        what: at.outerHTML.slice(0, 100),
        ring: rings.some(ring => ring.outlineStyle === 'solid' && ring.outlineWidth === '3px'),
        seen: !!over && (at.contains(over) || over.contains(at)),
    }
}"""


def _look_at(still: House, page: "Page", shown: Shown) -> None:
    """Open a page, type and press what brings it into its state."""
    answer = page.goto(still.url + shown.address)
    assert answer is not None
    assert answer.status == shown.status, shown.name
    for label, words in shown.typed.items():
        page.get_by_label(label, exact=True).fill(words)
    if shown.press:
        before = page.locator("main").inner_html()
        page.get_by_role("button", name=shown.press).first.click()
        page.wait_for_function("before => document.querySelector('main')?.innerHTML !== before", arg=before)


def _barriers(page: "Page") -> list[str]:
    """What axe finds in each look, and where the page is wider than its window."""
    found = []
    page.evaluate(Axe().axe_script)
    for look, (scheme, forced, width, asked) in LOOKS.items():
        page.emulate_media(color_scheme=scheme, forced_colors=forced)  # type: ignore[arg-type]
        page.set_viewport_size({"width": width, "height": 720})
        violations: list[Any] = page.evaluate("async options => (await axe.run(options)).violations", asked)
        found += [
            f"{look}: {broken['id']} at {node['html'][:150]}" for broken in violations for node in broken["nodes"]
        ]
    for width in (320, 240):
        page.set_viewport_size({"width": width, "height": 720})
        found += [f"{width} pixels: it scrolls sideways"] * (page.evaluate("document.body.scrollWidth") > width)
    return found


def _log_in(still: House, page: "Page", email: str) -> None:
    page.goto(f"{still.url}/login")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


def _box(page: "Page", selector: str) -> Any:
    return page.locator(selector).first.bounding_box()
