"""The moderators' desk: the comments that wait, and the decisions, which can be turned round."""

import datetime as dt
from typing import Any
from urllib.parse import parse_qsl, urlencode

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import gettext, ngettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

import law
from jobs import ring
from law import N_, Refused
from models import COUNTED_AT_MOST, Background, Comment, LogLine, Queue, Waiting, begin_reading, db
from views import doors, hypermedia, states
from views.comment_forms import RejectionForm
from views.forms import readable

moderators = Blueprint("moderators", __name__, url_prefix="/moderation")
doors.admit(moderators, "moderator")
DECISIONS_A_PAGE = 100

PAGE = 50
# What is said of a decision once it is made; the name is the author's, as the public knows it.
DONE = {
    "approve": N_("Approved: the comment by %(name)s is public."),
    "reject": N_("Rejected: the comment by %(name)s is not public."),
    "spam": N_("Spam: the comment by %(name)s is not public."),
}
# Where comments are decided without the script that moves the focus on: among the decided ones, and one by itself.
NO_KEYS = ("decided", "alone")
# What the address of the queue may ask for, beside where its page begins.
ASKED = ("case", "over", "flagged", "order", "like")


@moderators.get("")
def queue() -> str:
    asked, as_of = _asked(request.args), _now()
    part = Queue(
        case=str(asked.get("case", "")), over=int(asked.get("over", 0)), signs=asked.get("flagged") == "signs",
        reported=asked.get("flagged") == "reported",
        like=str(asked.get("like", "")), risk=asked.get("order") == "risk", after=request.args.get("after", ""),
    )  # fmt: skip
    comments, more = part.page(as_of, PAGE)
    waiting = Waiting.at(as_of)
    return render_template(
        "moderators/queue.html", waiting=waiting, more=more, asked=asked, cases=Waiting.cases(),
        undoable=Comment.undoable_of(current_user, as_of), list=urlencode(asked), counted_at=as_of,
        matching=part.count(as_of) if asked else waiting.count, most=COUNTED_AT_MOST, **_shown(comments, as_of),
    )  # fmt: skip


@moderators.get("/decided")
def decided() -> str:
    """The newest decisions, and with `?after=` the older ones."""
    after = request.args.get("after", "")
    comments, more = Comment.decided(DECISIONS_A_PAGE, after)
    return render_template("moderators/decided.html", **_shown(comments, _now()), after=after, more=more)


@moderators.get("/answers")
def answers() -> str:
    """What case owners have answered, which no moderator read before, and what they ask to be looked at again."""
    before = request.args.get("before", "")
    number = int(before) if before.isascii() and before.isdecimal() and len(before) < 10 else 0
    lines = LogLine.newest(PAGE + 1, number, of_owners=True)
    more = lines[PAGE - 1].event.id if len(lines) > PAGE else None
    return render_template("moderators/answers.html", lines=lines[:PAGE], more=more)


@moderators.get("/comments/<row:comment_id>")
def comment(comment_id: int) -> str:
    return render_template("moderators/comment.html", **_item(db.session.get(Comment, comment_id) or abort(404)))


@moderators.get("/letters/<link>")
def from_letter(link: str) -> str:
    """From a letter to this moderator. It shows the comment with its buttons; opening it decides nothing."""
    found = Comment.by_digest_link(link, current_user) or abort(404)
    comment, is_as_it_was = found
    changed = "" if is_as_it_was else gettext("This comment has changed, or was decided, since the letter was sent.")
    return render_template("moderators/comment.html", warning=changed, **_item(comment))


