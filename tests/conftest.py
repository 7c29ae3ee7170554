"""What the tests share: an application on a fresh database, the house of real processes, and browsers."""

import base64
import contextlib
import contextvars
import datetime as dt
import functools
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import pytest
import requests
import sqlalchemy as sa
import stripe
from argon2 import PasswordHasher
from flask import Flask, has_app_context
from flask.testing import FlaskClient
from flask_migrate import upgrade
from jinja2.bccache import Bucket, BytecodeCache
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

import app as application
import config
import models
from jobs import doctor, reconcile
from models import Lease, begin_reading, begin_writing, db
from tests.books import contradictions
from tests.house import House, now
from tests.hygiene import check_page
from tests.postgres import EmptyDatabases, PostgresServer
from tests.reader import Reader
from tests.sandbox_process import SandboxProcess, start_sandbox

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Route

ROOT = Path(__file__).resolve().parent.parent
# Whoever runs the tests may have a file of settings here; the programs that tests start are not to read it either.
os.environ["FLASK_SKIP_DOTENV"] = "1"
CHROMIUM_ARGS = [
    "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_failed = pytest.StashKey[bool]()
# Of the files that run side by side these take minutes, so they begin first: the last to begin should be a short one.
LONGEST = (
    "test_state_machine", "test_browser_pledging", "test_browser_accessibility", "test_journey_repairs",
    "test_journey_kills", "test_capture", "test_journey_storms", "test_guards", "test_headers", "test_make_run",
    "test_journey_queue", "test_browser_comments", "test_journey_commands", "test_journey_deadline",
)  # fmt: skip


class CompiledTemplates(BytecodeCache):
    """Each template is compiled once in a process of tests, and not again for each application that a test makes."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._kept:
            bucket.bytecode_from_string(self._kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


Flask.jinja_options = {"bytecode_cache": CompiledTemplates()}

_compile_builder = Rule._compile_builder
_builders: dict[tuple[Any, ...], Any] = {}


def _compile_builder_once(rule: Rule, append_unknown: bool = True) -> Any:
    """What builds the addresses of a rule is made of the rule's text alone, and compiled once in a process of tests."""
    made_of = (rule.rule, tuple(rule._trace), tuple((rule.defaults or {}).items()), append_unknown)
    if made_of not in _builders:
        _builders[made_of] = _compile_builder(rule, append_unknown)
    return _builders[made_of]


Rule._compile_builder = _compile_builder_once  # type: ignore[assignment, method-assign]


# --- In this process ---------------------------------------------------------------------------------------


class CleanClient(FlaskClient):
    """A test client that checks every HTML page of the whole suite."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        # A request would take over the application context that the test holds, and with it all that the request
        # before had left in `g`, such as who is logged in. So each begins in a context of its own, as on a server,
        # and the test gives up its transaction, which would keep the request from writing.
        if has_app_context():
            db.session.rollback()
        answer: TestResponse = contextvars.Context().run(super().open, *args, **kwargs)
        fragment = answer.request.headers.get("HX-Request") == "true"
        if (
            answer.mimetype == "text/html"
            and answer.data
            and not answer.content_encoding
            and not fragment
            and answer.status_code not in (301, 302, 303)
        ):
            check_page(answer.get_data(as_text=True), answer.request.script_root + answer.request.path)
        return answer


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest) -> str:
    """The kind of database of this run: sqlite or postgresql."""
    return str(request.config.getoption("--database"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    try:
        server = PostgresServer()
    except LookupError as missing:
        _skip(str(missing))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def new_database(
    database: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Makes a database as the migrations leave it, a copy for each call, and gives its address."""
    if database == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        empty = server.new_database()
        _migrate(empty)
        name = str(sa.make_url(empty).database)
        return lambda: server.new_database(name)
    file = tmp_path_factory.mktemp("database") / "empty.db"
    _migrate(f"sqlite:///{file}")

    def copy() -> str:
        place = tmp_path_factory.mktemp("database") / "standing.db"
        shutil.copy(file, place)
        return f"sqlite:///{place}"

    return copy


@pytest.fixture
def bare_database(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database without any table."""
    if database == "sqlite":
        yield f"sqlite:///{tmp_path / 'bare.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.new_database()
    yield url
    server.drop(url)


@pytest.fixture(scope="session")
def empty_database(database: str, new_database: Callable[[], str], request: pytest.FixtureRequest) -> Callable[[], str]:
    """A database as the migrations leave it, for one test at a time; its address may be the same as before."""
    if database == "sqlite":
        return new_database
    server: PostgresServer = request.getfixturevalue("postgres")
    return EmptyDatabases(new_database, server.drop).one


def _migrate(url: str) -> None:
    app = application.create_app({"environment": "test", "database_url": url})
    with app.app_context():
        # A journey that ran before has left this process reading only.
        begin_writing()
        upgrade()
        db.session.remove()
        db.engine.dispose()


@pytest.fixture
def app(
    tmp_path: Path,
    empty_database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Flask]:
    """The application on a database of its own, without Redis: rings are lost, as they may be.

    Its books must agree at the end of the test. Its passwords are hashed quickly: the slow way costs more than all
    the rest of a test together.
    """
    monkeypatch.setattr(models, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    app = application.create_app({
        "environment": "test",
        "database_url": empty_database(),
        "redis_url": f"unix://{tmp_path / 'nobody-listens.sock'}",
        "site_url": "http://127.0.0.1:8000",
        "operator_name": "Standing Test",
        "stripe_webhook_secret": "whsec_for_the_tests_only",
        "stripe_api_base": "http://127.0.0.1:1",
        "checkout_origin": "http://127.0.0.1:1",
        "mail_url": f"file:{tmp_path / 'letters'}",
        # Everybody here has the same card, and many leave Stripe's page; test_security_cards.py is about that.
        "same_card": 1_000_000,
        "breaker_refused": 1_000_000,
        "breaker_unfinished": 1_000_000,
        # No test waits before it sends a form; test_by_hand.py is about those that are sent too soon.
        "pledge_form_seconds": 0,
    })  # fmt: skip
    app.test_client_class = CleanClient
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            sa.event.listen(db.engine, "connect", _backwards)
        begin_writing()
        yield app
        _books_agree(request)
        db.session.remove()
        db.engine.dispose()


def _backwards(connection: Any, _record: object) -> None:
    """Rows come last first where nothing says in which order they come: PostgreSQL may give them in any."""
    connection.execute("PRAGMA reverse_unordered_selects=ON")


def _books_agree(request: pytest.FixtureRequest, before: list[str] | None = None) -> None:
    """At the end of a test the doctor finds nothing that he did not find before it.

    He looks at what the test has left, committed or not. A test in this process plays on any days it likes, so there
    nothing is said to wait for too long. Who breaks the books on purpose says so with the marker, and then something
    must be off; `sometimes` is for a test with parameters of which some break nothing.
    """
    if request.node.stash.get(_failed, False):
        return
    unsaved = []
    try:
        db.session.flush()
    except sa.exc.SQLAlchemyError as refused:
        unsaved = [f"The database does not take it: {type(refused).__name__}"]
        db.session.rollback()
    marked = request.node.get_closest_marker("broken_books")
    examined = doctor.examine(now()) if marked or before is not None else contradictions()
    found = unsaved + [finding for finding in examined if finding not in (before or [])]
    if marked:
        assert found or marked.kwargs.get("sometimes"), f"the books agree, though the test says: {marked.args[0]}"
    else:
        assert "\n".join(found) == "", "the books do not agree at the end of this test"


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A browser without script that checks the hygiene of every page it opens."""
    return app.test_client()


# --- The sandbox alone -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    running = start_sandbox(tmp_path_factory.mktemp("sandbox"))
    yield running
    running.stop()


@pytest.fixture
def sandbox(_sandbox: SandboxProcess) -> SandboxProcess:
    """A local Stripe as a process: without faults and limits, with an empty log of calls, by the real clock."""
    requests.delete(f"{_sandbox.url}/sandbox/faults", timeout=30).raise_for_status()
    requests.delete(f"{_sandbox.url}/sandbox/calls", timeout=30).raise_for_status()
    requests.post(f"{_sandbox.url}/sandbox/clock", json={"offset_seconds": 0}, timeout=30).raise_for_status()
    no_limits = {"per_endpoint": 0, "in_all": 0, "latency": 0}
    requests.post(f"{_sandbox.url}/sandbox/limits", json=no_limits, timeout=30).raise_for_status()
    return _sandbox


@pytest.fixture
def asks_the_sandbox(app: Flask, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The application with the sandbox as its Stripe; the SDK's pauses between its tries are shortened.

    The sandbox is emptied: keys are made of our rows' numbers, which begin anew with each database.
    """
    requests.post(f"{sandbox.url}/sandbox/reset", timeout=30).raise_for_status()
    app.config["STANDING"] = app.config["STANDING"].model_copy(update={"stripe_api_base": sandbox.url})
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0.01)
    return app


# --- The house ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def _house(tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], str]) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"), new_database())
    with house.app.app_context():
        begin_writing()
        # What comes by the hour and the day comes after the tests: a comparison with Stripe in the middle of one
        # would mend what the test has just broken.
        for name in (doctor.LEASE, reconcile.HOURLY, reconcile.DAILY):
            Lease.wind(name, now() + dt.timedelta(days=1))
        db.session.commit()
        db.session.remove()
    try:
        house.start()
        yield house
        assert house.given_away() == []
    finally:
        house.stop()
        with house.app.app_context():
            db.engine.dispose()


@pytest.fixture
def house(_house: House, request: pytest.FixtureRequest) -> Iterator[House]:
    """The house as if it were new, with its books open; they must agree at the end too."""
    _house.begin_anew()
    with _house.app.app_context():
        begin_reading()
        off_before = doctor.examine(now())
        db.session.rollback()
        yield _house
        begin_reading()
        _books_agree(request, off_before)
        db.session.remove()


@pytest.fixture
def reader(house: House) -> Reader:
    """A person with a browser that knows no JavaScript."""
    return Reader(house.url)


# --- Browsers ----------------------------------------------------------------------------------------------


def _needs(program: str, how: str) -> str:
    """The path of a program; without it the test is skipped."""
    return shutil.which(program) or _skip(how)


def _skip(how: str) -> NoReturn:
    """Skip for want of something, saying how to get it; where CI insists on it, fail."""
    if os.environ.get("REQUIRE_ALL"):
        pytest.fail(how)
    pytest.skip(how)


@pytest.fixture(scope="session")
def nginx() -> str:
    return _needs("nginx", "What we ship for nginx is tested with it: apt-get install nginx-light")


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    path = _needs("chromium", "Browser tests need Chromium: apt-get install chromium")
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        expect.set_options(timeout=15_000)
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def htmx() -> bytes:
    """The script that the CDN serves, from its npm package; its hash must be the one that pages name."""
    settings = config.Settings(environment="test")
    file = ROOT / "var" / "test-cache" / "htmx-2.0.11.min.js"
    if not file.exists():
        _needs("npm", "Browser tests need npm, to get htmx: apt-get install npm")
        file.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["npm", "pack", "htmx.org@2.0.11", "--silent"],
            cwd=file.parent,
            check=True,
            capture_output=True,
            timeout=120,
        )
        subprocess.run(["tar", "xzf", "htmx.org-2.0.11.tgz", "package/dist/htmx.min.js"], cwd=file.parent, check=True)
        (file.parent / "package" / "dist" / "htmx.min.js").rename(file)
    script = file.read_bytes()
    assert settings.htmx_integrity == "sha384-" + base64.b64encode(hashlib.sha384(script).digest()).decode()
    return script


@pytest.fixture(scope="session")
def nu_checker() -> list[str]:
    """How to start the checker of the W3C's validator, which npm brings: it writes what it finds as JSON to stderr."""
    java = _needs("java", "The check of the HTML needs Java: apt-get install default-jre-headless")
    file = ROOT / "var" / "test-cache" / "vnu-26.9.27.jar"
    if not file.exists():
        _needs("npm", "The check of the HTML needs npm, to get the checker: apt-get install npm")
        file.parent.mkdir(parents=True, exist_ok=True)
        jar = "package/build/dist/vnu.jar"
        subprocess.run(
            ["npm", "pack", "vnu-jar@26.9.27", "--silent"],
            cwd=file.parent,
            check=True,
            capture_output=True,
            timeout=300,
        )
        subprocess.run(["tar", "xzf", "vnu-jar-26.9.27.tgz", jar], cwd=file.parent, check=True)
        (file.parent / jar).rename(file)
        (file.parent / "vnu-jar-26.9.27.tgz").unlink()
    return [java, "-jar", str(file), "--format", "json"]


@pytest.fixture(scope="session")
def csp_evaluator() -> list[str]:
    """How to start Google's evaluator of policies, which npm brings: it takes policies and writes findings as JSON."""
    node = _needs("node", "The check of the policy needs Node: apt-get install npm")
    folder = ROOT / "var" / "test-cache" / "csp_evaluator-1.1.8"
    if not folder.exists():
        _needs("npm", "The check of the policy needs npm, to get the evaluator: apt-get install npm")
        unpacked = folder.with_suffix(f".{os.getpid()}")
        unpacked.mkdir(parents=True)
        pack = ["npm", "pack", "csp_evaluator@1.1.8", "--silent"]
        subprocess.run(pack, cwd=unpacked, check=True, capture_output=True, timeout=120)
        subprocess.run(["tar", "xzf", "csp_evaluator-1.1.8.tgz"], cwd=unpacked, check=True)
        unpacked.rename(folder)
    script = (
        "const at = process.argv[1] + '/package/dist/';"
        "const {CspParser} = require(at + 'parser.js'), {CspEvaluator} = require(at + 'evaluator.js');"
        "const find = policy => new CspEvaluator(new CspParser(policy).csp).evaluate();"
        "console.log(JSON.stringify(process.argv.slice(2).map(find)))"
    )
    return [node, "-e", script, str(folder)]


WAYS = ("with JavaScript", "without JavaScript", "with the CDN blocked", "with htmx loaded late")
# To the server these are a browser without JavaScript, and one with it. On the second database they show nothing more.
LIKE_OTHERS = WAYS[2:]
# The ways in which htmx comes. Where it comes late, `page.wait_for_load_state()` waits for it once somebody has begun.
SCRIPTED = (WAYS[0], WAYS[3])
# In the third way the window is as narrow as they come: old telephones and bad lines go together.
NARROW: Any = {"width": 240, "height": 480}
# Tells the test that somebody has begun with this page: has typed, pressed, or scrolled.
BEGUN = """for (const touch of ["input", "keydown", "click", "wheel"])
    addEventListener(touch, () => begun(), {capture: true, once: true})"""
# A swap that takes away what has the focus would leave whoever uses a keyboard at the beginning of the page.
FOCUS_FALLS = """(() => {
    let before = null
    addEventListener("htmx:beforeSwap", () => { before = document.activeElement })
    addEventListener("htmx:afterSettle", () => setTimeout(() => {
        const fell = before && before !== document.body && document.activeElement === document.body
        if (fell) console.error("The focus fell to the body from", before.outerHTML.slice(0, 200))
    }))
})()"""


@dataclass
class Watched:
    """What every browser test may rely on at its end: no script error, no broken policy, no word to a stranger, and
    the focus was never lost."""

    pages: list["Page"] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self, page: "Page", cdn: str) -> None:
        self.pages.append(page)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self._listen(said.text))
        page.on("request", lambda asked: self._follow(asked.url, cdn))

    def _listen(self, said: str) -> None:
        if "Content Security Policy" in said or "The focus fell" in said:
            self.complaints.append(said)

    def _follow(self, url: str, cdn: str) -> None:
        if url != cdn and urlsplit(url).hostname != "127.0.0.1" and not url.startswith(("data:", "about:")):
            self.complaints.append(f"a request went to {url}")


@pytest.fixture
def open_browser(chromium: "Browser", htmx: bytes, request: pytest.FixtureRequest) -> Iterator[Callable[..., "Page"]]:
    """Open a page of a new browser, with its own cookies, in one of the WAYS; `script` is what the CDN serves.

    Fails the test on script errors, on broken policies and on requests to anywhere but this machine and the CDN.
    """
    watched, cdn = Watched(), config.Settings(environment="test").htmx_url

    def opened(way: str = WAYS[0], script: bytes = htmx, **options: Any) -> "Page":
        if way == "with the CDN blocked":
            options = {"viewport": NARROW, **options}
        context = chromium.new_context(java_script_enabled=way != "without JavaScript", **options)
        context.set_default_timeout(15_000)
        served = {
            "body": script,
            "headers": {"Content-Type": "text/javascript", "Access-Control-Allow-Origin": "*"},
        }  # fmt: skip
        if way == "with the CDN blocked":
            context.route(cdn, lambda route: route.abort())
        elif way == "with htmx loaded late":
            _hold_back(context, cdn, served)
        else:
            context.route(cdn, lambda route: route.fulfill(**served))
        context.add_init_script(FOCUS_FALLS)
        page = context.new_page()
        watched.watch(page, cdn)
        return page

    yield opened
    if request.node.stash.get(_failed, False):
        _take_pictures(watched.pages, request.node.name)
    for page in watched.pages:
        page.context.close()
    assert watched.complaints == []


def _hold_back(context: "BrowserContext", cdn: str, served: dict[str, Any]) -> None:
    """The script reaches a page only when somebody has begun there; until then the browser calls the page unfinished.

    So nobody here waits for pages to be finished, as no reader does.
    """
    held: dict[Page, list[Route]] = {}
    touched: set[Page] = set()

    def asked_for(route: "Route") -> None:
        held.setdefault(route.request.frame.page, []).append(route)
        let_go()

    def begun(source: Any) -> None:
        touched.add(source["page"])
        let_go()

    def let_go() -> None:
        for route in [route for page in touched for route in held.pop(page, [])]:
            # The page may have been left by the same press.
            with contextlib.suppress(Exception):
                route.fulfill(**served)

    def opened(page: "Page") -> None:
        for verb in ("goto", "reload", "go_back"):
            setattr(page, verb, functools.partial(getattr(page, verb), wait_until="commit"))
        page.on("framenavigated", lambda _: touched.discard(page))

    context.expose_binding("begun", begun)
    context.add_init_script(BEGUN)
    context.route(cdn, asked_for)
    context.on("page", opened)


def _take_pictures(pages: list["Page"], test: str) -> None:
    """What the browsers showed when a test failed, in var/failed/."""
    folder = ROOT / "var" / "failed"
    folder.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(pages, 1):
        with contextlib.suppress(Exception):
            page.screenshot(path=folder / f"{re.sub('[^a-z0-9]+', '-', test.lower())}-{number}.png", full_page=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_failed] = report.failed
    return report


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """Each browser journey runs in all of these ways, from one body; on PostgreSQL in the first two."""
    return str(request.param)


@pytest.fixture
def page(open_browser: Callable[..., "Page"], way: str) -> "Page":
    """A browser page opened in the way of this run."""
    return open_browser(way)


@pytest.fixture
def w3m() -> str:
    return _needs("w3m", "Text browser tests need w3m: apt-get install w3m")


@pytest.fixture
def lynx() -> str:
    return _needs("lynx", "Text browser tests need lynx: apt-get install lynx")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--database", choices=("sqlite", "postgresql"), default="sqlite",
        help="which database to use; with postgresql only the tests that use one are run",
    )  # fmt: skip
    parser.addoption(
        "--examples", type=int,
        help="how many lives the state machine lives, each run another way; without it a few hundred, always the same",
    )  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each run leaves out what is about the other database, the one on PostgreSQL also what uses none."""
    database = config.getoption("--database")
    others = [item for item in items if not _belongs_to(database, item)]
    config.hook.pytest_deselected(items=others)
    items[:] = sorted((item for item in items if item not in set(others)), key=_begins)


def _begins(item: pytest.Item) -> int:
    file = item.path.stem
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """While journeys wait, tests that only think can use the time."""
    return (os.cpu_count() or 1) + 1


def _belongs_to(database: str, item: pytest.Item) -> bool:
    only = item.get_closest_marker("only_on")
    if only is not None:
        assert only.kwargs.get("why"), f"{item.nodeid} must say why it runs on {only.args[0]} only"
        return bool(only.args[0] == database)
    callspec = getattr(item, "callspec", None)
    if database == "postgresql" and callspec and callspec.params.get("way") in LIKE_OTHERS:
        return False
    return database == "sqlite" or "new_database" in getattr(item, "fixturenames", ())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """One line for each thing that tests were skipped for want of, whichever process they ran in."""
    for how in sorted({str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])}):
        terminalreporter.write_line(how.replace("Skipped", "SKIPPED", 1))
