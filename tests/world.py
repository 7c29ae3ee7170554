"""The real application, its real jobs and the sandbox in one process: no socket, no thread, and no waiting.

Time stands still until it is moved. Each commit, and both sides of each call to Stripe, is a moment at which a process
can be killed, as with kill -9; at each call something else can happen meanwhile, as another process would do it.
"""

import contextvars
import datetime as dt
import json
import sys
import time
from collections.abc import Callable, Iterable
from email.message import EmailMessage
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
import requests
import sqlalchemy as sa
import stripe
import time_machine
from flask import Flask
from werkzeug.test import Client, TestResponse

import jobs
import letters
import payments
import sandbox
from jobs import card_pages, charging, deadline_capture, inbox, queue, reconcile, sweep
from jobs.charging import Answered, PacedThreads
from law import Refused
from models import Base, Letter, OldCard, Pledge, Refund, Round, StripeEvent, begin_writing, db
from sandbox import aftermath, checkout, checkout_page
from sandbox.core import Sandbox
from sandbox.deliveries import signature
from sandbox.errors import StripeRefusal
from tests.made import now

T = TypeVar("T")
A = TypeVar("A")
START = dt.datetime(2026, 3, 2, 9, 0, tzinfo=dt.UTC)
SLUG = "the-case"
SECOND, MINUTE = dt.timedelta(seconds=1), dt.timedelta(minutes=1)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
# After so long the sweep does by itself what no worker has taken.
A_SWEEP = sweep.NOBODY_CAME + SECOND
# A world that has not come to rest after so many sweeps never will.
MOST_SWEEPS = 60
# Whatever else goes on, these come round by the clock; here they come when a rule says so.
BY_THE_HOUR = ("examine_books", "begin_reconciliation", "forget")
PERFORM = jobs.perform
ON_OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}
# What waits for the clock, each with its column.
CLOCKS: tuple[tuple[Any, Any], ...] = (
    (Round.next_at, Round.status == "closing"),
    (Round.deadline, Round.status == "open"),
    (Pledge.next_at, Pledge.next_at.is_not(None)),
    (Refund.next_at, Refund.next_at.is_not(None)),
    (OldCard.next_at, OldCard.next_at.is_not(None)),
    (Letter.next_at, Letter.sent_at.is_(None)),
    (StripeEvent.next_at, StripeEvent.processed_at.is_(None)),
)


def _hurry(connection: Any, _record: object) -> None:
    """Nobody pulls the plug here, so that nothing has to wait for a disk; a killed process loses nothing by it."""
    if db.engine.dialect.name == "sqlite":
        connection.execute("PRAGMA synchronous=OFF")


class Killed(BaseException):
    """kill -9: nothing of ours catches it, and what was not committed is gone."""


class World:
    """One case with its pledges, the Stripe that they are paid at, and all that can go wrong between the two."""

    def __init__(self, app: Flask, patch: pytest.MonkeyPatch) -> None:
        self.app, self.browser = app, Client(app)
        self.stripe_app = sandbox.create_app(":memory:", base_url="http://127.0.0.1:1")
        self.stripe: Sandbox = self.stripe_app.extensions["sandbox"]
        self._clock: Any = None
        self._put_in_place(patch)
        with app.app_context():
            sa.event.listen(db.engine, "connect", _hurry)
            db.engine.dispose()
        sa.event.listen(db.session, "before_commit", self._before_commit)
        self.begin_anew()

    def _put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        """What is not ours, or waits by the real clock, is replaced where it meets our code."""
        patch.setattr(stripe, "RequestsClient", lambda timeout: NoSocket(self))
        patch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0)
        payments._client_for.cache_clear()
        patch.setattr(charging, "FIRST_PAUSE", 0.0)
        patch.setattr(charging, "LONGEST_PAUSE", 0.0)
        for asker in (deadline_capture, inbox, card_pages):
            patch.setattr(asker, "PacedThreads", InTurn)
        # Nobody hands over a lease while another waits for it: here one process stands still while another works.
        patch.setattr(deadline_capture, "HEAD_START", 0.0)
        patch.setattr(queue, "doorbell", lambda url: NobodyHears())
        patch.setattr(letters, "send", self._post)
        patch.setattr(jobs, "perform", self._perform)
        for job in BY_THE_HOUR:
            patch.delitem(sweep.TIMETABLE, job)
        for module in [*jobs.JOBS.values(), "jobs.sweep", "views.supporters", "views.repairs", "views.webhooks"]:
            patch.setattr(f"{module}.log", Listener(self), raising=False)
        many = dict.fromkeys(
            ("rate_pledge", "rate_network", "rate_card_page", "rate_way_back", "rate_look"), "100000000 per hour"
        )
        changes = {"capture_rate": 100_000.0, **many}
        self.app.config["STANDING"] = self.app.config["STANDING"].model_copy(update=changes)

    def begin_anew(self) -> None:
        """An empty database, an empty Stripe, and the same instant again."""
        self.end()
        self._clock = time_machine.travel(START, tick=False)
        self._now = self._clock.start()
        self.stripe.store.empty()
        self.dies_in: int | None = None
        self.meanwhile: list[tuple[int, Callable[[], object]]] = []
        self.posted: set[str] = set()
        # At the call of this moment: whether Stripe has done what it was asked, and only its answer is missing.
        self.has_acted = False
        self.complaints: list[str] = []
        self.led_to: set[str] = set()
        self.commits = 0
        # The sweep commits often, while it looks at what is due; to be killed there is of no interest.
        self.only_looks = False
        self.last_seen_event = 0
        self.news: list[dict[str, Any]] = []
        self.acknowledged: set[str] = set()
        # Whether charges had been stopped before the process began that is at work now.
        self.stopped_before = False
        contextvars.Context().run(self._empty)

    def _empty(self) -> None:
        with self.app.app_context(), db.engine.begin() as connection:
            for table in reversed(Base.metadata.sorted_tables):
                connection.execute(table.delete())
            if db.engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT setval(seqrelid, 1, false) FROM pg_sequence")
            else:
                connection.exec_driver_sql("DELETE FROM sqlite_sequence")

    def end(self) -> None:
        """The real clock again."""
        if self._clock is not None:
            self._clock.stop()
            self._clock = None

    def close(self) -> None:
        self.end()
        sa.event.remove(db.session, "before_commit", self._before_commit)
        payments._client_for.cache_clear()
        self.stripe.store.close()

    # --- Processes -----------------------------------------------------------------------------------------

    def process(self, act: Callable[[], T]) -> T | None:
        """Do it as a process of its own would; None when it was killed, or refused, on the way."""
        return contextvars.Context().run(self._process, act)

    def _process(self, act: Callable[[], T]) -> T | None:
        with self.app.app_context():
            begin_writing()
            before = self.stopped_before
            self.stopped_before = self._charges_are_stopped()
            try:
                return act()
            except (Killed, Refused):
                return None
            finally:
                self.stopped_before = before
                db.session.rollback()
                db.session.remove()

    def _charges_are_stopped(self) -> bool:
        # Plain text, since it is asked before everything that anybody does.
        asked = "SELECT charges_frozen OR status = 'cancelled' FROM cases"
        stopped = db.session.connection().exec_driver_sql(asked).scalar()
        db.session.rollback()
        return bool(stopped)

    def _before_commit(self, _session: object) -> None:
        self.commits += 1
        if not self.only_looks:
            self._a_moment()

    def _perform(self, job: str, row_id: int | None) -> None:
        before, self.only_looks = self.only_looks, False
        try:
            PERFORM(job, row_id)
        finally:
            self.only_looks = before

    def _a_moment(self) -> None:
        """Here whoever is at work can be killed."""
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in == 0:
                self.dies_in = None
                raise Killed

    def visit(self, method: str, path: str, **form: str) -> TestResponse | None:
        """One request to our site; None when the process that answers it was killed."""
        answer = self.process(lambda: self._visit(method, path, data=form, headers=ON_OUR_PAGE))
        if answer is not None and answer.location:
            self.led_to.add(answer.location)
        return answer

    def _visit(self, method: str, path: str, **said: Any) -> TestResponse:
        db.session.rollback()
        return contextvars.Context().run(self.browser.open, path, method=method, **said)

    # --- Stripe --------------------------------------------------------------------------------------------

    def call_stripe(self, method: str, url: str, headers: Any, body: Any) -> TestResponse:
        """The way to Stripe and back. Raises ConnectionResetError when no answer comes."""
        self._look_at_the_call(method, url, headers)
        self._meanwhile(has_acted=False)
        self._a_moment()
        cut = Cut()
        where = urlsplit(url)
        answer = contextvars.Context().run(
            Client(self.stripe_app).open, where.path, method=method, query_string=where.query, data=body or None,
            headers=dict(headers), environ_overrides={"werkzeug.socket": cut},
        )  # fmt: skip
        self._meanwhile(has_acted=True)
        self._a_moment()
        if cut.happened:
            raise ConnectionResetError
        return answer

    def _look_at_the_call(self, method: str, url: str, headers: Any) -> None:
        """A request for money must be lawful at the moment at which it goes out, whatever comes of it."""
        path = urlsplit(url).path
        if method == "post" and (path == "/v1/payment_intents" or path.endswith("/confirm")):
            if self.stopped_before:
                self.complaints.append("money was asked for though the charges of the case had been stopped")
            key = headers["Idempotency-Key"]
            if not contextvars.Context().run(self._is_written_down, key):
                self.complaints.append(f"money was asked for with the key {key}, which was not written down")

    def _is_written_down(self, key: str) -> bool:
        with self.app.app_context(), db.engine.connect() as connection:
            found = sa.text("SELECT 1 FROM charge_attempts WHERE key = :key AND params IS NOT NULL")
            return connection.execute(found, {"key": key}).scalar() is not None

    def _meanwhile(self, has_acted: bool) -> None:
        due = [act for left, act in self.meanwhile if left <= 1]
        self.meanwhile = [(left - 1, act) for left, act in self.meanwhile if left > 1]
        for act in due:
            self.has_acted = has_acted
            act()

    def happens(self, act: Callable[..., T], *said: Any) -> T | None:
        """Something at Stripe that is none of our doing; None when it cannot be, as things are."""
        try:
            with self.stripe.store.change():
                return act(self.stripe, *said)
        except (StripeRefusal, checkout_page.SessionOver):
            return None

    def save_card(self, pledge_id: int, number: str, approved: bool = True) -> None:
        """The supporter fills in the newest open card page to which we have led them, and answers the bank."""
        mine = [one for one in self.sessions(pledge_id) if one["status"] == "open" and one["url"] in self.led_to]
        if mine:
            intent = self.happens(checkout_page.give_card, mine[-1]["id"], number, None)
            if intent and intent["status"] == "requires_action":
                self.happens(checkout_page.answer_bank, mine[-1]["id"], approved)

    def stripes(self, kind: str) -> list[dict[str, Any]]:
        return self.stripe.store.documents(kind)

    def sessions(self, pledge_id: int) -> list[dict[str, Any]]:
        return [one for one in self.stripes("checkout.session") if one["metadata"]["pledge_id"] == str(pledge_id)]

    # --- News ----------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """Stripe's new events are on their way to our door."""
        rows = self.stripe.store.rows(
            "SELECT seq, body FROM objects WHERE kind = 'event' AND seq > ? ORDER BY seq", self.last_seen_event
        )
        self.last_seen_event = rows[-1]["seq"] if rows else self.last_seen_event
        events = [json.loads(row["body"]) for row in rows]
        self.news += [event for event in events if event["type"] in reconcile.TYPES]

    def deliver(self, event: dict[str, Any]) -> bool:
        """Whether the event was taken; one that was not stays on its way."""
        payload = json.dumps(event).encode()
        secret = self.app.config["STANDING"].stripe_webhook_secret
        signed = {"Stripe-Signature": signature(payload, secret, int(time.time()))}
        answer = self.process(lambda: self._visit("POST", "/webhooks/stripe", data=payload, headers=signed))
        taken = answer is not None and answer.status_code == 200
        if taken:
            self.acknowledged.add(event["id"])
        return taken

    # --- Time and the clock's work -------------------------------------------------------------------------

    def wait(self, length: dt.timedelta) -> None:
        self._now.shift(length)
        checkout.expire_due_sessions(self.stripe)
        aftermath.fail_due_refunds(self.stripe)
        self.stripe_app.extensions["keys"].prune()

    def sweep(self) -> None:
        before, self.only_looks = self.only_looks, True
        self.process(lambda: sweep.sweep(now()))
        self.only_looks = before

    def work(self, job: str) -> None:
        """A worker takes this job for all that is due for it at this instant."""
        for row_id in self.process(lambda: sweep.TIMETABLE[job](now())) or []:
            self.process(lambda row_id=row_id: jobs.perform(job, row_id))  # type: ignore[misc]

    def next_due(self) -> dt.datetime | None:
        """When the clock has to do something again, apart from looking at the books."""
        due = [db.session.scalar(sa.select(sa.func.min(column)).where(waits)) for column, waits in CLOCKS]
        return min((one for one in due if one is not None), default=None)

    def compare_books(self) -> None:
        """Let the reconciler go through Stripe's lists."""
        self.process(lambda: jobs.perform("begin_reconciliation", None))
        self.work("reconcile")

    def nothing_goes_wrong(self) -> None:
        self.dies_in, self.meanwhile = None, []
        self.stripe.faults.clear()

    def heal(self, news_arrives: bool) -> None:
        """Time passes until nothing is left to do."""
        compared = False
        for number in range(MOST_SWEEPS):
            for dispute in self.stripes("dispute"):
                self.happens(aftermath.close_dispute, dispute["id"], "lost")
            self.hear()
            self.news = [event for event in self.news if news_arrives and not self.deliver(event)]
            due = self.process(self.next_due)
            if due is not None:
                # What has been tried for long, such as a payment that may still arrive, can be looked at less often.
                patience = max(0, number - 8) * HOUR
                self.wait(max(due - now(), patience) + A_SWEEP)
                self.sweep()
            elif not compared:
                # Whatever news was lost is found in Stripe's lists, an hour after it was young.
                self.wait(HOUR)
                self.compare_books()
                compared = True
            else:
                return
        self.complaints.append(f"nothing comes to rest; next is {self.process(self.next_due)}")

    # --- Post ----------------------------------------------------------------------------------------------

    def _post(self, message: EmailMessage) -> str:
        """The mail server takes everything. The same letter may come again, with what is so by then, but only while
        nobody has written down that it went: whoever sent it was killed."""
        name = str(message["Message-ID"]).strip("<>").partition("@")[0]
        if db.session.scalar(sa.select(Letter.sent_at).where(Letter.message_id == name)) is not None:
            self.complaints.append(f"the letter {name} was sent again")
        self.posted.add(name)
        return ""


