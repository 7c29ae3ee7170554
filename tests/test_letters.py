"""Every letter: its words, its headers, and the road to the reader's mail server."""

import datetime as dt
import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from jinja2 import StrictUndefined
from werkzeug.datastructures import MultiDict

import app as application
import letters
from jobs.post import send_letters
from jobs.sweep import remind_owners
from models import (
    DISPUTE_LETTERS,
    Breaker,
    CardsTried,
    Case,
    Comment,
    Dispute,
    EmailChange,
    Examination,
    Invitation,
    Letter,
    LinkRequest,
    PasswordReset,
    Pledge,
    Reconciliation,
    SignUp,
    User,
    db,
)
from payments import ChargeFound, DisputeFound, RefundFound
from tests.conftest import ROOT
from tests.made import a_case, a_draft, a_new_card, a_pledge, a_user, card_found, confirm, keep, look_anew, now
from tests.mailbox import letters_to, text_of
from views.forms import CommentForm

SECOND, HOUR = dt.timedelta(seconds=1), dt.timedelta(hours=1)
# A deadline to read: Saturday 31 October 2026, 8:00pm GMT; seven days after it a refused pledge ends.
DEADLINE = dt.datetime(2026, 10, 31, 20, 0, tzinfo=dt.UTC)
NOT_PAID_BY = (
    "If it is not paid by Saturday 7 November 2026, 8:00pm GMT, your pledge ends and you pay nothing. "
    "We never ask for card details by e-mail."
)
PROMISE_PASSED = (
    "Pledges have passed £20. If they are still there on Saturday 31 October 2026, 8:00pm GMT, your card is charged "
    "then. You can cancel until then."
)

