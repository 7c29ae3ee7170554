"""The forms: trimmed, limited and parsed here; rules that need the books are the models' own.

No field is marked `required` in the page: the reader gets our words, not the browser's, and nothing is lost.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from babel.numbers import format_decimal
from flask_babel import LazyString, get_locale, gettext, lazy_gettext
from wtforms import (  # type: ignore[attr-defined]  # its types are older than it is
    BooleanField,
    Form,
    HiddenField,
    PasswordField,
    RadioField,
    SelectChoice,
    StringField,
    TextAreaField,
)
from wtforms.validators import Length, StopValidation, ValidationError

import law
from money import NotMoney, parse_pounds, pounds

OTHER = "other"
KEY = re.compile(r"[A-Za-z0-9_-]{20,64}")


def trim(text: str | None) -> str | None:
    return text.strip() if text else text


def unix_lines(text: str | None) -> str | None:
    """Browsers send CRLF; one kind of line end is enough."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip() if text else text


class Told:
    """The field must be filled; says what to enter."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __call__(self, form: Form, field: Any) -> None:
        if not (field.data and str(field.data).strip()):
            raise StopValidation(str(self.words))


class OneOf:
    """One of a few must be chosen."""

    def __init__(self, known: Sequence[str], words: str) -> None:
        self.known, self.words = known, words

    def __call__(self, form: Form, field: Any) -> None:
        if field.data not in self.known:
            raise StopValidation(str(self.words))


class AtMost:
    """The field may hold so many characters."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, form: Form, field: Any) -> None:
        if len(field.data or "") > self.most:
            most = format_decimal(self.most, locale=get_locale() or "en_GB")
            raise ValidationError(gettext("Use at most %(most)s characters.", most=most))


def readable(text: str, allowed: str = "\n\t") -> str:
    """The text without control characters, half characters and bytes that were not text; no page can show them."""
    return "".join(
        letter
        for letter in text
        if letter in allowed
        or not (unicodedata.category(letter) in ("Cc", "Cs", "Co", "Cn") or letter == "\N{REPLACEMENT CHARACTER}")
    )


class Readable:
    """Only what can be shown. The page gives the text back without the rest, to be looked at and sent again."""

    def __init__(self, lines: bool = False) -> None:
        self.allowed = "\n\t" if lines else ""

    def __call__(self, form: Form, field: Any) -> None:
        typed = field.data or ""
        field.data = readable(typed, self.allowed)
        if field.data != typed:
            raise StopValidation(
                gettext(
                    "This contained characters that cannot be shown. They were taken out: check it, then send it again."
                )
            )


class EmailAddress:
    """A well-formed address; that it exists is shown by the letter that we send there.

    Kept as mail servers and Stripe take it: the domain in its ASCII form, and only ASCII before the @, since few
    servers carry anything else.
    """

    def __call__(self, form: Form, field: Any) -> None:
        from email_validator import EmailNotValidError, validate_email

        try:
            field.data = validate_email(field.data, check_deliverability=False, allow_smtputf8=False).ascii_email
        except EmailNotValidError as wrong:
            raise ValidationError(gettext("Enter an e-mail address in the form name@example.com.")) from wrong


class TypedForm(Form):
    """A form that can say its errors in the order of the page, for the summary at the top."""

    def error_list(self) -> list[tuple[str, str]]:
        """(field name, words) of each first error."""
        return [(field.id, str(field.errors[0])) for field in self if field.errors]


def shown_as_field() -> Any:
    """How a supporter is named. Whatever is chosen, nothing is published unless a message is for everyone."""
    return RadioField(
        lazy_gettext("How would you like to be shown?"),
        [OneOf(law.SHOWN_AS, lazy_gettext("Choose how you are shown."))],
        choices=[
            SelectChoice("name", lazy_gettext("With my name")),
            SelectChoice("first_name", lazy_gettext("With my first name; the case owner sees my whole name")),
            SelectChoice("anonymous", lazy_gettext("As “Anonymous”; the case owner sees my name")),
            SelectChoice("hidden", lazy_gettext("As “Anonymous”, to the case owner too")),
        ],
        # What the hint advises: whoever wants more to be seen says so.
        default="anonymous",
        validate_choice=False,
    )


