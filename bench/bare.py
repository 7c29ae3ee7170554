"""The smallest site of Flask's, to measure ours against: under the same server, in the same run."""

from flask import Flask, request


def create_app() -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def hello() -> str:
        return "hello world"

    @app.post("/")
    def take() -> tuple[str, int]:
        return str(len(request.get_data())), 200

    return app
