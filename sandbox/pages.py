"""The pages a person sees: Checkout, the bank, the start page and the letters. Plain HTML without script."""

import json
from datetime import UTC, datetime
from pathlib import Path

from flask import Blueprint, abort, current_app, redirect, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from sandbox import cards, charging, checkout, checkout_page
from sandbox.core import Sandbox
from sandbox.errors import StripeRefusal
from sandbox.faults import CALL_FAULTS, EVENT_FAULTS, EVENTS
from sandbox.letters import letter_named, letters_in, with_links
from sandbox.operations import OPERATIONS
from sandbox.store import Document

pages = Blueprint("pages", __name__)

Page = str | tuple[str, int] | Response

SHOWN = 30  # rows of each list on the start page


def _sandbox() -> Sandbox:
    sandbox: Sandbox = current_app.extensions["sandbox"]
    return sandbox


@pages.app_template_filter("moment")
def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%-d %B %Y, %H:%M:%S UTC")


@pages.app_template_filter("pounds")
def pounds(pence: int) -> str:
    return f"£{pence // 100:,}.{pence % 100:02}"


@pages.errorhandler(StripeRefusal)
def not_there(refusal: StripeRefusal) -> Page:
    return render_template("plain.html", title="Not found", text=refusal.error["message"], link=None), 404


@pages.app_errorhandler(HTTPException)
def not_so(error: HTTPException) -> Page:
    """Every other refusal, as a page that says where one is."""
    text = error.description or "This cannot be done."
    return render_template("plain.html", title=error.name, text=text, link="/"), error.code or 500


@pages.get("/healthz")
def healthz() -> Response:
    return Response("ok", content_type="text/plain")


@pages.get("/c/pay/<session_id>")
def show_checkout(session_id: str) -> Page:
    session = checkout.find_session(_sandbox(), session_id)
    return _session_over(session) if session["status"] != "open" else _checkout_page(session)


@pages.post("/c/pay/<session_id>")
def give_card(session_id: str) -> Page:
    sandbox = _sandbox()
    session = checkout.find_session(sandbox, session_id)
    number = request.form.get("card", "")
    email = request.form.get("email", "").strip() or None
    try:
        intent = checkout_page.give_card(sandbox, session_id, number, email)
    except checkout_page.SessionOver:
        return _session_over(checkout.find_session(sandbox, session_id))
    except checkout_page.UnknownCard:
        return _checkout_page(session, typed=number, unknown=True), 422
    sandbox.ring()
    if intent["status"] == "requires_payment_method":
        # Read again: the first card of a payment has made its PaymentIntent.
        return _checkout_page(checkout.find_session(sandbox, session_id), typed=number), 402
    return _onwards(session, intent)


@pages.get("/c/pay/<session_id>/bank")
def checkout_bank(session_id: str) -> Page:
    session = checkout.find_session(_sandbox(), session_id)
    intent = checkout.intent_of(_sandbox(), session)
    if session["status"] != "open":
        return _session_over(session)
    if intent is None or intent["status"] != "requires_action":
        return redirect(f"/c/pay/{session_id}", code=303)
    return render_template(
        "bank.html", action=request.path, amount=intent.get("amount"), description=intent["description"]
    )


@pages.post("/c/pay/<session_id>/bank")
def answer_checkout_bank(session_id: str) -> Page:
    sandbox = _sandbox()
    session = checkout.find_session(sandbox, session_id)
    try:
        intent = checkout_page.answer_bank(sandbox, session_id, _approved())
    except checkout_page.SessionOver:
        return _session_over(checkout.find_session(sandbox, session_id))
    sandbox.ring()
    return _onwards(session, intent)


@pages.get("/bank/<intent_id>")
def payment_bank(intent_id: str) -> Page:
    intent = _sandbox().find("payment_intent", intent_id)
    if "_session" in intent:
        return redirect(f"/c/pay/{intent['_session']}/bank", code=303)
    if intent["status"] != "requires_action":
        back = intent.get("_return_url")
        text = "There is nothing to confirm for this payment."
        return render_template("plain.html", title="Nothing to confirm", text=text, link=back), 410
    return render_template("bank.html", action=request.path, amount=intent["amount"], description=intent["description"])


