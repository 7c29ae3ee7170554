"""The draft of a case for somebody without a log-in: its lawyer, who has a private link from the owner."""

import datetime as dt

from flask import Blueprint, abort, redirect, render_template, url_for
from werkzeug.wrappers import Response as AnyResponse

import law
from models import Case
from views import doors
from views.public import send_picture

drafts = Blueprint("drafts", __name__, url_prefix="/drafts")
doors.admit(drafts, "the holder of a private link")


@drafts.before_request
def keep_private() -> None:
    """Nobody may keep it, and no search engine list it."""
    doors.never_store()


@drafts.get("/<link>")
def draft(link: str) -> AnyResponse | str:
    """Exactly the page that the owner sees as a preview; once the case is public, the public one."""
    case = _case(link)
    if case.status not in law.HIDDEN_CASES:
        return redirect(url_for("public.case", slug=case.slug), 303)
    as_of = dt.datetime.now(dt.UTC)
    return render_template("cases/draft.html", case=case, round=case.prospect(as_of), as_of=as_of, link=link)


@drafts.get("/<link>/pictures/<sha256>")
def picture(link: str, sha256: str) -> AnyResponse:
    hung = next((one for one in _case(link).pictures if one.sha256 == sha256), None)
    return send_picture(hung or abort(404))


def _case(link: str) -> Case:
    return Case.by_preview_link(link) or abort(404)
