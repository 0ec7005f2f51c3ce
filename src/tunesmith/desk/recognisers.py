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
from collections.abc import Iterable
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
from presidio_analyzer.predefined_recognizers.generic.iban_patterns import regex_per_country

from tunesmith.desk import addresses
from tunesmith.desk.kinds import KINDS
from tunesmith.desk.prefilter import PHONE_RUN
from tunesmith.desk.secrets import spans_of

LANGUAGE = "en"
BEFORE, AFTER = 60, 30
"""Characters before and after a finding in which a word counts as nearby."""
REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "CH", "AU", "IN", "BR")
"""Of phone numbers that are written without a country's code."""
LEAST_DIGITS = 7

logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL)  # it would print what it found


@cache
def engine() -> AnalyzerEngine:
    recognisers = [_made(name) for name in KINDS if name in _OWN or name in _PRESIDIO]
    return AnalyzerEngine(
        registry=RecognizerRegistry(recognizers=recognisers, supported_languages=[LANGUAGE]),
        nlp_engine=NoOpNlpEngine([{"lang_code": LANGUAGE, "model_name": "none"}]),
        supported_languages=[LANGUAGE],
        context_aware_enhancer=Nearby(),
    )


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


def _result(recogniser: EntityRecognizer, start: int, end: int, score: float) -> RecognizerResult:
    of = {
        RecognizerResult.RECOGNIZER_NAME_KEY: recogniser.name,
        RecognizerResult.RECOGNIZER_IDENTIFIER_KEY: recogniser.id,
    }
    kind = recogniser.supported_entities[0]
    return RecognizerResult(kind, start, end, score, recognition_metadata=of)


class Email(presidio.EmailRecognizer):
    _suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)

    def validate_result(self, pattern_text: str) -> bool:
        return bool(self._suffixes(pattern_text.rsplit("@", 1)[1]).fqdn)


class Phone(presidio.PhoneRecognizer):
    """Looks only where enough digits stand together; numbers without a country's code must be grouped as in theirs."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[RecognizerResult]:
        found: dict[tuple[int, int], float] = {}
        for run in PHONE_RUN.finditer(text):
            start = max(0, run.start() - 3)
            for one, score in self._within(text[start : run.end() + 12]):
                place = start + one.start, start + one.end
                found[place] = max(score, found.get(place, 0.0))
        return [_result(self, *place, score) for place, score in found.items()]

    def _within(self, text: str) -> Iterable[tuple[phonenumbers.PhoneNumberMatch, float]]:
        strict = phonenumbers.Leniency.STRICT_GROUPING
        for region in self.supported_regions:
            for one in phonenumbers.PhoneNumberMatcher(text, region, leniency=strict):
                if len(str(one.number.national_number)) >= LEAST_DIGITS:
                    yield one, 0.75 if one.raw_string.lstrip("([").startswith(("+", "＋")) else self.SCORE


class Iban(presidio.IbanRecognizer):
    """Reads from the country's letters as many characters as its IBANs have, in either case."""

    _START = regex.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})\d\d")
    _REST = regex.compile(r"[ -]?([A-Za-z0-9])")

    def analyze(
        self, text: str, entities: list[str], nlp_artifacts: Any = None, regex_flags: int | None = None
    ) -> list[RecognizerResult]:
        found = []
        for start in self._START.finditer(text):
            form = regex_per_country.get(start[1].upper())
            end = self._end(text, start.start(), form) if form else None
            if end is not None:
                found.append(_result(self, start.start(), end, 1.0))
        return found

    def _end(self, text: str, start: int, form: str) -> int | None:
        written, ends, at = "", [], start
        while len(written) < 34 and (one := self._REST.match(text, at)):
            written, at = written + one[1].upper(), one.end()
            ends.append(at)
        whole = regex.match(form, written)
        if whole is None or not self.validate_result(written[: whole.end()]):
            return None
        end = ends[whole.end() - 1]
        return None if text[end : end + 1].isalnum() else end


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
        return [_result(self, start, end, 0.9) for start, end in spans_of(text)]


# What each kind is recognised by --------------------------------------------------------------------------

_ISSUERS = (
    r"4\d{3}|5[0-8]\d{2}|6\d{3}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)"
    r"|3(?:0[0-5]|095|[689]\d)\d?|3[47]\d{2}|35\d{2}"
)
_CARD = rf"(?<![\d.,+])(?<!\d[- ])(?:{_ISSUERS})(?:[- ]?\d){{8,15}}(?![- ]?\d)"
_PRESIDIO: dict[str, tuple[Any, list[Pattern] | None]] = {
    "EMAIL": (Email, None),
    "CARD": (presidio.CreditCardRecognizer, [Pattern("issuers", _CARD, 0.3)]),
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
