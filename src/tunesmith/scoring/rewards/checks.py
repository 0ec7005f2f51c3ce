"""Is an answer right? One pure function of texts for each check; none of them raises, whatever a model wrote."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tunesmith.scoring.json_answers import parse_json, same_value

LONGEST = 60
"""Characters of a number. A longer one is a model that repeats digits: it is none."""
LARGEST_EXPONENT = 100

_MARK = re.compile(r"####|\\boxed\s*\{|\banswer\b[\s*_]*(?:is\b[\s*_]*:?|:)", re.IGNORECASE)
_WHOLE = r"(?:\d{1,3}(?:[,\u00a0\u2009\u202f]\d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_WHOLE}(?:\.\d+)?|(?<!\.)\.\d+)(?:[eE][+-]?\d+)?"
_NUMBER = re.compile(
    rf"""(?<![A-Za-z\d])(?<![A-Za-z\d]\.)      # not the end of a name (H2) or of another number (1.2.3)
    (?:(?P<whole>\d+)\ (?=\d+/\d))?            # 2 1/2
    (?P<above>{_DECIMAL})(?:/(?P<below>{_DECIMAL}))?
    (?P<percent>\s?\\?%|\sper\ ?cent\b)?""",
    re.VERBOSE,
)
_MINUS = re.compile(r"(?<![\w)\]}\u2212-])[$€£¥]?[-\u2212][$€£¥]?\Z")  # in 7-5 and 7--5 it is none
_SEPARATORS = str.maketrans("", "", ",\u00a0\u2009\u202f")
_FRAC = re.compile(r"(\d)?\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")

_LETTER = re.compile(r"(?:\W|_|\\text\b|\\mathrm\b|(?i:option|choice)\b)*([A-Ea-e])(?![\w'’])")
_HEDGE = re.compile(r"\W*(?:or|and|[/,&])\W*[A-Ea-e]\b")
_ENDS = re.compile(r"\s*(?:[^\w\s]|\Z)")
_OPENS = re.compile(r"[).:,}\]*_]|\s*(?:\n|\Z)")


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number; of 50 % the value is 50."""

    value: Fraction
    percent: bool = False

    def equals(self, other: Number, tolerance: float) -> bool:
        """50 % is both 50 and 0.5 to a number without the sign: rows write it either way."""
        allowed = Fraction(tolerance)
        near = abs(self.value - other.value) <= allowed
        if near or self.percent == other.percent:
            return near
        mine, theirs = (n.value / 100 if n.percent else n.value for n in (self, other))
        return abs(mine - theirs) <= allowed


def stated(text: str) -> str:
    """What the text states as its answer: the line after its last `####`, `answer:`, `answer is` or `\\boxed{`, of the
    last up to the brace. The whole text where there is no such mark."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return text
    rest = text[marks[-1].end() :]
    if marks[-1].group().endswith("{"):
        return rest.partition("}")[0]
    return next((line for line in rest.splitlines() if line.strip(" *_\t")), "")


def last_number(text: str) -> Number | None:
    """The last number of what the text states; None where there is none, or it is beyond all bounds.

    Commas and narrow spaces between groups of three are thousands separators, the point is the decimal one. Signs,
    exponents, fractions (3/4, 2 1/2, \\frac{3}{4}) and percent are read; a currency or a unit may stand beside."""
    text = _FRAC.sub(lambda f: f"{f[1] + ' ' if f[1] else ''}{f[2].strip()}/{f[3].strip()}", text)
    text = stated(text.replace("{,}", ","))
    last = None
    for last in _NUMBER.finditer(text):  # noqa: B007  the last one is wanted
        pass
    if last is None or len(last.group()) > LONGEST:
        return None
    above, below, whole = (_fraction(last[name] or default) for name, default in _PARTS)
    if above is None or not below or whole is None:
        return None
    sign = -1 if _MINUS.search(text[max(0, last.start() - 4) : last.start()]) else 1
    return Number(sign * (whole + above / below), last["percent"] is not None)


_PARTS = (("above", "0"), ("below", "1"), ("whole", "0"))


def _fraction(text: str) -> Fraction | None:
    exponent = text.lower().partition("e")[2]
    if exponent and abs(int(exponent)) > LARGEST_EXPONENT:
        return None  # 1e999999999 would fill the memory
    return Fraction(text.translate(_SEPARATORS))


def same_number(wanted: Number, answer: str, tolerance: float) -> bool:
    """Whether the last number of what the answer states is the wanted one."""
    found = last_number(answer)
    return found is not None and found.equals(wanted, tolerance)


def plain(text: str) -> str:
    """Unicode NFC, case folded, white space collapsed. Unlike `scoring.normalise` it keeps x² apart from x2, and every
    quote and full stop: a reward is to be met to the letter."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())


def exact(wanted: str, answer: str) -> bool:
    """Whether both are the same once they are `plain`."""
    return plain(wanted) == plain(answer)


def contains(wanted: str, answer: str) -> bool:
    """Whether the wanted text stands in the answer, both `plain`, and neither end cuts a word or a number: 12 is not
    in 112 or 12.5. Scripts without capital letters (Chinese, Thai, Arabic) join words, so there any place will do."""
    wanted, answer = plain(wanted), plain(answer)
    at = answer.find(wanted)
    while wanted and at >= 0:
        if not _cuts(answer, at) and not _cuts(answer, at + len(wanted)):
            return True
        at = answer.find(wanted, at + 1)
    return False


def _cuts(text: str, at: int) -> bool:
    """Whether a cut before text[at] goes through a word or a number."""
    before, after = text[max(0, at - 2) : at], text[at : at + 2]
    if not before or not after:
        return False
    if _in_word(before[-1]) and _in_word(after[0]):
        return True
    points = before[-1] in ".," and before[:-1].isdigit() and after[0].isdigit()
    return points or (before[-1].isdigit() and after[0] in ".," and after[1:].isdigit())


def _in_word(character: str) -> bool:
    return character.isdigit() or character.upper() != character.lower()


def is_json(answer: str, keys: Sequence[str] = ()) -> bool:
    """A JSON object or list (a code fence around it does not matter); with keys: an object that has them all."""
    found = parse_json(answer)
    if keys:
        return isinstance(found, dict) and set(keys) <= found.keys()
    return isinstance(found, (dict, list))


def same_json(wanted: object, answer: str) -> bool:
    """Whether the answer is the wanted JSON value, by `same_value`."""
    found = parse_json(answer)
    return found is not None and same_value(wanted, found)


def stated_choice(text: str) -> str | None:
    """The letter A to E that the text states as its answer, right after one of the marks of `stated`, or as the first
    thing of a text without marks (`C`, `(C)`, `C. Paris`, not `A cat`). None where there is none, or several."""
    said = stated(text)
    found = _LETTER.match(said)
    if found is None:
        return None
    letter, rest = found[1], said[found.end() :]
    article = letter == "A" and re.match(r"\s+[a-z]", rest)
    if article or _HEDGE.match(rest) or (letter.islower() and not _ENDS.match(rest)):
        return None
    if said == text and not _OPENS.match(rest):
        return None
    return letter.upper()
