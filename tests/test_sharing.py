"""How a case is passed on: to networks, other sites, feed readers, calendars and notice boards."""

import datetime as dt
import html
import io
import json
from typing import Any
from urllib.parse import quote
from urllib.robotparser import RobotFileParser
from xml.etree import ElementTree as ET

import icalendar
import pytest
import sqlalchemy as sa
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from models import Source, db
from tests.doorway import logged_in
from tests.made import a_case, a_draft, a_user, case_at, keep, look_anew, now
from tests.reading import read, said

SITE = "http://127.0.0.1:8000"
ATOM = "{http://www.w3.org/2005/Atom}"
SPITEFUL = 'Ink & <b>"paper"</b> \']]> ;\r\nATTENDEE:x</script>'
OF_A_CASE = ("share.png", "badge.svg", "embed", "qr.svg", "poster", "deadline.ics", "updates.atom")


def head(page: BeautifulSoup, attribute: str, name: str) -> str:
    found = page.select_one(f'head [{attribute}="{name}"]')
    assert found, name
    return str(found.get("content") or found.get("href"))


def entries(answer: Any) -> list[dict[str, str]]:
    """Title, address and text of each entry of a feed."""
    assert (answer.status_code, answer.mimetype) == (200, "application/atom+xml")
    return [
        {part: entry.findtext(f"{ATOM}{part}") or "" for part in ("title", "summary", "updated")}
        | {"link": str(entry.find(f"{ATOM}link").attrib["href"])}  # type: ignore[union-attr]
        for entry in ET.fromstring(answer.data).findall(f"{ATOM}entry")  # noqa: S314 - our own feed
    ]


def test_the_case_page_tells_networks_and_search_engines_what_it_is(client: FlaskClient) -> None:
    case = a_case(title='Whose "data" & why?')
    case.summary = "Children's </script> data."
    keep()
    page = read(client, f"/cases/{case.slug}?via=poster")
    address = f"{SITE}/cases/{case.slug}"
    assert head(page, "rel", "canonical") == head(page, "property", "og:url") == address
    assert head(page, "property", "og:title") == 'Whose "data" & why?'
    assert head(page, "property", "og:image") == f"{address}/share.png"
    assert head(page, "name", "twitter:card") == "summary_large_image"
    assert head(page, "type", "application/json+oembed") == f"{SITE}/oembed?url={quote(address, safe=':/')}"
    (told,) = page.select('script[type="application/ld+json"]')
    assert json.loads(str(told.string))["description"] == "Children's </script> data."
    assert json.loads(str(told.string))["url"] == address


