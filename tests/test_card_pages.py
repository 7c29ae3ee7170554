"""Stripe's card pages while Stripe is slow: how many may wait for them, and how the clock makes the others.

The application of this process talks to a real sandbox; the job and the sweep are called here, one step at a time.
"""

import datetime as dt
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import requests
import time_machine
from flask import Flask
from flask.testing import FlaskClient

from jobs import card_pages, cards, deadline_capture
from jobs import sweep as the_sweep
from models import Lease, Pledge, begin_writing, db
from tests.house import eventually, free_port
from tests.made import a_case, a_pledge, a_user, case_at, confirm, keep, now, pledges_of
from tests.reading import read, said
from tests.sandbox_process import SandboxProcess, start_sandbox
from views.card_pages import WaitingRoom

ON_OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}
NOT_YET = "Your pledge does not count yet: no card was saved."
STILL_MADE = (
    f"{NOT_YET} Stripe's page for your card is still being made, which may take some minutes while many people pledge. "
    "Then you can continue to it from here."
)
READY = f"{NOT_YET} Stripe's page for your card is ready."
CREATE = "checkout.sessions.create"
SECOND = dt.timedelta(seconds=1)


@pytest.fixture(scope="module")
def _sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    running = start_sandbox(tmp_path_factory.mktemp("stripe"), None, free_port())
    yield running
    running.stop()


@pytest.fixture
def stripe(app: Flask, _sandbox: SandboxProcess) -> SandboxProcess:
    """The sandbox, empty, and the application, of which one thread may wait for it at a time."""
    requests.post(f"{_sandbox.url}/sandbox/reset", timeout=30).raise_for_status()
    changes = {"stripe_api_base": _sandbox.url, "checkout_origin": _sandbox.url, "card_pages_at_once": 1,
               "card_page_rate": 100.0}  # fmt: skip
    app.config["STANDING"] = app.config["STANDING"].model_copy(update=changes)
    return _sandbox


def fault(stripe: SandboxProcess, **plan: Any) -> None:
    requests.post(f"{stripe.url}/sandbox/faults", json={"operation": CREATE, **plan}, timeout=30).raise_for_status()


def calls(stripe: SandboxProcess) -> list[str]:
    """What Stripe was asked since this test began."""
    return [call["operation"] for call in requests.get(f"{stripe.url}/sandbox/calls", timeout=30).json()]


def pages(stripe: SandboxProcess, status: str = "open") -> list[str]:
    """The card pages that Stripe has."""
    address = f"{stripe.url}/v1/checkout/sessions?limit=100&status={status}"
    answer = requests.get(address, headers={"Authorization": "Bearer sk_test_x"}, timeout=30)
    return [page["url"] for page in answer.json()["data"]]


def send(app: Flask, address: str, **form: str) -> str:
    """Press a button of our pages, as a browser without JavaScript does; where it leads to."""
    with app.app_context():
        sent = app.test_client().post(address, data=form, headers=ON_OUR_PAGE)
    assert sent.status_code == 303
    return str(sent.location)


def pledge(app: Flask, slug: str, email: str) -> str:
    """Send the pledge form; where it leads to."""
    return send(app, f"/cases/{slug}/pledges", amount="25", name="Ada Winter", email=email, agreed="y",
                form_key=secrets.token_urlsafe(24))  # fmt: skip


def meanwhile(act: Callable[[], Any]) -> Future[Any]:
    """Begin something in a thread of its own."""
    pool = ThreadPoolExecutor(1)
    begun = pool.submit(act)
    pool.shutdown(wait=False)
    return begun


def job(app: Flask) -> None:
    """A worker that is rung for."""
    with app.app_context():
        begin_writing()
        card_pages.make_card_pages()
        db.session.remove()


def left_to_the_clock(app: Flask, **case: Any) -> tuple[str, str]:
    """(slug of the case, private page) of a pledge that was made while every place was taken."""
    slug = a_case(**case).slug
    keep()
    app.extensions["waiting_room"] = room = WaitingRoom(1)
    room.places.acquire()
    private = pledge(app, slug, "left@clock.example")
    room.places.release()
    return slug, private


def row(slug: str) -> tuple[str, bool, bool]:
    """Of a case's newest pledge: its state, whether it has a page, and whether the clock has something to do for it."""
    newest = pledges_of(slug)[-1]
    seen = newest.status, newest.session_id is not None, newest.next_at is not None
    db.session.rollback()
    return seen


# --- While everybody waits ---------------------------------------------------------------------------------


