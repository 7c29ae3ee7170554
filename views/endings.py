"""How a case ends, for its owner: cancelled before the deadline, or accounted for once the money has come in."""

import datetime as dt
from typing import Any

from flask import abort, flash, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

from jobs import ring
from law import Refused
from models import Case, db
from views.draft_form import ReportForm
from views.forms import CancellationForm
from views.owners import own, owners


@owners.get("/cases/<slug>/cancellation")
def cancellation(slug: str) -> str:
    return _cancellation_page(_with_round(slug), CancellationForm())


@owners.post("/cases/<slug>/cancellation")
def cancel_case(slug: str) -> AnyResponse | tuple[str, int]:
    """Before the deadline its owner needs nobody for it; the typed word is there against a slip of the hand."""
    its_case, form = _with_round(slug), CancellationForm(request.form)
    if not form.validate():
        return _cancellation_page(its_case, form), 422
    its_case.call_off(str(form.reason.data), current_user, _now())
    db.session.commit()
    for job in ("let_go", "send_letters"):
        ring(job)
    flash(gettext("The case is cancelled: nobody is charged, and everybody whose pledge counted gets a letter."))
    return redirect(url_for("owners.case", slug=slug), 303)


# --- The final report --------------------------------------------------------------------------------------


@owners.get("/cases/<slug>/report")
def report_form(slug: str) -> str:
    return _report_page(_with_round(slug), ReportForm())


@owners.post("/cases/<slug>/report")
def publish_report(slug: str) -> AnyResponse | tuple[str, int] | str:
    """It stays for good, so that there is a look at it first."""
    its_case, form = _with_round(slug), ReportForm(request.form)
    if not form.validate():
        return _report_page(its_case, form), 422
    if "preview" in request.form:
        return _report_page(its_case, form, preview=True)
    its_case.publish_report(current_user, str(form.body.data), form.spent(), _now())
    db.session.commit()
    ring("send_letters")
    flash(gettext("The final report is published, and the case is closed."))
    return redirect(url_for("public.case", slug=slug, _anchor="final-report"), 303)


def _report_page(its_case: Case, form: ReportForm, **context: Any) -> str:
    """The form, or why it cannot be published now."""
    try:
        its_case.require_reportable()
        closed = ""
    except Refused as refused:
        closed = str(refused)
    return render_template(
        "owners/report.html", case=its_case, round=its_case.round, form=form, closed=closed, as_of=_now(),
        readers=len(its_case.update_readers()), **context,
    )  # fmt: skip


def _with_round(slug: str) -> Case:
    its_case = own(slug)
    return its_case if its_case.rounds else abort(404)


def _cancellation_page(its_case: Case, form: CancellationForm) -> str:
    return render_template("owners/cancellation.html", case=its_case, round=its_case.round, form=form, as_of=_now())


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
