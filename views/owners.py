"""The case owners' desk: their own cases and the pledges. The workshop, updates and the talk with readers have rooms of
their own on the same blueprint."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, abort, render_template
from flask_login import current_user

from models import Case, Update, db
from views import doors

owners = Blueprint("owners", __name__, url_prefix="/owner")
doors.admit(owners, "owner")


@owners.get("")
def desk() -> str:
    return render_template("owners/desk.html", cases=Case.owned_by(current_user), as_of=_now())


def own(slug: str) -> Case:
    """A case of the person who is logged in; anybody else's does not exist for them."""
    found = sa.select(Case).where(Case.slug == slug, Case.owner_id == current_user.id)
    return db.session.scalar(found) or abort(404)


def own_update(slug: str, update_id: int) -> Update:
    found = sa.select(Update).where(Update.id == update_id, Update.case_id == own(slug).id)
    return db.session.scalar(found) or abort(404)


def _shown(its_case: Case) -> dict[str, Any]:
    return {
        "case": its_case,
        "round": its_case.round if its_case.rounds else None,
        "as_of": _now(),
    }


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
