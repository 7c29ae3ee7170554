"""The forms of the private page, sent as a browser without script sends them, with the sandbox as Stripe."""

import datetime as dt
import itertools
from urllib.parse import urlsplit

import pytest
import requests
import sqlalchemy as sa
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import letters
from jobs.post import send_letters
from models import AddressChange, Comment, Letter, LinkRequest, Pledge, begin_writing, db
from payments import ChargeFound, confirm_params
from tests.at_stripe import WORKS, plan, sdk, type_card
from tests.doorway import everything
from tests.made import a_case, a_pledge, a_user, case_at, confirm, keep, look_anew, now, pledges_of
from tests.reading import read, said
from tests.sandbox_process import SandboxProcess
from tests.test_bad_forms import summary
from tests.test_models_repairs import a_refused

MINUTE = dt.timedelta(minutes=1)
_keys = itertools.count(1)


@pytest.fixture
def pledge(client: FlaskClient) -> Pledge:
    """A pledge of £25 that counts, of the case of £6,000 at /cases/the-case."""
    made = confirm(a_pledge(a_case(slug="the-case", target=600_000).round, 2_500, email="ada@example.org"))
    keep()
    return made


@pytest.fixture
def at_stripe(asks_the_sandbox: Flask, client: FlaskClient) -> Pledge:
    """The same, with a card that was really saved on a page of the sandbox."""
    a_case(slug="the-case", target=600_000)
    typed = {"amount": "25", "name": "Ada Winter", "email": "ada@example.org", "agreed": "y"}
    sent = client.post("/cases/the-case/pledges", data={**typed, "form_key": f"a-key-of-the-tests-{next(_keys):02}"})
    save_card(client, sent.location)
    (made,) = pledges_of("the-case")
    assert made.status == "confirmed"
    return made


def save_card(client: FlaskClient, page: str) -> TestResponse:
    """Save a card on the page and come back to our site."""
    back = urlsplit(type_card(page, WORKS).headers["Location"])
    return client.get(f"{back.path}?{back.query}")


def change(client: FlaskClient, pledge: Pledge, pounds: str, **typed: str) -> TestResponse:
    return client.post(f"/pledges/{pledge.link()}/amount", data={"amount": pounds, "agreed": "y", **typed})


def mine() -> Pledge:
    (one,) = pledges_of("the-case")
    return one


def total(client: FlaskClient) -> list[str]:
    """The total on the case page, and in the fragment that htmx asks for."""
    return [said(read(client, where), ".total") for where in ("/cases/the-case", "/cases/the-case/pledge-total")]


def letters_sent(app: Flask) -> list[tuple[str, str]]:
    """(kind, subject) of the letters that are owed, after the post has gone."""
    keep()
    send_letters()
    found = sa.select(Letter).where(Letter.trouble == "", Letter.sent_at.is_not(None)).order_by(Letter.id)
    return [(letter.kind, letter.subject) for letter in db.session.scalars(found)]


# --- The amount --------------------------------------------------------------------------------------------


def test_the_whole_agreement_with_the_new_amount_stands_beside_the_button(client: FlaskClient, pledge: Pledge) -> None:
    page = read(client, f"/pledges/{pledge.link()}/amount?amount=12.50")
    assert said(page, ".facts") == "Until now £25 From here on £12.50"
    assert said(page, "label[for=agreed]").startswith("I allow Standing Test to charge my card £12.50 once, after ")
    assert said(page, "form button") == "Change it to £12.50" and not page.select("form [checked]")
    more = read(client, f"/pledges/{pledge.link()}/amount?amount=40")
    assert said(more, "label[for=agreed]").startswith("I allow Standing Test to charge my card £40 once, after ")
    assert said(more, "form button") == "Continue to Stripe"
    assert "Your pledge stays £25 until it is saved." in said(more, "form")


def test_a_lower_amount_holds_at_once_in_the_total_and_in_a_letter(
    app: Flask, client: FlaskClient, pledge: Pledge
) -> None:
    assert total(client) == ["£25 pledged of £6,000 target from 1 pledge"] * 2
    changed = change(client, pledge, "12.50").location
    assert changed == f"/pledges/{pledge.link()}?changed=amount"
    assert total(client) == ["£12.50 pledged of £6,000 target from 1 pledge"] * 2
    page = read(client, changed)
    assert said(page, "[role=status]").startswith("Your change is saved. Thank you, Ada Winter. Your pledge of £12.50")
    assert said(page, ".history").endswith("You changed the amount from £25 to £12.50.")
    assert ("changed", f"pledge:{pledge.id}") in letters_sent(app)


