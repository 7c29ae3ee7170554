"""The case owners' updates, from a draft to the letters that go out. Its pages are the owners'."""

import datetime as dt
import secrets
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

import law
from jobs import ring
from law import Refused
from models import Case, Update, db
from views import hypermedia
from views.draft_form import LiveFromForm, PictureForm
from views.forms import TypedForm, readable
from views.owners import own, own_update, owners
from views.update_forms import UpdateDraftForm, UpdateForm
from views.workshop import drawings

# What the buttons below the form lead to, once the draft is saved; to look at it, it must be whole.
WAYS_ON = {"look": "owners.look_at_update", "picture": "owners.update_picture"}


@owners.get("/cases/<slug>/updates/new")
def new_update(slug: str) -> AnyResponse | str:
    case = own(slug)
    if case.live_at is None:
        return redirect(url_for("owners.case", slug=slug), 303)
    form = UpdateDraftForm(data={"audience": "everyone", "form_key": secrets.token_urlsafe(24)})
    return render_template("owners/update.html", **_shown(case, form, None))


@owners.get("/cases/<slug>/updates/<row:update_id>")
def update(slug: str, update_id: int) -> str:
    """The form of an update; while it waits for its time, how it will look."""
    its_update = own_update(slug, update_id)
    if its_update.status == "scheduled":
        return _look(its_update)
    kind = UpdateForm if its_update.status == "published" else UpdateDraftForm
    return render_template("owners/update.html", **_shown(its_update.case, kind(obj=its_update), its_update))


@owners.post("/cases/<slug>/updates")
def save_update(slug: str) -> AnyResponse:
    """Keeps what can be kept of a draft, whether a button was pressed or the page saves by itself.

    All that one form sends is one update, however often and however fast it is sent.
    """
    case, form, as_of = Case.hold(own(slug).id), UpdateDraftForm(request.form), _now()
    form.validate()
    if form.form_key.errors:
        form.form_key.data = secrets.token_urlsafe(24)
        return _again(case, form, None)
    its_update = case.begin_update(current_user, str(form.form_key.data), as_of)
    try:
        its_update.write(form.values(), _seen(), as_of, page=_page(), pressed="by_itself" not in request.form)
    except Refused as refused:
        return _refused(its_update, form, refused)
    db.session.commit()
    then = request.form.get("then", "")
    if then == "look":
        form.tell(its_update.missing())
    if form.error_list():
        return _again(case, form, its_update, saved_at=as_of)
    where = url_for(WAYS_ON.get(then, "owners.update"), slug=slug, update_id=its_update.id)
    shown = _shown(case, form, its_update)
    return hypermedia.done(
        where, gettext("The draft is saved."), "owners/_update_saved.html", swapped=True, saved_at=as_of, **shown
    )


@owners.post("/cases/<slug>/updates/<row:update_id>")
def edit_update(slug: str, update_id: int) -> AnyResponse | str:
    """Other words for an update that is published; nobody gets a letter again."""
    held, form = Update.hold(own_update(slug, update_id).id), UpdateForm(request.form)
    if not form.validate():
        return _again(held.case, form, held)
    if "preview" in request.form:
        return render_template("owners/update.html", preview=True, **_shown(held.case, form, held))
    try:
        held.edit(str(form.title.data), str(form.body.data), current_user, _now())
    except Refused as refused:
        return _refused(held, form, refused)
    db.session.commit()
    flash(gettext("Your changes are published."))
    return redirect(_on_the_page(held), 303)


# --- Publishing --------------------------------------------------------------------------------------------


@owners.get("/cases/<slug>/updates/<row:update_id>/look")
def look_at_update(slug: str, update_id: int) -> str:
    """As readers will see it, and what happens when it is published: who may read it, and how many letters go out."""
    return _look(own_update(slug, update_id))


@owners.post("/cases/<slug>/updates/<row:update_id>/publication")
def publish_update(slug: str, update_id: int) -> AnyResponse | tuple[str, int]:
    """Pressed twice it is published once, and each letter goes out once."""
    held = Update.hold(own_update(slug, update_id).id)
    try:
        held.publish(f"user:{current_user.id}", _now(), _seen())
    except Refused as refused:
        return _not_published(held, refused)
    db.session.commit()
    ring("send_letters")
    flash(gettext("Your update is published."))
    return redirect(_on_the_page(held), 303)


@owners.post("/cases/<slug>/updates/<row:update_id>/timed-publication")
def publish_update_later(slug: str, update_id: int) -> AnyResponse | tuple[str, int]:
    held, form, as_of = Update.hold(own_update(slug, update_id).id), LiveFromForm(request.form, prefix="later-"), _now()
    at = form.instant(held.case.zone)
    if at is not None:
        try:
            law.check_publication(at, as_of)
        except Refused as wrong:
            form.date.errors = [str(wrong)]
    if at is None or form.date.errors:
        return _look(held, form), 422
    try:
        held.publish_later(at, current_user, as_of, _seen())
    except Refused as refused:
        return _not_published(held, refused, form)
    db.session.commit()
    flash(gettext("Your update is published by itself %(when)s.", when=law.instant_words(at, held.case.zone)))
    return redirect(url_for("owners.case", slug=slug), 303)


