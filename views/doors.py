"""Who may come in, and with what: cross-site posts, guards, headers, error pages."""

import base64
import functools
import hashlib
import secrets
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes, urlsplit

import sqlalchemy as sa
import structlog
from flask import Blueprint, Flask, abort, current_app, g, request, session, url_for
from flask.globals import request_ctx
from flask.wrappers import Response
from flask_babel import gettext
from flask_login import LoginManager, current_user
from flask_wtf.csrf import generate_csrf, validate_csrf
from werkzeug.exceptions import HTTPException
from werkzeug.routing import IntegerConverter, Map
from wtforms.validators import ValidationError

import config
from law import N_, Refused
from models import ROLES, Busy, User, begin_reading, begin_writing, db, is_away
from views import front_cache, hypermedia, languages, limits
from views.forms import readable

log = structlog.get_logger()
login_manager = LoginManager()
# It would mark in the cookie that somebody comes from another network; ours end by their rows alone.
login_manager.session_protection = None

# Blueprint -> who may use it. A test walks the URL map and fails on a blueprint without a policy.
POLICIES: dict[str, str] = {"static": "anyone"}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# The policy of a blueprint that is for every role.
LOGGED_IN = "whoever is logged in"
# What our forms carry besides the words that somebody typed into them.
NOT_TYPED = (
    "form_token", "list", "seen", "next", "decision", "ticked", "preview", "version", "page", "then", "by_itself",
    "case", "promise", "form_key", "opened",
    # The trap, which only programs fill in.
    "website",
    # A password is typed again rather than shown, and so is every code.
    "password", "new_password", "code", "recovery_code", "new_code", "offer", "codes",
)  # fmt: skip
# Somebody may not, or may not any more; it is gone; it was decided meanwhile; too often.
KEEPS_TYPED = (403, 404, 409, 429)
# The forms that everybody may send, and what is written there: the rest is soon typed again. It is given back where a
# page of ours had asked for it, and so not for a case that does not exist, nor to another site.
WRITTEN_BY_ANYBODY = {"supporters.pledge": ("message",), "public.comment": ("body",)}
# The same for everybody who gets them at all, so that any cache may keep them, whoever is logged in.
SAME_FOR_ALL = ("static", "public.picture")
# A draft may bring so much, since a long story in letters beyond ASCII is sent as three characters for each byte.
MEGABYTE = 1024 * 1024
LARGEST_REPORT = 16 * 1024
# Stripe signs its posts itself. Browsers report what a page did wrong without saying from where, or with our cookie,
# and nothing comes of it but a line in the log. Nothing else may come from another site.
FROM_ELSEWHERE = ("webhooks.stripe", "public.policy_report")
# Where a browser reports to, and the name by which the policy calls it.
REPORTS, REPORTS_TO = "/policy-reports", "policy"


def admit(blueprint: Blueprint, who: str) -> None:
    """Declare who may use a blueprint: anyone, the holder of a private link, or a role."""
    POLICIES[blueprint.name] = who
    if who in ROLES:
        blueprint.before_request(functools.partial(_require_role, who))
    elif who == LOGGED_IN:
        blueprint.before_request(_require_log_in)


def watch(app: Flask) -> None:
    """Put the doors into the application."""
    settings: config.Settings = app.config["STANDING"]
    limits.limiter.init_app(app)
    login_manager.init_app(app)
    app.url_map.converters["row"] = RowNumber
    app.before_request(_refuse_other_names)
    if not settings.trusted_proxies:
        app.before_request(_notice_a_proxy)
    app.before_request(choose_transaction)
    app.before_request(_refuse_gibberish)
    app.before_request(_refuse_cross_site)
    app.before_request(languages.lead_to_its_address)
    app.after_request(
        functools.partial(_headers, _policy(settings, app.config["SITE_CSS"], app.config["SCRIPTS"].values()))
    )
    app.register_error_handler(Refused, _refused)
    app.register_error_handler(Busy, _busy)
    app.register_error_handler(HTTPException, _error_page)
    app.register_error_handler(Exception, _unexpected)
    app.register_error_handler(sa.exc.SQLAlchemyError, _away)
    app.add_template_global(generate_csrf, "form_token")


