"""The moderators' desk: the comments that wait, and the decisions, which can be turned round."""

import datetime as dt

from flask import Blueprint, abort, render_template, request, url_for
from flask.wrappers import Response
from flask_login import current_user

from jobs import ring
from models import Comment, db
from views import doors, hypermedia
from views.comment_forms import RejectionForm

moderators = Blueprint("moderators", __name__, url_prefix="/moderation")
doors.admit(moderators, "moderator")

# What is said of a decision once it is made; {name} is the author's, as the public knows it.
DONE = {
    "approve": "Approved: the comment by {name} is public.",
    "reject": "Rejected: the comment by {name} is not public.",
    "spam": "Spam: the comment by {name} is not public.",
}


@moderators.get("")
def queue() -> str:
    return render_template("moderators/queue.html", comments=Comment.waiting(), as_of=_now())


@moderators.get("/decided")
def decided() -> str:
    return render_template("moderators/decided.html", comments=Comment.decided(), as_of=_now())


@moderators.post("/comments/<row:comment_id>/decision")
def decide(comment_id: int) -> Response:
    """One decision: approve, reject with a reason, or spam, by the button that was pressed."""
    comment, decision = Comment.hold(comment_id) or abort(404), request.form.get("decision", "")
    form = RejectionForm(request.form, prefix=f"c{comment_id}-")
    if decision not in DONE:
        abort(400)
    if decision == "reject" and not form.validate():
        return hypermedia.invalid(
            "moderators/comment.html", "moderators/_comment.html", comment=comment, form=form, as_of=_now()
        )
    if decision == "approve":
        comment.approve(current_user, _now(), _seen())
    else:
        reason, note = (form.reason.data, form.note.data) if decision == "reject" else ("spam", "")
        comment.reject(str(reason), current_user, _now(), _seen(), str(note or ""))
    db.session.commit()
    ring("send_letters")
    return _decided(comment, DONE[decision].format(name=comment.public_name))


def _decided(comment: Comment, notice: str) -> Response:
    """Back to the list that the moderator came from; htmx shows the decision in the place of the comment."""
    came_from = "moderators.decided" if request.form.get("list") == "decided" else "moderators.queue"
    return hypermedia.done(url_for(came_from), notice, "moderators/_comment.html", comment=comment, as_of=_now())


def _seen() -> int | None:
    """The version that the page showed when the button was pressed; two moderators may look at one comment."""
    seen = request.form.get("seen", "")
    return int(seen) if seen.isdecimal() and len(seen) < 10 else None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
