"""Cards that are tried out: who must wait, who is asked for an address first, when pledging rests, and which pledges
are held. Nothing that a page says tells whether a card works."""

import datetime as dt
import itertools
import json
import re
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import requests
import sqlalchemy as sa
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import law
import letters
import payments
from jobs import card_pages, deadline_capture, inbox
from jobs import sweep as the_sweep
from jobs.charging import Answered
from law import Refused
from models import (
    Breaker,
    CardFailure,
    CardsTried,
    Case,
    Day,
    Event,
    Letter,
    OldCard,
    Pledge,
    Round,
    Source,
    StripeEvent,
    User,
    begin_writing,
    db,
    secret_mark,
)
from tests.at_stripe import sdk, type_card
from tests.crowd import in_another_thread
from tests.doorway import SAME_ORIGIN, logged_in, signature
from tests.made import (
    a_case,
    a_new_card,
    a_pledge,
    a_user,
    card_found,
    case_at,
    confirm,
    keep,
    look_anew,
    now,
    pledges_of,
)
from tests.mailbox import text_of
from tests.reading import read, said
from tests.sandbox_process import SandboxProcess
from tests.test_models_repairs import a_refused
from views import card_pages as card_page_views

SECOND, MINUTE, HOUR, DAY = (dt.timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
STRIPE = "https://stripe.example/"
REFUSED_NOW = "4000000000000002"
_numbers = itertools.count(1)


@dataclass
class Asked:
    """What Stripe was asked for while it is played here: the keys of card pages, and which pages were closed."""

    pages: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Stripe makes every card page that it is asked for, and closes it without a card."""
    said = Asked()

    def page(params: dict[str, Any], key: str) -> payments.CardPage:
        said.pages.append(key)
        return payments.CardPage(f"cs_{key}", STRIPE + key)

    def expire(session_id: str) -> payments.CardFound:
        said.closed.append(session_id)
        return payments.CardFound(session_id, True, False, None, None, None, None, None, None)

    monkeypatch.setattr(payments, "card_page", page)
    monkeypatch.setattr(payments, "expire_card_page", expire)
    return said


@pytest.fixture
def strict(app: Flask) -> None:
    """Three refused cards, or four unfinished card pages, are all that a case may have; the third with one card is
    odd."""
    limits = {"breaker_refused": 3, "breaker_unfinished": 4, "same_card": 3}
    app.config["STANDING"] = app.config["STANDING"].model_copy(update=limits)


def limited(app: Flask, **rates: str | int) -> None:
    app.config["STANDING"] = app.config["STANDING"].model_copy(update=rates)


def pledge(browser: FlaskClient, slug: str, email: str = "", address: str = "", place: str = "") -> TestResponse:
    """Fill in the pledge form and send it, from a network of one's own."""
    number = next(_numbers)
    typed = {
        "amount": "25", "name": "Ada Winter", "email": email or f"card{number}@example.org", "agreed": "y",
        "form_key": secrets.token_urlsafe(24),
    }  # fmt: skip
    where = {"REMOTE_ADDR": address or f"10.{number // 250}.{number % 250}.1"}
    return browser.post(f"{place}/cases/{slug}/pledges", data=typed, headers=SAME_ORIGIN, environ_overrides=where)


def last(slug: str) -> Pledge:
    return pledges_of(slug)[-1]


def told(kind: str = "") -> list[Letter]:
    """The letters that are owed, of a kind or all, the oldest first."""
    look_anew()
    return [one for one in db.session.scalars(sa.select(Letter).order_by(Letter.id)) if kind in ("", one.kind)]


def words(letter: Letter) -> str:
    return text_of(letters.write(letter))


def link_in(letter: Letter) -> str:
    found = re.search(r"https?://[^/]+(\S*/pledges/confirmation/\S+)", words(letter))
    assert found
    return found.group(1)


def refused(browser: FlaskClient, of: Pledge, *cards: str, page: str = "", key: str = "") -> None:
    """Stripe tells, signed, of cards that it could not save on the card page of a pledge; and we read its news."""
    for card in cards:
        intent = {
            "id": page or f"seti_{of.session_key}", "object": "setup_intent", "status": "requires_payment_method",
            "metadata": {"pledge_id": str(of.id), "pledge": of.public_id, "page": key or of.session_key},
            "last_setup_error": {
                "code": "card_declined", "decline_code": "generic_decline",
                "payment_method": {"object": "payment_method", "card": {"fingerprint": card}},
            },
        }  # fmt: skip
        raw = json.dumps({
            "id": f"evt_refused_{next(_numbers)}", "object": "event", "type": "setup_intent.setup_failed",
            "created": int(time.time()), "livemode": False, "data": {"object": intent},
        }).encode()  # fmt: skip
        answer = browser.post("/webhooks/stripe", data=raw, headers={"Stripe-Signature": signature(raw)})
        assert answer.status_code == 200
    begin_writing()
    inbox.drain_stripe_events()
    look_anew()


def saved(of: Pledge, card: str = "", at: dt.datetime | None = None) -> Pledge:
    """Its card is saved at Stripe, and its row learns of it."""
    keep()
    held = Pledge.hold(of.id)
    held.apply_card(replace(card_found(held, at), fingerprint=card or f"card-{held.id}"), now())
    keep()
    return db.session.get_one(Pledge, of.id)


def state(slug: str, at: dt.datetime | None = None) -> str:
    look_anew()
    return Breaker.state_for(case_at(slug).id, at or now())


def asks(case: Case) -> None:
    """Cards are being tried out for this case."""
    keep()
    Breaker.hold(case.id, now())._go("asks", CardsTried(21, 0, 0, 0), now())
    keep()


def counted(slug: str) -> tuple[int, int]:
    its_round = case_at(slug).round
    return its_round.pledged_pence, its_round.pledge_count


def sweep(at: dt.datetime) -> None:
    with time_machine.travel(at, tick=False):
        the_sweep.sweep(now())
    look_anew()


# --- Who must wait -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "tries", "another"),
    [
        ("rate_pledge", [("a@x.example", "192.0.2.1")] * 2, ("a@x.example", "198.51.100.1")),
        ("rate_network", [("a@x.example", "192.0.2.1"), ("b@x.example", "192.0.2.200")], ("c@x.example", "192.0.3.1")),
        ("rate_network", [("a@x.example", "2001:db8:1:1::1"), ("b@x.example", "2001:db8:1:1:ffff::1")],
         ("c@x.example", "2001:db8:1:2::1")),
        ("rate_card_page", [("a@x.example", "192.0.2.1"), ("A@X.example", "203.0.113.1")],
         ("c@x.example", "198.51.100.1")),
    ],
    ids=["an address", "a network of IPv4", "a network of IPv6", "an e-mail address"],
)  # fmt: skip
def test_the_third_card_page_of_an_hour_is_refused_by_address_network_and_e_mail_address_and_nobody_elses(
    app: Flask, client: FlaskClient, asked: Asked, rate: str, tries: list[tuple[str, str]], another: tuple[str, str]
) -> None:
    a_case(slug="the-case")
    limited(app, **{rate: "2 per hour"})
    assert [pledge(client, "the-case", *one).status_code for one in tries] == [303, 303]
    # The network's third comes from an address of its own, the e-mail address's third from a network of its own.
    email, address = tries[1]
    third = {"rate_network": ("third@x.example", address[:-1] + "9"), "rate_card_page": (email, "203.0.114.1")}
    late = pledge(client, "the-case", *third.get(rate, (email, address)))
    assert late.status_code == 429 and 3500 < int(late.headers["Retry-After"]) <= 3601
    assert len(asked.pages) == 2
    assert pledge(client, "the-case", *another).status_code == 303 and len(asked.pages) == 3


