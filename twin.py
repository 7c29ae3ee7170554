"""The twin of a letter: the same words once more, for mail programs that show HTML.

A letter is written as plain text (letters.py), and its twin is made of that text alone, so that the two can't come to
say different things. What stands in a letter is often what somebody typed; nothing of it becomes markup here, and only
addresses of this site can be followed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

# So far our templates set in what is quoted: the title of a case, a reason.
INDENT = "    "
ITEM = "- "


@dataclass
class Line:
    """Some words, and where they lead if they are a link."""

    words: str
    link: str = ""


@dataclass
class Block:
    """A paragraph ("text"), something quoted ("quote") or a list ("list") of lines."""

    kind: str
    lines: list[Line] = field(default_factory=list)


def blocks(text: str, site_url: str) -> list[Block]:
    """The blocks of a letter's text, in its order."""
    paragraphs = (paragraph.splitlines() for paragraph in text.strip("\n").split("\n\n"))
    return [block for lines in paragraphs for block in _blocks_of([one for one in lines if one.strip()], site_url)]


def _blocks_of(lines: list[str], site_url: str) -> Iterator[Block]:
    """Neighbouring lines of one kind make a block; an address takes the words of the line before for its own."""
    block: Block | None = None
    for line in lines:
        # What belongs to an item stands below it, set in by two.
        goes_on = block is not None and block.kind == "list" and line.startswith("  ")
        kind = "list" if goes_on or line.startswith(ITEM) else "quote" if line.startswith(INDENT) else "text"
        if block is None or block.kind != kind:
            if block is not None:
                yield block
            block = Block(kind)
        words = line.strip().removeprefix(ITEM if kind == "list" else "")
        before = block.lines[-1] if block.lines else None
        if not _is_ours(words, site_url):
            block.lines.append(Line(words))
        elif before and not before.link and (goes_on or before.words.endswith(":")):
            before.words, before.link = before.words.removesuffix(":").rstrip(), words
        else:
            block.lines.append(Line(words, words))
    if block is not None:
        yield block


def _is_ours(words: str, site_url: str) -> bool:
    """Whether a line is nothing but an address of this site."""
    return words.startswith(f"{site_url}/") and not any(letter.isspace() for letter in words)
