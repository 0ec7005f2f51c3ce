"""What a run on judged rows works out before it starts: which rows its method takes, and what a reward is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import numpy as np
from scipy.special import logit

from tunesmith.config.judged import COMPARING, Judged, PreferenceConfig, RewardConfig, ScoresAnswers
from tunesmith.config.methods import TAKES, Method
from tunesmith.config.run import Run
from tunesmith.config.tuning import Writes
from tunesmith.core import gate
from tunesmith.data.columns import Mapping
from tunesmith.data.joined import joined
from tunesmith.data.load import Splits
from tunesmith.errors import ConfigError, DataError
from tunesmith.scoring import Task
from tunesmith.types import Example

SINGLE = ("rating", "unpaired")
SPLITS = ("train", "validation", "test")


def is_judged(method: Method) -> bool:
    return isinstance(method, Judged | ScoresAnswers)


def task_of(method: Method) -> Task:
    """How what it says of answers is scored."""
    return "steps" if isinstance(method, ScoresAnswers) and method.of_steps() is not None else "judged"


def renders(method: Method, config: Any) -> bool:
    """Rows of this method go to this model under a template."""
    return isinstance(method, Writes) or (isinstance(method, ScoresAnswers) and not gate.is_encoder(config))


def with_format(run: Run) -> Run:
    """`data.format=auto` becomes any rows that people judged; other rows than the method takes are refused."""
    assert isinstance(run.method, Judged | ScoresAnswers)
    takes = run.method.takes
    if run.data.format not in ("auto", "judged", *takes):
        raise ConfigError(
            f"data.format={run.data.format} with method.type={run.method.type}",
            f"rows of {', '.join(takes)}",
            "leave data.format out, or choose another method",
        )
    out = run.model_copy(deep=True)
    if out.data.format == "auto":
        out.data.format = "judged"
    return out


def methods_for(kind: str) -> str:
    """The methods that learn from such rows, as a recipe names them."""
    return " or ".join(f"method.type={name}" for name, kinds in TAKES.items() if kind in (*kinds, "judged"))


def as_the_method_takes(run: Run, splits: Splits) -> Splits:
    """Rows of single judged answers joined by their prompts, where the method compares answers. Raises ConfigError for
    rows that the method cannot learn from."""
    method, kind = run.method, splits.mapping.kind
    assert isinstance(method, Judged | ScoresAnswers)
    if kind not in method.takes:
        raise ConfigError(
            f"{kind} rows with method.type={method.type}",
            f"rows of {', '.join(method.takes)}",
            f"write {methods_for(kind)}",
        )
    if kind in SINGLE and method.compares:
        made = {name: joined(vars(splits)[name], splits.account) for name in SPLITS}
        splits.account.flush()
        splits = replace(splits, train=made["train"], validation=made["validation"], test=made["test"])
        if not splits.train:
            raise DataError(
                f"no prompt has two {kind}s that differ",
                "several judged answers to a prompt",
                "write method.loss=regression to learn from each answer by itself"
                if isinstance(method, RewardConfig)
                else "train a reward model (method.type=reward)",
            )
    elif kind in SINGLE:
        for name in SPLITS:
            _not_all_alike(name, kind, vars(splits)[name])
    return splits


def _not_all_alike(split: str, kind: str, examples: Sequence[Example]) -> None:
    """Raises DataError where nothing could be learned, or the metrics of the split not be told."""
    first = next((e.completions[0].score for e in examples), 0.0)
    if examples and all(e.completions[0].score == first for e in examples):
        what = "verdict" if kind == "unpaired" else "rating"
        raise DataError(
            f"all {len(examples)} {split} rows have the same {what}",
            f"{what}s that differ",
            "give rows of the other kind"
            if split == "train"
            else f"give more rows, or name a file in data.{split}",
        )


def margin_note(method: Method, mapping: Mapping) -> str:
    """What becomes of the margins of the rows; empty where they have none."""
    said = dict(method)
    scale = said.get("margin_scale")
    if not mapping.margin:
        return ""
    using = PreferenceConfig.WITH_MARGIN if isinstance(method, PreferenceConfig) else {"bradley_terry"}
    if scale is None or said["loss"] not in using:
        return f"margins ({mapping.margin}): method.type={method.type} with loss {said['loss']} does not use them"
    if scale == 0:
        return f"margins ({mapping.margin}): not used; method.margin_scale, in units of beta x nats, would"
    return (
        f"margins ({mapping.margin}): the chosen answer's reward is asked to be larger by {scale:g} x the row's; "
        "method.margin_scale=0 leaves them out"
    )


def with_rewards(run: Run, kind: str, train: Sequence[Example]) -> tuple[Run, dict[str, str]]:
    """A reward model's loss, scale and thresholds filled in, and why. Raises ConfigError where loss and rows do not go
    together."""
    method, reasons = run.method, dict[str, str]()
    if not isinstance(method, RewardConfig):
        return run, reasons
    out = method.model_copy()
    single = kind in SINGLE and out.loss not in COMPARING
    if out.loss is None:
        loss: Literal["regression", "bradley_terry"] = "regression" if single else "bradley_terry"
        if name := out.idle(loss):
            raise ConfigError(
                f"method.{name} on {kind} rows, of which a reward model learns by {loss}",
                "a loss that uses it",
                f"leave method.{name} out, or write method.loss",
            )
        out.loss, reasons["method.loss"] = loss, f"of {kind} rows"
    if not single and out.loss not in COMPARING:
        raise ConfigError(
            f"method.loss={out.loss} on {kind} rows, which compare answers",
            "bradley_terry or plackett_luce",
            "leave method.loss out",
        )
    scores = np.array([c.score for c in chain.from_iterable(e.completions for e in train)])
    because = "of the training ratings"
    if out.loss == "regression" and out.scale is None:
        out.scale, reasons["method.scale"] = (float(scores.mean()), float(scores.std())), because
    if out.loss == "ordinal":
        levels = np.unique(scores)
        if out.levels is None:
            out.levels, reasons["method.levels"] = levels.tolist(), because
        elif missing := sorted(set(levels.tolist()) - set(out.levels)):
            raise ConfigError(f"a training row is rated {missing[0]:g}", f"one of method.levels {out.levels}")
        if out.thresholds is None:
            shares = [
                (np.count_nonzero(scores <= level) + 0.5) / (len(scores) + 1) for level in out.levels[:-1]
            ]
            out.thresholds, reasons["method.thresholds"] = logit(shares).tolist(), because
    return run.model_copy(update={"method": out}), reasons


def no_encoder_decoder(run: Run) -> ConfigError:
    return ConfigError(
        f"method.type={run.method.type} with an encoder-decoder model",
        "a decoder, or for a model that scores answers an encoder",
        "choose another model.base",
    )
