"""Pages that are kept in front of Flask: whoever asks gets the page of everybody, soon enough, and nothing else."""

import dataclasses
import datetime as dt
import gzip
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import Headers
from werkzeug.routing import Rule
from werkzeug.test import Client, TestResponse

from models import Breaker, Case, db
from tests.doorway import SAME_ORIGIN, Site, a_log_in, logged_in, set_otherwise
from tests.house import eventually
from tests.made import a_case, a_pledge, a_user, confirm, keep, now
from views import front_cache
from views.front_cache import FrontCache

SITE = "http://127.0.0.1:8000"
GZIP = {"Accept-Encoding": "br, gzip"}
HTMX = {"HX-Request": "true"}
CANARY = "canary7f3a"


class Behind:
    """What stands behind the cache, watched: how often it was asked and with what; a test may hold it up."""

    def __init__(self, app: Any) -> None:
        self.app, self.asked = app, list[dict[str, Any]]()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self, asked: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.asked.append(dict(asked))
        assert self.may_answer.wait(20)
        return self.app(asked, start_response)  # type: ignore[no-any-return]


class Clock:
    moment = 1000.0

    def __call__(self) -> float:
        return self.moment


@dataclasses.dataclass
class Watched:
    """A site, its cache, what is behind that, and a clock that only the test moves."""

    app: Flask
    cache: FrontCache
    behind: Behind
    clock: Clock

    def ask(self, path: str, headers: Any = (), method: str = "GET", **more: Any) -> TestResponse:
        """As a reader without a cookie, unless the test brings one."""
        return self.app.test_client(use_cookies=False).open(
            path, method=method, base_url=SITE, headers=Headers(headers), **more
        )

    def tags(self) -> set[str]:
        return {page.plain.tag for page in self.cache.kept()}


def watched(app: Flask) -> Watched:
    cache: Any = app.wsgi_app
    assert isinstance(cache, FrontCache)
    behind, clock = Behind(cache.app), Clock()
    cache.app, cache.clock = behind, clock
    return Watched(app, cache, behind, clock)


@pytest.fixture
def site(app: Flask) -> Watched:
    return watched(app)


def answers(*headers: tuple[str, str], status: str = "200 OK", body: bytes = b"words " * 100) -> Any:
    """An application that always says the same."""

    def app(_: dict[str, Any], start_response: Any) -> list[bytes]:
        own = {name for name, _ in headers}
        usual = [("Cache-Control", front_cache.FOR_EVERYBODY), ("Content-Type", "text/html"), ("Vary", "Cookie")]
        start_response(status, [*headers, *(one for one in usual if one[0] not in own)])
        return [body]

    return app


def cache_before(app: Any, **more: Any) -> FrontCache:
    behind = Behind(app)
    pages: list[tuple[Rule, front_cache.Known]] = [(Rule("/p/<name>"), {})]
    return FrontCache(behind, SITE, pages, cookies=("session",), clock=Clock(), **{"megabytes": 1, **more})


def asked_of(cache: FrontCache, path: str = "/p/a", **headers: str) -> TestResponse:
    return Client(cache).get(path, base_url=SITE, headers=Headers([*headers.items()]))


def at_once(number: int, ask: Callable[[], TestResponse]) -> tuple[ThreadPoolExecutor, list[Any]]:
    pool = ThreadPoolExecutor(number)
    return pool, [pool.submit(ask) for _ in range(number)]


# --- The page ----------------------------------------------------------------------------------------------


def test_three_readers_within_a_second_get_one_page_that_was_made_once(site: Watched) -> None:
    slug = a_case(pledged=[9_500]).slug
    pages = [site.ask(f"/cases/{slug}") for _ in range(3)]
    assert len(site.behind.asked) == 1
    assert len({page.data for page in pages}) == 1 and "<strong>£95</strong> pledged of £6,000" in pages[0].text
    site.cache.room = 0
    assert site.app.test_client().get(f"/cases/{slug}").data == pages[0].data


