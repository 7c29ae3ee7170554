"""The launcher behind `make run`, for real: two starts, a killed worker, Ctrl-C, a busy port."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from demo import programs
from tests.house import eventually, free_port
from tests.reader import Reader

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


@dataclass
class Launcher:
    """A running `make run`, less make, and what it has printed so far."""

    process: "subprocess.Popen[str]"
    var: Path
    said: list[str]

    @property
    def text(self) -> str:
        return "".join(self.said)

    def wait_for(self, words: str) -> None:
        def printed() -> bool:
            assert words in self.text or self.process.poll() is None, self.text
            return words in self.text

        eventually(printed, within=120, why=f"{words!r} was not printed")

    def pid_of(self, program: str) -> int:
        # Where the path of var/ is too long for sockets they lie elsewhere.
        told = re.search(r"^STANDING_SOCKETS=(.+)$", (self.var / "run.env").read_text(encoding="utf-8"), re.MULTILINE)
        assert told is not None
        return programs.pid(Path(shlex.split(told.group(1))[0]), program)

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@pytest.fixture
def ports() -> dict[str, str]:
    return {"PORT": str(free_port()), "SANDBOX_PORT": str(free_port())}


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "var"
    # A command that was under way when the launcher was stopped ends by itself, a moment later.
    eventually(lambda: not _processes_of(tmp_path / "var"), why="something goes on after the launcher")


def test_make_run_starts_keeps_and_stops_the_whole_house(ports: dict[str, str], var: Path) -> None:
    site, stripe = (f"http://127.0.0.1:{ports[name]}" for name in ("PORT", "SANDBOX_PORT"))
    with _launch(var, **ports) as first:
        first.wait_for("make demo-codes")
        *said, codes = _block(first.text)
        assert re.fullmatch(r"5  Second factor     moderator \d{6}, staff \d{6}; later  make demo-codes", codes)
        assert said == [
            "Standing is ready. Demonstration: no real money.",
            f"1  Pledge £25        {site}/cases/dfe-real-time-data      card 4242 4242 4242 4242",
            f"2  Your letter       {stripe}/letters",
            f"3  See a charge      {site}/cases/one-pledge-short  then  make demo-deadline CASE=one-pledge-short",
            f"4  Moderate, own     {site}/login   moderator@example.org, owner@example.org, password {_password(var)}",
        ]
        assert "£95" in requests.get(f"{site}/cases/dfe-real-time-data", timeout=30).text
        assert requests.get(f"{stripe}/letters", timeout=30).ok
        page = requests.get(f"{site}/cases/dfe-real-time-data", headers={"Cookie": "theme=dark"}, timeout=30)
        # Through the real server: it was kept, is squeezed, its head is its head, and who has it is told so.
        assert page.headers["Age"] in ("1", "2") and page.headers["Content-Encoding"] == "gzip"
        head = requests.head(page.url, headers={"Accept-Encoding": "gzip"}, timeout=30)
        assert (head.headers["Content-Length"], head.content) == (page.headers["Content-Length"], b"")
        has = {"If-None-Match": page.headers["ETag"], "Accept-Encoding": "gzip"}
        assert requests.get(page.url, headers=has, timeout=30).status_code == 304

        killed = first.pid_of("worker")
        # To kill 0 would be to kill all that runs beside this test.
        assert killed > 0
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: first.pid_of("worker") not in (0, killed), why="the worker was not started again")

        first.stop(signal.SIGINT)
        first.wait_for("Stopped.\n")
        assert first.process.returncode == 0
    assert _processes_of(var) == []
    assert not (var / "run.env").exists(), "make demo-deadline would talk to a house that is not there"

    password = _password(var)
    with _launch(var, **ports) as second:
        second.wait_for("make demo-codes")
        assert f"password {password}\n" in second.text
        assert "pledges ..." not in second.text
        assert "£95" in requests.get(f"{site}/cases/dfe-real-time-data", timeout=30).text
        assert second.stop(signal.SIGTERM) == 0


def test_the_demonstration_can_be_walked_to_its_end_and_begun_anew(ports: dict[str, str], var: Path) -> None:
    site = f"http://127.0.0.1:{ports['PORT']}"
    with _launch(var, **ports) as first:
        first.wait_for("make demo-codes")
        reader, password = Reader(site), _password(var)
        asked = reader.open("/cases/dfe-real-time-data").words
        assert "£95 pledged of £6,000 target from 3 pledges" in asked and "7 days to go" in asked
        assert "There are no public comments on this case page yet." in asked
        assert "2:00am G" in asked or "2:00am B" in asked
        assert "£475 pledged of £500 target from 4 pledges" in reader.open("/cases/one-pledge-short").words
        funded = reader.open("/cases/river-alder-sewage").words
        assert "This case reached its target. £325 of £300" in funded
        assert "I have fished here for forty years." in funded
        assert "We have written to the regulator" in funded and "locked up" not in funded
        assert "The first samples are taken" in funded and "An update for supporters" in funded
        assert "Case owner, Friends of the Alder" in funded and "counsel thinks" not in funded.lower()
        assert "The court has moved the hearing by two weeks." in reader.open("/cases/allotments-by-the-railway").words
        assert "The gate is open" in reader.open("/cases/footpath-at-hill-farm").words
        assert "This case did not reach its target. £35 of £2,000" in reader.open("/cases/night-bus-cuts").words

        moderator = Reader(site).log_in("moderator@example.org", password)
        moderator.press("Log in", code=_code(var, "moderator@example.org"))
        assert "2 comments waiting" in moderator.words
        moderator.press("Approve")
        # What is the same for everybody may be two seconds old.
        eventually(lambda: "Nobody asked us before this began." in reader.open("/cases/dfe-real-time-data").words, 10)

        reader.pledge("one-pledge-short", "25").save_card()
        assert _deadline(var, "one-pledge-short")[-3:] == ["round met", "4 charged £475", "1 declined £25"]
        assert _deadline(var, "dfe-real-time-data")[-2:] == ["round missed", "3 released £95"]
        assert _deadline(var, "allotments-by-the-railway")[-2:] == ["round missed", "2 released £65"]
        assert _doctor(var).startswith("The books agree: ")
        assert first.stop(signal.SIGINT) == 0
    with _launch(var, **ports) as second:
        second.wait_for("Begin anew with: make run RESET=1")
        assert second.stop(signal.SIGINT) == 0
    with _launch(var, RESET="1", **ports) as third:
        third.wait_for("make demo-codes")
        assert "£95 pledged of £6,000" in Reader(site).open("/cases/dfe-real-time-data").words
        assert _password(var) != password


def test_nothing_goes_on_when_the_launcher_is_killed(ports: dict[str, str], var: Path) -> None:
    with _launch(var, **ports) as launcher:
        launcher.wait_for("Starting the programs")
        eventually(lambda: launcher.pid_of("web"), why="the web server was not started")
        launcher.stop(signal.SIGKILL)
    eventually(lambda: not _processes_of(var), why="something went on without the launcher")


def test_a_busy_port_is_named_with_the_variable_that_moves_it(ports: dict[str, str], var: Path) -> None:
    with socket.create_server(("127.0.0.1", int(ports["SANDBOX_PORT"]))):
        assert _refusal(var, **ports) == (
            f"Port {ports['SANDBOX_PORT']} is in use already. "
            f"Choose another one: SANDBOX_PORT={int(ports['SANDBOX_PORT']) + 10} make run\n"
        )
    assert not (var / "standing.db").exists()


def test_a_second_launcher_does_not_share_the_folder(ports: dict[str, str], var: Path) -> None:
    with _launch(var, **ports) as first:
        first.wait_for("Preparing the database")
        assert "already runs with the data in" in _refusal(var, PORT=str(free_port()), SANDBOX_PORT=str(free_port()))
        assert first.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"PORT": "many"}, "PORT is 'many', but a port is a number from 1 to 65535."),
        ({"PORT": "9000", "SANDBOX_PORT": "9000"}, "PORT and SANDBOX_PORT are both 9000"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "Nothing answers at REDIS_URL"),
        ({"RESET": "1", "DATABASE_URL": "sqlite:////nowhere/mine.db"}, "Your DATABASE_URL keeps its data"),
        ({"STANDING_VAR": "/dev/null/var"}, "which can't be written: Not a directory."),
    ],
)
def test_what_cannot_be_started_is_refused_in_one_sentence(
    asked: dict[str, str], words: str, ports: dict[str, str], var: Path
) -> None:
    said = _refusal(var, **(ports | asked))
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("at", ["Preparing the database", "Making the demonstration's pledges"])
def test_a_first_start_that_was_cut_short_is_begun_anew(at: str, ports: dict[str, str], var: Path) -> None:
    with _launch(var, **ports) as first:
        first.wait_for(at)
        assert first.stop(signal.SIGTERM) == 0
    with _launch(var, **ports) as second:
        second.wait_for("The first start was cut short: beginning anew")
        assert second.stop(signal.SIGINT) == 0


class _launch:  # noqa: N801 (reads as the function that it is)
    """Start the launcher; at the end of the block it is gone, whatever happened."""

    def __init__(self, var: Path, **asked: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "demo.run"], cwd=ROOT, env=_environment(var, asked), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self.launcher = Launcher(self.process, var, [])
        self.listener = threading.Thread(target=self._listen)

    def __enter__(self) -> Launcher:
        self.listener.start()
        return self.launcher

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(timeout=60)
        self.listener.join(timeout=30)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.launcher.said.extend(lines)


def _refusal(var: Path, **asked: str) -> str:
    """What a launcher says that refuses to start."""
    refused = subprocess.run(
        [sys.executable, "-m", "demo.run"], cwd=ROOT, env=_environment(var, asked), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1, refused.stdout
    assert refused.stdout == ""
    return refused.stderr


def _environment(var: Path, asked: dict[str, str]) -> dict[str, str]:
    ours = ("PORT", "SANDBOX_PORT", "RESET", "REDIS_URL", "DATABASE_URL")
    return {name: value for name, value in os.environ.items() if name not in ours} | {"STANDING_VAR": str(var)} | asked


def _deadline(var: Path, slug: str) -> list[str]:
    """What `make demo-deadline` says became of the round and of its pledges."""
    said = subprocess.run(
        ["make", "--silent", "demo-deadline", f"CASE={slug}"], cwd=ROOT, env=_environment(var, {}), capture_output=True,
        text=True, timeout=90, check=True,
    )  # fmt: skip
    return [" ".join(line.split()) for line in re.sub(r".*: (round \w+),.*", r"\1", said.stdout).splitlines()]


def _code(var: Path, address: str) -> str:
    """The digits that `make demo-codes` prints for a user."""
    said = subprocess.run(
        ["make", "--silent", "demo-codes"], cwd=ROOT, env=_environment(var, {}), capture_output=True, text=True,
        timeout=90, check=True,
    )  # fmt: skip
    return {owner: digits for digits, owner in map(str.split, said.stdout.splitlines())}[address]


def _doctor(var: Path) -> str:
    """What the doctor says of the books of this house."""
    ask = 'set -a; . "$1/run.env"; exec "$2" -m flask --app app doctor'
    said = subprocess.run(
        ["sh", "-c", ask, "sh", str(var), sys.executable], cwd=ROOT, env=_environment(var, {}), capture_output=True,
        text=True, timeout=90, check=False,
    )  # fmt: skip
    return said.stdout


def _block(text: str) -> list[str]:
    """The lines of the announcement."""
    return text[text.index("Standing is ready.") :].splitlines()[:6]


def _password(var: Path) -> str:
    return re.sub(r"\s", "", (var / "demo-password").read_text(encoding="utf-8"))


def _processes_of(var: Path) -> list[str]:
    """All processes that were started with this folder as theirs."""
    own = f"STANDING_VAR={var}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if own in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # It ended while we looked, or it belongs to somebody else.
    return found