def test_a_higher_amount_counts_once_a_card_is_saved_on_a_page_of_stripes_that_names_it(
    client: FlaskClient, sandbox: SandboxProcess, at_stripe: Pledge
) -> None:
    first = at_stripe.payment_method_id
    page = change(client, at_stripe, "40").location
    assert "to charge my card £40 once" in requests.get(page, timeout=30).text
    assert total(client) == ["£25 pledged of £6,000 target from 1 pledge"] * 2
    assert "You have begun to raise it to £40." in said(read(client, f"/pledges/{at_stripe.link()}"), "[role=status]")
    assert change(client, at_stripe, "40").location == page, "the same wish is the same page"
    assert save_card(client, page).location == f"/pledges/{at_stripe.link()}"
    assert total(client) == ["£40 pledged of £6,000 target from 1 pledge"] * 2
    assert (mine().amount_pence, mine().agreement_pence, mine().payment_method_id != first) == (4_000, 4_000, True)


def test_another_amount_closes_the_page_that_named_the_one_before(
    client: FlaskClient, sandbox: SandboxProcess, at_stripe: Pledge
) -> None:
    """So that no card can be saved under an amount that was thought better of."""
    pages = [change(client, at_stripe, pounds).location for pounds in ("40", "50")]
    assert change(client, at_stripe, "10").location == f"/pledges/{at_stripe.link()}?changed=amount"
    client.post(f"/pledges/{at_stripe.link()}/card")
    sessions = sdk(sandbox).v1.checkout.sessions.list({"limit": 10}).data
    assert sorted(one.status for one in sessions) == ["complete", "expired", "expired", "open"]
    assert pages[0] != pages[1] and not {*pages} & {one.url for one in sessions}
    assert (mine().amount_pence, mine().asked_pence, mine().awaits_card) == (1_000, None, True)


def test_use_another_card_never_leads_to_a_page_that_names_another_amount(
    client: FlaskClient, at_stripe: Pledge
) -> None:
    raised = change(client, at_stripe, "40").location
    page = client.post(f"/pledges/{at_stripe.link()}/card").location
    assert page != raised and "to charge my card £25 once" in requests.get(page, timeout=30).text
    save_card(client, page)
    assert (mine().amount_pence, mine().asked_pence) == (2_500, None)


def test_whoever_has_begun_a_raise_goes_on_with_it_and_sees_that_another_card_alone_leaves_the_amount(
    client: FlaskClient, at_stripe: Pledge
) -> None:
    page = change(client, at_stripe, "40.50").location
    private = read(client, f"/pledges/{at_stripe.link()}")
    on, card, _ = private.select("#pledge-state .button")
    assert (said(on), said(card)) == ("Go on to raise it to £40.50", "Use another card, and keep it at £25")
    step = read(client, str(on["href"]))
    assert "to charge my card £40.50 once" in said(step, "form") and said(step, ".button") == "Continue to Stripe"
    assert change(client, at_stripe, "40.50").location == page
    save_card(client, page)
    buttons = [said(one) for one in read(client, f"/pledges/{at_stripe.link()}").select("#pledge-state .button")]
    assert buttons == ["Use another card", "Cancel my pledge"]


def test_a_card_saved_for_a_raise_in_another_window_is_found_before_the_amount_is_lowered(
    client: FlaskClient, at_stripe: Pledge
) -> None:
    type_card(change(client, at_stripe, "40").location, WORKS)
    assert change(client, at_stripe, "10").location == f"/pledges/{at_stripe.link()}"
    assert (mine().amount_pence, mine().asked_pence, mine().awaits_card) == (4_000, None, False)


