"""docs/policies.md says what the algorithms' defaults are."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest
import yaml

from tunesmith.config.policy import KlConfig, PolicyConfig
from tunesmith.config.run import Run

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
HEAD = "| algorithm | advantage | averaged over | ratio, clipped | KL divergence | else |\n|---|---|---|---|---|---|\n"
ROWS = {
    cells[0].strip("`"): cells[1:]
    for cells in (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.partition(HEAD)[2].partition("\n\n")[0].splitlines()
    )
}
ALGORITHMS = typing.get_args(PolicyConfig.model_fields["algorithm"].annotation)


def resolved(algorithm: str) -> tuple[PolicyConfig, KlConfig]:
    method = PolicyConfig.model_validate({"algorithm": algorithm, "rewards": [{"kind": "length"}]})
    chosen = {name: value for name, (value, _) in method.choices().items()}
    kl = {name: value for name, (value, _) in method.kl_choices().items()}
    return method.model_copy(update=chosen), method.kl.model_copy(update=kl)


def test_every_algorithm_has_a_row() -> None:
    assert sorted(ROWS) == sorted(ALGORITHMS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_row_says_the_defaults(algorithm: str) -> None:
    method, kl = resolved(algorithm)
    advantage, average, ratio, divergence, other = ROWS[algorithm]
    if algorithm in PolicyConfig.GRADIENT:
        assert f"(`{method.average}`)" in average
        unit = "answer" if algorithm == "gspo" else "token"
        assert ratio == f"{unit}, {method.clip:g} and {method.clip_high:g}"
        assert f"{kl.weight}" in divergence
        assert kl.where in divergence.replace("reward, k", "reward k").replace(",", "").split()
        assert divergence.rstrip(")").endswith(str(kl.estimator))
        assert ("deviation" in advantage) == (method.scale == "group")
        assert ("scaled together" in advantage) == (method.scale == "batch")
    else:
        assert ratio == ""
    assert ("masked" in other) == (method.truncated == "mask")
    assert ("dynamic sampling" in other) == bool(method.dynamic_sampling)
    assert ("passes" in other) == (method.passes != 1)
    assert ("beta" in divergence + other) == (method.beta is not None)
    if method.beta is not None:
        assert f"beta {method.beta}" in divergence + other
    if "one answer a prompt is enough" in other:
        PolicyConfig.model_validate({"algorithm": algorithm, "samples": 1, "rewards": [{"kind": "length"}]})


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_recipes_are_taken(text: str) -> None:
    Run.model_validate({"name": "page", **yaml.safe_load(text)})


def test_estimators_are_those_that_there_are() -> None:
    annotation = KlConfig.model_fields["estimator"].annotation
    names = [name for part in typing.get_args(annotation) for name in typing.get_args(part)]
    assert re.findall(r"^\| `(k\d)` \|", PAGE, re.MULTILINE) == names
