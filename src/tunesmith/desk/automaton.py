"""The pre-filter's tests, all made in one walk over a text.

Of a text in ASCII it says what the tests one by one would say, in a tenth of their time. Another text is read as one in
ASCII that passes every test which it passes itself, and perhaps more.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

from tunesmith.desk import addresses, prefilter
from tunesmith.desk.joined import Joined


def _any_of(words: tuple[str, ...] | list[str]) -> str:
    return "|".join(re.escape(word) for word in words if word.isascii())


def _ahead(pattern: str) -> str:
    r"""A test that begins with a digit and looks back from it, `\d(?<=before\d)after`, as `before\dafter`."""
    return re.sub(r"^\\d\(\?<=(.*?)\)", r"\1", pattern)


TESTS: dict[str, str] = {
    "at": "@",
    "login": "://",
    "name": f"(?i:{_any_of(prefilter.NAMES)})",
    "assigned": f"(?i:{prefilter.ASSIGNED.pattern})",
    "quoted": _any_of(prefilter.QUOTED),
    "key": rf"PRIVATE KEY|PuTTY-|(?i:xox)|_authToken=|{prefilter.ARTIFACTORY.pattern}",
    "token": rf"{_any_of(prefilter.TOKENS)}|{prefilter.SHAPES.pattern}|(?i:pw|hooks\.)",
    "close": prefilter.CLOSE,
    **{name: _ahead(form) for name, form in prefilter.OF_SOME_DIGITS.items()},
    **{name: form.pattern for name, form in prefilter.OF_CLOSE_DIGITS.items()},
    "nine": prefilter.NINE.pattern,
    "SSN": prefilter.SSN.pattern,
    "CARD": prefilter.CARD.pattern,
    "named": rf"(?i:\b(?:{_any_of(prefilter.NAMES_OF_NUMBERS)})\b)",
    "IPv4": prefilter.IPV4.pattern,
    "IPv6": prefilter.IPV6.pattern,
    "MAC": f"{prefilter.MAC.pattern}|{prefilter.MAC_DOTS.pattern}",
    "digit": r"\d",
    "house": addresses.HOUSE_FIRST.pattern,
    "kind": addresses.KIND_AFTER.pattern,
    "other address": addresses.OTHER.pattern,
}
_NAMES = tuple(TESTS)
_JOINED = Joined(list(TESTS.values()))


class _InAscii(dict[int, str]):
    """Code of a character -> one in ASCII that is a digit, a letter, blank or none of these where it is."""

    def __missing__(self, code: int) -> str:
        self[code] = found = chr(code) if code < 128 else self._of(chr(code))
        return found

    def _of(self, character: str) -> str:
        if (digit := unicodedata.decimal(character, None)) is not None:
            return str(digit)
        if character.isalnum():
            letter = unicodedata.normalize("NFKD", character)[0]
            return letter if letter.isascii() and letter.isalpha() else "x"
        return " " if character.isspace() else "\x01"


_IN_ASCII = _InAscii()
_JOINED_IN_ASCII = Joined([pattern.translate(_IN_ASCII) for pattern in TESTS.values()])
_UNLIKE = re.compile("[\u0130\u0131\u017f\u212a\xd7]")
"""Characters that are letters of ASCII where case does not count; and one that is no letter, but stands among those
from À to Þ."""


def passed(text: str) -> Collection[str]:
    """Names of the tests that a text in ASCII passes; of another those that it may pass."""
    joined = _JOINED
    if not text.isascii():
        text, joined = text.translate(_IN_ASCII), _JOINED_IN_ASCII
    return {_NAMES[place] for place in joined.found_in(text)}


def kinds_possible(text: str) -> list[str]:
    """Names of the kinds that `text` may hold; most texts: none."""
    if not text.isascii() and _UNLIKE.search(text):
        return prefilter.kinds_possible(text)
    there = passed(text)
    if not there:
        return []
    found = []
    if "at" in there:
        found += ["EMAIL", "URL_LOGIN"] if "login" in there else ["EMAIL"]
    if _secret(text, there):
        found.append("SECRET")
    if "digit" not in there:
        return found
    found += [name for name in prefilter.OF_SOME_DIGITS if name in there]
    if "close" in there:
        found += _of_close_digits(text, there)
    if "IPv4" in there or "IPv6" in there:
        found.append("IP")
    if "MAC" in there:
        found.append("MAC")
    if "other address" in there or ("house" in there and "kind" in there):
        found.append("ADDRESS")
    return found


def _secret(text: str, there: Collection[str]) -> bool:
    if "key" in there or ("name" in there and ("assigned" in there or "quoted" in there)):
        return True
    return ("token" in there or "name" in there) and max(map(len, text.split())) >= prefilter.LONG


def _of_close_digits(text: str, there: Collection[str]) -> list[str]:
    found = [name for name in prefilter.OF_CLOSE_DIGITS if name in there]
    if "nine" in there:
        if "SSN" in there:
            found.append("SSN")
        if "named" in there:
            found += [name for name, named in prefilter.NUMBERS if named.search(text)]
        if "CARD" in there:
            found.append("CARD")
    return found
