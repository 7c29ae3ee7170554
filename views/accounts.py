"""Logging in and out. How people get an account is told in admissions.py, how they get back into one in resets.py, and
what comes between the password and the desk in second_factors.py: all three add their pages to this blueprint."""

from flask import Blueprint, abort, redirect, render_template, request, session, url_for
from flask_babel import gettext
from flask_login import current_user, login_user, logout_user
from werkzeug.wrappers import Response

from models import User, begin_reading, begin_writing, db
from views import doors
from views.forms import LoginForm
from views.public import now

accounts = Blueprint("accounts", __name__)
doors.admit(accounts, "anyone, or the holder of a private link; logging out needs a log-in")
# Where the cookie says who has typed the password, and when, and not yet what comes after it.
HALF = "half_log_in"
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
    if doors.too_many("login") or doors.too_many("login", str(form.email.data)):
        form.password.errors = [gettext("Too many tries. Please wait a quarter of an hour, then try again.")]
        return login_page(form), 429
    # The slow hash is compared outside of any write, or each log-in would hold up every pledge.
    begin_reading()
    user = User.authenticate(str(form.email.data), str(form.password.data))
    if user is None:
        form.password.errors = [gettext("The e-mail address or the password is not right.")]
        return login_page(form), 422
    known_as = user.get_id()
    begin_writing()
    if user.get_id() != known_as:
        # Logged out everywhere in this very moment, perhaps since that password is not theirs alone.
        form.password.errors = [gettext("The e-mail address or the password is not right.")]
        return login_page(form), 422
    user.renew_hash(str(form.password.data))
    db.session.commit()
    return let_in(user, doors.safe_next(form.next.data or ""))


def let_in(user: User, where: str = "") -> Response:
    """The password was right: to the desk, or to the page that was asked for. Whoever has a second factor, or must have
    one, is not logged in by it. What the cookie says then opens only the page for the codes, and for a little while."""
    # Nothing that stood in the cookie before may survive the log-in.
    session.clear()
    if user.second_factor_at is None and not doors.lacks_second_factor(user):
        login_user(user)
        return redirect(where or url_for(DESKS[user.role]), 303)
    session[HALF] = {"who": user.get_id(), "since": int(now().timestamp()), "next": where}
    return redirect(url_for("accounts.second_factor" if user.second_factor_at else "accounts.new_second_factor"), 303)


@accounts.post("/logout")
def log_out() -> Response:
    if not current_user.is_authenticated:
        return redirect(url_for("public.home"), 303)
    if not doors.has_form_token():
        abort(403)
    current_user.end_sessions()
    db.session.commit()
    logout_user()
    session.clear()
    return redirect(url_for("public.home"), 303)


def login_page(form: LoginForm) -> str:
    form.password.data = ""
    form.next.data = doors.safe_next(form.next.data or "")
    return render_template("accounts/login.html", form=form)
