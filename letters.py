"""Every e-mail that Standing sends: to whom, with what words, by which road.

The words stand in templates/letters/<kind>.txt; the first line is the subject. Letters are plain text with a twin for
mail programs that show HTML (twin.py), in the language of their row, and their links lead to pages in that language. A
letter is owed by the models and sent by jobs/post.py; here it is only written and handed over.
"""

import datetime as dt
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import EmailPolicy
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from flask import render_template
from flask_babel import force_locale

import config
import twin
from models import (
    DISPUTE_LETTERS,
    ENDED_UNPAID,
    ENGLISH,
    MONEY_TAKEN,
    REFUSED,
    AddressChange,
    Agreement,
    Breaker,
    Case,
    Comment,
    Dispute,
    EmailChange,
    Examination,
    FinalReport,
    Invitation,
    Letter,
    LinkRequest,
    Movement,
    PasswordReset,
    Pledge,
    PromiseChange,
    Queue,
    Reconciliation,
    Round,
    SignUp,
    Update,
    User,
    db,
)

# What a letter can be about; its recipient follows from it.
SUBJECTS: dict[str, Any] = {
    "pledge": Pledge, "round": Round, "user": User, "examination": Examination, "reconciliation": Reconciliation,
    "address_change": AddressChange, "link_request": LinkRequest, "case": Case, "comment": Comment,
    "sign_up": SignUp, "invitation": Invitation, "password_reset": PasswordReset,
    "email_change": EmailChange,
}  # fmt: skip
# What is told of a dispute -> the state that it tells of.
DISPUTES: dict[str, str] = {kind: state for state, kinds in DISPUTE_LETTERS.items() for kind in kinds}
# Letters to a case owner about a review -> the state that they tell of.
OF_REVIEWS = {
    "case_changes": "changes_requested", "case_not_live": "changes_requested", "case_rejected": "rejected",
    "case_approved": "approved",
}  # fmt: skip
# Letters to staff about a case; their occasion is "case:3", or "case:3:review:1".
OF_CASES = ("case_submitted", "case_not_live_staff", "case_called_off")
# Letters about a round that go to the operator, and not to its case owner.
TO_OPERATOR = ("stays_closing", "charges_halted")
# Letters that come only to those who want updates, and that lead to the end of them.
OF_NEWS = ("update", "final_report")
# Rows whose letter has a link that opens an account, or opens it again -> where that link leads.
OF_ACCOUNTS: dict[type[Any], str] = {
    SignUp: "sign-up", Invitation: "invitations", PasswordReset: "password-resets",
    EmailChange: "email-changes",
}  # fmt: skip
# Letters that are nothing but a link that works for a while. For an address without an account there is no such link.
LINKS_THAT_RUN_OUT = ("new_address", "invitation", "password_reset", "new_email")
# How many findings are told; the commands list them all.
MOST_FINDINGS = 50
# How many comments that wait are listed for a moderator.
MOST_COMMENTS = 10
# How long the mail server may take for one step.
PATIENCE = 20


class LetterPolicy(EmailPolicy):
    """Headers as usual, but the address to unsubscribe in one piece: folded, it would be encoded word by word."""

    def fold(self, name: str, value: str) -> str:
        return f"{name}: {value}{self.linesep}" if name == "List-Unsubscribe" else super().fold(name, value)

    def fold_binary(self, name: str, value: str) -> bytes:
        return self.fold(name, value).encode() if name == "List-Unsubscribe" else super().fold_binary(name, value)


def is_true(letter: Letter, as_of: dt.datetime | None = None) -> bool:
    """Whether what a letter says is still so as it goes out. One about a refused payment that was made good meanwhile
    is not, one whose link is dead by then is not, and whoever asks for the links of an address without pledges gets
    none."""
    if not has_reader(letter):
        return False
    about = _subject_row(letter)
    if letter.kind in LINKS_THAT_RUN_OUT:
        return bool(about.waits(as_of or letter.created_at))
    return bool(_STILL_SO[letter.kind](letter, about)) if letter.kind in _STILL_SO else True


def has_reader(letter: Letter) -> bool:
    """Whether we still know to whom it goes, and not that the reader was erased or what it is about was forgotten."""
    table, _, number = letter.subject.partition(":")
    about = db.session.get(SUBJECTS[table], int(number))
    if isinstance(about, Round) and letter.kind not in TO_OPERATOR:
        about = about.case
    if isinstance(about, Case):
        about = about.owner
    if letter.kind in OF_CASES and db.session.get(Case, int(letter.occasion.split(":")[1])) is None:
        # Its owner has deleted the draft.
        return False
    nobody = about is None or getattr(about, "erased_at", None) is not None or getattr(about, "email", None) == ""
    return not nobody and not (isinstance(about, AddressChange) and about.new_email == "")


