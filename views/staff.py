"""The staff's desk: every case with its figures, its switches and its pledges; refunds, disputes, cancellation; and
the books, as the doctor and the reconciler found them."""

import datetime as dt
import math
import secrets
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, abort, render_template, request, url_for
from flask.wrappers import Response
from flask_login import current_user

import config
from jobs import doctor, reconcile, ring
from law import Refused
from models import Bounce, Case, Dispute, Examination, Lease, Letter, LogLine, Pledge, Reconciliation, Refund, Round, db
from money import pounds
from views import doors, hypermedia
from views.forms import ReasonForm, RefundForm, readable

staff = Blueprint("staff", __name__, url_prefix="/staff")
doors.admit(staff, "staff")

PLEDGES_A_PAGE = 50
LAST_MINUTE = dt.timedelta(minutes=1)
# What comes by the clock and is late by so much does not come by itself.
LATE = dt.timedelta(minutes=5)
# The findings of so long: in it there has been a comparison of the last days as well, and not only of the last hours.
LAST_DAY = reconcile.RETURNS[reconcile.DAILY] + reconcile.RETURNS[reconcile.HOURLY]
# The address of a switch -> the column it turns, and what the desk says once it is on and once it is off.
SWITCHES = {
    "pledging-pause": ("pledging_paused", "Pledging is paused.", "Pledging goes on."),
    "charge-freeze": ("charges_frozen", "Charges are frozen: none leaves.", "Charges go on."),
}


@staff.get("")
def desk() -> str:
    return render_template(
        "staff/desk.html",
        cases=Case.begun(),
        reviews=Case.in_review(),
        disputes=Dispute.listed(),
        failed=Refund.failed(),
        **_books(),
    )


# --- The books ---------------------------------------------------------------------------------------------


@staff.get("/books")
def books() -> Response:
    """What the doctor and the reconciler found last, and what is stuck; htmx asks again while a result is awaited."""
    return hypermedia.page_or_fragment("staff/books.html", "staff/_books.html", **_books())


@staff.post("/books/examinations")
def examine() -> Response:
    Lease.make_due(doctor.LEASE, _now())
    db.session.commit()
    ring("examine_books")
    return _back_to_books("The books are being summed up.")


@staff.post("/books/comparisons")
def compare() -> Response:
    if Reconciliation.under_way() is not None:
        return _back_to_books("A comparison with Stripe is under way already.")
    Lease.make_due(reconcile.HOURLY, _now())
    db.session.commit()
    ring("begin_reconciliation")
    return _back_to_books("The books are being compared with Stripe.")


def _back_to_books(notice: str) -> Response:
    return hypermedia.done(url_for("staff.books"), notice, "staff/_books.html", **_books())


def _books() -> dict[str, Any]:
    """The last results, when the next ones come, and what is stuck; `off` says whether staff should look."""
    as_of = _now()
    examination, comparisons = Examination.last(), Reconciliation.ended_since(as_of - LAST_DAY)
    findings = list(dict.fromkeys(one for comparison in comparisons for one in comparison.findings))
    next_ones = [Lease.due_at(name) for name in (doctor.LEASE, reconcile.HOURLY)]
    stuck = {"rounds": Round.in_trouble(), "charges": Pledge.in_trouble(), "letters": Letter.undelivered()}
    late = any(comes is not None and comes < as_of - LATE for comes in next_ones)
    under_way = Reconciliation.under_way()
    return {
        "examination": examination, "comparisons": comparisons, "findings": findings, "under_way": under_way,
        "next_examination": next_ones[0], "next_comparison": next_ones[1], "late": late, "as_of": as_of, **stuck,
        "bounces": Bounce.latest(),
        "awaited": under_way is not None or any(comes is not None and comes <= as_of for comes in next_ones),
        "off": late or any(stuck.values()) or bool(findings) or bool(examination and examination.findings),
    }  # fmt: skip


@staff.get("/moderation")
def moderation() -> str:
    """Everything that was ever done to comments, newest first, with what they said then."""
    before = request.args.get("before", "")
    lines = LogLine.newest(PLEDGES_A_PAGE + 1, int(before) if before.isdecimal() and len(before) < 10 else 0)
    shown = lines[:PLEDGES_A_PAGE]
    more = shown[-1].event.id if len(lines) > len(shown) else None
    return render_template("staff/moderation.html", lines=shown, more=more)


# --- A case ------------------------------------------------------------------------------------------------


@staff.get("/cases/<slug>")
def case(slug: str) -> str:
    return _case_page(found(slug), ReasonForm())


@staff.get("/cases/<slug>/run")
def run(slug: str) -> Response:
    """The deadline capture as it goes on; htmx asks again every few seconds until it is over."""
    return hypermedia.page_or_fragment("staff/run.html", "staff/_run.html", **_running(found(slug)))


@staff.post("/cases/<slug>/<any('pledging-pause', 'charge-freeze'):switch>")
def turn_on(slug: str, switch: str) -> Response | tuple[str, int]:
    return _turn(slug, switch, on=True)


@staff.post("/cases/<slug>/<any('pledging-pause', 'charge-freeze'):switch>/end")
def turn_off(slug: str, switch: str) -> Response | tuple[str, int]:
    return _turn(slug, switch, on=False)


def _turn(slug: str, switch: str, on: bool) -> Response | tuple[str, int]:
    its_case, form = found(slug), ReasonForm(request.form, prefix=f"{switch}-")
    if not form.validate():
        return _case_page(its_case, form, switch), 422
    column, said_on, said_off = SWITCHES[switch]
    its_case.switch(column, on, str(form.reason.data), current_user, _now())
    db.session.commit()
    for job in ("charge_due", "send_letters"):
        ring(job)
    return _back(its_case, said_on if on else said_off)


