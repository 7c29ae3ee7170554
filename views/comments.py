"""What a comment's author does by its private link, and what readers say against a comment. These pages belong to the
blueprint of the public."""

from flask import abort, redirect, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import gettext
from werkzeug.wrappers import Response as AnyResponse

from jobs import ring
from models import Comment, db, held_about
from views import doors, hypermedia, limits
from views.comment_forms import ReportForm, TextForm
from views.files import as_file
from views.public import found, network_of_today, now, public

# The routes that are found by the private link of a comment.
PURPOSES = dict.fromkeys(
    ("public.own_comment", "public.edit_comment", "public.withdraw_comment", "public.comment_data",
     "public.erase_comment"), "comment",
)  # fmt: skip


@public.before_request
def find_by_link() -> Response | None:
    """Turn the private link of the address into its comment, or say that it is none; nothing here may be cached."""
    values = request.view_args or {}
    if request.endpoint not in PURPOSES or "link" not in values:
        return None
    doors.never_store()
    comment = values["comment"] = Comment.by_link(values.pop("link"))
    return (
        None
        if comment
        else hypermedia.trouble("comments/no_such_link.html", 404, words=gettext("This link opens nothing."))
    )


@public.get("/comments/<link>")
def own_comment(comment: Comment) -> str:
    return _own_page(comment, TextForm(body=comment.body))


@public.post("/comments/<link>/text")
def edit_comment(comment: Comment) -> AnyResponse | tuple[str, int]:
    form = TextForm(request.form)
    # What cannot be changed any more has no field in which a mistake could be mended: `edit` says so below.
    if comment.is_editable(now()):
        if not form.validate():
            return _own_page(comment, form), 422
        if limits.too_many("comment"):
            form.body.errors = [gettext("You have sent many comments. Please wait an hour, then send this one.")]
            return _own_page(comment, form), 429
    held = Comment.hold(comment.id) or abort(404)
    held.edit(str(form.body.data), now())
    db.session.commit()
    return redirect(url_for("public.own_comment", link=held.link()), 303)


@public.post("/comments/<link>/withdrawal")
def withdraw_comment(comment: Comment) -> AnyResponse:
    held = Comment.hold(comment.id) or abort(404)
    held.withdraw(now())
    db.session.commit()
    return redirect(url_for("public.own_comment", link=held.link()), 303)


@public.get("/comments/<link>/data")
def comment_data(comment: Comment) -> Response:
    """All that we keep of its author with this comment, as a file."""
    return as_file({"comment": held_about(comment)}, "comment")


@public.post("/comments/<link>/erasure")
def erase_comment(comment: Comment) -> str:
    held = Comment.hold(comment.id) or abort(404)
    its_case = held.case
    held.erase("author", now())
    db.session.commit()
    ring("finish_erasures")
    return render_template("comments/erased.html", case=its_case)


@public.get("/comments/decisions")
def comment_decisions() -> str:
    """How many comments were published and rejected, and why: numbers only."""
    return render_template("comments/decisions.html", months=Comment.decisions(now()))


# --- Reports of readers ------------------------------------------------------------------------------------


@public.get("/comments/<row:comment_id>/report")
def report_form(comment_id: int) -> str:
    return _report_page(_public(db.session.get(Comment, comment_id)), ReportForm())


@public.post("/comments/<row:comment_id>/report")
def report(comment_id: int) -> AnyResponse | tuple[str, int]:
    held, form = _public(Comment.hold(comment_id)), ReportForm(request.form)
    if not form.validate():
        return _report_page(held, form), 422
    if limits.too_many("report"):
        form.reason.errors = [gettext("Many reports came from your network. Please wait an hour, then send this one.")]
        return _report_page(held, form), 429
    as_of = now()
    held.report(str(form.reason.data), str(form.words.data or ""), network_of_today(as_of), as_of)
    db.session.commit()
    return redirect(url_for("public.reported", slug=held.case.slug), 303)


@public.get("/cases/<slug>/comments/reported")
def reported(slug: str) -> str:
    return render_template("comments/reported.html", case=found(slug))


def _public(comment: Comment | None) -> Comment:
    """A comment that the public can read; of any other one nobody learns that it is there."""
    if comment is None or comment.public_body is None:
        abort(404)
    found(comment.case.slug)
    return comment


def _report_page(comment: Comment, form: ReportForm) -> str:
    return render_template("comments/report.html", comment=comment, case=comment.case, form=form)


def _own_page(comment: Comment, form: TextForm) -> str:
    return render_template("comments/own.html", comment=comment, case=comment.case, form=form, as_of=now())
