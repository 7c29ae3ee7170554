"""Parameters as Stripe reads them: form-encoded, nested with brackets, and nothing unknown let through."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from sandbox.errors import StripeRefusal, bad_request

# A check takes the raw value and the parameter's full name and returns the value as its type, or raises.
Check = Callable[[Any, str], Any]
Fields = Mapping[str, Check]

LONGEST_TEXT = 5000
METADATA_KEYS, METADATA_NAME, METADATA_VALUE = 50, 40, 500


def nested(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Form pairs as a tree: [("a[b][0]", "x")] -> {"a": {"b": {"0": "x"}}}."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        steps = [step.rstrip("]") for step in name.split("[")]
        branch = tree
        for step in steps[:-1]:
            inner = branch.setdefault(step, {})
            if not isinstance(inner, dict):
                raise bad_request(f"Invalid parameter: {name}", param=name)
            branch = inner
        branch[steps[-1] or str(len(branch))] = value
    return tree


def checked(given: Mapping[str, Any], fields: Fields, required: Iterable[str] = (), within: str = "") -> Any:
    """The parameters as their types. Raises parameter_unknown, parameter_missing and the like."""
    unknown = [_name(within, name) for name in given if name not in fields]
    if unknown:
        _refuse_unknown(unknown)
    for name in required:
        if name not in given:
            full = _name(within, name)
            raise bad_request(f"Missing required param: {full}.", code="parameter_missing", param=full)
    return {name: fields[name](value, _name(within, name)) for name, value in given.items()}


def _name(within: str, name: str) -> str:
    return f"{within}[{name}]" if within else name


def _refuse_unknown(names: list[str]) -> None:
    if "payment_method_types" in names:
        raise bad_request(
            "The `payment_method_types` parameter is no longer supported. Use `allowed_payment_method_types`.",
            code="payment_method_types_no_longer_supported",
            param="payment_method_types",
        )
    noun = "parameter" if len(names) == 1 else "parameters"
    raise bad_request(f"Received unknown {noun}: {', '.join(names)}", code="parameter_unknown", param=names[0])


def _plain(value: Any, name: str, kind: str) -> str:
    if not isinstance(value, str):
        raise bad_request(f"Invalid {kind}: {name} takes one value.", param=name)
    if value == "":
        raise bad_request(
            f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset a field; "
            f"however '{name}' cannot be unset. You should remove '{name}' from your request or supply a "
            "non-empty value.",
            code="parameter_invalid_empty",
            param=name,
        )
    return value


def text(longest: int = LONGEST_TEXT) -> Check:
    def check(value: Any, name: str) -> str:
        plain = _plain(value, name, "string")
        if len(plain) > longest:
            raise bad_request(
                f"Invalid string: {name} must be at most {longest} characters; got {len(plain)}.", param=name
            )
        return plain

    return check


def integer(least: int | None = None, most: int | None = None) -> Check:
    def check(value: Any, name: str) -> int:
        plain = _plain(value, name, "integer")
        if not re.fullmatch(r"-?[0-9]{1,15}", plain):
            raise bad_request(f"Invalid integer: {plain}", code="parameter_invalid_integer", param=name)
        number = int(plain)
        if least is not None and number < least:
            raise bad_request(
                f"This value must be greater than or equal to {least}.",
                code="parameter_invalid_integer",
                param=name,
            )
        if most is not None and number > most:
            raise bad_request(
                f"This value must be less than or equal to {most}.", code="parameter_invalid_integer", param=name
            )
        return number

    return check


def flag(value: Any, name: str) -> bool:
    plain = _plain(value, name, "boolean")
    if plain not in ("true", "false"):
        raise bad_request(f"Invalid boolean: {plain}", param=name)
    return plain == "true"


def choice(*allowed: str) -> Check:
    def check(value: Any, name: str) -> str:
        plain = _plain(value, name, "string")
        if plain not in allowed:
            raise bad_request(f"Invalid {name}: must be one of {', '.join(allowed)}", param=name)
        return plain

    return check


def flag_or(*allowed: str) -> Check:
    """A boolean, or one of a few words that mean a kind of true."""
    word = choice(*allowed)

    def check(value: Any, name: str) -> bool | str:
        return flag(value, name) if value in ("true", "false", "") else str(word(value, name))

    return check


def currency(value: Any, name: str) -> str:
    """Only pounds: Standing has no other currency."""
    plain = _plain(value, name, "string").lower()
    if plain != "gbp":
        raise bad_request(f"Invalid currency: {plain}. The sandbox takes only gbp.", param=name)
    return plain


def email(value: Any, name: str) -> str:
    plain = _plain(value, name, "string")
    if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", plain) or len(plain) > 512:
        raise bad_request(f"Invalid email address: {plain}", code="email_invalid", param=name)
    return plain


def url(value: Any, name: str) -> str:
    plain = _plain(value, name, "string")
    try:
        parts = urlsplit(plain)
    except ValueError:  # brackets that hold no IPv6 address
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise bad_request("Not a valid URL", code="url_invalid", param=name)
    return plain


def metadata(value: Any, name: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise bad_request(f"Invalid object: {name}", param=name)
    if len(value) > METADATA_KEYS:
        raise bad_request(f"Metadata can have at most {METADATA_KEYS} keys.", param=name)
    for key, inner in value.items():
        if not isinstance(inner, str) or len(key) > METADATA_NAME or len(inner) > METADATA_VALUE:
            raise bad_request(
                f"Metadata keys have at most {METADATA_NAME} and values at most {METADATA_VALUE} characters.",
                param=_name(name, key),
            )
    return {key: inner for key, inner in value.items() if inner != ""}


def list_of(check_one: Check, most: int = 100) -> Check:
    def check(value: Any, name: str) -> list[Any]:
        if not isinstance(value, dict) or not all(key.isdigit() for key in value):
            raise bad_request("Invalid array", param=name)
        if len(value) > most:
            raise bad_request(f"Array {name} exceeded maximum {most} allowed elements.", param=name)
        return [check_one(value[key], _name(name, key)) for key in sorted(value, key=int)]

    return check


def group(fields: Fields, required: Iterable[str] = ()) -> Check:
    def check(value: Any, name: str) -> Any:
        if not isinstance(value, dict):
            raise bad_request(f"Invalid object: {name}", param=name)
        return checked(value, fields, required, within=name)

    return check


def moments(value: Any, name: str) -> dict[str, int]:
    """`created`: one instant (UTC seconds), or bounds such as created[gte]."""
    if isinstance(value, str):
        instant = integer()(value, name)
        return {"gte": instant, "lte": instant}
    bounds: dict[str, int] = group({bound: integer() for bound in ("gt", "gte", "lt", "lte")})(value, name)
    return bounds


def descriptor_suffix(value: Any, name: str) -> str:
    """The end of the line on the card statement: at most 22 characters, a letter, none of <>\\'"*."""
    plain = str(text(22)(value, name))
    if re.search(r"[<>\\'\"*]", plain) or not re.search(r"[A-Za-z]", plain):
        raise bad_request(
            "The statement descriptor must contain at least one letter and none of < > \\ ' \" *.", param=name
        )
    return plain


def card_statement_descriptor(value: Any, name: str) -> StripeRefusal:
    raise bad_request(
        "You cannot set `statement_descriptor` for a card charge; use `statement_descriptor_suffix`.", param=name
    )
