"""Methods that learn from what people said of answers: preferences, verdicts, rankings, and reward models.

Symbols: the policy's log-probability of a completion p (a sum over its tokens, or their mean where it is
`length_normalised`), the reference's r, the reward beta (p - r), and of a pair the difference h of chosen and rejected.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tunesmith.config.section import Fraction
from tunesmith.config.tuning import Pooled, Scale, Writes

NotNegative = Annotated[float, Field(ge=0)]
OfSteps = Literal["min", "product", "last"]
COMPARING = ("bradley_terry", "plackett_luce")
Choices = dict[str, tuple[Any, str]]
"""Field -> what its null stands for, and why."""


class Judged(Writes):
    """A language model that learns from judged completions."""

    takes: ClassVar[tuple[str, ...]]
    """The kinds of rows that it learns from."""

    compares: ClassVar[bool] = True
    """It holds a row's completions against one another, so single answers to one prompt are joined."""

    beta: Scale | None = None
    """How far the model may move from the reference: rewards are beta times differences of log-probabilities. Null: 0.1
    (of simpo 2, of orpo the weight of its odds ratio, 0.1)."""

    reference: Literal["start", "none"] | None = None
    """What log-probabilities are held against: those of the model as the run starts, computed once, or nothing. Null:
    start, where the loss has a reference."""

    length_normalised: bool | None = None
    """Take the mean log-probability of a completion's tokens in place of their sum. Null: as the loss is published (for
    simpo, orpo, ipo and rrhf true)."""

    def choices(self) -> Choices:
        """What the fields that are null become."""
        raise NotImplementedError

    def _with(self, chosen: Choices) -> Choices:
        said = dict(self)
        return {name: found for name, found in chosen.items() if said[name] is None}

    def _refuse(self, name: str, why: str) -> None:
        said = dict(self)[name]
        if said not in (None, type(self).model_fields[name].default):
            raise ValueError(f"{name} {said} has no meaning with {why}; leave it out")


class PreferenceConfig(Judged):
    """Preference learning: chosen completions become likelier than rejected ones. A row's pairs are all of its
    completions of unequal scores; their losses are averaged, so that each row counts alike."""

    takes = ("preference", "ranking", "rating")

    type: Literal["preference"] = "preference"
    """The training method."""

    loss: Literal[
        "sigmoid",
        "hinge",
        "ipo",
        "robust",
        "exo",
        "bco",
        "apo_zero",
        "apo_down",
        "simpo",
        "orpo",
        "cpo",
    ] = "sigmoid"
    """`sigmoid` DPO (arXiv:2305.18290; with label_smoothing conservative), `hinge` (SLiC, arXiv:2305.10425), `ipo`
    (arXiv:2310.12036), `robust` (arXiv:2403.00409), `exo` (arXiv:2402.00856), `bco` (arXiv:2404.04656), `apo_zero` and
    `apo_down` (arXiv:2408.06266), `simpo` (arXiv:2405.14734), `orpo` (arXiv:2403.07691), `cpo` (arXiv:2401.08417)."""

    label_smoothing: Fraction | None = None
    """Share of the pairs that are held to be the wrong way round. Null: 0; of robust 0.1, of exo 0.001, which must be
    above 0."""

    margin: NotNegative | None = None
    """The reward of the chosen completion is asked to be larger by this. Null: 0; of simpo 1."""

    margin_scale: NotNegative = 0.0
    """The same by the row's own margin times this, where rows have one (arXiv:2402.10571). Rewards are in nats times
    beta, margins in the rows' own unit, so the scale that suits them is the rows' too."""

    sft_weight: NotNegative | None = None
    """Weight of a supervised term beside the loss: the mean negative log-likelihood of the best completions' tokens
    (arXiv:2404.19733). Null: 0; of orpo and cpo 1, as they are published."""

    weighting: Literal["none", "wpo"] = "none"
    """`wpo`: each pair is weighted by how likely the policy itself would write it (arXiv:2406.11827)."""

    WITHOUT_REFERENCE: ClassVar[set[str]] = {"simpo", "orpo", "cpo"}
    WITH_MARGIN: ClassVar[set[str]] = {"sigmoid", "hinge", "robust", "simpo", "cpo"}
    SMOOTHED: ClassVar[dict[str, float]] = {
        "sigmoid": 0.0,
        "cpo": 0.0,
        "simpo": 0.0,
        "robust": 0.1,
        "exo": 0.001,
    }

    def choices(self) -> Choices:
        of = f"of {self.loss}"
        free = self.loss in self.WITHOUT_REFERENCE
        return self._with(
            {
                "beta": (2.0 if self.loss == "simpo" else 0.1, of),
                "reference": ("none" if free else "start", of),
                "length_normalised": (self.loss in ("simpo", "orpo", "ipo"), of),
                "label_smoothing": (self.SMOOTHED.get(self.loss, 0.0), of),
                "margin": (1.0 if self.loss == "simpo" else 0.0, of),
                "sft_weight": (1.0 if self.loss in ("orpo", "cpo") else 0.0, of),
            }
        )

    @model_validator(mode="after")
    def _the_loss_uses_it(self) -> Self:
        what = f"loss {self.loss}"
        if self.loss in self.WITHOUT_REFERENCE and self.reference == "start":
            raise ValueError(f"{what} has no reference; leave reference out")
        if self.loss not in self.WITHOUT_REFERENCE | {"sigmoid", "hinge"} and self.reference == "none":
            raise ValueError(f"{what} needs a reference; leave reference out")
        if self.loss in ("simpo", "orpo") and self.length_normalised is False:
            raise ValueError(f"{what} is of mean log-probabilities; leave length_normalised out")
        if self.loss not in self.WITH_MARGIN:
            if self.margin:
                self._refuse("margin", what)
            self._refuse("margin_scale", what)
        if self.loss not in self.SMOOTHED and self.label_smoothing:
            self._refuse("label_smoothing", what)
        smoothing = self.label_smoothing
        if self.loss in ("robust", "exo") and smoothing is not None and not 0 < smoothing < 0.5:
            raise ValueError(f"{what} needs a label_smoothing above 0 and below 0.5")
        return self


