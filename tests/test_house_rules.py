"""The rules of the house that a reader would otherwise have to remember; CONTRIBUTING.md says why they are so."""

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import config
from jobs.__main__ import PROGRAMS
from tests.conftest import LONGEST
from tests.test_settings import PRODUCTION

ROOT = Path(__file__).resolve().parent.parent

# Who may import whom, among our own. A room may always import itself.
MAY_IMPORT: dict[str, set[str]] = {
    "beginning": set(),
    "money": set(),
    "config": set(),
    "law": set(),
    "case_file": {"law", "money"},
    "passwords": set(),
    "twin": set(),
    "pictures": set(),
    "privacy": set(),
    "models": {"law", "money", "privacy"},
    "payments": {"money", "config"},
    "letters": {"models", "money", "law", "config", "twin"},
    "jobs": {"models", "payments", "letters", "law", "privacy", "config"},
    "views": {"models", "money", "passwords", "payments", "pictures", "jobs", "law", "privacy", "config"},
    "demo": {"jobs", "models", "payments", "letters", "money", "law", "config", "case_file", "pictures"},
    "cli": {
        "jobs",
        "models",
        "payments",
        "letters",
        "money",
        "law",
        "config",
        "case_file",
        "demo",
        "passwords",
        "privacy",
    },
    "office": {"beginning", "config", "models", "views"},
    "app": {"beginning", "cli", "config", "jobs", "law", "letters", "models", "money", "office", "payments", "views"},
    "bench": {"app", "demo", "jobs", "models", "payments", "views"},
    "sandbox": set(),
    "translations": set(),
}
# Who starts a program may import what it starts: the web server its application, the worker and the sweep theirs.
STARTERS = (("demo/web.py", "app"), ("jobs/__main__.py", "office"))
OUTSIDERS = {"stripe": {"payments"}, "rq": {"jobs", "app"}, "PIL": {"pictures"}}
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "constants", "services", "managers", "misc"}

JINJA_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
TAG = re.compile(r"""<([a-z][a-z0-9-]*)((?:[^<>"']|"[^"]*"|'[^']*')*)>""", re.IGNORECASE)
ATTRIBUTE = re.compile(r"""(?:^|\s)([a-z][a-z0-9:-]*)(?=[\s=/]|$)(?:="[^"]*"|='[^']*')?""", re.IGNORECASE)
ASKS = {"data-hx-get", "data-hx-post", "data-hx-put", "data-hx-patch", "data-hx-delete"}


def test_every_room_imports_only_what_the_floor_plan_allows() -> None:
    wrong = [
        f"{file} imports {imported}"
        for file, room, imported in _imports()
        if imported in MAY_IMPORT and imported not in {room, *MAY_IMPORT[room]}
        if (str(file), imported) not in STARTERS
    ]
    assert wrong == []


def test_every_file_of_ours_stands_in_a_room_of_the_floor_plan() -> None:
    rooms = {file.parts[0].removesuffix(".py") for file in _python() if file.parts[0] not in ("tests", "migrations")}
    assert rooms <= set(MAY_IMPORT)


def test_the_files_of_tests_that_begin_first_are_there() -> None:
    assert set(LONGEST) <= {file.stem for file in (ROOT / "tests").glob("test_*.py")}


def test_views_never_import_letters() -> None:
    assert "letters" not in {imported for _, room, imported in _imports() if room == "views"}


def test_only_payments_knows_stripe_only_jobs_and_app_know_rq_and_only_pictures_opens_pictures() -> None:
    wrong = [
        f"{file} imports {imported}"
        for file, room, imported in _imports()
        if imported in OUTSIDERS and room not in OUTSIDERS[imported]
    ]
    assert wrong == []


def test_money_leaves_by_one_door_that_the_deadline_capture_alone_opens() -> None:
    code = {str(file): (ROOT / file).read_text(encoding="utf-8") for file in _python() if file.parts[0] != "tests"}
    assert [file for file, text in code.items() if re.search(r"\bpayments\.charge\(", text)] == [
        "jobs/deadline_capture.py"
    ]
    assert [file for file, text in code.items() if re.search(r"\bintents\.(create|confirm)\(", text)] == ["payments.py"]


def test_nothing_imports_the_sandbox_and_only_cli_and_measurements_import_the_demonstration() -> None:
    importers = {(imported, room) for _, room, imported in _imports() if imported in ("sandbox", "demo")}
    assert importers <= {("sandbox", "sandbox"), ("demo", "demo"), ("demo", "cli"), ("demo", "bench")}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(file) for file in _python() if BANNED_NAMES & {part.removesuffix(".py") for part in file.parts}] == []


