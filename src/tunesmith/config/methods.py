"""How a model learns: one class for each `method.type`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from tunesmith.config.judged import (
    Judged,
    OfSteps,
    PreferenceConfig,
    RankingConfig,
    RewardConfig,
    ScoresAnswers,
    UnpairedConfig,
)
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.section import Fraction
from tunesmith.config.tuning import PROMPTED, Pooled, Tuning, Writes


class SftConfig(Writes):
    """Supervised fine-tuning: maximise the likelihood of the supervised tokens."""

    type: Literal["sft"] = "sft"
    """The training method."""

    supervise: Literal["completion", "assistant", "all"] = "assistant"
    """Which tokens carry loss: the last assistant turn, every assistant turn, or all text (continued
    pre-training)."""

    label_smoothing: Fraction = 0.0
    """Share of the target probability spread evenly over the vocabulary, or the classes."""


class Head(Pooled):
    """A head with outputs of its own on those states."""

    head_init: Literal["random", "probe"] = "random"
    """Where the head's weights start: drawn at random, or at a linear probe fitted on the untuned model's features, so
    that tuning does not first bend them to a random head (arXiv:2202.10054). For heads of one linear layer on a pooled
    state (pooling mean for most encoders)."""

    head_lr_factor: Annotated[float, Field(gt=0)] = 1.0
    """The head's learning rate is `train.learning_rate` times this."""

    labels: list[str] | None = None
    """The classes, in the order of the head's outputs. Null: those of the training rows, sorted."""


class ClassifyConfig(Head):
    """Classification by a head: one class a text, or several."""

    type: Literal["classify"] = "classify"
    """The training method."""

    multi_label: bool = False
    """Each text may have any number of classes: a sigmoid for each instead of one softmax. Rows then have a list
    of classes."""

    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """How much a row of each class counts (a class that is not named counts 1). `balanced`: rows / (classes x rows
    of the class), scikit-learn's rule. Null: all alike."""

    focal_gamma: Annotated[float, Field(ge=0)] = 0.0
    """Focal loss (arXiv:1708.02002, equation 4): each term is scaled by (1 - p)^gamma. 0: cross-entropy."""

    label_smoothing: Fraction = 0.0
    """Share of the target probability spread evenly over the vocabulary, or the classes."""

    abstain_below: Fraction = 0.0
    """`predict` answers null where the best class has a probability below this. 0: never."""

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        if self.focal_gamma and self.label_smoothing:
            raise ValueError("focal_gamma and label_smoothing both bend the target; leave one of them out")
        if self.multi_label and self.class_weights == "balanced":
            raise ValueError("balanced is for one class a row; with multi_label name each class's weight")
        if self.labels is not None and isinstance(self.class_weights, dict):
            unknown = sorted(set(self.class_weights) - set(self.labels))
            if unknown:
                raise ValueError(
                    f"class_weights names '{unknown[0]}', which is none of the labels; correct the name"
                )
        if self.multi_label and self.abstain_below:
            raise ValueError("abstain_below has no meaning with multi_label; leave one of them out")
        return self


class RegressConfig(Head):
    """Regression by a head: one or several numbers for a text."""

    type: Literal["regress"] = "regress"
    """The training method."""

    loss: Literal["mse", "mae", "huber"] = "mse"
    """Squared error, absolute error, or Huber's (squared up to 1, then straight), on targets scaled to mean 0 and
    standard deviation 1 by the training rows."""

    scale: list[tuple[float, float]] | None = None
    """Mean and standard deviation of each target. Null: of the training rows."""


class TagConfig(Head):
    """Token classification: spans of a text and their labels, as BIO tags of its tokens (arXiv:cmp-lg/9505040)."""

    type: Literal["tag"] = "tag"
    """The training method."""

    label_smoothing: Fraction = 0.0
    """Share of the target probability spread evenly over the vocabulary, or the classes."""

    @model_validator(mode="after")
    def _every_token_is_read(self) -> Self:
        if self.pooling != "auto":
            raise ValueError("tagging reads every token, so pooling has no meaning; leave pooling out")
        if self.head_init != "random":
            raise ValueError("head_init probe is for heads on a pooled state; leave it out")
        if self.tuning in PROMPTED or set(self.with_settings()) & PROMPTED:
            raise ValueError(
                "tagging has no prompt or prefix tuning: PEFT's token classifiers would tag the virtual tokens too; "
                "choose another tuning, such as lora"
            )
        return self


