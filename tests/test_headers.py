"""What every answer says to the browser: the policy, the headers, who may keep it, and no cookie for readers."""

import base64
import hashlib
import re
from urllib.parse import quote

import pytest
from bs4 import BeautifulSoup
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.doorway import SAME_ORIGIN, Site, logged_in, set_otherwise
from tests.made import a_case
from views.front_cache import FOR_EVERYBODY

HTMX = {"HX-Request": "true"}
SHA384 = "sha384-2OatzQy1H+Zd/IIrjr1TcuDGqLXeHhbooAyJY1KdQMKnr4LZ22k31GBLdYKHmVjg"


# What pages of other sites show.
ELSEWHERE = ("/share.png", "/badge.svg", "/embed", "/qr.svg")


@pytest.fixture
def site(app: Flask) -> Site:
    return Site(app)


def every_kind_of_answer(site: Site) -> list[TestResponse]:
    """Each address, asked as a page and by htmx, by strangers and by those who may; and each kind of error."""
    stranger, owner = site.app.test_client(), logged_in(site.app, site.owner)
    answers = [
        site.ask(browser, rule, method, headers)
        for rule, method in site.rules()
        for browser in (stranger, owner)
        for headers in ({}, HTMX)
    ]
    answers += [
        stranger.get("/no-such-page"),
        stranger.get("/no-such-page", headers=HTMX),
        stranger.get("/static/no-such-file.css"),
        stranger.post("/"),
        stranger.options("/"),
        stranger.head("/"),
        stranger.get("/", headers={"Host": "evil.example"}),
        stranger.post("/login", data={"password": "x" * 300_000}),
        stranger.post("/login", headers={"Sec-Fetch-Site": "cross-site"}),
        stranger.get("/", environ_overrides={"QUERY_STRING": "\xff"}),
    ]
    for answer in answers:
        answer.close()
    return answers


def test_every_answer_carries_exactly_the_policy_of_the_design(site: Site) -> None:
    # What readers have of the stylesheet, and the whole.
    styles = " ".join(f"'sha256-{_sha256(style)}'" for style in site.app.config["SITE_CSS"])
    keys, trouble = (_sha384(site, name) for name in ("keys.js", "trouble.js"))
    expected = (
        f"default-src 'none'; script-src '{SHA384}' '{keys}' '{trouble}'; style-src {styles} 'self'; "
        "img-src 'self'; connect-src 'self'; form-action 'self' http://127.0.0.1:1; base-uri 'none'; "
        "frame-ancestors 'none'; object-src 'none'; report-uri /policy-reports"
    )
    answers = every_kind_of_answer(site)
    assert {200, 301, 303, 400, 403, 404, 405, 413, 422} <= {answer.status_code for answer in answers}
    # The one page that other sites may frame; it can do nothing there.
    in_a_frame = (
        f"default-src 'none'; style-src {styles} 'self'; base-uri 'none'; form-action 'none'; frame-ancestors *"
    )
    said = {(a.request.path, a.status_code, *a.headers.getlist("Content-Security-Policy")) for a in answers}
    assert {one for one in said if one[2:] != (expected,)} == {("/cases/the-case/embed", 200, in_a_frame)}


