"""What supporters and readers say to a case owner, and the owner's answers. Its pages are the owners'."""

import datetime as dt

from flask import abort, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

from law import Refused
from models import Case, Comment, db
from views import hypermedia
from views.owners import own, owners
from views.update_forms import AnswerForm, SecondLookForm

A_PAGE = 30


@owners.get("/cases/<slug>/messages")
def messages(slug: str) -> str:
    """What supporters wrote with their pledges, newest first."""
    case = own(slug)
    pledges = case.messages(_before(), A_PAGE + 1)
    more = pledges[A_PAGE - 1].id if len(pledges) > A_PAGE else None
    return render_template("owners/messages.html", case=case, pledges=pledges[:A_PAGE], more=more)


@owners.get("/cases/<slug>/comments")
def comments(slug: str) -> str:
    """The public comments, newest first, to be answered."""
    case = own(slug)
    found = case.answerable_comments(_before(), A_PAGE + 1)
    more = found[A_PAGE - 1].id if len(found) > A_PAGE else None
    return render_template("owners/comments.html", case=case, comments=found[:A_PAGE], more=more, forms={})


@owners.post("/cases/<slug>/comments/<row:comment_id>/answer")
def answer_comment(slug: str, comment_id: int) -> AnyResponse:
    """Public at once, under the comment, as the case owner's."""
    case = own(slug)
    held, form = _public(case, comment_id), AnswerForm(request.form, prefix=f"answer-{comment_id}-")
    if not form.validate():
        return _again(case, held, "answer", form, 422)
    held.answer_by(current_user, str(form.words.data), _now())
    db.session.commit()
    return _done(case, held, gettext("Your answer is public."))


@owners.post("/cases/<slug>/comments/<row:comment_id>/second-look")
def ask_second_look(slug: str, comment_id: int) -> AnyResponse:
    """Only moderators decide: the comment stays as it is, and stands in their queue with the owner's words."""
    case = own(slug)
    held, form = _public(case, comment_id), SecondLookForm(request.form, prefix=f"look-{comment_id}-")
    if not form.validate():
        return _again(case, held, "look", form, 422)
    try:
        held.ask_second_look(current_user, str(form.words.data), _now())
    except Refused as refused:
        db.session.rollback()
        form.words.errors = [str(refused)]
        return _again(case, held, "look", form, 409)
    db.session.commit()
    return _done(case, held, gettext("The moderators look at it again. It stays public until they have decided."))


def _public(case: Case, comment_id: int) -> Comment:
    """A comment of this case that the public can read; of any other one its owner learns nothing either."""
    held = Comment.hold(comment_id)
    return held if held and held.case_id == case.id and held.public_body is not None else abort(404)


def _done(case: Case, held: Comment, notice: str) -> Response:
    where = url_for("owners.comments", slug=case.slug, before=held.id + 1, _anchor=f"comment-{held.id}")
    return hypermedia.done(where, notice, "owners/_comment.html", case=case, comment=held, forms={})


def _again(case: Case, held: Comment, name: str, form: AnswerForm | SecondLookForm, status: int) -> Response:
    """The comment with the form that was sent, and with all that was typed."""
    return hypermedia.invalid(
        "owners/comments.html", "owners/_comment.html", status, case=case, comment=held, comments=[held], more=None,
        form=form, forms={name: form},
    )  # fmt: skip


def _before() -> int:
    """Where the page begins: before the row of this number, or at the newest."""
    asked = request.args.get("before", "")
    return int(asked) if asked.isascii() and asked.isdecimal() and len(asked) < 10 else 0


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