def test_who_pledges_while_all_places_are_taken_is_taken_on_at_once_and_finds_the_page_later(
    app: Flask, client: FlaskClient, stripe: SandboxProcess
) -> None:
    slug = a_case().slug
    keep()
    fault(stripe, fault="hang", seconds=6, times=1)
    first = meanwhile(lambda: pledge(app, slug, "first@waits.example"))
    eventually(lambda: len(pledges_of(slug)) == 1)
    db.session.rollback()
    private = pledge(app, slug, "second@waits.example")
    assert not first.done(), "the second was to be answered while the first waits"
    assert private.startswith("/pledges/")
    assert "stripe=" not in private
    assert row(slug) == ("started", False, True)
    page = read(client, private)
    assert said(page, "#pledge-state [role=status]") == STILL_MADE
    assert said(page, "#pledge-state .choices button") == "Continue to Stripe"
    assert "Refresh" not in client.get(private).headers
    again = str(page.select("[data-hx-get]")[0]["data-hx-get"])
    assert client.get(again, headers={"HX-Request": "true"}).status_code == 204
    assert "encore en préparation" in said(read(client, f"/fr{private}"), "#pledge-state [role=status]")
    job(app)
    assert row(slug) == ("started", True, False)
    swapped = read(client, again, headers={"HX-Request": "true"})
    assert said(swapped, "#pledge-state [role=status]") == READY
    assert said(read(client, private), "#pledge-state [role=status]") == READY
    (made,) = pages(stripe)
    assert send(app, f"{private}/card-page") == made
    assert first.result() in pages(stripe)
    assert len(pages(stripe)) == 2


def test_the_button_and_the_clock_at_once_ask_for_one_page(app: Flask, stripe: SandboxProcess) -> None:
    slug, private = left_to_the_clock(app)
    fault(stripe, fault="hang", when="after", seconds=1, times=1)
    clock = meanwhile(lambda: job(app))
    eventually(lambda: len(pages(stripe)) == 1)
    pressed = send(app, f"{private}/card-page")
    clock.result()
    assert [pressed] == pages(stripe)
    assert row(slug) == ("started", True, False)
    assert send(app, f"{private}/card-page") == pressed


def test_two_workers_at_once_ask_once_and_one_is_enough(app: Flask, stripe: SandboxProcess) -> None:
    left_to_the_clock(app)
    begin_writing()
    assert Lease.take(card_pages.LEASE, "another", now(), card_pages.LEASE_LENGTH)
    db.session.commit()
    job(app)
    assert calls(stripe) == []
    with time_machine.travel(now() + card_pages.LEASE_LENGTH + SECOND):
        job(app)
        job(app)
    assert calls(stripe) == [CREATE]


def test_a_place_is_given_back_when_stripe_fails_and_the_clock_asks_again(app: Flask, stripe: SandboxProcess) -> None:
    slug = a_case().slug
    keep()
    fault(stripe, fault="error", times=3)
    assert pledge(app, slug, "fails@once.example").endswith("?stripe=away")
    assert row(slug) == ("started", False, True)
    assert pledge(app, slug, "comes@after.example") in pages(stripe)
    assert row(slug) == ("started", True, False)
    with time_machine.travel(now() + dt.timedelta(seconds=5)):
        job(app)
    assert all(one.session_id for one in pledges_of(slug))
    assert len(pages(stripe)) == 2


def test_a_page_that_stripe_refuses_was_never_made_and_its_supporter_can_begin_another(
    app: Flask, stripe: SandboxProcess
) -> None:
    slug, private = left_to_the_clock(app)
    fault(stripe, fault="error", status=400, times=1)
    job(app)
    assert row(slug) == ("abandoned", False, False)
    assert send(app, f"{private}/card-page") in pages(stripe)
    assert row(slug) == ("started", True, False)


def test_while_stripe_is_away_the_clock_waits_longer_each_time(app: Flask, stripe: SandboxProcess) -> None:
    slug, _ = left_to_the_clock(app)
    fault(stripe, fault="error", times="always")
    job(app)
    assert row(slug) == ("started", False, True)
    asked = len(calls(stripe))
    job(app)
    assert len(calls(stripe)) == asked
    with time_machine.travel(now() + dt.timedelta(seconds=5)):
        job(app)
    assert len(calls(stripe)) > asked


# --- What nobody rang for ----------------------------------------------------------------------------------


def test_the_sweep_finds_what_no_worker_has_made(app: Flask, stripe: SandboxProcess) -> None:
    slug, _ = left_to_the_clock(app)
    the_sweep.sweep(now())
    assert row(slug) == ("started", False, True)
    the_sweep.sweep(now() + the_sweep.NOBODY_CAME + SECOND)
    assert row(slug) == ("started", True, False)