def test_while_stripe_is_away_a_raise_waits_and_a_lower_amount_does_not_need_it(
    client: FlaskClient, sandbox: SandboxProcess, at_stripe: Pledge
) -> None:
    plan(sandbox, operation="checkout.sessions.create", fault="refuse", times=3)
    assert change(client, at_stripe, "20").location == f"/pledges/{at_stripe.link()}?changed=amount"
    assert change(client, at_stripe, "40").location == f"/pledges/{at_stripe.link()}?stripe=away"
    assert change(client, at_stripe, "40").location.startswith(sandbox.url)
    assert (mine().amount_pence, mine().asked_pence) == (2_000, 4_000)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "Enter an amount."),
        ("4.99", "A pledge is at least £5 and at most £10,000."),
        ("10000.01", "A pledge is at least £5 and at most £10,000."),
        ("25", "Your pledge is £25 already. Enter another amount."),
        ("£25.00", "Your pledge is £25 already. Enter another amount."),
        ("-5", "Enter an amount in pounds, like 25 or 25.50."),
        ("a lot", "Enter an amount in pounds, like 25 or 25.50."),
    ],
)
def test_an_amount_that_cannot_be_is_given_back_with_its_reason_at_both_steps(
    client: FlaskClient, pledge: Pledge, typed: str, words: str
) -> None:
    before = everything()
    address = f"/pledges/{pledge.link()}/amount"
    for answer in (client.get(address, query_string={"amount": typed}), change(client, pledge, typed),
                   change(client, pledge, typed, agreed="")):  # fmt: skip
        assert answer.status_code == 422
        assert summary(answer)[0] == ("amount", words)
        assert f'value="{typed}"' in answer.text
    assert everything() == before


def test_without_the_tick_nothing_is_changed_and_the_agreement_is_shown_again(
    client: FlaskClient, pledge: Pledge
) -> None:
    before = everything()
    answer = change(client, pledge, "10", agreed="")
    assert answer.status_code == 422
    assert summary(answer) == [("agreed", "Tick the box to allow the charge, or do not change it.")]
    assert "to charge my card £10 once" in answer.text
    assert everything() == before


# --- The name, the address, updates ------------------------------------------------------------------------


def test_the_name_is_changed_for_the_case_owner_to_see(client: FlaskClient, pledge: Pledge) -> None:
    address = f"/pledges/{pledge.link()}/name"
    assert summary(client.post(address, data={"name": " "})) == [("name", "Enter your name.")]
    sent = client.post(address, data={"name": " Ada W. ", "shown_as": "hidden"})
    assert sent.location == f"/pledges/{pledge.link()}?changed=name"
    assert (mine().name, mine().public_name) == ("Ada W.", "Anonymous")
    assert said(read(client, sent.location), ".history").endswith("You changed how you are shown.")


def test_a_name_that_says_less_is_that_of_a_public_message_at_once_and_no_other_is(
    client: FlaskClient, pledge: Pledge
) -> None:
    moderator, slug = a_user("moderator"), mine().round.case.slug
    begin_writing()
    held = Pledge.hold(pledge.id)
    held.shown_as = "name"
    held.say("With you.", public=True)
    held._comment(now())
    address = f"/pledges/{held.link()}/name"
    keep()

    def signed(name: str, shown_as: str) -> str:
        """What the message is signed with once this was sent."""
        assert client.post(address, data={"name": name, "shown_as": shown_as}).status_code == 303
        look_anew()
        return db.session.scalars(sa.select(Comment.name)).one()

    # A moderator has yet to read it with its name.
    assert [signed("Ada W.", "name"), signed("Ada Winter", "name")] == ["Ada W.", "Ada Winter"]
    begin_writing()
    db.session.scalars(sa.select(Comment)).one().approve(db.session.merge(moderator), now())
    keep()
    assert "Your message is public under the name “Ada Winter”." in said(read(client, address))
    assert signed("Somebody Else", "name") == signed("Somebody Else", "first_name") == "Ada Winter"
    assert signed("Ada Winter", "first_name") == signed("Ada Winter", "name") == "Ada"
    assert said(read(client, f"/cases/{slug}"), "#comments .who").startswith("Ada ")
    for shown_as in ("anonymous", "hidden", "name"):
        assert signed("Ada Winter", shown_as) == ""
    page = said(read(client, f"/cases/{slug}"), "#comments")
    assert "With you." in page and "Anonymous" in page and "Winter" not in page


