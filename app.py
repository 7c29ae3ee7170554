"""The site: what office.py has, with doors and rooms on top."""

import base64
import hashlib
import sys
from pathlib import Path

import click
from flask import Flask
from flask.cli import ScriptInfo

import beginning  # noqa: F401 - it is there to be first
import config
import office
from models import db
from views import doors, front_cache, languages, log_ins, stylesheet, webhooks
from views.rooms import ROOMS

STATIC = Path(__file__).parent / "static"
# For the moderators' desk, and for every page.
OUR_SCRIPTS = ("keys.js", "trouble.js")
# Nothing that a person types into one of our forms is longer; Stripe's events are shorter too.
LARGEST_BODY = 256 * 1024


def create_app(overrides: dict[str, object] | None = None) -> Flask:
    """The application with the settings of the environment, and `overrides` on top (for tests).

    Raises NotConfigured, naming the setting, when it must not be started like this.
    """
    app = office.create(overrides)
    settings: config.Settings = app.config["STANDING"]
    app.config.from_mapping(_flask_settings(settings))
    doors.watch(app)
    log_ins.watch(app)
    for room in ROOMS:
        app.register_blueprint(room)
    stylesheet.give_to_pages(app)
    app.context_processor({"settings": settings, "scripts": app.config["SCRIPTS"]}.copy)
    _add_commands(app)
    app.wsgi_app = languages.LanguageOfAddress(app.wsgi_app)  # type: ignore[assignment, method-assign]
    if settings.trusted_proxies:
        _trust_proxies(app, settings.trusted_proxies)
    webhooks.put_before(app, LARGEST_BODY)
    front_cache.put_before(app)
    return app


def _flask_settings(settings: config.Settings) -> dict[str, object]:
    return {
        "SECRET_KEY": settings.secret_key,
        "SECRET_KEY_FALLBACKS": list(settings.secret_key_fallbacks),
        "SCRIPTS": {name: _integrity(STATIC / name) for name in OUR_SCRIPTS},
        "SITE_CSS": stylesheet.parts(),
        "MAX_CONTENT_LENGTH": LARGEST_BODY,
        "MAX_FORM_MEMORY_SIZE": LARGEST_BODY,
        "MAX_FORM_PARTS": 100,
        "SESSION_COOKIE_NAME": "__Host-session" if settings.is_https else "session",
        "SESSION_COOKIE_SECURE": settings.is_https,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "PERMANENT_SESSION_LIFETIME": 14 * 24 * 3600,
        "TRUSTED_HOSTS": settings.trusted_hosts,
        "WTF_CSRF_TIME_LIMIT": None,
        "RATELIMIT_STORAGE_URI": settings.redis_url.replace("unix://", "redis+unix://"),
        "RATELIMIT_STORAGE_OPTIONS": {"socket_timeout": 0.2, "socket_connect_timeout": 0.2},
    }


def _integrity(file: Path) -> str:
    """The hash by which pages name a script, and the policy allows it."""
    return "sha384-" + base64.b64encode(hashlib.sha384(file.read_bytes()).digest()).decode()


def _add_commands(app: Flask) -> None:
    """Only for `flask`, and where somebody has loaded Flask-Migrate to use it: a web server never will, and Alembic,
    the demonstration and Stripe's SDK come with them. Granian has commands as well, but not of Flask's kind."""
    command = click.get_current_context(silent=True)
    if (command and isinstance(command.obj, ScriptInfo)) or "flask_migrate" in sys.modules:
        from flask_migrate import Migrate

        import cli

        app.config["STANDING"] = app.config["STANDING"].behind_the_pages()
        Migrate(app, db, directory=str(office.MIGRATIONS), render_as_batch=True)
        cli.register(app)


def _trust_proxies(app: Flask, count: int) -> None:
    """Believe exactly as many forwarding headers as there are proxies of ours in front."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=0)  # type: ignore[method-assign]
