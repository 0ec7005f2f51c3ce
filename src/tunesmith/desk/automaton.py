"""The pre-filter's tests on a text in ASCII, all made in one walk over it: RE2 joins them to one automaton.

What it says is what the tests one by one would say, in a tenth of their time. For all of Unicode it would be large, so
other texts go through the tests.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

from tunesmith.desk import addresses, prefilter

if TYPE_CHECKING:
    import re2

_BLANK = r"[\t-\r\x1c-\x20]"
"""What is white space among ASCII, of which RE2's own class leaves some out."""


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
    "stem": f"(?i:{_any_of(addresses.STEMS_BEFORE)})",
    "house": addresses.HOUSE_FIRST.pattern,
    "kind": addresses.KIND_AFTER.pattern,
    "street": addresses.PLAIN.pattern,
}
_NAMES = tuple(TESTS)
MEMORY = 32 * 2**20
"""Bytes for states of the automaton, which are made as texts ask for them; when it is full they are made anew."""


@cache
def _automaton() -> re2.Set:
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = MEMORY
    tests = re2.Set.SearchSet(options)
    for pattern in TESTS.values():
        pattern = re.sub(r"[^\x00-\x7f]", r"\\xff", pattern)  # which no text in ASCII holds
        tests.Add(pattern.replace(r"[\s", "[" + _BLANK[1:-1]).replace(r"\s", _BLANK))
    tests.Compile()
    return tests


def passed(text: str) -> Collection[str]:
    """Names of the tests that a text in ASCII passes."""
    found = _automaton().Match(text.encode("ascii"))
    return {_NAMES[place] for place in found} if found else ()


def kinds_possible(text: str) -> list[str]:
    """Names of the kinds that `text` may hold; most texts: none."""
    if not text.isascii():
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
    if "stem" in there or "street" in there or ("house" in there and "kind" in there):
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