@pytest.mark.parametrize("htmx", [{}, {"HX-Request": "true"}])
def test_updates_are_stopped_and_asked_for_again_with_one_button(
    client: FlaskClient, pledge: Pledge, htmx: dict[str, str]
) -> None:
    for wanted, words in (("y", "Yes Stop them"), ("", "No Send them to me")):
        sent = client.post(f"/pledges/{pledge.link()}/updates", data={"wanted": wanted}, headers=htmx)
        assert sent.status_code == (200 if htmx else 303)
        assert mine().wants_updates is bool(wanted)
        assert said(read(client, f"/pledges/{pledge.link()}"), ".facts form") == words
        assert ("You get updates" in sent.text if wanted else "no more updates" in sent.text) is bool(htmx)


def test_a_mistyped_address_is_put_right_from_a_letter_to_the_right_one(
    app: Flask, client: FlaskClient, pledge: Pledge
) -> None:
    old_link = pledge.link()
    sent = client.post(f"/pledges/{old_link}/address", data={"email": "ada@right.example"})
    assert sent.location == f"/pledges/{old_link}"
    assert "We have written to ada@right.example." in said(read(client, sent.location), "#pledge-state")
    asked = db.session.scalars(sa.select(AddressChange)).one()
    letter = f"/pledges/new-address/{asked.link('new-address')}"
    for _ in range(2):
        assert said(read(client, letter), "main strong") == "ada@right.example"
    assert mine().email == "ada@example.org", "mail scanners follow links, so that alone does nothing"
    private_page = client.post(letter).location
    assert private_page == f"/pledges/{mine().link()}" and mine().email == "ada@right.example"
    assert said(read(client, f"/pledges/{old_link}", status=404), "h1") == "This link does not work"
    assert client.post(letter).status_code == client.get(letter).status_code == 409
    change_id, pledge_id = f"address_change:{asked.id}", f"pledge:{pledge.id}"
    # The letter to the new address was overtaken: it was answered before the post went.
    assert letters_sent(app)[-2:] == [("link_replaced", pledge_id), ("address_left", change_id)]

    back = f"/pledges/old-address/{db.session.merge(asked).link('old-address')}"
    assert said(read(client, back), "main strong") == "ada@example.org"
    assert client.post(back).location == f"/pledges/{mine().link()}" and mine().email == "ada@example.org"
    assert client.get(private_page).status_code == 404 and client.post(back).status_code == 409


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "Enter your e-mail address."),
        ("ada", "Enter an e-mail address in the form name@example.com."),
        ("ada@example.org", "Letters go to ada@example.org already."),
        ("a" * 255 + "@example.org", "This address is too long."),
    ],
)
def test_an_address_that_cannot_be_is_given_back_with_its_reason(
    client: FlaskClient, pledge: Pledge, typed: str, words: str
) -> None:
    before = everything()
    answer = client.post(f"/pledges/{pledge.link()}/address", data={"email": typed})
    assert answer.status_code == 422 and summary(answer) == [("email", words)]
    assert everything() == before


def test_another_address_that_was_asked_for_ends_with_its_pledge(client: FlaskClient, pledge: Pledge) -> None:
    private = f"/pledges/{pledge.link()}"
    client.post(f"{private}/address", data={"email": "ada@home.example"})
    assert "Letters go there once the link in that letter is used." in said(read(client, private), "main")
    look_anew()
    (asked,) = db.session.scalars(sa.select(AddressChange))
    (letter,) = db.session.scalars(sa.select(Letter).where(Letter.kind == "new_address"))
    where = f"/pledges/new-address/{asked.link('new-address')}"
    assert letters.is_true(letter) and said(read(client, where), "main button")
    client.post(f"{private}/cancellation")
    assert "We have written to" not in said(read(client, private), "main")
    for method in ("GET", "POST"):
        assert "This pledge has ended" in said(read(client, where, 409, method=method), "main")
    look_anew()
    assert not letters.is_true(db.session.get_one(Letter, letter.id))


def test_before_a_card_is_saved_another_address_is_a_term_like_any_other(
    asks_the_sandbox: Flask, client: FlaskClient, sandbox: SandboxProcess
) -> None:
    a_case(slug="the-case")
    typed = {"amount": "25", "name": "Ada Winter", "email": "ada@wrong.example", "agreed": "y", "form_key": "k" * 24}
    client.post("/cases/the-case/pledges", data=typed)
    sent = client.post(f"/pledges/{mine().link()}/address", data={"email": "ada@example.org"})
    assert sent.location.startswith(sandbox.url)
    assert (mine().email, mine().status) == ("ada@example.org", "started")
    sessions = sdk(sandbox).v1.checkout.sessions.list({"limit": 10}).data
    assert {(one.customer_email, one.status) for one in sessions} == {
        ("ada@wrong.example", "expired"), ("ada@example.org", "open"),
    }  # fmt: skip
    assert db.session.scalars(sa.select(Letter)).all() == []


