"""What Standing starts with, what it refuses to start with, and how it says so."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from flask import Flask

import app as application
import config
from config import NotConfigured
from models import db
from tests.conftest import ROOT
from tests.made import PASSWORD, a_user

BIN = Path(sys.executable).parent
# All that a real site must set; everything else may stay as it is.
PRODUCTION: dict[str, str] = {
    "environment": "production",
    "secret_key": "k" * 32,
    "link_secret": "l" * 32,
    "site_url": "https://standing.example",
    "operator_name": "Standing Ltd",
    "contact_email": "help@standing.example",
    "redis_url": "unix://standing:a-password-of-redis@/run/standing/valkey.sock",
    "stripe_secret_key": "sk_live_" + "a" * 24,
    "stripe_webhook_secret": "whsec_" + "w" * 32,
    "mail_url": "smtps://user:password@mail.standing.example",
    "mail_from": "Standing <letters@standing.example>",
}


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have settings of their own."""
    for name in (*config.Settings.model_fields, "flask_debug"):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"{name.upper()}_FILE", raising=False)


def test_development_starts_with_nothing_set() -> None:
    assert config.load().environment == "development"


def test_production_starts_when_all_is_set() -> None:
    settings = config.load(dict(PRODUCTION))
    assert settings.requires_second_factor and not config.load().requires_second_factor
    assert settings.livemode and settings.is_https and settings.trusted_hosts == ["standing.example"]


@pytest.mark.parametrize(
    ("setting", "unsafe"),
    [
        ("secret_key", config.DEVELOPMENT_SECRET),
        ("secret_key", config.DEVELOPMENT_LINK_SECRET),
        ("secret_key", "k" * 31),
        ("secret_key", " " * 32),
        ("link_secret", config.DEVELOPMENT_LINK_SECRET),
        ("link_secret", "l" * 31),
        ("link_secret", "k" * 32),  # the same as SECRET_KEY
        ("secret_key_fallbacks", ("short",)),
        ("secret_key_fallbacks", ("f" * 32, config.DEVELOPMENT_SECRET)),
        ("link_secret_fallbacks", ("",)),  # anybody could sign with it
        ("link_secret_fallbacks", (config.DEVELOPMENT_LINK_SECRET,)),
        ("site_url", "http://standing.example"),
        ("redis_url", "redis://127.0.0.1:6379/0"),
        ("redis_url", "unix:///run/standing/valkey.sock"),
        ("redis_url", "unix://standing:change%20me@/run/standing/valkey.sock"),  # the one that is shipped
        ("redis_url", "rediss://standing:" + "p" * 15 + "@redis.standing.example/0"),
        ("stripe_api_base", "http://127.0.0.1:12111"),
        ("stripe_secret_key", config.SANDBOX_KEY),
        ("stripe_secret_key", "pk_live_" + "a" * 24),  # the publishable one
        ("stripe_secret_key", ""),
        ("stripe_webhook_secret", config.SANDBOX_WEBHOOK_SECRET),
        ("stripe_webhook_secret", "whsec_"),
        ("stripe_webhook_secret", ""),
        ("stripe_webhook_secret_fallbacks", (config.SANDBOX_WEBHOOK_SECRET,)),
        ("stripe_webhook_secret_fallbacks", ("whsec_" + "o" * 32, "")),
        ("stripe_worker_key", "rk_test_" + "a" * 24),  # the other is a live one
        ("stripe_worker_key", "pk_live_" + "a" * 24),
        ("checkout_origin", "http://127.0.0.1:12111"),
        ("mail_url", "file:var/letters"),
        ("operator_name", config.DEMONSTRATION_OPERATOR),
        ("contact_email", "help@example.org"),
        ("mail_from", "Standing <letters@example.org>"),
    ],
)
def test_production_refuses_what_is_unsafe_and_names_it(setting: str, unsafe: object) -> None:
    with pytest.raises(NotConfigured) as refusal:
        config.load({**PRODUCTION, setting: unsafe})
    words = str(refusal.value).splitlines()[1:]
    assert words and all(setting.upper() in line for line in words)