@moderators.post("/comments/<row:comment_id>/decision")
def decide(comment_id: int) -> Response:
    """One decision: approve, reject with a reason, or spam, by the button that was pressed."""
    held, decision = Comment.hold(comment_id) or abort(404), request.form.get("decision", "")
    form = RejectionForm(request.form, prefix=f"c{comment_id}-")
    if decision not in DONE:
        abort(400)
    if decision == "reject" and not form.validate():
        return hypermedia.invalid(
            "moderators/comment.html", "moderators/_comment.html", form=form, next=_next(), **_item(held)
        )
    _apply(decision, form, held, _seen())
    db.session.commit()
    ring("send_letters")
    return _back_to_list(held, gettext(DONE[decision], name=held.public_name))


@moderators.post("/decisions")
def decide_many() -> AnyResponse:
    """The same decision for every comment that is ticked. Each carries the version that was seen; a comment that has
    changed since is left as it is, and said."""
    decision, form = request.form.get("decision", ""), RejectionForm(request.form, prefix="all-")
    ticked = dict(pair for pair in map(_pair, request.form.getlist("ticked")) if pair)
    if decision not in DONE:
        abort(400)
    if not ticked or len(ticked) > law.MOST_AT_ONCE:
        raise Refused(
            gettext("Tick at least one comment, and at most %(most)s. Nothing was done.", most=law.MOST_AT_ONCE)
        )
    if decision == "reject" and not form.validate():
        wrong_note = [str(told) for told in form.note.errors[:1] if not form.reason.errors]
        raise Refused(*wrong_note or [gettext("Choose a reason for the comments that you ticked. Nothing was done.")])
    done, left = 0, []
    for held in Comment.hold_all(ticked):
        try:
            _apply(decision, form, held, ticked[held.id])
            done += 1
        except Refused as told:
            left.append(
                gettext("The comment by %(name)s was left as it is. %(why)s", name=held.public_name, why=str(told))
            )
    db.session.commit()
    ring("send_letters")
    flash(_done_to(decision, done))
    for sentence in left:
        flash(sentence)
    return redirect(_list_address(None), 303)


def _done_to(decision: str, done: int) -> str:
    """ "Approved: 2 comments."; those that were left as they are follow by themselves."""
    none = {
        "approve": gettext("Approved: no comments."),
        "reject": gettext("Rejected: no comments."),
        "spam": gettext("Spam: no comments."),
    }
    some = {
        "approve": ngettext("Approved: %(num)s comment.", "Approved: %(num)s comments.", done),
        "reject": ngettext("Rejected: %(num)s comment.", "Rejected: %(num)s comments.", done),
        "spam": ngettext("Spam: %(num)s comment.", "Spam: %(num)s comments.", done),
    }
    return some[decision] if done else none[decision]


def _apply(decision: str, form: RejectionForm, held: Comment, seen: int) -> None:
    if decision == "approve":
        held.approve(current_user, _now(), seen)
    else:
        reason, note = (form.reason.data, form.note.data) if decision == "reject" else ("spam", "")
        held.reject(str(reason), current_user, _now(), seen, str(note or ""))


@moderators.post("/comments/<row:comment_id>/undo")
def undo(comment_id: int) -> Response:
    held = Comment.hold(comment_id) or abort(404)
    held.undo(current_user, _now())
    db.session.commit()
    notice = gettext(
        "Undone: the comment by %(name)s is %(status)s again.", name=held.public_name, status=states.state(held.status)
    )
    where = _list_address(held.id if held.waits_since else None)
    return hypermedia.done(where, notice, "moderators/_comment.html", next=_next(), **_item(held), **_recounted())


@moderators.post("/keys")
def switch_keys() -> AnyResponse:
    """Single keys are off or on for this moderator, on every machine (WCAG 2.1.4)."""
    current_user.uses_keys = request.form.get("wanted") == "y"
    db.session.commit()
    flash(gettext("The keys are on.") if current_user.uses_keys else gettext("The keys are off."))
    return redirect(url_for("moderators.queue"), 303)


@moderators.post("/comments/<row:comment_id>/claim")
def claim(comment_id: int) -> AnyResponse:
    """Open one comment by itself; the others are shown who reads it."""
    held = Comment.hold(comment_id) or abort(404)
    held.claim(current_user, _now())
    db.session.commit()
    return redirect(url_for("moderators.comment", comment_id=held.id), 303)


