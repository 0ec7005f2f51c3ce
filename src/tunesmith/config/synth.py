"""What recipes of `tunesmith data synth` and `data augment` have in common: who writes, what is checked and marked."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunesmith.config.desk import Making, Share
from tunesmith.config.endpoint import Endpoint, NotNegative
from tunesmith.config.files import Files
from tunesmith.config.section import Positive, Section

CRITIQUE_PROMPT = """\
You check rows of a data set{about}. Is the text natural, and is what stands under it right for it? {low} is \
worthless, {high} could not be better.

Text:
{prompt}

{name}:
{answer}

Reply with the number alone."""


class WriterEndpoint(Endpoint):
    """Any chat endpoint in the manner of OpenAI's, also one on this machine."""

    temperature: NotNegative | None = 0.8
    """Sampling temperature that is asked for: at 0 every question has one reply. Null: the endpoint's own."""

    max_tokens: Positive | None = None
    """Tokens of a reply, at most. Null: the endpoint's own."""


class LocalWriter(Section):
    """A model on this machine: a run's folder, a model's, or a hub id."""

    path: str
    """Which."""

    temperature: Annotated[float, Field(gt=0)] = 0.8
    """Tokens are drawn from softmax(logits / temperature)."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the likeliest tokens the fewest that make up this share."""

    top_k: Positive | None = None
    """Of so many of the likeliest tokens. Null: of all."""

    max_new_tokens: Positive = 256
    """Tokens of a reply, at most."""


class Critique(Section):
    """The recipe's model marks each row."""

    least: float = 6.0
    """The least mark that a row is kept with."""

    low: float = 0.0
    """The worst mark."""

    high: float = 10.0
    """The best mark. A reply without a mark between them drops the row."""

    prompt: str = CRITIQUE_PROMPT
    """What the model is told: {about}, {prompt}, {answer}, {name} (Label or Answer), {low} and {high} are put in."""

    @model_validator(mode="after")
    def _the_marks_make_sense(self) -> Self:
        if not self.low < self.high or not self.low <= self.least <= self.high:
            raise ValueError(f"least {self.least:g} is not between low {self.low:g} and high {self.high:g}")
        if "{prompt}" not in self.prompt:
            raise ValueError("the prompt does not show the row; write {prompt} where its text belongs")
        return self


class Checks(Section):
    """What a synthetic row must pass, in this order. A row that fails is dropped, counted and kept in changes.jsonl."""

    usable: bool = True
    """Training would take the row."""

    leak_near: Share | None = 0.8
    """No evaluation row (`data.validation`, `data.test`, `against`) is that alike, by the MinHash of dedup. Null: not
    looked for."""

    leak_ngram: Annotated[int, Field(ge=3)] | None = 8
    """No evaluation row shares that many words in a row with it; of a shorter one, from five words, all. Null: not
    looked for."""

    leaks: Literal["drop", "refuse"] = "drop"
    """`refuse`: a row that leaks stops the run, and is named with the row that it is like."""

    novelty: Share | None = 0.8
    """No seed and no synthetic row before it is that alike. Null: none is the same to the letter."""

    relevance: Share | None = 0.05
    """The cosine with the nearest seed is at least this. The default is for words; of an encoder's states take 0.3.
    Null: not asked for."""

    label: Share | None = 0.3
    """Of rows with one class: a probe that was fitted on the seeds finds no other class likelier by more than this.
    Null: not asked."""

    probe_least: Share = 0.5
    """Share of the seeds, each left out in turn, whose label the probe must know; one that knows fewer judges nothing,
    and the report says so."""

    critique: Critique | None = None
    """A model marks the row. Absent: not asked."""

    max_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the training rows that is synthetic, at most; of more, as many of each label go as keep labels even."""

    encoder: str | None = None
    """A pre-trained model (such as a sentence encoder's folder) whose states relevance and label are told by. Null:
    TF-IDF of words and pairs of words."""


class Synthetic(Making):
    """Rows that nobody wrote, made from training rows and added to them."""

    about: str = ""
    """What the rows are, for a model that writes some: `tickets of a booking app's customers`."""

    meanings: dict[str, str] = {}
    """What labels mean, for the same: label -> a few words."""

    endpoint: WriterEndpoint | None = None
    """Who writes, over HTTP. Absent: nobody."""

    local: LocalWriter | None = None
    """Who writes, on this machine. Absent: nobody."""

    against: Files = []
    """Further files of evaluation rows, which are not part of the data set."""

    origin: Annotated[str, Field(min_length=1)] = "synthetic"
    """Column that says of a synthetic row how it was made. Real rows have none, or null there."""

    checks: Checks = Checks()
    """What each synthetic row must pass."""

    @model_validator(mode="after")
    def _one_writes(self) -> Self:
        if self.endpoint is not None and self.local is not None:
            raise ValueError("endpoint and local are both named; leave one of them out")
        asking = [*self.asking(), *(["checks.critique"] if self.checks.critique is not None else [])]
        if asking and self.endpoint is None and self.local is None:
            raise ValueError(
                f"{asking[0]} asks a model, and none is named; name one under endpoint (url, model) or local (path)"
            )
        if not self.data.train:
            raise ValueError("data.train names no seeds; name the rows that others are made from")
        return self

    def asking(self) -> list[str]:
        """What of the recipe asks a model."""
        raise NotImplementedError