def test_templates_have_no_inline_style_and_no_inline_script() -> None:
    """The policy in our headers would stop them, in front of a reader instead of in front of us."""
    wrong = [
        f"{file}: {name} on <{tag}>"
        for file, tag, attributes, _ in _tags()
        for name in attributes
        # The twin of a letter is no page of ours, and old mail programs know no other styles.
        if (name == "style" and file.name != "letter.html") or re.fullmatch(r"on[a-z]+", name)
    ]
    assert wrong == []


def test_no_template_declares_text_safe() -> None:
    assert [str(file) for file in _templates() if re.search(r"\|\s*safe\b", file.read_text(encoding="utf-8"))] == []


def test_htmx_attributes_are_written_with_data() -> None:
    assert [
        f"{file}: {name}" for file, _, attributes, _ in _tags() for name in attributes if name.startswith("hx-")
    ] == []


def test_whatever_asks_through_htmx_also_works_without_it_or_says_why_not() -> None:
    """A form with method and action, a link with href; anything else has a comment right above it."""
    wrong = [
        f"{file}: <{tag} {' '.join(sorted(attributes & ASKS))}>"
        for file, tag, attributes, explained in _tags()
        if attributes & ASKS
        if not (tag == "form" and {"method", "action"} <= attributes)
        if not (tag == "a" and "href" in attributes)
        if not explained
    ]
    assert wrong == []


def test_env_example_lists_every_setting_and_no_other() -> None:
    written = (ROOT / ".env.example").read_text(encoding="utf-8")
    listed = re.findall(r"^#?\s?([A-Z][A-Z0-9_]*)=", written, re.MULTILINE)
    assert sorted(listed) == sorted(name.upper() for name in config.Settings.model_fields)