def _sha256(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def test_readers_have_the_first_part_of_the_stylesheet_and_every_other_page_the_whole(site: Site) -> None:
    part, whole = site.app.config["SITE_CSS"]
    assert whole.startswith(part.rstrip()) and len(part) < 0.75 * len(whole)
    browsers = [site.app.test_client(), *(logged_in(site.app, it) for it in (site.owner, site.moderator, site.staff))]
    carried: dict[str, set[str]] = {}
    for rule in (rule for rule, method in site.rules() if method == "GET"):
        for browser in browsers:
            answer = site.ask(browser, rule, "GET")
            if answer.mimetype == "text/html" and (style := re.search("<style>(.*?)</style>", answer.text)):
                carried.setdefault(rule.endpoint, set()).add(style[1])
    rooms = {"public", "supporters", "accounts", "own_account", "owners", "moderators", "staff", "drafts"}
    assert {endpoint.partition(".")[0] for endpoint in carried} == rooms
    # The poster, and the one table that everybody may read, are for few.
    few = {"public.poster", "public.comment_decisions"}
    assert {one for one, styles in carried.items() if styles == {part}} == {
        one for one in carried if one.startswith(("public.", "supporters.")) and one not in few
    }
    assert {one for one, styles in carried.items() if styles == {whole}} == {
        one for one in carried if not one.startswith(("public.", "supporters.")) or one in few
    }
    for browser in browsers:
        assert f"<style>{whole}</style>" in browser.get("/no-such-page").text


def _sha384(site: Site, name: str) -> str:
    script = site.app.test_client().get(f"/static/{name}")
    digest = base64.b64encode(hashlib.sha384(script.data).digest()).decode()
    script.close()
    return f"sha384-{digest}"


def test_the_only_scripts_are_htmx_and_one_of_ours_with_the_hashes_that_the_policy_allows(client: FlaskClient) -> None:
    slug = a_case().slug
    page = BeautifulSoup(client.get(f"/cases/{slug}").text, "html5lib")
    scripts = page.select("script:not([type='application/ld+json'])")
    htmx, ours = [(tag["src"], tag["integrity"], tag.get("crossorigin"), tag.text) for tag in scripts]
    assert htmx == ("https://cdn.jsdelivr.net/npm/htmx.org@2.0.11/dist/htmx.min.js", SHA384, "anonymous", "")
    integrity = client.application.config["SCRIPTS"]["trouble.js"]
    assert ours == (f"/static/trouble.js?v={quote(integrity[7:19])}", integrity, None, "")
    assert not page.select("iframe, object, embed, base")


def test_the_moderators_queue_alone_has_another_script_of_our_own(site: Site) -> None:
    page = BeautifulSoup(logged_in(site.app, site.moderator).get("/moderation").text, "html5lib")
    ours, htmx, _ = page.select("script")
    assert str(ours["src"]).startswith("/static/keys.js?v=") and "defer" in ours.attrs and ours.text == ""
    assert ours["integrity"] == site.app.config["SCRIPTS"]["keys.js"] and htmx["integrity"] == SHA384


def test_stripes_origin_is_allowed_for_forms_and_for_nothing_else(app: Flask) -> None:
    with set_otherwise(app, checkout_origin="https://checkout.stripe.com") as site:
        policy = site.test_client().get("/").headers["Content-Security-Policy"]
    assert [part for part in policy.split("; ") if "stripe" in part] == [
        "form-action 'self' https://checkout.stripe.com"
    ]


def test_every_answer_carries_the_other_headers(site: Site) -> None:
    expected = {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        # Only over https: on plain http browsers ignore it, and on a developer's machine it would be a nuisance.
        "Strict-Transport-Security": None,
    }
    for answer in every_kind_of_answer(site):
        found = {name: answer.headers.get(name) for name in (*expected, "Cross-Origin-Resource-Policy")}
        shown_elsewhere = answer.request.path.startswith("/cases/the-case/") and answer.request.path.endswith(ELSEWHERE)
        origin = "cross-origin" if shown_elsewhere else "same-origin"
        assert found == {**expected, "Cross-Origin-Resource-Policy": origin}, (
            f"{answer.status_code} {answer.request.path}"
        )


def test_https_is_promised_for_a_year_where_the_site_has_it(app: Flask) -> None:
    with set_otherwise(app, site_url="https://standing.example") as site:
        answer = site.test_client().get("/", base_url="https://standing.example")
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"


# --- Who may keep an answer --------------------------------------------------------------------------------


def test_readers_get_no_cookie_and_no_token(site: Site) -> None:
    """Whatever a reader does, wrong or right: pages for everybody could not be shared if they carried one."""
    reader = site.app.test_client()
    answers = [site.ask(reader, rule, method, headers) for rule, method in site.rules() for headers in ({}, HTMX)]
    answers.append(reader.post("/cases/the-case/comments", data={"email": "a@example.org", "body": "Good luck."}))
    answers.append(reader.post("/login", data={"email": "a@example.org", "password": "wrong"}))
    for answer in answers:
        assert "Set-Cookie" not in answer.headers, answer.request.path
        assert b"form_token" not in answer.data, answer.request.path


def test_what_is_for_one_person_is_kept_by_no_cache_and_listed_by_no_search_engine(site: Site) -> None:
    private = re.compile(
        r"/owner(?!s)|/moderation|/staff|/pledges/|/comments/<link>|/drafts/<link>|/login|/logout|/sign-up|/account|/invitations/<link>|/email-changes/|/forgotten-password|/password-resets/|.*/pledges?$|.*/comments/thanks"
    )
    stranger = site.app.test_client()
    for rule, method in site.rules():
        answer = site.ask(stranger, rule, method)
        kept = answer.headers.get("Cache-Control"), answer.headers.get("X-Robots-Tag")
        if rule.endpoint == "accounts.log_out":
            continue  # For a stranger it is a way to the home page.
        is_for_everybody = hasattr(site.app.view_functions[rule.endpoint], "kept") and answer.status_code == 200
        public = FOR_EVERYBODY if is_for_everybody else "no-cache"
        public = "public, max-age=60" if rule.rule.endswith(ELSEWHERE) else public
        assert kept == (("no-store", "noindex") if private.match(rule.rule) else (public, None)), rule


def test_every_page_of_somebody_who_is_logged_in_is_kept_by_no_cache(site: Site) -> None:
    """It carries a token, also where everybody else gets a page that may be shared."""
    for person in (site.owner, site.moderator, site.staff):
        browser = logged_in(site.app, person)
        for rule, method in site.rules():
            if rule.endpoint != "static":
                answer = site.ask(browser, rule, method, SAME_ORIGIN)
                assert answer.headers["Cache-Control"] == "no-store", rule


def test_an_address_that_answers_htmx_otherwise_says_so(site: Site) -> None:
    browsers = [site.app.test_client(), logged_in(site.app, site.owner), logged_in(site.app, site.moderator)]
    differ = set()
    for browser in browsers:
        for rule in (rule for rule, method in site.rules() if method == "GET"):
            page, fragment = (site.ask(browser, rule, "GET", headers) for headers in ({}, HTMX))
            kinds = {(answer.status_code, answer.data.startswith(b"<!doctype html>")) for answer in (page, fragment)}
            if len(kinds) == 2:
                differ.add(rule.endpoint)
                assert "HX-Request" in page.vary and "HX-Request" in fragment.vary, rule
    assert {"public.pledge_total", "public.comments", "supporters.pledge_page", "owners.desk"} <= differ


# --- By which name -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "127.0.0.1@evil", ""])
@pytest.mark.parametrize(("method", "where"), [("GET", "/"), ("GET", "/login"), ("POST", "/login"), ("GET", "/none")])
def test_a_name_that_is_not_ours_gets_a_whole_page_and_nothing_else(
    client: FlaskClient, host: str, method: str, where: str
) -> None:
    answer = client.open(where, method=method, headers={"Host": host})
    assert answer.status_code == 400
    assert "This request makes no sense to us" in answer.text and "evil" not in answer.text


def test_our_own_names_are_answered(app: Flask) -> None:
    with set_otherwise(app, site_url="https://standing.example") as site:
        names = ["standing.example", "127.0.0.1:8000", "localhost", "standing.example:443"]
        assert [site.test_client().get("/", headers={"Host": name}).status_code for name in names] == [200] * 4
