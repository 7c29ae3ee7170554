"""A change of the promise: its owner asks for it, and staff agree to it or not. Its pages are the owners' and the
staff's."""

import datetime as dt

from flask import abort, flash, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

import law
from jobs import ring
from law import Refused
from models import Case, PromiseChange, Round, db
from views.draft_form import PromiseForm
from views.forms import ReasonForm
from views.owners import own, owners
from views.staff import staff

# --- The owner's request -----------------------------------------------------------------------------------


@owners.get("/cases/<slug>/promise")
def promise(slug: str) -> str:
    its_case = _with_round(slug)
    return _promise_page(its_case, PromiseForm.of(its_case.round))


@owners.post("/cases/<slug>/promise")
def ask_promise_change(slug: str) -> AnyResponse | tuple[str, int]:
    held, form = Round.hold(_with_round(slug).round.id), PromiseForm(request.form)
    deadline = form.deadline(held)
    if deadline is None:
        return _promise_page(held.case, form), 422
    as_of = _now()
    try:
        held.require_changeable_promise(as_of)
    except Refused as refused:
        db.session.rollback()
        return _promise_page(_with_round(slug), form, str(refused)), 409
    if not _can_be(held, deadline, form, as_of):
        return _promise_page(held.case, form), 422
    held.ask_change(deadline, form.pence, str(form.reason.data), current_user, as_of)
    db.session.commit()
    ring("send_letters")
    flash(gettext("Our staff have your request. Until they agree to it the promise stands as it is."))
    return redirect(url_for("owners.promise", slug=slug), 303)


@owners.post("/cases/<slug>/promise/withdrawal")
def withdraw_promise_change(slug: str) -> AnyResponse:
    held = Round.hold(_with_round(slug).round.id)
    if held.asked_change:
        held.asked_change.withdraw(current_user, _now())
    db.session.commit()
    flash(gettext("The request is taken back: the promise stands as it is."))
    return redirect(url_for("owners.promise", slug=slug), 303)


def _can_be(held: Round, deadline: dt.datetime, form: PromiseForm, as_of: dt.datetime) -> bool:
    """Whether the promise may become this one; else the field that is wrong says why."""
    field = form.target
    try:
        law.check_new_target(held.target_pence, form.pence)
        field = form.date
        law.check_change(held.deadline, held.target_pence, deadline, form.pence, held.zone, as_of)
    except Refused as refused:
        field.errors = [str(refused)]
    return not field.errors


def _with_round(slug: str) -> Case:
    its_case = own(slug)
    return its_case if its_case.rounds else abort(404)


def _promise_page(its_case: Case, form: PromiseForm, problem: str = "") -> str:
    """The form, or why nothing can be asked for now."""
    its_round, as_of = its_case.round, _now()
    try:
        its_round.require_changeable_promise(as_of)
        closed = ""
    except Refused as refused:
        closed = str(refused)
    return render_template(
        "owners/promise.html", case=its_case, round=its_round, form=form, problem=problem, closed=closed, as_of=as_of
    )


# --- The decision of staff ---------------------------------------------------------------------------------


@staff.get("/promise-changes/<row:change_id>")
def promise_change(change_id: int) -> str:
    return _decision_page(_change(change_id), ReasonForm())


@staff.post("/promise-changes/<row:change_id>/consent")
def consent_to_promise_change(change_id: int) -> AnyResponse:
    held = PromiseChange.hold(_change(change_id).id)
    held.consent(current_user, _now())
    return _decided(
        held, gettext("The promise is changed: everybody who has pledged gets a letter with the way to leave.")
    )


@staff.post("/promise-changes/<row:change_id>/refusal")
def refuse_promise_change(change_id: int) -> AnyResponse | tuple[str, int]:
    held, form = PromiseChange.hold(_change(change_id).id), ReasonForm(request.form)
    if not form.validate():
        return _decision_page(held, form), 422
    held.refuse(str(form.reason.data), current_user, _now())
    return _decided(held, gettext("The request is refused: its owner gets a letter with your reason."))


def _change(change_id: int) -> PromiseChange:
    return db.session.get(PromiseChange, change_id) or abort(404)


def _decided(held: PromiseChange, notice: str) -> AnyResponse:
    slug = held.round.case.slug
    db.session.commit()
    ring("send_letters")
    flash(notice)
    return redirect(url_for("staff.case", slug=slug), 303)


def _decision_page(change: PromiseChange, form: ReasonForm) -> str:
    its_round, as_of = change.round, _now()
    return render_template(
        "staff/promise_change.html", change=change, round=its_round, case=its_round.case, form=form, as_of=as_of,
        waits=change.status == "asked" and its_round.is_open(as_of),
        told=len(its_round.pledges("started", "confirmed")),
    )  # fmt: skip


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