def test_the_page_that_a_process_died_for_is_asked_for_again(
    app: Flask, stripe: SandboxProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute and a half, in which Stripe may still answer it."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    slug = a_case().slug
    keep()
    with monkeypatch.context() as patched:
        patched.setattr("payments.card_page", die)
        with pytest.raises(KeyboardInterrupt):
            pledge(app, slug, "died@half-way.example")
    assert row(slug) == ("started", False, True)
    job(app)
    assert calls(stripe) == []
    with time_machine.travel(now() + card_pages.ASKING + SECOND):
        job(app)
    assert row(slug) == ("started", True, False)


# --- What ended meanwhile ----------------------------------------------------------------------------------


def test_a_pledge_that_is_cancelled_before_the_clock_comes_is_nothing_to_ask_stripe_for(
    app: Flask, client: FlaskClient, stripe: SandboxProcess
) -> None:
    slug, private = left_to_the_clock(app)
    send(app, f"{private}/cancellation")
    job(app)
    begin_writing()
    cards.let_go()
    assert calls(stripe) == []
    assert row(slug) == ("cancelled", False, False)
    assert STILL_MADE not in said(read(client, private))


def test_a_pledge_that_is_cancelled_while_the_clock_asks_leaves_no_page_open(
    app: Flask, stripe: SandboxProcess
) -> None:
    slug, private = left_to_the_clock(app)
    fault(stripe, fault="hang", when="after", seconds=1, times=1)
    clock = meanwhile(lambda: job(app))
    eventually(lambda: len(pages(stripe)) == 1)
    send(app, f"{private}/cancellation")
    clock.result()
    begin_writing()
    cards.let_go()
    assert (pages(stripe), len(pages(stripe, "expired"))) == ([], 1)
    assert row(slug) == ("cancelled", True, False)


def test_a_deadline_that_comes_first_decides_at_once_without_asking_stripe_for_any(
    app: Flask, stripe: SandboxProcess
) -> None:
    slug, _ = left_to_the_clock(app, target=2_500, ends_in=dt.timedelta(hours=1))
    round_id = case_at(slug).round.id
    db.session.rollback()
    with time_machine.travel(now() + dt.timedelta(hours=1, seconds=1), tick=False):
        job(app)
        begin_writing()
        deadline_capture.settle_round(round_id)
        assert case_at(slug).round.status == "missed"
    assert row(slug) == ("abandoned", False, False)
    assert calls(stripe) == []


def test_other_terms_are_noted_without_asking_stripe_for_the_page_of_the_old_ones(
    app: Flask, stripe: SandboxProcess
) -> None:
    slug, private = left_to_the_clock(app)
    assert send(app, f"{private}/amount", amount="40", agreed="y") in pages(stripe)
    assert calls(stripe) == [CREATE, "checkout.sessions.list"]
    assert [one.amount_pence for one in pledges_of(slug)] == [4_000]


def test_while_pledging_is_paused_no_page_is_made(app: Flask, stripe: SandboxProcess) -> None:
    slug, _ = left_to_the_clock(app)
    staff = a_user("staff")
    case_at(slug).switch("pledging_paused", True, "We look into it.", staff, now())
    db.session.commit()
    job(app)
    assert calls(stripe) == []
    case_at(slug).switch("pledging_paused", False, "All is well.", staff, now())
    db.session.commit()
    job(app)
    assert row(slug) == ("started", True, False)


def test_who_has_a_card_already_is_told_to_try_again_and_keeps_it(
    app: Flask, client: FlaskClient, stripe: SandboxProcess
) -> None:
    pledged = confirm(a_pledge(a_case().round, 2_500, email="has@card.example"))
    pledged.customer_id, pledge_id, link = None, pledged.id, pledged.link()
    keep()
    app.extensions["waiting_room"] = room = WaitingRoom(1)
    room.places.acquire()
    private = send(app, f"/pledges/{link}/card")
    assert private == f"/pledges/{link}?stripe=busy"
    assert "So many people are saving cards just now" in said(read(client, private), "[role=alert]")
    job(app)
    assert calls(stripe) == []
    kept = db.session.get_one(Pledge, pledge_id)
    assert (kept.status, kept.payment_method_id, kept.next_at) == ("confirmed", f"pm_{pledge_id}", None)
    db.session.rollback()
    room.places.release()
    assert send(app, f"/pledges/{link}/card") in pages(stripe)


def test_no_more_pages_a_second_are_asked_for_than_the_setting_says(app: Flask, stripe: SandboxProcess) -> None:
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"card_page_rate": 2.0})
    its_round = a_case().round
    for number in range(4):
        one = its_round.start_pledge(form_key=secrets.token_urlsafe(24), amount_pence=2_500, name="Ada",
                                     email=f"paced{number}@rate.example", shown_as="name", wants_updates=False,
                                     as_of=now())  # fmt: skip
        one.ask_card_page({"mode": "setup", "currency": "gbp", "success_url": "http://127.0.0.1/", "expires_at":
                           int(time.time()) + 7_200}, now() + dt.timedelta(hours=2))  # fmt: skip
        one.leave_card_page_to_clock(now())
    keep()
    job(app)
    asked = [call["at"] for call in requests.get(f"{stripe.url}/sandbox/calls", timeout=30).json()]
    assert len(pages(stripe)) == len(asked) == 4
    # Three pauses of half a second, of which a late thread may make up for 0.3; and some room for a busy machine.
    assert max(asked) - min(asked) >= 3 / 2 - 0.3 - 0.4
