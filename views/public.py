"""What anyone may read: the list of cases, the case page, its fragments, and the comment form."""

import datetime as dt
import hashlib
import hmac
import threading
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, abort, current_app, make_response, redirect, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import force_locale, gettext
from flask_login import current_user
from itsdangerous import BadSignature, URLSafeSerializer
from werkzeug.wrappers import Response as AnyResponse

import law
import models
from jobs import ring
from models import Case, CaseWords, Comment, Picture, begin_reading, db
from views import doors, front_cache, hypermedia, languages, limits, visitors
from views.forms import CommentForm
from views.words import time_left

COMMENTS_A_PAGE = 50
CASES_A_PAGE = 20
public = Blueprint("public", __name__)
# So many searches are made at once in a process: each is read anew, and takes its part from all who read.
_searching = threading.BoundedSemaphore(2)
doors.admit(public, "anyone")


@public.get("/")
@front_cache.keeps(q="", court="", topic="[a-z]{1,20}", show="[a-z-]{1,20}", after="[0-9]{1,9}")
def home() -> tuple[str, int]:
    """The cases that somebody looks for, a page at a time. What makes no sense in the address is as if not asked."""
    asked = {name: request.args.get(name, "")[: law.LONGEST_LINE] for name in ("q", "show", "topic", "court")}
    asked["show"] = asked["show"] if asked["show"] in law.CASE_FILTERS else "all"
    asked["topic"] = asked["topic"] if asked["topic"] in law.TOPICS else ""
    if asked["q"] and limits.too_many("search"):
        return _home(asked, [], gettext("Many searches came from your network. Please wait a minute.")), 429
    if not asked["q"]:
        return _home(asked, _looked_for(asked, None)), 200
    if not _searching.acquire(blocking=False):
        limits.come_back_in(5)
        return _home(asked, [], gettext("Many people search at this moment. Please try again in a few seconds.")), 503
    try:
        among = CaseWords.holding(asked["q"])
        is_cut = among is not None and len(among) == models.MATCHES_LOOKED_THROUGH
        return _home(asked, _looked_for(asked, among), is_cut=is_cut), 200
    finally:
        _searching.release()


def _looked_for(asked: dict[str, str], among: list[int] | None) -> list[Case]:
    return Case.found(among, asked["show"], court=asked["court"], topic=asked["topic"], after=number_of("after"),
                      limit=CASES_A_PAGE + 1)  # fmt: skip


def _home(asked: dict[str, str], found: list[Case], trouble: str = "", *, is_cut: bool = False) -> str:
    return render_template("cases/home.html", cases=found[:CASES_A_PAGE], more=len(found) > CASES_A_PAGE,
                           courts=Case.courts(), asked=asked, is_narrowed=request.args.keys() & asked, as_of=now(),
                           trouble=trouble, is_after=number_of("after") > 0,
                           looked_through=models.MATCHES_LOOKED_THROUGH if is_cut else 0)  # fmt: skip


@public.get("/owners/<row:number>")
@front_cache.keeps(after="[0-9]{1,9}")
def owner(number: int) -> str:
    """Somebody who has brought a case, and all of their cases that anybody may read."""
    found = Case.found(owner_id=number, after=number_of("after"), limit=CASES_A_PAGE + 1)
    # A page after the last one is empty, but its owner is no less there.
    known = found or Case.found(owner_id=number, limit=1) or abort(404)
    return render_template("cases/owner.html", owner=known[0].owner, cases=found[:CASES_A_PAGE],
                           more=len(found) > CASES_A_PAGE, as_of=now())  # fmt: skip


@public.get("/topics/<topic>")
@front_cache.keeps(after="[0-9]{1,9}")
def topic(topic: str) -> str:
    """All public cases about one of law.TOPICS."""
    words = law.TOPICS.get(topic) or abort(404)
    found = Case.found(topic=topic, after=number_of("after"), limit=CASES_A_PAGE + 1)
    return render_template("cases/topic.html", topic=topic, words=words, cases=found[:CASES_A_PAGE],
                           is_after=number_of("after") > 0, more=len(found) > CASES_A_PAGE, as_of=now())  # fmt: skip


