"""The staff's desk: every case with its figures, its switches and its pledges; refunds, disputes, cancellation; and
the books, as the doctor and the reconciler found them."""

import datetime as dt
import math
import secrets
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, abort, g, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import gettext
from flask_login import current_user

import config
from jobs import doctor, reconcile, ring
from law import N_, Refused
from models import (
    Bounce,
    Case,
    Dispute,
    Examination,
    Figures,
    Lease,
    Letter,
    LogLine,
    Look,
    Pledge,
    PromiseChange,
    Reconciliation,
    Refund,
    Round,
    begin_writing,
    db,
)
from money import pounds
from views import doors, hypermedia
from views.forms import CancellationForm, NoticeForm, ReasonForm, RefundForm, readable

staff = Blueprint("staff", __name__, url_prefix="/staff")
doors.admit(staff, "staff")

PLEDGES_A_PAGE = CASES_A_PAGE = REVIEWS_ON_THE_DESK = 50
LINES_A_PAGE, LINES_OF_A_CASE = 100, 20
FOUND_AT_MOST, LOOKS_OF_A_PLEDGE = 20, 10
LAST_MINUTE = dt.timedelta(minutes=1)
# What comes by the clock and is late by so much does not come by itself.
LATE = dt.timedelta(minutes=5)
# The findings of so long: in it there has been a comparison of the last days as well, and not only of the last hours.
LAST_DAY = reconcile.RETURNS[reconcile.DAILY] + reconcile.RETURNS[reconcile.HOURLY]
# The address of a switch -> the column it turns, and what the desk says once it is on and once it is off.
SWITCHES = {
    "pledging-pause": ("pledging_paused", N_("Pledging is paused."), N_("Pledging goes on.")),
    "charge-freeze": ("charges_frozen", N_("Charges are frozen: none leaves."), N_("Charges go on.")),
    "comments-lock": ("comments_locked", N_("Comments are closed."), N_("Comments are open again.")),
}
# The address of what staff do about who sees a case -> what strangers see then, and what the desk says.
SIGHTS = {
    "notice": ("notice", N_("The notice stands in place of the case.")),
    "hiding": ("hidden", N_("The case is hidden.")),
    "showing": ("public", N_("Everybody can see the case again.")),
}


@staff.get("")
def desk() -> str:
    words, rounds, results = _searched(), Round.in_trouble(), _results()
    cases, more = Case.begun(CASES_A_PAGE, words, request.args.get("after", ""))
    reviews = Case.in_review(REVIEWS_ON_THE_DESK + 1)
    stuck, tried, held = Letter.signs_for_desk(_now())
    disputes = Dispute.listed()
    return render_template(
        "staff/desk.html",
        rounds=rounds,
        off=results["off"] or rounds or stuck,
        examination=results["examination"],
        cases=cases,
        words=words,
        more=more,
        reviews=reviews[:REVIEWS_ON_THE_DESK],
        more_reviews=len(reviews) > REVIEWS_ON_THE_DESK,
        changes=PromiseChange.waiting(_now()),
        tried=tried,
        held=held,
        disputes=disputes,
        open_disputes=[dispute for dispute in disputes if dispute.status == "open" and dispute.due_by],
        failed=Refund.failed(),
    )


# --- The books ---------------------------------------------------------------------------------------------


@staff.get("/books")
def books() -> Response:
    """What the doctor and the reconciler found last, and what is stuck; htmx asks again while a result is awaited."""
    return hypermedia.page_or_fragment("staff/books.html", "staff/_books.html", bounces=Bounce.latest(), **_books())


@staff.post("/books/examinations")
def examine() -> Response:
    Lease.make_due(doctor.LEASE, _now())
    db.session.commit()
    ring("examine_books")
    return _back_to_books(gettext("The books are being summed up."))


