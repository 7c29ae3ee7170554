"""Every setting, once, from the environment. Refuses to start half-configured.

Each field below is an environment variable of the same name in capitals; `.env.example` lists them all.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from email.errors import MessageError
from email.headerregistry import Address
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import limits
import sqlalchemy as sa
import structlog
from flask import current_app
from flask.cli import load_dotenv
from flask.helpers import get_load_dotenv
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

ROOT = Path(__file__).resolve().parent
# What development uses so that nothing need be set; production refuses each of them.
DEVELOPMENT_SECRET = "development-only-secret-do-not-use-in-production"  # noqa: S105 - never a real one
DEVELOPMENT_LINK_SECRET = "development-only-link-secret-do-not-use-in-production"  # noqa: S105 - never a real one
SANDBOX_KEY = "sk_test_sandbox"
SANDBOX_WEBHOOK_SECRET = "whsec_development_only_sandbox_secret"  # noqa: S105 - never a real one
DEMONSTRATION_OPERATOR = "Standing (demonstration)"
SHORTEST_SECRET = 32
SHORTEST_REDIS_PASSWORD = 16
# What nobody else may read. Each may also come from a file, which the variable with _FILE behind its name names.
SECRETS = (
    "database_url", "redis_url", "mail_url",
    "secret_key", "secret_key_fallbacks", "link_secret", "link_secret_fallbacks",
    "stripe_secret_key", "stripe_worker_key", "stripe_webhook_secret", "stripe_webhook_secret_fallbacks",
)  # fmt: skip
# An origin as browsers write it, since forms are compared with it letter by letter.
_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
# What a log must not hold: an address, a private link, a key of Stripe's.
_SECRET = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+|(?<=/)[\w-]+\.[\w-]{20,}|\b(?:[sr]k_(?:live|test)|whsec)_\w+")
_HTMX = re.compile(r"(https?:/)?/[^#\s\"'<>]+#sha384-[A-Za-z0-9+/]{64}")


class NotConfigured(SystemExit):
    """A setting is missing or unsafe; the text names it.

    It ends whichever program loads the application (flask, granian) with these words and without a traceback,
    which an operator would have to read to the end.
    """


class FromFiles(EnvSettingsSource):
    """The secrets that lie in files: a container, or systemd with its credentials, gives them so."""

    def _load_env_vars(self) -> dict[str, str]:
        named = {name: os.environ.get(f"{name.upper()}_FILE", "") for name in SECRETS}
        return {name: _secret_in(name.upper(), Path(file)) for name, file in named.items() if file}


def _secret_in(name: str, file: Path) -> str:
    """What a file holds, without the end of its line. Never says what it read."""
    if os.environ.get(name):
        raise _refusal([f"{name} and {name}_FILE are both set: leave one out."])
    try:
        secret = file.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as trouble:
        raise _refusal([f"{name}_FILE names a file that cannot be read: {trouble.strerror}."]) from None
    except UnicodeDecodeError:
        raise _refusal([f"{name}_FILE names a file that is no text."]) from None
    if not secret:
        raise _refusal([f"{name}_FILE names a file that is empty."])
    return secret


class Settings(BaseSettings):
    """What an operator can set. The defaults are for development and are refused in production."""

    # An empty variable is one that was not set: compose files and the like cannot leave one out.
    model_config = SettingsConfigDict(env_file=None, env_ignore_empty=True, extra="forbid", frozen=True)

    environment: Literal["development", "test", "production"] = "development"
    database_url: str = f"sqlite:///{ROOT / 'var' / 'standing.db'}"
    redis_url: str = "redis://127.0.0.1:6379/0"
    secret_key: str = DEVELOPMENT_SECRET
    secret_key_fallbacks: tuple[str, ...] = ()
    link_secret: str = DEVELOPMENT_LINK_SECRET
    link_secret_fallbacks: tuple[str, ...] = ()

    site_url: str = "http://127.0.0.1:8000"
    site_name: str = "Standing"
    operator_name: str = DEMONSTRATION_OPERATOR
    contact_email: str = "help@example.org"
    display_zone: str = "Europe/London"

    stripe_secret_key: str = SANDBOX_KEY
    stripe_worker_key: str = ""
    stripe_webhook_secret: str = SANDBOX_WEBHOOK_SECRET
    stripe_webhook_secret_fallbacks: tuple[str, ...] = ()
    stripe_api_base: str = ""
    checkout_origin: str = "https://checkout.stripe.com"
    capture_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    card_pages_at_once: Annotated[int, Field(ge=1, le=1000)] = 24
    card_page_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 25.0

    mail_url: str = "file:var/letters"
    mail_from: str = "Standing <letters@example.org>"
    bounces_to: str = ""

    htmx_src: str = (
        "https://cdn.jsdelivr.net/npm/htmx.org@2.0.11/dist/htmx.min.js"
        "#sha384-2OatzQy1H+Zd/IIrjr1TcuDGqLXeHhbooAyJY1KdQMKnr4LZ22k31GBLdYKHmVjg"
    )
    pages_folder: str = ""
    sign_up: Literal["invitation", "open"] = "invitation"
    second_factor: Literal["offered", "required"] = "offered"
    largest_picture_mb: Annotated[int, Field(ge=1, le=50)] = 8
    hashes_at_once: Annotated[int, Field(ge=1, le=64)] = 4
    front_cache_mb: Annotated[int, Field(ge=0, le=1024)] = 16
    trusted_proxies: Annotated[int, Field(ge=0)] = 0
    rate_login: str = "10 per 15 minutes"
    rate_login_network: str = "50 per 15 minutes"
    rate_pledge: str = "30 per hour"
    rate_network: str = "300 per hour"
    rate_card_page: str = "10 per hour"
    rate_way_back: str = "60 per hour"
    rate_look: str = "1 per 5 seconds"
    breaker_refused: Annotated[int, Field(ge=1)] = 20
    breaker_unfinished: Annotated[int, Field(ge=1)] = 100
    same_card: Annotated[int, Field(ge=2)] = 3
    pledge_form_seconds: Annotated[int, Field(ge=0, le=60)] = 3
    pledge_question: str = ""
    pledge_answers: tuple[str, ...] = ()
    rate_comment: str = "20 per hour"
    rate_letter: str = "10 per hour"
    rate_search: str = "60 per minute"

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        return init_settings, env_settings, FromFiles(settings_cls)

    @field_validator("site_url", "checkout_origin", "stripe_api_base")
    @classmethod
    def _an_origin(cls, url: str, setting: ValidationInfo) -> str:
        origin = url.rstrip("/")
        if origin == "" and setting.field_name == "stripe_api_base":
            return origin
        if not _ORIGIN.fullmatch(origin) or urlsplit(origin).port == 0:
            raise ValueError("must be an origin like https://example.org, in small letters and without a path")
        return origin

    @field_validator("database_url")
    @classmethod
    def _a_database_we_know(cls, url: str) -> str:
        """A relative SQLite file is below the project's folder, wherever a command is started."""
        path = url.removeprefix("sqlite:///")
        if path != url and path not in ("", ":memory:"):
            return f"sqlite:///{ROOT / path}"
        if not url.startswith("postgresql"):
            raise ValueError("must begin with sqlite:/// and a file, or with postgresql+psycopg://")
        try:
            sa.make_url(url).get_dialect().import_dbapi()
        except ImportError as missing:
            raise ValueError(f"needs a driver that is not installed ({missing})") from missing
        except sa.exc.SQLAlchemyError as wrong:
            raise ValueError("cannot be understood") from wrong
        return url

    @field_validator("redis_url")
    @classmethod
    def _a_doorbell(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url

    @field_validator("mail_url")
    @classmethod
    def _a_road_for_letters(cls, url: str) -> str:
        where = urlsplit(url)
        to_a_server = where.scheme in ("smtp", "smtps") and where.hostname and where.port != 0
        to_a_folder = where.scheme == "file" and where.netloc + where.path
        if not (to_a_server or to_a_folder):
            raise ValueError("must be smtp://HOST, smtps://HOST or file:FOLDER")
        if bool(where.username) != bool(where.password):
            raise ValueError("must have both a user and a password, or neither")
        return url

    @field_validator("bounces_to")
    @classmethod
    def _an_address_or_none(cls, written: str) -> str:
        return cls._an_address(written) if written else written

    @field_validator("mail_from", "contact_email")
    @classmethod
    def _an_address(cls, written: str) -> str:
        name, address = parseaddr(written)
        try:
            Address(display_name=name, addr_spec=address)
        except (ValueError, IndexError, MessageError) as wrong:
            raise ValueError("must be an e-mail address") from wrong
        return written

    @field_validator("htmx_src")
    @classmethod
    def _an_address_and_its_hash(cls, source: str) -> str:
        """The hash goes into the script policy, so nothing else may stand there."""
        if not _HTMX.fullmatch(source):
            raise ValueError("must end with # and the sha384 hash of the script")
        return source

    @field_validator(
        "rate_login", "rate_login_network", "rate_pledge", "rate_network", "rate_card_page", "rate_way_back",
        "rate_look", "rate_comment", "rate_letter", "rate_search",
    )  # fmt: skip
    @classmethod
    def _a_rate(cls, rate: str) -> str:
        try:
            limits.parse_many(rate)
        except ValueError as wrong:
            raise ValueError("must be a rate like 10 per 15 minutes") from wrong
        return rate

    @field_validator("pledge_question")
    @classmethod
    def _a_line(cls, question: str) -> str:
        if len(question) > 200:
            raise ValueError("may have at most 200 characters")
        return question.strip()

    @field_validator("pledge_answers", mode="before")
    @classmethod
    def _words(cls, answers: object) -> tuple[str, ...]:
        """As JSON gives them: a number is as good an answer as a word."""
        if not isinstance(answers, list | tuple) or not all(isinstance(one, str | int) for one in answers):
            raise ValueError('must be a list of answers like ["Tuesday", "mardi"]')
        return tuple(words for one in answers if (words := str(one).strip()))

    @field_validator("display_zone")
    @classmethod
    def _known_zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as unknown:
            raise ValueError("is not a time zone, such as Europe/London") from unknown
        return zone

    @property
    def is_https(self) -> bool:
        """Cookies are Secure and `__Host-` exactly when the site's own address is https."""
        return self.site_url.startswith("https://")

    @property
    def requires_second_factor(self) -> bool:
        """Whether moderators and staff log in with nothing less: in production always."""
        return self.environment == "production" or self.second_factor == "required"

    @property
    def trusted_hosts(self) -> list[str]:
        """The names by which the site may be asked for: its own, and in development this machine's."""
        own = urlsplit(self.site_url).hostname or ""
        return [own] if self.environment == "production" else [own, "127.0.0.1", "localhost"]

    @property
    def htmx_url(self) -> str:
        return self.htmx_src.partition("#")[0]

    @property
    def htmx_host(self) -> str:
        """The other host that each reader's browser asks for htmx; "" where it comes from the site itself."""
        host = urlsplit(self.htmx_url).netloc
        return "" if host == urlsplit(self.site_url).netloc else host

    @property
    def htmx_integrity(self) -> str:
        """The hash behind the `#` of HTMX_SRC, which is also all that the script policy allows."""
        return self.htmx_src.partition("#")[2]

    @property
    def livemode(self) -> bool:
        """Whether the Stripe key moves real money; events of the other mode are refused."""
        return "_live_" in self.stripe_secret_key

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """A webhook is let in when any of these has signed it; while one is being replaced there are two."""
        return (self.stripe_webhook_secret, *self.stripe_webhook_secret_fallbacks)

    def behind_the_pages(self) -> "Settings":
        """The same for the worker, the sweep and the commands, which may do more at Stripe than the web server."""
        return self.model_copy(update={"stripe_secret_key": self.stripe_worker_key}) if self.stripe_worker_key else self


def load(overrides: dict[str, object] | None = None) -> Settings:
    """The settings of the environment with `overrides` on top; raises NotConfigured naming what is wrong.

    The command flask takes a file .env into its environment. So here every program does, or one of them would charge on
    other books than the rest; what is set already stays, and FLASK_SKIP_DOTENV=1 leaves the file alone for all of them.
    """
    if get_load_dotenv():
        load_dotenv()
    try:
        settings = Settings(**(overrides or {}))  # type: ignore[arg-type]
    except ValidationError as wrong:
        raise _refusal([_in_words(dict(error)) for error in wrong.errors()]) from None
    except SettingsError as wrong:
        named = re.search(r'field "(\w+)"', str(wrong))
        raise _refusal([f"{named.group(1).upper() if named else 'A setting'} must be a list in JSON."]) from None
    troubles = _troubles(settings)
    if troubles:
        raise _refusal(troubles)
    return settings


def _refusal(troubles: list[str]) -> NotConfigured:
    return NotConfigured("\n  ".join(["Standing cannot start like this:", *troubles]))


def _in_words(error: dict[str, Any]) -> str:
    """What pydantic found, without the value: it may be a secret."""
    name = str(error["loc"][0]).upper() if error["loc"] else "A setting"
    return f"{name} {error['msg'].removeprefix('Value error, ').removeprefix('Input ')}."


def _troubles(settings: Settings) -> list[str]:
    """What must not be started with, in the order in which an operator would mend it."""
    found = []
    if bool(settings.pledge_question) != bool(settings.pledge_answers):
        found.append("PLEDGE_QUESTION and PLEDGE_ANSWERS must both be set, or neither.")
    if settings.stripe_worker_key and settings.livemode != settings.behind_the_pages().livemode:
        found.append("STRIPE_WORKER_KEY and STRIPE_SECRET_KEY must both be live keys or both test keys.")
    if settings.livemode and settings.stripe_api_base:
        found.append("STRIPE_API_BASE must be empty when STRIPE_SECRET_KEY is a live key.")
    if settings.livemode and settings.environment == "development":
        # Whoever forgets ENVIRONMENT on a real server would take real money with secrets that everybody knows.
        found.append("ENVIRONMENT must be production when STRIPE_SECRET_KEY is a live key.")
    if settings.environment == "production":
        found += _production_troubles(settings)
    return found


def _production_troubles(settings: Settings) -> list[str]:
    """Each line is something that must not be so in production, and the sentence that says it."""
    key = settings.stripe_secret_key
    known = (DEVELOPMENT_SECRET, DEVELOPMENT_LINK_SECRET)
    # An old secret opens the same doors as a new one, so the fallbacks must be as good.
    secrets = {
        "SECRET_KEY": (settings.secret_key,),
        "SECRET_KEY_FALLBACKS": settings.secret_key_fallbacks,
        "LINK_SECRET": (settings.link_secret,),
        "LINK_SECRET_FALLBACKS": settings.link_secret_fallbacks,
    }
    found = [
        f"{name} still has its development value." for name, all_of_it in secrets.items() if {*all_of_it} & {*known}
    ]
    found += [
        f"{name} must have at least {SHORTEST_SECRET} characters."
        for name, all_of_it in secrets.items()
        if any(len(secret.strip()) < SHORTEST_SECRET for secret in all_of_it)
    ]
    wrong = {
        "SECRET_KEY and LINK_SECRET must differ.": settings.secret_key == settings.link_secret,
        "SITE_URL must begin with https:// in production.": not settings.is_https,
        "STRIPE_API_BASE is for the sandbox only and must be empty in production.": settings.stripe_api_base != "",
        "STRIPE_SECRET_KEY is missing: set the account's secret or restricted key.": (
            key == SANDBOX_KEY or not key.startswith(("sk_", "rk_"))
        ),
        "STRIPE_WORKER_KEY must be the account's secret or restricted key.": (
            settings.stripe_worker_key[:3] not in ("", "sk_", "rk_")
        ),
        "STRIPE_WEBHOOK_SECRET is missing: set the endpoint's signing secret.": not _signs(
            settings.stripe_webhook_secret
        ),
        "STRIPE_WEBHOOK_SECRET_FALLBACKS must be the endpoint's earlier signing secrets.": not all(
            _signs(secret) for secret in settings.stripe_webhook_secret_fallbacks
        ),
        "REDIS_URL must have a password of yours, of at least 16 characters: see deploy/redis.conf.": (
            not _is_locked(settings.redis_url)
        ),
        "CHECKOUT_ORIGIN must be an https:// origin.": not settings.checkout_origin.startswith("https://"),
        "MAIL_URL must be smtp:// or smtps:// in production.": not settings.mail_url.startswith(
            ("smtp://", "smtps://")
        ),
        "OPERATOR_NAME still has its demonstration value.": settings.operator_name == DEMONSTRATION_OPERATOR,
        "CONTACT_EMAIL still has its example address.": settings.contact_email.endswith("example.org"),
        "MAIL_FROM still has its example address.": "example.org" in settings.mail_from,
        "FLASK_DEBUG must not be set in production.": os.environ.get("FLASK_DEBUG", "0") not in ("", "0"),
    }
    return found + [sentence for sentence, so in wrong.items() if so]


def _is_locked(redis_url: str) -> bool:
    """Whether Redis asks for a password that is neither the one that we ship nor soon guessed: whoever can write there
    rings for work, and wears the limits away."""
    return len(unquote(urlsplit(redis_url).password or "").strip()) >= SHORTEST_REDIS_PASSWORD


def _signs(hook: str) -> bool:
    """Whether this can be a signing secret of Stripe's that is not known to everybody."""
    return hook != SANDBOX_WEBHOOK_SECRET and hook.startswith("whsec_") and len(hook) >= SHORTEST_SECRET


def current() -> Settings:
    """The settings of the running application."""
    settings: Settings = current_app.config["STANDING"]
    return settings


def _without_secrets(_logger: Any, _level: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """The last defence: what another library says of its trouble may repeat what it was given."""
    return {name: _SECRET.sub("[left out]", said) if isinstance(said, str) else said for name, said in line.items()}


def _without_words(_logger: Any, _level: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """What went wrong is told by its kinds and where: what an exception says may be a name, or what somebody wrote."""
    given = line.pop("exc_info", None)
    trouble = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    told: list[str] = []
    seen: list[BaseException] = []
    while trouble is not None and trouble not in seen:
        seen.append(trouble)
        where = [(frame.f_code, number) for frame, number in traceback.walk_tb(trouble.__traceback__)]
        lines = [f'  File "{code.co_filename}", line {number}, in {code.co_name}' for code, number in where]
        told = [*lines, f"{type(trouble).__module__}.{type(trouble).__qualname__}", *told]
        trouble = trouble.__cause__ or (None if trouble.__suppress_context__ else trouble.__context__)
    if told:
        line["exception"] = "\n".join(("Traceback without words, the last call last in each part:", *told))
    return line


def start_logging(settings: Settings) -> None:
    """One line per state change, JSON in production. Callers pass ids only, never names, mail or tokens."""
    last = (
        structlog.processors.JSONRenderer()
        if settings.environment == "production"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _without_words,
            _without_secrets,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )
