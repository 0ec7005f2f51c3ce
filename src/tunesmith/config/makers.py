"""Recipes of `tunesmith data synth`: what makes rows, one class for each `kind`."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tunesmith.config.section import Positive, Section
from tunesmith.config.synth import Synthetic

Count = Annotated[int, Field(ge=0)]
SLOT = re.compile(r"\{(\w+)\}")
Way = Literal["deeper", "wider", "concrete", "harder", "plainer"]
FORM = """
Reply with {form}, and nothing else."""
GRID_PROMPT = (
    """\
Write {count} new texts for a data set{about}.{label}
The situation: {situation}.

Texts of this kind, to show form and tone (do not repeat them):
{examples}
"""
    + FORM
)
SELF_INSTRUCT_PROMPT = (
    """\
Below are rows of a data set{about}. Write {count} further rows. Each must differ from these and from one another in \
matter and in wording.{label}

{examples}
"""
    + FORM
)
EVOLVE_PROMPT = (
    """\
Below is a row of a data set{about}. Write it anew: {way}{label}

{examples}
"""
    + FORM
)
REWRITE_PROMPT = (
    """\
Below is a row of a data set{about}. Say the {part} in other words. It must mean the same, no more and no less, and \
sound as natural.

{examples}
"""
    + FORM
)


class Template(Section):
    """Texts that all have one answer."""

    prompt: list[str] = Field(min_length=1)
    """The texts, with {slots}."""

    answer: str | None = None
    """What is answered, which may have {slots}; of rows with a class its label. A slot that the text has as well is
    filled alike. Null: rows of plain text."""


class Templates(Section):
    """Rows from texts with slots. Every filling is equally likely, and comes once; of each answer as many."""

    kind: Literal["templates"] = "templates"
    """What makes rows."""

    count: Positive
    """Rows that are made, if the templates have so many."""

    templates: list[Template] = Field(min_length=1)
    """Texts and their answers."""

    slots: dict[str, list[str]] = {}
    """What may stand in a slot: name -> texts, which may have slots themselves. A slot that stands twice in a text is
    filled alike in both places."""

    @model_validator(mode="after")
    def _every_slot_is_known(self) -> Self:
        texts = [text for one in self.templates for text in [*one.prompt, one.answer or ""]]
        for text in [*texts, *(value for values in self.slots.values() for value in values)]:
            for name in SLOT.findall(text):
                if not self.slots.get(name):
                    raise ValueError(f"'{text}' has the slot {{{name}}}; write slots.{name}: [...]")
        for name in self.slots:
            self._refuse_loops(name, ())
        return self

    def _refuse_loops(self, name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"slot {{{name}}} stands in itself ({' > '.join((*above, name))}); take it out")
        for inner in {inner for value in self.slots[name] for inner in SLOT.findall(value)}:
            self._refuse_loops(inner, (*above, name))


class Asking(Section):
    """What asks a model."""

    @field_validator("prompt", check_fields=False)
    @classmethod
    def _it_says_how_to_reply(cls, prompt: str) -> str:
        if "{form}" not in prompt:
            raise ValueError("the prompt does not say how to reply; write {form} where that belongs")
        return prompt


class Grid(Asking):
    """Rows by a model that is told of a situation: one value of each axis, such as persona, scenario and style. With
    labels each situation is asked for with each label. All combinations come equally often, as nearly as can be."""

    kind: Literal["grid"] = "grid"
    """What makes rows."""

    count: Positive
    """Rows that are asked for."""

    axes: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(min_length=1)
    """Axis -> its values."""

    rows: Positive = 1
    """Rows that one question asks for."""

    shots: Count = 3
    """Seeds that are shown, of the label that is asked for."""

    prompt: str = GRID_PROMPT
    """What the model is told: {count}, {about}, {label}, {situation}, {examples} and {form} are put in."""


class SelfInstruct(Asking):
    """Rows by a model that is shown a few seeds (arXiv:2212.10560). Only seeds are shown, not rows that were made: what
    is asked does not depend on what was answered before, so that a run can go on where it ended."""

    kind: Literal["self_instruct"] = "self_instruct"
    """What makes rows."""

    count: Positive
    """Rows that are asked for."""

    rows: Positive = 4
    """Rows that one question asks for."""

    shots: Positive = 6
    """Seeds that are shown, drawn anew for each question."""

    prompt: str = SELF_INSTRUCT_PROMPT
    """What the model is told: {count}, {about}, {label}, {examples} and {form} are put in."""


class Evolve(Asking):
    """A seed made into another row (arXiv:2304.12244); a label stays, an answer is written anew."""

    kind: Literal["evolve"] = "evolve"
    """What makes rows."""

    count: Positive | None = None
    """Rows that are asked for. Null: of every seed one in each way."""

    ways: list[Way] = Field(default=["deeper", "wider", "concrete"], min_length=1)
    """`deeper`: one requirement more. `wider`: a rarer matter of the same kind. `concrete`: general words become
    particular ones. `harder`: takes more steps to answer. `plainer`: shorter and simpler."""

    rounds: Positive = 1
    """How often a row is evolved again, each time in the way that comes next; every round adds its rows."""

    prompt: str = EVOLVE_PROMPT
    """What the model is told: {about}, {way}, {label}, {examples} and {form} are put in."""


class Rewrite(Asking):
    """A seed in other words; the rest of the row stays."""

    kind: Literal["rewrite"] = "rewrite"
    """What makes rows."""

    count: Positive | None = None
    """Rows that are asked for. Null: one of every seed."""

    part: Literal["prompt", "answer"] = "answer"
    """What is said in other words. A label never is."""

    prompt: str = REWRITE_PROMPT
    """What the model is told: {about}, {part}, {examples} and {form} are put in."""


Maker = Annotated[Templates | Grid | SelfInstruct | Evolve | Rewrite, Field(discriminator="kind")]
"""`kind` says which."""


class Synth(Synthetic):
    """A recipe of `tunesmith data synth`: seeds, and what makes rows from them."""

    makers: list[Maker] = Field(min_length=1)
    """What makes rows, in this order."""

    def asking(self) -> list[str]:
        return [f"the maker {one.kind}" for one in self.makers if not isinstance(one, Templates)]