def test_a_card_page_that_is_asked_for_on_the_private_page_counts_for_its_address_too(
    app: Flask, client: FlaskClient, asked: Asked
) -> None:
    case = a_case()
    limited(app, rate_card_page="2 per hour")
    pledge(client, case.slug)
    where = f"/pledges/{last(case.slug).link()}/card-page"
    assert [client.post(where, headers=SAME_ORIGIN).status_code for _ in range(2)] == [303, 429]


def test_after_ten_refused_cards_an_e_mail_address_waits_an_hour_and_a_network_after_more_than_it_saves(
    client: FlaskClient, asked: Asked
) -> None:
    case = a_case()
    pledge(client, case.slug, "tries@example.org", "192.0.2.1")
    one = last(case.slug)
    for number in range(10):
        refused(client, one, f"card-{number}", page=f"seti_{number}")
    # Ten of the address are too many; ten of a network are not.
    late = pledge(client, case.slug, "TRIES@example.org", "203.0.113.1")
    assert (late.status_code, late.headers["Retry-After"]) == (429, "3600")
    pledge(client, case.slug, "honest@example.org", "192.0.2.2")
    honest = last(case.slug)
    assert honest.email == "honest@example.org"
    refused(client, honest, "card-of-the-eleventh")
    assert pledge(client, case.slug, "third@example.org", "192.0.2.3").status_code == 429
    # A library, or a mobile network: with two saved cards the eleventh refused one is nothing odd.
    Pledge.hold(honest.id).network, other = "", a_pledge(case_at(case.slug).round)
    for of in (confirm(honest), confirm(other)):
        of.network = one.network
    keep()
    assert pledge(client, case.slug, "third@example.org", "192.0.2.3").status_code == 303
    with time_machine.travel(now() + HOUR + SECOND):
        assert pledge(client, case.slug, "tries@example.org", "203.0.113.1").status_code == 303


def test_where_many_cards_were_refused_no_way_from_a_private_page_leads_to_a_card_page_and_less_may_be_pledged(
    client: FlaskClient, asked: Asked
) -> None:
    case = a_case(target=600_000)
    counts = confirm(a_pledge(case.round, email="many@tries.example"))
    counts_elsewhere = confirm(a_pledge(case.round, email="honest@tries.example"))
    keep()
    private, honest = f"/pledges/{counts.link()}", f"/pledges/{counts_elsewhere.link()}"
    pledge(client, case.slug, "many@tries.example", "192.0.2.1")
    unsaved = last(case.slug)
    for number in range(11):
        refused(client, unsaved, f"card-{number}", page=f"seti_{number}")
    pages = len(asked.pages)
    more = {"amount": "40", "agreed": "y"}

    def sent(where: str, typed: dict[str, str], address: str) -> TestResponse:
        return client.post(where, data=typed, headers=SAME_ORIGIN, environ_overrides={"REMOTE_ADDR": address})

    ways: list[tuple[str, dict[str, str]]] = [
        (f"/pledges/{unsaved.link()}/card-page", {}), (f"/pledges/{unsaved.link()}/amount", more),
        (f"{private}/card", {}), (f"{private}/amount", more),
    ]  # fmt: skip
    # By the address wherever they come from, and by the network whoever comes from there.
    answers = [sent(*way, "203.0.113.1") for way in ways]
    answers += [sent(f"{honest}/{way}", typed, "192.0.2.9") for way, typed in (("card", {}), ("amount", more))]
    assert [(one.status_code, one.headers.get("Retry-After")) for one in answers] == [(429, "3600")] * 6
    assert (len(asked.pages), asked.closed) == (pages, [])
    assert sent(f"{private}/amount", {"amount": "10", "agreed": "y"}, "192.0.2.1").status_code == 303
    assert db.session.get_one(Pledge, counts.id).amount_pence == 1_000
    assert sent(f"{honest}/card", {}, "203.0.113.1").headers["Location"].startswith(STRIPE)


def test_a_card_page_on_which_five_cards_were_refused_is_closed_and_no_other(client: FlaskClient, asked: Asked) -> None:
    case = a_case()
    pledge(client, case.slug)
    one = last(case.slug)
    refused(client, one, "a", "b", "c", "d")
    assert (asked.closed, last(case.slug).status) == ([], "started")
    refused(client, one, "e")
    assert (asked.closed, last(case.slug).status) == ([one.session_id], "abandoned")
    # News of the old page comes late, when there is another one.
    key = one.session_key
    client.post(f"/pledges/{one.link()}/card-page", headers=SAME_ORIGIN)
    assert (last(case.slug).status, last(case.slug).session_no) == ("started", 2)
    # To be quite sure, it was closed once more before there was another one.
    assert asked.closed == [f"cs_{key}"] * 2
    refused(client, one, "f", page=f"seti_{key}", key=key)
    assert CardFailure.on_page(f"seti_{key}") == 6
    assert (len(asked.closed), last(case.slug).status) == (2, "started")


def test_stripes_own_news_of_a_refused_card_is_counted_once_without_asking_stripe(
    asks_the_sandbox: Flask, client: FlaskClient, sandbox: SandboxProcess
) -> None:
    case = a_case()
    pledge(client, case.slug)
    one = last(case.slug)
    assert type_card(str(one.session_url), REFUSED_NOW).status_code == 402
    (event,) = sdk(sandbox).v1.events.list({"type": "setup_intent.setup_failed"}).data
    raw = json.dumps(event.to_dict()).encode()
    before = len(sandbox_calls(sandbox))
    for _ in range(2):
        client.post("/webhooks/stripe", data=raw, headers={"Stripe-Signature": signature(raw)})
    begin_writing()
    inbox.drain_stripe_events()
    look_anew()
    (failure,) = db.session.scalars(sa.select(CardFailure))
    fingerprint = event.data.object["last_setup_error"]["payment_method"]["card"]["fingerprint"]
    assert (failure.pledge_id, failure.network) == (one.id, one.network) and len(one.network) == 24
    assert len(failure.card_mark) == 24 and fingerprint not in failure.card_mark and "@" not in failure.email_mark
    assert len(sandbox_calls(sandbox)) == before
    sweep(now() + dt.timedelta(days=30, minutes=1))
    assert db.session.scalars(sa.select(CardFailure)).all() == []


def sandbox_calls(sandbox: SandboxProcess) -> list[Any]:
    return list(requests.get(f"{sandbox.url}/sandbox/calls", timeout=30).json())


def people_with_odd_cards(name: str) -> tuple[str, list[tuple[Pledge, str]]]:
    """Seven supporters of one case: three with one card; one for whom three cards were refused before; one whose card
    was refused elsewhere; one from a network where many were; and one with nothing odd, whose address is confirmed."""
    case, elsewhere = a_case(slug=name), a_pledge(a_case(slug=f"{name}-elsewhere").round)
    here = [a_pledge(case.round, email=f"{name}-{number}@example.org") for number in range(7)]
    here[5].network = f"network of {name}"
    here[6].email_confirmed_at = now()
    cards = [f"{name}: one card"] * 3 + [f"{name}: {number}" for number in range(4)]
    refusals = [(here[3], f"{name}: typed {number}", "") for number in range(3)]
    refusals += [(elsewhere, cards[4], "")] * 3 + [(elsewhere, "", here[5].network)] * 11
    for of, card, network in refusals:
        number = next(_numbers)
        db.session.add(CardFailure(
            event_id=f"evt_{name}_{number}", pledge_id=of.id, round_id=elsewhere.round_id, setup_intent_id="seti_1",
            at=now(), email_mark=f"{name} {number}", network=network,
            card_mark=secret_mark("card", card) if card else "", confirmed=False,
        ))  # fmt: skip
    keep()
    return name, list(zip(here, cards, strict=True))