@pytest.mark.parametrize("debug", ["1", "true", "on"])
def test_production_refuses_debug_mode(debug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_DEBUG", debug)
    with pytest.raises(NotConfigured, match="FLASK_DEBUG must not be set in production"):
        config.load(dict(PRODUCTION))


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(NotConfigured) as refusal:
        config.load({"environment": "production"})
    named = {line.split()[0] for line in str(refusal.value).splitlines()[1:]}
    assert named >= {name.upper() for name in PRODUCTION if name != "environment"}


@pytest.mark.parametrize("environment", ["development", "test", "production"])
def test_a_live_key_never_meets_the_sandbox(environment: str) -> None:
    with pytest.raises(NotConfigured, match="STRIPE_API_BASE must be empty when STRIPE_SECRET_KEY is a live key"):
        config.load({**PRODUCTION, "environment": environment, "stripe_api_base": "http://127.0.0.1:12111"})


def test_a_live_key_is_refused_where_somebody_forgot_that_this_is_production() -> None:
    with pytest.raises(NotConfigured, match="ENVIRONMENT must be production"):
        config.load({"stripe_secret_key": "rk_live_" + "a" * 24})


@pytest.mark.parametrize(
    ("setting", "malformed"),
    [
        ("ENVIRONMENT", "prod"),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "sqlite://"),  # in memory: each connection would have a database of its own
        ("DATABASE_URL", "sqlite:///:memory:"),
        ("DATABASE_URL", "mysql://localhost/standing"),
        ("DATABASE_URL", "postgresql+nodriver://localhost/standing"),
        ("DATABASE_URL", "postgresql+psycopg://localhost:port/standing"),
        ("REDIS_URL", "127.0.0.1:6379"),
        ("SECRET_KEY_FALLBACKS", "[broken"),
        ("LINK_SECRET_FALLBACKS", "an-old-secret"),
        ("SITE_URL", "standing.example"),
        ("SITE_URL", "https://"),
        ("SITE_URL", "https://standing.example/cases"),
        ("SITE_URL", "https://Standing.example"),
        ("SITE_URL", "https://standing.example:port"),
        ("CONTACT_EMAIL", "help"),
        ("DISPLAY_ZONE", "Europe"),
        ("DISPLAY_ZONE", "Mars/Base"),
        ("STRIPE_API_BASE", "127.0.0.1:12111"),
        ("CHECKOUT_ORIGIN", "checkout.stripe.com"),
        ("CHECKOUT_ORIGIN", "https://checkout.stripe.com; script-src *"),
        ("CAPTURE_RATE", "0"),
        ("CAPTURE_RATE", "-1"),
        ("CAPTURE_RATE", "inf"),
        ("CAPTURE_RATE", "nan"),
        ("CAPTURE_RATE", "fast"),
        ("MAIL_URL", "mail.example.org"),
        ("MAIL_URL", "pigeon://mail.example.org"),
        ("MAIL_URL", "smtp://"),
        ("MAIL_URL", "smtp://mail.example.org:port"),
        ("MAIL_URL", "smtp://user@mail.example.org"),  # it would be sent without any log-in
        ("MAIL_URL", "file:"),
        ("MAIL_FROM", "Standing"),
        ("MAIL_FROM", "Standing <letters>"),
        ("HTMX_SRC", "https://cdn.jsdelivr.net/npm/htmx.org@2.0.11/dist/htmx.min.js"),
        ("HTMX_SRC", "https://cdn.jsdelivr.net/htmx.js#sha384-short"),
        ("TRUSTED_PROXIES", "-1"),
        ("TRUSTED_PROXIES", "all"),
        ("RATE_LOGIN", "lots"),
        ("RATE_PLEDGE", "30 per fortnight"),
        ("RATE_COMMENT", "-"),
        ("PLEDGE_FORM_SECONDS", "61"),
        ("PLEDGE_QUESTION", "q" * 201),
        ("PLEDGE_ANSWERS", "Tuesday"),
        ("PLEDGE_ANSWERS", '"Tuesday"'),
        ("PLEDGE_ANSWERS", '{"Tuesday": 1}'),
    ],
)
def test_a_malformed_setting_stops_the_start_and_is_named(
    setting: str, malformed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, malformed)
    with pytest.raises(NotConfigured) as refusal:
        config.load()
    (words,) = str(refusal.value).splitlines()[1:]
    assert words.strip().startswith(f"{setting} ")


def test_a_question_needs_answers_and_answers_a_question(monkeypatch: pytest.MonkeyPatch) -> None:
    for question, answers in (("Which day?", ""), ("Which day?", '[" "]'), ("", '["Tuesday"]'), ("  ", '["Tuesday"]')):
        monkeypatch.setenv("PLEDGE_QUESTION", question)
        monkeypatch.setenv("PLEDGE_ANSWERS", answers)
        with pytest.raises(NotConfigured, match="PLEDGE_QUESTION and PLEDGE_ANSWERS must both be set, or neither"):
            config.load()
    monkeypatch.setenv("PLEDGE_QUESTION", " How much is 2 + 3? ")
    monkeypatch.setenv("PLEDGE_ANSWERS", '[5, " five "]')
    settings = config.load()
    assert (settings.pledge_question, settings.pledge_answers) == ("How much is 2 + 3?", ("5", "five"))
    monkeypatch.setenv("PLEDGE_QUESTION", " ")
    monkeypatch.setenv("PLEDGE_ANSWERS", "[]")
    assert config.load().pledge_question == ""


