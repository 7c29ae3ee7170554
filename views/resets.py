"""Back into an account whose password was forgotten, by a link in a letter. Its pages are those of the accounts."""

from flask import redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from jobs import ring
from models import PasswordReset, db
from views import languages, limits, log_ins
from views.account_forms import NewPasswordForm
from views.accounts import accounts
from views.admissions import TOO_MANY_LETTERS, TOO_MANY_TRIES, hashed
from views.forms import EmailForm
from views.public import now


@accounts.get("/forgotten-password")
def forgotten_password() -> str:
    return render_template("accounts/forgotten.html", form=EmailForm())


@accounts.post("/forgotten-password")
def ask_reset() -> AnyResponse | tuple[str, int]:
    """The same answer, and the same work until it, whether the address has an account or not."""
    form = EmailForm(request.form)
    if not form.validate():
        return render_template("accounts/forgotten.html", form=form), 422
    email = str(form.email.data)
    if limits.too_many("letter") or limits.too_many("reset", email):
        form.email.errors = TOO_MANY_LETTERS
        return render_template("accounts/forgotten.html", form=form), 429
    PasswordReset.ask(email, now(), languages.asked_for())
    db.session.commit()
    ring("send_letters")
    return redirect(url_for("accounts.reset_sent"), 303)


@accounts.get("/forgotten-password/sent")
def reset_sent() -> str:
    return render_template("accounts/reset_sent.html")


@accounts.get("/password-resets/<link>")
def password_reset(opened: PasswordReset) -> str:
    return render_template("accounts/reset.html", form=NewPasswordForm(), opened=opened)


@accounts.post("/password-resets/<link>")
def reset_password(opened: PasswordReset) -> AnyResponse | tuple[str, int]:
    """Nobody is logged in by it: the log-in asks for everything that it ever asks for."""
    form = NewPasswordForm(request.form)
    if not form.validate_for(opened.email):
        return render_template("accounts/reset.html", form=form, opened=opened), 422
    if limits.too_many("password"):
        form.password.errors = TOO_MANY_TRIES
        return render_template("accounts/reset.html", form=form, opened=opened), 429
    number = opened.id
    its_hash = hashed(str(form.password.data))
    email = opened.email
    PasswordReset.hold(number).use(its_hash, now())
    db.session.commit()
    # Whoever tries their way into the account now keeps its owner out no more.
    log_ins.remember(email)
    ring("send_letters")
    return redirect(url_for("accounts.password_changed"), 303)


@accounts.get("/password-resets/done")
def password_changed() -> str:
    return render_template("accounts/password_changed.html")
