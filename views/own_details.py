"""What an account is known by: its name, its password and its e-mail address, changed by whoever has it.

Its pages are those of the account; what the letters about another address lead to is open to whoever reads them, so it
stands among the pages of the accounts. Mail scanners follow links, so a GET only shows a button.
"""

from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

from jobs import ring
from models import EmailChange, User, db
from views import limits, log_ins
from views.account_forms import ChangeEmailForm, ChangePasswordForm, NameForm, ProofForm
from views.accounts import accounts
from views.admissions import TOO_MANY_LETTERS, hashed
from views.own_account import myself, own_account
from views.public import now
from views.second_factors import hold_with_code, hold_with_proof, knows_password, status

PASSWORD, EMAIL = "accounts/password.html", "accounts/email.html"


@own_account.get("/name")
def name() -> str:
    return render_template("accounts/name.html", form=_name_form(name=current_user.name, bio=current_user.bio))


@own_account.post("/name")
def change_name() -> AnyResponse | tuple[str, int]:
    form, as_of = _name_form(request.form), now()
    if not form.validate():
        return render_template("accounts/name.html", form=form), 422
    held, before = myself(), current_user.name
    held.rename(str(form.name.data), as_of)
    if "bio" in form and "bio" in request.form:
        held.describe(str(form.bio.data or ""), as_of)
    db.session.commit()
    return _done(gettext("Your name is changed.") if form.name.data != before else gettext("Your change is saved."))


@own_account.get("/password")
def password() -> str:
    return _page(PASSWORD, _password_form())


@own_account.post("/password")
def change_password() -> AnyResponse | tuple[str, int]:
    form = _password_form()
    if not (form.validate_for(current_user.name, current_user.email) and knows_password(form, myself())):
        return _page(PASSWORD, form), status()
    its_hash = hashed(str(form.new_password.data))
    held = hold_with_code(form, myself())
    if held is None:
        return _page(PASSWORD, form), status()
    held.change_password(its_hash, now())
    _go_on(held)
    return _done(gettext("Your password is changed. Everybody who was logged in elsewhere is logged out."))


@own_account.get("/email")
def email() -> str:
    return _page(EMAIL, _email_form())


@own_account.post("/email")
def change_email() -> AnyResponse | tuple[str, int]:
    """The same answer whether somebody else has the new address or not: only its reader ever knows."""
    form = _email_form()
    if not form.validate():
        return _page(EMAIL, form), 422
    wanted = str(form.email.data)
    if wanted.lower() == current_user.email:
        form.email.errors = [gettext("This is your address already.")]
        return _page(EMAIL, form), 422
    if limits.too_many("letter") or limits.too_many("letter", wanted):
        form.email.errors = TOO_MANY_LETTERS
        return _page(EMAIL, form), 429
    held = hold_with_proof(form, myself())
    if held is None:
        return _page(EMAIL, form), status()
    EmailChange.ask(held, wanted, now())
    _go_on(held)
    words = gettext("We have written to %(email)s. Your address changes once the link in that letter is used.",
                    email=wanted)  # fmt: skip
    return _done(words)


def _name_form(*typed: Any, **known: Any) -> NameForm:
    """Only case owners are shown to the public."""
    form = NameForm(*typed, **known)
    if current_user.role != "owner":
        del form.bio
    return form


def _password_form() -> ChangePasswordForm:
    form = ChangePasswordForm(request.form)
    _ask_for_code(form)
    return form


def _email_form() -> ChangeEmailForm:
    form = ChangeEmailForm(request.form)
    _ask_for_code(form)
    return form


def _ask_for_code(form: ProofForm) -> None:
    """Who has no second factor is not asked for it."""
    if current_user.second_factor_at is None:
        del form.code, form.recovery_code


def _go_on(held: User) -> None:
    """Whoever has proven who they are gets a new log-in in the place of the one before."""
    log_ins.enter(held)
    db.session.commit()
    ring("send_letters")


def _done(notice: str) -> AnyResponse:
    flash(notice)
    return redirect(url_for("own_account.account"), 303)


def _page(page: str, form: ProofForm) -> str:
    if "code" in form:
        form.code.data = ""
    return render_template(page, form=form)


# --- What the letters lead to ------------------------------------------------------------------------------


@accounts.get("/email-changes/<link>")
def new_email(opened: EmailChange) -> str:
    return render_template("accounts/new_email.html", change=opened)


@accounts.post("/email-changes/<link>")
def use_new_email(opened: EmailChange) -> AnyResponse:
    EmailChange.hold(opened.id).make(now())
    db.session.commit()
    ring("send_letters")
    return redirect(url_for("accounts.email_changed"), 303)


@accounts.get("/email-changes/done")
def email_changed() -> str:
    return render_template("accounts/email_changed.html")


@accounts.get("/email-changes/back/<link>")
def old_email(opened: EmailChange) -> str:
    return render_template("accounts/old_email.html", change=opened)


@accounts.post("/email-changes/back/<link>")
def keep_old_email(opened: EmailChange) -> AnyResponse:
    EmailChange.hold(opened.id).take_back(now())
    db.session.commit()
    ring("send_letters")
    return redirect(url_for("accounts.email_taken_back"), 303)


@accounts.get("/email-changes/back/done")
def email_taken_back() -> str:
    return render_template("accounts/email_taken_back.html")
