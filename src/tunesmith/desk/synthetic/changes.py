"""Training rows said another way: their labels and answers stay."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from tunesmith.config.augment import BackTranslation, Eda, Noise
from tunesmith.desk.reading import CHUNK_ROWS
from tunesmith.desk.synthetic.questions import Ask, Made, put_in
from tunesmith.desk.synthetic.seeds import Candidate, Refused, Seed, Seeds
from tunesmith.desk.synthetic.spool import blocks
from tunesmith.desk.synthetic.typing import mistyped, neighbours
from tunesmith.desk.synthetic.words import lexicon_of, varied
from tunesmith.errors import DataError, clipped
from tunesmith.scoring.endpoint import without_thoughts
from tunesmith.scoring.rewards.function import function_of, place_of


def changed(spec: Eda | Noise, seeds: Seeds, seed: int) -> Iterator[Candidate | Refused]:
    """What is drawn for a row depends on the seed, its place among all rows, and which of its copies it is."""
    change: Callable[[str, random.Random], str]
    if isinstance(spec, Eda):
        lexicon = lexicon_of(spec.lexicon)
        change = lambda text, draws: varied(text, spec, lexicon, draws)  # noqa: E731
    else:
        beside = neighbours(spec.layout)
        change = lambda text, draws: mistyped(text, spec, beside, draws)  # noqa: E731
    for number in range(spec.times):
        for one in seeds.rows:
            draws = random.Random(f"{spec.kind} {seed} {one.row.number} {number}")
            text = change(one.prompt, draws)
            yield _said(one, text, spec.kind if number == 0 else f"{spec.kind} ({number + 1})")


def _said(seed: Seed, text: str, how: str) -> Candidate | Refused:
    if not text.strip():
        return Refused("nothing_left", f"of {seed.place}", text)
    return Candidate(seed, text, None, (seed.place,), how)


def back_translated(spec: BackTranslation, seeds: Seeds, ask: Ask | None) -> Made:
    if spec.function is not None:
        return _by_function(spec.function, seeds)
    assert ask is not None
    jobs = [(at, language) for language in spec.pivots for at in range(len(seeds.rows))]
    there = ask([put_in(spec.prompt, language=to, text=seeds.rows[at].prompt) for at, to in jobs])
    known = [(job, said) for job, said in zip(jobs, there, strict=True) if said is not None]
    translate = partial(put_in, spec.prompt, language=spec.language)
    back = ask([translate(text=without_thoughts(said).strip()) for _, said in known])
    return (
        _said(seeds.rows[at], without_thoughts(reply).strip(), f"by way of {language}")
        for ((at, language), _), reply in zip(known, back, strict=True)
        if reply is not None
    )


def _by_function(path: str, seeds: Seeds) -> Iterator[Candidate | Refused]:
    function = function_of(path, "back translation")
    for some in blocks(seeds.rows, CHUNK_ROWS):
        texts = [one.prompt for one in some]
        try:
            found: Sequence[str] = function(list(texts))
        except Exception as error:
            raise DataError(
                f"back translation {path} failed at {place_of(function, error)} with {type(error).__name__}: {error}",
                "a list of as many texts as it was given",
                "mend the function",
            ) from error
        if (
            not isinstance(found, list)
            or len(found) != len(texts)
            or not all(isinstance(t, str) for t in found)
        ):
            raise DataError(
                f"back translation {path} returned {clipped(repr(found))}",
                f"a list of {len(texts)} texts",
                "mend the function",
            )
        yield from (_said(one, text.strip(), f"by {path}") for one, text in zip(some, found, strict=True))
