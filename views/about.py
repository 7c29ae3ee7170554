"""What the operator says of the site itself: how it works, its accessibility and its privacy. These pages belong to the
blueprint of the public; their words are Markdown files that the operator can replace."""

from pathlib import Path
from typing import Any

from flask import render_template
from flask_babel import gettext, ngettext

import config
import privacy as kept_of_people
from law import N_
from views import front_cache, languages
from views.public import public

OURS = config.ROOT / "pages"
# Why it matters to a reader from where the one script comes.
FROM_US = N_("Everything that a page needs comes from this site itself.")
FROM_ELSEWHERE = N_(
    "One file of a page, a small program that refreshes the total, comes from {host}, which so learns the address of "
    "your connection, and is not told which page you read. Everything else comes from this site itself."
)


# What a rule does -> what the page calls it.
THEN = {"delete": N_("deleted"), "empty": N_("emptied"), "erase": N_("erased")}


@public.get("/how-it-works")
@front_cache.keeps()
def how_it_works() -> str:
    return _page(gettext("How it works"), "how-it-works.md")


@public.get("/accessibility")
@front_cache.keeps()
def accessibility() -> str:
    return _page(gettext("Accessibility"), "accessibility.md")


@public.get("/privacy")
@front_cache.keeps()
def privacy() -> str:
    return _page(gettext("Privacy"), "privacy.md")


def _page(title: str, file: str) -> str:
    """The operator's words, or ours where the operator's folder has no such file, with the site's own names in them."""
    settings = config.current()
    language = languages.asked_for()
    translated = file.replace(".md", f".{language}.md")
    folders = [Path(settings.pages_folder), OURS] if settings.pages_folder else [OURS]
    # The operator's words in English stand before ours in another language: theirs are the ones that hold.
    found = next(one for folder in folders for one in (folder / translated, folder / file) if one.is_file())
    words = found.read_text(encoding="utf-8")
    host = settings.htmx_host
    names = {
        "{operator}": settings.operator_name, "{site}": settings.site_name, "{contact}": settings.contact_email,
        "{htmx}": gettext(FROM_ELSEWHERE).format(host=host) if host else gettext(FROM_US),
    }  # fmt: skip
    for name, meant in names.items():
        words = words.replace(name, meant)
    # The table follows the words wherever the operator has not said where it stands.
    before, _, after = words.partition("{kept}")
    return render_template(
        "cases/about.html", title=title, words=before, after=after, in_language=found.name == translated,
        kept=_kept() if file == "privacy.md" else {},
    )  # fmt: skip


def _kept() -> dict[str, list[dict[str, Any]]]:
    """The lines of the table of privacy.toml, by the people whom they are about."""
    table = kept_of_people.table()
    lines: dict[str, list[dict[str, Any]]] = {gettext(words): [] for words in table.people.values()}
    for one in table.kept:
        lines[gettext(table.people[one.of])].append({
            "what": gettext(one.what), "why": gettext(one.why), "basis": gettext(one.basis),
            "rules": [_rule(rule, gettext(table.moments[rule.after])) for rule in one.rules],
            "until": gettext(one.until) if one.until else "",
        })  # fmt: skip
    return lines


def _rule(rule: kept_of_people.Rule, moment: str) -> str:
    """For how long, and what happens then: "1 day after it was asked for: deleted"."""
    years = rule.days // 365 if rule.days % 365 == 0 else 0
    length = (
        ngettext("%(num)s year", "%(num)s years", years)
        if years
        else ngettext("%(num)s day", "%(num)s days", rule.days)
    )
    return gettext("%(length)s %(moment)s: %(then)s", length=length, moment=moment, then=gettext(THEN[rule.then]))
