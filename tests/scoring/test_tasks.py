"""Every task of the table keeps the same promises."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from tunesmith.scoring import METRICS, PRIMARY, TASKS, Scores, Task, flips, goodness, metric, score, whole
from tunesmith.scoring.rewarded import rewarded

ROWS: dict[Task, tuple[list[str], list[str]]] = {
    "label": (["a", "b", "a"], ["A", "a", "don't know"]),
    "labels": (['["a"]', '["a", "b"]', "[]"], ['["a", "b"]', '["b", "a"]', "none"]),
    "json": (['{"k": "a"}', '{"k": "b"}', '{"k": "a"}'], ['{"k": "a"}', "no", '{"k": "a"}']),
    "text": (["a b c", "c d", "e"], ["a b", "c d", "I cannot answer"]),
    "number": (["[1, 20]", "[2, 30]", "[4, 10]"], ["[1, 21]", "[3, 30]", "about 4"]),
    "spans": (['[[0, 2, "a"]]', "[]", '[[3, 4, "b"]]'], ['[[0, 2, "a"]]', '[[0, 1, "b"]]', "none"]),
    "ranking": (["t1", "t2", "t3"], ['["t1", "t2"]', '["t1", "t2"]', "none"]),
    "judged": (
        ["[[1, 9], [0, 5]]", "[[0, 7], [1, 7], [2, 3]]", "[[3, 4], [3, 6], [1, 1]]"],
        ["[2, 1]", "[0, 1, -1]", "the first"],
    ),
    "steps": (["[1, 0, null]", "[1, 1]", "[0, 1]"], ["[0.9, 0.6, 0.1]", "[0.8, null]", "right"]),
    "rewarded": (
        ["", "4", ""],
        [rewarded(0.5, 3.0, "a b"), rewarded(-1.0, 9.5, "four"), rewarded(0.0, 1.0, "")],
    ),
}
PERFECT = {
    "judged": ["[9, -9]", "[0, 9, 18]", "[18, 18, 0]"],
    "steps": ["[1, 0, 0]", "[1, 1]", "[0, 1]"],
    "rewarded": [rewarded(1.0, 3.0, "a b"), rewarded(1.0, 9.5, "four"), rewarded(1.0, 1.0, "a")],
}
"""Of the tasks whose references are no answers."""
NEITHER = {"hamming_loss", "prefers_longer", "people_prefer_longer", "length_correlation"}


def scored(task: Task, perfect: bool = False) -> Scores:
    references, predictions = ROWS[task]
    return score(task, references, PERFECT.get(task, references) if perfect else predictions, ["a", "b"])


def test_the_table_has_every_task() -> None:
    assert set(TASKS) == set(get_args(Task)) == set(ROWS)
    assert {task: kind.compared[0] for task, kind in TASKS.items()} == PRIMARY
    before = {"label": "accuracy", "json": "json_exact", "text": "rouge_l"}
    assert {task: PRIMARY[task] for task in before} == before  # claims of old reports stand on these


@pytest.mark.parametrize("task", TASKS)
def test_every_metric_is_documented_in_range_and_what_its_rows_say(task: Task) -> None:
    scores = scored(task)
    for name, value in scores.metrics.items():
        low, high = metric(name).range
        assert low <= value <= high, name
        assert name in METRICS or name.partition(".")[0] in METRICS
    for name, rows in scores.per_row.items():
        assert rows.shape == (3,)
        assert scores.metrics[name] == pytest.approx(np.nanmean(rows))
    for name, pooled in scores.pooled.items():
        assert scores.metrics[name] == pytest.approx(whole(pooled))


@pytest.mark.parametrize("task", TASKS)
def test_what_is_compared_can_be_resampled_and_rows_can_be_judged(task: Task) -> None:
    scores, kind = scored(task), TASKS[task]
    # fields of JSON answers and targets come on top; label and json leave macro averages descriptive
    wanted = set(kind.compared) - (
        {"spearman"} if task == "judged" else set()
    )  # that is of single completions
    assert wanted <= scores.per_row.keys() | scores.pooled.keys()
    assert kind.turned in scores.per_row
    assert kind.graded in scores.per_row


@pytest.mark.parametrize("task", TASKS)
def test_perfect_answers_are_best_and_flips_go_one_way(task: Task) -> None:
    base, best = scored(task), scored(task, perfect=True)
    for name, value in best.metrics.items():
        of = metric(name)
        if name not in {"bleu"} | NEITHER:  # BLEU needs four words in a run
            better = value - base.metrics[name] if of.higher_is_better else base.metrics[name] - value
            assert better >= -1e-12, name
    assert goodness(best).tolist() == [1, 1, 1]
    fixed, broken = flips(base, best)
    assert fixed
    assert not broken
    assert flips(best, base) == ([], fixed)
