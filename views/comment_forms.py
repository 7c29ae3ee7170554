"""The forms around comments: what their authors change, and what moderators decide."""

from flask_babel import lazy_gettext
from wtforms import (  # type: ignore[attr-defined]  # its types are older than it is
    RadioField,
    SelectChoice,
    SelectField,
    TextAreaField,
)
from wtforms.validators import AnyOf, Length

import law
from views.forms import Readable, Told, TypedForm, unix_lines


class TextForm(TypedForm):
    """The text of a comment, changed by its author."""

    body = TextAreaField(
        lazy_gettext("Your comment"),
        [
            Told(lazy_gettext("Enter your comment.")),
            Readable(lines=True),
            Length(max=4000, message=lazy_gettext("Use at most 4,000 characters.")),
        ],
        filters=[unix_lines],
    )


class ReportForm(TypedForm):
    """Why a reader thinks that a published comment should not be."""

    reason = RadioField(
        lazy_gettext("What is wrong with it?"),
        [AnyOf([*law.REPORTS], message=lazy_gettext("Choose what is wrong with it."))],
        validate_choice=False,
        choices=[SelectChoice(key, lazy_gettext(words)) for key, words in law.REPORTS.items()],
    )
    words = TextAreaField(
        lazy_gettext("What should the moderator know? You can leave this empty"),
        [Readable(lines=True), Length(max=1000, message=lazy_gettext("Use at most 1,000 characters."))],
        filters=[unix_lines],
    )


class RejectionForm(TypedForm):
    """Why a comment is rejected, and what its author is told about it."""

    reason = SelectField(
        lazy_gettext("Reason"),
        [AnyOf([*law.REJECTIONS], message=lazy_gettext("Choose a reason."))],
        validate_choice=False,
        choices=[
            SelectChoice("", lazy_gettext("Choose a reason")),
            *(SelectChoice(key, lazy_gettext(words)) for key, (words, _) in law.REJECTIONS.items()),
        ],
    )
    note = TextAreaField(
        lazy_gettext("Note to the author, if you like"),
        [Readable(lines=True), Length(max=1000, message=lazy_gettext("Use at most 1,000 characters."))],
        filters=[unix_lines],
    )