# --- The link ----------------------------------------------------------------------------------------------


def test_a_replaced_link_dies_at_once_and_the_new_one_goes_to_the_mailbox_alone(
    app: Flask, client: FlaskClient, pledge: Pledge
) -> None:
    old = f"/pledges/{pledge.link()}"
    answer = client.post(f"{old}/new-link")
    new = f"/pledges/{mine().link()}"
    assert answer.status_code == 200 and "on its way to ada@example.org" in answer.text
    assert new != old and mine().link() not in answer.text
    assert said(read(client, new), ".history").endswith("You replaced the link of this page.")
    for way in ("", "/amount", "/name", "/address"):
        page = read(client, old + way, status=404)
        assert said(page, "h1") == "This link does not work"
        assert page.select_one("main a[href='/pledges/find']")
    before = everything()
    for way in ("/cancellation", "/amount", "/name", "/address", "/updates", "/new-link", "/card"):
        assert client.post(old + way, data={"amount": "10", "agreed": "y"}).status_code == 404
    assert everything() == before
    assert ("link_replaced", f"pledge:{pledge.id}") in letters_sent(app)


def test_no_way_back_from_stripe_leads_to_a_page_whose_link_was_replaced(
    client: FlaskClient, at_stripe: Pledge
) -> None:
    """Whoever stole the link may have opened a card page with it, and knows the number of that page."""
    old = f"/pledges/{at_stripe.link()}"
    there = f"/pledges/return?session_id={at_stripe.session_id}"
    assert client.get(there).location == old
    page = client.post(f"{old}/card").location
    opened = f"/pledges/return?session_id={mine().session_id}"
    assert client.get(opened).location == old
    client.post(f"{old}/new-link")
    new = f"/pledges/{mine().link()}"
    for way in (there, opened, "/pledges/return?session_id=cs_nobody"):
        assert said(read(client, way, status=404), "h1") == "This link does not work"
    # The owner is led to a page of her own, and back from it.
    another = client.post(f"{new}/card").location
    assert another != page
    assert save_card(client, another).location == new
    assert mine().card_words == "Visa ending 4242"


def test_no_way_back_from_the_bank_leads_to_a_page_whose_link_was_replaced(client: FlaskClient, pledge: Pledge) -> None:
    pledge.payment_intent_id, pledge.left_with = "pi_1", pledge.link_version
    pledge.bank_url = "https://bank.example/approve"
    keep()
    there = "/pledges/bank-return?payment_intent=pi_1"
    assert client.get(there).location.partition("?")[0] == f"/pledges/{pledge.link()}"
    client.post(f"/pledges/{pledge.link()}/new-link")
    assert said(read(client, there, status=404), "h1") == "This link does not work"


def leads(client: FlaskClient, way: str, after: dt.timedelta) -> str:
    """Where a way back leads by then; "" when it leads nowhere."""
    with time_machine.travel(now() + after):
        answer = client.get(way)
    if answer.status_code == 404:
        assert "The newest letter about your pledge has the one that works." in answer.text
    return (answer.location or "").partition("?")[0]


def test_what_stripe_calls_a_card_page_opens_the_private_page_while_a_card_may_be_saved_and_for_an_hour_then(
    client: FlaskClient, pledge: Pledge
) -> None:
    """It stands in Stripe's dashboard, in backups, and on a page of staff's."""
    private, there = f"/pledges/{pledge.link()}", f"/pledges/return?session_id={pledge.session_id}"
    assert [leads(client, there, minutes * MINUTE) for minutes in (0, 59, 61)] == [private, private, ""]
    held = Pledge.hold(pledge.id)
    held.ask_card_page({"another": "card"}, now() + 120 * MINUTE)
    held.card_page_made(held.session_key, "cs_another", None)
    keep()
    there = "/pledges/return?session_id=cs_another"
    assert [leads(client, there, minutes * MINUTE) for minutes in (100, 179, 181)] == [private, private, ""]


