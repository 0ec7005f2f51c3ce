"""Which kinds of personal data a text may hold at all, told by a few tests that cost microseconds.

A recogniser runs only on texts that its test lets through, so the tests must let through every text in which the
recogniser would find something: their recall is 1.0, and tested to be. They are laxer than the recognisers, and begin
with what is rare in ordinary text: an at sign, digits close together, the name of a secret.
"""

from __future__ import annotations

import re

from tunesmith.desk.addresses import STEMS
from tunesmith.desk.kinds import KINDS

_DIGIT = re.compile(r"\d")
_CLOSE = re.compile(r"\d(?:[\W_xXー]{0,4}\d){5}")
"""Six digits with at most four other characters between: no number of a state, card or phone has fewer."""
PHONE_RUN = re.compile(r"\d(?:[\W_xXー]{0,4}\d){6,}")
_CARD = re.compile(r"\d(?:[- ]?\d){11}")
_NINE = re.compile(r"\d(?:[\s\-.:+]?\d){8}")
_LETTERED = {
    "UK_NINO": re.compile(r"\d\d ?\d\d ?\d\d ?[^\W_]"),
    "ES_NIF": re.compile(r"\d{7}-?[^\W_]"),
    "ES_NIE": re.compile(r"\d{7}-?[^\W_]"),
    "SG_NRIC": re.compile(r"\d{7}[^\W_]"),
    "FI_HETU": re.compile(r"\d{6}[-+A-Za-z]\d{3}[^\W_]"),
    "SE_PERSONNUMMER": re.compile(r"\d{6}[-+]?\d{4}"),
}
_BY_FORM = {
    "IBAN": re.compile(r"\d(?<=[A-Za-z]{2}\d)\d(?:[ -]?[A-Za-z0-9]){11}"),
    "IT_FISCAL_CODE": re.compile(r"\b[^\W_]{16}\b"),
    "IN_PAN": re.compile(r"\d{4}[^\W\d_]\b"),
    "IP": re.compile(r"\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:"),
    "MAC": re.compile(r"[:-][0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-]|\.[0-9A-Fa-f]{4}\."),
    "CRYPTO": re.compile(r"[013]\w{25}"),
}
_NUMBERS = [(name, kind.named) for name, kind in KINDS.items() if kind.needs == "always" and kind.named]

_LITERALS = (
    "AKC AKIA ASIA ABIA ACCA A3T AccountKey= ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ GR1348941 eyJ _authToken= pypi-A SG. "
    "sq0csp- _live_ _test_ hf_ AIza Bearer"
).split()
_SHAPES = re.compile(
    r"AP[\dA-F][a-zA-Z0-9]{8}|[AS][CK][a-z0-9]{32}|[MNO][\w-]{23,25}\.[\w-]{6}\.|\d{8,10}:[0-9A-Za-z_-]{35}|-us\d"
    r"|sk-[\w-]{24}|gl[a-z]{2,5}-[\w-]{20}"
)
_HOSTS = ("xox", "hooks.slack", "softlayer", "cloudant")
_NAMES = ("key", "pass", "pwd", "secret", "token", "contrase", "\u017f")
"""In lower case; the last is a letter that counts as s where case does not."""
_ASSIGNS = re.compile(r"[:=;]|\bis\b|\bwas\b", re.IGNORECASE)
_LONG = re.compile(r"[\w/+-]{24}")


def kinds_possible(text: str) -> list[str]:
    """Names of the kinds that `text` may hold; most texts: none."""
    found = []
    if "@" in text:
        found.append("EMAIL")
        if "://" in text:
            found.append("URL_LOGIN")
    if secrets_possible(text):
        found.append("SECRET")
    if not _DIGIT.search(text):
        return found
    if _CLOSE.search(text):
        found += _of_numbers(text)
    found += [name for name, form in _BY_FORM.items() if form.search(text)]
    lower = text.lower()
    if any(stem in lower for stem in STEMS):
        found.append("ADDRESS")
    return found


def _of_numbers(text: str) -> list[str]:
    found = [name for name, form in _LETTERED.items() if form.search(text)]
    if PHONE_RUN.search(text):
        found.append("PHONE")
    if _NINE.search(text):
        found.append("SSN")
        found += [name for name, named in _NUMBERS if named.search(text)]
        if _CARD.search(text):
            found.append("CARD")
    return found


def secrets_possible(text: str) -> bool:
    return tokens_possible(text) or assignments_possible(text) or "PRIVATE KEY" in text or "PuTTY-" in text


def tokens_possible(text: str) -> bool:
    """Tokens that are known by their form; each has a digit."""
    if not _DIGIT.search(text):
        return False
    if any(literal in text for literal in _LITERALS) or _SHAPES.search(text) is not None:
        return True
    lower = text.lower()
    if any(host in lower for host in _HOSTS):
        return True
    named = "pw" in lower or any(name in lower for name in _NAMES)
    return named and _LONG.search(text) is not None  # as long as services make them


def assignments_possible(text: str) -> bool:
    lower = text.lower()
    return any(name in lower for name in _NAMES) and _ASSIGNS.search(text) is not None