def number_of(name: str) -> int:
    """The number of a row that the address names, or 0."""
    said = request.args.get(name, "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else 0


@public.get("/cases")
def cases() -> AnyResponse:
    return redirect(url_for("public.home"), 301)


@public.get("/cases/<slug>")
@front_cache.keeps()
def case(slug: str) -> str:
    """The case, or the statement that staff have put in its place."""
    if its_case := Case.whole(slug):
        return _case_page(its_case, CommentForm())
    return render_template("cases/notice.html", case=Case.under_notice(slug) or abort(404))


@public.get("/cases/<slug>/pledge-total")
@front_cache.keeps(seen=r"[0-9]{1,18}\.[a-z0-9-]{0,60}")
def pledge_total(slug: str) -> Response:
    its_case, as_of = found(slug), now()
    return hypermedia.refreshed(
        "cases/pledge_total.html", "cases/_pledge_total.html", total_mark(its_case, as_of),
        case=its_case, round=its_case.round, as_of=as_of,
    )  # fmt: skip


@public.get("/cases/<slug>/comments")
@front_cache.keeps(before="[0-9]{1,9}", seen=r"[0-9a-z.]{1,60}")
def comments(slug: str) -> Response:
    its_case, as_of, number = found(slug), now(), number_of("before")
    shown, earlier = _comments(its_case, number)
    return hypermedia.refreshed(
        "cases/comments.html", "cases/_comments.html", comments_mark(its_case, shown, as_of),
        case=its_case, round=its_case.round, comments=shown, earlier=earlier, before=number, as_of=as_of,
    )  # fmt: skip


@public.post("/cases/<slug>/comments")
def comment(slug: str) -> Response:
    its_case, form = found(slug), CommentForm(request.form)
    if not form.validate():
        return _comment_again(its_case, form, 422)
    if its_case.comments_locked:
        form.body.errors = [gettext("Comments on this case are closed, so nothing was sent.")]
        return _comment_again(its_case, form, 409)
    if limits.too_many("comment"):
        form.body.errors = [gettext("You have sent many comments. Please wait an hour, then send this one.")]
        return _comment_again(its_case, form, 429)
    as_of = now()
    taken = its_case.take_comment(
        form.name.data or "", str(form.email.data), str(form.body.data), as_of,
        network=network_of_today(as_of), trapped=bool(request.form.get("website")), language=languages.asked_for(),
    )  # fmt: skip
    is_new = taken.is_new
    if sent := is_new and limits.may_write_to(taken.email):
        taken.owe_link(now())
    db.session.commit()
    ring("send_letters")
    thanks = url_for("public.comment_thanks", slug=slug, waiting=_seal().dumps([taken.id, is_new, sent]))
    return hypermedia.done(
        thanks, "", "cases/_comment_thanks.html", case=its_case, comment=taken, is_new=is_new, sent=sent
    )


@public.get("/cases/<slug>/comments/thanks")
def comment_thanks(slug: str) -> str:
    """Shows the waiting text to the person who was sent here, and to nobody else."""
    its_case = found(slug)
    doors.never_store()
    try:
        number, is_new, sent = _seal().loads(request.args.get("waiting", ""))
    except BadSignature:
        abort(404)
    taken = db.session.scalar(sa.select(Comment).where(Comment.id == number, Comment.case_id == its_case.id))
    return render_template(
        "cases/comment_thanks.html", case=its_case, comment=taken or abort(404), is_new=is_new, sent=sent
    )


@public.get("/pictures/<sha256>")
@front_cache.keeps()
def picture(sha256: str) -> AnyResponse:
    """A picture of a public page, for everybody and for ever; that of a draft, or of an update that is for supporters
    only, is for its owner and for staff."""
    hung = Picture.with_hash(sha256)
    seen = [one for one in hung if one.is_public]
    if not seen and current_user.is_authenticated:
        seen = [one for one in hung if one.is_seen_by(current_user)]
        doors.never_store()
    return send_picture(seen[0] if seen else abort(404))


def send_picture(hung: Picture) -> AnyResponse:
    """The address is made of the content, which therefore never changes."""
    answer = make_response(hung.content)
    answer.mimetype = hung.media_type
    answer.cache_control.public = True
    answer.cache_control.max_age = 365 * 24 * 3600
    answer.cache_control.immutable = True
    answer.set_etag(hung.sha256)
    return answer.make_conditional(request)


@public.get("/favicon.ico")
def favicon() -> AnyResponse:
    return redirect(url_for("static", filename="icon.svg"), 301)


@public.get("/healthz")
def health() -> tuple[str, int, dict[str, str]]:
    """Whether this process answers; says nothing of what stands behind it."""
    return "ok", 200, {"Content-Type": "text/plain"}


def found(slug: str) -> Case:
    """The public case of this address, or 404."""
    return Case.public(slug) or abort(404)


def total_mark(its_case: Case, as_of: dt.datetime) -> str:
    """Changes exactly when the total, the state, the words of the time left or the button do."""
    its_round = its_case.round
    with force_locale(law.ENGLISH):
        left = time_left(its_round, as_of).replace(" ", "-") if its_round.is_open(as_of) else ""
    return f"{its_round.version}.{left}{'-paused' if its_case.is_paused(as_of) else ''}"


def comments_mark(its_case: Case, shown: list[Comment], as_of: dt.datetime) -> str:
    """Changes when a comment is approved, answered or taken back, and when the round ends and the page may stop
    asking."""
    moments = [moment for c in shown for moment in (c.decided_at, c.answered_at) if moment]
    newest = max((int(moment.timestamp() * 1000) for moment in moments), default=0)
    # When one of a full page is taken back an earlier one comes in, so that only the first is another.
    first = f".{shown[0].id}" if len(shown) == COMMENTS_A_PAGE else ""
    return f"{len(shown)}.{newest}{first}{'' if its_case.round.is_open(as_of) else '.ended'}"


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _comments(its_case: Case, before: int = 0) -> tuple[list[Comment], int]:
    """A page of the comments, and the number before which the earlier ones lie; 0 when there are none."""
    found = its_case.public_comments(COMMENTS_A_PAGE + 1, before)
    shown = found[-COMMENTS_A_PAGE:]
    return shown, shown[0].id if len(found) > len(shown) else 0


def _case_page(its_case: Case, form: CommentForm) -> str:
    return render_template("cases/case.html", form=form, **_shown(its_case))


def _comment_again(its_case: Case, form: CommentForm, status: int) -> Response:
    # Nothing was written, and nobody who writes has to wait while the page is drawn.
    begin_reading()
    return hypermedia.invalid("cases/comment_form.html", "cases/_comment_form.html", status, form=form, case=its_case)


def _shown(its_case: Case) -> dict[str, Any]:
    (comments, earlier), as_of = _comments(its_case), now()
    return {
        "case": its_case,
        "round": its_case.round,
        "updates": its_case.published_updates(),
        "comments": comments,
        "earlier": earlier,
        "as_of": as_of,
        "mark": total_mark(its_case, as_of),
        "comments_mark": comments_mark(its_case, comments, as_of),
    }


def network_of_today(as_of: dt.datetime) -> str:
    """A mark for the network that this request came from. It is another one each day, and leads back to nobody."""
    words = f"network\0{as_of.date()}\0{visitors.network(24, 64) or 'nowhere'}"
    secret = str(current_app.config["LINK_SECRETS"][0])
    return hmac.new(secret.encode(), words.encode(), hashlib.sha256).hexdigest()[:24]


def _seal() -> URLSafeSerializer:
    # The last secret signs, and each of them is believed.
    return URLSafeSerializer(current_app.config["LINK_SECRETS"][::-1], salt="comment-thanks")
