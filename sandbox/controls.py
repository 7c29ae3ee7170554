"""The levers of the sandbox under /sandbox/: clock, fault plan, log of calls, events, reset. JSON, and forms
for the start page, which are answered with a redirect back to it."""

import json
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from sandbox import aftermath, transfers
from sandbox.core import Sandbox
from sandbox.deliveries import Deliveries
from sandbox.errors import StripeRefusal
from sandbox.faults import EVENT_FAULTS
from sandbox.operations import OPERATIONS

controls = Blueprint("controls", __name__, url_prefix="/sandbox")


def _sandbox() -> Sandbox:
    sandbox: Sandbox = current_app.extensions["sandbox"]
    return sandbox


def _deliveries() -> Deliveries:
    deliveries: Deliveries = current_app.extensions["deliveries"]
    return deliveries


def _wanted() -> dict[str, Any]:
    """The JSON body, or the form's fields that were filled in."""
    if request.is_json:
        body = request.get_json()
        if not isinstance(body, dict):
            raise ValueError("Send a JSON object.")
        return body
    return {name: value for name, value in request.form.items() if value != ""}


def _done(answer: dict[str, Any]) -> AnyResponse:
    return jsonify(answer) if request.is_json or not request.form else redirect("/", code=303)


@controls.errorhandler(ValueError)
def not_understood(error: ValueError) -> tuple[Response | str, int]:
    if request.form and not request.is_json:
        return render_template("plain.html", title="This was not understood", text=str(error), link="/"), 400
    return jsonify({"error": str(error)}), 400


@controls.errorhandler(StripeRefusal)
def refused(refusal: StripeRefusal) -> tuple[Response, int]:
    return jsonify({"error": refusal.error}), refusal.status


@controls.get("/clock")
def clock() -> Response:
    return jsonify({"offset_seconds": _sandbox().clock_offset, "now": _sandbox().now()})


@controls.post("/clock")
def move_clock() -> AnyResponse:
    _sandbox().move_clock(int(_wanted().get("offset_seconds", 0)))
    return _done({"offset_seconds": _sandbox().clock_offset, "now": _sandbox().now()})


@controls.get("/limits")
def limits() -> Response:
    return jsonify(_sandbox().limits.all())


@controls.post("/limits")
def change_limits() -> AnyResponse:
    """Set one or more of per_endpoint, in_all and latency; 0 for none."""
    _sandbox().limits.change(_wanted())
    return _done(_sandbox().limits.all())


@controls.get("/faults")
def faults() -> Response:
    return jsonify(_sandbox().faults.all())


@controls.post("/faults")
def add_fault() -> AnyResponse:
    wanted = _wanted()
    if not request.is_json:
        wanted = _typed_in(wanted)
    operation = wanted.get("operation") or "*"
    if operation != "*" and operation not in OPERATIONS:
        raise ValueError(f"The operation must be * or one of {', '.join(OPERATIONS)}.")
    return _done({"id": _sandbox().faults.add(wanted)})


def _typed_in(form: dict[str, Any]) -> dict[str, Any]:
    """The form's "target" is an operation or an event; "match" is one name=value; boxes are ticked or absent."""
    wanted = dict(form)
    target = str(wanted.pop("target", ""))
    wanted["event" if wanted.get("fault") in EVENT_FAULTS else "operation"] = target
    for box in ("saved", "work"):
        wanted[box] = box in form
    if "calls" in wanted:
        wanted["calls"] = str(wanted["calls"]).replace(",", " ").split()
    if "match" in wanted:
        name, _, value = str(wanted["match"]).partition("=")
        wanted["match"] = {name.strip(): value.strip()}
    return wanted


@controls.delete("/faults")
def clear_faults() -> Response:
    _sandbox().faults.clear()
    return jsonify([])


@controls.post("/faults/clearance")
def clear_faults_by_form() -> AnyResponse:
    """The same for the start page: a form cannot send DELETE."""
    _sandbox().faults.clear()
    return redirect("/", code=303)


@controls.get("/calls")
def calls() -> Response:
    """Every API call, oldest first; with ?operation= only those."""
    operation = request.args.get("operation")
    store = _sandbox().store
    if operation:
        found = store.rows("SELECT * FROM calls WHERE operation = ? ORDER BY id", operation)
    else:
        found = store.rows("SELECT * FROM calls ORDER BY id")
    return jsonify(
        [dict(row) | {"params": json.loads(row["params"]), "replayed": bool(row["replayed"])} for row in found]
    )


@controls.delete("/calls")
def forget_calls() -> Response:
    with _sandbox().store.change():
        _sandbox().store.write("DELETE FROM calls")
    return jsonify([])


@controls.get("/deliveries")
def deliveries() -> Response:
    """What became of each event: per delivery its state and its tries, oldest first; ?event= for one."""
    event = request.args.get("event")
    store = _sandbox().store
    sql = "SELECT d.*, json_extract(o.body, '$.type') AS type FROM deliveries d JOIN objects o ON o.id = d.event_id"
    found = (
        store.rows(f"{sql} WHERE d.event_id = ? ORDER BY d.id", event) if event else store.rows(f"{sql} ORDER BY d.id")
    )
    return jsonify([dict(row) | {"tries": json.loads(row["tries"])} for row in found])


@controls.post("/events/release")
def release() -> AnyResponse:
    """Deliver what a "hold" kept back; {"reverse": true} turns the order round."""
    reverse = _wanted().get("reverse") in (True, "true", "1", "on")
    return _done({"released": _deliveries().release(reverse)})


@controls.post("/events/<event_id>/deliver")
def deliver(event_id: str) -> AnyResponse:
    tries = _deliveries().deliver_again(event_id)
    return _done({"tries": tries})


@controls.post("/refunds/<refund_id>/failure")
def fail_refund(refund_id: str) -> AnyResponse:
    """The bank sends a refund back, days after it succeeded."""
    return _happened(aftermath.fail_refund(_sandbox(), refund_id))


@controls.post("/charges/<charge_id>/dispute")
def open_dispute(charge_id: str) -> AnyResponse:
    return _happened(aftermath.open_dispute(_sandbox(), charge_id))


@controls.post("/disputes/<dispute_id>/closure")
def close_dispute(dispute_id: str) -> AnyResponse:
    """The bank decides: {"status": "won"} or "lost"."""
    end = str(_wanted().get("status", ""))
    if end not in aftermath.DISPUTE_ENDS:
        raise ValueError("The status must be won or lost.")
    return _happened(aftermath.close_dispute(_sandbox(), dispute_id, end))


@controls.post("/accounts")
def open_account() -> AnyResponse:
    """A connected account, with {"transfers": "active"} or "inactive"."""
    return _done({"id": transfers.open_account(_sandbox(), _capability())["id"]})


@controls.post("/accounts/<account_id>")
def allow_transfers(account_id: str) -> AnyResponse:
    return _done({"id": transfers.allow_transfers(_sandbox(), account_id, _capability())["id"]})


def _capability() -> str:
    wanted = str(_wanted().get("transfers", "active"))
    if wanted not in transfers.CAPABILITY:
        raise ValueError("transfers must be active or inactive.")
    return wanted


def _happened(about: dict[str, Any]) -> AnyResponse:
    _sandbox().ring()
    return _done({"id": about["id"], "status": about["status"]})


@controls.post("/reset")
def reset() -> AnyResponse:
    """Forget everything but the webhook endpoints."""
    _sandbox().store.empty()
    return _done({"reset": True})
