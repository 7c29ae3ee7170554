"""Who may log in, and as what: staff invite people, change their roles, and disable them. Its pages are the staff's."""

from collections.abc import Callable

from flask import abort, flash, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

from jobs import ring
from law import N_, Refused
from models import Invitation, User, db
from views import languages, limits, states
from views.account_forms import InviteForm, RoleForm
from views.forms import ReasonForm, readable
from views.public import now
from views.staff import staff

USERS_A_PAGE = 50


@staff.get("/users")
def users() -> str:
    return _users_page(InviteForm())


@staff.post("/invitations")
def invite() -> AnyResponse | tuple[str, int]:
    form = InviteForm(request.form)
    if not form.validate():
        return _users_page(form), 422
    email = str(form.email.data)
    if limits.too_many("letter", email):
        form.email.errors = [gettext("Many letters went to this address. Please wait an hour, then send this again.")]
        return _users_page(form), 429
    try:
        Invitation.send(email, str(form.role.data), current_user, now(), languages.asked_for())
    except Refused as refused:
        form.email.errors = [str(refused)]
        return _users_page(form), 409
    db.session.commit()
    ring("send_letters")
    flash(gettext("A letter goes to %(email)s.", email=email))
    return redirect(url_for("staff.users"), 303)


@staff.post("/invitations/<row:invitation_id>/end")
def take_invitation_back(invitation_id: int) -> AnyResponse:
    invitation = Invitation.hold(invitation_id) or abort(404)
    invitation.take_back(f"user:{current_user.id}", now())
    email = invitation.email
    db.session.commit()
    flash(gettext("The invitation of %(email)s is taken back. Its link opens nothing any more.", email=email))
    return redirect(url_for("staff.users"), 303)


@staff.get("/users/<row:user_id>")
def user(user_id: int) -> str:
    person = _found(user_id)
    return _user_page(person)


@staff.post("/users/<row:user_id>/role")
def change_role(user_id: int) -> AnyResponse | tuple[str, int]:
    person, form = _held(user_id), RoleForm(request.form, prefix="role-")
    if not form.validate():
        return _user_page(person, role_form=form), 422
    person.change_role(str(form.role.data), str(form.reason.data), current_user, now())
    role = states.state(person.role, "role")
    return _back(person, gettext("%(name)s has the role “%(role)s”.", name=person.name, role=role))


@staff.post("/users/<row:user_id>/disabling")
def disable_user(user_id: int) -> AnyResponse | tuple[str, int]:
    return _switch(user_id, User.disable, N_("%(name)s cannot log in any more."))


@staff.post("/users/<row:user_id>/disabling/end")
def enable_user(user_id: int) -> AnyResponse | tuple[str, int]:
    return _switch(user_id, User.enable, N_("%(name)s can log in again."))


@staff.post("/users/<row:user_id>/second-factor/end")
def reset_second_factor(user_id: int) -> AnyResponse | tuple[str, int]:
    person, form = _held(user_id), ReasonForm(request.form, prefix="factor-")
    if not form.validate():
        return _user_page(person, factor_form=form), 422
    person.reset_second_factor(str(form.reason.data), current_user, now())
    answer = _back(
        person, gettext("%(name)s has no second factor any more, and is told so by letter.", name=person.name)
    )
    ring("send_letters")
    return answer


def _switch(user_id: int, verb: Callable[..., None], said: str) -> AnyResponse | tuple[str, int]:
    person, form = _held(user_id), ReasonForm(request.form, prefix="disabling-")
    if not form.validate():
        return _user_page(person, reason_form=form), 422
    verb(person, str(form.reason.data), current_user, now())
    return _back(person, gettext(said, name=person.name))


def _back(person: User, notice: str) -> AnyResponse:
    number = person.id
    db.session.commit()
    flash(notice)
    return redirect(url_for("staff.user", user_id=number), 303)


def _found(user_id: int) -> User:
    return db.session.get(User, user_id) or abort(404)


def _held(user_id: int) -> User:
    return User.hold(user_id, current_user) or abort(404)


def _users_page(form: InviteForm) -> str:
    words, after = readable(request.args.get("q", ""), "").strip()[:254], request.args.get("after", "")
    start = int(after) if after.isdecimal() and after.isascii() and len(after) < 10 else 0
    page = User.search(words, start, USERS_A_PAGE + 1)
    return render_template(
        "staff/users.html", form=form, users=page[:USERS_A_PAGE], words=words, invitations=Invitation.listed(),
        as_of=now(), next=page[USERS_A_PAGE - 1].id if len(page) > USERS_A_PAGE else None,
    )  # fmt: skip


def _user_page(person: User, **wrong: RoleForm | ReasonForm) -> str:
    """The page of a user, with the form that was sent wrongly, if any."""
    forms = {
        "role_form": RoleForm(prefix="role-", role=person.role), "reason_form": ReasonForm(prefix="disabling-"),
        "factor_form": ReasonForm(prefix="factor-"), **wrong,
    }  # fmt: skip
    return render_template(
        "staff/user.html", person=person, history=person.history(), is_self=person.id == current_user.id, **forms,
        wrong=next(iter(wrong.values()), forms["role_form"]),
    )  # fmt: skip
