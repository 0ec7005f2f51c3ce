"""The proof of rows that people judged: references, baselines, and what the report is given, curves too."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from sklearn.metrics import roc_auc_score

from tunesmith.config.run import Run
from tunesmith.evaluate.report_model import DataAccount, Lineage, Report
from tunesmith.scoring import PRIMARY
from tunesmith.train.build import Built
from tunesmith.train.folder import RunFolder
from tunesmith.types import Completion, Example, Message, RowRef, silent
from tunesmith.workflow.finish import _add_curves
from tunesmith.workflow.prepare import Prepared
from tunesmith.workflow.prove import ORDER, Found, Proof


def judged(line: int, *completions: tuple[str, float]) -> Example:
    found = tuple(Completion(Message("assistant", text), score) for text, score in completions)
    best = max(found, key=lambda c: c.score).message
    return Example(RowRef("rows.jsonl", line), (Message("user", f"why {line}?"), best), completions=found)


def empty_report() -> Report:
    return Report(
        name="r",
        created="2026-01-02T03:04:05+00:00",
        task="judged",
        primary=PRIMARY["judged"],
        model=Lineage(base="b", kind="lora"),
        data=DataAccount(read=1, used=1),
    )


def filled(rows: list[Example], base: list[str], tuned: list[str]) -> Report:
    run = Run.model_validate({"evaluate": {"bootstrap": 100}})
    proof = Proof(run, "judged", (), rows, [], silent)
    for name, said in (("base", base), ("tuned", tuned)):
        proof.systems.append(Found(name, "", said, proof.score(said)))
    proof.baselines(rows)
    report = empty_report()
    proof.fill_ordered(report)
    return report


def test_pairs() -> None:
    rows = [judged(i, (f"thanks {i}", 1), (f"no, not at all {i}", 0)) for i in range(8)]
    report = filled(rows, ["[0, 1]"] * 7 + ["?"], ["[0, -1]"] * 8)
    found = {s.name: s.metrics["pair_accuracy"].value for s in report.systems}
    assert found == {"base": 0, "longer answer": 0, "shorter answer": 1, "bag of words": 1, "tuned": 1}
    assert list(found) == [name for name in ORDER if name in found]
    assert [j.system for j in report.judgements] == ["base", "tuned"]
    assert [c.system for c in report.calibrations] == ["base", "tuned"]
    assert report.flips is not None
    assert report.flips.fixed == 8
    last = report.flips.fixed_examples[-1]
    assert [(c.text, c.people, c.base, c.tuned) for c in last.completions] == [
        ("thanks 7", 1, None, 0),
        ("no, not at all 7", 0, None, -1),
    ]
    assert {c.base for c in report.comparisons} == found.keys() - {"tuned"}


def test_verdicts_on_single_answers() -> None:
    rows = [judged(i, (("thanks" if i % 2 else "no, not at all") + f" {i}", i % 2)) for i in range(12)]
    said = [json.dumps([i % 2 - i % 3]) for i in range(12)]
    report = filled(rows, said, [json.dumps([i % 2]) for i in range(12)])
    found = {s.name: s.metrics["pair_accuracy"].value for s in report.systems}
    assert found["tuned"] == found["bag of words"] == found["shorter answer"] == 1
    assert found["longer answer"] == 0
    assert found["base"] == pytest.approx(
        roc_auc_score([i % 2 for i in range(12)], [i % 2 - i % 3 for i in range(12)])
    )
    assert report.calibrations == []
    assert {c.metric for c in report.comparisons} == {"pair_accuracy", "spearman"}


def test_what_steps_measured_reaches_the_report_with_its_warning(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in range(1, 21):
        measured = {"chosen_logp": -40.0 - step, "rejected_logp": -40.0 - 3 * step, "accuracy": 0.5}
        if step == 20:
            del measured["accuracy"]  # a step without a pair
        folder.emit("step", step=step, loss=0.7, learning_rate=1e-5, grad_norm=1.0, metrics=measured)
    progress = SimpleNamespace(step=20, best_step=None, stopped="")
    state = SimpleNamespace(progress=progress, source=None)
    report = empty_report()
    run = Run.model_validate({"method": {"type": "preference"}})
    prepared = cast(Prepared, SimpleNamespace(run=run))
    _add_curves(report, folder, prepared, cast(Built, SimpleNamespace(state=state)))
    assert report.curves.loss == "Loss (sigmoid)"
    found = report.curves.train_metrics
    assert list(found) == ["chosen_logp", "rejected_logp", "accuracy"]
    assert found["rejected_logp"][4] == (5, -55.0)
    assert len(found["accuracy"]) == 19
    assert report.curves.warnings[0].startswith("Chosen answers became less likely than they were")
