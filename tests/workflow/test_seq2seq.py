"""The main job with an encoder-decoder model: questions to the encoder, answers from the decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

import tunesmith
from tests.workflow.conftest import label_rows, read_jsonl, settings, write_jsonl
from tunesmith.config.run import Run
from tunesmith.embedded import base_model_path
from tunesmith.errors import ConfigError, ModelError
from tunesmith.workflow.predict import predict

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    tokenizer = AutoTokenizer.from_pretrained(base_model_path())
    torch.manual_seed(0)
    T5ForConditionalGeneration(
        T5Config(
            vocab_size=8192,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
        )
    ).save_pretrained(folder)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    return folder


def recipe(base: Path, folder: Path, **more: Any) -> dict[str, Any]:
    rows = [{"question": r["text"], "answer": f"it is {r['label']}"} for r in label_rows(96)]
    data = {
        "train": str(write_jsonl(folder / "train.jsonl", rows)),
        "test": str(
            write_jsonl(folder / "test.jsonl", rows[:12])
        ),  # seen in training: about learning, not truth
        "instruction": "which kind?",
    }
    return settings(base, folder, data, **more)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_it_learns_answers_and_loads_in_stock_transformers(t5: Path, tmp_path: Path, tuning: str) -> None:
    train = {"max_steps": 60, "eval_every": 30, "learning_rate": 3e-2 if tuning == "lora" else 1e-2}
    result = tunesmith.train(Run.model_validate(recipe(t5, tmp_path, method={"tuning": tuning}, train=train)))
    report = result.report
    assert report is not None
    losses = [loss for _, loss in report.curves.validation_loss]
    assert losses[-1] < 0.5 * losses[0]
    tuned = next(s for s in report.systems if s.name == "tuned").metrics
    assert {"rouge_l", "bleu", "chrf", "perplexity"} <= tuned.keys()
    answers = tmp_path / "answers.jsonl"
    predict(str(result.folder), tmp_path / "test.jsonl", answers, sink=lambda kind, /, **fields: None)
    said = [row["answer"] for row in read_jsonl(answers)]
    assert len(said) == 12
    if tuning == "full":
        assert all(text.startswith("it is") for text in said)
        tokenizer = AutoTokenizer.from_pretrained(result.folder / "model")
        stock = AutoModelForSeq2SeqLM.from_pretrained(result.folder / "model")
        asked = read_jsonl(tmp_path / "test.jsonl")[0]["question"]
        ids = tokenizer(f"which kind?\n\n{asked}", return_tensors="pt").input_ids
        out = stock.generate(input_ids=ids, max_new_tokens=8, do_sample=False)[0]
        assert tokenizer.decode(out, skip_special_tokens=True).strip() == said[0]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"method": {"supervise": "all"}}, ConfigError, "next-token"),
        ({"model": {"template": "plain"}}, ConfigError, "no template"),
        ({"model": {"path": "layout"}}, ModelError, "encoder-decoder"),
        ({"method": {"type": "classify"}}, ModelError, "no head here"),
    ],
)
def test_what_an_encoder_decoder_model_cannot_do_is_refused(
    t5: Path, tmp_path: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    tree = recipe(t5, tmp_path)
    if change.get("method", {}).get("type") == "classify":
        rows = [{"text": r["text"], "label": r["label"]} for r in label_rows(40)]
        tree["data"] = {"train": str(write_jsonl(tmp_path / "labels.jsonl", rows))}
    for section, values in change.items():
        tree[section] = {**tree[section], **values}
    with pytest.raises(error, match=words):
        tunesmith.train(Run.model_validate(tree))
