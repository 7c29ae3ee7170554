"""The case page, as somebody reads it who has neither script nor log-in, in each state that a case can have."""

import datetime as dt
import itertools
import re
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from models import BudgetLine, DocumentLink
from tests.made import a_case, a_pledge, a_user, confirm, keep, now
from tests.reading import headings, read, said

UNTIL_PASSED = (
    "Your card is charged only if pledges reach £500 by {deadline}. "
    "If they do not, you pay nothing. You can cancel until then."
)
ONCE_PASSED = (
    "Pledges have passed £500. If they are still there on {deadline}, your card is charged then. "
    "You can cancel until then."
)
NO_COMMENTS = "There are no public comments on this case page yet."


# --- A live case -------------------------------------------------------------------------------------------


def test_a_live_case_shows_all_that_a_supporter_wants_to_know(client: FlaskClient) -> None:
    case = a_case(title="Whose data?", target=600_000, pledged=[5_000, 2_500, 2_000],
                  owner=a_user(name="Defend Digital Me"), story="## Our story\n\nIt began *early*.")  # fmt: skip
    page = read(client, f"/cases/{case.slug}")
    assert said(page, "h1") == "Whose data?"
    assert said(page, ".by") == "by Defend Digital Me"
    assert page.select_one('.by a[href="#owner"]') and page.select_one("#owner")
    assert said(page, ".total") == "£95 pledged of £6,000 target from 3 pledges"
    assert said(page, ".left").startswith("7 days to go until ")
    assert said(page, ".story") == "Our story It began early."
    assert page.select_one(".story em")
    assert said(page, "section[aria-labelledby=owner]") == (
        "Case Owner DD Defend Digital Me Teachers and parents. All cases of Defend Digital Me"
    )
    assert said(page, "section[aria-labelledby=legal-team]") == "Legal team AWO acts for us."
    assert said(page, "#comments") == NO_COMMENTS
    assert [link.text for link in page.select("a.button")] == ["Pledge now", "Pledge now"]
    assert {link["href"] for link in page.select("a.button")} == {f"/cases/{case.slug}/pledge"}


def test_the_deadline_names_weekday_date_time_and_zone_and_is_marked_up_in_utc(client: FlaskClient) -> None:
    case = a_case()
    case.round.move_deadline(dt.datetime(2100, 10, 9, 1, 0, tzinfo=dt.UTC), "test", now())
    keep()
    deadline = read(client, f"/cases/{case.slug}").select_one(".left time")
    assert deadline and deadline.text == "Saturday 9 October 2100, 2:00am BST"
    assert deadline["datetime"] == "2100-10-09T01:00:00Z"


@pytest.mark.parametrize(
    ("target", "pledged", "promise"),
    [
        (50_000, [47_500], UNTIL_PASSED),
        (50_000, [50_100], ONCE_PASSED),
    ],
)
def test_the_promise_stands_beside_each_pledge_button(
    client: FlaskClient, target: int, pledged: list[int], promise: str
) -> None:
    page = read(client, f"/cases/{a_case(target=target, pledged=pledged).slug}")
    deadline = page.select_one(".left time")
    assert deadline
    beside = [said(found) for found in page.select("p:has(> a.button) + .promise")]
    assert beside == [promise.format(deadline=deadline.text)] * 2


@pytest.mark.parametrize(
    ("target", "pledged", "total", "bar", "over"),
    [
        (600_000, [], "£0 pledged of £6,000 target, no pledges yet", "0", ""),
        (600_000, [9_500], "£95 pledged of £6,000 target from 1 pledge", "9500", ""),
        (100_000, [99_999], "£999.99 pledged of £1,000 target from 1 pledge", "99999", ""),
        (100_000, [50_000, 50_000], "£1,000 pledged of £1,000 target from 2 pledges", "100000", ""),
        (100_000, [100_999], "£1,009.99 pledged of £1,000 target from 1 pledge", "100000", "100% of the target"),
        (50_000, [60_000, 1_250], "£612.50 pledged of £500 target from 2 pledges", "50000", "122% of the target"),
    ],
)
def test_the_total_reads_right_and_the_bar_is_never_more_than_full(
    client: FlaskClient, target: int, pledged: list[int], total: str, bar: str, over: str
) -> None:
    page = read(client, f"/cases/{a_case(target=target, pledged=pledged).slug}")
    assert said(page, ".total") == total
    progress = page.select_one("progress")
    assert progress and (progress["value"], progress["max"]) == (bar, str(target))
    assert f"{progress.text} target" == re.sub(" pledged|( target).*", r"\1", total)
    assert said(page, ".over") == over


def test_no_level_is_left_out_of_the_headings_whatever_the_owner_wrote(client: FlaskClient) -> None:
    moderator, case = a_user("moderator"), a_case(story="#### Deep\n\n###### Deeper\n\n# Top")
    case.publish_update(case.owner, "News", "# Loud\n\n### Quiet", now())
    case.take_comment("Ben", "ben@example.org", "Hello", now()).approve(moderator, now())
    keep()
    levels = headings(read(client, f"/cases/{case.slug}"))
    assert levels[0] == (1, "A case about data")
    assert (4, "Loud") in levels
    assert (5, "Quiet") in levels
    assert all(deeper <= above + 1 for (above, _), (deeper, _) in itertools.pairwise(levels))


