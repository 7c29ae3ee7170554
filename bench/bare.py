"""The smallest site of Flask's, to measure ours against: under the same server, in the same run. And what the server
itself can give at most."""

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication


def create_app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def hello() -> str:
        return "hello world"

    @app.post("/")
    def take() -> tuple[str, int]:
        return str(len(request.get_data())), 200

    return app


def create_alone() -> "WSGIApplication":
    """Nothing but answers that are ready: for each path the status, the headers and the body in ANSWERS."""
    answers = {
        f"/{name}": (status, [(header, value) for header, value in headers], [bytes.fromhex(body)])
        for name, (status, headers, body) in json.loads(os.environ["ANSWERS"]).items()
    }

    def answer(asked: dict[str, Any], start_response: "StartResponse") -> Iterable[bytes]:
        status, headers, body = answers[asked["PATH_INFO"]]
        start_response(status, headers)
        return body

    return answer
