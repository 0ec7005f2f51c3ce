"""Presidio's recognisers as scrubbing uses them: which ones, what is different, and the engine that runs them.

Nothing is downloaded, and no language model is loaded: the engine's own context words work on lemmas, ours (`Nearby`)
on the text itself. What differs from Presidio's own:

- e-mail domains are looked up in the suffix list that tldextract brings, not in one from the network;
- cards are of the issuers' ranges (with Mastercard's from 2221 on); IBANs may be in lower case, and end where their
  country's do; identity numbers stand by themselves, not within longer ones; Singapore's letter is checked;
- findings of kinds that are nearly always something else count only with a word nearby (`kinds.Kind.needs`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, ClassVar

import phonenumbers
import regex
import tldextract
from presidio_analyzer import (
    AnalyzerEngine,
    EntityRecognizer,
    Pattern,
    PatternRecognizer,
    RecognizerRegistry,
    RecognizerResult,
)
from presidio_analyzer import predefined_recognizers as presidio
from presidio_analyzer.context_aware_enhancers import ContextAwareEnhancer
from presidio_analyzer.nlp_engine import NoOpNlpEngine

from tunesmith.desk import addresses, phones
from tunesmith.desk.kinds import KINDS
from tunesmith.desk.matching import recognised, result_of
from tunesmith.desk.prefilter import PHONE_RUN
from tunesmith.desk.secrets import spans_of

LANGUAGE = "en"
BEFORE, AFTER = 60, 30
"""Characters before and after a finding in which a word counts as nearby."""
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "CH", "AU", "IN", "BR")
"""Of phone numbers that are written without a country's code."""
LEAST_DIGITS = 7
IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}

logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)  # it would print what it found


@cache
def engine() -> AnalyzerEngine:
    recognisers = [_made(name) for name in KINDS if name in _OWN or name in _PRESIDIO]
    return AnalyzerEngine(
        registry=RecognizerRegistry(recognizers=recognisers, supported_languages=[LANGUAGE]),
        nlp_engine=NoOpNlpEngine([{"lang_code": LANGUAGE, "model_name": "none"}]),
        supported_languages=[LANGUAGE],
        context_aware_enhancer=_nearby(),
    )


@cache
def _by_kind() -> dict[str, EntityRecognizer]:
    return {one.supported_entities[0]: one for one in engine().registry.recognizers}


def findings(text: str, kinds: Sequence[str], min_score: float) -> list[RecognizerResult]:
    """What `engine().analyze` finds, without what it does for each call beside its recognisers' work."""
    found = [one for kind in kinds for one in recognised(_by_kind()[kind], text)]
    found = _nearby().enhance_using_context(text, found, None, [])
    apart: list[RecognizerResult] = EntityRecognizer.remove_duplicates(
        [one for one in found if one.score >= min_score]
    )
    return apart


@cache
def _nearby() -> Nearby:
    return Nearby()


class Nearby(ContextAwareEnhancer):
    """Raises the score of findings that a word nearby names, and lowers that of findings that would need one."""

    def __init__(self) -> None:
        super().__init__(0.35, 0.4, context_prefix_count=0, context_suffix_count=0)

    def enhance_using_context(
        self,
        text: str,
        raw_results: list[RecognizerResult],
        nlp_artifacts: Any,
        recognizers: list[EntityRecognizer],
        context: list[str] | None = None,
    ) -> list[RecognizerResult]:
        for result in raw_results:
            kind = KINDS[result.entity_type]
            before = text[max(0, result.start - BEFORE) : result.start]
            if kind.other is not None and kind.other.search(before):
                result.score = 0.0
            elif kind.named is not None:
                around = (before, text[result.end : result.end + AFTER])
                if any(kind.named.search(part) for part in around):
                    raised = result.score + self.context_similarity_factor
                    result.score = min(1.0, max(raised, self.min_score_with_context_similarity))
                elif kind.needs == "always" or (
                    kind.needs == "for digits" and text[result.start : result.end].isdigit()
                ):
                    result.score = 0.0
        return [result for result in raw_results if result.score > 0]


class Email(presidio.EmailRecognizer):
    _suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    def validate_result(self, pattern_text: str) -> bool:
        return bool(self._suffixes(pattern_text.rsplit("@", 1)[1]).fqdn)


