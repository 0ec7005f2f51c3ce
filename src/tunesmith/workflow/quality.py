"""How good each row is: doubtful labels, unlikely answers, rows that contradict one another; the worst first."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.config.desk import DeskData
from tunesmith.config.quality import Quality
from tunesmith.data.account import Account
from tunesmith.data.folders import absolute
from tunesmith.data.formats import to_example
from tunesmith.data.pairs import PairEncoder, encode_pairs
from tunesmith.data.render import Renderer, Supervise
from tunesmith.data.tokens import tokenise
from tunesmith.desk.conflicts import Alike, alike
from tunesmith.desk.held import Held, content_key, held, kinds_of
from tunesmith.desk.probe import Judged, judged
from tunesmith.desk.quality import QUALITY, SUMMARY, TABLE, QualityReport
from tunesmith.desk.rows import SPLITS, Row
from tunesmith.embedded import base_model_path
from tunesmith.errors import ConfigError, DataError, ModelError, RowError
from tunesmith.evaluate.answers import Answerer
from tunesmith.evaluate.report import Losses
from tunesmith.storage import made_folder, write_whole
from tunesmith.types import EventSink, Example, TokenRow
from tunesmith.workflow.features import words
from tunesmith.workflow.open import load
from tunesmith.workflow.states import states_of

FAR = 3.0
"""Interquartile ranges above the third quartile from which on a loss is a high one (Tukey's outer fence)."""


@dataclass(frozen=True)
class Usable:
    """Rows that can be learned from, and how many could not, by reason."""

    rows: list[Row]
    examples: list[Example]
    unusable: Counter[str]


def quality(config: Quality, sink: EventSink) -> QualityReport:
    """Reads and scores every row, and writes the table where `config.output` says. Raises DataError for rows that have
    neither one class nor an answer."""
    found = held(config.data, sink)
    kinds = kinds_of(found.rows)
    _refuse_unread(config, kinds)
    usable = _usable(found.rows)
    sink("phase", name="contradictions", text=f"{len(usable.rows):,} rows")
    together = alike(usable.rows, config.near)
    if kinds == {"label"}:
        records, how = _by_probe(config, usable, together, sink)
    elif kinds <= {"prompt", "messages"} or kinds == {"text"}:
        records, how = _by_loss(config, usable, sink)
    else:
        raise DataError(
            f"{' and '.join(sorted(kinds))} rows have no scores of quality here",
            "label rows, or prompt, messages and text rows",
            "score files of one kind at a time; set data.format where the kind was guessed wrongly",
        )
    _add_conflicts(records, usable.rows, together)
    return _written(config, found, usable, records, how)


def _refuse_unread(config: Quality, kinds: set[str]) -> None:
    """Raises ConfigError for a model that such rows are not scored by."""
    if kinds == {"label"} and config.model is not None:
        raise ConfigError(
            f"model={config.model}, and rows with a class, which a probe judges",
            "a model by whose loss answers are scored",
            "leave it out; --encoder names a model whose states the probe reads",
        )
    if "label" not in kinds and config.encoder is not None:
        raise ConfigError(
            f"encoder={config.encoder}, and no rows with a class",
            "a model whose states a probe of classes reads",
            "leave it out; --model names the model by whose loss answers are scored",
        )


def _usable(rows: Sequence[Row]) -> Usable:
    kept: list[Row] = []
    examples: list[Example] = []
    unusable: Counter[str] = Counter()
    for row in rows:
        try:
            examples.append(to_example(row.shape.meaning, row.values, row.ref))
        except RowError as error:
            unusable[error.reason] += 1
        else:
            kept.append(row)
    if not kept:
        raise DataError(
            "not one row can be used", f"found {dict(unusable)}", "tunesmith data clean drops such rows"
        )
    return Usable(kept, examples, unusable)


# By a probe of labels ------------------------------------------------------------------------------------


def _by_probe(
    config: Quality, usable: Usable, together: Alike, sink: EventSink
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A record of each row, the worst first, and how they were found."""
    given = [example.answer for example in usable.examples]
    sides: dict[str, set[int]] = {label: set() for label in given}
    for label, group in zip(given, together.groups.tolist(), strict=True):
        sides[label].add(group)
    labels = sorted(label for label, groups in sides.items() if len(groups) > 1)
    chosen = [at for at, label in enumerate(given) if len(sides[label]) > 1]
    if len(labels) < 2:
        raise DataError(
            f"{len(sides)} classes, of which {len(labels)} have two rows that are not alike",
            "at least two such classes",
            "check data.columns.label",
        )
    examples = [usable.examples[at] for at in chosen]
    sink("phase", name="features", text=config.encoder or "TF-IDF")
    x = words(examples, config.seed) if config.encoder is None else states_of(config.encoder)(examples)
    sink("phase", name="probe", text=f"{config.folds} folds x {config.repeats}")
    y = np.array([labels.index(given[at]) for at in chosen], np.int64)
    options = {"folds": config.folds, "repeats": config.repeats, "strength": config.strength}
    found = judged(x, y, together.groups[chosen], seed=config.seed, **options)  # type: ignore[arg-type]
    records = [
        {**_where(usable.rows[at]), "label": given[at], **_said(found, place, labels)}
        for place, at in ((int(place), chosen[place]) for place in found.worst_first)
    ]
    rare = sorted(set(range(len(given))) - set(chosen))
    records += [
        {**_where(usable.rows[at]), "label": given[at], "suggested": None, "reasons": ["rare_class"]}
        for at in rare
    ]
    right = float((found.suggested == y).mean())
    features = "TF-IDF of words and pairs of words" if config.encoder is None else config.encoder
    return records, {
        "by": "probe",
        "features": features,
        "classes": len(labels),
        "accuracy": right,
        **options,
    }


def _said(found: Judged, at: int, labels: Sequence[str]) -> dict[str, Any]:
    suggested = labels[int(found.suggested[at])]
    reasons = ["label_error"] if found.doubtful[at] else []
    if not reasons and found.margin[at] < 0:
        reasons = ["misread"]
    return {
        "suggested": suggested,
        "confidence": round(float(found.confidence[at]), 6),
        "loss": round(float(found.loss[at]), 4),
        "margin": round(float(found.margin[at]), 6),
        "difficulty": round(float(found.difficulty[at]), 6),
        "reasons": reasons,
    }


# By a model's loss on answers ----------------------------------------------------------------------------


def _by_loss(config: Quality, usable: Usable, sink: EventSink) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    model = config.model or str(base_model_path())
    sink("phase", name="losses", text=model)
    losses, notes = _losses(model, usable.examples)
    scored = losses.tokens > 0
    per_token = np.where(scored, losses.nll / np.maximum(losses.tokens, 1), -np.inf)
    quartiles = np.quantile(per_token[scored], [0.25, 0.75])
    fence = float(quartiles[1] + FAR * (quartiles[1] - quartiles[0]))
    records = []
    for at in np.argsort(-per_token, kind="stable").tolist():
        loss = round(float(per_token[at]), 4) if scored[at] else None
        reasons = ["unscored"] if loss is None else ["high_loss"] if per_token[at] > fence else []
        records.append(
            {**_where(usable.rows[at]), "loss": loss, "tokens": int(losses.tokens[at]), "reasons": reasons}
        )
    mean = float(losses.nll.sum() / losses.tokens.sum())
    return records, {"by": "loss", "model": model, "mean_loss": mean, "fence": fence, "notes": notes}


def _losses(model: str, examples: Sequence[Example]) -> tuple[Losses, dict[str, int]]:
    """Nats of each example's answer (of plain text, of all of it) and its tokens; and what was cut."""
    opened = load(model)
    answerer = opened.answerer(1, 1)
    if not isinstance(answerer, Answerer):
        raise ModelError(
            f"{model} has a head and writes no answers", "a model that writes (quality.model)", "name another"
        )
    account = Account()
    for example in examples:
        account.read(example.ref.file)
        account.use(example.ref.file)
    rows: Sequence[TokenRow]
    if isinstance(opened.renderer, PairEncoder):
        rows = encode_pairs(examples, opened.renderer, opened.context, "cut", account)
    else:
        assert isinstance(opened.renderer, Renderer)
        supervise: Supervise = "all" if examples[0].text is not None else "assistant"
        rows = tokenise(examples, opened.renderer, supervise, opened.context, "cut", account)
    index = {example.ref: at for at, example in enumerate(examples)}
    nll, tokens = np.zeros(len(examples)), np.zeros(len(examples), np.int64)
    found = answerer.losses(rows)
    for row, row_nll, row_tokens in zip(rows, found.nll, found.tokens, strict=True):
        nll[index[row.ref]] += row_nll
        tokens[index[row.ref]] += row_tokens
    return Losses(nll, tokens), dict(account.notes)


# What is written -----------------------------------------------------------------------------------------


def _where(row: Row) -> dict[str, Any]:
    return {"row": row.number, "place": str(row.ref), "split": row.split, "key": content_key(row.values)}


def _add_conflicts(records: Sequence[dict[str, Any]], rows: Sequence[Row], together: Alike) -> None:
    at_of = {row.number: at for at, row in enumerate(rows)}
    for record in records:
        others = together.conflicts.get(at_of[record["row"]], {})
        record["conflicts"] = [
            {"place": str(rows[at].ref), "alike": round(share, 3)} for at, share in others.items()
        ]
        if others:
            record["reasons"].append("conflict" if 1.0 in others.values() else "near_conflict")


def _absolute(data: DeskData) -> dict[str, list[str]]:
    """The files by names that hold from any folder."""
    return {split: [absolute(entry) for entry in data.files(split)] for split in SPLITS}


def _written(
    config: Quality, found: Held, usable: Usable, records: list[dict[str, Any]], how: dict[str, Any]
) -> QualityReport:
    target = None
    if config.output is not None:
        target = Path(config.output)
    elif found.version is not None:
        target = found.version.folder.parents[1] / QUALITY / found.version.folder.name
    report = QualityReport(
        files=[{"file": one.file, "split": one.split, "sha256": one.sha256} for one in found.files],
        meaning=found.meaning,
        data={**config.data.model_dump(exclude_defaults=True), **_absolute(config.data)},
        how=how,
        counts={"rows": len(found.rows), "refused": found.refused, "unusable": dict(usable.unusable)},
        records=records,
        rows={row.number: row for row in usable.rows},
        folder=None if target is None else str(target),
    )
    if target is not None:
        made_folder(target)
        write_whole(target / TABLE, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records))
        write_whole(target / SUMMARY, json.dumps(report.as_dict(), ensure_ascii=False, indent=2) + "\n")
    return report
