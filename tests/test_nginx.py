"""The configuration of nginx that we ship: it knows the pages of the application, and what may not be kept."""

import os
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from flask import Flask
from flask_login import COOKIE_NAME

from tests.doorway import Site
from tests.house import eventually, free_port
from views.front_cache import FOR_EVERYBODY

ROOT = Path(__file__).resolve().parent.parent
CONF = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")


def mapped(name: str, said: str) -> str:
    """What a map of the configuration makes of a value: the first pattern that matches, else the default."""
    found = re.search(rf"^map .* \${name} {{\n(.*?)^}}", CONF, re.MULTILINE | re.DOTALL)
    assert found
    lines = re.findall(r'^ +("[^"]*"|\S+) +(\S+);$', found.group(1), re.MULTILINE)
    for quoted, value in lines:
        pattern = quoted.strip('"')
        flags = re.IGNORECASE if pattern.startswith("~*") else 0
        is_it = re.search(pattern.lstrip("~*"), said, flags) if pattern.startswith("~") else pattern == said
        if is_it:
            return str(value).strip('"')
    return str(dict(lines)["default"]).strip('"')


def where(method: str, path: str, sought: str = "") -> str:
    """The process that a request is sent to."""
    said = mapped("where", method)
    if said == "$reads_from":
        said = mapped("reads_from", sought)
    return mapped("shown_by", path) if said == "$shown_by" else said


def test_whoever_may_wait_for_stripe_or_writes_is_sent_to_the_process_for_pledges(app: Flask) -> None:
    site = Site(app)
    readers, pledges = set[tuple[str, str]](), set[tuple[str, str]]()
    for rule, method in site.rules():
        process = where(method, site.address(rule))
        assert where(method, f"/fr{site.address(rule)}") == process
        {"readers": readers, "pledges": pledges}[process].add((rule.endpoint, method))
    assert {endpoint for endpoint, _ in pledges} >= {
        name for name in app.view_functions if name.startswith("supporters.")
    }
    assert ("webhooks.stripe", "POST") in pledges
    # Nor does anybody who reads wait behind those who search.
    assert (where("GET", "/"), where("GET", "/", sought="water")) == ("readers", "pledges")
    assert {method for _, method in readers} == {"GET"}
    kept = {name for name, view in app.view_functions.items() if hasattr(view, "kept")}
    assert {(name, "GET") for name in kept} <= readers


def test_what_may_be_a_log_in_is_known_as_one(app: Flask) -> None:
    for cookie in (app.config["SESSION_COOKIE_NAME"], "__Host-session", COOKIE_NAME):
        assert mapped("is_known", f"theme=dark; {cookie}=x") == "1"
    assert mapped("is_known", "Basic eDp5") == "1"
    assert mapped("is_known", "theme=dark; _ga=1") == mapped("is_known", "") == "0"


def test_the_key_tells_apart_what_the_application_tells_apart() -> None:
    said = ["gzip, deflate, br, zstd", "gzip, br", "br;q=1, GZIP;q=0.5", "gzip;q=0", "gzip; q=0.000, br", "br", "", "*"]
    assert [mapped("packed", one) for one in said] == ["gzip", "gzip", "gzip", "", "", "", "", ""]
    assert [mapped("fragment", one) for one in ("true ", "true true", " ", "1 ", " true")] == ["true", "", "", "", ""]
    for header, value in (
        ("Accept-Encoding", "$packed"),
        ("HX-Request", "$fragment"),
        ("HX-History-Restore-Request", '""'),
    ):
        assert f"proxy_set_header {header} {value};" in CONF
    assert 'proxy_cache_key "$http_host$request_uri $fragment $packed";' in CONF


def written(folder: Path, port: int, upstream: int) -> list[str]:
    """Write the configuration for a folder of the test's, without certificates; how nginx is started with it."""
    for name in ("/var/cache/nginx/standing", "/srv/standing/static/"):
        assert name in CONF
    folders = CONF.replace("/var/cache/nginx", str(folder)).replace("/var/log/nginx", str(folder))
    ours = re.sub(r"127.0.0.1:800[12]", f"127.0.0.1:{upstream}", folders)
    # A machine of the tests may have no IPv6.
    assert CONF.count("listen [::]:80;") == CONF.count("listen [::]:443 ssl http2;") == 1
    ours = re.sub(r"listen \[::\].*;", "", ours.replace("listen 80;", f"listen 127.0.0.1:{free_port()};"))
    ours = re.sub(r"ssl_certificate.*;", "", ours.replace("listen 443 ssl http2;", f"listen 127.0.0.1:{port};"))
    (folder / "standing.conf").write_text(ours, encoding="utf-8")
    # As root nginx gives its rights up, and its folder is the test's alone.
    user = "user root;" if os.geteuid() == 0 else ""
    whole = f"{user} pid {folder}/pid; error_log {folder}/log; events {{}} http {{ include {folder}/standing.conf; }}"
    (folder / "nginx.conf").write_text(whole, encoding="utf-8")
    return ["-p", str(folder), "-c", str(folder / "nginx.conf")]


def test_nginx_takes_it(tmp_path: Path, nginx: str) -> None:
    started = [nginx, "-t", *written(tmp_path, free_port(), free_port())]
    said = subprocess.run(started, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr


class Hidden(BaseHTTPRequestHandler):
    """A case page with the headers of the application's, until it is hidden."""

    is_hidden = False
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(404 if self.is_hidden else 200)
        self.send_header("Cache-Control", "no-cache" if self.is_hidden else FOR_EVERYBODY)
        if not self.is_hidden:
            self.send_header("X-Accel-Expires", f"@{int(time.time() + 0.5)}")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"case")

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def test_what_is_hidden_is_gone_for_all_who_read_at_once(
    tmp_path: Path, nginx: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, behind = free_port(), ThreadingHTTPServer(("127.0.0.1", 0), Hidden)
    where = f"http://127.0.0.1:{port}/cases/one"
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    arguments = written(tmp_path, port, behind.server_port)
    with subprocess.Popen([nginx, *arguments, "-g", "daemon off;"]) as running, ThreadPoolExecutor(6) as readers:
        try:
            eventually(lambda: _status(where) == 200)
            assert requests.get(where, timeout=10).headers["Age"] == "2", "it was not kept at all"
            monkeypatch.setattr(Hidden, "is_hidden", True)
            hidden_at = time.monotonic()
            # nginx counts in whole seconds, so it is two or a little more until all of them are told.
            # They never stop asking, so that there is always one for whom it is asked anew, and others beside them.
            ask = partial(_asked_until, where, hidden_at + 6)
            late = [status for said in readers.map(ask, range(6)) for at, status in said if at > hidden_at + 4]
            assert len(late) > 20 and set(late) == {404}
        finally:
            running.terminate()
            behind.shutdown()
            behind.server_close()


def _status(where: str) -> int:
    try:
        return requests.get(where, timeout=10).status_code
    except requests.ConnectionError:
        return 0


def _asked_until(where: str, end: float, _reader: int) -> list[tuple[float, int]]:
    """When one reader has asked, and what was answered."""
    said = []
    while (at := time.monotonic()) < end:
        said.append((at, _status(where)))
    return said