def test_the_share_picture_shows_the_total_and_is_drawn_anew_when_it_changes(client: FlaskClient) -> None:
    case = a_case(target=600_000, pledged=[9_500])
    where = f"/cases/{case.slug}/share.png"
    first = client.get(where)
    drawn = Image.open(io.BytesIO(first.data))
    assert (drawn.size, drawn.format, first.mimetype) == ((1_200, 630), "PNG", "image/png")
    assert first.headers["Cache-Control"] == "public, max-age=60"
    assert first.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert client.get(where, headers={"If-None-Match": first.headers["ETag"]}).status_code == 304
    case_at(case.slug).round.pledged_pence += 590_500
    db.session.commit()
    again = client.get(where, headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 200
    # Two points on the bar: its first quarter, then its end.
    bar = [Image.open(io.BytesIO(answer.data)).convert("RGB").getpixel((1_100, 545)) for answer in (first, again)]
    assert bar == [(217, 212, 199), (11, 79, 92)]
    case_at(case.slug).round.pledged_pence -= 590_500
    db.session.commit()


def test_the_badge_says_the_total_in_words_and_escapes_the_title(client: FlaskClient) -> None:
    case = a_case(title=SPITEFUL, target=600_000, pledged=[9_500])
    answer = client.get(f"/cases/{case.slug}/badge.svg")
    assert answer.mimetype == "image/svg+xml"
    drawn = ET.fromstring(answer.data)  # noqa: S314 - our own picture
    svg = "{http://www.w3.org/2000/svg}"
    assert drawn.findtext(f"{svg}text") == "£95 pledged of £6,000"
    assert drawn.findtext(f"{svg}title") == f"{SPITEFUL}: £95 pledged of £6,000".replace("\r\n", "\n")
    assert not drawn.findall(f".//{svg}script")


def test_the_frame_may_stand_on_any_site_and_can_do_nothing_there(client: FlaskClient) -> None:
    case = a_case(title="Whose data?", target=600_000, pledged=[9_500])
    answer = client.get(f"/cases/{case.slug}/embed")
    page = BeautifulSoup(answer.text, "lxml")
    assert said(page, ".total") == "£95 pledged of £6,000 target from 1 pledge"
    assert not page.select("script, form, img, iframe")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert policy.endswith("; base-uri 'none'; form-action 'none'; frame-ancestors *")
    assert "script-src" not in policy and "Set-Cookie" not in answer.headers
    (link,) = page.select("h1 a")
    assert link["href"] == f"{SITE}/cases/{case.slug}?via=embed"
    # No other page may be framed.
    assert "frame-ancestors 'none'" in client.get(f"/cases/{case.slug}").headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("asked", "size"),
    [("", (480, 310)), ("&maxwidth=500&maxheight=520", (480, 310)), ("&maxwidth=240&maxheight=x", (240, 520))],
)
def test_oembed_tells_how_to_frame_a_case(client: FlaskClient, asked: str, size: tuple[int, int]) -> None:
    case = a_case(title=SPITEFUL)
    told = client.get(f"/oembed?url={quote(f'{SITE}/cases/{case.slug}', safe='')}{asked}").get_json()
    assert (told["version"], told["type"], told["width"], told["height"]) == ("1.0", "rich", *size)
    # A picture that is larger than was asked for is left out.
    assert told.get("thumbnail_width") == (None if asked else 1200)
    frame = BeautifulSoup(told["html"], "lxml").select_one("iframe")
    assert frame and frame["src"] == f"{SITE}/cases/{case.slug}/embed"
    assert frame["title"] == f"{SPITEFUL}: what is pledged".replace("\r\n", "\n")
    as_xml = client.get(f"/oembed?format=xml&url={quote(f'{SITE}/cases/{case.slug}', safe='')}{asked}")
    parsed = ET.fromstring(as_xml.data)  # noqa: S314 - our own answer
    assert as_xml.mimetype == "text/xml"
    assert html.unescape(parsed.findtext("html") or "") == html.unescape(told["html"].replace("\r\n", "\n"))


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("", 404),
        ("?url=https://elsewhere.example/cases/the-case", 404),
        (f"?url={SITE}/", 404),
        (f"?url={SITE}/cases/the-case/comments", 404),
        ("?url=http://[", 404),
        (f"?url={SITE}/cases/the-case&format=yaml", 501),
        (f"?url={SITE}/cases/the-case&maxwidth=239", 501),
        (f"?url={SITE}/cases/the-case&maxwidth=300&maxheight=519", 501),
        (f"?url={SITE}/cases/the-draft", 404),
    ],
)
def test_oembed_knows_nothing_but_public_cases(client: FlaskClient, asked: str, status: int) -> None:
    a_case(slug="the-case")
    a_draft(a_user("owner"), slug="the-draft")
    answer = client.get(f"/oembed{asked}")
    assert answer.status_code == status
    if status == 501:
        assert answer.text.startswith("Only JSON and XML" if "yaml" in asked else "The frame cannot be that small")


def test_the_deadline_comes_into_a_calendar_in_utc_and_moves_there_when_it_moves(client: FlaskClient) -> None:
    case = a_case(title="Ink; paper, and\\more")
    case.round.move_deadline(dt.datetime(2100, 10, 9, 1, 0, tzinfo=dt.UTC), "test", now())
    keep()
    answer = client.get(f"/cases/{case.slug}/deadline.ics")
    assert answer.mimetype == "text/calendar"
    (event,) = icalendar.Calendar.from_ical(answer.data).walk("VEVENT")
    assert event.decoded("dtstart") == dt.datetime(2100, 10, 9, 1, 0, tzinfo=dt.UTC)
    assert str(event["summary"]) == "Last moment to pledge: Ink; paper, and\\more"
    assert str(event["description"]) == "Saturday 9 October 2100, 2:00am BST"
    case_at(case.slug).round.move_deadline(dt.datetime(2100, 10, 10, 1, 0, tzinfo=dt.UTC), "test", now())
    keep()
    (moved,) = icalendar.Calendar.from_ical(client.get(f"/cases/{case.slug}/deadline.ics").data).walk("VEVENT")
    assert moved["uid"] == event["uid"] and moved.decoded("sequence") > event.decoded("sequence")