@staff.post("/cases/<slug>/cancellation")
def cancel_case(slug: str) -> Response | tuple[str, int]:
    its_case, form = found(slug), ReasonForm(request.form, prefix="cancellation-")
    if not form.validate():
        return _case_page(its_case, form, "cancellation"), 422
    its_case.cancel(str(form.reason.data), f"user:{current_user.id}", _now())
    db.session.commit()
    for job in ("release_cancelled", "let_go", "send_letters"):
        ring(job)
    return _back(its_case, "The case is cancelled: nothing more is charged.")


@staff.get("/cases/<slug>/pledges")
def pledges(slug: str) -> str:
    its_case = found(slug)
    words, after = readable(request.args.get("q", ""), "").strip()[:254], request.args.get("after", "")
    start = int(after) if after.isdecimal() and len(after) < 10 else 0
    page = Pledge.search(its_case.round, words, start, PLEDGES_A_PAGE + 1)
    return render_template(
        "staff/pledges.html", case=its_case, round=its_case.round, pledges=page[:PLEDGES_A_PAGE], words=words,
        next=page[PLEDGES_A_PAGE - 1].id if len(page) > PLEDGES_A_PAGE else None,
    )  # fmt: skip


# --- A pledge ----------------------------------------------------------------------------------------------


@staff.get("/pledges/<public_id>")
def pledge(public_id: str) -> str:
    return _pledge_page(_pledge(public_id), RefundForm(form_key=secrets.token_urlsafe(24)))


@staff.post("/pledges/<public_id>/refunds")
def refund(public_id: str) -> Response | tuple[str, int]:
    """The form's key is used once: pressed twice, even at the same time, it is one refund."""
    its_pledge, form = _pledge(public_id), RefundForm(request.form)
    if not form.validate():
        form.form_key.data = form.form_key.data if not form.form_key.errors else secrets.token_urlsafe(24)
        return _pledge_page(its_pledge, form), 422
    held = Pledge.hold(its_pledge.id)
    try:
        asked = held.ask_refund(str(form.form_key.data), form.pence, str(form.reason.data), current_user, _now())
    except Refused as refused:
        if held.status != "charged" or not held.refundable_pence:
            raise
        # There is something to refund, only not so much: the page comes again, with what was typed.
        form.amount.errors = [str(refused)]
        return _pledge_page(held, form), 409
    amount = pounds(asked.amount_pence)
    db.session.commit()
    ring("send_refunds")
    where, notice = url_for("staff.pledge", public_id=public_id), f"Stripe is asked to pay {amount} back."
    return hypermedia.done(where, notice, "staff/_refunds.html", refunds=_refunds(held))


def found(slug: str) -> Case:
    """A case that has a round, whatever became of it, or 404."""
    its_case = db.session.scalar(sa.select(Case).where(Case.slug == slug, Case.live_at.is_not(None)))
    return its_case or abort(404)


def _pledge(number: str) -> Pledge:
    """A pledge by the number that its supporter knows, or by that of its row, which findings speak of; or 404."""
    by_row = number.isdecimal() and number.isascii() and len(number) < 10
    found = Pledge.id == int(number) if by_row else Pledge.public_id == number
    return db.session.scalar(sa.select(Pledge).where(found)) or abort(404)


def _case_page(its_case: Case, form: ReasonForm, wrong: str = "") -> str:
    """The page of a case; `form` is the one that was sent and `wrong` the address that it was sent to."""
    forms = {name: ReasonForm(prefix=f"{name}-") for name in (*SWITCHES, "cancellation")}
    if wrong:
        forms[wrong] = form
    figures = its_case.round.figures()
    return render_template(
        "staff/case.html", forms=forms, form=form, history=its_case.history(), **_running(its_case),
        may_cancel=its_case.round.status in ("open", "closing") or figures.waiting or figures.repairing,
    )  # fmt: skip


def _running(its_case: Case) -> dict[str, Any]:
    """What the run of the deadline capture is at: the figures, its rate in the last minute, the time left by it.

    The time left is None while nobody can tell: charges were asked for, and none was answered in the last minute.
    """
    its_round, as_of = its_case.round, _now()
    figures, fastest = its_round.figures(), config.current().capture_rate
    since = max(as_of - LAST_MINUTE, its_round.settled_at or its_case.created_at)
    rate = its_round.answered(since) / max(1.0, (as_of - since).total_seconds())
    left = figures.count("due", "charging", "unknown")
    expected = rate if rate or figures.count("charging", "unknown") else fastest
    return {
        "case": its_case, "round": its_round, "figures": figures, "as_of": as_of, "left": left, "rate": rate,
        "fastest": fastest, "seconds_left": math.ceil(left / expected) if expected else None,
    }  # fmt: skip


def _pledge_page(its_pledge: Pledge, form: RefundForm) -> str:
    return render_template(
        "staff/pledge.html", pledge=its_pledge, round=its_pledge.round, case=its_pledge.round.case, form=form,
        refunds=_refunds(its_pledge), movements=its_pledge.movements(), history=its_pledge.history(), as_of=_now(),
        disputes=Dispute.about(its_pledge),
        rest=its_pledge.refundable_pence if its_pledge.status == "charged" else 0,
    )  # fmt: skip


def _refunds(its_pledge: Pledge) -> list[Refund]:
    return list(db.session.scalars(sa.select(Refund).where(Refund.pledge_id == its_pledge.id).order_by(Refund.id)))


def _back(its_case: Case, notice: str) -> Response:
    return hypermedia.done(url_for("staff.case", slug=its_case.slug), notice, "staff/_run.html", **_running(its_case))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
