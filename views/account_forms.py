"""The forms around accounts. A password that was typed is never shown again, whatever else was wrong."""

from typing import Any

from flask_babel import gettext, lazy_gettext
from wtforms import (  # type: ignore[attr-defined]  # its types are older than it is
    HiddenField,
    PasswordField,
    RadioField,
    SelectChoice,
    StringField,
    TextAreaField,
)
from wtforms.validators import AnyOf, Length, ValidationError

import config
import law
import passwords
from views.forms import AtMost, EmailAddress, Readable, Told, TypedForm, trim, unix_lines

ROLE_NAMES = {
    "owner": lazy_gettext("Case owner"), "moderator": lazy_gettext("Moderator"), "staff": lazy_gettext("Staff"),
}  # fmt: skip


class NewPasswordForm(TypedForm):
    """A password that is chosen. What anybody knows of its owner is no good as a part of it."""

    password = PasswordField(lazy_gettext("New password"), [Told(lazy_gettext("Enter a password."))])

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
        lazy_gettext("Your name"),
        [Told(lazy_gettext("Enter your name.")), Readable(), AtMost(120)],
        filters=[trim],
    )
    password = PasswordField(lazy_gettext("Password"), [Told(lazy_gettext("Enter a password."))])


class SignUpForm(NewPasswordForm):
    """Opening an account by oneself."""

    name = StringField(
        lazy_gettext("Your name"),
        [Told(lazy_gettext("Enter your name.")), Readable(), AtMost(120)],
        filters=[trim],
    )
    email = StringField(
        lazy_gettext("Your e-mail address"),
        [Told(lazy_gettext("Enter your e-mail address.")), Readable(),
         Length(max=254, message=lazy_gettext("This address is too long.")),
         EmailAddress()],
        filters=[trim],
    )  # fmt: skip
    password = PasswordField(lazy_gettext("Password"), [Told(lazy_gettext("Enter a password."))])


class OwnPasswordForm(TypedForm):
    """The password that was chosen, typed once more."""

    password = PasswordField(
        lazy_gettext("Password"),
        [
            Told(lazy_gettext("Enter your password.")),
            Length(max=passwords.LONGEST, message=lazy_gettext("This password is too long.")),
        ],
    )


class CodeForm(TypedForm):
    """The second factor: what the app shows, or a recovery code."""

    code = StringField(lazy_gettext("Six digits from your app"), [Readable()], filters=[trim])
    recovery_code = StringField(lazy_gettext("Or a recovery code"), [Readable()], filters=[trim])

    def validate_code(self, field: Any) -> None:
        if not (field.data or self.recovery_code.data):
            raise ValidationError(gettext("Enter the six digits, or a recovery code."))


class ProofForm(OwnPasswordForm, CodeForm):
    """All that a log-in asks for, typed once more before the second factor is changed."""


class NameForm(TypedForm):
    """What somebody is called here, and what case owners say of themselves."""

    name = StringField(
        lazy_gettext("Your name"),
        [Told(lazy_gettext("Enter your name.")), Readable(), AtMost(120)],
        filters=[trim],
    )
    bio = TextAreaField(
        lazy_gettext("About you (optional)"), [Readable(lines=True), AtMost(law.LONGEST_BIO)], filters=[unix_lines]
    )


class ChangePasswordForm(ProofForm):
    """Another password, by somebody who proves to know the one that holds."""

    new_password = PasswordField(lazy_gettext("New password"), [Told(lazy_gettext("Enter a new password."))])

    known: tuple[str, ...] = ()

    def validate_for(self, *known: str) -> bool:
        self.known = known
        return self.validate()

    def validate_new_password(self, field: Any) -> None:
        if wrong := passwords.trouble(field.data, *self.known, config.current().site_name):
            raise ValidationError(wrong)


class ChangeEmailForm(ProofForm):
    """Another address to log in with."""

    email = StringField(
        lazy_gettext("New e-mail address"),
        [Told(lazy_gettext("Enter an e-mail address.")), Readable(),
         Length(max=254, message=lazy_gettext("This address is too long.")),
         EmailAddress()],
        filters=[trim],
    )  # fmt: skip


class SetUpForm(ProofForm):
    """A new second factor. What need not be proven again is taken out of it; `offer` is the secret that was shown."""

    offer = HiddenField()
    new_code = StringField(
        lazy_gettext("Six digits that your app shows now"),
        [Told(lazy_gettext("Enter the six digits that your app shows.")), Readable()],
        filters=[trim],
    )  # fmt: skip


class EditorForm(TypedForm):
    """Whom the owner of a case asks to work on it."""

    email = StringField(
        lazy_gettext("E-mail address"),
        [Told(lazy_gettext("Enter an e-mail address.")), Readable(),
         Length(max=254, message=lazy_gettext("This address is too long.")),
         EmailAddress()],
        filters=[trim],
    )  # fmt: skip


class InviteForm(EditorForm):
    """Whom staff invite, and as what."""

    role = RadioField(
        lazy_gettext("Role"),
        [AnyOf([*ROLE_NAMES], message=lazy_gettext("Choose a role."))],
        validate_choice=False,
        choices=[SelectChoice(role, words) for role, words in ROLE_NAMES.items()],
    )


class RoleForm(TypedForm):
    """Another role for somebody, and why."""

    role = RadioField(
        lazy_gettext("Role"),
        [AnyOf([*ROLE_NAMES], message=lazy_gettext("Choose a role."))],
        validate_choice=False,
        choices=[SelectChoice(role, words) for role, words in ROLE_NAMES.items()],
    )
    reason = StringField(
        lazy_gettext("Reason"),
        [Told(lazy_gettext("Enter a reason.")), Readable(), AtMost(500)],
        filters=[trim],
    )
