"""The contract with Stripe about what comes after a charge: refunds, disputes, events, and the lines of the balance."""

import datetime as dt

import pytest
import stripe

import payments
from tests.at_stripe import DISPUTES, WORKS
from tests.contract.stripes import AStripe, a_key
from tests.contract.test_charging import asked_for
from tests.house import eventually
from tests.made import now

HOUR = dt.timedelta(hours=1)


def charged(at: AStripe, number: str = WORKS) -> payments.ChargeFound:
    """A payment of £25."""
    return payments.charge(at.settings, asked_for(at.saved_card(number)), a_key())


def paid_back(intent_id: str, amount: int, key: str = "") -> payments.RefundFound:
    return payments.refund(
        refund_id=5, pledge_id=17, payment_intent_id=intent_id, amount_pence=amount, key=key or a_key()
    )


def test_parts_are_paid_back_up_to_the_whole_and_never_more(at: AStripe) -> None:
    intent_id = str(charged(at).payment_intent_id)
    first = paid_back(intent_id, 1_000)
    assert (first.outcome, first.amount_pence, first.noted) == ("succeeded", 1_000, 5)
    assert paid_back(intent_id, 1_501).outcome == "failed"
    second = paid_back(intent_id, 1_500)
    assert paid_back(intent_id, 1).code == "charge_already_refunded"
    assert payments.refunds_of(intent_id) == [first, second]
    assert payments.look_at_refund(str(first.refund_id)) == first


def test_the_same_key_pays_back_once(at: AStripe) -> None:
    intent_id, key = str(charged(at).payment_intent_id), a_key()
    assert paid_back(intent_id, 700, key) == paid_back(intent_id, 700, key)
    assert len(payments.refunds_of(intent_id)) == 1


def test_each_movement_is_a_line_of_the_balance_before_fees(at: AStripe) -> None:
    found = charged(at)
    refund = paid_back(str(found.payment_intent_id), 700)
    lines = payments.balance_between(now() - HOUR, now() + HOUR).found
    assert [
        (line.category, line.amount_pence, line.fee_pence > 0, line.currency)
        for line in lines
        if line.source_id in (found.charge_id, refund.refund_id)
    ] == [("refund", -700, False, "gbp"), ("charge", 2_500, True, "gbp")]
    (line,) = at.client.v1.balance_transactions.list({"source": found.charge_id}).data
    assert (line.amount, line.net) == (2_500, 2_500 - line.fee)
    assert {one.type for one in line.fee_details} == {"stripe_fee"}


def test_a_dispute_takes_the_money_and_is_a_line_of_the_balance_with_a_fee(at: AStripe) -> None:
    found = charged(at, DISPUTES)
    listed = eventually(lambda: at.client.v1.disputes.list({"payment_intent": found.payment_intent_id}).data)
    dispute = payments.look_at_dispute(listed[0].id)
    assert (dispute.outcome, dispute.amount_pence, dispute.charge_id) == ("open", 2_500, found.charge_id)
    assert dispute.held and dispute.due_by is not None and dispute.due_by > now()
    assert dispute in payments.disputes_between(now() - HOUR, now() + HOUR).found
    (line,) = at.client.v1.balance_transactions.list({"source": dispute.dispute_id}).data
    assert (line.amount, line.reporting_category, line.net) == (-2_500, "dispute", -2_500 - line.fee)
    assert paid_back(str(found.payment_intent_id), 100).code == "charge_disputed"


def test_what_happened_is_listed_as_events_and_the_payment_among_the_payments(at: AStripe) -> None:
    found = charged(at)

    def heard() -> list[str]:
        page = payments.news_since(now() - HOUR, now() + HOUR, ["payment_intent.succeeded"])
        return [news.type for news in page.found if news.object_id == found.payment_intent_id]

    assert eventually(heard) == ["payment_intent.succeeded"]
    (payment,) = [
        one for one in payments.payments_between(now() - HOUR, now() + HOUR).found if one.id == found.payment_intent_id
    ]
    assert (payment.amount_pence, payment.currency, payment.ours, payment.cancelled) == (2_500, "gbp", 17, False)


def test_a_list_is_walked_page_by_page_newest_first(at: AStripe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "_PAGE", 2)
    made = [str(paid_back(str(charged(at).payment_intent_id), 100).refund_id) for _ in range(3)]
    first = payments.refunds_between(now() - HOUR, now() + HOUR)
    second = payments.refunds_between(now() - HOUR, now() + HOUR, first.cursor)
    assert [*first.ids, *second.ids][:3] == made[::-1]
    assert first.cursor == first.ids[-1] == made[1]


def test_nothing_can_be_expanded_that_stripe_does_not_expand(at: AStripe) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        at.client.v1.payment_intents.list({"expand": ["data.amount"]})
    assert (refused.value.http_status, refused.value.param) == (400, "expand")