def _notice_a_proxy() -> None:
    """With a proxy in front that nobody told us of, everybody comes from its address and shares its limits."""
    if "X-Forwarded-For" in request.headers and "warned of a proxy" not in current_app.extensions:
        current_app.extensions["warned of a proxy"] = True
        log.warning("a forwarding header came and is not believed; is TRUSTED_PROXIES set?")


def _refuse_other_names() -> None:
    """Asked for by a name that is not ours, Flask has no addresses to write a page with, so nothing else may answer."""
    if request_ctx.url_adapter is None:
        abort(400)


def choose_transaction() -> None:
    """Reads never wait for writers; writers take their lock at once. Before the first query of a request."""
    if request.method in SAFE_METHODS:
        begin_reading()
    else:
        # All that is sent is read before the lock is taken, or one slow sender would stop every other writer.
        _admit_what_is_usual()
        request.get_data()
        begin_writing()


def _admit_what_is_usual() -> None:
    """Whether somebody is logged in is read from the signed cookie alone; the guard looks into the books later."""
    if request.endpoint == "public.policy_report":
        request.max_content_length = LARGEST_REPORT
    if request.endpoint == "owners.save_draft" and session.get("_user_id"):
        request.max_content_length = request.max_form_memory_size = MEGABYTE
    if request.endpoint in ("owners.keep_picture", "owners.keep_update_picture") and session.get("_user_id"):
        # A picture that is somewhat too large is told so at its field.
        request.max_content_length = 2 * config.current().largest_picture_mb * MEGABYTE