def _is_a_draft(update: Update | None) -> bool:
    return update is not None and update.status == "draft"


def _is_still_agreed(letter: Letter, pledge: Pledge) -> bool:
    agreed: Agreement = _row_of_occasion(letter, Agreement)
    return pledge.amount_pence == agreed.amount_pence and pledge.status not in ENDED_UNPAID


def _is_still_disputed_so(letter: Letter, _about: Any) -> bool:
    """The bank may have decided, or taken the money, before we could say that it was asked."""
    dispute: Dispute = _row_of_occasion(letter, Dispute)
    return dispute.status == DISPUTES[letter.kind] and not letter.has_sequel(MONEY_TAKEN)


def _may_still_be_reminded(letter: Letter, pledge: Pledge) -> bool:
    """While charges are frozen nobody can pay, and another one is owed as they go on."""
    return pledge.status in REFUSED and pledge.round.case.charges and not letter.was_followed_by("reminder")


def _is_still_refused(letter: Letter, pledge: Pledge) -> bool:
    """Of a cancelled case nobody can pay any more; what became of the pledge is told once Stripe has said it. And a
    reminder that has followed says all of this, with the dates of now."""
    if pledge.round.case.status == "cancelled" or letter.was_followed_by("reminder"):
        return False
    return pledge.status == letter.kind and letter.occasion == f"attempt:{len(pledge.attempts)}"


def _is_still_reviewed_so(letter: Letter, its_case: Case) -> bool:
    return its_case.status == OF_REVIEWS[letter.kind] and its_case.review == letter.occasion


# What a letter says can be overtaken while it waits -> whether it is still so, by the letter and the row it is about.
_STILL_SO: dict[str, Callable[[Letter, Any], bool]] = {
    **dict.fromkeys(DISPUTES, _is_still_disputed_so),
    # Somebody may have said "no more", and what is for supporters is not for whoever took the pledge back.
    "final_report": lambda _, pledge: pledge.wants_updates,
    "update": lambda letter, pledge: (
        pledge.wants_updates and (pledge.is_supporters or _row_of_occasion(letter, Update).is_for_everyone)
    ),
    "update_reminder": lambda letter, case: case.is_silent(letter.created_at),
    # Its owner may have published it all the same, or thrown it away.
    "update_held_back": lambda letter, _: _is_a_draft(db.session.get(Update, int(letter.occasion.split(":")[1]))),
    "links": lambda _, request: bool(request.pledges()),
    **dict.fromkeys(OF_REVIEWS, _is_still_reviewed_so),
    "case_submitted": lambda letter, _: _case_of_occasion(letter).status == "submitted",
    "comment_rejected": lambda letter, comment: (
        comment.status == "rejected" and letter.occasion == f"version:{comment.version}"
    ),
    "changed": _is_still_agreed,
    # Who has left meanwhile, or whose round is over, has had the letter that says so.
    "promise_changed": lambda _, pledge: pledge.status in ("started", "held", "confirmed"),
    # Only the last letter has a link that works, and none once it was used.
    "confirmation": lambda letter, pledge: (
        pledge.confirm_by is not None and letter.occasion == f"confirmation:{pledge.confirm_no}"
    ),
    "looked_at": lambda _, pledge: pledge.status == "held",
    "promise_asked": lambda letter, _: _row_of_occasion(letter, PromiseChange).status == "asked",
    "reminder": _may_still_be_reminded,
    "declined": _is_still_refused,
    "action_required": _is_still_refused,
}


def write(letter: Letter) -> EmailMessage:
    """The letter as it goes out. The same row always gives the same Message-ID and date."""
    settings = config.current()
    about = _subject_row(letter)
    with force_locale(letter.language.replace("-", "_")):
        words = render_template(f"letters/{letter.kind}.txt", **_context(letter, about))
    subject, _, body = words.partition("\n")
    message = EmailMessage(policy=LetterPolicy())
    message["From"] = _address(*parseaddr(settings.mail_from))
    message["To"] = _recipient(letter, about)
    message["Subject"] = " ".join(subject.split())
    message["Date"] = format_datetime(letter.created_at)
    message["Message-ID"] = f"<{letter.message_id}@{urlsplit(settings.site_url).hostname}>"
    message["Auto-Submitted"] = "auto-generated"
    if letter.kind in OF_NEWS:
        message["List-Unsubscribe"] = f"<{_link(letter, about, 'unsubscribe')}>"
        if settings.is_https:
            # Mail programs may then post to it by themselves (RFC 8058, which wants https).
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(body.strip() + "\n")
    message.add_alternative(
        render_template(
            "letter.html", language=letter.language, subject=message["Subject"], site_name=settings.site_name,
            blocks=twin.blocks(body, settings.site_url),
        ),
        subtype="html",
    )  # fmt: skip
    # Left to itself it would be another one each time.
    message.set_boundary(f"={letter.message_id}")
    return message


