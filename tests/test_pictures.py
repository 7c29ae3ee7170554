"""The picture of a case: drawn anew, so that only what is seen is kept; refused at its field; seen by the right."""

import contextlib
import io
import struct
import zlib
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from PIL import Image
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from models import Case, Picture, db
from pictures import NotAPicture, draw_anew
from tests.doorway import set_otherwise
from tests.made import a_draft, a_user, case_at, keep, now
from tests.reading import read, said, token
from tests.test_owner_pages import logged_in

CANARY = b"51.5007 N 0.1246 W"


def a_file(kind: str = "JPEG", size: tuple[int, int] = (2_000, 1_000), mode: str = "RGB", **saved: Any) -> bytes:
    kept = io.BytesIO()
    picture = Image.new(mode, size, 1)
    picture.save(kept, kind, **saved)
    return kept.getvalue()


def a_photo_with_its_place() -> bytes:
    """Taken with the camera held upright: 2,000 by 1,000 in the file, 1,000 by 2,000 for who looks at it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = CANARY.decode()
    exif.get_ifd(0x8825)[29] = CANARY.decode()
    return a_file(exif=exif, comment=CANARY, icc_profile=CANARY, xmp=CANARY)


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


# --- Drawing -----------------------------------------------------------------------------------------------


def test_a_photo_stands_upright_in_two_sizes_and_has_lost_place_camera_and_comment() -> None:
    file = a_photo_with_its_place()
    assert file.count(CANARY) >= 4
    large, small = draw_anew(file)
    assert [(one.size, one.width, one.height) for one in (large, small)] == [("large", 800, 1_600), ("small", 240, 480)]
    for one in (large, small):
        again = opened(one.content)
        assert (again.format, again.size, one.media_type) == ("JPEG", (one.width, one.height), "image/jpeg")
        assert CANARY not in one.content and b"Exif" not in one.content
        assert not again.getexif() and not set(again.info) & {"comment", "exif", "icc_profile", "xmp"}


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_can_be_seen_through_stays_so(kind: str) -> None:
    large, small = draw_anew(a_file(kind, (300, 200), "RGBA"))
    assert [(one.media_type, one.width) for one in (large, small)] == [("image/webp", 300), ("image/webp", 300)]
    assert opened(large.content).convert("RGBA").getpixel((0, 0))[3] < 255  # type: ignore[index]


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "1"), ("PNG", "L"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "CMYK"),
                                            ("WEBP", "RGB"), ("PNG", "LA")])  # fmt: skip
def test_whatever_way_its_colours_are_written_a_picture_is_taken(kind: str, mode: str) -> None:
    assert draw_anew(a_file(kind, (40, 30), mode))[0].width == 40


def a_png_that_says_it_is(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1_000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "file",
    [a_file("PNG", (14_000, 14_000), "1"), a_png_that_says_it_is(100_000, 100_000), a_file("PNG", (5_001, 5_000), "1")],
    ids=["a bomb", "a lie", "just too many"],
)
def test_a_bomb_is_refused_before_it_is_unpacked(file: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(*_: object) -> None:
        raise AssertionError("it was unpacked")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", unpack)
    with pytest.raises(NotAPicture, match="more than 25 megapixels"):
        draw_anew(file)


def test_as_many_pixels_as_there_may_be_are_taken() -> None:
    assert draw_anew(a_file("PNG", (5_000, 5_000), "1"))[0].width == 1_600


NOT_PICTURES = {
    "nothing": b"",
    "words": b"This is no picture.",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "gif": a_file("GIF", (4, 4), "P"),
    "tiff": a_file("TIFF", (4, 4)),
    "cut off": a_file()[:-1_000],
    "head only": a_file("PNG")[:40],
    "a lie about its size": a_png_that_says_it_is(4_000, 4_000),
}


@pytest.mark.parametrize("file", NOT_PICTURES.values(), ids=NOT_PICTURES.keys())
def test_what_is_no_picture_is_refused_in_words(file: bytes) -> None:
    with pytest.raises(NotAPicture, match="not a whole JPEG, PNG or WebP picture"):
        draw_anew(file)


def test_what_hangs_behind_a_picture_is_left_behind() -> None:
    evil = b"<script>alert(1)</script><?php evil(); ?>"
    for one in draw_anew(a_file("PNG") + evil):
        assert b"script" not in one.content and b"php" not in one.content


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=some.sampled_from(["JPEG", "PNG", "WEBP"]),
    changes=some.lists(some.tuples(some.integers(0, 10_000), some.binary(min_size=1, max_size=6)), max_size=5),
    end=some.integers(0, 10_000),
)
def test_no_file_however_broken_is_more_than_refused(kind: str, changes: list[tuple[int, bytes]], end: int) -> None:
    file = bytearray(a_file(kind, (64, 48)))
    for place, other in changes:
        file[place % len(file) : place % len(file) + len(other)] = other
    with contextlib.suppress(NotAPicture):
        assert all(one.width <= 1_600 and one.height <= 1_600 for one in draw_anew(bytes(file[: max(end, 20)])))


# --- The page of the picture -------------------------------------------------------------------------------


def a_form(file: bytes | None, name: str = "weir.jpg", **words: str) -> dict[str, Any]:
    """What a browser sends of a form with a file, as the test client takes it."""
    fields: dict[str, Any] = dict(words)
    if file is not None:
        fields["file"] = FileStorage(io.BytesIO(file), name, "file")
    boundary, body = encode_multipart(fields)
    return {"data": body, "content_type": f'multipart/form-data; boundary="{boundary}"'}


class Wall:
    """An owner at the page where the picture of a draft is chosen."""

    def __init__(self, app: Flask) -> None:
        self.case_id, self.slug = (case := a_draft()).id, case.slug
        self.app, self.client = app, logged_in(app, case.owner)
        self.address = f"/owner/cases/{self.slug}/picture"
        self.token = token(self.client, "/owner")

    def send(self, status: int, file: bytes | None, alt: str = "A weir.", name: str = "weir.jpg") -> Any:
        return read(self.client, self.address, status, method="POST",
                    **a_form(file, name, alt=alt, form_token=self.token))  # fmt: skip

    @property
    def case(self) -> Case:
        keep()
        return db.session.get_one(Case, self.case_id)

    def src(self) -> str:
        picture = self.case.picture("large")
        assert picture
        return f"/pictures/{picture.sha256}"


@pytest.fixture
def wall(app: Flask) -> Wall:
    return Wall(app)


def test_a_picture_is_kept_and_shown_with_its_description(wall: Wall) -> None:
    before = wall.case.draft_version
    wall.send(303, a_photo_with_its_place())
    assert (wall.case.picture_alt, wall.case.draft_version) == ("A weir.", before + 1)
    for address in (wall.address, f"/owner/cases/{wall.slug}/preview"):
        (shown,) = read(wall.client, address).select("main img")
        assert (shown["src"], shown["alt"], shown["width"], shown["height"]) == (wall.src(), "A weir.", "800", "1600")
    kept = wall.client.get(wall.src())
    assert (kept.status_code, kept.mimetype, opened(kept.data).size) == (200, "image/jpeg", (800, 1_600))


def test_another_picture_takes_the_place_of_the_first_and_it_can_be_taken_down(wall: Wall) -> None:
    wall.send(303, a_file())
    first = wall.src()
    wall.send(303, a_file("PNG", (100, 100), "RGBA"), alt="Another.")
    assert wall.client.get(first).status_code == 404
    assert (wall.case.picture_alt, len(wall.case.pictures)) == ("Another.", 2)
    second = wall.src()
    assert wall.client.post(f"{wall.address}/removal", data={"form_token": wall.token}).status_code == 303
    assert wall.client.get(second).status_code == 404
    assert (wall.case.pictures, wall.case.picture_alt) == ([], "")
    assert db.session.scalar(sa.select(sa.func.count(Picture.id))) == 0


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (None, "Choose a JPEG, PNG or WebP picture."),
        (b"", "Choose a JPEG, PNG or WebP picture."),
        (NOT_PICTURES["svg"], "not a whole JPEG, PNG or WebP picture"),
        (NOT_PICTURES["cut off"], "not a whole JPEG, PNG or WebP picture"),
        (a_file("PNG", (14_000, 14_000), "1"), "more than 25 megapixels"),
        (b"x" * (8 * 1024 * 1024 + 1), "This file is larger than 8 MB. Choose a smaller one."),
    ],
    ids=["no file", "an empty file", "svg", "cut off", "a bomb", "too large"],
)
def test_what_cannot_be_taken_is_told_at_the_field_and_the_words_are_kept(
    wall: Wall, file: bytes | None, words: str
) -> None:
    page = wall.send(422, file)
    assert page.title and page.title.text.startswith("Error: ")
    assert [link["href"] for link in page.select(".errors a")] == ["#file"]
    assert words in said(page, "#file-error")
    assert [field["value"] for field in page.select("#alt")] == ["A weir."]
    assert wall.case.pictures == []


def test_much_more_than_may_be_sent_is_not_even_read(wall: Wall) -> None:
    page = wall.send(413, b"x" * (17 * 1024 * 1024))
    assert said(page, "h1") == "That was too much at once"


def test_only_somebody_who_is_logged_in_may_send_so_much(wall: Wall) -> None:
    stranger = wall.app.test_client()
    assert stranger.post(wall.address, **a_form(b"x" * 1_000_000)).status_code == 413


def test_the_operator_says_how_large_a_file_may_be(wall: Wall) -> None:
    with set_otherwise(wall.app, largest_picture_mb=1) as other:
        owner = wall.case.owner
        client = logged_in(other, owner)
        sent = a_form(b"x" * 1_100_000, alt="A weir.", form_token=token(client, "/owner"))
        answer = client.post(wall.address, **sent)
        assert answer.status_code == 422 and "This file is larger than 1 MB." in answer.text


def test_a_picture_without_a_description_is_kept_and_the_description_asked_for(wall: Wall) -> None:
    page = wall.send(422, a_file(), alt=" ")
    assert said(page, "#alt-error") == "Error: Say what the picture shows."
    assert len(wall.case.pictures) == 2
    assert wall.case.missing(now()) == [("alt", "Say what the picture shows.")]
    # And then the description can be sent alone.
    wall.send(303, None, alt="A weir.")
    assert wall.case.missing(now()) == []
    assert len(wall.case.pictures) == 2


# --- Who sees it -------------------------------------------------------------------------------------------


def test_the_picture_of_a_draft_is_for_its_owner_and_staff_alone(wall: Wall, client: FlaskClient) -> None:
    wall.send(303, a_file())
    where = wall.src()
    for person, status in ((None, 404), (a_user("owner"), 404), (a_user("moderator"), 404), (a_user("staff"), 200)):
        answer = (logged_in(wall.app, person) if person else client).get(where)
        assert answer.status_code == status
        assert answer.headers["Cache-Control"] == ("no-store" if person else "no-cache")
    assert wall.client.get(where).headers["Cache-Control"] == "no-store"


def test_the_picture_of_a_live_case_is_for_everybody_and_may_be_kept_for_ever(wall: Wall, client: FlaskClient) -> None:
    wall.send(303, a_file())
    where, case = wall.src(), wall.case
    case.go_live(600_000, case.wanted_deadline(now()), case.zone, "test", now())
    keep()
    for browser in (client, wall.client, logged_in(wall.app, a_user("moderator"))):
        answer = browser.get(where)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"] == "image/jpeg"
        again = browser.get(where, headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")
    (shown,) = read(client, f"/cases/{case_at(wall.slug).slug}").select(".story img")
    assert (shown["src"], shown["alt"]) == (where, "A weir.")
    (card,) = read(client, "/").select(".card img")
    assert card["alt"] == "A weir." and card["src"] != where and client.get(card["src"]).status_code == 200


@pytest.mark.parametrize("name", ["0" * 64, "x", "site.css", "%00", "' OR 1=1"])
def test_no_other_address_is_a_picture(client: FlaskClient, name: str) -> None:
    assert client.get(f"/pictures/{name}").status_code in (400, 404)


def test_a_case_that_is_live_keeps_its_picture(wall: Wall) -> None:
    wall.send(303, a_file())
    case = wall.case
    case.go_live(600_000, case.wanted_deadline(now()), case.zone, "test", now())
    keep()
    where = wall.src()
    assert "no draft any more" in said(wall.send(409, a_file("PNG", (9, 9))), "main")
    assert wall.client.post(f"{wall.address}/removal", data={"form_token": wall.token}).status_code == 409
    assert wall.src() == where
