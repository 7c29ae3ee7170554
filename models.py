"""The tables of Standing and their verbs, which apply the law.

In this order: the database, people, case, round, pledge, comment, records. Verbs never commit (the edge does)
and never read the clock: they take `as_of`, an aware UTC instant. Amounts are integer pence.
"""

import base64
import datetime as dt
import functools
import hashlib
import hmac
import itertools
import re
import secrets
import sqlite3
import threading
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar, cast

import pyotp
import sqlalchemy as sa
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from flask import current_app
from flask_babel import force_locale, gettext
from flask_login import UserMixin
from flask_sqlalchemy import SQLAlchemy
from pyotp.exceptions import OTPVerificationError
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

import law
import privacy
from law import N_, Refused
from money import pounds

if TYPE_CHECKING:
    from payments import CardFound, ChargeFound, DisputeFound, RefundFound
    from pictures import Drawing

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# The language of letters to whom nothing is known of, as `lang` has it; the others are named in views/languages.py.
ENGLISH = "en-GB"
# A refund that the bank has not finished is looked at again this often, should its event be lost.
REFUND_PAUSE = dt.timedelta(hours=1)
RECEIPTS_A_DAY = 5
LINKS_A_DAY = 5
ADDRESSES_A_DAY = 5
# How often a refused payment is tried again within a day; and then not by its supporter any more.
PAYMENTS_A_DAY = 5
# Whoever asks for lost links again within this time gets one letter.
FIND_PAUSE = dt.timedelta(minutes=10)
# A letter whose mailbox is said not to exist is tried again this often, and for so long.
# What stands in a letter's row when it was not even tried, since its reader's address sends letters back.
WITHHELD = "withheld: letters to this address come back"
REFUSED_LETTER_PAUSE, REFUSED_LETTER_FOR = dt.timedelta(hours=6), dt.timedelta(days=1)

# --- The database ------------------------------------------------------------------------------------------


class Instant(sa.types.TypeDecorator[dt.datetime]):
    """An aware UTC instant. SQLite forgets zones, PostgreSQL answers in its server's; naive values raise."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime cannot be stored")
        utc = value.astimezone(dt.UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: dt.datetime | None, dialect: sa.Dialect) -> dt.datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class Base(DeclarativeBase):
    """All tables. Constraint names are fixed so that migrations can speak of them."""

    registry = sa.orm.registry(
        metadata=sa.MetaData(
            naming_convention={
                "ix": "ix_%(table_name)s_%(column_0_N_name)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_N_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        type_annotation_map={dt.datetime: Instant, dict[str, Any]: sa.JSON},
    )


Pence = Annotated[int, mapped_column(sa.BigInteger)]
Key = Annotated[int, mapped_column(primary_key=True)]
# For tables of which rows are deleted whose numbers stand in the history, in letters or in links: SQLite would give the
# number of the newest one to the next. It stands last among the arguments of a table.
NEVER_AGAIN = {"sqlite_autoincrement": True}

db = SQLAlchemy(model_class=Base)
_writing: ContextVar[bool] = ContextVar("writing", default=True)
_patient: ContextVar[bool] = ContextVar("patient", default=True)


def begin_writing(patient: bool = True) -> None:
    """From here on this thread's transactions may write and take the lock at once (BEGIN IMMEDIATE).

    Must be called before the first query; an open read is ended, since turning a read into a write
    would fail under load however long SQLite is told to wait. Who is not patient gives up on a lock
    after a fifth of a second.
    """
    db.session.rollback()
    _writing.set(True)
    _patient.set(patient)


def begin_reading() -> None:
    """From here on this thread's transactions only read and never wait for writers."""
    db.session.rollback()
    _writing.set(False)
    _patient.set(True)


def prepare_engine(engine: sa.Engine) -> None:
    """Make each connection safe for money: see begin_writing."""
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        turns = _Turns()
        sa.event.listen(engine, "begin", turns.take)
        sa.event.listen(engine, "begin", _begin_sqlite)
        sa.event.listen(engine, "checkin", turns.give_back)
    else:
        sa.event.listen(engine, "do_connect", _reach_postgresql)
        sa.event.listen(engine, "connect", _prepare_postgresql)
        sa.event.listen(engine, "begin", _begin_postgresql)
        sa.event.listen(engine, "handle_error", _leave_out_details)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # The driver's own BEGIN is deferred, and loses updates.
    for pragma in ("journal_mode=WAL", "foreign_keys=ON", "busy_timeout=10000", "synchronous=FULL"):
        connection.execute(f"PRAGMA {pragma}")


class _Turns:
    """In which the threads of one process write to SQLite: first come, first served.

    SQLite has no queue. Whoever finds it locked sleeps, for up to a tenth of a second, and tries again; among many,
    some never find it free and give up after ten seconds, while others come again and again. Between processes
    SQLite's own lock decides, as it does for whoever has waited for a turn as long as one waits for that lock.
    """

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._taken = False
        # Each of them is released when its turn has come.
        self._waiting: deque[threading.Lock] = deque()

    def take(self, connection: sa.Connection) -> None:
        """A connection keeps its turn until it is back in the pool, which it is once its transaction has ended."""
        if _writing.get() and not connection.info.get("has_turn"):
            connection.info["has_turn"] = self._comes(within=10 if _patient.get() else 0.2)

    def give_back(self, _connection: object, record: Any) -> None:
        if record.info.pop("has_turn", False):
            self._pass_on()

    def _comes(self, within: float) -> bool:
        with self._door:
            if not self._taken:
                self._taken = True
                return True
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        if mine.acquire(timeout=within):
            return True
        with self._door:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return False
        return True

    def _pass_on(self) -> None:
        with self._door:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


def _begin_sqlite(connection: sa.Connection) -> None:
    writing = _writing.get()
    wanted = (10_000 if _patient.get() else 200, "OFF" if writing else "ON")
    if connection.info.get("set to") != wanted:
        # By the driver itself, in a tenth of the time: these ask for no lock, so nothing can go wrong with them.
        driver: Any = connection.connection.driver_connection
        driver.execute(f"PRAGMA busy_timeout={wanted[0]}")
        driver.execute(f"PRAGMA query_only={wanted[1]}")
        connection.info["set to"] = wanted
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN DEFERRED")


def _reach_postgresql(_dialect: object, _record: object, _args: object, options: dict[str, Any]) -> None:
    """Give up soon on a server that does not answer or that the network has lost; DATABASE_URL may say otherwise."""
    for name, seconds in (("connect_timeout", 5), ("keepalives_idle", 30), ("keepalives_interval", 10)):
        options.setdefault(name, seconds)
    options.setdefault("tcp_user_timeout", 30_000)


# No statement, no wait for a lock and no forgotten transaction lasts for ever, whatever the server's own settings say.
POSTGRESQL_SETTINGS = {
    "default_transaction_isolation": "read committed",
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}


def _prepare_postgresql(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        for name, value in POSTGRESQL_SETTINGS.items():
            cursor.execute(f"SET {name} = '{value}'")
    connection.commit()


def _begin_postgresql(connection: sa.Connection) -> None:
    """A page is read from one snapshot, as on SQLite; who writes sees the newest row that it holds."""
    if not _writing.get():
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    elif not _patient.get():
        connection.exec_driver_sql("SET LOCAL lock_timeout = '200ms'")


def _leave_out_details(context: sa.engine.ExceptionContext) -> None:
    """PostgreSQL adds the row that it refuses to what it says ("Failing row contains ..."), and that is people's."""
    refused = context.original_exception
    told = getattr(refused, "diag", None)
    if told is None or told.message_primary is None:
        return
    whole = str(refused)
    for error in (refused, context.sqlalchemy_exception):
        if error is not None and error.args:
            error.args = (str(error.args[0]).replace(whole, told.message_primary),)


# What PostgreSQL calls its troubles that are no mistake of ours (SQLSTATE): a connection that is lost, a server that
# starts or stops, no room, a lock or an answer that took too long, two that stood in each other's way.
_AWAY = ("08", "25P03", "40001", "40P01", "53", "55P03", "57", "58")


def is_away(error: sa.exc.SQLAlchemyError) -> bool:
    """Whether the database could not be reached or is too busy, so that the same may work a little later."""
    if isinstance(error, sa.exc.TimeoutError):
        return True  # Every connection of the pool was in use.
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return error.orig.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    said = getattr(error.orig, "sqlstate", None)
    lost = said is None and isinstance(error, (sa.exc.OperationalError, sa.exc.InterfaceError))
    return error.connection_invalidated or lost or (said or "").startswith(_AWAY)


def tables_are_ours() -> bool:
    """Whether the database has the tables of this release, and not of one before it or after it."""
    return bool(db.session.scalar(sa.text("SELECT version_num FROM alembic_version")) == current_app.config["SCHEMA"])


def insert_once(table: type[Base], **values: Any) -> bool:
    """Add a row unless a unique constraint already holds it. Returns whether it was added."""
    insert = _insert_once(cast("sa.Table", table.__table__), db.engine.dialect.name, tuple(values))
    # Without the option the count of an INSERT is -1 on PostgreSQL, whatever became of it.
    added = db.session.execute(insert, values, execution_options={"preserve_rowcount": True})
    return bool(added.rowcount == 1)  # type: ignore[attr-defined]


def insert_at_once(table: type[Base], **values: Any) -> bool:
    """As insert_once, in a transaction of its own and without a session, which takes longer than to store the row."""
    _writing.set(True)
    _patient.set(True)
    engine = db.engine
    insert = _insert_once(cast("sa.Table", table.__table__), engine.dialect.name, tuple(values))
    with engine.begin() as connection:
        added = connection.execute(insert, values, execution_options={"preserve_rowcount": True})
    return added.rowcount == 1


@functools.cache
def _insert_once(table: sa.Table, dialect: str, columns: tuple[str, ...]) -> Any:
    """The statement, which is kept: to put it together anew takes longer than to store the row."""
    return _insert(table, dialect).values({name: sa.bindparam(name) for name in columns}).on_conflict_do_nothing()


def write_new() -> None:
    """Store what was added to the session, row by row in that order, and let the session forget it: in a third of the
    time of a flush, which looks for what hangs on what. Only for rows that know their keys and are not needed after
    the commit."""
    new = list(db.session.new)
    connection = db.session.connection()
    for row in new:
        db.session.expunge(row)
        table = cast("sa.Table", row.__table__)
        values = {name: value for name, value in vars(row).items() if name in table.c}
        connection.execute(_insert_plain(table, tuple(values)), values)


@functools.cache
def _insert_plain(table: sa.Table, columns: tuple[str, ...]) -> Any:
    """The statement, which is kept; see _insert_once."""
    return sa.insert(table).values({name: sa.bindparam(name) for name in columns})


def _insert(table: Any, dialect: str) -> Any:
    """An INSERT that may give way to a row that is there. Each database's kind is loaded where it is spoken."""
    return import_module(f"sqlalchemy.dialects.{dialect}").insert(table)


@dataclass
class Gathered:
    """What the verbs of many rows only add: letters, lines of books, what is counted by the day. See `all_together`."""

    letters: list[dict[str, Any]] = field(default_factory=list)
    lines: defaultdict[type[Base], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    # (round, day): pledges and pence; (round, day, source, what): how many more.
    days: defaultdict[tuple[int, dt.date], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    sources: Counter[tuple[int, dt.date, str, str]] = field(default_factory=Counter)

    def write(self) -> None:
        for table, lines in self.lines.items():
            db.session.execute(sa.insert(cast("sa.Table", table.__table__)), lines)
        if self.letters:
            insert = _insert_once(cast("sa.Table", Letter.__table__), db.engine.dialect.name, tuple(self.letters[0]))
            db.session.execute(insert, self.letters)
        for (round_id, day), (pledges, pence) in self.days.items():
            Day.add(round_id, day, pledges, pence)
        for (round_id, day, name, what), more in self.sources.items():
            Source.add(round_id, day, name, what, more)


@contextmanager
def all_together() -> Iterator[None]:
    """Within it many rows are changed by their verbs, and the database is told of all of it at the end: one by one it
    takes ten times as long. What a verb has changed is seen on the rows, but by a query only after a flush."""
    with db.session.no_autoflush:
        gathered = db.session.info["gathered"] = Gathered()
        try:
            yield
        finally:
            del db.session.info["gathered"]
        db.session.flush()
        gathered.write()


def _gathered() -> Gathered | None:
    """Where to put what can wait for the end of `all_together`; None outside of it."""
    found: Gathered | None = db.session.info.get("gathered")
    return found


def _add_line(table: type[Base], **values: Any) -> None:
    """Add a row that nobody reads in the same transaction."""
    if (gathered := _gathered()) is not None:
        gathered.lines[table].append(values)
    else:
        db.session.add(table(**values))


Row = TypeVar("Row", bound=Base)
# A search of words looks through no more rows than this for one page; its page leads on to the rest.
LOOKED_THROUGH_AT_ONCE = 1_000
# Of the cases that hold the words of a reader no more than these, the newest, are looked through.
MATCHES_LOOKED_THROUGH = 500


def page_of(
    listed: sa.Select[Row], matching: sa.ColumnElement[bool] | None, limit: int, *options: Any
) -> tuple[list[Row], Row | None]:
    """A page of an ordered list, or of those in it that match, and the row behind which the next page begins.

    So that a word that nobody has costs the same in a list of any length, it is looked for in the next
    LOOKED_THROUGH_AT_ONCE rows alone. A page may be empty and yet lead on.
    """
    if matching is None:
        rows = list(db.session.scalars(listed.options(*options).limit(limit + 1)).unique())
        return rows[:limit], rows[limit - 1] if len(rows) > limit else None
    table = listed.column_descriptions[0]["entity"]
    # By their numbers, since a database that is asked for both at once is free to walk through the whole list.
    ids = list(db.session.scalars(listed.with_only_columns(table.id).limit(LOOKED_THROUGH_AT_ONCE)))
    if not ids:
        return [], None
    # The last of them as well, whether it matches or not: it is where the next page begins.
    asked = sa.select(table, matching).where(table.id.in_(ids), sa.or_(matching, table.id == ids[-1]))
    found = {row.id: (row, bool(holds)) for row, holds in db.session.execute(asked.options(*options)).unique()}
    rows = [found[number][0] for number in ids if number in found and found[number][1]]
    if len(rows) > limit:
        return rows[:limit], rows[limit - 1]
    return rows, found[ids[-1]][0] if len(ids) == LOOKED_THROUGH_AT_ONCE else None


def words_in(words: str, *fields: Any) -> sa.ColumnElement[bool] | None:
    """For a query: one of the fields holds the words, in capitals or not. None when there are no words."""
    return sa.or_(*(field.icontains(words, autoescape=True) for field in fields)) if words else None


def one_of(column: str, states: Any) -> sa.CheckConstraint:
    """A CHECK that a text column holds one of the law's states."""
    listed = ", ".join(f"'{state}'" for state in sorted(states))
    return sa.CheckConstraint(f"{column} IN ({listed})", name=f"known_{column}")


# --- Private links -----------------------------------------------------------------------------------------

# What these links open is harmless, and letters of long ago must keep it: they live on when a link is replaced.
LASTING_LINKS = ("unsubscribe",)


def signed_link(purpose: str, public_id: str, version: int) -> str:
    """A private link: nothing secret is stored, so each letter can write it again."""
    return _sign(current_app.config["LINK_SECRETS"][0], purpose, public_id, version)


def is_genuine(link: str, purpose: str, public_id: str, version: int) -> bool:
    """Whether we signed this link, with the secret of today or with one that was rotated out."""
    genuine = [_sign(secret, purpose, public_id, version) for secret in current_app.config["LINK_SECRETS"]]
    return any(hmac.compare_digest(link.encode(), good.encode()) for good in genuine)


def _sign(secret: str, purpose: str, public_id: str, version: int) -> str:
    signed = f"{purpose}\0{public_id}\0{version}".encode()
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return f"{public_id}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def secret_mark(kind: str, words: str) -> str:
    """The same for the same words, so that two can be told to be one; it leads back to them only for who has the
    secret."""
    secret = str(current_app.config["LINK_SECRETS"][0])
    return hmac.new(secret.encode(), f"mark\0{kind}\0{words}".encode(), hashlib.sha256).hexdigest()[:24]


def _card_mark(found: "CardFound") -> str | None:
    return secret_mark("card", found.fingerprint) if found.fingerprint else None


# --- People ------------------------------------------------------------------------------------------------

ROLES = ("owner", "moderator", "staff")
# So many seconds somebody waits for their turn to have a password hashed.
HASH_PATIENCE = 2.0
_hasher = PasswordHasher()
# Verified when the address is unknown, so that the answer takes as long as for a known one: hashed as costly as others
# are, but once for all, since each hash takes 64 MiB and a moment of every start.
_NOBODYS_HASH = "$argon2id$v=19$m=65536,t=3,p=4$eMYasMCNHL3Xl9SAuHMDhA$vTlGpQILIjnfVRWiHNp7SRKrlTWwTVAXyZLKjeP/ODE"


class Busy(Exception):
    """Too many passwords wait to be hashed; somebody should come back in a moment."""


@contextmanager
def _in_turn() -> Iterator[None]:
    """Each hash takes 64 MiB, so that a thousand log-ins at once would take all memory there is. So many are made at
    once in each process (HASHES_AT_ONCE), and whoever has waited for too long is told so. So is at once whoever finds
    four times as many there already: a thread that waits here serves nobody else."""
    line: BoundedSemaphore = current_app.config["HASH_LINE"]
    turns: BoundedSemaphore = current_app.config["HASH_TURNS"]
    if not line.acquire(blocking=False):
        raise Busy
    try:
        if not turns.acquire(timeout=HASH_PATIENCE):
            raise Busy
        try:
            yield
        finally:
            turns.release()
    finally:
        line.release()


def hash_password(password: str) -> str:
    """Slow on purpose, so never in a transaction that writes."""
    with _in_turn():
        return _hasher.hash(password)


def is_password(password_hash: str, password: str) -> bool:
    """As slow as hashing."""
    try:
        with _in_turn():
            return bool(_hasher.verify(password_hash, password))
    except (VerificationError, InvalidHashError):
        return False


class User(Base, UserMixin):  # type: ignore[misc]  # Flask-Login brings no types
    """Somebody who logs in: a case owner, a moderator or staff. Supporters have no account."""

    __tablename__ = "users"
    __table_args__ = (one_of("role", ROLES),)

    id: Mapped[Key]
    email: Mapped[str] = mapped_column(sa.String(254), unique=True)
    written_name: Mapped[str] = mapped_column("name", sa.String(120))
    bio: Mapped[str] = mapped_column(sa.Text)
    picture: Mapped[str] = mapped_column(sa.String(120))
    role: Mapped[str] = mapped_column(sa.String(20))
    password_hash: Mapped[str] = mapped_column(sa.String(200))
    # Whether single keys press the buttons of the moderators' desk; some people's hands or machines need them off.
    uses_keys: Mapped[bool]
    # In which letters are written to this person; pages follow their address.
    language: Mapped[str] = mapped_column(sa.String(20))
    created_at: Mapped[dt.datetime]
    # When the password was set that holds now. Links to set another one that were asked for before are dead.
    password_at: Mapped[dt.datetime]
    # Since when this person cannot log in; everybody else has none.
    disabled_at: Mapped[dt.datetime | None]
    # Since when nothing is known of this person any more.
    erased_at: Mapped[dt.datetime | None]
    # Since when a log-in asks for the digits of an authenticator app too. What the app and we share is read only to
    # compare with it; the digits of a step of 30 seconds are taken once, so none of an earlier one than the last.
    second_factor_at: Mapped[dt.datetime | None]
    second_factor_secret: Mapped[str] = mapped_column(sa.String(64), deferred=True)
    second_factor_step: Mapped[int] = mapped_column(deferred=True)

    cases: Mapped[list["Case"]] = relationship(back_populates="owner", order_by="Case.id.desc()")

    @classmethod
    def enrol(cls, email: str, name: str, role: str, password: str, as_of: dt.datetime, bio: str = "") -> "User":
        """A new user with a password. Raises Refused when the address is already taken."""
        return cls.admit(email, name, role, hash_password(password), as_of, bio)

    @classmethod
    def admit(cls, email: str, name: str, role: str, password_hash: str, as_of: dt.datetime, bio: str = "",
              language: str = ENGLISH) -> "User":  # fmt: skip
        """As `enrol`, with a password that was hashed before: that is slow, and nobody should wait for it to write.

        The unique address decides who comes first when two arrive at once.
        """
        added = insert_once(
            cls, email=email.lower(), name=name, bio=bio, picture="", role=role, password_hash=password_hash,
            uses_keys=True, language=language, created_at=as_of, password_at=as_of,
            second_factor_secret="", second_factor_step=0,
        )  # fmt: skip
        user = cls.at(email)
        if user is None or not added:
            raise Refused(gettext("There is already a user with the address %(email)s.", email=email))
        return user

    @classmethod
    def at(cls, email: str) -> "User | None":
        return db.session.scalar(sa.select(cls).where(cls.email == email.strip().lower()))

    @classmethod
    def authenticate(cls, email: str, password: str) -> "User | None":
        """The user of this address and password, or None; unknown addresses and disabled users take just as long."""
        user = cls.at(email)
        knows = is_password(user.password_hash if user else _NOBODYS_HASH, password)
        return user if user and knows and user.disabled_at is None else None

    def set_password(self, password_hash: str, as_of: dt.datetime) -> None:
        """Whoever is logged in is logged out everywhere: the old password may have been somebody else's too."""
        self.password_hash, self.password_at = password_hash, as_of
        self.end_sessions(as_of)

    def change_password(self, password_hash: str, as_of: dt.datetime) -> None:
        """By the user, who has proven to know the old one. Needs the user to be held."""
        self.set_password(password_hash, as_of)
        Event.write(self, "password_changed", f"user:{self.id}", as_of)
        Letter.owe("password_changed", self, f"typed:{as_of.isoformat()}", as_of)

    def stronger_hash(self, password: str) -> str:
        """The password hashed anew when the hasher has become stronger since it was set, else ""."""
        return hash_password(password) if _hasher.check_needs_rehash(self.password_hash) else ""

    @classmethod
    def with_role(cls, role: str) -> "list[User]":
        """Those who have this role and may use it."""
        found = sa.select(cls).where(cls.role == role, cls.disabled_at.is_(None))
        return list(db.session.scalars(found.order_by(cls.id)))

    def end_sessions(self, as_of: dt.datetime) -> None:
        """Logged out everywhere: every cookie given out so far stops working. Needs the user to be held."""
        UserSession.end_all(self, as_of)

    def end_session(self, ended: "UserSession", as_of: dt.datetime) -> None:
        """Logged out in one browser, perhaps from another one. Silent when it has ended already."""
        if ended.ended_at is None:
            ended.end(as_of)
            Event.write(self, "log_in_ended", f"user:{self.id}", as_of)

    def log_out_everywhere(self, as_of: dt.datetime) -> None:
        """By the user's own button. Needs the user to be held."""
        self.end_sessions(as_of)
        Event.write(self, "logged_out_everywhere", f"user:{self.id}", as_of)

    # The second factor

    @property
    def needs_second_factor(self) -> bool:
        """Whether there is none, though this role should have one."""
        return self.role in law.SECOND_FACTOR_ROLES and self.second_factor_at is None

    def set_second_factor(self, secret: str, digits: str, as_of: dt.datetime) -> list[str]:
        """From now on a log-in asks for what an app makes of this secret. Returns the recovery codes, which nobody can
        show again; none when the digits are wrong, since then the app would lock its owner out.

        Everybody else who is logged in is logged out: they came in without it. Needs the user to be held.
        """
        step = _step_of(secret, digits, as_of)
        if step is None:
            return []
        what = "replaced" if self.second_factor_at else "set_up"
        self.second_factor_at, self.second_factor_secret, self.second_factor_step = as_of, secret, step
        self.end_sessions(as_of)
        self._tell_of_second_factor(what, f"user:{self.id}", as_of)
        return RecoveryCode.draw(self)

    def take_code(self, digits: str, recovery_code: str, as_of: dt.datetime) -> bool:
        """Whether these are the digits of now, give or take one step, or one of the recovery codes. Either is taken
        once, so what somebody has looked at over a shoulder opens nothing. Needs the user to be held."""
        if self.second_factor_at is None:
            return False
        step = _step_of(self.second_factor_secret, digits, as_of)
        if step is not None and step > self.second_factor_step:
            self.second_factor_step = step
            return True
        if RecoveryCode.take(self, recovery_code):
            self._tell_of_second_factor("recovery_code_used", f"user:{self.id}", as_of)
            return True
        return False

    def renew_recovery_codes(self, as_of: dt.datetime) -> list[str]:
        """New ones, which end the old. Needs the user to be held."""
        self._tell_of_second_factor("recovery_codes_renewed", f"user:{self.id}", as_of)
        return RecoveryCode.draw(self)

    def recovery_codes_left(self) -> int:
        return len(RecoveryCode.of(self))

    def turn_off_second_factor(self, as_of: dt.datetime) -> None:
        """Whoever can do much to others keeps it: a case owner alone turns it off. Needs the user to be held."""
        if self.role in law.SECOND_FACTOR_ROLES:
            raise Refused(
                gettext("Moderators and staff keep their second factor. You can put another one in its place.")
            )
        self._drop_second_factor("turned_off", f"user:{self.id}", as_of)

    def warn_of_tries(self, as_of: dt.datetime) -> None:
        """Somebody has the password and not the codes: its owner hears of it, once a day."""
        Letter.owe("second_factor", self, f"tried:{as_of:%Y-%m-%d}", as_of)

    def drop_second_factor_since(self, since: dt.datetime, as_of: dt.datetime) -> None:
        """Whoever has set it then may have been the thief of an address that is taken back: its owner would be asked
        for digits that only the thief has. Silent for an older one. Needs the user to be held."""
        if self.second_factor_at is not None and self.second_factor_at >= since:
            self._drop_second_factor("turned_off", f"user:{self.id}", as_of, note="with an address that was taken back")

    def _drop_second_factor(self, what: str, who: str, as_of: dt.datetime, note: str = "") -> None:
        if self.second_factor_at is None:
            return
        self.second_factor_at, self.second_factor_secret = None, ""
        RecoveryCode.forget(self)
        self.end_sessions(as_of)
        self._tell_of_second_factor(what, who, as_of, note)

    def _tell_of_second_factor(self, what: str, who: str, as_of: dt.datetime, note: str = "") -> None:
        """A line in the history, and a letter: if it was somebody else, its owner should know."""
        Event.write(self, f"second_factor_{what}", who, as_of, note=note)
        Letter.owe("second_factor", self, f"{what}:{as_of.isoformat()}", as_of)

    def rename(self, name: str, as_of: dt.datetime) -> None:
        """Silent when it is called so already."""
        if name != self.name:
            Event.write(self, "name_changed", f"user:{self.id}", as_of)
            self.name = name

    def describe(self, bio: str, as_of: dt.datetime) -> None:
        """What somebody says of themselves on the pages of their cases. Silent when it says so already."""
        if bio != self.bio:
            Event.write(self, "bio_changed", f"user:{self.id}", as_of)
            self.bio = bio

    def write_in(self, language: str, as_of: dt.datetime) -> None:
        """The language of letters to this person from now on; silent when it is that one already."""
        if language != self.language:
            Event.write(self, "language_changed", f"user:{self.id}", as_of, note=f"from {self.language} to {language}")
            self.language = language

    # What staff do to a user

    @classmethod
    def search(cls, words: str, after: int, limit: int) -> "list[User]":
        """A page of users for staff: those whose name or address holds the words, by id."""
        found = sa.select(cls).where(cls.id > after).order_by(cls.id).limit(limit)
        if words:
            found = found.where(sa.or_(*(field.icontains(words, autoescape=True) for field in (cls.name, cls.email))))
        return list(db.session.scalars(found))

    @classmethod
    def hold(cls, user_id: int, by: "User | None" = None) -> "User | None":
        """The user, freshly read and locked until the transaction ends, and with it whoever is about to act."""
        both = sa.select(cls).where(cls.id.in_({user_id, by.id if by else user_id})).order_by(cls.id).with_for_update()
        held = {user.id: user for user in db.session.scalars(both.execution_options(populate_existing=True))}
        return held.get(user_id)

    def change_role(self, role: str, reason: str, by: "User", as_of: dt.datetime) -> None:
        """Silent when it is so already. Needs the user to be held."""
        self._require_power(by)
        if role == self.role:
            return
        if self.cases:
            raise Refused(
                gettext("%(name)s owns cases, which would be left without an owner. The role stays.", name=self.name)
            )
        Event.write(self, "role_changed", f"user:{by.id}", as_of, before=self.role, after=role, note=reason)
        self.role = role
        self.end_sessions(as_of)
        Invitation.take_back_all_of(self, f"user:{by.id}", as_of)

    def disable(self, reason: str, by: "User", as_of: dt.datetime) -> None:
        """Logged out everywhere, and every log-in is answered like a wrong password. Needs the user to be held."""
        self._require_power(by)
        if self.disabled_at is not None:
            return
        self.disabled_at = as_of
        self.end_sessions(as_of)
        Event.write(self, "disabled", f"user:{by.id}", as_of, note=reason)
        # A back door that was left open before would lead in again.
        Invitation.take_back_all_of(self, f"user:{by.id}", as_of)

    def enable(self, reason: str, by: "User", as_of: dt.datetime) -> None:
        """Silent when nothing was disabled. Needs the user to be held."""
        self._require_power(by)
        if self.erased_at is not None:
            raise Refused(gettext("This account is erased: there is nobody to let in any more."))
        if self.disabled_at is not None:
            self.disabled_at = None
            Event.write(self, "enabled", f"user:{by.id}", as_of, note=reason)

    def reset_second_factor(self, reason: str, by: "User | None", as_of: dt.datetime) -> None:
        """For somebody who has lost the app and the recovery codes. Nobody of staff does so to themselves: `by` is
        None for the operator's command. Silent when there is none. Needs the user to be held."""
        if by is not None:
            self._require_power(by)
        self._drop_second_factor("reset", f"user:{by.id}" if by else "operator", as_of, note=reason)

    # Leaving

    @property
    def case_to_answer_for(self) -> "Case | None":
        """One of those that need an owner until they are over."""
        return next((case for case in self.cases if case.status not in law.CASES_WITHOUT_OWNER), None)

    def require_erasable(self) -> None:
        """Raises Refused, in words for the person, while somebody has to answer for what they began, and for the last
        of staff."""
        begun = self.case_to_answer_for
        if begun is not None:
            raise Refused(
                gettext(
                    "You own a case that is not over: %(title)s. Cancel it, take it back or account for its money "
                    "first, or ask our staff.",
                    title=begun.title,
                )
            )
        if self.role == "staff" and all(one.id == self.id for one in User.with_role("staff")):
            raise Refused(gettext("You are the last of staff, so somebody else has to be one first."))

    def erase(self, by: str, as_of: dt.datetime) -> None:
        """Nothing says any more who this was; what they decided and published keeps "A former moderator" and the like.

        Safe twice. Needs the user to be held.
        """
        if self.erased_at is not None:
            return
        self.require_erasable()
        Invitation.take_back_all_of(self, by, as_of)
        addresses = self._addresses()
        letters = self._letters_about(addresses)
        # Those lines have the name of then, which may be another one than that of now.
        joined = sa.and_(Event.what == "editor_joined", Event.who == name_of(self))
        left = sa.and_(Event.what == "editor_left", Event.before == name_of(self))
        theirs = sa.and_(Event.subject_kind == "user", Event.subject_id == self.id)
        Event.empty_notes(sa.or_(joined, left, theirs))
        RecoveryCode.forget(self)
        for table in (PasswordReset, SignUp):
            db.session.execute(sa.delete(table).where(table.email.in_(addresses)))
        db.session.execute(sa.update(Invitation).where(Invitation.email.in_(addresses)).values(email=""))
        db.session.execute(sa.delete(Editor).where(Editor.user_id == self.id))
        self.email, self.name, self.bio, self.picture = f"erased-{self.id}@erased.invalid", FORMER[self.role], "", ""
        self.password_hash, self.second_factor_secret, self.second_factor_at = "", "", None
        self.language, self.disabled_at, self.erased_at = ENGLISH, self.disabled_at or as_of, as_of
        for about in (UserSession, EmailChange):
            db.session.execute(sa.delete(about).where(about.user_id == self.id))
        for case in self.cases:
            case.forget_owner()
        for address in addresses:
            letters += _forget_mailbox(address)
        Erasure.begin(self, letters, by, as_of)
        Event.write(self, "erased", by, as_of)

    def _addresses(self) -> set[str]:
        """This one, and those of before that are no other user's by now."""
        asked = EmailChange.user_id == self.id
        before = sa.union(
            sa.select(EmailChange.old_email).where(asked),
            sa.select(EmailChange.new_email).where(asked, EmailChange.made_at.is_not(None)),
        )
        others = sa.select(User.email).where(User.id != self.id)
        return ({*db.session.scalars(before)} - {"", *db.session.scalars(others)}) | {self.email}

    def _letters_about(self, addresses: set[str]) -> list[str]:
        """What letters to this person are about, as their rows name it."""
        about = [name_of(self)]
        for case in self.cases:
            about += [name_of(case), *(name_of(one) for one in case.rounds)]
        for table in (PasswordReset, SignUp, Invitation):
            about += [name_of(row) for row in db.session.scalars(sa.select(table).where(table.email.in_(addresses)))]
        changes = db.session.scalars(sa.select(EmailChange).where(EmailChange.user_id == self.id))
        return about + [name_of(change) for change in changes]

    def _require_power(self, by: "User") -> None:
        """Only staff act upon users, and never upon themselves. So the last of staff cannot be removed: whoever does
        it is another one, whose row is locked as well, so that two who remove each other come one after the other."""
        if by.role != "staff" or by.disabled_at is not None:
            raise Refused(gettext("You do not belong to staff any more. Nothing was changed."))
        if by.id == self.id:
            raise Refused(
                gettext(
                    "Nobody changes their own role, disables themselves, or resets their own second factor. "
                    "Ask somebody else of staff."
                )
            )

    def history(self) -> "list[Event]":
        found = sa.select(Event).where(Event.subject_kind == "user", Event.subject_id == self.id)
        return list(db.session.scalars(found.order_by(Event.id.desc())))

    @hybrid_property
    def name(self) -> str:
        """As the reader should read it: what stands in the place of an erased name is ours, so it can be said in the
        language of the page or the letter."""
        return gettext(self.written_name) if self.erased_at else self.written_name

    @name.inplace.setter
    def _name_setter(self, words: str) -> None:
        self.written_name = words

    @name.inplace.expression
    @classmethod
    def _name_expression(cls) -> sa.SQLColumnExpression[str]:
        return cls.written_name

    @property
    def initials(self) -> str:
        """Shown where there is no picture: "DD" for "Defend Digital Me"; signs and emoji have none."""
        letters = [next((letter for letter in word if letter.isalnum()), "") for word in self.name.split()]
        return "".join(letter.upper()[0] for letter in list(filter(None, letters))[:2])


# What stands in the place of a name that was erased.
FORMER = {
    "owner": N_("A former case owner"), "moderator": N_("A former moderator"), "staff": N_("A former member of staff"),
}  # fmt: skip


class RecoveryCode(Base):
    """A word that lets its owner in once when the app is lost. Only its hash is kept, and its row goes as it is used.

    It is drawn from so many that a fast hash is enough: nobody can try them all.
    """

    __tablename__ = "recovery_codes"
    __table_args__ = (sa.UniqueConstraint("user_id", "code_hash"),)

    id: Mapped[Key]
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    code_hash: Mapped[str] = mapped_column(sa.String(64))

    @classmethod
    def draw(cls, owner: User) -> list[str]:
        """New ones in the place of all before: 80 bits each, in groups of four."""
        cls.forget(owner)
        codes = [base64.b32encode(secrets.token_bytes(10)).decode().lower() for _ in range(law.RECOVERY_CODES)]
        db.session.add_all(cls(user_id=owner.id, code_hash=_hash_of_code(code)) for code in codes)
        return ["-".join(re.findall("....", code)) for code in codes]

    @classmethod
    def of(cls, owner: User) -> list[str]:
        """The hashes of those that were not used yet."""
        return list(db.session.scalars(sa.select(cls.code_hash).where(cls.user_id == owner.id)))

    @classmethod
    def are_of(cls, owner: User, codes: list[str]) -> bool:
        return {_hash_of_code(code) for code in codes} <= {*cls.of(owner)}

    @classmethod
    def take(cls, owner: User, typed: str) -> bool:
        """Whether this is one of them; it is none any more."""
        found = sa.delete(cls).where(cls.user_id == owner.id, cls.code_hash == _hash_of_code(typed))
        return bool(db.session.execute(found).rowcount)  # type: ignore[attr-defined]

    @classmethod
    def forget(cls, owner: User) -> None:
        db.session.execute(sa.delete(cls).where(cls.user_id == owner.id))


class UserSession(Base):
    """A log-in: whose, in which browser, from which network, and when it was last used.

    Its cookie carries a mark that is drawn anew at each log-in, and each time that somebody proves anew who they are;
    only its hash is kept here. So a log-in ends when its row says so, whoever has copied the cookie. Where a second
    factor comes after the password there is half a log-in first, which opens nothing but the page for the codes.
    """

    __tablename__ = "user_sessions"

    id: Mapped[Key]
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), index=True)
    mark_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    is_half: Mapped[bool]
    # For its owner to know it by: "Firefox, Linux", and the network without the last part of the address.
    browser: Mapped[str] = mapped_column(sa.String(60))
    network: Mapped[str] = mapped_column(sa.String(50))
    created_at: Mapped[dt.datetime] = mapped_column(index=True)
    # Written every few minutes at most: see law.SEEN_PAUSE.
    seen_at: Mapped[dt.datetime]
    ended_at: Mapped[dt.datetime | None]

    user: Mapped[User] = relationship()

    @classmethod
    def begin(cls, person: User, browser: str, network: str, as_of: dt.datetime, *, half: bool = False) -> str:
        """Returns the mark for the cookie, which nobody can read here again. Log-ins of long ago are forgotten.

        Needs the user to be held: whatever ends every log-in then ends this one as well, or is seen before it.
        """
        db.session.execute(sa.delete(cls).where(cls.created_at < as_of - law.LOG_INS_KEPT))
        mark = secrets.token_urlsafe(32)
        row = cls(user_id=person.id, mark_hash=_hash_of_mark(mark), is_half=half, browser=browser, network=network,
                  created_at=as_of, seen_at=as_of)  # fmt: skip
        db.session.add(row)
        return mark

    @classmethod
    def with_mark(cls, mark: str, as_of: dt.datetime, *, half: bool = False) -> Self | None:
        """The log-in of a cookie, with its user, in one query; None once it has ended, or was not used for too long."""
        found = sa.select(cls).where(cls.mark_hash == _hash_of_mark(mark), cls.is_half.is_(half))
        row = db.session.scalar(found.options(sa.orm.joinedload(cls.user, innerjoin=True)))
        return row if row and row.lives(as_of) else None

    @classmethod
    def numbered(cls, number: int, as_of: dt.datetime) -> Self | None:
        """The log-in freshly read; None once it has ended."""
        found = sa.select(cls).where(cls.id == number).execution_options(populate_existing=True)
        row = db.session.scalar(found)
        return row if row and row.lives(as_of) else None

    @classmethod
    def of_person(cls, person: User, number: int) -> Self | None:
        """One of this user's, whether it has ended or not."""
        return db.session.scalar(sa.select(cls).where(cls.id == number, cls.user_id == person.id))

    @classmethod
    def of(cls, person: User, as_of: dt.datetime) -> list[Self]:
        """Those that can be used now, the last one used first."""
        found = sa.select(cls).where(cls.user_id == person.id, cls.ended_at.is_(None), cls.is_half.is_(False))
        rows = db.session.scalars(found.order_by(cls.seen_at.desc(), cls.id.desc()))
        return [row for row in rows if row.lives(as_of)]

    def lives(self, as_of: dt.datetime) -> bool:
        """Whether the cookie still opens what it did: it lasts so long, and shorter while nobody uses it."""
        if self.ended_at is not None or self.user.disabled_at is not None:
            return False
        if self.is_half:
            return as_of - self.created_at <= law.HALF_LOG_IN_WAITS
        idle, longest = law.LOG_IN_LASTS[self.user.role]
        return as_of - self.seen_at <= idle and as_of - self.created_at <= longest

    def end(self, as_of: dt.datetime) -> None:
        """Silent when it has ended already."""
        self.ended_at = self.ended_at or as_of

    @classmethod
    def end_all(cls, person: User, as_of: dt.datetime) -> None:
        found = sa.update(cls).where(cls.user_id == person.id, cls.ended_at.is_(None))
        db.session.execute(found.values(ended_at=as_of))

    @classmethod
    def see(cls, number: int, as_of: dt.datetime) -> None:
        """It was used just now."""
        db.session.execute(sa.update(cls).where(cls.id == number, cls.ended_at.is_(None)).values(seen_at=as_of))


def _hash_of_mark(mark: str) -> str:
    """Fast, since nobody can try so many."""
    return hashlib.sha256(mark.encode()).hexdigest()


def _hash_of_code(typed: str) -> str:
    """Capitals, spaces and hyphens are nothing of it."""
    return hashlib.sha256(re.sub(r"[\s-]", "", typed).lower().encode()).hexdigest()


def _step_of(secret: str, digits: str, as_of: dt.datetime) -> int | None:
    """The step of 30 seconds whose digits these are: that of now, the one before or the one after, since clocks differ
    and people type slowly."""
    typed = re.sub(r"\s", "", digits)
    if not re.fullmatch("[0-9]{6}", typed):
        return None
    try:
        return pyotp.TOTP(secret).verify_and_get_timecode(typed, for_time=as_of, valid_window=1)
    except OTPVerificationError:
        return None


class SignUp(Base):
    """Somebody wants an account with an address, which may be anybody's, and has chosen a password for it.

    It becomes an account when somebody who reads the address types that password again: neither a stranger who only
    knows the address, nor whoever reads it and never asked, opens one. Nothing here says whether the address has an
    account already: that is found out by the job that writes the letter.
    """

    __tablename__ = "sign_ups"

    id: Mapped[Key]
    public_id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    email: Mapped[str] = mapped_column(sa.String(254))
    name: Mapped[str] = mapped_column(sa.String(120))
    password_hash: Mapped[str] = mapped_column(sa.String(200))
    asked_at: Mapped[dt.datetime] = mapped_column(index=True)
    confirmed_at: Mapped[dt.datetime | None]

    @classmethod
    def ask(cls, email: str, name: str, password_hash: str, as_of: dt.datetime, language: str = ENGLISH) -> "SignUp":
        """Owe the letter. What nobody has confirmed in time is forgotten."""
        _forget(cls, as_of - law.SIGN_UP_WAITS)
        asked = cls(public_id=secrets.token_urlsafe(16), email=email.lower(), name=name, password_hash=password_hash,
                    asked_at=as_of)  # fmt: skip
        db.session.add(asked)
        db.session.flush()
        Letter.owe("sign_up", asked, as_of.isoformat(), as_of, language=language)
        return asked

    @classmethod
    def by_link(cls, link: str) -> "SignUp | None":
        asked = db.session.scalar(sa.select(cls).where(cls.public_id == link.partition(".")[0]))
        return asked if asked and is_genuine(link, "sign-up", asked.public_id, 0) else None

    @classmethod
    def hold(cls, number: int) -> "SignUp":
        """The sign-up, freshly read, locked until the transaction ends."""
        found = sa.select(cls).where(cls.id == number).with_for_update()
        return db.session.scalars(found.execution_options(populate_existing=True)).one()

    def link(self) -> str:
        return signed_link("sign-up", self.public_id, 0)

    @property
    def is_known(self) -> bool:
        """Whether the address has an account."""
        return User.at(self.email) is not None

    def waits(self, as_of: dt.datetime) -> bool:
        """Whether the link still opens an account."""
        return self.confirmed_at is None and as_of - self.asked_at <= law.SIGN_UP_WAITS and not self.is_known

    def confirm(self, as_of: dt.datetime, language: str = ENGLISH) -> User:
        """Needs to be held."""
        if not self.waits(as_of):
            raise Refused(gettext("This link was used already, or it is too old. Log in, or sign up again."))
        self.confirmed_at = as_of
        user = User.admit(self.email, self.name, "owner", self.password_hash, as_of, language=language)
        Event.write(user, "signed_up", f"user:{user.id}", as_of)
        return user


class Invitation(Base):
    """Staff, or the operator, ask whoever reads an address to join with a role."""

    __tablename__ = "invitations"
    __table_args__ = (one_of("role", ROLES), NEVER_AGAIN)

    id: Mapped[Key]
    public_id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    email: Mapped[str] = mapped_column(sa.String(254), index=True)
    role: Mapped[str] = mapped_column(sa.String(20))
    # The case on which somebody is asked to work, by its owner.
    case_id: Mapped[int | None] = mapped_column(sa.ForeignKey("cases.id"), index=True)
    # Nobody for those of the operator's command.
    invited_by_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"), index=True)
    invited_at: Mapped[dt.datetime]
    accepted_at: Mapped[dt.datetime | None]
    taken_back_at: Mapped[dt.datetime | None]

    case: Mapped["Case | None"] = relationship()
    invited_by: Mapped[User | None] = relationship()

    @classmethod
    def to_case(
        cls, its_case: "Case", email: str, by: User, as_of: dt.datetime, language: str = ENGLISH
    ) -> "Invitation":
        """The owner of a case asks somebody to work on it. Needs the case to be held.

        The same for every address: whether somebody has an account here is nobody's to find out. Asked twice it is
        one invitation, as long as that works.
        """
        email = email.lower()
        found = sa.select(cls).where(cls.case_id == its_case.id, cls.email == email)
        if waiting := [one for one in db.session.scalars(found) if one.state(as_of) == "waiting"]:
            return waiting[0]
        if len(its_case.editor_invitations(as_of)) + len(its_case.editors) >= law.MOST_EDITORS:
            raise Refused(
                gettext("At most %(most)s people can work on a case beside its owner.", most=law.MOST_EDITORS)
            )
        return cls._write(email, "owner", by, as_of, language, case_id=its_case.id)

    @classmethod
    def send(cls, email: str, role: str, by: User | None, as_of: dt.datetime, language: str = ENGLISH) -> "Invitation":
        """Owe the letter, in the language of whoever invites. Raises Refused for whoever has an account, or an
        invitation that still works."""
        email = email.lower()
        if User.at(email) is not None:
            raise Refused(gettext("There is already a user with the address %(email)s.", email=email))
        if any(one.waits(as_of) for one in db.session.scalars(sa.select(cls).where(cls.email == email))):
            raise Refused(gettext("%(email)s is invited already. Take that invitation back first.", email=email))
        return cls._write(email, role, by, as_of, language)

    @classmethod
    def _write(cls, email: str, role: str, by: User | None, as_of: dt.datetime, language: str,
               case_id: int | None = None) -> Self:  # fmt: skip
        invitation = cls(public_id=secrets.token_urlsafe(16), email=email, role=role, case_id=case_id,
                         invited_by_id=by.id if by else None, invited_at=as_of)  # fmt: skip
        db.session.add(invitation)
        db.session.flush()
        Event.write(invitation, "invited", f"user:{by.id}" if by else "operator", as_of, after=role)
        Letter.owe("invitation", invitation, "sent", as_of, language=language)
        return invitation

    @classmethod
    def listed(cls) -> "list[Invitation]":
        """The newest hundred, for staff."""
        newest = sa.select(cls).order_by(cls.id.desc()).limit(100)
        return list(db.session.scalars(newest.options(sa.orm.joinedload(cls.invited_by))))

    @classmethod
    def by_link(cls, link: str) -> "Invitation | None":
        invitation = db.session.scalar(sa.select(cls).where(cls.public_id == link.partition(".")[0]))
        return invitation if invitation and is_genuine(link, "invitation", invitation.public_id, 0) else None

    @classmethod
    def hold(cls, number: int) -> "Invitation | None":
        """The invitation, freshly read, locked until the transaction ends."""
        found = sa.select(cls).where(cls.id == number).with_for_update()
        return db.session.scalar(found.execution_options(populate_existing=True))

    def link(self) -> str:
        return signed_link("invitation", self.public_id, 0)

    @property
    def runs_out_at(self) -> dt.datetime:
        return self.invited_at + law.INVITATION_WAITS

    def waits(self, as_of: dt.datetime) -> bool:
        """Whether the link still opens an account, or a case to somebody who has one."""
        reader = User.at(self.email)
        fits = reader is None or (
            self.case is not None and reader.role == "owner" and reader.disabled_at is None
            and not self.case.is_worked_on_by(reader)
        )  # fmt: skip
        return self.state(as_of) == "waiting" and fits

    def state(self, as_of: dt.datetime) -> str:
        if self.accepted_at is not None:
            return "accepted"
        if self.taken_back_at is not None:
            return "taken back"
        return "waiting" if as_of <= self.runs_out_at else "run out"

    def accept(self, name: str, password_hash: str, as_of: dt.datetime, language: str = ENGLISH) -> User:
        """Needs to be held."""
        if not self.waits(as_of):
            raise Refused(
                gettext("This invitation was used already, was taken back, or has run out. Ask for another one.")
            )
        self.accepted_at = as_of
        user = User.admit(self.email, name, self.role, password_hash, as_of, language=language)
        self._join_case(user, as_of)
        Event.write(self, "accepted", f"user:{user.id}", as_of)
        by = f"user:{self.invited_by_id}" if self.invited_by_id else "operator"
        Event.write(user, "invited", by, as_of, after=self.role)
        return user

    def accept_as(self, person: User, as_of: dt.datetime) -> None:
        """Somebody who has an account, and is logged in, takes up an invitation to a case. Needs to be held."""
        if self.case is None or person.email != self.email or not self.waits(as_of):
            raise Refused(
                gettext("This invitation was used already, was taken back, or has run out. Ask for another one.")
            )
        self.accepted_at = as_of
        self._join_case(person, as_of)
        Event.write(self, "accepted", f"user:{person.id}", as_of)

    def _join_case(self, person: User, as_of: dt.datetime) -> None:
        if self.case is not None and insert_once(Editor, case_id=self.case.id, user_id=person.id, added_at=as_of):
            Event.write(self.case, "editor_joined", f"user:{person.id}", as_of, note=person.name)

    def take_back(self, by: str, as_of: dt.datetime) -> None:
        """Silent when that was done. Needs to be held."""
        if self.accepted_at is not None:
            raise Refused(gettext("%(email)s has taken up this invitation already.", email=self.email))
        if self.taken_back_at is None:
            self.taken_back_at = as_of
            Event.write(self, "taken_back", by, as_of)

    @classmethod
    def take_back_all_of(cls, person: User, by: str, as_of: dt.datetime) -> None:
        """What somebody has invited who may do so no more."""
        found = sa.select(cls).where(cls.invited_by_id == person.id, cls.accepted_at.is_(None)).order_by(cls.id)
        for invitation in db.session.scalars(found.with_for_update().execution_options(populate_existing=True)):
            if invitation.state(as_of) == "waiting":
                invitation.take_back(by, as_of)


class Editor(Base):
    """Somebody who works on a case beside its owner."""

    __tablename__ = "editors"
    __table_args__ = (sa.UniqueConstraint("case_id", "user_id"),)

    id: Mapped[Key]
    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id"))
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), index=True)
    added_at: Mapped[dt.datetime]

    user: Mapped[User] = relationship()


class PasswordReset(Base):
    """Somebody has forgotten the password of an address, which may be anybody's.

    Nothing here says whether the address has an account: that is found out by the job that writes the letter.
    """

    __tablename__ = "password_resets"

    id: Mapped[Key]
    public_id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    email: Mapped[str] = mapped_column(sa.String(254), index=True)
    asked_at: Mapped[dt.datetime] = mapped_column(index=True)
    used_at: Mapped[dt.datetime | None]

    @classmethod
    def ask(cls, email: str, as_of: dt.datetime, language: str = ENGLISH) -> "PasswordReset":
        """Owe the letter. Addresses of more than a day ago are forgotten."""
        _forget(cls, as_of - dt.timedelta(days=1))
        asked = cls(public_id=secrets.token_urlsafe(16), email=email.lower(), asked_at=as_of)
        db.session.add(asked)
        db.session.flush()
        Letter.owe("password_reset", asked, as_of.isoformat(), as_of, language=language)
        return asked

    @classmethod
    def by_link(cls, link: str) -> "PasswordReset | None":
        asked = db.session.scalar(sa.select(cls).where(cls.public_id == link.partition(".")[0]))
        return asked if asked and is_genuine(link, "password-reset", asked.public_id, 0) else None

    @classmethod
    def hold(cls, number: int) -> "PasswordReset":
        """The reset, freshly read, with its user's row; both are locked until the transaction ends."""
        found = sa.select(cls).where(cls.id == number).with_for_update()
        reset = db.session.scalars(found.execution_options(populate_existing=True)).one()
        its_user = sa.select(User).where(User.email == reset.email).with_for_update()
        db.session.scalar(its_user.execution_options(populate_existing=True))
        return reset

    def link(self) -> str:
        return signed_link("password-reset", self.public_id, 0)

    def waits(self, as_of: dt.datetime) -> bool:
        """Whether the link still sets a password: it is the newest of its address, and none was set since."""
        user = User.at(self.email)
        if user is None or user.disabled_at is not None or self.used_at is not None:
            return False
        newer = sa.select(PasswordReset.id).where(PasswordReset.email == self.email, PasswordReset.id > self.id)
        in_time = as_of - self.asked_at <= law.RESET_WAITS and user.password_at <= self.asked_at
        return in_time and db.session.scalar(newer.limit(1)) is None

    def use(self, password_hash: str, as_of: dt.datetime) -> None:
        """Set the password, end every log-in, and say so by letter. Needs to be held."""
        user = User.at(self.email)
        if user is None or not self.waits(as_of):
            raise Refused(
                gettext("This link was used already, or it is too old. Ask for a new one, and use the newest letter.")
            )
        self.used_at = as_of
        user.set_password(password_hash, as_of)
        Event.write(user, "password_reset", f"user:{user.id}", as_of)
        Letter.owe("password_changed", user, as_of.isoformat(), as_of)


class EmailChange(Base):
    """A user wants to log in with another address, and to be written to there.

    It comes true when the reader of that address says so. The reader of the old one is told, and may take it back for
    some days: whoever did it knew the password, so that one works no more then, and everybody is logged out.
    """

    __tablename__ = "email_changes"
    __table_args__ = NEVER_AGAIN

    id: Mapped[Key]
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), index=True)
    public_id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    old_email: Mapped[str] = mapped_column(sa.String(254))
    new_email: Mapped[str] = mapped_column(sa.String(254))
    asked_at: Mapped[dt.datetime]
    made_at: Mapped[dt.datetime | None]
    taken_back_at: Mapped[dt.datetime | None]

    user: Mapped[User] = relationship()

    @classmethod
    def ask(cls, person: User, email: str, as_of: dt.datetime) -> Self:
        """Owe the letter to the new address. Needs the user to be held."""
        change = cls(user_id=person.id, public_id=secrets.token_urlsafe(16), old_email=person.email,
                     new_email=email.lower(), asked_at=as_of)  # fmt: skip
        db.session.add(change)
        db.session.flush()
        Event.write(person, "email_change_asked", f"user:{person.id}", as_of)
        Letter.owe("new_email", change, "asked", as_of)
        return change

    @classmethod
    def opened(cls, link: str, purpose: str, as_of: dt.datetime) -> Self | None:
        """The change of a link that still does what it is for: "new-email" for the reader of the new address,
        "old-email" for that of the old."""
        change = db.session.scalar(sa.select(cls).where(cls.public_id == link.partition(".")[0]))
        if change is None or not is_genuine(link, purpose, change.public_id, 0):
            return None
        works = change.waits(as_of) if purpose == "new-email" else change.may_be_taken_back(as_of)
        return change if works else None

    @classmethod
    def hold(cls, number: int) -> Self:
        """The change, freshly read, with its user held and its own row locked until the transaction ends."""
        User.hold(db.session.scalars(sa.select(cls.user_id).where(cls.id == number)).one())
        found = sa.select(cls).where(cls.id == number).with_for_update()
        return db.session.scalars(found.execution_options(populate_existing=True)).one()

    def link(self, purpose: str) -> str:
        return signed_link(purpose, self.public_id, 0)

    def waits(self, as_of: dt.datetime) -> bool:
        """Whether the reader of the new address may still say yes: nothing newer holds, and nobody else has it."""
        person = self.user
        if self.made_at is not None or as_of - self.asked_at > law.NEW_EMAIL_WAITS or person.disabled_at is not None:
            return False
        if person.email != self.old_email or person.password_at > self.asked_at or User.at(self.new_email):
            return False
        newer = sa.select(EmailChange.id).where(EmailChange.user_id == self.user_id, EmailChange.id > self.id)
        return db.session.scalar(newer.limit(1)) is None

    def make(self, as_of: dt.datetime) -> None:
        """The reader of the new address said yes. Needs to be held."""
        if not self.waits(as_of):
            raise Refused(gettext("This link was used already, or it is too old. Nothing was changed."))
        self._give(self.new_email)
        self.made_at = as_of
        Event.write(self.user, "email_changed", f"user:{self.user_id}", as_of)
        Letter.owe("email_left", self, "made", as_of)

    def may_be_taken_back(self, as_of: dt.datetime) -> bool:
        if self.made_at is None or self.taken_back_at is not None or self.user.disabled_at is not None:
            return False
        return as_of - self.made_at <= law.OLD_EMAIL_MAY_OBJECT and User.at(self.old_email) is None

    def take_back(self, as_of: dt.datetime) -> None:
        """The reader of the old address did not want this: it goes back, and so does all that was built upon it, with
        a second factor that came with it. A letter there leads to another password. Needs to be held."""
        if not self.may_be_taken_back(as_of):
            raise Refused(gettext("It is too late to take this back here. Please write to us."))
        since = sa.update(EmailChange).where(
            EmailChange.user_id == self.user_id, EmailChange.id >= self.id, EmailChange.taken_back_at.is_(None)
        )
        db.session.execute(since.values(taken_back_at=as_of))
        self._give(self.old_email)
        # A hash of nothing that anybody has typed: comparing with it takes as long as with any other.
        self.user.set_password(_NOBODYS_HASH, as_of)
        self.user.drop_second_factor_since(self.asked_at - law.SET_WITH_EMAIL, as_of)
        Event.write(self.user, "email_taken_back", f"user:{self.user_id}", as_of)
        PasswordReset.ask(self.old_email, as_of, self.user.language)

    def _give(self, email: str) -> None:
        """The unique address decides who comes first when two want it at once."""
        try:
            with db.session.begin_nested():
                self.user.email = email
        except sa.exc.IntegrityError:
            raise Refused(gettext("Somebody else has this address by now. Nothing was changed.")) from None


def _forget(table: type[SignUp | PasswordReset], before: dt.datetime) -> None:
    """What was asked for before then and was answered, or had nothing to be answered with."""
    kind = table.__tablename__.removesuffix("s")
    subject = sa.literal(f"{kind}:") + sa.cast(table.id, sa.String)
    waits = sa.exists().where(Letter.subject == subject, Letter.sent_at.is_(None))
    db.session.execute(sa.delete(table).where(table.asked_at < before, ~waits))


# --- Case --------------------------------------------------------------------------------------------------

# Ends of addresses below /owner/cases that are pages of ours.
RESERVED_SLUGS = ("new",)


# So many of the newest cases are looked at for the courts that readers may choose from.
COURTS_OF_NEWEST = 200

# What has become of a case, for staff who were about to decide it.
BECAME = {
    "draft": N_("it was taken back"),
    "submitted": N_("it was sent again"),
    "changes_requested": N_("changes were asked for"),
    "approved": N_("it was approved"),
    "live": N_("it was made live"),
    "rejected": N_("it was rejected"),
}


class AddressTaken(Refused):
    """Another case has this address."""


class Case(Base):
    """A legal case that asks for money: its story, its people and its rounds.

    Until it is live its owner writes it, and any part may be empty. `draft_version` counts the changes, so that
    nobody overwrites or decides on what they have not seen.
    """

    __tablename__ = "cases"
    __table_args__ = (
        one_of("status", law.CASE_MOVES),
        one_of("visibility", law.VISIBILITIES),
        sa.CheckConstraint(f"wanted_pence BETWEEN 1 AND {law.LARGEST_TARGET}", name="target_in_bounds"),
        sa.CheckConstraint(f"wanted_days BETWEEN 1 AND {law.LONGEST_ROUND.days}", name="length_in_bounds"),
        sa.CheckConstraint("wanted_days IS NULL OR wanted_end IS NULL", name="length_or_end"),
        sa.Index("ix_cases_of_status", "status", "live_at", "id"),
        sa.Index("ix_cases_of_court", "court", "status", "live_at", "id"),
        sa.Index("ix_cases_of_topic", "topic", "status", "live_at", "id"),
        sa.Index("ix_cases_of_owner", "owner_id", "status", "live_at", "id"),
        sa.CheckConstraint("status != 'approved' OR live_from IS NOT NULL", name="approved_for_a_time"),
        # The lists of readers and of staff, newest first.
        sa.Index("ix_cases_live_at_id", "live_at", "id"),
        NEVER_AGAIN,
    )

    id: Mapped[Key]
    slug: Mapped[str] = mapped_column(sa.String(80), unique=True)
    owner_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), index=True)
    title: Mapped[str] = mapped_column(sa.String(law.LONGEST_TITLE))
    summary: Mapped[str] = mapped_column(sa.Text)
    story: Mapped[str] = mapped_column(sa.Text)
    who_we_are: Mapped[str] = mapped_column(sa.Text)
    firm: Mapped[str] = mapped_column(sa.String(law.LONGEST_LINE))
    lawyer: Mapped[str] = mapped_column(sa.String(law.LONGEST_LINE))
    regulator_number: Mapped[str] = mapped_column(sa.String(law.LONGEST_LINE))
    # One of law.TOPICS, or "" while its owner has not said.
    topic: Mapped[str] = mapped_column(sa.String(20))
    court: Mapped[str] = mapped_column(sa.String(law.LONGEST_LINE))
    stage: Mapped[str] = mapped_column(sa.String(law.LONGEST_LINE))
    risks: Mapped[str] = mapped_column(sa.Text)
    # What the picture shows, for those who do not see it.
    picture_alt: Mapped[str] = mapped_column(sa.String(law.LONGEST_SUMMARY))
    # What its owner asks for. The round ends after so many days or at an instant; `zone` is for showing it.
    wanted_pence: Mapped[Pence | None] = mapped_column(sa.BigInteger)
    wanted_days: Mapped[int | None]
    wanted_end: Mapped[dt.datetime | None]
    zone: Mapped[str] = mapped_column(sa.String(60))
    status: Mapped[str] = mapped_column(sa.String(20))
    created_at: Mapped[dt.datetime]
    draft_version: Mapped[int]
    # The open page from which the draft was saved last, and when.
    draft_page: Mapped[str] = mapped_column(sa.String(40))
    saved_at: Mapped[dt.datetime | None]
    preview_version: Mapped[int]
    # How often it was sent for review, and what staff said last.
    submissions: Mapped[int]
    submitted_at: Mapped[dt.datetime | None]
    review_reason: Mapped[str] = mapped_column(sa.Text)
    live_from: Mapped[dt.datetime | None] = mapped_column(index=True)
    live_at: Mapped[dt.datetime | None]
    ended_at: Mapped[dt.datetime | None]
    ended_because: Mapped[str] = mapped_column(sa.Text)
    # Staff's switches, each with a reason in the history.
    pledging_paused: Mapped[bool]
    charges_frozen: Mapped[bool]
    comments_locked: Mapped[bool]
    visibility: Mapped[str] = mapped_column(sa.String(10))
    # The statement that stands in its place while that is "notice".
    notice: Mapped[str] = mapped_column(sa.Text)

    owner: Mapped[User] = relationship(back_populates="cases")
    editors: Mapped[list[Editor]] = relationship(order_by="Editor.id", viewonly=True)
    rounds: Mapped[list["Round"]] = relationship(back_populates="case", order_by="Round.id")
    updates: Mapped[list["Update"]] = relationship(back_populates="case", order_by="Update.id.desc()")
    budget: Mapped[list["BudgetLine"]] = relationship(order_by="BudgetLine.position", cascade="all, delete-orphan")
    links: Mapped[list["DocumentLink"]] = relationship(order_by="DocumentLink.position", cascade="all, delete-orphan")
    # Until when its breaker, or the site's, lets pledging rest. Only read along with what its pages show.
    rests_until: Mapped[dt.datetime | None] = sa.orm.query_expression()
    pictures: Mapped[list["Picture"]] = relationship(
        back_populates="case", cascade="all, delete-orphan", order_by="Picture.id"
    )
    report: Mapped["FinalReport | None"] = relationship(back_populates="case")

    @classmethod
    def draft(cls, owner: User, slug: str, title: str, summary: str, story: str, firm: str, as_of: dt.datetime,
              **more: str) -> "Case":  # fmt: skip
        """A new case that nobody but its owner can see. Without a slug its address is made from the title.

        Raises Refused when the address is taken.
        """
        words = dict.fromkeys(law.NEEDED_WORDS, "") | {"zone": current_app.config["STANDING"].display_zone, **more}
        words |= {"title": title, "summary": summary, "story": story, "firm": firm}
        slug = slug or cls._free_slug(title)
        case = cls(
            owner_id=owner.id, status="draft", created_at=as_of, ended_because="", pledging_paused=False,
            charges_frozen=False, comments_locked=False, visibility="public", notice="", draft_version=1,
            draft_page="", preview_version=1, submissions=0, review_reason="", picture_alt="", **words,
        )  # fmt: skip
        case._move_to(slug)
        return case

    @classmethod
    def begin(cls, owner: User, title: str, as_of: dt.datetime) -> "Case":
        """A new draft of this title, or the one that its owner has begun and not touched yet: a button that is pressed
        twice begins one case."""
        db.session.execute(sa.select(User.id).where(User.id == owner.id).with_for_update())
        untouched = sa.and_(cls.status == "draft", cls.draft_version == 1)
        found = sa.select(cls).where(cls.owner_id == owner.id, cls.title == title, untouched).order_by(cls.id)
        return db.session.scalars(found).first() or cls.draft(owner, "", title, "", "", "", as_of)

    @classmethod
    def hold(cls, case_id: int) -> Self:
        """The case, freshly read, with its row locked until the transaction ends."""
        found = sa.select(cls).where(cls.id == case_id).with_for_update()
        held = db.session.scalar(found.execution_options(populate_existing=True))
        if held is None:
            # Somebody else may have had its page open.
            raise Refused(gettext("This draft was deleted meanwhile."))
        return held

    @classmethod
    def _free_slug(cls, title: str) -> str:
        """An address made of the title's letters and digits that nobody has yet: "whose-data", "whose-data-2"."""
        letters = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower().replace("'", "")
        words = re.sub(r"[^a-z0-9]+", "-", letters)[: law.LONGEST_SLUG - 6].strip("-") or "case"
        taken = {*RESERVED_SLUGS, *db.session.scalars(sa.select(cls.slug).where(cls.slug.startswith(words)))}
        return next(slug for n in itertools.count(1) if (slug := f"{words}-{n}" if n > 1 else words) not in taken)

    def _move_to(self, slug: str) -> None:
        """Take an address. Raises Refused when another case has it, or takes it at this very moment."""
        taken = sa.select(Case.id).where(Case.slug == slug)
        with db.session.no_autoflush:
            if slug in RESERVED_SLUGS or db.session.scalar(taken) is not None:
                raise AddressTaken(gettext("There is already a case at %(address)s.", address=f"/cases/{slug}"))
        try:
            with db.session.begin_nested():
                self.slug = slug
                db.session.add(self)
                db.session.flush()
        except sa.exc.IntegrityError as taken_now:
            raise AddressTaken(
                gettext("There is already a case at %(address)s.", address=f"/cases/{slug}")
            ) from taken_now

    # Writing it

    def write(self, values: dict[str, Any], seen: int, as_of: dt.datetime, *, page: str = "",
              pressed: bool = True) -> None:  # fmt: skip
        """Store what its owner has written; what is not among the values stays. Needs the case to be held.

        `seen` is the version that the open page shows, `page` its own key. Raises Refused, and stores nothing, when
        the draft was saved elsewhere since. What a button sends is the newest of its page, so there it may be older
        than what the same page has just saved by itself.
        """
        self.require_writable()
        if seen != self.draft_version and not (pressed and page and page == self.draft_page):
            at = law.clock_words(self.saved_at or self.created_at, self.zone)
            raise Refused(gettext("This draft was saved elsewhere at %(at)s, so nothing was overwritten.", at=at))
        if (slug := values.get("slug", self.slug)) != self.slug:
            self._move_to(slug or self._free_slug(str(values.get("title", self.title))))
        columns = {name: value for name, value in values.items() if name not in ("slug", "budget", "links")}
        changed = [name for name, value in columns.items() if getattr(self, name) != value]
        for name in changed:
            setattr(self, name, columns[name])
        if self._write_rows(values) or changed or slug != self.slug:
            self.draft_version += 1
            self.draft_page, self.saved_at = page, as_of

    def _write_rows(self, values: dict[str, Any]) -> bool:
        """Store the tables among the values, whole; returns whether one of them is another now."""
        budget = [(line.words, line.pence) for line in self.budget]
        links = [(link.title, link.url) for link in self.links]
        if other_budget := bool(values.get("budget", budget) != budget):
            self.budget = [BudgetLine(position=n, words=w, pence=p) for n, (w, p) in enumerate(values["budget"])]
        if other_links := bool(values.get("links", links) != links):
            self.links = [DocumentLink(position=n, title=t, url=u) for n, (t, u) in enumerate(values["links"])]
        return other_budget or other_links

    def picture(self, size: str) -> "Picture | None":
        """Its picture in one size, if it has one."""
        return next((one for one in self.pictures if one.size == size), None)

    def hang_picture(self, drawings: "Iterable[Drawing]", alt: str, as_of: dt.datetime) -> None:
        """Take this picture instead of the one before; without drawings only its description. Needs it to be held."""
        self.require_writable()
        if new := Picture.of_drawings(drawings):
            self.take_picture_down(as_of)
            self.pictures = new
        self.picture_alt = alt
        self.draft_version += 1
        self.saved_at = as_of

    def take_picture_down(self, as_of: dt.datetime) -> None:
        """Needs the case to be held. Silent when it has none."""
        self.require_writable()
        if self.pictures:
            self.pictures, self.picture_alt = [], ""
            self.draft_version += 1
            self.saved_at = as_of
            db.session.flush()

    def delete(self, by: User, as_of: dt.datetime) -> None:
        """Throw a draft away, with all that belongs to it; a line of the history keeps that there was one, and no words
        of it. Needs it to be held."""
        self.require_writable()
        Event.empty_notes(Event.case_id == self.id)
        Event.write(self, "draft_deleted", f"user:{by.id}", as_of)
        for table in (Invitation, Editor):
            db.session.execute(sa.delete(table).where(table.case_id == self.id))
        db.session.delete(self)

    def require_writable(self) -> None:
        """Raises Refused while staff read it, and once it is decided: what they decide on is what they have read."""
        if self.status in ("submitted", "approved"):
            raise Refused(gettext("This case is with our staff, so it cannot be changed. Take it back first."))
        if self.status not in law.WRITABLE_CASES:
            raise Refused(gettext("This case is no draft any more, so it cannot be changed here."))

    @classmethod
    def by_preview_link(cls, link: str) -> Self | None:
        """The case of a private link to its draft, or None when the link was altered or replaced."""
        number, _, _ = link.partition(".")
        if not (number.isascii() and number.isdecimal() and len(number) < 10):
            return None
        case = db.session.get(cls, int(number))
        return case if case and is_genuine(link, "draft", number, case.preview_version) else None

    def preview_link(self) -> str:
        """Whoever has it sees the draft as it is at that moment, without a log-in: for the lawyer."""
        return signed_link("draft", str(self.id), self.preview_version)

    def replace_preview_link(self, by: User, as_of: dt.datetime) -> None:
        """The link of before opens nothing any more."""
        self.preview_version += 1
        Event.write(self, "preview_link_replaced", f"user:{by.id}", as_of)

    def is_seen_by(self, person: User) -> bool:
        """Whether somebody may see it before it is public."""
        return person.role == "staff" or self.is_worked_on_by(person)

    def forget_owner(self) -> None:
        """Its owner was erased. What was published stays, found by other words; what nobody ever saw goes."""
        if self.status in law.UNSEEN_CASES:
            self.slug = f"erased-{self.id}"
            for name in (*law.NEEDED_WORDS, "picture_alt", "review_reason"):
                setattr(self, name, "")
            self.budget, self.links, self.pictures = [], [], []
            self.draft_version += 1
            Event.empty_notes(Event.case_id == self.id)
            return
        db.session.execute(sa.delete(CaseWords).where(CaseWords.case_id == self.id))
        CaseWords.write(self)
        if db.engine.dialect.name == "sqlite":
            # Its index keeps what was deleted until it is written anew.
            db.session.execute(sa.text("INSERT INTO case_search(case_search) VALUES ('rebuild')"))

    # Its people

    @classmethod
    def of(cls, person: User) -> sa.ColumnElement[bool]:
        """For a query: those that somebody owns or helps to edit."""
        return sa.or_(
            cls.owner_id == person.id, cls.id.in_(sa.select(Editor.case_id).where(Editor.user_id == person.id))
        )

    def is_worked_on_by(self, person: User) -> bool:
        return person.id == self.owner_id or any(editor.user_id == person.id for editor in self.editors)

    def editor_invitations(self, as_of: dt.datetime) -> list[Invitation]:
        """Those that were not taken up yet, the newest first."""
        found = sa.select(Invitation).where(Invitation.case_id == self.id).order_by(Invitation.id.desc())
        return [one for one in db.session.scalars(found) if one.state(as_of) == "waiting"]

    def remove_editor(self, user_id: int, by: User, as_of: dt.datetime) -> None:
        """By the owner, or by whoever leaves. Silent when that was done. What they have written stays."""
        found = sa.select(Editor).where(Editor.case_id == self.id, Editor.user_id == user_id)
        if (editor := db.session.scalar(found)) is not None:
            # The line says by number who it was, too: the name may be another one by the time that it is to be erased.
            Event.write(self, "editor_left", f"user:{by.id}", as_of, before=name_of(editor.user), note=editor.user.name)
            db.session.delete(editor)

    def note_writer(self, by: User, as_of: dt.datetime) -> None:
        """That somebody has written on the draft: one line in an hour, since a draft keeps itself again and again."""
        mine = sa.and_(Event.subject_kind == "case", Event.subject_id == self.id, Event.who == f"user:{by.id}")
        last = sa.select(sa.func.max(Event.at)).where(mine, Event.what == "written")
        if (before := db.session.scalar(last)) is None or before <= as_of - dt.timedelta(hours=1):
            Event.write(self, "written", f"user:{by.id}", as_of)

    def desk_history(self, size: int) -> "list[tuple[Event, str]]":
        """(line, who) of what was done to the case, its promise and its updates, newest first; staff have no names."""
        its_rounds = sa.select(Round.id).where(Round.case_id == self.id)
        belongs: dict[str, Any] = {"case": [self.id], "round": its_rounds}
        belongs |= {"update": sa.select(Update.id).where(Update.case_id == self.id)}
        belongs |= {"promise_change": sa.select(PromiseChange.id).where(PromiseChange.round_id.in_(its_rounds))}
        of_it = (sa.and_(Event.subject_kind == kind, Event.subject_id.in_(ids)) for kind, ids in belongs.items())
        found = sa.select(Event).where(sa.or_(*of_it)).order_by(Event.id.desc()).limit(size)
        lines = list(db.session.scalars(found))
        people = Event.people(lines)

        def name(who: str) -> str:
            person = people.get(who)
            return gettext(who) if person is None else person.name if person.role == "owner" else gettext("staff")

        return [(line, name(line.who)) for line in lines]

    @property
    def budget_pence(self) -> int:
        return sum(line.pence or 0 for line in self.budget)

    def wanted_deadline(self, as_of: dt.datetime) -> dt.datetime:
        """When its round ends if it goes live now. Raises Refused while nobody has said so, or when it cannot be."""
        if self.wanted_days is not None:
            deadline = law.deadline_after(self.wanted_days, self.zone, as_of)
        elif self.wanted_end is not None:
            deadline = self.wanted_end
        else:
            raise Refused(gettext("Say how long the round is, or when it ends."))
        law.check_deadline(deadline, as_of)
        return deadline

    def prospect(self, as_of: dt.datetime) -> "Prospect":
        """The round as its page would show it if it went live now."""
        try:
            return Prospect(self.wanted_pence, self.wanted_deadline(as_of), self.zone)
        except Refused:
            return Prospect(self.wanted_pence, None, self.zone)

    def missing(self, as_of: dt.datetime) -> list[tuple[str, str]]:
        """What must still be done before it can be reviewed: (field of the draft's form, words)."""
        found = [(name, gettext(words)) for name, words in law.NEEDED_WORDS.items() if not getattr(self, name).strip()]
        if not self.budget:
            found.append(("budget-0-words", gettext("Say what the money is for, in at least one line.")))
        for n, line in enumerate(self.budget):
            if not line.words or not line.pence:
                what = "words" if not line.words else "amount"
                found.append(
                    (
                        f"budget-{n}-{what}",
                        gettext("Line %(number)s of the budget needs words and an amount.", number=n + 1),
                    )
                )
        if self.wanted_pence is None:
            found.append(("target", gettext("Enter the target.")))
        try:
            self.wanted_deadline(as_of)
        except Refused as why:
            found.append(("end_date" if self.wanted_end else "days", str(why)))
        for n, link in enumerate(self.links):
            if not link.title or not link.url:
                what = "title" if not link.title else "url"
                found.append(
                    (f"links-{n}-{what}", gettext("Document %(number)s needs a title and an address.", number=n + 1))
                )
        if self.pictures and not self.picture_alt:
            found.append(("alt", gettext("Say what the picture shows.")))
        return found

    @classmethod
    def found(cls, among: list[int] | None = None, state: str = "all", *, court: str = "", topic: str = "",
              owner_id: int | None = None, after: int = 0, limit: int = 20) -> "list[Case]":  # fmt: skip
        """Public cases in one of `law.CASE_FILTERS`, of all or `among` what CaseWords.holding() found: newest first,
        or the nearest deadline where that is "ending-soon", and of all cases the live ones first.
        `after` is the last one of the page before.
        """
        fits = {cls.court: court, cls.topic: topic, cls.owner_id: owner_id}
        narrowed = {column: value for column, value in fits.items() if value}
        if state != "all":
            return cls._found(among, state, narrowed, after, limit)
        last = db.session.get(cls, after) if after else None
        has_live = last is None or last.status == "live"
        found = cls._found(among, "live", narrowed, after, limit) if has_live else []
        if len(found) < limit:
            found += cls._found(among, "ended", narrowed, 0 if has_live else after, limit - len(found))
        return found

    @classmethod
    def _found(cls, among: list[int] | None, state: str, narrowed: dict[Any, Any], after: int,
               limit: int) -> "list[Case]":  # fmt: skip
        """Whatever is asked for is read from an index in its own order, so that a page costs the same among any number
        of cases, however rare what is asked for is."""
        soon, states = state == "ending-soon", law.CASE_FILTERS[state]
        place: tuple[Any, ...] = (Round.deadline, Round.id) if soon else (cls.live_at, cls.id)
        last, fits = cls._place_of(after, place), [column == value for column, value in narrowed.items()]
        if among is not None:
            # By their numbers: an index of anything else would lead through more than these.
            fits = [sa.cast(column, column.type) == value for column, value in narrowed.items()]
            asked = sa.select(cls).where(cls.id.in_(among), cls._is_found(), cls._is_in(states), *fits)
            if soon:
                is_open = sa.func.coalesce(Round.status, "") == "open"
                asked = asked.join(Round, sa.and_(Round.case_id == cls.id, is_open))
            asked = cls._after(asked, place, last, forward=soon)
        elif soon:
            open_rounds = sa.and_(Round.case_id == cls.id, Round.status == "open")
            asked = sa.select(cls).join(Round, open_rounds).where(cls._is_found(), cls._is_in(states), *fits)
            asked = cls._after(asked, place, last, forward=True)
        else:
            asked = cls._newest_of_each(states, fits, last, limit)
        return list(db.session.scalars(asked.limit(limit).options(
            sa.orm.selectinload(cls.rounds), sa.orm.selectinload(cls.pictures), sa.orm.joinedload(cls.owner),
            cls._read_rest_along(),
        )))  # fmt: skip

    @classmethod
    def _newest_of_each(cls, states: Iterable[str], fits: list[sa.ColumnElement[bool]], last: tuple[Any, ...] | None,
                        limit: int) -> "sa.Select[Case]":  # fmt: skip
        """The newest, put together from the newest of each state: an index has the cases of one state in order."""
        place = (cls.live_at, cls.id)
        public: Any = sa.select(*place).where(cls.visibility == "public", *fits)
        of_each = [
            cls._after(public.where(cls.status == one), place, last, forward=False).limit(limit).subquery()
            for one in sorted(states)
        ]
        newest = sa.union_all(*(sa.select(one) for one in of_each)).subquery()
        asked = sa.select(cls).join(newest, newest.c.id == cls.id)
        return asked.order_by(newest.c.live_at.desc(), newest.c.id.desc())

    @classmethod
    def _place_of(cls, number: int, place: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Where a case stands in an order; it need not be listed any more."""
        if not number:
            return None
        found = sa.select(*place).select_from(cls).join(Round, Round.case_id == cls.id).where(cls.id == number)
        row = db.session.execute(found.order_by(Round.id.desc())).first()
        return None if row is None or None in row else tuple(row)

    @classmethod
    def _after(cls, asked: sa.Select[Any], place: tuple[Any, ...], last: tuple[Any, ...] | None,
               forward: bool) -> sa.Select[Any]:  # fmt: skip
        """In this order, and only what comes after one place in it."""
        if last:
            here = sa.tuple_(*place)
            there = sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(last, place, strict=True)))
            asked = asked.where(here > there if forward else here < there)
        return asked.order_by(*(column if forward else column.desc() for column in place))

    @classmethod
    def courts(cls) -> list[str]:
        """The courts of the newest cases, for choosing one: the most cases first, at most twenty."""
        newest = (
            sa.select(cls.court)
            .where(cls._is_found())
            .order_by(cls.live_at.desc(), cls.id.desc())
            .limit(COURTS_OF_NEWEST)
        )
        court = newest.subquery().c.court
        most = sa.select(court).where(court != "").group_by(court).order_by(sa.func.count().desc(), court)
        return list(db.session.scalars(most.limit(20)))

    @classmethod
    def newest(cls, limit: int) -> "list[Case]":
        """The public cases that went live last, newest first."""
        found = sa.select(cls).where(cls._is_found()).order_by(cls.live_at.desc(), cls.id.desc()).limit(limit)
        return list(db.session.scalars(found.options(sa.orm.joinedload(cls.owner))))

    @classmethod
    def in_site_map(cls) -> list[str]:
        """The addresses of all public cases, newest first, as many as one site map may hold."""
        found = sa.select(cls.slug).where(cls._is_found()).order_by(cls.id.desc()).limit(law.LARGEST_SITE_MAP)
        return list(db.session.scalars(found))

    @classmethod
    def _is_found(cls) -> sa.ColumnElement[bool]:
        """Whether lists, feeds and site maps name it. A cancelled case can only be opened by its address."""
        return sa.and_(cls._is_in(law.LISTED_CASES), cls.visibility == "public")

    @classmethod
    def _is_in(cls, states: Iterable[str]) -> sa.ColumnElement[bool]:
        """Whether it is in one of these states, without the index of states: lists go by that of the newest cases, and
        SQLite would sort all cases of a state instead."""
        return sa.func.coalesce(cls.status, "").in_(states)

    @classmethod
    def owned_by(cls, owner: User, limit: int, before: int = 0) -> list[Self]:
        """A page of cases for their owner, and for whoever helps to edit them: the newest first."""
        found = sa.select(cls).where(cls.of(owner), cls.id < before if before else sa.true())
        newest = found.order_by(cls.id.desc()).limit(limit)
        return list(db.session.scalars(newest.options(sa.orm.selectinload(cls.rounds))))

    @classmethod
    def public(cls, slug: str) -> "Case | None":
        """The case at this address if strangers may see it."""
        return cls._at(slug, "public")

    @classmethod
    def whole(cls, slug: str) -> "Case | None":
        """As public, with all that its page shows, in five queries however many updates and pictures there are."""
        together = sa.orm.joinedload(cls.rounds).joinedload(Round.changes)
        apart = (sa.orm.selectinload(part) for part in (cls.budget, cls.links, cls.updates))
        found = db.session.scalars(cls._seen(slug, "public").options(sa.orm.joinedload(cls.owner), together, *apart))
        if case := found.unique().one_or_none():
            case._hang_all_pictures()
        return case

    def _hang_all_pictures(self) -> None:
        """Look for its own picture and those of its updates at once."""
        shown = sa.or_(Picture.case_id == self.id, Picture.update_id.in_([update.id for update in self.updates]))
        found = list(db.session.scalars(sa.select(Picture).where(shown)))
        sa.orm.attributes.set_committed_value(self, "pictures", [one for one in found if one.case_id == self.id])
        for update in self.updates:
            its_own = [one for one in found if one.update_id == update.id]
            sa.orm.attributes.set_committed_value(update, "pictures", its_own)

    @classmethod
    def under_notice(cls, slug: str) -> "Case | None":
        """The case at this address if strangers see a statement in its place."""
        return cls._at(slug, "notice")

    @classmethod
    def _at(cls, slug: str, visibility: str) -> "Case | None":
        return db.session.scalar(cls._seen(slug, visibility))

    @classmethod
    def _seen(cls, slug: str, visibility: str) -> "sa.Select[Case]":
        seen = sa.and_(cls.status.not_in(law.HIDDEN_CASES), cls.visibility == visibility)
        return sa.select(cls).where(cls.slug == slug, seen).options(cls._read_rest_along())

    @classmethod
    def _read_rest_along(cls) -> Any:
        """Fill `rests_until` of each case by the query that reads it."""
        either = sa.or_(Breaker.case_id == cls.id, Breaker.case_id.is_(None))
        until = sa.select(sa.func.max(Breaker.until)).where(Breaker.status == "paused", either).scalar_subquery()
        return sa.orm.with_expression(cls.rests_until, until)

    def is_paused(self, as_of: dt.datetime) -> bool:
        """Whether pledging is paused, by staff or because cards are being tried out, as far as its page has read."""
        return self.pledging_paused or (self.rests_until is not None and self.rests_until > as_of)

    @classmethod
    def numbered(cls, number: int) -> "Case | None":
        """The case of a short address if strangers may see it, or a statement in its place."""
        found = db.session.get(cls, number)
        return found if found and found.status not in law.HIDDEN_CASES and found.visibility != "hidden" else None

    @property
    def is_public(self) -> bool:
        """Whether strangers may see it."""
        return self.status not in law.HIDDEN_CASES and self.visibility == "public"

    @classmethod
    def begun(cls, limit: int, words: str = "", after: str = "") -> "tuple[list[Case], str]":
        """The cases that ever had a round, for staff, the newest first: a page of those whose title or address holds
        the words, and where the next page begins, or ""."""
        found = sa.select(cls).where(cls.live_at.is_not(None)).order_by(cls.live_at.desc(), cls.id.desc())
        if (place := _moment_and_number(after)) is not None:
            moment, number = place
            earlier = sa.or_(cls.live_at < moment, sa.and_(cls.live_at == moment, cls.id < number))
            found = found.where(cls.live_at <= moment, earlier)
        both = sa.orm.joinedload(cls.rounds), sa.orm.joinedload(cls.owner)
        cases, last = page_of(found, words_in(words, cls.title, cls.slug), limit, *both)
        return cases, _place(last.live_at, last.id) if last and last.live_at else ""

    @property
    def round(self) -> "Round":
        """The round that the page speaks of: the newest."""
        return self.rounds[-1]

    def hold_round(self) -> "Round":
        """Its round, locked, and the case itself as it stands now that nobody else can decide it."""
        held = Round.hold(self.round.id)
        db.session.refresh(self)
        return held

    # Review

    @property
    def review_mark(self) -> str:
        """Another one whenever there is something that staff should see before they decide."""
        return f"{self.status}.{self.submissions}.{self.draft_version}"

    @property
    def review(self) -> str:
        """How letters and jobs speak of the review that it is in, or was in last."""
        return f"review:{self.submissions}"

    @classmethod
    def in_review(cls, limit: int = 50) -> list[Self]:
        """Those that wait for staff, the longest first; then those that are approved and wait for their time."""
        found = sa.select(cls).where(cls.status.in_(("submitted", "approved"))).options(
            sa.orm.joinedload(cls.budget), sa.orm.joinedload(cls.owner)
        )  # fmt: skip
        waits_longest = found.order_by(cls.status.desc(), cls.submitted_at, cls.id).limit(limit)
        return list(db.session.scalars(waits_longest).unique())

    @classmethod
    def due_live(cls, as_of: dt.datetime) -> list[int]:
        """The ids of those whose time to go live has come."""
        found = sa.select(cls.id).where(cls.status == "approved", cls.live_from <= as_of)
        return list(db.session.scalars(found.order_by(cls.live_from, cls.id)))

    def submit(self, by: User, as_of: dt.datetime) -> None:
        """Send it for review, and tell staff. Needs it to be held. Silent when it waits for them already."""
        if self.status == "submitted":
            return
        self.require_writable()
        if self.missing(as_of):
            raise Refused(gettext("Something is missing still, so the case was not sent. The list says what it is."))
        self.submissions += 1
        self.submitted_at = as_of
        self._move("submitted", f"user:{by.id}", as_of)
        Letter.owe_staff("case_submitted", f"{name_of(self)}:{self.review}", as_of)

    def take_back(self, by: User, as_of: dt.datetime) -> None:
        """Its owner goes on writing; staff have nothing to decide until it is sent again. Needs it to be held."""
        self.live_from = None
        self._move("draft", f"user:{by.id}", as_of)

    def approve(self, by: User, as_of: dt.datetime, seen: str, live_from: dt.datetime | None = None) -> None:
        """Staff let it go live, at once or at a later time. `seen` is the mark of what they have read.

        Needs it to be held. Raises Refused when it is not as they saw it, or when its round could not be.
        """
        self._require_seen(seen)
        if live_from is None:
            self._publish(f"user:{by.id}", as_of)
            return
        if not as_of < live_from <= as_of + law.LONGEST_WAIT:
            raise Refused(gettext("The time must lie ahead, by at most %(days)s days.", days=law.LONGEST_WAIT.days))
        self.wanted_deadline(live_from)
        self.live_from = live_from
        self._move("approved", f"user:{by.id}", as_of, note=_noted(live_from, self.zone))
        Letter.owe("case_approved", self, self.review, as_of)

    def ask_changes(self, reason: str, by: User, as_of: dt.datetime, seen: str) -> None:
        """Back to its owner, who sees why. Needs it to be held."""
        self._require_seen(seen)
        self._give_back("changes_requested", reason, f"user:{by.id}", as_of)
        Letter.owe("case_changes", self, self.review, as_of)

    def reject(self, reason: str, by: User, as_of: dt.datetime, seen: str) -> None:
        """For good; its owner sees why. Needs it to be held."""
        self._require_seen(seen)
        self._give_back("rejected", reason, f"user:{by.id}", as_of)
        Letter.owe("case_rejected", self, self.review, as_of)

    def launch(self, as_of: dt.datetime) -> None:
        """By the clock: the time that staff have set has come. Needs it to be held; safe twice.

        Its deadline is computed now. If that has become impossible it does not go live: it goes back to its owner,
        and staff are told as well.
        """
        if self.status != "approved" or self.live_from is None or self.live_from > as_of:
            return
        try:
            self._publish("clock", as_of)
        except Refused as why:
            reason = f"It could not go live at the time that was set. {why}"
            self._give_back("changes_requested", reason, "clock", as_of)
            Letter.owe("case_not_live", self, self.review, as_of)
            Letter.owe_staff("case_not_live_staff", f"{name_of(self)}:{self.review}", as_of)

    def _publish(self, by: str, as_of: dt.datetime) -> None:
        if self.wanted_pence is None:
            raise Refused(gettext("This case has no target."))
        self.go_live(self.wanted_pence, self.wanted_deadline(as_of), self.zone, by, as_of)
        Letter.owe("case_live", self, self.review, as_of)

    def _give_back(self, to: str, reason: str, by: str, as_of: dt.datetime) -> None:
        self._move(to, by, as_of, note=reason)
        self.review_reason, self.live_from = reason, None

    def _require_seen(self, seen: str) -> None:
        """Raises Refused, with what has become of it and by whom, unless it is as the person who decides saw it."""
        if seen == self.review_mark and self.status in ("submitted", "approved"):
            return
        last = next((event for event in self.history() if event.after), None)
        person = db.session.get(User, int(last.who[5:])) if last and last.who.startswith("user:") else None
        became = gettext(BECAME.get(self.status, N_("it has ended")))
        if person is None:
            raise Refused(gettext("This case is not as you saw it: %(became)s. Nothing was done.", became=became))
        raise Refused(
            gettext(
                "This case is not as you saw it: %(became)s by %(name)s. Nothing was done.",
                became=became,
                name=person.name,
            )
        )

    def go_live(self, target_pence: int, deadline: dt.datetime, zone: str, by: str, as_of: dt.datetime) -> "Round":
        """Publish the case with its first round. The deadline is an instant, the zone is for showing it."""
        law.check_target(target_pence)
        law.check_deadline(deadline, as_of)
        if self.status == "draft":
            # The operator brings a case that needs no review.
            self._move("submitted", by, as_of)
        self._move("live", by, as_of)
        self.live_at = as_of
        opened = Round(
            case=self, kind="initial", target_pence=target_pence, deadline=deadline, zone=zone, status="open",
            pledged_pence=0, pledge_count=0, version=1, trouble="",
        )  # fmt: skip
        db.session.add(opened)
        db.session.flush()
        CaseWords.write(self)
        return opened

    def cancel(self, reason: str, by: str, as_of: dt.datetime) -> None:
        """Stop the case. Before its round was decided every pledge is released and nobody is charged.

        While the pledges of a met round are being charged the rest is released, each only after Stripe has said that
        it is not paid and never can be (see `stopped`). What was charged stays charged, for staff to refund, and its
        supporter is told; the round stays met.
        """
        its_round = self.hold_round()
        if its_round.status in ("open", "closing"):
            its_round.release_all("cancelled", by, as_of)
        elif self.status == "funded" and its_round.stop_all(by, as_of):
            its_round.tell_charged_of_cancellation(as_of)
        elif its_round.status == "met":
            raise Refused(
                gettext("This case's round has already been decided, and no pledge of it waits to be charged.")
            )
        else:
            raise Refused(gettext("This case's round has already been decided."))
        self.ended_because = reason
        self.end("cancelled", by, as_of)
        waiting = sa.select(Update).where(Update.case_id == self.id, Update.status == "scheduled").order_by(Update.id)
        for update in db.session.scalars(waiting.with_for_update().execution_options(populate_existing=True)):
            update.hold_back(by, as_of)

    def call_off(self, reason: str, by: User, as_of: dt.datetime) -> None:
        """Its owner ends the case before its deadline: every pledge is released, nobody is charged, staff are told.

        Silent when it is cancelled already. Once the deadline has passed only staff can cancel it.
        """
        its_round = self.hold_round()
        if self.status == "cancelled":
            return
        if not its_round.is_open(as_of):
            raise Refused(
                gettext("The deadline has passed, so you can no longer cancel this case yourself. Write to us.")
            )
        self.cancel(reason, f"user:{by.id}", as_of)
        Letter.owe_staff("case_called_off", name_of(self), as_of)

    def switch(self, what: str, on: bool, reason: str, by: User, as_of: dt.datetime) -> None:
        """Turn a switch of staff's: `pledging_paused`, `charges_frozen` or `comments_locked`. Silent when it stands
        so already. Raises Refused for a pause of pledging that is over anyway; one that stands can always be ended."""
        its_round = self.hold_round()
        if getattr(self, what) == on:
            return
        if what == "pledging_paused" and on and not its_round.is_open(as_of):
            raise Refused(gettext("Nobody can pledge for this case any more, so there is nothing to pause."))
        frozen_at = self.frozen_at()
        setattr(self, what, on)
        if frozen_at and self.charges:
            its_round.charges_go_on(frozen_at, f"user:{by.id}", as_of)
        # What the public page shows of it is a change of the round's panel.
        its_round.version += 1
        ended = "" if on else "_ended"
        Event.write(self, f"{what}{ended}", f"user:{by.id}", as_of, note=reason)

    def show_as(self, visibility: str, notice: str, reason: str, by: User, as_of: dt.datetime) -> None:
        """Let strangers see the case, a notice in its place, or nothing. Silent when it stands so already.

        This is about its words alone. Nobody can pledge meanwhile; what was pledged stands, and is charged as
        promised unless staff freeze the charges or cancel the case.
        """
        its_round = self.hold_round()
        if (visibility, notice) == (self.visibility, self.notice):
            return
        self.visibility, self.notice = visibility, notice
        its_round.version += 1
        note = f"{reason} The notice: “{notice}”" if notice else reason
        Event.write(self, f"shown_as_{visibility}", f"user:{by.id}", as_of, note=note)
        Letter.owe("case_visibility", self, f"version:{its_round.version}", as_of)

    @property
    def charges(self) -> bool:
        """Whether cards may be charged: staff have neither frozen nor cancelled it."""
        return not self.charges_frozen and self.status != "cancelled"

    def frozen_at(self) -> dt.datetime | None:
        """Since when staff have frozen the charges; None when they have not."""
        if not self.charges_frozen:
            return None
        of_case = sa.and_(Event.subject_kind == "case", Event.subject_id == self.id)
        return db.session.scalar(sa.select(sa.func.max(Event.at)).where(of_case, Event.what == "charges_frozen"))

    @classmethod
    def stopped_among(cls, case_ids: Iterable[int]) -> frozenset[int]:
        """Those of these cases whose cards may not be charged any more, or not now."""
        return frozenset(db.session.scalars(sa.select(cls.id).where(cls.id.in_(case_ids), sa.not_(cls.may_charge()))))

    @classmethod
    def may_charge(cls) -> sa.ColumnElement[bool]:
        """As `charges`, for a query."""
        return sa.and_(sa.not_(cls.charges_frozen), cls.status != "cancelled")

    def history(self, size: int | None = None) -> "list[Event]":
        """What happened to the case, to its round and to the round's promise, newest first; all, or so many lines."""
        of_case = sa.and_(Event.subject_kind == "case", Event.subject_id == self.id)
        of_rounds = sa.and_(Event.subject_kind == "round", Event.subject_id.in_([one.id for one in self.rounds]))
        changes = [change.id for one in self.rounds for change in one.changes]
        of_changes = sa.and_(Event.subject_kind == "promise_change", Event.subject_id.in_(changes))
        mine = of_case | of_rounds | of_changes
        return list(db.session.scalars(sa.select(Event).where(mine).order_by(Event.id.desc()).limit(size)))

    def whole_history(self, size: int, before: int = 0) -> "list[Event]":
        """A page of all that happened to the case and to whatever belongs to it, newest first."""
        found = sa.select(Event).where(Event.case_id == self.id).order_by(Event.id.desc()).limit(size)
        return list(db.session.scalars(found.where(Event.id < before) if before else found))

    @classmethod
    def search(cls, words: str, limit: int, before: int = 0) -> tuple[list[Self], int]:
        """For staff, the newest first: a page of those in whose title, address or owner's name the words stand, or
        whose owner's address it is; and the number before which the next page begins, or 0."""
        found = sa.select(cls).where(cls.id < before if before else sa.true()).order_by(cls.id.desc())
        owners = sa.or_(User.name.icontains(words, autoescape=True), User.email == words.lower())
        fields = (field.icontains(words, autoescape=True) for field in (cls.title, cls.slug))
        cases, last = page_of(found, sa.or_(*fields, cls.owner.has(owners)), limit, sa.orm.joinedload(cls.owner))
        return cases, last.id if last else 0

    def end(self, status: str, by: str, as_of: dt.datetime) -> None:
        self._move(status, by, as_of)
        self.ended_at = as_of

    def _move(self, to: str, by: str, as_of: dt.datetime, note: str = "") -> None:
        move(self, law.CASE_MOVES, to, by, as_of, note=note)

    def published_updates(self) -> "list[Update]":
        """Newest first."""
        return [update for update in self.updates if update.status == "published"]

    def public_comments(self, limit: int = 50, before: int = 0) -> "list[Comment]":
        """The newest that the public may see, or the newest before one of them; oldest first, so that a talk can be
        read."""
        found = sa.select(Comment).where(Comment.case_id == self.id, Comment.public_body.is_not(None))
        # What moderators know of it, half of the row, is not read.
        found = found.options(sa.orm.load_only(
            Comment.name, Comment.public_body, Comment.created_at, Comment.decided_at, Comment.answer,
            Comment.answered_at, Comment.language,
        ))  # fmt: skip
        if before:
            found = found.where(Comment.id < before)
        return list(db.session.scalars(found.order_by(Comment.id.desc()).limit(limit)))[::-1]

    def take_comment(
        self, name: str, email: str, body: str, as_of: dt.datetime, *, network: str = "", trapped: bool = False,
        language: str = ENGLISH,
    ) -> "Comment":  # fmt: skip
        """A new comment that waits for a moderator. The same words from the same person stay one comment.

        Only of a comment that is new may the caller show the private link: whoever sends the same words again may
        be somebody who has read them on the page and guesses the address. `network` stands for the sender's network
        of today, `trapped` says that a field which no reader sees was filled in.
        """
        self.require_comments()
        # Where many rows are changed together nothing is sent by itself, and here others are looked for.
        db.session.flush()
        said = "\0".join((name.casefold(), email.casefold(), " ".join(body.split())))
        digest = hashlib.sha256(said.encode()).hexdigest()
        is_new = insert_once(
            Comment, case_id=self.id, public_id=secrets.token_urlsafe(12), name=name, email=email.lower(), body=body,
            digest=digest, status="pending", reason="", note="", resubmitted=False, version=1, created_at=as_of,
            waits_since=as_of, likeness=law.likeness(body), network=network, signs=[], risk=0, calm=0, undoable={},
            reports=0, language=language,
        )  # fmt: skip
        found = sa.select(Comment).where(Comment.case_id == self.id, Comment.digest == digest)
        taken = db.session.scalars(found).one()
        taken.is_new = is_new
        if is_new:
            taken.look_for_signs(trapped, as_of)
        return taken

    def require_comments(self) -> None:
        """Raises Refused while staff have closed the comments; what was published before stays."""
        if self.comments_locked:
            raise Refused(gettext("Comments on this case are closed, so nothing was sent."))

    def answerable_comments(self, before: int = 0, limit: int = 50) -> "list[Comment]":
        """A page of the comments that the public sees, for the case owner: the newest, or those before one."""
        found = sa.select(Comment).where(Comment.case_id == self.id, Comment.public_body.is_not(None))
        if before:
            found = found.where(Comment.id < before)
        return list(db.session.scalars(found.order_by(Comment.id.desc()).limit(limit)))

    def messages(self, before: int = 0, limit: int = 50) -> "list[Pledge]":
        """A page of the pledges that came with a message, newest first, for the case owner alone.

        Only of pledges that counted and were not taken back: what became of the others is not the owner's to know.
        """
        its_rounds = [its_round.id for its_round in self.rounds]
        found = sa.select(Pledge).where(
            Pledge.round_id.in_(its_rounds), Pledge.message.is_not(None), Pledge.confirmed_at.is_not(None),
            Pledge.status != "cancelled",
        )  # fmt: skip
        if before:
            found = found.where(Pledge.id < before)
        found = found.options(sa.orm.joinedload(Pledge.comment))
        return list(db.session.scalars(found.order_by(Pledge.id.desc()).limit(limit)))

    def update_reader_ids(self) -> list[int]:
        """One pledge for each address that asked for updates and whose pledge counted, whatever became of it."""
        asked = sa.select(sa.func.max(Pledge.id)).join(Round).where(
            Round.case_id == self.id, Pledge.confirmed_at.is_not(None), Pledge.status != "cancelled",
            Pledge.wants_updates,
        ).group_by(Pledge.email_lowered)  # fmt: skip
        return sorted(db.session.scalars(asked))

    def update_readers(self) -> "list[Pledge]":
        """The pledges of update_reader_ids."""
        found = sa.select(Pledge).where(Pledge.id.in_(self.update_reader_ids()))
        return list(db.session.scalars(found.order_by(Pledge.id)))

    def begin_update(self, author: User, form_key: str, as_of: dt.datetime) -> "Update":
        """The update of a form; the same form sent again finds the one that it began. Needs the case to be held.

        Raises Refused before the case is live.
        """
        if self.live_at is None:
            raise Refused(gettext("This case is not live yet. Updates can be posted once it is."))
        known = db.session.scalar(sa.select(Update).where(Update.form_key == form_key).with_for_update())
        if known is not None and known.case_id != self.id:
            raise Refused(gettext("This form belongs to another case. Open the page of the case and write there."))
        if known is not None:
            return known
        update = Update(
            case=self, author=author, form_key=form_key, title="", body="", picture_alt="", audience="everyone",
            status="draft", created_at=as_of, version=0, page="", saved_at=as_of,
        )  # fmt: skip
        db.session.add(update)
        db.session.flush()
        return update

    def publish_update(self, author: User, title: str, body: str, as_of: dt.datetime,
                       audience: str = "everyone") -> "Update":  # fmt: skip
        """Post an update in one step, for commands and tests; the owner's desk goes by way of a draft."""
        update = self.begin_update(author, secrets.token_urlsafe(24), as_of)
        update.write({"title": title, "body": body, "audience": audience}, update.version, as_of)
        update.publish(f"user:{author.id}", as_of)
        return update

    # After the money has come in

    @classmethod
    def silent(cls, as_of: dt.datetime) -> list[Self]:
        """Those that got their money and whose owner has told supporters nothing for long, nor was reminded of it."""
        since = as_of - law.SILENCE
        decided = sa.exists().where(Round.case_id == cls.id, Round.settled_at <= since)
        told = sa.exists().where(Update.case_id == cls.id, Update.status == "published", Update.published_at > since)
        mine = sa.literal("case:") + sa.cast(cls.id, sa.String)
        reminded = sa.exists().where(
            Letter.kind == "update_reminder", Letter.subject == mine, Letter.created_at > since
        )
        found = sa.select(cls).where(cls.status == "funded", decided, ~told, ~reminded)
        return list(db.session.scalars(found.order_by(cls.id)))

    def is_silent(self, as_of: dt.datetime) -> bool:
        """Whether a reminder of this instant is still to the point."""
        since = as_of - law.SILENCE
        told = any(update.published_at and update.published_at > since for update in self.published_updates())
        return self.status == "funded" and not told

    def fees_pence(self) -> int:
        """What Stripe kept, as far as its balance was compared with the books."""
        return -sum(pence for _, _, pence, _ in Tally.of(f"case:{self.id}"))

    def came_in_pence(self) -> int:
        """What is left of what was charged: without what went back, by us or by a bank, and what Stripe kept."""
        figures = self.round.figures()
        return figures.charged - figures.refunded - figures.charged_back - self.fees_pence()

    def require_reportable(self) -> None:
        """Raises Refused, in words for its owner, unless it can be accounted for: what came in must be known first."""
        if self.status == "closed":
            raise Refused(gettext("The final report is published. It stays as it is."))
        if self.status != "funded":
            raise Refused(
                gettext(
                    "A final report says what became of the money. It can be written once a case has reached its "
                    "target and the cards are charged."
                )
            )
        figures = self.round.figures()
        if figures.waiting or figures.repairing:
            raise Refused(
                gettext(
                    "Some pledges are still being charged or repaired. The report can be published once each has "
                    "come to its end, at most eight days after the deadline."
                )
            )

    def publish_report(
        self, author: User, body: str, lines: list[tuple[str, int]], as_of: dt.datetime
    ) -> "FinalReport":
        """The outcome and the use of the money, for good; the case is closed by it, and who wants updates is told.

        Sent twice it is one report.
        """
        self.hold_round()
        if self.report is not None:
            return self.report
        self.require_reportable()
        report = FinalReport(case=self, author_id=author.id, body=body, published_at=as_of)
        report.lines = [ReportLine(position=n, words=words, pence=pence) for n, (words, pence) in enumerate(lines)]
        db.session.add(report)
        db.session.flush()
        self._move("closed", f"user:{author.id}", as_of)
        for pledge in self.update_readers():
            Letter.owe("final_report", pledge, f"report:{report.id}", as_of)
        return report


@dataclass(frozen=True)
class Prospect:
    """The round that a case would have if it went live now, for those who look at its draft; what is not known is
    None. It has the figures of a round to which nobody has pledged yet."""

    target_pence: int | None
    deadline: dt.datetime | None
    zone: str
    status: str = "open"
    pledged_pence: int = 0
    shown_pence: int = 0
    shown_count: int = 0
    percent: int = 0
    promise_change: None = None


class BudgetLine(Base):
    """One line of what the money of a case is for; half of it may be missing while it is a draft."""

    __tablename__ = "budget_lines"
    __table_args__ = (sa.CheckConstraint(f"pence BETWEEN 1 AND {law.LARGEST_TARGET}", name="pence_in_bounds"),)

    id: Mapped[Key]
    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id"), index=True)
    position: Mapped[int]
    words: Mapped[str] = mapped_column(sa.String(law.LONGEST_LINE))
    pence: Mapped[Pence | None] = mapped_column(sa.BigInteger)


class DocumentLink(Base):
    """A document of a case, at its https address; half of it may be missing while it is a draft."""

    __tablename__ = "document_links"

    id: Mapped[Key]
    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id"), index=True)
    position: Mapped[int]
    title: Mapped[str] = mapped_column(sa.String(law.LONGEST_LINE))
    url: Mapped[str] = mapped_column(sa.String(law.LONGEST_URL))


class CaseWords(Base):
    """The words by which a case is found, without capitals and accents; written when it goes live.

    The database keeps an index of them (migration 0002): FTS5 in SQLite, GIN in PostgreSQL.
    """

    __tablename__ = "case_words"

    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id"), primary_key=True)
    words: Mapped[str] = mapped_column(sa.Text)

    @classmethod
    def write(cls, case: Case) -> None:
        about = (
            case.title,
            case.owner.name,
            case.summary,
            case.story,
            case.who_we_are,
            case.firm,
            case.lawyer,
            case.court,
        )
        insert_once(cls, case_id=case.id, words=" ".join(search_words(" ".join(about), most=None)))

    @classmethod
    def holding(cls, text: str) -> list[int] | None:
        """The numbers of the cases in which each word of the text begins a word, the newest first, at most
        MATCHES_LOOKED_THROUGH; None of a text without a word."""
        sought = search_words(text)
        if not sought:
            return None
        if db.engine.dialect.name == "sqlite":
            number: Any = sa.column("rowid", sa.Integer)
            matches = sa.literal_column("case_search").op("MATCH")(" ".join(f'"{word}"*' for word in sought))
            asked = sa.select(number).select_from(sa.table("case_search")).where(matches)
        else:
            simple: sa.ColumnClause[str] = sa.literal_column("'simple'")
            query = sa.func.to_tsquery(simple, " & ".join(f"{word}:*" for word in sought))
            number = cls.case_id
            asked = sa.select(number).where(sa.func.to_tsvector(simple, cls.words).op("@@")(query))
        return list(db.session.scalars(asked.order_by(number.desc()).limit(MATCHES_LOOKED_THROUGH)))


def search_words(text: str, most: int | None = 10) -> list[str]:
    """The words of a text as they are searched: small letters and digits, without accents; the first so many."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return re.findall(r"[^\W_]+", plain.casefold())[:most]


class Picture(Base):
    """The picture of a case or of an update in one size, as we have drawn it. It lies here so that a backup holds it
    too."""

    __tablename__ = "pictures"
    __table_args__ = (
        one_of("size", ("large", "small")),
        sa.UniqueConstraint("case_id", "size"),
        sa.UniqueConstraint("update_id", "size"),
        sa.CheckConstraint("(case_id IS NULL) != (update_id IS NULL)", name="of_one_thing"),
    )

    id: Mapped[Key]
    case_id: Mapped[int | None] = mapped_column(sa.ForeignKey("cases.id"))
    update_id: Mapped[int | None] = mapped_column(sa.ForeignKey("updates.id"))
    size: Mapped[str] = mapped_column(sa.String(10))
    # Of the content: its address, so that what lies there never changes.
    sha256: Mapped[str] = mapped_column(sa.String(64), index=True)
    media_type: Mapped[str] = mapped_column(sa.String(20))
    width: Mapped[int]
    height: Mapped[int]
    content: Mapped[bytes] = mapped_column(sa.LargeBinary, deferred=True)

    case: Mapped[Case | None] = relationship(back_populates="pictures")
    update: Mapped["Update | None"] = relationship(back_populates="pictures")

    @classmethod
    def with_hash(cls, sha256: str) -> list[Self]:
        """Those with this content: two cases may have the same."""
        found = sa.select(cls).where(cls.sha256 == sha256).options(
            sa.orm.joinedload(cls.case), sa.orm.joinedload(cls.update).joinedload(Update.case)
        )  # fmt: skip
        return list(db.session.scalars(found))

    @property
    def is_public(self) -> bool:
        """Whether a page that is there for everybody shows it."""
        if self.update is not None:
            return self.update.is_for_everyone and self.update.case.is_public
        return self.case is not None and self.case.is_public

    def is_seen_by(self, person: User) -> bool:
        """Whether somebody who is logged in may see it before it is public."""
        case = self.update.case if self.update is not None else self.case
        return case is not None and case.is_seen_by(person)

    @classmethod
    def of_drawings(cls, drawings: "Iterable[Drawing]") -> list[Self]:
        return [
            cls(size=one.size, sha256=one.sha256, media_type=one.media_type, width=one.width, height=one.height,
                content=one.content)
            for one in drawings
        ]  # fmt: skip


class Update(Base):
    """News by the case owner, in Markdown: a draft, until it is published by a button or by the clock.

    `version` counts the changes, so that nobody overwrites or publishes what they have not seen; `form_key` is the
    one of the form that began it.
    """

    __tablename__ = "updates"
    __table_args__ = (
        one_of("status", law.UPDATE_MOVES),
        one_of("audience", law.AUDIENCES),
        sa.CheckConstraint("status != 'scheduled' OR publish_at IS NOT NULL", name="scheduled_for_a_time"),
        sa.CheckConstraint("status != 'published' OR published_at IS NOT NULL", name="published_at_a_time"),
        NEVER_AGAIN,
    )

    id: Mapped[Key]
    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id"), index=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    form_key: Mapped[str] = mapped_column(sa.String(64), unique=True)
    title: Mapped[str] = mapped_column(sa.String(160))
    body: Mapped[str] = mapped_column(sa.Text)
    # What its picture shows, for those who do not see it.
    picture_alt: Mapped[str] = mapped_column(sa.String(law.LONGEST_SUMMARY))
    audience: Mapped[str] = mapped_column(sa.String(20))
    status: Mapped[str] = mapped_column(sa.String(20))
    version: Mapped[int]
    # The open page from which it was saved last, and when.
    page: Mapped[str] = mapped_column(sa.String(40))
    saved_at: Mapped[dt.datetime]
    created_at: Mapped[dt.datetime]
    # When the clock publishes it.
    publish_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    published_at: Mapped[dt.datetime | None]
    edited_at: Mapped[dt.datetime | None]

    case: Mapped[Case] = relationship(back_populates="updates")
    author: Mapped[User] = relationship()
    pictures: Mapped[list[Picture]] = relationship(
        back_populates="update", cascade="all, delete-orphan", order_by="Picture.id"
    )

    @classmethod
    def hold(cls, update_id: int) -> Self:
        """The update, freshly read, with its row locked until the transaction ends."""
        found = sa.select(cls).where(cls.id == update_id).with_for_update()
        return db.session.scalars(found.execution_options(populate_existing=True)).one()

    @classmethod
    def due(cls, as_of: dt.datetime) -> list[int]:
        """The ids of those that the clock is to publish at this instant; while staff have taken the case out of sight
        they wait."""
        found = sa.select(cls.id).join(Case).where(cls.status == "scheduled", cls.publish_at <= as_of)
        found = found.where(Case.visibility == "public")
        return list(db.session.scalars(found.order_by(cls.publish_at, cls.id)))

    @property
    def is_for_everyone(self) -> bool:
        """Whether the public may read it, now."""
        return self.status == "published" and self.audience == "everyone"

    def picture(self, size: str) -> Picture | None:
        """Its picture in one size, if it has one."""
        return next((one for one in self.pictures if one.size == size), None)

    def missing(self) -> list[tuple[str, str]]:
        """(field, what its owner is asked to do) for what is needed before it can be published."""
        found = [("title", gettext("Enter a title."))] if not self.title else []
        found += [("body", gettext("Enter the text of your update."))] if not self.body else []
        no_words = self.pictures and not self.picture_alt
        return found + ([("alt", gettext("Say what the picture shows."))] if no_words else [])

    # Writing it

    def write(self, values: dict[str, Any], seen: int, as_of: dt.datetime, *, page: str = "",
              pressed: bool = True) -> None:  # fmt: skip
        """Store what its owner has written; what is not among the values stays. Needs it to be held.

        As for a draft of a case, `seen` is the version that the open page shows, and what a button sends is the
        newest of its page. Raises Refused, and stores nothing, when it was saved elsewhere since.
        """
        self.require_draft()
        # Before anything was stored there is nothing to overwrite.
        if self.version and seen != self.version and not (pressed and page and page == self.page):
            at = law.clock_words(self.saved_at, self.case.zone)
            raise Refused(gettext("This update was saved elsewhere at %(at)s, so nothing was overwritten.", at=at))
        if changed := [name for name, value in values.items() if getattr(self, name) != value]:
            for name in changed:
                setattr(self, name, values[name])
            self.version += 1
            self.page, self.saved_at = page, as_of

    def hang_picture(self, drawings: "Iterable[Drawing]", alt: str, by: User, as_of: dt.datetime) -> None:
        """Take this picture instead of the one before; without drawings only its description. Needs it to be held."""
        if new := Picture.of_drawings(drawings):
            self.take_picture_down(by, as_of)
            self.pictures = new
        elif alt == self.picture_alt:
            return
        self.picture_alt = alt
        self._changed(by, as_of)

    def take_picture_down(self, by: User, as_of: dt.datetime) -> None:
        """Needs it to be held. Silent when it has none."""
        self._require_unscheduled()
        if self.pictures:
            self.pictures, self.picture_alt = [], ""
            self._changed(by, as_of)
            db.session.flush()

    def edit(self, title: str, body: str, by: User, as_of: dt.datetime) -> None:
        """Change a published update; readers see that it was edited. Saving it unchanged leaves no mark."""
        if self.status != "published":
            raise Refused(gettext("This update is not published yet. Change its draft instead."))
        if (title, body) != (self.title, self.body):
            self.title, self.body = title, body
            self._changed(by, as_of)

    def _changed(self, by: User, as_of: dt.datetime) -> None:
        self._require_unscheduled()
        self.version += 1
        self.page, self.saved_at = "", as_of
        if self.status == "published" and self.edited_at != as_of:
            self.edited_at = as_of
            Event.write(self, "edited", f"user:{by.id}", as_of)

    def require_draft(self) -> None:
        """Raises Refused once it is published or waits for its time: what goes out is what its owner looked at."""
        self._require_unscheduled()
        if self.status != "draft":
            raise Refused(gettext("This update is published by now. Open it again to change it."))

    def _require_unscheduled(self) -> None:
        if self.status == "scheduled":
            raise Refused(gettext("This update waits for its time, so it cannot be changed. Take it back first."))

    # Publishing it

    def publish(self, by: str, as_of: dt.datetime, seen: int | None = None) -> None:
        """Readers see it from now on, and everybody who asked for updates is owed a letter, once.

        Needs it to be held; silent when it is published. `seen` is the version that its owner looked at.
        """
        if self.status == "published":
            return
        self._require_ready(seen)
        move(self, law.UPDATE_MOVES, "published", by, as_of)
        self.published_at, self.publish_at = as_of, None
        Letter.owe_all("update", self.case.update_reader_ids(), name_of(self), as_of)

    def publish_later(self, at: dt.datetime, by: User, as_of: dt.datetime, seen: int | None = None) -> None:
        """Let the clock publish it. Needs it to be held. Raises Refused for a time that cannot be."""
        if self.status == "scheduled" and self.publish_at == at:
            return
        self.require_draft()
        if self.case.status == "cancelled":
            raise Refused(
                gettext(
                    "This case is cancelled, so nothing is published by the clock any more. Publish it now, or "
                    "keep it as a draft."
                )
            )
        law.check_publication(at, as_of)
        self._require_ready(seen)
        self.publish_at = at
        move(self, law.UPDATE_MOVES, "scheduled", f"user:{by.id}", as_of, note=_noted(at, self.case.zone))

    def publish_by_the_clock(self, as_of: dt.datetime) -> None:
        """The time that was set has come. Needs it to be held; safe twice, and silent when it was taken back."""
        if self.status != "scheduled" or self.publish_at is None or self.publish_at > as_of:
            return
        if self.case.status == "cancelled":
            # It was set for its time in the moment in which the case was cancelled.
            self.hold_back("clock", as_of)
        else:
            self.publish("clock", as_of)

    def hold_back(self, by: str, as_of: dt.datetime) -> None:
        """Its case was cancelled while it waited: it may say what is no longer so, so it is a draft again, and the
        owner is told. Needs it to be held."""
        self.publish_at = None
        move(self, law.UPDATE_MOVES, "draft", by, as_of, note="The case was cancelled.")
        Letter.owe("update_held_back", self.case, name_of(self), as_of)

    def take_back(self, by: User, as_of: dt.datetime) -> None:
        """Its owner goes on writing, as long as it is not published. Needs it to be held."""
        self.publish_at = None
        move(self, law.UPDATE_MOVES, "draft", f"user:{by.id}", as_of)

    def delete(self, by: User, as_of: dt.datetime) -> None:
        """Throw a draft away, with its picture; a line of the case's history keeps its title. Needs it to be held."""
        self.require_draft()
        note = self.title or "An update without a title"
        Event.write(self.case, "update_draft_deleted", f"user:{by.id}", as_of, note=note)
        db.session.delete(self)

    def _require_ready(self, seen: int | None) -> None:
        if seen not in (None, self.version):
            raise Refused(
                gettext("This update was changed since you opened this page, so nothing was published. Look again.")
            )
        if self.missing():
            raise Refused(
                gettext(
                    "Something is missing still, so nothing was published. %(missing)s", missing=self.missing()[0][1]
                )
            )
        if not self.case.is_public:
            raise Refused(
                gettext("Our staff have taken this case out of sight, so nothing was published. The draft is kept.")
            )


class FinalReport(Base):
    """What became of a case and of its money, in Markdown and a table. It is written once and stays."""

    __tablename__ = "final_reports"

    id: Mapped[Key]
    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id"), unique=True)
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    body: Mapped[str] = mapped_column(sa.Text)
    published_at: Mapped[dt.datetime]

    case: Mapped[Case] = relationship(back_populates="report")
    lines: Mapped[list["ReportLine"]] = relationship(order_by="ReportLine.position")

    @property
    def spent(self) -> list[tuple[str, int]]:
        """(what for, pence) of each line."""
        return [(line.words, line.pence) for line in self.lines]


class ReportLine(Base):
    """One line of what the money was used for."""

    __tablename__ = "report_lines"
    __table_args__ = (sa.CheckConstraint(f"pence BETWEEN 1 AND {law.LARGEST_TARGET}", name="pence_in_bounds"),)

    id: Mapped[Key]
    report_id: Mapped[int] = mapped_column(sa.ForeignKey("final_reports.id"), index=True)
    position: Mapped[int]
    words: Mapped[str] = mapped_column(sa.String(law.LONGEST_LINE))
    pence: Mapped[Pence]


# --- Round -------------------------------------------------------------------------------------------------

# Why nobody can pledge just now -> the words for whoever tries.
HALTED = {
    "rests": N_(
        "Pledging is paused for a while, so nothing was done. Please come back in an hour. Pledges that were made "
        "before stand, and can be cancelled as promised."
    ),
    "paused": N_(
        "Pledging for this case is paused, so nothing was done. Pledges that were made before stand, and can be "
        "cancelled as promised."
    ),
}


class Round(Base):
    """One target with one deadline. Whoever confirms, cancels, changes or settles holds this row."""

    __tablename__ = "rounds"
    __table_args__ = (
        one_of("status", law.ROUND_MOVES),
        one_of("kind", ("initial", "stretch")),
        sa.CheckConstraint("target_pence > 0", name="target_above_zero"),
        sa.CheckConstraint("pledged_pence >= 0 AND pledge_count >= 0", name="counters_not_negative"),
        # Without this one the two below would let an empty total pass, as every comparison with NULL does.
        sa.CheckConstraint(
            "status NOT IN ('met', 'missed') OR (settled_at IS NOT NULL AND settled_total_pence IS NOT NULL "
            "AND settled_count IS NOT NULL)",
            name="decision_is_stored",
        ),
        sa.CheckConstraint("status != 'met' OR settled_total_pence >= target_pence", name="met_means_met"),
        sa.CheckConstraint("status != 'missed' OR settled_total_pence < target_pence", name="missed_means_missed"),
        # Those that are open, the nearest deadline first.
        sa.Index("ix_rounds_status_deadline_id", "status", "deadline", "id"),
    )

    id: Mapped[Key]
    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    target_pence: Mapped[Pence]
    deadline: Mapped[dt.datetime]
    zone: Mapped[str] = mapped_column(sa.String(60))
    status: Mapped[str] = mapped_column(sa.String(20))
    pledged_pence: Mapped[Pence]
    pledge_count: Mapped[int]
    settled_at: Mapped[dt.datetime | None]
    settled_total_pence: Mapped[Pence | None] = mapped_column(sa.BigInteger)
    settled_count: Mapped[int | None]
    version: Mapped[int]
    closing_at: Mapped[dt.datetime | None]
    next_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    trouble: Mapped[str] = mapped_column(sa.Text)

    case: Mapped[Case] = relationship(back_populates="rounds")
    changes: Mapped[list["PromiseChange"]] = relationship(back_populates="round", order_by="PromiseChange.id")

    @classmethod
    def hold(cls, round_id: int) -> Self:
        """The round, freshly read, with its row locked until the transaction ends."""
        found = sa.select(cls).where(cls.id == round_id).with_for_update()
        return db.session.scalars(found.execution_options(populate_existing=True)).one()

    @classmethod
    def hold_at(cls, slug: str) -> "Round | None":
        """The round that the public page at this address speaks of, held, with what a pledge needs to know of its case;
        None where strangers see no case. See `hold`."""
        held: Round | None = db.session.scalar(_held_at(), {"slug": slug})
        return held if held is not None and held.case.is_public else None

    @classmethod
    def past_deadline(cls, as_of: dt.datetime) -> list[Self]:
        """Rounds that wait to be closed or settled at this instant, oldest deadline first."""
        ended = sa.and_(cls.status == "open", cls.deadline < as_of)
        closing = sa.and_(cls.status == "closing", cls.next_at <= as_of)
        return list(db.session.scalars(sa.select(cls).where(ended | closing).order_by(cls.deadline)))

    @classmethod
    def in_trouble(cls) -> list[Self]:
        """For staff: rounds that stay closing since Stripe does not say what became of a card page."""
        found = sa.select(cls).where(cls.status == "closing", cls.trouble != "").order_by(cls.deadline)
        return list(db.session.scalars(found.options(sa.orm.joinedload(cls.case))))

    def is_open(self, as_of: dt.datetime) -> bool:
        """Whether a pledge may be made, changed or cancelled at this instant."""
        return self.status == "open" and law.in_time(as_of, self.deadline)

    @property
    def shown_pence(self) -> int:
        """The total that pages show: the locked one once the round was settled, else the counter."""
        return self.pledged_pence if self.settled_total_pence is None else self.settled_total_pence

    @property
    def shown_count(self) -> int:
        return self.pledge_count if self.settled_count is None else self.settled_count

    @property
    def percent(self) -> int:
        """Whole per cent of the target, rounded down so that 99.9 never reads as reached."""
        return self.shown_pence * 100 // self.target_pence

    # Changing the promise

    @property
    def promise_change(self) -> "PromiseChange | None":
        """How its promise was changed, if it was: that is allowed once."""
        return next((one for one in self.changes if one.status == "consented"), None)

    @property
    def asked_change(self) -> "PromiseChange | None":
        """The change that its owner has asked for and that staff have not decided."""
        return next((one for one in self.changes if one.status == "asked"), None)

    @property
    def promise_mark(self) -> str:
        """Another one once the promise was changed, so that nobody agrees to what an old page says."""
        change = self.promise_change
        return name_of(change) if change else ""

    def require_changeable_promise(self, as_of: dt.datetime) -> None:
        """Raises Refused, in words for its owner, unless a change of the promise may be asked for."""
        if self.status == "cancelled":
            raise Refused(gettext("The case was cancelled, so nobody is charged and there is no promise to change."))
        if not self.is_open(as_of):
            raise Refused(gettext("The deadline has passed, so the promise can no longer be changed."))
        if self.promise_change:
            raise Refused(gettext("The promise of this round was changed before. That is allowed once."))
        if self.asked_change:
            raise Refused(gettext("Our staff have a request about this promise already."))

    def ask_change(self, deadline: dt.datetime, target_pence: int, reason: str, by: User,
                   as_of: dt.datetime) -> "PromiseChange":  # fmt: skip
        """Its owner asks staff to let the promise be changed; until they do it stands. Needs the round to be held."""
        self.require_changeable_promise(as_of)
        law.check_change(self.deadline, self.target_pence, deadline, target_pence, self.zone, as_of)
        change = PromiseChange(
            round=self, status="asked", reason=reason, answer="", asked_by_id=by.id, asked_at=as_of,
            old_deadline=self.deadline, new_deadline=deadline, old_target_pence=self.target_pence,
            new_target_pence=target_pence,
        )  # fmt: skip
        db.session.add(change)
        db.session.flush()
        Event.write(change, "asked", f"user:{by.id}", as_of, after="asked", note=f"{change.noted}: {reason}")
        Letter.owe_staff("promise_asked", name_of(change), as_of)
        return change

    def agreement(self, amount: str) -> str:
        """What a supporter allows; `amount` in words, since a form is ticked before it is sent."""
        return self._agreed_in(law.AGREEMENTS[law.AGREEMENT_VERSION], amount)

    def agreement_of_repair(self, amount: str) -> str:
        """What a supporter allows who saves another card after the deadline, since a payment was refused."""
        return self._agreed_in(law.AGREEMENTS[law.AGREEMENT_OF_REPAIR_VERSION], amount)

    def _agreed_in(self, words: str, amount: str) -> str:
        return gettext(words).format(
            operator=current_app.config["STANDING"].operator_name,
            amount=amount,
            deadline=law.instant_words(self.deadline, self.zone),
            case=gettext("“%(title)s”", title=self.case.title),
            target=pounds(self.target_pence),
        )

    def start_pledge(self, *, form_key: str, amount_pence: int, name: str, email: str, shown_as: str,
                     wants_updates: bool, as_of: dt.datetime, came_from: str = "", message: str = "",
                     message_public: bool = False, language: str = ENGLISH, network: str = "",
                     lookout: "Lookout | None" = None) -> "Pledge":  # fmt: skip
        """A pledge whose card is not saved yet. The same form sent again finds the pledge it made before.

        While cards are being tried out it waits for its supporter to confirm the address. Needs the round to be held,
        and what was looked up since, if something was. Raises Refused when the round has ended.
        """
        lookout = lookout or Lookout.of(self, form_key, email, network, as_of)
        known = db.session.get(Pledge, lookout.known_id) if lookout.known_id else None
        if known is not None and known.round_id != self.id:
            raise Refused(gettext("This form belongs to another case. Open the page of the case and pledge there."))
        if known is not None and (self.is_open(as_of) or known.status not in ("started", "abandoned")):
            return known
        if not self.is_open(as_of):
            raise Refused(gettext("This case has closed: it takes no more pledges."))
        self.require_pledging(as_of, lookout)
        pledge = Pledge(
            id=lookout.next_id, round=self, round_id=self.id, public_id=secrets.token_hex(10), link_version=1,
            form_key=form_key, status="started", session_no=0, refunded_pence=0, tries=0, started_at=as_of,
            awaits_card=True, refused_softly=False, retried=0, reminded=0, stop_trying=False, came_from=came_from,
            language=language, network=network, confirm_no=0,
        )  # fmt: skip
        asks = Breaker.asks_one_more(self, lookout, as_of)
        pledge.promise(amount_pence, name, email, shown_as, wants_updates, as_of)
        pledge.say(message, message_public)
        db.session.add(pledge)
        Event.write(pledge, "started", "supporter", as_of, after="started")
        if asks:
            pledge.ask_confirmation(as_of)
        return pledge

    def move_deadline(self, deadline: dt.datetime, by: str, as_of: dt.datetime) -> None:
        """For demonstrations only: nobody may move a real promise like this."""
        if self.status != "open":
            raise Refused(gettext("This round is not open any more."))
        before, after = (_noted(one, self.zone) for one in (self.deadline, deadline))
        self.deadline = deadline
        self.version += 1
        Event.write(self, "deadline_moved", by, as_of, note=f"from {before} to {after}")

    def close(self, as_of: dt.datetime) -> None:
        """The deadline has passed: no new pledge and no cancellation from here on."""
        if self.status != "open":
            return
        if law.in_time(as_of, self.deadline):
            raise Refused(gettext("The deadline has not passed."))
        self._move("closing", "clock", as_of)
        self.closing_at = self.next_at = as_of
        self._abandon_unconfirmed(as_of, sa.true())

    def claim_closing(self, as_of: dt.datetime, lease: dt.timedelta) -> bool:
        """Take the work of closing for a while, so that nobody else does the same. Needs the round to be held."""
        if self.status != "closing" or (self.next_at and self.next_at > as_of):
            return False
        self.next_at = as_of + lease
        return True

    def unresolved(self) -> "list[Pledge]":
        """Pledges whose card page may still be open; none may be left when the round is settled.

        A saved card that is being replaced counts among them: which of the two is charged must be known first.
        """
        replaced = sa.and_(Pledge.status == "confirmed", Pledge.awaits_card)
        found = sa.select(Pledge).where(Pledge.round_id == self.id, (Pledge.status == "started") | replaced)
        return list(db.session.scalars(found.order_by(Pledge.id)))

    def settle(self, as_of: dt.datetime) -> None:
        """Decide the round, once and for ever. The only thing that makes a pledge due.

        Needs the round to be held, closing, and without unresolved pledges. The total is summed from the
        rows, not taken from the counter; the decision, the total and the count are stored here and never
        computed again.
        """
        if self.status in ("met", "missed", "cancelled"):
            return
        if self.status != "closing" or self.unresolved():
            raise Refused(gettext("This round is not ready to be settled."))
        self._let_go_of_held(as_of)
        confirmed = sa.and_(Pledge.round_id == self.id, Pledge.status == "confirmed")
        summed = sa.select(sa.func.coalesce(sa.func.sum(Pledge.amount_pence), 0), sa.func.count()).where(confirmed)
        total, count = db.session.execute(summed).one()
        self.settled_total_pence, self.settled_count = int(total), count
        self.settled_at = as_of
        decision = law.decide(self.settled_total_pence, self.target_pence)
        self._move(decision, "clock", as_of)
        self.next_at, self.trouble = None, ""
        self.case.end("funded" if decision == "met" else "missed", "clock", as_of)
        Letter.owe("reached" if decision == "met" else "not_reached", self, "settled", as_of)
        if decision == "met":
            self._move_all("confirmed", "due", "clock", as_of)
        else:
            pledge_ids = list(db.session.scalars(sa.select(Pledge.id).where(confirmed).order_by(Pledge.id)))
            Letter.owe_all("missed", pledge_ids, "released", as_of)
            self._move_all("confirmed", "released", "clock", as_of, ended_because="missed")

    def drop_unanswered(self, as_of: dt.datetime) -> None:
        """Nobody has confirmed the address of these in time: they are as if Stripe's page had been closed. All at once,
        since there may be thousands of them. Needs the round to be held."""
        self._abandon_unconfirmed(as_of, Pledge.confirm_by < as_of)

    def _abandon_unconfirmed(self, as_of: dt.datetime, which: sa.ColumnElement[bool]) -> None:
        """Pledges whose address was never confirmed have no card page, so nothing is left to be resolved for them."""
        waiting = sa.and_(Pledge.round_id == self.id, Pledge.confirm_by.is_not(None), which)
        self._move_all("started", "abandoned", "clock", as_of, which=waiting, next_at=None, awaits_card=False,
                       confirm_by=None)  # fmt: skip

    def _let_go_of_held(self, as_of: dt.datetime) -> None:
        """A pledge of which nobody has said by the deadline that it counts does not: what decides the round, and so
        what everybody else is charged by, are pledges that nobody doubts."""
        held = sa.select(Pledge.id).where(Pledge.round_id == self.id, Pledge.status == "held").order_by(Pledge.id)
        Letter.owe_all("not_released", list(db.session.scalars(held)), "released", as_of)
        self._move_all("held", "released", "clock", as_of, ended_because="not_released", came_from="")

    def _move_all(self, before: str, to: str, by: str, as_of: dt.datetime, *,
                  which: sa.ColumnElement[bool] | None = None, **values: Any) -> None:  # fmt: skip
        """Move every pledge that is in one state, each with its line of history, and make it due for what comes next:
        as objects, one by one, ten thousand of them would keep this round's lock, and a lot of memory, for a minute."""
        if not law.allows(law.PLEDGE_MOVES, before, to):
            raise Refused(
                gettext("A pledge that is %(before)s cannot become %(to)s.", before=gettext(before), to=gettext(to))
            )
        db.session.flush()
        chosen = sa.and_(Pledge.round_id == self.id, Pledge.status == before, sa.true() if which is None else which)
        said: dict[str, Any] = {"subject_kind": "pledge", "case_id": self.case_id, "what": to, "who": by}
        said |= {"before": before, "after": to, "note": ""}
        columns = ["subject_id", "at", *said]
        lines = sa.select(
            Pledge.id, sa.literal(as_of, Instant()), *(sa.literal(word) for word in said.values())
        ).where(chosen).order_by(Pledge.id)  # fmt: skip
        db.session.execute(sa.insert(Event).from_select(columns, lines))
        self._change_all(chosen, **({"status": to, "next_at": as_of} | values))

    def _change_all(self, chosen: sa.ColumnElement[bool], **values: Any) -> None:
        """Change pledges in the table itself; those that were read before are read anew."""
        changed = sa.update(Pledge).where(chosen).values(**values)
        db.session.execute(changed.execution_options(synchronize_session=False))
        for row in list(db.session):
            if isinstance(row, Pledge):
                db.session.expire(row)

    def tell_of_change(self, change: "PromiseChange", by: str, as_of: dt.datetime) -> None:
        """Everybody who has pledged, with a saved card or without, is owed a letter about the changed promise, with the
        way to leave; and each pledge keeps in its history what was and what is."""
        db.session.flush()
        told = sa.and_(Pledge.round_id == self.id, Pledge.status.in_(("started", "held", "confirmed")))
        pledge_ids = list(db.session.scalars(sa.select(Pledge.id).where(told).order_by(Pledge.id)))
        Letter.owe_all("promise_changed", pledge_ids, name_of(change), as_of)
        said: dict[str, Any] = {"subject_kind": "pledge", "case_id": self.case_id, "what": "promise_changed"}
        said |= {"who": by, "note": change.noted}
        columns = ["subject_id", "at", *said]
        lines = sa.select(
            Pledge.id, sa.literal(as_of, Instant()), *(sa.literal(word) for word in said.values())
        ).where(told).order_by(Pledge.id)  # fmt: skip
        db.session.execute(sa.insert(Event).from_select(columns, lines))
        # A card page that is open names the promise of before: whoever goes on to Stripe from here gets a new one.
        self._change_all(sa.and_(told, Pledge.awaits_card), session_expires_at=as_of)

    def release_all(self, status: str, by: str, as_of: dt.datetime) -> None:
        """End the round without a decision: started and confirmed pledges are let go, never charged."""
        self._move(status, by, as_of)
        self.next_at, self.trouble = None, ""
        confirmed = sa.and_(Pledge.round_id == self.id, Pledge.status == "confirmed")
        summed = sa.select(sa.func.coalesce(sa.func.sum(Pledge.amount_pence), 0), sa.func.count()).where(confirmed)
        total, count = db.session.execute(summed).one()
        saved = sa.and_(Pledge.round_id == self.id, Pledge.status.in_(("confirmed", "held")))
        pledge_ids = list(db.session.scalars(sa.select(Pledge.id).where(saved).order_by(Pledge.id)))
        Letter.owe_all("case_cancelled", pledge_ids, "released", as_of)
        # Who never saved a card is owed no letter.
        for before in ("confirmed", "held", "started"):
            self._move_all(before, "released", by, as_of, ended_because="case_cancelled", came_from="")
        self.count(-int(total), -count, as_of)

    def stop_all(self, by: str, as_of: dt.datetime) -> bool:
        """The case is cancelled while its pledges are charged. Of each that is left Stripe is asked before it is
        released, also where our rows know of no payment: they may be those of a backup that was restored, and
        somebody would be told that nothing was taken. Returns False when none is left."""
        # The capturer does not hold the round when it claims: not one that it claims this moment may slip through.
        rest = sa.and_(Pledge.round_id == self.id, Pledge.status.in_(("due", *Pledge.PAYMENT_BEGUN)))
        held = list(db.session.scalars(sa.select(Pledge.id).where(rest).order_by(Pledge.id).with_for_update()))
        # One that is being charged this moment keeps its lease: its answer comes first.
        self._change_all(sa.and_(rest, Pledge.status != "charging"), next_at=as_of)
        return bool(held)

    def charges_go_on(self, frozen_at: dt.datetime, by: str, as_of: dt.datetime) -> None:
        """Staff have lifted a freeze: whoever waits for a refused payment has as much time for it as before."""
        waiting = sa.and_(Pledge.status.in_((*REFUSED, *TO_CHARGE)), Pledge.refused_at.is_not(None))
        found = sa.select(Pledge).where(Pledge.round_id == self.id, waiting).order_by(Pledge.id).with_for_update()
        for pledge in db.session.scalars(found.execution_options(populate_existing=True)):
            pledge.window_goes_on(frozen_at, by, as_of)

    def tell_charged_of_cancellation(self, as_of: dt.datetime) -> None:
        """Who was charged before the case was cancelled learns of it, and what becomes of the money."""
        charged = sa.select(Pledge.id).where(Pledge.round_id == self.id, Pledge.status.in_(law.PAID_PLEDGES))
        Letter.owe_all(
            "cancelled_charged",
            list(db.session.scalars(charged.order_by(Pledge.id))),
            "case_cancelled",
            as_of,
        )

    def halt(self, as_of: dt.datetime, lookout: "Lookout | None" = None) -> str:
        """Why nobody can pledge just now: it "rests" since cards are being tried out, or it is "paused" by staff, who
        may have taken the case out of sight as well; "" when it goes on."""
        if (lookout.state if lookout else Breaker.state_for(self.case_id, as_of)) == "paused":
            return "rests"
        is_taken = lookout.is_taken if lookout else self.case.is_public and not self.case.pledging_paused
        return "" if is_taken else "paused"

    def require_pledging(self, as_of: dt.datetime, lookout: "Lookout | None" = None) -> None:
        """Raises Refused while pledging is halted. What was pledged stands, and may be cancelled. Needs the round held.

        The round is locked, and its case is not: what was read of it before the lock came may be over.
        """
        if lookout is None:
            db.session.refresh(self.case, ["status", "visibility", "pledging_paused"])
        if halt := self.halt(as_of, lookout):
            raise Refused(gettext(HALTED[halt]))

    def figures(self) -> "Figures":
        """What became of the pledges that counted when the round was decided, in pence; see Tally."""
        lines = Tally.of(f"round:{self.id}")
        return Figures(
            {status: count for status, count, _, _ in lines if count},
            {status: pence for status, count, pence, _ in lines if count},
            sum(refunded for *_, refunded in lines),
        )

    def answered(self, since: dt.datetime) -> int:
        """How many charges of this round have been answered since then, paid or refused."""
        lately = sa.select(sa.func.count()).select_from(Event).join(Pledge, Pledge.id == Event.subject_id).where(
            Event.at >= since, Pledge.round_id == self.id,
            # Only pledges have these states. To ask for their kind as well would have SQLite read all their lines.
            Event.after.in_(("charged", "declined", "action_required")),
            Event.before.in_(("charging", "unknown")),
        )  # fmt: skip
        return int(db.session.scalar(lately) or 0)

    def pledges(self, *statuses: str) -> "list[Pledge]":
        found = sa.select(Pledge).where(Pledge.round_id == self.id, Pledge.status.in_(statuses))
        return list(db.session.scalars(found.order_by(Pledge.id)))

    @classmethod
    def with_charges_waiting(cls, as_of: dt.datetime) -> list[int]:
        """The ids of the rounds that have a pledge to charge at this instant, in order.

        None of a case that staff have frozen or cancelled: to ask again could be a charge as well.
        """
        waiting = sa.exists().where(Pledge.round_id == cls.id, *Pledge.to_charge(as_of))
        found = sa.select(cls.id).join(Case).where(cls.status == "met", waiting, Case.may_charge())
        return list(db.session.scalars(found.order_by(cls.id)))

    def halted(self) -> "list[Pledge]":
        """Pledges whose charge Stripe called a wrong request, so that nobody asks for it; see Pledge.halt."""
        return [pledge for pledge in self.pledges("unknown") if pledge.next_at is None]

    def cards_left(self) -> bool:
        """Whether Stripe may still have the card, or an open card page, of a pledge that ended uncharged."""
        ended = Pledge.status.in_(("released", "cancelled"))
        waiting = sa.select(Pledge.id).where(Pledge.round_id == self.id, ended, Pledge.next_at.is_not(None))
        old = sa.select(OldCard.id).join(Pledge, Pledge.id == OldCard.pledge_id)
        old = old.where(Pledge.round_id == self.id, OldCard.next_at.is_not(None))
        return any(db.session.scalar(found.limit(1)) is not None for found in (waiting, old))

    def count(self, pence: int, pledges: int, as_of: dt.datetime) -> None:
        """Change the stored counters, and those of the day; only ever in the transaction that changes the rows."""
        self.pledged_pence += pence
        self.pledge_count += pledges
        self.version += 1
        Day.count(self, pence, pledges, as_of)

    def _move(self, to: str, by: str, as_of: dt.datetime) -> None:
        move(self, law.ROUND_MOVES, to, by, as_of)
        self.version += 1


@functools.cache
def _held_at() -> sa.Select[Any]:
    """The question of Round.hold_at, which is kept: to put it together anew takes longer than to answer it."""
    found = sa.select(Round).join(Round.case).where(Case.slug == sa.bindparam("slug")).order_by(Round.id.desc())
    known = sa.orm.contains_eager(Round.case)
    known = known.load_only(Case.slug, Case.title, Case.status, Case.visibility, Case.pledging_paused)
    return found.limit(1).options(known).with_for_update(of=Round).execution_options(populate_existing=True)


# What has become of a request, for staff who were about to decide it.
DECIDED = {
    "consented": N_("This request was agreed to before. Nothing was done."),
    "refused": N_("This request was refused before. Nothing was done."),
    "withdrawn": N_("This request was taken back before. Nothing was done."),
}


class PromiseChange(Base):
    """Another deadline or target for a round that people have pledged to: asked for by its owner, decided by staff.

    The rows stay for good, with what the promise was and what it became.
    """

    __tablename__ = "promise_changes"
    __table_args__ = (
        one_of("status", law.PROMISE_CHANGE_MOVES),
        sa.CheckConstraint("new_deadline >= old_deadline", name="never_earlier"),
        sa.CheckConstraint("new_target_pence BETWEEN 1 AND old_target_pence", name="never_higher"),
        # Of a round one request waits, and one change is made: whoever may be at it at the same moment.
        *(
            sa.Index(f"uq_promise_changes_{status}", "round_id", unique=True,
                     sqlite_where=sa.text(f"status = '{status}'"), postgresql_where=sa.text(f"status = '{status}'"))
            for status in ("asked", "consented")
        ),
    )  # fmt: skip

    id: Mapped[Key]
    round_id: Mapped[int] = mapped_column(sa.ForeignKey("rounds.id"), index=True)
    status: Mapped[str] = mapped_column(sa.String(20))
    old_deadline: Mapped[dt.datetime]
    new_deadline: Mapped[dt.datetime]
    old_target_pence: Mapped[Pence]
    new_target_pence: Mapped[Pence]
    # Why its owner wants it, for everybody to read.
    reason: Mapped[str] = mapped_column(sa.Text)
    # Why staff refused it.
    answer: Mapped[str] = mapped_column(sa.Text)
    asked_by_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    asked_at: Mapped[dt.datetime]
    decided_at: Mapped[dt.datetime | None]

    round: Mapped[Round] = relationship(back_populates="changes")

    @classmethod
    def hold(cls, change_id: int) -> Self:
        """The change, freshly read, with its round's row locked until the transaction ends."""
        Round.hold(db.session.scalars(sa.select(cls.round_id).where(cls.id == change_id)).one())
        found = sa.select(cls).where(cls.id == change_id)
        return db.session.scalars(found.execution_options(populate_existing=True)).one()

    @classmethod
    def waiting(cls, as_of: dt.datetime) -> list[Self]:
        """For staff: those that can still be decided, the nearest deadline first."""
        found = sa.select(cls).join(Round).where(cls.status == "asked", Round.status == "open", Round.deadline >= as_of)
        return list(db.session.scalars(found.order_by(Round.deadline, cls.id)))

    @property
    def extends(self) -> bool:
        return self.new_deadline > self.old_deadline

    @property
    def lowers(self) -> bool:
        return self.new_target_pence < self.old_target_pence

    @property
    def words(self) -> str:
        """What changes: "the deadline from Sunday ... to Monday ... and the target from £6,000 to £4,000"."""
        deadline, target = "", ""
        if self.extends:
            before, after = (law.instant_words(one, self.round.zone) for one in (self.old_deadline, self.new_deadline))
            deadline = gettext("the deadline from %(before)s to %(after)s", before=before, after=after)
        if self.lowers:
            before, after = pounds(self.old_target_pence), pounds(self.new_target_pence)
            target = gettext("the target from %(before)s to %(after)s", before=before, after=after)
        if deadline and target:
            return gettext("%(deadline)s and %(target)s", deadline=deadline, target=target)
        return deadline or target

    @property
    def noted(self) -> str:
        """The same for the books, which are in English."""
        with force_locale(law.ENGLISH):
            return self.words

    def consent(self, by: User, as_of: dt.datetime) -> None:
        """Staff let the promise be changed: from now on the round has it, and everybody who has pledged is told.

        Nobody is charged by it: a target that is lower than what is pledged already decides nothing before the
        deadline. Needs it to be held. Raises Refused once the round is closing or over.
        """
        its_round = self.round
        self._require_waiting(as_of)
        law.check_change(its_round.deadline, its_round.target_pence, self.new_deadline, self.new_target_pence,
                         its_round.zone, as_of)  # fmt: skip
        its_round.deadline, its_round.target_pence = self.new_deadline, self.new_target_pence
        its_round.version += 1
        self.decided_at = as_of
        move(self, law.PROMISE_CHANGE_MOVES, "consented", f"user:{by.id}", as_of)
        Event.write(its_round, "promise_changed", f"user:{by.id}", as_of, note=self.noted)
        its_round.tell_of_change(self, f"user:{by.id}", as_of)
        Letter.owe("promise_consented", its_round, name_of(self), as_of)

    def refuse(self, answer: str, by: User, as_of: dt.datetime) -> None:
        """Staff say no, and why; the promise stands as it was, and its owner may ask again. Needs it to be held."""
        self._require_waiting(as_of)
        self.answer, self.decided_at = answer, as_of
        move(self, law.PROMISE_CHANGE_MOVES, "refused", f"user:{by.id}", as_of, note=answer)
        Letter.owe("promise_refused", self.round, name_of(self), as_of)

    def withdraw(self, by: User, as_of: dt.datetime) -> None:
        """Its owner takes the request back. Needs it to be held. Silent when that was done before."""
        if self.status == "withdrawn":
            return
        if self.status != "asked":
            raise Refused(gettext("Our staff have decided about this request already."))
        self.decided_at = as_of
        move(self, law.PROMISE_CHANGE_MOVES, "withdrawn", f"user:{by.id}", as_of)

    def _require_waiting(self, as_of: dt.datetime) -> None:
        if self.status != "asked":
            raise Refused(gettext(DECIDED[self.status]))
        if self.round.status == "cancelled":
            raise Refused(gettext("The case was cancelled, so the promise stands as it was. Nothing was done."))
        if not self.round.is_open(as_of):
            raise Refused(gettext("The deadline has passed, so the promise stands as it was. Nothing was done."))


class Day(Base):
    """What one day, on the wall of the round's zone, changed in what is pledged; all days together are the counters."""

    __tablename__ = "days"
    __table_args__ = (sa.UniqueConstraint("round_id", "day"),)

    id: Mapped[Key]
    round_id: Mapped[int] = mapped_column(sa.ForeignKey("rounds.id"))
    day: Mapped[dt.date]
    # Both may be negative: somebody may cancel on a day on which nobody pledges.
    pledges: Mapped[int]
    pence: Mapped[Pence]

    @classmethod
    def count(cls, its_round: Round, pence: int, pledges: int, as_of: dt.datetime) -> None:
        """Needs the round to be held."""
        day = law.day_of(as_of, its_round.zone)
        if (gathered := _gathered()) is not None:
            sums = gathered.days[its_round.id, day]
            sums[:] = sums[0] + pledges, sums[1] + pence
        else:
            cls.add(its_round.id, day, pledges, pence)

    @classmethod
    def add(cls, round_id: int, day: dt.date, pledges: int, pence: int) -> None:
        today = db.session.scalar(sa.select(cls).where(cls.round_id == round_id, cls.day == day))
        if today is None:
            today = cls(round_id=round_id, day=day, pledges=0, pence=0)
            db.session.add(today)
        today.pledges += pledges
        today.pence += pence

    @classmethod
    def of(cls, its_round: Round) -> list[Self]:
        """The days on which something was pledged or taken back, in order."""
        return list(db.session.scalars(sa.select(cls).where(cls.round_id == its_round.id).order_by(cls.day)))


class Source(Base):
    """Whence people came on one day: how many opened a short address with a label, how many the pledge form, and how
    many pledges counted then. Nothing about anybody stands beside it. See docs/decisions/0027."""

    __tablename__ = "sources"
    __table_args__ = (sa.UniqueConstraint("round_id", "day", "name"),)

    id: Mapped[Key]
    round_id: Mapped[int] = mapped_column(sa.ForeignKey("rounds.id"))
    day: Mapped[dt.date]
    # As law.source writes it; "" for those of whom nothing is known.
    name: Mapped[str] = mapped_column(sa.String(80))
    visited: Mapped[int]
    opened: Mapped[int]
    confirmed: Mapped[int]

    @classmethod
    def count(cls, its_round: Round, name: str, what: str, as_of: dt.datetime) -> None:
        """One more `visited`, `opened` or `confirmed`."""
        day = law.day_of(as_of, its_round.zone)
        if (gathered := _gathered()) is not None:
            gathered.sources[its_round.id, day, name, what] += 1
        else:
            cls.add(its_round.id, day, name, what, 1)

    @classmethod
    def add(cls, round_id: int, day: dt.date, name: str, what: str, more: int) -> None:
        """A day takes so many names and no more, so that nobody can fill the table; whoever comes later with a new
        one is counted among the others."""
        of_day = sa.and_(cls.round_id == round_id, cls.day == day)
        for called in (name, law.OTHER_SOURCES):
            so_many_more = sa.update(cls).where(of_day, cls.name == called).values({what: getattr(cls, what) + more})
            so_many_more = so_many_more.execution_options(synchronize_session=False)
            if db.session.execute(so_many_more).rowcount:  # type: ignore[attr-defined]
                return
            known = db.session.scalar(sa.select(sa.func.count()).where(of_day)) or 0
            if known < law.SOURCES_A_DAY or called == law.OTHER_SOURCES:
                insert_once(cls, round_id=round_id, day=day, name=called, visited=0, opened=0, confirmed=0)
                db.session.execute(so_many_more)
                return

    @classmethod
    def sums(cls, its_round: Round) -> list[tuple[str, int, int, int]]:
        """(name, visited, opened, confirmed) of the whole round: those that brought most first, the others last."""
        visited, opened, confirmed = sa.func.sum(cls.visited), sa.func.sum(cls.opened), sa.func.sum(cls.confirmed)
        found = sa.select(cls.name, visited, opened, confirmed).where(cls.round_id == its_round.id).group_by(cls.name)
        last = sa.case((cls.name == law.OTHER_SOURCES, 1), else_=0)
        rows = db.session.execute(found.order_by(last, confirmed.desc(), opened.desc(), visited.desc(), cls.name))
        return [(row[0], int(row[1]), int(row[2]), int(row[3])) for row in rows]


@dataclass(frozen=True)
class Figures:
    """How many pledges stand in which state, and with how much money; `refunded` is what went back, whole or part."""

    counts: dict[str, int]
    pence: dict[str, int]
    refunded: int

    def count(self, *statuses: str) -> int:
        return sum(self.counts.get(status, 0) for status in statuses)

    def sum(self, *statuses: str) -> int:
        return sum(self.pence.get(status, 0) for status in statuses)

    @property
    def charged(self) -> int:
        """All that was ever taken from cards, also what has gone back since."""
        return self.sum("charged", "disputed", "refunded", "charged_back")

    @property
    def waiting(self) -> int:
        return self.sum("due", "charging", "unknown")

    @property
    def repairing(self) -> int:
        return self.sum("declined", "action_required")

    @property
    def dropped(self) -> int:
        return self.sum("dropped")

    @property
    def released(self) -> int:
        return self.sum("released")

    @property
    def disputed(self) -> int:
        """Held back until the banks have decided."""
        return self.sum("disputed")

    @property
    def charged_back(self) -> int:
        return self.sum("charged_back")


class Tally(Base):
    """How many rows of a kind stand under one subject, and with how much money, so that no page has to sum them.

    The database keeps it by itself, by triggers (migration 0003), in the transaction that changes the rows: the
    pledges of a round that were ever confirmed, by their status, under "round:<id>", and the fees of a case under
    "case:<id>". A subject may have several lines for one kind; together they are its tally. Nothing else writes here.
    See docs/decisions/0036.
    """

    __tablename__ = "tallies"
    __table_args__ = (
        # Few wait to be folded at any time.
        sa.Index("ix_tallies_loose", "subject", sqlite_where=sa.text("loose"), postgresql_where=sa.text("loose")),
    )

    id: Mapped[Key]
    subject: Mapped[str] = mapped_column(sa.String(40), index=True)
    what: Mapped[str] = mapped_column(sa.String(20))
    # Each may be below zero in one line, and never in all lines together but for fees, which are money that went out.
    count: Mapped[int]
    pence: Mapped[Pence]
    refunded: Mapped[Pence]
    # Written beside others by one of many transactions at once, none of which waits for another.
    loose: Mapped[bool]

    @classmethod
    def of(cls, subject: str) -> list[tuple[str, int, int, int]]:
        """(what, how many, pence, pence refunded) of a subject."""
        sums = (sa.func.sum(column) for column in (cls.count, cls.pence, cls.refunded))
        found = sa.select(cls.what, *sums).where(cls.subject == subject).group_by(cls.what)
        return [(row[0], int(row[1]), int(row[2]), int(row[3])) for row in db.session.execute(found)]

    @classmethod
    def fold(cls) -> None:
        """Make one line of the loose ones of each subject and kind. Safe at any time, and beside another."""
        columns = (cls.subject, cls.what, cls.count, cls.pence, cls.refunded)
        # What is deleted here was seen here and by nobody else, so no line is lost and none is counted twice.
        gone = sa.delete(cls).where(cls.subject.in_(sa.select(cls.subject).where(cls.loose))).returning(*columns)
        sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for subject, what, *numbers in db.session.execute(gone.execution_options(synchronize_session=False)):
            sums[subject, what] = [one + more for one, more in zip(sums[subject, what], numbers, strict=True)]
        lines = [
            {"subject": subject, "what": what, "count": count, "pence": pence, "refunded": refunded, "loose": False}
            for (subject, what), (count, pence, refunded) in sorted(sums.items())
        ]
        if lines:
            db.session.execute(sa.insert(cls), lines)


# --- Pledge ------------------------------------------------------------------------------------------------

# The bank said no, or wants to see the supporter: nothing was taken, and the window for repair is open.
REFUSED = ("declined", "action_required")
# The states of a pledge that the capturer works on.
TO_CHARGE = ("due", "charging", "unknown")
# Nothing more will come of these, and no money ever moved.
ENDED_UNPAID = ("abandoned", "cancelled", "released", "dropped")


class Pledge(Base):
    """What one supporter promised, and how far its charge has come.

    `next_at` is when the clock should look at it again: to ask for its card page, to charge it, to ask again after
    an unknown answer, to take the next step of its repair, or to remove its card; None when nothing waits. Until it is
    confirmed `tries` is 0 exactly as long as nobody has begun to ask Stripe for the card page that was noted last.
    """

    __tablename__ = "pledges"
    __table_args__ = (
        one_of("status", law.PLEDGE_MOVES),
        sa.CheckConstraint(
            f"amount_pence BETWEEN {law.SMALLEST_PLEDGE} AND {law.LARGEST_PLEDGE}", name="amount_in_bounds"
        ),
        sa.CheckConstraint("refunded_pence BETWEEN 0 AND amount_pence", name="refund_within_amount"),
        one_of("message_for", law.MESSAGES_FOR),
        one_of("held_because", law.DOUBTS),
        sa.CheckConstraint("status != 'held' OR held_because IS NOT NULL", name="held_for_a_reason"),
        one_of("shown_as", law.SHOWN_AS),
        sa.CheckConstraint("(message IS NULL) = (message_for IS NULL)", name="message_for_somebody"),
        sa.CheckConstraint("agreement_pence = amount_pence", name="agreed_to_the_amount"),
        sa.CheckConstraint(
            f"asked_pence > amount_pence AND asked_pence <= {law.LARGEST_PLEDGE}", name="only_more_is_asked"
        ),
        sa.Index("ix_pledges_status_next_at", "status", "next_at"),
        # What is due in one round: the capturer goes from round to round.
        sa.Index("ix_pledges_round_id_status_next_at", "round_id", "status", "next_at"),
        # The owner's list, newest first.
        sa.Index("ix_pledges_round_id_confirmed_at_id", "round_id", "confirmed_at", "id"),
        # The staff's list.
        sa.Index("ix_pledges_round_id_id", "round_id", "id"),
        # What was begun lately, which the breaker counts; and from which network.
        sa.Index("ix_pledges_started_at", "started_at"),
        sa.Index("ix_pledges_network_started_at", "network", "started_at"),
        # Who else has the same card.
        sa.Index("ix_pledges_round_id_card_mark", "round_id", "card_mark"),
        # Few come with a message.
        sa.Index(
            "ix_pledges_messages",
            "round_id",
            "id",
            sqlite_where=sa.text("message IS NOT NULL"),
            postgresql_where=sa.text("message IS NOT NULL"),
        ),
    )

    # In these states Stripe has, or may have, a payment of the pledge that is not paid as far as we know.
    PAYMENT_BEGUN: ClassVar = ("charging", "unknown", "declined", "action_required")

    id: Mapped[Key]
    round_id: Mapped[int] = mapped_column(sa.ForeignKey("rounds.id"))
    public_id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    link_version: Mapped[int]
    form_key: Mapped[str] = mapped_column(sa.String(64), unique=True)
    status: Mapped[str] = mapped_column(sa.String(20))
    amount_pence: Mapped[Pence]
    name: Mapped[str] = mapped_column(sa.String(120))
    email: Mapped[str] = mapped_column(sa.String(254))
    # By what an address is looked up, however it was typed. The database makes it, so it goes when the address goes.
    email_lowered: Mapped[str] = mapped_column(sa.String(254), sa.Computed("lower(email)", persisted=True), index=True)
    # One of law.SHOWN_AS.
    shown_as: Mapped[str] = mapped_column(sa.String(20))
    wants_updates: Mapped[bool]
    # In which it was made, and in which letters about it are written.
    language: Mapped[str] = mapped_column(sa.String(20))
    # Whence its supporter came to the form, until that was counted; "" from then on.
    came_from: Mapped[str] = mapped_column(sa.String(80))
    # A mark of the network that it came from, another one each day; and one of its card. See docs/decisions/0040.
    network: Mapped[str] = mapped_column(sa.String(24))
    card_mark: Mapped[str | None] = mapped_column(sa.String(24))
    # Why it is held, or was: one of law.DOUBTS.
    held_because: Mapped[str | None] = mapped_column(sa.String(40))
    # Until when its address may be confirmed; None when nothing is asked. While it is, no card page may be made.
    confirm_by: Mapped[dt.datetime | None]
    # How often that was asked; only the last letter's link works.
    confirm_no: Mapped[int]
    email_confirmed_at: Mapped[dt.datetime | None]
    # What the supporter wrote with it, and for whom; for everyone means as a comment, once a moderator has read it.
    message: Mapped[str | None] = mapped_column(sa.Text)
    message_for: Mapped[str | None] = mapped_column(sa.String(20))
    comment_id: Mapped[int | None] = mapped_column(sa.ForeignKey("comments.id"))
    agreement_version: Mapped[int]
    agreement_at: Mapped[dt.datetime]
    agreement_pence: Mapped[Pence]
    # The version of the private link with which its supporter last left for Stripe's page or the bank's.
    left_with: Mapped[int | None]
    # The higher amount that the open card page names; it holds once a card is saved there.
    asked_pence: Mapped[Pence | None] = mapped_column(sa.BigInteger)
    started_at: Mapped[dt.datetime]
    confirmed_at: Mapped[dt.datetime | None]
    session_no: Mapped[int]
    session_id: Mapped[str | None] = mapped_column(sa.String(120), unique=True)
    session_url: Mapped[str | None] = mapped_column(sa.Text)
    session_params: Mapped[dict[str, Any] | None]
    session_expires_at: Mapped[dt.datetime | None]
    card_saved_at: Mapped[dt.datetime | None]
    customer_id: Mapped[str | None] = mapped_column(sa.String(120), index=True)
    payment_method_id: Mapped[str | None] = mapped_column(sa.String(120), index=True)
    card_words: Mapped[str | None] = mapped_column(sa.String(60))
    payment_intent_id: Mapped[str | None] = mapped_column(sa.String(120), unique=True)
    refunded_pence: Mapped[Pence]
    # Whether a card page is asked for or open whose end is not known yet: always while started, and while a
    # saved card is being replaced.
    awaits_card: Mapped[bool]
    # From when the window for repair is counted: the first refusal, moved on by the time in which charges were frozen.
    refused_at: Mapped[dt.datetime | None]
    repair_until: Mapped[dt.datetime | None]
    refused_softly: Mapped[bool]
    retried: Mapped[int]
    reminded: Mapped[int]
    stop_trying: Mapped[bool]
    # Where the bank waits for the supporter's approval of this very payment.
    bank_url: Mapped[str | None] = mapped_column(sa.Text)
    ended_because: Mapped[str | None] = mapped_column(sa.String(40))
    next_at: Mapped[dt.datetime | None]
    tries: Mapped[int]
    # Since when nothing is known of its supporter any more.
    erased_at: Mapped[dt.datetime | None]

    round: Mapped[Round] = relationship()
    comment: Mapped["Comment | None"] = relationship()
    agreements: Mapped[list["Agreement"]] = relationship(order_by="Agreement.id")
    attempts: Mapped[list["ChargeAttempt"]] = relationship(order_by="ChargeAttempt.number")

    # Finding

    @classmethod
    def hold(cls, pledge_id: int) -> Self:
        """The pledge, freshly read, with its round's row and its own locked until the transaction ends."""
        its_round, itself = _held_pledge()
        db.session.scalars(its_round, {"pledge": pledge_id}).one()
        held: Self = db.session.scalars(itself, {"pledge": pledge_id}).one()
        return held

    @classmethod
    def by_link(cls, link: str, purpose: str = "pledge") -> Self | None:
        """The pledge of a private link, or None when the link was altered, replaced or is for another use."""
        public_id, _, _ = link.partition(".")
        pledge = db.session.scalar(sa.select(cls).where(cls.public_id == public_id))
        if pledge is None or pledge.erased_at is not None:
            return None
        return pledge if is_genuine(link, purpose, public_id, pledge._link_version(purpose)) else None

    def link(self, purpose: str = "pledge") -> str:
        return signed_link(purpose, self.public_id, self._link_version(purpose))

    def _link_version(self, purpose: str) -> int:
        if purpose == "confirmation":
            return self.confirm_no
        return 0 if purpose in LASTING_LINKS else self.link_version

    @property
    def public_name(self) -> str:
        """What everybody may see, beside a message that is for everyone."""
        return self._signature or gettext("Anonymous")

    @property
    def _signature(self) -> str:
        if self.shown_as == "first_name":
            return next(iter(self.name.split()), "")
        return self.name if self.shown_as == "name" else ""

    @property
    def owner_sees(self) -> str:
        """By which name the case owner knows the supporter."""
        return gettext("Anonymous") if self.shown_as == "hidden" else self.name

    @classmethod
    def _owner_sees(cls) -> sa.Case[Any]:
        """As `owner_sees`, for a query."""
        return sa.case((cls.shown_as == "hidden", gettext("Anonymous")), else_=cls.name)

    @property
    def is_supporters(self) -> bool:
        """Whether it counted and was not taken back, so that its supporter reads what is for supporters."""
        return self.confirmed_at is not None and self.status != "cancelled"

    @classmethod
    def search(cls, its_round: Round, words: str, after: int, limit: int) -> tuple[list[Self], int]:
        """For staff, by their id: a page of a round's pledges whose name, address or number holds the words; and the id
        after which the next page begins, or 0."""
        found = sa.select(cls).where(cls.round_id == its_round.id, cls.id > after).order_by(cls.id)
        pledges, last = page_of(found, words_in(words, cls.name, cls.email, cls.public_id), limit)
        return pledges, last.id if last else 0

    @classmethod
    def anywhere(cls, words: str, limit: int) -> list[Self]:
        """For staff, in all cases: the pledges with this number, of this e-mail address, or with this id at Stripe.

        Only what is whole is found: names are searched within a case.
        """
        wholes = (cls.public_id, cls.session_id, cls.payment_intent_id, cls.customer_id, cls.payment_method_id)
        # Each is looked up by its own index; one question with "or" would have every pledge read.
        known: sa.CompoundSelect[Any] = sa.union(
            *(sa.select(cls.id).where(whole == words) for whole in wholes),
            sa.select(cls.id).where(cls.email_lowered == words.lower()),
            sa.select(Movement.pledge_id).where(Movement.stripe_id == words),
            sa.select(Dispute.pledge_id).where(Dispute.stripe_id == words),
            sa.select(Dispute.pledge_id).where(Dispute.charge_id == words),
        )
        found = sa.select(cls).where(cls.id.in_(known))
        case_too = sa.orm.joinedload(cls.round).joinedload(Round.case)
        return list(db.session.scalars(found.order_by(cls.id.desc()).limit(limit).options(case_too)))

    @classmethod
    def counted_in(cls, its_round: Round, limit: int, words: str = "", after: str = "") -> tuple[list[Self], str]:
        """For the case owner: a page of the pledges that count or counted, the newest first; and where the next page
        begins, or "". Words are looked for in the names that their supporters show, and in no others."""
        place = (cls.confirmed_at.desc(), cls.id.desc())
        found = sa.select(cls).where(cls.round_id == its_round.id, *cls.counts()).order_by(*place)
        if (began := cls._older_than(after)) is not None:
            found = found.where(began)
        pledges, last = page_of(found, words_in(words, cls._owner_sees()), limit)
        return pledges, last.place if last else ""

    @classmethod
    def shared_in(cls, its_round: Round) -> list[tuple[dt.datetime, str, int, str, int]]:
        """(when, name, pence, state, pence paid back) of every pledge that count or counted, the oldest first: no more
        than what their supporters share with the case owner, and what became of the money."""
        shared = cls.confirmed_at, cls._owner_sees(), cls.amount_pence, cls.status, cls.refunded_pence
        found = sa.select(*shared).where(cls.round_id == its_round.id, *cls.counts())
        return [tuple(row) for row in db.session.execute(found.order_by(cls.confirmed_at, cls.id))]

    @classmethod
    def counts(cls) -> tuple[sa.ColumnElement[bool], ...]:
        """For a query: its card was saved in time and it was not taken back, whatever became of it since."""
        return cls.confirmed_at.is_not(None), cls.status != "cancelled"

    @classmethod
    def _older_than(cls, place: str) -> sa.ColumnElement[bool] | None:
        """What comes after a place in the list; an address that makes no sense is the beginning."""
        if (began := _moment_and_number(place)) is None:
            return None
        since, number = began
        return sa.or_(cls.confirmed_at < since, sa.and_(cls.confirmed_at == since, cls.id < number))

    @property
    def place(self) -> str:
        """Where it stands in that list."""
        assert self.confirmed_at is not None  # noqa: S101 - it was found by it
        return _place(self.confirmed_at, self.id)

    def history(self) -> "list[Event]":
        """What happened to it, oldest first."""
        found = sa.select(Event).where(Event.subject_kind == "pledge", Event.subject_id == self.id)
        return list(db.session.scalars(found.order_by(Event.id)))

    def movements(self) -> "list[Movement]":
        """Its lines of the ledger, oldest first."""
        return list(db.session.scalars(sa.select(Movement).where(Movement.pledge_id == self.id).order_by(Movement.id)))

    # Pledging

    def promise(self, amount_pence: int, name: str, email: str, shown_as: str, wants_updates: bool,
                as_of: dt.datetime) -> None:  # fmt: skip
        """What the supporter agreed to, with the version, time and amount of the agreement."""
        self._put_in_force(self._agree(amount_pence, as_of))
        self.name, self.email, self.shown_as, self.wants_updates = name, email, shown_as, wants_updates

    def say(self, message: str, public: bool) -> None:
        """What the supporter writes with the pledge: to the case owner alone, or for everyone to read."""
        self.message = message or None
        self.message_for = ("everyone" if public else "owner") if message else None

    def _agree(self, amount_pence: int, as_of: dt.datetime) -> "Agreement":
        """Keep what was agreed to, in its words, whether it holds at once or with a card that is still to be saved."""
        if not law.SMALLEST_PLEDGE <= amount_pence <= law.LARGEST_PLEDGE:
            raise Refused(gettext("A pledge is at least £5 and at most £10,000."))
        words = self.round.agreement(pounds(amount_pence))
        return self._keep_agreement(law.AGREEMENT_VERSION, words, amount_pence, as_of)

    def _agree_by_card(self, at: dt.datetime, as_of: dt.datetime) -> None:
        """Keep what was agreed to by saving another card, in the words of Stripe's page where it was saved.

        For a refused payment: the promise to which the supporter agreed before stands beside it, and is what letters
        and the doctor go by. While the pledge counts only where the promise was changed since, and the page was made
        after that: then the new one holds.
        """
        named = (self.session_params or {}).get("custom_text", {}).get("submit", {}).get("message", "")
        if self.status != "confirmed":
            words = named or self.round.agreement_of_repair(pounds(self.amount_pence))
            self._keep_agreement(law.AGREEMENT_OF_REPAIR_VERSION, words, self.amount_pence, at)
            self._note("agreed_to_repair", as_of)
            return
        change = self.changed_since(self.agreement)
        if change is not None and self.asked_pence is None and self._page_was_made_after(change):
            words = named or self.round.agreement(pounds(self.amount_pence))
            self._put_in_force(self._keep_agreement(law.AGREEMENT_VERSION, words, self.amount_pence, at))

    def _page_was_made_after(self, change: PromiseChange) -> bool:
        """Whether its card page names what a change has made of the promise: all that were open then ended with it."""
        ends, decided_at = self.session_expires_at, change.decided_at
        return ends is not None and decided_at is not None and ends > decided_at

    def _keep_agreement(self, version: int, words: str, amount_pence: int, at: dt.datetime) -> "Agreement":
        agreement = Agreement(
            pledge_id=self.id, version=version, amount_pence=amount_pence, before_pence=self.amount_pence,
            deadline=self.round.deadline, target_pence=self.round.target_pence, words=words, agreed_at=at,
        )  # fmt: skip
        self.agreements.append(agreement)
        return agreement

    def _put_in_force(self, agreement: "Agreement") -> None:
        self.amount_pence = self.agreement_pence = agreement.amount_pence
        self.agreement_version, self.agreement_at = agreement.version, agreement.agreed_at

    @property
    def agreement(self) -> "Agreement | None":
        """The one that holds; a higher amount that waits for a card is agreed to already and does not hold yet.

        None only when the books are broken, which the doctor says.
        """
        in_force = (self.agreement_at, self.agreement_pence)
        return next((one for one in reversed(self.agreements) if (one.agreed_at, one.amount_pence) == in_force), None)

    def changed_since(self, agreement: "Agreement | None") -> PromiseChange | None:
        """How the promise was changed after this was agreed to; None when its words still name what holds."""
        if agreement is None:
            return None
        agreed_to = agreement.deadline, agreement.target_pence
        return self.round.promise_change if agreed_to != (self.round.deadline, self.round.target_pence) else None

    def promised(self, amount_pence: int, name: str, email: str, shown_as: str, wants_updates: bool,
                 message: str = "", message_public: bool = False) -> bool:  # fmt: skip
        """Whether exactly this is what the row already says."""
        said = (self.message or "", self.message_for == "everyone")
        return (self.amount_pence, self.name, self.email, self.shown_as, self.wants_updates, *said) == (
            amount_pence, name, email, shown_as, wants_updates, message, bool(message) and message_public,
        )  # fmt: skip

    def promise_again(self, amount_pence: int, name: str, email: str, shown_as: str, wants_updates: bool,
                      as_of: dt.datetime, message: str = "", message_public: bool = False) -> None:  # fmt: skip
        """Change a pledge before its card was saved, or take up one whose card page has ended.

        Its old card page must have been expired at Stripe.
        """
        self.require_changeable(as_of)
        if self.status == "confirmed":
            raise Refused(
                gettext("Your card is saved, so the pledge stands as you agreed to it. You can still change it.")
            )
        self._move("started", "supporter", as_of)
        before = self.amount_pence, self.email, (self.name, self.shown_as)
        self.promise(amount_pence, name, email, shown_as, wants_updates, as_of)
        self.say(message, message_public)
        self.session_id = self.session_url = self.session_params = self.session_expires_at = None
        if before[1].lower() != email.lower():
            self.email_confirmed_at = None
        # Nor does the clock ask for the old page any more.
        self.confirm_by = self.next_at = None
        if self.email_confirmed_at is None and Breaker.state_for(self.round.case_id, as_of) != "closed":
            self.ask_confirmation(as_of)
        if before[0] != amount_pence:
            self._note("changed", as_of, _from_to(before[0], amount_pence))
        if before[1] != email:
            self._note("address_corrected", as_of)
        if before[2] != (name, shown_as):
            self._note("renamed", as_of)

    def require_changeable(self, as_of: dt.datetime) -> None:
        """Raises Refused, in words for the supporter, unless the amount and the name may still be changed."""
        if not self.round.is_open(as_of):
            raise Refused(gettext("This case has closed: pledges can no longer be changed."))
        if self.status == "held":
            raise Refused(gettext("We still look at this pledge. You can change it once it counts, or cancel it."))
        if self.status not in ("started", "abandoned", "confirmed"):
            raise Refused(gettext("This pledge has ended, so it can no longer be changed."))
        if self.status != "confirmed":
            self.round.require_pledging(as_of)

    def require_other_amount(self, amount_pence: int, as_of: dt.datetime) -> None:
        """Raises Refused unless this pledge, which counts, may become one of this amount."""
        self.require_changeable(as_of)
        if self.status != "confirmed":
            raise Refused(gettext("Your card is not saved yet. Please load your private page anew."))
        if amount_pence == self.amount_pence:
            raise Refused(gettext("Your pledge is %(amount)s already.", amount=pounds(amount_pence)))
        if amount_pence > self.amount_pence:
            self.round.require_pledging(as_of)

    def change_amount(self, amount_pence: int, as_of: dt.datetime) -> None:
        """Another amount for a pledge that counts, freshly agreed to. Needs the round to be held.

        Less holds at once. More needs a card saved on a page of Stripe's that names it, and until then the pledge
        stays as it was: nobody who only has the private link can have more taken from a card than its owner agreed
        to. Any card page that was open must have been closed at Stripe.
        """
        self.require_other_amount(amount_pence, as_of)
        if self.awaits_card:
            raise Refused(gettext("Stripe's page for a card was opened for this pledge just now. Please try again."))
        before = self.amount_pence
        agreement = self._agree(amount_pence, as_of)
        if amount_pence > before:
            self.asked_pence = amount_pence
            self._note("raise_asked", as_of, _from_to(before, amount_pence))
        else:
            self._change_to(agreement, as_of)

    def _change_to(self, agreement: "Agreement", as_of: dt.datetime) -> None:
        """From here on the pledge counts with the amount of this agreement; its supporter is told."""
        before = self.amount_pence
        self._put_in_force(agreement)
        self.round.count(self.amount_pence - before, 0, as_of)
        self._note("changed", as_of, _from_to(before, self.amount_pence))
        db.session.flush()
        Letter.owe("changed", self, f"agreement:{agreement.id}", as_of)

    def rename(self, name: str, shown_as: str, as_of: dt.datetime) -> None:
        """How others see the supporter. Silent when it is so already."""
        self.require_changeable(as_of)
        if (name, shown_as) != (self.name, self.shown_as):
            self.name, self.shown_as = name, shown_as
            self._note("renamed", as_of)
            if self.comment_id is not None and (its_comment := Comment.hold(self.comment_id)) is not None:
                its_comment.sign(self._signature)

    def _note(self, what: str, as_of: dt.datetime, note: str = "") -> None:
        """A line of history about what the supporter did that moved no state."""
        Event.write(self, what, "supporter", as_of, note=note)

    @property
    def page_pence(self) -> int:
        """The amount that a card page must name."""
        return self.asked_pence or self.amount_pence

    @property
    def next_session(self) -> str:
        """The key of the card page that will be asked for next."""
        return f"pledge-{self.id}-session-{self.session_no + 1}"

    @property
    def session_key(self) -> str:
        """The key of the card page that was asked for last."""
        return f"pledge-{self.id}-session-{self.session_no}"

    def ask_card_page(self, params: dict[str, Any], expires_at: dt.datetime) -> None:
        """Note what Stripe is about to be asked, so that a lost answer can be asked for again."""
        self.session_no += 1
        self.awaits_card = True
        self.left_with = self.link_version
        self.session_id = self.session_url = None
        self.session_params, self.session_expires_at = params, expires_at
        if self.status == "started":
            self.tries = 0

    def card_page_is_asked_for(self, until: dt.datetime) -> None:
        """Somebody asks Stripe for the noted page right now. If that comes to no end, the clock asks again then.

        Silent for a pledge that has a card already: its `next_at` is for other work.
        """
        if self.status == "started":
            self.next_at, self.tries = until, self.tries + 1

    def leave_card_page_to_clock(self, as_of: dt.datetime) -> None:
        """Nobody can ask Stripe for the noted page right now, so the clock does. Silent for one with a card."""
        if self.status == "started" and self.session_id is None and self.session_params is not None:
            self.next_at = as_of

    @property
    def awaits_page(self) -> bool:
        """Whether the card page of a pledge without a card is still to be made, now or by the clock."""
        return self.status == "started" and self.session_id is None and self.next_at is not None

    @property
    def page_was_never_asked_for(self) -> bool:
        """Whether its first card page was left to the clock, which never came to it: Stripe has not heard of it."""
        waits = self.status in ("started", "cancelled", "released") and self.next_at is not None
        return waits and self.confirmed_at is None and self.session_id is None and self.tries == 0

    def forget_card_page(self) -> None:
        """Nobody asks Stripe any more for a page of which it has not heard. Needs the round to be held."""
        self.session_params = self.session_expires_at = None
        if self.status == "started":
            self.next_at = None

    @classmethod
    def waiting_for_page(cls, as_of: dt.datetime, limit: int) -> list[int]:
        """The ids of pledges for whose card page the clock should ask now, those that wait for longest first."""
        taken = sa.and_(Round.status == "open", Round.deadline >= as_of, Case.visibility == "public",
                        Case.pledging_paused.is_(False))  # fmt: skip
        waits = sa.and_(cls.status == "started", cls.next_at <= as_of, cls.session_id.is_(None),
                        cls.confirm_by.is_(None))  # fmt: skip
        found = sa.select(cls.id).join(Round).join(Case).where(waits, taken)
        return list(db.session.scalars(found.order_by(cls.next_at, cls.id).limit(limit)))

    @classmethod
    def claim_page(cls, pledge_id: int, as_of: dt.datetime, lease: dt.timedelta) -> Self | None:
        """Take it, so that nobody else asks for its page meanwhile; None when there is nothing to ask for any more."""
        pledge = cls.hold(pledge_id)
        if not pledge.awaits_page or pledge.session_params is None or (pledge.next_at or EPOCH) > as_of:
            return None
        pledge.card_page_is_asked_for(as_of + lease)
        return pledge

    @property
    def leads_back(self) -> bool:
        """Whether the way back from Stripe or the bank leads to the private page: not after the link with which its
        supporter left was replaced, since whoever stole that link may know the way as well."""
        return self.left_with == self.link_version

    def may_come_back(self, as_of: dt.datetime) -> bool:
        """Whether the card page still leads to the private page: while a card may be saved there, and shortly after one
        was, or came to nothing. Its number stands in Stripe's dashboard and in our backups, so it may be no key for
        good."""
        over = self._page_ends_at is None or as_of > self._page_ends_at + law.WAY_BACK
        if over or not self.leads_back:
            return False
        ends = ("confirmed", "held", "card_replaced", "card_not_taken", "abandoned", "released", "cancelled")
        return self.awaits_card or self._was_lately(ends, as_of)

    @property
    def _page_ends_at(self) -> dt.datetime | None:
        """When Stripe closes the card page, though nobody may be led there any more since the promise was changed."""
        asked = (self.session_params or {}).get("expires_at")
        return dt.datetime.fromtimestamp(asked, dt.UTC) if asked else self.session_expires_at

    def may_come_back_from_bank(self, as_of: dt.datetime) -> bool:
        """As may_come_back, of the payment: while the bank waits for its supporter, and shortly after its answer."""
        if not self.leads_back or self.bank_url is not None:
            return self.leads_back
        was_there = bool(self.attempts) and "return_url" in self.attempts[-1].params
        return was_there and self._was_lately(("charged", "declined", "action_required", "not_approved"), as_of)

    def _was_lately(self, what: tuple[str, ...], as_of: dt.datetime) -> bool:
        of_it = sa.and_(Event.subject_kind == "pledge", Event.subject_id == self.id)
        lately = sa.select(Event.id).where(of_it, Event.what.in_(what), Event.at >= as_of - law.WAY_BACK)
        return db.session.scalar(lately.limit(1)) is not None

    def card_page_made(self, key: str, session_id: str, url: str | None) -> None:
        """Keep Stripe's answer, unless the supporter has started over in the meantime."""
        if key == self.session_key and self.session_id is None and self.session_params is not None:
            self.session_id, self.session_url = session_id, url
            if self.status == "started":
                self.next_at, self.tries = None, 0

    @property
    def wants_card(self) -> bool:
        """Whether a card saved on the open card page would be put to use."""
        return self.awaits_card and self.status in ("started", "confirmed", *REFUSED)

    def apply_card(self, found: "CardFound", as_of: dt.datetime, above_doubt: bool = False) -> None:
        """Take in what Stripe says of this pledge's card page. Safe twice; needs the round to be held.

        Occurs when a webhook, the return page or the closing round looks at the session. The card counts
        only if Stripe's clock saw it saved by the deadline; later ones are released and the supporter is
        told. A card saved for a pledge that had already ended is noted so that it can be removed, and the
        supporter is told why the pledge ended. A pledge that has a card already gets the new one instead,
        if it can still be used. Who applies many has looked before whether one is `above_doubt`.
        """
        if found.session_id != self.session_id:
            return
        if self.confirmed_at is not None:
            self._apply_second_card(found, as_of)
            return
        if self.status == "started" and found.expired:
            self.abandon(as_of)
        elif self.status == "started" and found.saved_at is not None:
            self._keep_card(found)
            if self.round.status in ("open", "closing") and law.in_time(found.saved_at, self.round.deadline):
                self._confirm_or_hold(as_of, above_doubt)
            else:
                self.release("too_late", "stripe", as_of)
        elif self.status in ("released", "cancelled") and found.payment_method_id and not self.card_saved_at:
            self._keep_card(found)
            self.next_at = as_of
            if self.ended_because != "supporter":
                # Whoever saved a card believes that the pledge counts, and is told why it does not.
                Letter.owe(self.ended_because or "too_late", self, "released", as_of)

    def _apply_second_card(self, found: "CardFound", as_of: dt.datetime) -> None:
        """The page on which the saved card is to be replaced has ended, with a new card or without.

        One of the two cards is left over, and is removed at Stripe: the new one, if it came too late or is odd, since
        the pledge counts already and could not be held any more.
        """
        doubt = ""
        unclear = self.status == "confirmed" and found.complete and found.saved_at is None
        if not self.awaits_card or unclear or not (found.expired or found.complete):
            return
        if found.expired:
            self._end_raise(False, as_of)
            self.awaits_card = False
        elif self._takes_second_card(found, as_of) and not (doubt := self._doubt_of_second(found, as_of)):
            OldCard.put_aside(self, self.payment_method_id, as_of)
            Event.write(self, "card_replaced", "supporter", as_of)
            self._agree_by_card(found.saved_at or as_of, as_of)
            self._keep_card(found)
            self._end_raise(True, as_of)
            if self.status in REFUSED:
                self._due_again("supporter", as_of)
        else:
            self.awaits_card = False
            OldCard.put_aside(self, found.payment_method_id, as_of)
            Event.write(self, "card_not_taken", "stripe", as_of, note=doubt)
            if self._end_raise(False, as_of):
                # Whoever saved a card for a higher amount believes that it counts.
                Letter.owe("not_raised", self, self.session_key, as_of)

    def _end_raise(self, taken: bool, as_of: dt.datetime) -> bool:
        """The page that named a higher amount is over: it holds if a card was saved there. Whether there was one."""
        if self.asked_pence is None or self.status != "confirmed":
            return False
        self.asked_pence = None
        if taken:
            self._change_to(self.agreements[-1], as_of)
        else:
            Event.write(self, "not_raised", "stripe", as_of)
        return True

    def _takes_second_card(self, found: "CardFound", as_of: dt.datetime) -> bool:
        if self.status == "confirmed":
            in_time = found.saved_at is not None and law.in_time(found.saved_at, self.round.deadline)
            return self.round.status in ("open", "closing") and in_time
        # What is due was not asked for yet, so that the new card can still be the one that is charged.
        return self.is_repairable(as_of) or (self.status == "due" and bool(self.refused_at))

    def _keep_card(self, found: "CardFound") -> None:
        self.awaits_card = False
        # A card for a repair is saved long after the deadline, and that of the first is what made the pledge count.
        if self.status not in ("due", *REFUSED):
            self.card_saved_at = found.saved_at or self.card_saved_at
        self.card_words = None if self.erased_at else found.card_words
        self.payment_method_id = found.payment_method_id
        # All cards of a pledge belong to its one customer, and so does its one payment.
        self.customer_id = self.customer_id or found.customer_id
        self.card_mark = None if self.erased_at else _card_mark(found)

    def require_new_card(self, as_of: dt.datetime) -> None:
        """Raises Refused unless this pledge's saved card may be replaced by another one."""
        if self.status == "confirmed":
            if not self.round.is_open(as_of):
                raise Refused(gettext("This case has closed: cards can no longer be changed."))
            # A pause of staff's stops what adds to the total, and another card adds nothing.
            if (halt := self.round.halt(as_of)) == "rests":
                raise Refused(gettext(HALTED[halt]))
        else:
            self._require_repairable(as_of)
            self._require_charges()

    def _confirm_or_hold(self, as_of: dt.datetime, above_doubt: bool) -> None:
        if above_doubt:
            self._confirm(as_of)
            return
        # What others have got in the same transaction is looked at as well.
        db.session.flush()
        asks = self.email_confirmed_at is None and Breaker.is_watchful(self.round, as_of)
        if doubt := self._doubt(self.card_mark, self._saved_at) or ("unconfirmed" if asks else ""):
            self._hold_back(doubt, as_of)
        else:
            self._confirm(as_of)

    def _confirm(self, as_of: dt.datetime, by: str = "stripe") -> None:
        came_from = self.came_from
        self._move("confirmed", by, as_of)
        # Whoever lets it count asks for nothing more, or no other card could ever be saved for it.
        self.confirmed_at, self.confirm_by = as_of, None
        self.round.count(self.amount_pence, 1, as_of)
        Source.count(self.round, came_from, "confirmed", as_of)
        self._comment(as_of)
        Letter.owe("confirmed", self, "confirmed", as_of)

    def _comment(self, as_of: dt.datetime) -> None:
        """A message that is for everyone waits for a moderator from now on, as any other comment does.

        One that was sent before in the same words, by whomever, is not this supporter's to change.
        """
        if self.message is None or self.message_for != "everyone" or self.round.case.comments_locked:
            return
        taken = self.round.case.take_comment(self._signature, self.email, self.message, as_of, language=self.language)
        if taken.is_new:
            self.comment = taken

    def _take_comment_back(self, as_of: dt.datetime) -> None:
        """What nobody has read yet goes with the pledge; what is public by now stays its author's to withdraw."""
        held = Comment.hold(self.comment_id) if self.comment_id else None
        if held is not None and held.status == "pending" and held.public_body is None:
            held.withdraw(as_of)

    def cancel(self, as_of: dt.datetime) -> None:
        """The supporter takes the pledge back; final once it was said. Needs the round to be held."""
        if self.status == "cancelled":
            return
        if not self.round.is_open(as_of):
            raise Refused(gettext("This case has closed: pledges can no longer be cancelled."))
        counted, was_held = self.status == "confirmed", self.status == "held"
        self._move("cancelled", "supporter", as_of)
        self.ended_because, self.next_at = "supporter", as_of
        if was_held:
            Letter.owe("cancelled", self, "cancelled", as_of)
        if counted:
            self.round.count(-self.amount_pence, -1, as_of)
            self._take_comment_back(as_of)
            Letter.owe("cancelled", self, "cancelled", as_of)

    def release(self, because: str, by: str, as_of: dt.datetime) -> None:
        """Let the pledge go, never charged: missed, too_late or case_cancelled. Its card is removed next.

        Until its round was decided the total falls with it; afterwards the total is what was decided.
        """
        before = self.status
        self._move("released", by, as_of)
        self.ended_because, self.next_at = because, as_of
        if before == "confirmed" and self.round.settled_at is None:
            self.round.count(-self.amount_pence, -1, as_of)
        if because == "too_late" or before != "started":
            Letter.owe(because, self, "released", as_of)

    def abandon(self, as_of: dt.datetime) -> None:
        """Its card page ended, or was never made, and no card was saved."""
        self._move("abandoned", "stripe", as_of)
        self.awaits_card, self.next_at = False, None

    def card_page_never_made(self, as_of: dt.datetime) -> None:
        """No page was made on which a card could be saved: a pledge with a card keeps it."""
        if self.status == "started":
            self.abandon(as_of)
        self._end_raise(False, as_of)
        self.awaits_card = False

    def decide_card(self, found: "CardFound", counts: bool, by: str, as_of: dt.datetime) -> None:
        """A person decides about a saved card whose event cannot be found; see law 3."""
        waits = self.status == "started" or (self.status == "confirmed" and self.awaits_card)
        if not waits or not found.complete or found.session_id != self.session_id:
            raise Refused(gettext("This pledge does not wait for a decision."))
        if self.status == "confirmed":
            left_over = self.payment_method_id if counts else found.payment_method_id
            OldCard.put_aside(self, left_over, as_of)
            if counts:
                self._keep_card(found)
            if self._end_raise(counts, as_of) and not counts:
                Letter.owe("not_raised", self, self.session_key, as_of)
            self.awaits_card = False
        elif counts:
            self._keep_card(found)
            self._confirm(as_of)
        else:
            self._keep_card(found)
            self.release("too_late", by, as_of)
        Event.write(self, "decided", by, as_of, note="counts" if counts else "does not count")

    def card_removed(self) -> None:
        """Stripe no longer has a card, nor an open card page, for this pledge."""
        self.payment_method_id = self.session_url = self.next_at = None
        self.awaits_card = False

    # The supporter's address, and the link that goes there

    def subscribe(self, as_of: dt.datetime) -> None:
        """Updates of this case from here on. Silent when they were asked for before."""
        if not self.wants_updates:
            self.wants_updates = True
            self._note("subscribed", as_of)

    def unsubscribe(self, as_of: dt.datetime) -> None:
        """No more updates of this case to this address, whichever of its pledges asked for them.

        One whose card was never saved speaks for itself alone: its address may be anybody's.
        """
        rounds = sa.select(Round.id).where(Round.case_id == self.round.case_id)
        mine = Pledge.email_lowered == self.email.lower() if self.confirmed_at else Pledge.id == self.id
        same = sa.select(Pledge).where(Pledge.round_id.in_(rounds), mine, Pledge.wants_updates)
        for pledge in db.session.scalars(same):
            pledge.wants_updates = False
            pledge._note("unsubscribed", as_of)

    @classmethod
    def living_at(cls, email: str) -> list[Self]:
        """The pledges of an address, newest first, without those that ended and were never paid."""
        found = sa.select(cls).where(cls.email_lowered == email.lower(), cls.status.not_in(ENDED_UNPAID))
        return list(db.session.scalars(found.order_by(cls.id.desc())))

    def replace_link(self, as_of: dt.datetime) -> None:
        """A new private link; the old one, and what was asked for with it and still waits, is dead at once.

        The letter with the new one goes to the supporter's address, so that whoever replaces a link that was stolen
        keeps no secret from its true owner. Needs the pledge to be held.
        """
        replaced = sa.select(sa.func.count()).where(
            Event.subject_kind == "pledge", Event.subject_id == self.id, Event.what == "link_replaced",
            Event.at > as_of - dt.timedelta(days=1),
        )  # fmt: skip
        if (db.session.scalar(replaced) or 0) >= LINKS_A_DAY:
            raise Refused(
                gettext("This link was replaced %(times)s times today. Please come back tomorrow.", times=LINKS_A_DAY)
            )
        self._note("link_replaced", as_of)
        self._renew_link(as_of)

    def _renew_link(self, as_of: dt.datetime) -> None:
        self.link_version += 1
        Letter.owe("link_replaced", self, f"link:{self.link_version}", as_of)

    def require_other_address(self) -> None:
        """Raises Refused unless letters about this pledge are still to come."""
        if self.status in ENDED_UNPAID:
            raise Refused(gettext("This pledge has ended, and no more letters about it will come."))

    def ask_other_address(self, email: str, as_of: dt.datetime) -> "AddressChange":
        """The supporter wants letters to go to another address: its reader is asked first. Needs the pledge held."""
        self.require_other_address()
        asked = sa.select(sa.func.count()).where(
            AddressChange.pledge_id == self.id, AddressChange.asked_at > as_of - dt.timedelta(days=1)
        )
        if (db.session.scalar(asked) or 0) >= ADDRESSES_A_DAY:
            raise Refused(
                gettext("%(count)s addresses were tried today. Please come back tomorrow.", count=ADDRESSES_A_DAY)
            )
        change = AddressChange(
            pledge=self, public_id=secrets.token_hex(10), link_version=self.link_version, old_email=self.email,
            new_email=email, asked_at=as_of,
        )  # fmt: skip
        db.session.add(change)
        db.session.flush()
        self._note("address_asked", as_of)
        Letter.owe("new_address", change, "asked", as_of)
        return change

    def address_asked(self, as_of: dt.datetime) -> str:
        """The address that was asked for last and whose reader has not answered yet; "" when none waits."""
        found = sa.select(AddressChange).where(AddressChange.pledge_id == self.id).order_by(AddressChange.id.desc())
        last = db.session.scalar(found.limit(1))
        return last.new_email if last and last.waits(as_of) else ""

    # While cards are tried out

    def ask_confirmation(self, as_of: dt.datetime) -> None:
        """Nobody is sent to Stripe for this pledge, and it does not count, before the reader of its address has said
        so. A letter that was sent before for the same leads nowhere any more."""
        self.confirm_no += 1
        self.confirm_by = as_of + law.CONFIRMATION_WAITS
        Event.write(self, "address_question", "clock", as_of)
        Letter.owe("confirmation", self, f"confirmation:{self.confirm_no}", as_of)

    def may_be_confirmed(self, as_of: dt.datetime) -> bool:
        """Whether the link of the letter with the question may be used now."""
        waits = self.status == "started" or self.is_held_for_its_address
        return waits and self.confirm_by is not None and as_of <= self.confirm_by and self.round.is_open(as_of)

    @property
    def is_held_for_its_address(self) -> bool:
        """Whether its supporter may let it count, by confirming the address."""
        return self.status == "held" and self.held_because == "unconfirmed"

    def confirm_email(self, as_of: dt.datetime) -> None:
        """The reader of the address has said that it is theirs. Silent when that was said. Needs the pledge held."""
        if self.email_confirmed_at is not None and self.confirm_by is None and self.status == "started":
            return
        if not self.may_be_confirmed(as_of):
            raise Refused(gettext("This link has run out. Please pledge again on the page of the case."))
        if self.status == "started":
            self.round.require_pledging(as_of)
        if self.changed_since(self.agreement):
            # The letter's page shows the promise that holds now, and so does Stripe's page where one is to come.
            self._put_in_force(self._agree(self.amount_pence, as_of))
        self.confirm_by, self.email_confirmed_at = None, as_of
        self._note("address_confirmed", as_of)
        if self.status != "held":
            return
        # Much may have been seen of its card since it was saved.
        if doubt := self._doubt(self.card_mark, self._saved_at):
            self._ask_staff(doubt, as_of)
        else:
            self._confirm(as_of, "supporter")

    @classmethod
    def too_many_unanswered(cls, network: str, as_of: dt.datetime) -> bool:
        """Whether a network must answer first: scripts never do, and of those who mean it most do within minutes."""
        lately = sa.and_(cls.network == network, cls.started_at > as_of - law.FAILURES_WITHIN)
        asked = sa.select(sa.func.count(cls.confirm_by), sa.func.count(cls.email_confirmed_at)).where(lately)
        unanswered, answered = db.session.execute(asked).one()
        return bool(unanswered >= law.UNANSWERED_A_NETWORK + answered)

    @classmethod
    def rounds_of_unanswered(cls, as_of: dt.datetime) -> list[int]:
        """The ids of rounds in which somebody has not confirmed an address in time."""
        unanswered = sa.and_(cls.confirm_by.is_not(None), cls.confirm_by < as_of, cls.status == "started")
        return list(db.session.scalars(sa.select(cls.round_id).where(unanswered).distinct().order_by(cls.round_id)))

    @property
    def _saved_at(self) -> dt.datetime:
        return self.card_saved_at or self.started_at

    def _doubt(self, card_mark: str | None, saved_at: dt.datetime) -> str:
        """Why this pledge should be looked at before it counts with a card that was saved then: one of law.DOUBTS, or
        "".

        Two people may have one card, and somebody may mistype it: neither alone is odd.
        """
        if doubt := self._doubt_of_card(card_mark, saved_at):
            return doubt
        if CardFailure.cards_of(self, card_mark) >= law.CARDS_TRIED:
            return "many_cards"
        return "network" if CardFailure.too_many_from(self.network, saved_at) else ""

    @classmethod
    def above_doubt(cls, saved: "list[tuple[Self, CardFound]]", as_of: dt.datetime) -> set[int]:
        """Those of many held pledges, with the cards that were found for them, that count without a further look.

        By the questions of `_confirm_or_hold`, asked for all at once and more strictly: who is not among these may
        count all the same. The breaker need not be weighed for each: whoever gets a card only calms it.
        """
        saved = [(pledge, found) for pledge, found in saved if found.saved_at is not None]
        if not saved:
            return set()
        marks = {one.id: secret_mark("card", found.fingerprint) if found.fingerprint else "" for one, found in saved}
        earliest = min(found.saved_at for _, found in saved if found.saved_at is not None)
        shared = cls._shared_cards([(pledge.round_id, marks[pledge.id]) for pledge, _ in saved])
        watched = {its_round.id for its_round in {pledge.round for pledge, _ in saved}
                   if Breaker.is_watchful(its_round, as_of)}  # fmt: skip
        tried = CardFailure.often({pledge.id for pledge, _ in saved}, set(marks.values()) - {""},
                                  {pledge.network for pledge, _ in saved} - {""}, earliest)  # fmt: skip
        return {
            pledge.id
            for pledge, _ in saved
            if not (pledge.round_id in watched and pledge.email_confirmed_at is None)
            if (pledge.round_id, marks[pledge.id]) not in shared
            if not tried & {pledge.id, marks[pledge.id], pledge.network}
        }

    @classmethod
    def _shared_cards(cls, here: list[tuple[int, str]]) -> set[tuple[int, str]]:
        """Those of these (round, mark of a card) that so many pledges have, these counted in, that it may be odd."""
        have = Counter(one for one in here if one[1])
        for round_id in {round_id for round_id, _ in have}:
            marks = [mark for its_round, mark in have if its_round == round_id]
            known = sa.select(cls.card_mark, sa.func.count()).where(cls.round_id == round_id, cls.card_mark.in_(marks))
            for mark, number in db.session.execute(known.group_by(cls.card_mark)):
                have[round_id, str(mark)] += number
        return {one for one, number in have.items() if number >= current_app.config["STANDING"].same_card}

    def _doubt_of_card(self, card_mark: str | None, saved_at: dt.datetime) -> str:
        """As _doubt, by what others did with the very same card."""
        if card_mark is None:
            return ""
        if self._others_with(card_mark) >= current_app.config["STANDING"].same_card - 1:
            return "same_card"
        return "card_refused" if CardFailure.elsewhere(self, card_mark, saved_at) >= law.CARD_REFUSED else ""

    def _doubt_of_second(self, found: "CardFound", as_of: dt.datetime) -> str:
        """Why a card that was saved in the place of another one should not be used: one of law.DOUBTS, or "".

        Of a pledge that staff have looked at, and of one whose payment was refused, only the card itself is weighed:
        whoever has to pay may well try several.
        """
        # What others have got in the same transaction is looked at as well.
        db.session.flush()
        card_mark, saved_at = _card_mark(found), found.saved_at or as_of
        let_count = self.held_because not in (None, "unconfirmed")
        if let_count and card_mark == self.card_mark:
            return ""
        if let_count or self.status != "confirmed":
            return self._doubt_of_card(card_mark, saved_at)
        return self._doubt(card_mark, saved_at)

    def _others_with(self, card_mark: str) -> int:
        """How many other people's pledges for the same case a card is behind."""
        others = sa.select(sa.func.count(Pledge.email_lowered.distinct())).where(
            Pledge.round_id == self.round_id, Pledge.card_mark == card_mark,
            Pledge.email_lowered != self.email.lower(), Pledge.card_saved_at.is_not(None),
        )  # fmt: skip
        return int(db.session.scalar(others) or 0)

    def _hold_back(self, doubt: str, as_of: dt.datetime) -> None:
        """It does not count until staff say so, who are told, as its supporter is. Where only its address is not
        confirmed, since its card page was made before anybody was asked, its supporter says so."""
        self.held_because = doubt
        self._move("held", "stripe", as_of)
        if doubt == "unconfirmed":
            self.ask_confirmation(as_of)
        else:
            self._ask_staff(doubt, as_of)

    def _ask_staff(self, doubt: str, as_of: dt.datetime) -> None:
        """Staff and its supporter are told of a pledge that is held."""
        self.held_because = doubt
        Letter.owe("looked_at", self, "held", as_of)
        Letter.owe_staff("pledges_held", f"case:{self.round.case_id}:{as_of.date().isoformat()}", as_of)

    def let_count(self, reason: str, by: User, as_of: dt.datetime) -> None:
        """Staff have looked at it: it counts from now on. Only before the deadline, which is when the review is over.
        Needs the pledge held."""
        self._require_held(as_of)
        Event.write(self, "decided", f"user:{by.id}", as_of, note=reason)
        self._confirm(as_of, f"user:{by.id}")

    def refuse(self, reason: str, by: User, as_of: dt.datetime) -> None:
        """Staff have looked at it: it never counts, and its card is removed. Needs the pledge held."""
        self._require_held(as_of)
        Event.write(self, "decided", f"user:{by.id}", as_of, note=reason)
        self.release("not_released", f"user:{by.id}", as_of)

    def _require_held(self, as_of: dt.datetime) -> None:
        if self.status != "held" or not self.round.is_open(as_of):
            raise Refused(gettext("This pledge is not held any more, so there is nothing to decide."))

    @classmethod
    def held(cls, limit: int) -> list[Self]:
        """For staff: pledges to look at, those whose round ends first at the top. Not those that wait for their
        supporters."""
        found = sa.select(cls).join(Round).where(cls.is_to_be_looked_at()).order_by(Round.deadline, cls.id).limit(limit)
        return list(db.session.scalars(found.options(sa.orm.joinedload(cls.round).joinedload(Round.case))))

    @classmethod
    def is_to_be_looked_at(cls) -> sa.ColumnElement[bool]:
        return sa.and_(cls.status == "held", cls.held_because != "unconfirmed")

    @classmethod
    def remind_of_held(cls, as_of: dt.datetime) -> None:
        """Staff are told once, before a round ends, that pledges of it are still held: they are let go as it ends."""
        soon = sa.and_(cls.is_to_be_looked_at(), Round.status == "open", Round.deadline <= as_of + law.REMIND_OF_HELD)
        for case_id in list(db.session.scalars(sa.select(Round.case_id).join(cls).where(soon).distinct())):
            Letter.owe_staff("pledges_held", f"case:{case_id}:ends", as_of)

    # Erasing

    def require_erasable(self, as_of: dt.datetime) -> None:
        """Raises Refused, in words for the supporter, while the name or the card is needed, and says until when."""
        if self.status in ("started", "confirmed", "held") and not self.round.is_open(as_of):
            raise Refused(
                gettext("This case is being decided just now, so nothing can be erased. Please come back in an hour.")
            )
        if self.status in (*TO_CHARGE, *REFUSED):
            raise Refused(
                gettext(
                    "Your card is being charged, or may still be, so nothing can be erased yet. That comes to its end "
                    "at most eight days after the deadline, and you get a letter."
                )
            )
        if self.status == "disputed":
            raise Refused(
                gettext("Your bank is deciding about this payment, so nothing can be erased until it has decided.")
            )
        on_its_way = sa.select(Refund.id).where(Refund.pledge_id == self.id, Refund.status.in_(("asking", "pending")))
        if db.session.scalar(on_its_way.limit(1)) is not None:
            raise Refused(gettext("Money is on its way back to you. Once it has arrived everything can be erased."))

    def erase(self, by: str, as_of: dt.datetime) -> None:
        """What is left says how much was promised, when, and what became of it, with Stripe's numbers of the payment;
        and nothing of whom. One that still counts is cancelled by it. Safe twice; needs the pledge to be held.

        What Stripe has, and what is needed until it is gone there, goes in a job: see Erasure.
        """
        if self.erased_at is not None:
            return
        self.require_erasable(as_of)
        if self.status in ("started", "confirmed", "held"):
            self.cancel(as_of)
        if self.comment_id is not None and (its_comment := Comment.hold(self.comment_id)) is not None:
            its_comment.erase(by, as_of)
        changes = list(db.session.scalars(sa.select(AddressChange).where(AddressChange.pledge_id == self.id)))
        letters = [name_of(self), *(name_of(one) for one in changes)]
        addresses = {self.email, *(one for change in changes for one in (change.old_email, change.new_email))}
        for change in changes:
            change.old_email = change.new_email = ""
        db.session.execute(sa.update(Refund).where(Refund.pledge_id == self.id).values(reason=""))
        Event.empty_notes(sa.and_(Event.subject_kind == "pledge", Event.subject_id == self.id))
        self.name = self.email = self.came_from = ""
        self.shown_as, self.wants_updates, self.language = "hidden", False, ENGLISH
        self.message = self.message_for = self.card_words = self.bank_url = self.card_mark = None
        self.network, self.confirm_by = "", None
        failures = sa.update(CardFailure).where(CardFailure.pledge_id == self.id)
        db.session.execute(failures.values(email_mark="", network="", card_mark=""))
        # A form that is still open somewhere makes a new pledge, and no link leads here.
        self.form_key = f"erased-{self.public_id}"
        self.link_version += 1
        self.erased_at = as_of
        for address in addresses:
            letters += _forget_mailbox(address)
        Erasure.begin(self, letters, by, as_of)
        Event.write(self, "erased", by, as_of)

    def may_be_forgotten_at_stripe(self, as_of: dt.datetime) -> bool:
        """Whether nothing is left to do there with its cards or its card page."""
        page_is_over = not self.awaits_card or (self.session_expires_at is not None and self.session_expires_at < as_of)
        old = sa.select(OldCard.id).where(OldCard.pledge_id == self.id, OldCard.next_at.is_not(None)).limit(1)
        return self.next_at is None and page_is_over and db.session.scalar(old) is None

    def forget_stripes_words(self) -> None:
        """What it took to ask Stripe, once that is done for good: whose card it was is known by the payment alone."""
        self.session_params = self.session_url = self.payment_method_id = self.customer_id = None
        asked = sa.update(ChargeAttempt).where(ChargeAttempt.pledge_id == self.id)
        db.session.execute(asked.values(params={}))
        db.session.execute(sa.delete(OldCard).where(OldCard.pledge_id == self.id))

    # Charging

    @classmethod
    def waiting_to_charge(cls, as_of: dt.datetime, limit: int, after_round: int = 0) -> list[Self]:
        """Pledges to charge now: due ones, and those asked about whose answer never came.

        Rounds take turns, beginning with the one after `after_round`, so that a small case does not wait for a large
        one. Each comes with its round and its attempts, so that a claim asks for nothing more.
        """
        rounds = Round.with_charges_waiting(as_of)
        rounds = [one for one in rounds if one > after_round] + [one for one in rounds if one <= after_round]
        share = -(-limit // max(1, len(rounds)))
        queues = [cls._waiting_in(round_id, as_of, share) for round_id in rounds[:limit]]
        turns = [one for turn in itertools.zip_longest(*queues) for one in turn if one is not None][:limit]
        found = sa.select(cls).where(cls.id.in_(turns)).options(*cls._whole()).with_for_update(of=cls, skip_locked=True)
        pledges = {pledge.id: pledge for pledge in db.session.scalars(found.execution_options(populate_existing=True))}
        return [pledges[one] for one in turns if one in pledges and pledges[one].waits_to_be_charged(as_of)]

    @classmethod
    def _waiting_in(cls, round_id: int, as_of: dt.datetime, limit: int) -> list[int]:
        found = sa.select(cls.id).where(cls.round_id == round_id, *cls.to_charge(as_of))
        return list(db.session.scalars(found.order_by(cls.next_at, cls.id).limit(limit)))

    @classmethod
    def to_charge(cls, as_of: dt.datetime) -> list[sa.ColumnElement[bool]]:
        """What must be so of a pledge that is to be asked for now, besides its case."""
        return [cls.status.in_(TO_CHARGE), cls.next_at <= as_of, sa.not_(cls._too_late_to_try(as_of))]

    @classmethod
    def _too_late_to_try(cls, as_of: dt.datetime) -> sa.ColumnElement[bool]:
        """As law.too_late_to_try, for a query."""
        latest = as_of - law.REPAIR_WINDOW - law.LAST_RETRY_LATE
        return sa.and_(cls.refused_at.is_not(None), cls.refused_at < latest)

    def is_too_late_to_try(self, as_of: dt.datetime) -> bool:
        """Whether it was refused so long ago that it may not be asked for again, though a further try was begun."""
        return self.refused_at is not None and law.too_late_to_try(self.refused_at, as_of)

    @classmethod
    def in_trouble(cls) -> list[Self]:
        """For staff: the oldest fifty whose charge was asked for more than once, or has no answer."""
        return list(db.session.scalars(sa.select(cls).where(cls.is_troubled()).order_by(cls.id).limit(50)))

    @classmethod
    def is_troubled(cls) -> sa.ColumnElement[bool]:
        """For a query; see `in_trouble`."""
        return sa.or_(
            cls.status == "unknown",
            sa.and_(cls.status == "charging", cls.tries > 1),
            sa.and_(cls.status == "due", cls.tries > 0),
        )

    def waits_to_be_charged(self, as_of: dt.datetime) -> bool:
        waits = self.status in TO_CHARGE and self.next_at is not None and self.next_at <= as_of
        return waits and self.round.case.charges and not self.is_too_late_to_try(as_of)

    @classmethod
    def _whole(cls) -> list[Any]:
        """How to read many pledges at once with all that charging them looks at."""
        return [sa.orm.selectinload(cls.round).selectinload(Round.case), sa.orm.selectinload(cls.attempts)]

    @classmethod
    def hold_all(cls, pledge_ids: list[int]) -> list[Self]:
        """As `hold`, for many at once. Their rounds are locked in one order, so that two of these never wait for
        each other."""
        rounds = sa.select(cls.round_id).where(cls.id.in_(pledge_ids)).distinct()
        for round_id in sorted(db.session.scalars(rounds)):
            Round.hold(round_id)
        found = sa.select(cls).where(cls.id.in_(pledge_ids)).order_by(cls.id).options(*cls._whole())
        return list(db.session.scalars(found.with_for_update(of=cls).execution_options(populate_existing=True)))

    @classmethod
    def keep_claims(cls, pledge_ids: Iterable[int], until: dt.datetime) -> None:
        """Those of them that are still being asked about belong to their asker until then."""
        asked = sa.and_(cls.id.in_(list(pledge_ids)), cls.status.in_(("charging", "unknown")))
        # Locked in one order, as whoever cancels a case locks them, so that the two never wait for each other.
        held = list(db.session.scalars(sa.select(cls.id).where(asked).order_by(cls.id).with_for_update()))
        db.session.execute(sa.update(cls).where(cls.id.in_(held)).values(next_at=until))

    @classmethod
    def waiting_to_stop(cls, as_of: dt.datetime) -> list[int]:
        """The ids of pledges whose case was cancelled while they were being charged, and whose end is not known."""
        cancelled = sa.select(Round.id).join(Case).where(Case.status == "cancelled")
        open_ends = cls.status.in_(("due", *cls.PAYMENT_BEGUN)) & cls.round_id.in_(cancelled)
        found = sa.select(cls.id).where(open_ends, cls.next_at <= as_of).order_by(cls.next_at, cls.id)
        return list(db.session.scalars(found))

    @classmethod
    def claim_to_stop(cls, pledge_id: int, as_of: dt.datetime, lease: dt.timedelta) -> bool:
        """Take one of these for a look at Stripe; False when it has ended meanwhile, or somebody else has it."""
        pledge = cls.hold(pledge_id)
        if pledge.status not in ("due", *cls.PAYMENT_BEGUN) or pledge.next_at is None or pledge.next_at > as_of:
            return False
        pledge.next_at = as_of + lease
        return True

    @classmethod
    def waiting_to_let_go(cls, as_of: dt.datetime) -> list[int]:
        """The ids of ended pledges whose card, or card page, is still to be removed at Stripe."""
        ended = cls.status.in_(("released", "cancelled", "dropped"))
        return list(db.session.scalars(sa.select(cls.id).where(ended, cls.next_at <= as_of).order_by(cls.next_at)))

    @classmethod
    def waiting_for_repair(cls, as_of: dt.datetime) -> list[int]:
        """The ids of refused pledges for which the clock has something to do: try again, remind, or drop.

        Among them are those whose further try was begun, and came to no end in time.
        """
        stuck = sa.and_(cls.status.in_(TO_CHARGE), cls._too_late_to_try(as_of))
        waiting = sa.and_(cls.status.in_(REFUSED) | stuck, cls.next_at <= as_of)
        found = sa.select(cls.id).join(Round).join(Case).where(waiting)
        return list(db.session.scalars(found.where(Case.may_charge()).order_by(cls.next_at)))

    def claim(self, as_of: dt.datetime, lease: dt.timedelta) -> "ChargeAttempt":
        """Take the pledge for one charge. A due one gets a new numbered attempt; others keep theirs.

        Until the lease is over nobody else asks. A new number, and so a new key, exists only after a
        definite answer: an attempt without an answer is asked again with the very same key.
        """
        self.next_at = as_of + lease
        self.tries += 1
        if self.status != "due":
            return self.attempts[-1]
        self._move("charging", "clock", as_of)
        number = len(self.attempts) + 1
        attempt = ChargeAttempt(
            pledge_id=self.id, number=number, kind="confirm" if self.payment_intent_id else "create",
            key=f"pledge-{self.id}-charge-{number}", status="asking", asked_at=as_of, code="", params={},
        )  # fmt: skip
        self.attempts.append(attempt)
        return attempt

    def is_at(self, number: int) -> bool:
        """Whether the attempt with this number is the one that is being asked for, or was asked for last."""
        return len(self.attempts) == number

    def apply_answer(self, number: int, found: "ChargeFound | None", as_of: dt.datetime) -> None:
        """Take in the answer to one attempt, None when Stripe has nothing of it. Needs the pledge to be held.

        Whoever asked may have been so slow that another asked the same with the same key, and that the next attempt is
        under way by now. Of that one this answer says nothing; only money that was taken is believed at any time.
        """
        if self.is_at(number):
            if found is None:
                self.nothing_was_asked(as_of)
            else:
                self.apply_charge(found, as_of, asked=True)
        elif found is not None and found.outcome == "succeeded" and self.status in self.PAYMENT_BEGUN:
            self.payment_intent_id = found.payment_intent_id
            self.attempts[number - 1].answer(found)
            self._charged(found, as_of)

    def apply_charge(self, found: "ChargeFound", as_of: dt.datetime, asked: bool = False) -> None:
        """Take in what Stripe says of this pledge's payment. Safe twice; needs the pledge to be held.

        `asked` says that this is the answer to the current attempt itself. A refusal that was merely found
        is not believed while an attempt is being asked, since it may belong to the attempt before; money
        that was taken is believed at once, whoever says it.
        """
        if self.status in REFUSED:
            self._apply_to_refused(found, as_of)
            return
        if self.status == "due" and found.outcome == "succeeded":
            self.found_paid(found, as_of)
            return
        if self.status not in ("charging", "unknown"):
            return
        attempt = self.attempts[-1]
        merely_found = found.outcome in REFUSED and not asked
        if merely_found and (self.status == "charging" or self._is_of_earlier_attempt(found)):
            return
        self.payment_intent_id = found.payment_intent_id or self.payment_intent_id
        attempt.answer(found)
        if found.outcome == "unknown":
            self._move("unknown", "stripe", as_of)
            self.next_at = as_of + pause(self.tries)
        elif found.outcome == "succeeded":
            self._charged(found, as_of)
        elif self.round.case.status == "cancelled":
            # Nobody is asked to repair a payment of a cancelled case: it is given up at Stripe next.
            self._move(found.outcome, "stripe", as_of)
            self.next_at = as_of
        else:
            self._refused(found, as_of)

    def _is_of_earlier_attempt(self, found: "ChargeFound") -> bool:
        """Whether a refusal that was found is that of a charge which an attempt before the last one made."""
        earlier = {known.charge_id for known in self.attempts[:-1]}
        return found.charge_id is not None and found.charge_id in earlier

    def _apply_to_refused(self, found: "ChargeFound", as_of: dt.datetime) -> None:
        """Something happened at the bank's page, or the payment of a refused pledge is found paid."""
        attempt = self.attempts[-1]
        if found.outcome == "succeeded":
            attempt.answer(found)
            self._charged(found, as_of)
        elif self.bank_url is None or found.bank_url or found.outcome == "unknown":
            # The bank was not asked, or still waits for its answer.
            return
        elif found.outcome == "declined" and found.charge_id not in {known.charge_id for known in self.attempts}:
            attempt.answer(found)
            self._refused(found, as_of)
        elif found.code == law.NOT_APPROVED:
            # Any other refusal is that of the charge before: it was looked up before the bank was asked.
            self.bank_url, attempt.code = None, found.code
            Event.write(self, "not_approved", "stripe", as_of)

    def _charged(self, found: "ChargeFound", as_of: dt.datetime) -> None:
        if found.amount_pence != self.amount_pence:
            raise ValueError(f"pledge {self.id}: Stripe took {found.amount_pence}, not {self.amount_pence}")
        self._move("charged", "stripe", as_of)
        self.next_at = self.repair_until = self.bank_url = None
        _add_line(
            Movement, case_id=self.round.case_id, pledge_id=self.id, kind="charge", amount_pence=self.amount_pence,
            stripe_id=found.charge_id, at=as_of,
        )  # fmt: skip
        Letter.owe("charged", self, "charged", as_of)
        if self.round.case.status == "cancelled":
            Letter.owe("cancelled_charged", self, "case_cancelled", as_of)

    def _refused(self, found: "ChargeFound", as_of: dt.datetime) -> None:
        """The bank said no, or wants to see the supporter. The first refusal opens the window for repair."""
        self._move(found.outcome, "stripe", as_of)
        self.refused_at = self.refused_at or as_of
        self.repair_until = self.refused_at + law.REPAIR_WINDOW
        self.refused_softly = found.outcome == "declined" and found.soft
        self.bank_url = found.bank_url
        self._count_steps(as_of)
        if self.is_repairable(as_of) and not self.bank_url:
            # When the window is over, the letter that it has ended is all there is to say; and whoever has the
            # bank's page in front of them needs no letter about it.
            Letter.owe(found.outcome, self, f"attempt:{len(self.attempts)}", as_of)

    def nothing_was_asked(self, as_of: dt.datetime) -> None:
        """Looked up after its key may be gone, and Stripe has no payment: it is due with a new number.

        Not before the last request with the old key must have arrived if ever it does; see law.NEW_KEY_AFTER.
        """
        if self.status not in ("charging", "unknown"):
            return
        attempt = self.attempts[-1]
        self._move("unknown", "stripe", as_of)
        if as_of - attempt.asked_at <= law.NEW_KEY_AFTER:
            self.next_at = as_of + pause(self.tries)
            return
        attempt.status, attempt.code = "unknown", "never_arrived"
        self._move("due", "clock", as_of)
        self.next_at = as_of

    def wait(self, as_of: dt.datetime) -> None:
        """Nothing could be done just now: look again after a growing pause. Silent when it was decided, or halted,
        while somebody was at it, and nothing waits any more."""
        if self.next_at is None:
            return
        self.tries += 1
        self.next_at = as_of + pause(self.tries)

    def halt(self, why: str, as_of: dt.datetime) -> None:
        """Stripe calls the request itself wrong, which is a mistake of ours: to ask again would change nothing.

        The operator is told, and says when the mistake is mended; see `ask_again`.
        """
        if self.status not in ("charging", "unknown"):
            return
        self._move("unknown", "stripe", as_of)
        self.attempts[-1].status, self.attempts[-1].code = "unknown", "wrong_request"
        Event.write(self, "halted", "stripe", as_of, note=why)
        if self.round.case.status == "cancelled":
            # It is not to be asked for again anyway, but given up at Stripe next.
            self.next_at = as_of
            return
        self.next_at = None
        Letter.owe("charges_halted", self.round, as_of.date().isoformat(), as_of, language=ENGLISH)

    def ask_again(self, by: str, as_of: dt.datetime) -> None:
        """Go on after a halt: with a request made anew, and the same key, as an earlier one may have arrived."""
        self.attempts[-1].params = {}
        self.next_at, self.tries = as_of, 0
        Event.write(self, "asked_again", by, as_of)

    # Repair

    def is_repairable(self, as_of: dt.datetime) -> bool:
        """Whether a refused payment may still be made good. As the window ends it is given up at Stripe, and when the
        case is cancelled at once. While charges are frozen the window stands still."""
        if self.status not in REFUSED or self.repair_until is None or self.round.case.status == "cancelled":
            return False
        return (self.round.case.frozen_at() or as_of) < self.repair_until

    def _require_repairable(self, as_of: dt.datetime) -> None:
        """Raises Refused, in words for the supporter, unless there is a refused payment that can be made good."""
        if self.status == "charged":
            raise Refused(gettext("Your card was charged already. There is nothing more to pay."))
        if self.status in (*TO_CHARGE, *REFUSED) and self.round.case.status == "cancelled":
            raise Refused(gettext("The case was cancelled, so nothing more is charged. You will get a letter."))
        if self.status == "dropped" or (self.status in REFUSED and not self.is_repairable(as_of)):
            raise Refused(
                gettext("The time for paying this pledge is over. You were not charged, and never will be for it.")
            )
        if self.status in ("due", "charging", "unknown"):
            raise Refused(gettext("Your card is being charged just now. You will get a letter."))
        if self.status not in REFUSED:
            raise Refused(gettext("There is no refused payment of this pledge."))

    def _require_charges(self) -> None:
        """Raises Refused while staff have frozen the charges of its case."""
        if self.round.case.charges_frozen:
            raise Refused(
                gettext(
                    "Charges for this case are held back at the moment, so nothing was done, and nothing is lost: your "
                    "time to pay stands still meanwhile. We write to you as soon as you can pay."
                )
            )

    @property
    def was_not_approved(self) -> bool:
        """Whether the supporter was at the bank's page, and the bank says that the payment was not approved there."""
        return bool(self.attempts) and self.attempts[-1].code == law.NOT_APPROVED

    @property
    def refused_again_at(self) -> dt.datetime | None:
        """When its payment was asked for last, once it was refused more than once and waits for its supporter."""
        refused = [one for one in self.attempts if one.status in REFUSED]
        return refused[-1].asked_at if self.status == "declined" and len(refused) > 1 else None

    @property
    def next_retry_at(self) -> dt.datetime | None:
        """When the same card is tried again without the supporter, if ever."""
        may_retry = self.status == "declined" and self.refused_softly and not self.stop_trying
        if not may_retry or self.refused_at is None or self.retried >= len(law.RETRIES):
            return None
        return self.refused_at + law.RETRIES[self.retried]

    def repair_step(self, as_of: dt.datetime) -> law.RepairStep:
        """What the clock does next about this refused pledge."""
        if self.refused_at is None:
            raise Refused(gettext("There is no refused payment of this pledge."))
        may_retry = self.next_retry_at is not None and not law.too_late_to_try(self.refused_at, as_of)
        # Once the window is over there is nothing left to remind of.
        over = as_of >= self.refused_at + law.REPAIR_WINDOW
        reminded = max(self.reminded, law.used_up(self.refused_at, as_of)[1]) if over else self.reminded
        return law.next_repair_step(self.refused_at, self.retried, reminded, may_retry)

    def _count_steps(self, as_of: dt.datetime, retried: int = 0, reminded: int = 0) -> None:
        """Take note of the steps that were taken, and of those that lie behind anyhow, and see what comes next."""
        if self.refused_at is None:
            return
        retries, reminders = law.used_up(self.refused_at, as_of)
        self.retried, self.reminded = max(self.retried + retried, retries), max(self.reminded + reminded, reminders)
        self.tries = 0
        self.next_at = self.repair_step(as_of).at

    def pay_again(self, as_of: dt.datetime) -> bool:
        """The supporter wants the same card to be charged, now. False when that is under way already."""
        if self.status in ("due", "charging", "unknown") and self.refused_at is not None:
            return False
        self._require_repairable(as_of)
        self._require_charges()
        if self.status == "declined" and not self.refused_softly:
            raise Refused(gettext("Your bank does not allow this card any more. Please use another card."))
        since = as_of - dt.timedelta(days=1)
        if sum(one.kind == "confirm" and one.asked_at > since for one in self.attempts) >= PAYMENTS_A_DAY:
            raise Refused(
                gettext(
                    "This payment was tried again %(times)s times within a day. Please use another card, or come back "
                    "tomorrow.",
                    times=PAYMENTS_A_DAY,
                )
            )
        self._due_again("supporter", as_of)
        self.left_with = self.link_version
        return True

    def retry(self, as_of: dt.datetime) -> None:
        """The clock tries the same card again, since the refusal was a soft one."""
        self._count_steps(as_of, retried=1)
        self._due_again("clock", as_of)

    def _due_again(self, by: str, as_of: dt.datetime) -> None:
        if self.round.status != "met":
            raise Refused(gettext("Only a pledge of a round that was met can be charged."))
        self._move("due", by, as_of)
        self.next_at, self.bank_url, self.tries = as_of, None, 0

    def remind(self, as_of: dt.datetime) -> None:
        """The supporter is told once more that the payment is missing."""
        self._count_steps(as_of, reminded=1)
        Letter.owe("reminder", self, f"reminder:{self.reminded}", as_of)
        Event.write(self, "reminded", "clock", as_of)

    def window_goes_on(self, frozen_at: dt.datetime, by: str, as_of: dt.datetime) -> None:
        """Charges were frozen since then and go on: that time does not count, and the supporter is told the new date.

        A window that was over before is not opened again: its payment may be given up at Stripe already.
        """
        if self.refused_at is None or self.repair_until is None or self.repair_until <= frozen_at:
            return
        self.refused_at = law.counted_from(self.refused_at, frozen_at, as_of)
        self.repair_until = self.refused_at + law.REPAIR_WINDOW
        if self.status in REFUSED:
            self._count_steps(as_of)
            Event.write(self, "charges_went_on", by, as_of, note=f"until {self.repair_until.isoformat()}")
            Letter.owe("reminder", self, f"charges_go_on:{as_of.isoformat(timespec='seconds')}", as_of)

    def end_retries(self, as_of: dt.datetime) -> None:
        """The supporter wants no further try of the card without being asked. Silent when it was said before."""
        self._require_repairable(as_of)
        if self.stop_trying:
            return
        self.stop_trying = True
        Event.write(self, "stopped_trying", "supporter", as_of)
        self._count_steps(as_of)

    def request_may_arrive(self, as_of: dt.datetime) -> bool:
        """Whether Stripe may still get a request for the payment of this pledge, and take money for it.

        Not if none was ever made, not a day after it was made, and not once the card has been gone for long enough.
        """
        if not self.attempts or as_of - self.attempts[-1].asked_at > law.NEW_KEY_AFTER:
            return False
        of_pledge = sa.and_(Event.subject_kind == "pledge", Event.subject_id == self.id)
        removed = sa.select(sa.func.max(Event.at)).where(of_pledge, Event.what == "card_removed")
        removed_at = db.session.scalar(removed) if self.payment_method_id is None else None
        return removed_at is None or as_of - removed_at <= law.LAST_REQUEST

    def card_taken_away(self, payment_method_id: str, as_of: dt.datetime) -> None:
        """Its card was removed at Stripe before the pledge has ended, so that nothing can be charged any more."""
        if self.payment_method_id == payment_method_id:
            self.payment_method_id = None
            Event.write(self, "card_removed", "clock", as_of)

    def found_paid(self, found: "ChargeFound", as_of: dt.datetime) -> None:
        """It was to be given up or asked for again, but Stripe has its payment as paid: what was charged stays so."""
        if self.status not in ("due", *self.PAYMENT_BEGUN):
            return
        if self.status == "due" and not self.attempts:
            # It was asked for by what our rows knew before a backup was restored: with this number, and so this key.
            self.claim(as_of, dt.timedelta(0))
        elif self.status == "due":
            # A new try was waiting, though the one before had been paid: its answer belongs to that one.
            self._move("charging", "clock", as_of)
        self.payment_intent_id = found.payment_intent_id
        self.attempts[-1].answer(found)
        self._charged(found, as_of)

    def stopped(self, as_of: dt.datetime) -> None:
        """Stripe has said that its payment is not paid and never can be: released, as its case was cancelled."""
        self._end_attempt("case_cancelled", as_of)
        self.release("case_cancelled", "clock", as_of)

    def _end_attempt(self, because: str, as_of: dt.datetime) -> None:
        """What was asked for last will never be answered, since its payment was given up at Stripe."""
        if self.status in ("charging", "unknown"):
            self.attempts[-1].status, self.attempts[-1].code = "unknown", because
            self._move("unknown", "stripe", as_of)
            self._move("due", "clock", as_of)

    def drop(self, as_of: dt.datetime) -> None:
        """The repair window is over, and Stripe can take nothing any more: given up, never charged."""
        self._end_attempt("too_late", as_of)
        self._move("dropped", "clock", as_of)
        self.next_at, self.bank_url = as_of, None
        Letter.owe("dropped", self, "dropped", as_of)

    # After the charge

    @property
    def refundable_pence(self) -> int:
        """What may still be paid back: the amount less what went back, or is on its way."""
        asked = sa.select(sa.func.coalesce(sa.func.sum(Refund.amount_pence), 0)).where(
            Refund.pledge_id == self.id, Refund.status.in_(("asking", "pending"))
        )
        return self.amount_pence - self.refunded_pence - int(db.session.scalar(asked) or 0)

    def ask_refund(self, form_key: str, amount_pence: int, reason: str, by: User, as_of: dt.datetime) -> "Refund":
        """Staff give money back. The same form sent again finds the refund it made before.

        Needs the pledge to be held. Raises Refused for nothing, for more than the rest, and while it is disputed.
        """
        known = db.session.scalar(sa.select(Refund).where(Refund.form_key == form_key))
        if known is not None and known.pledge_id == self.id:
            return known
        if known is not None:
            raise Refused(gettext("This form belongs to another pledge. Open the page of the pledge and refund there."))
        if self.status == "disputed":
            raise Refused(
                gettext("The bank has been asked to take this payment back. Nothing can be refunded until it decides.")
            )
        if self.status != "charged":
            raise Refused(
                gettext("This pledge is %(status)s: there is nothing to refund.", status=gettext(self.status))
            )
        if amount_pence <= 0:
            raise Refused(gettext("A refund must be more than nothing."))
        if amount_pence > (rest := self.refundable_pence):
            raise Refused(gettext("At most %(amount)s of this pledge can still be refunded.", amount=pounds(rest)))
        refund = Refund(
            pledge=self, form_key=form_key, amount_pence=amount_pence, reason=reason, status="asking", asked_by=by,
            asked_at=as_of, code="", next_at=as_of, tries=0,
        )  # fmt: skip
        db.session.add(refund)
        db.session.flush()
        Event.write(self, "refund_asked", f"user:{by.id}", as_of, note=f"{pounds(amount_pence, law.ENGLISH)}: {reason}")
        return refund

    def apply_refund(self, found: "RefundFound", as_of: dt.datetime) -> None:
        """Take in what Stripe says of one refund, ours or made at Stripe by hand. Safe twice; needs the pledge held.

        The ledger decides what is new: one line under the refund's own id when it is paid, a second one, the other
        way round, when it has failed after that.
        """
        self._note_refund(found, as_of)
        if found.refund_id is None:
            return
        paid, undone = Movement.known(found.refund_id), Movement.known(f"{found.refund_id}:failed")
        if found.outcome == "succeeded" and not paid:
            self._book("refund", -found.amount_pence, found.refund_id, as_of)
            self.refunded_pence += found.amount_pence
            in_books = pounds(found.amount_pence, law.ENGLISH)
            Event.write(self, "money_back", "stripe", as_of, note=f"{in_books}, {found.refund_id}")
            Letter.owe("refunded", self, found.refund_id, as_of)
        elif found.outcome == "failed" and paid and not undone:
            self._book("refund", found.amount_pence, f"{found.refund_id}:failed", as_of)
            self.refunded_pence -= found.amount_pence
        self._weigh_refunds(as_of)

    def _weigh_refunds(self, as_of: dt.datetime) -> None:
        """Refunded is what has gone back as a whole; while a bank decides, that decision comes first."""
        if self.status == "charged" and self.refunded_pence == self.amount_pence:
            self._move("refunded", "stripe", as_of)
        elif self.status == "refunded" and self.refunded_pence < self.amount_pence:
            self._move("charged", "stripe", as_of)
            # What a bank asked for meanwhile had to wait.
            self._weigh_disputes(as_of)

    def _note_refund(self, found: "RefundFound", as_of: dt.datetime) -> None:
        """Keep the answer on the row of ours that asked for it; staff are told of a failure, whoever asked."""
        ours = Refund.of(self, found)
        if ours is not None:
            before = ours.status
            if ours.stripe_id is None or (found.refund_id and before != "failed"):
                ours.status, ours.code, ours.stripe_id = found.outcome, found.code, found.refund_id
                ours.next_at = as_of + REFUND_PAUSE if found.outcome == "pending" else None
            if before == ours.status or ours.status != "failed":
                return
        elif found.outcome != "failed" or not Movement.known(str(found.refund_id)):
            return
        in_books = pounds(found.amount_pence, law.ENGLISH)
        Event.write(self, "refund_failed", "stripe", as_of, note=f"{in_books}, {found.code}")
        Letter.owe_staff("refund_failed", f"{name_of(self)}:{found.refund_id or (ours and ours.id)}", as_of)

    def apply_dispute(self, found: "DisputeFound", as_of: dt.datetime) -> None:
        """Its bank wants the payment back, or has decided about that. Safe twice; needs the pledge to be held.

        Two lines of the ledger, each under a name of its own: the money that was held, and the money given back.
        """
        if found.held:
            if not Movement.known(found.dispute_id):
                self._book("dispute", -found.amount_pence, found.dispute_id, as_of)
            given_back = f"{found.dispute_id}:won"
            if found.outcome == "won" and not Movement.known(given_back):
                self._book("dispute", found.amount_pence, given_back, as_of)
        self._weigh_disputes(as_of)
        self._weigh_refunds(as_of)

    def _weigh_disputes(self, as_of: dt.datetime) -> None:
        """Charged, disputed or charged back, by all that is known of its disputes, in whatever order that came."""
        known = set(db.session.scalars(sa.select(Dispute.status).where(Dispute.pledge_id == self.id)))
        if self.status == "charged" and known & {"open", "lost"}:
            self._move("disputed", "stripe", as_of)
        if self.status == "disputed" and "open" not in known:
            self._move("charged_back" if "lost" in known else "charged", "stripe", as_of)

    def _book(self, kind: str, amount_pence: int, stripe_id: str, as_of: dt.datetime) -> None:
        db.session.add(
            Movement(case_id=self.round.case_id, pledge_id=self.id, kind=kind, amount_pence=amount_pence,
                     stripe_id=stripe_id, at=as_of)
        )  # fmt: skip
        db.session.flush()

    def charged_at(self) -> dt.datetime | None:
        """When its card was charged; None while it was not."""
        charges = (one.at for one in self.movements() if one.kind == "charge")
        return next(charges, None)

    def require_receipt(self) -> dt.datetime:
        """When it was charged. Raises Refused when there is nothing to give a receipt for."""
        charged_at = self.charged_at()
        if charged_at is None:
            raise Refused(gettext("There is no receipt, since this pledge has not been charged."))
        return charged_at

    def owe_receipt(self, as_of: dt.datetime) -> None:
        """The receipt as a letter, once more. Needs the pledge to be held."""
        self.require_receipt()
        sent = sa.select(sa.func.count()).where(Letter.kind == "receipt", Letter.subject == name_of(self))
        today = db.session.scalar(sent.where(Letter.created_at > as_of - dt.timedelta(days=1))) or 0
        if today >= RECEIPTS_A_DAY:
            raise Refused(
                gettext(
                    "%(count)s receipts were sent today, to %(email)s. Ask again tomorrow.",
                    count=RECEIPTS_A_DAY,
                    email=self.email,
                )
            )
        number = int(db.session.scalar(sent) or 0) + 1
        Letter.owe("receipt", self, f"receipt:{number}", as_of)
        Event.write(self, "receipt_asked", "supporter", as_of)

    def _move(self, to: str, by: str, as_of: dt.datetime) -> None:
        move(self, law.PLEDGE_MOVES, to, by, as_of)
        # What was counted, or never will be, need not be known of anybody.
        if to not in ("started", "held", "abandoned"):
            self.came_from = ""


@functools.cache
def _held_pledge() -> tuple[sa.Select[Any], sa.Select[Any]]:
    """The two questions of Pledge.hold: its round first, as everybody takes the two locks. Kept, as _held_at is."""
    number = sa.bindparam("pledge", type_=sa.Integer)
    its_round = Round.id == sa.select(Pledge.round_id).where(Pledge.id == number).scalar_subquery()
    fresh = {"populate_existing": True}
    return (
        sa.select(Round).where(its_round).with_for_update().execution_options(**fresh),
        sa.select(Pledge).where(Pledge.id == number).with_for_update().execution_options(**fresh),
    )


class Agreement(Base):
    """What a supporter agreed to, in the very words. Rows are only ever added; a pledge says itself which one holds."""

    __tablename__ = "agreements"

    id: Mapped[Key]
    pledge_id: Mapped[int] = mapped_column(sa.ForeignKey("pledges.id"), index=True)
    version: Mapped[int]
    amount_pence: Mapped[Pence]
    # The amount until then; none for the first agreement of a pledge.
    before_pence: Mapped[Pence | None] = mapped_column(sa.BigInteger)
    # The promise that the words name.
    deadline: Mapped[dt.datetime]
    target_pence: Mapped[Pence]
    words: Mapped[str] = mapped_column(sa.Text)
    agreed_at: Mapped[dt.datetime]


class AddressChange(Base):
    """A supporter's wish that letters go to another address.

    It comes true when the reader of that address says so, and the private link is then replaced, since the old one
    lies in somebody else's letters. Whoever reads the old address is told, and may take it back for a while, with a
    link of its own that no replacing kills: so a stolen private link never keeps its true owner out.
    """

    __tablename__ = "address_changes"

    id: Mapped[Key]
    pledge_id: Mapped[int] = mapped_column(sa.ForeignKey("pledges.id"), index=True)
    public_id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    # The version of the private link with which it was asked for: replaced since, the wish is void.
    link_version: Mapped[int]
    old_email: Mapped[str] = mapped_column(sa.String(254))
    new_email: Mapped[str] = mapped_column(sa.String(254))
    asked_at: Mapped[dt.datetime]
    made_at: Mapped[dt.datetime | None]
    taken_back_at: Mapped[dt.datetime | None]

    pledge: Mapped[Pledge] = relationship()

    @classmethod
    def by_link(cls, link: str, purpose: str) -> Self | None:
        """The change of a link: "new-address" is for the reader of the new one, "old-address" for that of the old."""
        public_id, _, _ = link.partition(".")
        change = db.session.scalar(sa.select(cls).where(cls.public_id == public_id))
        return change if change and change.new_email and is_genuine(link, purpose, public_id, 0) else None

    @classmethod
    def hold(cls, change_id: int) -> Self:
        """The change, freshly read, with its pledge held and its own row locked until the transaction ends."""
        Pledge.hold(db.session.scalars(sa.select(cls.pledge_id).where(cls.id == change_id)).one())
        found = sa.select(cls).where(cls.id == change_id).with_for_update()
        return db.session.scalars(found.execution_options(populate_existing=True)).one()

    def link(self, purpose: str) -> str:
        return signed_link(purpose, self.public_id, 0)

    def waits(self, as_of: dt.datetime) -> bool:
        """Whether the reader of the new address may still say yes."""
        if self.made_at is not None or self.pledge.status in ENDED_UNPAID:
            return False
        return as_of - self.asked_at <= law.NEW_ADDRESS_WAITS and self.link_version == self.pledge.link_version

    def require_waiting(self, as_of: dt.datetime) -> None:
        if self.made_at is not None:
            raise Refused(
                gettext(
                    "This was done already. A letter to %(email)s has the link of your pledge.", email=self.new_email
                )
            )
        self.pledge.require_other_address()
        if not self.waits(as_of):
            raise Refused(
                gettext("This link is too old, or the link of the pledge was replaced since. Nothing was changed.")
            )

    def make(self, as_of: dt.datetime) -> None:
        """The reader of the new address said yes. Needs the pledge to be held."""
        self.require_waiting(as_of)
        self.made_at = as_of
        self._send_letters_to(self.new_email, "address_changed", as_of)
        Letter.owe("address_left", self, "made", as_of)

    def require_way_back(self, as_of: dt.datetime) -> None:
        if self.taken_back_at is not None:
            raise Refused(
                gettext("This was taken back already. The letter that we sent then has the link of your pledge.")
            )
        if self.made_at is None or as_of - self.made_at > law.OLD_ADDRESS_MAY_OBJECT:
            raise Refused(gettext("It is too late to take this back here. Please write to us."))

    def take_back(self, as_of: dt.datetime) -> None:
        """The reader of the old address did not want this: it goes back, and so does all that was built upon it.

        Needs the pledge to be held.
        """
        self.require_way_back(as_of)
        since = sa.select(AddressChange).where(
            AddressChange.pledge_id == self.pledge_id, AddressChange.id >= self.id, AddressChange.made_at.is_not(None)
        )
        for change in db.session.scalars(since.order_by(AddressChange.id)):
            change.taken_back_at = change.taken_back_at or as_of
            Letter.owe("address_taken_back", change, "taken back", as_of)
        self._send_letters_to(self.old_email, "address_taken_back", as_of)

    def _send_letters_to(self, email: str, what: str, as_of: dt.datetime) -> None:
        self.pledge.email = email
        self.pledge._note(what, as_of)
        self.pledge._renew_link(as_of)


class LinkRequest(Base):
    """Somebody has lost a private link, and asks for all links of an address, which may be anybody's.

    Nothing here says whether the address has pledges: that is found out by the job that writes the letter.
    """

    __tablename__ = "link_requests"

    id: Mapped[Key]
    email: Mapped[str] = mapped_column(sa.String(254), unique=True)
    asked_at: Mapped[dt.datetime] = mapped_column(index=True)

    @classmethod
    def ask(cls, email: str, as_of: dt.datetime, language: str = ENGLISH) -> None:
        """Owe the letter; asked again within some minutes it stays one. Addresses of long ago are forgotten."""
        cls._forget(as_of)
        insert_once(cls, email=email.lower(), asked_at=as_of)
        request = db.session.scalars(sa.select(cls).where(cls.email == email.lower()).with_for_update()).one()
        if as_of - request.asked_at > FIND_PAUSE:
            request.asked_at = as_of
        Letter.owe("links", request, request.asked_at.isoformat(), as_of, language=language)

    @classmethod
    def _forget(cls, as_of: dt.datetime) -> None:
        """What was asked for a day ago and was answered, or had nothing to be answered with."""
        subject = sa.literal("link_request:") + sa.cast(cls.id, sa.String)
        waits = sa.exists().where(Letter.subject == subject, Letter.sent_at.is_(None))
        db.session.execute(sa.delete(cls).where(cls.asked_at < as_of - dt.timedelta(days=1), ~waits))

    def pledges(self) -> list[Pledge]:
        return Pledge.living_at(self.email)


class ChargeAttempt(Base):
    """What we asked Stripe, with which key, and what it answered. Attempt 1 creates, later ones confirm."""

    __tablename__ = "charge_attempts"
    __table_args__ = (
        sa.UniqueConstraint("pledge_id", "number"),
        one_of("kind", ("create", "confirm")),
        one_of("status", ("asking", "succeeded", "declined", "action_required", "unknown")),
    )

    id: Mapped[Key]
    pledge_id: Mapped[int] = mapped_column(sa.ForeignKey("pledges.id"), index=True)
    number: Mapped[int]
    kind: Mapped[str] = mapped_column(sa.String(20))
    key: Mapped[str] = mapped_column(sa.String(80), unique=True)
    params: Mapped[dict[str, Any]]
    status: Mapped[str] = mapped_column(sa.String(20))
    asked_at: Mapped[dt.datetime]
    code: Mapped[str] = mapped_column(sa.String(80))
    charge_id: Mapped[str | None] = mapped_column(sa.String(120))

    def answer(self, found: "ChargeFound") -> None:
        self.status, self.code, self.charge_id = found.outcome, found.code, found.charge_id


class Movement(Base):
    """The ledger of money that moved: what came in is above zero, what went out below. Rows are only ever added."""

    __tablename__ = "movements"
    __table_args__ = (
        one_of("kind", ("charge", "fee", "refund", "dispute")),
        sa.CheckConstraint("kind != 'charge' OR amount_pence > 0", name="charge_above_zero"),
    )

    id: Mapped[Key]
    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id"), index=True)
    pledge_id: Mapped[int | None] = mapped_column(sa.ForeignKey("pledges.id"), index=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    amount_pence: Mapped[Pence]
    stripe_id: Mapped[str] = mapped_column(sa.String(120), unique=True)
    at: Mapped[dt.datetime]

    @classmethod
    def known(cls, stripe_id: str) -> bool:
        return db.session.scalar(sa.select(cls.id).where(cls.stripe_id == stripe_id)) is not None

    def take_fee(self, line_id: str, fee_pence: int, as_of: dt.datetime) -> None:
        """Book what Stripe kept for this movement, or gave back of it (below zero). Safe twice."""
        if fee_pence:
            insert_once(
                Movement, case_id=self.case_id, pledge_id=self.pledge_id, kind="fee", amount_pence=-fee_pence,
                stripe_id=line_id, at=as_of,
            )  # fmt: skip


class CardFailure(Base):
    """A card that could not be saved for a pledge, as Stripe told us. It is counted, shown to nobody, and forgotten.

    Of the address, the network and the card only marks are kept, which say whether two are the same.
    """

    __tablename__ = "card_failures"
    __table_args__ = (
        sa.Index("ix_card_failures_round_id_at", "round_id", "at"),
        sa.Index("ix_card_failures_network_at", "network", "at"),
        sa.Index("ix_card_failures_email_mark_at", "email_mark", "at"),
        sa.Index("ix_card_failures_card_mark_at", "card_mark", "at"),
    )

    id: Mapped[Key]
    event_id: Mapped[str] = mapped_column(sa.String(120), unique=True)
    pledge_id: Mapped[int] = mapped_column(sa.ForeignKey("pledges.id"), index=True)
    round_id: Mapped[int] = mapped_column(sa.ForeignKey("rounds.id"))
    # That of the card page on which it was typed.
    setup_intent_id: Mapped[str] = mapped_column(sa.String(120), index=True)
    at: Mapped[dt.datetime] = mapped_column(index=True)
    email_mark: Mapped[str] = mapped_column(sa.String(24))
    network: Mapped[str] = mapped_column(sa.String(24))
    card_mark: Mapped[str] = mapped_column(sa.String(24))
    # Whether the address of its pledge had been confirmed by then.
    confirmed: Mapped[bool]

    @classmethod
    def write(cls, event: "StripeEvent", pledge: Pledge, fingerprint: str) -> None:
        """Count it, once for each event."""
        insert_once(
            cls, event_id=event.event_id, pledge_id=pledge.id, round_id=pledge.round_id, at=event.created_at,
            setup_intent_id=event.object_id, email_mark=secret_mark("email", pledge.email.lower()),
            network=pledge.network, card_mark=secret_mark("card", fingerprint) if fingerprint else "",
            confirmed=pledge.email_confirmed_at is not None,
        )  # fmt: skip

    @classmethod
    def on_page(cls, setup_intent_id: str) -> int:
        """How many cards were refused on one card page."""
        return cls._count(cls.setup_intent_id == setup_intent_id)

    @classmethod
    def cards_of(cls, pledge: Pledge, saved: str | None) -> int:
        """How many different cards, other than the one that was saved, were refused for a pledge."""
        of_it = sa.select(sa.func.count(cls.card_mark.distinct())).where(cls.pledge_id == pledge.id)
        return int(db.session.scalar(of_it.where(cls.card_mark != (saved or ""))) or 0)

    @classmethod
    def elsewhere(cls, pledge: Pledge, card_mark: str, as_of: dt.datetime) -> int:
        """How often a card that is saved for a pledge was refused for others lately."""
        since = cls.at > as_of - law.CARD_REFUSED_WITHIN
        return cls._count(cls.card_mark == card_mark, since, cls.pledge_id != pledge.id)

    @classmethod
    def often(cls, pledge_ids: set[int], cards: set[str], networks: set[str], as_of: dt.datetime) -> set[int | str]:
        """Those of many pledges, marks of cards and networks at which so many cards were refused that it may be odd;
        for a quick look at all of them, before a closer one at each."""
        found: set[int | str] = set()
        for column, among, enough, since in (
            (cls.pledge_id, pledge_ids, law.CARDS_TRIED, EPOCH),
            (cls.card_mark, cards, law.CARD_REFUSED, as_of - law.CARD_REFUSED_WITHIN),
            (cls.network, networks, law.FAILURES_A_NETWORK + 1, as_of - law.FAILURES_WITHIN),
        ):
            refused = sa.select(column).where(column.in_(among), cls.at > since).group_by(column)
            found |= set(db.session.scalars(refused.having(sa.func.count() >= enough))) if among else set()
        return found

    @classmethod
    def too_many_for(cls, email: str, as_of: dt.datetime) -> bool:
        since = cls.at > as_of - law.FAILURES_WITHIN
        return cls._count(cls.email_mark == secret_mark("email", email.lower()), since) >= law.FAILURES_AN_ADDRESS

    @classmethod
    def too_many_from(cls, network: str, as_of: dt.datetime) -> bool:
        """Whether cards are tried out from a network, which may be that of a library or of all who telephone."""
        refused = cls._count(cls.network == network, cls.at > as_of - law.FAILURES_WITHIN) if network else 0
        return cls.are_tried_from(network, refused, as_of)

    @classmethod
    def are_tried_from(cls, network: str, refused: int, as_of: dt.datetime) -> bool:
        """Whether so many refused cards are more than all who come from this network would have."""
        if refused <= law.FAILURES_A_NETWORK or not network:
            return False
        since = as_of - law.FAILURES_WITHIN
        counted = sa.select(sa.func.count()).where(
            Pledge.started_at > since, Pledge.network == network, Pledge.confirmed_at.is_not(None)
        )
        return law.cards_are_tried(refused, 0, db.session.scalar(counted) or 0, law.FAILURES_A_NETWORK, 0)

    @classmethod
    def _count(cls, *which: sa.ColumnElement[bool]) -> int:
        return int(db.session.scalar(sa.select(sa.func.count()).select_from(cls).where(*which)) or 0)

    @classmethod
    def forget(cls, as_of: dt.datetime) -> None:
        db.session.execute(sa.delete(cls).where(cls.at < as_of - law.FORGET_FAILURES))


@dataclass(frozen=True)
class CardsTried:
    """What was seen within one window: cards refused, and those of them after an address was confirmed; pledges that
    were begun and have no card; and pledges that count."""

    refused: int
    refused_after: int
    unfinished: int
    saved: int

    def __str__(self) -> str:
        return f"{self.refused} refused, {self.unfinished} unfinished, {self.saved} saved"


class Breaker(Base):
    """Whether pledging asks for a confirmed address first, or rests, for one case or for the site ("site").

    It opens by what the rows say, not by a counter in Redis, and closes by the clock: see docs/decisions/0040.
    `until` is when that is weighed again; a closed one rests until then, since staff have ended it.
    """

    __tablename__ = "breakers"
    __table_args__ = (one_of("status", law.BREAKER_MOVES), sa.Index("ix_breakers_status_until", "status", "until"))

    id: Mapped[Key]
    scope: Mapped[str] = mapped_column(sa.String(40), unique=True)
    case_id: Mapped[int | None] = mapped_column(sa.ForeignKey("cases.id"))
    status: Mapped[str] = mapped_column(sa.String(20))
    since: Mapped[dt.datetime]
    until: Mapped[dt.datetime]
    # What was seen when it moved last; for staff.
    why: Mapped[str] = mapped_column(sa.Text)

    case: Mapped[Case | None] = relationship()

    @classmethod
    def state_for(cls, case_id: int, as_of: dt.datetime) -> str:
        """What holds for a case at this instant, by its own breaker and the site's: closed, asks or paused."""
        both = cls.scope.in_((cls._scope(None), cls._scope(case_id)))
        found = set(db.session.scalars(sa.select(cls.status).where(both, cls.status != "closed", cls.until > as_of)))
        return next((state for state in ("paused", "asks") if state in found), "closed")

    @classmethod
    def asks_one_more(cls, its_round: Round, lookout: "Lookout", as_of: dt.datetime) -> bool:
        """Whether whoever pledges now must confirm the address first. Needs the round to be held."""
        if lookout.state != "closed":
            return True
        if Headroom.is_left(its_round, lookout, as_of):
            return False
        begun = Begun.of(its_round.id, as_of)
        seen = tuple(one.with_refused(*refused) for one, refused in zip(begun, lookout.refused, strict=True))
        if cls.weigh(its_round, as_of, (seen[0], seen[1])):
            return cls.state_for(its_round.case_id, as_of) != "closed"
        Headroom.keep(its_round, lookout, begun, as_of)
        return False

    @classmethod
    def is_watchful(cls, its_round: Round, as_of: dt.datetime) -> bool:
        """Whether a card that is saved now counts only once its address is confirmed: while the breaker asks, and from
        a quarter of the refused cards on that open it, so that hardly one that works slips through before."""
        if cls.state_for(its_round.case_id, as_of) != "closed":
            return True
        (seen, _), (most_refused, most_unfinished) = cls._seen(its_round.id, as_of), cls._most(its_round.case_id)
        return law.cards_are_tried(seen.refused, seen.unfinished, seen.saved, most_refused // 4, most_unfinished)

    @classmethod
    def weigh(cls, its_round: Round, as_of: dt.datetime, seen: tuple[CardsTried, CardsTried] | None = None) -> bool:
        """Open the breaker of a case, or the site's, if cards are being tried out; further if they are in spite of
        confirmed addresses. Needs the round to be held. Returns whether they are."""
        on_case, on_site = seen or cls._seen(its_round.id, as_of)
        tried = False
        for case_id, there in ((its_round.case_id, on_case), (None, on_site)):
            if cls._are_tried(case_id, there) or cls._are_tried_still(case_id, there):
                cls.hold(case_id, as_of)._open(there, as_of)
                tried = True
        return tried

    @classmethod
    def _seen(cls, round_id: int | None, as_of: dt.datetime) -> tuple[CardsTried, CardsTried]:
        """For one round and for the whole site."""
        refused = db.session.execute(sa.select(*_refused_lately().c), moments(as_of) | {"round": round_id}).one()
        on_case, on_site = Begun.of(round_id, as_of)
        return on_case.with_refused(*refused[:2]), on_site.with_refused(*refused[2:])

    @classmethod
    def _are_tried(cls, case_id: int | None, seen: CardsTried) -> bool:
        return law.cards_are_tried(seen.refused, seen.unfinished, seen.saved, *cls._most(case_id))

    @classmethod
    def _are_tried_still(cls, case_id: int | None, seen: CardsTried) -> bool:
        """In spite of confirmed addresses. Pledges that wait for theirs do no harm, and are not counted here: else
        whoever only sends forms could have pledging rest for everybody."""
        return law.cards_are_tried(seen.refused_after, 0, seen.saved, *cls._most(case_id))

    @staticmethod
    def _most(case_id: int | None) -> tuple[int, int]:
        settings, times = current_app.config["STANDING"], law.SITE_TIMES if case_id is None else 1
        return settings.breaker_refused * times, settings.breaker_unfinished * times

    @staticmethod
    def _scope(case_id: int | None) -> str:
        return "site" if case_id is None else f"case:{case_id}"

    @classmethod
    def hold(cls, case_id: int | None, as_of: dt.datetime) -> Self:
        """That of a case, or of the site, made if there was none, with its row locked until the transaction ends."""
        scope = cls._scope(case_id)
        insert_once(cls, scope=scope, case_id=case_id, status="closed", since=as_of, until=as_of, why="")
        found = sa.select(cls).where(cls.scope == scope).with_for_update()
        return db.session.scalars(found.execution_options(populate_existing=True)).one()

    def _open(self, seen: CardsTried, as_of: dt.datetime) -> None:
        if self.status == "closed" and self.until <= as_of:
            self._go("asks", seen, as_of)
        elif self.status == "asks" and self._are_tried_still(self.case_id, seen):
            self._go("paused", seen, as_of)
        elif self.status != "closed" and self.until <= as_of:
            self.until = as_of + law.BREAKER_LASTS

    def _go(self, to: str, seen: CardsTried, as_of: dt.datetime) -> None:
        self.since, self.until, self.why = as_of, as_of + law.BREAKER_LASTS, str(seen)
        move(self, law.BREAKER_MOVES, to, "clock", as_of, note=self.why)
        Letter.owe_staff("card_testing", f"{name_of(self)}:{to}:{int(as_of.timestamp())}", as_of)

    @classmethod
    def wind(cls, as_of: dt.datetime) -> None:
        """Close those whose time is over, unless what opened them goes on."""
        over = sa.select(cls.case_id).where(cls.status != "closed", cls.until <= as_of)
        # The site's last, as whoever weighs a pledge holds them.
        for case_id in list(db.session.scalars(over.order_by(cls.case_id.is_(None), cls.case_id))):
            case = db.session.get(Case, case_id) if case_id is not None else None
            on_case, on_site = cls._seen(case.round.id if case else None, as_of)
            seen, breaker = on_case if case else on_site, cls.hold(case_id, as_of)
            if cls._are_tried(case_id, seen) or cls._are_tried_still(case_id, seen):
                breaker._open(seen, as_of)
            elif breaker.until <= as_of:
                move(breaker, law.BREAKER_MOVES, "closed", "clock", as_of, note=str(seen))

    @classmethod
    def open_ones(cls, as_of: dt.datetime) -> list[Self]:
        """For staff: those that ask or rest now, the site's first."""
        found = (
            sa.select(cls).where(cls.status != "closed", cls.until > as_of).order_by(cls.case_id.is_not(None), cls.id)
        )
        return list(db.session.scalars(found.options(sa.orm.joinedload(cls.case))))

    def end(self, reason: str, by: User, as_of: dt.datetime) -> None:
        """Staff know better: it closes, and does not open again for a while. Needs it to be held."""
        self._require_open(as_of)
        move(self, law.BREAKER_MOVES, "closed", f"user:{by.id}", as_of, note=reason)
        self.since, self.until = as_of, as_of + law.BREAKER_RESTS

    def prolong(self, reason: str, by: User, as_of: dt.datetime) -> None:
        """Staff expect more of it. Needs it to be held."""
        self._require_open(as_of)
        self.until += law.BREAKER_PROLONGED
        Event.write(self, "prolonged", f"user:{by.id}", as_of, note=reason)

    def _require_open(self, as_of: dt.datetime) -> None:
        if self.status == "closed" or self.until <= as_of:
            raise Refused(gettext("This has ended by itself, so nothing was done."))


@dataclass(frozen=True)
class Begun:
    """The pledges that were begun within the breaker's window, of one round or of all."""

    begun: int
    with_card: int
    saved: int
    # Those without a card whose supporters may be typing still.
    young: int
    # How many of these will count as any other within GLANCE; and how many of the saved will lie before the window.
    ageing: int
    leaving: int

    @classmethod
    def of(cls, round_id: int | None, as_of: dt.datetime) -> tuple[Self, Self]:
        """Of a round, and of the whole site, in one question that looks at each row once."""
        found = db.session.execute(_begun_lately(), moments(as_of) | {"round": round_id}).one()
        return cls(*found[:6]), cls(*found[6:])

    @property
    def unfinished(self) -> int:
        return self.begun - self.with_card - self.young + self.young // law.OF_THE_IMPATIENT

    def with_refused(self, refused: int, refused_after: int) -> CardsTried:
        return CardsTried(refused, int(refused_after), self.unfinished, self.saved)


# How long a count of what was begun is good for a comparison that leaves room for all that may have happened since.
GLANCE = dt.timedelta(seconds=1)


@dataclass(frozen=True)
class Headroom:
    """So many more pledges may be begun before it can make a difference to weigh them: see decision 44.

    In a crowd there are tens of thousands of them within the window, and to count them for each one that comes would
    take longer than all else. What is kept here only says that nothing can have opened since; what opens a breaker is
    always counted.
    """

    since: dt.datetime
    # The number of the last pledge for which that is so, and how many are saved at least, on the case and the site.
    until_id: int
    saved: tuple[int, int]

    @classmethod
    def is_left(cls, its_round: Round, lookout: "Lookout", as_of: dt.datetime) -> bool:
        known: Self | None = _headroom().get(its_round.id)
        if known is None or not known.since <= as_of <= known.since + GLANCE or lookout.next_id > known.until_id:
            return False
        sums = zip((its_round.case_id, None), known.saved, lookout.refused, strict=True)
        return not any(
            Breaker._are_tried(case_id, CardsTried(refused, after, 0, saved))
            for case_id, saved, (refused, after) in sums
        )

    @classmethod
    def keep(cls, its_round: Round, lookout: "Lookout", begun: tuple[Begun, Begun], as_of: dt.datetime) -> None:
        """After they were weighed and found light. Each that is begun from now on counts as one without a card."""
        saved = tuple(one.saved - one.leaving for one in begun)
        sums = zip((its_round.case_id, None), begun, saved, strict=True)
        room = [Breaker._most(case_id)[1] + 2 * least - one.unfinished - one.ageing for case_id, one, least in sums]
        _headroom()[its_round.id] = cls(as_of, lookout.next_id + min(room), (saved[0], saved[1]))


def _headroom() -> dict[int, Any]:
    """By round, in this process."""
    known: dict[int, Any] = current_app.extensions.setdefault("headroom", {})
    return known


@dataclass(frozen=True)
class Lookout:
    """What the books say before somebody pledges, found in one question while the round is held: see decision 44."""

    # What holds by the breakers: closed, asks or paused. How many cards were refused within their window, and how many
    # of these after the address was confirmed, on the case and on the site.
    state: str
    refused: tuple[tuple[int, int], tuple[int, int]]
    # How many were refused lately from the network, and for the address.
    refused_from: int
    refused_for: int
    # The pledge that the same form has made before, and the number of the next one.
    known_id: int | None
    next_id: int
    promise_mark: str
    # Whether strangers see the case, and staff have not paused pledging for it.
    is_taken: bool

    @classmethod
    def of(cls, its_round: Round, form_key: str, email: str, network: str, as_of: dt.datetime) -> Self:
        asked = moments(as_of) | {
            "round": its_round.id, "case": its_round.case_id, "form_key": form_key, "network": network,
            "scope": Breaker._scope(its_round.case_id), "email_mark": secret_mark("email", email.lower()),
        }  # fmt: skip
        found = db.session.execute(_lookout(db.engine.dialect.name), asked).one()
        worst, refused_from, refused_for, known_id, next_id, change_id, is_taken = found[4:]
        return cls(
            STATES_OF_BREAKERS[worst or 0], ((found[0], found[1]), (found[2], found[3])), refused_from, refused_for,
            known_id, next_id, f"promise_change:{change_id}" if change_id else "", bool(is_taken),
        )  # fmt: skip

    def must_wait(self, network: str, as_of: dt.datetime) -> bool:
        """Whether so many cards were refused for the address, or from the network, or so many letters are unanswered
        there, that nobody should be led to another card page."""
        if self.state != "closed" and Pledge.too_many_unanswered(network, as_of):
            return True
        too_many_for = self.refused_for >= law.FAILURES_AN_ADDRESS
        return too_many_for or CardFailure.are_tried_from(network, self.refused_from, as_of)


# The worse one holds.
STATES_OF_BREAKERS = ("closed", "asks", "paused")


def moments(as_of: dt.datetime) -> dict[str, Any]:
    """Between which the questions below look."""
    since, young = as_of - law.BREAKER_WINDOW, as_of - law.BREAKER_PATIENCE
    within = as_of - law.FAILURES_WITHIN
    return {"as_of": as_of, "since": since, "young": young, "within": within} | {
        "leaving": since + GLANCE, "ageing": young + GLANCE,
    }  # fmt: skip


def _moment(name: str) -> sa.BindParameter[dt.datetime]:
    return sa.bindparam(name, type_=Instant())


def _counts(table: Any, *what: Any) -> list[Any]:
    """How many rows of a table are all that, in one round; then the same in all."""
    here = table.round_id == sa.bindparam("round", type_=sa.Integer)
    scopes = ((sa.and_(here, one) for one in what), what)
    return [sa.func.count(sa.case((one, 1))).label(f"n{n}") for n, one in enumerate(itertools.chain(*scopes))]


@functools.cache
def _begun_lately() -> sa.Select[Any]:
    """The question of Begun. Kept, as _held_at is."""
    young = sa.and_(Pledge.card_saved_at.is_(None), Pledge.started_at > _moment("young"))
    saved = Pledge.confirmed_at.is_not(None)
    figures = _counts(
        Pledge, sa.true(), Pledge.card_saved_at.is_not(None), saved, young,
        sa.and_(young, Pledge.started_at <= _moment("ageing")), sa.and_(saved, Pledge.started_at <= _moment("leaving")),
    )  # fmt: skip
    return sa.select(*figures).where(Pledge.started_at > _moment("since"))


@functools.cache
def _refused_lately() -> sa.Subquery:
    """The cards that were refused within the window, and those of them after an address was confirmed."""
    figures = _counts(CardFailure, sa.true(), CardFailure.confirmed)
    return sa.select(*figures).where(CardFailure.at > _moment("since")).subquery()


@functools.cache
def _lookout(dialect: str) -> sa.Select[Any]:
    """The question of Lookout. Kept, as _held_at is."""
    worse = sa.case({state: number for number, state in enumerate(STATES_OF_BREAKERS)}, value=Breaker.status)
    scopes = sa.or_(Breaker.scope == "site", Breaker.scope == sa.bindparam("scope"))
    refused = sa.select(sa.func.count()).select_from(CardFailure).where(CardFailure.at > _moment("within"))
    known = sa.select(Pledge.id).where(Pledge.form_key == sa.bindparam("form_key"))
    change = sa.select(PromiseChange.id).where(
        PromiseChange.round_id == sa.bindparam("round", type_=sa.Integer), PromiseChange.status == "consented"
    )
    is_taken = sa.and_(
        Case.visibility == "public", Case.status.not_in(law.HIDDEN_CASES), Case.pledging_paused.is_(False)
    )
    # Drawn before, so that what speaks of the pledge can be written with it, and nothing of it changed afterwards.
    following = (
        sa.select(sa.func.coalesce(sa.func.max(Pledge.id), 0) + 1).scalar_subquery()
        if dialect == "sqlite"
        else sa.func.nextval("pledges_id_seq")
    )
    return sa.select(
        *_refused_lately().c,
        sa.select(sa.func.max(worse)).where(scopes, Breaker.until > _moment("as_of")).scalar_subquery(),
        refused.where(CardFailure.network == sa.bindparam("network")).scalar_subquery(),
        refused.where(CardFailure.email_mark == sa.bindparam("email_mark")).scalar_subquery(),
        known.scalar_subquery(),
        following,
        change.order_by(PromiseChange.id).limit(1).scalar_subquery(),
        sa.select(sa.case((is_taken, 1), else_=0)).where(Case.id == sa.bindparam("case")).scalar_subquery(),
    )


class OldCard(Base):
    """A saved card that is no longer any pledge's: replaced, or saved too late. It is removed at Stripe."""

    __tablename__ = "old_cards"

    id: Mapped[Key]
    pledge_id: Mapped[int] = mapped_column(sa.ForeignKey("pledges.id"), index=True)
    payment_method_id: Mapped[str] = mapped_column(sa.String(120), unique=True)
    next_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    tries: Mapped[int]

    @classmethod
    def put_aside(cls, pledge: Pledge, payment_method_id: str | None, as_of: dt.datetime) -> None:
        """Note a card of a pledge that will never be charged, so that it is removed. Safe twice."""
        if payment_method_id is not None:
            insert_once(cls, pledge_id=pledge.id, payment_method_id=payment_method_id, next_at=as_of, tries=0)

    @classmethod
    def waiting(cls, as_of: dt.datetime) -> list[int]:
        """The ids of cards that are still to be removed at Stripe."""
        return list(db.session.scalars(sa.select(cls.id).where(cls.next_at <= as_of).order_by(cls.next_at)))

    def removed(self) -> None:
        self.next_at = None

    def wait(self, as_of: dt.datetime) -> None:
        """It could not be removed just now."""
        self.tries += 1
        self.next_at = as_of + pause(self.tries)


class Refund(Base):
    """Money that staff gave back, or tried to: what we asked Stripe, with which key, and what became of it."""

    __tablename__ = "refunds"
    __table_args__ = (
        one_of("status", law.REFUND_STATES),
        sa.CheckConstraint("amount_pence > 0", name="refund_above_zero"),
    )

    id: Mapped[Key]
    pledge_id: Mapped[int] = mapped_column(sa.ForeignKey("pledges.id"), index=True)
    form_key: Mapped[str] = mapped_column(sa.String(64), unique=True)
    amount_pence: Mapped[Pence]
    reason: Mapped[str] = mapped_column(sa.Text)
    status: Mapped[str] = mapped_column(sa.String(20))
    stripe_id: Mapped[str | None] = mapped_column(sa.String(120), unique=True)
    asked_by_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"))
    asked_at: Mapped[dt.datetime]
    code: Mapped[str] = mapped_column(sa.String(80))
    next_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    tries: Mapped[int]

    pledge: Mapped[Pledge] = relationship()
    asked_by: Mapped[User] = relationship()

    @property
    def key(self) -> str:
        """The key under which Stripe is asked for it, each time the same."""
        return f"refund-{self.id}"

    @classmethod
    def of(cls, pledge: Pledge, found: "RefundFound") -> Self | None:
        """The row of ours that asked for what was found: by Stripe's id, else by our own note on it."""
        known = db.session.scalar(sa.select(cls).where(cls.stripe_id == found.refund_id, cls.stripe_id.is_not(None)))
        known = known or (db.session.get(cls, found.noted) if found.noted else None)
        return known if known and known.pledge_id == pledge.id else None

    @classmethod
    def waiting(cls, as_of: dt.datetime) -> list[int]:
        """The ids of refunds to ask Stripe for, or about, at this instant."""
        found = sa.select(cls.id).where(cls.status.in_(("asking", "pending")), cls.next_at <= as_of)
        return list(db.session.scalars(found.order_by(cls.next_at, cls.id)))

    @classmethod
    def claim(cls, refund_id: int, as_of: dt.datetime, lease: dt.timedelta) -> Self | None:
        """Take a refund for asking; None when it is decided or somebody else asks."""
        open_ends = cls.status.in_(("asking", "pending"))
        found = sa.select(cls).where(cls.id == refund_id, open_ends, cls.next_at <= as_of)
        refund = db.session.scalar(found.with_for_update(skip_locked=True))
        if refund is not None:
            refund.next_at = as_of + lease
            refund.tries += 1
        return refund

    @classmethod
    def failed(cls) -> list[Self]:
        """For staff: the newest fifty that did not reach the supporter."""
        found = sa.select(cls).where(cls.status == "failed").order_by(cls.id.desc()).limit(50)
        return list(db.session.scalars(found.options(sa.orm.joinedload(cls.pledge))))

    def wait(self, as_of: dt.datetime) -> None:
        self.next_at = as_of + pause(self.tries)


# The state of a dispute -> the letter to the supporter whose bank it is, and the one to staff.
DISPUTE_LETTERS = {
    "open": ("payment_disputed", "disputed"),
    "won": ("payment_stands", "dispute_won"),
    "lost": ("payment_taken_back", "dispute_lost"),
}
# What is added to the occasion of the letter about an open one whose bank only asked before, and has the money now.
MONEY_TAKEN = ":held"


class Dispute(Base):
    """A supporter's bank wants a charge back; until the bank has decided, the money is held."""

    __tablename__ = "disputes"
    __table_args__ = (one_of("status", law.DISPUTE_STATES),)

    id: Mapped[Key]
    stripe_id: Mapped[str] = mapped_column(sa.String(120), unique=True)
    # None when the charge is none of ours.
    pledge_id: Mapped[int | None] = mapped_column(sa.ForeignKey("pledges.id"), index=True)
    charge_id: Mapped[str] = mapped_column(sa.String(120))
    amount_pence: Mapped[Pence]
    reason: Mapped[str] = mapped_column(sa.String(80))
    status: Mapped[str] = mapped_column(sa.String(20))
    due_by: Mapped[dt.datetime | None]
    opened_at: Mapped[dt.datetime]
    closed_at: Mapped[dt.datetime | None]

    pledge: Mapped[Pledge | None] = relationship()

    @classmethod
    def apply(cls, found: "DisputeFound", pledge: Pledge | None, as_of: dt.datetime) -> Self:
        """Take in what Stripe says of a dispute. Safe twice; needs the pledge to be held.

        One about a charge that is none of ours is only kept, and shown to staff.
        """
        dispute = db.session.scalar(sa.select(cls).where(cls.stripe_id == found.dispute_id))
        only_asked = dispute is not None and not Movement.known(found.dispute_id)
        if dispute is None:
            dispute = cls(
                stripe_id=found.dispute_id, pledge=pledge, charge_id=found.charge_id, amount_pence=found.amount_pence,
                reason=found.reason, status="open", due_by=found.due_by, opened_at=found.opened_at,
            )  # fmt: skip
            db.session.add(dispute)
            db.session.flush()
            Event.write(dispute, "opened", "stripe", as_of, after="open")
            dispute._tell(as_of)
        dispute.amount_pence, dispute.due_by = found.amount_pence, found.due_by or dispute.due_by
        if dispute.status != found.outcome:
            Event.write(dispute, found.outcome, "stripe", as_of, before=dispute.status, after=found.outcome)
            dispute.status = found.outcome
            dispute._tell(as_of)
        dispute.closed_at = None if found.outcome == "open" else dispute.closed_at or as_of
        db.session.flush()
        if pledge is not None:
            pledge.apply_dispute(found, as_of)
            if only_asked and dispute.status == "open" and found.held:
                dispute._tell(as_of, MONEY_TAKEN)
        return dispute

    def _tell(self, as_of: dt.datetime, more: str = "") -> None:
        """Its supporter and staff are told of its state, each of them of each state once; and once more, with
        MONEY_TAKEN, when the bank only asked at first: staff must send evidence again, by another date."""
        to_supporter, to_staff = DISPUTE_LETTERS[self.status]
        if self.pledge is not None:
            Letter.owe(to_supporter, self.pledge, f"{name_of(self)}{more}", as_of)
        Letter.owe_staff(to_staff, f"{name_of(self)}{more}", as_of)

    @classmethod
    def about(cls, pledge: Pledge) -> list[Self]:
        return list(db.session.scalars(sa.select(cls).where(cls.pledge_id == pledge.id).order_by(cls.id)))

    @classmethod
    def listed(cls) -> list[Self]:
        """For staff: open ones first, the nearest due date first, then the newest that are closed."""
        order = (sa.case((cls.status == "open", 0), else_=1), cls.due_by, cls.id.desc())
        found = sa.select(cls).order_by(*order).limit(100).options(sa.orm.joinedload(cls.pledge))
        return list(db.session.scalars(found))


# --- Comment -----------------------------------------------------------------------------------------------


# Parts of the queue that have an index of their own, in its very words; see OF_COMMENTS.
WAITS = sa.text("waits_since IS NOT NULL")
SIGNED = sa.text("waits_since IS NOT NULL AND risk > 0")
REPORTED = sa.text("waits_since IS NOT NULL AND reports > 0")
# Of what waits no more than so many are counted, so that a flood does not make the desk slow as well.
COUNTED_AT_MOST = 1_000


class Comment(Base):
    """A reader's words, plain text. What the public sees of it is `public_body`, and nothing else.

    That is the text as it was approved last. It stays while a newer one of the author's waits for a moderator, and is
    gone as soon as the comment is rejected, called spam or withdrawn.
    """

    __tablename__ = "comments"
    __table_args__ = (
        sa.UniqueConstraint("case_id", "digest"),
        # The queue: as it is, of one case, by risk; and the few of it that carry a sign or were reported.
        sa.Index("ix_comments_waits_since_id", "waits_since", "id"),
        sa.Index("ix_comments_of_case", "case_id", "waits_since", "id", sqlite_where=WAITS, postgresql_where=WAITS),
        sa.Index("ix_comments_by_risk", "calm", "waits_since", "id", sqlite_where=WAITS, postgresql_where=WAITS),
        sa.Index("ix_comments_signed", "waits_since", "id", sqlite_where=SIGNED, postgresql_where=SIGNED),
        sa.Index("ix_comments_reported", "waits_since", "id", sqlite_where=REPORTED, postgresql_where=REPORTED),
        # The decided ones, newest first.
        sa.Index("ix_comments_decided_at_id", "decided_at", "id"),
        sa.Index("ix_comments_network_created_at", "network", "created_at"),
        one_of("status", law.COMMENT_MOVES),
    )

    id: Mapped[Key]
    case_id: Mapped[int] = mapped_column(sa.ForeignKey("cases.id"), index=True)
    public_id: Mapped[str] = mapped_column(sa.String(40), unique=True)
    name: Mapped[str] = mapped_column(sa.String(120))
    email: Mapped[str] = mapped_column(sa.String(254), index=True)
    body: Mapped[str] = mapped_column(sa.Text)
    # Of the page on which it was written, and of letters about it.
    language: Mapped[str] = mapped_column(sa.String(20))
    public_body: Mapped[str | None] = mapped_column(sa.Text)
    digest: Mapped[str] = mapped_column(sa.String(64))
    status: Mapped[str] = mapped_column(sa.String(20), index=True)
    # Why it was rejected, as law.REJECTIONS calls it, and what the moderator wrote to the author about it.
    reason: Mapped[str] = mapped_column(sa.String(20))
    note: Mapped[str] = mapped_column(sa.Text)
    # After a rejection the author may change it and send it again once.
    resubmitted: Mapped[bool]
    # Raised by whatever a moderator should look at again before deciding.
    version: Mapped[int]
    created_at: Mapped[dt.datetime]
    # Since when nothing of it is left but what was decided, and when.
    erased_at: Mapped[dt.datetime | None]
    decided_at: Mapped[dt.datetime | None]
    decided_by_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))
    # What the case owner answers, which is public with it.
    answer: Mapped[str | None] = mapped_column(sa.Text)
    answered_at: Mapped[dt.datetime | None]
    # Set while it stands in the moderators' queue: since when it waits for their answer.
    waits_since: Mapped[dt.datetime | None]
    # How many reports of readers no moderator has answered yet.
    reports: Mapped[int]
    # Who reads it just now, and until when the others are told so.
    claimed_by_id: Mapped[int | None] = mapped_column(sa.ForeignKey("users.id"))
    claimed_until: Mapped[dt.datetime | None]
    # What undoing the last decision would bring back; empty when there is nothing to undo.
    undoable: Mapped[dict[str, Any]]
    # By what it looks like others, whence it came (a mark that is another one each day), and what may be wrong with it.
    likeness: Mapped[str] = mapped_column(sa.String(64), index=True)
    network: Mapped[str] = mapped_column(sa.String(24))
    signs: Mapped[list[str]] = mapped_column(sa.JSON)
    risk: Mapped[int]
    # The risk turned round, for the queue: an index has one direction for all of its columns.
    calm: Mapped[int]

    case: Mapped[Case] = relationship()
    decided_by: Mapped[User | None] = relationship(foreign_keys=[decided_by_id])
    claimed_by: Mapped[User | None] = relationship(foreign_keys=[claimed_by_id])
    # Whether it came with the request that has just asked for it.
    is_new = False

    @classmethod
    def waiting(cls) -> list[Self]:
        """All that waits for a moderator, oldest first."""
        found = sa.select(cls).where(cls.waits_since.is_not(None)).order_by(cls.waits_since, cls.id)
        return list(db.session.scalars(found))

    @classmethod
    def any_waiting(cls) -> bool:
        return db.session.scalar(sa.select(cls.id).where(cls.waits_since.is_not(None)).limit(1)) is not None

    @classmethod
    def decided(cls, limit: int, after: str = "") -> tuple[list[Self], str]:
        """A page of the decisions, newest first, and where the next page begins, or ""; each of them can be turned
        round at any time."""
        # Said like this, since SQLite would else look by the state, and sort all that was ever decided for each page.
        decided = sa.and_(cls.decided_at.is_not(None), cls.status.not_in(("pending", "withdrawn")))
        found = sa.select(cls).where(decided).options(
            sa.orm.joinedload(cls.case), sa.orm.joinedload(cls.decided_by), sa.orm.joinedload(cls.claimed_by)
        )  # fmt: skip
        if (place := _moment_and_number(after)) is not None:
            moment, number = place
            earlier = sa.or_(cls.decided_at < moment, sa.and_(cls.decided_at == moment, cls.id < number))
            found = found.where(cls.decided_at <= moment, earlier)
        newest_first = found.order_by(cls.decided_at.desc(), cls.id.desc())
        comments = list(db.session.scalars(newest_first.limit(limit + 1)))
        last = comments[limit - 1] if len(comments) > limit else None
        return comments[:limit], _place(last.decided_at, last.id) if last and last.decided_at else ""

    @classmethod
    def hold(cls, comment_id: int) -> Self | None:
        found = sa.select(cls).where(cls.id == comment_id).with_for_update()
        return db.session.scalar(found.execution_options(populate_existing=True))

    @classmethod
    def hold_all(cls, numbers: Iterable[int]) -> list[Self]:
        """Several at once, always in the same order: two who hold some of the same never wait for each other."""
        found = sa.select(cls).where(cls.id.in_(numbers)).order_by(cls.id).with_for_update()
        return list(db.session.scalars(found.execution_options(populate_existing=True)))

    @classmethod
    def by_link(cls, link: str) -> Self | None:
        """The comment of its author's private link."""
        public_id, _, _ = link.partition(".")
        comment = db.session.scalar(sa.select(cls).where(cls.public_id == public_id))
        known = comment is not None and comment.erased_at is None
        return comment if known and is_genuine(link, "comment", public_id, 0) else None

    def link(self) -> str:
        return signed_link("comment", self.public_id, 0)

    def digest_link(self, reader: User) -> str:
        """For the letter to one moderator: it names the version that waited, and opens nothing for anybody else."""
        return signed_link("digest", f"{reader.id}-{self.id}-{self.version}", 0)

    @classmethod
    def by_digest_link(cls, link: str, reader: User) -> tuple[Self, bool] | None:
        """The comment of such a link, and whether it is still as it was then; None unless the letter was this one's."""
        public_id, _, _ = link.partition(".")
        if not is_genuine(link, "digest", public_id, 0):
            return None
        person, number, version = (int(part) for part in public_id.split("-"))
        comment = db.session.get(cls, number) if person == reader.id else None
        return (comment, comment.version == version) if comment else None

    @classmethod
    def decisions(cls, as_of: dt.datetime, months: int = 12) -> list[tuple[dt.datetime, dict[str, int]]]:
        """For the public: how many of the decisions of each month stand, by "approved" or the reason; newest first."""
        first = as_of.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        starts = [first]
        while len(starts) < months:
            starts.append((starts[-1] - dt.timedelta(days=1)).replace(day=1))
        month = sa.case(*((cls.decided_at >= start, place) for place, start in enumerate(starts))).label("month")
        why = sa.case((cls.reason == "", "approved"), else_=cls.reason).label("why")
        stand = cls.status.in_(("approved", "rejected", "spam")), cls.decided_at >= starts[-1]
        counted = sa.select(month, why, sa.func.count(cls.id)).where(*stand).group_by(month, why)
        found: list[dict[str, int]] = [{} for _ in starts]
        for place, reason, count in db.session.execute(counted):
            found[place][reason] = count
        return list(zip(starts, found, strict=True))

    @property
    def public_name(self) -> str:
        return self.name or gettext("Anonymous")

    def look_for_signs(self, trapped: bool, as_of: dt.datetime) -> None:
        """Note what may be wrong with the text and with how it came. The fifth of a burst marks the others too."""
        others = sa.select(Comment).where(Comment.id != self.id)
        before = others.where(Comment.likeness == self.likeness, Comment.created_at > as_of - law.REPEATED_WITHIN)
        near = others.where(Comment.network == self.network, Comment.created_at > as_of - law.BURST_WITHIN)
        burst = list(db.session.scalars(near.limit(law.BURST))) if self.network else []
        is_burst = len(burst) + 1 >= law.BURST
        found = {
            "links": law.has_links(self.body),
            "repeated": db.session.scalar(before.limit(1)) is not None,
            "burst": is_burst or "burst" in self.signs,
            "trap": trapped or "trap" in self.signs,
        }
        self._mark(*(sign for sign, so in found.items() if so))
        for other in burst if is_burst else ():
            other._mark(*{**dict.fromkeys(other.signs), "burst": None})

    def _mark(self, *signs: str) -> None:
        self.signs, self.risk = list(signs), law.risk(signs)
        self.calm = -self.risk

    # What its author does, by the private link

    def owe_link(self, as_of: dt.datetime) -> None:
        """A letter with the private link. It has nothing of the comment in it: the address may be a stranger's."""
        Letter.owe("comment_taken", self, "sent", as_of)

    def is_editable(self, as_of: dt.datetime) -> bool:
        """Whether its author may change it: while it waits, shortly after it was sent, and once after a rejection."""
        if self.status == "approved":
            return as_of - self.created_at <= law.COMMENT_EDITABLE
        return self.status == "pending" or (self.status == "rejected" and not self.resubmitted)

    def edit(self, body: str, as_of: dt.datetime) -> None:
        """Its author changes the text, which then waits for a moderator. Needs the comment to be held.

        Silent when the text stays as it was, unless it was rejected: nothing was mended then.
        """
        self.case.require_comments()
        if not self.is_editable(as_of):
            raise Refused(gettext("This comment cannot be changed any more. You can still withdraw it."))
        if body == self.body:
            if self.status == "rejected":
                raise Refused(gettext("This is the text that was rejected. Change it before you send it again."))
            return
        db.session.add(OldText(comment_id=self.id, body=self.body, replaced_at=as_of))
        if self.status == "rejected":
            self.resubmitted, self.reason, self.note = True, "", ""
        self.body, self.likeness, self.undoable = body, law.likeness(body), {}
        self.version += 1
        self.waits_since = self.waits_since or as_of
        self.look_for_signs(False, as_of)
        if self.status == "pending":
            Event.write(self, "edited", "author", as_of)
        else:
            move(self, law.COMMENT_MOVES, "pending", "author", as_of)

    def sign(self, name: str) -> None:
        """Its author is to be shown otherwise. A moderator has read the name of what is public: one that says less, or
        none, takes its place at once, and no other one does. Silent for the same name. Needs it to be held."""
        says_less = name in ("", next(iter(self.name.split()), ""))
        if self.erased_at is not None or name == self.name or not (says_less or self.public_body is None):
            return
        self.name = name
        self.version += 1

    def withdraw(self, as_of: dt.datetime) -> None:
        """Its author takes it back, at any time and for good. The same words may then be sent anew."""
        if self.status == "withdrawn":
            return
        move(self, law.COMMENT_MOVES, "withdrawn", "author", as_of)
        self.public_body = self.waits_since = None
        self.undoable, self.reports = {}, 0
        self.digest = hashlib.sha256(f"{self.digest}\0{self.id}".encode()).hexdigest()
        self.version += 1

    def erase(self, by: str, as_of: dt.datetime) -> None:
        """Nothing is left of it but that there was one, and what was decided. Safe twice; needs it to be held."""
        if self.erased_at is not None:
            return
        if self.status in ("pending", "approved"):
            self.withdraw(as_of)
        Erasure.begin(self, [name_of(self)], by, as_of)
        for table in (OldText, Report):
            db.session.execute(sa.delete(table).where(table.comment_id == self.id))
        mine = sa.update(Pledge).where(Pledge.comment_id == self.id).values(message=None, message_for=None)
        db.session.execute(mine)
        Event.empty_notes(sa.and_(Event.subject_kind == "comment", Event.subject_id == self.id))
        self.name = self.email = self.body = self.note = self.likeness = self.network = ""
        self.public_body = self.answer = self.waits_since = None
        self.signs, self.undoable, self.reports, self.risk, self.calm = [], {}, 0, 0, 0
        # The words of a digest can be guessed.
        self.digest, self.language = hashlib.sha256(f"erased\0{self.id}".encode()).hexdigest(), ENGLISH
        self.erased_at = as_of
        self.version += 1
        Event.write(self, "erased", by, as_of)

    # What its readers do

    def report(self, reason: str, words: str, network: str, as_of: dt.datetime) -> None:
        """A reader says that this public comment should not be: it stays public, and stands in the queue.

        Several reports of one network for one reason count once. Needs the comment to be held.
        """
        if self.public_body is None:
            raise Refused(gettext("This comment is not public any more."))
        if not insert_once(Report, comment_id=self.id, reason=reason, words=words, network=network, at=as_of):
            return
        self.reports += 1
        self.waits_since = self.waits_since or as_of
        Event.write(self, "reported", "reader", as_of, note=law.REPORTS[reason])

    # What the case owner does

    def answer_by(self, owner: User, words: str, as_of: dt.datetime) -> None:
        """The case owner's answer, public with the comment at once; moderators read it in their log.

        Another one takes the place of the one before. Silent for the same words. Needs the comment to be held.
        """
        self._require_public()
        if words != self.answer:
            Event.write(self, "answer_changed" if self.answer else "answered", f"user:{owner.id}", as_of, note=words)
            self.answer, self.answered_at = words, as_of

    def ask_second_look(self, owner: User, words: str, as_of: dt.datetime) -> None:
        """The case owner asks the moderators to look again: it stays public, and stands in the queue with the words.

        Once for each time that it was decided. Needs the comment to be held.
        """
        self._require_public()
        asked = insert_once(
            Report, comment_id=self.id, reason=law.OF_OWNER, words=words, network=f"version {self.version}", at=as_of
        )
        if not asked:
            raise Refused(gettext("You have asked the moderators already. They have not answered yet."))
        self.reports += 1
        self.waits_since = self.waits_since or as_of
        Event.write(self, "look_again", f"user:{owner.id}", as_of, note=words)

    def _require_public(self) -> None:
        if self.public_body is None:
            raise Refused(gettext("This comment is not public any more."))

    # What moderators do

    def approve(self, by: User, as_of: dt.datetime, seen: int | None = None) -> None:
        """Make it public. `seen` is the version that the moderator saw, if that is known."""
        if self._decide("approved", "", "", by, as_of, seen):
            self.public_body = self.body
            self._end_claim()

    def reject(self, reason: str, by: User, as_of: dt.datetime, seen: int | None = None, note: str = "") -> None:
        """Keep it from the public for one of the law's reasons; its author is told, with the note.

        For the reason "spam" it is called spam, and nobody is told: the address is then seldom the sender's own.
        """
        if reason not in law.REJECTIONS:
            raise Refused(gettext("Choose a reason."))
        to = "spam" if reason == "spam" else "rejected"
        if self._decide(to, reason, note if to == "rejected" else "", by, as_of, seen):
            self.public_body = None
            self._end_claim()
            if to == "rejected":
                Letter.owe("comment_rejected", self, f"version:{self.version}", as_of, wait=law.UNDO_WITHIN)

    def _decide(self, to: str, reason: str, note: str, by: User, as_of: dt.datetime, seen: int | None) -> bool:
        """Returns whether anything changed. Needs the comment to be held.

        The same decision of the same moderator twice is silent; whoever has seen an older version is Refused.
        """
        is_so = self.status == to and self.waits_since is None
        if is_so and (seen is None or self.decided_by == by):
            return False
        self._require_seen(seen)
        if is_so:
            return False
        self.undoable = self._as_it_stands(by, as_of)
        if self.status == to:
            Event.write(self, "kept", f"user:{by.id}", as_of)
        told = law.REJECTIONS[reason][0] if reason else ""
        told += f"{law.TOLD}{note}" if note else ""
        move(self, law.COMMENT_MOVES, to, f"user:{by.id}", as_of, note=told)
        self.reason, self.note, self.decided_by, self.decided_at = reason, note, by, as_of
        self.waits_since, self.reports = None, 0
        self.version += 1
        return True

    def _require_seen(self, seen: int | None) -> None:
        """The slower of two is told what the faster one did, and nothing is done."""
        if seen is None or seen == self.version:
            return
        if self.status == "withdrawn":
            raise Refused(gettext("Its author has withdrawn this comment, so nothing was done."))
        mine = sa.select(Event).where(Event.subject_kind == "comment", Event.subject_id == self.id)
        last = db.session.scalar(mine.order_by(Event.id.desc()).limit(1))
        if last is not None and last.what == "undone":
            raise Refused(gettext("A decision of it was undone in the meantime, so nothing was done. Look again."))
        if last is None or last.who == "author" or self.decided_by is None:
            raise Refused(
                gettext("Its author has changed this comment in the meantime, so nothing was done. Look again.")
            )
        raise Refused(
            gettext(
                "Already decided by %(name)s: %(status)s. Nothing was done. Look again.",
                name=self.decided_by.name,
                status=gettext(self.status),
            )
        )

    # Taking a decision back, and claiming

    def _as_it_stands(self, by: User, as_of: dt.datetime) -> dict[str, Any]:
        """All that a decision of this moderator's changes, so that it can be undone."""
        return {
            "by": by.id, "at": as_of.isoformat(), "status": self.status, "public_body": self.public_body,
            "reason": self.reason, "note": self.note, "reports": self.reports, "decided_by_id": self.decided_by_id,
            "decided_at": self.decided_at and self.decided_at.isoformat(),
            "waits_since": self.waits_since and self.waits_since.isoformat(),
        }  # fmt: skip

    def can_undo(self, by: User, as_of: dt.datetime) -> bool:
        """Whether the last decision was this moderator's, and fresh."""
        made = self.undoable
        return bool(made) and made["by"] == by.id and as_of - _instant(made["at"]) <= law.UNDO_WITHIN

    def undo(self, by: User, as_of: dt.datetime) -> None:
        """Everything as it was before the last decision. Needs the comment to be held."""
        if not self.can_undo(by, as_of):
            raise Refused(
                gettext(
                    "A decision can be undone for 10 minutes, by whoever made it, while nothing else has happened. "
                    "It can still be reversed among the decided comments."
                )
            )
        was, status = self.undoable, self.status
        if was["status"] != status and not law.allows(law.COMMENT_MOVES, status, was["status"]):
            raise Refused(gettext("This comment is %(status)s: that cannot be undone.", status=gettext(status)))
        for name in ("status", "public_body", "reason", "note", "reports", "decided_by_id"):
            setattr(self, name, was[name])
        self.decided_at = _instant(was["decided_at"]) if was["decided_at"] else None
        self.waits_since = _instant(was["waits_since"]) if was["waits_since"] else None
        self.undoable = {}
        self.version += 1
        moved = {"before": status, "after": self.status} if status != self.status else {}
        Event.write(self, "undone", f"user:{by.id}", as_of, **moved)

    @classmethod
    def undoable_of(cls, by: User, as_of: dt.datetime) -> list[Self]:
        """The newest five decisions that this moderator can still undo, the newest first."""
        found = sa.select(cls).where(cls.decided_by_id == by.id, cls.decided_at >= as_of - law.UNDO_WITHIN)
        newest = db.session.scalars(found.order_by(cls.decided_at.desc(), cls.id.desc()).limit(20))
        return [one for one in newest if one.can_undo(by, as_of)][:5]

    def claim(self, by: User, as_of: dt.datetime) -> None:
        """Tell the others that this moderator reads it now. It only tells: anybody may still decide it."""
        if other := self.reader_besides(by, as_of):
            raise Refused(gettext("%(name)s reads this comment just now.", name=other.name))
        self.claimed_by, self.claimed_until = by, as_of + law.CLAIM_LENGTH

    def reader_besides(self, me: User, as_of: dt.datetime) -> User | None:
        """The other moderator who has claimed it, if one has."""
        held = self.claimed_until is not None and self.claimed_until > as_of
        return self.claimed_by if held and self.claimed_by_id != me.id else None

    def _end_claim(self) -> None:
        self.claimed_by = self.claimed_until = None


def _place(moment: dt.datetime, number: int) -> str:
    """Where a row stands in a list that is ordered by an instant and then by number, for the address of a page."""
    return f"{(moment - EPOCH) // dt.timedelta(microseconds=1)}.{number}"


def _moment_and_number(place: str) -> tuple[dt.datetime, int] | None:
    """The two of such a place; None for an address that makes no sense."""
    moment, _, number = place.partition(".")
    if not all(part.isascii() and part.isdecimal() and len(part) < 17 for part in (moment, number)):
        return None
    return EPOCH + dt.timedelta(microseconds=int(moment)), int(number)


def _instant(written: str) -> dt.datetime:
    return dt.datetime.fromisoformat(written)


@dataclass(frozen=True)
class Queue:
    """The moderators' queue, or the part of it that they ask for, a page at a time.

    `case` is an address, `over` a number of hours that it has waited, `signs` asks for those with a sign, `reported`
    for those that readers have reported, `like` for those that look alike, `risk` for the weightiest first instead of
    the oldest; `after` is where the last page ended.
    """

    case: str = ""
    over: int = 0
    signs: bool = False
    reported: bool = False
    like: str = ""
    risk: bool = False
    after: str = ""

    def page(self, as_of: dt.datetime, size: int) -> tuple[list[Comment], str]:
        """The comments of one page, those that look alike side by side; and where the next one begins, or ""."""
        place = (Comment.waits_since, Comment.id)
        order = (Comment.calm, *place) if self.risk else place
        found = self._asked(sa.select(Comment), as_of).options(
            sa.orm.joinedload(Comment.case),
            sa.orm.joinedload(Comment.decided_by),
            sa.orm.joinedload(Comment.claimed_by),
        )
        if (began := self._began()) is not None:
            found = found.where(began)
        comments = list(db.session.scalars(found.order_by(*order).limit(size + 1)))
        shown = comments[:size]
        more = _place_of(shown[-1]) if len(comments) > size else ""
        return _alike_together(shown), more

    def count(self, as_of: dt.datetime) -> int:
        """How many there are, or one more than COUNTED_AT_MOST."""
        some = self._asked(sa.select(Comment.id), as_of).limit(COUNTED_AT_MOST + 1).subquery()
        return db.session.scalar(sa.select(sa.func.count()).select_from(some)) or 0

    def _asked(self, found: Any, as_of: dt.datetime) -> Any:
        found = found.where(Comment.waits_since.is_not(None))
        if self.case:
            found = found.where(Comment.case_id == sa.select(Case.id).where(Case.slug == self.case).scalar_subquery())
        if self.over:
            found = found.where(Comment.waits_since < as_of - dt.timedelta(hours=self.over))
        if self.signs:
            found = found.where(Comment.risk > sa.literal_column("0"))
        if self.reported:
            found = found.where(Comment.reports > sa.literal_column("0"))
        if self.like:
            found = found.where(Comment.likeness == self.like)
        return found

    def _began(self) -> sa.ColumnElement[bool] | None:
        """What comes after the place where the page before ended; an address that makes no sense is the beginning."""
        parts = self.after.split(".")
        if len(parts) != 3 or not all(part.isascii() and part.isdecimal() and len(part) < 17 for part in parts):
            return None
        risk, moment, number = (int(part) for part in parts)
        since = EPOCH + dt.timedelta(microseconds=moment)
        later = sa.or_(Comment.waits_since > since, sa.and_(Comment.waits_since == since, Comment.id > number))
        # Said twice, since the first part leads straight to the place in the index.
        if self.risk:
            return sa.and_(Comment.calm >= -risk, sa.or_(Comment.calm > -risk, sa.and_(Comment.calm == -risk, later)))
        return sa.and_(Comment.waits_since >= since, later)


def _place_of(comment: Comment) -> str:
    assert comment.waits_since is not None  # noqa: S101 - it was found by it
    return f"{comment.risk}.{_place(comment.waits_since, comment.id)}"


def _alike_together(comments: list[Comment]) -> list[Comment]:
    """In the same order, but each right after the first of those that look like it."""
    first: dict[str, int] = {}
    for place, comment in enumerate(comments):
        first.setdefault(comment.likeness, place)
    return sorted(comments, key=lambda comment: first[comment.likeness])


@dataclass(frozen=True)
class Waiting:
    """How much waits for the moderators, how much of it for longer than readers are told, and since when; counted only
    as far as COUNTED_AT_MOST and one more."""

    count: int
    late: int
    oldest: dt.datetime | None

    @classmethod
    def at(cls, as_of: dt.datetime) -> "Waiting":
        some = cls._counted()
        late = sa.case((some.c.waits_since < as_of - law.COMMENT_TARGET, 1), else_=0)
        asked = sa.select(sa.func.count(), sa.func.sum(late), sa.func.min(some.c.waits_since))
        count, late_ones, oldest = db.session.execute(asked.select_from(some)).one()
        return cls(count, late_ones or 0, oldest)

    @staticmethod
    def _counted() -> sa.Subquery:
        """The oldest, as many as are counted and one more."""
        waits = sa.select(Comment.case_id, Comment.waits_since).where(Comment.waits_since.is_not(None))
        return waits.order_by(Comment.waits_since, Comment.id).limit(COUNTED_AT_MOST + 1).subquery()

    @classmethod
    def cases(cls) -> list[Case]:
        """The cases of those that are counted."""
        theirs = sa.select(cls._counted().c.case_id)
        return list(db.session.scalars(sa.select(Case).where(Case.id.in_(theirs)).order_by(Case.title)))


@dataclass
class Background:
    """What a moderator should know of one comment besides its text."""

    # What it said before its author changed it, or "".
    before: str = ""
    # How many others that look like it wait.
    alike: int = 0
    # What else was sent with the same address: how many in each state, and the newest three.
    others: dict[str, int] = field(default_factory=dict)
    newest: list[Comment] = field(default_factory=list)
    # What its readers have reported since it was decided last.
    reports: "list[Report]" = field(default_factory=list)

    @classmethod
    def of(cls, comments: list[Comment]) -> "dict[int, Background]":
        """For a whole page of comments, with as many queries as for one."""
        known = {comment.id: cls(before=comment.public_body or "") for comment in comments}
        cls._add_texts(known, comments)
        cls._add_alike(known, comments)
        cls._add_others(known, comments)
        reported = [comment.id for comment in comments if comment.reports]
        for report in db.session.scalars(sa.select(Report).where(Report.comment_id.in_(reported)).order_by(Report.id)):
            known[report.comment_id].reports.append(report)
        return known

    @staticmethod
    def _add_texts(known: "dict[int, Background]", comments: list[Comment]) -> None:
        newest = sa.select(sa.func.max(OldText.id)).where(OldText.comment_id.in_(known)).group_by(OldText.comment_id)
        for old in db.session.scalars(sa.select(OldText).where(OldText.id.in_(newest))):
            known[old.comment_id].before = known[old.comment_id].before or old.body
        for comment in comments:
            if comment.status != "pending":
                known[comment.id].before = ""

    @staticmethod
    def _add_alike(known: "dict[int, Background]", comments: list[Comment]) -> None:
        counted = sa.select(Comment.likeness, sa.func.count(Comment.id)).where(
            Comment.waits_since.is_not(None), Comment.likeness.in_({comment.likeness for comment in comments})
        )
        alike = {row.likeness: row[1] for row in db.session.execute(counted.group_by(Comment.likeness))}
        for comment in comments:
            known[comment.id].alike = alike.get(comment.likeness, 1) - 1

    @staticmethod
    def _add_others(known: "dict[int, Background]", comments: list[Comment]) -> None:
        theirs = Comment.email.in_({comment.email for comment in comments})
        counted = sa.select(Comment.email, Comment.status, sa.func.count(Comment.id)).where(theirs)
        counts: dict[str, dict[str, int]] = {}
        for email, status, count in db.session.execute(counted.group_by(Comment.email, Comment.status)):
            counts.setdefault(email, {})[status] = count
        place = sa.func.row_number().over(partition_by=Comment.email, order_by=Comment.id.desc()).label("place")
        ranked = sa.select(Comment.id, place).where(theirs).subquery()
        four = sa.select(Comment).join(ranked, ranked.c.id == Comment.id).where(ranked.c.place <= 4)
        texts: dict[str, list[Comment]] = {}
        for one in db.session.scalars(four.order_by(Comment.id.desc())):
            texts.setdefault(one.email, []).append(one)
        # Nothing ties together those whose addresses are forgotten.
        for comment in (one for one in comments if one.email):
            others = dict(counts[comment.email])
            others[comment.status] -= 1
            known[comment.id].others = {status: count for status, count in others.items() if count}
            known[comment.id].newest = [one for one in texts[comment.email] if one.id != comment.id][:3]


@dataclass(frozen=True)
class LogLine:
    """One line of the moderation log: what happened to which comment, by whom, and what it said then."""

    event: "Event"
    comment: Comment
    text: str
    who: str

    @classmethod
    def newest(cls, size: int, before: int = 0, of_owners: bool = False) -> "list[LogLine]":
        """The newest lines, or those before the event of this number; as many queries for one as for all.

        All that was done to comments, or only what case owners have answered and asked.
        """
        found = sa.select(Event).where(OF_OWNERS if of_owners else OF_COMMENTS)
        if before:
            found = found.where(Event.id < before)
        events = list(db.session.scalars(found.order_by(Event.id.desc()).limit(size)))
        numbers = {event.subject_id for event in events}
        asked = sa.select(Comment).where(Comment.id.in_(numbers)).options(sa.orm.joinedload(Comment.case))
        comments = {comment.id: comment for comment in db.session.scalars(asked)}
        replaced = sa.select(OldText).where(OldText.comment_id.in_(numbers)).order_by(OldText.id)
        texts: dict[int, list[OldText]] = {}
        for old in db.session.scalars(replaced):
            texts.setdefault(old.comment_id, []).append(old)
        people = {who: person.name for who, person in Event.people(events).items()}
        lines = []
        for event in events:
            comment = comments[event.subject_id]
            later = [old.body for old in texts.get(comment.id, []) if old.replaced_at > event.at]
            who = people.get(event.who) or gettext(event.who)
            lines.append(cls(event, comment, later[0] if later else comment.body, who))
        return lines


class Report(Base):
    """What a reader, or the case owner, says against a public comment."""

    __tablename__ = "reports"
    __table_args__ = (
        # Of one network once; which one it was is forgotten after some days.
        sa.Index(
            "uq_reports_comment_id_network_reason",
            "comment_id",
            "network",
            "reason",
            unique=True,
            sqlite_where=sa.text("network != ''"),
            postgresql_where=sa.text("network != ''"),
        ),
        one_of("reason", (*law.REPORTS, law.OF_OWNER)),
    )

    id: Mapped[Key]
    comment_id: Mapped[int] = mapped_column(sa.ForeignKey("comments.id"), index=True)
    reason: Mapped[str] = mapped_column(sa.String(20))
    words: Mapped[str] = mapped_column(sa.Text)
    network: Mapped[str] = mapped_column(sa.String(24))
    at: Mapped[dt.datetime]


class OldText(Base):
    """What a comment said before its author changed it, so that a decision of then can be understood."""

    __tablename__ = "old_texts"

    id: Mapped[Key]
    comment_id: Mapped[int] = mapped_column(sa.ForeignKey("comments.id"), index=True)
    body: Mapped[str] = mapped_column(sa.Text)
    replaced_at: Mapped[dt.datetime]


# --- Records -----------------------------------------------------------------------------------------------


class StripeEvent(Base):
    """Stripe's news, stored before it is acknowledged, so that it can never be lost."""

    __tablename__ = "stripe_events"
    __table_args__ = (sa.Index("ix_stripe_events_waiting", "processed_at", "next_at"),)

    id: Mapped[Key]
    event_id: Mapped[str] = mapped_column(sa.String(120), unique=True)
    type: Mapped[str] = mapped_column(sa.String(80))
    object_id: Mapped[str] = mapped_column(sa.String(120), index=True)
    created_at: Mapped[dt.datetime]
    received_at: Mapped[dt.datetime]
    payload: Mapped[str] = mapped_column(sa.Text)
    processed_at: Mapped[dt.datetime | None]
    next_at: Mapped[dt.datetime]
    tries: Mapped[int]
    trouble: Mapped[str] = mapped_column(sa.Text)

    @classmethod
    def store(cls, *, event_id: str, kind: str, object_id: str, created_at: dt.datetime, payload: str,
              as_of: dt.datetime, at_once: bool = False) -> bool:  # fmt: skip
        """Keep an event of Stripe's, once. Returns whether it was new. What is kept at once is committed as well."""
        return (insert_at_once if at_once else insert_once)(
            cls, event_id=event_id, type=kind, object_id=object_id, created_at=created_at, received_at=as_of,
            payload=payload, next_at=as_of, tries=0, trouble="",
        )  # fmt: skip

    @classmethod
    def claim(cls, as_of: dt.datetime, lease: dt.timedelta, limit: int) -> list[Any]:
        """The oldest events that wait, taken so that nobody else works on them until the lease is over: of each its
        id, type, object_id and payload."""
        told = sa.select(cls.id, cls.type, cls.object_id, cls.payload)
        found = told.where(cls.processed_at.is_(None), cls.next_at <= as_of).order_by(cls.id).limit(limit)
        events = list(db.session.execute(found.with_for_update(skip_locked=True)))
        cls._change_all([event.id for event in events], next_at=as_of + lease, tries=cls.tries + 1)
        return events

    @classmethod
    def leave(cls, event_ids: list[int], until: dt.datetime) -> None:
        """They were claimed, but nobody has worked on them: from then on they wait again, as if nothing had been."""
        cls._change_all(event_ids, next_at=until, tries=cls.tries - 1)

    @classmethod
    def _change_all(cls, event_ids: list[int], **values: Any) -> None:
        """With one statement, and not in the session, which knows none of them. What somebody else has worked on
        meanwhile stays as it is."""
        waiting = sa.update(cls).where(cls.id.in_(event_ids), cls.processed_at.is_(None)).values(**values)
        if event_ids:
            db.session.execute(waiting.execution_options(synchronize_session=False))

    @classmethod
    def cards_saved_at(cls, setup_intent_ids: Iterable[str]) -> dict[str, dt.datetime]:
        """When Stripe's clock saw these cards saved, as far as their events have reached us."""
        saved = sa.and_(cls.object_id.in_(list(setup_intent_ids)), cls.type == "setup_intent.succeeded")
        found = sa.select(cls.object_id, sa.func.min(cls.created_at)).where(saved).group_by(cls.object_id)
        return {row[0]: row[1] for row in db.session.execute(found)}

    @classmethod
    def alike(cls, event: "StripeEvent") -> list[Self]:
        """All that was ever told in the same way of the same object, the oldest first."""
        found = sa.select(cls).where(cls.object_id == event.object_id, cls.type == event.type)
        return list(db.session.scalars(found.order_by(cls.created_at, cls.id)))

    @classmethod
    def processed(cls, event_ids: list[int], as_of: dt.datetime) -> None:
        """Nobody reads again what they said, and they may name a person."""
        cls._change_all(event_ids, processed_at=as_of, trouble="", payload="")

    def try_again(self, trouble: str, as_of: dt.datetime) -> None:
        """Put it back with a growing pause, at most ten minutes."""
        self.trouble = trouble
        self.next_at = as_of + pause(self.tries)


class Letter(Base):
    """An e-mail we owe: one row for each kind, subject and occasion, with a Message-ID that never changes."""

    __tablename__ = "letters"
    __table_args__ = (
        sa.UniqueConstraint("kind", "subject", "occasion"),
        sa.Index("ix_letters_waiting", "sent_at", "next_at"),
    )

    id: Mapped[Key]
    kind: Mapped[str] = mapped_column(sa.String(40))
    subject: Mapped[str] = mapped_column(sa.String(80))
    occasion: Mapped[str] = mapped_column(sa.String(80))
    # In which it is written, whoever sends it and whenever.
    language: Mapped[str] = mapped_column(sa.String(20))
    message_id: Mapped[str] = mapped_column(sa.String(120), unique=True)
    created_at: Mapped[dt.datetime]
    sent_at: Mapped[dt.datetime | None]
    next_at: Mapped[dt.datetime | None]
    tries: Mapped[int]
    trouble: Mapped[str] = mapped_column(sa.Text)

    @classmethod
    def owe(
        cls, kind: str, subject: Base, occasion: str, as_of: dt.datetime, *, wait: dt.timedelta = dt.timedelta(0),
        language: str = "",
    ) -> None:  # fmt: skip
        """Promise a letter, in the transaction that causes it; a second promise of the same one is silent. Its
        language is that of its reader, unless the caller knows better."""
        promised = {
            "kind": kind, "subject": name_of(subject), "occasion": occasion, "message_id": secrets.token_hex(16),
            "language": language or cls._language_for(subject), "created_at": as_of, "next_at": as_of + wait,
            "tries": 0, "trouble": "",
        }  # fmt: skip
        if (gathered := _gathered()) is not None:
            gathered.letters.append(promised)
        else:
            insert_once(cls, **promised)

    @staticmethod
    def _language_for(subject: Base) -> str:
        """The language of whoever reads a letter about this."""
        if isinstance(subject, AddressChange):
            return subject.pledge.language
        if isinstance(subject, EmailChange):
            return subject.user.language
        if isinstance(subject, Round):
            return subject.case.owner.language
        if isinstance(subject, Case):
            return subject.owner.language
        return subject.language if isinstance(subject, (Pledge, User, Comment)) else ENGLISH

    @classmethod
    def owe_staff(cls, kind: str, occasion: str, as_of: dt.datetime) -> None:
        """The same letter to everybody of staff."""
        for person in User.with_role("staff"):
            cls.owe(kind, person, occasion, as_of)

    @classmethod
    def owe_all(cls, kind: str, pledge_ids: list[int], occasion: str, as_of: dt.datetime) -> None:
        """As `owe`, to the supporters of many pledges at once."""
        added = _insert(cls, db.engine.dialect.name).on_conflict_do_nothing()
        for first in range(0, len(pledge_ids), 1_000):
            some = sa.select(Pledge.id, Pledge.language).where(Pledge.id.in_(pledge_ids[first : first + 1_000]))
            db.session.execute(added, [
                {
                    "kind": kind, "subject": f"pledge:{one}", "occasion": occasion, "created_at": as_of,
                    "language": language, "message_id": secrets.token_hex(16), "next_at": as_of, "tries": 0,
                    "trouble": "",
                }
                for one, language in db.session.execute(some.order_by(Pledge.id))
            ])  # fmt: skip

    @classmethod
    def numbered(cls, number: str) -> Self | None:
        """The letter whose Message-ID begins with this number."""
        return db.session.scalar(sa.select(cls).where(cls.message_id == number))

    def was_followed_by(self, kind: str) -> bool:
        """Whether a letter of this kind has been owed to the same reader since."""
        since = sa.and_(Letter.kind == kind, Letter.subject == self.subject, Letter.id > self.id)
        return db.session.scalar(sa.select(Letter.id).where(since).limit(1)) is not None

    def has_sequel(self, more: str) -> bool:
        """Whether the same kind of letter is owed to the same reader for what came of this one's occasion."""
        same = sa.and_(Letter.kind == self.kind, Letter.subject == self.subject)
        found = sa.select(Letter.id).where(same, Letter.occasion == f"{self.occasion}{more}")
        return db.session.scalar(found) is not None

    @classmethod
    def unsent(cls, as_of: dt.datetime) -> list[int]:
        """The ids of letters that wait to be sent at this instant."""
        found = sa.select(cls.id).where(cls.sent_at.is_(None), cls.next_at <= as_of)
        return list(db.session.scalars(found.order_by(cls.next_at, cls.id).limit(500)))

    @classmethod
    def undelivered(cls) -> list[Self]:
        """For staff: the oldest fifty that could not be sent so far."""
        return list(db.session.scalars(sa.select(cls).where(cls._failed()).order_by(cls.id).limit(50)))

    @classmethod
    def _failed(cls) -> sa.ColumnElement[bool]:
        return sa.and_(cls.sent_at.is_(None), cls.trouble.not_in(("", WITHHELD)))

    @classmethod
    def signs_for_desk(cls, as_of: dt.datetime) -> tuple[bool, bool, int]:
        """Whether a letter could not be sent or a charge is in trouble; whether a breaker is open; and how many pledges
        are held: one question for the desk, not four lists."""
        stuck = sa.or_(sa.exists().where(cls._failed()), sa.exists().where(Pledge.is_troubled()))
        tried = sa.exists().where(Breaker.status != "closed", Breaker.until > as_of)
        held = sa.select(sa.func.count()).select_from(Pledge).where(Pledge.is_to_be_looked_at())
        found = db.session.execute(sa.select(stuck, tried, held.scalar_subquery())).one()
        return bool(found[0]), bool(found[1]), int(found[2])

    @classmethod
    def claim(cls, letter_id: int, as_of: dt.datetime, lease: dt.timedelta) -> Self | None:
        """Take a letter for sending; None when it was sent or somebody else has it."""
        found = sa.select(cls).where(cls.id == letter_id, cls.sent_at.is_(None), cls.next_at <= as_of)
        letter = db.session.scalar(found.with_for_update(skip_locked=True))
        if letter is not None:
            letter.next_at = as_of + lease
            letter.tries += 1
        return letter

    def sent(self, as_of: dt.datetime) -> None:
        self.sent_at, self.next_at, self.trouble = as_of, None, ""

    def overtaken(self, as_of: dt.datetime) -> None:
        """What it says is not true any more, so it is not sent."""
        self.sent_at, self.next_at, self.trouble = as_of, None, "not sent: overtaken by events"

    def try_again(self, trouble: str, as_of: dt.datetime) -> None:
        self.trouble = trouble
        self.next_at = as_of + pause(self.tries)

    def refused(self, trouble: str, as_of: dt.datetime) -> None:
        """There is no such mailbox. It is tried a few times more, for a day, and then given up for people to see."""
        self.trouble = trouble
        self.next_at = as_of + REFUSED_LETTER_PAUSE if as_of - self.created_at < REFUSED_LETTER_FOR else None

    def withhold(self) -> None:
        """Its address sends letters back, so it is kept, and written only when the operator says that all is well."""
        self.trouble, self.next_at = WITHHELD, None

    @classmethod
    def given_up(cls) -> list[Self]:
        """What nothing will send any more by itself: refused for a day, or withheld."""
        found = sa.select(cls).where(cls.sent_at.is_(None), cls.next_at.is_(None))
        return list(db.session.scalars(found.order_by(cls.id)))


class Bounce(Base):
    """An address whose letters come back. Nothing more is written to it until the operator lifts that."""

    __tablename__ = "bounces"

    id: Mapped[Key]
    # In lower case: mail servers tell apart nothing that differs in its letters alone.
    address: Mapped[str] = mapped_column(sa.String(254), unique=True)
    letter_id: Mapped[int] = mapped_column(sa.ForeignKey("letters.id"))
    why: Mapped[str] = mapped_column(sa.String(200))
    at: Mapped[dt.datetime]
    letter: Mapped[Letter] = relationship()

    @classmethod
    def record(cls, address: str, letter: Letter, why: str, as_of: dt.datetime) -> None:
        """Write to this address no more; the first reason is kept."""
        insert_once(cls, address=address.lower(), letter_id=letter.id, why=why[:200], at=as_of)

    @classmethod
    def holds(cls, address: str) -> bool:
        """Whether letters to this address come back."""
        return db.session.scalar(sa.select(cls.id).where(cls.address == address.lower())) is not None

    @classmethod
    def latest(cls, most: int = 50) -> list[Self]:
        """For staff: the newest, with the letters that came back."""
        found = sa.select(cls).options(sa.orm.joinedload(cls.letter)).order_by(cls.id.desc()).limit(most)
        return list(db.session.scalars(found))

    @classmethod
    def lift(cls, address: str = "") -> int:
        """Believe one address again, or every one. Returns how many."""
        lifted = sa.delete(cls)
        if address:
            lifted = lifted.where(cls.address == address.lower())
        return int(db.session.execute(lifted).rowcount)  # type: ignore[attr-defined]


# In the words of the indexes, since SQLite looks into an index of a part only when it is asked for that very part.
OF_COMMENTS = sa.text("subject_kind = 'comment'")
OF_OWNERS = sa.text("what IN ('answered', 'answer_changed', 'look_again')")


class Event(Base):
    """One line of history: what happened to which row, who did it, when, from which state to which."""

    __tablename__ = "events"
    __table_args__ = (
        sa.Index("ix_events_subject_kind_subject_id", "subject_kind", "subject_id"),
        # The history of a case, newest first.
        sa.Index("ix_events_case_id_id", "case_id", "id"),
        # The moderation log, and what case owners have said in it.
        sa.Index("ix_events_of_comments", "subject_kind", "id", sqlite_where=OF_COMMENTS, postgresql_where=OF_COMMENTS),
        sa.Index("ix_events_of_owners", "id", sqlite_where=OF_OWNERS, postgresql_where=OF_OWNERS),
    )

    id: Mapped[Key]
    subject_kind: Mapped[str] = mapped_column(sa.String(20))
    subject_id: Mapped[int]
    # The case to which the subject belongs; None for what belongs to none, such as a user.
    case_id: Mapped[int | None]
    what: Mapped[str] = mapped_column(sa.String(40))
    who: Mapped[str] = mapped_column(sa.String(40))
    at: Mapped[dt.datetime] = mapped_column(index=True)
    before: Mapped[str | None] = mapped_column(sa.String(40))
    after: Mapped[str | None] = mapped_column(sa.String(40))
    note: Mapped[str] = mapped_column(sa.Text)

    @classmethod
    def write(cls, subject: Any, what: str, who: str, at: dt.datetime, *, before: str | None = None,
              after: str | None = None, note: str = "") -> None:  # fmt: skip
        kind = subject.__tablename__.rstrip("s")
        _add_line(
            cls, subject_kind=kind, subject_id=subject.id, case_id=cls._case_of(subject), what=what, who=who, at=at,
            before=before, after=after, note=note,
        )  # fmt: skip

    @classmethod
    def _case_of(cls, subject: Any) -> int | None:
        """Whatever belongs to a case knows it, or knows the pledge or the round that does."""
        if isinstance(subject, Case):
            return subject.id
        if isinstance(subject, Refund | Dispute):
            return cls._case_of(subject.pledge) if subject.pledge else None
        if isinstance(subject, Pledge | PromiseChange):
            return subject.round.case_id
        return getattr(subject, "case_id", None)

    @classmethod
    def empty_notes(cls, lines: sa.ColumnElement[bool]) -> None:
        """What happened stays, without the words that somebody wrote to it."""
        emptied = sa.update(cls).where(lines, cls.note != "").values(note="")
        db.session.execute(emptied.execution_options(synchronize_session="fetch"))

    @staticmethod
    def people(events: "Iterable[Event]") -> dict[str, User]:
        """Who of our users did what these lines tell, by the name that the lines have for them; in one query."""
        known = {int(event.who.partition(":")[2]) for event in events if event.who.startswith("user:")}
        named = db.session.scalars(sa.select(User).where(User.id.in_(known))) if known else ()
        return {f"user:{one.id}": one for one in named}


class Look(Base):
    """Somebody of staff was shown a supporter's private data: who, when, on which page, of which pledge."""

    __tablename__ = "looks"

    id: Mapped[Key]
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("users.id"), index=True)
    pledge_id: Mapped[int] = mapped_column(sa.ForeignKey("pledges.id"), index=True)
    page: Mapped[str] = mapped_column(sa.String(40))
    at: Mapped[dt.datetime]
    user: Mapped[User] = relationship()
    pledge: Mapped[Pledge] = relationship()

    @classmethod
    def keep(cls, user_id: int, pledge_ids: Iterable[int], page: str, as_of: dt.datetime) -> None:
        rows = [{"user_id": user_id, "pledge_id": one, "page": page, "at": as_of} for one in pledge_ids]
        if rows:
            db.session.execute(sa.insert(cls), rows)

    @classmethod
    def newest(cls, size: int, before: int = 0, pledge_id: int = 0) -> list[Self]:
        """A page of them, newest first; with a pledge's id only those at that pledge."""
        found = sa.select(cls).order_by(cls.id.desc()).limit(size)
        found = found.where(cls.id < before) if before else found
        found = found.where(cls.pledge_id == pledge_id) if pledge_id else found
        return list(db.session.scalars(found.options(sa.orm.joinedload(cls.user), sa.orm.joinedload(cls.pledge))))


class Erasure(Base):
    """Somebody was erased from our rows; what is left to do elsewhere is done by a job, which tries until it is done.

    That is Stripe's customer with the saved card, what it took to ask Stripe, and copies of letters in a folder.
    """

    __tablename__ = "erasures"

    id: Mapped[Key]
    subject: Mapped[str] = mapped_column(sa.String(40), unique=True)
    # What the letters to this person are about, as their rows name it.
    letters: Mapped[list[str]] = mapped_column(sa.JSON)
    asked_by: Mapped[str] = mapped_column(sa.String(40))
    asked_at: Mapped[dt.datetime]
    next_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    tries: Mapped[int]

    @classmethod
    def begin(cls, subject: Base, letters: list[str], by: str, as_of: dt.datetime) -> None:
        insert_once(cls, subject=name_of(subject), letters=letters, asked_by=by, asked_at=as_of, next_at=as_of, tries=0)

    @classmethod
    def waiting(cls, as_of: dt.datetime) -> list[int]:
        return list(db.session.scalars(sa.select(cls.id).where(cls.next_at <= as_of).order_by(cls.next_at, cls.id)))

    def pledge_id(self) -> int | None:
        kind, _, number = self.subject.partition(":")
        return int(number) if kind == "pledge" else None

    def message_ids(self) -> list[str]:
        return list(db.session.scalars(sa.select(Letter.message_id).where(Letter.subject.in_(self.letters))))

    def done(self) -> None:
        self.next_at = None

    def wait(self, as_of: dt.datetime) -> None:
        self.tries += 1
        self.next_at = as_of + pause(self.tries)


def _forget_mailbox(address: str) -> list[str]:
    """When nobody is known by this address any more, nothing that is about the address alone is kept either.

    Returns what letters that went there for that reason are about, as their rows name it.
    """
    lowered = address.lower()
    known = (Pledge.email_lowered == lowered, User.email == lowered, Comment.email == lowered)
    if not lowered or any(db.session.scalar(sa.select(sa.exists().where(one))) for one in known):
        return []
    asked = list(db.session.scalars(sa.select(LinkRequest).where(LinkRequest.email == lowered)))
    db.session.execute(sa.delete(LinkRequest).where(LinkRequest.email == lowered))
    Bounce.lift(address)
    return [name_of(one) for one in asked]


# Whose columns of the table of privacy.toml somebody takes along.
HELD: dict[type[Any], tuple[str, ...]] = {Pledge: ("supporter", "author"), Comment: ("author",), User: ("user",)}


def held_about(person: Pledge | Comment | User) -> dict[str, list[dict[str, Any]]]:
    """Every row that we keep of somebody, with the columns that privacy.toml names, and nothing of anybody else.

    A pledge and a comment stand for whoever has their private link, who may not be the only one to read the address
    that was typed there: so other pledges and comments of this address are not among them.
    """
    held = {}
    for name, columns in privacy.table().columns_of(*HELD[type(person)]).items():
        table = db.metadata.tables[name]
        if (mine := _belongs(table.c, name, person)) is not None:
            asked = sa.select(*(table.c[column] for column in columns)).where(mine).order_by(*table.primary_key)
            held[name] = [_as_json(row) for row in db.session.execute(asked).mappings()]
    return held


def held_at(address: str) -> dict[str, list[dict[str, Any]]]:
    """What is kept with an e-mail address and with no pledge, comment or account."""
    held = {}
    for name, columns in privacy.table().columns_of("anybody").items():
        table = db.metadata.tables[name]
        email = table.c.get("email", table.c.get("address"))
        if email is not None:
            asked = sa.select(*(table.c[column] for column in columns)).where(email == address.lower())
            held[name] = [_as_json(row) for row in db.session.execute(asked).mappings()]
    return held


def _belongs(columns: Any, table: str, person: Pledge | Comment | User) -> sa.ColumnElement[bool] | None:
    """For a query: the rows of a table that are about somebody; None when it has none."""
    if table == person.__tablename__:
        return sa.and_(columns.id == person.id)
    if table == "letters":
        return sa.and_(columns.subject == name_of(person))
    if isinstance(person, User):
        return _belongs_to_user(columns, table, person)
    if table == "events":
        kind = name_of(person).partition(":")[0]
        return sa.and_(columns.subject_kind == kind, columns.subject_id == person.id)
    comment_id = person.comment_id if isinstance(person, Pledge) else person.id
    if table in ("comments", "old_texts"):
        return sa.and_((columns.id if table == "comments" else columns.comment_id) == comment_id)
    return sa.and_(columns.pledge_id == person.id) if "pledge_id" in columns else None


def _belongs_to_user(columns: Any, table: str, user: User) -> sa.ColumnElement[bool] | None:
    if table == "events":
        return sa.or_(
            columns.who == f"user:{user.id}", sa.and_(columns.subject_kind == "user", columns.subject_id == user.id)
        )
    theirs = sa.select(Case.id).where(Case.owner_id == user.id)
    if table == "pictures":
        return sa.or_(
            columns.case_id.in_(theirs), columns.update_id.in_(sa.select(Update.id).where(Update.author_id == user.id))
        )
    if table == "report_lines":
        return sa.and_(columns.report_id.in_(sa.select(FinalReport.id).where(FinalReport.author_id == user.id)))
    for column in ("user_id", "author_id", "asked_by_id", "owner_id"):
        if column in columns:
            return sa.and_(columns[column] == user.id)
    return sa.and_(columns.case_id.in_(theirs)) if "case_id" in columns else None


def _as_json(row: Any) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        return value.isoformat() if isinstance(value, dt.datetime) else value

    return {name: plain(value) for name, value in row.items()}


class Examination(Base):
    """One look of the doctor at the books: what was off, in sentences that name rows."""

    __tablename__ = "examinations"

    id: Mapped[Key]
    at: Mapped[dt.datetime]
    findings: Mapped[list[str]] = mapped_column(sa.JSON)

    @classmethod
    def write(cls, findings: list[str], as_of: dt.datetime) -> Self:
        """Keep what was found; the operator is owed a letter about it once a day."""
        made = cls(at=as_of, findings=findings)
        db.session.add(made)
        db.session.flush()
        _owe_daily("books_disagree", made, as_of)
        return made

    @classmethod
    def last(cls) -> Self | None:
        return db.session.scalar(sa.select(cls).order_by(cls.id.desc()).limit(1))


class Reconciliation(Base):
    """One comparison of our rows with Stripe's objects for a span of time, and what it found.

    It goes backwards through the span, a page of Stripe's at a time, for each stage anew. `cursor` is where Stripe's
    list goes on, `reached` the instant down to which our rows were compared; both outlive a crash.
    """

    STAGES = ("news", "payments", "refunds", "disputes", "balance", "ended")

    __tablename__ = "reconciliations"
    __table_args__ = (one_of("stage", STAGES),)

    id: Mapped[Key]
    since: Mapped[dt.datetime]
    until: Mapped[dt.datetime]
    began_at: Mapped[dt.datetime]
    ended_at: Mapped[dt.datetime | None]
    stage: Mapped[str] = mapped_column(sa.String(20))
    cursor: Mapped[str | None] = mapped_column(sa.String(120))
    reached: Mapped[dt.datetime]
    next_at: Mapped[dt.datetime | None] = mapped_column(index=True)
    tries: Mapped[int]
    looked_at: Mapped[int]
    mended: Mapped[int]
    # Sentences for staff, each naming its row.
    findings: Mapped[list[str]] = mapped_column(sa.JSON)

    @classmethod
    def begin(cls, since: dt.datetime, until: dt.datetime, as_of: dt.datetime) -> Self:
        """A comparison that waits for its first step."""
        made = cls(
            since=since, until=until, began_at=as_of, stage="news", reached=until, next_at=as_of, tries=0,
            looked_at=0, mended=0, findings=[],
        )  # fmt: skip
        db.session.add(made)
        db.session.flush()
        return made

    @classmethod
    def last_ended(cls) -> Self | None:
        """The one that reaches furthest of those that were brought to their end."""
        found = sa.select(cls).where(cls.ended_at.is_not(None)).order_by(cls.until.desc(), cls.id.desc())
        return db.session.scalar(found.limit(1))

    @classmethod
    def recent(cls, since: dt.datetime) -> tuple[list[Self], Self | None]:
        """Those that came to their end since then, the newest first; and the newest that has not come to its end."""
        found = sa.select(cls).where(sa.or_(cls.ended_at >= since, cls.ended_at.is_(None)))
        all_of_them = list(db.session.scalars(found.order_by(cls.ended_at.desc(), cls.id.desc())))
        ended = [one for one in all_of_them if one.ended_at is not None]
        return ended, next((one for one in all_of_them if one.ended_at is None), None)

    @classmethod
    def under_way(cls) -> Self | None:
        """The newest one that has not come to its end."""
        return db.session.scalar(sa.select(cls).where(cls.ended_at.is_(None)).order_by(cls.id.desc()).limit(1))

    @classmethod
    def waiting(cls, as_of: dt.datetime) -> list[int]:
        """The ids of those that have a step to do at this instant."""
        return list(db.session.scalars(sa.select(cls.id).where(cls.next_at <= as_of).order_by(cls.id)))

    @classmethod
    def claim(cls, reconciliation_id: int, as_of: dt.datetime, lease: dt.timedelta) -> Self | None:
        """Take it for one step; None when it has ended or somebody else is at it."""
        found = sa.select(cls).where(cls.id == reconciliation_id, cls.next_at <= as_of)
        mine = db.session.scalar(found.with_for_update(skip_locked=True).execution_options(populate_existing=True))
        if mine is not None:
            mine.next_at = as_of + lease
        return mine

    def note(self, looked_at: int, mended: int, findings: list[str]) -> None:
        """Add what one step has seen; a finding that was made before is not repeated."""
        self.looked_at += looked_at
        self.mended += mended
        self.findings = list(dict.fromkeys([*self.findings, *findings]))

    def go_on(self, cursor: str | None, reached: dt.datetime, as_of: dt.datetime) -> None:
        """This stage has more to look at. Without a cursor its list has ended, and the next stage begins."""
        self.cursor, self.reached, self.next_at, self.tries = cursor, reached, as_of, 0
        if cursor is None:
            self.stage, self.reached = self.STAGES[self.STAGES.index(self.stage) + 1], self.until
        if self.stage == "ended":
            self.ended_at, self.next_at = as_of, None
            _owe_daily("stripe_disagrees", self, as_of)

    def wait(self, as_of: dt.datetime) -> None:
        """Stripe could not be asked: the same step is done again after a growing pause."""
        self.tries += 1
        self.next_at = as_of + pause(self.tries)


def _owe_daily(kind: str, found: Examination | Reconciliation, as_of: dt.datetime) -> None:
    """A letter to the operator about findings, at most one of its kind a day."""
    today = as_of.date().isoformat()
    told = sa.select(Letter.id).where(Letter.kind == kind, Letter.occasion == today).limit(1)
    if found.findings and db.session.scalar(told) is None:
        Letter.owe(kind, found, today, as_of)


class Lease(Base):
    """Who alone may do a thing, and until when; lets another take over when its holder dies."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(sa.String(60), primary_key=True)
    holder: Mapped[str] = mapped_column(sa.String(60))
    until: Mapped[dt.datetime]

    @classmethod
    def take(cls, name: str, holder: str, as_of: dt.datetime, length: dt.timedelta) -> bool:
        """Take the lease, or lengthen one's own. Returns False while somebody else holds it."""
        if insert_once(cls, name=name, holder=holder, until=as_of + length):
            return True
        free = sa.or_(cls.holder == holder, cls.until <= as_of)
        taken = db.session.execute(
            sa.update(cls).where(cls.name == name, free).values(holder=holder, until=as_of + length)
        )
        return bool(taken.rowcount)  # type: ignore[attr-defined]

    @classmethod
    def held(cls, name: str, as_of: dt.datetime) -> bool:
        """Whether somebody has the lease at this instant."""
        return db.session.scalar(sa.select(cls.name).where(cls.name == name, cls.until > as_of)) is not None

    @classmethod
    def wind(cls, name: str, as_of: dt.datetime) -> None:
        """Work that returns by the clock has a lease that runs out when it is due; the first time it is due at once."""
        insert_once(cls, name=name, holder="clock", until=as_of)

    @classmethod
    def has_run_out(cls, name: str, as_of: dt.datetime) -> bool:
        return db.session.scalar(sa.select(cls.name).where(cls.name == name, cls.until <= as_of)) is not None

    @classmethod
    def make_due(cls, name: str, as_of: dt.datetime) -> None:
        """Somebody wants work that returns by the clock now, and not only when it would be due."""
        cls.wind(name, as_of)
        db.session.execute(sa.update(cls).where(cls.name == name, cls.until > as_of).values(until=as_of))

    @classmethod
    def due_at(cls, *names: str) -> list[dt.datetime | None]:
        """When work that returns by the clock comes next; None before the clock has seen it for the first time."""
        found = db.session.execute(sa.select(cls.name, cls.until).where(cls.name.in_(names)))
        known = {row.name: row.until for row in found}
        return [known.get(name) for name in names]


def _noted(instant: dt.datetime, zone: str) -> str:
    """An instant for the books, which are in English."""
    with force_locale(law.ENGLISH):
        return law.instant_words(instant, zone)


def _from_to(before: int, after: int) -> str:
    return f"from {pounds(before, law.ENGLISH)} to {pounds(after, law.ENGLISH)}"


def name_of(row: Any) -> str:
    """How records speak of a row: "pledge:17"."""
    return f"{row.__tablename__.rstrip('s')}:{row.id}"


def move(row: Any, moves: Any, to: str, by: str, as_of: dt.datetime, note: str = "") -> None:
    """Change a row's state as the law's table allows, and write it down. Silent when already there.

    Raises Refused for a move that the table does not have.
    """
    before = row.status
    if before == to:
        return
    if not law.allows(moves, before, to):
        kind = gettext(row.__tablename__.rstrip("s"))
        words = gettext("This %(kind)s is %(before)s: it can no longer become %(to)s.",
                        kind=kind, before=gettext(before), to=gettext(to))  # fmt: skip
        raise Refused(words)
    row.status = to
    Event.write(row, to, by, as_of, before=before, after=to, note=note)


def pause(tries: int) -> dt.timedelta:
    """How long to wait after the n-th failure: 2, 4, 8 ... seconds, at most ten minutes."""
    return dt.timedelta(seconds=min(600, 2 ** min(tries, 10)))