def test_what_an_operator_is_told_to_set_and_to_start_is_there() -> None:
    told = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    units = {file.stem: file.read_text(encoding="utf-8") for file in (ROOT / "deploy" / "systemd").glob("*.service")}
    script = (ROOT / "deploy" / "standing").read_text(encoding="utf-8")
    # They mean something to the programs below ours.
    others = {"MALLOC_ARENA_MAX", "FLASK_SKIP_DOTENV", "AF_UNIX", "AF_INET"}
    settings = {name.upper() for name in config.Settings.model_fields}
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", "\n".join((told, script, *units.values()))))
    assert named - others <= settings and others <= named
    # Nothing is missing in the file of settings without which production does not start.
    written = dict(re.findall(r"^([A-Z_]+)='(.*)'$", told, re.MULTILINE))
    assert {name.upper() for name in PRODUCTION} <= set(written) <= settings
    commands = set(re.findall(r'command\("([a-z-]+)"', (ROOT / "cli.py").read_text(encoding="utf-8"))) | {"db"}
    asked_for = set(re.findall(r"(?:^|`|/)standing ([a-z][a-z-]+)", told, re.MULTILINE))
    assert {"db", "create-user", "invite", "doctor", "reconcile", "take-bounce"} <= asked_for <= commands
    # Each web server is started as nginx is told that it is, and the two programs behind them by their names.
    starts = {
        name: re.findall(r"^ExecStart=(?:/srv/standing/.venv/bin/)?(.*)$", unit, re.MULTILINE)
        for name, unit in units.items()
    }
    behind_nginx = re.findall(r"granian --.*", (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8"))
    assert [starts["standing-readers"], starts["standing-pledges"]] == [[line] for line in behind_nginx]
    assert {name: starts[f"standing-{name}"] for name in PROGRAMS} == {
        name: [f"python -m jobs {name}"] for name in PROGRAMS
    }
    for name in PROGRAMS:
        # A job is killed in its middle when it is told to stop as well, and only these programs have the other key.
        assert "KillMode=mixed" in units[f"standing-{name}"] and "worker.env" in units[f"standing-{name}"]
    assert [name for name, unit in units.items() if "EnvironmentFile=/etc/standing/worker.env" in unit] == [
        name for name in units if name.removeprefix("standing-") in PROGRAMS
    ]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"`python -m jobs {name}`" in readme for name in PROGRAMS) and "docs/operating.md" in readme


def test_no_file_names_the_machine_or_the_registry_it_was_made_with() -> None:
    folders = r"(?<![\w.}])/(?:work|root|home)/\w"
    registries = r"\b(?:pypi|pythonhosted|npmjs)\.(?:org|com)|^--(?:extra-)?index-url"
    places = re.compile(f"{folders}|{registries}", re.MULTILINE)
    found = {file: places.search((ROOT / file).read_text(encoding="utf-8", errors="ignore")) for file in _tracked()}
    assert [f"{file}: {place.group()}" for file, place in found.items() if place] == []


def test_the_locks_pin_every_package_with_its_hashes() -> None:
    for lock in ("requirements.txt", "requirements-demo.txt", "requirements-dev.txt", "requirements-bench.txt"):
        entries = re.split(r"\n(?=[a-z])", (ROOT / lock).read_text(encoding="utf-8"))
        assert [entry.split()[0] for entry in entries[1:] if "==" not in entry or "--hash=sha256:" not in entry] == []


def test_whoever_switches_off_a_rule_about_security_says_why_in_the_same_line() -> None:
    silent = re.compile(r"# noqa: (?:[A-Z]+[0-9]+, ?)*S[0-9]+\b(?! - \w| \(\w)")
    found = {file: silent.findall((ROOT / file).read_text(encoding="utf-8")) for file in _python()}
    assert [f"{file}: {one}" for file, all_of_it in found.items() for one in all_of_it] == []
    for file in _python():
        assert "nosec" not in (ROOT / file).read_text(encoding="utf-8").replace('"nosec"', ""), file


def test_each_row_of_the_security_checklist_names_its_tests_by_their_sentences_and_all_of_them_are_there() -> None:
    """The last cell of a row is written so: `file`: a sentence; another · `another_file`: a sentence."""
    words = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", words, re.MULTILINE)
    assert sorted({int(number) for number, _ in rows}) == [*range(1, 55)]
    # Nor is there a test that calls itself after a row that the table does not have, or that it does not name.
    called = {(file, name) for file, names in _tests().items() for name in names if name.startswith("row_")}
    for number, held_by in rows:
        for of_one_file in held_by.split(" · "):
            named = re.fullmatch(r"`(test_\w+)`: ([a-z0-9 ;]+)", of_one_file)
            assert named, f"row {number}: {of_one_file}"
            for sentence in named.group(2).split("; "):
                name = sentence.replace(" ", "_")
                assert name in _tests().get(named.group(1), ()), f"row {number}: {named.group(1)}: {sentence}"
                called.discard((named.group(1), name))
    assert called == set()


@functools.cache
def _tests() -> dict[str, set[str]]:
    """file -> the names of its tests, without the word that each begins with."""
    return {
        file.stem: {
            found.name.removeprefix("test_")
            for found in ast.parse(file.read_text(encoding="utf-8")).body
            if isinstance(found, ast.FunctionDef) and found.name.startswith("test_")
        }
        for file in (ROOT / "tests").glob("test_*.py")
    }


def _imports() -> Iterator[tuple[Path, str, str]]:
    """(file, its room, top-level name) for every import that runs, in code that is not a test."""
    for file in _python():
        room = file.parts[0].removesuffix(".py")
        if room not in MAY_IMPORT:
            continue
        for imported in _imported(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            yield file, room, imported.partition(".")[0]


def _imported(node: ast.AST) -> Iterator[str]:
    """Every imported module below a node; what stands under TYPE_CHECKING never runs and ties nothing together."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for otherwise in node.orelse:
            yield from _imported(otherwise)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imported(child)


def _tags() -> Iterator[tuple[Path, str, set[str], bool]]:
    """(template, tag, names of its attributes, whether a comment stands right above it) for every tag."""
    for file in _templates():
        text = JINJA_COMMENT.sub("\N{INVISIBLE SEPARATOR}", file.read_text(encoding="utf-8"))
        text = JINJA.sub(lambda found: " " if found.group().startswith("{%") else "x", text)
        for tag in TAG.finditer(text):
            attributes = {name.lower() for name in ATTRIBUTE.findall(tag.group(2))}
            explained = text[: tag.start()].rstrip().endswith("\N{INVISIBLE SEPARATOR}")
            yield file.relative_to(ROOT), tag.group(1).lower(), attributes, explained


def _templates() -> list[Path]:
    return sorted((ROOT / "templates").rglob("*.html"))


def _python() -> list[Path]:
    """All Python of ours that is in the repository or about to be."""
    return [file for file in _tracked() if file.suffix == ".py"]


def _tracked() -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    if not (ROOT / ".git").exists():
        pytest.skip("the rules are about what is in the repository, and this is not a clone of it")
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [Path(file) for file in files if (ROOT / file).is_file()]
