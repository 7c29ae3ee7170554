"""How fast Stripe's news is taken in and worked on. `make bench-inbox`, or

    python -m bench.inbox --known 3000 --looks 300 --at-once 1000

First the inbox is emptied in this process: of what a deadline brings, three events for each charge, of which the rows
know already; and of cards that were saved while nobody came back, and charges whose asker died, each of which is looked
at, with a stub in Stripe's place: one that answers at once, and one that takes 300 ms while so many a second are
allowed. Then a web server, a
worker and the sweep are started, and so many webhooks arrive over as many connections at the same moment.
"""

import argparse
import asyncio
import datetime as dt
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import sqlalchemy as sa

import app as application
import payments
from bench.speed import BELL, KEPT, PORTS, SLUG, Programs, fill, news, settings_of, valkey
from jobs import inbox
from models import Case, ChargeAttempt, Pledge, Round, StripeEvent, begin_writing, db

DEADLINE_BRINGS = ("payment_intent.created", "payment_intent.succeeded", "charge.succeeded")
# Stripe takes so many seconds for an answer, and is asked for so many a second at most.
SLOW, RATE = 0.3, 20.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.inbox", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--known", type=int, default=3000, help="events that tell nothing new")
    parser.add_argument("--looks", type=int, default=300, help="events for each of which Stripe is asked")
    parser.add_argument("--at-once", type=int, default=1000, help="webhooks that arrive at the same moment")
    asked = parser.parse_args()
    print(f"Load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
    with tempfile.TemporaryDirectory(prefix="standing-inbox-") as place:
        folder = Path(place)
        fill(folder)
        os.environ.update(settings_of(folder))
        programs = Programs(folder)
        try:
            programs.start(
                BELL, [valkey(), "--port", str(PORTS[BELL]), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
            )
            _empty_it(asked.known, asked.looks)
            programs.serve(KEPT, "app:create_app", threads="32")
            for name in ("worker", "sweep"):
                programs.start(name, [sys.executable, "-m", "jobs", name])
            _at_once(asked.at_once)
        finally:
            programs.stop()
    print(f"Load of this machine after: {os.getloadavg()[0]:.1f}.")


def _empty_it(known: int, looks: int) -> None:
    app = application.create_app({"capture_rate": 100_000.0, "breaker_unfinished": 1_000_000})
    with app.app_context():
        charged = _pledges("charged", known // len(DEADLINE_BRINGS))
        _store((kind, f"pi_{number}", number) for number in charged for kind in DEADLINE_BRINGS)
        print(f"{known:,} events of a deadline, which the rows know: {_drained()[1]} (goal 1,000 a second)")
        saved = _pledges("started", looks)
        _store(("checkout.session.completed", f"cs_{number}", number) for number in saved)
        with mock.patch.object(payments, "look_at_card_page", lambda session, _settings: _looked_at(session)):
            words = _drained()[1]
        print(f"{looks:,} cards, answered at once: {words}, {_left(saved, 'confirmed')} not confirmed")
        asked = _pledges("unknown", looks)
        _store(("payment_intent.succeeded", f"pi_{number}", number) for number in asked)
        with mock.patch.object(payments, "look_at_charge", lambda payment, _settings: _paid(payment)):
            words = _drained()[1]
        print(f"{looks:,} charges nobody wrote down, answered at once: {words}, {_left(asked, 'charged')} not charged")
        # At the rate of Stripe's limit, as many as take ten seconds.
        app.config["STANDING"] = app.config["STANDING"].model_copy(update={"capture_rate": RATE})
        saved = _pledges("started", int(10 * RATE))
        _store(("checkout.session.completed", f"cs_{number}", number) for number in saved)
        with mock.patch.object(payments, "look_at_card_page", lambda session, _settings: _looked_at(session, SLOW)):
            reached, words = _drained()
        print(f"{len(saved):,} cards, answered after {SLOW * 1000:.0f} ms, {RATE:,.0f} a second allowed: {words}, "
              f"{reached / RATE:.1%} of that, {_left(saved, 'confirmed')} not confirmed")  # fmt: skip
        db.session.remove()
        db.engine.dispose()


def _left(ids: list[int], reached: str) -> int:
    left = sa.select(sa.func.count()).where(Pledge.id.in_(ids), Pledge.status != reached)
    return int(db.session.scalar(left) or 0)


def _paid(payment_id: str) -> payments.ChargeFound:
    return payments.ChargeFound("succeeded", payment_id, f"ch_{payment_id}", 2_500)


def _looked_at(session_id: str, takes: float = 0.0) -> payments.CardFound:
    """In Stripe's place: the card is saved, and was before our inbox heard of it."""
    time.sleep(takes)
    number = session_id.removeprefix("cs_")
    return payments.CardFound(
        session_id, expired=False, complete=True, url=None, setup_intent_id=f"seti_{number}", saved_at=None,
        customer_id=f"cus_{number}", payment_method_id=f"pm_{number}", card_words="Visa ending in 4242",
    )  # fmt: skip


def _pledges(status: str, number: int) -> list[int]:
    """So many pledges of the case, whose card was saved just now; the ids."""
    as_of = dt.datetime.now(dt.UTC)
    begin_writing()
    its_round = Round.hold(db.session.scalars(sa.select(Case).where(Case.slug == SLUG)).one().round.id)
    made = [
        its_round.start_pledge(
            form_key=f"{status}-{as_of.timestamp()}-{count}", amount_pence=2_500, name="Ada Winter",
            email=f"ada{count}@inbox.example", shown_as="name", wants_updates=False, as_of=as_of,
        )
        for count in range(number)
    ]  # fmt: skip
    ids = [pledge.id for pledge in made]
    for pledge in made:
        pledge.session_id, pledge.session_no = f"cs_{pledge.id}", 1
        if status == "charged":
            pledge.status, pledge.payment_intent_id = "charged", f"pi_{pledge.id}"
        if status == "unknown":
            pledge.status, pledge.tries, pledge.next_at = "unknown", 1, as_of + dt.timedelta(hours=1)
            pledge.attempts.append(ChargeAttempt(
                pledge_id=pledge.id, number=1, kind="create", key=f"charge-{pledge.id}", status="unknown", code="",
                asked_at=as_of, params={},
            ))  # fmt: skip
        if status != "started":
            pledge.customer_id, pledge.card_saved_at = f"cus_{pledge.id}", as_of
            pledge.confirmed_at, pledge.awaits_card = as_of, False
    db.session.commit()
    for one in ids if status == "started" else []:
        StripeEvent.store(event_id=f"evt_saved_{one}", kind="setup_intent.succeeded", object_id=f"seti_{one}",
                          created_at=as_of, payload="{}", as_of=as_of)  # fmt: skip
    db.session.execute(sa.update(StripeEvent).values(processed_at=as_of))
    db.session.commit()
    return ids


def _store(events: Iterable[tuple[str, str, int]]) -> None:
    as_of = dt.datetime.now(dt.UTC)
    for kind, object_id, number in events:
        told = {
            "id": object_id,
            "metadata": {"pledge_id": str(number)},
            "customer": f"cus_{number}",
            "filling": "x" * 2200,
        }
        StripeEvent.store(
            event_id=f"evt_{kind}_{number}", kind=kind, object_id=object_id, created_at=as_of, as_of=as_of,
            payload=json.dumps({"data": {"object": told}}),
        )  # fmt: skip
    db.session.commit()


def _waiting() -> int:
    found = db.session.scalar(sa.select(sa.func.count()).where(StripeEvent.processed_at.is_(None))) or 0
    db.session.commit()
    return found


def _drained() -> tuple[float, str]:
    """Events a second until none waits, however many jobs it takes; and in words, with the time of the processor."""
    waited, begun, worked = _waiting(), time.perf_counter(), time.process_time()
    while _waiting():
        begin_writing()
        inbox.drain_stripe_events()
    reached = waited / (time.perf_counter() - begun)
    worked = (time.process_time() - worked) * 1000 / waited
    return reached, f"{reached:,.0f} a second, {worked:.2f} ms of the processor for each"


def _at_once(number: int) -> None:
    bodies = [news(count, "/webhooks/stripe", PORTS[KEPT], "at_once") for count in range(number)]
    begun = time.perf_counter()
    answers = Counter(asyncio.run(_posted(bodies)))
    answered = time.perf_counter() - begun
    app = application.create_app()
    with app.app_context():
        begin_writing()
        about = sa.select(sa.func.count(), sa.func.count(StripeEvent.processed_at)).where(
            StripeEvent.event_id.startswith("evt_at_once_")
        )
        stored, done = db.session.execute(about).one()
        until = time.monotonic() + 60
        while done < number and time.monotonic() < until:
            db.session.rollback()
            time.sleep(0.02)
            stored, done = db.session.execute(about).one()
        print(f"{number:,} webhooks at once: answers {dict(answers)} within {answered:.1f} s, {stored:,} stored, "
              f"{done:,} processed {time.perf_counter() - begun:.1f} s after the first")  # fmt: skip
        db.session.remove()
        db.engine.dispose()


async def _posted(bodies: list[bytes]) -> list[str]:
    """Each over a connection of its own, all of them open before the first word is said."""
    lines = [await asyncio.open_connection("127.0.0.1", PORTS[KEPT]) for _ in bodies]

    async def post(line: tuple[asyncio.StreamReader, asyncio.StreamWriter], body: bytes) -> str:
        line[1].write(body)
        head = await line[0].readuntil(b"\r\n\r\n")
        line[1].close()
        return head[9:12].decode()

    return await asyncio.gather(*(post(line, body) for line, body in zip(lines, bodies, strict=True)))


if __name__ == "__main__":
    main()
