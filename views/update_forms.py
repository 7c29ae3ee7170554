"""The forms around updates, and around what readers say and case owners answer."""

import re
from collections.abc import Iterable
from typing import Any

from flask_babel import gettext, lazy_gettext
from wtforms import (  # type: ignore[attr-defined]  # its types are older than it is
    HiddenField,
    RadioField,
    SelectChoice,
    StringField,
    TextAreaField,
)
from wtforms.validators import AnyOf, ValidationError

import law
from models import Update
from views.forms import AtMost, Readable, Told, TypedForm, trim, unix_lines

_KEY = re.compile(r"[A-Za-z0-9_-]{20,64}")
_TITLE = [Readable(), AtMost(160)]
_BODY = [Readable(lines=True), AtMost(law.LONGEST_UPDATE)]


class UpdateForm(TypedForm):
    """An update that is published already: its words, in Markdown."""

    title = StringField(lazy_gettext("Title"), [Told(lazy_gettext("Enter a title.")), *_TITLE], filters=[trim])
    body = TextAreaField(
        lazy_gettext("Your update"),
        [Told(lazy_gettext("Enter the text of your update.")), *_BODY],
        filters=[unix_lines],
    )


class UpdateDraftForm(TypedForm):
    """The draft of an update: anything may be empty until it is published."""

    title = StringField(lazy_gettext("Title"), _TITLE, filters=[trim])
    body = TextAreaField(lazy_gettext("Your update"), _BODY, filters=[unix_lines])
    audience = RadioField(
        lazy_gettext("Who may read it?"),
        [AnyOf([*law.AUDIENCES], message=lazy_gettext("Choose who may read it."))],
        validate_choice=False,
        choices=[SelectChoice(key, lazy_gettext(words)) for key, words in law.AUDIENCES.items()],
    )
    form_key = HiddenField()

    def validate_form_key(self, field: Any) -> None:
        if not _KEY.fullmatch(field.data or ""):
            raise ValidationError(gettext("This form was incomplete. Please send it again."))

    @classmethod
    def of(cls, update: Update) -> "UpdateDraftForm":
        return cls(obj=update)

    def values(self) -> dict[str, Any]:
        """What can be kept, by the names of the update; a wrong field is left out."""
        names = ("title", "body", "audience")
        return {name: self[name].data or "" for name in names if not self[name].errors}

    def tell(self, missing: Iterable[tuple[str, str]]) -> None:
        """Say at the fields what must be there before it can be published."""
        for name, words in missing:
            if name in self and not self[name].errors:
                self[name].errors = [words]


class AnswerForm(TypedForm):
    """What a case owner answers to a comment."""

    words = TextAreaField(
        lazy_gettext("Your answer"),
        [Told(lazy_gettext("Enter your answer.")), Readable(lines=True), AtMost(4000)],
        filters=[unix_lines],
    )


class SecondLookForm(TypedForm):
    """Why a case owner asks the moderators to look at a comment again."""

    words = TextAreaField(
        lazy_gettext("What should the moderators know?"),
        [Told(lazy_gettext("Say what the moderators should look at.")), Readable(lines=True), AtMost(1000)],
        filters=[unix_lines],
    )  # fmt: skip
