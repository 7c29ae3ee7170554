"""Every page in every state, made by the models' own verbs, for those who look at pages: axe, and people.

It hangs in a house without worker and sweep, so that nothing moves on by itself.
"""

import base64
import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import pyotp

from jobs import doctor
from models import (
    Breaker,
    CardsTried,
    Case,
    Day,
    Dispute,
    EmailChange,
    Examination,
    Invitation,
    Lease,
    Letter,
    PasswordReset,
    Pledge,
    Reconciliation,
    Round,
    SignUp,
    Source,
    User,
    begin_writing,
    db,
)
from payments import ChargeFound, DisputeFound, RefundFound
from pictures import Drawing
from tests.made import PASSWORD, a_case, a_draft, a_pledge, a_user, card_found, confirm, keep, now

MINUTE = dt.timedelta(minutes=1)
STORY = """## What is going on

A ministry collects what it need not know, and *keeps it for 66 years*. We ask a court whether it may.

> You may not collect first and ask later, say [the rules](https://example.org/rules).

### What the money pays for

1. A letter before claim
2. The claim itself

| step | cost |
|---|---|
| letter | £2,000 |
| claim | £4,000 |

`Reference: 2022/EWHC/1234`, and a word as long as a road:
Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft."""
# One grey point as PNG, which any window stretches.
PICTURE = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
# What became of drafts.
DRAFTED = ("drafted", "sent", "sent-back", "approved", "rejected")
LONG_TITLE = (
    "Verhältnismäßigkeitsgrundsatzverletzungsbeschwerdeverfahren, and the right of children to be let alone by it"
)