class RowNumber(IntegerConverter):
    """The number of a row in an address. One that no database can hold is no page, instead of an error there."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map, min=1, max=2**31 - 1)


def _refuse_gibberish() -> None:
    """Browsers send UTF-8. Other bytes would come out as other words than were typed, or not at all."""
    sent = [request.query_string]
    if request.mimetype == "application/x-www-form-urlencoded":
        sent.append(request.get_data())
    try:
        decoded = [unquote_to_bytes(part).decode() for part in sent]
    except UnicodeDecodeError:
        abort(400)
    # PostgreSQL cannot even be asked about a text with this in it. In a form the field says so.
    if "\0" in request.path or "\0" in decoded[0]:
        abort(400)


def lacks_second_factor(user: User) -> bool:
    return config.current().requires_second_factor and user.needs_second_factor


# --- Cross-site posts --------------------------------------------------------------------------------------


def _refuse_cross_site() -> Response | None:
    """Only our own pages may post to us. Text browsers say nothing of where they come from: they may post
    without a log-in, or with the token of our form. The cookie of a log-in that has ended opens nothing any more,
    so it keeps nobody out either."""
    if request.method in SAFE_METHODS or request.endpoint in FROM_ELSEWHERE:
        return None
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        allowed = site in ("same-origin", "none")
    elif origin is not None:
        allowed = origin == config.current().site_url
    else:
        return None if not current_user.is_authenticated or has_form_token() else _too_old()
    if not allowed:
        words = gettext("This form was sent from another site, so nothing was done. Open our page and send it there.")
        abort(403, words)
    return None


def has_form_token() -> bool:
    """Whether the form carries the token that logged-in pages put into theirs."""
    try:
        validate_csrf(request.form.get("form_token"))
    except ValidationError:
        return False
    return True


# --- Guards ------------------------------------------------------------------------------------------------


def _require_role(role: str) -> Response | None:
    if current_user.is_authenticated and current_user.role != role:
        abort(403, gettext("Your account cannot open this page."))
    return _require_log_in()


def _require_log_in() -> Response | None:
    if not current_user.is_authenticated:
        where = request.script_root + request.full_path.rstrip("?") if request.method == "GET" else ""
        log_in = url_for("accounts.log_in", next=where or None)
        return _unsent(gettext("Your log-in has ended"), log_in) if words_typed() else hypermedia.elsewhere(log_in)
    if request.method not in SAFE_METHODS and not has_form_token():
        return _too_old()
    return None


def _too_old() -> Response:
    """The form has no token of this log-in: its page was opened before it, or is not ours."""
    return _unsent(gettext("This page was too old to be used"))


def _unsent(heading: str, log_in: str = "") -> Response:
    """Nothing was done, and nothing is lost: the page shows what was typed."""
    page, fragment = "errors/unsent.html", "errors/_unsent.html"
    return hypermedia.page_or_fragment(page, fragment, 403, heading=heading, log_in=log_in, typed=words_typed())


def words_typed() -> list[tuple[str, str]]:
    """(name, words) of what the form brought that a person would not like to type again."""
    ours = WRITTEN_BY_ANYBODY.get(str(request.endpoint), request.form)
    sent = [(name, words) for name, words in request.form.items() if name in ours and name not in NOT_TYPED]
    kept = [(readable(name.rpartition("-")[2]), readable(words)) for name, words in sent]
    return [(name, words) for name, words in kept if name and words.strip()]


def safe_next(where: str) -> str:
    """A path of our own to go on to after the log-in, or nothing: never another site."""
    odd = any(not letter.isprintable() or letter in " \\" for letter in where)
    return where if where.startswith("/") and not where.startswith("//") and not odd else ""


def never_store() -> None:
    """This answer is personal, or made for one reader: no cache may keep it, no search engine list it."""
    g.private = True


def may_be_framed() -> None:
    """Any site may show this page in a frame; it holds no form and no script, so nothing can be pressed unawares."""
    g.framed = True


def may_be_shown_elsewhere() -> None:
    """Pages of any site may show this picture."""
    g.shown_elsewhere = True


# --- Headers -----------------------------------------------------------------------------------------------


def _policy(settings: config.Settings, site_css: Iterable[str], our_scripts: Iterable[str]) -> str:
    """Three scripts by their hashes, one style by the hashes of its part and its whole, and nothing from elsewhere."""
    styles = (base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in site_css)
    return "; ".join((
        "default-src 'none'",
        " ".join(("script-src", *(f"'{one}'" for one in (settings.htmx_integrity, *our_scripts)))),
        " ".join(("style-src", *(f"'sha256-{one}'" for one in styles), "'self'")),
        "img-src 'self'",
        "connect-src 'self'",
        f"form-action 'self' {settings.checkout_origin}",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
        f"report-uri {REPORTS}",
        # Chromium believes the name of such a place over https alone, and with it would look at no other.
        *([f"report-to {REPORTS_TO}"] if settings.is_https else []),
    ))  # fmt: skip


def _in_a_frame(policy: str) -> str:
    """The policy of a page that other sites may frame: it may look as ours do, and do nothing."""
    (style,) = (part for part in policy.split("; ") if part.startswith("style-src"))
    return f"default-src 'none'; {style}; base-uri 'none'; form-action 'none'; frame-ancestors *"


def _headers(policy: str, answer: Response) -> Response:
    settings = config.current()
    answer.headers["Content-Security-Policy"] = _in_a_frame(policy) if g.get("framed") else policy
    answer.headers["X-Content-Type-Options"] = "nosniff"
    # Not no-referrer: Chromium would then send "Origin: null" with our own forms.
    answer.headers["Referrer-Policy"] = "same-origin"
    answer.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    elsewhere = g.get("framed") or g.get("shown_elsewhere")
    answer.headers["Cross-Origin-Resource-Policy"] = "cross-origin" if elsewhere else "same-origin"
    answer.headers["Permissions-Policy"] = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
    if g.get("retry_after"):
        answer.headers["Retry-After"] = str(g.retry_after)
    if settings.is_https:
        answer.headers["Strict-Transport-Security"] = "max-age=31536000"
        if answer.mimetype == "text/html" and not g.get("framed") and not hypermedia.wants_fragment(request.environ):
            # What htmx swaps in stands in a page that has said so already.
            answer.headers["Reporting-Endpoints"] = f'{REPORTS_TO}="{REPORTS}"'
    policy_of_page = POLICIES.get((request.blueprint or "static"), "anyone")
    # Every page of somebody who is logged in carries that person's token, whoever else may read the page.
    logged_in = request.endpoint not in SAME_FOR_ALL and bool(session)
    if g.get("private") or policy_of_page in (*ROLES, LOGGED_IN) or logged_in:
        answer.headers["Cache-Control"] = "no-store"
        answer.headers["X-Robots-Tag"] = "noindex"
    elif settings.front_cache_mb and front_cache.is_for_everybody(
        current_app.view_functions.get(request.endpoint or ""), answer
    ):
        answer.headers.setdefault("Cache-Control", front_cache.FOR_EVERYBODY)
    elif request.endpoint != "static":
        answer.headers.setdefault("Cache-Control", "no-cache")
    return answer


# --- Error pages -------------------------------------------------------------------------------------------

WORDS = {
    400: (N_("This request makes no sense to us"), N_("Go back, load the page again, and try once more.")),
    403: (N_("You cannot do this"), N_("If you think that you should, please write to us.")),
    404: (N_("There is no such page"), N_("The address may be mistyped, or the page may have been taken down.")),
    405: (N_("This page cannot be used that way"), N_("Go back and use the buttons of the page.")),
    409: (N_("This cannot be done any more"), ""),
    413: (N_("That was too much at once"), N_("Shorten what you sent, and try again.")),
    429: (N_("Too many tries"), N_("Please wait a while, then try again.")),
    500: (N_("Something went wrong on our side"), N_("Nothing of what you sent was half done. Please try again.")),
    503: (
        N_("We cannot look into our books just now"),
        N_("Please wait a minute, then send it again: nothing is done twice."),
    ),
}


def _refused(refusal: Refused) -> Response:
    db.session.rollback()
    begin_reading()
    return _trouble(409, gettext(WORDS[409][0]), str(refusal))


def _busy(_error: Busy) -> Response:
    """Each password that is compared takes much memory, so only so many are compared at once."""
    db.session.rollback()
    begin_reading()
    g.retry_after = 5
    words = gettext("Nothing was done. Please wait a few seconds, then send it again.")
    return _trouble(503, gettext("Many people are logging in just now"), words)


def _trouble(code: int, heading: str, words: str) -> Response:
    """Nothing was done; whoever was refused a form of ours finds below what they typed into it."""
    ours = current_user.is_authenticated or (code in (409, 429) and request.endpoint in WRITTEN_BY_ANYBODY)
    typed = words_typed() if code in KEEPS_TYPED and request.method == "POST" and ours else []
    return hypermedia.trouble("errors/error.html", code, heading=heading, words=words, typed=typed)


def _error_page(error: HTTPException) -> Response:
    db.session.rollback()
    begin_reading()
    if request_ctx.url_adapter is None:
        # We were asked for by a name that is not ours, so Flask knows none to write addresses with.
        ours = urlsplit(config.current().site_url).netloc
        request_ctx.url_adapter = current_app.url_map.bind(ours, script_name=request.script_root or None)
    if error.response is not None or (error.code or 500) < 400:
        return error.get_response()  # type: ignore[return-value]
    code = error.code or 500
    heading, words = WORDS.get(code, WORDS[400 if code < 500 else 500])
    own_words = error.description if code == 403 and error.description != type(error).description else ""
    answer = _trouble(code, gettext(heading), own_words or (gettext(words) if words else ""))
    if isinstance(getattr(error, "valid_methods", None), (list, set, tuple)):
        answer.headers["Allow"] = ", ".join(error.valid_methods)  # type: ignore[attr-defined]
    return answer


def _away(error: sa.exc.SQLAlchemyError) -> Response:
    """The database cannot be reached or is too busy: no mistake of anybody's, and over soon."""
    if not is_away(error):
        return _unexpected(error)
    reference = secrets.token_hex(4)
    log.error("the database is away", reference=reference, endpoint=request.endpoint, why=type(error).__name__)
    return _without_books(503, reference=reference)


def _unexpected(error: Exception) -> Response:
    """A bug: written down with a number that the reader can name, and nothing is told of its inside."""
    reference = secrets.token_hex(4)
    log.error("unexpected", reference=reference, endpoint=request.endpoint, exc_info=error)
    return _without_books(500, reference=reference)


def _without_books(code: int, **context: str) -> Response:
    """A page that needs no database. Who asks is not looked up again for it: that may be what has failed."""
    db.session.rollback()
    begin_reading()
    g._login_user = login_manager.anonymous_user()
    if code == 503:
        g.retry_after = 30
    heading, words = WORDS[code]
    return hypermedia.trouble("errors/error.html", code, heading=gettext(heading), words=gettext(words), **context)
