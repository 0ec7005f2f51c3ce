"""What a run with a head works out from its rows before it starts: outputs, scales, weights of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.config.judged import ScoresAnswers
from tunesmith.config.methods import (
    TAKES,
    ClassifyConfig,
    EmbedConfig,
    HeadMethod,
    RegressConfig,
    SftConfig,
)
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.run import Run
from tunesmith.config.tuning import Writes
from tunesmith.core import gate
from tunesmith.data.columns import JUDGED
from tunesmith.data.embed_rows import TextsEncoder
from tunesmith.data.encode import HeadEncoder, Kind, balanced_weights, outputs_of, scale_of
from tunesmith.data.pair_rows import CompletionsEncoder
from tunesmith.data.pairs import PairEncoder
from tunesmith.data.render import Renderer
from tunesmith.errors import ConfigError
from tunesmith.models.heads import HeadSpec
from tunesmith.scoring import Task
from tunesmith.types import Example
from tunesmith.workflow import judged, own

TASKS: dict[Kind, Task] = {
    "classify": "label",
    "classify_many": "labels",
    "regress": "number",
    "tag": "spans",
    "embed": "ranking",
}
"""Kind of head -> how its answers are scored."""


AnyEncoder = Renderer | HeadEncoder | PairEncoder
"""How rows become tokens: conversations under a template, texts for a head, questions and answers of an encoder-decoder
model."""


def check_pairs(run: Run) -> None:
    """Raises ConfigError for settings that mean nothing to an encoder-decoder model."""
    if isinstance(run.method, SftConfig) and run.method.supervise == "all":
        raise ConfigError(
            "method.supervise=all with an encoder-decoder model, whose question has no next-token loss",
            "completion or assistant",
            "leave it out",
        )
    if run.model.template != "auto":
        raise ConfigError(
            f"model.template={run.model.template} with an encoder-decoder model",
            "no template",
            "leave it out",
        )


def kind_of(method: HeadMethod) -> Kind:
    return "classify_many" if isinstance(method, ClassifyConfig) and method.multi_label else method.type


def encoder_of(spec: HeadSpec, tokenizer: Any) -> HeadEncoder:
    if spec.method == "embed":
        return TextsEncoder(tokenizer)
    if spec.method == "reward":
        return CompletionsEncoder(tokenizer)
    return HeadEncoder.of(spec.method, spec.multi_label, tokenizer, spec.labels, spec.scale)


FORMATS: dict[Kind, str] = {
    "classify": "label",
    "classify_many": "labels",
    "regress": "number",
    "tag": "tags",
    "embed": "pairs",
}
"""Kind of head -> the rows that it is trained on."""


def with_format(run: Run) -> Run:
    """`data.format=auto` becomes the rows that the method needs; any other than these, and what only prompts have, is
    refused."""
    if judged.is_judged(run.method):
        return judged.with_format(run)
    if isinstance(run.method, PolicyConfig):
        return own.with_format(run)
    if isinstance(run.method, Writes):
        if run.data.format in (*JUDGED, "judged"):
            able = " or ".join(
                f"method.type={name}" for name, kinds in TAKES.items() if run.data.format in kinds
            )
            raise ConfigError(
                f"data.format={run.data.format} with method.type={run.method.type}",
                "rows with one answer to learn",
                f"write {able}, or name the column of the answer (data.columns.completion)",
            )
        return run
    if run.model.template != "auto":
        raise ConfigError(
            f"model.template={run.model.template} with method.type={run.method.type}",
            "no template: a head reads texts as they are",
            "leave it out",
        )
    assert not isinstance(run.method, ScoresAnswers)
    wanted = FORMATS[kind_of(run.method)]
    if isinstance(run.method, EmbedConfig) and run.data.format == "label":
        return run  # texts of one class belong together
    if run.data.format not in ("auto", wanted):
        raise ConfigError(
            f"data.format={run.data.format} with method.type={run.method.type}",
            f"{wanted} rows",
            f"leave data.format out, or write data.format={wanted}",
        )
    out = run.model_copy(deep=True)
    out.data.format = wanted  # type: ignore[assignment]
    return out


def with_outputs(run: Run, train: Sequence[Example]) -> tuple[Run, dict[str, str]]:
    """The recipe with the head's outputs, scales and class weights filled in, and why they are what they are."""
    run = run.model_copy(deep=True)
    method = run.method
    reasons: dict[str, str] = {}
    assert not isinstance(method, Writes | ScoresAnswers)
    if isinstance(method, EmbedConfig):
        _check_negatives(method, train)
        return run, reasons
    if method.labels is None:
        method.labels = outputs_of(kind_of(method), train, run.data.targets)
        reasons["method.labels"] = f"of {len(train):,} training rows"
    elif not isinstance(method, RegressConfig):
        _check_labels(method.labels, outputs_of(kind_of(method), train, run.data.targets))
    if isinstance(method, ClassifyConfig) and isinstance(method.class_weights, dict):
        _check_weights(method.class_weights, method.labels)
    if isinstance(method, ClassifyConfig) and method.class_weights == "balanced":
        method.class_weights = balanced_weights(train, method.labels)
        reasons["method.class_weights"] = "balanced: rows / (classes x rows of the class)"
    if isinstance(method, RegressConfig) and method.scale is None:
        method.scale = scale_of(train, len(method.labels))
        reasons["method.scale"] = "mean and standard deviation of the training rows"
    return run, reasons