@dataclass(frozen=True)
class Shown:
    """One page in one state: who looks ("" is anybody), where, what is typed there, and which button is pressed."""

    name: str
    address: str
    who: str = ""
    press: str = ""
    typed: dict[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass
class Gallery:
    """The pages of each room, and the e-mail addresses with which some of them are seen."""

    rooms: dict[str, list[Shown]]
    people: dict[str, str]


def hang() -> Gallery:
    """Make everything that the pages show, and say where each page is."""
    owner, moderator, newcomer = a_user("owner", name="Defend Digital Me"), a_user("moderator"), a_user("owner")
    staff, another = a_user("staff"), a_user("moderator", name="Another Moderator")
    people = {"owner": owner.email, "moderator": moderator.email, "newcomer": newcomer.email, "staff": staff.email}
    _cases(owner)
    begin_writing()
    owner, moderator, staff = (db.session.merge(person) for person in (owner, moderator, staff))
    _talk(_case("live"), owner, moderator)
    _look_back(_case("moving"))
    _end("funded", paused_by=staff)
    _end("missed")
    _end("reported")
    (paid,) = _round("reported").pledges("due")
    paid.claim(now(), MINUTE)
    paid.apply_charge(ChargeFound("succeeded", f"pi_{paid.id}", f"ch_{paid.id}", 2_500), now(), asked=True)
    _end("closing", decided=False)
    _end("waiting-for-stripe", decided=False)
    _round("waiting-for-stripe").trouble = "Stripe does not answer."
    _case("noticed").show_as("notice", "A court has asked us.\n\nWe obey.", "An order.", staff, now())
    _case("noticed").switch("comments_locked", True, "The trial begins.", staff, now())
    _case("cancelled").cancel("Its owner took it back.", "test", now())
    private_pages = [*_pledges_of_an_open_round(), *_released_pledges(), *_charged_pledges()]
    after_the_charge, staff_pages = _money_back(staff)
    while_tried, tried_cards = _tried_cards()
    edited = _case("live").updates[0].id
    updates = _updates(owner)
    departure, promises = _promises(owner, staff)
    workshop, reviews = _drafts(owner, staff)
    comments = _comments(moderator, another)
    users = _users(staff, another)
    keep()
    rooms = {
        "readers": [*_public_pages(owner), *comments, *_account_pages()],
        "supporters": [*_pledge_forms(), *private_pages, *while_tried, *departure, *after_the_charge],
        "desks": [*_desks(edited), *workshop, *updates],
        "staff": [*staff_pages, *tried_cards, *reviews, *promises, *users],
    }  # fmt: skip
    return Gallery(rooms, people)


def _cases(owner: User) -> None:
    for state in DRAFTED:
        a_draft(owner, title=f"A case that is {state}", slug=f"is-{state}")
    a_case(slug="live", title="Challenging a collection of children's data", pledged=[9_500], story=STORY, owner=owner)
    a_case(slug="empty", title="Nobody has pledged yet", owner=owner)
    a_case(slug="last-hour", title="The last half hour", pledged=[9_500], ends_in=29 * MINUTE, owner=owner)
    a_case(slug="moving", title="A case with an outlook", pledged=[9_500, 25_000], owner=owner)
    a_case(slug="over", title="More than was asked for", target=50_000, pledged=[40_000, 20_000])
    a_case(slug="long", title=LONG_TITLE, target=100_000_000, pledged=[500])
    a_case(slug="reported", title="A case that is over", target=2_500, pledged=[2_500], owner=owner)
    a_case(slug="missed", title="A case that was missed", target=600_000, pledged=[9_500, 2_500])
    a_case(slug="noticed", title="A case under a notice", owner=owner)
    for slug in ("tried", "resting"):
        a_case(slug=slug, title=f"A case on which cards are {slug}", owner=owner)
    for slug in ("closing", "waiting-for-stripe", "cancelled"):
        a_case(slug=slug, title=f"A case that is {slug}", pledged=[9_500])
    a_case(slug="funded", title="A case that was funded", target=2_500, pledged=[2_500] * 6, owner=owner)
    a_case(slug="paid", title="A case whose cards were charged", target=2_500, pledged=[2_500] * 6)


def _case(slug: str) -> Case:
    return db.session.query(Case).filter_by(slug=slug).one()


def _look_back(case: Case) -> None:
    """It has been live for ten days, and its pledges came on the fourth."""
    case.live_at = now() - 10 * 24 * 60 * MINUTE
    Day.of(case.round)[0].day -= dt.timedelta(days=6)
    Source.count(case.round, "via:a-label-that-is-as-long-as-can", "opened", now())


def _round(slug: str) -> Round:
    return Round.hold(_case(slug).round.id)


def _end(slug: str, decided: bool = True, paused_by: User | None = None) -> None:
    """Let its deadline pass; one more card is saved too late. A pause of pledging stands until it is ended."""
    its_round = _round(slug)
    late = a_pledge(its_round) if decided else None
    if paused_by:
        its_round.case.switch("pledging_paused", True, "We look into a complaint.", paused_by, now())
    its_round.move_deadline(now() - MINUTE, "test", now())
    its_round.close(now())
    if late:
        late.apply_card(card_found(late), now())
    if decided:
        its_round.settle(now())


def _talk(case: Case, owner: User, moderator: User) -> None:
    """Updates, one of them edited; comments that are public, rejected and waiting."""
    case.publish_update(owner, "A hearing is listed", "The judge hears us on **Monday**.\n\n- bring a friend", now())
    case.updates[0].edit("A hearing is listed", "The judge hears us on **Tuesday**.", owner, now())
    for number, words in enumerate(("I stand with you.", "Buy my pills.", "What of https://example.org/reasons ?")):
        comment = case.take_comment("" if number else "Ben Field", "ben@example.org", words, now())
        if number == 0:
            comment.approve(moderator, now())
        elif number == 1:
            comment.reject("spam", moderator, now())


def _comments(moderator: User, another: User) -> list[Shown]:
    """A comment in each state, as its author sees it; the page to report one, and what moderators know of one."""
    case, shown = _case("live"), []
    for state in ("pending", "approved", "changed", "rejected", "rejected again", "spam", "withdrawn"):
        comment = case.take_comment(f"Author of {state}", "talker@example.org", f"Words that are {state}.", now())
        if state in ("approved", "changed"):
            comment.approve(moderator, now())
        if state == "changed":
            comment.edit(
                "Words that were changed, see https://example.org/a-long-road/without-an-end/" + "x" * 60, now()
            )
        for text in {"rejected": ("",), "rejected again": ("", "Other words.")}.get(state, ()):
            if text:
                comment.edit(text, now())
            comment.reject("contempt", moderator, now(), note="The hearing is on Monday.")
        if state == "spam":
            comment.reject("spam", moderator, now())
        elif state == "withdrawn":
            comment.withdraw(now())
        shown.append(Shown(f"own comment {state}", f"/comments/{comment.link()}"))
        if state == "approved":
            comment.report("untrue", "It was in May, and not in June.", "network", now())
            where = f"/comments/{comment.id}/report"
            shown += [
                Shown("report", where),
                Shown("report wrong", where, press="Send the report"),
                Shown("report sent", "/cases/live/comments/reported"),
            ]
        elif state == "pending":
            comment.claim(db.session.merge(another), now())
            shown += [
                Shown(
                    "own comment wrong",
                    f"/comments/{comment.link()}",
                    press="Save the change",
                    typed={"Your comment": ""},
                ),
            ]
    twice = [case.take_comment(f"Seller {n}", f"s{n}@example.org", "Buy my pills now", now() - 26 * 60 * MINUTE)
             for n in range(2)]  # fmt: skip
    assert twice[1].signs == ["repeated"]
    return [*shown, Shown("own comment, wrong link", "/comments/x.y", status=404)]


def _public_pages(owner: User) -> list[Shown]:
    slugs = "live empty last-hour over long closing waiting-for-stripe funded missed cancelled".split()
    said = {"Your e-mail address": "ben@example.org", "Your comment": "I stand with you.\n\nAs does everybody here."}
    return [
        Shown("home", "/"),
        Shown("home in vain", "/?q=nobody-brings-such-a-case"),
        Shown("topic", "/topics/privacy"),
        Shown("owner's cases", f"/owners/{owner.id}"),
        Shown("case under a notice", "/cases/noticed"),
        *(Shown(f"case {slug}", f"/cases/{slug}") for slug in slugs),
        Shown("total by itself", "/cases/live/pledge-total"),
        Shown("comments by themselves", "/cases/live/comments"),
        Shown("how it works", "/how-it-works"),
        Shown("accessibility", "/accessibility"),
        Shown("privacy", "/privacy"),
        Shown("poster", "/cases/live/poster"),
        Shown("frame for other sites", "/cases/live/embed"),
        Shown("frame of a case that was missed", "/cases/missed/embed"),
        Shown("comment wrong", "/cases/empty", press="Send comment"),
        Shown("comment decisions", "/comments/decisions"),
        Shown("comment sent", "/cases/empty", press="Send comment", typed=said),
        Shown("no such page", "/nowhere", status=404),
        Shown("wrong method", "/logout", status=405),
        Shown("log in", "/login"),
        Shown("log in wrong", "/login", press="Log in"),
        Shown("log in refused", "/login", press="Log in", typed={"E-mail address": "a@example.org", "Password": "no"}),
    ]


def _pledge_forms() -> list[Shown]:
    return [
        Shown("pledge form", "/cases/live/pledge"),
        Shown("pledge form wrong", "/cases/live/pledge", press="Continue to Stripe"),
        Shown("pledge form of the last half hour", "/cases/last-hour/pledge"),
        Shown("pledge form of a closed case", "/cases/funded/pledge", status=409),
    ]


def _pledges_of_an_open_round() -> list[Shown]:
    its_round = _round("live")
    started, cancelled, abandoned = a_pledge(its_round), confirm(a_pledge(its_round)), a_pledge(its_round)
    cancelled.cancel(now())
    cancelled.card_removed()
    abandoned.apply_card(card_found(abandoned, expired=True), now())
    reader = confirm(a_pledge(its_round, wants_updates=True, email="a.very.long.address@department.university.example"))
    unsubscription = f"/pledges/{reader.link('unsubscribe')}/unsubscription"
    raised = confirm(a_pledge(its_round))
    raised.change_amount(4_000, now())
    raised.ask_card_page({"made": "for the gallery"}, its_round.deadline)
    raised.ask_other_address("another@department.university.example", now())
    to_come = a_pledge(its_round)
    to_come.ask_card_page({"made": "for the gallery"}, its_round.deadline)
    # The clock has a day's time, so that it is still as it was when it is looked at.
    to_come.leave_card_page_to_clock(now() + dt.timedelta(days=1))
    return [
        _private("started", started),
        _private("being checked", started, path="?stripe=asked"),
        _private("while Stripe is away", started, path="?stripe=away"),
        _private("whose card page is to come", to_come),
        _private("while too many save a card", reader, path="?stripe=busy"),
        _private("of the last half hour", a_pledge(_round("last-hour"))),
        _private("left too long", abandoned),
        _private("confirmed", reader),
        _private("cancelled", cancelled),
        _private("cancelled now", confirm(a_pledge(its_round)), press="Cancel my pledge"),
        _private("with another amount", started, path="/amount"),
        _private("with another amount, wrong", started, path="/amount", press="Continue to Stripe"),
        _private("to be raised, with another address asked for", raised),
        _private("counted, with another amount", reader, path="/amount"),
        _private("counted, with another amount, wrong", reader, path="/amount?amount=4.99", status=422),
        _private("counted, to be lowered", reader, path="/amount?amount=12.50"),
        _private("counted, to be raised", reader, path="/amount?amount=40"),
        _private("counted, to be raised, wrong", reader, path="/amount?amount=40", press="Continue to Stripe"),
        _private("with another name", reader, path="/name"),
        _private("with another name, wrong", reader, path="/name", press="Save", typed={"Your name": ""}),
        _private("to be erased", reader, path="/erasure"),
        _private("with another address", reader, path="/address"),
        _private("with another address, wrong", reader, path="/address", press="Send the letter"),
        _private("with updates stopped now", reader, press="Stop them"),
        _private("with a link that is dead", reader, path="x", status=404),
        *_addresses(its_round),
        Shown("find", "/pledges/find"),
        Shown("find wrong", "/pledges/find", press="Send me my links"),
        Shown("links sent", "/pledges/find/sent"),
        Shown("unsubscribe", unsubscription),
        Shown("unsubscribed", unsubscription, press="Stop the updates"),
    ]


def _addresses(its_round: Round) -> list[Shown]:
    """The pages that letters about another address lead to."""
    moved = confirm(a_pledge(its_round, email="ada@wrong.example"))
    made = moved.ask_other_address("ada@right.example", now())
    made.make(now())
    asked = moved.ask_other_address("ada@department.university.example", now())
    return [
        Shown("new address", f"/pledges/new-address/{asked.link('new-address')}"),
        Shown("old address", f"/pledges/old-address/{made.link('old-address')}"),
        Shown("new address that is used already", f"/pledges/new-address/{made.link('new-address')}", status=409),
    ]


def _released_pledges() -> list[Shown]:
    removed, kept, late = _round("missed").pledges("released")
    removed.card_removed()
    return [
        _private("of a missed case", removed),
        _private("of a missed case, card still saved", kept),
        _private("saved too late", late),
        _private("of a cancelled case", _round("cancelled").pledges("released")[0]),
        _private("of a closing case", _round("closing").pledges("confirmed")[0]),
    ]


def _charged_pledges() -> list[Shown]:
    """One for each thing that a bank can say."""
    due, *asked = _round("funded").pledges("due")
    for pledge, outcome in zip(asked, ("succeeded", "declined", "action_required", "unknown", "declined"), strict=True):
        pledge.claim(now(), MINUTE)
        pledge.apply_charge(ChargeFound(outcome, f"pi_{pledge.id}", f"ch_{pledge.id}", 2_500), now(), asked=True)
    asked[-1].drop(now())
    charged = [_private(pledge.status.replace("_", " "), pledge) for pledge in (due, *asked)]
    paid = asked[0]
    return [
        *charged,
        _private("that cannot be erased yet", due, path="/erasure"),
        _private("that was charged, to be erased", paid, path="/erasure"),
    ]


def _money_back(staff: User) -> tuple[list[Shown], list[Shown]]:
    """What may follow a charge: money paid back, or asked back by a bank. The supporters' pages, and those of staff."""
    _end("paid")
    parted, whole, disputed, lost, failed, soft = _round("paid").pledges("due")
    for pledge in (parted, whole, disputed, lost, failed):
        pledge.claim(now(), MINUTE)
        pledge.apply_charge(ChargeFound("succeeded", f"pi_{pledge.id}", f"ch_{pledge.id}", 2_500), now(), asked=True)
    soft.claim(now(), MINUTE)
    soft.apply_charge(ChargeFound("declined", f"pi_{soft.id}", f"ch_{soft.id}", soft=True), now(), asked=True)
    for pledge, pence, outcome in (
        (parted, 1_000, "succeeded"),
        (whole, 2_500, "succeeded"),
        (failed, 2_500, "failed"),
    ):
        refund = pledge.ask_refund(f"gallery-{pledge.id}-refund", pence, "They asked for it.", staff, now())
        code = "expired_or_canceled_card" if outcome == "failed" else ""
        found = RefundFound(outcome, f"re_{pledge.id}", f"pi_{pledge.id}", pence, code, refund.id)
        pledge.apply_refund(found, now())
    for pledge, outcome in ((disputed, "open"), (lost, "lost")):
        charge = (f"du_{pledge.id}", f"ch_{pledge.id}", f"pi_{pledge.id}", 2_500, "fraudulent")
        Dispute.apply(DisputeFound(*charge, outcome, True, now() + 7 * 24 * 60 * MINUTE, now()), pledge, now())
    _books(parted)
    states = {"refunded in part": parted, "refunded": whole, "disputed": disputed, "charged back": lost}
    private = [
        *(_private(state, pledge) for state, pledge in states.items()),
        _private("refused softly", soft),
        Shown("receipt", f"/pledges/{parted.link()}/receipt"),
    ]
    states |= {"with a failed refund": failed, "declined": soft}
    case, refunding = "/staff/cases/paid", f"/staff/pledges/{parted.public_id}"
    typed = {"Amount, in pounds": "5", "Reason, seen by staff only": "They asked."}
    running = _case("funded")
    running.switch("charges_frozen", True, "We look into a complaint.", staff, now())
    return private, [
        Shown("staff's desk", "/staff", "staff"),
        Shown("books", "/staff/books", "staff"),
        Shown("books summed up", "/staff/books", "staff", press="Sum up the books"),
        Shown("moderation log", "/staff/moderation", "staff"),
        Shown("staff's case", case, "staff"),
        Shown("staff's case frozen", "/staff/cases/funded", "staff"),
        Shown("staff's case under a notice", "/staff/cases/noticed", "staff"),
        Shown("notice without words", "/staff/cases/live", "staff", press="Put the notice in its place"),
        Shown("whole history", f"{case}/history", "staff"),
        Shown("search", f"/staff/search?q={parted.public_id}", "staff"),
        Shown("search in vain", "/staff/search?q=nobody", "staff"),
        Shown("looks", "/staff/looks", "staff"),
        Shown("staff's case open", "/staff/cases/live", "staff"),
        Shown("staff's case missed", "/staff/cases/missed", "staff"),
        Shown("switch without a reason", case, "staff", press="Freeze charges"),
        Shown("run", f"{case}/run", "staff"),
        Shown("run frozen", "/staff/cases/funded/run", "staff"),
        Shown("pledges", f"{case}/pledges", "staff"),
        Shown("pledges not found", f"{case}/pledges?q=nobody", "staff"),
        *(Shown(f"staff's pledge {state}", f"/staff/pledges/{it.public_id}", "staff") for state, it in states.items()),
        Shown("refund wrong", refunding, "staff", press="Refund"),
        Shown("refund asked", refunding, "staff", press="Refund", typed=typed),
    ]


def _tried_cards() -> tuple[list[Shown], list[Shown]]:
    """While cards are tried out: who waits for a confirmed address, who is held, and what staff see of it."""
    seen, tried = CardsTried(21, 4, 130, 12), _round("tried")
    held, before = a_pledge(tried), a_pledge(tried)
    held._keep_card(card_found(held))
    held._hold_back("same_card", now())
    resting = _round("resting")
    begun, counts = a_pledge(resting), confirm(a_pledge(resting))
    Breaker.hold(tried.case_id, now())._go("asks", seen, now())
    for state in ("asks", "paused"):
        Breaker.hold(_case("resting").id, now())._go(state, seen, now())
    before.apply_card(card_found(before), now())
    waits = a_pledge(tried)
    waits.session_id = waits.session_url = waits.session_params = waits.session_expires_at = None
    room, let_count = "/staff/tried-cards", f"/staff/pledges/{held.public_id}"
    return [
        _private("waits for its address", waits),
        Shown("confirmation", f"/pledges/confirmation/{waits.link('confirmation')}"),
        _private("held", held),
        _private("held for its address", before),
        Shown("confirmation of a saved card", f"/pledges/confirmation/{before.link('confirmation')}"),
        Shown("pledging rests", "/cases/resting/pledge", status=409),
        _private("begun before pledging rests", begun),
        _private("that counts while pledging rests", counts),
    ], [
        Shown("tried cards", room, "staff"),
        Shown("tried cards wrong", room, "staff", press="End it now"),
        Shown("staff's pledge held", let_count, "staff"),
        Shown("held pledge wrong", let_count, "staff", press="Let it count"),
    ]


def _promises(owner: User, staff: User) -> tuple[list[Shown], list[Shown]]:
    """A request that waits, and a promise that was changed: the supporters' pages, and those of staff."""
    waits, made = _round("live"), _round("over")
    why = "The court has moved the hearing.\n\nWe need the money until then."
    asked = waits.ask_change(waits.deadline + 7 * 24 * 60 * MINUTE, waits.target_pence, why, owner, now())
    change = made.ask_change(made.deadline + 7 * 24 * 60 * MINUTE, 40_000, why, owner, now())
    change.consent(staff, now())
    counted = made.pledges("confirmed")[0]
    where = f"/staff/promise-changes/{asked.id}"
    return [
        _private("of a changed promise", counted),
        Shown("departure", f"/pledges/{counted.link('leave')}/departure"),
    ], [
        Shown("promise change", where, "staff"),
        Shown("promise change wrong", where, "staff", press="Refuse"),
        Shown("promise change agreed to", f"/staff/promise-changes/{change.id}", "staff"),
    ]  # fmt: skip


def _books(pledge: Pledge) -> None:
    """What the doctor and the reconciler found, and a letter that cannot be delivered."""
    sentence = f"Pledge {pledge.id} is charged, but Stripe has no payment pi_1234567890abcdefghijklmnopqrstuvwxyz."
    Examination.write([f"Pledge {pledge.id} says that 1000 pence were given back; the ledger says 0."], now())
    compared = Reconciliation.begin(now() - 72 * 60 * MINUTE, now(), now())
    compared.note(1_412, 3, [sentence])
    while compared.ended_at is None:
        compared.go_on(None, now(), now())
    Lease.take(doctor.LEASE, "clock", now(), 60 * MINUTE)
    refused = db.session.query(Letter).filter_by(kind="charged", subject=f"pledge:{pledge.id}").one()
    refused.tries = 4
    refused.try_again("SMTPRecipientsRefused: 550", now() + 7 * 24 * 60 * MINUTE)


def _drafts(owner: User, staff: User) -> tuple[list[Shown], list[Shown]]:
    """Cases that are not live yet: the pages of their owner and of the lawyer's link, and those of staff."""
    whole, sent, changes, approved, rejected = (_case(f"is-{state}") for state in DRAFTED)
    drawn = [Drawing(size, "image/png", side, side // 2, PICTURE) for size, side in (("large", 1_600), ("small", 480))]
    whole.hang_picture(drawn, "Three engineers look at the water above the weir.", now())
    for one in (sent, changes, approved, rejected):
        one.submit(owner, now())
    changes.ask_changes("Name the court.\n\nAnd the stage.", staff, now(), changes.review_mark)
    rejected.reject("This is not a legal case.", staff, now(), rejected.review_mark)
    approved.approve(staff, now(), approved.review_mark, now() + 24 * 60 * MINUTE)
    Case.draft(owner, "is-empty", "", "", "", "", now())
    own = "/owner/cases"
    wrong = {"Target, in pounds": "0", "Cost, in pounds, line 1": "lots", "Time zone": "Atlantis"}
    return [
        Shown("new case", f"{own}/new", "owner"),
        Shown("new case wrong", f"{own}/new", "owner", press="Begin the draft"),
        Shown("draft", f"{own}/is-drafted/draft", "owner"),
        Shown("draft wrong", f"{own}/is-drafted/draft", "owner", press="Save draft", typed=wrong),
        Shown("draft empty", f"{own}/is-empty/draft", "owner"),
        *(Shown(f"draft {state}", f"{own}/is-{state}/draft", "owner") for state in ("sent", "sent-back", "approved",
                                                                                   "rejected")),
        Shown("preview", f"{own}/is-drafted/preview", "owner"),
        Shown("preview empty", f"{own}/is-empty/preview", "owner"),
        Shown("launch", f"{own}/is-drafted/launch", "owner"),
        Shown("launch empty", f"{own}/is-empty/launch", "owner"),
        Shown("launch sent", f"{own}/is-sent/launch", "owner"),
        Shown("picture", f"{own}/is-drafted/picture", "owner"),
        Shown("draft to delete", f"{own}/is-drafted/deletion", "owner"),
        Shown("draft that cannot be deleted", f"{own}/is-sent/deletion", "owner"),
        Shown("picture wrong", f"{own}/is-empty/picture", "owner", press="Save the picture"),
        Shown("lawyer's link", f"/drafts/{whole.preview_link()}"),
    ], [
        Shown("review", "/staff/reviews/is-sent", "staff"),
        Shown("review wrong", "/staff/reviews/is-sent", "staff", press="Ask for changes"),
        Shown("review approved", "/staff/reviews/is-approved", "staff"),
        Shown("review preview", "/staff/reviews/is-sent/preview", "staff"),
    ]  # fmt: skip


def _account_pages() -> list[Shown]:
    """How people get an account, and get back into it. The links are those of rows that the gallery has made."""
    email, movers = a_user("moderator", name="Forgetful").email, [a_user(), a_user()]
    begin_writing()
    signed_up = SignUp.ask("river@example.org", "River Watch", "no password has this hash", now())
    invited = Invitation.send("a.very.long.address@department.university.example", "moderator", None, now())
    forgotten = PasswordReset.ask(email, now())
    asked, made = (
        EmailChange.ask(db.session.merge(person), f"moved-{person.id}@example.org", now()) for person in movers
    )
    made.make(now())
    joining, again = f"/invitations/{invited.link()}", f"/password-resets/{forgotten.link()}"
    keep()
    return [
        Shown("sign up", "/sign-up"),
        Shown("sign up wrong", "/sign-up", press="Sign up"),
        Shown("signed up", "/sign-up/sent"),
        Shown("address to confirm", f"/sign-up/{signed_up.link()}"),
        Shown("address to confirm, wrong", f"/sign-up/{signed_up.link()}", press="Open my account"),
        Shown("invitation", joining),
        Shown("invitation wrong", joining, press="Join", typed={"Password": "too short"}),
        Shown("forgotten password", "/forgotten-password"),
        Shown("forgotten password wrong", "/forgotten-password", press="Send me a link"),
        Shown("forgotten password sent", "/forgotten-password/sent"),
        Shown("password to set", again),
        Shown("password to set, wrong", again, press="Set this password", typed={"New password": "too short"}),
        Shown("password set", "/password-resets/done"),
        Shown("address to use", f"/email-changes/{asked.link('new-email')}"),
        Shown("address changed", "/email-changes/done"),
        Shown("address to take back", f"/email-changes/back/{made.link('old-email')}"),
        Shown("address taken back", "/email-changes/back/done"),
        Shown("link that works no more", "/invitations/x.y", status=404),
        *_second_factor(),
    ]


def _second_factor() -> list[Shown]:
    """Somebody logs in with it, and is logged in from then on: these come last in their room."""
    begin_writing()
    person = db.session.merge(a_user("owner", name="Two Steps"))
    begin_writing()
    secret = pyotp.random_base32()
    first, second, *_ = person.set_second_factor(secret, pyotp.TOTP(secret).now(), now())
    log_in = {"E-mail address": person.email, "Password": PASSWORD}
    keep()
    code, again = "/login/second-factor", "/account/second-factor"
    proof = {"Password": PASSWORD, "Or a recovery code": second}
    return [
        Shown("second factor asked for", "/login", press="Log in", typed=log_in),
        Shown("second factor wrong", code, press="Log in"),
        Shown("second factor taken", code, press="Log in", typed={"Or a recovery code": first}),
        Shown("account", "/account"),
        Shown("account wrong", "/account", press="Make new recovery codes"),
        Shown("account to erase", "/account/erasure"),
        Shown("account to erase, wrong", "/account/erasure", press="Erase my account"),
        Shown("another second factor", again),
        Shown("another second factor, wrong", again, press="Set it up"),
        Shown("recovery codes", "/account", press="Make new recovery codes", typed=proof),
    ]


def _users(staff: User, another: User) -> list[Shown]:
    """The users as staff see them: somebody who may log in and somebody who may not, and invitations in each state."""
    gone = db.session.merge(another)
    gone.disable("They have left, and nobody knows where to.", staff, now())
    for name in ("waiting", "taken-back", "run-out"):
        invited = Invitation.send(f"{name}.with.a.long.name@department.university.example", "owner", staff, now())
        if name == "taken-back":
            invited.take_back(f"user:{staff.id}", now())
        elif name == "run-out":
            invited.invited_at = now() - 8 * 24 * 60 * MINUTE
    gone.second_factor_at = now()
    where = f"/staff/users/{gone.id}"
    return [
        Shown("users", "/staff/users", "staff"),
        Shown("users not found", "/staff/users?q=nobody-has-this-name", "staff"),
        Shown("user to invite, wrong", "/staff/users", "staff", press="Send the invitation"),
        Shown("user disabled", where, "staff"),
        Shown("user, role without a reason", where, "staff", press="Change the role"),
        Shown("user, enabled without a reason", where, "staff", press="Let them log in again"),
        Shown("user, second factor without a reason", where, "staff", press="Reset the second factor"),
        Shown("user oneself", f"/staff/users/{staff.id}", "staff"),
    ]


def _updates(owner: User) -> list[Shown]:
    """Updates in each state, what supporters wrote, and comments that are answered or to be looked at again."""
    case, own = _case("live"), "/owner/cases/live"
    drawn = [Drawing(size, "image/png", side, side // 2, PICTURE) for size, side in (("large", 1_600), ("small", 480))]
    draft, waits, shown = (case.begin_update(owner, f"gallery-form-key-number-{n}", now()) for n in range(3))
    for one in (draft, waits, shown):
        one.write({"title": "We meet on Monday", "body": "In the **old hall**.", "audience": "supporters"}, 0, now())
        one.hang_picture(drawn, "The old hall, with its doors open.", owner, now())
    waits.publish_later(now() + 24 * 60 * MINUTE, owner, now())
    shown.publish("test", now())
    its_round = _round("live")
    wrote, said = a_pledge(its_round), a_pledge(its_round)
    wrote.say("I was a pupil there.\n\nKeep going.", public=False)
    said.say("Good luck to us all.", public=True)
    for pledge in (wrote, said):
        confirm(pledge)
    answered = case.answerable_comments()[0]
    answered.answer_by(owner, "Thank you. We shall.", now())
    answered.ask_second_look(owner, "The second sentence names a pupil.", now())
    db.session.flush()
    return [
        Shown("update draft", f"{own}/updates/{draft.id}", "owner"),
        Shown("update draft to delete", f"{own}/updates/{draft.id}/deletion", "owner"),
        Shown("update to look at", f"{own}/updates/{draft.id}/look", "owner"),
        Shown("update at no time", f"{own}/updates/{draft.id}/look", "owner", press="Publish at this time"),
        Shown("update that waits", f"{own}/updates/{waits.id}", "owner"),
        Shown("update's picture", f"{own}/updates/{draft.id}/picture", "owner"),
        Shown("update's picture wrong", f"{own}/updates/{draft.id}/picture", "owner", press="Save the picture",
              typed={"What the picture shows": ""}),
        Shown("messages", f"{own}/messages", "owner"),
        Shown("own case's comments", f"{own}/comments", "owner"),
        Shown("supporter's updates", f"/pledges/{wrote.link()}/updates"),
        _private("with a message", wrote),
        _private("with a public message", said),
    ]  # fmt: skip


def _private(state: str, pledge: Pledge, path: str = "", **shown: Any) -> Shown:
    return Shown(f"pledge {state}", f"/pledges/{pledge.link()}{path}", **shown)


def _desks(edited: int) -> list[Shown]:
    news = {
        "Title": "A hearing is listed",
        "Your update": "## When\n\nOn **Monday**, at [the court](https://example.org).",
    }
    new = "/owner/cases/live/updates/new"
    told = {
        "What became of the case": "## We won\n\nThe *regulations* were quashed.",
        "What for, line 1": "The claim", "Cost, in pounds, line 1": "2,000",
    }  # fmt: skip
    look = "Save, and look before it goes out"
    return [
        Shown("queue", "/moderation", "moderator"),
        Shown("queue by risk", "/moderation?order=risk&flagged=signs", "moderator"),
        Shown("queue of nothing", "/moderation?case=nowhere", "moderator"),
        Shown("queue wrong", "/moderation", "moderator", press="Reject"),
        Shown("answers", "/moderation/answers", "moderator"),
        Shown("decided", "/moderation/decided", "moderator"),
        Shown("not your page", "/owner", "moderator", status=403),
        Shown("desk", "/owner", "owner"),
        Shown("desk without a case", "/owner", "newcomer"),
        Shown("account that cannot be erased", "/account/erasure", "owner"),
        Shown("account without a second factor", "/account", "owner"),
        Shown("password to change", "/account/password", "owner"),
        Shown("password to change, wrong", "/account/password", "owner", press="Change the password"),
        Shown("address to change", "/account/email", "owner"),
        Shown("address to change, wrong", "/account/email", "owner", press="Write to the new address"),
        Shown("name to change", "/account/name", "owner"),
        Shown("name to change, wrong", "/account/name", "owner", press="Save", typed={"Your name": " "}),
        Shown("second factor to set up", "/account/second-factor", "owner"),
        Shown("second factor to set up, wrong", "/account/second-factor", "owner", press="Set it up"),
        Shown("own case", "/owner/cases/live", "owner"),
        Shown("people of a case", "/owner/cases/live/people", "owner"),
        Shown("people, nobody to ask", "/owner/cases/live/people", "owner", press="Send the invitation"),
        Shown("who did what", "/owner/cases/live/history", "owner"),
        Shown("own case without pledges", "/owner/cases/empty", "owner"),
        Shown("own case funded", "/owner/cases/funded", "owner"),
        Shown("report too early", "/owner/cases/live/report", "owner"),
        Shown("report wrong", "/owner/cases/reported/report", "owner", press="Publish the report"),
        Shown("report preview", "/owner/cases/reported/report", "owner", press="Preview", typed=told),
        Shown("report published", "/owner/cases/reported/report", "owner", press="Publish the report", typed=told),
        Shown("case closed", "/cases/reported"),
        Shown("home, to somebody logged in", "/", "owner"),
        Shown("case, to its owner", "/cases/live", "owner"),
        Shown("cancellation", "/owner/cases/empty/cancellation", "owner"),
        Shown("cancellation wrong", "/owner/cases/empty/cancellation", "owner", press="Cancel the case"),
        Shown("cancellation of a closed round", "/owner/cases/funded/cancellation", "owner"),
        Shown("promise", "/owner/cases/empty/promise", "owner"),
        Shown("promise wrong", "/owner/cases/empty/promise", "owner", press="Ask our staff"),
        Shown("promise asked for", "/owner/cases/live/promise", "owner"),
        Shown("promise of a closed round", "/owner/cases/funded/promise", "owner"),
        Shown("own case with an outlook", "/owner/cases/moving", "owner"),
        Shown("own case that has ended", "/owner/cases/funded", "owner"),
        Shown("figures by themselves", "/owner/cases/moving/figures", "owner"),
        Shown("own pledges", "/owner/cases/moving/pledges", "owner"),
        Shown("own pledges not found", "/owner/cases/moving/pledges?q=nobody", "owner"),
        Shown("update form", new, "owner"),
        Shown("update form wrong", new, "owner", press=look),
        Shown("update looked at", new, "owner", press=look, typed=news),
        Shown("update edited", f"/owner/cases/live/updates/{edited}", "owner"),
        Shown("update preview", f"/owner/cases/live/updates/{edited}", "owner", press="Preview", typed=news),
        Shown("queue decided", "/moderation", "moderator", press="Approve"),
        Shown("queue after a decision", "/moderation", "moderator"),
    ]