# kind -> (subject, how it begins, what else it must say). Amounts: £25 of a target of £20, or of £6,000 when missed.
WORDS: dict[str, tuple[str, str, str]] = {
    "confirmed": (
        "Your £25 pledge counts",
        "Thank you. Your pledge of £25 for",
        f"{PROMISE_PASSED}\n\nYou have agreed to this:\n\n    I allow Standing Test to charge my card £25 once, after",
    ),
    "cancelled": ("Your £25 pledge is cancelled", "You have cancelled your pledge of £25 for", "is not charged"),
    "charged": ("Your card was charged £25", "The case reached its target:", "£25 pledged of £20"),
    "declined": (
        "Your £25 pledge: your bank refused the payment",
        "You have not been charged. The case",
        f"We will not try again by ourselves. {NOT_PAID_BY}",
    ),
    "action_required": (
        "Your bank wants you to approve £25",
        "You have not been charged. Your bank wants you to approve £25. Until you do, nothing is taken.",
        f"We will not try again by ourselves. {NOT_PAID_BY}",
    ),
    "reminder": (
        "Your £25 pledge is still not paid",
        "You have not been charged. The case",
        f"We will not try again by ourselves. {NOT_PAID_BY}",
    ),
    "dropped": ("Your £25 pledge has ended; you were not charged", "You were not charged.", "could not be paid"),
    "missed": (
        "You are not charged: A case about data",
        "This case did not reach its target. £25 of £6,000 was pledged. Nobody was charged, and nobody will be.",
        "Your pledge of £25 has ended",
    ),
    "too_late": ("Your £25 pledge came too late", "Your card for", "You are not charged, and never will be"),
    "case_cancelled": (
        "You are not charged: A case about data was cancelled",
        "The case was cancelled before its deadline. The reason given: The claim was settled.",
        "Nobody was charged, and nobody will be.",
    ),
    "cancelled_charged": (
        "A case about data was cancelled after your card was charged",
        "The case reached its target and cards were being charged when it was cancelled. The reason given: Settled.",
        "Your card was charged £25. What becomes of it is decided by Standing Test: you get a letter when any of it",
    ),
    "reached": ("Your case reached its target", "A case about data", "£25 was pledged of £20, in 1 pledge."),
    "not_reached": ("Your case did not reach its target", "A case about data", "£25 of £6,000 was pledged."),
    "stays_closing": (
        "A round cannot be settled: A case about data",
        "The case:\nhttp",
        "the round stays closing: Stripe is away",
    ),
    "charges_halted": (
        "Stripe calls our request wrong: A case about data",
        "The case:\nhttp",
        "go on with: flask ask-again case-",
    ),
    "update": ("Update: We filed the claim", "A Owner has posted an update on", "The **court** has it."),
    "receipt": ("Receipt: £25 for A case about data", "Received by Standing Test from Ada Winter:", "Visa ending 4242"),
    "refunded": (
        "£10 of your pledge is paid back",
        "Standing Test has paid £10 of your pledge of £25 back to the card that was charged",
        "£10 of £25 has been paid back in all.",
    ),
    "refund_failed": ("A refund has failed: pledge", "A refund to the supporter of", "/staff/pledges/"),
    "disputed": (
        "A payment of £25 is disputed: answer by Saturday 31 October 2026, 8:00pm GMT",
        "The bank of a supporter of",
        "Send the evidence at Stripe by Saturday 31 October 2026, 8:00pm GMT, or it is lost.",
    ),
    "dispute_won": (
        "A dispute about £25 is won",
        "The bank of a supporter of",
        "has decided for us: the payment of £25 stands. The money that was held is ours again.",
    ),
    "dispute_lost": (
        "A dispute about £25 is lost",
        "The bank of a supporter of",
        "has decided against us: £25 went back to the supporter.",
    ),
    "payment_disputed": (
        "Your bank has been asked to take £25 of your pledge back",
        "Your card was charged £25 for",
        "The money is held until your bank has decided. This can take some months. You will get a letter",
    ),
    "payment_stands": (
        "Your payment of £25 stands",
        "Your bank had been asked to take back £25 that your card was charged for",
        "It has decided that the payment stands. The money that was held is with Standing Test again.",
    ),
    "payment_taken_back": (
        "Your bank has taken back £25 of your pledge",
        "Your bank had been asked to take back £25 that your card was charged for",
        "It has decided to do so: the money has gone back to you.",
    ),
    "books_disagree": (
        "The books of Standing do not agree",
        "The books were summed up on Saturday 31 October 2026, 8:00pm GMT, and this is off:",
        "- Pledge 1 is charged, but its round 1 is missed.",
    ),
    "stripe_disagrees": (
        "Standing and Stripe do not agree",
        "The books since Saturday 31 October 2026, 7:00pm GMT were compared with Stripe's.",
        "- Pledge 1 is released, but Stripe's payment pi_1 is paid.",
    ),
    "confirmation": (
        "Confirm your £25 pledge",
        "Somebody wants to pledge £25 for",
        "If that is you, open this page and press its button. Only then can the pledge count:\nhttp",
    ),
    "looked_at": (
        "We look at your £25 pledge",
        "Thank you for your pledge of £25 for",
        "it ends, and you pay nothing.",
    ),
    "not_released": (
        "We did not take your £25 pledge",
        "Your pledge of £25 for",
        "we have not let it count. You are not charged",
    ),
    "card_testing": (
        "Cards are being tested",
        "For the case “A case about data” many cards were refused",
        "end it or let it go on longer:\nhttp",
    ),
    "pledges_held": ("Pledges to look at: A case about data", "Pledges for", "lets count by Saturday 31 October 2026"),
    "changed": (
        "Your pledge is now £15",
        "You have changed your pledge for",
        "from £25 to £15. Nothing has been taken",
    ),
    "not_raised": (
        "Your pledge stays £25",
        "You wanted to raise your pledge for",
        "your pledge counts with £25, as before",
    ),
    "link_replaced": (
        "The new link of your pledge",
        "The private page of your pledge of £25 for",
        "the old one does not work any more:",
    ),
    "comment_taken": (
        "The private page of your comment",
        "Somebody has sent a comment with this e-mail address, about the case",
        "If you have sent no comment, open the page and withdraw it.",
    ),
    "comment_rejected": (
        "Your comment was not published",
        "A moderator has read your comment about the case",
        "The moderator writes:\n\n    Please speak of the case.\n\nYou can change it and send it again once:\nhttp",
    ),
    "new_address": (
        "Use this e-mail address for your pledge?",
        "Somebody who has pledged for",
        "The link works for three days. If it was not you, do nothing: no more letters will come.",
    ),
    "address_left": (
        "Letters about your pledge go to another address now",
        "Somebody with the private link of your pledge for",
        "take it back on this page, within 30 days.",
    ),
    "address_taken_back": (
        "Letters about a pledge do not come here any more",
        "Letters about the pledge for",
        "go to the earlier e-mail address again",
    ),
    "links": (
        "The links of your pledges",
        "Somebody, probably you, has asked for the private links of all pledges",
        "£25 for A case about data:\nhttp://127.0.0.1:8000/pledges/",
    ),
    "case_submitted": (
        "A case waits for review: Whose data?",
        "A Owner has sent a case for review:",
        "/staff/reviews/",
    ),
    "case_changes": (
        "Your case needs changes before it can go live",
        "Whose data?",
        "ask you to change something first:\n\nName the court.\n\nChange it and send it again:",
    ),
    "case_rejected": ("Your case was not accepted", "Whose data?", "it will not appear here:\n\nName the court."),
    "case_approved": (
        "Your case is approved",
        "Whose data?",
        "It goes live by itself on Saturday 31 October 2026, 8:00pm GMT.",
    ),
    "case_live": (
        "Your case is live",
        "Whose data?",
        "pledge for it until Monday 30 November 2026, 8:00pm GMT:\nhttp://127.0.0.1:8000/cases/",
    ),
    "case_visibility": (
        "A notice stands in place of your case",
        "A case about data",
        "It says:\n\nA court has asked us.\n\nNobody can pledge meanwhile.",
    ),
    "case_not_live": (
        "Your case did not go live",
        "Whose data?",
        "It could not go live at the time that was set. The deadline is in the past.",
    ),
    "case_not_live_staff": (
        "An approved case did not go live: Whose data?",
        "Whose data?",
        "It went back to its owner, A Owner, who has been told.",
    ),
    "sign_up": (
        "Confirm your e-mail address",
        "Somebody, probably you, wants to open an account at Standing with this e-mail address.",
        "type the password that you chose:\nhttp://127.0.0.1:8000/sign-up/",
    ),
    "invitation": (
        "You are invited to Standing",
        "Standing Test invites you to join Standing as a moderator: you can read and decide comments.",
        "The link works until Saturday 7 November 2026, 8:00pm GMT, once.",
    ),
    "password_reset": (
        "Set another password",
        "Somebody, probably you, has forgotten the password of the account with this e-mail address at Standing.",
        "\nhttp://127.0.0.1:8000/password-resets/",
    ),
    "password_changed": (
        "Your password was changed",
        "The password of your account at Standing was changed on",
        "If it was not, set another one at once, and write to us",
    ),
    "new_email": (
        "Use this e-mail address for your account?",
        "Somebody with an account at Standing wants to log in with this address, and to get letters here.",
        "\nhttp://127.0.0.1:8000/email-changes/",
    ),
    "email_left": (
        "Your account has another e-mail address now",
        "Somebody who knows the password of your account at Standing gave it another e-mail address on",
        "\nhttp://127.0.0.1:8000/email-changes/back/",
    ),
    "second_factor": (
        "Your second factor was reset",
        "Our staff reset the second factor of your account at Standing on Saturday 31 October 2026, 8:00pm GMT.",
        "Set up another one when you next log in:\nhttp://127.0.0.1:8000/login",
    ),
    "case_called_off": (
        "A case was cancelled by its owner: Whose data?",
        "A Owner has cancelled",
        "The reason given: The department has given way.",
    ),
    "update_reminder": (
        "Your supporters have heard nothing for 15 days: A case about data",
        "A case about data",
        "Your case reached its target with 1 pledge.",
    ),
    "update_held_back": (
        "An update was not published, since the case is cancelled: A case about data",
        "Your update",
        "We file on Monday\n\nwaited for its time when the case was cancelled",
    ),
    "final_report": (
        "Final report: A case about data",
        "A Owner has published the final report on",
        "What the money was used for:\n\n- The claim: £20\n- Counsel: £5\n\nTotal: £25\n",
    ),
    "promise_changed": (
        "The promise that you agreed to has changed: A case about data",
        "You have pledged £25 for",
        "your card will be charged £25 after Saturday 7 November 2026, 8:00pm GMT if pledges reach £10 by then.",
    ),
    "promise_asked": (
        "A change of the promise is asked for: A case about data",
        "A Owner asks to change, for",
        "the target from £20 to £10.\n\nSupporters have agreed to the promise as it is.",
    ),
    "promise_consented": (
        "The promise of your case is changed",
        "A case about data",
        "the deadline from Saturday 31 October 2026, 8:00pm GMT to Saturday 7 November 2026, 8:00pm GMT and the target",
    ),
    "promise_refused": (
        "The promise of your case stays as it is",
        "A case about data",
        "have not agreed:\n\nThe hearing is not public yet.",
    ),
    "comments_waiting": ("1 comment waiting for a moderator", "1 comment waiting to be read:", "/moderation"),
}


