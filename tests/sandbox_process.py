"""Start the sandbox as a process of its own, for tests that talk to it over HTTP."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.house import eventually, free_port

ROOT = Path(__file__).resolve().parent.parent
WEBHOOK_SECRET = "whsec_test"
SITE_URL = "http://127.0.0.1:8000"


@dataclass
class SandboxProcess:
    """A running sandbox. `start_again` brings it back on the same port, with the same state."""

    url: str
    command: list[str]
    process: "subprocess.Popen[str]"

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        self.process.terminate()
        self._wait()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self._wait()

    def start_again(self) -> None:
        self.process = _run(self.command, self.url)

    def _wait(self) -> None:
        self.process.wait(timeout=30)


def start_sandbox(
    tmp_path: Path, webhook_url: str | None = None, port: int | None = None, *flags: str
) -> SandboxProcess:
    """A sandbox with its state and its letters below `tmp_path`, ready to answer. The caller stops it."""
    port = port or free_port()
    command = [
        sys.executable, "-m", "sandbox", "--port", str(port), "--state", str(tmp_path / "sandbox.db"),
        "--letters", str(tmp_path / "letters"), "--webhook-secret", WEBHOOK_SECRET, "--site-url", SITE_URL,
        "--limit-per-endpoint", "0", "--limit-in-all", "0", *flags,
    ]  # fmt: skip
    if webhook_url is not None:
        command += ["--webhook-url", webhook_url]
    url = f"http://127.0.0.1:{port}"
    return SandboxProcess(url, command, _run(command, url))


def _run(command: list[str], url: str) -> "subprocess.Popen[str]":
    settings = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_")}
    process = subprocess.Popen(command, cwd=ROOT, env=settings, stdout=subprocess.DEVNULL, text=True)
    eventually(lambda: _answers(process, url), why="the sandbox did not come up")
    return process


def _answers(process: "subprocess.Popen[str]", url: str) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"The sandbox stopped with {process.returncode}.")
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
