"""Whether a pledge form was filled in by somebody: a field that only programs find, the time that it took, and a
question that an operator may ask. None of them is strong, so none decides anything: who is stopped sees the form again,
with all that was typed and what to do, and Stripe is not asked. See docs/decisions/0040."""

import datetime as dt
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Self

from flask import current_app
from flask_babel import gettext, lazy_gettext, ngettext
from itsdangerous import BadSignature, TimestampSigner
from wtforms import Form, HiddenField, StringField
from wtforms.validators import ValidationError

import config
from views.forms import KEY, PledgeForm, Readable, Told, trim

# A page that was open for longer shows old words, and may be one of many that a program has collected.
LASTS = dt.timedelta(days=1)
# The clocks of two machines may differ by so much. A moment that lies further ahead is none.
AHEAD = dt.timedelta(seconds=30)


class Empty:
    """The field must be left as it was, however often it was sent. It is shown to whoever has filled it in, since that
    may have been a browser, and shown empty."""

    def __call__(self, form: Form, field: Any) -> None:
        filled_in = any(words.strip() for words in field.raw_data or ())
        field.data = ""
        if filled_in:
            raise ValidationError(gettext("Leave this field empty. Only programs fill it in."))


def plain(words: str) -> str:
    """What two answers that mean the same have in common: small letters, single spaces, no marks around them."""
    seen = "".join(letter for letter in unicodedata.normalize("NFKC", words) if unicodedata.category(letter) != "Cf")
    return " ".join(seen.casefold().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split()).strip(" .,;:!?\"'“”«»")


class FormByHand(PledgeForm):
    """The pledge form as its page shows it. `opened` says when its page was made, signed together with the form's key,
    so that each pledge asks for a page of its own."""

    website = StringField(lazy_gettext("Leave this empty"), [Empty()])
    answer = StringField("", [Told(lazy_gettext("Answer this question.")), Readable()], filters=[trim])
    opened = HiddenField()
    # The last of all, since what is wrong with it is told at the button.
    form_key = HiddenField()

    # Whether a wrong answer was given, which counts as a try: else somebody could go on until it is the right one.
    guessed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if question := config.current().pledge_question:
            self.answer.label.text = question
        else:
            del self.answer

    @classmethod
    def opened_at(cls, as_of: dt.datetime, **filled: Any) -> Self:
        """An empty form for a page that is made at this moment."""
        form = cls(**filled)
        form.renew(as_of)
        return form

    def validate_form_key(self, field: Any) -> None:
        if not KEY.fullmatch(field.data or ""):
            raise ValidationError(gettext("This form was incomplete. Please send it again."))

    def validate_answer(self, field: Any) -> None:
        if plain(field.data) not in map(plain, config.current().pledge_answers):
            self.guessed = True
            raise ValidationError(
                gettext("This is not the answer that is expected here. Capital letters do not matter.")
            )

    def validate(self, extra_validators: Mapping[str, Sequence[Any]] | None = None) -> bool:
        """First what somebody typed. The time is looked at once nothing else is to be mended."""
        return super().validate(extra_validators) and self._took_its_time(dt.datetime.now(dt.UTC))

    def renew(self, as_of: dt.datetime) -> None:
        """A key where there is none, and another moment where that of the page is not to be believed any more."""
        if not KEY.fullmatch(self.form_key.data or ""):
            self.form_key.data = secrets.token_urlsafe(24)
        if self._open_for(as_of) is None:
            self.opened.data = _signer().sign(str(self.form_key.data)).decode()

    def _took_its_time(self, as_of: dt.datetime) -> bool:
        least = config.current().pledge_form_seconds
        open_for = self._open_for(as_of)
        if least == 0 or (open_for is not None and open_for >= dt.timedelta(seconds=least)):
            return True
        soon = ngettext(
            "This was sent within a second after its page opened, as programs do. Check it, then send it again.",
            "This was sent within %(num)s seconds after its page opened, as programs do. Check it, then send it again.",
            least,
        )
        late = gettext("This page was too old, or something of it was missing. Check it, then send it again.")
        self.form_key.errors = [soon if open_for is not None else late]
        return False

    def _open_for(self, as_of: dt.datetime) -> dt.timedelta | None:
        """How long ago the page was made; None when that is too long ago, or was not signed by us for this form."""
        try:
            key, then = _signer().unsign(self.opened.data or "", return_timestamp=True)
        except BadSignature:
            return None
        open_for = as_of - then
        return open_for if key.decode() == self.form_key.data and -AHEAD <= open_for <= LASTS else None


def _signer() -> TimestampSigner:
    keys = [*current_app.config["SECRET_KEY_FALLBACKS"], current_app.config["SECRET_KEY"]]
    return TimestampSigner(keys, salt="an open pledge form")
