"""docs/rewards.md says what the classes say: its tables, recipes, errors and thresholds are held to the code."""

from __future__ import annotations

import re
import sys
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from tests.scoring.rewards.rows import row
from tunesmith.config.explain import scalar
from tunesmith.config.policy import PolicyConfig
from tunesmith.config.rewards import JUDGE_PROMPT, Curve, Reward, RewardPart
from tunesmith.config.run import DataConfig
from tunesmith.config.section import Section
from tunesmith.data.load import load_splits
from tunesmith.errors import TunesmithError
from tunesmith.scoring import alarms
from tunesmith.scoring.rewards import build_rewards
from tunesmith.scoring.rewards.combine import bend
from tunesmith.scoring.rewards.function import FunctionPart
from tunesmith.scoring.rewards.rows import row_of

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
KINDS: dict[str, Any] = {
    part.model_fields["kind"].default: part for part in typing.get_args(typing.get_args(RewardPart)[0])
}


def part_of(heading: str) -> str:
    """The text under a heading, up to the next."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def fields_of(heading: str) -> dict[str, str]:
    """field -> default of its first table."""
    table = (
        part_of(heading).partition("| field | default | meaning |\n|---|---|---|\n")[2].partition("\n\n")[0]
    )
    return {
        name.strip("`"): default
        for _, name, default, *_ in (map(str.strip, r.split("|")) for r in table.splitlines())
    }


def shown(default: Any) -> str:
    return f"`{scalar(default)}`"


def fields(section: Any) -> dict[str, str]:
    """But for what is a section itself."""
    return {
        name: "required" if info.is_required() else shown(info.default)
        for name, info in section.model_fields.items()
        if not isinstance(info.default, Section) and name != "kind"
    }


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def answered(part: dict[str, Any], *answers: str, **of_row: Any) -> Any:
    method = PolicyConfig.model_validate({"rewards": [part]})
    return build_rewards(method.rewards, lambda part: pytest.fail(part.path))(
        [row(**of_row)] * len(answers), answers
    )


def test_what_all_parts_have() -> None:
    found = fields_of("Every part")
    assert found.pop("kind") == "required"
    assert found.pop("curve") == f"`{Curve().shape}`"
    assert found == fields(Reward)
    assert fields_of("Curves") == fields(Curve)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_kind_with_its_default(kind: str) -> None:
    own = {n: text for n, text in fields(KINDS[kind]).items() if n not in Reward.model_fields}
    if kind == "judge":
        own["prompt"] = "below"
    assert fields_of(f"`{kind}`") == own


def test_no_kind_is_missing_and_none_is_invented() -> None:
    assert re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE) == sorted(
        KINDS, key=["verifier", "regex", "length", "function", "model", "judge"].index
    )
    checks = typing.get_args(KINDS["verifier"].model_fields["check"].annotation)
    assert set(re.findall(r"^\| `(\w+)` \| [A-Z]", part_of("`verifier`"), re.MULTILINE)) >= set(checks)
    assert f"```text\n{JUDGE_PROMPT}\n```" in PAGE


def test_curves_are_drawn_as_they_are() -> None:
    head = next(line for line in PAGE.splitlines() if line.startswith("| shape | x = "))
    places = np.array([float(cell.replace("x =", "")) for cell in head.split("|")[2:-2]])
    drawn = re.findall(r"^\| `(\w+)` \|((?: -?\d\.\d\d \|)+)", PAGE, re.MULTILINE)
    assert [shape for shape, _ in drawn] == list(typing.get_args(Curve.model_fields["shape"].annotation))
    for shape, cells in drawn:
        assert [f"{v:.2f}" for v in bend(Curve(shape=shape), places)] == cells.replace("|", "").split()  # type: ignore[arg-type]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_recipe_is_taken(text: str) -> None:
    PolicyConfig.model_validate(yaml.safe_load(text)["method"])


def test_rows_and_rewards_of_the_recipe_for_sums(tmp_path: Path) -> None:
    tree = yaml.safe_load(blocks("yaml")[1])
    number, mark = PolicyConfig.model_validate(tree["method"]).rewards
    rows = tmp_path / "train.jsonl"
    shown = re.findall(r"`(\{\"question.*?\})`", PAGE)[0]
    rows.write_text(shown + "\n" + shown.replace("She", "He"))
    data = DataConfig.model_validate(
        tree["data"] | {"train": str(rows), "format": "asked", "validation_fraction": 0, "test_fraction": 0}
    )
    gold = load_splits(data, 0).train[0].answer
    assert gold.endswith("#### 12")
    right = "3 * 4 is 12\n#### 12"
    assert answered(number.model_dump(), right, "It is 13.", answer=gold).total.tolist() == [1.0, 0.0]
    assert answered(mark.model_dump(), right, "It is 12.").total.tolist() == [0.1, 0.0]


def test_the_function_on_the_page_runs() -> None:
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    part = FunctionPart("mine:names_the_city", names["names_the_city"], True)
    example = row(answer="Oslo")
    assert part([example] * 2, ["oslo, surely", "Rome"]).tolist() == [1.0, 0.0]
    for key in row_of(example):
        assert f"`{key}`" in part_of("`function`")


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [{"kind": "regex", "pattern": "a"}, {"kind": "regex", "pattern": "b"}],
        [{"kind": "length", "curve": {"low": 1.0}}],
        [{"kind": "verifier", "check": "exact", "tolerance": 1}],
        [{"kind": "length", "tolerance": 2}],
        [{"kind": "regex", "pattern": "a", "count": True, "full": True}],
        [{"kind": "model", "path": "m", "reads": "prompt_and_answer"}],
        [{"kind": "judge", "url": "http://localhost/v1", "model": "m", "prompt": "Well?"}],
        [{"kind": "judge", "url": "http://localhost/v1", "model": "m", "api_key_env": "sk-123"}],
    ],
)
def test_settings_that_are_refused_in_the_words_of_the_page(parts: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError) as found:
        PolicyConfig.model_validate({"rewards": parts})
    said = found.value.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    assert f"\n{said}\n" in part_of("What is an error")


def test_answers_that_are_refused_in_the_words_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("mine")
    module.too_few = lambda prompts, answers, rows: [1.0]  # type: ignore[attr-defined]
    module.length = lambda prompts, answers, rows: [float("nan")]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine", module)
    for part, answers, gold in (
        ({"kind": "verifier", "check": "number"}, ["4"], ""),
        ({"kind": "regex", "pattern": "(a+a+)+b", "timeout": 0.05}, ["a" * 5000], "4"),
        ({"kind": "function", "path": "mine:too_few"}, ["4", "5"], "4"),
        ({"kind": "function", "path": "mine:length", "name": "length"}, ["An answer."], "4"),
    ):
        with pytest.raises(TunesmithError) as found:
            answered(part, *answers, answer=gold)
        assert f"\n{found.value}\n" in part_of("What is an error")


def test_thresholds_of_alarms() -> None:
    text = part_of("When the reward rises for the wrong reasons")
    for said in (
        f"{alarms.LONGER:g} times those of the start, or half; differences below {alarms.FEW_TOKENS:g} tokens",
        f"same answer, up by {100 * alarms.MORE_REPEATED:g} points",
        f"down to {100 * alarms.LESS_DISTINCT:g} % of the start",
        f"equal another one, up by {100 * alarms.MORE_IDENTICAL:g} points",
        f"`max_new_tokens`, up by {100 * alarms.MORE_AT_LIMIT:g} points",
        f"visible character, up by {100 * alarms.MORE_EMPTY:g} points",
        f"over {alarms.KL_SPIKE:g} times the median of the rollouts before, once there are {alarms.KL_HISTORY} of",
        f"over {alarms.KL_FLOOR:g} nats",
    ):
        assert said in text
    assert alarms.LONGER == 2.0  # "or half"
