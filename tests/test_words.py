"""How pages write things: time left, ages, counts, the promise, plain text and Markdown."""

import datetime as dt

import pytest
from flask import Flask

import law
from models import Case, Round, User
from tests.made import a_case
from views.words import age, instant, paragraphs, promise, render_markdown, time_left

AS_OF = dt.datetime(2022, 10, 2, 1, 0, tzinfo=dt.UTC)
LINK = 'rel="nofollow ugc noopener noreferrer"'


def a_time(days: int = 0, hours: int = 0, minutes: int = 0, seconds: int = 0) -> dt.timedelta:
    return dt.timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


# --- Time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (a_time(days=7, minutes=5), "7 days to go"),
        (a_time(days=7), "7 days to go"),
        (a_time(days=6, hours=23, minutes=59, seconds=59), "6 days to go"),
        (a_time(days=1, hours=23, minutes=59, seconds=59), "1 day to go"),
        (a_time(days=1), "1 day to go"),
        (a_time(hours=23, minutes=59, seconds=59), "23 hours and 59 minutes to go"),
        (a_time(hours=2), "2 hours to go"),
        (a_time(hours=1, minutes=1), "1 hour and 1 minute to go"),
        (a_time(hours=1), "1 hour to go"),
        (a_time(minutes=59, seconds=59), "59 minutes to go"),
        (a_time(minutes=1), "1 minute to go"),
        (a_time(seconds=59), "less than a minute to go"),
        (a_time(), "less than a minute to go"),
        (a_time(seconds=-1), "the deadline has passed"),
        (a_time(days=-3), "the deadline has passed"),
    ],
)
def test_the_time_left_is_rounded_down_and_told_in_minutes_on_the_last_day(left: dt.timedelta, words: str) -> None:
    assert time_left(Round(deadline=AS_OF + left), AS_OF) == words


def test_an_instant_is_told_in_its_zone_and_marked_up_in_utc() -> None:
    deadline = dt.datetime(2022, 10, 9, 1, 0, tzinfo=dt.UTC)
    assert instant(deadline, "Europe/London") == (
        '<time datetime="2022-10-09T01:00:00Z">Sunday 9 October 2022, 2:00am BST</time>'
    )
    in_paris = deadline.astimezone(dt.timezone(dt.timedelta(hours=2)))
    assert instant(in_paris, "Europe/London") == instant(deadline, "Europe/London")


@pytest.mark.parametrize(
    ("waits", "words"),
    [
        (a_time(seconds=59), "moments"),
        (a_time(minutes=1), "1 minute"),
        (a_time(minutes=59, seconds=59), "59 minutes"),
        (a_time(hours=23, minutes=59), "23 hours"),
        (a_time(days=1), "1 day"),
        (a_time(days=2, hours=23), "2 days"),
    ],
)
def test_an_age_is_told_in_one_unit(waits: dt.timedelta, words: str) -> None:
    assert age(AS_OF - waits, AS_OF) == words


# --- The sentences that matter most ------------------------------------------------------------------------


def a_round(target: int, pledged: int) -> Round:
    return Round(
        target_pence=target, pledged_pence=pledged, deadline=dt.datetime(2022, 10, 9, 1, 0, tzinfo=dt.UTC),
        zone="Europe/London", case=Case(title="Pupils’ data"),
    )  # fmt: skip


@pytest.mark.parametrize("pledged", [0, 599_999, 600_000])
def test_the_promise_until_the_target_is_passed(pledged: int) -> None:
    assert promise(a_round(600_000, pledged)) == (
        "Your card is charged only if pledges reach £6,000 by Sunday 9 October 2022, 2:00am BST. "
        "If they do not, you pay nothing. You can cancel until then."
    )


def test_the_promise_once_the_target_is_passed() -> None:
    assert promise(a_round(600_000, 600_001)) == (
        "Pledges have passed £6,000. If they are still there on Sunday 9 October 2022, 2:00am BST, "
        "your card is charged then. You can cancel until then."
    )


def test_the_agreement_names_who_charges_how_much_when_and_on_which_condition(app: Flask) -> None:
    assert law.AGREEMENT_VERSION == 1
    assert a_round(600_000, 0).agreement("£25") == (
        "I allow Standing Test to charge my card £25 once, after Sunday 9 October 2022, 2:00am BST, only if pledges "
        "for “Pupils’ data” reach £6,000 by then. If my bank refuses, it may be tried again for up to 7 days. "
        "I can cancel free of charge until Sunday 9 October 2022, 2:00am BST."
    )


