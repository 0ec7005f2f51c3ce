"""The general sample: every text is measured, whole, whatever file it is in."""

from __future__ import annotations

import json

import pytest

from tunesmith.config.run import Run
from tunesmith.data.render import Renderer
from tunesmith.data.template import choose_template
from tunesmith.embedded import base_model_path
from tunesmith.errors import DataError
from tunesmith.workflow.prove import general_rows


@pytest.fixture(scope="module")
def renderer():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model_path())
    return Renderer(tokenizer, choose_template(tokenizer))


def rows(renderer, *paths, context=40):
    return general_rows(Run(evaluate={"forgetting": [str(p) for p in paths]}), renderer, context)


def test_a_long_text_becomes_windows_and_loses_nothing(renderer, tmp_path):
    text = " ".join(f"word{i}" for i in range(60))
    (tmp_path / "a.txt").write_text(f"{text}\n\nshort\n")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"text": text}) + "\n" + json.dumps({"text": "short"}) + "\n"
    )
    lines, table = rows(renderer, tmp_path / "a.txt"), rows(renderer, tmp_path / "a.jsonl")
    whole = rows(renderer, tmp_path / "a.txt", context=4000)
    assert len(whole) == 2
    assert max(r.num_tokens for r in lines) <= 40
    assert sum(r.num_tokens for r in lines) >= sum(r.num_tokens for r in whole) - 1
    assert [r.segments[0].ids.tolist() for r in lines] == [r.segments[0].ids.tolist() for r in table]


def test_rows_without_text_are_refused_by_name(renderer, tmp_path):
    (tmp_path / "b.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(DataError, match="body"):
        rows(renderer, tmp_path / "b.jsonl")
