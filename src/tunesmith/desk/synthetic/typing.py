"""Noise as people type it: slips of fingers, no capitals, no marks, contractions."""

from __future__ import annotations

import random
import re

from tunesmith.config.augment import SLIPS, Noise
from tunesmith.desk.synthetic.words import is_code

ROWS = {
    "qwerty": ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    "qwertz": ("qwertzuiop", "asdfghjkl", "yxcvbnm"),
    "azerty": ("azertyuiop", "qsdfghjklm", "wxcvbn"),
}
OFFSETS = (0.0, 0.25, 0.75)
"""How far right each row of keys stands, in keys."""
CONTRACTIONS = {
    "do not": "don't",
    "does not": "doesn't",
    "did not": "didn't",
    "is not": "isn't",
    "are not": "aren't",
    "was not": "wasn't",
    "were not": "weren't",
    "has not": "hasn't",
    "have not": "haven't",
    "had not": "hadn't",
    "would not": "wouldn't",
    "could not": "couldn't",
    "should not": "shouldn't",
    "cannot": "can't",
    "can not": "can't",
    "will not": "won't",
    "i am": "i'm",
    "i have": "i've",
    "i will": "i'll",
    "i would": "i'd",
    "it is": "it's",
    "that is": "that's",
    "there is": "there's",
    "what is": "what's",
    "you are": "you're",
    "we are": "we're",
    "they are": "they're",
    "we have": "we've",
}
_LONG = re.compile(rf"\b(?:{'|'.join(CONTRACTIONS)})\b", re.IGNORECASE)
_SHORT = re.compile(r"(?<=[A-Za-z])['’](?=(?:t|s|m|d|re|ve|ll)\b)", re.IGNORECASE)
_MARKS = ".,;:!?"


def neighbours(layout: str) -> dict[str, str]:
    """Letter -> those whose keys touch its key."""
    places = {
        letter: (at + offset, number)
        for number, (row, offset) in enumerate(zip(ROWS[layout], OFFSETS, strict=True))
        for at, letter in enumerate(row)
    }
    return {
        letter: "".join(
            other
            for other, (a, b) in places.items()
            if other != letter and abs(a - x) <= 1 and abs(b - y) <= 1
        )
        for letter, (x, y) in places.items()
    }


def mistyped(text: str, spec: Noise, beside: dict[str, str], draws: random.Random) -> str:
    """beside: letter -> its neighbours."""
    contracted = _LONG.sub(lambda found: _shorter(found.group(), spec.contractions, draws), text)
    contracted = _SHORT.sub(
        lambda found: "" if draws.random() < spec.contractions else found.group(), contracted
    )
    lower = draws.random() < spec.case
    parts = re.split(r"(\s+)", contracted)
    return "".join(
        part if not part or part.isspace() or is_code(part) else _slipped(part, spec, beside, lower, draws)
        for part in parts
    )


def _shorter(found: str, share: float, draws: random.Random) -> str:
    if draws.random() >= share:
        return found
    short = CONTRACTIONS[found.casefold()]
    return found[0] + short[1:]


def _slipped(word: str, spec: Noise, beside: dict[str, str], lower: bool, draws: random.Random) -> str:
    """A word with its marks; of each letter at most one slip."""
    letters = list(word.lower() if lower else word)
    out: list[str] = []
    at = 0
    while at < len(letters):
        letter = letters[at]
        at += 1
        if not letter.isalpha():
            if letter not in _MARKS or draws.random() >= spec.punctuation:
                out.append(letter)
            continue
        slip = _slip(spec, draws.random())
        if slip == "neighbours":
            near = beside.get(letter.lower(), letter)
            other = draws.choice(near)
            out.append(other.upper() if letter.isupper() else other)
        elif slip == "doubled":
            out += [letter, letter]
        elif slip == "exchanged":
            following = letters[at] if at < len(letters) and letters[at].isalpha() else ""
            out.append(following + letter)
            at += bool(following)
        elif slip is None:
            out.append(letter)
    return "".join(out)


def _slip(spec: Noise, drawn: float) -> str | None:
    """drawn: in [0, 1), of which each kind of slip has its share."""
    for name in SLIPS:
        share: float = getattr(spec, name)
        if drawn < share:
            return name
        drawn -= share
    return None