# The letters about what a supporter has changed, or wants to.
CHANGES = (
    "changed", "not_raised", "link_replaced", "links", "new_address", "address_left", "address_taken_back",
)  # fmt: skip


OF_ACCOUNTS = (
    "sign_up",
    "invitation",
    "password_reset",
    "password_changed",
    "second_factor",
    "new_email",
    "email_left",
)


def _account(kind: str, moderator: User) -> None:
    if kind == "sign_up":
        SignUp.ask("new@example.org", "Sam Weir", "a hash", DEADLINE)
    elif kind == "invitation":
        Invitation.send("new@example.org", "moderator", None, DEADLINE)
    elif kind == "second_factor":
        held = db.session.merge(moderator)
        held.second_factor_at = DEADLINE - HOUR
        held.reset_second_factor("They came with a passport.", None, DEADLINE)
    elif kind in ("new_email", "email_left"):
        change = EmailChange.ask(db.session.merge(moderator), "new@example.org", DEADLINE)
        if kind == "email_left":
            change.user.password_at = DEADLINE - HOUR
            change.make(DEADLINE)
    else:
        asked = PasswordReset.ask(db.session.merge(moderator).email, now())
        if kind == "password_changed":
            asked.use("a hash", now())


def _review(kind: str, staff: User) -> None:
    """A case is sent for review, and staff or the clock decide."""
    case, before = a_draft(), DEADLINE - HOUR
    case.submit(case.owner, before)
    if kind == "case_changes":
        case.ask_changes("Name the court.", staff, DEADLINE, case.review_mark)
    elif kind == "case_rejected":
        case.reject("Name the court.", staff, DEADLINE, case.review_mark)
    elif kind == "case_live":
        case.approve(staff, DEADLINE, case.review_mark)
    elif kind != "case_submitted":
        case.approve(staff, before, case.review_mark, DEADLINE)
    if kind == "case_called_off":
        case.launch(DEADLINE)
        case.call_off("The department has given way.", case.owner, DEADLINE + HOUR)
    if kind.startswith("case_not_live"):
        case.wanted_days, case.wanted_end = None, DEADLINE
        case.launch(DEADLINE)