class Phone(presidio.PhoneRecognizer):
    """Looks only where enough digits stand together. With a country's code a number must be possible (those kept for
    fiction are not valid), without one valid in a region and grouped as there; not grouped as US social security is."""

    _SOCIAL = regex.compile(r"\d{3}-\d{2}-\d{4}")

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        found: dict[tuple[int, int], float] = {}
        for run in PHONE_RUN.finditer(text):
            at = max(0, run.start() - 3)
            for one, score in self.within(text[at : run.end() + 12]):
                found.setdefault((at + one.start, at + one.end), score)
        return [result_of(self, *_unbracketed(text, *place), score) for place, score in found.items()]

    def within(self, text: str) -> Iterable[tuple[phonenumbers.PhoneNumberMatch, float]]:
        for one, score in self._matches(text):
            enough = len(str(one.number.national_number)) >= LEAST_DIGITS
            if enough and not self._SOCIAL.fullmatch(one.raw_string):
                yield one, score

    def _matches(self, text: str) -> Iterable[tuple[phonenumbers.PhoneNumberMatch, float]]:
        if "+" in text or "＋" in text:
            possible = phonenumbers.Leniency.POSSIBLE
            found = list(phonenumbers.PhoneNumberMatcher(text, None, leniency=possible))
            yield from ((one, 0.75) for one in found)
            rest = sum(c.isdigit() for c in text) - sum(c.isdigit() for one in found for c in one.raw_string)
            if rest < LEAST_DIGITS:
                return
        for region in phones.regions_possible(text, self.supported_regions, LEAST_DIGITS):
            yield from ((one, self.SCORE) for one in phones.Matcher(text, region))


def _unbracketed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without a bracket that opens before the number and closes behind it."""
    return start + (text[start] in "([" and not any(c in ")]" for c in text[start:end])), end


class Iban(presidio.IbanRecognizer):
    """Reads from the country's letters as many characters as its IBANs have, in either case, with blanks or hyphens
    between. By the registry's lengths: Presidio's forms are wrong for some countries (Portugal's is four too short)."""

    _START = regex.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}(?=\d\d)")
    _NEXT = regex.compile(r"[ -]?([A-Za-z0-9])")

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: Any = None, regex_flags: int | None = None
    ) -> list[RecognizerResult]:
        found = []
        for start in self._START.finditer(text):
            end = self._end(text, start.start(), IBAN_LENGTHS.get(start[0].upper(), 0))
            if end is not None:
                found.append(result_of(self, start.start(), end, 1.0))
        return found

    def _end(self, text: str, start: int, length: int) -> int | None:
        written, at = "", start
        while len(written) < length and (one := self._NEXT.match(text, at)):
            written, at = written + one[1].upper(), one.end()
        if not length or len(written) < length or text[at : at + 1].isalnum():
            return None
        return at if int("".join(str(int(c, 36)) for c in written[4:] + written[:4])) % 97 == 1 else None


class Ip(presidio.IpRecognizer):
    """Not two short numbers around a double colon, as slices of lists and scopes of names are written."""

    def invalidate_result(self, pattern_text: str) -> bool:
        short = sum(c.isalnum() for c in pattern_text) < 5 if "::" in pattern_text else False
        bare = not any(c.isdigit() for c in pattern_text)
        return short or bare or super().invalidate_result(pattern_text) is True


class Mac(presidio.MacAddressRecognizer):
    def invalidate_result(self, pattern_text: str) -> bool:
        bare = not any(c.isdigit() for c in pattern_text)
        return bare or bool(super().invalidate_result(pattern_text))


class Crypto(presidio.CryptoRecognizer):
    def validate_result(self, pattern_text: str) -> bool | None:
        if pattern_text[:2] in ("0x", "0X"):
            return None  # its checksum is in the case of its letters, and need not be there
        return bool(super().validate_result(pattern_text))


class FiscalCode(presidio.ItFiscalCodeRecognizer):
    def validate_result(self, pattern_text: str) -> bool:
        if not pattern_text.isascii() or not any(c.isdigit() for c in pattern_text):
            return False
        return bool(super().validate_result(pattern_text))


class Nric(presidio.SgFinRecognizer):
    """With the check letter: weights 2 7 6 5 4 3 2, 4 more for T and G, 3 for M, modulo 11."""

    _LETTERS: ClassVar = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "G": "XWUTRQPNMLK"}

    def validate_result(self, pattern_text: str) -> bool:
        first, digits, last = pattern_text[0].upper(), pattern_text[1:-1], pattern_text[-1].upper()
        more = {"T": 4, "G": 4, "M": 3}.get(first, 0)
        at = (more + sum(w * int(d) for w, d in zip((2, 7, 6, 5, 4, 3, 2), digits, strict=True))) % 11
        if first == "M":
            return "XWUTRQPNJLK"[10 - at] == last
        return first in self._LETTERS and self._LETTERS[first][at] == last


class Secrets(EntityRecognizer):
    def load(self) -> None:
        pass

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        return [result_of(self, start, end, 0.9) for start, end in spans_of(text)]


# What each kind is recognised by --------------------------------------------------------------------------

