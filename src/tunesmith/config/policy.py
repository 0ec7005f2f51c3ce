"""On-policy methods: the model writes answers, they are rewarded, and it learns from its own."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tunesmith.config.endpoint import Address
from tunesmith.config.judged import Choices, NotNegative
from tunesmith.config.rewards import RewardPart, called
from tunesmith.config.section import Positive, Section
from tunesmith.config.tuning import Scale, Writes


class KlConfig(Section):
    """How the policy is held near the model that the run starts with."""

    weight: NotNegative | None = None
    """Weight of the KL divergence. Null: as the algorithm is published (grpo 0.04, rloo and ppo 0.05, reinforce_pp
    0.01), else 0."""

    where: Literal["loss", "reward"] | None = None
    """`loss`: a term beside the policy's; `reward`: taken from the reward, of reinforce_pp and ppo from that of each
    token. Null: grpo, dr_grpo, dapo and gspo in the loss, the others in the reward."""

    estimator: Literal["k1", "k2", "k3"] | None = None
    """Of a token, with d = log policy - log reference: k1 d, k2 d^2 / 2, k3 e^-d - 1 + d
    (http://joschu.net/blog/kl-approx.html). In the loss the gradient of k1 and k2 is that of the KL divergence
    (d times that of log policy); k3's, which GRPO publishes, is biased, towards that of the KL the other way round.
    In the reward k1's is right, k2's and k3's are biased. Null: k3 in the loss, k1 in the reward."""

    target: Scale | None = None
    """Adaptive weight (arXiv:1909.08593, 2.2): after each rollout it is multiplied by 1 + 0.1 x the relative distance
    of the KL divergence of an answer, in nats, from this, cut to 0.2. Null: a fixed weight."""

    stop_at: Scale | None = None
    """Stop the run when the mean KL divergence of an answer is above this, in nats, whatever the algorithm. Null:
    never."""


class CriticConfig(Section):
    """What tells ppo how much a state is worth."""

    kind: Literal["head", "separate"] = "head"
    """`head`: a linear layer on the policy's own states, whose error trains the layers below it too; `separate`: a
    second model with such a layer, tuned as the policy is (`method.tuning`) by that error alone, which the policy gets
    no gradient of. It takes the memory and the time of one more model; of what neither trains there is one copy."""

    base: str | None = None
    """Of separate: the language model it starts from, with the policy's tokenizer. Null: as model.base."""

    lr_factor: Scale = 1.0
    """Of separate: its learning rate as a multiple of the run's."""

    @model_validator(mode="after")
    def _what_is_said_is_used(self) -> Self:
        said = {"base": self.base is not None, "lr_factor": self.lr_factor != 1.0}
        for name in (name for name, is_said in said.items() if is_said and self.kind == "head"):
            raise ValueError(f"{name} is of critic.kind: separate; write that, or leave it out")
        return self


class VllmConfig(Address):
    """A server started with `vllm serve`, on this machine or another, that writes the answers of rollouts. The weights
    reach it through a folder (docs/policies.md says how to start it)."""

    url: str = "http://localhost:8000"
    """Where it is."""

    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds for which the server may be silent: it replies when all answers to a prompt are written."""

    concurrency: Positive = 64
    """Prompts asked at once; the server decides how many answers it writes at the same time."""

    folder: str | None = None
    """Where the weights are put for the server to read, as this machine calls it. Null: `vllm` in the run's folder."""

    folder_there: str | None = None
    """The same folder as the server calls it, where another machine or a container has it elsewhere. Null: as here."""

    max_gap: Scale = 0.1
    """Most nats by which the server's log-probability of a token may differ in the mean from the policy's own: the
    answers to one prompt of each rollout are compared. A server of other weights is farther away; one that computes in
    8 or 4 bits may need more."""


class PolicyConfig(Writes):
    """Learning from rewards of answers that the model itself writes to the training prompts."""

    type: Literal["policy"] = "policy"
    """The training method."""

    algorithm: Literal[
        "ppo", "grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce_pp", "online_dpo", "raft", "rwr"
    ] = "grpo"
    """`ppo` with a value head (arXiv:1707.06347, 1909.08593), `grpo` (arXiv:2402.03300), `dr_grpo` (arXiv:2503.20783),
    `dapo` (arXiv:2503.14476), `gspo` (arXiv:2507.18071), `rloo` (arXiv:2402.14740), `reinforce_pp` REINFORCE++
    (arXiv:2501.03262), `online_dpo` the best against the worst answer (arXiv:2402.04792), `raft` supervised learning of
    the best answer (best of n, arXiv:2304.06767), `rwr` supervised learning weighted by e^(reward / beta)."""

    rewards: list[RewardPart] = []
    """What makes the reward of an answer: a list of parts, whose weighted sum it is. Each has a `kind`: `function`,
    `regex`, `length`, `verifier`, `model` or `judge`, and `weight`, `curve` and `name`; docs/rewards.md describes
    them."""

    samples: Positive = 8
    """Answers written to each prompt: the group. `train.batch_size` is the number of prompts of a rollout."""

    max_new_tokens: Positive = 128
    """Longest answer."""

    temperature: Scale = 1.0
    """Of sampling, and of the log-probabilities that are trained."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the fewest tokens that make up this share. Below 1 the trained log-probabilities are not those that
    were sampled from."""

    top_k: Positive | None = None
    """Sample from this many likeliest tokens. Null: from all."""

    passes: Positive | None = None
    """Times that each rollout is learned from. Null: of ppo 4, else 1."""

    minibatches: Positive = 1
    """Optimizer steps of each pass, each on its share of the prompts."""

    clip: Annotated[float, Field(gt=0)] = 0.2
    """The ratio of new and old probability counts between 1 - clip and 1 + clip_high (arXiv:1707.06347, 7). Of gspo the
    paper's values are 3e-4 and 4e-4."""

    clip_high: Annotated[float, Field(gt=0)] | None = None
    """Null: as clip; of dapo 0.28."""

    kl: KlConfig = KlConfig()
    """How the policy is held near the model that the run starts with."""

    scale: Literal["group", "batch", "none"] | None = None
    """What advantages are divided by: the deviation of the group's rewards, of the whole rollout's, or nothing.
    Null: grpo, dapo and gspo by the group's, reinforce_pp and ppo by the rollout's, the others by nothing."""

    average: Literal["sequence", "token", "constant"] | None = None
    """Over what the loss is averaged: answers, each the mean of its tokens (grpo, gspo); all tokens of a step alike
    (dapo, reinforce_pp, ppo); or answers, each the sum of its tokens divided by max_new_tokens (dr_grpo) or not (rloo:
    constant with max_new_tokens 1). Null: as the algorithm is published; rloo constant."""

    truncated: Literal["learn", "mask", "penalise", "bootstrap"] | None = None
    """Answers that were cut off at max_new_tokens: `learn` from them as from any, `mask` them out of the loss,
    `penalise` them by truncation_penalty, or, with ppo, `bootstrap`: they have not ended, so in place of a reward their
    return has the value of the state after their last token (arXiv:1712.00378). Null: dapo mask, the others learn."""

    truncation_penalty: NotNegative = 1.0
    """Of penalise: taken from the reward of a cut answer."""

    dynamic_sampling: bool | None = None
    """Prompts whose answers all have the same reward teach nothing: put others in their place, at most three times as
    many. Null: of dapo true."""

    importance_cap: Scale | None = None
    """Each token's loss is weighted by the probability under which it is trained over that under which it was written,
    at most by this: a correction for an engine that rounds otherwise (arXiv:2505.24034). Null: none."""

    discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of ppo: how much the next token's reward counts."""

    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Of ppo: lambda of generalised advantage estimation (arXiv:1506.02438, 16)."""

    critic: CriticConfig = CriticConfig()
    """Of ppo: a layer on the policy, or a model of its own."""

    value_weight: Scale = 0.1
    """Of ppo: weight of the values' squared error."""

    value_clip: Scale = 0.2
    """Of ppo: values count as no farther than this from what they were when the answer was written, where that makes
    their error larger."""

    beta: Scale | None = None
    """Of online_dpo that of its loss, of rwr the temperature of its weights. Null: online_dpo 0.1, rwr 1."""

    vllm: VllmConfig | None = None
    """A vLLM server writes the answers of rollouts, for full and lora tuning; those of evaluations are written here.
    Null: all are written here."""

    GRADIENT: ClassVar[tuple[str, ...]] = ("ppo", "grpo", "dr_grpo", "dapo", "gspo", "rloo", "reinforce_pp")
    """Algorithms that follow the policy gradient."""

    def choices(self) -> Choices:
        """What the fields that are null become."""
        name, of = self.algorithm, f"of {self.algorithm}"
        average = dict.fromkeys(("grpo", "gspo"), "sequence") | dict.fromkeys(
            ("dapo", "reinforce_pp", "ppo"), "token"
        )
        scale = dict.fromkeys(("grpo", "dapo", "gspo"), "group") | dict.fromkeys(
            ("reinforce_pp", "ppo"), "batch"
        )
        chosen: dict[str, Any] = {
            "passes": 4 if name == "ppo" else 1,
            "truncated": "mask" if name == "dapo" else "learn",
            "dynamic_sampling": name == "dapo",
        }
        if name in self.GRADIENT:
            chosen |= {
                "clip_high": 0.28 if name == "dapo" else self.clip,
                "scale": scale.get(name, "none"),
                "average": average.get(name, "constant"),
            }
        elif name != "raft":
            chosen["beta"] = 0.1 if name == "online_dpo" else 1.0
        said = dict(self)
        return {field: (value, of) for field, value in chosen.items() if said[field] is None}

    def kl_choices(self) -> Choices:
        name, of = self.algorithm, f"of {self.algorithm}"
        if name not in self.GRADIENT:
            return {}
        weights = {"grpo": 0.04, "rloo": 0.05, "reinforce_pp": 0.01, "ppo": 0.05}
        where = self.kl.where or ("loss" if name in ("grpo", "dr_grpo", "dapo", "gspo") else "reward")
        chosen: dict[str, Any] = {
            "weight": weights.get(name, 0.0),
            "where": where,
            "estimator": "k3" if where == "loss" else "k1",
        }
        said = dict(self.kl)
        because = {"estimator": f"{of}; its gradient is biased" if where == "loss" else of}
        return {
            field: (value, because.get(field, of)) for field, value in chosen.items() if said[field] is None
        }

    @model_validator(mode="after")
    def _the_weight_can_move(self) -> Self:
        weight = self.kl_choices().get("weight", (0.0, ""))[0] if self.kl.weight is None else self.kl.weight
        if self.kl.target is not None and self.algorithm in self.GRADIENT and weight == 0:
            raise ValueError(
                "kl.target moves kl.weight, which is 0 here; write a kl.weight above 0, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        if not self.rewards:
            raise ValueError("rewards is empty; name at least one, such as {kind: verifier, check: number}")
        name, times = Counter(called(part) for part in self.rewards).most_common(1)[0]
        if times > 1:
            raise ValueError(f"{times} rewards are called '{name}'; give each a name of its own")
        if self.samples == 1 and self.algorithm not in ("reinforce_pp", "ppo"):
            raise ValueError(
                f"samples 1 leaves {self.algorithm} nothing to compare; write samples: 2 or more"
            )
        if self.algorithm not in self.GRADIENT:
            fields = type(self).model_fields
            idle = ("clip", "clip_high", "scale", "average", "importance_cap")
            said = [name for name in idle if dict(self)[name] != fields[name].default]
            said += [f"kl.{name}" for name, value in self.kl if value is not None and name != "stop_at"]
            if said:
                raise ValueError(f"{said[0]} has no meaning with algorithm {self.algorithm}; leave it out")
        if self.beta is not None and self.algorithm not in ("online_dpo", "rwr"):
            raise ValueError(f"beta has no meaning with algorithm {self.algorithm}; leave it out")
        if self.algorithm == "ppo" and (
            self.average not in (None, "token") or self.importance_cap is not None
        ):
            raise ValueError("ppo weighs all tokens alike; leave average and importance_cap out")
        for name in ("discount", "gae_lambda", "critic", "value_weight", "value_clip"):
            if self.algorithm != "ppo" and dict(self)[name] != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no meaning with algorithm {self.algorithm}; leave it out")
        if self.algorithm == "gspo" and self.average not in (None, "sequence"):
            raise ValueError("gspo weighs whole answers; leave average out")
        if self.truncated != "penalise" and self.truncation_penalty != 1.0:
            raise ValueError("truncation_penalty is of truncated: penalise; write that, or leave it out")
        return self

    @model_validator(mode="after")
    def _what_is_said_is_used(self) -> Self:
        if self.algorithm in ("reinforce_pp", "ppo") and self.scale not in (None, "batch"):
            raise ValueError(f"{self.algorithm} scales all tokens of a rollout together; leave scale out")
        if self.algorithm == "gspo" and self.importance_cap is not None:
            raise ValueError("importance_cap is of tokens, and gspo weighs whole answers; leave it out")
        if self.truncated == "bootstrap" and self.algorithm != "ppo":
            raise ValueError(
                f"truncated bootstrap needs the values of ppo, and {self.algorithm} has none; write learn, mask or "
                "penalise"
            )
        if self.truncated == "mask" and self.algorithm not in self.GRADIENT:
            raise ValueError(f"truncated mask has no meaning with algorithm {self.algorithm}; leave it out")
        return self

    @model_validator(mode="after")
    def _a_server_can_write_with_it(self) -> Self:
        if self.vllm is not None and self.temperature != 1 and (self.top_p < 1 or self.top_k is not None):
            raise ValueError(
                "vllm says no log-probabilities of a temperature before top_p and top_k cut; write temperature: 1, or "
                "leave top_p and top_k out"
            )
        return self
