"""The account as its user sees it, whichever role that is: the second factor and its recovery codes, where its user is
logged in, and the language of letters. What it is known by is changed in own_details.py."""

from flask import Blueprint, abort, flash, g, redirect, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

import config
import law
from jobs import ring
from law import Refused
from models import RecoveryCode, User, UserSession, db, held_about, held_at
from views import doors, languages, log_ins
from views.account_forms import ProofForm, SetUpForm
from views.files import as_file
from views.public import now
from views.second_factors import codes_page, hold_with_proof, set_up_page, status, take_set_up

own_account = Blueprint("own_account", __name__, url_prefix="/account")
doors.admit(own_account, doors.LOGGED_IN)


@own_account.get("")
def account() -> str:
    return _page(ProofForm())


@own_account.get("/second-factor")
def new_second_factor() -> str:
    return set_up_page(_set_up_form(), myself())


@own_account.post("/second-factor")
def set_second_factor() -> str | tuple[str, int]:
    return take_set_up(_set_up_form(), myself())


@own_account.post("/second-factor/end")
def turn_off_second_factor() -> AnyResponse | tuple[str, int]:
    _require_one()
    form = ProofForm(request.form)
    held = hold_with_proof(form, myself()) if form.validate() else None
    if held is None:
        return _page(form), status()
    held.turn_off_second_factor(now())
    log_ins.enter(held)
    db.session.commit()
    ring("send_letters")
    flash(gettext("The second factor is turned off. Your password alone lets you in."))
    return redirect(url_for("own_account.account"), 303)


@own_account.post("/recovery-codes")
def renew_recovery_codes() -> str | tuple[str, int]:
    _require_one()
    form = ProofForm(request.form)
    held = hold_with_proof(form, myself()) if form.validate() else None
    if held is None:
        return _page(form), status()
    codes = held.renew_recovery_codes(now())
    log_ins.enter(held)
    db.session.commit()
    ring("send_letters")
    return codes_page(codes)


@own_account.post("/recovery-codes/file")
def recovery_codes_file() -> Response:
    """The codes that the page before has shown, sent back to be put into a file: we know only their hashes."""
    codes = request.form.get("codes", "")[:1_000].split()
    if not codes or not RecoveryCode.are_of(myself(), codes):
        raise Refused(
            gettext("These are not the recovery codes that work now. Make new ones on the page of your account.")
        )
    whose = gettext(
        "Recovery codes for %(email)s at %(site)s", email=current_user.email, site=config.current().site_url
    )
    words = [whose, gettext("Each works once."), "", *codes]
    answer = Response("\n".join(words) + "\n", mimetype="text/plain")
    answer.headers["Content-Disposition"] = "attachment; filename=recovery-codes.txt"
    return answer


@own_account.post("/language")
def choose_language() -> AnyResponse:
    """In which letters are written; pages are in the language of their address."""
    language = request.form.get("language", "")
    if language not in languages.LANGUAGES:
        abort(400)
    myself().write_in(language, now())
    db.session.commit()
    flash(gettext("Letters to you are written in %(language)s.", language=languages.LANGUAGES[language]))
    return redirect(url_for("own_account.account"), 303)


# --- Log-ins -----------------------------------------------------------------------------------------------


@own_account.post("/log-ins/<row:log_in_id>/end")
def end_log_in(log_in_id: int) -> AnyResponse:
    found = UserSession.of_person(current_user, log_in_id) or abort(404)
    if found.id == g.log_in:
        log_ins.leave()
        db.session.commit()
        return redirect(url_for("public.home"), 303)
    myself().end_session(found, now())
    db.session.commit()
    flash(gettext("That browser is logged out."))
    return redirect(url_for("own_account.account"), 303)


@own_account.post("/log-ins/end")
def log_out_everywhere() -> AnyResponse:
    held = User.hold(current_user.id) or abort(404)
    held.log_out_everywhere(now())
    log_ins.leave()
    db.session.commit()
    return redirect(url_for("accounts.log_in"), 303)


# --- What is kept ------------------------------------------------------------------------------------------


@own_account.get("/data")
def account_data() -> Response:
    """All that we keep of this user, as a file."""
    person = myself()
    return as_file({"account": held_about(person), "asked_for": held_at(person.email)}, "account")


@own_account.get("/erasure")
def erasure() -> str:
    return _erasure_page(_erasure_form())


@own_account.post("/erasure")
def erase() -> str | tuple[str, int]:
    """Whoever found an open browser erases nothing: the password is asked for again, and the second factor."""
    form = _erasure_form()
    held = hold_with_proof(form, myself()) if form.validate() else None
    if held is None:
        return _erasure_page(form), status()
    log_ins.leave()
    held.erase(f"user:{held.id}", now())
    db.session.commit()
    ring("finish_erasures")
    return render_template("accounts/erased.html")


def _erasure_form() -> ProofForm:
    form = ProofForm(request.form)
    if current_user.second_factor_at is None:
        del form.code, form.recovery_code
    return form


def _erasure_page(form: ProofForm) -> str:
    if "code" in form:
        form.code.data = ""
    try:
        myself().require_erasable()
    except Refused as why:
        begun = myself().case_to_answer_for
        return render_template("accounts/erasure.html", form=form, why=str(why), begun=begun)
    return render_template("accounts/erasure.html", form=form, why="", begun=None)


def myself() -> User:
    """The row itself, where `current_user` is only a way to it."""
    myself: User = current_user._get_current_object()
    return myself


def _require_one() -> None:
    if current_user.second_factor_at is None:
        raise Refused(gettext("You have no second factor. Set one up first."))


def _set_up_form() -> SetUpForm:
    """Who puts another one in the place of the first proves to have that too."""
    form = SetUpForm(request.form)
    if current_user.second_factor_at is None:
        del form.code, form.recovery_code
    return form


def _page(form: ProofForm) -> str:
    form.code.data = ""
    return render_template(
        "accounts/account.html", form=form, codes_left=current_user.recovery_codes_left(),
        may_turn_off=current_user.role not in law.SECOND_FACTOR_ROLES, languages=languages.LANGUAGES,
        log_ins=UserSession.of(current_user, now()), this_one=g.log_in,
    )  # fmt: skip
