"""Which groups of people a row speaks of, by lists of words or by a column; and a text changed to another group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import regex
import yaml

from tunesmith.desk.dedup import said
from tunesmith.desk.rows import Row, Values
from tunesmith.desk.spans import replaced
from tunesmith.errors import ConfigError

OWN = Path(__file__).with_name("terms.yaml")
NONE, SEVERAL = "(none)", "(several)"
"""Groups of rows with no word of a dimension, and with words of several of its groups."""


@dataclass(frozen=True)
class Dimension:
    """groups: group -> words, in the order in which they stand for one another."""

    name: str
    groups: Mapping[str, Sequence[str]]
    _found: Any = field(init=False, repr=False, compare=False)
    _of: dict[str, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        of: dict[str, frozenset[str]] = {}
        for group, words in self.groups.items():
            for word in words:
                of[word.casefold()] = of.get(word.casefold(), frozenset()) | {group}
        longest = sorted(of, key=len, reverse=True)
        pattern = rf"(?<!\w)(?:{'|'.join(map(regex.escape, longest))})(?!\w)"
        object.__setattr__(self, "_of", of)
        object.__setattr__(self, "_found", regex.compile(pattern, regex.IGNORECASE))

    def group_of(self, texts: Iterable[str]) -> str:
        """The one group that all words of the texts belong to."""
        words = [match.group().casefold() for text in texts for match in self._found.finditer(text)]
        if not words:
            return NONE
        common = frozenset.intersection(*(self._of[word] for word in words))
        return min(common) if common else SEVERAL

    def swapped(self, text: str, source: str, target: str) -> str:
        """The text with each word of the one group in the place of which the other has one."""
        places: dict[str, int] = {}
        for at, word in enumerate(self.groups[source]):
            places.setdefault(word.casefold(), at)
        others = self.groups[target]

        def other(match: Any) -> str:
            found: str = match.group()
            at = places.get(found.casefold())
            return found if at is None else _cased(others[at % len(others)], found)

        return str(self._found.sub(other, text))


def _cased(word: str, like: str) -> str:
    if like.isupper() and len(like) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


@dataclass(frozen=True)
class Column:
    """Groups as a column of the rows names them."""

    name: str


Grouping = Dimension | Column


def group_of(row: Row, grouping: Grouping) -> str:
    """Of a row its group: a column's value, or what the words of its prompt say."""
    if isinstance(grouping, Column):
        value = row.values.get(grouping.name)
        return NONE if value in (None, "") else str(value)
    return grouping.group_of(said(row, "prompt"))


def counterfactual(row: Row, dimension: Dimension, source: str, target: str) -> Values:
    """The row with its prompt about another group; answers and labels stay. Raises SpanLost where half of a word is in
    a span."""
    texts = [text for text in row.texts if text.part == "prompt"]

    def swap(text: str) -> str:
        return dimension.swapped(text, source, target)

    return replaced(row, {text.path: swap(text.text) for text in texts}, lambda path: [swap])


def dimensions(lists: str | None) -> dict[str, Dimension]:
    """Those that come with the package, and those of a file in their place or beside them."""
    found = _read(OWN)
    return {**found, **_read(Path(lists))} if lists is not None else found


def grouping_of(name: str, lists: str | None) -> Grouping:
    """A dimension of this name, else a column."""
    return dimensions(lists).get(name) or Column(name)


def _read(path: Path) -> dict[str, Dimension]:
    expected = "dimension -> group -> list of words, at least two groups in each"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there", "a file of word lists", "correct the name") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", expected) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: no dimensions in it", expected)
    for name, groups in document.items():
        if not isinstance(groups, dict) or len(groups) < 2:
            raise ConfigError(f"{path}: '{name}' has no two groups", expected)
        for group, words in groups.items():
            if (
                not isinstance(words, list)
                or not words
                or not all(isinstance(word, str) and word for word in words)
            ):
                raise ConfigError(
                    f"{path}: '{name}.{group}' is no list of words", expected, "put each word in quotes"
                )
    return {
        str(name): Dimension(str(name), {str(g): w for g, w in groups.items()})
        for name, groups in document.items()
    }
