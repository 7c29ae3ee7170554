"""The moderators' desk: the comments that wait, and the decisions, which can be turned round."""

import datetime as dt

from flask import Blueprint, abort, render_template, request, url_for
from flask.wrappers import Response
from flask_login import current_user

from models import Comment, db
from views import doors, hypermedia
from views.forms import RejectionForm

moderators = Blueprint("moderators", __name__, url_prefix="/moderation")
doors.admit(moderators, "moderator")
DECISIONS_A_PAGE = 100


@moderators.get("")
def queue() -> str:
    return render_template("moderators/queue.html", comments=Comment.waiting(), as_of=_now())


@moderators.get("/decided")
def decided() -> str:
    """The newest decisions, and with `?skip=` the older ones."""
    asked = request.args.get("skip", "")
    skip = int(asked) if asked.isdecimal() and len(asked) < 10 else 0
    found = Comment.decided(skip, DECISIONS_A_PAGE + 1)
    return render_template(
        "moderators/decided.html", comments=found[:DECISIONS_A_PAGE], skip=skip, as_of=_now(),
        older=skip + DECISIONS_A_PAGE if len(found) > DECISIONS_A_PAGE else None,
    )  # fmt: skip


@moderators.post("/comments/<row:comment_id>/approval")
def approve_comment(comment_id: int) -> Response:
    comment = Comment.hold(comment_id) or abort(404)
    comment.approve(current_user, _now(), _seen())
    db.session.commit()
    return _decided(comment, f"Approved: the comment by {comment.public_name} is public.")


@moderators.post("/comments/<row:comment_id>/rejection")
def reject_comment(comment_id: int) -> Response:
    comment, form = Comment.hold(comment_id) or abort(404), RejectionForm(request.form, prefix=f"c{comment_id}-")
    if not form.validate():
        return hypermedia.invalid(
            "moderators/comment.html", "moderators/_comment.html", comment=comment, form=form, as_of=_now()
        )
    comment.reject(str(form.reason.data), current_user, _now(), _seen())
    db.session.commit()
    return _decided(comment, f"Rejected: the comment by {comment.public_name} is not public.")


def _decided(comment: Comment, notice: str) -> Response:
    """Back to the list that the moderator came from; htmx shows the decision in the place of the comment."""
    came_from = "moderators.decided" if request.form.get("list") == "decided" else "moderators.queue"
    return hypermedia.done(url_for(came_from), notice, "moderators/_comment.html", comment=comment, as_of=_now())


def _seen() -> str:
    """What the page showed when the button was pressed; two moderators may look at one comment."""
    return request.form.get("seen", "")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
