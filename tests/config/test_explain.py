"""What is written is read back the same, reasons and all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.config.explain import dump, explain, scalar
from tunesmith.config.fields import keys
from tunesmith.config.load import load_run, parse_run
from tunesmith.config.run import DataConfig, Run, TrainConfig

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
TRICKY = st.sampled_from(
    ["no", "1e-4", "null", "", "- a", "a: b", "# c", "'", '"', "010", "~", " a ", "\n", "!x"]
)


@settings(max_examples=40, deadline=None)
@given(
    instruction=TEXT | TRICKY,
    files=st.lists(TEXT | TRICKY, max_size=3),
    columns=st.dictionaries(TEXT | TRICKY, TEXT | TRICKY, max_size=3),
    rate=st.floats(min_value=1e-300, max_value=1e300),
)
def test_round_trip(instruction: str, files: list[str], columns: dict[str, str], rate: float) -> None:
    run = Run(
        data=DataConfig(train=files, instruction=instruction, columns=columns),
        train=TrainConfig(learning_rate=rate, early_stopping=None),
    )
    assert parse_run(dump(run)) == run
    assert parse_run(explain(run, {"data.instruction": "because", "seed": "a\nb"})) == run


@given(TEXT | TRICKY)
def test_a_value_is_one_line(text: str) -> None:
    assert len(scalar(text).splitlines()) == 1


@pytest.mark.parametrize("kind", ["sft", "classify", "regress", "tag"])
def test_every_field_has_a_line_and_its_reason(kind: str) -> None:
    leaves = [k for k in keys().values() if not k.sections and (not k.types or kind in k.types)]
    run = load_run(None, [f"method.type={kind}"])
    text = explain(run, {key.path: f"reason of {key.path}" for key in leaves})
    for key in leaves:
        (line,) = [line for line in text.splitlines() if line.endswith(f"# reason of {key.path}")]
        assert line.strip().startswith(f"{key.name}: ")