def owed(kind: str) -> Letter:
    """A letter of this kind, owed by the verbs that owe it on the site."""
    moderator, staff = a_user("moderator"), a_user("staff")
    if kind in (*letters.OF_REVIEWS, *letters.OF_CASES, "case_live"):
        _review(kind, db.session.merge(staff))
    elif kind == "case_visibility":
        a_case().show_as("notice", "A court has asked us.", "An order.", db.session.merge(staff), DEADLINE)
    elif kind in OF_ACCOUNTS:
        _account(kind, moderator)
    else:
        _pledging(kind, moderator, staff)
    found = sa.select(Letter).where(Letter.kind == kind)
    return db.session.scalars(found.execution_options(populate_existing=True)).one()


def _pledging(kind: str, moderator: User, staff: User) -> None:
    """A case that is live, a pledge to it, and what becomes of them."""
    case = a_case(target=2_000 if kind not in ("missed", "not_reached") else 600_000)
    its_round = case.round
    its_round.deadline = DEADLINE
    made = a_pledge(its_round, 2_500, name="Ada Winter", email="ada@example.org", wants_updates=True,
                    as_of=DEADLINE)  # fmt: skip
    if kind == "too_late":
        made.apply_card(card_found(made, DEADLINE + SECOND), DEADLINE + SECOND)
    elif kind.startswith("comment"):
        _comment(kind, case, moderator)
    elif kind == "books_disagree":
        Examination.write(["Pledge 1 is charged, but its round 1 is missed."], DEADLINE)
    elif kind == "stripe_disagrees":
        compared = Reconciliation.begin(DEADLINE - HOUR, DEADLINE, DEADLINE)
        compared.note(1, 0, ["Pledge 1 is released, but Stripe's payment pi_1 is paid."])
        while compared.ended_at is None:
            compared.go_on(None, DEADLINE, DEADLINE)
    elif kind == "stays_closing":
        its_round.trouble = "Stripe is away"
        Letter.owe(kind, its_round, "closing", now())
    elif kind in OF_TRIED_CARDS:
        _tried_cards(kind, made, staff)
    else:
        confirm(made, DEADLINE)
        if kind in CHANGES:
            _change(kind, made)
        elif kind.startswith("promise"):
            _promise(kind, case, staff)
        else:
            _go_on(kind, case, made)
            _after_the_charge(kind, made, staff)


OF_TRIED_CARDS = ("confirmation", "card_testing", "looked_at", "not_released", "pledges_held")


def _tried_cards(kind: str, made: Pledge, staff: User) -> None:
    """What is written while cards are being tried out, and of a pledge that is held."""
    if kind == "confirmation":
        made.ask_confirmation(DEADLINE)
        made.session_id = None
    elif kind == "card_testing":
        Breaker.hold(made.round.case_id, DEADLINE)._go("asks", CardsTried(21, 0, 0, 0), DEADLINE)
    else:
        made._keep_card(card_found(made, DEADLINE))
        made._hold_back("same_card", DEADLINE)
        if kind == "not_released":
            made.refuse("Nobody answers.", db.session.merge(staff), DEADLINE)


def _comment(kind: str, case: Case, moderator: User) -> None:
    comment = case.take_comment("Bo", "bo@example.org", "Well done.", now())
    if kind == "comments_waiting":
        Letter.owe(kind, moderator, "2026-10-31", now())
    elif kind == "comment_taken":
        comment.owe_link(now())
    else:
        comment.reject("off_topic", moderator, now(), note="Please speak of the case.")


def _go_on(kind: str, case: Case, made: Pledge) -> None:
    """What happens to a confirmed pledge until the letter is owed."""
    if kind == "confirmed":
        return
    if kind == "cancelled":
        made.cancel(DEADLINE)
    elif kind == "update_held_back":
        waits = case.begin_update(case.owner, "k" * 24, DEADLINE)
        waits.write({"title": "We file on Monday", "body": "At last."}, 0, DEADLINE)
        waits.publish_later(DEADLINE + HOUR, case.owner, DEADLINE)
        case.cancel("The claim was settled.", "operator", DEADLINE)
    elif kind == "case_cancelled":
        case.cancel("The claim was settled.", "operator", DEADLINE)
    elif kind == "update":
        case.publish_update(case.owner, "We filed the claim", "The **court** has it.", DEADLINE)
    else:
        _decide(kind, case, made)


