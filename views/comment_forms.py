"""The forms around comments: what their authors change, and what moderators decide."""

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
        "Your comment",
        [Told("Enter your comment."), Readable(lines=True), Length(max=4000, message="Use at most 4,000 characters.")],
        filters=[unix_lines],
    )


class ReportForm(TypedForm):
    """Why a reader thinks that a published comment should not be."""

    reason = RadioField(
        "What is wrong with it?",
        [AnyOf([*law.REPORTS], message="Choose what is wrong with it.")],
        validate_choice=False,
        choices=[SelectChoice(key, words) for key, words in law.REPORTS.items()],
    )
    words = TextAreaField(
        "What should the moderator know? You can leave this empty",
        [Readable(lines=True), Length(max=1000, message="Use at most 1,000 characters.")],
        filters=[unix_lines],
    )


class RejectionForm(TypedForm):
    """Why a comment is rejected, and what its author is told about it."""

    reason = SelectField(
        "Reason",
        [AnyOf([*law.REJECTIONS], message="Choose a reason.")],
        validate_choice=False,
        choices=[
            SelectChoice("", "Choose a reason"),
            *(SelectChoice(key, words) for key, (words, _) in law.REJECTIONS.items()),
        ],
    )
    note = TextAreaField(
        "Note to the author, if you like",
        [Readable(lines=True), Length(max=1000, message="Use at most 1,000 characters.")],
        filters=[unix_lines],
    )
