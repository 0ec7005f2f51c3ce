"""In which regions a text may hold a telephone number that is written without a country's code.

A number is looked for region by region, and a region is asked of each group of digits whether it is a number there:
that takes a millisecond for a date. Its numbering plan says much sooner that none of them can be one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from typing import Any

import phonenumbers
from phonenumbers.phonemetadata import PhoneMetadata

STRICT = phonenumbers.Leniency.STRICT_GROUPING
_PLAIN = re.compile(r"[0-9 ()\[\]./-]+")
"""With other characters there may be an extension, or digits of another script."""
_KINDS = (
    "premium_rate toll_free shared_cost voip personal_number pager uan voicemail fixed_line mobile"
).split()
"""A valid number is one of these in its country."""
_NO_DIGIT = re.compile("[^0-9]")
_GROUP = re.compile(r"\d{1,20}")
"""As a matcher cuts digits that stand together."""
MOST_DIGITS = 25
"""Of a number with what is dialled before it: a national number has 17 at most."""


class Matcher(phonenumbers.PhoneNumberMatcher):
    """A strict matcher that remembers what it said of a candidate: dates and numbers come again from row to row."""

    def __init__(self, text: str, region: str | None) -> None:
        super().__init__(text, region, leniency=STRICT)

    def _parse_and_verify(self, candidate: str, offset: int) -> phonenumbers.PhoneNumberMatch | None:
        number = _verified(*self._with_neighbours(candidate, offset), self.preferred_region)
        return None if number is None else phonenumbers.PhoneNumberMatch(offset, candidate, number)

    def _with_neighbours(self, candidate: str, offset: int) -> tuple[str, str, str]:
        end = offset + len(candidate)
        return candidate, self.text[max(0, offset - 1) : offset], self.text[end : end + 1]


@lru_cache(50_000)
def _verified(candidate: str, before: str, after: str, region: str) -> phonenumbers.PhoneNumber | None:
    """The number that a candidate is, which rests on the characters next to it and on no others."""
    if _PLAIN.fullmatch(candidate) and not _plan(region).fullmatch(_NO_DIGIT.sub("", candidate)):
        return None
    alone = phonenumbers.PhoneNumberMatcher(before + candidate + after, region, leniency=STRICT)
    found = alone._parse_and_verify(candidate, len(before))
    return None if found is None else found.number


class _Candidates(Matcher):
    """Takes what may be a number for none, so that it goes on to whatever else may be one."""

    def __init__(self, text: str) -> None:
        super().__init__(text, None)
        self.seen: dict[tuple[str, str, str], None] = {}

    def _parse_and_verify(self, candidate: str, offset: int) -> None:
        self.seen[self._with_neighbours(candidate, offset)] = None


def regions_possible(text: str, regions: Iterable[str], least: int) -> list[str]:
    """Those of `regions` in which a strict matcher finds a number of `least` digits in `text`. One that believes no
    candidate meets all that any other meets; and no rule of these regions adds digits to what is written."""
    regions = tuple(regions)
    if not any(_is_dialled(digits, regions) for digits in _sequences(text, least)):
        return []
    candidates = _Candidates(text)
    candidates.has_next()
    enough = [one for one in candidates.seen if sum(map(str.isdigit, one[0])) >= least]
    return [region for region in regions if any(_verified(*one, region) for one in enough)]


def _sequences(text: str, least: int) -> Iterator[str]:
    """Digits of groups that follow each other, of which every candidate is one; groups that are long are no number."""
    groups = [str(int("1" + digits))[1:] for digits in _GROUP.findall(text)]  # digits of any script
    for first in range(len(groups)):
        digits = ""
        for group in groups[first:]:
            digits += group
            if len(digits) > MOST_DIGITS:
                break
            if len(digits) >= least:
                yield digits


@lru_cache(50_000)
def _is_dialled(digits: str, regions: tuple[str, ...]) -> bool:
    return any(_plan(region).fullmatch(digits) for region in regions)


@cache
def _plan(region: str) -> re.Pattern[str]:
    """Digits that may be dialled there: a number of one of the countries with its code, after what may stand before it;
    or anything after the prefix of calls to other countries."""
    here = _metadata(region)
    countries = map(_metadata, phonenumbers.COUNTRY_CODE_TO_REGION_CODE[here.country_code])
    kinds = [getattr(country, kind) for country in countries for kind in _KINDS]
    plans = dict.fromkeys(kind.national_number_pattern for kind in kinds if kind is not None)
    prefix = f"(?:{here.national_prefix_for_parsing or ''})?"
    # A rule by which the prefix is rewritten leaves an end of the digits.
    before = r"\d*?" if here.national_prefix_transform_rule else f"(?:{here.country_code}{prefix})?{prefix}"
    return re.compile(rf"(?:{here.international_prefix})\d*|{before}(?:{'|'.join(filter(None, plans))})")


def _metadata(region: str) -> Any:
    return PhoneMetadata.metadata_for_region(region)