@pytest.mark.parametrize("breaker_asks", [False, True], ids=["closed", "asks"])
def test_cards_that_are_written_down_together_are_doubted_as_those_that_come_one_by_one(
    app: Flask, monkeypatch: pytest.MonkeyPatch, breaker_asks: bool
) -> None:
    limited(app, same_card=3)
    found: dict[str, payments.CardFound] = {}
    monkeypatch.setattr(payments, "look_at_card_page", lambda session_id, settings: found[session_id])
    outcomes = []
    for name in ("one-by-one", "together"):
        slug, people = people_with_odd_cards(name)
        if breaker_asks:
            asks(case_at(slug))
        for of, card in people:
            if name == "one-by-one":
                saved(of, card)
                continue
            found[str(of.session_id)] = replace(card_found(of), fingerprint=card)
            StripeEvent.store(
                event_id=f"evt_{of.session_id}", kind="checkout.session.completed", object_id=str(of.session_id),
                created_at=now(), payload="{}", as_of=now(),
            )  # fmt: skip
        keep()
        inbox.drain_stripe_events()
        look_anew()
        its_round = case_at(slug).round
        rows = pledges_of(slug)
        kinds = [sorted(one.kind for one in told() if one.subject == f"pledge:{row.id}") for row in rows]
        days = [(day.pledges, day.pence) for day in Day.of(its_round)]
        history = [[(event.what, event.before, event.after) for event in row.history()] for row in rows]
        outcomes.append(
            ([row.held_because for row in rows], counted(slug), kinds, days, Source.sums(its_round), history)
        )
    doubts: list[str | None] = [None, None, "same_card", "many_cards", "card_refused", "network", None]
    if breaker_asks:
        doubts[:2] = ["unconfirmed"] * 2
    assert outcomes[0][:2] == (doubts, (2_500, 1) if breaker_asks else (7_500, 3))
    assert outcomes[1] == outcomes[0]


# --- The way back ------------------------------------------------------------------------------------------