def _decide(kind: str, case: Case, made: Pledge) -> None:
    """The decision, and what becomes of the pledge after it."""
    if kind == "cancelled_charged":
        confirm(a_pledge(case.round, 3_000, as_of=DEADLINE), DEADLINE)
    case.round.close(DEADLINE + SECOND)
    case.round.settle(DEADLINE + SECOND)
    paid = dict.fromkeys(
        ("charged", "cancelled_charged", "final_report", "receipt", "refunded", "refund_failed", *letters.DISPUTES),
        "succeeded",
    )
    outcome = (paid | {"action_required": "action_required"}).get(kind, "declined")
    if kind == "charges_halted":
        made.claim(DEADLINE, 20 * SECOND)
        made.halt("parameter_unknown", DEADLINE)
        made.ask_again("operator", DEADLINE)
    elif made.status == "due":
        made.claim(DEADLINE, 20 * SECOND)
        made.apply_charge(ChargeFound(outcome, "pi_1", "ch_1", 2_500), DEADLINE, asked=True)
    if kind == "cancelled_charged":
        case.cancel("Settled.", "operator", DEADLINE)
    if kind == "update_reminder":
        remind_owners(DEADLINE + dt.timedelta(days=16))
    if kind == "final_report":
        case.publish_report(case.owner, "We **won**.", [("The claim", 2_000), ("Counsel", 500)], DEADLINE)
    if kind == "dropped":
        made.drop(DEADLINE)
    if kind == "reminder":
        made.remind(DEADLINE + dt.timedelta(days=2))


def _promise(kind: str, case: Case, staff: User) -> None:
    """A change of the promise, asked for a week before the deadline: a week more, and half of the target."""
    a_week = dt.timedelta(days=7)
    why = "The court has moved the hearing."
    change = case.round.ask_change(DEADLINE + a_week, 1_000, why, case.owner, DEADLINE - a_week)
    if kind == "promise_refused":
        change.refuse("The hearing is not public yet.", staff, DEADLINE - a_week)
    elif kind != "promise_asked":
        change.consent(staff, DEADLINE - a_week)


def _change(kind: str, made: Pledge) -> None:
    """What its supporter does on the private page until the letter is owed."""
    if kind == "changed":
        made.change_amount(1_500, DEADLINE)
    elif kind == "not_raised":
        made.change_amount(5_000, DEADLINE)
        made.apply_card(a_new_card(made, DEADLINE + SECOND), DEADLINE + SECOND)
    elif kind == "link_replaced":
        made.replace_link(DEADLINE)
    elif kind == "links":
        LinkRequest.ask("ada@example.org", DEADLINE)
    else:
        change = made.ask_other_address("ada@home.example", DEADLINE)
        if kind != "new_address":
            change.make(DEADLINE)
        if kind == "address_taken_back":
            change.take_back(DEADLINE)


def _after_the_charge(kind: str, made: Pledge, staff: User) -> None:
    """What happens to a charged pledge until the letter is owed."""
    if kind == "receipt":
        made.owe_receipt(DEADLINE)
    elif kind in ("refunded", "refund_failed"):
        refund = made.ask_refund("k" * 24, 1_000, "They asked.", db.session.merge(staff), DEADLINE)
        for outcome in ("succeeded", "failed") if kind == "refund_failed" else ("succeeded",):
            made.apply_refund(RefundFound(outcome, "re_1", "pi_1", 1_000, "", refund.id), DEADLINE)
    elif kind in letters.DISPUTES:
        the_bank("open", made)
        the_bank(letters.DISPUTES[kind], made)


def the_bank(outcome: str, made: Pledge, held: bool = True, due_by: dt.datetime | None = None) -> None:
    """The bank wants the charge of a pledge back, or has decided about that; it may also only ask, and hold nothing."""
    found = DisputeFound("du_1", "ch_1", "pi_1", 2_500, "fraudulent", outcome, held, due_by or DEADLINE, DEADLINE)
    Dispute.apply(found, made, DEADLINE)


# How lines begin that stand in a letter as somebody wrote them, or as the books noted them.
AS_WRITTEN = ("A court has asked us.", "The hearing is not public yet.", "It could not go live", "- Pledge 1 is")


def body(message: EmailMessage) -> str:
    return str(text_of(message))


# --- Words -------------------------------------------------------------------------------------------------


def test_every_letter_of_the_folder_is_shown_here() -> None:
    assert sorted(WORDS) == sorted(file.stem for file in (ROOT / "templates" / "letters").iterdir())


