"""How often one address, one network or one account may try: a password, a card page, a letter.

How often is a setting, RATE_... of each kind. Tries are counted in Redis by Flask-Limiter; while Redis is away each
process counts in its own memory, so that a limit is wider then, and never gone. Who asks for something counts its tries
(`too_many`) and says in its own words that it has to wait; the doors add when to come back.
"""

import functools
import hashlib
import itertools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from flask import g
from flask_limiter import Limiter
from flask_limiter.errors import RateLimitExceeded
from limits import RateLimitItem, parse_many
from limits.storage import RedisStorage

import config
from views import visitors

log = structlog.get_logger()
limiter = Limiter(visitors.address, in_memory_fallback_enabled=True, default_limits=[])
# One for Redis that is gone, and the others for requests that meet at the timer of the memory that takes its place.
TRIES_TO_COUNT = 5


def too_many(kind: str, account: str = "") -> bool:
    """Count one more try of this kind from this address, or for this account; True when it is one too many.

    The answer then says when to come back, in its Retry-After.
    """
    try:
        _count_in_spite_of_trouble(_limit_of(kind, account).one_more)
    except RateLimitExceeded:
        limit = limiter.current_limit
        come_back_in(max(1, limit.reset_at - int(time.time())) if limit else 60)
        return True
    return False


def any_too_many(*tries: tuple[str, str]) -> bool:
    """As too_many for each (kind, account) in turn, until one is too many; in one question to Redis instead of many."""
    import redis

    storage = limiter.limiter.storage
    if isinstance(storage, RedisStorage):
        try:
            return _any_too_many_in(storage, tries)
        except redis.RedisError as away:
            # Flask-Limiter then counts in its own memory. To have it find that out as well would take as long again.
            limiter._storage_dead = True
            log.warning("tries are counted one by one", why=type(away).__name__)
    return any(too_many(kind, account) for kind, account in tries)


# Counts at each key until one is over its limit: the number of that one, or 0. ARGV has a limit and seconds for each.
_COUNT_IN_TURN = b"""
for number, key in ipairs(KEYS) do
  local tries = redis.call("incrby", key, 1)
  if tries == 1 then redis.call("expire", key, ARGV[2 * number]) end
  if tries > tonumber(ARGV[2 * number - 1]) then return number end
end
return 0
"""


def _any_too_many_in(storage: RedisStorage, tries: Iterable[tuple[str, str]]) -> bool:
    """At the keys at which Flask-Limiter counts the same tries when they come one by one."""
    counted = []
    for limit in itertools.starmap(_limit_of, tries):
        counted += [(item, limit.key(), limit.name) for item in _rates(limit.rate())]
    keys = [storage.prefixed_key(item.key_for(*of)) for item, *of in counted]
    limits = [number for item, *_ in counted for number in (item.amount, item.get_expiry())]
    over = int(storage.get_connection().register_script(_COUNT_IN_TURN)(keys, limits))
    if over:
        item, *of = counted[over - 1]
        come_back_in(max(1, int(limiter.limiter.get_window_stats(item, *of).reset_time + 1) - int(time.time())))
    return over > 0


@functools.cache
def _rates(rate: str) -> list[RateLimitItem]:
    """In the order in which Flask-Limiter looks at them."""
    return sorted(parse_many(rate))


def come_back_in(seconds: int) -> None:
    """Say so in the answer, whatever else it says."""
    g.retry_after = seconds


def _count_in_spite_of_trouble(one_more: Callable[[], None]) -> None:
    """When Redis goes, Flask-Limiter counts in its own memory; but of the requests that find out together it saves only
    the first. And that memory's timer, which two requests may start at once, tells one of them so with a RuntimeError,
    before it has counted."""
    import redis

    for _ in range(TRIES_TO_COUNT - 1):
        try:
            return one_more()
        except (redis.RedisError, RuntimeError):
            continue
    return one_more()


def may_write_to(email: str) -> bool:
    """Whether one more letter may go to this address. If not, what was asked for is still done, without the letter."""
    if too_many("letter", email):
        g.retry_after = None
        return False
    return True


def may_ask_stripe(about: str) -> bool:
    """Whether Stripe is asked about this once more, since somebody came back. If not, its news will tell."""
    if any_too_many(("way back", ""), ("look", about)):
        g.retry_after = None
        return False
    return True


@dataclass(frozen=True)
class _Limit:
    """Under which name tries are counted, for whom, and how often one may: the rate is read at each call."""

    name: str
    kind: str
    key: Callable[[], str]
    # Counts one more, and raises RateLimitExceeded when that is too many.
    one_more: Callable[[], None]

    def rate(self) -> str:
        return str(getattr(config.current(), f"rate_{self.kind}"))


def _limit_of(kind: str, account: str) -> _Limit:
    # The key stands in Redis, which need not know who has an account here.
    g.account = hashlib.sha256(account.casefold().encode()).hexdigest()
    return _LIMITS[f"{kind} to account" if account else kind]


def _limit(name: str, kind: str, key: Callable[[], str] = visitors.address) -> _Limit:

    def one_more() -> None:
        """Flask-Limiter counts the calls."""

    # It knows its limits by their functions' names. Its `with` form is shorter, but all threads share the limit that
    # was entered last, so that one person's try may be counted for another.
    one_more.__qualname__ = f"limit of {name}"
    counted: Callable[[], None] = limiter.shared_limit(
        lambda: str(getattr(config.current(), f"rate_{kind}")), scope=name, key_func=key
    )(one_more)
    return _Limit(name, kind, key, counted)


_LIMITS = {
    "login": _limit("login", "login"),
    "login to account": _limit("login to account", "login", lambda: str(g.account)),
    "login from network": _limit("login from network", "login_network", lambda: visitors.network(24, 48) or "nowhere"),
    "known login to account": _limit("login of a known browser", "login", lambda: str(g.account)),
    "known code to account": _limit("code of a known browser", "login", lambda: str(g.account)),
    "code": _limit("code", "login"),
    "code to account": _limit("code to account", "login", lambda: str(g.account)),
    "pledge": _limit("pledge", "pledge"),
    "network to account": _limit("pledges of a network", "network", lambda: str(g.account)),
    "card page to account": _limit("card page to account", "card_page", lambda: str(g.account)),
    "way back": _limit("way back", "way_back"),
    "look to account": _limit("look at stripe", "look", lambda: str(g.account)),
    "comment": _limit("comment", "comment"),
    "report": _limit("report", "comment"),
    "search": _limit("search", "search"),
    "policy report": _limit("policy report", "comment"),
    "password": _limit("password", "login"),
    "letter": _limit("letter", "letter"),
    "letter to account": _limit("letter to account", "letter", lambda: str(g.account)),
    # By itself, so that nothing uses up the way back into an account but letters with a link that leads there.
    "reset to account": _limit("reset to account", "letter", lambda: str(g.account)),
}
