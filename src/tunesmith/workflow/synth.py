"""Recipes of `tunesmith data synth` and `data augment`, carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tunesmith.config.augment import Augment, BackTranslation
from tunesmith.config.makers import Evolve, Grid, Rewrite, SelfInstruct, Synth, Templates
from tunesmith.desk.make import Made
from tunesmith.desk.probe import MOST_FITTED
from tunesmith.desk.synthetic import questions
from tunesmith.desk.synthetic.adding import Maker, added, named
from tunesmith.desk.synthetic.changes import back_translated, changed
from tunesmith.desk.synthetic.checks import Features, Floats, Vectors
from tunesmith.desk.synthetic.questions import Ask, Told
from tunesmith.desk.synthetic.seeds import Seeds
from tunesmith.desk.synthetic.slots import from_templates
from tunesmith.types import EventSink, Example, Message, RowRef
from tunesmith.workflow.features import words_of
from tunesmith.workflow.writers import writer_of

MOST_KNOWN = 2 * MOST_FITTED
"""Texts whose vectors are kept, for another check that asks for them."""
MAKERS: dict[type[Any], Callable[..., questions.Made]] = {
    Grid: questions.grid,
    SelfInstruct: questions.self_instruct,
    Evolve: questions.evolve,
    Rewrite: questions.rewrite,
}


def synth(recipe: Synth, sink: EventSink, *, dry_run: bool = False, features: Features | None = None) -> Made:
    """Rows made from seeds; see `desk.synthetic.adding`. features: by which checks tell texts apart, where they are at
    hand; None: those that the recipe names."""
    makers = [
        Maker(name, not isinstance(spec, Templates), spec.count, partial(_made, spec, seed))
        for name, spec, seed in _in_turn(recipe.makers, recipe.seed)
    ]
    writer = writer_of(recipe)
    return added(recipe, makers, writer, features or features_of(recipe), sink, dry_run=dry_run)


def _in_turn(specs: Sequence[Any], seed: int) -> Iterator[tuple[str, Any, int]]:
    """What makes rows: its name, itself, and a seed of its own."""
    names = named([one.kind for one in specs])
    for number, (name, spec) in enumerate(zip(names, specs, strict=True)):
        yield name, spec, seed + number


def _made(spec: Any, seed: int, seeds: Seeds, told: Told, ask: Ask | None) -> questions.Made:
    if isinstance(spec, Templates):
        return from_templates(spec, seeds, seed)
    return MAKERS[type(spec)](spec, seeds, told, ask, seed)


def augment(
    recipe: Augment, sink: EventSink, *, dry_run: bool = False, features: Features | None = None
) -> Made:
    """Rows said another way, in the same manner."""
    makers = [
        Maker(name, _asks(spec), None, partial(_changed, spec, seed))
        for name, spec, seed in _in_turn(recipe.changes, recipe.seed)
    ]
    writer = writer_of(recipe)
    return added(recipe, makers, writer, features or features_of(recipe), sink, dry_run=dry_run)


def _asks(change: Any) -> bool:
    """Whether the change needs a model."""
    return isinstance(change, BackTranslation) and change.function is None


def _changed(spec: Any, seed: int, seeds: Seeds, told: Told, ask: Ask | None) -> questions.Made:
    if isinstance(spec, BackTranslation):
        return back_translated(spec, seeds, ask)
    return changed(spec, seeds, seed)


def features_of(recipe: Synth | Augment) -> Features:
    """Of texts: states of the encoder that the checks name, or their words."""
    encoder = recipe.checks.encoder
    if encoder is None:
        return partial(_words, recipe.seed)
    from tunesmith.workflow.states import states_of  # torch takes seconds to import, and words need none

    states = states_of(encoder)
    vectors = remembered(lambda texts: states(_examples(texts)))
    return lambda texts: (vectors(texts), vectors)


def _words(seed: int, texts: Sequence[str]) -> tuple[Floats, Vectors]:
    found, more = words_of(_examples(texts), seed)
    return found, lambda others: more(_examples(others))


def remembered(vectors: Vectors) -> Vectors:
    """The same, with what it said of the first MOST_KNOWN texts kept."""
    known: dict[str, Floats] = {}

    def of(texts: Sequence[str]) -> Floats:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        found = dict(zip(new, vectors(new), strict=True)) if new else {}
        out = np.stack([found[text] if text in found else known[text] for text in texts])
        for text in new[: max(0, MOST_KNOWN - len(known))]:
            known[text] = found[text]
        return out

    return of


def _examples(texts: Sequence[str]) -> list[Example]:
    return [
        Example(RowRef("text", line), (Message("user", text), Message("assistant", "")))
        for line, text in enumerate(texts, 1)
    ]
