"""Signs that a policy games its reward: what sampled answers look like now, held against the start of training.

A reward that rises while answers grow long, repeat themselves or become all the same is seldom what was wanted
(arXiv:2210.10760). Pure functions of texts and counts; the shares depend on how many answers there are, so compare
sets of one size.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith.scoring.text import is_empty, words

LONGER = 2.0
"""Mean length: alarm at this many times that of the start, and at its inverse."""
FEW_TOKENS = 8.0
"""Mean lengths nearer to one another than this are no alarm: from 2 tokens to 5 says nothing."""
MORE_REPEATED = 0.1
"""Rep-4: alarm when the share has risen by this."""
LESS_DISTINCT = 0.5
"""Distinct-2: alarm when it is at most this share of that of the start."""
MORE_IDENTICAL = 0.2
"""Share of answers that another one equals: alarm when it has risen by this."""
MORE_AT_LIMIT = 0.1
"""Share of answers cut off at the length limit: alarm when it has risen by this."""
MORE_EMPTY = 0.05
"""Share of answers without a visible character: alarm when it has risen by this."""
KL_SPIKE = 4.0
"""KL to the reference: alarm when a step's is over this many times the median of those before."""
KL_FLOOR = 0.01
"""Nats: a KL below is no alarm, as that of the first steps is nearly 0."""
KL_HISTORY = 5
"""Steps that the median needs."""


@dataclass(frozen=True, slots=True)
class Looks:
    """What a set of answers looks like. tokens: mean length. The others are shares, from 0 to 1; see `looks`."""

    num_answers: int
    tokens: float
    repeated: float
    distinct: float
    identical: float
    at_limit: float
    empty: float


def looks(answers: Sequence[str], tokens: Sequence[int], at_limit: Sequence[bool]) -> Looks:
    """Of at least one answer. tokens: how many each has; at_limit: whether it was cut off at the length limit."""
    num = len(answers)
    assert num == len(tokens) == len(at_limit) > 0, (num, len(tokens), len(at_limit))
    return Looks(
        num_answers=num,
        tokens=sum(tokens) / num,
        repeated=repeated(answers),
        distinct=distinct(answers),
        identical=identical(answers),
        at_limit=sum(at_limit) / num,
        empty=sum(map(is_empty, answers)) / num,
    )


def runs(text: str, n: int) -> list[tuple[str, ...]]:
    """Its runs of n words."""
    found = words(text)
    return list(zip(*(found[i:] for i in range(n)), strict=False))


def repeated(answers: Sequence[str], n: int = 4) -> float:
    """Rep-n: the share of an answer's runs of n words that it has written before (arXiv:1908.04319, 6.1), its mean over
    the answers that have such runs; 0 where none has."""
    each = [1 - len(set(found)) / len(found) for found in (runs(a, n) for a in answers) if found]
    return statistics.fmean(each) if each else 0.0


def distinct(answers: Sequence[str], n: int = 2) -> float:
    """Distinct-n: different runs of n words among all of the set (arXiv:1510.03055; there it is divided by all words,
    here by all runs, so that 1 can be reached). 1 where there are none."""
    every = [run for answer in answers for run in runs(answer, n)]
    return len(set(every)) / len(every) if every else 1.0


def identical(answers: Sequence[str]) -> float:
    """Share of the answers that another answer equals, but for outer white space."""
    times = Counter(answer.strip() for answer in answers)
    return sum(count for count in times.values() if count > 1) / len(answers)


def alarms(now: Looks, start: Looks, kl: Sequence[float] = ()) -> list[str]:
    """A sentence for every threshold that is passed. kl: KL to the reference of each step so far, in nats."""
    return [*_length(now, start), *_shares(now, start), *kl_spike(kl)]


def kl_spike(kl: Sequence[float]) -> list[str]:
    """One sentence where the last step's KL stands out from those before, else none."""
    if len(kl) <= KL_HISTORY:
        return []
    last, usual = kl[-1], statistics.median(kl[:-1])
    if last <= max(KL_SPIKE * usual, KL_FLOOR):
        return []
    times = f"{last / usual:.1f} times the usual" if usual > 0 else "far above the usual"
    return [f"KL to the reference jumped to {times} ({last:.3g} against {usual:.3g})"]


def _length(now: Looks, start: Looks) -> Iterator[str]:
    if abs(now.tokens - start.tokens) < FEW_TOKENS:
        return
    counts = f"({now.tokens:.0f} against {start.tokens:.0f} tokens)"
    if now.tokens >= LONGER * start.tokens:
        ratio = (
            f"{now.tokens / start.tokens:.1f} times as long as" if start.tokens else "long, and were empty"
        )
        yield f"answers are {ratio} at the start {counts}"
    elif now.tokens <= start.tokens / LONGER:
        yield f"answers are {now.tokens / start.tokens:.2f} times as long as at the start {counts}"


def _shares(now: Looks, start: Looks) -> Iterator[str]:
    risen = (
        (
            now.repeated,
            start.repeated,
            MORE_REPEATED,
            "of runs of four words repeat earlier ones of the answer",
        ),
        (now.identical, start.identical, MORE_IDENTICAL, "of answers are the same as another one"),
        (now.at_limit, start.at_limit, MORE_AT_LIMIT, "of answers are cut off at the length limit"),
        (now.empty, start.empty, MORE_EMPTY, "of answers are empty"),
    )
    for share, before, more, what in risen:
        if share - before >= more - 1e-9:  # 0.3 - 0.2 is a little less than 0.1
            yield f"{_percent(share)} {what} ({_percent(before)} at the start)"
    if now.distinct <= LESS_DISTINCT * start.distinct:
        yield (
            f"answers have become alike: {_percent(now.distinct)} of all pairs of words are different ones "
            f"({_percent(start.distinct)} at the start)"
        )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
