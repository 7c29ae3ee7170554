"""What every program of Standing has: the settings, the database, and the words that letters are written with.

The worker and the sweep (`python -m jobs`) have nothing more. The site (`app.py`) puts its pages on top; with their
libraries those would be a sixth of the memory of a worker, which never draws one.
"""

import functools
import re
import threading
from pathlib import Path

from flask import Flask

import beginning  # noqa: F401 - it is there to be first
import config
from models import db, prepare_engine
from views import languages, words

MIGRATIONS = Path(__file__).parent / "migrations"
# So many times as many as are hashed at once may have theirs made or wait for it.
HASHES_IN_LINE = 4


def create(overrides: dict[str, object] | None = None) -> Flask:
    """An application without pages, with the settings of the environment, and `overrides` on top (for tests).

    Raises NotConfigured, naming the setting, when it must not be started like this.
    """
    settings = config.load(overrides)
    config.start_logging(settings)
    app = languages.Site(__name__)
    app.config.from_mapping(_flask_settings(settings))
    _connect_database(app)
    languages.teach(app)
    words.teach(app)
    return app


def _flask_settings(settings: config.Settings) -> dict[str, object]:
    return {
        "STANDING": settings,
        "ENVIRONMENT": settings.environment,
        "LINK_SECRETS": [settings.link_secret, *settings.link_secret_fallbacks],
        "SCHEMA": newest_migration(),
        "HASH_TURNS": threading.BoundedSemaphore(settings.hashes_at_once),
        "HASH_LINE": threading.BoundedSemaphore(HASHES_IN_LINE * settings.hashes_at_once),
        "SQLALCHEMY_DATABASE_URI": settings.database_url,
        "SQLALCHEMY_ENGINE_OPTIONS": {
            "pool_size": 40,
            "max_overflow": 0,
            "pool_timeout": 10,
            "hide_parameters": True,
            # A server that was started again, or a network that forgot us, costs one look and no request.
            "pool_pre_ping": not settings.database_url.startswith("sqlite"),
        },
    }


@functools.cache
def newest_migration() -> str:
    """What this release calls its tables. Read at the start: a later release may soon lie in our folder.

    Read without Alembic, which would stay in the memory of every program for this one word.
    """
    texts = "\n".join(file.read_text(encoding="utf-8") for file in (MIGRATIONS / "versions").glob("*.py"))
    names = re.findall(r"^revision = ['\"](\w+)['\"]$", texts, re.MULTILINE)
    followed = re.findall(r"^down_revision = ['\"](\w+)['\"]$", texts, re.MULTILINE)
    # There is none while the first one is being written.
    return str(next(iter(set(names) - set(followed)), ""))


def _connect_database(app: Flask) -> None:
    uri = str(app.config["SQLALCHEMY_DATABASE_URI"])
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    db.init_app(app)
    with app.app_context():
        prepare_engine(db.engine)
