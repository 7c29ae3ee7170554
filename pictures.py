"""Pictures of cases, opened with suspicion and drawn anew: of the file nothing is kept but what can be seen."""

import functools
import hashlib
import io
import struct
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flask_babel import gettext

# Pillow is loaded with the first picture: most processes never open one.
if TYPE_CHECKING:
    from PIL import Image, ImageFont

FORMATS = ("JPEG", "PNG", "WEBP")
MOST_MEGAPIXELS = 25
# The longer side of each size that is kept, in pixels.
SIZES = {"large": 1_600, "small": 480}
# The picture that networks show beside a link, and the colours of the site.
SHARED = (1_200, 630)
PAPER, INK, SOFT, ACCENT, HAIRLINE = "#fbfaf6", "#1b1a17", "#57534a", "#0b4f5c", "#d9d4c7"
MARGIN = 72
# What Pillow raises for files that are not what they say.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
)
# Unpacked, a picture takes some hundred times the room of its file: one at a time in each process.
_one_at_a_time = threading.Lock()


class NotAPicture(Exception):
    """The file cannot be taken; says why, for the person who sent it."""


@dataclass(frozen=True)
class Drawing:
    """One size of a picture, ready to be kept."""

    size: str
    media_type: str
    width: int
    height: int
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def draw_anew(file: bytes) -> list[Drawing]:
    """The picture of a file in each size, upright, without whatever else the file held. Raises NotAPicture."""
    from PIL import Image

    # Ours is the limit, and it is looked at before any pixel is unpacked; Pillow's own only warns.
    Image.MAX_IMAGE_PIXELS = None
    with _one_at_a_time:
        try:
            with Image.open(io.BytesIO(file), formats=FORMATS) as opened:
                if opened.width * opened.height > MOST_MEGAPIXELS * 1_000_000:
                    raise NotAPicture(
                        gettext(
                            "This picture has more than %(most)s megapixels. Make it smaller first.",
                            most=MOST_MEGAPIXELS,
                        )
                    )
                whole = _unpacked(opened)
            return [_drawing(whole, size, side) for size, side in SIZES.items()]
        except _BROKEN as broken:
            raise NotAPicture(
                gettext("This file is not a whole JPEG, PNG or WebP picture. Choose another one.")
            ) from broken


def _unpacked(opened: "Image.Image") -> "Image.Image":
    """Its first frame, as the camera was held, with transparency only if it has any."""
    from PIL import ImageOps

    # A large JPEG is unpacked at once in a smaller size.
    opened.draft("RGB", (SIZES["large"], SIZES["large"]))
    opened.load()
    upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I"):
        # Sixteen bits of grey: the lower eight are for instruments.
        upright = upright.point(lambda grey: grey * (1 / 256)).convert("L")
    return upright.convert("RGBA" if upright.has_transparency_data else "RGB")


def _drawing(whole: "Image.Image", size: str, side: int) -> Drawing:
    from PIL import Image

    smaller = whole.copy()
    smaller.thumbnail((side, side))
    # Pillow would write comments and the like of the old file into the new one; an empty sheet has none.
    sheet = Image.new(smaller.mode, smaller.size)
    sheet.paste(smaller)
    kept = io.BytesIO()
    if sheet.mode == "RGBA":
        sheet.save(kept, "WEBP", quality=80)
    else:
        sheet.save(kept, "JPEG", quality=82, optimize=True, progressive=True)
    media_type = "image/webp" if sheet.mode == "RGBA" else "image/jpeg"
    return Drawing(size, media_type, sheet.width, sheet.height, kept.getvalue())


# --- Pictures of our own -----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def share_picture(title: str, by: str, total: str, of_target: str, percent: int, site: str) -> bytes:
    """The card of a case as PNG: its title, its owner, what is pledged, and a bar that is so full (0 to 100, or more).

    The same words are drawn once, and the newest 64 pictures are kept.
    """
    from PIL import Image, ImageDraw

    sheet = Image.new("RGB", SHARED, PAPER)
    pen = ImageDraw.Draw(sheet)
    whole = SHARED[0] - 2 * MARGIN
    pen.text((MARGIN, 60), site, fill=ACCENT, font=_letters(34, "Semibold"))
    lines, size = _fitted(title, whole)
    for number, line in enumerate(lines):
        pen.text((MARGIN, 128 + number * size * 1.2), line, fill=INK, font=_letters(size, "Semibold"))
    pen.text((MARGIN, 368), _cut(by, _letters(34, "Regular"), whole), fill=SOFT, font=_letters(34, "Regular"))
    pen.text((MARGIN, 430), total, fill=INK, font=_letters(64, "Semibold"))
    beside = MARGIN + pen.textlength(total, font=_letters(64, "Semibold")) + 20
    words = _cut(of_target, _letters(32, "Regular"), SHARED[0] - MARGIN - beside)
    pen.text((beside, 459), words, fill=SOFT, font=_letters(32, "Regular"))
    pen.rectangle((MARGIN, 534, MARGIN + whole, 558), fill=HAIRLINE)
    if percent > 0:
        pen.rectangle((MARGIN, 534, MARGIN + max(4, whole * min(100, percent) / 100), 558), fill=ACCENT)
    kept = io.BytesIO()
    sheet.quantize(64).save(kept, "PNG", optimize=True)
    return kept.getvalue()


@functools.lru_cache(maxsize=16)
def _letters(size: int, weight: str) -> "ImageFont.FreeTypeFont":
    import font_source_serif_pro as letters  # type: ignore[import-untyped]
    from PIL import ImageFont

    folder = Path(letters.__file__).parent / "files"
    return ImageFont.truetype(str(folder / f"SourceSerifPro-{weight}.ttf"), size)


def _fitted(title: str, width: float) -> tuple[list[str], int]:
    """A title in at most three lines, in the largest letters in which it fits; the rest of a longer one is cut."""
    lines, size = [title], 0
    for size in (72, 62, 54):
        lines = _lines(title, _letters(size, "Semibold"), width)
        if len(lines) * size * 1.2 <= 230:
            return lines, size
    return [*lines[:2], _cut(" ".join(lines[2:]), _letters(size, "Semibold"), width)], size


def _lines(words: str, font: "ImageFont.FreeTypeFont", width: float) -> list[str]:
    """Broken between words; a word that is wider than a line is cut there."""
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines += [_cut(word, font, width)]
    return [line for line in lines if line]


def _cut(words: str, font: "ImageFont.FreeTypeFont", width: float) -> str:
    if font.getlength(words) <= width:
        return words
    fitting = next(n for n in range(len(words), -1, -1) if font.getlength(words[:n].rstrip() + "…") <= width)
    return words[:fitting].rstrip() + "…"
