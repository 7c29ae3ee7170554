"""The deadline capture: settle a round at its deadline, then charge or release every pledge of it.

    settle_round   closing -> open card pages resolved -> Round.settle -> charge_due | jobs.cards.let_go
    charge_due     claim due pledges, ask Stripe for each, write the answers down
    pay_again      charge one refused pledge at once, while its supporter waits

Each may be killed between any two lines and run again: what is about to be asked is committed before it is asked,
and asked again with the same key.
"""

import dataclasses
import datetime as dt
import math
import os
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import structlog

import config
import law
import payments
from jobs import OutOfTime, one_slice, ring
from jobs.charging import MOST_THREADS, Answered, NotBegun, PacedThreads
from jobs.stripe_events import card_page_of, with_saved_at
from models import ENGLISH, Case, ChargeAttempt, Lease, Letter, Pledge, Round, all_together, db

log = structlog.get_logger()

# While somebody holds this lease nobody else charges. Whoever charges renews it, and the claims of all that is under
# way, every BEAT seconds however slow Stripe is. Should two ever ask at once all the same, they send the same key, and
# Stripe answers the second with 409 or with the first one's result.
CAPTURE_LEASE = CLAIM_LEASE = dt.timedelta(seconds=10)
BEAT = 3.0
# A job charges for so long, so that other jobs get their turn. A little before its end it rings for the next one, which
# waits for the lease, awake, if there is a worker for it: no second is lost between them.
CHARGING_SLICE = 20.0
HEAD_START = 0.6
# So many are claimed, and so many answers written down, in one commit; a commit waits so many seconds for more. The
# last answers of a slice are written down together, so that whoever takes over has the database to himself at first.
BATCH = 100
FIRST_BATCH = 20
GATHER, LAST_GATHER = 0.05, 0.5
# So many seconds' worth is claimed ahead of the threads, so that none of them waits for a commit.
AHEAD = 2.0
# So often it is looked whether staff have frozen or cancelled a case some of whose charges are claimed already.
LOOK_FOR_STOPS = 0.25
# With nothing left to claim, but answers still to come, the table is looked at again after so many seconds.
LOOK_AGAIN = 0.5
# Whoever closes a round has it alone for this long, counted from the last card page that was resolved.
CLOSING_LEASE = dt.timedelta(seconds=30)
# While Stripe cannot be reached the round stays closing and is tried again this often.
CLOSING_PAUSE = dt.timedelta(seconds=10)
# When the key itself is refused nothing will work: wait for a person.
PAUSE_ALL = dt.timedelta(seconds=60)


# --- The decision ------------------------------------------------------------------------------------------


def settle_round(round_id: int) -> None:
    """Close a round whose deadline has passed, resolve what is open, decide it once. Safe to run twice."""
    its_round = Round.hold(round_id)
    if its_round.status == "open" and law.in_time(_now(), its_round.deadline):
        db.session.rollback()
        return
    its_round.close(_now())
    mine = its_round.claim_closing(_now(), CLOSING_LEASE)
    db.session.commit()
    if not mine or not _resolve_open_card_pages(round_id):
        return
    its_round = Round.hold(round_id)
    if its_round.unresolved():
        # Somebody took a card page up again at the last moment: look at it at once.
        _go_on_closing(round_id)
        return
    its_round.settle(_now())
    log.info("settled", round=round_id, status=its_round.status)
    db.session.commit()
    ring("charge_due")
    ring("let_go")
    ring("send_letters")


def _resolve_open_card_pages(round_id: int) -> bool:
    """Expire every card page that is still open, or find that it was completed. Returns whether all are.

    One that Stripe says nothing of does not keep the others open.
    """
    started = [pledge.id for pledge in db.session.get_one(Round, round_id).unresolved()]
    db.session.commit()
    unclear: tuple[int, payments.StripeTrouble] | None = None
    resolved = 0
    for pledge_id in one_slice(started):
        try:
            _resolve(pledge_id)
            resolved += 1
        except payments.StripeTrouble as trouble:
            unclear = unclear or (pledge_id, trouble)
    if unclear:
        _stay_closing(round_id, *unclear)
    elif resolved < len(started):
        _go_on_closing(round_id)
    return resolved == len(started)


