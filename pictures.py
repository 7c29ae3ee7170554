"""Pictures of cases, opened with suspicion and drawn anew: of the file nothing is kept but what can be seen."""

import hashlib
import io
import struct
import threading
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

# Pillow is loaded with the first picture: most processes never open one.
if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP")
MOST_MEGAPIXELS = 25
# The longer side of each size that is kept, in pixels.
SIZES = {"large": 1_600, "small": 480}
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
                        f"This picture has more than {MOST_MEGAPIXELS} megapixels. Make it smaller first."
                    )
                whole = _unpacked(opened)
            return [_drawing(whole, size, side) for size, side in SIZES.items()]
        except _BROKEN as broken:
            raise NotAPicture("This file is not a whole JPEG, PNG or WebP picture. Choose another one.") from broken


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
