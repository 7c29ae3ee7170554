"""Between the password and the desk: the digits of an app, or the first set-up where a second factor is required. Its
pages are those of the accounts; owners, moderators and staff change theirs in own_account.py.

Whoever stands here is nobody yet: `current_user` stays anonymous until the codes are right.
"""

import pyotp
from flask import abort, current_app, g, redirect, render_template, request, session, url_for
from flask_babel import gettext, lazy_gettext
from flask_login import current_user
from itsdangerous import BadData, URLSafeTimedSerializer
from markupsafe import Markup
from werkzeug.wrappers import Response as AnyResponse

import config
from jobs import ring
from models import User, begin_reading, begin_writing, db, is_password
from views import log_ins
from views.account_forms import CodeForm, SetUpForm
from views.accounts import DESKS, accounts, login_page
from views.admissions import TOO_MANY_TRIES
from views.forms import LoginForm
from views.public import now

WRONG_CODE = [lazy_gettext("This is not right, or it was used already. Type the digits that your app shows now.")]
WRONG_NEW_CODE = [
    lazy_gettext("These are not the digits for this secret. See that the clock of your phone is right, and try again.")
]
TOO_OLD = [
    lazy_gettext("This page was too old. Let your app read the new picture, and type the digits that it shows then.")
]
TOO_LATE = [
    lazy_gettext(
        "More than ten minutes have passed since your password, or this page was used already. Log in once more."
    )
]
# So long a secret that was shown may be set up.
OFFER_LASTS = 3600


@accounts.get("/login/second-factor")
def second_factor() -> str | AnyResponse:
    person = log_ins.half_logged_in()
    if person is None or person.second_factor_at is None:
        return redirect(url_for("accounts.log_in"), 303)
    return _code_page(CodeForm(), person)


@accounts.post("/login/second-factor")
def give_code() -> AnyResponse | tuple[str, int]:
    person, form = log_ins.half_logged_in(), CodeForm(request.form)
    if current_user.is_authenticated:
        # The button was pressed twice.
        return redirect(url_for("accounts.log_in"), 303)
    if person is None or person.second_factor_at is None:
        return _too_late()
    held = hold_with_proof(form, person) if form.validate() else None
    if held is None:
        return _code_page(form, person), status()
    where = session[log_ins.HALF]["next"] or url_for(DESKS[held.role])
    log_ins.enter(held)
    db.session.commit()
    ring("send_letters")
    return redirect(where, 303)


@accounts.get("/login/new-second-factor")
def new_second_factor() -> str | AnyResponse:
    person = log_ins.half_logged_in()
    if person is None or person.second_factor_at is not None:
        return redirect(url_for("accounts.log_in"), 303)
    return set_up_page(_first_form(), person)


@accounts.post("/login/new-second-factor")
def set_first_second_factor() -> AnyResponse | str | tuple[str, int]:
    person = log_ins.half_logged_in()
    return _too_late() if person is None or person.second_factor_at is not None else take_set_up(_first_form(), person)


def _too_late() -> tuple[str, int]:
    form = LoginForm(next=session.get(log_ins.HALF, {}).get("next", ""))
    form.password.errors = TOO_LATE
    return login_page(form), 422


def _first_form() -> SetUpForm:
    """Who has just typed the password and has no second factor has nothing more to prove."""
    form = SetUpForm(request.form)
    del form.password, form.code, form.recovery_code
    return form


def _code_page(form: CodeForm, person: User) -> str:
    form.code.data = ""
    return render_template("accounts/second_factor.html", form=form, person=person)


# --- What the account's own pages do as well ---------------------------------------------------------------


def hold_with_proof(form: CodeForm | SetUpForm, person: User) -> User | None:
    """The user, held, once the password and the code are right, as far as the form asks for them. Otherwise None, and
    the form says why. Needs the form to be valid."""
    if "password" in form and not knows_password(form, person):
        return None
    return hold_with_code(form, person)