_ISSUERS = {
    "Visa": r"4(?:[- ]?\d){12}(?:(?:[- ]?\d){3}){0,2}",
    "Mastercard": r"(?:5[1-5]\d\d|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))(?:[- ]?\d){12}",
    "American Express": r"3[47](?:[- ]?\d){13}",
    "Diners Club": r"3(?:0[0-5]|[689]\d)(?:[- ]?\d){11}",
    "JCB": r"35(?:2[89]|[3-8]\d)(?:[- ]?\d){12,15}",
    "Discover, UnionPay": r"6(?:011|4[4-9]\d|5\d\d|2\d\d)(?:[- ]?\d){12,15}",
    "Maestro": r"(?:5018|5020|5038|5893|6304|6759|676[1-3])(?:[- ]?\d){8,15}",
}
_CARDS = [Pattern("issuers", rf"(?<![\d.,+])(?<!\d[- ])(?:{'|'.join(_ISSUERS.values())})(?![- ]?\d)", 0.3)]
_PRESIDIO: dict[str, tuple[Any, list[Pattern] | None]] = {
    "EMAIL": (Email, None),
    "CARD": (presidio.CreditCardRecognizer, _CARDS),
    "IBAN": (Iban, None),
    "IP": (Ip, None),
    "MAC": (Mac, None),
    "CRYPTO": (
        Crypto,
        [
            Pattern("Bitcoin", r"\b(?:bc1|[13])[a-zA-HJ-NP-Z0-9]{25,59}\b", 0.5),
            Pattern("Ethereum", r"\b0x[0-9a-f]{40}\b", 0.5),
        ],
    ),
    "SSN": (presidio.UsSsnRecognizer, None),
    "CA_SIN": (presidio.CaSinRecognizer, None),
    "UK_NHS": (presidio.NhsRecognizer, None),
    "UK_NINO": (presidio.UkNinoRecognizer, None),
    "ES_NIF": (presidio.EsNifRecognizer, None),
    "ES_NIE": (presidio.EsNieRecognizer, None),
    "IT_FISCAL_CODE": (
        FiscalCode,
        [Pattern("code", rf"\b(?:{presidio.ItFiscalCodeRecognizer.PATTERNS[0].regex[4:]})\b", 0.3)],
    ),
    "DE_TAX_ID": (presidio.DeTaxIdRecognizer, None),
    "PL_PESEL": (
        presidio.PlPeselRecognizer,
        [Pattern("PESEL", rf"\b{presidio.PlPeselRecognizer.PATTERNS[0].regex}\b", 0.4)],
    ),
    "FI_HETU": (
        presidio.FiPersonalIdentityCodeRecognizer,
        presidio.FiPersonalIdentityCodeRecognizer.PATTERNS[:1],
    ),
    "SE_PERSONNUMMER": (presidio.SePersonnummerRecognizer, presidio.SePersonnummerRecognizer.PATTERNS[:1]),
    "TR_ID": (presidio.TrNationalIdRecognizer, None),
    "IN_AADHAAR": (
        presidio.InAadhaarRecognizer,
        [Pattern("groups", r"(?<!\d)(?<!\d[- :])\d{4}([- :]?)\d{4}\1\d{4}(?![- :]?\d)", 0.3)],
    ),
    "IN_PAN": (presidio.InPanRecognizer, presidio.InPanRecognizer.PATTERNS[:1]),
    "AU_TFN": (presidio.AuTfnRecognizer, None),
    "AU_ABN": (presidio.AuAbnRecognizer, None),
    "SG_NRIC": (Nric, [Pattern("NRIC", r"\b[STFGM]\d{7}[A-Z]\b", 0.5)]),
    "PHONE": (Phone, None),
}
_LOGIN = r"(?<=[a-z][a-z0-9+.-]{1,10}://)[^\s:/?#@\"'<>]{1,64}:[^\s/?#@\"'<>]{1,128}@[\w.\[\]:-]*[\w\]]"
_OWN: dict[str, list[Pattern]] = {
    "URL_LOGIN": [Pattern("credentials", _LOGIN, 0.9)],
    "ADDRESS": [Pattern(name, pattern, 0.6) for name, pattern in addresses.PATTERNS.items()],
    "SECRET": [],
}


def _made(name: str) -> EntityRecognizer:
    if name == "SECRET":
        return Secrets([name], name="Secrets", supported_language=LANGUAGE)
    if name in _OWN:
        flags = regex.MULTILINE  # names of streets are told from words by their capitals
        return PatternRecognizer(
            name,
            name=name,
            patterns=_fresh(_OWN[name]),
            supported_language=LANGUAGE,
            global_regex_flags=flags,
        )
    made, patterns = _PRESIDIO[name]
    said: dict[str, Any] = {"supported_entity": name, "supported_language": LANGUAGE}
    if made is Phone:
        return Phone(**said, supported_regions=REGIONS)
    return made(**said, patterns=None if patterns is None else _fresh(patterns))


def _fresh(patterns: list[Pattern]) -> list[Pattern]:
    """Each recogniser compiles its own: Presidio keeps what it compiled, with its flags, in the pattern."""
    return [Pattern(one.name, one.regex, one.score) for one in patterns]
