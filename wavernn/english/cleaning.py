"""Text of any origin to plain letters, digits and marks: no tags, no controls, no emoji."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

# tags of HTML and SSML, comments and declarations; what breaks the flow there breaks it here
BREAKING_TAG = re.compile(
    r"</(?:p|s|div|h[1-6]|li|tr)\s*>|<(?:br|hr|p|div|li|break)\b[^<>]{0,500}>"
)
TAG = re.compile(
    r"<(script|style)\b[^<>]*>[^<]*</\1>|</?[A-Za-z][^<>]{0,500}>|<!--.{0,1000}?-->"
    r"|<[!?][^<>]{0,500}>",
    re.DOTALL,
)
FACE = re.compile(r"(?<!\S)(?:[:;=][-']?[)(\]\[DPp/\\|*]|<3|\^_\^)(?!\S)")
# [link](address) and ![picture](address)
LINK = re.compile(r"!?\[([^\[\]]{1,500})\]\([^()\s]{1,500}\)")
# groups of three digits, 1 000 000 or 1_000_000, as far as they're sure to be of one number
GROUPED = re.compile(r"(?<=\d)(?:[\u00a0\u202f\u2009_](?=\d{3}(?!\d))| (?=000(?!\d)))")
DECIMAL_COMMA = re.compile(r"(?<=\d),(\d\d)(?= ?€)|(?<=[$£€]\d),(\d\d)(?![\d,])")
# where the compatible form would say something else: 10² is not 102, and 3½ is not 31/2
KEPT = {"™": " ", "®": " ", "©": " ", "´": "'", "‥": "...", "⁄": "/", "№": "No. "}
KEPT |= {c: f"^{i}" for i, c in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")} | {"⁻": "^-"}
MARKS = {
    **dict.fromkeys("“”„‟«»″〝〞「」『』《》", '"'),
    **dict.fromkeys("‘’‚‛′`ʼʹ‹›", "'"),
    **dict.fromkeys("‐‑﹣", "-"),
    **dict.fromkeys("‒–", "–"),
    **dict.fromkeys("―⸺⸻", "—"),
    **dict.fromkeys("。।॥۔։", ". "),
    **dict.fromkeys("、،", ", "),
    **dict.fromkeys("•‣▪●·", ", "),
    "؟": "? ",
    "؛": "; ",
    "٫": ".",
    "٬": ",",
}
# symbols of the dropped categories that are spoken
SPOKEN = frozenset("°^'\"")
DROPPED = frozenset(("Cf", "Mn", "Me", "Mc", "Sk", "Lm"))
TO_SPACE = frozenset(("Cc", "Co", "Cs", "Cn", "So", "Zs", "Zl", "Zp"))


def clean(text: str) -> str:
    """Returns the text as NFKC with one kind of quotes and dashes, without tags and emoji.

    Spaces come singly; lines end in a newline, and paragraphs or items of a list in a full stop.
    """
    text = TAG.sub(" ", BREAKING_TAG.sub(", ", text)) if "<" in text else text
    text = html.unescape(text) if "&" in text else text
    text = LINK.sub(r"\1", FACE.sub(" ", text)).replace("(s)", "s")
    text = DECIMAL_COMMA.sub(r".\1\2", GROUPED.sub(",", text))
    text = "".join(map(_plain, unicodedata.normalize("NFC", text)))
    text = unicodedata.normalize("NFC", text)
    # an item of a list, a heading, a paragraph
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r"^ ?(?:#{1,6} |[-*+–—] |> )", "\n\n", text, flags=re.MULTILINE)
    text = re.sub(r"(?<=[^\s.?!;:,…—]) ?\n ?\n[\s]*", ".\n", text)
    return re.sub(r"\s+", " ", text).strip()


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    if character in KEPT:
        return KEPT[character]
    if character == "\n":
        return "\n"
    name = unicodedata.name(character, "")
    if name.startswith("VULGAR FRACTION"):
        return " " + unicodedata.normalize("NFKC", character).replace("⁄", "/") + " "
    return "".join(map(_kept, unicodedata.normalize("NFKC", character)))


def _kept(character: str) -> str:
    if character in MARKS:
        return MARKS[character]
    if character in SPOKEN:
        return character
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category in DROPPED:
        return ""
    return " " if category in TO_SPACE else character
