"""The supporter's private page: what it says in each state of a pledge, and what its links open."""

import datetime as dt

import pytest
from flask.testing import FlaskClient

import law
from models import Dispute, Pledge, begin_writing, db
from payments import ChargeFound, DisputeFound, RefundFound
from tests.made import a_case, a_pledge, a_user, confirm, keep, now
from tests.reading import read, said
from tests.test_models_repairs import a_refused, refuse_again

SECOND, HOUR = dt.timedelta(seconds=1), dt.timedelta(hours=1)

STATES = {
    "started": "Your pledge does not count yet: no card was saved. Stripe's page for your card is ready.",
    "abandoned": "Your pledge does not count yet: no card was saved.",
    "confirmed": "Thank you, Ada Winter. Your pledge of £25 counts. The link of this page is in a letter to "
                 "ada@example.org.",
    "cancelled": "Your pledge of £25 is cancelled. Your card is not charged, and never will be for this pledge. "
                 "If that was a mistake, pledge again.",
    "held": "Thank you, Ada Winter. We look at your pledge of £25 before it counts. You will get a letter about it, "
            "and need do nothing. If we have not let it count by the deadline, it ends, and you pay nothing.",
    "released": "This case did not reach its target. You are not charged, and never will be for this pledge of £25.",
    "due": "The case reached its target. Your card is being charged £25, once. You will get a letter.",
    "charging": "The case reached its target. Your card is being charged £25, once. You will get a letter.",
    "unknown": "The case reached its target. Your card is being charged £25, once. You will get a letter.",
    "charged": "Your card was charged £25. Thank you. The case reached its target.",
    "action_required": "You have not been charged. The case reached its target, but your bank wants you to approve "
                       "£25. Until you do, nothing is taken. If it is not paid by Sunday 16 October 2022, 2:00am BST, "
                       "your pledge ends and you pay nothing.",
    "declined": "You have not been charged. The case reached its target, but your bank refused the payment of £25. If "
                "it is not paid by Sunday 16 October 2022, 2:00am BST, your pledge ends and you pay nothing.",
    "dropped": "Your pledge of £25 has ended. You were not charged, and never will be for this pledge. The case "
               "reached its target, but your card could not be charged in time.",
    "refunded": "Your £25 has been paid back to your card.",
    "disputed": "Your card was charged £25, and your bank has been asked to take the payment back. Your bank decides "
                "about it, and you will get a letter then. Nothing more is charged.",
    "charged_back": "Your bank has taken the payment of £25 back. The money is yours again.",
}  # fmt: skip


def a_pledge_that_is(status: str, round_status: str = "open") -> Pledge:
    case = a_case()
    pledge = a_pledge(case.round, 2_500, email="ada@example.org")
    pledge.repair_until = dt.datetime(2022, 10, 16, 1, 0, tzinfo=dt.UTC)
    pledge.status, case.round.status = status, round_status
    pledge.held_because = "same_card" if status == "held" else None
    if round_status == "missed":
        case.round.settled_at, case.round.settled_total_pence, case.round.settled_count = now(), 0, 0
    keep()
    return pledge


def test_what_happened_after_the_charge_is_told_each_step_once_and_with_its_amount(client: FlaskClient) -> None:
    """A dispute that was won, and a refund that failed, both lead back to charged: the card was charged once."""
    case, staff = a_case(target=2_500, pledged=[2_500]), a_user("staff")
    case.round.close(case.round.deadline + SECOND)
    case.round.settle(now())
    (pledge,) = case.round.pledges("due")
    pledge.claim(now(), SECOND)
    pledge.apply_charge(ChargeFound("succeeded", "pi_1", "ch_1", 2_500), now(), asked=True)
    for outcome in ("open", "won"):
        found = DisputeFound("du_1", "ch_1", "pi_1", 2_500, "fraudulent", outcome, True, None, now())
        Dispute.apply(found, pledge, now())
    for pence, outcomes in ((1_000, ["succeeded"]), (1_500, ["succeeded", "failed"])):
        refund = pledge.ask_refund(f"{pence}" * 6, pence, "They asked.", db.session.merge(staff), now())
        for outcome in outcomes:
            pledge.apply_refund(RefundFound(outcome, f"re_{pence}", "pi_1", pence, "", refund.id), now())
    keep()
    told = [said(line).partition(": ")[2] for line in read(client, f"/pledges/{pledge.link()}").select(".history li")]
    assert told[-6:] == [
        "Your card was charged.",
        "Your bank was asked to take the payment back.",
        "Your bank decided that the payment stands.",
        "£10 was paid back to your card.",
        "£15 was paid back to your card.",
        "£15 that was paid back did not reach your card, and is with us again.",
    ]


