"""The /v1 API: who calls, with which key, what the fault plan does to it, and the answer in JSON."""

import json
import socket
import time
from typing import Any

from flask import Blueprint, Response, current_app, request

from sandbox.core import Sandbox
from sandbox.errors import StripeRefusal, broken, forbidden, rate_limited, unauthorised, unknown_url
from sandbox.faults import Fault, flat
from sandbox.fields import nested
from sandbox.idempotency import Answer, Keys, fingerprint
from sandbox.operations import OPERATIONS, Operation, perform
from sandbox.store import new_id

api = Blueprint("api", __name__)

METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH"]


def _routes() -> None:
    for operation in OPERATIONS.values():

        def view(object_id: str = "", operation: Operation = operation) -> Response:
            return answer_call(operation, object_id)

        api.add_url_rule(
            operation.path.replace("<id>", "<object_id>"), operation.name.replace(".", "_"), view,
            methods=[operation.method],
        )  # fmt: skip


_routes()


@api.route("/v1/<path:rest>", methods=METHODS)
@api.route("/v2/<path:rest>", methods=METHODS)
def unknown(rest: str) -> Response:
    return _response(_refusal_answer(unknown_url(request.method, request.path)))


def answer_call(operation: Operation, object_id: str) -> Response:
    """One call from the door to the answer, noted in the log of calls."""
    sandbox: Sandbox = current_app.extensions["sandbox"]
    pairs = list((request.form if request.method == "POST" else request.args).items(multi=True))
    key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
    # Counted as it arrives, before it waits for anything of ours.
    let_through = sandbox.limits.let_through(operation.name)
    call = _note_call(sandbox, operation, pairs, key)
    fault: Fault | None = None
    answer: Answer | None = None
    try:
        _check_api_key(operation)
        if not let_through:
            raise rate_limited(429, "rate_limit")
        time.sleep(sandbox.limits.latency)
        fault = sandbox.faults.for_call(operation.name, _facts(sandbox, object_id, pairs))
        if fault is not None and fault.fault == "refuse":
            return _cut()
        answer = _answer(sandbox, operation, object_id, pairs, key, fault)
        if fault is not None and fault.fault == "hang" and fault.when == "after":
            time.sleep(fault.seconds)
        if fault is not None and fault.fault == "lose_answer":
            answer = None
            return _cut()
    except StripeRefusal as refusal:
        answer = _refusal_answer(refusal)
    finally:
        with sandbox.store.change():
            sandbox.store.write(
                "UPDATE calls SET status = ?, replayed = ?, fault = ? WHERE id = ?",
                answer.status if answer else None, bool(answer and answer.replayed),
                fault.fault if fault else None, call,
            )  # fmt: skip
    return _response(answer)


def _answer(
    sandbox: Sandbox, operation: Operation, object_id: str, pairs: list[tuple[str, str]], key: str | None,
    fault: Fault | None,
) -> Answer:  # fmt: skip
    if fault is not None and fault.fault in ("rate_limit", "lock_timeout"):
        raise rate_limited(fault.status, fault.fault)
    if fault is not None and fault.fault == "error" and not fault.saved:
        raise broken(fault.status)
    if key is None:
        _hang_before(fault)
        return _work(sandbox, operation, object_id, pairs, None, "", fault)
    keys: Keys = current_app.extensions["keys"]
    print_ = fingerprint(request.method, request.path, pairs)
    saved = keys.begin(key, print_)
    if saved is not None:
        return saved
    try:
        _hang_before(fault)
        return _work(sandbox, operation, object_id, pairs, key, print_, fault)
    finally:
        keys.end(key)


def _hang_before(fault: Fault | None) -> None:
    if fault is not None and fault.fault == "hang" and fault.when == "before":
        time.sleep(fault.seconds)


def _work(
    sandbox: Sandbox, operation: Operation, object_id: str, pairs: list[tuple[str, str]], key: str | None,
    print_: str, fault: Fault | None,
) -> Answer:  # fmt: skip
    """Do it, and keep the answer in the same transaction."""
    keys: Keys = current_app.extensions["keys"]
    with sandbox.store.change():
        kept = True
        if fault is not None and fault.fault == "error" and not fault.work:
            answer = _refusal_answer(broken(fault.status))
        else:
            answer, kept = _perform(sandbox, operation, object_id, pairs, key, fault)
            if fault is not None and fault.fault == "error" and kept:
                answer = _refusal_answer(broken(fault.status))
        if key is not None and kept:
            keys.save(key, print_, answer)
    sandbox.ring()
    return answer


def _perform(
    sandbox: Sandbox, operation: Operation, object_id: str, pairs: list[tuple[str, str]], key: str | None,
    fault: Fault | None,
) -> tuple[Answer, bool]:  # fmt: skip
    """The work itself: its answer, and whether that is kept under the key."""
    sandbox.idempotency_key = key
    sandbox.forced_decline = fault.refusal if fault else None
    try:
        with sandbox.store.attempt():
            shown = perform(sandbox, operation, object_id, nested(pairs))
    except StripeRefusal as refusal:
        return _refusal_answer(refusal), refusal.saved
    finally:
        sandbox.idempotency_key = sandbox.forced_decline = None
    return Answer(200, json.dumps(shown, indent=2)), True


def _check_api_key(operation: Operation) -> None:
    """Accepts any test key, secret or restricted, unless one was given on the command line. A restricted key of which
    it was said what it may do may do nothing else."""
    given = request.authorization
    if given is None:
        raise unauthorised("You did not provide an API key.")
    key = (given.token if given.type == "bearer" else given.username) or ""
    wanted: str | None = current_app.config["API_KEY"]
    if key != wanted if wanted else not key.startswith(("sk_test_", "rk_test_")):
        raise unauthorised(f"Invalid API Key provided: {key[:8]}****. The sandbox takes only test keys.")
    may: dict[str, list[str]] = current_app.config["RESTRICTED_KEYS"]
    if operation.name not in may.get(key, [operation.name]):
        raise forbidden(key, operation.name)


def _facts(sandbox: Sandbox, object_id: str, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """What a fault's "match" is held against: the object named, then the parameters of the call."""
    row = sandbox.store.row("SELECT body FROM objects WHERE id = ?", object_id) if object_id else None
    return (flat(json.loads(row["body"])) if row else {}) | dict(pairs)


def _note_call(sandbox: Sandbox, operation: Operation, pairs: list[tuple[str, str]], key: str | None) -> int:
    with sandbox.store.change():
        return sandbox.store.write(
            "INSERT INTO calls (at, operation, method, path, idempotency_key, params) VALUES (?, ?, ?, ?, ?, ?)",
            time.time(), operation.name, request.method, request.path, key, json.dumps(dict(pairs)),
        )  # fmt: skip


def _cut() -> Response:
    """Close the caller's connection under their feet, with no answer."""
    connection: Any = request.environ.get("werkzeug.socket")
    if connection is not None:
        connection.shutdown(socket.SHUT_RDWR)
    return Response(status=500)


def _refusal_answer(refusal: StripeRefusal) -> Answer:
    return Answer(refusal.status, json.dumps({"error": refusal.error}, indent=2))


def _response(answer: Answer) -> Response:
    response = Response(answer.body, status=answer.status, content_type="application/json")
    response.headers["Request-Id"] = new_id("req")
    if answer.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response
