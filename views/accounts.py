"""Logging in and out. How people get an account is told in admissions.py, how they get back into one in resets.py, and
what comes between the password and the desk in second_factors.py: all three add their pages to this blueprint."""

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response

from models import User, begin_reading, begin_writing, db
from views import doors, log_ins
from views.forms import LoginForm

accounts = Blueprint("accounts", __name__)
doors.admit(accounts, "anyone, or the holder of a private link; logging out needs a log-in")
DESKS = {"owner": "owners.desk", "moderator": "moderators.queue", "staff": "staff.desk"}


@accounts.get("/login")
def log_in() -> str | Response:
    doors.never_store()
    if current_user.is_authenticated:
        return redirect(url_for(DESKS[current_user.role]), 303)
    return login_page(LoginForm(next=request.args.get("next", "")))


@accounts.post("/login")
def enter() -> Response | tuple[str, int]:
    """The same words and the same time for an unknown address and for a wrong password."""
    doors.never_store()
    form = LoginForm(request.form)
    if not form.validate():
        return login_page(form), 422
    if log_ins.too_many_tries("login", str(form.email.data)):
        form.password.errors = [
            gettext(
                "Too many tries. Please wait a quarter of an hour, then try again. If you have not made them, "
                "set another password by letter, and log in with it in the same browser."
            )
        ]
        return login_page(form), 429
    # The slow hash is compared outside of any write, or each log-in would hold up every pledge.
    begin_reading()
    user = User.authenticate(str(form.email.data), str(form.password.data))
    if user is None:
        form.password.errors = [gettext("The e-mail address or the password is not right.")]
        return login_page(form), 422
    number, compared = user.id, user.password_hash
    stronger = user.stronger_hash(str(form.password.data))
    begin_writing()
    held = User.hold(number)
    if held is None or held.password_hash != compared or held.disabled_at is not None:
        # Another one was set in this very moment, perhaps since that password is not theirs alone.
        form.password.errors = [gettext("The e-mail address or the password is not right.")]
        return login_page(form), 422
    held.password_hash = stronger or compared
    return let_in(held, doors.safe_next(form.next.data or ""))


def let_in(user: User, where: str = "") -> Response:
    """The password was right: to the desk, or to the page that was asked for. Whoever has a second factor, or must have
    one, is not logged in by it: that opens only the page for the codes, and for a little while. Commits."""
    if user.second_factor_at is None and not doors.lacks_second_factor(user):
        where = where or url_for(DESKS[user.role])
        log_ins.enter(user)
    else:
        log_ins.enter_half(user, where)
        where = url_for("accounts.second_factor" if user.second_factor_at else "accounts.new_second_factor")
    db.session.commit()
    return redirect(where, 303)


@accounts.post("/logout")
def log_out() -> Response:
    if not current_user.is_authenticated:
        return redirect(url_for("public.home"), 303)
    if not doors.has_form_token():
        abort(403)
    log_ins.leave()
    db.session.commit()
    return redirect(url_for("public.home"), 303)


def login_page(form: LoginForm) -> str:
    form.password.data = ""
    form.next.data = doors.safe_next(form.next.data or "")
    return render_template("accounts/login.html", form=form)