def test_markup_in_the_words_of_an_owner_stays_words(client: FlaskClient) -> None:
    evil = '<b onclick="alert(1)" data-hx-get="/logout">x</b> [link](javascript:alert(1)) ![p](https://spy.example/p)'
    case = a_case(title=evil[:60], owner=a_user(name="<i>Ada</i>"), story=evil)
    case.summary, case.owner.bio, case.who_we_are, case.risks = evil, evil, evil, evil
    case.firm, case.lawyer, case.regulator_number, case.court, case.stage = [evil] * 5
    case.budget = [BudgetLine(position=0, words=evil, pence=1)]
    case.links = [DocumentLink(position=0, title=evil, url="")]
    case.publish_update(case.owner, evil[:60], evil, now())
    keep()
    for address in ("/", f"/cases/{case.slug}", f"/cases/{case.slug}/pledge"):
        page = read(client, address)
        assert not page.select("[onclick], main b, main i, img[src^=http], [data-hx-get='/logout'], [href^=javascript]")
        assert not page.select("[src*='spy.example']")


def test_people_who_can_write_on_the_page_cannot_make_htmx_act(client: FlaskClient) -> None:
    moderator, case = a_user("moderator"), a_case()
    case.publish_update(case.owner, "News", "Body", now())
    case.take_comment("Ben", "ben@example.org", "Hello", now()).approve(moderator, now())
    keep()
    page = read(client, f"/cases/{case.slug}")
    for words in (".story p", ".update p", ".comment div p"):
        assert all(found.find_parent(attrs={"data-hx-disable": True}) for found in page.select(words)), words
        assert page.select(words), words


def test_updates_stand_newest_first_with_a_mark_on_what_was_edited(client: FlaskClient) -> None:
    case = a_case()
    first = case.publish_update(case.owner, "First", "One", now())
    case.publish_update(case.owner, "Second", "Two", now())
    first.edit("First", "One, mended", case.owner, dt.datetime(2022, 10, 1, 12, 0, tzinfo=dt.UTC))
    keep()
    updates = read(client, f"/cases/{case.slug}").select(".update")
    assert [said(update.h3) for update in updates] == ["Second", "First"]
    assert "edited" not in said(updates[0])
    assert "· edited Saturday 1 October 2022, 1:00pm BST One, mended" in said(updates[1])


def test_the_page_can_be_passed_on_without_a_script_and_through_two_networks_at_most(client: FlaskClient) -> None:
    title = "Tom & Ada: 100% “data” = ours? #now"
    case = a_case(slug="tom-and-ada", title=title)
    page = read(client, f"/cases/{case.slug}")
    address = "http://127.0.0.1:8000/cases/tom-and-ada"
    assert said(page, ".address") == address
    mail, *networks = [str(link["href"]) for link in page.select(".share a")]
    assert len(networks) == 2
    assert parse_qs(urlsplit(mail).query) == {"subject": [title], "body": [address]}
    for network in networks:
        assert parse_qs(urlsplit(network).query) == {"text": [f"{title} {address}"]}
        assert quote(title) in network


@pytest.mark.parametrize(
    ("name", "shown"), [("Defend Digital Me", "DD"), ("Liberty", "L"), ("🌊", None), ("🌊 River Watch", "RW")]
)
def test_an_owner_without_a_picture_has_initials_if_the_name_has_any(
    client: FlaskClient, name: str, shown: str | None
) -> None:
    portrait = read(client, f"/cases/{a_case(owner=a_user(name=name)).slug}").select_one(".portrait")
    assert (portrait.text if portrait else None) == shown


def test_the_picture_of_an_owner_is_our_own_file(client: FlaskClient) -> None:
    case = a_case()
    case.owner.picture = "river.svg"
    keep()
    picture = read(client, f"/cases/{case.slug}").select_one("img.portrait")
    assert picture and picture["src"] == "/static/pictures/river.svg" and picture["alt"] == ""
    with client.get(str(picture["src"])) as file:
        assert file.mimetype == "image/svg+xml"


# --- What nobody may ever see ------------------------------------------------------------------------------


def test_no_public_page_or_fragment_tells_what_is_not_public(app: Flask, client: FlaskClient) -> None:
    moderator, case = a_user("moderator", name="Canary Moderator"), a_case(target=600_000)
    confirm(a_pledge(case.round, 2_500, name="Canary Anonymous", email="canary@pledge.example", shown_as="hidden",
                     wants_updates=True))  # fmt: skip
    confirm(a_pledge(case.round, 2_500, name="Canary Named", email="canary@named.example"))
    case.take_comment("Canary Waits", "canary@waits.example", "Canary waiting words", now())
    rejected = case.take_comment("Canary Rejected", "canary@rejected.example", "Canary rejected words", now())
    rejected.reject("off_topic", moderator, now(), note="Canary reason")
    case.take_comment("Ben Field", "canary@ben.example", "Approved words", now()).approve(moderator, now())
    case.owner.email = "canary@owner.example"
    keep()
    addresses = ["/", *(f"/cases/{case.slug}{end}" for end in ("", "/pledge-total", "/comments", "/pledge"))]
    for address in addresses:
        for headers in ({}, {"HX-Request": "true"}):
            answer = client.get(address, headers=headers)
            assert answer.status_code == 200
            assert "canary" not in answer.text.casefold(), address
            assert "Set-Cookie" not in answer.headers, address
            assert 'type="hidden"' not in answer.text or address.endswith("/pledge"), address
    assert "Approved words" in client.get(f"/cases/{case.slug}").text
    assert said(read(client, f"/cases/{case.slug}"), ".total").startswith("£50 pledged")