@pytest.mark.parametrize("kind", WORDS)
def test_a_letter_says_what_it_must_with_amounts_and_dates_from_its_rows(app: Flask, kind: str) -> None:
    """And says it in French to whoever reads French, with links to pages in French; the next one is English again."""
    app.jinja_env.undefined = StrictUndefined  # a name that is missing would otherwise just be left out
    subject, begins, says = WORDS[kind]
    letter = owed(kind)
    message = letters.write(letter)
    words = body(message)
    assert message["Subject"].startswith(subject) if kind == "refund_failed" else message["Subject"] == subject
    assert words.strip().startswith(begins)
    assert says in words
    assert not [odd for odd in ("None", "{{", "{%", "&amp;", "<time", "&#") if odd in words]
    assert message.get_content_type() == "multipart/alternative"
    letter.language = "fr"
    french = letters.write(letter)
    assert french["Subject"] != message["Subject"] and not [odd for odd in ("None", "%(", "{") if odd in body(french)]
    links = re.findall(r"http://127\.0\.0\.1:8000(/[a-z]+)", words)
    assert re.findall(r"http://127\.0\.0\.1:8000(/fr/[a-z]+)", body(french)) == [f"/fr{link}" for link in links]
    # Every sentence but those that a person wrote, or that the books noted, is said in other words.
    same = {line for line in words.splitlines() if len(line.split()) > 4} & set(body(french).splitlines())
    assert not [line for line in same if not line.startswith(("    ", *AS_WRITTEN))]
    letter.language = "en-GB"
    assert bytes(letters.write(letter)) == bytes(message)


@pytest.mark.parametrize("kind", ["declined", "action_required"])
def test_a_refused_card_is_told_in_its_first_words_that_nothing_was_taken(app: Flask, kind: str) -> None:
    words = body(letters.write(owed(kind)))
    assert words.startswith("You have not been charged. ")
    assert words.removesuffix("\n\nStanding Test, help@example.org\n").endswith(NOT_PAID_BY)


@pytest.mark.parametrize("kind", ["declined", "action_required", "reminder"])
def test_a_refusal_that_was_made_good_before_the_post_went_is_not_told_any_more(app: Flask, kind: str) -> None:
    """It would say that nothing was charged, below a letter that says that it was."""
    letter = owed(kind)
    assert letters.is_true(letter)
    made = db.session.scalars(sa.select(Pledge)).one()
    made.apply_charge(ChargeFound("succeeded", "pi_1", "ch_2", 2_500), now())
    keep()
    send_letters()
    sent = {one.kind: one.trouble for one in db.session.scalars(sa.select(Letter).where(Letter.sent_at.is_not(None)))}
    assert (sent[kind], sent["charged"]) == ("not sent: overtaken by events", "")
    folder = Path(str(app.config["STANDING"].mail_url).removeprefix("file:"))
    subjects = [str(message_from_bytes(file.read_bytes())["Subject"]) for file in folder.glob("*.eml")]
    assert len(subjects) == len(sent) - (2 if kind == "reminder" else 1)


@pytest.mark.parametrize("end", ["won", "lost"])
def test_a_dispute_that_was_decided_before_the_post_went_is_told_by_its_end_alone(app: Flask, end: str) -> None:
    """Staff would look for evidence that nobody wants any more, and the supporter read of money that is not held."""
    opened = [owed("disputed"), *db.session.scalars(sa.select(Letter).where(Letter.kind == "payment_disputed"))]
    assert [letters.is_true(letter) for letter in opened] == [True, True]
    the_bank(end, db.session.scalars(sa.select(Pledge)).one())
    keep()
    send_letters()
    told = {
        letter.kind: letter.trouble
        for letter in db.session.scalars(sa.select(Letter).where(Letter.occasion == "dispute:1"))
    }
    assert told == {
        "disputed": "not sent: overtaken by events", "payment_disputed": "not sent: overtaken by events",
        **dict.fromkeys(DISPUTE_LETTERS[end], ""),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "to_supporter", "to_staff"),
    [
        ("open", "So far it only asks us about the payment, and no money has moved.", "it only asks, and no money is"),
        ("won", "It has closed the matter, and has taken nothing back.", "stands. No money had been held."),
    ],
)
def test_of_a_bank_that_only_asks_nobody_reads_that_money_is_held(
    app: Flask, outcome: str, to_supporter: str, to_staff: str
) -> None:
    owed("charged")
    made = db.session.scalars(sa.select(Pledge)).one()
    the_bank("open", made, held=False)
    the_bank(outcome, made, held=False)
    for kind, says in zip(DISPUTE_LETTERS[outcome], (to_supporter, to_staff), strict=True):
        words = body(letters.write(db.session.scalars(sa.select(Letter).where(Letter.kind == kind)).one()))
        assert says in words and "held until" not in words


@pytest.mark.parametrize("sent", [True, False])
def test_when_a_bank_that_only_asked_takes_the_money_after_all_everybody_is_told_once_more(
    app: Flask, sent: bool
) -> None:
    """Staff have to send evidence once more, by another date; the supporter was told that no money has moved. Whoever
    had not been told of the question yet hears of the money alone."""
    owed("charged")
    made = db.session.scalars(sa.select(Pledge)).one()
    the_bank("open", made, held=False)
    keep()
    if sent:
        send_letters()
    for _ in range(2):
        the_bank("open", db.session.scalars(sa.select(Pledge)).one(), due_by=DEADLINE + dt.timedelta(days=9))
        keep()
    send_letters()
    for kind in DISPUTE_LETTERS["open"]:
        asked, taken = db.session.scalars(sa.select(Letter).where(Letter.kind == kind).order_by(Letter.id))
        assert (asked.trouble, taken.trouble) == ("" if sent else "not sent: overtaken by events", "")
        says = body(letters.write(taken))
        assert "The money is held until" in says
        assert ("Send the evidence at Stripe by Monday 9 November 2026" in says) == (kind == "disputed")


