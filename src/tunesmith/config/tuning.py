"""Which weights move: adapters of several kinds, or all weights but frozen ones; every method has it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunesmith.config.section import Fraction, Positive, Section

Rank = dict[str, Positive]
Scale = Annotated[float, Field(gt=0)]


class LoraConfig(Section):
    """Low-rank adapters, arXiv:2106.09685, and what has been built on them; saved in PEFT's format."""

    rank: Positive = 16
    """Rank of the update."""

    alpha: Scale | None = None
    """The update is scaled by alpha / rank (with `rslora` by alpha / sqrt(rank)). Null: 2 x rank (with `rslora`: 8,
    which is the same at rank 16)."""

    dropout: Fraction = 0.0
    """Dropout on the adapter's input."""

    modules: list[str] = ["all-linear"]
    """Which linear layers: names or regular expressions matched against the full module name;
    `all-linear` is every linear layer but the head."""

    rslora: bool = False
    """Scale by alpha / sqrt(rank), so that a higher rank learns as fast as a low one (arXiv:2312.03732)."""

    dora: bool = False
    """Learn the length of each row of a weight apart from its direction (arXiv:2402.09353); slower and somewhat
    larger."""

    init: Literal["default", "gaussian", "pissa", "olora"] = "default"
    """First weights. `default`: A uniform, B zero; `gaussian`: A normal, B zero; `pissa`: the largest singular
    directions of the weight (arXiv:2404.02948); `olora`: the first columns of its QR decomposition
    (arXiv:2406.01775). The last two take their part out of the base while training, and are saved as plain LoRA of
    twice the rank on the untouched base."""

    ranks: Rank = {}
    """Other ranks for some layers: a name or regular expression, as in `modules` -> rank. The first that matches
    counts."""

    alphas: dict[str, Scale] = {}
    """Other alphas for some layers, likewise. A layer of another rank keeps `alpha` unless it is named here too."""

    train_embeddings: bool = False
    """Train the token embeddings beside the adapter, and the language-model head: with them where it is tied to
    them, as itself where it is not. The saved adapter then holds them whole."""

    def default_alpha(self) -> float:
        """What null stands for in `alpha`."""
        return 8.0 if self.rslora else 2.0 * self.rank

    @model_validator(mode="after")
    def _is_plain_lora_in_the_end(self) -> Self:
        if self.init in ("pissa", "olora") and self.rslora and (self.ranks or self.alphas):
            raise ValueError(
                f"init {self.init} with rslora and with ranks or alphas of single layers cannot be converted to plain "
                "LoRA by PEFT, in whose format it is saved; leave out rslora, or ranks and alphas, or init"
            )
        return self


class Ia3Config(Section):
    """(IA)3, arXiv:2205.05638: learned factors on keys, values and the inside of the feed-forward layers."""

    modules: list[str] = []
    """Which linear layers have their outputs (`feedforward`: inputs) multiplied: names or regular expressions, as for
    LoRA. Empty: those that PEFT knows of the model's family."""

    feedforward: list[str] = []
    """Which of `modules` have their inputs multiplied instead of their outputs."""

    @model_validator(mode="after")
    def _feedforward_is_of_modules(self) -> Self:
        if self.feedforward and not self.modules:
            raise ValueError("feedforward names some of modules, which is empty; write modules too")
        return self


class LohaConfig(Section):
    """LoHa, arXiv:2108.06098 (FedPara): the element-wise product of two low-rank updates, so of up to rank squared."""

    rank: Positive = 8
    """Rank of each of the two updates."""

    alpha: Scale | None = None
    """The update is scaled by alpha / rank. Null: the rank."""

    dropout: Fraction = 0.0
    """Share of the rows of an update that is left out at random in each step (PEFT's `rank_dropout`)."""

    modules: list[str] = ["all-linear"]
    """Which linear layers, as for LoRA."""

    def default_alpha(self) -> float:
        """What null stands for in `alpha`."""
        return float(self.rank)


class VeraConfig(Section):
    """VeRA, arXiv:2310.11454: one random pair of matrices for all layers, and two learned vectors for each."""

    rank: Positive = 256
    """Rank of the random matrices; it costs one number a layer."""

    initial: Scale = 0.1
    """What the vector between the matrices starts from; the other one starts from zero."""

    dropout: Fraction = 0.0
    """Dropout on the adapter's input."""

    modules: list[str] = ["all-linear"]
    """Which linear layers, as for LoRA."""