class PledgeForm(TypedForm):
    """The terms of a pledge. `pence` holds the amount once the form was validated."""

    amount = RadioField(
        lazy_gettext("How much would you like to pledge?"),
        choices=[
            *(SelectChoice(str(pence // 100), LazyString(pounds, pence)) for pence in law.PRESET_PLEDGES),
            SelectChoice(OTHER, lazy_gettext("Another amount")),
        ],
        validate_choice=False,
    )
    other_amount = StringField(lazy_gettext("Another amount, in pounds"), [Readable()], filters=[trim])
    name = StringField(
        lazy_gettext("Your name"),
        [
            Told(lazy_gettext("Enter your name.")),
            Readable(),
            Length(max=120, message=lazy_gettext("Use at most 120 characters.")),
        ],
        filters=[trim],
    )
    email = StringField(
        lazy_gettext("Your e-mail address"),
        [Told(lazy_gettext("Enter your e-mail address.")), Readable(),
         Length(max=254, message=lazy_gettext("This address is too long.")), EmailAddress()],
        filters=[trim],
    )  # fmt: skip
    shown_as = shown_as_field()
    wants_updates = BooleanField(lazy_gettext("Keep me updated about this case by e-mail"))
    message = TextAreaField(
        lazy_gettext("A message, if you like"),
        [Readable(lines=True), Length(max=law.LONGEST_MESSAGE, message=lazy_gettext("Use at most 1,000 characters."))],
        filters=[unix_lines],
    )
    message_public = BooleanField(lazy_gettext("Show my message on the case page too"))
    agreed = BooleanField("", [Told(lazy_gettext("Tick the box to allow the charge, or do not pledge."))])
    # Whence somebody came to the form. What is none of ours is no reason to refuse a pledge: it is not counted.
    came_from = HiddenField()

    pence = 0

    def validate_came_from(self, field: Any) -> None:
        field.data = law.known_source(field.data or "")

    def validate_other_amount(self, field: Any) -> None:
        """The amount chosen or typed; a typed one and a different chosen one contradict each other."""
        typed, chosen = field.data or "", self.amount.data
        presets = {str(pence // 100): pence for pence in law.PRESET_PLEDGES}
        if not typed and chosen in presets:
            self.pence = presets[chosen]
            return
        if not typed:
            raise ValidationError(gettext("Choose an amount, or type one of your own."))
        self.pence = _pence(typed)
        if chosen in presets and presets[chosen] != self.pence:
            raise ValidationError(
                gettext(
                    "You chose %(chosen)s and typed %(typed)s. Choose one of the two.",
                    chosen=pounds(presets[chosen]),
                    typed=typed,
                )
            )


class AmountForm(TypedForm):
    """Another amount for a pledge. `pence` holds it once the form was validated."""

    amount = StringField(
        lazy_gettext("Your pledge, in pounds"), [Told(lazy_gettext("Enter an amount.")), Readable()], filters=[trim]
    )

    pence = 0
    until_now = 0

    def validate_for(self, until_now: int) -> bool:
        """Validate, knowing what the pledge is until now: the same again is no change."""
        self.until_now = until_now
        return self.validate()

    def validate_amount(self, field: Any) -> None:
        pence = _pence(field.data)
        if pence == self.until_now:
            raise ValidationError(
                gettext("Your pledge is %(amount)s already. Enter another amount.", amount=pounds(pence))
            )
        self.pence = pence


class AgreedAmountForm(AmountForm):
    """Another amount, with the agreement to it."""

    agreed = BooleanField("", [Told(lazy_gettext("Tick the box to allow the charge, or do not change it."))])


class NameForm(TypedForm):
    """How others see a supporter."""

    name = StringField(
        lazy_gettext("Your name"),
        [
            Told(lazy_gettext("Enter your name.")),
            Readable(),
            Length(max=120, message=lazy_gettext("Use at most 120 characters.")),
        ],
        filters=[trim],
    )
    shown_as = shown_as_field()


class EmailForm(TypedForm):
    email = StringField(
        lazy_gettext("Your e-mail address"),
        [Told(lazy_gettext("Enter your e-mail address.")), Readable(),
         Length(max=254, message=lazy_gettext("This address is too long.")), EmailAddress()],
        filters=[trim],
    )  # fmt: skip


def _pence(typed: str) -> int:
    try:
        pence = parse_pounds(typed)
    except NotMoney as wrong:
        raise ValidationError(str(wrong)) from wrong
    if not law.SMALLEST_PLEDGE <= pence <= law.LARGEST_PLEDGE:
        raise ValidationError(gettext("A pledge is at least £5 and at most £10,000."))
    return pence


class CommentForm(TypedForm):
    """A reader's comment, plain text."""

    name = StringField(
        lazy_gettext("Your name, or leave it empty to be “Anonymous”"),
        [Readable(), Length(max=120, message=lazy_gettext("Use at most 120 characters."))],
        filters=[trim],
    )
    email = StringField(
        lazy_gettext("Your e-mail address"),
        [Told(lazy_gettext("Enter your e-mail address. It is never shown.")), Readable(),
         Length(max=254, message=lazy_gettext("This address is too long.")), EmailAddress()],
        filters=[trim],
    )  # fmt: skip
    body = TextAreaField(
        lazy_gettext("Your comment"),
        [
            Told(lazy_gettext("Enter your comment.")),
            Readable(lines=True),
            Length(max=4000, message=lazy_gettext("Use at most 4,000 characters.")),
        ],
        filters=[unix_lines],
    )


class ReasonForm(TypedForm):
    """Why staff turn a switch."""

    reason = StringField(
        lazy_gettext("Reason"),
        [
            Told(lazy_gettext("Enter a reason.")),
            Readable(),
            Length(max=500, message=lazy_gettext("Use at most 500 characters.")),
        ],
        filters=[trim],
    )


class NoticeForm(ReasonForm):
    """What stands in the place of a case, for everybody to read, and why staff put it there."""

    statement = TextAreaField(
        lazy_gettext("The notice, for everybody to read"),
        [
            Told(lazy_gettext("Enter the notice.")),
            Readable(lines=True),
            Length(max=2_000, message=lazy_gettext("Use at most 2,000 characters.")),
        ],
        filters=[unix_lines],
    )


class CancellationForm(ReasonForm):
    """Why its owner or staff cancel a case, typed together with a word that nobody types by mistake."""

    sure = StringField(lazy_gettext("Type the word cancel"), [Readable()], filters=[trim])

    def validate_sure(self, field: Any) -> None:
        if (field.data or "").casefold() != "cancel":
            raise ValidationError(gettext("Type the word cancel, or leave the case as it is."))


class RefundForm(TypedForm):
    """Money back, in whole or in part. `pence` holds the amount once the form was validated."""

    amount = StringField(
        lazy_gettext("Amount, in pounds"), [Told(lazy_gettext("Enter an amount.")), Readable()], filters=[trim]
    )
    reason = StringField(
        lazy_gettext("Reason, seen by staff only"),
        [
            Told(lazy_gettext("Enter a reason.")),
            Readable(),
            Length(max=500, message=lazy_gettext("Use at most 500 characters.")),
        ],
        filters=[trim],
    )
    form_key = HiddenField()

    pence = 0

    def validate_form_key(self, field: Any) -> None:
        if not KEY.fullmatch(field.data or ""):
            raise ValidationError(gettext("This form was incomplete. Please send it again."))

    def validate_amount(self, field: Any) -> None:
        try:
            self.pence = parse_pounds(field.data)
        except NotMoney as wrong:
            raise ValidationError(str(wrong)) from wrong


class LoginForm(TypedForm):
    email = StringField(
        lazy_gettext("E-mail address"),
        [
            Told(lazy_gettext("Enter your e-mail address.")),
            Readable(),
            Length(max=254, message=lazy_gettext("This address is too long.")),
        ],
        filters=[trim],
    )
    password = PasswordField(
        lazy_gettext("Password"),
        [
            Told(lazy_gettext("Enter your password.")),
            Length(max=1024, message=lazy_gettext("This password is too long.")),
        ],
    )
    next = HiddenField()
