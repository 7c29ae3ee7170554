"""The forms around accounts. A password that was typed is never shown again, whatever else was wrong."""

from typing import Any

from wtforms import (  # type: ignore[attr-defined]  # its types are older than it is
    HiddenField,
    PasswordField,
    RadioField,
    SelectChoice,
    StringField,
)
from wtforms.validators import AnyOf, Length, ValidationError

import config
import passwords
from views.forms import EmailAddress, Readable, Told, TypedForm, trim
from views.words import ROLES


class NewPasswordForm(TypedForm):
    """A password that is chosen. What anybody knows of its owner is no good as a part of it."""

    password = PasswordField("New password", [Told("Enter a password.")])

    email_of_owner = ""

    def validate_for(self, email: str) -> bool:
        self.email_of_owner = email
        return self.validate()

    def validate_password(self, field: Any) -> None:
        typed = [str(self[name].data or "") for name in ("name", "email") if name in self]
        wrong = passwords.trouble(field.data, *typed, self.email_of_owner, config.current().site_name)
        if wrong:
            raise ValidationError(wrong)


class JoinForm(NewPasswordForm):
    """Taking up an invitation."""

    name = StringField(
        "Your name",
        [Told("Enter your name."), Readable(), Length(max=120, message="Use at most 120 characters.")],
        filters=[trim],
    )
    password = PasswordField("Password", [Told("Enter a password.")])


class SignUpForm(NewPasswordForm):
    """Opening an account by oneself."""

    name = StringField(
        "Your name",
        [Told("Enter your name."), Readable(), Length(max=120, message="Use at most 120 characters.")],
        filters=[trim],
    )
    email = StringField(
        "Your e-mail address",
        [Told("Enter your e-mail address."), Readable(), Length(max=254, message="This address is too long."),
         EmailAddress()],
        filters=[trim],
    )  # fmt: skip
    password = PasswordField("Password", [Told("Enter a password.")])


class OwnPasswordForm(TypedForm):
    """The password that was chosen, typed once more."""

    password = PasswordField(
        "Password", [Told("Enter your password."), Length(max=passwords.LONGEST, message="This password is too long.")]
    )


class CodeForm(TypedForm):
    """The second factor: what the app shows, or a recovery code."""

    code = StringField("Six digits from your app", [Readable()], filters=[trim])
    recovery_code = StringField("Or a recovery code", [Readable()], filters=[trim])

    def validate_code(self, field: Any) -> None:
        if not (field.data or self.recovery_code.data):
            raise ValidationError("Enter the six digits, or a recovery code.")


class ProofForm(OwnPasswordForm, CodeForm):
    """All that a log-in asks for, typed once more before the second factor is changed."""


class SetUpForm(ProofForm):
    """A new second factor. What need not be proven again is taken out of it; `offer` is the secret that was shown."""

    offer = HiddenField()
    new_code = StringField(
        "Six digits that your app shows now", [Told("Enter the six digits that your app shows."), Readable()],
        filters=[trim],
    )  # fmt: skip


class EditorForm(TypedForm):
    """Whom the owner of a case asks to work on it."""

    email = StringField(
        "E-mail address",
        [Told("Enter an e-mail address."), Readable(), Length(max=254, message="This address is too long."),
         EmailAddress()],
        filters=[trim],
    )  # fmt: skip


class InviteForm(EditorForm):
    """Whom staff invite, and as what."""

    role = RadioField(
        "Role",
        [AnyOf([*ROLES], message="Choose a role.")],
        validate_choice=False,
        choices=[SelectChoice(role, words.capitalize()) for role, words in ROLES.items()],
    )


class RoleForm(TypedForm):
    """Another role for somebody, and why."""

    role = RadioField(
        "Role",
        [AnyOf([*ROLES], message="Choose a role.")],
        validate_choice=False,
        choices=[SelectChoice(role, words.capitalize()) for role, words in ROLES.items()],
    )
    reason = StringField(
        "Reason",
        [Told("Enter a reason."), Readable(), Length(max=500, message="Use at most 500 characters.")],
        filters=[trim],
    )