def address_of(message: EmailMessage) -> str:
    """The one address that a letter goes to."""
    (address,) = message["To"].addresses
    return str(address.addr_spec)


@dataclass(frozen=True)
class Trouble:
    """Why a letter was not taken, in a few words; `for_good` when the mail server knows no such mailbox."""

    words: str
    for_good: bool = False


def send(message: EmailMessage) -> Trouble | None:
    """Hand a letter over. Returns what went wrong, or None when it was taken."""
    where = urlsplit(config.current().mail_url)
    try:
        if where.scheme == "file":
            _drop_into_folder(message, config.ROOT / (where.netloc + where.path))
        elif where.scheme in ("smtp", "smtps"):
            _hand_to_server(message, where.scheme, where.hostname or "", where.port, where.username, where.password)
        else:
            return Trouble("MAIL_URL must begin with smtp:, smtps: or file:")
    except smtplib.SMTPRecipientsRefused as refused:
        codes = [code for code, _ in refused.recipients.values()]
        return Trouble(f"SMTPRecipientsRefused: {', '.join(map(str, codes))}", all(code >= 500 for code in codes))
    except (OSError, smtplib.SMTPException) as trouble:
        return Trouble(_in_few_words(trouble))
    return None


def _in_few_words(trouble: Exception) -> str:
    """What went wrong, without the mail server's own words: they repeat the address, and this is logged."""
    kind = type(trouble).__name__
    if isinstance(trouble, smtplib.SMTPResponseException):
        return f"{kind}: {trouble.smtp_code}"
    return f"{kind}: {trouble}"[:200]


def _hand_to_server(message: EmailMessage, scheme: str, host: str, port: int | None, user: str | None,
                    password: str | None) -> None:  # fmt: skip
    # Left to itself smtplib believes any certificate, and the letters carry private links.
    trusted = ssl.create_default_context()
    server: smtplib.SMTP
    if scheme == "smtps":
        server = smtplib.SMTP_SSL(host, port or 0, timeout=PATIENCE, context=trusted)
    else:
        server = smtplib.SMTP(host, port or 0, timeout=PATIENCE)
    with server:
        if user and password:
            if scheme == "smtp":
                server.starttls(context=trusted)
            server.login(unquote(user), unquote(password))
        # Where reports of failed deliveries are sent, which may be another mailbox than the one of the answers.
        server.send_message(message, from_addr=config.current().bounces_to or None)


def _drop_into_folder(message: EmailMessage, folder: Path) -> None:
    """For development: one file a letter, named by its Message-ID, so that a repeat does not double it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = message["Message-ID"].strip("<>").partition("@")[0]
    unfinished = folder / f".{name}"
    unfinished.write_bytes(bytes(message))
    unfinished.replace(folder / f"{name}.eml")


def drop_copies(message_ids: list[str]) -> None:
    """For development: the files of these letters, which are no letters that somebody has received."""
    where = urlsplit(config.current().mail_url)
    if where.scheme == "file":
        for number in message_ids:
            (config.ROOT / (where.netloc + where.path) / f"{number}.eml").unlink(missing_ok=True)


def _subject_row(letter: Letter) -> Any:
    table, _, number = letter.subject.partition(":")
    return db.session.get_one(SUBJECTS[table], int(number))


def _row_of_occasion(letter: Letter, table: type[Any]) -> Any:
    """The row that an occasion such as "update:3", or "dispute:3:held", names."""
    return db.session.get_one(table, int(letter.occasion.split(":")[1]))


def _case_of_occasion(letter: Letter) -> Case:
    return db.session.get_one(Case, int(letter.occasion.split(":")[1]))


def _site(letter: Letter) -> str:
    """Where the pages of the letter's language begin."""
    site_url = config.current().site_url
    return site_url if letter.language == ENGLISH else f"{site_url}/{letter.language}"


def _context(letter: Letter, about: Any) -> dict[str, Any]:
    """What the templates may speak of. All amounts and dates come from rows."""
    settings, site = config.current(), _site(letter)
    words: dict[str, Any] = {
        "site_name": settings.site_name,
        "site_url": site,
        "operator": settings.operator_name,
        "contact": settings.contact_email,
        "zone": settings.display_zone,
    }
    if type(about) in OF_ACCOUNTS:
        return words | {"about": about, "link": _account_link(letter, about)}
    if isinstance(about, Case):
        words |= {"case": about, "draft_url": f"{site}/owner/cases/{about.slug}/draft"}
        return words | ({"update": _row_of_occasion(letter, Update)} if letter.kind == "update_held_back" else {})
    if isinstance(about, User):
        return words | {"person": about} | _about_person(letter, about)
    if isinstance(about, (Examination, Reconciliation)):
        left = len(about.findings) - MOST_FINDINGS
        return words | {"found": about, "findings": about.findings[:MOST_FINDINGS], "more": max(0, left)}
    if isinstance(about, Comment):
        link = f"{site}/comments/{about.link()}"
        return words | {"comment": about, "case": about.case, "link": link}
    if isinstance(about, LinkRequest):
        return words | {"pledges": [(pledge, _link(letter, pledge, "pledge")) for pledge in about.pledges()]}
    if isinstance(about, AddressChange):
        words |= {name: _address_link(letter, about, name) for name in ("new_address", "old_address")}
    elif isinstance(about, Pledge):
        words |= {"pledge": about, "link": _link(letter, about, "pledge")}
        words |= {"unsubscribe": _link(letter, about, "unsubscribe")}
        words |= _about_pledge(letter, about)
    its_round: Round = _round_of(about)
    case: Case = its_round.case
    if letter.kind in ("promise_consented", "promise_refused"):
        words |= {"change": _row_of_occasion(letter, PromiseChange)}
    return words | {"round": its_round, "case": case, "case_url": f"{site}/cases/{case.slug}"}


def _round_of(about: Any) -> Round:
    if isinstance(about, AddressChange):
        about = about.pledge
    its_round: Round = about.round if isinstance(about, Pledge) else about
    return its_round


def _about_person(letter: Letter, person: User) -> dict[str, Any]:
    """What only one kind of letter to somebody who logs in speaks of."""
    if letter.kind == "password_changed":
        return {"changed_at": letter.created_at, "typed": letter.occasion.startswith("typed:")}
    if letter.kind == "second_factor":
        return {"what": letter.occasion.partition(":")[0], "at": letter.created_at}
    if letter.kind in OF_CASES:
        its_case = _case_of_occasion(letter)
        return {"case": its_case, "review_url": f"{_site(letter)}/staff/reviews/{its_case.slug}"}
    if letter.kind == "promise_asked":
        change: PromiseChange = _row_of_occasion(letter, PromiseChange)
        where = f"{_site(letter)}/staff/promise-changes/{change.id}"
        return {"change": change, "case": change.round.case, "change_url": where}
    if letter.kind in DISPUTES or letter.kind == "refund_failed":
        return _about_money(letter)
    if letter.kind in ("card_testing", "pledges_held"):
        return _about_tried_cards(letter)
    return _about_comments(letter, person)


def _about_tried_cards(letter: Letter) -> dict[str, Any]:
    """What a letter to staff speaks of, by its occasion: "breaker:3:asks:1795773600", or "case:3:ends"."""
    words: dict[str, Any] = {"tried_cards_url": f"{_site(letter)}/staff/tried-cards"}
    if letter.kind == "pledges_held":
        return words | {"case": _case_of_occasion(letter), "ends": letter.occasion.endswith(":ends")}
    breaker: Breaker = _row_of_occasion(letter, Breaker)
    return words | {"case": breaker.case, "state": letter.occasion.split(":")[2]}


