"""An audit of rows for bias: who is in them, how labels and a model's answers differ by group, and with the words of
another group in the place of one."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import regex

from tunesmith.config.audit import Audit
from tunesmith.data.asked import optional
from tunesmith.data.formats import to_example
from tunesmith.desk.audit import AuditReport
from tunesmith.desk.bias import LEAST, MOST_LABELS, Share, gaps, rates, representation
from tunesmith.desk.conflicts import answer_of
from tunesmith.desk.dedup import said
from tunesmith.desk.held import held, kinds_of
from tunesmith.desk.rows import Row
from tunesmith.desk.spans import SpanLost
from tunesmith.desk.terms import (
    NONE,
    SEVERAL,
    Column,
    Dimension,
    Grouping,
    counterfactual,
    dimensions,
    group_of,
)
from tunesmith.errors import ConfigError, DataError, ModelError, RowError
from tunesmith.storage import made_folder, write_whole
from tunesmith.types import EventSink, Example
from tunesmith.workflow.open import load, unanswered

BATCH = 64
Answer = Callable[[Sequence[Row]], list[str]]
Groups = Mapping[str, list[str]]
"""Dimension -> group of each row."""


def audit(config: Audit, sink: EventSink) -> AuditReport:
    """Reads every row, and writes the report where `config.output` says. Raises DataError for columns that are not
    there, and ModelError for a model that does not classify."""
    found = held(config.data, sink)
    rows, unusable = _usable(found.rows)
    groupings = _groupings(config, rows)
    groups = {name: [group_of(row, one) for row in rows] for name, one in groupings.items()}
    kept = {name: said_of for name, said_of in groups.items() if set(said_of) != {NONE}}
    labels = ["\x1f".join(answer_of(row)) for row in rows] if kinds_of(rows) == {"label"} else None
    classes = labels is not None and len(set(labels)) <= MOST_LABELS
    report = AuditReport(
        meaning=found.meaning,
        rows=len(rows),
        unusable=unusable,
        representation={name: representation(one, config.confidence) for name, one in groups.items()},
        rates={name: rates(one, labels, config.confidence) for name, one in kept.items()}
        if labels and classes
        else {},
        gaps=gaps(kept, labels, config.confidence, _weights(rows)) if labels and classes else [],
        model=None if config.model is None else _by_model(config, rows, labels, kept, groupings, sink),
        toxicity=_toxicity(config, rows, groups, sink),
        folder=config.output,
    )
    if config.output is not None:
        folder = made_folder(Path(config.output))
        write_whole(folder / "audit.json", json.dumps(report.as_dict(), ensure_ascii=False, indent=2) + "\n")
        write_whole(folder / "audit.md", report.as_markdown())
    return report


def _usable(rows: Sequence[Row]) -> tuple[list[Row], Counter[str]]:
    kept: list[Row] = []
    unusable: Counter[str] = Counter()
    for row in rows:
        try:
            to_example(row.shape.meaning, row.values, row.ref)
        except RowError as error:
            unusable[error.reason] += 1
        else:
            kept.append(row)
    if not kept:
        raise DataError(
            "not one row can be used", f"found {dict(unusable)}", "tunesmith data clean drops such rows"
        )
    return kept, unusable


def _weights(rows: Sequence[Row]) -> list[float] | None:
    """What `balance` writes into rows, or somebody else; None where no row has a weight."""
    found = [optional(row.shape.meaning, row.values, "sample_weight") for row in rows]
    if all(weight in (None, "") for weight in found):
        return None
    return [1.0 if weight in (None, "") else float(weight) for weight in found]


def _groupings(config: Audit, rows: Sequence[Row]) -> dict[str, Grouping]:
    found: dict[str, Grouping] = dict(dimensions(config.lists))
    for column in config.groups:
        if not any(column in row.values for row in rows):
            known = sorted({name for row in rows for name in row.values})
            raise ConfigError(f"no row has a column '{column}' (audit.groups)", f"one of {', '.join(known)}")
        found[column] = Column(column)
    return found


# By a model ----------------------------------------------------------------------------------------------


def _by_model(
    config: Audit,
    rows: Sequence[Row],
    labels: Sequence[str] | None,
    groups: Groups,
    groupings: Mapping[str, Grouping],
    sink: EventSink,
) -> dict[str, Any]:
    assert config.model is not None
    answer = classifier(config.model)
    sink("phase", name="answers", text=f"{len(rows):,} rows")
    answers = answer(rows)
    swaps = []
    for name, one in groupings.items():
        if isinstance(one, Dimension) and name in groups:
            sink("phase", name="swaps", text=name)
            swaps += _swaps(config, rows, answers, groups[name], one, answer)
    subgroups = (
        {}
        if labels is None
        else {name: subgroup_metrics(labels, answers, one, config) for name, one in groups.items()}
    )
    return {"model": config.model, "swaps": swaps, "subgroups": subgroups}


def classifier(model: str, label: str | None = None) -> Answer:
    """What a run or model with classes says of each row. label: a class that it must have."""
    opened = load(model)
    head = opened.loaded.head
    if head is None or head.method != "classify" or head.multi_label:
        raise ModelError(
            f"{model} does not say one class of a text", "a run of method.type=classify", "name another"
        )
    if label is not None:
        opened.class_number(label)
    answerer = opened.answerer(1, BATCH)

    def answer(rows: Sequence[Row]) -> list[str]:
        asked = [_asked(row, opened.instruction) for row in rows]
        return list(answerer.answer(asked).texts) if asked else []

    return answer


def _asked(row: Row, instruction: str | None) -> Example:
    example = to_example(row.shape.meaning, row.values, row.ref, instruction)
    return unanswered(Example(row.ref, example.prompt, pair=example.pair))


def _swaps(
    config: Audit,
    rows: Sequence[Row],
    answers: Sequence[str],
    groups: Sequence[str],
    dimension: Dimension,
    answer: Answer,
) -> list[dict[str, Any]]:
    """Of each pair of groups: rows of the one with words of the other, and whether the answer is another."""
    out: list[dict[str, Any]] = []
    for source, target in itertools.permutations(dimension.groups, 2):
        members = [at for at, group in enumerate(groups) if group == source]
        if not members:
            continue
        order = np.random.default_rng((config.seed, len(out))).permutation(members)[: config.swaps].tolist()
        swapped = {at: _swapped(rows[at], dimension, source, target) for at in order}
        order = [at for at in order if swapped[at] is not None]
        changed = [row for row in swapped.values() if row is not None]
        if not changed:
            continue
        now = answer(changed)
        moved = Counter(
            f"{answers[at]} -> {said_now}"
            for at, said_now in zip(order, now, strict=True)
            if said_now != answers[at]
        )
        example = next(
            (row for at, row, n in zip(order, changed, now, strict=True) if n != answers[at]), None
        )
        out.append(
            {
                "dimension": dimension.name,
                "from": source,
                "to": target,
                "left_out": len(swapped) - len(order),
                "changed": Share.of(moved.total(), len(order), config.confidence).as_dict(),
                "most": moved.most_common(1)[0][0] if moved else None,
                "example": None
                if example is None
                else {"place": str(example.ref), "now": said(example, "prompt")},
            }
        )
    return out


def _swapped(row: Row, dimension: Dimension, source: str, target: str) -> Row | None:
    """None where half of a word is in a span, of which nobody knows where it would be."""
    try:
        return row.but(counterfactual(row, dimension, source, target))
    except SpanLost:
        return None


def subgroup_metrics(
    labels: Sequence[str], answers: Sequence[str], groups: Sequence[str], config: Audit
) -> dict[str, Any]:
    """Accuracy, and how often each class is said, of each group with enough rows (fairlearn's MetricFrame), with
    bootstrap intervals; and the largest difference between groups."""
    try:
        from fairlearn.metrics import MetricFrame, count
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"subgroup metrics are fairlearn's ({error})", "fairlearn here", "pip install 'tunesmith[audit]'"
        ) from None
    sizes = Counter(groups)
    kept = [at for at, group in enumerate(groups) if sizes[group] >= LEAST and group != SEVERAL]
    names = sorted({labels[at] for at in kept} | {answers[at] for at in kept})
    metrics: dict[str, Any] = {"accuracy": _accuracy, "count": count}
    metrics |= {f"said: {name}": _said_rate(name) for name in names}
    tail = (1 - config.confidence) / 2
    given = {
        "y_true": np.array([labels[at] for at in kept]),
        "y_pred": np.array([answers[at] for at in kept]),
        "sensitive_features": np.array([groups[at] for at in kept]),
    }
    frame = MetricFrame(metrics=metrics, **given)
    differences = frame.difference(method="between_groups")
    drawn = MetricFrame(  # of accuracy alone, which has intervals: each metric of each sample takes its time
        metrics={"accuracy": _accuracy},
        **given,
        n_boot=config.bootstrap,
        ci_quantiles=[tail, 1 - tail],
        random_state=config.seed,
    )
    low, high = drawn.by_group_ci
    apart = [float(one["accuracy"]) for one in drawn.difference_ci(method="between_groups")]
    return {
        "accuracy": float(frame.overall["accuracy"]),
        "accuracy_difference": float(differences["accuracy"]),
        "accuracy_difference_interval": apart,
        "demographic_parity_difference": {name: float(differences[f"said: {name}"]) for name in names},
        "groups": {
            str(group): {
                "rows": int(values["count"]),
                "accuracy": float(values["accuracy"]),
                "accuracy_interval": [float(low.loc[group, "accuracy"]), float(high.loc[group, "accuracy"])],
                "said": {name: float(values[f"said: {name}"]) for name in names},
            }
            for group, values in frame.by_group.iterrows()
        },
    }


def _accuracy(y_true: Any, y_pred: Any) -> float:
    return float((np.asarray(y_true) == np.asarray(y_pred)).mean())


def _said_rate(name: str) -> Callable[[Any, Any], float]:
    return lambda y_true, y_pred: float((np.asarray(y_pred) == name).mean())


# Toxicity ------------------------------------------------------------------------------------------------


def _toxicity(
    config: Audit, rows: Sequence[Row], groups: Groups, sink: EventSink
) -> dict[str, dict[str, Share]] | None:
    """Dimension -> group -> share of rows that have a word of the list, or that the classifier calls toxic."""
    if config.toxic_words is None and config.toxic_model is None:
        return None
    bad = np.zeros(len(rows), bool)
    if config.toxic_words is not None:
        pattern = _word_pattern(Path(config.toxic_words))
        bad |= [any(pattern.search(text) for text in (*said(row, "prompt"), *answer_of(row))) for row in rows]
    if config.toxic_model is not None:
        sink("phase", name="toxicity", text=config.toxic_model)
        says = classifier(config.toxic_model, config.toxic_label)
        bad |= [said_of == config.toxic_label for said_of in says(rows)]
    out: dict[str, dict[str, Share]] = {
        "all": {"rows": Share.of(int(bad.sum()), len(rows), config.confidence)}
    }
    for name, of in groups.items():
        inside = Counter(group for group, one in zip(of, bad, strict=True) if one)
        out[name] = {group: Share.of(inside[group], n, config.confidence) for group, n in Counter(of).items()}
    return out


def _word_pattern(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: not there (audit.toxic_words)", "a file of words, one a line")
    words = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not words:
        raise ConfigError(f"{path}: no words in it (audit.toxic_words)", "words, one a line")
    return regex.compile(rf"(?<!\w)(?:{'|'.join(map(regex.escape, words))})(?!\w)", regex.IGNORECASE)