def test_an_update_that_waited_is_not_sent_to_whoever_has_said_no_more_since(app: Flask) -> None:
    letter = owed("update")
    assert letters.is_true(letter)
    db.session.scalars(sa.select(Pledge)).one().unsubscribe(now())
    assert not letters.is_true(letter)


def test_a_soft_refusal_says_when_the_card_is_tried_again(app: Flask) -> None:
    letter = owed("declined")
    made = db.session.scalars(sa.select(Pledge)).one()
    made.refused_softly = True
    words = body(letters.write(letter))
    assert "We will try this card again on Monday 2 November 2026, 8:00pm GMT. If it is not paid by" in words
    assert "or ask us to stop trying" in words


def test_below_the_target_the_first_letter_repeats_the_promise_word_for_word(app: Flask) -> None:
    case = a_case(target=600_000)
    case.round.deadline = dt.datetime(2022, 10, 9, 1, 0, tzinfo=dt.UTC)
    confirm(a_pledge(case.round, as_of=case.round.deadline), case.round.deadline)
    letter = db.session.scalars(sa.select(Letter)).one()
    assert (
        "Your card is charged only if pledges reach £6,000 by Sunday 9 October 2022, 2:00am BST. "
        "If they do not, you pay nothing. You can cancel until then."
    ) in body(letters.write(letter))


@pytest.mark.parametrize("kind", ["confirmed", "declined", "action_required", "charged"])
def test_the_private_link_of_a_letter_opens_the_private_page(app: Flask, client: FlaskClient, kind: str) -> None:
    letter = owed(kind)
    link = next(line for line in body(letters.write(letter)).splitlines() if "/pledges/" in line)
    keep()
    assert client.get(link).status_code == 200


def test_words_of_people_stand_in_a_letter_as_they_typed_them(app: Flask) -> None:
    case = a_case(title="Smith & Sons <Data> “v” DfE")
    pledge = confirm(a_pledge(case.round, name="Zoë O’Neil & Sons"))
    message = letters.write(db.session.scalars(sa.select(Letter)).one())
    assert "Smith & Sons <Data> “v” DfE" in body(message)
    assert message["To"].addresses[0].display_name == "Zoë O’Neil & Sons"
    assert message["To"].addresses[0].addr_spec == pledge.email


# --- In the language of the reader -------------------------------------------------------------------------


def test_each_supporter_reads_the_language_in_which_the_pledge_was_made(app: Flask, client: FlaskClient) -> None:
    """One round, told to both at once; dates and money are written as each of them writes them."""
    case = a_case(title="A case about data", target=600_000)
    case.round.deadline = DEADLINE
    for email, language in (("eve@letters.example.org", "fr"), ("ada@letters.example.org", "en-GB")):
        made = a_pledge(case.round, 2_550, email=email, as_of=DEADLINE - HOUR, language=language)
        confirm(made, DEADLINE - HOUR)
    case.round.close(DEADLINE + SECOND)
    case.round.settle(DEADLINE + SECOND)
    (_, counts), (_, missed) = letters_to("eve@letters.example.org")
    assert "Votre engagement de 25,50\xa0£ pour\n\n    A case about data\n\nest pris en compte." in counts
    assert "6\u202f000\xa0£" in counts and "samedi 31 octobre 2026" in counts and "20:00 GMT" in counts
    assert "Cette affaire n’a pas atteint son objectif. 51\xa0£ ont été promis sur 6\u202f000\xa0£." in missed
    (_, counts_in_english), (_, missed_in_english) = letters_to("ada@letters.example.org")
    assert "by Saturday 31 October 2026, 8:00pm GMT" in counts_in_english
    assert missed_in_english.startswith("This case did not reach its target. £51 of £6,000 was pledged.")
    link = next(line for line in counts.splitlines() if "/pledges/" in line)
    assert link.startswith("http://127.0.0.1:8000/fr/pledges/")
    page = client.get(link)
    assert page.status_code == 200 and '<html lang="fr">' in page.text


