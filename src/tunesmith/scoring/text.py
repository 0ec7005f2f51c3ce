"""Row scores of free text: exact match, token F1, ROUGE; and answers that are no answers.

Every function takes one reference and one prediction and returns a number in [0, 1] or a flag; nothing here
knows of a model. Words are runs of letters and digits; a Chinese or Japanese character is a word by itself,
since those scripts put no spaces between words.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_QUOTES = "\"'`“”‘’„«» \t\r\n"

REFUSAL_PATTERNS: tuple[str, ...] = (
    r"((i'?m|i am) (very |really |so )?)?(sorry|unfortunately),? (but )?"
    r"(i (can'?t|can ?not|am unable|am not able|won'?t)|i'm (unable|not able)|as an? (ai|language model))\b",
    r"i (can'?t|can ?not|could not|couldn'?t|won'?t|will not) "
    r"(help|assist|provide|answer|comply|fulfil+|do that|share|give|create|generate|discuss|engage|support)",
    r"(i'?m|i am) (unable|not able|not allowed|not permitted) to\b",
    r"as an? (ai|artificial intelligence|language model|large language model)\b",
    r"i (do not|don'?t) have (access|the ability|enough (information|context))\b",
)
"""What counts as a refusal: one of these at the very start of an answer (small letters, plain apostrophes).
English only, and deliberately narrow: an apology inside an answer is not a refusal."""

_REFUSAL = re.compile("|".join(f"(?:{p})" for p in REFUSAL_PATTERNS))


def normalise(text: str) -> str:
    """The form in which two answers are 'the same': Unicode NFKC, case folded, white space collapsed,
    surrounding quotes and back-ticks and one final full stop removed. Inner punctuation stays, so that
    'C', 'C#' and 'C++' remain three answers."""
    text = unicodedata.normalize("NFKC", text).casefold().strip(_QUOTES)
    text = text.removesuffix(".").removesuffix("。").strip(_QUOTES)
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """Lower-cased words, without stemming."""
    return _WORD.findall(text.lower())


def squad_words(text: str) -> list[str]:
    """Words as the SQuAD scorer sees them (arXiv:1606.05250): small letters, ASCII punctuation deleted, the
    articles a, an, the deleted. Departure: a Chinese or Japanese character is a word."""
    return _WORD.findall(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)))


def exact_match(reference: str, prediction: str) -> bool:
    """Whether both are the same after `normalise`."""
    return normalise(reference) == normalise(prediction)


def token_f1(reference: str, prediction: str) -> float:
    """Harmonic mean of precision and recall over the bags of `squad_words`. Both empty: 1; one empty: 0."""
    wanted, got = squad_words(reference), squad_words(prediction)
    shared = sum((Counter(wanted) & Counter(got)).values())
    return _f1(shared, len(wanted), len(got))


def rouge_l(reference: str, prediction: str) -> float:
    """ROUGE-L (Lin 2004): with L the longest common subsequence of `words`, precision L / len(prediction),
    recall L / len(reference), their harmonic mean (beta = 1). Both empty: 1; one empty: 0."""
    wanted, got = words(reference), words(prediction)
    return _f1(lcs_length(wanted, got), len(wanted), len(got))


def rouge_n(reference: str, prediction: str, n: int) -> float:
    """ROUGE-N (Lin 2004): the harmonic mean of precision and recall over the bags of runs of n `words`.

    Where neither side has n words: 1 if the words are the same, else 0. One side without: 0."""
    wanted, got = words(reference), words(prediction)
    if max(len(wanted), len(got)) < n:
        return float(wanted == got)
    bags = [Counter(zip(*(side[i:] for i in range(n)), strict=False)) for side in (wanted, got)]
    return _f1((bags[0] & bags[1]).total(), bags[0].total(), bags[1].total())


def lcs_length(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö 2004): one row of the usual table is
    one integer of len(a) bits, and a zero bit marks where the row increases."""
    where: dict[str, int] = {}
    for index, token in enumerate(a):
        where[token] = where.get(token, 0) | 1 << index
    everything = (1 << len(a)) - 1
    row = everything
    for token in b:
        matches = row & where.get(token, 0)
        row = ((row + matches) | (row - matches)) & everything
    return len(a) - row.bit_count()


def is_empty(text: str) -> bool:
    """No visible character."""
    return not text.strip()


def is_refusal(text: str) -> bool:
    """Whether the answer starts like a refusal; see REFUSAL_PATTERNS."""
    return _REFUSAL.match(text.replace("’", "'").lower().lstrip(_QUOTES)) is not None


def perplexity(total_nll: float, num_tokens: int) -> float:
    """exp of the mean negative log-likelihood (nats) per token; inf if that overflows, NaN without tokens."""
    if num_tokens <= 0:
        return math.nan
    try:
        return math.exp(total_nll / num_tokens)
    except OverflowError:
        return math.inf


def _f1(shared: int, num_wanted: int, num_got: int) -> float:
    total = num_wanted + num_got
    return 2 * shared / total if total else 1.0
