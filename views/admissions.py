"""How people get an account: by an invitation or, where the site is open, by signing up. Its pages are those of the
accounts.

Mail scanners follow links, so what a letter leads to only shows a form. What is slow, hashing a password, is never
done in a transaction that writes.
"""

from flask import abort, redirect, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import gettext, lazy_gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

import config
from jobs import ring
from models import (
    EmailChange,
    Invitation,
    PasswordReset,
    SignUp,
    User,
    begin_reading,
    begin_writing,
    db,
    hash_password,
    is_password,
)
from views import doors, hypermedia, languages, limits
from views.account_forms import JoinForm, OwnPasswordForm, SignUpForm
from views.accounts import accounts, let_in
from views.public import now

# The routes of a link -> whose link it is, and what it is signed for.
BY_LINK: dict[str, tuple[type[SignUp | Invitation | PasswordReset], str]] = {
    "accounts.sign_up_confirmation": (SignUp, "sign-up"), "accounts.confirm_sign_up": (SignUp, "sign-up"),
    "accounts.invitation": (Invitation, "invitation"), "accounts.accept_invitation": (Invitation, "invitation"),
    "accounts.password_reset": (PasswordReset, "password-reset"),
    "accounts.reset_password": (PasswordReset, "password-reset"),
}  # fmt: skip
# The links of another address, one for each of its two readers.
OF_EMAILS = {
    "accounts.new_email": "new-email", "accounts.use_new_email": "new-email",
    "accounts.old_email": "old-email", "accounts.keep_old_email": "old-email",
}  # fmt: skip
OPEN_ONLY = ("sign_up_form", "sign_up", "sign_up_sent", "sign_up_confirmation", "confirm_sign_up")
TOO_MANY_LETTERS = [lazy_gettext("Many letters were asked for. Please wait an hour, then send this again.")]
TOO_MANY_TRIES = [lazy_gettext("Too many tries. Please wait a quarter of an hour, then try again.")]


@accounts.before_request
def find_by_link() -> Response | None:
    """Turn the link of the address into its row, or say that it works no more; nothing here may be cached."""
    doors.never_store()
    endpoint, values = str(request.endpoint), request.view_args or {}
    if endpoint.partition(".")[2] in OPEN_ONLY and config.current().sign_up != "open":
        abort(404)
    if "link" not in values:
        return None
    values["opened"] = _still_opens(endpoint, values.pop("link"))
    if values["opened"] is not None:
        return None
    return hypermedia.trouble("accounts/no_such_link.html", 404, words=gettext("This link works no more."))


def _still_opens(endpoint: str, link: str) -> SignUp | Invitation | PasswordReset | EmailChange | None:
    if endpoint in OF_EMAILS:
        return EmailChange.opened(link, OF_EMAILS[endpoint], now())
    row = BY_LINK[endpoint][0].by_link(link)
    return row if row is not None and row.waits(now()) else None


# --- Signing up --------------------------------------------------------------------------------------------


@accounts.get("/sign-up")
def sign_up_form() -> str:
    return render_template("accounts/sign_up.html", form=SignUpForm())


@accounts.post("/sign-up")
def sign_up() -> AnyResponse | tuple[str, int]:
    """The same answer, and the same work until it, whether the address has an account or not."""
    form = SignUpForm(request.form)
    if not form.validate():
        return render_template("accounts/sign_up.html", form=form), 422
    email = str(form.email.data)
    if limits.too_many("letter") or limits.too_many("letter", email):
        form.email.errors = TOO_MANY_LETTERS
        return render_template("accounts/sign_up.html", form=form), 429
    its_hash = hashed(str(form.password.data))
    SignUp.ask(email, str(form.name.data), its_hash, now(), languages.asked_for())
    db.session.commit()
    ring("send_letters")
    return redirect(url_for("accounts.sign_up_sent"), 303)


@accounts.get("/sign-up/sent")
def sign_up_sent() -> str:
    return render_template("accounts/sign_up_sent.html")


@accounts.get("/sign-up/<link>")
def sign_up_confirmation(opened: SignUp) -> str:
    return render_template("accounts/confirm.html", form=OwnPasswordForm(), opened=opened)


@accounts.post("/sign-up/<link>")
def confirm_sign_up(opened: SignUp) -> AnyResponse | tuple[str, int]:
    """Whoever reads the address types the password once more: it may be that a stranger has signed up with it."""
    form = OwnPasswordForm(request.form)
    if not form.validate():
        return render_template("accounts/confirm.html", form=form, opened=opened), 422
    if limits.too_many("login") or limits.too_many("login", opened.email):
        form.password.errors = TOO_MANY_TRIES
        return render_template("accounts/confirm.html", form=form, opened=opened), 429
    number, its_hash = opened.id, opened.password_hash
    begin_reading()
    if not is_password(its_hash, str(form.password.data)):
        form.password.errors = [gettext("This is not the password with which this account was asked for.")]
        return render_template("accounts/confirm.html", form=form, opened=opened), 422
    begin_writing()
    return _welcome(SignUp.hold(number).confirm(now(), languages.asked_for()))


# --- Invitations -------------------------------------------------------------------------------------------


@accounts.get("/invitations/<link>")
def invitation(opened: Invitation) -> str:
    if User.at(opened.email) is not None:
        return render_template("accounts/case_invitation.html", opened=opened)
    return render_template("accounts/invitation.html", form=JoinForm(), opened=opened)


@accounts.post("/invitations/<link>")
def accept_invitation(opened: Invitation) -> AnyResponse | tuple[str, int]:
    """Whoever has an account by now takes it up while logged in; everybody else opens one."""
    if User.at(opened.email) is not None:
        return _join_case(opened)
    form = JoinForm(request.form)
    if not form.validate_for(opened.email):
        return render_template("accounts/invitation.html", form=form, opened=opened), 422
    if limits.too_many("password"):
        form.password.errors = TOO_MANY_TRIES
        return render_template("accounts/invitation.html", form=form, opened=opened), 429
    number = opened.id
    its_hash = hashed(str(form.password.data))
    held = Invitation.hold(number) or abort(404)
    return _welcome(held.accept(str(form.name.data), its_hash, now(), languages.asked_for()))


def _join_case(opened: Invitation) -> AnyResponse:
    number, link = opened.id, opened.link()
    if not current_user.is_authenticated:
        return redirect(url_for("accounts.log_in", next=url_for("accounts.invitation", link=link)), 303)
    held = Invitation.hold(number) or abort(404)
    held.accept_as(current_user, now())
    slug = held.case.slug if held.case else abort(404)
    db.session.commit()
    return redirect(url_for("owners.case", slug=slug), 303)


def hashed(password: str) -> str:
    """Ends the transaction, and leaves the next one to write."""
    begin_reading()
    result = hash_password(password)
    begin_writing()
    return result


def _welcome(user: User) -> AnyResponse:
    """Whoever has just chosen or typed the password need not type it again."""
    return let_in(user)
