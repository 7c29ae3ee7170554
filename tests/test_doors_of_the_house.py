"""The doors with the real web server in front: bytes that no client library would send, and bodies without end."""

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.house import House
from tests.made import a_case


def say(house: House, raw: bytes) -> tuple[int, str]:
    """Send these bytes as they are; returns the status and the whole answer."""
    place = urlsplit(house.url)
    with socket.create_connection((str(place.hostname), place.port or 80), timeout=60) as line:
        line.sendall(raw)
        answer = b""
        while part := line.recv(65_536):
            answer += part
    return int(answer.split()[1]), answer.decode(errors="replace")


@pytest.mark.parametrize("where", [b"/?seen=\xff", b"/\xff\xfe", b"/cases/%00", b"/cases/\xc3\xa9?\xff=%ff", b"/?%00"])
@pytest.mark.parametrize("fragment", [b"", b"HX-Request: true\r\n"])
def test_an_address_that_is_no_text_is_refused_with_a_page_of_the_site_or_by_the_server(
    house: House, where: bytes, fragment: bytes
) -> None:
    status, answer = say(
        house, b"GET " + where + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + fragment + b"Connection: close\r\n\r\n"
    )
    assert status in (400, 404)
    assert "Traceback" not in answer


def test_another_sites_name_gets_a_page_that_does_not_repeat_it(house: House) -> None:
    status, answer = say(house, b"GET /login HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert status == 400 and "This request makes no sense to us" in answer and "evil" not in answer


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("where", ["/login", "/webhooks/stripe", "/cases/{slug}/comments"])
def test_a_huge_body_is_refused_with_or_without_its_length(house: House, where: str, chunked: bool) -> None:
    slug = a_case().slug
    body = b"email=ada%40example.org&password=" + b"x" * 5_000_000
    answer = requests.post(
        house.url + where.format(slug=slug),
        data=(body[start : start + 50_000] for start in range(0, len(body), 50_000)) if chunked else body,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        timeout=30,
    )
    # A body without its length is not read at all: its form is empty, and its signature is none.
    assert answer.status_code in ({400, 422} if chunked else {413})
    assert requests.get(f"{house.url}/healthz", timeout=30).text == "ok"


def test_row_49_every_answer_of_the_real_server_carries_every_header(house: House) -> None:
    """A page, an element, files, redirects and errors, as Granian sends them."""
    slug = a_case().slug
    kinds: list[tuple[int, str, str, dict[str, Any]]] = [
        (200, "GET", f"/cases/{slug}", {}),
        (200, "GET", f"/cases/{slug}/comments", {"headers": {"HX-Request": "true"}}),
        (200, "GET", "/static/site.css", {}), (404, "GET", "/static/none.css", {}), (404, "GET", "/none", {}),
        (303, "GET", "/owner", {}), (405, "POST", "/", {}), (413, "POST", "/login", {"data": b"x" * 300_000}),
        (403, "POST", "/login", {"headers": {"Sec-Fetch-Site": "cross-site"}}), (400, "POST", "/webhooks/stripe", {}),
        (400, "GET", "/", {"headers": {"Host": "evil.example"}}), (200, "HEAD", "/", {}), (200, "OPTIONS", "/", {}),
    ]  # fmt: skip
    expected = {
        "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
    }  # fmt: skip
    for status, method, path, more in kinds:
        answer = requests.request(method, house.url + path, allow_redirects=False, timeout=30, **more)
        assert answer.status_code == status, (method, path)
        assert {name: answer.headers.get(name) for name in expected} == expected, (method, path)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"], (method, path)
        assert not any(letter.isdigit() for letter in answer.headers.get("Server", "")), (method, path)
        assert "X-Powered-By" not in answer.headers


def test_the_server_does_not_say_which_version_it_is(house: House) -> None:
    assert not any(letter.isdigit() for letter in requests.get(f"{house.url}/healthz", timeout=30).headers["server"])
