"""Faults that were found by looking for them: two doors at once, answers that come late, rows that are broken.

The application of this process talks to a real sandbox; its jobs are called here, one step at a time.
"""

import dataclasses
import datetime as dt
import json
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import sqlalchemy as sa
import time_machine
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import AuthResult
from flask import Flask
from werkzeug.datastructures import MultiDict

import config
import jobs
import letters
import payments
from jobs import cards, deadline_capture, inbox, post, repairs, stripe_events
from jobs import sweep as the_sweep
from models import Letter, Pledge, StripeEvent, db
from tests.house import House, eventually, free_port
from tests.made import a_case, a_pledge, case_at, confirm, keep, now, pledges_of
from tests.sandbox_process import SandboxProcess, start_sandbox
from views import card_pages
from views.forms import CommentForm

ON_OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture(scope="module")
def _sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    running = start_sandbox(tmp_path_factory.mktemp("stripe"), None, free_port())
    yield running
    running.stop()


@pytest.fixture
def stripe(app: Flask, _sandbox: SandboxProcess) -> SandboxProcess:
    """The sandbox, empty, and the application told where it is."""
    requests.post(f"{_sandbox.url}/sandbox/reset", timeout=30).raise_for_status()
    changes = {"stripe_api_base": _sandbox.url, "checkout_origin": _sandbox.url, "capture_rate": 1000.0}
    app.config["STANDING"] = app.config["STANDING"].model_copy(update=changes)
    return _sandbox


def fault(stripe: SandboxProcess, **plan: Any) -> None:
    requests.post(f"{stripe.url}/sandbox/faults", json=plan, timeout=30).raise_for_status()


def stripes(stripe: SandboxProcess, what: str, **filters: Any) -> list[dict[str, Any]]:
    answer = requests.get(
        f"{stripe.url}/v1/{what}", {"limit": 100, **filters}, headers={"Authorization": "Bearer sk_test_x"}, timeout=30
    )
    answer.raise_for_status()
    return list(answer.json()["data"])


def on_its_way(app: Flask, slug: str, amount: int = 2_500, as_of: dt.datetime | None = None) -> Pledge:
    """A pledge just made at our form: what Stripe will be asked for is noted, but it was not asked yet."""
    made = case_at(slug).round.start_pledge(
        form_key=secrets.token_urlsafe(24), amount_pence=amount, name="Ada Winter", email="ada@example.org",
        shown_as="name", wants_updates=False, as_of=as_of or now(),
    )  # fmt: skip
    with app.test_request_context():
        card_pages.note_card_page(made)
    keep()
    return made


def at_stripe(app: Flask, slug: str, amount: int = 2_500) -> Pledge:
    """A pledge whose supporter is on Stripe's page."""
    made = on_its_way(app, slug, amount)
    with app.test_request_context():
        card_pages.to_card_page(made)
    keep()
    return made


def press(app: Flask, address: str, **form: str) -> str:
    """Send a form of our pages; where it leads to."""
    with app.app_context():
        return str(app.test_client().post(address, data=form, headers=ON_OUR_PAGE).location)


def meanwhile(act: Callable[[], str]) -> Callable[[], str]:
    """Begin something in a thread of its own; call the result to wait for what came of it."""
    pool = ThreadPoolExecutor(1)
    begun = pool.submit(act)
    pool.shutdown(wait=False)
    return begun.result


def save_card(page: str) -> None:
    requests.post(page, {"card": "4242 4242 4242 4242"}, allow_redirects=False, timeout=30).raise_for_status()


def open_pages(stripe: SandboxProcess, pledge_id: int) -> list[str]:
    """The card pages of a pledge on which a card could still be saved."""
    pages = stripes(stripe, "checkout/sessions", status="open")
    return [page["url"] for page in pages if page["metadata"]["pledge_id"] == str(pledge_id)]


def settle(slug: str, after: dt.timedelta) -> None:
    """The job that settles the case's round, begun so long from now."""
    round_id = case_at(slug).round.id
    keep()
    with time_machine.travel(now() + after, tick=False):
        deadline_capture.settle_round(round_id)


# --- Two doors at once -------------------------------------------------------------------------------------