@staff.post("/books/comparisons")
def compare() -> Response:
    if Reconciliation.under_way() is not None:
        return _back_to_books(gettext("A comparison with Stripe is under way already."))
    Lease.make_due(reconcile.HOURLY, _now())
    db.session.commit()
    ring("begin_reconciliation")
    return _back_to_books(gettext("The books are being compared with Stripe."))


def _back_to_books(notice: str) -> Response:
    return hypermedia.done(url_for("staff.books"), notice, "staff/_books.html", bounces=Bounce.latest(), **_books())


def _books() -> dict[str, Any]:
    """The last results, and what is stuck; `off` says whether staff should look."""
    results = _results()
    stuck = {"rounds": Round.in_trouble(), "charges": Pledge.in_trouble(), "letters": Letter.undelivered()}
    return results | stuck | {"off": results["off"] or any(stuck.values())}


def _results() -> dict[str, Any]:
    """What the doctor and the reconciler found last, and when the next results come."""
    as_of = _now()
    examination, (comparisons, under_way) = Examination.last(), Reconciliation.recent(as_of - LAST_DAY)
    findings = list(dict.fromkeys(one for comparison in comparisons for one in comparison.findings))
    next_ones = Lease.due_at(doctor.LEASE, reconcile.HOURLY)
    late = any(comes is not None and comes < as_of - LATE for comes in next_ones)
    return {
        "examination": examination, "comparisons": comparisons, "findings": findings, "under_way": under_way,
        "next_examination": next_ones[0], "next_comparison": next_ones[1], "late": late, "as_of": as_of,
        "awaited": under_way is not None or any(comes is not None and comes <= as_of for comes in next_ones),
        "off": late or bool(findings) or bool(examination and examination.findings),
    }  # fmt: skip


@staff.get("/moderation")
def moderation() -> str:
    """Everything that was ever done to comments, newest first, with what they said then."""
    lines = LogLine.newest(PLEDGES_A_PAGE + 1, _number(request.args.get("before", "")))
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


@staff.post("/cases/<slug>/<any('pledging-pause', 'charge-freeze', 'comments-lock'):switch>")
def turn_on(slug: str, switch: str) -> Response | tuple[str, int]:
    return _turn(slug, switch, on=True)


@staff.post("/cases/<slug>/<any('pledging-pause', 'charge-freeze', 'comments-lock'):switch>/end")
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
    return _back(its_case, gettext(said_on if on else said_off))


@staff.post("/cases/<slug>/<any('notice', 'hiding', 'showing'):sight>")
def show_as(slug: str, sight: str) -> Response | tuple[str, int]:
    """What strangers see at the address of a case from now on. Pledges and their deadline are not touched."""
    its_case = found(slug)
    form = (NoticeForm if sight == "notice" else ReasonForm)(request.form, prefix=f"{sight}-")
    if not form.validate():
        return _case_page(its_case, form, sight), 422
    visibility, said = SIGHTS[sight]
    notice = str(form.statement.data) if isinstance(form, NoticeForm) else ""
    its_case.show_as(visibility, notice, str(form.reason.data), current_user, _now())
    db.session.commit()
    ring("send_letters")
    return _back(its_case, gettext(said))


@staff.get("/cases/<slug>/history")
def history(slug: str) -> str:
    """All that happened to the case, its updates, comments, pledges and refunds, newest first."""
    its_case, before = found(slug), request.args.get("before", "")
    lines = its_case.whole_history(LINES_A_PAGE + 1, _number(before))
    shown = lines[:LINES_A_PAGE]
    more = shown[-1].id if len(lines) > len(shown) else None
    return render_template("staff/history.html", case=its_case, history=shown, more=more)


@staff.post("/cases/<slug>/cancellation")
def cancel_case(slug: str) -> Response | tuple[str, int]:
    its_case, form = found(slug), CancellationForm(request.form, prefix="cancellation-")
    if not form.validate():
        return _case_page(its_case, form, "cancellation"), 422
    its_case.cancel(str(form.reason.data), f"user:{current_user.id}", _now())
    db.session.commit()
    for job in ("release_cancelled", "let_go", "send_letters"):
        ring(job)
    return _back(its_case, gettext("The case is cancelled: nothing more is charged."))