def test_of_a_cancelled_case_the_calendar_is_told(client: FlaskClient) -> None:
    case = a_case(slug="taken-back")
    (event,) = icalendar.Calendar.from_ical(client.get("/cases/taken-back/deadline.ics").data).walk("VEVENT")
    assert "status" not in event
    case.cancel("Its owner took it back.", "test", now())
    keep()
    (event,) = icalendar.Calendar.from_ical(client.get("/cases/taken-back/deadline.ics").data).walk("VEVENT")
    assert str(event["status"]) == "CANCELLED"


def test_a_title_can_write_no_line_of_its_own_into_a_calendar(client: FlaskClient) -> None:
    case = a_case(title=SPITEFUL)
    (event,) = icalendar.Calendar.from_ical(client.get(f"/cases/{case.slug}/deadline.ics").data).walk("VEVENT")
    assert "attendee" not in event


def test_feeds_name_public_cases_and_updates_for_everyone_and_nothing_else(client: FlaskClient) -> None:
    case, owner = a_case(slug="the-case", title=SPITEFUL), a_user("owner")
    case_at("the-case").summary = "Costs < £5 <img src=https://evil.example/x.gif>"
    keep()
    a_draft(owner, slug="the-draft")
    a_case(slug="hidden-one").show_as("hidden", "", "An order.", a_user("staff"), now())
    keep()
    a_case(slug="cancelled-one").cancel("Its owner took it back.", "test", now())
    keep()
    (entry,) = entries(client.get("/cases.atom"))
    assert (entry["title"], entry["summary"], entry["link"]) == (
        SPITEFUL.replace("\r\n", "\n"), "Costs &lt; £5 &lt;img src=https://evil.example/x.gif&gt;",
        f"{SITE}/cases/the-case",
    )  # fmt: skip
    case_at("the-case").publish_update(db.session.merge(case.owner), "We won", "**Bold** <script>x</script>", now())
    keep()
    (update,) = entries(client.get("/cases/the-case/updates.atom"))
    assert update["title"] == "We won"
    assert update["summary"] == "<p><strong>Bold</strong> &lt;script&gt;x&lt;/script&gt;</p>\n"
    assert update["link"].startswith(f"{SITE}/cases/the-case#update-")
    case_at("the-case").updates[0].audience = "supporters"
    db.session.commit()
    assert entries(client.get("/cases/the-case/updates.atom")) == []


def test_the_site_map_and_robots_name_what_may_be_found(client: FlaskClient) -> None:
    a_case(slug="the-case")
    a_draft(a_user("owner"), slug="the-draft")
    parsed = ET.fromstring(client.get("/sitemap.xml").data)  # noqa: S314 - our own answer
    assert [loc.text for loc in parsed.iter() if loc.tag.endswith("loc")] == [f"{SITE}/", f"{SITE}/cases/the-case"]
    robots = client.get("/robots.txt")
    assert robots.mimetype == "text/plain"
    assert "Disallow: /pledges/" in robots.text and robots.text.endswith(f"Sitemap: {SITE}/sitemap.xml\n")
    rules = RobotFileParser()
    rules.parse(robots.text.splitlines())
    may_be_read = ("/", "/owners/1", "/fr/owners/1", "/cases/the-case", "/topics/planning", "/privacy", "/cases.atom")
    assert [path for path in may_be_read if not rules.can_fetch("*", path)] == []
    closed = (
        "/owner/cases/the-case",
        "/fr/owner/",
        "/staff",
        "/login",
        "/account",
        "/moderation",
        "/c/1",
        "/pledges/x",
    )
    assert [path for path in closed if rules.can_fetch("*", path)] == []


