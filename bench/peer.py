# mypy: ignore-errors
"""The case page as Django would make it, of the same tables: a peer to measure ours against. Only `make bench` uses it.

It shows what ours shows, with the same stylesheet. The long texts are made into HTML once for each, as with us.
"""

import functools
import os
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import models
from django.db.models import Prefetch
from django.http import Http404, HttpRequest, HttpResponse
from django.template import engines
from django.urls import path
from django.utils.html import linebreaks
from django.utils.safestring import mark_safe

from bench.peer_pages import PAGE
from views import stylesheet

ROOT = Path(__file__).resolve().parent.parent
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {
        "ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE_URL"].removeprefix("sqlite:///"),
        "CONN_MAX_AGE": None,
    }},
    INSTALLED_APPS=["django.contrib.humanize"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="for measurements only",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    TIME_ZONE="Europe/London",
    USE_TZ=True,
)  # fmt: skip
django.setup()


class Of(models.Model):
    class Meta:
        abstract = True
        app_label = "peer"
        managed = False


class User(Of):
    name = models.TextField()
    bio = models.TextField()

    class Meta(Of.Meta):
        db_table = "users"


class Case(Of):
    slug, title, summary, story = (models.TextField() for _ in range(4))
    who_we_are, firm, lawyer, regulator_number = (models.TextField() for _ in range(4))
    court, stage, risks, status, visibility = (models.TextField() for _ in range(5))
    owner = models.ForeignKey(User, models.DO_NOTHING)

    class Meta(Of.Meta):
        db_table = "cases"


class Round(Of):
    case = models.ForeignKey(Case, models.DO_NOTHING, related_name="rounds")
    target_pence, pledged_pence, pledge_count = (models.BigIntegerField() for _ in range(3))
    deadline = models.DateTimeField()

    class Meta(Of.Meta):
        db_table = "rounds"


class Update(Of):
    case = models.ForeignKey(Case, models.DO_NOTHING, related_name="updates")
    title, body, status, audience = (models.TextField() for _ in range(4))
    published_at = models.DateTimeField()

    class Meta(Of.Meta):
        db_table = "updates"


class Picture(Of):
    case = models.ForeignKey(Case, models.DO_NOTHING, related_name="pictures", null=True)
    update = models.ForeignKey(Update, models.DO_NOTHING, related_name="pictures", null=True)
    size, sha256 = models.TextField(), models.TextField()
    width, height = models.IntegerField(), models.IntegerField()

    class Meta(Of.Meta):
        db_table = "pictures"


class BudgetLine(Of):
    case = models.ForeignKey(Case, models.DO_NOTHING, related_name="budget")
    words, pence, position = models.TextField(), models.BigIntegerField(), models.IntegerField()

    class Meta(Of.Meta):
        db_table = "budget_lines"


class DocumentLink(Of):
    case = models.ForeignKey(Case, models.DO_NOTHING, related_name="links")
    title, url, position = models.TextField(), models.TextField(), models.IntegerField()

    class Meta(Of.Meta):
        db_table = "document_links"


class Comment(Of):
    case = models.ForeignKey(Case, models.DO_NOTHING, related_name="comments")
    name, public_body, answer = models.TextField(), models.TextField(), models.TextField()
    created_at, answered_at = models.DateTimeField(), models.DateTimeField()

    class Meta(Of.Meta):
        db_table = "comments"


@functools.cache
def _page() -> Any:
    return engines["django"].from_string(PAGE)


@functools.cache
def _css() -> str:
    return mark_safe(stylesheet.parts()[0])  # noqa: S308 - our own file


@functools.lru_cache(maxsize=512)
def _html(text: str) -> str:
    return mark_safe(linebreaks(text, autoescape=True))  # noqa: S308 - linebreaks has escaped it


def case_page(request: HttpRequest, slug: str) -> HttpResponse:
    updates = Prefetch(
        "updates", Update.objects.filter(status="published").order_by("-id").prefetch_related("pictures")
    )
    shown = Case.objects.select_related("owner").prefetch_related("rounds", "pictures", "budget", "links", updates)
    case = shown.filter(slug=slug, visibility="public").first()
    if case is None:
        raise Http404
    its_round = list(case.rounds.all())[-1]
    newest = Comment.objects.filter(case=case, public_body__isnull=False).order_by("-id")[:51]
    told = [(update, _html(update.body)) for update in case.updates.all()]
    return HttpResponse(_page().render({
        "case": case, "round": its_round, "story": _html(case.story), "updates": told,
        "comments": list(newest)[::-1], "css": _css(), "total": its_round.pledged_pence // 100,
        "target": its_round.target_pence // 100,
    }, request))  # fmt: skip


def address(_: HttpRequest, number: int) -> HttpResponse:
    return HttpResponse(str(number))


urlpatterns = [
    path("", case_page, {"slug": "measured"}, name="home"),
    path("login", address, {"number": 0}, name="login"),
    path("cases/<slug:slug>", case_page, name="case"),
    path("cases/<slug:slug>/pledge", case_page, name="pledge"),
    path("cases/<slug:slug>/comments", case_page, name="comments"),
    path("cases/<slug:slug>/pledge-total", case_page, name="total"),
    path("comments/<int:number>/report", address, name="report"),
]


def create_app() -> WSGIHandler:
    return WSGIHandler()