def test_a_payment_that_is_refused_again_says_so_and_when(client: FlaskClient) -> None:
    """Else whoever has pressed "Pay with the same card" is back on the very same page, and does not know why."""
    refused = dt.datetime(2026, 11, 2, 9, 30, tzinfo=dt.UTC)
    pledge = a_refused(as_of=refused)
    where, number = f"/pledges/{pledge.link()}", pledge.id
    keep()
    assert "tried again on" not in said(read(client, where), "[role=status]")
    begin_writing()
    pledge = db.session.get_one(Pledge, number)
    assert pledge.pay_again(refused + 2 * HOUR)
    refuse_again(pledge, refused + 2 * HOUR, "ch_2")
    keep()
    told = said(read(client, where), "[role=status]")
    assert "It was tried again on Monday 2 November 2026, 11:30am GMT, and your bank refused that too." in told


def test_an_attempt_that_never_arrived_is_no_refusal(client: FlaskClient) -> None:
    asked = dt.datetime(2026, 11, 2, 9, 30, tzinfo=dt.UTC)
    case = a_case(target=2_500, pledged=[2_500])
    case.round.close(case.round.deadline + SECOND)
    case.round.settle(case.round.deadline + SECOND)
    (pledge,) = case.round.pledges("due")
    pledge.claim(asked, SECOND)
    pledge.nothing_was_asked(asked + law.NEW_KEY_AFTER + SECOND)
    refuse_again(pledge, asked + law.NEW_KEY_AFTER + 2 * SECOND, "ch_1")
    where = f"/pledges/{pledge.link()}"
    keep()
    assert len(pledge.attempts) == 2 and "tried again on" not in said(read(client, where), "[role=status]")


@pytest.mark.broken_books("states are set by hand", sometimes=True)
@pytest.mark.parametrize("status", sorted(law.PLEDGE_MOVES))
def test_each_state_of_a_pledge_is_told_in_words(client: FlaskClient, status: str) -> None:
    page = read(client, f"/pledges/{a_pledge_that_is(status).link()}")
    assert said(page, "#pledge-state [role=status]") == STATES[status]
    assert "£25" in said(page, ".facts") and "ada@example.org" in said(page, ".facts")
    assert [said(button) for button in page.select("#pledge-state .button")] == {
        "started": ["Continue to Stripe", "Change amount", "Cancel my pledge"],
        "abandoned": ["Continue to Stripe", "Change amount"],
        "confirmed": ["Use another card", "Cancel my pledge"],
        "held": ["Cancel my pledge"],
    }.get(status, [])
    terms = ["Change the amount", "Change how you are shown", "Change the e-mail address"]
    assert [said(way) for way in page.select(".facts :is(a, button)")] == {
        "started": terms,
        "abandoned": terms,
        "confirmed": [*terms, "Send them to me"],
        "held": [],
        "cancelled": [],
        "released": [],
        "dropped": [],
    }.get(status, ["Change the e-mail address", "Send them to me"])
    assert bool(page.select("[data-hx-trigger]")) == (status == "started")


@pytest.mark.broken_books("states are set by hand", sometimes=True)
@pytest.mark.parametrize(
    ("status", "round_status", "words"),
    [
        ("confirmed", "closing", "The deadline has passed, and the pledges are being settled. You will get a letter"),
        ("started", "closing", "If you saved one just before, refresh this page in a moment."),
        ("abandoned", "missed", "Your pledge does not count: no card was saved by "),
        ("abandoned", "cancelled", "The case was cancelled, and no card was saved. You are not charged."),
    ],
)
def test_a_pledge_whose_round_has_ended_offers_nothing_more(
    client: FlaskClient, status: str, round_status: str, words: str
) -> None:
    page = read(client, f"/pledges/{a_pledge_that_is(status, round_status).link()}")
    assert words in said(page, "#pledge-state [role=status]")
    assert not page.select("#pledge-state :is(.button, .promise, [data-hx-trigger])")
    counts = ["Change the e-mail address", "Send them to me"] if status == "confirmed" else []
    assert [said(way) for way in page.select(".facts :is(a, button)")] == counts


@pytest.mark.parametrize(
    ("because", "words"),
    [
        ("missed", "This case did not reach its target. You are not charged,"),
        ("too_late", "Your card was saved after the deadline, so your pledge of £25 does not count. You are not"),
        ("case_cancelled", "The case was cancelled. You are not charged,"),
    ],
)
def test_a_released_pledge_says_why_and_whether_its_card_is_gone(client: FlaskClient, because: str, words: str) -> None:
    pledge = confirm(a_pledge(a_case().round, 2_500))
    pledge.release(because, "clock", now())
    keep()
    page = read(client, f"/pledges/{pledge.link()}")
    assert said(page, "[role=status]").startswith(words)
    assert "Your saved card has been removed." not in said(page)
    pledge.card_removed()
    keep()
    assert said(read(client, f"/pledges/{pledge.link()}"), "[role=status]").endswith(
        "Your saved card has been removed."
    )


