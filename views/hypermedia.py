"""The one place where htmx and plain browsers differ. No view reads an HX header itself."""

from typing import Any

from flask import flash, g, make_response, redirect, render_template, request
from flask.wrappers import Response
from flask_login import current_user

UNCHANGED = 204
# What htmx says when it asks for an element, as WSGI has it.
FRAGMENT = {"HTTP_HX_REQUEST": "true"}


def page_or_fragment(page: str, fragment: str, status: int = 200, **context: Any) -> Response:
    """The whole page, or for htmx only the element that it swaps, which knows it as `swapped`."""
    swapped = _wants_fragment()
    answer = make_response(render_template(fragment if swapped else page, swapped=swapped, **context), status)
    _says_for_whom(answer)
    return answer


def refreshed(page: str, fragment: str, mark: str, **context: Any) -> Response:
    """As page_or_fragment, but htmx hears "unchanged" when it already shows what `mark` stands for.

    The fragment's own address carries the mark as `?seen=`, so that nothing is swapped, and nothing is read
    out, unless there is something new.
    """
    if _wants_fragment() and request.args.get("seen") == mark:
        answer = make_response("", UNCHANGED)
        _says_for_whom(answer)
        return answer
    return page_or_fragment(page, fragment, mark=mark, **context)


def invalid(page: str, fragment: str, status: int = 422, **context: Any) -> Response:
    """The form again, with what is wrong and with everything that was typed."""
    return page_or_fragment(page, fragment, status, **context)


def done(url: str, notice: str, fragment: str, **context: Any) -> Response:
    """After a POST that worked: plain browsers go on to `url`, htmx gets the changed element.

    The notice is flashed for people who are logged in; anonymous pages carry no cookie, so their `url` is a
    page that says it by itself.
    """
    if _wants_fragment():
        answer = make_response(render_template(fragment, notice=notice, **context))
        _says_for_whom(answer)
        return answer
    if notice and current_user.is_authenticated:
        flash(notice)
    return make_response(redirect(url, 303))


def trouble(page: str, status: int, **context: Any) -> Response:
    """An error: a whole page, or for htmx one line that is read out in the place of the swap."""
    g.is_trouble = True
    return page_or_fragment(page, "errors/_error.html", status, **context)


def elsewhere(url: str) -> Response:
    """To another page. htmx is told to load it whole: it would swap it into the element that it had asked for."""
    if _wants_fragment():
        answer = make_response("")
        answer.headers["HX-Redirect"] = url
    else:
        answer = make_response(redirect(url, 303))
    _says_for_whom(answer)
    return answer


def wants_fragment(asked: dict[str, Any]) -> bool:
    """Whether this request, as WSGI has it, is for an element only."""
    return asked.get("HTTP_HX_REQUEST") == "true" and asked.get("HTTP_HX_HISTORY_RESTORE_REQUEST") != "true"


def _wants_fragment() -> bool:
    return wants_fragment(request.environ)


def _says_for_whom(answer: Response) -> None:
    """Whoever keeps the answer must know by what it would have been another."""
    answer.vary.update(["HX-Request", "HX-History-Restore-Request"])