@owners.post("/cases/<slug>/updates/<row:update_id>/withdrawal")
def take_update_back(slug: str, update_id: int) -> AnyResponse | tuple[str, int]:
    held = Update.hold(own_update(slug, update_id).id)
    try:
        held.take_back(current_user, _now())
    except Refused:
        return _not_published(
            held, Refused(gettext("This update is published by now. You can still change its words."))
        )
    db.session.commit()
    flash(gettext("The update is a draft again."))
    return redirect(url_for("owners.update", slug=slug, update_id=update_id), 303)


@owners.get("/cases/<slug>/updates/<row:update_id>/deletion")
def update_deletion(slug: str, update_id: int) -> str:
    """The question first: a draft that is thrown away does not come back."""
    return _deletion_page(own_update(slug, update_id))


@owners.post("/cases/<slug>/updates/<row:update_id>/deletion")
def delete_update(slug: str, update_id: int) -> AnyResponse | tuple[str, int]:
    """Pressed twice, the second press finds nothing any more. What was changed since the question stays."""
    held = Update.hold(own_update(slug, update_id).id)
    if held.status == "draft" and _seen() != held.version:
        problem = gettext("This draft was changed since you opened this page, so nothing was deleted. Look again.")
        return _deletion_page(held, problem), 409
    held.delete(current_user, _now())
    db.session.commit()
    flash(gettext("The draft is deleted."))
    return redirect(url_for("owners.case", slug=slug), 303)


# --- Its picture -------------------------------------------------------------------------------------------


@owners.get("/cases/<slug>/updates/<row:update_id>/picture")
def update_picture(slug: str, update_id: int) -> str:
    its_update = own_update(slug, update_id)
    return _picture_page(its_update, PictureForm(data={"alt": its_update.picture_alt}))


@owners.post("/cases/<slug>/updates/<row:update_id>/picture")
def keep_update_picture(slug: str, update_id: int) -> AnyResponse | tuple[str, int]:
    """As for a case: what is right is kept, a picture without its description and a description without a picture."""
    has_one = bool(own_update(slug, update_id).pictures)
    # Drawing takes a while, and nobody else need wait for the books meanwhile.
    db.session.rollback()
    form = PictureForm(request.form)
    form.validate()
    drawn = drawings(form, has_one)
    held = Update.hold(update_id)
    try:
        if drawn or (has_one and not form.alt.errors):
            alt = held.picture_alt if form.alt.errors else str(form.alt.data)
            held.hang_picture(drawn, alt, current_user, _now())
            db.session.commit()
    except Refused as refused:
        db.session.rollback()
        return _picture_page(held, form, problem=str(refused)), 409
    if form.errors:
        return _picture_page(held, form, kept=bool(drawn)), 422
    flash(gettext("The picture is saved."))
    return redirect(url_for("owners.update_picture", slug=slug, update_id=update_id), 303)


@owners.post("/cases/<slug>/updates/<row:update_id>/picture/removal")
def take_update_picture_down(slug: str, update_id: int) -> AnyResponse:
    Update.hold(own_update(slug, update_id).id).take_picture_down(current_user, _now())
    db.session.commit()
    flash(gettext("The picture is taken down."))
    return redirect(url_for("owners.update_picture", slug=slug, update_id=update_id), 303)


# --- What the pages are drawn from -------------------------------------------------------------------------


def _on_the_page(its_update: Update) -> str:
    return url_for("public.case", slug=its_update.case.slug, _anchor=f"update-{its_update.id}")


def _look(its_update: Update, form: LiveFromForm | None = None, **context: Any) -> str:
    shown = _shown(its_update.case, form or LiveFromForm(prefix="later-", data={"time": "09:00"}), its_update)
    return render_template("owners/update_look.html", missing=its_update.missing(), **shown, **context)


def _not_published(held: Update, refused: Refused, form: LiveFromForm | None = None) -> tuple[str, int]:
    """Nothing was done; the page shows the update as it stands now."""
    db.session.rollback()
    return _look(held, form, problem=str(refused)), 409


def _deletion_page(its_update: Update, problem: str = "") -> str:
    return render_template("owners/update_deletion.html", update=its_update, case=its_update.case, problem=problem)


def _picture_page(its_update: Update, form: PictureForm, **context: Any) -> str:
    return render_template("owners/update_picture.html", **_shown(its_update.case, form, its_update), **context)


def _refused(held: Update, form: TypedForm, refused: Refused) -> Response:
    """Nothing was stored, and what was typed stays in the form. Its version is that of now: sent again it is stored."""
    db.session.rollback()
    return _again(held.case, form, held, 409, problem=str(refused))


def _again(case: Case, form: TypedForm, its_update: Update | None, status: int = 422, **context: Any) -> Response:
    shown = _shown(case, form, its_update)
    return hypermedia.invalid("owners/update.html", "owners/_update_saved.html", status, **shown, **context)


def _shown(case: Case, form: TypedForm, its_update: Update | None) -> dict[str, Any]:
    return {
        "case": case, "update": its_update, "form": form, "as_of": _now(),
        "letters": len(case.update_reader_ids()), "page_key": _page() or secrets.token_urlsafe(12),
    }  # fmt: skip


def _page() -> str:
    """The key of the page that was sent, by which its own savings are known."""
    return readable(request.form.get("page", ""), "")[:40]


def _seen() -> int:
    """The version that the page shows; one that is no number was seen by nobody."""
    sent = request.form.get("version", "")
    return int(sent) if sent.isascii() and sent.isdecimal() and len(sent) < 10 else 0


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
