"""The letters that the product has written into a folder (files *.eml), to be read without a mail server."""

import email
import email.policy
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

from markupsafe import Markup, escape

ADDRESS = re.compile(r"https?://[^\s<>\"']+")


@dataclass(frozen=True)
class Letter:
    """One letter; `written` is when its file was last changed (UTC)."""

    name: str
    written: datetime
    to: str
    subject: str
    headers: list[tuple[str, str]]
    text: str


def letters_in(folder: Path) -> list[Letter]:
    """All letters, newest first."""
    found = sorted(_files(folder), key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
    return [_read(path) for path in found]


def letter_named(folder: Path, name: str) -> Letter | None:
    """One letter of the folder; None for any name that is not exactly one of its files."""
    return next((_read(path) for path in _files(folder) if path.name == name), None)


def _files(folder: Path) -> list[Path]:
    """The letters themselves: what only points out of the folder is none."""
    found = folder.glob("*.eml") if folder.is_dir() else []
    return [path for path in found if path.is_file() and not path.is_symlink()]


def _read(path: Path) -> Letter:
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    part = message.get_body(preferencelist=("plain",))
    return Letter(
        name=path.name,
        written=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        to=str(message.get("To", "")),
        subject=str(message.get("Subject", "(no subject)")),
        headers=[(name, str(value)) for name, value in message.items()],
        text=str(part.get_content()) if part is not None else "(This letter has no text part.)",
    )


def with_links(text: str, site_url: str) -> Markup:
    """The text as HTML, with the addresses of the site itself as links and everything else left as text."""
    pieces: list[Markup] = []
    place = 0
    for found in ADDRESS.finditer(text):
        address = found.group().rstrip(".,;:!?)")
        pieces.append(escape(text[place : found.start()]))
        if site_url and (address == site_url or address.startswith(site_url + "/")):
            pieces.append(Markup('<a href="{0}">{0}</a>').format(address))
        else:
            pieces.append(escape(address))
        place = found.start() + len(address)
    pieces.append(escape(text[place:]))
    return Markup("").join(pieces)