@pytest.mark.broken_books("states are set by hand")
def test_back_from_stripe_the_page_is_checking_only_while_a_card_is_awaited(client: FlaskClient) -> None:
    started, gone = a_pledge_that_is("started").link(), a_pledge_that_is("abandoned").link()
    checking = "We are checking with Stripe whether your card was saved."
    assert checking in said(read(client, f"/pledges/{started}?stripe=asked"))
    assert "Refresh this page in a moment." in said(read(client, f"/pledges/{started}?stripe=asked"))
    assert checking not in said(read(client, f"/pledges/{gone}?stripe=asked"))


def test_everything_behind_a_private_link_is_kept_by_nobody(client: FlaskClient) -> None:
    pledge = a_pledge(a_case().round, wants_updates=True)
    keep()
    for address in (
        f"/pledges/{pledge.link()}",
        f"/pledges/{pledge.link()}/amount",
        f"/pledges/unfinished/{pledge.link('unfinished')}",
        f"/pledges/{pledge.link('unsubscribe')}/unsubscription",
    ):
        answer = client.get(address)
        assert answer.status_code in (200, 303), address
        assert answer.headers["Cache-Control"] == "no-store", address
        assert answer.headers["X-Robots-Tag"] == "noindex", address
        assert "Set-Cookie" not in answer.headers, address


def test_a_link_opens_only_what_it_was_made_for(client: FlaskClient) -> None:
    pledge = a_pledge(a_case().round)
    keep()
    links = {purpose: pledge.link(purpose) for purpose in ("pledge", "unfinished", "unsubscribe")}
    opens = {"pledge": "/pledges/{}", "unfinished": "/pledges/unfinished/{}",
             "unsubscribe": "/pledges/{}/unsubscription"}  # fmt: skip
    for purpose, address in opens.items():
        for made_for, link in links.items():
            opened = client.get(address.format(link)).status_code
            assert opened in ((200, 303) if made_for == purpose else (404,)), (address, made_for)


def test_the_unfinished_link_that_stripe_knows_opens_nothing_once_the_card_is_saved(client: FlaskClient) -> None:
    pledge = a_pledge(a_case().round)
    keep()
    address = f"/pledges/unfinished/{pledge.link('unfinished')}"
    assert client.get(address).location == f"/pledges/{pledge.link()}"
    begin_writing()
    confirm(db.session.merge(pledge))
    keep()
    assert client.get(address).status_code == 404


def test_a_cancelled_pledge_says_so_and_leaves_the_total(client: FlaskClient) -> None:
    case = a_case(target=600_000)
    pledge = confirm(a_pledge(case.round, 2_500))
    keep()
    address = f"/pledges/{pledge.link()}"
    assert client.post(f"{address}/cancellation").location == address
    assert STATES["cancelled"] in said(read(client, address))
    assert said(read(client, f"/cases/{case.slug}"), ".total") == "£0 pledged of £6,000 target, no pledges yet"
    assert client.post(f"{address}/cancellation").status_code == 303


@pytest.mark.broken_books("states are set by hand", sometimes=True)
@pytest.mark.parametrize(
    ("status", "round_status", "words"),
    [
        ("confirmed", "closing", "This case has closed: pledges can no longer be changed."),
        ("cancelled", "open", "This pledge has ended, so it can no longer be changed."),
        ("started", "closing", "This case has closed: pledges can no longer be changed."),
    ],
)
def test_an_amount_that_can_no_longer_be_changed_says_why(
    client: FlaskClient, status: str, round_status: str, words: str
) -> None:
    pledge = a_pledge_that_is(status, round_status)
    address = f"/pledges/{pledge.link()}/amount"
    for answer in (client.get(address), client.post(address, data={"amount": "40", "agreed": "y"})):
        assert answer.status_code == 409
        assert words in answer.text
    assert db.session.get_one(Pledge, pledge.id, populate_existing=True).amount_pence == 2_500


def test_updates_stop_for_an_address_only_when_the_button_is_pressed(client: FlaskClient) -> None:
    case = a_case()
    two = [
        confirm(a_pledge(case.round, email=email, wants_updates=True)) for email in ("a@example.org", "A@example.org")
    ]
    other = confirm(a_pledge(case.round, email="b@example.org", wants_updates=True))
    keep()
    address = f"/pledges/{two[0].link('unsubscribe')}/unsubscription"
    assert said(read(client, address), "button") == "Stop the updates"
    assert len(case.update_readers()) == 2
    assert said(read(client, address, method="POST"), "h1") == "You get no more updates"
    assert "Letters about your own pledge still come." in said(read(client, address, method="POST"))
    db.session.expire_all()
    assert [reader.id for reader in case.update_readers()] == [other.id]
