"""The sandbox held against Stripe's own OpenAPI description: parameters, words, lengths, events, expansion."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.stripe_events import OCCURS
from sandbox.core import API_VERSION, EXPANDABLE
from sandbox.errors import StripeRefusal
from sandbox.faults import EVENTS
from sandbox.fields import Check, Fields
from sandbox.operations import OPERATIONS
from tests.stripe_description import VERSION, Schema, parameters, stripes_description

# What our API has and the older one of the description has not; the SDK has all three.
NEWER = {"allowed_payment_method_types"}
NEWER_WORDS = {"checkout.sessions.create: locale: hi-IN", f"webhook_endpoints.create: api_version: {API_VERSION}"}


@pytest.fixture(scope="session")
def described() -> Schema:
    return stripes_description()


def test_the_description_is_of_the_version_that_docs_name(described: Schema) -> None:
    assert described["info"]["version"] == VERSION


def test_only_one_parameter_of_the_sandbox_is_newer_than_the_description(described: Schema) -> None:
    unknown = {
        name
        for operation in OPERATIONS.values()
        for name in operation.fields
        if name not in parameters(described, operation.path, operation.method)["properties"]
    }
    assert unknown == NEWER


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_call_lets_through_what_stripe_refuses(described: Schema, name: str) -> None:
    operation = OPERATIONS[name]
    schema = parameters(described, operation.path, operation.method)
    assert set(schema.get("required", [])) <= set(operation.required)
    assert set(_lenient(operation.fields, schema, name)) - NEWER_WORDS == set()


def test_every_event_that_is_sent_or_listened_to_is_one_of_stripes(described: Schema) -> None:
    endpoint = parameters(described, "/v1/webhook_endpoints", "POST")["properties"]["enabled_events"]
    assert (set(EVENTS) | set(OCCURS)) - set(endpoint["items"]["enum"]) == set()


def test_only_what_stripe_expands_can_be_expanded(described: Schema) -> None:
    wrong = [
        f"{kind}.{name}"
        for kind, names in EXPANDABLE.items()
        for name in names
        if name not in described["components"]["schemas"][kind]["x-expandableFields"]
    ]
    assert wrong == []


def _lenient(fields: Fields, schema: Schema, where: str) -> Iterator[str]:
    for name, check in fields.items():
        if name not in NEWER:
            yield from _lenient_check(check, schema["properties"][name], f"{where}: {name}")


def _lenient_check(check: Check, schema: Schema, where: str) -> Iterator[str]:
    """What a check lets through though the schema does not. A check is a closure, and holds what it was made with."""
    forms = schema.get("anyOf", [schema])
    made_with = inspect.getclosurevars(check).nonlocals
    if "fields" in made_with:
        (inner,) = [form for form in forms if form.get("type") == "object"]
        yield from _lenient(made_with["fields"], inner, where)
        if not set(inner.get("required", [])) <= set(made_with["required"]):
            yield f"{where}: something may be left out that Stripe needs"
    elif "check_one" in made_with:
        (inner,) = [form for form in forms if form.get("type") == "array"]
        yield from _lenient_check(made_with["check_one"], inner["items"], f"{where}[]")
    elif "allowed" in made_with:
        words = {word for form in forms for word in form.get("enum", [])}
        # Where Stripe's description lists no words it takes any.
        yield from (f"{where}: {word}" for word in made_with["allowed"] if words and word not in words)
    else:
        longest = max((form.get("maxLength", 0) for form in forms), default=0)
        if longest and _lets_through(check, "x" * (longest + 1), where):
            yield f"{where}: more than {longest} characters"


def _lets_through(check: Check, value: Any, where: str) -> bool:
    try:
        check(value, where)
    except StripeRefusal:
        return False
    return True