@staff.get("/cases/<slug>/pledges")
def pledges(slug: str) -> str:
    its_case = found(slug)
    words, start = _searched(), _number(request.args.get("after", ""))
    page, more = Pledge.search(its_case.round, words, start, PLEDGES_A_PAGE)
    shown("pledges of a case", page)
    return render_template(
        "staff/pledges.html", case=its_case, round=its_case.round, pledges=page, words=words, next=more
    )


# --- Looking for something, and who looked -----------------------------------------------------------------


@staff.get("/search")
def search() -> str:
    """Cases by title or owner; pledges by their number, their supporter's e-mail address, or an id at Stripe."""
    words = _searched()
    pledges = Pledge.anywhere(words, FOUND_AT_MOST) if words else []
    before = _number(request.args.get("before", ""))
    cases, older = Case.search(words, FOUND_AT_MOST, before) if words else ([], 0)
    shown("search", pledges)
    return render_template(
        "staff/search.html", words=words, cases=cases, older=older, pledges=pledges, most=FOUND_AT_MOST
    )


@staff.get("/looks")
def looks() -> str:
    """Who of staff was shown which supporter's private data, newest first."""
    lines = Look.newest(LINES_A_PAGE + 1, _number(request.args.get("before", "")))
    more = lines[LINES_A_PAGE - 1].id if len(lines) > LINES_A_PAGE else None
    return render_template("staff/looks.html", looks=lines[:LINES_A_PAGE], more=more)


def shown(page: str, pledges: list[Pledge]) -> None:
    """Note whose private data this page shows; see `keep_looks`."""
    g.looked = (page, [one.id for one in pledges])


@staff.after_request
def keep_looks(answer: Response) -> Response:
    """Write down who was shown what, before it leaves: if that fails, it is not shown."""
    page, pledge_ids = g.pop("looked", ("", []))
    # Where the page could not be drawn nothing is shown, and nobody is known to its error page.
    if pledge_ids and answer.status_code < 500:
        person = current_user.id
        begin_writing()
        Look.keep(person, pledge_ids, page, _now())
        db.session.commit()
    return answer


def _searched() -> str:
    return readable(request.args.get("q", ""), "").strip()[:254]


def _number(typed: str) -> int:
    """Where a page of rows begins; 0, which is the first, for whatever is no number of a row."""
    return int(typed) if typed.isdecimal() and typed.isascii() and len(typed) < 10 else 0


# --- A pledge ----------------------------------------------------------------------------------------------


@staff.get("/pledges/<public_id>")
def pledge(public_id: str) -> str:
    return pledge_page(pledge_at(public_id))


@staff.post("/pledges/<public_id>/refunds")
def refund(public_id: str) -> Response | tuple[str, int]:
    """The form's key is used once: pressed twice, even at the same time, it is one refund."""
    its_pledge, form = pledge_at(public_id), RefundForm(request.form)
    if not form.validate():
        form.form_key.data = form.form_key.data if not form.form_key.errors else secrets.token_urlsafe(24)
        return pledge_page(its_pledge, form), 422
    held = Pledge.hold(its_pledge.id)
    try:
        asked = held.ask_refund(str(form.form_key.data), form.pence, str(form.reason.data), current_user, _now())
    except Refused as refused:
        if held.status != "charged" or not held.refundable_pence:
            raise
        # There is something to refund, only not so much: the page comes again, with what was typed.
        form.amount.errors = [str(refused)]
        return pledge_page(held, form), 409
    amount = pounds(asked.amount_pence)
    db.session.commit()
    ring("send_refunds")
    where, notice = (
        url_for("staff.pledge", public_id=public_id),
        gettext("Stripe is asked to pay %(amount)s back.", amount=amount),
    )
    return hypermedia.done(where, notice, "staff/_refunds.html", refunds=_refunds(held))


