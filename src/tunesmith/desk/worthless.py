"""Texts from which nothing is learned: refusals, forms that nobody filled in, one phrase over and over."""

from __future__ import annotations

import string

import regex

_CANNOT = r"(?:can(?:no|'|’)?t|cannot|(?:am|[’']m)\s+(?:not\s+able|unable)\s+to)"
_HELP = r"(?:assist|help|provide|fulfill?|comply|answer)"
_AI = r"an?\s+(?:ai|artificial\s+intelligence|(?:large\s+)?language\s+model)\b"
_REFUSAL = regex.compile(
    rf"""^\W*(?:
        i(?:[’']|\s+a)m\s+(?:very\s+|really\s+|so\s+)?sorry,?\s+(?:but\s+)?(?:as\s+{_AI}|i\s+{_CANNOT}\s+{_HELP})
      | as\s+{_AI}
      | (?:i\s+apologi[sz]e|unfortunately),?\s+(?:but\s+)?(?:i|as\s+an?\s+ai).{{0,40}}{_CANNOT}\s+{_HELP}
      | i\s+{_CANNOT}\s+{_HELP}\s+(?:you\s+)?(?:with\s+)?(?:that|this|your)
      | i[’']m\s+(?:just\s+)?{_AI}
    )""",
    regex.IGNORECASE | regex.VERBOSE,
)
_NO_REFUSAL = frozenset(string.ascii_letters + string.digits) - frozenset("aiuAIU")
"""No refusal begins with these."""

_MISSING = regex.compile(
    r"""\W*(?:todo|tbd|tba|fixme|n/?a|none|null|nil|nan|undefined|test|xxx+|asdf\w*|placeholder|\.{2,}|-+|\?+|
           (?:insert|your)\s+(?:text|answer|response)\s+here|no\s+(?:answer|response|comment))\W*""",
    regex.IGNORECASE | regex.VERBOSE,
)
_FILLER = regex.compile(r"\blorem\s+ipsum\s+dolor\b", regex.IGNORECASE)
_BLANK = regex.compile(
    r"[\[<{](?:insert|your|enter|add|fill\s+in|customer(?:'s)?|company|agent)[\s_-][^\[\]<>{}\n]{2,40}[\]>}]",
    regex.IGNORECASE,
)
SHORT = 60
"""Characters up to which a whole text may be a placeholder."""


def is_refusal(text: str) -> bool:
    return text[:1] not in _NO_REFUSAL and _REFUSAL.match(text) is not None


def is_placeholder(text: str) -> bool:
    """Nothing but a mark that an answer is missing, or text with a blank that was to be filled in."""
    blank = "[" in text or "<" in text or "{" in text
    if len(text) > SHORT and not (blank or "lorem" in text or "Lorem" in text or "LOREM" in text):
        return False
    return bool(_MISSING.fullmatch(text) or (blank and _BLANK.search(text)) or _FILLER.search(text))


HALF = 0.5


def is_sound(text: str, *, answers: bool) -> bool:
    """Whether it is surely no placeholder, no refusal where it answers, and at most half of it repeats: told at a part
    of what it costs to ask each; False says nothing."""
    return not (is_placeholder(text) or (answers and is_refusal(text))) and _varies(text)


def _varies(text: str) -> bool:
    """Whether the first words of it alone show that half of all are different ones."""
    if len(text) < 2 * LEAST - 1:
        return True
    words = text.split()
    return len(words) < LEAST or 1 - len(set(words[: 5 * len(words) // 8])) / len(words) <= HALF


WORDS = 5
LEAST = 20


def repeated_share(text: str, matters: float = 0.0) -> float:
    """Share of the words that lie in a sequence of five which stood in the text before; 0 below 20 words, and where it
    can be at most `matters`: words that lie in repeated sequences all stood there before."""
    words = text.split()
    if len(words) < LEAST or 1 - len(set(words)) / len(words) <= matters:
        return 0.0
    seen: set[tuple[str, ...]] = set()
    covered = end = 0
    for at, gram in enumerate(zip(*(words[i:] for i in range(WORDS)), strict=False)):
        if gram in seen:
            covered += at + WORDS - max(at, end)
            end = at + WORDS
        else:
            seen.add(gram)
    return covered / len(words)
