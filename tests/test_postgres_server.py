"""The tests' own PostgreSQL: it runs wherever the project lies, and nothing of it outlives the tests."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import postgres
from tests.conftest import ROOT
from tests.house import descendants, eventually, runs
from tests.postgres import PostgresServer, hold, server_binaries, sweep_up

pytestmark = [
    pytest.mark.only_on("postgresql", why="it is the server of that run"),
    pytest.mark.slow,
]
# Starts a server, says where, and waits for what comes.
PROGRAM = """
import time
from tests.postgres import PostgresServer
server = PostgresServer()
print(server.folder, server.process.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _our_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    try:
        server_binaries()
    except LookupError as missing:
        pytest.skip(str(missing))


def test_it_runs_from_a_folder_that_is_closed_to_others_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone in somebody's home, with spaces in its path; root's server runs as a user who may not look in there."""
    closed = tmp_path / "a home with spaces"
    binaries = server_binaries()
    package = binaries.parent.parent
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, closed / folder.name, symlinks=True, ignore=shutil.ignore_patterns("pginstall"))
    closed.chmod(0o700)
    there = closed / binaries.relative_to(package.parent)
    monkeypatch.setattr(postgres, "server_binaries", lambda: there)
    server = PostgresServer()
    try:
        assert server.folder.is_dir()
        assert server.new_database().startswith("postgresql+psycopg://")
    finally:
        server.stop()
    assert server.process is not None and server.process.poll() is not None
    assert not server.folder.exists()


def test_a_server_that_cannot_start_leaves_nothing_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(postgres.TMP.glob(f"{postgres.PREFIX}*"))
    monkeypatch.setattr(postgres, "SETTINGS", ("max_connections=none",))
    with pytest.raises(AssertionError, match='invalid value for parameter "max_connections"'):
        PostgresServer()
    assert {folder for folder in postgres.TMP.glob(f"{postgres.PREFIX}*") if folder not in before} == set()


def test_no_server_outlives_tests_that_are_killed_and_the_next_ones_sweep_up() -> None:
    tests = subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert tests.stdout is not None
    with tests.stdout:
        folder, _, pid = tests.stdout.readline().strip().rpartition(" ")
    assert Path(f"/proc/{pid}").exists()
    tests.send_signal(signal.SIGKILL)
    tests.wait(10)
    eventually(lambda: not runs(int(pid)), why="the server outlived its tests")
    assert Path(folder).is_dir(), "there was nobody to remove it"
    sweep_up()
    assert not Path(folder).exists()


def test_a_server_that_is_killed_with_9_is_gone_with_its_children_and_the_next_start_takes_its_memory_away() -> None:
    server = PostgresServer()
    try:
        assert server.process is not None
        children, its_memory = descendants(server.process.pid), server.memory()
        assert len(children) > 3 and attached_to(its_memory) > 3
        server.kill(signal.SIGKILL)
        assert [child for child in children if runs(child)] == []
        assert attached_to(its_memory) == 0, "nobody was there to remove it"
        server.start()
        with pytest.raises(LookupError):
            attached_to(its_memory)
        assert server.new_database().startswith("postgresql+psycopg://")
    finally:
        server.stop()


def attached_to(memory: str) -> int:
    """How many processes use a piece of the system's shared memory. Raises LookupError when it is gone."""
    for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == memory:
            return int(words[6])
    raise LookupError(memory)


def test_what_is_in_use_is_not_swept_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "TMP", tmp_path)
    for name in ("standing-pg-mine", "standing-pg-left", "standing-pg-no-lock", "something else"):
        (tmp_path / name).mkdir()
    in_use = hold(tmp_path / "standing-pg-mine")
    os.close(hold(tmp_path / "standing-pg-left"))
    sweep_up()
    os.close(in_use)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == [
        "something else", "standing-pg-mine", "standing-pg-no-lock",
    ]  # fmt: skip
