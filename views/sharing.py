"""How a case is passed on: its share picture, badge and frame for other sites, QR code, poster, the instant of its
deadline for a calendar, and short addresses. These pages belong to the blueprint of the public.

Whoever shows them elsewhere tells us nothing about their readers, and nothing here needs a script. The libraries that
draw are loaded when the first is asked for, since most processes never draw.
"""

import datetime as dt
import hashlib
import io
from urllib.parse import urlsplit

from flask import abort, current_app, jsonify, make_response, redirect, render_template, request, url_for
from flask_babel import gettext
from flask_login import current_user
from markupsafe import Markup
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

import config
import law
from models import Case, Round
from money import pounds
from views import doors, front_cache, languages
from views.counting import count_source
from views.public import found, now, public
from views.words import time_left

# What other sites show may be this old.
A_MINUTE = 60
# The frame, and the narrowest one: in both the longest title is seen whole, in every language.
FRAME = (480, 310)
LEAST_FRAME = (240, 520)
THUMBNAIL = (1200, 630)


@public.get("/cases/<slug>/share.png")
@front_cache.keeps()
def share_picture(slug: str) -> AnyResponse:
    """What networks show beside a link: 1200 by 630, drawn anew when the total or the time left has another word."""
    import pictures

    its_case = found(slug)
    its_round, as_of = its_case.round, now()
    total = gettext(
        "pledged of %(target)s target, %(left)s",
        target=pounds(its_round.target_pence),
        left=_in_a_word(its_round, as_of),
    )
    words = (pounds(its_round.shown_pence), total) if its_round.status != "cancelled" else (gettext("Cancelled"), "")
    by, site = gettext("by %(name)s", name=its_case.owner.name), config.current().site_name
    drawn = pictures.share_picture(its_case.title, by, *words, its_round.percent, site)
    return _for_elsewhere(drawn, "image/png")


@public.get("/cases/<slug>/badge.svg")
@front_cache.keeps()
def badge(slug: str) -> AnyResponse:
    """The total as a small picture in words, for a page that can show no frame."""
    its_case = found(slug)
    its_round = its_case.round
    words = gettext(
        "%(total)s pledged of %(target)s", total=pounds(its_round.shown_pence), target=pounds(its_round.target_pence)
    )
    if its_round.status == "cancelled":
        words = gettext("This case was cancelled")
    drawn = render_template("cases/badge.svg", case=its_case, words=words, percent=min(100, its_round.percent))
    return _for_elsewhere(drawn.encode(), "image/svg+xml")


@public.get("/cases/<slug>/embed")
@front_cache.keeps()
def embed(slug: str) -> AnyResponse:
    """A page for a frame of another site: the total, the time left, and a link. It asks for nothing but itself."""
    its_case, as_of = found(slug), now()
    doors.may_be_framed()
    answer = make_response(render_template("cases/embed.html", case=its_case, round=its_case.round, as_of=as_of))
    answer.cache_control.public, answer.cache_control.max_age = True, A_MINUTE
    return answer


@public.get("/oembed")
def oembed() -> AnyResponse:
    """Tells a site that has only the address of a case how to frame it (https://oembed.com, type "rich")."""
    kind = request.args.get("format", "json")
    if kind not in ("json", "xml"):
        return _cannot(gettext("Only JSON and XML are given here."))
    its_case = found(_slug_of(request.args.get("url", "")))
    most_wide, most_high = _most("maxwidth"), _most("maxheight")
    width = min(FRAME[0], most_wide)
    height = FRAME[1] if width == FRAME[0] else LEAST_FRAME[1]
    if width < LEAST_FRAME[0] or height > most_high:
        return _cannot(gettext("The frame cannot be that small: its words would be cut off."))
    frame = Markup('<iframe src="{}" width="{}" height="{}" title="{}" loading="lazy"></iframe>').format(
        whole("public.embed", slug=its_case.slug),
        width,
        height,
        gettext("%(title)s: what is pledged", title=its_case.title),
    )
    said = {
        "version": "1.0", "type": "rich", "title": its_case.title, "author_name": its_case.owner.name,
        "provider_name": config.current().site_name, "provider_url": config.current().site_url,
        "cache_age": A_MINUTE, "html": str(frame), "width": width, "height": height,
    }  # fmt: skip
    if most_wide >= THUMBNAIL[0] and most_high >= THUMBNAIL[1]:
        said["thumbnail_url"] = whole("public.share_picture", slug=its_case.slug)
        said["thumbnail_width"], said["thumbnail_height"] = THUMBNAIL
    if kind == "json":
        return jsonify(said)
    answer = make_response(render_template("cases/oembed.xml", said=said))
    answer.mimetype = "text/xml"
    return answer


@public.get("/cases/<slug>/qr.svg")
@front_cache.keeps(via="[a-z0-9-]{1,30}")
def qr_code(slug: str) -> AnyResponse:
    """The short address of the case for a camera; with `?via=poster` its visits are counted under that label."""
    import segno

    kept = io.BytesIO()
    segno.make(short_address(found(slug), _label()), error="m", micro=False).save(
        kept, kind="svg", xmldecl=False, light="#fff", scale=4, border=4, omitsize=False, svgclass=None, lineclass=None
    )
    return _for_elsewhere(kept.getvalue(), "image/svg+xml")