def _go_on_closing(round_id: int) -> None:
    """This slice of time is over: the next one begins at once."""
    Round.hold(round_id).next_at = _now()
    db.session.commit()
    ring("settle_round", round_id)


def _resolve(pledge_id: int) -> None:
    """End one pledge's card page; the pledge is confirmed, released or abandoned after it."""
    key, session_id = card_page_of(pledge_id)
    found = payments.expire_card_page(session_id) if session_id else None
    if found is not None and not found.expired:
        found = with_saved_at(found, pledge_id)
    pledge = Pledge.hold(pledge_id)
    if found is not None:
        pledge.apply_card(found, _now())
    elif pledge.session_key == key:
        # No page was ever made for it, so no card can have been saved.
        pledge.card_page_never_made(_now())
    pledge.round.next_at = _now() + CLOSING_LEASE
    db.session.commit()


def _stay_closing(round_id: int, pledge_id: int, trouble: payments.StripeTrouble) -> None:
    """The decision waits for Stripe; after ten minutes without a complete card's event people are told."""
    its_round = Round.hold(round_id)
    its_round.next_at, its_round.trouble = _now() + CLOSING_PAUSE, str(trouble)[:200]
    log.warning("a round stays closing", round=round_id, pledge=pledge_id, why=type(trouble).__name__)
    if its_round.closing_at and _now() - its_round.closing_at > law.EVENT_SEARCH:
        Letter.owe("stays_closing", its_round, "closing", _now(), language=ENGLISH)
    db.session.commit()


# --- The charges -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asking:
    """One charge about to be asked for; `asked_at` is when its key was first sent, as far as our rows know.

    `number` is that of the attempt: an answer may come so late that the next one is under way.
    `since` is when it may have been sent first: our rows may be those of a backup that was restored, and know less
    than Stripe. With `payment_intent_id` that payment is tried again instead of a new one being made;
    `earlier_charges` are what the attempts before have left on it.
    """

    pledge_id: int
    case_id: int
    number: int
    key: str
    params: dict[str, Any]
    customer_id: str
    asked_at: dt.datetime
    since: dt.datetime
    payment_intent_id: str | None = None
    earlier_charges: frozenset[str | None] = frozenset()


def charge_due() -> None:
    """Charge what is due, for at most one slice of time. Only one capturer works at a time."""
    me = f"{socket.gethostname()[:30]}:{os.getpid()}:{time.monotonic_ns()}"
    if not _lease_comes(me):
        return
    settings = config.current()

    def ask(asking: Asking) -> payments.ChargeFound | None:
        if asking.case_id in run.stopped:
            raise NotBegun
        return _ask(settings, asking)

    threads = PacedThreads[Asking, payments.ChargeFound | None](ask, settings.capture_rate)
    run = Run(me, threads, settings.capture_rate)
    try:
        run.work()
    finally:
        threads.end()
    ring("send_letters")
    if run.forbidden:
        # When the key itself is refused nothing will work: wait for a person.
        Lease.take("capture", me, _now(), PAUSE_ALL)
        db.session.commit()
    elif run.mine:
        _give_back(me)


def _lease_comes(me: str) -> bool:
    """Take the lease, waiting for whoever is about to hand it over."""
    end = time.monotonic() + 2 * HEAD_START
    while not (mine := Lease.take("capture", me, _now(), CAPTURE_LEASE)) and time.monotonic() < end:
        db.session.commit()
        time.sleep(0.02)
    db.session.commit()
    return mine