class UnpairedConfig(Judged):
    """Learning from verdicts on single answers, good or bad (thumbs); rows of pairs count as one good answer and one
    bad one."""

    takes = ("unpaired", "preference")
    compares = False

    type: Literal["unpaired"] = "unpaired"
    """The training method."""

    loss: Literal["kto", "bco", "apo_zero"] = "kto"
    """`kto` (arXiv:2402.01306), whose zero point is how far the policy is from the reference on answers to other
    prompts; `bco` (arXiv:2404.04656), whose shift is the mean reward of the step; `apo_zero` (arXiv:2408.06266)."""

    desirable_weight: Scale = 1.0
    """How much a good answer counts."""

    undesirable_weight: Scale = 1.0
    """How much a bad answer counts. The paper asks for desirable_weight x good rows of 1 to 4/3 times
    undesirable_weight x bad rows."""

    def choices(self) -> Choices:
        of = f"of {self.loss}"
        return self._with({"beta": (0.1, of), "reference": ("start", of), "length_normalised": (False, of)})

    @model_validator(mode="after")
    def _it_has_a_reference(self) -> Self:
        if self.reference == "none":
            raise ValueError(f"loss {self.loss} needs a reference; leave reference out")
        return self


class RankingConfig(Judged):
    """Comparative ranking: from K completions of one prompt, ranked or scored, ties allowed (tied completions are not
    compared)."""

    takes = ("ranking", "preference", "rating")

    type: Literal["ranking"] = "ranking"
    """The training method."""

    loss: Literal["plackett_luce", "best_vs_rest", "lipo_lambda", "rrhf"] = "plackett_luce"
    """`plackett_luce`: the likelihood of the whole ranking (arXiv:2305.18290, A.3). `best_vs_rest`: of its first place.
    `lipo_lambda`: pairs weighted by what their exchange costs in DCG (arXiv:2402.01878). `rrhf`: a hinge on mean
    log-probabilities beside supervised learning of the best (arXiv:2304.05302)."""

    sft_weight: NotNegative | None = None
    """Weight of a supervised term, as for preferences. Null: 0; of rrhf 1, as it is published."""

    def choices(self) -> Choices:
        of, free = f"of {self.loss}", self.loss == "rrhf"
        return self._with(
            {
                "beta": (1.0 if free else 0.1, of),
                "reference": ("none" if free else "start", of),
                "length_normalised": (free, of),
                "sft_weight": (1.0 if free else 0.0, of),
            }
        )

    @model_validator(mode="after")
    def _the_loss_uses_it(self) -> Self:
        if self.loss == "rrhf" and self.reference == "start":
            raise ValueError("loss rrhf has no reference; leave reference out")
        if self.loss == "rrhf" and self.beta not in (None, 1.0):
            raise ValueError("loss rrhf has no beta; leave beta out")
        return self


