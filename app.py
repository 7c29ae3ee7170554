"""The application: settings, database, doors, rooms."""

import base64
import functools
import hashlib
from pathlib import Path

from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import Migrate
from markupsafe import Markup

import cli
import config
from models import db, prepare_engine
from views import addresses, answers, comments, doors, private_page, repairs, reviews, updates, words, workshop
from views.accounts import accounts
from views.drafts import drafts
from views.moderators import moderators
from views.owners import owners
from views.public import public
from views.staff import staff
from views.supporters import supporters
from views.webhooks import webhooks

MIGRATIONS = Path(__file__).parent / "migrations"
# These add their pages to the blueprints of the supporters, the owners and the staff.
ROOMS_OF_SUPPORTERS = (private_page, addresses, repairs)
ROOMS_OF_OWNERS, ROOMS_OF_STAFF = (workshop, updates, answers), (reviews,)
ROOMS_OF_THE_PUBLIC = (comments,)
# Nothing that a person types into one of our forms is longer; Stripe's events are shorter too.
LARGEST_BODY = 256 * 1024


def create_app(overrides: dict[str, object] | None = None) -> Flask:
    """The application with the settings of the environment, and `overrides` on top (for tests).

    Raises NotConfigured, naming the setting, when it must not be started like this.
    """
    settings = config.load(overrides)
    config.start_logging(settings)
    app = Flask(__name__)
    app.config.from_mapping(_flask_settings(settings))
    _connect_database(app)
    doors.watch(app)
    words.teach(app)
    for room in (public, supporters, accounts, moderators, owners, staff, drafts, webhooks):
        app.register_blueprint(room)
    site_css = Markup(app.config["SITE_CSS"])  # noqa: S704 - our own file, and its hash is in the policy
    keys = app.config["KEYS_INTEGRITY"]
    app.context_processor(lambda: {"settings": settings, "site_css": site_css, "keys_integrity": keys})
    cli.register(app)
    if settings.trusted_proxies:
        _trust_proxies(app, settings.trusted_proxies)
    return app


def _flask_settings(settings: config.Settings) -> dict[str, object]:
    return {
        "STANDING": settings,
        "ENVIRONMENT": settings.environment,
        "SECRET_KEY": settings.secret_key,
        "SECRET_KEY_FALLBACKS": list(settings.secret_key_fallbacks),
        "LINK_SECRETS": [settings.link_secret, *settings.link_secret_fallbacks],
        "SCHEMA": _newest_migration(),
        "KEYS_INTEGRITY": _integrity(Path(__file__).parent / "static" / "keys.js"),
        "SITE_CSS": (Path(__file__).parent / "static" / "site.css").read_text(encoding="utf-8"),
        "SQLALCHEMY_DATABASE_URI": settings.database_url,
        "SQLALCHEMY_ENGINE_OPTIONS": {
            "pool_size": 40,
            "max_overflow": 0,
            "pool_timeout": 10,
            "hide_parameters": True,
            # A server that was started again, or a network that forgot us, costs one look and no request.
            "pool_pre_ping": not settings.database_url.startswith("sqlite"),
        },
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


@functools.cache
def _newest_migration() -> str:
    """What this release calls its tables. Read at the start: a later release may soon lie in our folder."""
    return str(ScriptDirectory(str(MIGRATIONS)).get_current_head())


def _connect_database(app: Flask) -> None:
    uri = str(app.config["SQLALCHEMY_DATABASE_URI"])
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    db.init_app(app)
    Migrate(app, db, directory=str(MIGRATIONS), render_as_batch=True)
    with app.app_context():
        prepare_engine(db.engine)


def _trust_proxies(app: Flask, count: int) -> None:
    """Believe exactly as many forwarding headers as there are proxies of ours in front."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=0)  # type: ignore[method-assign]