@pages.post("/bank/<intent_id>")
def answer_payment_bank(intent_id: str) -> Page:
    sandbox = _sandbox()
    if sandbox.find("payment_intent", intent_id).get("_return_url") is None:
        return payment_bank(intent_id)
    back = charging.answer_bank(sandbox, intent_id, _approved())
    sandbox.ring()
    return redirect(back, code=303)


def _approved() -> bool:
    answer = request.form.get("answer")
    if answer not in ("approve", "refuse"):
        abort(400, "answer must be approve or refuse")
    return answer == "approve"


def _onwards(session: Document, intent: Document | None) -> Response:
    if intent is None or intent["status"] == "requires_payment_method":
        return redirect(f"/c/pay/{session['id']}", code=303)
    if intent["status"] == "requires_action":
        return redirect(f"/c/pay/{session['id']}/bank", code=303)
    return redirect(_success_url(session), code=303)


def _success_url(session: Document) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


def _checkout_page(session: Document, typed: str = "", unknown: bool = False) -> str:
    intent = checkout.intent_of(_sandbox(), session) or {}
    refusal = intent.get("last_setup_error") or intent.get("last_payment_error")
    description = intent.get("description") or session.get("_payment", {}).get("description")
    buttons = cards.BUTTONS
    if session["mode"] == "payment":
        # Whatever a card does at the deadline it does here, where it is charged at once.
        buttons = tuple(one for one in cards.BUTTONS if "deadline" not in one[0])
    return render_template(
        "checkout.html", session=session, description=description, typed=typed, unknown=unknown, buttons=buttons,
        numbers=cards.CARDS.values(), refusal=refusal["message"] if refusal else None,
        verb="Save this card" if session["mode"] == "setup" else f"Pay {pounds(session['amount_total'])}",
    )  # fmt: skip


def _session_over(session: Document) -> Page:
    if session["status"] == "complete":
        title = "Your card is saved" if session["mode"] == "setup" else "Your payment is made"
        text, link = "Nothing more is to be done here.", _success_url(session)
    else:
        title, text = "This page has expired", "Please start again on the site you came from."
        link = session["cancel_url"]
    return render_template("plain.html", title=title, text=text, link=link), 410


@pages.get("/")
def start() -> str:
    sandbox = _sandbox()
    store = sandbox.store
    events = store.latest("event", SHOWN)
    tried: dict[str, list[Document]] = {event["id"]: [] for event in events}
    marks = ", ".join("?" for _ in tried)
    for row in store.rows(f"SELECT * FROM deliveries WHERE event_id IN ({marks}) ORDER BY id", *tried):
        tried[row["event_id"]].append(dict(row) | {"tries": json.loads(row["tries"])})
    held = store.row("SELECT COUNT(*) AS count FROM deliveries WHERE state = 'held'")
    return render_template(
        "start.html",
        sessions=store.latest("checkout.session", SHOWN),
        payments=store.latest("payment_intent", SHOWN),
        charges=[one for one in store.latest("charge", SHOWN) if one["paid"]],
        refunds=store.latest("refund", SHOWN),
        disputes=store.latest("dispute", SHOWN),
        transfers=store.latest("transfer", SHOWN),
        events=events,
        tried=tried,
        held=held["count"] if held else 0,
        calls=[dict(row) for row in store.rows("SELECT * FROM calls ORDER BY id DESC LIMIT ?", SHOWN)],
        faults=sandbox.faults.all(),
        call_faults=CALL_FAULTS,
        event_faults=EVENT_FAULTS,
        operations=OPERATIONS,
        event_types=EVENTS,
        offset=sandbox.clock_offset,
        limits=sandbox.limits.all(),
        now=sandbox.now(),
    )


@pages.get("/letters")
def letters() -> str:
    return render_template("letters.html", letters=letters_in(_folder()))


@pages.get("/letters/<name>")
def letter(name: str) -> str:
    found = letter_named(_folder(), name)
    if found is None:
        abort(404)
    return render_template("letter.html", letter=found, text=with_links(found.text, current_app.config["SITE_URL"]))


def _folder() -> Path:
    return Path(current_app.config["LETTERS"])