class Run:
    """One slice of charging: this thread alone claims and writes down, while the threads of the pool ask."""

    def __init__(self, me: str, threads: "PacedThreads[Asking, payments.ChargeFound | None]", rate: float) -> None:
        self.me, self.threads = me, threads
        self.cases: set[int] = set()
        # Those of them of which nothing may leave any more; the threads look at it before they ask.
        self.stopped: frozenset[int] = frozenset()
        self.rate = rate
        # What is claimed must be asked for while the claim holds, also where only one is asked for every few seconds.
        self.most = max(1, int(min(MOST_THREADS + rate * AHEAD, rate * CLAIM_LEASE.total_seconds() / 2)))
        # By pledge: so many of its tries are claimed here, and not answered yet.
        self.under_way: Counter[int] = Counter()
        self.mine = True
        self.forbidden = False
        self.last_round = 0
        now = time.monotonic()
        self.ends_at, self.beats_at, self.claims_at = now + CHARGING_SLICE, now, now
        self.rings_at = self.ends_at - HEAD_START
        self.stops_at = now

    def work(self) -> None:
        while True:
            self._beat()
            self._look_for_stops()
            over = not self.mine or self.forbidden or time.monotonic() >= self.ends_at
            if over:
                self._hand_back(self.threads.take_back())
                self._hand_over()
            else:
                self._claim()
            if not self.under_way:
                return
            answers = self.threads.answers(*((self.under_way.total(), LAST_GATHER) if over else (BATCH, GATHER)))
            if answers:
                self._write_down(answers)

    def _beat(self) -> None:
        """Keep the lease, and the claims. Whoever lost the lease only writes down what was asked already."""
        if time.monotonic() >= self.rings_at:
            self.rings_at = math.inf
            ring("charge_due")
        if time.monotonic() < self.beats_at:
            return
        self.mine = self.mine and Lease.take("capture", self.me, _now(), CAPTURE_LEASE)
        Pledge.keep_claims(self.under_way, _now() + CLAIM_LEASE)
        db.session.commit()
        self.beats_at = time.monotonic() + BEAT
        ring("send_letters")

    def _look_for_stops(self) -> None:
        """Staff may freeze or cancel a case while its charges wait for their turn here: they wait no longer for it."""
        now = time.monotonic()
        if not self.cases or now < self.stops_at:
            return
        self.stopped = Case.stopped_among(self.cases)
        db.session.commit()
        self.stops_at = now + LOOK_FOR_STOPS

    def _claim(self) -> None:
        """Take the next pledges and write down what will be asked for each, in one commit with the lease."""
        now = time.monotonic()
        # The first claim is small, so that the asking begins at once.
        room = min(self.most - self.under_way.total(), BATCH if self.under_way else FIRST_BATCH)
        if self.under_way and (room < min(BATCH, self.most) / 2 or now < self.claims_at):
            return
        try:
            askings = self._claim_all(room)
        except OutOfTime:
            raise
        except Exception as trouble:  # noqa: BLE001 - it is found again below, and said there
            db.session.rollback()
            log.warning("a batch is claimed one by one", why=type(trouble).__name__)
            askings = self._claim_each(room)
        db.session.expunge_all()
        self.under_way += Counter(asking.pledge_id for asking in askings)
        self.cases |= {asking.case_id for asking in askings}
        self.threads.add(askings)
        if len(askings) < room:
            self.claims_at = now + LOOK_AGAIN

    def _claim_all(self, room: int) -> list[Asking]:
        self.mine = Lease.take("capture", self.me, _now(), CAPTURE_LEASE)
        due = Pledge.waiting_to_charge(_now(), room, self.last_round) if self.mine else []
        askings = [_asking(pledge, pledge.claim(_now(), CLAIM_LEASE)) for pledge in due]
        self.last_round = due[-1].round_id if due else self.last_round
        db.session.commit()
        return askings

    def _claim_each(self, room: int) -> list[Asking]:
        """One pledge that cannot be claimed, for a mistake of ours, must not hold up the others."""
        self.mine = Lease.take("capture", self.me, _now(), CAPTURE_LEASE)
        due = [pledge.id for pledge in Pledge.waiting_to_charge(_now(), room, self.last_round)] if self.mine else []
        db.session.commit()
        askings = []
        for pledge_id in due:
            try:
                pledge = Pledge.hold(pledge_id)
                if not pledge.waits_to_be_charged(_now()):
                    db.session.rollback()
                    continue
                asking = _asking(pledge, pledge.claim(_now(), CLAIM_LEASE))
                db.session.commit()
            except OutOfTime:
                raise
            except Exception as trouble:  # noqa: BLE001 - whatever is wrong with it, it is named and waits
                _put_back(pledge_id, trouble)
            else:
                askings.append(asking)
        return askings

    def _hand_back(self, askings: list[Asking]) -> None:
        """What was claimed but never begun waits again at once; its attempt, and so its key, stays."""
        if askings:
            left = Counter(asking.pledge_id for asking in askings)
            Pledge.keep_claims(left, _now())
            db.session.commit()
            self.under_way -= left

    def _hand_over(self) -> None:
        """The next slice may begin, in another worker, while this one still waits for its last answers: nothing more
        is asked here, and the claims of what was asked are kept until it is answered."""
        if self.mine and not self.forbidden:
            _give_back(self.me)
            self.mine = False

    def _write_down(self, answers: list[Answered[Asking, payments.ChargeFound | None]]) -> None:
        """Write a batch of answers in one commit; should one of them break it, each in a commit of its own."""
        self._hand_back([answered.asked for answered in answers if isinstance(answered.trouble, NotBegun)])
        answers = [answered for answered in answers if not isinstance(answered.trouble, NotBegun)]
        good = [answered for answered in answers if answered.trouble is None]
        try:
            _write_down_all([(answered.asked, answered.answer) for answered in good])
        except OutOfTime:
            raise
        except Exception as trouble:  # noqa: BLE001 - it is found again below, and said there
            db.session.rollback()
            log.warning("a batch of answers is written down one by one", why=type(trouble).__name__)
            for answered in good:
                _write_down_or_put_back(answered.asked, answered.answer)
        for answered in answers:
            if answered.trouble is not None:
                _put_back(answered.asked.pledge_id, answered.trouble, answered.asked.number)
                self.forbidden = self.forbidden or isinstance(answered.trouble, payments.StripeForbidden)
        self.under_way -= Counter(answered.asked.pledge_id for answered in answers)
        db.session.expunge_all()


