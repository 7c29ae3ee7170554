"""A Stripe that makes card pages and nothing else, each after the same time, however many it is asked for at once.

    python -m bench.slow_stripe 18125 --seconds 1

The sandbox keeps all that Stripe would keep, which costs more than what is to be measured here. As at Stripe the same
key gives the same page. GET /seen tells how many were made, for how many keys, and how many waited at once.
"""

import argparse
import asyncio
import json
import re
from collections import Counter

HEAD = re.compile(rb"^(\w+) (\S+) ", re.DOTALL)
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
KEY = re.compile(rb"(?i)\r\nidempotency-key: *([^\r]+)")


class SlowStripe:
    def __init__(self, port: int, seconds: float) -> None:
        self.port, self.seconds = port, seconds
        self.asked: Counter[bytes] = Counter()
        self.pages: dict[bytes, str] = {}
        self.waiting = self.most_waiting = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, for as long as it is kept."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if length := LENGTH.search(head):
                    await reader.readexactly(int(length.group(1)))
                said = json.dumps(await self.said(head)).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(said), said)
                )
        except (asyncio.IncompleteReadError, OSError):
            writer.close()

    async def said(self, head: bytes) -> dict[str, object]:
        found, key = HEAD.match(head), KEY.search(head)
        if found is None or found.group(1) != b"POST" or key is None:
            return {"asked": self.asked.total(), "keys": len(self.asked), "pages": len(self.pages),
                    "most_waiting": self.most_waiting}  # fmt: skip
        self.asked[key.group(1)] += 1
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        await asyncio.sleep(self.seconds)
        self.waiting -= 1
        page = self.pages.setdefault(key.group(1), f"cs_test_{len(self.pages)}")
        return {"id": page, "object": "checkout.session", "url": f"http://127.0.0.1:{self.port}/c/{page}"}


async def _serve(port: int, seconds: float) -> None:
    stripe = SlowStripe(port, seconds)
    server = await asyncio.start_server(stripe.answer, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.slow_stripe")
    parser.add_argument("port", type=int)
    parser.add_argument("--seconds", type=float, default=1.0, help="until it answers")
    asked = parser.parse_args()
    asyncio.run(_serve(asked.port, asked.seconds))