def found(slug: str) -> Case:
    """A case that has a round, whatever became of it, or 404."""
    its_case = db.session.scalar(sa.select(Case).where(Case.slug == slug, Case.live_at.is_not(None)))
    return its_case or abort(404)


def pledge_at(number: str) -> Pledge:
    """A pledge by the number that its supporter knows, or by that of its row, which findings speak of; or 404."""
    by_row = number.isdecimal() and number.isascii() and len(number) < 10
    found = sa.select(Pledge).where(Pledge.id == int(number) if by_row else Pledge.public_id == number)
    with_case = found.options(sa.orm.joinedload(Pledge.round).joinedload(Round.case))
    return db.session.scalar(with_case) or abort(404)


def _case_page(its_case: Case, form: ReasonForm, wrong: str = "") -> str:
    """The page of a case; `form` is the one that was sent and `wrong` the address that it was sent to."""
    forms = {name: ReasonForm(prefix=f"{name}-") for name in (*SWITCHES, "hiding", "showing")}
    forms["cancellation"], forms["notice"] = CancellationForm(prefix="cancellation-"), NoticeForm(prefix="notice-")
    if wrong:
        forms[wrong] = form
    running = _running(its_case)
    figures = running["figures"]
    return render_template(
        "staff/case.html", forms=forms, form=form, history=its_case.history(LINES_OF_A_CASE), **running,
        may_cancel=its_case.round.status in ("open", "closing") or figures.waiting or figures.repairing,
    )  # fmt: skip


def _running(its_case: Case) -> dict[str, Any]:
    """What the run of the deadline capture is at: the figures, its rate in the last minute, the time left by it.

    The time left is None while nobody can tell: charges were asked for, and none was answered in the last minute.
    """
    its_round, as_of = its_case.round, _now()
    # Nothing is charged, or was, unless the round was met.
    figures = its_round.figures() if its_round.status == "met" else Figures({}, {}, 0)
    fastest, left = config.current().capture_rate, figures.count("due", "charging", "unknown")
    since = max(as_of - LAST_MINUTE, its_round.settled_at or its_case.created_at)
    rate = its_round.answered(since) / max(1.0, (as_of - since).total_seconds()) if figures.counts else 0.0
    expected = rate if rate or figures.count("charging", "unknown") else fastest
    return {
        "case": its_case, "round": its_round, "figures": figures, "as_of": as_of, "left": left, "rate": rate,
        "fastest": fastest, "seconds_left": math.ceil(left / expected) if expected else None,
    }  # fmt: skip


def pledge_page(its_pledge: Pledge, form: RefundForm | None = None, held_form: ReasonForm | None = None) -> str:
    """With the form that was sent with a mistake: for a refund, or about a pledge that is held."""
    form, held_form = form or RefundForm(form_key=secrets.token_urlsafe(24)), held_form or ReasonForm(prefix="held-")
    shown("pledge", [its_pledge])
    return render_template(
        "staff/pledge.html", pledge=its_pledge, round=its_pledge.round, case=its_pledge.round.case, form=form,
        refunds=_refunds(its_pledge), movements=its_pledge.movements(), history=its_pledge.history(), as_of=_now(),
        held_form=held_form, may_decide=its_pledge.status == "held" and its_pledge.round.is_open(_now()),
        disputes=Dispute.about(its_pledge), looks=Look.newest(LOOKS_OF_A_PLEDGE, pledge_id=its_pledge.id),
        rest=its_pledge.refundable_pence if its_pledge.status == "charged" else 0,
    )  # fmt: skip


def _refunds(its_pledge: Pledge) -> list[Refund]:
    return list(db.session.scalars(sa.select(Refund).where(Refund.pledge_id == its_pledge.id).order_by(Refund.id)))


def _back(its_case: Case, notice: str) -> Response:
    return hypermedia.done(url_for("staff.case", slug=its_case.slug), notice, "staff/_run.html", **_running(its_case))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
