"""The demonstration's processes: started by supervisord, watched until they are ready, stopped together."""

import http.client
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from xmlrpc.client import Error as XmlRpcError
from xmlrpc.client import ServerProxy

import redis
from supervisor.xmlrpc import SupervisorTransport

# On a small machine the five programs are up in about three seconds.
PATIENCE = 60
# In this order no job in hand is cut off from what it still has to talk to.
STOPPING = ("sweep", "worker", "web", "sandbox", "valkey")
# Longer than supervisord gives the slowest program to stop before it kills it.
PATIENCE_WHEN_STOPPING = 45


class Programs:
    """All programs of deploy/supervisord.conf, from `with` to the end of its block."""

    def __init__(self, root: Path, logs: Path, sockets: Path, environment: dict[str, str]) -> None:
        self.root, self.logs, self.sockets, self.environment = root, logs, sockets, environment

    def __enter__(self) -> Self:
        python = self.environment["STANDING_PYTHON"]
        # A session of its own: Ctrl-C in the terminal reaches the launcher alone, which stops the rest in order.
        self.supervisord = subprocess.Popen(
            [python, "-m", "demo.leash", python, "-m", "supervisor.supervisord", "-c", "deploy/supervisord.conf"],
            cwd=self.root, env=self.environment, start_new_session=True, stdin=subprocess.DEVNULL,
            stdout=(self.logs / "supervisord.out").open("w", encoding="utf-8"), stderr=subprocess.STDOUT,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, why: BaseException | None, where: TracebackType | None
    ) -> None:
        """Stop everything and wait for it; a second Ctrl-C does not leave half of it behind."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # Asked for one by one they end at once; left to SIGTERM alone, supervisord takes a second for each.
        for name in STOPPING:
            _ask(self.sockets, "stopProcess", name)
        self.supervisord.terminate()
        try:
            self.supervisord.wait(PATIENCE_WHEN_STOPPING)
        except subprocess.TimeoutExpired:
            self.supervisord.kill()
            self.supervisord.wait()

    def wait_until_ready(self) -> str:
        """Wait until each program does its work; the words for the one that did not come up, or nothing."""
        until = time.monotonic() + PATIENCE
        for name, is_ready in self._signs_of_life().items():
            while not is_ready():
                if self.supervisord.poll() is not None:
                    return f"supervisord stopped.\n{self._last_lines('supervisord')}"
                if time.monotonic() > until:
                    return f"{name} did not come up within {PATIENCE} seconds.\n{self._last_lines(name)}"
                time.sleep(0.05)
        return ""

    def wait_until_the_end(self) -> str:
        """Wait for ever; returns, with the words for it, only when supervisord is gone."""
        self.supervisord.wait()
        return f"supervisord stopped, and all programs with it.\n{self._last_lines('supervisord')}"

    def _signs_of_life(self) -> dict[str, Callable[[], bool]]:
        own = {"valkey": self._valkey_answers} if self.environment["START_VALKEY"] == "true" else {}
        return own | {
            "sandbox": lambda: _answers(int(self.environment["SANDBOX_PORT"])),
            "web": lambda: _answers(int(self.environment["PORT"])),
            "worker": self._worker_listens,
            "sweep": lambda: _ask(self.sockets, "getProcessInfo", "sweep").get("statename") == "RUNNING",
        }

    def _valkey_answers(self) -> bool:
        try:
            return bool(self._doorbell().ping())
        except redis.RedisError:
            return False

    def _worker_listens(self) -> bool:
        """Whether RQ knows the very worker that was started now; one that was killed stays listed for a while."""
        try:
            doorbell = self._doorbell()
            known = [doorbell.hget(worker, "pid") for worker in doorbell.smembers("rq:workers")]
        except redis.RedisError:
            return False
        return str(pid(self.sockets, "worker")) in known

    def _doorbell(self) -> "redis.Redis":
        return redis.from_url(self.environment["REDIS_URL"], decode_responses=True, socket_timeout=2)

    def _last_lines(self, name: str) -> str:
        log = self.logs / f"{name}.log"
        written = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        return "\n".join([f"The last lines of {log}:", *(f"    {line}" for line in written[-15:])])


def pid(sockets: Path, name: str) -> int:
    """The process of a program; 0 while it has none."""
    return int(_ask(sockets, "getProcessInfo", name).get("pid", 0))


def _ask(sockets: Path, request: str, *arguments: object) -> dict[str, Any]:
    """One question to supervisord; an empty answer while it is not there, or has nothing to do for us."""
    transport = SupervisorTransport(None, None, f"unix://{sockets / 'supervisord.sock'}")
    try:
        answer = getattr(ServerProxy("http://127.0.0.1", transport=transport).supervisor, request)(*arguments)
    except (OSError, http.client.HTTPException, XmlRpcError):
        return {}
    finally:
        transport.close()
    return answer if isinstance(answer, dict) else {}


def _answers(port: int) -> bool:
    """Whether GET /healthz is answered with 200; asked directly, past any proxy that is configured."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