def test_the_promise_is_filled_from_the_row_as_the_database_has_it(app: Flask) -> None:
    its_round = a_case(target=50_000, pledged=[47_500]).round
    assert promise(its_round).startswith("Your card is charged only if pledges reach £500 by ")


# --- Names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "initials"),
    [
        ("Defend Digital Me", "DD"),
        ("Liberty", "L"),
        ("ada de winter", "AD"),
        ("“Save” (our) river", "SO"),
        ("🌊 River Watch", "RW"),
        ("🌊🇬🇧", ""),
        ("", ""),
        ("École Élan", "ÉÉ"),
        ("ßen", "S"),
        ("38 Degrees", "3D"),
    ],
)
def test_the_initials_of_a_name_are_its_first_letters(name: str, initials: str) -> None:
    assert User(name=name).initials == initials


# --- Plain text --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("One.\nTwo.\n\nThree.", "<p>One.<br>\nTwo.</p>\n<p>Three.</p>"),
        ("\n\n\n", ""),
        ("<b>Bold</b> & **bold**", "<p>&lt;b&gt;Bold&lt;/b&gt; &amp; **bold**</p>"),
        ("See https://example.org/a?b=1&c=2.",
         f'<p>See <a href="https://example.org/a?b=1&amp;c=2" {LINK}>https://example.org/a?b=1&amp;c=2</a>.</p>'),
        ('https://example.org/"on="a', f'<p><a href="https://example.org/&#34;on=&#34;a" {LINK}>https://example.org/&#34;on=&#34;a</a></p>'),
        ("javascript:alert(1) data:text/html,x ftp://example.org //example.org ada@example.org",
         "<p>javascript:alert(1) data:text/html,x ftp://example.org //example.org ada@example.org</p>"),
    ],
)  # fmt: skip
def test_plain_text_is_escaped_and_only_its_web_addresses_become_links(text: str, html: str) -> None:
    assert paragraphs(text) == html


# --- Markdown ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**Bold**, *italic*", "<p><strong>Bold</strong>, <em>italic</em></p>"),
        ("[a link](https://example.org)", f'<p><a href="https://example.org" {LINK}>a link</a></p>'),
        ("<https://example.org/x>", f'<p><a href="https://example.org/x" {LINK}>https://example.org/x</a></p>'),
        ("5. five\n6. six", '<ol start="5">\n<li>five</li>\n<li>six</li>\n</ol>'),
        ("![A river](https://spy.example/pixel.png)", "<p>A river</p>"),
        ("![<b>x](https://spy.example/pixel.png)", "<p>&lt;b&gt;x</p>"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>"),
        ("a <img src=x onerror=alert(1)>", "<p>a &lt;img src=x onerror=alert(1)&gt;</p>"),
        ('<a data-hx-get="/logout" hx-get="/">x</a>', '<p>&lt;a data-hx-get="/logout" hx-get="/"&gt;x&lt;/a&gt;</p>'),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>"),
        ("[x](JavaScript&#58;alert(1))", "<p>[x](JavaScript:alert(1))</p>"),
        ("[x](data:image/png;base64,AAAA)", "<p>[x](data:image/png;base64,AAAA)</p>"),
        ("<javascript:alert(1)>", "<p>&lt;javascript:alert(1)&gt;</p>"),
        ('[x](https://example.org "a\\" onclick=\\"b")',
         f'<p><a href="https://example.org" title="a&quot; onclick=&quot;b" {LINK}>x</a></p>'),
    ],
)  # fmt: skip
def test_markdown_becomes_clean_html_and_nothing_that_acts(text: str, html: str) -> None:
    assert render_markdown(text).strip() == html


@pytest.mark.parametrize(
    ("text", "top", "tags"),
    [
        ("# A\n\n## B\n\n# C", 2, ["h2", "h3", "h2"]),
        ("## A\n\n### B\n\n## C", 2, ["h2", "h3", "h2"]),
        ("#### A\n\n###### B", 2, ["h2", "h3"]),
        ("### A\n\n## B", 2, ["h2", "h2"]),
        ("A\n===\n\nB\n---", 2, ["h2", "h3"]),
        ("## A\n\n### B", 4, ["h4", "h5"]),
        ("# A\n\n## B\n\n### C\n\n#### D\n\n##### E", 4, ["h4", "h5", "h6", "h6", "h6"]),
    ],
)
def test_headings_begin_below_those_of_the_page_and_leave_no_level_out(text: str, top: int, tags: list[str]) -> None:
    html = str(render_markdown(text, top))
    assert [piece[:2] for piece in html.split("<") if piece.startswith("h")] == tags
    assert [piece[1:3] for piece in html.split("<") if piece.startswith("/h")] == tags
