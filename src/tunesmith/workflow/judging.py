"""The proof on judged rows: does a model prefer what people preferred, before and after?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.config.judged import Judged, ScoresAnswers
from tunesmith.config.methods import Method
from tunesmith.core.model import Model
from tunesmith.evaluate.judge import Judge, PolicyJudge, RewardJudge, score_judge
from tunesmith.evaluate.judged import linear_reward
from tunesmith.models.heads import spec_of
from tunesmith.objectives.completions import SCORES, Comparing, Scoring
from tunesmith.scoring.steps import RIGHT
from tunesmith.train.build import make_objective
from tunesmith.types import Example, TokenRow
from tunesmith.workflow.judged import task_of
from tunesmith.workflow.prove import Proof

LIKELIHOOD = "prefers the answer of higher mean log-probability a token"
GAINED = "prefers the answer that gained more on the model as it started: its reward in training"
REWARDED = "the reward model's own rewards"
STEPS = "how likely the model finds each step right; from one half on it says right"
STEP_PROBE = (
    "scikit-learn: logistic regression on the untuned model's features at the end of each step, everything at its "
    "default but max_iter=1000"
)
PROBE = (
    "scikit-learn: a linear reward on the untuned model's features (logistic regression of pairs' differences; of "
    "single answers logistic regression of two different scores, ridge regression of more), everything else at its "
    "default"
)


def judge_of(method: Method, model: Model, rows: Sequence[TokenRow], by: str = "likelihood") -> Judge:
    """For examples whose token rows are among `rows`."""
    by_ref = {row.ref: row for row in rows}

    def rows_of(examples: Sequence[Example]) -> list[TokenRow]:
        return [by_ref[example.ref] for example in examples]

    objective = make_objective(method)
    if isinstance(method, ScoresAnswers):
        spec = spec_of(method)
        assert spec is not None
        assert isinstance(objective, Scoring)
        return score_judge(model, rows_of, spec, objective)
    assert isinstance(method, Judged)
    assert isinstance(objective, Comparing)
    return PolicyJudge(model, rows_of, objective, method, by)


def measure(proof: Proof, method: Method, model: Model, name: str) -> None:
    """What one model says of the test rows."""
    if isinstance(method, ScoresAnswers):
        note = STEPS if task_of(method) == "steps" else REWARDED
        proof.measure(name, note, judge_of(method, model, proof.rows), losses=False)
        return
    proof.measure(name, LIKELIHOOD, judge_of(method, model, proof.rows), losses=False)
    if name == "tuned" and isinstance(method, Judged) and method.reference == "start":
        proof.measure(
            "tuned (by reward)", GAINED, judge_of(method, model, proof.rows, "reward"), losses=False
        )


def probe(proof: Proof, method: Method, base: Model, train: Sequence[TokenRow]) -> None:
    """A linear reward on what the base's features already hold, or a linear guess whether a step is right."""
    with proof.timed("answers of base"):
        judge = judge_of(method, base, [*train, *proof.rows])
        assert isinstance(judge, RewardJudge)
        features = judge.features(train)
        steps = task_of(method) == "steps"
        scores = [row.given[SCORES] for row in train]
        say = _likely(features, scores) if steps else linear_reward(np.concatenate(features), scores)
        rows = judge.rows_of(proof.examples)
        found = judge.written(rows, [say(one) for one in judge.features(rows)])
        proof.systems.append(proof.found("base", STEP_PROBE if steps else PROBE, found))


Says = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""(K, H) features of a row's answers or steps -> (K,)."""


def _likely(features: Sequence[NDArray[np.float64]], scores: Sequence[NDArray[np.floating[Any]]]) -> Says:
    """The probability that a step is right; of training steps that are all alike, their share of right ones."""
    from sklearn.linear_model import LogisticRegression

    labels = np.concatenate(scores)
    known = np.isfinite(labels)
    right = labels[known] >= RIGHT
    if right.all() or not right.any():
        return lambda found: np.full(len(found), right.mean())
    model = LogisticRegression(max_iter=1000).fit(np.concatenate(features)[known], right)
    return lambda found: np.asarray(model.predict_proba(found)[:, 1])
