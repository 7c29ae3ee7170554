"""The two fragments of the case page: what htmx hears, what others see at the same address, and when it stops."""

import datetime as dt
from collections.abc import Callable

import pytest
from bs4 import BeautifulSoup
from flask.testing import FlaskClient

from models import Case, Comment, User, db
from tests.hygiene import check_fragment
from tests.made import a_case, a_pledge, a_user, confirm, keep, now
from tests.reading import read, said
from views.front_cache import FOR_EVERYBODY

HTMX = {"HX-Request": "true"}
FRAGMENTS = [("pledge-total", "pledge-total"), ("comments", "comments")]


def asks(client: FlaskClient, address: str, element: str) -> str | None:
    """The address that an element of a page asks by itself, with the mark of what it shows; None if it does not."""
    found = read(client, address).select_one(f"#{element}")
    assert found is not None
    assert bool(found.get("data-hx-get")) == bool(found.get("data-hx-trigger"))
    return str(found["data-hx-get"]) if found.get("data-hx-get") else None


@pytest.mark.parametrize(("end", "element"), FRAGMENTS)
def test_one_address_gives_htmx_the_element_and_others_a_whole_page(
    client: FlaskClient, end: str, element: str
) -> None:
    address = f"/cases/{a_case(pledged=[2_500]).slug}/{end}"
    page, fragment = client.get(address), client.get(address, headers=HTMX)
    assert page.status_code == fragment.status_code == 200
    assert page.text.startswith("<!doctype html>")
    assert fragment.text.strip().startswith(f'<div id="{element}"')
    assert "<html" not in fragment.text
    check_fragment(BeautifulSoup(fragment.text, "html5lib"), address)
    assert said(BeautifulSoup(fragment.text, "html5lib"), f"#{element}") == said(read(client, address), f"#{element}")
    for answer in (page, fragment):
        assert "HX-Request" in answer.vary
        assert answer.headers["Cache-Control"] == FOR_EVERYBODY


@pytest.mark.parametrize(("end", "element"), FRAGMENTS)
def test_what_is_shown_already_is_not_sent_again(client: FlaskClient, end: str, element: str) -> None:
    slug = a_case(pledged=[2_500]).slug
    for page in (f"/cases/{slug}", f"/cases/{slug}/{end}"):
        again = asks(client, page, element)
        assert again and again.startswith(f"/cases/{slug}/{end}?seen=")
        unchanged = client.get(again, headers=HTMX)
        assert (unchanged.status_code, unchanged.data) == (204, b"")
        assert "HX-Request" in unchanged.vary
        assert client.get(again).status_code == 200


def _a_pledge_counts(case: Case, moderator: User) -> None:
    confirm(a_pledge(case.round, 2_500))


def _a_pledge_is_cancelled(case: Case, moderator: User) -> None:
    case.round.pledges("confirmed")[0].cancel(now())


def _the_deadline_moves(case: Case, moderator: User) -> None:
    case.round.move_deadline(now() + dt.timedelta(days=6, minutes=5), "test", now())


def _the_deadline_passes(case: Case, moderator: User) -> None:
    case.round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())


def _the_case_is_cancelled(case: Case, moderator: User) -> None:
    case.cancel("No more.", "operator", now())


def _a_comment_is_approved(case: Case, moderator: User) -> None:
    Comment.waiting()[0].approve(moderator, now())


def _a_comment_is_taken_back(case: Case, moderator: User) -> None:
    case.public_comments()[0].reject("off_topic", moderator, now())


def _one_comment_takes_the_place_of_another(case: Case, moderator: User) -> None:
    _a_comment_is_taken_back(case, moderator)
    _a_comment_is_approved(case, moderator)


@pytest.mark.parametrize(
    ("end", "change"),
    [
        ("pledge-total", _a_pledge_counts),
        ("pledge-total", _a_pledge_is_cancelled),
        ("pledge-total", _the_deadline_moves),
        ("pledge-total", _the_deadline_passes),
        ("pledge-total", _the_case_is_cancelled),
        ("comments", _a_comment_is_approved),
        ("comments", _a_comment_is_taken_back),
        ("comments", _one_comment_takes_the_place_of_another),
        ("comments", _the_deadline_passes),
        ("comments", _the_case_is_cancelled),
    ],
)
def test_each_change_reaches_a_page_that_is_left_open(
    client: FlaskClient, end: str, change: Callable[[Case, User], None]
) -> None:
    moderator, case = a_user("moderator"), a_case(pledged=[2_500])
    case.take_comment("Ben", "ben@example.org", "First words", now()).approve(moderator, now())
    case.take_comment("Cy", "cy@example.org", "Second words", now())
    keep()
    again = asks(client, f"/cases/{case.slug}", end)
    assert again and client.get(again, headers=HTMX).status_code == 204
    change(db.session.merge(case), moderator)
    keep()
    changed = client.get(again, headers=HTMX)
    assert (changed.status_code, bool(changed.data)) == (200, True)


