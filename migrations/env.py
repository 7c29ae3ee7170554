"""How Alembic reaches the database: through the application, whichever database that is."""

from typing import Any

from alembic import context
from alembic.autogenerate.api import AutogenContext

from models import Base, Instant, db


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | bool:
    """Write our column type as what it is in the database, so that old migrations never import models."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, Instant) else False


def include_name(name: str | None, _kind: str, _parents: Any) -> bool:
    """The search has tables and an index of its own, made by hand: no model names them."""
    return not (name or "").startswith("case_search")


def run_migrations() -> None:
    with db.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            # A large table takes its time; a page may not (models._prepare_postgresql).
            connection.exec_driver_sql("SET statement_timeout = 0")
            connection.commit()
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True, render_item=render_item,
            include_name=include_name,
        )  # fmt: skip
        with context.begin_transaction():
            context.run_migrations()


run_migrations()
