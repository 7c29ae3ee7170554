"""What the programs that live for long load: each library that one of them never uses would be memory for nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from jinja2 import Environment

import office

ROOT = Path(__file__).resolve().parent.parent
# As `python -m jobs worker` does before its first job.
WORKER = "import jobs.__main__, office\nwith office.create().app_context():\n    jobs.queue.import_all_jobs()\n"
# As the web server does.
SITE = "import app\napp.create_app()\n"
MIGRATING = {"alembic", "flask_migrate", "mako", "pygments"}
PAGES = {"PIL", "app", "cli", "demo", "flask_limiter", "flask_wtf", "markdown_it", "nh3", "valkey", "wtforms"}


def loaded_by(program: str) -> set[str]:
    """The top-level modules that a process of its own has loaded after this. A tool of `make check` brings rich, which
    structlog loads where it finds it; no server has it."""
    said = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.modules['rich'] = None\n{program}print(*sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return {name.partition(".")[0] for name in said.stdout.split()}


@pytest.mark.slow
def test_the_worker_and_the_sweep_load_nothing_that_only_pages_or_migrations_need() -> None:
    loaded = loaded_by(WORKER)
    assert {"jobs", "letters", "stripe", "rq"} <= loaded
    assert loaded & (MIGRATING | PAGES) == set()


@pytest.mark.slow
def test_the_web_server_loads_nothing_that_only_migrations_commands_cards_or_new_pictures_need() -> None:
    loaded = loaded_by(SITE)
    assert {"app", "views", "wtforms"} <= loaded
    assert loaded & (MIGRATING | {"cli", "demo", "stripe", "requests", "urllib3", "PIL"}) == set()
    # Only who rings, is written to, or sets up a second factor needs these.
    assert loaded & {"rq", "email_validator", "letters", "segno"} == set()


def test_every_letter_can_be_written_without_pages() -> None:
    """The worker knows the filters of `views/words.py`, and not a filter more."""
    templates: Environment = office.create({"environment": "test"}).jinja_env
    letters = [name for name in templates.list_templates() if name.startswith("letters/")]
    assert len(letters) > 40
    for name in letters:
        templates.get_template(name)


def test_the_newest_migration_is_the_one_that_alembic_would_name() -> None:
    assert office.newest_migration() == ScriptDirectory(str(office.MIGRATIONS)).get_current_head()


def test_of_several_migrations_the_newest_is_the_one_that_none_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = tmp_path / "versions"
    versions.mkdir()
    for name, before in (("0002", "'0001'"), ("0003", "'0002'"), ("0001", "None")):
        (versions / f"{name}_a_step.py").write_text(f"revision = '{name}'\ndown_revision = {before}\n")
    monkeypatch.setattr(office, "MIGRATIONS", tmp_path)
    assert office.newest_migration.__wrapped__() == "0003"
