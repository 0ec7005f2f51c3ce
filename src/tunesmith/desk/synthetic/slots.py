"""Texts with slots, filled in by chance."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle

from tunesmith.config.makers import SLOT, Templates
from tunesmith.desk.synthetic.seeds import Candidate, Seed, Seeds
from tunesmith.errors import DataError, near_miss

PATIENCE = 200
"""Fillings in a row that bring nothing new, after which an answer's templates are taken to be used up."""


def from_templates(spec: Templates, seeds: Seeds, seed: int) -> Iterator[Candidate]:
    """As many of each answer, in turn, until there are `spec.count` or the templates are used up. Raises DataError for
    an answer that rows like the seeds cannot have."""
    groups: dict[str | None, list[str]] = {}
    for one in spec.templates:
        groups.setdefault(one.answer, []).extend(one.prompt)
    likes = {answer: _like(seeds, answer) for answer in groups}
    draws = random.Random(seed)
    seen: set[tuple[str, str | None]] = set()
    found = 0
    open_ones = list(groups)
    for answer in cycle(groups):
        if found == spec.count or not open_ones:
            return
        if answer not in open_ones:
            continue
        drawn = _new(groups[answer], answer, spec.slots, draws, seen)
        if drawn is None:
            open_ones.remove(answer)
            continue
        template, prompt, said = drawn
        own = said if seeds.answered == "answer" else None
        found += 1
        yield Candidate(likes[answer], prompt, own, (), template)


def _like(seeds: Seeds, answer: str | None) -> Seed:
    wanted = seeds.answered in ("label", "answer")
    if seeds.answered == "other" or wanted != (answer is not None):
        kind = seeds.rows[0].row.shape.meaning.kind
        raise DataError(
            f"a template {'without' if answer is None else 'with'} an answer, and the seeds are {kind} rows",
            "rows with a class or one answer, whose templates have one, or plain text, whose have none",
            "correct templates.answer",
        )
    if seeds.answered != "label":
        return seeds.rows[0]
    assert answer is not None
    found = seeds.of(answer)
    if not found:
        raise DataError(
            f"a template's answer is '{answer}', which is no seed's label",
            near_miss(answer, seeds.labels),
            "correct templates.answer, or write a seed with this label",
        )
    return found[0]


def _new(
    texts: Sequence[str],
    answer: str | None,
    slots: Mapping[str, Sequence[str]],
    draws: random.Random,
    seen: set[tuple[str, str | None]],
) -> tuple[str, str, str | None] | None:
    """(template, prompt, answer) as there was none before; None where the templates seem to be used up."""
    for _ in range(PATIENCE):
        template = draws.choice(texts)
        chosen: dict[str, str] = {}
        prompt = filled(template, slots, draws, chosen)
        said = None if answer is None else filled(answer, slots, draws, chosen)
        if (prompt, said) not in seen:
            seen.add((prompt, said))
            return template, prompt, said
    return None


def filled(
    text: str, slots: Mapping[str, Sequence[str]], draws: random.Random, chosen: dict[str, str]
) -> str:
    """The text with a value in each slot; chosen: slot -> its value in this row, which is added to."""

    def value(name: str) -> str:
        if name not in chosen:
            chosen[name] = filled(draws.choice(slots[name]), slots, draws, chosen)
        return chosen[name]

    return SLOT.sub(lambda slot: value(slot[1]), text)
