"""The proof on judged rows: does a model prefer what people preferred, before and after?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith.config.judged import Judged, RewardConfig
from tunesmith.config.methods import Method
from tunesmith.core.model import Model
from tunesmith.evaluate.judge import Judge, PolicyJudge, RewardJudge, as_json
from tunesmith.evaluate.judged import linear_reward
from tunesmith.objectives.completions import SCORES, Comparing
from tunesmith.objectives.reward import Reward
from tunesmith.train.build import make_objective
from tunesmith.types import Example, TokenRow
from tunesmith.workflow.prove import Proof

LIKELIHOOD = "prefers the answer of higher mean log-probability a token"
GAINED = "prefers the answer that gained more on the model as it started: its reward in training"
REWARDED = "the reward model's own rewards"
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
    if isinstance(method, RewardConfig):
        assert isinstance(objective, Reward)
        return RewardJudge(model, rows_of, objective, method.scale or (0.0, 1.0))
    assert isinstance(method, Judged)
    assert isinstance(objective, Comparing)
    return PolicyJudge(model, rows_of, objective, method, by)


def measure(proof: Proof, method: Method, model: Model, name: str) -> None:
    """What one model says of the test rows."""
    if isinstance(method, RewardConfig):
        proof.measure(name, REWARDED, judge_of(method, model, proof.rows), losses=False)
        return
    proof.measure(name, LIKELIHOOD, judge_of(method, model, proof.rows), losses=False)
    if name == "tuned" and isinstance(method, Judged) and method.reference == "start":
        proof.measure(
            "tuned (by reward)", GAINED, judge_of(method, model, proof.rows, "reward"), losses=False
        )


def probe(proof: Proof, method: RewardConfig, base: Model, train: Sequence[TokenRow]) -> None:
    """A linear reward on what the base's features already hold."""
    with proof.timed("answers of base"):
        judge = judge_of(method, base, [*train, *proof.rows])
        assert isinstance(judge, RewardJudge)
        reward = linear_reward(np.concatenate(judge.features(train)), [row.given[SCORES] for row in train])
        rows = judge.rows_of(proof.examples)
        said = [reward(features) for features in judge.features(rows)]
        proof.systems.append(proof.found("base", PROBE, as_json(rows, said)))
