"""Recipes of `tunesmith data augment`: how a training row is said another way, one class for each `kind`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tunesmith.config.desk import Share
from tunesmith.config.rewards import MODULE_PATH
from tunesmith.config.section import Positive, Section
from tunesmith.config.synth import Checks, Synthetic

SLIPS = ("neighbours", "doubled", "missing", "exchanged")
"""What may happen to a letter, one of them at most."""
TRANSLATE_PROMPT = """\
Translate the text into {language}. Reply with the translation alone.

{text}"""


class Eda(Section):
    """Easy data augmentation (arXiv:1901.11196): each share is of the words, and at least one where it is above 0."""

    kind: Literal["eda"] = "eda"
    """How a text is changed."""

    times: Positive = 1
    """Rows made of each seed."""

    synonyms: Share = 0.1
    """Words that become another one of the same group in the lexicon."""

    insertions: Share = 0.1
    """Synonyms of words of the text that are put in somewhere else."""

    swaps: Share = 0.1
    """Exchanges of two words."""

    deletions: Share = 0.1
    """Words that are left out."""

    lexicon: str | None = None
    """A file of words that stand for one another: a group on each line, with commas between. Null: a short list of
    English everyday words that comes with the package."""


class Noise(Section):
    """Noise as people type it. Each share is of the places where it can happen; words with a digit, an @ or a slash
    stay, for they are numbers, addresses and codes."""

    kind: Literal["noise"] = "noise"
    """How a text is changed."""

    times: Positive = 1
    """Rows made of each seed."""

    neighbours: Share = 0.02
    """Letters that become one beside them on the keyboard."""

    doubled: Share = 0.01
    """Letters that come twice."""

    missing: Share = 0.01
    """Letters that are left out."""

    exchanged: Share = 0.01
    """Letters that change places with the next."""

    case: Share = 0.3
    """Texts without capitals."""

    punctuation: Share = 0.3
    """Marks that are left out."""

    contractions: Share = 0.5
    """`do not` becomes `don't`, and `don't` `dont`."""

    layout: Literal["qwerty", "qwertz", "azerty"] = "qwerty"
    """The keyboard."""

    @model_validator(mode="after")
    def _a_letter_slips_once(self) -> Self:
        total = sum(dict(self)[name] for name in SLIPS)
        if total > 1:
            raise ValueError(f"{', '.join(SLIPS)} sum to {total:g}; make them sum to 1 at most")
        return self


class BackTranslation(Section):
    """The text translated into another language and back."""

    kind: Literal["back_translation"] = "back_translation"
    """How a text is changed."""

    function: Annotated[str, Field(pattern=f"^{MODULE_PATH.pattern}$")] | None = None
    """A function of your own, `module.function`: list of texts -> list of as many texts, there and back. Null: the
    recipe's model translates."""

    pivots: list[str] = Field(default=["German"], min_length=1)
    """Of a model: languages by which it is asked to go, one row each."""

    prompt: str = TRANSLATE_PROMPT
    """What the model is told, once there and once back: {language} and {text} are put in."""

    language: str = "English"
    """Of a model: the language of the rows."""

    @field_validator("prompt")
    @classmethod
    def _it_shows_the_text(cls, prompt: str) -> str:
        for place in ("{text}", "{language}"):
            if place not in prompt:
                raise ValueError(f"the prompt has no {place}; write it where it belongs")
        return prompt


Change = Annotated[Eda | Noise | BackTranslation, Field(discriminator="kind")]
"""`kind` says which."""


class AugmentChecks(Checks):
    """As of synthetic rows; but a row that is like its seed is what was wanted."""

    novelty: Share | None = None
    """No seed and no synthetic row before it is that alike. Null: none is the same to the letter."""


class Augment(Synthetic):
    """A recipe of `tunesmith data augment`: rows, and how they are said another way. Labels and answers stay."""

    changes: list[Change] = Field(min_length=1)
    """How texts are changed, each by itself."""

    checks: AugmentChecks = AugmentChecks()
    """What each synthetic row must pass."""

    def asking(self) -> list[str]:
        return [
            "back_translation without a function"
            for one in self.changes
            if isinstance(one, BackTranslation) and one.function is None
        ]

    @model_validator(mode="after")
    def _something_is_changed(self) -> Self:
        shares = {
            Eda: ("synonyms", "insertions", "swaps", "deletions"),
            Noise: (*SLIPS, "case", "punctuation", "contractions"),
        }
        for one in self.changes:
            names = shares.get(type(one), ())
            if names and not any(dict(one)[name] for name in names):
                raise ValueError(f"{one.kind} with every share 0 changes nothing; raise one, or leave it out")
        return self
