"""The sandbox with as many cards as thieves have, to be attacked: `python -m tests.many_cards`.

Stripe's test mode knows a dozen numbers, and each has one fingerprint. Here ten thousand more are refused when they are
to be saved, and a thousand work, each with a fingerprint of its own.
"""

from sandbox import cards
from sandbox.__main__ import main

REFUSED = [f"40000001{number:08}" for number in range(10_000)]
STOLEN = [f"40000002{number:08}" for number in range(500)]
OWN = [f"42424201{number:08}" for number in range(500)]


def add() -> None:
    for number in REFUSED:
        cards.CARDS[number] = cards.Card(number, "visa", "refused now", refused_at_setup="generic_decline")
    for number in (*STOLEN, *OWN):
        cards.CARDS[number] = cards.Card(number, "visa", "works")


if __name__ == "__main__":
    add()
    main()