def test_each_page_for_everybody_names_its_one_address_and_no_other_page_does(client: FlaskClient) -> None:
    case = a_case(slug="the-case")
    for asked, named in (
        ("/?utm_source=x&show=live", "/?show=live"), (f"/owners/{case.owner_id}?x=1", f"/owners/{case.owner_id}"),
        ("/fr/cases/the-case?x=1", "/fr/cases/the-case"), ("/privacy?x", "/privacy"),
    ):  # fmt: skip
        assert [one["href"] for one in read(client, asked).select("link[rel=canonical]")] == [SITE + named]
    for other in ("/login", "/cases/the-case/pledge", "/pledges/find"):
        assert read(client, other).select("link[rel=canonical]") == []


def test_the_poster_and_its_code_lead_to_the_case_by_a_short_address(client: FlaskClient) -> None:
    case = a_case(title="Whose data?")
    page = read(client, f"/cases/{case.slug}/poster")
    assert said(page, ".way") == f"{SITE}/c/{case.id}/poster"
    code = page.select_one("img.qr")
    assert code and code["alt"] == f"QR code of {SITE}/c/{case.id}/poster"
    answer = client.get(str(code["src"]))
    assert answer.mimetype == "image/svg+xml" and ET.fromstring(answer.data).tag.endswith("svg")  # noqa: S314 - ours
    # Another label makes another code, and one that is none makes that of the plain address.
    plain, odd, other = (client.get(f"/cases/{case.slug}/qr.svg{via}").data for via in ("", "?via=<X>", "?via=stall"))
    assert plain == odd != other
    # On a page with dark colours too it is dark on light.
    assert b'fill="#fff"' in plain


def test_a_visit_by_a_short_address_is_counted_by_its_label_without_a_cookie(app: Flask, client: FlaskClient) -> None:
    case = a_case(slug="the-case")
    for _ in range(2):
        answer = client.get(f"/c/{case.id}/poster")
        assert (answer.status_code, answer.location) == (302, "/cases/the-case?via=poster")
        assert "Set-Cookie" not in answer.headers
    client.head(f"/c/{case.id}/poster")
    logged_in(app, a_user("owner")).get(f"/c/{case.id}/poster")
    assert client.get(f"/c/{case.id}").location == "/cases/the-case"
    look_anew()
    assert Source.sums(case_at("the-case").round) == [("via:poster", 2, 0, 0)]


@pytest.mark.parametrize("address", ["/c/99", "/c/{draft}/poster", "/c/{case}/NOT-A-LABEL", "/c/0", "/c/99999999999"])
def test_a_short_address_that_leads_nowhere_is_no_page_and_counts_nothing(client: FlaskClient, address: str) -> None:
    case, draft = a_case(slug="the-case"), a_draft(a_user("owner"), slug="the-draft")
    assert client.get(address.format(case=case.id, draft=draft.id)).status_code == 404
    assert db.session.scalar(sa.select(sa.func.count()).select_from(Source)) == 0


@pytest.mark.parametrize("state", ["draft", "hidden", "notice"])
def test_of_a_case_that_strangers_may_not_read_nothing_is_passed_on(client: FlaskClient, state: str) -> None:
    staff = a_user("staff")
    if state == "draft":
        a_draft(a_user("owner"), slug="the-case")
    else:
        a_case(slug="the-case").show_as(state, "A statement." * (state == "notice"), "An order.", staff, now())
        keep()
    assert {page: client.get(f"/cases/the-case/{page}").status_code for page in OF_A_CASE} == dict.fromkeys(
        OF_A_CASE, 404
    )


@pytest.mark.parametrize(
    ("state", "badge"),
    [
        ("cancelled", "This case was cancelled"),
        ("missed", "£0 pledged of £25"),
        ("met", "£25 pledged of £25"),
    ],
)
def test_a_case_that_is_over_is_passed_on_as_it_ended(client: FlaskClient, state: str, badge: str) -> None:
    case = a_case(slug="the-case", target=2_500, pledged=[2_500] if state == "met" else [])
    if state == "cancelled":
        case.cancel("Its owner took it back.", "test", now())
    else:
        over = case.round.deadline + dt.timedelta(seconds=1)
        case.round.close(over)
        case.round.settle(over)
    keep()
    assert {page: client.get(f"/cases/the-case/{page}").status_code for page in OF_A_CASE} == dict.fromkeys(
        OF_A_CASE, 200
    )
    assert badge in client.get("/cases/the-case/badge.svg").text
