"""The case owners' workshop: a case from its first words until it is sent for review. Its pages are the owners'."""

import datetime as dt
import secrets
from typing import Any

import sqlalchemy as sa
from flask import abort, flash, redirect, render_template, request, url_for
from flask.wrappers import Response
from flask_babel import gettext
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

import config
import law
from jobs import ring
from law import Refused
from models import AddressTaken, Case, db
from pictures import Drawing, NotAPicture, draw_anew
from views import doors, hypermedia
from views.draft_form import MORE_ROWS, DraftForm, PictureForm, TitleForm
from views.forms import readable
from views.owners import own, owners

# What the buttons below the form lead to, once the draft is saved.
WAYS_ON = {"preview": "owners.preview_draft", "picture": "owners.picture", "launch": "owners.launch"}
TABLES = ("budget", "links")


@owners.get("/cases/new")
def new_case() -> str:
    return render_template("owners/new_case.html", form=TitleForm())


@owners.post("/cases")
def begin_case() -> AnyResponse | tuple[str, int]:
    """Pressed twice it is one draft."""
    form = TitleForm(request.form)
    if not form.validate():
        return render_template("owners/new_case.html", form=form), 422
    case = Case.begin(current_user, str(form.title.data), _now())
    db.session.commit()
    return redirect(url_for("owners.draft", slug=case.slug), 303)


@owners.get("/cases/<slug>/draft")
def draft(slug: str) -> AnyResponse | str:
    """The form of the draft, or what has become of it while it cannot be changed."""
    case = own(slug)
    if case.status not in law.HIDDEN_CASES:
        return redirect(url_for("owners.case", slug=slug), 303)
    form = DraftForm.of(case)
    for name in TABLES:
        form.show_rows(name, request.args.get(name, 0, int))
    return render_template("owners/draft.html", **_shown(case, form))


@owners.post("/cases/<slug>/draft")
def save_draft(slug: str) -> AnyResponse:
    """Keeps what can be kept, whether a button was pressed or the page saves by itself; the rest comes back."""
    case, form, as_of = _own_draft(slug), DraftForm(request.form), _now()
    form.holds_at(as_of)
    held = Case.hold(case.id)
    try:
        _write(held, form, as_of)
    except Refused as refused:
        db.session.rollback()
        return _again(held, form, 409, problem=str(refused))
    held.note_writer(current_user, as_of)
    db.session.commit()
    if form.error_list():
        return _again(held, form, 422, saved_at=as_of)
    shown, where = _shown(held, form), _way_on(held, form)
    return hypermedia.done(
        where, gettext("The draft is saved."), "owners/_draft_saved.html", swapped=True, saved_at=as_of, **shown
    )


@owners.get("/cases/<slug>/preview")
def preview_draft(slug: str) -> AnyResponse | str:
    case = own(slug)
    if case.status not in law.HIDDEN_CASES:
        return redirect(url_for("public.case", slug=slug), 303)
    return render_template("cases/draft.html", **as_it_would_look(case))


@owners.get("/cases/<slug>/deletion")
def draft_deletion(slug: str) -> AnyResponse | str:
    """The question first: a draft that is thrown away does not come back."""
    case = own(slug)
    if case.status not in law.HIDDEN_CASES:
        return redirect(url_for("owners.case", slug=slug), 303)
    return _deletion_page(case)


@owners.post("/cases/<slug>/deletion")
def delete_draft(slug: str) -> AnyResponse | tuple[str, int]:
    """Pressed twice, the second press finds nothing any more. What was written since the question stays."""
    held = Case.hold(own(slug).id)
    if held.status in law.WRITABLE_CASES and _seen() != held.draft_version:
        problem = gettext("This draft was changed since you opened this page, so nothing was deleted. Look again.")
        return _deletion_page(held, problem), 409
    held.delete(current_user, _now())
    db.session.commit()
    flash(gettext("The draft is deleted."))
    return redirect(url_for("owners.desk"), 303)


@owners.get("/cases/<slug>/picture")
def picture(slug: str) -> str:
    case = own(slug)
    return render_template("owners/picture.html", case=case, form=PictureForm(data={"alt": case.picture_alt}))


@owners.post("/cases/<slug>/picture")
def keep_picture(slug: str) -> AnyResponse | tuple[str, int]:
    """What is right is kept: a picture without its description, and a description without a new picture."""
    case_id, has_one = own(slug).id, bool(own(slug).pictures)
    # Drawing takes a while, and nobody else need wait for the books meanwhile.
    db.session.rollback()
    form = PictureForm(request.form)
    form.validate()
    drawn = drawings(form, has_one)
    held = Case.hold(case_id)
    if drawn or (has_one and not form.alt.errors):
        held.hang_picture(drawn, held.picture_alt if form.alt.errors else str(form.alt.data), _now())
        db.session.commit()
    if form.errors:
        return render_template("owners/picture.html", case=held, form=form, kept=bool(drawn)), 422
    flash(gettext("The picture is saved."))
    return redirect(url_for("owners.picture", slug=held.slug), 303)


@owners.post("/cases/<slug>/picture/removal")
def take_picture_down(slug: str) -> AnyResponse:
    Case.hold(own(slug).id).take_picture_down(_now())
    db.session.commit()
    flash(gettext("The picture is taken down."))
    return redirect(url_for("owners.picture", slug=slug), 303)