def hold_with_code(form: CodeForm | SetUpForm, person: User) -> User | None:
    """As hold_with_proof, once the password is known to be right."""
    held = User.hold(person.id)
    if held is None or not log_ins.is_still_open():
        abort(403, gettext("Your log-in has ended meanwhile. Please log in again."))
    return held if "code" not in form or _gives_code(form, held) else None


def knows_password(form: CodeForm | SetUpForm, person: User) -> bool:
    field, its_hash = form["password"], person.password_hash
    if log_ins.too_many_tries("login", person.email):
        field.errors = TOO_MANY_TRIES
        return False
    # The slow hash is compared outside of any write, as at the log-in.
    begin_reading()
    right = is_password(its_hash, str(field.data))
    begin_writing()
    if not right:
        field.errors = [gettext("This is not your password.")]
    return right


def _gives_code(form: CodeForm | SetUpForm, held: User) -> bool:
    """Only who knows the password comes here, so too many tries are told to the user by letter."""
    if log_ins.too_many_tries("code", held.email):
        held.warn_of_tries(now())
        db.session.commit()
        ring("send_letters")
        form["code"].errors = TOO_MANY_TRIES
        return False
    if held.take_code(form["code"].data or "", form["recovery_code"].data or "", now()):
        return True
    form["recovery_code" if form["recovery_code"].data else "code"].errors = WRONG_CODE
    return False


def status() -> int:
    """Of the page that says what is wrong."""
    return 429 if g.get("retry_after") else 422


def take_set_up(form: SetUpForm, person: User) -> str | tuple[str, int]:
    """Set up what was shown. The answer is the one page that shows the recovery codes."""
    secret = _offered(form, person)
    if not form.validate():
        return set_up_page(form, person, secret), 422
    if not secret:
        form.new_code.errors = TOO_OLD
        return set_up_page(form, person), 422
    held = hold_with_proof(form, person)
    codes = held.set_second_factor(secret, str(form.new_code.data), now()) if held else []
    if held and not codes:
        form.new_code.errors = WRONG_NEW_CODE
    if held is None or not codes:
        # A code that was right is not used up by digits that were not.
        db.session.rollback()
        return set_up_page(form, person, secret), status()
    log_ins.enter(held)
    db.session.commit()
    ring("send_letters")
    return codes_page(codes)


def codes_page(codes: list[str]) -> str:
    begin_reading()
    return render_template("accounts/recovery_codes.html", codes=codes)


def set_up_page(form: SetUpForm, person: User, secret: str = "") -> str:
    """The page with a secret, which is kept in the page alone, signed, until its first digits have come."""
    import segno

    secret = secret or pyotp.random_base32()
    form.offer.data = _offers().dumps([person.id, secret])
    for name in {"code", "new_code"} & {*form.data}:
        form[name].data = ""
    address = pyotp.TOTP(secret).provisioning_uri(name=person.email, issuer_name=config.current().site_name)
    drawn = segno.make(address, micro=False).svg_inline(light="#fff", omitsize=True, svgclass="qr", lineclass=None)
    return render_template(
        "accounts/new_second_factor.html", form=form, person=person, app_address=address,
        secret=" ".join(secret[start : start + 4] for start in range(0, len(secret), 4)),
        picture=Markup(drawn),  # noqa: S704 - segno has drawn it, and nothing of ours stands in it as text
    )  # fmt: skip


def _offered(form: SetUpForm, person: User) -> str:
    """The secret that the page of this user has shown, or "" for one that is too old or not ours."""
    try:
        number, secret = _offers().loads(form.offer.data or "", max_age=OFFER_LASTS)
    except BadData:
        return ""
    return str(secret) if number == person.id else ""


def _offers() -> URLSafeTimedSerializer:
    """Signed as the cookies are: a secret that somebody else has chosen is never set up."""
    keys = [*current_app.config["SECRET_KEY_FALLBACKS"], current_app.config["SECRET_KEY"]]
    return URLSafeTimedSerializer(keys, salt="a new second factor")
