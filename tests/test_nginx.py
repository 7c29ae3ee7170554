"""The configuration of nginx that we ship: it knows the pages of the application, and what may not be kept."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from flask import Flask
from flask_login import COOKIE_NAME

from tests.doorway import Site

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


def test_nginx_takes_it(tmp_path: Path) -> None:
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("nginx is not installed")
    for name in ("/var/cache/nginx/standing", "/srv/standing/static/"):
        assert name in CONF
    folders = CONF.replace("/var/cache/nginx", str(tmp_path)).replace("/var/log/nginx", str(tmp_path))
    written = folders.replace("listen 80;", "listen 127.0.0.1:1080;")
    written = re.sub(r"listen 443 ssl;|ssl_certificate.*;", "", written)
    (tmp_path / "standing.conf").write_text(written, encoding="utf-8")
    whole = (
        f"pid {tmp_path}/pid;\nerror_log {tmp_path}/log;\nevents {{}}\nhttp {{ include {tmp_path}/standing.conf; }}\n"
    )
    (tmp_path / "nginx.conf").write_text(whole, encoding="utf-8")
    said = subprocess.run(
        [nginx, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