class ScoresAnswers(Pooled):
    """A model of one output, which scores answers or their steps: by a head at their last token (decoders), or on
    prompt and answer as a pair of texts (encoders)."""

    takes: ClassVar[tuple[str, ...]]
    """The kinds of rows that it learns from."""

    head_lr_factor: Scale = 1.0
    """The head's learning rate is `train.learning_rate` times this."""

    @property
    def compares(self) -> bool:
        """It holds a row's completions against one another, so single answers to one prompt are joined."""
        return False

    def unit(self) -> tuple[float, float] | None:
        """Mean and standard deviation of the ratings that its scores are scaled by, where there are some."""
        return None

    def of_steps(self) -> OfSteps | None:
        """Where it scores the steps of an answer: how their probabilities make one of the answer."""
        return None


class RewardConfig(ScoresAnswers):
    """A reward model: one number for an answer to a prompt, by a head at its last token (decoders) or on prompt and
    answer as a pair of texts (encoders)."""

    takes = ("preference", "ranking", "rating", "unpaired")

    type: Literal["reward"] = "reward"
    """The training method."""

    loss: Literal["bradley_terry", "plackett_luce", "regression", "ordinal"] | None = None
    """`bradley_terry`: -log sigmoid of the difference of chosen and rejected, averaged over a row's pairs
    (arXiv:2203.02155, 1). `plackett_luce`: the likelihood of a whole ranking. For single answers with a rating:
    `regression` squared error of ratings scaled to mean 0 and deviation 1; `ordinal` proportional odds (J. R. Stat.
    Soc. B 42, 1980) with the log-odds of the training ratings as thresholds. Null: bradley_terry for rows with several
    answers, regression for ratings."""

    label_smoothing: Fraction = 0.0
    """Of bradley_terry: share of the pairs that are held to be the wrong way round."""

    margin_scale: NotNegative = 1.0
    """Of bradley_terry: the difference is asked to be larger by the row's margin times this, where rows have one
    (arXiv:2307.09288, 3.2.2)."""

    centre: NotNegative = 0.0
    """Of bradley_terry and plackett_luce: weight of (r_w + r_l)^2, of more answers four times their squared mean
    reward, which keeps rewards near zero (arXiv:2312.09244, 2)."""

    scale: tuple[float, float] | None = None
    """Of regression: mean and standard deviation of the ratings. Null: of the training rows."""

    levels: list[float] | None = None
    """Of ordinal: the ratings that there are, in rising order. Null: those of the training rows."""

    thresholds: list[float] | None = None
    """Of ordinal: log-odds of a rating at most that of each level but the last. Null: of the training rows."""

    @property
    def compares(self) -> bool:
        return self.loss in COMPARING

    def unit(self) -> tuple[float, float] | None:
        return self.scale

    def idle(self, loss: str) -> str:
        """A field that is set and that this loss has no use for; empty where there is none."""
        fields = type(self).model_fields
        only = {
            "label_smoothing": ("bradley_terry",),
            "margin_scale": ("bradley_terry",),
            "centre": ("bradley_terry", "plackett_luce"),
            "scale": ("regression",),
            "levels": ("ordinal",),
            "thresholds": ("ordinal",),
        }
        for name, losses in only.items():
            if loss not in losses and dict(self)[name] != fields[name].default:
                return name
        return ""

    @model_validator(mode="after")
    def _the_loss_uses_it(self) -> Self:
        if self.loss is not None and (name := self.idle(self.loss)):
            raise ValueError(f"{name} has no meaning with loss {self.loss}; leave it out")
        return self