def test_what_stripe_calls_a_payment_opens_the_private_page_while_the_bank_waits_and_for_an_hour_after_its_answer(
    client: FlaskClient,
) -> None:
    pledge = a_refused()
    keep()
    private, there = f"/pledges/{pledge.link()}", f"/pledges/bank-return?payment_intent=pi_{pledge.id}"
    assert leads(client, there, MINUTE) == "", "its supporter was at no bank"
    held = Pledge.hold(pledge.id)
    held.pay_again(now())
    attempt = held.claim(now(), MINUTE)
    attempt.params = confirm_params("pm_1", "https://standing.example/pledges/bank-return")
    bank = ChargeFound("action_required", f"pi_{held.id}", None, 0, "x", bank_url="https://bank.example/approve")
    held.apply_charge(bank, now(), asked=True)
    keep()
    assert leads(client, there, 6 * 1_440 * MINUTE) == private
    Pledge.hold(pledge.id).apply_charge(ChargeFound("succeeded", f"pi_{pledge.id}", "ch_2", 2_500), now())
    keep()
    assert [leads(client, there, minutes * MINUTE) for minutes in (0, 59, 61)] == [private, private, ""]


def test_a_pledge_whose_card_was_never_saved_silences_nobody_else(client: FlaskClient, pledge: Pledge) -> None:
    pledge.wants_updates = True
    stranger = a_pledge(pledge.round, 500, email="ADA@example.org", wants_updates=True)
    keep()
    client.post(f"/pledges/{stranger.link()}/updates")
    assert [one.wants_updates for one in pledges_of("the-case")] == [True, False]
    client.post(f"/pledges/{pledge.link()}/updates")
    assert [one.wants_updates for one in pledges_of("the-case")] == [False, False]


def test_finding_lost_links_is_answered_alike_whether_anybody_pledged_or_not(
    app: Flask, client: FlaskClient, pledge: Pledge
) -> None:
    answers = []
    for email in ("ADA@example.org", "nobody@example.org", "ada@example.org"):
        sent = client.post("/pledges/find", data={"email": email})
        shown = client.get(sent.location)
        answers.append((sent.status_code, sent.location, sent.text, {*sent.headers.keys()}, shown.text))
    assert answers[0] == answers[1] == answers[2]
    assert "example.org" not in answers[0][1] + answers[0][2] and answers[0][0] == 303
    assert db.session.scalars(sa.select(LinkRequest.email).order_by(LinkRequest.id)).all() == [
        "ada@example.org", "nobody@example.org",
    ]  # fmt: skip
    assert [kind for kind, _ in letters_sent(app)].count("links") == 1
    look_anew()
    unsent = db.session.scalars(sa.select(Letter.trouble).where(Letter.subject == "link_request:2")).all()
    assert unsent == ["not sent: overtaken by events"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [("", "Enter your e-mail address."), ("ada@", "Enter an e-mail address in the form name@example.com.")],
)
def test_what_is_no_address_is_told_so_and_nothing_is_asked(client: FlaskClient, typed: str, words: str) -> None:
    before = everything()
    answer = client.post("/pledges/find", data={"email": typed})
    assert answer.status_code == 422 and summary(answer) == [("email", words)] and f'value="{typed}"' in answer.text
    assert everything() == before


def test_the_way_to_lost_links_is_on_every_page(client: FlaskClient) -> None:
    a_case(slug="the-case")
    for where, status in {"/": 200, "/cases/the-case": 200, "/cases/the-case/pledge": 200, "/nowhere": 404}.items():
        assert read(client, where, status=status).select_one("footer a[href='/pledges/find']"), where
    assert read(client, "/cases/the-case/pledge").select_one("main a[href='/pledges/find']")


def test_after_the_deadline_the_forms_say_so_and_change_nothing(client: FlaskClient, pledge: Pledge) -> None:
    its_round = case_at("the-case").round
    its_round.move_deadline(now(), "test", now())
    keep()
    before = everything()
    for way, typed in {"amount": {"amount": "10", "agreed": "y"}, "name": {"name": "Ada"}}.items():
        for answer in (client.get(f"/pledges/{pledge.link()}/{way}"),
                       client.post(f"/pledges/{pledge.link()}/{way}", data=typed)):  # fmt: skip
            assert answer.status_code == 409
            assert "This case has closed: pledges can no longer be changed." in answer.text
    assert everything() == before