def _check_negatives(method: EmbedConfig, train: Sequence[Example]) -> None:
    """Raises ConfigError where a row has nothing that its positive is held against."""
    bare = next((e for e in train if not e.negatives), None)
    if method.candidates == "own" and bare is not None:
        raise ConfigError(
            f"method.candidates=own, but {bare.ref} has no negative",
            "rows with a column of negatives",
            "leave method.candidates out, or add negatives (data.columns.negatives)",
        )


def _check_weights(weights: Mapping[str, float], labels: Sequence[str]) -> None:
    """Raises ConfigError where a weight is for a class that there is none of."""
    unknown = sorted(set(weights) - set(labels))
    if unknown:
        raise ConfigError(
            f"method.class_weights names '{unknown[0]}', of which there is no training row",
            f"the classes of the training rows, such as '{labels[0]}'",
            "correct the name",
        )


def _check_labels(labels: Sequence[str], found: Sequence[str]) -> None:
    """Raises ConfigError where a training row says what no output of the head stands for."""
    unknown = sorted(set(found) - set(labels))
    if unknown:
        raise ConfigError(
            f"{len(unknown)} classes of the training rows are not among method.labels, such as '{unknown[0]}'",
            f"one of the {len(labels)} labels",
            "name them all, or leave method.labels out",
        )


def context_of(config: Any, tokenizer: Any, virtual_tokens: int = 0) -> int:
    """Most tokens of a row: what the model takes, less the learned tokens that stand before each row."""
    whole = _context_of(config, tokenizer)
    if virtual_tokens >= whole:
        raise ConfigError(
            f"{virtual_tokens} learned tokens before each row, and the model's context is {whole}",
            "room for the rows",
            "lower method.prompt.tokens or method.prefix.tokens",
        )
    return whole - virtual_tokens


def _context_of(config: Any, tokenizer: Any) -> int:
    """The positions that the model has (some families leave out the first, up to the padding id), and what its
    tokenizer says if that is less."""
    if config.is_encoder_decoder:
        known = config.to_dict().get("max_position_embeddings") or config.to_dict().get("n_positions")
        return min(int(known or tokenizer.model_max_length), int(tokenizer.model_max_length))
    positions = int(config.get_text_config().max_position_embeddings)
    if gate.is_encoder(config):
        if gate.gate(config).from_padding:
            positions -= int(config.pad_token_id) + 1
        return min(positions, int(tokenizer.model_max_length))
    return positions