def _asking(pledge: Pledge, attempt: ChargeAttempt) -> Asking:
    if not attempt.params and attempt.kind == "confirm":
        attempt.params = payments.confirm_params(str(pledge.payment_method_id))
    if not attempt.params:
        attempt.params = payments.charge_params(
            pledge_id=pledge.id,
            case_id=pledge.round.case_id,
            amount_pence=pledge.amount_pence,
            customer_id=str(pledge.customer_id),
            payment_method_id=str(pledge.payment_method_id),
            case_title=pledge.round.case.title,
        )
    since = min(attempt.asked_at, pledge.round.deadline)
    asking = Asking(
        pledge.id, pledge.round.case_id, attempt.number, attempt.key, attempt.params, str(pledge.customer_id),
        attempt.asked_at, since,
    )  # fmt: skip
    if attempt.kind == "create":
        return asking
    # Whatever Stripe has forgotten, the same payment cannot be paid twice.
    earlier = frozenset(known.charge_id for known in pledge.attempts[:-1])
    return dataclasses.replace(
        asking, since=attempt.asked_at, payment_intent_id=pledge.payment_intent_id, earlier_charges=earlier
    )


def _ask(settings: config.Settings, asking: Asking) -> payments.ChargeFound | None:
    """Runs in a thread of the pool, without database. None when Stripe has no such payment at all."""
    if _now() - asking.since > law.KEY_LIFETIME:
        # Stripe may have forgotten the key: if it was sent before, to send it now would be a second charge.
        found = _looked_up(settings, asking)
        if found is not None or _now() - asking.asked_at > law.KEY_LIFETIME:
            return found
    try:
        return payments.charge(settings, asking.params, asking.key, asking.payment_intent_id)
    except payments.StripeForbidden:
        raise
    except payments.StripeRefused:
        # A mistake of ours; but an earlier request with this key may have been a good one.
        found = _looked_up(settings, asking)
        if found is None:
            raise
        return found


