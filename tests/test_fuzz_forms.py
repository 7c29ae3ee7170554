"""Whatever is typed into a form, and whatever a form is called, the answer is a page and never our own failure."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.doorway import Site, logged_in, token_on

# Text of every kind that a browser, or a script, can send: also what is no text, and what is much.
anything = some.one_of(
    some.text(max_size=60),
    some.sampled_from(["", " ", "\0", "\ud800", "\r\n", "x" * 5_000, "25", "£25", "ada@example.org", "y", "other",
                       "' OR 1=1 --", "<script>", "{{ 7*7 }}", "%s", "../..", "-1", "1e309", "NaN", "💷", "\u202e"]),
)  # fmt: skip
fields = some.sampled_from([
    "amount", "other_amount", "name", "email", "shown_as", "wants_updates", "agreed", "form_key", "body", "title",
    "password", "code", "recovery_code", "new_code", "offer", "next", "preview", "list",
    "c1-reason", "status", "form_token", "id", "",
])  # fmt: skip
forms = some.dictionaries(fields, some.lists(anything, max_size=2), max_size=10)
headers = some.sampled_from([{}, {"HX-Request": "true"}, {"Sec-Fetch-Site": "same-origin"}])
light = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def site(app: Flask) -> Site:
    return Site(app)


def sendable(form: dict[str, list[str]]) -> dict[str, list[str]]:
    """Half characters have no UTF-8; a script would send their three bytes, which is bad input of another test."""
    return {name: [words.encode(errors="replace").decode() for words in said] for name, said in form.items()}


@light
@given(form=forms, header=headers)
def test_no_form_that_anybody_may_send_breaks_us(
    site: Site, form: dict[str, list[str]], header: dict[str, str]
) -> None:
    link = site.links["pledge"]
    where = ["/login", "/login/second-factor", "/login/new-second-factor", "/logout", "/forgotten-password",
             f"/invitations/{site.links['invitation']}",
             f"/password-resets/{site.links['password-reset']}",
             "/cases/the-case/pledges", "/cases/the-case/comments", f"/pledges/{link}/amount",
             f"/pledges/{link}/card-page", f"/pledges/{site.links['unsubscribe']}/unsubscription"]  # fmt: skip
    browser = site.app.test_client()
    for address in where:
        answer = browser.post(address, data=sendable(form), headers=header)
        # What a form before this one has used up leads nowhere any more.
        used_up = answer.status_code == 404 and address.startswith(("/invitations/", "/password-resets/"))
        assert used_up or answer.status_code in (200, 303, 422, 429), address


@light
@given(form=forms, header=headers)
def test_no_form_of_somebody_who_is_logged_in_breaks_us(
    site: Site, form: dict[str, list[str]], header: dict[str, str]
) -> None:
    updates = "/owner/cases/the-case/updates"
    comment = f"/moderation/comments/{site.values['comment_id']}"
    for person, page, where in (
        (site.owner, "/owner", [updates, f"{updates}/{site.values['update_id']}", "/account/second-factor"]),
        (site.moderator, "/moderation/decided", [f"{comment}/decision"]),
    ):
        browser = logged_in(site.app, person)
        token = token_on(browser, page)
        for address in where:
            sent = {"decision": "reject", **sendable(form), "form_token": token}
            assert browser.post(address, data=sent, headers=header).status_code in (200, 303, 400, 422), address


of_drafts = some.sampled_from([
    "title", "slug", "story", "firm", "target", "days", "end_date", "end_time", "zone", "budget-0-words",
    "budget-0-amount", "budget-99999999999-amount", "budget-x-words", "budget-", "links-0-title", "links-0-url",
    "version", "page", "case", "then", "by_itself", "alt", "file", "later-date", "later-time", "changes-reason", "seen",
    "body", "audience", "form_key",
])  # fmt: skip
typed = some.one_of(anything, some.sampled_from(["2026-12-10", "2027-03-28", "01:30", "24:00", "0001-01-01", "²", "٣",
                                                 "Europe/London", "America/Scoresbysund", "https://[", "https://a.b:99999",
                                                 "9999-12-31", "budget", "preview"]))  # fmt: skip


@light
@given(form=some.dictionaries(of_drafts, some.lists(typed, max_size=2), max_size=8), header=headers)
def test_no_form_of_the_workshop_or_of_a_review_breaks_us(
    site: Site, form: dict[str, list[str]], header: dict[str, str]
) -> None:
    update = f"/owner/cases/the-case/updates/{site.values['update_id']}"
    draft, review = f"/owner/cases/{site.slugs['owners.draft']}", f"/staff/reviews/{site.slugs['staff.review']}"
    for person, page, where in (
        (site.owner, "/owner", ["/owner/cases", f"{draft}/draft", f"{draft}/picture"]),
        (
            site.owner,
            "/owner",
            [
                "/owner/cases/the-case/updates",
                update,
                f"{update}/timed-publication",
                f"{update}/picture",
                f"{update}/deletion",
            ],
        ),
        (site.staff, "/staff", [f"{review}/{way}" for way in ("timed-approval", "changes", "rejection", "approval")]),
    ):
        browser = logged_in(site.app, person)
        token = token_on(browser, page)
        for address in where:
            sent = {**sendable(form), "form_token": token, "slug": site.slugs["owners.draft"]}
            answer = browser.post(address, data=sent, headers=header)
            assert answer.status_code in (200, 303, 409, 422), address


@light
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