def test_a_refusal_never_shows_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+nodriver://standing:hunter2@localhost/standing")
    monkeypatch.setenv("SECRET_KEY_FALLBACKS", "[hunter2")
    monkeypatch.setenv("MAIL_URL", "smtp://standing:hunter2@mail.example.org:port")
    with pytest.raises(NotConfigured) as refusal:
        config.load()
    assert "hunter2" not in str(refusal.value)


def test_an_empty_variable_is_one_that_was_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert config.load() == config.Settings()


def test_the_values_of_env_example_start_a_development(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        name, is_set, value = line.partition("=")
        if is_set and not line.startswith("#"):
            monkeypatch.setenv(name, value)
    assert config.load().stripe_api_base == "http://127.0.0.1:12111"


@pytest.mark.parametrize(
    "program",
    [("-m", "flask", "--app", "app", "doctor"), ("-m", "jobs", "worker"), ("-c", "import app; app.create_app()")],
    ids=["the commands", "the worker", "the web server"],
)
def test_a_file_env_is_believed_by_every_program_alike(tmp_path: Path, program: tuple[str, ...]) -> None:
    (tmp_path / ".env").write_text("ENVIRONMENT=production\nOPERATOR_NAME=Standing Ltd\n")
    around = {**os.environ, "PYTHONPATH": str(ROOT), "FLASK_SKIP_DOTENV": "", "CONTACT_EMAIL": "help@standing.example"}
    began = subprocess.run(
        [sys.executable, *program], check=False, cwd=tmp_path, env=around, capture_output=True, text=True
    )
    assert began.returncode == 1 and "Standing cannot start like this" in began.stderr
    assert "SECRET_KEY" in began.stderr
    assert "OPERATOR_NAME" not in began.stderr and "CONTACT_EMAIL" not in began.stderr


# --- Secrets in files --------------------------------------------------------------------------------------


def test_every_secret_may_lie_in_a_file_and_the_end_of_its_line_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {
        "SECRET_KEY": "s" * 32, "LINK_SECRET": " l" * 16, "SECRET_KEY_FALLBACKS": '["old", "older"]',
        "LINK_SECRET_FALLBACKS": '["once"]', "STRIPE_SECRET_KEY": "sk_test_file", "STRIPE_WORKER_KEY": "rk_test_file",
        "STRIPE_WEBHOOK_SECRET": "whsec_file", "STRIPE_WEBHOOK_SECRET_FALLBACKS": '["whsec_old"]',
        "DATABASE_URL": "postgresql+psycopg://standing:password@host/name", "REDIS_URL": "redis://:password@host/0",
        "MAIL_URL": "smtp://user:password@host",
    }  # fmt: skip
    assert {name.lower() for name in kept} == {*config.SECRETS}
    for number, (name, secret) in enumerate(kept.items()):
        (tmp_path / name).write_text(secret + ("", "\n", "\r\n")[number % 3])
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / name))
    settings = config.load()
    assert {name: getattr(settings, name.lower()) for name in kept} == {
        **kept, "SECRET_KEY_FALLBACKS": ("old", "older"), "LINK_SECRET_FALLBACKS": ("once",),
        "STRIPE_WEBHOOK_SECRET_FALLBACKS": ("whsec_old",),
    }  # fmt: skip


def test_every_setting_that_is_called_a_secret_a_key_or_a_fallback_is_one() -> None:
    named = {name for name in config.Settings.model_fields if name.endswith(("secret", "key", "fallbacks", "_url"))}
    assert named - {"site_url"} == {*config.SECRETS}


@pytest.mark.parametrize(
    ("holds", "also", "words"),
    [
        (b"hunter2" * 5, "hunter3", "SECRET_KEY and SECRET_KEY_FILE are both set: leave one out."),
        (None, "", "SECRET_KEY_FILE names a file that cannot be read: No such file or directory."),
        (b"hunter2\xff", "", "SECRET_KEY_FILE names a file that is no text."),
        (b"\n", "", "SECRET_KEY_FILE names a file that is empty."),
    ],
)
def test_a_file_that_holds_no_secret_stops_the_start_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: bytes | None, also: str, words: str
) -> None:
    file = tmp_path / "secret"
    if holds is not None:
        file.write_bytes(holds)
    monkeypatch.setenv("SECRET_KEY_FILE", str(file))
    monkeypatch.setenv("SECRET_KEY", also)
    with pytest.raises(NotConfigured) as refusal:
        config.load()
    assert str(refusal.value).splitlines()[1:] == [f"  {words}"]