def test_what_is_asked_for_on_a_page_in_french_is_answered_in_french(app: Flask, client: FlaskClient) -> None:
    case = a_case(slug="whose-data")
    reader = "reader@letters.example.org"
    confirm(a_pledge(case.round, email=reader))
    a_user("owner", email="owner@letters.example.org")
    keep()
    for place in ("/fr", ""):
        client.post(f"{place}/pledges/find", data={"email": reader})
        client.post(f"{place}/forgotten-password", data={"email": "owner@letters.example.org"})
        said = {"body": f"Heard, hear{place}!", "email": f"commenter{place[1:]}@letters.example.org"}
        client.post(f"{place}/cases/whose-data/comments", data=said)
        look_anew()
        # Asked again within some minutes, the links are one letter.
        db.session.execute(sa.update(LinkRequest).values(asked_at=now() - HOUR))
        keep()
    owed_in = sa.select(Letter.kind, Letter.language).where(Letter.kind != "confirmed").order_by(Letter.id)
    assert [tuple(row) for row in db.session.execute(owed_in)] == [
        ("links", "fr"), ("password_reset", "fr"), ("comment_taken", "fr"),
        ("links", "en-GB"), ("password_reset", "en-GB"), ("comment_taken", "en-GB"),
    ]  # fmt: skip
    # What a moderator decides later, in whichever language, is told in the one in which the comment was written.
    moderator = a_user("moderator")
    for comment in db.session.scalars(sa.select(Comment).order_by(Comment.id)).all():
        comment.reject("off_topic", moderator, now(), comment.version)
    rejected = owed_in.where(Letter.kind == "comment_rejected")
    assert [language for _, language in db.session.execute(rejected)] == ["fr", "en-GB"]


# --- Headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\r\n "])
def test_no_name_and_no_title_can_add_a_header_or_a_recipient(app: Flask, line_end: str) -> None:
    evil = f"Ada{line_end}Bcc: everybody@example.org{line_end}{line_end}Buy this"
    case = a_case(title=evil, owner=a_user(name=evil))
    confirm(a_pledge(case.round, name=evil, wants_updates=True))
    case.publish_update(case.owner, evil, evil, now())
    case.cancel(evil, "operator", now())
    written = db.session.scalars(sa.select(Letter))
    for letter in written:
        sent = message_from_bytes(bytes(letters.write(letter)), policy=policy.default)
        wanted = {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "MIME-Version"}
        assert {*sent.keys()} - {"List-Unsubscribe", "Content-Transfer-Encoding"} == wanted
        assert len(sent["To"].addresses) == 1 and not sent.defects


def test_an_address_that_would_be_two_is_refused(app: Flask) -> None:
    confirm(a_pledge(a_case().round, email="a@example.org\r\nBcc: b@example.org"))
    with pytest.raises(ValueError, match="CR or LF"):
        letters.write(db.session.scalars(sa.select(Letter)).one())


@pytest.mark.parametrize(
    ("typed", "accepted"),
    [("ada@example.org", True), ("jo@bücher.example.org", True), ("jürgen@example.org", False), ("ada@", False)],
)
def test_the_form_refuses_an_address_that_no_letter_can_reach(typed: str, accepted: bool) -> None:
    form = CommentForm(MultiDict({"email": typed}))
    form.validate()
    assert bool(form.email.errors) is not accepted


def test_a_domain_with_accents_goes_out_in_its_ascii_form(app: Flask) -> None:
    """The form of today: the one of 2003 would send a letter for straße to strasse, which is somebody else's."""
    confirm(a_pledge(a_case().round, email="jo@straße.example.org"))
    message = letters.write(db.session.scalars(sa.select(Letter)).one())
    assert message["To"].addresses[0].addr_spec == "jo@xn--strae-oqa.example.org"
    assert bytes(message).isascii()


def test_the_same_letter_written_twice_has_the_same_number_and_date(app: Flask) -> None:
    letter = owed("confirmed")
    first, second = letters.write(letter), letters.write(letter)
    assert first["Message-ID"] == second["Message-ID"] == f"<{letter.message_id}@127.0.0.1>"
    assert bytes(first) == bytes(second)


def test_only_an_update_can_be_unsubscribed_from_and_its_link_is_no_private_link(
    app: Flask, client: FlaskClient
) -> None:
    letter = owed("update")
    address = str(letters.write(letter)["List-Unsubscribe"]).strip("<>")
    assert address in body(letters.write(letter))
    link = address.split("/")[-2]
    assert Pledge.by_link(link) is None and Pledge.by_link(link, "unsubscribe")
    assert letters.write(db.session.scalars(sa.select(Letter).where(Letter.kind == "confirmed")).one())[
        "List-Unsubscribe"
    ] is None  # fmt: skip


def test_over_https_a_mail_program_can_unsubscribe_by_itself(app: Flask, tmp_path: Path) -> None:
    """RFC 8058: it posts one field, with no cookie, no origin and no form of ours."""
    letter_id = owed("update").id
    keep()
    site = application.create_app({
        "environment": "test", "site_url": "https://standing.example", "mail_url": f"file:{tmp_path}",
        "database_url": app.config["SQLALCHEMY_DATABASE_URI"], "redis_url": f"unix://{tmp_path / 'nobody.sock'}",
    })  # fmt: skip
    with site.app_context():
        message = letters.write(db.session.get_one(Letter, letter_id))
        db.session.remove()
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    address = str(message["List-Unsubscribe"]).strip("<>")
    answer = site.test_client().post(address, data={"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 200
    keep()
    assert not db.session.scalars(sa.select(Pledge)).one().wants_updates
    with site.app_context():
        db.engine.dispose()


def test_over_http_no_program_is_asked_to_post_a_link_in_the_clear(app: Flask) -> None:
    assert letters.write(owed("update"))["List-Unsubscribe-Post"] is None
