"""What programs read to find cases: Atom feeds, the site map, and what search engines may visit. These pages belong to
the blueprint of the public."""

from typing import Any

from flask import make_response, render_template
from flask.wrappers import Response
from markupsafe import escape

import config
from models import Case
from views import front_cache, languages
from views.public import found, public
from views.sharing import whole
from views.words import render_markdown

NEWEST = 50
ATOM = "application/atom+xml"


@public.get("/cases.atom")
@front_cache.keeps()
def cases_feed() -> Response:
    """The newest cases, each as its summary."""
    import feedgenerator  # type: ignore[import-untyped]

    feed = feedgenerator.Atom1Feed(
        title=f"Cases on {config.current().site_name}", link=whole("public.home"), description=None, language="en-GB",
        feed_url=whole("public.cases_feed"), feed_guid=whole("public.home"),
    )  # fmt: skip
    for one in Case.newest(NEWEST):
        address = whole("public.case", slug=one.slug)
        feed.add_item(
            title=one.title, link=address, description=str(escape(one.summary)), unique_id=address,
            author_name=one.owner.name, pubdate=one.live_at, updateddate=one.live_at,
        )  # fmt: skip
    return _feed(feed)


@public.get("/cases/<slug>/updates.atom")
@front_cache.keeps()
def updates_feed(slug: str) -> Response:
    """What the owner of one case has published for everyone, the whole text."""
    import feedgenerator

    its_case = found(slug)
    address = whole("public.case", slug=slug)
    feed = feedgenerator.Atom1Feed(
        title=f"Updates on {its_case.title}", link=address, description=None, language="en-GB",
        feed_url=whole("public.updates_feed", slug=slug), feed_guid=f"{address}#updates",
        author_name=its_case.owner.name,
    )  # fmt: skip
    for update in its_case.published_updates()[:NEWEST]:
        if update.is_for_everyone:
            feed.add_item(
                title=update.title, link=f"{address}#update-{update.id}", description=str(render_markdown(update.body)),
                unique_id=f"{address}#update-{update.id}", pubdate=update.published_at,
                updateddate=update.edited_at or update.published_at,
            )  # fmt: skip
    return _feed(feed)


@public.get("/sitemap.xml")
@front_cache.keeps()
def site_map() -> Response:
    answer = make_response(render_template("cases/sitemap.xml", slugs=Case.in_site_map()))
    answer.mimetype = "application/xml"
    return answer


@public.get("/robots.txt")
@front_cache.keeps()
def robots() -> Response:
    """Everything public may be read; forms and private links hold nothing to be found."""
    # Each is a beginning, and /owners/ is for everybody.
    kept_out = (
        "/login", "/account", "/owner/", "/owner$", "/moderation", "/staff", "/pledges/", "/comments/", "/c/",
        "/cases/*/pledge",
    )  # fmt: skip
    lines = [
        "User-agent: *",
        *(f"Disallow: {before}{path}" for before in languages.PREFIXES for path in kept_out),
        f"Sitemap: {whole('public.site_map')}",
    ]
    answer = make_response("\n".join(lines) + "\n")
    answer.mimetype = "text/plain"
    return answer


def _feed(feed: Any) -> Response:
    answer = make_response(feed.writeString("utf-8"))
    answer.mimetype = ATOM
    return answer
