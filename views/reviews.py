"""The review of a case by staff: everything that is needed to decide, and the decision. Its pages are the staff's."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from flask import abort, flash, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

import law
from jobs import ring
from law import N_, Refused
from models import Case, db
from views.draft_form import LiveFromForm
from views.forms import ReasonForm, TypedForm
from views.staff import staff
from views.workshop import as_it_would_look

# The address of a decision with a reason -> the verb, and what the desk says afterwards.
WITH_REASON: dict[str, tuple[Callable[..., None], str]] = {
    "changes": (Case.ask_changes, N_("Changes are asked for: its owner gets a letter with your reason.")),
    "rejection": (Case.reject, N_("The case is rejected: its owner gets a letter with your reason.")),
}


@staff.get("/reviews/<slug>")
def review(slug: str) -> AnyResponse | str:
    case = _sent(slug)
    if case.status not in law.HIDDEN_CASES:
        return redirect(url_for("staff.case", slug=slug), 303)
    return _review_page(case)


@staff.get("/reviews/<slug>/preview")
def preview_case(slug: str) -> AnyResponse | str:
    case = _sent(slug)
    if case.status not in law.HIDDEN_CASES:
        return redirect(url_for("public.case", slug=slug), 303)
    return render_template("cases/draft.html", **as_it_would_look(case))


@staff.post("/reviews/<slug>/approval")
def approve_case(slug: str) -> AnyResponse | tuple[str, int]:
    held = Case.hold(_sent(slug).id)
    try:
        held.approve(current_user, _now(), _seen())
    except Refused as refused:
        return _undecided(held.id, str(refused))
    return _decided(gettext("The case is live: its owner gets a letter."))


@staff.post("/reviews/<slug>/timed-approval")
def approve_case_for_later(slug: str) -> AnyResponse | tuple[str, int]:
    held, form = Case.hold(_sent(slug).id), LiveFromForm(request.form, prefix="later-")
    live_from = form.instant(held.zone)
    if live_from is None:
        return _review_page(held, "later", form), 422
    try:
        held.approve(current_user, _now(), _seen(), live_from)
    except Refused as refused:
        return _undecided(held.id, str(refused), "later", form)
    return _decided(gettext("The case is approved: it goes live by itself, and its owner gets a letter."))


@staff.post("/reviews/<slug>/changes")
def ask_for_changes(slug: str) -> AnyResponse | tuple[str, int]:
    return _decide(slug, "changes")


@staff.post("/reviews/<slug>/rejection")
def reject_case(slug: str) -> AnyResponse | tuple[str, int]:
    return _decide(slug, "rejection")


def _decide(slug: str, way: str) -> AnyResponse | tuple[str, int]:
    held, form = Case.hold(_sent(slug).id), ReasonForm(request.form, prefix=f"{way}-")
    if not form.validate():
        return _review_page(held, way, form), 422
    verb, said = WITH_REASON[way]
    try:
        verb(held, str(form.reason.data), current_user, _now(), _seen())
    except Refused as refused:
        return _undecided(held.id, str(refused), way, form)
    return _decided(gettext(said))


def _sent(slug: str) -> Case:
    """A case that was sent for review once, or 404: a draft that never was is its owner's alone."""
    return db.session.scalar(sa.select(Case).where(Case.slug == slug, Case.submissions > 0)) or abort(404)


def _seen() -> str:
    """The mark of the case as the page showed it when the button was pressed."""
    return request.form.get("seen", "")


def _decided(notice: str) -> AnyResponse:
    db.session.commit()
    ring("send_letters")
    flash(notice)
    return redirect(url_for("staff.desk"), 303)


def _undecided(case_id: int, why: str, way: str = "", form: TypedForm | None = None) -> tuple[str, int]:
    """Somebody else was quicker, or its round could not be: nothing was done, and what was typed stays."""
    db.session.rollback()
    return _review_page(db.session.get_one(Case, case_id), way, form, problem=why), 409


def _review_page(case: Case, way: str = "", form: TypedForm | None = None, **context: Any) -> str:
    """The page of a review; `form` is the one that was sent, by its way."""
    forms: dict[str, TypedForm] = {name: ReasonForm(prefix=f"{name}-") for name in WITH_REASON}
    forms["later"] = LiveFromForm(prefix="later-", data={"time": "09:00"})
    if form is not None:
        forms[way] = form
    return render_template(
        "staff/review.html", forms=forms, form=form or forms["later"], missing=case.missing(_now()),
        history=case.history(), others=[one for one in case.owner.cases if one.id != case.id and one.live_at],
        **as_it_would_look(case), **context,
    )  # fmt: skip


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