def test_what_only_waits_for_a_moderator_changes_nothing(client: FlaskClient) -> None:
    case = a_case()
    again = asks(client, f"/cases/{case.slug}", "comments")
    case.take_comment("Ben", "ben@example.org", "Waiting words", now())
    keep()
    assert again and client.get(again, headers=HTMX).status_code == 204


def test_a_change_is_said_in_one_sentence_for_those_who_listen(client: FlaskClient) -> None:
    moderator, case = a_user("moderator"), a_case(target=600_000, pledged=[9_500])
    case.take_comment("Ben", "ben@example.org", "First words", now()).approve(moderator, now())
    keep()
    page = read(client, f"/cases/{case.slug}")
    assert [(found["id"], said(found)) for found in page.select('[role="status"]')] == [
        ("total-said", ""), ("comments-said", ""),
    ]  # fmt: skip
    for end, sentence in (("pledge-total", "£95 pledged of £6,000, 1 pledge."), ("comments", "1 public comment.")):
        spoken = read(client, f"/cases/{case.slug}/{end}", headers=HTMX).select_one('p[data-hx-swap-oob="innerHTML"]')
        assert spoken and said(spoken) == sentence
        assert page.select_one(f"#{spoken['id']}[role=status]"), "the page has no place for it"


def test_the_second_button_goes_with_the_round_and_keeps_the_promise_of_the_first(client: FlaskClient) -> None:
    case = a_case(target=50_000, pledged=[50_100])
    panel, after = "#pledge-total .promise", '#pledge-again[data-hx-swap-oob="innerHTML"]'
    for address in (f"/cases/{case.slug}", f"/cases/{case.slug}/pledge-total"):
        assert read(client, address).select_one("#pledge-again"), "the page has no place for it"
    swapped = read(client, f"/cases/{case.slug}/pledge-total", headers=HTMX)
    assert said(swapped, panel).startswith("Pledges have passed £500.")
    assert said(swapped, f"{after} .promise") == said(swapped, panel)
    case.round.move_deadline(now() - dt.timedelta(seconds=1), "test", now())
    keep()
    swapped = read(client, f"/cases/{case.slug}/pledge-total", headers=HTMX)
    assert swapped.select_one(after)
    assert said(swapped, after) == ""


@pytest.mark.parametrize(("end", "element"), FRAGMENTS)
@pytest.mark.parametrize("change", [_the_deadline_passes, _the_case_is_cancelled])
def test_nothing_asks_again_once_the_round_is_not_open(
    client: FlaskClient, end: str, element: str, change: Callable[[Case, User], None]
) -> None:
    moderator, case = a_user("moderator"), a_case()
    change(case, moderator)
    keep()
    for address in (f"/cases/{case.slug}", f"/cases/{case.slug}/{end}"):
        assert asks(client, address, element) is None
    assert "data-hx-trigger" not in client.get(f"/cases/{case.slug}/{end}", headers=HTMX).text


def test_what_is_typed_into_the_comment_form_is_outside_of_all_that_is_swapped(client: FlaskClient) -> None:
    page = read(client, f"/cases/{a_case().slug}")
    form = page.select_one("#comment-form")
    assert form and form.name == "form"
    assert not form.find_parent(attrs={"data-hx-get": True})
    assert form.find_previous(id="comments")


@pytest.mark.parametrize(("end", "element"), FRAGMENTS)
def test_going_back_in_the_browser_gets_a_whole_page(client: FlaskClient, end: str, element: str) -> None:
    address = f"/cases/{a_case().slug}/{end}"
    answer = client.get(address, headers={**HTMX, "HX-History-Restore-Request": "true"})
    assert answer.text.startswith("<!doctype html>")


@pytest.mark.parametrize("end", ["", "/pledge-total", "/comments", "/pledge"])
def test_head_is_answered_like_get_without_the_body(client: FlaskClient, end: str) -> None:
    address = f"/cases/{a_case().slug}{end}"
    head, whole = client.head(address), client.get(address)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Type"] == whole.headers["Content-Type"]
    assert head.headers["Content-Length"] != "0"
