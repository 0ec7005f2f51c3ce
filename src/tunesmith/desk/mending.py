"""Texts mended: each function gives the text as it should be, the same object where nothing is wrong with it.

Every one is idempotent: what it gives, it leaves alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from html import unescape
from html.entities import html5
from html.parser import HTMLParser

import ftfy
import regex

from tunesmith.data.split import is_spaced

# What text decoded by the wrong table looks like: a lead byte of UTF-8 read as Latin-1 or Windows-1252, and another.
_MOJIBAKE = regex.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u0152-\u0178\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122]"
)


def is_plain(text: str) -> bool:
    """Whether no rule can act on it, told at a tenth of what it costs to ask each; False says nothing."""
    return not ("<" in text or "&" in text or "[" in text) and is_spaced(text)


def encoding(text: str) -> str:
    """Mojibake undone, where ftfy finds it."""
    if text.isascii() or not _MOJIBAKE.search(text):
        return text
    fixed = ftfy.fix_encoding(text)
    return text if fixed == text else encoding(fixed)


# Controls but tab and line feed; marks of direction and byte order, blanks of no width, what is no character.
# Not among them: U+200C and U+200D, by which Persian, Indian scripts and emoji are joined.
_UNSEEN = regex.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffc\U000e0000-\U000e007f]"
)
_LINES = regex.compile("\r\n?|\u2028|\u2029|\x85")


def unicode(text: str) -> str:
    """NFC, one kind of line end, nothing unseen."""
    # Of what is taken out only U+FFFC counts as printable.
    if not text.replace("\n", " ").isprintable() or "\ufffc" in text:
        text = _UNSEEN.sub("", _LINES.sub("\n", text))
    return text if text.isascii() else _nfc(text)


def _nfc(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


_TAGS = (
    "a abbr article aside b blockquote body br button center code dd del div dl dt em fieldset figcaption figure font "
    "footer form h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins label li link main meta nav noscript ol "
    "option p pre s script section select small span strike strong style sub sup table tbody td textarea tfoot th "
    "thead title tr u ul video"
).split()
"""Without those that prompts and masks are written with, such as <summary> and <ADDRESS>."""
_TAG = regex.compile(rf"</?(?:{'|'.join(_TAGS)})(?:\s[^<>]*)?/?>", regex.IGNORECASE)
_ENTITY = regex.compile(r"&([A-Za-z][A-Za-z0-9]{1,30};|#\d{2,7};|#[xX][0-9a-fA-F]{2,6};)")
_BLOCKS = frozenset(
    (
        "article aside blockquote br center dd div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 "
        "header hr li main nav ol p pre section table title tr ul"
    ).split()
)
_SILENT = frozenset(("script", "style", "head"))


def html(text: str) -> str:
    """What a browser shows of it, where it holds a known tag; code between ``` as it is. Entities alone are decoded,
    as often as they were written as entities, unless what they stand for would be a tag."""
    if "<" not in text and "&" not in text:
        return text
    return _outside_code(text, _shown)


def _shown(text: str) -> str:
    if _TAG.search(text):
        parser = _Shown()
        parser.feed(text.replace("&", "&amp;"))  # entities are decoded below: here R&D would become one
        parser.close()
        text = "".join(parser.parts).strip()
    decoded = text
    while (further := _ENTITY.sub(_entity, decoded)) != decoded:
        decoded = further
    return text if _TAG.search(decoded) else decoded


def _entity(match: regex.Match[str]) -> str:
    if match[1][0] != "#" and match[1] not in html5:
        return str(match[0])
    return unescape(match[0]).replace("\xa0", " ")


class _Shown(HTMLParser):
    """Collects text; known tags are gone, blocks end lines, anything else in angle brackets stays as it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag(tag, +1)

    def handle_endtag(self, tag: str) -> None:
        self._tag(tag, -1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag(tag, 0)

    def _tag(self, tag: str, opens: int) -> None:
        if tag in _SILENT:
            self._silent = max(0, self._silent + opens)
        elif tag not in _TAGS:
            text = (self.get_starttag_text() or "") if opens >= 0 else f"</{tag}>"
            self.handle_data(text.replace("&amp;", "&"))
        elif tag in _BLOCKS and self.parts and not self.parts[-1].endswith("\n"):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.parts.append(data)


_SPECIAL = regex.compile(
    r"\[(?:CLS|SEP|PAD|BOS|EOS)\]|<extra_id_\d{1,3}>|<end_of_utterance>"
    r"|<\|[a-zA-Z][\w ]{1,40}\|>|</?s>|</?(?:bos|eos|pad|unk|start_of_turn|end_of_turn)>|\[/?INST\]|<<?/?SYS>>?"
    r"|<(?:\uff5c)[^<>\uff5c]{2,40}(?:\uff5c)>"
)


def special_tokens(text: str) -> str:
    if "<" not in text and "[" not in text:
        return text
    while (out := _SPECIAL.sub("", text)) != text:
        text = out
    return text


_FOOTERS = (
    r"sent\s+from\s+my\s+\w[\w\s]{1,30}",
    r"(?:click\s+here\s+to\s+|to\s+)?unsubscribe(?:\s+from\s+(?:this|these|our)\s.{0,60}|,?\s+(?:click\s+)?here.{0,40})?",
    r"view\s+(?:this\s+(?:e-?mail|message)|it)\s+in\s+(?:your|a)\s+browser",
    r"(?:copyright\s+)?(?:©|\(c\))\s*(?:19|20)\d\d.{0,80}",
    r"(?:.{0,60}\s)?all\s+rights\s+reserved",
    r"this\s+(?:e-?mail|message)(?:\s+and\s+any\s+(?:files|attachments).{0,60})?\s+(?:is|are|may\s+be)\s+(?:strictly\s+)?"
    r"(?:confidential|privileged).*",
    r"(?:please\s+)?(?:consider|think\s+of)\s+the\s+environment\s+before\s+printing.*",
    r"(?:we\s+use|this\s+(?:site|website)\s+uses)\s+cookies.{0,160}",
    r"(?:terms\s+of\s+(?:use|service)|privacy\s+policy)"
    r"(?:\s*[|·•-]\s*(?:terms\s+of\s+(?:use|service)|privacy\s+policy|contact\s+us))*",
)
_BOILERPLATE = regex.compile(
    rf"^[\s>*_-]*(?:{'|'.join(_FOOTERS)})[\s.!*_]*$", regex.IGNORECASE | regex.MULTILINE
)


def boilerplate(text: str) -> str:
    """Without such lines, unless nothing else would be left."""
    if "\n" not in text:
        return text  # of one line nothing else would be left
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS):
        return text
    lines = text.split("\n")
    kept = [line for line in lines if not _BOILERPLATE.fullmatch(line)]
    return "\n".join(kept) if len(kept) < len(lines) and any(line.strip() for line in kept) else text


_HINTS = (
    "sent",
    "unsubscribe",
    "browser",
    "rights",
    "copyright",
    "©",
    "(c)",
    "confidential",
    "privileged",
    "the environment",
    "cookies",
    "terms of",
    "privacy policy",
)
"""Every such line has one of these in it."""

_BLANKS = regex.compile(r"(?<=\S)[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]{2,}(?=\S)")
_ODD_BLANK = regex.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")
_LINE_END = regex.compile(r"[ \t]+(?=\n)")
_EMPTY_LINES = regex.compile(r"\n{3,}")


def whitespace(text: str) -> str:
    return _outside_code(text, _tidy, whole=str.strip)


def blanks(text: str) -> str:
    """As `whitespace`, but what stands at the ends stays."""
    return _outside_code(text, _tidy)


def _tidy(text: str) -> str:
    if "  " in text or "\t" in text or (not text.isascii() and _ODD_BLANK.search(text)):
        text = _ODD_BLANK.sub(" ", _BLANKS.sub(" ", text))
        text = _BLANKS.sub(" ", text)
    if "\n" in text:
        text = _EMPTY_LINES.sub("\n\n", _LINE_END.sub("", text))
    return text


def _outside_code(
    text: str, mend: Callable[[str], str], whole: Callable[[str], str] = lambda text: text
) -> str:
    """`mend` of all but what stands between ```."""
    if "```" not in text:
        return whole(mend(text))
    parts = text.split("```")
    return whole("```".join(part if at % 2 else mend(part) for at, part in enumerate(parts)))
