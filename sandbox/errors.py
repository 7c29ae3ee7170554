"""The refusals of the sandbox, in the words and shapes of Stripe's API errors."""

from typing import Any

from sandbox.cards import Decline


class StripeRefusal(Exception):
    """An answer other than 200, raised where it is found out.

    It is an answer and not a crash: what was written before it (a failed charge, say) stays written.

    status  the HTTP status
    error   the object under "error" in the body
    saved   whether the answer is kept under the Idempotency-Key; Stripe keeps none that it gave before
            it began to work (bad parameters, bad keys, too many requests)
    """

    def __init__(self, status: int, error: dict[str, Any], saved: bool) -> None:
        super().__init__(error.get("message", ""))
        self.status = status
        self.error = error
        self.saved = saved


def _error(kind: str, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "message": message}
    if code is not None:
        error["code"] = code
        error["doc_url"] = f"https://docs.stripe.com/error-codes#{code.replace('_', '-')}"
    if param is not None:
        error["param"] = param
    return error


def bad_request(message: str, *, code: str | None = None, param: str | None = None) -> StripeRefusal:
    """400, found before any work began."""
    return StripeRefusal(400, _error("invalid_request_error", message, code, param), saved=False)


def not_allowed_now(message: str, *, code: str | None = None, **objects: Any) -> StripeRefusal:
    """400, because of the state an object is in; kept under the key, as the work had begun."""
    return StripeRefusal(400, _error("invalid_request_error", message, code, None) | objects, saved=True)


def no_such(noun: str, object_id: str, param: str | None = None) -> StripeRefusal:
    """resource_missing: 404 for the object the URL names, 400 for one that a parameter names."""
    error = _error("invalid_request_error", f"No such {noun}: '{object_id}'", "resource_missing", param or "id")
    return StripeRefusal(400 if param else 404, error, saved=False)


def unknown_url(method: str, path: str) -> StripeRefusal:
    message = f"Unrecognized request URL ({method}: {path}). The sandbox knows only what Standing uses."
    return StripeRefusal(404, _error("invalid_request_error", message, None, None), saved=False)


def unauthorised(message: str) -> StripeRefusal:
    return StripeRefusal(401, _error("invalid_request_error", message, None, None), saved=False)


def rate_limited(status: int, code: str) -> StripeRefusal:
    """rate_limit or lock_timeout: nothing was done and nothing is kept."""
    message = {
        "rate_limit": "Request rate limit exceeded.",
        "lock_timeout": "This object cannot be accessed right now because another API request or Stripe "
        "process is currently accessing it.",
    }[code]
    return StripeRefusal(status, _error("invalid_request_error", message, code, None), saved=False)


def key_used_otherwise(key: str) -> StripeRefusal:
    message = (
        "Keys for idempotent requests can only be used with the same endpoint and parameters they were first "
        f"used with. Try using a key other than '{key}' if you meant to execute a different request."
    )
    return StripeRefusal(400, {"type": "idempotency_error", "message": message}, saved=False)


def key_in_use(key: str) -> StripeRefusal:
    message = f"There is currently another in-progress request using this Idempotent Key: {key}."
    error = _error("idempotency_error", message, "idempotency_key_in_use", None)
    return StripeRefusal(409, error, saved=False)


def broken(status: int) -> StripeRefusal:
    """An answer of the 5xx family, made by the fault plan."""
    message = "An unknown error occurred (made by the sandbox's fault plan)."
    return StripeRefusal(status, {"type": "api_error", "message": message}, saved=False)


def card_error(decline: Decline, **objects: Any) -> StripeRefusal:
    """402: the bank said no. The objects (charge id, payment_intent, payment_method) go into the body."""
    return StripeRefusal(402, decline_error(decline) | objects, saved=True)


def decline_error(decline: Decline) -> dict[str, Any]:
    """The part that a card error's body and `last_payment_error` have in common."""
    error = _error("card_error", decline.message, decline.code, None)
    error["decline_code"] = decline.decline_code
    if decline.advice_code is not None:
        error["advice_code"] = decline.advice_code
    return error


def forbidden(key: str, operation: str) -> StripeRefusal:
    """A restricted key that may not do this."""
    message = f"The provided key '{key[:8]}****' does not have the required permissions for {operation}."
    return StripeRefusal(403, _error("invalid_request_error", message, None, None), saved=False)