def test_the_way_back_from_stripe_believes_nothing_of_its_address(
    client: FlaskClient, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who has saved no card opens the address that a saved card leads to, with all that could be wished."""
    case, looked = a_case(), []

    def still_open(session_id: str, *_: object) -> payments.CardFound:
        looked.append(session_id)
        return payments.CardFound(session_id, False, False, STRIPE, "seti_1", None, None, None, None)

    monkeypatch.setattr(payments, "look_at_card_page", still_open)
    pledge(client, case.slug)
    one = last(case.slug)
    wished = "status=complete&amount=100000&setup_intent=seti_1&redirect_status=succeeded"
    back = client.get(f"/pledges/return?session_id={one.session_id}&{wished}")
    assert (back.status_code, back.location, looked) == (303, f"/pledges/{one.link()}", [one.session_id])
    assert client.get(f"/pledges/return?session_id=cs_of_somebody&{wished}").status_code == 404
    assert (last(case.slug).status, last(case.slug).amount_pence, counted(case.slug)) == ("started", 2_500, (0, 0))


def test_whoever_comes_back_again_and_again_has_stripe_asked_once_in_five_seconds_and_sixty_times_an_hour(
    app: Flask, client: FlaskClient, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, looked = a_case(), []

    def still_open(session_id: str) -> payments.CardFound:
        looked.append(session_id)
        return payments.CardFound(session_id, False, False, STRIPE, "seti_1", None, None, None, None)

    def no_answer(intent_id: str) -> payments.ChargeFound:
        looked.append(intent_id)
        return payments.ChargeFound("unknown", intent_id, None, 0)

    monkeypatch.setattr(payments, "look_at_card_page", still_open)
    monkeypatch.setattr(payments, "look_at_charge", no_answer)
    pledge(client, case.slug)
    one = last(case.slug)
    there, private = f"/pledges/return?session_id={one.session_id}", f"/pledges/{one.link()}"
    with time_machine.travel(now() + SECOND, tick=False):
        first, *others = [client.get(there) for _ in range(20)]
    assert first.location == private and {other.location for other in others} == {f"{private}?stripe=asked"}
    assert looked == [one.session_id] and "Retry-After" not in others[0].headers
    assert "We are checking with Stripe whether your card was saved." in client.get(others[0].location).text
    # By the address, whatever it comes back from: forty of its sixty are left.
    limited(app, rate_look="1000 per second")
    for _ in range(60):
        client.get(there)
    assert len(looked) == 1 + 40
    # Another address is not in its way, and neither is another payment.
    assert client.get(there, environ_overrides={"REMOTE_ADDR": "192.0.2.77"}).location == private
    limited(app, rate_look="1 per 5 seconds")
    one = db.session.get_one(Pledge, one.id)
    one.payment_intent_id, one.bank_url = "pi_1", "https://bank.example/approve"
    keep()
    bank = "/pledges/bank-return?payment_intent=pi_1"
    backs = [client.get(bank, environ_overrides={"REMOTE_ADDR": "192.0.2.77"}).location for _ in range(2)]
    assert backs == [private, f"{private}?stripe=asked"] and looked[-2:] == [one.session_id, "pi_1"]


# --- No page says whether a card works ---------------------------------------------------------------------


def test_nothing_that_we_show_or_write_tells_of_a_refused_card(client: FlaskClient, asked: Asked) -> None:
    case = a_case()
    pledge(client, case.slug)
    one = last(case.slug)
    where, back = f"/pledges/{one.link()}", f"/pledges/unfinished/{one.link('unfinished')}"
    before, mail = client.get(where).text, len(told())
    refused(client, one, "a", "b", "c", "d")
    assert client.get(where).text == before and len(told()) == mail
    assert client.get(back).headers["Location"] == where
    assert [line.what for line in last(case.slug).history()] == ["started"]
    refused(client, one, "e")
    # The page is closed now, and what is said is what is said of everybody who left it.
    closed, another = client.get(where).text, a_pledge(case_at(case.slug).round)
    another.abandon(now())
    keep()
    left = client.get(f"/pledges/{another.link()}").text
    for page in (closed, left):
        assert "no card was saved" in page
        assert not re.search(r"declin|refus|insufficient|invalid|expired|valid", page.partition("<main")[2])
    assert len(told()) == mail


def test_no_page_asks_for_a_card_or_lets_a_script_or_a_frame_of_stripes_in(client: FlaskClient) -> None:
    case = a_case()
    keep()
    page = client.get(f"/cases/{case.slug}/pledge")
    assert not re.search(r"<iframe|js\.stripe|cc-number|cc-csc|cardnumber", page.text, re.IGNORECASE)
    assert "js.stripe" not in page.headers["Content-Security-Policy"]


# --- The breaker -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("strict")
def test_the_fourth_refused_card_of_ten_minutes_has_this_case_ask_for_an_address_and_staff_are_told_once(
    client: FlaskClient, asked: Asked
) -> None:
    staff = a_user("staff")
    case, other = a_case(), a_case()
    pledge(client, case.slug)
    one = last(case.slug)
    refused(client, one, "a", "b", "c")
    assert state(case.slug) == "closed"
    refused(client, one, "d")
    assert (state(case.slug), state(other.slug)) == ("asks", "closed")
    refused(client, one, "e")
    (letter,) = told("card_testing")
    assert (letter.subject, letter.occasion.split(":")[2]) == (f"user:{staff.id}", "asks")
    assert f"“{case.title}”" in words(letter) and "/staff/tried-cards" in words(letter)
    (event,) = db.session.scalars(sa.select(Event).where(Event.subject_kind == "breaker"))
    assert (event.before, event.after, event.case_id) == ("closed", "asks", case.id)
    # Half an hour later it ends by itself, and what is ten minutes old is forgotten.
    sweep(now() + 29 * MINUTE)
    assert state(case.slug, now() + 29 * MINUTE) == "asks"
    sweep(now() + 31 * MINUTE)
    assert state(case.slug, now() + 31 * MINUTE) == "closed" and len(told("card_testing")) == 1


@pytest.mark.usefixtures("strict")
def test_as_many_refused_cards_beside_saved_ones_are_what_a_busy_case_has(client: FlaskClient, asked: Asked) -> None:
    """Half of the saved cards are added to what may be refused, and twice as many to what may be unfinished."""
    case = a_case(pledged=[2_500, 2_500])
    pledge(client, case.slug)
    refused(client, last(case.slug), "a", "b", "c", "d")
    assert state(case.slug) == "closed"
    refused(client, last(case.slug), "e")
    assert state(case.slug) == "asks"


@pytest.mark.usefixtures("strict")
def test_the_sixth_card_page_that_is_left_unfinished_waits_for_an_address_but_not_where_cards_are_saved(
    client: FlaskClient, asked: Asked
) -> None:
    quiet, busy = a_case(), a_case(pledged=[2_500])
    keep()
    for slug in (quiet.slug, busy.slug):
        with time_machine.travel(now() - law.BREAKER_PATIENCE - SECOND):
            for _ in range(5):
                assert pledge(client, slug).status_code == 303
        assert pledge(client, slug).status_code == 303
    assert [state(slug) for slug in (quiet.slug, busy.slug)] == ["asks", "closed"]
    waiting = [one for one in pledges_of(quiet.slug) if one.confirm_by]
    assert [one.id for one in waiting] == [last(quiet.slug).id]
    assert (waiting[0].session_no, waiting[0].session_params, waiting[0].status) == (0, None, "started")
    assert len(asked.pages) == 5 + 6


@pytest.mark.usefixtures("strict")
def test_of_those_who_may_still_be_typing_their_card_every_fifth_counts_as_one_who_left(
    client: FlaskClient, asked: Asked
) -> None:
    """A case on television: twenty-five begin before the first card is saved, where four may be left unfinished."""
    case = a_case()
    keep()
    for _ in range(25):
        assert pledge(client, case.slug).status_code == 303
    assert state(case.slug) == "closed"
    pledge(client, case.slug)
    assert state(case.slug) == "asks" and len(asked.pages) == 25


@pytest.mark.usefixtures("strict")
def test_within_one_second_the_26th_waits_for_an_address_though_not_each_is_counted_for(
    client: FlaskClient, asked: Asked
) -> None:
    case = a_case()
    keep()
    with time_machine.travel(now(), tick=False):
        for _ in range(25):
            pledge(client, case.slug)
        assert state(case.slug) == "closed"
        pledge(client, case.slug)
        assert state(case.slug) == "asks" and len(asked.pages) == 25


@pytest.mark.parametrize(
    ("before", "begun"),
    [
        # Five who may still be typing have left, all at once; or what was saved lies before the ten minutes.
        ([], law.BREAKER_WINDOW - law.BREAKER_PATIENCE),
        ([2_500], MINUTE),
    ],
)
@pytest.mark.usefixtures("strict")
def test_what_comes_of_age_between_two_who_pledge_within_one_second_is_not_overlooked(
    client: FlaskClient, asked: Asked, before: list[int], begun: dt.timedelta
) -> None:
    with time_machine.travel(now(), tick=False):
        start, case = now(), a_case(pledged=before)
        keep()
    with time_machine.travel(start + begun, tick=False):
        for _ in range(5):
            pledge(client, case.slug)
    states = []
    for moment in (start + law.BREAKER_WINDOW - SECOND / 2, start + law.BREAKER_WINDOW + SECOND / 3):
        with time_machine.travel(moment, tick=False):
            pledge(client, case.slug)
            states.append(state(case.slug))
    assert states == ["closed", "asks"]


@pytest.mark.usefixtures("strict")
def test_three_times_as_much_on_many_cases_has_the_whole_site_ask(client: FlaskClient, asked: Asked) -> None:
    slugs = [a_case().slug for _ in range(5)]
    keep()
    for slug in slugs[:3]:
        pledge(client, slug)
        refused(client, last(slug), "a", "b", "c")
    pledge(client, slugs[3])
    assert {state(slug) for slug in slugs} == {"closed"}
    refused(client, last(slugs[3]), "d")
    assert {state(slug) for slug in slugs} == {"asks"}
    (breaker,) = Breaker.open_ones(now())
    assert (breaker.scope, breaker.case) == ("site", None)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(("place", "said"), [("", "Confirm your e-mail address"), ("/fr", "Confirmez votre adresse")])
def test_while_it_asks_nobody_is_sent_to_stripe_before_the_button_in_the_letter_was_pressed(
    client: FlaskClient, asked: Asked, place: str, said: str
) -> None:
    case = a_case()
    asks(case)
    sent = pledge(client, case.slug, "waits@example.org", place=place)
    one, private = last(case.slug), sent.headers["Location"]
    assert (private, asked.pages) == (f"{place}/pledges/{one.link()}", [])
    page = client.get(private).text
    assert "waits@example.org" in page and "card-page" in page and "Continue to Stripe" not in page
    (letter,) = told("confirmation")
    assert letters.is_true(letter) and letter.language == ("fr" if place else "en-GB")
    message = letters.write(letter)
    # Whoever reads there may be a stranger, to whom nobody may say anything by the name that was typed.
    assert str(message["To"]) == "waits@example.org" and "Ada" not in text_of(message)
    link = link_in(letter)
    assert link.startswith(f"{place}/pledges/confirmation/")
    for _ in range(2):  # A mail scanner opens it, and then its reader.
        opened = client.get(link)
        assert opened.status_code == 200 and said in opened.text
    assert (asked.pages, last(case.slug).email_confirmed_at) == ([], None)
    pressed = [client.post(link, headers=SAME_ORIGIN).headers["Location"] for _ in range(2)]
    assert pressed == [f"{STRIPE}pledge-{one.id}-session-1"] * 2 and len(asked.pages) == 1
    assert not letters.is_true(told("confirmation")[0])
    assert saved(last(case.slug)).status == "confirmed" and counted(case.slug) == (2_500, 1)
    assert client.get(link).status_code == 409


@pytest.mark.usefixtures("strict")
def test_a_card_page_that_was_open_before_leads_to_a_pledge_that_counts_once_its_address_is_confirmed(
    client: FlaskClient, asked: Asked
) -> None:
    case = a_case(target=600_000)
    keep()
    private = f"/pledges/{a_pledge(case_at(case.slug).round, email='before@example.org').link()}"
    asks(case)
    held = saved(last(case.slug))
    assert (held.status, held.held_because, counted(case.slug)) == ("held", "unconfirmed", (0, 0))
    assert told("looked_at") + told("pledges_held") == [] and Pledge.held(10) == []
    assert "before@example.org" in client.get(private).text
    client.post(f"{private}/card-page", headers=SAME_ORIGIN)
    first, second = (link_in(one) if number else "" for number, one in enumerate(told("confirmation")))
    assert first == "" and client.get(second).status_code == 200
    assert client.post(second, headers=SAME_ORIGIN).headers["Location"] == private
    assert (last(case.slug).status, counted(case.slug), asked.pages) == ("confirmed", (2_500, 1), [])
    assert [one.what for one in last(case.slug).history()][-2:] == ["address_confirmed", "confirmed"]


@pytest.mark.usefixtures("strict")
def test_the_same_form_with_other_terms_while_the_address_waits_is_what_was_agreed_to_last(
    client: FlaskClient, asked: Asked
) -> None:
    case = a_case()
    asks(case)
    typed = {"amount": "50", "name": "Ada Winter", "email": "mistyped@example.org", "agreed": "y",
             "form_key": secrets.token_urlsafe(24)}  # fmt: skip
    for again in ({}, {}, {"amount": "25", "email": "typed@example.org"}):
        sent = client.post(f"/cases/{case.slug}/pledges", data=typed | again, headers=SAME_ORIGIN)
        assert sent.status_code == 303
    (one,) = pledges_of(case.slug)[-1:]
    assert (one.amount_pence, one.email, one.status) == (2_500, "typed@example.org", "started")
    # Sent twice in the same words it is one letter.
    assert [str(letters.write(letter)["To"]) for letter in told("confirmation")][-1] == "typed@example.org"
    assert len([letter for letter in told("confirmation") if letter.subject == f"pledge:{one.id}"]) == 2
    client.post(link_in(told("confirmation")[-1]), headers=SAME_ORIGIN)
    assert asked.pages == [f"pledge-{one.id}-session-1"] and last(case.slug).agreements[-1].amount_pence == 2_500


@pytest.mark.usefixtures("strict")
def test_no_page_of_before_is_made_or_kept_for_a_pledge_that_asks_for_its_address(
    app: Flask, client: FlaskClient, asked: Asked
) -> None:
    case = a_case()
    keep()
    app.extensions["waiting_room"] = room = card_page_views.WaitingRoom(1)
    room.places.acquire()
    private = pledge(client, case.slug, "left@example.org").headers["Location"]
    claimed = Pledge.claim_page(last(case.slug).id, now(), card_pages.ASKING)
    assert claimed is not None
    wish = card_pages.Wish(claimed.id, claimed.session_key, dict(claimed.session_params or {}))
    keep()
    asks(case_at(case.slug))
    client.post(f"{private}/address", data={"email": "mended@example.org"}, headers=SAME_ORIGIN)
    # Who had claimed it has not begun, or is slow to write down what Stripe has answered.
    begin_writing()
    card_pages._put_back([wish.pledge_id])
    assert Pledge.waiting_for_page(now() + HOUR, 10) == [] and last(case.slug).next_at is None
    card_pages._write_down(Answered(wish, payments.CardPage("cs_of_before", STRIPE), None))
    one = last(case.slug)
    assert (one.session_id, one.status) == (None, "started") and one.confirm_by is not None


@pytest.mark.usefixtures("strict")
def test_the_clock_holds_no_breaker_while_it_waits_for_a_round(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever pledges holds the round and then the breaker: the other way round they would wait for each other."""
    case = a_case()
    asks(case)
    pledge(client, case.slug)
    case_id, until = case.id, Breaker.hold(case.id, now()).until
    keep()
    find, found = Pledge.rounds_of_unanswered, []

    def meanwhile(as_of: dt.datetime) -> list[int]:
        in_another_thread(app, lambda: Breaker.hold(case_id, as_of))
        found.extend(find(as_of))
        return find(as_of)

    monkeypatch.setattr(Pledge, "rounds_of_unanswered", meanwhile)
    the_sweep.sweep(until + 2 * DAY)
    assert found == [case.round.id] and last(case.slug).status == "abandoned"
    assert state(case.slug) == "closed"


@pytest.mark.usefixtures("strict")
def test_a_pledge_that_staff_let_count_before_its_address_was_confirmed_can_be_raised_and_repaired(
    client: FlaskClient, desk: FlaskClient, asked: Asked
) -> None:
    case = a_case(target=2_500)
    keep()
    private = f"/pledges/{a_pledge(case_at(case.slug).round, email='known@example.org').link()}"
    asks(case)
    where = f"/staff/pledges/{saved(last(case.slug)).public_id}"
    assert press(desk, f"{where}/counting", where, **{"held-reason": "I know her."}).status_code == 303
    assert (last(case.slug).status, last(case.slug).confirm_by) == ("confirmed", None)
    raised = client.post(f"{private}/amount", data={"amount": "50", "agreed": "y"}, headers=SAME_ORIGIN)
    assert raised.headers["Location"] == f"{STRIPE}{asked.pages[0]}"
    with time_machine.travel(case_at(case.slug).round.deadline + MINUTE):
        deadline_capture.settle_round(case_at(case.slug).round.id)
        one = Pledge.hold(last(case.slug).id)
        one.claim(now(), MINUTE)
        expired = payments.ChargeFound("declined", f"pi_{one.id}", "ch_1", 0, "expired_card", soft=False)
        one.apply_charge(expired, now(), asked=True)
        keep()
        mended = client.post(f"{private}/card", headers=SAME_ORIGIN)
        assert mended.headers["Location"] == f"{STRIPE}{asked.pages[1]}" and len(asked.pages) == 2


@pytest.mark.usefixtures("strict")
def test_a_pledge_whose_card_has_become_odd_until_its_address_is_confirmed_is_looked_at_and_does_not_count(
    app: Flask, client: FlaskClient
) -> None:
    a_user("staff")
    case = a_case()
    asks(case)
    ids = [with_card(case.slug, "one-card", f"{who}@odd.example").id for who in ("first", "second", "third")]
    because = [(one.status, one.held_because) for one in pledges_of(case.slug)]
    assert because == [("held", "unconfirmed"), ("held", "unconfirmed"), ("held", "same_card")]
    first = db.session.get_one(Pledge, ids[0])
    link = link_in(next(one for one in told("confirmation") if one.subject == f"pledge:{first.id}"))
    assert client.post(link, headers=SAME_ORIGIN).headers["Location"] == f"/pledges/{first.link()}"
    look_anew()
    first = db.session.get_one(Pledge, ids[0])
    assert (first.status, first.held_because, counted(case.slug)) == ("held", "same_card", (0, 0))
    assert [one.subject for one in told("looked_at")] == [f"pledge:{ids[2]}", f"pledge:{ids[0]}"]
    assert [one.id for one in Pledge.held(10)] == [ids[0], ids[2]] and client.get(link).status_code == 409


def test_from_a_quarter_of_what_opens_the_breaker_on_a_saved_card_waits_for_its_address(
    app: Flask, client: FlaskClient, asked: Asked
) -> None:
    limited(app, breaker_refused=8)
    case = a_case()
    keep()
    ids = []
    for _ in range(2):
        ids.append(a_pledge(case_at(case.slug).round).id)
        keep()
    early, late = ids
    for pledge_id, cards, status in ((early, "ab", "confirmed"), (late, "c", "held")):
        refused(client, db.session.get_one(Pledge, pledge_id), *cards)
        assert saved(db.session.get_one(Pledge, pledge_id)).status == status
    assert (state(case.slug), counted(case.slug)) == ("closed", (2_500, 1))
    client.post(link_in(told("confirmation")[0]), headers=SAME_ORIGIN)
    assert counted(case.slug) == (5_000, 2)


@pytest.mark.usefixtures("strict")
def test_the_letter_can_be_sent_again_and_only_the_last_link_works_for_the_address_that_it_went_to(
    client: FlaskClient, asked: Asked
) -> None:
    case = a_case()
    asks(case)
    private = pledge(client, case.slug, "first@example.org").headers["Location"]
    first = link_in(told("confirmation")[0])
    client.post(f"{private}/card-page", headers=SAME_ORIGIN)
    assert client.get(first).status_code == 404
    second = link_in(told("confirmation")[1])
    # Another address: what was sent to the one before opens nothing.
    client.post(f"{private}/address", data={"email": "second@example.org"}, headers=SAME_ORIGIN)
    third = told("confirmation")[2]
    assert (client.get(second).status_code, client.post(second, headers=SAME_ORIGIN).status_code) == (404, 404)
    assert str(letters.write(third)["To"]) == "second@example.org" and asked.pages == []
    with time_machine.travel(now() + law.CONFIRMATION_WAITS + SECOND):
        assert client.post(link_in(third), headers=SAME_ORIGIN).status_code == 409
    assert client.post(link_in(third), headers=SAME_ORIGIN).status_code == 303 and len(asked.pages) == 1
    # Confirmed once, another card page needs no more of it; another address does.
    client.post(f"{private}/amount", data={"amount": "30", "agreed": "y"}, headers=SAME_ORIGIN)
    assert (len(told("confirmation")), len(asked.pages), last(case.slug).amount_pence) == (3, 2, 3_000)
    client.post(f"{private}/address", data={"email": "third@example.org"}, headers=SAME_ORIGIN)
    assert len(told("confirmation")) == 4 and last(case.slug).session_id is None


@pytest.mark.usefixtures("strict")
def test_refused_cards_of_confirmed_addresses_have_pledging_rest_until_half_an_hour_is_over(
    client: FlaskClient, asked: Asked
) -> None:
    a_user("staff")
    case = a_case()
    pledge(client, case.slug)
    first = last(case.slug)
    refused(client, first, "a", "b", "c", "d")
    # However many were refused before anybody was asked for an address: those pages were open already.
    for number in range(20):
        refused(client, first, f"old-{number}", page=f"seti_old_{number}")
    assert state(case.slug) == "asks"
    pledge(client, case.slug)
    client.post(link_in(told("confirmation")[0]), headers=SAME_ORIGIN)
    refused(client, last(case.slug), "a", "b", "c")
    assert state(case.slug) == "asks"
    assert "the link in that letter leads to Stripe's page" in client.get(f"/cases/{case.slug}/pledge").text
    page = read(client, f"/cases/{case.slug}")
    seen = page.select("#pledge-total")[0]["data-hx-get"]
    assert len(page.select("#pledge-now, #pledge-now-again")) == 2
    refused(client, last(case.slug), "d")
    assert state(case.slug) == "paused"
    # The site, which bears three times as much, only asks.
    breaker_id = Breaker.hold(case.id, now()).id
    told_of = [one.occasion.split(":")[1:3] for one in told("card_testing")]
    assert [state for number, state in told_of if number == str(breaker_id)] == ["asks", "paused"]
    before, pages = len(pledges_of(case.slug)), len(asked.pages)
    form = client.get(f"/cases/{case.slug}/pledge")
    assert form.status_code == 409 and "Pledging is paused for a while" in form.text and "Back to " in form.text
    # Its page, which was opened before, loses its button by itself.
    assert client.get(str(seen), headers={"HX-Request": "true"}).status_code == 200
    page = read(client, f"/cases/{case.slug}")
    assert "Pledging is paused." in page.text and not page.select("#pledge-now, #pledge-now-again")
    seen = page.select("#pledge-total")[0]["data-hx-get"]
    assert client.get(str(seen), headers={"HX-Request": "true"}).status_code == 204
    assert pledge(client, case.slug).status_code == 409
    assert client.post(f"/pledges/{last(case.slug).link()}/amount", data={"amount": "30", "agreed": "y"},
                       headers=SAME_ORIGIN).status_code == 409  # fmt: skip
    assert (len(pledges_of(case.slug)), len(asked.pages)) == (before, pages)
    # What was pledged stands: a card that is saved counts, and can be taken back.
    assert saved(first).status == "held"  # four other cards were refused for it
    assert client.post(f"/pledges/{first.link()}/cancellation", headers=SAME_ORIGIN).status_code == 303
    sweep(now() + 31 * MINUTE)
    with time_machine.travel(now() + 31 * MINUTE):
        assert pledge(client, case.slug).status_code == 303 and state(case.slug) == "closed"


@pytest.mark.usefixtures("strict")
def test_forms_alone_however_many_keep_it_asking_and_never_have_pledging_rest(
    client: FlaskClient, asked: Asked
) -> None:
    case = a_case()
    keep()
    for _ in range(40):
        pledge(client, case.slug)
    assert (state(case.slug), len(asked.pages)) == ("asks", 25)
    with time_machine.travel(now() + 26 * MINUTE):
        for _ in range(5):
            pledge(client, case.slug)
    sweep(now() + 30 * MINUTE + SECOND)
    # They were still coming, so it goes on; and it is no new occasion to write of.
    assert state(case.slug, now() + 45 * MINUTE) == "asks" and len(asked.pages) == 25
    real = pledge(client, case.slug, "real@example.org").headers["Location"]
    assert client.post(link_in(told("confirmation")[-1]), headers=SAME_ORIGIN).headers["Location"].startswith(STRIPE)
    assert real and saved(last(case.slug)).status == "confirmed"


@pytest.mark.usefixtures("strict")
def test_while_it_asks_a_network_may_leave_three_letters_unanswered_and_one_more_for_each_answer(
    client: FlaskClient, asked: Asked
) -> None:
    case = a_case()
    asks(case)
    answers = [pledge(client, case.slug, address=f"192.0.2.{number}") for number in range(1, 5)]
    assert ([one.status_code for one in answers], len(told("confirmation"))) == ([303, 303, 303, 429], 3)
    assert answers[3].headers["Retry-After"] == "3600"
    assert pledge(client, case.slug, address="192.0.3.1").status_code == 303
    client.post(link_in(told("confirmation")[0]), headers=SAME_ORIGIN)
    # Two wait now, and one has answered.
    later = [pledge(client, case.slug, address=f"192.0.2.{number}").status_code for number in range(5, 8)]
    assert later == [303, 303, 429]
    with time_machine.travel(now() + HOUR + SECOND):
        assert pledge(client, case.slug, address="192.0.2.9").status_code == 303


@pytest.mark.usefixtures("strict")
def test_who_never_confirms_is_let_go_of_at_once_and_stripe_is_not_asked_when_the_round_closes(
    app: Flask, client: FlaskClient, asked: Asked
) -> None:
    case = a_case(target=2_500, pledged=[2_500])
    asks(case)
    for _ in range(3):
        pledge(client, case.slug)
    sweep(now() + law.CONFIRMATION_WAITS - MINUTE)
    assert [one.status for one in pledges_of(case.slug)[1:]] == ["started"] * 3
    sweep(now() + law.CONFIRMATION_WAITS + MINUTE)
    assert [(one.status, one.confirm_by) for one in pledges_of(case.slug)[1:]] == [("abandoned", None)] * 3
    asks(case)
    pledge(client, case.slug)
    its_round = case_at(case.slug).round
    Round.hold(its_round.id).move_deadline(now() - SECOND, "test", now())
    keep()
    deadline_capture.settle_round(its_round.id)
    assert case_at(case.slug).round.status == "met" and last(case.slug).status == "abandoned"
    assert (asked.pages, asked.closed) == ([], [])


def test_while_pledging_rests_no_card_takes_the_place_of_one_that_counts_but_a_refused_payment_can_be_paid(
    client: FlaskClient, asked: Asked
) -> None:
    payable = a_refused()
    keep()
    case = a_case(pledged=[2_500])
    asks(case)
    for case_id in (case.id, None):
        Breaker.hold(case_id, now()).status = "asks"
        Breaker.hold(case_id, now())._go("paused", CardsTried(21, 21, 0, 0), now())
    keep()
    counts = last(case.slug)
    answer = client.post(f"/pledges/{counts.link()}/card", headers=SAME_ORIGIN)
    assert answer.status_code == 409 and "Pledging is paused for a while" in answer.text and asked.pages == []
    Pledge.hold(payable.id).require_new_card(now())


@pytest.mark.parametrize(
    ("halt", "words", "has_another_card"),
    [
        ("paused", "Pledging for this case is paused. Your pledge stands", True),
        ("hidden", "Pledging for this case is paused. Your pledge stands", True),
        ("rests", "Pledging is paused for a while. Your pledge stands, with the card that it has", False),
    ],
)
def test_while_nobody_can_pledge_the_private_page_offers_what_is_done_and_nothing_else(
    client: FlaskClient, asked: Asked, halt: str, words: str, has_another_card: bool
) -> None:
    case, staff = a_case(), a_user("staff")
    pledged = a_pledge(case.round, email=f"begun-{halt}@halts.example"), confirm(a_pledge(case.round))
    begun, counts = (f"/pledges/{one.link()}" for one in pledged)
    keep()
    (asks_again,) = read(client, begun).select("#pledge-state")
    begin_writing()
    if halt == "rests":
        Breaker.hold(case.id, now())._go("asks", CardsTried(21, 0, 0, 0), now())
        Breaker.hold(case.id, now())._go("paused", CardsTried(21, 21, 0, 0), now())
    elif halt == "hidden":
        case_at(case.slug).show_as("hidden", "", "An order.", db.session.merge(staff), now())
    else:
        case_at(case.slug).switch("pledging_paused", True, "We look into it.", db.session.merge(staff), now())
    keep()
    of_begun, of_counts = read(client, begun), read(client, counts)
    ways = [[said(way) for way in page.select("#pledge-state .button")] for page in (of_begun, of_counts)]
    assert ways == [["Cancel my pledge"], ["Use another card", "Cancel my pledge"][not has_another_card :]]
    assert words in said(of_counts, "#pledge-state [role=status]")
    # Before a card is saved all of it waits for a card page; a page that is open learns of the halt by itself.
    assert "so no card can be saved just now" in said(of_begun, "#pledge-state [role=status]")
    assert not of_begun.select(".facts a")
    assert client.get(str(asks_again["data-hx-get"]), headers={"HX-Request": "true"}).status_code == 200
    refused = [client.get(f"{begun}/{what}").status_code for what in ("amount", "name", "address")]
    refused.append(client.post(f"{begun}/card-page", headers=SAME_ORIGIN).status_code)
    assert (refused, asked.pages) == ([409] * 4, [])
    answer = client.post(f"{counts}/card", headers=SAME_ORIGIN)
    assert (answer.status_code, len(asked.pages)) == ((303, 1) if has_another_card else (409, 0))


# --- What staff do about it --------------------------------------------------------------------------------


@pytest.fixture
def desk(app: Flask) -> FlaskClient:
    return logged_in(app, a_user("staff"))


def press(desk: FlaskClient, where: str, page: str, **typed: str) -> TestResponse:
    token = re.search(r'name="form_token" value="([^"]+)"', desk.get(page).text)
    assert token
    return desk.post(where, data={"form_token": token.group(1), **typed}, headers=SAME_ORIGIN)


@pytest.mark.usefixtures("strict")
def test_staff_see_what_is_going_on_and_end_it_or_let_it_go_on_longer_with_a_reason(
    desk: FlaskClient, client: FlaskClient, asked: Asked
) -> None:
    case = a_case(title="A case on television")
    pledge(client, case.slug)
    refused(client, last(case.slug), "a", "b", "c", "d")
    breaker_id = Breaker.hold(case.id, now()).id
    keep()
    assert "Cards are being tested" in desk.get("/staff").text
    page, where = "/staff/tried-cards", f"/staff/breakers/{breaker_id}"
    shown = desk.get(page).text
    assert "A case on television" in shown and "4 refused cards, 0 unused card pages, 0 saved cards" in shown
    wrong = press(desk, f"{where}/end", page)
    assert wrong.status_code == 422 and "Enter a reason." in wrong.text
    field = f"breaker-{breaker_id}-reason"
    until = db.session.get_one(Breaker, breaker_id).until
    assert press(desk, f"{where}/prolongation", page, **{field: "The police ask."}).status_code == 303
    look_anew()
    assert db.session.get_one(Breaker, breaker_id).until == until + 12 * HOUR
    assert press(desk, f"{where}/end", page, **{field: "On television tonight."}).status_code == 303
    assert state(case.slug) == "closed" and "Nothing of that kind" in desk.get(page).text
    # It rests: what staff have ended does not begin again at the next refused card.
    refused(client, last(case.slug), "e")
    assert state(case.slug) == "closed"
    assert press(desk, f"{where}/end", "/staff/tried-cards?", **{field: "Again."}).status_code in (409, 303)
    with time_machine.travel(now() + 2 * HOUR + MINUTE):
        pledge(client, case.slug)
        refused(client, last(case.slug), "a", "b", "c", "d")
        assert state(case.slug) == "asks"


# --- Pledges that are held ---------------------------------------------------------------------------------


def with_card(slug: str, card: str, email: str, amount: int = 2_500) -> Pledge:
    """A pledge of somebody whose card is saved."""
    return saved(a_pledge(case_at(slug).round, amount, email=email), card)


@pytest.mark.usefixtures("strict")
def test_the_third_person_with_one_card_is_held_and_does_not_count_until_staff_let_it(
    desk: FlaskClient, client: FlaskClient
) -> None:
    case = a_case(target=600_000)
    keep()
    assert [with_card(case.slug, "one-card", f"{who}@home.example").status for who in ("a", "b", "B", "c")] == [
        "confirmed", "confirmed", "confirmed", "held",
    ]  # fmt: skip
    held = last(case.slug)
    assert with_card(case.slug, "another-card", "d@home.example").status == "confirmed"
    assert (held.held_because, counted(case.slug)) == ("same_card", (10_000, 4))
    assert held.card_mark and "one-card" not in held.card_mark and held.card_mark == pledges_of(case.slug)[0].card_mark
    (letter,) = (one for one in told("looked_at") if one.subject == f"pledge:{held.id}")
    private = client.get(f"/pledges/{held.link()}").text
    for shown in (words(letter), private):
        assert "before" in shown and "count" in shown and "4242" not in shown
    assert [one.occasion for one in told("pledges_held")] == [f"case:{case.id}:{now().date().isoformat()}"]
    assert "1 pledge" in desk.get("/staff").text
    page = desk.get("/staff/tried-cards").text
    assert held.public_id in page and "the same card is behind pledges of other people" in page
    where = f"/staff/pledges/{held.public_id}"
    assert press(desk, f"{where}/counting", where).status_code == 422
    assert press(desk, f"{where}/counting", where, **{"held-reason": "A family."}).status_code == 303
    look_anew()
    held = db.session.get_one(Pledge, held.id)
    assert (held.status, counted(case.slug)) == ("confirmed", (12_500, 5))
    assert [(one.what, one.note) for one in held.history()][-2:] == [("decided", "A family."), ("confirmed", "")]
    assert len([one for one in told("confirmed") if one.subject == f"pledge:{held.id}"]) == 1
    # Decided is decided.
    assert desk.post(f"{where}/refusal", data={"held-reason": "No."}, headers=SAME_ORIGIN).status_code in (403, 409)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize(("looked", "decision", "ends"), [
    ("nobody", "missed", "released"), ("count", "met", "due"), ("refuse", "missed", "released"),
    ("supporter", "missed", "cancelled"),
])  # fmt: skip
def test_a_held_pledge_decides_nothing_unless_staff_let_it_count_before_the_deadline(
    app: Flask, looked: str, decision: str, ends: str
) -> None:
    """It is exactly what the target lacks: £25 of £75."""
    staff, case = a_user("staff"), a_case(target=7_500)
    keep()
    for who in ("a", "b", "c"):
        with_card(case.slug, "one-card", f"{who}@home.example")
    held = last(case.slug)
    assert (held.status, counted(case.slug)) == ("held", (5_000, 2))
    by = db.session.get_one(User, staff.id)
    if looked == "count":
        Pledge.hold(held.id).let_count("A family.", by, now())
    elif looked == "refuse":
        Pledge.hold(held.id).refuse("Nobody answers.", by, now())
    elif looked == "supporter":
        Pledge.hold(held.id).cancel(now())
    keep()
    its_round = case_at(case.slug).round
    with time_machine.travel(its_round.deadline + SECOND, tick=False):
        if looked == "nobody":
            with pytest.raises(Refused, match="not held any more"):
                Pledge.hold(held.id).let_count("Too late.", by, now())
            db.session.rollback()
        deadline_capture.settle_round(its_round.id)
    its_round, held = case_at(case.slug).round, last(case.slug)
    assert (its_round.status, held.status) == (decision, ends)
    assert its_round.settled_total_pence == (7_500 if looked == "count" else 5_000)
    kinds = [one.kind for one in told() if one.subject == f"pledge:{held.id}"]
    assert kinds == {
        "nobody": ["looked_at", "not_released"], "count": ["looked_at", "confirmed"],
        "refuse": ["looked_at", "not_released"], "supporter": ["looked_at", "cancelled"],
    }[looked]  # fmt: skip


def replaced(of: Pledge, card: str, amount: int = 0) -> tuple[Pledge, str]:
    """Another card is saved in the place of its own, for this amount if any; and what Stripe calls that card."""
    held = Pledge.hold(of.id)
    if amount:
        held.change_amount(amount, now())
    found = replace(a_new_card(held), fingerprint=card, payment_method_id=f"pm_{card}_{next(_numbers)}")
    held.apply_card(found, now())
    keep()
    return db.session.get_one(Pledge, of.id), str(found.payment_method_id)


@pytest.mark.usefixtures("strict")
def test_a_card_with_which_a_pledge_would_be_held_is_not_taken_in_the_place_of_another_one_or_for_more(
    app: Flask, client: FlaskClient
) -> None:
    staff, case = a_user("staff"), a_case(target=600_000)
    keep()
    for who in ("a", "b"):
        with_card(case.slug, "one-card", f"{who}@rest.example")
    clean = with_card(case.slug, "clean", "c@rest.example")
    its_card = clean.payment_method_id
    clean, odd = replaced(clean, "one-card")
    clean, odder = replaced(clean, "one-card", 4_000)
    assert (clean.status, clean.payment_method_id, clean.amount_pence) == ("confirmed", its_card, 2_500)
    assert counted(case.slug) == (7_500, 3) and not clean.awaits_card
    assert list(db.session.scalars(sa.select(OldCard.payment_method_id).order_by(OldCard.id))) == [odd, odder]
    (letter,) = told("not_raised")
    private = client.get(f"/pledges/{clean.link()}").text
    assert "counts with £25, as before" in words(letter) and "Another card was saved, but it is not used" in private
    for shown in (words(letter), private.partition("<main")[2]):
        assert not re.search(r"declin|refus|insufficient|invalid|expired|valid", shown)
    assert [one.note for one in clean.history() if one.what == "card_not_taken"] == ["same_card"] * 2
    # Any other card is taken; and what staff have let count may become more with its own.
    clean, better = replaced(clean, "another", 4_000)
    assert (clean.payment_method_id, clean.amount_pence) == (better, 4_000)
    family = with_card(case.slug, "one-card", "d@rest.example")
    Pledge.hold(family.id).let_count("A family.", db.session.get_one(User, staff.id), now())
    keep()
    family, again = replaced(family, "one-card", 3_000)
    assert (family.status, family.payment_method_id, family.amount_pence) == ("confirmed", again, 3_000)


def test_several_refused_cards_before_the_saved_one_and_a_card_refused_elsewhere_hold_a_pledge(
    client: FlaskClient, asked: Asked
) -> None:
    case = a_case()
    tries, mistypes = a_pledge(case.round, email="tries@x.example"), a_pledge(case.round, email="mistypes@x.example")
    keep()
    refused(client, mistypes, "card", "card", "another", "a third")
    assert saved(mistypes, "card").status == "confirmed"
    refused(client, tries, "one", "two", "three")
    assert (saved(tries, "four").status, db.session.get_one(Pledge, tries.id).held_because) == ("held", "many_cards")
    elsewhere = a_pledge(case_at(case.slug).round)
    keep()
    refused(client, mistypes, "stolen", "stolen", page="seti_more")
    refused(client, tries, "stolen", page="seti_again")
    assert (saved(elsewhere, "stolen").status, last(case.slug).held_because) == ("held", "card_refused")


@pytest.mark.usefixtures("strict")
def test_staff_are_reminded_of_held_pledges_a_day_before_a_round_ends_once(app: Flask) -> None:
    a_user("staff")
    case = a_case(ends_in=25 * HOUR)
    keep()
    for who in ("a", "b", "c"):
        with_card(case.slug, "one-card", f"{who}@home.example")
    sweep(now())
    assert [one.occasion.split(":")[2] for one in told("pledges_held")] == [now().date().isoformat()]
    for minutes in (61, 62):
        sweep(now() + minutes * MINUTE)
    assert [one.occasion.split(":")[2] for one in told("pledges_held")][1:] == ["ends"]
    assert case.title in words(told("pledges_held")[1])


@pytest.mark.usefixtures("strict")
def test_a_cancelled_case_lets_a_held_pledge_go_and_its_supporter_is_told(app: Flask) -> None:
    case = a_case()
    keep()
    for who in ("a", "b", "c"):
        with_card(case.slug, "one-card", f"{who}@home.example")
    case_at(case.slug).cancel("A mistake.", "operator", now())
    keep()
    assert [one.status for one in pledges_of(case.slug)] == ["released"] * 3
    assert counted(case.slug) == (0, 0)
    assert len([one for one in told("case_cancelled") if one.subject == f"pledge:{last(case.slug).id}"]) == 1