def _looked_up(settings: config.Settings, asking: Asking) -> payments.ChargeFound | None:
    """What Stripe has of an attempt that is not asked again; None when it never arrived."""
    if asking.payment_intent_id is None:
        return payments.find_charge(settings, asking.customer_id, asking.pledge_id)
    found = payments.look_at_charge(asking.payment_intent_id, settings)
    is_refusal = found.outcome in ("declined", "action_required") and found.bank_url is None
    # The refusal that stands there is that of an attempt before, unless it has a charge of its own.
    is_ours = found.charge_id is not None and found.charge_id not in asking.earlier_charges
    return found if is_ours or not is_refusal else None


def _write_down_all(answers: list[tuple[Asking, payments.ChargeFound | None]]) -> None:
    # Of one pledge there may be two: the answer to a try of long ago, and the one to the try that came after it.
    found: dict[int, list[tuple[int, payments.ChargeFound | None]]] = {}
    for asking, answer in answers:
        found.setdefault(asking.pledge_id, []).append((asking.number, answer))
    with all_together():
        pledges = Pledge.hold_all(list(found))
        for pledge in pledges:
            for number, answer in found[pledge.id]:
                pledge.apply_answer(number, answer, _now())
    states = {pledge.id: pledge.status for pledge in pledges}
    db.session.commit()
    for pledge_id, status in states.items():
        log.info("charge answered", pledge=pledge_id, status=status)


def _write_down_or_put_back(asking: Asking, found: payments.ChargeFound | None) -> None:
    try:
        _write_down(asking, found)
    except OutOfTime:
        raise
    except Exception as trouble:  # noqa: BLE001 - whatever one answer is, the others are written down
        _put_back(asking.pledge_id, trouble, asking.number)


def _write_down(asking: Asking, found: payments.ChargeFound | None) -> None:
    pledge = Pledge.hold(asking.pledge_id)
    pledge.apply_answer(asking.number, found, _now())
    log.info("charge answered", pledge=pledge.id, status=pledge.status)
    db.session.commit()


def _put_back(pledge_id: int, trouble: Exception, number: int | None = None) -> None:
    """Nothing was done, or nothing that we understand: the same is asked again a little later, with the same key.

    Not so when Stripe calls the request itself wrong: that is for people, and must not go on for ever. And what went
    wrong with an attempt is no matter any more once the next one is under way.
    """
    db.session.rollback()
    pledge = Pledge.hold(pledge_id)
    if number is not None and not pledge.is_at(number):
        db.session.rollback()
        log.warning("an attempt of long ago had trouble", pledge=pledge_id, number=number, why=type(trouble).__name__)
        return
    if isinstance(trouble, payments.StripeRefused) and not isinstance(trouble, payments.StripeForbidden):
        pledge.halt(str(trouble)[:200], _now())
    else:
        pledge.wait(_now())
    ours = not isinstance(trouble, payments.StripeTrouble)
    why = type(trouble).__name__ if ours else str(trouble)[:200]
    log.error("a charge waits", pledge=pledge_id, why=why, exc_info=trouble if ours else None)
    db.session.commit()


def pay_again(pledge_id: int, return_url: str) -> None:
    """Try the card of a refused pledge again at once, its supporter being here, who can answer the bank.

    What is asked is committed first, so that the capturer asks the same again if this process dies. Silent while the
    pledge is being charged already; raises Refused when it cannot be paid any more.
    """
    pledge = Pledge.hold(pledge_id)
    if not pledge.pay_again(_now()):
        db.session.rollback()
        return
    attempt = pledge.claim(_now(), CLAIM_LEASE)
    attempt.params = payments.confirm_params(str(pledge.payment_method_id), return_url)
    asking = _asking(pledge, attempt)
    db.session.commit()
    try:
        _write_down(asking, _ask(config.current(), asking))
    except payments.StripeTrouble as trouble:
        _put_back(pledge_id, trouble, asking.number)
    ring("send_letters")


def _give_back(me: str) -> None:
    """The lease ends now. Its row stays: it tells the sweep how long ago somebody last charged."""
    Lease.take("capture", me, _now(), dt.timedelta(0))
    more = Round.with_charges_waiting(_now())
    db.session.commit()
    if more:
        ring("charge_due")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
