"""Run the sandbox: `python -m sandbox --port 12111`. Every flag has a twin in the environment, SANDBOX_PORT
and so on."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sandbox import create_app
from sandbox.serving import listen, serve


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description="A local Stripe. No real money.")

    def option(name: str, default: str | None, meaning: str, kind: Callable[[str], Any] = str) -> None:
        twin = "SANDBOX_" + name.upper().replace("-", "_")
        value = os.environ.get(twin) or default
        parser.add_argument(f"--{name}", default=value, type=kind, help=f"{meaning} ({twin}; {default or 'none'})")

    option("port", "12111", "port on 127.0.0.1", int)
    option("state", "var/sandbox.db", "SQLite file with everything the sandbox knows")
    option("letters", "var/letters", "folder with the letters the product wrote")
    option("webhook-url", None, "where events go; replaces the endpoints registered before")
    option("webhook-secret", "whsec_sandbox", "secret that signs the events")
    option("site-url", "http://127.0.0.1:8000", "where the product is")
    option("latency", "0", "seconds that each API call takes longer", float)
    option("limit-per-endpoint", "25", "calls a second for each kind of call; 0 for no limit", float)
    option("limit-in-all", "100", "calls a second in all; 0 for no limit", float)
    option("api-key", None, "the only API key accepted; without it any sk_test_ or rk_test_ key")
    option(
        "restricted-keys", "{}", "JSON: what each restricted key may call; the others may call everything", json.loads
    )
    return parser.parse_args()


def main() -> None:
    given = _arguments()
    try:
        door = listen(given.port)
    except OSError as error:
        print(f"The sandbox cannot listen on 127.0.0.1:{given.port}: {error.strerror}.", file=sys.stderr)
        sys.exit(1)
    app = create_app(
        state=given.state,
        letters=given.letters,
        webhook_url=given.webhook_url,
        webhook_secret=given.webhook_secret,
        site_url=given.site_url,
        base_url=f"http://127.0.0.1:{given.port}",
        limits={
            "latency": given.latency,
            "per_endpoint": given.limit_per_endpoint,
            "in_all": given.limit_in_all,
        },
        api_key=given.api_key,
        restricted_keys=given.restricted_keys,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app.extensions["deliveries"].start(app.extensions["keys"])
    print(f"Sandbox (not Stripe, no real money) on http://127.0.0.1:{given.port}", flush=True)
    try:
        serve(app, door)
    except KeyboardInterrupt:
        pass
    finally:
        app.extensions["deliveries"].stop()


if __name__ == "__main__":
    main()
