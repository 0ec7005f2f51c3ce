"""Easy data augmentation (Wei and Zou, arXiv:1901.11196): four operations on the words of a text.

As published but for the lexicon, which is a short list and not WordNet, and for words with a digit, an @ or a slash,
which are neither replaced nor left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunesmith.config.augment import Eda
from tunesmith.errors import ConfigError

OWN = Path(__file__).with_name("lexicon.txt")
_WORD = re.compile(r"\A(\W*)(.*?)(\W*)\Z", re.DOTALL)
_CODE = re.compile(r"[\d@/]")
Lexicon = Mapping[str, Sequence[str]]
"""Word in lower case -> the others of its groups."""


def lexicon_of(path: str | None) -> Lexicon:
    """Raises ConfigError for a file that is not there, or a line that is no group."""
    file = OWN if path is None else Path(path)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: {error}", "a file of words (eda.lexicon)", "correct the name") from None
    found: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        group = [word.strip() for word in line.split(",") if word.strip()]
        if line.strip() and len(group) < 2:
            raise ConfigError(f"{file}:{number}: '{line.strip()}'", "two words or more, with commas between")
        for word in group:
            held = found.setdefault(word.casefold(), [])
            held += [other for other in group if other != word and other not in held]
    if not found:
        raise ConfigError(f"{file}: no words in it", "a group of words on each line")
    return found


def is_code(word: str) -> bool:
    """A number, an address, a path: every character of it counts."""
    return _CODE.search(word) is not None


def varied(text: str, spec: Eda, lexicon: Lexicon, draws: random.Random) -> str:
    """The text with its words changed; the blanks between them become one."""
    words = text.split()
    count = len(words)
    words = _replaced(words, _number(spec.synonyms, count), lexicon, draws)
    words = _inserted(words, _number(spec.insertions, count), lexicon, draws)
    for _ in range(_number(spec.swaps, count) if len(words) > 1 else 0):
        a, b = draws.sample(range(len(words)), 2)
        words[a], words[b] = words[b], words[a]
    return " ".join(_without(words, spec.deletions, draws))


def _number(share: float, count: int) -> int:
    return max(1, round(share * count)) if share > 0 else 0


def _others(word: str, lexicon: Lexicon) -> tuple[str, Sequence[str], str]:
    """(marks before, words that may stand for it, marks after)."""
    found = _WORD.match(word)
    assert found is not None
    return found[1], () if is_code(word) else lexicon.get(found[2].casefold(), ()), found[3]


def _replaced(words: list[str], number: int, lexicon: Lexicon, draws: random.Random) -> list[str]:
    places = [at for at, word in enumerate(words) if _others(word, lexicon)[1]]
    out = list(words)
    for at in draws.sample(places, min(number, len(places))):
        before, others, after = _others(words[at], lexicon)
        out[at] = before + _cased(draws.choice(others), words[at]) + after
    return out


def _cased(word: str, like: str) -> str:
    letters = [c for c in like if c.isalpha()]
    if len(letters) > 1 and all(c.isupper() for c in letters):
        return word.upper()
    return word[:1].upper() + word[1:] if letters and letters[0].isupper() else word


def _inserted(words: list[str], number: int, lexicon: Lexicon, draws: random.Random) -> list[str]:
    pools = [others for word in words if (others := _others(word, lexicon)[1])]
    out = list(words)
    for _ in range(number if pools else 0):
        out.insert(draws.randint(0, len(out)), draws.choice(draws.choice(pools)))
    return out


def _without(words: list[str], share: float, draws: random.Random) -> list[str]:
    """One word is always left."""
    free = [at for at, word in enumerate(words) if not is_code(word)]
    number = min(_number(share, len(words)), len(free), len(words) - 1)
    gone = set(draws.sample(free, max(number, 0)))
    return [word for at, word in enumerate(words) if at not in gone]
