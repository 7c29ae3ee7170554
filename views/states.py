"""What pages call the state of a case, a round, a dispute, an invitation or a change of the promise. Each has words of
its own, since other languages bend them with what they are said of; all others share law.HAPPENED."""

import re

from babel.numbers import format_decimal
from flask_babel import get_locale, gettext, lazy_pgettext, ngettext

OF_CASES = {
    "draft": lazy_pgettext("case", "draft"),
    "submitted": lazy_pgettext("case", "submitted"),
    "changes_requested": lazy_pgettext("case", "changes requested"),
    "approved": lazy_pgettext("case", "approved"),
    "rejected": lazy_pgettext("case", "rejected"),
    "live": lazy_pgettext("case", "live"),
    "funded": lazy_pgettext("case", "funded"),
    "missed": lazy_pgettext("case", "missed"),
    "cancelled": lazy_pgettext("case", "cancelled"),
    "closed": lazy_pgettext("case", "closed"),
}
OF_ROUNDS = {
    "open": lazy_pgettext("round", "open"),
    "closing": lazy_pgettext("round", "closing"),
    "met": lazy_pgettext("round", "met"),
    "missed": lazy_pgettext("round", "missed"),
    "cancelled": lazy_pgettext("round", "cancelled"),
}
OF_DISPUTES = {
    "open": lazy_pgettext("dispute", "open"),
    "won": lazy_pgettext("dispute", "won"),
    "lost": lazy_pgettext("dispute", "lost"),
}
OF_INVITATIONS = {
    "accepted": lazy_pgettext("invitation", "accepted"),
    "taken back": lazy_pgettext("invitation", "taken back"),
    "waiting": lazy_pgettext("invitation", "waiting"),
    "run out": lazy_pgettext("invitation", "run out"),
}
OF_CHANGES = {
    "asked": lazy_pgettext("change of the promise", "asked"),
    "consented": lazy_pgettext("change of the promise", "consented"),
    "refused": lazy_pgettext("change of the promise", "refused"),
    "withdrawn": lazy_pgettext("change of the promise", "withdrawn"),
}
# What the ledger calls its lines.
OF_MOVEMENTS = {
    "charge": lazy_pgettext("movement", "charge"),
    "fee": lazy_pgettext("movement", "fee"),
    "refund": lazy_pgettext("movement", "refund"),
    "dispute": lazy_pgettext("movement", "dispute"),
}
OF_ATTEMPTS = {
    "asking": lazy_pgettext("attempt", "being asked for"),
    "succeeded": lazy_pgettext("attempt", "charged"),
    "declined": lazy_pgettext("attempt", "refused"),
    "action_required": lazy_pgettext("attempt", "the bank asks for approval"),
    "unknown": lazy_pgettext("attempt", "without an answer"),
}
OF_REFUNDS = {
    "asking": lazy_pgettext("refund", "being asked for"),
    "pending": lazy_pgettext("refund", "on its way"),
    "succeeded": lazy_pgettext("refund", "paid back"),
    "failed": lazy_pgettext("refund", "failed"),
}
OF_ROLES = {
    "owner": lazy_pgettext("role", "owner"),
    "moderator": lazy_pgettext("role", "moderator"),
    "staff": lazy_pgettext("role", "staff"),
}
# What a case owner is told of the money of each pledge, once the round is decided. Why a bank refused it, or that its
# supporter disputes it, is not the owner's to know.
OF_MONEY = {
    **dict.fromkeys(("confirmed", "due", "charging", "unknown"), lazy_pgettext("money", "being charged")),
    **dict.fromkeys(("charged", "disputed"), lazy_pgettext("money", "charged")),
    **dict.fromkeys(("declined", "action_required"), lazy_pgettext("money", "being repaired")),
    **dict.fromkeys(("released", "dropped"), lazy_pgettext("money", "not charged")),
    **dict.fromkeys(("refunded", "charged_back"), lazy_pgettext("money", "paid back")),
    "partly": lazy_pgettext("money", "partly paid back"),
}
# The pages on which staff are shown who supporters are.
OF_PAGES = {
    "pledge": lazy_pgettext("page", "pledge"),
    "pledges of a case": lazy_pgettext("page", "pledges of a case"),
    "search": lazy_pgettext("page", "search"),
}
OF = {
    "case": OF_CASES, "round": OF_ROUNDS, "dispute": OF_DISPUTES, "invitation": OF_INVITATIONS, "change": OF_CHANGES,
    "movement": OF_MOVEMENTS, "refund": OF_REFUNDS, "page": OF_PAGES, "role": OF_ROLES,
    "attempt": OF_ATTEMPTS, "money": OF_MONEY,
}  # fmt: skip


def state(name: str, of: str = "") -> str:
    """A state as the database has it, "changes_requested", in the reader's words."""
    said = OF.get(of, {}).get(name)
    return str(said) if said is not None else gettext(name.replace("_", " "))


def money_of(status: str, refunded_pence: int) -> str:
    """What became of a pledge's money, for the case owner."""
    return state("partly" if status == "charged" and refunded_pence else status, "money")


def tries(count: int) -> str:
    return ngettext("%(num)s try", "%(num)s tries", count) if count else gettext("no tries")


def seen(figures: str) -> str:
    """What a breaker has seen, as its row has it: "12 refused, 3 unfinished, 4 saved"."""
    said = re.fullmatch(r"(\d+) refused, (\d+) unfinished, (\d+) saved", figures)
    if said is None:
        return figures
    refused, unfinished, saved = map(int, said.groups())
    return ", ".join((
        ngettext("%(num)s refused card", "%(num)s refused cards", refused),
        ngettext("%(num)s unused card page", "%(num)s unused card pages", unfinished),
        ngettext("%(num)s saved card", "%(num)s saved cards", saved),
    ))  # fmt: skip


def grouped(number: int) -> str:
    """ "1,000", as the language of the page groups it."""
    return str(format_decimal(number, locale=get_locale() or "en_GB"))
