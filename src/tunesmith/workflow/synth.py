"""Recipes of `tunesmith data synth` and `data augment`, carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tunesmith.config.augment import Augment, BackTranslation
from tunesmith.config.makers import Evolve, Grid, Rewrite, SelfInstruct, Synth, Templates
from tunesmith.desk.make import Made
from tunesmith.desk.synthetic import questions
from tunesmith.desk.synthetic.adding import Maker, added, named
from tunesmith.desk.synthetic.changes import back_translated, changed
from tunesmith.desk.synthetic.checks import Features, Floats
from tunesmith.desk.synthetic.questions import Ask, Told
from tunesmith.desk.synthetic.seeds import Seeds
from tunesmith.desk.synthetic.slots import from_templates
from tunesmith.types import EventSink, Example, Message, RowRef
from tunesmith.workflow.features import states, words
from tunesmith.workflow.writers import writer_of

MAKERS: dict[type[Any], Callable[..., questions.Made]] = {
    Grid: questions.grid,
    SelfInstruct: questions.self_instruct,
    Evolve: questions.evolve,
    Rewrite: questions.rewrite,
}


def synth(recipe: Synth, sink: EventSink, *, dry_run: bool = False) -> Made:
    """Rows made from seeds; see `desk.synthetic.adding`."""
    makers = [
        Maker(name, not isinstance(spec, Templates), spec.count, partial(_made, spec, recipe.seed + number))
        for number, (name, spec) in enumerate(
            zip(named([one.kind for one in recipe.makers]), recipe.makers, strict=True)
        )
    ]
    writer = writer_of(recipe)
    return added(recipe, makers, writer, features_of(recipe), sink, dry_run=dry_run)


def _made(spec: Any, seed: int, seeds: Seeds, told: Told, ask: Ask | None) -> questions.Made:
    if isinstance(spec, Templates):
        return list(from_templates(spec, seeds, seed))
    return MAKERS[type(spec)](spec, seeds, told, ask, seed)


def augment(recipe: Augment, sink: EventSink, *, dry_run: bool = False) -> Made:
    """Rows said another way, in the same manner."""
    makers = [
        Maker(
            name,
            isinstance(spec, BackTranslation) and spec.function is None,
            None,
            partial(_changed, spec, recipe.seed + number),
        )
        for number, (name, spec) in enumerate(
            zip(named([one.kind for one in recipe.changes]), recipe.changes, strict=True)
        )
    ]
    writer = writer_of(recipe)
    return added(recipe, makers, writer, features_of(recipe), sink, dry_run=dry_run)


def _changed(spec: Any, seed: int, seeds: Seeds, told: Told, ask: Ask | None) -> questions.Made:
    if isinstance(spec, BackTranslation):
        return back_translated(spec, seeds, ask)
    return changed(spec, seeds, seed)


def features_of(recipe: Synth | Augment) -> Features:
    """Of texts: states of the encoder that the checks name, or their words."""
    encoder = recipe.checks.encoder

    def features(texts: Sequence[str]) -> Floats:
        examples = [
            Example(RowRef("text", line), (Message("user", text), Message("assistant", "")))
            for line, text in enumerate(texts, 1)
        ]
        return words(examples, recipe.seed) if encoder is None else states(encoder, examples)

    return features
