"""All that a database holds, as a backup of it would have it: to look for what must not be there any more."""

import subprocess
from pathlib import Path

import sqlalchemy as sa

from models import db
from tests.postgres import server_binaries


def dump(folder: Path) -> str:
    """Whatever lies in free room of SQLite's file is left out, as in any backup by VACUUM INTO."""
    db.session.rollback()
    url = db.engine.url
    if url.get_backend_name() == "sqlite":
        copy = folder / "dump.db"
        copy.unlink(missing_ok=True)
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"VACUUM INTO '{copy}'")
        engine.dispose()
        return copy.read_bytes().decode(errors="replace")
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return subprocess.run(
        [server_binaries() / "pg_dump", "--inserts", plain], check=True, capture_output=True, text=True
    ).stdout
