"""Whether a pledge form was filled in by somebody: a field that only scripts find, the time that it took, and a
question that an operator may ask. None of them is strong, so none decides anything: who is stopped sees the form again,
with all that was typed and what to do, and Stripe is not asked. See docs/decisions/0040."""

import datetime as dt
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Self

from flask import current_app
from flask_babel import gettext, lazy_gettext
from itsdangerous import BadSignature, TimestampSigner
from wtforms import Form, HiddenField, StringField
from wtforms.validators import ValidationError

import config
from views.forms import KEY, PledgeForm, Readable, Told, trim

# A page that was open for longer shows old words, and may be one of many that a script has collected.
LASTS = dt.timedelta(days=1)


class Empty:
    """The field must be left as it was. It is shown to whoever has filled it, since that may have been a browser."""

    def __call__(self, form: Form, field: Any) -> None:
        if field.data:
            raise ValidationError(gettext("Leave this field empty: only scripts are expected to fill it in."))


class FormByHand(PledgeForm):
    """The pledge form as its page shows it. `opened` says when its page was made, signed together with the form's key,
    so that each pledge asks for a page of its own."""

    website = StringField(lazy_gettext("Leave this empty"), [Empty()])
    answer = StringField("", [Told(lazy_gettext("Answer this question.")), Readable()], filters=[trim])
    opened = HiddenField()
    # The last of all, since what is wrong with it is told at the button.
    form_key = HiddenField()

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
        if field.data.casefold() not in {answer.strip().casefold() for answer in config.current().pledge_answers}:
            raise ValidationError(gettext("This is not the answer. Capital letters make no difference."))

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
        soon = gettext("This was sent very soon after its page was opened. Check it, then send it again.")
        late = gettext("This page was open for too long. Check it, then send it again.")
        self.form_key.errors = [soon if open_for is not None else late]
        return False

    def _open_for(self, as_of: dt.datetime) -> dt.timedelta | None:
        """How long ago the page was made; None when that is too long ago, or was not signed by us for this form."""
        try:
            key, then = _signer().unsign(self.opened.data or "", return_timestamp=True)
        except BadSignature:
            return None
        open_for = as_of - then
        return open_for if key.decode() == self.form_key.data and open_for <= LASTS else None


def _signer() -> TimestampSigner:
    keys = [*current_app.config["SECRET_KEY_FALLBACKS"], current_app.config["SECRET_KEY"]]
    return TimestampSigner(keys, salt="an open pledge form")
