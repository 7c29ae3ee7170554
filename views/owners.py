"""The case owners' desk: their own cases, the pledges, and the updates that they post."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, abort, render_template, request, url_for
from flask.wrappers import Response
from flask_login import current_user

from jobs import ring
from models import Case, Update, db
from views import doors, hypermedia
from views.forms import UpdateForm

owners = Blueprint("owners", __name__, url_prefix="/owner")
doors.admit(owners, "owner")


@owners.get("")
def desk() -> str:
    return render_template("owners/desk.html", cases=Case.owned_by(current_user), as_of=_now())


@owners.get("/cases/<slug>/updates/new")
def update_form(slug: str) -> str:
    return render_template("owners/update.html", form=UpdateForm(), **_shown(own(slug)))


@owners.post("/cases/<slug>/updates")
def publish_update(slug: str) -> Response | str:
    its_case, form = own(slug), UpdateForm(request.form)
    if not form.validate():
        return _again(form, its_case)
    if "preview" in request.form:
        return render_template("owners/update.html", form=form, preview=True, **_shown(its_case))
    update = its_case.publish_update(current_user, str(form.title.data), str(form.body.data), _now())
    db.session.commit()
    ring("send_letters")
    where = url_for("public.case", slug=slug, _anchor=f"update-{update.id}")
    return hypermedia.done(where, "Your update is published.", "owners/_published.html", where=where)


@owners.get("/cases/<slug>/updates/<row:update_id>")
def update(slug: str, update_id: int) -> str:
    its_update = own_update(slug, update_id)
    form = UpdateForm(obj=its_update)
    return render_template("owners/update.html", form=form, update=its_update, **_shown(its_update.case))


@owners.post("/cases/<slug>/updates/<row:update_id>")
def edit_update(slug: str, update_id: int) -> Response | str:
    its_update, form = own_update(slug, update_id), UpdateForm(request.form)
    if not form.validate():
        return _again(form, its_update.case, update=its_update)
    if "preview" in request.form:
        return render_template(
            "owners/update.html", form=form, update=its_update, preview=True, **_shown(its_update.case)
        )
    its_update.edit(str(form.title.data), str(form.body.data), current_user, _now())
    db.session.commit()
    where = url_for("public.case", slug=slug, _anchor=f"update-{its_update.id}")
    return hypermedia.done(where, "Your changes are published.", "owners/_published.html", where=where)


def own(slug: str) -> Case:
    """A case of the person who is logged in; anybody else's does not exist for them."""
    found = sa.select(Case).where(Case.slug == slug, Case.owner_id == current_user.id)
    return db.session.scalar(found) or abort(404)


def own_update(slug: str, update_id: int) -> Update:
    found = sa.select(Update).where(Update.id == update_id, Update.case_id == own(slug).id)
    return db.session.scalar(found) or abort(404)


def _again(form: UpdateForm, its_case: Case, **context: Any) -> Response:
    return hypermedia.invalid(
        "owners/update.html", "owners/_update_form.html", form=form, **context, **_shown(its_case)
    )


def _shown(its_case: Case) -> dict[str, Any]:
    return {
        "case": its_case,
        "round": its_case.round if its_case.rounds else None,
        "readers": its_case.count_update_readers(),
        "as_of": _now(),
    }


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
