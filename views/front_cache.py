"""What everybody may read, kept for a moment in front of Flask: a page is made once a second, whoever asks for it.

Nothing personal can enter, for two reasons. Who brings a log-in walks past; and a page that is kept was never made for
anybody: the application is asked for it with a request of our own, which says nothing of who wanted it.
"""

import functools
import gzip
import hashlib
import io
import math
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlsplit

from flask import Flask
from flask.wrappers import Response
from flask_login import COOKIE_NAME
from werkzeug.datastructures import Headers
from werkzeug.http import parse_accept_header, parse_etags
from werkzeug.routing import Rule

import config
from views import hypermedia, languages

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

View = TypeVar("View", bound=Callable[..., Any])
# Seconds for which a page is given as it is. For as long again the old one is given while somebody makes the new one,
# and nobody ever gets an older one.
FRESH, OLDEST = 1.0, 2.0
FOR_EVERYBODY = "public, max-age=1, stale-while-revalidate=1"
# The page is another for each of these, and only for these: those that are in the key, and the cookie that keeps out.
MAY_VARY = {"accept-encoding", "cookie", "hx-history-restore-request", "hx-request"}
NOTHING = "204"
KEPT_STATUS = ("200", NOTHING)
SQUEEZED = ("text/", "image/svg+xml", "application/json")
LONGEST_QUERY = 500
# Whoever waits longer for a page that somebody else makes asks for one of their own.
LONGEST_WAIT = 10.0
MOST_PAGES = 4096
# What a page takes besides its text.
OVERHEAD = 2048
MEGABYTE = 1024 * 1024
# What an answer says that shows nothing: who may keep it, and that https is to be used. The rest is about what is
# shown, which the reader has already (304), or which there is none of (204).
SAID_OF_NOTHING = {"cache-control", "vary", "strict-transport-security", "x-accel-expires"}

# Where, with which part of the query, as a page or as a fragment.
Key = tuple[str, str, bool]
Known = dict[str, re.Pattern[str]]


def keeps(**known: str) -> Callable[[View], View]:
    """Declare that a view gives the same to everybody, but for these names of its query, each with the values that it
    understands. Whatever else stands in a query makes no difference to it."""

    def declared(view: View) -> View:
        view.kept = {name: re.compile(values) for name, values in known.items()}  # type: ignore[attr-defined]
        return view

    return declared


def is_for_everybody(view: Callable[..., Any] | None, answer: Response) -> bool:
    """Whether this answer, of which nothing else is known to be private, may be kept."""
    return hasattr(view, "kept") and str(answer.status_code) in KEPT_STATUS


