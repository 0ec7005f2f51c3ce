"""A file of inputs in, a file of answers out: every row in its place, prompts as in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests.workflow.conftest import TOOLS_TEMPLATE, label_rows, read_jsonl, settings, write_jsonl
from tunesmith.config.run import DataConfig, Run
from tunesmith.data.account import Account
from tunesmith.data.load import read_examples
from tunesmith.data.readers import read_rows
from tunesmith.errors import ConfigError, DataError, ModelError
from tunesmith.evaluate.answers import Answerer
from tunesmith.types import Example
from tunesmith.workflow import predict as work
from tunesmith.workflow.open import load
from tunesmith.workflow.predict import predict


def silent(kind: str, /, **fields: Any) -> None:
    pass


def answers(model: Path, source: Path, **how: Any) -> list[dict[str, Any]]:
    target = source.with_name("answers.jsonl")
    predict(str(model), source, target, sink=silent, **{"max_new_tokens": 6, **how})
    return read_jsonl(target)


def test_every_row_is_answered_in_order_and_bad_ones_keep_their_place(trained, tmp_path):
    good = label_rows(7, seed=3)
    rows = [
        good[0],
        "{broken",
        good[1],
        {"text": None},
        {"text": 5},
        {"text": " "},
        *good[2:],
        {"no": "text"},
    ]
    found = answers(trained("full").folder, write_jsonl(tmp_path / "in.jsonl", rows), batch_size=3)
    assert [r["line"] for r in found] == list(range(1, 13))
    bad = [r["line"] for r in found if "error" in r]
    assert bad == [2, 4, 5, 6, 12]
    assert all(f"in.jsonl:{r['line']}" in r["error"] for r in found if "error" in r)
    expected = list(load(trained("full").folder).predict([r["text"] for r in good], max_new_tokens=6))
    assert [r["answer"] for r in found if "answer" in r] == expected
    assert set(expected) & {"fruit", "metal", "animal"}


def test_a_first_row_without_the_input_is_one_bad_row(trained, tmp_path):
    rows = [{"id": 1}, {"text": "a dog is here"}]
    found = answers(trained("full").folder, write_jsonl(tmp_path / "in.jsonl", rows))
    assert "error" in found[0]
    assert "answer" in found[1]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_batch_size_does_not_change_an_answer(tuning, trained, tmp_path):
    rows = [{"text": "a dog " * (1 + i % 5) + r["text"]} for i, r in enumerate(label_rows(10))]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    one = answers(trained(tuning).folder, source, batch_size=1)
    assert (
        one
        == answers(trained(tuning).folder, source, batch_size=4)
        == answers(trained(tuning).folder, source)
    )


def test_without_a_target_the_answers_go_to_standard_output(trained, tmp_path, capsys):
    source = write_jsonl(tmp_path / "in.jsonl", label_rows(2))
    predict(str(trained("full").folder), source, None, sink=silent)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["line"] for r in found] == [1, 2]


def test_what_was_asked_and_answered_is_logged_as_rows_to_learn_from(trained, tmp_path):
    rows = [*label_rows(5, seed=3), "{broken"]
    source, log = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "log.jsonl"
    folder = trained("full").folder
    found = answers(folder, source, batch_size=2, log=log)
    answers(folder, source, log=log, max_new_tokens=1)
    lines = read_jsonl(log)
    assert len(lines) == 10
    assert len({line["id"] for line in lines}) == 10
    assert [line["source"] for line in lines] == 2 * [f"{source}:{n}" for n in range(1, 6)]
    assert {(line["model"], len(line["weights"])) for line in lines} == {(str(folder), 16)}
    account = Account("skip")
    again, _ = read_examples([str(log)], DataConfig(), account)
    ended = [row for row in found if row.get("ended")]
    assert [row.answer for row in again if row.ref.line <= 5] == [row["answer"] for row in ended]
    prompts = {row.ref.line: row.messages[:-1] for row in again}
    opened = load(folder)
    wanted = [opened._example(row["text"], 0).prompt for row in rows[:5]]
    assert all(prompts[line] == wanted[line - 1] for line in prompts if line <= 5)
    cut = 10 - len(again)  # an answer that was cut off is no whole one
    assert cut == sum(line["response"]["choices"][0]["finish_reason"] == "length" for line in lines) > 0
    assert account.summary()["dropped"] == {"unfinished_answer": cut}


def test_a_log_is_no_file_of_the_rows_or_answers(trained, tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", label_rows(2))
    with pytest.raises(ConfigError, match="rows or the answers"):
        answers(trained("full").folder, source, log=source)
    assert read_jsonl(source) == label_rows(2)


def test_a_file_that_fails_leaves_no_answers_behind(trained, tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("id,colour\n1,red\n")
    with pytest.raises(DataError, match="no input column"):
        answers(trained("full").folder, source)
    assert [p.name for p in tmp_path.iterdir()] == ["in.csv"]


def test_a_column_can_be_named_and_a_wrong_name_is_corrected(trained, tmp_path):
    source = write_jsonl(tmp_path / "in.jsonl", [{"body": "a dog is here", "text": "iron"}])
    (found,) = answers(trained("full").folder, source, column="body")
    (other,) = answers(trained("full").folder, write_jsonl(tmp_path / "b.jsonl", [{"text": "a dog is here"}]))
    assert found["answer"] == other["answer"]
    with pytest.raises(DataError, match="no column 'bodi'") as caught:
        answers(trained("full").folder, source, column="bodi")
    assert "body" in caught.value.expected


def seen_prompts(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    prompts: list[list[int]] = []
    real = Answerer.prompt

    def prompt(self: Answerer, example: Example, shots: Any = ()) -> list[int]:
        prompts.append(real(self, example, shots))
        return prompts[-1]

    monkeypatch.setattr(Answerer, "prompt", prompt)
    return prompts


def training_prompts(model: Path, file: Path, config: DataConfig) -> list[list[int]]:
    """The ids before the last answer's first supervised token, from the renderer's training rows."""
    opened = load(model)
    examples, _ = read_examples([str(file)], config, Account())
    out = []
    for example in examples:
        (row,) = opened.renderer.rows(example, "completion")
        (segment,) = row.segments
        out.append(segment.ids[: int((segment.weights > 0).argmax())].tolist())
    return out


MESSAGES = [
    {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": r["text"]},
            {"role": "assistant", "content": "Hm."},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": r["label"]},
        ]
    }
    for r in label_rows(4)
]
ROWS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "label": (label_rows(4), {}),
    "label with a system column": ([{**r, "system": "Be kind."} for r in label_rows(4)], {}),
    "prompt": ([{"prompt": r["text"], "completion": r["label"]} for r in label_rows(4)], {}),
    "instruction and input": (
        [{"instruction": "Name it.", "input": r["text"], "output": r["label"]} for r in label_rows(4)],
        {},
    ),
    "messages": (MESSAGES, {"instruction": None}),
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_prompt_has_the_very_ids_that_it_had_in_training(kind, trained, tmp_path, monkeypatch):
    rows, config = ROWS[kind]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    folder = trained("full").folder
    expected = training_prompts(
        folder, source, DataConfig.model_validate({"instruction": "Which kind?", **config})
    )
    prompts = seen_prompts(monkeypatch)
    answers(folder, source)
    assert prompts == expected


def test_tools_are_part_of_the_prompt_as_in_training(base, tmp_path, monkeypatch, quick):
    template = tmp_path / "tools.jinja"
    template.write_text(TOOLS_TEMPLATE)
    tools = [{"type": "function", "function": {"name": "weigh"}}]
    rows = [{**row, "tools": tools} for row in MESSAGES * 6]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    data = {"train": str(source), "validation_fraction": 0, "test_fraction": 0}
    tree = settings(base, tmp_path, data, model={"template": str(template)}, train={"max_steps": 1})
    folder = tunesmith.train(Run.model_validate(tree)).folder
    expected = training_prompts(folder, source, DataConfig())
    prompts = seen_prompts(monkeypatch)
    answers(folder, source)
    assert prompts == expected


def test_messages_in_a_csv_cell_are_a_conversation(trained, tmp_path, monkeypatch):
    source = tmp_path / "in.csv"
    cell = json.dumps(MESSAGES[0]["messages"][:2]).replace('"', '""')
    source.write_text(f'messages\n"{cell}"\n')
    folder = trained("full").folder  # made before: a run has prompts of its own
    prompts = seen_prompts(monkeypatch)
    answers(folder, source)
    opened = load(folder)
    text = opened.loaded.tokenizer.decode(prompts[0])
    assert "<|im_start|>system\nBe kind.<|im_end|>" in text


def test_any_length_of_file_is_read_as_a_stream(trained, tmp_path, monkeypatch):
    """No more rows are taken from the file than say what its columns mean before the first are answered."""
    source = write_jsonl(tmp_path / "in.jsonl", label_rows(300))
    taken: list[int] = []

    def rows(path: Path) -> Any:
        for line, row in read_rows(path):
            taken.append(line)
            yield line, row

    monkeypatch.setattr(work, "read_rows", rows)
    opened = load(trained("full").folder)
    stream = work._answers(opened, source, None, 3, 4)
    assert [line for line, _, _ in next(stream)] == [1, 2, 3]
    assert len(taken) == 100


def test_the_api_answers_texts_and_conversations(trained):
    opened = tunesmith.load(trained("full").folder)
    text, chat = opened.predict(
        ["a dog is here", [{"role": "user", "content": "Which kind?\n\na dog is here"}]], max_new_tokens=6
    )
    assert text == chat


def test_an_answer_may_be_longer_than_a_small_context_allows_for(trained):
    """The context has 192 tokens: the default of 256 for an answer must leave the prompt what it needs."""
    opened = load(trained("full").folder)
    answerer = opened.answerer(256, 4)
    (example,) = [opened._example("a dog is here", 0)]
    assert answerer.prompt(example) == opened.renderer.prompt_ids(example.prompt)


def test_a_changed_template_is_refused(trained, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(trained("full").folder / "model", folder)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>\n", "<|im_end|>\n\n"))
    with pytest.raises(ModelError, match="not the one it was trained with"):
        load(folder)


def test_the_columns_are_those_of_the_recipe_unless_one_is_named(base, tmp_path, monkeypatch, quick):
    """Training read `body`; without its label a file would otherwise be read by the usual names."""
    rows = [{"text": "no", "question": "no", "body": r["text"], "kind": r["label"]} for r in label_rows(40)]
    data = {
        "train": str(write_jsonl(tmp_path / "rows.jsonl", rows)),
        "columns": {"text": "body", "label": "kind"},
        "validation_fraction": 0,
        "test_fraction": 0,
    }
    folder = tunesmith.train(
        Run.model_validate(settings(base, tmp_path, data, train={"max_steps": 1}))
    ).folder
    source = write_jsonl(tmp_path / "in.jsonl", [{k: v for k, v in rows[0].items() if k != "kind"}])
    decode = load(folder).loaded.tokenizer.decode
    for model, column, expected in (
        (folder, None, rows[0]["body"]),
        (folder / "model", None, rows[0]["body"]),
        (folder, "question", "no"),
    ):
        prompts = seen_prompts(monkeypatch)
        answers(model, source, column=column)
        assert f"user\n{expected}<" in decode(prompts[0])


def test_an_adapter_answers_in_the_numbers_that_it_was_trained_in(base, labels, tmp_path, quick):
    tree = settings(
        base,
        tmp_path,
        {"train": str(labels)},
        model={"dtype": "float64"},
        method={"tuning": "lora"},
        train={"max_steps": 1},
    )
    folder = tunesmith.train(Run.model_validate(tree)).folder
    assert load(folder).loaded.model.module.dtype == torch.float64
    assert load(folder, dtype="float32").loaded.model.module.dtype == torch.float32
    assert load(base).loaded.model.module.dtype == torch.float32
