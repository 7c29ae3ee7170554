"""The case owners' desk: their own cases and the pledges. The workshop, updates and the talk with readers have rooms of
their own on the same blueprint."""

import datetime as dt
from typing import Any

import sqlalchemy as sa
from flask import Blueprint, abort, render_template, request
from flask_babel import gettext
from flask_login import current_user

from models import Case, Update, db
from views import doors
from views.public import number_of

owners = Blueprint("owners", __name__, url_prefix="/owner")
doors.admit(owners, "owner")

CASES_A_PAGE = 20
# What binds the owner, or lets others in: those who help to edit the case have no part in it.
OWNER_ALONE = frozenset({
    "owners.submit", "owners.take_back", "owners.replace_preview_link", "owners.promise", "owners.ask_promise_change",
    "owners.withdraw_promise_change", "owners.cancellation", "owners.cancel_case", "owners.report_form",
    "owners.publish_report", "owners.invite_editor", "owners.take_invitation_back", "owners.draft_deletion",
    "owners.delete_draft",
})  # fmt: skip


@owners.get("")
def desk() -> str:
    before = number_of("before")
    cases = Case.owned_by(current_user, CASES_A_PAGE + 1, before)
    older = cases[CASES_A_PAGE - 1].id if len(cases) > CASES_A_PAGE else None
    return render_template("owners/desk.html", cases=cases[:CASES_A_PAGE], older=older, before=before, as_of=_now())


def own(slug: str) -> Case:
    """A case of the person who is logged in, or one that they help to edit; anybody else's does not exist for them."""
    found = db.session.scalar(sa.select(Case).where(Case.slug == slug, Case.of(current_user))) or abort(404)
    if request.endpoint in OWNER_ALONE and found.owner_id != current_user.id:
        abort(403, gettext("Only the owner of this case can do that. Ask them, or go back to the case."))
    return found


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
