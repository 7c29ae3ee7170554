"""Every call the sandbox answers, as one table: its name, its URL, its parameters and what it does."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox import aftermath, balance, charging, checkout, transfers
from sandbox.core import API_VERSION, Sandbox
from sandbox.errors import bad_request, no_such
from sandbox.fields import Fields, checked, choice, list_of, text
from sandbox.parameters import (
    CANCELLATION,
    CONFIRMATION,
    DATED,
    ENDPOINT,
    EXPAND,
    PAGING,
    PAYMENT,
    REFUND,
    REVERSAL,
    SESSION,
    TRANSFER,
)
from sandbox.store import Document, new_id

Act = Callable[[Sandbox, str, Document], Document]

EVENTS_GO_BACK = 30 * 24 * 60 * 60  # seconds


@dataclass(frozen=True)
class Operation:
    """One call: `path` holds <id> when it is about one object, which `act` then gets (else "")."""

    name: str
    method: str
    path: str
    act: Act
    fields: Fields
    required: tuple[str, ...] = ()


def perform(sandbox: Sandbox, operation: Operation, object_id: str, given: Mapping[str, Any]) -> Document:
    """Do one call and return what its answer shows, expanded. `given` is the form as a tree.

    Raises StripeRefusal. The caller holds `sandbox.store.change()`.
    """
    params = checked(given, operation.fields, operation.required)
    return sandbox.expanded(operation.act(sandbox, object_id, params), params.get("expand", []))


def _get(kind: str) -> Act:
    return lambda sandbox, object_id, params: sandbox.find(kind, object_id)


def _list(kind: str, path: str, *filters: str) -> Act:
    """A page of the documents of a kind, newest first; each filter is a field that must be equal."""

    def act(sandbox: Sandbox, object_id: str, params: Document) -> Document:
        where, values = ["kind = ?"], [kind]
        for name in filters:
            if name in params:
                where.append(f"json_extract(body, '$.{name}') = ?")
                values.append(params[name])
        return page_of(sandbox, kind, path, params, where, values)

    return act


def page_of(sandbox: Sandbox, kind: str, path: str, params: Document, where: list[str], values: list[Any]) -> Document:
    """The list object that Stripe answers: `limit` documents beside the cursor, and whether there are more."""
    for bound, sign in (("gt", ">"), ("gte", ">="), ("lt", "<"), ("lte", "<=")):
        if bound in params.get("created", {}):
            where.append(f"created {sign} ?")
            values.append(params["created"][bound])
    if "starting_after" in params and "ending_before" in params:
        raise bad_request("You may only specify one of these parameters: starting_after, ending_before.")
    backwards = "ending_before" in params
    cursor = params.get("ending_before") or params.get("starting_after")
    if cursor is not None:
        sandbox.find(kind, cursor, param="ending_before" if backwards else "starting_after")
        where.append(f"seq {'>' if backwards else '<'} (SELECT seq FROM objects WHERE id = ?)")
        values.append(cursor)
    limit = params.get("limit", 10)
    found = sandbox.store.rows(
        f"SELECT body FROM objects WHERE {' AND '.join(where)} ORDER BY seq {'ASC' if backwards else 'DESC'} "
        f"LIMIT {limit + 1}",
        *values,
    )
    page = [json.loads(row["body"]) for row in found[:limit]]
    if backwards:
        page.reverse()
    visible = [{name: value for name, value in one.items() if not name.startswith("_")} for one in page]
    return {"object": "list", "data": visible, "has_more": len(found) > limit, "url": path}


def _list_sessions(sandbox: Sandbox, object_id: str, params: Document) -> Document:
    checkout.expire_due_sessions(sandbox)
    listed = _list("checkout.session", "/v1/checkout/sessions", "customer", "payment_intent", "status")
    return listed(sandbox, object_id, params)


def _list_events(sandbox: Sandbox, object_id: str, params: Document) -> Document:
    if "type" in params and "types" in params:
        raise bad_request("You may only specify one of these parameters: type, types.")
    kinds = params.get("types") or ([params["type"]] if "type" in params else [])
    where, values = ["kind = 'event'", "created >= ?"], [sandbox.now() - EVENTS_GO_BACK]
    if kinds:
        where.append("(" + " OR ".join("json_extract(body, '$.type') GLOB ?" for _ in kinds) + ")")
        values.extend(kinds)
    return page_of(sandbox, "event", "/v1/events", params, where, values)


def _find_line(sandbox: Sandbox, line_id: str, params: Document) -> Document:
    balance.mature(sandbox)
    return sandbox.find("balance_transaction", line_id)


def _list_lines(sandbox: Sandbox, object_id: str, params: Document) -> Document:
    balance.mature(sandbox)
    listed = _list("balance_transaction", "/v1/balance_transactions", "source", "type")
    return listed(sandbox, object_id, params)


def _list_reversals(sandbox: Sandbox, transfer_id: str, params: Document) -> Document:
    sandbox.find("transfer", transfer_id)
    where = ["kind = 'transfer_reversal'", "json_extract(body, '$.transfer') = ?"]
    return page_of(sandbox, "transfer_reversal", f"/v1/transfers/{transfer_id}/reversals", params, where, [transfer_id])


def _detach(sandbox: Sandbox, method_id: str, params: Document) -> Document:
    method = sandbox.find("payment_method", method_id)
    if method["customer"] is None:
        raise bad_request("The payment method you provided is not attached to a customer so detachment is impossible.")
    method["customer"] = None
    sandbox.store.put(method)
    sandbox.emit("payment_method.detached", method)
    return method


def _list_customers(sandbox: Sandbox, object_id: str, params: Document) -> Document:
    where, values = ["kind = 'customer'", "json_extract(body, '$.deleted') IS NULL"], []
    if "email" in params:
        where.append("json_extract(body, '$.email') = ?")
        values.append(params["email"])
    return page_of(sandbox, "customer", "/v1/customers", params, where, values)


def _delete_customer(sandbox: Sandbox, customer_id: str, params: Document) -> Document:
    """For good, with every saved card; payments keep its id, and whoever asks for it learns that it is deleted."""
    customer = sandbox.find("customer", customer_id)
    if customer.get("deleted"):
        raise no_such("customer", customer_id)
    for method in sandbox.store.documents("payment_method"):
        if method["customer"] == customer_id:
            sandbox.store.put(method | {"customer": None})
    gone = {"id": customer_id, "object": "customer", "deleted": True}
    sandbox.store.write("UPDATE objects SET body = ? WHERE id = ?", json.dumps(gone), customer_id)
    sandbox.emit("customer.deleted", customer)
    return gone


def _create_endpoint(sandbox: Sandbox, object_id: str, params: Document) -> Document:
    endpoint = register_endpoint(sandbox, params["url"], new_id("whsec"), params["enabled_events"])
    endpoint |= {"description": params.get("description"), "metadata": params.get("metadata", {})}
    sandbox.store.put(endpoint)
    # The secret is shown this once, as Stripe does.
    return endpoint | {"secret": endpoint["_secret"]}


def register_endpoint(sandbox: Sandbox, address: str, secret: str, enabled_events: list[str]) -> Document:
    """Write a webhook endpoint; events that happen from now on are delivered to it."""
    endpoint: Document = {
        "id": new_id("we"),
        "object": "webhook_endpoint",
        "api_version": API_VERSION,
        "application": None,
        "created": sandbox.now(),
        "description": None,
        "enabled_events": enabled_events,
        "livemode": False,
        "metadata": {},
        "status": "enabled",
        "url": address,
        "_secret": secret,
    }
    with sandbox.store.change():
        sandbox.store.put(endpoint)
    return endpoint


def _delete_endpoint(sandbox: Sandbox, endpoint_id: str, params: Document) -> Document:
    sandbox.find("webhook_endpoint", endpoint_id)
    sandbox.store.delete(endpoint_id)
    return {"id": endpoint_id, "object": "webhook_endpoint", "deleted": True}


def _table() -> list[Operation]:
    sessions, intents = "/v1/checkout/sessions", "/v1/payment_intents"
    methods, endpoints = "/v1/payment_methods", "/v1/webhook_endpoints"
    by_customer: Fields = {**DATED, "customer": text()}
    of_charge: Fields = {**DATED, "charge": text(), "payment_intent": text()}
    return [
        Operation("checkout.sessions.create", "POST", sessions,
                  lambda box, _, params: checkout.create_session(box, params), SESSION, ("mode", "success_url")),
        Operation("checkout.sessions.retrieve", "GET", f"{sessions}/<id>",
                  lambda box, one, _: checkout.find_session(box, one), EXPAND),
        Operation("checkout.sessions.list", "GET", sessions, _list_sessions,
                  {**by_customer, "payment_intent": text(), "status": choice("open", "complete", "expired")}),
        Operation("checkout.sessions.expire", "POST", f"{sessions}/<id>/expire",
                  lambda box, one, _: checkout.expire_session(box, one), EXPAND),
        Operation("customers.retrieve", "GET", "/v1/customers/<id>", _get("customer"), EXPAND),
        Operation("customers.delete", "DELETE", "/v1/customers/<id>", _delete_customer, {}),
        Operation("customers.list", "GET", "/v1/customers", _list_customers,
                  {**DATED, "email": text(512)}),
        Operation("payment_methods.retrieve", "GET", f"{methods}/<id>", _get("payment_method"), EXPAND),
        Operation("payment_methods.list", "GET", methods, _list("payment_method", methods, "customer", "type"),
                  {**PAGING, "customer": text(), "type": choice("card")}, ("customer",)),
        Operation("payment_methods.detach", "POST", f"{methods}/<id>/detach", _detach, EXPAND),
        Operation("setup_intents.retrieve", "GET", "/v1/setup_intents/<id>", _get("setup_intent"), EXPAND),
        Operation("setup_intents.list", "GET", "/v1/setup_intents",
                  _list("setup_intent", "/v1/setup_intents", "customer", "payment_method"),
                  {**by_customer, "payment_method": text()}),
        Operation("payment_intents.create", "POST", intents,
                  lambda box, _, params: charging.create_payment_intent(box, params), PAYMENT,
                  ("amount", "currency")),
        Operation("payment_intents.retrieve", "GET", f"{intents}/<id>", _get("payment_intent"), EXPAND),
        Operation("payment_intents.list", "GET", intents, _list("payment_intent", intents, "customer"), by_customer),
        Operation("payment_intents.confirm", "POST", f"{intents}/<id>/confirm", charging.confirm_payment_intent,
                  CONFIRMATION),
        Operation("payment_intents.cancel", "POST", f"{intents}/<id>/cancel", charging.cancel_payment_intent,
                  CANCELLATION),
        Operation("charges.retrieve", "GET", "/v1/charges/<id>", _get("charge"), EXPAND),
        Operation("charges.list", "GET", "/v1/charges",
                  _list("charge", "/v1/charges", "customer", "payment_intent", "transfer_group"),
                  {**by_customer, "payment_intent": text(), "transfer_group": text()}),
        Operation("refunds.create", "POST", "/v1/refunds",
                  lambda box, _, params: aftermath.create_refund(box, params), REFUND),
        Operation("refunds.retrieve", "GET", "/v1/refunds/<id>", _get("refund"), EXPAND),
        Operation("refunds.list", "GET", "/v1/refunds", _list("refund", "/v1/refunds", "charge", "payment_intent"),
                  of_charge),
        Operation("disputes.retrieve", "GET", "/v1/disputes/<id>", _get("dispute"), EXPAND),
        Operation("disputes.list", "GET", "/v1/disputes",
                  _list("dispute", "/v1/disputes", "charge", "payment_intent"), of_charge),
        Operation("transfers.create", "POST", "/v1/transfers",
                  lambda box, _, params: transfers.create_transfer(box, params), TRANSFER,
                  ("amount", "currency", "destination")),
        Operation("transfers.retrieve", "GET", "/v1/transfers/<id>", _get("transfer"), EXPAND),
        Operation("transfers.list", "GET", "/v1/transfers",
                  _list("transfer", "/v1/transfers", "destination", "transfer_group"),
                  {**DATED, "destination": text(), "transfer_group": text()}),
        Operation("transfers.reversals.create", "POST", "/v1/transfers/<id>/reversals", transfers.create_reversal,
                  REVERSAL),
        Operation("transfers.reversals.list", "GET", "/v1/transfers/<id>/reversals", _list_reversals, PAGING),
        Operation("balance_transactions.retrieve", "GET", "/v1/balance_transactions/<id>",
                  _find_line, EXPAND),
        Operation("balance_transactions.list", "GET", "/v1/balance_transactions", _list_lines,
                  {**DATED, "source": text(), "type": text()}),
        Operation("events.retrieve", "GET", "/v1/events/<id>", _get("event"), EXPAND),
        Operation("events.list", "GET", "/v1/events", _list_events,
                  {**DATED, "type": text(), "types": list_of(text(), most=20)}),
        Operation("webhook_endpoints.create", "POST", endpoints, _create_endpoint, ENDPOINT,
                  ("url", "enabled_events")),
        Operation("webhook_endpoints.list", "GET", endpoints, _list("webhook_endpoint", endpoints), PAGING),
        Operation("webhook_endpoints.delete", "DELETE", f"{endpoints}/<id>", _delete_endpoint, {}),
    ]  # fmt: skip


OPERATIONS = {operation.name: operation for operation in _table()}
