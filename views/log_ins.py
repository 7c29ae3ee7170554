"""What a log-in is to a browser: the mark in its cookie, and the row that it leads to. See docs/decisions/0039."""

import datetime as dt
import hashlib
import secrets

import sqlalchemy as sa
import structlog
from flask import Flask, after_this_request, current_app, g, request, session
from flask.wrappers import Response
from itsdangerous import BadData, URLSafeTimedSerializer

import law
from models import User, UserSession, begin_reading, begin_writing, db, is_away
from views import doors, hypermedia, limits, visitors

log = structlog.get_logger()
# The cookie of a browser in which somebody has logged in before, how long it lasts, and how many accounts it knows.
KNOWN, KNOWN_FOR, MOST_KNOWN = "known", dt.timedelta(days=365), 5
# Where the cookie of the log-in has the mark of half a log-in, and where to go on to once it is a whole one.
HALF = "half_log_in"


def watch(app: Flask) -> None:
    app.after_request(_note_that_seen)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@doors.login_manager.user_loader  # type: ignore[untyped-decorator]  # Flask-Login brings no types
def _user(mark: str) -> User | None:
    """Who lacks a second factor that is required is nobody, at every address, until it is set up."""
    as_of = now()
    found = UserSession.with_mark(mark, as_of)
    if found is None or doors.lacks_second_factor(found.user):
        return None
    g.log_in, g.unwritten_for = found.id, as_of - found.seen_at
    return found.user


def enter(person: User) -> None:
    """Logged in, with a mark that nobody has seen before, and with a cookie in which nothing of before survives. What
    stood there before, half a log-in or a whole one, has ended. Needs the user to be held; the edge commits."""
    _end_present_one()
    mark = UserSession.begin(person, visitors.browser(), visitors.network(24, 48), now())
    session.clear()
    session["_user_id"] = mark
    g._login_user = person
    remember(person.email)


def enter_half(person: User, where: str) -> None:
    """The password was right, and more is asked for. Needs the user to be held; the edge commits."""
    _end_present_one()
    mark = UserSession.begin(person, visitors.browser(), visitors.network(24, 48), now(), half=True)
    session.clear()
    session[HALF] = {"mark": mark, "next": where}


def half_logged_in() -> User | None:
    """Who has typed the password in this browser a moment ago, and was not logged out everywhere since."""
    half = session.get(HALF)
    found = UserSession.with_mark(str(half["mark"]), now(), half=True) if half else None
    if found is None:
        return None
    g.log_in = found.id
    return found.user


def is_still_open() -> bool:
    """Whether the log-in of this request, half or whole, has not ended since it was looked up."""
    return UserSession.numbered(g.log_in, now()) is not None


def leave() -> None:
    """Logged out here, and nowhere else. The edge commits."""
    _end_present_one()
    session.clear()
    g._login_user = doors.login_manager.anonymous_user()


# --- Browsers that are known -------------------------------------------------------------------------------


def remember(email: str) -> None:
    """From now on this browser is known to belong to whoever has this account. It opens nothing; its tries alone are
    counted by themselves. Nobody gets the cookie without having logged in, or set a password by letter."""
    number, accounts = _known()
    accounts = [_name_of(email), *(one for one in accounts if one != _name_of(email))][:MOST_KNOWN]
    value = _signer().dumps([number or secrets.token_hex(8), accounts])

    @after_this_request
    def give(answer: Response) -> Response:
        secure = current_app.config["SESSION_COOKIE_SECURE"]
        answer.set_cookie(_cookie_name(), value, max_age=KNOWN_FOR, secure=secure, httponly=True, samesite="Lax")
        return answer


def too_many_tries(kind: str, email: str) -> bool:
    """Count one more password ("login") or code ("code") that is tried for an account; True when it is one too many.

    Whoever tries an account from many places uses up its tries, so a browser in which its owner has logged in before
    has tries of its own: nobody can lock the owner out.
    """
    number, accounts = _known()
    if _name_of(email) in accounts:
        return limits.too_many(f"known {kind}", f"{number} {email}")
    from_network = kind == "login" and limits.too_many("login from network")
    return from_network or limits.too_many(kind) or limits.too_many(kind, email)


def _known() -> tuple[str, list[str]]:
    """The number of this browser and the accounts that it knows; nothing where it has no cookie of ours."""
    try:
        number, accounts = _signer().loads(
            request.cookies.get(_cookie_name(), ""), max_age=int(KNOWN_FOR.total_seconds())
        )
    except BadData:
        return "", []
    return number, accounts


def _name_of(email: str) -> str:
    """Whoever finds the cookie need not read whose it is."""
    return hashlib.sha256(f"known {email.casefold()}".encode()).hexdigest()[:20]


def _cookie_name() -> str:
    return f"__Host-{KNOWN}" if current_app.config["SESSION_COOKIE_SECURE"] else KNOWN


def _signer() -> URLSafeTimedSerializer:
    keys = [*current_app.config["SECRET_KEY_FALLBACKS"], current_app.config["SECRET_KEY"]]
    return URLSafeTimedSerializer(keys, salt="a known browser")


# --- Ends and signs of life --------------------------------------------------------------------------------


def _end_present_one() -> None:
    for mark, half in ((session.get("_user_id"), False), (session.get(HALF, {}).get("mark"), True)):
        found = UserSession.with_mark(str(mark), now(), half=half) if mark else None
        if found is not None:
            found.end(now())


def _note_that_seen(answer: Response) -> Response:
    """Written down every few minutes, after the page is made, so that no page waits for it. A page that asks again by
    itself is no sign of anybody: a log-in that was left open ends all the same."""
    by_itself = request.method == "GET" and hypermedia.wants_fragment(request.environ)
    if by_itself or answer.status_code >= 500 or g.get("unwritten_for", dt.timedelta(0)) < law.SEEN_PAUSE:
        return answer
    try:
        begin_writing(patient=False)
        UserSession.see(g.log_in, now())
        db.session.commit()
    except sa.exc.SQLAlchemyError as error:
        db.session.rollback()
        if not is_away(error):
            raise
        log.info("a log-in was not seen", why=type(error).__name__)
    begin_reading()
    return answer
