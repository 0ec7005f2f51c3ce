"""`tunesmith data synth` and `augment` as a person or a script meets them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_main import Answer
from tests.desk.test_make import TICKETS, written

RECIPES = {
    "synth": """\
makers:
- kind: templates
  count: 6
  templates: [{answer: billing, prompt: ["{who} charged me {how}"]}]
  slots: {who: [you, they, it], how: [twice, again]}
""",
    "augment": "changes:\n- {kind: noise, case: 1}\n",
}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    return lambda *arguments: Answer(capsys, *arguments)


@pytest.mark.parametrize("verb", RECIPES)
def test_a_recipe_is_tried_then_carried_out(verb: str, run: Callable[..., Answer], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"data: {{train: '{written(tmp_path, TICKETS)}'}}\n{RECIPES[verb]}")
    output = tmp_path / "set"
    said = ("data", verb, str(recipe), "checks.novelty=null", "checks.label=null", "-o", str(output))
    trial = run(*said, "--dry-run")
    assert trial.code == 0
    assert "a trial: nothing was written" in trial.out
    assert "warning: no evaluation rows are named" in trial.err
    assert not output.exists()
    made = run(*said, "--json", "-q")
    assert (made.code, made.err) == (0, "")
    facts = json.loads(made.out)
    assert facts["synthetic"]["kept"] > 0
    assert facts["rows"]["train"] == len(TICKETS) + facts["synthetic"]["kept"]
    assert "synthetic rows kept, marked" in run("data", "show", str(output)).out
    assert "recipe" in run("data", verb, "--help").out.lower()


def test_what_is_wrong_in_a_recipe_is_said(run: Callable[..., Answer], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("data: {train: rows.jsonl}\nmakers: [{kind: gird}]\nchekcs: {}\n")
    answer = run("data", "synth", str(recipe))
    assert answer.code == 2
    assert "did you mean checks?" in answer.err
    assert "did you mean 'grid'?" in answer.err
    recipe.write_text("makers: [{kind: templates, count: 1, templates: [{prompt: [a]}]}]\n")
    assert "data.train names no seeds" in run("data", "synth", str(recipe)).err