@owners.get("/cases/<slug>/launch")
def launch(slug: str) -> AnyResponse | str:
    """What is missing before the case can be sent for review, and the private link to its draft."""
    case = own(slug)
    if case.status not in law.HIDDEN_CASES:
        return redirect(url_for("owners.case", slug=slug), 303)
    return render_template("owners/launch.html", missing=case.missing(_now()), **as_it_would_look(case))


@owners.post("/cases/<slug>/submission")
def submit(slug: str) -> AnyResponse:
    """Pressed twice it is sent once."""
    held = Case.hold(own(slug).id)
    if held.status in law.WRITABLE_CASES and held.missing(_now()):
        return redirect(url_for("owners.launch", slug=slug), 303)
    held.submit(current_user, _now())
    db.session.commit()
    ring("send_letters")
    flash(gettext("The case is with our staff. You get a letter when they have decided."))
    return redirect(url_for("owners.draft", slug=slug), 303)


@owners.post("/cases/<slug>/withdrawal")
def take_back(slug: str) -> AnyResponse:
    Case.hold(own(slug).id).take_back(current_user, _now())
    db.session.commit()
    flash(gettext("The case is yours again. Send it for review once it is ready."))
    return redirect(url_for("owners.draft", slug=slug), 303)


@owners.post("/cases/<slug>/preview-link")
def replace_preview_link(slug: str) -> AnyResponse:
    Case.hold(own(slug).id).replace_preview_link(current_user, _now())
    db.session.commit()
    flash(gettext("The link is replaced. The old one opens nothing any more."))
    return redirect(url_for("owners.launch", slug=slug, _anchor="preview-link"), 303)


def drawings(form: PictureForm, has_one: bool) -> list[Drawing]:
    """The picture that was sent, drawn anew; what is wrong with it is told at its field."""
    sent, most = request.files.get("file"), config.current().largest_picture_mb
    file = sent.read() if sent else b""
    if sent:
        sent.close()
    try:
        if len(file) > most * doors.MEGABYTE:
            raise NotAPicture(gettext("This file is larger than %(most)s MB. Choose a smaller one.", most=most))
        if file:
            return draw_anew(file)
        if not has_one or (sent and sent.filename):
            raise NotAPicture(gettext("Choose a JPEG, PNG or WebP picture."))
    except NotAPicture as wrong:
        form.file.errors = [str(wrong)]
    return []


def as_it_would_look(case: Case) -> dict[str, Any]:
    """What the page of a draft is drawn from, for its owner, for staff and for the holder of its link."""
    as_of = _now()
    return {"case": case, "round": case.prospect(as_of), "as_of": as_of}


def _deletion_page(case: Case, problem: str = "") -> str:
    writable = case.status in law.WRITABLE_CASES
    return render_template("owners/draft_deletion.html", case=case, writable=writable, problem=problem)


def _own_draft(slug: str) -> Case:
    """The case of this address; a page that was opened before the address changed names it by its number."""
    number = request.form.get("case", "")
    mine = sa.select(Case).where(Case.of(current_user))
    case = db.session.scalar(mine.where(Case.slug == slug))
    if case is None and number.isascii() and number.isdecimal() and len(number) < 10:
        case = db.session.scalar(mine.where(Case.id == int(number)))
    return case or abort(404)


def _write(case: Case, form: DraftForm, as_of: dt.datetime) -> None:
    """Store what is right. The address is taken from a button only: half of a word would be one too."""
    values, pressed = form.values(), "by_itself" not in request.form
    slug = values.pop("slug", case.slug)
    case.write(values, _seen(), as_of, page=_page(), pressed=pressed)
    if pressed:
        try:
            case.write({"slug": slug, "title": case.title}, case.draft_version, as_of, page=_page())
        except AddressTaken as taken:
            form.slug.errors = [str(taken)]


def _page() -> str:
    """The key of the page that was sent, by which its own savings are known."""
    return readable(request.form.get("page", ""), "")[:40]


def _seen() -> int:
    """The version that the page shows; one that is no number was seen by nobody."""
    sent = request.form.get("version", "")
    return int(sent) if sent.isascii() and sent.isdecimal() and len(sent) < 10 else 0


def _way_on(case: Case, form: DraftForm) -> str:
    """Where the button leads: to more rows of a table, to another page, or back to the form."""
    then = request.form.get("then", "")
    if then in TABLES:
        shown = form.rows(then)
        rows: dict[str, Any] = {then: shown + MORE_ROWS}
        return url_for("owners.draft", slug=case.slug, _anchor=f"{then}-{shown}", **rows)
    return url_for(WAYS_ON.get(then, "owners.draft"), slug=case.slug)


def _again(case: Case, form: DraftForm, status: int, **context: Any) -> Response:
    """The form as it was sent: nothing typed is lost. Its version is that of now, so sent again it is stored."""
    for name in TABLES:
        if request.form.get("then") == name:
            form.show_rows(name, form.rows(name) + MORE_ROWS)
    return hypermedia.invalid("owners/draft.html", "owners/_draft_saved.html", status, **_shown(case, form), **context)


def _shown(case: Case, form: DraftForm) -> dict[str, Any]:
    return {
        "case": case, "form": form, "as_of": _now(), "page_key": _page() or secrets.token_urlsafe(12),
        "writable": case.status in law.WRITABLE_CASES,
    }  # fmt: skip


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