def test_a_folder_and_a_secret_that_is_too_short_are_refused_from_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINK_SECRET_FILE", str(tmp_path))
    with pytest.raises(NotConfigured, match="LINK_SECRET_FILE names a file that cannot be read: Is a directory"):
        config.load()
    (tmp_path / "short").write_text("hunter2\n")
    monkeypatch.setenv("LINK_SECRET_FILE", str(tmp_path / "short"))
    others = dict[str, object](PRODUCTION)
    del others["link_secret"]
    with pytest.raises(NotConfigured, match="LINK_SECRET must have at least 32 characters"):
        config.load(others)


# --- Two keys for Stripe -----------------------------------------------------------------------------------


def test_the_worker_and_the_commands_use_the_key_of_the_worker_where_there_is_one() -> None:
    keys = {"stripe_secret_key": "rk_live_" + "w" * 24, "stripe_worker_key": "rk_live_" + "x" * 24}
    settings = config.load({**PRODUCTION, **keys})
    assert settings.stripe_secret_key == "rk_live_" + "w" * 24
    assert settings.behind_the_pages().stripe_secret_key == "rk_live_" + "x" * 24
    assert config.load(dict(PRODUCTION)).behind_the_pages().stripe_secret_key == PRODUCTION["stripe_secret_key"]


# --- What an operator sees ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["python", "-m", "jobs", "worker"],
        ["flask", "--app", "app", "db", "upgrade"],
        ["granian", "--interface", "wsgi", "--factory", "app:create_app", "--port", "0", "--workers", "1"],
    ],
    ids=["worker", "migrations", "web server"],
)
def test_every_program_ends_with_clear_lines_and_no_traceback(command: list[str]) -> None:
    ended = _run(command, environment="production")
    assert ended.returncode == 1
    assert "Standing cannot start like this:\n  SECRET_KEY still has its development value.\n" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


@pytest.mark.slow
def test_the_debug_switch_of_flask_is_refused_in_production() -> None:
    ended = _run(["flask", "--app", "app", "--debug", "routes"], **PRODUCTION)
    assert ended.returncode == 1
    assert ended.stderr == "Standing cannot start like this:\n  FLASK_DEBUG must not be set in production.\n"


def _run(command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **{name.upper(): value for name, value in settings.items()}}
    program = [str(BIN / command[0]), *command[1:]]
    return subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


# --- Cookies -----------------------------------------------------------------------------------------------


@pytest.fixture
def site(app: Flask, request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The application at the address of `request.param`, on the database of `app`."""
    site = application.create_app({
        "environment": "test",
        "database_url": app.config["SQLALCHEMY_DATABASE_URI"],
        "redis_url": app.config["STANDING"].redis_url,
        "site_url": request.param,
    })  # fmt: skip
    a_user("owner", email="owner@example.org")
    yield site
    with site.app_context():
        db.session.remove()
        db.engine.dispose()


@pytest.mark.parametrize("site", ["https://standing.example"], indirect=True)
def test_over_https_the_cookie_is_bound_to_the_host_and_secure(site: Flask) -> None:
    cookie = _cookie_after_log_in(site, "https://standing.example")["__Host-session"]
    assert cookie["secure"] and cookie["httponly"] and cookie["samesite"] == "Lax"
    # With a domain, or with another path, browsers refuse a __Host- cookie.
    assert cookie["path"] == "/" and cookie["domain"] == ""


@pytest.mark.parametrize("site", ["http://127.0.0.1:8000"], indirect=True)
def test_over_http_the_cookie_is_one_that_browsers_keep(site: Flask) -> None:
    cookie = _cookie_after_log_in(site, "http://127.0.0.1:8000")["session"]
    assert not cookie["secure"] and cookie["httponly"] and cookie["samesite"] == "Lax"


def _cookie_after_log_in(site: Flask, address: str) -> SimpleCookie:
    typed = {"email": "owner@example.org", "password": PASSWORD}
    answer = site.test_client().post("/login", data=typed, base_url=address)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/owner")
    return SimpleCookie("; ".join(answer.headers.getlist("Set-Cookie")[-1:]))