def test_two_changes_of_one_pledge_at_once_leave_one_card_page(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    pledge = at_stripe(app, a_case().slug, 2_500)
    pledge_id, link = pledge.id, pledge.link()
    keep()
    expire = payments.expire_card_page
    led_to: list[str] = []

    def expire_and_be_overtaken(session_id: str) -> payments.CardFound:
        closed = expire(session_id)
        if not led_to:
            led_to.append("")
            led_to[0] = press(app, f"/pledges/{link}/amount", amount="40", agreed="y")
        return closed

    monkeypatch.setattr(payments, "expire_card_page", expire_and_be_overtaken)
    assert press(app, f"/pledges/{link}/amount", amount="30", agreed="y") == f"/pledges/{link}"
    assert open_pages(stripe, pledge_id) == led_to
    assert db.session.get_one(Pledge, pledge_id).amount_pence == 4_000


def test_a_change_while_stripe_is_asked_closes_the_page_that_is_being_made(app: Flask, stripe: SandboxProcess) -> None:
    pledge = on_its_way(app, a_case().slug, 2_500)
    pledge_id, link = pledge.id, pledge.link()
    keep()
    fault(stripe, operation="checkout.sessions.create", fault="hang", when="after", seconds=1)
    first = meanwhile(lambda: press(app, f"/pledges/{link}/card-page"))
    eventually(lambda: stripes(stripe, "checkout/sessions", status="open"))
    second = press(app, f"/pledges/{link}/amount", amount="40", agreed="y")
    assert first() in (second, f"/pledges/{link}")
    assert open_pages(stripe, pledge_id) == [second]


def test_a_cancellation_closes_a_page_whose_answer_was_lost(app: Flask, stripe: SandboxProcess) -> None:
    pledge = on_its_way(app, a_case().slug)
    pledge_id, link = pledge.id, pledge.link()
    keep()
    fault(stripe, operation="checkout.sessions.create", fault="lose_answer", times=3)
    assert press(app, f"/pledges/{link}/card-page") == f"/pledges/{link}?stripe=away"
    assert len(open_pages(stripe, pledge_id)) == 1
    press(app, f"/pledges/{link}/cancellation")
    cards.let_go()
    assert open_pages(stripe, pledge_id) == []


def test_a_cancelled_pledge_does_not_lead_to_the_card_page_that_was_asked_for(
    app: Flask, stripe: SandboxProcess
) -> None:
    link = on_its_way(app, a_case().slug).link()
    keep()
    fault(stripe, operation="checkout.sessions.create", fault="hang", when="after", seconds=1)
    first = meanwhile(lambda: press(app, f"/pledges/{link}/card-page"))
    eventually(lambda: stripes(stripe, "checkout/sessions", status="open"))
    press(app, f"/pledges/{link}/cancellation")
    assert first() == f"/pledges/{link}"


def test_a_page_that_stripe_never_heard_of_is_asked_for_anew_when_its_end_is_near(
    app: Flask, stripe: SandboxProcess
) -> None:
    pledge = on_its_way(app, a_case(ends_in=dt.timedelta(minutes=40)).slug)
    pledge_id, link = pledge.id, pledge.link()
    keep()
    fault(stripe, operation="checkout.sessions.create", fault="refuse", times=3)
    assert press(app, f"/pledges/{link}/card-page") == f"/pledges/{link}?stripe=away"
    with time_machine.travel(now() + dt.timedelta(minutes=12)):
        requests.post(f"{stripe.url}/sandbox/clock", json={"offset_seconds": 12 * 60}, timeout=30).raise_for_status()
        assert press(app, f"/pledges/{link}/card-page") in open_pages(stripe, pledge_id)


# --- At the deadline ---------------------------------------------------------------------------------------


def test_a_round_waits_for_a_card_page_that_cannot_be_closed(app: Flask, stripe: SandboxProcess) -> None:
    slug = a_case(target=2_500, ends_in=dt.timedelta(hours=1)).slug
    page = str(at_stripe(app, slug, 2_500).session_url)
    fault(stripe, operation="checkout.sessions.expire", fault="error", status=400)
    settle(slug, after=dt.timedelta(hours=1, seconds=1))
    assert case_at(slug).round.status == "closing"
    save_card(page)
    settle(slug, after=dt.timedelta(hours=1, seconds=31))
    assert case_at(slug).round.status == "met"


def test_one_card_page_that_cannot_be_resolved_does_not_keep_the_others_open(
    app: Flask, stripe: SandboxProcess
) -> None:
    slug = a_case(ends_in=dt.timedelta(hours=1)).slug
    stuck, other = at_stripe(app, slug), at_stripe(app, slug)
    fault(stripe, operation="checkout.sessions.expire", fault="error", status=400, match={"id": stuck.session_id})
    settle(slug, after=dt.timedelta(hours=1, seconds=1))
    assert [pledge.status for pledge in pledges_of(slug)] == ["started", "abandoned"]
    assert open_pages(stripe, other.id) == []


# --- The charges -------------------------------------------------------------------------------------------


def due_with_a_card(app: Flask, stripe: SandboxProcess, amount: int = 2_500) -> int:
    """A pledge of a round that was met, with a card that Stripe has saved; its id."""
    slug = a_case(target=amount, ends_in=dt.timedelta(hours=1)).slug
    pledge = at_stripe(app, slug, amount)
    pledge_id, page = pledge.id, str(pledge.session_url)
    save_card(page)
    stripe_events.look_again_at_card(pledge_id)
    settle(slug, after=dt.timedelta(hours=1, seconds=1))
    pledge = db.session.get_one(Pledge, pledge_id)
    assert pledge.status == "due"
    pledge.next_at = now()
    keep()
    return pledge_id


def asked_before(pledge_id: int, ago: dt.timedelta, answer: str = "") -> None:
    """The pledge was claimed so long ago, and got this answer or none."""
    pledge = Pledge.hold(pledge_id)
    attempt = pledge.claim(now() - ago, dt.timedelta(seconds=20))
    deadline_capture._asking(pledge, attempt)
    if answer:
        pledge.apply_charge(payments.ChargeFound(answer), now() - ago, asked=True)
    keep()


def payments_of(stripe: SandboxProcess, pledge_id: int) -> list[str]:
    """The states of all payments that Stripe has for a pledge."""
    found = stripes(stripe, "payment_intents")
    return [one["status"] for one in found if one["metadata"]["pledge_id"] == str(pledge_id)]


@pytest.mark.parametrize("answer", ["", "unknown"])
def test_a_charge_that_never_arrived_is_asked_anew_after_a_day(app: Flask, stripe: SandboxProcess, answer: str) -> None:
    pledge_id = due_with_a_card(app, stripe)
    asked_before(pledge_id, dt.timedelta(hours=24, minutes=1), answer)
    deadline_capture.charge_due()
    assert db.session.get_one(Pledge, pledge_id).status == "charged"
    assert payments_of(stripe, pledge_id) == ["succeeded"]


def test_a_last_request_with_an_old_key_that_comes_late_charges_nobody_twice(
    app: Flask, stripe: SandboxProcess
) -> None:
    pledge_id = due_with_a_card(app, stripe)
    asked_before(pledge_id, dt.timedelta(hours=22, minutes=59, seconds=30), "unknown")
    fault(stripe, operation="payment_intents.create", fault="hang", seconds=3)

    def charge() -> str:
        with app.app_context():
            deadline_capture.charge_due()
        return ""

    first = meanwhile(charge)
    eventually(lambda: requests.get(f"{stripe.url}/sandbox/calls?operation=payment_intents.create", timeout=30).json())
    with time_machine.travel(now() + dt.timedelta(minutes=1)):
        charge()
    first()
    assert payments_of(stripe, pledge_id) == ["succeeded"]


def test_a_payment_of_somebody_else_with_the_same_number_pays_no_pledge(app: Flask, stripe: SandboxProcess) -> None:
    pledge_id, other_id = due_with_a_card(app, stripe, 2_500), due_with_a_card(app, stripe, 2_500)
    asked_before(pledge_id, dt.timedelta(minutes=1), "unknown")
    other = db.session.get_one(Pledge, other_id)
    params = payments.charge_params(
        pledge_id=pledge_id, case_id=1, amount_pence=2_500, customer_id=str(other.customer_id),
        payment_method_id=str(other.payment_method_id), case_title="Of another site with the same account",
    )  # fmt: skip
    keep()
    found = payments.charge(app.config["STANDING"], params, "of-another-site")
    event = stripes(stripe, "events", type="payment_intent.succeeded")[0]
    StripeEvent.store(
        event_id=event["id"], kind=event["type"], object_id=str(found.payment_intent_id), created_at=now(),
        payload=json.dumps(event), as_of=now(),
    )  # fmt: skip
    keep()
    inbox.drain_stripe_events()
    assert db.session.get_one(Pledge, pledge_id).status == "unknown"


# --- Slices of time ----------------------------------------------------------------------------------------


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slice of time is over after its first piece of work."""
    monkeypatch.setattr(jobs, "SLICE", 0)


def test_closing_many_card_pages_works_in_slices(app: Flask, stripe: SandboxProcess, no_time: None) -> None:
    slug = a_case(ends_in=dt.timedelta(hours=1)).slug
    for _ in range(3):
        at_stripe(app, slug)
    for still_started in (2, 1, 0):
        settle(slug, after=dt.timedelta(hours=1, seconds=1))
        assert [pledge.status for pledge in pledges_of(slug)].count("started") == still_started
    assert case_at(slug).round.status == "missed"


def test_letting_many_pledges_go_works_in_slices(app: Flask, stripe: SandboxProcess, no_time: None) -> None:
    slug = a_case().slug
    for _ in range(3):
        at_stripe(app, slug).cancel(now())
        keep()
    for left in (2, 1, 0):
        cards.let_go()
        assert len(Pledge.waiting_to_let_go(now())) == left


def test_reading_many_events_works_in_slices(app: Flask, no_time: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "BATCH", 1)
    for number in range(3):
        StripeEvent.store(
            event_id=f"evt_{number}", kind="checkout.session.expired", object_id=f"cs_{number}", created_at=now(),
            payload="{}", as_of=now(),
        )  # fmt: skip
    for left in (2, 1, 0):
        inbox.drain_stripe_events()
        assert len(list(db.session.scalars(sa.select(StripeEvent).where(StripeEvent.processed_at.is_(None))))) == left


def test_sending_many_letters_works_in_slices(app: Flask, no_time: None) -> None:
    a_case(pledged=[2_500, 2_500, 2_500])
    for left in (2, 1, 0):
        post.send_letters()
        assert len(Letter.unsent(now())) == left


def test_a_clock_that_does_the_work_itself_stops_after_a_slice(
    app: Flask, no_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "end_at_stripe", lambda _: None)
    its_round = a_case(target=7_500, pledged=[2_500, 2_500, 2_500], ends_in=dt.timedelta(hours=1)).round
    its_round.close(its_round.deadline + dt.timedelta(seconds=1))
    its_round.settle(its_round.deadline + dt.timedelta(seconds=1))
    for pledge in its_round.pledges("due"):
        pledge.claim(its_round.deadline, dt.timedelta(seconds=20))
        a_week_ago = now() - dt.timedelta(days=7, minutes=1)
        pledge.apply_charge(payments.ChargeFound("declined", code="lost_card"), a_week_ago, asked=True)
        pledge.next_at = a_week_ago + dt.timedelta(days=7)
    slug = its_round.case.slug
    keep()
    for dropped in (1, 2, 3):
        the_sweep.sweep(now())
        assert [pledge.status for pledge in pledges_of(slug)].count("dropped") == dropped


# --- Rows that are broken ----------------------------------------------------------------------------------


def test_a_letter_that_cannot_be_written_does_not_hold_up_the_others(app: Flask) -> None:
    its_round = a_case().round
    broken, good = confirm(a_pledge(its_round, email="two@signs@example.org")), confirm(a_pledge(its_round))
    subjects = [f"pledge:{broken.id}", f"pledge:{good.id}"]
    keep()
    begun = now()
    post.send_letters()
    found = {letter.subject: letter for letter in db.session.scalars(sa.select(Letter))}
    assert found[subjects[1]].sent_at is not None
    again_at = found[subjects[0]].next_at
    assert again_at is not None and again_at >= begun + dt.timedelta(seconds=2)
    assert (found[subjects[0]].tries, found[subjects[0]].trouble) == (1, "HeaderParseError")


def stored(number: int, payload: str) -> None:
    """News of a payment that Stripe sent."""
    StripeEvent.store(
        event_id=f"evt_{number}", kind="payment_intent.succeeded", object_id=f"pi_{number}", created_at=now(),
        payload=payload, as_of=now(),
    )  # fmt: skip


def test_an_event_that_cannot_be_worked_on_does_not_hold_up_the_others(app: Flask, stripe: SandboxProcess) -> None:
    pledge_id = due_with_a_card(app, stripe)
    stored(1, "not even JSON")
    paid = {"metadata": {"pledge_id": str(pledge_id)}, "customer": db.session.get_one(Pledge, pledge_id).customer_id}
    stored(2, json.dumps({"data": {"object": paid}}))
    stored(3, json.dumps({"data": {"object": {}}}))
    keep()
    inbox.drain_stripe_events()
    broken, unknown_at_stripe, good = db.session.scalars(sa.select(StripeEvent).order_by(StripeEvent.id))
    assert good.processed_at is not None
    assert (broken.processed_at, broken.tries, broken.trouble) == (None, 1, "JSONDecodeError")
    assert (unknown_at_stripe.processed_at, unknown_at_stripe.tries) == (None, 1)
    assert unknown_at_stripe.trouble.startswith("resource_missing")


def test_an_answer_that_cannot_be_believed_does_not_lose_the_others(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, good = due_with_a_card(app, stripe, 2_500), due_with_a_card(app, stripe, 3_000)
    charge = payments.charge

    def charge_oddly(
        settings: config.Settings, params: dict[str, Any], key: str, payment_intent_id: str | None
    ) -> payments.ChargeFound:
        found = charge(settings, params, key, payment_intent_id)
        if params["amount"] == 2_500:
            return dataclasses.replace(found, amount_pence=2_501)
        time.sleep(0.5)
        return found

    monkeypatch.setattr(payments, "charge", charge_oddly)
    deadline_capture.charge_due()
    assert db.session.get_one(Pledge, good).status == "charged"
    waits = db.session.get_one(Pledge, odd)
    assert waits.status == "charging" and waits.next_at is not None and waits.next_at > now()


def test_a_card_that_cannot_be_removed_does_not_keep_the_others_saved(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = a_case().slug
    ids = []
    for _ in range(2):
        pledge = at_stripe(app, slug)
        pledge.cancel(now())
        ids.append(pledge.id)
        keep()
    remove = cards._let_go

    def remove_oddly(pledge_id: int) -> None:
        if pledge_id == ids[0]:
            raise ValueError("nobody thought of this")
        remove(pledge_id)

    monkeypatch.setattr(cards, "_let_go", remove_oddly)
    cards.let_go()
    assert Pledge.waiting_to_let_go(now()) == []
    assert open_pages(stripe, ids[1]) == []
    assert Pledge.waiting_to_let_go(now() + dt.timedelta(minutes=1)) == [ids[0]]


# --- The post ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("ada@exämple.de", "ada@xn--exmple-cua.de"),
        ("Ada@Example.ORG", "Ada@example.org"),
        ("jörg@example.org", None),
    ],
)
def test_an_address_is_kept_as_mail_servers_take_it(app: Flask, typed: str, kept: str | None) -> None:
    form = CommentForm(MultiDict({"email": typed, "body": "Good luck."}))
    assert form.validate() is (kept is not None)
    if kept:
        pledge = confirm(a_pledge(a_case().round, email=str(form.email.data)))
        letter = letters.write(db.session.scalars(sa.select(Letter)).one())
        assert pledge.email == kept
        assert f"To: Ada Winter <{kept}>".encode() in bytes(letter)


def test_the_address_to_unsubscribe_stands_in_one_piece(app: Flask) -> None:
    case = a_case()
    pledge = confirm(a_pledge(case.round, wants_updates=True))
    case.publish_update(case.owner, "News", "It goes on.", now())
    letter = letters.write(db.session.scalars(sa.select(Letter).where(Letter.kind == "update")).one())
    where = f"http://127.0.0.1:8000/pledges/{pledge.link('unsubscribe')}/unsubscription"
    assert f"List-Unsubscribe: <{where}>\n".encode() in bytes(letter)


def test_the_password_is_told_to_no_mail_server_that_cannot_show_who_it_is(app: Flask, tmp_path: Path) -> None:
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
            "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]  # fmt: skip
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    forged = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    forged.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    told: list[str] = []

    def listen(server: Any, session: Any, envelope: Any, mechanism: str, said: Any) -> AuthResult:
        told.append(mechanism)
        return AuthResult(success=True)

    port = free_port()
    mail = Controller(
        Sink(), hostname="127.0.0.1", port=port, tls_context=forged, authenticator=listen, auth_require_tls=True
    )
    mail.start()
    try:
        changes = {"mail_url": f"smtp://ada:secret@127.0.0.1:{port}"}
        app.config["STANDING"] = app.config["STANDING"].model_copy(update=changes)
        confirm(a_pledge(a_case().round))
        letter = letters.write(db.session.scalars(sa.select(Letter)).one())
        refused = letters.send(letter)
        assert refused is not None and refused.words.startswith("SSLCertVerificationError")
    finally:
        mail.stop()
    assert told == []


# --- The lock ----------------------------------------------------------------------------------------------


def test_a_slow_sender_stops_no_other_writer(house: House) -> None:
    slug = a_case().slug
    site = urlsplit(house.url)
    begun = (
        f"POST /cases/{slug}/comments HTTP/1.1\r\nHost: {site.netloc}\r\nContent-Length: 200\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\nemail=ada%40example.org&body="
    )
    with socket.create_connection((site.hostname, site.port or 80)) as slow:
        slow.sendall(begun.encode())
        for number in range(3):
            comment = {"email": "ben@example.org", "body": f"Good luck, {number}."}
            assert requests.post(f"{house.url}/cases/{slug}/comments", comment, timeout=30).status_code == 200
        slow.sendall(b"x" * 200)