class NoSocket(stripe.HTTPClient):
    """Hands the SDK's requests to the sandbox's WSGI application."""

    name = "no socket"

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def request(self, method: str, url: str, headers: Any, post_data: Any = None, *, _usage: Any = None) -> Any:
        try:
            answer = self._world.call_stripe(method, url, headers, post_data)
        except ConnectionResetError as cut:
            error: Any = stripe.APIConnectionError
            raise error("no answer", should_retry=True) from cut
        return answer.get_data(), answer.status_code, requests.structures.CaseInsensitiveDict(answer.headers)

    def close(self) -> None:
        """There is nothing to close."""


class Cut:
    """Stands for the caller's socket, which the sandbox closes when it is to give no answer."""

    happened = False

    def shutdown(self, _how: int) -> None:
        self.happened = True


class InTurn(PacedThreads[T, A]):
    """Asks for one thing after the other, in the thread that takes the answers."""

    def add(self, things: Iterable[T]) -> None:
        for thing in things:
            self.under_way += 1
            self._to_ask.put(thing)

    def answers(self, most: int, within: float) -> list[Answered[T, A]]:
        found: list[Answered[T, A]] = []
        while not self._to_ask.empty() and len(found) < most:
            thing = self._to_ask.get()
            assert thing is not None
            found.append(self._ask_until_not_busy(thing, self._pacer.wait()))
        self.under_way -= len(found)
        return found


class NobodyHears:
    """A doorbell that is out of order: what is due is found by the clock, or by a worker that looks."""

    def set(self, *_: object, **__: object) -> bool:
        return False

    def delete(self, *_: object) -> None:
        """There is no ring to forget."""


class Listener:
    """In place of the log. What our code did not expect is a fault of ours, though it goes on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def info(self, *_: object, **__: object) -> None:
        """All is well."""

    def warning(self, said: str, **details: Any) -> None:
        trouble = details.get("exc_info")
        if trouble:
            self._world.complaints.append(f"{said}: {details}")

    error = warning

    def exception(self, said: str, **details: Any) -> None:
        self.warning(said, **details, exc_info=sys.exc_info()[1])
