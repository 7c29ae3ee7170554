"""What is kept of people, why, for how long, and what happens then: privacy.toml, read. No database, no clock."""

import functools
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent / "privacy.toml"


@dataclass(frozen=True)
class Rule:
    """So many days after a moment in the life of a row of this table it is deleted, some of its columns are emptied,
    or all of its person is erased."""

    table: str
    after: str
    days: int
    then: str
    columns: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """For the operator's command."""
        what = ", ".join(self.columns) if self.columns else "rows"
        return f"{self.table}: {what}, {self.days} days after \u201c{self.after}\u201d: {self.then}"


@dataclass(frozen=True)
class Kept:
    """One line of the table. Its words are English, to be translated where they are shown."""

    of: str
    what: str
    why: str
    basis: str
    tables: dict[str, list[str]]
    rules: tuple[Rule, ...]
    until: str
    secret: bool


@dataclass(frozen=True)
class Table:
    """All of it. `people` and `moments` are in words; `not_personal` names the columns that are not kept of anybody."""

    people: dict[str, str]
    moments: dict[str, str]
    kept: tuple[Kept, ...]
    not_personal: dict[str, list[str]]

    @property
    def rules(self) -> list[Rule]:
        return [rule for one in self.kept for rule in one.rules]

    def columns_of(self, *people: str) -> dict[str, list[str]]:
        """table -> the columns that are kept of these people and that they may take with them."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for one in self.kept:
            if one.of in people and not one.secret:
                for table, columns in one.tables.items():
                    found[table] += columns
        return {table: list(dict.fromkeys(columns)) for table, columns in found.items()}


@functools.cache
def table() -> Table:
    written = tomllib.loads(FILE.read_text(encoding="utf-8"))
    return Table(
        written["people"], written["moments"], tuple(_kept(one, written["bases"]) for one in written["kept"]),
        written["not_personal"],
    )  # fmt: skip


def _kept(written: dict[str, Any], bases: dict[str, str]) -> Kept:
    rules = tuple(Rule(**{**rule, "columns": tuple(rule.get("columns", ()))}) for rule in written.get("rules", ()))
    return Kept(
        written["of"], written["what"], written["why"], bases[written["basis"]], written["tables"], rules,
        written.get("until", ""), written.get("secret", False),
    )  # fmt: skip