def _about_pledge(letter: Letter, pledge: Pledge) -> dict[str, Any]:
    """What only one kind of letter about a pledge speaks of."""
    if letter.kind == "final_report":
        return {"report": _row_of_occasion(letter, FinalReport)}
    if letter.kind == "update":
        update: Update = _row_of_occasion(letter, Update)
        private = f"{_link(letter, pledge, 'pledge')}/updates"
        page = f"{_site(letter)}/cases/{pledge.round.case.slug}" if update.is_for_everyone else private
        return {"update": update, "update_url": f"{page}#update-{update.id}"}
    if letter.kind == "promise_changed":
        return {"change": _row_of_occasion(letter, PromiseChange), "leave": _link(letter, pledge, "leave")}
    if letter.kind == "confirmation":
        return {"confirm": f"{_site(letter)}/pledges/confirmation/{pledge.link('confirmation')}"}
    if letter.kind == "changed":
        return {"agreement": _row_of_occasion(letter, Agreement)}
    if letter.kind == "reminder":
        return {"was_frozen": letter.occasion.startswith("charges_go_on:")}
    if letter.kind == "receipt":
        return {"charged_at": pledge.charged_at()}
    if letter.kind == "refunded":
        paid = sa.select(Movement.amount_pence).where(Movement.stripe_id == letter.occasion)
        return {"refunded_pence": -db.session.scalars(paid).one()}
    if letter.kind in DISPUTES:
        return _about_dispute(_row_of_occasion(letter, Dispute))
    return {}


def _about_dispute(dispute: Dispute) -> dict[str, Any]:
    """A bank may also only ask, and then no money was held: the ledger knows."""
    return {"dispute": dispute, "held": Movement.known(dispute.stripe_id)}


def _about_comments(letter: Letter, moderator: User) -> dict[str, Any]:
    """How many comments wait, and the ten oldest with links for this moderator; their words stay out of the mail."""
    queue = Queue()
    oldest, _ = queue.page(letter.created_at, MOST_COMMENTS)
    where = f"{_site(letter)}/moderation/letters"
    return {
        "waiting": queue.count(letter.created_at),
        "oldest": [(one, f"{where}/{one.digest_link(moderator)}") for one in oldest],
        "as_of": letter.created_at,
    }


def _about_money(letter: Letter) -> dict[str, Any]:
    """What a letter to staff speaks of, by its occasion: "dispute:3", or "pledge:17:re_1" for a refund."""
    kind, number, *_ = letter.occasion.split(":")
    if kind == "dispute":
        words = _about_dispute(db.session.get_one(Dispute, int(number)))
        pledge = words["dispute"].pledge
    else:
        words, pledge = {}, db.session.get_one(Pledge, int(number))
    return words | {"pledge": pledge, "case": pledge.round.case if pledge else None}


def _recipient(letter: Letter, about: Any) -> Address:
    if isinstance(about, (Examination, Reconciliation)):
        return _address("", config.current().contact_email)
    if isinstance(about, LinkRequest):
        return _address("", about.pledges()[0].email)
    if isinstance(about, EmailChange):
        return _address("", about.old_email if letter.kind == "email_left" else about.new_email)
    if isinstance(about, Comment) or type(about) in OF_ACCOUNTS:
        # Without the name, which anybody may have typed to be read at this address.
        return _address("", about.email)
    if letter.kind == "confirmation":
        # Without the name, as above.
        return _address("", about.email)
    if isinstance(about, AddressChange):
        # Without the name: who reads there may be a stranger, to whom it says nothing.
        return _address("", about.old_email if letter.kind == "address_left" else about.new_email)
    if isinstance(about, Case):
        about = about.owner
    if isinstance(about, Round):
        if letter.kind in TO_OPERATOR:
            return _address("", config.current().contact_email)
        about = about.case.owner
    return _address(about.name, about.email)


def _address(name: str, email: str) -> Address:
    """Names are one line, whatever was typed; a domain such as bücher.example goes out in its ASCII form."""
    if not email.isascii():
        from email_validator import validate_email

        email = validate_email(email, check_deliverability=False).ascii_email or email
    return Address(display_name=" ".join(name.split()), addr_spec=email)


def _address_link(letter: Letter, change: AddressChange, whose: str) -> str:
    purpose = whose.replace("_", "-")
    return f"{_site(letter)}/pledges/{purpose}/{change.link(purpose)}"


def _account_link(letter: Letter, about: Any) -> str:
    """Where a letter about an account leads; of the two about another address, each reader has a link of their own."""
    where = f"{_site(letter)}/{OF_ACCOUNTS[type(about)]}"
    if not isinstance(about, EmailChange):
        return f"{where}/{about.link()}"
    return (
        f"{where}/back/{about.link('old-email')}"
        if letter.kind == "email_left"
        else f"{where}/{about.link('new-email')}"
    )


def _link(letter: Letter, pledge: Pledge, purpose: str) -> str:
    path = {"pledge": "/pledges/{}", "leave": "/pledges/{}/departure"}.get(purpose, "/pledges/{}/unsubscription")
    return _site(letter) + path.format(pledge.link(purpose))
