"""Who works on a case: its owner, and those whom the owner has invited to help. Their pages are those of the owners."""

from flask import abort, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

from jobs import ring
from law import Refused
from models import Case, Invitation, db
from views import hypermedia, languages, limits
from views.account_forms import EditorForm
from views.admissions import TOO_MANY_LETTERS
from views.owners import own, owners
from views.public import now

LINES = 100


@owners.get("/cases/<slug>/people")
def people(slug: str) -> str:
    return _people(own(slug), EditorForm())


@owners.post("/cases/<slug>/people")
def invite_editor(slug: str) -> AnyResponse | tuple[str, int]:
    """The same answer for every address, whether it has an account or not."""
    its_case, form = Case.hold(own(slug).id), EditorForm(request.form)
    if not form.validate():
        return _people(its_case, form), 422
    email = str(form.email.data)
    if limits.too_many("letter") or limits.too_many("letter", email):
        form.email.errors = TOO_MANY_LETTERS
        return _people(its_case, form), 429
    try:
        Invitation.to_case(its_case, email, current_user, now(), languages.asked_for())
    except Refused as refused:
        form.email.errors = [str(refused)]
        return _people(its_case, form), 409
    db.session.commit()
    ring("send_letters")
    return _back(slug, gettext("We have written to %(email)s.", email=email))


@owners.post("/cases/<slug>/people/invitations/<row:invitation_id>/withdrawal")
def take_invitation_back(slug: str, invitation_id: int) -> AnyResponse:
    its_case, held = own(slug), Invitation.hold(invitation_id)
    if held is None or held.case_id != its_case.id:
        abort(404)
    held.take_back(f"user:{current_user.id}", now())
    db.session.commit()
    return _back(slug, gettext("The invitation to %(email)s is taken back.", email=held.email))


@owners.post("/cases/<slug>/people/<row:user_id>/removal")
def remove_editor(slug: str, user_id: int) -> AnyResponse:
    """The owner ends anybody's part in the case; whoever helps ends their own."""
    its_case = Case.hold(own(slug).id)
    leaves = user_id == current_user.id
    if not leaves and its_case.owner_id != current_user.id:
        abort(403, gettext("Only the owner of this case can do that. Ask them, or go back to the case."))
    its_case.remove_editor(user_id, current_user, now())
    db.session.commit()
    if leaves:
        return redirect(url_for("owners.desk"), 303)
    return _back(slug, gettext("They can no longer work on this case."))


@owners.get("/cases/<slug>/history")
def history(slug: str) -> str:
    """Who did what to the case and its updates, newest first."""
    its_case = own(slug)
    titles = {update.id: update.title for update in its_case.updates}
    return render_template("owners/history.html", case=its_case, lines=its_case.desk_history(LINES), titles=titles)


def _people(its_case: Case, form: EditorForm) -> str:
    invitations = its_case.editor_invitations(now())
    return render_template("owners/people.html", case=its_case, form=form, invitations=invitations)


def _back(slug: str, notice: str) -> AnyResponse:
    return hypermedia.done(url_for("owners.people", slug=slug), notice, "owners/_people.html", **_shown(slug))


def _shown(slug: str) -> dict[str, object]:
    its_case = own(slug)
    return {"case": its_case, "invitations": its_case.editor_invitations(now())}
