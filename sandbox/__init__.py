"""A local Stripe for development, the demo and tests: it keeps state, has Checkout and bank pages, sends
signed events, and can be told to fail. It knows nothing of the product, and no money ever moves in it."""

from collections.abc import Mapping
from types import MappingProxyType

from flask import Flask

from sandbox.api import api
from sandbox.controls import controls
from sandbox.core import Sandbox
from sandbox.deliveries import Deliveries, replace_endpoints
from sandbox.idempotency import Keys
from sandbox.pages import pages


def create_app(
    state: str,
    letters: str = "var/letters",
    webhook_url: str | None = None,
    webhook_secret: str = "",
    site_url: str = "http://127.0.0.1:8000",
    base_url: str = "http://127.0.0.1:12111",
    limits: Mapping[str, float] = MappingProxyType({}),
    api_key: str | None = None,
    restricted_keys: Mapping[str, list[str]] = MappingProxyType({}),
) -> Flask:
    """The sandbox as a WSGI application. It delivers nothing by itself until `deliveries_of(app).start()`.

    state        path of the SQLite file
    webhook_url  the only endpoint from now on, when given; `webhook_secret` signs what goes there
    site_url     where the product is: only links to it can be clicked in the letters
    base_url     where this sandbox is reached
    limits       what is set from now on of per_endpoint and in_all (calls a second) and latency (seconds for each)
    api_key      the only key accepted, when given; else any test key
    restricted_keys  what some of them may call (checkout.sessions.create, ...); the others may call everything
    """
    app = Flask(__name__)
    app.config.update(LETTERS=letters, SITE_URL=site_url.rstrip("/"), API_KEY=api_key, RESTRICTED_KEYS=restricted_keys)
    sandbox = Sandbox(state, base_url)
    sandbox.limits.change(limits)
    app.extensions["sandbox"] = sandbox
    app.extensions["keys"] = Keys(sandbox)
    app.extensions["deliveries"] = Deliveries(sandbox)
    if webhook_url:
        replace_endpoints(sandbox, webhook_url, webhook_secret)
    for blueprint in (api, controls, pages):
        app.register_blueprint(blueprint)
    return app
