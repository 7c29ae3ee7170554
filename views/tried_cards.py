"""What staff do while cards are tried out: breakers that have opened, and pledges that are held until somebody has
looked at them. Its pages are the staff's."""

from collections.abc import Callable

from flask import abort, flash, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

from jobs import ring
from law import N_
from models import Breaker, Pledge, db
from views.forms import ReasonForm
from views.public import now
from views.staff import pledge_at, pledge_page, shown, staff

HELD_ON_A_PAGE = 100


@staff.get("/tried-cards")
def tried_cards() -> str:
    return _page()


@staff.post("/breakers/<row:breaker_id>/end")
def end_breaker(breaker_id: int) -> AnyResponse | tuple[str, int]:
    return _decide(breaker_id, Breaker.end, N_("It has ended: whoever pledges goes to Stripe at once."))


@staff.post("/breakers/<row:breaker_id>/prolongation")
def prolong_breaker(breaker_id: int) -> AnyResponse | tuple[str, int]:
    return _decide(breaker_id, Breaker.prolong, N_("It goes on for 12 hours longer."))


@staff.post("/pledges/<public_id>/counting")
def let_held_count(public_id: str) -> AnyResponse | tuple[str, int]:
    return _look_at(public_id, Pledge.let_count, N_("The pledge counts, and its supporter is told."))


@staff.post("/pledges/<public_id>/refusal")
def refuse_held(public_id: str) -> AnyResponse | tuple[str, int]:
    return _look_at(public_id, Pledge.refuse, N_("The pledge is let go, and its supporter is told."))


def _decide(breaker_id: int, verb: Callable[..., None], said: str) -> AnyResponse | tuple[str, int]:
    known, form = (
        db.session.get(Breaker, breaker_id) or abort(404),
        ReasonForm(request.form, prefix=f"breaker-{breaker_id}-"),
    )
    if not form.validate():
        return _page({known.id: form}), 422
    verb(Breaker.hold(known.case_id, now()), str(form.reason.data), current_user, now())
    return _back(said)


def _look_at(public_id: str, verb: Callable[..., None], said: str) -> AnyResponse | tuple[str, int]:
    its_pledge, form = pledge_at(public_id), ReasonForm(request.form, prefix="held-")
    if not form.validate():
        return pledge_page(its_pledge, held_form=form), 422
    verb(Pledge.hold(its_pledge.id), str(form.reason.data), current_user, now())
    answer = _back(said)
    for job in ("let_go", "send_letters"):
        ring(job)
    return answer


def _back(said: str) -> AnyResponse:
    db.session.commit()
    flash(gettext(said))
    return redirect(url_for("staff.tried_cards"), 303)


def _page(wrong: dict[int, ReasonForm] | None = None) -> str:
    """Every breaker has a form of its own; `wrong` is the one that was sent with a mistake, by its breaker."""
    breakers, held, wrong = Breaker.open_ones(now()), Pledge.held(HELD_ON_A_PAGE), wrong or {}
    forms = {one.id: ReasonForm(prefix=f"breaker-{one.id}-") for one in breakers} | wrong
    shown("held pledges", held)
    return render_template("staff/tried_cards.html", breakers=breakers, held=held, forms=forms, wrong=wrong)