@moderators.errorhandler(Refused)
def refused(refusal: Refused) -> Response:
    """Nothing was done: the comment as it stands now, with what has happened to it in the meantime, and the note that
    its author would have got."""
    note = [(name, words) for name, words in doors.words_typed() if name == "note"]
    number = (request.view_args or {}).get("comment_id")
    begin_reading()
    current = db.session.get(Comment, number) if number else None
    if current is None:
        heading = gettext(doors.WORDS[409][0])
        return hypermedia.trouble("errors/error.html", 409, heading=heading, words=str(refusal), typed=note)
    return hypermedia.page_or_fragment(
        "moderators/comment.html", "moderators/_comment.html", 409, warning=str(refusal), next=_next(), typed=note,
        **_item(current),
    )  # fmt: skip


def _back_to_list(decided_one: Comment, notice: str) -> Response:
    """Back to the list that the moderator came from, at the next comment; htmx shows what was done in its place."""
    shown = {"comment": decided_one, "next": _next(), "list": _came_from(), "as_of": _now(), "no_keys": NO_KEYS}
    return hypermedia.done(_list_address(_next()), notice, "moderators/_decided.html", **shown, **_recounted())


def _recounted() -> dict[str, Any]:
    """How many wait once something was decided, for the heading of the queue; other lists have no such heading."""
    counted_at = _now()
    if _came_from() in NO_KEYS:
        return {}
    return {
        "recounted": True, "waiting": Waiting.at(counted_at), "most": COUNTED_AT_MOST, "counted_at": counted_at,
    }  # fmt: skip


def _list_address(number: int | None) -> str:
    came_from, anchor = _came_from(), f"item-{number}" if number else None
    if came_from == "decided":
        return url_for("moderators.decided", _anchor=anchor)
    return url_for("moderators.queue", _anchor=anchor, **_asked(dict(parse_qsl(came_from))))


def _came_from() -> str:
    """The list that the form stood in: "decided", "alone", or what the queue was asked for, as in its address."""
    return readable(request.form.get("list", ""), "")


def _asked(source: Any) -> dict[str, Any]:
    """What of the queue somebody wants to see, without what makes no sense."""
    asked: dict[str, Any] = {name: readable(source.get(name, ""), "") for name in ASKED}
    asked["over"] = int(asked["over"]) if asked["over"] in ("12", "24", "48") else 0
    return {name: words for name, words in asked.items() if words}


def _shown(comments: list[Comment], as_of: dt.datetime) -> dict[str, Any]:
    return {
        "comments": comments, "known": Background.of(comments), "as_of": as_of, "target": law.COMMENT_TARGET,
        "form_of_all": RejectionForm(prefix="all-"), "no_keys": NO_KEYS,
    }  # fmt: skip


def _item(one: Comment) -> dict[str, Any]:
    came_from = _came_from()
    in_queue = request.method == "POST" and came_from not in NO_KEYS
    return {"comment": one, **_shown([one], _now()), "list": came_from, "in_queue": in_queue}


def _next() -> int | None:
    """The comment after this one on the page that the button stood on."""
    return _number("next")


def _seen() -> int:
    """The version that the page showed when the button was pressed; two moderators may look at one comment. Whoever
    does not say has seen none."""
    return _number("seen") or 0


def _pair(ticked: str) -> tuple[int, int] | None:
    """A ticked comment and the version that was seen: "12.3"."""
    number, _, version = ticked.partition(".")
    whole = all(part.isascii() and part.isdigit() and len(part) < 10 for part in (number, version))
    return (int(number), int(version)) if whole else None


def _number(name: str) -> int | None:
    typed = request.form.get(name, "")
    return int(typed) if typed.isascii() and typed.isdigit() and len(typed) < 10 else None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