class PromptConfig(Section):
    """Prompt tuning, arXiv:2104.08691: learned embeddings before every row; the model itself is as it was."""

    tokens: Positive = 20
    """How many; they take their part of the model's context."""

    text: str = ""
    """Text whose embeddings they start from, repeated or cut to their number. Empty: tokens drawn from the
    vocabulary."""


class PrefixConfig(Section):
    """Prefix tuning, arXiv:2101.00190 (without its reparametrisation): learned keys and values before every row, in
    every layer of a decoder."""

    tokens: Positive = 20
    """How many; they take their part of the model's context."""

    text: str = ""
    """Text whose keys and values they start from, repeated or cut to their number. Empty: tokens drawn from the
    vocabulary."""


class FreezeConfig(Section):
    """Parts that keep their weights in full-parameter tuning (transfer with frozen layers)."""

    layers: Annotated[int, Field(ge=0)] = 0
    """Freeze the first n layers."""

    embeddings: bool = False
    """Freeze the token (and position) embeddings, with the norm on them; with tied weights the head too."""

    patterns: list[str] = []
    """Freeze every parameter whose name matches one of these regular expressions."""


Kind = Literal["full", "lora", "ia3", "loha", "vera", "prompt", "prefix"]
SECTIONS = {
    "full": "freeze",
    **{kind: kind for kind in ("lora", "ia3", "loha", "vera", "prompt", "prefix")},
}
"""`tuning` -> the section with its settings."""

PROMPTED = {"prompt", "prefix"}
"""Kinds that put learned tokens before each row and leave the weights alone; they run on the padded path."""


class Tuning(Section):
    """Which weights move; every method has it."""

    tuning: Kind | None = None
    """All weights (`full`), or an adapter, which is saved by itself in PEFT's format: `lora` (also rsLoRA, DoRA, PiSSA
    and OLoRA), `ia3`, `loha`, `vera`, `prompt` or `prefix`. Null: what has settings; else full for small models,
    LoRA where full does not pay or fit."""

    lora: LoraConfig = LoraConfig()
    """Used when `tuning` is `lora`."""

    ia3: Ia3Config = Ia3Config()
    """Used when `tuning` is `ia3`."""

    loha: LohaConfig = LohaConfig()
    """Used when `tuning` is `loha`."""

    vera: VeraConfig = VeraConfig()
    """Used when `tuning` is `vera`."""

    prompt: PromptConfig = PromptConfig()
    """Used when `tuning` is `prompt`."""

    prefix: PrefixConfig = PrefixConfig()
    """Used when `tuning` is `prefix`."""

    freeze: FreezeConfig = FreezeConfig()
    """Used when `tuning` is `full`."""

    def virtual_tokens(self) -> int:
        """Learned tokens before each row; they take their part of the model's context."""
        kinds = [self.tuning] if self.tuning else self.with_settings()
        section = dict(self)[SECTIONS[kinds[0]]] if kinds else None
        return section.tokens if isinstance(section, PromptConfig | PrefixConfig) else 0

    def with_settings(self) -> list[str]:
        """The kinds of tuning whose sections differ from their defaults."""
        sections = dict(self)
        return [kind for kind, name in SECTIONS.items() if sections[name] != type(sections[name])()]

    @model_validator(mode="after")
    def _no_part_is_ignored(self) -> Self:
        said = self.with_settings()
        if len(said) > 1:
            names = " and ".join(SECTIONS[kind] for kind in said)
            raise ValueError(f"{names} both have settings, but a run tunes in one way; leave one of them out")
        if said and self.tuning not in (None, *said):
            section = SECTIONS[said[0]]
            raise ValueError(
                f"{section} has settings but tuning is {self.tuning}; write tuning: {said[0]}, "
                f"or leave {section} out"
            )
        return self


class Writes(Tuning):
    """What trains a language model: it writes text after a prompt."""


class Pooled(Tuning):
    """What reads the model's hidden states in place of generated text."""

    pooling: Literal["auto", "cls", "mean", "last"] = "auto"
    """Which hidden state stands for a text: its first token, the mean of its tokens, or its last token (causal
    models). `auto`: last for causal models; for encoders what the model's own configuration says (ModernBERT's
    `classifier_pooling`, or a sentence-transformers folder's `1_Pooling`), else cls."""
