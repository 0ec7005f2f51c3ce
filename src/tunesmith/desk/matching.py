"""Presidio's recognisers run on a text: what they find, without what they write down of every match to explain it, and
by those of their patterns that may find something there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

import regex
from presidio_analyzer import EntityRecognizer, PatternRecognizer, RecognizerResult
from presidio_analyzer.pattern_recognizer import REGEX_TIMEOUT_SECONDS

from tunesmith.desk import addresses
from tunesmith.desk.joined import Joined
from tunesmith.errors import DataError


def recognised(recogniser: EntityRecognizer, text: str) -> Sequence[RecognizerResult]:
    """What `recogniser.analyze` finds. Of one that has patterns and no `analyze` of its own it is found without what
    Presidio writes down of every match to explain it, and only by patterns that may be there."""
    kind = recogniser.supported_entities[0]
    if (
        not isinstance(recogniser, PatternRecognizer)
        or type(recogniser).analyze is not PatternRecognizer.analyze
    ):
        return recogniser.analyze(text, [kind], None) or ()
    found = []
    expressions = _expressions(recogniser)
    try:
        for at, part in _parts(kind, text):
            for place in _asked(kind, part, len(expressions)):
                expression, given = expressions[place]
                for match in expression.finditer(part, timeout=REGEX_TIMEOUT_SECONDS):
                    score = _checked(recogniser, match[0], given)
                    if score > 0:
                        found.append(result_of(recogniser, at + match.start(), at + match.end(), score))
    except TimeoutError:
        raise DataError(
            f"{kind} was looked for in a text of {len(text):,} characters for more than a minute",
            "texts that expressions read in milliseconds",
            f"shorten the longest texts, or leave {kind} out of scrub.kinds",
        ) from None
    return EntityRecognizer.remove_duplicates(found) if len(found) > 1 else found


@cache
def _expressions(recogniser: PatternRecognizer) -> list[tuple[regex.Pattern[str], float]]:
    """(expression, score) of each pattern of the kind's recogniser."""
    flags = recogniser.global_regex_flags
    return [(regex.compile(one.regex, flags), one.score) for one in recogniser.patterns]


def _parts(kind: str, text: str) -> Iterable[tuple[int, str]]:
    """What is to be looked at, and where it begins: no e-mail address goes over a blank."""
    if kind == "EMAIL":
        return [(word.start(), word[0]) for word in _WORD_WITH_AT.finditer(text)]
    return ((0, text),)


_WORD_WITH_AT = re.compile(r"(?<!\S)[^\s@]*+@\S*+")


def _asked(kind: str, text: str, count: int) -> Iterable[int]:
    """Places of the expressions that may find something in a text."""
    if kind != "ADDRESS":
        return range(count)
    if text.isascii():
        return _ADDRESSES.found_in(text)
    return [place for place, needed in enumerate(_ADDRESSES.patterns) if re.search(needed, text)]


_ADDRESSES = Joined([addresses.NEEDED[name] for name in addresses.PATTERNS])


def _checked(recogniser: PatternRecognizer, matched: str, score: float) -> float:
    """The score of what a pattern matched, by the recogniser's own checks: 0 of what is none."""
    if not matched or recogniser.invalidate_result(matched):
        return 0.0
    valid = recogniser.validate_result(matched)
    return score if valid is None else float(valid)


def result_of(recogniser: EntityRecognizer, start: int, end: int, score: float) -> RecognizerResult:
    of = {
        RecognizerResult.RECOGNIZER_NAME_KEY: recogniser.name,
        RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: recogniser.id,
    }
    kind = recogniser.supported_entities[0]
    return RecognizerResult(kind, start, end, score, recognition_metadata=of)