def put_before(app: Flask) -> None:
    """Let the application be asked only for what is not kept."""
    settings: config.Settings = app.config["STANDING"]
    views = ((rule, app.view_functions[rule.endpoint]) for rule in app.url_map.iter_rules())
    if settings.front_cache_mb:
        app.wsgi_app = FrontCache(  # type: ignore[assignment, method-assign]
            app.wsgi_app, settings.site_url,
            [(rule, view.kept) for rule, view in views if hasattr(view, "kept")],
            cookies=(app.config["SESSION_COOKIE_NAME"], COOKIE_NAME),
            megabytes=settings.front_cache_mb, behind_a_proxy=settings.trusted_proxies > 0,
        )  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A page as it is sent: as it is, or squeezed. The two are different things, and so have different tags."""

    body: bytes
    tag: str
    headers: list[tuple[str, str]]
    unchanged_headers: list[tuple[str, str]]

    def is_what(self, if_none_match: str) -> bool:
        """Whether the reader has exactly this. Whatever is no list of tags is none."""
        if if_none_match == self.tag:
            return True
        return self.tag != "" and parse_etags(if_none_match).contains_weak(self.tag[1:-1])


@dataclass(frozen=True)
class Page:
    """An answer of the application, and since when it may be out of date."""

    status: str
    plain: Form
    squeezed: Form | None
    made_at: float
    is_for_everybody: bool

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.plain.body) + (len(self.squeezed.body) if self.squeezed else 0)

    def give(self, asked: dict[str, Any], start_response: "StartResponse", moment: float) -> Iterable[bytes]:
        if not self.is_for_everybody:
            start_response(self.status, self.plain.headers)
            return [] if asked["REQUEST_METHOD"] == "HEAD" else [self.plain.body]
        form = self.plain
        if self.squeezed and takes_gzip(asked.get("HTTP_ACCEPT_ENCODING", "")):
            form = self.squeezed
        # Rounded up, so that who keeps it further never adds our time to theirs.
        age = aged(math.ceil(moment - self.made_at))
        has = asked.get("HTTP_IF_NONE_MATCH")
        if has and form.is_what(has):
            start_response("304 NOT MODIFIED", [*form.unchanged_headers, age])
            return []
        start_response(self.status, [*form.headers, age])
        return [] if asked["REQUEST_METHOD"] == "HEAD" else [form.body]


@dataclass
class Making:
    """A page that somebody is making, for those who wait for it."""

    done: threading.Event = field(default_factory=threading.Event)
    page: Page | None = None


class FrontCache:
    """Answers for the application what it has answered a moment ago."""

    def __init__(
        self, app: "WSGIApplication", site_url: str, pages: Iterable[tuple[Rule, Known]], *,
        cookies: tuple[str, ...], megabytes: int, behind_a_proxy: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.app, self.clock = app, clock
        self.room, self.behind_a_proxy = megabytes * MEGABYTE, behind_a_proxy
        self._site = urlsplit(site_url)
        self._cookies = cookies
        self._patterns = [
            (re.compile(languages.ANY_PREFIX + re.sub("<[^>]+>", "[^/]+", rule.rule)), known) for rule, known in pages
        ]
        self._lock = threading.Lock()
        self._pages: OrderedDict[Key, Page] = OrderedDict()
        self._making: dict[Key, Making] = {}
        self.taken = 0

    def __call__(self, asked: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        key = self._key(asked)
        page = self._page(key) if key else None
        if page is None:
            return self.app(asked, start_response)
        return page.give(asked, start_response, self.clock())

    def __len__(self) -> int:
        return len(self._pages)

    def kept(self) -> list[Page]:
        """Every page that is kept, for whoever wants to look into them."""
        with self._lock:
            return list(self._pages.values())

    # Which page it is

    def _key(self, asked: dict[str, Any]) -> Key | None:
        """None is for the application. Nothing that a reader sends is looked at again but what is in the key."""
        if asked["REQUEST_METHOD"] not in ("GET", "HEAD") or asked.get("HTTP_HOST") != self._site.netloc:
            return None
        cookie = asked.get("HTTP_COOKIE")
        # Wherever the name stands, for programs differ in how they read a broken header.
        if cookie and any(name in cookie for name in self._cookies):
            return None
        if (
            "HTTP_AUTHORIZATION" in asked
            or asked.get("SCRIPT_NAME")
            or asked.get("CONTENT_LENGTH") not in (None, "", "0")
        ):
            return None
        path, query, fragment = asked["PATH_INFO"], asked.get("QUERY_STRING", ""), hypermedia.wants_fragment(asked)
        key = (path, query, fragment)
        if key in self._pages:
            # A key's own query is written as we write it.
            return key
        known = next((known for pattern, known in self._patterns if pattern.fullmatch(path)), None)
        said = None if known is None else _understood(query, known)
        return None if said is None else (path, said, fragment)

    # Whose turn it is to make it

    def _page(self, key: Key) -> Page | None:
        """The page, made by us or by whoever makes it already. None when it is not for keeping, so that each must ask
        for it alone."""
        with self._lock:
            page = self._pages.get(key)
            age = self.clock() - page.made_at if page else math.inf
            if page:
                self._pages.move_to_end(key)
            if age <= FRESH:
                return page
            making, is_ours = self._making.get(key), key not in self._making
            if making is None:
                making = self._making[key] = Making()
            elif age <= OLDEST:
                return page
        if is_ours:
            return self._make(key, making)
        making.done.wait(LONGEST_WAIT)
        return making.page

    def _make(self, key: Key, making: Making) -> Page:
        begun = self.clock()
        try:
            page = self._ask(key, begun)
            if page.is_for_everybody:
                making.page = page
                self._keep(key, page)
            return page
        finally:
            with self._lock:
                del self._making[key]
            making.done.set()

    def _keep(self, key: Key, page: Page) -> None:
        """The page that nobody has wanted for longest goes when there is no room."""
        with self._lock:
            if before := self._pages.pop(key, None):
                self.taken -= before.size
            self._pages[key] = page
            self.taken += page.size
            while self.taken > self.room or len(self._pages) > MOST_PAGES:
                _, gone = self._pages.popitem(last=False)
                self.taken -= gone.size

    # What the application says

    def _ask(self, key: Key, begun: float) -> Page:
        said: list[Any] = []
        chunks: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], object]:
            said[:] = [status, headers]
            return chunks.append

        answer = self.app(self._request(*key), start_response)
        try:
            chunks.extend(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()
        status, headers = said
        return self._page_of(status, headers, b"".join(chunks), begun)

    def _request(self, path: str, query: str, fragment: bool) -> dict[str, Any]:
        """Nobody's request: of the reader's own there is only what the key has."""
        secure = self._site.scheme == "https"
        return {
            "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": query,
            "SERVER_NAME": self._site.hostname or "", "SERVER_PORT": str(self._site.port or (443 if secure else 80)),
            "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": self._site.netloc,
            **(hypermedia.FRAGMENT if fragment else {}),
            "wsgi.version": (1, 0), "wsgi.url_scheme": self._site.scheme, "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": True, "wsgi.run_once": False,
        }  # fmt: skip

    def _page_of(self, status: str, headers: list[tuple[str, str]], body: bytes, begun: float) -> Page:
        own = Headers(headers)
        vary = {name.strip().lower() for line in own.getlist("Vary") for name in line.split(",")}
        for_everybody = (
            status[:3] in KEPT_STATUS
            and "Set-Cookie" not in own
            and own.get("Cache-Control", "").startswith("public,")
            and vary - {""} <= MAY_VARY
            and OVERHEAD + 2 * len(body) <= self.room / 8
        )
        if not for_everybody:
            return Page(status, Form(body, "", headers, []), None, begun, False)
        if status.startswith(NOTHING):
            headers = _of_nothing(headers)
        if self.behind_a_proxy:
            # A proxy of ours that keeps it too counts in whole seconds and only to the end of the one that is named: so
            # it has half a second to make the next one before this is too old. It must stand behind Cache-Control.
            headers = [*headers, ("X-Accel-Expires", f"@{int(time.time() - (self.clock() - begun) + 0.5)}")]
        plain, squeezed = _form(body, headers), None
        if body and own.get("Content-Type", "").startswith(SQUEEZED):
            packed = gzip.compress(body, mtime=0)
            squeezed = _form(packed, headers, "gzip")
        return Page(status, plain, squeezed, begun, True)


def _form(body: bytes, headers: list[tuple[str, str]], encoding: str = "") -> Form:
    left_out = {"content-length", "etag", "vary", "age", "last-modified"}
    vary = ", ".join([*(value for name, value in headers if name.lower() == "vary"), "Accept-Encoding"])
    kept = [(name, value) for name, value in headers if name.lower() not in left_out] + [("Vary", vary)]
    if not body:
        return Form(body, "", kept, kept)
    # Whoever has it already has also what is said of it. So that is part of the tag, but for until when it may be kept.
    said = "".join(f"{name}: {value}\n" for name, value in kept if name.lower() != "x-accel-expires")
    tag = f'"{hashlib.blake2b(said.encode() + body, digest_size=12).hexdigest()}"'
    kept.append(("ETag", tag))
    unchanged = [*_of_nothing(kept), ("ETag", tag)]
    sent = [*kept, ("Content-Length", str(len(body)))] + [("Content-Encoding", encoding)] * bool(encoding)
    return Form(body, tag, sent, unchanged)


def _of_nothing(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() in SAID_OF_NOTHING]


def _understood(query: str, known: Known) -> str | None:
    """What a page makes of a query, written in one way. None when that is for the application to say."""
    if not query:
        return ""
    if len(query) > LONGEST_QUERY:
        return None
    try:
        is_odd = "\0" in unquote_to_bytes(query.encode("latin-1")).decode()
    except UnicodeError:
        is_odd = True
    if is_odd:
        return None
    said: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in known:
            # Of a name that comes twice the first one counts.
            said.setdefault(name, value)
    if not all(known[name].fullmatch(value) for name, value in said.items()):
        return None
    return "&".join(f"{name}={quote(said[name])}" for name in sorted(said))


@functools.lru_cache(maxsize=256)
def aged(seconds: int) -> tuple[str, str]:
    return "Age", str(max(0, seconds))


@functools.lru_cache(maxsize=256)
def takes_gzip(accept_encoding: str) -> bool:
    """Whether a reader who says this unpacks gzip."""
    offered = parse_accept_header(accept_encoding)
    named = {value.lower(): quality for value, quality in offered}
    return named.get("gzip", named.get("*", 0)) > 0
