"""Which kinds of personal data a text may hold at all, told by a few tests that cost microseconds.

A recogniser runs only on texts that its test lets through, so the tests must let through every text in which the
recogniser would find something: their recall is 1.0, and tested to be. They are laxer than the recognisers, and begin
with what is rare in ordinary text: an at sign, digits close together, a long word, the name of a secret.
"""

from __future__ import annotations

import re

import regex

from tunesmith.desk.addresses import HOUSE_FIRST, KIND_AFTER, OTHER
from tunesmith.desk.kinds import KINDS

_DIGIT = re.compile(r"\d")
CLOSE = r"\d(?:[\W_xXー]{0,4}\d){5}"
"""Six digits with at most four other characters between: no number of a state, card or phone has fewer."""
PHONE_RUN = re.compile(r"\d(?:[\W_xXー]{0,4}\d){6,}")
CARD = re.compile(r"\d(?:[- ]?\d){11}")
NINE = re.compile(r"\d(?:[\s\-.:+]?\d){8}")
SSN = re.compile(r"\d{9}|\d{5}-\d{4}|\d{3}-\d{6}|\d{3}[- .]\d\d[- .]\d{4}")
OF_CLOSE_DIGITS = {
    "PHONE": PHONE_RUN,
    "UK_NINO": re.compile(r"\d\d ?\d\d ?\d\d ?[A-Da-d]"),
    "ES_NIF": re.compile(r"\d{7}-?[^\W_]"),
    "ES_NIE": re.compile(r"\d{7}-?[^\W_]"),
    "SG_NRIC": re.compile(r"\d{7}[^\W_]"),
    "FI_HETU": re.compile(r"\d{6}[-+A-Za-z]\d{3}[^\W_]"),
    "SE_PERSONNUMMER": re.compile(r"\d{6}[-+]?\d{4}"),
}
NUMBERS = [(name, kind.named) for name, kind in KINDS.items() if kind.needs == "always" and kind.named]
NAMES_OF_NUMBERS = [word for name, _ in NUMBERS for word in KINDS[name].words]
"""Words that name any of these."""
_ANY_NAMED = regex.compile(rf"\b(?:{'|'.join(map(regex.escape, NAMES_OF_NUMBERS))})\b", regex.IGNORECASE)
OF_SOME_DIGITS = {
    "IBAN": r"\d(?<=[A-Za-z]{2}\d)\d(?:[ -]?[A-Za-z0-9]){11}",
    "IT_FISCAL_CODE": r"\d(?<=[^\W_]{6}\d)[^\W\d_]",
    "IN_PAN": r"\d\d{3}[^\W\d_]\b",
    "CRYPTO": r"\d(?<=[013])\w{25}",
}
# Each form begins with a digit, which the search then leaps to.
_ROUGH = re.compile(rf"\d(?:{'|'.join(form[2:] for form in (CLOSE, *OF_SOME_DIGITS.values()))})")
_FORMS = {name: re.compile(form) for name, form in OF_SOME_DIGITS.items()}
_DIGITS_CLOSE = re.compile(CLOSE)
IPV4, IPV6 = re.compile(r"\d\.\d{1,3}\.\d"), re.compile(r":[0-9A-Fa-f]{0,4}:")
MAC = re.compile(r"[:-][0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-]")
MAC_DOTS = re.compile(r"\.[0-9A-Fa-f]{4}\.")

LONG = 20
"""Characters without a blank that a token has at least, but for those named beside it."""
TOKENS = (
    "AKC AKIA ASIA ABIA ACCA A3T AccountKey= ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ GR1348941 eyJ pypi-A SG. sq0csp- "
    "_live_ _test_ hf_ AIza Bearer -us sk- softlayer cloudant"
).split()
SHAPES = re.compile(
    r"[AS][CK][a-z0-9]{32}|[MNO][\w-]{23,25}\.[\w-]{6}\.|\d{8,10}:[0-9A-Za-z_-]{35}|gl[a-z]{2,5}-[\w-]{20}"
)
ARTIFACTORY = re.compile(r"AKC[a-zA-Z0-9]{10}|AP[\dA-F][a-zA-Z0-9]{8}")
NAMES = ("key", "pass", "pwd", "secret", "token", "contrase", "\u017f")
"""In lower case; the last is a letter that counts as s where case does not."""
ASSIGNED = re.compile(
    r"(?:key|pass|pwd|secret|token|contrase)[\w\"'\]]*\s*(?:[:=!]|(?:is|was)\b)", re.IGNORECASE
)
QUOTED = ('";', "';", "`;", "==", "!=")


def kinds_possible(text: str) -> list[str]:
    """Names of the kinds that `text` may hold, by one test after another; `automaton` is faster on ASCII."""
    found = []
    if "@" in text:
        found.append("EMAIL")
        if "://" in text:
            found.append("URL_LOGIN")
    lower = text.lower()
    if assignments_possible(text, lower) or tokens_possible(text, lower) or keys_possible(text):
        found.append("SECRET")
    if not _DIGIT.search(text):
        return found
    if _ROUGH.search(text):
        found += [name for name, form in _FORMS.items() if form.search(text)]
        if _DIGITS_CLOSE.search(text):
            found += _of_close_digits(text)
    dots, colons = text.count("."), text.count(":")
    if (dots > 1 and IPV4.search(text)) or (colons > 1 and IPV6.search(text)):
        found.append("IP")
    if (colons + text.count("-") > 2 and MAC.search(text)) or (dots > 1 and MAC_DOTS.search(text)):
        found.append("MAC")
    if addresses_possible(text):
        found.append("ADDRESS")
    return found


def _of_close_digits(text: str) -> list[str]:
    found = [name for name, form in OF_CLOSE_DIGITS.items() if form.search(text)]
    if NINE.search(text):
        if SSN.search(text):
            found.append("SSN")
        if _ANY_NAMED.search(text):
            found += [name for name, named in NUMBERS if named.search(text)]
        if CARD.search(text):
            found.append("CARD")
    return found


def addresses_possible(text: str) -> bool:
    if HOUSE_FIRST.search(text) is not None and KIND_AFTER.search(text) is not None:
        return True
    return OTHER.search(text) is not None


def keys_possible(text: str) -> bool:
    return "PRIVATE KEY" in text or "PuTTY-" in text


def tokens_possible(text: str, lower: str) -> bool:
    """Tokens that are known by their form; each has a digit."""
    if "xox" in lower or "_authToken=" in text:
        return True
    longest = max(map(len, text.split()), default=0)
    if longest < LONG:
        return longest > 10 and _artifactory(text)
    if any(token in text for token in TOKENS) or SHAPES.search(text) is not None:
        return True
    return _artifactory(text) or any(name in lower for name in (*NAMES, "pw", "hooks."))


def _artifactory(text: str) -> bool:
    return ("AKC" in text or "AP" in text) and ARTIFACTORY.search(text) is not None


def assignments_possible(text: str, lower: str) -> bool:
    """A name such as password or api_key, and what may give it a value."""
    if not any(name in lower for name in NAMES):
        return False
    return ASSIGNED.search(text) is not None or any(quoted in text for quoted in QUOTED)
