"""Readers while somebody attacks the doors. `make bench-storm`, or

    python -m bench.storm --seconds 8 --reads 100

The configuration that we ship, as in bench/crowd.py: nginx, a web server for readers and one for those who write, a
worker and the sweep. First readers come alone; then beside each attack, and once more after it. Attackers come from
other addresses of this machine than readers. Counted is within which time 99 % of the readers are answered. Every
attack is bounded in number and in time.
"""

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
import urllib.parse
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import requests

from bench.crowd import PORTS, PROXY, read, settings_of, start_all
from bench.speed import GZIP, ROOT, SLUG, Programs, fetched, fill

GOAL = 3.0
SITE = f"127.0.0.1:{PORTS[PROXY]}"
Said = Counter[str]


async def _line(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from one of some hundred addresses."""
    return await asyncio.open_connection("127.0.0.1", PORTS[PROXY], local_addr=(f"127.0.1.{1 + number % 100}", 0))


async def _status(reader: asyncio.StreamReader, within: float) -> str:
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), within)
    except TimeoutError:
        return "no answer yet"
    except (asyncio.IncompleteReadError, ConnectionError):
        return "hung up"
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    await reader.readexactly(int(length.group(1)) if length else 0)
    return head[9:12].decode()


def _head(method: str, path: str, *more: str) -> bytes:
    return "\r\n".join(
        (f"{method} {path} HTTP/1.1", f"Host: {SITE}", "Sec-Fetch-Site: same-origin", *more, "", "")
    ).encode()


def _post(path: str, cookie: str = "", **form: str) -> bytes:
    body = urllib.parse.urlencode(form).encode()
    kind = "Content-Type: application/x-www-form-urlencoded"
    return _head("POST", path, kind, f"Cookie: {cookie}", f"Content-Length: {len(body)}") + body


async def _slow_body(number: int, until: float, said: Said) -> None:
    """Announces a form and sends a letter of it a second."""
    reader, writer = await _line(number)
    writer.write(_head("POST", f"/cases/{SLUG}/comments", "Content-Length: 5000"))
    while time.monotonic() < until and not reader.at_eof():
        writer.write(b"x")
        await asyncio.sleep(1)
    said[await _status(reader, 0.1)] += 1
    writer.close()


async def _slow_head(number: int, until: float, said: Said) -> None:
    """Begins a request, and another line of its head each second, without end."""
    reader, writer = await _line(number)
    writer.write(_head("GET", "/")[:-2])
    while time.monotonic() < until and not reader.at_eof():
        writer.write(b"X-More: x\r\n")
        await asyncio.sleep(1)
    said[await _status(reader, 0.1)] += 1
    writer.close()


async def _idle(number: int, until: float, said: Said) -> None:
    """Asks for one page and stays."""
    reader, writer = await _line(number)
    writer.write(_head("GET", f"/cases/{SLUG}", "Accept-Encoding: gzip"))
    said[await _status(reader, 30)] += 1
    await asyncio.sleep(max(0.0, until - time.monotonic()))
    writer.close()


async def _half_body(number: int, until: float, said: Said) -> None:
    """Sends half of a form and hangs up, again and again."""
    while time.monotonic() < until:
        _, writer = await _line(number)
        writer.write(_head("POST", f"/cases/{SLUG}/comments", "Content-Length: 5000") + b"x" * 2_500)
        await writer.drain()
        writer.close()
        said["hung up on"] += 1
        await asyncio.sleep(0.1)


async def _huge_head(number: int, until: float, said: Said) -> None:
    while time.monotonic() < until:
        reader, writer = await _line(number)
        writer.write(_head("GET", f"/cases/{SLUG}", "Cookie: a=" + "x" * 100_000))
        said[await _status(reader, 10)] += 1
        writer.close()
        await asyncio.sleep(0.1)


def _again_and_again(request: Callable[[int, int], bytes]) -> "Attack":
    async def attack(number: int, until: float, said: Said) -> None:
        reader, writer = await _line(number)
        turn = 0
        while time.monotonic() < until:
            turn += 1
            writer.write(request(number, turn))
            status = await _status(reader, 60)
            said[status] += 1
            if not status.isdigit():
                writer.close()
                reader, writer = await _line(number)
        writer.close()

    return attack


async def _log_in_once(number: int, until: float, said: Said) -> None:
    reader, writer = await _line(number)
    writer.write(_post("/login", email=f"nobody-{number}@storm.example", password="not the right one"))
    said[await _status(reader, max(0.1, until - time.monotonic()))] += 1
    writer.close()


# The cookie and the token of the owner of the case, who is an attacker as well.
KNOWN: dict[str, str] = {}


def log_in() -> dict[str, str]:
    """As the owner of the case: what a form of theirs carries."""
    browser = requests.Session()
    browser.headers["Origin"] = f"http://{SITE}"
    said = {"email": "owner@measured.example", "password": "a long password for measuring"}
    browser.post(f"http://{SITE}/login", data=said, timeout=30).raise_for_status()
    page = browser.get(f"http://{SITE}/owner/cases/{SLUG}/updates/new", timeout=30).text
    token = re.findall(r'name="form_token" value="([^"]+)"', page)[0]
    return {"form_token": token, "cookie": "; ".join(f"{name}={value}" for name, value in browser.cookies.items())}


# What each form of a flood of pledges has wrong: its amount, its address, its agreement, its key, or all of it.
WRONG: tuple[dict[str, str], ...] = (
    {"other_amount": "-1"}, {"other_amount": "1e309"}, {"other_amount": "9" * 40}, {"amount": "\0", "other_amount": ""},
    {"email": "nobody@"}, {"email": "x" * 5_000}, {"shown_as": "nonsense"}, {"agreed": ""}, {"form_key": "short"},
    {"form_key": "", "form_token": "of nobody", "name": "\u202e" * 500, "message": "x" * 50_000},
)  # fmt: skip


def _wrong_pledge(number: int, turn: int) -> bytes:
    """A pledge form that is refused, each time for another reason."""
    right = {"amount": "other", "other_amount": "25", "name": "Ada", "email": f"a{number}-{turn}@storm.example",
             "shown_as": "name", "agreed": "y", "form_key": f"storm-{number:08d}-{turn:08d}"}  # fmt: skip
    return _post(f"/cases/{SLUG}/pledges", **{**right, **WRONG[turn % len(WRONG)]})


Attack = Callable[[int, float, Said], Awaitable[None]]
ATTACKS: dict[str, tuple[int, Attack]] = {
    "bodies that come a letter a second": (500, _slow_body),
    "heads that never end": (500, _slow_head),
    "idle connections": (10_000, _idle),
    "half-sent bodies": (100, _half_body),
    "huge heads": (100, _huge_head),
    "log-ins at once": (1_000, _log_in_once),
    "searches": (50, _again_and_again(lambda n, turn: _head("GET", f"/?q=word{n}x{turn}", "Accept-Encoding: gzip"))),
    "comments": (50, _again_and_again(lambda n, turn: _post(
        f"/cases/{SLUG}/comments", name="Ada", email=f"a{n}@storm.example", body=f"Words {turn}"))),
    "wrong pledges": (50, _again_and_again(_wrong_pledge)),
    "previews by an owner": (50, _again_and_again(lambda n, turn: _post(
        f"/owner/cases/{SLUG}/updates/1", title="News", body=f"Words {turn} " * 1_000, preview="y", **KNOWN))),
    "forgotten passwords": (50, _again_and_again(lambda n, turn: _post(
        "/forgotten-password", email=f"a{n}-{turn}@storm.example"))),
}  # fmt: skip


def attack(name: str, seconds: float, known: dict[str, str]) -> Said:
    """In a process of its own."""
    KNOWN.update(known)
    many, one = ATTACKS[name]
    said, until = Counter[str](), time.monotonic() + seconds

    async def all_of_them() -> None:
        async def by_itself(number: int) -> None:
            try:
                await one(number, until, said)
            except (OSError, asyncio.IncompleteReadError) as trouble:
                said[type(trouble).__name__] += 1

        await asyncio.gather(*(by_itself(number) for number in range(many)))

    asyncio.run(all_of_them())
    return said


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.storm", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8, help="of each attack")
    parser.add_argument("--reads", type=float, default=100, help="a second, by all readers together")
    parser.add_argument("--only", default="", help="the attacks whose name holds this word")
    asked = parser.parse_args()
    if shutil.which("nginx") is None:
        raise SystemExit("This needs nginx (Debian: apt-get install nginx-light).")
    good = True
    with tempfile.TemporaryDirectory(prefix="standing-storm-", dir=ROOT / "var") as place:
        folder = Path(place)
        # nginx gives up root, and has to get at its files all the same.
        folder.chmod(0o755)
        settings = settings_of(folder, "")
        fill(folder, **settings)
        programs = Programs(folder, ports=PORTS, processors="")
        try:
            start_all(programs, folder, settings, 1.0)
            fetched(f"http://{SITE}/cases/{SLUG}", GZIP)
            known = log_in()
            print(f"Load of this machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores. {asked.reads:g} "
                  "reads a second.")  # fmt: skip
            # Attackers have machines of their own: on this one they come after the site and its readers.
            with ProcessPoolExecutor(1) as others, ProcessPoolExecutor(1, initializer=os.nice, initargs=(19,)) as mob:
                others.submit(read, 50, 2).result()
                quiet = others.submit(read, asked.reads, asked.seconds).result()
                print(
                    f"quiet: 99 % within {quiet.within(0.99):.1f} ms\n\n| attack | how many | what they were told "
                    "| 99 % of readers, ms | of quiet | after it | refused |\n|---|---|---|---|---|---|---|"
                )
                for name, (many, _) in ATTACKS.items():
                    if asked.only not in name:
                        continue
                    attacking = mob.submit(attack, name, asked.seconds, known)
                    time.sleep(0.5)
                    beside = others.submit(read, asked.reads, asked.seconds - 1).result()
                    said = attacking.result()
                    after = others.submit(read, asked.reads, 3).result()
                    ratio = beside.within(0.99) / max(0.001, quiet.within(0.99))
                    wrong = beside.wrong + after.wrong
                    good = good and ratio <= GOAL and not wrong
                    told, refused = dict(said.most_common(4)), f"{len(wrong)} {Counter(wrong).most_common(2) or ''}"
                    print(f"| {name} | {many:,} | {told} | {beside.within(0.99):.1f} | {ratio:.2f} | "
                          f"{after.within(0.99):.1f} | {refused} |", flush=True)  # fmt: skip
            memory = {name: round(programs.megabytes(name)) for name in ("readers", "pledges")}
            print(f"\nThe goal is {GOAL:g} times. Memory of the largest process, MB: {memory}.")
        finally:
            programs.stop()
    sys.exit(0 if good else "A goal was missed.")


if __name__ == "__main__":
    main()