class EmbedConfig(Pooled):
    """Embeddings: texts that belong together come to lie near one another (cosine of pooled states). Rows are `pairs`;
    with `data.format: label` each text is paired with another of its class, drawn by the seed."""

    type: Literal["embed"] = "embed"
    """The training method."""

    criterion: Literal["contrastive", "triplet"] = "contrastive"
    """`contrastive`: softmax over the candidates (InfoNCE, arXiv:1807.03748). `triplet`: the positive is to be nearer
    than the hardest candidate by a margin (arXiv:1503.03832)."""

    candidates: Literal["batch", "own"] = "batch"
    """What an anchor's positive is held against: all texts of the step's rows but anchors (equal texts are left out),
    or the row's own negatives alone, which every row must then have."""

    temperature: Annotated[float, Field(gt=0)] = 0.05
    """Of the contrastive loss: cosines are divided by it."""

    margin: Annotated[float, Field(gt=0)] = 0.2
    """Of the triplet loss, in cosine."""

    @model_validator(mode="after")
    def _the_loss_uses_it(self) -> Self:
        other, criterion = (
            ("margin", "contrastive") if self.criterion == "contrastive" else ("temperature", "triplet")
        )
        if getattr(self, other) != type(self).model_fields[other].default:
            raise ValueError(f"{other} has no meaning with criterion {criterion}; leave it out")
        return self


class StepwiseConfig(ScoresAnswers):
    """A process reward model: how likely each step of an answer is right, by a head at the step's last token (decoders)
    or on prompt and answer up to there as a pair of texts (encoders). Binary cross-entropy (arXiv:2305.20050); labels
    may be numbers between 0 and 1."""

    takes = ("stepwise",)

    type: Literal["stepwise"] = "stepwise"
    """The training method."""

    until_first_wrong: bool = False
    """Steps of a row after its first wrong one count no more, as they were labelled in arXiv:2305.20050."""

    answer: OfSteps = "min"
    """What `predict` takes for an answer: its least likely step (arXiv:2312.08935), the `product` of all
    (arXiv:2305.20050), or the `last`."""

    def of_steps(self) -> OfSteps:
        return self.answer


def _type_of(value: Any) -> str:
    return str(value.get("type", "sft")) if isinstance(value, dict) else str(value.type)


Method = Annotated[
    Annotated[SftConfig, Tag("sft")]
    | Annotated[ClassifyConfig, Tag("classify")]
    | Annotated[RegressConfig, Tag("regress")]
    | Annotated[TagConfig, Tag("tag")]
    | Annotated[EmbedConfig, Tag("embed")]
    | Annotated[RewardConfig, Tag("reward")]
    | Annotated[StepwiseConfig, Tag("stepwise")]
    | Annotated[PreferenceConfig, Tag("preference")]
    | Annotated[UnpairedConfig, Tag("unpaired")]
    | Annotated[RankingConfig, Tag("ranking")]
    | Annotated[PolicyConfig, Tag("policy")],
    Discriminator(_type_of),
]
"""`method.type` says which; left out it is `sft`."""

HeadMethod = ClassifyConfig | RegressConfig | TagConfig | EmbedConfig

METHODS: dict[str, type[Tuning]] = {
    tag.tag: get_args(member)[0] for member in get_args(get_args(Method)[0]) for tag in member.__metadata__
}
"""`method.type` -> its class."""

TAKES: dict[str, tuple[str, ...]] = {
    name: method.takes for name, method in METHODS.items() if issubclass(method, Judged | ScoresAnswers)
}
"""Methods that learn from what people said -> the kinds of rows that they take."""