@public.get("/cases/<slug>/poster")
@front_cache.keeps()
def poster(slug: str) -> str:
    """One sheet for a notice board, to be printed: what it is about, and how to get there."""
    its_case = found(slug)
    return render_template("cases/poster.html", case=its_case, round=its_case.round,
                           address=short_address(its_case, "poster"))  # fmt: skip


@public.get("/cases/<slug>/deadline.ics")
@front_cache.keeps()
def deadline(slug: str) -> AnyResponse:
    """The deadline for a calendar, in UTC, with a reminder a day before. Its number rises when the deadline moves."""
    import icalendar

    its_case = found(slug)
    its_round = its_case.round
    calendar, entry, alarm = icalendar.Calendar(), icalendar.Event(), icalendar.Alarm()
    calendar.add("prodid", f"-//{config.current().site_name}//EN")
    calendar.add("version", "2.0")
    if its_case.status == "cancelled":
        entry.add("status", "CANCELLED")
    entry.add("uid", f"round-{its_round.id}@{urlsplit(config.current().site_url).hostname}")
    entry.add("sequence", its_round.version)
    entry.add("dtstamp", now())
    entry.add("dtstart", its_round.deadline)
    entry.add("summary", gettext("Last moment to pledge: %(title)s", title=its_case.title))
    entry.add("description", law.instant_words(its_round.deadline, its_round.zone))
    entry.add("url", whole("public.case", slug=slug))
    alarm.add("action", "DISPLAY")
    alarm.add("description", gettext("One day left: %(title)s", title=its_case.title))
    alarm.add("trigger", -dt.timedelta(days=1))
    entry.add_component(alarm)
    calendar.add_component(entry)
    answer = make_response(calendar.to_ical())
    answer.mimetype = "text/calendar"
    answer.headers.set("Content-Disposition", "attachment", filename=f"{slug}.ics")
    return answer


@public.get("/c/<row:number>")
@public.get("/c/<row:number>/<label>")
def short(number: int, label: str = "") -> AnyResponse:
    """A short address leads to its case. A visit by a label is counted, and nothing of the visitor is."""
    its_case = Case.numbered(number) or abort(404)
    came_from = law.source(label, "")
    if label and not came_from:
        abort(404)
    if came_from and request.method == "GET" and not current_user.is_authenticated:
        count_source(its_case.round.id, came_from, "visited", now())
    return redirect(url_for("public.case", slug=its_case.slug, via=label or None), 302)


def short_address(its_case: Case, label: str = "") -> str:
    """The shortest whole address of a case, short enough to be typed from a poster."""
    return whole("public.short", number=its_case.id, **({"label": label} if label else {}))


def whole(endpoint: str, **values: object) -> str:
    """An address of ours as other sites and programs need it, by the name that the operator has set."""
    return config.current().site_url + url_for(endpoint, **values)  # type: ignore[arg-type]


def _label() -> str:
    asked = request.args.get("via", "")
    return asked if law.source(asked, "") else ""


def _in_a_word(its_round: Round, as_of: dt.datetime) -> str:
    """Where a round stands, for a picture that is some hours old when somebody sees it."""
    if its_round.is_open(as_of):
        return (
            time_left(its_round, as_of) if its_round.deadline - as_of >= dt.timedelta(days=1) else gettext("last day")
        )
    return {"met": gettext("reached"), "missed": gettext("not reached")}.get(its_round.status, gettext("ended"))


def _for_elsewhere(content: bytes, mimetype: str) -> AnyResponse:
    """A picture that pages of other sites may show, and that says by its hash whether it has changed."""
    doors.may_be_shown_elsewhere()
    answer = make_response(content)
    answer.mimetype = mimetype
    answer.cache_control.public, answer.cache_control.max_age = True, A_MINUTE
    answer.set_etag(hashlib.sha256(content).hexdigest()[:32])
    return answer.make_conditional(request)


def _slug_of(address: str) -> str:
    """The case that one of our whole addresses names, or 404."""
    try:
        parts = urlsplit(address)
        if f"{parts.scheme}://{parts.netloc}" != config.current().site_url:
            abort(404)
        endpoint, values = current_app.url_map.bind("").match(languages.without_any_language(parts.path), method="GET")
    except (HTTPException, ValueError):
        abort(404)
    return str(values["slug"]) if endpoint == "public.case" else abort(404)


def _most(asked: str) -> int:
    """The most that a side may have; a size of no sense is as if not asked."""
    said = request.args.get(asked, "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 6 else 100_000


def _cannot(why: str) -> AnyResponse:
    """What oEmbed has for an answer that we cannot give as it is asked for: "501 Not Implemented"."""
    answer = make_response(why, 501)
    answer.mimetype = "text/plain"
    return answer