def test_every_answer_says_how_long_it_may_be_kept_how_old_it_is_and_by_what_it_differs(site: Watched) -> None:
    slug = a_case().slug
    page, fragment = site.ask(f"/cases/{slug}"), site.ask(f"/cases/{slug}/pledge-total", HTMX)
    assert page.headers["Cache-Control"] == "public, max-age=1, stale-while-revalidate=1" and page.headers["Age"] == "0"
    assert {"accept-encoding", "cookie"} == {*page.vary.as_set()}
    assert {"accept-encoding", "cookie", "hx-request", "hx-history-restore-request"} == {*fragment.vary.as_set()}
    assert "Content-Security-Policy" in page.headers and "Set-Cookie" not in page.headers
    site.clock.moment += 0.1
    # Rounded up: what keeps it further must not add its second to ours.
    assert site.ask(f"/cases/{slug}").headers["Age"] == "1"


def test_the_squeezed_page_is_the_page_and_is_squeezed_once(site: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    squeezed, compress = list[int](), gzip.compress

    def counted(body: bytes, **more: Any) -> bytes:
        squeezed.append(len(body))
        return compress(body, **more)

    monkeypatch.setattr(gzip, "compress", counted)
    slug = a_case().slug
    plain, *packed = [site.ask(f"/cases/{slug}", headers) for headers in ({}, GZIP, GZIP, {"Accept-Encoding": "*"})]
    assert squeezed == [len(plain.data)] and len(site.behind.asked) == 1
    for one in packed:
        assert one.headers["Content-Encoding"] == "gzip" and gzip.decompress(one.data) == plain.data
        assert one.headers["Content-Length"] == str(len(one.data)) and len(one.data) < len(plain.data) / 3
    # Two different things never have the same strong tag.
    assert packed[0].headers["ETag"] != plain.headers["ETag"] and packed[0].headers["ETag"].startswith('"')
    for said in ("", "br", "gzip;q=0", "identity, *;q=0", "gzip;q=nonsense;;", "\xff,,,"):
        answer = site.ask(f"/cases/{slug}", {"Accept-Encoding": said})
        assert "Content-Encoding" not in answer.headers and answer.data == plain.data, said


def test_who_asks_for_the_head_gets_the_head_of_the_page_also_when_nobody_asked_before(site: Watched) -> None:
    slug = a_case().slug
    for headers in ({}, GZIP):
        head, page = site.ask(f"/cases/{slug}", headers, "HEAD"), site.ask(f"/cases/{slug}", headers)
        assert head.data == b"" and page.data != b""
        assert head.status_code == 200 and head.headers == page.headers
    assert len(site.behind.asked) == 1


def test_who_has_the_page_is_told_so_and_junk_tags_get_the_page(site: Watched) -> None:
    slug = a_case().slug
    page = site.ask(f"/cases/{slug}")
    tag = page.headers["ETag"]
    for has in (tag, f"W/{tag}", f'"other", {tag}', f'W/"x",{tag} , "y"', "*"):
        unchanged = site.ask(f"/cases/{slug}", {"If-None-Match": has})
        assert (unchanged.status_code, unchanged.data) == (304, b""), has
        assert unchanged.headers["ETag"] == tag and unchanged.headers["Cache-Control"] == page.headers["Cache-Control"]
        assert unchanged.vary == page.vary and "Content-Length" not in unchanged.headers
    squeezed = site.ask(f"/cases/{slug}", GZIP).headers["ETag"]
    junk = ["", tag[:-2], '"', '""', "W/", ",,,", "é\xff", '"a"' * 3000, squeezed, f'"{tag}"', "/*/"]
    for has in junk:
        assert site.ask(f"/cases/{slug}", {"If-None-Match": has}).data == page.data, has
    assert len(site.behind.asked) == 1


def test_a_part_of_a_page_is_the_whole_page(site: Watched) -> None:
    slug = a_case().slug
    whole = site.ask(f"/cases/{slug}")
    for part in ("bytes=0-9", "bytes=-5", "bytes=99999999-", "bytes=0-1,5-6", "lines=1", "junk"):
        answer = site.ask(f"/cases/{slug}", {"Range": part, "If-Range": whole.headers["ETag"]})
        assert answer.status_code == 200 and answer.data == whole.data and len(site.behind.asked) == 1


# --- Soon enough -------------------------------------------------------------------------------------------


def changed(its_case: Case) -> None:
    """A pledge of £25 counts, and a comment is approved."""
    moderator = a_user("moderator")
    its_case, moderator = db.session.merge(its_case), db.session.merge(moderator)
    confirm(a_pledge(its_case.round, 2_500))
    its_case.take_comment("Ada", "ada@soon.example", "An approved comment.", now()).approve(moderator, now())
    keep()


def test_a_change_of_the_total_and_an_approved_comment_show_within_two_seconds_in_every_process(site: Watched) -> None:
    its_case = a_case(pledged=[9_500])
    pages = [f"/cases/{its_case.slug}{part}" for part in ("", "/pledge-total", "/comments")]
    with set_otherwise(site.app) as other:
        processes = [site, watched(other)]
        before = [[one.ask(page).data for page in pages] for one in processes]
        changed(its_case)
        for one in processes:
            one.clock.moment += 0.9
        assert [[one.ask(page).data for page in pages] for one in processes] == before
        for one in processes:
            one.clock.moment += 1.1001
            case_page, total, comments = [one.ask(page).text for page in pages]
            assert "<strong>£120</strong> pledged" in case_page and "<strong>£120</strong> pledged" in total
            assert "An approved comment." in case_page and "An approved comment." in comments
            assert len(one.behind.asked) == 6


def test_an_old_page_is_given_while_one_reader_makes_the_new_one_and_after_two_seconds_no_more(site: Watched) -> None:
    its_case = a_case(pledged=[9_500])
    page = f"/cases/{its_case.slug}"
    old = site.ask(page).data
    changed(its_case)
    site.clock.moment += 1.5
    site.behind.may_answer.clear()
    pool, (maker,) = at_once(1, lambda: site.ask(page))
    with pool:
        eventually(lambda: len(site.behind.asked) == 2)
        assert [site.ask(page).data == old for _ in range(20)] == [True] * 20
        site.clock.moment += 0.6
        waiting_pool, waiting = at_once(5, lambda: site.ask(page))
        with waiting_pool:
            eventually(lambda: site.cache._making and not any(one.done() for one in waiting))
            site.behind.may_answer.set()
            new = {one.result().data for one in [maker, *waiting]}
    assert len(new) == 1 and old not in new and len(site.behind.asked) == 2


def test_fifty_readers_of_a_page_that_nobody_has_are_answered_by_making_it_once() -> None:
    cache = cache_before(answers())
    behind: Any = cache.app
    behind.may_answer.clear()
    begun = threading.Barrier(50)

    def ask() -> TestResponse:
        begun.wait(20)
        return asked_of(cache)

    pool, asking = at_once(50, ask)
    with pool:
        eventually(lambda: len(behind.asked) == 1)
        behind.may_answer.set()
        pages = [one.result() for one in asking]
    assert [page.data for page in pages] == [b"words " * 100] * 50 and len(behind.asked) == 1


def test_fifty_readers_of_a_page_that_is_past_its_second_let_one_make_it_and_get_the_old_one() -> None:
    cache = cache_before(answers())
    behind: Any = cache.app
    clock: Any = cache.clock
    asked_of(cache)
    clock.moment += 1.5
    behind.may_answer.clear()
    pool, asking = at_once(50, lambda: asked_of(cache))
    with pool:
        eventually(lambda: sum(one.done() for one in asking) == 49)
        assert len(behind.asked) == 2
        behind.may_answer.set()
        assert {one.result().data for one in asking} == {b"words " * 100}
    assert len(behind.asked) == 2


def test_a_page_that_cannot_be_made_holds_nobody_up() -> None:
    def breaks(_: object, __: object) -> Any:
        raise RuntimeError("no page")

    cache = cache_before(breaks)
    behind: Any = cache.app
    behind.may_answer.clear()
    pool, asking = at_once(5, lambda: asked_of(cache))
    with pool:
        eventually(lambda: len(behind.asked) == 1)
        behind.may_answer.set()
        assert [type(one.exception(20)) for one in asking] == [RuntimeError] * 5
    assert len(cache) == 0 and not cache._making


# --- Nothing personal --------------------------------------------------------------------------------------

UNKEYED = [
    {"X-Forwarded-Host": f"{CANARY}.example"},
    {"X-Forwarded-Proto": "https", "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Prefix": f"/{CANARY}"},
    {"Forwarded": f"host={CANARY}.example;proto=https"},
    {"X-Host": f"{CANARY}.example", "X-Original-Url": f"/{CANARY}", "X-Rewrite-Url": f"/{CANARY}"},
    {"X-Http-Method-Override": "POST", "X-Method-Override": "DELETE"},
    {"Accept-Language": f"cy, {CANARY}"},
    {"User-Agent": CANARY, "Referer": f"{SITE}/cases/{CANARY}", "Origin": f"https://{CANARY}.example"},
    {"HX-Current-URL": f"https://{CANARY}.example/", "HX-Target": CANARY, "HX-Trigger": CANARY, "HX-Boosted": "true"},
    {"HX-Request": "false"},
    {"HX-Request": "TRUE"},
    {"HX-Request": "true", "HX-History-Restore-Request": "true"},
    {"Cookie": f"theme={CANARY}; csrf={CANARY}"},
    {"Cookie": f"\xff={CANARY}; ;=;;"},
    {"Accept": f"application/{CANARY}", "Content-Type": f"text/{CANARY}", "Te": "trailers", "Upgrade": "h2c"},
    {"Cache-Control": "no-cache", "Pragma": CANARY, "If-Modified-Since": "Thu, 01 Jan 2099 00:00:00 GMT"},
]  # fmt: skip


def test_what_stands_in_a_header_changes_no_page_of_anybody_else(site: Watched) -> None:
    slug = a_case(pledged=[9_500]).slug
    for number, headers in enumerate(UNKEYED):
        site.clock.moment += 2.1
        for page in ("/", f"/cases/{slug}", f"/cases/{slug}/pledge-total", f"/cases/{slug}/comments"):
            poisoned = site.ask(page, headers)
            clean = site.ask(page)
            assert clean.status_code == 200 and clean.data == poisoned.data, (page, headers)
            assert CANARY not in str(clean.headers) and clean.data.startswith(b"<!doctype html>")
        assert len(site.cache) == 4 and len(site.behind.asked) == 4 * number + 4, headers
    # A page is made with nothing of the request that it is made for.
    assert CANARY not in str(site.behind.asked) and "6.6.6.6" not in str(site.behind.asked)
    assert all(CANARY.encode() not in page.plain.body for page in site.cache.kept())


def test_the_application_hears_of_a_reader_only_what_is_in_the_key(site: Watched) -> None:
    slug = a_case().slug
    site.ask(f"/cases/{slug}/comments?before=7&x=1", {**HTMX, "X-Anything": "at all", "Accept": "text/html"})
    (asked,) = site.behind.asked
    assert {name: value for name, value in asked.items() if isinstance(value, str)} == {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": f"/cases/{slug}/comments", "QUERY_STRING": "before=7",
        "SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8000", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1:8000", "HTTP_HX_REQUEST": "true", "wsgi.url_scheme": "http",
    }  # fmt: skip


def test_nothing_of_somebody_who_is_logged_in_is_kept_and_nothing_that_is_kept_is_given_to_them(app: Flask) -> None:
    """Names, tokens, messages of the last form: whatever address they look at, readers never find it."""
    one_of_each = Site(app)
    site = watched(app)
    people = [a_user(role, name=f"{CANARY} {role}") for role in ("owner", "moderator", "staff")]
    for person in people:
        browser = logged_in(app, person)
        with browser.session_transaction(base_url=SITE) as session:
            session.update(_user_id=a_log_in(person), _flashes=[("message", f"{CANARY} was flashed")])
        for rule, method in one_of_each.rules():
            if method == "GET" and rule.endpoint != "static":
                answer = browser.get(one_of_each.address(rule), base_url=SITE)
                assert answer.headers["Cache-Control"] == "no-store" and "Age" not in answer.headers, rule
    assert len(site.cache) == 0


KEPT = {
    "public.home", "public.owner", "public.case", "public.pledge_total", "public.comments", "public.picture",
    "public.topic",
    "public.share_picture", "public.badge", "public.embed", "public.qr_code", "public.poster", "public.deadline",
    "public.cases_feed", "public.updates_feed", "public.site_map", "public.robots",
    "public.how_it_works", "public.accessibility", "public.privacy",
}  # fmt: skip
# What other sites show may be a minute old.
ELSEWHERE = ("/share.png", "/badge.svg", "/embed", "/qr.svg")


def test_of_all_pages_only_those_that_are_the_same_for_everybody_are_kept(app: Flask) -> None:
    one_of_each = Site(app)
    site = watched(app)
    kept = set()
    for rule, method in one_of_each.rules():
        for headers in ({}, HTMX):
            before = len(site.cache)
            answer = site.ask(one_of_each.address(rule), {**headers, **SAME_ORIGIN}, method)
            answer.close()
            if len(site.cache) > before:
                kept.add(rule.endpoint)
                for_elsewhere = rule.rule.endswith(ELSEWHERE)
                how_long = "public, max-age=60" if for_elsewhere else front_cache.FOR_EVERYBODY
                assert (method, answer.headers["Cache-Control"]) == ("GET", how_long)
    # There is no picture at the address that the site has for one.
    assert kept == KEPT - {"public.picture"}
    assert {name for name, view in app.view_functions.items() if hasattr(view, "kept")} == KEPT
    said = b"".join(page.plain.body for page in site.cache.kept())
    pledge, link = b"ada@example.org", b"/pledges/"
    assert pledge not in said and b"form_token" not in said and link not in re.sub(rb"/pledges/(find|\n)", b"", said)
    assert b"A canary comment." not in said


def test_whatever_may_be_a_log_in_walks_past(site: Watched) -> None:
    page = f"/cases/{a_case().slug}"
    cookies = ["session=x", "a=b; session=x", 'a="b;session=x', "remember_token=1|x", " session = x"]
    for headers in (*({"Cookie": cookie} for cookie in cookies), {"Authorization": "Basic eDp5"}):
        answer = site.ask(page, headers)
        assert answer.status_code == 200 and "Age" not in answer.headers, headers
    assert len(site.cache) == 0 and len(site.behind.asked) == 6


def test_a_moderator_sees_at_once_what_readers_see_within_two_seconds(site: Watched) -> None:
    its_case = a_case(pledged=[9_500])
    page = f"/cases/{its_case.slug}"
    site.ask(page)
    moderator = a_user("moderator")
    changed(its_case)
    browser = logged_in(site.app, moderator)
    with browser.session_transaction(base_url=SITE) as session:
        session.update(_user_id=a_log_in(moderator))
    assert "An approved comment." in browser.get(page, base_url=SITE).text
    assert "An approved comment." not in site.ask(page).text


def test_who_has_commented_is_shown_a_page_of_their_own_which_is_not_kept(site: Watched) -> None:
    slug = a_case().slug
    words = {"email": "ada@thanks.example", "body": "A comment that waits."}
    sent = site.ask(f"/cases/{slug}/comments", SAME_ORIGIN, "POST", data=words)
    thanks = site.ask(sent.location)
    assert "A comment that waits." in thanks.text and thanks.headers["Cache-Control"] == "no-store"
    assert len(site.cache) == 0


@pytest.mark.parametrize(
    "app_",
    [
        answers(("Set-Cookie", "session=x")),
        answers(("Cache-Control", "no-store")),
        answers(("Cache-Control", "private, max-age=1")),
        answers(("Cache-Control", "no-cache")),
        answers(("Vary", "Accept-Language")),
        answers(("Vary", "Cookie"), ("Vary", "HX-Request, User-Agent")),
        answers(("Vary", "*")),
        answers(status="301 MOVED PERMANENTLY"),
        answers(status="206 PARTIAL CONTENT"),
        answers(status="404 NOT FOUND"),
        answers(status="429 TOO MANY REQUESTS"),
        answers(status="500 INTERNAL SERVER ERROR"),
        answers(status="503 SERVICE UNAVAILABLE"),
        answers(body=b"x" * 200_000),
    ],
)
def test_an_answer_that_is_not_plainly_for_everybody_is_given_as_it_is_and_not_kept(app_: Any) -> None:
    cache = cache_before(app_)
    for number in (1, 2):
        answer, as_it_is = asked_of(cache), Client(app_).get("/p/a")
        assert (answer.status, answer.headers, answer.data) == (as_it_is.status, as_it_is.headers, as_it_is.data)
        behind: Any = cache.app
        assert len(cache) == 0 and len(behind.asked) == number


# --- One key for one page ----------------------------------------------------------------------------------


def test_noise_in_the_query_makes_no_new_page(site: Watched) -> None:
    slug = a_case().slug
    page = f"/cases/{slug}"
    noise = [
        "",
        "?",
        "?via=poster",
        f"?utm_source={CANARY}",
        "?seen=1.x&before=3",
        "?a=1&a=2&&=&b",
        "?fbclid=" + "x" * 400,
    ]
    assert len({site.ask(f"{page}{query}").data for query in noise}) == 1
    assert len(site.cache) == len(site.behind.asked) == 1
    assert site.behind.asked[0]["QUERY_STRING"] == ""
    assert (
        len(
            {site.ask(f"{page}/comments{query}").data for query in ("?x=1&before=7", "?before=7", "?before=7&before=9")}
        )
        == 1
    )
    assert len(site.cache) == 2


def test_an_odd_query_is_answered_by_the_application_and_takes_no_room(site: Watched) -> None:
    page = f"/cases/{a_case().slug}/comments"
    understood = ["before=x", "before=-1", "before=", f"before={'9' * 30}", "seen=%3Cb%3E", f"x={'y' * 20_000}"]
    no_words = ["before=%37%00", "x=%ff", "x=%00"]
    assert [site.ask(page, query_string=query).status_code for query in understood] == [200] * 6
    assert [site.ask(page, query_string=query).status_code for query in no_words] == [400] * 3
    assert len(site.cache) == 0 and len(site.behind.asked) == 9


def test_a_page_and_the_fragment_of_the_same_address_are_two(site: Watched) -> None:
    slug = a_case().slug
    page, fragment = (site.ask(f"/cases/{slug}/pledge-total", headers) for headers in ({}, HTMX))
    assert page.text.startswith("<!doctype html>") and fragment.text.strip().startswith('<div id="pledge-total"')
    restored = site.ask(f"/cases/{slug}/pledge-total", {**HTMX, "HX-History-Restore-Request": "true"})
    assert restored.data == page.data and len(site.cache) == 2


def test_a_page_in_another_language_is_another_page_whatever_the_browser_prefers(site: Watched) -> None:
    slug = a_case().slug
    for prefers in ("fr", "en", "de"):
        english, french = (
            site.ask(f"{language}/cases/{slug}", {"Accept-Language": prefers}) for language in ("", "/fr")
        )
        assert '<html lang="en-GB">' in english.text and "Pledge now" in english.text
        assert '<html lang="fr">' in french.text and "Pledge now" not in french.text
        assert {"Age"} <= set(french.headers.keys()) and "Accept-Language" not in french.headers["Vary"]
    assert len(site.cache) == len(site.behind.asked) == 2


def test_an_open_page_that_is_up_to_date_is_told_so_from_what_is_kept(site: Watched) -> None:
    its_case = a_case(pledged=[9_500])
    address = f"/cases/{its_case.slug}/pledge-total?seen={its_case.round.version}.7-days-to-go"
    assert [(site.ask(address, HTMX).status_code, len(site.behind.asked)) for _ in range(3)] == [(204, 1)] * 3


def test_what_shows_nothing_says_only_who_may_keep_it_and_a_page_with_another_policy_is_another_page() -> None:
    def cache_with(policy: str, **more: Any) -> FrontCache:
        of_the_page = ("Content-Security-Policy", policy), ("X-Content-Type-Options", "nosniff")
        return cache_before(answers(*of_the_page, ("Strict-Transport-Security", "max-age=9"), **more))

    page, other = (asked_of(cache_with(policy)) for policy in ("default-src 'none'", "default-src 'self'"))
    assert page.data == other.data and page.headers["ETag"] != other.headers["ETag"]
    unchanged = asked_of(cache_with("default-src 'none'"), **{"If-None-Match": page.headers["ETag"]})
    nothing = asked_of(cache_with("default-src 'none'", status="204 NO CONTENT", body=b""))
    empty = asked_of(cache_with("default-src 'none'", body=b""))
    told = {"Cache-Control", "Vary", "Strict-Transport-Security", "Age"}
    assert (unchanged.status_code, set(unchanged.headers.keys())) == (304, told | {"ETag"})
    assert (nothing.status_code, set(nothing.headers.keys())) == (204, told)
    for shown in (page, empty):
        assert shown.headers["Content-Security-Policy"] == "default-src 'none'" and "Content-Type" in shown.headers


def test_under_another_name_than_our_own_nothing_is_kept(site: Watched) -> None:
    address = f"/cases/{a_case().slug}"
    page = site.ask(address).data
    for host in ("evil.example", "127.0.0.1:8000.evil.example", "127.0.0.1", "localhost", "127.0.0.1:08000", ""):
        answer = site.ask(address, {"Host": host})
        assert answer.status_code in (200, 400) and "Age" not in answer.headers and b"evil" not in answer.data, host
        assert site.ask(address).data == page and len(site.cache) == 1


def test_a_case_that_is_hidden_is_gone_within_two_seconds(site: Watched, client: FlaskClient) -> None:
    its_case = a_case()
    page = f"/cases/{its_case.slug}"
    assert site.ask(page).status_code == 200
    its_case = db.session.merge(its_case)
    its_case.visibility = "hidden"
    keep()
    site.clock.moment += 2.1
    assert site.ask(page).status_code == 404
    its_case.visibility = "public"
    keep()


def test_the_list_says_within_two_seconds_that_pledging_rests_and_that_it_goes_on_by_the_clock(site: Watched) -> None:
    number, as_of = a_case().id, now()
    assert b"Pledging is paused." not in site.ask("/").data
    breaker = Breaker.hold(number, as_of)
    breaker.status, breaker.until = "paused", as_of + dt.timedelta(minutes=1)
    keep()
    site.clock.moment += 2.1
    assert b"Pledging is paused." in site.ask("/").data
    with time_machine.travel(as_of + dt.timedelta(minutes=1), tick=False):
        site.clock.moment += 2.1
        assert b"Pledging is paused." not in site.ask("/").data


# --- Not too much of it ------------------------------------------------------------------------------------


def test_the_pages_that_are_kept_take_no_more_than_their_room_and_the_wanted_ones_stay() -> None:
    cache = cache_before(answers(body=b"x" * 20_000))
    for number in range(500):
        asked_of(cache, f"/p/{number}")
        asked_of(cache, "/p/wanted")
    assert 40 <= len(cache) <= 1024 * 1024 // 22_000 and cache.taken <= 1024 * 1024
    assert cache.taken == sum(page.size for page in cache.kept())
    behind: Any = cache.app
    assert sum(asked["PATH_INFO"] == "/p/wanted" for asked in behind.asked) == 1


def test_there_are_never_more_pages_than_fit_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_cache, "MOST_PAGES", 10)
    cache = cache_before(answers(body=b"x"))
    for number in range(30):
        asked_of(cache, f"/p/{number}")
    assert len(cache) == 10 and not cache._making


def test_without_room_nothing_is_kept_by_a_browser_neither(app: Flask) -> None:
    with set_otherwise(app, front_cache_mb=0) as other:
        assert not isinstance(other.wsgi_app, FrontCache)
        assert other.test_client().get("/", base_url=SITE).headers["Cache-Control"] == "no-cache"


# --- Behind a proxy of ours --------------------------------------------------------------------------------


def test_a_proxy_of_ours_is_told_the_second_to_the_end_of_which_it_may_keep_a_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time", lambda: 5000.75)
    cache = cache_before(answers(), behind_a_proxy=True)
    clock: Any = cache.clock
    # Made at 5000.75, it may be given to the end of second 5001, and at 5002.75 it would be too old.
    assert asked_of(cache).headers["X-Accel-Expires"] == "@5001"
    clock.moment += 1.0
    assert asked_of(cache).headers["X-Accel-Expires"] == "@5001"
    names = [name for name, _ in asked_of(cache).headers]
    assert names.index("Cache-Control") < names.index("X-Accel-Expires")
    assert "X-Accel-Expires" not in asked_of(cache_before(answers())).headers
